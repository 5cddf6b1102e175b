use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A transport that follows a script and records what was asked of it.
///
/// After the script, reads meet the end of the stream, or silence, and writes take everything.
#[derive(Debug, Default)]
pub(crate) struct Scripted {
    reads: VecDeque<Step>,
    writes: VecDeque<Step>,
    /// Whether reads after the script are pending instead of the end of the stream.
    silent: bool,
    pub(crate) not_vectored: bool,
    pub(crate) written: Vec<u8>,
    /// Slices each write was given, and bytes it took.
    pub(crate) gathered: Vec<(usize, usize)>,
    /// Where in memory each slice of each write began.
    pub(crate) addresses: Vec<usize>,
    /// Room each read was given, and bytes it brought.
    pub(crate) rooms: Vec<(usize, usize)>,
    pub(crate) flushes: usize,
    pub(crate) shutdowns: usize,
}

#[derive(Debug)]
enum Step {
    Bytes(BytesMut),
    /// Takes this many bytes, of one write.
    Take(usize),
    /// Pending once, and ready at once for the next poll.
    Pending,
    Error(io::ErrorKind),
}

impl Scripted {
    /// A peer that sends `wire` in pieces of `chunk` bytes, pausing before each if told to.
    pub(crate) fn chunked(wire: &[u8], chunk: usize, pausing: bool) -> Self {
        wire.chunks(chunk).fold(Self::default(), |io, piece| {
            let io = if pausing { io.pause() } else { io };
            io.send(piece)
        })
    }

    pub(crate) fn send(mut self, bytes: &[u8]) -> Self {
        self.reads.push_back(Step::Bytes(bytes.into()));
        self
    }

    pub(crate) fn pause(mut self) -> Self {
        self.reads.push_back(Step::Pending);
        self
    }

    pub(crate) fn fail(mut self, kind: io::ErrorKind) -> Self {
        self.reads.push_back(Step::Error(kind));
        self
    }

    pub(crate) fn then_silent(mut self) -> Self {
        self.silent = true;
        self
    }

    pub(crate) fn take(mut self, bytes: usize) -> Self {
        self.writes.push_back(Step::Take(bytes));
        self
    }

    pub(crate) fn pause_writes(mut self) -> Self {
        self.writes.push_back(Step::Pending);
        self
    }

    pub(crate) fn fail_writes(mut self, kind: io::ErrorKind) -> Self {
        self.writes.push_back(Step::Error(kind));
        self
    }

    pub(crate) fn not_vectored(mut self) -> Self {
        self.not_vectored = true;
        self
    }

    fn write(&mut self, cx: &mut Context<'_>, slices: &[&[u8]]) -> Poll<io::Result<usize>> {
        let mut room = match self.writes.pop_front() {
            None => usize::MAX,
            Some(Step::Take(bytes)) => bytes,
            Some(Step::Error(kind)) => return Poll::Ready(Err(kind.into())),
            Some(_) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        };
        let before = self.written.len();
        for slice in slices {
            self.addresses.push(slice.as_ptr() as usize);
            let taken = slice.len().min(room);
            self.written.extend_from_slice(&slice[..taken]);
            room -= taken;
        }
        let taken = self.written.len() - before;
        self.gathered.push((slices.len(), taken));
        Poll::Ready(Ok(taken))
    }
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        match self.reads.pop_front() {
            None if self.silent => return Poll::Pending,
            None => self.rooms.push((room, 0)),
            Some(Step::Bytes(mut bytes)) => {
                let taken = bytes.split_to(bytes.len().min(room));
                buf.put_slice(&taken);
                self.rooms.push((room, taken.len()));
                if !bytes.is_empty() {
                    self.reads.push_front(Step::Bytes(bytes));
                }
            }
            Some(Step::Error(kind)) => return Poll::Ready(Err(kind.into())),
            Some(_) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, &[buf])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let slices: Vec<&[u8]> = bufs.iter().map(|slice| &**slice).collect();
        self.write(cx, &slices)
    }

    fn is_write_vectored(&self) -> bool {
        !self.not_vectored
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shutdowns += 1;
        Poll::Ready(Ok(()))
    }
}
