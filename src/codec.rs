//! The codec: a `Decoder` that is a state machine over the read buffer, and the `Encoder` that is
//! its inverse.

use std::{
    fmt,
    marker::PhantomData,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};
use tracing::trace;

use crate::{
    BlockError, CodecError, ConfigError, Exact, Framing, LengthPrefix, Part,
    coop::Meter,
    frame::{FrameLen, FrameParser, Parsed},
    read_buf::{HEADER_SLACK, INITIAL_CAPACITY, ReadBufPolicy, reclaim_exceeds},
};

/// Turns bytes into whole blocks and back, for
/// [`BlockTransport`](crate::BlockTransport), or for
/// [`Framed`](tokio_util::codec::Framed) and its halves.
///
/// Decodes to `BytesMut`, encodes from `Bytes`. Every failure is a [`BlockError`], or what
/// [`err_into`](Self::err_into) makes of it.
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
/// # Memory
///
/// The read buffer follows what has arrived, never what a header announces. It starts as `Framed`
/// made it (8 KiB) and at most doubles each time arriving bytes have filled it: up to 64 KiB for
/// batches of small blocks, up to its own length for a large block. Only a connection that has
/// completed a block of n bytes is given room for the next n at once. Between blocks no more than
/// [`max_retained`](Self::max_retained) is kept. A connection that waits in
/// [`recv_blocks`](crate::recv_blocks) or in a [`BlockTransport`](crate::BlockTransport) leaves its
/// 64 KiB to the next one to read on its thread, and holds 8 KiB.
///
/// # After an error
///
/// Framing errors are fatal. Later polls return the same error or the end of the stream, never
/// another block.
///
/// # Clone
///
/// A clone is a fresh codec with the same settings, for another stream: it starts at block 0.
#[doc(alias = "frame")]
#[doc(alias = "message")]
#[doc(alias = "delimited")]
#[doc(alias = "LengthDelimitedCodec")]
pub struct BlockCodec<F, E = BlockError> {
    /// Of what is received.
    parser: FrameParser<F>,
    /// The limit for receiving from the block after this one on, where this one is half received
    /// and may be longer.
    next_max: Option<usize>,
    /// Bytes of the longest payload to send.
    encode_max: usize,
    /// Blocks encoded so far.
    encoded: u64,
    state: State,
    /// Answer that a whole block is there, and leave it in the buffer.
    peek: bool,
    /// Whether `decode` has but to take the next small block: `Draining`, no `peek` and no
    /// `next_max`, in one flag that costs each block one test. Set where any of these is, by
    /// [`update_fast`](Self::update_fast).
    fast: bool,
    position: Position,
    stats: ReadStats,
    read_buf: ReadBufPolicy,
    /// Blocks taken and blocks encoded, against the task's budget.
    taken_meter: Meter,
    encoded_meter: Meter,
    error: PhantomData<fn() -> E>,
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
        Self::with_parser(FrameParser::new(framing))
    }
}

impl<F: Framing, E> BlockCodec<F, E> {
    fn with_parser(parser: FrameParser<F>) -> Self {
        Self {
            encode_max: parser.max(),
            parser,
            next_max: None,
            encoded: 0,
            state: State::AwaitingRead { buffered: 0 },
            peek: false,
            fast: false,
            position: Position::default(),
            stats: ReadStats::default(),
            read_buf: ReadBufPolicy::default(),
            taken_meter: Meter::default(),
            encoded_meter: Meter::default(),
            error: PhantomData,
        }
    }

    /// Changes the type of the errors: `codec.err_into::<io::Error>()` for whatever expects a
    /// transport to fail with an [`io::Error`](std::io::Error). The [`BlockError`] is inside, and
    /// `error.downcast::<BlockError>()` gives it back.
    ///
    /// ```
    /// use std::io;
    /// use wholeblock::{BlockCodec, LengthPrefix};
    ///
    /// let codec: BlockCodec<LengthPrefix, io::Error> = BlockCodec::length_prefixed().err_into();
    /// ```
    #[must_use]
    pub fn err_into<E2: CodecError>(self) -> BlockCodec<F, E2> {
        BlockCodec {
            parser: self.parser,
            next_max: self.next_max,
            encode_max: self.encode_max,
            encoded: self.encoded,
            state: self.state,
            peek: self.peek,
            fast: self.fast,
            position: self.position,
            stats: self.stats,
            read_buf: self.read_buf,
            taken_meter: self.taken_meter,
            encoded_meter: self.encoded_meter,
            error: PhantomData,
        }
    }

    /// Sets the longest payload, in bytes, in both directions, from the next block on: at most what
    /// the framing carries.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if `max` is outside [`Framing::block_lens`]; nothing is changed then.
    pub fn set_max_block_len(&mut self, max: usize) -> Result<(), ConfigError> {
        self.set_max_encode_len(max)?;
        self.set_max_decode_len(max)
    }

    /// Sets the longest payload to receive, in bytes, from the next block on. A block of which a
    /// part has been received, and found to be within the limit, is not refused afterwards.
    ///
    /// # Errors
    ///
    /// As [`set_max_block_len`](Self::set_max_block_len).
    pub fn set_max_decode_len(&mut self, max: usize) -> Result<(), ConfigError> {
        self.check_limit(max)?;
        let half_received = matches!(self.state, State::AwaitingRead { buffered } if buffered > 0);
        if half_received && max < self.parser.max() {
            self.next_max = Some(max);
        } else {
            self.next_max = None;
            self.parser.set_max(max);
        }
        self.update_fast();
        Ok(())
    }

    /// Sets the longest payload to send, in bytes, from the next block on.
    ///
    /// # Errors
    ///
    /// As [`set_max_block_len`](Self::set_max_block_len).
    pub fn set_max_encode_len(&mut self, max: usize) -> Result<(), ConfigError> {
        self.check_limit(max)?;
        self.encode_max = max;
        Ok(())
    }

    fn check_limit(&self, limit: usize) -> Result<(), ConfigError> {
        let lens = self.framing().block_lens();
        if limit > *lens.end() {
            let max = *lens.end() as u64;
            return Err(ConfigError::LimitTooLarge { limit, max });
        }
        if limit < *lens.start() {
            let min = *lens.start();
            return Err(ConfigError::LimitTooSmall { limit, min });
        }
        Ok(())
    }

    /// The longest payload, in bytes, that is received.
    #[must_use]
    pub fn max_decode_len(&self) -> usize {
        self.next_max.unwrap_or(self.parser.max())
    }

    /// The longest payload, in bytes, that is sent.
    #[must_use]
    pub fn max_encode_len(&self) -> usize {
        self.encode_max
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
        self.parser.framing()
    }

    /// Appends the header of a payload of `len` bytes to `dst`, or refuses it.
    #[inline]
    pub(crate) fn encode_header(
        &mut self,
        len: usize,
        dst: &mut impl BufMut,
    ) -> Result<(), BlockError> {
        let min = *self.framing().block_lens().start();
        if len > self.encode_max || len < min {
            return Err(BlockError::WrongSize {
                min,
                max: self.encode_max,
                actual: len,
                index: self.encoded,
            });
        }
        self.encoded += 1;
        self.framing().encode_header(len, dst);
        Ok(())
    }

    /// The most capacity a buffer may keep between blocks.
    pub(crate) fn max_capacity(&self) -> usize {
        self.read_buf.max_capacity()
    }

    #[inline]
    pub(crate) fn parser(&self) -> &FrameParser<F> {
        &self.parser
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
        self.fast = matches!(self.state, State::Draining) && !self.peek && self.next_max.is_none();
    }

    /// Takes note of whole blocks, of `wire_len` bytes altogether, that have left the buffer.
    pub(crate) fn record_taken(&mut self, blocks: u64, wire_len: usize) {
        self.advance(blocks, wire_len);
        if blocks > 0 {
            self.apply_next_max();
        }
    }

    /// Whether blocks after the one at the front have another limit than it has.
    pub(crate) fn limit_changes(&self) -> bool {
        self.next_max.is_some()
    }

    fn apply_next_max(&mut self) {
        if let Some(max) = self.next_max.take() {
            self.parser.set_max(max);
            self.update_fast();
        }
    }

    #[inline]
    fn advance(&mut self, blocks: u64, wire_len: usize) {
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
            let parsed = self.parser.parse(buffer);
            self.reserve(parsed, buffer);
        }
    }

    /// Takes the whole block at the front out of the buffer.
    #[inline]
    pub(crate) fn take(&mut self, frame: FrameLen, src: &mut BytesMut) -> BytesMut {
        self.advance(1, frame.wire_len);
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

    /// Takes the block at the front of `src`, if it is whole; otherwise reserves capacity for the
    /// rest of it.
    #[inline]
    pub(crate) fn decode_block(
        &mut self,
        src: &mut BytesMut,
    ) -> Result<Option<BytesMut>, BlockError> {
        match self.next_small(src) {
            Some(frame) => Ok(Some(self.take(frame, src))),
            None => self.decode_slow(src, self.peek),
        }
    }

    /// The block at the front of `src`, if it is whole and there is nothing else to do than to
    /// [`take`](Self::take) it: most often, and the fast path.
    #[inline]
    pub(crate) fn next_small(&self, src: &BytesMut) -> Option<FrameLen> {
        if !self.fast {
            return None;
        }
        let frame = self.parser.parse(src).complete()?;
        (frame.wire_len <= self.read_buf.max_capacity()).then_some(frame)
    }

    /// As [`decode_block`](Self::decode_block), but leaves the block where it is.
    pub(crate) fn peek_block(&mut self, src: &mut BytesMut) -> Result<bool, BlockError> {
        Ok(self.decode_slow(src, true)?.is_some())
    }

    /// The end of the stream, where `rest` is left and no whole block: an error unless it is empty.
    pub(crate) fn end_of_stream(&mut self, rest: &[u8]) -> Result<(), BlockError> {
        let (part, expected, received) = match self.parser.parse(rest) {
            _ if rest.is_empty() => return Ok(()),
            Parsed::PartialHeader { at_least } => (Part::Header, at_least, rest.len()),
            Parsed::PartialPayload(frame) => {
                let received = rest.len() - frame.header_len;
                (Part::Payload, frame.payload_len(), received)
            }
            Parsed::Complete(_) | Parsed::TooLarge { .. } | Parsed::Invalid(_) => return Ok(()),
        };
        self.fail(move |at| BlockError::Truncated {
            part,
            expected: expected as u64,
            received: received as u64,
            index: at.index,
            offset: at.offset,
        })
    }

    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed(_))
    }

    /// Pays for the blocks encoded since the last call; pending, to let other tasks run, where no
    /// budget is left.
    pub(crate) fn poll_pay(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.encoded_meter.poll_pay(cx, self.encoded)
    }

    /// The decoder's step in every case but one: that the next small block is whole and is to be
    /// taken.
    ///
    /// Not inlined, so that the common case has a single place that moves a block: a second one
    /// would have the compiler merge the two through memory, and a load of what was stored a moment
    /// ago in other widths stalls (store forwarding).
    #[cold]
    fn decode_slow(
        &mut self,
        src: &mut BytesMut,
        peek: bool,
    ) -> Result<Option<BytesMut>, BlockError> {
        if let State::Failed(error) = &self.state {
            // Nothing after the failure can be told apart, so none of it is kept.
            src.clear();
            return Err(error(self.position));
        }
        let parsed = self.parser.parse(src);
        if let State::AwaitingRead { buffered } = self.state {
            self.record_read(buffered, parsed, src);
        }
        match parsed {
            Parsed::Complete(_) if peek => Ok(Some(BytesMut::new())),
            Parsed::Complete(frame) => {
                self.apply_next_max();
                Ok(Some(if frame.wire_len > self.read_buf.max_capacity() {
                    self.take_detached(frame, src)
                } else {
                    self.take(frame, src)
                }))
            }
            Parsed::PartialPayload(_) | Parsed::PartialHeader { .. } => {
                self.taken_meter.pay(self.position.index);
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
}

impl<F: Framing, E: CodecError> Decoder for BlockCodec<F, E> {
    type Item = BytesMut;
    type Error = E;

    #[inline]
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<BytesMut>, E> {
        self.decode_block(src).map_err(E::from)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<BytesMut>, E> {
        if let Some(block) = self.decode(src)? {
            return Ok(Some(block));
        }
        self.end_of_stream(src)?;
        Ok(None)
    }
}

// Encodes `Bytes` and nothing else, so that `framed.close()` infers the type of the sink's items.
impl<F: Framing, E: CodecError> Encoder<Bytes> for BlockCodec<F, E> {
    type Error = E;

    fn encode(&mut self, block: Bytes, dst: &mut BytesMut) -> Result<(), E> {
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

impl<F: Framing, E> Clone for BlockCodec<F, E> {
    fn clone(&self) -> Self {
        let mut fresh = Self::with_parser(self.parser.clone());
        fresh.parser.set_max(self.max_decode_len());
        fresh.encode_max = self.encode_max;
        fresh.read_buf = self.read_buf.fresh();
        fresh
    }
}

impl<F: fmt::Debug, E> fmt::Debug for BlockCodec<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCodec")
            .field("parser", &self.parser)
            .field("encode_max", &self.encode_max)
            .field("state", &self.state)
            .field("position", &self.position)
            .field("stats", &self.stats)
            .field("read_buf", &self.read_buf)
            .finish_non_exhaustive()
    }
}
