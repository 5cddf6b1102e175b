//! Shared by `client`, `server` and `pair`: their common options, their output, and how they end.

#![allow(dead_code, reason = "each example uses its part of this")]

mod block_file;
pub(crate) mod client;
pub(crate) mod server;

use std::{
    env, fmt,
    future::Future,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use futures::FutureExt;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{filter::Targets, prelude::*};
use wholeblock::{BlockError, TransferStats};

pub(crate) use self::block_file::{BlockFile, Lines};

/// Largest `--block-size`. The client prepares blocks in memory, so a size that was typed by mistake must be
/// refused before it exhausts the memory.
const MAX_BLOCK_SIZE: u64 = 1 << 30;

/// The settings that both ends must agree on.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Wire {
    /// How blocks are delimited on the wire
    #[arg(long, value_enum, default_value = "exact")]
    pub(crate) framing: FramingKind,

    /// Bytes of a block; with a prefix, the most a block may have
    #[arg(long, value_name = "BYTES", default_value = "51200",
          value_parser = clap::value_parser!(u64).range(1..=MAX_BLOCK_SIZE))]
    block_size: u64,
}

impl Wire {
    pub(crate) fn block_size(self) -> usize {
        self.block_size as usize // at most `MAX_BLOCK_SIZE`, so it fits
    }
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum FramingKind {
    /// Blocks of exactly the block size, and nothing else
    Exact,
    /// A big-endian u32 before each block
    Prefixed,
    /// A varint before each block
    Varint,
}

impl fmt::Display for FramingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Prefixed => "prefixed",
            Self::Varint => "varint",
        })
    }
}

/// Evaluates `$body` with a codec of the framing that `$wire` names, bound to `$codec`. This is the only place
/// that looks at the framing. The rest is generic.
macro_rules! with_codec {
    ($wire:expr, $codec:ident => $body:expr) => {{
        let wire: $crate::support::Wire = $wire;
        let size = wire.block_size();
        match wire.framing {
            $crate::support::FramingKind::Exact => {
                let $codec = wholeblock::BlockCodec::exact(size)?;
                $body
            }
            $crate::support::FramingKind::Prefixed => {
                let framing = wholeblock::LengthPrefix::u32().max_block_len(size)?;
                let $codec = wholeblock::BlockCodec::new(framing);
                $body
            }
            $crate::support::FramingKind::Varint => {
                let framing = wholeblock::Varint::new().max_block_len(size)?;
                let $codec = wholeblock::BlockCodec::new(framing);
                $body
            }
        }
    }};
}
pub(crate) use with_codec;

/// How long to wait; none waits for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience(pub(crate) Option<Duration>);

impl Patience {
    /// Reads a number of seconds, for clap.
    pub(crate) fn parse(seconds: &str) -> Result<Self, String> {
        let seconds: f64 = seconds.parse().map_err(|_| "not a number of seconds")?;
        let timeout = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
        Ok(Self((!timeout.is_zero()).then_some(timeout)))
    }

    /// Returns the output of `future`, or an error about what `did_not` happen in time.
    pub(crate) async fn limit<T>(
        self,
        did_not: &str,
        future: impl Future<Output = T>,
    ) -> anyhow::Result<T> {
        let Some(timeout) = self.0 else {
            return Ok(future.await);
        };
        let ended = tokio::time::timeout(timeout, future).await;
        ended.map_err(|_| anyhow!("{did_not} within {timeout:?}"))
    }
}

/// Checks that `address` reads `host:port`, for clap.
pub(crate) fn host_and_port(address: &str) -> Result<String, String> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(address.to_owned())
        }
        _ => Err("not of the form HOST:PORT".to_owned()),
    }
}

/// Runs `body` on the multi-thread runtime, and turns an error into one line and exit status 1.
///
/// Ctrl-C, and on Unix SIGTERM, cancels the token that `body` gets.
pub(crate) fn run<B, R>(body: B) -> ExitCode
where
    B: FnOnce(CancellationToken) -> R,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let log = env::var("RUST_LOG").unwrap_or_default();
    let filter: Targets = log.parse().unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_filter(filter);
    tracing_subscriber::registry().with(lines).init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("error: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    // In a task, because tasks run on the threads that wait for sockets. For the future in `block_on`, each
    // wake-up would cost a call to another thread.
    let result = runtime.block_on(async { tokio::spawn(body(stop_on_request())).await? });
    // Waits for the threads, because a program that ends while its threads are ending can hang: under Wine, the
    // pair once did. The wait has a limit, because a file write that hangs must not keep the program running.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns a token that the first request to stop cancels. The second request ends the program at once.
fn stop_on_request() -> CancellationToken {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let mut first = Box::pin(requested());
    // Polled once here, so that the handlers are in place before anything is printed.
    if first.as_mut().now_or_never().is_none() {
        tokio::spawn(async move {
            if first.await.is_ok() {
                stopping.cancel();
            }
            if requested().await.is_ok() {
                std::process::exit(1);
            }
        });
    }
    stop
}

/// Waits for Ctrl-C, or on Unix for SIGTERM.
async fn requested() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminated.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// Prints a line for the user. Ignores an error, because the program's work does not depend on the output.
pub(crate) fn say(line: impl fmt::Display) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Prints an error or a warning.
pub(crate) fn complain(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Returns a progress bar, which is hidden if stderr is not a terminal. Without a number of `blocks`, it only
/// counts.
pub(crate) fn progress_bar(blocks: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = match blocks {
        Some(_) => "{bar:40} {pos}/{len} blocks, {eta} left",
        None => "{spinner} {pos} blocks in {elapsed}",
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(blocks, indicatif::ProgressDrawTarget::stderr()).with_style(style)
}

/// Says how far a transfer came before an error, as the front of the error's text.
pub(crate) fn after(stats: &TransferStats) -> String {
    let (blocks, bytes) = (stats.blocks, stats.wire_bytes);
    let plural = if blocks == 1 { "" } else { "s" };
    format!("after {blocks} whole block{plural} ({bytes} bytes)")
}

/// Turns a `BlockError` of the connection to `peer` into a text that names who did what.
pub(crate) fn explain(error: BlockError, peer: &str) -> anyhow::Error {
    match error {
        BlockError::TooFew { expected, .. } => {
            anyhow!("the {peer} ended the connection, but {expected} blocks were expected")
        }
        BlockError::Late { allowed, .. } => {
            anyhow!("the {peer} began a block, and did not complete it within {allowed:?}")
        }
        BlockError::Io(error) if is_reset(&error) => {
            anyhow!("the {peer} broke the connection off: {error}")
        }
        error => error.into(),
    }
}

/// True if the peer broke off the connection. Systems use different names for that.
pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
    )
}

/// True if the system has no descriptor left for another file or socket.
pub(crate) fn is_for_want_of_descriptors(error: &io::Error) -> bool {
    let numbers = if cfg!(unix) {
        [24, 23] // EMFILE, ENFILE
    } else {
        [4, 10_024] // ERROR_TOO_MANY_OPEN_FILES, WSAEMFILE
    };
    let number = error.raw_os_error();
    number.is_some_and(|number| numbers.contains(&number))
}

/// Makes a drop of `socket` a reset, so that the peer does not take a failure for a clean end.
#[allow(
    deprecated,
    reason = "it may block on drop for any time but zero, and what replaces it is newer than the \
              oldest tokio supported"
)]
pub(crate) fn reset_on_drop(socket: &TcpStream) {
    let _ = socket.set_linger(Some(Duration::ZERO));
}
