//! The decoder: a state machine over the read buffer.

mod slow;
mod state;

use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};

use self::state::{Failure, State};
use crate::{
    BlockError, Framing, InvalidHeader, Part,
    coop::{Meter, RECEIVED_PER_TURN},
    frame::{FrameLen, FrameParser, Parsed},
    read_buf::ReadBufPolicy,
};

/// Takes whole blocks out of the read buffer, and says where in the stream they are.
#[derive(Debug)]
pub(crate) struct BlockDecoder<F> {
    parser: FrameParser<F>,
    /// The limit from the block after this one on, where this one is half received and may be
    /// longer.
    next_max: Option<usize>,
    /// Whether the block at the front was seen whole and within the limit, and left there.
    peeked: bool,
    state: State,
    /// Skip blocks over the limit, instead of failing.
    skip_too_large: bool,
    /// Answer that a whole block is there, and leave it in the buffer.
    peek: bool,
    /// Index of the first block that the fast path does not take, 0 if it takes none. One comparison a
    /// block stands for all conditions of [`is_fast`](Self::is_fast), and for the yield that is due
    /// every [`RECEIVED_PER_TURN`] blocks.
    fast_until: u64,
    /// Whether the stream has ended between two blocks, and nothing has been read since.
    ended: bool,
    position: Position,
    stats: ReadStats,
    read_buf: ReadBufPolicy,
    /// Blocks taken, against the task's budget.
    meter: Meter,
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

impl<F: Framing> BlockDecoder<F> {
    pub(crate) fn new(framing: F) -> Self {
        Self {
            parser: FrameParser::new(framing),
            next_max: None,
            peeked: false,
            state: State::AwaitingRead { buffered: 0 },
            skip_too_large: false,
            peek: false,
            fast_until: 0,
            ended: false,
            position: Position::default(),
            stats: ReadStats::default(),
            read_buf: ReadBufPolicy::default(),
            meter: Meter::default(),
        }
    }

    /// A decoder with the same settings, for another stream.
    pub(crate) fn fresh(&self) -> Self {
        let mut fresh = Self::new(self.parser.framing().clone());
        fresh.parser.set_max(self.max());
        fresh.skip_too_large = self.skip_too_large;
        fresh.read_buf = self.read_buf.fresh();
        fresh
    }

    /// Goes on with another framing, at the same place in the stream.
    pub(crate) fn with_framing<F2: Framing>(self, framing: F2) -> BlockDecoder<F2> {
        let state = match self.state {
            // What the buffer holds is no longer a part of one block.
            State::AwaitingRead { buffered: 1.. } => State::Draining,
            // What one framing refused, another may read, if all of it is there.
            State::Failed { gap: false, .. } => State::Draining,
            state => state,
        };
        let mut decoder = BlockDecoder {
            parser: FrameParser::new(framing),
            next_max: None,
            peeked: false,
            state,
            skip_too_large: self.skip_too_large,
            peek: self.peek,
            fast_until: 0,
            ended: self.ended,
            position: self.position,
            stats: self.stats,
            read_buf: self.read_buf,
            meter: self.meter,
        };
        decoder.update_fast();
        decoder
    }

    pub(crate) fn set_skip_too_large(&mut self, skip: bool) {
        self.skip_too_large = skip;
    }

    pub(crate) fn set_max_retained(&mut self, bytes: usize) {
        self.read_buf.set_max_retained(bytes);
    }

    /// The longest payload that is received, in bytes.
    pub(crate) fn max(&self) -> usize {
        self.next_max.unwrap_or(self.parser.max())
    }

    /// Sets the longest payload, in bytes, from the next block on: never for one that has arrived,
    /// whole or in part, and that was found to be within the limit.
    pub(crate) fn set_max(&mut self, max: usize) {
        let half_received = matches!(self.state, State::AwaitingRead { buffered } if buffered > 0);
        if (half_received || self.peeked) && max < self.parser.max() {
            self.next_max = Some(max);
        } else {
            self.next_max = None;
            self.parser.set_max(max);
        }
        self.update_fast();
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

    /// Sets how many blocks the fast path may take from here, after something that it depends on has
    /// changed.
    fn update_fast(&mut self) {
        self.fast_until = match self.is_fast() {
            true => self.meter.due(RECEIVED_PER_TURN),
            false => 0,
        };
    }

    /// True if there is nothing else to do for a small block that is whole than to take it.
    fn is_fast(&self) -> bool {
        matches!(self.state, State::Draining)
            && !self.peek
            && !self.peeked
            && self.next_max.is_none()
            && !self.read_buf.is_large()
    }

    /// Takes note of whole blocks, of `wire_len` bytes altogether, that have left the buffer.
    pub(crate) fn record_taken(&mut self, blocks: u64, wire_len: usize) {
        self.advance(blocks, wire_len);
        if blocks > 0 {
            self.leave_front();
        }
    }

    /// Whether blocks after the one at the front have another limit than it has.
    pub(crate) fn limit_changes(&self) -> bool {
        self.next_max.is_some()
    }

    /// The block at the front is taken or skipped: what holds from the next one on, holds now.
    fn leave_front(&mut self) {
        self.peeked = false;
        if let Some(max) = self.next_max.take() {
            self.parser.set_max(max);
        }
        self.update_fast();
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

    /// Takes note that the next bytes come by a read, where nothing is buffered: a `Framed` made of
    /// parts with an empty buffer reads before it asks the decoder.
    pub(crate) fn await_first_read(&mut self, buffer: &BytesMut) {
        if buffer.is_empty() && matches!(self.state, State::Draining) {
            self.set_state(State::AwaitingRead { buffered: 0 });
        }
    }

    /// Takes a large allocation again, after such a wait and before the next read.
    pub(crate) fn unpark(&mut self, buffer: &mut BytesMut) {
        self.read_buf.unpark(buffer);
    }

    /// The buffer was not made here, so its allocation may be of any size.
    pub(crate) fn adopt(&mut self, buffer: &BytesMut) {
        self.read_buf.adopt(buffer);
        self.update_fast();
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

    /// Takes a small block out of an allocation that is larger than a batch: copied, so that a block
    /// that is kept does not keep the allocation alive.
    fn take_copied(&mut self, frame: FrameLen, src: &mut BytesMut) -> BytesMut {
        let block = BytesMut::from(&src[frame.payload_at(0)]);
        self.advance(1, frame.wire_len);
        src.advance(frame.wire_len);
        block
    }

    /// Takes the block at the front of `src`, if it is whole; otherwise reserves capacity for the
    /// rest of it. The caller yields by [`poll_charge`](Self::poll_charge).
    #[inline]
    pub(crate) fn decode(&mut self, src: &mut BytesMut) -> Result<Option<BytesMut>, BlockError> {
        match self.next_small(src) {
            Some(frame) => Ok(Some(self.take(frame, src))),
            None => self.decode_slow(src, false),
        }
    }

    /// As [`decode`](Self::decode), for a caller that cannot yield: charges the task's budget.
    #[inline]
    pub(crate) fn decode_charged(
        &mut self,
        src: &mut BytesMut,
    ) -> Result<Option<BytesMut>, BlockError> {
        match self.next_small(src) {
            Some(frame) => Ok(Some(self.take(frame, src))),
            None => self.decode_slow_charged(src),
        }
    }

    /// The block at the front of `src`, if it is whole and there is nothing else to do than to
    /// [`take`](Self::take) it: most often, and the fast path.
    #[inline]
    pub(crate) fn next_small(&self, src: &BytesMut) -> Option<FrameLen> {
        debug_assert!(
            self.fast_until == 0 || self.is_fast(),
            "updated with all it depends on"
        );
        if self.position.index >= self.fast_until {
            return None;
        }
        let frame = self.parser.parse(src).complete()?;
        (frame.wire_len <= self.read_buf.max_capacity()).then_some(frame)
    }

    /// As [`decode`](Self::decode), but leaves the block where it is.
    pub(crate) fn peek(&mut self, src: &mut BytesMut) -> Result<bool, BlockError> {
        Ok(self.decode_slow(src, true)?.is_some())
    }

    /// The end of the stream, where `rest` is left and no whole block: an error inside of a block.
    pub(crate) fn end_of_stream(&mut self, rest: &[u8]) -> Result<(), BlockError> {
        let Some(failure) = self.cut_short(rest) else {
            self.ended = true;
            return Ok(());
        };
        Err(self.fail(failure, rest.len()))
    }

    /// Whether the stream has ended between two blocks, as far as anybody has asked.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The failure of a stream that ends inside a block, of which `rest` has arrived.
    fn cut_short(&self, rest: &[u8]) -> Option<Failure> {
        let truncated = |part, expected, received| {
            Some(Failure::Truncated {
                part,
                expected,
                received,
            })
        };
        if let State::Skipping {
            header_len,
            announced,
            skipped,
        } = self.state
        {
            let received = skipped.saturating_sub(header_len);
            return truncated(Part::Payload, announced, received);
        }
        if rest.is_empty() {
            return None;
        }
        match self.parser.parse(rest) {
            Parsed::PartialHeader { at_least } => {
                truncated(Part::Header, at_least as u64, rest.len() as u64)
            }
            Parsed::PartialPayload(frame) => {
                let received = rest.len() - frame.header_len;
                truncated(Part::Payload, frame.payload_len() as u64, received as u64)
            }
            Parsed::Complete(_) | Parsed::TooLarge { .. } | Parsed::Invalid(_) => None,
        }
    }

    /// The index of the block at the front, if a part of it has arrived.
    pub(crate) fn partial(&self, buffer: &BytesMut) -> Option<u64> {
        let skipping = matches!(self.state, State::Skipping { .. });
        (skipping || !buffer.is_empty()).then_some(self.position.index)
    }

    /// Yields, by being pending once, if the task has received enough blocks for a turn: those taken
    /// since the last yield, and the `lent` ones that are still in the buffer.
    pub(crate) fn poll_charge(&mut self, cx: &mut Context<'_>, lent: u64) -> Poll<()> {
        let blocks = self.position.index + lent;
        let polled = self.meter.poll_charge(cx, blocks, RECEIVED_PER_TURN);
        self.update_fast();
        polled
    }

    /// The number of blocks that may be taken or lent before the next [charge](Self::poll_charge),
    /// beside the `lent` ones that are still in the buffer.
    pub(crate) fn until_charge(&self, lent: u64) -> u64 {
        let blocks = self.position.index + lent;
        self.meter.due(RECEIVED_PER_TURN).saturating_sub(blocks)
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
}

impl<F> BlockDecoder<F> {
    pub(crate) fn has_failed(&self) -> bool {
        matches!(self.state, State::Failed { .. })
    }
}
