//! When a benchmark runs, and in which order.

use std::{env, fmt::Display};

use anyhow::Context;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use super::contenders::Contender;

/// True if `cargo bench` started this program, which passes `--bench`.
///
/// Otherwise prints what to type, because `cargo test` has no time to measure.
pub fn is_bench(name: &str) -> bool {
    let asked = env::args().any(|arg| arg == "--bench") && env::args().all(|arg| arg != "--test");
    if !asked {
        println!("nothing was measured; to measure: cargo bench -p benches --bench {name}");
    }
    asked
}

/// Parses a number of rounds or connections, for clap.
pub fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..) => Ok(count),
        _ => Err("not a number from 1 on".to_owned()),
    }
}

/// Returns the contenders that `--only` names, or all if it names none.
pub fn contenders(only: &[Contender]) -> Vec<Contender> {
    match only {
        [] => Contender::value_variants().to_vec(),
        only => only.to_vec(),
    }
}

/// How fast something was, and the processor seconds it took, which are NaN if the system does not tell.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub rate: f64,
    pub cpu: f64,
}

/// The rates of all turns, and their processor seconds.
pub fn rates_and_cpu(turns: &[Turn]) -> (Vec<f64>, Vec<f64>) {
    turns.iter().map(|turn| (turn.rate, turn.cpu)).unzip()
}

/// The measurements of each contender, round by round, in the order of the contenders.
pub type Rounds<M, C = Contender> = Vec<(C, Vec<M>)>;

/// The order of all measurements. Contenders take turns, another one first in each round, so that a machine
/// that is slow for a while is slow for all of them. One more round comes first, to warm up, and does not
/// count.
#[derive(Debug)]
pub struct Schedule<C = Contender> {
    contenders: Vec<C>,
    rounds: usize,
    /// Shown only on a terminal. Drawn between two measurements, never during one.
    progress: ProgressBar,
}

impl<C: Copy + Display> Schedule<C> {
    /// Makes a schedule for `loads` calls of [`measure`](Self::measure).
    pub fn new(contenders: Vec<C>, rounds: usize, loads: usize) -> Self {
        let template = "{bar:30} {pos}/{len} [{elapsed} of {duration}] {msg}";
        let style = ProgressStyle::with_template(template).expect("a template without mistakes");
        let steps = contenders.len() * (1 + rounds) * loads;
        Self {
            contenders,
            rounds,
            progress: ProgressBar::new(steps as u64).with_style(style),
        }
    }

    pub fn measure<M>(
        &self,
        load: &str,
        measure: impl Fn(C) -> anyhow::Result<M>,
    ) -> anyhow::Result<Rounds<M, C>> {
        let mut took: Rounds<M, C> = Vec::new();
        took.extend(self.contenders.iter().map(|&contender| (contender, vec![])));
        let count = took.len();
        for round in 0..=self.rounds {
            for turn in 0..count {
                let (contender, measured) = &mut took[(round + turn) % count];
                let message = format!("{load}, {contender}");
                self.progress.set_message(message.clone());
                let one = measure(*contender).context(message)?;
                if round > 0 {
                    measured.push(one);
                }
                self.progress.inc(1);
            }
        }
        Ok(took)
    }

    pub fn finish(&self) {
        self.progress.finish_and_clear();
    }
}

/// Returns the measurements of `contender`, if it took part.
pub fn of<M, C: PartialEq>(rounds: &Rounds<M, C>, contender: C) -> Option<&[M]> {
    let found = rounds.iter().find(|(name, _)| *name == contender);
    found.map(|(_, measured)| &measured[..])
}
