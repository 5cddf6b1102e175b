//! A connection in memory, with two ends, limited buffers, and faults on demand. It passes on what is
//! written at once, or when it is flushed.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::scripted::Step;

/// One direction.
///
/// Invariant: `unflushed` is 0 unless it is `buffered`.
#[derive(Debug, Default)]
struct Channel {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// True if the reader sees only what is flushed.
    buffered: bool,
    /// Bytes at the end of `bytes` that the reader does not see yet.
    unflushed: usize,
    /// Bytes ever written.
    written: u64,
    /// True if the last write or flush was pending.
    blocked: bool,
    closed: bool,
    /// True if nobody reads any more, so that what is written is dropped.
    deaf: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    reads: VecDeque<Step>,
    writes: VecDeque<Step>,
    /// Errors returned since the last [`End::take_failures`].
    failed_reads: usize,
    failed_writes: usize,
}

impl Channel {
    /// Lets the reader see all that was written.
    fn pass_on(&mut self) {
        self.unflushed = 0;
        wake(&mut self.reader);
    }
}

/// One end of the connection. Clones are the same end.
#[derive(Clone, Debug)]
pub struct End {
    incoming: Rc<RefCell<Channel>>,
    outgoing: Rc<RefCell<Channel>>,
    vectored: bool,
}

/// Returns two ends. Each direction holds at most `capacity` bytes. If `buffered`, the reader sees them when
/// they are flushed, or when there is no more room.
pub fn pipe(capacity: usize, vectored: bool, buffered: bool) -> [End; 2] {
    let channel = || {
        Rc::new(RefCell::new(Channel {
            capacity: capacity.max(1),
            buffered,
            ..Channel::default()
        }))
    };
    let [there, back] = [channel(), channel()];
    let end = |incoming: &Rc<_>, outgoing: &Rc<_>| End {
        incoming: Rc::clone(incoming),
        outgoing: Rc::clone(outgoing),
        vectored,
    };
    [end(&back, &there), end(&there, &back)]
}

impl End {
    /// Plans what the next read does, after those already planned.
    pub fn plan_read(&self, step: Step) {
        self.incoming.borrow_mut().reads.push_back(step);
    }

    /// Plans what the next write does, after those already planned.
    pub fn plan_write(&self, step: Step) {
        self.outgoing.borrow_mut().writes.push_back(step);
    }

    /// Stops reading: what the peer sends is dropped.
    pub fn stop_reading(&self) {
        let mut channel = self.incoming.borrow_mut();
        channel.deaf = true;
        channel.bytes.clear();
        channel.unflushed = 0;
        wake(&mut channel.writer);
    }

    /// Writes `bytes` past the transport that owns this end, if all fit. Returns true if they do.
    pub fn write_below(&self, bytes: &[u8]) -> bool {
        let mut channel = self.outgoing.borrow_mut();
        if channel.closed || channel.deaf || channel.capacity - channel.bytes.len() < bytes.len() {
            return false;
        }
        channel.bytes.extend(bytes);
        channel.written += bytes.len() as u64;
        match channel.buffered {
            true => channel.unflushed += bytes.len(),
            false => channel.pass_on(),
        }
        true
    }

    /// Returns how many bytes were ever written.
    pub fn written(&self) -> u64 {
        self.outgoing.borrow().written
    }

    /// Returns how many of the written bytes the peer could see.
    pub fn passed_on(&self) -> u64 {
        let channel = self.outgoing.borrow();
        channel.written - channel.unflushed as u64
    }

    /// True if the last write or flush was pending.
    pub fn is_blocked(&self) -> bool {
        self.outgoing.borrow().blocked
    }

    /// Returns whether a read, and whether a write, has failed since the last call.
    pub fn take_failures(&self) -> (bool, bool) {
        let reads = std::mem::take(&mut self.incoming.borrow_mut().failed_reads);
        let writes = std::mem::take(&mut self.outgoing.borrow_mut().failed_writes);
        (reads > 0, writes > 0)
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Returns how many of `room` bytes a step moves. None if it fails.
fn poll_step(step: Option<Step>, room: usize, cx: &mut Context<'_>) -> Poll<Option<usize>> {
    match step {
        None | Some(Step::All) => Poll::Ready(Some(room)),
        Some(Step::Move(bytes)) => Poll::Ready(Some(room.min(bytes))),
        Some(Step::Fail(_)) => Poll::Ready(None),
        Some(Step::Pending) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
}

fn failure<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut channel = self.incoming.borrow_mut();
        assert!(buf.remaining() > 0, "a read without room");
        let seen = channel.bytes.len() - channel.unflushed;
        let room = buf.remaining().min(seen);
        if room == 0 && channel.reads.is_empty() && !channel.closed {
            channel.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let step = channel.reads.pop_front();
        match std::task::ready!(poll_step(step, room, cx)) {
            None => {
                channel.failed_reads += 1;
                failure()
            }
            Some(0) if !channel.closed => {
                channel.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(bytes) => {
                for byte in channel.bytes.drain(..bytes) {
                    buf.put_slice(&[byte]);
                }
                wake(&mut channel.writer);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        assert!(self.vectored || bufs.len() == 1, "it is not vectored");
        let mut channel = self.outgoing.borrow_mut();
        assert!(!channel.closed, "a write after the end");
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        assert!(len > 0, "a write of nothing");
        if channel.deaf {
            channel.written += len as u64;
            return Poll::Ready(Ok(len));
        }
        let room = len.min(channel.capacity - channel.bytes.len());
        let step = match room {
            0 => None,
            _ => channel.writes.pop_front(),
        };
        let polled = poll_step(step, room, cx);
        channel.blocked = matches!(polled, Poll::Pending | Poll::Ready(Some(0)));
        match std::task::ready!(polled) {
            None => {
                channel.failed_writes += 1;
                failure()
            }
            Some(0) => {
                // Without room for more, nothing waits for a flush.
                channel.pass_on();
                channel.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(bytes) => {
                let all = bufs.iter().flat_map(|buf| buf.iter());
                channel.bytes.extend(all.take(bytes));
                channel.written += bytes as u64;
                if channel.buffered {
                    channel.unflushed += bytes;
                } else {
                    channel.pass_on();
                }
                Poll::Ready(Ok(bytes))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut channel = self.outgoing.borrow_mut();
        let step = match channel.unflushed {
            0 => None,
            _ => channel.writes.pop_front(),
        };
        let polled = poll_step(step, 0, cx);
        channel.blocked = polled.is_pending();
        if std::task::ready!(polled).is_none() {
            channel.failed_writes += 1;
            return failure();
        }
        channel.pass_on();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut channel = self.outgoing.borrow_mut();
        channel.closed = true;
        channel.pass_on();
        Poll::Ready(Ok(()))
    }
}
