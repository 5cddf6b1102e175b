//! `recv_reader`: a block that is received part by part.

use std::time::Duration;

use futures::StreamExt;
use testing::{KIB, MIB, Scripted, numbered, ready, transport, wire};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, copy_buf, duplex},
    time::{Instant, sleep},
};
use wholeblock::{BlockCodec, BlockError, BlockReader, BlockTransport, LengthPrefix};

use crate::timeouts::assert_late;

const SECOND: Duration = Duration::from_secs(1);

/// A peer that sends `first`, and then a block of `len` bytes, all of them [`FILL`], a multiple of
/// 64 KiB.
fn long(first: &[u8], len: usize) -> Scripted {
    let header = (len as u32).to_be_bytes();
    let batch = [FILL; 64 * KIB];
    assert_eq!(len % batch.len(), 0);
    let io = Scripted::sending(&[first, &header].concat(), []);
    io.then_repeating(&batch, (len / batch.len()) as u64)
}

const FILL: u8 = 7;

/// Asserts that `part` is of a block of [`FILL`].
#[track_caller]
fn assert_filled(part: &[u8]) {
    static BATCH: [u8; 64 * KIB] = [FILL; 64 * KIB];
    for piece in part.chunks(BATCH.len()) {
        assert!(*piece == BATCH[..piece.len()]);
    }
}

/// How a long block is read part by part.
#[derive(Clone, Copy, Debug)]
enum Reading {
    /// By `copy_buf`.
    Copied,
    /// As parts that are lent, of which so many bytes are consumed at most.
    Lent(usize),
    /// Into memory of so many bytes.
    Into(usize),
}

/// Reads `bytes` bytes of a block of [`FILL`].
fn read_filled(reader: &mut Reader<'_>, bytes: usize, reading: Reading) {
    let end = reader.remaining() - bytes as u64;
    if let Reading::Copied = reading {
        let mut copy = vec![];
        let copied = ready(copy_buf(&mut reader.take(bytes as u64), &mut copy)).unwrap();
        assert_eq!(copied, bytes as u64);
        return assert_filled(&copy);
    }
    let mut memory = vec![0; MIB];
    while reader.remaining() > end {
        let left = (reader.remaining() - end) as usize;
        match reading {
            Reading::Lent(most) => {
                let lent = ready(reader.fill_buf()).unwrap();
                let bytes = lent.len().min(most).min(left);
                assert!(bytes > 0);
                assert_filled(&lent[..bytes]);
                reader.consume(bytes);
            }
            Reading::Into(most) => {
                let memory = &mut memory[..most.min(left)];
                let bytes = ready(reader.read(memory)).unwrap();
                assert!(bytes > 0);
                assert_filled(&memory[..bytes]);
            }
            Reading::Copied => unreachable!(),
        }
    }
}

type Reader<'a> = BlockReader<'a, Scripted, LengthPrefix>;

// Memory.

#[test]
fn long_block_is_read_in_batches_whatever_came_before() {
    const LONG: usize = 16 * MIB;
    for before in [vec![], vec![MIB; 2], vec![8 * MIB]] {
        let first = wire(LengthPrefix::u32(), &numbered(&before));
        for reading in [
            Reading::Copied,
            Reading::Lent(usize::MAX),
            Reading::Lent(40 * KIB),
            Reading::Lent(1_000),
            Reading::Into(8 * KIB),
            Reading::Into(16 * KIB - 1),
        ] {
            let mut transport = transport(long(&first, LONG));
            for _ in &before {
                ready(transport.recv()).unwrap().unwrap();
            }
            let reads_before = transport.get_ref().rooms.len();
            let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
            read_filled(&mut reader, LONG, reading);
            drop(reader);
            assert!(
                transport.read_capacity() <= 64 * KIB,
                "{before:?}, {reading:?}"
            );
            let rooms = &transport.get_ref().rooms[reads_before..];
            assert!(rooms.iter().all(|&(room, _)| room <= 64 * KIB));
            // Some fill the first buffers of a connection.
            let most = LONG / (64 * KIB) + 5;
            assert!(
                rooms.len() <= most,
                "{before:?}, {reading:?}: {}",
                rooms.len()
            );
        }
    }
}

#[test]
fn error_about_the_block_comes_again_from_its_reader() {
    let truncated = "stream ended inside block 0, which begins at byte 0: \
                     5 of 65536 payload bytes arrived";
    // Read by way of the buffer, and straight.
    for mut memory in [vec![0; 10], vec![0; 20_000]] {
        let mut transport = transport(Scripted::default().send(b"\0\x01\0\0hello"));
        let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
        ready(reader.read_exact(&mut memory[..5])).unwrap();
        for _ in 0..3 {
            let error = ready(reader.read(&mut memory)).unwrap_err();
            assert_eq!(error.to_string(), truncated);
            let error = ready(reader.fill_buf()).unwrap_err();
            assert_eq!(error.to_string(), truncated);
            assert_eq!(reader.remaining(), 65_531);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reader_at_the_end_of_its_block_is_never_late() {
    let (mut near, far) = duplex(64);
    let mut transport = transport(far).block_deadline(10 * SECOND);
    // The next block is unfinished.
    near.write_all(b"\0\0\0\x05hello\0\0\0\x05ag")
        .await
        .unwrap();
    let mut reader = transport.recv_reader().await.unwrap().unwrap();
    reader.read_exact(&mut [0; 5]).await.unwrap();
    for _ in 0..3 {
        assert!(reader.fill_buf().await.unwrap().is_empty());
        assert_eq!(reader.read(&mut [0; 20_000]).await.unwrap(), 0);
        sleep(20 * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_arrived_of_a_block_is_read_however_late_if_it_is_all() {
    let (mut near, far) = duplex(64);
    let mut transport = transport(far).block_deadline(10 * SECOND);
    near.write_all(b"\0\0\0\x05hel").await.unwrap();
    let mut reader = transport.recv_reader().await.unwrap().unwrap();
    assert_eq!(reader.fill_buf().await.unwrap(), b"hel");
    reader.consume(2);
    near.write_all(b"lo\0\0\0").await.unwrap();
    sleep(9 * SECOND).await;
    reader.consume(1);
    assert_eq!(reader.fill_buf().await.unwrap(), b"lo");
    sleep(20 * SECOND).await;
    assert_eq!(reader.fill_buf().await.unwrap(), b"lo");
    let mut rest = [0; 2];
    reader.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"lo");
}

#[tokio::test(start_paused = true)]
async fn deadline_of_a_block_begins_when_its_reader_is_made() {
    let (mut near, far) = duplex(64);
    let mut transport = transport(far).block_deadline(10 * SECOND);
    near.write_all(b"\0\0\0\x05hell").await.unwrap();
    let mut reader = transport.recv_reader().await.unwrap().unwrap();
    let begun = Instant::now();
    sleep(4 * SECOND).await;
    let mut block = [0; 5];
    let error = reader.read_exact(&mut block).await.unwrap_err();
    assert_late(&error.into(), 10 * SECOND, 0, 0);
    assert_eq!(begun.elapsed(), 10 * SECOND);
}

#[test]
fn longest_block_there_is_has_its_whole_length_remaining() {
    let io = Scripted::default().send(&[0xff; 8]).send(&[7; 5]);
    let codec = BlockCodec::new(LengthPrefix::u64());
    let mut transport = BlockTransport::new(io.then_silent(), codec);
    let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
    assert_eq!((reader.len(), reader.remaining()), (u64::MAX, u64::MAX));
    ready(reader.read_exact(&mut [0; 5])).unwrap();
    assert_eq!((reader.len(), reader.remaining()), (u64::MAX, u64::MAX - 5));
}

#[test]
fn block_that_came_in_one_read_after_a_skipped_one_is_not_fragmented() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[30, 5]));
    let io = || {
        let io = Scripted::default().send(&bytes[..2]);
        io.pause().send(&bytes[2..])
    };
    let mut codec = BlockCodec::length_prefixed().skip_too_large(true);
    codec.set_max_block_len(20).unwrap();
    codec.set_max_reader_len(20);
    let mut whole = BlockTransport::new(io(), codec.clone());
    ready(whole.next()).unwrap().unwrap();
    assert_eq!(whole.stats().fragmented_blocks, 0);
    let mut in_parts = BlockTransport::new(io(), codec);
    let mut reader = ready(in_parts.recv_reader()).unwrap().unwrap();
    ready(reader.read_exact(&mut [0; 5])).unwrap();
    drop(reader);
    assert_eq!(in_parts.stats(), whole.stats());
}

#[test]
fn buffer_that_somebody_has_emptied_of_a_block_that_was_left_does_no_harm() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[30, 5]));
    for kept in [0, 1] {
        let io = Scripted::default().send(&bytes[..20]).send(&bytes[20..]);
        let mut transport = transport(io);
        drop(ready(transport.recv_reader()).unwrap().unwrap());
        let mut framed = transport.into_framed();
        framed.read_buffer_mut().truncate(kept);
        // As much is waited for as if it had not come.
        let error = ready(framed.next()).unwrap().unwrap_err();
        assert!(matches!(error, BlockError::Truncated { .. }), "{error:?}");
    }
}
