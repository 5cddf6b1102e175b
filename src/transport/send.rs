//! The sending half of a transport.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::Sink;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{BlockTransport, SendFrom};
use crate::{
    codec::BlockCodec,
    error::{BlockError, CodecError, Direction},
    framing::Framing,
    helpers::BlockSink,
    payload::Payload,
    read::Position,
    write::BlockWriter,
};

impl<T, F, E> BlockTransport<T, F, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
    /// Queues a block of any [`Payload`], in one piece or in several, and flushes.
    ///
    /// # Errors
    ///
    /// [`BlockError::WrongSize`] or [`BlockError::WrongHeader`] if the codec refuses the block, and any
    /// error of the transport.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped has queued the whole block or nothing. If you keep the future,
    /// [`SendBlock::into_payload`] tells which, and returns a payload that was not queued. So a retry
    /// sends nothing twice:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tokio::{io::AsyncReadExt, time::timeout};
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), BlockError> {
    /// let (near, mut far) = tokio::io::duplex(4); // holds 4 bytes
    /// let mut blocks = BlockTransport::new(near, BlockCodec::length_prefixed());
    /// let mut sending = blocks.send("hello"); // 9 bytes with its header
    /// assert!(timeout(Duration::from_secs(1), &mut sending).await.is_err());
    /// assert!(sending.into_payload().is_none()); // it is queued: the next flush sends the rest
    /// # let reading = tokio::spawn(async move {
    /// #     let mut all = [0; 9];
    /// #     far.read_exact(&mut all).await.map(|_| all)
    /// # });
    /// blocks.flush().await?;
    /// # assert_eq!(reading.await.unwrap()?, *b"\0\0\0\x05hello");
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn send<P>(&mut self, payload: P) -> SendBlock<'_, T, F, P, E>
    where
        P: Payload,
    {
        SendBlock {
            feed: self.feed(payload),
        }
    }

    /// Queues a block of any [`Payload`], in one piece or in several. Waits for the transport only if a
    /// whole write is queued: see [Sending](Self#sending).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send), with [`FeedBlock::into_payload`].
    #[inline]
    pub fn feed<P>(&mut self, payload: P) -> FeedBlock<'_, T, F, P, E>
    where
        P: Payload,
    {
        FeedBlock {
            transport: self,
            payload: Some(payload),
        }
    }

    /// Sends a block of `len` bytes from `source`, part by part, and flushes. Use it for a block that does
    /// not fit in memory, or comes from a file or another connection. Holds at most 64 KiB of the block.
    ///
    /// The source must end after `len` bytes; [`take`](tokio::io::AsyncReadExt::take) ends one that does
    /// not by itself. `tokio_util::io::StreamReader` makes a source of a stream of `Bytes`. While the
    /// source has nothing ready, the transport flushes what it has given, except the last byte. That byte
    /// is sent when the source has ended.
    ///
    /// The limit for whole blocks does not apply, only what the framing can announce.
    ///
    /// ```
    /// # use std::io;
    /// # use futures::stream;
    /// # use tokio::io::AsyncReadExt;
    /// # use tokio_util::io::StreamReader;
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BlockError> {
    /// # let file = tokio::io::repeat(7);
    /// # let mut blocks = BlockTransport::new(vec![], BlockCodec::length_prefixed());
    /// blocks.send_from(20_000_000, file.take(20_000_000)).await?;
    ///
    /// let parts = stream::iter([Ok::<_, io::Error>(&b"he"[..]), Ok(b"llo")]);
    /// blocks.send_from(5, StreamReader::new(parts)).await?;
    /// # assert!(blocks.get_ref().ends_with(b"\x07\0\0\0\x05hello"));
    /// # assert_eq!(blocks.get_ref().len(), 20_000_013);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`BlockError::WrongSize`] if the framing does not carry blocks of `len` bytes.
    /// - [`BlockError::WrongSource`] if the source ends before `len` bytes or has more, and
    ///   [`BlockError::Source`] if it fails. If nothing of the block has been written, the block is
    ///   removed from the queue. Otherwise it is unfinished: see below.
    /// - [`BlockError::WrongHeader`] if the block keeps its header, and the header announces another length.
    ///   Nothing of the block is sent then.
    /// - Any error of the transport.
    ///
    /// If the block was removed from the queue, [`unfinished`](Self::unfinished) is `None`, and a `close`
    /// looks like a clean end. To pass on that the source was cut, end the connection in
    /// [another way](crate::questions#how-do-i-end-a-connection-so-that-the-peer-does-not-take-it-for-a-clean-end).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the block stays unfinished: what the source has given is sent or queued.
    /// Nothing else can be sent then, because the peer would take it for the rest of the block. Each
    /// attempt returns [`BlockError::Unfinished`].
    ///
    /// To finish the block, pass the rest of the source to [`send_rest_from`](Self::send_rest_from). So
    /// pass `&mut source` here. Or [`close`](Self::close) the transport: the peer then gets
    /// [`BlockError::Truncated`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tokio::{io::{AsyncReadExt, AsyncWriteExt, duplex}, time::timeout};
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), BlockError> {
    /// # let (near, mut far) = duplex(64);
    /// # let (mut other, mut source) = duplex(64);
    /// let mut blocks = BlockTransport::new(near, BlockCodec::length_prefixed());
    /// other.write_all(b"hello, ").await?; // the other end of `source`
    /// let sending = blocks.send_from(12, &mut source);
    /// assert!(timeout(Duration::from_secs(1), sending).await.is_err());
    ///
    /// let refused = blocks.feed("something else").await.unwrap_err();
    /// assert!(matches!(refused, BlockError::Unfinished { queued: 7, len: 12, index: 0 }));
    /// other.write_all(b"hello").await?;
    /// drop(other);
    /// blocks.send_rest_from(&mut source).await?;
    /// # let mut all = [0; 16];
    /// # far.read_exact(&mut all).await?;
    /// # assert_eq!(&all, b"\0\0\0\x0chello, hello");
    /// assert_eq!(blocks.unfinished(), None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_from<S>(&mut self, len: u64, source: S) -> SendFrom<'_, T, F, S, E>
    where
        S: AsyncRead + Unpin,
    {
        SendFrom::begin(self, len, source)
    }

    /// Sends the rest of a block that a [`send_from`](Self::send_from) left unfinished, because it was
    /// dropped or its source failed. If there is no such block, only flushes.
    ///
    /// # Errors
    ///
    /// As [`send_from`](Self::send_from), except that the block is never removed from the queue. The lengths
    /// in the errors are those of the whole block.
    ///
    /// # Cancel safety
    ///
    /// As [`send_from`](Self::send_from), whose example shows both.
    pub fn send_rest_from<S>(&mut self, source: S) -> SendFrom<'_, T, F, S, E>
    where
        S: AsyncRead + Unpin,
    {
        SendFrom::resume(self, source)
    }

    /// Writes all that is queued, and flushes the transport below.
    ///
    /// # Errors
    ///
    /// Any error of the transport.
    ///
    /// # Cancel safety
    ///
    /// What was not written stays queued if the future is dropped.
    pub fn flush(&mut self) -> Flush<'_, T, F, E> {
        Flush { transport: self }
    }

    /// Flushes, and shuts down the sending side of the transport, so that the peer sees the stream end.
    ///
    /// # Errors
    ///
    /// Any error of the transport.
    ///
    /// # Cancel safety
    ///
    /// As [`flush`](Self::flush). Call `close` again to go on.
    pub fn close(&mut self) -> Close<'_, T, F, E> {
        Close { transport: self }
    }

    /// Waits until there is room for another block.
    #[inline]
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        if self.writer.has_capacity() {
            return Poll::Ready(Ok(()));
        }
        self.poll_capacity(cx)
    }

    /// Queues a copy of `payload` and returns true, if there is room and nothing else to do. A reference is
    /// quicker than moving the payload here.
    #[inline]
    fn queue_plain(&mut self, payload: &impl Payload) -> bool {
        let vectored = self.io.is_write_vectored();
        let (codec, writer) = (&mut self.codec, &mut self.writer);
        writer.has_capacity() && codec.queue_plain(payload, vectored, writer).is_some()
    }

    #[inline]
    fn queue(&mut self, block: impl Payload) -> Result<(), E> {
        let vectored = self.io.is_write_vectored();
        let queued = self.codec.queue(block, vectored, &mut self.writer, |_| {});
        queued.map_err(E::from)
    }

    /// Writes until there is room for another block.
    #[cold]
    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        while !self.writer.has_capacity() {
            ready!(self.poll_write(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        ready!(self.codec.poll_charge(cx));
        let polled = self.writer.poll_write(&mut self.io, cx);
        self.poll_in_time(polled, cx)
    }

    /// Returns `polled`, the answer of the transport below. While that is pending, returns an error once
    /// the write timeout is over.
    fn poll_in_time(
        &mut self,
        polled: Poll<io::Result<()>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), E>> {
        let Some(timeouts) = &mut self.write_timeouts else {
            return polled.map_err(E::from);
        };
        if polled.is_ready() {
            timeouts.reset();
            return polled.map_err(E::from);
        }
        let expired = ready!(timeouts.poll_expired(cx, None, false));
        self.codec.count_encoded(self.writer.take_uncounted());
        let Position { index, offset } = self.codec.encoded();
        Poll::Ready(Err(expired.at(Direction::Sending, index, offset).into()))
    }
}

impl<T, F, E> Sink<Bytes> for BlockTransport<T, F, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
    type Error = E;

    #[inline]
    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.get_mut().poll_room(cx)
    }

    #[inline]
    fn start_send(self: Pin<&mut Self>, block: Bytes) -> Result<(), E> {
        self.get_mut().queue(block)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        let this = self.get_mut();
        while !this.writer.is_empty() {
            ready!(this.poll_write(cx))?;
        }
        let polled = this.writer.poll_flush(&mut this.io, cx);
        this.poll_in_time(polled, cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.poll_in_time(polled, cx)
    }
}

#[expect(
    private_interfaces,
    reason = "sealed by a type that nobody else can name"
)]
impl<T, F, E> BlockSink for BlockTransport<T, F, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
    type Framing = F;
    type Io = T;

    fn encode_parts<'a>(
        &'a mut self,
        _own: &'a mut BlockWriter,
    ) -> (&'a mut BlockCodec<F, E>, &'a mut BlockWriter) {
        (&mut self.codec, &mut self.writer)
    }

    fn write_parts<'a>(
        &'a mut self,
        _own: &'a mut BlockWriter,
    ) -> (&'a mut T, &'a mut BlockWriter) {
        (&mut self.io, &mut self.writer)
    }

    fn write_timeout(&self) -> Option<Duration> {
        self.write_timeouts.as_ref()?.stall()
    }

    fn held(&self) -> usize {
        self.writer.len()
    }

    /// Bypasses the timeouts of the `Sink`, because the transfer has its own.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        while !self.writer.is_empty() {
            ready!(self.codec.poll_charge(cx));
            ready!(self.writer.poll_write(&mut self.io, cx))?;
        }
        self.writer.poll_flush(&mut self.io, cx).map_err(E::from)
    }

    fn keep(&mut self, _own: &BlockWriter) {}
}

/// The future of [`BlockTransport::feed`].
#[must_use = "nothing is sent until this is awaited"]
pub struct FeedBlock<'a, T, F, P, E = BlockError> {
    transport: &'a mut BlockTransport<T, F, E>,
    /// None once the transport has taken the payload.
    payload: Option<P>,
}

impl<T, F, P, E> FeedBlock<'_, T, F, P, E> {
    /// Returns the payload if the transport has not taken it. Nothing of its block will be sent then.
    ///
    /// Returns `None` if the block is queued or sent, or if it was refused with an error.
    #[must_use]
    pub fn into_payload(self) -> Option<P> {
        self.payload
    }
}

impl<T, F, P, E> FeedBlock<'_, T, F, P, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    P: Payload,
    E: CodecError,
{
    #[inline]
    fn poll_queued(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        if let Some(payload) = &self.payload {
            if !self.transport.queue_plain(payload) {
                return self.poll_queued_slowly(cx);
            }
            self.payload = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Queues a block that has no room yet, or is not plain.
    #[inline(never)]
    fn poll_queued_slowly(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        ready!(self.transport.poll_room(cx))?;
        Poll::Ready(match self.payload.take() {
            Some(payload) => self.transport.queue(payload),
            None => Ok(()),
        })
    }
}

impl<T, F, P, E> Future for FeedBlock<'_, T, F, P, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    P: Payload,
    E: CodecError,
{
    type Output = Result<(), E>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_queued(cx)
    }
}

/// The future of [`BlockTransport::send`].
#[must_use = "nothing is sent until this is awaited"]
pub struct SendBlock<'a, T, F, P, E = BlockError> {
    feed: FeedBlock<'a, T, F, P, E>,
}

impl<T, F, P, E> SendBlock<'_, T, F, P, E> {
    /// Returns the payload if the transport has not taken it. Nothing of its block will be sent then.
    ///
    /// Returns `None` if the block is queued or sent, or if it was refused with an error. A block
    /// that is queued is sent with the next flush.
    #[must_use]
    pub fn into_payload(self) -> Option<P> {
        self.feed.into_payload()
    }
}

impl<T, F, P, E> Future for SendBlock<'_, T, F, P, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    P: Payload,
    E: CodecError,
{
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(self.feed.poll_queued(cx))?;
        Pin::new(&mut *self.feed.transport).poll_flush(cx)
    }
}

/// The future of [`BlockTransport::flush`].
#[must_use = "nothing is flushed until this is awaited"]
pub struct Flush<'a, T, F, E = BlockError> {
    transport: &'a mut BlockTransport<T, F, E>,
}

impl<T, F, E> Future for Flush<'_, T, F, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Sink::<Bytes>::poll_flush(Pin::new(&mut *self.transport), cx)
    }
}

/// The future of [`BlockTransport::close`].
#[must_use = "nothing is closed until this is awaited"]
pub struct Close<'a, T, F, E = BlockError> {
    transport: &'a mut BlockTransport<T, F, E>,
}

impl<T, F, E> Future for Close<'_, T, F, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Sink::<Bytes>::poll_close(Pin::new(&mut *self.transport), cx)
    }
}

/// Nothing in these is pinned.
impl<T, F, P, E> Unpin for FeedBlock<'_, T, F, P, E> {}
impl<T, F, P, E> Unpin for SendBlock<'_, T, F, P, E> {}

opaque_debug! { FeedBlock<T, F, P, E> SendBlock<T, F, P, E> Flush<T, F, E> Close<T, F, E> }
