//! The receiving half of a transport.

use std::{
    future::Future,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, BytesMut};
use futures::{Stream, stream::FusedStream};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use super::{BlockTransport, Recv, RecvBatch, RecvInto, RecvReader, StreamEnd};
use crate::{
    codec::BlockCodec,
    coop,
    error::{BlockError, CodecError, Direction},
    framing::Framing,
    helpers::BlockStream,
    pool::INITIAL_CAPACITY,
    read::{DecodeState, FrameParser, Position},
    timeout::Waiter,
};

/// A function that looks for something at the front of the read buffer. If it is not there yet, the
/// function reserves capacity for the next read.
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
    /// Does what the `Stream` does, without a trait to import. Here the transport knows when the caller
    /// stops waiting, because the future is dropped. So it reports a [`stall_timeout`](Self::stall_timeout)
    /// at once, and counts the time between two waits as
    /// [`RecvBlocks::stall_timeout`](crate::RecvBlocks::stall_timeout) does.
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
    /// As [`recv`](Self::recv). `None` follows an error, except a timeout and [`BlockError::Skipped`], so
    /// that a loop that skips errors ends.
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

    /// Lends the next block without allocating or copying: a slice of the read buffer, valid until the
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
    /// Any [`BlockError`] of receiving. After an error about the blocks themselves, each call returns it
    /// again. After any other error, the next call goes on.
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

    /// Lends all the blocks that have arrived whole, and waits for one if there is none. `None` if the
    /// stream has ended between two blocks.
    ///
    /// This is the quickest way through many small blocks: one wait for each read, and a plain iterator
    /// between. Blocks that the iterator has not yielded stay for the next call.
    ///
    /// In a loop whose body uses the transport, even only for [`stats`](Self::stats), write
    /// `let Some(batch) = … else { break };`. The future of a `while let` borrows the transport until the end
    /// of the body. A batch borrows the transport, too. To send while you iterate over a batch, use a
    /// transport for each half of the socket.
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

    /// Receives the next block into the front of `memory`, and returns its length. `None` if the stream has
    /// ended between two blocks.
    ///
    /// If at least 16 KiB of the block have not arrived, the rest is read straight into `memory`. A smaller
    /// rest is read together with what follows it, and copied.
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
    /// As [`recv`](Self::recv), and [`BlockError::NoRoom`] if the block is longer than `memory`. The block
    /// then stays in the transport. The limit for whole blocks applies.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped, or returns an error: the part of a block that is in
    /// `memory` moves to the read buffer. (If the future is leaked with `mem::forget`, its block is lost.)
    pub fn recv_into<'a>(&'a mut self, memory: &'a mut [u8]) -> RecvInto<'a, T, F, E> {
        RecvInto {
            transport: self,
            memory,
            direct: None,
        }
    }

    /// Waits for the next block's header, and returns a [`BlockReader`](crate::BlockReader) for blocks of
    /// any length, even longer than fits in memory. `None` if the stream has ended between two blocks.
    ///
    /// The limit for whole blocks does not apply. The reader knows the block's length before you read a
    /// byte, so you can decide for each block. [`set_max_reader_len`](BlockCodec::set_max_reader_len) sets
    /// a limit for all. If most blocks are small, call [`recv_into`](Self::recv_into), to which the limit for
    /// whole blocks applies, and `recv_reader` after [`BlockError::NoRoom`].
    ///
    /// In a loop whose body uses the transport, write `let Some(mut block) = … else { break };`, and drop the
    /// reader before you use the transport.
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
    /// Nothing is lost if the future is dropped. Dropping the reader discards the rest of its block.
    pub fn recv_reader(&mut self) -> RecvReader<'_, T, F, E> {
        RecvReader {
            transport: Some(self),
        }
    }

    /// Returns the next block, or [`BlockError::TooFew`] if the stream has ended. Use it for an answer that
    /// must come.
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
            // The decoder reserves nothing before the first read, because nothing has justified it yet.
            self.read_buf.reserve(INITIAL_CAPACITY);
        }
        let Self {
            io,
            codec,
            read_buf,
            ..
        } = self;
        let polled = coop::poll_operation(cx, |cx| {
            codec.decode.poll_read(read_buf, |buffer, end| {
                let io = Pin::new(io);
                match end {
                    None => poll_read_buf(io, cx, buffer),
                    Some(end) => {
                        let room = end - buffer.len();
                        poll_read_buf(io, cx, &mut buffer.limit(room))
                    }
                }
            })
        });
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

    /// Everything except the fast path. Out of line, so that the loop over small blocks is short.
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

    /// Waits for the next block and lends it. Returns the place of its payload in the buffer.
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

    /// Waits until `accept` finds a block at the front, for a future that leaves it in the buffer. An error
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

    /// Polls for a caller that gets no `None` after an error. Keeps the `None` that the stream still has to
    /// return, and adds none.
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

    /// Waits within the timeouts until `accept` finds a block at the front. None at the end of the stream.
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

    /// Reads until `accept` finds what it looks for at the front. None at the end of the stream.
    pub(super) fn poll_front<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut accept: impl Accept<F, R>,
    ) -> Poll<Result<Option<R>, BlockError>> {
        let decode = &mut self.codec.decode;
        decode.remove_lent(&mut self.read_buf);
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

    /// Polls `receive` within the timeouts. A timeout is an error, but does not end the stream.
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
        expired.map(|expired| Err(expired.at(Direction::Receiving, index, offset)))
    }
}

/// Terminated after the stream has returned `None`, so that `futures::select!` does not poll it again. A
/// later poll reads on, unless an error about the blocks has ended them.
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
    /// Ends the wait of a future that was dropped or has returned an error.
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
        // Not `poll_next_for`, whose `None` after an error would look like the end of the stream.
        if let Some(block) = ready!(transport.poll_block(cx)) {
            return Poll::Ready(block);
        }
        let received = transport.codec.decode.position().index;
        let expected = received + 1;
        Poll::Ready(Err(BlockError::TooFew { expected, received }.into()))
    }
}

opaque_debug! { NextBlock<T, F, E> ExpectNext<T, F, E> }
