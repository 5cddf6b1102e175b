//! `LengthField`: what it does as `LengthDelimitedCodec` does, and what it refuses that this one
//! accepts. Any configuration, against the reference, is what `fuzz/` tries.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};
use wholeblock::{BlockCodec, BlockError, ConfigError, LengthField, LengthFieldConfig};

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
fn a_configuration_that_tokio_util_encodes_and_cannot_decode_is_refused() {
    // A length of one byte that counts 4 bytes more than follow it: of 255, 251 may follow.
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
fn what_is_stripped_around_the_length_is_written_as_zeros() {
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
