//! What is held on the heap, counted by the allocator; and how much the crate says it may be.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::BytesMut;

pub const KIB: usize = 1024;

/// What a read buffer begins with, and the most that a batch of small blocks takes.
const INITIAL: usize = 8 * KIB;
const BATCH: usize = 64 * KIB;

/// What a limit on payload bytes leaves for a header.
const HEADER_SLACK: usize = 64;

/// The little things beside buffers.
const LITTLE: usize = 4 * KIB;

/// What is not the read buffer: what the thread keeps for its next reader and its next writer, the
/// small buffer to wait with, and little things. It may come into being in any run.
const BESIDES: usize = 2 * BATCH + INITIAL + LITTLE;

/// What a thread keeps for its next writer.
const SPARE_WRITE: usize = 128 * KIB;

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

    /// Panics if a thread holds more than its spare buffers, now that all else is gone.
    pub fn check_spares(&self) {
        let held = self.held();
        assert!(
            held <= BATCH + SPARE_WRITE + LITTLE,
            "{held} bytes are left"
        );
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
    /// The most that the blocks which the user keeps may keep alive.
    kept: usize,
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
    /// The buffer's allocation when it failed, if it has and was polled on: `Framed` makes room for another byte
    /// then, in a buffer that stays as it is.
    pub failed: usize,
}

impl ReceiverBounds {
    pub fn new(max_retained: usize) -> Self {
        Self {
            heap: Heap::new(),
            max_retained: max_retained.max(INITIAL),
            most_buffered: 0,
            most_allowed: INITIAL,
            kept: 0,
        }
    }

    /// What a block of `wire_len` bytes may keep alive: a small one a batch, a large one the buffer.
    fn kept_by(&self, wire_len: usize) -> usize {
        match wire_len <= BATCH {
            true => BATCH,
            false => self.most_allowed.max(wire_len + HEADER_SLACK),
        }
    }

    /// Takes note of a block that the user keeps.
    pub fn keep(&mut self, wire_len: usize) {
        self.kept += self.kept_by(wire_len);
    }

    /// Drops a block that was kept longer than its receiver. Panics if it kept more alive than it may.
    pub fn drop_kept(&self, block: BytesMut, wire_len: usize) {
        let before = self.heap.held();
        drop(block);
        let (freed, allowed) = (before - self.heap.held(), self.kept_by(wire_len));
        assert!(
            freed <= allowed + KIB,
            "a block of {wire_len} bytes kept {freed} alive, allowed are {allowed}"
        );
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
        allowed = allowed.max(2 * now.failed);
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
        let beside = BESIDES + self.kept;
        let (held, peak) = (self.heap.held(), self.heap.peak());
        assert!(
            held <= heap + beside,
            "{held} bytes held, allowed are {heap} and {beside}; idle: {}",
            now.idle,
        );
        // While it grows, there are two.
        let most = 2 * self.most_allowed + beside;
        assert!(peak <= most, "{peak} bytes at a time, allowed are {most}");
    }

    /// Panics if more than a spare buffer is left, now that the receiver and all blocks are gone.
    pub fn check_gone(&self) {
        let held = self.heap.held();
        assert!(held <= BATCH + LITTLE, "{held} bytes are left");
    }
}
