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
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    task::{self, coop::unconstrained},
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
    /// True if the timer is set, and nothing has happened since that could bring a limit forward.
    is_set: bool,
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
        self.is_set = false;
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
        self.is_set = false;
        self.block = deadline;
    }

    /// Ends all waits, because bytes have moved.
    pub(crate) fn reset(&mut self) {
        self.is_set = false;
        self.since = None;
        self.paused = None;
        self.waited = Duration::ZERO;
        self.yielded = false;
        self.forgiven = false;
    }

    /// Ends the present wait. It counts towards the next one.
    pub(crate) fn pause(&mut self) {
        self.is_set = false;
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
    #[inline]
    pub(crate) fn poll_expired(
        &mut self,
        cx: &mut Context<'_>,
        partial: Option<u64>,
        moved: bool,
    ) -> Poll<Expired> {
        // A task that waits for several things at once polls often while it waits.
        if self.is_set && !moved && self.timer.wakes_at(cx).is_some() {
            return Poll::Pending;
        }
        self.poll_limits(cx, partial, moved)
    }

    fn poll_limits(
        &mut self,
        cx: &mut Context<'_>,
        partial: Option<u64>,
        moved: bool,
    ) -> Poll<Expired> {
        self.is_set = false;
        if moved {
            self.reset();
            if let Some(expired) = self.late(partial) {
                self.partial = None;
                return Poll::Ready(expired);
            }
        }
        loop {
            let (at, expired) = match (self.stall_expiry(), self.block_expiry(partial)) {
                (Some(stalled), Some(late)) if late.0 < stalled.0 => late,
                (Some(stalled), _) => stalled,
                (None, Some(late)) => late,
                (None, None) => return Poll::Pending,
            };
            if self.timer.poll(at, cx).is_pending() {
                self.is_set = true;
                return Poll::Pending;
            }
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
    /// The waker of the last poll that had to wait.
    waker: Option<Waker>,
}

impl Timer {
    /// True in the task that polled it last. A timer fires only while the runtime that it was made in runs. A
    /// task stays in its runtime. Outside a task, in `block_on`, the runtime is unknown: tokio has runtime ids
    /// only since 1.49.
    fn is_ours(&self) -> bool {
        self.task.is_some() && self.task == task::try_id()
    }

    /// Returns when the timer fires, if it has not fired and will wake this waiter.
    fn wakes_at(&self, cx: &Context<'_>) -> Option<Instant> {
        let (sleep, waker) = (self.sleep.as_ref()?, self.waker.as_ref()?);
        let wakes = self.is_ours() && waker.will_wake(cx.waker()) && !sleep.is_elapsed();
        wakes.then(|| sleep.deadline())
    }

    /// Waits until `deadline`.
    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        // A timer that is set for an earlier time is kept. Only if it fires is it set to this wait's end,
        // because most waits end before.
        if self.wakes_at(cx).is_some_and(|at| at <= deadline) {
            return Poll::Pending;
        }
        let is_ours = self.is_ours();
        self.task = task::try_id();
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
            // Without a budget, because a task that has spent its own would not set the timer.
            if pin!(unconstrained(sleep.as_mut())).poll(cx).is_pending() {
                match &mut self.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => self.waker = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::Wake,
    };

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

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn waiter() -> (Arc<Woken>, Waker) {
        let woken = Arc::new(Woken::default());
        (woken.clone(), Waker::from(woken))
    }

    /// Runs `task` as a task of its own, with a clock that moves whenever nothing else does.
    fn run(task: impl Future<Output = ()> + Send + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async { tokio::spawn(task).await.unwrap() });
    }

    /// Polls a wait for a block of which nothing has arrived.
    fn poll(timeouts: &mut Timeouts, waker: &Waker) -> Poll<Expired> {
        timeouts.poll_expired(&mut Context::from_waker(waker), None, false)
    }

    #[test]
    fn timeout_wakes_the_last_of_several_waiters() {
        run(async {
            let mut timeouts = Timeouts::default();
            timeouts.set_stall(Some(Duration::from_secs(1)));
            let ((first, one), (second, other)) = (waiter(), waiter());
            for waker in [&one, &one, &other, &other] {
                assert!(poll(&mut timeouts, waker).is_pending());
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            let woken = [first, second].map(|woken| woken.0.load(Relaxed));
            assert_eq!(woken, [0, 1]);
        });
    }

    #[test]
    fn next_wait_has_the_whole_timeout_although_the_timer_of_the_last_is_set() {
        run(async {
            let (_, waker) = waiter();
            let mut timeouts = Timeouts::default();
            timeouts.set_stall(Some(Duration::from_secs(30)));
            assert!(poll(&mut timeouts, &waker).is_pending());
            tokio::time::sleep(Duration::from_secs(20)).await;
            timeouts.reset(); // a block has arrived
            assert!(poll(&mut timeouts, &waker).is_pending());
            let since = Instant::now();
            assert_eq!(timeouts.since, Some(since));
            let expired = std::future::poll_fn(|cx| timeouts.poll_expired(cx, None, false)).await;
            assert_eq!(expired, Expired::Stalled(Duration::from_secs(30)));
            assert!(since.elapsed().as_secs() == 30, "{:?}", since.elapsed());
        });
    }

    #[test]
    fn timer_of_another_runtime_is_not_waited_for() {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap()
        };
        let (woken, waker) = waiter();
        let mut timeouts = Timeouts::default();
        timeouts.set_stall(Some(Duration::from_millis(50)));
        // Both wait with the same waker, but the timer of the first fires only while its runtime runs.
        let first = runtime();
        let waiting = first.block_on(async {
            let waker = waker.clone();
            let waiting = async move {
                assert!(poll(&mut timeouts, &waker).is_pending());
                timeouts
            };
            tokio::spawn(waiting).await.unwrap()
        });
        runtime().block_on(async move {
            let mut timeouts = waiting;
            let again = async move {
                assert!(poll(&mut timeouts, &waker).is_pending());
                while woken.0.load(Relaxed) == 0 {
                    task::yield_now().await;
                }
            };
            tokio::spawn(again).await.unwrap();
        });
    }

    #[test]
    fn limit_that_is_lowered_during_a_wait_applies_to_it() {
        run(async {
            let (woken, waker) = waiter();
            let mut timeouts = Timeouts::default();
            timeouts.set_stall(Some(Duration::from_secs(60)));
            assert!(poll(&mut timeouts, &waker).is_pending());
            timeouts.set_stall(Some(Duration::from_secs(1)));
            assert!(poll(&mut timeouts, &waker).is_pending());
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(woken.0.load(Relaxed), 1);

            timeouts.reset();
            timeouts.set_stall(None);
            let wait_for_rest = |timeouts: &mut Timeouts, index| {
                let mut cx = Context::from_waker(&waker);
                timeouts.poll_expired(&mut cx, Some(index), false)
            };
            timeouts.set_block(Some(Duration::from_secs(60)));
            assert!(wait_for_rest(&mut timeouts, 0).is_pending());
            timeouts.set_block(Some(Duration::from_secs(1)));
            assert!(wait_for_rest(&mut timeouts, 0).is_pending());
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(woken.0.load(Relaxed), 2);
            let expired = wait_for_rest(&mut timeouts, 0);
            assert_eq!(expired, Poll::Ready(Expired::Late(Duration::from_secs(1))));
        });
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
