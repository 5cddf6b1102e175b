//! Client and server together, as two processes and in the one process of `pair`.

use std::process::{Command, Stdio};

use crate::harness::*;

#[test]
fn the_pair_leaves_two_files_with_every_block_whatever_the_framing() {
    for (framing, size) in [
        ("exact", 51_200),
        ("prefixed", 300),
        ("varint", 1),
        ("exact", 3 << 20),
    ] {
        let folder = Folder::new();
        let size_arg = size.to_string();
        let args = [
            "--framing",
            framing,
            "--block-size",
            &size_arg,
            "--blocks",
            "20",
        ];
        let pair = start(&folder, "pair", &args).end().ok();
        assert!(
            pair.stdout
                .contains("a program that took each completed read for a block")
        );
        assert!(
            pair.stdout
                .contains("are the same, byte for byte: 20 blocks")
        );
        assert_blocks(&folder, "s.txt", 20, size);
        assert_blocks(&folder, "c.txt", 20, size);
    }
}

#[test]
fn the_client_and_the_server_move_every_block_whatever_the_framing() {
    for framing in ["exact", "prefixed", "varint"] {
        let folder = Folder::new();
        let args = ["--framing", framing, "--block-size", "51200"];
        let mut server = start(
            &folder,
            "server",
            &[&args[..], &["--listen", "127.0.0.1:0"]].concat(),
        );
        let line = server.line_with("listening on ");
        let address = line["listening on ".len()..].parse().unwrap();
        let client = start_client(&folder, address, &args).end().ok();
        assert!(client.stdout.contains("send buffer: default "));
        assert!(client.stdout.contains(": 100 blocks, 5.12 MB in "));
        assert!(
            server
                .end()
                .ok()
                .stdout
                .contains(": 100 blocks, 5.12 MB in ")
        );
        assert_blocks(&folder, "s.txt", 100, 51_200);
        assert_blocks(&folder, "c.txt", 100, 51_200);
    }
}

#[test]
fn client_fails_too_if_the_server_wanted_more_blocks() {
    let folder = Folder::new();
    let (server, address) = start_server(&folder, &["--blocks", "5"]);
    let args = ["--block-size", "4", "--blocks", "3"];
    start_client(&folder, address, &args)
        .end()
        .failed(&["reset the connection"]);
    server
        .end()
        .failed(&["after 3 whole blocks (12 bytes)", "5 blocks were expected"]);
}

#[test]
fn pair_succeeds_even_if_nobody_reads_its_output() {
    let folder = Folder::new();
    let mut pair = Command::new(example("pair"))
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(pair.stdout.take());
    let ended = pair.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), SUCCESS);
    assert_blocks(&folder, "s.txt", 100, 51_200);
}

#[cfg(unix)] // elsewhere there is no signal to send to one process only
#[test]
fn a_pair_that_gets_a_signal_leaves_whole_blocks_in_both_files() {
    for signal in ["INT", "TERM"] {
        let folder = Folder::new();
        let args = ["--block-size", "5", "--blocks", "1000000000"];
        let mut pair = start(&folder, "pair", &args);
        pair.line_with("send buffer: ");
        pair.signal(signal);
        let pair = pair.end();
        assert_eq!(pair.status, FAILURE);
        assert!(
            pair.stderr.contains("error: client: ") && pair.stderr.contains("stopped by a signal"),
            "{}",
            pair.stderr
        );
        for name in ["c.txt", "s.txt"] {
            count_blocks(&folder, name, 5);
        }
    }
}
