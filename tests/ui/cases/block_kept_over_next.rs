//! A block is lent until the next one is asked for.

use tokio::net::TcpStream;
use wholeblock::{BlockError, BlockTransport, LengthPrefix, recv_blocks};

async fn two(mut blocks: BlockTransport<TcpStream, LengthPrefix>) -> Result<bool, BlockError> {
    let first = blocks.recv().await?;
    let second = blocks.recv().await?;
    Ok(first == second)
}

async fn two_by_number(
    mut blocks: BlockTransport<TcpStream, LengthPrefix>,
) -> Result<bool, BlockError> {
    let mut incoming = recv_blocks(&mut blocks).stop_after(2);
    let first = incoming.next().await?;
    let second = incoming.next().await?;
    Ok(first == second)
}

fn main() {}
