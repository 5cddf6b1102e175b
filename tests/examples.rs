//! The example programs, as their users meet them: run as processes, and judged by their exit
//! status, what they print and the files they leave.
//!
//! `cargo test` builds them first; `cargo test --test examples` does not, and needs a
//! `cargo build --examples` before it. They are run through their binaries alone, so that this
//! also runs where there is no cargo: under Wine, say.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// No program here has more than a second's work. One that takes this long hangs.
const PATIENCE: Duration = Duration::from_secs(20);

const SUCCESS: Option<i32> = Some(0);
const FAILURE: Option<i32> = Some(1);
const BAD_ARGUMENTS: Option<i32> = Some(2);

/// Blocks that are small enough to be written out in a test.
const SMALL: [&str; 2] = ["--block-size", "4"];

/// An example that runs; killed if it still does when dropped.
struct Running {
    child: Child,
    deadline: Instant,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    seen: Vec<String>,
}

struct Ended {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

/// `target/debug/deps/examples-1234` runs `target/debug/examples/NAME`.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let binary = profile.join("examples").join(file);
    assert!(
        binary.exists(),
        "run `cargo build --examples` first: there is no {}",
        binary.display()
    );
    binary
}

fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let _ = sender.send(line.unwrap());
        }
    });
    receiver
}

impl Running {
    fn start(folder: &TempDir, name: &str, args: &[&str]) -> Self {
        let mut child = Command::new(binary(name))
            .args(args)
            .current_dir(folder.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            stdout: lines_of(child.stdout.take().unwrap()),
            stderr: lines_of(child.stderr.take().unwrap()),
            child,
            deadline: Instant::now() + PATIENCE,
            seen: Vec::new(),
        }
    }

    /// A server on a free port, and where it listens.
    fn server(folder: &TempDir, args: &[&str]) -> (Self, SocketAddr) {
        let args = [&["--listen", "127.0.0.1:0"], &SMALL[..], args].concat();
        let mut server = Self::start(folder, "server", &args);
        let line = server.line_with("listening on ");
        (server, line["listening on ".len()..].parse().unwrap())
    }

    fn client(folder: &TempDir, server: SocketAddr, args: &[&str]) -> Self {
        let server = server.to_string();
        Self::start(folder, "client", &[&["--connect", &server], args].concat())
    }

    /// Waits for a line of stdout with `part` in it.
    fn line_with(&mut self, part: &str) -> String {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.stdout.recv_timeout(left) else {
                let errors: Vec<String> = self.stderr.try_iter().collect();
                panic!("no line with {part:?}; stderr: {errors:?}");
            };
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    fn end(mut self) -> Ended {
        let stderr = self.rest(&self.stderr, Vec::new());
        let stdout = self.rest(&self.stdout, self.seen.clone());
        let status = self.child.wait().unwrap().code();
        assert!(!stderr.contains("panicked"), "{stderr}");
        Ended {
            status,
            stdout,
            stderr,
        }
    }

    /// `seen` and what follows in `pipe` until the program's end, which closes it.
    fn rest(&self, pipe: &Receiver<String>, mut seen: Vec<String>) -> String {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match pipe.recv_timeout(left) {
                Ok(line) => seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return seen.join("\n"),
                Err(RecvTimeoutError::Timeout) => panic!("does not end; said so far: {seen:?}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.status, SUCCESS, "{}", self.stderr);
        self
    }

    /// Asserts exit status 1 and one line on stderr, with each of `parts` in it.
    #[track_caller]
    fn failed(self, parts: &[&str]) -> Self {
        assert_eq!(self.status, FAILURE, "{}{}", self.stdout, self.stderr);
        let lines: Vec<&str> = self
            .stderr
            .lines()
            .filter(|l| !l.starts_with("warning:"))
            .collect();
        assert_eq!(lines.len(), 1, "not one line: {}", self.stderr);
        assert!(lines[0].starts_with("error: "), "{}", self.stderr);
        for part in parts {
            assert!(lines[0].contains(part), "no {part:?} in: {}", lines[0]);
        }
        self
    }
}

/// The blocks that the client sends, each with `end` behind it.
fn blocks(count: usize, size: usize, end: &[u8]) -> Vec<u8> {
    let block = |i: usize| [&vec![b"abc"[i % 3]; size], end].concat();
    (0..count).map(block).collect::<Vec<_>>().concat()
}

/// Asserts that `name` holds `count` whole blocks, and nothing else.
#[track_caller]
fn assert_blocks(folder: &TempDir, name: &str, count: usize, size: usize) {
    let file = std::fs::read(folder.path().join(name)).unwrap();
    let same = file == blocks(count, size, b"\n");
    assert!(same, "{name}: {} bytes are not {count} blocks", file.len());
}

/// Drops `stream` so that its peer sees a reset.
#[allow(deprecated)] // what replaces it is newer than the oldest tokio supported
fn reset(stream: TcpStream) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    stream.set_linger(Some(Duration::ZERO)).unwrap();
}

/// A connection to `server` that has sent `bytes`.
fn peer(server: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut peer = TcpStream::connect(server).unwrap();
    peer.set_nodelay(true).unwrap();
    peer.write_all(bytes).unwrap();
    peer
}

/// A client started against a server that is this test, and its connection.
fn client_of_ours(folder: &TempDir, args: &[&str]) -> (Running, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Running::client(folder, listener.local_addr().unwrap(), args);
    let (socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, socket)
}

/// The number of whole blocks that an error says there were.
fn count_in(stderr: &str) -> usize {
    let (_, rest) = stderr.split_once("after ").unwrap();
    rest.split_once(' ').unwrap().0.parse().unwrap()
}

#[test]
fn the_pair_leaves_two_files_with_every_block_whatever_the_framing() {
    for (framing, size) in [
        ("exact", 51_200),
        ("prefixed", 300),
        ("varint", 1),
        ("exact", 3 << 20),
    ] {
        let folder = TempDir::new().unwrap();
        let size_arg = size.to_string();
        let args = [
            "--framing",
            framing,
            "--block-size",
            &size_arg,
            "--blocks",
            "20",
        ];
        let pair = Running::start(&folder, "pair", &args).end().ok();
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
        let folder = TempDir::new().unwrap();
        let args = ["--framing", framing, "--block-size", "51200"];
        let mut server = Running::start(
            &folder,
            "server",
            &[&args[..], &["--listen", "127.0.0.1:0"]].concat(),
        );
        let line = server.line_with("listening on ");
        let address = line["listening on ".len()..].parse().unwrap();
        let client = Running::client(&folder, address, &args).end().ok();
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
fn the_bare_wire_is_the_blocks_and_nothing_else() {
    let folder = TempDir::new().unwrap();
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
fn a_block_that_comes_byte_by_byte_is_written_once_and_whole() {
    let folder = TempDir::new().unwrap();
    let (server, address) = Running::server(&folder, &["--blocks", "3"]);
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
    let folder = TempDir::new().unwrap();
    let (mut server, address) = Running::server(&folder, &["--connections", "3", "--blocks", "5"]);
    let mut first = peer(address, &blocks(2, 4, b""));
    let second = peer(address, &blocks(5, 4, b""));
    drop(second);
    server.line_with("connection 2: received"); // while the first is not half done
    let third = Running::client(&folder, address, &["--block-size", "4", "--blocks", "5"]);
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
fn a_connection_that_fails_does_not_stop_the_others_but_shows_in_the_exit_status() {
    let folder = TempDir::new().unwrap();
    let (server, address) = Running::server(&folder, &["--connections", "2", "--blocks", "5"]);
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
fn with_blocks_0_the_server_takes_what_comes_until_a_clean_end() {
    let folder = TempDir::new().unwrap();
    let (server, address) = Running::server(&folder, &["--blocks", "0"]);
    drop(peer(address, &blocks(7, 4, b"")));
    assert!(server.end().ok().stdout.contains(": 7 blocks, 28 B in "));
    assert_blocks(&folder, "s.txt", 7, 4);

    let (server, address) = Running::server(&folder, &["--blocks", "0"]);
    drop(peer(address, &blocks(7, 4, b"")[..27]));
    server.end().failed(&[
        "after 6 whole blocks (24 bytes)",
        "3 of 4 payload bytes arrived",
    ]);
    assert_blocks(&folder, "s.txt", 6, 4);
}

#[test]
fn a_client_that_ends_too_early_is_an_error_with_its_place_and_no_part_of_a_block_is_written() {
    let whole = b"aaaabbbbcccc".as_slice();
    let prefixed = b"\0\0\0\x04aaaa\0\0\0\x04bbbb\0\0\0\x04cccc".as_slice();
    /// The framing, three whole blocks, what comes of the fourth, and what the error says.
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
        let folder = TempDir::new().unwrap();
        let (server, address) = Running::server(&folder, &["--framing", framing]);
        drop(peer(address, &[*before, rest].concat()));
        server
            .end()
            .failed(&[&["after 3 whole blocks"], *parts].concat());
        assert_blocks(&folder, "s.txt", 3, 4);
    }
}

#[test]
fn a_reset_before_the_last_block_is_an_error_of_the_server() {
    let folder = TempDir::new().unwrap();
    let (server, address) = Running::server(&folder, &[]);
    reset(peer(address, b"aaaabbbbccccaa"));
    let server = server
        .end()
        .failed(&["the client broke the connection off"]);
    // A system may throw away what came before a reset.
    assert_blocks(&folder, "s.txt", count_in(&server.stderr), 4);
}

#[test]
fn a_reset_after_the_last_block_is_a_warning_of_the_server() {
    let folder = TempDir::new().unwrap();
    let (mut server, address) = Running::server(&folder, &["--blocks", "3", "--connections", "2"]);
    reset(peer(address, b"aaaabbbbcccc"));
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
fn bytes_after_the_last_block_are_an_error_of_the_client_be_they_a_block_or_less() {
    for extra in ["aaaa", "a", "aaaabbbb"] {
        let folder = TempDir::new().unwrap();
        let (server, address) = Running::server(&folder, &["--blocks", "3"]);
        let peer = peer(address, &[b"aaaabbbbcccc", extra.as_bytes()].concat());
        server.end().failed(&["peer sent more than 3 blocks"]); // without waiting for its end
        drop(peer);
        assert_blocks(&folder, "s.txt", 3, 4);
    }
}

#[test]
fn a_client_that_falls_silent_is_given_up_on_wherever_it_is() {
    let cases = [
        ("", 0, "not a byte moved for 200ms"),
        ("aaaabb", 1, "not a byte moved for 200ms"),
        (
            "aaaabbbbcccc",
            3,
            "the client did not end the connection within 200ms",
        ),
    ];
    for (sent, whole, message) in cases {
        let folder = TempDir::new().unwrap();
        let args = ["--blocks", "3", "--stall-timeout", "0.2"];
        let (server, address) = Running::server(&folder, &args);
        let peer = peer(address, sent.as_bytes());
        server
            .end()
            .failed(&[message, &format!("after {whole} whole block")]);
        drop(peer);
        assert_blocks(&folder, "s.txt", whole, 4);
    }
}

#[test]
fn a_refused_connection_is_an_error_and_nothing_is_logged() {
    let folder = TempDir::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = Running::client(&folder, address, &[]).end();
    client.failed(&[&format!("cannot connect to {address}: ")]);
    assert_blocks(&folder, "c.txt", 0, 51_200);
}

/// Runs a client with more to send than any buffer takes, against a server that does `then` after
/// it has read `read` bytes. Whatever was not handed over may not be in the log.
fn client_cut_short(read: usize, args: &[&str], then: fn(TcpStream), parts: &[&str]) {
    let folder = TempDir::new().unwrap();
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
fn a_server_that_resets_is_an_error_of_the_client_and_the_log_stops_there() {
    client_cut_short(
        3 * 51_200,
        &[],
        reset,
        &["the server broke the connection off"],
    );
    client_cut_short(1, &[], reset, &["the server broke the connection off"]);
}

#[test]
fn a_server_that_closes_early_is_an_error_of_the_client_and_the_log_stops_there() {
    client_cut_short(3 * 51_200 + 5, &[], drop, &["the server "]);
}

#[test]
fn a_server_that_stops_reading_is_given_up_on_and_the_log_stops_there() {
    // Leaked, so that the socket stays open.
    let args = ["--stall-timeout", "0.3"];
    client_cut_short(
        51_200,
        &args,
        std::mem::forget,
        &["not a byte moved for 300ms"],
    );
}

#[test]
fn after_its_last_block_the_client_waits_for_the_end_of_the_server() {
    let end_missing = "the server did not end the connection within 300ms";
    let may_not_have = "what was handed over may not have arrived";
    type Then = fn(TcpStream);
    let answer: Then = |mut socket| {
        socket.write_all(b"?").unwrap();
        std::mem::forget(socket);
    };
    let cases: [(Then, &str); 3] = [
        (std::mem::forget, end_missing),
        (reset, may_not_have),
        (answer, "the server sent data"),
    ];
    for (then, message) in cases {
        let folder = TempDir::new().unwrap();
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
}

#[test]
fn a_server_that_wanted_more_lets_the_client_fail_too() {
    let folder = TempDir::new().unwrap();
    let (server, address) = Running::server(&folder, &["--blocks", "5"]);
    let args = ["--block-size", "4", "--blocks", "3"];
    Running::client(&folder, address, &args)
        .end()
        .failed(&["reset the connection"]);
    server
        .end()
        .failed(&["after 3 whole blocks (12 bytes)", "5 blocks were expected"]);
}

#[test]
fn a_port_in_use_is_an_error_and_the_file_is_left_alone() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("s.txt"), "aaaa\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Running::start(&folder, "server", &["--listen", &address]).end();
    server.failed(&[&format!("cannot listen on {address}: ")]);
    assert_blocks(&folder, "s.txt", 1, 4);
}

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

#[test]
fn nobody_reading_the_output_is_no_reason_to_fail() {
    let folder = TempDir::new().unwrap();
    let mut pair = Command::new(binary("pair"))
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
mod ctrl_c {
    use super::*;

    fn interrupt(running: &Running) {
        let kill = format!("kill -INT {}", running.child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
    }

    #[test]
    fn an_idle_server_ends_well() {
        let folder = TempDir::new().unwrap();
        let args = ["--connections", "0", "--blocks", "3"];
        let (mut server, address) = Running::server(&folder, &args);
        drop(peer(address, b"aaaabbbbcccc"));
        server.line_with("connection 1: received");
        interrupt(&server);
        let server = server.end().ok();
        assert!(
            server
                .stdout
                .ends_with("stopped by Ctrl-C; connections served: 1")
        );
        assert_eq!(server.stderr, "");
    }

    #[test]
    fn a_busy_server_keeps_the_whole_blocks_and_ends_with_an_error() {
        let folder = TempDir::new().unwrap();
        let (server, address) = Running::server(&folder, &["--connections", "0"]);
        let busy = peer(address, b"aaaabb");
        drop(peer(address, b"")); // its end shows that the first has been accepted
        while !server
            .stderr
            .recv_timeout(PATIENCE)
            .unwrap()
            .contains("connection 2 ")
        {}
        interrupt(&server);
        let server = server.end();
        assert_eq!(server.status, FAILURE);
        assert!(
            server.stderr.contains("connection 1 (127.0.0.1:"),
            "{}",
            server.stderr
        );
        assert!(
            server.stderr.contains("stopped by Ctrl-C after "),
            "{}",
            server.stderr
        );
        drop(busy);
        assert_blocks(&folder, "s-1.txt", count_in(&server.stderr), 4);
    }

    #[test]
    fn a_busy_client_keeps_its_log_and_ends_with_an_error() {
        let folder = TempDir::new().unwrap();
        let (client, mut socket) = client_of_ours(&folder, &["--blocks", "2000"]);
        socket.read_exact(&mut [0; 51_200]).unwrap();
        interrupt(&client);
        let client = client.end().failed(&["stopped by Ctrl-C"]);
        assert_blocks(&folder, "c.txt", count_in(&client.stderr), 51_200);
    }
}
