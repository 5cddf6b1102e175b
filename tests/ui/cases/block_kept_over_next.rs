//! A block is lent until the next one is asked for.

use tokio::net::TcpStream;
use wholeblock::{BlockError, BlockTransport, LengthPrefix, recv_blocks};

async fn two(mut blocks: BlockTransport<TcpStream, LengthPrefix>) -> Result<bool, BlockError> {
    let mut incoming = recv_blocks(&mut blocks);
    let first = incoming.next().await?;
    let second = incoming.next().await?;
    Ok(first == second)
}

fn main() {}
