//! A transport without a system behind it, and a sequence of blocks as bytes.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes that leave at once. A socket has seldom more to give.
pub(crate) const PIECE: usize = 64 * 1024;

/// The same block over and over, `PIECE` bytes at a time.
#[derive(Debug)]
pub(crate) struct Blocks {
    /// The block repeated, so that a piece can begin at any byte of one.
    repeated: Vec<u8>,
    wire_len: usize,
    /// Where in a block the next piece begins.
    phase: usize,
    left: u64,
}

impl Blocks {
    /// `count` blocks that look like `wire`.
    pub(crate) fn new(wire: &[u8], count: u64) -> Self {
        let repeated = wire.iter().copied().cycle();
        Self {
            repeated: repeated.take(wire.len() + PIECE).collect(),
            wire_len: wire.len(),
            phase: 0,
            left: count.saturating_mul(wire.len() as u64),
        }
    }

    /// The next bytes, at most `most` of them; none after the last block.
    pub(crate) fn piece(&mut self, most: usize) -> &[u8] {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let len = most.min(PIECE).min(left);
        let start = self.phase;
        self.phase = (start + len) % self.wire_len;
        self.left -= len as u64;
        &self.repeated[start..start + len]
    }
}

/// Reads give [`Blocks`], always at once; writes take everything, vectored too, and forget it.
#[derive(Debug)]
pub(crate) struct Memory(pub(crate) Blocks);

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        buf.put_slice(self.0.piece(buf.remaining()));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(std::hint::black_box(buf).len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let slices = std::hint::black_box(slices);
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
