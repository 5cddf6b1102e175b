//! The write side: queues, writes and flushes blocks. It does not know where they come from, or what a user
//! counts.

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
    queue::{CHAIN_THRESHOLD, FIRST_WRITE, FULL_WRITE, MAX_SLICES, PARTS, max_spare},
};
