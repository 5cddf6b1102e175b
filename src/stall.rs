//! The stall timeout: notices that no bytes have moved for too long while somebody waited.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// How late the poll that finds a timeout over may come, as long as the timeout itself, within
/// these bounds. A task that waits is polled as soon as the timer wakes it, but for the other tasks
/// of its thread; these should hold it up for less than the longest. The timer's own resolution is
/// 1 ms.
const SHORTEST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// Adds up the time spent waiting since bytes last moved.
///
/// A wait lasts from its first poll until bytes move, it ends with an error, or [`pause`](Self::pause)
/// says that nobody waits any more. A future that is kept but not polled cannot say so. It shows in
/// that the task is not there when the timer wakes it: a wait whose end is noticed too late has not
/// been one, and begins anew.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    timeout: Option<Duration>,
    /// What the waits before the present one have lasted since bytes last moved.
    waited: Duration,
    /// When the present wait began; none while nobody waits.
    since: Option<Instant>,
    /// Kept from wait to wait: a new timer for each would cost more than most waits.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = Some(timeout);
    }

    /// Bytes have moved.
    pub(crate) fn reset(&mut self) {
        self.since = None;
        self.waited = Duration::ZERO;
    }

    /// Nobody waits until the next poll.
    pub(crate) fn pause(&mut self) {
        let (Some(since), Some(timeout)) = (self.since.take(), self.timeout) else {
            return;
        };
        self.waited += since.elapsed();
        if self.waited > timeout.saturating_add(longest_delay(timeout)) {
            self.waited = Duration::ZERO;
        }
    }

    /// Called at each poll that must wait, after the transport was tried. Ready, with the timeout,
    /// when the waits have lasted that long; the next call begins a new one.
    pub(crate) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(timeout) = self.timeout else {
            return Poll::Pending;
        };
        loop {
            let since = *self.since.get_or_insert_with(Instant::now);
            let Some(deadline) = since.checked_add(timeout.saturating_sub(self.waited)) else {
                return Poll::Pending; // so far away that it is never
            };
            ready!(self.poll_timer(deadline, cx));
            let late = deadline.elapsed() > longest_delay(timeout);
            self.reset();
            if !late {
                return Poll::Ready(timeout);
            }
        }
    }

    /// Waits until `deadline`.
    fn poll_timer(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline); // the timeout has been lowered
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            // A timer left from an earlier wait fires early; only then is it set to this wait's end,
            // for most waits are over before.
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

fn longest_delay(timeout: Duration) -> Duration {
    timeout.clamp(SHORTEST_DELAY, LONGEST_DELAY)
}
