//! The example programs, as their users meet them: run as processes, and judged by their exit
//! status, what they print and the files they leave.
//!
//! `cargo test` builds them first; `cargo test --test examples` does not, and needs a
//! `cargo build --examples` before it. They are run through their binaries alone, so that this
//! also runs where there is no cargo: under Wine, say.

mod client;
mod file;
mod harness;
mod pair;
mod server;
mod small;

use std::io::Read;

use tempfile::TempDir;

use crate::harness::*;

#[test]
fn a_file_in_a_folder_that_is_not_there_is_an_error_before_anything_is_sent() {
    let folder = TempDir::new().unwrap();
    let listen = ["--listen", "127.0.0.1:0", "--out", "none/s.txt"];
    let many = [&listen[..], &["--connections", "0"]].concat();
    let cases: [(&str, &[&str]); 4] = [
        ("server", &listen),
        ("server", &many),
        ("client", &["--log", "none/c.txt"]),
        ("pair", &["--out-dir", "none"]),
    ];
    for (name, args) in cases {
        Running::start(&folder, name, args)
            .end()
            .failed(&["cannot write none"]);
    }
}

#[cfg(unix)] // elsewhere there is no file that is always full
#[test]
fn a_full_disk_is_an_error_of_either_side() {
    let folder = TempDir::new().unwrap();
    let (server, address) = Running::server(&folder, &["--blocks", "3", "--out", "/dev/full"]);
    drop(peer(address, b"aaaabbbbcccc"));
    server.end().failed(&["cannot write /dev/full: "]);

    let args = ["--block-size", "4", "--log", "/dev/full"];
    let (client, mut socket) = client_of_ours(&folder, &args);
    let _ = socket.read_to_end(&mut Vec::new());
    client.end().failed(&["cannot write /dev/full: "]);
}

#[test]
fn bad_arguments_end_with_exit_status_2() {
    let folder = TempDir::new().unwrap();
    let cases: &[(&str, &[&str])] = &[
        ("server", &["--block-size", "0"]),
        ("server", &["--framing", "guess"]),
        ("server", &["--listen", "here"]),
        ("server", &["--stall-timeout", "-1"]),
        ("server", &["--stall-timeout", "soon"]),
        ("server", &["--blocks", "-3"]),
        ("client", &["--block-size", "99999999999999999"]),
        ("client", &["--blocks", "0"]),
        ("client", &["--connect", "127.0.0.1:99999"]),
        ("pair", &["--framing", ""]),
        ("pair", &["stray"]),
    ];
    for (name, args) in cases {
        let ended = Running::start(&folder, name, args).end();
        assert_eq!(
            ended.status, BAD_ARGUMENTS,
            "{name} {args:?}: {}",
            ended.stderr
        );
        assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
