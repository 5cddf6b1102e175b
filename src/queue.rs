use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tracing::trace;

use crate::{BlockCodec, BlockError, Framing, TransferStats};

/// Payload bytes from which on a block is referred to instead of copied. Over loopback, blocks of
/// 2,500 bytes went at 0.95 of the rate if referred to, of 5,000 at 1.09, of 7,500 at 1.16, of
/// 10,000 at 1.19.
const CHAIN_FROM: usize = 4 * 1024;

/// Bytes in one write, and so in the queue, but for what the last block goes beyond.
///
/// It leaves Linux as one segment, which holds up to 64 KiB less its headers: 65,483 bytes over
/// loopback, 65,160 with the usual 1,448 in a packet, 62,636 with the 8,948 of a jumbo frame. What
/// a write has beyond a segment is a packet and a wake-up of its own, however short, and that can
/// cost more than all else: over loopback, writes of 65,536 bytes moved 2.0 GB/s, of 65,483 7.1.
pub(crate) const MAX_WRITE: usize = 60 * 1024;

/// Slices in one vectored write: for as many payloads as fit one, and what is joined around them.
const MAX_SLICES: usize = 2 * MAX_WRITE.div_ceil(CHAIN_FROM) + 1;

/// Capacity that is kept while the source has nothing: what `Framed` keeps for the same.
const RESTING: usize = 8 * 1024;

/// Changes of block length queued at once: bounds the bookkeeping where blocks are tiny.
const MAX_RUNS: usize = 1024;

/// Blocks on their way out: large payloads where they lie, everything else joined in one buffer.
///
/// ```text
/// joined   | small blocks, header | header | small blocks |
///                                 ^        ^
/// chained               payload --+        +-- payload
/// ```
///
/// It is filled up before each write, so that none is short while there is more.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    joined: Vec<u8>,
    /// Bytes of `joined` that have been written.
    written: usize,
    /// Large payloads, each behind some bytes of `joined`.
    chained: VecDeque<Chained>,
    /// Where in `joined` the last of `chained` belongs.
    chained_up_to: usize,
    /// Bytes that have not been written.
    unwritten: usize,
    runs: Runs,
}

#[derive(Debug)]
struct Chained {
    /// Bytes of `joined` between the payload before and this one.
    behind: usize,
    payload: Bytes,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.unwritten == 0
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.unwritten >= MAX_WRITE || self.runs.earlier.len() >= MAX_RUNS
    }

    /// Lets go of what has been written, so that there is room for more behind the rest.
    pub(crate) fn make_room(&mut self) {
        self.joined.drain(..self.written);
        self.chained_up_to = self.chained_up_to.saturating_sub(self.written);
        self.written = 0;
    }

    /// Queues `block`, joined if it is small or if the transport does not write `vectored`.
    #[inline]
    pub(crate) fn push<F: Framing>(
        &mut self,
        codec: &BlockCodec<F>,
        block: Bytes,
        vectored: bool,
    ) -> Result<(), BlockError> {
        let before = self.joined.len();
        codec.encode_header(block.len(), &mut self.joined)?;
        let header_len = self.joined.len() - before;
        let wire_len = header_len + block.len();
        self.unwritten += wire_len;
        self.runs.push(block.len(), wire_len);
        if vectored && block.len() >= CHAIN_FROM {
            self.chain(block);
        } else {
            self.joined.extend_from_slice(&block);
        }
        Ok(())
    }

    fn chain(&mut self, payload: Bytes) {
        let up_to = self.joined.len();
        let behind = up_to - self.chained_up_to;
        self.chained_up_to = up_to;
        self.chained.push_back(Chained { behind, payload });
    }

    /// Writes once, and adds what that completed to `stats`.
    pub(crate) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        stats: &mut TransferStats,
    ) -> Poll<io::Result<()>> {
        let io = Pin::new(io);
        let written = if self.chained.is_empty() {
            let joined = &self.joined[self.written..];
            ready!(io.poll_write(cx, &joined[..joined.len().min(MAX_WRITE)]))?
        } else {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let slices = self.slices(&mut slices);
            ready!(io.poll_write_vectored(cx, slices))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        trace!(bytes = written, "written");
        stats.writes += 1;
        self.advance(written);
        self.runs.advance(written, stats);
        Poll::Ready(Ok(()))
    }

    /// The queue in wire order, as far as one write goes.
    fn slices<'s, 'q>(&'q self, slices: &'s mut [IoSlice<'q>]) -> &'s [IoSlice<'q>] {
        let (mut count, mut left) = (0, MAX_WRITE);
        let mut put = |piece: &'q [u8]| {
            let piece = &piece[..piece.len().min(left)];
            if !piece.is_empty() && count < slices.len() {
                slices[count] = IoSlice::new(piece);
                count += 1;
                left -= piece.len();
            }
        };
        let mut joined = &self.joined[self.written..];
        for chained in &self.chained {
            let (behind, rest) = joined.split_at(chained.behind);
            put(behind);
            put(&chained.payload);
            joined = rest;
        }
        put(joined);
        &slices[..count]
    }

    /// Lets go of `written` bytes at the front.
    fn advance(&mut self, mut written: usize) {
        self.unwritten -= written;
        while let Some(first) = self.chained.front_mut() {
            let behind = first.behind.min(written);
            self.written += behind;
            first.behind -= behind;
            written -= behind;

            let payload = first.payload.len().min(written);
            first.payload.advance(payload);
            written -= payload;

            if first.behind > 0 || !first.payload.is_empty() {
                return;
            }
            self.chained.pop_front();
        }
        self.written += written;
    }

    /// Gives back what a burst has taken, for there is nothing to do until who knows when.
    pub(crate) fn rest(&mut self) {
        self.joined.shrink_to(RESTING);
    }

    /// Appends all that has not been written to `buffer`.
    pub(crate) fn spill(&self, buffer: &mut BytesMut) {
        let mut joined = &self.joined[self.written..];
        buffer.reserve(self.unwritten);
        for chained in &self.chained {
            let (behind, rest) = joined.split_at(chained.behind);
            buffer.extend_from_slice(behind);
            buffer.extend_from_slice(&chained.payload);
            joined = rest;
        }
        buffer.extend_from_slice(joined);
    }
}

/// The lengths of the blocks queued: what tells how many of them have been written. Most often
/// they are all the same, and this is two numbers and a count.
#[derive(Debug, Default)]
struct Runs {
    earlier: VecDeque<Run>,
    last: Run,
    /// Bytes of the first block that have been written.
    written_of_first: usize,
}

/// Blocks of one length in a row.
#[derive(Debug, Default)]
struct Run {
    count: u64,
    payload_len: usize,
    wire_len: usize,
}

impl Runs {
    #[inline]
    fn push(&mut self, payload_len: usize, wire_len: usize) {
        if self.last.payload_len == payload_len && self.last.wire_len == wire_len {
            self.last.count += 1;
            return;
        }
        let begun = Run {
            count: 1,
            payload_len,
            wire_len,
        };
        self.earlier
            .push_back(std::mem::replace(&mut self.last, begun));
    }

    /// Adds the blocks that `written` further bytes completed to `stats`.
    fn advance(&mut self, written: usize, stats: &mut TransferStats) {
        let mut written = self.written_of_first + written;
        while let Some(run) = self.earlier.front_mut() {
            run.advance(&mut written, stats);
            if run.count > 0 {
                break;
            }
            self.earlier.pop_front();
        }
        if self.earlier.is_empty() {
            self.last.advance(&mut written, stats);
        }
        self.written_of_first = written;
    }
}

impl Run {
    /// Moves the blocks that `written` bytes complete from here to `stats`.
    fn advance(&mut self, written: &mut usize, stats: &mut TransferStats) {
        // No blocks yet, or blocks of no bytes at all, have no length to divide by.
        let whole = written.checked_div(self.wire_len).unwrap_or(usize::MAX);
        let whole = self.count.min(whole as u64);
        let wire_len = whole as usize * self.wire_len;
        *written -= wire_len;
        self.count -= whole;
        stats.blocks += whole;
        stats.payload_bytes += whole * self.payload_len as u64;
        stats.wire_bytes += wire_len as u64;
    }
}
