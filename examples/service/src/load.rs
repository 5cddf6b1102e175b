//! `service load`: compares requests a second and latencies of the service with the same service on
//! tokio-util's `LengthDelimitedCodec`.
//!
//! All use the same wire format. They take turns within one run, a different one first in each round, because
//! the speed of a machine changes meanwhile. Only the ratio within a round counts.
//!
//! `LengthDelimitedCodec` runs twice: without timeouts, and with a timeout that is simple to add,
//! `tokio_stream`'s for each request. Any timer makes each wait of the runtime slower.

mod turn;

use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;

use self::turn::{Contender, Turn, turn};
use crate::{connection::MAX_REQUEST, over::Over, say, seconds};

#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// What connections go over
    #[arg(long, value_enum, default_value = "tcp")]
    over: Over,

    /// Connections at once
    #[arg(long, default_value = "4", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,

    /// Requests that each connection has in flight
    #[arg(long, value_name = "REQUESTS", default_value = "16",
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pipelined: u32,

    /// Bytes of text in a request, or several such numbers
    #[arg(long, value_name = "BYTES", default_value = "64,1024,51200", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(..=MAX_REQUEST as i64 / 2))]
    payload: Vec<u32>,

    /// Rounds to count; one more goes before them
    #[arg(long, default_value = "9", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// How long each side's turn takes in a round
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = seconds)]
    turn: Duration,
}

pub(crate) async fn load(args: LoadArgs) -> anyhow::Result<()> {
    say(format_args!(
        "echo over {}; {} connections, {} requests in flight on each; {} rounds of {:?} a side",
        args.over, args.connections, args.pipelined, args.rounds, args.turn
    ));
    say(
        "clients and services share this process; a request's time includes waiting for those before it",
    );
    say(format_args!(
        "{:>10}  {:<30} {:>11} {:>10} {:>10}",
        "text", "", "requests/s", "p50", "p99"
    ));
    for &payload in &args.payload {
        compare(&args, payload as usize).await?;
    }
    Ok(())
}

async fn compare(args: &LoadArgs, payload: usize) -> anyhow::Result<()> {
    let mut sides = Vec::new();
    for contender in Contender::ALL {
        sides.push((contender, Figures::new()?));
    }
    let count = sides.len();
    for round in 0..=args.rounds {
        for place in 0..count {
            let (contender, figures) = &mut sides[(round as usize + place) % count];
            let turn = turn(*contender, args, payload).await?;
            // Caches and allocator are cold in the first round, so it does not count.
            if round > 0 {
                figures.add(&turn)?;
            }
        }
    }

    let ours = &sides[0].1;
    ours.print(&format!("{payload} B"), sides[0].0.name());
    for (contender, theirs) in &sides[1..] {
        theirs.print("", contender.name());
        let ratios = ours.rates.iter().zip(&theirs.rates).map(|(a, b)| a / b);
        let ratios = sorted(ratios.collect());
        say(format_args!(
            "{:>10}  {:<30} {:>11.2}   median of rounds; {:.2} to {:.2}",
            "",
            "ratio",
            median(&ratios),
            ratios[0],
            ratios[ratios.len() - 1]
        ));
    }
    Ok(())
}

/// The results of one side.
struct Figures {
    /// Requests a second in each round.
    rates: Vec<f64>,
    /// Nanoseconds of each request of all rounds.
    latencies: Histogram<u64>,
}

impl Figures {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            rates: Vec::new(),
            latencies: Histogram::new(3)?,
        })
    }

    fn add(&mut self, turn: &Turn) -> anyhow::Result<()> {
        let answered = turn.latencies.len() as f64;
        self.rates.push(answered / turn.took.as_secs_f64());
        self.latencies.add(&turn.latencies)?;
        Ok(())
    }

    fn print(&self, payload: &str, name: &str) {
        let at = |quantile| {
            let nanos = self.latencies.value_at_quantile(quantile);
            format!("{:.0} µs", nanos as f64 / 1e3)
        };
        say(format_args!(
            "{payload:>10}  {name:<30} {:>11.0} {:>10} {:>10}",
            median(&sorted(self.rates.clone())),
            at(0.5),
            at(0.99)
        ));
    }
}

fn sorted(mut numbers: Vec<f64>) -> Vec<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}
