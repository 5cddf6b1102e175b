//! memcached's text protocol:
//! [protocol.txt](https://github.com/memcached/memcached/blob/master/doc/protocol.txt).

use std::ops::RangeInclusive;

use bytes::BufMut;
use wholeblock::{Framing, Header, InvalidHeader};

use super::{assert_blocks, assert_invalid};

/// A line, and the data that it announces: a command or an answer. All of it is kept.
#[derive(Clone, Copy)]
struct Text;

impl Framing for Text {
    fn block_lens(&self) -> RangeInclusive<u64> {
        2..=65_536 + (1 << 30) + 2 // the largest item of a server is 1 GiB
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let Some(end) = front.windows(2).position(|two| two == b"\r\n") else {
            return Ok(Header::Incomplete {
                at_least: (front.len() + 1).max(2),
            });
        };
        let line_len = end as u64 + 2;
        let mut words = front[..end].split(|&byte| byte == b' ');
        let data_len = match words.next() {
            Some(b"VA") => words.next(),
            Some(b"ms") => words.nth(1),
            Some(b"VALUE") => words.nth(2),
            Some(b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas") => words.nth(3),
            _ => {
                return Ok(Header::Complete {
                    stripped: 0,
                    block_len: line_len,
                });
            }
        };
        match data_len.map(|len| std::str::from_utf8(len).map(str::parse::<u32>)) {
            Some(Ok(Ok(data_len))) => Ok(Header::Complete {
                stripped: 0,
                block_len: line_len + u64::from(data_len) + 2,
            }),
            _ => Err(InvalidHeader("it does not say how long its data is")),
        }
    }

    fn encode_header(&self, _: u64, _: &mut impl BufMut) {} // the block brings it along
}

#[test]
fn memcached_commands_and_answers_are_blocks_with_their_data() {
    // "Storage commands", "Retrieval command", "Meta Get", "Meta Set"; data may have line ends in it.
    let commands: [&[u8]; 4] = [
        b"set key 0 0 6\r\na\r\nb\r\n\r\n",
        b"cas key 0 0 0 7 noreply\r\n\r\n",
        b"get key\r\n",
        b"ms foo 2 T0\r\nhi\r\n",
    ];
    assert_blocks(Text, &commands);
    let answers: [&[u8]; 5] = [
        b"STORED\r\n",
        b"VALUE key 0 6 7\r\na\r\nb\r\n\r\n",
        b"END\r\n",
        b"VA 2 t0\r\nhi\r\n",
        b"HD\r\n",
    ];
    assert_blocks(Text, &answers);
    assert_invalid(
        Text,
        &[b"set key 0 0\r\n", b"VA x\r\n", b"VALUE k 0 -1\r\n"],
    );
}
