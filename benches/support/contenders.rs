//! The ways to move blocks: one list for all benchmarks.
//!
//! To add one: a variant, its name, and its arm in [`Contender::run_with`].

use std::{error::Error, hint::black_box, sync::mpsc::Sender, time::Instant};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use futures::{Sink, SinkExt, Stream, StreamExt, future::BoxFuture, stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::Framed;
use wholeblock::{BlockCodec, Exact, Framing, recv_blocks, send_blocks};

use super::{
    load::{Blocks, Load},
    raw::{self, Writes},
};

/// Their short names are what `--only` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contender {
    Raw,
    /// The other way of [`Raw`](Self::Raw) to write; the better of the two is the limit.
    #[value(skip)]
    RawVectored,
    Tokio,
    Ld,
    #[value(name = "ld-64k")]
    Ld64k,
    Framed,
    Next,
    NextBatch,
}

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw | Self::RawVectored => "raw limit",
            Self::Tokio => "tokio raw",
            Self::Ld => "LengthDelimitedCodec",
            Self::Ld64k => "LengthDelimitedCodec, 64 KiB",
            Self::Framed => "Framed",
            Self::Next => "send_blocks, next",
            Self::NextBatch => "send_blocks, next_batch",
        }
    }

    /// Whether it is meant for blocking sockets. All others are given tokio's.
    pub(crate) fn is_blocking(self) -> bool {
        matches!(self, Self::Raw | Self::RawVectored)
    }

    /// One end of a connection at work; fails where `load` is none that can be moved.
    pub(crate) fn run<T>(self, task: Task, io: T, load: Load) -> anyhow::Result<Running>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Ok(match load.prefixed {
            true => self.run_with(task, io, load, load.length_prefix()?),
            false => self.run_with(task, io, load, Exact::new(load.size)?),
        })
    }

    fn run_with<T, F>(self, task: Task, io: T, load: Load, framing: F) -> Running
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Framing + Send + Unpin + 'static,
    {
        let codec = BlockCodec::new(framing);
        match self {
            Self::Raw => raw::run(task, io, load, Writes::Filled),
            Self::RawVectored => raw::run(task, io, load, Writes::Vectored),
            Self::Tokio => raw::run(task, io, load, Writes::for_size(load.size)),
            Self::Ld => sink_stream(task, Framed::new(io, load.length_delimited())),
            Self::Ld64k => {
                let mut framed = Framed::new(io, load.length_delimited());
                framed.set_backpressure_boundary(64 * 1024);
                sink_stream(task, framed)
            }
            Self::Framed => sink_stream(task, Framed::new(io, codec)),
            Self::Next => lent(task, Framed::new(io, codec), false),
            Self::NextBatch => lent(task, Framed::new(io, codec), true),
        }
    }
}

/// What one end of a connection does.
#[derive(Debug)]
pub(crate) enum Task {
    /// Sends these blocks, and then the end.
    Send(Blocks),
    /// Receives blocks up to the end.
    Receive,
    /// Sends these blocks one by one, and awaits the answer to each. How many microseconds each
    /// took is told to the other.
    Ask(Blocks, Sender<f64>),
    /// Sends each block that it receives back.
    Echo,
}

/// An end at work. It gives the number of blocks it has moved.
///
/// Boxed one by one, so that no task is as large as the largest of them: `connections` weighs them.
pub(crate) type Running = BoxFuture<'static, anyhow::Result<u64>>;

/// Anything that is a sink and a stream goes through these, so that what differs is the codec.
fn sink_stream<B, E>(task: Task, blocks: B) -> Running
where
    B: Sink<Bytes, Error = E> + Stream<Item = Result<BytesMut, E>> + Unpin + Send + 'static,
    E: Error + Send + Sync + 'static,
{
    match task {
        Task::Send(source) => Box::pin(feed(blocks, source)),
        Task::Receive => Box::pin(receive(blocks)),
        Task::Ask(source, micros) => Box::pin(ask(blocks, source, micros)),
        Task::Echo => Box::pin(echo(blocks)),
    }
}

pub(crate) async fn feed<S>(mut sink: S, source: Blocks) -> anyhow::Result<u64>
where
    S: Sink<Bytes, Error: Error + Send + Sync + 'static> + Unpin,
{
    let mut sent = 0;
    for block in source {
        sink.feed(block).await?;
        sent += 1;
    }
    sink.close().await?;
    Ok(sent)
}

pub(crate) async fn receive<S, E>(mut stream: S) -> anyhow::Result<u64>
where
    S: Stream<Item = Result<BytesMut, E>> + Unpin,
    E: Error + Send + Sync + 'static,
{
    let mut seen = 0;
    while let Some(block) = stream.next().await {
        black_box(&block?[..]);
        seen += 1;
    }
    Ok(seen)
}

async fn ask<B, E>(mut peer: B, source: Blocks, micros: Sender<f64>) -> anyhow::Result<u64>
where
    B: Sink<Bytes, Error = E> + Stream<Item = Result<BytesMut, E>> + Unpin,
    E: Error + Send + Sync + 'static,
{
    let mut trips = 0;
    for block in source {
        let started = Instant::now();
        peer.send(block).await?;
        let answer = peer.next().await.context("the end instead of an answer")?;
        black_box(&answer?[..]);
        micros.send(micros_since(started))?;
        trips += 1;
    }
    peer.close().await?;
    Ok(trips)
}

async fn echo<B, E>(mut peer: B) -> anyhow::Result<u64>
where
    B: Sink<Bytes, Error = E> + Stream<Item = Result<BytesMut, E>> + Unpin,
    E: Error + Send + Sync + 'static,
{
    let mut trips = 0;
    while let Some(block) = peer.next().await {
        peer.send(block?.freeze()).await?;
        trips += 1;
    }
    Ok(trips)
}

pub(crate) fn micros_since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e6
}

/// `send_blocks` and `recv_blocks`; received by batches, or one by one.
fn lent<T, F>(task: Task, framed: Framed<T, BlockCodec<F>>, batches: bool) -> Running
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Framing + Send + Unpin + 'static,
{
    match task {
        Task::Send(source) => Box::pin(send_all(framed, source)),
        Task::Receive if batches => Box::pin(receive_batches(framed)),
        Task::Receive => Box::pin(receive_lent(framed)),
        Task::Ask(source, micros) => Box::pin(ask_lent(framed, source, micros)),
        Task::Echo => Box::pin(echo_lent(framed)),
    }
}

pub(crate) async fn send_all<T, F>(
    mut framed: Framed<T, BlockCodec<F>>,
    source: Blocks,
) -> anyhow::Result<u64>
where
    T: AsyncWrite + Unpin,
    F: Framing + Unpin,
{
    let sent = send_blocks(&mut framed, stream::iter(source)).await?;
    framed.close().await?;
    Ok(sent.blocks)
}

pub(crate) async fn receive_lent<T, F>(mut framed: Framed<T, BlockCodec<F>>) -> anyhow::Result<u64>
where
    T: AsyncRead + Unpin,
    F: Framing + Unpin,
{
    let mut blocks = recv_blocks(&mut framed);
    let mut seen = 0;
    while let Some(block) = blocks.next().await? {
        black_box(block);
        seen += 1;
    }
    Ok(seen)
}

pub(crate) async fn receive_batches<T, F>(
    mut framed: Framed<T, BlockCodec<F>>,
) -> anyhow::Result<u64>
where
    T: AsyncRead + Unpin,
    F: Framing + Unpin,
{
    let mut blocks = recv_blocks(&mut framed);
    let mut seen = 0;
    while let Some(batch) = blocks.next_batch().await? {
        seen += look(batch);
    }
    Ok(seen)
}

fn look<'b>(batch: impl Iterator<Item = &'b [u8]>) -> u64 {
    let mut seen = 0;
    for block in batch {
        black_box(block);
        seen += 1;
    }
    seen
}

/// Sends through the sink, and borrows each answer.
///
/// As a batch of one: `next` is inlined as long as one loop alone calls it, and that is to be
/// `receive_lent`, whose throughput is measured.
async fn ask_lent<T, F>(
    mut framed: Framed<T, BlockCodec<F>>,
    source: Blocks,
    micros: Sender<f64>,
) -> anyhow::Result<u64>
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Framing + Unpin,
{
    let mut trips = 0;
    for block in source {
        let started = Instant::now();
        framed.send(block).await?;
        let mut answers = recv_blocks(&mut framed);
        let batch = answers.next_batch().await?;
        trips += look(batch.context("the end instead of an answer")?);
        micros.send(micros_since(started))?;
    }
    framed.close().await?;
    Ok(trips)
}

async fn echo_lent<T, F>(mut framed: Framed<T, BlockCodec<F>>) -> anyhow::Result<u64>
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Framing + Unpin,
{
    let mut trips = 0;
    loop {
        let mut blocks = recv_blocks(&mut framed);
        let batch = blocks.next_batch().await?;
        let Some(block) = batch.and_then(|mut batch| batch.next()) else {
            return Ok(trips);
        };
        let block = Bytes::copy_from_slice(block);
        drop(blocks);
        framed.send(block).await?;
        trips += 1;
    }
}
