//! Requests and answers in the shapes that services have: how `BlockTransport` compares with
//! tokio-util's `LengthDelimitedCodec` when requests are in flight in both directions.
//!
//! ```text
//! cargo bench -p benches --bench services
//! cargo bench -p benches --bench services -- --shapes rpc,feed --sizes 256,1024 --rounds 15
//! cargo bench -p benches --bench services -- --in-flight 16 --connections 1,50
//! cargo bench -p benches --bench services -- --threads 1 --nodelay off
//! ```
//!
//! | `--shapes` | the server, or the receiver                                              |
//! |------------|--------------------------------------------------------------------------|
//! | `rpc`      | handlers are tasks; one task polls the stream and the sink, as tarpc's   |
//! | `send`     | sends each answer                                                        |
//! | `feed`     | feeds answers while requests are ready, then flushes                     |
//! | `forward`  | forwards the stream of requests into the sink                            |
//! | `channel`  | receives blocks, one way                                                 |
//! | `proxy`    | a proxy, which feeds while blocks are ready, then flushes; behind it `feed` |
//!
//! In `rpc`, each caller is a task, too, and so is the client's end of the connection. In `channel`, 8
//! producers push blocks into a channel of 64, which is forwarded into the sink. Any other client feeds
//! requests while fewer than `--in-flight` are without an answer, then flushes.
//!
//! A contender runs at both ends. In `proxy`, it runs only in the proxy. Each end has a thread and a
//! current-thread runtime of its own; the server behind the proxy shares the client's. With `--threads 1`,
//! all share one.
//!
//! **Each end needs a core of its own.** A contender that makes the two ends take turns loses half
//! of the machine. On a machine that is busy with other work this does not show, because there the ends
//! take turns with every contender.
//!
//! A measurement is a fixed number of requests, which take `LengthDelimitedCodec` about `--millis`.
//! It lasts until both ends have seen the end of the stream. Answers are as long as requests. The
//! client checks the number that each answer carries.
//!
//! Contenders take turns, another one first in each round, after a round to warm up. The tables
//! show the median of `LengthDelimitedCodec`'s requests a second, all connections together. For the
//! other contenders they show the median of the ratios to it within a round, the lowest and the
//! highest: more than 1 is faster.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{ArgAction, Parser, ValueEnum};
use support::{
    contenders::Contender,
    load::Source,
    run::{self, Schedule, Turn},
    stats, system,
};

use crate::{
    payloads::NUMBER_LEN,
    report::Figures,
    shapes::{Job, Shape},
};

mod channel;
mod payloads;
mod pipelined;
mod proxy;
mod report;
mod rpc;
mod shapes;
mod sides;

/// Descriptors that the process needs beside its connections, with room to spare.
const OTHER_FILES: usize = 64;

/// `cargo bench -p benches --bench services -- [OPTIONS]`
#[derive(Debug, Parser)]
#[command(about = "Requests and answers in the shapes that services have")]
struct Args {
    /// How often each contender has its turn with each load.
    #[arg(long, default_value = "9", value_parser = run::parse_count)]
    rounds: usize,
    /// The shapes; all unless told.
    #[arg(long, value_enum, value_delimiter = ',')]
    shapes: Vec<Shape>,
    /// Payload bytes of a request, and of its answer.
    #[arg(long, value_delimiter = ',', default_value = "64,256,512,1024,2048,4096,16384,65536",
          value_parser = parse_size)]
    sizes: Vec<usize>,
    /// Requests without an answer at any time, on each connection.
    #[arg(long, value_delimiter = ',', default_value = "1,64", value_parser = run::parse_count)]
    in_flight: Vec<usize>,
    /// Numbers of connections.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = run::parse_count)]
    connections: Vec<usize>,
    /// The contenders: ld, ld-64k, framed, framed-64k, transport, transport-timeouts. ld takes part in any case.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "ld,framed,transport,transport-timeouts"
    )]
    only: Vec<Contender>,
    /// How long ld's turn takes; the others move as many requests.
    #[arg(long, default_value = "150", value_parser = run::parse_count)]
    millis: usize,
    /// 2: clients and servers have a thread each. 1: they share one.
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u64).range(1..=2))]
    threads: u64,
    /// Where the clients' payloads come from: slices of a shared buffer, or a fresh Vec each.
    #[arg(long, default_value = "slices", value_parser = parse_source)]
    source: Source,
    /// Whether TCP_NODELAY is set at both ends: on or off.
    #[arg(long, default_value = "on", action = ArgAction::Set, value_parser = parse_switch)]
    nodelay: bool,
    /// Print Markdown.
    #[arg(long)]
    markdown: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("neither on nor off".to_owned()),
    }
}

/// Refuses the other sources. With `hot`, all requests would have the same number. `cold` needs more payloads
/// than `Payloads` makes.
fn parse_source(text: &str) -> Result<Source, String> {
    match text {
        "slices" => Ok(Source::Slices),
        "fresh" => Ok(Source::Fresh),
        _ => Err("neither slices nor fresh".to_owned()),
    }
}

/// Up to 16 MiB, because the payloads in flight are kept in memory.
fn parse_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if (NUMBER_LEN..=16 << 20).contains(&size) => Ok(size),
        _ => Err(format!("not a number from {NUMBER_LEN} to {}", 16 << 20)),
    }
}

impl Args {
    fn contenders(&self) -> Vec<Contender> {
        let mut contenders = self.only.clone();
        if !contenders.contains(&Contender::Ld) {
            contenders.insert(0, Contender::Ld);
        }
        contenders
    }

    /// Returns what to measure. The measurements of one table are adjacent.
    fn jobs(&self) -> Vec<Job> {
        let shapes = match &self.shapes[..] {
            [] => Shape::value_variants(),
            shapes => shapes,
        };
        let mut jobs = Vec::new();
        for &shape in shapes {
            let in_flights = match shape {
                // Producers wait only for the channel, so `--in-flight` has no effect.
                Shape::Channel => &[channel::PRODUCERS as usize],
                _ => &self.in_flight[..],
            };
            for &connections in &self.connections {
                for &in_flight in in_flights {
                    jobs.extend(self.sizes.iter().map(|&size| Job {
                        shape,
                        size,
                        source: self.source,
                        in_flight: in_flight as u64,
                        connections,
                        threads: self.threads as usize,
                        nodelay: self.nodelay,
                    }));
                }
            }
        }
        jobs
    }
}

fn main() -> anyhow::Result<()> {
    if !run::is_bench("services") {
        return Ok(());
    }
    let args = Args::parse();
    let most = args.connections.iter().max().copied().unwrap_or(1);
    let needed = (4 * most + OTHER_FILES) as u64;
    ensure!(
        system::file_limit().is_none_or(|limit| limit >= needed),
        "this takes {needed} open files, more than this process may have: ulimit -n {needed}"
    );

    let jobs = args.jobs();
    let schedule = Schedule::new(args.contenders(), args.rounds, jobs.len());
    let mut results = Vec::new();
    for job in jobs {
        let text = format!("{}, {}", job.describe(), stats::bytes(job.size));
        let time = Duration::from_millis(args.millis as u64);
        let requests = job.requests_in(time).with_context(|| text.clone())?;
        let all = requests as f64 * job.connections as f64;
        let rounds = schedule.measure(&text, |contender| {
            let before = system::cpu_seconds();
            Ok(Turn {
                rate: all / job.run(contender, requests)?.as_secs_f64(),
                cpu: system::cpu_since(before),
            })
        })?;
        results.push(Figures { job, rounds });
    }
    schedule.finish();
    println!(
        "requests and answers over 127.0.0.1, TCP_NODELAY {}, {}, {}; {} rounds of about {} ms a \
         contender, after one to warm up\n",
        if args.nodelay { "on" } else { "off" },
        match args.threads {
            1 => "both ends on one thread",
            _ => "each end on its own thread",
        },
        args.source.name(),
        args.rounds,
        args.millis
    );
    report::print(&results, args.markdown);
    Ok(())
}
