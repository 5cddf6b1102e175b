//! Answers on the connection that the requests come from, in two ways: by turns on the whole
//! transport, and on its two halves.
//!
//! A lent block borrows the transport, because it is a part of the read buffer. As long as it lives, you cannot
//! send on that transport. Finish with the requests first, or send on another transport: the writing half.
//!
//! ```text
//! cargo run --example request_response
//!
//! by turns: [b"ONE", b"TWO", b"THREE"]
//! by halves: [b"ONE", b"TWO", b"THREE"]
//! ```

use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt, stream::iter};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, duplex, split};
use wholeblock::{BlockCodec, BlockError, BlockTransport, send_blocks};

async fn by_turns(io: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), BlockError> {
    let mut blocks = BlockTransport::new(io, BlockCodec::length_prefixed());
    loop {
        let Some(requests) = blocks.recv_batch().await? else {
            break;
        };
        let answers: Vec<_> = requests.map(<[u8]>::to_ascii_uppercase).collect();
        // Now nothing borrows `blocks`.
        send_blocks(&mut blocks, iter(answers)).await?;
    }
    blocks.close().await
}

/// Requests that arrive together are answered together, because `forward` flushes only when none is left.
async fn by_halves(io: impl AsyncRead + AsyncWrite) -> Result<(), BlockError> {
    let (reader, writer) = split(io); // a `TcpStream` has `into_split`, which costs less
    let requests = BlockTransport::new(reader, BlockCodec::length_prefixed());
    let answers = BlockTransport::new(writer, BlockCodec::length_prefixed());
    let answer = |request: BytesMut| request.to_ascii_uppercase().into();
    requests.map_ok(answer).forward(answers).await
}

/// Sends three requests, and then prints the answers.
async fn ask(io: DuplexStream, way: &str) -> Result<(), BlockError> {
    let mut blocks = BlockTransport::new(io, BlockCodec::length_prefixed());
    send_blocks(&mut blocks, iter(["one", "two", "three"])).await?;
    blocks.close().await?;
    let answers: Vec<_> = blocks.try_collect().await?;
    println!("{way}: {answers:?}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BlockError> {
    let (client, server) = duplex(1024); // instead of a connection
    tokio::try_join!(ask(client, "by turns"), by_turns(server))?;
    let (client, server) = duplex(1024);
    tokio::try_join!(ask(client, "by halves"), by_halves(server))?;
    Ok(())
}
