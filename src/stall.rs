//! How long a wait may take: the stall timeout, for silence, and the block deadline, for a block
//! that trickles in.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::BlockError;

/// How late the poll that finds a stall timeout over may come, as long as the timeout itself, within
/// these bounds. A task that waits is polled as soon as the timer wakes it, but for the other tasks
/// of its thread; these should hold it up for less than the longest. The timer's own resolution is
/// 1 ms.
const SHORTEST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// Measures waits for bytes and for whole blocks.
///
/// The stall timeout is compared with the time spent waiting since bytes last moved. A wait lasts
/// from its first poll until bytes move, it ends with an error, or [`pause`](Self::pause) says that
/// nobody waits any more. A future that is kept but not polled cannot say so. It shows in that the
/// task is not there when the timer wakes it: a wait whose end is noticed too late has not been
/// one, and begins anew.
///
/// The block deadline is compared with the time since a wait first found a part of the block,
/// whether or not anybody waited since.
#[derive(Debug, Default)]
pub(crate) struct Timeouts {
    stall: Option<Duration>,
    /// What the waits before the present one have lasted since bytes last moved.
    waited: Duration,
    /// When the present wait began; none while nobody waits.
    since: Option<Instant>,
    block: Option<Duration>,
    /// The index of the block that was last waited for the rest of, and since when.
    partial: Option<(u64, Instant)>,
    /// Kept from wait to wait: a new timer for each would cost more than most waits.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a wait has lasted too long, and what it was allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expired {
    Stalled(Duration),
    Late(Duration),
}

impl Expired {
    /// The error, at block `index`, which begins at byte `offset`.
    pub(crate) fn at(self, index: u64, offset: u64) -> BlockError {
        match self {
            Self::Stalled(waited) => BlockError::Stalled {
                waited,
                index,
                offset,
            },
            Self::Late(allowed) => BlockError::Late {
                allowed,
                index,
                offset,
            },
        }
    }
}

impl Timeouts {
    pub(crate) fn set_stall(&mut self, timeout: Duration) {
        self.stall = Some(timeout);
    }

    pub(crate) fn set_block(&mut self, deadline: Duration) {
        self.block = Some(deadline);
    }

    /// Bytes have moved.
    pub(crate) fn reset(&mut self) {
        self.since = None;
        self.waited = Duration::ZERO;
    }

    /// Nobody waits until the next poll.
    pub(crate) fn pause(&mut self) {
        let (Some(since), Some(timeout)) = (self.since.take(), self.stall) else {
            return;
        };
        self.waited = self.waited.saturating_add(since.elapsed());
        if self.waited > timeout.saturating_add(longest_delay(timeout)) {
            self.waited = Duration::ZERO;
        }
    }

    /// Called at each poll that must wait, after the transport was tried, with the index of the
    /// block of which a part is there. Ready when the wait has lasted too long; the next call
    /// begins a new one.
    pub(crate) fn poll_expired(
        &mut self,
        cx: &mut Context<'_>,
        partial: Option<u64>,
    ) -> Poll<Expired> {
        loop {
            let stalled = self.stall_expiry();
            let late = self.block_expiry(partial);
            let Some((at, expired)) = [stalled, late].into_iter().flatten().min_by_key(|e| e.0)
            else {
                return Poll::Pending;
            };
            ready!(self.poll_timer(at, cx));
            match expired {
                Expired::Late(_) => {
                    self.partial = None;
                    self.pause();
                    return Poll::Ready(expired);
                }
                Expired::Stalled(timeout) => {
                    let overslept = at.elapsed() > longest_delay(timeout);
                    self.reset();
                    if !overslept {
                        return Poll::Ready(expired);
                    }
                }
            }
        }
    }

    /// When the stall timeout will be over; none if that is so far away that it is never.
    fn stall_expiry(&mut self) -> Option<(Instant, Expired)> {
        let timeout = self.stall?;
        let since = *self.since.get_or_insert_with(Instant::now);
        let at = since.checked_add(timeout.saturating_sub(self.waited))?;
        Some((at, Expired::Stalled(timeout)))
    }

    /// When the block of which a part is there will be late.
    fn block_expiry(&mut self, partial: Option<u64>) -> Option<(Instant, Expired)> {
        let (allowed, index) = (self.block?, partial?);
        let since = match self.partial {
            Some((known, since)) if known == index => since,
            _ => self.partial.insert((index, Instant::now())).1,
        };
        Some((since.checked_add(allowed)?, Expired::Late(allowed)))
    }

    /// Waits until `deadline`.
    fn poll_timer(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            // The timeout has been lowered, or a block has begun.
            timer.as_mut().reset(deadline);
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
