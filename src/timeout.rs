//! Limits on waits: the stall timeout, against silence, and the block deadline, against a block that moves
//! too slowly.
//!
//! # Which time counts as a wait
//!
//! A wait begins at the first poll that finds nothing to read, or no room to write, and ends when
//! bytes move. Waiters differ in what they know of their caller:
//!
//! | who waits | can the caller give up unnoticed? | what counts |
//! |---|---|---|
//! | `SendBlocks`, and `BlockTransport` when it sends | it does not matter: the peer can read whether or not anybody polls | all time |
//! | a future of `RecvBlocks` or `BlockTransport` that receives | no, it is dropped | all time until the drop, and a part of the gap before the next future: [`longest_gap`] |
//! | the stream of `BlockTransport` | yes | all time, except that the first timeout noticed late is forgiven: [`latest`] |
//!
//! A future that is kept without being polled still waits, as with `tokio::time::timeout`.
//!
//! # When a timeout expires
//!
//! It expires when its timer fires, not when the clock says so. On a busy thread, the two can be far
//! apart, and the runtime polls for I/O before it fires timers. The task then yields once, and tries the
//! transport once more. So everything that arrived in time is read before a stall is reported.
//!
//! The block deadline is also compared with the clock, after a read or write that succeeded and left
//! the block unfinished. A peer that always has bytes ready would otherwise never be late.

use std::{
    future::Future,
    mem,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    task,
    time::{Instant, Sleep, sleep_until},
};

use crate::error::{BlockError, Direction};

/// The bounds of [`latest`]. The timer's own resolution is 1 ms.
const SHORTEST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// State of the stall timeout and the block deadline.
///
/// The block deadline counts from when a part of the block was first seen, whether or not anybody waited
/// since.
#[derive(Debug, Default)]
pub(crate) struct Timeouts {
    stall: Option<Duration>,
    /// Length of the waits and gaps before the present wait, since bytes last moved.
    waited: Duration,
    /// Start of the present wait.
    since: Option<Instant>,
    /// Time of the last [`pause`](Self::pause). Set only while nobody waits.
    paused: Option<Instant>,
    waiter: Waiter,
    /// True if the timer has fired and the task has yielded, so that the transport is tried again.
    yielded: bool,
    /// True if a timeout that was noticed late has been forgiven since bytes last moved.
    forgiven: bool,
    block: Option<Duration>,
    /// Index of the unfinished block that was seen last, and when it was seen first.
    partial: Option<(u64, Instant)>,
    timer: Timer,
}

/// The kind of waiter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A future, which [pauses](Timeouts::pause) the wait when it is dropped.
    #[default]
    Future,
    /// A stream, whose caller can give up a wait unnoticed.
    Stream,
}

/// The limit that a wait has exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    Stalled(Duration),
    Late(Duration),
}

impl Expired {
    /// Returns the error at block `index`, which begins at byte `offset`.
    pub(crate) fn at(self, direction: Direction, index: u64, offset: u64) -> BlockError {
        match self {
            Self::Stalled(waited) => BlockError::Stalled {
                waited,
                direction,
                index,
                offset,
            },
            Self::Late(allowed) => BlockError::Late {
                allowed,
                direction,
                index,
                offset,
            },
        }
    }
}

impl Timeouts {
    pub(crate) fn set_stall(&mut self, timeout: Option<Duration>) {
        self.stall = timeout;
    }

    pub(crate) fn stall(&self) -> Option<Duration> {
        self.stall
    }

    /// Changes who waits. A wait of a stream ends here, because nobody knows whether its caller waited.
    pub(crate) fn set_waiter(&mut self, waiter: Waiter) {
        if mem::replace(&mut self.waiter, waiter) == Waiter::Stream && waiter == Waiter::Future {
            self.reset();
        }
    }

    pub(crate) fn set_block(&mut self, deadline: Option<Duration>) {
        self.block = deadline;
    }

    /// Ends all waits, because bytes have moved.
    pub(crate) fn reset(&mut self) {
        self.since = None;
        self.paused = None;
        self.waited = Duration::ZERO;
        self.yielded = false;
        self.forgiven = false;
    }

    /// Ends the present wait. It counts towards the next one.
    pub(crate) fn pause(&mut self) {
        if let Some(since) = self.since.take() {
            let now = Instant::now();
            self.waited = self.waited.saturating_add(now - since);
            self.paused = Some(now);
        }
    }

    /// Forgets the unfinished block, because another one takes its place under the same index.
    pub(crate) fn forget_block(&mut self) {
        self.partial = None;
    }

    /// Returns true if block `partial` is unfinished and past its deadline.
    ///
    /// Call this after a read or write that left the block unfinished. If it returns true,
    /// [`poll_expired`](Self::poll_expired) with `moved` is ready.
    pub(crate) fn block_is_late(&mut self, partial: Option<u64>) -> bool {
        self.late(partial).is_some()
    }

    /// Waits until one of the limits is exceeded. The next call begins a new wait.
    ///
    /// Call this at each poll that must wait, after trying the transport. `partial` is the index of
    /// the unfinished block, and `moved` is true if this poll has moved bytes.
    pub(crate) fn poll_expired(
        &mut self,
        cx: &mut Context<'_>,
        partial: Option<u64>,
        moved: bool,
    ) -> Poll<Expired> {
        if moved {
            self.reset();
            if let Some(expired) = self.late(partial) {
                self.partial = None;
                return Poll::Ready(expired);
            }
        }
        loop {
            let stalled = self.stall_expiry();
            let late = self.block_expiry(partial);
            let Some((at, expired)) = [stalled, late].into_iter().flatten().min_by_key(|e| e.0)
            else {
                return Poll::Pending;
            };
            ready!(self.timer.poll(at, cx));
            match expired {
                Expired::Late(_) => {
                    self.partial = None;
                    return Poll::Ready(expired);
                }
                Expired::Stalled(timeout) => {
                    if !mem::replace(&mut self.yielded, true) {
                        return pin!(task::yield_now()).poll(cx).map(|()| expired);
                    }
                    let forgive = self.waiter == Waiter::Stream
                        && !self.forgiven
                        && at.elapsed() > latest(timeout);
                    self.reset();
                    self.forgiven = forgive;
                    if !forgive {
                        return Poll::Ready(expired);
                    }
                }
            }
        }
    }

    /// Returns when the stall timeout expires. None if there is no timeout, or it never expires.
    fn stall_expiry(&mut self) -> Option<(Instant, Expired)> {
        let timeout = self.stall?;
        let since = match self.since {
            Some(since) => since,
            None => self.begin(timeout),
        };
        // In the past if the earlier waits were long enough, because a timer set to now would fire later.
        let at = match timeout.checked_sub(self.waited) {
            Some(left) => since.checked_add(left)?,
            None => since.checked_sub(self.waited - timeout).unwrap_or(since),
        };
        Some((at, Expired::Stalled(timeout)))
    }

    /// Begins a wait, and counts the gap since the last one.
    fn begin(&mut self, timeout: Duration) -> Instant {
        let now = Instant::now();
        if let Some(paused) = self.paused.take() {
            let gap = (now - paused).min(longest_gap(timeout));
            self.waited = self.waited.saturating_add(gap);
        }
        *self.since.insert(now)
    }

    fn late(&mut self, partial: Option<u64>) -> Option<Expired> {
        let (at, expired) = self.block_expiry(partial)?;
        (Instant::now() >= at).then_some(expired)
    }

    /// Returns when block `partial` will be late.
    fn block_expiry(&mut self, partial: Option<u64>) -> Option<(Instant, Expired)> {
        let (allowed, index) = (self.block?, partial?);
        let since = match self.partial {
            Some((known, since)) if known == index => since,
            _ => self.partial.insert((index, Instant::now())).1,
        };
        Some((since.checked_add(allowed)?, Expired::Late(allowed)))
    }
}

/// Returns the longest part of the gap between two waits that counts.
///
/// A loop that repeatedly waits, gives up and does something else for a while must still time out. A long
/// pause between two requests must not use up the timeout.
fn longest_gap(timeout: Duration) -> Duration {
    (timeout / 2).min(LONGEST_DELAY)
}

/// Returns how late a stream may notice that its timeout expired and still report it at once.
///
/// A task that waits is polled as soon as the timer wakes it, unless other tasks hold it up. A later
/// poll may mean that the caller was not waiting. The stream then waits for one more timeout, and
/// reports that one however late. Otherwise no timeout would ever be reported on a busy thread.
fn latest(timeout: Duration) -> Duration {
    timeout.clamp(SHORTEST_DELAY, LONGEST_DELAY)
}

/// A timer that is kept from wait to wait, because a new one for each costs more than most waits.
#[derive(Debug, Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// The task that polled it last.
    task: Option<task::Id>,
}

impl Timer {
    /// Waits until `deadline`.
    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        // A timer fires only while the runtime that it was made in runs. A task stays in its runtime.
        // Outside a task, in `block_on`, the runtime is unknown: tokio has runtime ids only since 1.49.
        let task = task::try_id();
        let is_ours = task.is_some() && task == self.task;
        self.task = task;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if !is_ours {
            sleep.set(sleep_until(deadline));
        } else if sleep.deadline() > deadline {
            // The timeout has been lowered, or a block has begun.
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            // A timer left from an earlier wait fires early. Only then is it set to this wait's end,
            // because most waits end before.
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn gap_and_delay_follow_the_timeout_within_bounds() {
        let millis = Duration::from_millis;
        for (timeout, gap, delay) in [
            (0, 0, 20),
            (10, 5, 20),
            (100, 50, 100),
            (1_000, 500, 1_000),
            (60_000, 1_000, 1_000),
        ] {
            assert_eq!(longest_gap(millis(timeout)), millis(gap), "{timeout}");
            assert_eq!(latest(millis(timeout)), millis(delay), "{timeout}");
        }
    }

    #[test]
    fn timer_is_kept_within_a_task_and_made_anew_elsewhere() {
        let second = Duration::from_secs(1);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut timer = Timer::default();
            let now = Instant::now();
            let mut set_to = move |seconds: u32| {
                let mut cx = Context::from_waker(Waker::noop());
                assert!(timer.poll(now + seconds * second, &mut cx).is_pending());
                timer.sleep.as_ref().map(|sleep| sleep.deadline() - now)
            };
            let in_a_task = async move {
                assert_eq!(set_to(100), Some(100 * second));
                assert_eq!(set_to(200), Some(100 * second), "kept, to fire early");
                assert_eq!(set_to(50), Some(50 * second), "never late");
                set_to
            };
            let mut set_to = tokio::spawn(in_a_task).await.unwrap();
            assert_eq!(set_to(200), Some(200 * second), "outside of a task");
            assert_eq!(set_to(300), Some(300 * second), "outside of a task");
            let in_another = async move { assert_eq!(set_to(400), Some(400 * second)) };
            tokio::spawn(in_another).await.unwrap();
        });
    }
}
