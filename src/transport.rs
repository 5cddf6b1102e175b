//! `BlockTransport`: a sink and a stream of blocks over the decoder and the writer, without
//! `Framed` between them and the socket.

/// Implements `Debug` for futures: shows the type's name only.
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

use std::{fmt, io, time::Duration};

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

/// Whole blocks over a byte stream, such as a TCP socket: [`next`](Self::next) receives a block,
/// [`recv`](Self::recv) and [`recv_batch`](Self::recv_batch) lend blocks, [`send`](Self::send) and
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
/// [`recv_blocks`](crate::recv_blocks) and [`send_blocks`](crate::send_blocks) work on it, too. You can
/// mix all forms on one connection: no block is lost or repeated.
///
/// # Halves
///
/// To receive and send in two tasks, split the socket with `TcpStream::into_split` or
/// `tokio::io::split`, and wrap each half in its own `BlockTransport`. Over the reading half it is a
/// `Stream`, over the writing half a `Sink`. If the transport has received before, split it with
/// [`replace_io`](Self::replace_io), which keeps what has been read ahead. To end both halves at the first
/// error, run them in one `try_join!`:
/// [`questions`](crate::questions#does-an-idle-writer-notice-that-its-peer-is-gone) has an example.
///
/// # Sending
///
/// [`feed`](Self::feed) queues a block. It waits for the transport below only if a whole write is queued.
/// The first write after a flush has 8 KiB. Each write lets the next one be longer by a quarter of its
/// own length, up to 186,792 bytes or your [`write_len`](Self::write_len). So the peer can start on a
/// burst while the rest is being queued, and a long transfer takes few writes. The queue holds at most
/// one write and one block. It is written at a flush, at a close, and once it holds a whole write, or a third
/// of one if it holds payloads that are not copied.
///
/// [`send`](Self::send) queues a block and flushes. A flush also flushes the transport below, even if
/// nothing was queued. Dropping the transport drops what is queued.
///
/// [`send_from`](Self::send_from) sends a block of any length from a reader, part by part.
///
/// # Receiving
///
/// | | a block is | for |
/// |---|---|---|
/// | [`next`](Self::next) | yours, as `BytesMut` | blocks that you keep or pass on |
/// | [`recv`](Self::recv) | lent, as `&[u8]`, without an allocation | blocks that you finish with at once |
/// | [`recv_batch`](Self::recv_batch) | lent, many in one call | very many small blocks |
/// | [`recv_into`](Self::recv_into) | in your memory | a slab, a ring, a device's buffer |
/// | [`recv_reader`](Self::recv_reader) | read part by part, by a [`BlockReader`] | blocks of any length |
///
/// You can use all of them on one connection, in any order.
///
/// All return `None` if the peer ends its stream between two blocks. They wait without limit unless you
/// set a [`stall_timeout`](Self::stall_timeout) or a [`block_deadline`](Self::block_deadline). After a
/// timeout or a [`BlockError::Skipped`] you can go on receiving.
///
/// After any other error, [`next`](Self::next) and the `Stream` return `None`, so that a loop that skips
/// errors ends. After an error of the transport below, they return `None` once and then read on. After an
/// error about the blocks themselves, they return `None` forever. [`recv`](Self::recv) and
/// [`recv_batch`](Self::recv_batch) return an error about the blocks again at each call, and read on after
/// any other error.
///
/// # Blocking
///
/// On a thread that runs a tokio runtime, do not wait for a transport with `futures::executor::block_on`
/// or any other executor than tokio's: it hangs. After at most 128 reads tokio's task budget is spent,
/// and the transport yields. Tokio wakes it in the next turn of the scheduler, which the blocked thread
/// never runs. Use [`Handle::block_on`] on a thread without a runtime:
/// [`questions`](crate::questions#how-do-i-use-it-from-blocking-code) has an example.
///
/// # Cancel safety
///
/// The transport keeps all state itself, so you can drop any of its futures at any time. The next call
/// returns a block that was not returned, and a queued block stays queued. A [`send`](Self::send) or
/// [`feed`](Self::feed) that is dropped before it has queued its block drops the block, as futures'
/// `SinkExt` does. [`into_payload`](SendBlock::into_payload) returns the block instead.
///
/// A block that is moved part by part can be left in the middle: see [`BlockReader`] and
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
    /// Limits on receiving. Boxed, because most transports set none.
    timeouts: Option<Box<Timeouts>>,
    /// Limits on sending.
    write_timeouts: Option<Box<Timeouts>>,
    writer: BlockWriter,
}

/// The end of a transport's stream, as its caller has seen it.
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
    /// Returns the end after a change of the codec. If the change undid a failure, the stream goes on.
    fn after(self, had_failed: bool, has_failed: bool) -> Self {
        match had_failed && !has_failed {
            true => Self::NotReached,
            false => self,
        }
    }
}

impl<T, F: Framing, E: CodecError> BlockTransport<T, F, E> {
    /// Wraps `io`, to send and receive blocks of `codec`. Allocates nothing before the first read or write.
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

    /// Sets a stall timeout: receiving returns [`BlockError::Stalled`] if no bytes arrive for `timeout`.
    /// The transport remains usable, and the stream has not ended: call again to keep waiting.
    ///
    /// The timeout applies to every way of receiving: [`next`](Self::next), [`recv`](Self::recv), the
    /// `Stream` and the others. If [`recv_blocks`](crate::recv_blocks) sets its own, the shorter one
    /// applies. For sending, set a [`write_timeout`](Self::write_timeout).
    ///
    /// A wait begins at the first poll that must wait, and ends when bytes arrive. Everything that has arrived
    /// is read before the error is returned. So after a stall between two blocks, the
    /// [`read_buffer`](Self::read_buffer) is empty. (Inside a block that a
    /// [`recv_reader`](Self::recv_reader) reads, it can be empty, too.)
    ///
    /// A `Stream` does not learn when its caller stops waiting. So if a poll finds too late that the timeout
    /// is over, the stream waits for one more timeout, and reports that one however late. Too late is later
    /// than the timeout itself, within the bounds of 20 ms and a second. On a thread that is busy with other
    /// tasks, the error therefore comes after twice the timeout and the delays of that thread.
    ///
    /// A peer that sends a byte now and then does not stall. Set a
    /// [`block_deadline`](Self::block_deadline) against that.
    ///
    /// # Panics
    ///
    /// Waiting panics outside a tokio runtime, and in one without a time driver.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tokio::io::AsyncWriteExt;
    /// # use wholeblock::{BlockCodec, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> std::io::Result<()> {
    /// # let (mut peer, socket) = tokio::io::duplex(64);
    /// let mut blocks = BlockTransport::new(socket, BlockCodec::length_prefixed())
    ///     .stall_timeout(Duration::from_secs(60)) // silent, between blocks or inside one
    ///     .block_deadline(Duration::from_secs(10)); // begun, but incomplete
    ///
    /// let stalled = blocks.next().await.expect("no end").unwrap_err();
    /// assert_eq!(stalled.to_string(), "nothing arrived for 60s at block 0, which begins at byte 0");
    /// peer.write_all(b"\0\0\0\x05hell").await?; // and no more
    /// let late = blocks.next().await.expect("no end").unwrap_err();
    /// assert_eq!(
    ///     late.to_string(),
    ///     "block 0, which begins at byte 0, took longer than 10s to arrive",
    /// );
    /// peer.write_all(b"o").await?;
    /// assert_eq!(blocks.next().await.expect("no end")?, "hello"); // still usable
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.set_stall_timeout(Some(timeout));
        self
    }

    /// Changes or removes the [`stall_timeout`](Self::stall_timeout) of a transport in use.
    pub fn set_stall_timeout(&mut self, timeout: Option<Duration>) {
        self.timeouts_mut().set_stall(timeout);
    }

    /// Sets a block deadline: receiving returns [`BlockError::Late`] if a block is incomplete `deadline`
    /// after its first bytes, even if bytes keep arriving. The stream has not ended: call again to give the
    /// block the same time once more. The deadline applies to every way of receiving.
    ///
    /// The clock starts when a read leaves only a part of a block in the buffer, and also runs between
    /// calls. The transport checks it after each read that leaves the block incomplete, and while a read
    /// must wait. A block that a read completes is returned, however late. The time between two blocks is
    /// limited by [`stall_timeout`](Self::stall_timeout) only.
    ///
    /// The deadline also applies to a block that a [`recv_reader`](Self::recv_reader) reads, and the caller's
    /// time between two parts counts. Give such a block more time with
    /// [`set_block_deadline`](Self::set_block_deadline).
    ///
    /// # Panics
    ///
    /// As [`stall_timeout`](Self::stall_timeout), whose example shows both.
    #[must_use]
    pub fn block_deadline(mut self, deadline: Duration) -> Self {
        self.set_block_deadline(Some(deadline));
        self
    }

    /// Changes or removes the [`block_deadline`](Self::block_deadline) of a transport in use. This does not
    /// restart the clock of a block that has begun. The rest of a block whose reader was dropped is a part of
    /// it, so keep a longer deadline until the next block has come.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tokio::io::AsyncReadExt;
    /// # use wholeblock::{BlockCodec, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let socket = &b"\0\0\0\x06upload\0\0\0\x05hello"[..];
    /// let request = Some(Duration::from_secs(10));
    /// let mut blocks = BlockTransport::new(socket, BlockCodec::length_prefixed());
    /// blocks.set_block_deadline(request);
    /// assert_eq!(blocks.expect_next().await?, "upload");
    ///
    /// blocks.set_block_deadline(Some(Duration::from_secs(3_600))); // for its content
    /// let mut content = String::new();
    /// blocks.recv_reader().await?.expect("the content").read_to_string(&mut content).await?;
    /// blocks.set_block_deadline(request);
    /// # assert_eq!(content, "hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_block_deadline(&mut self, deadline: Option<Duration>) {
        self.timeouts_mut().set_block(deadline);
    }

    /// Sets a write timeout: sending returns [`BlockError::Stalled`] if a write, a flush or a close makes no
    /// progress for `timeout`. The transport remains usable, and what is queued stays queued: call again to
    /// keep waiting.
    ///
    /// A write makes progress when the transport below takes bytes. A socket takes none while its send buffer
    /// is full. Linux waits until a third of the buffer is free, which can be more than a megabyte. A peer
    /// that reads 20 kB a second takes a minute for that. So choose a timeout that suits the slowest peer, or
    /// set a small `SO_SNDBUF` before you connect or listen.
    ///
    /// The timeout applies to every way of sending: [`send`](Self::send), [`feed`](Self::feed),
    /// [`flush`](Self::flush), [`close`](Self::close), the `Sink`, and
    /// [`send_blocks`](crate::send_blocks), unless that sets its own instead.
    ///
    /// The clock starts when a write or a flush must wait, and stops when the transport below takes bytes.
    /// It also runs between calls, because the peer can read then, too. The transport is tried once more
    /// before the error is returned. The error's `index` is that of the next block to be queued, because
    /// the codec does not know where the queued blocks end.
    ///
    /// # Panics
    ///
    /// Waiting panics outside a tokio runtime, and in one without a time driver.
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
    /// assert_eq!(error.to_string(), "nothing could be written for 30s at block 1, which begins at byte 9");
    /// # }
    /// ```
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.set_write_timeout(Some(timeout));
        self
    }

    /// Changes or removes the [`write_timeout`](Self::write_timeout) of a transport in use.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeouts
            .get_or_insert_with(Box::default)
            .set_stall(timeout);
    }

    /// Sets the length of a full write in bytes. The queue holds at most that much and one block. The default
    /// is 186,792. The length is clamped to the range from 4 KiB to 4 MiB.
    ///
    /// Payloads of 4 KiB and more are not copied if they own their bytes. They leave in whole thirds of a full
    /// write, and one third at a time if no block is longer than that.
    ///
    /// The default suits most paths, and is best on none. Best is three times what the system sends at once,
    /// which is as many whole packets as fit 64 KiB on Linux. With socket2's `SockRef`, whose `tcp_mss` is the
    /// length of a packet:
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockTransport};
    /// # #[cfg(unix)]
    /// # async fn connected(socket: tokio::net::TcpStream) -> std::io::Result<()> {
    /// let packet = socket2::SockRef::from(&socket).tcp_mss()?.max(1) as usize;
    /// let at_once = packet * (65_535 / packet).max(1);
    /// let blocks = BlockTransport::new(socket, BlockCodec::length_prefixed()).write_len(3 * at_once);
    /// # drop(blocks);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// This helps most with default socket options over another MTU than 1,500: see the sweeps in
    /// `docs/speed.md`. For many connections to slow peers, set less than the default, because each holds that
    /// much.
    #[must_use]
    pub fn write_len(mut self, bytes: usize) -> Self {
        self.writer.set_write_len(bytes);
        self
    }

    fn timeouts_mut(&mut self) -> &mut Timeouts {
        self.timeouts.get_or_insert_with(Box::default)
    }

    /// Switches to other settings of the framing, in both directions, as [`BlockCodec::with_framing`] does.
    /// For a framing of another type, use [`map_codec`](Self::map_codec).
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

    /// Takes out the transport below, for a handshake that needs it alone, such as TLS after STARTTLS. The
    /// returned `BlockTransport` keeps everything else: the codec, the statistics, the timeouts and the
    /// [`write_len`](Self::write_len). After the handshake, put the new transport in with
    /// [`map_io`](Self::map_io).
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
    ///
    /// let (socket, rest) = blocks.start_handshake()?;
    /// let socket = handshake(socket).await;
    /// let mut blocks = rest.map_io(|()| socket);
    /// blocks.send("in private").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// An [`Io`](BlockError::Io) error, and the connection is dropped:
    ///
    /// - of the kind `InvalidData`, if bytes have been [read ahead](Self::read_buffer), or a block is
    ///   incomplete. Anybody may have sent these bytes, and you would take them for something that the peer
    ///   said after the handshake. Bytes that arrive later go to the handshake.
    /// - of the kind `InvalidInput`, if a block is queued or unfinished. [`flush`](Self::flush) first, or
    ///   finish the block with [`send_rest_from`](Self::send_rest_from).
    #[doc(alias = "STARTTLS")]
    pub fn start_handshake(mut self) -> Result<(T, BlockTransport<(), F, E>), E> {
        self.settle();
        let ahead = self.read_buf.len();
        if ahead > 0 || self.codec.decode.partial(ahead).is_some() {
            let error = match ahead {
                0 => "a block is incomplete before the handshake".to_owned(),
                _ => format!("the peer sent {ahead} bytes before the handshake"),
            };
            return Err(io::Error::new(io::ErrorKind::InvalidData, error).into());
        }
        if self.queued() > 0 || self.unfinished().is_some() {
            let error = "a block is queued or unfinished before the handshake";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error).into());
        }
        Ok(self.replace_io(()))
    }

    /// Replaces the transport below, and returns the former one. Everything else stays: what has been
    /// read ahead, what is queued, the timeouts. For a handshake, call
    /// [`start_handshake`](Self::start_handshake).
    ///
    /// To split a transport that has received, put `()` in the socket's place meanwhile:
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BlockError> {
    /// # let (near, far) = tokio::io::duplex(64);
    /// # let mut peer = BlockTransport::new(far, BlockCodec::length_prefixed());
    /// # peer.feed("hello").await?;
    /// # peer.send("read ahead").await?;
    /// let mut blocks = BlockTransport::new(near, BlockCodec::length_prefixed());
    /// assert_eq!(blocks.expect_next().await?, "hello");
    /// blocks.send("welcome").await?; // so nothing is queued, which the reading half could not write
    ///
    /// let (socket, rest) = blocks.replace_io(());
    /// let (reader, writer) = tokio::io::split(socket);
    /// let (_, mut incoming) = rest.replace_io(reader);
    /// let mut outgoing = BlockTransport::new(writer, BlockCodec::length_prefixed());
    /// assert_eq!(incoming.expect_next().await?, "read ahead");
    /// # outgoing.send("").await?;
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

    /// Replaces the transport below with what `map` makes of it. Everything else stays, as with
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

    /// Returns the numbers of blocks, bytes, reads and writes so far, in both directions.
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

    /// Converts into a `Framed`, with what has been read ahead in its read buffer, and what is queued in
    /// its write buffer. The timeouts and the [`write_len`](Self::write_len) are lost: set them again after
    /// converting back.
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

    /// Replaces the codec with what `map` makes of it, for example with
    /// [another framing](BlockCodec::with_framing). What has been read ahead, what is queued and the timeouts
    /// stay.
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
    /// Returns the transport below.
    #[must_use]
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Returns the transport below. Reading from it or writing to it directly breaks the stream of blocks.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.io
    }

    /// Returns the transport below, and drops what has been read ahead and what is queued. To keep both, use
    /// [`replace_io`](Self::replace_io) or [`into_framed`](Self::into_framed).
    #[must_use]
    pub fn into_inner(self) -> T {
        self.io
    }

    /// Returns the codec.
    #[must_use]
    pub fn codec(&self) -> &BlockCodec<F, E> {
        &self.codec
    }

    /// Returns the codec, for example to change a limit.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport, LengthPrefix};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let wire = &b"\x05hello\x05again"[..];
    /// let mut blocks = BlockTransport::new(wire, BlockCodec::new(LengthPrefix::u8()));
    /// assert_eq!(blocks.next().await.expect("a block")?, "hello");
    /// assert_eq!(blocks.read_buffer(), b"\x05again"); // read ahead …
    /// assert!(blocks.get_ref().is_empty()); // … from the transport below
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

    /// Returns the bytes that have arrived and have not been taken.
    #[must_use]
    pub fn read_buffer(&self) -> &[u8] {
        &self.read_buf[self.codec.decode.lent()..]
    }

    /// Returns the present capacity of the read buffer in bytes. It stays while nothing arrives.
    #[must_use]
    pub fn read_capacity(&self) -> usize {
        self.read_buf.capacity()
    }

    /// Returns how many bytes are missing of a block that a [`send_from`](Self::send_from) has left
    /// unfinished. None if no block is unfinished.
    ///
    /// Returns `Some(0)` if all bytes have come, and the source is not known to have ended.
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

/// Nothing in here is pinned: all that uses `T` requires that it is `Unpin`.
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
