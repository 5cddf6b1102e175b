//! Compares the example pair with a pair on `LengthDelimitedCodec` that writes the same two files.
//!
//! ```text
//! cargo bench -p benches --bench pair
//! cargo bench -p benches --bench pair -- --rounds 15 --folder /tmp
//! ```
//!
//! Both ends of a connection over 127.0.0.1 are tasks of one runtime, as in the example. The sender logs
//! each block once it has been handed to the system, and the receiver writes each block to its file, both
//! with a line end after it. Without `--folder`, both files are `/dev/null`.
//!
//! | contender | sender | receiver |
//! |---|---|---|
//! | the example | `examples/support/client.rs` | `examples/support/server.rs` |
//! | LengthDelimitedCodec | `feed`, a `flush` for each MiB, tokio's `BufWriter` | `next`, tokio's `BufWriter` |
//! | without files | `send_blocks` | `recv` |
//!
//! Contenders take turns, another one first in each round, after a round to warm up.

// The library of the benchmarks has the same name, and is `::support` here.
#[path = "../examples/support/mod.rs"]
mod support;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ::support::{
    run::{self, Schedule, of},
    stats::{self, Table, decimals},
};
use anyhow::ensure;
use bytes::Bytes;
use clap::Parser;
use futures::{SinkExt, StreamExt, stream};
use indicatif::ProgressBar;
use tokio::{
    fs::File,
    io::{AsyncWriteExt, BufWriter},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_util::{
    codec::{FramedRead, FramedWrite, LengthDelimitedCodec},
    sync::CancellationToken,
};
use wholeblock::{BlockCodec, BlockTransport, send_blocks};

use crate::support::{
    BlockFile, FramingKind, Patience, Wire,
    client::{Sending, send},
    server::{Receiving, receive},
};

/// The example's default.
const STALL_TIMEOUT: Patience = Patience(Some(Duration::from_secs(30)));

/// Bytes to send before they are logged, as in the example.
const GROUP_BYTES: usize = 1024 * 1024;

/// `cargo bench -p benches --bench pair -- [OPTIONS]`
#[derive(Debug, Parser)]
#[command(about = "The example pair beside one on LengthDelimitedCodec")]
struct Args {
    /// How often each contender has its turn.
    #[arg(long, default_value = "9", value_parser = run::parse_count)]
    rounds: usize,
    #[arg(long, default_value = "40000", value_parser = clap::value_parser!(u64).range(1..))]
    blocks: u64,
    #[command(flatten)]
    wire: Wire,
    /// Folder for c.txt and s.txt, which have 2 GB each by default.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Contender {
    Example,
    LengthDelimited,
    NoFiles,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Example => "the example",
            Self::LengthDelimited => "LengthDelimitedCodec",
            Self::NoFiles => "without files",
        })
    }
}

fn main() -> anyhow::Result<()> {
    if !run::is_bench("pair") {
        return Ok(());
    }
    let mut args = Args::parse();
    args.wire.framing = FramingKind::Prefixed; // `LengthDelimitedCodec` knows no other of the three
    let contenders = vec![
        Contender::Example,
        Contender::LengthDelimited,
        Contender::NoFiles,
    ];
    let schedule = Schedule::new(contenders, args.rounds, 1);
    let rounds = schedule.measure("pair", |contender| {
        Ok(measure(&args, contender)?.as_secs_f64())
    })?;
    schedule.finish();

    let gigabytes = args.blocks as f64 * args.wire.block_size() as f64 / 1e9;
    let mut table = Table::new(
        1,
        &["contender", "GB/s", "over LengthDelimitedCodec", "min-max"],
    );
    let ld = of(&rounds, Contender::LengthDelimited).unwrap_or_default();
    for (contender, took) in &rounds {
        let ratios = stats::ratios(ld, took);
        let [least, median, most] =
            [0.0, 0.5, 1.0].map(|share| decimals(stats::quantile(&ratios, share), 2));
        table.row(vec![
            contender.to_string(),
            decimals(gigabytes / stats::median(took), 2),
            median,
            format!("{least}-{most}"),
        ]);
    }
    println!(
        "{} blocks of {} bytes, length-prefixed, over 127.0.0.1; {} rounds after one to warm up\n",
        stats::grouped(args.blocks as usize),
        stats::grouped(args.wire.block_size()),
        args.rounds
    );
    print!("{}", table.render(false));
    Ok(())
}

fn measure(args: &Args, contender: Contender) -> anyhow::Result<Duration> {
    let (wire, blocks) = (args.wire, args.blocks);
    let file = |name| match &args.folder {
        Some(folder) => folder.join(name),
        None => PathBuf::from("/dev/null"),
    };
    let (log, out) = (file("c.txt"), file("s.txt"));
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let near = TcpStream::connect(listener.local_addr()?).await?;
        let (far, _) = listener.accept().await?;
        near.set_nodelay(true)?;
        let (started, stop) = (Instant::now(), CancellationToken::new());
        let (sent, received) = match contender {
            Contender::Example => {
                let sending = Sending {
                    wire,
                    blocks,
                    stall_timeout: STALL_TIMEOUT,
                };
                let receiving = Receiving {
                    wire,
                    blocks: Some(blocks),
                    stall_timeout: STALL_TIMEOUT,
                    block_deadline: Patience(None),
                };
                let log = BlockFile::create(&log).await?;
                let out = BlockFile::create(&out).await?;
                let (bar, stopped) = (ProgressBar::hidden(), stop.clone());
                let near = tokio::spawn(send(near, log, sending, stopped, bar.clone()));
                let far = tokio::spawn(receive(far, out, receiving, stop, bar));
                (near.await??.blocks, far.await??.stats.blocks)
            }
            Contender::LengthDelimited => {
                let source = Letters::new(wire.block_size(), blocks);
                let near = tokio::spawn(send_length_delimited(near, log, source));
                let far = tokio::spawn(receive_length_delimited(far, out));
                (near.await??, far.await??)
            }
            Contender::NoFiles => {
                let source = Letters::new(wire.block_size(), blocks);
                let near = tokio::spawn(async move {
                    let mut blocks = BlockTransport::new(near, BlockCodec::length_prefixed());
                    let sent = send_blocks(&mut blocks, stream::iter(source)).await?;
                    blocks.close().await?;
                    anyhow::Ok(sent.blocks)
                });
                let far = tokio::spawn(async move {
                    let mut blocks = BlockTransport::new(far, BlockCodec::length_prefixed());
                    let mut received = 0;
                    while blocks.recv().await?.is_some() {
                        received += 1;
                    }
                    anyhow::Ok(received)
                });
                (near.await??, far.await??)
            }
        };
        ensure!(
            [sent, received] == [blocks; 2],
            "{sent} sent, {received} received"
        );
        Ok(started.elapsed())
    })
}

async fn send_length_delimited(
    socket: TcpStream,
    log: impl AsRef<Path>,
    source: Letters,
) -> anyhow::Result<u64> {
    let mut log = BufWriter::with_capacity(GROUP_BYTES, File::create(log).await?);
    let mut sink = FramedWrite::new(socket, LengthDelimitedCodec::new());
    let (mut sent, mut group, mut bytes) = (0, Vec::new(), 0);
    for block in source {
        bytes += block.len();
        group.push(block.clone());
        sink.feed(block).await?;
        if bytes >= GROUP_BYTES {
            SinkExt::<Bytes>::flush(&mut sink).await?;
            sent += write_lines(&mut log, &mut group).await?;
            bytes = 0;
        }
    }
    SinkExt::<Bytes>::close(&mut sink).await?;
    sent += write_lines(&mut log, &mut group).await?;
    log.flush().await?;
    Ok(sent)
}

async fn write_lines(file: &mut BufWriter<File>, group: &mut Vec<Bytes>) -> anyhow::Result<u64> {
    let count = group.len() as u64;
    for block in group.drain(..) {
        file.write_all(&block).await?;
        file.write_all(b"\n").await?;
    }
    Ok(count)
}

async fn receive_length_delimited(socket: TcpStream, out: impl AsRef<Path>) -> anyhow::Result<u64> {
    let mut file = BufWriter::with_capacity(GROUP_BYTES, File::create(out).await?);
    let mut stream = FramedRead::new(socket, LengthDelimitedCodec::new());
    let mut received = 0;
    while let Some(block) = stream.next().await {
        file.write_all(&block?).await?;
        file.write_all(b"\n").await?;
        received += 1;
    }
    file.flush().await?;
    Ok(received)
}

/// Blocks of `a`, `b` and `c` in turn.
struct Letters {
    blocks: [Bytes; 3],
    range: std::ops::Range<u64>,
}

impl Letters {
    fn new(size: usize, count: u64) -> Self {
        Self {
            blocks: [b'a', b'b', b'c'].map(|letter| vec![letter; size].into()),
            range: 0..count,
        }
    }
}

impl Iterator for Letters {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let index = self.range.next()?;
        Some(self.blocks[(index % 3) as usize].clone())
    }
}
