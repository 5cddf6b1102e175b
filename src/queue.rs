use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tracing::trace;

use crate::{BlockCodec, BlockError, Framing, Transfer};

/// Slices in one vectored write: as many as tokio-util itself passes. The system's own bound is
/// 1,024 or more, but past a few dozen there is hardly a system call left to save.
const MAX_SLICES: usize = 64;

/// Payload bytes from which on a block is referred to instead of copied. Over loopback, blocks of
/// 4 KiB went at 1.1 of the bare socket's rate joined and 0.9 chained, 8 KiB at about 1.0 either
/// way, 16 KiB at 0.75 joined and 0.95 chained.
const CHAIN_FROM: usize = 8 * 1024;

/// Bytes joined for one write. Each write wakes the receiver, which costs as much as copying tens
/// of kilobytes: with 64 KiB a write, 64-byte blocks crossed loopback at 0.85 of the bare socket's
/// rate, with 128 KiB at 0.95, with 256 KiB at 0.99. One small block more still fits 256 KiB.
const MAX_JOINED: usize = 248 * 1024;

/// Capacity that is kept while the source has nothing: what `Framed` keeps for the same.
const RESTING: usize = 8 * 1024;

/// Payload bytes referred to at once. One block more may be, however large.
const MAX_CHAINED: usize = 1024 * 1024;

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
/// It is filled, then written until it is empty, then filled again.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    joined: Vec<u8>,
    /// Bytes of `joined` that have been written.
    written: usize,
    /// Large payloads, each behind some bytes of `joined`.
    chained: VecDeque<Chained>,
    /// Payload bytes in `chained`.
    chained_bytes: usize,
    /// Where in `joined` the last of `chained` belongs.
    chained_up_to: usize,
    runs: Runs,
    full: bool,
}

#[derive(Debug)]
struct Chained {
    /// Bytes of `joined` between the payload before and this one.
    behind: usize,
    payload: Bytes,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.joined.len() && self.chained.is_empty()
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.full
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
        let lens = (block.len(), header_len + block.len());
        if vectored && block.len() >= CHAIN_FROM {
            self.chain(block);
        } else {
            self.joined.extend_from_slice(&block);
            self.full |= self.joined.len() >= MAX_JOINED;
        }
        if self.runs.push(lens) {
            self.full |= self.runs.earlier.len() >= MAX_RUNS;
        }
        Ok(())
    }

    fn chain(&mut self, payload: Bytes) {
        let up_to = self.joined.len();
        let behind = up_to - self.chained_up_to;
        self.chained_up_to = up_to;
        self.chained_bytes += payload.len();
        self.chained.push_back(Chained { behind, payload });
        self.full |= self.chained_bytes >= MAX_CHAINED;
    }

    /// Writes once, and adds what that completed to `transfer`.
    pub(crate) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        transfer: &mut Transfer,
    ) -> Poll<io::Result<()>> {
        let io = Pin::new(io);
        let written = if self.chained.is_empty() {
            ready!(io.poll_write(cx, &self.joined[self.written..]))?
        } else {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let slices = self.slices(&mut slices);
            ready!(io.poll_write_vectored(cx, slices))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        trace!(bytes = written, "written");
        transfer.writes += 1;
        self.advance(written);
        self.runs.advance(written, transfer);
        Poll::Ready(Ok(()))
    }

    /// The queue in wire order, as far as `slices` go.
    fn slices<'s, 'q>(&'q self, slices: &'s mut [IoSlice<'q>]) -> &'s [IoSlice<'q>] {
        let mut count = 0;
        let mut put = |piece: &'q [u8]| {
            if !piece.is_empty() && count < slices.len() {
                slices[count] = IoSlice::new(piece);
                count += 1;
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
        while let Some(first) = self.chained.front_mut() {
            let behind = first.behind.min(written);
            self.written += behind;
            first.behind -= behind;
            written -= behind;

            let payload = first.payload.len().min(written);
            first.payload.advance(payload);
            self.chained_bytes -= payload;
            written -= payload;

            if first.behind > 0 || !first.payload.is_empty() {
                return;
            }
            self.chained.pop_front();
        }
        self.written += written;
        if self.written == self.joined.len() {
            self.joined.clear();
            (self.written, self.chained_up_to, self.full) = (0, 0, false);
        }
    }

    /// Gives back what a burst has taken, for there is nothing to do until who knows when.
    pub(crate) fn rest(&mut self) {
        self.joined.shrink_to(RESTING);
    }

    /// Appends all that has not been written to `buffer`.
    pub(crate) fn spill(&self, buffer: &mut BytesMut) {
        let mut joined = &self.joined[self.written..];
        buffer.reserve(joined.len() + self.chained_bytes);
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
    /// Adds a block, and says whether it began a new run.
    #[inline]
    fn push(&mut self, (payload_len, wire_len): (usize, usize)) -> bool {
        if self.last.payload_len == payload_len && self.last.wire_len == wire_len {
            self.last.count += 1;
            return false;
        }
        let begun = Run {
            count: 1,
            payload_len,
            wire_len,
        };
        self.earlier
            .push_back(std::mem::replace(&mut self.last, begun));
        true
    }

    /// Adds the blocks that `written` further bytes completed to `transfer`.
    fn advance(&mut self, written: usize, transfer: &mut Transfer) {
        let mut written = self.written_of_first + written;
        while let Some(run) = self.earlier.front_mut() {
            run.advance(&mut written, transfer);
            if run.count > 0 {
                break;
            }
            self.earlier.pop_front();
        }
        if self.earlier.is_empty() {
            self.last.advance(&mut written, transfer);
        }
        self.written_of_first = written;
    }
}

impl Run {
    /// Moves the blocks that `written` bytes complete from here to `transfer`.
    fn advance(&mut self, written: &mut usize, transfer: &mut Transfer) {
        // No blocks yet, or blocks of no bytes at all, have no length to divide by.
        let whole = written.checked_div(self.wire_len).unwrap_or(usize::MAX);
        let whole = self.count.min(whole as u64);
        let wire_len = whole as usize * self.wire_len;
        *written -= wire_len;
        self.count -= whole;
        transfer.blocks += whole;
        transfer.payload_bytes += whole * self.payload_len as u64;
        transfer.wire_bytes += wire_len as u64;
    }
}
