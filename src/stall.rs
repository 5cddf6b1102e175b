//! The stall timeout: notices a wait in which no bytes move for too long.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Measures waits, each from its beginning to the next byte.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    timeout: Option<Duration>,
    /// When the present wait began; none while bytes move.
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
    }

    /// Called at each poll that must wait. Ready, with the timeout, when the wait has lasted that
    /// long; the next call begins a new one.
    pub(crate) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(timeout) = self.timeout else {
            return Poll::Pending;
        };
        let since = *self.since.get_or_insert_with(Instant::now);
        let Some(deadline) = since.checked_add(timeout) else {
            return Poll::Pending; // so far away that it is never
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // A timer left from an earlier wait may fire early; it is then set to this wait's end.
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= deadline {
                self.reset();
                return Poll::Ready(timeout);
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
