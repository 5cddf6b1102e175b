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
use futures::{Sink, Stream};
use tokio::io::AsyncWrite;
use tracing::{Span, debug, debug_span};

use self::source::Source;
use super::over::BlockSink;
use crate::{
    error::{BlockError, Direction},
    payload::Payload,
    read::Position,
    stats::TransferStats,
    timeout::Timeouts,
    write::{BlockLengths, BlockWriter},
};

/// The error of a transfer through `W`.
type ErrorOf<W> = <W as Sink<Bytes>>::Error;

/// Sends every block of `source`. Many blocks go out in one system call, large payloads without a copy.
///
/// Works on any [`BlockSink`]: a [`BlockTransport`](crate::BlockTransport), or `Framed` or
/// `FramedWrite` with a `BlockCodec`. The items of `source` are any [`Payload`]: `Bytes`,
/// `BytesMut`, `Vec<u8>`, `String`, `&[u8]` …, or a tuple, an array or a `Vec` of these, which is one
/// block. For a source that can fail, use [`try_send_blocks`].
///
/// The future returns the [`TransferStats`] once the transport has taken and flushed everything. The
/// transport stays open.
///
/// ```
/// # use futures::{StreamExt, stream};
/// # use tokio_util::codec::Framed;
/// # use wholeblock::{BlockCodec, BlockError, send_blocks};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BlockError> {
/// # let (near, far) = tokio::io::duplex(4096);
/// # let mut sink = Framed::new(near, BlockCodec::length_prefixed());
/// let sent = send_blocks(&mut sink, stream::iter([vec![1; 500], vec![2; 700]])).await?;
/// assert_eq!((sent.blocks, sent.payload_bytes), (2, 1_200));
/// # Ok(())
/// # }
/// ```
///
/// With a channel, many tasks can send. Tokio's channel is no `Stream` itself:
///
/// ```
/// # use bytes::Bytes;
/// # use futures::stream;
/// # use wholeblock::{BlockCodec, BlockError, BlockTransport, send_blocks};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BlockError> {
/// # let mut transport = BlockTransport::new(vec![], BlockCodec::length_prefixed());
/// let (queue, mut queued) = tokio::sync::mpsc::channel(64);
/// for name in ["one", "two"] {
///     let queue = queue.clone();
///     tokio::spawn(async move { queue.send(Bytes::from(name)).await });
/// }
/// drop(queue); // the transfer ends when the last clone is dropped
/// let source = stream::poll_fn(|cx| queued.poll_recv(cx));
/// let sent = send_blocks(&mut transport, source).await?;
/// assert_eq!((sent.blocks, sent.payload_bytes), (2, 6));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The future returns a [`BlockError`] if the framing does not carry a block, if the transport fails, or
/// if a timeout is set and is over. All blocks before a refused one are sent first. If many tasks send
/// through a channel, a block that is refused ends the transfer for all of them: compare lengths with
/// [`max_encode_len`](crate::BlockCodec::max_encode_len) before you queue blocks.
///
/// # Cancel safety
///
/// If the future is dropped, every block taken from `source` has been written, or is queued in `sink`,
/// whole or in part. The next flush writes what is queued. (If the future is leaked with `mem::forget`,
/// what it has queued for a `Framed` is lost. A `BlockTransport` keeps it.)
pub fn send_blocks<W, S>(sink: &mut W, source: S) -> SendBlocks<'_, W, impl Source>
where
    W: BlockSink,
    S: Stream<Item: Payload>,
{
    SendBlocks::new(sink, Infallible(Box::pin(source)))
}

/// As [`send_blocks`], from a source that can fail. Its first error ends the transfer with
/// [`BlockError::Source`], after the blocks before it have been sent.
///
/// ```
/// # use std::io;
/// # use futures::stream;
/// # use wholeblock::{BlockCodec, BlockError, BlockTransport, try_send_blocks};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let (near, _far) = tokio::io::duplex(4096);
/// # let mut transport = BlockTransport::new(near, BlockCodec::length_prefixed());
/// let source = [Ok("one"), Ok("two"), Err(io::Error::other("disk on fire")), Ok("four")];
/// let mut sending = try_send_blocks(&mut transport, stream::iter(source));
/// let error = (&mut sending).await.unwrap_err();
/// assert!(matches!(error, BlockError::Source(_)));
/// assert_eq!(sending.stats().blocks, 2);
/// # }
/// ```
pub fn try_send_blocks<W, S, B, E>(sink: &mut W, source: S) -> SendBlocks<'_, W, impl Source>
where
    W: BlockSink,
    S: Stream<Item = Result<B, E>>,
    B: Payload,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    SendBlocks::new(sink, Fallible(Box::pin(source)))
}

/// A transfer; made by [`send_blocks`] and [`try_send_blocks`], and run by awaiting it.
///
/// To know after a failure how much was sent, await `&mut sending` and then call
/// [`stats`](Self::stats). A transfer that has failed cannot go on: awaiting it again returns an
/// [`Io`](BlockError::Io) error that says so.
///
/// ```
/// # use std::time::Duration;
/// # use futures::stream;
/// # use wholeblock::{BlockCodec, BlockError, BlockTransport, send_blocks};
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (near, _silent) = tokio::io::duplex(10); // takes 10 bytes, which nobody reads
/// let mut transport = BlockTransport::new(near, BlockCodec::length_prefixed());
/// let mut sending = send_blocks(&mut transport, stream::iter(["hello", "me"]))
///     .stall_timeout(Duration::from_secs(60));
/// let error = (&mut sending).await.unwrap_err();
/// assert_eq!(error.to_string(), "nothing could be written for 60s at block 1, which begins at byte 9");
/// assert_eq!(sending.stats().blocks, 1); // "hello", and a byte of the next header
/// # }
/// ```
#[must_use = "nothing is sent until this is awaited"]
pub struct SendBlocks<'a, W: BlockSink, S> {
    sink: &'a mut W,
    source: S,
    state: State,
    /// The writer that queues blocks, unless `sink` has its own.
    writer: BlockWriter,
    /// Lengths of this transfer's queued blocks.
    lengths: BlockLengths,
    /// True once everything that was queued before this transfer is written.
    is_first: bool,
    /// Position of the transfer's first block on the connection.
    start: Position,
    timeouts: Timeouts,
    /// The statistics so far, without `elapsed`.
    stats: TransferStats,
    started: Option<Instant>,
    /// Time from the first poll to the end. None until the transfer is over.
    took: Option<Duration>,
    span: Span,
}

/// The state of a transfer: most often the last answer of its source.
#[derive(Debug)]
enum State {
    /// The source may have more.
    Ready,
    /// The source has nothing yet.
    Pending,
    /// The source has ended; its last blocks may still be queued.
    Ended,
    /// The source failed, or gave a block that cannot be sent. Reported once the blocks before are sent.
    Failing(BlockError),
    /// A failure was reported.
    Failed,
}

impl<'a, W, S> SendBlocks<'a, W, S>
where
    W: BlockSink,
    S: Source,
{
    fn new(sink: &'a mut W, source: S) -> Self {
        let mut writer = BlockWriter::default();
        let (codec, queue) = sink.encode_parts(&mut writer);
        codec.count_encoded(queue.take_uncounted());
        let start = codec.encoded();
        let mut timeouts = Timeouts::default();
        timeouts.set_stall(sink.write_timeout());
        Self {
            sink,
            source,
            state: State::Ready,
            start,
            writer,
            lengths: BlockLengths::default(),
            is_first: false,
            timeouts,
            stats: TransferStats::default(),
            started: None,
            took: None,
            span: debug_span!("send_blocks"),
        }
    }

    fn poll_transfer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ErrorOf<W>>> {
        if let State::Failed = self.state {
            let error = io::Error::other("this transfer has failed before");
            return Poll::Ready(Err(error.into()));
        }
        if !self.is_first {
            ready!(self.poll_held(cx))?;
            self.timeouts.forget_block();
            self.is_first = true;
        }
        loop {
            self.fill(cx);
            if !self.sink.write_parts(&mut self.writer).1.is_empty() {
                ready!(self.poll_write(cx))?;
                continue;
            }
            ready!(self.poll_flush(cx))?;
            match mem::replace(&mut self.state, State::Failed) {
                State::Failing(error) => return Poll::Ready(Err(error.into())),
                other => self.state = other,
            }
            match self.state {
                State::Pending => return Poll::Pending,
                State::Ended => return Poll::Ready(Ok(())),
                _ => {}
            }
        }
    }

    /// Writes what was queued before this transfer. It goes first, and does not count as sent.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ErrorOf<W>>> {
        let held = self.sink.held();
        if held == 0 {
            return Poll::Ready(Ok(()));
        }
        let flushed = self.sink.poll_held(cx);
        let moved = self.sink.held() < held;
        self.or_expired(flushed, Some(self.stats.blocks), moved, cx)
    }

    /// Queues what the source has ready, as far as there is room.
    fn fill(&mut self, cx: &mut Context<'_>) {
        let vectored = self
            .sink
            .write_parts(&mut self.writer)
            .0
            .is_write_vectored();
        let (codec, writer) = self.sink.encode_parts(&mut self.writer);
        let lengths = &mut self.lengths;
        while let State::Ready | State::Pending = self.state {
            if !writer.has_capacity() || lengths.is_full() {
                return;
            }
            let queue = |block| codec.queue(block, vectored, writer, |len| lengths.push(len));
            self.state = match self.source.poll_block(cx, queue) {
                Poll::Ready(Some(Ok(()))) => continue,
                Poll::Ready(Some(Err(error))) => State::Failing(error),
                Poll::Ready(None) => State::Ended,
                Poll::Pending => State::Pending,
            };
            break;
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ErrorOf<W>>> {
        ready!(self.sink.encode_parts(&mut self.writer).0.poll_charge(cx));
        let (io, writer) = self.sink.write_parts(&mut self.writer);
        let (lengths, stats) = (&mut self.lengths, &mut self.stats);
        let polled = writer.poll_write_and(io, cx, |bytes| {
            let written = lengths.complete(bytes);
            stats.writes += 1;
            stats.blocks += written.blocks;
            stats.payload_bytes += written.payload_bytes;
            stats.wire_bytes += written.wire_bytes;
        });
        let first = Some(self.stats.blocks);
        ready!(self.or_expired(polled.map_err(From::from), first, false, cx))?;
        let is_empty = self.sink.write_parts(&mut self.writer).1.is_empty();
        let first = (!is_empty).then_some(self.stats.blocks);
        if self.timeouts.block_is_late(first) {
            return self.or_expired(Poll::Pending, first, true, cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ErrorOf<W>>> {
        let (io, writer) = self.sink.write_parts(&mut self.writer);
        let polled = writer.poll_flush(io, cx).map_err(From::from);
        self.or_expired(polled, None, false, cx)
    }

    /// Returns `polled`, the transport's answer. While that is pending, returns an error once the
    /// stall timeout is over, or the deadline of block `first`, which is not wholly written.
    fn or_expired<T>(
        &mut self,
        polled: Poll<Result<T, ErrorOf<W>>>,
        first: Option<u64>,
        moved: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, ErrorOf<W>>> {
        if let Poll::Ready(result) = polled {
            self.timeouts.reset();
            if result.is_err() {
                self.state = State::Failed;
            }
            return Poll::Ready(result);
        }
        let TransferStats {
            blocks, wire_bytes, ..
        } = self.stats;
        let expired = self.timeouts.poll_expired(cx, first, moved);
        let Position { index, offset } = self.start;
        expired.map(|expired| {
            Err(expired
                .at(Direction::Sending, index + blocks, offset + wire_bytes)
                .into())
        })
    }
}

impl<W: BlockSink, S> SendBlocks<'_, W, S> {
    /// Sets a stall timeout: the transfer returns [`BlockError::Stalled`] if the transport takes no bytes
    /// for `timeout`. The transfer remains usable: await it again to keep waiting. See the example
    /// [above](Self).
    ///
    /// The clock starts when a write or a flush must wait, and stops when the transport takes bytes. It also
    /// runs while nobody polls the transfer, because the peer can read then, too. The transport is tried
    /// once more before the error is returned. Time spent waiting for the source does not count.
    ///
    /// On a thread that is busy with other tasks, the error comes late, as with `tokio::time::timeout`.
    ///
    /// The default is the [`write_timeout`](crate::BlockTransport::write_timeout) of the
    /// [`BlockTransport`](crate::BlockTransport). Without either, the transfer waits without limit for a
    /// peer that does not read. A peer that reads slowly may never stall: set a
    /// [`block_deadline`](Self::block_deadline) against that. Over a socket, it can also stall while it
    /// reads: [`write_timeout`](crate::BlockTransport::write_timeout) says when.
    ///
    /// # Panics
    ///
    /// Waiting panics outside a tokio runtime, and in one without a time driver.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.set_stall(Some(timeout));
        self
    }

    /// Sets a block deadline: the transfer returns [`BlockError::Late`] if the transport does not take a
    /// whole block within `deadline`. The transfer remains usable: await it again to give the block the
    /// same time once more.
    ///
    /// A block's clock starts when the block is the first in the queue, so the blocks before it do not
    /// count. It stops when the transport has taken the block's last byte. It also runs while nobody polls
    /// the transfer. What was queued before the transfer counts as one block, with the index and offset of
    /// the transfer's first.
    ///
    /// Time spent waiting for the source does not count. A flush of the transport has no deadline:
    /// [`stall_timeout`](Self::stall_timeout) limits it.
    ///
    /// # Panics
    ///
    /// Waiting panics outside a tokio runtime, and in one without a time driver.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use futures::stream;
    /// # use tokio::{io::AsyncReadExt, time::sleep};
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport, send_blocks};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let (near, mut far) = tokio::io::duplex(4); // holds 4 bytes
    /// tokio::spawn(async move {
    ///     while far.read_u8().await.is_ok() {
    ///         sleep(Duration::from_secs(59)).await;
    ///     }
    /// });
    /// let mut transport = BlockTransport::new(near, BlockCodec::length_prefixed());
    /// let error = send_blocks(&mut transport, stream::iter(["hello"])) // 9 bytes with its header
    ///     .stall_timeout(Duration::from_secs(60)) // never: the peer reads a byte every 59 s
    ///     .block_deadline(Duration::from_secs(120))
    ///     .await
    ///     .unwrap_err();
    /// assert_eq!(error.to_string(), "block 0, which begins at byte 0, took longer than 120s to be sent");
    /// # }
    /// ```
    pub fn block_deadline(mut self, deadline: Duration) -> Self {
        self.timeouts.set_block(Some(deadline));
        self
    }

    /// Sets the length of a full write in bytes, as [`BlockTransport::write_len`] does. A `BlockTransport`
    /// keeps the setting after the transfer.
    ///
    /// [`BlockTransport::write_len`]: crate::BlockTransport::write_len
    pub fn write_len(mut self, bytes: usize) -> Self {
        let (_, writer) = self.sink.write_parts(&mut self.writer);
        writer.set_write_len(bytes);
        self
    }

    /// Returns what the transport has taken so far, in whole blocks.
    #[must_use]
    pub fn stats(&self) -> TransferStats {
        let running = self.started.map_or(Duration::ZERO, |since| since.elapsed());
        TransferStats {
            elapsed: self.took.unwrap_or(running),
            ..self.stats
        }
    }
}

impl<W, S> Future for SendBlocks<'_, W, S>
where
    W: BlockSink,
    S: Source,
{
    type Output = Result<TransferStats, ErrorOf<W>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _entered = self.span.clone().entered();
        let started = *self.started.get_or_insert_with(|| {
            debug!("sending");
            Instant::now()
        });
        let result = ready!(self.poll_transfer(cx));
        if result.is_ok() || matches!(self.state, State::Failed) {
            self.took.get_or_insert_with(|| started.elapsed());
        }
        let stats = self.stats();
        match &result {
            Ok(()) => debug!(%stats, "sent"),
            Err(error) => debug!(%stats, %error, "sending failed"),
        }
        Poll::Ready(result.map(|()| stats))
    }
}

impl<W: BlockSink, S> Drop for SendBlocks<'_, W, S> {
    fn drop(&mut self) {
        let (codec, queue) = self.sink.encode_parts(&mut self.writer);
        codec.count_encoded(queue.take_uncounted());
        self.sink.keep(&self.writer);
    }
}

impl<W: BlockSink, S> fmt::Debug for SendBlocks<'_, W, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBlocks")
            .field("stats", &self.stats())
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// The sources of blocks.
///
/// A source passes each block to a callback and does not return it. Moving the block in a `Result` takes
/// as long as everything else that is done for a small block.
mod source {
    use super::{BlockError, Context, Payload, Poll};

    pub trait Source: Unpin {
        type Block: Payload;

        fn poll_block(
            &mut self,
            cx: &mut Context<'_>,
            take: impl FnOnce(Self::Block) -> Result<(), BlockError>,
        ) -> Poll<Option<Result<(), BlockError>>>;
    }
}

/// A stream of blocks that cannot fail.
struct Infallible<S>(Pin<Box<S>>);

impl<S: Stream<Item: Payload>> Source for Infallible<S> {
    type Block = S::Item;

    #[inline]
    fn poll_block(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(S::Item) -> Result<(), BlockError>,
    ) -> Poll<Option<Result<(), BlockError>>> {
        let block = ready!(self.0.as_mut().poll_next(cx));
        Poll::Ready(block.map(take))
    }
}

/// A stream of blocks that can fail.
struct Fallible<S>(Pin<Box<S>>);

impl<S, B, E> Source for Fallible<S>
where
    S: Stream<Item = Result<B, E>>,
    B: Payload,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Block = B;

    fn poll_block(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(B) -> Result<(), BlockError>,
    ) -> Poll<Option<Result<(), BlockError>>> {
        let block = ready!(self.0.as_mut().poll_next(cx));
        Poll::Ready(block.map(|block| match block {
            Ok(block) => take(block),
            Err(error) => Err(BlockError::Source(error.into())),
        }))
    }
}
