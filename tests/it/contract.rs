//! Framings that break their contract: `check_framing` finds each one, and none does harm.

use std::{io, ops::RangeInclusive};

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use testing::{Scripted, WAYS, ready, with_each_framing};
use tokio_util::codec::{Encoder, Framed};
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, Framing, Header, InOut, InvalidHeader, LengthField,
    check_framing, send_blocks,
};

/// A framing whose every answer a test chooses.
#[derive(Clone)]
struct Scheme {
    lens: RangeInclusive<u64>,
    read: fn(&[u8]) -> Result<Header, InvalidHeader>,
    write: fn(u64, &mut Vec<u8>),
}

impl Framing for Scheme {
    fn block_lens(&self) -> RangeInclusive<u64> {
        self.lens.clone()
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        (self.read)(front)
    }

    fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
        let mut header = Vec::new();
        (self.write)(block_len, &mut header);
        dst.put_slice(&header);
    }
}

/// A correct framing: a length of one byte.
const SOUND: Scheme = Scheme {
    lens: 0..=255,
    read: |front| match front.first() {
        Some(&len) => complete(1, len.into()),
        None => incomplete(1),
    },
    write: |len, dst| dst.push(len as u8),
};

fn complete(header_len: usize, payload_len: u64) -> Result<Header, InvalidHeader> {
    Ok(Header::Complete {
        stripped: header_len,
        block_len: payload_len,
    })
}

fn incomplete(at_least: usize) -> Result<Header, InvalidHeader> {
    Ok(Header::Incomplete { at_least })
}

/// Ways to break the contract, each with the rule that it breaks.
fn broken() -> Vec<(&'static str, Scheme)> {
    let read = |read| Scheme { read, ..SOUND };
    vec![
        (
            "it carries some length",
            Scheme {
                #[expect(clippy::reversed_empty_ranges, reason = "that is what is tested")]
                lens: 5..=3,
                ..SOUND
            },
        ),
        (
            "a block has at least one byte on the wire",
            Scheme {
                read: |_| complete(0, 0),
                write: |_, _| {},
                ..SOUND
            },
        ),
        (
            "a header reads back as what it was written for",
            Scheme {
                lens: 0..=u64::MAX,
                ..SOUND
            },
        ),
        (
            "a header reads back as what it was written for",
            Scheme {
                write: |len, dst| dst.push(!(len as u8)),
                ..SOUND
            },
        ),
        (
            "a header reads back as what it was written for",
            read(|_| complete(0, 5)),
        ),
        (
            "a header is not complete before it is there",
            read(|front| complete(1, front.first().map_or(7, |&len| len.into()))),
        ),
        (
            "a header reads back as what it was written for",
            read(|front| complete(usize::MAX, front.len() as u64)),
        ),
        (
            "a header reads back as what it was written for",
            read(|_| complete(9, u64::MAX)),
        ),
        (
            "an incomplete header asks for more than is there",
            read(|front| match front.first() {
                Some(&len) => complete(1, len.into()),
                None => incomplete(0),
            }),
        ),
        (
            "a header is not shorter than was said before",
            read(|front| match front.first() {
                Some(&len) => complete(1, len.into()),
                None => incomplete(2),
            }),
        ),
        (
            "what follows a header does not change how it reads",
            read(|front| match front {
                [len] => complete(1, (*len).into()),
                [len, ..] => complete(1, u64::from(*len) / 2),
                [] => incomplete(1),
            }),
        ),
        (
            "what follows a header does not change how it reads",
            read(|front| match front {
                [len] | [len, _] => complete(1, (*len).into()),
                [] => incomplete(1),
                _ => Err(InvalidHeader("it has come too far")),
            }),
        ),
        (
            "a block that can be received can be sent",
            Scheme {
                // Reads two bytes of length, and writes one.
                lens: 300..=70_000,
                read: |front| match front {
                    [a, b, ..] => complete(0, u64::from(u16::from_be_bytes([*a, *b]))),
                    front => incomplete(front.len() + 1),
                },
                write: |len, dst| dst.push(len as u8),
            },
        ),
        (
            "a header reads back as what it was written for",
            read(|_| incomplete(1 << 30)),
        ),
        (
            "an incomplete header asks for more than is there",
            Scheme {
                lens: 1..=255,
                read: |front| incomplete(front.len()),
                ..SOUND
            },
        ),
    ]
}

#[test]
fn the_framings_of_this_crate_and_the_tests_keep_the_contract() {
    with_each_framing!(|case| check_framing(&case.framing).expect(case.name));
    for strip in 0..=7 {
        let kept = LengthField::config().offset(1).header_len(7).strip(strip);
        for (adjustment, unit) in [-5, -4, 0, 2, 9].into_iter().flat_map(|a| [(a, 1), (a, 3)]) {
            let framing = kept.width(4).adjustment(adjustment).unit(unit);
            let framing = framing.build().unwrap();
            check_framing(&framing).unwrap_or_else(|error| panic!("{framing:?}: {error}"));
        }
    }
    check_framing(&SOUND).unwrap();
}

#[test]
fn check_framing_names_the_broken_rule() {
    for (rule, scheme) in broken() {
        let violation = check_framing(&scheme).unwrap_err().to_string();
        assert!(violation.starts_with(rule), "{rule}: {violation}");
    }
}

#[test]
fn check_framing_checks_both_framings_of_in_out() {
    let two = |incoming: &Scheme, outgoing: &Scheme| InOut {
        incoming: incoming.clone(),
        outgoing: outgoing.clone(),
    };
    for (rule, scheme) in broken() {
        for framing in [two(&scheme, &SOUND), two(&SOUND, &scheme)] {
            let violation = check_framing(&framing).unwrap_err().to_string();
            assert!(violation.starts_with(rule), "{rule}: {violation}");
        }
    }
    // The outgoing framing may write what the incoming one cannot read.
    let other = Scheme {
        lens: 5..=10,
        read: |front| match front {
            [len, ..] => complete(1, u64::from(len / 3)),
            [] => incomplete(1),
        },
        write: |len, dst| dst.push(len as u8 * 3),
    };
    check_framing(&two(&SOUND, &other)).unwrap();
    check_framing(&two(&other, &SOUND)).unwrap();
}

#[test]
fn whatever_a_framing_answers_receiving_ends_and_the_numbers_make_sense() {
    let fronts: [&[u8]; 5] = [
        b"",
        b"\0",
        b"\x05hello",
        &[0xff; 300],
        &[7; 200_000], // more than any buffer holds at first
    ];
    for (number, (_, scheme)) in broken().into_iter().enumerate() {
        for (bytes, chunk) in fronts.iter().flat_map(|f| [1, 8, 40_001].map(|c| (f, c))) {
            if chunk == 1 && bytes.len() > 1_000 {
                continue;
            }
            for way in WAYS {
                let io = Scripted::chunked(bytes, chunk, false);
                let codec = BlockCodec::new(scheme.clone());
                let (blocks, error) = way.receive(io, codec);
                let delivered: usize = blocks.iter().map(Bytes::len).sum();
                assert!(blocks.len() <= bytes.len(), "{number}, {way:?}");
                assert!(delivered <= bytes.len(), "{number}, {way:?}");
                if let Some(BlockError::Truncated {
                    expected, received, ..
                }) = error
                {
                    assert!(received <= bytes.len() as u64, "{number}: {error:?}");
                    assert!(received < expected, "{number}: {error:?}");
                }
            }
        }
    }
}

#[test]
fn framing_that_asks_for_0_more_bytes_still_delivers_every_block() {
    // The header is incomplete until the whole block has arrived, and never asks for more bytes.
    let greedy = Scheme {
        lens: 40_000..=40_000,
        read: |front| match front.len() {
            0..40_001 => incomplete(0),
            _ => complete(1, 40_000),
        },
        ..SOUND
    };
    let bytes = vec![7; 5 * 40_001];
    for way in WAYS {
        let io = Scripted::chunked(&bytes, 10_000, false);
        let (blocks, error) = way.receive(io, BlockCodec::new(greedy.clone()));
        assert_eq!(blocks.len(), 5, "{way:?}: {error:?}");
        assert!(error.is_none(), "{way:?}: {error:?}");
    }
}

/// Sends one block in each way, and returns what is on the wire and the result.
fn sent(scheme: &Scheme, block: &Bytes) -> Vec<(Vec<u8>, io::Result<()>)> {
    let codec = || BlockCodec::new(scheme.clone());
    let mut direct = BytesMut::new();
    let encoded = codec().encode(block.clone(), &mut direct);

    let mut transport = BlockTransport::new(Scripted::default(), codec());
    let fed = ready(transport.feed(block.clone()));
    ready(transport.flush()).unwrap();

    let mut framed = Framed::new(Scripted::default(), codec());
    let source = stream::iter([block.clone()]);
    let helped = ready(send_blocks(&mut framed, source)).map(drop);

    vec![
        (direct.to_vec(), encoded.map_err(Into::into)),
        (transport.into_inner().written, fed.map_err(Into::into)),
        (framed.into_inner().written, helped.map_err(Into::into)),
    ]
}

#[test]
fn header_that_does_not_read_back_is_not_sent() {
    for (number, (_, scheme)) in broken().into_iter().enumerate() {
        for len in [0, 1, 5, 255, 256, 300, 5_000] {
            let block = Bytes::from(vec![7; len]);
            for (wire, result) in sent(&scheme, &block) {
                match result {
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{number}, {len}");
                        assert!(wire.is_empty(), "{number}, {len}: {error}");
                    }
                    Ok(()) => {
                        let read = (scheme.read)(&wire);
                        let header_len = wire.len() - len;
                        assert_eq!(read, complete(header_len, len as u64), "{number}");
                        assert!(!wire.is_empty(), "{number}, {len}");
                    }
                }
            }
        }
    }
}

#[test]
fn error_names_the_length_that_a_narrow_field_announces() {
    let wide = Scheme {
        lens: 0..=1_000,
        ..SOUND
    };
    for (wire, result) in sent(&wide, &Bytes::from(vec![7; 300])) {
        assert!(wire.is_empty());
        assert_eq!(
            result.unwrap_err().to_string(),
            "block 0, of 300 bytes, cannot be sent: its header announces 44",
        );
    }
}
