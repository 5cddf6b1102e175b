//! A codec and a transport that fail with `io::Error`, for whatever expects that: tokio-serde, RPC
//! crates, a user's own error type.

use std::{error::Error, fmt, io, pin::Pin, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, Sink, SinkExt, Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::io::DuplexStream;
use tokio_serde::{Deserializer, Serializer, formats::Json};
use tokio_util::codec::Framed;
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, CodecError, LengthPrefix, Part, recv_blocks,
    send_blocks, try_send_blocks,
};

use crate::support::{Scripted, numbered, ready, wire, within_limit};

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

/// Runs `$test` with `$new` as what makes a `Framed`, and again as what makes a transport.
macro_rules! with_both {
    (|$new:ident| $test:expr) => {
        let $new = framed;
        $test;
        let $new = transport::<Scripted>;
        $test;
    };
}

/// The `BlockError` in `error`, after a look at its kind.
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
fn a_codec_with_io_errors_makes_what_code_for_io_errors_expects() {
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
fn a_truncated_block_is_an_io_error_with_its_numbers_inside() {
    let bytes = wire(LengthPrefix::u32(), &numbered(&[5, 7]));
    let io = || Scripted::default().send(&bytes[..15]);
    let check = |error: io::Error| {
        assert!(matches!(
            inner(&error, io::ErrorKind::UnexpectedEof),
            BlockError::Truncated {
                part: Part::Payload,
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
fn every_error_of_a_receiver_is_an_io_error_with_its_numbers_inside() {
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
fn every_error_of_a_sender_is_an_io_error_with_its_numbers_inside() {
    const TOO_LONG: usize = 8 * 1024 * 1024 + 1;
    let check = |error: io::Error, at: u64| {
        let inner = inner(&error, io::ErrorKind::InvalidInput);
        assert!(matches!(
            inner,
            BlockError::WrongSize { min: 0, actual: TOO_LONG, index, .. } if *index == at
        ));
    };
    with_both!(|new| {
        let mut it = new(Scripted::default());
        check(ready(it.feed(vec![0; TOO_LONG].into())).unwrap_err(), 0);
        ready(it.feed(Bytes::new())).unwrap();
        let blocks = [vec![1], vec![0; TOO_LONG]];
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
async fn a_stall_is_an_io_error_with_its_numbers_inside() {
    let (near, _far) = tokio::io::duplex(6);
    let mut transport = transport(near);
    let timeout = Duration::from_secs(3);
    let mut receiving = recv_blocks(&mut transport).stall_timeout(timeout);
    let error = receiving.next().await.unwrap_err();
    assert!(matches!(
        inner(&error, io::ErrorKind::TimedOut),
        BlockError::Stalled { waited, index: 0, offset: 0 } if *waited == timeout
    ));
    drop(receiving);
    let sending = send_blocks(&mut transport, stream::iter(["a", "b"])).stall_timeout(timeout);
    let error = sending.await.unwrap_err();
    assert!(matches!(
        inner(&error, io::ErrorKind::TimedOut),
        BlockError::Stalled {
            index: 1,
            offset: 5,
            ..
        }
    ));
}

#[test]
fn a_transfer_that_failed_fails_again_with_io_errors_too() {
    let mut transport = transport(Scripted::default().fail_writes(io::ErrorKind::BrokenPipe));
    let mut sending = send_blocks(&mut transport, stream::iter(["x"]));
    for _ in 0..3 {
        ready(&mut sending).unwrap_err();
    }
}

#[test]
fn a_change_of_the_error_changes_nothing_else() {
    let mut codec = BlockCodec::length_prefixed();
    codec.set_max_encode_len(10).unwrap();
    codec.set_max_decode_len(20).unwrap();
    let codec: IoCodec = codec.err_into();
    assert_eq!((codec.max_encode_len(), codec.max_decode_len()), (10, 20));
    assert_eq!(codec.clone().max_decode_len(), 20);

    // Nor does it, in the middle of a block: see where the next error is.
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
fn a_users_own_error_takes_both_kinds() {
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

// Typed messages.

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Question {
    id: u32,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Answer {
    Known { id: u32, data: Vec<u8> },
    Unknown(u32),
}

type Typed<T, Item, SinkItem> =
    tokio_serde::Framed<IoTransport<T>, Item, SinkItem, Json<Item, SinkItem>>;

fn typed<T, Item, SinkItem>(io: T) -> Typed<T, Item, SinkItem> {
    Typed::new(transport(io), Json::default())
}

fn answer(question: &Question) -> Answer {
    match question.id % 3 {
        0 => Answer::Unknown(question.id),
        _ => Answer::Known {
            id: question.id,
            data: question.text.bytes().rev().collect(),
        },
    }
}

#[tokio::test]
async fn typed_messages_cross_in_both_directions() {
    let (near, far) = tokio::io::duplex(1_000);
    let questions: Vec<Question> = (0..50)
        .map(|id| Question {
            id,
            text: "why? ".repeat(id as usize * 40),
        })
        .collect();
    let server = tokio::spawn(async move {
        let mut server: Typed<_, Question, Answer> = typed(far);
        while let Some(question) = server.next().await {
            server.send(answer(&question?)).await?;
        }
        server.close().await
    });
    let client: Typed<_, Answer, Question> = typed(near);
    let (mut sink, answers) = client.split();
    let outgoing = questions.clone();
    let asking = tokio::spawn(async move {
        for question in outgoing {
            sink.send(question).await?;
        }
        sink.close().await
    });
    let answers = answers.map(Result::unwrap).collect();
    let answers: Vec<Answer> = within_limit(answers).await;
    assert_eq!(answers, questions.iter().map(answer).collect::<Vec<_>>());
    asking.await.unwrap().unwrap();
    server.await.unwrap().unwrap();
}

#[test]
fn a_message_that_does_not_parse_is_an_io_error_and_the_next_one_comes() {
    let good = br#"{"id":1,"text":"?"}"#;
    let blocks = [&b"{nonsense"[..], good].map(Bytes::from_static);
    let io = Scripted::default().send(&wire(LengthPrefix::u32(), &blocks));
    let mut typed: Typed<_, Question, Answer> = typed(io);
    let error = ready(typed.next()).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(ready(typed.next()).unwrap().unwrap().id, 1);
    assert!(ready(typed.next()).is_none());
}

/// Fails with `io::Error`s, as tokio-serde's Bincode, MessagePack and Cbor do.
struct Text;

impl Serializer<String> for Text {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, text: &String) -> io::Result<Bytes> {
        Ok(text.clone().into())
    }
}

impl Deserializer<String> for Text {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, block: &BytesMut) -> io::Result<String> {
        let text = String::from_utf8(block.to_vec());
        text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

#[test]
fn serializer_with_io_errors_fits_a_transport_with_block_errors() {
    let blocks = [&b"\xff"[..], b"text"].map(Bytes::from_static);
    let io = Scripted::default().send(&wire(LengthPrefix::u32(), &blocks));
    let transport = BlockTransport::new(io, BlockCodec::length_prefixed());
    let mut typed = tokio_serde::Framed::<_, String, String, _>::new(transport, Text);
    let error: BlockError = ready(typed.next()).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(ready(typed.next()).unwrap().unwrap(), "text");
    ready(typed.send("text".to_owned())).unwrap();
}

/// What tarpc 0.38 asks of a transport. The bounds are those on the impls of `Stream` and `Sink`
/// for `tarpc::serde_transport::Transport`, and of its constructor, with our transport in the place
/// of `Framed<S, LengthDelimitedCodec>`; and those of the trait `tarpc::Transport`, which its
/// clients and servers take.
fn fits_tarpc<T, Item, SinkItem, Codec, CodecError>(
    transport: tokio_serde::Framed<T, Item, SinkItem, Codec>,
) -> impl Stream<Item = Result<Item, CodecError>> + Sink<SinkItem, Error = CodecError> + Send
where
    Item: for<'de> Deserialize<'de> + Send + 'static,
    SinkItem: Serialize + Send + 'static,
    Codec: Serializer<SinkItem> + Deserializer<Item> + Send + 'static,
    CodecError: Into<Box<dyn Error + Send + Sync>>,
    CodecError: Error + Send + Sync + 'static,
    T: Send + 'static,
    tokio_serde::Framed<T, Item, SinkItem, Codec>:
        Stream<Item = Result<Item, CodecError>> + Sink<SinkItem, Error = CodecError>,
{
    transport
}

#[test]
fn a_transport_with_io_errors_fits_where_tarpc_has_a_length_delimited_one() {
    let io = Scripted::default();
    let client: Typed<Scripted, Answer, Question> = typed(io);
    let mut client = std::pin::pin!(fits_tarpc(client));
    assert!(ready(client.next()).is_none());
    let (near, _far) = tokio::io::duplex(10);
    let server: Typed<DuplexStream, Question, Answer> = typed(near);
    let mut server = std::pin::pin!(fits_tarpc(server));
    assert!(server.next().now_or_never().is_none());
}
