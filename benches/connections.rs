//! Many connections over 127.0.0.1 on one runtime of two workers: throughput, and memory.
//!
//! ```text
//! cargo bench --bench connections
//! cargo bench --bench connections -- --counts 1,10,100,1000,10000 --rounds 9
//! ```
//!
//! Prints three tables, each beside `LengthDelimitedCodec`:
//!
//! 1. Throughput of 1 KiB blocks one way, all connections together: a fixed number of bytes,
//!    whatever their number, from the word to start until the last receiver has seen its end.
//!    Contenders take turns, another one first in each round; medians over the rounds, and the
//!    median ratio to `LengthDelimitedCodec`'s in the same round.
//! 2. Memory of one idle connection's receiving end, its task included and its socket not: heap and
//!    resident bytes, when it has been polled once and nothing has come, and when it has received
//!    256 blocks of 1 KiB and waits again.
//! 3. Memory after what a peer should not do or does seldom: heap bytes that a connection takes
//!    beyond what it had when idle, with 1,000 peers that each announce 8 MiB and then say nothing;
//!    and what is retained after one block of 16 MiB.
//!
//! Every figure of memory comes from a process of its own. The allocator that counts is in place
//! for the throughput too, the same for all. A number of connections for which the process may not
//! open enough files is left out, and named.

use std::{
    alloc::System,
    env,
    fmt::Debug,
    hint::black_box,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use clap::{Parser, ValueEnum};
use futures::{SinkExt, StreamExt, stream};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
    time::sleep,
};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};
use wholeblock::{BlockCodec, LengthPrefix, recv_blocks, send_blocks};

use crate::support::{
    stats::{self, Table},
    system,
};

#[allow(dead_code, reason = "each benchmark uses a part of what they share")]
mod support;

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SIZE: usize = 1024;

/// Blocks that a connection has received before it is called idle again: enough to have grown
/// whatever buffer grows.
const TRAFFIC: usize = 256;

/// What a hostile peer announces: as much as either codec allows unless told otherwise.
const ANNOUNCED: usize = 8 << 20;

/// One block that is larger than any before or after it.
const LARGE: usize = 16 << 20;

/// Descriptors that a process has open beside its connections, with room to spare.
const OTHER_FILES: u64 = 64;

/// `cargo bench --bench connections -- [OPTIONS]`
#[derive(Debug, Parser)]
#[command(about = "Many connections over 127.0.0.1: throughput, and memory")]
struct Args {
    /// Numbers of connections.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000,10000", value_parser = parse_count)]
    counts: Vec<usize>,
    /// How often each contender has its turn with each number of connections.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Payload bytes of a measurement in MiB, all connections together.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..))]
    mib: u64,
    /// What the benchmark asks of itself, in a process of its own.
    #[arg(long, hide = true, value_enum, requires = "contender")]
    memory: Option<Memory>,
    #[arg(long, hide = true, value_enum)]
    contender: Option<Contender>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..) => Ok(count),
        _ => Err("not a number of connections".to_owned()),
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Contender {
    LengthDelimited,
    SinkStream,
    Lent,
}

/// In the order they are numbered by `as usize`.
const CONTENDERS: [Contender; 3] = [
    Contender::LengthDelimited,
    Contender::SinkStream,
    Contender::Lent,
];

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::LengthDelimited => "LengthDelimitedCodec",
            Self::SinkStream => "wholeblock, Sink/Stream",
            Self::Lent => "wholeblock, send_blocks/recv_blocks",
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Memory {
    Idle,
    Hostile,
    Large,
}

impl Memory {
    fn connections(self) -> usize {
        match self {
            Self::Idle | Self::Hostile => 1_000,
            // One at a time is what is asked about; a few make an average.
            Self::Large => 4,
        }
    }
}

fn main() -> anyhow::Result<()> {
    if !support::run::is_bench("connections") {
        return Ok(());
    }
    let args = Args::parse();
    if let Some((memory, contender)) = args.memory.zip(args.contender) {
        let (first, second) = runtime()?.block_on(measure_memory(memory, contender))?;
        println!("{first} {second}");
        return Ok(());
    }
    throughput(&args)?;
    idle_memory()?;
    unusual_memory()
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

/// Whether `connections` may be open at once; says so if they may not.
fn fits(connections: usize) -> bool {
    // Both ends of each are in this process.
    let needed = 2 * connections as u64 + OTHER_FILES;
    match system::file_limit() {
        Some(limit) if limit < needed => {
            println!(
                "{} connections left out: they need {} files, and this process may open {}",
                stats::grouped(connections),
                stats::grouped(needed as usize),
                stats::grouped(limit as usize),
            );
            false
        }
        _ => true,
    }
}

fn throughput(args: &Args) -> anyhow::Result<()> {
    let counts: Vec<_> = args.counts.iter().copied().filter(|&n| fits(n)).collect();
    let steps = args.rounds * (counts.len() * CONTENDERS.len()) as u64;
    let progress = support::run::progress(steps);
    let heading = [
        "connections",
        "contender",
        "GB/s",
        "over LengthDelimitedCodec",
        "of its own at the fewest",
    ];
    let mut table = Table::new(2, &heading);
    let mut at_fewest: Option<Vec<f64>> = None;
    for count in counts {
        let blocks = ((args.mib << 20) / (SIZE * count) as u64).max(1);
        let bytes = (blocks * (SIZE * count) as u64) as f64;
        let mut rates = vec![Vec::new(); CONTENDERS.len()];
        for round in 0..args.rounds as usize {
            for turn in 0..CONTENDERS.len() {
                let index = (turn + round) % CONTENDERS.len();
                let contender = CONTENDERS[index];
                progress.set_message(format!("{count} {}", contender.name()));
                let took = runtime()?.block_on(measure_throughput(contender, count, blocks))?;
                rates[index].push(bytes / 1e9 / took.as_secs_f64());
                progress.inc(1);
            }
        }
        let medians: Vec<_> = rates.iter().map(|rates| stats::median(rates)).collect();
        let fewest = at_fewest.get_or_insert_with(|| medians.clone());
        let peer = &rates[Contender::LengthDelimited as usize];
        for (index, contender) in CONTENDERS.iter().enumerate() {
            table.row(vec![
                stats::grouped(count),
                contender.name().to_owned(),
                format!("{:.2}", medians[index]),
                format!("{:.2}", stats::median_ratio(&rates[index], peer)),
                format!("{:.2}", medians[index] / fewest[index]),
            ]);
        }
    }
    progress.finish_and_clear();
    println!(
        "{} blocks one way, {} MiB altogether, medians of {} rounds\n",
        stats::bytes(SIZE),
        args.mib,
        args.rounds
    );
    println!("{}", table.render(false));
    Ok(())
}

/// Connections to one listener: the near ends and the far ends.
async fn connect(count: usize) -> anyhow::Result<Vec<(TcpStream, TcpStream)>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let mut pairs = Vec::with_capacity(count);
    for index in 0..count {
        let (near, far) = tokio::try_join!(TcpStream::connect(address), listener.accept())
            .with_context(|| format!("connection {index}"))?;
        near.set_nodelay(true)?;
        pairs.push((near, far.0));
    }
    Ok(pairs)
}

async fn measure_throughput(
    contender: Contender,
    count: usize,
    blocks: u64,
) -> anyhow::Result<Duration> {
    let (start, started) = watch::channel(false);
    let mut senders = JoinSet::new();
    let mut receivers = JoinSet::new();
    for (near, far) in connect(count).await? {
        let mut started = started.clone();
        senders.spawn(async move {
            // It cannot be gone: it is dropped after all tasks have ended.
            let _ = started.wait_for(|&started| started).await;
            send(contender, near, blocks).await
        });
        receivers.spawn(receive(contender, far));
    }
    let began = Instant::now();
    start.send_replace(true);
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    while let Some(received) = receivers.join_next().await {
        let received = received??;
        ensure!(received == blocks, "{received} of {blocks} blocks arrived");
    }
    Ok(began.elapsed())
}

async fn send(contender: Contender, socket: TcpStream, blocks: u64) -> anyhow::Result<()> {
    let payload = support::payload(SIZE);
    match contender {
        Contender::LengthDelimited => {
            sink(socket, LengthDelimitedCodec::new(), payload, blocks).await
        }
        Contender::SinkStream => sink(socket, BlockCodec::length_prefixed(), payload, blocks).await,
        Contender::Lent => {
            let mut framed = BlockCodec::length_prefixed().framed(socket);
            let source = stream::iter((0..blocks).map(|_| Bytes::from_static(payload)));
            send_blocks(&mut framed, source).await?;
            Ok(framed.close().await?)
        }
    }
}

async fn sink<C>(
    socket: TcpStream,
    codec: C,
    payload: &'static [u8],
    blocks: u64,
) -> anyhow::Result<()>
where
    C: Encoder<Bytes, Error: Debug> + Decoder,
{
    let mut framed = codec.framed(socket);
    for _ in 0..blocks {
        framed
            .feed(Bytes::from_static(payload))
            .await
            .expect("to send");
    }
    framed.close().await.expect("to close");
    Ok(())
}

/// How many blocks came before the end.
async fn receive(contender: Contender, socket: TcpStream) -> anyhow::Result<u64> {
    match contender {
        // Apart from one another, so that no task is as large as the largest of them.
        Contender::LengthDelimited => Box::pin(receive_owned(socket, length_delimited())).await,
        Contender::SinkStream => Box::pin(receive_owned(socket, ours()?)).await,
        Contender::Lent => Box::pin(receive_lent(socket)).await,
    }
}

fn length_delimited() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .max_frame_length(LARGE)
        .new_codec()
}

fn ours() -> anyhow::Result<BlockCodec<LengthPrefix>> {
    Ok(BlockCodec::new(LengthPrefix::u32().max_block_len(LARGE)?))
}

async fn receive_owned<C>(socket: TcpStream, codec: C) -> anyhow::Result<u64>
where
    C: Decoder<Item = BytesMut, Error: Debug>,
{
    let mut framed = codec.framed(socket);
    let mut seen = 0;
    while let Some(block) = framed.next().await {
        let block = block.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        black_box(&block[..]);
        seen += 1;
    }
    Ok(seen)
}

async fn receive_lent(socket: TcpStream) -> anyhow::Result<u64> {
    let mut framed = ours()?.framed(socket);
    let mut blocks = recv_blocks(&mut framed);
    let mut seen = 0;
    while let Some(block) = blocks.next().await? {
        black_box(block);
        seen += 1;
    }
    Ok(seen)
}

fn idle_memory() -> anyhow::Result<()> {
    let connections = Memory::Idle.connections();
    if !fits(connections) {
        return Ok(());
    }
    println!(
        "idle connections: bytes each, of {} connections\n",
        stats::grouped(connections)
    );
    let heading = [
        "contender",
        "heap, nothing came",
        "resident",
        "heap, after traffic",
        "resident",
    ];
    let mut table = Table::new(1, &heading);
    for contender in CONTENDERS {
        let (opened, used) = ask_memory(Memory::Idle, contender)?;
        table.row(vec![
            contender.name().to_owned(),
            whole(opened.heap),
            whole(opened.resident),
            whole(used.heap),
            whole(used.resident),
        ]);
    }
    println!("{}", table.render(false));
    Ok(())
}

fn unusual_memory() -> anyhow::Result<()> {
    let hostile_fits = fits(Memory::Hostile.connections());
    println!("unusual peers: heap bytes each, beyond those of an idle connection\n");
    let hostile = format!(
        "{} announced, none sent ({} peers)",
        stats::bytes(ANNOUNCED),
        stats::grouped(Memory::Hostile.connections())
    );
    let large = format!("after one block of {}", stats::bytes(LARGE));
    let mut table = Table::new(1, &["contender", &hostile, &large]);
    for contender in CONTENDERS {
        let hostile = match hostile_fits {
            true => whole(ask_memory(Memory::Hostile, contender)?.1.heap),
            false => "left out".to_owned(),
        };
        table.row(vec![
            contender.name().to_owned(),
            hostile,
            whole(ask_memory(Memory::Large, contender)?.1.heap),
        ]);
    }
    print!("{}", table.render(false));
    Ok(())
}

/// Bytes for one connection.
#[derive(Clone, Copy, Debug)]
struct Held {
    heap: f64,
    resident: f64,
}

/// Runs `measure_memory` in a process that has done nothing else.
fn ask_memory(memory: Memory, contender: Contender) -> anyhow::Result<(Held, Held)> {
    let name = |value: Option<clap::builder::PossibleValue>| {
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    };
    let output = Command::new(env::current_exe()?)
        .args(["--bench", "--memory", &name(memory.to_possible_value())])
        .args(["--contender", &name(contender.to_possible_value())])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(
        output.status.success(),
        "{memory:?} of {contender:?} failed"
    );
    let answer = String::from_utf8(output.stdout)?;
    let figures: Vec<f64> = answer
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    match figures[..] {
        [heap, resident, heap_later, resident_later] => Ok((
            Held { heap, resident },
            Held {
                heap: heap_later,
                resident: resident_later,
            },
        )),
        _ => anyhow::bail!("{answer:?} is not four figures"),
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.heap, self.resident)
    }
}

/// `bytes` as a whole number; what the system does not say is unknown.
fn whole(bytes: f64) -> String {
    match bytes {
        b if b.is_nan() => "unknown".to_owned(),
        b if b < 0.0 => format!("-{}", stats::grouped(-b.round() as usize)),
        b => stats::grouped(b.round() as usize),
    }
}

/// What one connection's receiving end holds before and after what `memory` is about; the first
/// beyond its socket, the second beyond its socket if that is traffic, and beyond the first if not.
async fn measure_memory(memory: Memory, contender: Contender) -> anyhow::Result<(Held, Held)> {
    let count = memory.connections();
    let (mut near, far): (Vec<_>, Vec<_>) = connect(count).await?.into_iter().unzip();
    let mut receivers = JoinSet::new();
    let bytes = match memory {
        Memory::Idle => support::wire(SIZE, true).repeat(TRAFFIC),
        Memory::Hostile => u32::try_from(ANNOUNCED)?.to_be_bytes().to_vec(),
        Memory::Large => support::wire(LARGE, true),
    };
    let blocks = match memory {
        Memory::Idle => TRAFFIC as u64,
        Memory::Hostile => 0,
        Memory::Large => 1,
    };

    let before = held().await;
    for socket in far {
        receivers.spawn(receive(contender, socket));
    }
    let opened = held().await;
    for socket in &mut near {
        socket.write_all(&bytes).await?;
    }
    let after = held().await;

    // Only now, for they were to hold what they hold: whether they saw what was sent.
    for mut socket in near {
        socket.shutdown().await?;
    }
    while let Some(received) = receivers.join_next().await {
        // A peer that breaks off within a block is an error, or with some codecs an end.
        match received? {
            Ok(seen) => ensure!(seen == blocks, "{seen} of {blocks} blocks arrived"),
            Err(error) => ensure!(blocks == 0, error),
        }
    }

    let since = match memory {
        Memory::Idle => before,
        Memory::Hostile | Memory::Large => opened,
    };
    Ok((each(opened, before, count), each(after, since, count)))
}

fn each(now: Held, then: Held, count: usize) -> Held {
    Held {
        heap: (now.heap - then.heap) / count as f64,
        resident: (now.resident - then.resident) / count as f64,
    }
}

/// What this process holds, once all tasks have come to rest.
async fn held() -> Held {
    let mut heap = heap_bytes();
    loop {
        // The receivers cannot be asked whether they have seen all: they wait within the codec.
        // Several tenths of a second in which nothing changes are taken for rest.
        sleep(Duration::from_millis(400)).await;
        let now = heap_bytes();
        if now == heap {
            let resident = system::resident_bytes().map_or(f64::NAN, |bytes| bytes as f64);
            return Held {
                heap: now as f64,
                resident,
            };
        }
        heap = now;
    }
}

fn heap_bytes() -> i64 {
    let stats = HEAP.stats();
    stats.bytes_allocated as i64 - stats.bytes_deallocated as i64
}
