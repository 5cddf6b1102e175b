//! `recv_reader`: receives a block part by part.
//!
//! `exhaustive.rs` and others check that it gives whole blocks, or says where they are cut.
//! `allocations.rs` checks what it allocates, and `reader_timeouts.rs` its timeouts.

use std::{io, mem, sync::atomic::Ordering::Relaxed};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use testing::{
    Case, FORMS, Form, KIB, MIB, Scripted, blocks_for, numbered, ready, transport, wire,
    with_each_framing,
};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, copy, copy_buf};
use wholeblock::{
    AnyFraming, BlockCodec, BlockError, BlockReader, BlockTransport, Framing, LengthPrefix, Varint,
};

/// A peer that sends `first` and then a block of `len` bytes, a multiple of 64 KiB, all of them [`FILL`].
fn long(first: &[u8], len: usize) -> Scripted {
    let header = (len as u32).to_be_bytes();
    let batch = [FILL; 64 * KIB];
    assert_eq!(len % batch.len(), 0);
    let io = Scripted::sending(&[first, &header].concat(), []);
    io.then_repeating(&batch, (len / batch.len()) as u64)
}

const FILL: u8 = 7;

/// Asserts that every byte of `part` is [`FILL`].
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
    /// In lent parts, consuming at most so many bytes of each.
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

// The length.

#[test]
fn reader_knows_the_length_before_any_payload_arrives() {
    fn check<F: Framing + Copy>(Case { name, framing, .. }: Case<F>) {
        let (least, most) = framing.block_lens().into_inner();
        for len in [0, 5 << 30, u64::MAX] {
            let len = len.clamp(least, most);
            let mut header = vec![];
            framing.encode_header(len, &mut header);
            if header.is_empty() {
                header.push(FILL); // without a header, a block begins with its first byte
            }
            let io = Scripted::chunked(&header, 1, true).then_silent();
            let arrived = io.arrived.clone();
            let mut transport = BlockTransport::new(io, BlockCodec::new(framing));
            // A new future for each wait: a dropped one loses nothing.
            for bytes in 0..header.len() {
                assert!(transport.recv_reader().now_or_never().is_none(), "{name}");
                assert_eq!(arrived.load(Relaxed), bytes, "{name}");
            }
            let reader = transport.recv_reader().now_or_never();
            let mut reader = reader
                .expect("all of its header has come")
                .unwrap()
                .unwrap();
            assert_eq!(reader.len(), len, "{name}");
            assert_eq!(reader.remaining(), len, "{name}");
            assert_eq!(reader.is_empty(), len == 0, "{name}");
            let lent = reader.fill_buf().now_or_never();
            let is_first_byte = lent.is_some_and(|lent| lent.unwrap() == [FILL]);
            assert_eq!(is_first_byte, name == "exact");
        }
    }
    with_each_framing!(|case| check(case));
}

#[test]
fn reader_counts_the_remaining_bytes_of_a_block_of_u64_max() {
    let io = Scripted::default().send(&[0xff; 8]).send(&[7; 5]);
    let codec = BlockCodec::new(LengthPrefix::u64());
    let mut transport = BlockTransport::new(io.then_silent(), codec);
    let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
    assert_eq!((reader.len(), reader.remaining()), (u64::MAX, u64::MAX));
    ready(reader.read_exact(&mut [0; 5])).unwrap();
    assert_eq!((reader.len(), reader.remaining()), (u64::MAX, u64::MAX - 5));
}

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
            // A few more reads fill the first buffers of a connection.
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
fn read_into_large_memory_bypasses_the_buffer() {
    const LONG: usize = 16 * MIB;
    for before in [vec![], vec![MIB; 2], vec![8 * MIB]] {
        let first = wire(LengthPrefix::u32(), &numbered(&before));
        let mut transport = transport(long(&first, LONG));
        for _ in &before {
            ready(transport.recv()).unwrap().unwrap();
        }
        let reads_before = transport.get_ref().rooms.len();
        let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
        read_filled(&mut reader, LONG, Reading::Into(MIB));
        drop(reader);
        assert!(transport.read_capacity() <= 64 * KIB, "{before:?}");
        // The first read brings the header and whatever comes with it.
        let mut rooms = transport.get_ref().rooms[reads_before..].iter();
        let (_, brought) = *rooms.next().unwrap();
        let mut left = LONG + 4 - brought;
        for &(room, brought) in rooms {
            assert_eq!(room, left.min(MIB), "{before:?}");
            left -= brought;
        }
        assert_eq!(left, 0);
        let stats = transport.stats();
        assert_eq!(stats.reads, transport.get_ref().brought(), "{before:?}");
        assert_eq!(stats.received_blocks, 1 + before.len() as u64);
        assert_eq!(stats.fragmented_blocks, stats.received_blocks);
    }
}

#[test]
fn read_is_straight_if_nothing_is_buffered_and_16_kib_are_wanted() {
    const LEAST: usize = 16 * KIB;
    for (len, buffered, memory_len, is_straight) in [
        (MIB, 0, LEAST, true),
        (MIB, 0, MIB, true),
        (MIB, 0, 2 * MIB, true),
        (MIB, 0, LEAST - 1, false),
        (LEAST, 0, MIB, true),
        (LEAST, 0, LEAST, true),
        (LEAST - 1, 0, MIB, false),
        (LEAST - 1, 0, LEAST - 1, false),
        (MIB, 1, MIB, false),
        (MIB, 1, 1, false),
        (LEAST, 1, LEAST, false),
    ] {
        let place = format!("{len}, {buffered}, {memory_len}");
        let blocks = numbered(&[len, 5]);
        let bytes = wire(LengthPrefix::u32(), &blocks);
        let (first, rest) = bytes.split_at(4 + buffered);
        let mut transport = transport(Scripted::default().send(first).send(rest));
        let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
        let mut memory = vec![0; memory_len];
        let read = ready(reader.read(&mut memory)).unwrap();
        assert!(memory[..read] == blocks[0][..read], "{place}");
        drop(reader);
        if buffered > 0 {
            assert_eq!(read, buffered, "{place}");
            assert_eq!(transport.get_ref().rooms.len(), 1, "{place}");
        } else {
            let (rooms, all) = (
                &transport.get_ref().rooms,
                &transport.get_ref().destinations,
            );
            let there = *all.last().unwrap() == memory.as_ptr() as usize;
            assert_eq!(there, is_straight, "{place}");
            let wanted = memory_len.min(len);
            assert_eq!(
                *rooms.last().unwrap() == (wanted, wanted),
                is_straight,
                "{place}"
            );
        }
        assert_eq!(
            ready(transport.next()).unwrap().unwrap(),
            blocks[1],
            "{place}"
        );
    }
}

#[test]
fn straight_read_appends_to_a_vector() {
    let blocks = numbered(&[50_000, 5]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    let io = Scripted::default().send(&bytes[..4]).send(&bytes[4..]);
    let mut transport = transport(io);
    let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
    let mut memory = Vec::with_capacity(60_000);
    memory.extend_from_slice(b"before");
    assert_eq!(ready(reader.read_buf(&mut memory)).unwrap(), 50_000);
    assert_eq!(reader.remaining(), 0);
    drop(reader);
    assert_eq!(&memory[..6], b"before");
    assert!(memory[6..] == blocks[0]);
    let destination = transport.get_ref().destinations[1];
    assert_eq!(destination, memory[6..].as_ptr() as usize);
    assert_eq!(
        transport.stats().fragmented_blocks,
        1,
        "a read for its header"
    );
    assert_eq!(transport.get_ref().rooms[1], (50_000, 50_000));
}

// A reader that is dropped early.

/// A block of `blocks` times 9 bytes that looks like as many blocks.
fn decoy(blocks: usize) -> Bytes {
    let blocks = vec![Bytes::from_static(b"decoy"); blocks];
    wire(LengthPrefix::u32(), &blocks).into()
}

/// Drops or leaks a reader.
fn leave<R>(reader: R, leaked: bool) {
    match leaked {
        true => mem::forget(reader),
        false => drop(reader),
    }
}

#[test]
fn unread_rest_is_discarded_before_the_next_block_and_counts() {
    let texts = ["next", "", "last"].map(|text| Bytes::from_static(text.as_bytes()));
    let blocks = [&[Bytes::from_static(b"first"), decoy(20)], &texts[..]].concat();
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for (chunk, pausing) in [
        (1, false),
        (1, true),
        (7, false),
        (7, true),
        (usize::MAX, false),
    ] {
        let io = || Scripted::chunked(&bytes, chunk, pausing);
        let mut whole = transport(io());
        while ready(whole.recv()).unwrap().is_some() {}
        for (read, leaked, form) in [0, 1, 100, 179, 180]
            .into_iter()
            .flat_map(|read| [(read, false), (read, true)])
            .flat_map(|(read, leaked)| FORMS.map(|form| (read, leaked, form)))
        {
            let place = format!("{chunk}, {pausing}, {read}, {leaked}, {form:?}");
            let mut transport = transport(io());
            ready(transport.next()).unwrap().unwrap();
            let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
            let mut part = vec![0; read];
            ready(reader.read_exact(&mut part)).unwrap();
            assert_eq!(part, blocks[1][..read], "{place}");
            assert_eq!(reader.remaining(), 180 - read as u64, "{place}");
            leave(reader, leaked);
            let is_whole = read == 180;
            let stats = transport.stats();
            assert_eq!(stats.received_blocks, 1 + u64::from(is_whole), "{place}");
            assert_eq!(
                stats.received_bytes,
                if is_whole { 193 } else { 9 },
                "{place}"
            );
            for expected in &texts {
                let received;
                (received, transport) = form.receive(transport);
                assert_eq!(received.unwrap().as_ref(), Some(expected), "{place}");
            }
            let (end, transport) = form.receive(transport);
            assert!(end.unwrap().is_none(), "{place}");
            let mut stats = transport.stats();
            if form == Form::Framed {
                // A `Framed` begins with a read that is not counted.
                stats.reads = whole.stats().reads;
            }
            assert_eq!(stats, whole.stats(), "{place}");
        }
    }
}

#[test]
fn unread_rest_of_a_long_block_is_discarded_in_batches() {
    let blocks = [decoy(30_000), Bytes::from_static(b"next"), decoy(2)];
    let len = blocks[0].len();
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for (chunk, pausing) in [(10_000, true), (100_000, false), (usize::MAX, false)] {
        for read in [0, 1, 10_000, len / 2, len - 1, len] {
            for (leaked, form) in FORMS
                .into_iter()
                .flat_map(|form| [(false, form), (true, form)])
            {
                let place = format!("{chunk}, {read}, {leaked}, {form:?}");
                let mut transport = transport(Scripted::chunked(&bytes, chunk, pausing));
                let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
                ready(reader.read_exact(&mut vec![0; read])).unwrap();
                leave(reader, leaked);
                let reads_before = transport.get_ref().rooms.len();
                for expected in &blocks[1..] {
                    let received;
                    (received, transport) = form.receive(transport);
                    assert_eq!(received.unwrap().as_ref(), Some(expected), "{place}");
                }
                let stats = transport.stats();
                assert_eq!(stats.received_blocks, 3, "{place}");
                assert_eq!(stats.received_bytes, bytes.len() as u64, "{place}");
                assert!(stats.fragmented_blocks > 0, "{place}");
                assert_eq!(stats.skipped_blocks, 0, "{place}");
                let rooms = &transport.get_ref().rooms[reads_before..];
                assert!(rooms.iter().all(|&(room, _)| room <= 64 * KIB), "{place}");
            }
        }
    }
}

#[test]
fn unread_rest_is_discarded_with_each_framing() {
    fn check<F: Framing + Copy>(case: Case<F>) {
        let blocks = blocks_for(&case.framing);
        let bytes = case.wire(&blocks);
        for (chunk, form) in FORMS
            .into_iter()
            .flat_map(|f| [(1, f), (9, f), (usize::MAX, f)])
        {
            let place = format!("{}, {chunk}, {form:?}", case.name);
            let io = Scripted::chunked(&bytes, chunk, true);
            let mut transport = BlockTransport::new(io, BlockCodec::new(case.framing));
            for (index, expected) in blocks.iter().enumerate() {
                if index % 2 == 0 {
                    let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
                    assert_eq!(reader.len(), expected.len() as u64, "{place}");
                    let mut part = vec![0; expected.len() * index / 8];
                    ready(reader.read_exact(&mut part)).unwrap();
                    assert_eq!(part, expected[..part.len()], "{place}");
                } else {
                    let received;
                    (received, transport) = form.receive(transport);
                    assert_eq!(received.unwrap().as_ref(), Some(expected), "{place}");
                }
            }
            let (end, transport) = form.receive(transport);
            assert!(end.unwrap().is_none(), "{place}");
            let stats = transport.stats();
            assert_eq!(stats.received_blocks, blocks.len() as u64, "{place}");
            assert_eq!(stats.received_bytes, bytes.len() as u64, "{place}");
            if form != Form::Framed {
                assert_eq!(stats.reads, transport.get_ref().brought(), "{place}");
            }
        }
    }
    with_each_framing!(|case| check(case));
}

#[test]
fn unread_rest_is_discarded_even_if_the_framing_changes() {
    let first = [&wire(LengthPrefix::u32(), &[decoy(20)])[..], b"\x04next"].concat();
    for chunk in [1, 50, usize::MAX] {
        let io = || Scripted::chunked(&first, chunk, true);
        let mut transport = transport(io());
        drop(ready(transport.recv_reader()).unwrap().unwrap());
        let mut transport = transport.map_codec(|codec| codec.with_framing(Varint::new()));
        assert_eq!(ready(transport.next()).unwrap().unwrap(), "next");

        let codec = BlockCodec::new(AnyFraming::from(LengthPrefix::u32()));
        let mut transport = BlockTransport::new(io(), codec);
        drop(ready(transport.recv_reader()).unwrap().unwrap());
        transport.set_framing(Varint::new().into());
        assert_eq!(ready(transport.recv()).unwrap(), Some(&b"next"[..]));
        assert_eq!(transport.stats().received_blocks, 2);
    }
}

#[test]
fn recv_reader_that_is_dropped_or_leaked_loses_nothing() {
    let blocks = numbered(&[7, 3]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for polls in 0..=4 {
        for (leaked, form) in FORMS
            .into_iter()
            .flat_map(|form| [(false, form), (true, form)])
        {
            let mut transport = transport(Scripted::chunked(&bytes, 1, true));
            for _ in 0..polls {
                let mut making = Box::pin(transport.recv_reader());
                assert!(making.as_mut().now_or_never().is_none(), "{polls}");
                leave(making, leaked);
            }
            for expected in &blocks {
                let received;
                (received, transport) = form.receive(transport);
                assert_eq!(
                    received.unwrap().as_ref(),
                    Some(expected),
                    "{polls}, {form:?}"
                );
            }
        }
    }
}

#[test]
fn unread_rest_is_truncated_if_the_buffer_was_emptied() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[30, 5]));
    for kept in [0, 1] {
        let io = Scripted::default().send(&bytes[..20]).send(&bytes[20..]);
        let mut transport = transport(io);
        drop(ready(transport.recv_reader()).unwrap().unwrap());
        let mut framed = transport.into_framed();
        framed.read_buffer_mut().truncate(kept);
        // The codec waits for the removed bytes as if they had not arrived.
        let error = ready(framed.next()).unwrap().unwrap_err();
        assert!(matches!(error, BlockError::Truncated { .. }), "{error:?}");
    }
}

#[test]
fn framed_counts_the_read_that_completes_a_partly_read_block() {
    let mut transport = transport(Scripted::chunked(b"\0\0\0\x03abc", 5, false));
    let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
    ready(reader.read_exact(&mut [0])).unwrap();
    drop(reader);
    let mut framed = transport.into_framed();
    assert!(ready(framed.next()).is_none());
    let stats = BlockTransport::from(framed).stats();
    assert_eq!(
        (stats.received_blocks, stats.reads, stats.fragmented_blocks),
        (1, 2, 1)
    );
}

#[test]
fn block_in_one_read_after_a_skipped_block_is_not_fragmented() {
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

// Errors.

/// Returns the `BlockError` inside `error`, and asserts its kind.
#[track_caller]
fn inner(error: &io::Error) -> String {
    let inner = error.get_ref().expect("something inside");
    let inner: &BlockError = inner.downcast_ref().expect("a BlockError inside");
    assert_eq!(error.kind(), inner.kind());
    format!("{inner:?}")
}

#[test]
fn end_inside_a_block_is_the_same_error_as_for_next() {
    const LEN: usize = 40_000;
    let bytes = wire(LengthPrefix::u32(), &numbered(&[3, LEN]));
    for (cut, chunk) in [9, 11, 12, 11 + 16 * KIB, bytes.len() - 1]
        .into_iter()
        .flat_map(|cut| [(cut, 10_000), (cut, usize::MAX)])
    {
        let cut_short = || {
            let mut transport = transport(Scripted::chunked(&bytes[..cut], chunk, false));
            ready(transport.next()).unwrap().unwrap();
            transport
        };
        let expected = format!("{:?}", ready(cut_short().next()).unwrap().unwrap_err());
        for (memory_len, form) in FORMS
            .into_iter()
            .flat_map(|f| [(0, f), (1_000, f), (20_000, f)])
        {
            let place = format!("{cut}, {chunk}, {memory_len}, {form:?}");
            let mut transport = cut_short();
            match ready(transport.recv_reader()) {
                Ok(reader) => {
                    let mut reader = reader.unwrap();
                    let (error, read) = read_to_error(&mut reader, memory_len);
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{place}");
                    assert_eq!(inner(&error), expected, "{place}");
                    assert_eq!(read, cut - 11, "{place}");
                }
                Err(error) => {
                    assert_eq!(format!("{error:?}"), expected, "{place}");
                    assert!(cut < 11, "{place}");
                }
            }
            for _ in 0..2 {
                let error = ready(transport.recv_reader()).unwrap_err();
                assert_eq!(format!("{error:?}"), expected, "{place}");
            }
            let (error, _) = form.receive(transport);
            assert_eq!(format!("{:?}", error.unwrap_err()), expected, "{place}");
        }
    }
}

/// Reads until an error, into `memory_len` bytes of memory, or in lent parts if that is 0. Returns the
/// error and the number of bytes before it.
fn read_to_error(reader: &mut Reader<'_>, memory_len: usize) -> (io::Error, usize) {
    let mut memory = vec![0; memory_len];
    let mut all = 0;
    loop {
        let read = match memory_len {
            0 => ready(reader.fill_buf()).map(<[u8]>::len),
            _ => ready(reader.read(&mut memory)),
        };
        match read {
            Ok(0) => panic!("a false end"),
            Ok(bytes) => all += bytes,
            Err(error) => return (error, all),
        }
        if memory_len == 0 {
            let lent = read.unwrap();
            reader.consume(lent);
        }
    }
}

#[test]
fn end_inside_an_unread_rest_is_the_same_error_as_for_next() {
    const LEN: usize = 40_000;
    let bytes = wire(LengthPrefix::u32(), &numbered(&[3, LEN]));
    for cut in [11, 12, 11 + 16 * KIB, bytes.len() - 1] {
        let cut_short = || {
            let mut transport = transport(Scripted::chunked(&bytes[..cut], 10_000, true));
            ready(transport.next()).unwrap().unwrap();
            transport
        };
        let expected = format!("{:?}", ready(cut_short().next()).unwrap().unwrap_err());
        for read in [0, 1, 9_999, 20_000, cut - 11] {
            if read > cut - 11 {
                continue;
            }
            for (leaked, form) in FORMS
                .into_iter()
                .flat_map(|form| [(false, form), (true, form)])
            {
                let place = format!("{cut}, {read}, {leaked}, {form:?}");
                let mut transport = cut_short();
                let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
                ready(reader.read_exact(&mut vec![0; read])).unwrap();
                leave(reader, leaked);
                let (error, mut transport) = form.receive(transport);
                assert_eq!(format!("{:?}", error.unwrap_err()), expected, "{place}");
                let again = ready(transport.recv()).unwrap_err();
                assert_eq!(format!("{again:?}"), expected, "{place}");
                let again = ready(transport.recv_reader()).unwrap_err();
                assert_eq!(format!("{again:?}"), expected, "{place}");
                let stats = transport.stats();
                assert_eq!(
                    (stats.received_blocks, stats.received_bytes),
                    (1, 7),
                    "{place}"
                );
            }
        }
    }
}

#[test]
fn no_framing_reads_a_cut_block_after_a_part_was_taken() {
    let mut transport = transport(Scripted::default().send(b"\0\0\0\x09\0\0\0\0"));
    let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
    ready(reader.read_exact(&mut [0; 9])).unwrap_err();
    drop(reader);
    let mut transport = transport.map_codec(|codec| codec.with_framing(LengthPrefix::u8()));
    let error = ready(transport.recv()).unwrap_err();
    assert!(
        matches!(error, BlockError::Truncated { received: 4, .. }),
        "{error:?}"
    );
}

#[test]
fn io_error_is_not_wrapped_and_the_reader_goes_on_after_it() {
    const LEN: usize = 40_000;
    let blocks = numbered(&[LEN, 3]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for (at, memory_len) in [4, 5, 10_000, 30_000, LEN + 3]
        .into_iter()
        .flat_map(|at| [(at, 0), (at, 1_000), (at, MIB)])
    {
        let place = format!("{at}, {memory_len}");
        let io = Scripted::default().send(&bytes[..at]);
        let io = io.fail(io::ErrorKind::ConnectionReset).send(&bytes[at..]);
        let mut transport = transport(io);
        let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
        let (error, read) = read_to_error(&mut reader, memory_len);
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{place}");
        assert!(error.get_ref().is_none(), "not wrapped");
        assert_eq!(read, at - 4, "{place}");
        let mut rest = vec![];
        ready(reader.read_to_end(&mut rest)).unwrap();
        drop(reader);
        assert!(rest == blocks[0][read..], "{place}");
        assert_eq!(
            ready(transport.next()).unwrap().unwrap(),
            blocks[1],
            "{place}"
        );
        assert!(ready(transport.next()).is_none());
    }
}

#[test]
fn io_error_inside_an_unread_rest_is_returned_once() {
    let blocks = [decoy(20), Bytes::from_static(b"next")];
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for (at, form) in FORMS
        .into_iter()
        .flat_map(|form| [(4, form), (100, form), (183, form)])
    {
        let io = Scripted::default().send(&bytes[..at]);
        let io = io.fail(io::ErrorKind::ConnectionReset).send(&bytes[at..]);
        let mut transport = transport(io);
        drop(ready(transport.recv_reader()).unwrap().unwrap());
        let (failed, mut transport) = form.receive(transport);
        let error = failed.unwrap_err();
        assert!(
            matches!(error, BlockError::Io(_)),
            "{at}, {form:?}: {error:?}"
        );
        assert_eq!(
            ready(transport.recv()).unwrap(),
            Some(&b"next"[..]),
            "{at}, {form:?}"
        );
    }
}

#[test]
fn reader_fails_with_the_same_io_error_as_its_transport() {
    let codec = BlockCodec::length_prefixed().err_into::<io::Error>();
    let io = Scripted::default().send(b"\0\0\0\x05he");
    let mut transport = BlockTransport::new(io, codec);
    let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
    let error = ready(reader.read_exact(&mut [0; 5])).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    let truncated = inner(&error);
    drop(reader);
    assert_eq!(
        inner(&ready(transport.recv_reader()).unwrap_err()),
        truncated
    );
}

#[test]
fn reader_returns_a_block_error_again_and_again() {
    let truncated = "stream ended inside block 0, which begins at byte 0: \
                     5 of 65536 payload bytes arrived";
    // Through the buffer, and straight.
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

// The limit.

#[test]
fn reader_limit_is_the_longest_block_of_the_framing_unless_set() {
    fn check<F: Framing + Copy>(Case { name, framing, .. }: Case<F>) {
        let mut codec = BlockCodec::new(framing);
        let most = *framing.block_lens().end();
        assert_eq!(codec.max_reader_len(), most, "{name}");
        codec.set_max_reader_len(7);
        assert_eq!(
            (codec.max_reader_len(), codec.clone().max_reader_len()),
            (7, 7)
        );
        let codec = codec.with_framing(LengthPrefix::u16());
        assert_eq!(codec.max_reader_len(), 65_535, "{name}");
        let mut codec = codec.with_framing(framing);
        codec.set_max_reader_len(7);
        codec.set_framing(framing);
        assert_eq!(codec.max_reader_len(), most, "{name}");
    }
    with_each_framing!(|case| check(case));
}

/// Reads the next block.
fn read_next<F: Framing>(transport: &mut BlockTransport<Scripted, F>) -> Vec<u8> {
    let mut block = vec![];
    let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
    ready(reader.read_to_end(&mut block)).unwrap();
    block
}

#[test]
fn reader_limit_and_whole_block_limit_are_independent() {
    let blocks = numbered(&[20, 20, 20, 21]);
    let bytes = wire(LengthPrefix::u16(), &blocks);
    for chunk in [1, usize::MAX] {
        let io = Scripted::chunked(&bytes, chunk, true);
        let mut transport = BlockTransport::new(io, BlockCodec::new(LengthPrefix::u16()));
        transport.codec_mut().set_max_decode_len(3).unwrap();
        transport.codec_mut().set_max_reader_len(20);
        assert_eq!(read_next(&mut transport), blocks[0]);
        transport.codec_mut().set_max_decode_len(20).unwrap();
        transport.codec_mut().set_max_reader_len(3);
        assert_eq!(ready(transport.next()).unwrap().unwrap(), blocks[1]);
        transport.codec_mut().set_max_reader_len(20);
        assert_eq!(read_next(&mut transport), blocks[2]);
        let error = ready(transport.recv_reader()).unwrap_err();
        let BlockError::TooLarge {
            announced: 21,
            limit: 20,
            header,
            index: 3,
            offset: 66,
        } = error
        else {
            panic!("{chunk}: {error:?}");
        };
        assert_eq!(header.as_bytes(), b"\0\x15", "{chunk}");
    }
}

#[test]
fn reader_and_other_forms_return_the_same_block_error() {
    let bytes = wire(LengthPrefix::u16(), &numbered(&[5, 21]));
    for (first, then) in FORMS
        .into_iter()
        .filter(|form| *form != Form::WithFraming) // it has other limits
        .flat_map(|form| [(form, Form::Reader), (Form::Reader, form)])
    {
        let mut codec = BlockCodec::new(LengthPrefix::u16());
        codec.set_max_decode_len(20).unwrap();
        codec.set_max_reader_len(20);
        let mut transport = BlockTransport::new(Scripted::default().send(&bytes), codec);
        ready(transport.next()).unwrap().unwrap();
        let (error, transport) = first.receive(transport);
        let error = format!("{:?}", error.unwrap_err());
        assert!(
            error.starts_with("TooLarge { announced: 21, limit: 20,"),
            "{error}"
        );
        let (again, transport) = then.receive(transport);
        let again = format!("{:?}", again.unwrap_err());
        assert_eq!(again, error, "{first:?}, {then:?}");
        // The block is still there for another framing.
        let mut transport = transport.map_codec(|codec| codec.with_framing(LengthPrefix::u8()));
        assert_eq!(ready(transport.recv()).unwrap().map(<[u8]>::len), Some(0));
        assert_eq!(ready(transport.recv()).unwrap().map(<[u8]>::len), Some(21));
    }
}

#[test]
fn reader_skips_only_blocks_over_the_reader_limit() {
    let blocks = numbered(&[30, 15, 200, 20, 15, 21, 5]);
    let bytes = wire(LengthPrefix::u16(), &blocks);
    for (chunk, pausing) in [
        (1, true),
        (7, true),
        (7, false),
        (50, true),
        (usize::MAX, false),
    ] {
        let mut codec = BlockCodec::new(LengthPrefix::u16()).skip_too_large(true);
        codec.set_max_decode_len(10).unwrap();
        codec.set_max_reader_len(20);
        let io = Scripted::chunked(&bytes, chunk, pausing);
        let mut transport = BlockTransport::new(io, codec);
        assert_eq!(read_next(&mut transport), blocks[1], "{chunk}");
        assert_eq!(transport.codec().skipped_blocks(), 1, "{chunk}");
        assert_eq!(read_next(&mut transport), blocks[3], "{chunk}");
        assert_eq!(transport.codec().skipped_blocks(), 2, "{chunk}");
        // The first of these is over the limit for whole blocks, too.
        assert_eq!(
            ready(transport.next()).unwrap().unwrap(),
            blocks[6],
            "{chunk}"
        );
        assert!(ready(transport.recv_reader()).unwrap().is_none(), "{chunk}");
        let stats = transport.stats();
        assert_eq!(
            (stats.received_blocks, stats.skipped_blocks),
            (3, 4),
            "{chunk}"
        );
        assert_eq!(stats.received_bytes, bytes.len() as u64, "{chunk}");
    }
}

#[test]
fn accepted_block_is_read_even_if_the_reader_limit_is_lowered() {
    let blocks = numbered(&[30, 5]);
    let bytes = wire(LengthPrefix::u16(), &blocks);
    let codec = || BlockCodec::new(LengthPrefix::u16());
    let lower = |transport: &mut BlockTransport<Scripted, LengthPrefix>| {
        transport.codec_mut().set_max_decode_len(3).unwrap();
        transport.codec_mut().set_max_reader_len(3);
    };
    for way in 0..4 {
        // Half received, or whole.
        let (first, rest) = bytes.split_at(if way < 3 { 10 } else { 32 });
        let io = Scripted::default().send(first).pause().send(rest);
        let mut transport = BlockTransport::new(io, codec());
        match way {
            0 => assert!(transport.next().now_or_never().is_none()),
            1 => assert!(transport.recv().now_or_never().is_none()),
            2 => assert!(transport.recv_into(&mut [0; 30]).now_or_never().is_none()),
            _ => drop(ready(transport.recv_batch()).unwrap().unwrap()),
        }
        lower(&mut transport);
        let reader = transport.recv_reader().now_or_never();
        let reader = reader.expect("its header has come").unwrap().unwrap();
        assert_eq!((reader.len(), reader.remaining()), (30, 30), "{way}");
        drop(reader);
        let error = ready(transport.recv_reader()).unwrap_err();
        assert!(
            matches!(
                error,
                BlockError::TooLarge {
                    limit: 3,
                    index: 1,
                    ..
                }
            ),
            "{error:?}"
        );
        let stats = transport.stats();
        assert_eq!(
            (stats.received_blocks, stats.received_bytes),
            (1, 32),
            "{way}"
        );
        assert_eq!(stats.fragmented_blocks, u64::from(way < 3), "{way}");
    }
}

// The traits of tokio.

#[test]
fn empty_block_is_at_its_end_and_counts_at_once() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[0, 5, 0]));
    for chunk in [1, usize::MAX] {
        let mut transport = transport(Scripted::chunked(&bytes, chunk, true));
        for blocks in [1, 3] {
            let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
            assert_eq!((reader.len(), reader.remaining()), (0, 0));
            assert!(reader.is_empty());
            assert_eq!(reader.read(&mut [0; 8]).now_or_never().unwrap().unwrap(), 0);
            assert!(
                reader
                    .fill_buf()
                    .now_or_never()
                    .unwrap()
                    .unwrap()
                    .is_empty()
            );
            reader.consume(0);
            mem::forget(reader);
            assert_eq!(transport.stats().received_blocks, blocks);
            ready(transport.next());
        }
        assert!(ready(transport.recv_reader()).unwrap().is_none());
    }
}

#[test]
fn reader_at_the_end_of_its_block_returns_nothing_and_reads_nothing() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[20_000]));
    let io = Scripted::default().send(&bytes).send(b"\0\0\0\x01x");
    let arrived = io.arrived.clone();
    let mut transport = transport(io);
    let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
    ready(reader.read_to_end(&mut vec![])).unwrap();
    let before = arrived.load(Relaxed);
    for _ in 0..3 {
        assert_eq!(
            reader
                .read(&mut vec![0; 20_000])
                .now_or_never()
                .unwrap()
                .unwrap(),
            0
        );
        assert_eq!(reader.read(&mut [0]).now_or_never().unwrap().unwrap(), 0);
        assert!(
            reader
                .fill_buf()
                .now_or_never()
                .unwrap()
                .unwrap()
                .is_empty()
        );
        reader.consume(0);
        assert_eq!(reader.remaining(), 0);
    }
    drop(reader);
    assert_eq!(arrived.load(Relaxed), before);
    assert_eq!(ready(transport.next()).unwrap().unwrap(), "x");
}

#[test]
fn read_into_no_memory_reads_nothing() {
    let mut transport = transport(Scripted::default().send(b"\0\0\0\x05").then_silent());
    let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
    assert_eq!(reader.read(&mut []).now_or_never().unwrap().unwrap(), 0);
    assert!(reader.read(&mut [0]).now_or_never().is_none());
}

/// Consumes `bytes` bytes of a block of 5 after `arrived` has come, and returns how many remain. `arrived`
/// may hold a further block, too.
fn consume_after(arrived: &[u8], bytes: usize) -> u64 {
    let io = Scripted::default().send(b"\0\0\0\x05").send(arrived);
    let mut transport = transport(io.then_silent());
    let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
    ready(reader.fill_buf()).unwrap();
    reader.consume(bytes);
    reader.remaining()
}

#[test]
fn consume_takes_up_to_what_was_lent() {
    for (bytes, remaining) in [(0, 5), (1, 4), (4, 1), (5, 0)] {
        assert_eq!(consume_after(b"hello\0\0\0\x01x", bytes), remaining);
    }
    assert_eq!(consume_after(b"hel", 3), 2);
}

#[test]
#[should_panic(expected = "6 bytes of 5 are consumed")]
fn consume_of_more_than_the_block_has_panics() {
    consume_after(b"hello\0\0\0\x01x", 6);
}

#[test]
#[should_panic(expected = "4 bytes of 3 are consumed")]
fn consume_of_more_than_has_arrived_panics() {
    consume_after(b"hel", 4);
}

#[test]
fn part_that_was_lent_is_lent_again_until_it_is_consumed() {
    let mut transport = transport(Scripted::default().send(b"\0\0\0\x05hello\0\0\0\x01x"));
    let mut reader = ready(transport.recv_reader()).unwrap().unwrap();
    for rest in [&b"hello"[..], b"ello", b"llo", b"lo", b"o", b""] {
        for _ in 0..2 {
            assert_eq!(reader.fill_buf().now_or_never().unwrap().unwrap(), rest);
            assert_eq!(reader.remaining(), rest.len() as u64);
        }
        reader.consume(usize::from(!rest.is_empty()));
    }
}

fn next_reader(transport: &mut BlockTransport<Scripted, LengthPrefix>) -> Reader<'_> {
    ready(transport.recv_reader()).unwrap().unwrap()
}

#[test]
fn tokios_reader_methods_stop_at_the_end_of_the_block() {
    let texts = [
        "one\ntwo\nthree",
        "\0\0\0\x2aab",
        "copied",
        "copied too",
        "taken",
        "all\n",
    ];
    let blocks = texts.map(|text| Bytes::from_static(text.as_bytes()));
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for (chunk, pausing) in [(1, false), (1, true), (5, true), (usize::MAX, false)] {
        let mut transport = transport(Scripted::chunked(&bytes, chunk, pausing));
        let transport = &mut transport;

        let mut lines = next_reader(transport).lines();
        for line in ["one", "two", "three"] {
            assert_eq!(ready(lines.next_line()).unwrap().as_deref(), Some(line));
        }
        assert_eq!(ready(lines.next_line()).unwrap(), None);
        drop(lines);

        let mut numbers = next_reader(transport);
        assert_eq!(ready(numbers.read_u32()).unwrap(), 42);
        let mut exact = [0; 2];
        ready(numbers.read_exact(&mut exact)).unwrap();
        assert_eq!(&exact, b"ab");
        let error = ready(numbers.read_u8()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        drop(numbers);

        let mut copied = vec![];
        assert_eq!(
            ready(copy(&mut next_reader(transport), &mut copied)).unwrap(),
            6
        );
        assert_eq!(copied, b"copied");
        assert_eq!(
            ready(copy_buf(&mut next_reader(transport), &mut copied)).unwrap(),
            10
        );
        assert_eq!(copied, b"copiedcopied too");

        let mut taken = vec![];
        ready(next_reader(transport).take(4).read_to_end(&mut taken)).unwrap();
        assert_eq!(taken, b"take");
        let mut all = String::new();
        assert_eq!(
            ready(next_reader(transport).read_to_string(&mut all)).unwrap(),
            4
        );
        assert_eq!(all, "all\n");
        assert!(ready(transport.recv_reader()).unwrap().is_none());
    }
}

#[test]
fn reader_implements_tokios_read_traits() {
    fn is_expected<T: AsyncRead + AsyncBufRead + Unpin + Send>(_: T) {}
    let mut transport = transport(Scripted::default().send(b"\0\0\0\0"));
    is_expected(ready(transport.recv_reader()).unwrap().unwrap());
}
