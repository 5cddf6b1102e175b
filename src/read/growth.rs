//! How much the next read may bring: numbers only, so that a table can test it.

use crate::{framing::MAX_HEADER_LEN, pool::INITIAL_CAPACITY};

/// Small blocks are read in batches of up to this many bytes. Larger reads save no further time on
/// system calls, and two such buffers still fit a core's second-level cache.
pub const BATCH: usize = 64 * 1024;

/// Allowance for the header when a payload limit is compared with a capacity. With a longer header, a block
/// of the largest retained length is returned with its allocation, as longer blocks are.
pub const HEADER_SLACK: usize = 64;

/// The default for what a buffer may keep between blocks, in payload bytes. Blocks of up to 1 MiB are
/// received without an allocation for each.
pub const DEFAULT_MAX_RETAINED: usize = 1024 * 1024;

/// Length of the block at the front of the buffer, if known when capacity is reserved for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Front {
    /// The block has this many bytes on the wire.
    Known(usize),
    /// The header has not arrived, or not all of it. Its least length tells nothing about the block's length.
    #[default]
    Unknown,
}

/// The policy that decides how large the read buffer is.
///
/// A read fills whatever spare capacity there is, so the capacity decides how far a read goes: to the end
/// of one large block, so that nothing has to be moved afterwards, or over a batch of small ones. A read
/// that fills the buffer raises `limit` to twice the buffer's capacity, as in TCP's slow start. An announced
/// length never raises it.
///
/// | the block at the front | `limit` | last read filled the buffer | capacity to reserve |
/// |---|---|---|---|
/// | 68 bytes | 8 KiB | no | 8,160: whole blocks within 8 KiB |
/// | 68 bytes | 8 KiB | yes | 16,320: whole blocks within 16 KiB |
/// | 68 bytes | 64 KiB or more | either | 65,484: whole blocks within [`BATCH`] |
/// | 1 MiB | 64 KiB | no | 64 KiB |
/// | 1 MiB | 64 KiB | yes | 128 KiB |
/// | 1 MiB | 1 MiB or more | either | 1 MiB: to the block's end and no further |
/// | unknown | 1 MiB or more | either | as for the last block; one read takes at most a batch |
///
/// Invariant: `limit` is at most the largest of the initial capacity, a batch, a header, twice what
/// has filled a buffer, and the longest block that needed it.
#[derive(Debug)]
pub(crate) struct Growth {
    /// The largest capacity to keep between blocks.
    max_capacity: usize,
    /// The largest capacity that arriving bytes have justified so far; 0 before any came.
    limit: usize,
    /// Capacity of the buffer that the last read filled; 0 if it filled none.
    filled: usize,
    /// Wire length of the first block that the last read completed: the best guess at the next block's,
    /// before its header has arrived.
    predicted_len: usize,
}

/// The buffer that the next read needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// The capacity to reserve.
    pub(crate) capacity: usize,
    /// The length to which the buffer may be filled, within that capacity.
    pub(crate) end: usize,
    /// Wire length of the block at the front, or the guess.
    pub(crate) block_len: usize,
    /// True if a read has filled the buffer, so that less capacity does not serve.
    pub(crate) grows: bool,
}

impl Default for Growth {
    fn default() -> Self {
        Self {
            max_capacity: DEFAULT_MAX_RETAINED + HEADER_SLACK,
            limit: 0,
            filled: 0,
            predicted_len: 0,
        }
    }
}

impl Growth {
    /// Returns a policy with the same settings, for another stream.
    pub(crate) fn fresh(&self) -> Self {
        Self {
            max_capacity: self.max_capacity,
            ..Self::default()
        }
    }

    pub(crate) fn set_max_retained(&mut self, payload_len: usize) {
        self.max_capacity = payload_len
            .max(INITIAL_CAPACITY)
            .saturating_add(HEADER_SLACK);
    }

    /// Returns the largest capacity to keep between blocks.
    #[inline]
    pub(crate) fn max_capacity(&self) -> usize {
        self.max_capacity
    }

    /// Returns the capacity that arriving bytes have justified, up to a batch.
    #[inline]
    pub(crate) fn batch_limit(&self) -> usize {
        self.limit.min(self.batch())
    }

    /// True if arriving bytes have justified more than the initial capacity.
    #[inline]
    pub(crate) fn has_grown(&self) -> bool {
        self.limit > INITIAL_CAPACITY
    }

    /// Records a read that brought bytes, after which a buffer of `capacity` holds `len`.
    pub(crate) fn record_read(&mut self, len: usize, capacity: usize) {
        self.limit = self.limit.max(capacity).max(INITIAL_CAPACITY);
        self.filled = if len == capacity { capacity } else { 0 };
    }

    /// Records the first block that a read completed.
    pub(crate) fn record_block(&mut self, wire_len: usize) {
        self.predicted_len = wire_len;
    }

    /// Decides the room for the next read to bring the rest of the block at the front, up to `limit`. The
    /// buffer has `capacity` and holds `len` bytes of that block.
    pub(crate) fn next_room(&mut self, front: Front, len: usize, capacity: usize) -> Room {
        let block_len = match front {
            Front::Known(wire_len) => wire_len,
            Front::Unknown => self.guess(),
        };
        let full = if len == capacity { capacity } else { 0 };
        let filled = std::mem::take(&mut self.filled).max(full);
        self.raise_limit(filled, block_len, len);
        let mut target = self.target(block_len);
        if target <= len {
            // The header is longer than the expected block, or than a batch.
            target = self.limit.min(MAX_HEADER_LEN);
        }
        if len == 0 && target > self.max_capacity {
            // Nothing of the next block has arrived, so no more than the retained capacity is kept for it.
            target = self.batch();
        }
        let mut end = usize::MAX;
        if target == block_len && target > BATCH / 2 {
            // No read runs past the block's end, so that nothing has to be moved afterwards.
            end = target;
        }
        if front == Front::Unknown {
            // The next block may be small, and a read should not bring more than a batch of small ones.
            end = end.min(BATCH);
        }
        Room {
            capacity: target,
            end,
            block_len,
            grows: filled > 0,
        }
    }

    /// Returns the best guess at the length of an unknown block. It is no more than may be kept between
    /// blocks, because the buffer is kept if the block turns out small.
    fn guess(&self) -> usize {
        match self.predicted_len > self.max_capacity {
            true => self.batch(),
            false => self.predicted_len,
        }
    }

    /// Raises the limit to twice `filled`, up to what the block at the front, its header or a batch can use.
    /// `filled` is the length of a buffer that a read has filled, or 0. It has `unread` bytes left.
    fn raise_limit(&mut self, filled: usize, block_len: usize, unread: usize) {
        let header = match unread >= self.batch() {
            true => MAX_HEADER_LEN,
            false => 0,
        };
        let useful = block_len.max(self.batch()).max(header);
        let doubled = filled.saturating_mul(2).min(useful);
        self.limit = self.limit.max(doubled);
    }

    /// Returns the capacity for blocks of `block_len` bytes on the wire: one large block, or as many whole
    /// small ones as fit a batch, so that a full read ends with a block.
    fn target(&self, block_len: usize) -> usize {
        let batch = self.batch_limit();
        if block_len > batch {
            block_len.min(self.limit)
        } else {
            batch - batch % block_len.max(1)
        }
    }

    /// Returns how many bytes of small blocks to read at once.
    #[inline]
    fn batch(&self) -> usize {
        BATCH.min(self.max_capacity - HEADER_SLACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;

    /// The policy after a read that has filled a buffer of `limit` bytes, or has filled none.
    fn growth(limit: usize, filled: bool) -> Growth {
        Growth {
            limit,
            filled: if filled { limit } else { 0 },
            ..Growth::default()
        }
    }

    /// Returns the capacity for the next read, if `len` bytes of a block of `block` bytes have arrived.
    fn capacity(mut growth: Growth, block: usize, len: usize) -> usize {
        growth
            .next_room(Front::Known(block), len, usize::MAX)
            .capacity
    }

    #[test]
    fn the_capacity_follows_the_table() {
        for (block, limit, filled, expected) in [
            (68, 8 * KIB, false, 8_160),
            (68, 8 * KIB, true, 16_320),
            (68, 64 * KIB, false, 65_484),
            (68, 64 * KIB, true, 65_484),
            (68, MIB, false, 65_484),
            (MIB, 64 * KIB, false, 64 * KIB),
            (MIB, 64 * KIB, true, 128 * KIB),
            (MIB, MIB, false, MIB),
            (MIB, 4 * MIB, true, MIB),
        ] {
            let got = capacity(growth(limit, filled), block, 10);
            assert_eq!(got, expected, "{block}, {limit}, {filled}");
        }
    }

    #[test]
    fn one_read_reaches_the_end_of_a_large_block_or_of_a_batch() {
        let mut large = growth(MIB, false);
        for (front, end) in [
            (Front::Known(MIB), MIB),
            (Front::Known(2 * MIB), usize::MAX), // the limit ends it
            (Front::Known(BATCH / 2 + 1), BATCH / 2 + 1),
            (Front::Known(68), usize::MAX),
            (Front::Unknown, BATCH),
        ] {
            let room = large.next_room(front, 10, 2 * MIB);
            assert_eq!(room.end, end, "{front:?}");
        }
        // There is room for one now, but two fit a batch.
        let room = growth(40 * KIB, false).next_room(Front::Known(BATCH / 2), 10, 40 * KIB);
        assert_eq!((room.capacity, room.end), (BATCH / 2, usize::MAX));
    }

    #[test]
    fn one_read_reaches_the_end_of_the_guessed_block_or_of_a_batch() {
        for (guess, end) in [(40_000, 40_000), (MIB, BATCH), (68, BATCH)] {
            let mut growth = growth(MIB, false);
            growth.record_block(guess);
            assert_eq!(
                growth.next_room(Front::Unknown, 0, BATCH).end,
                end,
                "{guess}"
            );
        }
    }

    #[test]
    fn an_announcement_alone_raises_no_limit() {
        let mut growth = growth(8 * KIB, false);
        for _ in 0..10 {
            let room = growth.next_room(Front::Known(8 * MIB), 10, 8 * KIB);
            assert_eq!((growth.limit, room.capacity), (8 * KIB, 8 * KIB));
        }
    }

    #[test]
    fn a_read_that_fills_the_buffer_doubles_the_limit_once() {
        let mut growth = growth(0, false);
        growth.record_read(8 * KIB, 8 * KIB);
        for _ in 0..3 {
            growth.next_room(Front::Known(MIB), 8 * KIB, 8 * KIB);
            assert_eq!(growth.limit, 16 * KIB);
        }
    }

    #[test]
    fn at_most_the_retained_capacity_is_reserved_between_blocks() {
        let larger = 4 * MIB;
        assert_eq!(capacity(growth(larger, false), larger, 0), BATCH);
        assert_eq!(capacity(growth(larger, false), larger, 1), larger);
        let most = MIB + HEADER_SLACK;
        assert_eq!(capacity(growth(larger, false), most, 0), most);
    }

    #[test]
    fn unknown_block_reserves_a_guess_that_may_be_retained() {
        let most = MIB + HEADER_SLACK;
        for (guess, expected) in [(MIB, MIB), (most, most), (4 * MIB, BATCH)] {
            let mut growth = growth(4 * MIB, false);
            growth.record_block(guess);
            let room = growth.next_room(Front::Unknown, 2, 8 * KIB);
            assert_eq!(room.capacity, expected, "{guess}");
        }
    }

    #[test]
    fn a_lower_retained_capacity_bounds_the_batch() {
        let mut growth = growth(MIB, true);
        growth.set_max_retained(20 * KIB);
        assert_eq!(growth.batch(), 20 * KIB);
        assert_eq!(growth.target(100), 20_400);
        growth.set_max_retained(0);
        assert_eq!(growth.batch(), INITIAL_CAPACITY);
    }
}
