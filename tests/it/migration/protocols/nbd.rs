//! NBD after its handshake, with structured replies negotiated:
//! [proto.md](https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md), "Transmission".

use std::ops::RangeInclusive;

use bytes::{Buf, BufMut};
use wholeblock::{Framing, Header, InvalidHeader};

use super::{assert_blocks, assert_invalid};

/// A header of 28 bytes and, in a write, as many bytes of data as the header says. All of it is kept.
#[derive(Clone, Copy)]
struct Requests;

impl Framing for Requests {
    fn block_lens(&self) -> RangeInclusive<u64> {
        28..=28 + 0xffff_ffff
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        if !front.iter().zip(b"\x25\x60\x95\x13").all(|(a, b)| a == b) {
            return Err(InvalidHeader("it does not begin with the magic number"));
        }
        if front.len() < 28 {
            return Ok(Header::Incomplete { at_least: 28 });
        }
        let (mut command, mut len) = (&front[6..8], &front[24..28]);
        let data_len = match command.get_u16() {
            1 => len.get_u32(), // NBD_CMD_WRITE
            _ => 0,
        };
        Ok(Header::Complete {
            stripped: 0,
            block_len: 28 + u64::from(data_len),
        })
    }

    fn encode_header(&self, _: u64, _: &mut impl BufMut) {} // the block brings it along
}

/// A simple reply of 16 bytes, without data; or a structured reply of 20 bytes, which say how many follow.
/// All of it is kept.
#[derive(Clone, Copy)]
struct Replies;

impl Framing for Replies {
    fn block_lens(&self) -> RangeInclusive<u64> {
        16..=20 + 0xffff_ffff
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let block_len = match front.first_chunk() {
            None => return Ok(Header::Incomplete { at_least: 4 }),
            Some(b"\x67\x44\x66\x98") => 16,
            Some(b"\x66\x8e\x33\xef") => match front.get(16..20) {
                None => return Ok(Header::Incomplete { at_least: 20 }),
                Some(mut len) => 20 + u64::from(len.get_u32()),
            },
            Some(_) => return Err(InvalidHeader("it does not begin with a magic number")),
        };
        Ok(Header::Complete {
            stripped: 0,
            block_len,
        })
    }

    fn encode_header(&self, _: u64, _: &mut impl BufMut) {} // the block brings it along
}

#[test]
fn nbd_writes_are_blocks_with_their_data_and_other_requests_have_none() {
    let write = b"\x25\x60\x95\x13\0\0\0\x01\0\0\0\0\0\0\0\x4d\0\0\0\0\0\0\x10\0\0\0\0\x05whole";
    let read = b"\x25\x60\x95\x13\0\0\0\0\0\0\0\0\0\0\0\x4e\0\0\0\0\0\0\x10\0\0\0\0\x05";
    let disconnect = b"\x25\x60\x95\x13\0\0\0\x02\0\0\0\0\0\0\0\x4f\0\0\0\0\0\0\0\0\0\0\0\0";
    assert_blocks(Requests, &[write, read, disconnect]);
    assert_invalid(Requests, &[b"\x25\x60\x95\x14", b"G"]);
}

#[test]
fn nbd_replies_are_blocks_whether_simple_or_structured() {
    let written = b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x4d";
    let read = b"\x66\x8e\x33\xef\0\x01\0\x01\0\0\0\0\0\0\0\x4e\0\0\0\x0d\
        \0\0\0\0\0\0\x10\0whole";
    let none = b"\x66\x8e\x33\xef\0\x01\0\0\0\0\0\0\0\0\0\x4f\0\0\0\0";
    assert_blocks(Replies, &[&written[..], read, none]);
    assert_invalid(Replies, &[b"\x66\x8e\x33\xee"]);
}
