//! The shape of an RPC library, of tarpc for one: callers and handlers are tasks, and each end of
//! the connection is one task, which polls the stream and the sink in turn.

use std::{
    collections::HashMap,
    future::poll_fn,
    task::{Context, Poll, ready},
};

use anyhow::{Context as _, anyhow};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    payloads::Payloads,
    support::contenders::{Failure, Moved, Peer},
};

/// Calls, or answers, that wait for the task of the connection: as many as tarpc has by default.
const CHANNEL: usize = 100;

struct Call {
    number: u64,
    request: Bytes,
    answer: oneshot::Sender<BytesMut>,
}

/// `calls` calls, by `in_flight` callers.
pub(crate) async fn client<E: Failure>(
    peer: impl Peer<E>,
    payloads: Payloads,
    in_flight: u64,
    calls: u64,
) -> Moved {
    let (to_connection, calls_waiting) = mpsc::channel(CHANNEL);
    let mut callers = JoinSet::new();
    for first in 0..in_flight {
        let (payloads, to_connection) = (payloads.clone(), to_connection.clone());
        callers.spawn(async move {
            let mut answered = 0;
            for n in (first..calls).step_by(in_flight as usize) {
                let (answer, answered_by) = oneshot::channel();
                let call = Call {
                    number: payloads.number(n),
                    request: payloads.payload(n),
                    answer,
                };
                to_connection.send(call).await.context("no connection")?;
                payloads.check(n, &answered_by.await?)?;
                answered += 1;
            }
            anyhow::Ok(answered)
        });
    }
    drop(to_connection);

    let mut connection = ClientEnd {
        peer,
        payloads,
        calls: calls_waiting,
        waiting: HashMap::new(),
    };
    let connection = tokio::spawn(async move { poll_fn(|cx| connection.poll(cx)).await });
    let mut answered = 0;
    while let Some(caller) = callers.join_next().await {
        match caller? {
            Ok(calls) => answered += calls,
            // The connection knows why it ended.
            Err(error) => return Err(connection.await?.err().unwrap_or(error)),
        }
    }
    connection.await??;
    Ok(answered)
}

struct ClientEnd<P> {
    peer: P,
    payloads: Payloads,
    calls: mpsc::Receiver<Call>,
    waiting: HashMap<u64, oneshot::Sender<BytesMut>>,
}

impl<P> ClientEnd<P> {
    /// One answer and one call at a time, until neither moves.
    fn poll<E: Failure>(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>>
    where
        P: Peer<E>,
    {
        loop {
            match (self.poll_answer(cx)?, self.poll_call(cx)?) {
                (_, Poll::Ready(None)) => return Poll::Ready(Ok(())),
                (Poll::Ready(()), _) | (_, Poll::Ready(Some(()))) => {}
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
            }
        }
    }

    fn poll_answer<E: Failure>(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>>
    where
        P: Peer<E>,
    {
        let Some(answer) = ready!(self.peer.poll_next_unpin(cx)?) else {
            return Poll::Ready(Err(anyhow!("the end instead of an answer")));
        };
        let number = self.payloads.number_in(&answer)?;
        let caller = self.waiting.remove(&number);
        let caller = caller.with_context(|| format!("answer {number}, which nobody awaits"))?;
        // The caller is gone only if another one has failed.
        let _ = caller.send(answer);
        Poll::Ready(Ok(()))
    }

    /// None once all callers are gone and the sink is closed.
    fn poll_call<E: Failure>(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<Option<()>>>
    where
        P: Peer<E>,
    {
        ready!(self.peer.poll_ready_unpin(cx)?);
        match self.calls.poll_recv(cx) {
            Poll::Ready(Some(call)) => {
                self.peer.start_send_unpin(call.request)?;
                self.waiting.insert(call.number, call.answer);
                Poll::Ready(Ok(Some(())))
            }
            Poll::Ready(None) => {
                ready!(self.peer.poll_close_unpin(cx)?);
                Poll::Ready(Ok(None))
            }
            Poll::Pending => {
                ready!(self.peer.poll_flush_unpin(cx)?);
                Poll::Pending
            }
        }
    }
}

/// Answers each request with itself, by a handler that is a task of its own.
pub(crate) async fn server<E: Failure>(peer: impl Peer<E>) -> Moved {
    let (to_connection, answers) = mpsc::channel(CHANNEL);
    let mut connection = ServerEnd {
        peer,
        answers,
        to_connection,
        ended: false,
        received: 0,
        answered: 0,
    };
    poll_fn(|cx| connection.poll(cx)).await?;
    Ok(connection.answered)
}

struct ServerEnd<P> {
    peer: P,
    answers: mpsc::Receiver<Bytes>,
    /// For the handlers.
    to_connection: mpsc::Sender<Bytes>,
    /// True if the client has sent its last request.
    ended: bool,
    received: u64,
    answered: u64,
}

impl<P> ServerEnd<P> {
    /// One request and one answer at a time, until neither moves.
    fn poll<E: Failure>(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>>
    where
        P: Peer<E>,
    {
        loop {
            match (self.poll_request(cx)?, self.poll_answer(cx)?) {
                (Poll::Ready(()), _) | (_, Poll::Ready(())) => {}
                (Poll::Pending, Poll::Pending) => break,
            }
        }
        if self.ended && self.answered == self.received {
            ready!(self.peer.poll_close_unpin(cx)?);
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    fn poll_request<E: Failure>(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>>
    where
        P: Peer<E>,
    {
        if self.ended {
            return Poll::Pending;
        }
        match ready!(self.peer.poll_next_unpin(cx)?) {
            Some(request) => {
                self.received += 1;
                let to_connection = self.to_connection.clone();
                tokio::spawn(async move {
                    // Nobody takes the answer if the connection has failed.
                    let _ = to_connection.send(request.freeze()).await;
                });
            }
            None => self.ended = true,
        }
        Poll::Ready(Ok(()))
    }

    fn poll_answer<E: Failure>(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>>
    where
        P: Peer<E>,
    {
        ready!(self.peer.poll_ready_unpin(cx)?);
        match self.answers.poll_recv(cx) {
            Poll::Ready(Some(answer)) => {
                self.peer.start_send_unpin(answer)?;
                self.answered += 1;
                Poll::Ready(Ok(()))
            }
            // It never ends, because this end keeps a sender.
            Poll::Ready(None) | Poll::Pending => {
                ready!(self.peer.poll_flush_unpin(cx)?);
                Poll::Pending
            }
        }
    }
}
