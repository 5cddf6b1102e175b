//! Writes queued blocks to a transport, and flushes it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tracing::trace;

use super::{lengths::BlockLengths, queue::WriteQueue};
use crate::{BlockCodec, BlockError, Framing};

/// Whole blocks that writes have completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) blocks: u64,
    /// Bytes of their payloads.
    pub(crate) payload_bytes: u64,
    /// Bytes of their headers and payloads.
    pub(crate) wire_bytes: u64,
}

/// Blocks on their way to a transport.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    queue: WriteQueue,
    lengths: BlockLengths,
    /// Whether the transport may hold bytes that it has not passed on.
    needs_flush: bool,
}

impl Default for BlockWriter {
    fn default() -> Self {
        Self {
            queue: WriteQueue::default(),
            lengths: BlockLengths::default(),
            // Whoever wrote to the transport before may not have flushed it.
            needs_flush: true,
        }
    }
}

impl BlockWriter {
    /// Whether nothing waits to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether another block may be queued before a write.
    #[inline]
    pub(crate) fn has_capacity(&self) -> bool {
        !self.queue.is_full() && !self.lengths.is_full()
    }

    /// Queues `block`: copied if it is small or the transport does not write `vectored`. Nothing
    /// is queued of a block that `codec` refuses.
    #[inline]
    pub(crate) fn push<F: Framing>(
        &mut self,
        codec: &BlockCodec<F>,
        block: Bytes,
        vectored: bool,
    ) -> Result<(), BlockError> {
        let payload_len = block.len();
        let encode = |dst: &mut Vec<u8>| codec.encode_header(payload_len, dst);
        let wire_len = self.queue.push(block, vectored, encode)?;
        self.lengths.push(payload_len, wire_len);
        Ok(())
    }

    /// Writes once, and returns the blocks that this completed.
    pub(crate) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Written>> {
        let bytes = ready!(self.queue.poll_write(io, cx))?;
        trace!(bytes, "written");
        self.needs_flush = true;
        Poll::Ready(Ok(self.lengths.complete(bytes)))
    }

    /// Flushes the transport, unless it has been since the last write.
    pub(crate) fn poll_flush<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.needs_flush {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Shrinks the buffer before a wait of unknown length.
    pub(crate) fn shrink(&mut self) {
        self.queue.shrink();
    }

    /// Appends all that has not been written to `buffer`.
    pub(crate) fn spill(&self, buffer: &mut BytesMut) {
        if !self.is_empty() {
            self.queue.spill(buffer);
        }
    }
}
