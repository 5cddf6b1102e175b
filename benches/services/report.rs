//! Tables of the rates and ratios.

use support::{
    contenders::Contender,
    run::{Rounds, Turn, of, rates_and_cpu},
    stats::{self, Table, decimals},
};

use crate::shapes::Job;

/// The figures of one size.
pub(crate) struct Figures {
    pub(crate) job: Job,
    /// Rates are requests a second.
    pub(crate) rounds: Rounds<Turn>,
}

/// Prints a table for each shape, number of connections and number of requests in flight.
pub(crate) fn print(results: &[Figures], markdown: bool) {
    for group in results.chunk_by(|a, b| a.job.describe() == b.job.describe()) {
        let title = group[0].job.describe();
        println!("{}{title}\n", if markdown { "## " } else { "" });
        println!("{}", table(group).render(markdown));
    }
}

/// Makes a table with a row for each size. A ratio is the median of the ratios within each round, beside the
/// least and the greatest. "CPU" is the ratio of processor times.
fn table(group: &[Figures]) -> Table {
    let others = || {
        let names = group[0].rounds.iter().map(|(contender, _)| *contender);
        names.filter(|&contender| contender != Contender::Ld)
    };
    let mut heading = vec!["size".to_owned(), "LengthDelimitedCodec /s".to_owned()];
    for contender in others() {
        heading.push(contender.name().to_owned());
        heading.push("min-max".to_owned());
        heading.push("CPU".to_owned());
    }
    let heading: Vec<_> = heading.iter().map(String::as_str).collect();
    let mut table = Table::new(1, &heading);
    for figures in group {
        let turns = |contender| rates_and_cpu(of(&figures.rounds, contender).unwrap_or_default());
        let (ld, ld_cpu) = turns(Contender::Ld);
        let rate = stats::median(&ld).round() as usize;
        let mut row = vec![stats::bytes(figures.job.size), stats::grouped(rate)];
        for contender in others() {
            let (rates, cpu) = turns(contender);
            let ratios = stats::ratios(&rates, &ld);
            let [least, median, most] =
                [0.0, 0.5, 1.0].map(|share| decimals(stats::quantile(&ratios, share), 2));
            row.push(median);
            row.push(format!("{least}-{most}"));
            row.push(decimals(stats::median(&stats::ratios(&cpu, &ld_cpu)), 2));
        }
        table.row(row);
    }
    table
}
