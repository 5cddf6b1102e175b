//! A codec and a transport that fail with `io::Error`, for code that expects it: tokio-serde, RPC crates, a
//! user's own error type.

use std::{fmt, io, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt, stream};
use testing::{Scripted, numbered, ready, wire};
use tokio_util::codec::Framed;
use wholeblock::{
    BlockCodec, BlockError, BlockPart, BlockTransport, CodecError, Direction, LengthPrefix,
    recv_blocks, send_blocks, try_send_blocks,
};

type IoCodec = BlockCodec<LengthPrefix, io::Error>;
type IoTransport<T> = BlockTransport<T, LengthPrefix, io::Error>;

fn codec() -> IoCodec {
    BlockCodec::length_prefixed().err_into()
}

fn framed(io: Scripted) -> Framed<Scripted, IoCodec> {
    Framed::new(io, codec())
}

fn transport<T>(io: T) -> IoTransport<T> {
    BlockTransport::new(io, codec())
}

/// Runs `$test` twice: once `$new` makes a `Framed`, once a transport.
macro_rules! with_both {
    (|$new:ident| $test:expr) => {
        let $new = framed;
        $test;
        let $new = transport::<Scripted>;
        $test;
    };
}

/// Returns the `BlockError` inside `error`, and asserts its kind.
#[track_caller]
fn inner(error: &io::Error, kind: io::ErrorKind) -> &BlockError {
    assert_eq!(error.kind(), kind);
    let inner = error.get_ref().expect("something inside");
    let inner: &BlockError = inner.downcast_ref().expect("a BlockError inside");
    assert_eq!(inner.kind(), kind);
    assert_eq!(inner.to_string(), error.to_string());
    inner
}

#[test]
fn codec_with_io_errors_makes_a_stream_and_sink_of_io_errors() {
    fn is_expected<T>(_: &T)
    where
        T: Stream<Item = io::Result<BytesMut>> + Sink<Bytes, Error = io::Error>,
        T: Unpin + Send + 'static,
    {
    }
    is_expected(&framed(Scripted::default()));
    is_expected(&transport(Scripted::default()));
    is_expected(&transport(Scripted::default()).into_framed());
    is_expected(&IoTransport::from(framed(Scripted::default())));
}

#[test]
fn truncated_block_is_an_io_error_that_holds_its_numbers() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[5, 7]));
    let io = || Scripted::default().send(&bytes[..15]);
    let check = |error: io::Error| {
        assert!(matches!(
            inner(&error, io::ErrorKind::UnexpectedEof),
            BlockError::Truncated {
                part: BlockPart::Payload,
                expected: 7,
                received: 2,
                index: 1,
                offset: 9,
            }
        ));
    };
    with_both!(|new| {
        let mut it = new(io());
        ready(it.next()).unwrap().unwrap();
        check(ready(it.next()).unwrap().unwrap_err());
        assert!(ready(it.next()).is_none());

        let mut it = new(io());
        let mut receiving = recv_blocks(&mut it);
        ready(receiving.next()).unwrap().unwrap();
        check(ready(receiving.next()).unwrap_err());
    });
}

#[test]
fn receivers_errors_are_io_errors_that_hold_their_numbers() {
    with_both!(|new| {
        let mut it = new(Scripted::default().send(&[0xff; 4]));
        let error = ready(it.next()).unwrap().unwrap_err();
        assert!(matches!(
            inner(&error, io::ErrorKind::InvalidData),
            BlockError::TooLarge {
                announced: 0xffff_ffff,
                limit: 0x80_0000,
                index: 0,
                offset: 0,
                ..
            }
        ));
        let mut it = new(Scripted::default());
        let error = ready(recv_blocks(&mut it).at_least(3).next()).unwrap_err();
        assert!(matches!(
            inner(&error, io::ErrorKind::UnexpectedEof),
            BlockError::TooFew {
                expected: 3,
                received: 0
            }
        ));
        let reset = Scripted::default().fail(io::ErrorKind::ConnectionReset);
        let error = ready(recv_blocks(&mut new(reset)).next()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(
            error.get_ref().is_none(),
            "the transport's own, not wrapped"
        );
        let reset = Scripted::default().fail(io::ErrorKind::ConnectionReset);
        let error = ready(new(reset).next()).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn senders_errors_are_io_errors_that_hold_their_numbers() {
    const TOO_LONG: u64 = 8 * 1024 * 1024 + 1;
    let check = |error: io::Error, at: u64| {
        let inner = inner(&error, io::ErrorKind::InvalidInput);
        assert!(matches!(
            inner,
            BlockError::WrongSize { min: 0, actual: TOO_LONG, index, .. } if *index == at
        ));
    };
    with_both!(|new| {
        let mut it = new(Scripted::default());
        check(
            ready(it.feed(Bytes::from(vec![0; TOO_LONG as usize]))).unwrap_err(),
            0,
        );
        ready(it.feed(Bytes::new())).unwrap();
        let blocks = [vec![1], vec![0; TOO_LONG as usize]];
        let error = ready(send_blocks(&mut it, stream::iter(blocks))).unwrap_err();
        check(error, 2);

        let source = [Ok("one"), Err(io::Error::from(io::ErrorKind::NotFound))];
        let error = ready(try_send_blocks(&mut it, stream::iter(source))).unwrap_err();
        let inner = inner(&error, io::ErrorKind::NotFound);
        assert!(matches!(inner, BlockError::Source(cause) if cause.is::<io::Error>()));

        let mut it = new(Scripted::default().fail_writes(io::ErrorKind::BrokenPipe));
        let error = ready(send_blocks(&mut it, stream::iter(["x"]))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(
            error.get_ref().is_none(),
            "the transport's own, not wrapped"
        );
        let mut it = new(Scripted::default().take(0));
        let error = ready(it.send(Bytes::new())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    });
}

#[tokio::test(start_paused = true)]
async fn stall_is_an_io_error_that_holds_its_numbers() {
    let (near, _far) = tokio::io::duplex(6);
    let mut transport = transport(near);
    let timeout = Duration::from_secs(3);
    let mut receiving = recv_blocks(&mut transport).stall_timeout(timeout);
    let error = receiving.next().await.unwrap_err();
    assert!(matches!(
        inner(&error, io::ErrorKind::TimedOut),
        BlockError::Stalled { waited, direction: Direction::Receiving, index: 0, offset: 0 } if *waited == timeout
    ));
    drop(receiving);
    let sending = send_blocks(&mut transport, stream::iter(["a", "b"])).stall_timeout(timeout);
    let error = sending.await.unwrap_err();
    assert!(matches!(
        inner(&error, io::ErrorKind::TimedOut),
        BlockError::Stalled {
            direction: Direction::Sending,
            index: 1,
            offset: 5,
            ..
        }
    ));
}

#[test]
fn failed_transfer_with_io_errors_fails_again() {
    let mut transport = transport(Scripted::default().fail_writes(io::ErrorKind::BrokenPipe));
    let mut sending = send_blocks(&mut transport, stream::iter(["x"]));
    for _ in 0..3 {
        ready(&mut sending).unwrap_err();
    }
}

#[test]
fn err_into_keeps_limits_and_progress() {
    let mut codec = BlockCodec::length_prefixed();
    codec.set_max_encode_len(10).unwrap();
    codec.set_max_decode_len(20).unwrap();
    let codec: IoCodec = codec.err_into();
    assert_eq!((codec.max_encode_len(), codec.max_decode_len()), (10, 20));
    assert_eq!(codec.clone().max_decode_len(), 20);

    // In the middle of a block, too: the position of the next error shows it.
    use tokio_util::codec::{Decoder, Encoder};
    let mut codec = BlockCodec::length_prefixed();
    codec.encode(Bytes::new(), &mut BytesMut::new()).unwrap();
    let mut buffer = BytesMut::from(&b"\0\0\0\x01a\0\0\0\x09half"[..]);
    codec.decode(&mut buffer).unwrap().unwrap();
    assert!(codec.decode(&mut buffer).unwrap().is_none());
    codec.set_max_decode_len(3).unwrap();
    let mut codec: IoCodec = codec.err_into();
    buffer.extend_from_slice(b"whole\0\0\0\x04");
    assert_eq!(codec.decode(&mut buffer).unwrap().unwrap(), "halfwhole");
    let error = codec.decode(&mut buffer).unwrap_err();
    assert!(matches!(
        inner(&error, io::ErrorKind::InvalidData),
        BlockError::TooLarge {
            limit: 3,
            index: 2,
            offset: 18,
            ..
        }
    ));
    codec.set_max_encode_len(0).unwrap();
    let error = codec.encode(Bytes::from_static(b"x"), &mut BytesMut::new());
    assert!(matches!(
        inner(&error.unwrap_err(), io::ErrorKind::InvalidInput),
        BlockError::WrongSize { index: 1, .. }
    ));
}

/// A user's own error.
#[derive(Debug)]
enum AppError {
    Block(BlockError),
    Socket(io::Error),
}

impl From<BlockError> for AppError {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}

impl From<io::Error> for AppError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(error) => write!(f, "block: {error}"),
            Self::Socket(error) => write!(f, "socket: {error}"),
        }
    }
}

#[test]
fn users_own_error_takes_block_errors_and_io_errors() {
    fn codec<E: CodecError>() -> BlockCodec<LengthPrefix, E> {
        BlockCodec::length_prefixed().err_into()
    }
    let io = Scripted::default()
        .fail(io::ErrorKind::ConnectionReset)
        .send(b"\0\0");
    let mut transport = BlockTransport::new(io, codec::<AppError>());
    let error = ready(transport.next()).unwrap().unwrap_err();
    assert!(matches!(error, AppError::Socket(_)), "{error}");
    assert!(ready(transport.next()).is_none());
    let error = ready(transport.next()).unwrap().unwrap_err();
    assert!(
        matches!(error, AppError::Block(BlockError::Truncated { .. })),
        "{error}"
    );
    let sent = ready(send_blocks(
        &mut transport,
        stream::iter([vec![0; 1 << 24]]),
    ));
    assert!(matches!(
        sent,
        Err(AppError::Block(BlockError::WrongSize { .. }))
    ));
}
