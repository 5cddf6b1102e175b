//! `BlockTransport`: a sink and a stream of blocks over the decoder and the writer, without
//! `Framed` between them and the socket.

/// Implements `Debug` for futures, which show nothing.
macro_rules! opaque_debug {
    ($($future:ident<$($of:ident),*>)*) => {$(
        impl<$($of),*> std::fmt::Debug for $future<'_, $($of),*> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($future)).finish_non_exhaustive()
            }
        }
    )*};
}

mod lend;
mod memory;
mod reader;
mod recv;
mod send;
mod send_from;

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Framed, FramedParts};

pub use self::{
    lend::{Batch, Recv, RecvBatch},
    memory::RecvInto,
    reader::{BlockReader, RecvReader},
    recv::{ExpectNext, NextBlock},
    send::{Close, FeedBlock, Flush, SendBlock},
    send_from::SendFrom,
};
use crate::{
    codec::BlockCodec,
    error::{BlockError, CodecError},
    framing::Framing,
    stats::TransportStats,
    timeout::Timeouts,
    write::BlockWriter,
};

/// Whole blocks over a transport: [`next`](Self::next) receives one, [`recv`](Self::recv) and
/// [`recv_batch`](Self::recv_batch) lend them, and [`send`](Self::send) and [`feed`](Self::feed) send
/// one. It is also a `Sink` of [`Bytes`] and a `Stream` of [`BytesMut`].
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
/// queued: 8 KiB after a flush, and a quarter of the last write more after each, up to 249,056 bytes or
/// what [`write_len`](Self::write_len) says.
/// So the peer can begin with a burst while the rest of it is queued, and a long transfer is sent in
/// few writes. The queue holds at most a write and one block. Blocks are written when a write has
/// come together, at a flush, or when the transport is closed.
///
/// [`send`](Self::send) flushes. A flush also flushes the transport below, whoever has
/// written to it. Dropping the transport drops what is queued.
///
/// [`send_from`](Self::send_from) sends a block of any length out of a reader, part by part.
///
/// # Receiving
///
/// | | a block is | for |
/// |---|---|---|
/// | [`next`](Self::next) | yours, as `BytesMut` | what is kept, or handed on |
/// | [`recv`](Self::recv) | lent, as `&[u8]`, without an allocation | what is looked at, or written elsewhere |
/// | [`recv_batch`](Self::recv_batch) | lent, many in one call | very many small blocks |
/// | [`recv_into`](Self::recv_into) | in your memory | a slab, a ring, a buffer of a device |
/// | [`recv_reader`](Self::recv_reader) | read part by part, by a [`BlockReader`] | blocks of any length |
///
/// You can use all of them on one connection, in any order.
///
/// All give `None` where the peer's stream ends between two blocks. They wait without a limit, unless a
/// [`stall_timeout`](Self::stall_timeout) or a [`block_deadline`](Self::block_deadline) is set, and go on
/// after an error of these.
///
/// After any other error, [`next`](Self::next) and the `Stream` give `None`, so that a loop that skips
/// errors ends: once after an error of the transport below, and from then on after one about the blocks
/// themselves. [`recv`](Self::recv) and [`recv_batch`](Self::recv_batch) return an error about the blocks
/// again, and go on after any other.
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
/// queued. A [`send`](Self::send) or [`feed`](Self::feed) that is dropped before it has queued its block
/// drops the block, too, as those of futures' `SinkExt` do. [`into_payload`](SendBlock::into_payload)
/// returns it instead.
///
/// A block that is moved part by part can be left in its middle: see [`BlockReader`] and
/// [`send_from`](Self::send_from).
///
/// [`Handle::block_on`]: tokio::runtime::Handle::block_on
#[doc(alias = "Framed")]
#[doc(alias = "Connection")]
pub struct BlockTransport<T, F, E = BlockError> {
    io: T,
    codec: BlockCodec<F, E>,
    read_buf: BytesMut,
    end: StreamEnd,
    /// How long receiving may wait, if that is limited. Boxed, because most transports set no timeout.
    timeouts: Option<Box<Timeouts>>,
    /// How long sending may wait.
    write_timeouts: Option<Box<Timeouts>>,
    writer: BlockWriter,
}

/// How near its end the stream of a transport is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StreamEnd {
    #[default]
    NotReached,
    /// The stream has returned an error. `None` follows once, so that a loop that skips errors ends.
    Due,
    /// The stream has returned `None`.
    Reached,
}

impl StreamEnd {
    /// The same, after a change of the codec. A codec that can go on does so at once.
    fn after(self, had_failed: bool, has_failed: bool) -> Self {
        match had_failed && !has_failed {
            true => Self::NotReached,
            false => self,
        }
    }
}

impl<T, F: Framing, E: CodecError> BlockTransport<T, F, E> {
    /// Blocks of `codec` over `io`. Allocates nothing before the first read or write.
    #[must_use]
    pub fn new(io: T, codec: BlockCodec<F, E>) -> Self {
        Self {
            io,
            codec,
            read_buf: BytesMut::new(),
            end: StreamEnd::default(),
            timeouts: None,
            write_timeouts: None,
            writer: BlockWriter::default(),
        }
    }

    /// Returns [`BlockError::Stalled`] if no bytes arrive for `timeout` while a block is waited for. The
    /// transport remains usable, and the stream has not ended: ask again to keep waiting.
    ///
    /// The timeout applies to every way of receiving: [`next`](Self::next), [`recv`](Self::recv), the
    /// `Stream` and the others. If [`recv_blocks`](crate::recv_blocks) sets its own, the shorter one
    /// applies. For sending, set a [`write_timeout`](Self::write_timeout).
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
    /// [`send_blocks`](crate::send_blocks), unless that sets its own instead.
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

    /// Sets how many bytes a full write has, which is also what the queue holds besides one block. The
    /// default is 249,056, and what is out of the range from 4 KiB to 4 MiB is taken as its nearest end.
    ///
    /// The default is good on any path, and best on none. The best are whole packets, as many as the system
    /// sends at once, which are 64 KiB on Linux, or four times as many, if the memory is there. With
    /// socket2's `SockRef`, whose `tcp_mss` is the length of a packet:
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockTransport};
    /// # #[cfg(unix)]
    /// # async fn connected(socket: tokio::net::TcpStream) -> std::io::Result<()> {
    /// let packet = socket2::SockRef::from(&socket).tcp_mss()?.max(1) as usize;
    /// let at_once = packet * (65_535 / packet).max(1);
    /// let blocks = BlockTransport::new(socket, BlockCodec::length_prefixed()).write_len(4 * at_once);
    /// # drop(blocks);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It brings most for blocks of 1 MiB and more: the sweep in `docs/speed.md` has the figures. For
    /// many connections whose peers are slow, set less than the default: each of them holds that much.
    #[must_use]
    pub fn write_len(mut self, bytes: usize) -> Self {
        self.writer.set_write_len(bytes);
        self
    }

    fn timeouts_mut(&mut self) -> &mut Timeouts {
        self.timeouts.get_or_insert_with(Box::default)
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
        self.codec.decode.remove_lent(&mut self.read_buf);
        let had_failed = self.codec.has_failed();
        self.codec.set_framing(framing);
        self.end = self.end.after(had_failed, self.codec.has_failed());
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
            end: self.end,
            timeouts: self.timeouts,
            write_timeouts: self.write_timeouts,
            writer: self.writer,
        };
        (self.io, transport)
    }

    /// Replaces the transport below by what `map` makes of it. Everything else stays, as with
    /// [`replace_io`](Self::replace_io).
    ///
    /// ```
    /// # use tokio::io::BufStream;
    /// # use wholeblock::{BlockCodec, BlockTransport};
    /// # let (near, _far) = tokio::io::duplex(64);
    /// let blocks = BlockTransport::new(near, BlockCodec::length_prefixed());
    /// let blocks = blocks.map_io(BufStream::new);
    /// # let _: BlockTransport<BufStream<_>, _> = blocks;
    /// ```
    #[must_use]
    pub fn map_io<T2>(self, map: impl FnOnce(T) -> T2) -> BlockTransport<T2, F, E> {
        let (io, rest) = self.replace_io(());
        rest.replace_io(map(io)).1
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
        self.settle();
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
        self.settle();
        let had_failed = self.codec.has_failed();
        let codec = map(self.codec);
        BlockTransport {
            io: self.io,
            end: self.end.after(had_failed, codec.has_failed()),
            codec,
            read_buf: self.read_buf,
            timeouts: self.timeouts,
            write_timeouts: self.write_timeouts,
            writer: self.writer,
        }
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
    /// assert_eq!(blocks.read_buffer(), b"\x05again"); // read ahead …
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
        self.settle(); // the caller may replace it
        &mut self.codec
    }

    /// Returns what has arrived and has not been taken.
    #[must_use]
    pub fn read_buffer(&self) -> &[u8] {
        &self.read_buf[self.codec.decode.lent()..]
    }

    /// Returns how many bytes the read buffer has capacity for at present: what is kept while nothing
    /// arrives.
    #[must_use]
    pub fn read_capacity(&self) -> usize {
        self.read_buf.capacity()
    }

    /// Returns how many bytes a block lacks that was [sent part by part](Self::send_from) and given up; none
    /// if no block is unfinished.
    ///
    /// With all bytes there, it is 0 until the source is known to have ended.
    #[must_use]
    pub fn unfinished(&self) -> Option<u64> {
        Some(self.codec.unfinished()?.missing)
    }

    /// Removes the blocks that were lent and counts the bytes that were queued, so that the codec can be
    /// used without the transport.
    fn settle(&mut self) {
        self.codec.decode.remove_lent(&mut self.read_buf);
        self.codec.count_encoded(self.writer.take_uncounted());
    }
}

/// Nothing in here is pinned: the transport is `Unpin` wherever it is used.
impl<T, F, E> Unpin for BlockTransport<T, F, E> {}

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
            .field("read", &self.read_buffer().len())
            .field("queued", &self.writer.len())
            .finish_non_exhaustive()
    }
}
