//! The share of their rate that honest connections keep while other connections flood the server with empty
//! blocks.
//!
//! ```text
//! cargo bench -p benches --bench floods
//! cargo bench -p benches --bench floods -- --honest 50 --floods 8 --rounds 15
//! ```
//!
//! A server of one thread sends each block back to its sender. The honest clients send a block of 64 bytes
//! and wait for the answer, again and again. The others send headers of empty blocks without end, and read
//! everything that comes back. All clients share a second thread, or the server's with `--threads 1`.
//!
//! `BlockTransport` has the timeouts and limits that SECURITY.md recommends. Contenders take turns,
//! another one first in each round, after a round to warm up. The table shows the median of the
//! answers a second that all honest clients get alone and beside the floods, and the median, lowest
//! and highest share that they keep within a round.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use clap::Parser;
use futures::{SinkExt, StreamExt, TryStreamExt};
use support::{
    contenders::{Contender, Failure, Peer},
    run::{self, Schedule},
    stats::{self, Table, decimals},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::oneshot,
    time::sleep,
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use wholeblock::{BlockCodec, BlockTransport, LengthPrefix};

const SIZE: usize = 64;

/// The longest block that any end accepts.
const LONGEST: usize = 64 * 1024;

/// `cargo bench -p benches --bench floods -- [OPTIONS]`
#[derive(Debug, Parser)]
#[command(about = "The rate that honest connections keep beside floods of empty blocks")]
struct Args {
    /// Connections with a request in flight each.
    #[arg(long, default_value = "50", value_parser = run::parse_count)]
    honest: usize,
    /// Connections that flood.
    #[arg(long, default_value = "8", value_parser = run::parse_count)]
    floods: usize,
    /// How often each contender has its turn.
    #[arg(long, default_value = "9", value_parser = run::parse_count)]
    rounds: usize,
    /// Milliseconds of each measurement; there are two in a turn.
    #[arg(long, default_value = "200", value_parser = run::parse_count)]
    millis: usize,
    /// Threads: 2, or 1 for clients and server together.
    #[arg(long, default_value = "2", value_parser = run::parse_count)]
    threads: usize,
    /// The contenders: ld, framed, transport.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "ld,framed,transport"
    )]
    only: Vec<Contender>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    if !run::is_bench("floods") {
        return Ok(());
    }
    let args = Args::parse();
    let schedule = Schedule::new(args.only.clone(), args.rounds, 1);
    let rounds = schedule.measure("floods", |contender| {
        let rate = |floods| answers_a_second(contender, &args, floods);
        Ok((rate(0)?, rate(args.floods)?))
    })?;
    let (honest, floods) = (args.honest, args.floods);
    println!("{honest} honest connections, {floods} that flood\n");
    let mut table = Table::new(
        1,
        &["server", "alone /s", "beside floods /s", "kept", "min-max"],
    );
    for (contender, rates) in rounds {
        let (alone, beside): (Vec<f64>, Vec<f64>) = rates.into_iter().unzip();
        let kept = stats::ratios(&beside, &alone);
        let rate = |rates: &[f64]| stats::grouped(stats::median(rates).round() as usize);
        let [least, median, most] =
            [0.0, 0.5, 1.0].map(|share| decimals(stats::quantile(&kept, share), 2));
        table.row(vec![
            contender.name().to_owned(),
            rate(&alone),
            rate(&beside),
            median,
            format!("{least}-{most}"),
        ]);
    }
    println!("{}", table.render(false));
    Ok(())
}

/// Returns the answers a second that the honest clients get beside `floods` floods.
fn answers_a_second(contender: Contender, args: &Args, floods: usize) -> anyhow::Result<f64> {
    let connections = args.honest + floods;
    let clients = runtime()?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    if args.threads == 1 {
        return clients.block_on(async {
            let server = tokio::spawn(serve_all(contender, listener, connections));
            let rate = measure(address, args, floods).await;
            server.await??;
            rate
        });
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let server = runtime()?;
    let server = thread::spawn(move || {
        server.block_on(async {
            serve_all(contender, listener, connections).await?;
            let _ = stopped.await; // ready when the clients are done or have failed
            anyhow::Ok(())
        })
    });
    let rate = clients.block_on(measure(address, args, floods));
    drop(clients);
    drop(stop);
    let served = server.join().ok().context("the server panicked")?;
    served.and(rate)
}

/// Accepts `connections` connections, and serves each in a task.
async fn serve_all(
    contender: Contender,
    listener: std::net::TcpListener,
    connections: usize,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    for _ in 0..connections {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        serve(contender, socket)?;
    }
    Ok(())
}

/// Runs the clients, and returns the answers a second of the honest ones.
async fn measure(address: SocketAddr, args: &Args, floods: usize) -> anyhow::Result<f64> {
    for _ in 0..floods {
        tokio::spawn(flood(TcpStream::connect(address).await?));
    }
    let answers = Arc::new(AtomicU64::new(0));
    for _ in 0..args.honest {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        tokio::spawn(ask(socket, Arc::clone(&answers)));
    }
    // A quarter of the time to warm up. Then the measurement begins.
    let time = Duration::from_millis(args.millis as u64);
    sleep(time / 4).await;
    let (before, begun) = (answers.load(Relaxed), Instant::now());
    sleep(time).await;
    let answers = answers.load(Relaxed) - before;
    ensure!(answers > 0, "no answer in {time:?}");
    Ok(answers as f64 / begun.elapsed().as_secs_f64())
}

fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn serve(contender: Contender, socket: TcpStream) -> anyhow::Result<()> {
    let framing = LengthPrefix::u32().max_block_len(LONGEST)?;
    let codec = BlockCodec::new(framing).with_max_retained(LONGEST);
    match contender {
        Contender::Ld => {
            let codec = LengthDelimitedCodec::builder()
                .max_frame_length(LONGEST)
                .new_codec();
            drop(tokio::spawn(echo(Framed::new(socket, codec))));
        }
        Contender::Framed => drop(tokio::spawn(echo(Framed::new(socket, codec)))),
        Contender::Transport => {
            let transport = BlockTransport::new(socket, codec)
                .stall_timeout(Duration::from_secs(60))
                .block_deadline(Duration::from_secs(30));
            drop(tokio::spawn(echo(transport)));
        }
        other => bail!("{} is none of ld, framed, transport", other.name()),
    }
    Ok(())
}

async fn echo<E: Failure>(peer: impl Peer<E>) {
    let (sink, blocks) = peer.split();
    // Ends when the client is gone.
    let _ = blocks.map_ok(BytesMut::freeze).forward(sink).await;
}

async fn ask(socket: TcpStream, answers: Arc<AtomicU64>) {
    let mut peer = Framed::new(socket, LengthDelimitedCodec::new());
    let block = Bytes::from(vec![7; SIZE]);
    while peer.send(block.clone()).await.is_ok() {
        match peer.next().await {
            Some(Ok(answer)) if answer.len() == SIZE => answers.fetch_add(1, Relaxed),
            _ => return,
        };
    }
}

/// Sends empty blocks without end, and drops what comes back.
async fn flood(socket: TcpStream) {
    let (mut from, mut to) = socket.into_split();
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while from.read(&mut buffer).await.is_ok_and(|len| len > 0) {}
    });
    let headers = vec![0; 64 * 1024];
    while to.write_all(&headers).await.is_ok() {}
}
