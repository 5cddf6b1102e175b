//! Typed messages over a transport, through tokio-serde, and the bounds of tarpc.

use std::{error::Error, io, pin::Pin};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use serde::{Deserialize, Serialize};
use testing::{Scripted, ready, wire, within_limit};
use tokio::io::DuplexStream;
use tokio_serde::{Deserializer, Serializer, formats::Json};
use wholeblock::{BlockCodec, BlockError, BlockTransport, LengthPrefix};

type IoTransport<T> = BlockTransport<T, LengthPrefix, io::Error>;

fn transport<T>(io: T) -> IoTransport<T> {
    BlockTransport::new(io, BlockCodec::length_prefixed().err_into())
}

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

/// Asserts that `transport` fits tarpc 0.38. The bounds are those of `tarpc::serde_transport::Transport`,
/// with our transport instead of `Framed<S, LengthDelimitedCodec>`, and those of the trait
/// `tarpc::Transport` for its clients and servers.
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
fn transport_with_io_errors_fits_the_bounds_of_tarpc() {
    let io = Scripted::default();
    let client: Typed<Scripted, Answer, Question> = typed(io);
    let mut client = std::pin::pin!(fits_tarpc(client));
    assert!(ready(client.next()).is_none());
    let (near, _far) = tokio::io::duplex(10);
    let server: Typed<DuplexStream, Question, Answer> = typed(near);
    let mut server = std::pin::pin!(fits_tarpc(server));
    assert!(server.next().now_or_never().is_none());
}
