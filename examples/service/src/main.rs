//! A service over TCP, TLS, a Unix socket or a named pipe; its client, and a load test.
//!
//! Start this in one terminal, and the client in another:
//!
//! ```text
//! cargo run --release -p service serve
//! cargo run --release -p service call "sleep 200" "echo hello" "upper hello" "sum 1 2 -4"
//!
//! slept 200 ms
//! hello
//! HELLO
//! -1
//! ```
//!
//! The client sends all four requests at once, and the service works on all at once. The answers come in the
//! order of the requests. Without requests, `call` sends the lines of stdin. Its exit status is 0 only if each
//! request was answered and none refused. The service logs each connection. At Ctrl-C or SIGTERM, it accepts
//! and reads no more, ends open handshakes, answers the requests in flight, and exits with status 0.
//!
//! ```text
//! listening on tcp 127.0.0.1:8801
//!  INFO connection{number=1 peer=127.0.0.1:58276}: open
//!  INFO connection{number=1 peer=127.0.0.1:58276}: closed answered=4
//! ^Cstopping; open connections: 0
//! stopped; connections: 1, requests answered: 4
//! ```
//!
//! With `--over tls`, `serve` makes a certificate when it starts and writes it to `service-cert.pem`. `call`
//! trusts only that certificate. `--over local` is a Unix socket, or a named pipe on Windows.
//!
//! ```text
//! cargo run --release -p service load --turn 0.25 --payload 64
//!
//! echo over tcp; 4 connections, 16 requests in flight on each; 9 rounds of 250ms a side
//! clients and services share this process; a request's time includes waiting for those before it
//!       text                                  requests/s        p50        p99
//!       64 B  wholeblock                         1177859      51 µs     101 µs
//!             LengthDelimitedCodec               1249152      45 µs      96 µs
//!             ratio                                 0.94   median of rounds; 0.89 to 0.99
//!             LengthDelimitedCodec, timeout      1130376      53 µs     109 µs
//!             ratio                                 1.03   median of rounds; 0.99 to 1.14
//! ```
//!
//! compares the service with the same service on tokio-util's `LengthDelimitedCodec`, without a timeout and
//! with one. This takes half a minute on a machine with two cores. `--help`, also after a subcommand, lists the
//! options.
//!
//! `connection.rs` shows how to use this crate. `requests.rs` has the tower service, `serve.rs` the limit on
//! connections and the shutdown, `over.rs` the transports.

mod call;
mod connection;
mod load;
mod over;
mod requests;
mod serve;

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// A service over blocks, its client, and a load for it
#[derive(Parser, Debug)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Answers requests until Ctrl-C or SIGTERM
    Serve(serve::ServeArgs),
    /// Sends requests, and prints the answers
    Call(call::CallArgs),
    /// Measures the service beside the same one on LengthDelimitedCodec
    Load(load::LoadArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let default = EnvFilter::new("service=info");
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or(default))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(async {
        match args.command {
            Command::Serve(args) => serve::serve(args, stop_on_signal()?).await,
            Command::Call(args) => call::call(args).await,
            Command::Load(args) => load::load(args).await,
        }
    });
    // A thread may be waiting for a line of stdin, which nothing can interrupt.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Returns a token that the first Ctrl-C or SIGTERM cancels. The second ends the program at once.
fn stop_on_signal() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    // Here and not in the task, so that no signal is missed before the task runs.
    let mut signals = Signals::listen()?;
    tokio::spawn(async move {
        signals.next().await;
        stopping.cancel();
        signals.next().await;
        std::process::exit(1)
    });
    Ok(stop)
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn listen() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// Prints a line for the user. Ignores an error, because the program's work does not depend on the output.
fn say(line: impl fmt::Display) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Reads a number of seconds, for clap.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if duration.is_zero() {
        return Err("must be more than 0".to_owned());
    }
    Ok(duration)
}
