//! Long blocks: the cost to move them whole, part by part, and without any framing.
//!
//! ```text
//! cargo bench -p benches --bench long
//! cargo bench -p benches --bench long -- --rounds 15 --only slab --nodelay off
//! cargo bench -p benches --bench long -- --only heap --gib 5
//! ```
//!
//! One connection over loopback, a thread for each end. In each table, the contenders take turns, another
//! one first in each round, after a round to warm up. The first contender of a table is the base; in `slab`,
//! each loop by hand is the base of the `recv_into` below it. A ratio is a contender's rate over the base's
//! rate in the same round, and the table has the median over the rounds.
//!
//! - `look`: the receiver adds up all bytes.
//! - `memory`, `file`: the receiver writes each byte to memory, or to a file. For all contenders, the sender
//!   writes 64 KiB at a time, by hand.
//! - `slab`: blocks of 51,200 bytes, each received into the same memory of the caller. A contender has the
//!   same sender as its base.
//! - `heap`: the peak heap of both ends while one block is moved part by part, minus the heap of two idle
//!   ends.
//! - `discard`: readers are dropped after their first part, while a timer of 1 ms runs on the same thread.

use std::{
    alloc::System,
    hint::black_box,
    io::Cursor,
    net::TcpListener,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use futures::{SinkExt, StreamExt, stream};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::{
    run,
    stats::{self, Table, decimals},
    system,
};
use tokio::{
    fs::File,
    io::{
        AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
        copy_buf, repeat,
    },
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::{interval, timeout},
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use wholeblock::{BlockCodec, BlockTransport, LengthPrefix, send_blocks};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MIB: usize = 1 << 20;
const BATCH: usize = 64 * 1024;
const SLAB: usize = 51_200;

/// `cargo bench -p benches --bench long -- [OPTIONS]`
#[derive(Debug, Parser)]
#[command(about = "Long blocks: whole, part by part, and without a framing")]
struct Args {
    /// Tables to make; all, if none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Question>,
    /// How often each contender has its turn.
    #[arg(long, default_value = "9", value_parser = run::parse_count)]
    rounds: usize,
    /// MiB of each measurement.
    #[arg(long, default_value = "512", value_parser = run::parse_count)]
    mib: usize,
    /// GiB of the block of `heap`.
    #[arg(long, default_value = "5", value_parser = run::parse_count)]
    gib: usize,
    /// Whether Nagle's algorithm is off.
    #[arg(long, value_enum, default_value = "on")]
    nodelay: Nodelay,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Nodelay {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Question {
    Look,
    Memory,
    File,
    Slab,
    Heap,
    Discard,
}

/// How the sender sends.
#[derive(Clone, Copy, Debug)]
enum Sender {
    LengthDelimited,
    SendBlocks,
    /// The same, with full writes of three times what the path takes at once.
    SendBlocksPath,
    SendFrom,
    /// 64 KiB at a time, with or without a length before each block.
    Bare {
        prefixed: bool,
    },
}

/// How the receiver receives, and where to.
#[derive(Clone, Copy, Debug)]
enum Receiver {
    LengthDelimited,
    Next,
    Reader,
    /// Through a `BufReader` of 256 KiB.
    BufReader,
    /// Looks at it in 64 KiB of memory, without any framing.
    Bare,
    ReaderTo(Place),
    BareTo(Place),
    IntoSlab {
        prefixed: bool,
    },
    BareIntoSlab {
        prefixed: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Memory,
    File,
}

/// A row of a table. The first one is the base.
type Row = (&'static str, Sender, Receiver);

fn main() -> anyhow::Result<()> {
    if !run::is_bench("long") {
        return Ok(());
    }
    let args = Args::parse();
    let wants = |question| args.only.is_empty() || args.only.contains(&question);
    let bare = Sender::Bare { prefixed: true };
    let tables: [(Question, &str, &[usize], &[Row]); 4] = [
        (
            Question::Look,
            "received and looked at",
            &[MIB, 16 * MIB, 256 * MIB],
            &[
                (
                    "LengthDelimitedCodec",
                    Sender::LengthDelimited,
                    Receiver::LengthDelimited,
                ),
                ("send_blocks, next", Sender::SendBlocks, Receiver::Next),
                (
                    "send_blocks, recv_reader",
                    Sender::SendBlocks,
                    Receiver::Reader,
                ),
                (
                    "the same, three times the path's",
                    Sender::SendBlocksPath,
                    Receiver::Reader,
                ),
                ("send_from, recv_reader", Sender::SendFrom, Receiver::Reader),
                (
                    "send_blocks, BufReader of 256 KiB",
                    Sender::SendBlocks,
                    Receiver::BufReader,
                ),
                (
                    "send_blocks, bare reads of 64 KiB",
                    Sender::SendBlocks,
                    Receiver::Bare,
                ),
                ("bare writes and reads of 64 KiB", bare, Receiver::Bare),
            ],
        ),
        (
            Question::Memory,
            "into memory",
            &[MIB, 16 * MIB, 256 * MIB],
            &[
                ("read, write_all", bare, Receiver::BareTo(Place::Memory)),
                (
                    "recv_reader, copy_buf",
                    bare,
                    Receiver::ReaderTo(Place::Memory),
                ),
            ],
        ),
        (
            Question::File,
            "into a file",
            &[MIB, 16 * MIB, 256 * MIB],
            &[
                ("read, write_all", bare, Receiver::BareTo(Place::File)),
                (
                    "recv_reader, copy_buf",
                    bare,
                    Receiver::ReaderTo(Place::File),
                ),
            ],
        ),
        (
            Question::Slab,
            "into a slab",
            &[SLAB],
            &[
                (
                    "read_exact",
                    Sender::Bare { prefixed: false },
                    Receiver::BareIntoSlab { prefixed: false },
                ),
                (
                    "recv_into",
                    Sender::Bare { prefixed: false },
                    Receiver::IntoSlab { prefixed: false },
                ),
                (
                    "read_u32, read_exact",
                    bare,
                    Receiver::BareIntoSlab { prefixed: true },
                ),
                (
                    "recv_into, prefixed",
                    bare,
                    Receiver::IntoSlab { prefixed: true },
                ),
            ],
        ),
    ];
    for (question, name, sizes, rows) in tables {
        for &size in sizes.iter().filter(|_| wants(question)) {
            table(&args, name, size, rows)?;
        }
    }
    if wants(Question::Heap) {
        heap(args.gib as u64 * 1024 * MIB as u64)?;
    }
    if wants(Question::Discard) {
        discard()?;
    }
    Ok(())
}

fn table(args: &Args, name: &str, size: usize, rows: &[Row]) -> anyhow::Result<()> {
    let blocks = (args.mib * MIB).div_ceil(size);
    let mut rates = vec![Vec::new(); rows.len()];
    for round in 0..=args.rounds {
        for turn in 0..rows.len() {
            let at = (round + turn) % rows.len();
            let (name, sender, receiver) = rows[at];
            let seconds = measure(args, sender, receiver, size, blocks).context(name)?;
            if round > 0 {
                rates[at].push(size as f64 * blocks as f64 / 1e9 / seconds);
            }
        }
    }
    println!(
        "blocks of {}, {name}, nodelay {:?}\n",
        stats::bytes(size),
        args.nodelay
    );
    let mut table = Table::new(1, &["", "GB/s", "over the base", "min-max"]);
    let mut base = 0;
    for (at, (name, ..)) in rows.iter().enumerate() {
        if name.starts_with("read") {
            base = at;
        }
        let ratios = stats::ratios(&rates[at], &rates[base]);
        let [least, median, most] =
            [0.0, 0.5, 1.0].map(|share| decimals(stats::quantile(&ratios, share), 2));
        table.row(vec![
            (*name).to_owned(),
            decimals(stats::median(&rates[at]), 2),
            median,
            format!("{least}-{most}"),
        ]);
    }
    println!("{}", table.render(false));
    Ok(())
}

/// Returns the seconds from the first byte sent to the last byte received.
fn measure(
    args: &Args,
    sender: Sender,
    receiver: Receiver,
    size: usize,
    blocks: usize,
) -> anyhow::Result<f64> {
    let (near, far) = connection(args.nodelay)?;
    let started = Instant::now();
    let sending = thread::spawn(move || {
        runtime()?.block_on(async { send(TcpStream::from_std(near)?, sender, size, blocks).await })
    });
    let bytes = runtime()?
        .block_on(async { receive(TcpStream::from_std(far)?, receiver, size, blocks).await })?;
    let seconds = started.elapsed().as_secs_f64();
    sending.join().expect("no panic")?;
    ensure!(
        bytes == size as u64 * blocks as u64,
        "{bytes} bytes were received"
    );
    Ok(seconds)
}

fn connection(nodelay: Nodelay) -> anyhow::Result<(std::net::TcpStream, std::net::TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for socket in [&near, &far] {
        socket.set_nodelay(nodelay == Nodelay::On)?;
        socket.set_nonblocking(true)?;
    }
    Ok((near, far))
}

fn runtime() -> anyhow::Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

fn framing(size: usize) -> anyhow::Result<LengthPrefix> {
    Ok(LengthPrefix::u32().max_block_len(size.max(8 * MIB))?)
}

fn length_delimited(size: usize) -> LengthDelimitedCodec {
    let mut codec = LengthDelimitedCodec::new();
    codec.set_max_frame_length(size.max(8 * MIB));
    codec
}

async fn send(
    mut socket: TcpStream,
    sender: Sender,
    size: usize,
    blocks: usize,
) -> anyhow::Result<()> {
    let codec = BlockCodec::new(framing(size)?);
    match sender {
        Sender::LengthDelimited => {
            let payload = Bytes::from(vec![7; size]).slice(..);
            let mut framed = Framed::new(socket, length_delimited(size));
            for _ in 0..blocks {
                framed.feed(black_box(payload.clone())).await?;
            }
            SinkExt::<Bytes>::close(&mut framed).await?;
        }
        Sender::SendBlocks | Sender::SendBlocksPath => {
            let payload = Bytes::from(vec![7; size]).slice(..);
            let mut transport = BlockTransport::new(socket, codec);
            if let Sender::SendBlocksPath = sender {
                let at_once = system::path_write_len(transport.get_ref())?;
                transport = transport.write_len(3 * at_once);
            }
            let source = (0..blocks).map(|_| black_box(payload.clone()));
            send_blocks(&mut transport, stream::iter(source)).await?;
            transport.close().await?;
        }
        Sender::SendFrom => {
            let mut transport = BlockTransport::new(socket, codec);
            for _ in 0..blocks {
                let source = repeat(7).take(size as u64);
                transport.send_from(size as u64, source).await?;
            }
            transport.close().await?;
        }
        Sender::Bare { prefixed } => {
            let batch = vec![7; BATCH];
            for _ in 0..blocks {
                let mut left = size;
                if prefixed {
                    let first = left.min(BATCH - 4);
                    let header = (size as u32).to_be_bytes();
                    socket
                        .write_all(&[&header, &batch[..first]].concat())
                        .await?;
                    left -= first;
                }
                while left > 0 {
                    let part = left.min(BATCH);
                    socket.write_all(&batch[..part]).await?;
                    left -= part;
                }
            }
            socket.shutdown().await?;
        }
    }
    Ok(())
}

/// Returns how many payload bytes arrived.
async fn receive(
    mut socket: TcpStream,
    receiver: Receiver,
    size: usize,
    blocks: usize,
) -> anyhow::Result<u64> {
    let codec = BlockCodec::new(framing(size)?);
    let mut bytes = 0;
    match receiver {
        Receiver::LengthDelimited => {
            let mut framed = Framed::new(socket, length_delimited(size));
            while let Some(block) = framed.next().await {
                bytes += look(&block?);
            }
        }
        Receiver::Next => {
            let mut transport = BlockTransport::new(socket, codec);
            while let Some(block) = transport.next().await {
                bytes += look(&block?);
            }
        }
        Receiver::Reader => {
            let mut transport = BlockTransport::new(socket, codec);
            while let Some(mut block) = transport.recv_reader().await? {
                bytes += look_at_all(&mut block).await?;
            }
        }
        Receiver::BufReader => {
            let mut transport = BlockTransport::new(socket, codec);
            while let Some(block) = transport.recv_reader().await? {
                bytes += look_at_all(&mut BufReader::with_capacity(4 * BATCH, block)).await?;
            }
        }
        Receiver::Bare => {
            let mut batch = vec![0; BATCH];
            for _ in 0..blocks {
                let mut left = socket.read_u32().await? as usize;
                while left > 0 {
                    let part = left.min(BATCH);
                    let part = socket.read(&mut batch[..part]).await?;
                    ensure!(part > 0, "it ended");
                    bytes += look(&batch[..part]);
                    left -= part;
                }
            }
        }
        Receiver::ReaderTo(place) => {
            let mut transport = BlockTransport::new(socket, codec);
            let mut memory = vec![0; size];
            let mut file = scratch_file().await?;
            while let Some(mut block) = transport.recv_reader().await? {
                bytes += match place {
                    Place::Memory => {
                        copy_buf(&mut block, &mut Cursor::new(&mut memory[..])).await?
                    }
                    Place::File => {
                        file.set_len(0).await?;
                        copy_buf(&mut block, &mut file).await?
                    }
                };
            }
        }
        Receiver::BareTo(place) => {
            let mut memory = vec![0; size];
            let mut file = scratch_file().await?;
            for _ in 0..blocks {
                socket.read_u32().await?;
                bytes += match place {
                    Place::Memory => {
                        copy_bare(&mut socket, &mut Cursor::new(&mut memory[..]), size).await?
                    }
                    Place::File => {
                        file.set_len(0).await?;
                        copy_bare(&mut socket, &mut file, size).await?
                    }
                };
            }
        }
        Receiver::IntoSlab { prefixed } => {
            let mut slab = vec![0; size];
            if prefixed {
                bytes = into_slab(BlockTransport::new(socket, codec), &mut slab).await?;
            } else {
                let codec = BlockCodec::exact(size)?;
                bytes = into_slab(BlockTransport::new(socket, codec), &mut slab).await?;
            }
        }
        Receiver::BareIntoSlab { prefixed } => {
            let mut slab = vec![0; size];
            for _ in 0..blocks {
                if prefixed {
                    socket.read_u32().await?;
                }
                bytes += socket.read_exact(&mut slab).await? as u64;
                black_box(&mut slab);
            }
        }
    }
    Ok(bytes)
}

async fn look_at_all(block: &mut (impl AsyncBufRead + Unpin)) -> anyhow::Result<u64> {
    let mut bytes = 0;
    loop {
        let part = look(block.fill_buf().await?);
        if part == 0 {
            return Ok(bytes);
        }
        block.consume(part as usize);
        bytes += part;
    }
}

/// Reads all of `bytes`, and returns their number.
fn look(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    let rest = words.remainder().iter().map(|&byte| u64::from(byte));
    let word = |word: &[u8]| u64::from_ne_bytes(word.try_into().expect("8 bytes"));
    black_box(words.map(word).chain(rest).fold(0, u64::wrapping_add));
    bytes.len() as u64
}

async fn into_slab<F: wholeblock::Framing>(
    mut transport: BlockTransport<TcpStream, F>,
    slab: &mut [u8],
) -> anyhow::Result<u64> {
    let mut bytes = 0;
    while let Some(len) = transport.recv_into(slab).await? {
        bytes += len as u64;
        black_box(&mut *slab);
    }
    Ok(bytes)
}

/// The loop that a program would have without a framing.
async fn copy_bare(
    socket: &mut TcpStream,
    out: &mut (impl AsyncWrite + Unpin),
    size: usize,
) -> anyhow::Result<u64> {
    let mut batch = vec![0; BATCH];
    let mut left = size;
    while left > 0 {
        let part = left.min(BATCH);
        let bytes = socket.read(&mut batch[..part]).await?;
        ensure!(bytes > 0, "it ended");
        out.write_all(&batch[..bytes]).await?;
        left -= bytes;
    }
    out.flush().await?;
    Ok(size as u64)
}

async fn scratch_file() -> anyhow::Result<File> {
    let path = std::env::temp_dir().join(format!("wholeblock-long-{}", std::process::id()));
    let file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)
        .await?;
    std::fs::remove_file(path)?;
    Ok(file)
}

/// Returns the allocated heap bytes.
fn held() -> usize {
    let stats = GLOBAL.stats();
    stats
        .bytes_allocated
        .saturating_sub(stats.bytes_deallocated)
}

fn heap(len: u64) -> anyhow::Result<()> {
    let (near, far) = connection(Nodelay::On)?;
    let most = AtomicUsize::new(0);
    let runtimes = [runtime()?, runtime()?];
    let codec = || BlockCodec::new(LengthPrefix::u64());
    let started = Instant::now();
    let bytes = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            runtimes[0].block_on(async {
                let mut transport = BlockTransport::new(TcpStream::from_std(near)?, codec());
                let source = repeat(7).take(len);
                transport.send_from(len, source).await?;
                transport.close().await?;
                anyhow::Ok(())
            })
        });
        let bytes = runtimes[1].block_on(async {
            let mut transport = BlockTransport::new(TcpStream::from_std(far)?, codec());
            let idle = held();
            let mut block = transport.recv_reader().await?.context("a block")?;
            let mut bytes = 0;
            loop {
                let part = black_box(block.fill_buf().await?).len();
                most.fetch_max(held().saturating_sub(idle), Relaxed);
                if part == 0 {
                    break;
                }
                block.consume(part);
                bytes += part as u64;
            }
            anyhow::Ok(bytes)
        });
        sending.join().expect("no panic")?;
        bytes
    })?;
    ensure!(bytes == len, "{bytes} bytes were received");
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "one block of {} bytes, send_from, recv_reader: at most {} bytes of heap above idle, {} GB/s\n",
        stats::grouped(len as usize),
        stats::grouped(most.into_inner()),
        decimals(len as f64 / 1e9 / seconds, 2),
    );
    Ok(())
}

fn discard() -> anyhow::Result<()> {
    const SIZE: usize = 64 * MIB;
    const BLOCKS: usize = 16;
    let (near, far) = connection(Nodelay::On)?;
    let sending = thread::spawn(move || {
        let sender = Sender::Bare { prefixed: true };
        runtime()?.block_on(async { send(TcpStream::from_std(near)?, sender, SIZE, BLOCKS).await })
    });
    let (worst, held) = runtime()?.block_on(async {
        let mut transport =
            BlockTransport::new(TcpStream::from_std(far)?, BlockCodec::new(framing(SIZE)?));
        let receiving = tokio::spawn(async move {
            let mut held = 0;
            loop {
                // Cancelled now and then, to see the capacity of the read buffer meanwhile.
                let waiting = timeout(Duration::from_micros(300), transport.recv_reader());
                let Ok(received) = waiting.await else {
                    held = held.max(transport.read_capacity());
                    continue;
                };
                match received? {
                    Some(mut block) => drop(black_box(block.fill_buf().await?)),
                    None => break,
                };
            }
            anyhow::Ok(held)
        });
        let mut ticks = interval(Duration::from_millis(1));
        let mut worst = Duration::ZERO;
        while !receiving.is_finished() {
            let due = ticks.tick().await;
            worst = worst.max(due.elapsed());
        }
        anyhow::Ok((worst, receiving.await??))
    })?;
    sending.join().expect("no panic")?;
    println!(
        "readers of {BLOCKS} blocks of {}, dropped after their first part: a buffer of {} bytes, \
         a timer of 1 ms at most {:.1} ms late",
        stats::bytes(SIZE),
        stats::grouped(held),
        worst.as_secs_f64() * 1e3,
    );
    Ok(())
}
