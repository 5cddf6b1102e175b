//! What must not compile, and what the compiler says of it: each file of `cases` with the message
//! beside it.
//!
//! ```console
//! $ cargo test --manifest-path tests/ui/Cargo.toml
//! ```
//!
//! Compilers word their messages differently, so these are compared by one version only. To take
//! over the messages of a newer one, change `MADE_WITH` and run that with `TRYBUILD=overwrite` in
//! the environment.

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// The compiler whose messages are in `cases`.
    const MADE_WITH: &str = "rustc 1.95.";

    #[test]
    fn what_must_not_compile_says_why() {
        let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
        let version = Command::new(rustc).arg("--version").output().unwrap();
        let version = String::from_utf8(version.stdout).unwrap();
        if !version.starts_with(MADE_WITH) {
            eprintln!("SKIPPED: the messages are those of {MADE_WITH}x, and this is {version}");
            return;
        }
        trybuild::TestCases::new().compile_fail("cases/*.rs");
    }
}
