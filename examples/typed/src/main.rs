//! Typed messages: serde's through tokio-serde, and protobuf's. Both ways turn a block transport into a
//! `Sink` and a `Stream` of `Reading`s. For any other serializer, do as with protobuf.
//!
//! ```text
//! cargo run -p typed
//!
//! as JSON:     Reading { sensor: "attic", celsius: 21.5 }
//! as protobuf: Reading { sensor: "attic", celsius: 21.5 }
//! ```

use std::io;

use futures::{Sink, SinkExt, Stream, StreamExt, future};
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::io::{DuplexStream, duplex};
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

fn json(io: DuplexStream) -> impl Typed {
    // tokio-serde's JSON, and many other libraries, need a transport whose error is `io::Error`.
    let codec = BlockCodec::length_prefixed().err_into::<io::Error>();
    SymmetricallyFramed::new(BlockTransport::new(io, codec), SymmetricalJson::default())
}

fn protobuf(io: DuplexStream) -> impl Typed {
    let codec = BlockCodec::new(Varint::new()).err_into::<io::Error>(); // protobuf's delimiter
    BlockTransport::new(io, codec)
        .with(|message: Reading| future::ok::<_, io::Error>(message.encode_to_vec().into()))
        .map(|block| Ok(Reading::decode(block?)?))
}

/// Sends a reading from one end to the other.
async fn pass<T: Typed>(typed: fn(DuplexStream) -> T) -> io::Result<Reading> {
    let (here, there) = duplex(1024); // instead of a connection
    let (sensor, celsius) = ("attic".into(), 21.5);
    typed(here).send(Reading { sensor, celsius }).await?;
    typed(there).next().await.expect("a reading")
}

#[tokio::main]
async fn main() -> io::Result<()> {
    println!("as JSON:     {:?}", pass(json).await?);
    println!("as protobuf: {:?}", pass(protobuf).await?);
    Ok(())
}
