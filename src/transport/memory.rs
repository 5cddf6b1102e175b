//! A block that is received in the caller's memory.

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
    /// The block that is being read past the read buffer.
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
            match ready!(this.poll_begin(cx))? {
                Some(ForMemory::Whole(frame)) => {
                    let transport = &mut *this.transport;
                    let block = transport.codec.decode.lend_accepted(frame);
                    let len = block.len();
                    this.memory[..len].copy_from_slice(&transport.read_buf[block]);
                    return Poll::Ready(Ok(Some(len)));
                }
                Some(ForMemory::Direct(direct)) => this.direct = Some(direct),
                None => return Poll::Ready(Ok(None)),
            }
        }
        let read = ready!(this.poll_rest(cx));
        if read.is_err() {
            this.transport.pause();
        }
        let Some(direct) = this.direct else {
            return Poll::Ready(read.map(|()| None).map_err(BlockError::into_codec_error));
        };
        if let Err(error) = read {
            this.give_up();
            return Poll::Ready(Err(error.into_codec_error()));
        }
        this.direct = None;
        let BlockTransport {
            codec, read_buf, ..
        } = &mut *this.transport;
        codec.decode.end_direct(read_buf);
        Poll::Ready(Ok(Some(direct.len())))
    }
}

impl<T, F, E> RecvInto<'_, T, F, E>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    /// Waits for the next block, or for its header.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ForMemory>, E>> {
        let memory = &mut *self.memory;
        self.transport.poll_accepted(cx, |decode, parser, buffer| {
            decode.begin_direct(parser, memory, buffer)
        })
    }

    /// Reads the rest of the block. If the stream ends, nothing is in the memory any more.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BlockError>> {
        let Self {
            transport,
            memory,
            direct,
        } = self;
        transport.without_end_after_error(|transport| {
            transport.poll_receiving(Waiter::Future, cx, |transport, cx| {
                let mut has_read = false;
                while let Some(of) = direct.as_mut().filter(|of| !of.missing().is_empty()) {
                    if has_read && transport.is_late() {
                        return Poll::Pending; // `poll_receiving` reports it
                    }
                    has_read = true;
                    let mut rest = ReadBuf::new(&mut memory[of.missing()]);
                    let polled = coop::poll_operation(cx, |cx| {
                        Pin::new(&mut transport.io).poll_read(cx, &mut rest)
                    });
                    let BlockCodec { parser, decode, .. } = &mut transport.codec;
                    if polled.is_pending() {
                        decode.park(&mut transport.read_buf);
                    }
                    ready!(polled)?;
                    let bytes = rest.filled().len();
                    if bytes == 0 {
                        decode.return_direct(*of, memory, &mut transport.read_buf);
                        *direct = None;
                        return Poll::Ready(decode.end_of_stream(parser, &transport.read_buf));
                    }
                    decode.record_direct(bytes);
                    of.add(bytes);
                }
                Poll::Ready(Ok(()))
            })
        })
    }
}

impl<T, F, E> RecvInto<'_, T, F, E> {
    /// Returns what has come of an unfinished block to the read buffer.
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
