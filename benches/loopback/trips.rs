//! `--trips`: one block there and back, again and again.

use std::sync::mpsc;
use support::{
    contenders::{Contender, Task},
    load::Load,
    run::{self, Schedule, of},
    stats::{self, Table},
};

use crate::{Args, ends, link::Link};

/// The p50 and p99 of one turn, in microseconds.
type Quantiles = [f64; 2];

pub(crate) fn measure(args: &Args, trips: u64, link: &Link) -> anyhow::Result<()> {
    let mut contenders = run::contenders(&args.only);
    // These do the same as `Framed` and `Ld` with one block at a time.
    let others = [
        Contender::Recv,
        Contender::RecvBatch,
        Contender::Ld64k,
        Contender::Helpers,
        Contender::TransportRecv,
        Contender::TransportSink,
    ];
    contenders.retain(|contender| !others.contains(contender));
    let mut loads = args.loads();
    for load in &mut loads {
        load.blocks = trips;
    }
    let schedule = Schedule::new(contenders, args.rounds, loads.len());
    let mut tables = Vec::new();
    for load in &loads {
        let name = args.describe(load);
        let rounds = schedule.measure(&name, |contender| one_turn(contender, *load, link))?;
        let mut table = Table::new(
            1,
            &["contender", "p50 µs", "p99 µs", "p50 ratio", "p99 ratio"],
        );
        let ld = of(&rounds, Contender::Ld).unwrap_or_default();
        for (contender, own) in &rounds {
            let column = |turns: &[Quantiles], which: usize| -> Vec<f64> {
                turns.iter().map(|quantiles| quantiles[which]).collect()
            };
            let micros = |which| format!("{:.1}", stats::median(&column(own, which)));
            let ratio = |which| {
                let ratios = stats::ratios(&column(own, which), &column(ld, which));
                stats::decimals(stats::median(&ratios), 3)
            };
            table.row(vec![
                contender.name().to_owned(),
                micros(0),
                micros(1),
                ratio(0),
                ratio(1),
            ]);
        }
        tables.push((name, table));
    }
    schedule.finish();
    args.heading(&format!("{} trips a turn", stats::grouped(trips as usize)));
    println!("ratios are to LengthDelimitedCodec in the same round: below 1 is faster\n");
    for (name, table) in tables {
        args.title(&format!("there and back: {name}"));
        println!("{}", table.render(args.markdown));
    }
    Ok(())
}

fn one_turn(contender: Contender, load: Load, link: &Link) -> anyhow::Result<Quantiles> {
    let (tell, told) = mpsc::channel();
    let ask = Task::Ask(load.source(), tell);
    ends::time(contender, load, link, ask, Task::Echo)?;
    let micros: Vec<f64> = told.iter().collect();
    Ok([0.5, 0.99].map(|share| stats::quantile(&micros, share)))
}
