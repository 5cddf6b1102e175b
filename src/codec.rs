use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Decoder, Encoder, Framed};
use tracing::trace;

use crate::{
    BlockError, ConfigError, Exact, Framing, Header, LengthPrefix, Part,
    queue::MAX_WRITE,
    room::{HEADER_ROOM, Room, SMALLEST},
};

/// Bytes that a `Framed` of [`BlockCodec::framed`] gathers before it writes, where blocks differ in
/// length: one of up to 4 KiB more still leaves with them as one segment.
const GATHERED: usize = MAX_WRITE - 4 * 1024;

/// Turns bytes into whole blocks and back, for [`Framed`] and its halves.
///
/// Decodes to `BytesMut`, encodes from `Bytes`; every failure is a [`BlockError`].
///
/// # `framed` or `Framed::new`
///
/// `codec.framed(io)` is `Framed::new(io, codec)` with a larger backpressure boundary, and without
/// a write buffer until something is sent. Small blocks that are fed one after another gather up
/// to 60 KiB before a write, instead of 8: as many as fit where all have one length, else those of
/// 56 KiB and one more. Where the writes are the limit that tells: three times as fast for blocks
/// of 1 KiB over loopback, and as fast as before for 64 bytes. If most blocks have 16 to 56 KiB,
/// the one more makes the write too long, and `set_backpressure_boundary(30 * 1024)` is up to 1.5
/// times as fast.
///
/// # Memory
///
/// The read buffer follows what has arrived, never what a header announces. It starts as `Framed`
/// made it (8 KiB) and at most doubles each time arriving bytes have filled it: up to 64 KiB for
/// batches of small blocks, up to its own length for a large block. Only a connection that has
/// completed a block of n bytes is given room for the next n at once. Between blocks no more than
/// [`max_retained`](Self::max_retained) is kept. A connection that waits in
/// [`recv_blocks`](crate::recv_blocks) leaves its 64 KiB to the next one to read on its thread, and
/// holds 8.
///
/// # After an error
///
/// A stream that has lost its place finds no further blocks: polled again, it reports its end or
/// the same error.
#[derive(Debug)]
pub struct BlockCodec<F> {
    framing: F,
    room: Room,
    /// Wire length of the block that was first to be whole after the last read: the best guess at
    /// the next one's, before its header.
    last_wire_len: usize,
    /// Whether more is due than to take the next block. One flag for whatever that may be, so
    /// that a block costs one look at it.
    attend: bool,
    /// Bytes left over when a read was last asked for; none while there are blocks to take.
    left_over: Option<usize>,
    /// Say that a block is there, and leave it in the buffer: see `RecvBlocks`.
    lending: bool,
    /// Why there are no more blocks, once there are not. Boxed, since most codecs never have one.
    fault: Option<Box<Fault>>,
    progress: Progress,
}

/// How far a stream has been decoded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Whole blocks taken, so the index of the one at the front.
    pub(crate) index: u64,
    /// Reads that brought bytes.
    pub(crate) reads: u64,
    /// Bytes taken, so where the one at the front begins. (Right behind `index`, the two would be
    /// added to as one vector, which takes twice as long.)
    pub(crate) offset: u64,
    /// Whole blocks that took more than one read.
    pub(crate) fragmented_blocks: u64,
}

/// What ends a stream of blocks before its end. A `BlockError` without its place, which is
/// where the codec stands.
#[derive(Clone, Copy, Debug)]
enum Fault {
    InvalidHeader(&'static str),
    TooLarge {
        announced: u64,
        limit: u64,
    },
    Truncated {
        part: Part,
        expected: u64,
        received: u64,
    },
}

/// What stands at the front of the buffer.
enum Front {
    Whole(Extent),
    /// The header and a part of the payload; the whole has this many bytes.
    Payload {
        wire_len: usize,
    },
    /// A part of the header, which has at least this many bytes, or nothing.
    Header {
        at_least: usize,
    },
}

/// Where a whole block lies.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) header_len: usize,
    pub(crate) wire_len: usize,
}

/// The block that lies whole at the front of `front`, if one does.
#[inline]
pub(crate) fn whole<F: Framing>(framing: &F, front: &[u8]) -> Option<Extent> {
    match look(framing, front) {
        Ok(Front::Whole(extent)) => Some(extent),
        _ => None,
    }
}

#[inline]
fn look<F: Framing>(framing: &F, front: &[u8]) -> Result<Front, Fault> {
    let (header_len, payload_len) = match framing.decode_header(front) {
        Ok(Header::Complete {
            header_len,
            payload_len,
        }) => (header_len, payload_len),
        Ok(Header::Incomplete { at_least }) => return Ok(Front::Header { at_least }),
        Err(bad) => return Err(Fault::InvalidHeader(bad.0)),
    };
    let lens = framing.block_lens();
    let announced = usize::try_from(payload_len).unwrap_or(usize::MAX);
    if announced > *lens.end() {
        return Err(Fault::TooLarge {
            announced: payload_len,
            limit: *lens.end() as u64,
        });
    }
    if announced < *lens.start() {
        return Err(Fault::InvalidHeader(
            "it announces less than a block may have",
        ));
    }
    let wire_len = header_len + announced;
    Ok(if wire_len <= front.len() {
        Front::Whole(Extent {
            header_len,
            wire_len,
        })
    } else {
        Front::Payload { wire_len }
    })
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
            room: Room::default(),
            last_wire_len: 0,
            attend: true,
            left_over: Some(0),
            lending: false,
            fault: None,
            progress: Progress::default(),
        }
    }

    /// After a block of more than `bytes` bytes, its buffer is let go; 1 MiB unless set.
    ///
    /// Raise it where most blocks are larger, and each would otherwise cost an allocation. Lower
    /// it where there are many connections and memory counts for more than speed: below 64 KiB,
    /// it bounds the batches of small blocks too. Less than 8 KiB counts as 8 KiB, what `Framed`
    /// starts with.
    #[must_use]
    pub fn max_retained(mut self, bytes: usize) -> Self {
        self.room.set_max_retained(bytes);
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

    /// Bytes worth gathering for one write.
    fn gathered(&self) -> usize {
        let lens = self.framing.block_lens();
        if lens.start() < lens.end() {
            return GATHERED;
        }
        let mut header = Vec::new();
        self.framing.encode_header(*lens.end(), &mut header);
        let wire_len = header.len() + lens.end();
        (MAX_WRITE / wire_len.max(1)).max(1) * wire_len
    }

    /// The most capacity a buffer may keep between blocks.
    pub(crate) fn max_capacity(&self) -> usize {
        self.room.max_capacity
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }

    /// While on, `decode` answers with an empty buffer as soon as a whole block is there, and
    /// leaves it there.
    pub(crate) fn set_lending(&mut self, on: bool) {
        self.lending = on;
        self.attend = on || self.left_over.is_some() || self.fault.is_some();
    }

    /// Takes note of whole blocks, of `wire_len` bytes altogether, that have left the buffer.
    #[inline]
    pub(crate) fn note_taken(&mut self, blocks: u64, wire_len: usize) {
        self.progress.index += blocks;
        self.progress.offset += wire_len as u64;
    }

    /// Takes the whole block at the front out of the buffer.
    #[inline]
    fn take(&mut self, extent: Extent, src: &mut BytesMut) -> BytesMut {
        let Extent {
            header_len,
            wire_len,
        } = extent;
        self.note_taken(1, wire_len);
        src.advance(header_len);
        src.split_to(wire_len - header_len)
    }

    /// Takes a large block out of `src` together with the allocation, which `src` would otherwise
    /// share and keep alive.
    fn take_all(&mut self, extent: Extent, src: &mut BytesMut) -> BytesMut {
        let rest = BytesMut::from(&src[extent.wire_len..]);
        let block = self.take(extent, src);
        *src = rest;
        block
    }

    /// What `decode` does when it is not just the next small block's turn. One function for all of
    /// that, so that there is one place alone from which a small block is moved: each move of one
    /// that has only just been written makes the processor wait.
    #[cold]
    fn decode_with_care(&mut self, src: &mut BytesMut) -> Result<Option<BytesMut>, BlockError> {
        if self.attend && self.attend(src)? {
            return Ok(Some(BytesMut::new()));
        }
        match look(&self.framing, src) {
            Ok(Front::Whole(extent)) if extent.wire_len > self.room.max_capacity => {
                Ok(Some(self.take_all(extent, src)))
            }
            Ok(Front::Whole(extent)) => Ok(Some(self.take(extent, src))),
            Ok(unfinished) => {
                self.make_room(&unfinished, src);
                self.left_over = Some(src.len());
                self.attend = true;
                Ok(None)
            }
            Err(fault) => self.lose(fault),
        }
    }

    /// Does what is due once a read, or once a poll, instead of once a block. True if the block at
    /// the front is whole and is to stay there.
    #[cold]
    fn attend(&mut self, src: &mut BytesMut) -> Result<bool, BlockError> {
        if let Some(fault) = &self.fault {
            // What comes after the place was lost is of no use to anyone.
            src.clear();
            return Err(self.error(fault));
        }
        let whole = whole(&self.framing, src);
        if let Some(left_over) = self.left_over.take() {
            let bytes = src.len().saturating_sub(left_over);
            if bytes > 0 {
                trace!(bytes, "read");
                self.progress.reads += 1;
                self.room.note_read(src);
            }
            if left_over > 0 && whole.is_some() {
                self.progress.fragmented_blocks += 1;
            }
        }
        if let Some(extent) = whole {
            self.last_wire_len = extent.wire_len;
        }
        self.attend = self.lending;
        Ok(self.lending && whole.is_some())
    }

    /// To be called with an unfinished block before the wait for the rest of it.
    pub(crate) fn rest(&mut self, src: &mut BytesMut) {
        self.room.rest(src);
    }

    /// To be called after such a wait, before the next read.
    pub(crate) fn resume(&mut self, src: &mut BytesMut) {
        if self.room.resume(src) {
            if let Ok(unfinished) = look(&self.framing, src) {
                self.make_room(&unfinished, src);
            }
        }
    }

    /// Makes room for a read that brings the block at the front.
    fn make_room(&mut self, front: &Front, src: &mut BytesMut) {
        match *front {
            Front::Whole(_) => {}
            Front::Payload { wire_len } => self.room.make(src, wire_len),
            Front::Header { at_least } => self.room.make(src, at_least.max(self.last_wire_len)),
        }
    }

    /// Gives up: there are no blocks from here on.
    #[cold]
    fn lose<T>(&mut self, fault: Fault) -> Result<T, BlockError> {
        let error = self.error(&fault);
        self.fault = Some(Box::new(fault));
        self.attend = true;
        Err(error)
    }

    fn error(&self, fault: &Fault) -> BlockError {
        let Progress { index, offset, .. } = self.progress;
        match *fault {
            Fault::InvalidHeader(reason) => BlockError::InvalidHeader {
                reason,
                index,
                offset,
            },
            Fault::TooLarge { announced, limit } => BlockError::TooLarge {
                announced,
                limit,
                index,
                offset,
            },
            Fault::Truncated {
                part,
                expected,
                received,
            } => BlockError::Truncated {
                part,
                expected,
                received,
                index,
                offset,
            },
        }
    }

    /// What is missing from a stream that ended with `front`.
    fn truncation(&self, front: &[u8]) -> Fault {
        let received = front.len() as u64;
        match self.framing.decode_header(front) {
            Ok(Header::Complete {
                header_len,
                payload_len,
            }) => Fault::Truncated {
                part: Part::Payload,
                expected: payload_len,
                received: received - header_len as u64,
            },
            Ok(Header::Incomplete { at_least }) => Fault::Truncated {
                part: Part::Header,
                expected: at_least as u64,
                received,
            },
            Err(bad) => Fault::InvalidHeader(bad.0),
        }
    }
}

impl<F: Framing> Decoder for BlockCodec<F> {
    type Item = BytesMut;
    type Error = BlockError;

    #[inline]
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<BytesMut>, BlockError> {
        if self.attend {
            return self.decode_with_care(src);
        }
        match whole(&self.framing, src) {
            Some(extent) if extent.wire_len <= self.room.max_capacity => {
                Ok(Some(self.take(extent, src)))
            }
            _ => self.decode_with_care(src),
        }
    }

    fn framed<T: AsyncRead + AsyncWrite>(self, io: T) -> Framed<T, Self> {
        let mut framed = Framed::new(io, self);
        let boundary = framed.codec().gathered();
        framed.set_backpressure_boundary(boundary);
        *framed.write_buffer_mut() = BytesMut::new();
        framed
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<BytesMut>, BlockError> {
        match look(&self.framing, src) {
            // Nothing more will come, so no room is made for it.
            Ok(Front::Header { .. } | Front::Payload { .. }) if self.fault.is_none() => {
                if src.is_empty() {
                    return Ok(None);
                }
                let fault = self.truncation(src);
                self.lose(fault)
            }
            _ => self.decode(src),
        }
    }
}

/// `Bytes` and nothing else, so that `framed.close()` infers what the sink takes.
impl<F: Framing> Encoder<Bytes> for BlockCodec<F> {
    type Error = BlockError;

    fn encode(&mut self, block: Bytes, dst: &mut BytesMut) -> Result<(), BlockError> {
        if is_oversized(dst, self.room.max_capacity.max(block.len() + HEADER_ROOM)) {
            *dst = BytesMut::new();
        }
        if dst.capacity() == 0 {
            dst.reserve(SMALLEST);
        }
        self.encode_header(block.len(), dst)?;
        dst.extend_from_slice(&block);
        Ok(())
    }
}

/// Whether `buffer` is empty and yet holds on to more than `most` bytes.
///
/// Its capacity does not tell: what has been written out of it no longer counts there.
fn is_oversized(buffer: &mut BytesMut, most: usize) -> bool {
    buffer.is_empty() && buffer.try_reclaim(most.saturating_add(1))
}
