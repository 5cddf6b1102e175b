//! The codec: a `Decoder` that is a state machine over the read buffer, and the `Encoder` that is
//! its inverse.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Decoder, Encoder, Framed};
use tracing::trace;

use crate::{
    BlockError, ConfigError, Exact, Framing, LengthPrefix, Part,
    frame::{FrameLen, Parsed, parse_frame},
    read_buf::{HEADER_SLACK, INITIAL_CAPACITY, ReadBufPolicy, reclaim_exceeds},
    write::MAX_WRITE,
};

/// Backpressure boundary of a `Framed` of [`BlockCodec::framed`], where blocks differ in length:
/// one block of up to 4 KiB more still leaves with those before it as one segment.
const WRITE_BOUNDARY: usize = MAX_WRITE - 4 * 1024;

/// Turns bytes into whole blocks and back, for [`Framed`] and its halves.
///
/// Decodes to `BytesMut`, encodes from `Bytes`; every failure is a [`BlockError`].
///
/// ```
/// use bytes::Bytes;
/// use futures::{SinkExt, StreamExt};
/// use tokio_util::codec::Framed;
/// use wholeblock::{BlockCodec, BlockError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BlockError> {
/// let (near, far) = tokio::io::duplex(1024); // or a TcpStream, TLS, a named pipe …
///
/// let mut near = Framed::new(near, BlockCodec::length_prefixed());
/// near.send(Bytes::from("hello")).await?; // 00 00 00 05 h e l l o
///
/// let mut far = Framed::new(far, BlockCodec::length_prefixed());
/// let block = far.next().await.expect("not the end yet")?;
/// assert_eq!(block, "hello");
/// # Ok(())
/// # }
/// ```
///
/// # Backpressure boundary
///
/// `codec.framed(io)` raises `Framed`'s backpressure boundary from 8 KiB to 56 KiB (for blocks of
/// one length: the most whole blocks that fit 60 KiB), and allocates no write buffer before
/// something is sent. Small blocks that are fed one after another then leave in fewer writes: three
/// times as fast for 1 KiB blocks over loopback. For blocks of 16 to 56 KiB that differ in length,
/// prefer `set_backpressure_boundary(30 * 1024)`.
///
/// # Memory
///
/// The read buffer follows what has arrived, never what a header announces. It starts as `Framed`
/// made it (8 KiB) and at most doubles each time arriving bytes have filled it: up to 64 KiB for
/// batches of small blocks, up to its own length for a large block. Only a connection that has
/// completed a block of n bytes is given room for the next n at once. Between blocks no more than
/// [`max_retained`](Self::max_retained) is kept. A connection that waits in
/// [`recv_blocks`](crate::recv_blocks) leaves its 64 KiB to the next one to read on its thread, and
/// holds 8 KiB.
///
/// # After an error
///
/// Framing errors are fatal. Later polls return the same error or the end of the stream, never
/// another block.
#[doc(alias = "frame")]
#[doc(alias = "message")]
#[doc(alias = "delimited")]
#[doc(alias = "LengthDelimitedCodec")]
#[derive(Debug)]
pub struct BlockCodec<F> {
    framing: F,
    state: State,
    /// Answer that a whole block is there, and leave it in the buffer.
    peek: bool,
    /// Whether `decode` has but to take the next small block: `Draining` and no `peek`, in one flag
    /// that costs each block one test. Set where either is, by [`update_fast`](Self::update_fast).
    fast: bool,
    position: Position,
    stats: ReadStats,
    read_buf: ReadBufPolicy,
}

/// What the decoder is about to do.
///
/// | state | a whole block in front | a part of a block | a header that is not allowed |
/// |---|---|---|---|
/// | `AwaitingRead` | record the read; go on as `Draining` | record the read; reserve; stay | record the read; `Failed` |
/// | `Draining` | take it; stay | reserve; `AwaitingRead` | `Failed` |
/// | `Failed` | the error again | the error again | the error again |
///
/// ```text
///                  a block is whole
///  ┌──────────────┐ ─────────────────► ┌──────────┐ ◄─┐
///  │ AwaitingRead │                    │ Draining │   │ a block is taken
///  └──────────────┘ ◄───────────────── └──────────┘ ──┘
///    │  ▲   │       no whole block left      │
///    └──┘   │                                │ bad header
///  not yet  │   ┌────────┐ ◄─────────────────┘
///           └──►│ Failed │
///               └────────┘
///       bad header, or the end inside a block
/// ```
///
/// While peeking, "take it" becomes "answer with an empty buffer, and leave the block".
enum State {
    /// A read has been asked for; the buffer then held `buffered` bytes, all of an unfinished
    /// block.
    AwaitingRead { buffered: usize },
    /// Blocks of the last read are being taken.
    Draining,
    /// There are no more blocks, for this reason. It cannot be kept as a [`BlockError`], which is
    /// not `Clone`.
    Failed(Box<dyn Fn(Position) -> BlockError + Send + Sync>),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AwaitingRead { buffered } => f
                .debug_struct("AwaitingRead")
                .field("buffered", buffered)
                .finish(),
            Self::Draining => f.write_str("Draining"),
            Self::Failed(_) => f.write_str("Failed"),
        }
    }
}

/// Where in the stream the block at the front of the buffer begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    /// Whole blocks before it.
    pub(crate) index: u64,
    /// Bytes before it.
    pub(crate) offset: u64,
}

/// What the reads brought.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadStats {
    /// Reads that brought bytes.
    pub(crate) reads: u64,
    /// Whole blocks that arrived over more than one read.
    pub(crate) fragmented_blocks: u64,
}

impl BlockCodec<Exact> {
    /// Every block is exactly `len` bytes, and nothing else is on the wire.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for 0, and for what no allocation can hold.
    pub fn exact(len: usize) -> Result<Self, ConfigError> {
        Exact::new(len).map(Self::new)
    }
}

impl BlockCodec<LengthPrefix> {
    /// A big-endian u32 before each block says how long it is; 8 MiB at most.
    #[must_use]
    pub fn length_prefixed() -> Self {
        Self::new(LengthPrefix::u32())
    }
}

impl<F: Framing> BlockCodec<F> {
    /// Blocks delimited by `framing`.
    #[must_use]
    pub fn new(framing: F) -> Self {
        Self {
            framing,
            state: State::AwaitingRead { buffered: 0 },
            peek: false,
            fast: false,
            position: Position::default(),
            stats: ReadStats::default(),
            read_buf: ReadBufPolicy::default(),
        }
    }

    /// Sets the largest buffer, in payload bytes, that is kept between blocks; 1 MiB by default.
    ///
    /// A longer block is given away together with its buffer. Raise it where most blocks are
    /// longer, and each would otherwise cost an allocation. Lower it where there are many
    /// connections and memory counts for more than speed: below 64 KiB, it bounds the batches of
    /// small blocks too. Less than 8 KiB counts as 8 KiB, with which `Framed` begins.
    #[must_use]
    pub fn max_retained(mut self, bytes: usize) -> Self {
        self.read_buf.set_max_retained(bytes);
        self
    }

    /// How blocks are delimited.
    #[must_use]
    pub fn framing(&self) -> &F {
        &self.framing
    }

    /// Appends the header of a payload of `len` bytes to `dst`, or refuses it.
    #[inline]
    pub(crate) fn encode_header(
        &self,
        len: usize,
        dst: &mut impl BufMut,
    ) -> Result<(), BlockError> {
        let lens = self.framing.block_lens();
        if !lens.contains(&len) {
            return Err(BlockError::WrongSize {
                min: *lens.start(),
                max: *lens.end(),
                actual: len,
            });
        }
        self.framing.encode_header(len, dst);
        Ok(())
    }

    /// The backpressure boundary for `Framed`: see [`WRITE_BOUNDARY`].
    fn write_boundary(&self) -> usize {
        let lens = self.framing.block_lens();
        if lens.start() < lens.end() {
            return WRITE_BOUNDARY;
        }
        let mut header = Vec::new();
        self.framing.encode_header(*lens.end(), &mut header);
        let wire_len = header.len() + lens.end();
        (MAX_WRITE / wire_len.max(1)).max(1) * wire_len
    }

    /// The most capacity a buffer may keep between blocks.
    pub(crate) fn max_capacity(&self) -> usize {
        self.read_buf.max_capacity()
    }

    pub(crate) fn position(&self) -> Position {
        self.position
    }

    pub(crate) fn read_stats(&self) -> ReadStats {
        self.stats
    }

    /// While on, `decode` answers with an empty buffer as soon as a whole block is at the front,
    /// and leaves it there.
    pub(crate) fn set_peek(&mut self, on: bool) {
        self.peek = on;
        self.update_fast();
    }

    fn set_state(&mut self, state: State) {
        self.state = state;
        self.update_fast();
    }

    fn update_fast(&mut self) {
        self.fast = matches!(self.state, State::Draining) && !self.peek;
    }

    /// Takes note of whole blocks, of `wire_len` bytes altogether, that have left the buffer.
    #[inline]
    pub(crate) fn record_taken(&mut self, blocks: u64, wire_len: usize) {
        self.position.index += blocks;
        self.position.offset += wire_len as u64;
    }

    /// Hands the buffer's large allocation to others on this thread, before a wait for the rest of
    /// an unfinished block.
    pub(crate) fn park(&mut self, buffer: &mut BytesMut) {
        self.read_buf.park(buffer);
    }

    /// Takes a large allocation again, after such a wait and before the next read.
    pub(crate) fn unpark(&mut self, buffer: &mut BytesMut) {
        if self.read_buf.unpark(buffer) {
            let parsed = parse_frame(&self.framing, buffer);
            self.reserve(parsed, buffer);
        }
    }

    /// Takes the whole block at the front out of the buffer.
    #[inline]
    fn take(&mut self, frame: FrameLen, src: &mut BytesMut) -> BytesMut {
        self.record_taken(1, frame.wire_len);
        src.advance(frame.header_len);
        src.split_to(frame.payload_len())
    }

    /// Takes a large block out of `src` together with the allocation, which `src` would otherwise
    /// share and keep alive.
    fn take_detached(&mut self, frame: FrameLen, src: &mut BytesMut) -> BytesMut {
        let rest = BytesMut::from(&src[frame.wire_len..]);
        let block = self.take(frame, src);
        *src = rest;
        block
    }

    /// The decoder's step in every case but one: that the next small block is whole and is to be
    /// taken.
    ///
    /// Not inlined, so that the common case has a single place that moves a block: a second one
    /// would have the compiler merge the two through memory, and a load of what was stored a moment
    /// ago in other widths stalls (store forwarding).
    #[cold]
    fn decode_slow(&mut self, src: &mut BytesMut) -> Result<Option<BytesMut>, BlockError> {
        if let State::Failed(error) = &self.state {
            // Nothing after the failure can be told apart, so none of it is kept.
            src.clear();
            return Err(error(self.position));
        }
        let parsed = parse_frame(&self.framing, src);
        if let State::AwaitingRead { buffered } = self.state {
            self.record_read(buffered, parsed, src);
        }
        match parsed {
            Parsed::Complete(_) if self.peek => Ok(Some(BytesMut::new())),
            Parsed::Complete(frame) if frame.wire_len > self.read_buf.max_capacity() => {
                Ok(Some(self.take_detached(frame, src)))
            }
            Parsed::Complete(frame) => Ok(Some(self.take(frame, src))),
            Parsed::PartialPayload(_) | Parsed::PartialHeader { .. } => {
                self.reserve(parsed, src);
                let buffered = src.len();
                self.set_state(State::AwaitingRead { buffered });
                Ok(None)
            }
            Parsed::TooLarge { announced, limit } => self.fail(move |at| BlockError::TooLarge {
                announced,
                limit: limit as u64,
                index: at.index,
                offset: at.offset,
            }),
            Parsed::Invalid(invalid) => self.fail(move |at| BlockError::InvalidHeader {
                reason: invalid.0,
                index: at.index,
                offset: at.offset,
            }),
        }
    }

    /// Takes note of what a read has brought, once it has.
    fn record_read(&mut self, buffered: usize, parsed: Parsed, src: &BytesMut) {
        let bytes = src.len().saturating_sub(buffered);
        if bytes > 0 {
            trace!(bytes, "read");
            self.stats.reads += 1;
            self.read_buf.record_read(src);
        }
        if let Some(frame) = parsed.complete() {
            self.stats.fragmented_blocks += u64::from(buffered > 0);
            self.read_buf.record_block(frame.wire_len);
        }
        self.set_state(State::Draining);
    }

    /// Reserves capacity for a read that brings the rest of an unfinished block.
    fn reserve(&mut self, parsed: Parsed, src: &mut BytesMut) {
        match parsed {
            Parsed::PartialPayload(frame) => self.read_buf.reserve(src, frame.wire_len),
            Parsed::PartialHeader { at_least } => self.read_buf.reserve_unknown(src, at_least),
            Parsed::Complete(_) | Parsed::TooLarge { .. } | Parsed::Invalid(_) => {}
        }
    }

    /// Ends the stream of blocks with the error that `error` makes.
    #[cold]
    fn fail<T>(
        &mut self,
        error: impl Fn(Position) -> BlockError + Send + Sync + 'static,
    ) -> Result<T, BlockError> {
        let first = error(self.position);
        self.set_state(State::Failed(Box::new(error)));
        Err(first)
    }

    /// Fails for the end of the stream inside a block, of which `received` bytes are there.
    fn fail_truncated<T>(
        &mut self,
        part: Part,
        expected: usize,
        received: usize,
    ) -> Result<T, BlockError> {
        self.fail(move |at| BlockError::Truncated {
            part,
            expected: expected as u64,
            received: received as u64,
            index: at.index,
            offset: at.offset,
        })
    }
}

impl<F: Framing> Decoder for BlockCodec<F> {
    type Item = BytesMut;
    type Error = BlockError;

    #[inline]
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<BytesMut>, BlockError> {
        if !self.fast {
            return self.decode_slow(src);
        }
        match parse_frame(&self.framing, src).complete() {
            Some(frame) if frame.wire_len <= self.read_buf.max_capacity() => {
                Ok(Some(self.take(frame, src)))
            }
            _ => self.decode_slow(src),
        }
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<BytesMut>, BlockError> {
        if matches!(self.state, State::Failed(_)) {
            return self.decode_slow(src);
        }
        // No room is reserved for the rest of a block that will not come.
        match parse_frame(&self.framing, src) {
            Parsed::PartialHeader { .. } | Parsed::PartialPayload(_) if src.is_empty() => Ok(None),
            Parsed::PartialHeader { at_least } => {
                self.fail_truncated(Part::Header, at_least, src.len())
            }
            Parsed::PartialPayload(frame) => {
                let received = src.len() - frame.header_len;
                self.fail_truncated(Part::Payload, frame.payload_len(), received)
            }
            Parsed::Complete(_) | Parsed::TooLarge { .. } | Parsed::Invalid(_) => self.decode(src),
        }
    }

    fn framed<T: AsyncRead + AsyncWrite>(self, io: T) -> Framed<T, Self> {
        let mut framed = Framed::new(io, self);
        let boundary = framed.codec().write_boundary();
        framed.set_backpressure_boundary(boundary);
        *framed.write_buffer_mut() = BytesMut::new();
        framed
    }
}

// Encodes `Bytes` and nothing else, so that `framed.close()` infers the type of the sink's items.
impl<F: Framing> Encoder<Bytes> for BlockCodec<F> {
    type Error = BlockError;

    fn encode(&mut self, block: Bytes, dst: &mut BytesMut) -> Result<(), BlockError> {
        let most = self.max_capacity().max(block.len() + HEADER_SLACK);
        if reclaim_exceeds(dst, most) {
            *dst = BytesMut::new();
        }
        if dst.capacity() == 0 {
            dst.reserve(INITIAL_CAPACITY);
        }
        self.encode_header(block.len(), dst)?;
        dst.extend_from_slice(&block);
        Ok(())
    }
}
