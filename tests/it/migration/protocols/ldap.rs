//! LDAP: [RFC 4511](https://www.rfc-editor.org/rfc/rfc4511), section 5.1.

use std::ops::RangeInclusive;

use bytes::BufMut;
use wholeblock::{Framing, Header, InvalidHeader};

use super::{assert_blocks, assert_invalid};

/// A SEQUENCE in BER: its tag, its length and its content. The length has 1 byte, or 2 to 5 bytes, the
/// first of which says how many follow. All of it is kept.
#[derive(Clone, Copy)]
struct LdapMessage;

impl Framing for LdapMessage {
    fn block_lens(&self) -> RangeInclusive<u64> {
        2..=2 + 4 + 0xffff_ffff
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let (first, rest) = match *front {
            [] | [0x30] => return Ok(Header::Incomplete { at_least: 2 }),
            [0x30, first, ref rest @ ..] => (first, rest),
            _ => return Err(InvalidHeader("it is no SEQUENCE")),
        };
        let width = match first {
            0..=0x7f => 0,
            0x81..=0x84 => usize::from(first - 0x80),
            _ => return Err(InvalidHeader("its length is indefinite, or over 4 bytes")),
        };
        let Some(length) = rest.get(..width) else {
            return Ok(Header::Incomplete {
                at_least: 2 + width,
            });
        };
        let len = match width {
            0 => u64::from(first),
            _ => length.iter().fold(0, |len, &b| len << 8 | u64::from(b)),
        };
        Ok(Header::Complete {
            stripped: 0,
            block_len: 2 + width as u64 + len,
        })
    }

    fn encode_header(&self, _: u64, _: &mut impl BufMut) {} // the block brings it along
}

#[test]
fn ldap_messages_are_blocks_with_their_tags_and_lengths() {
    // Sections 4.2 and 4.3: an anonymous bind, its answer, and an unbind.
    let bind = b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\0\x80\0";
    let answer = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\0\x04\0\x04\0";
    // As Active Directory sends it.
    let padded = b"\x30\x84\0\0\0\x10\x02\x01\x01\x61\x84\0\0\0\x07\x0a\x01\0\x04\0\x04\0";
    let unbind = b"\x30\x05\x02\x01\x02\x42\0";
    assert_blocks(LdapMessage, &[bind, answer, padded, unbind]);
    // X.690, section 8.1.3.5: a length of 201.
    let long = [&[0x30, 0b1000_0001, 0b1100_1001], &[7; 201][..]].concat();
    assert_blocks(LdapMessage, &[&long]);
    assert_invalid(LdapMessage, &[b"\x30\x80", b"\x30\x85", b"\x16"]);
}
