//! Producers push blocks into a channel, which is forwarded into the sink, in one direction.

use bytes::Bytes;
use futures::{Sink, StreamExt};
use support::contenders::{Failure, Moved, Peer};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use crate::payloads::Payloads;

pub(crate) const PRODUCERS: u64 = 8;

/// Blocks that can wait for the sink.
const CHANNEL: usize = 64;

/// Payload `n` comes from producer `n % PRODUCERS`.
pub(crate) async fn sender<E: Failure>(
    sink: impl Sink<Bytes, Error = E>,
    payloads: Payloads,
    blocks: u64,
) -> Moved {
    let (to_sink, waiting) = mpsc::channel(CHANNEL);
    let mut producers = JoinSet::new();
    for first in 0..PRODUCERS {
        let (payloads, to_sink) = (payloads.clone(), to_sink.clone());
        producers.spawn(async move {
            for n in (first..blocks).step_by(PRODUCERS as usize) {
                // This fails if the sink has failed. The sink returns the reason.
                if to_sink.send(payloads.payload(n)).await.is_err() {
                    break;
                }
            }
        });
    }
    drop(to_sink);
    ReceiverStream::new(waiting).map(Ok).forward(sink).await?;
    producers.join_all().await;
    Ok(blocks)
}

/// Checks that each producer's blocks come in order.
pub(crate) async fn receiver<E: Failure>(mut peer: impl Peer<E>, payloads: Payloads) -> Moved {
    let mut next: Vec<u64> = (0..PRODUCERS).collect();
    let mut seen = 0;
    while let Some(block) = peer.next().await {
        let block = block?;
        let producer = payloads.number_in(&block)? % PRODUCERS;
        let n = &mut next[producer as usize];
        payloads.check(*n, &block)?;
        *n += PRODUCERS;
        seen += 1;
    }
    Ok(seen)
}
