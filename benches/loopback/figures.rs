//! The figures of all measurements, and their tables.

use support::{
    contenders::Contender,
    load::Load,
    run::{Rounds, of},
    stats::{self, Table, decimals},
};

use crate::{Args, ends::Took};

/// The figures of one load.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) load: Load,
    pub(crate) lines: Vec<Line>,
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) contender: Contender,
    gb_per_s: f64,
    ns_per_block: f64,
    cpu_s_per_gb: Option<f64>,
    /// Throughput as a share of the raw limit's in the same round.
    of_raw: Vec<f64>,
    /// Throughput as a ratio to `LengthDelimitedCodec`'s in the same round.
    over_ld: Vec<f64>,
    /// Processor time as a ratio to `LengthDelimitedCodec`'s in the same round.
    cpu_over_ld: Vec<f64>,
}

impl Figures {
    pub(crate) fn new(load: Load, rounds: &Rounds<Took>) -> Self {
        let seconds = |took: &[Took]| -> Vec<f64> { took.iter().map(|t| t.seconds).collect() };
        let lines = rounds.iter().map(|(contender, took)| {
            let own = seconds(took);
            // All contenders move the same payload, so the inverse ratio of times is the ratio of throughputs.
            let against = |peer| {
                let peer = of(rounds, peer).unwrap_or_default();
                stats::ratios(&seconds(peer), &own)
            };
            let cpu: Option<Vec<f64>> = took.iter().map(|took| took.cpu).collect();
            let ld = of(rounds, Contender::Ld).unwrap_or_default();
            let ld_cpu: Option<Vec<f64>> = ld.iter().map(|took| took.cpu).collect();
            let cpu_over_ld = cpu.as_ref().zip(ld_cpu);
            Line {
                contender: *contender,
                gb_per_s: load.gigabytes() / stats::median(&own),
                ns_per_block: stats::median(&own) * 1e9 / load.blocks as f64,
                cpu_over_ld: cpu_over_ld.map_or(vec![], |(own, ld)| stats::ratios(own, &ld)),
                cpu_s_per_gb: cpu.map(|cpu| stats::median(&cpu) / load.gigabytes()),
                of_raw: against(Contender::Raw),
                over_ld: against(Contender::Ld),
            }
        });
        Self {
            load,
            lines: lines.collect(),
        }
    }
}

impl Line {
    /// NaN if the raw limit did not take part.
    pub(crate) fn of_raw(&self) -> f64 {
        stats::median(&self.of_raw)
    }
}

/// Prints a table for each load, and one of all sizes for each source and framing.
pub(crate) fn report(results: &[Figures], args: &Args) {
    for figures in results {
        args.title(&args.describe(&figures.load));
        println!("{}", table(figures).render(args.markdown));
    }
    for group in groups(results) {
        let load = group[0].load;
        args.title(&format!(
            "{}, {}: share of the raw limit (over LengthDelimitedCodec)",
            load.framing(),
            load.source.name()
        ));
        println!("{}", summary(group, share_and_ratio).render(args.markdown));
        args.title(&format!(
            "{}, {}: CPU seconds a GB, of both ends (over LengthDelimitedCodec's)",
            load.framing(),
            load.source.name()
        ));
        println!("{}", summary(group, cpu_and_ratio).render(args.markdown));
    }
}

/// Returns the results by source and framing. Results with the same ones are adjacent.
pub(crate) fn groups(results: &[Figures]) -> impl Iterator<Item = &[Figures]> {
    results.chunk_by(|a, b| (a.load.source, a.load.prefixed) == (b.load.source, b.load.prefixed))
}

/// Two decimals.
fn two(value: f64) -> String {
    decimals(value, 2)
}

fn table(figures: &Figures) -> Table {
    let mut table = Table::new(
        1,
        &[
            "contender",
            "GB/s",
            "ns/block",
            "of raw limit",
            "quartiles",
            "over LengthDelimitedCodec",
            "CPU s/GB",
        ],
    );
    for line in &figures.lines {
        let [lower, upper] = [0.25, 0.75].map(|share| stats::quantile(&line.of_raw, share));
        table.row(vec![
            line.contender.name().to_owned(),
            format!("{:.2}", line.gb_per_s),
            stats::grouped(line.ns_per_block.round() as usize),
            two(line.of_raw()),
            format!("{}-{}", two(lower), two(upper)),
            two(stats::median(&line.over_ld)),
            two(line.cpu_s_per_gb.unwrap_or(f64::NAN)),
        ]);
    }
    table
}

fn share_and_ratio(line: &Line) -> String {
    format!(
        "{} ({})",
        two(line.of_raw()),
        two(stats::median(&line.over_ld))
    )
}

fn cpu_and_ratio(line: &Line) -> String {
    let cpu = line.cpu_s_per_gb.unwrap_or(f64::NAN);
    format!("{} ({})", two(cpu), two(stats::median(&line.cpu_over_ld)))
}

/// Makes a table with a row for each contender and a column for each size.
fn summary(group: &[Figures], cell: impl Fn(&Line) -> String) -> Table {
    let sizes = group.iter().map(|figures| stats::bytes(figures.load.size));
    let heading: Vec<_> = ["contender".to_owned()].into_iter().chain(sizes).collect();
    let heading: Vec<_> = heading.iter().map(String::as_str).collect();
    let mut table = Table::new(1, &heading);
    // All loads have lines of the same contenders, in the same order.
    for (index, line) in group[0].lines.iter().enumerate() {
        let cells = group.iter().map(|figures| cell(&figures.lines[index]));
        let name = line.contender.name().to_owned();
        table.row([name].into_iter().chain(cells).collect());
    }
    table
}
