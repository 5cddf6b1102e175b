//! Lengths, adjustments and steps from arbitrary bytes, for fuzzing. Values that find something are likely.

use std::io;

use arbitrary::{Arbitrary, Result, Unstructured};
use wholeblock::internals::{FIRST_WRITE, FULL_WRITE};

use crate::{
    Step,
    config::{Adjustment, Len, Unit},
};

/// Lengths around which something in the crate changes.
const EDGES: [usize; 8] = [
    128,
    256,
    4_096,
    FIRST_WRITE,
    16_384,
    65_536,
    FULL_WRITE,
    131_072,
];

impl<'a> Arbitrary<'a> for Len {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(match u8::arbitrary(u)? {
            small @ ..160 => small.into(),
            160..192 => u16::arbitrary(u)?.into(),
            edge @ 192..240 => {
                let by = i8::arbitrary(u)? as isize;
                EDGES[usize::from(edge) % EDGES.len()].saturating_add_signed(by)
            }
            240.. => usize::from(u16::arbitrary(u)?) * 8,
        }))
    }
}

impl<'a> Arbitrary<'a> for Adjustment {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(match u8::arbitrary(u)? {
            ..200 => i64::from(i8::arbitrary(u)? / 4),
            200..250 => i16::arbitrary(u)?.into(),
            250.. => i64::arbitrary(u)?,
        }))
    }
}

impl<'a> Arbitrary<'a> for Unit {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(match u8::arbitrary(u)? {
            ..128 => 1,
            small @ 128..240 => u64::from(small) % 9,
            240..250 => u16::arbitrary(u)?.into(),
            // Any number of bytes on this machine.
            250.. => usize::arbitrary(u)? as u64,
        }))
    }
}

/// Each kind of step is as likely as any other.
impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u32::arbitrary(u)? >> 30 {
            0 => Self::Move(Len::arbitrary(u)?.0.max(1)),
            1 => Self::All,
            2 => Self::Pending,
            _ => Self::Fail(io::ErrorKind::ConnectionReset),
        })
    }
}
