//! Parses the front of a buffer: how long the block is, and how much of it is there. Pure: it knows no
//! I/O and no history of the stream.

use std::ops::Range;

use crate::framing::{Framing, Header, InvalidHeader, MAX_HEADER_LEN, MAX_LIMIT};

const HEADER_TOO_LONG: InvalidHeader = InvalidHeader("it is longer than its framing allows");

/// The result of parsing the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// A whole block.
    Complete(FrameLen),
    /// The whole header, and a part of the payload that it announces.
    PartialPayload(FrameLen),
    /// A part of a header, or nothing. The whole header has at least this many bytes.
    PartialHeader { at_least: usize },
    /// A header that announces more than the limit, which the codec may have set below what the
    /// framing carries.
    TooLarge {
        header_len: usize,
        announced: u64,
        limit: u64,
    },
    /// The whole header of a block of any length that is received part by part.
    Long { header_len: usize, len: u64 },
    /// A header that the framing does not allow.
    Invalid(InvalidHeader),
}

impl Parsed {
    /// Returns the block, if it is whole. `None` includes errors: the caller then goes on to the decoder,
    /// which parses the header again and reports the error.
    #[inline]
    pub(crate) fn complete(self) -> Option<FrameLen> {
        match self {
            Self::Complete(frame) => Some(frame),
            _ => None,
        }
    }
}

/// The lengths of one block on the wire, in bytes. The header is stripped from the front; the payload is
/// the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameLen {
    pub(crate) header_len: usize,
    /// Header and payload.
    pub(crate) wire_len: usize,
}

impl FrameLen {
    pub(crate) fn payload_len(self) -> usize {
        self.wire_len - self.header_len
    }

    /// Returns the place of the payload in a buffer in which the block begins at `start`.
    #[inline]
    pub(crate) fn payload_at(self, start: usize) -> Range<usize> {
        start + self.header_len..start + self.wire_len
    }
}

/// A parser for blocks of one framing, with a limit that may be lower than the framing's own.
#[derive(Clone, Debug)]
pub(crate) struct FrameParser<F> {
    framing: F,
    /// Limit for payloads that are received whole, in bytes.
    max: usize,
    /// Limit for payloads that are received part by part, in bytes.
    max_in_parts: u64,
}

impl<F: Framing> FrameParser<F> {
    pub(crate) fn new(framing: F) -> Self {
        let max = longest(&framing);
        let max_in_parts = *framing.block_lens().end();
        Self {
            framing,
            max,
            max_in_parts,
        }
    }

    #[inline]
    pub(crate) fn framing(&self) -> &F {
        &self.framing
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Sets the limit for whole blocks, in payload bytes.
    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    pub(crate) fn max_in_parts(&self) -> u64 {
        self.max_in_parts
    }

    pub(crate) fn set_max_in_parts(&mut self, max: u64) {
        self.max_in_parts = max;
    }

    /// Parses the block at the front of `front`, to receive it part by part: the limit for whole blocks
    /// does not apply.
    pub(crate) fn parse_in_parts(&self, front: &[u8]) -> Parsed {
        let (header_len, len) = match self.parse(front) {
            Parsed::Complete(frame) | Parsed::PartialPayload(frame) => {
                (frame.header_len, frame.payload_len() as u64)
            }
            Parsed::TooLarge {
                header_len,
                announced,
                ..
            } => (header_len, announced),
            other => return other,
        };
        if len > self.max_in_parts {
            return Parsed::TooLarge {
                header_len,
                announced: len,
                limit: self.max_in_parts,
            };
        }
        match header_len > front.len() {
            true => self.partial_header(header_len, front),
            false => Parsed::Long { header_len, len },
        }
    }

    /// Parses the block at the front of `front`.
    #[inline]
    pub(crate) fn parse(&self, front: &[u8]) -> Parsed {
        let (header_len, announced) = match self.framing.decode_header(front) {
            Ok(Header::Complete {
                stripped: header_len,
                block_len: payload_len,
            }) => (header_len, payload_len),
            Ok(Header::Incomplete { at_least }) => return self.partial_header(at_least, front),
            Err(invalid) => return Parsed::Invalid(invalid),
        };
        let sound = self.framing.proven().decoded;
        if !sound && header_len > self.max_header_len() {
            return Parsed::Invalid(HEADER_TOO_LONG);
        }
        let payload_len = usize::try_from(announced).unwrap_or(usize::MAX);
        if payload_len > self.max {
            return Parsed::TooLarge {
                header_len,
                announced,
                limit: self.max as u64,
            };
        }
        // The minimum is not stored: in most framings it is a constant, and the test vanishes.
        if !sound && announced < *self.framing.block_lens().start() {
            return Parsed::Invalid(InvalidHeader("it announces less than the framing carries"));
        }
        if !sound && header_len == 0 && payload_len == 0 {
            return Parsed::Invalid(InvalidHeader("its block has no bytes on the wire"));
        }
        let Some(arrived) = front.len().checked_sub(header_len) else {
            // The framing returned `Complete` before the whole header had arrived.
            return self.partial_header(header_len, front);
        };
        if payload_len <= arrived {
            Parsed::Complete(FrameLen {
                header_len,
                wire_len: header_len + payload_len,
            })
        } else {
            Parsed::PartialPayload(FrameLen {
                header_len,
                wire_len: header_len.saturating_add(payload_len),
            })
        }
    }

    /// Returns a partial header that needs more than `front`, even if the framing asks for less.
    #[inline]
    fn partial_header(&self, at_least: usize, front: &[u8]) -> Parsed {
        let at_least = at_least.max(front.len() + 1);
        if at_least > self.max_header_len() {
            return Parsed::Invalid(HEADER_TOO_LONG);
        }
        Parsed::PartialHeader { at_least }
    }

    fn max_header_len(&self) -> usize {
        self.framing.max_header_len().min(MAX_HEADER_LEN)
    }
}

/// Returns the length of the longest block that `framing` carries whole and an allocation can hold.
pub(crate) fn longest<F: Framing>(framing: &F) -> usize {
    let max = framing.max_whole_len().min(*framing.block_lens().end());
    usize::try_from(max).map_or(MAX_LIMIT, |max| max.min(MAX_LIMIT))
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use bytes::BufMut;

    use super::*;
    use crate::{Exact, LengthPrefix, Varint};

    const fn frame(header_len: usize, wire_len: usize) -> FrameLen {
        FrameLen {
            header_len,
            wire_len,
        }
    }

    #[test]
    fn parse_tells_each_outcome_by_the_front() {
        let u32s = FrameParser::new(LengthPrefix::u32().max_block_len(5).unwrap());
        let table: [(&[u8], Parsed); 7] = [
            (b"", Parsed::PartialHeader { at_least: 4 }),
            (b"\0\0\0", Parsed::PartialHeader { at_least: 4 }),
            (b"\0\0\0\x02", Parsed::PartialPayload(frame(4, 6))),
            (b"\0\0\0\x02a", Parsed::PartialPayload(frame(4, 6))),
            (b"\0\0\0\x02ab\0", Parsed::Complete(frame(4, 6))),
            (b"\0\0\0\0", Parsed::Complete(frame(4, 4))),
            (
                b"\0\0\0\x06",
                Parsed::TooLarge {
                    header_len: 4,
                    announced: 6,
                    limit: 5,
                },
            ),
        ];
        for (front, expected) in table {
            assert_eq!(u32s.parse(front), expected, "{front:?}");
        }
        let exact = FrameParser::new(Exact::new(3).unwrap());
        assert_eq!(exact.parse(b"ab"), Parsed::PartialPayload(frame(0, 3)));
        assert_eq!(exact.parse(b"abc"), Parsed::Complete(frame(0, 3)));
        let endless = FrameParser::new(Varint::new()).parse(&[0xff; 10]);
        assert!(matches!(endless, Parsed::Invalid(_)), "{endless:?}");
    }

    #[test]
    fn only_a_whole_block_is_complete() {
        let whole = Parsed::Complete(frame(4, 6));
        assert_eq!(whole.complete().unwrap().payload_at(10), 14..16);
        assert_eq!(Parsed::PartialPayload(frame(4, 6)).complete(), None);
        assert_eq!(Parsed::Invalid(InvalidHeader("wrong")).complete(), None);
    }

    /// Announces its block before any byte of the 8-byte header has arrived.
    #[derive(Clone)]
    struct Hasty(u64);

    impl Framing for Hasty {
        fn block_lens(&self) -> RangeInclusive<u64> {
            2..=u64::MAX
        }

        fn decode_header(&self, _front: &[u8]) -> Result<Header, InvalidHeader> {
            Ok(Header::Complete {
                stripped: 8,
                block_len: self.0,
            })
        }

        fn encode_header(&self, _block_len: u64, dst: &mut impl BufMut) {
            dst.put_bytes(0, 8);
        }
    }

    #[test]
    fn parser_waits_for_a_header_announced_before_it_arrives() {
        let hasty = FrameParser::new(Hasty(2));
        let partial = Parsed::PartialHeader { at_least: 8 };
        assert_eq!(hasty.parse(b"seven b"), partial);
        assert_eq!(
            hasty.parse(b"eight by"),
            Parsed::PartialPayload(frame(8, 10))
        );
    }

    #[test]
    fn lengths_at_both_ends_of_the_range_do_not_overflow() {
        let too_large = FrameParser::new(Hasty(u64::MAX)).parse(b"eight byt");
        assert!(
            matches!(too_large, Parsed::TooLarge { limit, .. } if limit == MAX_LIMIT as u64),
            "{too_large:?}"
        );
        let waits = FrameParser::new(Hasty(MAX_LIMIT as u64)).parse(b"eight byt");
        assert_eq!(waits, Parsed::PartialPayload(frame(8, 8 + MAX_LIMIT)));
        let short = FrameParser::new(Hasty(1)).parse(b"eight byt");
        assert!(matches!(short, Parsed::Invalid(_)), "{short:?}");
    }

    /// Always gives the same answer.
    #[derive(Clone)]
    struct Stubborn(Header);

    impl Framing for Stubborn {
        fn block_lens(&self) -> RangeInclusive<u64> {
            0..=u64::MAX
        }

        fn decode_header(&self, _front: &[u8]) -> Result<Header, InvalidHeader> {
            Ok(self.0)
        }

        fn encode_header(&self, _block_len: u64, _dst: &mut impl BufMut) {}
    }

    #[test]
    fn incomplete_header_waits_for_more_up_to_the_longest_header() {
        for at_least in [0, 1, 3] {
            let parser = FrameParser::new(Stubborn(Header::Incomplete { at_least }));
            let more = |at_least| Parsed::PartialHeader { at_least };
            assert_eq!(parser.parse(b""), more(at_least.max(1)));
            assert_eq!(parser.parse(b"abc"), more(4));
            let endless = parser.parse(&[0; MAX_HEADER_LEN]);
            assert_eq!(endless, Parsed::Invalid(HEADER_TOO_LONG));
        }
        for at_least in [MAX_HEADER_LEN + 1, usize::MAX] {
            let parser = FrameParser::new(Stubborn(Header::Incomplete { at_least }));
            assert_eq!(parser.parse(b""), Parsed::Invalid(HEADER_TOO_LONG));
        }
    }

    #[test]
    fn block_without_a_byte_on_the_wire_is_invalid() {
        let nothing = Header::Complete {
            stripped: 0,
            block_len: 0,
        };
        let parsed = FrameParser::new(Stubborn(nothing)).parse(b"abc");
        assert!(matches!(parsed, Parsed::Invalid(_)), "{parsed:?}");
    }

    #[test]
    fn too_long_a_header_is_invalid_even_before_it_arrives() {
        for header_len in [MAX_HEADER_LEN + 1, usize::MAX] {
            let parser = FrameParser::new(Stubborn(Header::Complete {
                stripped: header_len,
                block_len: 1,
            }));
            for front in [&[][..], &[0; MAX_HEADER_LEN + 9]] {
                assert_eq!(parser.parse(front), Parsed::Invalid(HEADER_TOO_LONG));
            }
        }
        let longest = FrameParser::new(Stubborn(Header::Complete {
            stripped: MAX_HEADER_LEN,
            block_len: 1,
        }));
        let frame = frame(MAX_HEADER_LEN, MAX_HEADER_LEN + 1);
        assert_eq!(
            longest.parse(&[0; MAX_HEADER_LEN + 1]),
            Parsed::Complete(frame)
        );
    }
}
