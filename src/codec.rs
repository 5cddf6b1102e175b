//! The codec, which users configure: a framing, a decoder and an encoder.

mod in_parts;

use std::{
    fmt,
    marker::PhantomData,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

pub(crate) use self::in_parts::Unfinished;
use crate::{
    coop::{Meter, SENT_PER_TURN},
    error::{BlockError, CodecError, ConfigError},
    framing::{Exact, Framing, Header, InvalidHeader, LengthPrefix, MAX_HEADER_LEN},
    payload::Payload,
    pool::INITIAL_CAPACITY,
    read::{DecodeState, FrameParser, HEADER_SLACK, Position, longest, reclaim_exceeds},
    write::{BlockLen, BlockWriter, is_shared},
};

/// A codec that turns bytes into whole blocks and back, for [`BlockTransport`](crate::BlockTransport), or
/// for [`Framed`](tokio_util::codec::Framed) and its halves.
///
/// It decodes to `BytesMut` and encodes from `Bytes`. Every error is a [`BlockError`], unless
/// [`err_into`](Self::err_into) changes the type.
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
/// The read buffer grows with what has arrived, never with what a header announces. It starts with 8 KiB,
/// as in `Framed`, and at most doubles each time arriving bytes have filled it: up to 64 KiB for batches of
/// small blocks, and up to the block's length for a large block.
///
/// * `n` bytes are reserved at once only after the connection has filled a buffer of `n` bytes or
///   completed a block of `n` bytes.
/// * Until the next block's length is known, a read brings at most 64 KiB.
/// * Between blocks, at most [`with_max_retained`](Self::with_max_retained) is kept.
/// * A block of up to 64 KiB that you keep holds at most 64 KiB, whatever came before it.
/// * A [`BlockTransport`](crate::BlockTransport) that waits holds 8 KiB. It leaves its 64 KiB to the next
///   one that reads on its thread.
///
/// # After an error
///
/// Framing errors are fatal. Later polls return the same error or the end of the stream, never
/// another block, unless you set [another framing](Self::with_framing).
///
/// The read buffer still holds everything from the refused block on. A
/// [`BlockTransport`](crate::BlockTransport) reads no more bytes. A `Framed` that is polled again reads
/// and drops them.
///
/// # Names
///
/// `with_` methods return the changed codec, `set_` methods change it in place, and nouns return a setting.
///
/// # Clone
///
/// A clone is a fresh codec with the same settings, for another stream: it starts at block 0.
#[doc(alias = "frame")]
#[doc(alias = "message")]
#[doc(alias = "delimited")]
#[doc(alias = "LengthDelimitedCodec")]
pub struct BlockCodec<F, E = BlockError> {
    pub(crate) parser: FrameParser<F>,
    /// Bytes of the longest payload to send.
    encode_max: usize,
    /// Payloads of this length or more are refused: `encode_max + 1`, or 0 while a block is unfinished. This
    /// makes both checks one test for each block.
    encode_end: usize,
    pub(crate) decode: DecodeState,
    encode: EncodeState,
    error: PhantomData<fn() -> E>,
}

/// The encoder's state.
#[derive(Clone, Copy, Debug, Default)]
struct EncodeState {
    /// Blocks encoded so far.
    blocks: u64,
    /// Bytes of these blocks, except those that are [counted](crate::write::BlockWriter::take_uncounted) later.
    bytes: u64,
    /// Meter of the encoded blocks, for the task's budget.
    meter: Meter,
    /// The next block, if it is sent part by part and has begun.
    unfinished: Option<Unfinished>,
}

impl BlockCodec<Exact> {
    /// Creates a codec for blocks of exactly `len` bytes, with nothing else on the wire.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if `len` is 0 or more than half of `isize::MAX`.
    pub fn exact(len: usize) -> Result<Self, ConfigError> {
        Exact::new(len).map(Self::new)
    }
}

impl BlockCodec<LengthPrefix> {
    /// Creates a codec for blocks of at most 8 MiB, each behind its length as a big-endian u32.
    #[must_use]
    pub fn length_prefixed() -> Self {
        Self::new(LengthPrefix::u32())
    }
}

/// Same as [`length_prefixed`](BlockCodec::length_prefixed).
impl Default for BlockCodec<LengthPrefix> {
    fn default() -> Self {
        Self::length_prefixed()
    }
}

/// Same as [`new`](BlockCodec::new).
impl<F: Framing> From<F> for BlockCodec<F> {
    fn from(framing: F) -> Self {
        Self::new(framing)
    }
}

impl<F: Framing> BlockCodec<F> {
    /// Creates a codec for blocks delimited by `framing`.
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use tokio_util::codec::Decoder;
    /// use wholeblock::{BlockCodec, BlockError, LengthPrefix};
    ///
    /// let mut arrived = BytesMut::from(&b"\x05\0hello\x02"[..]);
    /// let mut codec = BlockCodec::new(LengthPrefix::u16().little_endian());
    /// assert_eq!(codec.decode(&mut arrived)?.unwrap(), "hello");
    /// assert_eq!(codec.decode(&mut arrived)?, None); // half of a header
    /// # Ok::<(), BlockError>(())
    /// ```
    #[must_use]
    pub fn new(framing: F) -> Self {
        let encode_max = longest(framing.outgoing());
        Self {
            encode_max,
            encode_end: encode_max + 1,
            parser: FrameParser::new(framing),
            decode: DecodeState::default(),
            encode: EncodeState::default(),
            error: PhantomData,
        }
    }
}

impl<F: Framing, E> BlockCodec<F, E> {
    /// Changes the error type: `codec.err_into::<io::Error>()` serves callers that expect an
    /// [`io::Error`](std::io::Error). The [`BlockError`] is inside, and `error.downcast::<BlockError>()`
    /// returns it.
    ///
    /// tokio-serde's `Json` needs such a codec, because its errors convert into an `io::Error` but not into a
    /// `BlockError`. Its `Bincode`, `MessagePack` and `Cbor` fail with `io::Error`s, which convert into
    /// either, so they work without `err_into` too.
    ///
    /// ```
    /// use std::io;
    /// use bytes::BytesMut;
    /// use tokio_util::codec::Decoder;
    /// use wholeblock::{BlockCodec, BlockError, BlockPart};
    ///
    /// let mut codec = BlockCodec::length_prefixed().err_into::<io::Error>();
    /// let error = codec.decode_eof(&mut BytesMut::from(&b"\0\0"[..])).unwrap_err();
    /// assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    /// assert!(matches!(
    ///     error.downcast::<BlockError>()?,
    ///     BlockError::Truncated { part: BlockPart::Header, expected: 4, received: 2, .. }
    /// ));
    /// # Ok::<(), io::Error>(())
    /// ```
    #[must_use]
    pub fn err_into<E2: CodecError>(self) -> BlockCodec<F, E2> {
        BlockCodec {
            parser: self.parser,
            encode_max: self.encode_max,
            encode_end: self.encode_end,
            decode: self.decode,
            encode: self.encode,
            error: PhantomData,
        }
    }

    /// Sets the longest payload, in bytes, in both directions, from the next block on.
    ///
    /// ```
    /// use wholeblock::{BlockCodec, Framing, LengthPrefix};
    ///
    /// let mut codec = BlockCodec::new(LengthPrefix::u8());
    /// codec.set_max_block_len(100)?;
    /// codec.set_max_decode_len(200)?; // this end accepts more than it sends
    /// assert_eq!((codec.max_encode_len(), codec.max_decode_len()), (100, 200));
    /// codec.set_max_encode_len(50)?;
    /// assert_eq!((codec.max_encode_len(), codec.max_decode_len()), (50, 200));
    /// assert!(codec.set_max_block_len(256).is_err()); // 256 does not fit one byte
    /// assert_eq!(codec.framing().block_lens(), 0..=255); // what it carries has not changed
    /// # Ok::<(), wholeblock::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if `max` is below [`Framing::block_lens`] or above [`Framing::max_whole_len`]; nothing
    /// is changed then.
    pub fn set_max_block_len(&mut self, max: usize) -> Result<(), ConfigError> {
        // Before the first limit is set, because the two directions may carry different lengths.
        check_limit(self.framing(), max)?;
        self.set_max_encode_len(max)?;
        self.set_max_decode_len(max)
    }

    /// Sets the longest payload to receive, in bytes, from the next block on. A block whose header
    /// was found within the old limit is still received.
    ///
    /// # Errors
    ///
    /// Same as for [`set_max_block_len`](Self::set_max_block_len).
    pub fn set_max_decode_len(&mut self, max: usize) -> Result<(), ConfigError> {
        check_limit(self.framing(), max)?;
        self.parser.set_max(max);
        Ok(())
    }

    /// Sets the longest payload to send, in bytes, from the next block on.
    ///
    /// # Errors
    ///
    /// Same as for [`set_max_block_len`](Self::set_max_block_len). See the example there.
    pub fn set_max_encode_len(&mut self, max: usize) -> Result<(), ConfigError> {
        check_limit(self.framing().outgoing(), max)?;
        self.encode_max = max;
        self.update_encode_end();
        Ok(())
    }

    /// Sets the longest block, in bytes, that
    /// [`recv_reader`](crate::BlockTransport::recv_reader) receives part by part, from the next block on. The
    /// default is the longest that the framing carries. The limit for whole blocks does not apply. With
    /// [`skip_too_large`](Self::skip_too_large), a longer block is skipped.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let mut codec = BlockCodec::length_prefixed(); // a u32
    /// assert_eq!((codec.max_decode_len(), codec.max_reader_len()), (8 * 1024 * 1024, 4_294_967_295));
    /// codec.set_max_reader_len(1 << 30);
    /// let mut blocks = BlockTransport::new(&b"\x40\0\0\x01"[..], codec);
    /// let error = blocks.recv_reader().await.unwrap_err();
    /// assert!(matches!(error, BlockError::TooLarge { announced: 0x4000_0001, limit: 0x4000_0000, .. }));
    /// # }
    /// ```
    pub fn set_max_reader_len(&mut self, max: u64) {
        self.parser.set_max_in_parts(max);
    }

    /// Returns the longest block, in bytes, that is received [part by part](Self::set_max_reader_len).
    #[must_use]
    pub fn max_reader_len(&self) -> u64 {
        self.parser.max_in_parts()
    }

    /// Returns the longest payload, in bytes, that is [received](Self::set_max_block_len).
    #[must_use]
    pub fn max_decode_len(&self) -> usize {
        self.parser.max()
    }

    /// Returns the longest payload, in bytes, that is [sent](Self::set_max_block_len).
    #[must_use]
    pub fn max_encode_len(&self) -> usize {
        self.encode_max
    }

    /// Sets the largest buffer, in payload bytes, that is kept between blocks; 1 MiB by default.
    ///
    /// A longer block is returned together with its allocation. If the block was only borrowed, the buffer
    /// is freed at its next use.
    ///
    /// Raise this limit if most blocks are longer, because each of them costs an allocation. Lower it if
    /// there are many connections and memory matters more than speed: below 64 KiB, it bounds the batches of
    /// small blocks too. Less than 8 KiB counts as 8 KiB, the initial capacity of `Framed`.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let wire = vec![7; 100_000];
    /// let codec = BlockCodec::exact(100_000)?;
    /// for (codec, kept) in [(codec.clone(), 100_000..200_000), (codec.with_max_retained(0), 0..9_000)] {
    ///     let mut blocks = BlockTransport::new(&wire[..], codec);
    ///     assert_eq!(blocks.recv().await?.map(<[u8]>::len), Some(100_000));
    ///     assert_eq!(blocks.recv().await?, None);
    ///     assert!(kept.contains(&blocks.read_capacity()));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_max_retained(mut self, bytes: usize) -> Self {
        self.decode.set_max_retained(bytes);
        self
    }

    /// Sets whether the decoder skips blocks over the limit and goes on with the next one. By default the
    /// first one ends the stream with [`BlockError::TooLarge`].
    ///
    /// A skipped block costs no memory, however long it is. It has an index, like any block, and
    /// [`skipped_blocks`](Self::skipped_blocks) and
    /// [`TransferStats::skipped_blocks`](crate::TransferStats::skipped_blocks) count it. A tracing event at
    /// debug level, at most one a read, names the first skipped block. If the stream ends inside a skipped
    /// block, the error is [`BlockError::Truncated`].
    ///
    /// ```
    /// use bytes::BytesMut;
    /// use tokio_util::codec::Decoder;
    /// use wholeblock::{BlockCodec, BlockError, LengthPrefix};
    ///
    /// let framing = LengthPrefix::u8().max_block_len(3)?;
    /// let mut codec = BlockCodec::new(framing).skip_too_large(true);
    /// let mut arrived = BytesMut::from(&b"\x05hello\x02me"[..]);
    /// assert_eq!(codec.decode(&mut arrived)?.unwrap(), "me");
    /// assert_eq!(codec.skipped_blocks(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn skip_too_large(mut self, skip: bool) -> Self {
        self.decode.set_skip_too_large(skip);
        self
    }

    /// Sets whether the decoder returns a [`BlockError::Skipped`] for each block that it
    /// [skips](Self::skip_too_large), as soon as the header has arrived. By default it does not.
    ///
    /// The error takes the block's place in order, so that a server can answer at once. The stream goes on:
    /// poll again. Use this with a [`BlockTransport`](crate::BlockTransport), because the stream of a
    /// `Framed` ends after an error, and may leave blocks in its buffer.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport, LengthPrefix};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let framing = LengthPrefix::u8().max_block_len(3)?;
    /// let codec = BlockCodec::new(framing).skip_too_large(true).report_skipped(true);
    /// let mut blocks = BlockTransport::new(&b"\x05hello\x02me"[..], codec);
    /// let skipped = blocks.next().await.expect("an error").unwrap_err();
    /// assert!(matches!(skipped, BlockError::Skipped { announced: 5, limit: 3, index: 0, .. }));
    /// assert_eq!(blocks.next().await.expect("a block")?, "me");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn report_skipped(mut self, report: bool) -> Self {
        self.decode.set_report_skipped(report);
        self
    }

    /// Returns how many blocks over the limit have been [skipped](Self::skip_too_large).
    #[must_use]
    pub fn skipped_blocks(&self) -> u64 {
        self.decode.read_stats().skipped_blocks
    }

    /// Switches both directions to another framing, for example after a handshake.
    ///
    /// The new framing reads the bytes that have arrived and were not taken. Indices, offsets and statistics
    /// go on; the limits are the new framing's.
    ///
    /// After a framing error, the new framing reads the refused block from its first byte, for example in a
    /// server that also answers HTTP. Change the framing before you poll again: a codec that has dropped
    /// later bytes (see [above](Self#after-an-error)) remains failed.
    ///
    /// Do not use this with [`FramedRead::map_decoder`](tokio_util::codec::FramedRead::map_decoder). A
    /// `FramedRead` that has waited since its last block reads before it looks at its buffer, so it can wait
    /// although a block of the new framing is there. That read is not counted either. Convert it to a
    /// transport: `BlockTransport::from(half.into_parts()).map_codec(…)` (`into_parts` needs tokio-util
    /// 0.7.17).
    ///
    /// ```
    /// use bytes::Bytes;
    /// use futures::{SinkExt, StreamExt};
    /// use tokio_util::codec::Framed;
    /// use wholeblock::{BlockCodec, BlockTransport, LengthPrefix};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (near, far) = tokio::io::duplex(1024);
    /// let mut client = BlockTransport::new(near, BlockCodec::exact(5)?);
    /// client.send(Bytes::from("hello")).await?;
    /// let mut client = client.map_codec(|codec| codec.with_framing(LengthPrefix::u16()));
    /// client.send(Bytes::from("whatever length")).await?;
    ///
    /// // The same on a `Framed`; both blocks may have come in one read.
    /// let mut server = Framed::new(far, BlockCodec::exact(5)?);
    /// assert_eq!(server.next().await.expect("a greeting")?, "hello");
    /// let mut server = server.map_codec(|codec| codec.with_framing(LengthPrefix::u16()));
    /// assert_eq!(server.next().await.expect("a block")?, "whatever length");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_framing<F2: Framing>(mut self, framing: F2) -> BlockCodec<F2, E> {
        self.decode.change_framing();
        let mut codec = BlockCodec {
            encode_max: longest(framing.outgoing()),
            encode_end: 0,
            parser: FrameParser::new(framing),
            decode: self.decode,
            encode: self.encode,
            error: PhantomData,
        };
        codec.update_encode_end();
        codec
    }

    /// Switches to another framing of the same type, like [`with_framing`](Self::with_framing).
    pub fn set_framing(&mut self, framing: F) {
        self.decode.change_framing();
        self.encode_max = longest(framing.outgoing());
        self.update_encode_end();
        self.parser = FrameParser::new(framing);
    }

    /// Returns the framing.
    #[must_use]
    pub fn framing(&self) -> &F {
        self.parser.framing()
    }

    /// Queues `payload` behind its header, and passes their lengths to `record` before it drops the payload,
    /// because the user's `Drop` may panic. Queues nothing if the block cannot be sent.
    #[inline]
    pub(crate) fn queue<P: Payload>(
        &mut self,
        payload: P,
        vectored: bool,
        writer: &mut BlockWriter,
        record: impl FnOnce(BlockLen),
    ) -> Result<(), BlockError> {
        match self.queue_plain(&payload, vectored, writer) {
            Some(len) => record(len),
            None => record(self.queue_pieces(payload, vectored, writer)?),
        }
        Ok(())
    }

    /// Queues a copy of `payload` behind its header, if the payload is small, in one piece and
    /// [plain](Self::is_plain).
    // `always`, because with two callers the compiler would otherwise call it for each small block.
    #[inline(always)]
    pub(crate) fn queue_plain<P: Payload>(
        &mut self,
        payload: &P,
        vectored: bool,
        writer: &mut BlockWriter,
    ) -> Option<BlockLen> {
        match payload.as_piece() {
            Some(piece) if !is_shared(piece, vectored) && self.is_plain(piece.len()) => {
                Some(self.append_plain(piece, writer.room_for(piece.len())))
            }
            _ => None,
        }
    }

    /// Queues a payload that [`queue_plain`](Self::queue_plain) does not.
    #[inline(never)]
    fn queue_pieces<P: Payload>(
        &mut self,
        payload: P,
        vectored: bool,
        writer: &mut BlockWriter,
    ) -> Result<BlockLen, BlockError> {
        let announced = payload.byte_len();
        self.check_len(announced)?;
        let framing = self.framing().outgoing();
        let mut block = writer.begin(announced, vectored);
        let header_len = block.put_header(|dst| framing.encode_header(announced as u64, dst));
        payload.put_into(&mut block);
        if block.put_len() != announced {
            return Err(self.wrong_header(Some(announced as u64), None, block.put_len()));
        }
        let len = BlockLen {
            payload: announced,
            wire: header_len + announced,
        };
        if !framing.proven().encoded {
            self.read_back(len, block.slices())?;
        }
        block.finish();
        self.encode.blocks += 1;
        Ok(len)
    }

    /// Appends `payload` behind its header to `dst`. Appends nothing if the block cannot be sent.
    #[inline]
    fn append(&mut self, payload: &[u8], dst: &mut impl HeaderBuf) -> Result<BlockLen, BlockError> {
        if self.is_plain(payload.len()) {
            return Ok(self.append_plain(payload, dst));
        }
        self.check_len(payload.len())?;
        let start = dst.as_ref().len();
        self.append_unproven_header(payload, dst)?;
        Ok(self.append_payload(payload, start, dst))
    }

    /// Returns true if a block of `len` bytes can be sent and its header needs no check.
    #[inline]
    fn is_plain(&self, len: usize) -> bool {
        self.framing().outgoing().proven().encoded && self.is_sendable(len)
    }

    /// Appends a payload that [is plain](Self::is_plain) behind its header.
    #[inline]
    fn append_plain(&mut self, payload: &[u8], dst: &mut impl HeaderBuf) -> BlockLen {
        let start = dst.as_ref().len();
        let framing = self.framing().outgoing();
        framing.encode_header(payload.len() as u64, dst);
        self.append_payload(payload, start, dst)
    }

    /// Appends the payload of a block whose header begins at `start`, and counts the block.
    #[inline]
    fn append_payload(
        &mut self,
        payload: &[u8],
        start: usize,
        dst: &mut impl HeaderBuf,
    ) -> BlockLen {
        self.encode.blocks += 1;
        dst.put_slice(payload);
        BlockLen {
            payload: payload.len(),
            wire: dst.as_ref().len() - start,
        }
    }

    /// Appends a header that may be wrong, by a framing that may panic.
    #[inline(never)]
    fn append_unproven_header(
        &self,
        payload: &[u8],
        dst: &mut impl HeaderBuf,
    ) -> Result<(), BlockError> {
        let start = dst.as_ref().len();
        let mut unfinished = UnfinishedHeader { dst, start };
        let framing = self.framing().outgoing();
        framing.encode_header(payload.len() as u64, unfinished.dst);
        let header = &unfinished.dst.as_ref()[start..];
        let len = BlockLen {
            payload: payload.len(),
            wire: header.len() + payload.len(),
        };
        self.read_back(len, [header, payload].into_iter())?;
        unfinished.start = usize::MAX;
        Ok(())
    }

    /// Checks whether blocks of `len` bytes can be sent.
    #[inline]
    fn check_len(&self, len: usize) -> Result<(), BlockError> {
        match self.is_sendable(len) {
            true => Ok(()),
            false => Err(self.refused(len)),
        }
    }

    #[inline]
    fn is_sendable(&self, len: usize) -> bool {
        let min = *self.framing().outgoing().block_lens().start();
        len < self.encode_end && len as u64 >= min
    }

    /// Reads a block before it is sent, as the peer will. If the header and the payload's length disagree,
    /// the peer loses its place.
    fn read_back<'b>(
        &self,
        len: BlockLen,
        block: impl Iterator<Item = &'b [u8]> + Clone,
    ) -> Result<(), BlockError> {
        if len.wire == 0 {
            return Err(self.wrong_size(0));
        }
        let framing = self.framing().outgoing();
        // The kept part of a header is in the payload.
        let mut near = [0; 64];
        let near = &mut near[..len.wire.min(64)];
        copy_front(block.clone(), near);
        let longest = len.wire.min(framing.max_header_len()).min(MAX_HEADER_LEN);
        let read = match framing.decode_header(near) {
            Ok(Header::Incomplete { .. }) if near.len() < longest => {
                let mut front = vec![0; longest];
                copy_front(block, &mut front);
                framing.decode_header(&front)
            }
            read => read,
        };
        let (announced, reason) = match read {
            Ok(Header::Complete {
                stripped,
                block_len,
            }) if stripped == len.wire - len.payload => (Some(block_len), None),
            Err(InvalidHeader(reason)) => (None, Some(reason)),
            Ok(_) => (None, None),
        };
        if announced == Some(len.payload as u64) {
            return Ok(());
        }
        Err(self.wrong_header(announced, reason, len.payload))
    }

    #[cold]
    fn wrong_header(
        &self,
        announced: Option<u64>,
        reason: Option<&'static str>,
        actual: usize,
    ) -> BlockError {
        BlockError::WrongHeader {
            announced,
            reason,
            actual: actual as u64,
            index: self.encode.blocks,
        }
    }

    /// Returns the error for a block of `len` bytes that cannot be sent.
    #[cold]
    fn refused(&self, len: usize) -> BlockError {
        self.unfinished_error()
            .unwrap_or_else(|| self.wrong_size(len))
    }

    #[cold]
    fn wrong_size(&self, actual: usize) -> BlockError {
        let framing = self.framing().outgoing();
        let least_on_wire = u64::from(actual == 0);
        BlockError::WrongSize {
            min: least_on_wire.max(*framing.block_lens().start()),
            max: longest(framing) as u64,
            limit: self.encode_max as u64,
            actual: actual as u64,
            index: self.encode.blocks,
        }
    }

    /// Returns where the next block to send begins.
    pub(crate) fn encoded(&self) -> Position {
        Position {
            index: self.encode.blocks,
            offset: self.encode.bytes,
        }
    }

    /// Housekeeping when the write buffer is empty: charges the budget for the blocks of the last
    /// write, and drops a buffer that is too large to keep.
    #[cold]
    fn begin_write(&mut self, block_len: usize, dst: &mut BytesMut) {
        self.encode.meter.charge(self.encode.blocks);
        // The last write may have left a view of the allocation's end. Go back to its start now, while
        // nothing has to be moved there.
        let _moved = dst.try_reclaim(dst.capacity() + 1);
        let most = self.decode.max_capacity().max(block_len + HEADER_SLACK);
        if reclaim_exceeds(dst, most) {
            *dst = BytesMut::new();
        }
        if dst.capacity() == 0 {
            dst.reserve(INITIAL_CAPACITY);
        }
    }

    /// Yields, by returning `Pending` once, if the task has encoded enough blocks for a turn.
    pub(crate) fn poll_charge(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let EncodeState { blocks, meter, .. } = &mut self.encode;
        match meter.is_due(*blocks, SENT_PER_TURN) {
            true => meter.poll_yield(cx, *blocks),
            false => Poll::Ready(()),
        }
    }
}

impl<F, E> BlockCodec<F, E> {
    /// True if there are no more blocks to decode, because of an error.
    pub(crate) fn has_failed(&self) -> bool {
        self.decode.has_failed()
    }

    /// Updates `encode_end` when `encode_max` or `unfinished` has changed.
    fn update_encode_end(&mut self) {
        self.encode_end = match self.encode.unfinished {
            Some(_) => 0,
            None => self.encode_max + 1,
        };
    }

    /// Counts bytes of blocks that were encoded.
    pub(crate) fn count_encoded(&mut self, bytes: u64) {
        self.encode.bytes += bytes;
    }
}

impl<F: Framing, E: CodecError> Decoder for BlockCodec<F, E> {
    type Item = BytesMut;
    type Error = E;

    // Always inline, because this is only the fast path. In a program with `Framed` over two transports, the
    // call would cost a block of 64 bytes 3 of its 65 ns.
    #[inline(always)]
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<BytesMut>, E> {
        self.decode
            .decode_charged(&self.parser, src)
            .map_err(E::from)
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<BytesMut>, E> {
        if let Some(block) = self.decode(src)? {
            return Ok(Some(block));
        }
        self.decode.end_of_stream(&self.parser, src)?;
        Ok(None)
    }
}

// Encodes only `Bytes`, so that `framed.close()` infers the type of the sink's items.
impl<F: Framing, E: CodecError> Encoder<Bytes> for BlockCodec<F, E> {
    type Error = E;

    fn encode(&mut self, block: Bytes, dst: &mut BytesMut) -> Result<(), E> {
        if dst.is_empty() {
            self.begin_write(block.len(), dst);
        }
        self.encode.bytes += self.append(&block, dst)?.wire as u64;
        Ok(())
    }
}

impl<F: Framing, E> Clone for BlockCodec<F, E> {
    fn clone(&self) -> Self {
        Self {
            parser: self.parser.clone(),
            encode_max: self.encode_max,
            encode_end: self.encode_max + 1,
            decode: self.decode.fresh(),
            encode: EncodeState::default(),
            error: PhantomData,
        }
    }
}

impl<F: fmt::Debug, E> fmt::Debug for BlockCodec<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCodec")
            .field("parser", &self.parser)
            .field("encode_max", &self.encode_max)
            .field("decode", &self.decode)
            .field("encode", &self.encode)
            .finish_non_exhaustive()
    }
}

/// Checks that `framing` carries whole blocks of `limit` bytes.
fn check_limit(framing: &impl Framing, limit: usize) -> Result<(), ConfigError> {
    let (min, max) = (*framing.block_lens().start(), longest(framing));
    if limit > max {
        let max = max as u64;
        return Err(ConfigError::LimitTooLarge { limit, max });
    }
    if (limit as u64) < min {
        return Err(ConfigError::LimitTooSmall { limit, min });
    }
    Ok(())
}

/// A header that is being appended at `start`. Its drop removes it if it is wrong or the framing panics,
/// because half a header in the buffer would corrupt the stream.
struct UnfinishedHeader<'d, B: HeaderBuf> {
    dst: &'d mut B,
    start: usize,
}

impl<B: HeaderBuf> Drop for UnfinishedHeader<'_, B> {
    fn drop(&mut self) {
        self.dst.truncate(self.start);
    }
}

/// A buffer that a header can be appended to and truncated from.
pub(crate) trait HeaderBuf: BufMut + AsRef<[u8]> {
    fn truncate(&mut self, len: usize);
}

impl HeaderBuf for Vec<u8> {
    fn truncate(&mut self, len: usize) {
        Vec::truncate(self, len);
    }
}

impl HeaderBuf for BytesMut {
    fn truncate(&mut self, len: usize) {
        BytesMut::truncate(self, len);
    }
}

/// Fills `front` with the first bytes of `block`, which must have as many.
fn copy_front<'b>(block: impl Iterator<Item = &'b [u8]>, mut front: &mut [u8]) {
    for slice in block {
        let len = slice.len().min(front.len());
        front.put_slice(&slice[..len]);
        if front.is_empty() {
            return;
        }
    }
}
