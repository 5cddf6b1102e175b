//! A misbehaving network: servers and clients on simulated hosts. The network delays, reorders, drops and
//! holds what they send. The hosts crash, lose power and start again. Clients resume at the block that the
//! server names. No block may be lost, repeated or torn, and every error must be an expected one, with the
//! right numbers.
//!
//! Each seed is another run. `NETWORK_SEEDS=5000 cargo test --release -p testing --test network` tries more of
//! them, `NETWORK_SEED=17 cargo test -p testing --test network` one alone.

mod block;
mod connection;
mod faults;
mod hosts;
mod run;
mod wire;

use std::{
    env,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use self::{faults::simulate, run::Tally};

const SEEDS: u64 = 1_000;

/// What all seeds together must meet. Otherwise they prove nothing.
const MUST_BE_MET: &[&str] = &[
    "block cut",
    "broken pipe",
    "clean end",
    "client crash",
    "client without power",
    "connecting timed out",
    "connection refused",
    "connection superseded",
    "given up",
    "gone on after a timeout",
    "hold",
    "late",
    "partition",
    "partition to the client",
    "partition to the server",
    "receive cancelled",
    "reset",
    "resumed",
    "send cancelled",
    "server crash",
    "server without power",
    "stalled",
];

#[test]
fn nothing_is_lost_or_repeated_over_a_misbehaving_network() {
    if let Some(seed) = number("NETWORK_SEED") {
        println!("{:#?}", run(seed));
        return;
    }
    let seeds = number("NETWORK_SEEDS").unwrap_or(SEEDS);
    let met = run_all(seeds);
    println!("{seeds} seeds met {met:#?}");
    if seeds < SEEDS {
        return; // they may miss some
    }
    for what in MUST_BE_MET {
        assert!(met.contains_key(what), "not one {what:?} in {seeds} seeds");
    }
}

#[test]
fn seed_gives_the_same_run_each_time() {
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed));
    }
}

/// Runs all seeds. A simulation takes one thread, and several do not disturb each other.
fn run_all(seeds: u64) -> Tally {
    let next = AtomicU64::new(0);
    let met = Mutex::new(Tally::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let tally = run(seed);
            let mut met = met.lock().unwrap();
            for (what, times) in tally {
                *met.entry(what).or_default() += times;
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    met.into_inner().unwrap()
}

fn run(seed: u64) -> Tally {
    let ended = catch_unwind(AssertUnwindSafe(|| simulate(seed)));
    let failure = match ended {
        Ok(Ok(tally)) => return tally,
        Ok(Err(failure)) => failure,
        Err(_) => "see above".into(),
    };
    panic!(
        "seed {seed} failed: {failure}\n\
         alone: NETWORK_SEED={seed} cargo test -p testing --test network -- nothing_is_lost --nocapture"
    );
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().expect(variable))
}
