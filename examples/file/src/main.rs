//! Sends files and folders of any size, each file in one block, and receives them whole.
//!
//! ```text
//! cargo run --release -p file -- receive --into received
//! cargo run --release -p file -- send Cargo.toml src
//!
//! listening on 127.0.0.1:8801, receiving into received
//! sent 31 files, 0.2 MB in 0.11 s (...), 0 were there already, 0 refused, 0 reconnections
//! received from 127.0.0.1:35656: 31 files, 0.2 MB, 0 resumed, 0 were there already, 0 refused
//! ```
//!
//! Cut the transfer wherever you like: unplug the network, or kill either end and start it again. The transfer
//! resumes at the byte where it was cut. A file grows beside its place, in `NAME.….part`, and replaces the old
//! file only when it is whole and its checksum is right.
//!
//! If either end refuses a file, for its name, say, or if a file changes while it is sent, it is named on
//! stderr, and the other files go on. The sender's exit status is then 1. `--help` lists the options.

mod list;
mod place;
mod receive;
mod send;
mod wire;

use std::{
    io::IsTerminal,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::{net::TcpListener, sync::Semaphore};

use list::{list, total_len};
use receive::{Received, Receiver};
use send::{Sent, send_all};

/// Sends files and folders, and receives them whole
#[derive(Parser, Debug)]
struct Args {
    #[command(subcommand)]
    command: Command,

    /// How long the other end may take for an answer, or for 256 KiB of a file
    #[arg(long, value_name = "SECONDS", default_value = "30", global = true,
          value_parser = clap::value_parser!(u64).range(1..))]
    patience: u64,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Send files, and folders with all that is in them
    Send {
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,

        /// The receiver
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8801")]
        connect: String,

        /// Give up when nothing has moved on for this long
        #[arg(long, value_name = "SECONDS", default_value = "60")]
        give_up: u64,
    },
    /// Receive them, from any number of senders, until Ctrl-C
    Receive {
        /// Where to listen; port 0 takes any free one
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8801")]
        listen: String,

        /// The folder to write into
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        into: PathBuf,

        /// Senders served at once; further ones wait to be accepted
        #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
        senders: u32,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let result = runtime.block_on(async {
        tokio::select! {
            result = start(args) => result,
            _ = tokio::signal::ctrl_c() => {
                Err(anyhow::anyhow!("stopped by Ctrl-C; what has come is kept: start it again to go on"))
            }
        }
    });
    // A write that hangs must not keep this program from ending.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(args: Args) -> anyhow::Result<ExitCode> {
    let patience = Duration::from_secs(args.patience);
    match args.command {
        Command::Send {
            paths,
            connect,
            give_up,
        } => {
            let (items, unlisted) = list(&paths)?;
            let (bar, started) = (bar(Some(total_len(&items))), Instant::now());
            let give_up = Duration::from_secs(give_up);
            let sent = send_all(&connect, &items, give_up, patience, &bar).await;
            bar.finish_and_clear();
            let Sent {
                files,
                there_already,
                bytes,
                reconnects,
                refused,
            } = sent?;
            let refused = refused + unlisted;
            let (megabytes, secs) = (bytes as f64 / 1e6, started.elapsed().as_secs_f64());
            println!(
                "sent {files} files, {megabytes:.1} MB in {secs:.2} s ({:.0} MB/s), \
                 {there_already} were there already, {refused} refused, {reconnects} reconnections",
                megabytes / secs
            );
            Ok(if refused == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        Command::Receive {
            listen,
            into,
            senders,
        } => {
            let receiver = Receiver::new(into, patience);
            receive(&listen, receiver, senders as usize).await
        }
    }
}

async fn receive(listen: &str, receiver: Receiver, senders: usize) -> anyhow::Result<ExitCode> {
    let cannot_listen = || format!("cannot listen on {listen}");
    let listener = TcpListener::bind(listen)
        .await
        .with_context(cannot_listen)?;
    let address = listener.local_addr().with_context(cannot_listen)?;
    let into = receiver.into.display();
    println!("listening on {address}, receiving into {into}");
    let (places, bars) = (Arc::new(Semaphore::new(senders)), MultiProgress::new());
    loop {
        // Waits before `accept`, so that the limit bounds open files, too.
        let place = places.clone().acquire_owned().await?;
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // For example, no descriptor is left. One is free again when a connection ends.
                eprintln!("warning: cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (receiver, bar) = (receiver.clone(), bars.add(bar(None)));
        tokio::spawn(async move {
            let _place = place;
            let (received, result) = receiver.receive(socket, peer, &bar).await;
            bar.finish_and_clear();
            let Received {
                files,
                there_already,
                resumed,
                bytes,
                refused,
            } = received;
            println!(
                "received from {peer}: {files} files, {:.1} MB, {resumed} resumed, \
                 {there_already} were there already, {refused} refused",
                bytes as f64 / 1e6
            );
            if let Err(error) = result {
                eprintln!("error: {peer}: {error:#}");
            }
        });
    }
}

/// Returns a progress bar, which is hidden if stderr is not a terminal.
fn bar(len: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left {wide_msg}",
    );
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(len.unwrap_or(0)).with_style(style)
}
