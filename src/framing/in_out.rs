//! [`InOut`]: one framing for received blocks, another for sent blocks.

use std::ops::RangeInclusive;

use bytes::BufMut;

use super::{ContractViolation, Framing, Header, InvalidHeader, Proven};

/// Two framings, one for received blocks and one for sent blocks: for a protocol whose requests and replies
/// have different headers.
///
/// ```text
///                   client                      server
///   requests:       outgoing ─────────────────▶ incoming
///   replies:        incoming ◀───────────────── outgoing
/// ```
///
/// ```
/// use bytes::{Bytes, BytesMut};
/// use tokio_util::codec::{Decoder, Encoder};
/// use wholeblock::{BlockCodec, Exact, InOut, LengthPrefix};
///
/// // A request has 4 bytes, and a reply has its length before it.
/// let (requests, replies) = (Exact::new(4)?, LengthPrefix::u16());
/// let mut client = BlockCodec::new(InOut { incoming: replies, outgoing: requests });
/// let mut server = BlockCodec::new(InOut { incoming: requests, outgoing: replies });
///
/// let mut wire = BytesMut::new();
/// client.encode(Bytes::from("time"), &mut wire)?;
/// assert_eq!(wire, "time");
/// assert_eq!(server.decode(&mut wire)?.unwrap(), "time");
/// server.encode(Bytes::from("12:30"), &mut wire)?;
/// assert_eq!(wire, "\0\x0512:30");
/// assert_eq!(client.decode(&mut wire)?.unwrap(), "12:30");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Limits
///
/// Each direction has the limits of its framing. [`set_max_decode_len`] takes a length that the incoming
/// framing carries, [`set_max_encode_len`] one that the outgoing framing carries, and
/// [`set_max_block_len`] one that both carry.
///
/// # As a framing
///
/// [`encode_header`](Framing::encode_header) uses the outgoing framing. All other methods use the incoming
/// one, even [`block_lens`](Framing::block_lens): `framing.outgoing.block_lens()` returns the lengths that
/// can be sent. [`check_framing`](crate::check_framing) checks each of the two by itself.
///
/// [`set_max_block_len`]: crate::BlockCodec::set_max_block_len
/// [`set_max_decode_len`]: crate::BlockCodec::set_max_decode_len
/// [`set_max_encode_len`]: crate::BlockCodec::set_max_encode_len
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "CombinedChannelDuplexHandler")]
#[doc(alias = "asymmetric")]
pub struct InOut<I, O> {
    /// Framing of received blocks.
    pub incoming: I,
    /// Framing of sent blocks.
    pub outgoing: O,
}

impl<I: Framing, O: Framing> Framing for InOut<I, O> {
    #[inline]
    fn block_lens(&self) -> RangeInclusive<u64> {
        self.incoming.block_lens()
    }

    #[inline]
    fn max_whole_len(&self) -> u64 {
        self.incoming.max_whole_len()
    }

    #[inline]
    fn max_header_len(&self) -> usize {
        self.incoming.max_header_len()
    }

    #[inline]
    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        self.incoming.decode_header(front)
    }

    #[inline]
    fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
        self.outgoing.encode_header(block_len, dst);
    }

    // About sent blocks, the codec asks `outgoing()`.
    #[inline]
    fn proven(&self) -> Proven {
        self.incoming.proven()
    }

    #[inline]
    fn outgoing(&self) -> &impl Framing {
        self.outgoing.outgoing()
    }

    fn keeps_contract(&self) -> Result<(), ContractViolation> {
        self.incoming.keeps_contract()?;
        self.outgoing.keeps_contract()
    }
}
