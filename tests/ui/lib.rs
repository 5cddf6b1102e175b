//! Code that must not compile, and the compiler's messages: each file of `cases` has its message beside it.
//!
//! ```console
//! $ cargo test --manifest-path tests/ui/Cargo.toml
//! ```
//!
//! Compilers word their messages differently, so only one version compares them. To adopt the messages of a
//! newer version, change `MADE_WITH` and run this command with `TRYBUILD=overwrite` in the environment.

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// The compiler whose messages are in `cases`.
    const MADE_WITH: &str = "rustc 1.95.";

    #[test]
    fn wrong_code_does_not_compile_and_says_why() {
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
