//! Bytes on their way out, in wire order.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
    ops::RangeInclusive,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::pool::{self, INITIAL_CAPACITY};

/// Pieces of at least this many bytes are chained instead of copied. Below about 4 KiB a slice of its own
/// costs the system call more than the copy costs. Over loopback, chaining blocks of 2,500 bytes gave 0.95
/// of the rate of copying, of 5,000 bytes 1.09, and of 10,000 bytes 1.19.
pub const CHAIN_THRESHOLD: usize = 4 * 1024;

/// Bytes of TCP payload in a packet over the most common link: an MTU of 1,500 less 20 bytes of IP
/// header, 20 of TCP header and 12 of TCP timestamps.
const COMMON_MSS: usize = 1_500 - 20 - 20 - 12;

/// The default length of a full write in bytes. The queue holds at most that much and one block.
///
/// TCP sends whole packets, at most 64 KiB of them at once. A packet has 1,448 bytes over an MTU of 1,500,
/// 8,948 over 9,000, and 65,483 over loopback. What is left over at the end of a write is sent on its own, and
/// wakes up the receiver once more. No length is best on all paths. A third of this one is 43 whole packets,
/// and nearly what is sent at once on the other two paths (6.96 and 0.95 packets). It was tried against others
/// over loopback and both MTUs, with either socket option, with payloads in the cache and not. `docs/speed.md`
/// has the sweeps, and says what would be a reason to change it.
pub const FULL_WRITE: usize = PARTS * 43 * COMMON_MSS;

/// Parts of a full write. If the queue has large pieces but no whole full write, only whole parts are written.
///
/// A sender that copies nothing can outrun its receiver. Blocks of 16 KiB and 51,200 bytes then move at up to
/// twice the rate if they are written a part at a time. Small blocks and blocks of 1 MiB are faster in full
/// writes.
pub const PARTS: usize = 3;

/// The range for the length of a full write: from a few packets to more than any path needs.
const WRITE_LENS: RangeInclusive<usize> = 4 * 1024..=4 * 1024 * 1024;

/// The length of the first write after a flush, if more blocks follow. `Framed` writes as much at once. The
/// peer works on it while this end queues the rest of its answers. If the queue gathered a full write
/// first, the two ends would take turns.
pub const FIRST_WRITE: usize = 8 * 1024;

/// After each write, the next may be longer by this part of it, a quarter, up to a full write. So a burst of
/// 32 KiB leaves in four writes, and writes are full after about 0.7 MB.
const RAMP: usize = 4;

/// Slices in one vectored write: enough for all large pieces that fit it, and the bytes around them.
pub const MAX_SLICES: usize = 2 * FULL_WRITE.div_ceil(CHAIN_THRESHOLD) + 1;

/// Returns the capacity of the largest buffer that goes back to the pool. A buffer that grows by doubling has
/// this capacity once it holds a full write and a small block.
pub const fn max_spare(write_len: usize) -> usize {
    (write_len + CHAIN_THRESHOLD).next_power_of_two()
}

/// Bytes that wait to be written: large pieces of payloads by reference, everything else copied into one
/// flat buffer.
///
/// ```text
/// flat      | written | small blocks, header | header | small blocks |
///                      <------- gap -------> ^ <-gap-> ^ <-- tail -->
/// chained                           piece ---+        +--- piece
/// ```
///
/// A small block changes only `flat`.
///
/// Invariants: no chained piece is empty before it is written, the places of the pieces in `flat` are in
/// order, and `chained_len` is the sum of their lengths. [`check`](Self::check) asserts the last two in
/// debug builds.
#[derive(Debug)]
pub(crate) struct WriteQueue {
    flat: Vec<u8>,
    /// Bytes of `flat` that have been written.
    written: usize,
    /// Large pieces, each with its place among the bytes of `flat`.
    chained: VecDeque<Chained>,
    /// Bytes of these pieces.
    chained_len: usize,
    /// Bytes in a full write.
    write_len: usize,
    /// Bytes at which the queue is full: from [`FIRST_WRITE`] to a full write, or to a part of it if there are
    /// large pieces.
    limit: usize,
}

impl Default for WriteQueue {
    fn default() -> Self {
        Self {
            flat: Vec::new(),
            written: 0,
            chained: VecDeque::new(),
            chained_len: 0,
            write_len: FULL_WRITE,
            limit: FIRST_WRITE,
        }
    }
}

#[derive(Debug)]
struct Chained {
    /// End in `flat` of the bytes before this piece.
    at: usize,
    piece: Bytes,
}

impl WriteQueue {
    /// Sets the length of a full write in bytes, clamped to [`WRITE_LENS`].
    pub(crate) fn set_write_len(&mut self, bytes: usize) {
        self.write_len = bytes.clamp(*WRITE_LENS.start(), *WRITE_LENS.end());
        self.limit = self.limit.min(self.write_len);
    }

    /// Returns the length of a part of a full write.
    #[inline]
    pub(crate) fn part_len(&self) -> usize {
        self.write_len / PARTS
    }

    /// Returns how many bytes are queued.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.flat.len() - self.written + self.chained_len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if so much is queued that it should be written before more is queued.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Makes room for a block of `payload_len` bytes, and returns the flat buffer to append it to.
    #[inline]
    pub(super) fn room_for(&mut self, payload_len: usize) -> &mut Vec<u8> {
        if self.written > 0 || self.flat.capacity() == 0 {
            self.make_room(payload_len);
        }
        &mut self.flat
    }

    /// Queues what `encode` appends, and returns its length.
    pub(super) fn append(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
        let before = self.flat.len();
        encode(&mut self.flat);
        self.flat.len() - before
    }

    /// Queues a copy of `piece`.
    #[inline]
    pub(super) fn copy(&mut self, piece: &[u8]) {
        self.flat.extend_from_slice(piece);
    }

    /// Queues `piece`, which is not empty, without copying it.
    #[inline]
    pub(super) fn chain(&mut self, piece: Bytes) {
        self.chained_len += piece.len();
        self.limit = self.limit.min(self.part_len());
        let at = self.flat.len();
        self.chained.push_back(Chained { at, piece });
    }

    /// Returns the last block in wire order. It begins at `start` in `flat`, and has `chained` large pieces.
    pub(super) fn block(
        &self,
        start: usize,
        chained: usize,
    ) -> impl Iterator<Item = &[u8]> + Clone {
        self.slices_from(start, self.chained.len() - chained)
    }

    /// Removes the last block, as [`block`](Self::block) returns it.
    #[cold]
    pub(super) fn remove_block(&mut self, start: usize, chained: usize) {
        self.flat.truncate(start);
        let first = self.chained.len() - chained;
        let removed = self.chained.range(first..);
        self.chained_len -= removed.map(|chained| chained.piece.len()).sum::<usize>();
        // Last, because the user's `Drop` may panic.
        self.chained.truncate(first);
    }

    /// Returns the buffer to append to. What is appended follows all that is queued.
    pub(crate) fn flat_mut(&mut self) -> &mut Vec<u8> {
        self.room_for(0)
    }

    /// Reads once from `source`, at most `room` bytes, and queues them.
    pub(crate) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        source: &mut S,
        cx: &mut Context<'_>,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        let flat = self.flat_mut();
        flat.reserve_exact(room);
        poll_read_buf(Pin::new(source), cx, &mut flat.limit(room))
    }

    /// Returns the last `len` bytes, which are not chained.
    pub(crate) fn last(&self, len: usize) -> &[u8] {
        &self.flat[self.flat.len() - len..]
    }

    /// Removes the last `len` bytes, which are not chained.
    pub(crate) fn retract(&mut self, len: usize) {
        self.flat.truncate(self.flat.len() - len);
    }

    /// Queues `bytes` as they are.
    pub(crate) fn push_raw(&mut self, bytes: &[u8]) {
        self.flat.extend_from_slice(bytes);
    }

    /// Writes once, and calls `record` with the number of bytes that the transport took. Written pieces are
    /// dropped after that, because the user's `Drop` may panic.
    pub(crate) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        record: impl FnOnce(usize),
    ) -> Poll<io::Result<()>> {
        let io = Pin::new(io);
        let polled = if self.chained.is_empty() {
            let flat = &self.flat[self.written..];
            io.poll_write(cx, &flat[..flat.len().min(self.write_len)])
        } else {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            io.poll_write_vectored(cx, self.slices(&mut slices))
        };
        polled.map(|result| match result {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                self.advance(bytes);
                let most = match self.chained_len {
                    0 => self.write_len,
                    _ => self.part_len(),
                };
                self.limit = most.min(self.limit + bytes / RAMP);
                record(bytes);
                self.drop_written();
                Ok(())
            }
            Err(error) => Err(error),
        })
    }

    /// Returns the queue in wire order, up to one write: a full one, or else as many whole parts as there are.
    fn slices<'s, 'q>(&'q self, slices: &'s mut [IoSlice<'q>]) -> &'s [IoSlice<'q>] {
        let (part, len) = (self.part_len(), self.len());
        let (mut count, mut left) = match len >= self.write_len {
            true => (0, self.write_len),
            false => (0, part.max(len - len % part)),
        };
        for piece in self.all() {
            let piece = &piece[..piece.len().min(left)];
            if count == slices.len() || left == 0 {
                break;
            }
            if !piece.is_empty() {
                slices[count] = IoSlice::new(piece);
                count += 1;
                left -= piece.len();
            }
        }
        &slices[..count]
    }

    /// Returns the queue in wire order. Slices may be empty.
    fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.slices_from(self.written, 0)
    }

    /// Returns what is queued from `start` in `flat` and from piece `first` of `chained` on, in wire order.
    fn slices_from(&self, start: usize, first: usize) -> impl Iterator<Item = &[u8]> + Clone {
        let last = self.chained.back().map_or(0, |last| last.at);
        let tail = &self.flat[last.max(start)..];
        let chained = self.chained.range(first..).scan(start, |start, chained| {
            let gap = *start..chained.at.max(*start);
            *start = gap.end;
            Some([&self.flat[gap], &chained.piece])
        });
        chained.flatten().chain([tail])
    }

    /// Removes `bytes` bytes from the front. Written pieces stay, empty, until
    /// [`drop_written`](Self::drop_written).
    fn advance(&mut self, mut bytes: usize) {
        for chained in &mut self.chained {
            let of_gap = chained.at.saturating_sub(self.written).min(bytes);
            self.written += of_gap;
            bytes -= of_gap;

            let of_piece = chained.piece.len().min(bytes);
            chained.piece.advance(of_piece);
            self.chained_len -= of_piece;
            bytes -= of_piece;

            if !chained.piece.is_empty() {
                break;
            }
        }
        self.written += bytes;
        self.check();
    }

    /// Drops the written pieces. Clears `flat` if everything is written.
    fn drop_written(&mut self) {
        // One by one, because the process would abort if two pieces panicked in one drop.
        while matches!(self.chained.front(), Some(first) if first.piece.is_empty()) {
            self.chained.pop_front();
        }
        if self.is_empty() {
            self.flat.clear();
            self.written = 0;
        }
    }

    /// Moves what is left of `flat` to its start, so that a payload of `payload_len` bytes fits behind it.
    /// Less than one write is left, and most often nothing. Takes the thread's spare buffer if the queue has
    /// none, and shrinks a buffer that only a longer payload needed.
    #[cold]
    fn make_room(&mut self, payload_len: usize) {
        self.flat.drain(..self.written);
        for chained in &mut self.chained {
            chained.at = chained.at.saturating_sub(self.written);
        }
        self.written = 0;
        if self.flat.capacity() == 0 {
            self.flat = pool::WRITE.take_if(|_| true).unwrap_or_default();
        }
        let needed = self.flat.len() + payload_len;
        let spare = max_spare(self.write_len);
        if self.flat.capacity() > spare.max(2 * needed) {
            self.flat.shrink_to(spare.max(needed));
        }
    }

    /// Returns an empty queue's buffer to the thread's pool, so that idle writers hold no memory. The
    /// next write is a [`FIRST_WRITE`] again.
    #[inline]
    pub(crate) fn release(&mut self) {
        let first = FIRST_WRITE.min(self.write_len);
        let is_small =
            self.flat.capacity() <= INITIAL_CAPACITY && self.chained.capacity() <= MAX_SLICES;
        // A task that waits for several things at once flushes often, with nothing to release.
        if self.limit != first || !is_small {
            self.limit = first;
            self.release_large();
        }
    }

    fn release_large(&mut self) {
        self.drop_written();
        // A block of thousands of pieces should not leave behind memory for as many.
        self.chained.shrink_to(MAX_SLICES);
        if self.is_empty() && self.flat.capacity() > INITIAL_CAPACITY {
            let spare = mem::take(&mut self.flat);
            if spare.capacity() <= max_spare(self.write_len) {
                pool::WRITE.put(spare);
            }
        }
    }

    /// Appends all that has not been written to `buffer`.
    pub(crate) fn spill(&self, buffer: &mut BytesMut) {
        buffer.reserve(self.len());
        for piece in self.all() {
            buffer.extend_from_slice(piece);
        }
    }

    fn check(&self) {
        if cfg!(debug_assertions) {
            let pieces = self.chained.iter().map(|chained| chained.piece.len());
            assert_eq!(pieces.sum::<usize>(), self.chained_len);
            assert!(self.chained.iter().is_sorted_by_key(|chained| chained.at));
            assert!(
                self.chained
                    .back()
                    .is_none_or(|last| last.at <= self.flat.len())
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::executor::block_on;

    use super::{super::pieces::Pieces, *};

    /// Queues `payload` behind two dashes.
    fn push(queue: &mut WriteQueue, payload: Bytes, vectored: bool) {
        let mut block = Pieces::new(queue, payload.len(), vectored);
        block.put_header(|dst| dst.extend_from_slice(b"--"));
        block.share(payload);
        block.finish();
    }

    /// A payload of `len` bytes that begins with `number`.
    fn payload(number: u8, len: usize) -> Bytes {
        (0..len).map(|at| number.wrapping_add(at as u8)).collect()
    }

    fn wire(payloads: &[Bytes]) -> Vec<u8> {
        let blocks = payloads
            .iter()
            .map(|payload| [b"--", &payload[..]].concat());
        blocks.collect::<Vec<_>>().concat()
    }

    /// Writes once, to a transport that takes all.
    fn write(queue: &mut WriteQueue) -> usize {
        let mut written = 0;
        block_on(poll_fn(|cx| {
            queue.poll_write(&mut tokio::io::sink(), cx, |bytes| written = bytes)
        }))
        .unwrap();
        written
    }

    fn left(queue: &WriteQueue) -> Vec<u8> {
        let mut left = BytesMut::new();
        queue.spill(&mut left);
        left.into()
    }

    #[test]
    fn the_queue_is_in_wire_order_wherever_a_write_has_stopped() {
        let lens = [
            3,
            CHAIN_THRESHOLD,
            0,
            CHAIN_THRESHOLD + 1,
            CHAIN_THRESHOLD,
            5,
            7,
        ];
        let payloads: Vec<_> = (0..).zip(lens).map(|(n, len)| payload(n, len)).collect();
        let wire = wire(&payloads);
        for vectored in [true, false] {
            for step in [1, 2, 5, 1_000, 4_098, 20_000] {
                let mut queue = WriteQueue::default();
                for payload in &payloads {
                    push(&mut queue, payload.clone(), vectored);
                }
                assert_eq!(queue.chained.is_empty(), !vectored);
                let mut written = 0;
                while !queue.is_empty() {
                    let bytes = step.min(wire.len() - written);
                    queue.advance(bytes);
                    written += bytes;
                    assert_eq!(
                        left(&queue),
                        wire[written..],
                        "{vectored}, {step}, {written}"
                    );
                }
            }
        }
    }

    #[test]
    fn block_pushed_after_a_partial_write_follows_the_rest() {
        let mut queue = WriteQueue::default();
        let (first, second) = (payload(1, 10), payload(2, CHAIN_THRESHOLD));
        push(&mut queue, first.clone(), true);
        queue.advance(5);
        push(&mut queue, second.clone(), true);
        push(&mut queue, first.clone(), true);
        assert_eq!(queue.written, 0, "the written place is reused");
        assert_eq!(left(&queue), wire(&[first.clone(), second, first])[5..]);
    }

    #[test]
    fn unfinished_block_leaves_the_queue_unchanged() {
        let large = CHAIN_THRESHOLD;
        let earlier = [large, 5, large, 3].map(|len| payload(len as u8, len));
        let later = [2, 0, large, large + 1, 4, large].map(|len| payload(len as u8, len));
        for written in [
            0,
            1,
            2,
            large,
            large + 2,
            large + 4,
            2 * large + 15,
            2 * large + 16,
        ] {
            for put in 0..=later.len() {
                let mut queue = WriteQueue::default();
                for payload in &earlier {
                    push(&mut queue, payload.clone(), true);
                }
                queue.advance(written);
                let mut block = Pieces::new(&mut queue, 5 * large, true);
                block.put_header(|dst| dst.extend_from_slice(b"--"));
                for piece in &later[..put] {
                    block.share(piece.clone());
                }
                drop(block);
                queue.check();
                let before = wire(&earlier)[written..].to_vec();
                assert_eq!(left(&queue), before, "{written}, {put}");
                assert_eq!(queue.len(), before.len(), "{written}, {put}");

                push(&mut queue, later[2].clone(), true);
                let after = wire(&later[2..3]);
                assert_eq!(left(&queue), [before, after].concat(), "{written}, {put}");
            }
        }
    }

    #[test]
    fn slices_fill_a_whole_write() {
        for last in [CHAIN_THRESHOLD, 16 * FULL_WRITE] {
            let mut queue = WriteQueue::default();
            push(&mut queue, payload(0, CHAIN_THRESHOLD), true);
            queue.advance(CHAIN_THRESHOLD + 1); // all but a byte
            while queue.len() + 2 + CHAIN_THRESHOLD < FULL_WRITE {
                push(&mut queue, payload(0, CHAIN_THRESHOLD), true);
            }
            push(&mut queue, payload(0, last), true);
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let slices = queue.slices(&mut slices);
            let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
            assert_eq!(bytes, FULL_WRITE, "{} slices", slices.len());
        }
    }

    #[test]
    fn large_pieces_leave_in_as_many_whole_parts_as_there_are() {
        let part = FULL_WRITE / PARTS;
        for (queued, expected) in [
            (part - 1, part - 1),
            (part, part),
            (2 * part - 1, part),
            (2 * part, 2 * part),
            (FULL_WRITE - 1, 2 * part),
            (FULL_WRITE, FULL_WRITE),
            (10 * FULL_WRITE, FULL_WRITE),
        ] {
            for (chained, expected) in [(true, expected), (false, queued.min(FULL_WRITE))] {
                let mut queue = WriteQueue::default();
                push(&mut queue, payload(0, queued - 2), chained);
                assert_eq!(write(&mut queue), expected, "{queued}, {chained}");
            }
        }
    }

    #[test]
    fn queue_of_large_pieces_is_full_with_one_part_and_the_next_copied_blocks_grow_again() {
        let part = FULL_WRITE / PARTS;
        let mut queue = WriteQueue::default();
        let mut full_at = |len| {
            let mut most = 0;
            for _ in 0..8 * FULL_WRITE / len {
                push(&mut queue, payload(0, len), true);
                most = most.max(queue.len());
                while queue.is_full() {
                    write(&mut queue);
                }
            }
            let limit = queue.limit;
            while !queue.is_empty() {
                write(&mut queue);
            }
            (limit, most / part)
        };
        assert_eq!(full_at(1_000), (FULL_WRITE, PARTS));
        assert_eq!(full_at(40_000), (part, 1));
        assert_eq!(full_at(1_000), (FULL_WRITE, PARTS));
    }

    #[test]
    fn queue_with_a_large_piece_left_is_full_with_one_part() {
        let part = FULL_WRITE / PARTS;
        let mut queue = WriteQueue::default();
        while queue.limit < FULL_WRITE {
            push(&mut queue, payload(0, 1_000), true);
            while queue.is_full() {
                write(&mut queue);
            }
        }
        while !queue.is_empty() {
            write(&mut queue);
        }
        push(&mut queue, payload(0, 2 * part - 3), true);
        write(&mut queue);
        assert_eq!((queue.len(), queue.is_full()), (part - 1, false));
        push(&mut queue, payload(0, 1), true);
        assert!(queue.is_full());
    }

    #[test]
    fn release_parks_the_buffer_of_an_empty_queue_and_of_no_other() {
        let mut first = WriteQueue::default();
        while !first.is_full() {
            push(&mut first, payload(9, 1_000), true);
        }
        first.advance(first.len() - 1_002);
        first.release();
        assert_eq!(left(&first), wire(&[payload(9, 1_000)]));
        first.advance(1_002);
        let at = first.flat.as_ptr();
        first.release();
        assert_eq!(first.flat.capacity(), 0);

        let mut second = WriteQueue::default();
        push(&mut second, payload(1, 1), true);
        assert_eq!(second.flat.as_ptr(), at);
        push(&mut first, payload(1, 1), true);
        assert_eq!(left(&first), left(&second));
    }

    #[test]
    fn write_after_a_release_is_a_first_one_again_although_the_buffer_is_small() {
        let mut queue = WriteQueue::default();
        push(&mut queue, payload(0, 40 * 1024), true);
        while !queue.is_empty() {
            write(&mut queue);
        }
        assert!(queue.limit > FIRST_WRITE && queue.flat.capacity() <= INITIAL_CAPACITY);
        queue.release();
        assert_eq!(queue.limit, FIRST_WRITE);
    }

    #[test]
    fn release_after_thousands_of_pieces_keeps_room_for_one_write() {
        let mut queue = WriteQueue::default();
        let piece = payload(0, CHAIN_THRESHOLD);
        let mut block = Pieces::new(&mut queue, 10_000 * CHAIN_THRESHOLD, true);
        for _ in 0..10_000 {
            block.share(piece.clone());
        }
        block.finish();
        queue.advance(queue.len());
        queue.release();
        let kept = queue.chained.capacity();
        assert!(
            (FULL_WRITE / CHAIN_THRESHOLD..=MAX_SLICES).contains(&kept),
            "{kept}"
        );
    }

    #[test]
    fn buffer_of_one_large_block_is_not_parked() {
        let mut queue = WriteQueue::default();
        push(&mut queue, payload(0, 2 * max_spare(FULL_WRITE)), false);
        queue.advance(queue.len());
        queue.release();
        assert!(pool::WRITE.take_if(|_| true).is_none());
    }
}
