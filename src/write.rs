//! The write side: knows bytes, blocks and flushes, and neither where the blocks come from nor what
//! a user counts of them.

mod lengths;
mod queue;
mod writer;

pub(crate) use self::{lengths::BlockLengths, writer::BlockWriter};
