//! A block that is received part by part.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, ReadBuf};

use super::BlockTransport;
use crate::{
    codec::BlockCodec,
    coop,
    error::{BlockError, CodecError},
    framing::Framing,
    read::{DecodeState, LEAST_DIRECT},
    timeout::Waiter,
};

/// The future of [`BlockTransport::recv_reader`].
#[must_use = "nothing is received until this is awaited"]
pub struct RecvReader<'a, T, F, E = BlockError> {
    /// None once the future is ready.
    pub(super) transport: Option<&'a mut BlockTransport<T, F, E>>,
}

impl<'a, T, F, E> Future for RecvReader<'a, T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Output = Result<Option<BlockReader<'a, T, F, E>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let transport = self
            .transport
            .take()
            .expect("not polled after it was ready");
        match transport.poll_accepted(cx, DecodeState::begin_parts) {
            Poll::Ready(Ok(Some(len))) => {
                transport.is_late(); // starts the block's clock, even if nobody reads it
                Poll::Ready(Ok(Some(BlockReader { transport, len })))
            }
            Poll::Ready(Ok(None)) => Poll::Ready(Ok(None)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.transport = Some(transport);
                Poll::Pending
            }
        }
    }
}

impl<T, F, E> Drop for RecvReader<'_, T, F, E> {
    fn drop(&mut self) {
        if let Some(transport) = &mut self.transport {
            transport.pause();
        }
    }
}

/// A block that is read part by part; made by [`BlockTransport::recv_reader`].
///
/// It is an [`AsyncRead`] and an [`AsyncBufRead`] that ends at the block's end, so tokio's methods work on
/// it: `copy_buf`, `read_exact`, `read_to_end`, `take`, `lines` … It holds at most 64 KiB, whatever the
/// block's length.
///
/// [`fill_buf`](tokio::io::AsyncBufReadExt::fill_buf) lends a part without copying it.
/// [`read`](tokio::io::AsyncReadExt::read) and [`read_buf`](tokio::io::AsyncReadExt::read_buf) fill your
/// own memory. 16 KiB and more are read into it straight from the transport. A
/// [`BufReader::with_capacity(256 * 1024, block)`](tokio::io::BufReader::with_capacity) reads more than
/// 64 KiB at once. It is faster and takes more memory.
///
/// # Dropped early
///
/// If you drop the reader early, the transport reads and discards the rest of the block before the next
/// block, in the same 64 KiB. The transport's timeouts apply to the rest.
///
/// # Errors
///
/// A [`BlockError`], as an [`io::Error`]: [`BlockError::Truncated`] if the stream ends inside the block.
/// After a timeout of the [transport](BlockTransport::stall_timeout) you can read on. A
/// [`block_deadline`](BlockTransport::block_deadline) also applies to a block that is read in parts.
///
/// `copy_buf` returns the errors of the reader and of the writer. To tell them apart, write the loop
/// yourself, with `fill_buf` and `write_all`.
///
/// # Cancel safety
///
/// It depends on the method. tokio's `read`, `read_buf`, `fill_buf` and `copy_buf` lose nothing if they are
/// dropped. `read_exact` and `read_to_end` lose what they have read, unless you keep their memory.
/// [`recv_into`](BlockTransport::recv_into) reads a whole block into your memory and loses nothing.
#[must_use = "a reader that is dropped discards its block"]
pub struct BlockReader<'a, T, F, E = BlockError> {
    transport: &'a mut BlockTransport<T, F, E>,
    /// Payload bytes of the block.
    len: u64,
}

impl<T, F, E> BlockReader<'_, T, F, E> {
    /// Returns the length of the block in bytes, from its header.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if the block has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns how many bytes of the block have not been read.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.transport.codec.decode.parts_left()
    }
}

impl<T, F, E> BlockReader<'_, T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    /// Waits until bytes of the block are in the buffer, and returns how many. Returns 0 at the block's end.
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.remaining() == 0 {
            return Poll::Ready(Ok(0)); // without starting the next block's clock
        }
        let part = ready!(self.poll_in_time(cx, |transport, cx| {
            transport.poll_front(cx, |decode, _, buffer| Ok(decode.next_part(buffer)))
        }))?;
        Poll::Ready(Ok(part.unwrap_or(0)))
    }

    /// Reads straight into `buf`. Call this only if nothing of the block is in the read buffer.
    fn poll_direct(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_in_time(cx, |transport, cx| {
            let BlockCodec { parser, decode, .. } = &mut transport.codec;
            decode.leave_large(&mut transport.read_buf);
            let before = buf.filled().len();
            let mut rest = (&mut transport.io).take(decode.parts_left());
            let polled = coop::poll_operation(cx, |cx| Pin::new(&mut rest).poll_read(cx, buf));
            if polled.is_pending() {
                decode.park(&mut transport.read_buf);
            }
            ready!(polled)?;
            let bytes = buf.filled().len() - before;
            if bytes == 0 {
                decode.end_of_stream(parser, &transport.read_buf)?;
            }
            decode.record_direct(bytes);
            Poll::Ready(Ok(()))
        })
    }

    fn poll_in_time<R>(
        &mut self,
        cx: &mut Context<'_>,
        receive: impl FnOnce(
            &mut BlockTransport<T, F, E>,
            &mut Context<'_>,
        ) -> Poll<Result<R, BlockError>>,
    ) -> Poll<io::Result<R>> {
        if let Some(error) = self.transport.codec.decode.failure() {
            return Poll::Ready(Err(error.into()));
        }
        let polled = self.transport.without_end_after_error(|transport| {
            // As a stream, because tokio's futures do not tell the reader when they are dropped.
            transport.poll_receiving(Waiter::Stream, cx, |transport, cx| {
                match transport.is_late() {
                    true => Poll::Pending, // `poll_receiving` reports it
                    false => receive(transport, cx),
                }
            })
        });
        polled.map_err(io::Error::from)
    }
}

impl<T, F, E> AsyncRead for BlockReader<'_, T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let is_buffered = !this.transport.read_buffer().is_empty();
        let wanted = this.remaining().min(buf.remaining() as u64);
        if !is_buffered && wanted >= LEAST_DIRECT as u64 {
            return this.poll_direct(cx, buf);
        }
        if wanted == 0 {
            return Poll::Ready(Ok(()));
        }
        let bytes = ready!(this.poll_part(cx))?.min(buf.remaining());
        let BlockTransport {
            codec, read_buf, ..
        } = &mut *this.transport;
        buf.put_slice(&read_buf[..bytes]);
        codec.decode.take_part(bytes, read_buf);
        Poll::Ready(Ok(()))
    }
}

impl<T, F, E> AsyncBufRead for BlockReader<'_, T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        let bytes = ready!(this.poll_part(cx))?;
        Poll::Ready(Ok(&this.transport.read_buf[..bytes]))
    }

    /// # Panics
    ///
    /// If `bytes` is more than [`poll_fill_buf`](Self::poll_fill_buf) has returned.
    fn consume(self: Pin<&mut Self>, bytes: usize) {
        let BlockTransport {
            codec, read_buf, ..
        } = &mut *self.get_mut().transport;
        let part = codec.decode.buffered_part(read_buf);
        assert!(bytes <= part, "{bytes} bytes of {part} are consumed");
        codec.decode.take_part(bytes, read_buf);
    }
}

impl<T, F, E> Drop for BlockReader<'_, T, F, E> {
    fn drop(&mut self) {
        self.transport.pause();
    }
}

impl<T, F, E> fmt::Debug for BlockReader<'_, T, F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockReader")
            .field("len", &self.len)
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

opaque_debug! { RecvReader<T, F, E> }
