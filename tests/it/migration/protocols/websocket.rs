//! WebSocket's frames: [RFC 6455](https://www.rfc-editor.org/rfc/rfc6455), section 5.2.

use std::ops::RangeInclusive;

use bytes::BufMut;
use wholeblock::{Framing, Header, InvalidHeader};

use super::{assert_blocks, assert_invalid};

/// 2 bytes, whose last 7 bits are the length, or say that it follows in 2 or 8 bytes; then an optional
/// masking key, and the payload. All of it is kept.
#[derive(Clone, Copy)]
struct WebSocket;

impl Framing for WebSocket {
    fn block_lens(&self) -> RangeInclusive<u64> {
        2..=2 + 8 + 4 + i64::MAX as u64
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let [_, second, ref rest @ ..] = *front else {
            return Ok(Header::Incomplete { at_least: 2 });
        };
        let (width, least) = match second & 0x7f {
            126 => (2, 126),
            127 => (8, 65_536),
            _ => (0, 0),
        };
        let Some(length) = rest.get(..width) else {
            return Ok(Header::Incomplete {
                at_least: 2 + width,
            });
        };
        let len = match width {
            0 => u64::from(second & 0x7f),
            _ => length.iter().fold(0, |len, &b| len << 8 | u64::from(b)),
        };
        if len < least || len > i64::MAX as u64 {
            return Err(InvalidHeader(
                "its length is not the shortest form of 63 bits",
            ));
        }
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        Ok(Header::Complete {
            stripped: 0,
            block_len: 2 + width as u64 + mask + len,
        })
    }

    fn encode_header(&self, _: u64, _: &mut impl BufMut) {} // the block brings it along
}

#[test]
fn websocket_frames_are_blocks_with_their_headers() {
    // Section 5.7.
    assert_blocks(WebSocket, &[b"\x81\x05Hello"]);
    assert_blocks(
        WebSocket,
        &[b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"],
    );
    assert_blocks(WebSocket, &[b"\x01\x03Hel", b"\x80\x02lo"]);
    let pong = b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
    assert_blocks(WebSocket, &[b"\x89\x05Hello", pong]);
    let binary = [&b"\x82\x7e\x01\0"[..], &[7; 256]].concat();
    assert_blocks(WebSocket, &[&binary]);
    let binary = [&b"\x82\x7f\0\0\0\0\0\x01\0\0"[..], &[7; 65_536]].concat();
    assert_blocks(WebSocket, &[&binary]);
    let too_long_for_7_bits = b"\x82\x7e\0\x7d";
    let too_long_for_16 = b"\x82\x7f\0\0\0\0\0\0\xff\xff";
    let of_64_bits = b"\x82\x7f\x80\0\0\0\0\0\0\0";
    assert_invalid(
        WebSocket,
        &[too_long_for_7_bits, too_long_for_16, of_64_bits],
    );
}
