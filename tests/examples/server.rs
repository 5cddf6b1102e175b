//! The server, against clients played by the tests.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpListener,
};

use crate::harness::*;

#[test]
fn a_block_that_comes_byte_by_byte_is_written_once_and_whole() {
    let folder = Folder::new();
    let (server, address) = start_server(&folder, &["--blocks", "3"]);
    let mut peer = peer(address, b"");
    for byte in blocks(3, 4, b"") {
        peer.write_all(&[byte]).unwrap();
    }
    drop(peer);
    server.end().ok();
    assert_blocks(&folder, "s.txt", 3, 4);
}

#[test]
fn several_clients_are_served_at_once_each_into_a_file_of_its_own() {
    let folder = Folder::new();
    let (mut server, address) = start_server(&folder, &["--connections", "3", "--blocks", "5"]);
    let mut first = peer(address, &blocks(2, 4, b""));
    let second = peer(address, &blocks(5, 4, b""));
    drop(second);
    server.line_with("connection 2: received"); // while the first is not half done
    let third = start_client(&folder, address, &["--block-size", "4", "--blocks", "5"]);
    third.end().ok();
    server.line_with("connection 3: received");
    first.write_all(&blocks(5, 4, b"")[8..]).unwrap();
    drop(first);
    server.end().ok();
    for name in ["s-1.txt", "s-2.txt", "s-3.txt"] {
        assert_blocks(&folder, name, 5, 4);
    }
}

#[test]
fn failed_connection_stops_no_other_and_shows_in_the_exit_status() {
    let folder = Folder::new();
    let (server, address) = start_server(&folder, &["--connections", "2", "--blocks", "5"]);
    drop(peer(address, &blocks(2, 4, b"")));
    drop(peer(address, &blocks(5, 4, b"")));
    let server = server.end();
    assert_eq!(server.status, FAILURE);
    assert!(server.stderr.contains("error: connection 1 (127.0.0.1:"));
    assert!(server.stderr.contains("error: 1 of 2 connections failed"));
    assert_blocks(&folder, "s-1.txt", 2, 4);
    assert_blocks(&folder, "s-2.txt", 5, 4);
}

#[test]
fn server_with_blocks_0_takes_all_until_a_clean_end() {
    let folder = Folder::new();
    let (server, address) = start_server(&folder, &["--blocks", "0"]);
    drop(peer(address, &blocks(7, 4, b"")));
    assert!(server.end().ok().stdout.contains(": 7 blocks, 28 B in "));
    assert_blocks(&folder, "s.txt", 7, 4);

    let (server, address) = start_server(&folder, &["--blocks", "0"]);
    drop(peer(address, &blocks(7, 4, b"")[..27]));
    server.end().failed(&[
        "after 6 whole blocks (24 bytes)",
        "3 of 4 payload bytes arrived",
    ]);
    assert_blocks(&folder, "s.txt", 6, 4);
}

#[test]
fn early_end_is_an_error_with_its_place_and_no_part_is_written() {
    let whole = b"aaaabbbbcccc".as_slice();
    let prefixed = b"\0\0\0\x04aaaa\0\0\0\x04bbbb\0\0\0\x04cccc".as_slice();
    /// The framing, three whole blocks, the part of the fourth that arrives, and parts of the error.
    type Case = (
        &'static str,
        &'static [u8],
        &'static [u8],
        &'static [&'static str],
    );
    let cases: &[Case] = &[
        (
            "exact",
            whole,
            b"",
            &[
                "(12 bytes)",
                "ended the connection, but 100 blocks were expected",
            ],
        ),
        (
            "exact",
            whole,
            b"aa",
            &["inside block 3, which begins at byte 12: 2 of 4 payload bytes"],
        ),
        (
            "prefixed",
            prefixed,
            b"",
            &["(24 bytes)", "but 100 blocks were expected"],
        ),
        (
            "prefixed",
            prefixed,
            b"\0\0",
            &["inside block 3, which begins at byte 24: 2 of at least 4"],
        ),
        (
            "prefixed",
            prefixed,
            b"\0\0\0\x04a",
            &["at byte 24: 1 of 4 payload bytes arrived"],
        ),
        (
            "prefixed",
            prefixed,
            b"\0\0\0\x05",
            &["block 3", "announces 5 bytes; the limit is 4"],
        ),
        (
            "varint",
            b"\x04aaaa\x04bbbb\x04cccc",
            b"\x04",
            &["at byte 15: 0 of 4 payload bytes"],
        ),
    ];
    for (framing, before, rest, parts) in cases {
        let folder = Folder::new();
        let (server, address) = start_server(&folder, &["--framing", framing]);
        drop(peer(address, &[*before, rest].concat()));
        server
            .end()
            .failed(&[&["after 3 whole blocks"], *parts].concat());
        assert_blocks(&folder, "s.txt", 3, 4);
    }
}

#[test]
#[cfg_attr(
    wine,
    ignore = "Wine's accept has no address for a peer that has reset, and its recv can return 0"
)]
fn a_reset_before_the_last_block_is_an_error_of_the_server() {
    let folder = Folder::new();
    let (server, address) = start_server(&folder, &[]);
    reset(peer(address, b"aaaabbbbccccaa"));
    let server = server
        .end()
        .failed(&["the client broke the connection off"]);
    // A system may throw away what came before a reset.
    assert_blocks(&folder, "s.txt", count_in(&server.stderr), 4);
}

#[test]
fn a_reset_after_the_last_block_is_a_warning_of_the_server() {
    let folder = Folder::new();
    let (mut server, address) = start_server(&folder, &["--blocks", "3", "--connections", "2"]);
    let peer_of_first = peer(address, b"aaaabbbbcccc");
    wait_for_blocks(&folder, "s-1.txt", 3, 4); // a reset throws away what has not been read
    reset(peer_of_first);
    server.line_with("connection 1: received");
    drop(peer(address, b"aaaabbbbcccc"));
    let server = server.end().ok();
    assert!(
        server
            .stderr
            .contains("warning: connection 1: the client reset"),
        "{}",
        server.stderr
    );
    assert_blocks(&folder, "s-1.txt", 3, 4);
}

#[test]
fn bytes_after_the_last_block_are_an_error() {
    for extra in ["aaaa", "a", "aaaabbbb"] {
        let folder = Folder::new();
        let (server, address) = start_server(&folder, &["--blocks", "3"]);
        let peer = peer(address, &[b"aaaabbbbcccc", extra.as_bytes()].concat());
        server.end().failed(&["peer sent more than 3 blocks"]); // without waiting for its end
        drop(peer);
        assert_blocks(&folder, "s.txt", 3, 4);
    }
}

#[test]
fn server_gives_up_on_a_silent_client_at_any_place() {
    let cases = [
        ("", 0, "nothing arrived for 200ms"),
        ("aaaabb", 1, "nothing arrived for 200ms"),
        (
            "aaaabbbbcccc",
            3,
            "the client did not end the connection within 200ms",
        ),
    ];
    for (sent, whole, message) in cases {
        let folder = Folder::new();
        let args = ["--blocks", "3", "--stall-timeout", "0.2"];
        let (server, address) = start_server(&folder, &args);
        let peer = peer(address, sent.as_bytes());
        server
            .end()
            .failed(&[message, &format!("after {whole} whole block")]);
        drop(peer);
        assert_blocks(&folder, "s.txt", whole, 4);
    }
}

#[test]
fn a_port_in_use_is_an_error_and_the_file_is_left_alone() {
    let folder = Folder::new();
    std::fs::write(folder.path().join("s.txt"), "aaaa\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = start(&folder, "server", &["--listen", &address]).end();
    server.failed(&[&format!("cannot listen on {address}: ")]);
    assert_blocks(&folder, "s.txt", 1, 4);
}

#[test]
#[cfg_attr(
    target_os = "macos",
    ignore = "macOS commonly lets a program open 256 files, and this test opens more"
)]
fn honest_client_is_served_beside_clients_that_complete_no_block() {
    const AT_ONCE: usize = 256;
    let folder = Folder::new();
    let args = [
        ["--connections", "257", "--blocks", "3"],
        ["--stall-timeout", "0", "--block-deadline", "0.3"],
    ];
    let (server, address) = start_server(&folder, args.as_flattened());
    let slow: Vec<_> = (0..AT_ONCE).map(|_| peer(address, b"aaaabb")).collect();
    drop(peer(address, b"aaaabbbbcccc"));
    let server = server.end();
    drop(slow);
    assert_eq!(server.status, FAILURE, "{}", server.stderr);
    let late = "after 1 whole block (4 bytes): the client began a block, and did not complete it \
                within 300ms";
    assert_eq!(server.stderr.matches(late).count(), AT_ONCE);
    assert!(
        server
            .stderr
            .ends_with("error: 256 of 257 connections failed"),
        "{}",
        server.stderr
    );
    assert_blocks(&folder, "s-1.txt", 1, 4);
    assert_blocks(&folder, "s-257.txt", 3, 4);
}

#[test]
fn server_writes_its_files_into_a_folder_given_as_out() {
    for out in ["", "/"].map(|end| format!("folder{end}")) {
        let folder = Folder::new();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        for (connections, file) in [("1", "folder/s.txt"), ("2", "folder/s-1.txt")] {
            let args = ["--out", &out, "--blocks", "3", "--connections", connections];
            let (mut server, address) = start_server(&folder, &args);
            drop(peer(address, b"aaaabbbbcccc"));
            server.line_with("received from ");
            assert_blocks(&folder, file, 3, 4);
        }
        let beside = std::fs::read_dir(folder.path()).unwrap().count() - 1;
        assert_eq!(beside, 0);
    }
}

#[test]
fn client_whose_file_cannot_be_made_is_reset_and_others_are_served() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("s-2.txt")).unwrap();
    let (mut server, address) = start_server(&folder, &["--connections", "3", "--blocks", "3"]);
    drop(peer(address, b"aaaabbbbcccc"));
    server.line_with("connection 1: received");
    let mut second = peer(address, b"");
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    let end = second.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    drop(peer(address, b"aaaabbbbcccc"));
    let server = server.end();
    assert_eq!(server.status, FAILURE);
    assert!(
        server.stderr.contains("cannot write s-2.txt: "),
        "{}",
        server.stderr
    );
    assert_blocks(&folder, "s-3.txt", 3, 4);
}

#[cfg(unix)] // elsewhere no such limit can be set for one process only
mod out_of_descriptors {
    use super::*;

    /// More connections than 40 descriptors allow, and fewer than may wait to be accepted on any system.
    const SILENT: usize = 40;

    /// Two limits, so that once the socket is one too many, and once its file.
    #[test]
    fn client_beyond_the_file_limit_waits_until_others_have_ended() {
        for limit in 40..42 {
            let folder = Folder::new();
            let (mut server, address) = start_server_after(
                &folder,
                &format!("ulimit -n {limit}"),
                &["--connections", "41", "--blocks", "0"],
            );
            let silent: Vec<_> = (0..SILENT).map(|_| peer(address, b"")).collect();
            drop(peer(address, b"aaaabbbbcccc"));
            server.complaint_with("warning: cannot accept connections for now: ");
            drop(silent);
            let server = server.end().ok();
            assert_eq!(server.stderr, "", "the warning is printed once");
            assert_blocks(&folder, "s-41.txt", 3, 4);
        }
    }
}

#[cfg(unix)] // elsewhere there is no signal to send to one process only
mod signals {
    use super::*;

    #[test]
    fn idle_server_succeeds_at_a_signal() {
        for signal in ["INT", "TERM"] {
            let folder = Folder::new();
            let args = ["--connections", "0", "--blocks", "3"];
            let (mut server, address) = start_server(&folder, &args);
            drop(peer(address, b"aaaabbbbcccc"));
            server.line_with("connection 1: received");
            server.signal(signal);
            let server = server.end().ok();
            assert!(
                server
                    .stdout
                    .ends_with("stopped by a signal; connections served: 1")
            );
            assert_eq!(server.stderr, "");
        }
    }

    #[test]
    fn busy_server_keeps_whole_blocks_and_fails_at_a_signal() {
        for signal in ["INT", "TERM"] {
            let folder = Folder::new();
            let (mut server, address) = start_server(&folder, &["--connections", "0"]);
            let busy = peer(address, b"aaaabb");
            drop(peer(address, b"")); // its end shows that the first has been accepted
            server.complaint_with("connection 2 ");
            server.signal(signal);
            let server = server.end();
            assert_eq!(server.status, FAILURE);
            assert!(
                server.stderr.contains("connection 1 (127.0.0.1:"),
                "{}",
                server.stderr
            );
            assert!(
                server.stderr.contains("stopped by a signal after "),
                "{}",
                server.stderr
            );
            drop(busy);
            assert_blocks(&folder, "s-1.txt", count_in(&server.stderr), 4);
        }
    }
}
