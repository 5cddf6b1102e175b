//! One TCP connection: how close whole blocks come to the speed of the bare socket.
//!
//! ```text
//! cargo bench -p benches --bench loopback
//! cargo bench -p benches --bench loopback -- --source all --nodelay off
//! cargo bench -p benches --bench loopback -- --via veth:1500
//! cargo bench -p benches --bench loopback -- --plot docs/throughput.svg --markdown
//! cargo bench -p benches --bench loopback -- --sizes 4MiB,16MiB,256MiB --peak
//! cargo bench -p benches --bench loopback -- --trips 5000 --sizes 64 --framing prefixed
//! ```
//!
//! Sender and receiver have a thread each, and a current-thread runtime each if they use tokio.
//! A measurement moves a fixed number of payload bytes in one direction. It lasts from the start of the
//! sender until the receiver has seen the end of the stream. The receiver looks at every block.
//!
//! | contender, `--only`      | sender                             | receiver                    |
//! |--------------------------|------------------------------------|-----------------------------|
//! | raw limit, `raw`         | blocking socket, 60 KiB a write    | `read_exact` of many blocks |
//! | tokio raw, `tokio`       | tokio's socket, 60 KiB a write     | `read_exact` of many blocks |
//! | the same, `tokio-8k`     | tokio's socket, `Framed`'s writes  | `read_exact` of many blocks |
//! | `ld`, `ld-64k`           | `LengthDelimitedCodec` in `Framed`: `feed`, `close` | `next`     |
//! | `framed`, `framed-64k`   | `BlockCodec` in `Framed`: `feed`, `close`           | `next`     |
//! | `by-hand`                | `BufWriter` of 64 KiB, `write_u32` | `BufReader`, `read_exact`   |
//! | `transport`              | `BlockTransport`: `feed`, `close`  | `next`                      |
//! | `transport-recv`         | the same                           | `recv`                      |
//! | `transport-sink`         | `transport` as a `Sink`            | the same as a `Stream`      |
//! | `transport-timeouts`     | `transport` with a write timeout   | with both read timeouts     |
//! | `helpers`                | `send_blocks` on a `Framed`        | `recv_blocks` on a `Framed` |
//! | `recv`, `recv-batch`     | `send_blocks` on a `BlockTransport`| `recv`, `recv_batch`        |
//!
//! The raw limit runs twice in each turn. Once it copies blocks into a buffer of 60 KiB, and writes the
//! buffer when it is full. Once it keeps the blocks, and writes slices of them, 60 KiB at once. The faster
//! way counts. Every contender, also the raw limit, takes its blocks from the same source.
//!
//! `LengthDelimitedCodec` cannot send blocks without headers, so beside exact-length framing it runs with
//! its headers. A `Framed` writes after 8 KiB, tokio-util's default, and with `ld-64k` and `framed-64k`
//! after 64 KiB. `tokio-8k` are bare loops that write as much at a time as a `Framed`.
//!
//! `--source` says where blocks come from: slices of a buffer of 64 KiB, one block again and again (`hot`,
//! like a broadcast), slices of a buffer that no cache holds (`cold`), or a `fresh` `Vec` for each block.
//!
//! Contenders take turns, another one first in each round, after a round to warm up. The tables
//! have medians over the rounds; a share is the median of the shares within each round.
//!
//! With `--via veth:MTU`, the ends are in network namespaces of their own, joined by a pair of
//! virtual Ethernet devices, so that TCP's segments are as long as over a network of that MTU.
//!
//! With `--sweep`, `BlockTransport` and `send_blocks` run with each of these write lengths, over all links,
//! both socket options and payloads in the cache and out of it. The last tables have the worst result of
//! each length. `path` is the length that a path takes at once, `2path` twice that, `default` the default:
//!
//! ```text
//! cargo bench -p benches --bench loopback -- --sweep default,3path,65160 --rounds 5 --mib 96 --sizes 64,1024,51200,1MiB,16MiB
//! ```
//!
//! With `--peak`, every measurement runs in a process of its own, and the table has the peak resident memory
//! of that process: both ends, and the source.
//!
//! With `--trips`, one block goes there and back instead. `send_blocks` and `recv_blocks` are not made for
//! that, and do not take part.

use std::path::PathBuf;

use anyhow::Context;
use clap::{ArgAction, Parser, ValueEnum};
use support::{
    contenders::Contender,
    load::{Load, Source},
    run::{self, Schedule},
    stats,
};

use crate::{
    figures::Figures,
    link::{Link, Via},
    sweep::Length,
};

mod ends;
mod figures;
mod link;
mod peak;
mod plot;
mod sweep;
mod trips;
mod veth;

/// `cargo bench -p benches --bench loopback -- [OPTIONS]`
#[derive(Debug, Parser)]
#[command(about = "One TCP connection: how near to the bare socket whole blocks come")]
struct Args {
    /// How often each contender has its turn with each load.
    #[arg(long, default_value = "9", value_parser = run::parse_count)]
    rounds: usize,
    /// Payload bytes of a block: 51200, 4MiB.
    #[arg(long, value_delimiter = ',', default_value = "64,1024,51200,1MiB", value_parser = parse_size)]
    sizes: Vec<usize>,
    /// Payload of a measurement in MiB; three blocks at least are sent.
    #[arg(long, default_value = "512", value_parser = run::parse_count)]
    mib: usize,
    #[arg(long, value_enum, default_value_t)]
    framing: Framings,
    /// Where the sender's blocks come from.
    #[arg(long, value_enum, default_value_t)]
    source: Sources,
    /// The contenders; all unless told.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Contender>,
    /// Bytes that a BlockTransport writes at once; its default unless told.
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    write_len: Option<usize>,
    /// Whether TCP_NODELAY is set at both ends: on or off.
    #[arg(long, default_value = "on", action = ArgAction::Set, value_parser = parse_switch)]
    nodelay: bool,
    /// The way from end to end: loopback or veth:MTU, the latter as root on Linux.
    #[arg(long, default_value = "loopback", value_parser = Via::parse)]
    via: Via,
    /// Measure these lengths of a write over all links, options and sources instead: default, path,
    /// 2path, 65160.
    #[arg(long, value_name = "LENGTHS", value_delimiter = ',', value_parser = Length::parse,
          conflicts_with_all = ["plot", "trips", "peak"])]
    sweep: Vec<Length>,
    /// Measure so many round trips of one block instead.
    #[arg(long, conflicts_with = "plot")]
    trips: Option<u64>,
    /// Run each contender in a process of its own, and print the most memory that it ever had.
    #[arg(long, conflicts_with_all = ["plot", "trips"])]
    peak: bool,
    /// What the benchmark asks of itself with --peak.
    #[arg(long, hide = true)]
    child: Option<usize>,
    /// Draw the shares of the raw limit into this SVG file.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Print Markdown.
    #[arg(long)]
    markdown: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Framings {
    Exact,
    Prefixed,
    #[default]
    Both,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Sources {
    #[default]
    Slices,
    Hot,
    Cold,
    Fresh,
    All,
}

impl Sources {
    fn sources(self) -> &'static [Source] {
        match self {
            Self::Slices => &[Source::Slices],
            Self::Hot => &[Source::Hot],
            Self::Cold => &[Source::Cold],
            Self::Fresh => &[Source::Fresh],
            Self::All => Source::value_variants(),
        }
    }
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("neither on nor off".to_owned()),
    }
}

/// Parses `1048576`, `1024KiB`, `1MiB`.
fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        unit => return Err(format!("{unit} is none of KiB, MiB, GiB")),
    };
    let count: usize = digits.parse().map_err(|_| "not a number".to_owned())?;
    match count.checked_mul(unit) {
        // The prefix is a u32, so its largest value is the longest block.
        Some(size @ 1..) if u32::try_from(size).is_ok() => Ok(size),
        _ => Err("out of range".to_owned()),
    }
}

/// Returns the number of blocks of `size` bytes in a measurement.
fn blocks(mib: usize, size: usize) -> u64 {
    ((mib << 20) / size).max(3) as u64
}

impl Args {
    /// Returns what to measure. Loads with the same source and framing are adjacent.
    fn loads(&self) -> Vec<Load> {
        let framings: &[bool] = match self.framing {
            Framings::Exact => &[false],
            Framings::Prefixed => &[true],
            Framings::Both => &[false, true],
        };
        let mut loads = Vec::new();
        for &source in self.source.sources() {
            for &prefixed in framings {
                loads.extend(self.sizes.iter().map(|&size| Load {
                    size,
                    prefixed,
                    source,
                    blocks: blocks(self.mib, size),
                    write_len: self.write_len,
                }));
            }
        }
        loads
    }

    fn describe(&self, load: &Load) -> String {
        let size = stats::bytes(load.size);
        format!("{size}, {}, {}", load.framing(), load.source.name())
    }

    /// Prints the settings of the tables.
    fn heading(&self, amount: &str) {
        println!(
            "one connection via {}, TCP_NODELAY {}; {amount}; {} rounds after one to warm up\n",
            self.via.name(),
            if self.nodelay { "on" } else { "off" },
            self.rounds
        );
    }

    fn title(&self, text: &str) {
        println!("{}{text}\n", if self.markdown { "## " } else { "" });
    }
}

fn main() -> anyhow::Result<()> {
    if !run::is_bench("loopback") {
        return Ok(());
    }
    let args = Args::parse();
    if let Some(why) = args.via.missing() {
        println!("{} left out: {why}", args.via.name());
        return Ok(());
    }
    if !args.sweep.is_empty() {
        return sweep::measure(&args, &args.sweep);
    }
    if args.peak && args.child.is_none() {
        return peak::measure(&args);
    }
    let link = Link::new(args.via, args.nodelay)?;
    if let Some(place) = args.child {
        return peak::child(&args, place, &link);
    }
    if let Some(trips) = args.trips {
        return trips::measure(&args, trips, &link);
    }

    let loads = args.loads();
    let schedule = Schedule::new(run::contenders(&args.only), args.rounds, loads.len());
    let mut results = Vec::new();
    for load in loads {
        let measure = |contender| ends::throughput(contender, load, &link);
        let rounds = schedule.measure(&args.describe(&load), measure)?;
        results.push(Figures::new(load, &rounds));
    }
    schedule.finish();
    args.heading(&format!("{} MiB a measurement", args.mib));
    figures::report(&results, &args);
    if let Some(path) = &args.plot {
        plot::plot(path, &results).with_context(|| format!("cannot draw {}", path.display()))?;
        println!("drawn: {}", path.display());
    }
    Ok(())
}
