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

/// Heap bytes that a connection may hold on average, with the tasks of both ends, if its peer has sent only
/// a few bytes. The first 8 KiB of a read buffer are among them.
pub(crate) const OF_A_SILENT_PEER: usize = 16 * KIB;

/// The same for any peer: a batch or a write of small blocks is 64 KiB.
pub(crate) const OF_ANY_PEER: usize = 96 * KIB;

/// Heap bytes that may remain after any number of peers: a read buffer of 64 KiB on each of the two
/// threads, and what tokio keeps.
const KEPT: usize = 2 * 64 * KIB + 32 * KIB;

/// Time for the runtime to free what was closed or has ended.
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

/// Waits until no task is left and nothing more is freed, and returns what is held.
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

/// Waits until no more is held than `before`, and fails if that takes too long.
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
            "{before:?} before, {held:?} after all have gone"
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
