//! A lent block is a piece of the read buffer of the transport, which cannot send meanwhile.

use bytes::Bytes;
use tokio::net::TcpStream;
use wholeblock::{BlockError, BlockTransport, LengthPrefix};

async fn echo(mut blocks: BlockTransport<TcpStream, LengthPrefix>) -> Result<(), BlockError> {
    while let Some(request) = blocks.recv().await? {
        blocks.send(Bytes::copy_from_slice(request)).await?;
    }
    Ok(())
}

fn main() {}
