//! The write side: knows bytes, blocks and flushes, and neither where the blocks come from nor what
//! a user counts of them.

mod lengths;
mod pieces;
mod queue;
mod writer;

pub(crate) use self::{
    lengths::{BlockLen, BlockLengths},
    pieces::is_shared,
    writer::BlockWriter,
};
pub use self::{
    pieces::Pieces,
    queue::{CHAIN_THRESHOLD, FIRST_WRITE, FULL_WRITE, MAX_SLICES, MAX_SPARE, WRITE_LENS},
};
