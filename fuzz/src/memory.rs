//! What is held on the heap, counted by the allocator; and how much the crate says it may be.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

pub const KIB: usize = 1024;

/// What a read buffer begins with, and the most that a batch of small blocks takes.
const INITIAL: usize = 8 * KIB;
const BATCH: usize = 64 * KIB;

/// What a limit on payload bytes leaves for a header.
const HEADER_SLACK: usize = 64;

/// What is not the read buffer: what the thread keeps for its next reader and its next writer, the
/// small buffer to wait with, and little things. It may come into being in any run.
const BESIDES: usize = 2 * BATCH + INITIAL + 4 * KIB;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The system's allocator, and how much is allocated now and was at most.
struct Counting;

fn grew(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed).wrapping_add(bytes);
    PEAK.fetch_max(live, Relaxed);
}

// SAFETY: everything is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        LIVE.fetch_sub(layout.size(), Relaxed);
        grew(new_size);
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// The heap since some moment.
pub struct Heap {
    before: usize,
}

impl Heap {
    pub fn new() -> Self {
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        Self { before }
    }

    /// Bytes held now and not before.
    pub fn held(&self) -> usize {
        LIVE.load(Relaxed).saturating_sub(self.before)
    }

    /// The most that was held at any time.
    pub fn peak(&self) -> usize {
        PEAK.load(Relaxed).saturating_sub(self.before)
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

/// Watches a receiver: its memory follows what has arrived, and never what was announced.
pub struct ReceiverBounds {
    heap: Heap,
    max_retained: usize,
    /// The most bytes of the stream that were in the buffer together.
    most_buffered: usize,
    /// The most that the buffer might have had at any time.
    most_allowed: usize,
}

/// Where a receiver is, to judge what it holds.
pub struct Standing {
    /// Bytes that were read.
    pub arrived: usize,
    /// Bytes on the wire of the longest block that has begun, whole or not.
    pub longest: usize,
    /// The capacity of the buffer.
    pub capacity: usize,
    /// Whether all that has arrived is taken.
    pub idle: bool,
}

impl ReceiverBounds {
    pub fn new(max_retained: usize) -> Self {
        Self {
            heap: Heap::new(),
            max_retained: max_retained.max(INITIAL),
            most_buffered: 0,
            most_allowed: INITIAL,
        }
    }

    /// Takes note of bytes that are in the buffer together: `kept` of them for certain, and not more
    /// than `ahead`, some of which may have been skipped and dropped before they were that many.
    pub fn buffered(&mut self, kept: usize, ahead: usize) {
        let together = kept.max(ahead.min(self.most_allowed));
        self.most_buffered = self.most_buffered.max(together);
    }

    /// Panics if more is held than may be.
    pub fn check(&mut self, now: &Standing) {
        let retained = self.max_retained.saturating_add(HEADER_SLACK);
        let batch = BATCH.min(self.max_retained);
        // Small blocks that were taken out of a buffer have filled it too.
        let filled = now.arrived.min(self.most_buffered + batch);
        let earned = INITIAL.max(2 * filled);
        let mut allowed = earned.min(batch.max(now.longest)) + HEADER_SLACK;
        self.most_allowed = self.most_allowed.max(allowed);
        let mut heap = self.most_allowed;
        if now.idle {
            allowed = allowed.min(retained);
            heap = heap.min(retained);
        }
        assert!(
            now.capacity <= allowed,
            "a buffer of {} bytes, allowed are {allowed}: {} arrived, {} buffered at most, longest {}, idle: {}",
            now.capacity,
            now.arrived,
            self.most_buffered,
            now.longest,
            now.idle,
        );
        let (held, peak) = (self.heap.held(), self.heap.peak());
        assert!(
            held <= heap + BESIDES,
            "{held} bytes held, allowed are {heap} and {BESIDES}; idle: {}",
            now.idle,
        );
        // While it grows, there are two.
        let most = 2 * self.most_allowed + BESIDES;
        assert!(peak <= most, "{peak} bytes at a time, allowed are {most}");
    }

    /// Panics if anything is left, now that the receiver is gone.
    pub fn check_gone(&self) {
        let held = self.heap.held();
        assert!(held <= BESIDES, "{held} bytes are left");
    }
}
