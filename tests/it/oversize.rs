//! Blocks over the limit: an error, or skipped.

use std::io;

use futures::{FutureExt, StreamExt, stream::FusedStream};
use testing::{Case, KIB, MIB, Scripted, WAYS, numbered, ready, wire, with_each_framing};
use tokio::io::AsyncReadExt;
use tokio_util::codec::Framed;
use wholeblock::{
    BlockCodec, BlockError, BlockPart, BlockTransport, Framing, LengthField, LengthPrefix,
    recv_blocks,
};

/// The limit in these tests.
const LIMIT: usize = 20;

/// A codec that skips blocks over the limit.
fn skipping<F: Framing>(framing: F) -> BlockCodec<F> {
    let mut codec = BlockCodec::new(framing).skip_too_large(true);
    codec.set_max_decode_len(LIMIT).unwrap();
    codec
}

#[test]
fn only_blocks_over_the_limit_are_skipped_whatever_the_chunking() {
    fn check<F: Framing + Copy>(Case { name, framing, .. }: Case<F>) {
        if *framing.block_lens().start() == *framing.block_lens().end() {
            return; // its blocks have one length
        }
        let blocks = numbered(&[3, 200, 0, 21, 255, LIMIT, 22, 5, 130]);
        let fitting: Vec<_> = blocks.iter().filter(|b| b.len() <= LIMIT).collect();
        let bytes = wire(framing, &blocks);
        for chunk in [1, 2, 3, 7, 30, 64, usize::MAX] {
            for pausing in [false, true] {
                for way in WAYS {
                    let io = Scripted::chunked(&bytes, chunk, pausing);
                    let (received, error) = way.receive(io, skipping(framing));
                    assert_eq!(
                        received.iter().collect::<Vec<_>>(),
                        fitting,
                        "{name}, {chunk}, {way:?}"
                    );
                    assert!(error.is_none(), "{name}, {chunk}, {way:?}: {error:?}");
                }
            }
        }
    }
    with_each_framing!(|case| check(case));
}

#[test]
fn block_over_the_limit_is_an_error_unless_skipping_is_on() {
    let bytes = wire(LengthPrefix::u16(), &numbered(&[3, 21, 4]));
    for way in WAYS {
        let mut codec = BlockCodec::new(LengthPrefix::u16());
        codec.set_max_decode_len(LIMIT).unwrap();
        let (blocks, error) = way.receive(Scripted::default().send(&bytes), codec);
        assert_eq!(blocks.len(), 1);
        assert!(
            matches!(
                error,
                Some(BlockError::TooLarge {
                    announced: 21,
                    limit: 20,
                    index: 1,
                    offset: 5,
                    ..
                })
            ),
            "{way:?}: {error:?}"
        );
    }
}

#[test]
fn stream_that_ends_inside_a_skipped_block_is_truncated() {
    let blocks = numbered(&[3, 40, 21]);
    let bytes = wire(LengthPrefix::u16(), &blocks);
    for len in 5..bytes.len() {
        // The second block begins at byte 5, the third at 47.
        let (index, offset, announced) = if len < 47 { (1, 5, 40) } else { (2, 47, 21) };
        let arrived = len - offset;
        for (way, chunk) in WAYS.into_iter().flat_map(|w| [(w, 1), (w, 9), (w, 99)]) {
            let io = Scripted::chunked(&bytes[..len], chunk, false);
            let (received, error) = way.receive(io, skipping(LengthPrefix::u16()));
            assert_eq!(received, [&blocks[0]], "{way:?}, cut at {len}");
            let Some(error) = error else {
                assert_eq!(arrived, 0, "{way:?}, cut at {len}");
                continue;
            };
            let BlockError::Truncated {
                part,
                expected,
                received,
                index: i,
                offset: o,
            } = error
            else {
                panic!("{way:?}, cut at {len}: {error:?}");
            };
            let seen = (part, expected, received, i, o);
            let offset = offset as u64;
            let wanted = match arrived {
                1 => (BlockPart::Header, 2, 1, index, offset),
                _ => (
                    BlockPart::Payload,
                    announced,
                    arrived as u64 - 2,
                    index,
                    offset,
                ),
            };
            assert_eq!(seen, wanted, "{way:?}, cut at {len}");
        }
    }
}

#[test]
fn skipped_blocks_count_in_stats_and_in_later_positions() {
    let bytes = wire(LengthPrefix::u16(), &numbered(&[3, 40, 21, 4, 30, 6]));
    let cut = &bytes[..bytes.len() - 1];
    let mut framed = Framed::new(
        Scripted::chunked(cut, 10, false),
        skipping(LengthPrefix::u16()),
    );
    let mut receiving = recv_blocks(&mut framed);
    assert_eq!(ready(receiving.next()).unwrap().unwrap().len(), 3);
    assert_eq!(receiving.stats().skipped_blocks, 0);
    assert_eq!(ready(receiving.next()).unwrap().unwrap().len(), 4);
    let error = ready(receiving.next()).unwrap_err();
    let at = bytes.len() as u64 - 8;
    assert!(
        matches!(error, BlockError::Truncated { index: 5, offset, .. } if offset == at),
        "{error:?}"
    );
    let stats = receiving.stats();
    assert_eq!((stats.blocks, stats.payload_bytes), (2, 7));
    assert_eq!(stats.skipped_blocks, 3);
    assert_eq!(stats.wire_bytes, at, "skipped bytes count, too");
    assert_eq!(stats.reads, cut.len().div_ceil(10) as u64);
    drop(receiving);
    assert_eq!(framed.codec().skipped_blocks(), 3);
    assert_eq!(framed.codec().clone().skipped_blocks(), 0);
    let later = recv_blocks(&mut framed);
    assert_eq!(
        later.stats().skipped_blocks,
        0,
        "the three were skipped before it"
    );
}

#[test]
fn long_block_is_skipped_with_at_most_64_kib_of_buffer() {
    let framing = LengthField::config().width(8).build().unwrap();
    let long = 16 * MIB;
    let header = (long as u64).to_be_bytes();
    let small = wire(framing, &numbered(&[5]));
    for lent in [false, true] {
        let mut io = Scripted::default().send(&header);
        for _ in 0..long / (64 * KIB) {
            io = io.send(&[1; 64 * KIB]);
        }
        let mut transport = BlockTransport::new(io.send(&small), skipping(framing));
        match lent {
            false => assert_eq!(ready(transport.next()).unwrap().unwrap().len(), 5),
            true => assert_eq!(
                ready(recv_blocks(&mut transport).next())
                    .unwrap()
                    .unwrap()
                    .len(),
                5
            ),
        }
        let rooms = &transport.get_ref().rooms;
        assert!(rooms.iter().all(|&(room, _)| room <= 64 * KIB));
        assert!(rooms.len() < 2 * long / (64 * KIB), "{}", rooms.len());
        assert_eq!(transport.codec().skipped_blocks(), 1);
    }
}

#[test]
fn block_of_u64_max_bytes_is_skipped_until_the_stream_ends() {
    let framing = LengthPrefix::u64();
    let bytes = [&[0xff; 8][..], &[0; 100_000]].concat();
    for way in WAYS {
        let io = Scripted::chunked(&bytes, 30_000, true);
        let (blocks, error) = way.receive(io, skipping(framing));
        assert!(blocks.is_empty());
        let cut = BlockError::Truncated {
            part: BlockPart::Payload,
            expected: u64::MAX,
            received: 100_000,
            index: 0,
            offset: 0,
        };
        assert_eq!(
            error.map(|e| e.to_string()),
            Some(cut.to_string()),
            "{way:?}"
        );
    }
}

#[test]
fn limit_lowered_in_mid_stream_skips_from_the_next_block() {
    let bytes = wire(LengthPrefix::u16(), &numbered(&[30, 30, 5]));
    let io = Scripted::default()
        .send(&bytes[..10])
        .pause()
        .send(&bytes[10..]);
    let codec = BlockCodec::new(LengthPrefix::u16()).skip_too_large(true);
    let mut transport = BlockTransport::new(io, codec);
    assert!(transport.next().now_or_never().is_none(), "half received");
    transport.codec_mut().set_max_decode_len(LIMIT).unwrap();
    let lens = [(); 2].map(|()| ready(transport.next()).unwrap().unwrap().len());
    assert_eq!(lens, [30, 5]);
    assert_eq!(transport.codec().skipped_blocks(), 1);
}

#[tokio::test]
async fn block_of_4_gib_is_skipped_until_the_stream_ends() {
    let long = 1 << 32; // 4 GiB; the peer sends only the first 64 MiB
    let header = std::io::Cursor::new(u64::to_be_bytes(long));
    let io = header.chain(tokio::io::repeat(7).take(64 * MIB as u64));
    let mut transport = BlockTransport::new(io, skipping(LengthPrefix::u64()));
    let error = transport.next().await.unwrap().unwrap_err();
    assert!(
        matches!(error, BlockError::Truncated { expected, received, .. }
            if (expected, received) == (long, 64 * MIB as u64)),
        "{error:?}"
    );
    assert!(transport.read_capacity() <= 64 * KIB);
}

#[test]
fn limit_lowered_inside_a_header_holds_after_a_skipped_block() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[100, LIMIT, 5]));
    let io = Scripted::default().send(&bytes[..2]).pause();
    let io = io.send(&bytes[2..]);
    let mut transport = BlockTransport::new(io, skipping(LengthPrefix::u32()));
    assert!(transport.next().now_or_never().is_none());
    transport.codec_mut().set_max_decode_len(10).unwrap();
    assert_eq!(ready(transport.next()).unwrap().unwrap().len(), 5);
    assert_eq!(transport.codec().skipped_blocks(), 2);
}

#[test]
fn blocks_among_skipped_ones_arrive_wherever_a_turn_ends() {
    // One block to receive for `skipped` blocks to skip, so that a turn of 256 ends at every place.
    for skipped in [1, 2, 3, 5, 255, 256, 257] {
        let group = [b"\x01a".to_vec(), b"\x02no".repeat(skipped)].concat();
        let wire = group.repeat(3_000 / skipped + 3);
        let codec = || {
            let framing = LengthPrefix::u8().max_block_len(1).unwrap();
            BlockCodec::new(framing).skip_too_large(true)
        };
        let expected = 3_000 / skipped + 3;
        let mut transport = BlockTransport::new(&wire[..], codec());
        let mut lent = 0;
        let mut receiving = recv_blocks(&mut transport);
        while let Some(block) = ready(receiving.next()).unwrap() {
            assert_eq!(block, b"a");
            lent += 1;
        }
        assert_eq!(lent, expected, "{skipped}");
        let mut transport = BlockTransport::new(&wire[..], codec());
        let mut owned = 0;
        while let Some(block) = ready(transport.next()) {
            assert_eq!(block.unwrap(), "a");
            owned += 1;
        }
        assert_eq!(owned, expected, "{skipped}");
    }
}

/// Returns the blocks up to the end, and the errors between them.
fn outcomes(
    mut receive: impl FnMut() -> Result<Option<Vec<u8>>, BlockError>,
) -> Vec<Result<Vec<u8>, (u64, u64, u64)>> {
    let mut outcomes = Vec::new();
    loop {
        outcomes.push(match receive() {
            Ok(Some(block)) => Ok(block),
            Ok(None) => return outcomes,
            Err(BlockError::Skipped {
                announced,
                limit: 3,
                header,
                index,
                offset,
            }) => {
                assert_eq!(header.as_bytes(), [announced as u8]);
                Err((announced, index, offset))
            }
            Err(error) => panic!("{error:?}"),
        });
    }
}

#[test]
fn skipped_block_is_reported_in_its_place_to_every_form() {
    let wire = b"\x01a\x05hello\x04four\x02me\x0aand a last";
    let expected = [
        Ok(b"a".to_vec()),
        Err((5, 1, 2)),
        Err((4, 2, 8)),
        Ok(b"me".to_vec()),
        Err((10, 4, 16)),
    ];
    let codec = || {
        let framing = LengthPrefix::u8().max_block_len(3).unwrap();
        BlockCodec::new(framing)
            .skip_too_large(true)
            .report_skipped(true)
    };
    for chunk in [1, 2, 7, usize::MAX] {
        let transport = || BlockTransport::new(Scripted::chunked(wire, chunk, true), codec());
        let mut it = transport();
        let next = || ready(it.next()).transpose().map(|it| it.map(Vec::from));
        assert_eq!(outcomes(next), expected, "next, {chunk}");
        assert_eq!(it.codec().skipped_blocks(), 3);

        let mut it = transport();
        let next = || {
            let item = ready(StreamExt::next(&mut it));
            item.transpose().map(|it| it.map(Vec::from))
        };
        assert_eq!(outcomes(next), expected, "the stream, {chunk}");

        let mut it = transport();
        let recv = || ready(it.recv()).map(|it| it.map(<[u8]>::to_vec));
        assert_eq!(outcomes(recv), expected, "recv, {chunk}");

        let mut it = transport();
        let batch = || {
            let batch = ready(it.recv_batch())?;
            Ok(batch.map(|batch| batch.take(1).flatten().copied().collect()))
        };
        assert_eq!(outcomes(batch), expected, "recv_batch, {chunk}");

        let mut it = transport();
        let mut memory = [0; 3];
        let into = || {
            let len = ready(it.recv_into(&mut memory))?;
            Ok(len.map(|len| memory[..len].to_vec()))
        };
        assert_eq!(outcomes(into), expected, "recv_into, {chunk}");

        let mut it = transport();
        it.codec_mut().set_max_reader_len(3);
        let read = || match ready(it.recv_reader())? {
            Some(mut reader) => {
                let mut block = Vec::new();
                ready(reader.read_to_end(&mut block))?;
                Ok(Some(block))
            }
            None => Ok(None),
        };
        assert_eq!(outcomes(read), expected, "recv_reader, {chunk}");

        let mut it = transport();
        let mut receiving = recv_blocks(&mut it);
        let next = || ready(receiving.next()).map(|it| it.map(<[u8]>::to_vec));
        assert_eq!(outcomes(next), expected, "recv_blocks, {chunk}");
    }
}

#[test]
fn skipped_block_is_reported_before_its_bytes_arrive() {
    let io = Scripted::default().send(b"\x05he").then_silent();
    let framing = LengthPrefix::u8().max_block_len(3).unwrap();
    let codec = BlockCodec::new(framing)
        .skip_too_large(true)
        .report_skipped(true);
    let fresh = codec.clone();
    let mut blocks = BlockTransport::new(io, codec);
    let error = ready(blocks.next()).unwrap().unwrap_err();
    assert!(error.is_peer_fault());
    assert_eq!(
        error.to_string(),
        "block 0, which begins at byte 0, is skipped: it announces 5 bytes; the limit is 3 \
         (header: 05)",
    );
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidData);
    assert!(blocks.next().now_or_never().is_none(), "reported once");
    assert!(!blocks.is_terminated());

    let mut other = BlockTransport::new(&b"\x05"[..], fresh);
    let error = ready(other.next()).unwrap().unwrap_err();
    assert!(
        matches!(error, BlockError::Skipped { .. }),
        "a clone reports it, too"
    );
    let cut = ready(other.next()).unwrap().unwrap_err();
    assert!(
        matches!(
            cut,
            BlockError::Truncated {
                received: 0,
                expected: 5,
                ..
            }
        ),
        "{cut:?}"
    );
}
