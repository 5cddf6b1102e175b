//! Receives arbitrary bytes, in any pieces, under any configuration, in every way. The blocks and the error
//! must be the reference's, and the memory must stay within the promised bounds.

use std::{
    iter, mem,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
};

use arbitrary::Arbitrary;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use testing::{
    KIB,
    config::{Config, Len, Settings, Visit},
    polls::Task,
    reader::{Event, Reader},
    reference::Reference,
    scripted::{Scripted, Step},
};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio_util::codec::{Decoder, Encoder, Framed, FramedRead};
use wholeblock::{
    BlockCodec, BlockError, BlockReader, BlockStream, BlockTransport, Exact, Framing, recv_blocks,
};

use crate::{
    Run, flood,
    memory::{ReceiverBounds, Standing},
    neighbour,
};

/// The longest stream, in bytes. It is long enough for a buffer to grow and to be given to a block.
const MAX_WIRE: usize = 600 * KIB;

/// Small blocks in a run, and bytes in each if the framing allows: together most of a batch.
const RUN: usize = 500;
const SMALL: usize = 100;

/// The most blocks that are kept.
const MAX_KEPT: usize = 8;

#[derive(Arbitrary, Debug)]
pub struct Input {
    config: Config,
    chosen_at_run_time: bool,
    settings: Settings,
    /// True if another connection on the thread goes on, and so leaves no spare buffer.
    neighbour_goes_on: bool,
    form: Form,
    reads: Vec<Step>,
    pieces: Vec<Piece>,
    /// The bytes after the pieces on the wire.
    raw: Vec<u8>,
}

/// A way to receive.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Form {
    Decoder,
    FramedOwned,
    FramedReceived(Fickle),
    FramedReadOwned,
    FramedReadReceived(Fickle),
    Owned,
    /// By `recv_blocks`.
    Received(Fickle),
    Lent {
        /// Receives in batches, and takes at most so many blocks of each.
        batches_of: Option<u8>,
        fickle: Fickle,
    },
    /// By `recv_into`.
    Memory {
        fickle: Fickle,
    },
    /// By `recv_reader`.
    Read {
        /// The numbers of bytes to read of each block before its reader is dropped, in turn. None reads all.
        drops: [Option<Len>; 3],
        /// Bytes to read at once.
        at_once: Len,
        /// True if the reader lends the bytes.
        lends: bool,
    },
}

/// True if each wait is cancelled when nothing has come, and each receiver is dropped after a block.
type Fickle = bool;

/// A part of a stream.
#[derive(Arbitrary, Clone, Debug)]
enum Piece {
    /// A block of this length, or of the nearest one that is possible. It is filled with the byte. If the byte
    /// is odd, the receiver keeps the block. If it is 255, a run of small blocks follows.
    Block(Len, u8),
    /// A header without its block.
    Announced(u64),
    Bytes(Vec<u8>),
}

impl Run for Input {
    fn run(&self) {
        self.config.visit(self.chosen_at_run_time, self);
    }
}

impl Input {
    fn wire(&self, reference: &Reference, max: usize) -> Vec<u8> {
        let mut wire = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Block(Len(len), fill) => {
                    // Also one byte more than the limit.
                    add_block(&mut wire, reference, *len, max.saturating_add(1), *fill);
                    if *fill == u8::MAX {
                        for at in 0..RUN {
                            let fill = u8::from(at % 100 == 50);
                            add_block(&mut wire, reference, SMALL, max, fill);
                        }
                    }
                }
                Piece::Announced(len) => reference.announce(*len, &mut wire),
                Piece::Bytes(bytes) => wire.extend_from_slice(bytes),
            }
        }
        wire.extend_from_slice(&self.raw);
        wire
    }
}

/// Appends a block of `len` bytes, or of the nearest length up to `max`, if there is room.
fn add_block(wire: &mut Vec<u8>, reference: &Reference, len: usize, max: usize, fill: u8) {
    let len = reference.nearest(len, max);
    if wire.len() + len > MAX_WIRE {
        return;
    }
    let mut block = vec![fill; len];
    reference.make_true(&mut block);
    reference.announce(len as u64, wire);
    wire.extend_from_slice(&block);
}

impl Visit for &Input {
    fn visit<F: Framing>(self, framing: F, reference: Reference) {
        let (codec, max, _) = self.settings.codec(framing, &reference);
        let wire = self.wire(&reference, max);
        neighbour::receive(self.neighbour_goes_on);
        // Allocated before the receiver's memory is measured.
        let mut memory = match self.form {
            Form::Memory { .. } => vec![0; MAX_WIRE],
            Form::Read { at_once, .. } => vec![0; at_once.0.max(1)],
            _ => Vec::new(),
        };
        let peer = Scripted::sending(&wire, self.reads.clone()).unrecorded();
        let checks = Checks {
            reader: Reader::new(&reference, &wire, max, self.settings.skip_too_large),
            arrived: peer.arrived.clone(),
            failed: false,
            longest: 0,
            kept: Vec::with_capacity(MAX_KEPT),
            allocation_at_failure: 0,
            bounds: ReceiverBounds::new(self.settings.max_retained()),
            task: Task::new(),
        };
        let all = Reader::new(&reference, &wire, max, self.settings.skip_too_large);
        let flooded = codec.clone();
        match self.form {
            Form::Decoder => checks.decode(codec, &reference, &wire, &self.reads),
            Form::FramedOwned => checks.owned(Framed::new(peer, codec)),
            Form::FramedReceived(fickle) => checks.received(Framed::new(peer, codec), fickle),
            Form::FramedReadOwned => checks.owned(FramedRead::new(peer, codec)),
            Form::FramedReadReceived(fickle) => {
                checks.received(FramedRead::new(peer, codec), fickle);
            }
            Form::Owned => checks.owned(BlockTransport::new(peer, codec)),
            Form::Received(fickle) => checks.received(BlockTransport::new(peer, codec), fickle),
            Form::Lent { batches_of, fickle } => {
                checks.lent(BlockTransport::new(peer, codec), batches_of, fickle);
            }
            Form::Memory { fickle } => {
                checks.in_memory(BlockTransport::new(peer, codec), &mut memory, fickle);
            }
            Form::Read { drops, lends, .. } => {
                let mut transport = BlockTransport::new(peer, codec);
                transport.codec_mut().set_max_reader_len(max as u64);
                checks.read(transport, &drops, &mut memory, lends);
            }
        }
        let form = match self.form {
            Form::Owned => flood::Form::Owned,
            Form::Received(_) => flood::Form::Received,
            Form::Lent { batches_of, .. } if batches_of.is_some() => flood::Form::Batched,
            Form::Lent { .. } => flood::Form::Lent,
            _ => return,
        };
        flood::receive(flooded, all, &wire, form);
    }
}

/// A receiver that shows its buffer and its codec.
trait Receiver: BlockStream<Error = BlockError> {
    fn buffer(&self) -> &[u8];
    fn capacity(&self) -> usize;
    fn skipped(&self) -> u64;
}

macro_rules! receiver {
    ($receiver:ty, $($capacity:ident).+, $codec:ident) => {
        impl<F: Framing> Receiver for $receiver {
            fn buffer(&self) -> &[u8] {
                self.read_buffer()
            }

            fn capacity(&self) -> usize {
                self.$($capacity()).+
            }

            fn skipped(&self) -> u64 {
                self.$codec().skipped_blocks()
            }
        }
    };
}

receiver!(Framed<Scripted, BlockCodec<F>>, read_buffer.capacity, codec);
receiver!(FramedRead<Scripted, BlockCodec<F>>, read_buffer.capacity, decoder);
receiver!(BlockTransport<Scripted, F>, read_capacity, codec);

/// The result of a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Blocks,
    /// No block, and the stream goes on.
    GoesOn,
    Over,
}

/// Compares what the crate receives with what the reference reads.
struct Checks<'w> {
    reader: Reader<'w>,
    arrived: Arc<AtomicUsize>,
    /// True if the transport has just failed.
    failed: bool,
    longest: usize,
    /// Blocks that are kept, and their lengths on the wire.
    kept: Vec<(BytesMut, usize)>,
    allocation_at_failure: usize,
    bounds: ReceiverBounds,
    task: Task,
}

impl Checks<'_> {
    /// Records a block. Panics if it is not the next one.
    fn block(&mut self, payload: &[u8]) {
        self.failed = false;
        self.begun();
        let expected = self.reader.peek();
        let Event::Block { wire, header_len } = expected else {
            panic!(
                "a block of {} bytes, where {expected:?} was due",
                payload.len()
            );
        };
        assert!(
            payload == &wire[header_len..],
            "another block than was sent"
        );
        // Again, because `peek` may have skipped blocks before this one.
        self.begun();
        self.reader.take(wire.len());
    }

    /// Keeps a block if its last byte is odd, and otherwise drops it.
    fn keep_or_drop(&mut self, block: BytesMut) {
        let is_odd = block.last().is_some_and(|byte| byte % 2 == 1);
        if is_odd && self.kept.len() < MAX_KEPT {
            let wire_len = self.reader.last().len();
            self.bounds.keep(wire_len);
            self.kept.push((block, wire_len));
        }
    }

    /// Records the block that has begun, and the bytes in the buffer.
    fn begun(&mut self) {
        let arrived = self.arrived.load(Relaxed);
        self.bounds
            .buffered(self.reader.kept(arrived), self.reader.ahead(arrived));
        self.longest = self.longest.max(self.reader.announced(arrived));
    }

    /// Records an end or an error. Panics if it is not due.
    fn end(&mut self, error: Option<&BlockError>) -> Outcome {
        match error {
            Some(BlockError::Io(_)) => {
                self.failed = true;
                return Outcome::GoesOn;
            }
            Some(error) => self.reader.check_error(error),
            // After an error of the transport, the first `None` is not the end.
            None if mem::take(&mut self.failed) => return Outcome::GoesOn,
            None => assert_eq!(self.reader.peek(), Event::End, "an end"),
        }
        Outcome::Over
    }

    /// Panics if the receiver holds too much memory. Its buffer has `capacity`, and may have `lent` blocks.
    fn memory(&mut self, capacity: usize, lent: bool) {
        self.begun();
        let arrived = self.arrived.load(Relaxed);
        self.bounds.check(&Standing {
            arrived,
            longest: self.longest,
            capacity,
            idle: self.reader.kept(arrived) == 0 && !lent,
            failed: self.allocation_at_failure,
        });
    }

    fn owned(mut self, mut receiver: impl Receiver) {
        loop {
            let task = mem::take(&mut self.task);
            let next = task.finish(|cx| {
                let polled = receiver.poll_next_unpin(cx);
                if polled.is_pending() {
                    self.memory(receiver.capacity(), false);
                }
                polled
            });
            self.task = task;
            let outcome = match next {
                Some(Ok(block)) => {
                    self.block(&block);
                    self.keep_or_drop(block);
                    self.memory(receiver.capacity(), false);
                    continue;
                }
                Some(Err(error)) => self.end(Some(&error)),
                None => self.end(None),
            };
            if outcome == Outcome::Over {
                break;
            }
        }
        self.over(receiver);
    }

    fn received(mut self, mut receiver: impl Receiver, fickle: Fickle) {
        while self.receive(&mut receiver, fickle) != Outcome::Over {
            self.memory(receiver.capacity(), false);
        }
        let again = self.receive(&mut receiver, true);
        self.check_again(again);
        self.over(receiver);
    }

    /// Receives blocks until the end, or until the receiver is dropped.
    fn receive(&mut self, receiver: &mut impl Receiver, fickle: Fickle) -> Outcome {
        let mut blocks = recv_blocks(receiver);
        loop {
            let block = async { Ok(blocks.next().await?.map(iter::once)) };
            let outcome = self.take(block, fickle);
            if outcome == Outcome::Over {
                let again = async { Ok(blocks.next().await?.map(iter::once)) };
                let again = self.take(again, true);
                self.check_again(again);
            }
            if fickle || outcome == Outcome::Over {
                return outcome;
            }
        }
    }

    fn lent<F: Framing>(
        mut self,
        mut transport: BlockTransport<Scripted, F>,
        batches_of: Option<u8>,
        fickle: Fickle,
    ) {
        loop {
            let outcome = self.lend(&mut transport, batches_of, fickle);
            self.memory(transport.read_capacity(), outcome == Outcome::Blocks);
            if outcome == Outcome::Over {
                break;
            }
        }
        let again = self.lend(&mut transport, batches_of, true);
        self.check_again(again);
        self.over(transport);
    }

    fn lend<F: Framing>(
        &mut self,
        transport: &mut BlockTransport<Scripted, F>,
        batches_of: Option<u8>,
        fickle: Fickle,
    ) -> Outcome {
        let Some(most) = batches_of else {
            let block = async { Ok(transport.recv().await?.map(iter::once)) };
            return self.take(block, fickle);
        };
        let most = usize::from(most).max(1);
        let batch = async { Ok(transport.recv_batch().await?.map(|batch| batch.take(most))) };
        self.take(batch, fickle)
    }

    fn in_memory<F: Framing>(
        mut self,
        mut transport: BlockTransport<Scripted, F>,
        memory: &mut [u8],
        fickle: Fickle,
    ) {
        let (mut room, mut calls) = (0, 0);
        while self.receive_into(&mut transport, &mut memory[..room], fickle) != Outcome::Over {
            self.memory(transport.read_capacity(), true);
            calls += 1;
            assert!(calls < 1_000_000, "it hangs");
            if let Event::Block { wire, header_len } = self.reader.peek() {
                room = room.max(wire.len() - header_len);
            } else if let Event::Truncated { expected, .. } = self.reader.peek() {
                // The block will not be received, and may be longer than the stream.
                room = expected.min(memory.len() as u64) as usize;
                if expected > room as u64 {
                    return;
                }
            }
        }
        let again = self.receive_into(&mut transport, &mut memory[..room], true);
        self.check_again(again);
        self.over(transport);
    }

    /// Receives a block into `memory`, which may be too short.
    fn receive_into<F: Framing>(
        &mut self,
        transport: &mut BlockTransport<Scripted, F>,
        memory: &mut [u8],
        fickle: Fickle,
    ) -> Outcome {
        let polled = {
            let mut receiving = transport.recv_into(memory);
            match fickle {
                true => receiving.poll_unpin(&mut self.task.context()),
                false => Poll::Ready(self.task.finish(|cx| receiving.poll_unpin(cx))),
            }
        };
        let outcome = match polled {
            Poll::Pending => Outcome::GoesOn,
            Poll::Ready(Ok(Some(len))) => {
                self.block(&memory[..len]);
                Outcome::Blocks
            }
            Poll::Ready(Ok(None)) => self.end(None),
            Poll::Ready(Err(BlockError::NoRoom { len, room, .. })) => {
                assert!(room < len && room == memory.len() as u64);
                Outcome::GoesOn
            }
            Poll::Ready(Err(error)) => self.end(Some(&error)),
        };
        self.failed = false; // here no end follows an error
        outcome
    }

    fn read<F: Framing>(
        mut self,
        mut transport: BlockTransport<Scripted, F>,
        drops: &[Option<Len>],
        memory: &mut [u8],
        lends: bool,
    ) {
        let mut turns = drops.iter().cycle();
        loop {
            let task = mem::take(&mut self.task);
            let mut receiving = transport.recv_reader();
            let outcome = match task.finish(|cx| receiving.poll_unpin(cx)) {
                Ok(Some(reader)) => {
                    let most = turns.next().and_then(|drop| drop.map(|Len(most)| most));
                    self.read_block(&task, reader, most, memory, lends)
                }
                Ok(None) => self.end(None),
                Err(error) => self.end(Some(&error)),
            };
            self.failed = false; // here no end follows an error
            drop(receiving);
            self.task = task;
            // Twice, because a header may be as long as a batch.
            assert!(transport.read_capacity() <= 2 * 64 * KIB, "a longer buffer");
            if outcome == Outcome::Over {
                break;
            }
        }
        for _ in 0..4 {
            match self.task.finish(|cx| transport.poll_next_unpin(cx)) {
                None | Some(Err(BlockError::Io(_))) => {}
                Some(Err(error)) => self.reader.check_error(&error),
                Some(Ok(block)) => panic!("a block of {} bytes after the end", block.len()),
            }
        }
        assert_eq!(transport.codec().skipped_blocks(), self.reader.skipped);
        assert_eq!(
            transport.stats().received_blocks,
            self.reader.index - self.reader.skipped
        );
    }

    /// Reads `most` bytes of a block, or all of it.
    fn read_block<F: Framing>(
        &mut self,
        task: &Task,
        mut reader: BlockReader<'_, Scripted, F>,
        most: Option<usize>,
        memory: &mut [u8],
        lends: bool,
    ) -> Outcome {
        self.begun();
        let (len, expected, whole) = match self.reader.peek() {
            Event::Block { wire, header_len } => {
                let block = &wire[header_len..];
                (block.len() as u64, block, Some(wire.len()))
            }
            Event::Truncated {
                expected, received, ..
            } => (expected, self.reader.rest(received), None),
            event => panic!("a reader, where {event:?} was due"),
        };
        assert_eq!(reader.len(), len);
        let mut at = 0;
        while reader.remaining() > 0 && most.is_none_or(|most| at < most) {
            let read = match lends {
                true => {
                    let lent = task.finish(|cx| {
                        let polled = Pin::new(&mut reader).poll_fill_buf(cx);
                        polled.map_ok(<[u8]>::to_vec)
                    });
                    lent.map(|lent| {
                        let bytes = lent.len().min(memory.len());
                        memory[..bytes].copy_from_slice(&lent[..bytes]);
                        Pin::new(&mut reader).consume(bytes);
                        bytes
                    })
                }
                false => {
                    let mut buf = ReadBuf::new(memory);
                    let read = task.finish(|cx| Pin::new(&mut reader).poll_read(cx, &mut buf));
                    read.map(|()| buf.filled().len())
                }
            };
            match read {
                Ok(0) => panic!("an end before the end"),
                Ok(bytes) => {
                    assert!(memory[..bytes] == expected[at..at + bytes], "other bytes");
                    at += bytes;
                    assert_eq!(reader.remaining(), len - at as u64);
                }
                Err(error) => {
                    let error = BlockError::from(error);
                    if !matches!(error, BlockError::Io(_)) {
                        assert_eq!(at, expected.len(), "all that has come");
                        return self.end(Some(&error));
                    }
                }
            }
        }
        if let Some(wire_len) = whole {
            self.reader.take(wire_len);
        }
        Outcome::Blocks
    }

    /// Checks what `future` returns. If `fickle`, polls it only once.
    fn take<'b, B>(
        &mut self,
        future: impl Future<Output = Result<Option<B>, BlockError>>,
        fickle: Fickle,
    ) -> Outcome
    where
        B: Iterator<Item = &'b [u8]>,
    {
        let mut future = pin!(future);
        let polled = match fickle {
            true => future.poll(&mut self.task.context()),
            false => Poll::Ready(self.task.finish(|cx| future.as_mut().poll(cx))),
        };
        let outcome = match polled {
            Poll::Pending => Outcome::GoesOn,
            Poll::Ready(Ok(Some(blocks))) => {
                blocks.for_each(|block| self.block(block));
                Outcome::Blocks
            }
            Poll::Ready(Ok(None)) => self.end(None),
            Poll::Ready(Err(error)) => self.end(Some(&error)),
        };
        self.failed = false; // here no end follows an error
        outcome
    }

    /// Panics unless `again` may follow after the stream is over. An error about the blocks must come again at
    /// once. After the end, the transport is read once more, and may fail.
    fn check_again(&mut self, again: Outcome) {
        let due = again == Outcome::Over || self.reader.peek() == Event::End;
        assert!(due, "not the error again");
    }

    /// Checks that only the end or the same error follows, that the buffer stays as it is, and that a drop
    /// frees everything.
    fn over(mut self, mut receiver: impl Receiver) {
        let left = self.reader.buffered(self.arrived.load(Relaxed));
        assert!(
            receiver.buffer() == left,
            "what has arrived and is not taken"
        );
        if !left.is_empty() {
            // The allocation includes the room of the blocks that were taken from its front, at most a batch.
            let filled = self.arrived.load(Relaxed).min(64 * KIB);
            self.allocation_at_failure = receiver.capacity().max(filled);
        }
        for _ in 0..4 {
            match self.task.finish(|cx| receiver.poll_next_unpin(cx)) {
                None | Some(Err(BlockError::Io(_))) => {}
                Some(Err(error)) => self.reader.check_error(&error),
                Some(Ok(block)) => panic!("a block of {} bytes after the end", block.len()),
            }
        }
        assert_eq!(receiver.skipped(), self.reader.skipped);
        assert!(receiver.buffer() == left, "the buffer after an error");
        self.memory(receiver.capacity(), false);
        drop(receiver);
        for (block, wire_len) in self.kept {
            self.bounds.drop_kept(block, wire_len);
        }
        self.bounds.check_gone();
    }

    /// Decodes with the bare decoder, which gets bytes as `Framed` passes them. Encodes each block again.
    fn decode<F: Framing>(
        mut self,
        mut codec: BlockCodec<F>,
        reference: &Reference,
        wire: &[u8],
        reads: &[Step],
    ) {
        let mut sender = BlockCodec::new(codec.framing().clone());
        let mut buffer = BytesMut::with_capacity(8 * KIB);
        let mut reads = reads.iter();
        loop {
            loop {
                match codec.decode(&mut buffer) {
                    Ok(None) => break,
                    Ok(Some(block)) => {
                        self.block(&block);
                        let on_wire = self.reader.last();
                        check_sent_back(&mut sender, reference, block.freeze(), on_wire);
                    }
                    Err(error) => {
                        self.end(Some(&error));
                        let again = codec.decode(&mut buffer).expect_err("the error again");
                        self.reader.check_error(&again);
                        return go_on(
                            codec,
                            buffer,
                            self.reader.buffered(self.arrived.load(Relaxed)),
                        );
                    }
                }
            }
            self.memory(buffer.capacity(), false);
            let arrived = self.arrived.load(Relaxed);
            if arrived == wire.len() {
                break;
            }
            buffer.reserve(1);
            let room = (buffer.capacity() - buffer.len()).min(wire.len() - arrived);
            let bytes = match reads.next() {
                Some(Step::Move(bytes)) => room.min(*bytes),
                _ => room,
            };
            buffer.extend_from_slice(&wire[arrived..arrived + bytes]);
            self.arrived.store(arrived + bytes, Relaxed);
        }
        for _ in 0..2 {
            match codec.decode_eof(&mut buffer) {
                Ok(None) => {
                    self.end(None);
                }
                Ok(Some(block)) => panic!("a block of {} bytes at the end", block.len()),
                Err(error) => {
                    self.end(Some(&error));
                }
            }
        }
    }
}

/// Checks that another framing reads the refused bytes, and all bytes after them.
fn go_on<F: Framing>(codec: BlockCodec<F>, mut buffer: BytesMut, left: &[u8]) {
    let mut codec = codec.with_framing(Exact::new(1).expect("a framing"));
    for byte in left {
        let block = codec.decode(&mut buffer).expect("no error");
        assert_eq!(block.expect("a block"), &[*byte][..]);
    }
    assert_eq!(codec.decode(&mut buffer).expect("no error"), None);
}

/// Checks that a received block can be sent. If its header was canonical, the same bytes must be sent.
fn check_sent_back<F: Framing>(
    sender: &mut BlockCodec<F>,
    reference: &Reference,
    block: Bytes,
    on_wire: &[u8],
) {
    let header_len = on_wire.len() - block.len();
    let mut sent = BytesMut::new();
    sender
        .encode(block, &mut sent)
        .expect("a block that was received");
    if reference.is_canonical(on_wire, header_len) {
        assert!(sent == on_wire, "other bytes than were received");
    }
}
