//! What was measured, in figures.

use crate::{
    Args,
    contenders::{CONTENDERS, Contender},
    ends::{Load, Took},
    support::stats::{self, Table},
};

/// The figures of one framing and block size.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) load: Load,
    /// Raw first, as the better of the two in each round.
    pub(crate) lines: Vec<Line>,
    /// In how many rounds `write_vectored` was the better.
    vectored_won: usize,
}

#[derive(Debug)]
pub(crate) struct Line {
    /// None for raw.
    pub(crate) contender: Option<Contender>,
    pub(crate) of_raw: f64,
    /// The lower and upper quartile of `of_raw`.
    quartiles: (f64, f64),
    of_length_delimited: f64,
    gb_per_s: f64,
    ns_per_block: f64,
    cpu_s_per_gb: Option<f64>,
}

impl Figures {
    pub(crate) fn new(load: Load, took: &[Vec<Took>]) -> Self {
        let of = |contender: Contender| &took[contender as usize];
        let pairs = of(Contender::RawFilled)
            .iter()
            .zip(of(Contender::RawVectored));
        let raw: Vec<Took> = pairs
            .clone()
            .map(|(a, b)| if b.wall < a.wall { *b } else { *a })
            .collect();
        let peer = of(Contender::LengthDelimited);
        let line = |contender, own: &[Took]| Line::new(load, contender, own, &raw, peer);
        let mut lines = vec![line(None, &raw)];
        for contender in CONTENDERS {
            if !contender.is_raw() || contender == Contender::RawCut {
                lines.push(line(Some(contender), of(contender)));
            }
        }
        Self {
            load,
            lines,
            vectored_won: pairs.filter(|(a, b)| b.wall < a.wall).count(),
        }
    }
}

impl Line {
    fn new(
        load: Load,
        contender: Option<Contender>,
        own: &[Took],
        raw: &[Took],
        peer: &[Took],
    ) -> Self {
        let seconds = |took: &[Took]| -> Vec<f64> {
            took.iter().map(|took| took.wall.as_secs_f64()).collect()
        };
        let own_s = seconds(own);
        // Every contender moves the same payload, so that the ratio of throughputs is that of times.
        let shares = stats::ratios(&seconds(raw), &own_s);
        let gigabytes = load.payload_bytes() / 1e9;
        let cpu: Option<Vec<f64>> = own.iter().map(|took| took.cpu).collect();
        Self {
            contender,
            of_raw: stats::median(&shares),
            quartiles: (
                stats::quantile(&shares, 0.25),
                stats::quantile(&shares, 0.75),
            ),
            of_length_delimited: stats::median_ratio(&seconds(peer), &own_s),
            gb_per_s: gigabytes / stats::median(&own_s),
            ns_per_block: stats::median(&own_s) * 1e9 / load.blocks as f64,
            cpu_s_per_gb: cpu.map(|cpu| stats::median(&cpu) / gigabytes),
        }
    }

    fn name(&self) -> &'static str {
        self.contender.map_or("raw", Contender::name)
    }
}

pub(crate) fn report(prefixed: bool, results: &[&Figures], args: &Args) {
    let framing = match prefixed {
        true => "length-prefixed (big-endian u32)",
        false => "exact length (LengthDelimitedCodec with its header)",
    };
    println!("{framing}, medians of {} rounds\n", args.rounds);
    let mut table = Table::new(
        2,
        &[
            "block",
            "contender",
            "of raw",
            "middle half",
            "over LengthDelimitedCodec",
            "GB/s",
            "ns/block",
            "CPU s/GB",
        ],
    );
    for figures in results {
        for line in &figures.lines {
            table.row(vec![
                stats::bytes(figures.load.size),
                line.name().to_owned(),
                format!("{:.2}", line.of_raw),
                format!("{:.2}-{:.2}", line.quartiles.0, line.quartiles.1),
                format!("{:.2}", line.of_length_delimited),
                format!("{:.2}", line.gb_per_s),
                stats::grouped(line.ns_per_block.round() as usize),
                line.cpu_s_per_gb
                    .map_or_else(|| "unknown".to_owned(), |cpu| format!("{cpu:.2}")),
            ]);
        }
    }
    println!("{}", table.render(args.markdown));
    for figures in results {
        println!(
            "raw at {}: write_vectored was the better in {} of {} rounds, write_all in the others",
            stats::bytes(figures.load.size),
            figures.vectored_won,
            args.rounds,
        );
        if args.markdown {
            println!();
        }
    }
    if !args.markdown {
        println!();
    }
}
