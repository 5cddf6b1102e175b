//! Framings: how blocks are delimited on the wire. Nothing here does I/O.

mod any;
mod check;
mod exact;
mod in_out;
mod length_field;
mod length_prefix;
mod uint;
mod varint;

use std::{error::Error, fmt, ops::RangeInclusive};

use bytes::BufMut;

pub use self::{
    any::AnyFraming,
    check::{ContractViolation, check_framing},
    exact::Exact,
    in_out::InOut,
    length_field::{LengthField, LengthFieldConfig, LengthLimit},
    length_prefix::LengthPrefix,
    varint::Varint,
};

/// The default limit of [`LengthPrefix`] and [`Varint`] for whole blocks. 8 MiB is also the default of
/// `LengthDelimitedCodec`, so changing over changes no limit.
pub(crate) const DEFAULT_MAX_BLOCK_LEN: usize = 8 * 1024 * 1024;

/// The longest block that is received or sent whole. With its header it must fit one allocation, and
/// no allocation exceeds `isize::MAX` bytes. Half of that leaves room for any header, and their sum never
/// overflows.
pub(crate) const MAX_LIMIT: usize = isize::MAX as usize / 2;

/// The longest header of any framing, in bytes. A peer can make the read buffer grow that far before a
/// block's length is known.
pub(crate) const MAX_HEADER_LEN: usize = 64 * 1024;

/// A wire format for blocks: the header in front of each payload.
///
/// Implement this trait to support your own header. Everything else in this crate is generic over
/// it.
///
/// # Contract
///
/// * A block has at least one byte on the wire, header included.
/// * A header that [`encode_header`](Self::encode_header) wrote for a block length within
///   [`block_lens`](Self::block_lens) decodes to that length.
/// * [`decode_header`](Self::decode_header) returns the same result whatever bytes follow the header.
/// * `Header::Incomplete` asks for more bytes than have arrived, and never for more than the header has.
/// * `Header::Complete` is returned only when the whole header has arrived.
/// * A header has at most [`max_header_len`](Self::max_header_len) bytes. (Beyond 64 bytes, a block of
///   exactly [`with_max_retained`](crate::BlockCodec::with_max_retained) bytes costs an allocation.)
///
/// Test a framing with [`check_framing`]. A framing that breaks the contract does no harm: the decoder
/// returns [`BlockError::InvalidHeader`](crate::BlockError::InvalidHeader). The encoder reads each header
/// back before it sends a byte, and returns [`BlockError::WrongHeader`](crate::BlockError::WrongHeader).
///
/// # Headers with content
///
/// The `stripped` bytes of [`Header::Complete`] are no part of a received block. To keep the header, or
/// the end of it, as a part of the block, count those bytes in `block_len` instead. Then
/// [`encode_header`](Self::encode_header) writes only the stripped bytes, and the caller's block begins
/// with the others. [`LengthField`] does this.
///
/// # Repeated calls
///
/// The decoder may call `decode_header` many times for one header, and
/// [`recv_batch`](crate::BlockTransport::recv_batch) calls it on a clone. So keep the framing small,
/// ideally `Copy`, and its answers the same: a block that was found before and is not found again ends the
/// stream with `InvalidHeader`.
///
/// If [`encode_header`](Self::encode_header) panics, nothing of the block is queued.
///
/// ```
/// use bytes::BufMut;
/// use wholeblock::{Framing, Header, InvalidHeader, check_framing};
///
/// /// `'W' 'B'`, then the payload's length as a big-endian u16.
/// #[derive(Clone)]
/// struct Tagged;
///
/// impl Framing for Tagged {
///     fn block_lens(&self) -> std::ops::RangeInclusive<u64> {
///         0..=u64::from(u16::MAX)
///     }
///
///     fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
///         match *front {
///             [b'W', b'B', hi, lo, ..] => Ok(Header::Complete {
///                 stripped: 4,
///                 block_len: u64::from(u16::from_be_bytes([hi, lo])),
///             }),
///             [] | [b'W'] | [b'W', b'B', ..] => Ok(Header::Incomplete { at_least: 4 }),
///             _ => Err(InvalidHeader("it does not start with WB")),
///         }
///     }
///
///     fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
///         dst.put_slice(b"WB");
///         dst.put_u16(block_len as u16); // in `block_lens`, so it fits
///     }
/// }
///
/// check_framing(&Tagged)?;
/// let complete = Header::Complete { stripped: 4, block_len: 5 };
/// assert_eq!(Tagged.decode_header(b"WB\0\x05hello"), Ok(complete));
/// assert_eq!(Tagged.decode_header(b"WB\0"), Ok(Header::Incomplete { at_least: 4 }));
/// assert_eq!(Tagged.decode_header(b"H"), Err(InvalidHeader("it does not start with WB")));
/// # Ok::<(), wholeblock::ContractViolation>(())
/// ```
pub trait Framing: Clone {
    /// Returns the block lengths that this framing carries, in bytes, without the stripped part of the
    /// header. If the range is empty, no block can be received or sent.
    ///
    /// One range serves both directions: [`BlockCodec`](crate::BlockCodec) refuses to encode a
    /// block outside it, and refuses a header that announces one. [`InOut`] has a range for each direction.
    fn block_lens(&self) -> RangeInclusive<u64>;

    /// Returns the length of the longest block that this framing carries whole, in one piece of memory, in
    /// bytes. Only blocks that move part by part may be longer. The codec may
    /// [lower](crate::BlockCodec::set_max_block_len) it. The default is the end of
    /// [`block_lens`](Self::block_lens).
    ///
    /// The codec clamps it to half of `isize::MAX`, so that a block and its header fit one allocation.
    #[inline]
    fn max_whole_len(&self) -> u64 {
        *self.block_lens().end()
    }

    /// Parses the header at the front of `front`, which holds what has arrived: nothing, a part of
    /// the header, or the header and any number of bytes after it.
    ///
    /// No length need be checked here: the codec checks the announced one against
    /// [`block_lens`](Self::block_lens), and an incomplete header's against
    /// [`max_header_len`](Self::max_header_len).
    ///
    /// # Errors
    ///
    /// [`InvalidHeader`] as soon as no further byte could make this header valid.
    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader>;

    /// Returns the length of the longest header, in bytes. It counts all bytes, stripped or kept, that
    /// [`decode_header`](Self::decode_header) needs to know the block's length. The default, 64 KiB, is
    /// also the maximum.
    ///
    /// If a peer sends more without completing a header, the decoder returns
    /// [`BlockError::InvalidHeader`](crate::BlockError::InvalidHeader). Return less if headers are
    /// shorter, above all if they end at a delimiter.
    ///
    /// ```
    /// use bytes::{BufMut, BytesMut};
    /// use tokio_util::codec::Decoder;
    /// use wholeblock::{BlockCodec, BlockError, Framing, Header, InvalidHeader};
    ///
    /// /// A line of up to 80 bytes, with its `\n`.
    /// #[derive(Clone)]
    /// struct Line;
    ///
    /// impl Framing for Line {
    ///     fn block_lens(&self) -> std::ops::RangeInclusive<u64> {
    ///         1..=80
    ///     }
    ///
    ///     fn max_header_len(&self) -> usize {
    ///         80
    ///     }
    ///
    ///     fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
    ///         Ok(match front.iter().position(|byte| *byte == b'\n') {
    ///             Some(at) => Header::Complete { stripped: 0, block_len: at as u64 + 1 },
    ///             None => Header::Incomplete { at_least: front.len() + 1 },
    ///         })
    ///     }
    ///
    ///     fn encode_header(&self, _block_len: u64, _dst: &mut impl BufMut) {}
    /// }
    ///
    /// let mut codec = BlockCodec::new(Line);
    /// let mut arrived = BytesMut::from(&b"one\ntwo"[..]);
    /// assert_eq!(codec.decode(&mut arrived)?.unwrap(), "one\n");
    /// assert_eq!(codec.decode(&mut arrived)?, None); // the line has no end yet
    /// arrived.put_bytes(b'o', 77);
    /// assert!(matches!(codec.decode(&mut arrived), Err(BlockError::InvalidHeader { index: 1, .. })));
    /// # Ok::<(), BlockError>(())
    /// ```
    #[inline]
    fn max_header_len(&self) -> usize {
        MAX_HEADER_LEN
    }

    /// Appends the stripped part of the header of a block of `block_len` bytes to `dst`.
    ///
    /// `block_len` is within [`block_lens`](Self::block_lens).
    fn encode_header(&self, block_len: u64, dst: &mut impl BufMut);

    /// Returns which checks of each block this framing does not need. [`Proven`] is private, so only this
    /// crate can override this.
    #[doc(hidden)]
    #[inline]
    fn proven(&self) -> Proven {
        Proven::default()
    }

    /// Returns the framing of blocks to send: `self`, except for an [`InOut`].
    #[doc(hidden)]
    #[inline]
    fn outgoing(&self) -> &impl Framing {
        self
    }

    /// Implements [`check_framing`] for this framing.
    #[doc(hidden)]
    fn keeps_contract(&self) -> Result<(), ContractViolation> {
        check::check(self, |len| len)
    }
}

/// Properties of a framing's headers that need no check for each block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Proven {
    /// True if every header that the framing writes reads back as the length that it was written for.
    pub(crate) encoded: bool,
    /// True if every complete header that the framing reads has at most 64 KiB, announces at least the
    /// shortest block, and stands for at least one byte on the wire.
    pub(crate) decoded: bool,
}

impl Proven {
    pub(crate) const ALL: Self = Self {
        encoded: true,
        decoded: true,
    };
}

/// A result of [`Framing::decode_header`]. See the example of [`Framing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A part of the header has not arrived yet.
    Incomplete {
        /// The fewest bytes that the whole header can have; more than have arrived.
        at_least: usize,
    },
    /// The whole header has arrived, and the payload follows it.
    Complete {
        /// Bytes at the front that are stripped, because they are no part of the block.
        stripped: usize,
        /// Announced bytes of the block, which follow the stripped bytes. Kept bytes of the header count.
        block_len: u64,
    },
}

/// A header that the framing does not allow. The text says what is wrong with it, in a clause whose
/// subject is the header, as in "invalid header in block 3: *its varint overflows 64 bits*".
///
/// ```
/// use wholeblock::{Framing, InvalidHeader, LengthPrefix};
///
/// let framing = LengthPrefix::u8().including_header()?;
/// let invalid: InvalidHeader = framing.decode_header(b"\0").unwrap_err();
/// assert_eq!(
///     invalid.to_string(),
///     "invalid header: its length is less than the prefix it includes",
/// );
/// # Ok::<(), wholeblock::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHeader(pub &'static str);

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid header: {}", self.0)
    }
}

impl Error for InvalidHeader {}
