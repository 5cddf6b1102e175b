//! `LengthField` in any configuration: what it builds, refuses, decodes and encodes, against an
//! oracle of a few lines here, and against `LengthDelimitedCodec` where that is right.

use bytes::{Bytes, BytesMut};
use proptest::{prelude::*, sample::Index};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};
use wholeblock::{BlockCodec, BlockError, ConfigError, LengthField, LengthFieldConfig, Limit};

use crate::support::MIB;

/// What no limit exceeds: an allocation must hold a block with its header.
const MAX_LIMIT: i128 = isize::MAX as i128 / 2;

/// The lengths of a configuration, worked out in integers that cannot overflow.
#[derive(Clone, Copy, Debug)]
struct Oracle {
    config: LengthFieldConfig,
    field_end: usize,
    strip: usize,
    /// A block has as many bytes as its length field says, and these.
    delta: i128,
    min: i128,
    max: i128,
}

impl Oracle {
    /// What `config` means; the kind of its error, if it cannot work.
    fn new(config: LengthFieldConfig) -> Result<Self, &'static str> {
        let field_end = config.offset + config.width;
        let header_len = config.header_len.unwrap_or(field_end);
        let strip = config.strip.unwrap_or(header_len);
        if config.width == 0 || config.width > 8 {
            return Err("width");
        }
        if field_end > header_len || strip > header_len || header_len > 1024 {
            return Err("header");
        }
        let delta = i128::from(config.adjustment) + field_end as i128 - strip as i128;
        let largest = (1_i128 << (8 * config.width)) - 1 + delta;
        let (min, fits) = (
            delta.max((header_len - strip) as i128),
            largest.min(MAX_LIMIT),
        );
        if min > fits {
            return Err("adjustment");
        }
        let max = match config.limit {
            Limit::Strict(limit) if limit as i128 > fits => return Err("limit too large"),
            Limit::Strict(limit) | Limit::Clamped(limit) if (limit as i128) < min => {
                return Err("limit too small");
            }
            Limit::Strict(limit) | Limit::Clamped(limit) => fits.min(limit as i128),
            Limit::None => fits,
        };
        Ok(Self {
            config,
            field_end,
            strip,
            delta,
            min,
            max,
        })
    }

    /// What the length field at the front of `wire` says that its block has; none before it is all
    /// there.
    fn announced(&self, wire: &[u8]) -> Option<i128> {
        if wire.len() < self.strip {
            return None;
        }
        let mut field = wire.get(self.config.offset..self.field_end)?.to_vec();
        if self.config.little_endian {
            field.reverse();
        }
        let value = field
            .iter()
            .fold(0, |value, byte| value << 8 | i128::from(*byte));
        Some(value + self.delta)
    }

    /// `content` as it is on the wire: with zeros where it is stripped, and its length in its place.
    fn wire(&self, content: &[u8]) -> Vec<u8> {
        let mut wire = vec![0; self.strip];
        wire.extend_from_slice(content);
        let value = (content.len() as i128 - self.delta) as u64;
        let mut field = value.to_be_bytes()[8 - self.config.width..].to_vec();
        if self.config.little_endian {
            field.reverse();
        }
        wire[self.config.offset..self.field_end].copy_from_slice(&field);
        wire
    }

    /// tokio-util's codec for the same blocks.
    fn length_delimited(&self) -> LengthDelimitedCodec {
        let mut builder = LengthDelimitedCodec::builder();
        builder
            .length_field_offset(self.config.offset)
            .length_field_length(self.config.width)
            .length_adjustment(self.delta as isize)
            .num_skip(self.strip)
            .max_frame_length(MIB);
        match self.config.little_endian {
            true => builder.little_endian().new_codec(),
            false => builder.new_codec(),
        }
    }
}

fn limits() -> impl Strategy<Value = Limit> {
    prop_oneof![
        4 => Just(LengthField::config().limit),
        1 => Just(Limit::None),
        2 => (0..400_usize).prop_map(Limit::Strict),
        2 => (0..400_usize).prop_map(Limit::Clamped),
        1 => any::<usize>().prop_map(Limit::Strict),
        1 => any::<usize>().prop_map(Limit::Clamped),
    ]
}

fn configs() -> impl Strategy<Value = LengthFieldConfig> {
    let adjustments = prop_oneof![
        20 => -24..24_i64,
        2 => -300..300_i64,
        1 => any::<i64>(),
    ];
    (
        (0..20_usize).prop_map(|width| if width > 9 { width % 8 + 1 } else { width }),
        any::<bool>(),
        prop_oneof![9 => 0..12_usize, 1 => 0..1_200_usize],
        prop::option::weighted(0.6, prop_oneof![9 => 0..30_usize, 1 => 0..1_200_usize]),
        adjustments,
        prop::option::weighted(0.6, 0..24_usize),
        limits(),
    )
        .prop_map(
            |(width, little_endian, offset, header_len, adjustment, strip, limit)| {
                let mut config = LengthField::config();
                config.width = width;
                config.little_endian = little_endian;
                config.offset = offset;
                config.header_len = header_len;
                config.adjustment = adjustment;
                config.strip = strip;
                config.limit = limit;
                config
            },
        )
}

/// Bytes as headers have them: most are small.
fn fronts() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(0), 2 => 0..40_u8, 1 => any::<u8>()];
    prop::collection::vec(byte, 0..80)
}

fn kind(error: ConfigError) -> &'static str {
    match error {
        ConfigError::Width { .. } => "width",
        ConfigError::Header { .. } => "header",
        ConfigError::Adjustment { .. } => "adjustment",
        ConfigError::LimitTooLarge { .. } => "limit too large",
        ConfigError::LimitTooSmall { .. } => "limit too small",
        other => panic!("{other:?}"),
    }
}

/// What arrived at `wire`'s front is decoded as the oracle says, and as tokio-util does.
fn check_received(oracle: &Oracle, framing: LengthField, wire: &[u8]) {
    let mut src = BytesMut::from(wire);
    let decoded = BlockCodec::new(framing).decode(&mut src);
    let Some(len) = oracle.announced(wire) else {
        assert!(matches!(decoded, Ok(None)), "{decoded:?}");
        return;
    };
    if len > oracle.max {
        assert!(
            matches!(decoded, Err(BlockError::TooLarge { announced, .. })
                if i128::from(announced) == len.min(u64::MAX.into())),
            "{decoded:?}"
        );
        return;
    }
    if len < oracle.min {
        assert!(
            matches!(decoded, Err(BlockError::InvalidHeader { .. })),
            "{decoded:?}"
        );
        return;
    }
    let block = wire[oracle.strip..].get(..len as usize);
    assert_eq!(decoded.unwrap().as_deref(), block);

    // tokio-util compares its limit, lowered by what is subtracted, with what the field says before
    // anything is subtracted: so it refuses lengths that it encodes.
    let mut theirs = oracle.length_delimited();
    let value = len - oracle.delta;
    if value <= theirs.max_frame_length() as i128 && oracle.delta.abs() < MIB as i128 {
        let mut left = BytesMut::from(wire);
        let decoded = theirs.decode(&mut left).unwrap();
        assert_eq!(decoded.as_deref(), block, "tokio-util");
        if block.is_some() {
            assert_eq!(src, left, "what is left");
        }
    }
}

/// `content` is sent as the oracle says, if it may be, and comes back; a byte changed in a length
/// that it brings along is noticed.
fn check_sent(oracle: &Oracle, framing: LengthField, content: &[u8]) {
    let send = |block: &[u8]| {
        let mut wire = BytesMut::from("before");
        let sent = BlockCodec::new(framing).encode(Bytes::copy_from_slice(block), &mut wire);
        let wire = wire.strip_prefix(b"before").unwrap().to_vec();
        assert!(sent.is_ok() || wire.is_empty(), "{sent:?}: {wire:?}");
        sent.map(|()| wire)
    };
    let len = content.len() as i128;
    if !(oracle.min..=oracle.max).contains(&len) {
        let sent = send(content);
        assert!(
            matches!(sent, Err(BlockError::WrongSize { .. })),
            "{sent:?}"
        );
        return;
    }
    let wire = oracle.wire(content);
    let block = &wire[oracle.strip..];
    assert_eq!(send(block).unwrap(), wire);
    check_received(oracle, framing, &wire);

    let kept = oracle.config.offset.max(oracle.strip)..oracle.field_end;
    for at in kept {
        let mut lie = block.to_vec();
        lie[at - oracle.strip] ^= 1;
        let sent = send(&lie);
        assert!(
            matches!(sent, Err(BlockError::WrongHeader { .. })),
            "{sent:?}"
        );
    }
}

/// A release build looks at 100,000 configurations in some seconds, a debug build at fewer.
const CASES: u32 = if cfg!(debug_assertions) {
    5_000
} else {
    100_000
};

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_configuration_decodes_what_it_encoded_and_refuses_what_it_must(
        config in configs(),
        front in fronts(),
        cut: Index,
        content in fronts(),
        exact: bool,
        len: Index,
    ) {
        let oracle = Oracle::new(config);
        let built = config.build();
        let (oracle, framing) = match (oracle, built) {
            (Ok(oracle), Ok(framing)) => (oracle, framing),
            (oracle, built) => {
                prop_assert_eq!(built.map_err(kind).err(), oracle.err());
                return Ok(());
            }
        };
        prop_assert_eq!(framing.to_config(), config);
        check_received(&oracle, framing, &front);

        let mut content = content;
        if exact && oracle.min < 2_000 {
            // A length that it carries, most often.
            let most = oracle.max.min(oracle.min + 300) - oracle.min + 1;
            content.resize(oracle.min as usize + len.index(most as usize), 7);
        }
        check_sent(&oracle, framing, &content);
        if (oracle.min..=oracle.max).contains(&(content.len() as i128)) {
            let wire = oracle.wire(&content);
            check_received(&oracle, framing, &wire[..cut.index(wire.len() + 1)]);
        }
    }
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
