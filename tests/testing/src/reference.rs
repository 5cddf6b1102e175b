//! The bytes on the wire, by the crate's documentation: slow, short, and without the crate's code.

use std::ops::RangeInclusive;

use wholeblock::BlockError;

use crate::config::Config;

/// The largest possible limit: half of what an allocation may have.
pub const MAX_LIMIT: usize = isize::MAX as usize / 2;

const DEFAULT_MAX: usize = 8 * 1024 * 1024;

/// The reference for a framing that can work.
#[derive(Clone, Debug)]
pub struct Reference {
    wire: Wire,
    /// Lengths of the blocks that it carries whole, in bytes.
    pub lens: RangeInclusive<usize>,
    /// Lengths of all blocks that it carries.
    pub carried: RangeInclusive<u64>,
}

#[derive(Clone, Debug)]
enum Wire {
    Exact,
    Varint { minimal: bool },
    Own,
    Field(Field),
}

/// A header with a length in it. `strip` bytes at its front are no part of the block. A length prefix is one,
/// too.
#[derive(Clone, Debug)]
struct Field {
    start: usize,
    end: usize,
    little_endian: bool,
    /// Bytes that a value of 1 stands for.
    unit: i128,
    /// Bytes that the value counts beyond those after the field. Negative if it counts fewer.
    more: i128,
    header_len: usize,
    strip: usize,
}

/// The front of a stream, as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Front {
    /// A part of the bytes that decide how long the block is. They are at least this many.
    Header {
        at_least: usize,
    },
    /// A header: how many bytes are stripped, and the length that it announces.
    Announced {
        header_len: usize,
        payload_len: u64,
    },
    Invalid,
}

/// The reason why a block cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Size { min: u64, max: u64 },
    Header { announced: Option<u64> },
}

impl Refusal {
    /// Returns why `error` refuses a block, the block's length, and its index. Panics if `error` is about
    /// anything else.
    pub fn of(error: &BlockError) -> (Self, u64, u64) {
        match *error {
            BlockError::WrongSize {
                min,
                limit: max,
                actual,
                index,
                ..
            } => (Self::Size { min, max }, actual, index),
            BlockError::WrongHeader {
                announced,
                actual,
                index,
                ..
            } => (Self::Header { announced }, actual, index),
            _ => panic!("{error}"),
        }
    }
}

impl Reference {
    /// Returns the reference. None if the configuration cannot work.
    pub fn new(config: &Config) -> Option<Self> {
        let carried = Self::carried(config)?;
        let lens = Self::unlimited(config)?;
        let max = match (config.max(), config) {
            (None, Config::Exact { .. } | Config::Own) => *lens.end(),
            (None, _) => DEFAULT_MAX.min(*lens.end()),
            (Some(max), Config::LengthField { clamped: true, .. }) => max.min(*lens.end()),
            (Some(max), _) if max > *lens.end() => return None,
            (Some(max), _) => max,
        };
        // A limit below the shortest block cannot work.
        (max >= *lens.start()).then(|| Self {
            wire: Wire::new(config),
            lens: *lens.start()..=max,
            carried,
        })
    }

    /// Returns the lengths that the header can announce and an allocation can hold. None if there are none.
    pub(crate) fn unlimited(config: &Config) -> Option<RangeInclusive<usize>> {
        let carried = Self::carried(config)?;
        let (least, most) = (*carried.start(), (*carried.end()).min(MAX_LIMIT as u64));
        (least <= most).then_some(least as usize..=most as usize)
    }

    /// Returns the lengths that the header can announce. None if the configuration cannot work.
    fn carried(config: &Config) -> Option<RangeInclusive<u64>> {
        let (least, most): (i128, i128) = match (Wire::new(config), config) {
            (_, Config::Exact { len }) => {
                let carried = len.0 as u64..=len.0 as u64;
                return (1..=MAX_LIMIT).contains(&len.0).then_some(carried);
            }
            (Wire::Own, _) => (0, 0xff_ffff),
            (Wire::Field(field), _) => {
                let width = field.end - field.start;
                if !(1..=8).contains(&width) || field.header_len > 1_024 {
                    return None;
                }
                if field.strip > field.header_len || field.header_len < field.end {
                    return None;
                }
                if field.unit == 0 {
                    return None;
                }
                let most = field.on_wire((1 << (8 * width)) - 1);
                let least = field.on_wire(0);
                // As many units more as the header needs.
                let missing = (field.header_len as i128 - least).max(0);
                let least = least + (missing + field.unit - 1) / field.unit * field.unit;
                (least - field.strip as i128, most - field.strip as i128)
            }
            _ => (0, i128::MAX),
        };
        let most = most.min(u64::MAX.into());
        (0 <= least && least <= most).then_some(least as u64..=most as u64)
    }

    /// Returns the most bytes that are stripped.
    pub fn header_len(&self) -> usize {
        match &self.wire {
            Wire::Exact => 0,
            Wire::Varint { .. } => 10,
            Wire::Own => 6,
            Wire::Field(field) => field.strip,
        }
    }

    /// Reads what is at the front.
    pub fn read(&self, front: &[u8]) -> Front {
        match &self.wire {
            Wire::Exact => Front::Announced {
                header_len: 0,
                payload_len: *self.lens.start() as u64,
            },
            Wire::Varint { minimal } => match read_varint(front) {
                Front::Announced { header_len, .. }
                    if *minimal && !self.is_canonical(front, header_len) =>
                {
                    Front::Invalid
                }
                read => read,
            },
            Wire::Own => read_own(front),
            Wire::Field(field) => field.read(front),
        }
    }

    /// Appends `block` with its header to `wire`, if it can be sent with a limit of `max`.
    pub fn write(&self, block: &[u8], max: usize, wire: &mut Vec<u8>) -> Result<(), Refusal> {
        let min = *self.lens.start();
        if !(min..=max).contains(&block.len()) {
            let (min, max) = (min as u64, max as u64);
            return Err(Refusal::Size { min, max });
        }
        let start = wire.len();
        self.announce(block.len() as u64, wire);
        wire.extend_from_slice(block);
        // A kept header may contradict its block.
        let announced = match self.read(&wire[start..]) {
            Front::Announced { payload_len, .. } => Some(payload_len),
            _ => None,
        };
        if announced == Some(block.len() as u64) {
            return Ok(());
        }
        wire.truncate(start);
        Err(Refusal::Header { announced })
    }

    /// Returns a length near `len`, at most `max`, that can be sent, if any can.
    pub fn nearest(&self, len: usize, max: usize) -> usize {
        let least = *self.lens.start();
        let len = len.clamp(least, max);
        match &self.wire {
            Wire::Field(field) => len - ((len - least) as i128 % field.unit) as usize,
            _ => len,
        }
    }

    /// Writes the right length into the header that `block` keeps.
    pub fn make_true(&self, block: &mut [u8]) {
        let Wire::Field(field) = &self.wire else {
            return;
        };
        let header = field.header(block.len() as u64);
        let kept = field.start.max(field.strip)..field.end.max(field.strip);
        let in_block = kept.start - field.strip..kept.end - field.strip;
        if let Some(front) = block.get_mut(in_block) {
            front.copy_from_slice(&header[kept]);
        }
    }

    /// Appends a header to `wire` that announces `len` bytes, even if they cannot be carried.
    pub fn announce(&self, len: u64, wire: &mut Vec<u8>) {
        match &self.wire {
            Wire::Exact => {}
            Wire::Varint { .. } => write_varint(len, wire),
            Wire::Own => {
                wire.extend_from_slice(b"WB\x01");
                wire.extend_from_slice(&(len as u32).to_be_bytes()[1..]);
            }
            Wire::Field(field) => wire.extend_from_slice(&field.header(len)[..field.strip]),
        }
    }

    /// True if sending the block gives the same `wire` again: its varint is minimal, and the stripped bytes
    /// outside the length are 0.
    pub fn is_canonical(&self, wire: &[u8], header_len: usize) -> bool {
        match &self.wire {
            Wire::Exact | Wire::Own => true,
            Wire::Varint { .. } => header_len == 1 || wire[header_len - 1] != 0,
            Wire::Field(field) => {
                let is_length = |at: &usize| (field.start..field.end).contains(at);
                (0..header_len).all(|at| is_length(&at) || wire[at] == 0)
            }
        }
    }
}

impl Wire {
    fn new(config: &Config) -> Self {
        match *config {
            Config::Exact { .. } => Self::Exact,
            Config::Varint { minimal, .. } => Self::Varint { minimal },
            Config::Own => Self::Own,
            Config::LengthPrefix {
                width,
                little_endian,
                including_header,
                ..
            } => {
                let width = usize::from(width % 10);
                Self::Field(Field {
                    start: 0,
                    end: width,
                    little_endian,
                    unit: 1,
                    more: if including_header { width as i128 } else { 0 },
                    header_len: width,
                    strip: width,
                })
            }
            Config::LengthField {
                width,
                unit,
                little_endian,
                offset,
                more,
                adjustment,
                strip,
                ..
            } => {
                let start = offset.0;
                let end = start + usize::from(width % 10);
                let header_len = end.saturating_add_signed(more.unwrap_or(0).into());
                Self::Field(Field {
                    start,
                    end,
                    little_endian,
                    unit: unit.0.into(),
                    more: -i128::from(adjustment.0),
                    header_len,
                    strip: strip.map_or(header_len, |strip| strip.0),
                })
            }
        }
    }
}

impl Field {
    /// Returns the wire length of a block whose length field has this value.
    fn on_wire(&self, value: i128) -> i128 {
        let counted = value.saturating_mul(self.unit).min(u64::MAX.into());
        counted + self.end as i128 - self.more
    }

    fn read(&self, front: &[u8]) -> Front {
        let at_least = self.end.max(self.strip);
        let (Some(field), true) = (front.get(self.start..self.end), front.len() >= at_least) else {
            return Front::Header { at_least };
        };
        let shift = |value: i128, byte: &u8| value << 8 | i128::from(*byte);
        let value = match self.little_endian {
            true => field.iter().rev().fold(0, shift),
            false => field.iter().fold(0, shift),
        };
        let on_wire = self.on_wire(value);
        if on_wire < self.header_len as i128 {
            return Front::Invalid;
        }
        let payload_len = on_wire - self.strip as i128;
        Front::Announced {
            header_len: self.strip,
            payload_len: u64::try_from(payload_len).unwrap_or(u64::MAX),
        }
    }

    /// Returns the header for a block of `len` bytes, up to the end of its length, or of the stripped bytes
    /// if that is later.
    fn header(&self, len: u64) -> Vec<u8> {
        let counted = self.strip as i128 + i128::from(len) - self.end as i128 + self.more;
        let value = counted / self.unit;
        let width = self.end - self.start;
        let mut header = vec![0; self.end.max(self.strip)];
        for (at, byte) in header[self.start..self.end].iter_mut().enumerate() {
            let place = if self.little_endian {
                at
            } else {
                width - 1 - at
            };
            *byte = (value >> (8 * place)) as u8;
        }
        header
    }
}

fn read_varint(front: &[u8]) -> Front {
    let mut value: u128 = 0;
    for (at, byte) in front.iter().enumerate() {
        value |= u128::from(byte & 0x7f) << (7 * at);
        if value > u128::from(u64::MAX) || (at == 9 && *byte >= 0x80) {
            return Front::Invalid;
        }
        if *byte < 0x80 {
            return Front::Announced {
                header_len: at + 1,
                payload_len: value as u64,
            };
        }
    }
    Front::Header {
        at_least: front.len() + 1,
    }
}

fn write_varint(mut value: u64, wire: &mut Vec<u8>) {
    while value >= 0x80 {
        wire.push((value % 0x80) as u8 + 0x80);
        value /= 0x80;
    }
    wire.push(value as u8);
}

fn read_own(front: &[u8]) -> Front {
    let known = front.len().min(3);
    if front[..known] != b"WB\x01"[..known] {
        return Front::Invalid;
    }
    match front {
        [_, _, _, a, b, c, ..] => Front::Announced {
            header_len: 6,
            payload_len: u64::from(*a) << 16 | u64::from(*b) << 8 | u64::from(*c),
        },
        _ => Front::Header { at_least: 6 },
    }
}
