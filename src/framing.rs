//! How a block is delimited on the wire. Pure: nothing here reads or writes.

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

/// The longest block that [`LengthPrefix`] and [`Varint`] carry whole by default: 8 MiB, as
/// `LengthDelimitedCodec` does, so that changing over changes no limit.
pub(crate) const DEFAULT_MAX_BLOCK_LEN: usize = 8 * 1024 * 1024;

/// The longest block that is received or sent whole. With its header it must fit one allocation, and
/// no allocation exceeds `isize::MAX` bytes; half of that leaves room for any header, and sums of the
/// two never overflow.
pub(crate) const MAX_LIMIT: usize = isize::MAX as usize / 2;

/// The longest header of any framing, in bytes. A peer can make the read buffer grow that far before a
/// block's length is known.
pub(crate) const MAX_HEADER_LEN: usize = 64 * 1024;

/// How a block is delimited on the wire: which header goes before its payload.
///
/// Implement this trait to support your own header. Everything else in this crate is generic over
/// it.
///
/// # Contract
///
/// * A block has at least one byte on the wire, header included.
/// * A header that [`encode_header`](Self::encode_header) wrote for a block length within
///   [`block_lens`](Self::block_lens) decodes to that length.
/// * What [`decode_header`](Self::decode_header) makes of a header does not depend on what follows
///   it.
/// * `Header::Incomplete` asks for more bytes than are there, and never for more than it takes;
///   `Header::Complete` waits for the whole header.
/// * A header has at most [`max_header_len`](Self::max_header_len) bytes. (Beyond 64 bytes, a block of exactly
///   [`with_max_retained`](crate::BlockCodec::with_max_retained) bytes costs an allocation.)
///
/// [`check_framing`] checks one for a test. A framing that breaks the contract does no harm: what
/// it makes of a peer's bytes is then
/// [`BlockError::InvalidHeader`](crate::BlockError::InvalidHeader), and what it would send is read
/// back before a byte leaves, and refused as
/// [`BlockError::WrongHeader`](crate::BlockError::WrongHeader).
///
/// # Headers with content
///
/// The `stripped` bytes of [`Header::Complete`] are no part of a received block. A framing
/// that counts none of its header, or only the front of it, in `stripped`, and the rest in
/// `block_len`, keeps it as a part of the block; [`encode_header`](Self::encode_header) then
/// writes what is stripped, and the rest comes with the block to send. [`LengthField`] does this.
///
/// # Asked again
///
/// `decode_header` is asked about one header any number of times, and
/// [`recv_batch`](crate::BlockTransport::recv_batch) asks a clone: keep the framing small, ideally `Copy`.
/// One that no longer finds the block that it, or its original, has found before ends the stream with
/// `InvalidHeader`.
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
    /// The block lengths this framing carries, in bytes, without what is stripped of the header. Of an
    /// empty range no block can be received or sent.
    ///
    /// One range serves both directions: [`BlockCodec`](crate::BlockCodec) refuses to encode a
    /// block outside it, and refuses a header that announces one. [`InOut`] has one for each.
    fn block_lens(&self) -> RangeInclusive<u64>;

    /// The longest block that this framing carries whole, in bytes, in one piece of memory: the limit for
    /// every way of receiving and sending that is not part by part. The codec may
    /// [lower](crate::BlockCodec::set_max_block_len) it. By default, it is the longest that the framing
    /// carries.
    ///
    /// Of a limit beyond half of `isize::MAX`, only what is below counts, so that an allocation can hold
    /// a block with its header.
    #[inline]
    fn max_whole_len(&self) -> u64 {
        *self.block_lens().end()
    }

    /// Parses the header at the front of `front`, which holds what has arrived: nothing, a part of
    /// the header, or the header and any number of bytes after it.
    ///
    /// The codec checks the announced length against [`block_lens`](Self::block_lens), and the bytes
    /// that have come of an unfinished header against [`max_header_len`](Self::max_header_len).
    /// Neither need be checked here.
    ///
    /// # Errors
    ///
    /// [`InvalidHeader`] as soon as no further byte could make this header valid.
    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader>;

    /// The longest header, in bytes: all that [`decode_header`](Self::decode_header) must see to know
    /// the block's length, whether it is stripped or kept. 64 KiB by default, and at most.
    ///
    /// A peer that sends more without completing a header gets
    /// [`BlockError::InvalidHeader`](crate::BlockError::InvalidHeader). Return less where headers are
    /// shorter, above all for a header that ends at a delimiter.
    ///
    /// ```
    /// use bytes::{BufMut, BytesMut};
    /// use tokio_util::codec::Decoder;
    /// use wholeblock::{BlockCodec, BlockError, Framing, Header, InvalidHeader};
    ///
    /// /// A line of up to 80 bytes, `\n` included, which is kept.
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

    /// Appends what is stripped of the header of a block of `block_len` bytes to `dst`.
    ///
    /// `block_len` is within [`block_lens`](Self::block_lens).
    fn encode_header(&self, block_len: u64, dst: &mut impl BufMut);

    /// Checks that this framing needs no longer for each block. [`Proven`] is private, so only this crate
    /// can return it.
    #[doc(hidden)]
    #[inline]
    fn proven(&self) -> Proven {
        Proven::default()
    }

    /// The framing of what is sent: this one, except for an [`InOut`].
    #[doc(hidden)]
    #[inline]
    fn outgoing(&self) -> &impl Framing {
        self
    }

    /// What [`check_framing`] does with this framing.
    #[doc(hidden)]
    fn keeps_contract(&self) -> Result<(), ContractViolation> {
        check::check(self, |len| len)
    }
}

/// What is known of a framing's headers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Proven {
    /// Every header that it writes reads back as the length that it was written for.
    pub(crate) encoded: bool,
    /// The lengths of a header that it calls complete are possible: at most a header of 64 KiB, at
    /// least the shortest block, and a byte on the wire.
    pub(crate) decoded: bool,
}

impl Proven {
    pub(crate) const ALL: Self = Self {
        encoded: true,
        decoded: true,
    };
}

/// What [`Framing::decode_header`] found at the front; [`Framing`] shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The header is not all there.
    Incomplete {
        /// The shortest the whole header can be, in bytes; more than have arrived.
        at_least: usize,
    },
    /// The header is all there, and the payload follows it.
    Complete {
        /// How many bytes in front are no part of the block, and are stripped.
        stripped: usize,
        /// How many bytes after these are the block, as announced. Where a header is kept, it counts.
        block_len: u64,
    },
}

/// A header that the framing does not allow, and what is wrong with it: a clause whose subject is
/// the header, as in "invalid header in block 3: *its varint overflows 64 bits*".
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
