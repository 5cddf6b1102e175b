//! `recv` and `recv_batch`: lending blocks, mixed with everything else that uses the buffer.

use std::{io, mem, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use testing::{
    Case, KIB, Scripted, blocks_for, numbered, prefixed, ready, transport, wire, with_each_framing,
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep, timeout},
};
use wholeblock::{
    AnyFraming, BlockCodec, BlockError, BlockTransport, Exact, Framing, LengthPrefix,
};

#[test]
fn mixing_next_and_recv_on_a_quiet_peer_never_hangs_loses_or_repeats() {
    fn check<F: Framing + Copy>(Case { name, framing, .. }: Case<F>) {
        let blocks = blocks_for(&framing);
        let wire = wire(framing, &blocks);
        // Everything arrives at once, or byte by byte. Then the peer is silent, so a poll of the
        // socket before the buffer would hang.
        for chunk in [usize::MAX, 1, 9] {
            for owned_first in 0..4 {
                for lent in 0..4 {
                    let io = Scripted::chunked(&wire, chunk, false).then_silent();
                    let mut transport = BlockTransport::new(io, BlockCodec::new(framing));
                    let mut expected = blocks.iter();
                    for expected in expected.by_ref().take(owned_first) {
                        let block = ready(transport.next()).unwrap().unwrap();
                        assert_eq!(&block, expected, "{name}");
                    }
                    for expected in expected.by_ref().take(lent) {
                        let block = ready(transport.recv()).unwrap().unwrap();
                        assert_eq!(block, expected, "{name}");
                    }
                    for expected in expected {
                        let block = ready(transport.next()).unwrap().unwrap();
                        assert_eq!(&block, expected, "{name}, {owned_first}, {lent}");
                    }
                    assert!(transport.recv().now_or_never().is_none(), "{name}: silence");
                }
            }
        }
    }
    with_each_framing!(|case| check(case));
}

#[test]
fn batch_dropped_in_the_middle_leaves_the_rest() {
    let blocks = numbered(&[7; 6]);
    let io = Scripted::default().send(&wire(LengthPrefix::u32(), &blocks));
    let mut transport = transport(io.then_silent());

    drop(ready(transport.recv_batch()).unwrap().unwrap());
    let mut batch = ready(transport.recv_batch()).unwrap().unwrap();
    assert_eq!(batch.next().unwrap(), blocks[0]);
    assert_eq!(batch.next().unwrap(), blocks[1]);
    drop(batch);
    assert_eq!(ready(transport.recv()).unwrap().unwrap(), blocks[2]);
    let batch = ready(transport.recv_batch()).unwrap().unwrap();
    assert_eq!(batch.collect::<Vec<_>>(), blocks[3..]);
    assert_eq!(transport.stats().received_blocks, 6);
    assert!(transport.recv_batch().now_or_never().is_none());
}

#[test]
fn every_use_of_the_buffer_begins_after_the_lent_blocks() {
    let blocks = numbered(&[7; 4]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    let lent = || {
        let mut transport = transport(Scripted::default().send(&bytes));
        assert_eq!(ready(transport.recv()).unwrap().unwrap(), blocks[0]);
        assert_eq!(ready(transport.recv()).unwrap().unwrap(), blocks[1]);
        assert_eq!(transport.read_buffer(), &bytes[22..]);
        let stats = transport.stats();
        assert_eq!((stats.received_blocks, stats.received_bytes), (2, 22));
        transport
    };
    let third = &blocks[2];
    assert_eq!(ready(lent().next()).unwrap().unwrap(), third);
    assert_eq!(ready(lent().recv_batch()).unwrap().unwrap().count(), 2);

    let mut framed = lent().into_framed();
    let next = ready(futures::StreamExt::next(&mut framed));
    assert_eq!(next.unwrap().unwrap(), third);

    let mut changed = lent();
    *changed.codec_mut() = BlockCodec::length_prefixed();
    assert_eq!(ready(changed.recv()).unwrap().unwrap(), third);
    assert_eq!(changed.stats().received_blocks, 1, "of the new codec");

    let mut changed = lent().map_codec(|codec| codec.with_framing(Exact::new(11).unwrap()));
    assert_eq!(ready(changed.recv()).unwrap().unwrap(), &bytes[22..33]);
    assert_eq!(changed.stats().received_blocks, 3);

    let (io, rest) = lent().replace_io(());
    let (_, mut moved) = rest.replace_io(io);
    assert_eq!(ready(moved.recv()).unwrap().unwrap(), third);
}

#[test]
fn framing_set_after_a_lent_block_reads_what_follows() {
    let mut transport = BlockTransport::new(
        &b"hello\0\x02me"[..],
        BlockCodec::new(AnyFraming::from(Exact::new(5).unwrap())),
    );
    assert_eq!(ready(transport.recv()).unwrap(), Some(&b"hello"[..]));
    transport.set_framing(LengthPrefix::u16().into());
    assert_eq!(ready(transport.recv()).unwrap(), Some(&b"me"[..]));
}

#[test]
fn block_error_is_returned_again_and_an_io_error_is_not() {
    let mut cut = transport(Scripted::default().send(b"\0\0\0\x02ab\0\0"));
    assert_eq!(ready(cut.recv()).unwrap(), Some(&b"ab"[..]));
    let error = ready(cut.recv()).unwrap_err().to_string();
    assert_eq!(ready(cut.recv()).unwrap_err().to_string(), error);
    assert_eq!(ready(cut.recv_batch()).unwrap_err().to_string(), error);

    let bytes = wire(LengthPrefix::u32(), &numbered(&[5, 7]));
    for at in 0..bytes.len() {
        let io = Scripted::chunked(&bytes[..at], usize::MAX, false)
            .fail(io::ErrorKind::ConnectionReset)
            .send(&bytes[at..]);
        let mut transport = transport(io);
        let (mut received, mut errors) = (0, 0);
        loop {
            match ready(transport.recv()) {
                Ok(Some(_)) => received += 1,
                Ok(None) => break,
                Err(error) => {
                    assert!(matches!(error, BlockError::Io(_)), "{error}");
                    errors += 1;
                }
            }
        }
        assert_eq!((received, errors), (2, 1), "{at}");
    }
}

#[test]
fn recv_returns_no_false_end_after_an_error_of_the_stream() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[5]));
    for at in 0..bytes.len() {
        let io = Scripted::chunked(&bytes[..at], usize::MAX, false)
            .fail(io::ErrorKind::ConnectionReset)
            .send(&bytes[at..]);
        let mut transport = transport(io);
        ready(transport.next()).unwrap().unwrap_err();
        assert!(ready(transport.recv()).unwrap().is_some(), "{at}");
    }
}

#[test]
fn large_lent_block_leaves_at_most_64_kib_of_buffer() {
    let blocks = [vec![1; 3_000_000].into(), Bytes::from_static(b"small")];
    let bytes = wire(LengthPrefix::u32(), &blocks);
    let mut transport = transport(Scripted::default().send(&bytes).then_silent());
    assert_eq!(ready(transport.recv()).unwrap().unwrap(), blocks[0]);
    assert_eq!(ready(transport.recv()).unwrap().unwrap(), blocks[1]);
    assert!(transport.recv().now_or_never().is_none());
    let left = transport.read_capacity();
    assert!(left <= 64 * KIB, "{left}");
}

#[test]
fn leaked_future_or_batch_leaves_its_block() {
    let blocks = numbered(&[7; 2]);
    let io = Scripted::default()
        .pause()
        .send(&wire(LengthPrefix::u32(), &blocks));
    let mut transport = transport(io);
    let mut waiting = Box::pin(transport.recv());
    assert!(waiting.as_mut().now_or_never().is_none());
    mem::forget(waiting);
    assert_eq!(ready(transport.recv()).unwrap().unwrap(), blocks[0]);
    mem::forget(ready(transport.recv_batch()).unwrap().unwrap());
    // A batch that is leaked has taken nothing.
    assert_eq!(ready(transport.recv()).unwrap().unwrap(), blocks[1]);
}

#[test]
fn stats_count_only_the_blocks_taken_from_a_batch() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[5, 7, 11, 13]));
    let mut transport = transport(Scripted::default().send(&bytes));
    for (taken, blocks, wire_bytes) in [(2, 2, 20), (1, 3, 35), (9, 4, 52)] {
        let batch = ready(transport.recv_batch()).unwrap().unwrap();
        batch.take(taken).for_each(drop);
        let stats = transport.stats();
        assert_eq!(
            (stats.received_blocks, stats.received_bytes),
            (blocks, wire_bytes)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_waits_add_up_with_at_most_a_second_of_each_gap() {
    let second = Duration::from_secs(1);
    for batched in [false, true] {
        let (near, far) = tokio::io::duplex(64);
        let mut transport = transport(far).stall_timeout(30 * second);
        for _ in 0..3 {
            match batched {
                false => assert!(timeout(second, transport.recv()).await.is_err()),
                true => assert!(timeout(second, transport.recv_batch()).await.is_err()),
            }
            sleep(60 * second).await;
        }
        let begun = Instant::now();
        let error = match batched {
            false => transport.recv().await.map(drop).unwrap_err(),
            true => transport.recv_batch().await.map(drop).unwrap_err(),
        };
        assert!(matches!(error, BlockError::Stalled { waited, .. } if waited == 30 * second));
        assert_eq!(begun.elapsed(), 24 * second);
        // A new wait begins, whatever time has passed since.
        sleep(60 * second).await;
        let begun = Instant::now();
        match batched {
            false => drop(transport.recv().await.unwrap_err()),
            true => drop(transport.recv_batch().await.map(drop).unwrap_err()),
        }
        assert_eq!(begun.elapsed(), 30 * second);
        drop(near);
    }
}

#[tokio::test(start_paused = true)]
async fn late_block_does_not_restart_the_stall_timeout() {
    let second = Duration::from_secs(1);
    for batched in [false, true] {
        let (mut near, far) = tokio::io::duplex(64);
        near.write_all(b"\0\0\0\x05he").await.unwrap();
        let mut transport = transport(far)
            .stall_timeout(30 * second)
            .block_deadline(20 * second);
        let begun = Instant::now();
        for at in [20, 30] {
            let error = match batched {
                false => transport.recv().await.map(drop).unwrap_err(),
                true => transport.recv_batch().await.map(drop).unwrap_err(),
            };
            assert!(error.is_timeout());
            assert_eq!(begun.elapsed(), at * second, "{error}");
        }
    }
}

#[test]
fn codec_looks_for_the_block_again_after_the_buffer_was_emptied() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[7, 5]));
    let mut transport = transport(Scripted::default().send(&bytes[..11]).send(&bytes[11..]));
    drop(ready(transport.recv_batch()).unwrap().unwrap()); // found, and not taken
    let mut framed = transport.into_framed();
    framed.read_buffer_mut().clear();
    let next = ready(futures::StreamExt::next(&mut framed));
    assert_eq!(next.unwrap().unwrap(), &bytes[15..]);

    // The same if only a part of a block was there, and fewer bytes than that arrive.
    let io = Scripted::default().send(&bytes[..9]).pause();
    let mut framed = prefixed(io.send(b"\0\0\0\x01a"));
    assert!(
        futures::StreamExt::next(&mut framed)
            .now_or_never()
            .is_none()
    );
    framed.read_buffer_mut().clear();
    let next = ready(futures::StreamExt::next(&mut framed));
    assert_eq!(next.unwrap().unwrap(), "a");
}
