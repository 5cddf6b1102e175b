//! Netty's `LengthFieldBasedFrameDecoder` and `LengthFieldPrepender`.

use bytes::BytesMut;
use tokio_util::codec::Decoder;
use wholeblock::{BlockCodec, BlockError, LengthField, LengthPrefix};

use super::Row;

#[test]
fn each_example_of_length_field_based_frame_decoder_reads_and_writes_the_same() {
    let rows = [
        Row::field(
            "2 bytes at 0, header kept",
            LengthField::config().width(2).keep_header(),
            b"\0\x0cHELLO, WORLD",
            &[b"\0\x0cHELLO, WORLD"],
        ),
        Row::field(
            "2 bytes at 0, header stripped",
            LengthField::config().width(2),
            b"\0\x0cHELLO, WORLD",
            &[b"HELLO, WORLD"],
        ),
        Row::field(
            "2 bytes at 0, header kept, the length counts the whole message",
            LengthField::config().width(2).adjustment(-2).keep_header(),
            b"\0\x0eHELLO, WORLD",
            &[b"\0\x0eHELLO, WORLD"],
        ),
        Row::field(
            "3 bytes at the end of a header of 5, kept",
            LengthField::config().offset(2).width(3).keep_header(),
            b"\xca\xfe\0\0\x0cHELLO, WORLD",
            &[b"\xca\xfe\0\0\x0cHELLO, WORLD"],
        ),
        Row::field(
            "3 bytes at the beginning of a header of 5, kept",
            LengthField::config()
                .width(3)
                .adjustment(2)
                .header_len(5)
                .keep_header(),
            b"\0\0\x0c\xca\xfeHELLO, WORLD",
            &[b"\0\0\x0c\xca\xfeHELLO, WORLD"],
        ),
        Row::field(
            "2 bytes at 1 in a header of 4; HDR1, which has content, and the length are stripped",
            LengthField::config()
                .offset(1)
                .width(2)
                .adjustment(1)
                .header_len(4)
                .strip(3),
            b"\xca\0\x0c\xfeHELLO, WORLD",
            &[b"\xfeHELLO, WORLD"],
        )
        .sent_as(b"\0\0\x0c\xfeHELLO, WORLD"),
        Row::field(
            "the same, and the length counts the whole message",
            LengthField::config()
                .offset(1)
                .width(2)
                .adjustment(-3)
                .header_len(4)
                .strip(3),
            b"\xca\0\x10\xfeHELLO, WORLD",
            &[b"\xfeHELLO, WORLD"],
        )
        .sent_as(b"\0\0\x10\xfeHELLO, WORLD"),
    ];
    for row in rows {
        row.check();
    }
}

#[test]
fn each_example_of_length_field_prepender_writes_and_reads_the_same() {
    let rows = [
        Row::new(
            "LengthFieldPrepender(2)",
            LengthPrefix::u16(),
            b"\0\x0cHELLO, WORLD",
            &[b"HELLO, WORLD"],
        ),
        Row::new(
            "LengthFieldPrepender(2, true)",
            LengthPrefix::u16().including_header().unwrap(),
            b"\0\x0eHELLO, WORLD",
            &[b"HELLO, WORLD"],
        ),
        Row::field(
            "LengthFieldPrepender(2, true) as a field",
            LengthField::config().width(2).adjustment(-2),
            b"\0\x0eHELLO, WORLD",
            &[b"HELLO, WORLD"],
        ),
        Row::field(
            "LengthFieldPrepender(2, 3), whose adjustment is added to what is written",
            LengthField::config().width(2).adjustment(-3),
            b"\0\x0fHELLO, WORLD",
            &[b"HELLO, WORLD"],
        ),
    ];
    for row in rows {
        row.check();
    }
}

#[test]
fn frame_over_the_maximum_can_be_skipped_as_netty_does() {
    // new LengthFieldBasedFrameDecoder(14, 0, 2, 0, 2): 14 bytes with what is stripped.
    let framing = LengthField::config()
        .width(2)
        .max_block_len(14 - 2)
        .build()
        .unwrap();
    let wire = b"\0\x0cHELLO, WORLD\0\x0dHELLO, WORLD!\0\x02OK";

    let mut codec = BlockCodec::new(framing).skip_too_large(true);
    let mut arrived = BytesMut::from(&wire[..]);
    for block in ["HELLO, WORLD", "OK"] {
        assert_eq!(codec.decode(&mut arrived).unwrap().unwrap(), block);
    }
    assert_eq!(codec.skipped_blocks(), 1);

    let mut codec = BlockCodec::new(framing);
    let mut arrived = BytesMut::from(&wire[..]);
    assert_eq!(codec.decode(&mut arrived).unwrap().unwrap(), "HELLO, WORLD");
    let error = codec.decode(&mut arrived).unwrap_err();
    let refused = matches!(
        error,
        BlockError::TooLarge {
            announced: 13,
            limit: 12,
            index: 1,
            ..
        }
    );
    assert!(refused, "{error:?}");
}

#[test]
fn a_frame_that_is_shorter_than_its_header_is_invalid() {
    // Netty's `CorruptedFrameException`, for a length that counts the whole message.
    let framing = LengthField::config()
        .width(2)
        .adjustment(-2)
        .keep_header()
        .build()
        .unwrap();
    for value in [0, 1] {
        let error = BlockCodec::new(framing).decode(&mut BytesMut::from(&[0, value][..]));
        let invalid = matches!(error, Err(BlockError::InvalidHeader { .. }));
        assert!(invalid, "{value}: {error:?}");
    }
}
