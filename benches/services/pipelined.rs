//! A client with several requests in flight on one connection, and servers that answer in order.

use anyhow::Context;
use bytes::BytesMut;
use futures::{FutureExt, SinkExt, StreamExt, TryStreamExt};
use support::contenders::{Failure, Moved, Peer};
use tokio::{sync::Semaphore, try_join};

use crate::payloads::Payloads;

/// Feeds requests while fewer than `in_flight` are without an answer, then flushes.
pub(crate) async fn client<E: Failure>(
    peer: impl Peer<E>,
    payloads: Payloads,
    in_flight: u64,
    requests: u64,
) -> Moved {
    let window = Semaphore::new(in_flight as usize);
    let (mut sink, mut answers) = peer.split();
    let sending = async {
        for n in 0..requests {
            let free = match window.try_acquire() {
                Ok(free) => free,
                Err(_) => {
                    sink.flush().await?;
                    window.acquire().await?
                }
            };
            free.forget();
            sink.feed(payloads.payload(n)).await?;
        }
        anyhow::Ok(sink.flush().await?)
    };
    let receiving = async {
        for n in 0..requests {
            let answer = answers.next().await;
            payloads.check(n, &answer.context("the end instead of an answer")??)?;
            window.add_permits(1);
        }
        anyhow::Ok(())
    };
    try_join!(sending, receiving)?;
    sink.close().await?;
    Ok(requests)
}

/// Answers each request before it looks for another.
pub(crate) async fn send<E: Failure>(mut peer: impl Peer<E>) -> Moved {
    let mut answered = 0;
    while let Some(request) = peer.next().await {
        peer.send(request?.freeze()).await?;
        answered += 1;
    }
    Ok(answered)
}

/// Answers all requests that are there, then flushes.
pub(crate) async fn feed<E: Failure>(mut peer: impl Peer<E>) -> Moved {
    let mut answered = 0;
    while let Some(request) = peer.next().await {
        peer.feed(request?.freeze()).await?;
        answered += 1;
        while let Some(Some(request)) = peer.next().now_or_never() {
            peer.feed(request?.freeze()).await?;
            answered += 1;
        }
        peer.flush().await?;
    }
    Ok(answered)
}

/// Forwards the requests into the sink of the answers.
pub(crate) async fn forward<E: Failure>(peer: impl Peer<E>) -> Moved {
    let mut answered = 0;
    let (sink, requests) = peer.split();
    let answers = requests
        .map_ok(BytesMut::freeze)
        .inspect_ok(|_| answered += 1);
    answers.forward(sink).await?;
    Ok(answered)
}
