//! Runs a client and a server in one process over loopback, and compares what was sent with what arrived.
//!
//! ```text
//! cargo run --release --example pair
//!
//! 100 blocks of 51200 bytes over 127.0.0.1:41234, framing exact
//! send buffer: default 16384 bytes, asked for 163840, granted 163840 (...)
//! sent:     100 blocks, 5.12 MB in 5.42 ms (943.86 MB/s), 48 writes
//! received: 100 blocks, 5.12 MB in 6.51 ms (786.11 MB/s), 121 reads, 19 fragmented blocks
//! 19 blocks were fragmented: each arrived over more than one read; a program that took each
//! completed read for a block would have counted 121 blocks where 100 were sent
//! ./c.txt and ./s.txt are the same, byte for byte: 100 blocks
//! ```
//!
//! The number of reads depends on the system, and differs from run to run. The exit status is 0 only if both
//! ends succeeded and the files are the same.

mod support;

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Parser;
use indicatif::ProgressBar;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use support::{
    BlockFile, Patience, Wire,
    client::{Sending, connect, send},
    complain, progress_bar, run, say,
    server::{Receiving, lesson, receive},
};

/// The default of `client`.
const SEND_BUFFER_TIMES: u32 = 10;

/// The default of `client` and `server`.
const STALL_TIMEOUT: Patience = Patience(Some(Duration::from_secs(30)));

/// None, because neither end is hostile.
const BLOCK_DEADLINE: Patience = Patience(None);

/// Sends blocks over loopback, receives them, and compares
#[derive(Parser, Debug)]
struct Args {
    /// Blocks to send
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
    blocks: u64,

    #[command(flatten)]
    wire: Wire,

    /// Folder for c.txt, what was sent, and s.txt, what was received
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out_dir: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run(|stop| start(args, stop))
}

async fn start(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let client_path = args.out_dir.join("c.txt");
    let server_path = args.out_dir.join("s.txt");
    let log = BlockFile::create(&client_path).await?;
    let out = BlockFile::create(&server_path).await?;

    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .context("cannot listen on 127.0.0.1")?;
    let address = listener.local_addr()?;
    say(format_args!(
        "{} blocks of {} bytes over {address}, framing {}",
        args.blocks,
        args.wire.block_size(),
        args.wire.framing
    ));
    let server_address = address.to_string();
    let (near, (far, _)) = tokio::try_join!(
        connect(&server_address, SEND_BUFFER_TIMES, STALL_TIMEOUT),
        async {
            listener
                .accept()
                .await
                .context("cannot accept a connection")
        },
    )?;

    let sending = Sending {
        wire: args.wire,
        blocks: args.blocks,
        stall_timeout: STALL_TIMEOUT,
    };
    let receiving = Receiving {
        wire: args.wire,
        blocks: Some(args.blocks),
        stall_timeout: STALL_TIMEOUT,
        block_deadline: BLOCK_DEADLINE,
    };
    let bar = progress_bar(Some(args.blocks));
    let client = tokio::spawn(send(
        near,
        log,
        sending,
        stop.clone(),
        ProgressBar::hidden(),
    ));
    let server = tokio::spawn(receive(far, out, receiving, stop, bar));
    let (sent, received) = tokio::try_join!(client, server)?;
    if let (Err(_), Err(error)) = (&sent, &received) {
        complain(format_args!("error: server: {error:#}"));
    }
    let sent = sent.context("client")?;
    let received = received.context("server")?;

    say(format_args!("sent:     {sent}"));
    say(format_args!("received: {}", received.stats));
    say(lesson(&received.stats));
    if let Some(warning) = received.warning {
        complain(format_args!("warning: {warning}"));
    }
    let (sent, received) = (client_path.display(), server_path.display());
    if let Some(at) = first_difference(&client_path, &server_path)? {
        bail!("{sent} and {received} differ from byte {at} on");
    }
    say(format_args!(
        "{sent} and {received} are the same, byte for byte: {} blocks",
        args.blocks
    ));
    Ok(())
}

/// Returns where two files begin to differ, if they do. Does not read them into memory.
fn first_difference(one: &Path, other: &Path) -> anyhow::Result<Option<u64>> {
    let open = |path: &Path| {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()));
        file.map(BufReader::new)
    };
    compare(open(one)?, open(other)?).context("cannot compare the files")
}

fn compare(mut one: impl BufRead, mut other: impl BufRead) -> io::Result<Option<u64>> {
    let mut at = 0;
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let len = left.len().min(right.len());
        if len == 0 {
            let same_end = left.is_empty() && right.is_empty();
            return Ok((!same_end).then_some(at));
        }
        let (left, right) = (&left[..len], &right[..len]);
        if left != right {
            let same = left.iter().zip(right).take_while(|(l, r)| l == r);
            return Ok(Some(at + same.count() as u64));
        }
        at += len as u64;
        one.consume(len);
        other.consume(len);
    }
}
