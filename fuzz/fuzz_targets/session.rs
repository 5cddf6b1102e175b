#![cfg_attr(fuzzing, no_main)]

use wholeblock_fuzz::{Run, session::Input};

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: Input| input.run());

/// Without libFuzzer, the target is only built, so that it compiles. `cargo fuzz` runs it.
#[cfg(not(fuzzing))]
fn main() {
    let _: fn(&Input) = Run::run;
}
