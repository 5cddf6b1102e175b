//! The example prints what the comment at its top shows, line by line.

use testing::programs::check_shown_output;

#[test]
fn typed() {
    let source = include_str!("../src/main.rs");
    check_shown_output(env!("CARGO_BIN_EXE_typed"), "cargo run -p typed", source);
}
