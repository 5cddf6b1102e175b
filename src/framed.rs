//! What `Framed` and its halves lend to `recv_blocks` and `send_blocks`: the codec, the buffer, the
//! transport.
//!
//! The two traits are sealed, since lending a block in place, or writing past the write buffer,
//! takes knowledge of what these types do with their buffers.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, FramedRead, FramedWrite};

use crate::{BlockCodec, BlockError, Framing};

/// What [`recv_blocks`](crate::recv_blocks) receives from: [`Framed`] or [`FramedRead`] with a
/// [`BlockCodec`].
///
/// Sealed; implemented where the transport is `AsyncRead + Unpin`.
#[diagnostic::on_unimplemented(
    message = "`recv_blocks` cannot receive from `{Self}`",
    label = "not a `Framed` or `FramedRead` with a `BlockCodec`",
    note = "give it the `Framed` itself; for two tasks, split the transport instead of the \
            `Framed` (`TcpStream::into_split`, `tokio::io::split`), and put the reading half into \
            `FramedRead::new(half, codec)`"
)]
pub trait AsFramedRead:
    Stream<Item = Result<BytesMut, BlockError>> + Unpin + sealed::FramedRead
{
}

/// What [`send_blocks`](crate::send_blocks) sends through: [`Framed`] or [`FramedWrite`] with a
/// [`BlockCodec`].
///
/// Sealed; implemented where the transport is `AsyncWrite + Unpin`.
#[diagnostic::on_unimplemented(
    message = "`send_blocks` cannot send through `{Self}`",
    label = "not a `Framed` or `FramedWrite` with a `BlockCodec`",
    note = "give it the `Framed` itself; for two tasks, split the transport instead of the \
            `Framed` (`TcpStream::into_split`, `tokio::io::split`), and put the writing half into \
            `FramedWrite::new(half, codec)`"
)]
pub trait AsFramedWrite: Sink<Bytes, Error = BlockError> + Unpin + sealed::FramedWrite {}

pub(crate) mod sealed {
    use super::{AsyncWrite, BlockCodec, BytesMut, Framing, mem};

    pub trait FramedRead {
        type Framing: Framing;

        fn codec(&self) -> &BlockCodec<Self::Framing>;
        fn codec_mut(&mut self) -> &mut BlockCodec<Self::Framing>;
        fn read_buffer(&self) -> &BytesMut;
        fn read_buffer_mut(&mut self) -> &mut BytesMut;

        /// Gives `change` the codec and the read buffer at once, which `Framed` lends only one at a
        /// time.
        fn with_codec_and_buffer(
            &mut self,
            change: impl FnOnce(&mut BlockCodec<Self::Framing>, &mut BytesMut),
        ) {
            let mut buffer = mem::take(self.read_buffer_mut());
            change(self.codec_mut(), &mut buffer);
            *self.read_buffer_mut() = buffer;
        }
    }

    pub trait FramedWrite {
        type Framing: Framing;
        type Io: AsyncWrite + Unpin;

        fn codec(&self) -> &BlockCodec<Self::Framing>;
        fn io_mut(&mut self) -> &mut Self::Io;
        fn write_buffer_mut(&mut self) -> &mut BytesMut;
    }
}

/// What a wait for a block ends with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrival {
    /// A whole block is at the front of the buffer.
    Block,
    /// No further block will come.
    End,
}

/// Waits until a whole block is at the front of `framed`'s buffer, and leaves it there.
///
/// Goes through `framed`'s own `poll_next`, for that keeps its state right: had the bytes been read
/// behind its back, it would wait for more before it looked at them.
pub(crate) fn poll_peek<R: AsFramedRead>(
    framed: &mut R,
    cx: &mut Context<'_>,
) -> Poll<Result<Arrival, BlockError>> {
    let peeking = Peeking::new(framed);
    let polled = Pin::new(&mut *peeking.0).poll_next(cx);
    // In peek mode an item is an empty buffer, which says that there is a block.
    polled.map(|item| match item {
        Some(peeked) => peeked.map(|_empty| Arrival::Block),
        None => Ok(Arrival::End),
    })
}

/// Has the codec peek for as long as this lives, so that no panic of the transport leaves it so.
struct Peeking<'a, R: AsFramedRead>(&'a mut R);

impl<'a, R: AsFramedRead> Peeking<'a, R> {
    fn new(framed: &'a mut R) -> Self {
        framed.codec_mut().set_peek(true);
        Self(framed)
    }
}

impl<R: AsFramedRead> Drop for Peeking<'_, R> {
    fn drop(&mut self) {
        self.0.codec_mut().set_peek(false);
    }
}

impl<T: AsyncRead + Unpin, F: Framing> AsFramedRead for Framed<T, BlockCodec<F>> {}

impl<T: AsyncRead + Unpin, F: Framing> AsFramedRead for FramedRead<T, BlockCodec<F>> {}

impl<T: AsyncWrite + Unpin, F: Framing> AsFramedWrite for Framed<T, BlockCodec<F>> {}

impl<T: AsyncWrite + Unpin, F: Framing> AsFramedWrite for FramedWrite<T, BlockCodec<F>> {}

impl<T, F: Framing> sealed::FramedRead for Framed<T, BlockCodec<F>> {
    type Framing = F;

    #[inline]
    fn codec(&self) -> &BlockCodec<F> {
        Framed::codec(self)
    }

    fn codec_mut(&mut self) -> &mut BlockCodec<F> {
        Framed::codec_mut(self)
    }

    #[inline]
    fn read_buffer(&self) -> &BytesMut {
        Framed::read_buffer(self)
    }

    fn read_buffer_mut(&mut self) -> &mut BytesMut {
        Framed::read_buffer_mut(self)
    }
}

impl<T, F: Framing> sealed::FramedRead for FramedRead<T, BlockCodec<F>> {
    type Framing = F;

    #[inline]
    fn codec(&self) -> &BlockCodec<F> {
        FramedRead::decoder(self)
    }

    fn codec_mut(&mut self) -> &mut BlockCodec<F> {
        FramedRead::decoder_mut(self)
    }

    #[inline]
    fn read_buffer(&self) -> &BytesMut {
        FramedRead::read_buffer(self)
    }

    fn read_buffer_mut(&mut self) -> &mut BytesMut {
        FramedRead::read_buffer_mut(self)
    }
}

impl<T: AsyncWrite + Unpin, F: Framing> sealed::FramedWrite for Framed<T, BlockCodec<F>> {
    type Framing = F;
    type Io = T;

    #[inline]
    fn codec(&self) -> &BlockCodec<F> {
        Framed::codec(self)
    }

    fn io_mut(&mut self) -> &mut T {
        Framed::get_mut(self)
    }

    fn write_buffer_mut(&mut self) -> &mut BytesMut {
        Framed::write_buffer_mut(self)
    }
}

impl<T: AsyncWrite + Unpin, F: Framing> sealed::FramedWrite for FramedWrite<T, BlockCodec<F>> {
    type Framing = F;
    type Io = T;

    #[inline]
    fn codec(&self) -> &BlockCodec<F> {
        FramedWrite::encoder(self)
    }

    fn io_mut(&mut self) -> &mut T {
        FramedWrite::get_mut(self)
    }

    fn write_buffer_mut(&mut self) -> &mut BytesMut {
        FramedWrite::write_buffer_mut(self)
    }
}
