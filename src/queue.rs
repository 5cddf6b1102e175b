use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tracing::trace;

use crate::{
    BlockCodec, BlockError, Framing, Transfer,
    codec::{BATCH, is_oversized},
};

/// Slices in one vectored write: as many as tokio-util itself passes. The system's own bound is
/// 1,024 or more, but past a few dozen there is hardly a system call left to save.
const MAX_SLICES: usize = 64;

/// Payload bytes from which on a block is referred to instead of copied.
const CHAIN_FROM: usize = 4096;

/// Payload bytes referred to at once. One block more may be, however large.
const MAX_CHAINED: usize = 1024 * 1024;

/// Changes of block length queued at once: bounds the bookkeeping where blocks are tiny.
const MAX_RUNS: usize = 1024;

/// Blocks on their way out: large payloads where they lie, everything else joined in one buffer.
///
/// ```text
/// joined   | earlier bytes, small blocks, header | header | small blocks |
///                                                ^        ^
/// chained                              payload --+        +-- payload
/// ```
#[derive(Debug)]
pub(crate) struct Queue {
    /// `Framed`'s write buffer, on loan: what was in it goes out first.
    joined: BytesMut,
    /// Large payloads, each behind some bytes of `joined`.
    chained: VecDeque<Chained>,
    /// Bytes of `joined` behind the last of `chained`.
    tail: usize,
    /// Payload bytes in `chained`.
    chained_bytes: usize,
    /// Bytes at the front that belong to no queued block.
    foreign: usize,
    /// The lengths of the blocks queued: what tells how many of them have been written.
    runs: VecDeque<Run>,
    /// Bytes of the first of them that have been written.
    written_of_first: usize,
}

#[derive(Debug)]
struct Chained {
    /// Bytes of `joined` between the payload before and this one.
    behind: usize,
    payload: Bytes,
}

/// Blocks of one length in a row.
#[derive(Debug)]
struct Run {
    count: u64,
    payload_len: usize,
    wire_len: usize,
}

impl Queue {
    /// A queue whose first bytes are those of `write_buffer`.
    pub(crate) fn behind(write_buffer: BytesMut) -> Self {
        Self {
            tail: write_buffer.len(),
            foreign: write_buffer.len(),
            joined: write_buffer,
            chained: VecDeque::new(),
            chained_bytes: 0,
            runs: VecDeque::new(),
            written_of_first: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.chained.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.joined.len() >= BATCH
            || self.chained_bytes >= MAX_CHAINED
            || self.chained.len() >= MAX_SLICES / 2
            || self.runs.len() >= MAX_RUNS
    }

    /// Queues `block`, joined if it is small or if the transport does not write `vectored`.
    pub(crate) fn push<F: Framing>(
        &mut self,
        codec: &BlockCodec<F>,
        block: Bytes,
        vectored: bool,
    ) -> Result<(), BlockError> {
        let payload_len = block.len();
        let before = self.joined.len();
        codec.encode_header(payload_len, &mut self.joined)?;
        let wire_len = self.joined.len() - before + payload_len;

        if vectored && payload_len >= CHAIN_FROM {
            self.chained.push_back(Chained {
                behind: self.tail + self.joined.len() - before,
                payload: block,
            });
            self.chained_bytes += payload_len;
            self.tail = 0;
        } else {
            self.joined.extend_from_slice(&block);
            self.tail += wire_len;
        }

        match self.runs.back_mut() {
            Some(run) if run.payload_len == payload_len && run.wire_len == wire_len => {
                run.count += 1;
            }
            _ => self.runs.push_back(Run {
                count: 1,
                payload_len,
                wire_len,
            }),
        }
        Ok(())
    }

    /// Writes once, and counts what that completed.
    pub(crate) fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
        transfer: &mut Transfer,
    ) -> Poll<io::Result<()>> {
        let io = Pin::new(io);
        let written = if self.chained.is_empty() {
            ready!(io.poll_write(cx, &self.joined))?
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
        self.count(written, transfer);
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
        let mut joined = &self.joined[..];
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
            self.joined.advance(behind);
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
        self.joined.advance(written);
        self.tail -= written;
    }

    /// Adds the blocks that `written` further bytes completed to `transfer`.
    fn count(&mut self, mut written: usize, transfer: &mut Transfer) {
        let foreign = self.foreign.min(written);
        self.foreign -= foreign;
        written = written - foreign + self.written_of_first;
        while let Some(run) = self.runs.front_mut() {
            let whole = match written.checked_div(run.wire_len) {
                Some(whole) => run.count.min(whole as u64),
                None => run.count, // blocks of no bytes at all
            };
            let wire_len = whole as usize * run.wire_len;
            transfer.blocks += whole;
            transfer.payload_bytes += whole * run.payload_len as u64;
            transfer.wire_bytes += wire_len as u64;
            written -= wire_len;
            run.count -= whole;
            if run.count > 0 {
                break;
            }
            self.runs.pop_front();
        }
        self.written_of_first = written;
    }

    /// Gives the write buffer back, with all that has not been written in it.
    pub(crate) fn into_write_buffer(mut self, most: usize) -> BytesMut {
        if self.chained.is_empty() && is_oversized(&mut self.joined, most) {
            return BytesMut::new();
        }
        if self.chained.is_empty() {
            return self.joined;
        }
        let mut all = BytesMut::with_capacity(self.joined.len() + self.chained_bytes);
        for chained in mem::take(&mut self.chained) {
            all.extend_from_slice(&self.joined.split_to(chained.behind));
            all.extend_from_slice(&chained.payload);
        }
        all.extend_from_slice(&self.joined);
        all
    }
}
