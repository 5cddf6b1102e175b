//! `recv_blocks`: `stop_after`, `at_least`, waits, and sharing a `Framed` with `next`.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use testing::{
    Case, Scripted, blocks_for, collect, numbered, prefixed, ready, wire, with_each_framing,
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout},
};
use tokio_util::codec::{Framed, FramedRead};
use wholeblock::{
    BlockCodec, BlockError, BlockStream, BlockTransport, Framing, LengthPrefix, recv_blocks,
};

#[test]
fn mixing_next_and_recv_blocks_on_a_quiet_peer_never_hangs_loses_or_repeats() {
    fn check<F: Framing + Copy>(Case { name, framing, .. }: Case<F>) {
        let blocks = blocks_for(&framing);
        let wire = wire(framing, &blocks);
        // Everything arrives at once, or byte by byte. Then the peer is silent, so a poll of the
        // socket before the buffer would hang.
        for chunk in [usize::MAX, 1, 9] {
            for owned_first in 0..4 {
                for lent in 0..4 {
                    let io = || Scripted::chunked(&wire, chunk, false).then_silent();
                    let codec = || BlockCodec::new(framing);
                    mix(name, Framed::new(io(), codec()), &blocks, owned_first, lent);
                    let transport = BlockTransport::new(io(), codec());
                    mix(name, transport, &blocks, owned_first, lent);
                }
            }
        }
    }

    /// Receives `owned_first` blocks by `next`, `lent` by lending, and the rest by `next`.
    fn mix<R: BlockStream<Error = BlockError>>(
        name: &str,
        mut framed: R,
        blocks: &[Bytes],
        owned_first: usize,
        lent: usize,
    ) {
        let mut expected = blocks.iter();
        for _ in 0..owned_first {
            let block = ready(framed.next()).unwrap().unwrap();
            assert_eq!(&block, expected.next().unwrap(), "{name}");
        }
        let mut receiving = recv_blocks(&mut framed);
        for _ in 0..lent {
            let block = ready(receiving.next()).unwrap().unwrap();
            assert_eq!(block, expected.next().unwrap(), "{name}");
        }
        drop(receiving);
        for expected in expected {
            let block = ready(framed.next()).unwrap().unwrap();
            assert_eq!(&block, expected, "{name}, {owned_first} owned, {lent} lent");
        }
        assert!(framed.next().now_or_never().is_none(), "{name}: silence");
    }
    with_each_framing!(|case| check(case));
}

#[test]
fn a_leaked_receiver_leaves_the_framed_usable() {
    let blocks = numbered(&[7; 3]);
    let io = Scripted::default().send(&wire(LengthPrefix::u32(), &blocks));
    let mut framed = prefixed(io);
    let mut receiving = recv_blocks(&mut framed);
    ready(receiving.next()).unwrap().unwrap();
    std::mem::forget(receiving);
    let (rest, error) = collect(&mut framed);
    assert!(error.is_none());
    assert_eq!(rest, blocks[1..]);
}

#[test]
fn stop_after_ends_the_receiver_after_that_many_blocks() {
    let blocks = numbered(&[7; 5]);
    let mut bytes = wire(LengthPrefix::u32(), &blocks);
    bytes.extend_from_slice(b"\0\0");
    for chunk in [1, 7, usize::MAX] {
        let mut framed = prefixed(Scripted::chunked(&bytes, chunk, true).then_silent());
        let mut receiving = recv_blocks(&mut framed).stop_after(2);
        assert_eq!(ready(receiving.next()).unwrap().unwrap(), blocks[0]);
        assert_eq!(ready(receiving.next()).unwrap().unwrap(), blocks[1]);
        assert!(ready(receiving.next()).unwrap().is_none());
        assert_eq!(receiving.stats().blocks, 2);
        drop(receiving);

        let mut receiving = recv_blocks(&mut framed).stop_after(0);
        assert!(ready(receiving.next()).unwrap().is_none());
    }
}

#[test]
fn stopping_after_the_last_block_does_not_wait_for_more() {
    let io = Scripted::default().send(b"\0\0\0\x02ab").then_silent();
    let mut framed = prefixed(io);
    let mut receiving = recv_blocks(&mut framed).stop_after(1);
    assert_eq!(ready(receiving.next()).unwrap().unwrap(), b"ab");
    assert!(receiving.next().now_or_never().unwrap().unwrap().is_none());
}

#[test]
fn stopped_receiver_goes_on_if_stop_after_is_raised() {
    let blocks = numbered(&[7; 5]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for chunk in [1, 7, usize::MAX] {
        let mut framed = prefixed(Scripted::chunked(&bytes, chunk, true));
        let mut receiving = recv_blocks(&mut framed).stop_after(0);
        for (index, block) in blocks.iter().enumerate() {
            assert!(ready(receiving.next()).unwrap().is_none());
            let stats = receiving.stats();
            assert_eq!(
                receiving.stats(),
                stats,
                "the clock stops while it is stopped"
            );
            receiving = receiving.stop_after(index as u64 + 1);
            assert_eq!(ready(receiving.next()).unwrap().unwrap(), block);
        }
        receiving = receiving.stop_after(6);
        assert!(ready(receiving.next()).unwrap().is_none(), "the end");
        assert_eq!(receiving.stats().blocks, 5);
    }
}

#[test]
fn lower_stop_after_holds_at_once() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[7; 5]));
    let mut framed = prefixed(Scripted::default().send(&bytes));
    let mut receiving = recv_blocks(&mut framed).stop_after(5);
    ready(receiving.next()).unwrap().unwrap();
    let mut receiving = receiving.stop_after(2);
    ready(receiving.next()).unwrap().unwrap();
    assert!(ready(receiving.next()).unwrap().is_none());
    let mut receiving = receiving.stop_after(1);
    assert!(ready(receiving.next()).unwrap().is_none());
    assert_eq!(receiving.stats().blocks, 2);
}

#[test]
fn stop_before_at_least_is_not_taken_for_the_end_of_the_stream() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[7; 2]));
    let mut framed = prefixed(Scripted::default().send(&bytes));
    let mut receiving = recv_blocks(&mut framed).stop_after(1).at_least(3);
    ready(receiving.next()).unwrap().unwrap();
    assert!(ready(receiving.next()).unwrap().is_none(), "it has stopped");
    let mut receiving = receiving.stop_after(3);
    ready(receiving.next()).unwrap().unwrap();
    let error = ready(receiving.next()).unwrap_err();
    assert_eq!(error.to_string(), "stream ended after 2 of 3 blocks");
}

#[test]
fn fewer_blocks_than_required_are_an_error_that_says_how_many_came() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[7; 3]));
    for required in [0, 3, 4] {
        let mut framed = prefixed(Scripted::default().send(&bytes));
        let mut receiving = recv_blocks(&mut framed).at_least(required);
        for _ in 0..3 {
            ready(receiving.next()).unwrap().unwrap();
        }
        let end = ready(receiving.next());
        if required <= 3 {
            assert!(end.unwrap().is_none());
        } else {
            let error = end.unwrap_err();
            assert_eq!(error.to_string(), "stream ended after 3 of 4 blocks");
            let again = ready(receiving.next()).unwrap_err();
            assert_eq!(again.to_string(), error.to_string());
        }
    }
}

#[test]
fn the_stats_count_blocks_bytes_reads_and_fragmented_blocks() {
    // Reads end: inside block 0's header, inside block 2, after block 2.
    let blocks = numbered(&[7; 4]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    assert_eq!(bytes.len(), 4 * 11);
    let io = Scripted::default()
        .send(&bytes[..2])
        .send(&bytes[2..30])
        .pause()
        .send(&bytes[30..33])
        .send(&bytes[33..]);
    let mut framed = prefixed(io);
    let first = ready(framed.next()).unwrap().unwrap();
    assert_eq!(first, blocks[0]);

    let mut receiving = recv_blocks(&mut framed);
    while ready(receiving.next()).unwrap().is_some() {}
    let stats = receiving.stats();
    assert_eq!(stats.blocks, 3, "the first was taken before");
    assert_eq!((stats.payload_bytes, stats.wire_bytes), (21, 33));
    assert_eq!(stats.reads, 2, "two reads were before");
    assert_eq!(stats.fragmented_blocks, 1, "block 2; block 0 was before");
    assert_eq!(stats.writes, 0);
    assert!(stats.elapsed > Duration::ZERO);
    assert_eq!(receiving.stats(), stats, "the clock stops at the end");
}

#[test]
fn io_error_comes_through_unchanged() {
    let io = Scripted::default()
        .send(b"\0\0\0\x02ab\0\0")
        .fail(io::ErrorKind::ConnectionReset);
    let mut framed = prefixed(io);
    let mut receiving = recv_blocks(&mut framed);
    assert_eq!(ready(receiving.next()).unwrap().unwrap(), b"ab");
    let error = ready(receiving.next()).unwrap_err();
    assert!(matches!(&error, BlockError::Io(e) if e.kind() == io::ErrorKind::ConnectionReset));
    assert_eq!(receiving.stats().blocks, 1);
}

#[test]
fn new_receiver_gives_no_false_end_after_an_io_error() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[5, 7]));
    for cut in 1..9 {
        let io = Scripted::default()
            .send(&bytes[..cut])
            .fail(io::ErrorKind::ConnectionReset)
            .send(&bytes[cut..]);
        let mut framed = prefixed(io);
        ready(recv_blocks(&mut framed).next()).unwrap_err();
        let mut receiving = recv_blocks(&mut framed);
        let next = ready(receiving.next());
        // The block, or the error again. An end would be wrong, because the stream has not ended.
        assert!(!matches!(next, Ok(None)), "cut at {cut}");
    }
}

#[test]
fn receiver_gives_no_false_end_after_an_error_of_the_stream() {
    let blocks = numbered(&[5, 7]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for cut in 0..bytes.len() {
        let mut io = Scripted::default();
        if cut > 0 {
            io = io.send(&bytes[..cut]);
        }
        let io = io.fail(io::ErrorKind::ConnectionReset).send(&bytes[cut..]);
        let mut framed = prefixed(io);
        let mut out = vec![];
        while let Ok(block) = ready(framed.next()).expect("an error first") {
            out.push(block.freeze());
        }
        let mut receiving = recv_blocks(&mut framed);
        while let Some(block) = ready(receiving.next()).unwrap() {
            out.push(Bytes::copy_from_slice(block));
        }
        drop(receiving);
        assert_eq!(out, blocks, "cut at {cut}");
        assert!(ready(recv_blocks(&mut framed).next()).unwrap().is_none());
    }
}

async fn silent_peer_is_a_stall_and_the_next_call_waits_again() {
    let (near, far) = tokio::io::duplex(64);
    let mut framed = FramedRead::new(far, BlockCodec::length_prefixed());
    let mut near = near;
    tokio::io::AsyncWriteExt::write_all(&mut near, b"\0\0\0\x01a\0\0\0\x05he")
        .await
        .unwrap();
    let limit = Duration::from_secs(30);
    let mut receiving = recv_blocks(&mut framed).stall_timeout(limit);
    assert_eq!(receiving.next().await.unwrap().unwrap(), b"a");
    let begun = tokio::time::Instant::now();
    let error = receiving.next().await.unwrap_err();
    assert_eq!(begun.elapsed(), limit);
    let expected = "nothing arrived for 30s at block 1, which begins at byte 5";
    assert_eq!(error.to_string(), expected);

    assert!(receiving.next().await.is_err(), "a second wait");
    tokio::io::AsyncWriteExt::write_all(&mut near, b"llo")
        .await
        .unwrap();
    assert_eq!(receiving.next().await.unwrap().unwrap(), b"hello");
}

async fn a_slow_peer_is_not_a_stall_as_long_as_bytes_trickle_in() {
    let (mut near, far) = tokio::io::duplex(64);
    let slow = tokio::spawn(async move {
        for byte in *b"\0\0\0\x05hello" {
            tokio::time::sleep(Duration::from_secs(29)).await;
            tokio::io::AsyncWriteExt::write_all(&mut near, &[byte])
                .await
                .unwrap();
        }
        near
    });
    let mut framed = Framed::new(far, BlockCodec::length_prefixed());
    let mut receiving = recv_blocks(&mut framed).stall_timeout(Duration::from_secs(30));
    assert_eq!(receiving.next().await.unwrap().unwrap(), b"hello");
    let _open = slow.await.unwrap();
    assert!(
        receiving.next().await.is_err(),
        "and now the silence is a stall"
    );
}

async fn the_time_between_two_waits_does_not_count_as_a_stall() {
    let (mut near, far) = tokio::io::duplex(64);
    let mut framed = Framed::new(far, BlockCodec::length_prefixed());
    let mut receiving = recv_blocks(&mut framed).stall_timeout(Duration::from_secs(30));
    for _ in 0..3 {
        assert!(receiving.next().now_or_never().is_none());
        tokio::io::AsyncWriteExt::write_all(&mut near, b"\0\0\0\x01x")
            .await
            .unwrap();
        assert_eq!(receiving.next().await.unwrap().unwrap(), b"x");
        // The user takes a minute over the block; the peer is not to blame.
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

async fn dropped_waits_add_up_with_at_most_a_second_of_each_gap() {
    let second = Duration::from_secs(1);
    let (_near, far) = tokio::io::duplex(64);
    let mut framed = Framed::new(far, BlockCodec::length_prefixed());
    let mut receiving = recv_blocks(&mut framed).stall_timeout(30 * second);
    for _ in 0..3 {
        assert!(timeout(second, receiving.next()).await.is_err());
        tokio::time::sleep(60 * second).await;
    }
    let begun = Instant::now();
    let error = receiving.next().await.unwrap_err();
    assert!(matches!(error, BlockError::Stalled { waited, .. } if waited == 30 * second));
    assert_eq!(begun.elapsed(), 24 * second);
    // A new wait begins, whatever time has passed since.
    tokio::time::sleep(60 * second).await;
    let begun = Instant::now();
    receiving.next().await.unwrap_err();
    assert_eq!(begun.elapsed(), 30 * second);
}

async fn bytes_that_arrive_end_the_cancelled_waits_before_them() {
    let second = Duration::from_secs(1);
    let (mut near, far) = tokio::io::duplex(64);
    let mut framed = Framed::new(far, BlockCodec::length_prefixed());
    let mut receiving = recv_blocks(&mut framed).stall_timeout(30 * second);
    for _ in 0..3 {
        assert!(timeout(20 * second, receiving.next()).await.is_err());
        near.write_all(b"\0").await.unwrap();
    }
    let begun = Instant::now();
    receiving.next().await.unwrap_err();
    assert_eq!(begun.elapsed(), 30 * second);
}

async fn kept_future_waits_whether_or_not_it_is_polled() {
    let second = Duration::from_secs(1);
    let (mut near, far) = tokio::io::duplex(64);
    let mut framed = Framed::new(far, BlockCodec::length_prefixed());
    let mut receiving = recv_blocks(&mut framed).stall_timeout(30 * second);
    for dropped in [true, false] {
        let mut next = Box::pin(receiving.next());
        assert!(next.as_mut().now_or_never().is_none());
        tokio::time::sleep(100 * second).await;
        let begun = Instant::now();
        if dropped {
            drop(next);
            receiving.next().await.unwrap_err();
        } else {
            next.await.unwrap_err();
        }
        assert_eq!(begun.elapsed(), Duration::ZERO, "the timeout was over");

        // What has arrived is read first.
        let mut next = Box::pin(receiving.next());
        assert!(next.as_mut().now_or_never().is_none());
        tokio::time::sleep(100 * second).await;
        near.write_all(b"\0\0\0\x01a").await.unwrap();
        assert_eq!(next.await.unwrap().unwrap(), b"a");
    }
}

async fn gap_counts_at_most_half_the_timeout() {
    let millisecond = Duration::from_millis(1);
    let (_near, far) = tokio::io::duplex(64);
    let mut framed = Framed::new(far, BlockCodec::length_prefixed());
    let mut receiving = recv_blocks(&mut framed).stall_timeout(100 * millisecond);
    assert!(timeout(10 * millisecond, receiving.next()).await.is_err());
    tokio::time::sleep(300 * millisecond).await;
    drop(receiving.next()); // never polled
    tokio::time::sleep(300 * millisecond).await;
    let begun = Instant::now();
    receiving.next().await.unwrap_err();
    assert_eq!(begun.elapsed(), 40 * millisecond);
}

async fn select_loop_with_a_new_wait_each_turn_still_stalls() {
    let (_near, far) = tokio::io::duplex(64);
    let mut framed = Framed::new(far, BlockCodec::length_prefixed());
    let mut receiving = recv_blocks(&mut framed).stall_timeout(Duration::from_secs(30));
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(7));
    let error = loop {
        tokio::select! {
            next = receiving.next() => break next.map(drop).unwrap_err(),
            _ = ticks.tick() => {}
        }
    };
    assert!(matches!(error, BlockError::Stalled { .. }));
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
}

async fn lower_timeout_holds_for_a_wait_that_has_begun() {
    let second = Duration::from_secs(1);
    let (_near, far) = tokio::io::duplex(64);
    let mut framed = Framed::new(far, BlockCodec::length_prefixed());
    let mut receiving = recv_blocks(&mut framed).stall_timeout(300 * second);
    let begun = Instant::now();
    assert!(timeout(second, receiving.next()).await.is_err());
    let mut receiving = receiving.stall_timeout(5 * second);
    let error = receiving.next().await.unwrap_err();
    assert!(matches!(error, BlockError::Stalled { waited, .. } if waited == 5 * second));
    assert_eq!(begun.elapsed(), 5 * second);
}

async fn first_read_of_a_framed_made_of_parts_ends_the_silence() {
    let second = Duration::from_secs(1);
    let (mut near, far) = tokio::io::duplex(64);
    let mut framed = Framed::new(far, BlockCodec::length_prefixed());
    near.write_all(b"\0\0\0\x01a").await.unwrap();
    assert_eq!(framed.next().await.unwrap().unwrap(), &b"a"[..]);
    let mut framed = Framed::from_parts(framed.into_parts());
    let mut receiving = recv_blocks(&mut framed).stall_timeout(30 * second);
    assert!(timeout(29 * second, receiving.next()).await.is_err());
    near.write_all(b"\0").await.unwrap();
    let begun = Instant::now();
    receiving.next().await.unwrap_err();
    assert_eq!(begun.elapsed(), 30 * second, "since the byte arrived");
}

#[tokio::test]
async fn refusal_is_returned_again_while_the_peer_is_silent() {
    let (mut peer, far) = tokio::io::duplex(64);
    let codec = BlockCodec::new(LengthPrefix::u8().max_block_len(4).unwrap());
    let mut framed = Framed::new(far, codec);
    peer.write_all(b"\x05").await.unwrap();
    let mut blocks = recv_blocks(&mut framed);
    let refused = blocks.next().await.unwrap_err().to_string();
    for _ in 0..3 {
        let again = blocks.next().now_or_never().expect("it hangs");
        assert_eq!(again.unwrap_err().to_string(), refused);
    }
    drop(blocks);
    let mut blocks = recv_blocks(&mut framed);
    let again = blocks.next().now_or_never();
    assert_eq!(
        again
            .expect("it hangs")
            .map(|_| ())
            .unwrap_err()
            .to_string(),
        refused
    );
}

twice! {
    paused {
        silent_peer_is_a_stall_and_the_next_call_waits_again,
        a_slow_peer_is_not_a_stall_as_long_as_bytes_trickle_in,
        the_time_between_two_waits_does_not_count_as_a_stall,
        dropped_waits_add_up_with_at_most_a_second_of_each_gap,
        bytes_that_arrive_end_the_cancelled_waits_before_them,
        kept_future_waits_whether_or_not_it_is_polled,
        gap_counts_at_most_half_the_timeout,
        select_loop_with_a_new_wait_each_turn_still_stalls,
        lower_timeout_holds_for_a_wait_that_has_begun,
        first_read_of_a_framed_made_of_parts_ends_the_silence,
    }
}
