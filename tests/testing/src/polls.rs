//! Polls as an executor does: again once woken, and not without end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

/// No input here takes as many.
const MAX_POLLS: usize = 10_000;

/// Whether a task was woken.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// A task that is polled.
pub struct Task {
    flag: Arc<Flag>,
    waker: Waker,
}

impl Task {
    pub fn new() -> Self {
        let flag = Arc::new(Flag::default());
        let waker = flag.clone().into();
        let task = Self { flag, waker };
        task.wake();
        task
    }

    pub fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    pub fn wake(&self) {
        self.flag.0.store(true, Relaxed);
    }

    /// Whether it was woken, or is new; forgets that it was.
    pub fn take_woken(&self) -> bool {
        self.flag.0.swap(false, Relaxed)
    }

    /// Polls until ready. Panics where nobody wakes the task, or it takes too many polls.
    pub fn finish<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        self.wake();
        for _ in 0..MAX_POLLS {
            assert!(self.take_woken(), "pending, and nobody wakes the task");
            if let Poll::Ready(ready) = poll(&mut self.context()) {
                return ready;
            }
        }
        panic!("still pending after {MAX_POLLS} polls");
    }
}

impl Default for Task {
    fn default() -> Self {
        Self::new()
    }
}
