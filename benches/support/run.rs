//! When a benchmark runs, and what shows how far it is.

use std::env;

use indicatif::{ProgressBar, ProgressStyle};

/// Whether this was started to measure: `cargo bench` says `--bench`, `cargo test` does not.
///
/// Says what to type if it was not, for a test run has no time to measure.
pub(crate) fn is_bench(name: &str) -> bool {
    let asked = env::args().any(|arg| arg == "--bench") && env::args().all(|arg| arg != "--test");
    if !asked {
        println!("nothing was measured; to measure: cargo bench --bench {name}");
    }
    asked
}

/// A progress bar over `steps` measurements; on a terminal only. It is drawn between them, never
/// while one is under way.
pub(crate) fn progress(steps: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} [{elapsed} of {duration}] {msg}")
            .expect("a template without mistakes");
    ProgressBar::new(steps).with_style(style)
}
