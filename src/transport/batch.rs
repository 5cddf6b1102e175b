//! Blocks lent together.

use std::fmt;

use crate::{
    framing::Framing,
    read::{DecodeState, FrameLen, FrameParser},
};

/// Blocks that have arrived whole, lent together; made by
/// [`BlockTransport::recv_batch`](super::BlockTransport::recv_batch).
///
/// A block is taken when the iterator yields it. The rest stay for the next call.
///
/// ```
/// # use wholeblock::{BlockCodec, BlockTransport, LengthPrefix};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), wholeblock::BlockError> {
/// let wire = &b"\x03one\x03two\x05three"[..];
/// let mut blocks = BlockTransport::new(wire, BlockCodec::new(LengthPrefix::u8()));
/// let batch = blocks.recv_batch().await?.expect("three blocks");
/// assert!(batch.take(2).eq([b"one", b"two"]));
/// assert_eq!(blocks.recv().await?, Some(&b"three"[..]));
/// assert!(blocks.recv_batch().await?.is_none()); // the end
/// # Ok(())
/// # }
/// ```
#[must_use = "a block is received when the iterator yields it"]
pub struct Batch<'b, F> {
    // A copy, so that it stays in registers in the user's loop.
    parser: FrameParser<F>,
    unread: &'b [u8],
    /// Blocks that may yet be lent.
    remaining: u64,
    /// The number of blocks that might have been lent at first, and the bytes.
    most: u64,
    buffered: usize,
    /// Updated on drop: all that changes for each block is kept in this struct until then, so that it
    /// stays in registers throughout the user's loop.
    decode: &'b mut DecodeState,
}

impl<'b, F: Framing> Batch<'b, F> {
    /// The blocks in `buffer`, of which the decoder has accepted the first.
    pub(super) fn new(
        accepted: FrameLen,
        parser: &FrameParser<F>,
        decode: &'b mut DecodeState,
        buffer: &'b [u8],
    ) -> Self {
        let mut parser = parser.clone();
        let mut most = u64::MAX;
        if accepted.payload_len() > parser.max() {
            // The limit was lowered after the block's header had come. It holds for the next block.
            parser.set_max(accepted.payload_len());
            most = 1;
        }
        Self {
            parser,
            unread: buffer,
            remaining: most,
            most,
            buffered: buffer.len(),
            decode,
        }
    }
}

impl<'b, F: Framing> Iterator for Batch<'b, F> {
    type Item = &'b [u8];

    #[inline]
    fn next(&mut self) -> Option<&'b [u8]> {
        if self.remaining == 0 {
            return None;
        }
        let Some(frame) = self.parser.parse(self.unread).complete() else {
            if self.remaining == self.most {
                contradicted(self.decode, self.unread);
            }
            return None;
        };
        let (block, unread) = self.unread.split_at_checked(frame.wire_len)?;
        let payload = block.get(frame.header_len..)?;
        self.unread = unread;
        self.remaining -= 1;
        Some(payload)
    }
}

/// Ends the stream of blocks, because the framing called the first one whole, and now does not.
// Takes no `Batch`: the compiler would then keep it in memory, and store to it for each block.
#[cold]
fn contradicted(decode: &mut DecodeState, unread: &[u8]) {
    decode.fail_contradicted(unread);
}

impl<F> Drop for Batch<'_, F> {
    #[inline]
    fn drop(&mut self) {
        let blocks = self.most - self.remaining;
        if blocks > 0 {
            self.decode.lend(blocks, self.buffered - self.unread.len());
        }
    }
}

impl<F> fmt::Debug for Batch<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}
