//! What is on the wire, by the documentation: no code of the crate is used here.

use std::{ops::RangeInclusive, sync::LazyLock};

use bytes::Bytes;
use wholeblock::HeaderBytes;

/// How blocks are delimited, and the longest that may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    pub(crate) scheme: Scheme,
    pub(crate) max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scheme {
    /// Blocks of this many bytes.
    Exact(usize),
    Prefix {
        width: usize,
        little_endian: bool,
        counts_itself: bool,
    },
    Varint,
    /// Two bytes of anything, a little-endian u24 that counts three bytes more than the payload,
    /// two bytes of anything.
    Field,
    /// PostgreSQL's messages: a tag and a big-endian u32 that counts itself, all part of the block.
    Kept,
    /// A user's own: "WB", version 1, a big-endian u24.
    Magic,
}

impl Wire {
    /// The lengths that it carries.
    pub(crate) fn lens(&self) -> RangeInclusive<usize> {
        let min = match self.scheme {
            Scheme::Exact(len) => len,
            Scheme::Kept => 5,
            _ => 0,
        };
        min..=self.max.max(min).min(self.most())
    }

    /// The longest block that its header can announce.
    pub(crate) fn most(&self) -> usize {
        match self.scheme {
            Scheme::Exact(len) => len,
            Scheme::Prefix {
                width: 1,
                counts_itself,
                ..
            } => 255 - usize::from(counts_itself),
            Scheme::Prefix {
                width: 2,
                counts_itself,
                ..
            } => 65_535 - 2 * usize::from(counts_itself),
            _ => 0xff_fff0,
        }
    }

    /// What goes before a block of `len` bytes.
    pub(crate) fn header(&self, len: usize) -> Vec<u8> {
        match self.scheme {
            Scheme::Exact(_) | Scheme::Kept => vec![],
            Scheme::Prefix {
                width,
                little_endian,
                counts_itself,
            } => {
                let value = len + if counts_itself { width } else { 0 };
                integer(value, width, little_endian)
            }
            Scheme::Varint => {
                let groups = (1..).find(|groups| len >> (7 * groups) == 0).unwrap();
                let group = |at| (len >> (7 * at)) as u8 & 0x7f | 0x80;
                let mut header: Vec<_> = (0..groups).map(group).collect();
                header[groups - 1] &= 0x7f;
                header
            }
            Scheme::Field => [vec![0; 2], integer(len + 3, 3, true), vec![0; 2]].concat(),
            Scheme::Magic => [b"WB\x01".to_vec(), integer(len, 3, false)].concat(),
        }
    }

    /// The fewest bytes that may say how long a block is of which `arrived` have come, and which is
    /// `len` long.
    fn decisive(&self, len: usize, arrived: usize) -> usize {
        match self.scheme {
            Scheme::Kept => 5,
            Scheme::Varint => self.header(len).len().min(arrived + 1),
            _ => self.header(len).len(),
        }
    }

    /// A header that it does not allow, if there is one.
    pub(crate) fn invalid_header(&self) -> Option<Vec<u8>> {
        match self.scheme {
            Scheme::Exact(_) => None,
            Scheme::Prefix {
                width,
                counts_itself: true,
                ..
            } => Some(vec![0; width]),
            Scheme::Prefix { .. } => None,
            Scheme::Varint => Some(vec![0xff; 10]),
            Scheme::Field => Some(vec![0; 7]),
            Scheme::Kept => Some(b"Q\0\0\0\x03".to_vec()),
            Scheme::Magic => Some(b"WB\x02".to_vec()),
        }
    }

    /// The `number`th block of `len` bytes: unlike those near to it, if it is not very short.
    pub(crate) fn block(&self, number: usize, len: usize) -> Bytes {
        let front = number * 37 % 1_000;
        let block = &POOL[front..front + len];
        match self.scheme {
            Scheme::Kept => [b"Q", &integer(len - 1, 4, false)[..], &block[5..]]
                .concat()
                .into(),
            _ => Bytes::from_static(block),
        }
    }
}

/// The longest block that is made of these bytes.
pub(crate) const LONGEST: usize = 80_000;

static POOL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = 1_u32;
    let byte = |_| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 24) as u8
    };
    (0..LONGEST + 1_000).map(byte).collect()
});

fn integer(value: usize, width: usize, little_endian: bool) -> Vec<u8> {
    let mut bytes = (value as u64).to_le_bytes()[..width].to_vec();
    if !little_endian {
        bytes.reverse();
    }
    bytes
}

/// A block as it was sent, with the number of its wire.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) stage: usize,
    pub(crate) begins: usize,
    pub(crate) header_len: usize,
    /// Bytes that its header announces. Of the last block less may have been sent.
    pub(crate) len: usize,
    pub(crate) block: Bytes,
}

impl Sent {
    fn ends(&self) -> usize {
        self.begins + self.header_len + self.len
    }
}

/// How a peer's stream ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// After its last block.
    Clean,
    /// So many bytes before that.
    Cut(usize),
    /// After a header that is not allowed, if its wire has such.
    Invalid,
    /// After a header that announces so much beyond the limit, if it can.
    TooLarge(usize),
}

/// What a peer sends.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) wires: Vec<Wire>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) blocks: Vec<Sent>,
    /// Whether an invalid header stands behind the blocks.
    invalid: bool,
    /// Whether it goes silent after its bytes, and does not end.
    pub(crate) silent: bool,
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub(crate) enum Coming {
    Block,
    /// An error, as its `Debug` prints it, without the words of an invalid header.
    Error(String),
    End,
    /// Nothing, for ever.
    Silence,
}

impl Stream {
    /// Blocks of these lengths on each wire, one wire after the other.
    pub(crate) fn new(stages: &[(Wire, Vec<usize>)], ending: Ending, silent: bool) -> Self {
        let mut stream = Self {
            wires: stages.iter().map(|(wire, _)| *wire).collect(),
            bytes: vec![],
            blocks: vec![],
            invalid: false,
            silent,
        };
        for (stage, (wire, lens)) in stages.iter().enumerate() {
            for &len in lens {
                let block = wire.block(stream.blocks.len(), len);
                stream.send(stage, len, block);
            }
        }
        stream.end(ending);
        stream
    }

    fn send(&mut self, stage: usize, len: usize, block: Bytes) {
        let header = self.wires[stage].header(len);
        self.blocks.push(Sent {
            stage,
            begins: self.bytes.len(),
            header_len: header.len(),
            len,
            block: block.clone(),
        });
        self.bytes.extend(header);
        self.bytes.extend_from_slice(&block);
    }

    fn end(&mut self, ending: Ending) {
        let stage = self.wires.len() - 1;
        let wire = self.wires[stage];
        match ending {
            Ending::Clean => {}
            Ending::Cut(bytes) => {
                let end = self.bytes.len().saturating_sub(bytes);
                self.bytes.truncate(end);
                self.blocks.retain(|sent| sent.begins < end);
            }
            Ending::Invalid => {
                let header = wire.invalid_header();
                self.invalid = header.is_some();
                self.bytes.extend(header.unwrap_or_default());
            }
            Ending::TooLarge(beyond) => {
                let len = wire.lens().end() + beyond;
                let has_room = !matches!(wire.scheme, Scheme::Exact(_) | Scheme::Kept);
                if has_room && len <= wire.most() {
                    self.send(stage, len, Bytes::new());
                }
            }
        }
    }

    /// On which wire the `index`th block is, or what comes instead.
    pub(crate) fn stage_of(&self, index: usize) -> usize {
        let last = self.blocks.last().filter(|_| !self.invalid);
        let sent = self.blocks.get(index).or(last);
        sent.map_or(self.wires.len() - 1, |sent| sent.stage)
    }

    /// Where the `index`th block begins, or what comes instead.
    pub(crate) fn offset_of(&self, index: usize) -> usize {
        match self.blocks.get(index) {
            Some(sent) => sent.begins,
            None => self.blocks.last().map_or(0, Sent::ends),
        }
    }

    /// Whether the `index`th block is whole in the first `arrived` bytes.
    pub(crate) fn is_whole(&self, index: usize, arrived: usize) -> bool {
        let sent = self.blocks.get(index);
        sent.is_some_and(|sent| sent.ends() <= arrived)
    }

    /// Whether the first `arrived` bytes say how long the `index`th block is.
    pub(crate) fn is_announced(&self, index: usize, arrived: usize) -> bool {
        self.blocks.get(index).is_some_and(|sent| {
            let of_block = arrived.saturating_sub(sent.begins);
            of_block > 0 && of_block >= self.wires[sent.stage].decisive(sent.len, of_block)
        })
    }

    /// What the `index`th block is to a receiver with this limit.
    pub(crate) fn coming(&self, index: usize, limit: usize, skips: bool) -> Coming {
        let offset = self.offset_of(index);
        let Some(sent) = self.blocks.get(index) else {
            return match (self.invalid, self.silent) {
                (true, _) => Coming::Error(format!("InvalidHeader, block {index} at {offset}")),
                (false, true) => Coming::Silence,
                (false, false) => Coming::End,
            };
        };
        let arrived = self.bytes.len() - sent.begins;
        let decisive = self.wires[sent.stage].decisive(sent.len, arrived);
        if sent.len > limit && arrived >= decisive && !skips {
            let header = HeaderBytes::new(&self.bytes[sent.begins..][..decisive]);
            return Coming::Error(format!(
                "TooLarge {{ announced: {}, limit: {limit}, header: {header:?}, index: {index}, \
                 offset: {offset} }}",
                sent.len
            ));
        }
        if self.is_whole(index, self.bytes.len()) {
            return Coming::Block;
        }
        if self.silent {
            return Coming::Silence;
        }
        let (part, expected, received) = match arrived < decisive {
            true => ("Header", decisive, arrived),
            false => ("Payload", sent.len, arrived - sent.header_len),
        };
        Coming::Error(format!(
            "Truncated {{ part: {part}, expected: {expected}, received: {received}, \
             index: {index}, offset: {offset} }}"
        ))
    }
}

/// Why `block` cannot be sent, as the `index`th, under this limit.
pub(crate) fn refusal(wire: &Wire, max: usize, block: &[u8], index: u64) -> Option<String> {
    let (min, carried, actual) = (*wire.lens().start(), *wire.lens().end(), block.len());
    if !(min..=max).contains(&actual) {
        return Some(format!(
            "WrongSize {{ min: {min}, max: {carried}, limit: {max}, actual: {actual}, \
             index: {index} }}"
        ));
    }
    let Scheme::Kept = wire.scheme else {
        return None;
    };
    let announced = u32::from_be_bytes(block[1..5].try_into().unwrap()) as usize + 1;
    (announced != actual).then(|| {
        format!(
            "WrongHeader {{ announced: Some({announced}), reason: None, actual: {actual}, \
             index: {index} }}"
        )
    })
}
