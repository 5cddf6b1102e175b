//! `--peak`: the peak memory of each contender, and its throughput.
//!
//! Each measurement runs in a process of its own, which contains both ends and the source. No contender can
//! need less than the raw limit.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use support::{
    run::{self, Schedule},
    stats::{self, Table, decimals},
    system,
};

use crate::{Args, ends, link::Link};

pub(crate) fn measure(args: &Args) -> anyhow::Result<()> {
    let contenders = run::contenders(&args.only);
    let loads = args.loads();
    let schedule = Schedule::new(contenders.clone(), args.rounds, loads.len());
    let mut tables = Vec::new();
    for (index, load) in loads.iter().enumerate() {
        let name = args.describe(load);
        let rounds = schedule.measure(&name, |contender| {
            let place = contenders.iter().position(|&one| one == contender);
            ask_child(index * contenders.len() + place.unwrap_or_default())
        })?;
        let mut table = Table::new(1, &["contender", "GB/s", "peak MiB", "largest peak MiB"]);
        for (contender, own) in &rounds {
            let seconds: Vec<_> = own.iter().map(|(seconds, _)| *seconds).collect();
            let mib: Vec<_> = own
                .iter()
                .map(|(_, bytes)| bytes / f64::from(1 << 20))
                .collect();
            table.row(vec![
                contender.name().to_owned(),
                decimals(load.gigabytes() / stats::median(&seconds), 2),
                decimals(stats::median(&mib), 1),
                decimals(stats::quantile(&mib, 1.0), 1),
            ]);
        }
        tables.push((name, table));
    }
    schedule.finish();
    args.heading(&format!("{} MiB a measurement", args.mib));
    for (name, table) in tables {
        args.title(&format!("peak resident memory: {name}"));
        println!("{}", table.render(args.markdown));
    }
    Ok(())
}

/// Starts a process for measurement number `place`, and returns its seconds and peak bytes. Measurements are
/// numbered load by load, contender by contender.
fn ask_child(place: usize) -> anyhow::Result<(f64, f64)> {
    let output = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .args(["--child", &place.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "it ended with {}", output.status);
    let answer = String::from_utf8(output.stdout)?;
    let (seconds, bytes) = answer.trim().split_once(' ').context("no two figures")?;
    Ok((seconds.parse()?, bytes.parse()?))
}

/// Makes measurement number `place` in the child. The child has the same arguments, so it has the same numbers.
pub(crate) fn child(args: &Args, place: usize, link: &Link) -> anyhow::Result<()> {
    let contenders = run::contenders(&args.only);
    let loads = args.loads();
    let load = loads
        .get(place / contenders.len())
        .context("no such load")?;
    let took = ends::throughput(contenders[place % contenders.len()], *load, link)?;
    let bytes = system::peak_resident_bytes().map_or(f64::NAN, |bytes| bytes as f64);
    println!("{} {bytes}", took.seconds);
    Ok(())
}
