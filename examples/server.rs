//! Receives whole blocks over TCP and writes each to a file, one a line.
//!
//! Start this in one terminal, and `client` in another:
//!
//! ```text
//! cargo run --release --example server
//! cargo run --release --example client
//!
//! listening on 127.0.0.1:8800
//! received from 127.0.0.1:51324: 100 blocks, 5.12 MB in 4.86 ms (...), 118 reads, 16 fragmented blocks
//! 16 blocks were fragmented: each arrived over more than one read; a program that took each
//! completed read for a block would have counted 118 blocks where 100 were sent
//! ```
//!
//! Every line of `s.txt` is a whole block, even if the connection fails. The exit status is 0 only if every
//! connection brought all of its blocks and nothing after them. Otherwise a line on stderr says what went
//! wrong, and where.
//!
//! ```text
//! cargo run --release --example server -- --connections 0 --blocks 0
//! ```
//!
//! serves any number of clients until Ctrl-C or SIGTERM, up to 256 at once. Each may send any number of
//! blocks. The files are then `s-1.txt`, `s-2.txt`, … The server drops a client that is silent or takes too
//! long over a block. `--help` lists the options; `RUST_LOG=wholeblock=trace` shows every read.

mod support;

use std::{
    fmt::Display,
    io, mem,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::Parser;
use indicatif::ProgressBar;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use wholeblock::TransferStats;

use support::{
    BlockFile, Patience, Wire, after, complain, host_and_port, is_for_want_of_descriptors,
    is_reset, progress_bar, reset_on_drop, run, say,
    server::{Received, Receiving, lesson, receive},
};

/// Connections served at once. Each needs a socket and a file, and systems commonly let a program open 1,024
/// files. Further connections wait to be accepted.
const AT_ONCE: usize = 256;

/// How long to wait for a descriptor before the next attempt. Another program may free one, and nothing reports
/// that.
const PAUSE: Duration = Duration::from_secs(1);

/// Receives whole blocks over TCP and writes each to a file, one a line
#[derive(Parser, Debug)]
struct Args {
    /// Where to listen; port 0 takes any free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8800",
          value_parser = host_and_port)]
    listen: String,

    #[command(flatten)]
    wire: Wire,

    /// Blocks to take from each connection; 0 takes whatever comes until a clean end
    #[arg(long, default_value = "100")]
    blocks: u64,

    /// Connections to serve; 0 serves until Ctrl-C or SIGTERM
    #[arg(long, default_value = "1")]
    connections: u64,

    /// Where to write the blocks; in a folder it is s.txt. If not for 1 connection, -1, -2, … are
    /// added to the name
    #[arg(long, value_name = "FILE", default_value = "s.txt")]
    out: PathBuf,

    /// Give up on a connection after this long without a byte; fractions are fine, 0 waits for ever
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = Patience::parse)]
    stall_timeout: Patience,

    /// Give up on a connection whose block is not whole so long after its first byte; 0 waits for
    /// ever
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = Patience::parse)]
    block_deadline: Patience,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|stop| start(args, stop))
}

async fn start(mut args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    args.out = file_in(args.out);
    let cannot_listen = || format!("cannot listen on {}", args.listen);
    let listener = TcpListener::bind(&args.listen)
        .await
        .with_context(cannot_listen)?;
    let address = listener.local_addr().with_context(cannot_listen)?;

    // After binding, so that a second server started by mistake does not empty the first one's file. Before
    // any client comes, so that a file that cannot be written is reported at once.
    let only_file = if args.connections == 1 {
        Some(BlockFile::create(&args.out).await?)
    } else {
        // Each connection creates its file later. This shows at once if that cannot work.
        drop(BlockFile::create(&numbered(&args.out, 1)).await?);
        None
    };
    say(format_args!("listening on {address}"));
    Server {
        args,
        only_file,
        serving: JoinSet::new(),
        waiting: None,
        paused: None,
        said_so: false,
        accepted: 0,
        failed: 0,
        stop,
    }
    .serve(&listener)
    .await
}

struct Server {
    args: Args,
    /// The file, if there will be only one connection.
    only_file: Option<BlockFile>,
    serving: JoinSet<Served>,
    /// A connection that waits for a descriptor for its file. No other is accepted meanwhile, because it would
    /// take that descriptor.
    waiting: Option<(TcpStream, SocketAddr)>,
    /// No descriptor was left. The server tries again at this time, or when a connection ends.
    paused: Option<Instant>,
    said_so: bool,
    accepted: u64,
    failed: u64,
    stop: CancellationToken,
}

/// How a connection ended.
struct Served {
    number: u64,
    peer: SocketAddr,
    result: anyhow::Result<Received>,
}

impl Server {
    async fn serve(mut self, listener: &TcpListener) -> anyhow::Result<()> {
        let stop = self.stop.clone();
        loop {
            if self.paused.is_none() {
                self.serve_waiting().await;
            }
            let more = self.args.connections == 0 || self.accepted < self.args.connections;
            if !more && self.serving.is_empty() && self.waiting.is_none() {
                break;
            }
            let resume = self.paused;
            let room = self.serving.len() < AT_ONCE && self.waiting.is_none();
            let accept = more && room && resume.is_none();
            tokio::select! {
                Some(served) = self.serving.join_next() => {
                    self.paused = None;
                    self.report(served?)?;
                }
                accepted = listener.accept(), if accept => match accepted {
                    Ok(accepted) => {
                        self.accepted += 1;
                        self.waiting = Some(accepted);
                    }
                    Err(error) if is_reset(&error) => self.lose(error)?,
                    Err(error) => self.pause(&error),
                },
                () = until(resume), if resume.is_some() => self.paused = None,
                () = stop.cancelled() => break,
            }
        }
        if let Some((socket, peer)) = self.waiting.take() {
            reset_on_drop(&socket);
            let error = anyhow!("stopped by a signal before there was a descriptor for its file");
            self.fail(&format!("connection {} ({peer})", self.accepted), error)?;
        }
        // The open connections finish. A request to stop reaches each of them by itself.
        while let Some(served) = self.serving.join_next().await {
            self.report(served?)?;
        }
        if self.failed > 0 {
            bail!("{} of {} connections failed", self.failed, self.accepted);
        }
        if stop.is_cancelled() {
            say(format_args!(
                "stopped by a signal; connections served: {}",
                self.accepted
            ));
        }
        Ok(())
    }

    /// Lets new connections wait for a while. Warns only once, not for each of them.
    fn pause(&mut self, error: &dyn Display) {
        self.paused = Some(Instant::now() + PAUSE);
        if !mem::replace(&mut self.said_so, true) {
            complain(format_args!(
                "warning: cannot accept connections for now: {error:#}"
            ));
        }
    }

    /// Serves the waiting connection, if there is one and a descriptor for its file.
    async fn serve_waiting(&mut self) {
        let Some((socket, peer)) = self.waiting.take() else {
            return;
        };
        // The bars of many connections would overwrite each other.
        let (file, bar) = match self.only_file.take() {
            Some(file) => (Ok(file), progress_bar(self.blocks())),
            None => {
                let path = numbered(&self.args.out, self.accepted);
                (BlockFile::create(&path).await, ProgressBar::hidden())
            }
        };
        match file {
            Err(error) if error.downcast_ref().is_some_and(is_for_want_of_descriptors) => {
                self.waiting = Some((socket, peer));
                self.pause(&error);
            }
            file => self.spawn(socket, peer, file, bar),
        }
    }

    fn spawn(
        &mut self,
        socket: TcpStream,
        peer: SocketAddr,
        file: anyhow::Result<BlockFile>,
        bar: ProgressBar,
    ) {
        let number = self.accepted;
        let how = Receiving {
            wire: self.args.wire,
            blocks: self.blocks(),
            stall_timeout: self.args.stall_timeout,
            block_deadline: self.args.block_deadline,
        };
        let stop = self.stop.clone();
        self.serving.spawn(async move {
            let result = match file {
                Ok(file) => receive(socket, file, how, stop, bar).await,
                Err(error) => {
                    reset_on_drop(&socket);
                    Err(error)
                }
            };
            Served {
                number,
                peer,
                result,
            }
        });
    }

    /// The number of blocks to receive from each connection; none receives all.
    fn blocks(&self) -> Option<u64> {
        (self.args.blocks > 0).then_some(self.args.blocks)
    }

    /// Counts a connection that the client broke off before it was accepted, which some systems report as an
    /// error of `accept`. Only that connection has failed.
    fn lose(&mut self, error: io::Error) -> anyhow::Result<()> {
        self.accepted += 1;
        let error = anyhow!("the client broke the connection off: {error}");
        let error = error.context(after(&TransferStats::default()));
        self.fail(&format!("connection {}", self.accepted), error)
    }

    /// Prints how a connection ended.
    fn report(&mut self, served: Served) -> anyhow::Result<()> {
        let Served {
            number,
            peer,
            result,
        } = served;
        let single = self.args.connections == 1;
        match result {
            Ok(Received { stats, warning }) => {
                let name = if single {
                    String::new()
                } else {
                    format!("connection {number}: ")
                };
                say(format_args!("{name}received from {peer}: {stats}"));
                say(format_args!("{name}{}", lesson(&stats)));
                if let Some(warning) = warning {
                    complain(format_args!("warning: {name}{warning}"));
                }
            }
            Err(error) => self.fail(&format!("connection {number} ({peer})"), error)?,
        }
        Ok(())
    }

    /// Ends the program with `error` if there is only one connection. Otherwise counts the failure, and the
    /// others go on.
    fn fail(&mut self, name: &str, error: anyhow::Error) -> anyhow::Result<()> {
        if self.args.connections == 1 {
            return Err(error);
        }
        self.failed += 1;
        complain(format_args!("error: {name}: {error:#}"));
        Ok(())
    }
}

async fn until(resume: Option<Instant>) {
    if let Some(resume) = resume {
        sleep_until(resume).await;
    }
}

/// `s.txt` becomes `s-1.txt`.
fn numbered(out: &Path, number: u64) -> PathBuf {
    let mut name = out.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = out.extension() {
        name.push(".");
        name.push(extension);
    }
    out.with_file_name(name)
}

/// Returns `--out`, or `s.txt` in it if it is a folder.
fn file_in(out: PathBuf) -> PathBuf {
    let named = out.as_os_str().to_string_lossy();
    if out.is_dir() || named.ends_with(std::path::is_separator) {
        out.join("s.txt")
    } else {
        out
    }
}
