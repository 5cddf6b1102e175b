//! What the blocks carry:
//!
//! ```text
//! +----------------+---------------+----------------------------------------------+
//! | ordinal, 8     | number, 8     | bytes that follow from all the rest          |
//! +----------------+---------------+----------------------------------------------+
//!   which block of   what it says:
//!   its connection   a client, the block wanted next, or which block of the client
//! ```

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) const MIN_LEN: usize = 16;
pub(crate) const MAX_LEN: usize = 40_000;

/// Who wrote a block that is not a client's payload.
pub(crate) const HELLO: u64 = 1_000;
pub(crate) const WANTED: u64 = 1_001;

pub(crate) fn build(writer: u64, ordinal: u64, number: u64, len: usize) -> Bytes {
    let mut block = BytesMut::with_capacity(len);
    block.put_u64(ordinal);
    block.put_u64(number);
    block.extend((MIN_LEN..len).map(|at| filler(writer, number, len, at)));
    block.freeze()
}

/// Which block of its connection `block` says it is.
pub(crate) fn ordinal(block: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*block.first_chunk()?))
}

/// The number in `block`, if every byte is as `writer` wrote it.
pub(crate) fn number(writer: u64, block: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(*block.get(8..)?.first_chunk()?);
    let is_right = |(at, &byte)| byte == filler(writer, number, block.len(), at);
    let mut rest = block.iter().enumerate().skip(MIN_LEN);
    rest.all(is_right).then_some(number)
}

fn filler(writer: u64, number: u64, len: usize, at: usize) -> u8 {
    (writer * 89 + number * 131 + len as u64 * 17 + at as u64 * 7 + at as u64 / 251) as u8
}
