//! `BlockTransport`: a sink and a stream without `Framed`.
//!
//! `exhaustive.rs` and `framing.rs` check that it gives whole blocks, or says where they are cut.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, SinkExt, StreamExt, stream};
use testing::{
    Case, KIB, MIB, Magic, Scripted, blocks_for, numbered, prefixed, ready, transport, wire,
    with_each_framing,
};
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio_util::codec::{Framed, FramedParts};
use wholeblock::internals::{CHAIN_THRESHOLD as CHAIN_FROM, FIRST_WRITE, FULL_WRITE};
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, Framing, LengthPrefix, TransportStats, recv_blocks,
    send_blocks,
};

const LENS: [usize; 10] = [
    0,
    1,
    64,
    1_000,
    CHAIN_FROM - 1,
    CHAIN_FROM,
    10_000,
    51_200,
    100_000,
    MIB,
];

// The stream.

#[test]
fn stream_stays_at_its_end_after_a_framing_error() {
    let good = wire(Magic, &[Bytes::from_static(b"good")]);
    let bytes = [&good[..], b"BAD", &good].concat();
    for chunk in [1, 10, usize::MAX] {
        let io = Scripted::chunked(&bytes, chunk, true);
        let mut transport = BlockTransport::new(io, BlockCodec::new(Magic));
        assert_eq!(ready(transport.next()).unwrap().unwrap(), &b"good"[..]);
        let error = ready(transport.next()).unwrap().unwrap_err();
        assert!(
            matches!(
                error,
                BlockError::InvalidHeader {
                    index: 1,
                    offset: 10,
                    ..
                }
            ),
            "{error:?}"
        );
        for _ in 0..20 {
            assert!(ready(transport.next()).is_none());
        }
        // A later receiver gets the same error.
        for _ in 0..3 {
            let error = ready(recv_blocks(&mut transport).next()).unwrap_err();
            assert!(matches!(error, BlockError::InvalidHeader { index: 1, .. }));
            assert!(ready(transport.next()).is_none());
        }
    }
}

#[test]
fn stream_returns_a_lent_framing_error_once_and_ends() {
    let bytes = [&wire(Magic, &[Bytes::from_static(b"good")])[..], b"BAD"].concat();
    let io = Scripted::default().send(&bytes);
    let mut transport = BlockTransport::new(io, BlockCodec::new(Magic));
    let mut receiving = recv_blocks(&mut transport);
    assert_eq!(ready(receiving.next()).unwrap().unwrap(), b"good");
    ready(receiving.next()).unwrap_err();
    drop(receiving);
    assert!(ready(transport.next()).unwrap().is_err());
    for _ in 0..20 {
        assert!(ready(transport.next()).is_none());
    }
}

#[test]
fn a_block_that_was_reported_truncated_is_not_delivered_later() {
    let good = wire(Magic, &[Bytes::from_static(b"good")]);
    for cut in 1..good.len() {
        for lent in [false, true] {
            let io = Scripted::default().send(&good[..cut]);
            let mut transport = BlockTransport::new(io, BlockCodec::new(Magic));
            let error = match lent {
                false => ready(transport.next()).unwrap().map(drop),
                true => ready(recv_blocks(&mut transport).next()).map(drop),
            };
            assert!(matches!(error, Err(BlockError::Truncated { .. })));
            *transport.get_mut() = Scripted::default().send(&good[cut..]);
            for _ in 0..5 {
                let next = ready(transport.next());
                assert!(!matches!(next, Some(Ok(_))), "{next:?}");
                assert!(ready(recv_blocks(&mut transport).next()).is_err());
            }
        }
    }
}

#[test]
fn stream_reads_on_after_a_clean_end_if_more_arrives() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[5]));
    let mut transport = transport(Scripted::default().send(&bytes));
    for _ in 0..3 {
        assert_eq!(ready(transport.next()).unwrap().unwrap().len(), 5);
        assert!(ready(transport.next()).is_none());
        assert!(ready(transport.next()).is_none());
        *transport.get_mut() = Scripted::default().send(&bytes);
    }
}

/// A transport that fails once after `cut` bytes of `blocks`.
fn failing_after(cut: usize, blocks: &[Bytes]) -> BlockTransport<Scripted, LengthPrefix> {
    let bytes = wire(LengthPrefix::u32(), blocks);
    let mut io = Scripted::default();
    if cut > 0 {
        io = io.send(&bytes[..cut]);
    }
    io = io.fail(io::ErrorKind::ConnectionReset);
    if cut < bytes.len() {
        io = io.send(&bytes[cut..]);
    }
    transport(io)
}

#[test]
fn stream_ends_once_after_an_io_error_and_reads_on_in_the_block() {
    let blocks = numbered(&[5, 7]);
    for cut in 0..=20 {
        let mut transport = failing_after(cut, &blocks);
        let (mut out, mut errors, mut ends) = (vec![], 0, 0);
        while ends < 2 {
            match ready(transport.next()) {
                Some(Ok(block)) => out.push(block.freeze()),
                Some(Err(error)) => {
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                    errors += 1;
                    assert!(ready(transport.next()).is_none(), "cut at {cut}");
                    ends += 1;
                }
                None => ends += 1,
            }
        }
        assert_eq!((errors, out), (1, blocks.clone()), "cut at {cut}");
    }
}

#[test]
fn lending_goes_on_inside_the_block_after_an_io_error() {
    let blocks = numbered(&[5, 7]);
    for cut in 0..=20 {
        for batched in [false, true] {
            let mut transport = failing_after(cut, &blocks);
            let mut out: Vec<Bytes> = vec![];
            let mut errors = 0;
            loop {
                let next = match batched {
                    false => ready(transport.recv()).map(|b| b.map(Bytes::copy_from_slice)),
                    true => ready(transport.recv_batch())
                        .map(|b| b.and_then(|mut b| b.next().map(Bytes::copy_from_slice))),
                };
                match next {
                    Ok(Some(block)) => out.push(block),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                        errors += 1;
                    }
                }
            }
            assert_eq!((errors, out), (1, blocks.clone()), "cut at {cut}");
        }
    }
}

#[test]
fn stream_reads_on_at_once_after_a_lent_io_error() {
    let blocks = numbered(&[5, 7]);
    for cut in 0..9 {
        let mut transport = failing_after(cut, &blocks);
        ready(recv_blocks(&mut transport).next()).unwrap_err();
        for expected in &blocks {
            assert_eq!(ready(transport.next()).unwrap().unwrap(), expected);
        }
        assert!(ready(transport.next()).is_none());
    }
}

#[test]
fn no_false_end_follows_a_block_lent_after_an_io_error() {
    let blocks = numbered(&[5, 7, 9]);
    for cut in 0..9 {
        let mut transport = failing_after(cut, &blocks);
        ready(transport.next()).unwrap().unwrap_err();
        // The stream has returned the error, so lending goes on.
        let lent = ready(recv_blocks(&mut transport).next()).map(|block| block.unwrap().to_vec());
        assert_eq!(lent.unwrap(), blocks[0]);
        let next = ready(transport.next()).expect("there are two more blocks");
        assert_eq!(next.unwrap(), blocks[1]);
    }
}

#[test]
fn blocks_of_all_lengths_come_out_of_the_stream_whatever_the_reads() {
    let blocks: Vec<Bytes> = (0..200).map(|n| vec![n as u8; n * n].into()).collect();
    let wire = wire(LengthPrefix::u32(), &blocks);
    for chunk in [1, 7, 1_000, 60_000, usize::MAX] {
        let mut transport = transport(Scripted::chunked(&wire, chunk, true));
        for block in &blocks {
            assert_eq!(ready(transport.next()).unwrap().unwrap(), block);
        }
        assert!(ready(transport.next()).is_none());
    }
}

// The sink.

#[test]
fn fed_blocks_leave_in_one_write_at_the_flush() {
    fn check<F: Framing + Copy>(Case { name, framing, .. }: Case<F>) {
        let blocks = blocks_for(&framing);
        for vectored in [true, false] {
            let mut io = Scripted::default();
            io = io.vectored(vectored);
            let mut transport = BlockTransport::new(io, BlockCodec::new(framing));
            for block in &blocks {
                ready(transport.feed(block.clone())).unwrap();
            }
            assert_eq!(
                transport.get_ref().gathered,
                [],
                "{name}: not before the flush"
            );
            ready(transport.flush()).unwrap();
            let io = transport.get_ref();
            assert_eq!(io.written, wire(framing, &blocks), "{name}");
            assert_eq!((io.gathered.len(), io.flushes), (1, 1), "{name}");
            assert_eq!(io.shutdowns, 0, "{name}");
        }
    }
    with_each_framing!(|case| check(case));
}

#[test]
fn fed_blocks_leave_in_full_writes() {
    for len in LENS {
        for vectored in [true, false] {
            let blocks = vec![Bytes::from(vec![7; len]); 2 * MIB / (len + 4) + 3];
            let mut io = Scripted::default();
            io = io.vectored(vectored);
            let mut transport = transport(io);
            for block in &blocks {
                ready(transport.feed(block.clone())).unwrap();
            }
            ready(transport.close()).unwrap();
            let io = transport.get_ref();
            io.assert_full_writes(len);
            assert_eq!(io.written, wire(LengthPrefix::u32(), &blocks), "{len}");
        }
    }
}

/// Lengths to set, and the lengths that result: those out of range are clamped.
const WRITE_LEN_SET: [(usize, usize); 7] = [
    (0, 4 * KIB),
    (4 * KIB, 4 * KIB),
    (FIRST_WRITE - 1, FIRST_WRITE - 1),
    (65_160, 65_160),
    (FULL_WRITE, FULL_WRITE),
    (4 * MIB, 4 * MIB),
    (usize::MAX, 4 * MIB),
];

#[test]
fn write_len_sets_the_length_of_full_writes() {
    for (set, len) in WRITE_LEN_SET {
        for vectored in [true, false] {
            let mut transport = transport(Scripted::default().vectored(vectored)).write_len(set);
            let block = Bytes::from(vec![7; 2 * len]); // and its header
            ready(transport.send(block.clone())).unwrap();
            let io = transport.get_ref();
            let lens: Vec<_> = io.gathered.iter().map(|(_, bytes)| *bytes).collect();
            assert_eq!(lens, [len, len, 4], "{set}");
            assert!(io.written == wire(LengthPrefix::u32(), &[block]), "{set}");
        }
    }
}

#[test]
fn blocks_that_are_not_copied_leave_in_thirds_of_write_len() {
    for (len, vectored, expected) in [
        (CHAIN_FROM - 5, true, 30_000), // copied
        (CHAIN_FROM, true, 10_000),
        (9_000, true, 10_000),
        (9_000, false, 30_000),
        (20_000, true, 20_000), // two thirds are queued at once
        (40_000, true, 30_000),
    ] {
        let mut transport = transport(Scripted::default().vectored(vectored)).write_len(30_000);
        for _ in 0..60 {
            ready(transport.feed(vec![7; len])).unwrap();
        }
        let lens = transport.get_ref().gathered.iter().map(|(_, bytes)| *bytes);
        assert_eq!(lens.clone().max(), Some(expected), "{len}, {vectored}");
        let queued = transport.queued();
        let third = if expected == 30_000 { 30_000 } else { 10_000 };
        assert!(queued < third + len + 4, "{len}, {vectored}: {queued}");
    }
}

#[test]
fn writes_grow_up_to_write_len_until_a_flush() {
    for (set, len) in WRITE_LEN_SET {
        let mut transport = transport(Scripted::default()).write_len(set);
        for _ in 0..6 * len / KIB {
            ready(transport.feed(vec![7; KIB - 4])).unwrap();
            let queued = transport.queued();
            assert!(queued < len + KIB, "{set}: {queued}");
        }
        let lens = transport.get_ref().gathered.iter().map(|(_, bytes)| *bytes);
        assert_eq!(lens.clone().max(), Some(len), "{set}");
        assert!(lens.clone().is_sorted(), "{set}");
        // After a flush, the first write is short again.
        ready(transport.flush()).unwrap();
        let before = transport.get_ref().gathered.len();
        while transport.get_ref().gathered.len() == before {
            ready(transport.feed(vec![7; KIB - 4])).unwrap();
        }
        assert_eq!(
            transport.get_ref().gathered[before].1,
            len.min(FIRST_WRITE),
            "{set}"
        );
    }
}

#[test]
fn new_write_len_applies_to_queued_blocks() {
    let mut longer = transport(Scripted::default());
    ready(longer.feed(vec![7; 20 * KIB])).unwrap();
    let mut shorter = longer.write_len(5_000);
    ready(shorter.flush()).unwrap();
    let lens = shorter.get_ref().gathered.iter().map(|(_, bytes)| *bytes);
    assert_eq!(lens.collect::<Vec<_>>(), [5_000, 5_000, 5_000, 5_000, 484]);
}

#[test]
fn queue_holds_at_most_a_full_write_and_one_block() {
    for len in LENS {
        for taken in [1, 1_000, 20_000, FULL_WRITE - 1] {
            let io = (0..50).fold(Scripted::default(), |io, _| io.pause_writes().take(taken));
            let mut transport = transport(io.pause_writes());
            let block = Bytes::from(vec![7; len]);
            let mut fed = 0;
            for _ in 0..300 {
                let queued = |transport: &BlockTransport<Scripted, _>| {
                    fed * (len + 4) - transport.get_ref().written.len()
                };
                let before = queued(&transport);
                match transport.feed(block.clone()).now_or_never() {
                    Some(done) => {
                        done.unwrap();
                        assert!(before < FULL_WRITE + len + 4, "{len}, {taken}");
                        fed += 1;
                    }
                    None => assert!(
                        before >= FIRST_WRITE,
                        "{len}, {taken}: no waiting while there is room"
                    ),
                }
                let after = fed * (len + 4) - transport.get_ref().written.len();
                assert!(after < FULL_WRITE + len + 4, "{len}, {taken}: {after}");
            }
        }
    }
}

#[test]
fn full_sink_waits_before_it_takes_a_block() {
    let io = (0..10).fold(Scripted::default(), |io, _| io.pause_writes());
    let mut transport = transport(io);
    ready(transport.feed(vec![1; FULL_WRITE])).unwrap();
    for _ in 0..10 {
        let refused = transport.feed(Bytes::from_static(b"never queued"));
        assert!(refused.now_or_never().is_none());
    }
    ready(transport.close()).unwrap();
    assert_eq!(transport.get_ref().written.len(), FULL_WRITE + 4);
}

#[test]
fn large_fed_payloads_leave_without_a_copy() {
    let blocks = numbered(&[CHAIN_FROM, 10, 10_000, 20_000, 30]);
    let mut transport = transport(Scripted::default());
    for block in &blocks {
        ready(transport.feed(block.clone())).unwrap();
    }
    ready(transport.flush()).unwrap();
    let io = transport.get_ref();
    assert_eq!(io.written, wire(LengthPrefix::u32(), &blocks));
    let is_its_own = |block: &&Bytes| io.addresses.contains(&(block.as_ptr() as usize));
    let referred: Vec<_> = blocks.iter().filter(is_its_own).map(Bytes::len).collect();
    assert_eq!(referred, [CHAIN_FROM, 10_000, 20_000]);
    // Header, first large payload, small block and header, second; header and third; small block.
    assert_eq!(io.gathered, [(4, 14_118), (2, 20_004), (1, 34)]);
}

#[test]
fn rest_of_a_partly_written_payload_leaves_without_a_copy() {
    let block = numbered(&[20_000]).remove(0);
    let io = Scripted::default().take(2).take(5_002).pause_writes();
    let mut transport = transport(io);
    ready(transport.send(block.clone())).unwrap();
    let io = transport.get_ref();
    assert_eq!(
        io.written,
        wire(LengthPrefix::u32(), std::slice::from_ref(&block))
    );
    let last = *io.addresses.last().unwrap();
    assert_eq!(last, block.as_ptr() as usize + 5_000);
}

#[test]
fn transport_that_is_not_vectored_gets_fed_blocks_joined() {
    let blocks = numbered(&[50_000, 3, 5_000, 70_000]);
    let mut transport = transport(Scripted::default().not_vectored());
    for block in &blocks {
        ready(transport.feed(block.clone())).unwrap();
    }
    ready(transport.flush()).unwrap();
    let io = transport.get_ref();
    assert!(io.gathered.iter().all(|(slices, _)| *slices == 1));
    let lens = io.gathered.iter().map(|(_, bytes)| *bytes);
    assert_eq!(
        lens.collect::<Vec<_>>(),
        [50_004, 75_015],
        "no write for a header alone"
    );
    assert_eq!(io.written, wire(LengthPrefix::u32(), &blocks));
}

#[test]
fn partial_writes_lose_nothing_of_fed_blocks() {
    let blocks = numbered(&[3, 20_000, 0, 70, 9_000, 4_096, 100_000, 1].repeat(4));
    let expected = wire(LengthPrefix::u32(), &blocks);
    for vectored in [true, false] {
        for taken in [7, 1_000, 20_000, 60_000] {
            let mut io = Scripted::default();
            io = io.vectored(vectored);
            for _ in 0..expected.len() / taken {
                io = io.take(taken).pause_writes();
            }
            let mut transport = transport(io);
            for block in &blocks {
                ready(transport.feed(block.clone())).unwrap();
            }
            ready(transport.flush()).unwrap();
            assert_eq!(transport.get_ref().written, expected, "{taken}");
        }
    }
}

#[test]
fn sink_stays_usable_and_names_the_index_of_a_wrong_size() {
    let right = || Bytes::from_static(b"right");
    let codec = BlockCodec::exact(5).unwrap();
    let mut transport = BlockTransport::new(Scripted::default(), codec);
    ready(transport.feed(right())).unwrap();
    ready(send_blocks(
        &mut transport,
        futures::stream::iter([right(), right()]),
    ))
    .unwrap();
    for wrong in [&b"wrong!"[..], b"", &[0; 10_000]] {
        let error = ready(transport.feed(Bytes::from_static(wrong))).unwrap_err();
        assert!(
            matches!(error, BlockError::WrongSize { min: 5, max: 5, limit: 5, actual, index: 3 }
                if actual == wrong.len() as u64),
            "{error:?}"
        );
    }
    ready(transport.feed(right())).unwrap();
    let error = ready(transport.send(Bytes::new())).unwrap_err();
    assert!(matches!(error, BlockError::WrongSize { index: 4, .. }));
    ready(transport.close()).unwrap();
    assert_eq!(transport.get_ref().written, b"rightrightrightright");
}

#[test]
fn refused_first_block_leaves_nothing_behind() {
    let codec = BlockCodec::new(LengthPrefix::u8());
    let mut transport = BlockTransport::new(Scripted::default(), codec);
    ready(transport.feed(vec![0; 256])).unwrap_err();
    ready(transport.feed(vec![0; 10_000])).unwrap_err();
    ready(transport.close()).unwrap();
    assert_eq!(transport.get_ref().gathered, []);
}

#[test]
fn flush_of_nothing_writes_nothing() {
    let mut transport = transport(Scripted::default());
    for _ in 0..3 {
        ready(SinkExt::<Bytes>::flush(&mut transport)).unwrap();
    }
    assert_eq!(transport.get_ref().gathered, []);
    ready(transport.send(Bytes::new())).unwrap();
    ready(SinkExt::<Bytes>::flush(&mut transport)).unwrap();
    let io = transport.get_ref();
    assert_eq!((&io.written[..], io.shutdowns), (&[0; 4][..], 0));
}

#[test]
fn every_flush_after_a_write_flushes_the_transport_below() {
    let mut transport = transport(Scripted::default());
    for n in 1..5 {
        let before = transport.get_ref().flushes;
        ready(transport.send(Bytes::from_static(b"x"))).unwrap();
        assert_eq!(transport.get_ref().flushes, before + 1, "{n}");
    }
    // So does a flush after a write that made room and left nothing queued.
    let before = transport.get_ref().flushes;
    ready(transport.feed(vec![0; FULL_WRITE - 4])).unwrap();
    ready(futures::future::poll_fn(|cx| {
        transport.poll_ready_unpin(cx)
    }))
    .unwrap();
    assert_eq!(transport.get_ref().flushes, before);
    ready(SinkExt::<Bytes>::flush(&mut transport)).unwrap();
    assert_eq!(transport.get_ref().flushes, before + 1);
}

/// A transport over a layer with a write buffer of its own, as TLS or a WebSocket has.
fn answering_below() -> BlockTransport<BufWriter<Scripted>, LengthPrefix> {
    transport(BufWriter::new(Scripted::default()))
}

#[test]
fn flush_passes_on_bytes_that_the_caller_wrote_below() {
    let mut transport = answering_below();
    ready(transport.send(Bytes::from_static(b"one"))).unwrap();
    ready(transport.get_mut().write_all(b"pong")).unwrap();
    ready(SinkExt::<Bytes>::flush(&mut transport)).unwrap();
    assert_eq!(transport.get_ref().get_ref().written, b"\0\0\0\x03onepong");

    ready(transport.get_mut().write_all(b"again")).unwrap();
    ready(send_blocks(&mut transport, stream::empty::<Bytes>())).unwrap();
    let written = &transport.get_ref().get_ref().written;
    assert!(written.ends_with(b"pongagain"), "{written:?}");

    ready(transport.get_mut().write_all(b"bye")).unwrap();
    ready(SinkExt::<Bytes>::close(&mut transport)).unwrap();
    let written = &transport.get_ref().get_ref().written;
    assert!(written.ends_with(b"againbye"), "{written:?}");
}

#[test]
fn transfer_with_a_waiting_source_flushes_the_transport_below() {
    let mut framed = Framed::new(
        BufWriter::new(Scripted::default()),
        BlockCodec::length_prefixed(),
    );
    for pong in [&b"ping"[..], b"pong"] {
        ready(framed.get_mut().write_all(pong)).unwrap();
        let waiting = send_blocks(&mut framed, stream::pending::<Bytes>());
        assert!(waiting.now_or_never().is_none());
        let written = &framed.get_ref().get_ref().written;
        assert!(written.ends_with(pong), "{written:?}");
    }
}

#[test]
fn close_writes_the_queue_then_flushes_then_shuts_down() {
    let io = Scripted::default().pause_writes().take(3).pause_writes();
    let mut transport = transport(io);
    ready(transport.feed(Bytes::from_static(b"last"))).unwrap();
    assert!(transport.close().now_or_never().is_none());
    let io = transport.get_ref();
    assert_eq!((io.flushes, io.shutdowns), (0, 0), "not before all is out");
    ready(transport.close()).unwrap();
    let io = transport.get_ref();
    assert_eq!(io.written, b"\0\0\0\x04last");
    assert_eq!((io.flushes, io.shutdowns), (1, 1));
}

#[test]
fn a_transport_that_takes_no_bytes_is_a_write_zero_error() {
    for len in [1, 10_000, 100_000] {
        let mut transport = transport(Scripted::default().take(0));
        ready(transport.feed(vec![0; len])).unwrap();
        let error = ready(SinkExt::<Bytes>::flush(&mut transport)).unwrap_err();
        assert!(matches!(error, BlockError::Io(e) if e.kind() == io::ErrorKind::WriteZero));

        let mut transport = testing::transport(Scripted::default().take(0));
        ready(transport.feed(vec![0; FULL_WRITE])).unwrap();
        let error = ready(transport.feed(Bytes::new())).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::WriteZero,
            "while it makes room"
        );
    }
}

#[test]
fn failed_write_loses_nothing_of_the_queue() {
    let blocks = numbered(&[10, 6_000, 10]);
    for taken in [1, 14, 17, 3_000, 6_020] {
        let io = Scripted::default()
            .take(taken)
            .fail_writes(io::ErrorKind::Interrupted);
        let mut transport = transport(io);
        for block in &blocks {
            ready(transport.feed(block.clone())).unwrap();
        }
        let error = ready(SinkExt::<Bytes>::flush(&mut transport)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        ready(SinkExt::<Bytes>::flush(&mut transport)).unwrap();
        let expected = wire(LengthPrefix::u32(), &blocks);
        assert_eq!(transport.get_ref().written, expected, "{taken}");
    }
}

// To and from `Framed`.

#[test]
fn a_framed_made_of_a_transport_finds_whole_blocks_without_a_read() {
    let blocks = numbered(&[3, 4, 5, 6, 7]);
    let mut bytes = wire(LengthPrefix::u32(), &blocks);
    bytes.extend_from_slice(b"\0\0\0\x09par");
    for lent in [false, true] {
        let mut transport = transport(Scripted::default().send(&bytes).then_silent());
        match lent {
            false => drop(ready(transport.next()).unwrap().unwrap()),
            true => drop(ready(recv_blocks(&mut transport).next()).unwrap().unwrap()),
        }
        let mut framed = transport.into_framed();
        assert_eq!(ready(framed.next()).unwrap().unwrap(), blocks[1]);
        let mut transport = BlockTransport::from(framed);
        assert_eq!(ready(transport.next()).unwrap().unwrap(), blocks[2]);
        let mut framed = transport.into_framed();
        let lent = ready(recv_blocks(&mut framed).next()).map(|b| b.unwrap().to_vec());
        assert_eq!(lent.unwrap(), blocks[3]);
        let mut transport = BlockTransport::from(framed.into_parts());
        assert_eq!(ready(transport.next()).unwrap().unwrap(), blocks[4]);
        assert!(transport.next().now_or_never().is_none());
        assert_eq!(transport.read_buffer(), &b"\0\0\0\x09par"[..]);
        let mut framed = transport.into_framed();
        assert!(framed.next().now_or_never().is_none());
        assert_eq!(framed.read_buffer(), &b"\0\0\0\x09par"[..]);
    }
}

#[test]
fn index_and_offset_survive_a_change_to_framed_and_back() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[5, 6]));
    let mut transport = transport(Scripted::default().send(&bytes[..bytes.len() - 1]));
    ready(transport.next()).unwrap().unwrap();
    let mut transport = BlockTransport::from(transport.into_framed());
    let error = ready(transport.next()).unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::Truncated {
                index: 1,
                offset: 9,
                expected: 6,
                received: 5,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn partly_written_queue_survives_a_change_to_framed_and_back() {
    let blocks = numbered(&[10, 6_000, 30, 5_000]);
    let expected = wire(LengthPrefix::u32(), &blocks);
    for taken in [1, 14, 16, 4_000, 6_018, 6_050, expected.len() - 1] {
        let io = Scripted::default().take(taken).pause_writes();
        let mut transport = transport(io);
        for block in &blocks[..3] {
            ready(transport.feed(block.clone())).unwrap();
        }
        assert!(transport.flush().now_or_never().is_none() || taken > 6_051);
        let mut framed = transport.into_framed();
        ready(framed.feed(blocks[3].clone())).unwrap();
        let mut transport = BlockTransport::from(framed);
        ready(transport.feed(blocks[0].clone())).unwrap();
        ready(SinkExt::<Bytes>::flush(&mut transport)).unwrap();
        let again = wire(LengthPrefix::u32(), &blocks[..1]);
        let io = transport.get_ref();
        assert_eq!(io.written, [&expected[..], &again].concat(), "{taken}");
    }
}

#[test]
fn write_buffer_of_a_framed_counts_as_queued_and_leaves_first() {
    let held = wire(LengthPrefix::u32(), &numbered(&[200_000]));
    let io = Scripted::default().pause_writes();
    let mut parts = FramedParts::new::<Bytes>(io, BlockCodec::length_prefixed());
    parts.write_buf.extend_from_slice(&held);
    let mut transport = BlockTransport::from(parts);
    let late = Bytes::from_static(b"late");
    let waits = transport.feed(late.clone()).now_or_never().is_none();
    assert!(waits, "there is more than a full write to write first");
    ready(transport.send(late.clone())).unwrap();
    let io = transport.get_ref();
    let last = wire(LengthPrefix::u32(), &[late]);
    assert_eq!(io.written, [&held[..], &last].concat());
}

#[test]
fn transfer_does_not_count_blocks_that_a_framed_had_queued() {
    let mut framed = prefixed(Scripted::default());
    ready(framed.feed(Bytes::from_static(b"before"))).unwrap();
    let mut transport = BlockTransport::from(framed);
    ready(transport.feed(Bytes::from_static(b"fed"))).unwrap();
    let blocks = futures::stream::iter(["now", "then"]);
    let sent = ready(send_blocks(&mut transport, blocks)).unwrap();
    assert_eq!((sent.blocks, sent.wire_bytes, sent.writes), (2, 15, 1));
    let expected = b"\0\0\0\x06before\0\0\0\x03fed\0\0\0\x03now\0\0\0\x04then";
    assert_eq!(transport.get_ref().written, expected);
}

#[test]
fn transfer_does_not_count_blocks_fed_before_it() {
    let mut transport = transport(Scripted::default().take(10).pause_writes());
    ready(transport.feed(Bytes::from_static(b"before"))).unwrap();
    let blocks = futures::stream::iter(["now"]);
    let mut sending = send_blocks(&mut transport, blocks);
    assert!((&mut sending).now_or_never().is_none());
    assert_eq!((sending.stats().blocks, sending.stats().writes), (0, 0));
    assert_eq!(ready(sending).unwrap().blocks, 1);
}

#[test]
fn stream_goes_on_after_a_receiver_has_passed_its_error() {
    let blocks = numbered(&[5, 7]);
    let io = Scripted::default().fail(io::ErrorKind::ConnectionReset);
    let mut transport = transport(blocks.iter().fold(io, |io, block| {
        io.send(&wire(LengthPrefix::u32(), std::slice::from_ref(block)))
    }));
    assert!(ready(transport.next()).unwrap().is_err());
    let mut receiving = recv_blocks(&mut transport);
    assert_eq!(ready(receiving.next()).unwrap().unwrap(), blocks[0]);
    drop(receiving);
    assert_eq!(ready(transport.next()).unwrap().unwrap(), blocks[1]);
}

#[test]
fn unused_transport_becomes_a_fresh_framed() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[5]));
    let mut framed = transport(Scripted::default().send(&bytes)).into_framed();
    assert!(framed.write_buffer().is_empty());
    assert_eq!(ready(framed.next()).unwrap().unwrap().len(), 5);
    let room = framed.get_ref().rooms[0].0;
    assert!(room >= 4 * KIB, "it reads as much at a time: {room}");
    let mut again = BlockTransport::from(Framed::new(Scripted::default(), framed.codec().clone()));
    assert!(ready(again.next()).is_none());
}

#[test]
fn send_takes_any_payload_and_flushes() {
    let mut transport = transport(Scripted::default());
    ready(transport.send("text")).unwrap();
    ready(transport.send(vec![1, 2])).unwrap();
    ready(transport.feed(&b"slice"[..])).unwrap();
    assert_eq!(transport.get_ref().flushes, 2);
    ready(transport.send(BytesMut::from("more"))).unwrap();
    ready(transport.close()).unwrap();
    let wire = b"\0\0\0\x04text\0\0\0\x02\x01\x02\0\0\0\x05slice\0\0\0\x04more";
    assert_eq!(transport.get_ref().written, wire);
    assert_eq!(transport.get_ref().shutdowns, 1);
}

#[test]
fn into_payload_returns_a_payload_that_is_not_queued() {
    // The queue is full, and the peer takes nothing before the third poll.
    let io = Scripted::default().pause_writes().pause_writes();
    let mut transport = transport(io.pause_writes());
    ready(transport.feed(vec![7; FIRST_WRITE])).unwrap();
    let mut sending = transport.send("one");
    assert!((&mut sending).now_or_never().is_none());
    assert_eq!(sending.into_payload(), Some("one"));
    let mut feeding = transport.feed("one");
    assert!((&mut feeding).now_or_never().is_none());
    assert_eq!(feeding.into_payload(), Some("one"));

    let mut sending = transport.send("one"); // a retry sends it once
    assert!((&mut sending).now_or_never().is_none());
    assert!((&mut sending).now_or_never().is_some());
    assert_eq!(sending.into_payload(), None);
    let written = &transport.get_ref().written;
    assert_eq!(written[4 + FIRST_WRITE..], *b"\0\0\0\x03one");
}

#[test]
fn into_payload_returns_nothing_while_the_flush_waits() {
    let io = Scripted::default().take(3).pause_writes();
    let mut transport = transport(io);
    let mut sending = transport.send("hello");
    assert!((&mut sending).now_or_never().is_none());
    assert_eq!(sending.into_payload(), None);
    ready(transport.flush()).unwrap();
    assert_eq!(transport.get_ref().written, b"\0\0\0\x05hello");
}

#[test]
fn failed_send_keeps_its_payload_unless_refused_or_queued() {
    let failing = || Scripted::default().fail_writes(io::ErrorKind::BrokenPipe);
    let mut full = transport(failing());
    ready(full.feed(vec![7; FIRST_WRITE])).unwrap();
    let mut sending = full.send("one");
    assert!(ready(&mut sending).is_err());
    assert_eq!(sending.into_payload(), Some("one"));

    let mut empty = transport(failing());
    let mut sending = empty.send("one");
    assert!(ready(&mut sending).is_err(), "at its flush");
    assert_eq!(sending.into_payload(), None);

    let codec = BlockCodec::new(LengthPrefix::u8());
    let mut short = BlockTransport::new(Scripted::default(), codec);
    let mut sending = short.send(vec![7; 256]);
    let refused = ready(&mut sending).unwrap_err();
    assert!(matches!(refused, BlockError::WrongSize { actual: 256, .. }));
    assert_eq!(sending.into_payload(), None);
    ready(short.send("next")).unwrap();
    assert_eq!(short.get_ref().written, b"\x04next");
}

#[test]
fn stats_count_both_directions() {
    let framing = LengthPrefix::u8().max_block_len(5).unwrap();
    let io = Scripted::default()
        .send(b"\x02ab\x01")
        .send(b"c\x06skipped\x00");
    let codec = BlockCodec::new(framing).skip_too_large(true);
    let mut transport = BlockTransport::new(io.take(3).take(4), codec);
    assert_eq!(transport.stats(), TransportStats::default());
    // "ab", "c", then 6 bytes that are skipped, and 'd' announces 100 more.
    assert_eq!(ready(transport.next()).unwrap().unwrap(), "ab");
    assert_eq!(ready(transport.next()).unwrap().unwrap(), "c");
    assert!(ready(transport.next()).unwrap().is_err());
    ready(transport.send("hello")).unwrap();
    ready(transport.send("me")).unwrap();
    ready(transport.feed("queued")).unwrap_err();
    ready(transport.feed("q")).unwrap();
    let stats = transport.stats();
    assert_eq!((stats.received_blocks, stats.skipped_blocks), (2, 1));
    assert_eq!((stats.received_bytes, stats.reads), (3 + 2 + 7, 2));
    assert_eq!(stats.fragmented_blocks, 1);
    assert_eq!(
        (stats.sent_blocks, stats.sent_bytes, stats.writes),
        (3, 9, 3)
    );
}

#[test]
fn stream_is_terminated_only_after_it_has_returned_its_end() {
    use futures::stream::FusedStream;

    let blocks = numbered(&[5]);
    let bytes = wire(LengthPrefix::u32(), &blocks);
    let io = Scripted::default()
        .send(&bytes)
        .fail(io::ErrorKind::ConnectionReset)
        .send(&bytes);
    let mut transport = transport(io);
    assert!(!transport.is_terminated());
    assert!(ready(transport.next()).unwrap().is_ok());
    assert!(ready(transport.next()).unwrap().is_err());
    assert!(!transport.is_terminated(), "an end follows");
    assert!(ready(transport.next()).is_none());
    assert!(transport.is_terminated());
    assert!(ready(transport.next()).unwrap().is_ok(), "it reads on");
    assert!(!transport.is_terminated());
    assert!(ready(transport.recv()).unwrap().is_none());
    assert!(
        !transport.is_terminated(),
        "the stream has not returned its end"
    );
    assert!(ready(transport.next()).is_none());
    assert!(transport.is_terminated());

    let io = Scripted::default().send(b"BAD");
    let mut transport = BlockTransport::new(io, BlockCodec::new(Magic));
    assert!(ready(transport.next()).unwrap().is_err());
    assert!(!transport.is_terminated());
    for _ in 0..3 {
        assert!(ready(transport.next()).is_none());
        assert!(transport.is_terminated());
        assert!(ready(transport.recv()).is_err());
    }
    transport.set_framing(Magic);
    assert!(!transport.is_terminated(), "it reads what was refused");
}

/// Fails to compile if a public type loses `Send` or `Sync`.
#[test]
fn public_types_are_send_sync_and_unpin() {
    use wholeblock::{
        Batch, BlockError, Close, ConfigError, ExpectNext, FeedBlock, Flush, Next, NextBlock, Recv,
        RecvBatch, RecvBlocks, SendBlock,
    };

    fn check<T: Send + Sync + Unpin>() {}
    type Io = tokio::net::TcpStream;
    type Transport = BlockTransport<Io, LengthPrefix>;
    check::<Transport>();
    check::<BlockCodec<LengthPrefix>>();
    check::<(BlockError, ConfigError)>();
    check::<(
        NextBlock<'_, Io, LengthPrefix>,
        ExpectNext<'_, Io, LengthPrefix>,
    )>();
    check::<(Recv<'_, Io, LengthPrefix>, RecvBatch<'_, Io, LengthPrefix>)>();
    check::<(Flush<'_, Io, LengthPrefix>, Close<'_, Io, LengthPrefix>)>();
    check::<(
        SendBlock<'_, Io, LengthPrefix, Bytes>,
        FeedBlock<'_, Io, LengthPrefix, Bytes>,
    )>();
    check::<(
        Batch<'_, LengthPrefix>,
        RecvBlocks<'_, Transport>,
        Next<'_, '_, Transport>,
    )>();
}

#[test]
fn expect_next_after_an_error_reports_no_missing_block() {
    let blocks = numbered(&[5, 7]);
    for cut in 0..9 {
        let mut transport = failing_after(cut, &blocks);
        ready(transport.next()).unwrap().unwrap_err();
        assert_eq!(ready(transport.expect_next()).unwrap(), blocks[0], "{cut}");
        assert_eq!(ready(transport.expect_next()).unwrap(), blocks[1], "{cut}");
    }
    let io = Scripted::default().send(b"BAD");
    let mut transport = BlockTransport::new(io, BlockCodec::new(Magic));
    for _ in 0..3 {
        let error = ready(transport.expect_next()).unwrap_err();
        assert!(matches!(error, BlockError::InvalidHeader { .. }), "{error}");
    }
}
