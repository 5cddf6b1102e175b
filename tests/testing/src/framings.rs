//! Framings of a user's own, and the list of framings with which every rule is tested.

use std::{cell::Cell, ops::RangeInclusive, rc::Rc};

use bytes::{BufMut, Bytes};
use wholeblock::{BlockError, Framing, Header, InvalidHeader};

use crate::{
    config::Config,
    reader::{Event, Reader},
    reference::Reference,
};

/// A user's own header: `"WB"`, version 1, the payload's length as a big-endian u24.
#[derive(Clone, Copy, Debug)]
pub struct Magic;

impl Framing for Magic {
    fn block_lens(&self) -> RangeInclusive<u64> {
        0..=0xff_ffff
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let known = front.len().min(3);
        if front[..known] != b"WB\x01"[..known] {
            return Err(InvalidHeader("it does not start with WB, version 1"));
        }
        Ok(match *front {
            [_, _, _, a, b, c, ..] => Header::Complete {
                stripped: 6,
                block_len: u64::from(u32::from_be_bytes([0, a, b, c])),
            },
            _ => Header::Incomplete { at_least: 6 },
        })
    }

    fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
        dst.put_slice(b"WB\x01");
        dst.put_uint(block_len, 3);
    }
}

/// A framing of lines, each with its `\n`. Until that arrives, it can only ask for one byte more. Counts how
/// often it is asked.
#[derive(Clone)]
pub struct Line {
    most: usize,
    asked: Rc<Cell<usize>>,
}

impl Line {
    pub fn up_to(most: usize) -> Self {
        Self {
            most,
            asked: Rc::default(),
        }
    }

    pub fn asked(&self) -> usize {
        self.asked.get()
    }
}

impl Framing for Line {
    fn block_lens(&self) -> RangeInclusive<u64> {
        1..=self.most as u64
    }

    fn max_header_len(&self) -> usize {
        self.most
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        self.asked.set(self.asked.get() + 1);
        Ok(match front.iter().position(|byte| *byte == b'\n') {
            Some(at) => Header::Complete {
                stripped: 0,
                block_len: at as u64 + 1,
            },
            None => Header::Incomplete {
                at_least: front.len() + 1,
            },
        })
    }

    fn encode_header(&self, _block_len: u64, _dst: &mut impl BufMut) {}
}

/// A framing, and the reference for it.
#[derive(Clone)]
pub struct Case<F> {
    pub name: &'static str,
    pub framing: F,
    pub reference: Reference,
}

impl<F> Case<F> {
    pub fn new(name: &'static str, config: Config, framing: F) -> Self {
        let reference = Reference::new(&config).expect("a configuration that can work");
        Self {
            name,
            framing,
            reference,
        }
    }

    /// The bytes of `blocks` on the wire, by the reference.
    pub fn wire(&self, blocks: &[Bytes]) -> Vec<u8> {
        let mut wire = Vec::new();
        for block in blocks {
            let written = self.reference.write(block, usize::MAX, &mut wire);
            written.expect("a block that the framing carries");
        }
        wire
    }

    /// Returns what a receiver sees of the stream `wire`: the number of blocks, and the error as `Debug`
    /// prints it.
    pub fn outcome(&self, wire: &[u8]) -> (usize, Option<String>) {
        let mut reader = Reader::new(&self.reference, wire, usize::MAX, false);
        loop {
            match reader.peek() {
                Event::Block { wire, .. } => reader.take(wire.len()),
                Event::End => return (reader.index as usize, None),
                Event::Truncated {
                    part,
                    expected,
                    received,
                } => {
                    let truncated = BlockError::Truncated {
                        part,
                        expected,
                        received,
                        index: reader.index,
                        offset: reader.offset,
                    };
                    return (reader.index as usize, Some(format!("{truncated:?}")));
                }
                other => panic!("{other:?} on a wire of whole blocks"),
            }
        }
    }
}

/// Runs `$test` once for each framing, with `$case` as its [`Case`]. A macro, because each framing has its
/// own type.
#[macro_export]
macro_rules! with_each_framing {
    (|$case:ident| $test:expr) => {
        $crate::with_each_framing! { |$case| $test;
            "exact", Config::Exact { len: Len(5) }, wholeblock::Exact::new(5).unwrap();
            "u8", prefix(1), wholeblock::LengthPrefix::u8();
            "u16 LE", prefix(2).little_endian(), wholeblock::LengthPrefix::u16().little_endian();
            "u24", prefix(3), wholeblock::LengthPrefix::bytes(3).unwrap();
            "u32", prefix(4), wholeblock::LengthPrefix::u32();
            "u32 including its header", prefix(4).including_header(),
                wholeblock::LengthPrefix::u32().including_header().unwrap();
            "u56 LE", prefix(7).little_endian(),
                wholeblock::LengthPrefix::bytes(7).unwrap().little_endian();
            "u64", prefix(8), wholeblock::LengthPrefix::u64();
            "varint", Config::Varint { max: Max::Default, minimal: false },
                wholeblock::Varint::new();
            "minimal varint", Config::Varint { max: Max::Default, minimal: true },
                wholeblock::Varint::new().minimal();
            "u24 LE in a header of 7",
                Config::LengthField {
                    width: 3,
                    unit: Unit(1),
                    little_endian: true,
                    offset: Len(2),
                    more: Some(2),
                    adjustment: Adjustment(2),
                    strip: None,
                    max: Max::Default,
                    clamped: true,
                },
                wholeblock::LengthField::config()
                    .offset(2)
                    .width(3)
                    .little_endian()
                    .adjustment(2)
                    .header_len(7)
                    .build()
                    .unwrap();
            "one chosen at run time", prefix(2),
                wholeblock::AnyFraming::from(wholeblock::LengthPrefix::u16());
            "the same in and out", prefix(2),
                wholeblock::InOut {
                    incoming: wholeblock::LengthPrefix::u16(),
                    outgoing: wholeblock::LengthPrefix::u16(),
                };
            "a user's own", Config::Own, $crate::Magic;
        }
    };
    (|$case:ident| $test:expr; $($name:literal, $config:expr, $framing:expr;)*) => {$({
        #[allow(unused_imports)]
        use $crate::config::{Adjustment, Config, Len, Max, Unit, prefix};
        let $case = $crate::Case::new($name, $config, $framing);
        $test;
    })*};
}
