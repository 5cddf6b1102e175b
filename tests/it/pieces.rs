//! Blocks in several pieces, in every form and by every way of sending, and which pieces are copied.

use std::{
    cell::Cell,
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::{Buf, Bytes, BytesMut};
use futures::{FutureExt, SinkExt, stream};
use testing::{Scripted, numbered, prefixed, ready, transport, wire};
use tokio_util::codec::Framed;
use wholeblock::internals::{CHAIN_THRESHOLD as CHAIN_FROM, FULL_WRITE, MAX_SLICES};
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, Framing, InOut, LengthField, LengthPrefix, Payload,
    Pieces, send_blocks,
};

const LARGE: usize = 2 * CHAIN_FROM;

/// The block of `bytes` behind a u32.
fn one(bytes: &[u8]) -> Vec<u8> {
    wire(LengthPrefix::u32(), &[Bytes::copy_from_slice(bytes)])
}

/// Sends a payload in every way, between two other blocks. Asserts that it is one block of the bytes of
/// `pieces`, and that a vectored transport writes the large `shared` pieces, and no others, without a copy.
#[track_caller]
fn check<P: Payload>(payload: impl Fn() -> P, pieces: &[&[u8]], shared: &[&[u8]]) {
    let expected = [one(b"before"), one(&pieces.concat()), one(b"after")].concat();
    let is_right = |io: &Scripted, vectored: bool| {
        assert_eq!(io.written, expected);
        for piece in pieces.iter().filter(|piece| piece.len() >= CHAIN_FROM) {
            let is_shared = shared
                .iter()
                .any(|shared| shared.as_ptr() == piece.as_ptr());
            let leaves = io.addresses.contains(&(piece.as_ptr() as usize));
            assert_eq!(leaves, vectored && is_shared, "{} bytes", piece.len());
        }
    };
    for vectored in [true, false] {
        let io = || Scripted::default().vectored(vectored);

        let mut fed = transport(io());
        ready(fed.feed("before")).unwrap();
        ready(fed.feed(payload())).unwrap();
        ready(fed.feed("after")).unwrap();
        ready(fed.flush()).unwrap();
        is_right(fed.get_ref(), vectored);

        let mut sent = transport(io());
        ready(sent.send("before")).unwrap();
        ready(sent.send(payload())).unwrap();
        ready(sent.send("after")).unwrap();
        is_right(sent.get_ref(), vectored);

        let transfer = || stream::iter([payload()]);
        let mut by_transfer = transport(io());
        ready(by_transfer.feed("before")).unwrap();
        let stats = ready(send_blocks(&mut by_transfer, transfer())).unwrap();
        ready(by_transfer.send("after")).unwrap();
        is_right(by_transfer.get_ref(), vectored);
        let len = pieces.concat().len() as u64;
        assert_eq!(
            (stats.blocks, stats.payload_bytes, stats.wire_bytes),
            (1, len, len + 4)
        );

        let mut by_framed = prefixed(io());
        ready(by_framed.feed(Bytes::from("before"))).unwrap();
        let stats = ready(send_blocks(&mut by_framed, transfer())).unwrap();
        ready(by_framed.send(Bytes::from("after"))).unwrap();
        is_right(by_framed.get_ref(), vectored);
        assert_eq!((stats.blocks, stats.payload_bytes), (1, len));
    }
}

#[test]
fn pieces_of_any_form_are_one_block_and_large_owned_ones_are_shared() {
    let header = [9_u8; 9];
    for len in [0, 1, CHAIN_FROM - 1, CHAIN_FROM, 20_000] {
        let [a, b, c] = numbered(&[len, LARGE, len]).try_into().unwrap();
        let pieces: &[&[u8]] = &[&a, &b, &c];
        let (owned, borrowed) = (|| [a.clone(), b.clone(), c.clone()], [&a[..], &b, &c]);
        check(owned, pieces, pieces);
        check(|| owned().to_vec(), pieces, pieces);
        check(|| VecDeque::from(owned()), pieces, pieces);
        check(|| owned().map(Some).map(Option::unwrap), pieces, pieces);
        check(|| [&a, &b, &c], pieces, pieces);
        check(|| (a.clone(), b.clone(), c.clone()), pieces, pieces);
        check(
            || a.clone().chain(b.clone()).chain(c.clone()),
            pieces,
            pieces,
        );
        check(|| ([a.clone(), b.clone()], vec![&c]), pieces, pieces);
        check(|| borrowed, pieces, &[]);
        check(|| borrowed.to_vec(), pieces, &[]);
        check(|| (&a[..], &b[..], &c[..]), pieces, &[]);

        check(|| (header, b.clone()), &[&header, &b], &[&b]);
        check(|| (&header, a.clone()), &[&header, &a], &[&a]);
        check(|| (&a[..], b.clone()), &[&a, &b], &[&b]);
        check(|| (b.clone(), &a[..]), &[&b, &a], &[&b]);
        check(
            || (&header[..], &b[..], a.clone()),
            &[&header, &b, &a],
            &[&a],
        );
        check(|| b.clone().chain(&a[..]), &[&b, &a], &[&b]);
    }
}

#[test]
fn owned_pieces_of_other_types_leave_without_a_copy() {
    let piece = |byte| vec![byte; LARGE];
    let text = || "t".repeat(LARGE);
    let mut blocks = transport(Scripted::default());
    let (vec, boxed, string, buffer) = (
        piece(1),
        piece(2).into_boxed_slice(),
        text(),
        BytesMut::from(&piece(3)[..]),
    );
    let addresses = [
        vec.as_ptr(),
        boxed.as_ptr(),
        string.as_ptr(),
        buffer.as_ptr(),
    ];
    ready(blocks.send(((vec, boxed), (string, buffer)))).unwrap();
    let io = blocks.get_ref();
    let text = text().into_bytes();
    assert_eq!(
        io.written,
        one(&[piece(1), piece(2), text, piece(3)].concat())
    );
    for address in addresses {
        assert!(io.addresses.contains(&(address as usize)));
    }
}

#[test]
fn no_pieces_and_pieces_of_no_bytes_are_an_empty_block() {
    check(<[Bytes; 0]>::default, &[], &[]);
    check(Vec::<Bytes>::new, &[], &[]);
    check(VecDeque::<(&str, Bytes)>::new, &[], &[]);
    check(|| vec![Bytes::new(); 3], &[], &[]);
    check(|| ("", [Bytes::new()], String::new()), &[], &[]);
    let mut exact = BlockTransport::new(Scripted::default(), BlockCodec::exact(1).unwrap());
    let error = ready(exact.send(["", ""])).unwrap_err();
    assert!(
        matches!(error, BlockError::WrongSize { actual: 0, .. }),
        "{error}"
    );
}

#[test]
fn thousand_tiny_pieces_leave_as_one_slice_and_large_ones_in_full_writes() {
    let tiny: Vec<_> = (0..1_000_u32).map(u32::to_le_bytes).collect();
    let mut blocks = transport(Scripted::default());
    ready(blocks.send(tiny.clone())).unwrap();
    assert_eq!(blocks.get_ref().written, one(&tiny.concat()));
    assert_eq!(blocks.get_ref().gathered, [(1, 4_004)]);

    let large = numbered(&[CHAIN_FROM; 1_000]);
    for small_between in [false, true] {
        let mut blocks = transport(Scripted::default());
        let pieces: Vec<_> = match small_between {
            false => large.iter().map(|piece| (&b""[..], piece)).collect(),
            true => large.iter().map(|piece| (&b"small"[..], piece)).collect(),
        };
        let expected: Vec<_> = pieces
            .iter()
            .flat_map(|(a, b)| [*a, &b[..]].concat())
            .collect();
        ready(blocks.send(pieces)).unwrap();
        let io = blocks.get_ref();
        assert!(io.written == one(&expected));
        assert!(io.gathered.iter().all(|(slices, _)| *slices <= MAX_SLICES));
        let writes = io.written.len() / FULL_WRITE + 2; // whole parts of the rest, and what is left of it
        assert!(io.gathered.len() <= writes, "{:?}", io.gathered);
    }
}

/// Four blocks of pieces of every kind, alone and several in a row.
fn mixed() -> Vec<(Bytes, [Bytes; 3], Vec<u8>)> {
    let lens = [
        [3, 0, CHAIN_FROM, 2, 5],
        [CHAIN_FROM, CHAIN_FROM + 1, 0, 7, 0],
        [0, 0, 0, 0, 0],
        [1, 2, 3, 4, CHAIN_FROM],
    ];
    let block = |lens: [usize; 5]| {
        let [first, a, b, c, last] = numbered(&lens).try_into().unwrap();
        (first, [a, b, c], last.to_vec())
    };
    lens.map(block).to_vec()
}

fn joined((first, [a, b, c], last): &(Bytes, [Bytes; 3], Vec<u8>)) -> Bytes {
    [first, a, b, c, &last[..]].concat().into()
}

#[test]
fn pieces_stay_in_order_and_count_as_their_block_wherever_a_write_stops() {
    let blocks = mixed();
    let expected: Vec<_> = blocks.iter().map(joined).collect();
    let mut ends = vec![];
    for block in &expected {
        ends.push(ends.last().map_or(0, |end| *end) + block.len() + 4);
    }
    let expected = wire(LengthPrefix::u32(), &expected);
    for stop in 1..expected.len() {
        let io = Scripted::default().take(stop).pause_writes();
        let mut blocks_fed = transport(io);
        for block in &blocks {
            // If the queue is full, a write precedes the block.
            while blocks_fed.feed(block.clone()).now_or_never().is_none() {}
        }
        ready(blocks_fed.flush()).unwrap();
        assert!(blocks_fed.get_ref().written == expected, "{stop}");

        // The first write has two blocks, which fill it.
        let first = stop.min(ends[1]);
        let steps = [first, stop - first].into_iter().filter(|taken| *taken > 0);
        let io = steps.fold(Scripted::default(), Scripted::take);
        let mut framed = prefixed(io.fail_writes(io::ErrorKind::BrokenPipe));
        let mut sending = send_blocks(&mut framed, stream::iter(blocks.clone()));
        ready(&mut sending).unwrap_err();
        let whole = ends.iter().filter(|end| **end <= stop).count();
        assert_eq!(sending.stats().blocks, whole as u64, "{stop}");
        let wire_bytes = whole.checked_sub(1).map_or(0, |last| ends[last]);
        assert_eq!(sending.stats().wire_bytes, wire_bytes as u64, "{stop}");
        let payload_bytes = wire_bytes - 4 * whole;
        assert_eq!(
            sending.stats().payload_bytes,
            payload_bytes as u64,
            "{stop}"
        );
        drop(sending);
        ready(framed.flush()).unwrap();
        assert!(framed.get_ref().written == expected[..framed.get_ref().written.len()]);
    }
}

#[test]
fn pieces_leave_in_order_through_writes_of_few_bytes() {
    let blocks = mixed();
    let expected: Vec<_> = blocks.iter().map(joined).collect();
    let expected = wire(LengthPrefix::u32(), &expected);
    for step in [1, 2, 7, CHAIN_FROM - 1, CHAIN_FROM + 3] {
        for vectored in [true, false] {
            let steps = std::iter::repeat(testing::Step::Move(step));
            let io = Scripted::taking(steps).vectored(vectored);
            let mut transport = transport(io);
            let stats = ready(send_blocks(&mut transport, stream::iter(blocks.clone()))).unwrap();
            assert_eq!((stats.blocks, stats.wire_bytes), (4, expected.len() as u64));
            assert!(transport.get_ref().written == expected, "{step}");
        }
    }
}

#[test]
fn block_whose_pieces_exceed_the_limit_together_is_not_queued() {
    for lens in [[65_535, 1], [1, 65_535], [40_000, 40_000]] {
        let [a, b] = numbered(&lens).try_into().unwrap();
        let codec = BlockCodec::new(LengthPrefix::u16());
        let mut blocks = BlockTransport::new(Scripted::default(), codec);
        ready(blocks.feed("before")).unwrap();
        let error = ready(blocks.feed((a.clone(), &b[..]))).unwrap_err();
        let sum = lens[0] as u64 + lens[1] as u64;
        assert!(
            matches!(error, BlockError::WrongSize { max: 65_535, actual, index: 1, .. } if actual == sum),
            "{error:?}"
        );
        assert_eq!(blocks.queued(), 8);
        ready(blocks.send(["af", "ter"])).unwrap();
        assert_eq!(blocks.get_ref().written, b"\0\x06before\0\x05after");
    }
}

#[test]
fn block_in_pieces_is_refused_behind_an_unfinished_block() {
    let mut blocks = transport(Scripted::default());
    let silent = Scripted::default().send(b"12").then_silent();
    assert!(blocks.send_from(5, silent).now_or_never().is_none());
    let large = vec![7; LARGE];
    let error = ready(blocks.feed(("tag", large.clone()))).unwrap_err();
    assert!(
        matches!(error, BlockError::Unfinished { len: 5, .. }),
        "{error:?}"
    );
    ready(blocks.send_rest_from(&b"345"[..])).unwrap();
    ready(blocks.send(("tag", large.clone()))).unwrap();
    let expected = [one(b"12345"), one(&[b"tag", &large[..]].concat())].concat();
    assert_eq!(blocks.get_ref().written, expected);
}

#[test]
fn into_payload_returns_a_payload_of_several_pieces() {
    let io = Scripted::default().pause_writes();
    let mut blocks = transport(io);
    ready(blocks.feed(vec![0; FULL_WRITE])).unwrap();
    let mut feeding = blocks.feed(("head", vec![1, 2]));
    assert!((&mut feeding).now_or_never().is_none());
    assert_eq!(feeding.into_payload(), Some(("head", vec![1, 2])));
}

/// PostgreSQL's messages: a tag, then a length that counts itself, and all of it kept.
fn tagged() -> LengthField {
    let config = LengthField::config().offset(1).adjustment(-4);
    config.keep_header().build().unwrap()
}

/// A header of 80 bytes of content and then a length, all of it kept.
fn far() -> LengthField {
    let config = LengthField::config().offset(80).keep_header();
    config.build().unwrap()
}

/// Sends `block`, cut at each place in its first 100 bytes: in two pieces, and with a piece for each byte
/// before the cut. Asserts that the block is sent if `is_sent`, and refused otherwise.
#[track_caller]
fn check_kept<F: Framing + Copy>(framing: F, block: &Bytes, is_sent: bool) {
    let sent = |transport: &mut BlockTransport<Scripted, F>, result: Result<(), BlockError>| {
        match result {
            Ok(()) => assert!(is_sent),
            Err(error) => {
                let len = block.len() as u64;
                assert!(
                    matches!(error, BlockError::WrongHeader { actual, index: 0, .. } if actual == len),
                    "{error:?}"
                );
                assert!(!is_sent, "{error:?}");
            }
        }
        let expected: &[u8] = if is_sent { block } else { &[] };
        ready(transport.flush()).unwrap();
        assert!(transport.get_ref().written == expected);
    };
    for cut in 0..=block.len().min(100) {
        let (front, rest) = (block.slice(..cut), block.slice(cut..));
        let bytes: Vec<_> = front.iter().map(|byte| [*byte]).collect();
        let new = || BlockTransport::new(Scripted::default(), BlockCodec::new(framing));

        let mut transport = new();
        let result = ready(transport.feed([front.clone(), rest.clone()]));
        sent(&mut transport, result);
        let mut transport = new();
        let result = ready(transport.feed((bytes, &rest[..])));
        sent(&mut transport, result);
        let mut transport = new();
        let source = stream::iter([(&front[..], rest.clone())]);
        let result = ready(send_blocks(&mut transport, source));
        sent(&mut transport, result.map(drop));
        let mut framed = Framed::new(Scripted::default(), BlockCodec::new(framing));
        let source = stream::iter([(&front[..], rest.clone())]);
        let result = ready(send_blocks(&mut framed, source));
        assert_eq!(result.is_ok(), is_sent);
        assert_eq!(framed.get_ref().written.is_empty(), !is_sent);
    }
}

#[test]
fn kept_header_is_read_back_wherever_it_is_cut_into_pieces() {
    for len in [0, 5, CHAIN_FROM, 70_000] {
        let mut message = vec![b'Q'];
        message.extend_from_slice(&(len as u32 + 4).to_be_bytes());
        message.resize(5 + len, b'.');
        check_kept(tagged(), &message.clone().into(), true);
        message[4] ^= 1;
        check_kept(tagged(), &message.into(), false);

        let (incoming, outgoing) = (LengthPrefix::u32(), far());
        let mut message = vec![b'm'; 80];
        message.extend_from_slice(&(len as u32).to_be_bytes());
        message.resize(84 + len, b'.');
        check_kept(outgoing, &message.clone().into(), true);
        message[83] ^= 1;
        check_kept(outgoing, &message.clone().into(), false);
        check_kept(InOut { incoming, outgoing }, &message.into(), false);
    }
}

/// Announces `announced` bytes, and puts its pieces, shared or copied.
struct Liar {
    announced: usize,
    shared: bool,
    pieces: Vec<Bytes>,
}

impl Payload for Liar {
    fn byte_len(&self) -> usize {
        self.announced
    }

    fn put_into(self, pieces: &mut Pieces<'_>) {
        for piece in self.pieces {
            match self.shared {
                true => pieces.share(piece),
                false => pieces.copy(&piece),
            }
        }
    }
}

#[test]
fn payload_that_puts_another_length_than_announced_is_not_sent() {
    let all = [
        vec![],
        vec![3],
        vec![LARGE],
        vec![3, LARGE],
        vec![LARGE, 0, 3, LARGE],
    ];
    for (lens, shared) in all.iter().flat_map(|lens| [(lens, true), (lens, false)]) {
        let is: usize = lens.iter().sum();
        let announcements = [
            0,
            1,
            is.wrapping_sub(1),
            is + 1,
            2 * LARGE,
            8 << 20,
            usize::MAX,
        ];
        for announced in announcements.into_iter().filter(|said| *said != is) {
            let liar = || Liar {
                announced,
                shared,
                pieces: numbered(lens),
            };
            let expect = |error: BlockError| match error {
                BlockError::WrongHeader {
                    announced: said,
                    reason: None,
                    actual,
                    index: 1,
                } => assert_eq!((said, actual), (Some(announced as u64), is as u64)),
                // Beyond the limit, which is 8 MiB.
                BlockError::WrongSize {
                    actual, index: 1, ..
                } => {
                    assert_eq!((actual, announced), (announced as u64, usize::MAX));
                }
                error => panic!("{error:?}"),
            };
            let whole = |text: &'static str| (&text[..1], Bytes::from(&text[1..]));

            let mut blocks = transport(Scripted::default());
            ready(blocks.feed(whole("before"))).unwrap();
            expect(ready(blocks.feed(liar())).unwrap_err());
            assert_eq!(blocks.queued(), 10);
            ready(blocks.send(whole("after"))).unwrap();
            let expected = [one(b"before"), one(b"after")].concat();
            assert_eq!(blocks.get_ref().written, expected);
            assert_eq!(blocks.stats().sent_blocks, 2);

            let mut framed = prefixed(Scripted::default());
            let (announced, pieces) = (6, numbered(&[6]));
            let good = Liar {
                announced,
                shared,
                pieces: pieces.clone(),
            };
            let mut sending = send_blocks(&mut framed, stream::iter([good, liar()]));
            expect(ready(&mut sending).unwrap_err());
            assert_eq!(
                (sending.stats().blocks, sending.stats().wire_bytes),
                (1, 10)
            );
            drop(sending);
            ready(framed.send(Bytes::from("after"))).unwrap();
            let expected = [one(&pieces[0]), one(b"after")].concat();
            assert_eq!(framed.get_ref().written, expected);
        }
    }
}

#[test]
fn pieces_whose_lengths_overflow_together_are_refused() {
    let piece = |announced| Liar {
        announced,
        shared: true,
        pieces: vec![],
    };
    let (most, one) = (|| piece(usize::MAX), || piece(1));
    let expect = |result: Result<(), BlockError>| {
        let error = result.unwrap_err();
        assert!(
            matches!(error, BlockError::WrongSize { actual, .. } if actual == usize::MAX as u64),
            "{error:?}"
        );
    };
    let mut blocks = transport(Scripted::default());
    expect(ready(blocks.feed([most(), one()])));
    expect(ready(blocks.feed(vec![one(), most(), most()])));
    expect(ready(blocks.feed((most(), one()))));
    expect(ready(blocks.feed((one(), most(), one()))));
    assert_eq!(blocks.queued(), 0);
}

/// Puts a kept header that announces one byte more than the block has.
struct TwoFaced;

impl Payload for TwoFaced {
    fn byte_len(&self) -> usize {
        6
    }

    fn put_into(self, pieces: &mut Pieces<'_>) {
        pieces.copy(b"Q\0\0");
        pieces.copy(b"\0\x06.");
    }
}

#[test]
fn codec_reads_back_the_header_that_a_payload_puts() {
    let mut blocks = BlockTransport::new(Scripted::default(), BlockCodec::new(tagged()));
    let error = ready(blocks.feed(TwoFaced)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "block 0, of 6 bytes, cannot be sent: its header announces 7"
    );
    assert_eq!(blocks.queued(), 0);
}

/// Panics in `byte_len`, in `put_into` after some pieces, or, if `after` is `None`, when it is dropped.
struct Bomb {
    len: usize,
    after: Option<usize>,
}

impl Payload for Bomb {
    fn byte_len(&self) -> usize {
        assert!(self.after.is_none_or(|after| after > 0), "byte_len");
        self.len
    }

    fn put_into(self, pieces: &mut Pieces<'_>) {
        for n in 0..4 {
            assert!(self.after.is_none_or(|after| n + 1 < after), "put_into");
            pieces.copy(b"...");
            pieces.share(vec![b'x'; LARGE]);
        }
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.after.is_none() {
            panic!("drop");
        }
    }
}

#[test]
fn panicking_payload_leaves_nothing_in_the_queue() {
    for after in [Some(0), Some(1), Some(2), Some(4), None] {
        let bomb = || Bomb {
            len: 4 * (LARGE + 3),
            after,
        };
        let expected = [one(b"before"), one(b"after")].concat();

        let mut blocks = transport(Scripted::default());
        ready(blocks.feed(["be", "fore"])).unwrap();
        let fed = catch_unwind(AssertUnwindSafe(|| ready(blocks.feed(bomb()))));
        assert!(fed.is_err(), "{after:?}");
        assert_eq!(blocks.queued(), 10, "{after:?}");
        ready(blocks.send(["af", "ter"])).unwrap();
        assert_eq!(blocks.get_ref().written, expected, "{after:?}");
        assert_eq!(blocks.stats().sent_blocks, 2);

        let mut blocks = transport(Scripted::default());
        let given = Cell::new(0);
        let source = stream::poll_fn(|_| {
            given.set(given.get() + 1);
            std::task::Poll::Ready(match given.get() {
                1 => Some(Either::Whole("before")),
                2 => Some(Either::Bomb(bomb())),
                3 => Some(Either::Whole("after")),
                _ => None,
            })
        });
        let mut sending = send_blocks(&mut blocks, source);
        let polled = catch_unwind(AssertUnwindSafe(|| ready(&mut sending)));
        assert!(polled.is_err(), "{after:?}");
        let stats = ready(&mut sending).unwrap();
        assert_eq!((stats.blocks, stats.wire_bytes), (2, 19), "{after:?}");
        drop(sending);
        assert_eq!(blocks.get_ref().written, expected, "{after:?}");
    }
}

enum Either {
    Whole(&'static str),
    Bomb(Bomb),
}

impl Payload for Either {
    fn byte_len(&self) -> usize {
        match self {
            Self::Whole(text) => text.byte_len(),
            Self::Bomb(bomb) => bomb.byte_len(),
        }
    }

    fn put_into(self, pieces: &mut Pieces<'_>) {
        match self {
            Self::Whole(text) => text.put_into(pieces),
            Self::Bomb(bomb) => bomb.put_into(pieces),
        }
    }
}
