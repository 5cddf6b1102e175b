//! The example programs, as their users meet them: run as processes, and judged by their exit status, their
//! output and the files they leave.
//!
//! `cargo test` builds them first. `cargo test --test examples` does not, and needs `cargo build
//! --examples` before it. The tests run nothing but the binaries, so they also run without cargo, for
//! example under Wine.

mod client;
mod harness;
mod pair;
mod server;
mod small;

use std::io::Read;
#[cfg(unix)]
use std::{io::Write, net::TcpListener};

use crate::harness::*;

#[test]
fn missing_folder_is_an_error_before_anything_is_sent() {
    let folder = Folder::new();
    let listen = ["--listen", "127.0.0.1:0", "--out", "none/s.txt"];
    let many = [&listen[..], &["--connections", "0"]].concat();
    let cases: [(&str, &[&str]); 4] = [
        ("server", &listen),
        ("server", &many),
        ("client", &["--log", "none/c.txt"]),
        ("pair", &["--out-dir", "none"]),
    ];
    for (name, args) in cases {
        start(&folder, name, args)
            .end()
            .failed(&["cannot write none"]);
    }
}

#[cfg(unix)] // elsewhere there is no file that is always full
#[test]
fn a_full_disk_is_an_error_of_either_side() {
    let folder = Folder::new();
    let (server, address) = start_server(&folder, &["--blocks", "3", "--out", "/dev/full"]);
    drop(peer(address, b"aaaabbbbcccc"));
    server.end().failed(&["cannot write /dev/full: "]);

    let args = ["--block-size", "4", "--log", "/dev/full"];
    let (client, mut socket) = client_of_ours(&folder, &args);
    let _ = socket.read_to_end(&mut Vec::new());
    client.end().failed(&["cannot write /dev/full: "]);
}

/// The disk takes the first writes, and only a part of a later one.
#[cfg(unix)] // elsewhere no such limit can be set for one process only
#[test]
fn file_on_a_disk_that_fills_up_holds_whole_blocks() {
    // 300 or 600 KiB: shells differ in their unit.
    let limit = "trap '' XFSZ && ulimit -f 600";
    let size = 51_200;
    let listen = ["--listen", "127.0.0.1:0"];
    let folder = Folder::new();
    let (server, address) = start_after(&folder, limit, "server", &listen).listening();
    let _ = peer(address, b"").write_all(&blocks(100, size, b""));
    server.end().failed(&["cannot write s.txt: "]);
    assert!(count_blocks(&folder, "s.txt", size) > 0);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = start_after(&folder, limit, "client", &["--connect", &address]);
    let (mut socket, _) = listener.accept().unwrap();
    let _ = socket.read_to_end(&mut Vec::new());
    client.end().failed(&["cannot write c.txt: "]);
    assert!(count_blocks(&folder, "c.txt", size) > 0);
}

/// Not even the first block fits.
#[cfg(unix)]
#[test]
fn large_block_that_does_not_fit_on_the_disk_leaves_no_part() {
    let limit = "trap '' XFSZ && ulimit -f 600";
    let folder = Folder::new();
    let args = ["--listen", "127.0.0.1:0", "--block-size", "3000000"];
    let (server, address) = start_after(&folder, limit, "server", &args).listening();
    let _ = peer(address, b"").write_all(&blocks(1, 3_000_000, b""));
    server.end().failed(&["cannot write s.txt: "]);
    assert_blocks(&folder, "s.txt", 0, 3_000_000);
}

#[test]
fn bad_arguments_end_with_exit_status_2() {
    let folder = Folder::new();
    let cases: &[(&str, &[&str])] = &[
        ("server", &["--block-size", "0"]),
        ("server", &["--framing", "guess"]),
        ("server", &["--listen", "here"]),
        ("server", &["--stall-timeout", "-1"]),
        ("server", &["--stall-timeout", "soon"]),
        ("server", &["--block-deadline", "-1"]),
        ("server", &["--block-deadline", "soon"]),
        ("server", &["--blocks", "-3"]),
        ("client", &["--block-size", "99999999999999999"]),
        ("client", &["--blocks", "0"]),
        ("client", &["--connect", "127.0.0.1:99999"]),
        ("pair", &["--framing", ""]),
        ("pair", &["stray"]),
    ];
    for (name, args) in cases {
        let ended = start(&folder, name, args).end();
        assert_eq!(
            ended.status, BAD_ARGUMENTS,
            "{name} {args:?}: {}",
            ended.stderr
        );
        assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
