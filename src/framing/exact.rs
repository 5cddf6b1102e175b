//! [`Exact`]: blocks of one length, without a header.

use std::ops::RangeInclusive;

use bytes::BufMut;

use super::{Framing, Header, InvalidHeader, MAX_LIMIT, Proven};
use crate::error::ConfigError;

/// Blocks of one length, with nothing else on the wire.
///
/// ```text
/// +------------------+------------------+------------------+
/// | payload: n bytes | payload: n bytes | payload: n bytes |
/// +------------------+------------------+------------------+
/// ```
///
/// Usually made by [`BlockCodec::exact`](crate::BlockCodec::exact).
///
/// ```
/// use bytes::BytesMut;
/// use tokio_util::codec::Decoder;
/// use wholeblock::{BlockCodec, Exact, Framing};
///
/// let framing = Exact::new(3)?;
/// assert_eq!(framing.block_lens(), 3..=3);
/// let mut arrived = BytesMut::from(&b"onetw"[..]);
/// let mut codec = BlockCodec::new(framing);
/// assert_eq!(codec.decode(&mut arrived)?.unwrap(), "one");
/// assert_eq!(codec.decode(&mut arrived)?, None); // a byte is missing
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exact {
    len: u64,
}

impl Exact {
    /// Creates a framing for blocks of exactly `len` bytes, 1 or more.
    ///
    /// # Errors
    ///
    /// [`ConfigError::EmptyBlocks`] for 0: without a header, an empty block looks like no block.
    /// [`ConfigError::LimitTooLarge`] for more than half of `isize::MAX`.
    pub fn new(len: usize) -> Result<Self, ConfigError> {
        if len > MAX_LIMIT {
            let (limit, max) = (len, MAX_LIMIT as u64);
            return Err(ConfigError::LimitTooLarge { limit, max });
        }
        Self::long(len as u64)
    }

    /// Creates a framing for blocks of exactly `len` bytes, to move part by part if memory cannot hold one.
    ///
    /// # Errors
    ///
    /// [`ConfigError::EmptyBlocks`] for 0.
    pub fn long(len: u64) -> Result<Self, ConfigError> {
        match len {
            0 => Err(ConfigError::EmptyBlocks),
            _ => Ok(Self { len }),
        }
    }
}

impl Framing for Exact {
    #[inline]
    fn block_lens(&self) -> RangeInclusive<u64> {
        self.len..=self.len
    }

    #[inline]
    fn max_header_len(&self) -> usize {
        0
    }

    #[inline]
    fn decode_header(&self, _front: &[u8]) -> Result<Header, InvalidHeader> {
        Ok(Header::Complete {
            stripped: 0,
            block_len: self.len,
        })
    }

    #[inline]
    fn encode_header(&self, _block_len: u64, _dst: &mut impl BufMut) {}

    #[inline]
    fn proven(&self) -> Proven {
        Proven::ALL
    }
}
