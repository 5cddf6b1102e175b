//! A proxy that relays block by block, both ways.

use anyhow::ensure;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use support::contenders::{Failure, Moved, Peer};
use tokio::try_join;

/// Relays between a client and a server until both have ended.
pub(crate) async fn proxy<E: Failure>(client: impl Peer<E>, server: impl Peer<E>) -> Moved {
    let (to_client, from_client) = client.split();
    let (to_server, from_server) = server.split();
    let requests = relay(from_client, to_server);
    let answers = relay(from_server, to_client);
    let (requests, answers) = try_join!(requests, answers)?;
    ensure!(answers == requests, "{answers} of {requests} answers");
    Ok(requests)
}

/// Feeds all blocks that are there, then flushes.
async fn relay<E: Failure>(
    mut from: impl Stream<Item = Result<BytesMut, E>> + Unpin,
    mut to: impl Sink<Bytes, Error = E> + Unpin,
) -> Moved {
    let mut relayed = 0;
    while let Some(block) = from.next().await {
        to.feed(block?.freeze()).await?;
        relayed += 1;
        while let Some(Some(block)) = from.next().now_or_never() {
            to.feed(block?.freeze()).await?;
            relayed += 1;
        }
        to.flush().await?;
    }
    to.close().await?;
    Ok(relayed)
}
