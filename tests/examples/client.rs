//! The client, against servers played by the tests.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use crate::harness::*;

#[test]
fn client_writes_the_blocks_and_nothing_else() {
    let folder = Folder::new();
    let args = [
        "--block-size",
        "5",
        "--blocks",
        "4",
        "--send-buffer-times",
        "0",
    ];
    let (client, mut socket) = client_of_ours(&folder, &args);
    let mut wire = Vec::new();
    socket.read_to_end(&mut wire).unwrap();
    assert_eq!(wire, b"aaaaabbbbbcccccaaaaa");
    drop(socket);
    assert!(client.end().ok().stdout.contains("left alone"));
}

#[test]
fn a_refused_connection_is_an_error_and_nothing_is_logged() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = start_client(&folder, address, &[]).end();
    client.failed(&[&format!("cannot connect to {address}: ")]);
    assert_blocks(&folder, "c.txt", 0, 51_200);
}

/// Runs a client with more to send than any buffer takes, against a server that does `then` after it has
/// read `read` bytes. Asserts that the log holds only what was handed over.
fn client_cut_short(read: usize, args: &[&str], then: fn(TcpStream), parts: &[&str]) {
    let folder = Folder::new();
    let (client, mut socket) = client_of_ours(&folder, &[&["--blocks", "2000"], args].concat());
    socket.read_exact(&mut vec![0; read]).unwrap();
    then(socket);
    let client = client.end().failed(parts);
    let handed_over = count_in(&client.stderr);
    assert!(
        (read / 51_200..2_000).contains(&handed_over),
        "{handed_over}"
    );
    assert_blocks(&folder, "c.txt", handed_over, 51_200);
}

#[test]
fn client_fails_and_stops_its_log_if_the_server_resets() {
    client_cut_short(
        3 * 51_200,
        &[],
        reset,
        &["the server broke the connection off"],
    );
    client_cut_short(1, &[], reset, &["the server broke the connection off"]);
}

#[test]
fn client_fails_and_stops_its_log_if_the_server_closes_early() {
    client_cut_short(3 * 51_200 + 5, &[], drop, &["the server "]);
}

#[test]
fn client_fails_and_stops_its_log_if_the_server_stops_reading() {
    // Leaked, so that the socket stays open.
    let args = ["--stall-timeout", "0.3"];
    client_cut_short(
        51_200,
        &args,
        std::mem::forget,
        &["nothing could be written for 300ms"],
    );
}

/// Runs a client against a server that does `then` after it has read all the blocks and the end.
fn client_left_with(then: fn(TcpStream), message: &str) {
    let folder = Folder::new();
    let args = [
        "--block-size",
        "4",
        "--blocks",
        "3",
        "--stall-timeout",
        "0.3",
    ];
    let (client, mut socket) = client_of_ours(&folder, &args);
    socket.read_to_end(&mut Vec::new()).unwrap();
    then(socket);
    client
        .end()
        .failed(&["after 3 whole blocks (12 bytes)", message]);
    assert_blocks(&folder, "c.txt", 3, 4);
}

#[test]
fn client_fails_if_the_server_does_not_end_after_the_last_block() {
    // Leaked, so that the socket stays open.
    client_left_with(
        std::mem::forget,
        "the server did not end the connection within 300ms",
    );
    let answer = |mut socket: TcpStream| {
        socket.write_all(b"?").unwrap();
        std::mem::forget(socket);
    };
    client_left_with(answer, "the server sent data");
}

#[test]
fn a_reset_after_the_last_block_is_an_error_of_the_client() {
    client_left_with(reset, "what was handed over may not have arrived");
}

#[cfg(unix)] // elsewhere there is no signal to send to one process only
#[test]
fn busy_client_keeps_its_log_and_fails_at_a_signal() {
    for signal in ["INT", "TERM"] {
        let folder = Folder::new();
        let (client, mut socket) = client_of_ours(&folder, &["--blocks", "2000"]);
        socket.read_exact(&mut [0; 51_200]).unwrap();
        client.signal(signal);
        let client = client.end().failed(&["stopped by a signal"]);
        assert_blocks(&folder, "c.txt", count_in(&client.stderr), 51_200);
    }
}
