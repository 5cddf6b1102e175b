//! A batch is lent until the transport is used again.

use tokio::net::TcpStream;
use wholeblock::{BlockError, BlockTransport, LengthPrefix};

async fn count(mut blocks: BlockTransport<TcpStream, LengthPrefix>) -> Result<usize, BlockError> {
    let Some(batch) = blocks.recv_batch().await? else {
        return Ok(0);
    };
    let more = blocks.recv().await?.is_some();
    Ok(batch.count() + usize::from(more))
}

fn main() {}
