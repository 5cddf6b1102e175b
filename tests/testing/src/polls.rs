//! Polls as an executor does, only after the task was woken, and a limited number of times.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

/// More polls than any input here takes.
const MAX_POLLS: usize = 10_000;

/// True if a task was woken.
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

    /// True if the task is new, or was woken since the last call.
    pub fn take_woken(&self) -> bool {
        self.flag.0.swap(false, Relaxed)
    }

    /// Polls until ready. Panics if nobody wakes the task, or if it takes too many polls.
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
