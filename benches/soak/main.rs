//! A soak: many connections over 127.0.0.1 for as long as told, in all forms and framings, that
//! stall, break off and come back. Whatever happens, each goes on at the block it is at.
//!
//! ```text
//! cargo bench --bench soak -- --seconds 120
//! cargo bench --bench soak -- --seconds 1200 --seed 7
//! ```
//!
//! Prints what was moved, which faults were met and how often, and the memory that was resident at
//! the start, in the middle and at the end. Fails if a block is lost, torn, repeated or wrong: each
//! is compared with what was sent, byte for byte. Fails too if a connection hangs, if memory grows
//! between the middle and the end by more than [`GROWTH`], and if one of the faults was never met.
//!
//! The seed decides what each session is to be, but not what it meets with: that is the machine's.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::Parser;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Builder,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    plan::Plan,
    session::{Blocks, Session},
    support::{
        run,
        stats::{bytes, grouped},
        system::resident_bytes,
    },
    tally::{Met, Tally},
};

mod plan;
mod recv;
mod send;
mod session;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each benchmark uses a part of what they share")]
mod support;
mod tally;

/// Bytes by which resident memory may grow between the middle and the end. It goes up and down by
/// some, with how many large blocks are under way when it is looked at.
const GROWTH: u64 = 16 << 20;

/// No session takes a tenth of it, unless it hangs.
const HANGS: Duration = Duration::from_secs(60);

/// Bytes of the buffers that every other connection's sockets have, small enough to be filled.
const SMALL_BUFFER: u32 = 64 * 1024;

/// `cargo bench --bench soak -- [OPTIONS]`
#[derive(Debug, Parser)]
#[command(about = "Many connections for long, that stall, break off and come back")]
struct Args {
    /// How long.
    #[arg(long, default_value = "120")]
    seconds: u64,
    /// Connections at a time.
    #[arg(long, default_value = "64", value_parser = run::parse_count)]
    connections: usize,
    /// What decides on the sessions; another one each time unless told.
    #[arg(long)]
    seed: Option<u64>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    if !run::is_bench("soak") {
        return Ok(());
    }
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!(
        "{} connections for {} s, seed {seed}",
        args.connections, args.seconds
    );
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(soak(&args, seed))
}

async fn soak(args: &Args, seed: u64) -> anyhow::Result<()> {
    let whole = Duration::from_secs(args.seconds);
    let until = Instant::now() + whole;
    let (tally, blocks) = (Arc::new(Tally::default()), Arc::new(Blocks::new(seed)));
    let start = resident_bytes();
    let (middle, end) = (resident_in(whole / 2), resident_in(whole));
    let mut connections = JoinSet::new();
    for connection in 0..args.connections {
        let (tally, blocks) = (tally.clone(), blocks.clone());
        connections.spawn(async move {
            reconnecting(connection, seed, blocks, tally, until)
                .await
                .with_context(|| format!("connection {connection}, seed {seed}"))
        });
    }
    while let Some(connection) = connections.join_next().await {
        connection??;
    }
    println!("{tally}");
    check_memory(start, middle.await?, end.await?)?;
    let unmet = tally.unmet();
    ensure!(unmet.is_empty(), "never met: {unmet:?}");
    Ok(())
}

fn resident_in(time: Duration) -> JoinHandle<Option<u64>> {
    tokio::spawn(async move {
        sleep(time).await;
        resident_bytes()
    })
}

fn check_memory(start: Option<u64>, middle: Option<u64>, end: Option<u64>) -> anyhow::Result<()> {
    let (Some(start), Some(middle), Some(end)) = (start, middle, end) else {
        println!("resident memory is not known here");
        return Ok(());
    };
    let [at_start, in_the_middle, at_the_end] =
        [start, middle, end].map(|bytes| grouped((bytes >> 10) as usize));
    println!(
        "resident memory: {at_start} KiB at the start, {in_the_middle} in the middle, {at_the_end} \
         at the end"
    );
    let most = bytes(GROWTH as usize);
    ensure!(
        end <= middle + GROWTH,
        "memory grew by more than {most} from the middle to the end"
    );
    Ok(())
}

/// One session after the other, each from the block on that the one before did not receive.
async fn reconnecting(
    connection: usize,
    seed: u64,
    blocks: Arc<Blocks>,
    tally: Arc<Tally>,
    until: Instant,
) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(seed.wrapping_add(connection as u64));
    let listener = listen(connection % 2 == 0)?;
    let mut first = 0;
    while Instant::now() < until {
        let plan = Plan::draw(&mut random);
        let (sender, receiver) = connect(&listener, random.bool()).await?;
        let session = Arc::new(Session {
            plan,
            connection,
            first,
            blocks: blocks.clone(),
            tally: tally.clone(),
        });
        let run = session::run(session.clone(), sender, receiver);
        let ended = timeout(HANGS, run).await.context("it hangs");
        let received = ended
            .and_then(|ended| ended)
            .with_context(|| format!("from block {first} on, {:?}", session.plan))?;
        first += received;
        tally.add(Met::Reconnection, 1);
    }
    Ok(())
}

fn listen(with_small_buffers: bool) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    if with_small_buffers {
        socket.set_send_buffer_size(SMALL_BUFFER)?; // those that it accepts will have them too
        socket.set_recv_buffer_size(SMALL_BUFFER)?;
    }
    socket.bind("127.0.0.1:0".parse().expect("an address"))?;
    socket.listen(1)
}

/// The sender's end and the receiver's.
async fn connect(
    listener: &TcpListener,
    from_client: bool,
) -> anyhow::Result<(TcpStream, TcpStream)> {
    let client = TcpStream::connect(listener.local_addr()?);
    let (client, (server, _)) = tokio::try_join!(client, listener.accept())?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok(match from_client {
        true => (client, server),
        false => (server, client),
    })
}
