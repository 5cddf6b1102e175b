//! Kept headers: a header that is the front of its block, received and sent.

use std::{cell::Cell, ops::RangeInclusive, rc::Rc};

use bytes::{BufMut, Bytes};
use futures::{SinkExt, stream};
use testing::{KIB, MIB, Scripted, WAYS, ready};
use tokio_util::codec::Framed;
use wholeblock::{
    AnyFraming, BlockCodec, BlockError, BlockTransport, Framing, Header, InvalidHeader,
    LengthField, send_blocks,
};

/// PostgreSQL's messages: a tag, then a length that counts itself.
fn tagged() -> LengthField {
    let config = LengthField::config().offset(1).adjustment(-4);
    config.keep_header().build().unwrap()
}

/// HTTP/2's frames without their length: the header's type, flags and stream are kept, 6 of its 9 bytes.
fn typed() -> LengthField {
    let config = LengthField::config().width(3).adjustment(6).header_len(9);
    config.strip(3).build().unwrap()
}

/// A message of `len` bytes after its tag and its length.
fn message(tag: u8, len: usize) -> Bytes {
    let mut message = vec![tag];
    message.extend_from_slice(&(len as u32 + 4).to_be_bytes());
    message.extend((0..len).map(|at| (at * 7) as u8));
    message.into()
}

/// A frame of `len` bytes after the kept part of its header.
fn frame(kind: u8, len: usize) -> Bytes {
    let mut frame = vec![kind, 0xf1, 0, 0, 0, 5];
    frame.extend((0..len).map(|at| (at * 11) as u8));
    frame.into()
}

/// Lengths of short blocks, an empty one, and some that leave without a copy.
const LENS: [usize; 7] = [5, 0, 300, 5 * KIB, 1, 70 * KIB, MIB];

fn check(framing: LengthField, blocks: &[Bytes], wire: &[u8]) {
    for way in WAYS {
        for chunk in [61, 40_001, usize::MAX] {
            let io = Scripted::chunked(wire, chunk, true);
            let (received, error) = way.receive(io, BlockCodec::new(framing));
            assert!(error.is_none(), "{way:?}, {chunk}: {error:?}");
            assert!(received == blocks, "{way:?}, {chunk}");
        }
    }

    let mut transport = BlockTransport::new(Scripted::default(), BlockCodec::new(framing));
    for block in blocks {
        ready(transport.feed(block.clone())).unwrap();
    }
    ready(transport.flush()).unwrap();
    assert!(transport.get_ref().written == wire, "BlockTransport");

    let mut framed = Framed::new(Scripted::default(), BlockCodec::new(framing));
    let source = stream::iter(blocks.to_vec());
    ready(send_blocks(&mut framed, source)).unwrap();
    assert!(framed.get_ref().written == wire, "send_blocks");
}

#[test]
fn a_kept_header_is_received_and_sent_as_the_front_of_its_block() {
    let messages: Vec<_> = LENS.iter().map(|&len| message(b'Q', len)).collect();
    check(tagged(), &messages, &messages.concat());
}

#[test]
fn sender_writes_the_part_of_a_header_that_is_not_kept() {
    let frames: Vec<_> = LENS.iter().map(|&len| frame(1, len)).collect();
    let on_wire = |frame: &Bytes| {
        let len = (frame.len() as u32 - 6).to_be_bytes();
        [&len[1..], frame].concat()
    };
    let wire: Vec<_> = frames.iter().flat_map(on_wire).collect();
    check(typed(), &frames, &wire);
}

/// The header is 80 bytes of content and then the length.
#[test]
fn long_kept_header_is_received_and_checked_before_it_is_sent() {
    let config = LengthField::config().offset(80).keep_header();
    let framing = config.build().unwrap();
    let blocks = [0, 1, 300, 70 * KIB].map(|len: usize| {
        let mut block = vec![b'm'; 80];
        block.extend_from_slice(&(len as u32).to_be_bytes());
        block.resize(84 + len, b'.');
        Bytes::from(block)
    });
    check(framing, &blocks, &blocks.concat());

    let mut lie = blocks[2].to_vec();
    lie[83] += 1;
    let mut transport = BlockTransport::new(Scripted::default(), BlockCodec::new(framing));
    let error = ready(transport.feed(Bytes::from(lie))).unwrap_err();
    assert!(
        matches!(error, BlockError::WrongHeader { actual: 384, .. }),
        "{error:?}"
    );
}

/// Never finds the end of a header, and records how far it has looked.
#[derive(Clone)]
struct Endless {
    most: usize,
    seen: Rc<Cell<usize>>,
}

impl Framing for Endless {
    fn block_lens(&self) -> RangeInclusive<u64> {
        0..=1_000_000
    }

    fn max_header_len(&self) -> usize {
        self.most
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        self.seen.set(self.seen.get().max(front.len()));
        let at_least = front.len() + 1;
        Ok(Header::Incomplete { at_least })
    }

    fn encode_header(&self, _: u64, _: &mut impl BufMut) {}
}

#[test]
fn sender_reads_back_no_more_than_the_longest_header() {
    let lens = [1, 64, 65, 300, 301, 64 * KIB, 64 * KIB + 1, 1_000_000];
    let cases = lens.map(|len| [(len, 300), (len, usize::MAX)]);
    for (len, most) in cases.into_iter().flatten() {
        let seen = Rc::default();
        let framing = Endless { most, seen };
        let codec = BlockCodec::new(framing.clone());
        let mut blocks = BlockTransport::new(Scripted::default(), codec);
        let block = vec![b'.'; len];
        let expect = |error: BlockError| {
            let announced = match error {
                BlockError::WrongHeader { announced, .. } => announced,
                error => panic!("{error:?}"),
            };
            assert_eq!(announced, None);
            assert_eq!(framing.seen.take(), len.min(most).min(64 * KIB));
        };
        expect(ready(blocks.feed(&block)).unwrap_err());
        let (front, rest) = block.split_at(len / 2);
        let rest = Bytes::copy_from_slice(rest);
        expect(ready(blocks.feed((front, rest))).unwrap_err());
        assert_eq!(blocks.queued(), 0);
    }
}

#[test]
fn block_that_contradicts_its_kept_header_is_not_sent() {
    for len in [5, 70 * KIB] {
        let mut lie = message(b'Q', len).to_vec();
        lie[4] ^= 1;
        let lie = Bytes::from(lie);
        let whole = message(b'P', 10);
        let expect = |error: BlockError| {
            assert!(
                matches!(error, BlockError::WrongHeader { announced: Some(announced), actual, index: 1, .. }
                    if announced == ((len as u64 + 4) ^ 1) + 1 && actual == len as u64 + 5),
                "{error:?}"
            );
        };

        let mut transport = BlockTransport::new(Scripted::default(), BlockCodec::new(tagged()));
        ready(transport.feed(whole.clone())).unwrap();
        expect(ready(transport.feed(lie.clone())).unwrap_err());
        ready(transport.send(whole.clone())).unwrap();
        assert_eq!(transport.get_ref().written, [&whole[..], &whole].concat());

        let mut transport = BlockTransport::new(Scripted::default(), BlockCodec::new(tagged()));
        let source = stream::iter([whole.clone(), lie.clone(), whole.clone()]);
        expect(ready(send_blocks(&mut transport, source)).unwrap_err());
        assert_eq!(transport.get_ref().written, whole);

        let mut framed = Framed::new(Scripted::default(), BlockCodec::new(tagged()));
        ready(framed.feed(whole.clone())).unwrap();
        expect(ready(framed.feed(lie)).unwrap_err());
        ready(framed.flush()).unwrap();
        assert_eq!(framed.get_ref().written, whole);
    }
}

#[test]
fn any_framing_refuses_a_block_that_contradicts_its_header() {
    let framing = AnyFraming::from(tagged());
    let mut transport = BlockTransport::new(Scripted::default(), BlockCodec::new(framing));
    let error = ready(transport.feed("Q\0\0\0\x05")).unwrap_err();
    assert!(
        matches!(error, BlockError::WrongHeader { actual: 5, .. }),
        "{error:?}"
    );
}

#[test]
fn block_shorter_than_its_kept_header_is_refused() {
    let mut transport = BlockTransport::new(Scripted::default(), BlockCodec::new(tagged()));
    let error = ready(transport.send(Bytes::from("Q\0\0\0"))).unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::WrongSize {
                min: 5,
                actual: 4,
                ..
            }
        ),
        "{error:?}"
    );
    // The peer's length leaves no room for its own header.
    for way in WAYS {
        let io = Scripted::default().send(b"Q\0\0\0\x03");
        let (blocks, error) = way.receive(io, BlockCodec::new(tagged()));
        assert!(blocks.is_empty());
        assert!(
            matches!(error, Some(BlockError::InvalidHeader { .. })),
            "{way:?}: {error:?}"
        );
    }
}
