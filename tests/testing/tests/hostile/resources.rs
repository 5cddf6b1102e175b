//! What this process holds: heap bytes, tasks, open files.

use std::{
    alloc::System,
    fs,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::{runtime::Handle, time::sleep};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KIB: usize = 1024;

/// Heap bytes that a connection may have on average at any time, with the tasks of both of its
/// ends, if its peer has sent no more than a few bytes: a read buffer's first 8 KiB among them.
pub(crate) const OF_A_SILENT_PEER: usize = 16 * KIB;

/// The same of any peer: a batch of small blocks or a write of them is 64 KiB.
pub(crate) const OF_ANY_PEER: usize = 96 * KIB;

/// Heap bytes that may come to stay however many peers there were: a read buffer of 64 KiB on each
/// of the two threads, and what tokio keeps.
const KEPT: usize = 2 * 64 * KIB + 32 * KIB;

/// For what was closed or has ended and is freed at the runtime's next turn.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Held {
    pub(crate) heap: usize,
    tasks: usize,
    files: usize,
}

impl Held {
    fn now() -> Self {
        Self {
            heap: heap(),
            tasks: Handle::current().metrics().num_alive_tasks(),
            files: fs::read_dir("/proc/self/fd").unwrap().count(),
        }
    }
}

pub(crate) fn heap() -> usize {
    let stats = HEAP.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// What is held as soon as no task is left and nothing more is freed.
pub(crate) async fn settled() -> Held {
    let deadline = Instant::now() + PATIENCE;
    let mut last = Held::now();
    loop {
        sleep(Duration::from_millis(50)).await;
        let held = Held::now();
        if held.tasks == 0 && held == last {
            return held;
        }
        assert!(Instant::now() < deadline, "still changing: {held:?}");
        last = held;
    }
}

/// Waits until no more is held than `before`, and fails if that does not come.
pub(crate) async fn assert_returned_to(before: &Held) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held = Held::now();
        let returned = held.heap <= before.heap + KEPT
            && held.tasks == before.tasks
            && held.files == before.files;
        if returned {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{before:?} before, {held:?} since all have gone"
        );
        sleep(Duration::from_millis(10)).await;
    }
}

/// Raises the limit on open files as far as this process may, and returns it.
pub(crate) fn raise_file_limit() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    maximum.map_or(usize::MAX, |limit| limit as usize)
}
