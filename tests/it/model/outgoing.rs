//! The sending half of a session.

use std::{
    cell::Cell,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, Stream, StreamExt};
use wholeblock::{BlockError, Payload, TransferStats, send_blocks, try_send_blocks};

use super::{
    coverage::met,
    link::{End, Link, Speaks, sending},
    receive::forget_if,
    socket::{Socket, poll_often},
    wire::{Wire, refusal},
};
use crate::support::MAX_WRITE;

/// What has been sent, and is to be on the wire after a flush.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) stage: usize,
    pub(crate) wire: Wire,
    pub(crate) max: usize,
    bytes: Vec<u8>,
    /// Where on the wire each block ends.
    ends: Vec<usize>,
    /// Blocks that the codec has encoded.
    encoded: u64,
    /// Blocks made, sent or not.
    made: usize,
    pub(crate) closed: bool,
}

/// A block to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft {
    pub(crate) len: usize,
    /// Whether it is to be sent as it is, though its wire may not carry it.
    pub(crate) raw: bool,
    pub(crate) kind: Kind,
}

/// What a block to send is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Bytes,
    BytesMut,
    Vec,
    Boxed,
    Borrowed,
    Array,
}

#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    pub(crate) blocks: Vec<Draft>,
    /// Whether the source has nothing at first, before each block.
    pub(crate) pausing: bool,
    /// Whether the source fails after its last block.
    pub(crate) failing: bool,
    pub(crate) polls: usize,
    pub(crate) leaked: bool,
}

impl Outgoing {
    pub(crate) fn new(wire: Wire) -> Self {
        Self {
            stage: 0,
            wire,
            max: *wire.lens().end(),
            bytes: vec![],
            ends: vec![],
            encoded: 0,
            made: 0,
            closed: false,
        }
    }

    /// Blocks from now on go on this wire.
    pub(crate) fn speak(&mut self, stage: usize, wire: Wire) {
        (self.stage, self.wire, self.max) = (stage, wire, *wire.lens().end());
    }

    fn make(&mut self, draft: Draft) -> Bytes {
        self.made += 1;
        let (min, max) = (*self.wire.lens().start(), self.max);
        if !draft.raw {
            return self.wire.block(self.made, draft.len.clamp(min, max));
        }
        let len = draft.len.max(min.min(5)); // a header that it brings itself is all there
        let mut block = self.wire.block(self.made, len).to_vec();
        if let (Some(byte), 0) = (block.get_mut(4), draft.len % 2) {
            *byte ^= 1; // a lie, where this is a length
        }
        block.into()
    }

    fn refusal(&self, block: &[u8]) -> Option<String> {
        refusal(&self.wire, self.max, block, self.encoded)
    }

    fn push(&mut self, block: &[u8]) {
        self.bytes.extend(self.wire.header(block.len()));
        self.bytes.extend_from_slice(block);
        self.ends.push(self.bytes.len());
        self.encoded += 1;
    }

    /// Panics unless what is on the wire is a front of what was sent.
    fn assert_front(&self, socket: &Socket) {
        socket.written(|written| {
            assert!(
                self.bytes.starts_with(written),
                "not what was sent, after {}",
                written.len()
            );
        });
    }

    /// Panics unless everything sent is on the wire, and flushed.
    fn assert_flushed(&self, socket: &Socket) {
        let written = socket.written(<[u8]>::len);
        assert_eq!(written, self.bytes.len(), "bytes are held back");
        assert!(socket.is_flushed(), "not flushed");
    }

    /// Takes note of a block that was given to the sink, and what came of it.
    fn given(&mut self, block: &[u8], error: Option<&BlockError>) {
        match (error, self.refusal(block)) {
            (None, None) => self.push(block),
            (Some(error), Some(refusal)) => {
                met("a block refused");
                assert_eq!(format!("{error:?}"), refusal);
            }
            (error, refusal) => panic!("{error:?} instead of {refusal:?}"),
        }
    }
}

/// Panics unless an error is the socket's where that has failed.
fn assert_failure(error: Option<&BlockError>, failure: Option<io::ErrorKind>) {
    let kind = match error {
        Some(BlockError::Io(error)) => {
            met("a write that failed");
            Some(error.kind())
        }
        _ => None,
    };
    assert_eq!(kind, failure, "the socket's error");
}

/// Queues blocks, until one is not taken.
pub(crate) fn feed<F: Speaks>(
    link: &mut Link<F>,
    outgoing: &mut Outgoing,
    socket: &Socket,
    blocks: &[Draft],
    polls: usize,
    leaked: bool,
) {
    for draft in blocks {
        let block = outgoing.make(*draft);
        let end = link.sender();
        let polled = sending!(&mut *end, |it| {
            let mut future = Box::pin(it.feed(block.clone()));
            let polled = poll_often(future.as_mut(), polls, socket);
            forget_if(leaked && polled.is_pending(), future);
            polled
        });
        outgoing.assert_front(socket);
        let error = match &polled {
            Poll::Ready(Err(error)) => Some(error),
            _ => None,
        };
        assert_failure(error, socket.write_failure());
        match &polled {
            Poll::Pending => return met("a feed given up"), // it drops its block
            Poll::Ready(Err(BlockError::Io(_))) => return,
            Poll::Ready(result) => outgoing.given(&block, result.as_ref().err()),
        }
        met("a block fed");
        if let End::Transport(_) = end {
            let queued = outgoing.bytes.len() - socket.written(<[u8]>::len);
            assert!(
                queued < MAX_WRITE + block.len() + 8,
                "{queued} bytes queued"
            );
        }
    }
}

/// Polls a flush so often. Returns whether it is done.
pub(crate) fn flush<F: Speaks>(
    link: &mut Link<F>,
    outgoing: &mut Outgoing,
    socket: &Socket,
    polls: usize,
    leaked: bool,
) -> bool {
    let polled = sending!(link.sender(), |it| {
        let mut future = Box::pin(SinkExt::<Bytes>::flush(it));
        let polled = poll_often(future.as_mut(), polls, socket);
        forget_if(leaked, future);
        polled
    });
    outgoing.settled(polled, socket)
}

pub(crate) fn close<F: Speaks>(
    link: &mut Link<F>,
    outgoing: &mut Outgoing,
    socket: &Socket,
    polls: usize,
) -> bool {
    let polled = sending!(link.sender(), |it| {
        poll_often(pin!(SinkExt::<Bytes>::close(it)), polls, socket)
    });
    let done = outgoing.settled(polled, socket);
    assert_eq!(socket.is_shut_down(), done || outgoing.closed);
    outgoing.closed |= done;
    done
}

impl Outgoing {
    /// Panics unless a flush ends as it should. Returns whether it is done.
    fn settled(&mut self, polled: Poll<Result<(), BlockError>>, socket: &Socket) -> bool {
        self.assert_front(socket);
        let error = match &polled {
            Poll::Ready(Err(error)) => Some(error),
            _ => None,
        };
        assert_failure(error, socket.write_failure());
        match polled {
            Poll::Pending => {
                met("a flush given up");
                false
            }
            Poll::Ready(Err(error)) => {
                assert!(matches!(error, BlockError::Io(_)), "{error:?}");
                false
            }
            Poll::Ready(Ok(())) => {
                self.assert_flushed(socket);
                true
            }
        }
    }
}

/// A source that counts what was taken from it.
struct Source<'a> {
    blocks: &'a [(Given, Bytes)],
    taken: &'a Cell<usize>,
    pausing: bool,
    paused: bool,
    /// Whether it had nothing when it was last asked.
    waits: &'a Cell<bool>,
}

impl Stream for Source<'_> {
    type Item = Given;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Given>> {
        self.paused = self.pausing && !self.paused;
        self.waits.set(self.paused);
        if self.paused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.blocks.get(self.taken.get());
        self.taken
            .set(self.taken.get() + usize::from(next.is_some()));
        Poll::Ready(next.map(|(given, _)| given.clone()))
    }
}

/// A payload of any kind that there is.
#[derive(Clone)]
enum Given {
    Bytes(Bytes),
    BytesMut(BytesMut),
    Vec(Vec<u8>),
    Boxed(Box<[u8]>),
    Borrowed(&'static [u8]),
    Array([u8; 5]),
}

impl Given {
    fn new(block: &Bytes, kind: Kind) -> Self {
        match kind {
            Kind::BytesMut => Self::BytesMut(block[..].into()),
            Kind::Vec => Self::Vec(block.to_vec()),
            Kind::Boxed => Self::Boxed(block[..].into()),
            Kind::Borrowed => Self::Borrowed(block.to_vec().leak()),
            Kind::Array => match block[..].try_into() {
                Ok(array) => Self::Array(array),
                Err(_) => Self::Bytes(block.clone()),
            },
            Kind::Bytes => Self::Bytes(block.clone()),
        }
    }
}

impl AsRef<[u8]> for Given {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Bytes(it) => it,
            Self::BytesMut(it) => it,
            Self::Vec(it) => it,
            Self::Boxed(it) => it,
            Self::Borrowed(it) => it,
            Self::Array(it) => it,
        }
    }
}

impl Payload for Given {
    fn into_bytes(self) -> Result<Bytes, Self> {
        match self {
            Self::Bytes(it) => it.into_bytes().map_err(Self::Bytes),
            Self::BytesMut(it) => it.into_bytes().map_err(Self::BytesMut),
            Self::Vec(it) => it.into_bytes().map_err(Self::Vec),
            Self::Boxed(it) => it.into_bytes().map_err(Self::Boxed),
            Self::Borrowed(it) => it.into_bytes().map_err(Self::Borrowed),
            Self::Array(it) => it.into_bytes().map_err(Self::Array),
        }
    }
}

/// What came of a transfer, and what it says it has moved.
type Moved = (Poll<Result<TransferStats, BlockError>>, TransferStats);

/// Sends a stream of blocks.
pub(crate) fn transfer<F: Speaks>(
    link: &mut Link<F>,
    outgoing: &mut Outgoing,
    socket: &Socket,
    transfer: &Transfer,
) {
    let make = |draft: &Draft| {
        let block = outgoing.make(*draft);
        (Given::new(&block, draft.kind), block)
    };
    let blocks: Vec<_> = transfer.blocks.iter().map(make).collect();
    let (taken, waits) = (Cell::new(0), Cell::new(false));
    let source = Source {
        blocks: &blocks,
        taken: &taken,
        pausing: transfer.pausing,
        paused: false,
        waits: &waits,
    };
    let end = link.sender();
    let keeps_all = matches!(end, End::Transport(_));
    let (polled, stats) = sending!(&mut *end, |it| match transfer.failing {
        true => {
            let failure = futures::stream::once(async { Err("it fails") });
            let source = source.map(Ok).chain(failure);
            run(
                try_send_blocks(it, source),
                |it| it.stats(),
                socket,
                transfer,
            )
        }
        false => run(send_blocks(it, source), |it| it.stats(), socket, transfer),
    });
    let (before, held) = (outgoing.ends.len(), outgoing.bytes.len());
    let refused = outgoing.taken(&blocks[..taken.get()]);
    outgoing.assert_front(socket);
    outgoing.assert_stats(&stats, before, held, socket);
    let error = match &polled {
        Poll::Ready(Err(error)) => Some(error),
        _ => None,
    };
    assert_failure(error, socket.write_failure());
    match polled {
        Poll::Pending => {
            met("a transfer given up");
            if waits.get() && !socket.is_blocked() {
                met("a source that has nothing yet");
                outgoing.assert_flushed(socket);
            }
        }
        Poll::Ready(Ok(result)) => {
            met("a whole transfer");
            assert!(refused.is_none() && !transfer.failing, "a failure is lost");
            assert_eq!(taken.get(), blocks.len(), "not all was taken");
            assert_eq!(result, stats);
            outgoing.assert_flushed(socket);
        }
        Poll::Ready(Err(BlockError::Io(_))) => {}
        Poll::Ready(Err(BlockError::Source(_))) => {
            met("a source that fails");
            assert!(
                transfer.failing && refused.is_none(),
                "the source has not failed"
            );
            assert_eq!(taken.get(), blocks.len(), "not all was taken");
            outgoing.assert_flushed(socket);
        }
        Poll::Ready(Err(error)) => {
            met("a block refused in a transfer");
            assert_eq!(Some(format!("{error:?}")), refused);
            outgoing.assert_flushed(socket);
        }
    }
    if transfer.leaked && !keeps_all {
        met("a transfer leaked that takes what it has queued with it");
        outgoing.lose(held, socket);
    }
}

/// Polls a transfer, and leaks it if told to.
fn run<S>(sending: S, stats: fn(&S) -> TransferStats, socket: &Socket, plan: &Transfer) -> Moved
where
    S: Future<Output = Result<TransferStats, BlockError>>,
{
    let mut sending = Box::pin(sending);
    let polled = poll_often(sending.as_mut(), plan.polls, socket);
    if let Poll::Ready(Err(_)) = polled {
        let again = poll_often(sending.as_mut(), 1, socket);
        let fails = matches!(again, Poll::Ready(Err(BlockError::Io(_))));
        assert!(fails, "{again:?} after a failure");
    }
    let moved = (polled, stats(&sending));
    forget_if(plan.leaked, sending);
    moved
}

impl Outgoing {
    /// Takes note of blocks that a transfer has taken. Returns why the last was refused, if it was.
    fn taken(&mut self, blocks: &[(Given, Bytes)]) -> Option<String> {
        for (index, (_, block)) in blocks.iter().enumerate() {
            let refusal = self.refusal(block);
            if refusal.is_some() {
                assert_eq!(index + 1, blocks.len(), "blocks after one that was refused");
                return refusal;
            }
            self.push(block);
        }
        None
    }

    /// Panics unless `stats` are of the blocks that are wholly on the wire, but for those before,
    /// which are of so many bytes.
    fn assert_stats(&self, stats: &TransferStats, before: usize, held: usize, socket: &Socket) {
        let written = socket.written(<[u8]>::len);
        let whole = self.ends[before..].iter().filter(|end| **end <= written);
        let (blocks, ended) = whole.fold((0, held), |(blocks, _), end| (blocks + 1, *end));
        let counted = (stats.blocks, stats.wire_bytes);
        assert_eq!(counted, (blocks, (ended - held) as u64), "{stats:?}");
    }

    /// What is not on the wire is lost, but for what was sent before.
    fn lose(&mut self, before: usize, socket: &Socket) {
        let kept = socket.written(<[u8]>::len).max(before);
        self.bytes.truncate(kept);
        self.ends.retain(|end| *end <= kept);
    }
}
