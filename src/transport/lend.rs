//! Blocks that a transport lends.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncRead;

use super::BlockTransport;
use crate::{
    codec::BlockCodec,
    error::{BlockError, CodecError},
    framing::Framing,
    read::{DecodeState, FrameLen, FrameParser},
};

/// The future of [`BlockTransport::recv`].
// Not an `async fn`, because the compiler inlines the poll of one into a single caller only. A call that is
// not inlined costs half as much as lending a small block.
#[must_use = "nothing is received until this is awaited"]
pub struct Recv<'a, T, F, E = BlockError> {
    /// None once the future is ready.
    pub(super) transport: Option<&'a mut BlockTransport<T, F, E>>,
}

impl<'a, T, F, E> Future for Recv<'a, T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Output = Result<Option<&'a [u8]>, E>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let transport = self
            .transport
            .take()
            .expect("not polled after it was ready");
        let BlockCodec { parser, decode, .. } = &mut transport.codec;
        let mut block = decode.lend_next(parser, &transport.read_buf);
        if block.is_none() {
            match transport.poll_lend(cx) {
                Poll::Ready(Ok(lent)) => block = lent,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.transport = Some(transport);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(block.map(|block| &transport.read_buf[block])))
    }
}

impl<T, F, E> Drop for Recv<'_, T, F, E> {
    #[inline]
    fn drop(&mut self) {
        if let Some(transport) = &mut self.transport {
            transport.pause();
        }
    }
}

/// The future of [`BlockTransport::recv_batch`].
#[must_use = "nothing is received until this is awaited"]
pub struct RecvBatch<'a, T, F, E = BlockError> {
    /// None once the future is ready.
    pub(super) transport: Option<&'a mut BlockTransport<T, F, E>>,
}

impl<'a, T, F, E> Future for RecvBatch<'a, T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Output = Result<Option<Batch<'a, F>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let transport = self
            .transport
            .take()
            .expect("not polled after it was ready");
        let accepted = match transport.poll_accepted(cx, DecodeState::accept) {
            Poll::Ready(Ok(Some(frame))) => frame,
            Poll::Ready(Ok(None)) => return Poll::Ready(Ok(None)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                self.transport = Some(transport);
                return Poll::Pending;
            }
        };
        let BlockCodec { parser, decode, .. } = &mut transport.codec;
        let batch = Batch::new(accepted, parser, decode, &transport.read_buf);
        Poll::Ready(Ok(Some(batch)))
    }
}

impl<T, F, E> Drop for RecvBatch<'_, T, F, E> {
    fn drop(&mut self) {
        if let Some(transport) = &mut self.transport {
            transport.pause();
        }
    }
}

/// An iterator over blocks that have arrived whole; made by
/// [`BlockTransport::recv_batch`](super::BlockTransport::recv_batch).
///
/// A block is taken when the iterator yields it. The rest stay for the next call. (A batch that is leaked
/// with `mem::forget` takes none.)
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
    // A copy, so that it stays in registers during the user's loop.
    parser: FrameParser<F>,
    unread: &'b [u8],
    /// Blocks that may still be lent.
    remaining: u64,
    /// `remaining` at the start.
    most: u64,
    /// Length of `unread` at the start.
    buffered: usize,
    /// Updated only on drop. Until then, all that changes with each block is in this struct, so that it
    /// stays in registers during the user's loop.
    decode: &'b mut DecodeState,
}

impl<'b, F: Framing> Batch<'b, F> {
    /// Returns an iterator over the blocks in `buffer`. The decoder has accepted the first.
    fn new(
        accepted: FrameLen,
        parser: &FrameParser<F>,
        decode: &'b mut DecodeState,
        buffer: &'b [u8],
    ) -> Self {
        let mut parser = parser.clone();
        let mut most = u64::MAX;
        if accepted.payload_len() > parser.max() {
            // The limit was lowered after the block's header had arrived. It applies to the next block.
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
                // A method of `self` would force `self` into memory, with a store for each block.
                self.decode.fail_contradicted(self.unread);
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

opaque_debug! { Recv<T, F, E> RecvBatch<T, F, E> }
