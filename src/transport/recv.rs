//! The receiving half of a transport.

use std::{
    future::Future,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use futures::{Stream, stream::FusedStream};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use super::{BlockTransport, Recv, RecvBatch, RecvInto, RecvReader, StreamEnd};
use crate::{
    codec::BlockCodec,
    coop,
    error::{BlockError, CodecError},
    framing::Framing,
    helpers::BlockStream,
    pool::INITIAL_CAPACITY,
    read::{DecodeState, FrameParser, Position},
    timeout::Waiter,
};

/// Looks for something at the front of the read buffer. If it is not there, makes room for the next read
/// to bring more of it.
pub(super) trait Accept<F, R>:
    FnMut(&mut DecodeState, &FrameParser<F>, &mut BytesMut) -> Result<Option<R>, BlockError>
{
}

impl<F, R, A> Accept<F, R> for A where
    A: FnMut(&mut DecodeState, &FrameParser<F>, &mut BytesMut) -> Result<Option<R>, BlockError>
{
}

impl<T, F, E> BlockTransport<T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    /// Returns the next block; `None` if the stream has ended between two blocks.
    ///
    /// Does what the `Stream` does, without a trait to import. Dropping the future ends the wait, so a
    /// [`stall_timeout`](Self::stall_timeout) is reported at once, and the time between two waits counts
    /// as with [`RecvBlocks::stall_timeout`](crate::RecvBlocks::stall_timeout).
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
    /// # Errors
    ///
    /// As [`recv`](Self::recv). After one, `None` follows, because a loop that skips errors is to end.
    /// After a timeout none does.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    #[expect(
        clippy::should_implement_trait,
        reason = "it waits, which an `Iterator` does not"
    )]
    #[inline]
    pub fn next(&mut self) -> NextBlock<'_, T, F, E> {
        NextBlock { transport: self }
    }

    /// Lends the next block, without allocating or copying: a slice of the read buffer, until the
    /// transport is used again. `None` if the stream has ended between two blocks.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BlockError> {
    /// let wire = &b"\0\0\0\x05hello\0\0\0\x02me"[..]; // or a socket
    /// let mut blocks = BlockTransport::new(wire, BlockCodec::length_prefixed());
    /// let mut text = String::new();
    /// while let Some(block) = blocks.recv().await? {
    ///     text.push_str(&String::from_utf8_lossy(block)); // block: &[u8]
    /// }
    /// assert_eq!(text, "hellome");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Every [`BlockError`] that a receiver meets. After one about the blocks themselves, each call
    /// returns it again. After any other, the next call goes on.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    #[inline]
    pub fn recv(&mut self) -> Recv<'_, T, F, E> {
        Recv {
            transport: Some(self),
        }
    }

    /// Lends all the blocks that have arrived whole, and waits for one if there is none.
    /// `None` as [`recv`](Self::recv).
    ///
    /// The quickest way through many small blocks: one wait for each read, and a plain iterator
    /// between. A block that the iterator was not asked for stays for the next call.
    ///
    /// In a loop that also sends on the transport, write `let Some(batch) = … else { break };`. The
    /// future of a `while let` borrows the transport until the end of the loop's body.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BlockError> {
    /// # let wire = &b"\0\0\0\x05hello\0\0\0\x02me"[..];
    /// # let mut blocks = BlockTransport::new(wire, BlockCodec::length_prefixed());
    /// // "hello" and "me" arrive in one read
    /// let (mut batches, mut bytes) = (0, 0);
    /// while let Some(batch) = blocks.recv_batch().await? {
    ///     batches += 1;
    ///     bytes += batch.map(<[u8]>::len).sum::<usize>();
    /// }
    /// assert_eq!((batches, bytes), (1, 7));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv). Blocks that arrived before a bad header are lent first.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    #[inline]
    pub fn recv_batch(&mut self) -> RecvBatch<'_, T, F, E> {
        RecvBatch {
            transport: Some(self),
        }
    }

    /// Receives the next block into the front of `memory`, and returns how many bytes it has. `None` as
    /// [`recv`](Self::recv).
    ///
    /// The rest of a large block is read straight into `memory`, if at least 16 KiB of it have not
    /// arrived. A smaller one is read together with what follows it, and copied.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BlockError> {
    /// let wire = &b"\0\0\0\x05hello\0\0\0\x02me"[..]; // or a socket
    /// let mut blocks = BlockTransport::new(wire, BlockCodec::length_prefixed());
    /// let mut slab = [0; 4];
    /// let error = blocks.recv_into(&mut slab).await.unwrap_err();
    /// assert!(matches!(error, BlockError::NoRoom { len: 5, room: 4, index: 0, .. }));
    /// assert_eq!(blocks.expect_next().await?, "hello"); // nothing was taken
    /// assert_eq!(blocks.recv_into(&mut slab).await?, Some(2));
    /// assert_eq!(&slab[..2], b"me");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv), and [`BlockError::NoRoom`] for a block that is longer than `memory`, which
    /// stays where it is. The limit for whole blocks holds here, too.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped, or returns an error: what is in `memory` of an unfinished
    /// block goes to the read buffer. (If it is leaked, with `mem::forget`, its block is lost.)
    pub fn recv_into<'a>(&'a mut self, memory: &'a mut [u8]) -> RecvInto<'a, T, F, E> {
        RecvInto {
            transport: self,
            memory,
            direct: None,
        }
    }

    /// Waits for the next block's header, and returns a reader of the block: for blocks of any length, which
    /// need not fit the memory. `None` if the stream has ended between two blocks.
    ///
    /// The limit for whole blocks does not count here. The reader knows how long the block is before a byte
    /// of it is read, and its user decides;
    /// [`set_max_reader_len`](BlockCodec::set_max_reader_len) sets a limit for all. See
    /// [`BlockReader`](crate::BlockReader).
    ///
    /// In a loop that also sends on the transport, write `let Some(mut block) = … else { break };`, and drop
    /// the reader before you send.
    ///
    /// ```
    /// # use tokio::io::{copy_buf, sink};
    /// # use wholeblock::{BlockCodec, BlockTransport, LengthPrefix};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let wire = &b"\0\0\0\0\0\0\0\x05hello\0\0\0\0\0\0\0\x02me"[..];
    /// # let mut file = sink();
    /// let mut blocks = BlockTransport::new(wire, BlockCodec::new(LengthPrefix::u64()));
    /// while let Some(mut block) = blocks.recv_reader().await? {
    ///     if block.len() > 3 {
    ///         continue; // dropped, so the rest of it is discarded
    ///     }
    ///     copy_buf(&mut block, &mut file).await?; // 64 KiB at most at a time
    ///     assert_eq!((block.len(), block.remaining()), (2, 0));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped. A reader that is dropped has given up the rest of its
    /// block.
    pub fn recv_reader(&mut self) -> RecvReader<'_, T, F, E> {
        RecvReader {
            transport: Some(self),
        }
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
    /// As [`recv`](Self::recv), and [`BlockError::TooFew`]. Its numbers count from the start of the
    /// codec.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub fn expect_next(&mut self) -> ExpectNext<'_, T, F, E> {
        ExpectNext { next: self.next() }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, BlockError>> {
        if self.read_buf.len() == self.read_buf.capacity() {
            // Before the first read nothing has justified any room, so the decoder has reserved none.
            self.read_buf.reserve(INITIAL_CAPACITY);
        }
        let polled = coop::poll_operation(cx, |cx| {
            poll_read_buf(Pin::new(&mut self.io), cx, &mut self.read_buf)
        });
        if polled.is_pending() {
            self.codec.decode.park(&mut self.read_buf);
        }
        polled.map_err(BlockError::Io)
    }

    #[inline]
    fn poll_next_for(
        &mut self,
        waiter: Waiter,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BytesMut, E>>> {
        let BlockCodec { parser, decode, .. } = &mut self.codec;
        if let Some(frame) = decode.next_small(parser, &self.read_buf) {
            return Poll::Ready(Some(Ok(decode.take(frame, &mut self.read_buf))));
        }
        self.poll_next_slow(waiter, cx)
    }

    /// Everything except a small whole block. Out of line, so that the loop over such blocks is short.
    #[cold]
    fn poll_next_slow(
        &mut self,
        waiter: Waiter,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BytesMut, E>>> {
        match self.end {
            StreamEnd::Due => {
                self.end = StreamEnd::Reached;
                return Poll::Ready(None);
            }
            StreamEnd::Reached if self.codec.has_failed() => return Poll::Ready(None),
            StreamEnd::NotReached | StreamEnd::Reached => self.end = StreamEnd::NotReached,
        }
        let accepted = ready!(self.poll_next_front(waiter, cx, DecodeState::accept))
            .map_err(BlockError::into_codec_error::<E>)?;
        if accepted.is_none() {
            self.end = StreamEnd::Reached;
        }
        let block =
            accepted.map(|frame| self.codec.decode.take_accepted(frame, &mut self.read_buf));
        Poll::Ready(block.map(Ok))
    }

    /// Waits for the next block, and lends it: where its payload lies in the buffer.
    #[inline(never)]
    pub(super) fn poll_lend(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Range<usize>>, E>> {
        ready!(self.codec.decode.poll_charge(cx));
        let BlockCodec { parser, decode, .. } = &mut self.codec;
        if let Some(block) = decode.lend_next(parser, &self.read_buf) {
            return Poll::Ready(Ok(Some(block))); // in a new turn
        }
        let accepted = ready!(self.poll_accepted(cx, DecodeState::accept))?;
        let lent = accepted.map(|frame| self.codec.decode.lend_accepted(frame));
        Poll::Ready(Ok(lent))
    }

    /// Waits until `accept` finds a block at the front, for a future that does not give it away. An error
    /// ends the wait.
    pub(super) fn poll_accepted<R>(
        &mut self,
        cx: &mut Context<'_>,
        accept: impl Accept<F, R>,
    ) -> Poll<Result<Option<R>, E>> {
        let polled = self
            .without_end_after_error(|this| this.poll_next_front(Waiter::Future, cx, accept))
            .map_err(BlockError::into_codec_error::<E>);
        if matches!(polled, Poll::Ready(Err(_))) {
            self.pause();
        }
        polled
    }

    /// Polls for a caller that gets no `None` because of an error. The stream gets one only after an
    /// error that the stream has returned.
    pub(super) fn without_end_after_error<P>(&mut self, poll: impl FnOnce(&mut Self) -> P) -> P {
        let end = match self.codec.has_failed() {
            true => self.end,
            false => StreamEnd::NotReached,
        };
        self.end = StreamEnd::NotReached;
        let polled = poll(self);
        self.end = end;
        polled
    }

    /// Waits, as long as is allowed, until `accept` finds a block at the front; none at the end.
    fn poll_next_front<R>(
        &mut self,
        waiter: Waiter,
        cx: &mut Context<'_>,
        accept: impl Accept<F, R>,
    ) -> Poll<Result<Option<R>, BlockError>> {
        // Before the wait begins, because a yield between two blocks is no wait.
        ready!(self.codec.decode.poll_charge(cx));
        self.poll_receiving(waiter, cx, |this, cx| {
            let polled = this.poll_front(cx, accept);
            if matches!(&polled, Poll::Ready(Err(error)) if error.ends_stream()) {
                this.end = StreamEnd::Due;
            }
            polled
        })
    }

    /// Reads until `accept` finds what it looks for at the front; none at the end.
    pub(super) fn poll_front<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut accept: impl Accept<F, R>,
    ) -> Poll<Result<Option<R>, BlockError>> {
        let decode = &mut self.codec.decode;
        decode.remove_lent(&mut self.read_buf);
        decode.unpark(&mut self.read_buf);
        let mut has_read = false;
        loop {
            let BlockCodec { parser, decode, .. } = &mut self.codec;
            if let Some(accepted) = accept(decode, parser, &mut self.read_buf)? {
                return Poll::Ready(Ok(Some(accepted)));
            }
            if has_read && self.is_late() {
                return Poll::Pending; // `poll_receiving` reports it
            }
            has_read = true;
            // `accept` may have skipped many blocks.
            ready!(self.codec.decode.poll_charge(cx));
            if ready!(self.poll_read(cx))? == 0 {
                let BlockCodec { parser, decode, .. } = &mut self.codec;
                decode.end_of_stream(parser, &self.read_buf)?;
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// True if the block at the front is unfinished and past its deadline.
    pub(super) fn is_late(&mut self) -> bool {
        let partial = self.codec.decode.partial(self.read_buf.len());
        match &mut self.timeouts {
            Some(timeouts) => timeouts.block_is_late(partial),
            None => false,
        }
    }

    /// Polls `receive` within the time allowed. Taking longer is an error after which the stream goes on.
    pub(super) fn poll_receiving<R>(
        &mut self,
        waiter: Waiter,
        cx: &mut Context<'_>,
        receive: impl FnOnce(&mut Self, &mut Context<'_>) -> Poll<Result<R, BlockError>>,
    ) -> Poll<Result<R, BlockError>> {
        let reads = self.codec.decode.read_stats().reads;
        let polled = receive(self, cx);
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
        let expired = timeouts.poll_expired(cx, decoder.partial(self.read_buf.len()), moved);
        let Position { index, offset } = decoder.position();
        expired.map(|expired| Err(expired.at(index, offset)))
    }
}

/// Terminated where the stream has ended, so that `futures::select!` polls it no more. If it is polled
/// all the same, it reads on, unless its blocks have failed.
impl<T, F, E> FusedStream for BlockTransport<T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    fn is_terminated(&self) -> bool {
        self.end == StreamEnd::Reached
    }
}

impl<T, F, E> BlockTransport<T, F, E> {
    /// Ends the wait of a future that was dropped, or has reported an error.
    #[inline]
    pub(super) fn pause(&mut self) {
        if let Some(timeouts) = &mut self.timeouts {
            timeouts.pause();
        }
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

#[expect(
    private_interfaces,
    reason = "sealed by a type that nobody else can name"
)]
impl<T, F, E> BlockStream for BlockTransport<T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Error = E;

    #[inline]
    fn decode_state(&self) -> &DecodeState {
        &self.codec.decode
    }

    fn buffered(&self) -> usize {
        self.read_buffer().len()
    }

    #[inline]
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.without_end_after_error(|this| this.poll_next_for(Waiter::Future, cx))
    }

    fn pause(&mut self) {
        BlockTransport::pause(self);
    }
}

/// The future of [`BlockTransport::next`].
#[must_use = "nothing is received until this is awaited"]
pub struct NextBlock<'a, T, F, E = BlockError> {
    transport: &'a mut BlockTransport<T, F, E>,
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
        self.transport.pause();
    }
}

/// The future of [`BlockTransport::expect_next`].
#[must_use = "nothing is received until this is awaited"]
pub struct ExpectNext<'a, T, F, E = BlockError> {
    next: NextBlock<'a, T, F, E>,
}

impl<T, F, E> Future for ExpectNext<'_, T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Output = Result<BytesMut, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let transport = &mut *self.next.transport;
        // Not `poll_next_for`: by the `None` after an error, blocks would seem to be missing.
        if let Some(block) = ready!(transport.poll_block(cx)) {
            return Poll::Ready(block);
        }
        let received = transport.codec.decode.position().index;
        let expected = received + 1;
        Poll::Ready(Err(BlockError::TooFew { expected, received }.into()))
    }
}

opaque_debug! { NextBlock<T, F, E> ExpectNext<T, F, E> }
