//! Many producers and one connection: a channel leads into the writing half. Blocks leave as soon
//! as the channel is empty, many together while it is not. A peer that goes is noticed although
//! nothing is being sent, for the reading half is read meanwhile.
//!
//! ```text
//! cargo run --example writer_task
//!
//! the peer has 300 blocks of 3 producers, and the channel is still open
//! the connection has ended, for the peer closed it
//! the producers are told: channel closed
//! ```

use std::pin::pin;

use futures::{SinkExt, StreamExt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use wholeblock::{BlockCodec, BlockError, BlockTransport, recv_blocks, send_blocks};

/// Sends what comes through `queue` and prints what arrives, until the peer closes.
async fn connection(socket: TcpStream, queue: mpsc::Receiver<String>) -> Result<(), BlockError> {
    let (reader, writer) = socket.into_split();
    let mut reader = BlockTransport::new(reader, BlockCodec::length_prefixed());
    let mut writer = BlockTransport::new(writer, BlockCodec::length_prefixed());
    let mut reading = pin!(async {
        let mut incoming = recv_blocks(&mut reader);
        while let Some(block) = incoming.next().await? {
            println!("the peer says {:?}", String::from_utf8_lossy(block));
        }
        Ok(())
    });
    tokio::select! {
        sent = send_blocks(&mut writer, ReceiverStream::new(queue)) => {
            sent?;
            writer.close().await?; // no producer is left, but the peer may have more to say
            reading.await
        }
        // A writer learns that its peer is gone when it writes, a reader at once. (A machine that
        // lost its power says nothing: against that, heartbeats and a `stall_timeout`.)
        read = &mut reading => read,
    }
}

#[tokio::main]
async fn main() -> Result<(), BlockError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let socket = TcpStream::connect(listener.local_addr()?).await?;
    socket.set_nodelay(true)?;
    let (peer, _) = listener.accept().await?;
    peer.set_nodelay(true)?;

    let (queue, blocks) = mpsc::channel(16); // full, it holds the producers up
    let connection = tokio::spawn(connection(socket, blocks));
    for producer in 0..3 {
        let queue = queue.clone();
        tokio::spawn(async move {
            for n in 0..100 {
                let block = format!("block {n} of producer {producer}");
                queue.send(block).await.expect("the connection has ended");
            }
        });
    }

    let mut peer = BlockTransport::new(peer, BlockCodec::length_prefixed());
    for _ in 0..300 {
        peer.next().await.expect("a block")?;
    }
    println!("the peer has 300 blocks of 3 producers, and the channel is still open");
    drop(peer);
    connection.await.expect("no panic")?;
    println!("the connection has ended, for the peer closed it");
    let told = queue.send("too late".into()).await.unwrap_err();
    println!("the producers are told: {told}");
    Ok(())
}
