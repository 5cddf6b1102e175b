//! Writes queued blocks to a transport, and flushes it.

use std::{
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::trace;

use super::{pieces::Pieces, queue::WriteQueue};
use crate::coop;

/// Blocks on their way to a transport.
#[derive(Debug, Default)]
pub(crate) struct BlockWriter {
    queue: WriteQueue,
    /// Bytes written so far.
    written: u64,
    /// Writes that took them.
    writes: u64,
    /// Bytes ever queued that the codec has counted.
    counted: u64,
}

impl BlockWriter {
    /// Sets the length of a full write in bytes, clamped as the queue does.
    pub(crate) fn set_write_len(&mut self, bytes: usize) {
        self.queue.set_write_len(bytes);
    }

    /// Returns the length of a part of a full write.
    pub(crate) fn part_len(&self) -> usize {
        self.queue.part_len()
    }

    /// True if nothing waits to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// True if another block may be queued before a write.
    #[inline]
    pub(crate) fn has_capacity(&self) -> bool {
        !self.queue.is_full()
    }

    /// Returns how many bytes wait to be written.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns the bytes written so far, and the number of writes that took them.
    pub(crate) fn written(&self) -> (u64, u64) {
        (self.written, self.writes)
    }

    /// Makes room for a block of `payload_len` bytes that is copied whole, and returns the buffer for it.
    #[inline]
    pub(crate) fn room_for(&mut self, payload_len: usize) -> &mut Vec<u8> {
        self.queue.room_for(payload_len)
    }

    /// Begins a block of `payload_len` bytes. Large pieces are not copied if the transport is `vectored`.
    pub(crate) fn begin(&mut self, payload_len: usize, vectored: bool) -> Pieces<'_> {
        Pieces::new(&mut self.queue, payload_len, vectored)
    }

    /// Returns how many bytes were ever queued.
    pub(crate) fn total(&self) -> u64 {
        self.written + self.len() as u64
    }

    /// Returns the buffer to append to. What is appended follows all that is queued.
    pub(crate) fn flat_mut(&mut self) -> &mut Vec<u8> {
        self.queue.flat_mut()
    }

    /// Reads once from `source`, at most `room` bytes, and queues them.
    pub(crate) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        source: &mut S,
        cx: &mut Context<'_>,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        coop::poll_operation(cx, |cx| self.queue.poll_fill(source, cx, room))
    }

    /// Returns the last `len` bytes, which were appended.
    pub(crate) fn last(&self, len: usize) -> &[u8] {
        self.queue.last(len)
    }

    /// Removes all bytes that were appended after the first `total`. Returns how many of them the codec has
    /// counted.
    pub(crate) fn retract(&mut self, total: u64) -> u64 {
        self.queue.retract((self.total() - total) as usize);
        let counted = self.counted.saturating_sub(total);
        self.counted -= counted;
        counted
    }

    /// Queues `bytes` as they are. They are blocks that the codec has counted.
    pub(crate) fn push_raw(&mut self, bytes: &[u8]) {
        self.queue.push_raw(bytes);
        self.counted += bytes.len() as u64;
    }

    /// Returns how many bytes were queued since the last call, for the codec to count. Counting at each block
    /// would make a small one a twentieth slower.
    pub(crate) fn take_uncounted(&mut self) -> u64 {
        let queued = self.total();
        queued - mem::replace(&mut self.counted, queued)
    }

    /// Writes once.
    pub(crate) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_write_and(io, cx, |_| {})
    }

    /// Writes once, and calls `record` with the number of bytes that the transport took. Payloads are
    /// dropped after that, because the user's `Drop` may panic.
    pub(crate) fn poll_write_and<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        record: impl FnOnce(usize),
    ) -> Poll<io::Result<()>> {
        let (written, writes) = (&mut self.written, &mut self.writes);
        coop::poll_operation(cx, |cx| {
            self.queue.poll_write(io, cx, |bytes| {
                trace!(bytes, "written");
                *written += bytes as u64;
                *writes += 1;
                record(bytes);
            })
        })
    }

    /// Flushes the transport and returns the empty buffer to the pool.
    ///
    /// The transport is flushed even if nothing was written here: it may hold bytes of its own (an
    /// answer to a ping, a TLS key update), or bytes that the caller wrote to it directly.
    pub(crate) fn poll_flush<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(io).poll_flush(cx))?;
        self.queue.release();
        Poll::Ready(Ok(()))
    }

    /// Appends all that has not been written to `buffer`.
    pub(crate) fn spill(&self, buffer: &mut BytesMut) {
        if !self.is_empty() {
            self.queue.spill(buffer);
        }
    }
}
