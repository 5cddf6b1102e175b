//! What `Framed`, its halves and `BlockTransport` lend to `recv_blocks` and `send_blocks`: the
//! codec, the buffers, the transport.
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

use crate::{
    BlockCodec, CodecError, Framing, coop, decoder::DecodeState, stall::Timeouts,
    write::BlockWriter,
};

/// What [`recv_blocks`](crate::recv_blocks) receives from:
/// [`BlockTransport`](crate::BlockTransport), or [`Framed`] or [`FramedRead`] with a [`BlockCodec`].
///
/// Sealed; implemented where the transport is `AsyncRead + Unpin`. A function over any receiver
/// names the error in the bound, or returns `R::Error`:
///
/// ```
/// use tokio_util::codec::FramedRead;
/// use wholeblock::{AsFramedRead, BlockCodec, BlockError, BlockTransport, recv_blocks};
///
/// async fn longest<R: AsFramedRead<Error = BlockError>>(from: &mut R) -> Result<usize, BlockError> {
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
pub trait AsFramedRead:
    Stream<Item = Result<BytesMut, <Self as sealed::FramedRead>::Error>> + Unpin + sealed::FramedRead
{
}

/// What [`send_blocks`](crate::send_blocks) sends through:
/// [`BlockTransport`](crate::BlockTransport), or [`Framed`] or [`FramedWrite`] with a
/// [`BlockCodec`].
///
/// Sealed; implemented where the transport is `AsyncWrite + Unpin`. A function over any sender
/// names the error in the bound, or returns `W::Error`:
///
/// ```
/// use futures::{SinkExt, stream};
/// use tokio_util::codec::FramedWrite;
/// use wholeblock::{AsFramedWrite, BlockCodec, BlockError, BlockTransport, send_blocks};
///
/// async fn greet<W: AsFramedWrite<Error = BlockError>>(to: &mut W) -> Result<u64, BlockError> {
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
pub trait AsFramedWrite: Unpin + sealed::FramedWrite {}

/// What a wait for a block ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// A whole block is at the front of the buffer.
    Block,
    /// No further block will come.
    End,
}

pub(crate) mod sealed {
    use super::{
        Arrival, AsyncWrite, BlockCodec, BlockWriter, Bytes, BytesMut, CodecError, Context,
        Framing, Pin, Poll, Sink, Timeouts,
    };

    pub trait FramedRead {
        type Framing: Framing;
        type Error: CodecError;

        fn codec(&self) -> &BlockCodec<Self::Framing, Self::Error>;
        fn codec_mut(&mut self) -> &mut BlockCodec<Self::Framing, Self::Error>;
        fn read_buffer(&self) -> &BytesMut;
        fn read_buffer_mut(&mut self) -> &mut BytesMut;

        /// The timeouts that apply to a receiver unless it has its own.
        #[expect(
            private_interfaces,
            reason = "sealed: nobody else calls or implements it"
        )]
        fn hand_over_timeouts(&mut self) -> Timeouts {
            Timeouts::default()
        }

        /// Takes back what the receiver has seen.
        #[expect(
            private_interfaces,
            reason = "sealed: nobody else calls or implements it"
        )]
        fn take_back_timeouts(&mut self, _timeouts: &Timeouts) {}

        /// Waits until a whole block is at the front of the buffer, and leaves it there. Lends the
        /// buffer's large allocation to others while it waits.
        ///
        /// Also pending, without a wake-up, once a read leaves the block unfinished and `timeouts`
        /// finds it late. `Framed` looks at nothing between two reads, so there it is not noticed
        /// before a read must wait or the task has spent its budget.
        #[expect(
            private_interfaces,
            reason = "sealed: nobody else calls or implements it"
        )]
        fn poll_peek(
            &mut self,
            cx: &mut Context<'_>,
            timeouts: &mut Timeouts,
        ) -> Poll<Result<Arrival, Self::Error>>;
    }

    /// Has no error of its own: with two by one name, a bound on the sink's would be ambiguous.
    pub trait FramedWrite: Sink<Bytes, Error: CodecError> {
        type Framing: Framing;
        type Io: AsyncWrite + Unpin;

        /// The codec, and where blocks are queued: in `own`, unless this has a writer of its own.
        #[expect(
            private_interfaces,
            reason = "sealed: nobody else calls or implements it"
        )]
        fn encode_parts<'a>(
            &'a mut self,
            own: &'a mut BlockWriter,
        ) -> (
            &'a mut BlockCodec<Self::Framing, Self::Error>,
            &'a mut BlockWriter,
        );

        /// The transport, and where blocks are queued, as [`encode_parts`](Self::encode_parts).
        #[expect(
            private_interfaces,
            reason = "sealed: nobody else calls or implements it"
        )]
        fn write_parts<'a>(
            &'a mut self,
            own: &'a mut BlockWriter,
        ) -> (&'a mut Self::Io, &'a mut BlockWriter);

        /// The timeouts that apply to a transfer unless it has its own.
        #[expect(
            private_interfaces,
            reason = "sealed: nobody else calls or implements it"
        )]
        fn hand_over_timeouts(&mut self) -> Timeouts {
            Timeouts::default()
        }

        /// Bytes that were queued before and go first.
        fn held(&self) -> usize;

        /// Writes these.
        fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>>
        where
            Self: Unpin,
        {
            Pin::new(self).poll_flush(cx)
        }

        /// Takes over what `own` still holds.
        #[expect(
            private_interfaces,
            reason = "sealed: nobody else calls or implements it"
        )]
        fn keep(&mut self, own: &BlockWriter);
    }
}

/// [`poll_peek`](sealed::FramedRead::poll_peek) of `Framed` and `FramedRead`.
///
/// Goes through `framed`'s own `poll_next`, for that keeps its state right: had the bytes been read
/// behind its back, it would wait for more before it looked at them.
fn poll_peek_framed<R: AsFramedRead>(
    framed: &mut R,
    cx: &mut Context<'_>,
) -> Poll<Result<Arrival, R::Error>> {
    if let Some(error) = framed.codec().decode.failure() {
        return Poll::Ready(Err(error.into()));
    }
    with_decoder_and_buffer(framed, |decoder, buffer| {
        decoder.await_first_read(buffer);
        decoder.unpark(buffer);
    });
    let peeking = Peeking::new(framed);
    let mut polled = coop::poll_operation(cx, |cx| Pin::new(&mut *peeking.0).poll_next(cx));
    if matches!(polled, Poll::Ready(None)) && !peeking.0.codec().decode.has_ended() {
        // The one `None` that follows an error which the stream itself has returned.
        polled = Pin::new(&mut *peeking.0).poll_next(cx);
    }
    if let Poll::Ready(Some(Err(_))) = polled {
        // After an error, `Framed` gives `None` once, which would look like the stream's end.
        let _none = Pin::new(&mut *peeking.0).poll_next(cx);
    }
    drop(peeking);
    match polled {
        // In peek mode an item is an empty buffer, which says that there is a block.
        Poll::Ready(Some(peeked)) => Poll::Ready(peeked.map(|_empty| Arrival::Block)),
        Poll::Ready(None) => Poll::Ready(Ok(Arrival::End)),
        Poll::Pending => {
            with_decoder_and_buffer(framed, DecodeState::park);
            Poll::Pending
        }
    }
}

/// Gives `change` the decoder and the read buffer at once, which `Framed` lends only one at a time.
fn with_decoder_and_buffer<R: AsFramedRead>(
    framed: &mut R,
    change: impl FnOnce(&mut DecodeState, &mut BytesMut),
) {
    let mut buffer = mem::take(framed.read_buffer_mut());
    change(&mut framed.codec_mut().decode, &mut buffer);
    *framed.read_buffer_mut() = buffer;
}

/// Has the codec peek for as long as this lives, so that no panic of the transport leaves it so.
struct Peeking<'a, R: AsFramedRead>(&'a mut R);

impl<'a, R: AsFramedRead> Peeking<'a, R> {
    fn new(framed: &'a mut R) -> Self {
        framed.codec_mut().decode.set_peek(true);
        Self(framed)
    }
}

impl<R: AsFramedRead> Drop for Peeking<'_, R> {
    fn drop(&mut self) {
        self.0.codec_mut().decode.set_peek(false);
    }
}

impl<T, F, E> AsFramedRead for Framed<T, BlockCodec<F, E>>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
}

#[expect(
    private_interfaces,
    reason = "sealed: nobody else calls or implements it"
)]
impl<T, F, E> sealed::FramedRead for Framed<T, BlockCodec<F, E>>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Framing = F;
    type Error = E;

    #[inline]
    fn codec(&self) -> &BlockCodec<F, E> {
        Framed::codec(self)
    }

    fn codec_mut(&mut self) -> &mut BlockCodec<F, E> {
        Framed::codec_mut(self)
    }

    #[inline]
    fn read_buffer(&self) -> &BytesMut {
        Framed::read_buffer(self)
    }

    fn read_buffer_mut(&mut self) -> &mut BytesMut {
        Framed::read_buffer_mut(self)
    }

    fn poll_peek(
        &mut self,
        cx: &mut Context<'_>,
        _timeouts: &mut Timeouts,
    ) -> Poll<Result<Arrival, E>> {
        poll_peek_framed(self, cx)
    }
}

impl<T, F, E> AsFramedRead for FramedRead<T, BlockCodec<F, E>>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
}

#[expect(
    private_interfaces,
    reason = "sealed: nobody else calls or implements it"
)]
impl<T, F, E> sealed::FramedRead for FramedRead<T, BlockCodec<F, E>>
where
    T: AsyncRead + Unpin,
    F: Framing,
    E: CodecError,
{
    type Framing = F;
    type Error = E;

    #[inline]
    fn codec(&self) -> &BlockCodec<F, E> {
        FramedRead::decoder(self)
    }

    fn codec_mut(&mut self) -> &mut BlockCodec<F, E> {
        FramedRead::decoder_mut(self)
    }

    #[inline]
    fn read_buffer(&self) -> &BytesMut {
        FramedRead::read_buffer(self)
    }

    fn read_buffer_mut(&mut self) -> &mut BytesMut {
        FramedRead::read_buffer_mut(self)
    }

    fn poll_peek(
        &mut self,
        cx: &mut Context<'_>,
        _timeouts: &mut Timeouts,
    ) -> Poll<Result<Arrival, E>> {
        poll_peek_framed(self, cx)
    }
}

impl<T, F, E> AsFramedWrite for Framed<T, BlockCodec<F, E>>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
}

#[expect(
    private_interfaces,
    reason = "sealed: nobody else calls or implements it"
)]
impl<T, F, E> sealed::FramedWrite for Framed<T, BlockCodec<F, E>>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
    type Framing = F;
    type Io = T;

    fn encode_parts<'a>(
        &'a mut self,
        own: &'a mut BlockWriter,
    ) -> (&'a mut BlockCodec<F, E>, &'a mut BlockWriter) {
        (Framed::codec_mut(self), own)
    }

    fn write_parts<'a>(&'a mut self, own: &'a mut BlockWriter) -> (&'a mut T, &'a mut BlockWriter) {
        (Framed::get_mut(self), own)
    }

    fn held(&self) -> usize {
        Framed::write_buffer(self).len()
    }

    fn keep(&mut self, own: &BlockWriter) {
        own.spill(Framed::write_buffer_mut(self));
    }
}

impl<T, F, E> AsFramedWrite for FramedWrite<T, BlockCodec<F, E>>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
}

#[expect(
    private_interfaces,
    reason = "sealed: nobody else calls or implements it"
)]
impl<T, F, E> sealed::FramedWrite for FramedWrite<T, BlockCodec<F, E>>
where
    T: AsyncWrite + Unpin,
    F: Framing,
    E: CodecError,
{
    type Framing = F;
    type Io = T;

    fn encode_parts<'a>(
        &'a mut self,
        own: &'a mut BlockWriter,
    ) -> (&'a mut BlockCodec<F, E>, &'a mut BlockWriter) {
        (FramedWrite::encoder_mut(self), own)
    }

    fn write_parts<'a>(&'a mut self, own: &'a mut BlockWriter) -> (&'a mut T, &'a mut BlockWriter) {
        (FramedWrite::get_mut(self), own)
    }

    fn held(&self) -> usize {
        FramedWrite::write_buffer(self).len()
    }

    fn keep(&mut self, own: &BlockWriter) {
        own.spill(FramedWrite::write_buffer_mut(self));
    }
}
