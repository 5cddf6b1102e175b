//! Fairness to other tasks: on a runtime of one thread, a task yields even during a flood of empty blocks.
//!
//! The tests count the blocks that pass between two yields. Unlike a time, this count is the same on every
//! machine.

use std::{
    future::poll_fn,
    io::Cursor,
    iter,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream};
use testing::{KIB, MIB, Scripted, Step, wire};
use tokio::{
    io::{AsyncReadExt, copy_buf, repeat, sink},
    time::{interval, timeout},
};
use tokio_util::codec::{FramedRead, FramedWrite};
use wholeblock::internals::{BATCH, FULL_WRITE, RECEIVED_PER_TURN, SENT_PER_TURN};
use wholeblock::{
    BlockCodec, BlockError, BlockStream, BlockTransport, LengthPrefix, recv_blocks, send_blocks,
};

/// Blocks in each test: many times as many as may pass between two yields.
const BLOCKS: u64 = 200_000;

/// Blocks that a task receives between two yields.
const TURN: u64 = RECEIVED_PER_TURN;

/// As [`TURN`], if the task yields only after the last block of a buffer: adds a batch of headers.
const TURN_OF_A_BATCH: u64 = TURN + BATCH as u64 / 4;

/// As [`TURN`], for a `Framed`: 64 blocks for each unit of tokio's budget of 128, 64 for a unit begun
/// before, and the blocks of one buffer.
const TURN_OF_A_FRAMED: u64 = 64 * (128 + 1) + BATCH as u64 / 4;

/// As [`TURN`], for a sender: adds the blocks of one full write.
const TURN_OF_A_SENDER: u64 = SENT_PER_TURN + FULL_WRITE as u64 / 4;

/// Endless empty blocks. Unlike tokio's transports, this one spends none of a task's budget.
fn empty_blocks() -> Scripted {
    empty_blocks_after(&[])
}

/// Endless empty blocks, after `first`.
fn empty_blocks_after(first: &[Bytes]) -> Scripted {
    endless(&wire(LengthPrefix::u32(), first), 0)
}

/// Sends `first` and then `byte` without end, and takes every write at once.
fn endless(first: &[u8], byte: u8) -> Scripted {
    let rest = vec![byte; 64 * KIB];
    let io = Scripted::sending(first, []).then_repeating(&rest, u64::MAX);
    io.unrecorded()
}

/// The blocks that have passed.
#[derive(Clone, Default)]
struct Passed(Arc<AtomicU64>);

impl Passed {
    /// Counts a block, and returns true if more are to come.
    fn one(&self) -> bool {
        self.0.fetch_add(1, Relaxed) + 1 < BLOCKS
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap()
}

/// Runs `work` as a task, and asserts that at most `fair` blocks pass in one poll.
#[track_caller]
fn check<W: Future<Output = ()> + Send + 'static>(work: impl FnOnce(Passed) -> W, fair: u64) {
    let passed = Passed::default();
    let mut work = Box::pin(work(passed.clone()));
    let mut most = 0;
    let task = poll_fn(move |cx| {
        let before = passed.0.load(Relaxed);
        let polled = work.as_mut().poll(cx);
        most = most.max(passed.0.load(Relaxed) - before);
        polled.map(|()| most)
    });
    let most = runtime().block_on(async { tokio::spawn(task).await.unwrap() });
    assert!(most <= fair, "{most} blocks between two yields");
}

async fn owned(mut framed: impl BlockStream<Error = BlockError>, passed: Passed) {
    while framed.next().await.unwrap().is_ok() && passed.one() {}
}

async fn counted(mut framed: impl BlockStream<Error = BlockError>, passed: Passed) {
    let mut receiving = recv_blocks(&mut framed);
    while receiving.next().await.unwrap().is_some() && passed.one() {}
}

async fn lent(mut transport: BlockTransport<Scripted, LengthPrefix>, passed: Passed) {
    while transport.recv().await.unwrap().is_some() && passed.one() {}
}

async fn batched(mut transport: BlockTransport<Scripted, LengthPrefix>, passed: Passed) {
    let mut more = true;
    while more {
        let mut batch = transport.recv_batch().await.unwrap().unwrap();
        more = batch.all(|_| passed.one());
    }
}

fn codec() -> BlockCodec<LengthPrefix> {
    BlockCodec::length_prefixed()
}

/// The blocks before the empty ones: none, or three of the largest length whose buffer is retained.
fn beginnings() -> [Vec<Bytes>; 2] {
    [vec![], vec![Bytes::from(vec![1; MIB]); 3]]
}

#[test]
fn transport_yields_during_a_flood_of_empty_blocks() {
    for first in beginnings() {
        let transport = || BlockTransport::new(empty_blocks_after(&first), codec());
        check(|passed| owned(transport(), passed), TURN);
        check(|passed| counted(transport(), passed), TURN);
        check(|passed| lent(transport(), passed), TURN);
        check(|passed| batched(transport(), passed), TURN_OF_A_BATCH);
    }
}

#[test]
fn framed_yields_during_a_flood_of_empty_blocks() {
    for first in beginnings() {
        let framed = || FramedRead::new(empty_blocks_after(&first), codec());
        check(|passed| counted(framed(), passed), TURN);
        // Here the read yields, so it must be one of tokio's.
        let first = Cursor::new(wire(LengthPrefix::u32(), &first));
        let framed = FramedRead::new(first.chain(repeat(0)), codec());
        check(|passed| owned(framed, passed), TURN_OF_A_FRAMED);
    }
}

#[test]
fn transport_with_a_buffer_of_8_mib_yields_during_a_flood() {
    let first = vec![Bytes::from(vec![1; 8 * MIB]); 2];
    let transport = || {
        BlockTransport::new(
            empty_blocks_after(&first),
            codec().with_max_retained(8 * MIB),
        )
    };
    check(|passed| owned(transport(), passed), TURN);
    check(|passed| batched(transport(), passed), TURN_OF_A_BATCH);
}

#[test]
fn transport_yields_while_it_skips_a_flood_of_blocks() {
    /// Returns the most blocks that one poll skips.
    async fn most_skipped(limit: usize) -> u64 {
        let framing = LengthPrefix::u8().max_block_len(limit).unwrap();
        let codec = BlockCodec::new(framing).skip_too_large(true);
        let mut transport = BlockTransport::new(endless(&[], 1), codec);
        let (mut most, mut before) = (0, 0);
        poll_fn(|cx| {
            assert!(transport.poll_next_unpin(cx).is_pending());
            let skipped = transport.codec().skipped_blocks();
            most = most.max(skipped - before);
            before = skipped;
            match skipped < BLOCKS {
                true => Poll::Pending,
                false => Poll::Ready(most),
            }
        })
        .await
    }
    // A block has one byte of header and one of payload, so a buffer of 64 KiB holds half as many blocks.
    let most = runtime().block_on(async { tokio::spawn(most_skipped(0)).await.unwrap() });
    assert!(most <= TURN + BATCH as u64 / 2, "{most} in one poll");
}

#[test]
fn timeout_fires_while_a_flood_is_skipped() {
    let framing = LengthPrefix::u8().max_block_len(0).unwrap();
    let codec = BlockCodec::new(framing).skip_too_large(true);
    let mut transport = BlockTransport::new(endless(&[], 1), codec);
    runtime().block_on(async move {
        let waited = timeout(Duration::from_millis(20), transport.next()).await;
        assert!(waited.is_err());
    });
}

#[test]
fn new_receiver_for_each_block_yields_during_a_flood() {
    async fn one_by_one(mut framed: impl BlockStream<Error = BlockError>, passed: Passed) {
        loop {
            let block = recv_blocks(&mut framed)
                .next()
                .await
                .unwrap()
                .unwrap()
                .len();
            if block > 0 || !passed.one() {
                return;
            }
        }
    }
    check(
        |passed| one_by_one(BlockTransport::new(empty_blocks(), codec()), passed),
        TURN,
    );
    check(
        |passed| one_by_one(FramedRead::new(empty_blocks(), codec()), passed),
        TURN,
    );
}

#[test]
fn transfer_from_an_endless_source_of_empty_blocks_yields() {
    async fn transfer(mut framed: impl wholeblock::BlockSink, passed: Passed) {
        let empty = stream::repeat_with(Bytes::new);
        let source = empty.take_while(|_| std::future::ready(passed.one()));
        assert!(send_blocks(&mut framed, source).await.is_ok());
    }
    check(
        |passed| transfer(BlockTransport::new(empty_blocks(), codec()), passed),
        TURN_OF_A_SENDER,
    );
    check(
        |passed| transfer(FramedWrite::new(empty_blocks(), codec()), passed),
        TURN_OF_A_SENDER,
    );
}

#[test]
fn feeding_a_flood_of_empty_blocks_yields() {
    check(
        |passed| async move {
            let mut transport = BlockTransport::new(empty_blocks(), codec());
            while passed.one() {
                transport.feed(Bytes::new()).await.unwrap();
            }
        },
        TURN_OF_A_SENDER,
    );
    check(
        |passed| async move {
            let mut framed = FramedWrite::new(sink(), codec());
            while passed.one() {
                framed.feed(Bytes::new()).await.unwrap();
            }
        },
        TURN_OF_A_FRAMED,
    );
}

#[test]
fn sending_one_by_one_yields_even_if_the_transport_spends_no_budget() {
    check(
        |passed| async move {
            let mut transport = BlockTransport::new(empty_blocks(), codec());
            while passed.one() {
                transport.send(Bytes::new()).await.unwrap();
            }
        },
        128 + 1,
    );
    check(
        |passed| async move {
            let mut transport = BlockTransport::new(empty_blocks(), codec());
            loop {
                let one = stream::iter([Bytes::new()]);
                send_blocks(&mut transport, one).await.unwrap();
                if !passed.one() {
                    return;
                }
            }
        },
        128 + 1,
    );
}

#[test]
fn blocks_flushed_earlier_do_not_make_a_full_queue_yield_more() {
    /// Returns how often a task that has sent `sent` blocks yields while it feeds full queues.
    async fn yields_after(sent: u64, by_source: bool) -> u32 {
        let mut transport = BlockTransport::new(empty_blocks(), codec());
        for _ in 0..sent / 100 {
            match by_source {
                true => drop(send_blocks(&mut transport, stream::iter([Bytes::new()])).await),
                false => transport.send(Bytes::new()).await.unwrap(),
            }
        }
        for _ in 0..sent {
            transport.feed(Bytes::new()).await.unwrap();
            if sent % 50 == 0 {
                transport.flush().await.unwrap();
            }
        }
        tokio::task::yield_now().await; // to start with a new budget
        let mut yields = 0;
        {
            let queue = async {
                for _ in 0..FULL_WRITE {
                    transport.feed(Bytes::new()).await.unwrap();
                }
                transport.flush().await.unwrap();
            };
            let mut queue = std::pin::pin!(queue);
            poll_fn(|cx| {
                let polled = queue.as_mut().poll(cx);
                yields += u32::from(polled.is_pending());
                polled
            })
            .await;
        }
        yields
    }
    let yields = |sent, by_source| {
        let task = yields_after(sent, by_source);
        runtime().block_on(async { tokio::spawn(task).await.unwrap() })
    };
    let without = yields(0, false);
    for by_source in [false, true] {
        let yields = yields(100_000, by_source);
        // One more, because the earlier blocks may have begun a turn.
        assert!(
            yields <= without + 1,
            "{by_source}: {yields}, not {without}"
        );
    }
}

#[test]
fn timer_keeps_ticking_beside_a_slow_flood() {
    /// Spends a microsecond on each block.
    async fn busy(mut framed: impl BlockStream<Error = BlockError>, passed: Passed) {
        let mut receiving = recv_blocks(&mut framed);
        loop {
            receiving.next().await.unwrap().unwrap();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_micros(1) {
                std::hint::spin_loop();
            }
            if !passed.one() {
                return;
            }
        }
    }
    for first in beginnings() {
        let passed = Passed::default();
        let transport = BlockTransport::new(empty_blocks_after(&first), codec());
        let flood = busy(transport, passed.clone());
        let most = runtime().block_on(async {
            let ticking = tokio::spawn(async move {
                let mut ticks = interval(Duration::from_millis(1));
                let (mut most, mut before) = (0, 0);
                while before < BLOCKS {
                    ticks.tick().await;
                    let now = passed.0.load(Relaxed);
                    most = most.max(now - before);
                    before = now;
                }
                most
            });
            tokio::spawn(flood).await.unwrap();
            ticking.await.unwrap()
        });
        // A turn takes a quarter of a millisecond. Tokio may run the two tasks in either order, and a busy
        // machine may run neither for a while.
        assert!(most <= 40 * TURN, "{most} blocks between two ticks");
    }
}

/// Polls `work` in a task until it is ready, and returns the most bytes that arrived in one poll.
async fn most_arrived<W: Future<Output = ()> + Send + 'static>(
    io: Scripted,
    work: impl FnOnce(BlockTransport<Scripted, LengthPrefix>) -> W,
) -> usize {
    let arrived = io.arrived.clone();
    let mut work = Box::pin(work(BlockTransport::new(io, codec())));
    let (mut most, mut before) = (0, 0);
    let polls = poll_fn(move |cx| {
        let polled = work.as_mut().poll(cx);
        let now = arrived.load(Relaxed);
        most = most.max(now - before);
        before = now;
        polled.map(|()| most)
    });
    tokio::spawn(polls).await.unwrap()
}

#[test]
fn task_yields_inside_a_long_block_however_it_takes_the_block() {
    const LONG: usize = 64 * MIB;
    const WHOLE: usize = 8 * MIB;
    /// Most reads of a task between two yields.
    const READS: usize = 128;
    // Empty blocks follow the long one.
    let io = |len: usize| endless(&(len as u32).to_be_bytes(), 0);
    let runtime = runtime();
    let discarded = most_arrived(io(LONG), |mut transport| async move {
        drop(transport.recv_reader().await.unwrap().unwrap());
        assert_eq!(transport.recv().await.unwrap(), Some(&b""[..]));
    });
    assert!(runtime.block_on(discarded) <= READS * BATCH);
    let lent = most_arrived(io(LONG), |mut transport| async move {
        let mut reader = transport.recv_reader().await.unwrap().unwrap();
        assert_eq!(
            copy_buf(&mut reader, &mut sink()).await.unwrap(),
            LONG as u64
        );
    });
    assert!(runtime.block_on(lent) <= READS * BATCH);
    let straight = most_arrived(io(LONG), |mut transport| async move {
        let mut reader = transport.recv_reader().await.unwrap().unwrap();
        let mut memory = vec![0; 32 * KIB];
        while reader.read(&mut memory).await.unwrap() > 0 {}
    });
    assert!(runtime.block_on(straight) <= READS * BATCH);
    let in_pieces = io(WHOLE).reading(iter::repeat(Step::Move(KIB)));
    let received = most_arrived(in_pieces, |mut transport| async move {
        let mut memory = vec![0; WHOLE];
        let received = transport.recv_into(&mut memory).await.unwrap();
        assert_eq!(received, Some(WHOLE));
    });
    assert!(runtime.block_on(received) <= READS * KIB);
}
