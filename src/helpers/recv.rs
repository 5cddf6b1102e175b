//! Receiving a number of blocks from any stream of them.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tracing::{Span, debug, debug_span};

use super::over::BlockStream;
use crate::{
    error::{BlockError, Direction},
    read::{Position, ReadStats},
    stats::TransferStats,
    timeout::Timeouts,
};

/// Receives blocks and counts them. You can set a number to stop after, a number to require, and
/// timeouts, and read statistics.
///
/// Works on any [`BlockStream`]: a [`BlockTransport`](crate::BlockTransport), or `Framed` or
/// `FramedRead` with a [`BlockCodec`](crate::BlockCodec). You can mix it with `stream.next()` at will,
/// because it takes blocks from the same `Stream`. For many small blocks,
/// [`BlockTransport::recv`](crate::BlockTransport::recv) is faster.
///
/// ```
/// # use wholeblock::{BlockCodec, BlockError, BlockTransport, recv_blocks};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BlockError> {
/// let wire = &b"\0\0\0\x05hello\0\0\0\x02me"[..]; // or a socket
/// let mut transport = BlockTransport::new(wire, BlockCodec::length_prefixed());
/// let mut text = String::new();
/// let mut blocks = recv_blocks(&mut transport);
/// while let Some(block) = blocks.next().await? {
///     text.push_str(&String::from_utf8_lossy(block)); // block: &[u8]
/// }
/// assert_eq!((text.as_str(), blocks.stats().blocks), ("hellome", 2));
/// # Ok(())
/// # }
/// ```
pub fn recv_blocks<R: BlockStream>(stream: &mut R) -> RecvBlocks<'_, R> {
    let decoder = stream.decode_state();
    RecvBlocks {
        start: (decoder.position(), decoder.read_stats()),
        stream,
        block: None,
        blocks: 0,
        payload_bytes: 0,
        stop_after: u64::MAX,
        at_least: 0,
        end_is_doubtful: true,
        timeouts: None,
        receives: false,
        plain_until: 0,
        started: None,
        took: None,
        span: debug_span!("recv_blocks"),
    }
}

/// A receiver of blocks; made by [`recv_blocks`].
///
/// # Cancel safety
///
/// You can drop the receiver and the future of [`next`](Self::next) at any time. A block that was not
/// returned stays in the stream, whole or in part, and is its next block.
#[must_use = "nothing is received until `next` is called"]
pub struct RecvBlocks<'a, R: BlockStream> {
    stream: &'a mut R,
    /// The block that the caller has borrowed.
    block: Option<BytesMut>,
    blocks: u64,
    payload_bytes: u64,
    stop_after: u64,
    at_least: u64,
    /// True if the next `None` may be due to an error, and not to the end of the stream.
    end_is_doubtful: bool,
    timeouts: Option<Box<Timeouts>>,
    /// The codec's position and statistics when this was made.
    start: (Position, ReadStats),
    /// False before the first wait, and after an end, an error or a stop.
    receives: bool,
    /// Blocks with a lower index need only be counted, because there are no timeouts and no span.
    plain_until: u64,
    started: Option<Instant>,
    /// Time from the first wait to the end, an error or a stop. None while more is received.
    took: Option<Duration>,
    span: Span,
}

impl<'a, R: BlockStream> RecvBlocks<'a, R> {
    /// Stops after `blocks` blocks in all, and reads no further. What has arrived beyond them stays in the
    /// stream for the next reader, or for this receiver if you raise the number.
    ///
    /// ```
    /// # use futures::{StreamExt, stream};
    /// # use wholeblock::{BlockCodec, BlockTransport, recv_blocks, send_blocks};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (near, far) = tokio::io::duplex(1024);
    /// # let mut near = BlockTransport::new(near, BlockCodec::length_prefixed());
    /// # let mut transport = BlockTransport::new(far, BlockCodec::length_prefixed());
    /// # send_blocks(&mut near, stream::iter(["one", "two", "three"])).await?;
    /// // "one", "two" and "three" have arrived
    /// let mut two = recv_blocks(&mut transport).stop_after(2);
    /// while let Some(block) = two.next().await? {
    ///     assert_eq!(block.len(), 3);
    /// }
    /// assert_eq!(two.stats().blocks, 2);
    /// drop(two);
    /// assert_eq!(transport.next().await.expect("the third")?, "three");
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop_after(mut self, blocks: u64) -> Self {
        self.stop_after = blocks;
        self.plain_until = 0;
        self
    }

    /// Requires `blocks` blocks: if the stream ends earlier, even between two blocks, `next` returns
    /// [`BlockError::TooFew`].
    ///
    /// This has no effect if [`stop_after`](Self::stop_after) stops the receiver earlier, because the
    /// stream has not ended then.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport, recv_blocks};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), wholeblock::ConfigError> {
    /// let mut transport = BlockTransport::new(&b"onetwo"[..], BlockCodec::exact(3)?);
    /// let mut blocks = recv_blocks(&mut transport).at_least(3);
    /// assert!(matches!(blocks.next().await, Ok(Some(b"one"))));
    /// assert!(matches!(blocks.next().await, Ok(Some(b"two"))));
    /// let error = blocks.next().await.unwrap_err();
    /// assert_eq!(error.to_string(), "stream ended after 2 of 3 blocks");
    /// # Ok(())
    /// # }
    /// ```
    pub fn at_least(mut self, blocks: u64) -> Self {
        self.at_least = blocks;
        self
    }

    /// Sets a stall timeout: `next` returns [`BlockError::Stalled`] if no bytes arrive for `timeout`. The
    /// receiver remains usable: call `next` again to keep waiting.
    ///
    /// A wait begins at the first poll of a future of `next`, and ends when bytes arrive or the future is
    /// dropped. The time counts even if nobody polls the future. Everything that has arrived is read before
    /// the error is returned.
    ///
    /// If you drop a future before any bytes arrive, its wait counts towards the next one. So does the gap
    /// between them: at most half the timeout or a second, whichever is less. So a `select!` loop that makes
    /// a new `next()` each turn stalls as one long wait does, and a longer pause between two waits does not
    /// use up the timeout.
    ///
    /// On a thread that is busy with other tasks, the error comes late, as with `tokio::time::timeout`. A
    /// new timeout also applies to a wait that has begun.
    ///
    /// If a [`BlockTransport`](crate::BlockTransport) has a timeout of its own, the shorter one applies.
    /// Without either, `next` waits for a silent peer without limit. A peer that sends a byte now and then
    /// is not silent. Set a [`block_deadline`](Self::block_deadline) against that.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tokio::io::AsyncWriteExt;
    /// # use wholeblock::{BlockCodec, BlockTransport, recv_blocks};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> std::io::Result<()> {
    /// # let (mut peer, far) = tokio::io::duplex(64);
    /// # let mut transport = BlockTransport::new(far, BlockCodec::length_prefixed());
    /// let mut blocks = recv_blocks(&mut transport)
    ///     .stall_timeout(Duration::from_secs(60)) // silent, between blocks or inside one
    ///     .block_deadline(Duration::from_secs(10)); // begun, but incomplete
    ///
    /// let stalled = blocks.next().await.unwrap_err();
    /// assert_eq!(stalled.to_string(), "nothing arrived for 60s at block 0, which begins at byte 0");
    /// peer.write_all(b"\0\0\0\x05hell").await?; // and no more
    /// let late = blocks.next().await.unwrap_err();
    /// assert_eq!(
    ///     late.to_string(),
    ///     "block 0, which begins at byte 0, took longer than 10s to arrive",
    /// );
    /// peer.write_all(b"o").await?;
    /// assert_eq!(blocks.next().await?, Some(&b"hello"[..])); // still usable
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Waiting panics outside a tokio runtime, and in one without a time driver.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts_mut().set_stall(Some(timeout));
        self
    }

    /// Sets a block deadline: `next` returns [`BlockError::Late`] if a block is incomplete `deadline` after
    /// its first bytes, even if bytes keep arriving. The receiver remains usable: call `next` again to give
    /// the block the same time once more.
    ///
    /// The clock starts when a read leaves only a part of a block in the buffer, and also runs between
    /// calls. A block that a read completes is returned, however late. The time between two blocks is
    /// limited by [`stall_timeout`](Self::stall_timeout) only.
    ///
    /// The receiver checks the deadline only when a read must wait, or when the task's budget is spent,
    /// which takes up to 128 reads. Over a `Framed` whose transport spends no budget and always has bytes
    /// ready, no block is ever late. The
    /// [deadline of a `BlockTransport`](crate::BlockTransport::block_deadline) is checked after each read.
    /// If both are set, the shorter one applies.
    ///
    /// # Panics
    ///
    /// As [`stall_timeout`](Self::stall_timeout), whose example shows both.
    pub fn block_deadline(mut self, deadline: Duration) -> Self {
        self.timeouts_mut().set_block(Some(deadline));
        self
    }

    fn timeouts_mut(&mut self) -> &mut Timeouts {
        self.plain_until = 0;
        self.timeouts.get_or_insert_with(Box::default)
    }

    /// Returns the next block, borrowed until the next call. `None` at a clean end, or after
    /// [`stop_after`](Self::stop_after) blocks.
    ///
    /// # Errors
    ///
    /// Any [`BlockError`] of receiving. After an error about the blocks themselves or their
    /// [number](Self::at_least), each call returns it again. After any other error, the next call goes on.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    #[expect(
        clippy::should_implement_trait,
        reason = "a block is lent, which an `Iterator` cannot do"
    )]
    #[inline]
    pub fn next(&mut self) -> Next<'_, 'a, R> {
        Next {
            receiver: Some(self),
        }
    }

    /// Returns the statistics so far.
    #[must_use]
    pub fn stats(&self) -> TransferStats {
        let decoder = self.stream.decode_state();
        let (position, reads) = (decoder.position(), decoder.read_stats());
        let (first_position, first_reads) = self.start;
        let running = self.started.map_or(Duration::ZERO, |since| since.elapsed());
        TransferStats {
            blocks: self.blocks,
            payload_bytes: self.payload_bytes,
            wire_bytes: position.offset - first_position.offset,
            reads: reads.reads - first_reads.reads,
            fragmented_blocks: reads.fragmented_blocks - first_reads.fragmented_blocks,
            skipped_blocks: reads.skipped_blocks - first_reads.skipped_blocks,
            elapsed: self.took.unwrap_or(running),
            ..TransferStats::default()
        }
    }

    /// Receives a block into `self.block`, if there is one.
    #[inline]
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), R::Error>> {
        self.block = None; // the stream can then use its memory again
        if self.blocks >= self.plain_until {
            return self.poll_slow(cx);
        }
        match self.stream.poll_block(cx) {
            Poll::Ready(Some(Ok(block))) => {
                self.keep(block);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(end) => Poll::Ready(self.ended(end.and_then(Result::err))),
            Poll::Pending => Poll::Pending,
        }
    }

    #[inline]
    fn keep(&mut self, block: BytesMut) {
        self.blocks += 1;
        self.payload_bytes += block.len() as u64;
        self.block = Some(block);
    }

    /// As [`poll_block`](Self::poll_block), with the number to stop after, timeouts and span.
    #[cold]
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), R::Error>> {
        if !self.receives || self.blocks >= self.stop_after {
            if let Some(end) = self.start() {
                return Poll::Ready(end);
            }
        }
        let span = (!self.span.is_disabled()).then(|| self.span.clone().entered());
        let polled = ready!(self.poll_stream(cx));
        drop(span);
        match polled {
            Some(Ok(block)) => {
                self.keep(block);
                self.took = None; // there was more after an end or a stop
                if self.timeouts.is_none() && self.span.is_disabled() {
                    self.plain_until = self.stop_after;
                }
                Poll::Ready(Ok(()))
            }
            end => Poll::Ready(self.ended(end.and_then(Result::err))),
        }
    }

    #[cold]
    fn ended(&mut self, error: Option<R::Error>) -> Result<(), R::Error> {
        match error {
            Some(error) => Err(self.failed(error)),
            None => self.end(),
        }
    }

    /// Begins to receive, or goes on after an end, an error or a stop. Returns a result if there is no block
    /// to wait for.
    #[cold]
    fn start(&mut self) -> Option<Result<(), R::Error>> {
        if self.blocks >= self.stop_after {
            self.finish(None);
            return Some(Ok(()));
        }
        if self.started.is_none() {
            let _entered = self.span.clone().entered();
            self.started = Some(Instant::now());
            debug!("receiving");
        }
        if let Some(error) = self.stream.decode_state().failure() {
            // A `Framed` would read on after this, and wait for bytes that nobody wants.
            return Some(Err(self.failed(error.into())));
        }
        if self.end_is_doubtful {
            self.took = None; // after an error, or at the first wait
        }
        self.receives = true;
        None
    }

    /// Polls the stream within the timeouts.
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<BytesMut, R::Error>>> {
        let Some(timeouts) = &mut self.timeouts else {
            return poll_certain(self.stream, &mut self.end_is_doubtful, cx);
        };
        let arrived = |stream: &R| (stream.decode_state().read_stats().reads, stream.buffered());
        let before = arrived(self.stream);
        let polled = poll_certain(self.stream, &mut self.end_is_doubtful, cx);
        if polled.is_ready() {
            timeouts.reset();
            return polled;
        }
        // A `Framed` made of parts reads once before it asks the decoder, so the decoder counts no read.
        let moved = arrived(self.stream) != before;
        let decoder = self.stream.decode_state();
        let partial = decoder.partial(self.stream.buffered());
        let expired = ready!(timeouts.poll_expired(cx, partial, moved));
        let Position { index, offset } = decoder.position();
        self.pause(); // the wait is over, and its time counts towards the stall timeout
        Poll::Ready(Some(Err(expired
            .at(Direction::Receiving, index, offset)
            .into())))
    }

    /// Ends receiving, with an error if blocks are missing.
    fn end(&mut self) -> Result<(), R::Error> {
        if self.blocks < self.at_least {
            let error = BlockError::TooFew {
                expected: self.at_least,
                received: self.blocks,
            };
            return Err(self.failed(error.into()));
        }
        self.finish(None);
        Ok(())
    }

    fn failed(&mut self, error: R::Error) -> R::Error {
        self.end_is_doubtful = true;
        self.finish(Some(&error));
        error
    }

    fn finish(&mut self, error: Option<&R::Error>) {
        (self.receives, self.plain_until) = (false, 0);
        let _entered = self.span.clone().entered();
        if let (Some(since), None) = (self.started, self.took) {
            self.took = Some(since.elapsed());
            let stats = self.stats();
            match error {
                None => debug!(%stats, "received"),
                Some(error) => debug!(%stats, %error, "receiving failed"),
            }
        }
    }

    /// Ends the wait of a future that was dropped.
    fn pause(&mut self) {
        self.stream.pause();
        if let Some(timeouts) = &mut self.timeouts {
            timeouts.pause();
        }
    }
}

/// Polls the stream. If `doubtful`, polls again after a `None`, because a `Framed` yields one after an
/// error although it has not ended.
fn poll_certain<R: BlockStream>(
    stream: &mut R,
    doubtful: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<BytesMut, R::Error>>> {
    let polled = ready!(stream.poll_block(cx));
    if polled.is_none() && mem::take(doubtful) {
        return stream.poll_block(cx);
    }
    *doubtful = false;
    Poll::Ready(polled)
}

impl<R: BlockStream> Drop for RecvBlocks<'_, R> {
    fn drop(&mut self) {
        self.finish(None);
    }
}

impl<R: BlockStream> fmt::Debug for RecvBlocks<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBlocks")
            .field("stats", &self.stats())
            .field("stop_after", &self.stop_after)
            .field("at_least", &self.at_least)
            .finish_non_exhaustive()
    }
}

/// The future of [`RecvBlocks::next`].
#[must_use = "nothing is received until this is awaited"]
pub struct Next<'n, 'a, R: BlockStream> {
    /// None once the future is ready.
    receiver: Option<&'n mut RecvBlocks<'a, R>>,
}

impl<'n, R: BlockStream> Future for Next<'n, '_, R> {
    type Output = Result<Option<&'n [u8]>, R::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let receiver = self.receiver.take().expect("not polled after it was ready");
        match receiver.poll_block(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(receiver.block.as_deref())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.receiver = Some(receiver);
                Poll::Pending
            }
        }
    }
}

impl<R: BlockStream> Drop for Next<'_, '_, R> {
    #[inline]
    fn drop(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            receiver.pause();
        }
    }
}

impl<R: BlockStream> fmt::Debug for Next<'_, '_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}
