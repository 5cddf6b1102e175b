//! Many producers and one connection: a channel leads into the writing half. Blocks leave as soon
//! as the channel is empty, many together while it is not. A peer that goes is noticed although
//! nothing is being sent, for the reading half is read meanwhile.
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

/// Sends what comes through `queue` until the peer closes. What the peer sends meanwhile would be
/// handled in the place of `ready`.
async fn connection(socket: TcpStream, queue: mpsc::Receiver<String>) -> Result<(), BlockError> {
    let (reader, writer) = socket.into_split();
    let reader = BlockTransport::new(reader, BlockCodec::length_prefixed());
    let mut writer = BlockTransport::new(writer, BlockCodec::length_prefixed());
    let mut reading = reader.try_for_each(|_| ready(Ok(())));
    tokio::select! {
        sent = send_blocks(&mut writer, ReceiverStream::new(queue)) => sent?,
        // A writer learns that its peer is gone when it writes, a reader at once. (A machine that
        // lost its power says nothing: against that, heartbeats and a `stall_timeout`.)
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
    let (queue, blocks) = mpsc::channel(16); // full, it holds the producers up
    let connection = tokio::spawn(connection(socket, blocks));
    for producer in 0..300 {
        let queue = queue.clone();
        tokio::spawn(async move { queue.send(format!("from producer {producer}")).await });
    }
    let peer = BlockTransport::new(listener.accept().await?.0, BlockCodec::length_prefixed());
    let received: Vec<_> = peer.take(300).try_collect().await?; // after which it closes
    let blocks = received.len();
    println!("the peer has {blocks} blocks of as many producers, and the channel is still open");
    connection.await.expect("no panic")?;
    println!("the connection has ended, for the peer closed it");
    let told = queue.send("too late".into()).await.unwrap_err();
    println!("the producers are told: {told}");
    Ok(())
}
