//! One end of a session: its `Framed` or `BlockTransport`, and its expected results.

use std::{
    cell::RefCell,
    collections::VecDeque,
    iter, mem,
    ops::RangeInclusive,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use arbitrary::Arbitrary;
use bytes::BytesMut;
use futures::{Future, Sink, Stream};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::codec::Framed;
use wholeblock::{
    AnyFraming, BlockCodec, BlockError, BlockPart, BlockStream, BlockTransport, recv_blocks,
};

use testing::{
    KIB,
    config::{Len, Max},
    pipe::End,
    polls::Task,
    reference::{Front, Reference},
};

/// Capacities of the read buffer in `FramedParts`: small ones, and one larger than any batch.
const PARTS: [usize; 4] = [0, 3, 1_000, 300 * KIB];

/// A way to receive. A `Framed` lends no batches, so there each block comes alone.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Owned,
    /// One by one.
    Lent {
        leaked: bool,
    },
    /// `of` blocks of each batch.
    Batched {
        of: u8,
        leaked: bool,
    },
    /// In turn a block, a batch, and a block by `recv_blocks`.
    Mixed,
    /// By `recv_into`, with `room` bytes of memory, and then with as much as it asks for. Each future is polled
    /// once or twice.
    Memory {
        room: Len,
        twice: bool,
    },
    /// `most` bytes of a block by `recv_reader`, or all of it.
    Read {
        most: Option<Len>,
        /// Bytes to read at once.
        at_once: Len,
        /// True if the other end writes more when the reader must wait. Otherwise the reader is dropped then.
        helped: bool,
    },
}

pub(crate) type Codec = BlockCodec<AnyFraming>;

/// The `Framed` or `BlockTransport` of an end.
pub(crate) enum Io {
    Framed(Framed<End, Codec>),
    Transport(BlockTransport<End, AnyFraming>),
    /// Used only while it is being converted.
    Gone,
}

/// Runs the same code with either.
#[macro_export]
macro_rules! either {
    ($io:expr, $either:ident => $do:expr) => {
        match &mut $io {
            $crate::side::Io::Framed($either) => $do,
            $crate::side::Io::Transport($either) => $do,
            $crate::side::Io::Gone => unreachable!(),
        }
    };
}

/// A block whose sending was cancelled in the middle.
pub(crate) struct Unfinished {
    pub(crate) len: usize,
    pub(crate) wire_len: u64,
    /// The bytes that its source has not yielded yet.
    pub(crate) rest: Vec<u8>,
}

impl Unfinished {
    /// Returns how many bytes are not queued. The last one is queued only at the end of the source.
    pub(crate) fn missing(&self) -> u64 {
        self.rest.len().max(1) as u64
    }

    /// Panics unless `error` refuses another block because this one is unfinished.
    pub(crate) fn check_refusal(&self, error: &BlockError, encoded: u64) {
        let BlockError::Unfinished { queued, len, index } = *error else {
            panic!("{error}, behind an unfinished block");
        };
        let all = self.len as u64;
        assert_eq!((queued, len, index), (all - self.missing(), all, encoded));
    }
}

/// One end, and its expected results.
pub(crate) struct Side {
    pub(crate) io: Io,
    /// The length of a full write, if `io` is a `BlockTransport`.
    pub(crate) write_len: usize,
    pub(crate) end: End,
    /// How often the end has changed its framing.
    pub(crate) epoch: usize,
    pub(crate) max_encode: usize,
    pub(crate) max_decode: usize,
    /// The limits since the last block. Any of them may apply to a block that has begun.
    pub(crate) former_max: RangeInclusive<usize>,
    /// True if the next block has begun, and was found to be within its limit.
    pub(crate) begun: bool,
    /// True if the last poll for a block was pending.
    pub(crate) waits: bool,
    pub(crate) skips: bool,
    /// Blocks that the end has sent or queued.
    pub(crate) encoded: u64,
    /// Bytes of these blocks on the wire. A block that is unfinished counts whole.
    pub(crate) encoded_bytes: u64,
    /// The block that the end has begun to send and not finished. The other end expects it nevertheless.
    pub(crate) unfinished: Option<Unfinished>,
    /// True if the end does not finish that block at the end of the session.
    pub(crate) gives_up: bool,
    /// Blocks that the other end has sent and this end has not received, each with the epoch of its framing.
    pub(crate) expected: VecDeque<(usize, Vec<u8>)>,
    /// Blocks received or skipped.
    pub(crate) received: u64,
    /// Skipped blocks, which also count in `received`.
    pub(crate) skipped: u64,
    /// True if the reader of the last block was dropped early. The rest may still be on its way.
    pub(crate) left: bool,
    /// True after an error about the blocks themselves.
    pub(crate) dead: bool,
    pub(crate) closed: bool,
    /// True if the stream has just returned an error of the transport.
    pub(crate) failed: bool,
    /// True after the end, or after an error about the blocks.
    pub(crate) over: bool,
}

impl Side {
    /// Sets a limit from the next block on.
    pub(crate) fn limit(&mut self, reference: &Reference, decode: bool, max: Max) {
        let (least, most) = (*reference.lens.start(), *reference.lens.end());
        let Some(max) = max.among(least as u64, most as u64) else {
            return;
        };
        let set = either!(self.io, io => match decode {
            true => io.codec_mut().set_max_decode_len(max),
            false => io.codec_mut().set_max_encode_len(max),
        });
        assert_eq!(set.is_ok(), reference.lens.contains(&max));
        if set.is_err() {
            return;
        }
        if !decode {
            self.max_encode = max;
            return;
        }
        self.pass_skipped();
        let buffer: &[u8] = either!(self.io, io => io.read_buffer());
        if let (true, Front::Announced { payload_len, .. }) = (self.waits, reference.read(buffer)) {
            self.begun |= !buffer.is_empty() && payload_len <= self.max_decode as u64;
        }
        self.max_decode = max;
        let (least, most) = self.former_max.clone().into_inner();
        self.former_max = least.min(max)..=most.max(max);
    }

    /// If `other`, converts a `Framed` to a `BlockTransport` or the other way round. Otherwise takes a `Framed`
    /// apart, and puts it together again with a read buffer of another size.
    pub(crate) fn convert(&mut self, other: bool) {
        let (io, write_len) = (&mut self.io, self.write_len);
        let set = |transport: BlockTransport<_, _>| transport.write_len(write_len);
        *io = match (mem::replace(io, Io::Gone), other) {
            (Io::Framed(framed), true) => Io::Transport(set(framed.into())),
            (Io::Transport(transport), true) => Io::Framed(transport.into_framed()),
            (Io::Framed(framed), false) => {
                let mut parts = framed.into_parts();
                let capacity = PARTS[self.received as usize % PARTS.len()];
                let mut buffer = BytesMut::with_capacity(capacity);
                buffer.extend_from_slice(&parts.read_buf);
                parts.read_buf = buffer;
                match self.encoded % 2 {
                    0 => Io::Framed(Framed::from_parts(parts)),
                    _ => Io::Transport(set(parts.into())),
                }
            }
            (io, _) => io,
        };
    }

    /// Panics unless `block` is the next sent block that is not over the limit.
    pub(crate) fn received(&mut self, block: &[u8]) {
        self.left = false;
        loop {
            let (sent, former_max, begun) = self.pop();
            if sent == block && sent.len() <= *former_max.end() {
                return;
            }
            self.skipped += 1;
            assert!(
                self.skips && sent.len() > *former_max.start() && !begun,
                "not what was sent: {} bytes instead of {}",
                block.len(),
                sent.len(),
            );
        }
    }

    /// Panics unless `part` is the front of the next sent block, whatever the limit.
    pub(crate) fn received_part(&mut self, part: &Part) {
        self.pass_skipped();
        let (sent, ..) = self.pop();
        assert_eq!(part.len, sent.len() as u64, "not what was sent");
        assert!(sent.starts_with(&part.bytes), "not what was sent");
        self.left = part.bytes.len() < sent.len();
    }

    /// Panics unless the next block is over the limit.
    pub(crate) fn refused(&mut self, error: &BlockError) {
        let BlockError::TooLarge {
            announced,
            limit,
            index,
            ..
        } = *error
        else {
            panic!("{error}");
        };
        let (_, sent) = self.expected.front().expect("nothing was sent");
        let next = (sent.len() as u64, self.received);
        assert_eq!((announced, index), next, "{error}");
        assert!(
            announced > limit && limit >= self.max_decode as u64,
            "{error}"
        );
        assert!(!self.skips && !self.begun, "{error}");
        self.die();
    }

    /// Panics unless `other` has closed inside the next block, or inside one whose reader was dropped early.
    pub(crate) fn truncated(&mut self, other: &Self, error: &BlockError) {
        self.pass_skipped();
        let BlockError::Truncated {
            part,
            expected,
            received,
            index,
            ..
        } = *error
        else {
            panic!("{error}");
        };
        let cut = other.cut().expect("it has not closed inside of a block");
        let left = usize::from(self.expected.is_empty());
        assert_eq!(self.expected.len() + left, 1, "blocks are lost");
        assert_eq!(index + left as u64, self.received, "{error}");
        if part == BlockPart::Payload {
            let len = cut.len as u64;
            assert_eq!((expected, received), (len, len - cut.missing()), "{error}");
        }
        self.die();
    }

    fn die(&mut self) {
        self.dead = true;
        self.over = true;
        self.expected.clear();
        self.end.stop_reading();
    }

    /// Flushes. Returns false if no byte was written.
    pub(crate) fn write_more(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.end.passed_on();
        if !self.closed {
            let _ = either!(self.io, io => Pin::new(io).poll_flush(cx));
            self.end.take_failures();
        }
        self.end.passed_on() > before
    }

    /// Returns the next sent block, the limits that may apply to it, and whether it was found to be within its
    /// limit.
    pub(crate) fn pop(&mut self) -> (Vec<u8>, RangeInclusive<usize>, bool) {
        let next = self.expected.pop_front();
        let (epoch, sent) = next.expect("a block that nobody sent");
        assert_eq!(epoch, self.epoch);
        self.received += 1;
        let now = self.max_decode..=self.max_decode;
        let former_max = mem::replace(&mut self.former_max, now);
        (sent, former_max, mem::take(&mut self.begun))
    }

    /// Passes over the skipped blocks. Panics if one should not have been skipped.
    pub(crate) fn pass_skipped(&mut self) {
        let skipped = either!(self.io, io => io.codec().skipped_blocks());
        while self.skipped < skipped {
            self.skipped += 1;
            let (sent, former_max, begun) = self.pop();
            assert!(
                self.skips && sent.len() > *former_max.start() && !begun,
                "skipped"
            );
        }
    }

    /// Returns the bytes that the end has accepted to send.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.encoded_bytes - self.unfinished.as_ref().map_or(0, Unfinished::missing)
    }

    /// Panics unless all these bytes were written.
    pub(crate) fn check_flushed(&self) {
        assert_eq!(self.end.passed_on(), self.queued_bytes(), "it is flushed");
    }

    /// True if the end must still finish a block.
    pub(crate) fn owes_rest(&self) -> bool {
        self.unfinished.is_some() && !self.gives_up && !self.closed
    }

    /// Returns the block inside which the end has closed, if bytes of that block were sent.
    pub(crate) fn cut(&self) -> Option<&Unfinished> {
        let cut = self.unfinished.as_ref().filter(|_| self.closed)?;
        (cut.missing() < cut.wire_len).then_some(cut)
    }

    /// True if `other` has sent blocks that this end must still receive.
    pub(crate) fn is_owed(&self, other: &Self) -> bool {
        let mut max = *self.former_max.start();
        let within = |(_, block): &(usize, Vec<u8>)| {
            let max = mem::replace(&mut max, self.max_decode);
            !self.skips || block.len() <= max
        };
        let never = usize::from(other.unfinished.is_some() && !other.owes_rest());
        let whole = self.expected.len().saturating_sub(never);
        self.expected.iter().take(whole).any(within)
    }
}

/// The front of a block of `len` bytes.
pub(crate) struct Part {
    pub(crate) len: u64,
    pub(crate) bytes: Vec<u8>,
}

/// The result of one poll: copies of the blocks, and what followed them.
pub(crate) struct Received {
    pub(crate) blocks: Vec<BytesMut>,
    pub(crate) after: After,
}

pub(crate) enum After {
    /// Not polled further.
    Unknown,
    Wait,
    End,
    Error(BlockError),
}

impl After {
    fn new(polled: Poll<Option<BlockError>>) -> Self {
        match polled {
            Poll::Pending => Self::Wait,
            Poll::Ready(None) => Self::End,
            Poll::Ready(Some(error)) => Self::Error(error),
        }
    }
}

/// Polls for a block.
pub(crate) fn poll_owned<R>(io: &mut R, cx: &mut Context<'_>) -> Received
where
    R: BlockStream<Error = BlockError>,
{
    let (blocks, after) = match Pin::new(io).poll_next(cx) {
        Poll::Ready(Some(Ok(block))) => (vec![block], After::Unknown),
        other => (Vec::new(), After::new(other.map(|next| next?.err()))),
    };
    Received { blocks, after }
}

/// Reads up to `most` bytes of a block. When the reader must wait, `write` may let the other end write more,
/// and returns true if it did.
pub(crate) fn poll_part(
    transport: &mut BlockTransport<End, AnyFraming>,
    (most, at_once): (usize, usize),
    cx: &mut Context<'_>,
    mut write: impl FnMut(&mut Context<'_>) -> bool,
) -> (Option<Part>, After) {
    let mut reader = match pin!(transport.recv_reader()).poll(cx) {
        Poll::Ready(Ok(Some(reader))) => reader,
        other => return (None, After::new(other.map(Result::err))),
    };
    let (len, mut bytes) = (reader.len(), Vec::new());
    let mut memory = vec![0; at_once.max(1)];
    let mut after = After::Unknown;
    while reader.remaining() > 0 && bytes.len() < most {
        let mut buf = ReadBuf::new(&mut memory);
        match Pin::new(&mut reader).poll_read(cx, &mut buf) {
            Poll::Ready(Ok(())) => bytes.extend_from_slice(buf.filled()),
            Poll::Ready(Err(error)) => {
                after = After::Error(error.into());
                break;
            }
            Poll::Pending if write(cx) => {}
            Poll::Pending => break,
        }
        assert_eq!(reader.remaining(), len - bytes.len() as u64);
    }
    (Some(Part { len, bytes }), after)
}

/// Borrows the blocks that have arrived, up to `most`. A block that was `left` by its reader may count, too.
pub(crate) fn poll_lent(
    io: &mut Io,
    form: Form,
    most: usize,
    left: bool,
    cx: &mut Context<'_>,
) -> Received {
    let mut received = Received {
        blocks: Vec::new(),
        after: After::Unknown,
    };
    let counted = match io {
        Io::Framed(framed) => {
            let mut receiving = recv_blocks(framed).stop_after(most as u64);
            while received.blocks.len() < most
                && received.take(one(pin!(receiving.next()).poll(cx)))
            {}
            let counted = receiving.stats().blocks;
            if let Form::Lent { leaked: true } | Form::Batched { leaked: true, .. } = form {
                mem::forget(receiving);
            }
            counted
        }
        Io::Transport(transport) => {
            let before = transport.stats().received_blocks;
            while received.blocks.len() < most && received.lend(transport, form, most, cx) {}
            transport.stats().received_blocks - before
        }
        Io::Gone => unreachable!(),
    };
    let blocks = received.blocks.len() as u64;
    assert!((blocks..=blocks + u64::from(left)).contains(&counted));
    received
}

impl Received {
    /// Borrows a block or a batch. Returns false if no more comes now.
    fn lend(
        &mut self,
        transport: &mut BlockTransport<End, AnyFraming>,
        form: Form,
        most: usize,
        cx: &mut Context<'_>,
    ) -> bool {
        let so_far = self.blocks.len();
        let (turn, of, leaked) = match form {
            Form::Lent { leaked } => (0, 0, leaked),
            Form::Batched { of, leaked } => (1, usize::from(of).max(1), leaked),
            Form::Owned | Form::Mixed | Form::Read { .. } => (so_far % 3, usize::MAX, false),
            Form::Memory { .. } => (3, 0, false),
        };
        match turn {
            0 => {
                let mut next = transport.recv();
                let polled = Pin::new(&mut next).poll(cx);
                if leaked {
                    mem::forget(next);
                }
                self.take(one(polled))
            }
            1 => {
                let of = of.min(most - so_far);
                match pin!(transport.recv_batch()).poll(cx) {
                    Poll::Ready(Ok(Some(mut batch))) if leaked => {
                        // A leaked batch takes no blocks, so they come again.
                        batch.by_ref().take(of).for_each(drop);
                        mem::forget(batch);
                        false
                    }
                    polled => self.take(polled.map_ok(|batch| batch.map(|batch| batch.take(of)))),
                }
            }
            2 => self.take(one(pin!(recv_blocks(transport).next()).poll(cx))),
            _ => {
                let Form::Memory { room, twice } = form else {
                    unreachable!();
                };
                let mut memory = vec![0; room.0];
                let mut polled = poll_into(transport, &mut memory, twice, cx);
                if let Poll::Ready(Err(BlockError::NoRoom { len, room, .. })) = polled {
                    assert!(room == memory.len() as u64 && len > room);
                    memory.resize(len as usize, 0);
                    polled = poll_into(transport, &mut memory, twice, cx);
                }
                self.take(one(polled.map_ok(|len| Some(&memory[..len?]))))
            }
        }
    }

    /// Records what a poll returned. Returns false if no more comes now.
    fn take<'b, B>(&mut self, polled: Poll<Result<Option<B>, BlockError>>) -> bool
    where
        B: Iterator<Item = &'b [u8]>,
    {
        match polled {
            Poll::Ready(Ok(Some(blocks))) => {
                self.blocks.extend(blocks.map(BytesMut::from));
                return true;
            }
            other => self.after = After::new(other.map(Result::err)),
        }
        false
    }
}

/// Receives into `memory`, and drops the future after one or two polls.
fn poll_into(
    transport: &mut BlockTransport<End, AnyFraming>,
    memory: &mut [u8],
    twice: bool,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<usize>, BlockError>> {
    let mut receiving = transport.recv_into(memory);
    match Pin::new(&mut receiving).poll(cx) {
        Poll::Pending if twice => Pin::new(&mut receiving).poll(cx),
        polled => polled,
    }
}

/// Turns a block into a batch of one.
fn one(
    polled: Poll<Result<Option<&[u8]>, BlockError>>,
) -> Poll<Result<Option<iter::Once<&[u8]>>, BlockError>> {
    polled.map_ok(|block| block.map(iter::once))
}

/// Polls at most `polls + 1` times, and then drops or leaks the future.
pub(crate) fn poll_some<T>(
    mut future: impl Future<Output = T> + Unpin,
    task: &Task,
    polls: usize,
    leaked: bool,
) -> Option<T> {
    let mut polls = iter::repeat_n((), polls + 1);
    let done = polls.find_map(|()| match Pin::new(&mut future).poll(&mut task.context()) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    });
    if leaked {
        mem::forget(future);
    }
    done
}

/// A source that remembers the blocks taken from it.
pub(crate) struct Source {
    /// Shared, so that a leaked transfer does not leak them.
    pub(crate) blocks: Rc<RefCell<VecDeque<Vec<u8>>>>,
    pub(crate) pausing: bool,
    pub(crate) paused: bool,
    pub(crate) taken: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl Stream for Source {
    type Item = Vec<u8>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        self.paused = self.pausing && !self.paused;
        if self.paused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let block = self.blocks.borrow_mut().pop_front();
        self.taken.borrow_mut().extend(block.clone());
        Poll::Ready(block)
    }
}
