//! X11's replies, errors and events:
//! [the protocol](https://www.x.org/releases/current/doc/xproto/x11protocol.html), section 1.

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut};
use wholeblock::{Framing, Header, InvalidHeader};

use super::assert_blocks;

/// A message of a server: 32 bytes, which in a reply or a generic event say how many words of 4 bytes
/// follow. All of it is kept.
#[derive(Clone, Copy)]
struct FromServer {
    little_endian: bool,
}

impl Framing for FromServer {
    fn block_lens(&self) -> RangeInclusive<u64> {
        32..=32 + 4 * 0xffff_ffff
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        if front.len() < 8 {
            return Ok(Header::Incomplete { at_least: 8 });
        }
        let mut length = &front[4..8];
        let words = match front[0] {
            1 | 35 if self.little_endian => length.get_u32_le(),
            1 | 35 => length.get_u32(),
            _ => 0, // an error, or an event
        };
        Ok(Header::Complete {
            stripped: 0,
            block_len: 32 + 4 * u64::from(words),
        })
    }

    fn encode_header(&self, _: u64, _: &mut impl BufMut) {} // the block brings it along
}

#[test]
fn x11_replies_errors_and_events_are_blocks() {
    // Appendix B: the answer to GetAtomName, a Window error, a KeyPress and a generic event of 1 word.
    let atom_name =
        b"\x01\0\0\x01\0\0\0\x02\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0PRIMARY\0";
    let window = b"\0\x03\0\x02\0\0\0\x2a\0\0\x0e\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let key_press =
        b"\x02\x26\0\x03\0\0\x10\0\0\0\0\x2a\0\0\0\x2b\0\0\0\0\0\x01\0\x02\0\x01\0\x02\0\0\x01\0";
    let generic = [&b"\x23\x83\0\x04\0\0\0\x01"[..], &[7; 28]].concat();
    let big_endian = FromServer {
        little_endian: false,
    };
    assert_blocks(big_endian, &[atom_name, window, key_press, &generic]);

    let mut atom_name = *atom_name;
    atom_name[2..10].copy_from_slice(b"\x01\0\x02\0\0\0\x07\0");
    assert_blocks(
        FromServer {
            little_endian: true,
        },
        &[&atom_name, key_press],
    );
}
