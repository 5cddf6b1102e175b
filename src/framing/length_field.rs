//! [`LengthField`]: a header with a length field anywhere in it.

mod config;

use std::ops::RangeInclusive;

use bytes::BufMut;

pub use self::config::{LengthFieldConfig, LengthLimit};
use super::{
    ContractViolation, Framing, Header, InvalidHeader, MAX_LIMIT, Proven, check, uint::Uint,
};
use crate::error::ConfigError;

/// The longest header, in bytes, that can be configured.
const MAX_HEADER_LEN: usize = 1024;

/// A header with a length field somewhere in it, as in most binary protocols.
///
/// ```text
///   header_len(5), kept: PostgreSQL's messages           stripped: the same bytes
///
///   offset(1)  width(4), counts itself: adjustment(-4)
///   ┌─────┬─────────────┬───────────┐                    ┌─────┬─────────────┬───────────┐
///   │ 'Q' │ 00 00 00 09 │ h e l l o │                    │ 'Q' │ 00 00 00 09 │ h e l l o │
///   └─────┴─────────────┴───────────┘                    └─────┴─────────────┴───────────┘
///   └─────────── block ─────────────┘                                        └── block ──┘
/// ```
///
/// Start with [`LengthField::config`], and end with [`build`](LengthFieldConfig::build):
///
/// ```
/// use bytes::Bytes;
/// use futures::{SinkExt, StreamExt};
/// use wholeblock::{BlockCodec, BlockTransport, LengthField};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let messages = LengthField::config()
///     .offset(1)
///     .width(4)
///     .adjustment(-4) // the length counts its own four bytes
///     .keep_header()
///     .build()?;
///
/// # let (near, far) = tokio::io::duplex(1024);
/// let mut client = BlockTransport::new(near, BlockCodec::new(messages));
/// client.send(Bytes::from_static(b"Q\0\0\0\x09hello")).await?;
/// let lie = client.send(Bytes::from_static(b"Q\0\0\0\x0ahello")).await;
/// assert_eq!(
///     lie.unwrap_err().to_string(),
///     "block 1, of 10 bytes, cannot be sent: its header announces 11",
/// );
///
/// let mut server = BlockTransport::new(far, BlockCodec::new(messages));
/// let message = server.next().await.expect("a message")?;
/// let (tag, query) = (message[0], &message[5..]);
/// assert_eq!((tag, query), (b'Q', &b"hello"[..]));
/// # Ok(())
/// # }
/// ```
///
/// # The header
///
/// The header has [`header_len`](LengthFieldConfig::header_len) bytes. The length field's value, times the
/// [`unit`](LengthFieldConfig::unit), plus the [`adjustment`](LengthFieldConfig::adjustment), is the
/// number of bytes that follow *the field*. The first [`strip`](LengthFieldConfig::strip) bytes of the
/// header are no part of a block: all of it by default, none with
/// [`keep_header`](LengthFieldConfig::keep_header), or any number between.
///
/// The kept bytes are content: a type tag, a transaction id, flags. A received block begins with them, and
/// so must a block to send. If the length itself is kept, it must announce the block that it is in.
/// Otherwise the error is [`BlockError::WrongHeader`](crate::BlockError::WrongHeader), and nothing of the
/// block is sent.
///
/// Stripped bytes outside the length field are sent as zeros, and ignored when received. To strip and
/// check a magic number, implement [`Framing`].
///
/// # The limit
///
/// The limit applies to whole blocks, kept header included, in both directions. It is 8 MiB by default, or
/// the longest block that the length field can announce, if that is less. See [`LengthLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "LengthDelimitedCodec")]
#[doc(alias = "LengthFieldBasedFrameDecoder")]
pub struct LengthField {
    uint: Uint,
    /// Start and end of the length field, in bytes from the block's start on the wire.
    field_start: usize,
    field_end: usize,
    strip: usize,
    /// Bytes that a header's front must have to be read: the length field and the stripped bytes.
    front_len: usize,
    /// True in the common case: the length is a big-endian u32 that counts bytes, and nothing behind it is
    /// stripped.
    is_plain_u32_be: bool,
    /// True if exactly the length field is stripped.
    is_prefix: bool,
    /// True if each written header announces its block's length. False if the length comes with the block,
    /// or counts units, because a block need not be a whole number of them.
    announces_all: bool,
    /// Bytes that a length of 1 stands for.
    unit: u64,
    /// Bytes to add to what the length stands for, to get the block's length.
    delta: i64,
    /// The shortest block, and its length field's value.
    min: u64,
    min_value: u64,
    /// The longest block that the length field can announce.
    longest: u64,
    /// The longest whole block.
    max: usize,
    config: LengthFieldConfig,
}

impl LengthField {
    /// Returns a configuration to change and [build](LengthFieldConfig::build): a big-endian length of 4
    /// bytes at the start, which counts the bytes after it, and is stripped.
    #[must_use]
    pub fn config() -> LengthFieldConfig {
        LengthFieldConfig::default()
    }

    /// Returns the configuration that this was built from.
    #[must_use]
    pub fn to_config(&self) -> LengthFieldConfig {
        self.config
    }

    fn new(config: LengthFieldConfig) -> Result<Self, ConfigError> {
        let LengthFieldConfig {
            width,
            unit,
            offset,
            adjustment,
            ..
        } = config;
        if !(1..=8).contains(&width) {
            return Err(ConfigError::Width { width });
        }
        if unit == 0 {
            return Err(ConfigError::Unit);
        }
        let uint = Uint {
            width: width as u8,
            little_endian: config.little_endian,
        };
        let field_end = offset.saturating_add(width);
        let header_len = config.header_len.unwrap_or(field_end);
        let strip = config.strip.unwrap_or(header_len);
        if header_len > MAX_HEADER_LEN || header_len < field_end || strip > header_len {
            return Err(ConfigError::Header {
                field_end,
                header_len,
                strip,
            });
        }

        let delta = i128::from(adjustment) + field_end as i128 - strip as i128;
        let kept = header_len - strip;
        let unit = unit as u64;
        // A block is no shorter than the kept part of its header.
        let least = (kept as i128 - delta).max(0).unsigned_abs();
        let Ok(min_value) = u64::try_from(least.div_ceil(unit.into())) else {
            return Err(ConfigError::Adjustment { adjustment });
        };
        let announced = |value: u64| i128::from(value.saturating_mul(unit)) + delta;
        let min = announced(min_value);
        let longest = announced(uint.max()).min(u64::MAX.into());
        let (Ok(min), Ok(longest)) = (usize::try_from(min), u64::try_from(longest)) else {
            return Err(ConfigError::Adjustment { adjustment });
        };
        let max = usize::try_from(longest).map_or(MAX_LIMIT, |max| max.min(MAX_LIMIT));
        let Ok(delta) = i64::try_from(delta) else {
            return Err(ConfigError::Adjustment { adjustment });
        };
        if min > max {
            return Err(ConfigError::Adjustment { adjustment });
        }
        let max = match config.limit {
            LengthLimit::Strict(limit) if limit > max => {
                let max = max as u64;
                return Err(ConfigError::LimitTooLarge { limit, max });
            }
            LengthLimit::Strict(limit) | LengthLimit::Clamped(limit) if limit < min => {
                return Err(ConfigError::LimitTooSmall {
                    limit,
                    min: min as u64,
                });
            }
            LengthLimit::Strict(limit) | LengthLimit::Clamped(limit) => limit.min(max),
            LengthLimit::Unlimited => max,
        };
        Ok(Self {
            uint,
            field_start: offset,
            field_end,
            strip,
            front_len: field_end.max(strip),
            is_plain_u32_be: width == 4 && !config.little_endian && unit == 1 && strip <= field_end,
            is_prefix: offset == 0 && strip == field_end,
            announces_all: strip >= field_end && unit == 1,
            unit,
            delta,
            min: min as u64,
            min_value,
            longest,
            max,
            config,
        })
    }
}

impl Framing for LengthField {
    #[inline]
    fn block_lens(&self) -> RangeInclusive<u64> {
        self.min..=self.longest
    }

    #[inline]
    fn max_whole_len(&self) -> u64 {
        self.max as u64
    }

    #[inline]
    fn max_header_len(&self) -> usize {
        self.front_len
    }

    #[inline]
    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        // Reading the field from its end takes fewer tests than from its start.
        let last_four = front
            .get(..self.field_end)
            .and_then(|head| head.last_chunk::<4>());
        let value = match last_four {
            Some(field) if self.is_plain_u32_be => u32::from_be_bytes(*field).into(),
            _ if front.len() < self.front_len => {
                return Ok(Header::Incomplete {
                    at_least: self.front_len,
                });
            }
            _ => load(self.uint, self.unit, &front[self.field_start..]),
        };
        let payload_len = value.wrapping_add_signed(self.delta);
        // One test for both unusual cases: below the shortest block, or beyond the range of an i64.
        if (payload_len.wrapping_sub(self.min) as i64) < 0 {
            return unusual(value, self.delta, self.min, self.strip);
        }
        Ok(Header::Complete {
            stripped: self.strip,
            block_len: payload_len,
        })
    }

    #[inline]
    fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
        if self.is_prefix {
            return match self.is_plain_u32_be {
                true => dst.put_u32(block_len.wrapping_sub(self.delta as u64) as u32),
                false => self.uint.store(self.value(block_len), dst),
            };
        }
        self.encode_part(self.value(block_len), dst);
    }

    #[inline]
    fn proven(&self) -> Proven {
        Proven {
            encoded: self.announces_all,
            decoded: true,
        }
    }

    fn keeps_contract(&self) -> Result<(), ContractViolation> {
        check::check(self, |len| self.carried(len))
    }
}

impl LengthField {
    /// Rounds `block_len` down to a length that the length field can announce.
    pub(super) fn carried(&self, block_len: u64) -> u64 {
        block_len - (block_len - self.min) % self.unit
    }

    /// Returns the length field's value for a block of `block_len` bytes, rounded down to a whole unit.
    fn value(&self, block_len: u64) -> u64 {
        self.min_value
            .wrapping_add(block_len.wrapping_sub(self.min) / self.unit)
    }

    /// Appends the stripped part of the header to `dst`: the length, or a part of it, among zeros.
    fn encode_part(&self, value: u64, mut dst: &mut impl BufMut) {
        let before = self.field_start.min(self.strip);
        dst.put_bytes(0, before);
        let of_field = (self.strip - before).min(self.field_end - self.field_start);
        let mut field = [0; 8];
        self.uint.store(value, &mut &mut field[..]);
        (&mut dst).put_slice(&field[..of_field]);
        dst.put_bytes(0, self.strip - before - of_field);
    }
}

// Functions that take values, because in a loop over many blocks a reference to the framing would keep
// its other fields out of registers.

/// Returns how many bytes the integer at the front of `field`, in any layout, stands for. It saturates at
/// `u64::MAX`, which no block has. Not inlined, to leave the registers to the common layout's loop.
#[inline(never)]
fn load(uint: Uint, unit: u64, field: &[u8]) -> u64 {
    uint.load(field).saturating_mul(unit)
}

/// Handles a header that announces less than `min`, the shortest block, or about 2^63 bytes or more.
#[cold]
fn unusual(value: u64, delta: i64, min: u64, strip: usize) -> Result<Header, InvalidHeader> {
    let payload_len = i128::from(value) + i128::from(delta);
    if payload_len < i128::from(min) {
        return Err(InvalidHeader("its length is less than what it counts"));
    }
    Ok(Header::Complete {
        stripped: strip,
        block_len: u64::try_from(payload_len).unwrap_or(u64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carried_rounds_a_length_down_to_a_whole_unit() {
        let words = LengthField::config().unit(4).adjustment(3);
        let framing = words.build().unwrap();
        let table = [
            (3, 3),
            (4, 3),
            (6, 3),
            (7, 7),
            (10, 7),
            (11, 11),
            (1_001, 999),
        ];
        for (block_len, carried) in table {
            assert_eq!(framing.carried(block_len), carried, "{block_len}");
        }
        assert_eq!(LengthField::config().build().unwrap().carried(5), 5);
    }
}
