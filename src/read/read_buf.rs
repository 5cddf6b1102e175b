//! How large the read buffer is, and which allocation it is: a policy that lets it grow with what
//! has arrived, and a pool of one buffer a thread.

use std::{cell::Cell, mem};

use bytes::{Buf, Bytes, BytesMut};

use crate::framing::MAX_HEADER_LEN;

/// Capacity with which a buffer begins, and the smallest worth keeping: what `Framed` begins with.
pub const INITIAL_CAPACITY: usize = 8 * 1024;

/// Small blocks are read in batches of up to this many bytes: larger reads save no further time on
/// system calls, and two such buffers still fit a core's second-level cache.
pub const BATCH: usize = 64 * 1024;

/// What is added to a limit on payload bytes so that it holds for a buffer with the header in it.
/// A longer header is no error: a block of the very largest retained length is then given away
/// with its allocation, as larger ones are.
pub const HEADER_SLACK: usize = 64;

/// What a buffer may keep between blocks, in payload bytes, unless configured: blocks of up to
/// 1 MiB are received without an allocation each.
pub const DEFAULT_MAX_RETAINED: usize = 1024 * 1024;

/// The most that is moved to the front of a buffer, so that the next read has room for a whole batch, or
/// into a small buffer and back, so that the large one can be parked.
const MAX_MOVED: usize = INITIAL_CAPACITY / 2;

/// The block at the front of the buffer, as far as that is known when capacity is reserved for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// It has this many bytes on the wire.
    Known(usize),
    /// Its header has not come, or not all of it. How long the header is at least tells nothing of
    /// the block's length.
    Unknown,
}

/// Decides the read buffer's capacity.
///
/// A reader reads into whatever spare capacity there is, so the capacity decides how far a read
/// goes: to the end of one large block, so that nothing has to be moved afterwards, or over a batch
/// of small ones. As in a slow start, `limit` rises to twice the buffer when a read fills it; an
/// announced length never raises it.
///
/// | the block at the front | `limit` | last read filled the buffer | capacity reserved |
/// |---|---|---|---|
/// | 68 bytes | 8 KiB | no | 8,160: whole blocks within 8 KiB |
/// | 68 bytes | 8 KiB | yes | 16,320: whole blocks within 16 KiB |
/// | 68 bytes | 64 KiB or more | either | 65,484: whole blocks within [`BATCH`] |
/// | 1 MiB | 64 KiB | no | 64 KiB |
/// | 1 MiB | 64 KiB | yes | 128 KiB |
/// | 1 MiB | 1 MiB or more | either | 1 MiB: to the block's end and no further |
/// | unknown | 1 MiB or more | either | a batch, of an allocation as long as the last block |
///
/// Capacity that is there already is kept where it serves as well; see [`reserve`](Self::reserve).
///
/// Invariants: `limit` is at most the largest of the initial capacity, a batch, a header, twice what
/// has filled a buffer, and the longest block that needed it. Unless `large`, the buffer's allocation
/// is at most a batch, or the header of a block in progress.
#[derive(Debug)]
pub(crate) struct ReadBufPolicy {
    /// The largest capacity to keep between blocks.
    max_capacity: usize,
    /// The largest capacity that arriving bytes have justified so far; 0 before any came.
    limit: usize,
    /// Capacity of the buffer that the last read filled; 0 if it filled none.
    filled: usize,
    /// Wire length of the block that the last read completed first: the best guess at the next
    /// one's, before its header has come.
    predicted_len: usize,
    /// True if the buffer's allocation may be larger than a batch. The buffer itself cannot tell:
    /// its capacity is that of a view.
    large: bool,
    /// The block at the front when capacity was last reserved.
    front: Front,
    /// The small buffer to wait with, while a larger one is read into.
    small: BytesMut,
}

impl Default for ReadBufPolicy {
    fn default() -> Self {
        Self {
            max_capacity: DEFAULT_MAX_RETAINED + HEADER_SLACK,
            limit: 0,
            filled: 0,
            predicted_len: 0,
            large: false,
            front: Front::Unknown,
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

    /// True if the buffer's allocation may be larger than a batch.
    pub(crate) fn is_large(&self) -> bool {
        self.large
    }

    /// True if each block that is whole in the buffer may be taken as a view of it.
    pub(crate) fn is_shared(&self) -> bool {
        !self.large && self.max_capacity >= BATCH
    }

    /// Takes over a buffer that was made elsewhere, with an allocation of unknown size.
    pub(crate) fn adopt(&mut self, buffer: &BytesMut) {
        self.large |= buffer.capacity() > 0;
    }

    /// Records a read that brought bytes.
    pub(crate) fn record_read(&mut self, buffer: &BytesMut) {
        self.limit = self.limit.max(buffer.capacity()).max(INITIAL_CAPACITY);
        self.filled = match buffer.len() == buffer.capacity() {
            true => buffer.capacity(),
            false => 0,
        };
        self.large |= buffer.capacity() > BATCH;
    }

    /// Records the first block that a read completed.
    pub(crate) fn record_block(&mut self, wire_len: usize) {
        self.predicted_len = wire_len;
    }

    /// Reserves capacity for the next read to bring the rest of the block at the front, as far as
    /// `limit` lets it.
    pub(crate) fn reserve(&mut self, buffer: &mut BytesMut, front: Front) {
        self.front = front;
        let block_len = match front {
            Front::Known(wire_len) => wire_len,
            Front::Unknown => self.predicted_len(),
        };
        let mut filled = mem::take(&mut self.filled);
        if buffer.len() == buffer.capacity() {
            filled = filled.max(buffer.capacity());
        }
        if filled > 0 {
            self.raise_limit(filled, block_len, buffer.len());
        }
        let mut target = self.target_capacity(block_len);
        if target <= buffer.len() {
            // A header that is longer than the block that was expected, or than a batch.
            target = self.limit.min(MAX_HEADER_LEN);
        }
        if buffer.is_empty() && target > self.max_capacity {
            // Between blocks nothing of the next one has come, so nothing is kept for it.
            target = self.batch_capacity();
        }
        if buffer.is_empty() && buffer.capacity() > self.max_capacity {
            *buffer = BytesMut::new();
        }
        let leaves_large = self.large && target <= BATCH && buffer.len() <= target;
        if leaves_large {
            // Small blocks that are kept would keep a larger allocation alive.
            let mut fresh = BytesMut::with_capacity(target);
            fresh.extend_from_slice(buffer);
            *buffer = fresh;
        } else if !serves(buffer, block_len, target, filled > 0) {
            reallocate(buffer, target);
        }
        self.large = !leaves_large && (self.large || target > BATCH);

        let mut end = buffer.capacity();
        if target == block_len && target > BATCH / 2 {
            // No read runs past the block's end, so that nothing has to be moved afterwards.
            end = end.min(target);
        }
        if front == Front::Unknown {
            // The next block may turn out small, and a read should not bring more than a batch of
            // small ones.
            end = end.min(BATCH);
        }
        if buffer.len() < end && end < buffer.capacity() {
            // Shortens the view. The allocation stays, and `try_reclaim` makes the rest of it
            // available again.
            drop(buffer.split_off(end));
        }
    }

    /// The best guess at the length of a block of which nothing is known: no more than may be kept,
    /// for if the block turns out small, the buffer is.
    fn predicted_len(&self) -> usize {
        match self.predicted_len > self.max_capacity {
            true => self.batch_capacity(),
            false => self.predicted_len,
        }
    }

    /// A read has filled a buffer of `filled` bytes, of which `unread` are left: the limit is twice
    /// its capacity, up to what the block at the front, its header or a batch can use.
    fn raise_limit(&mut self, filled: usize, block_len: usize, unread: usize) {
        let header = match unread >= self.batch_capacity() {
            true => MAX_HEADER_LEN,
            false => 0,
        };
        let useful = block_len.max(self.batch_capacity()).max(header);
        let doubled = filled.saturating_mul(2).min(useful);
        self.limit = self.limit.max(doubled);
    }

    /// The capacity to read into for blocks of `block_len` bytes on the wire: one large block, or as
    /// many whole small ones as fit a batch, so that a full read leaves nothing over.
    fn target_capacity(&self, block_len: usize) -> usize {
        let batch = self.limit.min(self.batch_capacity());
        if block_len > batch {
            block_len.min(self.limit)
        } else {
            batch - batch % block_len.max(1)
        }
    }

    /// Bytes to read at once of blocks that are smaller.
    fn batch_capacity(&self) -> usize {
        BATCH.min(self.max_capacity - HEADER_SLACK)
    }

    /// Removes the first `len` bytes, which were lent. An allocation that is too large to keep goes with
    /// them.
    pub(crate) fn remove(&self, len: usize, buffer: &mut BytesMut) {
        let unread = buffer.len() - len;
        if buffer.capacity() > self.max_capacity {
            *buffer = BytesMut::from(&buffer[len..]);
        } else if unread <= MAX_MOVED {
            buffer.copy_within(len.., 0);
            buffer.truncate(unread);
        } else {
            buffer.advance(len);
        }
    }

    /// Returns the batch buffer to this thread's pool while the connection is idle. Unread bytes
    /// move to a buffer of [`INITIAL_CAPACITY`].
    pub(crate) fn park(&mut self, buffer: &mut BytesMut) {
        if self.large || buffer.len() > MAX_MOVED || is_small(buffer) {
            return;
        }
        let mut small = mem::take(&mut self.small);
        small.clear();
        small.reserve(INITIAL_CAPACITY);
        small.extend_from_slice(buffer);
        BatchPool::put(mem::replace(buffer, small));
    }

    /// Takes a batch buffer from the pool before the next read, if there is one and arriving bytes
    /// have justified its size.
    pub(crate) fn unpark(&mut self, buffer: &mut BytesMut) {
        let most = self.batch_capacity().min(self.limit);
        if self.large || most <= INITIAL_CAPACITY || !is_small(buffer) {
            return;
        }
        let Some(mut large) = BatchPool::take(most) else {
            return;
        };
        large.extend_from_slice(buffer);
        self.small = mem::replace(buffer, large);
        self.reserve(buffer, self.front);
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

    /// A policy whose last read has filled a buffer of `limit` bytes, or none.
    fn policy(limit: usize, filled: bool) -> ReadBufPolicy {
        ReadBufPolicy {
            limit,
            filled: if filled { limit } else { 0 },
            ..ReadBufPolicy::default()
        }
    }

    /// The capacity of a small buffer after room was reserved in it, of which `len` bytes are used.
    fn reserved(mut policy: ReadBufPolicy, len: usize, front: Front) -> usize {
        let mut buffer = BytesMut::with_capacity(len + 1);
        buffer.resize(len, 0);
        policy.reserve(&mut buffer, front);
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
            let got = reserved(policy(limit, filled), 10, Front::Known(needed));
            assert_eq!(got, capacity, "{needed}, {limit}, {filled}");
        }
    }

    #[test]
    fn an_announcement_alone_raises_no_limit() {
        let mut policy = policy(8 * KIB, false);
        let mut buffer = BytesMut::with_capacity(8 * KIB);
        for _ in 0..10 {
            policy.reserve(&mut buffer, Front::Known(8 * MIB));
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
            policy.reserve(&mut buffer, Front::Known(MIB));
            assert_eq!(policy.limit, 16 * KIB);
        }
    }

    #[test]
    fn between_blocks_nothing_above_the_retained_capacity_is_reserved() {
        let larger = 4 * MIB;
        let reserved = |len, block| reserved(policy(larger, false), len, Front::Known(block));
        assert_eq!(reserved(0, larger), BATCH);
        assert_eq!(reserved(1, larger), larger);
        let most = MIB + HEADER_SLACK;
        assert_eq!(reserved(0, most), most);
    }

    #[test]
    fn between_blocks_a_buffer_above_the_retained_capacity_is_given_up() {
        let most = MIB + HEADER_SLACK;
        for (capacity, left) in [(4 * MIB, 65_484), (most + 1, 65_484), (most, most)] {
            let mut buffer = BytesMut::with_capacity(capacity);
            policy(4 * MIB, false).reserve(&mut buffer, Front::Known(68));
            assert_eq!(buffer.capacity(), left, "{capacity}");
        }
    }

    /// The allocation of `buffer`, which nothing else shares.
    fn allocation(mut buffer: BytesMut) -> usize {
        while buffer.try_reclaim(buffer.capacity() - buffer.len() + 1) {}
        buffer.capacity()
    }

    #[test]
    fn unknown_block_reserves_a_guess_that_may_be_retained_and_reads_a_batch_of_it() {
        let most = MIB + HEADER_SLACK;
        for (guess, allocated) in [(MIB, MIB), (most, most), (4 * MIB, BATCH)] {
            let mut policy = policy(4 * MIB, false);
            policy.record_block(guess);
            let mut buffer = BytesMut::from(&b"he"[..]);
            policy.reserve(&mut buffer, Front::Unknown);
            assert_eq!(buffer.capacity(), BATCH, "{guess}");
            assert_eq!(allocation(buffer), allocated, "{guess}");
        }
    }

    #[test]
    fn small_block_after_a_large_one_leaves_the_large_allocation() {
        let mut policy = policy(MIB, false);
        let mut buffer = BytesMut::new();
        policy.reserve(&mut buffer, Front::Known(MIB));
        assert!(policy.is_large());
        buffer.extend_from_slice(b"small");
        policy.record_block(68);
        policy.reserve(&mut buffer, Front::Unknown);
        assert!(!policy.is_large());
        assert_eq!(buffer, "small");
        assert!(allocation(buffer) <= BATCH);
    }

    #[test]
    fn header_of_unknown_length_doubles_the_buffer_up_to_the_longest_header() {
        for max_retained in [MIB, 0] {
            let mut policy = policy(0, false);
            policy.set_max_retained(max_retained);
            let mut buffer = BytesMut::with_capacity(INITIAL_CAPACITY);
            let mut capacities = Vec::new();
            while buffer.len() < MAX_HEADER_LEN {
                buffer.resize(buffer.capacity(), 0);
                policy.record_read(&buffer);
                capacities.push(buffer.capacity() / KIB);
                policy.reserve(&mut buffer, Front::Unknown);
            }
            assert_eq!(capacities, [8, 16, 32, 64], "{max_retained}");
        }
    }

    #[test]
    fn full_buffer_of_any_size_is_given_room() {
        for capacity in [1, 10, 4_000, 8 * KIB, 100_000] {
            for front in [
                Front::Known(capacity + 1),
                Front::Known(MIB),
                Front::Unknown,
            ] {
                if front == Front::Unknown && capacity >= MAX_HEADER_LEN {
                    continue;
                }
                let mut buffer = BytesMut::from(&vec![0; capacity][..]);
                let mut policy = policy(0, false);
                policy.adopt(&buffer);
                policy.reserve(&mut buffer, front);
                assert!(buffer.capacity() > capacity, "{capacity}, {front:?}");
            }
        }
    }

    #[test]
    fn a_buffer_that_whole_blocks_do_not_fill_doubles_too() {
        let mut policy = policy(16 * KIB, false);
        let mut buffer = BytesMut::new();
        policy.reserve(&mut buffer, Front::Known(8_193));
        assert_eq!(buffer.capacity(), 8_193);
        buffer.resize(8_193, 0);
        policy.record_read(&buffer);
        buffer.clear();
        policy.reserve(&mut buffer, Front::Known(8_193));
        assert_eq!(buffer.capacity(), 2 * 8_193);
    }

    #[test]
    fn capacity_that_serves_is_kept_though_it_is_not_the_target() {
        let mut policy = policy(64 * KIB, false);
        let mut buffer = BytesMut::with_capacity(40_000);
        buffer.extend_from_slice(&[0; 50]);
        let at = buffer.as_ptr();
        policy.reserve(&mut buffer, Front::Known(68));
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (at, 40_000));
    }

    #[test]
    fn a_small_block_that_is_alone_in_its_batch_shortens_no_buffer() {
        let mut policy = policy(8 * KIB, false);
        let mut buffer = BytesMut::with_capacity(8 * KIB);
        policy.reserve(&mut buffer, Front::Known(5_000));
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
            policy.reserve(&mut buffer, Front::Known(needed));
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
        second.unpark(&mut other);
        assert_eq!((&other[..], other.as_ptr()), (&b"other"[..], at));
        first.unpark(&mut buffer);
        assert_eq!(buffer, "unread");
        assert_eq!(buffer.capacity(), INITIAL_CAPACITY, "there was one buffer");
    }

    #[test]
    fn a_buffer_is_not_parked_with_much_in_it_nor_if_it_is_no_batch() {
        let mut buffer = BytesMut::with_capacity(BATCH);
        buffer.extend_from_slice(&[0; MAX_MOVED]);
        policy(64 * KIB, false).park(&mut buffer);
        assert_eq!(
            (buffer.len(), buffer.capacity()),
            (MAX_MOVED, INITIAL_CAPACITY)
        );

        for (capacity, len) in [
            (BATCH, MAX_MOVED + 1),
            (2 * BATCH, 0),
            (INITIAL_CAPACITY, 0),
        ] {
            let mut buffer = BytesMut::with_capacity(capacity);
            buffer.extend_from_slice(&vec![0; len]);
            let mut policy = policy(64 * KIB, false);
            policy.record_read(&buffer);
            policy.park(&mut buffer);
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
        policy(MIB, false).unpark(&mut buffer);
        assert_eq!(buffer.capacity(), 0, "there was none");
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
        policy(8 * KIB, true).unpark(&mut buffer);
        assert_eq!(buffer.capacity(), 0);
        let mut low = policy(MIB, false);
        low.set_max_retained(32 * KIB);
        low.unpark(&mut buffer);
        assert_eq!(buffer.capacity(), 0, "the spare one is above its bound");
        policy(MIB, false).unpark(&mut buffer);
        assert_eq!(buffer.capacity(), BATCH, "and is still there");
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
