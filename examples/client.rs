//! Sends blocks over TCP, and logs each block that the kernel has taken.
//!
//! Start `server` in one terminal, and this in another:
//!
//! ```text
//! cargo run --release --example server
//! cargo run --release --example client
//!
//! send buffer: default 16384 bytes, asked for 163840, granted 163840 (...)
//! sent to 127.0.0.1:8800: 100 blocks, 5.12 MB in 4.17 ms (1.23 GB/s), 48 writes
//! ```
//!
//! Each line of the log, `c.txt`, is a block that the kernel has taken, also after a failure. The time ends
//! when the kernel has taken the last block, which may still be on its way then. The exit status is 0 only
//! if the kernel took all blocks and the server then ended the connection without an error. Otherwise one
//! line on stderr says what went wrong, and where.
//!
//! `--help` lists the options; `RUST_LOG=wholeblock=trace` shows every write.

mod support;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use tokio_util::sync::CancellationToken;

use support::{
    BlockFile, Patience, Wire,
    client::{Sending, connect, send},
    host_and_port, progress_bar, run, say,
};

/// Sends blocks of a, b and c in turn over TCP
#[derive(Parser, Debug)]
struct Args {
    /// The server
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8800",
          value_parser = host_and_port)]
    connect: String,

    #[command(flatten)]
    wire: Wire,

    /// Blocks to send
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
    blocks: u64,

    /// Ask for a send buffer of this many times the default; 0 or 1 leaves it alone
    #[arg(long, value_name = "TIMES", default_value = "10")]
    send_buffer_times: u32,

    /// Where to write each block that has been handed to the kernel, one a line
    #[arg(long, value_name = "FILE", default_value = "c.txt")]
    log: PathBuf,

    /// Give up after this long without a byte moving; fractions are fine, 0 waits for ever
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = Patience::parse)]
    stall_timeout: Patience,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|stop| start(args, stop))
}

async fn start(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    // Before anything can fail, so that nobody takes an earlier run's log for this one's.
    let log = BlockFile::create(&args.log).await?;
    let connecting = connect(&args.connect, args.send_buffer_times, args.stall_timeout);
    let socket = tokio::select! {
        socket = connecting => socket?,
        () = stop.cancelled() => anyhow::bail!("stopped by a signal before there was a connection"),
    };
    let how = Sending {
        wire: args.wire,
        blocks: args.blocks,
        stall_timeout: args.stall_timeout,
    };
    let sent = send(socket, log, how, stop, progress_bar(Some(args.blocks))).await?;
    say(format_args!("sent to {}: {sent}", args.connect));
    Ok(())
}
