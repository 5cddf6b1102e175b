//! `BlockTransport`: a sink and a stream of blocks over the decoder and the writer, without
//! `Framed` between them and the socket.

mod futures;

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::futures::{Sink, Stream};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::{
    codec::{Framed, FramedParts},
    io::poll_read_buf,
};

pub use self::futures::{Close, ExpectNext, FeedBlock, Flush, NextBlock, SendBlock};
use crate::{
    AsFramedRead, AsFramedWrite, BlockCodec, BlockError, CodecError, Framing, Payload,
    TransportStats, coop,
    decoder::Position,
    framed::{Arrival, sealed},
    read_buf::INITIAL_CAPACITY,
    stall::{Timeouts, Waiter},
    write::BlockWriter,
};

/// Whole blocks over a transport: [`next`](Self::next) receives one, and [`send`](Self::send) and
/// [`feed`](Self::feed) send one. It is also a `Sink` of [`Bytes`] and a `Stream` of [`BytesMut`].
///
/// Large blocks are written without being copied. Small blocks are coalesced into large writes. It is
/// a faster replacement for tokio-util's [`Framed`], and holds less memory while it waits.
///
/// ```
/// use tokio::net::{TcpListener, TcpStream};
/// use wholeblock::{BlockCodec, BlockError, BlockTransport};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BlockError> {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let client = TcpStream::connect(listener.local_addr()?).await?;
/// let (server, _) = listener.accept().await?;
///
/// client.set_nodelay(true)?;
/// let mut client = BlockTransport::new(client, BlockCodec::length_prefixed());
/// client.send("hello").await?;
/// client.close().await?;
///
/// let mut server = BlockTransport::new(server, BlockCodec::length_prefixed());
/// while let Some(block) = server.next().await {
///     assert_eq!(block?, "hello");
/// }
/// # Ok(())
/// # }
/// ```
///
/// [`recv_blocks`](crate::recv_blocks) and [`send_blocks`](crate::send_blocks) take it as they take
/// a `Framed`, and mixing the forms loses and repeats nothing.
///
/// # Halves
///
/// A transport that only reads makes it a `Stream`, one that only writes a `Sink`: put each half of
/// `TcpStream::into_split` or `tokio::io::split` into a `BlockTransport` of its own, and give each
/// to a task.
///
/// # Sending
///
/// [`feed`](Self::feed) queues a block. It waits for the transport only if a whole write is
/// queued: 8 KiB after a flush, and a quarter of the last write more after each, up to 124,528 bytes.
/// So the peer can begin with a burst while the rest of it is queued, and a long transfer is sent in
/// few writes. The queue holds at most a write and one block. Blocks are written when a write has
/// come together, at a flush, or when the transport is closed.
///
/// [`send`](Self::send) flushes. A flush also flushes the transport below, whoever has
/// written to it. Dropping the transport drops what is queued.
///
/// # Receiving
///
/// The stream ends (`None`) where the peer's stream ends between two blocks. After an error of the
/// transport it gives `None` once, and then reads on; after an error about the blocks themselves it
/// stays at its end. It waits without a limit, unless a [`stall_timeout`](Self::stall_timeout) or a
/// [`block_deadline`](Self::block_deadline) is set; after an error of these it goes on.
///
/// # Blocking
///
/// Do not wait for a transport with `futures::executor::block_on`, or another executor than tokio's,
/// on a thread that runs a tokio runtime: it hangs. After at most 128 reads tokio's task budget is
/// spent, and the transport yields. Tokio wakes it in the next turn of the scheduler, which the
/// blocked thread never runs. Use [`Handle::block_on`] on a thread of no runtime, as
/// [`questions`](crate::questions#how-do-i-use-it-from-blocking-code) shows.
///
/// # Cancel safety
///
/// Everything is kept in the transport itself, so any future over it can be dropped, or leaked, at
/// any time: a block that was not returned is returned by the next call, one that was queued stays
/// queued. [`send`](Self::send) and [`feed`](Self::feed) hold a block before it is queued, and give it
/// back if they are asked. (Those of futures' `SinkExt` drop it with themselves.)
///
/// [`Handle::block_on`]: tokio::runtime::Handle::block_on
#[doc(alias = "Framed")]
#[doc(alias = "Connection")]
pub struct BlockTransport<T, F, E = BlockError> {
    io: T,
    codec: BlockCodec<F, E>,
    read_buf: BytesMut,
    /// Whether the stream has just returned an error.
    errored: bool,
    /// How long receiving may wait, if that is limited. Boxed, because most transports set no timeout.
    timeouts: Option<Box<Timeouts>>,
    /// How long sending may wait.
    write_timeouts: Option<Box<Timeouts>>,
    writer: BlockWriter,
}

impl<T, F: Framing, E: CodecError> BlockTransport<T, F, E> {
    /// Blocks of `codec` over `io`. Allocates nothing before the first read or write.
    #[must_use]
    pub fn new(io: T, codec: BlockCodec<F, E>) -> Self {
        Self {
            io,
            codec,
            read_buf: BytesMut::new(),
            errored: false,
            timeouts: None,
            write_timeouts: None,
            writer: BlockWriter::default(),
        }
    }

    /// Returns [`BlockError::Stalled`] if no bytes arrive for `timeout` while a block is waited for. The
    /// transport remains usable, and the stream has not ended: ask again to keep waiting.
    ///
    /// The timeout applies to every way of receiving: [`next`](Self::next), the `Stream`, and
    /// [`recv_blocks`](crate::recv_blocks), which may set its own. For sending, set a
    /// [`write_timeout`](Self::write_timeout).
    ///
    /// A wait begins at the first poll that must wait, and ends when bytes arrive. Everything that
    /// has arrived is read before the error is returned.
    ///
    /// A `Stream` is not told when its caller stops waiting. So there, if the poll that finds the timeout over
    /// comes late, by more than the timeout or a second, whichever is less, and by more than 20 ms,
    /// the error is not returned yet. The stream waits for one more timeout, and returns the error
    /// then, however late. On a thread that is busy with other tasks, the error therefore comes after
    /// twice the timeout and the delays of that thread.
    ///
    /// A peer that sends a byte now and then does not stall. Set a
    /// [`block_deadline`](Self::block_deadline) against that.
    ///
    /// # Panics
    ///
    /// Waiting panics outside a tokio runtime with its time driver on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tokio::io::AsyncWriteExt;
    /// # use wholeblock::{BlockCodec, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> std::io::Result<()> {
    /// # let (mut peer, socket) = tokio::io::duplex(64);
    /// let mut blocks = BlockTransport::new(socket, BlockCodec::length_prefixed())
    ///     .stall_timeout(Duration::from_secs(60)) // silent, between blocks or inside of one
    ///     .block_deadline(Duration::from_secs(10)); // begun, and not whole
    ///
    /// let stalled = blocks.next().await.expect("no end").unwrap_err();
    /// assert_eq!(stalled.to_string(), "nothing moved for 60s at block 0, which begins at byte 0");
    /// peer.write_all(b"\0\0\0\x05hell").await?; // and no more
    /// let late = blocks.next().await.expect("no end").unwrap_err();
    /// assert_eq!(
    ///     late.to_string(),
    ///     "block 0, which begins at byte 0, took longer than 10s",
    /// );
    /// peer.write_all(b"o").await?;
    /// assert_eq!(blocks.next().await.expect("no end")?, "hello"); // it has gone on
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts_mut().set_stall(timeout);
        self
    }

    /// Returns [`BlockError::Late`] if a block is not whole within `deadline` of its first bytes, however
    /// steadily the others arrive. The stream has not ended then: ask again to give the block as long
    /// once more. The deadline applies to every way of receiving, as
    /// [`stall_timeout`](Self::stall_timeout) does.
    ///
    /// The time begins when a read leaves a part of a block and no more, and goes on whether or not
    /// anybody waits. The deadline is looked at after each read that leaves the block unfinished, and
    /// while a read must wait. A block that is whole after a read is returned, however late. Nothing
    /// limits the time between two blocks: [`stall_timeout`](Self::stall_timeout) does.
    ///
    /// # Panics
    ///
    /// As [`stall_timeout`](Self::stall_timeout), whose example shows both.
    #[must_use]
    pub fn block_deadline(mut self, deadline: Duration) -> Self {
        self.timeouts_mut().set_block(deadline);
        self
    }

    /// Returns [`BlockError::Stalled`] if the transport below takes no bytes for `timeout` while
    /// something waits to be written, flushed or closed. The transport remains usable, and what is
    /// queued stays: ask again to keep waiting.
    ///
    /// The timeout applies to every way of sending: [`send`](Self::send), [`feed`](Self::feed),
    /// [`flush`](Self::flush), [`close`](Self::close), the `Sink`, and
    /// [`send_blocks`](crate::send_blocks), which may set its own.
    ///
    /// The time begins when a write or a flush must wait, and ends when the transport below takes bytes.
    /// It includes time in which nobody asks, because the peer can read all the same. The transport is
    /// tried once more before the error is returned. Its `index` is that of the next block to be
    /// queued, because the codec does not know where the blocks in the queue end.
    ///
    /// # Panics
    ///
    /// Waiting panics outside a tokio runtime with its time driver on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use wholeblock::{BlockCodec, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let (near, _silent) = tokio::io::duplex(4); // takes 4 bytes, which nobody reads
    /// let mut blocks = BlockTransport::new(near, BlockCodec::length_prefixed())
    ///     .write_timeout(Duration::from_secs(30));
    /// let error = blocks.send("hello").await.unwrap_err();
    /// assert_eq!(error.to_string(), "nothing moved for 30s at block 1, which begins at byte 9");
    /// # }
    /// ```
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeouts
            .get_or_insert_with(Box::default)
            .set_stall(timeout);
        self
    }

    fn timeouts_mut(&mut self) -> &mut Timeouts {
        self.timeouts.get_or_insert_with(Box::default)
    }

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

    /// Queues a block of any [`Payload`], and flushes.
    ///
    /// # Errors
    ///
    /// [`BlockError::WrongSize`] or [`BlockError::WrongHeader`] for a block that the codec refuses, and
    /// any error of the transport.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped has taken the block whole or not at all. If it is kept,
    /// [`SendBlock::into_payload`] tells which, and returns a payload that was not taken. So a retry
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
    /// assert!(sending.into_payload().is_none()); // it is queued, and goes on with the next flush
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
        T: AsyncWrite + Unpin,
        P: Payload,
    {
        SendBlock {
            feed: self.feed(payload),
        }
    }

    /// Queues a block of any [`Payload`]. Waits for the transport only if a whole write is queued: see
    /// [Sending](Self#sending).
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
        T: AsyncWrite + Unpin,
        P: Payload,
    {
        FeedBlock {
            transport: self,
            payload: Some(payload),
        }
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
    pub fn flush(&mut self) -> Flush<'_, T, F, E>
    where
        T: AsyncWrite + Unpin,
    {
        Flush { transport: self }
    }

    /// Flushes, and shuts the sending side of the transport down, so that the peer sees its end.
    ///
    /// # Errors
    ///
    /// Any error of the transport.
    ///
    /// # Cancel safety
    ///
    /// As [`flush`](Self::flush). Close it again to go on.
    pub fn close(&mut self) -> Close<'_, T, F, E>
    where
        T: AsyncWrite + Unpin,
    {
        Close { transport: self }
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

    /// Goes on with other settings of the framing, in both directions, as
    /// [`BlockCodec::with_framing`] does. For a framing of another type see
    /// [`map_codec`](Self::map_codec).
    ///
    /// ```
    /// # use wholeblock::{AnyFraming, BlockCodec, BlockError, BlockTransport, Exact, LengthPrefix};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let wire = &b"hello\0\x02me"[..]; // a greeting of 5 bytes, then blocks behind a u16
    /// let greeting = AnyFraming::from(Exact::new(5)?);
    /// let mut blocks = BlockTransport::new(wire, BlockCodec::new(greeting));
    /// assert_eq!(blocks.expect_next().await?, "hello");
    /// blocks.set_framing(LengthPrefix::u16().into());
    /// assert_eq!(blocks.expect_next().await?, "me");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_framing(&mut self, framing: F) {
        let had_failed = self.codec.has_failed();
        self.codec.set_framing(framing);
        self.errored &= self.codec.has_failed() == had_failed;
    }

    /// Replaces the transport below, and returns the former one. Everything else stays: what has been
    /// read ahead, what is queued, the timeouts.
    ///
    /// For a handshake that needs the transport itself, as STARTTLS does, put `()` in its place
    /// meanwhile. Flush first, so that nothing is queued; and look that nothing has been
    /// [read ahead](Self::read_buffer), which would be plain text that somebody slipped in.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport};
    /// # async fn handshake<T>(socket: T) -> T { socket }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BlockError> {
    /// # let (near, far) = tokio::io::duplex(64);
    /// # let mut peer = BlockTransport::new(far, BlockCodec::length_prefixed());
    /// # peer.send("ready").await?;
    /// let mut blocks = BlockTransport::new(near, BlockCodec::length_prefixed());
    /// blocks.send("STARTTLS").await?;
    /// assert_eq!(blocks.expect_next().await?, "ready");
    /// assert!(blocks.read_buffer().is_empty());
    ///
    /// let (socket, rest) = blocks.replace_io(());
    /// let (_, mut blocks) = rest.replace_io(handshake(socket).await);
    /// blocks.send("in private").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn replace_io<T2>(self, io: T2) -> (T, BlockTransport<T2, F, E>) {
        let transport = BlockTransport {
            io,
            codec: self.codec,
            read_buf: self.read_buf,
            errored: self.errored,
            timeouts: self.timeouts,
            write_timeouts: self.write_timeouts,
            writer: self.writer,
        };
        (self.io, transport)
    }

    /// Returns what has been moved so far, in both directions.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BlockError> {
    /// # let (near, far) = tokio::io::duplex(64);
    /// let mut near = BlockTransport::new(near, BlockCodec::length_prefixed());
    /// let mut far = BlockTransport::new(far, BlockCodec::length_prefixed());
    /// near.send("hello").await?;
    /// far.expect_next().await?;
    /// near.feed("queued").await?;
    ///
    /// let (sent, received) = (near.stats(), far.stats());
    /// assert_eq!((sent.sent_blocks, sent.sent_bytes, sent.writes), (2, 9, 1));
    /// assert_eq!((received.received_blocks, received.received_bytes, received.reads), (1, 9, 1));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn stats(&self) -> TransportStats {
        let received = self.codec.decode.position();
        let reads = self.codec.decode.read_stats();
        let (sent_bytes, writes) = self.writer.written();
        TransportStats {
            received_blocks: received.index - reads.skipped_blocks,
            received_bytes: received.offset,
            reads: reads.reads,
            fragmented_blocks: reads.fragmented_blocks,
            skipped_blocks: reads.skipped_blocks,
            sent_blocks: self.codec.encoded().index,
            sent_bytes,
            writes,
        }
    }

    /// Returns how many bytes are queued, headers included.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BlockError> {
    /// let mut blocks = BlockTransport::new(vec![], BlockCodec::length_prefixed());
    /// blocks.feed("hello").await?;
    /// assert_eq!(blocks.queued(), 9);
    /// blocks.flush().await?;
    /// assert_eq!(blocks.queued(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn queued(&self) -> usize {
        self.writer.len()
    }

    /// A `Framed` with everything that has arrived in its read buffer, and everything that is
    /// queued in its write buffer. The timeouts have no place in it: set them again on the way back.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BlockError> {
    /// # let (near, _far) = tokio::io::duplex(64);
    /// let mut transport = BlockTransport::new(near, BlockCodec::length_prefixed());
    /// transport.feed("hello").await?; // queued, and not sent
    /// let framed = transport.into_framed();
    /// assert_eq!(framed.write_buffer(), &b"\0\0\0\x05hello"[..]);
    /// # let transport =
    /// BlockTransport::from(framed); // and back
    /// # drop(transport);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn into_framed(mut self) -> Framed<T, BlockCodec<F, E>> {
        self.writer.count(&mut self.codec);
        let mut parts = FramedParts::new::<Bytes>(self.io, self.codec);
        parts.read_buf = self.read_buf;
        self.writer.spill(&mut parts.write_buf);
        Framed::from_parts(parts)
    }

    /// Changes the codec, and keeps all that has been read ahead and all that is queued: to go on
    /// with another framing, see [`BlockCodec::with_framing`].
    #[must_use]
    pub fn map_codec<F2, E2>(
        mut self,
        map: impl FnOnce(BlockCodec<F, E>) -> BlockCodec<F2, E2>,
    ) -> BlockTransport<T, F2, E2> {
        self.writer.count(&mut self.codec);
        let had_failed = self.codec.has_failed();
        let codec = map(self.codec);
        BlockTransport {
            io: self.io,
            // A codec that can go on does so at once, without the `None` after an error.
            errored: self.errored && codec.has_failed() == had_failed,
            codec,
            read_buf: self.read_buf,
            timeouts: self.timeouts,
            write_timeouts: self.write_timeouts,
            writer: self.writer,
        }
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

    /// Waits until there is room for another block.
    #[inline]
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>>
    where
        T: AsyncWrite + Unpin,
    {
        if self.writer.has_capacity() {
            return Poll::Ready(Ok(()));
        }
        self.poll_capacity(cx)
    }

    #[inline]
    fn queue(&mut self, block: impl Payload) -> Result<(), E>
    where
        T: AsyncWrite + Unpin,
    {
        let vectored = self.io.is_write_vectored();
        self.writer
            .push(&mut self.codec, block, vectored, |_, _| {})?;
        Ok(())
    }

    /// Writes until there is room for another block.
    #[cold]
    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>>
    where
        T: AsyncWrite + Unpin,
    {
        while !self.writer.has_capacity() {
            ready!(self.poll_write(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>>
    where
        T: AsyncWrite + Unpin,
    {
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
        self.writer.count(&mut self.codec);
        let Position { index, offset } = self.codec.encoded();
        Poll::Ready(Err(expired.at(index, offset).into()))
    }
}

impl<T, F, E> BlockTransport<T, F, E> {
    /// The transport below.
    #[must_use]
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// The transport below. Bytes that are read from or written to it directly are lost to the
    /// blocks.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.io
    }

    /// The transport below, without what has been read ahead and without what is queued: see
    /// [`replace_io`](Self::replace_io) and [`into_framed`](Self::into_framed) to keep both.
    #[must_use]
    pub fn into_inner(self) -> T {
        self.io
    }

    /// The codec.
    #[must_use]
    pub fn codec(&self) -> &BlockCodec<F, E> {
        &self.codec
    }

    /// The codec, to change a limit, say.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport, LengthPrefix};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let wire = &b"\x05hello\x05again"[..];
    /// let mut blocks = BlockTransport::new(wire, BlockCodec::new(LengthPrefix::u8()));
    /// assert_eq!(blocks.next().await.expect("a block")?, "hello");
    /// assert_eq!(blocks.read_buffer(), &b"\x05again"[..]); // read ahead …
    /// assert!(blocks.get_ref().is_empty()); // … from what is below
    ///
    /// blocks.codec_mut().set_max_block_len(4)?;
    /// assert_eq!(blocks.codec().max_decode_len(), 4);
    /// let error = blocks.next().await.expect("an error").unwrap_err();
    /// assert!(matches!(error, BlockError::TooLarge { announced: 5, limit: 4, index: 1, .. }));
    /// assert!(blocks.into_inner().is_empty()); // what was read ahead is gone
    /// # Ok(())
    /// # }
    /// ```
    pub fn codec_mut(&mut self) -> &mut BlockCodec<F, E> {
        self.writer.count(&mut self.codec); // the caller may replace it
        &mut self.codec
    }

    /// What has arrived and has not been taken.
    #[must_use]
    pub fn read_buffer(&self) -> &BytesMut {
        &self.read_buf
    }
}

/// Nothing in here is pinned: the transport is `Unpin` wherever it is used.
impl<T, F, E> Unpin for BlockTransport<T, F, E> {}

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

impl<T, F, E> From<FramedParts<T, BlockCodec<F, E>>> for BlockTransport<T, F, E>
where
    F: Framing,
    E: CodecError,
{
    /// Takes over what has been read ahead and what has not been written.
    fn from(parts: FramedParts<T, BlockCodec<F, E>>) -> Self {
        let mut transport = Self::new(parts.io, parts.codec);
        transport.codec.decode.adopt(&parts.read_buf);
        transport.read_buf = parts.read_buf;
        transport.writer.push_raw(&parts.write_buf);
        transport
    }
}

impl<T, F, E> From<Framed<T, BlockCodec<F, E>>> for BlockTransport<T, F, E>
where
    F: Framing,
    E: CodecError,
{
    /// Takes over what has been read ahead and what has not been written.
    fn from(framed: Framed<T, BlockCodec<F, E>>) -> Self {
        framed.into_parts().into()
    }
}

impl<T: fmt::Debug, F: fmt::Debug, E> fmt::Debug for BlockTransport<T, F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockTransport")
            .field("io", &self.io)
            .field("codec", &self.codec)
            .field("read", &self.read_buf.len())
            .field("queued", &self.writer.len())
            .finish_non_exhaustive()
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

impl<T, F, E> AsFramedWrite for BlockTransport<T, F, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
}

#[expect(
    private_interfaces,
    reason = "sealed: nobody else calls or implements it"
)]
impl<T, F, E> sealed::FramedWrite for BlockTransport<T, F, E>
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

    fn hand_over_timeouts(&mut self) -> Timeouts {
        let timeouts = self.write_timeouts.as_mut();
        timeouts.map_or_else(Timeouts::default, |timeouts| timeouts.hand_over())
    }

    fn held(&self) -> usize {
        self.writer.len()
    }

    /// Not as a sink, because the transfer has timeouts.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        while !self.writer.is_empty() {
            ready!(self.codec.poll_charge(cx));
            ready!(self.writer.poll_write(&mut self.io, cx))?;
        }
        self.writer.poll_flush(&mut self.io, cx).map_err(E::from)
    }

    fn keep(&mut self, _own: &BlockWriter) {}
}
