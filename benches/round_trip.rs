//! One 64-byte block there and back over 127.0.0.1, with `TCP_NODELAY`.
//!
//! ```text
//! cargo bench --bench round_trip
//! cargo bench --bench round_trip -- --rounds 21 --trips 20000
//! ```
//!
//! Both ends have a thread and a current-thread runtime each; every contender keeps its connection,
//! and they take turns, another one first in each round. Prints for each the median over the rounds
//! of the round's p50 and p99 in microseconds, and of their ratios to `LengthDelimitedCodec`'s in
//! the same round: below 1 is faster.

use std::{fmt::Debug, hint::black_box, net, thread, time::Instant};

use bytes::{Bytes, BytesMut};
use clap::Parser;
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
};
use tokio_util::codec::{Decoder, Encoder, FramedRead, FramedWrite, LengthDelimitedCodec};
use wholeblock::{BlockCodec, recv_blocks};

use crate::support::stats::{self, Table};

#[allow(dead_code, reason = "each benchmark uses a part of what they share")]
mod support;

const SIZE: usize = 64;

/// `cargo bench --bench round_trip -- [OPTIONS]`
#[derive(Debug, Parser)]
#[command(about = "One 64-byte block there and back over 127.0.0.1")]
struct Args {
    /// How often each contender has its turn.
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Round trips in one turn.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
    trips: u64,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How blocks travel, at both ends.
#[derive(Clone, Copy, Debug)]
enum Contender {
    Raw,
    LengthDelimited,
    SinkStream,
    Lent,
}

/// In the order they are numbered by `as usize`.
const CONTENDERS: [Contender; 4] = [
    Contender::Raw,
    Contender::LengthDelimited,
    Contender::SinkStream,
    Contender::Lent,
];

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Raw => "tokio raw",
            Self::LengthDelimited => "LengthDelimitedCodec",
            Self::SinkStream => "wholeblock, Sink/Stream",
            Self::Lent => "wholeblock, Sink/recv_blocks",
        }
    }
}

fn main() -> anyhow::Result<()> {
    if !support::run::is_bench("round_trip") {
        return Ok(());
    }
    let args = Args::parse();
    let progress = support::run::progress(args.rounds * CONTENDERS.len() as u64);

    let mut p50 = vec![Vec::new(); CONTENDERS.len()];
    let mut p99 = vec![Vec::new(); CONTENDERS.len()];
    for round in 0..args.rounds as usize {
        for turn in 0..CONTENDERS.len() {
            let index = (turn + round) % CONTENDERS.len();
            let contender = CONTENDERS[index];
            progress.set_message(contender.name());
            let micros = measure(contender, args.trips)?;
            p50[index].push(stats::quantile(&micros, 0.5));
            p99[index].push(stats::quantile(&micros, 0.99));
            progress.inc(1);
        }
    }
    progress.finish_and_clear();

    println!(
        "{SIZE}-byte block there and back, medians of {} rounds of {} trips\n",
        args.rounds,
        stats::grouped(args.trips as usize)
    );
    let heading = ["contender", "p50 µs", "p99 µs", "p50 ratio", "p99 ratio"];
    let mut table = Table::new(1, &heading);
    let peer = Contender::LengthDelimited as usize;
    for (index, contender) in CONTENDERS.iter().enumerate() {
        table.row(vec![
            contender.name().to_owned(),
            format!("{:.1}", stats::median(&p50[index])),
            format!("{:.1}", stats::median(&p99[index])),
            format!("{:.3}", stats::median_ratio(&p50[index], &p50[peer])),
            format!("{:.3}", stats::median_ratio(&p99[index], &p99[peer])),
        ]);
    }
    print!("{}", table.render(false));
    println!("\nratios are to LengthDelimitedCodec in the same round; below 1 is faster");
    Ok(())
}

/// How long each of `trips` took, in microseconds.
fn measure(contender: Contender, trips: u64) -> anyhow::Result<Vec<f64>> {
    let listener = net::TcpListener::bind(("127.0.0.1", 0))?;
    let near = net::TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            runtime()?.block_on(async {
                let socket = tokio_socket(far)?;
                match contender {
                    Contender::Raw => echo_raw(socket).await,
                    Contender::LengthDelimited => echo(socket, LengthDelimitedCodec::new()).await,
                    Contender::SinkStream => echo(socket, BlockCodec::length_prefixed()).await,
                    Contender::Lent => echo_lent(socket).await,
                }
            })
        });
        let micros = runtime()?.block_on(async {
            let socket = tokio_socket(near)?;
            match contender {
                Contender::Raw => ask_raw(socket, trips).await,
                Contender::LengthDelimited => ask(socket, LengthDelimitedCodec::new(), trips).await,
                Contender::SinkStream => ask(socket, BlockCodec::length_prefixed(), trips).await,
                Contender::Lent => ask_lent(socket, trips).await,
            }
        });
        echo.join().expect("an echo that does not panic")?;
        micros
    })
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn tokio_socket(socket: net::TcpStream) -> std::io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    TcpStream::from_std(socket)
}

fn micros_since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e6
}

async fn ask_raw(mut socket: TcpStream, trips: u64) -> anyhow::Result<Vec<f64>> {
    let wire = support::wire(SIZE, true);
    let mut answer = vec![0; wire.len()];
    let mut micros = Vec::with_capacity(trips as usize);
    for _ in 0..trips {
        let started = Instant::now();
        socket.write_all(&wire).await?;
        socket.read_exact(&mut answer).await?;
        black_box(&answer[4..]);
        micros.push(micros_since(started));
    }
    Ok(micros)
}

async fn echo_raw(mut socket: TcpStream) -> anyhow::Result<()> {
    let mut block = vec![0; 4 + SIZE];
    loop {
        // The asking end stops between blocks, and this is how `read_exact` says so.
        match socket.read_exact(&mut block).await {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        };
        socket.write_all(&block).await?;
    }
}

async fn ask<C>(socket: TcpStream, codec: C, trips: u64) -> anyhow::Result<Vec<f64>>
where
    C: Encoder<Bytes, Error: Debug> + Decoder<Item = BytesMut, Error: Debug>,
{
    let payload = support::payload(SIZE);
    let mut framed = codec.framed(socket);
    let mut micros = Vec::with_capacity(trips as usize);
    for _ in 0..trips {
        let started = Instant::now();
        framed
            .send(Bytes::from_static(payload))
            .await
            .expect("to send");
        let answer = framed.next().await.expect("an answer").expect("a block");
        black_box(&answer[..]);
        micros.push(micros_since(started));
    }
    Ok(micros)
}

async fn echo<C>(socket: TcpStream, codec: C) -> anyhow::Result<()>
where
    C: Encoder<Bytes, Error: Debug> + Decoder<Item = BytesMut, Error: Debug>,
{
    let mut framed = codec.framed(socket);
    while let Some(block) = framed.next().await {
        let block = block.expect("a block").freeze();
        framed.send(block).await.expect("to send");
    }
    Ok(())
}

async fn ask_lent(mut socket: TcpStream, trips: u64) -> anyhow::Result<Vec<f64>> {
    let payload = support::payload(SIZE);
    let (read, write) = socket.split();
    let mut sink = FramedWrite::new(write, BlockCodec::length_prefixed());
    let mut framed = FramedRead::new(read, BlockCodec::length_prefixed());
    let mut blocks = recv_blocks(&mut framed);
    let mut micros = Vec::with_capacity(trips as usize);
    for _ in 0..trips {
        let started = Instant::now();
        sink.send(Bytes::from_static(payload)).await?;
        black_box(blocks.next().await?.expect("an answer"));
        micros.push(micros_since(started));
    }
    Ok(micros)
}

async fn echo_lent(mut socket: TcpStream) -> anyhow::Result<()> {
    let (read, write) = socket.split();
    let mut sink = FramedWrite::new(write, BlockCodec::length_prefixed());
    let mut framed = FramedRead::new(read, BlockCodec::length_prefixed());
    let mut blocks = recv_blocks(&mut framed);
    while let Some(block) = blocks.next().await? {
        sink.send(Bytes::copy_from_slice(block)).await?;
    }
    Ok(())
}
