use std::ops::RangeInclusive;

use bytes::BufMut;

use super::{DEFAULT_MAX_BLOCK_LEN, Framing, Header, InvalidHeader, LARGEST_LIMIT};
use crate::ConfigError;

/// An unsigned integer of 1 to 8 bytes says how long the payload after it is.
///
/// ```text
/// u32, big-endian (the default)          u16, little-endian, including its header
/// +-------------+---------+              +-------+---------+
/// | 00 00 00 05 | h e l l o              | 07 00 | h e l l o
/// +-------------+---------+              +-------+---------+
///   header        payload                  header  payload: 7 - 2 bytes
/// ```
///
/// Big-endian and at most 8 MiB a block (or what the integer can say, if that is less), until
/// told otherwise. Whatever value of this type exists can carry every block it allows; what
/// cannot work is refused while it is put together.
///
/// ```
/// use wholeblock::{ConfigError, LengthPrefix};
///
/// let framing = LengthPrefix::u16().little_endian().max_block_len(4_096)?;
/// assert!(LengthPrefix::u8().max_block_len(256).is_err()); // 256 does not fit one byte
/// # Ok::<(), ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthPrefix {
    /// Bytes of the integer, 1 to 8.
    width: u8,
    little_endian: bool,
    /// Whether the integer counts its own bytes as well.
    including_header: bool,
    /// Largest payload, in bytes; with the header, if that is counted, it fits the integer.
    max: usize,
    /// Whether the user chose `max`; if so, it is never changed behind their back.
    max_is_chosen: bool,
    /// Whether this is a big-endian u32 that does not count itself. Reading one is most of what
    /// is done for a small block, and with this known takes half the instructions.
    is_default_form: bool,
}

impl LengthPrefix {
    /// A prefix of 1 byte: blocks of at most 255 bytes.
    #[must_use]
    pub fn u8() -> Self {
        Self::of_width(1)
    }

    /// A prefix of 2 bytes: blocks of at most 65,535 bytes.
    #[must_use]
    pub fn u16() -> Self {
        Self::of_width(2)
    }

    /// A prefix of 4 bytes: blocks of at most 8 MiB, until told otherwise.
    #[must_use]
    pub fn u32() -> Self {
        Self::of_width(4)
    }

    /// A prefix of 8 bytes: blocks of at most 8 MiB, until told otherwise.
    #[must_use]
    pub fn u64() -> Self {
        Self::of_width(8)
    }

    /// A prefix of `width` bytes, 1 to 8; 3 for a u24, say.
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
            width,
            little_endian: false,
            including_header: false,
            max: 0,
            max_is_chosen: false,
            is_default_form: width == 4,
        };
        prefix.max = DEFAULT_MAX_BLOCK_LEN.min(prefix.largest_max());
        prefix
    }

    /// The least significant byte comes first.
    #[must_use]
    pub fn little_endian(mut self) -> Self {
        self.little_endian = true;
        self.is_default_form = false;
        self
    }

    /// The integer counts the bytes of the prefix as well as those of the payload.
    ///
    /// # Errors
    ///
    /// [`ConfigError::LimitTooLarge`] if a limit was set that, with the prefix, no longer fits the
    /// integer. A default limit gives way.
    pub fn including_header(mut self) -> Result<Self, ConfigError> {
        self.including_header = true;
        self.is_default_form = false;
        if self.max_is_chosen {
            return self.max_block_len(self.max);
        }
        self.max = self.max.min(self.largest_max());
        Ok(self)
    }

    /// No block is longer than `max` bytes, in either direction.
    ///
    /// # Errors
    ///
    /// [`ConfigError::LimitTooLarge`] if the integer cannot say so much, or no allocation be so
    /// large.
    pub fn max_block_len(mut self, max: usize) -> Result<Self, ConfigError> {
        let largest = self.largest_max();
        if max > largest {
            return Err(ConfigError::LimitTooLarge {
                limit: max,
                largest: largest as u64,
            });
        }
        self.max = max;
        self.max_is_chosen = true;
        Ok(self)
    }

    fn largest_max(&self) -> usize {
        let largest = (u64::MAX >> (64 - 8 * u32::from(self.width))) - self.counted_header();
        usize::try_from(largest).map_or(LARGEST_LIMIT, |largest| largest.min(LARGEST_LIMIT))
    }

    /// How much the integer says beyond the payload's length.
    #[inline]
    fn counted_header(&self) -> u64 {
        if self.including_header {
            u64::from(self.width)
        } else {
            0
        }
    }
}

impl Framing for LengthPrefix {
    #[inline]
    fn block_lens(&self) -> RangeInclusive<usize> {
        0..=self.max
    }

    #[inline]
    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        if self.is_default_form {
            return Ok(match front.first_chunk::<4>() {
                Some(prefix) => Header::Complete {
                    header_len: 4,
                    payload_len: u32::from_be_bytes(*prefix).into(),
                },
                None => Header::Incomplete { at_least: 4 },
            });
        }
        let width = usize::from(self.width);
        if front.len() < width {
            return Ok(Header::Incomplete { at_least: width });
        }
        // Any width is one load of 8 bytes, of which those behind the prefix are shifted out.
        let loaded = match front.first_chunk::<8>() {
            Some(loaded) => *loaded,
            None => load_short(front),
        };
        let behind = 64 - 8 * u32::from(self.width);
        let said = if self.little_endian {
            u64::from_le_bytes(loaded) << behind >> behind
        } else {
            u64::from_be_bytes(loaded) >> behind
        };
        match said.checked_sub(self.counted_header()) {
            Some(payload_len) => Ok(Header::Complete {
                header_len: width,
                payload_len,
            }),
            None => Err(InvalidHeader(
                "its length is less than the prefix it includes",
            )),
        }
    }

    #[inline]
    fn encode_header(&self, payload_len: usize, dst: &mut impl BufMut) {
        if self.is_default_form {
            return dst.put_u32(payload_len as u32);
        }
        let said = payload_len as u64 + self.counted_header();
        let width = usize::from(self.width);
        if self.little_endian {
            dst.put_uint_le(said, width);
        } else {
            dst.put_uint(said, width);
        }
    }
}

/// The fewer than 8 bytes of `front`, and zeros behind them.
#[cold]
fn load_short(front: &[u8]) -> [u8; 8] {
    let mut loaded = [0; 8];
    loaded[..front.len()].copy_from_slice(front);
    loaded
}
