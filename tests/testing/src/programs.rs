//! Starts the example programs, plays the other end of their connections, and judges how they end.

use std::{
    env, fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// No program here has more than a second's work. One that takes this long hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const SUCCESS: Option<i32> = Some(0);
pub const FAILURE: Option<i32> = Some(1);
pub const BAD_ARGUMENTS: Option<i32> = Some(2);

/// An empty folder, removed with all that is in it when dropped.
pub struct Folder(PathBuf);

#[expect(clippy::new_without_default, reason = "it makes a folder on the disk")]
impl Folder {
    pub fn new() -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
            let name = format!("wholeblock-test-{}-{number}", process::id());
            let path = env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Self(path),
                // Left behind by a test that was killed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("cannot make {}: {error}", path.display()),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running program. Dropping it kills the program.
pub struct Running {
    pub child: Child,
    deadline: Instant,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    seen: Vec<String>,
}

pub struct Ended {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Returns the path of an example of the package under test: for the test
/// `target/debug/deps/examples-1234` it is `target/debug/examples/NAME`.
pub fn example(name: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    let example = profile.join("examples").join(file);
    assert!(
        example.exists(),
        "run `cargo build --examples` first: there is no {}",
        example.display()
    );
    example
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
    /// Starts `program` in `folder`.
    pub fn start(folder: &Folder, program: impl AsRef<Path>, args: &[&str]) -> Self {
        let mut command = Command::new(program.as_ref());
        command.args(args);
        Self::spawn(folder, command)
    }

    /// Starts `program` after the shell has run `preparation`, for example to limit its memory.
    #[cfg(unix)]
    pub fn start_after(
        folder: &Folder,
        preparation: &str,
        program: impl AsRef<Path>,
        args: &[&str],
    ) -> Self {
        let mut command = Command::new("sh");
        let script = format!("{preparation} && exec \"$0\" \"$@\"");
        command
            .args(["-c", &script])
            .arg(program.as_ref())
            .args(args);
        Self::spawn(folder, command)
    }

    fn spawn(folder: &Folder, mut command: Command) -> Self {
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

    /// Waits until the program prints the address on which it listens.
    pub fn listening(mut self) -> (Self, SocketAddr) {
        let line = self.line_with("listening on ");
        (self, line["listening on ".len()..].parse().unwrap())
    }

    /// Waits for a line of stdout with `part` in it.
    pub fn line_with(&mut self, part: &str) -> String {
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

    /// Waits for a line of stderr with `part` in it. `Ended::stderr` begins after that line.
    pub fn complaint_with(&mut self, part: &str) {
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

    pub fn end(mut self) -> Ended {
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

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends `INT`, as Ctrl-C does, or another signal.
    #[cfg(unix)] // elsewhere there is no signal to send to one process only
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let killed = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(killed.success());
    }

    /// Returns `seen` and what follows in `pipe` until the program ends.
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
    pub fn ok(self) -> Self {
        assert_eq!(self.status, SUCCESS, "{}", self.stderr);
        self
    }

    /// Asserts exit status 1 and one line on stderr, with each of `parts` in it.
    #[track_caller]
    pub fn failed(self, parts: &[&str]) -> Self {
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

/// Drops `stream` so that its peer sees a reset.
#[allow(deprecated)] // what replaces it is newer than the oldest tokio supported
pub fn reset(stream: TcpStream) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    stream.set_linger(Some(Duration::ZERO)).unwrap();
}

/// Connects to `server`, and sends `bytes`.
pub fn peer(server: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut peer = TcpStream::connect(server).unwrap();
    peer.set_nodelay(true).unwrap();
    peer.write_all(bytes).unwrap();
    peer
}

/// Returns the command and the output that the first `text` block of `source` shows.
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

/// Asserts that the comment at the top of `source` shows `command`, and that `program` prints what it
/// shows below that.
#[track_caller]
pub fn check_shown_output(program: impl AsRef<Path>, command: &str, source: &str) {
    let (shown_command, output) = shown(source);
    assert_eq!(shown_command, command);
    assert!(!output.is_empty());
    let ended = Running::start(&Folder::new(), program, &[]).end().ok();
    assert_eq!((ended.stdout, ended.stderr), (output, String::new()));
}
