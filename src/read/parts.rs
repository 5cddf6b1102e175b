//! A block that is taken part by part: by a reader, straight into the caller's memory, or to drop it.

use bytes::{Buf, BytesMut};
use tracing::trace;

use super::{
    decoder::DecodeState,
    frame::{FrameParser, Parsed},
    growth::{BATCH, Front},
    state::{Failure, InParts, State},
};
use crate::{error::BlockError, framing::Framing};

/// The front of a block that is taken part by part: a batch at a time is enough, whatever its length.
const NEXT_PART: Front = Front::Known(1);

impl DecodeState {
    /// Begins to take the block at the front part by part, once its header has arrived, and returns the
    /// length of its payload. Before that, reserves capacity for the header.
    pub(crate) fn begin_parts<F: Framing>(
        &mut self,
        parser: &FrameParser<F>,
        src: &mut BytesMut,
    ) -> Result<Option<u64>, BlockError> {
        let parse = |front: &[u8]| parser.parse_in_parts(front);
        // The block of which an earlier read has brought a part.
        let partial = match self.state {
            State::Partial { buffered: 1.., .. } => Some(self.position.index),
            _ => None,
        };
        let Some(parsed) = self.look(&parse, src)? else {
            return Ok(None);
        };
        let (header_len, len, fragmented) = match parsed {
            // A block without a header cannot be told from the end of the stream before its first byte.
            Parsed::Long { .. } if src.is_empty() => {
                self.read_buf.reserve(src, NEXT_PART);
                self.state = State::default();
                return Ok(None);
            }
            Parsed::Long { header_len, len } => {
                (header_len, len, partial == Some(self.position.index))
            }
            // The block was accepted as a whole one before, and its reads are recorded.
            Parsed::Complete(frame) => (frame.header_len, frame.payload_len() as u64, false),
            Parsed::PartialPayload(frame) => (frame.header_len, frame.payload_len() as u64, true),
            _ => {
                self.settle(&parse, parsed, src)?;
                return Ok(None);
            }
        };
        src.advance(header_len);
        // For the next block, too, a batch at a time is enough.
        self.read_buf
            .record_block(usize::try_from(len).map_or(BATCH, |len| len.min(BATCH)));
        let parts = InParts {
            header_len: header_len as u64,
            len,
            taken: header_len as u64,
            seen: src.len(),
            skipped: false,
            fragmented,
        };
        self.state = State::InParts(parts);
        self.end_parts_at_last_byte();
        Ok(Some(len))
    }

    /// Returns how many payload bytes are left of a block that is taken part by part, even if the stream
    /// has ended before them. Returns 0 after the last byte.
    pub(crate) fn parts_left(&self) -> u64 {
        match &self.state {
            State::InParts(parts) => parts.left(),
            State::Failed {
                failure:
                    Failure::Truncated {
                        expected, received, ..
                    },
                ..
            } => expected - received,
            _ => 0,
        }
    }

    /// Returns how many bytes at the front of `src` belong to the block that is taken part by part. If there
    /// are none, reserves capacity for the next read, and returns `None`.
    pub(crate) fn next_part(&mut self, src: &mut BytesMut) -> Option<usize> {
        self.record_parts(src);
        if src.is_empty() {
            self.read_buf.reserve(src, NEXT_PART);
            return None;
        }
        Some(self.buffered_part(src))
    }

    /// Returns how many bytes at the front of `src` belong to the block that is taken part by part.
    pub(crate) fn buffered_part(&self, src: &[u8]) -> usize {
        let left = self.parts_left();
        usize::try_from(left).map_or(src.len(), |left| left.min(src.len()))
    }

    /// Takes the first `bytes` bytes of `src`, which belong to the block that is taken part by part.
    pub(crate) fn take_part(&mut self, bytes: usize, src: &mut BytesMut) {
        match bytes == src.len() {
            true => src.clear(), // its room can be read into again
            false => src.advance(bytes),
        }
        if let State::InParts(parts) = &mut self.state {
            parts.taken += bytes as u64;
            parts.seen -= bytes;
        }
        self.end_parts_at_last_byte();
    }

    /// Frees an empty buffer that is larger than a batch because of earlier whole blocks. Call this before a
    /// read straight into the caller's memory.
    pub(crate) fn leave_large(&mut self, src: &mut BytesMut) {
        self.read_buf.leave_large(src);
    }

    /// Records a read that brought `bytes` bytes of the block straight into the caller's memory.
    pub(crate) fn record_direct(&mut self, bytes: usize) {
        if let State::InParts(parts) = &mut self.state {
            trace!(bytes, "read");
            self.stats.reads += 1;
            parts.fragmented |= parts.has_begun();
            parts.taken += bytes as u64;
        }
        self.end_parts_at_last_byte();
    }

    /// Drops what has arrived of a block that is taken part by part, if there is one. None while more of it
    /// is still to come.
    pub(super) fn drop_parts(&mut self, src: &mut BytesMut) -> Option<()> {
        while let State::InParts(_) = self.state {
            let bytes = self.next_part(src)?;
            self.take_part(bytes, src);
        }
        Some(())
    }

    /// Records the bytes that have arrived of the block.
    fn record_parts(&mut self, src: &BytesMut) {
        let State::InParts(parts) = &mut self.state else {
            return;
        };
        let bytes = src.len().saturating_sub(parts.seen); // others may have emptied the buffer
        parts.fragmented |= bytes > 0 && parts.has_begun();
        parts.seen = src.len();
        self.count_read(bytes, src);
    }

    /// Goes on to the next block, if the last byte of this one has been taken.
    fn end_parts_at_last_byte(&mut self) {
        let State::InParts(parts) = self.state else {
            return;
        };
        if parts.left() > 0 {
            return;
        }
        self.position.index += 1;
        self.position.offset = self.position.offset.saturating_add(parts.wire_len());
        self.stats.skipped_blocks += u64::from(parts.skipped);
        self.stats.fragmented_blocks += u64::from(parts.fragmented && !parts.skipped);
        self.drain();
    }
}
