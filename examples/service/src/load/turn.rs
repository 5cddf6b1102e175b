//! One side's turn: its service, and clients that keep it busy.

use std::{error::Error, io, pin::pin, time::Duration};

use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use futures::{Sink, Stream, StreamExt};
use hdrhistogram::Histogram;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::{
    codec::{Framed, FramedRead, FramedWrite, LengthDelimitedCodec},
    sync::CancellationToken,
    task::TaskTracker,
};
use wholeblock::BlockTransport;

use super::LoadArgs;
use crate::{
    connection::{self, Limits, MAX_REQUEST, codec, in_order, until_error},
    over::{BoxIo, Listener, Over, Target},
    requests::{DONE, service},
};

/// The defaults of `serve`. `LengthDelimitedCodec` has no stall timeout and no block deadline.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const BLOCK_DEADLINE: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub(super) enum Contender {
    Wholeblock,
    LengthDelimitedCodec,
    LengthDelimitedTimeout,
}

impl Contender {
    pub(super) const ALL: [Self; 3] = [
        Self::Wholeblock,
        Self::LengthDelimitedCodec,
        Self::LengthDelimitedTimeout,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Wholeblock => "wholeblock",
            Self::LengthDelimitedCodec => "LengthDelimitedCodec",
            Self::LengthDelimitedTimeout => "LengthDelimitedCodec, timeout",
        }
    }
}

pub(super) struct Turn {
    pub(super) took: Duration,
    /// Nanoseconds from the moment a request was due to the arrival of its answer.
    pub(super) latencies: Histogram<u64>,
}

pub(super) async fn turn(
    contender: Contender,
    args: &LoadArgs,
    payload: usize,
) -> anyhow::Result<Turn> {
    let pipelined = args.pipelined as usize;
    let mut services = JoinSet::new();
    let mut clients = Vec::new();
    for (client, server) in connect(args).await? {
        clients.push(client);
        match contender {
            Contender::Wholeblock => services.spawn(serve_wholeblock(server, pipelined)),
            Contender::LengthDelimitedCodec => {
                services.spawn(serve_length_delimited(server, pipelined, None))
            }
            Contender::LengthDelimitedTimeout => {
                let timeout = Some(STALL_TIMEOUT);
                services.spawn(serve_length_delimited(server, pipelined, timeout))
            }
        };
    }

    let started = Instant::now();
    let until = started + args.turn;
    let mut driving = JoinSet::new();
    for io in clients {
        match contender {
            Contender::Wholeblock => {
                let transport = BlockTransport::new(io, codec());
                driving.spawn(drive(transport, payload, pipelined, until));
            }
            Contender::LengthDelimitedCodec | Contender::LengthDelimitedTimeout => {
                let transport = Framed::new(io, length_delimited());
                driving.spawn(drive(transport, payload, pipelined, until));
            }
        }
    }
    let mut latencies = Histogram::new(3)?;
    while let Some(driven) = driving.join_next().await {
        latencies.add(driven??)?;
    }
    let took = started.elapsed();
    while let Some(served) = services.join_next().await {
        served??;
    }
    Ok(Turn { took, latencies })
}

/// Opens `args.connections` connections, and returns both ends of each.
async fn connect(args: &LoadArgs) -> anyhow::Result<Vec<(BoxIo, BoxIo)>> {
    let folder = tempfile::tempdir()?;
    let address = match args.over {
        Over::Local if cfg!(windows) => format!(r"\\.\pipe\wholeblock-load-{}", std::process::id()),
        Over::Local => folder.path().join("load.sock").display().to_string(),
        _ => "127.0.0.1:0".to_owned(),
    };
    let mut listener = Listener::bind(args.over, &address).await?;
    let target = Target {
        over: args.over,
        address: listener.address()?,
        certificate: listener.security().certificate().map(str::to_owned),
    };
    let mut connections = Vec::new();
    for _ in 0..args.connections {
        let accepting = async {
            let (io, _) = listener.accept().await?;
            Ok(listener.security().handshake(io).await?)
        };
        connections.push(tokio::try_join!(target.connect(), accepting)?);
    }
    Ok(connections)
}

async fn serve_wholeblock(io: BoxIo, pipelined: usize) -> anyhow::Result<()> {
    let limits = Limits {
        pipelined,
        stall_timeout: STALL_TIMEOUT,
        block_deadline: BLOCK_DEADLINE,
    };
    let never = CancellationToken::new();
    let served = connection::serve(io, service(REQUEST_TIMEOUT), limits, &never).await;
    Ok(served.end?)
}

/// The same service and adapter, and a token to stop it as well, so that only the framing differs.
async fn serve_length_delimited(
    io: BoxIo,
    pipelined: usize,
    timeout: Option<Duration>,
) -> anyhow::Result<()> {
    let (read, write) = tokio::io::split(io);
    let requests = FramedRead::new(read, length_delimited());
    let requests = match timeout {
        None => requests.left_stream(),
        Some(timeout) => {
            let timed = tokio_stream::StreamExt::timeout(requests, timeout);
            let timed = timed.map(|request| request.unwrap_or_else(|late| Err(late.into())));
            timed.right_stream()
        }
    };
    let never = CancellationToken::new();
    let requests = pin!(requests.take_until(never.cancelled()));
    let answers = FramedWrite::new(write, length_delimited());
    let mut end = Ok(());
    let begun = until_error(requests, &mut end);
    let in_flight = TaskTracker::new();
    in_order(begun, service(REQUEST_TIMEOUT), pipelined, &in_flight)
        .map(Ok::<_, io::Error>)
        .forward(answers)
        .await?;
    Ok(end?)
}

fn length_delimited() -> LengthDelimitedCodec {
    let mut builder = LengthDelimitedCodec::builder();
    builder.max_frame_length(MAX_REQUEST).new_codec()
}

/// Keeps `pipelined` requests in flight until `until`, and checks each answer.
async fn drive<T, E>(
    transport: T,
    payload: usize,
    pipelined: usize,
    until: Instant,
) -> anyhow::Result<Histogram<u64>>
where
    T: Sink<Bytes, Error = E> + Stream<Item = Result<BytesMut, E>>,
    E: Error + Send + Sync + 'static,
{
    let text = vec![b'x'; payload];
    let request = Bytes::from([b"echo ", &text[..]].concat());
    let expected = [&[DONE], &text[..]].concat();

    let (sink, mut answers) = transport.split();
    let (free, freed) = mpsc::unbounded_channel();
    let (began, mut begun) = mpsc::unbounded_channel();
    for _ in 0..pipelined {
        free.send(())?;
    }
    // Flushes whenever nothing is free; ends when `free` is dropped.
    let sending = UnboundedReceiverStream::new(freed)
        .map(move |()| {
            // This fails only if receiving has failed.
            let _ = began.send(Instant::now());
            Ok(request.clone())
        })
        .forward(sink);
    let receiving = async {
        let mut free = Some(free);
        let mut latencies = Histogram::new(3)?;
        while let Some(began) = begun.recv().await {
            let answer = answers.next().await.context("the service ended")??;
            ensure!(answer == expected, "not the answer to the request");
            latencies.record(began.elapsed().as_nanos() as u64)?;
            match &free {
                Some(free) if Instant::now() < until => free.send(())?,
                _ => free = None,
            }
        }
        Ok(latencies)
    };
    let sending = async { sending.await.context("cannot send") };
    let ((), latencies) = tokio::try_join!(sending, receiving)?;
    Ok(latencies)
}
