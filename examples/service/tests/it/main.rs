//! The service, its client and its load, over every transport.

#[cfg(unix)] // elsewhere there is no signal to send to one process only
mod shutdown;
#[cfg(unix)]
mod unix;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{self, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use testing::programs::*;

const SERVICE: &str = env!("CARGO_BIN_EXE_service");

const TRANSPORTS: &[&str] = if cfg!(unix) {
    &["tcp", "tls", "local"]
} else {
    &["tcp", "local"]
};

/// How long a test waits for something that must not happen.
const A_WHILE: Duration = Duration::from_millis(300);

/// Starts a service, and returns its address, too.
fn serve(folder: &Folder, over: &str, args: &[&str]) -> (Running, String) {
    static PIPES: AtomicU32 = AtomicU32::new(0);
    let address = match over {
        "local" if cfg!(windows) => format!(
            r"\\.\pipe\wholeblock-service-{}-{}",
            process::id(),
            PIPES.fetch_add(1, Ordering::Relaxed)
        ),
        "local" => "service.sock".to_owned(),
        _ => "127.0.0.1:0".to_owned(),
    };
    let own = ["serve", "--over", over, "--listen", &address];
    let mut service = Running::start(folder, SERVICE, &[&own, args].concat());
    let listening = format!("listening on {over} ");
    let line = service.line_with(&listening);
    (service, line[listening.len()..].to_owned())
}

fn call(folder: &Folder, over: &str, address: &str, requests: &[&str]) -> Running {
    let own = ["call", "--over", over, "--connect", address];
    Running::start(folder, SERVICE, &[&own, requests].concat())
}

/// Ends the service, and asserts that it has ended well.
#[cfg(unix)]
fn stop(service: Running) -> Ended {
    service.signal("TERM");
    service.end().ok()
}

/// Elsewhere there is no signal to send to one process only.
#[cfg(windows)]
fn stop(service: Running) {
    drop(service);
}

/// A client played by a test, over TCP.
struct Peer(TcpStream);

impl Peer {
    fn new(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// Sends all requests in one write, so that they arrive together.
    fn send(&mut self, requests: &[&[u8]]) {
        let wire: Vec<u8> = requests.iter().flat_map(|block| prefixed(block)).collect();
        self.0.write_all(&wire).unwrap();
    }

    fn receive(&mut self) -> String {
        let mut len = [0; 4];
        self.0.read_exact(&mut len).unwrap();
        let mut block = vec![0; u32::from_be_bytes(len) as usize];
        self.0.read_exact(&mut block).unwrap();
        String::from_utf8(block).unwrap()
    }

    /// Asserts that the service says no more, and ends the connection without a reset.
    fn ends(&mut self) {
        assert_eq!(self.0.read(&mut [0]).unwrap(), 0);
    }

    fn is_silent(&mut self) -> bool {
        self.0.set_read_timeout(Some(A_WHILE)).unwrap();
        let read = self.0.read(&mut [0]);
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        read.is_err()
    }
}

fn prefixed(block: &[u8]) -> Vec<u8> {
    [&(block.len() as u32).to_be_bytes()[..], block].concat()
}

#[test]
fn pipelined_requests_of_many_clients_are_answered_in_order_over_each_transport() {
    for over in TRANSPORTS {
        let folder = Folder::new();
        let (service, address) = serve(&folder, over, &[]);
        let requests = ["sleep 200", "echo hello", "upper hello", "sum 1 2 -4"];
        let clients: Vec<_> = (0..5)
            .map(|_| call(&folder, over, &address, &requests))
            .collect();
        for client in clients {
            let answers = client.end().ok().stdout;
            assert_eq!(answers, "slept 200 ms\nhello\nHELLO\n-1", "{over}");
        }
        let _ended = stop(service);
        #[cfg(unix)]
        {
            let said = "stopped; connections: 5, requests answered: 20";
            assert!(_ended.stdout.ends_with(said), "{}", _ended.stdout);
            let closed = "connection{number=5 peer=";
            assert!(_ended.stderr.contains(closed), "{}", _ended.stderr);
            assert_eq!(_ended.stderr.matches("closed answered=4").count(), 5);
            assert!(!_ended.stderr.contains("WARN"), "{}", _ended.stderr);
            assert!(!folder.path().join("service.sock").exists());
        }
    }
}

#[test]
fn client_sends_more_lines_of_stdin_than_buffers_hold() {
    let folder = Folder::new();
    let (service, address) = serve(&folder, "tcp", &["--pipelined", "3"]);
    let mut client = Command::new(SERVICE)
        .args(["call", "--connect", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = "x".repeat(10_000);
    let lines: String = (0..2_000).map(|n| format!("echo {n} {text}\n")).collect();
    let mut stdin = client.stdin.take().unwrap();
    let writing = std::thread::spawn({
        let lines = lines.clone();
        move || stdin.write_all(lines.as_bytes()).unwrap()
    });
    let ended = client.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(ended.status.success());
    let answers = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(answers.replace('\r', ""), lines.replace("echo ", ""));
    let _ = stop(service);
}

#[test]
fn client_prints_refusals_in_their_place_and_fails() {
    let folder = Folder::new();
    let (_service, address) = serve(&folder, "tcp", &["--request-timeout", "0.2"]);
    let requests = [
        "echo",
        "guess",
        "sum 1 x",
        "sum 9223372036854775807 1",
        "sleep",
        "sleep 60000",
        "echo last",
    ];
    let ended = call(&folder, "tcp", &address, &requests).end();
    let ended = ended.failed(&["5 of 7 requests were refused"]);
    let answers = [
        "",
        "refused: unknown request; known are echo, upper, sum, sleep",
        "refused: not a number: \"x\"",
        "refused: the sum does not fit into 64 bits",
        "refused: not a number: \"\"",
        "refused: request timed out",
        "last",
    ];
    assert_eq!(ended.stdout, answers.join("\n"));
}

#[test]
fn a_client_over_the_limit_is_served_once_another_has_gone() {
    let folder = Folder::new();
    let (service, address) = serve(&folder, "tcp", &["--connections", "2"]);
    let mut peers = [(); 2].map(|()| Peer::new(&address));
    for peer in &mut peers {
        peer.send(&[b"echo in"]);
        assert_eq!(peer.receive(), "+in");
    }
    let mut waiting = Peer::new(&address);
    waiting.send(&[b"echo late"]);
    assert!(waiting.is_silent());
    let [gone, mut stays] = peers;
    drop(gone);
    assert_eq!(waiting.receive(), "+late");
    stays.send(&[b"upper still in"]);
    assert_eq!(stays.receive(), "+STILL IN");
    let _ = stop(service);
}

#[test]
fn a_client_that_vanishes_or_is_too_slow_costs_only_its_own_connection() {
    let folder = Folder::new();
    let args = ["--stall-timeout", "0.4", "--block-deadline", "0.2"];
    let (service, address) = serve(&folder, "tcp", &args);

    // Vanishes inside a request, while the service owes it an answer.
    let mut vanishing = Peer::new(&address);
    vanishing.send(&[b"echo here", b"sleep 100", b"echo x"]);
    assert_eq!(vanishing.receive(), "+here");
    vanishing.0.write_all(b"\0\0").unwrap();
    reset(vanishing.0);
    // The whole request is answered, although the next one is cut.
    let mut cut = Peer::new(&address);
    cut.send(&[b"sleep 1"]);
    cut.0.write_all(b"\0\0\0\x05echo").unwrap();
    cut.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(cut.receive(), "+slept 1 ms");
    cut.ends();
    // Announces too large a request.
    let mut large = Peer::new(&address);
    large.0.write_all(b"\x7f\0\0\0").unwrap();
    large.ends();
    // Sends a part of a block and no more.
    let mut late = Peer::new(&address);
    late.0.write_all(b"\0\0\0\x05e").unwrap();
    late.ends();
    // Sends nothing at all.
    Peer::new(&address).ends();
    // A client that waits for an answer is not silent.
    let mut patient = Peer::new(&address);
    patient.send(&[b"sleep 1000"]);
    assert_eq!(patient.receive(), "+slept 1000 ms");
    patient.send(&[b"echo still here"]);
    assert_eq!(patient.receive(), "+still here");

    let client = call(&folder, "tcp", &address, &["echo fine"]).end().ok();
    assert_eq!(client.stdout, "fine");
    let _ended = stop(service);
    #[cfg(unix)]
    for part in [
        "number=1 ",
        "4 of 5 payload bytes arrived",
        "announces 2130706432 bytes; the limit is 1048576",
        "took longer than 200ms",
        "nothing arrived for 400ms at block 0",
    ] {
        let mut warnings = _ended.stderr.lines().filter(|line| line.contains("WARN"));
        assert!(warnings.any(|l| l.contains(part)), "{}", _ended.stderr);
    }
}

/// Asserts that a second service cannot listen at the address of the first, which goes on.
fn second_service_fails(over: &str) {
    let folder = Folder::new();
    let (service, address) = serve(&folder, over, &[]);
    let other = [
        "serve",
        "--over",
        over,
        "--listen",
        &address,
        #[cfg(unix)]
        "--certificate",
        #[cfg(unix)]
        "other.pem",
    ];
    let other = Running::start(&folder, SERVICE, &other).end();
    other.failed(&[&format!("cannot listen on {address}: ")]);
    let client = call(&folder, over, &address, &["echo here"]).end().ok();
    assert_eq!(client.stdout, "here");
    let _ = stop(service);
}

#[test]
fn a_second_service_does_not_take_the_address_of_the_first() {
    second_service_fails("tcp");
    #[cfg(unix)]
    second_service_fails("tls");
}

#[test]
#[cfg_attr(
    wine,
    ignore = "Wine ignores FILE_FLAG_FIRST_PIPE_INSTANCE, so a second service can take the name"
)]
fn a_second_service_does_not_take_the_path_of_the_first() {
    second_service_fails("local");
}

#[test]
fn client_says_that_it_cannot_connect_without_a_service() {
    let folder = Folder::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let missing = if cfg!(windows) {
        r"\\.\pipe\wholeblock-no-service"
    } else {
        "none.sock"
    };
    for (over, address) in [("tcp", &*address), ("local", missing)] {
        let client = call(&folder, over, address, &["echo x"]).end();
        client.failed(&[&format!("cannot connect to {address}: ")]);
    }
}

#[test]
fn client_fails_if_the_service_ends_early_or_gives_no_answer() {
    let folder = Folder::new();
    let cases: [(&[u8], &str); 3] = [
        (
            b"\0\0\0\x03+in",
            "after 1 answer: the service ended the connection",
        ),
        (
            b"\0\0\0\x03+in\0\0\0\x02",
            "after 1 answer: stream ended inside block 1",
        ),
        (b"\0\0\0\x01?", "after 0 answers: what came is no answer"),
    ];
    for (answers, error) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let client = call(&folder, "tcp", &address, &["echo in", "echo out"]);
        let (mut socket, _) = listener.accept().unwrap();
        let mut requests = [0; 2 * 4 + 7 + 8];
        socket.read_exact(&mut requests).unwrap();
        assert_eq!(requests, *b"\0\0\0\x07echo in\0\0\0\x08echo out");
        socket.write_all(answers).unwrap();
        drop(socket);
        client.end().failed(&[error]);
    }

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let args = ["--stall-timeout", "0.2", "echo in"];
    let client = call(&folder, "tcp", &address, &args);
    let _silent = listener.accept().unwrap();
    client
        .end()
        .failed(&["after 0 answers: nothing arrived for 200ms"]);
}

#[test]
fn wrong_arguments_end_with_exit_status_2() {
    let folder = Folder::new();
    let cases: &[&[&str]] = &[
        &["guess"],
        &["serve", "--over", "pigeon"],
        &["serve", "--connections", "0"],
        &["serve", "--pipelined", "0"],
        &["serve", "--grace", "0"],
        &["serve", "stray"],
        &["call", "--stall-timeout", "soon"],
        &["load", "--payload", "64,many"],
        &["load", "--rounds", "0"],
    ];
    for args in cases {
        let ended = Running::start(&folder, SERVICE, args).end();
        assert_eq!(ended.status, BAD_ARGUMENTS, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn load_prints_all_sides_and_their_ratios_for_each_payload() {
    let folder = Folder::new();
    for over in TRANSPORTS {
        let args = "--connections 2 --pipelined 4 --rounds 2 --turn 0.05 --payload 64,50000";
        let own = ["load", "--over", over];
        let args: Vec<&str> = own.into_iter().chain(args.split(' ')).collect();
        let load = Running::start(&folder, SERVICE, &args).end().ok();
        let lines: Vec<&str> = load.stdout.lines().collect();
        let head = format!(
            "echo over {over}; 2 connections, 4 requests in flight on each; 2 rounds of 50ms a side"
        );
        assert_eq!(lines[0], head);
        assert_eq!(lines.len(), 3 + 2 * 5, "{}", load.stdout);
        for (lines, payload) in lines[3..].chunks(5).zip(["64", "50000"]) {
            let words: Vec<Vec<&str>> = lines
                .iter()
                .map(|line| line.split_ascii_whitespace().collect())
                .collect();
            assert_eq!(words[0][..3], [payload, "B", "wholeblock"]);
            assert_eq!(words[1][0], "LengthDelimitedCodec");
            assert_eq!(words[3][..2], ["LengthDelimitedCodec,", "timeout"]);
            for figures in [&words[0][3..], &words[1][1..], &words[3][2..]] {
                let [rate, p50, "µs", p99, "µs"] = figures else {
                    panic!("{}", load.stdout);
                };
                let [rate, p50, p99] = [rate, p50, p99].map(|n| n.parse::<f64>().unwrap());
                assert!(rate > 0.0 && p50 > 0.0 && p99 >= p50, "{}", load.stdout);
            }
            for ratio in [&words[2], &words[4]] {
                assert_eq!(ratio[0], "ratio");
                assert!(ratio[1].parse::<f64>().unwrap() > 0.0);
            }
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
