//! Fairness to other tasks: a task yields even in a flood of tiny blocks, or with a transport that is
//! always ready.
//!
//! Tokio gives a task a budget of 128 units each time it is polled. A socket spends one for each read
//! and write, however many blocks these move: a read of 64 KiB can bring 16,384 empty blocks, and a
//! transport that is not a socket may spend nothing. So this crate does two things:
//!
//! - It charges a unit for each read and write that makes progress.
//! - It yields after [`RECEIVED_PER_TURN`] or [`SENT_PER_TURN`] blocks. It checks this before each read and
//!   write, and within a buffer of received blocks. A yield leaves no debt.
//!
//! tokio-util's `Framed` yields between two blocks only in `recv_blocks`. So its blocks are charged to the
//! budget, and when that is spent, the socket's next read or write yields.
//!
//! None of this has any effect outside tokio.

use std::{
    pin::pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::{
    runtime::Handle,
    task::{
        coop::{has_budget_remaining, poll_proceed},
        yield_now,
    },
};

/// Blocks that a task receives between two yields. Echoing as many empty ones takes about 20 µs, a few
/// times as long as an honest request. Beside 8 connections that flood, 50 that send requests keep about
/// half of their rate (`cargo bench -p benches --bench floods`). A yield takes half a microsecond.
pub const RECEIVED_PER_TURN: u64 = 256;

/// Blocks that a task sends between two yields, apart from those of the last write. They are its own, or
/// were counted when they were received.
pub const SENT_PER_TURN: u64 = 8_192;

/// Blocks of a `Framed` for a unit of the budget. Charging a unit costs about as much as receiving one
/// small block.
const BLOCKS_PER_UNIT: u64 = 64;

/// A counter of the blocks that a task moves between two yields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    /// Blocks at the last yield.
    yielded: u64,
    /// Blocks at the last yield or charge to the budget.
    charged: u64,
}

impl Meter {
    /// Returns true if `per_turn` of all `blocks` have moved since the last yield.
    #[inline]
    pub(crate) fn is_due(&self, blocks: u64, per_turn: u64) -> bool {
        blocks >= self.yielded + per_turn
    }

    /// Returns the total of blocks at which the next yield or charge is due, `per_turn` after the last.
    pub(crate) fn due(&self, per_turn: u64) -> u64 {
        self.charged + per_turn
    }

    /// Yields, by returning `Pending` once, after `blocks` in all.
    #[cold]
    pub(crate) fn poll_yield(&mut self, cx: &mut Context<'_>, blocks: u64) -> Poll<()> {
        (self.yielded, self.charged) = (blocks, blocks);
        match Handle::try_current() {
            // After this, tokio polls for I/O before it polls the task again.
            Ok(_) => pin!(yield_now()).poll(cx),
            Err(_) => Poll::Ready(()),
        }
    }

    /// Charges the budget for the blocks since the last charge. If the budget runs out, the rest is
    /// forgiven, because the next read or write of a socket yields.
    pub(crate) fn charge(&mut self, blocks: u64) {
        while blocks.saturating_sub(self.charged) >= BLOCKS_PER_UNIT {
            if !spend_unit() {
                self.charged = blocks;
                return;
            }
            self.charged += BLOCKS_PER_UNIT;
        }
    }
}

/// Runs a read or a write, and charges a unit for it if it makes progress. If no unit is left, wakes the
/// task and returns `Pending`.
#[inline]
pub(crate) fn poll_operation<T>(
    cx: &mut Context<'_>,
    operation: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    if !has_budget_remaining() {
        // Wakes the task. Not called beforehand in any case, because it takes a unit that would have to be
        // returned after an attempt in vain.
        drop(ready!(poll_proceed(cx)));
    }
    let polled = operation(cx);
    if polled.is_ready() {
        spend_unit(); // unless the operation itself took the last one
    }
    polled
}

/// Takes a unit from the task's budget. Returns false if none is left.
fn spend_unit() -> bool {
    let unit = poll_proceed(&mut Context::from_waker(Waker::noop()));
    unit.map(|unit| unit.made_progress()).is_ready()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    /// Counts the yields of a task that moves `step` blocks before each of `charges` checks.
    async fn yields(step: u64, charges: u64) -> u64 {
        let (mut meter, mut charged, mut yields) = (Meter::default(), 0, 0);
        std::future::poll_fn(|cx| {
            while charged < charges {
                charged += 1;
                let blocks = charged * step;
                if meter.is_due(blocks, 256) && meter.poll_yield(cx, blocks).is_pending() {
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
    fn task_yields_once_for_each_turn_of_blocks_and_owes_nothing() {
        for (step, charges, expected) in [
            (1, 2_560, 10),
            (100, 30, 10), // three hundred blocks each
            (256, 10, 10),
            (1_000_000, 10, 10),
        ] {
            assert_eq!(block_on(yields(step, charges)), expected, "{step}");
        }
    }

    #[test]
    fn nothing_yields_outside_tokio() {
        assert_eq!(futures::executor::block_on(yields(1_000, 1_000)), 0);
    }

    #[test]
    fn pending_operation_costs_no_budget() {
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
    fn charge_spends_the_budget_and_leaves_no_debt() {
        block_on(std::future::poll_fn(|cx| {
            let mut meter = Meter::default();
            meter.charge(63);
            assert_eq!(meter.charged, 0, "less than a unit");
            meter.charge(1_000_000);
            let next = poll_operation(cx, |_| Poll::Ready(()));
            assert!(next.is_pending(), "the next operation yields");
            assert_eq!(meter.charged, 1_000_000);
            Poll::Ready(())
        }));
    }
}
