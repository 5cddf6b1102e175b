//! Starts the example programs, plays the other end of their connections, and judges how they end.

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
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const SUCCESS: Option<i32> = Some(0);
pub(crate) const FAILURE: Option<i32> = Some(1);
pub(crate) const BAD_ARGUMENTS: Option<i32> = Some(2);

/// Blocks that are small enough to be written out in a test.
const SMALL: [&str; 2] = ["--block-size", "4"];

const LISTEN: &[&str] = &["--listen", "127.0.0.1:0"];

/// An example that runs; killed if it still does when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    deadline: Instant,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    seen: Vec<String>,
}

pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `target/debug/deps/examples-1234` runs `target/debug/examples/NAME`.
pub(crate) fn binary(name: &str) -> PathBuf {
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
    pub(crate) fn start(folder: &TempDir, name: &str, args: &[&str]) -> Self {
        let mut command = Command::new(binary(name));
        command.args(args);
        Self::spawn(folder, command)
    }

    /// An example that runs after the shell has done `preparation`, a limit to what it may use, say.
    #[cfg(unix)]
    pub(crate) fn start_after(
        folder: &TempDir,
        preparation: &str,
        name: &str,
        args: &[&str],
    ) -> Self {
        let mut command = Command::new("sh");
        let script = format!("{preparation} && exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(binary(name)).args(args);
        Self::spawn(folder, command)
    }

    fn spawn(folder: &TempDir, mut command: Command) -> Self {
        let mut child = command
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
    pub(crate) fn server(folder: &TempDir, args: &[&str]) -> (Self, SocketAddr) {
        Self::start(folder, "server", &[LISTEN, &SMALL, args].concat()).listening()
    }

    /// The same, after the shell has done `preparation`.
    #[cfg(unix)]
    pub(crate) fn server_after(
        folder: &TempDir,
        preparation: &str,
        args: &[&str],
    ) -> (Self, SocketAddr) {
        let args = [LISTEN, &SMALL, args].concat();
        Self::start_after(folder, preparation, "server", &args).listening()
    }

    pub(crate) fn listening(mut self) -> (Self, SocketAddr) {
        let line = self.line_with("listening on ");
        (self, line["listening on ".len()..].parse().unwrap())
    }

    pub(crate) fn client(folder: &TempDir, server: SocketAddr, args: &[&str]) -> Self {
        let server = server.to_string();
        Self::start(folder, "client", &[&["--connect", &server], args].concat())
    }

    /// Waits for a line of stdout with `part` in it.
    pub(crate) fn line_with(&mut self, part: &str) -> String {
        loop {
            let left = self.left();
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

    /// Waits for a line of stderr with `part` in it. It will not be among those of the end.
    pub(crate) fn complaint_with(&mut self, part: &str) {
        loop {
            let line = self.stderr.recv_timeout(self.left());
            let line = line.unwrap_or_else(|_| panic!("no {part:?} on stderr"));
            if line.contains(part) {
                return;
            }
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    pub(crate) fn end(mut self) -> Ended {
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

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends `INT`, as Ctrl-C does, or another signal.
    #[cfg(unix)] // elsewhere there is no signal to send to one process only
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let killed = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(killed.success());
    }

    /// `seen` and what follows in `pipe` until the program's end, which closes it.
    fn rest(&self, pipe: &Receiver<String>, mut seen: Vec<String>) -> String {
        loop {
            match pipe.recv_timeout(self.left()) {
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
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, SUCCESS, "{}", self.stderr);
        self
    }

    /// Asserts exit status 1 and one line on stderr, with each of `parts` in it.
    #[track_caller]
    pub(crate) fn failed(self, parts: &[&str]) -> Self {
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
pub(crate) fn blocks(count: usize, size: usize, end: &[u8]) -> Vec<u8> {
    let block = |i: usize| [&vec![b"abc"[i % 3]; size], end].concat();
    (0..count).map(block).collect::<Vec<_>>().concat()
}

/// Asserts that `name` holds `count` whole blocks, and nothing else.
#[track_caller]
pub(crate) fn assert_blocks(folder: &TempDir, name: &str, count: usize, size: usize) {
    let file = std::fs::read(folder.path().join(name)).unwrap();
    let same = file == blocks(count, size, b"\n");
    assert!(same, "{name}: {} bytes are not {count} blocks", file.len());
}

/// Asserts that `name` holds whole blocks, and nothing else; returns how many.
#[cfg(unix)]
#[track_caller]
pub(crate) fn count_blocks(folder: &TempDir, name: &str, size: usize) -> usize {
    let len = std::fs::metadata(folder.path().join(name)).unwrap().len() as usize;
    let count = len / (size + 1);
    assert_blocks(folder, name, count, size);
    count
}

/// Waits until `name` holds `count` whole blocks. A server puts them there once it has the last one,
/// and says nothing before the client's end; so its file is what shows that all has been received.
pub(crate) fn wait_for_blocks(folder: &TempDir, name: &str, count: usize, size: usize) {
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

/// Drops `stream` so that its peer sees a reset.
#[allow(deprecated)] // what replaces it is newer than the oldest tokio supported
pub(crate) fn reset(stream: TcpStream) {
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
pub(crate) fn peer(server: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut peer = TcpStream::connect(server).unwrap();
    peer.set_nodelay(true).unwrap();
    peer.write_all(bytes).unwrap();
    peer
}

/// A client started against a server that is this test, and its connection.
pub(crate) fn client_of_ours(folder: &TempDir, args: &[&str]) -> (Running, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Running::client(folder, listener.local_addr().unwrap(), args);
    let (socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, socket)
}

/// The number of whole blocks that an error says there were.
pub(crate) fn count_in(stderr: &str) -> usize {
    let (_, rest) = stderr.split_once("after ").unwrap();
    rest.split_once(' ').unwrap().0.parse().unwrap()
}
