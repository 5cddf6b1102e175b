//! A block that is sent part by part, from a reader.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::Sink;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::BlockTransport;
use crate::{
    coop,
    error::{BlockError, CodecError},
    framing::{Framing, MAX_HEADER_LEN},
    pool::INITIAL_CAPACITY,
    read::BATCH,
};

/// The future of [`BlockTransport::send_from`] and [`BlockTransport::send_rest_from`].
///
/// After a timeout or an error of the transport you can await it again. After any other error, awaiting it
/// again returns an [`Io`](BlockError::Io) error that says so.
#[must_use = "nothing is sent until this is awaited"]
pub struct SendFrom<'a, T, F, S, E = BlockError>
where
    F: Framing,
{
    transport: &'a mut BlockTransport<T, F, E>,
    source: S,
    step: Step,
    /// Bytes ever queued before the block. None unless this future has begun the block.
    start: Option<u64>,
}

/// The next step of sending a block part by part.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Queue the header of a block of this many bytes.
    Begin(u64),
    /// Queue parts until the header, which the source gives, can be checked. Nothing is written before.
    Check,
    /// Move parts from the source to the queue, and from there to the transport.
    Move,
    /// Flush: all of the block is queued.
    Flush,
    /// The future has ended, with or without an error.
    Over,
}

/// The source's answer to a request for a batch.
enum Filled {
    /// A batch is queued, or all that the source had ready.
    Some { is_pending: bool },
    /// The source has given all of the block, and ended.
    All,
}

impl<'a, T, F, S, E> SendFrom<'a, T, F, S, E>
where
    F: Framing,
    E: CodecError,
{
    pub(super) fn begin(transport: &'a mut BlockTransport<T, F, E>, len: u64, source: S) -> Self {
        Self {
            transport,
            source,
            step: Step::Begin(len),
            start: None,
        }
    }

    pub(super) fn resume(transport: &'a mut BlockTransport<T, F, E>, source: S) -> Self {
        let step = match transport.codec.unfinished() {
            Some(_) => Step::Move,
            None => Step::Flush,
        };
        Self {
            transport,
            source,
            step,
            start: None,
        }
    }
}

impl<T, F, S, E> SendFrom<'_, T, F, S, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    S: AsyncRead + Unpin,
    E: CodecError,
{
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        match self.step {
            Step::Begin(len) => self.poll_begin(len, cx),
            Step::Check => self.poll_check(cx),
            Step::Move => self.poll_move(cx),
            Step::Flush => {
                ready!(self.poll_flush(cx))?;
                self.step = Step::Over;
                Poll::Ready(Ok(()))
            }
            Step::Over => {
                let error = io::Error::other("this block was sent, or has failed, before");
                Poll::Ready(Err(error.into()))
            }
        }
    }

    /// Queues the header.
    fn poll_begin(&mut self, len: u64, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        if let Some(error) = self.transport.codec.unfinished_error() {
            return Poll::Ready(self.fail(error));
        }
        let is_kept = !self.transport.codec.framing().outgoing().proven().encoded;
        if is_kept || len == 0 {
            // What was queued before must not wait for this source.
            ready!(self.poll_flush(cx))?;
        } else {
            ready!(self.transport.poll_room(cx))?;
        }
        if len == 0 {
            // The header is the whole block, so the source must have ended before it is queued.
            ready!(self.poll_end(0, cx).or_else(|error| self.fail(error))?);
        }
        let BlockTransport { codec, writer, .. } = &mut *self.transport;
        codec.count_encoded(writer.take_uncounted());
        let start = writer.total();
        if let Err(error) = codec.begin_unfinished(len, writer.flat_mut()) {
            self.step = Step::Over;
            return Poll::Ready(Err(error.into()));
        }
        self.start = Some(start);
        self.step = match (len, is_kept) {
            (1.., true) => Step::Check,
            _ => Step::Move,
        };
        if len == 0 {
            self.end();
        }
        Poll::Ready(Ok(()))
    }

    /// Queues parts of the block until its header can be read back and checked.
    fn poll_check(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        let filled = self
            .fill(cx, MAX_HEADER_LEN)
            .or_else(|error| self.fail(error))?;
        let BlockTransport { codec, writer, .. } = &mut *self.transport;
        if let Filled::All = filled {
            codec.queue_last(writer.flat_mut());
        }
        let start = self.start.unwrap_or(writer.total());
        let front = writer.last((writer.total() - start) as usize);
        let checked = codec.check_unfinished(front);
        match (checked.or_else(|error| self.fail(error))?, filled) {
            (true, Filled::All) => self.end(),
            (true, Filled::Some { .. }) => self.step = Step::Move,
            (false, Filled::Some { is_pending: true }) => return Poll::Pending,
            (false, _) => {}
        }
        Poll::Ready(Ok(()))
    }

    /// Moves a part of a full write, or what the source has ready.
    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        let part_len = self.transport.writer.part_len();
        let most = part_len.clamp(INITIAL_CAPACITY, BATCH);
        let filled = self.fill(cx, most).or_else(|error| self.fail(error))?;
        match filled {
            Filled::All => self.end(),
            Filled::Some { is_pending: false } => {
                while !self.transport.writer.is_empty() {
                    ready!(self.transport.poll_write(cx))?;
                }
            }
            Filled::Some { is_pending: true } => {
                ready!(self.poll_flush(cx))?;
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self) {
        let BlockTransport { codec, writer, .. } = &mut *self.transport;
        codec.end_unfinished(writer.flat_mut());
        self.step = Step::Flush;
    }

    /// Queues what the source has ready, until `most` bytes are queued.
    fn fill(&mut self, cx: &mut Context<'_>, most: usize) -> Result<Filled, BlockError> {
        while self.transport.writer.len() < most {
            let BlockTransport { codec, writer, .. } = &mut *self.transport;
            let index = codec.encoded().index;
            let Some(unfinished) = codec.unfinished_mut() else {
                return Ok(Filled::All);
            };
            if unfinished.missing == 0 {
                let len = unfinished.len;
                return Ok(match self.poll_end(len, cx)? {
                    Poll::Ready(()) => Filled::All,
                    Poll::Pending => Filled::Some { is_pending: true },
                });
            }
            let room = usize::try_from(unfinished.missing).unwrap_or(usize::MAX);
            match writer.poll_fill(&mut self.source, cx, room.min(most - writer.len())) {
                Poll::Ready(Ok(0)) => {
                    return Err(BlockError::WrongSource {
                        len: unfinished.len,
                        given: unfinished.len - unfinished.missing,
                        index,
                    });
                }
                Poll::Ready(Ok(bytes)) => unfinished.add(bytes, writer.flat_mut()),
                Poll::Ready(Err(error)) => return Err(BlockError::Source(error.into())),
                Poll::Pending => return Ok(Filled::Some { is_pending: true }),
            }
        }
        Ok(Filled::Some { is_pending: false })
    }

    /// Waits for the end of the source, which has given all `len` bytes of the block.
    fn poll_end(&mut self, len: u64, cx: &mut Context<'_>) -> Result<Poll<()>, BlockError> {
        let mut more = [0];
        let mut more = ReadBuf::new(&mut more);
        let polled =
            coop::poll_operation(cx, |cx| Pin::new(&mut self.source).poll_read(cx, &mut more));
        match polled {
            Poll::Ready(Ok(())) if more.filled().is_empty() => Ok(Poll::Ready(())),
            Poll::Ready(Ok(())) => Err(BlockError::WrongSource {
                len,
                given: len + 1,
                index: self.transport.codec.encoded().index,
            }),
            Poll::Ready(Err(error)) => Err(BlockError::Source(error.into())),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        Sink::<Bytes>::poll_flush(Pin::new(&mut *self.transport), cx)
    }

    /// Ends with `error`, and removes the block if that is still possible.
    fn fail<R>(&mut self, error: BlockError) -> Result<R, E> {
        self.step = Step::Over;
        self.retract();
        Err(error.into())
    }
}

impl<T, F: Framing, S, E> SendFrom<'_, T, F, S, E> {
    /// Removes the block from the queue, if this future has begun it and nothing of it has been written.
    fn retract(&mut self) {
        let BlockTransport { codec, writer, .. } = &mut *self.transport;
        let Some(start) = self.start else { return };
        if codec.unfinished().is_some() && writer.written().0 <= start {
            let uncounted = writer.retract(start);
            codec.forget_unfinished(uncounted);
        }
    }
}

impl<T, F, S, E> Future for SendFrom<'_, T, F, S, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    S: AsyncRead + Unpin,
    E: CodecError,
{
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            ready!(self.poll_step(cx))?;
            if let Step::Over = self.step {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T, F: Framing, S, E> Drop for SendFrom<'_, T, F, S, E> {
    fn drop(&mut self) {
        if let Step::Check = self.step {
            self.retract(); // a flush would write a header that nobody has read back
        }
    }
}

/// Nothing in it is pinned.
impl<T, F: Framing, S, E> Unpin for SendFrom<'_, T, F, S, E> {}

impl<T, F: Framing, S, E> fmt::Debug for SendFrom<'_, T, F, S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendFrom").finish_non_exhaustive()
    }
}
