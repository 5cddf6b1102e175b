//! Whole sessions, both directions at once, against a model of the wire that is written by hand:
//! whatever the framing, the reads and the writes, whichever forms take turns, and wherever a future
//! is dropped or leaked, nothing is lost, repeated, torn or reordered, and every error is the right
//! one.
//!
//! `plans` generates a plan, `session` runs it. The model is `wire`, what a peer's bytes are;
//! `incoming`, what is to be received of them; and `outgoing`, what is to be on the wire. `receive`
//! and `send` ask the crate, and compare. `PROPTEST_CASES=100000 cargo test --release --test it model` runs more
//! of them.

mod coverage;
mod incoming;
mod link;
mod outgoing;
mod plans;
mod receive;
mod send;
mod session;
mod socket;
mod source;
mod wire;

use std::env;

use proptest::test_runner::{Config, TestRunner};
use wholeblock::AnyFraming;

use self::link::Own;

/// Sessions in a run that asks for no other number: a few seconds' worth without optimisation.
const CASES: u32 = 1_000;

/// Runs that are added, at most, until each of [`KINDS`] has been met: the rarest are met some four
/// times in a run, so that one run in fifty or so lacks one of them, and ten runs never do.
const MORE_RUNS: u32 = 9;

fn config() -> Config {
    let cases = match env::var_os("PROPTEST_CASES") {
        Some(_) => Config::default().cases,
        None => CASES,
    };
    Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    }
}

#[test]
fn a_session_goes_as_the_model_says_with_the_framings_of_the_crate_and_a_users_own() {
    run_sessions();
    let enough = config().cases >= CASES;
    let mut more = if enough { MORE_RUNS } else { 0 };
    while more > 0 && !coverage::never_met(&KINDS).is_empty() {
        run_sessions();
        more -= 1;
    }
    coverage::assert_known(&KINDS);
    if enough {
        let never = coverage::never_met(&KINDS);
        assert!(never.is_empty(), "never met: {never:?}");
    }
}

fn run_sessions() {
    let plans = (plans::plan(), proptest::bool::ANY);
    let result = TestRunner::new(config()).run(&plans, |(plan, own)| {
        if own || plan.needs_own() {
            session::run::<Own>(&plan);
        } else {
            session::run::<AnyFraming>(&plan);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// What the sessions are to meet, each at least once.
const KINDS: [&str; 41] = [
    "a batch",
    "a batch leaked",
    "a block fed",
    "a block from a stream",
    "a block lent",
    "a block over the limit",
    "a block refused",
    "a block refused in a transfer",
    "a block sent",
    "a block skipped",
    "a clean end",
    "a feed given up",
    "a flush given up",
    "a future dropped before it is polled",
    "a partial write",
    "a read that failed",
    "a receiver given up",
    "a receiver leaked",
    "a receiver that stops",
    "a send given up",
    "a source that fails",
    "a source that has nothing yet",
    "a stream given up",
    "a transfer given up",
    "a transfer leaked that takes what it has queued with it",
    "a vectored write",
    "a wait before another framing",
    "a wait inside of what is read by another framing",
    "a whole transfer",
    "a write that failed",
    "an end after an error",
    "an end in a header",
    "an end in a payload",
    "an invalid header",
    "another form",
    "another framing for what was read ahead",
    "another limit for a block that has begun",
    "another limit while a block is skipped",
    "blocks that come again after a leak",
    "silence",
    "too few blocks",
];
