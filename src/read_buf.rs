//! How large the read buffer is, and which allocation it is: a policy that lets it grow with what
//! has arrived, and a pool of one buffer a thread.

use std::{cell::Cell, mem};

use bytes::{Bytes, BytesMut};

/// Capacity with which a buffer begins, and the smallest worth keeping: what `Framed` begins with.
pub(crate) const INITIAL_CAPACITY: usize = 8 * 1024;

/// Small blocks are read in batches of up to this many bytes: larger reads save no further time on
/// system calls, and two such buffers still fit a core's second-level cache.
pub(crate) const BATCH: usize = 64 * 1024;

/// What is added to a limit on payload bytes so that it holds for a buffer with the header in it.
/// A longer header is no error: a block of the very largest retained length is then given away
/// with its allocation, as larger ones are.
pub(crate) const HEADER_SLACK: usize = 64;

/// What a buffer may keep between blocks, in payload bytes, unless configured: blocks of up to
/// 1 MiB are received without an allocation each.
const DEFAULT_MAX_RETAINED: usize = 1024 * 1024;

/// The longest part of a block that is copied into a small buffer, and back, for the sake of
/// parking the large one.
const MAX_PARKED: usize = INITIAL_CAPACITY / 2;

/// Decides the read buffer's capacity.
///
/// A reader reads into whatever spare capacity there is, so the capacity decides how far a read
/// goes: to the end of one large block, so that nothing has to be moved afterwards, or over a batch
/// of small ones. As in a slow start, `limit` rises to twice the buffer when a read fills it; an
/// announced length never raises it.
///
/// | needed by the block at the front | `limit` | last read filled the buffer | capacity reserved |
/// |---|---|---|---|
/// | 68 | 8 KiB | no | 8,160: whole blocks within 8 KiB |
/// | 68 | 8 KiB | yes | 16,320: whole blocks within 16 KiB |
/// | 68 | 64 KiB or more | either | 65,484: whole blocks within [`BATCH`] |
/// | 1 MiB | 64 KiB | no | 64 KiB |
/// | 1 MiB | 64 KiB | yes | 128 KiB |
/// | 1 MiB | 1 MiB or more | either | 1 MiB: to the block's end and no further |
///
/// Capacity that is there already is kept where it serves as well; see [`reserve`](Self::reserve).
///
/// Invariant: `limit` is at most the largest of the initial capacity, a batch, twice what has
/// filled a buffer, and the longest block that needed it.
#[derive(Debug)]
pub(crate) struct ReadBufPolicy {
    /// The largest capacity to keep between blocks.
    max_capacity: usize,
    /// The largest capacity that arriving bytes have justified so far; 0 before any came.
    limit: usize,
    /// Whether the last read filled the buffer.
    filled: bool,
    /// The capacity last reserved or parked with, which may be less than `limit`; 0 before any was.
    reserved: usize,
    /// Wire length of the block that the last read completed first: the best guess at the next
    /// one's, before its header has come.
    predicted_len: usize,
    /// The small buffer to wait with, while a larger one is read into.
    small: BytesMut,
}

impl Default for ReadBufPolicy {
    fn default() -> Self {
        Self {
            max_capacity: DEFAULT_MAX_RETAINED + HEADER_SLACK,
            limit: 0,
            filled: false,
            reserved: 0,
            predicted_len: 0,
            small: BytesMut::new(),
        }
    }
}

impl ReadBufPolicy {
    /// A policy with the same settings, for another stream.
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

    /// The largest capacity to keep between blocks.
    #[inline]
    pub(crate) fn max_capacity(&self) -> usize {
        self.max_capacity
    }

    /// Takes note of a read that brought bytes.
    pub(crate) fn record_read(&mut self, buffer: &BytesMut) {
        self.limit = self.limit.max(buffer.capacity());
        self.filled = buffer.len() == buffer.capacity();
    }

    /// Takes note of the first block that a read completed.
    pub(crate) fn record_block(&mut self, wire_len: usize) {
        self.predicted_len = wire_len;
    }

    /// Reserves capacity for the next read to bring the block at the front, of at least `at_least`
    /// bytes and otherwise unknown length.
    pub(crate) fn reserve_unknown(&mut self, buffer: &mut BytesMut, at_least: usize) {
        // Not more than may be kept: if the block turns out small, it is.
        let predicted_len = match self.predicted_len > self.max_capacity {
            true => self.batch_capacity(),
            false => self.predicted_len,
        };
        self.reserve(buffer, at_least.max(predicted_len));
    }

    /// Reserves capacity for the next read to bring the block at the front, of `needed` bytes on
    /// the wire, as far as `limit` lets it.
    pub(crate) fn reserve(&mut self, buffer: &mut BytesMut, needed: usize) {
        let filled = mem::take(&mut self.filled);
        if filled {
            self.raise_limit(needed);
        }
        let mut target = self.target_capacity(needed);
        if buffer.is_empty() && target > self.max_capacity {
            // Between blocks nothing of the next one has come, so nothing is kept for it.
            target = self.batch_capacity();
        }
        if buffer.is_empty() && buffer.capacity() > self.max_capacity {
            *buffer = BytesMut::new();
        }
        if !serves(buffer, needed, target, filled) {
            reallocate(buffer, target);
        }
        if target == needed && target > BATCH / 2 && buffer.capacity() > target {
            // Shortens the view, so that no read runs past the block's end. The allocation stays,
            // and `try_reclaim` makes the rest of it available again.
            drop(buffer.split_off(target));
        }
        self.reserved = target.max(buffer.capacity());
        debug_assert!(
            buffer.is_empty() || buffer.capacity() > buffer.len() || needed <= buffer.len()
        );
    }

    /// A read has filled the buffer: the limit is twice its capacity, up to what the block at the
    /// front or a batch can use.
    fn raise_limit(&mut self, needed: usize) {
        let useful = needed.max(self.batch_capacity());
        let filled = match self.reserved {
            0 => self.limit,
            reserved => reserved.min(self.limit),
        };
        let doubled = filled.saturating_mul(2).min(useful);
        self.limit = self.limit.max(doubled);
    }

    /// The capacity to read into for blocks of `needed` bytes on the wire: one large block, or as
    /// many whole small ones as fit a batch, so that a full read leaves nothing over.
    fn target_capacity(&self, needed: usize) -> usize {
        let batch = self.limit.min(self.batch_capacity());
        if needed > batch {
            needed.min(self.limit)
        } else {
            batch - batch % needed.max(1)
        }
    }

    /// Bytes to read at once of blocks that are smaller.
    fn batch_capacity(&self) -> usize {
        BATCH.min(self.max_capacity - HEADER_SLACK)
    }

    /// Returns the batch buffer to this thread's pool while the connection is idle. Unread bytes
    /// move to a buffer of [`INITIAL_CAPACITY`].
    pub(crate) fn park(&mut self, buffer: &mut BytesMut) {
        if buffer.len() > MAX_PARKED || buffer.capacity() > BATCH || is_small(buffer) {
            return;
        }
        let mut small = mem::take(&mut self.small);
        small.clear();
        small.reserve(INITIAL_CAPACITY);
        small.extend_from_slice(buffer);
        self.reserved = INITIAL_CAPACITY;
        BatchPool::put(mem::replace(buffer, small));
    }

    /// Takes a batch buffer from the pool before the next read, if there is one and arriving bytes
    /// have justified its size. Returns whether it did.
    pub(crate) fn unpark(&mut self, buffer: &mut BytesMut) -> bool {
        let most = self.batch_capacity().min(self.limit);
        if most <= INITIAL_CAPACITY || !is_small(buffer) {
            return false;
        }
        let Some(mut large) = BatchPool::take(most) else {
            return false;
        };
        large.extend_from_slice(buffer);
        self.small = mem::replace(buffer, large);
        true
    }
}

/// Whether the allocation of `buffer` is no larger than buffers begin with. The capacity would not
/// tell: it is that of a view, which may be short.
fn is_small(buffer: &mut BytesMut) -> bool {
    let larger = (INITIAL_CAPACITY + 1).saturating_sub(buffer.len());
    !buffer.try_reclaim(larger)
}

/// Whether `buffer` is to be read into as it is.
fn serves(buffer: &BytesMut, needed: usize, target: usize, filled: bool) -> bool {
    if filled || target <= needed {
        return buffer.capacity() >= target;
    }
    // Reads of less than a quarter of a batch cost more in system calls than it costs to move the
    // unread part of one block.
    let spare = buffer.capacity() - buffer.len();
    buffer.capacity() >= needed && spare >= target / 4
}

/// Gives `buffer` a capacity of `target`, in its own allocation where that is free.
fn reallocate(buffer: &mut BytesMut, target: usize) {
    let additional = target.saturating_sub(buffer.len());
    if buffer.try_reclaim(additional) {
        return;
    }
    if buffer.len() >= BATCH {
        // A large block in progress, alone in its allocation: the allocator can extend that
        // without moving a byte. `BytesMut::reserve` would ask for twice the capacity where a
        // little more is needed.
        let mut vec = Vec::from(mem::take(buffer));
        vec.reserve_exact(additional);
        *buffer = BytesMut::from(Bytes::from(vec));
        return;
    }
    let mut fresh = BytesMut::with_capacity(target);
    fresh.extend_from_slice(buffer);
    *buffer = fresh;
}

/// Whether `buffer` is empty and its allocation holds more than `most` bytes. Moves its view to
/// the allocation's start to find out, for the capacity leaves out what was split off or written.
pub(crate) fn reclaim_exceeds(buffer: &mut BytesMut, most: usize) -> bool {
    buffer.is_empty() && buffer.try_reclaim(most.saturating_add(1))
}

thread_local! {
    static SPARE: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// A thread's spare batch buffer: at most one, and a second one put back replaces it.
///
/// Connections that take turns on a thread read into memory that is still in its cache, and hold
/// little while they wait. A buffer in the pool is empty: its bytes are never read again before
/// they have been written over.
struct BatchPool;

impl BatchPool {
    /// The spare buffer, unless its capacity is above `most`.
    fn take(most: usize) -> Option<BytesMut> {
        // A thread that is coming to its end has no pool any more.
        let spare = SPARE.try_with(Cell::take).ok()??;
        if spare.capacity() > most {
            Self::put(spare);
            return None;
        }
        debug_assert!(spare.is_empty());
        Some(spare)
    }

    /// Keeps `buffer` for the next reader, unless its allocation is larger than a batch.
    fn put(mut buffer: BytesMut) {
        buffer.clear();
        if reclaim_exceeds(&mut buffer, BATCH) {
            return;
        }
        let _ = SPARE.try_with(|slot| slot.set(Some(buffer)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;

    fn policy(limit: usize, filled: bool) -> ReadBufPolicy {
        ReadBufPolicy {
            limit,
            filled,
            ..ReadBufPolicy::default()
        }
    }

    /// The capacity of a small buffer after room was reserved in it, of which `len` bytes are used.
    fn reserved(mut policy: ReadBufPolicy, len: usize, needed: usize) -> usize {
        let mut buffer = BytesMut::from(&vec![0; len][..]);
        policy.reserve(&mut buffer, needed);
        assert_eq!(buffer.len(), len, "what has arrived stays");
        buffer.capacity()
    }

    #[test]
    fn the_capacity_follows_the_table() {
        for (needed, limit, filled, capacity) in [
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
            let got = reserved(policy(limit, filled), 10, needed);
            assert_eq!(got, capacity, "{needed}, {limit}, {filled}");
        }
    }

    #[test]
    fn an_announcement_alone_raises_no_limit() {
        let mut policy = policy(8 * KIB, false);
        let mut buffer = BytesMut::with_capacity(8 * KIB);
        for _ in 0..10 {
            policy.reserve(&mut buffer, 8 * MIB);
            assert_eq!((policy.limit, buffer.capacity()), (8 * KIB, 8 * KIB));
        }
    }

    #[test]
    fn a_read_that_fills_the_buffer_doubles_the_limit_once() {
        let mut policy = policy(0, false);
        let full = BytesMut::from(&[0; 8 * KIB][..]);
        policy.record_read(&full);
        for _ in 0..3 {
            let mut buffer = full.clone();
            policy.reserve(&mut buffer, MIB);
            assert_eq!(policy.limit, 16 * KIB);
        }
    }

    #[test]
    fn between_blocks_nothing_above_the_retained_capacity_is_reserved() {
        let larger = 4 * MIB;
        assert_eq!(reserved(policy(larger, false), 0, larger), BATCH);
        assert_eq!(reserved(policy(larger, false), 1, larger), larger);
        let most = MIB + HEADER_SLACK;
        assert_eq!(reserved(policy(larger, false), 0, most), most);
    }

    #[test]
    fn between_blocks_a_buffer_above_the_retained_capacity_is_given_up() {
        let most = MIB + HEADER_SLACK;
        for (capacity, left) in [(4 * MIB, 65_484), (most + 1, 65_484), (most, most)] {
            let mut buffer = BytesMut::with_capacity(capacity);
            policy(4 * MIB, false).reserve(&mut buffer, 68);
            assert_eq!(buffer.capacity(), left, "{capacity}");
        }
    }

    #[test]
    fn a_guess_reserves_no_more_than_may_be_retained() {
        let most = MIB + HEADER_SLACK;
        for (guess, capacity) in [(MIB, MIB), (most, most), (4 * MIB, BATCH)] {
            let mut policy = policy(4 * MIB, false);
            policy.record_block(guess);
            let mut buffer = BytesMut::from(&b"he"[..]);
            policy.reserve_unknown(&mut buffer, 4);
            assert_eq!(buffer.capacity(), capacity, "{guess}");
        }
    }

    #[test]
    fn a_buffer_that_whole_blocks_do_not_fill_doubles_too() {
        let mut policy = policy(16 * KIB, false);
        let mut buffer = BytesMut::new();
        policy.reserve(&mut buffer, 8_193);
        assert_eq!(buffer.capacity(), 8_193);
        buffer.resize(8_193, 0);
        policy.record_read(&buffer);
        buffer.clear();
        policy.reserve(&mut buffer, 8_193);
        assert_eq!(buffer.capacity(), 2 * 8_193);
    }

    #[test]
    fn capacity_that_serves_is_kept_though_it_is_not_the_target() {
        let mut policy = policy(64 * KIB, false);
        let mut buffer = BytesMut::with_capacity(40_000);
        buffer.extend_from_slice(&[0; 50]);
        let at = buffer.as_ptr();
        policy.reserve(&mut buffer, 68);
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (at, 40_000));
    }

    #[test]
    fn a_small_block_that_is_alone_in_its_batch_shortens_no_buffer() {
        let mut policy = policy(8 * KIB, false);
        let mut buffer = BytesMut::with_capacity(8 * KIB);
        policy.reserve(&mut buffer, 5_000);
        assert_eq!(
            buffer.capacity(),
            8 * KIB,
            "a read may bring the next one, too"
        );
    }

    #[test]
    fn a_lower_retained_capacity_bounds_the_batch() {
        let mut policy = policy(MIB, true);
        policy.set_max_retained(20 * KIB);
        assert_eq!(policy.batch_capacity(), 20 * KIB);
        assert_eq!(policy.target_capacity(100), 20_400);
        policy.set_max_retained(0);
        assert_eq!(policy.batch_capacity(), INITIAL_CAPACITY);
    }

    #[test]
    fn a_large_block_in_progress_grows_to_its_length_and_keeps_its_bytes() {
        let mut policy = policy(64 * KIB, false);
        let mut buffer = BytesMut::with_capacity(64 * KIB);
        let (needed, mut seen) = (MIB + 100, Vec::new());
        while buffer.len() < needed {
            let byte = buffer.capacity() as u8 ^ seen.len() as u8;
            buffer.resize(buffer.capacity(), byte);
            seen.push((buffer.len(), byte));
            policy.record_read(&buffer);
            policy.reserve(&mut buffer, needed);
        }
        let lens: Vec<_> = seen.iter().map(|(len, _)| *len).collect();
        assert_eq!(
            lens,
            [64, 128, 256, 512, 1024]
                .map(|k| k * KIB)
                .into_iter()
                .chain([needed])
                .collect::<Vec<_>>()
        );
        for (len, byte) in seen {
            assert_eq!(buffer[len - 1], byte);
        }
    }

    #[test]
    fn parking_hands_a_batch_buffer_to_the_next_reader_on_the_thread() {
        let mut first = policy(64 * KIB, false);
        let mut buffer = BytesMut::with_capacity(BATCH);
        buffer.extend_from_slice(b"unread");
        let at = buffer.as_ptr();
        first.park(&mut buffer);
        assert_eq!(
            (&buffer[..], buffer.capacity()),
            (&b"unread"[..], INITIAL_CAPACITY)
        );

        let mut second = policy(64 * KIB, false);
        let mut other = BytesMut::from(&b"other"[..]);
        assert!(second.unpark(&mut other));
        assert_eq!((&other[..], other.as_ptr()), (&b"other"[..], at));
        assert!(!first.unpark(&mut buffer), "there was one buffer");
        assert_eq!(buffer, "unread");
    }

    #[test]
    fn a_buffer_is_not_parked_with_much_in_it_nor_if_it_is_no_batch() {
        let mut buffer = BytesMut::with_capacity(BATCH);
        buffer.extend_from_slice(&[0; MAX_PARKED]);
        policy(64 * KIB, false).park(&mut buffer);
        assert_eq!(
            (buffer.len(), buffer.capacity()),
            (MAX_PARKED, INITIAL_CAPACITY)
        );

        for (capacity, len) in [
            (BATCH, MAX_PARKED + 1),
            (2 * BATCH, 0),
            (INITIAL_CAPACITY, 0),
        ] {
            let mut buffer = BytesMut::with_capacity(capacity);
            buffer.extend_from_slice(&vec![0; len]);
            policy(64 * KIB, false).park(&mut buffer);
            assert_eq!(buffer.capacity(), capacity);
        }
    }

    #[test]
    fn what_is_left_to_others_is_a_batch_of_allocation_at_most() {
        let mut large = BytesMut::with_capacity(MIB);
        drop(large.split_off(BATCH));
        assert_eq!(large.capacity(), BATCH, "of a view");
        policy(MIB, false).park(&mut large);
        let mut buffer = BytesMut::new();
        assert!(!policy(MIB, false).unpark(&mut buffer));
    }

    #[test]
    fn a_short_view_of_a_batch_buffer_is_parked_too() {
        let mut buffer = BytesMut::with_capacity(2 * INITIAL_CAPACITY);
        buffer.extend_from_slice(&[7; INITIAL_CAPACITY + 100]);
        drop(buffer.split_to(INITIAL_CAPACITY + 90));
        assert!(buffer.capacity() < INITIAL_CAPACITY);
        policy(MIB, false).park(&mut buffer);
        assert_eq!(&buffer[..], [7; 10]);
        assert_eq!(
            BatchPool::take(BATCH).unwrap().capacity(),
            2 * INITIAL_CAPACITY
        );
    }

    #[test]
    fn a_reader_without_a_limit_for_it_takes_no_batch_buffer() {
        BatchPool::put(BytesMut::with_capacity(BATCH));
        let mut buffer = BytesMut::new();
        assert!(!policy(8 * KIB, true).unpark(&mut buffer));
        let mut low = policy(MIB, false);
        low.set_max_retained(32 * KIB);
        assert!(!low.unpark(&mut buffer), "the spare one is above its bound");
        assert!(policy(MIB, false).unpark(&mut buffer), "and is still there");
    }

    #[test]
    fn what_was_written_out_of_a_buffer_still_counts_as_held() {
        let mut buffer = BytesMut::from(&vec![0; MIB][..]);
        bytes::Buf::advance(&mut buffer, MIB);
        assert!(buffer.capacity() < MIB);
        assert!(reclaim_exceeds(&mut buffer, MIB - 1));
        assert!(!reclaim_exceeds(&mut buffer, MIB));
    }
}
