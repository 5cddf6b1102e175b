//! A lent block is a piece of the read buffer of the transport, which cannot send meanwhile.

use bytes::Bytes;
use tokio::net::TcpStream;
use wholeblock::{BlockError, BlockTransport, LengthPrefix, recv_blocks};

async fn echo(mut blocks: BlockTransport<TcpStream, LengthPrefix>) -> Result<(), BlockError> {
    let mut requests = recv_blocks(&mut blocks);
    while let Some(request) = requests.next().await? {
        blocks.send(Bytes::copy_from_slice(request)).await?;
    }
    Ok(())
}

fn main() {}
