//! Many connections over 127.0.0.1 on one runtime of two workers: throughput, and idle memory.
//!
//! ```text
//! cargo bench --bench connections
//! cargo bench --bench connections -- --counts 1,10,100,1000 --rounds 9 --only ld,next
//! ```
//!
//! Prints two tables, of the contenders of `loopback` that use tokio:
//!
//! 1. Throughput of 1 KiB blocks one way, all connections together: a fixed number of bytes,
//!    whatever the number of connections, from the start until the last receiver has seen its end.
//!    Contenders take turns; medians over the rounds, and the median ratio to
//!    `LengthDelimitedCodec`'s in the same round.
//! 2. Memory of one idle connection's receiving end, its task included and its socket not: heap and
//!    resident bytes, when it has been polled once and nothing has come, and when it has received
//!    256 blocks of 1 KiB and waits again.
//!
//! Every figure of memory comes from a process of its own. The allocator that counts is in place
//! for the throughput too, the same for all. A number of connections for which the process may not
//! open enough files is left out, and named.

use std::{
    alloc::System,
    env,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use crate::support::{
    contenders::{Contender, Task},
    load::{Load, Source},
    run::{self, Schedule, of},
    stats::{self, Table, decimals},
    system,
};

#[allow(dead_code, reason = "each benchmark uses a part of what they share")]
mod support;

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SIZE: usize = 1024;

/// Connections whose memory is measured: enough that what else the process holds does not show.
const IDLE: usize = 1000;

/// Blocks that a connection has received before it is called idle again: enough to have grown
/// whatever buffer grows.
const TRAFFIC: u64 = 256;

/// Descriptors that a process has open beside its connections, with room to spare.
const OTHER_FILES: u64 = 64;

/// `cargo bench --bench connections -- [OPTIONS]`
#[derive(Debug, Parser)]
#[command(about = "Many connections over 127.0.0.1: throughput, and idle memory")]
struct Args {
    /// Numbers of connections.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000", value_parser = run::parse_count)]
    counts: Vec<usize>,
    /// How often each contender has its turn with each number of connections.
    #[arg(long, default_value = "5", value_parser = run::parse_count)]
    rounds: usize,
    /// Payload bytes of a measurement in MiB, all connections together.
    #[arg(long, default_value = "2048", value_parser = run::parse_count)]
    mib: usize,
    /// The contenders; all that use tokio unless told.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Contender>,
    /// What the benchmark asks of itself, in a process of its own: the memory of this one.
    #[arg(long, hide = true, value_enum)]
    idle: Option<Contender>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    if !run::is_bench("connections") {
        return Ok(());
    }
    let args = Args::parse();
    if let Some(contender) = args.idle {
        let held = runtime()?.block_on(idle_memory(contender))?;
        println!("{}", held.map(|bytes| bytes.to_string()).join(" "));
        return Ok(());
    }
    let mut contenders = run::contenders(&args.only);
    contenders.retain(|contender| !contender.is_blocking());
    throughput(&args, &contenders)?;
    if fits(IDLE) {
        report_idle_memory(&contenders)?;
    }
    Ok(())
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

fn load(blocks: u64) -> Load {
    Load {
        size: SIZE,
        prefixed: true,
        source: Source::Slices,
        blocks,
    }
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

fn throughput(args: &Args, contenders: &[Contender]) -> anyhow::Result<()> {
    let counts: Vec<_> = args.counts.iter().copied().filter(|&n| fits(n)).collect();
    let schedule = Schedule::new(contenders.to_vec(), args.rounds, counts.len());
    let heading = [
        "connections",
        "contender",
        "GB/s",
        "over LengthDelimitedCodec",
        "of its own at the first number",
    ];
    let mut table = Table::new(2, &heading);
    let mut at_first: Option<Vec<f64>> = None;
    for count in counts {
        let load = load(((args.mib << 20) / (SIZE * count)).max(1) as u64);
        let gigabytes = load.gigabytes() * count as f64;
        let rounds = schedule.measure(&format!("{count} connections"), |contender| {
            let took = runtime()?.block_on(one_way(contender, count, load))?;
            Ok(gigabytes / took.as_secs_f64())
        })?;
        let medians: Vec<_> = rounds
            .iter()
            .map(|(_, rates)| stats::median(rates))
            .collect();
        let at_first = at_first.get_or_insert_with(|| medians.clone());
        let ld = of(&rounds, Contender::Ld).unwrap_or_default();
        for (index, (contender, rates)) in rounds.iter().enumerate() {
            table.row(vec![
                stats::grouped(count),
                contender.name().to_owned(),
                decimals(medians[index], 2),
                decimals(stats::median(&stats::ratios(rates, ld)), 2),
                decimals(medians[index] / at_first[index], 2),
            ]);
        }
    }
    schedule.finish();
    println!(
        "{} blocks one way, length-prefixed, {}, TCP_NODELAY on; {} MiB altogether, medians of {} \
         rounds after one to warm up\n",
        stats::bytes(SIZE),
        Source::Slices.name(),
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

/// How long `count` connections take, with `load` on each.
async fn one_way(contender: Contender, count: usize, load: Load) -> anyhow::Result<Duration> {
    let (start, started) = watch::channel(false);
    let mut ends = JoinSet::new();
    for (near, far) in connect(count).await? {
        let sending = contender.run(Task::Send(load.source()), near, load)?;
        let mut started = started.clone();
        ends.spawn(async move {
            // It cannot be gone: it is dropped after all tasks have ended.
            let _ = started.wait_for(|&started| started).await;
            sending.await
        });
        ends.spawn(contender.run(Task::Receive, far, load)?);
    }
    let began = Instant::now();
    start.send_replace(true);
    while let Some(moved) = ends.join_next().await {
        let moved = moved??;
        ensure!(moved == load.blocks, "{moved} of {} blocks", load.blocks);
    }
    Ok(began.elapsed())
}

fn report_idle_memory(contenders: &[Contender]) -> anyhow::Result<()> {
    let heading = [
        "contender",
        "heap, nothing came",
        "resident",
        "heap, after traffic",
        "resident",
    ];
    let mut table = Table::new(1, &heading);
    for &contender in contenders {
        let figures = ask_idle_memory(contender)?.map(whole);
        table.row(
            [contender.name().to_owned()]
                .into_iter()
                .chain(figures)
                .collect(),
        );
    }
    println!(
        "idle connections: bytes each, of {} connections\n",
        stats::grouped(IDLE)
    );
    print!("{}", table.render(false));
    Ok(())
}

/// Heap and resident bytes of a connection to which nothing came, and the same after traffic.
type Held = [f64; 4];

/// Runs `idle_memory` in a process that has done nothing else.
fn ask_idle_memory(contender: Contender) -> anyhow::Result<Held> {
    let name = contender.to_possible_value();
    let output = Command::new(env::current_exe()?)
        .args(["--bench", "--idle"])
        .args(name.as_ref().map(|name| name.get_name()))
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "{contender:?} failed");
    let answer = String::from_utf8(output.stdout)?;
    let figures = answer.split_whitespace().map(str::parse);
    let figures: Vec<f64> = figures.collect::<Result<_, _>>()?;
    Held::try_from(figures).map_err(|got| anyhow::anyhow!("{got:?} is not four figures"))
}

/// `bytes` as a whole number, which small differences may have below zero.
fn whole(bytes: f64) -> String {
    match bytes {
        b if b.is_nan() => "-".to_owned(),
        b if b < 0.0 => format!("-{}", stats::grouped(-b.round() as usize)),
        b => stats::grouped(b.round() as usize),
    }
}

async fn idle_memory(contender: Contender) -> anyhow::Result<Held> {
    let load = load(TRAFFIC);
    let (mut near, far): (Vec<_>, Vec<_>) = connect(IDLE).await?.into_iter().unzip();
    let traffic = load.wire().repeat(TRAFFIC as usize);
    let mut receivers = JoinSet::new();

    let before = held().await;
    for socket in far {
        receivers.spawn(contender.run(Task::Receive, socket, load)?);
    }
    let opened = held().await;
    for socket in &mut near {
        socket.write_all(&traffic).await?;
    }
    let after = held().await;

    // Only now, for they were to hold what they hold: whether they saw what was sent.
    for mut socket in near {
        socket.shutdown().await?;
    }
    while let Some(seen) = receivers.join_next().await {
        let seen = seen??;
        ensure!(seen == TRAFFIC, "{seen} of {TRAFFIC} blocks arrived");
    }
    let [heap, resident] = before;
    let each = |now: [f64; 2]| {
        [
            (now[0] - heap) / IDLE as f64,
            (now[1] - resident) / IDLE as f64,
        ]
    };
    let ([a, b], [c, d]) = (each(opened), each(after));
    Ok([a, b, c, d])
}

/// Heap and resident bytes of this process, once all tasks have come to rest.
async fn held() -> [f64; 2] {
    let mut heap = heap_bytes();
    loop {
        // The receivers cannot be asked whether they have seen all: they wait within the codec.
        // Several tenths of a second in which nothing changes are taken for rest.
        sleep(Duration::from_millis(400)).await;
        let now = heap_bytes();
        if now == heap {
            let resident = system::resident_bytes().map_or(f64::NAN, |bytes| bytes as f64);
            return [now as f64, resident];
        }
        heap = now;
    }
}

fn heap_bytes() -> i64 {
    let stats = HEAP.stats();
    stats.bytes_allocated as i64 - stats.bytes_deallocated as i64
}
