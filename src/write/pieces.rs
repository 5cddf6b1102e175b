//! A block on its way into the queue, piece by piece.

use std::{fmt, mem};

use bytes::Bytes;

use super::queue::{CHAIN_THRESHOLD, WriteQueue};

/// The pieces of one block, of any length and in order. [`Payload`](crate::Payload) has an example.
///
/// A block is queued whole or not at all. If its pieces together have fewer or more bytes than
/// [`byte_len`](crate::Payload::byte_len) has returned, or if the payload panics, all pieces are
/// removed again.
pub struct Pieces<'q> {
    queue: &'q mut WriteQueue,
    /// True if large pieces may be slices of their own.
    vectored: bool,
    /// Start of the block in the queue's flat buffer.
    start: usize,
    /// Number of chained pieces.
    chained: usize,
    /// Bytes that the payload has announced.
    announced: usize,
    /// Bytes that the payload has put here. Pieces beyond `announced` are counted, but not queued.
    put: usize,
}

impl<'q> Pieces<'q> {
    /// Begins a block of `announced` payload bytes, which is removed if it is not
    /// [finished](Self::finish).
    pub(super) fn new(queue: &'q mut WriteQueue, announced: usize, vectored: bool) -> Self {
        Self {
            start: queue.room_for(announced).len(),
            queue,
            vectored,
            chained: 0,
            announced,
            put: 0,
        }
    }

    /// Queues a copy of `piece`.
    #[inline]
    pub fn copy(&mut self, piece: &[u8]) {
        if self.count(piece) {
            self.queue.copy(piece);
        }
    }

    /// Queues `piece`: a large one without a copy, if the transport below
    /// [writes several slices at once](tokio::io::AsyncWrite::is_write_vectored), and any other as a
    /// copy.
    #[inline]
    pub fn share<B>(&mut self, piece: B)
    where
        B: AsRef<[u8]> + Into<Bytes>,
    {
        if self.shares(piece.as_ref()) {
            self.chain(piece.into());
        } else {
            self.copy(piece.as_ref());
        }
    }

    /// True if [`share`](Self::share) does not copy `piece`.
    #[inline]
    pub(crate) fn shares(&self, piece: &[u8]) -> bool {
        is_shared(piece, self.vectored)
    }

    fn chain(&mut self, piece: Bytes) {
        // A user's type may turn into shorter `Bytes`.
        if !self.shares(&piece) {
            self.copy(&piece);
        } else if self.count(&piece) {
            self.queue.chain(piece);
            self.chained += 1;
        }
    }

    /// Counts `piece`, and returns true if it is within what was announced.
    #[inline]
    fn count(&mut self, piece: &[u8]) -> bool {
        self.put = self.put.saturating_add(piece.len());
        self.put <= self.announced
    }

    /// Returns the bytes of all pieces so far.
    pub(crate) fn put_len(&self) -> usize {
        self.put
    }

    /// Queues the header, which `encode` appends, and returns its length.
    pub(crate) fn put_header(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.queue.append(encode)
    }

    /// Returns the block as it is queued, in wire order. Slices may be empty.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.queue.block(self.start, self.chained)
    }

    /// Leaves the block in the queue.
    pub(crate) fn finish(self) {
        mem::forget(self);
    }
}

/// True if [`Pieces::share`] does not copy `piece`, over a transport that is `vectored` or not.
#[inline]
pub(crate) fn is_shared(piece: &[u8], vectored: bool) -> bool {
    vectored && piece.len() >= CHAIN_THRESHOLD
}

impl Drop for Pieces<'_> {
    fn drop(&mut self) {
        self.queue.remove_block(self.start, self.chained);
    }
}

impl fmt::Debug for Pieces<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pieces")
            .field("announced", &self.announced)
            .field("put", &self.put)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::framing::MAX_LIMIT;

    const LARGE: usize = CHAIN_THRESHOLD;

    /// Lengths of the pieces of a block: small, empty and large ones, two of each in a row.
    const LENS: [usize; 9] = [3, 0, LARGE, LARGE + 1, 5, LARGE - 1, LARGE, 0, 1];

    /// Pieces of `LENS` bytes, no two alike.
    fn pieces() -> Vec<Bytes> {
        let byte = |n: usize, at: usize| (31 * n + at) as u8;
        let piece = |(n, len)| (0..len).map(|at| byte(n, at)).collect();
        LENS.into_iter().enumerate().map(piece).collect()
    }

    fn begin(queue: &mut WriteQueue, announced: usize) -> Pieces<'_> {
        let mut block = Pieces::new(queue, announced, true);
        assert_eq!(block.put_header(|dst| dst.extend_from_slice(b"--")), 2);
        block
    }

    /// Queues all pieces as one block behind two dashes, and returns it as it should be on the wire.
    fn push(queue: &mut WriteQueue) -> Vec<u8> {
        let pieces = pieces();
        let expected = [b"--", &pieces.concat()[..]].concat();
        let mut block = begin(queue, expected.len() - 2);
        pieces.into_iter().for_each(|piece| block.share(piece));
        assert_eq!(block.put_len(), expected.len() - 2);
        assert_eq!(block.slices().collect::<Vec<_>>().concat(), expected);
        block.finish();
        expected
    }

    fn left(queue: &WriteQueue) -> Vec<u8> {
        let mut left = BytesMut::new();
        queue.spill(&mut left);
        assert_eq!(left.len(), queue.len());
        left.into()
    }

    #[test]
    fn pieces_are_queued_in_order_behind_earlier_blocks() {
        let mut queue = WriteQueue::default();
        let blocks = [push(&mut queue), push(&mut queue), push(&mut queue)];
        assert_eq!(left(&queue), blocks.concat());
    }

    #[test]
    fn piece_beyond_the_announced_length_is_counted_and_not_queued() {
        for (announced, put, queued) in [
            (2, 3, 0),
            (3, 3, 3),
            (LARGE + 2, 9, 3),
            (LARGE + 3, 9, LARGE + 3),
        ] {
            let mut queue = WriteQueue::default();
            let mut block = begin(&mut queue, announced);
            let mut pieces = pieces().into_iter();
            let mut counted = 0;
            while counted < put {
                let piece = pieces.next().unwrap();
                counted += piece.len();
                block.share(piece);
            }
            assert_eq!(block.put_len(), counted);
            block.finish();
            assert_eq!(queue.len(), 2 + queued, "{announced} announced");
        }
        let mut queue = WriteQueue::default();
        let mut block = begin(&mut queue, 0);
        block.put = usize::MAX - 1;
        block.copy(b"more than can be counted");
        assert_eq!(block.put_len(), usize::MAX);
    }

    #[test]
    fn large_piece_is_copied_if_borrowed_or_not_vectored() {
        let large = Bytes::from(vec![7; 3 * LARGE]);
        let copies = |vectored, put: fn(&mut Pieces<'_>, Bytes)| {
            let mut queue = WriteQueue::default();
            let mut block = Pieces::new(&mut queue, large.len(), vectored);
            put(&mut block, large.clone());
            let copied = block.slices().all(|slice| slice.as_ptr() != large.as_ptr());
            assert_eq!(block.slices().collect::<Vec<_>>().concat(), large);
            copied
        };
        assert!(copies(true, |block, large| block.copy(&large)));
        assert!(copies(false, |block, large| block.share(large)));
        assert!(!copies(true, |block, large| block.share(large)));
    }

    /// A piece that reads as its first field and converts into its second.
    struct Fickle(Bytes, Bytes);

    impl AsRef<[u8]> for Fickle {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl From<Fickle> for Bytes {
        fn from(fickle: Fickle) -> Self {
            fickle.1
        }
    }

    #[test]
    fn piece_that_converts_into_another_counts_as_the_queued_bytes() {
        let lens = [0, 1, LARGE - 1, LARGE, 3 * LARGE];
        for (said, is) in lens.into_iter().flat_map(|said| lens.map(|is| (said, is))) {
            let mut queue = WriteQueue::default();
            let mut block = Pieces::new(&mut queue, MAX_LIMIT, true);
            block.share(Fickle(vec![1; said].into(), vec![2; is].into()));
            let sent = if said < LARGE { said } else { is };
            assert_eq!(block.put_len(), sent, "{said}, {is}");
            block.finish();
            assert_eq!(queue.len(), sent, "{said}, {is}");
        }
    }
}
