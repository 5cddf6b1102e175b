//! The write side: knows bytes, blocks and flushes, and neither where the blocks come from nor what
//! a user counts of them.

mod lengths;
mod queue;
mod writer;

pub use self::queue::{CHAIN_THRESHOLD, FIRST_WRITE, FULL_WRITE, MAX_SLICES, MAX_SPARE};
pub(crate) use self::{lengths::BlockLengths, writer::BlockWriter};
