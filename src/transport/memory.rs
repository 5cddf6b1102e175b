//! A block that is received into the caller's memory.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::BlockTransport;
use crate::{
    codec::BlockCodec,
    coop,
    error::{BlockError, CodecError},
    framing::Framing,
    read::{Direct, ForMemory},
    timeout::Waiter,
};

/// The future of [`BlockTransport::recv_into`].
#[must_use = "nothing is received until this is awaited"]
pub struct RecvInto<'a, T, F, E = BlockError> {
    pub(super) transport: &'a mut BlockTransport<T, F, E>,
    pub(super) memory: &'a mut [u8],
    /// The block that is being read straight into `memory`.
    pub(super) direct: Option<Direct>,
}

impl<T, F, E> Future for RecvInto<'_, T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Output = Result<Option<usize>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.direct.is_none() {
            // Before the wait begins, because a yield between two blocks is no wait.
            ready!(this.transport.codec.decode.poll_charge(cx));
        }
        let Self {
            transport,
            memory,
            direct,
        } = this;
        // One wait for the header and the rest. The waits of dropped futures add up.
        let received = ready!(transport.without_end_after_error(|transport| {
            transport.poll_receiving(Waiter::Future, cx, |transport, cx| {
                transport.poll_into(cx, memory, direct)
            })
        }));
        if received.is_err() {
            this.give_up();
            this.transport.pause();
        }
        Poll::Ready(received.map_err(BlockError::into_codec_error))
    }
}

impl<T, F, E> BlockTransport<T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    /// Receives the next block into `memory`, or continues with `direct`.
    fn poll_into(
        &mut self,
        cx: &mut Context<'_>,
        memory: &mut [u8],
        direct: &mut Option<Direct>,
    ) -> Poll<Result<Option<usize>, BlockError>> {
        if direct.is_none() {
            let begun = ready!(self.poll_front(cx, |decode, parser, buffer| {
                decode.begin_direct(parser, memory, buffer)
            }))?;
            match begun {
                Some(ForMemory::Direct(begun)) => *direct = Some(begun),
                Some(ForMemory::Whole(frame)) => {
                    let block = self.codec.decode.lend_accepted(frame);
                    let len = block.len();
                    memory[..len].copy_from_slice(&self.read_buf[block]);
                    return Poll::Ready(Ok(Some(len)));
                }
                None => return Poll::Ready(Ok(None)),
            }
        }
        let mut has_read = false;
        while let Some(of) = direct.as_mut().filter(|of| !of.missing().is_empty()) {
            if has_read && self.is_late() {
                return Poll::Pending; // `poll_receiving` reports it
            }
            has_read = true;
            let mut rest = ReadBuf::new(&mut memory[of.missing()]);
            let polled =
                coop::poll_operation(cx, |cx| Pin::new(&mut self.io).poll_read(cx, &mut rest));
            let BlockCodec { parser, decode, .. } = &mut self.codec;
            if polled.is_pending() {
                decode.park(&mut self.read_buf);
            }
            ready!(polled)?;
            let bytes = rest.filled().len();
            if bytes == 0 {
                decode.return_direct(*of, memory, &mut self.read_buf);
                *direct = None;
                decode.end_of_stream(parser, &self.read_buf)?;
                return Poll::Ready(Ok(None));
            }
            decode.record_direct(bytes);
            of.add(bytes);
        }
        self.codec.decode.end_direct(&mut self.read_buf);
        Poll::Ready(Ok(direct.take().map(|of| of.len())))
    }
}

impl<T, F, E> RecvInto<'_, T, F, E> {
    /// Moves the part of an unfinished block that has arrived from `memory` to the read buffer.
    fn give_up(&mut self) {
        if let Some(direct) = self.direct.take() {
            let BlockTransport {
                codec, read_buf, ..
            } = &mut *self.transport;
            codec.decode.return_direct(direct, self.memory, read_buf);
        }
    }
}

impl<T, F, E> Drop for RecvInto<'_, T, F, E> {
    fn drop(&mut self) {
        self.give_up();
        self.transport.pause();
    }
}

opaque_debug! { RecvInto<T, F, E> }
