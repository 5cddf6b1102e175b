//! The receiving half of a transport.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use futures::Stream;
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use super::BlockTransport;
use crate::{
    AsFramedRead, BlockCodec, BlockError, CodecError, Framing, coop,
    decoder::Position,
    framed::{Arrival, sealed},
    read_buf::INITIAL_CAPACITY,
    stall::{Timeouts, Waiter},
};

impl<T, F: Framing, E: CodecError> BlockTransport<T, F, E> {
    /// Returns the next block; `None` if the stream has ended between two blocks.
    ///
    /// As the `Stream` of the transport, and with no trait to import. The future knows when a wait is
    /// given up, because it is dropped then. So a [`stall_timeout`](Self::stall_timeout) is never
    /// forgiven, and the time between two waits counts as with
    /// [`RecvBlocks::stall_timeout`](crate::RecvBlocks::stall_timeout).
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BlockError> {
    /// let wire = &b"\0\0\0\x05hello\0\0\0\x02me"[..]; // or a socket
    /// let mut blocks = BlockTransport::new(wire, BlockCodec::length_prefixed());
    /// let mut text = String::new();
    /// while let Some(block) = blocks.next().await {
    ///     text.push_str(&String::from_utf8_lossy(&block?));
    /// }
    /// assert_eq!(text, "hellome");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    #[expect(
        clippy::should_implement_trait,
        reason = "it waits, which an `Iterator` does not"
    )]
    #[inline]
    pub fn next(&mut self) -> NextBlock<'_, T, F, E>
    where
        T: AsyncRead + Unpin,
    {
        NextBlock { transport: self }
    }

    /// Returns the next block, or [`BlockError::TooFew`] if the stream has ended: for an answer that must
    /// come.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let mut blocks = BlockTransport::new(&b"\0\0\0\x02me"[..], BlockCodec::length_prefixed());
    /// assert_eq!(blocks.expect_next().await.unwrap(), "me");
    /// let error = blocks.expect_next().await.unwrap_err();
    /// assert_eq!(error.to_string(), "stream ended after 1 of 2 blocks");
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next), and [`BlockError::TooFew`]. Its numbers count from the start of the
    /// codec.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub fn expect_next(&mut self) -> ExpectNext<'_, T, F, E>
    where
        T: AsyncRead + Unpin,
    {
        ExpectNext { next: self.next() }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, E>>
    where
        T: AsyncRead + Unpin,
    {
        if self.read_buf.len() == self.read_buf.capacity() {
            self.read_buf.reserve(INITIAL_CAPACITY);
        }
        let polled = coop::poll_operation(cx, |cx| {
            poll_read_buf(Pin::new(&mut self.io), cx, &mut self.read_buf)
        });
        if polled.is_pending() {
            self.codec.decode.park(&mut self.read_buf);
        }
        polled.map_err(E::from)
    }

    #[inline]
    fn poll_next_for(
        &mut self,
        waiter: Waiter,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BytesMut, E>>>
    where
        T: AsyncRead + Unpin,
    {
        let BlockCodec { parser, decode, .. } = &mut self.codec;
        if let Some(frame) = decode.next_small(parser, &self.read_buf) {
            return Poll::Ready(Some(Ok(decode.take(frame, &mut self.read_buf))));
        }
        if self.errored {
            // A loop that skips errors ends here, instead of meeting the same one for ever.
            self.errored = self.codec.decode.failure().is_some();
            return Poll::Ready(None);
        }
        if self.timeouts.is_some() {
            return self.poll_rest_in_time(waiter, cx);
        }
        let polled = self.poll_rest(cx);
        self.errored = matches!(polled, Poll::Ready(Some(Err(_))));
        polled
    }

    /// Waits for the rest of the block at the front, and takes it.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<BytesMut, E>>>
    where
        T: AsyncRead + Unpin,
    {
        ready!(self.codec.decode.poll_charge(cx, 0));
        self.codec.decode.unpark(&mut self.read_buf);
        let mut has_read = false;
        loop {
            if let Some(block) = self
                .codec
                .decode
                .decode(&self.codec.parser, &mut self.read_buf)?
            {
                return Poll::Ready(Some(Ok(block)));
            }
            if let (true, Some(timeouts)) = (has_read, &mut self.timeouts) {
                let partial = self.codec.decode.partial(&self.read_buf);
                if timeouts.block_is_late(partial) {
                    return Poll::Pending; // `poll_rest_in_time` reports it
                }
            }
            has_read = true;
            ready!(self.codec.decode.poll_charge(cx, 0));
            if ready!(self.poll_read(cx))? == 0 {
                let BlockCodec { parser, decode, .. } = &mut self.codec;
                decode.end_of_stream(parser, &self.read_buf)?;
                return Poll::Ready(None);
            }
        }
    }

    /// As [`poll_rest`](Self::poll_rest), within the time allowed. Taking longer is an error after
    /// which the stream goes on.
    #[cold]
    fn poll_rest_in_time(
        &mut self,
        waiter: Waiter,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BytesMut, E>>>
    where
        T: AsyncRead + Unpin,
    {
        // Not within `poll_rest`, because a yield is no wait.
        ready!(self.codec.decode.poll_charge(cx, 0));
        let reads = self.codec.decode.read_stats().reads;
        let polled = self.poll_rest(cx);
        self.errored = matches!(polled, Poll::Ready(Some(Err(_))));
        let decoder = &self.codec.decode;
        let Some(timeouts) = &mut self.timeouts else {
            return polled;
        };
        if polled.is_ready() {
            timeouts.reset();
            return polled;
        }
        let moved = decoder.read_stats().reads > reads;
        timeouts.set_waiter(waiter);
        let expired = timeouts.poll_expired(cx, decoder.partial(&self.read_buf), moved);
        let Position { index, offset } = decoder.position();
        expired.map(|expired| Some(Err(expired.at(index, offset).into())))
    }
}

impl<T, F, E> Stream for BlockTransport<T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Item = Result<BytesMut, E>;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_next_for(Waiter::Stream, cx)
    }
}

impl<T, F, E> AsFramedRead for BlockTransport<T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
}

#[expect(
    private_interfaces,
    reason = "sealed: nobody else calls or implements it"
)]
impl<T, F, E> sealed::FramedRead for BlockTransport<T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Framing = F;
    type Error = E;

    #[inline]
    fn codec(&self) -> &BlockCodec<F, E> {
        &self.codec
    }

    fn codec_mut(&mut self) -> &mut BlockCodec<F, E> {
        &mut self.codec
    }

    #[inline]
    fn read_buffer(&self) -> &BytesMut {
        &self.read_buf
    }

    fn read_buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.read_buf
    }

    fn hand_over_timeouts(&mut self) -> Timeouts {
        let timeouts = self.timeouts.as_mut();
        timeouts.map_or_else(Timeouts::default, |timeouts| timeouts.hand_over())
    }

    fn take_back_timeouts(&mut self, of_receiver: &Timeouts) {
        if let Some(timeouts) = &mut self.timeouts {
            timeouts.take_back(of_receiver);
        }
    }

    fn poll_peek(
        &mut self,
        cx: &mut Context<'_>,
        timeouts: &mut Timeouts,
    ) -> Poll<Result<Arrival, E>> {
        // Whoever lends has seen the error after which the stream would end.
        self.errored &= self.codec.decode.failure().is_some();
        self.codec.decode.unpark(&mut self.read_buf);
        let mut has_read = false;
        loop {
            if self
                .codec
                .decode
                .peek(&self.codec.parser, &mut self.read_buf)?
            {
                return Poll::Ready(Ok(Arrival::Block));
            }
            let partial = self.codec.decode.partial(&self.read_buf);
            if has_read && timeouts.block_is_late(partial) {
                return Poll::Pending; // the receiver reports it
            }
            has_read = true;
            ready!(self.codec.decode.poll_charge(cx, 0));
            if ready!(self.poll_read(cx))? == 0 {
                let BlockCodec { parser, decode, .. } = &mut self.codec;
                decode.end_of_stream(parser, &self.read_buf)?;
                return Poll::Ready(Ok(Arrival::End));
            }
        }
    }
}

/// The future of [`BlockTransport::next`].
#[must_use = "nothing is received until this is awaited"]
pub struct NextBlock<'a, T, F, E = BlockError> {
    pub(super) transport: &'a mut BlockTransport<T, F, E>,
}

impl<T, F, E> Future for NextBlock<'_, T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Output = Option<Result<BytesMut, E>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.transport.poll_next_for(Waiter::Future, cx)
    }
}

impl<T, F, E> Drop for NextBlock<'_, T, F, E> {
    #[inline]
    fn drop(&mut self) {
        if let Some(timeouts) = &mut self.transport.timeouts {
            timeouts.pause();
        }
    }
}

/// The future of [`BlockTransport::expect_next`].
#[must_use = "nothing is received until this is awaited"]
pub struct ExpectNext<'a, T, F, E = BlockError> {
    pub(super) next: NextBlock<'a, T, F, E>,
}

impl<T, F, E> Future for ExpectNext<'_, T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Output = Result<BytesMut, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(block) = ready!(Pin::new(&mut self.next).poll(cx)) {
            return Poll::Ready(block);
        }
        let received = self.next.transport.codec.decode.position().index;
        let expected = received + 1;
        Poll::Ready(Err(BlockError::TooFew { expected, received }.into()))
    }
}

impl<T, F, E> fmt::Debug for NextBlock<'_, T, F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextBlock").finish_non_exhaustive()
    }
}

impl<T, F, E> fmt::Debug for ExpectNext<'_, T, F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpectNext").finish_non_exhaustive()
    }
}
