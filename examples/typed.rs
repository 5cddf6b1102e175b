//! Typed messages: serde's through tokio-serde, and protobuf's. Both ways make a block transport a
//! `Sink` and a `Stream` of `Reading`s; any other serializer goes the way of protobuf.
//!
//! ```text
//! cargo run --example typed
//!
//! as JSON:     Reading { sensor: "attic", celsius: 21.5 }
//! as protobuf: Reading { sensor: "attic", celsius: 21.5 }
//! ```

use std::io;

use futures::{Sink, SinkExt, Stream, StreamExt, future};
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_serde::{SymmetricallyFramed, formats::SymmetricalJson};
use wholeblock::{BlockCodec, BlockTransport, Varint};

#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
struct Reading {
    #[prost(string, tag = "1")]
    sensor: String,
    #[prost(double, tag = "2")]
    celsius: f64,
}

trait Typed: Sink<Reading, Error = io::Error> + Stream<Item = io::Result<Reading>> + Unpin {}
impl<T: Sink<Reading, Error = io::Error> + Stream<Item = io::Result<Reading>> + Unpin> Typed for T {}

fn json(socket: TcpStream) -> impl Typed {
    // tokio-serde, and much else, wants a transport that fails with `io::Error`.
    let codec = BlockCodec::length_prefixed().err_into::<io::Error>();
    let blocks = BlockTransport::new(socket, codec);
    SymmetricallyFramed::new(blocks, SymmetricalJson::default())
}

fn protobuf(socket: TcpStream) -> impl Typed {
    let codec = BlockCodec::new(Varint::new()).err_into::<io::Error>(); // protobuf's delimiter
    BlockTransport::new(socket, codec)
        .with(|message: Reading| future::ok::<_, io::Error>(message.encode_to_vec().into()))
        .map(|block| Ok(Reading::decode(block?)?))
}

/// Sends a reading from one end of a connection to the other.
async fn pass<T: Typed>(typed: impl Fn(TcpStream) -> T) -> io::Result<Reading> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let socket = TcpStream::connect(listener.local_addr()?).await?;
    socket.set_nodelay(true)?;
    let mut client = typed(socket);
    let (sensor, celsius) = ("attic".into(), 21.5);
    client.send(Reading { sensor, celsius }).await?;

    let (socket, _) = listener.accept().await?;
    socket.set_nodelay(true)?;
    typed(socket).next().await.expect("a reading")
}

#[tokio::main]
async fn main() -> io::Result<()> {
    println!("as JSON:     {:?}", pass(json).await?);
    println!("as protobuf: {:?}", pass(protobuf).await?);
    Ok(())
}
