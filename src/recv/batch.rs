//! Blocks lent together.

use std::fmt;

use super::Cursor;
use crate::{Framing, frame::FrameParser};

/// Blocks that have arrived whole, lent together; made by
/// [`RecvBlocks::next_batch`](super::RecvBlocks::next_batch).
///
/// A block is taken when the iterator yields it; the rest stay for the next call.
///
/// ```
/// # use wholeblock::{BlockCodec, BlockTransport, LengthPrefix, recv_blocks};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), wholeblock::BlockError> {
/// let wire = &b"\x03one\x03two\x05three"[..];
/// let mut transport = BlockTransport::new(wire, BlockCodec::new(LengthPrefix::u8()));
/// let mut blocks = recv_blocks(&mut transport);
/// let batch = blocks.next_batch().await?.expect("three blocks");
/// assert!(batch.take(2).eq([b"one", b"two"]));
/// assert_eq!(blocks.next().await?, Some(&b"three"[..]));
/// assert!(blocks.next_batch().await?.is_none()); // the end
/// # Ok(())
/// # }
/// ```
pub struct Batch<'b, F> {
    // A copy, so that it stays in registers in the user's loop.
    pub(super) parser: FrameParser<F>,
    /// What has not been lent of the buffer.
    pub(super) unread: &'b [u8],
    /// Blocks that may yet be lent.
    pub(super) remaining: u64,
    /// Bytes of the payloads lent.
    pub(super) payload_bytes: u64,
    /// Length of the buffer, in which `unread` is the end.
    pub(super) buffer_len: usize,
    /// Updated on drop: all that changes for each block is kept in this struct until then, so that
    /// it stays in registers throughout the user's loop.
    pub(super) cursor: &'b mut Cursor,
}

impl<'b, F: Framing> Iterator for Batch<'b, F> {
    type Item = &'b [u8];

    #[inline]
    fn next(&mut self) -> Option<&'b [u8]> {
        if self.remaining == 0 {
            return None;
        }
        let Some(frame) = self.parser.parse(self.unread).complete() else {
            return self.run_dry();
        };
        let (block, unread) = self.unread.split_at_checked(frame.wire_len)?;
        let payload = block.get(frame.header_len..)?;
        self.unread = unread;
        self.remaining -= 1;
        self.payload_bytes += payload.len() as u64;
        Some(payload)
    }
}

impl<F> Batch<'_, F> {
    /// Records that the framing contradicts itself, if there is no block at all.
    #[cold]
    fn run_dry<T>(&mut self) -> Option<T> {
        let lent = self.cursor.granted - self.remaining - self.cursor.blocks;
        self.cursor.contradicted |= lent == 0;
        None
    }
}

impl<F> Drop for Batch<'_, F> {
    #[inline]
    fn drop(&mut self) {
        self.cursor.pos = self.buffer_len - self.unread.len();
        self.cursor.blocks = self.cursor.granted - self.remaining;
        self.cursor.payload_bytes += self.payload_bytes;
    }
}

impl<F> fmt::Debug for Batch<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}
