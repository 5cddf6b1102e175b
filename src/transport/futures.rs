//! The futures of a transport's own methods.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::futures::Sink;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use super::BlockTransport;
use crate::{BlockError, CodecError, Framing, Payload, stall::Waiter};

/// The future of [`BlockTransport::next`].
#[must_use = "nothing is received until this is awaited"]
pub struct NextBlock<'a, T, F, E = BlockError> {
    pub(super) transport: &'a mut BlockTransport<T, F, E>,
}

impl<T, F, E> Future for NextBlock<'_, T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Output = Option<Result<BytesMut, E>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.transport.poll_next_for(Waiter::Future, cx)
    }
}

impl<T, F, E> Drop for NextBlock<'_, T, F, E> {
    #[inline]
    fn drop(&mut self) {
        if let Some(timeouts) = &mut self.transport.timeouts {
            timeouts.pause();
        }
    }
}

/// The future of [`BlockTransport::expect_next`].
#[must_use = "nothing is received until this is awaited"]
pub struct ExpectNext<'a, T, F, E = BlockError> {
    pub(super) next: NextBlock<'a, T, F, E>,
}

impl<T, F, E> Future for ExpectNext<'_, T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Output = Result<BytesMut, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(block) = ready!(Pin::new(&mut self.next).poll(cx)) {
            return Poll::Ready(block);
        }
        let received = self.next.transport.codec.decode.position().index;
        let expected = received + 1;
        Poll::Ready(Err(BlockError::TooFew { expected, received }.into()))
    }
}

/// The future of [`BlockTransport::feed`].
#[must_use = "nothing is sent until this is awaited"]
pub struct FeedBlock<'a, T, F, P, E = BlockError> {
    pub(super) transport: &'a mut BlockTransport<T, F, E>,
    /// None once the transport has taken it.
    pub(super) payload: Option<P>,
}

impl<T, F, P, E> FeedBlock<'_, T, F, P, E> {
    /// Returns the payload if the transport has not taken it, and nothing of its block will be sent.
    ///
    /// Returns `None` if the block is queued or sent, or if it was refused with an error.
    #[must_use]
    pub fn into_payload(self) -> Option<P> {
        self.payload
    }
}

impl<T, F, P, E> FeedBlock<'_, T, F, P, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    P: Payload,
    E: CodecError,
{
    fn poll_queued(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        if self.payload.is_some() {
            ready!(self.transport.poll_room(cx))?;
        }
        Poll::Ready(match self.payload.take() {
            Some(payload) => self.transport.queue(payload),
            None => Ok(()),
        })
    }
}

impl<T, F, P, E> Future for FeedBlock<'_, T, F, P, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    P: Payload,
    E: CodecError,
{
    type Output = Result<(), E>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_queued(cx)
    }
}

/// The future of [`BlockTransport::send`].
#[must_use = "nothing is sent until this is awaited"]
pub struct SendBlock<'a, T, F, P, E = BlockError> {
    pub(super) feed: FeedBlock<'a, T, F, P, E>,
}

impl<T, F, P, E> SendBlock<'_, T, F, P, E> {
    /// Returns the payload if the transport has not taken it, and nothing of its block will be sent.
    ///
    /// Returns `None` if the block is queued or sent, or if it was refused with an error. A block
    /// that is queued is sent with the next flush.
    #[must_use]
    pub fn into_payload(self) -> Option<P> {
        self.feed.into_payload()
    }
}

impl<T, F, P, E> Future for SendBlock<'_, T, F, P, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    P: Payload,
    E: CodecError,
{
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(self.feed.poll_queued(cx))?;
        Pin::new(&mut *self.feed.transport).poll_flush(cx)
    }
}

/// The future of [`BlockTransport::flush`].
#[must_use = "nothing is flushed until this is awaited"]
pub struct Flush<'a, T, F, E = BlockError> {
    pub(super) transport: &'a mut BlockTransport<T, F, E>,
}

impl<T, F, E> Future for Flush<'_, T, F, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Sink::<Bytes>::poll_flush(Pin::new(&mut *self.transport), cx)
    }
}

/// The future of [`BlockTransport::close`].
#[must_use = "nothing is closed until this is awaited"]
pub struct Close<'a, T, F, E = BlockError> {
    pub(super) transport: &'a mut BlockTransport<T, F, E>,
}

impl<T, F, E> Future for Close<'_, T, F, E>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Sink::<Bytes>::poll_close(Pin::new(&mut *self.transport), cx)
    }
}

/// Nothing in these is pinned.
impl<T, F, P, E> Unpin for FeedBlock<'_, T, F, P, E> {}
impl<T, F, P, E> Unpin for SendBlock<'_, T, F, P, E> {}

macro_rules! debug {
    ($($future:ident<$($of:ident),*>)*) => {$(
        impl<$($of),*> fmt::Debug for $future<'_, $($of),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($future)).finish_non_exhaustive()
            }
        }
    )*};
}

debug! { NextBlock<T, F, E> ExpectNext<T, F, E> FeedBlock<T, F, P, E> SendBlock<T, F, P, E> Flush<T, F, E> Close<T, F, E> }
