//! Runs the seeds of the fuzz targets, and random inputs, through the same code.
//!
//! `INPUTS=100000 cargo test --release -p wholeblock-fuzz` tries more of them, and
//! `INPUT=17 cargo test -p wholeblock-fuzz -- session` one alone. A seed or an input that fails is
//! printed as Rust's `Debug` does.

use std::{
    env, fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
    process::ExitCode,
};

use arbitrary::Unstructured;
use fastrand::Rng;
use libtest_mimic::{Arguments, Failed, Trial};
use wholeblock_fuzz::{Run, decode, encode, session};

/// Random inputs of each kind, unless `INPUTS` says how many.
const INPUTS: u64 = 1_000;

/// The longest input, in bytes.
const MAX_LEN: usize = 2_000;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1); // because the allocator counts the whole process
    let trials = vec![
        trial::<decode::Input>("decode"),
        trial::<encode::Input>("encode"),
        trial::<session::Input>("session"),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial<I: Run>(name: &'static str) -> Trial {
    Trial::test(name, move || {
        if let Some(number) = number_in("INPUT") {
            return run::<I>(&random(number), &format!("INPUT={number}"));
        }
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("seeds")
            .join(name);
        for seed in fs::read_dir(&seeds).map_err(|error| format!("{}: {error}", seeds.display()))? {
            let path = seed?.path();
            run::<I>(&fs::read(&path)?, &path.display().to_string())?;
        }
        for number in 0..number_in("INPUTS").unwrap_or(INPUTS) {
            run::<I>(&random(number), &format!("INPUT={number}"))?;
        }
        Ok(())
    })
}

fn number_in(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().expect("a number"))
}

/// Returns the bytes of input `number`. The lowest bit of a byte says whether a list goes on, and each input
/// has its own odds for that.
fn random(number: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(number);
    let (len, goes_on) = (rng.usize(..MAX_LEN), rng.f64());
    let byte = |_| rng.u8(..) | u8::from(rng.f64() < goes_on);
    (0..len).map(byte).collect()
}

fn run<I: Run>(bytes: &[u8], name: &str) -> Result<(), Failed> {
    let Ok(input) = I::arbitrary_take_rest(Unstructured::new(bytes)) else {
        return Ok(()); // too few bytes
    };
    panic::catch_unwind(AssertUnwindSafe(|| input.run()))
        .map_err(|_| format!("{name}: {input:#?}").into())
}
