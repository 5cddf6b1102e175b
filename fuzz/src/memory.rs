//! Heap memory, counted by the allocator, and how much of it the crate promises to hold at most.

use bytes::BytesMut;
use peak_alloc::PeakAlloc;
use testing::KIB;
use wholeblock::internals::{BATCH, HEADER_SLACK, INITIAL_CAPACITY as INITIAL, max_spare};

/// Bytes for small allocations beside the buffers.
const LITTLE: usize = 4 * KIB;

/// Bytes beside the read buffer: the thread's spare buffers for the next reader and the next writer, the small
/// buffer to wait with, and small allocations. Any run may allocate them.
const BESIDES: usize = 2 * BATCH + INITIAL + LITTLE;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The change of the heap since `new`.
pub(crate) struct Heap {
    before: usize,
}

impl Heap {
    pub(crate) fn new() -> Self {
        HEAP.reset_peak_usage();
        Self {
            before: HEAP.current_usage(),
        }
    }

    /// Returns the bytes held now and not before.
    pub(crate) fn held(&self) -> usize {
        HEAP.current_usage().saturating_sub(self.before)
    }

    /// Returns the most bytes held at any time.
    pub(crate) fn peak(&self) -> usize {
        HEAP.peak_usage().saturating_sub(self.before)
    }

    /// Panics if more is left than a thread's spare buffers, after writes of `write_len` bytes at most.
    pub(crate) fn check_spares(&self, write_len: usize) {
        let (held, allowed) = (self.held(), BATCH + max_spare(write_len) + LITTLE);
        assert!(held <= allowed, "{held} bytes are left");
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

/// Checks that a receiver's memory follows what has arrived, and not what was announced.
pub(crate) struct ReceiverBounds {
    heap: Heap,
    max_retained: usize,
    /// The most bytes of the stream that were in the buffer together.
    most_buffered: usize,
    /// The highest allowed capacity of the buffer so far.
    most_allowed: usize,
    /// The most bytes that the user's blocks may keep alive.
    kept: usize,
}

/// The state of a receiver, which decides how much it may hold.
pub(crate) struct Standing {
    /// Bytes that were read.
    pub(crate) arrived: usize,
    /// Bytes on the wire of the longest block that has begun, whole or not.
    pub(crate) longest: usize,
    /// The capacity of the buffer.
    pub(crate) capacity: usize,
    /// True if the caller has taken everything that has arrived.
    pub(crate) idle: bool,
    /// The buffer's allocation at an error, if the receiver was polled after it, and otherwise 0. `Framed` then
    /// reserves room for another byte behind the bytes in the buffer.
    pub(crate) failed: usize,
}

impl ReceiverBounds {
    pub(crate) fn new(max_retained: usize) -> Self {
        Self {
            heap: Heap::new(),
            max_retained: max_retained.max(INITIAL),
            most_buffered: 0,
            most_allowed: INITIAL,
            kept: 0,
        }
    }

    /// Returns how much a block of `wire_len` bytes may keep alive: a small block a batch, a large one the
    /// buffer.
    fn kept_by(&self, wire_len: usize) -> usize {
        match wire_len <= BATCH {
            true => BATCH,
            false => self.most_allowed.max(wire_len + HEADER_SLACK),
        }
    }

    /// Records a block that the user keeps.
    pub(crate) fn keep(&mut self, wire_len: usize) {
        self.kept += self.kept_by(wire_len);
    }

    /// Drops a block that has outlived its receiver. Panics if it kept more alive than it may.
    pub(crate) fn drop_kept(&self, block: BytesMut, wire_len: usize) {
        let before = self.heap.held();
        drop(block);
        let (freed, allowed) = (before - self.heap.held(), self.kept_by(wire_len));
        assert!(
            freed <= allowed + KIB,
            "a block of {wire_len} bytes kept {freed} alive, allowed are {allowed}"
        );
    }

    /// Records the bytes that are in the buffer together: at least `kept`, and at most `ahead`. Some of the
    /// latter may have been skipped and dropped before the others arrived.
    pub(crate) fn buffered(&mut self, kept: usize, ahead: usize) {
        let together = kept.max(ahead.min(self.most_allowed));
        self.most_buffered = self.most_buffered.max(together);
    }

    /// Panics if the receiver holds too much.
    pub(crate) fn check(&mut self, now: &Standing) {
        let retained = self.max_retained.saturating_add(HEADER_SLACK);
        let batch = BATCH.min(self.max_retained);
        // The small blocks that were taken out of the buffer count, because they filled it, too.
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
        // While a buffer grows, there are two.
        let most = 2 * self.most_allowed + beside;
        assert!(peak <= most, "{peak} bytes at a time, allowed are {most}");
    }

    /// Panics if more than a spare buffer is left after the receiver and all blocks are dropped.
    pub(crate) fn check_gone(&self) {
        let held = self.heap.held();
        assert!(held <= BATCH + LITTLE, "{held} bytes are left");
    }
}
