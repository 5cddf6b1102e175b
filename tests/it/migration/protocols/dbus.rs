//! D-Bus: [the specification](https://dbus.freedesktop.org/doc/dbus-specification.html), "Message
//! Format".

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut};
use wholeblock::{Framing, Header, InvalidHeader};

use super::{assert_blocks, assert_invalid};

/// The byte order, 3 bytes, the body's length, a serial number and the length of the fields; then the
/// fields, padded to a multiple of 8 bytes, and the body. All of it is kept.
#[derive(Clone, Copy)]
struct DBus;

impl Framing for DBus {
    fn block_lens(&self) -> RangeInclusive<u64> {
        16..=128 * 1024 * 1024
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        if !matches!(front, [] | [b'l' | b'B', ..]) {
            return Err(InvalidHeader("it does not begin with a byte order"));
        }
        if front.len() < 16 {
            return Ok(Header::Incomplete { at_least: 16 });
        }
        let (mut body, mut fields) = (&front[4..8], &front[12..16]);
        let (body, fields) = match front[0] {
            b'l' => (body.get_u32_le(), fields.get_u32_le()),
            _ => (body.get_u32(), fields.get_u32()),
        };
        let header_len = (16 + u64::from(fields)).next_multiple_of(8);
        Ok(Header::Complete {
            stripped: 0,
            block_len: header_len + u64::from(body),
        })
    }

    fn encode_header(&self, _: u64, _: &mut impl BufMut) {} // the block brings it along
}

#[test]
fn dbus_messages_are_blocks_with_their_headers() {
    // The call of Hello, which is padded, and an answer in the other byte order.
    let hello = b"l\x01\0\x01\0\0\0\0\x01\0\0\0\x6e\0\0\0\
        \x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0\
        \x06\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0\
        \x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0\
        \x03\x01s\0\x05\0\0\0Hello\0\0\0";
    let answer = b"B\x02\x01\x01\0\0\0\x09\0\0\0\x01\0\0\0\x0f\
        \x05\x01u\0\0\0\0\x01\x08\x01g\0\x01s\0\0\
        \0\0\0\x04:1.1\0";
    assert_blocks(DBus, &[hello, answer]);
    assert_invalid(DBus, &[b"\0", b"L"]);
}
