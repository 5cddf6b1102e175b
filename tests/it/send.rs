//! `send_blocks`: what is written, in how many writes, and what stays when it is dropped.

use std::{io, iter, pin::pin, task::Context, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, Sink, SinkExt, StreamExt, future, stream};
use testing::{
    Case, KIB, MIB, Scripted, Step, blocks_for, numbered, prefixed, ready, wire, with_each_framing,
};
use tokio::{io::DuplexStream, sync::mpsc, time::Instant};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::codec::{Framed, FramedWrite};
use wholeblock::internals::{CHAIN_THRESHOLD as CHAIN_FROM, FULL_WRITE, PARTS};
use wholeblock::{
    BlockCodec, BlockError, BlockSink, BlockTransport, Framing, LengthPrefix, TransferStats,
    send_blocks, try_send_blocks,
};

/// Runs `$check` for each sender there is, with the far end of its pipe, which holds `$room` bytes.
macro_rules! with_each_sender {
    ($room:expr, $check:expr) => {{
        let (near, far) = tokio::io::duplex($room);
        $check(Framed::new(near, BlockCodec::length_prefixed()), far).await;
        let (near, far) = tokio::io::duplex($room);
        $check(FramedWrite::new(near, BlockCodec::length_prefixed()), far).await;
        let (near, far) = tokio::io::duplex($room);
        $check(
            BlockTransport::new(near, BlockCodec::length_prefixed()),
            far,
        )
        .await;
    }};
}

/// Small and large blocks in turn.
fn mixed(count: usize) -> Vec<Bytes> {
    let len = |n| if n % 3 == 0 { 20_000 + n } else { 10 + n };
    numbered(&(0..count).map(len).collect::<Vec<_>>())
}

#[test]
fn send_blocks_writes_the_bytes_of_each_framing_in_one_write() {
    fn check<F: Framing + Copy>(Case { name, framing, .. }: Case<F>) {
        let blocks = blocks_for(&framing);
        let expected = wire(framing, &blocks);
        for vectored in [true, false] {
            let mut io = Scripted::default();
            io = io.vectored(vectored);
            let mut framed = FramedWrite::new(io, BlockCodec::new(framing));
            let sent = ready(send_blocks(&mut framed, stream::iter(blocks.clone()))).unwrap();
            assert_eq!(framed.get_ref().written, expected, "{name}");
            assert_eq!(sent.blocks, blocks.len() as u64);
            assert_eq!(sent.wire_bytes, expected.len() as u64);
            let payload: usize = blocks.iter().map(Bytes::len).sum();
            assert_eq!(sent.payload_bytes, payload as u64);
            assert_eq!((sent.writes, sent.reads), (1, 0), "{name}");
        }
    }
    with_each_framing!(|case| check(case));
}

#[test]
fn vectored_write_takes_many_large_payloads_without_a_copy() {
    let blocks = vec![Bytes::from(vec![7; 10_000]); 200];
    let mut framed = prefixed(Scripted::default());
    let sent = ready(send_blocks(&mut framed, stream::iter(blocks.clone()))).unwrap();
    let io = framed.get_ref();
    assert_eq!(sent.writes, io.gathered.len() as u64);
    let parts = io
        .gathered
        .iter()
        .filter(|write| write.1 == FULL_WRITE / PARTS);
    assert!(parts.clone().count() >= 20, "{:?}", io.gathered);
    for (slices, _) in parts {
        assert!(
            (12..=15).contains(slices),
            "{slices}: six blocks, and pieces"
        );
    }
    assert_eq!(io.written, wire(LengthPrefix::u32(), &blocks));
    assert!(
        framed.write_buffer().capacity() <= 8 * KIB,
        "none went through the write buffer"
    );
}

#[test]
fn every_write_is_full_while_more_blocks_follow() {
    for len in [
        0,
        64,
        1_000,
        CHAIN_FROM - 1,
        CHAIN_FROM,
        10_000,
        51_200,
        FULL_WRITE - 4, // with its header, one write
        300_000,
        MIB,
    ] {
        for vectored in [true, false] {
            let blocks = vec![Bytes::from(vec![7; len]); 2 * MIB / (len + 4) + 3];
            let mut io = Scripted::default();
            io = io.vectored(vectored);
            let mut framed = prefixed(io);
            ready(send_blocks(&mut framed, stream::iter(blocks.clone()))).unwrap();
            let io = framed.get_ref();
            assert_eq!(io.written, wire(LengthPrefix::u32(), &blocks));
            io.assert_full_writes(len);
        }
    }
}

#[test]
fn write_len_sets_the_length_of_a_transfers_writes() {
    async fn check<W: BlockSink<Error = BlockError>>(mut sink: W) -> W {
        let blocks = vec![Bytes::from(vec![7; 1_020]); 400];
        let sending = send_blocks(&mut sink, stream::iter(blocks));
        sending.write_len(20_000).await.unwrap();
        sink
    }
    let lens = |io: &Scripted| {
        io.gathered
            .iter()
            .map(|(_, bytes)| *bytes)
            .collect::<Vec<_>>()
    };
    let framed = ready(check(prefixed(Scripted::default())));
    let lens_framed = lens(framed.get_ref());
    assert_eq!(
        lens_framed.iter().filter(|&&len| len == 20_000).count(),
        18,
        "{lens_framed:?}"
    );
    assert_eq!(lens_framed.iter().max(), Some(&20_000));

    let codec = BlockCodec::length_prefixed();
    let mut transport = ready(check(BlockTransport::new(Scripted::default(), codec)));
    assert_eq!(lens(transport.get_ref()), lens_framed);
    // The transport keeps the length.
    ready(transport.send(vec![7; 40_000])).unwrap();
    assert!(lens(transport.get_ref()).ends_with(&[20_000, 20_000, 4]));
}

#[test]
fn partial_writes_lose_nothing() {
    let blocks = mixed(60);
    let expected = wire(LengthPrefix::u32(), &blocks);
    for vectored in [true, false] {
        for taken in [7, 1_000, 20_000, 60_000] {
            let mut io = Scripted::default();
            io = io.vectored(vectored);
            for _ in 0..expected.len() / taken {
                io = io.take(taken).pause_writes();
            }
            let mut framed = prefixed(io);
            let sent = ready(send_blocks(&mut framed, stream::iter(blocks.clone()))).unwrap();
            assert_eq!(framed.get_ref().written, expected, "{taken}");
            assert_eq!((sent.blocks, sent.wire_bytes), (60, expected.len() as u64));
        }
    }
}

#[test]
fn a_transport_that_is_not_vectored_gets_header_and_payload_joined() {
    let blocks = vec![Bytes::from(vec![7; 50_000]); 3];
    let mut framed = prefixed(Scripted::default().not_vectored());
    ready(send_blocks(&mut framed, stream::iter(blocks.clone()))).unwrap();
    let io = framed.get_ref();
    assert!(io.gathered.iter().all(|(slices, _)| *slices == 1));
    assert!(io.gathered.len() <= 3, "no write for a header alone");
    assert_eq!(io.written, wire(LengthPrefix::u32(), &blocks));
}

#[test]
fn blocks_fed_before_a_transfer_leave_first() {
    let mut framed = prefixed(Scripted::default());
    ready(framed.feed(Bytes::from_static(b"fed before"))).unwrap();
    let large = Bytes::from(vec![1; 30_000]);
    let sent = ready(send_blocks(&mut framed, stream::iter([large.clone()]))).unwrap();
    assert_eq!(sent.blocks, 1, "the block fed before does not count");
    assert_eq!(sent.wire_bytes, 30_004);
    let expected = wire(
        LengthPrefix::u32(),
        &[Bytes::from_static(b"fed before"), large],
    );
    assert_eq!(framed.get_ref().written, expected);
}

#[test]
fn types_that_become_bytes_without_a_copy_can_be_sent() {
    let mut framed = prefixed(Scripted::default());
    ready(send_blocks(&mut framed, stream::iter([vec![1u8]]))).unwrap();
    ready(send_blocks(&mut framed, stream::iter(["text"]))).unwrap();
    ready(send_blocks(&mut framed, stream::iter([String::from("s")]))).unwrap();
    ready(send_blocks(&mut framed, stream::iter([BytesMut::new()]))).unwrap();
    assert_eq!(
        framed.get_ref().written,
        b"\0\0\0\x01\x01\0\0\0\x04text\0\0\0\x01s\0\0\0\0"
    );
}

#[test]
fn transfer_flushes_when_its_source_has_nothing_ready() {
    let (tx, rx) = mpsc::unbounded_channel();
    let mut framed = prefixed(Scripted::default());
    {
        let mut sending = pin!(send_blocks(&mut framed, UnboundedReceiverStream::new(rx)));
        tx.send(Bytes::from_static(b"now")).unwrap();
        assert!(sending.as_mut().now_or_never().is_none());
        assert_eq!(sending.stats().blocks, 1, "sent, not held back");
    }
    assert_eq!(framed.get_ref().written, b"\0\0\0\x03now");
    assert_eq!(framed.get_ref().flushes, 1);
}

#[test]
fn blocks_before_one_of_the_wrong_size_are_sent() {
    let blocks = [&b"right"[..], b"right", b"wrong!", b"never"];
    let codec = BlockCodec::exact(5).unwrap();
    let mut framed = Framed::new(Scripted::default(), codec);
    let mut sending = send_blocks(&mut framed, stream::iter(blocks));
    let error = ready(&mut sending).unwrap_err();
    assert_eq!(
        error.to_string(),
        "block 2, of 6 bytes, cannot be sent: the framing carries exactly 5"
    );
    assert_eq!(sending.stats().blocks, 2);
    drop(sending);
    assert_eq!(framed.get_ref().written, b"rightright");
    ready(framed.send(Bytes::from_static(b"still"))).unwrap();
    assert_eq!(framed.get_ref().written, b"rightrightstill");
}

#[test]
fn failed_transfer_says_so_when_awaited_again() {
    let mut framed = Framed::new(Scripted::default(), BlockCodec::exact(5).unwrap());
    let mut sending = send_blocks(&mut framed, stream::iter(["right", "wrong!"]));
    assert!(matches!(
        ready(&mut sending),
        Err(BlockError::WrongSize { .. })
    ));
    for _ in 0..2 {
        let error = ready(&mut sending).unwrap_err();
        assert_eq!(error.to_string(), "this transfer has failed before");
    }
    assert_eq!(sending.stats().blocks, 1);
}

#[test]
fn blocks_before_an_error_of_the_source_are_sent() {
    let blocks = [Ok(&b"one"[..]), Err(io::Error::other("disk on fire"))];
    let mut framed = prefixed(Scripted::default());
    let error = ready(try_send_blocks(&mut framed, stream::iter(blocks))).unwrap_err();
    assert!(
        matches!(&error, BlockError::Source(cause) if cause.to_string() == "disk on fire"),
        "{error:?}"
    );
    assert_eq!(framed.get_ref().written, b"\0\0\0\x03one");
}

#[test]
fn failed_transfer_counts_the_blocks_wholly_written() {
    // Three blocks of 7 bytes, joined in one slice.
    let blocks = [&b"abc"[..], b"def", b"ghi"];
    for (taken, whole) in [(0, 0), (6, 0), (7, 1), (13, 1), (14, 2), (17, 2), (20, 2)] {
        let io = match taken {
            0 => Scripted::default(),
            _ => Scripted::default().take(taken),
        };
        let mut framed = prefixed(io.fail_writes(io::ErrorKind::BrokenPipe));
        let mut sending = send_blocks(&mut framed, stream::iter(blocks));
        let error = ready(&mut sending).unwrap_err();
        assert!(matches!(&error, BlockError::Io(e) if e.kind() == io::ErrorKind::BrokenPipe));
        assert_eq!(sending.stats().blocks, whole, "{taken} bytes taken");
        assert_eq!(sending.stats().payload_bytes, whole * 3);
        assert_eq!(sending.stats().wire_bytes, whole * 7);
    }
    // The same with payloads in slices of their own: 4 + 10,000 bytes each.
    for (taken, whole) in [(10_003_usize, 0), (10_004, 1), (20_007, 1), (20_008, 2)] {
        // The first block fills a first write.
        let writes = [taken.min(10_004), taken.saturating_sub(10_004)];
        let writes = writes.into_iter().filter(|taken| *taken > 0);
        let io = writes.fold(Scripted::default(), Scripted::take);
        let mut framed = prefixed(io.fail_writes(io::ErrorKind::BrokenPipe));
        let blocks = vec![Bytes::from(vec![0; 10_000]); 3];
        let mut sending = send_blocks(&mut framed, stream::iter(blocks));
        assert!(ready(&mut sending).is_err());
        assert_eq!(sending.stats().blocks, whole, "{taken} bytes taken");
    }
}

/// Awaits `sending` three times, and asserts that it fails each time.
#[track_caller]
fn fails_for_good(mut sending: impl Future<Output = Result<TransferStats, BlockError>> + Unpin) {
    ready(&mut sending).unwrap_err();
    for _ in 0..2 {
        ready(&mut sending).unwrap_err();
    }
}

#[test]
fn transfer_with_a_failed_write_fails_again() {
    // The transport takes everything after the failure.
    let mut framed = prefixed(Scripted::default().fail_writes(io::ErrorKind::BrokenPipe));
    fails_for_good(send_blocks(&mut framed, stream::iter(["abc"])));
}

#[test]
fn transfer_with_a_refused_block_fails_again() {
    let mut framed = Framed::new(Scripted::default(), BlockCodec::exact(5).unwrap());
    let blocks = stream::iter(["right", "wrong!", "never"]);
    fails_for_good(send_blocks(&mut framed, blocks));
    assert_eq!(framed.get_ref().written, b"right");
}

#[test]
fn transfer_with_a_failed_source_fails_again() {
    let mut framed = prefixed(Scripted::default());
    let blocks = [Ok("one"), Err(io::Error::other("disk on fire"))];
    fails_for_good(try_send_blocks(&mut framed, stream::iter(blocks)));
}

#[test]
fn transport_that_takes_nothing_is_a_write_zero_error() {
    let mut framed = prefixed(Scripted::default().take(0));
    let error = ready(send_blocks(&mut framed, stream::iter(["x"]))).unwrap_err();
    assert!(matches!(error, BlockError::Io(e) if e.kind() == io::ErrorKind::WriteZero));
}

#[test]
fn transfer_takes_at_most_a_full_write_and_a_block_ahead() {
    for len in [1, 100, CHAIN_FROM - 1, CHAIN_FROM, 100_000] {
        let taken = std::cell::Cell::new(0);
        let endless = stream::repeat_with(|| {
            taken.set(taken.get() + len);
            Bytes::from(vec![0; len])
        });
        let mut framed = prefixed(Scripted::default().pause_writes());
        {
            let mut sending = pin!(send_blocks(&mut framed, endless));
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(sending.as_mut().poll(&mut cx).is_pending());
        }
        let most = FULL_WRITE + len;
        assert!(taken.get() <= most, "{len}: {} bytes", taken.get());
        assert!(framed.write_buffer().len() >= taken.get(), "none is lost");
    }
}

#[tokio::test]
async fn blocks_of_a_dropped_transfer_leave_with_the_next_flush() {
    async fn check<W>(mut framed: W, far: DuplexStream)
    where
        W: BlockSink<Error = BlockError> + Sink<Bytes, Error = BlockError> + Unpin,
    {
        let blocks = stream::iter([&b"abc"[..], b"def"]);
        assert!(send_blocks(&mut framed, blocks).now_or_never().is_none());
        let mut peer = Framed::new(far, BlockCodec::length_prefixed());
        let (flushed, got) = future::join(framed.flush(), peer.next()).await;
        flushed.unwrap();
        assert_eq!(got.unwrap().unwrap(), &b"abc"[..]);
        assert_eq!(peer.next().await.unwrap().unwrap(), &b"def"[..]);
    }
    with_each_sender!(8, check);
}

async fn transfer_goes_on_when_awaited_again_after_a_stall() {
    let (near, far) = tokio::io::duplex(8);
    let mut framed = Framed::new(near, BlockCodec::length_prefixed());
    let blocks = stream::iter([&b"abc"[..], b"def"]);
    let mut sending = send_blocks(&mut framed, blocks).stall_timeout(Duration::from_secs(5));
    let begun = tokio::time::Instant::now();
    let error = (&mut sending).await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    assert_eq!(
        error.to_string(),
        "nothing could be written for 5s at block 1, which begins at byte 7"
    );
    let mut peer = Framed::new(far, BlockCodec::length_prefixed());
    let (sent, got) = future::join(sending, peer.next()).await;
    assert_eq!(sent.unwrap().blocks, 2);
    assert_eq!(got.unwrap().unwrap(), &b"abc"[..]);
    assert_eq!(peer.next().await.unwrap().unwrap(), &b"def"[..]);
}

async fn unpolled_transfer_tries_the_transport_before_it_stalls() {
    let second = Duration::from_secs(1);
    let (near, far) = tokio::io::duplex(8);
    let mut framed = Framed::new(near, BlockCodec::length_prefixed());
    let blocks = stream::iter([&b"abc"[..], b"def"]);
    let mut sending = send_blocks(&mut framed, blocks).stall_timeout(30 * second);
    assert!((&mut sending).now_or_never().is_none());
    tokio::time::sleep(100 * second).await;
    let begun = Instant::now();
    let error = (&mut sending).await.unwrap_err();
    assert!(matches!(error, BlockError::Stalled { .. }), "{error:?}");
    assert_eq!(begun.elapsed(), Duration::ZERO, "the timeout was over");

    // The transport is tried first, so what the peer has taken in the meantime counts.
    assert!((&mut sending).now_or_never().is_none());
    tokio::time::sleep(30 * second).await;
    let mut peer = Framed::new(far, BlockCodec::length_prefixed());
    assert_eq!(peer.next().await.unwrap().unwrap(), &b"abc"[..]);
    assert_eq!(sending.await.unwrap().blocks, 2);
}

async fn lower_timeout_holds_for_a_transfer_that_has_begun() {
    let second = Duration::from_secs(1);
    let (near, _far) = tokio::io::duplex(8);
    let mut framed = Framed::new(near, BlockCodec::length_prefixed());
    let blocks = stream::iter([&b"abc"[..], b"def"]);
    let mut sending = send_blocks(&mut framed, blocks).stall_timeout(300 * second);
    let begun = Instant::now();
    let waited = tokio::time::timeout(second, &mut sending).await;
    assert!(waited.is_err());
    let error = sending.stall_timeout(5 * second).await.unwrap_err();
    assert!(matches!(error, BlockError::Stalled { waited, .. } if waited == 5 * second));
    assert_eq!(begun.elapsed(), 5 * second);
}

async fn slowly_taken_write_buffer_is_not_a_stall() {
    async fn check(mut framed: impl BlockSink<Error = BlockError>, far: DuplexStream) {
        framed
            .feed(Bytes::from_static(b"from before"))
            .await
            .unwrap();
        let slow = tokio::spawn(async move {
            let mut far = far;
            let mut got = Vec::new();
            while got.len() < 15 + 7 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                let mut piece = [0; 4];
                let len = tokio::io::AsyncReadExt::read(&mut far, &mut piece).await;
                got.extend_from_slice(&piece[..len.unwrap()]);
            }
            got
        });
        let sending = send_blocks(&mut framed, stream::iter(["now"]));
        let sent = sending.stall_timeout(Duration::from_secs(5)).await.unwrap();
        assert_eq!(sent.blocks, 1);
        let expected = b"\0\0\0\x0bfrom before\0\0\0\x03now";
        assert_eq!(slow.await.unwrap(), expected);
    }
    with_each_sender!(4, check);
}

async fn untaken_write_buffer_is_a_stall() {
    async fn check(mut framed: impl BlockSink<Error = BlockError>, _far: DuplexStream) {
        framed.feed("from before".into()).await.unwrap();
        let second = Duration::from_secs(1);
        let sending = send_blocks(&mut framed, stream::iter(["now"])).stall_timeout(5 * second);
        let ended = tokio::time::timeout(60 * second, sending).await;
        let error = ended.expect("no stall was seen").unwrap_err();
        assert_eq!(
            error.to_string(),
            "nothing could be written for 5s at block 1, which begins at byte 15",
            "the transfer's first block, which waits behind block 0"
        );
    }
    with_each_sender!(4, check);
}

async fn waiting_for_the_source_is_neither_a_stall_nor_late() {
    let mut framed = prefixed(Scripted::default());
    let slow = stream::iter(["a", "b"]).then(|block| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        block
    });
    let sent = send_blocks(&mut framed, slow)
        .stall_timeout(Duration::from_secs(5))
        .block_deadline(Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(sent.blocks, 2);
}

/// Reads `bytes` bytes, one every 4 seconds, the first at once.
async fn trickle_out(far: &mut DuplexStream, bytes: usize) {
    for at in 0..bytes {
        if at > 0 {
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        tokio::io::AsyncReadExt::read_u8(far).await.unwrap();
    }
}

async fn block_written_byte_by_byte_is_late_and_never_stalls() {
    async fn check(mut framed: impl BlockSink<Error = BlockError>, mut far: DuplexStream) {
        let second = Duration::from_secs(1);
        let begun = Instant::now();
        let slow = tokio::spawn(async move {
            trickle_out(&mut far, 10).await;
            far
        });
        let mut sending = send_blocks(&mut framed, stream::iter(["tardy", "slow!"]))
            .stall_timeout(5 * second)
            .block_deadline(10 * second);
        // Of the first 9 bytes, the pipe takes 5 at once and the last after 16 s. A block has 10 s since it
        // became the first, or since it was last reported.
        for (seconds, late) in [
            (
                10,
                "block 0, which begins at byte 0, took longer than 10s to be sent",
            ),
            (
                26,
                "block 1, which begins at byte 9, took longer than 10s to be sent",
            ),
            (
                36,
                "block 1, which begins at byte 9, took longer than 10s to be sent",
            ),
        ] {
            let error = (&mut sending).await.unwrap_err();
            assert_eq!(error.to_string(), late);
            assert!(matches!(error, BlockError::Late { .. }));
            assert_eq!(begun.elapsed(), seconds * second);
        }
        // The transfer remains usable.
        let mut far = slow.await.unwrap();
        let mut rest = [0; 8];
        let reading = tokio::io::AsyncReadExt::read_exact(&mut far, &mut rest);
        let (sent, read) = future::join(sending, reading).await;
        assert_eq!(sent.unwrap().blocks, 2);
        read.unwrap();
        assert_eq!(rest[3..], *b"slow!");
    }
    with_each_sender!(4, check);
}

async fn blocks_queued_before_a_transfer_have_their_own_deadline() {
    async fn check(mut framed: impl BlockSink<Error = BlockError>, mut far: DuplexStream) {
        framed.feed("old".into()).await.unwrap();
        let second = Duration::from_secs(1);
        let begun = Instant::now();
        let slow = tokio::spawn(async move { trickle_out(&mut far, 20).await });
        let mut sending =
            send_blocks(&mut framed, stream::iter(["new"])).block_deadline(7 * second);
        // The pipe takes the last of the 7 bytes queued before after 8 s.
        for seconds in [7, 8 + 7] {
            let error = (&mut sending).await.unwrap_err();
            // The codec does not know where the earlier blocks end.
            let late = "block 1, which begins at byte 7, took longer than 7s to be sent";
            assert_eq!(error.to_string(), late);
            assert_eq!(begun.elapsed(), seconds * second);
        }
        slow.abort();
    }
    with_each_sender!(4, check);
}

/// Takes one byte a write, spends some time on it, and is never pending.
fn dribble() -> Scripted {
    let writes = (0..20_000).map(|_| {
        std::thread::sleep(Duration::from_micros(50));
        Step::Move(1)
    });
    let without_end = iter::once(Step::Fail(io::ErrorKind::Other));
    Scripted::taking(writes.chain(without_end)).unrecorded()
}

#[tokio::test]
async fn block_whose_writes_never_wait_is_late_at_the_deadline() {
    let deadline = Duration::from_millis(100);
    let mut transport = BlockTransport::new(dribble(), BlockCodec::length_prefixed());
    let begun = Instant::now();
    let blocks = stream::iter([vec![0; 20], vec![0; MIB]]);
    let mut sending = send_blocks(&mut transport, blocks).block_deadline(deadline);
    for times in 1..3 {
        let error = (&mut sending).await.unwrap_err();
        assert!(
            matches!(error, BlockError::Late { index: 1, .. }),
            "{error:?}"
        );
        assert!(begun.elapsed() >= times * deadline);
        assert!(begun.elapsed() < 100 * deadline);
    }
}

fn goes_on(elapsed: impl Fn() -> Duration) -> bool {
    let before = elapsed();
    (0..1_000_000).any(|_| elapsed() > before)
}

async fn elapsed_time_of_a_transfer_goes_on_until_its_end() {
    let (near, mut far) = tokio::io::duplex(8);
    let mut transport = BlockTransport::new(near, BlockCodec::length_prefixed());
    let mut sending =
        send_blocks(&mut transport, stream::iter(["hello"])).stall_timeout(Duration::from_secs(5));
    assert_eq!(sending.stats().elapsed, Duration::ZERO);
    assert!((&mut sending).now_or_never().is_none());
    assert!(goes_on(|| sending.stats().elapsed));
    (&mut sending).await.unwrap_err();
    assert!(
        goes_on(|| sending.stats().elapsed),
        "a stall does not end it"
    );
    let mut read = [0; 9];
    let reading = tokio::io::AsyncReadExt::read_exact(&mut far, &mut read);
    let (sent, _) = future::join(&mut sending, reading).await;
    assert_eq!(sending.stats(), sent.unwrap());
    assert!(!goes_on(|| sending.stats().elapsed));
}

#[test]
fn a_transfer_never_polled_changes_nothing() {
    let mut framed = prefixed(Scripted::default());
    ready(framed.feed(Bytes::from_static(b"kept"))).unwrap();
    drop(send_blocks(&mut framed, stream::iter(["never"])));
    ready(framed.close()).unwrap();
    assert_eq!(framed.get_ref().written, b"\0\0\0\x04kept");
}

twice! {
    paused {
        transfer_goes_on_when_awaited_again_after_a_stall,
        unpolled_transfer_tries_the_transport_before_it_stalls,
        lower_timeout_holds_for_a_transfer_that_has_begun,
        slowly_taken_write_buffer_is_not_a_stall,
        untaken_write_buffer_is_a_stall,
        waiting_for_the_source_is_neither_a_stall_nor_late,
        block_written_byte_by_byte_is_late_and_never_stalls,
        blocks_queued_before_a_transfer_have_their_own_deadline,
        elapsed_time_of_a_transfer_goes_on_until_its_end,
    }
}
