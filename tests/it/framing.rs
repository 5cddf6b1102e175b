//! Bytes in, blocks out: every framing, its limits, and malformed headers. (`exhaustive` tests every
//! chunking and every place to end.)

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, SinkExt, StreamExt, stream};
use testing::{
    Case, KIB, Line, MIB, Magic, Scripted, blocks_for, collect, prefixed, ready, wire,
    with_each_framing,
};
use tokio_util::codec::{Decoder, Encoder, Framed};
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, ConfigError, Exact, Framing, Header, HeaderBytes,
    InvalidHeader, LengthPrefix, Varint, check_framing, recv_blocks, send_blocks,
};

#[test]
fn each_framing_writes_the_bytes_its_drawing_shows() {
    fn check<F: Framing>(framing: F, payload: &'static [u8], expected: &[u8]) {
        assert_eq!(wire(framing, &[payload.into()]), expected);
    }
    let hello = b"hello";
    check(Exact::new(5).unwrap(), hello, b"hello");
    check(LengthPrefix::u8(), hello, b"\x05hello");
    check(LengthPrefix::u16(), hello, b"\x00\x05hello");
    check(LengthPrefix::u16().little_endian(), hello, b"\x05\x00hello");
    check(LengthPrefix::bytes(3).unwrap(), hello, b"\0\0\x05hello");
    check(LengthPrefix::u32(), hello, b"\0\0\0\x05hello");
    check(
        LengthPrefix::u32().little_endian(),
        hello,
        b"\x05\0\0\0hello",
    );
    check(LengthPrefix::u64(), hello, b"\0\0\0\0\0\0\0\x05hello");
    check(
        LengthPrefix::u16()
            .little_endian()
            .including_header()
            .unwrap(),
        hello,
        b"\x07\0hello",
    );
    check(Varint::new(), hello, b"\x05hello");
    // As short as possible: seven bits in a byte.
    check(Varint::new(), &[7; 127], &[&[0x7f], &[7; 127][..]].concat());
    check(
        Varint::new(),
        &[7; 128],
        &[&[0x80, 1], &[7; 128][..]].concat(),
    );
    check(
        Varint::new(),
        &[7; 300],
        &[&[0xac, 0x02], &[7; 300][..]].concat(),
    );
    check(Magic, hello, b"WB\x01\0\0\x05hello");
    check(LengthPrefix::u32(), b"", b"\0\0\0\0");
    check(Varint::new(), b"", b"\0");
}

#[test]
fn stream_that_ends_right_after_a_header_is_truncated() {
    let io = Scripted::default().send(b"\0\0\0\x05");
    let mut framed = prefixed(io);
    let error = ready(framed.next()).unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream ended inside block 0, which begins at byte 0: 0 of 5 payload bytes arrived"
    );
}

#[test]
fn decode_returns_buffered_blocks_one_by_one_and_leaves_the_rest() {
    fn check<F: Framing + Copy>(Case { name, framing, .. }: Case<F>) {
        let blocks = blocks_for(&framing);
        let mut buffer = BytesMut::from(&wire(framing, &blocks)[..]);
        let mut rest = wire(framing, &blocks[..1]);
        rest.pop();
        buffer.extend_from_slice(&rest);
        let mut codec = BlockCodec::new(framing);
        for block in &blocks {
            assert_eq!(codec.decode(&mut buffer).unwrap().unwrap(), block, "{name}");
        }
        assert!(codec.decode(&mut buffer).unwrap().is_none(), "{name}");
        assert_eq!(buffer, rest, "{name}: the part of a block stays");
    }
    with_each_framing!(|case| check(case));
}

#[test]
fn decoder_always_makes_room_for_more() {
    fn check<F: Framing + Copy>(Case { name, framing, .. }: Case<F>) {
        let blocks = blocks_for(&framing);
        let wire = wire(framing, &blocks);
        let mut codec = BlockCodec::new(framing);
        let mut buffer = BytesMut::with_capacity(1);
        let (mut fed, mut out) = (0, vec![]);
        loop {
            while let Some(block) = codec.decode(&mut buffer).unwrap() {
                out.push(block.freeze());
            }
            if fed == wire.len() {
                break;
            }
            let room = buffer.capacity() - buffer.len();
            assert!(room > 0, "{name}: no room to go on after {fed} bytes");
            let piece = room.min(wire.len() - fed);
            buffer.put_slice(&wire[fed..fed + piece]);
            fed += piece;
        }
        assert_eq!(out, blocks, "{name}");
    }
    with_each_framing!(|case| check(case));
}

#[test]
fn limit_means_the_same_in_both_directions() {
    fn check<F: Framing + Copy>(framing: F) {
        let max = framing.max_whole_len() as usize;
        let block = Bytes::from(vec![9; max]);
        let io = Scripted::default().send(&wire(framing, std::slice::from_ref(&block)));
        let (out, error) = collect(&mut Framed::new(io, BlockCodec::new(framing)));
        assert!(error.is_none(), "{error:?}");
        assert_eq!(out, [block]);

        let mut unsent = BytesMut::new();
        let error = BlockCodec::new(framing)
            .encode(vec![9; max + 1].into(), &mut unsent)
            .unwrap_err();
        let refused = matches!(error, BlockError::WrongSize { max: m, actual, .. }
            if m == max as u64 && actual == m + 1);
        assert!(refused, "{error:?}");
        assert!(unsent.is_empty(), "nothing of a refused block is written");
    }

    /// `larger` is the same framing with a higher limit.
    fn check_refusal<F: Framing, L: Framing>(framing: F, larger: L) {
        let max = framing.max_whole_len() as usize;
        let header = wire(larger, &[vec![9; max + 1].into()]);
        let io = Scripted::default().send(&header[..header.len() - max - 1]);
        let (out, error) = collect(&mut Framed::new(io.then_silent(), BlockCodec::new(framing)));
        assert!(out.is_empty());
        let Some(BlockError::TooLarge {
            announced,
            limit,
            index: 0,
            offset: 0,
            ..
        }) = error
        else {
            panic!("{error:?}")
        };
        assert_eq!((announced, limit), (max as u64 + 1, max as u64));
    }

    check(Exact::new(1).unwrap());
    check(LengthPrefix::u8());
    check(LengthPrefix::u8().including_header().unwrap());
    check(LengthPrefix::u8().max_block_len(0).unwrap());
    check(LengthPrefix::u16());
    check(LengthPrefix::u16().including_header().unwrap());
    check(LengthPrefix::u32());
    check(LengthPrefix::u32().max_block_len(70_000).unwrap());
    check(LengthPrefix::u64().little_endian());
    check(Varint::new());
    check(Varint::new().max_block_len(127).unwrap());
    check(Magic);

    let limited = LengthPrefix::u16().max_block_len(10).unwrap();
    check_refusal(limited, LengthPrefix::u16());
    let limited = limited.including_header().unwrap();
    check_refusal(limited, LengthPrefix::u16().including_header().unwrap());
    check_refusal(
        LengthPrefix::u32(),
        LengthPrefix::u32().max_block_len(1 << 24).unwrap(),
    );
    check_refusal(
        LengthPrefix::u64().little_endian(),
        LengthPrefix::u64()
            .little_endian()
            .max_block_len(1 << 24)
            .unwrap(),
    );
    check_refusal(Varint::new(), Varint::new().max_block_len(1 << 24).unwrap());
}

#[test]
fn lengths_up_to_u64_max_are_refused_without_overflow() {
    fn check(framing: impl Framing, wire: &[u8], announced: u64) {
        let io = Scripted::default().send(wire).then_silent();
        let (_, error) = collect(&mut Framed::new(io, BlockCodec::new(framing)));
        let Some(BlockError::TooLarge { announced: a, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!(a, announced);
    }
    check(LengthPrefix::u64(), &[0xff; 8], u64::MAX);
    let largest = [0x7f, 255, 255, 255, 255, 255, 255, 255];
    check(LengthPrefix::u64(), &largest, i64::MAX as u64);
    // Only one bit of a varint's tenth byte counts.
    let ten = |last| [&[0xff; 9][..], &[last]].concat();
    check(Varint::new(), &ten(1), u64::MAX);
    check(Varint::new(), &ten(0), i64::MAX as u64);
}

#[test]
fn constructors_refuse_configurations_that_cannot_work() {
    let too_large = |limit, max| Err(ConfigError::LimitTooLarge { limit, max });
    assert_eq!(Exact::new(0), Err(ConfigError::EmptyBlocks));
    assert!(BlockCodec::exact(0).is_err());
    assert!(Exact::new(usize::MAX).is_err());
    assert_eq!(LengthPrefix::bytes(0), Err(ConfigError::Width { width: 0 }));
    assert_eq!(LengthPrefix::bytes(9), Err(ConfigError::Width { width: 9 }));
    assert!(LengthPrefix::u8().max_block_len(255).is_ok());
    assert_eq!(LengthPrefix::u8().max_block_len(256), too_large(256, 255));
    assert_eq!(
        LengthPrefix::u16().max_block_len(65_536),
        too_large(65_536, 65_535)
    );
    // The error names the largest possible limit.
    let most = match Varint::new().max_block_len(usize::MAX) {
        Err(ConfigError::LimitTooLarge { max, .. }) => usize::try_from(max).unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(Varint::new().max_block_len(most).is_ok());
    assert!(Varint::new().max_block_len(most + 1).is_err());
    assert!(LengthPrefix::u64().max_block_len(most).is_ok());
    assert!(LengthPrefix::u64().max_block_len(most + 1).is_err());
    assert!(Exact::new(most).is_ok());
    assert!(Exact::new(most + 1).is_err());

    // A default limit makes room for a header that is counted; an explicit limit is refused.
    let full = LengthPrefix::u8().max_block_len(255).unwrap();
    assert_eq!(full.including_header(), too_large(255, 254));
    let by_default = LengthPrefix::u8().including_header().unwrap();
    assert_eq!(by_default.block_lens(), 0..=254);
    assert_eq!(by_default.max_block_len(255), too_large(255, 254));
}

#[test]
fn malformed_header_is_refused_at_the_first_byte_that_proves_it() {
    fn check<F: Framing + Copy>(framing: F, wire: &[u8], reason: &str) {
        let mut codec = BlockCodec::new(framing);
        let mut buffer = BytesMut::new();
        let (last, before) = wire.split_last().unwrap();
        for byte in before {
            buffer.put_u8(*byte);
            assert!(codec.decode(&mut buffer).unwrap().is_none());
        }
        buffer.put_u8(*last);
        let error = codec.decode(&mut buffer).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "invalid header in block 0, which begins at byte 0: {reason} (header: {})",
                HeaderBytes::new(wire)
            )
        );
    }
    let endless = [0xff; 10];
    check(
        Varint::new(),
        &endless,
        "its varint does not end within 10 bytes",
    );
    let overflowing = [&[0xff; 9][..], &[0x02]].concat();
    check(Varint::new(), &overflowing, "its varint overflows 64 bits");
    let longer = "its varint is longer than it needs to be";
    let minimal = Varint::new().minimal();
    check(minimal, &[0x80, 0], longer);
    check(minimal, &[0xff, 0xff, 0], longer);
    check(minimal, &[&[0x80; 9][..], &[0]].concat(), longer);
    check(minimal, &endless, "its varint does not end within 10 bytes");
    check(minimal, &overflowing, "its varint overflows 64 bits");
    let short = "its length is less than the prefix it includes";
    check(
        LengthPrefix::u32().including_header().unwrap(),
        &[0, 0, 0, 3],
        short,
    );
    check(LengthPrefix::u8().including_header().unwrap(), &[0], short);
    let not_it = "it does not start with WB, version 1";
    check(Magic, b"WX", not_it);
    check(Magic, b"WB\x02", not_it);
}

#[test]
fn varint_accepts_a_longer_form_than_needed() {
    let io = Scripted::default().send(&[0x80, 0x00, 0x81, 0x80, 0x00, b'x']);
    let (blocks, error) = collect(&mut Framed::new(io, BlockCodec::new(Varint::new())));
    assert!(error.is_none());
    assert_eq!(blocks, [&b""[..], b"x"]);
    let unended = Varint::new().decode_header(&[0x80, 0x80]);
    assert_eq!(unended, Ok(Header::Incomplete { at_least: 3 }));
}

#[test]
fn minimal_varint_reads_every_length_that_it_writes() {
    let minimal = Varint::new().minimal();
    for len in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::MAX >> 1, u64::MAX] {
        let mut header = Vec::new();
        minimal.encode_header(len, &mut header);
        let complete = Header::Complete {
            stripped: header.len(),
            block_len: len,
        };
        assert_eq!(minimal.decode_header(&header), Ok(complete), "{header:?}");
    }
    // Zero bits are needed in the only byte, and in a byte that is not the last.
    let io = Scripted::default().send(&[0, 0x80, 0x01]).send(&[7; 128]);
    let (blocks, error) = collect(&mut Framed::new(io, BlockCodec::new(minimal)));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(blocks, [&b""[..], &[7; 128]]);
    check_framing(&minimal).unwrap();
    assert_eq!(
        minimal.max_block_len(300).unwrap().minimal(),
        minimal.max_block_len(300).unwrap()
    );
}

/// Says that its header of `header_len` bytes is complete, however few bytes have arrived.
#[derive(Clone, Copy)]
struct Hasty {
    header_len: usize,
}

impl Framing for Hasty {
    fn block_lens(&self) -> RangeInclusive<u64> {
        0..=100
    }

    fn decode_header(&self, _front: &[u8]) -> Result<Header, InvalidHeader> {
        Ok(Header::Complete {
            stripped: self.header_len,
            block_len: 2,
        })
    }

    fn encode_header(&self, _block_len: u64, dst: &mut impl BufMut) {
        dst.put_bytes(0, self.header_len);
    }
}

#[test]
fn header_called_complete_before_it_has_arrived_is_an_error() {
    hasty_is_an_error(8);
}

#[test]
fn header_called_longer_than_any_memory_is_an_error() {
    hasty_is_an_error(usize::MAX);
}

#[track_caller]
fn hasty_is_an_error(header_len: usize) {
    let framed = || {
        let io = Scripted::default().send(b"abc");
        Framed::new(io, BlockCodec::new(Hasty { header_len }))
    };
    let (blocks, owned) = collect(&mut framed());
    assert!(blocks.is_empty());
    let lent = ready(recv_blocks(&mut framed()).next()).map(drop);
    for error in [owned.unwrap(), lent.unwrap_err()] {
        if let BlockError::Truncated { received, .. } = error {
            assert!(received <= 3, "{error}");
        }
    }
}

/// Reads two bytes of header, which always announce two more, and writes `written` bytes of header.
#[derive(Clone, Copy)]
struct Mistaken {
    written: usize,
}

impl Framing for Mistaken {
    fn block_lens(&self) -> RangeInclusive<u64> {
        0..=100
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        Ok(match front {
            [] | [_] => Header::Incomplete { at_least: 2 },
            _ => Header::Complete {
                stripped: 2,
                block_len: 2,
            },
        })
    }

    fn encode_header(&self, _block_len: u64, dst: &mut impl BufMut) {
        dst.put_bytes(b'h', self.written);
    }
}

#[test]
fn header_that_the_peer_would_misread_is_not_sent() {
    for (written, block, told) in [(2, "abc", Some(2)), (3, "ab", None), (1, "ab", None)] {
        let expect = |error: BlockError| {
            assert!(
                matches!(error, BlockError::WrongHeader { announced, actual, index: 0, .. }
                    if announced == told && actual == block.len() as u64),
                "{written}: {error:?}"
            );
        };
        let codec = || BlockCodec::new(Mistaken { written });
        let block = Bytes::from(block);

        let mut transport = BlockTransport::new(Scripted::default(), codec());
        expect(ready(transport.feed(block.clone())).unwrap_err());
        expect(ready(transport.feed([&block[..1], &block[1..]])).unwrap_err());
        ready(transport.flush()).unwrap();
        assert_eq!(transport.get_ref().written, b"");

        let mut framed = Framed::new(Scripted::default(), codec());
        let source = stream::iter([block.clone()]);
        expect(ready(send_blocks(&mut framed, source)).unwrap_err());
        expect(ready(framed.feed(block)).unwrap_err());
        ready(framed.flush()).unwrap();
        assert_eq!(framed.get_ref().written, b"");
    }

    let mut framed = Framed::new(
        Scripted::default(),
        BlockCodec::new(Mistaken { written: 2 }),
    );
    ready(framed.send(Bytes::from("ab"))).unwrap();
    assert_eq!(framed.get_ref().written, b"hhab");
}

#[test]
fn no_block_follows_a_framing_error() {
    // A good block stands on either side of the bad header.
    let good = wire(Magic, &[Bytes::from_static(b"good")]);
    let bytes = [&good[..], b"BAD", &good].concat();
    for chunk in [1, 10, usize::MAX] {
        let io = || Scripted::chunked(&bytes, chunk, true);
        let mut framed = Framed::new(io(), BlockCodec::new(Magic));
        assert_eq!(ready(framed.next()).unwrap().unwrap(), &b"good"[..]);
        for _ in 0..20 {
            let Some(again) = ready(framed.next()) else {
                continue;
            };
            let error = again.unwrap_err();
            let same = matches!(
                error,
                BlockError::InvalidHeader {
                    index: 1,
                    offset: 10,
                    ..
                }
            );
            assert!(same, "{error:?}");
        }

        // The same if blocks are lent, and for a new receiver on the same stream.
        let mut framed = Framed::new(io(), BlockCodec::new(Magic));
        let mut receiving = recv_blocks(&mut framed);
        assert_eq!(ready(receiving.next()).unwrap().unwrap(), b"good");
        for _ in 0..3 {
            assert!(ready(receiving.next()).is_err());
        }
        drop(receiving);
        for _ in 0..20 {
            if let Ok(Some(block)) = ready(recv_blocks(&mut framed).next()) {
                panic!("a block out of nowhere: {block:?}");
            }
        }
    }

    // A block that was reported truncated is not delivered later, even if the rest arrives.
    for lent in [false, true] {
        let mut framed = Framed::new(Scripted::default().send(&good[..8]), BlockCodec::new(Magic));
        let error = match lent {
            false => ready(framed.next()).unwrap().map(drop),
            true => ready(recv_blocks(&mut framed).next()).map(drop),
        };
        assert!(matches!(error, Err(BlockError::Truncated { .. })));
        *framed.get_mut() = Scripted::default().send(&good[8..]);
        for _ in 0..20 {
            let next = ready(framed.next());
            assert!(!matches!(next, Some(Ok(_))), "{next:?}");
        }
    }
}

#[test]
fn bytes_after_a_framing_error_are_not_kept() {
    let bytes = [&b"BAD"[..], &[b'W'; MIB]].concat();
    for lent_first in [false, true] {
        let io = Scripted::chunked(&bytes, 4 * KIB, false);
        let mut framed = Framed::new(io, BlockCodec::new(Magic));
        if lent_first {
            assert!(ready(recv_blocks(&mut framed).next()).is_err());
        }
        let mut polls = 0;
        while polls < 1_000 {
            assert!(!matches!(ready(framed.next()), Some(Ok(_))));
            assert!(framed.read_buffer().capacity() <= 64 * KIB);
            polls += 1;
        }
        assert_eq!(
            framed.get_ref().rooms.last().unwrap().1,
            0,
            "all of it was read"
        );
    }
}

#[test]
fn blocks_before_a_bad_header_in_the_same_buffer_are_delivered_first() {
    let blocks = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    let bytes = [&wire(Magic, &blocks)[..], b"BAD"].concat();
    let io = Scripted::default().send(&bytes);
    let mut transport = BlockTransport::new(io, BlockCodec::new(Magic));
    let batch = ready(transport.recv_batch()).unwrap().unwrap();
    assert_eq!(batch.collect::<Vec<_>>(), [b"one", b"two"]);
    let error = ready(transport.recv_batch()).unwrap_err();
    assert!(matches!(error, BlockError::InvalidHeader { index: 2, .. }));
}

/// A good block, then bytes that `Magic` refuses and that are two blocks behind a `u8`.
const REFUSED: &[u8] = b"WB\x01\0\0\x04good\x03one\x03two";

/// Makes a receiver of `REFUSED` with `$make`, and receives until the error.
macro_rules! refused_by {
    ($make:expr) => {{
        let mut from = $make(
            Scripted::default().send(REFUSED).then_silent(),
            BlockCodec::new(Magic),
        );
        assert_eq!(ready(from.next()).unwrap().unwrap(), "good");
        ready(from.next()).unwrap().unwrap_err();
        from
    }};
}

#[test]
fn failed_decoder_leaves_the_buffer_unchanged() {
    fn check<F: Framing>(framing: F, bytes: &[u8]) {
        for room in [0, 100] {
            let mut buffer = BytesMut::with_capacity(bytes.len() + room);
            buffer.extend_from_slice(bytes);
            let mut codec = BlockCodec::new(framing.clone());
            for _ in 0..3 {
                codec.decode(&mut buffer).unwrap_err();
                assert_eq!(buffer, bytes);
            }
            codec.decode_eof(&mut buffer).unwrap_err();
            assert_eq!(buffer, bytes);
        }
    }
    check(Magic, b"BAD");
    check(Magic, b"B");
    check(LengthPrefix::u32(), b"GET / HTTP/1.1\r\n");

    let mut truncated = BytesMut::from(&b"\0\0\0\x05hell"[..]);
    let mut codec = BlockCodec::length_prefixed();
    for _ in 0..3 {
        codec.decode_eof(&mut truncated).unwrap_err();
        assert_eq!(truncated, &b"\0\0\0\x05hell"[..]);
    }
}

#[test]
fn another_framing_reads_what_the_first_one_refused() {
    fn u8s(codec: BlockCodec<Magic>) -> BlockCodec<LengthPrefix> {
        codec.with_framing(LengthPrefix::u8())
    }
    fn check<S>(mut blocks: S)
    where
        S: futures::Stream<Item = Result<BytesMut, BlockError>> + Unpin,
    {
        assert_eq!(ready(blocks.next()).unwrap().unwrap(), "one");
        assert_eq!(ready(blocks.next()).unwrap().unwrap(), "two");
    }
    check(refused_by!(BlockTransport::new).map_codec(u8s));
    check(refused_by!(Framed::new).map_codec(u8s));
    // After the `None` that follows the error, too.
    let mut transport = refused_by!(BlockTransport::new);
    assert!(ready(transport.next()).is_none());
    check(transport.map_codec(u8s));
    let mut framed = refused_by!(Framed::new);
    assert!(ready(framed.next()).is_none());
    check(framed.map_codec(u8s));

    // The same if the block is lent; the position goes on.
    let mut transport = refused_by!(BlockTransport::new).map_codec(u8s);
    let mut lent = recv_blocks(&mut transport);
    assert_eq!(ready(lent.next()).unwrap().unwrap(), b"one");
    drop(lent);
    transport.codec_mut().set_max_decode_len(2).unwrap();
    let error = ready(transport.next()).unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::TooLarge {
                index: 2,
                offset: 14,
                ..
            }
        ),
        "{error:?}"
    );

    // The same after an error of a receiver that lends.
    let io = Scripted::default().send(b"\x03one").then_silent();
    let mut transport = BlockTransport::new(io, BlockCodec::new(Magic));
    assert!(ready(recv_blocks(&mut transport).next()).is_err());
    let mut transport = transport.map_codec(u8s);
    assert_eq!(ready(transport.next()).unwrap().unwrap(), "one");
}

#[test]
fn framed_polled_after_an_error_keeps_the_refused_bytes() {
    for len in [1, 8 * KIB, 300 * KIB] {
        // The refused bytes fill the buffer. Further polls may double it, and no more.
        let mut parts = tokio_util::codec::FramedParts::new::<Bytes>(
            Scripted::chunked(&vec![b'W'; MIB], 4 * KIB, false),
            BlockCodec::new(Magic),
        );
        parts.read_buf = BytesMut::from(&vec![b'x'; len][..]);
        let mut framed = Framed::from_parts(parts);
        ready(framed.next()).unwrap().unwrap_err();
        let refused = vec![b'x'; len];
        assert!(framed.read_buffer()[..] == refused[..], "{len}");
        let capacity = framed.read_buffer().capacity();
        for _ in 0..1_000 {
            assert!(!matches!(ready(framed.next()), Some(Ok(_))));
            assert!(framed.read_buffer()[..] == refused[..], "{len}");
            assert!(framed.read_buffer().capacity() <= 2 * capacity + 64);
        }
        let all_read = framed.get_ref().rooms.last().unwrap().1 == 0;
        assert!(all_read);

        // Later bytes were dropped, so another framing cannot go on.
        let mut framed = framed.map_codec(|codec| codec.with_framing(LengthPrefix::u8()));
        let error = ready(framed.next()).unwrap().unwrap_err();
        assert!(
            matches!(error, BlockError::InvalidHeader { index: 0, .. }),
            "{error}"
        );
    }
}

/// Panics inside the header of a block of 7 bytes while it writes it, or while it reads it back.
#[derive(Clone, Copy)]
struct Panicky {
    reading: bool,
}

impl Framing for Panicky {
    fn block_lens(&self) -> RangeInclusive<u64> {
        0..=0xffff
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        assert!(!self.reading || !front.starts_with(&[0, 7]), "read");
        LengthPrefix::u16().decode_header(front)
    }

    fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
        dst.put_u8((block_len >> 8) as u8);
        assert!(self.reading || block_len != 7, "written");
        dst.put_u8(block_len as u8);
    }
}

#[test]
fn panicking_encode_header_queues_nothing() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let panics = |act: &mut dyn FnMut()| {
        assert!(catch_unwind(AssertUnwindSafe(act)).is_err());
    };
    let (good, bad) = (Bytes::from("good"), Bytes::from("7 bytes"));
    let expected = b"\0\x04good\0\x04good";
    for reading in [false, true] {
        let codec = || BlockCodec::new(Panicky { reading });
        let mut transport = BlockTransport::new(Scripted::default(), codec());
        ready(transport.feed(good.clone())).unwrap();
        panics(&mut || ready(transport.feed(bad.clone())).unwrap());
        panics(&mut || ready(transport.feed(["7 ", "bytes"])).unwrap());
        ready(transport.send(good.clone())).unwrap();
        assert_eq!(transport.get_ref().written, expected);

        let mut framed = Framed::new(Scripted::default(), codec());
        ready(framed.feed(good.clone())).unwrap();
        panics(&mut || ready(framed.feed(bad.clone())).unwrap());
        ready(framed.send(good.clone())).unwrap();
        assert_eq!(framed.get_ref().written, expected);

        let mut framed = Framed::new(Scripted::default(), codec());
        let source = || stream::iter([good.clone(), bad.clone()]);
        panics(&mut || drop(ready(send_blocks(&mut framed, source()))));
        ready(framed.send(good.clone())).unwrap();
        assert_eq!(framed.get_ref().written, expected);
    }
}

/// A `u8` before each block. A clone never finds it; with a `period`, only every `period`th look finds it.
struct Forgetful {
    is_clone: bool,
    period: Option<u32>,
    looks: std::cell::Cell<u32>,
}

impl Forgetful {
    fn new(period: Option<u32>) -> Self {
        Self {
            is_clone: false,
            period,
            looks: 0.into(),
        }
    }
}

impl Clone for Forgetful {
    fn clone(&self) -> Self {
        Self {
            is_clone: true,
            ..Self::new(self.period)
        }
    }
}

impl Framing for Forgetful {
    fn block_lens(&self) -> RangeInclusive<u64> {
        0..=255
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        if !front.is_empty() {
            self.looks.set(self.looks.get() + 1);
        }
        match self.period {
            None if self.is_clone => Ok(Header::Incomplete { at_least: 100 }),
            Some(period) if self.looks.get() % period != 0 => {
                Ok(Header::Incomplete { at_least: 100 })
            }
            _ => LengthPrefix::u8().decode_header(front),
        }
    }

    fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
        dst.put_u8(block_len as u8);
    }
}

#[test]
fn framing_whose_clone_reads_differently_is_an_error() {
    let io = Scripted::default().send(b"\x03one\x03two");
    let mut transport = BlockTransport::new(io, BlockCodec::new(Forgetful::new(None)));
    // A batch reads with a clone, which finds no block.
    assert_eq!(ready(transport.recv_batch()).unwrap().unwrap().count(), 0);
    let error = ready(transport.recv_batch()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid header in block 0, which begins at byte 0: it reads otherwise when it is read again \
         (header: 03 6f 6e 65 03 74 77 6f)",
    );
    assert!(ready(transport.next()).unwrap().is_err());
    assert_eq!(transport.read_buffer(), &b"\x03one\x03two"[..]);
}

#[test]
fn framing_that_contradicts_itself_causes_no_false_end() {
    for period in 2..8 {
        let transport = || {
            let io = Scripted::default().send(b"\x03one\x03two").then_silent();
            BlockTransport::new(io, BlockCodec::new(Forgetful::new(Some(period))))
        };
        let mut blocks = transport();
        for _ in 0..100 {
            match blocks.recv().now_or_never() {
                Some(Ok(None)) => panic!("{period}: an end out of nowhere"),
                Some(Err(_)) => break,
                Some(Ok(Some(_))) | None => {}
            }
        }
        let mut blocks = transport();
        let mut empty = 0;
        for _ in 0..100 {
            match blocks.recv_batch().now_or_never() {
                Some(Ok(None)) => panic!("{period}: an end out of nowhere"),
                Some(Ok(Some(batch))) => empty += u32::from(batch.count() == 0),
                Some(Err(_)) => break,
                None => {}
            }
        }
        assert!(empty <= 1, "{period}: {empty} empty batches");
    }
}

#[test]
fn endless_header_is_refused_at_the_longest_header_of_its_framing() {
    for most in [1, 10, 255, 64 * KIB, usize::MAX] {
        let longest = most.min(64 * KIB);
        let io = Scripted::chunked(&vec![b'x'; longest + 10], 1_000.min(longest), true);
        let mut transport =
            BlockTransport::new(io.then_silent(), BlockCodec::new(Line::up_to(most)));
        let error = ready(transport.next()).unwrap().unwrap_err();
        assert!(
            matches!(error, BlockError::InvalidHeader { index: 0, .. }),
            "{error:?}"
        );
        assert!(transport.read_buffer().len() <= longest + 1_000, "{most}");

        let line = [&vec![b'x'; longest - 1][..], b"\n"].concat();
        let io = Scripted::chunked(&line, 1_000, true);
        let mut transport = BlockTransport::new(io, BlockCodec::new(Line::up_to(most)));
        assert_eq!(ready(transport.next()).unwrap().unwrap(), line, "{most}");
    }
}

#[test]
fn no_header_exceeds_the_max_header_len_of_its_framing() {
    fn check<F: Framing>(Case { name, framing, .. }: Case<F>) {
        check_framing(&framing).unwrap();
        let longest = *framing.block_lens().end();
        let mut header = Vec::new();
        framing.encode_header(longest, &mut header);
        assert!(header.len() <= framing.max_header_len(), "{name}");
        assert!(
            framing.max_header_len() <= 10 || name == "a user's own",
            "{name}"
        );
    }
    with_each_framing!(|case| check(case));
}

#[test]
fn check_framing_rejects_a_header_longer_than_max_header_len() {
    #[derive(Clone)]
    struct Longer;
    impl Framing for Longer {
        fn block_lens(&self) -> RangeInclusive<u64> {
            0..=255
        }
        fn max_header_len(&self) -> usize {
            1
        }
        fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
            Ok(match *front {
                [_, len, ..] => Header::Complete {
                    stripped: 2,
                    block_len: len.into(),
                },
                _ => Header::Incomplete { at_least: 2 },
            })
        }
        fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
            dst.put_slice(&[0, block_len as u8]);
        }
    }
    let violation = check_framing(&Longer).unwrap_err().to_string();
    assert!(
        violation.contains("not longer than its framing allows"),
        "{violation}"
    );
}

#[test]
fn default_codec_has_a_big_endian_u32_prefix() {
    let mut wire = BytesMut::new();
    let mut codec = BlockCodec::default();
    codec.encode(Bytes::from("hello"), &mut wire).unwrap();
    assert_eq!(wire, &b"\0\0\0\x05hello"[..]);
    let mut codec = BlockCodec::from(LengthPrefix::default());
    assert_eq!(codec.decode(&mut wire).unwrap().unwrap(), "hello");
}

#[test]
fn invalid_header_prints_its_reason() {
    let text = InvalidHeader("it is upside down").to_string();
    assert_eq!(text, "invalid header: it is upside down");
}
