//! Shares the thread with other tasks: every so many blocks cost a unit of tokio's task budget, so
//! that a peer that floods with tiny blocks cannot keep a task from yielding.
//!
//! Reads and writes of a socket cost a unit each, but a single read can bring 16,384 empty blocks.
//! So the blocks of each read are paid for before the next read, and those of each write before the
//! write, or in a `Framed` before the next: at no cost to a single block, and a task yields at the
//! latest after 8,192 blocks and what one buffer holds. Outside tokio there is no budget, and nothing
//! of this has any effect.

use std::task::{Context, Poll, Waker, ready};

use tokio::task::coop::poll_proceed;

/// Blocks for a unit of the budget, of which a task has 128 between two yields. A unit costs about
/// as much as receiving one small block.
const BLOCKS_PER_UNIT: u64 = 64;

/// Counts blocks against the budget of the task that moves them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    /// Blocks that have been paid for.
    paid: u64,
}

impl Meter {
    /// Pays for all of `blocks` so far; pending, to let other tasks run, where no budget is left.
    pub(crate) fn poll_pay(&mut self, cx: &mut Context<'_>, blocks: u64) -> Poll<()> {
        while blocks - self.paid >= BLOCKS_PER_UNIT {
            ready!(poll_spend(cx));
            self.paid += BLOCKS_PER_UNIT;
        }
        Poll::Ready(())
    }

    /// As [`poll_pay`](Self::poll_pay), where no one can wait: what no budget is left for is not
    /// paid, and the socket's next read or write lets other tasks run.
    #[inline]
    pub(crate) fn pay(&mut self, blocks: u64) {
        if blocks - self.paid < BLOCKS_PER_UNIT {
            return;
        }
        let _ = self.poll_pay(&mut Context::from_waker(Waker::noop()), blocks);
        self.paid = self.paid.max(blocks - blocks % BLOCKS_PER_UNIT);
    }
}

/// Spends a unit; pending, to let other tasks run, where none is left.
pub(crate) fn poll_spend(cx: &mut Context<'_>) -> Poll<()> {
    ready!(poll_proceed(cx)).made_progress();
    Poll::Ready(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `check` in a task, once all its budget is spent if it is to be.
    fn in_a_task(spent: bool, check: impl Fn()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(std::future::poll_fn(|cx| {
            while spent && poll_spend(cx).is_ready() {}
            check();
            Poll::Ready(())
        }));
    }

    #[test]
    fn a_whole_unit_is_paid_and_no_part_of_one() {
        in_a_task(false, || {
            let mut meter = Meter::default();
            for (blocks, paid) in [(63, 0), (64, 64), (65, 64), (200, 192)] {
                meter.pay(blocks);
                assert_eq!(meter.paid, paid, "{blocks}");
            }
        });
    }

    #[test]
    fn what_no_budget_was_left_for_is_no_debt() {
        in_a_task(true, || {
            let mut meter = Meter::default();
            for (blocks, paid) in [(100, 64), (1_000, 960), (1_001, 960)] {
                meter.pay(blocks);
                assert_eq!(meter.paid, paid, "{blocks}");
            }
        });
    }

    #[test]
    fn a_task_yields_after_so_many_blocks_and_goes_on_when_it_is_polled_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            let (mut meter, mut blocks, mut yields) = (Meter::default(), 0, 0);
            std::future::poll_fn(|cx| {
                while blocks < 100_000 {
                    blocks += 1;
                    if meter.poll_pay(cx, blocks).is_pending() {
                        yields += 1;
                        blocks -= 1;
                        return Poll::Pending;
                    }
                }
                Poll::Ready(())
            })
            .await;
            assert!(
                (100_000 / 8_192..=100_000 / 8_192 + 2).contains(&yields),
                "{yields}"
            );
        });
    }
}
