//! A block that is read straight into the caller's memory.

use std::ops::Range;

use bytes::BytesMut;

use super::{
    decoder::{DecodeState, Position},
    frame::{FrameLen, FrameParser, Parsed},
    growth::BATCH,
    state::{InParts, State},
};
use crate::{error::BlockError, framing::Framing};

/// The fewest bytes to read straight into the caller's memory. Fewer are read together with what
/// follows them, because a system call costs more than copying them.
pub(crate) const LEAST_DIRECT: usize = BATCH / 4;

/// The most bytes to copy from the read buffer to the caller's memory before the rest is read there.
const MAX_MOVED: usize = BATCH;

/// A block for the caller's memory.
#[derive(Debug)]
pub(crate) enum ForMemory {
    /// The block is whole in the read buffer, to be copied.
    Whole(FrameLen),
    /// The rest of the block is to be read straight into the memory.
    Direct(Direct),
}

/// A block that is being read into the caller's memory. Its header stays in the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Direct {
    frame: FrameLen,
    /// Payload bytes that are in the memory.
    received: usize,
}

impl Direct {
    /// Returns the place in the memory for the rest of the payload.
    pub(crate) fn missing(&self) -> Range<usize> {
        self.received..self.frame.payload_len()
    }

    pub(crate) fn len(&self) -> usize {
        self.frame.payload_len()
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.received += bytes;
    }
}

impl DecodeState {
    /// Accepts the block at the front for the caller's `memory`, and copies there what has arrived, if the
    /// rest is to be read there. Otherwise reserves capacity in `src` for the block or its header.
    pub(crate) fn begin_direct<F: Framing>(
        &mut self,
        parser: &FrameParser<F>,
        memory: &mut [u8],
        src: &mut BytesMut,
    ) -> Result<Option<ForMemory>, BlockError> {
        let parse = |front: &[u8]| parser.parse(front);
        let Some(parsed) = self.look(&parse, src)? else {
            return Ok(None);
        };
        let (Parsed::Complete(frame) | Parsed::PartialPayload(frame)) = parsed else {
            self.settle(&parse, parsed, src)?;
            return Ok(None);
        };
        let fits = frame.payload_len() <= memory.len();
        let missing = frame.wire_len.saturating_sub(src.len());
        let is_buffered = match fits {
            // A dropped wait returns its bytes to the buffer. Many stay there, or each further wait would copy
            // them again.
            true => missing < LEAST_DIRECT || src.len() > MAX_MOVED,
            // A block without a header begins with its first byte.
            false => src.is_empty(),
        };
        if is_buffered {
            let whole = self.settle(&parse, parsed, src)?;
            return Ok(whole.map(ForMemory::Whole));
        }
        self.keep_accepted(frame, src);
        if !fits {
            let Position { index, offset } = self.position;
            return Err(BlockError::NoRoom {
                len: frame.payload_len() as u64,
                room: memory.len() as u64,
                index,
                offset,
            });
        }
        let arrived = &src[frame.header_len..];
        memory[..arrived.len()].copy_from_slice(arrived);
        self.state = State::InParts(InParts {
            header_len: frame.header_len as u64,
            len: frame.payload_len() as u64,
            taken: arrived.len() as u64,
            seen: frame.header_len,
            skipped: false,
            fragmented: !src.is_empty(),
        });
        let received = arrived.len();
        src.truncate(frame.header_len);
        Ok(Some(ForMemory::Direct(Direct { frame, received })))
    }

    /// Ends what [`begin_direct`](Self::begin_direct) began: the whole block is in the caller's memory.
    pub(crate) fn end_direct(&mut self, src: &mut BytesMut) {
        let header_len = src.len();
        self.take_part(header_len, src);
    }

    /// Undoes [`begin_direct`](Self::begin_direct): returns the bytes of the block in `memory` to the buffer.
    pub(crate) fn return_direct(&mut self, direct: Direct, memory: &[u8], src: &mut BytesMut) {
        src.extend_from_slice(&memory[..direct.received]);
        self.read_buf.record_read(src);
        self.keep_accepted(direct.frame, src);
    }

    /// Leaves the block at the front, which was accepted, in the buffer.
    fn keep_accepted(&mut self, frame: FrameLen, src: &BytesMut) {
        let buffered = src.len();
        self.state = match frame.wire_len <= buffered {
            true => State::Whole(frame),
            false => State::Partial {
                buffered,
                frame: Some(frame),
            },
        };
    }
}
