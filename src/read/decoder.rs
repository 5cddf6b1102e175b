//! Takes and lends the blocks in the read buffer.

use std::{
    io,
    ops::Range,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};

use super::{
    buffer::ReadBuffer,
    frame::{FrameLen, FrameParser, Parsed},
    state::{Failure, State},
};
use crate::{
    coop::{Meter, RECEIVED_PER_TURN},
    error::{BlockError, BlockPart},
    framing::{Framing, InvalidHeader},
};

/// The decoder: takes whole blocks out of the read buffer, and knows their positions in the stream.
///
/// The caller passes the parser, so that most of the decoder is compiled once and not for each framing.
#[derive(Debug, Default)]
pub(crate) struct DecodeState {
    pub(super) state: State,
    /// True if blocks over the limit are skipped, instead of failing.
    pub(super) skip_too_large: bool,
    /// True if each skipped block is reported as an error.
    pub(super) report_skipped: bool,
    /// Position of the buffer's start, except that `index` already counts the blocks that are lent.
    pub(super) position: Position,
    pub(super) stats: ReadStats,
    pub(super) read_buf: ReadBuffer,
    /// Charges blocks to the task's budget.
    pub(super) meter: Meter,
}

/// Position in the stream of the block at the front of the buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    /// Whole blocks before it.
    pub(crate) index: u64,
    /// Bytes before it.
    pub(crate) offset: u64,
}

/// Statistics of the reads.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadStats {
    /// Reads that brought bytes.
    pub(crate) reads: u64,
    /// Whole blocks that arrived over more than one read.
    pub(crate) fragmented_blocks: u64,
    /// Blocks over the limit that were skipped.
    pub(crate) skipped_blocks: u64,
}

impl DecodeState {
    /// Returns a decoder with the same settings, for another stream.
    pub(crate) fn fresh(&self) -> Self {
        Self {
            skip_too_large: self.skip_too_large,
            report_skipped: self.report_skipped,
            read_buf: self.read_buf.fresh(),
            ..Self::default()
        }
    }

    /// Switches to another framing, at the same place in the stream.
    pub(crate) fn change_framing(&mut self) {
        match self.state {
            // With the new framing, the buffer may hold other blocks.
            State::Partial { buffered: 1.., .. } | State::Whole(_) => self.drain(),
            // The former framing, if without headers, has announced the next block before any byte of it.
            State::Partial { .. } => self.state = State::default(),
            // The new framing may accept what the former one refused, if no byte of it was dropped.
            State::Failed { gap: false, .. } => self.drain(),
            _ => {}
        }
    }

    pub(crate) fn set_skip_too_large(&mut self, skip: bool) {
        self.skip_too_large = skip;
    }

    pub(crate) fn set_report_skipped(&mut self, report: bool) {
        self.report_skipped = report;
    }

    pub(crate) fn set_max_retained(&mut self, bytes: usize) {
        self.read_buf.set_max_retained(bytes);
    }

    /// Returns the largest capacity that a buffer may keep between blocks.
    pub(crate) fn max_capacity(&self) -> usize {
        self.read_buf.max_capacity()
    }

    pub(crate) fn position(&self) -> Position {
        Position {
            index: self.position.index,
            offset: self.position.offset + self.lent() as u64,
        }
    }

    pub(crate) fn read_stats(&self) -> ReadStats {
        self.stats
    }

    /// Enters `Draining`, to take the blocks that are in the buffer.
    pub(super) fn drain(&mut self) {
        self.state = State::Draining { until: 0 };
        self.update_until();
    }

    /// Updates `until`, after something that it depends on has changed.
    pub(super) fn update_until(&mut self) {
        let due = self.meter.due(RECEIVED_PER_TURN);
        match &mut self.state {
            State::Draining { until } if !self.read_buf.is_shared() => *until = 0,
            State::Draining { until } | State::Lending { until, .. } => *until = due,
            _ => {}
        }
    }

    #[inline]
    pub(super) fn advance(&mut self, blocks: u64, wire_len: usize) {
        self.position.index += blocks;
        self.position.offset += wire_len as u64;
    }

    /// Calls `read`, which reads once into the buffer that it is given, up to the length that it is given.
    #[inline]
    pub(crate) fn poll_read(
        &mut self,
        buffer: &mut BytesMut,
        read: impl FnOnce(&mut BytesMut, Option<usize>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.read_buf.poll_read(buffer, read)
    }

    /// Returns the batch buffer to this thread's pool before a wait.
    #[inline]
    pub(crate) fn park(&mut self, buffer: &mut BytesMut) {
        self.read_buf.park(buffer);
    }

    /// Records that `buffer` was made elsewhere, so that its allocation may have any size.
    pub(crate) fn adopt(&mut self, buffer: &BytesMut) {
        self.read_buf.adopt(buffer);
        self.update_until();
    }

    /// Takes the whole block at the front out of the buffer.
    #[inline]
    pub(crate) fn take(&mut self, frame: FrameLen, src: &mut BytesMut) -> BytesMut {
        self.advance(1, frame.wire_len);
        src.advance(frame.header_len);
        src.split_to(frame.payload_len())
    }

    /// Takes the block at the front of `src`, if it is whole; otherwise reserves capacity for the
    /// rest of it. Charges the task's budget, because the caller cannot yield.
    #[inline]
    pub(crate) fn decode_charged<F: Framing>(
        &mut self,
        parser: &FrameParser<F>,
        src: &mut BytesMut,
    ) -> Result<Option<BytesMut>, BlockError> {
        match self.next_small(parser, src) {
            Some(frame) => Ok(Some(self.take(frame, src))),
            None => self.decode_slow(&|front| parser.parse(front), src),
        }
    }

    /// The fast path: returns the block at the front of `src`, if it is whole and there is nothing to do
    /// except to [`take`](Self::take) it.
    #[inline]
    pub(crate) fn next_small<F: Framing>(
        &self,
        parser: &FrameParser<F>,
        src: &BytesMut,
    ) -> Option<FrameLen> {
        let State::Draining { until } = self.state else {
            return None;
        };
        if self.position.index >= until {
            return None;
        }
        parser.parse(src).complete()
    }

    /// Accepts the block at the front of `src`, if it is whole, and leaves it there; otherwise
    /// reserves capacity for the rest of it.
    pub(crate) fn accept<F: Framing>(
        &mut self,
        parser: &FrameParser<F>,
        src: &mut BytesMut,
    ) -> Result<Option<FrameLen>, BlockError> {
        self.front(&|front| parser.parse(front), src)
    }

    /// Lends the next block, if it is whole and there is nothing else to do. Returns the place of its
    /// payload in `src`.
    #[inline]
    pub(crate) fn lend_next<F: Framing>(
        &mut self,
        parser: &FrameParser<F>,
        src: &BytesMut,
    ) -> Option<Range<usize>> {
        let State::Lending { lent, until } = &mut self.state else {
            return None;
        };
        if self.position.index >= *until {
            return None;
        }
        let frame = parser.parse(src.get(*lent..)?).complete()?;
        let payload = frame.payload_at(*lent);
        *lent = payload.end;
        self.position.index += 1;
        Some(payload)
    }

    /// Lends the block at the front, which was accepted. Returns the place of its payload in the buffer.
    pub(crate) fn lend_accepted(&mut self, frame: FrameLen) -> Range<usize> {
        self.lend(1, frame.wire_len);
        frame.payload_at(0)
    }

    /// Lends the first `blocks` blocks in the buffer, which have `lent` bytes.
    pub(crate) fn lend(&mut self, blocks: u64, lent: usize) {
        self.position.index += blocks;
        let until = self.meter.due(RECEIVED_PER_TURN);
        self.state = State::Lending { lent, until };
    }

    /// Returns how many bytes at the front of the buffer are lent. The next use of the buffer removes them.
    pub(crate) fn lent(&self) -> usize {
        match self.state {
            State::Lending { lent, .. } => lent,
            _ => 0,
        }
    }

    /// Removes the blocks that were lent from the buffer. Call this before any use of the buffer except
    /// [`lend_next`](Self::lend_next).
    #[inline]
    pub(crate) fn remove_lent(&mut self, src: &mut BytesMut) {
        if let State::Lending { lent, .. } = self.state {
            self.position.offset += lent as u64;
            self.read_buf.remove(lent, src);
            self.drain();
        }
    }

    /// Records the end of the stream, with `rest` in the buffer. Returns an error if that is inside a block.
    pub(crate) fn end_of_stream<F: Framing>(
        &mut self,
        parser: &FrameParser<F>,
        rest: &[u8],
    ) -> Result<(), BlockError> {
        let Some(failure) = self.cut_short(|front| parser.parse(front), rest) else {
            return Ok(());
        };
        Err(self.fail(failure, rest.len()))
    }

    /// Returns the failure if the stream ends inside a block, of which `rest` is in the buffer.
    fn cut_short(&self, parse: impl FnOnce(&[u8]) -> Parsed, rest: &[u8]) -> Option<Failure> {
        let truncated = |part, expected, received| {
            Some(Failure::Truncated {
                part,
                expected,
                received,
            })
        };
        if let State::InParts(parts) = self.state {
            if !parts.has_begun() {
                return None;
            }
            let received = parts.taken.saturating_sub(parts.header_len);
            return truncated(BlockPart::Payload, parts.len, received);
        }
        if rest.is_empty() {
            return None;
        }
        let parsed = match self.state {
            State::Partial {
                frame: Some(frame), ..
            } => Parsed::PartialPayload(frame),
            _ => parse(rest),
        };
        match parsed {
            Parsed::PartialHeader { at_least } => {
                truncated(BlockPart::Header, at_least as u64, rest.len() as u64)
            }
            Parsed::PartialPayload(frame) => {
                let received = rest.len().saturating_sub(frame.header_len);
                truncated(
                    BlockPart::Payload,
                    frame.payload_len() as u64,
                    received as u64,
                )
            }
            Parsed::Complete(_)
            | Parsed::Long { .. }
            | Parsed::TooLarge { .. }
            | Parsed::Invalid(_) => None,
        }
    }

    /// Returns the index of the block at the front, if a part of it has arrived. `buffered` bytes are in the
    /// buffer. None if the rest of a block that is taken part by part is all there.
    pub(crate) fn partial(&self, buffered: usize) -> Option<u64> {
        let is_partial = match &self.state {
            State::InParts(parts) => parts.has_begun() && parts.left() > buffered as u64,
            _ => buffered > 0,
        };
        is_partial.then_some(self.position.index)
    }

    /// Yields, by returning `Pending` once, if the task has received all blocks of a turn.
    #[inline]
    pub(crate) fn poll_charge(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.meter.is_due(self.position.index, RECEIVED_PER_TURN) {
            true => self.poll_turn(cx),
            false => Poll::Ready(()),
        }
    }

    #[cold]
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.meter.poll_yield(cx, self.position.index);
        self.update_until();
        polled
    }

    /// Returns the error that has ended the stream of blocks, if there is one.
    pub(crate) fn failure(&self) -> Option<BlockError> {
        match self.state {
            State::Failed { failure, .. } => Some(failure.at(self.position)),
            _ => None,
        }
    }

    /// Ends the stream of blocks, because the framing has first called the block at the front of `buffer`
    /// whole, and then not.
    #[cold]
    pub(crate) fn fail_contradicted(&mut self, buffer: &[u8]) -> BlockError {
        let invalid = InvalidHeader("it reads otherwise when it is read again");
        let failure = Failure::invalid(invalid, buffer);
        self.fail(failure, buffer.len())
    }

    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed { .. })
    }
}
