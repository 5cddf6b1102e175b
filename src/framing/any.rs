//! [`AnyFraming`]: a framing chosen at run time.

use std::ops::RangeInclusive;

use bytes::BufMut;

use super::{
    ContractViolation, Exact, Framing, Header, InvalidHeader, LengthField, LengthPrefix, Proven,
    Varint, check,
};

/// One of this crate's framings, chosen at run time, for example from a configuration file.
///
/// It costs one branch more for each block than the framing itself.
///
/// ```
/// use std::error::Error;
/// use wholeblock::{AnyFraming, BlockCodec, Exact, LengthField, LengthPrefix, Varint};
///
/// /// "exact 51200", "u16", "u32 le", "varint" or "postgres".
/// fn parse(text: &str) -> Result<AnyFraming, Box<dyn Error>> {
///     Ok(match text.split_whitespace().collect::<Vec<_>>()[..] {
///         ["exact", len] => Exact::new(len.parse()?)?.into(),
///         ["u16"] => LengthPrefix::u16().into(),
///         ["u32"] => LengthPrefix::u32().into(),
///         ["u32", "le"] => LengthPrefix::u32().little_endian().into(),
///         ["varint"] => Varint::new().into(),
///         ["postgres"] => LengthField::config().offset(1).adjustment(-4).keep_header().build()?.into(),
///         _ => return Err(format!("no framing is called {text:?}").into()),
///     })
/// }
///
/// let codec = BlockCodec::new(parse("u32 le")?);
/// assert_eq!(parse("exact 51200")?, AnyFraming::Exact(Exact::new(51_200)?));
/// assert!(parse("exact 0").is_err());
/// # Ok::<(), Box<dyn Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnyFraming {
    /// Blocks of one length.
    Exact(Exact),
    /// A length before each block.
    LengthPrefix(LengthPrefix),
    /// A LEB128 length before each block.
    Varint(Varint),
    /// A header with a length in it.
    LengthField(LengthField),
}

impl From<Exact> for AnyFraming {
    fn from(framing: Exact) -> Self {
        Self::Exact(framing)
    }
}

impl From<LengthPrefix> for AnyFraming {
    fn from(framing: LengthPrefix) -> Self {
        Self::LengthPrefix(framing)
    }
}

impl From<Varint> for AnyFraming {
    fn from(framing: Varint) -> Self {
        Self::Varint(framing)
    }
}

impl From<LengthField> for AnyFraming {
    fn from(framing: LengthField) -> Self {
        Self::LengthField(framing)
    }
}

impl Framing for AnyFraming {
    #[inline]
    fn block_lens(&self) -> RangeInclusive<u64> {
        match self {
            Self::Exact(framing) => framing.block_lens(),
            Self::LengthPrefix(framing) => framing.block_lens(),
            Self::Varint(framing) => framing.block_lens(),
            Self::LengthField(framing) => framing.block_lens(),
        }
    }

    #[inline]
    fn max_whole_len(&self) -> u64 {
        match self {
            Self::Exact(framing) => framing.max_whole_len(),
            Self::LengthPrefix(framing) => framing.max_whole_len(),
            Self::Varint(framing) => framing.max_whole_len(),
            Self::LengthField(framing) => framing.max_whole_len(),
        }
    }

    #[inline]
    fn max_header_len(&self) -> usize {
        match self {
            Self::Exact(framing) => framing.max_header_len(),
            Self::LengthPrefix(framing) => framing.max_header_len(),
            Self::Varint(framing) => framing.max_header_len(),
            Self::LengthField(framing) => framing.max_header_len(),
        }
    }

    #[inline]
    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        match self {
            Self::Exact(framing) => framing.decode_header(front),
            Self::LengthPrefix(framing) => framing.decode_header(front),
            Self::Varint(framing) => framing.decode_header(front),
            Self::LengthField(framing) => framing.decode_header(front),
        }
    }

    #[inline]
    fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
        match self {
            Self::Exact(framing) => framing.encode_header(block_len, dst),
            Self::LengthPrefix(framing) => framing.encode_header(block_len, dst),
            Self::Varint(framing) => framing.encode_header(block_len, dst),
            Self::LengthField(framing) => framing.encode_header(block_len, dst),
        }
    }

    #[inline]
    fn proven(&self) -> Proven {
        match self {
            Self::LengthField(framing) => framing.proven(),
            Self::Exact(_) | Self::LengthPrefix(_) | Self::Varint(_) => Proven::ALL,
        }
    }

    fn keeps_contract(&self) -> Result<(), ContractViolation> {
        check::check(self, |len| match self {
            Self::LengthField(framing) => framing.carried(len),
            Self::Exact(_) | Self::LengthPrefix(_) | Self::Varint(_) => len,
        })
    }
}
