//! Sealed traits: what `recv_blocks` and `send_blocks` need of `Framed`, its halves and
//! `BlockTransport`.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::{Framed, FramedRead, FramedWrite};

use crate::{
    codec::BlockCodec, error::CodecError, framing::Framing, read::DecodeState, write::BlockWriter,
};

/// A stream that [`recv_blocks`](crate::recv_blocks) receives from:
/// [`BlockTransport`](crate::BlockTransport), or [`Framed`] or [`FramedRead`] with a [`BlockCodec`].
///
/// Sealed; implemented if the transport below is `AsyncRead + Unpin`. A function over any receiver
/// names the error in the bound, or returns `R::Error`:
///
/// ```
/// use tokio_util::codec::FramedRead;
/// use wholeblock::{BlockStream, BlockCodec, BlockError, BlockTransport, recv_blocks};
///
/// async fn longest<R: BlockStream<Error = BlockError>>(from: &mut R) -> Result<usize, BlockError> {
///     let mut longest = 0;
///     let mut blocks = recv_blocks(from);
///     while let Some(block) = blocks.next().await? {
///         longest = longest.max(block.len());
///     }
///     Ok(longest)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BlockError> {
/// let wire = &b"\0\0\0\x05hello\0\0\0\x02me"[..];
/// let mut transport = BlockTransport::new(wire, BlockCodec::length_prefixed());
/// assert_eq!(longest(&mut transport).await?, 5);
/// let mut half = FramedRead::new(wire, BlockCodec::length_prefixed());
/// assert_eq!(longest(&mut half).await?, 5);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`recv_blocks` cannot receive from `{Self}`",
    label = "not a `BlockTransport`, nor a `Framed` or `FramedRead` with a `BlockCodec`",
    note = "give it the transport itself, unsplit; for two tasks, split the socket instead \
            (`TcpStream::into_split`, `tokio::io::split`), and put the reading half into \
            `BlockTransport::new(half, codec)`"
)]
pub trait BlockStream:
    Stream<Item = Result<BytesMut, <Self as BlockStream>::Error>> + Unpin
{
    /// The error of receiving.
    type Error: CodecError;

    /// Returns the decoder's state: its position, statistics and failure.
    #[doc(hidden)]
    fn decode_state(&self) -> &DecodeState;

    /// Returns how many bytes have arrived and were not taken.
    #[doc(hidden)]
    fn buffered(&self) -> usize;

    /// As `poll_next`, for a future that [ends](Self::pause) its wait when it is dropped. Yields between
    /// two blocks if the task's turn is over. After an error, a `Framed` returns `None` once.
    #[doc(hidden)]
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Item>>;

    /// Ends the wait of a future that was dropped.
    #[doc(hidden)]
    fn pause(&mut self) {}
}

/// A sink that [`send_blocks`](crate::send_blocks) sends through:
/// [`BlockTransport`](crate::BlockTransport), or [`Framed`] or [`FramedWrite`] with a
/// [`BlockCodec`].
///
/// Sealed; implemented if the transport below is `AsyncWrite + Unpin`. A function over any sender
/// names the error in the bound, or returns `W::Error`:
///
/// ```
/// use futures::{SinkExt, stream};
/// use tokio_util::codec::FramedWrite;
/// use wholeblock::{BlockSink, BlockCodec, BlockError, BlockTransport, send_blocks};
///
/// async fn greet<W: BlockSink<Error = BlockError>>(to: &mut W) -> Result<u64, BlockError> {
///     let sent = send_blocks(to, stream::iter(["hello", "me"])).await?;
///     to.close().await?;
///     Ok(sent.wire_bytes)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BlockError> {
/// let mut transport = BlockTransport::new(vec![], BlockCodec::length_prefixed());
/// assert_eq!(greet(&mut transport).await?, 15);
/// assert_eq!(transport.get_ref(), b"\0\0\0\x05hello\0\0\0\x02me");
/// let mut half = FramedWrite::new(vec![], BlockCodec::length_prefixed());
/// assert_eq!(greet(&mut half).await?, 15);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`send_blocks` cannot send through `{Self}`",
    label = "not a `BlockTransport`, nor a `Framed` or `FramedWrite` with a `BlockCodec`",
    note = "give it the transport itself, unsplit; for two tasks, split the socket instead \
            (`TcpStream::into_split`, `tokio::io::split`), and put the writing half into \
            `BlockTransport::new(half, codec)`"
)]
// No `Error` here, because `Sink` has one, and `W::Error` would be ambiguous.
pub trait BlockSink: Sink<Bytes, Error: CodecError> + Unpin {
    #[doc(hidden)]
    type Framing: Framing;
    #[doc(hidden)]
    type Io: AsyncWrite + Unpin;

    /// Returns the codec, and the writer that queues blocks: `own`, unless the sink has its own.
    #[doc(hidden)]
    fn encode_parts<'a>(
        &'a mut self,
        own: &'a mut BlockWriter,
    ) -> (
        &'a mut BlockCodec<Self::Framing, Self::Error>,
        &'a mut BlockWriter,
    );

    /// Returns the transport below, and the same writer as [`encode_parts`](Self::encode_parts).
    #[doc(hidden)]
    fn write_parts<'a>(
        &'a mut self,
        own: &'a mut BlockWriter,
    ) -> (&'a mut Self::Io, &'a mut BlockWriter);

    /// Returns the stall timeout of a transfer that sets none.
    #[doc(hidden)]
    fn write_timeout(&self) -> Option<Duration> {
        None
    }

    /// Returns how many bytes were queued before the transfer.
    #[doc(hidden)]
    fn held(&self) -> usize;

    /// Writes and flushes what was queued before the transfer.
    #[doc(hidden)]
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(self).poll_flush(cx)
    }

    /// Keeps what is still queued in `own`.
    #[doc(hidden)]
    fn keep(&mut self, own: &BlockWriter);
}

// The `impl` lines are outside the macros, because the compiler shows them if a trait is not implemented.

/// The body of `BlockStream` for a type of tokio-util, whose methods `$codec` and `$codec_mut` return the
/// codec.
macro_rules! block_stream {
    ($codec:ident, $codec_mut:ident) => {
        type Error = E;

        #[inline]
        fn decode_state(&self) -> &DecodeState {
            &self.$codec().decode
        }

        fn buffered(&self) -> usize {
            self.read_buffer().len()
        }

        #[inline]
        fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            // tokio-util's types do not yield between two blocks that are in their buffer.
            ready!(self.$codec_mut().decode.poll_charge(cx));
            Pin::new(self).poll_next(cx)
        }
    };
}

impl<T, F, E> BlockStream for Framed<T, BlockCodec<F, E>>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    block_stream!(codec, codec_mut);
}

impl<T, F, E> BlockStream for FramedRead<T, BlockCodec<F, E>>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    block_stream!(decoder, decoder_mut);
}

/// The body of `BlockSink`, as [`block_stream`].
macro_rules! block_sink {
    ($codec_mut:ident) => {
        type Framing = F;
        type Io = T;

        fn encode_parts<'a>(
            &'a mut self,
            own: &'a mut BlockWriter,
        ) -> (&'a mut BlockCodec<F, E>, &'a mut BlockWriter) {
            (self.$codec_mut(), own)
        }

        fn write_parts<'a>(
            &'a mut self,
            own: &'a mut BlockWriter,
        ) -> (&'a mut T, &'a mut BlockWriter) {
            (self.get_mut(), own)
        }

        fn held(&self) -> usize {
            self.write_buffer().len()
        }

        fn keep(&mut self, own: &BlockWriter) {
            own.spill(self.write_buffer_mut());
        }
    };
}

impl<T, F, E> BlockSink for Framed<T, BlockCodec<F, E>>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
    block_sink!(codec_mut);
}

impl<T, F, E> BlockSink for FramedWrite<T, BlockCodec<F, E>>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
    block_sink!(encoder_mut);
}
