//! Receives whole blocks over TCP and writes each to a file, one a line.
//!
//! Start this in one terminal, and `client` in another:
//!
//! ```text
//! cargo run --release --example server
//! cargo run --release --example client
//!
//! listening on 127.0.0.1:8800
//! received from 127.0.0.1:51324: 100 blocks, 5.12 MB in 3.1 ms (...), 143 reads, 43 fragmented blocks
//! 43 blocks were fragmented: each arrived over more than one read; a program that took each
//! completed read for a block would have counted 143 blocks where 100 were sent
//! ```
//!
//! Every line of `s.txt` is a whole block, whatever becomes of the connection. The exit status is 0
//! only if every connection brought all of its blocks and nothing after them; otherwise a line on
//! stderr says what went wrong, and where.
//!
//! ```text
//! cargo run --release --example server -- --connections 0 --blocks 0
//! ```
//!
//! serves any number of clients at once, however many blocks each sends, until Ctrl-C; the files
//! are then `s-1.txt`, `s-2.txt`, … `--help` lists the options; `RUST_LOG=wholeblock=trace` shows
//! every read.

mod support;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow, bail};
use clap::Parser;
use indicatif::ProgressBar;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use wholeblock::TransferStats;

use support::{
    BlockFile, StallTimeout, Wire, after, cannot_write, complain, host_and_port, is_reset,
    progress_bar, run, say,
    server::{Received, Receiving, lesson, receive},
};

/// Connections served at once, each with a socket and a file; further ones wait to be accepted.
/// Systems commonly let a program open 1,024 files.
const AT_ONCE: usize = 256;

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

    /// Connections to serve; 0 serves until Ctrl-C
    #[arg(long, default_value = "1")]
    connections: u64,

    /// Where to write the blocks; if not for 1 connection, -1, -2, … are added to the name
    #[arg(long, value_name = "FILE", default_value = "s.txt")]
    out: PathBuf,

    /// Give up on a connection after this long without a byte; fractions are fine, 0 waits for ever
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = StallTimeout::parse)]
    stall_timeout: StallTimeout,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|stop| start(args, stop))
}

async fn start(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let cannot_listen = || format!("cannot listen on {}", args.listen);
    let listener = TcpListener::bind(&args.listen)
        .await
        .with_context(cannot_listen)?;
    let address = listener.local_addr().with_context(cannot_listen)?;

    // After binding, so that a second server started by mistake does not empty the first one's
    // file; before any client comes, so that one that cannot be written shows at once.
    let only_file = if args.connections == 1 {
        Some(BlockFile::create(&args.out).await?)
    } else {
        check_folder(&args.out).await?;
        None
    };
    say(format_args!("listening on {address}"));
    Server {
        args,
        only_file,
        serving: JoinSet::new(),
        accepted: 0,
        failed: 0,
        stop,
    }
    .serve(&listener, address)
    .await
}

struct Server {
    args: Args,
    /// The file of the only connection there will be.
    only_file: Option<BlockFile>,
    serving: JoinSet<Served>,
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
    async fn serve(mut self, listener: &TcpListener, address: SocketAddr) -> anyhow::Result<()> {
        let stop = self.stop.clone();
        let accepting = loop {
            let more = self.args.connections == 0 || self.accepted < self.args.connections;
            if !more && self.serving.is_empty() {
                break Ok(());
            }
            tokio::select! {
                Some(served) = self.serving.join_next() => self.report(served?)?,
                accepted = listener.accept(), if more && self.serving.len() < AT_ONCE => {
                    match accepted {
                        Ok((socket, peer)) => self.spawn(socket, peer),
                        Err(error) if is_reset(&error) => self.lose(error)?,
                        Err(error) => break Err(error),
                    }
                }
                () = stop.cancelled() => break Ok(()),
            }
        };
        // Those under way are let finish; Ctrl-C reaches each of them by itself.
        while let Some(served) = self.serving.join_next().await {
            self.report(served?)?;
        }
        accepting.with_context(|| format!("cannot accept connections on {address}"))?;
        if self.failed > 0 {
            bail!("{} of {} connections failed", self.failed, self.accepted);
        }
        if stop.is_cancelled() {
            say(format_args!(
                "stopped by Ctrl-C; connections served: {}",
                self.accepted
            ));
        }
        Ok(())
    }

    fn spawn(&mut self, socket: TcpStream, peer: SocketAddr) {
        self.accepted += 1;
        let number = self.accepted;
        let how = Receiving {
            wire: self.args.wire,
            blocks: (self.args.blocks > 0).then_some(self.args.blocks),
            stall_timeout: self.args.stall_timeout,
        };
        let only_file = self.only_file.take();
        let path = numbered(&self.args.out, number);
        // Bars of many connections would only chase one another.
        let bar = match only_file {
            Some(_) => progress_bar(how.blocks),
            None => ProgressBar::hidden(),
        };
        let stop = self.stop.clone();
        self.serving.spawn(async move {
            let file = match only_file {
                Some(file) => Ok(file),
                None => BlockFile::create(&path).await,
            };
            let result = match file {
                Ok(file) => receive(socket, file, how, stop, bar).await,
                Err(error) => Err(error),
            };
            Served {
                number,
                peer,
                result,
            }
        });
    }

    /// Counts a connection that was broken off while it waited to be accepted. Some systems report
    /// that here; it is as much the failure of this one alone as if it came right after.
    fn lose(&mut self, error: io::Error) -> anyhow::Result<()> {
        self.accepted += 1;
        let error = anyhow!("the client broke the connection off: {error}");
        let error = error.context(after(&TransferStats::default()));
        self.fail(&format!("connection {}", self.accepted), error)
    }

    /// Says how a connection ended.
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

    /// The failure of the only connection there is ends the program; one of many is counted, and
    /// the others go on.
    fn fail(&mut self, name: &str, error: anyhow::Error) -> anyhow::Result<()> {
        if self.args.connections == 1 {
            return Err(error);
        }
        self.failed += 1;
        complain(format_args!("error: {name}: {error:#}"));
        Ok(())
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

/// Files that are made as connections come can at least be known to have a folder.
async fn check_folder(out: &Path) -> anyhow::Result<()> {
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let is_folder = tokio::fs::metadata(folder).await.map(|data| data.is_dir());
    if !is_folder.with_context(|| cannot_write(out))? {
        bail!(
            "{}: {} is not a folder",
            cannot_write(out),
            folder.display()
        );
    }
    Ok(())
}
