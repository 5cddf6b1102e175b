//! What is held on the heap, counted by the allocator; and how much the crate says it may be.

use bytes::BytesMut;
use peak_alloc::PeakAlloc;
use testing::KIB;
use wholeblock::internals::{
    BATCH, HEADER_SLACK, INITIAL_CAPACITY as INITIAL, MAX_SPARE as SPARE_WRITE,
};

/// The little things beside buffers.
const LITTLE: usize = 4 * KIB;

/// What is not the read buffer: what the thread keeps for its next reader and its next writer, the
/// small buffer to wait with, and little things. It may come into being in any run.
const BESIDES: usize = 2 * BATCH + INITIAL + LITTLE;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The heap since some moment.
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

    /// Bytes held now and not before.
    pub(crate) fn held(&self) -> usize {
        HEAP.current_usage().saturating_sub(self.before)
    }

    /// The most that was held at any time.
    pub(crate) fn peak(&self) -> usize {
        HEAP.peak_usage().saturating_sub(self.before)
    }

    /// Panics if a thread holds more than its spare buffers, now that all else is gone.
    pub(crate) fn check_spares(&self) {
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
pub(crate) struct ReceiverBounds {
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
pub(crate) struct Standing {
    /// Bytes that were read.
    pub(crate) arrived: usize,
    /// Bytes on the wire of the longest block that has begun, whole or not.
    pub(crate) longest: usize,
    /// The capacity of the buffer.
    pub(crate) capacity: usize,
    /// Whether all that has arrived is taken.
    pub(crate) idle: bool,
    /// The buffer's allocation when it failed, if it has and was polled on: `Framed` makes room for another byte
    /// then, in a buffer that stays as it is.
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

    /// What a block of `wire_len` bytes may keep alive: a small one a batch, a large one the buffer.
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

    /// Drops a block that was kept longer than its receiver. Panics if it kept more alive than it may.
    pub(crate) fn drop_kept(&self, block: BytesMut, wire_len: usize) {
        let before = self.heap.held();
        drop(block);
        let (freed, allowed) = (before - self.heap.held(), self.kept_by(wire_len));
        assert!(
            freed <= allowed + KIB,
            "a block of {wire_len} bytes kept {freed} alive, allowed are {allowed}"
        );
    }

    /// Records bytes that are in the buffer together: `kept` of them for certain, and not more
    /// than `ahead`, some of which may have been skipped and dropped before they were that many.
    pub(crate) fn buffered(&mut self, kept: usize, ahead: usize) {
        let together = kept.max(ahead.min(self.most_allowed));
        self.most_buffered = self.most_buffered.max(together);
    }

    /// Panics if more is held than may be.
    pub(crate) fn check(&mut self, now: &Standing) {
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
    pub(crate) fn check_gone(&self) {
        let held = self.heap.held();
        assert!(held <= BATCH + LITTLE, "{held} bytes are left");
    }
}
