//! The attacks on a program that receives, by sort.

use std::{io, sync::Arc};

use bytes::Bytes;
use wholeblock::{
    AnyFraming, BlockError, BlockPart, Direction, Exact, HeaderBytes, LengthField, LengthLimit,
    LengthPrefix, Varint,
};

use super::{DISCARDED, SHORT, Sent, Then, wire};
use crate::crowd::Attack;

/// The longest block that this crate allows, if a framing is told to carry as much.
const LARGEST: u64 = isize::MAX as u64 / 2;

const DEFAULT_LIMIT: u64 = 8 * 1024 * 1024;

fn attacks(sent: impl IntoIterator<Item = Sent>) -> Vec<Arc<dyn Attack>> {
    let shared = |sent| Arc::new(sent) as Arc<dyn Attack>;
    sent.into_iter().map(shared).collect()
}

fn stalled(index: u64, offset: u64) -> Option<BlockError> {
    Some(BlockError::Stalled {
        waited: SHORT,
        direction: Direction::Receiving,
        index,
        offset,
    })
}

/// Each width of a length announces the most that it can, and the most that a limit can allow; nothing
/// follows. By default, only a u8 and a u16 may announce the most that they can.
pub(crate) fn announcements() -> Vec<Arc<dyn Attack>> {
    let too_large = |announced, limit: u64, header: &[u8]| {
        let header = HeaderBytes::new(header);
        move |index, offset| {
            let error = BlockError::TooLarge {
                announced,
                limit,
                header,
                index,
                offset,
            };
            (announced > limit).then_some(error)
        }
    };
    let mut sent = Vec::new();
    for width in 1..=8 {
        let most = u64::MAX >> (64 - 8 * width);
        let may = most.min(LARGEST);
        let prefix = LengthPrefix::bytes(width).unwrap();
        let raised = prefix.max_block_len(may as usize).unwrap();
        let field = LengthField::config().offset(2).width(width).little_endian();
        let limited = field.limit(LengthLimit::Clamped(DEFAULT_LIMIT as usize));
        let unlimited = field.limit(LengthLimit::Unlimited).build().unwrap();
        let limited = limited.build().unwrap();

        let can = most.to_be_bytes()[8 - width..].to_vec();
        let field_can = [&b"??"[..], &can].concat();
        let limit = DEFAULT_LIMIT.min(most);
        let refused = |header: &[u8]| {
            let too_large = too_large(most, limit, header);
            move |index, offset| too_large(index, offset).or_else(|| stalled(index, offset))
        };
        let name = |what| format!("{what} of {width} bytes");
        sent.push(Sent::new(
            name("prefix"),
            prefix,
            &can,
            Then::Silence,
            refused(&can),
        ));
        sent.push(Sent::new(
            name("field"),
            limited,
            &field_can,
            Then::Silence,
            refused(&field_can),
        ));

        let may_be = &may.to_be_bytes()[8 - width..];
        let may_le = &may.to_le_bytes()[..width];
        let field_may = [&b"??"[..], may_le].concat();
        sent.push(Sent::new(
            name("raised prefix"),
            raised,
            may_be,
            Then::Silence,
            stalled,
        ));
        sent.push(Sent::new(
            name("raised field"),
            unlimited,
            &field_may,
            Then::Silence,
            stalled,
        ));
    }
    let varint = Varint::new();
    let most = [&[0xff; 9][..], &[1]].concat();
    let refused = too_large(u64::MAX, DEFAULT_LIMIT, &most);
    sent.push(Sent::new("varint", varint, &most, Then::Silence, refused));
    let endless = |index, offset| {
        Some(BlockError::InvalidHeader {
            reason: "its varint does not end within 10 bytes",
            header: HeaderBytes::new(&[0xff; 10]),
            index,
            offset,
        })
    };
    sent.push(Sent::new(
        "endless varint",
        varint,
        &[0xff; 10],
        Then::Silence,
        endless,
    ));
    let raised = varint.max_block_len(LARGEST as usize).unwrap();
    let may = [&[0xff; 8][..], &[0x3f]].concat(); // 62 bits
    sent.push(Sent::new(
        "raised varint",
        raised,
        &may,
        Then::Silence,
        stalled,
    ));
    attacks(sent)
}

/// A place in the stream, what was sent up to it, and the part that an end there cuts.
type Stage = (
    &'static str,
    AnyFraming,
    Vec<u8>,
    Option<(BlockPart, u64, u64)>,
);

/// Places between two blocks, in a header, right after it, and in a payload.
fn stages() -> Vec<Stage> {
    let field = LengthField::config().offset(1).width(3).build().unwrap();
    let exact = Exact::new(10).unwrap();
    // Each framing with the header of a block of 300 bytes.
    let framings: [(AnyFraming, &[u8]); 3] = [
        (LengthPrefix::u32().into(), &[0, 0, 1, 44]),
        (Varint::new().into(), &[0xac, 0x02]),
        (field.into(), &[b'?', 0, 1, 44]),
    ];
    let mut stages: Vec<Stage> = Vec::new();
    for (framing, header) in framings {
        let len = header.len() as u64;
        let payload = |received| Some((BlockPart::Payload, 300, received));
        let some = [header, b"abc"].concat();
        let all_but_one = [header, &[7; 299]].concat();
        stages.push(("between blocks", framing, vec![], None));
        let in_header = Some((BlockPart::Header, len, 1));
        stages.push(("in the header", framing, header[..1].to_vec(), in_header));
        stages.push(("after the header", framing, header.to_vec(), payload(0)));
        stages.push(("in the payload", framing, some, payload(3)));
        stages.push(("before its last byte", framing, all_but_one, payload(299)));
    }
    let in_payload = Some((BlockPart::Payload, 10, 1));
    stages.push(("between blocks", exact.into(), vec![], None));
    stages.push(("in the payload", exact.into(), vec![1], in_payload));
    stages
}

fn at_each_stage(
    then: Then,
    error: impl Fn(Option<(BlockPart, u64, u64)>, u64, u64) -> Option<BlockError>,
) -> Vec<Arc<dyn Attack>> {
    attacks(stages().into_iter().map(|(stage, framing, front, cut)| {
        let name = format!("{then:?} {stage}, {framing:?}");
        Sent::new(name, framing, &front, then, |index, offset| {
            error(cut, index, offset)
        })
    }))
}

pub(crate) fn silences() -> Vec<Arc<dyn Attack>> {
    at_each_stage(Then::Silence, |_, index, offset| stalled(index, offset))
}

pub(crate) fn half_closes() -> Vec<Arc<dyn Attack>> {
    at_each_stage(Then::HalfClose, |cut, index, offset| {
        cut.map(|(part, expected, received)| BlockError::Truncated {
            part,
            expected,
            received,
            index,
            offset,
        })
    })
}

pub(crate) fn resets() -> Vec<Arc<dyn Attack>> {
    at_each_stage(Then::Reset, |_, _, _| {
        Some(BlockError::Io(io::ErrorKind::ConnectionReset.into()))
    })
}

/// A byte now and then, of the header and then of the payload.
pub(crate) fn dribbles() -> Vec<Arc<dyn Attack>> {
    let late = |index, offset| {
        Some(BlockError::Late {
            allowed: SHORT,
            direction: Direction::Receiving,
            index,
            offset,
        })
    };
    let large = LengthPrefix::u64().max_block_len(LARGEST as usize).unwrap();
    let framings: [(&str, AnyFraming); 4] = [
        ("u8", LengthPrefix::u8().into()),
        ("u64", large.into()),
        ("varint", Varint::new().into()),
        ("exact", Exact::new(51_200).unwrap().into()),
    ];
    attacks(framings.map(|(name, framing)| {
        let name = format!("a byte at a time, {name}");
        match framing {
            // Its whole blocks would be long.
            AnyFraming::Exact(_) => Sent {
                name,
                framing,
                blocks: vec![],
                wire: Bytes::from_static(&[1]),
                then: Then::Dribble,
                error: late(0, 0),
            },
            _ => Sent::new(name, framing, &[], Then::Dribble, late),
        }
    }))
}

/// Blocks of a header and nothing else, until the peer's end.
pub(crate) fn floods() -> Vec<Arc<dyn Attack>> {
    // The victim's task yields after every 256 of them, and all other tasks then have their turns.
    const EMPTY: usize = 5_000;
    let framings: [AnyFraming; 3] = [
        LengthPrefix::u8().into(),
        LengthPrefix::u32().into(),
        Varint::new().into(),
    ];
    attacks(framings.into_iter().map(|framing| {
        let blocks = vec![Bytes::new(); EMPTY];
        Sent {
            name: format!("a flood, {framing:?}"),
            framing,
            wire: wire(framing, &blocks).freeze(),
            blocks,
            then: Then::HalfClose,
            error: None,
        }
    }))
}

/// Long blocks whose payloads look like other blocks on the wire: whole, and cut by the end of the stream.
pub(crate) fn decoys() -> Vec<Arc<dyn Attack>> {
    let framings: [AnyFraming; 2] = [LengthPrefix::u32().into(), Varint::new().into()];
    attacks(framings.into_iter().flat_map(|framing| {
        let inner = wire(framing, &[Bytes::from_static(b"none of yours")]);
        let decoy: Bytes = inner.iter().copied().cycle().take(DISCARDED).collect();
        let blocks = vec![decoy.clone(), Bytes::from_static(b"one"), decoy];
        let offset = wire(framing, &blocks[..2]).len() as u64;
        let wire = wire(framing, &blocks).freeze();
        [0, 1, DISCARDED - 1].map(|cut| Sent {
            name: format!("decoys without the last {cut} bytes, {framing:?}"),
            framing,
            blocks: blocks[..3 - usize::from(cut > 0)].to_vec(),
            wire: wire.slice(..wire.len() - cut),
            then: Then::HalfClose,
            error: (cut > 0).then_some(BlockError::Truncated {
                part: BlockPart::Payload,
                expected: DISCARDED as u64,
                received: (DISCARDED - cut) as u64,
                index: 2,
                offset,
            }),
        })
    }))
}
