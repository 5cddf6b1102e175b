//! The small examples print what the comment at their top shows, line by line.

use tempfile::TempDir;

use crate::harness::Running;

/// The command and the output that the first `text` block of `source` shows.
fn shown(source: &str) -> (String, String) {
    let comment = source.lines().map_while(|line| line.strip_prefix("//!"));
    let mut block = comment
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .skip_while(|line| *line != "```text")
        .skip(1)
        .take_while(|line| *line != "```");
    let command = block.next().expect("a command");
    assert_eq!(block.next(), Some(""), "a blank line after the command");
    (command.to_owned(), block.collect::<Vec<_>>().join("\n"))
}

#[track_caller]
fn prints_what_it_shows(name: &str, source: &str) {
    let (command, output) = shown(source);
    assert_eq!(command, format!("cargo run --example {name}"));
    assert!(!output.is_empty());
    let folder = TempDir::new().unwrap();
    let ended = Running::start(&folder, name, &[]).end().ok();
    assert_eq!((ended.stdout, ended.stderr), (output, String::new()));
}

macro_rules! examples {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let source = include_str!(concat!("../../examples/", stringify!($name), ".rs"));
            prints_what_it_shows(stringify!($name), source);
        }
    )*};
}

examples! { echo custom_framing writer_task request_response typed }
