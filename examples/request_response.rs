//! Answers on the connection that the requests come from, in two ways: by turns on the whole
//! transport, and on its two halves.
//!
//! A lent block is a piece of the transport's read buffer. As long as it lives, or the
//! `RecvBlocks` that lent it, the transport is borrowed, and the compiler refuses to send on it:
//! be done with the requests first, or send on another transport, the writing half.
//!
//! ```text
//! cargo run --example request_response
//!
//! by turns:  1 4 9 16 25
//! by halves: 1 4 9 16 25
//! ```

use bytes::Bytes;
use futures::{SinkExt, TryStreamExt, stream};
use tokio::net::{TcpListener, TcpStream};
use wholeblock::{BlockCodec, BlockError, BlockTransport, recv_blocks, send_blocks};

fn square(request: &[u8]) -> Bytes {
    let number: u64 = String::from_utf8_lossy(request).parse().unwrap_or(0);
    Bytes::from((number * number).to_string())
}

async fn by_turns(socket: TcpStream) -> Result<(), BlockError> {
    socket.set_nodelay(true)?;
    let mut blocks = BlockTransport::new(socket, BlockCodec::length_prefixed());
    loop {
        let mut requests = recv_blocks(&mut blocks);
        let Some(batch) = requests.next_batch().await? else {
            break;
        };
        let answers: Vec<Bytes> = batch.map(square).collect(); // the batch is gone here
        drop(requests); // and now nothing borrows `blocks`
        send_blocks(&mut blocks, stream::iter(answers)).await?;
    }
    blocks.close().await
}

async fn by_halves(socket: TcpStream) -> Result<(), BlockError> {
    socket.set_nodelay(true)?;
    let (reader, writer) = socket.into_split();
    let mut reader = BlockTransport::new(reader, BlockCodec::length_prefixed());
    let mut writer = BlockTransport::new(writer, BlockCodec::length_prefixed());
    let mut requests = recv_blocks(&mut reader);
    while let Some(batch) = requests.next_batch().await? {
        for request in batch {
            writer.feed(square(request)).await?;
        }
        writer.flush().await?;
    }
    writer.close().await
}

/// Sends the numbers from 1 to 5, before it reads the answers.
async fn ask<F>(serve: impl FnOnce(TcpStream) -> F) -> Result<String, BlockError>
where
    F: Future<Output = Result<(), BlockError>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let socket = TcpStream::connect(listener.local_addr()?).await?;
    tokio::spawn(serve(listener.accept().await?.0));

    socket.set_nodelay(true)?;
    let mut blocks = BlockTransport::new(socket, BlockCodec::length_prefixed());
    let requests = (1..=5).map(|n: u64| n.to_string());
    send_blocks(&mut blocks, stream::iter(requests)).await?;
    blocks.close().await?;
    let answers: Vec<_> = blocks.try_collect().await?;
    Ok(String::from_utf8_lossy(&answers.join(&b' ')).into_owned())
}

#[tokio::main]
async fn main() -> Result<(), BlockError> {
    println!("by turns:  {}", ask(by_turns).await?);
    println!("by halves: {}", ask(by_halves).await?);
    Ok(())
}
