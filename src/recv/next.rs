//! Waits for a block: the futures of a receiver.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::RecvBlocks;
use crate::{AsFramedRead, framed::Arrival};

/// The future of [`RecvBlocks::next`]: await it.
// Written out, since the compiler does not inline the poll of an `async fn` into more than one
// caller, and a call takes half as long as lending a small block.
#[must_use = "nothing is received until this is awaited"]
pub struct Next<'n, 'a, R: AsFramedRead> {
    /// None once the block was lent.
    pub(super) receiver: Option<&'n mut RecvBlocks<'a, R>>,
}

impl<'n, R: AsFramedRead> Future for Next<'n, '_, R> {
    type Output = Result<Option<&'n [u8]>, R::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let receiver = self.receiver.take().expect("not polled after it was ready");
        let mut block = receiver.lend();
        if block.is_none() {
            match receiver.poll_lend(cx) {
                Poll::Ready(Ok(lent)) => block = lent,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.receiver = Some(receiver);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(block.map(|block| &receiver.framed.read_buffer()[block])))
    }
}

impl<R: AsFramedRead> Drop for Next<'_, '_, R> {
    #[inline]
    fn drop(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            receiver.timeouts.pause();
        }
    }
}

impl<R: AsFramedRead> fmt::Debug for Next<'_, '_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").finish_non_exhaustive()
    }
}

/// Waits until there is a whole block to lend, or none will come.
pub(super) struct WaitForBlock<'n, 'a, R: AsFramedRead>(pub(super) &'n mut RecvBlocks<'a, R>);

impl<R: AsFramedRead> Future for WaitForBlock<'_, '_, R> {
    type Output = Result<Arrival, R::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_block(cx)
    }
}

impl<R: AsFramedRead> Drop for WaitForBlock<'_, '_, R> {
    fn drop(&mut self) {
        self.0.timeouts.pause();
    }
}
