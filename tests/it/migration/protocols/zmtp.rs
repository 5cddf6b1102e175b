//! ZMTP 3.1, ZeroMQ's protocol: [37/ZMTP](https://rfc.zeromq.org/spec/37/), "Framing".

use std::ops::RangeInclusive;

use bytes::BufMut;
use wholeblock::{Framing, Header, InvalidHeader};

use super::{assert_blocks, assert_invalid};

/// A byte of flags, one of which says whether the length has 1 byte or 8. All of it is kept.
#[derive(Clone, Copy)]
struct Zmtp;

impl Framing for Zmtp {
    fn block_lens(&self) -> RangeInclusive<u64> {
        2..=1 + 8 + i64::MAX as u64
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let (width, rest) = match *front {
            [] => return Ok(Header::Incomplete { at_least: 2 }),
            [0 | 1 | 4, ref rest @ ..] => (1, rest), // a message's last frame, another one, a command
            [2 | 3 | 6, ref rest @ ..] => (8, rest),
            _ => return Err(InvalidHeader("it has flags that are reserved")),
        };
        let Some(length) = rest.get(..width) else {
            return Ok(Header::Incomplete {
                at_least: 1 + width,
            });
        };
        let len = length.iter().fold(0, |len, &b| len << 8 | u64::from(b));
        Ok(Header::Complete {
            stripped: 0,
            block_len: (1 + width as u64).saturating_add(len),
        })
    }

    fn encode_header(&self, _: u64, _: &mut impl BufMut) {} // the block brings it along
}

#[test]
fn zmtp_frames_are_blocks_with_their_flags() {
    let ready = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03REQ";
    let request: [&[u8]; 2] = [b"\x01\0", b"\0\x05hello"];
    assert_blocks(Zmtp, &[&ready[..], request[0], request[1]]);
    let long = [&b"\x02\0\0\0\0\0\0\x01\0"[..], &[7; 256]].concat();
    assert_blocks(Zmtp, &[&long]);
    assert_invalid(Zmtp, &[b"\x05", b"\x08", b"\xff"]);
}
