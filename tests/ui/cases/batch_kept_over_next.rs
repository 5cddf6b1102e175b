//! A batch is lent until the next block, or the next batch, is asked for.

use tokio::net::TcpStream;
use wholeblock::{BlockError, BlockTransport, LengthPrefix, recv_blocks};

async fn count(mut blocks: BlockTransport<TcpStream, LengthPrefix>) -> Result<usize, BlockError> {
    let mut incoming = recv_blocks(&mut blocks);
    let Some(batch) = incoming.next_batch().await? else {
        return Ok(0);
    };
    let more = incoming.next().await?.is_some();
    Ok(batch.count() + usize::from(more))
}

fn main() {}
