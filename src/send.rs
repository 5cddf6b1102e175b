//! Sending a stream of blocks: a loop between the source and the writer.

use std::{
    error::Error,
    fmt,
    future::Future,
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::Stream;
use tokio::io::AsyncWrite;
use tracing::{Span, debug, debug_span};

use self::source::Source;
use crate::{AsFramedWrite, BlockError, TransferStats, stall::Stall, write::BlockWriter};

/// Sends every block of `source`, many in one system call, large payloads without a copy.
///
/// Works on any [`AsFramedWrite`]: `Framed` and `FramedWrite` with a `BlockCodec`. The items of
/// `source` are anything that becomes [`Bytes`] without copying: `Bytes`, `BytesMut`, `Vec<u8>`,
/// `String`, `&'static [u8]`. For a source that can fail, see [`try_send_blocks`].
///
/// Await it for the [`TransferStats`], once all has been handed to the transport and flushed. The
/// transport is left open.
///
/// ```
/// # use futures::{StreamExt, stream};
/// # use tokio_util::codec::Framed;
/// # use wholeblock::{BlockCodec, BlockError, send_blocks};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BlockError> {
/// # let (near, far) = tokio::io::duplex(4096);
/// # let mut framed = Framed::new(near, BlockCodec::length_prefixed());
/// let sent = send_blocks(&mut framed, stream::iter([vec![1; 500], vec![2; 700]])).await?;
/// assert_eq!((sent.blocks, sent.payload_bytes), (2, 1_200));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The future gives a [`BlockError`] for a block that its framing does not carry, a transport that
/// fails, or, if asked for, one that stalls. All blocks before a refused one are sent first.
///
/// # Cancel safety
///
/// If the future is dropped, every block taken from `source` is on the wire or, whole or its
/// unsent rest, in `framed`'s write buffer, and the next flush completes it. (Leaked instead of
/// dropped, with `mem::forget`, it takes what it has queued with it.)
pub fn send_blocks<W, S>(framed: &mut W, source: S) -> SendBlocks<'_, W, impl Source>
where
    W: AsFramedWrite,
    S: Stream<Item: Into<Bytes>>,
{
    SendBlocks::new(framed, Infallible(Box::pin(source)))
}

/// [`send_blocks`] from a source that can fail: its first error ends the transfer, after the
/// blocks before it have been sent, as [`BlockError::Source`].
pub fn try_send_blocks<W, S, B, E>(framed: &mut W, source: S) -> SendBlocks<'_, W, impl Source>
where
    W: AsFramedWrite,
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    SendBlocks::new(framed, Fallible(Box::pin(source)))
}

/// A transfer; made by [`send_blocks`] and [`try_send_blocks`], and run by awaiting it.
///
/// To know after a failure how much was sent, await `&mut sending` and then look at
/// [`stats`](Self::stats).
#[must_use = "nothing is sent until this is awaited"]
pub struct SendBlocks<'a, W: AsFramedWrite, S> {
    framed: &'a mut W,
    source: S,
    source_state: SourceState,
    writer: BlockWriter,
    stall: Stall,
    stats: TransferStats,
    started: Option<Instant>,
    span: Span,
}

/// What the source last answered.
#[derive(Debug)]
enum SourceState {
    Ready,
    Pending,
    Ended,
    /// It gave an error or a block that cannot be sent; reported once all before it is sent.
    Failed(BlockError),
    /// The failure was reported.
    Reported,
}

impl<'a, W, S> SendBlocks<'a, W, S>
where
    W: AsFramedWrite,
    S: Source,
{
    fn new(framed: &'a mut W, source: S) -> Self {
        Self {
            framed,
            source,
            source_state: SourceState::Ready,
            writer: BlockWriter::default(),
            stall: Stall::default(),
            stats: TransferStats::default(),
            started: None,
            span: debug_span!("send_blocks"),
        }
    }

    fn poll_transfer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BlockError>> {
        ready!(self.poll_write_buffer(cx))?;
        loop {
            self.fill(cx);
            if !self.writer.is_empty() {
                ready!(self.poll_write(cx))?;
                continue;
            }
            ready!(self.poll_flush(cx))?;
            match self.source_state {
                SourceState::Ready => {}
                SourceState::Pending => {
                    self.writer.shrink();
                    return Poll::Pending;
                }
                SourceState::Ended => return Poll::Ready(Ok(())),
                SourceState::Failed(_) | SourceState::Reported => {
                    return Poll::Ready(Err(self.source_failure()));
                }
            }
        }
    }

    /// The source's failure, or, once that has been given away, an error that says so: a transfer
    /// that failed never becomes one that succeeded.
    fn source_failure(&mut self) -> BlockError {
        match mem::replace(&mut self.source_state, SourceState::Reported) {
            SourceState::Failed(error) => error,
            _ => BlockError::Io(io::Error::other("this transfer has failed before")),
        }
    }

    /// Writes what the write buffer held before this transfer: it goes first.
    fn poll_write_buffer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BlockError>> {
        let held = self.framed.write_buffer_mut().len();
        if held == 0 {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut *self.framed).poll_flush(cx);
        if self.framed.write_buffer_mut().len() < held {
            self.stall.reset();
        }
        self.or_stalled(flushed, cx)
    }

    /// Takes what the source has ready, as far as there is room for it.
    fn fill(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.source_state, SourceState::Ready | SourceState::Pending) {
            return;
        }
        let vectored = self.framed.io_mut().is_write_vectored();
        let codec = self.framed.codec();
        let writer = &mut self.writer;
        self.source_state = loop {
            if !writer.has_capacity() {
                break SourceState::Ready;
            }
            let push = |block| writer.push(codec, block, vectored);
            match self.source.poll_block(cx, push) {
                Poll::Ready(Some(Ok(()))) => {}
                Poll::Ready(Some(Err(error))) => break SourceState::Failed(error),
                Poll::Ready(None) => break SourceState::Ended,
                Poll::Pending => break SourceState::Pending,
            }
        };
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BlockError>> {
        let polled = self.writer.poll_write(self.framed.io_mut(), cx);
        let written = ready!(self.or_stalled(polled.map_err(BlockError::Io), cx))?;
        self.stats.writes += 1;
        self.stats.blocks += written.blocks;
        self.stats.payload_bytes += written.payload_bytes;
        self.stats.wire_bytes += written.wire_bytes;
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BlockError>> {
        let polled = self.writer.poll_flush(self.framed.io_mut(), cx);
        self.or_stalled(polled.map_err(BlockError::Io), cx)
    }

    /// Returns `polled`; while that is pending, [`BlockError::Stalled`] once the timeout is over.
    fn or_stalled<T>(
        &mut self,
        polled: Poll<Result<T, BlockError>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, BlockError>> {
        if polled.is_ready() {
            self.stall.reset();
            return polled;
        }
        self.stall.poll_stalled(cx).map(|waited| {
            Err(BlockError::Stalled {
                waited,
                index: self.stats.blocks,
                offset: self.stats.wire_bytes,
            })
        })
    }
}

impl<W: AsFramedWrite, S> SendBlocks<'_, W, S> {
    /// Returns [`BlockError::Stalled`] if the transport takes no bytes for `timeout`. Time spent
    /// waiting for the source does not count. The transfer remains usable: await it again to keep
    /// waiting.
    ///
    /// Without one, a peer that does not read is waited for without limit.
    ///
    /// # Panics
    ///
    /// Waiting panics outside a tokio runtime with its time driver on.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall.set_timeout(timeout);
        self
    }

    /// What has been handed to the transport so far: whole blocks only.
    #[must_use]
    pub fn stats(&self) -> TransferStats {
        self.stats
    }
}

impl<W, S> Future for SendBlocks<'_, W, S>
where
    W: AsFramedWrite,
    S: Source,
{
    type Output = Result<TransferStats, BlockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _entered = self.span.clone().entered();
        let started = *self.started.get_or_insert_with(|| {
            debug!("sending");
            Instant::now()
        });
        let result = ready!(self.poll_transfer(cx));
        self.stats.elapsed = started.elapsed();
        let stats = self.stats;
        match &result {
            Ok(()) => debug!(%stats, "sent"),
            Err(error) => debug!(%stats, %error, "sending failed"),
        }
        Poll::Ready(result.map(|()| stats))
    }
}

impl<W: AsFramedWrite, S> Drop for SendBlocks<'_, W, S> {
    fn drop(&mut self) {
        self.writer.spill(self.framed.write_buffer_mut());
    }
}

impl<W: AsFramedWrite, S> fmt::Debug for SendBlocks<'_, W, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBlocks")
            .field("stats", &self.stats)
            .field("source", &self.source_state)
            .finish_non_exhaustive()
    }
}

/// Where blocks come from.
///
/// They are handed on and not returned: wrapping each in a `Result` and moving it about takes as
/// long as all else that is done for a small one.
mod source {
    use super::{BlockError, Bytes, Context, Poll};

    pub trait Source: Unpin {
        fn poll_block(
            &mut self,
            cx: &mut Context<'_>,
            take: impl FnOnce(Bytes) -> Result<(), BlockError>,
        ) -> Poll<Option<Result<(), BlockError>>>;
    }
}

/// A stream of blocks that cannot fail.
struct Infallible<S>(Pin<Box<S>>);

impl<S: Stream<Item: Into<Bytes>>> Source for Infallible<S> {
    #[inline]
    fn poll_block(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(Bytes) -> Result<(), BlockError>,
    ) -> Poll<Option<Result<(), BlockError>>> {
        let block = ready!(self.0.as_mut().poll_next(cx));
        Poll::Ready(block.map(|block| take(block.into())))
    }
}

/// A stream of blocks that can fail.
struct Fallible<S>(Pin<Box<S>>);

impl<S, B, E> Source for Fallible<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Into<Bytes>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    fn poll_block(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(Bytes) -> Result<(), BlockError>,
    ) -> Poll<Option<Result<(), BlockError>>> {
        let block = ready!(self.0.as_mut().poll_next(cx));
        Poll::Ready(block.map(|block| match block {
            Ok(block) => take(block.into()),
            Err(error) => Err(BlockError::Source(error.into())),
        }))
    }
}
