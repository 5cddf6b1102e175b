//! How a block is delimited on the wire. Pure: nothing here reads or writes.

mod exact;
mod length_prefix;
mod varint;

use std::ops::RangeInclusive;

use bytes::BufMut;

pub use self::{exact::Exact, length_prefix::LengthPrefix, varint::Varint};

/// The largest block that [`LengthPrefix`] and [`Varint`] carry unless told otherwise: 8 MiB, the
/// same default as `LengthDelimitedCodec`'s, so that changing over changes no limit.
pub(crate) const DEFAULT_MAX_BLOCK_LEN: usize = 8 * 1024 * 1024;

/// The largest limit a framing of this crate takes. A block with its header must fit one
/// allocation, and no allocation exceeds `isize::MAX` bytes; half of that leaves room for any
/// header, and sums of the two never overflow.
pub(crate) const LARGEST_LIMIT: usize = isize::MAX as usize / 2;

/// How one block is delimited on the wire: which header stands before its payload.
///
/// This is the one thing to implement for a protocol of your own. Decoding, encoding, the size
/// limit, bounded memory, vectored sends and the counts are written once, over any framing, and
/// are compiled for yours. A block must have at least one byte on the wire, header included.
///
/// It is cloned for each batch of blocks, so that it can stay in registers while they are gone
/// through: keep it small, and `Copy` at best.
///
/// ```
/// use bytes::BufMut;
/// use wholeblock::{InvalidHeader, BlockCodec, Framing, Header};
///
/// /// `'W' 'B'`, then the payload's length as a big-endian u16.
/// #[derive(Clone)]
/// struct Tagged;
///
/// impl Framing for Tagged {
///     fn block_lens(&self) -> std::ops::RangeInclusive<usize> {
///         0..=usize::from(u16::MAX)
///     }
///
///     fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
///         match *front {
///             [b'W', b'B', hi, lo, ..] => Ok(Header::Complete {
///                 header_len: 4,
///                 payload_len: u64::from(u16::from_be_bytes([hi, lo])),
///             }),
///             [] | [b'W'] | [b'W', b'B', ..] => Ok(Header::Incomplete { at_least: 4 }),
///             _ => Err(InvalidHeader("it does not start with WB")),
///         }
///     }
///
///     fn encode_header(&self, payload_len: usize, dst: &mut impl BufMut) {
///         dst.put_slice(b"WB");
///         dst.put_u16(payload_len as u16); // in `block_lens`, so it fits
///     }
/// }
///
/// let codec = BlockCodec::new(Tagged);
/// ```
pub trait Framing: Clone {
    /// The payload lengths this framing carries, in bytes; at most half of `isize::MAX`, so that a
    /// block with its header can be held.
    ///
    /// One range for both directions: [`BlockCodec`](crate::BlockCodec) refuses to encode a block
    /// outside it, and refuses a header that announces one.
    fn block_lens(&self) -> RangeInclusive<usize>;

    /// Reads the header at the front of `front`, which holds what has arrived: nothing, a part
    /// of the header, or the header and any number of bytes after it.
    ///
    /// The answer may not depend on how many bytes follow the header. A limit need not be checked
    /// here; [`block_lens`](Self::block_lens) is.
    ///
    /// # Errors
    ///
    /// [`InvalidHeader`] as soon as no further byte could make this header a good one.
    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader>;

    /// Appends the header of a payload of `payload_len` bytes to `dst`.
    ///
    /// `payload_len` is within [`block_lens`](Self::block_lens).
    fn encode_header(&self, payload_len: usize, dst: &mut impl BufMut);
}

/// What [`Framing::decode_header`] made of the bytes at the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The header is not all there.
    Incomplete {
        /// The shortest the whole header can be, in bytes; more than have arrived.
        at_least: usize,
    },
    /// The header is all there, and the payload follows it.
    Complete {
        /// Length of the header, in bytes.
        header_len: usize,
        /// Length of the payload after the header, in bytes, as announced.
        payload_len: u64,
    },
}

/// A header that no framing rule allows, and what is wrong with it.
///
/// Completes the sentence "invalid header in block 3: …".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHeader(pub &'static str);
