//! Takes and lends the blocks in the read buffer.

use std::{
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

/// Takes whole blocks out of the read buffer, and says where in the stream they are.
///
/// It does not store the parser, which the caller brings, so that most of it is compiled once.
#[derive(Debug, Default)]
pub(crate) struct DecodeState {
    pub(super) state: State,
    /// Skip blocks over the limit, instead of failing.
    pub(super) skip_too_large: bool,
    /// Return an error for each of them.
    pub(super) report_skipped: bool,
    /// Where the buffer begins, except that `index` counts the blocks that were lent of it.
    pub(super) position: Position,
    pub(super) stats: ReadStats,
    pub(super) read_buf: ReadBuffer,
    /// Blocks taken, against the task's budget.
    pub(super) meter: Meter,
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
    /// Blocks over the limit that were skipped.
    pub(crate) skipped_blocks: u64,
}

impl DecodeState {
    /// A state with the same settings, for another stream.
    pub(crate) fn fresh(&self) -> Self {
        Self {
            skip_too_large: self.skip_too_large,
            report_skipped: self.report_skipped,
            read_buf: self.read_buf.fresh(),
            ..Self::default()
        }
    }

    /// Goes on with another framing, at the same place in the stream.
    pub(crate) fn change_framing(&mut self) {
        match self.state {
            // What the buffer holds is no longer a part of one block.
            State::Partial { buffered: 1.., .. } | State::Whole(_) => self.drain(),
            // Blocks of one length have no header to wait for, so the next one is known already.
            State::Partial { .. } => self.state = State::default(),
            // What one framing refused, another may read, if all of it is there.
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

    /// The most capacity a buffer may keep between blocks.
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

    /// Goes on with the blocks that are in the buffer.
    pub(super) fn drain(&mut self) {
        self.state = State::Draining { until: 0 };
        self.update_until();
    }

    /// Sets how many blocks may be taken or lent as they are, after something that it depends on has
    /// changed.
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

    /// Returns the batch buffer to this thread's pool before a wait.
    pub(crate) fn park(&mut self, buffer: &mut BytesMut) {
        self.read_buf.park(buffer);
    }

    /// Takes a batch buffer from the pool after such a wait, and before the next read.
    pub(crate) fn unpark(&mut self, buffer: &mut BytesMut) {
        self.read_buf.unpark(buffer);
    }

    /// The buffer was not made here, so its allocation may be of any size.
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
    /// rest of it. For a caller that cannot yield, so the task's budget is charged.
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

    /// The block at the front of `src`, if it is whole and there is nothing else to do than to
    /// [`take`](Self::take) it: most often, and the fast path.
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

    /// Lends the next block, if it is whole and there is nothing else to do: where its payload lies in
    /// `src`.
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

    /// Lends the block at the front, which was accepted: where its payload lies in the buffer.
    pub(crate) fn lend_accepted(&mut self, frame: FrameLen) -> Range<usize> {
        self.lend(1, frame.wire_len);
        frame.payload_at(0)
    }

    /// Lends the first `blocks` blocks in the buffer, which are `lent` bytes.
    pub(crate) fn lend(&mut self, blocks: u64, lent: usize) {
        self.position.index += blocks;
        let until = self.meter.due(RECEIVED_PER_TURN);
        self.state = State::Lending { lent, until };
    }

    /// Bytes at the front of the buffer that have been lent, and are gone with the next use of it.
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

    /// The end of the stream, where `rest` is left and no whole block: an error inside of a block.
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

    /// The failure of a stream that ends inside a block, of which `rest` has arrived.
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

    /// The index of the block at the front, if a part of it has arrived: there are `buffered` bytes. None
    /// for the rest of a block that is taken part by part, if all of that is there.
    pub(crate) fn partial(&self, buffered: usize) -> Option<u64> {
        let is_partial = match &self.state {
            State::InParts(parts) => parts.has_begun() && parts.left() > buffered as u64,
            _ => buffered > 0,
        };
        is_partial.then_some(self.position.index)
    }

    /// Yields, by being pending once, if the task has received enough blocks for a turn.
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

    /// Why there are no more blocks, if there are none.
    pub(crate) fn failure(&self) -> Option<BlockError> {
        match self.state {
            State::Failed { failure, .. } => Some(failure.at(self.position)),
            _ => None,
        }
    }

    /// Ends the stream of blocks, because the framing called the block at the front of `buffer`
    /// whole, and then did not.
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
