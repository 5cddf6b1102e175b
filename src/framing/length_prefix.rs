//! [`LengthPrefix`]: an integer before each block.

use std::ops::RangeInclusive;

use bytes::BufMut;

use super::{DEFAULT_MAX_BLOCK_LEN, Framing, Header, InvalidHeader, MAX_LIMIT, Proven, uint::Uint};
use crate::error::ConfigError;

/// An unsigned integer of 1 to 8 bytes before each block: the length of the payload.
///
/// ```text
/// u32, big-endian (the default)          u16, little-endian, including its header
/// +-------------+-----------+            +-------+-----------+
/// | 00 00 00 05 | h e l l o |            | 07 00 | h e l l o |
/// +-------------+-----------+            +-------+-----------+
///   header        payload                  header  payload: 7 - 2 bytes
/// ```
///
/// By default, the integer is big-endian, and a whole block has at most 8 MiB, or what the integer can
/// represent if that is less. Builder methods reject a limit that the integer cannot represent, so every
/// `LengthPrefix` is valid.
///
/// ```
/// use wholeblock::{ConfigError, Framing, LengthPrefix};
///
/// let header_of_5 = |framing: LengthPrefix| {
///     let mut header = vec![];
///     framing.encode_header(5, &mut header);
///     header
/// };
/// assert_eq!(header_of_5(LengthPrefix::u8()), [5]);
/// assert_eq!(header_of_5(LengthPrefix::u16().little_endian()), [5, 0]);
/// assert_eq!(header_of_5(LengthPrefix::bytes(3)?), [0, 0, 5]);
/// assert_eq!(header_of_5(LengthPrefix::u32()), [0, 0, 0, 5]);
/// assert_eq!(header_of_5(LengthPrefix::u64()), [0, 0, 0, 0, 0, 0, 0, 5]);
///
/// assert_eq!(LengthPrefix::u16().block_lens(), 0..=65_535);
/// assert_eq!(LengthPrefix::u32().block_lens(), 0..=4_294_967_295);
/// assert_eq!(LengthPrefix::u32().max_whole_len(), 8 * 1024 * 1024);
/// assert_eq!(LengthPrefix::u16().max_block_len(4_096)?.max_whole_len(), 4_096);
/// assert!(LengthPrefix::u8().max_block_len(256).is_err()); // 256 does not fit one byte
/// # Ok::<(), ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthPrefix {
    uint: Uint,
    /// True if the integer counts its own bytes as well.
    including_header: bool,
    /// Longest whole block, in bytes. It fits the integer, with a counted header.
    max: usize,
    /// True if the caller set `max`, which is then never lowered.
    explicit_max: bool,
    /// True for a big-endian u32 that does not count itself. Parsing this common case takes half the
    /// instructions of the general one, and is most of the work for a small block.
    is_plain_u32_be: bool,
}

impl LengthPrefix {
    /// Creates a prefix of 1 byte: blocks of at most 255 bytes.
    #[must_use]
    pub fn u8() -> Self {
        Self::of_width(1)
    }

    /// Creates a prefix of 2 bytes: blocks of at most 65,535 bytes.
    #[must_use]
    pub fn u16() -> Self {
        Self::of_width(2)
    }

    /// Creates a prefix of 4 bytes: whole blocks of at most 8 MiB by default.
    #[must_use]
    pub fn u32() -> Self {
        Self::of_width(4)
    }

    /// Creates a prefix of 8 bytes: whole blocks of at most 8 MiB by default.
    #[must_use]
    pub fn u64() -> Self {
        Self::of_width(8)
    }

    /// Creates a prefix of `width` bytes, 1 to 8; a u24 has 3.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Width`] for any other width.
    pub fn bytes(width: usize) -> Result<Self, ConfigError> {
        match width {
            1..=8 => Ok(Self::of_width(width as u8)),
            _ => Err(ConfigError::Width { width }),
        }
    }

    fn of_width(width: u8) -> Self {
        let mut prefix = Self {
            uint: Uint {
                width,
                little_endian: false,
            },
            including_header: false,
            max: 0,
            explicit_max: false,
            is_plain_u32_be: width == 4,
        };
        prefix.max = DEFAULT_MAX_BLOCK_LEN.min(prefix.max_encodable());
        prefix
    }

    /// Puts the least significant byte first.
    #[must_use]
    pub fn little_endian(mut self) -> Self {
        self.uint.little_endian = true;
        self.is_plain_u32_be = false;
        self
    }

    /// Makes the integer count the bytes of the prefix as well as the payload's.
    ///
    /// ```
    /// use wholeblock::{Framing, LengthPrefix};
    ///
    /// let framing = LengthPrefix::u16().including_header()?;
    /// let mut header = vec![];
    /// framing.encode_header(5, &mut header);
    /// assert_eq!(header, [0, 7]);
    /// assert_eq!(framing.block_lens(), 0..=65_533); // with the header, 65,535
    /// # Ok::<(), wholeblock::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::LimitTooLarge`] if the caller set a limit that, with the prefix, no longer fits the
    /// integer. A default limit is lowered instead.
    pub fn including_header(mut self) -> Result<Self, ConfigError> {
        self.including_header = true;
        self.is_plain_u32_be = false;
        if self.explicit_max {
            return self.max_block_len(self.max);
        }
        self.max = self.max.min(self.max_encodable());
        Ok(self)
    }

    /// Sets the longest block that is received or sent whole, in bytes.
    ///
    /// # Errors
    ///
    /// [`ConfigError::LimitTooLarge`] if the integer cannot represent it, or no allocation can hold
    /// it.
    pub fn max_block_len(mut self, max: usize) -> Result<Self, ConfigError> {
        let max_encodable = self.max_encodable();
        if max > max_encodable {
            return Err(ConfigError::LimitTooLarge {
                limit: max,
                max: max_encodable as u64,
            });
        }
        self.max = max;
        self.explicit_max = true;
        Ok(self)
    }

    /// Returns the longest block that the integer can represent.
    #[inline]
    fn longest(&self) -> u64 {
        self.uint.max() - self.counted_header()
    }

    /// Returns the longest block that the integer can represent and an allocation can hold.
    fn max_encodable(&self) -> usize {
        usize::try_from(self.longest()).map_or(MAX_LIMIT, |max| max.min(MAX_LIMIT))
    }

    /// Returns the header bytes that the integer counts.
    #[inline]
    fn counted_header(&self) -> u64 {
        if self.including_header {
            u64::from(self.uint.width)
        } else {
            0
        }
    }
}

/// A big-endian u32, as [`u32`](LengthPrefix::u32).
impl Default for LengthPrefix {
    fn default() -> Self {
        Self::u32()
    }
}

impl Framing for LengthPrefix {
    #[inline]
    fn block_lens(&self) -> RangeInclusive<u64> {
        0..=self.longest()
    }

    #[inline]
    fn max_whole_len(&self) -> u64 {
        self.max as u64
    }

    #[inline]
    fn max_header_len(&self) -> usize {
        usize::from(self.uint.width)
    }

    #[inline]
    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        if self.is_plain_u32_be {
            return Ok(match front.first_chunk::<4>() {
                Some(prefix) => Header::Complete {
                    stripped: 4,
                    block_len: u32::from_be_bytes(*prefix).into(),
                },
                None => Header::Incomplete { at_least: 4 },
            });
        }
        let width = usize::from(self.uint.width);
        if front.len() < width {
            return Ok(Header::Incomplete { at_least: width });
        }
        let raw_len = self.uint.load(front);
        match raw_len.checked_sub(self.counted_header()) {
            Some(payload_len) => Ok(Header::Complete {
                stripped: width,
                block_len: payload_len,
            }),
            None => Err(InvalidHeader(
                "its length is less than the prefix it includes",
            )),
        }
    }

    #[inline]
    fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
        if self.is_plain_u32_be {
            return dst.put_u32(block_len as u32);
        }
        let raw_len = block_len + self.counted_header();
        self.uint.store(raw_len, dst);
    }

    #[inline]
    fn proven(&self) -> Proven {
        Proven::ALL
    }
}
