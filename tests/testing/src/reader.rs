//! The blocks and errors that a receiver must find in a stream, by the reference.

use wholeblock::{BlockError, BlockPart};

use crate::reference::{Front, Reference};

/// A reader of a whole stream, block after block.
pub struct Reader<'w> {
    reference: &'w Reference,
    wire: &'w [u8],
    /// The longest block that is received, in bytes.
    max: usize,
    skip_too_large: bool,
    /// The next block's index, its offset in errors, and its place in `wire`.
    pub index: u64,
    pub offset: u64,
    at: usize,
    /// Place in `wire` of the block that was taken last.
    last: usize,
    pub skipped: u64,
}

/// The next thing in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'w> {
    /// A block: its bytes on the wire, and how many of them are stripped.
    Block {
        wire: &'w [u8],
        header_len: usize,
    },
    /// The stream ends inside a block.
    Truncated {
        part: BlockPart,
        expected: u64,
        received: u64,
    },
    TooLarge {
        announced: u64,
    },
    Invalid,
    End,
}

impl<'w> Reader<'w> {
    pub fn new(reference: &'w Reference, wire: &'w [u8], max: usize, skip_too_large: bool) -> Self {
        Self {
            reference,
            wire,
            max,
            skip_too_large,
            index: 0,
            offset: 0,
            at: 0,
            last: 0,
            skipped: 0,
        }
    }

    /// Returns what is at the front without taking it. Passes over blocks that are skipped.
    pub fn peek(&mut self) -> Event<'w> {
        loop {
            let rest = &self.wire[self.at..];
            let (header_len, announced) = match self.reference.read(rest) {
                Front::Header { .. } if rest.is_empty() => return Event::End,
                Front::Header { at_least } => {
                    return Event::Truncated {
                        part: BlockPart::Header,
                        expected: at_least as u64,
                        received: rest.len() as u64,
                    };
                }
                Front::Invalid => return Event::Invalid,
                Front::Announced {
                    header_len,
                    payload_len,
                } => (header_len, payload_len),
            };
            if rest.is_empty() {
                return Event::End;
            }
            let too_large = announced > self.max as u64;
            if too_large && !self.skip_too_large {
                return Event::TooLarge { announced };
            }
            let arrived = (rest.len() - header_len) as u64;
            if announced > arrived {
                return Event::Truncated {
                    part: BlockPart::Payload,
                    expected: announced,
                    received: arrived,
                };
            }
            let wire = &rest[..header_len + announced as usize];
            if !too_large {
                return Event::Block { wire, header_len };
            }
            self.pass(wire.len());
            self.skipped += 1;
        }
    }

    /// Takes the block at the front.
    pub fn take(&mut self, wire_len: usize) {
        self.pass(wire_len);
    }

    /// Returns the last `bytes` bytes of the stream.
    pub fn rest(&self, bytes: u64) -> &'w [u8] {
        &self.wire[self.wire.len() - bytes as usize..]
    }

    /// Returns the block that was taken last, as it is on the wire.
    pub fn last(&self) -> &'w [u8] {
        &self.wire[self.last..self.at]
    }

    fn pass(&mut self, wire_len: usize) {
        self.last = self.at;
        self.index += 1;
        self.offset += wire_len as u64;
        self.at += wire_len;
    }

    /// Returns how many of the first `arrived` bytes were neither taken nor skipped.
    pub fn kept(&self, arrived: usize) -> usize {
        let mut at = self.at;
        while at < arrived {
            // Once its header has arrived, nothing of a skipped block is kept.
            match self.reference.read(&self.wire[at..arrived]) {
                Front::Announced {
                    header_len,
                    payload_len,
                } if self.skip_too_large && payload_len > self.max as u64 => {
                    let wire_len = payload_len.saturating_add(header_len as u64);
                    let end = (at as u64).saturating_add(wire_len);
                    at = end.min(arrived as u64) as usize;
                }
                _ => break,
            }
        }
        arrived.saturating_sub(at)
    }

    /// Returns those of the first `arrived` bytes that a buffer holds: all that are kept.
    pub fn buffered(&self, arrived: usize) -> &'w [u8] {
        &self.wire[arrived - self.kept(arrived)..arrived]
    }

    /// Returns how many of the first `arrived` bytes are not taken, with those that are being skipped.
    pub fn ahead(&self, arrived: usize) -> usize {
        arrived.saturating_sub(self.at)
    }

    /// Returns the wire length of the block at the front. 0 if its header is not within the first `arrived`
    /// bytes, or if it is over the limit.
    pub fn announced(&self, arrived: usize) -> usize {
        match self.reference.read(self.buffered(arrived)) {
            Front::Announced {
                header_len,
                payload_len,
            } if payload_len <= self.max as u64 => header_len.saturating_add(payload_len as usize),
            _ => 0,
        }
    }

    /// Panics unless `error` is what is at the front, with the same numbers.
    pub fn check_error(&mut self, error: &BlockError) {
        let expected = self.peek();
        let at = (self.index, self.offset);
        let (actual, place) = match *error {
            BlockError::Truncated {
                part,
                expected,
                received,
                index,
                offset,
            } => {
                let truncated = Event::Truncated {
                    part,
                    expected,
                    received,
                };
                (truncated, (index, offset))
            }
            BlockError::TooLarge {
                announced,
                limit,
                index,
                offset,
                ..
            } => {
                assert_eq!(limit, self.max as u64, "{error}");
                (Event::TooLarge { announced }, (index, offset))
            }
            BlockError::InvalidHeader { index, offset, .. } => (Event::Invalid, (index, offset)),
            _ => panic!("{error}, where {expected:?} was due"),
        };
        assert_eq!((actual, place), (expected, at), "{error}");
    }
}
