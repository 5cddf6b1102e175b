//! The read buffer: its allocation, and what it holds while the connection waits.

use std::{io, mem, task::Poll};

use bytes::{Buf, Bytes, BytesMut};

use super::growth::{BATCH, Front, Growth, Room};
use crate::pool::{self, INITIAL_CAPACITY};

/// The most unread bytes that are moved: to the front of a buffer, so that the next read has room for a
/// whole batch, or into a small buffer, so that the large one can return to the pool.
const MAX_MOVED: usize = INITIAL_CAPACITY / 2;

/// The policy for the read buffer: gives it the capacity that [`Growth`] decides, and exchanges it with the
/// thread's pool.
///
/// Invariant: unless `large`, the buffer's allocation is at most a batch, or what a header in progress
/// needs.
#[derive(Debug, Default)]
pub(crate) struct ReadBuffer {
    growth: Growth,
    /// True if the buffer's allocation may be larger than a batch. The buffer itself cannot tell,
    /// because its capacity is that of a view.
    large: bool,
    /// The block at the front when room was last reserved.
    front: Front,
    /// The small buffer for waits, while a larger one is in use.
    small: BytesMut,
    /// Set while the connection waits with a small buffer: what the next read needs.
    parked: Option<Room>,
}

impl ReadBuffer {
    /// Returns a policy with the same settings, for another stream.
    pub(crate) fn fresh(&self) -> Self {
        Self {
            growth: self.growth.fresh(),
            ..Self::default()
        }
    }

    pub(crate) fn set_max_retained(&mut self, payload_len: usize) {
        self.growth.set_max_retained(payload_len);
    }

    /// Returns the largest capacity to keep between blocks.
    #[inline]
    pub(crate) fn max_capacity(&self) -> usize {
        self.growth.max_capacity()
    }

    /// True if the buffer's allocation may be larger than a batch.
    pub(crate) fn is_large(&self) -> bool {
        self.large
    }

    /// True if any whole block in the buffer may be taken as a view of the buffer.
    pub(crate) fn is_shared(&self) -> bool {
        !self.large && self.max_capacity() >= BATCH
    }

    /// Records that `buffer` was made elsewhere, so that its allocation may have any size.
    pub(crate) fn adopt(&mut self, buffer: &BytesMut) {
        self.large |= buffer.capacity() > 0;
        self.parked = None;
    }

    /// Records a read that brought bytes.
    pub(crate) fn record_read(&mut self, buffer: &BytesMut) {
        self.growth.record_read(buffer.len(), buffer.capacity());
        self.parked = None;
        self.large |= buffer.capacity() > BATCH;
    }

    /// Records the first block that a read completed.
    pub(crate) fn record_block(&mut self, wire_len: usize) {
        self.growth.record_block(wire_len);
    }

    /// Reserves capacity for the next read to bring the rest of the block at the front. Existing capacity is
    /// kept if it serves as well.
    pub(crate) fn reserve(&mut self, buffer: &mut BytesMut, front: Front) {
        self.front = front;
        let room = self
            .growth
            .next_room(front, buffer.len(), buffer.capacity());
        let is_parked = self.parked.take().is_some();
        if is_parked && room.capacity <= BATCH && buffer.len() < buffer.capacity() {
            // The next attempt to read borrows the batch buffer.
            self.parked = Some(room);
            return;
        }
        if buffer.is_empty() && buffer.capacity() > self.max_capacity() {
            *buffer = BytesMut::new();
        }
        let leaves_large = self.large && room.capacity <= BATCH && buffer.len() <= room.capacity;
        if leaves_large {
            // A small block that the caller keeps would keep a larger allocation alive.
            replace(buffer, room.capacity);
        } else if !serves(buffer, room) {
            reallocate(buffer, room.capacity);
        }
        self.large = !leaves_large && (self.large || room.capacity > BATCH);
        if buffer.len() < room.end {
            shorten(buffer, room.end);
        }
    }

    /// Removes the first `len` bytes, which were lent, and frees an allocation that is too large to keep.
    pub(crate) fn remove(&self, len: usize, buffer: &mut BytesMut) {
        let unread = buffer.len() - len;
        if buffer.capacity() > self.max_capacity() {
            *buffer = BytesMut::from(&buffer[len..]);
        } else if unread <= MAX_MOVED {
            buffer.copy_within(len.., 0);
            buffer.truncate(unread);
        } else {
            buffer.advance(len);
        }
    }

    /// Frees a buffer that is larger than a batch. It is empty.
    pub(crate) fn leave_large(&mut self, buffer: &mut BytesMut) {
        debug_assert!(buffer.is_empty());
        if mem::take(&mut self.large) {
            *buffer = BytesMut::new();
        }
    }

    /// Calls `read`, which reads once into the buffer that it is given, up to the length that it is given.
    ///
    /// A connection that waits has a small buffer. It borrows the pool's batch buffer for each attempt to
    /// read, and keeps it only if bytes arrive: a task that waits for several things at once makes many
    /// attempts.
    #[inline]
    pub(crate) fn poll_read(
        &mut self,
        buffer: &mut BytesMut,
        read: impl FnOnce(&mut BytesMut, Option<usize>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Some((mut batch, end)) = self.borrow_batch() else {
            let polled = read(buffer, None);
            if polled.is_pending() {
                self.park(buffer);
            }
            return polled;
        };
        batch.extend_from_slice(buffer);
        let polled = read(&mut batch, Some(end));
        if matches!(polled, Poll::Ready(Ok(1..))) {
            shorten(&mut batch, end);
            self.small = mem::replace(buffer, batch);
            self.parked = None;
        } else {
            batch.clear();
            pool::READ.put(batch);
        }
        polled
    }

    /// Takes the batch buffer from the pool, if this connection waits without one, and if arriving bytes have
    /// justified its size. Returns it with the length to which it may be filled.
    #[inline(always)]
    fn borrow_batch(&self) -> Option<(BytesMut, usize)> {
        let room = self.parked?;
        let most = self.growth.batch_limit();
        let mut batch = pool::READ.take_if(|spare| spare.capacity() <= most)?;
        if !serves(&batch, room) {
            // Blocks were taken from its front before it was returned, or it is another connection's, and
            // shorter.
            reallocate(&mut batch, room.capacity);
        }
        Some((batch, room.end))
    }

    /// Returns the batch buffer to this thread's pool before a wait. Unread bytes move to a buffer of
    /// [`INITIAL_CAPACITY`].
    #[inline]
    pub(crate) fn park(&mut self, buffer: &mut BytesMut) {
        if !self.large && self.parked.is_none() && self.growth.has_grown() {
            self.park_grown(buffer);
        }
    }

    fn park_grown(&mut self, buffer: &mut BytesMut) {
        if buffer.len() > MAX_MOVED {
            return;
        }
        let mut room = self.growth.next_room(self.front, buffer.len(), BATCH);
        // It may be more than when room was last reserved, because more may be retained since.
        room.capacity = room.capacity.min(BATCH);
        self.parked = Some(room);
        if is_small(buffer) {
            return;
        }
        let mut small = mem::take(&mut self.small);
        small.clear();
        small.reserve(INITIAL_CAPACITY);
        small.extend_from_slice(buffer);
        let mut batch = mem::replace(buffer, small);
        batch.clear();
        if !reclaim_exceeds(&mut batch, BATCH) {
            pool::READ.put(batch);
        }
    }
}

/// Shortens the view to `end` bytes. The allocation stays, and `try_reclaim` makes the rest of it available
/// again.
fn shorten(buffer: &mut BytesMut, end: usize) {
    if end < buffer.capacity() {
        drop(buffer.split_off(end));
    }
}

/// True if the allocation of `buffer` has at most [`INITIAL_CAPACITY`]. `capacity()` does not tell, because
/// it is that of a view, which may be short.
fn is_small(buffer: &mut BytesMut) -> bool {
    let larger = (INITIAL_CAPACITY + 1).saturating_sub(buffer.len());
    !buffer.try_reclaim(larger)
}

/// True if `buffer` can be read into as it is.
#[inline]
fn serves(buffer: &BytesMut, room: Room) -> bool {
    if room.grows || room.capacity <= room.block_len {
        return buffer.capacity() >= room.capacity;
    }
    // With less room than a quarter of a batch, the additional reads cost more than moving the unread part
    // of one block.
    let spare = buffer.capacity() - buffer.len();
    buffer.capacity() >= room.block_len && spare >= room.capacity / 4
}

/// Gives `buffer` this capacity, in its present allocation if nothing else uses that.
#[cold]
fn reallocate(buffer: &mut BytesMut, capacity: usize) {
    let additional = capacity.saturating_sub(buffer.len());
    if buffer.try_reclaim(additional) {
        return;
    }
    if buffer.len() < BATCH {
        return replace(buffer, capacity);
    }
    // A large block in progress is alone in its allocation. The allocator can extend that without moving a
    // byte. `BytesMut::reserve` would double it even if little more is needed.
    let mut vec = Vec::from(mem::take(buffer));
    vec.reserve_exact(additional);
    *buffer = BytesMut::from(Bytes::from(vec));
}

/// Moves `buffer` to an allocation of its own, of this capacity.
fn replace(buffer: &mut BytesMut, capacity: usize) {
    let mut fresh = BytesMut::with_capacity(capacity);
    fresh.extend_from_slice(buffer);
    *buffer = fresh;
}

/// True if `buffer` is empty and its allocation holds more than `most` bytes. Moves the view to the
/// allocation's start to find out, because `capacity()` leaves out bytes that were split off or advanced
/// over.
pub(crate) fn reclaim_exceeds(buffer: &mut BytesMut, most: usize) -> bool {
    buffer.is_empty() && buffer.try_reclaim(most.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{framing::MAX_HEADER_LEN, read::growth::HEADER_SLACK};

    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;

    /// The policy after a read that filled a buffer of `limit` bytes, or brought one byte. Before any read
    /// if `limit` is 0.
    fn policy(limit: usize, filled: bool) -> ReadBuffer {
        let mut growth = Growth::default();
        if limit > 0 {
            growth.record_read(if filled { limit } else { 1 }, limit);
        }
        ReadBuffer {
            growth,
            ..ReadBuffer::default()
        }
    }

    /// Tries to read, and finds nothing.
    fn wait(policy: &mut ReadBuffer, buffer: &mut BytesMut) {
        assert!(policy.poll_read(buffer, |_, _| Poll::Pending).is_pending());
    }

    /// Reads one byte.
    fn read(policy: &mut ReadBuffer, buffer: &mut BytesMut) {
        let polled = policy.poll_read(buffer, |buffer, _| {
            buffer.extend_from_slice(b"!");
            Poll::Ready(Ok(1))
        });
        assert!(polled.is_ready());
        policy.record_read(buffer);
    }

    /// Returns the size of the allocation of `buffer`, which nothing else shares.
    fn allocation(mut buffer: BytesMut) -> usize {
        while buffer.try_reclaim(buffer.capacity() - buffer.len() + 1) {}
        buffer.capacity()
    }

    #[test]
    fn buffer_above_the_retained_capacity_is_dropped_between_blocks() {
        let most = MIB + HEADER_SLACK;
        for (capacity, left) in [(4 * MIB, 65_484), (most + 1, 65_484), (most, most)] {
            let mut buffer = BytesMut::with_capacity(capacity);
            policy(4 * MIB, false).reserve(&mut buffer, Front::Known(68));
            assert_eq!(buffer.capacity(), left, "{capacity}");
        }
    }

    #[test]
    fn unknown_block_allocates_a_guess_and_reads_a_batch_of_it() {
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
    fn sufficient_capacity_is_kept_even_if_it_is_not_the_target() {
        let mut policy = policy(64 * KIB, false);
        let mut buffer = BytesMut::with_capacity(40_000);
        buffer.extend_from_slice(&[0; 50]);
        let at = buffer.as_ptr();
        policy.reserve(&mut buffer, Front::Known(68));
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (at, 40_000));
    }

    #[test]
    fn small_block_alone_in_its_batch_shortens_no_buffer() {
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
    fn waiting_hands_a_batch_buffer_to_the_next_reader_on_the_thread() {
        let mut first = policy(64 * KIB, false);
        let mut buffer = BytesMut::with_capacity(BATCH);
        buffer.extend_from_slice(b"unread");
        let at = buffer.as_ptr();
        wait(&mut first, &mut buffer);
        assert_eq!(
            (&buffer[..], buffer.capacity()),
            (&b"unread"[..], INITIAL_CAPACITY)
        );

        let mut second = policy(64 * KIB, false);
        let mut other = BytesMut::from(&b"other"[..]);
        wait(&mut second, &mut other);
        read(&mut second, &mut other);
        assert_eq!((&other[..], other.as_ptr()), (&b"other!"[..], at));
        read(&mut first, &mut buffer);
        assert_eq!(buffer, "unread!");
        assert_eq!(buffer.capacity(), INITIAL_CAPACITY, "there was one buffer");
    }

    #[test]
    fn attempt_that_brings_nothing_leaves_both_buffers_where_they_are() {
        let mut policy = policy(64 * KIB, false);
        let mut buffer = BytesMut::with_capacity(BATCH);
        buffer.extend_from_slice(b"unread");
        let batch = buffer.as_ptr();
        wait(&mut policy, &mut buffer);
        let small = buffer.as_ptr();
        for nothing in [
            || Poll::Pending,
            || Poll::Ready(Ok(0)),
            || Poll::Ready(Err(io::ErrorKind::Interrupted.into())),
        ] {
            let mut tried = false;
            let polled = policy.poll_read(&mut buffer, |buffer, _| {
                assert_eq!((&buffer[..], buffer.as_ptr()), (&b"unread"[..], batch));
                tried = true;
                nothing()
            });
            assert_eq!(polled.is_pending(), nothing().is_pending());
            assert!(tried);
            assert_eq!((&buffer[..], buffer.as_ptr()), (&b"unread"[..], small));
        }
        let spare = pool::READ.take_if(|_| true).unwrap();
        assert_eq!((spare.len(), spare.as_ptr()), (0, batch));
    }

    #[test]
    fn read_after_a_wait_ends_where_it_would_have_ended_without() {
        for (front, end) in [
            (Front::Known(40_000), 40_000),
            (Front::Known(68), usize::MAX),
            (Front::Unknown, BATCH),
        ] {
            let mut policy = policy(64 * KIB, false);
            let mut buffer = BytesMut::with_capacity(BATCH);
            buffer.extend_from_slice(b"begun");
            policy.reserve(&mut buffer, front);
            let capacity = buffer.capacity();
            wait(&mut policy, &mut buffer);
            let polled = policy.poll_read(&mut buffer, |buffer, got| {
                assert_eq!(got, Some(end), "{front:?}");
                buffer.extend_from_slice(b"!");
                Poll::Ready(Ok(1))
            });
            assert!(polled.is_ready());
            assert_eq!(buffer, "begun!");
            assert_eq!(buffer.capacity(), capacity, "{front:?}");
        }
    }

    #[test]
    fn batch_buffer_that_blocks_were_taken_from_serves_the_next_read_whole() {
        let mut policy = policy(64 * KIB, false);
        let mut buffer = BytesMut::with_capacity(BATCH);
        let batch = buffer.as_ptr();
        buffer.extend_from_slice(&[0; 40_000]);
        buffer.advance(40_000);
        policy.reserve(&mut buffer, Front::Known(68)); // what is left serves
        wait(&mut policy, &mut buffer);
        policy.reserve(&mut buffer, Front::Known(60_000));
        wait(&mut policy, &mut buffer);
        read(&mut policy, &mut buffer);
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (batch, 60_000));
    }

    #[test]
    fn shorter_batch_buffer_of_another_reader_is_replaced_once() {
        pool::READ.put(BytesMut::with_capacity(60_000));
        let mut policy = policy(64 * KIB, false);
        policy.front = Front::Known(61_000);
        let mut buffer = BytesMut::with_capacity(INITIAL_CAPACITY);
        wait(&mut policy, &mut buffer);
        let batches = [0, 1].map(|_| {
            let mut batch = (std::ptr::null(), 0);
            let polled = policy.poll_read(&mut buffer, |buffer, _| {
                batch = (buffer.as_ptr(), buffer.capacity());
                Poll::Pending
            });
            assert!(polled.is_pending());
            batch
        });
        assert_eq!((batches[0].1, batches[1]), (61_000, batches[0]));
    }

    #[test]
    fn room_for_another_front_comes_from_the_pool_during_a_wait() {
        for front in [Front::Known(40_000), Front::Known(68), Front::Unknown] {
            let mut policy = policy(64 * KIB, false);
            let mut buffer = BytesMut::with_capacity(BATCH);
            buffer.extend_from_slice(b"begun");
            let batch = buffer.as_ptr();
            wait(&mut policy, &mut buffer);
            policy.reserve(&mut buffer, front);
            assert!(buffer.capacity() <= INITIAL_CAPACITY, "{front:?}");
            read(&mut policy, &mut buffer);
            assert_eq!((&buffer[..], buffer.as_ptr()), (&b"begun!"[..], batch));
        }
    }

    #[test]
    fn room_for_a_large_front_is_reserved_during_a_wait() {
        let mut policy = policy(MIB, false);
        let mut buffer = BytesMut::with_capacity(BATCH);
        wait(&mut policy, &mut buffer);
        policy.reserve(&mut buffer, Front::Known(MIB));
        assert_eq!(buffer.capacity(), MIB);
    }

    #[test]
    fn no_more_than_a_batch_is_borrowed_after_the_retained_capacity_was_raised() {
        pool::READ.put(BytesMut::with_capacity(BATCH));
        let mut policy = policy(MIB, false);
        policy.record_block(MIB);
        policy.set_max_retained(0);
        let mut buffer = BytesMut::new();
        policy.reserve(&mut buffer, Front::Unknown);
        policy.set_max_retained(MIB);
        wait(&mut policy, &mut buffer);
        read(&mut policy, &mut buffer);
        assert_eq!(allocation(buffer), BATCH);
    }

    #[test]
    fn only_a_batch_buffer_with_little_in_it_is_parked() {
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
    fn view_of_a_large_allocation_is_not_parked() {
        let mut large = BytesMut::with_capacity(MIB);
        drop(large.split_off(BATCH));
        assert_eq!(large.capacity(), BATCH, "the capacity of the view");
        policy(MIB, false).park(&mut large);
        assert!(pool::READ.take_if(|_| true).is_none());
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
            pool::READ.take_if(|_| true).unwrap().capacity(),
            2 * INITIAL_CAPACITY
        );
    }

    #[test]
    fn reader_with_a_lower_limit_takes_no_batch_buffer() {
        pool::READ.put(BytesMut::with_capacity(BATCH));
        let mut low = policy(MIB, false);
        low.set_max_retained(32 * KIB);
        for (mut policy, capacity, why) in [
            (policy(8 * KIB, true), 8, "nothing has justified it"),
            (low, 8, "it is above the bound"),
            (policy(MIB, false), BATCH, "it is still there"),
        ] {
            let mut buffer = BytesMut::with_capacity(8);
            wait(&mut policy, &mut buffer);
            read(&mut policy, &mut buffer);
            assert_eq!(buffer.capacity(), capacity, "{why}");
        }
    }

    #[test]
    fn large_buffer_is_not_replaced_by_a_parked_one() {
        let mut buffer = BytesMut::from(&vec![0; 2 * BATCH][..]);
        let mut policy = policy(MIB, false);
        policy.adopt(&buffer);
        let _kept = buffer.split_to(2 * BATCH - 10); // so nobody can tell how large the allocation is
        let at = buffer.as_ptr();
        pool::READ.put(BytesMut::with_capacity(BATCH));
        wait(&mut policy, &mut buffer);
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (at, 10));
        assert!(pool::READ.take_if(|_| true).is_some(), "it is still there");
    }

    #[test]
    fn reclaim_exceeds_counts_bytes_already_written_out() {
        let mut buffer = BytesMut::from(&vec![0; MIB][..]);
        buffer.advance(MIB);
        assert!(buffer.capacity() < MIB);
        assert!(reclaim_exceeds(&mut buffer, MIB - 1));
        assert!(!reclaim_exceeds(&mut buffer, MIB));
    }
}
