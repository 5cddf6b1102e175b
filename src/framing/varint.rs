//! [`Varint`]: a LEB128 length before each block.

use std::ops::RangeInclusive;

use bytes::BufMut;

use super::{DEFAULT_MAX_BLOCK_LEN, Framing, Header, InvalidHeader, MAX_LIMIT, Proven};
use crate::error::ConfigError;

/// The longest varint, in bytes: ten groups of 7 bits hold a u64.
const MAX_VARINT_LEN: usize = 10;

/// A LEB128 varint before each block, as in protobuf: the length of the payload.
///
/// ```text
/// +----+-----------+      +-------+-----------+
/// | 05 | h e l l o |      | AC 02 | 300 bytes |     300 = 0x2C | 0x02 << 7
/// +----+-----------+      +-------+-----------+
/// ```
///
/// Each byte carries 7 bits, least significant first; all but the last have their top bit set.
/// A varint has at most 10 bytes, and a whole block at most 8 MiB by default. A longer encoding than needed
/// (`80 00` for 0) is never written. It is accepted, as in protobuf, unless
/// [`minimal`](Self::minimal) is set.
///
/// ```
/// use bytes::{Bytes, BytesMut};
/// use tokio_util::codec::Encoder;
/// use wholeblock::{BlockCodec, Framing, Varint};
///
/// let mut wire = BytesMut::new();
/// BlockCodec::new(Varint::new()).encode(Bytes::from(vec![7; 300]), &mut wire)?;
/// assert_eq!((&wire[..2], wire.len()), (&[0xac, 0x02][..], 302));
/// assert_eq!(Varint::new().max_block_len(300)?.max_whole_len(), 300);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Varint {
    /// Longest whole block, in bytes.
    max: usize,
    /// True if a longer encoding than needed is refused.
    minimal: bool,
}

impl Varint {
    /// Creates a framing for whole blocks of at most 8 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            max: DEFAULT_MAX_BLOCK_LEN,
            minimal: false,
        }
    }

    /// Refuses a longer encoding than needed, so that only one header stands for a length, as in
    /// multiformats.
    ///
    /// ```
    /// use wholeblock::{Framing, Header, InvalidHeader, Varint};
    ///
    /// let one = Header::Complete { stripped: 2, block_len: 1 };
    /// assert_eq!(Varint::new().decode_header(b"\x81\0"), Ok(one));
    /// let longer = InvalidHeader("its varint is longer than it needs to be");
    /// assert_eq!(Varint::new().minimal().decode_header(b"\x81\0"), Err(longer));
    /// ```
    #[must_use]
    #[doc(alias = "canonical")]
    pub fn minimal(mut self) -> Self {
        self.minimal = true;
        self
    }

    /// Sets the longest block that is received or sent whole, in bytes.
    ///
    /// # Errors
    ///
    /// [`ConfigError::LimitTooLarge`] if no allocation can be so large.
    pub fn max_block_len(mut self, max: usize) -> Result<Self, ConfigError> {
        if max > MAX_LIMIT {
            return Err(ConfigError::LimitTooLarge {
                limit: max,
                max: MAX_LIMIT as u64,
            });
        }
        self.max = max;
        Ok(self)
    }
}

impl Default for Varint {
    fn default() -> Self {
        Self::new()
    }
}

impl Framing for Varint {
    #[inline]
    fn block_lens(&self) -> RangeInclusive<u64> {
        0..=u64::MAX
    }

    #[inline]
    fn max_whole_len(&self) -> u64 {
        self.max as u64
    }

    #[inline]
    fn max_header_len(&self) -> usize {
        MAX_VARINT_LEN
    }

    #[inline]
    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let mut payload_len = 0;
        for (i, &byte) in front.iter().take(MAX_VARINT_LEN).enumerate() {
            if i == MAX_VARINT_LEN - 1 && byte > 1 {
                return Err(InvalidHeader(if byte & 0x80 == 0 {
                    "its varint overflows 64 bits"
                } else {
                    "its varint does not end within 10 bytes"
                }));
            }
            payload_len |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                // The last byte holds the highest bits, and zeros need no byte.
                if self.minimal && byte == 0 && i > 0 {
                    return Err(InvalidHeader("its varint is longer than it needs to be"));
                }
                return Ok(Header::Complete {
                    stripped: i + 1,
                    block_len: payload_len,
                });
            }
        }
        Ok(Header::Incomplete {
            at_least: front.len() + 1,
        })
    }

    #[inline]
    fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
        let mut left = block_len;
        while left > 0x7f {
            dst.put_u8(left as u8 | 0x80);
            left >>= 7;
        }
        dst.put_u8(left as u8);
    }

    #[inline]
    fn proven(&self) -> Proven {
        Proven::ALL
    }
}
