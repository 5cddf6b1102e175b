//! git's pkt-line: [gitprotocol-common](https://git-scm.com/docs/gitprotocol-common).

use std::ops::RangeInclusive;

use bytes::BufMut;
use wholeblock::{Framing, Header, InvalidHeader};

use super::{assert_blocks, assert_invalid};

/// A length of 4 hexadecimal digits, which counts itself, and a line; or 4 digits that are a mark. All of
/// it is kept.
#[derive(Clone, Copy)]
struct PktLine;

impl Framing for PktLine {
    fn block_lens(&self) -> RangeInclusive<u64> {
        4..=65_520
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let mut len = 0;
        for &digit in front.iter().take(4) {
            let Some(digit) = char::from(digit).to_digit(16) else {
                return Err(InvalidHeader("its length is not hexadecimal"));
            };
            len = len * 16 + u64::from(digit);
        }
        match len {
            _ if front.len() < 4 => Ok(Header::Incomplete { at_least: 4 }),
            3 => Err(InvalidHeader("its length is less than what it counts")),
            _ => Ok(Header::Complete {
                stripped: 0,
                block_len: len.max(4), // 0, 1 and 2 are flush, delimiter and end of the response
            }),
        }
    }

    fn encode_header(&self, _: u64, _: &mut impl BufMut) {} // the block brings it along
}

#[test]
fn pkt_lines_are_blocks_with_their_lengths() {
    // "pkt-line Format", and the marks of gitprotocol-v2, "Packet-Line Framing".
    let lines: [&[u8]; 4] = [b"0006a\n", b"0005a", b"000bfoobar\n", b"0004"];
    assert_blocks(PktLine, &lines);
    let request: [&[u8]; 4] = [b"0014command=ls-refs\n", b"0001", b"0009peel\n", b"0000"];
    assert_blocks(PktLine, &request);
    assert_blocks(PktLine, &[b"0002"]);
    assert_invalid(PktLine, &[b"0003", b"+", b"000g", b"G"]);
}
