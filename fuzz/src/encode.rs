//! Sends arbitrary blocks, under any configuration, in every way and through any partial writes. The bytes
//! and the refusals must be the reference's, and the other end must receive the blocks.

use std::{
    cell::Cell,
    iter,
    ops::RangeInclusive,
    pin::{Pin, pin},
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll},
};

use arbitrary::Arbitrary;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, Sink, StreamExt, stream};
use testing::{
    KIB,
    config::{Config, Len, Settings, Visit},
    polls::Task,
    reference::{Reference, Refusal},
    scripted::{Scripted, Step},
};
use tokio_util::codec::{Encoder, Framed, FramedWrite};
use wholeblock::{
    BlockCodec, BlockError, BlockSink, BlockTransport, Framing,
    internals::{FIRST_WRITE, FULL_WRITE, PARTS},
    send_blocks, try_send_blocks,
};

use crate::{Run, cut::cut, memory::Heap};

/// The most bytes of all blocks together: some full writes.
const MAX_BYTES: usize = 400 * KIB;

#[derive(Arbitrary, Debug)]
pub struct Input {
    config: Config,
    chosen_at_run_time: bool,
    settings: Settings,
    vectored: bool,
    /// The length of a transport's full write, if it is not the default.
    write_len: Option<Len>,
    /// What the transport does at each write, in turn.
    writes: Vec<Step>,
    reads: Vec<Step>,
    blocks: Vec<Block>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Block {
    len: Len,
    /// True if the block gets a length that can be sent, if there is one.
    fits: bool,
    fill: u8,
    /// True if the part of the header that the block carries is right.
    honest: bool,
    /// True if the sink is flushed after the block.
    flush: bool,
}

impl Run for Input {
    fn run(&self) {
        self.config.visit(self.chosen_at_run_time, self);
    }
}

impl Visit for &Input {
    fn visit<F: Framing>(self, framing: F, reference: Reference) {
        let (codec, max_decode, max) = self.settings.codec(framing, &reference);
        let blocks = self.blocks(&reference, max);
        let mut wire = Vec::new();
        let (mut results, mut ends) = (Vec::new(), vec![0]);
        for block in &blocks {
            let result = reference.write(block, max, &mut wire);
            if result.is_ok() {
                ends.push(wire.len());
            }
            results.push(result);
        }
        let sending = Sending {
            input: self,
            blocks: &blocks,
            results: &results,
            wire: &wire,
            ends: &ends,
        };
        let heap = Heap::new();
        let peer = || Scripted::taking(self.writes.clone()).vectored(self.vectored);
        sending.encode(codec.clone());
        let no_bounds = 0..=usize::MAX;
        let full_write = self.full_write();
        let bounds = FIRST_WRITE.min(full_write / PARTS)..=full_write;
        let transport = || BlockTransport::new(peer(), codec.clone()).write_len(full_write);
        sending.sink(
            Framed::new(peer(), codec.clone()),
            Framed::get_ref,
            no_bounds,
        );
        sending.sink(transport(), BlockTransport::get_ref, bounds);
        sending.transfer(
            FramedWrite::new(peer(), codec.clone()),
            FramedWrite::get_ref,
        );
        sending.transfer(transport(), BlockTransport::get_ref);
        sending.feed(transport());
        sending.part_by_part(transport(), &reference);
        sending.receive(codec, max_decode);
        heap.check_spares(full_write);
    }
}

impl Input {
    fn full_write(&self) -> usize {
        let len = self.write_len.map_or(FULL_WRITE, |len| len.0);
        len.clamp(4 * KIB, 4 * KIB * KIB)
    }

    fn blocks(&self, reference: &Reference, max: usize) -> Vec<Vec<u8>> {
        let mut left = MAX_BYTES;
        let mut blocks = Vec::new();
        for block in &self.blocks {
            let len = match block.fits {
                true => reference.nearest(block.len.0, max),
                false => block.len.0,
            };
            if len > left {
                continue;
            }
            left -= len;
            let mut bytes: Vec<u8> = (0..len)
                .map(|at| block.fill.wrapping_add(at as u8))
                .collect();
            if block.honest {
                reference.make_true(&mut bytes);
            }
            blocks.push(bytes);
        }
        blocks
    }
}

/// Blocks to send, and the expected results.
struct Sending<'i> {
    input: &'i Input,
    blocks: &'i [Vec<u8>],
    results: &'i [Result<(), Refusal>],
    /// The blocks that can be sent, on the wire.
    wire: &'i [u8],
    /// A 0, and then where each of them ends in `wire`.
    ends: &'i [usize],
}

impl Sending<'_> {
    /// Sends through the bare encoder.
    fn encode<F: Framing>(&self, mut codec: BlockCodec<F>) {
        let mut sent = BytesMut::new();
        let mut index = 0;
        for (block, expected) in self.blocks.iter().zip(self.results) {
            let before = sent.len();
            let result = codec.encode(Bytes::copy_from_slice(block), &mut sent);
            check(result, expected, block.len(), &mut index);
            assert!(
                expected.is_ok() || sent.len() == before,
                "of a refused block"
            );
        }
        assert!(sent == self.wire, "other bytes than the reference's");
    }

    /// Sends through a sink. The sink is full at a number of bytes within `bounds`, and writes only then.
    fn sink<W>(&self, mut sink: W, io: impl Fn(&W) -> &Scripted, bounds: RangeInclusive<usize>)
    where
        W: Sink<Bytes, Error = BlockError> + Unpin,
    {
        let task = Task::new();
        let (mut index, mut taken) = (0, 0);
        let blocks = self.blocks.iter().zip(&self.input.blocks);
        for ((block, options), expected) in blocks.zip(self.results) {
            let before = taken - io(&sink).written.len();
            repeated(&task, |cx| Pin::new(&mut sink).poll_ready(cx));
            let queued = taken - io(&sink).written.len();
            assert!(
                queued < *bounds.end(),
                "{queued} bytes queued, and ready for more"
            );
            let full = before >= *bounds.start();
            assert!(
                full || queued == before,
                "it writes though {before} bytes are queued only"
            );
            let result = Pin::new(&mut sink).start_send(Bytes::copy_from_slice(block));
            check(result, expected, block.len(), &mut index);
            taken = self.wire_len(index);
            if options.flush {
                repeated(&task, |cx| Pin::new(&mut sink).poll_flush(cx));
                assert!(io(&sink).flushed() == &self.wire[..taken], "after a flush");
            }
        }
        repeated(&task, |cx| Pin::new(&mut sink).poll_close(cx));
        assert!(
            io(&sink).flushed() == self.wire,
            "other bytes than the reference's"
        );
    }

    /// Sends blocks in pieces, through a transport's own `feed`.
    fn feed<F: Framing>(&self, mut transport: BlockTransport<Scripted, F>) {
        let task = Task::new();
        let mut index = 0;
        for (block, expected) in self.blocks.iter().zip(self.results) {
            let mut feeding = transport.feed(cut(block));
            let result = loop {
                match task.finish(|cx| Pin::new(&mut feeding).poll(cx)) {
                    Err(BlockError::Io(_)) => {}
                    result => break result,
                }
            };
            check(result, expected, block.len(), &mut index);
        }
        repeated(&task, |cx| Pin::new(&mut transport).poll_close(cx));
        assert!(
            transport.get_ref().flushed() == self.wire,
            "other bytes than the reference's"
        );
    }

    /// Sends blocks from readers, which return as many bytes at a time as `reads` says. A cancelled block is
    /// resumed. The limit for whole blocks does not apply.
    fn part_by_part<F: Framing>(
        &self,
        mut transport: BlockTransport<Scripted, F>,
        reference: &Reference,
    ) {
        let task = Task::new();
        let most = usize::try_from(*reference.carried.end()).unwrap_or(usize::MAX);
        let reads = self.input.reads.iter().copied();
        let reads: Vec<_> = reads
            .filter(|step| !matches!(step, Step::Fail(_)))
            .collect();
        let (mut wire, mut index) = (Vec::new(), 0);
        for (block, options) in self.blocks.iter().zip(&self.input.blocks) {
            let expected = reference.write(block, most, &mut wire);
            let mut source = Scripted::sending(block, reads.clone()).unrecorded();
            let arrived = source.arrived.clone();
            let result = loop {
                let sent = transport.stats().sent_blocks > index;
                let mut sending = match transport.unfinished() {
                    None if !sent => {
                        assert_eq!(arrived.load(Relaxed), 0, "what has come is lost");
                        transport.send_from(block.len() as u64, &mut source)
                    }
                    _ => transport.send_rest_from(&mut source),
                };
                // Polls some futures only once, and then drops them.
                let polled = match options.flush {
                    true => sending.poll_unpin(&mut task.context()),
                    false => Poll::Ready(task.finish(|cx| sending.poll_unpin(cx))),
                };
                match polled {
                    Poll::Pending | Poll::Ready(Err(BlockError::Io(_))) => {}
                    Poll::Ready(result) => break result,
                }
                drop(sending);
                assert!(transport.queued() <= 64 * KIB, "more than a batch");
                let kept =
                    transport.unfinished().is_none() && transport.stats().sent_blocks == index;
                if kept && arrived.load(Relaxed) > 0 {
                    // The header was not queued yet, so the block was dropped, with what had been read of it.
                    arrived.store(0, Relaxed);
                    source = Scripted::default().send(block).unrecorded();
                    source.arrived = arrived.clone();
                }
            };
            check(result, &expected, block.len(), &mut index);
            assert!(
                transport.get_ref().flushed() == wire,
                "other bytes, or not flushed"
            );
        }
    }

    /// Sends through transfers. After a refused block, the next transfer goes on with the block after it.
    fn transfer<W>(&self, mut framed: W, io: impl Fn(&W) -> &Scripted)
    where
        W: BlockSink,
        BlockError: From<<W as Sink<Bytes>>::Error>,
    {
        let task = Task::new();
        let (mut index, mut at) = (0, 0);
        // A transfer also ends at an error of the transport. The blocks that it took are then queued.
        while at < self.blocks.len() {
            let taken = Cell::new(0);
            let source = self.blocks[at..]
                .iter()
                .inspect(|_| taken.set(taken.get() + 1));
            let result = match (at + self.blocks.len()) % 4 {
                0 => await_it(
                    &task,
                    send_blocks(&mut framed, stream::iter(source.map(Vec::as_slice))),
                ),
                1 => await_it(
                    &task,
                    send_blocks(&mut framed, stream::iter(source.cloned())),
                ),
                2 => await_it(
                    &task,
                    send_blocks(&mut framed, stream::iter(source.map(|block| cut(block)))),
                ),
                _ => {
                    let source =
                        source.map(|block| Ok::<_, BlockError>(Bytes::copy_from_slice(block)));
                    await_it(&task, try_send_blocks(&mut framed, stream::iter(source)))
                }
            };
            let result = result.map_err(BlockError::from);
            let taken = at + taken.get();
            // All except the last were sent. The last was sent, too, unless it was refused.
            let Some((last, before)) = self.results[at..taken].split_last() else {
                assert!(
                    matches!(result, Err(BlockError::Io(_))),
                    "nothing was taken"
                );
                continue;
            };
            assert!(
                before.iter().all(Result::is_ok),
                "after one that is refused"
            );
            index += before.len() as u64;
            match result {
                // A failure of the transport is reported before a refusal.
                Err(BlockError::Io(_)) => index += u64::from(last.is_ok()),
                result => {
                    let len = self.blocks[taken - 1].len();
                    check(result.map(drop), last, len, &mut index);
                    assert!(io(&framed).flushed() == &self.wire[..self.wire_len(index)]);
                    assert!(last.is_err() || taken == self.blocks.len(), "all is sent");
                }
            }
            at = taken;
        }
        repeated(&task, |cx| {
            Pin::new(&mut framed)
                .poll_flush(cx)
                .map_err(BlockError::from)
        });
        assert!(
            io(&framed).flushed() == self.wire,
            "other bytes than the reference's"
        );
    }

    /// Receives the blocks at the other end, in any pieces.
    fn receive<F: Framing>(&self, codec: BlockCodec<F>, max: usize) {
        let task = Task::new();
        let io = Scripted::sending(self.wire, self.input.reads.clone());
        let mut transport = BlockTransport::new(io, codec);
        let mut sent = self.blocks.iter().zip(self.results);
        let mut sent =
            iter::from_fn(|| sent.find(|(_, result)| result.is_ok())).map(|(block, _)| block);
        loop {
            match task.finish(|cx| transport.poll_next_unpin(cx)) {
                Some(Ok(block)) => {
                    let skips = self.input.settings.skip_too_large;
                    let expected = sent.find(|block| !skips || block.len() <= max);
                    assert!(
                        Some(&block[..]) == expected.map(Vec::as_slice),
                        "another block than was sent"
                    );
                }
                Some(Err(BlockError::Io(_))) => assert!(transport.next().now_or_never().is_some()),
                Some(Err(BlockError::TooLarge { announced, .. })) => {
                    let too_large = sent.next().expect("it was sent").len();
                    assert_eq!(announced, too_large as u64);
                    assert!(too_large > max && !self.input.settings.skip_too_large);
                    return;
                }
                Some(Err(error)) => panic!("{error}"),
                None => break,
            }
        }
        assert!(sent.all(|block| block.len() > max), "blocks are missing");
    }

    /// Returns the bytes on the wire of the first `blocks` blocks that can be sent.
    fn wire_len(&self, blocks: u64) -> usize {
        self.ends[blocks as usize]
    }
}

/// Polls until `poll` is done, and polls again after a passing failure of the transport.
fn repeated(task: &Task, mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<(), BlockError>>) {
    loop {
        match task.finish(&mut poll) {
            Ok(()) => return,
            Err(BlockError::Io(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn await_it<T>(task: &Task, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    task.finish(|cx| future.as_mut().poll(cx))
}

/// Panics unless a block of `len` bytes had the result that the reference gives. Counts the block in `index` if
/// it was sent.
fn check(
    result: Result<(), BlockError>,
    expected: &Result<(), Refusal>,
    len: usize,
    index: &mut u64,
) {
    match result {
        Ok(()) => {
            assert_eq!(*expected, Ok(()), "it was sent");
            *index += 1;
        }
        Err(error) => {
            let (refusal, actual, at) = Refusal::of(&error);
            assert_eq!((&Err(refusal), actual, at), (expected, len as u64, *index));
        }
    }
}
