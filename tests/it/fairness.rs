//! Fair to other tasks: on a runtime of one thread, a flood of empty blocks does not keep a task
//! from yielding.
//!
//! What is measured is blocks and not time, so that it is the same on every machine: how many of
//! them pass between two yields.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, repeat, sink},
    time::interval,
};
use tokio_util::codec::{FramedRead, FramedWrite};
use wholeblock::{AsFramedRead, BlockCodec, BlockError, BlockTransport, recv_blocks, send_blocks};

use crate::support::FULL_WRITE;

/// Blocks in each test: many times what may pass at once.
const BLOCKS: u64 = 200_000;

/// Blocks between two yields: 64 for each unit of tokio's budget of 128, 64 begun before, and what
/// one buffer holds, for they are paid for together: 64 KiB of headers.
const FAIR: u64 = 64 * (128 + 1) + 64 * 1024 / 4;

/// As [`FAIR`], for a sender, whose buffer holds a full write.
const FAIR_SENDER: u64 = 64 * (128 + 1) + FULL_WRITE as u64 / 4;

/// A peer that sends empty blocks without end, and takes everything, at once each time. Unlike
/// tokio's transports, it spends nothing of a task's budget.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        buf.initialize_unfilled().fill(0);
        buf.advance(room);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bufs.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The blocks that have passed.
#[derive(Clone, Default)]
struct Passed(Arc<AtomicU64>);

impl Passed {
    /// Counts one, and returns whether there are more to come.
    fn one(&self) -> bool {
        self.0.fetch_add(1, Relaxed) + 1 < BLOCKS
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap()
}

/// Runs `work` as a task: at most `fair` blocks may pass in one poll of it.
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

async fn owned(mut framed: impl AsFramedRead<Error = BlockError>, passed: Passed) {
    while framed.next().await.unwrap().unwrap().is_empty() && passed.one() {}
}

async fn lent(mut framed: impl AsFramedRead<Error = BlockError>, passed: Passed) {
    let mut receiving = recv_blocks(&mut framed);
    while receiving.next().await.unwrap().unwrap().is_empty() && passed.one() {}
}

async fn batched(mut framed: impl AsFramedRead<Error = BlockError>, passed: Passed) {
    let mut receiving = recv_blocks(&mut framed);
    let mut more = true;
    while more {
        let mut batch = receiving.next_batch().await.unwrap().unwrap();
        more = batch.all(|_| passed.one());
    }
}

fn codec() -> BlockCodec<wholeblock::LengthPrefix> {
    BlockCodec::length_prefixed()
}

#[test]
fn a_flood_of_empty_blocks_leaves_others_their_turn_on_a_transport() {
    let transport = || BlockTransport::new(Endless, codec());
    check(|passed| owned(transport(), passed), FAIR);
    check(|passed| lent(transport(), passed), FAIR);
    check(|passed| batched(transport(), passed), FAIR);
}

#[test]
fn a_flood_of_empty_blocks_leaves_others_their_turn_on_a_framed() {
    let framed = || FramedRead::new(Endless, codec());
    check(|passed| lent(framed(), passed), FAIR);
    check(|passed| batched(framed(), passed), FAIR);
    // Here it is the read that yields, so it has to be one of tokio's.
    let framed = FramedRead::new(repeat(0), codec());
    check(|passed| owned(framed, passed), FAIR);
}

#[test]
fn a_receiver_made_for_each_block_leaves_others_their_turn_too() {
    async fn one_by_one(mut framed: impl AsFramedRead<Error = BlockError>, passed: Passed) {
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
        |passed| one_by_one(BlockTransport::new(Endless, codec()), passed),
        FAIR,
    );
    check(
        |passed| one_by_one(FramedRead::new(Endless, codec()), passed),
        FAIR,
    );
}

#[test]
fn an_endless_source_of_empty_blocks_leaves_others_their_turn() {
    async fn transfer(mut framed: impl wholeblock::AsFramedWrite, passed: Passed) {
        let empty = stream::repeat_with(Bytes::new);
        let source = empty.take_while(|_| std::future::ready(passed.one()));
        assert!(send_blocks(&mut framed, source).await.is_ok());
    }
    check(
        |passed| transfer(BlockTransport::new(Endless, codec()), passed),
        FAIR_SENDER,
    );
    check(
        |passed| transfer(FramedWrite::new(Endless, codec()), passed),
        FAIR_SENDER,
    );
}

#[test]
fn feeding_empty_blocks_leaves_others_their_turn() {
    check(
        |passed| async move {
            let mut transport = BlockTransport::new(Endless, codec());
            while passed.one() {
                transport.feed(Bytes::new()).await.unwrap();
            }
        },
        FAIR_SENDER,
    );
    check(
        |passed| async move {
            let mut framed = FramedWrite::new(sink(), codec());
            while passed.one() {
                framed.feed(Bytes::new()).await.unwrap();
            }
        },
        FAIR,
    );
}

#[test]
fn a_timer_goes_on_ticking_beside_a_flood_that_takes_time() {
    /// Takes a microsecond over each block.
    async fn busy(mut framed: impl AsFramedRead<Error = BlockError>, passed: Passed) {
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
    let passed = Passed::default();
    let flood = busy(BlockTransport::new(Endless, codec()), passed.clone());
    let most = runtime().block_on(async {
        let ticking = tokio::spawn(async move {
            // What may pass between two yields takes many milliseconds, so that at each of them
            // the timer is due.
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
    // Tokio may run those that have yielded in either order: two turns in a row.
    assert!(most <= 2 * FAIR, "{most} blocks between two ticks");
}
