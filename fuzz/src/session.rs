//! Runs arbitrary operations at both ends of a connection. Every block that one end has accepted must arrive at
//! the other end, whole, once and in order.

use std::{
    cell::RefCell,
    collections::VecDeque,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use arbitrary::Arbitrary;
use bytes::Bytes;
use futures::{FutureExt, Sink, StreamExt};
use testing::{
    KIB,
    config::{Config, Len, Max, Settings},
    pipe::pipe,
    polls::Task,
    reference::{Reference, Refusal},
    scripted::{Scripted, Step},
};
use tokio_util::codec::Framed;
use wholeblock::{
    AnyFraming, BlockError, BlockTransport, internals::FULL_WRITE, send_blocks, try_send_blocks,
};

use crate::{
    Run,
    cut::cut,
    either,
    side::{
        After, Form, Io, Side, Source, Unfinished, poll_lent, poll_owned, poll_part, poll_some,
    },
};

/// More turns than any session needs to deliver all blocks.
const MAX_TURNS: usize = 20_000;

/// The most bytes of all blocks together in a session.
const MAX_BYTES: usize = 300 * KIB;

/// The forms that receive no block twice.
const FORMS: [Form; 6] = [
    Form::Owned,
    Form::Lent { leaked: false },
    Form::Batched {
        of: 2,
        leaked: false,
    },
    Form::Mixed,
    Form::Memory {
        room: Len(1_000),
        twice: false,
    },
    Form::Read {
        most: None,
        at_once: Len(20_000),
        helped: false,
    },
];

#[derive(Arbitrary, Debug)]
pub struct Input {
    /// The framings that the session goes through.
    configs: [Config; 2],
    settings: [Settings; 2],
    /// True if the end begins as a `Framed`. Otherwise it begins as a `BlockTransport`.
    framed: [bool; 2],
    /// The length of a transport's full write, if it is not the default.
    write_len: [Option<Len>; 2],
    capacity: Len,
    vectored: bool,
    /// True if written bytes arrive only at a flush.
    buffered: bool,
    /// True if the end closes inside a block that is still unfinished after all operations.
    gives_up: [bool; 2],
    ops: Vec<(End01, Op)>,
}

/// The end of an operation.
type End01 = bool;

#[derive(Arbitrary, Clone, Debug)]
enum Op {
    /// Queues blocks, as long as the sink is ready.
    Feed(Vec<Block>),
    Transfer {
        blocks: Vec<Block>,
        /// True if the source is pending once before each block.
        pausing: bool,
        /// True if the source fails after its last block.
        failing: bool,
        /// True if an unfinished transfer is leaked. Otherwise it is dropped.
        leaked: bool,
        polls: u8,
    },
    /// Writes a block to the transport below, if nothing is queued above it, and flushes.
    Flush,
    Receive {
        form: Form,
        blocks: u8,
        polls: u8,
    },
    /// Plans what the next read or write does.
    Fault {
        read: bool,
        step: Step,
    },
    Limit {
        decode: bool,
        max: Max,
    },
    /// Converts a `Framed` to a `BlockTransport`, or the other way round.
    Convert,
    /// Takes a `Framed` apart, and puts it together again, with another buffer.
    Parts,
    /// Changes to the next framing.
    Switch,
    Close,
    /// Sends a block part by part, and drops the future after some polls.
    SendFrom {
        block: Block,
        source: Vec<Step>,
        polls: u8,
    },
    /// Resumes such a block, unless the end has closed.
    SendRest {
        source: Vec<Step>,
        polls: u8,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Block {
    len: Len,
    fill: u8,
    /// True if the block is sent as it is, even if it must be refused.
    raw: bool,
}

impl Run for Input {
    fn run(&self) {
        let framings: Vec<_> = self.configs.iter().filter_map(Config::any).collect();
        if !framings.is_empty() {
            let mut session = Session::new(self, framings);
            for (end, op) in &self.ops {
                session.step(usize::from(*end), op);
            }
            session.deliver();
            session.end();
        }
    }
}

struct Session {
    framings: Vec<(AnyFraming, Reference)>,
    sides: [Side; 2],
    bytes_left: usize,
    blocks: u8,
}

impl Session {
    fn new(input: &Input, framings: Vec<(AnyFraming, Reference)>) -> Self {
        let ends = pipe(input.capacity.0, input.vectored, input.buffered);
        let mut of = [0, 1].into_iter();
        let sides = ends.map(|end| {
            let of = of.next().expect("two");
            let settings = &input.settings[of];
            let (framing, reference) = &framings[0];
            let (codec, max_decode, max_encode) = settings.codec(*framing, reference);
            let write_len = input.write_len[of].map_or(FULL_WRITE, |len| len.0);
            let io = match input.framed[of] {
                true => Io::Framed(Framed::new(end.clone(), codec)),
                false => {
                    let transport = BlockTransport::new(end.clone(), codec);
                    Io::Transport(transport.write_len(write_len))
                }
            };
            Side {
                io,
                write_len,
                end,
                epoch: 0,
                max_encode,
                max_decode,
                former_max: max_decode..=max_decode,
                begun: false,
                waits: false,
                skips: settings.skip_too_large,
                encoded: 0,
                encoded_bytes: 0,
                unfinished: None,
                gives_up: input.gives_up[of],
                expected: VecDeque::new(),
                received: 0,
                skipped: 0,
                left: false,
                dead: false,
                closed: false,
                failed: false,
                over: false,
            }
        });
        Self {
            framings,
            sides,
            // A connection with a small capacity takes many turns.
            bytes_left: MAX_BYTES.min((input.capacity.0 + 1).saturating_mul(MAX_TURNS / 8)),
            blocks: 0,
        }
    }

    fn reference(&self, epoch: usize) -> &Reference {
        &self.framings[epoch % self.framings.len()].1
    }

    fn step(&mut self, at: usize, op: &Op) {
        let task = Task::new();
        match op {
            Op::Feed(blocks) => self.feed(at, blocks, &task),
            Op::Transfer { .. } => self.transfer(at, op, &task),
            Op::Flush => {
                self.write_below(at);
                let _ = self.poll_flush(at, &mut task.context());
            }
            Op::Receive {
                form,
                blocks,
                polls,
            } => {
                for _ in 0..=*polls % 8 {
                    if self
                        .poll_receive(at, *form, *blocks, &mut task.context())
                        .is_ready()
                    {
                        break;
                    }
                }
            }
            Op::Fault { read: true, step } => self.sides[at].end.plan_read(*step),
            Op::Fault { read: false, step } => self.sides[at].end.plan_write(*step),
            // Blocks before a change of the framing may be on their way, and none of them may be skipped.
            Op::Limit { decode: true, .. } if self.sides[at].epoch < self.sides[1 - at].epoch => {}
            Op::Limit { decode, max } => {
                let reference = self.reference(self.sides[at].epoch).clone();
                self.sides[at].limit(&reference, *decode, *max);
            }
            Op::Convert => self.sides[at].convert(true),
            Op::Parts => self.sides[at].convert(false),
            Op::Switch => self.switch(at),
            Op::Close => drop(self.poll_close(at, &mut task.context())),
            Op::SendFrom {
                block,
                source,
                polls,
            } => self.send_from(at, *block, source, usize::from(*polls % 4), &task),
            Op::SendRest { source, polls } => {
                self.send_rest(at, source, usize::from(*polls % 4), &task);
            }
        }
    }

    /// Returns the bytes of blocks to send from an end. No two are alike, unless they are short.
    fn payloads(&mut self, at: usize, blocks: &[Block]) -> Vec<Vec<u8>> {
        let side = &self.sides[at];
        if side.closed || side.epoch < self.sides[1 - at].epoch {
            return Vec::new(); // this end must first receive the other end's change of framing
        }
        let (max, reference) = (side.max_encode, self.reference(side.epoch).clone());
        let mut payloads = Vec::new();
        for block in blocks.iter().take(8) {
            let len = match block.raw {
                true => block.len.0,
                false => reference.nearest(block.len.0, max),
            };
            let wire_len = len + reference.header_len();
            if wire_len > self.bytes_left {
                continue;
            }
            self.bytes_left -= wire_len;
            self.blocks = self.blocks.wrapping_add(1);
            let first = self.blocks.wrapping_mul(31);
            let mut payload: Vec<u8> = (0..len).map(|at| first.wrapping_add(at as u8)).collect();
            if let Some(byte) = payload.last_mut() {
                *byte = block.fill;
            }
            if !block.raw {
                reference.make_true(&mut payload);
            }
            payloads.push(payload);
        }
        payloads
    }

    /// Returns the reference's result of sending `block` whole.
    fn expects(&self, at: usize, block: &[u8]) -> Result<(), Refusal> {
        self.expects_within(at, block, self.sides[at].max_encode)
    }

    fn expects_within(&self, at: usize, block: &[u8], max: usize) -> Result<(), Refusal> {
        self.reference(self.sides[at].epoch)
            .write(block, max, &mut Vec::new())
    }

    /// Records a block that an end has accepted.
    fn taken(&mut self, at: usize, block: Vec<u8>) {
        let epoch = self.sides[at].epoch;
        let mut wire = Vec::new();
        self.reference(epoch)
            .write(&block, usize::MAX, &mut wire)
            .expect("it was sent");
        self.sides[at].encoded += 1;
        self.sides[at].encoded_bytes += wire.len() as u64;
        if !self.sides[1 - at].dead {
            self.sides[1 - at].expected.push_back((epoch, block));
        }
    }

    fn feed(&mut self, at: usize, blocks: &[Block], task: &Task) {
        for block in self.payloads(at, blocks) {
            let cx = &mut task.context();
            let ready = either!(self.sides[at].io, io => Pin::new(io).poll_ready(cx));
            match ready {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return self.write_failed(at, &error),
                Poll::Pending => return,
            }
            let bytes = Bytes::copy_from_slice(&block);
            let result = match &mut self.sides[at].io {
                Io::Transport(io) if bytes.last().is_some_and(|last| last % 2 == 1) => {
                    let fed = io.feed(cut(&bytes)).now_or_never();
                    fed.expect("there is room")
                }
                io => either!(*io, io => Pin::new(io).start_send(bytes)),
            };
            self.check_sent(at, result, block);
        }
    }

    /// Writes a block to the transport below, if no part of another is queued.
    fn write_below(&mut self, at: usize) {
        if self.sides[at].end.written() != self.sides[at].encoded_bytes {
            return;
        }
        let block = Block {
            len: Len(3),
            fill: 0,
            raw: false,
        };
        for block in self.payloads(at, &[block]) {
            let mut wire = Vec::new();
            let (epoch, max) = (self.sides[at].epoch, self.sides[at].max_encode);
            let result = self.reference(epoch).write(&block, max, &mut wire);
            if result.is_ok() && self.sides[at].end.write_below(&wire) {
                self.taken(at, block);
                self.sides[at].encoded -= 1; // the codec did not encode it
            }
        }
    }

    /// Panics unless `block` was sent or refused as it should be.
    fn check_sent(&mut self, at: usize, result: Result<(), BlockError>, block: Vec<u8>) {
        let expected = self.expects(at, &block);
        match result {
            Ok(()) => {
                self.check_whole(at);
                assert_eq!(expected, Ok(()), "it was sent");
                self.taken(at, block);
            }
            Err(error) => self.check_refused(at, &error, expected, &block),
        }
    }

    /// Panics unless `error` refuses `block` as `expected`, or because another block is unfinished.
    fn check_refused(
        &self,
        at: usize,
        error: &BlockError,
        expected: Result<(), Refusal>,
        block: &[u8],
    ) {
        let side = &self.sides[at];
        if let Some(unfinished) = &side.unfinished {
            return unfinished.check_refusal(error, side.encoded);
        }
        let (refusal, actual, index) = Refusal::of(error);
        let at_block = (expected, block.len() as u64, side.encoded);
        assert_eq!((Err(refusal), actual, index), at_block);
    }

    fn check_whole(&self, at: usize) {
        let unfinished = &self.sides[at].unfinished;
        assert!(unfinished.is_none(), "it was sent inside of another block");
    }

    fn send_from(&mut self, at: usize, block: Block, source: &[Step], polls: usize, task: &Task) {
        for block in self.payloads(at, &[block]) {
            let side = &mut self.sides[at];
            let Io::Transport(io) = &mut side.io else {
                return;
            };
            let from = Scripted::sending(&block, source.to_vec()).unrecorded();
            let sending = io.send_from(block.len() as u64, from);
            let result = poll_some(sending, task, polls, false);
            let has_begun = io.unfinished().is_some() || io.stats().sent_blocks > side.encoded;
            if side.unfinished.is_some() || !has_begun {
                match result {
                    Some(Err(BlockError::Io(error))) => self.write_failed(at, &error.into()),
                    Some(Err(BlockError::Source(_))) if self.sides[at].unfinished.is_none() => {
                        assert_fails(source);
                    }
                    Some(Err(error)) => {
                        let carried = self.reference(self.sides[at].epoch).carried.clone();
                        let most = usize::try_from(*carried.end()).unwrap_or(usize::MAX);
                        let expected = self.expects_within(at, &block, most);
                        self.check_refused(at, &error, expected, &block);
                    }
                    Some(Ok(())) => panic!("it was sent, and has not begun"),
                    None => {}
                }
                continue;
            }
            let (before, len) = (side.encoded_bytes, block.len());
            self.taken(at, block.clone());
            let side = &mut self.sides[at];
            side.encoded -= 1; // it is not finished
            side.unfinished = Some(Unfinished {
                len,
                wire_len: side.encoded_bytes - before,
                rest: block,
            });
            self.sent_part(at, result, source);
        }
    }

    /// Resumes an unfinished block, unless the end has closed.
    fn send_rest(&mut self, at: usize, source: &[Step], polls: usize, task: &Task) {
        let side = &mut self.sides[at];
        let (Io::Transport(io), Some(unfinished), false) =
            (&mut side.io, &side.unfinished, side.closed)
        else {
            return;
        };
        let from = Scripted::sending(&unfinished.rest, source.to_vec()).unrecorded();
        let result = poll_some(io.send_rest_from(from), task, polls, false);
        self.sent_part(at, result, source);
    }

    /// Records how much of the unfinished block was sent from `source`.
    fn sent_part(&mut self, at: usize, result: Option<Result<(), BlockError>>, source: &[Step]) {
        let side = &mut self.sides[at];
        let (Io::Transport(io), Some(unfinished)) = (&mut side.io, &mut side.unfinished) else {
            unreachable!();
        };
        match io.unfinished() {
            Some(missing) => {
                let sent = unfinished.rest.len() - missing as usize;
                unfinished.rest.drain(..sent);
                assert_eq!(io.stats().sent_blocks, side.encoded);
            }
            None => {
                side.encoded += 1;
                side.unfinished = None;
                assert_eq!(io.stats().sent_blocks, side.encoded, "it is taken back");
            }
        }
        match result {
            Some(Ok(())) => {
                self.check_whole(at);
                self.sides[at].check_flushed();
            }
            Some(Err(BlockError::Source(_))) => assert_fails(source),
            Some(Err(error)) => self.write_failed(at, &error),
            // A future that waits only for its source has flushed.
            None if !self.sides[at].end.is_blocked() => self.sides[at].check_flushed(),
            None => {}
        }
    }

    fn write_failed(&mut self, at: usize, error: &BlockError) {
        assert!(matches!(error, BlockError::Io(_)), "{error}");
        let (_, writes) = self.sides[at].end.take_failures();
        assert!(writes, "{error}, though the transport has not failed");
    }

    fn transfer(&mut self, at: usize, op: &Op, task: &Task) {
        let Op::Transfer {
            blocks,
            pausing,
            failing,
            leaked,
            polls,
        } = op
        else {
            unreachable!();
        };
        let blocks = self.payloads(at, blocks);
        if blocks.is_empty() {
            return;
        }
        let blocks = Rc::new(RefCell::new(VecDeque::from(blocks)));
        let taken = Rc::new(RefCell::new(Vec::new()));
        let source = Source {
            blocks: blocks.clone(),
            pausing: *pausing,
            paused: false,
            taken: taken.clone(),
        };
        let in_pieces = polls & 16 != 0;
        let polls = usize::from(polls % 16);
        // Not with a `Framed`, because its queue would be leaked, too.
        let leaked = *leaked && matches!(self.sides[at].io, Io::Transport(_));
        let result = either!(self.sides[at].io, io => {
            if *failing {
                let failure = futures::stream::once(async { Err("it fails") });
                let source = source.map(|block| Ok(cut(&block))).chain(failure);
                poll_some(try_send_blocks(io, source), task, polls, leaked)
            } else if in_pieces {
                let source = source.map(|block| cut(&block));
                poll_some(send_blocks(io, source), task, polls, leaked)
            } else {
                poll_some(send_blocks(io, source), task, polls, leaked)
            }
        });
        blocks.take();
        let mut taken = taken.take();
        // A transfer that waits only for its source has flushed.
        let all_left = match &result {
            Some(Err(BlockError::Io(_))) => false,
            Some(_) => true,
            None => !self.sides[at].end.is_blocked(),
        };
        let refused = match result {
            Some(Err(BlockError::Source(_))) => {
                assert!(failing, "the source has not failed");
                None
            }
            Some(Err(
                error @ (BlockError::WrongSize { .. }
                | BlockError::WrongHeader { .. }
                | BlockError::Unfinished { .. }),
            )) => Some((error, taken.pop().expect("a block was refused"))),
            Some(Ok(_)) => None,
            unfinished => {
                if let Some(Err(error)) = unfinished {
                    self.write_failed(at, &error);
                }
                // The transfer may have found a refusal, and reported this first.
                let is_whole = self.sides[at].unfinished.is_none();
                let refused = |last: &Vec<u8>| !is_whole || self.expects(at, last).is_err();
                if taken.last().is_some_and(refused) {
                    taken.pop();
                }
                None
            }
        };
        for block in taken {
            self.check_whole(at);
            assert_eq!(self.expects(at, &block), Ok(()), "it was sent");
            self.taken(at, block);
        }
        if all_left {
            self.sides[at].check_flushed();
        }
        if let Some((error, block)) = refused {
            self.check_sent(at, Err(error), block);
        }
    }

    fn poll_flush(&mut self, at: usize, cx: &mut Context<'_>) -> Poll<()> {
        let polled = either!(self.sides[at].io, io => Pin::new(io).poll_flush(cx));
        self.written(at, polled, cx)
    }

    fn poll_close(&mut self, at: usize, cx: &mut Context<'_>) -> Poll<()> {
        if self.sides[at].closed {
            return Poll::Ready(());
        }
        let polled = either!(self.sides[at].io, io => Pin::new(io).poll_close(cx));
        self.sides[at].closed = matches!(polled, Poll::Ready(Ok(())));
        self.written(at, polled, cx)
    }

    /// Checks the result of a flush or a close. After an error of the transport, it must be polled again.
    fn written(
        &mut self,
        at: usize,
        polled: Poll<Result<(), BlockError>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if let Poll::Ready(Err(error)) = polled {
            self.write_failed(at, &error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if polled.is_ready() {
            self.sides[at].check_flushed();
        }
        polled.map(drop)
    }

    /// Changes to the next framing. Does nothing if a block in the old framing may be on its way to this end,
    /// or a block that the other end would refuse.
    fn switch(&mut self, at: usize) {
        let (side, other) = (&self.sides[at], &self.sides[1 - at]);
        let carried = |(_, block): &(usize, Vec<u8>)| block.len() <= *other.former_max.start();
        if side.expected.is_empty()
            && side.epoch == other.epoch
            && other.expected.iter().all(carried)
            && !side.dead
            && !other.dead
        {
            self.go_on(at);
        }
    }

    fn go_on(&mut self, at: usize) {
        let side = &mut self.sides[at];
        side.epoch += 1;
        let (framing, reference) = &self.framings[side.epoch % self.framings.len()];
        side.io = match mem::replace(&mut side.io, Io::Gone) {
            Io::Framed(io) => Io::Framed(io.map_codec(|codec| codec.with_framing(*framing))),
            Io::Transport(io) => Io::Transport(io.map_codec(|codec| codec.with_framing(*framing))),
            Io::Gone => unreachable!(),
        };
        let most = *reference.lens.end();
        (side.max_encode, side.max_decode) = (most, most);
        side.former_max = most..=most;
        (side.begun, side.waits) = (false, false);
    }

    /// Polls once, for a block or for lent blocks. Ready if it may be polled again at once.
    fn poll_receive(
        &mut self,
        at: usize,
        form: Form,
        blocks: u8,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let side = &mut self.sides[at];
        if side.dead {
            return Poll::Pending;
        }
        let own = side.epoch;
        let of_epoch = side
            .expected
            .iter()
            .filter(|(epoch, _)| *epoch == own)
            .count();
        // Blocks after a change of the framing must not be read before this end changes, too.
        let most = match of_epoch == side.expected.len() {
            true => usize::from(blocks),
            false => of_epoch.min(blocks.into()),
        };
        if of_epoch == 0 && !side.expected.is_empty() {
            self.go_on(at);
        }
        let (side, other) = self.side_and_other(at);
        // After an error of the transport, a stream returns `None` once.
        let ends = mem::take(&mut side.failed) && form == Form::Owned;
        let after = match (form, &mut side.io) {
            (
                Form::Read {
                    most,
                    at_once,
                    helped,
                },
                Io::Transport(io),
            ) => {
                let most = most.map_or(usize::MAX, |most| most.0);
                let (part, after) = poll_part(io, (most, at_once.0), cx, |cx| {
                    helped && other.write_more(cx)
                });
                if let Some(part) = part {
                    side.received_part(&part);
                }
                after
            }
            _ => {
                let received = match form {
                    Form::Owned => either!(side.io, io => poll_owned(io, cx)),
                    _ => poll_lent(&mut side.io, form, most.max(1), side.left, cx),
                };
                let blocks = received.blocks.iter();
                blocks.for_each(|block| side.received(block));
                received.after
            }
        };
        side.waits = matches!(after, After::Wait);
        match after {
            After::Unknown => {}
            After::Wait => return Poll::Pending,
            After::End if ends => {}
            After::End => self.ended(at),
            After::Error(BlockError::Io(error)) => {
                let (reads, _) = side.end.take_failures();
                assert!(reads, "{error}, though the transport has not failed");
                // `recv` and `recv_batch` do not return `None` after an error.
                side.failed = form == Form::Owned || matches!(side.io, Io::Framed(_));
            }
            After::Error(error @ BlockError::Truncated { .. }) => side.truncated(other, &error),
            After::Error(error) => side.refused(&error),
        }
        Poll::Ready(())
    }

    fn side_and_other(&mut self, at: usize) -> (&mut Side, &mut Side) {
        let [first, second] = &mut self.sides;
        match at {
            0 => (first, second),
            _ => (second, first),
        }
    }

    /// Panics unless the other end has closed between two blocks, and this end has received all blocks that it
    /// does not skip.
    fn ended(&mut self, at: usize) {
        let (side, other) = self.side_and_other(at);
        assert!(other.closed, "an end, and the other end is open");
        assert!(other.cut().is_none(), "an end inside of a block");
        assert!(!side.is_owed(other), "blocks are lost");
        side.over = true;
    }

    /// True if an end must still receive blocks.
    fn is_owed(&self, at: usize) -> bool {
        self.sides[at].is_owed(&self.sides[1 - at])
    }

    /// Writes and reads until all blocks have arrived. Like an executor, polls only what was woken.
    fn deliver(&mut self) {
        let tasks = [(); 2].map(|()| [Task::new(), Task::new()]);
        let mut flushed = [false; 2];
        for turn in 0..MAX_TURNS {
            let mut polled = false;
            for (at, [writes, reads]) in tasks.iter().enumerate() {
                if !flushed[at] && writes.take_woken() {
                    polled = true;
                    flushed[at] = self.poll_whole(at, writes);
                }
                if reads.take_woken() && !self.sides[at].over {
                    polled = true;
                    let form = FORMS[turn % FORMS.len()];
                    if self
                        .poll_receive(at, form, 3, &mut reads.context())
                        .is_ready()
                    {
                        reads.wake();
                    }
                }
            }
            if flushed == [true; 2] && !self.is_owed(0) && !self.is_owed(1) {
                return;
            }
            assert!(polled, "nobody is woken, and blocks are missing");
        }
        panic!("it takes without end");
    }

    /// Finishes an unfinished block, unless the end gives it up, and flushes. Returns true once everything was
    /// written.
    fn poll_whole(&mut self, at: usize, task: &Task) -> bool {
        let side = &mut self.sides[at];
        if side.owes_rest() {
            if let Io::Framed(_) = side.io {
                side.convert(true);
            }
            self.send_rest(at, &[], 0, task);
        }
        let flushed = self.poll_flush(at, &mut task.context());
        if flushed.is_ready() && self.sides[at].owes_rest() {
            task.wake(); // the transport has failed
        }
        flushed.is_ready() && !self.sides[at].owes_rest()
    }

    /// Closes both ends. Each sees a clean end, and sees it again, or an error if the other has closed inside a
    /// block.
    fn end(&mut self) {
        let task = Task::new();
        for at in [0, 1] {
            task.finish(|cx| self.poll_close(at, cx));
        }
        for at in [0, 1, 0, 1] {
            self.sides[at].over = self.sides[at].dead;
            task.finish(|cx| {
                let polled = self.poll_receive(at, Form::Owned, 1, cx);
                match self.sides[at].over {
                    true => Poll::Ready(()),
                    false => {
                        // After a block, or an error of the transport, it is polled again.
                        polled.is_ready().then(|| cx.waker().wake_by_ref());
                        Poll::Pending
                    }
                }
            });
        }
    }
}

/// Panics unless a source with these steps may fail.
fn assert_fails(source: &[Step]) {
    let fails = source.iter().any(|step| matches!(step, Step::Fail(_)));
    assert!(fails, "the source has not failed");
}
