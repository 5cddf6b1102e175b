//! The ways to move blocks: one list for all benchmarks.
//!
//! To add a way, add a variant, its name, and its arm in `Contender::run_with`.

use std::{
    error::Error,
    fmt,
    hint::black_box,
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use futures::{Sink, SinkExt, Stream, StreamExt, future::BoxFuture, stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::Framed;
use wholeblock::{BlockCodec, BlockTransport, Exact, Framing, recv_blocks, send_blocks};

use super::{
    by_hand,
    load::{Blocks, Load},
    raw::{self, Writes},
};

/// The values of `--only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    Raw,
    /// Another way to write for [`Raw`](Self::Raw). The faster of the two is the limit.
    #[value(skip)]
    RawVectored,
    Tokio,
    /// Makes the writes of `Framed` and nothing else, so `Framed` cannot be faster.
    #[value(name = "tokio-8k")]
    Tokio8k,
    /// The loops of a program without a codec.
    ByHand,
    Ld,
    #[value(name = "ld-64k")]
    Ld64k,
    Framed,
    #[value(name = "framed-64k")]
    Framed64k,
    /// `send_blocks` and `recv_blocks` on a `Framed`.
    Helpers,
    Transport,
    /// `feed` as [`Transport`](Self::Transport), and `recv` as [`Recv`](Self::Recv).
    TransportRecv,
    /// As [`Transport`](Self::Transport) through `Sink` and `Stream`, which `Framed` has, too.
    TransportSink,
    /// As [`Transport`](Self::Transport), with all the timeouts that its documentation recommends.
    TransportTimeouts,
    Recv,
    RecvBatch,
}

impl Contender {
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw | Self::RawVectored => "raw limit",
            Self::Tokio => "tokio raw",
            Self::Tokio8k => "tokio raw, 8 KiB",
            Self::ByHand => "by hand, BufWriter and BufReader",
            Self::Ld => "LengthDelimitedCodec",
            Self::Ld64k => "LengthDelimitedCodec, 64 KiB",
            Self::Framed => "Framed",
            Self::Framed64k => "Framed, 64 KiB",
            Self::Helpers => "send_blocks, recv_blocks on Framed",
            Self::Transport => "BlockTransport",
            Self::TransportRecv => "BlockTransport, feed and recv",
            Self::TransportSink => "BlockTransport, Sink and Stream",
            Self::TransportTimeouts => "BlockTransport, timeouts",
            Self::Recv => "send_blocks, recv",
            Self::RecvBatch => "send_blocks, recv_batch",
        }
    }

    /// True if it needs blocking sockets. All others get tokio's.
    pub fn is_blocking(self) -> bool {
        matches!(self, Self::Raw | Self::RawVectored)
    }

    /// Returns the future that does `task` at one end of a connection. Fails if `load` is invalid.
    pub fn run(self, task: Task, io: impl Io, load: Load) -> anyhow::Result<Running> {
        Ok(match load.prefixed {
            true => self.run_with(task, io, load, load.length_prefix()?),
            false => self.run_with(task, io, load, Exact::new(load.size)?),
        })
    }

    fn run_with(self, task: Task, io: impl Io, load: Load, framing: impl Form) -> Running {
        let codec = BlockCodec::new(framing);
        match self {
            Self::Raw => raw::run(task, io, load, Writes::FILLED),
            Self::RawVectored => raw::run(task, io, load, Writes::Vectored),
            Self::Tokio => raw::run(task, io, load, Writes::for_size(load.size)),
            Self::Tokio8k => raw::run(task, io, load, Writes::as_framed(&load)),
            Self::ByHand => by_hand::run(task, io, load),
            Self::Ld => sink_stream(task, Framed::new(io, load.length_delimited())),
            Self::Ld64k => sink_stream(task, framed_64k(io, load.length_delimited())),
            Self::Framed => sink_stream(task, Framed::new(io, codec)),
            Self::Framed64k => sink_stream(task, framed_64k(io, codec)),
            Self::Helpers => helpers(task, Framed::new(io, codec)),
            Self::Transport => owned(task, transport(io, codec, &load)),
            Self::TransportRecv => fed_and_lent(task, transport(io, codec, &load)),
            Self::TransportSink => sink_stream(task, transport(io, codec, &load)),
            Self::TransportTimeouts => owned(task, with_timeouts(transport(io, codec, &load))),
            Self::Recv => lent(task, transport(io, codec, &load), false),
            Self::RecvBatch => lent(task, transport(io, codec, &load), true),
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn transport<T: Io, F: Form>(io: T, codec: BlockCodec<F>, load: &Load) -> BlockTransport<T, F> {
    let transport = BlockTransport::new(io, codec);
    match load.write_len {
        Some(bytes) => transport.write_len(bytes),
        None => transport,
    }
}

/// Returns a `Framed` that writes 64 KiB at a time instead of 8.
pub fn framed_64k<T: Io, C>(io: T, codec: C) -> Framed<T, C> {
    let mut framed = Framed::new(io, codec);
    framed.set_backpressure_boundary(64 * 1024);
    framed
}

/// The same with all the timeouts that its documentation recommends.
pub fn with_timeouts<T: Io, F: Form>(transport: BlockTransport<T, F>) -> BlockTransport<T, F> {
    transport
        .stall_timeout(Duration::from_secs(60))
        .block_deadline(Duration::from_secs(10))
        .write_timeout(Duration::from_secs(60))
}

/// What one end of a connection does.
#[derive(Debug)]
pub enum Task {
    /// Sends these blocks, and then the end.
    Send(Blocks),
    /// Receives blocks up to the end.
    Receive,
    /// Sends these blocks one by one, and awaits the answer to each. Sends the microseconds of each round
    /// trip to the channel.
    Ask(Blocks, Sender<f64>),
    /// Sends each block that it receives back.
    Echo,
}

/// The number of blocks that an end has moved.
pub type Moved = anyhow::Result<u64>;

/// The future of an end.
///
/// Each is boxed by itself, so that a task is no larger than its contender needs: `connections` measures that.
pub type Running = BoxFuture<'static, Moved>;

/// A transport that the loops run over.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// The framings of this crate that are measured.
pub trait Form: Framing + Send + Unpin + 'static {}

impl<F: Framing + Send + Unpin + 'static> Form for F {}

/// A sink and a stream of blocks, with any codec.
pub trait Peer<E>:
    Sink<Bytes, Error = E> + Stream<Item = Result<BytesMut, E>> + Unpin + Send + 'static
{
}

impl<P, E> Peer<E> for P where
    P: Sink<Bytes, Error = E> + Stream<Item = Result<BytesMut, E>> + Unpin + Send + 'static
{
}

/// The error of a [`Peer`].
pub trait Failure: Error + Send + Sync + 'static {}

impl<E: Error + Send + Sync + 'static> Failure for E {}

/// All codecs go through the same loops, so that only the codec differs.
fn sink_stream<E: Failure>(task: Task, peer: impl Peer<E>) -> Running {
    match task {
        Task::Send(source) => Box::pin(feed(peer, source)),
        Task::Receive => Box::pin(receive(peer)),
        Task::Ask(source, micros) => Box::pin(ask(peer, source, micros)),
        Task::Echo => Box::pin(echo(peer)),
    }
}

pub async fn feed<E: Failure>(
    mut sink: impl Sink<Bytes, Error = E> + Unpin,
    source: Blocks,
) -> Moved {
    let mut sent = 0;
    for block in source {
        sink.feed(block).await?;
        sent += 1;
    }
    sink.close().await?;
    Ok(sent)
}

pub async fn receive<E: Failure>(mut peer: impl Peer<E>) -> Moved {
    let mut seen = 0;
    while let Some(block) = peer.next().await {
        black_box(&block?[..]);
        seen += 1;
    }
    Ok(seen)
}

async fn ask<E: Failure>(mut peer: impl Peer<E>, source: Blocks, micros: Sender<f64>) -> Moved {
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

async fn echo<E: Failure>(mut peer: impl Peer<E>) -> Moved {
    let mut trips = 0;
    while let Some(block) = peer.next().await {
        peer.send(block?.freeze()).await?;
        trips += 1;
    }
    Ok(trips)
}

pub fn micros_since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e6
}

/// The transport whose blocks are lent.
type Ours<T, F> = BlockTransport<T, F>;

/// The transport's own `feed` and `next`.
fn owned<F: Form>(task: Task, transport: Ours<impl Io, F>) -> Running {
    match task {
        Task::Send(source) => Box::pin(feed_own(transport, source)),
        Task::Receive => Box::pin(receive_own(transport)),
        task => sink_stream(task, transport),
    }
}

pub async fn feed_own<F: Form>(mut transport: Ours<impl Io, F>, source: Blocks) -> Moved {
    let mut sent = 0;
    for block in source {
        transport.feed(block).await?;
        sent += 1;
    }
    transport.close().await?;
    Ok(sent)
}

pub async fn receive_own<F: Form>(mut transport: Ours<impl Io, F>) -> Moved {
    let mut seen = 0;
    while let Some(block) = transport.next().await {
        black_box(&block?[..]);
        seen += 1;
    }
    Ok(seen)
}

/// `send_blocks`, and blocks lent by the transport, one by one or in batches. Round trips go through the sink
/// and the stream, because the compiler would not inline `recv` into the measured loop if it had a second
/// caller.
fn lent<F: Form>(task: Task, transport: Ours<impl Io, F>, batches: bool) -> Running {
    match task {
        Task::Send(source) => Box::pin(send_all(transport, source)),
        Task::Receive if batches => Box::pin(receive_batches(transport)),
        Task::Receive => Box::pin(receive_lent(transport)),
        task => sink_stream(task, transport),
    }
}

/// The same receiver, and `feed` instead of `send_blocks`.
fn fed_and_lent<F: Form>(task: Task, transport: Ours<impl Io, F>) -> Running {
    match task {
        Task::Send(source) => Box::pin(feed_own(transport, source)),
        task => lent(task, transport, false),
    }
}

/// `send_blocks` and `recv_blocks` on a `Framed`.
fn helpers<F: Form>(task: Task, mut framed: Framed<impl Io, BlockCodec<F>>) -> Running {
    match task {
        Task::Send(source) => Box::pin(async move {
            let sent = send_blocks(&mut framed, stream::iter(source)).await?;
            framed.close().await?;
            Ok(sent.blocks)
        }),
        Task::Receive => Box::pin(receive_counted(framed)),
        task => sink_stream(task, framed),
    }
}

pub async fn receive_counted<F: Form>(mut framed: Framed<impl Io, BlockCodec<F>>) -> Moved {
    let mut blocks = recv_blocks(&mut framed);
    let mut seen = 0;
    while let Some(block) = blocks.next().await? {
        black_box(block);
        seen += 1;
    }
    Ok(seen)
}

pub async fn send_all<F: Form>(mut transport: Ours<impl Io, F>, source: Blocks) -> Moved {
    let sent = send_blocks(&mut transport, stream::iter(source)).await?;
    transport.close().await?;
    Ok(sent.blocks)
}

pub async fn receive_lent<F: Form>(mut transport: Ours<impl Io, F>) -> Moved {
    let mut seen = 0;
    while let Some(block) = transport.recv().await? {
        black_box(block);
        seen += 1;
    }
    Ok(seen)
}

pub async fn receive_batches<F: Form>(mut transport: Ours<impl Io, F>) -> Moved {
    let mut seen = 0;
    while let Some(batch) = transport.recv_batch().await? {
        seen += look(batch);
    }
    Ok(seen)
}

/// A function of its own, because within `receive_batches` the compiler writes the count to memory for each
/// block.
fn look<'b>(batch: impl Iterator<Item = &'b [u8]>) -> u64 {
    let mut seen = 0;
    for block in batch {
        black_box(block);
        seen += 1;
    }
    seen
}
