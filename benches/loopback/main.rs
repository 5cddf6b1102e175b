//! One TCP connection over 127.0.0.1: how near to the bare socket whole blocks come.
//!
//! ```text
//! cargo bench --bench loopback
//! cargo bench --bench loopback -- --rounds 21 --sizes 64,51200 --framing exact
//! cargo bench --bench loopback -- --plot docs/throughput.svg --markdown
//! ```
//!
//! Sender and receiver have a thread each, and a current-thread runtime each where they use tokio.
//! A measurement moves a fixed number of payload bytes, and lasts from the first byte sent until
//! the receiver has seen the end of the stream. The payload is static, so that making a `Bytes` of it takes no
//! atomic operation for any contender: what is measured is the codecs, not a reference count. The
//! receiver looks at every block, and `TCP_NODELAY` is on everywhere.
//!
//! | contender              | sender                              | receiver                     |
//! |------------------------|-------------------------------------|------------------------------|
//! | raw                    | blocking socket, see below          | `read_exact` into one buffer |
//! | tokio raw              | `write_all` of 64 KiB batches;      | `read_exact` into one buffer |
//! |                        | vectored from 4 KiB a block on      |                              |
//! | tokio raw, owned       | copies blocks into one buffer, and  | `BytesMut::split_to` for     |
//! |                        | `write_all` from 56 KiB on          | each block                   |
//! | `LengthDelimitedCodec` | `feed`, `close` on `Framed`         | `next` on `Framed`           |
//! | Sink/Stream            | `feed`, `close` on `Framed`         | `next` on `Framed`           |
//! | next                   | `send_blocks`                       | `recv_blocks`, `next`        |
//! | next_batch             | `send_blocks`                       | `recv_blocks`, `next_batch`  |
//!
//! Raw is the limit: the bare loop over a blocking socket. It runs twice a round: with `write_all`
//! of 64 KiB batches that it fills block by block, as a sender of blocks has to; and with
//! `write_vectored` of headers and payloads, 64 slices at most. The better of the two is what the
//! rest of the round is compared with. It can be beaten, by writes that leave no short tail; how far
//! is what the line "lying ready, 60 KiB a write" shows, for which nothing at all is done for a
//! block.
//!
//! "Tokio raw, owned" is the limit for whatever is a `Sink` of blocks and a `Stream` of `BytesMut`
//! through one buffer each, as all that goes through `Framed` is: it does no more than that takes.
//! `LengthDelimitedCodec` has no blocks without headers: beside exact-length framing it runs as it
//! always does. What it is fed leaves whenever tokio-util's 8 KiB are exceeded; on a second line it
//! is told to let 56 KiB gather, as `BlockCodec::framed` does for Sink/Stream.
//!
//! Every round runs every contender once, another one first each time. Prints, for each framing
//! and block size, a line for each contender: the median over the rounds of its throughput as a
//! share of raw's in the same round, and the middle half of these shares; the same over
//! `LengthDelimitedCodec`'s; and the medians of payload throughput, of time for a block, and of
//! processor time, of both threads and in the kernel too, for 10⁹ bytes of payload.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, ValueEnum};

use crate::{
    contenders::{CONTENDERS, measure},
    ends::{Load, Took},
    figures::{Figures, report},
    support::stats,
};

mod contenders;
mod ends;
mod figures;
mod plot;
mod raw;
#[allow(dead_code, reason = "each benchmark uses a part of what they share")]
#[path = "../support/mod.rs"]
mod support;

/// `cargo bench --bench loopback -- [OPTIONS]`
#[derive(Debug, Parser)]
#[command(about = "One TCP connection over 127.0.0.1: how near to the bare socket blocks come")]
pub(crate) struct Args {
    /// How often each contender runs at each size.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rounds: u64,
    /// Payload bytes of a block.
    #[arg(long, value_delimiter = ',', default_value = "64,1024,51200,1048576", value_parser = parse_size)]
    sizes: Vec<usize>,
    #[arg(long, value_enum, default_value_t = Which::Both)]
    framing: Which,
    /// Payload bytes of a measurement, 64MiB say. Unless told, 512 MiB.
    #[arg(long, value_parser = parse_size)]
    bytes_per_run: Option<usize>,
    /// Draw the shares of raw's throughput into this SVG file.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Print Markdown.
    #[arg(long)]
    pub(crate) markdown: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    Both,
    Exact,
    Prefixed,
}

impl Which {
    /// Whether headers are on the wire, for each framing to be measured.
    fn prefixed(self) -> &'static [bool] {
        match self {
            Self::Both => &[false, true],
            Self::Exact => &[false],
            Self::Prefixed => &[true],
        }
    }
}

/// `1048576`, `1MiB`, `1024K`.
fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].trim() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        unit => return Err(format!("{unit} is none of KiB, MiB, GiB")),
    };
    let count: usize = digits.parse().map_err(|_| "no number".to_owned())?;
    match count.checked_mul(1 << shift) {
        Some(bytes @ 1..) => Ok(bytes),
        _ => Err("out of range".to_owned()),
    }
}

fn main() -> anyhow::Result<()> {
    if !support::run::is_bench("loopback") {
        return Ok(());
    }
    let args = Args::parse();
    let framings = args.framing.prefixed();
    let steps = args.rounds * (framings.len() * args.sizes.len() * CONTENDERS.len()) as u64;
    let progress = support::run::progress(steps);

    let mut results = Vec::new();
    for &prefixed in framings {
        for &size in &args.sizes {
            let load = Load::new(size, prefixed, args.bytes_per_run);
            let mut took: Vec<Vec<Took>> = vec![Vec::new(); CONTENDERS.len()];
            for round in 0..args.rounds as usize {
                for turn in 0..CONTENDERS.len() {
                    let index = (turn + round) % CONTENDERS.len();
                    let contender = CONTENDERS[index];
                    progress.set_message(format!("{} {}", stats::bytes(size), contender.name()));
                    let measured = measure(contender, load)
                        .with_context(|| format!("{}, {load:?}", contender.name()))?;
                    took[index].push(measured);
                    progress.inc(1);
                }
            }
            results.push(Figures::new(load, &took));
        }
    }
    progress.finish_and_clear();

    for &prefixed in framings {
        let of_framing: Vec<_> = results
            .iter()
            .filter(|figures| figures.load.prefixed == prefixed)
            .collect();
        report(prefixed, &of_framing, &args);
    }
    if let Some(path) = &args.plot {
        plot::plot(path, &results).with_context(|| format!("cannot draw {}", path.display()))?;
        println!("drawn: {}", path.display());
    }
    Ok(())
}
