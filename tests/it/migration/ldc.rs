//! tokio-util's `LengthDelimitedCodec`, run on the same bytes.

use std::io::{self, ErrorKind};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use tokio_util::codec::{
    Decoder, Encoder, FramedRead, LengthDelimitedCodec, length_delimited::Builder,
};
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, Framing, LengthField, LengthFieldConfig, LengthLimit,
    LengthPrefix,
};

use super::Row;
use testing::Scripted;

/// The examples of its documentation, and how it is configured for each.
fn rows() -> Vec<(Row, Builder)> {
    let ldc = LengthDelimitedCodec::builder;
    vec![
        (
            Row::new(
                "the default",
                LengthPrefix::u32(),
                b"\0\0\0\x0bhello world",
                &[b"hello world"],
            ),
            ldc(),
        ),
        (
            Row::new(
                "example 1, and the encoder's: u16",
                LengthPrefix::u16(),
                b"\0\x0bHello world",
                &[b"Hello world"],
            ),
            *ldc().length_field_type::<u16>(),
        ),
        (
            Row::field(
                "example 1 as a field",
                LengthField::config().width(2),
                b"\0\x0bHello world",
                &[b"Hello world"],
            ),
            *ldc().length_field_offset(0).length_field_type::<u16>(),
        ),
        (
            Row::field(
                "example 2: the head is kept",
                LengthField::config().width(2).keep_header(),
                b"\0\x0bHello world",
                &[b"\0\x0bHello world"],
            ),
            *ldc()
                .length_field_type::<u16>()
                .length_adjustment(2)
                .num_skip(0),
        ),
        (
            Row::field(
                "example 3: the length counts itself",
                LengthField::config().width(2).adjustment(-2),
                b"\0\x0dHello world",
                &[b"Hello world"],
            ),
            *ldc().length_field_type::<u16>().length_adjustment(-2),
        ),
        (
            Row::field(
                "example 4: 3 bytes of length in a head of 5",
                LengthField::config()
                    .width(3)
                    .adjustment(2)
                    .header_len(5)
                    .keep_header(),
                b"\0\0\x0b\xca\xfeHello world",
                &[b"\0\0\x0b\xca\xfeHello world"],
            ),
            *ldc()
                .length_field_length(3)
                .length_adjustment(3 + 2)
                .num_skip(0),
        ),
        (
            Row::field(
                "example 5: the first byte has content, and is stripped with the length",
                LengthField::config()
                    .offset(1)
                    .width(2)
                    .adjustment(1)
                    .header_len(4)
                    .strip(3),
                b"\xca\0\x0b\xfeHello world",
                &[b"\xfeHello world"],
            )
            .sent_as(b"\0\0\x0b\xfeHello world"),
            *ldc()
                .length_field_offset(1)
                .length_field_type::<u16>()
                .length_adjustment(1)
                .num_skip(3),
        ),
        (
            Row::field(
                "example 6: as example 5, with a length that counts all",
                LengthField::config()
                    .offset(1)
                    .width(2)
                    .adjustment(-3)
                    .header_len(4)
                    .strip(3),
                b"\xca\0\x0f\xfeHello world",
                &[b"\xfeHello world"],
            )
            .sent_as(b"\0\0\x0f\xfeHello world"),
            *ldc()
                .length_field_offset(1)
                .length_field_type::<u16>()
                .length_adjustment(-3)
                .num_skip(3),
        ),
        (
            Row::field(
                "example 7: a byte after the length has content, and is stripped",
                LengthField::config().width(3).adjustment(1).header_len(4),
                b"\0\0\x0b\xffHello world",
                &[b"Hello world"],
            )
            .sent_as(b"\0\0\x0b\0Hello world"),
            *ldc().length_field_length(3).num_skip(4),
        ),
        (
            Row::new(
                "little-endian",
                LengthPrefix::u16().little_endian(),
                b"\x0b\0Hello world",
                &[b"Hello world"],
            ),
            *ldc().length_field_type::<u16>().little_endian(),
        ),
        (
            Row::field(
                "as h2 configures it",
                LengthField::config()
                    .width(3)
                    .adjustment(6)
                    .header_len(9)
                    .keep_header(),
                b"\0\0\0\x04\0\0\0\0\0\0\0\x02\0\x01\0\0\0\x01hi",
                &[b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x02\0\x01\0\0\0\x01hi"],
            ),
            *ldc()
                .length_field_length(3)
                .length_adjustment(9)
                .num_skip(0),
        ),
    ]
}

#[test]
fn each_example_of_length_delimited_reads_and_writes_the_same() {
    for (row, _) in rows() {
        row.check();
    }
}

#[test]
fn length_delimited_codec_reads_the_same_blocks_from_each_example() {
    for (row, builder) in rows() {
        let mut arrived = BytesMut::from(row.wire);
        let mut codec = builder.new_codec();
        for block in row.blocks {
            assert_eq!(
                codec.decode(&mut arrived).unwrap().unwrap(),
                block,
                "{}",
                row.name
            );
        }
        assert!(arrived.is_empty(), "{}", row.name);
    }
}

/// The configuration that reads what these settings of `LengthDelimitedCodec` read.
fn config(
    offset: usize,
    width: usize,
    length_adjustment: i64,
    num_skip: usize,
) -> LengthFieldConfig {
    let field_end = offset + width;
    LengthField::config()
        .offset(offset)
        .width(width)
        .adjustment(length_adjustment + num_skip as i64 - field_end as i64)
        .header_len(field_end.max(num_skip))
        .strip(num_skip)
}

#[test]
fn rule_of_the_page_translates_all_settings_of_length_delimited() {
    // Counts blocks, lengths too small for the adjustment, and blocks shorter than their kept header.
    let mut seen = [0; 3];
    for (offset, width) in (0..3_usize).flat_map(|o| [1, 2, 3].map(|w| (o, w))) {
        for (skip, adjustment) in (0..6).flat_map(|s| (-4..7).map(move |a| (s, a))) {
            let kept = (offset + width).saturating_sub(skip);
            for value in 0..7 {
                let mut wire = [7; 40];
                wire[offset..offset + width].fill(0);
                wire[offset + width - 1] = value;

                let mut their_codec = LengthDelimitedCodec::builder()
                    .length_field_offset(offset)
                    .length_field_length(width)
                    .length_adjustment(adjustment as isize)
                    .num_skip(skip)
                    .new_codec();
                let framing = config(offset, width, adjustment, skip).build().unwrap();
                let mut our_codec = BlockCodec::new(framing);
                let theirs = their_codec.decode(&mut BytesMut::from(&wire[..]));
                let ours = our_codec.decode(&mut BytesMut::from(&wire[..]));

                let case = format!("{offset}, {width}, {adjustment}, {skip}, {value}: {ours:?}");
                match theirs.map(Option::unwrap) {
                    Ok(block) if block.len() >= kept => {
                        seen[0] += 1;
                        assert_eq!(ours.unwrap().unwrap(), block, "{case}");

                        let mut sent = BytesMut::new();
                        our_codec.encode(block.clone().freeze(), &mut sent).unwrap();
                        let read = their_codec.decode(&mut sent).unwrap().unwrap();
                        assert_eq!(read, block, "{case}, sent");
                    }
                    Err(error) => {
                        seen[1] += 1;
                        assert_eq!(error.kind(), ErrorKind::InvalidInput);
                        assert_eq!(ours.unwrap_err().kind(), ErrorKind::InvalidData, "{case}");
                    }
                    // Theirs allows a block that lacks a part of its own header.
                    Ok(_) => {
                        seen[2] += 1;
                        let invalid = matches!(ours, Err(BlockError::InvalidHeader { .. }));
                        assert!(invalid, "{case}");
                    }
                }
            }
        }
    }
    assert!(seen.iter().all(|&n| n > 100), "each case occurs: {seen:?}");
}

#[test]
fn length_delimited_limits_the_value_and_this_crate_the_block() {
    // A length that counts itself, and a kept head: at a value of 16, blocks of 14 and 22 bytes.
    for (adjustment, skip) in [(-2, 2), (6, 0)] {
        let max_frame_length = 16;
        let max_block_len = (max_frame_length + adjustment) as usize;
        let ours = config(0, 2, adjustment, skip).max_block_len(max_block_len);
        for value in [16, 17] {
            let wire = [&[0, value], &[7; 40][..]].concat();
            let theirs = LengthDelimitedCodec::builder()
                .length_field_type::<u16>()
                .length_adjustment(adjustment as isize)
                .num_skip(skip)
                .max_frame_length(max_frame_length as usize)
                .new_codec()
                .decode(&mut BytesMut::from(&wire[..]));
            let ours = BlockCodec::new(ours.build().unwrap())
                .err_into::<std::io::Error>()
                .decode(&mut BytesMut::from(&wire[..]));
            match value {
                16 => assert_eq!(ours.unwrap().unwrap(), theirs.unwrap().unwrap()),
                _ => {
                    let kinds = [ours, theirs].map(|result| result.unwrap_err().kind());
                    assert_eq!(kinds, [ErrorKind::InvalidData; 2]);
                }
            }
        }
    }
}

#[test]
fn a_limit_beyond_the_length_field_is_clipped_or_an_error() {
    let theirs = LengthDelimitedCodec::builder()
        .length_field_type::<u8>()
        .max_frame_length(300)
        .new_codec();
    assert_eq!(theirs.max_frame_length(), 255);
    let config = LengthField::config().width(1);
    assert!(config.max_block_len(300).build().is_err());
    let clamped = config.limit(LengthLimit::Clamped(300)).build().unwrap();
    assert_eq!(clamped.block_lens(), 0..=255);
}

#[test]
fn native_endian_is_a_field_of_the_configuration() {
    let mut config = LengthField::config().width(2);
    config.little_endian = cfg!(target_endian = "little");
    let mut codec = BlockCodec::new(config.build().unwrap());
    let mut theirs = LengthDelimitedCodec::builder()
        .length_field_type::<u16>()
        .native_endian()
        .new_codec();
    let [mut ours, mut wire] = [BytesMut::new(), BytesMut::new()];
    theirs
        .encode(Bytes::from_static(b"hello"), &mut wire)
        .unwrap();
    codec
        .encode(Bytes::from_static(b"hello"), &mut ours)
        .unwrap();
    assert_eq!(ours, wire);
    assert_eq!(codec.decode(&mut wire).unwrap().unwrap(), "hello");
}

#[test]
fn length_delimited_encoder_omits_the_bytes_before_the_length() {
    let mut theirs = LengthDelimitedCodec::builder()
        .length_field_offset(1)
        .length_field_type::<u16>()
        .new_codec();
    let ours = LengthField::config().offset(1).width(2).build().unwrap();
    let mut wire = BytesMut::new();
    theirs
        .encode(Bytes::from_static(b"hello"), &mut wire)
        .unwrap();
    assert_eq!(wire, &b"\0\x05hello"[..], "which it would not read back");
    assert_eq!(
        testing::wire(ours, &[Bytes::from_static(b"hello")]),
        b"\0\0\x05hello"
    );
}

#[test]
fn an_end_after_a_header_is_clean_for_length_delimited_and_an_error_here() {
    let cut = &b"\0\0\0\x05"[..];
    let mut theirs = FramedRead::new(cut, LengthDelimitedCodec::new());
    assert!(theirs.next().now_or_never().unwrap().is_none());
    let codec = BlockCodec::length_prefixed().err_into::<std::io::Error>();
    let error = FramedRead::new(cut, codec).next().now_or_never().unwrap();
    assert_eq!(error.unwrap().unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

/// Forgives an end without a goodbye, as h2's server does, in the lines of the page.
fn forgive(error: io::Error) -> io::Result<()> {
    let cut = error
        .get_ref()
        .is_some_and(|inner| inner.is::<BlockError>());
    if error.kind() == ErrorKind::UnexpectedEof && !cut {
        return Ok(());
    }
    Err(error)
}

#[test]
fn cut_block_is_not_forgiven_as_an_end() {
    let whole = b"\0\0\0\x05hello";
    for len in 1..whole.len() {
        let codec = BlockCodec::length_prefixed().err_into::<io::Error>();
        let mut ours = BlockTransport::new(&whole[..len], codec);
        let error = ours.next().now_or_never().unwrap().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{len}");
        assert!(forgive(error).is_err(), "{len}");

        // Theirs has a kind that nobody forgives, or is a clean end.
        let mut theirs = FramedRead::new(&whole[..len], LengthDelimitedCodec::new());
        let end = theirs.next().now_or_never().unwrap();
        let kind = end.map(|error| error.unwrap_err().kind());
        assert!(matches!(kind, None | Some(ErrorKind::Other)), "{kind:?}");
    }

    let io = Scripted::default().fail(ErrorKind::UnexpectedEof);
    let codec = BlockCodec::length_prefixed().err_into::<io::Error>();
    let mut silent = BlockTransport::new(io, codec);
    let error = silent.next().now_or_never().unwrap().unwrap().unwrap_err();
    assert!(forgive(error).is_ok());
}
