//! `recv_into`: a block that is received into the caller's memory.

use std::{mem, time::Duration};

use futures::FutureExt;
use testing::{KIB, MIB, Scripted, numbered, ready, transport, wire};
use tokio::{
    io::{AsyncWriteExt, duplex},
    time::{Instant, sleep, timeout},
};
use wholeblock::{BlockCodec, BlockTransport, LengthPrefix};

use crate::timeouts::assert_late;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn block_that_is_whole_is_received_however_late() {
    let (mut near, far) = duplex(64 * KIB);
    let mut transport = transport(far).block_deadline(10 * SECOND);
    let blocks = numbered(&[30_000]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    near.write_all(&bytes[..10]).await.unwrap();
    let mut memory = vec![0; 30_000];
    assert!(transport.recv_into(&mut memory).now_or_never().is_none());
    sleep(60 * SECOND).await;
    near.write_all(&bytes[10..]).await.unwrap();
    let received = transport.recv_into(&mut memory).now_or_never();
    assert_eq!(received.expect("at once").unwrap(), Some(30_000));
    assert_eq!(memory, blocks[0]);
}

#[tokio::test(start_paused = true)]
async fn deadline_of_a_block_without_a_header_begins_with_its_first_byte() {
    let (mut near, far) = duplex(64 * KIB);
    let codec = BlockCodec::exact(30_000).unwrap();
    let mut transport = BlockTransport::new(far, codec).block_deadline(10 * SECOND);
    let mut memory = vec![0; 30_000];
    let waiting = timeout(60 * SECOND, transport.recv_into(&mut memory));
    assert!(waiting.await.is_err(), "nothing has begun");
    near.write_all(&[7; 3]).await.unwrap();
    let begun = Instant::now();
    let error = transport.recv_into(&mut memory).await.unwrap_err();
    assert_late(&error, 10 * SECOND, 0, 0);
    assert_eq!(begun.elapsed(), 10 * SECOND);
}

#[test]
fn end_of_the_stream_after_a_leaked_future_that_had_received_nothing_is_clean() {
    let io = Scripted::default().pause();
    let mut transport = BlockTransport::new(io, BlockCodec::exact(30_000).unwrap());
    let mut memory = vec![0; 30_000];
    let mut waiting = Box::pin(transport.recv_into(&mut memory));
    assert!(waiting.as_mut().now_or_never().is_none());
    mem::forget(waiting);
    for _ in 0..2 {
        assert!(ready(transport.next()).is_none());
        assert!(ready(transport.recv_reader()).unwrap().is_none());
    }
}

#[test]
fn rest_of_a_block_that_was_given_up_is_read_up_to_its_end_and_no_further() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[3 * MIB, 3 * MIB]));
    let (first, rest) = bytes.split_at(2 * MIB);
    let io = Scripted::default().send(first).pause().send(rest);
    let mut transport = transport(io);
    let mut memory = vec![0; 3 * MIB];
    assert!(transport.recv_into(&mut memory).now_or_never().is_none());
    ready(transport.recv()).unwrap().unwrap();
    assert_eq!(transport.read_capacity(), 3 * MIB + 4);
    let left = MIB + 4;
    assert_eq!(transport.get_ref().rooms.last(), Some(&(left, left)));
}
