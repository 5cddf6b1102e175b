//! Many producers send over one connection, through a channel into the writing half. While the channel has
//! blocks, many are written together. When it is empty, they are flushed. The reading half is read
//! meanwhile, so the program notices that the peer is gone even if it sends nothing.
//!
//! ```text
//! cargo run --example writer_task
//!
//! the peer has 300 blocks of as many producers, and the channel is still open
//! the connection has ended, for the peer closed it
//! the producers are told: channel closed
//! ```

use futures::{StreamExt, TryStreamExt, future::ready};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use wholeblock::{BlockCodec, BlockError, BlockTransport, send_blocks};

/// Sends the blocks of `queue` until the peer closes. A real program would handle the peer's blocks where this
/// one calls `ready`.
async fn connection(socket: TcpStream, queue: mpsc::Receiver<String>) -> Result<(), BlockError> {
    let (reader, writer) = socket.into_split();
    let reader = BlockTransport::new(reader, BlockCodec::length_prefixed());
    let mut writer = BlockTransport::new(writer, BlockCodec::length_prefixed());
    let mut reading = reader.try_for_each(|_| ready(Ok(())));
    tokio::select! {
        sent = send_blocks(&mut writer, ReceiverStream::new(queue)) => sent?,
        // A reader notices at once that its peer is gone, a writer only when it writes. (A machine that
        // lost its power sends nothing. Against that, use heartbeats and a `stall_timeout`.)
        read = &mut reading => return read,
    };
    writer.close().await?; // no producer is left, but the peer may have more to say
    reading.await
}

#[tokio::main]
async fn main() -> Result<(), BlockError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let socket = TcpStream::connect(listener.local_addr()?).await?;
    socket.set_nodelay(true)?;
    let (queue, blocks) = mpsc::channel(16); // holds up the producers when it is full
    let connection = tokio::spawn(connection(socket, blocks));
    for producer in 0..300 {
        let queue = queue.clone();
        tokio::spawn(async move { queue.send(format!("from producer {producer}")).await });
    }
    let peer = BlockTransport::new(listener.accept().await?.0, BlockCodec::length_prefixed());
    let received: Vec<_> = peer.take(300).try_collect().await?; // and then closes
    let blocks = received.len();
    println!("the peer has {blocks} blocks of as many producers, and the channel is still open");
    connection.await.expect("no panic")?;
    println!("the connection has ended, for the peer closed it");
    let told = queue.send("too late".into()).await.unwrap_err();
    println!("the producers are told: {told}");
    Ok(())
}
