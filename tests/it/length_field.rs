//! `LengthField`: where it agrees with `LengthDelimitedCodec`, and what it refuses that the other accepts.
//! `fuzz/` compares every configuration with the reference.

use bytes::{Bytes, BytesMut};
use testing::{Scripted, ready};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};
use wholeblock::{
    AnyFraming, BlockCodec, BlockError, BlockTransport, ConfigError, Framing, Header,
    InvalidHeader, LengthField, LengthFieldConfig, check_framing,
};

/// Decodes `wire` with `LengthDelimitedCodec`. Its adjustment counts from the header's end.
fn decode_theirs(config: LengthFieldConfig, wire: &[u8]) -> Option<BytesMut> {
    let field_end = config.offset + config.width;
    let strip = config.strip.unwrap_or(field_end);
    let mut builder = LengthDelimitedCodec::builder();
    builder
        .length_field_offset(config.offset)
        .length_field_length(config.width)
        .length_adjustment(config.adjustment as isize + field_end as isize - strip as isize)
        .num_skip(strip);
    let mut codec = match config.little_endian {
        true => builder.little_endian().new_codec(),
        false => builder.new_codec(),
    };
    codec.decode(&mut wire.into()).unwrap()
}

#[test]
fn every_short_configuration_decodes_as_length_delimited_codec_does() {
    let mut compared = 0;
    for (offset, width, strip) in (0..4).flat_map(|offset| {
        (1..4).flat_map(move |width| (0..=offset + width).map(move |strip| (offset, width, strip)))
    }) {
        for (adjustment, little_endian) in
            (-4..5).flat_map(|adjustment| [(adjustment, false), (adjustment, true)])
        {
            let mut config = LengthField::config();
            (config.offset, config.width, config.strip) = (offset, width, Some(strip));
            (config.adjustment, config.little_endian) = (adjustment, little_endian);
            let framing = config.build().unwrap();
            for value in 0..12_u8 {
                let at = offset + if little_endian { 0 } else { width - 1 };
                let mut wire: Vec<u8> = (100..140).collect();
                wire[offset..offset + width].fill(0);
                wire[at] = value;
                let ours = BlockCodec::new(framing).decode(&mut wire[..].into());
                let announced = i64::from(value) + adjustment;
                if announced < 0 {
                    assert!(matches!(ours, Err(BlockError::InvalidHeader { .. })));
                    continue;
                }
                let block = ours.unwrap().unwrap();
                assert_eq!(block, decode_theirs(config, &wire).unwrap(), "{config:?}");
                assert_eq!(
                    block,
                    wire[strip..][..offset + width - strip + announced as usize]
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 5_000, "{compared}");
}

#[test]
fn length_that_tokio_util_encodes_and_cannot_decode_is_refused() {
    // The length has one byte and counts 4 bytes more than follow it, so at most 251 can follow.
    let config = LengthField::config().width(1).adjustment(-4);
    let framing = config.build().unwrap();
    let mut wire = BytesMut::new();
    let mut codec = BlockCodec::new(framing);
    codec.encode(Bytes::from(vec![7; 251]), &mut wire).unwrap();
    assert_eq!(wire[0], 255);
    let refused = codec.encode(Bytes::from(vec![7; 252]), &mut wire);
    assert_eq!(
        refused.unwrap_err().to_string(),
        "block 1, of 252 bytes, cannot be sent: the framing carries at most 251",
    );
    assert_eq!(
        config.max_block_len(252).build(),
        Err(ConfigError::LimitTooLarge {
            limit: 252,
            max: 251
        })
    );
}

#[test]
fn stripped_bytes_around_the_length_are_written_as_zeros() {
    let config = LengthField::config().offset(5).header_len(20);
    let mut codec = BlockCodec::new(config.build().unwrap());
    let mut wire = BytesMut::new();
    codec.encode(Bytes::from("x"), &mut wire).unwrap();
    // The length counts what follows it: 11 bytes of header, and the block.
    assert_eq!(wire, [&[0; 8][..], &[12], &[0; 11], b"x"].concat());
    assert_eq!(codec.decode(&mut wire).unwrap().unwrap(), "x");
}

#[test]
fn settings_can_be_changed_in_place_and_read() {
    let mut config = LengthField::config();
    config.width = 2;
    config.little_endian = true;
    config.strip = Some(0);
    let by_value = LengthField::config().width(2).little_endian().keep_header();
    assert_eq!(config, by_value);
    let framing = config.build().unwrap();
    assert_eq!(framing.to_config(), config);
    assert_eq!(framing.to_config().header_len, None);
}

#[test]
fn units_multiply_the_lengths_that_a_field_carries() {
    let lens = |config: LengthFieldConfig| config.build().map(|framing| framing.block_lens());
    let words = LengthField::config().width(2).unit(4);
    assert_eq!(lens(words), Ok(0..=0xffff * 4));
    assert_eq!(lens(words.adjustment(3)), Ok(3..=0xffff * 4 + 3));
    // X11: the length counts the header.
    let x11 = words.offset(2).adjustment(-4).keep_header();
    assert_eq!(lens(x11), Ok(4..=0xffff * 4));
    // The shortest block has all of its header, and is a whole number of units.
    assert_eq!(lens(x11.header_len(5)), Ok(8..=0xffff * 4));
    assert_eq!(lens(x11.header_len(8)), Ok(8..=0xffff * 4));
    assert_eq!(lens(x11.header_len(9)), Ok(12..=0xffff * 4));
    assert_eq!(lens(x11.adjustment(-6)), Ok(6..=0xffff * 4 - 2));
    assert_eq!(
        x11.max_block_len(3).build(),
        Err(ConfigError::LimitTooSmall { limit: 3, min: 4 })
    );
    assert_eq!(
        words.max_block_len(0xffff * 4 + 1).build(),
        Err(ConfigError::LimitTooLarge {
            limit: 0xffff * 4 + 1,
            max: 0xffff * 4
        })
    );

    // The product is more than any length, whatever is added.
    let wide = LengthField::config().width(8);
    assert_eq!(lens(wide.unit(2)), Ok(0..=u64::MAX));
    assert_eq!(lens(wide.unit(2).adjustment(-9)), Ok(1..=u64::MAX - 9));
    assert_eq!(lens(wide.unit(usize::MAX)), Ok(0..=u64::MAX));
    if let Ok(unit) = usize::try_from(u64::MAX) {
        // A unit minus 2^63 bytes is still longer than any allocation.
        let adjustment = i64::MIN;
        assert_eq!(
            lens(wide.unit(unit).adjustment(adjustment)),
            Err(ConfigError::Adjustment { adjustment })
        );
    }
    assert_eq!(wide.unit(0).build(), Err(ConfigError::Unit));
    assert_eq!(
        ConfigError::Unit.to_string(),
        "a unit of a length has at least 1 byte"
    );

    // Even a value of 255 is less than what the length counts.
    let few = LengthField::config().width(1).unit(2);
    assert_eq!(lens(few.adjustment(-510)), Ok(0..=0));
    assert_eq!(
        lens(few.adjustment(-511)),
        Err(ConfigError::Adjustment { adjustment: -511 })
    );
}

#[test]
fn each_unit_reads_what_it_writes_and_refuses_fractions() {
    let mut sent = 0;
    for (unit, width, adjustment) in
        (1..6).flat_map(|unit| (1..5).flat_map(move |w| (-7..4).map(move |a| (unit, w, a))))
    {
        let config = LengthField::config().unit(unit).adjustment(adjustment);
        let framing = config.width(width).build().unwrap();
        if let (2, -4 | 1) = (width, adjustment) {
            check_framing(&framing).unwrap();
            check_framing(&AnyFraming::from(framing)).unwrap();
        }
        let shortest = *framing.block_lens().start() as usize;
        for len in shortest..shortest + 20 {
            let mut wire = BytesMut::new();
            let mut codec = BlockCodec::new(framing);
            let encoded = codec.encode(vec![7; len].into(), &mut wire);
            let counted = len as i64 - adjustment;
            if counted % unit as i64 != 0 {
                let before = (counted - counted % unit as i64 + adjustment) as u64;
                assert!(
                    matches!(encoded, Err(BlockError::WrongHeader { announced, reason: None, .. })
                        if announced == Some(before)),
                    "{encoded:?}: {len} bytes, {config:?}"
                );
                assert_eq!(wire, "");
                continue;
            }
            encoded.unwrap();
            let value = (counted / unit as i64).to_be_bytes();
            assert_eq!(wire[..width], value[8 - width..], "{len} bytes, {config:?}");
            assert_eq!(codec.decode(&mut wire).unwrap().unwrap(), vec![7; len]);
            sent += 1;
        }
    }
    assert!(sent > 1_500, "{sent}");
}

#[test]
fn block_with_a_fraction_of_a_unit_is_not_sent() {
    let words = LengthField::config().unit(4).build().unwrap();
    let mut transport = BlockTransport::new(Scripted::default(), BlockCodec::new(words));
    ready(transport.send("four")).unwrap();
    let error = ready(transport.send("five5")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "block 1, of 5 bytes, cannot be sent: its header announces 4",
    );
    ready(transport.send("")).unwrap();
    assert_eq!(transport.get_ref().written, b"\0\0\0\x01four\0\0\0\0");
}

#[test]
fn overflowing_lengths_in_units_saturate() {
    let wide = LengthField::config().width(8).unit(4);
    let read = |config: LengthFieldConfig, value: u64| {
        let read = config.build().unwrap().decode_header(&value.to_be_bytes());
        read.map(|header| match header {
            Header::Complete {
                stripped: 8,
                block_len,
            } => block_len,
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(read(wide, 1 << 61), Ok(1 << 63));
    assert_eq!(read(wide, (1 << 62) - 1), Ok(u64::MAX - 3));
    assert_eq!(read(wide, 1 << 62), Ok(u64::MAX));
    assert_eq!(read(wide, u64::MAX), Ok(u64::MAX));
    let less = wide.adjustment(-8);
    assert_eq!(read(less, (1 << 62) - 1), Ok(u64::MAX - 3 - 8));
    assert_eq!(read(less, 1 << 62), Ok(u64::MAX - 8));
    let invalid = InvalidHeader("its length is less than what it counts");
    assert_eq!(read(less, 1), Err(invalid));
    assert_eq!(read(less, 2), Ok(0));
    let most = wide.unit(usize::MAX).adjustment(1_000);
    assert_eq!(read(most, u64::MAX), Ok(u64::MAX));

    let mut header = Vec::new();
    let framing = less.build().unwrap();
    framing.encode_header(u64::MAX - 3 - 8, &mut header);
    assert_eq!(header, ((1_u64 << 62) - 1).to_be_bytes());

    let mut codec = BlockCodec::new(framing);
    let error = codec.decode(&mut BytesMut::from(&[0xff; 8][..]));
    assert!(
        matches!(
            error,
            Err(BlockError::TooLarge {
                announced: 0xffff_ffff_ffff_fff7,
                ..
            })
        ),
        "{error:?}"
    );
}
