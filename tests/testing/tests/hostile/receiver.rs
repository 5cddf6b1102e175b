//! Attacks on a program that receives.

mod attacks;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, future::BoxFuture};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::interval,
};
use tokio_util::codec::Encoder;
use wholeblock::{AnyFraming, BlockCodec, BlockError, BlockStream, BlockTransport, recv_blocks};

pub(crate) use self::attacks::{
    announcements, decoys, dribbles, floods, half_closes, resets, silences,
};
use crate::crowd::{Attack, reset};

/// A timeout that is meant to expire, and one that is not.
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);

/// Length in bytes from which a receiver that reads part by part discards a block.
const DISCARDED: usize = 60_000;

/// What a peer sends and then does, and what its receiver must get.
struct Sent {
    name: String,
    framing: AnyFraming,
    /// The whole blocks, which the receiver gets.
    blocks: Vec<Bytes>,
    /// Their bytes on the wire, and what follows them.
    wire: Bytes,
    then: Then,
    /// The error after the blocks, or `None` for a clean end.
    error: Option<BlockError>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Silence,
    /// A byte at a time, for ever.
    Dribble,
    HalfClose,
    Reset,
}

impl Sent {
    /// Sends some whole blocks and then `front`. `error` takes the index and the offset after these blocks.
    fn new(
        name: impl Into<String>,
        framing: impl Into<AnyFraming>,
        front: &[u8],
        then: Then,
        error: impl FnOnce(u64, u64) -> Option<BlockError>,
    ) -> Self {
        let framing = framing.into();
        let blocks = match framing {
            AnyFraming::Exact(_) => vec![Bytes::from_static(b"0123456789"); 2],
            _ => vec![Bytes::from_static(b"one"), Bytes::new()],
        };
        let mut wire = wire(framing, &blocks);
        let error = error(blocks.len() as u64, wire.len() as u64);
        wire.extend_from_slice(front);
        Self {
            name: name.into(),
            framing,
            blocks,
            wire: wire.freeze(),
            then,
            error,
        }
    }
}

fn wire(framing: AnyFraming, blocks: &[Bytes]) -> BytesMut {
    let mut wire = BytesMut::new();
    let mut codec = BlockCodec::new(framing);
    for block in blocks {
        codec.encode(block.clone(), &mut wire).unwrap();
    }
    wire
}

impl Attack for Sent {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn peer(&self, mut socket: TcpStream, over: oneshot::Receiver<()>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            socket.write_all(&self.wire).await.unwrap();
            match self.then {
                Then::Silence => {}
                Then::Dribble => return dribble(socket, over).await,
                Then::HalfClose => socket.shutdown().await.unwrap(),
                Then::Reset => return reset(socket),
            }
            let _ = over.await; // its sender is dropped
        })
    }

    fn victim(&self, socket: TcpStream, turn: usize) -> BoxFuture<'_, Duration> {
        Box::pin(async move {
            let mut expected = self.blocks.iter();
            let error = self
                .receive(socket, turn, |block| {
                    let expected = expected.next().map_or(&[][..], Bytes::as_ref);
                    let is_front = expected.len() >= DISCARDED && expected.starts_with(block);
                    assert!(is_front || block == expected, "{}: {block:?}", self.name);
                })
                .await;
            assert_eq!(
                expected.len(),
                0,
                "{}: blocks are missing, {error:?}",
                self.name
            );
            assert_same(error.as_ref(), self.error.as_ref(), &self.name);
            self.waited()
        })
    }
}

/// Sends a byte now and then until the other end gives up.
async fn dribble(mut socket: TcpStream, mut over: oneshot::Receiver<()>) {
    // As a length, more than arrives before the deadline, and less than the largest one at any place.
    const BYTE: u8 = 0x3f;
    let mut beats = interval(Duration::from_millis(50));
    while over.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
        beats.tick().await;
        if socket.write_all(&[BYTE]).await.is_err() {
            return;
        }
    }
}

impl Sent {
    /// How long a receiver must wait before it can know.
    fn waited(&self) -> Duration {
        match self.error {
            Some(BlockError::Stalled { .. } | BlockError::Late { .. }) => SHORT,
            _ => Duration::ZERO,
        }
    }

    /// The stall timeout and the block deadline.
    fn timeouts(&self) -> (Duration, Duration) {
        match self.then {
            Then::Dribble => (LONG, SHORT),
            _ => (SHORT, LONG),
        }
    }

    /// Receives in one of several ways until the end, or an error.
    async fn receive(
        &self,
        socket: TcpStream,
        way: usize,
        see: impl FnMut(&[u8]) + Send,
    ) -> Option<BlockError> {
        let (stall, block) = self.timeouts();
        let transport = BlockTransport::new(socket, BlockCodec::new(self.framing));
        let limited = |transport: Transport| transport.stall_timeout(stall).block_deadline(block);
        // `Framed` itself has no timeout.
        let ways = if self.waited().is_zero() { 7 } else { 6 };
        match way % ways {
            0 => take(limited(transport), see).await,
            1 => lend(limited(transport), see).await,
            2 => lend_batches(limited(transport), see).await,
            3 => self.receive_each(transport, see).await,
            4 => self.receive_each(transport.into_framed(), see).await,
            5 => read(limited(transport), see).await.err(),
            _ => take(transport.into_framed(), see).await,
        }
    }

    /// Receives by `recv_blocks`, with its own timeouts.
    async fn receive_each<R>(&self, mut from: R, mut see: impl FnMut(&[u8])) -> Option<BlockError>
    where
        R: BlockStream<Error = BlockError>,
    {
        let (stall, block) = self.timeouts();
        let mut blocks = recv_blocks(&mut from)
            .stall_timeout(stall)
            .block_deadline(block);
        loop {
            match blocks.next().await {
                Ok(Some(block)) => see(block),
                Ok(None) => return None,
                Err(error) => return Some(error),
            }
        }
    }
}

type Transport = BlockTransport<TcpStream, AnyFraming>;

async fn lend(mut transport: Transport, mut see: impl FnMut(&[u8])) -> Option<BlockError> {
    loop {
        match transport.recv().await {
            Ok(Some(block)) => see(block),
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}

async fn lend_batches(mut transport: Transport, mut see: impl FnMut(&[u8])) -> Option<BlockError> {
    loop {
        match transport.recv_batch().await {
            Ok(Some(batch)) => batch.for_each(&mut see),
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}

/// Receives by `recv_reader`, with the limit for whole blocks. For a discarded block, `see` gets its front
/// once the block has passed.
async fn read(mut transport: Transport, mut see: impl FnMut(&[u8])) -> Result<(), BlockError> {
    let max = transport.codec().max_decode_len() as u64;
    transport.codec_mut().set_max_reader_len(max);
    let mut discarded: Option<[u8; 5]> = None;
    loop {
        let reader = transport.recv_reader().await?;
        if let Some(front) = discarded.take() {
            see(&front);
        }
        let Some(mut reader) = reader else {
            return Ok(());
        };
        if reader.len() >= DISCARDED as u64 {
            let mut front = [0; 5];
            reader.read_exact(&mut front).await?;
            discarded = Some(front);
        } else {
            let mut block = vec![];
            reader.read_to_end(&mut block).await?;
            see(&block);
        }
    }
}

async fn take<S>(mut blocks: S, mut see: impl FnMut(&[u8])) -> Option<BlockError>
where
    S: Stream<Item = Result<BytesMut, BlockError>> + Unpin,
{
    loop {
        match blocks.next().await? {
            Ok(block) => see(&block),
            Err(error) => return Some(error),
        }
    }
}

fn assert_same(actual: Option<&BlockError>, expected: Option<&BlockError>, name: &str) {
    use BlockError::{InvalidHeader, Io, Late, Stalled, TooLarge, Truncated};
    use std::io::ErrorKind::{InvalidData, TimedOut, UnexpectedEof};

    let kind = expected.map(|expected| match expected {
        Truncated { .. } => UnexpectedEof,
        TooLarge { .. } | InvalidHeader { .. } => InvalidData,
        Stalled { .. } | Late { .. } => TimedOut,
        Io(error) => error.kind(),
        _ => panic!("no peer can cause {expected:?}"),
    });
    assert_eq!(actual.map(BlockError::kind), kind, "{name}: {actual:?}");
    match (actual, expected) {
        (Some(Io(_)), Some(Io(_))) => {} // made elsewhere, they never look the same
        _ => assert_eq!(format!("{actual:?}"), format!("{expected:?}"), "{name}"),
    }
}
