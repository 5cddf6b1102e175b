//! `recv_into`: receives a block into the caller's memory.
//!
//! `exhaustive.rs` and others check that it gives whole blocks, or says where they are cut.
//! `allocations.rs` checks what it allocates.

use std::{io, mem, thread, time::Instant as WallInstant};

use bytes::Bytes;
use futures::{FutureExt, future::join};
use testing::{
    Case, FORMS, Form, KIB, MIB, Scripted, blocks_for, numbered, ready, transport, wire,
    with_each_framing,
};
use tokio::{
    io::{AsyncWriteExt, duplex},
    task::unconstrained,
    time::{Instant, interval, sleep, timeout},
};
use wholeblock::{BlockCodec, BlockError, BlockTransport, Framing, LengthPrefix};

use crate::timeouts::{
    SECOND, TIMEOUT, assert_late, assert_stalled, flood, occupy_thread, trickle,
};

/// A byte that nothing here sends.
const UNTOUCHED: u8 = 0xee;

/// Asserts that `form` receives the `expected` blocks, and then the end.
#[track_caller]
fn assert_received<F: Framing>(
    form: Form,
    mut transport: BlockTransport<Scripted, F>,
    expected: &[Bytes],
    place: &str,
) -> BlockTransport<Scripted, F> {
    for expected in expected {
        let received;
        (received, transport) = form.receive(transport);
        assert_eq!(
            received.unwrap().as_ref(),
            Some(expected),
            "{place}, {form:?}"
        );
    }
    let (end, transport) = form.receive(transport);
    assert!(end.unwrap().is_none(), "{place}, {form:?}");
    transport
}

// The caller's memory.

#[test]
fn recv_into_leaves_the_memory_behind_the_block_unchanged() {
    fn check<F: Framing + Copy>(case: Case<F>) {
        let blocks = blocks_for(&case.framing);
        let bytes = case.wire(&blocks);
        for chunk in [1, 9, usize::MAX] {
            for more in [0, 1, 1_000] {
                let io = Scripted::chunked(&bytes, chunk, true);
                let mut transport = BlockTransport::new(io, BlockCodec::new(case.framing));
                for block in &blocks {
                    let mut memory = vec![UNTOUCHED; block.len() + more];
                    let len = ready(transport.recv_into(&mut memory)).unwrap();
                    assert_eq!(len, Some(block.len()), "{}", case.name);
                    let (front, behind) = memory.split_at(block.len());
                    assert_eq!(front, block, "{}", case.name);
                    assert!(
                        behind.iter().all(|byte| *byte == UNTOUCHED),
                        "{}",
                        case.name
                    );
                }
                let mut memory = [UNTOUCHED; 300];
                let end = ready(transport.recv_into(&mut memory)).unwrap();
                assert_eq!((end, memory), (None, [UNTOUCHED; 300]), "{}", case.name);
            }
        }
    }
    with_each_framing!(|case| check(case));
}

#[test]
fn large_block_is_read_straight_into_the_memory_up_to_its_end() {
    const LEN: usize = 200 * KIB;
    let blocks = numbered(&[LEN, 3, LEN]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for (chunk, more) in [(usize::MAX, 0), (usize::MAX, 10), (30_000, 0), (30_000, 10)] {
        let mut transport = transport(Scripted::chunked(&bytes, chunk, true));
        for block in &blocks {
            let reads_before = transport.get_ref().rooms.len();
            let mut memory = vec![UNTOUCHED; block.len() + more];
            let len = ready(transport.recv_into(&mut memory)).unwrap();
            assert_eq!(len, Some(block.len()));
            assert!(memory[..block.len()] == *block, "{chunk}");
            assert!(memory[block.len()..].iter().all(|byte| *byte == UNTOUCHED));
            if block.len() == 3 {
                continue;
            }
            // The first read brings the header and whatever else has arrived.
            let start = memory.as_ptr() as usize;
            let io = transport.get_ref();
            let straight: Vec<_> = io.rooms[reads_before..]
                .iter()
                .zip(&io.destinations[reads_before..])
                .filter(|(_, to)| (start..start + block.len()).contains(*to))
                .collect();
            let (_, first) = straight[0];
            let copied = first - start;
            assert!(copied < 64 * KIB, "{chunk}: {copied} copied");
            let mut at = copied;
            for (&(room, brought), to) in straight {
                assert_eq!(to - start, at, "{chunk}");
                assert_eq!(room, block.len() - at, "{chunk}");
                at += brought;
            }
            assert_eq!(at, block.len(), "{chunk}");
        }
    }
}

#[test]
fn rest_is_read_straight_if_it_is_16_kib_and_no_more_than_64_kib_have_arrived() {
    const LEAST: usize = 16 * KIB;
    const MOST: usize = 64 * KIB - 4; // with a header
    for (len, arrived, is_straight) in [
        (40 * KIB, 0, true),
        (40 * KIB, 1, true),
        (40 * KIB, 40 * KIB - LEAST - 1, true),
        (40 * KIB, 40 * KIB - LEAST, true),
        (40 * KIB, 40 * KIB - LEAST + 1, false),
        (40 * KIB, 40 * KIB - 1, false),
        (LEAST, 0, true),
        (LEAST, 1, false),
        (LEAST - 1, 0, false),
        (200 * KIB, 0, true),
        (200 * KIB, MOST - 1, true),
        (200 * KIB, MOST, true),
        (200 * KIB, MOST + 1, false),
        (200 * KIB, 200 * KIB - LEAST, false),
        (200 * KIB, 200 * KIB - 1, false),
    ] {
        let place = format!("{arrived} of {len}");
        let blocks = numbered(&[len, 5]);
        let bytes = wire(LengthPrefix::u32(), &blocks);
        let (first, rest) = bytes.split_at(4 + arrived);
        let io = Scripted::default().send(first).pause().pause().send(rest);
        let mut transport = transport(io);
        assert!(transport.next().now_or_never().is_none());
        assert_eq!(transport.read_buffer().len(), 4 + arrived, "{place}");
        let mut memory = vec![UNTOUCHED; len + 1];
        assert!(transport.recv_into(&mut memory).now_or_never().is_none());
        let reads_before = transport.get_ref().rooms.len();
        assert_eq!(
            ready(transport.recv_into(&mut memory)).unwrap(),
            Some(len),
            "{place}"
        );
        assert!(memory[..len] == blocks[0], "{place}");
        assert_eq!(memory[len], UNTOUCHED, "{place}");
        let io = transport.get_ref();
        let to_memory = memory[arrived..].as_ptr() as usize == io.destinations[reads_before];
        assert_eq!(to_memory, is_straight, "{place}");
        if is_straight {
            let missing = len - arrived;
            assert_eq!(io.rooms[reads_before..], [(missing, missing)], "{place}");
        }
        assert_received(Form::Next, transport, &blocks[1..], &place);
    }
}

#[test]
fn empty_block_needs_no_memory() {
    let io = Scripted::default().send(b"\0\0\0\0\0\0\0\0");
    let mut transport = transport(io);
    assert_eq!(ready(transport.recv_into(&mut [])).unwrap(), Some(0));
    assert_eq!(
        ready(transport.recv_into(&mut [UNTOUCHED])).unwrap(),
        Some(0)
    );
    assert_eq!(ready(transport.recv_into(&mut [])).unwrap(), None);
}

#[test]
fn recv_into_counts_blocks_and_bytes_as_next_does() {
    let lens = [3, 0, 40_000, 1, 16 * KIB, 16 * KIB - 1, 200_000, 5, 70_000];
    let blocks = numbered(&lens);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for (chunk, pausing) in [
        (5_000, false),
        (5_000, true),
        (20_000, true),
        (usize::MAX, false),
    ] {
        let io = || Scripted::chunked(&bytes, chunk, pausing);
        let mut whole = transport(io());
        let mut transport = transport(io());
        let mut memory = vec![0; 200_000];
        for block in &blocks {
            ready(whole.next()).unwrap().unwrap();
            let received = ready(transport.recv_into(&mut memory)).unwrap();
            assert_eq!(received, Some(block.len()));
            let (expected, stats) = (whole.stats(), transport.stats());
            assert_eq!(stats.received_blocks, expected.received_blocks, "{chunk}");
            assert_eq!(stats.received_bytes, expected.received_bytes, "{chunk}");
            assert_eq!(stats.reads, transport.get_ref().brought(), "{chunk}");
        }
        if chunk == 5_000 {
            // Here no read is cut short by its room, so the same blocks are fragmented.
            let fragmented = whole.stats().fragmented_blocks;
            assert_eq!(transport.stats().fragmented_blocks, fragmented, "{chunk}");
        }
    }
}

#[test]
fn block_over_the_limit_is_refused_even_if_the_memory_has_room() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[20, 21]));
    let mut codec = BlockCodec::length_prefixed();
    codec.set_max_decode_len(20).unwrap();
    let mut transport = BlockTransport::new(Scripted::default().send(&bytes), codec);
    let mut memory = [0; 100];
    assert_eq!(ready(transport.recv_into(&mut memory)).unwrap(), Some(20));
    for _ in 0..2 {
        let error = ready(transport.recv_into(&mut memory)).unwrap_err();
        assert!(
            matches!(
                error,
                BlockError::TooLarge {
                    announced: 21,
                    limit: 20,
                    index: 1,
                    offset: 24,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

// Memory that is too small.

#[track_caller]
fn assert_no_room(error: &BlockError, expected: [u64; 4]) {
    let BlockError::NoRoom {
        len,
        room,
        index,
        offset,
    } = *error
    else {
        panic!("{error:?}");
    };
    assert_eq!([len, room, index, offset], expected);
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn block_without_room_stays_for_every_form() {
    let blocks = numbered(&[9, 90_000, 4]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    // The second header begins at byte 13. After it has arrived: nothing, a byte of the block, more than a
    // batch, the whole block, or the next block, too.
    for arrived in [17, 18, 90_000, 90_017, bytes.len()] {
        for (room, form) in FORMS
            .into_iter()
            .flat_map(|f| [(0, f), (50_000, f), (89_999, f)])
        {
            let place = format!("{arrived}, {room}");
            let (first, rest) = bytes.split_at(arrived);
            let mut io = Scripted::default().send(first);
            if !rest.is_empty() {
                io = io.pause().send(rest);
            }
            let mut transport = transport(io);
            ready(transport.next()).unwrap().unwrap();
            let mut memory = vec![UNTOUCHED; room];
            for _ in 0..2 {
                let error = ready(transport.recv_into(&mut memory)).unwrap_err();
                assert_no_room(&error, [90_000, room as u64, 1, 13]);
            }
            assert!(memory.iter().all(|byte| *byte == UNTOUCHED), "{place}");
            let stats = transport.stats();
            assert_eq!(
                (stats.received_blocks, stats.received_bytes),
                (1, 13),
                "{place}"
            );
            let transport = assert_received(form, transport, &blocks[1..], &place);
            assert_eq!(transport.stats().received_blocks, 3, "{place}");
        }
    }
}

#[test]
fn whole_block_without_room_stays_whole() {
    let blocks = numbered(&[900, 5]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for (batched, form) in FORMS
        .into_iter()
        .flat_map(|form| [(false, form), (true, form)])
    {
        let mut transport = transport(Scripted::default().send(&bytes));
        if batched {
            drop(ready(transport.recv_batch()).unwrap().unwrap()); // found, and not taken
        }
        for _ in 0..2 {
            let error = ready(transport.recv_into(&mut [0; 899])).unwrap_err();
            assert_no_room(&error, [900, 899, 0, 0]);
        }
        assert_received(form, transport, &blocks, "");
    }
}

#[test]
fn lower_limit_does_not_refuse_a_block_that_recv_into_has_begun() {
    let blocks = numbered(&[30_000, 5]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for (arrived, room) in [(4, 0), (9, 0), (30_009, 0), (4, 30_000), (9, 30_000)] {
        let (first, rest) = bytes.split_at(arrived);
        let io = Scripted::default().send(first).pause().send(rest);
        let mut transport = transport(io);
        let mut memory = vec![0; room];
        match transport.recv_into(&mut memory).now_or_never() {
            Some(received) => assert_no_room(&received.unwrap_err(), [30_000, 0, 0, 0]),
            None => assert_eq!(room, 30_000),
        }
        transport.codec_mut().set_max_decode_len(4).unwrap();
        assert_eq!(
            ready(transport.next()).unwrap().unwrap(),
            blocks[0],
            "{arrived}, {room}"
        );
        let error = ready(transport.next()).unwrap().unwrap_err();
        assert!(
            matches!(error, BlockError::TooLarge { limit: 4, .. }),
            "{error:?}"
        );
    }
}

#[test]
fn exact_block_finds_no_room_only_once_it_has_begun() {
    let codec = || BlockCodec::exact(5).unwrap();
    let mut ended = BlockTransport::new(Scripted::default(), codec());
    assert_eq!(ready(ended.recv_into(&mut [0; 4])).unwrap(), None);
    let io = Scripted::default().pause().send(b"h").send(b"ello");
    let mut transport = BlockTransport::new(io, codec());
    assert!(transport.recv_into(&mut [0; 4]).now_or_never().is_none());
    let error = ready(transport.recv_into(&mut [0; 4])).unwrap_err();
    assert_no_room(&error, [5, 4, 0, 0]);
    let mut memory = [0; 5];
    assert_eq!(ready(transport.recv_into(&mut memory)).unwrap(), Some(5));
    assert_eq!(&memory, b"hello");
}

// A future that is given up.

#[test]
fn block_stays_for_every_form_if_its_future_is_dropped_at_any_wait() {
    let blocks = numbered(&[9, 100_000, 4, 30_000, 0]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    let mut waits = 0;
    for (polls, form) in (0..14).flat_map(|polls| FORMS.map(|form| (polls, form))) {
        let place = format!("{polls}");
        let mut transport = transport(Scripted::chunked(&bytes, 10_000, true));
        ready(transport.next()).unwrap().unwrap();
        let mut memory = vec![0; 100_000];
        let mut receiving = Box::pin(transport.recv_into(&mut memory));
        let received = (0..polls).find_map(|_| receiving.as_mut().now_or_never());
        drop(receiving);
        if received.is_some() {
            continue;
        }
        waits = waits.max(polls);
        let stats = transport.stats();
        assert_eq!(
            (stats.received_blocks, stats.received_bytes),
            (1, 13),
            "{place}"
        );
        let transport = assert_received(form, transport, &blocks[1..], &place);
        let stats = transport.stats();
        assert_eq!(stats.received_bytes, bytes.len() as u64, "{place}");
    }
    assert_eq!(waits, 10, "one for each piece of it");
}

#[test]
fn block_is_received_although_its_future_is_dropped_at_every_wait() {
    for len in [20_000, 40_000, 65_536, 100_000, 300_000] {
        let blocks = numbered(&[9, len, 4]);
        let bytes = wire(LengthPrefix::u32(), &blocks);
        for chunk in [999, 10_000, 70_000] {
            let mut transport = transport(Scripted::chunked(&bytes, chunk, true));
            for block in &blocks {
                // Other memory each time.
                let memory = loop {
                    let mut memory = vec![UNTOUCHED; len + 1];
                    let received = transport.recv_into(&mut memory).now_or_never();
                    if let Some(received) = received {
                        assert_eq!(received.unwrap(), Some(block.len()));
                        break memory;
                    }
                };
                assert!(memory[..block.len()] == *block, "{len}, {chunk}");
                assert_eq!(memory[block.len()], UNTOUCHED);
            }
            let stats = transport.stats();
            assert_eq!(stats.received_bytes, bytes.len() as u64);
            assert_eq!(stats.reads, transport.get_ref().brought(), "{len}, {chunk}");
            assert!(stats.fragmented_blocks >= 1, "{len}, {chunk}");
        }
    }
}

#[test]
fn leaked_future_loses_its_block_and_no_other() {
    let decoy = wire(
        LengthPrefix::u32(),
        &vec![Bytes::from_static(b"decoy"); 9_000],
    );
    let blocks = numbered(&[9, 5, 0]);
    let blocks = [&blocks[..1], &[Bytes::from(decoy)], &blocks[1..]].concat();
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for (polls, form) in [1, 2, 5, 9]
        .into_iter()
        .flat_map(|polls| FORMS.map(|f| (polls, f)))
    {
        let place = format!("{polls}");
        let mut transport = transport(Scripted::chunked(&bytes, 9_000, true));
        ready(transport.next()).unwrap().unwrap();
        let mut memory = vec![0; blocks[1].len()];
        let mut receiving = Box::pin(transport.recv_into(&mut memory));
        for _ in 0..polls {
            assert!(receiving.as_mut().now_or_never().is_none(), "{place}");
        }
        mem::forget(receiving);
        let transport = assert_received(form, transport, &blocks[2..], &place);
        let stats = transport.stats();
        assert_eq!(stats.received_blocks, 4, "{place}");
        assert_eq!(stats.received_bytes, bytes.len() as u64, "{place}");
        assert_eq!(stats.skipped_blocks, 0, "{place}");
    }
}

#[test]
fn stream_ends_cleanly_after_a_leaked_future_that_received_nothing() {
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
fn rest_of_an_abandoned_block_is_read_up_to_its_end() {
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

// Errors.

#[test]
fn io_error_inside_a_block_loses_nothing() {
    let blocks = numbered(&[9, 50_000, 4]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    for (at, form) in [13, 15, 17, 18, 20_000, 30_001, 40_000, 50_016]
        .into_iter()
        .flat_map(|at| FORMS.map(|form| (at, form)))
    {
        let io = Scripted::default().send(&bytes[..at]);
        let io = io.fail(io::ErrorKind::ConnectionReset).send(&bytes[at..]);
        let mut transport = transport(io);
        ready(transport.next()).unwrap().unwrap();
        let mut memory = vec![0; 50_000];
        let mut receiving = Box::pin(transport.recv_into(&mut memory));
        let error = ready(receiving.as_mut()).unwrap_err();
        match at % 2 {
            0 => drop(receiving),
            _ => mem::forget(receiving), // it has returned
        }
        let is_reset = matches!(&error, BlockError::Io(error)
            if error.kind() == io::ErrorKind::ConnectionReset);
        assert!(is_reset, "{at}: {error:?}");
        assert_received(form, transport, &blocks[1..], &format!("{at}"));
    }
}

#[test]
fn end_inside_a_block_is_the_same_error_as_for_next() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[9, 50_000]));
    for (cut, chunk) in [14, 17, 18, 20_000, 40_000, bytes.len() - 1]
        .into_iter()
        .flat_map(|cut| [(cut, 9_000), (cut, usize::MAX)])
    {
        let cut_short = || {
            let mut transport = transport(Scripted::chunked(&bytes[..cut], chunk, true));
            ready(transport.next()).unwrap().unwrap();
            transport
        };
        let expected = format!("{:?}", ready(cut_short().next()).unwrap().unwrap_err());
        for form in FORMS {
            let place = format!("{cut}, {chunk}, {form:?}");
            let mut transport = cut_short();
            for _ in 0..2 {
                let error = ready(transport.recv_into(&mut vec![0; 50_000])).unwrap_err();
                assert_eq!(format!("{error:?}"), expected, "{place}");
            }
            // Everything that arrived is still buffered, so another framing could read it.
            assert_eq!(transport.read_buffer(), &bytes[13..cut], "{place}");
            if form != Form::WithFraming {
                let (error, _) = form.receive(transport);
                assert_eq!(format!("{:?}", error.unwrap_err()), expected, "{place}");
            }
        }
    }
}

#[test]
fn stream_of_exact_blocks_ends_cleanly_only_between_blocks() {
    let blocks = numbered(&[20_000, 20_000]);
    let bytes = blocks.concat();
    for (cut, chunk) in [0, 20_000, 40_000, 1, 20_001, 39_999]
        .into_iter()
        .flat_map(|cut| [(cut, 7_000), (cut, usize::MAX)])
    {
        let codec = BlockCodec::exact(20_000).unwrap();
        let io = Scripted::chunked(&bytes[..cut], chunk, true);
        let mut transport = BlockTransport::new(io, codec);
        let mut memory = vec![0; 20_000];
        for (index, block) in blocks[..cut / 20_000].iter().enumerate() {
            let received = ready(transport.recv_into(&mut memory)).unwrap();
            assert_eq!(received, Some(20_000));
            assert!(memory == *block, "{cut}, {chunk}");
            let stats = transport.stats();
            let fragmented = if chunk == 7_000 { index + 1 } else { 0 };
            assert_eq!(stats.fragmented_blocks, fragmented as u64, "{cut}, {chunk}");
        }
        for _ in 0..2 {
            let (part, index) = (cut as u64 % 20_000, cut as u64 / 20_000);
            match ready(transport.recv_into(&mut memory)) {
                Ok(end) => assert_eq!((end, part), (None, 0), "{cut}, {chunk}"),
                Err(error) => {
                    let expected = format!(
                        "stream ended inside block {index}, which begins at byte {}: \
                         {part} of 20000 payload bytes arrived",
                        index * 20_000
                    );
                    assert_eq!(error.to_string(), expected, "{cut}, {chunk}");
                }
            }
        }
    }
}

// Timeouts.

async fn timeouts_inside_a_block_lose_nothing() {
    let blocks = numbered(&[50_000, 4]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    let (mut near, far) = duplex(MIB);
    let mut transport = transport(far)
        .stall_timeout(4 * SECOND)
        .block_deadline(10 * SECOND);
    near.write_all(&bytes[..9_000]).await.unwrap();
    let mut memory = vec![0; 50_000];
    let begun = Instant::now();
    for at in [4, 8, 10, 12, 16] {
        let error = transport.recv_into(&mut memory).await.unwrap_err();
        match at {
            10 => assert_late(&error, 10 * SECOND, 0, 0),
            _ => assert_stalled(&error),
        }
        assert_eq!(begun.elapsed(), at * SECOND);
    }
    near.write_all(&bytes[9_000..]).await.unwrap();
    assert_eq!(
        transport.recv_into(&mut memory).await.unwrap(),
        Some(50_000)
    );
    assert!(memory == blocks[0]);
    assert_eq!(transport.next().await.unwrap().unwrap(), blocks[1]);
}

async fn trickling_block_is_late_and_then_received() {
    let (mut near, far) = duplex(64);
    near.write_all(b"\0\0\x40\x04").await.unwrap(); // 4 bytes more than 16 KiB
    let mut transport = transport(far)
        .stall_timeout(5 * SECOND)
        .block_deadline(10 * SECOND);
    let mut memory = vec![0; 16 * KIB + 4];
    let begun = Instant::now();
    let sending = trickle(near, b"slow", 4 * SECOND);
    let error = transport.recv_into(&mut memory).await.unwrap_err();
    assert_late(&error, 10 * SECOND, 0, 0);
    assert_eq!(begun.elapsed(), 10 * SECOND);
    let mut near = sending.await.unwrap();
    let rest = [7; 16 * KIB];
    let (received, sent) = join(transport.recv_into(&mut memory), near.write_all(&rest)).await;
    sent.unwrap();
    assert_eq!(received.unwrap(), Some(16 * KIB + 4));
    assert_eq!(memory, [&b"slow"[..], &rest].concat());
}

async fn dropped_waits_add_up() {
    // Between blocks, inside a header, and inside a block.
    for begun in [&b""[..], b"\0\0", b"\0\0\xc3\x50", b"\0\0\xc3\x50begun"] {
        let (mut near, far) = duplex(64);
        let mut transport = transport(far).stall_timeout(30 * SECOND);
        let mut memory = vec![0; 50_000];
        near.write_all(begun).await.unwrap();
        assert!(
            timeout(SECOND, transport.recv_into(&mut memory))
                .await
                .is_err()
        );
        sleep(100 * SECOND).await; // a second of it counts
        let begun = Instant::now();
        assert_stalled(&transport.recv_into(&mut memory).await.unwrap_err());
        assert_eq!(begun.elapsed(), 28 * SECOND);

        // A new wait begins, whatever time has passed since.
        sleep(100 * SECOND).await;
        let mut waiting = Box::pin(transport.recv_into(&mut memory));
        assert!((&mut waiting).now_or_never().is_none());
        sleep(100 * SECOND).await; // kept, and not polled
        let begun = Instant::now();
        assert_stalled(&waiting.await.unwrap_err());
        assert!(begun.elapsed().is_zero());
    }
}

async fn wait_ends_with_its_error_even_if_the_future_is_kept() {
    let (mut near, far) = duplex(64);
    let mut transport = transport(far)
        .stall_timeout(30 * SECOND)
        .block_deadline(10 * SECOND);
    near.write_all(b"\0\0\xc3\x50begun").await.unwrap();
    let mut memory = vec![0; 50_000];
    let mut receiving = Box::pin(transport.recv_into(&mut memory));
    assert_late(&(&mut receiving).await.unwrap_err(), 10 * SECOND, 0, 0);
    sleep(100 * SECOND).await; // a second of it counts
    drop(receiving);
    let begun = Instant::now();
    assert_late(&transport.recv().await.unwrap_err(), 10 * SECOND, 0, 0);
    assert_stalled(&transport.recv().await.unwrap_err());
    assert_eq!(begun.elapsed(), 19 * SECOND);
}

async fn block_that_arrives_as_the_timeout_ends_is_received() {
    let (mut near, far) = duplex(64 * KIB);
    let mut transport = transport(far).stall_timeout(30 * SECOND);
    near.write_all(b"\0\0\x4e\x20").await.unwrap(); // 20,000
    let mut memory = vec![0; 20_000];
    let sending = async {
        sleep(30 * SECOND).await;
        near.write_all(&[7; 20_000]).await.unwrap();
    };
    let (received, ()) = join(transport.recv_into(&mut memory), sending).await;
    assert_eq!(received.unwrap(), Some(20_000));
}

#[tokio::test]
async fn block_with_bytes_always_ready_is_late() {
    let head = b"\0\0\0\0\0\x10\0\0"; // 1 MiB
    for io in [flood(head, 1).spending(), flood(head, 1)] {
        let begun = WallInstant::now();
        let codec = BlockCodec::new(LengthPrefix::u64());
        let mut transport = BlockTransport::new(io, codec).block_deadline(TIMEOUT / 4);
        let mut memory = vec![0; MIB];
        for waits in 1..3 {
            let error = transport.recv_into(&mut memory).await.unwrap_err();
            assert_late(&error, TIMEOUT / 4, 0, 0);
            assert!(
                begun.elapsed() >= waits * TIMEOUT / 4,
                "the whole deadline once more"
            );
        }
        // Also in a task without a budget.
        let error = unconstrained(transport.recv_into(&mut memory)).await;
        assert_late(&error.unwrap_err(), TIMEOUT / 4, 0, 0);
        assert!(begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn busy_thread_delays_the_timeouts_and_does_not_prevent_them() {
    let begun = WallInstant::now();
    occupy_thread(TIMEOUT / 4);
    let (mut near, far) = duplex(64);
    near.write_all(b"\0\x10\0\0some").await.unwrap();
    let mut transport = transport(far).stall_timeout(TIMEOUT / 10);
    let mut memory = vec![0; MIB];
    assert_stalled(&transport.recv_into(&mut memory).await.unwrap_err());
    let mut transport = transport.block_deadline(TIMEOUT / 100);
    let late = transport.recv_into(&mut memory).await.unwrap_err();
    assert_late(&late, TIMEOUT / 100, 0, 0);
    assert!(begun.elapsed() < 30 * SECOND, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn busy_select_loop_still_stalls() {
    let (mut near, far) = duplex(64);
    near.write_all(b"\0\x10\0\0some").await.unwrap();
    let mut transport = transport(far).stall_timeout(TIMEOUT / 4);
    let mut memory = vec![0; MIB];
    // Always ready, because each turn takes longer.
    let mut ticks = interval(TIMEOUT / 10);
    for blocking in [false, true].into_iter().cycle().take(40) {
        tokio::select! {
            received = transport.recv_into(&mut memory) => {
                return assert_stalled(&received.unwrap_err());
            }
            _ = ticks.tick() => match blocking {
                false => sleep(TIMEOUT / 2).await,
                true => thread::sleep(TIMEOUT / 2),
            }
        }
    }
    panic!("no stall was seen");
}

async fn block_that_has_arrived_is_received_however_late() {
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

async fn deadline_of_an_exact_block_begins_with_its_first_byte() {
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

twice! {
    paused {
        timeouts_inside_a_block_lose_nothing,
        trickling_block_is_late_and_then_received,
        dropped_waits_add_up,
        wait_ends_with_its_error_even_if_the_future_is_kept,
        block_that_arrives_as_the_timeout_ends_is_received,
        block_that_has_arrived_is_received_however_late,
        deadline_of_an_exact_block_begins_with_its_first_byte,
    }
}
