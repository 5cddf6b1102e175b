//! Shares the thread with other tasks: every so many blocks cost a unit of tokio's task budget, so
//! that a peer that floods with tiny blocks cannot keep a task from yielding.
//!
//! Reads and writes cost budget by themselves, but a single read can bring 16,384 empty blocks.
//! Outside tokio there is no budget, and nothing of this has any effect.

use std::task::{Context, Poll, Waker, ready};

use tokio::task::coop::poll_proceed;

/// Blocks for a unit of the budget. A task has 128 units between two yields, so it yields after
/// 8,192 blocks at the latest; a unit costs about as much as receiving one small block.
pub(crate) const BLOCKS_PER_UNIT: u64 = 64;

/// Spends a unit, or has the task yield if none is left.
pub(crate) fn poll_spend(cx: &mut Context<'_>) -> Poll<()> {
    ready!(poll_proceed(cx)).made_progress();
    Poll::Ready(())
}

/// Spends a unit, if one is left, where no one can wait. The next read or write finds none, and
/// has the task yield.
#[cold]
pub(crate) fn spend() {
    let _ = poll_spend(&mut Context::from_waker(Waker::noop()));
}
