//! Many connections over 127.0.0.1 on one runtime of two workers: throughput, requests, idle memory.
//!
//! ```text
//! cargo bench -p benches --bench connections
//! cargo bench -p benches --bench connections -- --counts 1,10,100,1000 --rounds 9 --only ld,recv
//! cargo bench -p benches --bench connections -- --counts 1000 --size 64 --idle 10000
//! ```
//!
//! Prints three tables, of the contenders of `loopback` that use tokio:
//!
//! 1. Throughput of blocks in one direction, all connections together. A measurement moves a fixed number of
//!    bytes, whatever the number of connections. It lasts from the start until the last receiver has seen
//!    its end. Medians over the rounds, and the median ratio to `LengthDelimitedCodec`'s in the same round.
//! 2. Requests a second on all connections together. A request is one block, and the answer is the same
//!    block. Each connection has one request in flight.
//! 3. Heap bytes of one idle connection's receiving end, its task included: when it was polled once and has
//!    received nothing, and when it has received 256 blocks of 1 KiB and waits again.

use std::{
    alloc::System,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::{
    contenders::{Contender, Task},
    load::{Load, Source},
    run::{self, Schedule, Turn, of, rates_and_cpu},
    stats::{self, Table, decimals},
    system,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// Also counts while the throughput is measured, and costs all contenders the same.
#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Blocks that a connection receives before its idle memory is measured again. This is enough to grow every
/// buffer that grows.
const TRAFFIC: u64 = 256;
const TRAFFIC_SIZE: usize = 1024;

/// Descriptors that the process needs beside its connections, with room to spare.
const OTHER_FILES: usize = 64;

/// `cargo bench -p benches --bench connections -- [OPTIONS]`
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
    /// Requests of a measurement, all connections together.
    #[arg(long, default_value = "200000", value_parser = run::parse_count)]
    requests: usize,
    /// Payload bytes of a block, and of a request and its answer.
    #[arg(long, default_value = "1024", value_parser = run::parse_count)]
    size: usize,
    /// Connections whose memory is measured: enough that what else the process holds does not show.
    #[arg(long, default_value = "1000", value_parser = run::parse_count)]
    idle: usize,
    /// The contenders; all that use tokio unless told.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Contender>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    if !run::is_bench("connections") {
        return Ok(());
    }
    let args = Args::parse();
    let most = args
        .counts
        .iter()
        .fold(args.idle, |most, &count| most.max(count));
    // This process has both ends of each connection.
    let needed = (2 * most + OTHER_FILES) as u64;
    ensure!(
        system::file_limit().is_none_or(|limit| limit >= needed),
        "this takes {needed} open files, more than this process may have: ulimit -n {needed}"
    );
    let mut contenders = run::contenders(&args.only);
    contenders.retain(|contender| !contender.is_blocking());
    compare(&args, &contenders, Shape::OneWay)?;
    compare(&args, &contenders, Shape::ThereAndBack)?;
    idle_memory(&contenders, args.idle)
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

fn load(size: usize, blocks: u64) -> Load {
    Load {
        size,
        prefixed: true,
        source: Source::Slices,
        blocks,
        write_len: None,
    }
}

/// What the connections do.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Each moves its share of `--mib`. Rates are in GB/s.
    OneWay,
    /// Each sends its share of `--requests`, block by block, and gets it back. Rates are requests a second.
    ThereAndBack,
}

impl Shape {
    /// The share of each of `count` connections.
    fn load(self, args: &Args, count: usize) -> Load {
        let blocks = match self {
            Self::OneWay => (args.mib << 20) / (args.size * count),
            Self::ThereAndBack => args.requests / count,
        };
        load(args.size, blocks.max(1) as u64)
    }

    /// What a rate counts of `load`.
    fn amount(self, load: Load) -> f64 {
        match self {
            Self::OneWay => load.gigabytes(),
            Self::ThereAndBack => load.blocks as f64,
        }
    }

    /// The tasks of the near end and of the far end. `tell` gets the time of each round trip.
    fn tasks(self, load: Load, tell: &mpsc::Sender<f64>) -> (Task, Task) {
        match self {
            Self::OneWay => (Task::Send(load.source()), Task::Receive),
            Self::ThereAndBack => (Task::Ask(load.source(), tell.clone()), Task::Echo),
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::OneWay => "GB/s",
            Self::ThereAndBack => "/s",
        }
    }

    fn show(self, rate: f64) -> String {
        match self {
            Self::OneWay => decimals(rate, 2),
            Self::ThereAndBack => stats::grouped(rate.round() as usize),
        }
    }
}

/// Prints the table of one shape.
fn compare(args: &Args, contenders: &[Contender], shape: Shape) -> anyhow::Result<()> {
    let schedule = Schedule::new(contenders.to_vec(), args.rounds, args.counts.len());
    let heading = [
        "connections",
        "contender",
        shape.unit(),
        "over LengthDelimitedCodec",
        "CPU over its",
    ];
    let mut table = Table::new(2, &heading);
    for &count in &args.counts {
        let load = shape.load(args, count);
        let rounds = schedule.measure(&format!("{count} connections"), |contender| {
            runtime()?.block_on(time(contender, count, load, shape))
        })?;
        let (ld, ld_cpu) = rates_and_cpu(of(&rounds, Contender::Ld).unwrap_or_default());
        for (contender, turns) in &rounds {
            let (rates, cpu) = rates_and_cpu(turns);
            table.row(vec![
                stats::grouped(count),
                contender.name().to_owned(),
                shape.show(stats::median(&rates)),
                decimals(stats::median(&stats::ratios(&rates, &ld)), 2),
                decimals(stats::median(&stats::ratios(&cpu, &ld_cpu)), 2),
            ]);
        }
    }
    schedule.finish();
    let size = stats::bytes(args.size);
    match shape {
        Shape::OneWay => println!(
            "{size} blocks one way, length-prefixed, {}, TCP_NODELAY on; {} MiB altogether, medians of {} \
             rounds after one to warm up\n",
            Source::Slices.name(),
            args.mib,
            args.rounds
        ),
        Shape::ThereAndBack => println!(
            "requests of {size} and their answers, one in flight on each connection; {} altogether\n",
            stats::grouped(args.requests)
        ),
    }
    println!("{}", table.render(false));
    Ok(())
}

/// Opens `count` connections, and returns the near and the far end of each.
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

/// Runs `shape` with `load` on each of `count` connections.
async fn time(
    contender: Contender,
    count: usize,
    load: Load,
    shape: Shape,
) -> anyhow::Result<Turn> {
    // `loopback` uses the time of each round trip. Here it is ignored.
    let (tell, _told) = mpsc::channel();
    let (start, started) = watch::channel(false);
    let mut ends = JoinSet::new();
    for (near, far) in connect(count).await? {
        let (near_task, far_task) = shape.tasks(load, &tell);
        let sending = contender.run(near_task, near, load)?;
        let mut started = started.clone();
        ends.spawn(async move {
            // Cannot fail, because `start` is dropped after all tasks have ended.
            let _ = started.wait_for(|&started| started).await;
            sending.await
        });
        ends.spawn(contender.run(far_task, far, load)?);
    }
    let (began, before) = (Instant::now(), system::cpu_seconds());
    start.send_replace(true);
    all_moved(ends, load).await?;
    Ok(Turn {
        rate: shape.amount(load) * count as f64 / began.elapsed().as_secs_f64(),
        cpu: system::cpu_since(before),
    })
}

async fn all_moved(mut ends: JoinSet<anyhow::Result<u64>>, load: Load) -> anyhow::Result<()> {
    while let Some(moved) = ends.join_next().await {
        let moved = moved??;
        ensure!(moved == load.blocks, "{moved} of {} blocks", load.blocks);
    }
    Ok(())
}

fn idle_memory(contenders: &[Contender], idle: usize) -> anyhow::Result<()> {
    let mut table = Table::new(1, &["contender", "nothing came", "after traffic"]);
    for &contender in contenders {
        // A new runtime, so that its threads keep nothing from the contender before.
        let bytes = runtime()?.block_on(idle_heap(contender, idle))?;
        let [fresh, used] = bytes.map(|bytes| stats::grouped(bytes / idle));
        table.row(vec![contender.name().to_owned(), fresh, used]);
    }
    println!("heap bytes of an idle connection, of {idle}\n");
    print!("{}", table.render(false));
    Ok(())
}

/// Returns the heap bytes of `idle` connections before any traffic, and after traffic.
async fn idle_heap(contender: Contender, idle: usize) -> anyhow::Result<[usize; 2]> {
    let load = load(TRAFFIC_SIZE, TRAFFIC);
    let (mut near, far): (Vec<_>, Vec<_>) = connect(idle).await?.into_iter().unzip();
    let traffic = load.wire().repeat(TRAFFIC as usize);
    let mut receivers = JoinSet::new();

    let before = settled_heap().await;
    for socket in far {
        receivers.spawn(contender.run(Task::Receive, socket, load)?);
    }
    let fresh = settled_heap().await;
    for socket in &mut near {
        socket.write_all(&traffic).await?;
    }
    let used = settled_heap().await;

    // Checks only now whether all blocks arrived, because until here the receivers must stay idle.
    drop(near);
    all_moved(receivers, load).await?;
    Ok([fresh, used].map(|heap| heap.saturating_sub(before)))
}

/// Returns the heap bytes of this process, once all tasks are at rest.
async fn settled_heap() -> usize {
    let heap = || {
        let stats = HEAP.stats();
        stats
            .bytes_allocated
            .saturating_sub(stats.bytes_deallocated)
    };
    let mut last = heap();
    loop {
        // A receiver that waits within the codec cannot say whether it has received everything. So the tasks
        // are taken to be at rest when nothing changes for 0.4 seconds.
        sleep(Duration::from_millis(400)).await;
        let now = heap();
        if now == last {
            return now;
        }
        last = now;
    }
}
