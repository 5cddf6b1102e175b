//! The block deadline, the stall timeout of `BlockTransport`, and timeouts on busy threads and in several
//! runtimes. `recv.rs` and `send.rs` test the stall timeouts of `recv_blocks` and `send_blocks` by
//! themselves, and the block deadline of `send_blocks`.

use std::{
    io::{self, Write},
    iter,
    task::Poll,
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, future::join, poll, stream};
use testing::{KIB, Scripted, Step, prefixed, transport};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::yield_now,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::codec::FramedRead;
use wholeblock::{
    BlockCodec, BlockError, BlockStream, BlockTransport, LengthPrefix, RecvBlocks, recv_blocks,
    send_blocks,
};

pub(super) const SECOND: Duration = Duration::from_secs(1);

async fn yield_between_buffered_blocks_does_not_count_as_a_wait() {
    const BLOCKS: usize = 10_000;
    let wire = vec![0; BLOCKS]; // empty ones, each a byte
    for way in 0..3 {
        let codec = BlockCodec::new(LengthPrefix::u8());
        let mut transport = BlockTransport::new(&wire[..], codec).stall_timeout(SECOND);
        let mut yields = 0;
        // Keeps the task from its next turn for longer than the timeout.
        let mut wait = async || {
            yields += 1;
            tokio::time::advance(3 * SECOND).await;
        };
        if way == 0 {
            for _ in 0..BLOCKS {
                let block = loop {
                    match poll!(transport.next()) {
                        Poll::Ready(block) => break block,
                        Poll::Pending => wait().await,
                    }
                };
                assert!(block.unwrap().unwrap().is_empty());
            }
        } else {
            let mut receiving = recv_blocks(&mut transport).stall_timeout(SECOND);
            for _ in 0..BLOCKS {
                let mut next = receiving.next();
                let block = loop {
                    match poll!(&mut next) {
                        Poll::Ready(block) => break block,
                        Poll::Pending if way == 1 => wait().await,
                        Poll::Pending => {
                            drop(next);
                            wait().await;
                            next = receiving.next();
                        }
                    }
                };
                assert_eq!(block.unwrap(), Some(&b""[..]));
            }
        }
        assert!(yields > 30, "{yields}");
    }
}

/// A receiver with both timeouts.
trait Receive {
    async fn receive(&mut self) -> Result<Option<Bytes>, BlockError>;
}

impl Receive for BlockTransport<DuplexStream, LengthPrefix> {
    async fn receive(&mut self) -> Result<Option<Bytes>, BlockError> {
        Ok(self.next().await.transpose()?.map(Bytes::from))
    }
}

impl<R: BlockStream<Error = BlockError>> Receive for RecvBlocks<'_, R> {
    async fn receive(&mut self) -> Result<Option<Bytes>, BlockError> {
        Ok(self.next().await?.map(Bytes::copy_from_slice))
    }
}

/// Runs `$test` for each kind of receiver, with its peer, and with the timeouts that `$limits` sets.
macro_rules! with_each_receiver {
    (|$new:ident| $limits:expr, $test:expr) => {{
        let (near, far) = duplex(64);
        let $new = transport(far);
        $test(near, $limits).await;
        let (near, far) = duplex(64);
        let mut transport = transport(far);
        let $new = recv_blocks(&mut transport);
        $test(near, $limits).await;
        let (near, far) = duplex(64);
        let mut framed = prefixed(far);
        let $new = recv_blocks(&mut framed);
        $test(near, $limits).await;
    }};
}

/// Sends `bytes` one by one, the first at once and each of the others after `pause`.
pub(super) fn trickle(
    mut near: DuplexStream,
    bytes: &'static [u8],
    pause: Duration,
) -> tokio::task::JoinHandle<DuplexStream> {
    tokio::spawn(async move {
        for (at, byte) in bytes.iter().enumerate() {
            if at > 0 {
                sleep(pause).await;
            }
            near.write_all(&[*byte]).await.unwrap();
        }
        near
    })
}

pub(super) fn assert_stalled(error: &BlockError) {
    assert!(matches!(error, BlockError::Stalled { .. }), "{error:?}");
}

pub(super) fn assert_late(error: &BlockError, allowed: Duration, index: u64, offset: u64) {
    let expected = format!(
        "block {index}, which begins at byte {offset}, took longer than {allowed:?} to arrive"
    );
    assert_eq!(error.to_string(), expected);
    assert!(matches!(error, BlockError::Late { .. }), "{error:?}");
}

async fn trickling_block_is_late_at_the_deadline_and_never_stalls() {
    async fn check(mut near: DuplexStream, mut blocks: impl Receive) {
        near.write_all(b"\0\0\0\x01a").await.unwrap();
        assert_eq!(blocks.receive().await.unwrap().unwrap(), "a");
        assert!(
            timeout(4 * SECOND, blocks.receive()).await.is_err(),
            "silence"
        );
        let begun = Instant::now();
        let near = trickle(near, b"\0\0\0\x09trickling", 2 * SECOND);
        let error = blocks.receive().await.unwrap_err();
        assert_late(&error, 10 * SECOND, 1, 5);
        assert_eq!(begun.elapsed(), 10 * SECOND, "since the first byte");
        // The whole deadline once more.
        assert_late(&blocks.receive().await.unwrap_err(), 10 * SECOND, 1, 5);
        assert_eq!(begun.elapsed(), 20 * SECOND);
        assert_eq!(blocks.receive().await.unwrap().unwrap(), "trickling");
        assert_eq!(begun.elapsed(), 24 * SECOND);
        drop(near.await.unwrap());
        assert!(blocks.receive().await.unwrap().is_none(), "the end");
    }
    with_each_receiver!(
        |new| new.stall_timeout(5 * SECOND).block_deadline(10 * SECOND),
        check
    );
}

async fn each_block_has_its_own_deadline_and_time_between_has_none() {
    async fn check(mut near: DuplexStream, mut blocks: impl Receive) {
        for _ in 0..3 {
            assert!(timeout(3_600 * SECOND, blocks.receive()).await.is_err());
            let sending = trickle(near, b"\0\0\0\x05slowl", SECOND);
            assert_eq!(blocks.receive().await.unwrap().unwrap(), "slowl");
            near = sending.await.unwrap();
        }
    }
    with_each_receiver!(|new| new.block_deadline(9 * SECOND), check);
}

async fn deadline_runs_while_nobody_waits_but_spares_a_whole_block() {
    async fn check(mut near: DuplexStream, mut blocks: impl Receive) {
        near.write_all(b"\0\0\0\x05he").await.unwrap();
        for rest in ["", "llo"] {
            assert!(blocks.receive().now_or_never().is_none());
            sleep(60 * SECOND).await;
            near.write_all(rest.as_bytes()).await.unwrap();
            match blocks.receive().now_or_never().expect("at once") {
                Ok(block) => assert_eq!((block.unwrap(), rest), ("hello".into(), "llo")),
                Err(error) => assert_late(&error, 10 * SECOND, 0, 0),
            }
        }
    }
    with_each_receiver!(|new| new.block_deadline(10 * SECOND), check);
}

async fn stall_inside_a_block_does_not_move_its_deadline() {
    async fn check(mut near: DuplexStream, mut blocks: impl Receive) {
        near.write_all(b"\0\0").await.unwrap();
        let begun = Instant::now();
        for seconds in [4, 8] {
            let error = blocks.receive().await.unwrap_err();
            assert!(matches!(error, BlockError::Stalled { .. }), "{error:?}");
            assert_eq!(begun.elapsed(), seconds * SECOND);
        }
        assert_late(&blocks.receive().await.unwrap_err(), 10 * SECOND, 0, 0);
        assert_eq!(begun.elapsed(), 10 * SECOND);
        let error = blocks.receive().await.unwrap_err();
        assert!(matches!(error, BlockError::Stalled { .. }), "{error:?}");
        assert_eq!(begun.elapsed(), 12 * SECOND, "the wait went on");
    }
    with_each_receiver!(
        |new| new.stall_timeout(4 * SECOND).block_deadline(10 * SECOND),
        check
    );
}

async fn skipped_block_has_a_deadline_too() {
    let (mut near, far) = duplex(64);
    let codec = BlockCodec::new(LengthPrefix::u8().max_block_len(3).unwrap()).skip_too_large(true);
    let mut blocks = BlockTransport::new(far, codec).block_deadline(10 * SECOND);
    near.write_all(b"\x05he").await.unwrap();
    assert_late(
        &blocks.next().await.unwrap().unwrap_err(),
        10 * SECOND,
        0,
        0,
    );
    near.write_all(b"llo\x02o").await.unwrap();
    let begun = Instant::now();
    assert_late(
        &blocks.next().await.unwrap().unwrap_err(),
        10 * SECOND,
        1,
        6,
    );
    assert_eq!(begun.elapsed(), 10 * SECOND, "a deadline of its own");
    near.write_all(b"k").await.unwrap();
    assert_eq!(blocks.next().await.unwrap().unwrap(), "ok");
}

async fn unpolled_stream_does_not_stall() {
    let (mut near, far) = duplex(64);
    let mut blocks = transport(far).stall_timeout(30 * SECOND);
    for byte in *b"\0\0" {
        assert!(StreamExt::next(&mut blocks).now_or_never().is_none());
        sleep(100 * SECOND).await;
        let begun = Instant::now();
        for waits in 1..4 {
            let error = StreamExt::next(&mut blocks).await.unwrap().unwrap_err();
            assert!(
                matches!(error, BlockError::Stalled { .. }),
                "no end between"
            );
            assert_eq!(begun.elapsed(), 30 * waits * SECOND);
        }
        near.write_all(&[byte]).await.unwrap();
    }
}

async fn stream_forgives_one_timeout_found_too_late_until_bytes_move() {
    let (mut near, far) = duplex(64);
    let mut blocks = transport(far).stall_timeout(30 * SECOND);
    for byte in *b"\0\0\0" {
        for _ in 0..2 {
            assert!(
                timeout(SECOND, StreamExt::next(&mut blocks)).await.is_err(),
                "forgiven"
            );
            sleep(100 * SECOND).await;
        }
        let begun = Instant::now();
        assert_stalled(&StreamExt::next(&mut blocks).await.unwrap().unwrap_err());
        assert_eq!(begun.elapsed(), Duration::ZERO, "however late");
        for _ in 0..2 {
            assert!(
                timeout(SECOND, StreamExt::next(&mut blocks)).await.is_err(),
                "forgiven"
            );
            sleep(100 * SECOND).await;
        }
        near.write_all(&[byte]).await.unwrap();
    }
}

/// The timers of the wait and of the peer fire together, and the wait is polled first.
async fn block_that_arrives_as_the_timeout_ends_is_read() {
    async fn check(mut near: DuplexStream, mut blocks: impl Receive) {
        for _ in 0..3 {
            let sending = async {
                sleep(30 * SECOND).await;
                near.write_all(b"\0\0\0\x01a").await.unwrap();
            };
            let (received, ()) = join(blocks.receive(), sending).await;
            assert_eq!(received.unwrap().unwrap(), "a");
        }
        let begun = Instant::now();
        assert_stalled(&blocks.receive().await.unwrap_err());
        assert_eq!(begun.elapsed(), 30 * SECOND);
    }
    with_each_receiver!(|new| new.stall_timeout(30 * SECOND), check);
}

async fn a_stream_keeps_its_timeouts_when_its_codec_changes() {
    let (_near, far) = duplex(64);
    let blocks = transport(far).stall_timeout(SECOND);
    let mut blocks = blocks.map_codec(|codec| codec.with_framing(LengthPrefix::u8()));
    assert!(blocks.next().await.unwrap().is_err());
}

/// A stream does not know whether anybody waited, so its wait ends when a future takes over.
async fn wait_of_a_stream_does_not_count_for_a_future() {
    for lent in [true, false] {
        let (_near, far) = duplex(64);
        let mut blocks = transport(far).stall_timeout(30 * SECOND);
        assert!(StreamExt::next(&mut blocks).now_or_never().is_none());
        sleep(100 * SECOND).await;
        let begun = Instant::now();
        let stalled = match lent {
            true => recv_blocks(&mut blocks).next().await.unwrap_err(),
            false => blocks.next().await.unwrap().unwrap_err(),
        };
        assert_stalled(&stalled);
        assert_eq!(begun.elapsed(), 30 * SECOND, "{lent}");
    }
}

/// The other tests set the clock. Here it runs by itself, beyond the timeout.
async fn a_timer_that_fires_somewhat_late_still_ends_the_wait() {
    let (_near, far) = duplex(64);
    let mut transport = transport(far);
    let mut receiving = recv_blocks(&mut transport).stall_timeout(SECOND / 20);
    let ended = timeout(5 * SECOND, receiving.next()).await;
    let error = ended.expect("no stall was seen").unwrap_err();
    assert!(matches!(error, BlockError::Stalled { .. }), "{error:?}");
}

pub(super) const TIMEOUT: Duration = Duration::from_millis(100);

/// Occupies the thread for `turn`, 16 times.
pub(super) fn occupy_thread(turn: Duration) {
    tokio::spawn(async move {
        for _ in 0..16 {
            thread::sleep(turn);
            yield_now().await;
        }
    });
}

async fn busy_thread_delays_a_stall_and_does_not_prevent_it() {
    async fn check(_near: DuplexStream, mut blocks: impl Receive) {
        assert_stalled(&blocks.receive().await.unwrap_err());
    }
    let begun = Instant::now();
    occupy_thread(SECOND / 4);
    with_each_receiver!(|new| new.stall_timeout(TIMEOUT), check);
    let (near, _far) = duplex(4);
    let mut transport = transport(near);
    let sending = send_blocks(&mut transport, stream::iter(["hello"])).stall_timeout(TIMEOUT);
    assert_stalled(&sending.await.unwrap_err());
    assert!(begun.elapsed() < 30 * SECOND, "{:?}", begun.elapsed());
}

async fn busy_thread_delays_a_deadline_and_does_not_prevent_it() {
    async fn check(mut near: DuplexStream, mut blocks: impl Receive) {
        near.write_all(b"\0\0\0\x05hell").await.unwrap();
        assert_late(&blocks.receive().await.unwrap_err(), TIMEOUT, 0, 0);
    }
    let begun = Instant::now();
    occupy_thread(SECOND / 4);
    with_each_receiver!(|new| new.block_deadline(TIMEOUT), check);
    assert!(begun.elapsed() < 30 * SECOND, "{:?}", begun.elapsed());
}

async fn busy_select_loop_still_stalls() {
    async fn check(_near: DuplexStream, mut blocks: impl Receive) {
        let begun = Instant::now();
        // Always ready, because each turn takes longer.
        let mut ticks = interval(Duration::from_millis(10));
        for blocking in [false, true].into_iter().cycle().take(40) {
            tokio::select! {
                received = blocks.receive() => {
                    assert_stalled(&received.unwrap_err());
                    assert!(begun.elapsed() < 30 * SECOND, "{:?}", begun.elapsed());
                    return;
                }
                _ = ticks.tick() => match blocking {
                    false => sleep(Duration::from_millis(200)).await,
                    true => {
                        thread::sleep(Duration::from_millis(200));
                        yield_now().await;
                    }
                }
            }
        }
        panic!("no stall was seen");
    }
    with_each_receiver!(|new| new.stall_timeout(TIMEOUT), check);
}

/// The runtime has not looked at the socket since the block arrived, and the timeout is over by the clock.
async fn block_that_reached_a_busy_thread_is_read_before_a_stall() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await;
    let (mut peer, _) = listener.accept().unwrap();
    let mut transport = transport(socket.unwrap());

    let mut blocks = recv_blocks(&mut transport).stall_timeout(TIMEOUT);
    let mut next = Box::pin(blocks.next());
    assert!(poll!(&mut next).is_pending());
    peer.write_all(b"\0\0\0\x05hello").unwrap();
    thread::sleep(2 * TIMEOUT);
    let received = match poll!(&mut next) {
        Poll::Ready(received) => received,
        Poll::Pending => next.await,
    };
    assert_eq!(received.unwrap(), Some(&b"hello"[..]));
}

fn new_runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn kept_wait_goes_on_in_another_runtime() {
    for stopped in [true, false] {
        let (_silent, far) = duplex(64);
        let mut framed = prefixed(far);
        let mut blocks = recv_blocks(&mut framed).stall_timeout(TIMEOUT / 10);
        let mut next = Box::pin(blocks.next());
        let (near, _silent) = duplex(4);
        let mut full = transport(near);
        let mut sending =
            send_blocks(&mut full, stream::iter(["hello"])).stall_timeout(TIMEOUT / 10);
        let first = new_runtime();
        first.block_on(async {
            assert!(poll!(&mut next).is_pending());
            assert!(poll!(&mut sending).is_pending());
        });
        let first = (!stopped).then_some(first);
        new_runtime().block_on(async {
            let ended = timeout(5 * SECOND, next).await;
            assert_stalled(&ended.expect("no stall was seen").unwrap_err());
            let ended = timeout(5 * SECOND, sending).await;
            assert_stalled(&ended.expect("no stall was seen").unwrap_err());
        });
        drop(first);
    }
}

#[test]
fn waits_of_tasks_in_several_runtimes_stall() {
    let (_silent, far) = duplex(64);
    let mut blocks = transport(far).stall_timeout(TIMEOUT / 10);
    let mut runtimes: Vec<Runtime> = (0..2).map(|_| new_runtime()).collect();
    for turn in 0..4 {
        let runtime = match runtimes.get(turn) {
            Some(runtime) => runtime, // which stays, and does not run
            None => &new_runtime(),
        };
        let waiting = async move {
            let ended = timeout(5 * SECOND, blocks.next()).await;
            assert_stalled(&ended.expect("no stall was seen").unwrap().unwrap_err());
            assert!(blocks.next().now_or_never().is_none()); // sets the timer anew
            blocks
        };
        blocks = runtime.block_on(runtime.spawn(waiting)).unwrap();
    }
    runtimes.clear();
}

/// A peer that sends `head`, and then zeros as fast as they are read, in reads of `piece` bytes that
/// take some 100 µs each.
pub(super) fn flood(head: &[u8], piece: usize) -> Scripted {
    let reads = (0..20_000).map(move |_| {
        thread::sleep(Duration::from_micros(50));
        Step::Move(piece)
    });
    let without_end = iter::once(Step::Fail(io::ErrorKind::Other));
    let zeros = vec![0; 64 * KIB];
    Scripted::sending(head, reads.chain(without_end))
        .then_repeating(&zeros, u64::MAX)
        .unrecorded()
}

async fn block_with_bytes_always_ready_is_late_at_the_deadline() {
    let skipped = BlockCodec::new(LengthPrefix::u64()).skip_too_large(true);
    let tiny_reads = BlockCodec::new(LengthPrefix::u64());
    for (codec, head, piece) in [
        (skipped, &b"@\0\0\0\0\0\0\0"[..], 64 * 1024), // 2^62 bytes
        (tiny_reads, b"\0\0\0\0\0\x10\0\0", 1),        // 1 MiB
    ] {
        let ready = || flood(head, piece);
        for io in [ready().spending(), ready()] {
            let begun = Instant::now();
            let mut blocks = BlockTransport::new(io, codec.clone()).block_deadline(TIMEOUT);
            for waits in 1..3 {
                let error = blocks.next().await.unwrap().unwrap_err();
                assert_late(&error, TIMEOUT, 0, 0);
                assert!(
                    begun.elapsed() >= waits * TIMEOUT,
                    "the whole time once more"
                );
            }
            let mut blocks = recv_blocks(&mut blocks).block_deadline(TIMEOUT);
            assert_late(&blocks.next().await.unwrap_err(), TIMEOUT, 0, 0);
            assert!(begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
        }
        // `FramedRead` runs the loop of reads, and ends it with the task's budget.
        let begun = Instant::now();
        let mut framed = FramedRead::new(ready().spending(), codec.clone());
        let mut blocks = recv_blocks(&mut framed).block_deadline(TIMEOUT);
        assert_late(&blocks.next().await.unwrap_err(), TIMEOUT, 0, 0);
        assert!(begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
    }
}

/// As with `recv_blocks`, dropping the transport's own future gives up a wait.
async fn dropped_waits_of_next_add_up() {
    let (_near, far) = duplex(64);
    let mut blocks = transport(far).stall_timeout(30 * SECOND);
    assert!(timeout(SECOND, blocks.next()).await.is_err());
    sleep(100 * SECOND).await; // a second of it counts
    let begun = Instant::now();
    assert_stalled(&blocks.next().await.unwrap().unwrap_err());
    assert_eq!(begun.elapsed(), 28 * SECOND);

    for _ in 0..29 {
        assert!(timeout(SECOND, blocks.next()).await.is_err());
    }
    sleep(100 * SECOND).await; // a second of it counts
    let begun = Instant::now();
    assert_stalled(&blocks.next().await.unwrap().unwrap_err());
    assert_eq!(begun.elapsed(), Duration::ZERO);

    let mut waiting = blocks.next();
    assert!((&mut waiting).now_or_never().is_none());
    sleep(100 * SECOND).await; // kept, and not polled
    let begun = Instant::now();
    assert_stalled(&waiting.await.unwrap().unwrap_err());
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

async fn timeouts_of_a_transport_apply_to_recv_blocks_too() {
    for (own, shorter) in [(7, 7), (300, 30)] {
        let (_near, far) = duplex(64);
        let mut blocks = transport(far).stall_timeout(30 * SECOND);
        let mut receiving = recv_blocks(&mut blocks).stall_timeout(own * SECOND);
        let begun = Instant::now();
        assert_stalled(&receiving.next().await.unwrap_err());
        assert_eq!(begun.elapsed(), shorter * SECOND);
    }

    let (mut near, far) = duplex(64);
    let mut blocks = transport(far)
        .stall_timeout(30 * SECOND)
        .block_deadline(50 * SECOND);
    let begun = Instant::now();
    assert_stalled(&recv_blocks(&mut blocks).next().await.unwrap_err());
    assert_eq!(begun.elapsed(), 30 * SECOND);

    // A new receiver each time: dropped waits add up, with the gaps between them, and a block keeps its
    // deadline.
    let begun = Instant::now();
    for _ in 0..15 {
        let waiting = timeout(SECOND, async {
            recv_blocks(&mut blocks).next().await.map(drop)
        });
        assert!(waiting.await.is_err());
        sleep(SECOND).await;
    }
    assert_stalled(&blocks.next().await.unwrap().unwrap_err());
    assert_eq!(begun.elapsed(), 30 * SECOND);

    let begun = Instant::now();
    for byte in *b"\0\0\0\x05h" {
        near.write_all(&[byte]).await.unwrap();
        let waiting = timeout(9 * SECOND, async {
            recv_blocks(&mut blocks).next().await.map(drop)
        });
        assert!(waiting.await.is_err());
    }
    near.write_all(b"e").await.unwrap();
    let late = recv_blocks(&mut blocks).next().await.map(drop).unwrap_err();
    assert_late(&late, 50 * SECOND, 0, 0);
    assert_eq!(begun.elapsed(), 50 * SECOND);
}

/// Sends in one of several ways through a pipe of 8 bytes that nobody reads, and returns the error.
async fn stalls(way: usize, blocks: &mut BlockTransport<DuplexStream, LengthPrefix>) -> BlockError {
    let full = vec![0; 64 * KIB];
    let sent = match way {
        0 => blocks.send(full).await,
        1 => SinkExt::send(blocks, Bytes::from(full)).await,
        2 => {
            blocks.feed(full.clone()).await.unwrap();
            blocks.feed(full).await
        }
        3 => {
            blocks.feed(full).await.unwrap();
            blocks.close().await
        }
        4 => send_blocks(blocks, stream::iter([full])).await.map(drop),
        _ => {
            blocks.feed(full.clone()).await.unwrap(); // goes first
            send_blocks(blocks, stream::iter([full])).await.map(drop)
        }
    };
    sent.unwrap_err()
}

async fn write_timeout_applies_to_every_way_of_sending() {
    for way in 0..6 {
        let (near, mut far) = duplex(8);
        let mut blocks = transport(near).write_timeout(30 * SECOND);
        let begun = Instant::now();
        assert_stalled(&stalls(way, &mut blocks).await);
        assert_eq!(begun.elapsed(), 30 * SECOND, "{way}");
        assert_stalled(&blocks.flush().await.unwrap_err());
        assert_eq!(
            begun.elapsed(),
            60 * SECOND,
            "{way}: the whole time once more"
        );
        // The transport goes on, and waits for a peer that reads now and then.
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            while far.read_buf(&mut all).await.unwrap() > 0 {
                if all.len() < 80 {
                    sleep(29 * SECOND).await;
                }
            }
            all.len()
        });
        blocks.close().await.unwrap();
        assert_eq!(reading.await.unwrap() % (64 * KIB + 4), 0, "{way}");
    }

    let (near, _far) = duplex(8);
    let mut blocks = transport(near).write_timeout(30 * SECOND);
    let begun = Instant::now();
    let own = send_blocks(&mut blocks, stream::iter([vec![0; 100]])).stall_timeout(7 * SECOND);
    assert_stalled(&own.await.unwrap_err());
    assert_eq!(begun.elapsed(), 7 * SECOND);
}

async fn stream_continues_the_wait_of_a_future_and_forgives_nothing() {
    let (_near, far) = duplex(64);
    let mut blocks = transport(far).stall_timeout(10 * SECOND);
    {
        let mut waiting = std::pin::pin!(blocks.next());
        assert!(waiting.as_mut().now_or_never().is_none());
        sleep(10 * SECOND + SECOND / 2).await;
    }
    let begun = Instant::now();
    assert_stalled(&StreamExt::next(&mut blocks).await.unwrap().unwrap_err());
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

async fn timeouts_of_a_transport_in_use_can_be_changed_and_removed() {
    let (near, far) = duplex(4);
    let mut blocks = BlockTransport::new(near, BlockCodec::length_prefixed());
    let stalls_after = async |blocks: &mut BlockTransport<_, _>| {
        let begun = Instant::now();
        let stalled = timeout(100 * SECOND, blocks.recv())
            .await
            .ok()?
            .unwrap_err();
        assert_stalled(&stalled);
        Some(begun.elapsed())
    };
    assert_eq!(stalls_after(&mut blocks).await, None);
    blocks.set_stall_timeout(Some(5 * SECOND));
    assert_eq!(stalls_after(&mut blocks).await, Some(5 * SECOND));
    blocks.set_stall_timeout(Some(3 * SECOND));
    assert_eq!(stalls_after(&mut blocks).await, Some(3 * SECOND));
    blocks.set_stall_timeout(None);
    assert_eq!(stalls_after(&mut blocks).await, None);

    let mut far = far;
    far.write_all(b"\0").await.unwrap();
    blocks.set_block_deadline(Some(10 * SECOND));
    assert_late(&blocks.recv().await.unwrap_err(), 10 * SECOND, 0, 0);
    blocks.set_block_deadline(None);
    assert!(timeout(100 * SECOND, blocks.recv()).await.is_err());

    blocks.set_write_timeout(Some(2 * SECOND));
    let begun = Instant::now();
    assert_stalled(&blocks.send("hello").await.unwrap_err());
    assert_eq!(begun.elapsed(), 2 * SECOND);
    blocks.set_write_timeout(None);
    assert!(timeout(100 * SECOND, blocks.flush()).await.is_err());
}

twice! {
    paused {
        yield_between_buffered_blocks_does_not_count_as_a_wait,
        trickling_block_is_late_at_the_deadline_and_never_stalls,
        each_block_has_its_own_deadline_and_time_between_has_none,
        deadline_runs_while_nobody_waits_but_spares_a_whole_block,
        stall_inside_a_block_does_not_move_its_deadline,
        skipped_block_has_a_deadline_too,
        unpolled_stream_does_not_stall,
        stream_forgives_one_timeout_found_too_late_until_bytes_move,
        block_that_arrives_as_the_timeout_ends_is_read,
        a_stream_keeps_its_timeouts_when_its_codec_changes,
        wait_of_a_stream_does_not_count_for_a_future,
        dropped_waits_of_next_add_up,
        timeouts_of_a_transport_apply_to_recv_blocks_too,
        write_timeout_applies_to_every_way_of_sending,
        stream_continues_the_wait_of_a_future_and_forgives_nothing,
        timeouts_of_a_transport_in_use_can_be_changed_and_removed,
    }
    passes {
        a_timer_that_fires_somewhat_late_still_ends_the_wait,
        busy_thread_delays_a_stall_and_does_not_prevent_it,
        busy_thread_delays_a_deadline_and_does_not_prevent_it,
        busy_select_loop_still_stalls,
        block_that_reached_a_busy_thread_is_read_before_a_stall,
        block_with_bytes_always_ready_is_late_at_the_deadline,
    }
}
