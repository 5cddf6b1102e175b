//! The shape of an RPC library such as tarpc. Callers and handlers are tasks, and each end of the connection
//! is one task, which polls the stream and the sink in turn.

use std::{
    collections::HashMap,
    future::poll_fn,
    task::{Context, Poll, ready},
};

use anyhow::{Context as _, anyhow, ensure};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use support::contenders::{Failure, Moved, Peer};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::payloads::{NUMBER_LEN, Payloads};

/// Calls or answers that can wait for the task of the connection. This is tarpc's default.
const CHANNEL: usize = 100;

/// A request or an answer. It has its own memory, as with a serializer: its block is made when it is sent, and
/// dropped when it is received.
struct Message {
    number: u64,
    body: Vec<u8>,
}

impl Message {
    fn encode(&self) -> Bytes {
        let block = [&self.number.to_be_bytes(), &self.body[..]].concat();
        Bytes::from(block)
    }

    fn decode(block: BytesMut) -> anyhow::Result<Self> {
        let (number, body) = block.split_first_chunk().context("no number")?;
        Ok(Self {
            number: u64::from_be_bytes(*number),
            body: body.to_vec(),
        })
    }
}

struct Call {
    request: Message,
    answer: oneshot::Sender<Message>,
}

/// Makes `calls` calls by `in_flight` callers.
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
                let request = Message {
                    number: payloads.number(n),
                    body: payloads.payload(n)[NUMBER_LEN..].to_vec(),
                };
                let call = Call { request, answer };
                to_connection.send(call).await.context("no connection")?;
                let len = NUMBER_LEN + answered_by.await?.body.len();
                ensure!(len == payloads.size(), "an answer of {len} bytes");
                answered += 1;
            }
            anyhow::Ok(answered)
        });
    }
    drop(to_connection);

    let mut connection = ClientEnd {
        peer,
        calls: calls_waiting,
        waiting: HashMap::new(),
    };
    let connection = tokio::spawn(async move { poll_fn(|cx| connection.poll(cx)).await });
    let mut answered = 0;
    while let Some(caller) = callers.join_next().await {
        match caller? {
            Ok(calls) => answered += calls,
            // Prefers the connection's own error, which is the cause.
            Err(error) => return Err(connection.await?.err().unwrap_or(error)),
        }
    }
    connection.await??;
    Ok(answered)
}

struct ClientEnd<P> {
    peer: P,
    calls: mpsc::Receiver<Call>,
    waiting: HashMap<u64, oneshot::Sender<Message>>,
}

impl<P> ClientEnd<P> {
    /// Moves one answer and one call at a time, until neither moves.
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
        let answer = Message::decode(answer)?;
        let caller = self.waiting.remove(&answer.number);
        let caller = caller.context("an answer that nobody awaits")?;
        // This fails only if another caller has failed.
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
                self.peer.start_send_unpin(call.request.encode())?;
                self.waiting.insert(call.request.number, call.answer);
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

/// Answers each request with itself, in a task of its own.
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
    answers: mpsc::Receiver<Message>,
    /// For the handlers.
    to_connection: mpsc::Sender<Message>,
    /// True if the client has sent its last request.
    ended: bool,
    received: u64,
    answered: u64,
}

impl<P> ServerEnd<P> {
    /// Moves one request and one answer at a time, until neither moves.
    fn poll<E: Failure>(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>>
    where
        P: Peer<E>,
    {
        let mut moved = true;
        while moved {
            let (request, answer) = (self.poll_request(cx)?, self.poll_answer(cx)?);
            moved = request.is_ready() || answer.is_ready();
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
                let request = Message::decode(request)?;
                let to_connection = self.to_connection.clone();
                tokio::spawn(async move {
                    // This fails if the connection has failed.
                    let _ = to_connection.send(request).await;
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
                self.peer.start_send_unpin(answer.encode())?;
                self.answered += 1;
                Poll::Ready(Ok(()))
            }
            // `None` never comes, because this end keeps a sender.
            Poll::Ready(None) | Poll::Pending => {
                ready!(self.peer.poll_flush_unpin(cx)?);
                Poll::Pending
            }
        }
    }
}
