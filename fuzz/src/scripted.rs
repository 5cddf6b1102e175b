//! A transport that follows a script.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use arbitrary::Arbitrary;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::{FIRST_WRITE, FULL_WRITE, Len};

/// What a transport does when it is asked.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    /// Moves this many bytes at most, and at least one.
    Move(Len),
    /// Moves all there is room for.
    All,
    /// Is not ready, and says that it is at once.
    Pending,
    /// Fails, and goes on.
    Fail,
}

/// A peer that sends `wire` and takes what is written. After its script it moves all that it can.
#[derive(Debug)]
pub struct Scripted<'w> {
    wire: &'w [u8],
    /// Bytes that were read: known, too, while somebody has borrowed this.
    pub arrived: Rc<Cell<usize>>,
    reads: std::slice::Iter<'w, Step>,
    writes: std::slice::Iter<'w, Step>,
    vectored: bool,
    written: Vec<u8>,
    /// Bytes of them that were flushed.
    flushed: usize,
    /// Bytes from which on a queue above is full.
    queue_limit: usize,
    /// Errors it gave.
    pub failures: usize,
}

impl<'w> Scripted<'w> {
    pub fn sending(wire: &'w [u8], reads: &'w [Step]) -> Self {
        Self {
            wire,
            arrived: Rc::default(),
            reads: reads.iter(),
            writes: [].iter(),
            vectored: true,
            written: Vec::new(),
            flushed: 0,
            queue_limit: FIRST_WRITE,
            failures: 0,
        }
    }

    pub fn taking(writes: &'w [Step], vectored: bool) -> Self {
        Self {
            writes: writes.iter(),
            vectored,
            ..Self::sending(&[], &[])
        }
    }

    pub fn written(&self) -> &[u8] {
        &self.written
    }

    /// Bytes from which on the queue of a `BlockTransport` above is full, after the writes since the last
    /// flush.
    pub fn queue_limit(&self) -> usize {
        self.queue_limit
    }

    /// What was written, and flushed since.
    pub fn flushed(&self) -> &[u8] {
        &self.written[..self.flushed]
    }

    /// How many bytes the next step moves, of `room`.
    fn poll_step(
        step: Option<&Step>,
        room: usize,
        failures: &mut usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match step {
            None | Some(Step::All) => Poll::Ready(Ok(room)),
            Some(Step::Move(Len(bytes))) => Poll::Ready(Ok(room.min(*bytes.max(&1)))),
            Some(Step::Pending) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Fail) => {
                *failures += 1;
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
    }
}

impl AsyncRead for Scripted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let arrived = this.arrived.get();
        let room = buf.remaining().min(this.wire.len() - arrived);
        assert!(buf.remaining() > 0, "a read without room");
        let step = Self::poll_step(this.reads.next(), room, &mut this.failures, cx);
        step.map_ok(|bytes| {
            buf.put_slice(&this.wire[arrived..arrived + bytes]);
            this.arrived.set(arrived + bytes);
        })
    }
}

impl AsyncWrite for Scripted<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        assert!(self.vectored || bufs.len() == 1, "it is not vectored");
        let this = &mut *self;
        let room = bufs.iter().map(|buf| buf.len()).sum();
        assert!(room > 0, "a write of nothing");
        let step = Self::poll_step(this.writes.next(), room, &mut this.failures, cx);
        step.map_ok(|mut bytes| {
            let taken = bytes;
            for buf in bufs {
                let of_buf = buf.len().min(bytes);
                this.written.extend_from_slice(&buf[..of_buf]);
                bytes -= of_buf;
            }
            this.queue_limit = FULL_WRITE.min(this.queue_limit + taken / 4);
            taken
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let step = match this.flushed == this.written.len() {
            true => None,
            false => this.writes.next(),
        };
        let step = Self::poll_step(step, 0, &mut this.failures, cx);
        step.map_ok(|_| {
            this.flushed = this.written.len();
            this.queue_limit = FIRST_WRITE;
        })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushed = self.written.len();
        Poll::Ready(Ok(()))
    }
}
