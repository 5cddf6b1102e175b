//! `send_from` and `send_rest_from`: a block that is sent part by part, dropped, and resumed.

use std::{
    error::Error,
    io, mem,
    ops::RangeInclusive,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut, Bytes};
use futures::{FutureExt, SinkExt, stream};
use testing::{
    Case, KIB, MIB, Scripted, Step, numbered, numbered_for, ready, transport, wire,
    with_each_framing,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, Direction, Exact, Framing, Header, InOut,
    InvalidHeader, LengthField, LengthPrefix,
    internals::{BATCH, FULL_WRITE, PARTS},
    send_blocks,
};

/// A tag, then a length that counts itself, all of it kept: PostgreSQL's messages.
fn tagged() -> LengthField {
    let config = LengthField::config().offset(1).adjustment(-4);
    config.keep_header().build().unwrap()
}

fn message(len: usize) -> Bytes {
    let mut message = vec![b'Q'];
    message.extend_from_slice(&(len as u32 + 4).to_be_bytes());
    message.extend((0..len).map(|at| (at * 7) as u8));
    message.into()
}

/// A source of `bytes` in pieces, with a pause before each if `pausing`.
fn source(bytes: &[u8], piece: usize, pausing: bool) -> Scripted {
    Scripted::chunked(bytes, piece, pausing).unrecorded()
}

/// A transport that takes `step` bytes at each second poll.
fn slow(step: usize) -> Scripted {
    Scripted::taking(std::iter::repeat([Step::Pending, Step::Move(step)]).flatten())
}

#[test]
fn send_from_between_whole_blocks_keeps_to_the_write_len() {
    let block: Bytes = (0..300_000).map(|at| (at * 7) as u8).collect();
    for write_len in [4 * KIB, 65_160, MIB] {
        let mut blocks = transport(Scripted::default()).write_len(write_len);
        ready(blocks.feed(&block)).unwrap(); // fills the queue
        ready(blocks.send_from(300_000, &block[..])).unwrap();
        ready(blocks.send(&block)).unwrap();
        let io = blocks.get_ref();
        assert!(io.written == wire(LengthPrefix::u32(), &vec![block.clone(); 3]));
        let longest = io.gathered.iter().map(|(_, bytes)| *bytes).max();
        assert_eq!(longest, Some(write_len.min(300_004)));
    }
}

#[test]
fn send_from_writes_the_bytes_of_each_framing() {
    fn check<F: Framing + Copy>(Case { name, framing, .. }: Case<F>) {
        for len in [0, 1, 2, 255, 5_000, 200_000] {
            let block = &numbered_for(&framing, &[len])[0];
            if (block.len() as u64) < len as u64 && len > 5_000 {
                continue;
            }
            let expected = wire(framing, &[block.clone(), block.clone()]);
            for (piece, pausing, step) in [
                (usize::MAX, false, usize::MAX),
                (1_000, true, usize::MAX),
                (333, true, 777),
                (7, false, 100_000),
            ] {
                let mut blocks = BlockTransport::new(slow(step), BlockCodec::new(framing));
                for sent in 1..=2 {
                    let source = source(block, piece, pausing);
                    ready(blocks.send_from(block.len() as u64, source)).unwrap();
                    assert_eq!(blocks.stats().sent_blocks, sent, "{name}");
                    assert_eq!((blocks.queued(), blocks.unfinished()), (0, None), "{name}");
                }
                let io = blocks.get_ref();
                assert!(io.written == expected, "{name}, {len}, {piece}, {step}");
                assert_eq!(io.flushed, expected.len(), "{name}, {len}");
            }
        }
    }
    with_each_framing!(|case| check(case));
}

#[test]
fn kept_header_may_come_from_the_source_in_any_pieces() {
    for len in [0, 1, 300, 70 * KIB] {
        let message = message(len);
        for piece in 1..=8 {
            let mut blocks = BlockTransport::new(Scripted::default(), BlockCodec::new(tagged()));
            ready(blocks.feed(self::message(3))).unwrap();
            let source = source(&message, piece, true);
            ready(blocks.send_from(message.len() as u64, source)).unwrap();
            let expected = [self::message(3), message.clone()].concat();
            assert!(blocks.get_ref().written == expected, "{len}, {piece}");
            assert_eq!(blocks.stats().sent_blocks, 2);
        }
    }
}

#[test]
fn block_with_a_wrong_kept_header_is_not_sent() {
    for len in [0, 1, 300, 70 * KIB] {
        let message = message(len);
        for said in [message.len() as u64 - 1, message.len() as u64 + 1] {
            for (piece, pausing) in [(1, true), (3, false), (usize::MAX, true)] {
                let mut blocks =
                    BlockTransport::new(Scripted::default(), BlockCodec::new(tagged()));
                let source = source(&message, piece, pausing).take(said as usize);
                let error = ready(blocks.send_from(said, source)).unwrap_err();
                if message.len() as u64 > 5 || said > 5 {
                    assert!(
                        matches!(
                            error,
                            BlockError::WrongHeader { announced: Some(announced), actual, index: 0, .. }
                                if announced == message.len() as u64 && actual == said
                        ) || matches!(error, BlockError::WrongSource { .. }),
                        "{error:?}"
                    );
                }
                ready(blocks.send(self::message(9))).unwrap();
                assert_eq!(blocks.get_ref().written, self::message(9), "{len}, {said}");
                assert_eq!(blocks.stats().sent_blocks, 1);
            }
        }
    }
}

#[test]
fn transfer_dropped_before_its_kept_header_sends_nothing() {
    let mut blocks = BlockTransport::new(Scripted::default(), BlockCodec::new(tagged()));
    ready(blocks.feed(message(1))).unwrap();
    let silent = Scripted::default().send(b"Q\0\0").then_silent();
    assert!(blocks.send_from(12, silent).now_or_never().is_none());
    assert_eq!(blocks.get_ref().flushed(), message(1), "it does not wait");
    assert_eq!((blocks.queued(), blocks.unfinished()), (0, None));
    ready(blocks.send(message(2))).unwrap();
    assert_eq!(blocks.get_ref().written, [message(1), message(2)].concat());
}

#[test]
fn source_of_another_length_is_an_error_that_names_both() {
    let short = |given| move |error: &BlockError| matches!(error, BlockError::WrongSource { len: 10, given: g, index: 1 } if *g == given);
    let sources: [(&[u8], u64, &str); 4] = [
        (b"", 0, "the source of block 1 has 0 bytes, not 10"),
        (b"123456789", 9, "the source of block 1 has 9 bytes, not 10"),
        (
            b"12345678901",
            11,
            "the source of block 1 has 11 bytes or more, not 10",
        ),
        (
            b"1234567890123",
            11,
            "the source of block 1 has 11 bytes or more, not 10",
        ),
    ];
    for (bytes, given, text) in sources {
        for piece in [1, 3, 100] {
            let mut blocks = transport(Scripted::default());
            ready(blocks.feed("first")).unwrap();
            let error = ready(blocks.send_from(10, source(bytes, piece, false))).unwrap_err();
            assert!(short(given)(&error), "{error:?}");
            assert_eq!(error.to_string(), text);
            assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
            // Nothing of the block was written, so it is taken back.
            assert_eq!((blocks.queued(), blocks.unfinished()), (9, None));
            ready(blocks.send("second")).unwrap();
            assert_eq!(blocks.get_ref().written, b"\0\0\0\x05first\0\0\0\x06second");
            assert_eq!(blocks.stats().sent_blocks, 2);
        }
    }
}

#[test]
fn empty_block_needs_an_empty_source() {
    let mut blocks = transport(Scripted::default());
    ready(blocks.feed("one")).unwrap();
    let error = ready(blocks.send_from(0, source(b"more", 9, true))).unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::WrongSource {
                len: 0,
                given: 1,
                index: 1
            }
        ),
        "{error}"
    );
    ready(blocks.send_from(0, source(b"", 9, true))).unwrap();
    ready(blocks.send_from(0, tokio::io::empty())).unwrap();
    assert_eq!(blocks.get_ref().flushed(), b"\0\0\0\x03one\0\0\0\0\0\0\0\0");
    assert_eq!(blocks.stats().sent_blocks, 3);
}

#[test]
fn early_error_of_the_source_leaves_the_transport_unchanged() {
    let mut blocks = transport(Scripted::default());
    let failing = Scripted::default()
        .send(b"12345")
        .fail(io::ErrorKind::NotFound);
    let error = ready(blocks.send_from(10, failing)).unwrap_err();
    assert!(matches!(error, BlockError::Source(_)), "{error:?}");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.source().is_some());
    ready(blocks.send("next")).unwrap();
    assert_eq!(blocks.get_ref().written, b"\0\0\0\x04next");
}

#[test]
fn transport_refuses_other_blocks_after_a_transfer_failed_midway() {
    let block = numbered(&[200 * KIB]).remove(0);
    let failing: [(&str, Scripted); 3] = [
        (
            "failed",
            source(&block[..150 * KIB], 9_999, true).fail(io::ErrorKind::Other),
        ),
        ("short", source(&block[..150 * KIB], 9_999, true)),
        ("long", source(&[&block[..], b"!"].concat(), 9_999, true)),
    ];
    for (name, failing) in failing {
        let mut blocks = transport(Scripted::default());
        let mut sending = blocks.send_from(block.len() as u64, failing);
        let error = ready(&mut sending).unwrap_err();
        let of_source = matches!(
            error,
            BlockError::Source(_) | BlockError::WrongSource { index: 0, .. }
        );
        assert!(of_source, "{name}: {error:?}");
        let again = ready(&mut sending).unwrap_err();
        assert!(matches!(again, BlockError::Io(_)), "{name}: {again:?}");
        drop(sending);
        let (missing, queued) = match name {
            "long" => (0, block.len() as u64 - 1),
            _ => (50 * KIB as u64, 150 * KIB as u64),
        };
        assert_eq!(blocks.unfinished(), Some(missing), "{name}");
        assert_refuses_all_others(&mut blocks, queued, block.len() as u64);

        ready(blocks.close()).unwrap();
        assert_eq!(blocks.get_ref().shutdowns, 1);
        let mut peer = transport(Scripted::default().send(&blocks.get_ref().written));
        let error = ready(peer.expect_next()).unwrap_err();
        let (expected, received) = (block.len() as u64, queued);
        assert!(
            matches!(error, BlockError::Truncated { expected: e, received: r, index: 0, .. }
                if e == expected && r == received),
            "{name}: {error:?}"
        );
    }
}

/// Asserts that every way of sending is refused, even after a change of the framing and the limit.
fn assert_refuses_all_others(
    blocks: &mut BlockTransport<Scripted, LengthPrefix>,
    queued: u64,
    len: u64,
) {
    let refused = |error: BlockError| {
        assert!(
            matches!(error, BlockError::Unfinished { queued: q, len: l, index: 0 }
                if q == queued && l == len),
            "{error:?}"
        );
        assert_eq!(
            error.to_string(),
            format!("no block can be sent, because block 0 is unfinished: {queued} of {len} bytes"),
        );
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    };
    let before = blocks.stats();
    for block in ["", "other"] {
        refused(ready(blocks.feed(block)).unwrap_err());
        refused(ready(blocks.send(block)).unwrap_err());
        refused(ready(SinkExt::send(blocks, Bytes::from(block))).unwrap_err());
        refused(ready(send_blocks(blocks, stream::iter([block]))).unwrap_err());
        refused(ready(blocks.send_from(block.len() as u64, block.as_bytes())).unwrap_err());
    }
    blocks.set_framing(LengthPrefix::u32());
    blocks.codec_mut().set_max_encode_len(100).unwrap();
    refused(ready(blocks.feed("other")).unwrap_err());
    ready(blocks.flush()).unwrap();
    assert_eq!(blocks.stats().sent_blocks, before.sent_blocks);
    assert_eq!(blocks.unfinished(), Some(blocks.unfinished().unwrap()));
}

#[test]
fn failed_rest_takes_nothing_back() {
    let peer = Scripted::default().pause_writes().pause_writes();
    let mut blocks = transport(peer);
    ready(blocks.feed("before")).unwrap();
    let silent = Scripted::default().send(b"hel").then_silent();
    assert!(blocks.send_from(5, silent).now_or_never().is_none());
    assert_eq!(blocks.stats().sent_bytes, 0);
    let failing = Scripted::default().fail(io::ErrorKind::Other);
    let error = ready(blocks.send_rest_from(failing)).unwrap_err();
    assert!(matches!(error, BlockError::Source(_)), "{error:?}");
    assert_eq!(blocks.unfinished(), Some(2));
    ready(blocks.send_rest_from(&b"lo"[..])).unwrap();
    let expected = b"\0\0\0\x06before\0\0\0\x05hello";
    assert_eq!(blocks.get_ref().written, expected);
}

#[test]
fn empty_block_is_refused_behind_an_unfinished_one_whatever_its_source() {
    let mut blocks = transport(Scripted::default());
    let silent = Scripted::default().send(b"hel").then_silent();
    assert!(blocks.send_from(5, silent).now_or_never().is_none());
    let silent = Scripted::default().then_silent();
    let failing = Scripted::default().fail(io::ErrorKind::Other);
    for source in [Scripted::default().send(b"not empty"), silent, failing] {
        let refused = blocks.send_from(0, source).now_or_never();
        assert!(
            matches!(refused, Some(Err(BlockError::Unfinished { .. }))),
            "{refused:?}"
        );
    }
    ready(blocks.send_rest_from(&b"lo"[..])).unwrap();
    assert_eq!(blocks.get_ref().written, b"\0\0\0\x05hello");
}

#[test]
fn codec_with_an_unfinished_block_refuses_others_in_every_form() {
    let mut blocks = transport(Scripted::default());
    let silent = Scripted::default().send(b"hell").then_silent();
    assert!(blocks.send_from(5, silent).now_or_never().is_none());
    let fresh = blocks.codec().clone();
    let mut framed = blocks.into_framed();
    let error = ready(SinkExt::feed(&mut framed, Bytes::from("other"))).unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::Unfinished {
                queued: 4,
                len: 5,
                index: 0
            }
        ),
        "{error:?}"
    );
    let error = ready(send_blocks(&mut framed, stream::iter(["other"]))).unwrap_err();
    assert!(matches!(error, BlockError::Unfinished { .. }), "{error:?}");
    let framed = framed.map_codec(|codec| codec.with_framing(Exact::new(5).unwrap()));
    let mut blocks = BlockTransport::from(framed).map_codec(|codec| codec.err_into());
    let error: io::Error = ready(blocks.feed("other")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    ready(blocks.send_rest_from(&b"o"[..])).unwrap();
    ready(blocks.send("again")).unwrap();
    assert_eq!(blocks.get_ref().written, b"\0\0\0\x05helloagain");

    // A clone is a codec for another stream.
    let mut other = BlockTransport::new(Scripted::default(), fresh);
    ready(other.send("other")).unwrap();
}

#[test]
fn transfer_dropped_at_every_wait_can_be_resumed() {
    for len in [1, 2, 9, 1_000, 150_000] {
        let block = numbered(&[len]).remove(0);
        for (piece, step) in [(1_000, 1_500), (40_000, 30_000), (usize::MAX, 7_000)] {
            let mut blocks = transport(slow(step));
            ready(blocks.feed("before")).unwrap();
            let mut source = source(&block, piece, true);
            let (mut sent, mut given_up) = (None, 0);
            while sent.is_none() {
                sent = match blocks.unfinished() {
                    _ if blocks.stats().sent_blocks == 2 => blocks.flush().now_or_never(),
                    None => blocks.send_from(len as u64, &mut source).now_or_never(),
                    Some(missing) => {
                        assert!(missing <= len as u64);
                        // The peer sees no whole block meanwhile.
                        let written = blocks.get_ref().written.len();
                        assert!(written < 10 + 4 + len, "{written} of {len}");
                        if given_up % 3 == 0 {
                            let _ = blocks.flush().now_or_never();
                        }
                        blocks.send_rest_from(&mut source).now_or_never()
                    }
                };
                given_up += 1;
            }
            sent.unwrap().unwrap();
            assert!(given_up > 0);
            ready(blocks.send("after")).unwrap();
            let all = [Bytes::from("before"), block.clone(), Bytes::from("after")];
            assert!(
                blocks.get_ref().written == wire(LengthPrefix::u32(), &all),
                "{len}, {step}"
            );
            assert_eq!(blocks.stats().sent_blocks, 3);
        }
    }
}

#[test]
fn leaked_transfer_can_be_resumed() {
    let mut blocks = transport(slow(4));
    let mut source = source(b"hello, hello", 3, true);
    let mut sending = Box::pin(blocks.send_from(12, &mut source));
    for _ in 0..4 {
        assert!(sending.as_mut().now_or_never().is_none());
    }
    mem::forget(sending);
    ready(blocks.send_rest_from(&mut source)).unwrap();
    assert_eq!(blocks.get_ref().written, b"\0\0\0\x0chello, hello");
}

#[test]
fn close_inside_a_block_truncates_it_for_the_peer() {
    let block = numbered(&[3_000]).remove(0);
    // Even with all bytes of the block, its source has not ended yet.
    for come in [0, 1, 1_000, 2_999, 3_000] {
        let mut blocks = transport(Scripted::default());
        let silent = Scripted::default().send(&block[..come]).then_silent();
        assert!(blocks.send_from(3_000, silent).now_or_never().is_none());
        assert_eq!(blocks.unfinished(), Some(3_000 - come as u64));
        ready(blocks.close()).unwrap();
        let mut peer = transport(Scripted::default().send(&blocks.get_ref().written));
        let error = ready(peer.expect_next()).unwrap_err();
        let came = come.min(2_999) as u64;
        assert!(
            matches!(error, BlockError::Truncated { expected: 3_000, received, index: 0, .. }
                if received == came),
            "{come}: {error:?}"
        );
    }
}

#[test]
fn bytes_of_a_slow_source_are_flushed_except_the_last_one() {
    let mut blocks = transport(Scripted::default());
    let pieces = Scripted::default().send(b"he").pause().send(b"llo").pause();
    let mut sending = Box::pin(blocks.send_from(5, pieces));
    assert!(sending.as_mut().now_or_never().is_none());
    mem::forget(sending);
    assert_eq!(blocks.get_ref().flushed(), b"\0\0\0\x05he");
    let rest = Scripted::default().send(b"llo").pause();
    let mut sending = Box::pin(blocks.send_rest_from(rest));
    assert!(sending.as_mut().now_or_never().is_none());
    mem::forget(sending);
    assert_eq!(blocks.get_ref().flushed(), b"\0\0\0\x05hell");
    assert_eq!(blocks.unfinished(), Some(0));
    ready(blocks.send_rest_from(tokio::io::empty())).unwrap();
    assert_eq!(blocks.get_ref().flushed(), b"\0\0\0\x05hello");
}

#[test]
fn send_rest_from_without_an_unfinished_block_flushes() {
    let mut blocks = transport(Scripted::default());
    ready(blocks.feed("one")).unwrap();
    ready(blocks.send_rest_from(&b"not read"[..])).unwrap();
    assert_eq!(blocks.get_ref().flushed(), b"\0\0\0\x03one");
}

#[test]
fn send_from_queues_at_most_a_part_of_a_full_write() {
    let len = 16 * MIB as u64;
    let io = Scripted::taking(std::iter::repeat([Step::Pending, Step::Move(20_000)]).flatten());
    let mut blocks = transport(io.unrecorded());
    let mut source = tokio::io::repeat(7).take(len);
    let mut sent = blocks.send_from(len, &mut source).now_or_never();
    let mut most = 0;
    while sent.is_none() {
        most = most.max(blocks.queued());
        sent = blocks.send_rest_from(&mut source).now_or_never();
    }
    sent.unwrap().unwrap();
    assert_eq!(most, FULL_WRITE / PARTS);

    let mut blocks = transport(Scripted::default());
    ready(blocks.send_from(len, tokio::io::repeat(7).take(len))).unwrap();
    let writes = &blocks.get_ref().gathered;
    assert!(
        writes
            .iter()
            .all(|&(slices, bytes)| slices == 1 && bytes <= FULL_WRITE / PARTS)
    );
    assert_eq!(
        writes.len(),
        (len as usize + 4).div_ceil(FULL_WRITE / PARTS)
    );
}

#[test]
fn send_from_is_limited_by_the_header_and_not_by_max_encode_len() {
    let mut codec = BlockCodec::new(LengthPrefix::u16().max_block_len(10).unwrap());
    codec.set_max_encode_len(5).unwrap();
    let mut blocks = BlockTransport::new(Scripted::default(), codec);
    ready(blocks.send_from(65_535, tokio::io::repeat(1).take(65_535))).unwrap();
    let error = ready(blocks.send_from(65_536, tokio::io::repeat(1))).unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::WrongSize {
                min: 0,
                max: 65_535,
                limit: 65_535,
                actual: 65_536,
                index: 1
            }
        ),
        "{error:?}"
    );
    let mut blocks = BlockTransport::new(Scripted::default(), BlockCodec::exact(5).unwrap());
    for len in [4, 6] {
        let error = ready(blocks.send_from(len, tokio::io::repeat(1))).unwrap_err();
        assert!(
            matches!(error, BlockError::WrongSize { min: 5, max: 5, .. }),
            "{error:?}"
        );
    }
    ready(blocks.send_from(5, &b"hello"[..])).unwrap();
    assert_eq!(blocks.get_ref().written, b"hello");
    // Longer than any memory.
    let mut blocks = BlockTransport::new(Scripted::default(), BlockCodec::new(LengthPrefix::u64()));
    let long = 5 << 30;
    assert!(
        blocks
            .send_from(long, Scripted::default().then_silent())
            .now_or_never()
            .is_none()
    );
    assert_eq!(blocks.get_ref().written, long.to_be_bytes());
    assert_eq!(blocks.unfinished(), Some(long));
}

async fn stalled_transfer_goes_on_when_awaited_again() {
    let (near, mut far) = tokio::io::duplex(100);
    let mut blocks = transport(near).write_timeout(Duration::from_secs(30));
    let mut sending = blocks.send_from(200_000, tokio::io::repeat(7).take(200_000));
    for _ in 0..2 {
        let error = (&mut sending).await.unwrap_err();
        assert!(
            matches!(error, BlockError::Stalled { index: 0, offset, .. } if offset > 0),
            "{error:?}"
        );
    }
    let mut all = vec![0; 200_004];
    let (sent, read) = tokio::join!(sending, far.read_exact(&mut all));
    sent.unwrap();
    read.unwrap();
    assert_eq!(blocks.stats().sent_blocks, 1);
}

/// A source that is never pending and spends no budget.
struct Endless;

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buf.put_slice(&[1]);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn transfer_that_never_waits_still_yields() {
    let mut blocks = transport(Scripted::default().unrecorded());
    let mut source = Endless.take(100_000);
    let mut polls = 0;
    let mut sending = blocks.send_from(100_000, &mut source);
    std::future::poll_fn(|cx| {
        polls += 1;
        sending.poll_unpin(cx)
    })
    .await
    .unwrap();
    assert!(polls > 500, "{polls}");
}

async fn bytes_of_a_block_taken_back_do_not_count() {
    let (near, mut far) = tokio::io::duplex(4);
    let mut blocks = transport(near).write_timeout(Duration::from_secs(1));
    blocks.feed("0123456789").await.unwrap();
    let (mut giver, source) = tokio::io::duplex(64);
    giver.write_all(b"he").await.unwrap();
    let mut sending = blocks.send_from(5, source);
    // The first block fills the transport, so nothing of the second is written, but the error counts it.
    let error = (&mut sending).await.unwrap_err();
    assert!(
        matches!(error, BlockError::Stalled { index: 1, .. }),
        "{error:?}"
    );
    drop(giver);
    let error = sending.await.unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::WrongSource {
                len: 5,
                given: 2,
                index: 1
            }
        ),
        "{error:?}"
    );
    assert_eq!((blocks.unfinished(), blocks.queued()), (None, 10));

    let mut taken = [0; 14];
    let (flushed, read) = tokio::join!(blocks.flush(), far.read_exact(&mut taken));
    flushed.unwrap();
    read.unwrap();
    blocks.feed("again").await.unwrap();
    let error = blocks.flush().await.unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::Stalled {
                direction: Direction::Sending,
                index: 2,
                offset: 23,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn framed_goes_on_after_a_block_that_was_sent_part_by_part() {
    let mut blocks = transport(Scripted::default());
    ready(blocks.send_from(2, &b"me"[..])).unwrap();
    let mut framed = blocks.into_framed();
    ready(SinkExt::send(&mut framed, Bytes::from("too"))).unwrap();
    assert_eq!(framed.get_ref().written, b"\0\0\0\x02me\0\0\0\x03too");
}

#[test]
fn send_from_uses_only_the_outgoing_framing() {
    let (bytes, tags) = (LengthPrefix::u8(), tagged());
    let out_long = InOut {
        incoming: bytes,
        outgoing: tags,
    };
    let mut blocks = BlockTransport::new(
        Scripted::default().send(b"\x05hello"),
        BlockCodec::new(out_long),
    );
    let message = message(300);
    ready(blocks.send_from(message.len() as u64, &message[..])).unwrap();
    let lie = ready(blocks.send_from(304, &message[..304])).unwrap_err();
    assert!(
        matches!(lie, BlockError::WrongHeader { actual: 304, .. }),
        "{lie:?}"
    );
    assert_eq!(blocks.get_ref().written, message);
    let reader = ready(blocks.recv_reader()).unwrap().unwrap();
    assert_eq!(reader.len(), 5);

    let out_short = InOut {
        incoming: tags,
        outgoing: bytes,
    };
    let mut blocks = BlockTransport::new(Scripted::default(), BlockCodec::new(out_short));
    let error = ready(blocks.send_from(256, tokio::io::repeat(1))).unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::WrongSize {
                min: 0,
                max: 255,
                limit: 255,
                ..
            }
        ),
        "{error:?}"
    );
    ready(blocks.send_from(2, &b"me"[..])).unwrap();
    assert_eq!(blocks.get_ref().written, b"\x02me");
}

#[test]
fn partly_kept_header_may_come_from_the_source_in_any_pieces() {
    // The tag is stripped, and sent as a zero; the length is kept.
    let config = LengthField::config().offset(1).adjustment(-4).strip(1);
    let framing = config.build().unwrap();
    for len in [0, 1, 300] {
        let block = message(len).slice(1..);
        let wire = [&[0], &block[..]].concat();
        for piece in 1..=6 {
            let mut blocks = BlockTransport::new(Scripted::default(), BlockCodec::new(framing));
            let source = source(&block, piece, true);
            ready(blocks.send_from(block.len() as u64, source)).unwrap();
            assert_eq!(blocks.get_ref().written, wire, "{len}, {piece}");
        }
    }
}

/// Reads a header of two bytes that announces three, and writes a header of so many bytes.
#[derive(Clone)]
struct Mistaken(usize);

impl Framing for Mistaken {
    fn block_lens(&self) -> RangeInclusive<u64> {
        0..=10
    }

    fn decode_header(&self, _: &[u8]) -> Result<Header, InvalidHeader> {
        Ok(Header::Complete {
            stripped: 2,
            block_len: 3,
        })
    }

    fn encode_header(&self, _: u64, dst: &mut impl BufMut) {
        dst.put_bytes(0, self.0);
    }
}

#[test]
fn header_that_the_peer_would_misread_is_not_sent() {
    for (written, len, told) in [(1, 3, None), (3, 3, None), (2, 4, Some(3))] {
        let codec = BlockCodec::new(Mistaken(written));
        let mut blocks = BlockTransport::new(Scripted::default(), codec);
        let error = ready(blocks.send_from(len, &b"abcd"[..len as usize])).unwrap_err();
        assert!(
            matches!(error, BlockError::WrongHeader { announced, actual, index: 0, .. }
                if announced == told && actual == len),
            "{written}: {error:?}"
        );
        assert_eq!((blocks.queued(), blocks.unfinished()), (0, None));
    }
    let mut blocks = BlockTransport::new(Scripted::default(), BlockCodec::new(Mistaken(2)));
    ready(blocks.send_from(3, &b"abc"[..])).unwrap();
    assert_eq!(blocks.get_ref().written, b"\0\0abc");
}

/// Never finds the end of a header.
#[derive(Clone)]
struct Unending;

impl Framing for Unending {
    fn block_lens(&self) -> RangeInclusive<u64> {
        1..=u64::MAX
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        Ok(Header::Incomplete {
            at_least: front.len() + 1,
        })
    }

    fn encode_header(&self, _: u64, _: &mut impl BufMut) {}
}

#[test]
fn endless_header_is_refused_with_its_block_or_at_64_kib() {
    for len in [1, 2, 300, BATCH - 1, BATCH, BATCH + 1, 200_000] {
        let mut blocks = BlockTransport::new(Scripted::default(), BlockCodec::new(Unending));
        let source = source(&vec![b'a'; len], 9_000, true);
        let error = ready(blocks.send_from(len as u64, source)).unwrap_err();
        assert!(
            matches!(error, BlockError::WrongHeader { announced: None, actual, .. }
                if actual == len as u64),
            "{len}: {error:?}"
        );
        assert_eq!((blocks.queued(), blocks.unfinished()), (0, None));
        assert!(blocks.get_ref().written.is_empty());
    }
}

twice! {
    paused {
        stalled_transfer_goes_on_when_awaited_again,
        bytes_of_a_block_taken_back_do_not_count,
    }
}
