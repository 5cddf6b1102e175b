//! `InOut`: one framing for what is received and another for what is sent, each with its own limits and
//! errors.

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, stream};
use testing::{Case, Line, MIB, Scripted, WAYS, numbered_for, ready, wire, with_each_framing};
use tokio_util::codec::{Decoder, Encoder, Framed};
use wholeblock::{
    AnyFraming, BlockCodec, BlockError, BlockTransport, ConfigError, Exact, Framing, Header, InOut,
    InvalidHeader, LengthField, LengthPrefix, Varint, send_blocks,
};

/// Receives all of `wire`, which holds the blocks `received`, and sends the blocks `sent`, which become
/// `written`, in every way.
fn check<F: Framing + Copy>(
    framing: F,
    wire: &[u8],
    received: &[Bytes],
    sent: &[Bytes],
    written: &[u8],
) {
    for way in WAYS {
        for chunk in [1, usize::MAX] {
            let io = Scripted::chunked(wire, chunk, false);
            let (blocks, error) = way.receive(io, BlockCodec::new(framing));
            assert!(error.is_none(), "{way:?}: {error:?}");
            assert_eq!(blocks, received, "{way:?}");
        }
    }
    assert_eq!(testing::wire(framing, sent), written);
    let mut transport = BlockTransport::new(Scripted::default(), BlockCodec::new(framing));
    let mut framed = Framed::new(Scripted::default(), BlockCodec::new(framing));
    for block in sent {
        ready(transport.send(block.clone())).unwrap();
        ready(framed.send(block.clone())).unwrap();
    }
    assert_eq!(transport.into_inner().written, written);
    assert_eq!(framed.into_inner().written, written);
    let mut transport = BlockTransport::new(Scripted::default(), BlockCodec::new(framing));
    ready(send_blocks(&mut transport, stream::iter(sent.to_vec()))).unwrap();
    assert_eq!(transport.into_inner().written, written);
}

#[test]
fn each_direction_uses_its_own_framing() {
    fn check_with<F: Framing + Copy>(Case { framing, .. }: Case<F>) {
        let prefix = LengthPrefix::bytes(5).unwrap();
        let lens = [3, 0, 130, 2];
        let (ours, prefixed) = (numbered_for(&framing, &lens), numbered_for(&prefix, &lens));
        let (our_wire, prefixed_wire) = (wire(framing, &ours), wire(prefix, &prefixed));
        let (incoming, outgoing) = (framing, prefix);
        let one = InOut { incoming, outgoing };
        check(one, &our_wire, &ours, &prefixed, &prefixed_wire);
        let (incoming, outgoing) = (prefix, framing);
        let other = InOut { incoming, outgoing };
        check(other, &prefixed_wire, &prefixed, &ours, &our_wire);
    }
    with_each_framing!(|case| check_with(case));
}

#[test]
fn in_out_takes_a_framing_chosen_at_run_time_and_nests() {
    let words = LengthField::config().unit(2).build().unwrap();
    for incoming in [AnyFraming::from(words), LengthPrefix::u32().into()] {
        let framing = InOut {
            incoming,
            outgoing: LengthPrefix::u16(),
        };
        let blocks = [Bytes::from("even")];
        let arrives = wire(incoming, &blocks);
        check(framing, &arrives, &blocks, &blocks, b"\0\x04even");
        let swapped = InOut {
            incoming: framing.outgoing,
            outgoing: incoming,
        };
        check(swapped, b"\0\x04even", &blocks, &blocks, &arrives);
    }

    let u8s = LengthPrefix::u8();
    let nested = InOut {
        incoming: InOut {
            incoming: u8s,
            outgoing: Varint::new(),
        },
        outgoing: InOut {
            incoming: Varint::new(),
            outgoing: LengthPrefix::u16(),
        },
    };
    let blocks = [Bytes::from("five5")];
    check(nested, b"\x05five5", &blocks, &blocks, b"\0\x05five5");
    let codec = BlockCodec::new(nested);
    assert_eq!(
        (codec.max_decode_len(), codec.max_encode_len()),
        (255, 65_535)
    );
}

#[test]
fn each_direction_has_the_limits_of_its_framing() {
    let limits = |codec: &BlockCodec<_>| (codec.max_decode_len(), codec.max_encode_len());
    let incoming = LengthPrefix::u8();
    let outgoing = LengthPrefix::u16().max_block_len(1_000).unwrap();
    let framing = InOut { incoming, outgoing };
    let mut codec = BlockCodec::new(framing);
    assert_eq!(limits(&codec), (255, 1_000));

    let too_large = |limit, max| Err(ConfigError::LimitTooLarge { limit, max });
    assert_eq!(codec.set_max_decode_len(256), too_large(256, 255));
    assert_eq!(codec.set_max_encode_len(1_001), too_large(1_001, 1_000));
    assert_eq!(codec.set_max_block_len(256), too_large(256, 255));
    assert_eq!(limits(&codec), (255, 1_000), "nothing was changed");
    codec.set_max_encode_len(256).unwrap();
    codec.set_max_decode_len(254).unwrap();
    assert_eq!(limits(&codec), (254, 256));
    codec.set_max_block_len(255).unwrap();
    assert_eq!(limits(&codec), (255, 255));

    codec.set_framing(framing);
    assert_eq!(limits(&codec), (255, 1_000));
    let swapped = InOut {
        incoming: outgoing,
        outgoing: incoming,
    };
    let mut codec = codec.with_framing(swapped);
    assert_eq!(limits(&codec), (1_000, 255));
    assert_eq!(codec.set_max_block_len(256), too_large(256, 255));
    assert_eq!(limits(&codec), (1_000, 255), "nothing was changed");

    // A direction whose blocks have one length allows no other limit.
    let exact = InOut {
        incoming: Exact::new(5).unwrap(),
        outgoing: LengthPrefix::u8(),
    };
    let mut codec = BlockCodec::new(exact);
    assert_eq!(codec.set_max_encode_len(4), Ok(()));
    let too_small = ConfigError::LimitTooSmall { limit: 4, min: 5 };
    assert_eq!(codec.set_max_decode_len(4), Err(too_small));
    assert_eq!(codec.set_max_block_len(4), Err(too_small));
    assert_eq!(codec.set_max_block_len(5), Ok(()));
}

#[test]
fn blocks_outside_the_lengths_of_their_direction_are_refused() {
    let framing = InOut {
        incoming: LengthPrefix::u32().max_block_len(3).unwrap(),
        outgoing: LengthField::config().keep_header().build().unwrap(),
    };
    let mut codec = BlockCodec::new(framing);
    let error = codec.decode(&mut BytesMut::from(&b"\0\0\0\x04four"[..]));
    assert!(
        matches!(
            error,
            Err(BlockError::TooLarge {
                announced: 4,
                limit: 3,
                ..
            })
        ),
        "{error:?}"
    );
    // A block of up to 8 MiB includes its header of 4 bytes.
    for len in [0, 3, 8 * MIB + 1] {
        let error = codec.encode(vec![0; len].into(), &mut BytesMut::new());
        assert!(
            matches!(
                error,
                Err(BlockError::WrongSize {
                    min: 4,
                    max: 0x80_0000,
                    limit: 0x80_0000,
                    actual,
                    index: 0,
                }) if actual == len as u64
            ),
            "{error:?}"
        );
    }
    codec.set_max_encode_len(5).unwrap();
    let error = codec.encode(vec![0; 6].into(), &mut BytesMut::new());
    assert!(
        matches!(
            error,
            Err(BlockError::WrongSize {
                max: 0x80_0000,
                limit: 5,
                ..
            })
        ),
        "{error:?}"
    );
}

#[test]
fn outgoing_framing_reads_back_what_is_sent() {
    let kept = LengthField::config().keep_header().build().unwrap();
    let codec = || {
        BlockCodec::new(InOut {
            incoming: LengthPrefix::u8(),
            outgoing: kept,
        })
    };
    let mut wire = BytesMut::new();
    // The incoming framing would read a length of one byte in both.
    for (block, announced) in [("\x01\0\0\0", 0x0100_0004), ("\0\0\0\x03ab", 7)] {
        let error = codec().encode(block.into(), &mut wire);
        assert!(
            matches!(
                error,
                Err(BlockError::WrongHeader { announced: Some(it), .. }) if it == announced
            ),
            "{error:?}"
        );
        assert_eq!(wire, "");
    }
    let honest = Bytes::from("\0\0\0\x02ab");
    codec().encode(honest.clone(), &mut wire).unwrap();
    assert_eq!(wire, honest);

    // The header is longer than what is read back at first.
    let far = LengthField::config().offset(100).keep_header();
    let mut codec = BlockCodec::new(InOut {
        incoming: LengthPrefix::u8(),
        outgoing: far.build().unwrap(),
    });
    let mut block = [&[9; 100][..], &[0, 0, 0, 1], b"x"].concat();
    codec.encode(block.clone().into(), &mut wire).unwrap();
    block.push(b'y');
    let error = codec.encode(block.into(), &mut wire);
    assert!(
        matches!(
            error,
            Err(BlockError::WrongHeader {
                announced: Some(105),
                ..
            })
        ),
        "{error:?}"
    );
}

#[test]
fn incoming_framing_limits_the_length_of_received_headers() {
    let lines = |incoming, outgoing| {
        let framing = InOut {
            incoming: Line::up_to(incoming),
            outgoing: Line::up_to(outgoing),
        };
        let mut codec = BlockCodec::new(framing);
        codec.decode(&mut BytesMut::from(&b"five5"[..]))
    };
    assert!(matches!(lines(6, 5), Ok(None)));
    assert!(matches!(lines(5, 6), Err(BlockError::InvalidHeader { .. })));
}

#[test]
fn in_out_decodes_with_incoming_and_encodes_with_outgoing() {
    let framing = InOut {
        incoming: LengthPrefix::u8().max_block_len(100).unwrap(),
        outgoing: LengthPrefix::u16(),
    };
    assert_eq!(framing.block_lens(), 0..=255);
    assert_eq!(framing.max_whole_len(), 100);
    assert_eq!(framing.max_header_len(), 1);
    let complete = Header::Complete {
        stripped: 1,
        block_len: 7,
    };
    assert_eq!(framing.decode_header(b"\x07"), Ok(complete));
    let mut header = Vec::new();
    framing.encode_header(7, &mut header);
    assert_eq!(header, b"\0\x07");
    let invalid = InOut {
        incoming: Varint::new().minimal(),
        outgoing: Exact::new(1).unwrap(),
    }
    .decode_header(b"\x80\0");
    assert!(matches!(invalid, Err(InvalidHeader(_))), "{invalid:?}");
}
