//! Blocks, transports for them, and functions that poll and limit a test.

use std::{pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::codec::{Encoder, Framed};
use wholeblock::{BlockCodec, BlockError, BlockTransport, Framing, LengthPrefix};

use crate::scripted::Scripted;

pub const KIB: usize = 1024;
pub const MIB: usize = 1024 * KIB;

/// Blocks of `lens` bytes, no two alike. Bytes differ within a block, too.
pub fn numbered(lens: &[usize]) -> Vec<Bytes> {
    let block = |(index, &len): (usize, &usize)| {
        (0..len)
            .map(|at| (index * 131 + at * 7 + at / 251) as u8)
            .collect()
    };
    lens.iter().enumerate().map(block).collect()
}

/// Numbered blocks of `lens` bytes, clamped to the lengths that `framing` carries.
pub fn numbered_for<F: Framing>(framing: &F, lens: &[usize]) -> Vec<Bytes> {
    let carried = framing.block_lens();
    let most = framing.max_whole_len().min(*carried.end());
    let clamp = |&len: &usize| (len as u64).clamp(*carried.start(), most) as usize;
    numbered(&lens.iter().map(clamp).collect::<Vec<_>>())
}

/// Short blocks that `framing` carries, some of them empty if it carries those.
pub fn blocks_for<F: Framing>(framing: &F) -> Vec<Bytes> {
    numbered_for(framing, &[3, 0, 1, 130, 2, 255, 0, 17])
}

/// Blocks over `io`, behind the default prefix: a big-endian u32.
pub fn prefixed<T: AsyncRead + AsyncWrite>(io: T) -> Framed<T, BlockCodec<LengthPrefix>> {
    Framed::new(io, BlockCodec::length_prefixed())
}

/// The same in a `BlockTransport`.
pub fn transport<T>(io: T) -> BlockTransport<T, LengthPrefix> {
    BlockTransport::new(io, BlockCodec::length_prefixed())
}

/// The bytes of `blocks` on the wire.
pub fn wire<F: Framing>(framing: F, blocks: &[Bytes]) -> Vec<u8> {
    let mut codec = BlockCodec::new(framing);
    let mut wire = BytesMut::new();
    for block in blocks {
        codec.encode(block.clone(), &mut wire).unwrap();
    }
    wire.into()
}

/// Receives all blocks until the end or the first error.
pub fn collect<F: Framing>(
    framed: &mut Framed<Scripted, BlockCodec<F>>,
) -> (Vec<Bytes>, Option<BlockError>) {
    let mut blocks = Vec::new();
    loop {
        match ready(framed.next()) {
            None => return (blocks, None),
            Some(Ok(block)) => blocks.push(block.freeze()),
            Some(Err(error)) => return (blocks, Some(error)),
        }
    }
}

/// Polls `future` until it is ready, without waiting to be woken.
pub fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..100_000 {
        if let Some(done) = future.as_mut().now_or_never() {
            return done;
        }
    }
    panic!("still pending after 100,000 polls: it hangs");
}

/// Runs a test over real transports. None takes a second; the limit turns a hang into a failure.
pub async fn within_limit<T>(test: impl Future<Output = T>) -> T {
    const LIMIT: Duration = Duration::from_secs(60);
    timeout(LIMIT, test).await.expect("it takes too long")
}

/// Two ends of a connection over loopback.
pub async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}
