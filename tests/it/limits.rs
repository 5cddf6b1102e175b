//! Reuse of a codec: clones for further streams, and limits that change while it runs.

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use testing::{Case, KIB, MIB, Scripted, blocks_for, numbered, ready, wire, with_each_framing};
use tokio_util::codec::{Decoder, Encoder, Framed};
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, ConfigError, Exact, LengthPrefix, recv_blocks,
};

type Codec = BlockCodec<LengthPrefix>;

#[test]
fn a_clone_is_a_fresh_codec() {
    fn check<F: wholeblock::Framing + Copy>(Case { name, framing, .. }: Case<F>) {
        let blocks = blocks_for(&framing);
        let bytes = wire(framing, &blocks);
        let mut used = BlockCodec::new(framing);
        // The codec has decoded a part of a block, and encoded one.
        let mut buffer = BytesMut::from(&bytes[..bytes.len() - 1]);
        while used.decode(&mut buffer).unwrap().is_some() {}
        used.encode(blocks[0].clone(), &mut BytesMut::new())
            .unwrap();
        for mut codec in [used.clone(), BlockCodec::new(framing).clone()] {
            let mut buffer = BytesMut::from(&bytes[..]);
            let mut out = vec![];
            while let Some(block) = codec.decode(&mut buffer).unwrap() {
                out.push(block);
            }
            assert_eq!(out, blocks, "{name}");
        }
    }
    with_each_framing!(|case| check(case));
}

#[test]
fn a_clone_sends_blocks_up_to_the_limit() {
    let codec = Codec::new(LengthPrefix::u32().max_block_len(5).unwrap());
    let mut buffer = BytesMut::new();
    let mut clone = codec.clone();
    clone.encode(Bytes::from("hello"), &mut buffer).unwrap();
    assert_eq!(buffer, b"\0\0\0\x05hello"[..]);
    let error = clone.encode(Bytes::from("hello!"), &mut buffer);
    assert!(matches!(error, Err(BlockError::WrongSize { limit: 5, .. })));
}

#[test]
fn a_clone_counts_blocks_and_bytes_from_0() {
    let mut used = Codec::length_prefixed();
    used.encode(Bytes::from_static(b"x"), &mut BytesMut::new())
        .unwrap();
    let mut buffer = BytesMut::from(&b"\0\0\0\x01x"[..]);
    used.decode(&mut buffer).unwrap().unwrap();

    let mut clone = used.clone();
    let mut buffer = BytesMut::from(&b"\0\0\0\x09part"[..]);
    let error = clone.decode_eof(&mut buffer).unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::Truncated {
                index: 0,
                offset: 0,
                ..
            }
        ),
        "{error:?}"
    );
    let large = Bytes::from(vec![0; 9 * MIB]);
    let error = used.clone().encode(large.clone(), &mut BytesMut::new());
    assert!(matches!(error, Err(BlockError::WrongSize { index: 0, .. })));
    let error = used.encode(large, &mut BytesMut::new());
    assert!(matches!(error, Err(BlockError::WrongSize { index: 1, .. })));
}

#[test]
fn clone_of_a_failed_codec_works() {
    let mut failed = Codec::length_prefixed();
    failed
        .decode(&mut BytesMut::from(&[0xff; 4][..]))
        .unwrap_err();
    assert!(failed.decode(&mut BytesMut::new()).is_err());
    let mut buffer = BytesMut::from(&b"\0\0\0\x01x"[..]);
    assert_eq!(failed.clone().decode(&mut buffer).unwrap().unwrap(), "x");
}

#[test]
fn clone_has_the_same_limits_even_one_set_inside_a_block() {
    let mut codec = Codec::length_prefixed();
    codec.set_max_encode_len(20).unwrap();
    codec.set_max_decode_len(30).unwrap();
    let clone = codec.clone();
    assert_eq!((clone.max_encode_len(), clone.max_decode_len()), (20, 30));

    let mut half = BytesMut::from(&b"\0\0\0\x1ehalf"[..]);
    assert!(codec.decode(&mut half).unwrap().is_none());
    codec.set_max_decode_len(10).unwrap();
    assert_eq!(codec.max_decode_len(), 10);
    let mut clone = codec.clone();
    assert_eq!(clone.max_decode_len(), 10);
    let error = clone.decode(&mut BytesMut::from(&b"\0\0\0\x0b"[..]));
    assert!(matches!(error, Err(BlockError::TooLarge { limit: 10, .. })));
}

#[test]
fn clone_retains_as_much_as_its_original() {
    for (limit, most) in [(0, 8 * KIB), (20 * KIB, 20 * KIB)] {
        let bytes = wire(LengthPrefix::u32(), &vec![vec![1; 100].into(); 10_000]);
        let codec = Codec::length_prefixed().with_max_retained(limit).clone();
        let mut transport = BlockTransport::new(Scripted::default().send(&bytes), codec);
        while ready(transport.next()).is_some() {}
        let rooms = transport.get_ref().rooms.iter().map(|(room, _)| *room);
        let largest = rooms.max().unwrap();
        assert!(largest <= most && largest > most * 9 / 10, "{largest}");
    }
}

#[test]
fn each_direction_has_a_limit_of_its_own() {
    let mut codec = Codec::length_prefixed();
    assert_eq!(
        (codec.max_encode_len(), codec.max_decode_len()),
        (8 * MIB, 8 * MIB)
    );
    codec.set_max_encode_len(3).unwrap();
    assert_eq!(
        (codec.max_encode_len(), codec.max_decode_len()),
        (3, 8 * MIB)
    );
    codec.set_max_decode_len(5).unwrap();
    assert_eq!((codec.max_encode_len(), codec.max_decode_len()), (3, 5));

    let incoming = wire(LengthPrefix::u32(), &numbered(&[5, 6]));
    let io = Scripted::default().send(&incoming);
    let mut transport = BlockTransport::new(io, codec);
    ready(transport.feed(Bytes::from_static(b"abc"))).unwrap();
    let error = ready(transport.feed(Bytes::from_static(b"abcd"))).unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::WrongSize {
                min: 0,
                max: 8_388_608,
                limit: 3,
                actual: 4,
                index: 1
            }
        ),
        "{error:?}"
    );
    assert_eq!(ready(transport.next()).unwrap().unwrap().len(), 5);
    let error = ready(transport.next()).unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::TooLarge {
                announced: 6,
                limit: 5,
                index: 1,
                offset: 9,
                ..
            }
        ),
        "{error:?}"
    );

    let mut codec = Codec::length_prefixed();
    codec.set_max_block_len(7).unwrap();
    assert_eq!((codec.max_encode_len(), codec.max_decode_len()), (7, 7));
}

#[test]
fn limit_beyond_the_framing_is_refused_and_changes_nothing() {
    type Set = fn(&mut Codec, usize) -> Result<(), ConfigError>;
    let setters: [Set; 3] = [
        Codec::set_max_block_len,
        Codec::set_max_decode_len,
        Codec::set_max_encode_len,
    ];
    for set in setters {
        let framing = LengthPrefix::u32().max_block_len(100).unwrap();
        let mut codec = BlockCodec::new(framing);
        codec.set_max_block_len(50).unwrap();
        let refused = set(&mut codec, 101);
        assert_eq!(
            refused,
            Err(ConfigError::LimitTooLarge {
                limit: 101,
                max: 100
            })
        );
        assert_eq!((codec.max_encode_len(), codec.max_decode_len()), (50, 50));
        set(&mut codec, 100).unwrap();
        set(&mut codec, 0).unwrap();
    }
    let mut exact = BlockCodec::new(Exact::new(5).unwrap());
    for (limit, error) in [
        (4, ConfigError::LimitTooSmall { limit: 4, min: 5 }),
        (6, ConfigError::LimitTooLarge { limit: 6, max: 5 }),
    ] {
        assert_eq!(exact.set_max_block_len(limit), Err(error));
        assert_eq!(exact.set_max_decode_len(limit), Err(error));
        assert_eq!(exact.set_max_encode_len(limit), Err(error));
    }
    exact.set_max_block_len(5).unwrap();
    assert_eq!((exact.max_encode_len(), exact.max_decode_len()), (5, 5));
}

/// A receiver whose limit can change.
trait Limited {
    fn set_max(&mut self, max: usize);
    fn more(&mut self, io: Scripted);
    /// Returns the lengths of the next block or batch, or `None` if it must wait.
    fn receive(&mut self, take: Take) -> Option<Result<Vec<usize>, BlockError>>;
}

impl Limited for Framed<Scripted, Codec> {
    fn set_max(&mut self, max: usize) {
        self.codec_mut().set_max_decode_len(max).unwrap();
    }

    fn more(&mut self, io: Scripted) {
        *self.get_mut() = io;
    }

    fn receive(&mut self, take: Take) -> Option<Result<Vec<usize>, BlockError>> {
        match take {
            Take::Next => {
                let next = self.next().now_or_never()?;
                Some(next.unwrap().map(|block| vec![block.len()]))
            }
            Take::Lend | Take::Batch => {
                let mut receiving = recv_blocks(self);
                let next = receiving.next().now_or_never()?;
                Some(next.map(|block| vec![block.unwrap().len()]))
            }
        }
    }
}

impl Limited for BlockTransport<Scripted, LengthPrefix> {
    fn set_max(&mut self, max: usize) {
        self.codec_mut().set_max_decode_len(max).unwrap();
    }

    fn more(&mut self, io: Scripted) {
        *self.get_mut() = io;
    }

    fn receive(&mut self, take: Take) -> Option<Result<Vec<usize>, BlockError>> {
        match take {
            Take::Next => {
                let next = self.next().now_or_never()?;
                Some(next.unwrap().map(|block| vec![block.len()]))
            }
            Take::Lend => {
                let next = self.recv().now_or_never()?;
                Some(next.map(|block| vec![block.unwrap().len()]))
            }
            Take::Batch => {
                let next = self.recv_batch().now_or_never()?;
                Some(next.map(|batch| batch.unwrap().map(<[u8]>::len).collect()))
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Take {
    Next,
    Lend,
    Batch,
}

const TAKES: [Take; 3] = [Take::Next, Take::Lend, Take::Batch];

fn silent() -> BlockTransport<Scripted, LengthPrefix> {
    BlockTransport::new(Scripted::default().then_silent(), Codec::length_prefixed())
}

/// Calls `$check` with a `Framed` and with a transport over a silent peer, for each way to take.
macro_rules! with_each {
    (|$from:ident, $take:ident| $check:expr) => {
        for $take in TAKES {
            let io = Scripted::default().then_silent();
            let $from = Framed::new(io, Codec::length_prefixed());
            $check;
            let $from = silent();
            $check;
        }
    };
}

fn is_too_large(taken: Option<Result<Vec<usize>, BlockError>>, limit: u64, index: u64) -> bool {
    matches!(taken, Some(Err(BlockError::TooLarge { limit: l, index: i, .. }))
        if l == limit && i == index)
}

#[test]
fn lower_limit_spares_a_half_received_block_and_refuses_the_next() {
    fn check(mut from: impl Limited, take: Take, half: usize, split: usize) {
        let bytes = wire(LengthPrefix::u32(), &numbered(&[100, 100]));
        from.more(Scripted::default().send(&bytes[..half]).then_silent());
        assert!(from.receive(take).is_none());
        from.set_max(10);
        let mut rest = Scripted::default().send(&bytes[half..split]);
        if split < bytes.len() {
            rest = rest.send(&bytes[split..]);
        }
        from.more(rest.then_silent());
        let first = from.receive(take).unwrap().unwrap();
        assert_eq!(first, [100], "{take:?}, {half}, {split}");
        let second = from.receive(take);
        assert!(is_too_large(second, 10, 1), "{take:?}, {half}, {split}");
    }
    // The limit is lowered right after the header, or inside the payload.
    for half in [4, 50, 103] {
        // The rest arrives alone, or with a part or all of the next block.
        for split in [104, 106, 150, 208] {
            with_each!(|from, take| check(from, take, half, split));
        }
    }
}

#[test]
fn stream_that_ends_in_a_block_over_a_lowered_limit_is_truncated() {
    fn check(mut from: impl Limited, take: Take) {
        let bytes = wire(LengthPrefix::u32(), &numbered(&[100]));
        from.more(Scripted::default().send(&bytes[..50]).then_silent());
        assert!(from.receive(take).is_none());
        from.set_max(10);
        from.more(Scripted::default());
        let cut = from.receive(take).unwrap().unwrap_err();
        assert!(
            matches!(
                cut,
                BlockError::Truncated {
                    expected: 100,
                    received: 46,
                    ..
                }
            ),
            "{take:?}: {cut:?}"
        );
    }
    with_each!(|from, take| check(from, take));
}

#[test]
fn lower_limit_refuses_a_block_whose_header_is_incomplete() {
    fn check(mut from: impl Limited, take: Take, half: usize) {
        let bytes = wire(LengthPrefix::u32(), &numbered(&[100]));
        from.more(Scripted::default().send(&bytes[..half]).then_silent());
        assert!(from.receive(take).is_none());
        from.set_max(10);
        from.more(Scripted::default().send(&bytes[half..]).then_silent());
        let refused = from.receive(take);
        assert!(is_too_large(refused, 10, 0), "{take:?}, {half}");
    }
    for half in 1..4 {
        with_each!(|from, take| check(from, take, half));
    }
}

#[test]
fn last_limit_set_inside_a_block_applies_to_the_next_block() {
    fn check(mut from: impl Limited, take: Take, limits: &[usize], second_passes: bool) {
        let bytes = wire(LengthPrefix::u32(), &numbered(&[100, 50]));
        from.more(Scripted::default().send(&bytes[..20]).then_silent());
        assert!(from.receive(take).is_none());
        for limit in limits {
            from.set_max(*limit);
        }
        from.more(Scripted::default().send(&bytes[20..]).then_silent());
        let mut lens = from.receive(take).unwrap().unwrap();
        if lens.len() == 1 {
            match from.receive(take) {
                Some(Ok(second)) => lens.extend(second),
                refused => assert!(is_too_large(refused, *limits.last().unwrap() as u64, 1)),
            }
        }
        let expected: &[usize] = if second_passes { &[100, 50] } else { &[100] };
        assert_eq!(lens, expected, "{take:?}, {limits:?}");
    }
    with_each!(|from, take| check(from, take, &[10, 20], false));
    with_each!(|from, take| check(from, take, &[20, 10], false));
    with_each!(|from, take| check(from, take, &[10, 50], true));
    with_each!(|from, take| check(from, take, &[10, 200], true));
    with_each!(|from, take| check(from, take, &[200, 49], false));
}

#[test]
fn lower_limit_spares_a_lent_block_not_taken_and_refuses_the_next() {
    fn check(take: Take, first_read: usize, limits: &[usize]) {
        let bytes = wire(LengthPrefix::u32(), &numbered(&[100, 100]));
        let mut from = silent();
        from.more(Scripted::default().send(&bytes[..first_read]).then_silent());
        let whole = first_read == bytes.len();
        assert_eq!(is_lent(&mut from), whole);
        if !whole {
            from.set_max(50);
            from.more(Scripted::default().send(&bytes[first_read..]).then_silent());
            assert!(is_lent(&mut from));
        }
        for limit in limits {
            from.set_max(*limit);
            assert!(is_lent(&mut from), "{limits:?}");
        }
        let first = from.receive(take).unwrap().unwrap();
        assert_eq!(first, [100], "{take:?}, {first_read}, {limits:?}");
        let second = from.receive(take);
        assert!(is_too_large(second, 10, 1), "{take:?}, {first_read}");
    }
    for first_read in [20, 208] {
        for limits in [&[10][..], &[20, 10], &[200, 10]] {
            for take in TAKES {
                check(take, first_read, limits);
            }
        }
    }
}

/// Returns true if a block can be lent, and takes none.
fn is_lent(from: &mut BlockTransport<Scripted, LengthPrefix>) -> bool {
    let batch = from.recv_batch().now_or_never();
    batch.is_some_and(|batch| batch.unwrap().is_some())
}

#[test]
fn lower_limit_holds_as_soon_as_a_lent_block_is_taken() {
    for take in TAKES {
        let bytes = wire(LengthPrefix::u32(), &numbered(&[100, 100]));
        let mut from = silent();
        from.more(Scripted::default().send(&bytes[..104]).then_silent());
        assert!(is_lent(&mut from));
        assert_eq!(from.receive(take).unwrap().unwrap(), [100]);
        from.set_max(10);
        from.more(Scripted::default().send(&bytes[104..]).then_silent());
        assert!(is_too_large(from.receive(take), 10, 1), "{take:?}");
    }
}

#[test]
fn a_lower_limit_holds_at_once_between_two_blocks() {
    fn check(mut from: impl Limited, take: Take) {
        let bytes = wire(LengthPrefix::u32(), &numbered(&[10, 100]));
        from.more(Scripted::default().send(&bytes[..14]).then_silent());
        assert_eq!(from.receive(take).unwrap().unwrap(), [10]);
        assert!(from.receive(take).is_none());
        from.set_max(99);
        // Nothing of the payload has arrived.
        from.more(Scripted::default().send(&bytes[14..18]).then_silent());
        assert!(is_too_large(from.receive(take), 99, 1), "{take:?}");
    }
    with_each!(|from, take| check(from, take));
}

#[test]
fn lower_limit_holds_for_buffered_blocks_not_yet_parsed() {
    fn check(mut from: impl Limited, take: Take) {
        let bytes = wire(LengthPrefix::u32(), &numbered(&[10, 100]));
        from.more(Scripted::default().send(&bytes).then_silent());
        assert_eq!(from.receive(Take::Next).unwrap().unwrap(), [10]);
        from.set_max(99);
        assert!(is_too_large(from.receive(take), 99, 1), "{take:?}");
    }
    with_each!(|from, take| check(from, take));
}

#[test]
fn a_higher_limit_holds_at_once() {
    fn check(mut from: impl Limited, take: Take) {
        let bytes = wire(LengthPrefix::u32(), &numbered(&[10, 100, 100]));
        from.set_max(10);
        from.more(Scripted::default().send(&bytes[..16]).then_silent());
        assert_eq!(from.receive(take).unwrap().unwrap(), [10]);
        assert!(from.receive(take).is_none());
        // A part of the header has arrived.
        from.set_max(100);
        from.more(Scripted::default().send(&bytes[16..]).then_silent());
        let mut lens = from.receive(take).unwrap().unwrap();
        if lens.len() == 1 {
            lens.extend(from.receive(take).unwrap().unwrap());
        }
        assert_eq!(lens, [100, 100], "{take:?}");
    }
    with_each!(|from, take| check(from, take));
}

#[test]
fn lower_limit_holds_for_the_blocks_after_a_half_received_one() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[100, 5, 5, 100]));
    let io = Scripted::default().send(&bytes[..50]).then_silent();
    let mut transport = BlockTransport::new(io, Codec::length_prefixed());
    assert!(transport.recv().now_or_never().is_none());
    transport.set_max(10);
    transport.more(Scripted::default().send(&bytes[50..]).then_silent());
    let mut lens = vec![];
    let error = loop {
        match ready(transport.recv()) {
            Ok(block) => lens.push(block.unwrap().len()),
            Err(error) => break error,
        }
    };
    assert_eq!(lens, [100, 5, 5]);
    assert!(matches!(
        error,
        BlockError::TooLarge {
            limit: 10,
            index: 3,
            ..
        }
    ));
}

#[test]
fn encode_limit_of_a_transport_holds_from_the_next_block() {
    let mut transport = BlockTransport::new(Scripted::default(), Codec::length_prefixed());
    ready(transport.feed(Bytes::from_static(b"long"))).unwrap();
    transport.codec_mut().set_max_encode_len(2).unwrap();
    ready(transport.feed(Bytes::from_static(b"long"))).unwrap_err();
    transport.codec_mut().set_max_encode_len(4).unwrap();
    ready(transport.feed(Bytes::from_static(b"back"))).unwrap();
    ready(transport.close()).unwrap();
    assert_eq!(transport.get_ref().written, b"\0\0\0\x04long\0\0\0\x04back");
}
