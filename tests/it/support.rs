//! What the tests share: one scripted transport, one framing that is not the crate's own, and the
//! list of framings that every rule is tried with.

mod scripted;
mod watched;

use std::{ops::RangeInclusive, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::codec::{Encoder, Framed};
use wholeblock::{BlockCodec, BlockError, Framing, Header, InvalidHeader, LengthPrefix};

pub(crate) use self::{scripted::Scripted, watched::Watched};

pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;

/// Bytes in one write at most: the crate's constant of this name, which its users cannot see.
pub(crate) const MAX_WRITE: usize = 60 * KIB;

/// A user's own header: `"WB"`, version 1, the payload's length as a big-endian u24.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Magic;

impl Magic {
    pub(crate) const MAX: usize = 0xff_ffff;
}

impl Framing for Magic {
    fn block_lens(&self) -> RangeInclusive<usize> {
        0..=Self::MAX
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let known = front.len().min(3);
        if front[..known] != b"WB\x01"[..known] {
            return Err(InvalidHeader("it does not start with WB, version 1"));
        }
        Ok(match *front {
            [_, _, _, a, b, c, ..] => Header::Complete {
                header_len: 6,
                payload_len: u64::from(u32::from_be_bytes([0, a, b, c])),
            },
            _ => Header::Incomplete { at_least: 6 },
        })
    }

    fn encode_header(&self, payload_len: usize, dst: &mut impl BufMut) {
        dst.put_slice(b"WB\x01");
        dst.put_uint(payload_len as u64, 3);
    }
}

/// Calls `$check(name, framing)` with every framing there is.
macro_rules! with_each_framing {
    ($check:expr) => {{
        use wholeblock::{Exact, LengthPrefix, Varint};
        $check("exact", Exact::new(5).unwrap());
        $check("u8", LengthPrefix::u8());
        $check("u16 LE", LengthPrefix::u16().little_endian());
        $check("u24", LengthPrefix::bytes(3).unwrap());
        $check("u32", LengthPrefix::u32());
        $check(
            "u32 including its header",
            LengthPrefix::u32().including_header().unwrap(),
        );
        $check("u56 LE", LengthPrefix::bytes(7).unwrap().little_endian());
        $check("u64", LengthPrefix::u64());
        $check("varint", Varint::new());
        $check("a user's own", $crate::support::Magic);
    }};
}
pub(crate) use with_each_framing;

/// Blocks of `lens` bytes, of which no two are alike, nor any two places in one.
pub(crate) fn numbered(lens: &[usize]) -> Vec<Bytes> {
    let block = |(index, &len): (usize, &usize)| {
        (0..len)
            .map(|at| (index * 131 + at * 7 + at / 251) as u8)
            .collect()
    };
    lens.iter().enumerate().map(block).collect()
}

/// Numbered blocks of `lens` bytes, or the length nearest to that which `framing` carries.
pub(crate) fn numbered_for<F: Framing>(framing: &F, lens: &[usize]) -> Vec<Bytes> {
    let carried = framing.block_lens();
    let clamp = |&len: &usize| len.clamp(*carried.start(), *carried.end());
    numbered(&lens.iter().map(clamp).collect::<Vec<_>>())
}

/// Short blocks that `framing` carries, some of them empty if it can.
pub(crate) fn blocks_for<F: Framing>(framing: &F) -> Vec<Bytes> {
    numbered_for(framing, &[3, 0, 1, 130, 2, 255, 0, 17])
}

/// Blocks over `io`, behind the default prefix: a big-endian u32.
pub(crate) fn prefixed<T: AsyncRead + AsyncWrite>(io: T) -> Framed<T, BlockCodec<LengthPrefix>> {
    Framed::new(io, BlockCodec::length_prefixed())
}

/// The bytes of `blocks` on the wire.
pub(crate) fn wire<F: Framing>(framing: F, blocks: &[Bytes]) -> Vec<u8> {
    let mut codec = BlockCodec::new(framing);
    let mut wire = BytesMut::new();
    for block in blocks {
        codec.encode(block.clone(), &mut wire).unwrap();
    }
    wire.into()
}

/// All blocks until the end or the first error.
pub(crate) fn collect<F: Framing>(
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

/// Polls `future` until it is ready; it must be runnable all along.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    for _ in 0..100_000 {
        if let Some(done) = future.as_mut().now_or_never() {
            return done;
        }
    }
    panic!("still pending after 100,000 polls: it hangs");
}

/// Runs a test over real transports. None takes a second; this only keeps a failure from being a
/// hang.
pub(crate) async fn within_limit(test: impl Future<Output = ()>) {
    const LIMIT: Duration = Duration::from_secs(60);
    timeout(LIMIT, test).await.expect("it takes too long");
}

/// Bytes of the header before a payload of `len` bytes.
pub(crate) fn header_len<F: Framing>(framing: &F, len: usize) -> usize {
    let mut header = BytesMut::new();
    framing.encode_header(len, &mut header);
    header.len()
}
