//! An echo server for many clients at once, and a client, in one process over loopback.
//!
//! ```text
//! cargo run --example echo
//!
//! "hello" came back as "hello"
//! "" came back as ""
//! "a block of any length, up to 8 MiB" came back as "a block of any length, up to 8 MiB"
//! ```

use std::io;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use wholeblock::{BlockCodec, BlockError, BlockTransport};

/// Sends each block back, until the client closes.
async fn echo(socket: TcpStream) -> Result<(), BlockError> {
    socket.set_nodelay(true)?;
    let mut blocks = BlockTransport::new(socket, BlockCodec::length_prefixed());
    while let Some(block) = blocks.next().await {
        blocks.send(block?.freeze()).await?;
    }
    blocks.close().await
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (socket, peer) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = echo(socket).await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

#[tokio::main]
async fn main() -> Result<(), BlockError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let socket = TcpStream::connect(listener.local_addr()?).await?;
    tokio::spawn(serve(listener));

    socket.set_nodelay(true)?;
    let mut blocks = BlockTransport::new(socket, BlockCodec::length_prefixed());
    for text in ["hello", "", "a block of any length, up to 8 MiB"] {
        blocks.send(Bytes::from(text)).await?;
        let back = blocks.next().await.expect("the server closed")?;
        println!("{text:?} came back as {:?}", String::from_utf8_lossy(&back));
    }
    blocks.close().await?; // the server's stream ends cleanly, between two blocks
    assert!(blocks.next().await.is_none()); // then the server closes, too
    Ok(())
}
