//! Starts the examples, and checks the files that they leave.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

pub(crate) use testing::programs::*;

/// Blocks that are small enough to be written out in a test.
const SMALL: [&str; 2] = ["--block-size", "4"];

const LISTEN: &[&str] = &["--listen", "127.0.0.1:0"];

/// Starts an example in `folder`.
pub(crate) fn start(folder: &Folder, name: &str, args: &[&str]) -> Running {
    Running::start(folder, example(name), args)
}

/// Starts an example after the shell has done `preparation`.
#[cfg(unix)]
pub(crate) fn start_after(
    folder: &Folder,
    preparation: &str,
    name: &str,
    args: &[&str],
) -> Running {
    Running::start_after(folder, preparation, example(name), args)
}

/// Starts a server on a free port; returns where it listens, too.
pub(crate) fn start_server(folder: &Folder, args: &[&str]) -> (Running, SocketAddr) {
    start(folder, "server", &[LISTEN, &SMALL, args].concat()).listening()
}

/// The same, after the shell has done `preparation`.
#[cfg(unix)]
pub(crate) fn start_server_after(
    folder: &Folder,
    preparation: &str,
    args: &[&str],
) -> (Running, SocketAddr) {
    let args = [LISTEN, &SMALL, args].concat();
    start_after(folder, preparation, "server", &args).listening()
}

pub(crate) fn start_client(folder: &Folder, server: SocketAddr, args: &[&str]) -> Running {
    let server = server.to_string();
    start(folder, "client", &[&["--connect", &server], args].concat())
}

/// The blocks that the client sends, each with `end` behind it.
pub(crate) fn blocks(count: usize, size: usize, end: &[u8]) -> Vec<u8> {
    let block = |i: usize| [&vec![b"abc"[i % 3]; size], end].concat();
    (0..count).map(block).collect::<Vec<_>>().concat()
}

/// Asserts that `name` holds `count` whole blocks, and nothing else.
#[track_caller]
pub(crate) fn assert_blocks(folder: &Folder, name: &str, count: usize, size: usize) {
    let file = std::fs::read(folder.path().join(name)).unwrap();
    let same = file == blocks(count, size, b"\n");
    assert!(same, "{name}: {} bytes are not {count} blocks", file.len());
}

/// Asserts that `name` holds whole blocks, and nothing else; returns how many.
#[cfg(unix)]
#[track_caller]
pub(crate) fn count_blocks(folder: &Folder, name: &str, size: usize) -> usize {
    let len = std::fs::metadata(folder.path().join(name)).unwrap().len() as usize;
    let count = len / (size + 1);
    assert_blocks(folder, name, count, size);
    count
}

/// Waits until `name` holds `count` whole blocks. A server writes them once it has the last one, and prints
/// nothing before the client's end, so only its file shows that it has received everything.
pub(crate) fn wait_for_blocks(folder: &Folder, name: &str, count: usize, size: usize) {
    let path = folder.path().join(name);
    let whole = (count * (size + 1)) as u64;
    let deadline = Instant::now() + PATIENCE;
    let len = || std::fs::metadata(&path).map_or(0, |data| data.len());
    while len() < whole {
        assert!(
            Instant::now() < deadline,
            "{name}: {} of {whole} bytes",
            len()
        );
        thread::sleep(Duration::from_millis(1));
    }
}

/// Starts a client against a server played by the test, and returns the connection, too.
pub(crate) fn client_of_ours(folder: &Folder, args: &[&str]) -> (Running, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = start_client(folder, listener.local_addr().unwrap(), args);
    let (socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, socket)
}

/// The number of whole blocks that an error names.
pub(crate) fn count_in(stderr: &str) -> usize {
    let (_, rest) = stderr.split_once("after ").unwrap();
    rest.split_once(' ').unwrap().0.parse().unwrap()
}
