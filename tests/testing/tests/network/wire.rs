//! The socket under the blocks: it splits what a test writes into segments, and counts bytes apart from the
//! crate's own counting.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use turmoil::net::TcpStream;

/// A simulated socket delivers each write whole, whatever its length. Shorter segments let the
/// network cut a block, and make short writes.
pub(crate) struct Wire {
    pub(crate) socket: TcpStream,
    /// Most bytes that one write takes.
    pub(crate) segment: usize,
    /// Segments between two pauses. In a pause the socket takes nothing, so a sender can die or give up
    /// inside a block.
    pub(crate) burst: u64,
    pub(crate) written: u64,
    pub(crate) pause: Option<Pin<Box<Sleep>>>,
    /// True if it takes several slices at once, as a real socket does.
    pub(crate) vectored: bool,
    /// Bytes that have been read.
    pub(crate) arrived: Rc<Cell<u64>>,
    /// Bytes that have been written.
    pub(crate) left: Rc<Cell<u64>>,
}

const PAUSE: Duration = Duration::from_millis(15);

impl Wire {
    fn poll_segment(&mut self, cx: &mut Context<'_>, segment: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let len = ready!(Pin::new(&mut self.socket).poll_write(cx, segment))?;
        self.left.set(self.left.get() + len as u64);
        self.written += 1;
        if self.written % self.burst == 0 {
            self.pause = Some(Box::pin(sleep(PAUSE)));
        }
        Poll::Ready(Ok(len))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        let read = (buf.filled().len() - before) as u64;
        self.arrived.set(self.arrived.get() + read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let segment = &buf[..buf.len().min(self.segment)];
        self.poll_segment(cx, segment)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = bufs.iter().flat_map(|buf| buf.iter().copied());
        let segment: Vec<u8> = bytes.take(self.segment).collect();
        self.poll_segment(cx, &segment)
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
