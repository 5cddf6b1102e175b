//! Shares the thread with other tasks. Blocks, reads and writes are charged to tokio's task budget, so
//! that neither a flood of tiny blocks nor a transport that is always ready keeps a task from
//! yielding.
//!
//! Tokio gives a task 128 units each time it is polled. A socket spends one for each read and write,
//! however many blocks these move: a read of 64 KiB can bring 16,384 empty blocks, and a transport
//! that is not a socket may spend nothing. So this crate charges a unit for each read and write, and
//! one for every [`BLOCKS_PER_UNIT`] blocks: before the read or the write, and within a buffer every
//! [`BLOCKS_PER_CHARGE`] blocks. A task whose budget has run out yields once, and owes nothing
//! afterwards: the yield is all that the charge is for.
//!
//! Outside tokio there is no budget, and nothing of this has any effect.

use std::task::{Context, Poll, Waker, ready};

use tokio::task::coop::poll_proceed;

/// Blocks for a unit of the budget. A task then moves about 1,000 small blocks in a turn, which take
/// as long as a few dozen requests of an honest peer.
const BLOCKS_PER_UNIT: u64 = 8;

/// Blocks that are taken from a buffer between two charges: so many that the charge does not show
/// in the cost of a block.
pub(crate) const BLOCKS_PER_CHARGE: u64 = 256;

/// Charges the budget of a task for the blocks that it moves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    /// Blocks that have been charged.
    charged: u64,
}

impl Meter {
    /// Charges the blocks since the last charge, of `blocks` in all. Pending once if the budget runs
    /// out, so that the task yields; what is left is then forgiven.
    pub(crate) fn poll_charge(&mut self, cx: &mut Context<'_>, blocks: u64) -> Poll<()> {
        while blocks - self.charged >= BLOCKS_PER_UNIT {
            let Poll::Ready(unit) = poll_proceed(cx) else {
                self.charged = blocks;
                return Poll::Pending;
            };
            unit.made_progress();
            self.charged += BLOCKS_PER_UNIT;
        }
        Poll::Ready(())
    }

    /// As [`poll_charge`](Self::poll_charge), for a caller that cannot wait: the next read or write
    /// of a socket finds that the budget has run out, and yields.
    pub(crate) fn charge(&mut self, blocks: u64) {
        let _ = self.poll_charge(&mut Context::from_waker(Waker::noop()), blocks);
    }
}

/// Runs a read or a write, and charges a unit for it if it makes progress. Pending, after asking to
/// be polled again, if no unit is left.
pub(crate) fn poll_operation<T>(
    cx: &mut Context<'_>,
    operation: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let unit = ready!(poll_proceed(cx));
    let polled = operation(cx);
    if polled.is_ready() {
        unit.made_progress();
    }
    polled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on(future: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future);
    }

    /// Yields of a task that moves `step` blocks before each charge, `charges` times.
    async fn yields(step: u64, charges: u64) -> u64 {
        let (mut meter, mut charged, mut yields) = (Meter::default(), 0, 0);
        std::future::poll_fn(|cx| {
            while charged < charges {
                charged += 1;
                if meter.poll_charge(cx, charged * step).is_pending() {
                    yields += 1;
                    return Poll::Pending;
                }
            }
            Poll::Ready(())
        })
        .await;
        yields
    }

    #[test]
    fn task_yields_once_for_each_budget_of_blocks() {
        block_on(async {
            for (step, charges, expected) in [
                (1, 102_400, 99..=100),   // 1,024 blocks a budget
                (7, 10_000, 66..=70),     // a part of a unit is charged with the next
                (256, 400, 80..=100),     // four or five charges a budget
                (1_000_000, 10, 10..=10), // more than a budget: one yield, and no debt
            ] {
                let yields = yields(step, charges).await;
                assert!(expected.contains(&yields), "{step}: {yields}");
            }
        });
    }

    #[test]
    fn operation_that_is_pending_costs_nothing() {
        block_on(std::future::poll_fn(|cx| {
            let mut operations = |polled: Poll<()>| {
                (0..1_000)
                    .take_while(|_| poll_operation(cx, |_| polled) == polled)
                    .count()
            };
            assert_eq!(operations(Poll::Pending), 1_000);
            assert!((120..=128).contains(&operations(Poll::Ready(()))));
            Poll::Ready(())
        }));
    }

    #[test]
    fn charge_that_cannot_wait_leaves_no_budget_and_no_debt() {
        block_on(std::future::poll_fn(|cx| {
            let mut meter = Meter::default();
            meter.charge(1_000_000);
            let next = poll_operation(cx, |_| Poll::Ready(()));
            assert!(next.is_pending(), "the next operation yields");
            assert_eq!(meter.charged, 1_000_000);
            Poll::Ready(())
        }));
    }
}
