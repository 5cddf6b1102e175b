//! Moves 64-byte blocks in one of several ways, under callgrind.
//!
//! ```text
//! .ci/instructions
//! ```
//!
//! prints how many instructions each way takes for a block, and fails if a way takes more than its bound.
//! To run one way by hand, take the binary that `cargo bench -p benches --bench instructions --no-run` names:
//!
//! ```text
//! valgrind --tool=callgrind BINARY lent-next 120000
//! ```
//!
//! The ways are the loops of `loopback`, and the blocks come from the same source: slices of a shared buffer.
//! Everything happens in memory, over a transport that fills each read and takes every write whole. Blocks
//! have a big-endian u32 before them, from a `LengthPrefix` or (`field-`) from a `LengthField`. `timed-` is a
//! transport with all its timeouts set. `waiting-` counts attempts instead of blocks: a task that waits for
//! several things at once tries to receive and to flush again and again while nothing arrives.
//! `.ci/instructions` runs each way with two numbers of blocks, and subtracts, so that the start of the program
//! does not count.

use std::{env, future::poll_fn, hint::black_box, task::Poll, time::Duration};

use anyhow::{bail, ensure};
use futures::{SinkExt, StreamExt, executor::block_on, sink};
use support::{
    contenders::{
        Failure, Peer, feed, feed_own, receive, receive_batches, receive_counted, receive_lent,
        receive_own, send_all,
    },
    load::{Blocks, Load, Source},
};
use testing::Scripted;
use tokio::{io::AsyncReadExt, runtime};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use wholeblock::{BlockCodec, BlockTransport, LengthField};

const MINUTE: Duration = Duration::from_secs(60);

/// Blocks that lie one after the other in memory. The number of blocks must be a multiple of this.
const AT_ONCE: usize = 1_000;

const MODES: &str = "memory, lent-next, lent-batch, transport-stream, framed-stream, \
                     framed-recv-blocks, \
                     lengthdelimited-stream, source, empty-sink, send-blocks, transport-feed, transport-next, transport-sink, \
                     framed-sink, lengthdelimited-sink, timed-next, timed-batch, timed-stream, \
                     timed-sink, timed-send-blocks, field-next, field-batch, field-stream, \
                     field-sink, waiting-transport, waiting-timed, waiting-framed, \
                     waiting-lengthdelimited";

fn main() -> anyhow::Result<()> {
    let args: Vec<_> = env::args().skip(1).collect();
    let (Some(mode), Some(Ok(blocks))) = (args.first(), args.get(1).map(|arg| arg.parse())) else {
        println!("usage: instructions MODE BLOCKS, under valgrind --tool=callgrind");
        println!("MODE:  {MODES}");
        println!("all of them, as a table: .ci/instructions");
        return Ok(());
    };
    let load = Load {
        size: 64,
        prefixed: true,
        source: Source::Slices,
        blocks,
        write_len: None,
    };
    let memory = || match mode.starts_with("waiting-") {
        true => Scripted::repeating(&load.wire().repeat(AT_ONCE), 1).then_silent(),
        false => memory(load),
    };
    let ours = || BlockTransport::new(memory(), BlockCodec::length_prefixed());
    // As SECURITY.md recommends. A timer is set only if something waits.
    let timed = || {
        ours()
            .stall_timeout(MINUTE)
            .block_deadline(MINUTE)
            .write_timeout(MINUTE)
    };
    let field = LengthField::config().build()?; // the same bytes on the wire
    let field = || BlockTransport::new(memory(), BlockCodec::new(field));
    let framed = || Framed::new(memory(), BlockCodec::length_prefixed());
    let theirs = || Framed::new(memory(), LengthDelimitedCodec::new());
    let source = load.source();
    // Not through `Contender::run`, which also compiles the round trips: a function with more than one caller
    // is not inlined into the loops that are counted here.
    let moved = match mode.as_str() {
        "memory" => block_on(read_all(load)),
        "lent-next" => block_on(receive_lent(ours())),
        "lent-batch" => block_on(receive_batches(ours())),
        "transport-stream" => block_on(receive(ours())),
        "framed-stream" => block_on(receive(framed())),
        "framed-recv-blocks" => block_on(receive_counted(framed())),
        "lengthdelimited-stream" => block_on(receive(theirs())),
        "source" => Ok(look_at(source)),
        "empty-sink" => block_on(feed(sink::drain(), source)),
        "send-blocks" => block_on(send_all(ours(), source)),
        "transport-feed" => block_on(feed_own(ours(), source)),
        "transport-next" => block_on(receive_own(ours())),
        "transport-sink" => block_on(feed(ours(), source)),
        "framed-sink" => block_on(feed(framed(), source)),
        "lengthdelimited-sink" => block_on(feed(theirs(), source)),
        "timed-next" => block_on(receive_lent(timed())),
        "timed-batch" => block_on(receive_batches(timed())),
        "timed-stream" => block_on(receive(timed())),
        "timed-sink" => block_on(feed(timed(), source)),
        "timed-send-blocks" => block_on(send_all(timed(), source)),
        "field-next" => block_on(receive_lent(field())),
        "field-batch" => block_on(receive_batches(field())),
        "field-stream" => block_on(receive(field())),
        "field-sink" => block_on(feed(field(), source)),
        "waiting-transport" => wait_often(ours(), blocks),
        "waiting-timed" => wait_often(timed(), blocks),
        "waiting-framed" => wait_often(framed(), blocks),
        "waiting-lengthdelimited" => wait_often(theirs(), blocks),
        _ => bail!("no mode {mode}; there are {MODES}"),
    }?;
    ensure!(moved == blocks, "{moved} of {blocks} blocks");
    Ok(())
}

/// Returns a transport in memory. It fills each read with the same block again and again. It takes every write,
/// also a vectored one, and drops it.
fn memory(load: Load) -> Scripted {
    Scripted::repeating(&load.wire().repeat(AT_ONCE), load.blocks / AT_ONCE as u64)
}

/// The least that a receiver does: the transport copies into a buffer, which nobody looks at.
async fn read_all(load: Load) -> anyhow::Result<u64> {
    let mut memory = memory(load);
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    loop {
        match memory.read(&mut buffer).await? {
            0 => return Ok((bytes / load.wire_len()) as u64),
            len => bytes += black_box(&buffer[..len]).len(),
        }
    }
}

/// Receives what arrives at first, then tries `attempts` times to receive and to flush, in one poll of a task.
fn wait_often<E: Failure>(mut peer: impl Peer<E>, attempts: u64) -> anyhow::Result<u64> {
    let task = poll_fn(move |cx| {
        let mut waited = 0;
        while waited < attempts {
            waited += u64::from(peer.poll_next_unpin(cx)?.is_pending());
            assert!(peer.poll_ready_unpin(cx)?.is_ready());
            assert!(peer.poll_flush_unpin(cx)?.is_ready());
        }
        Poll::Ready(Ok(waited))
    });
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async { tokio::spawn(task).await? })
}

/// The least that a sender does: takes each block from its source, and drops it.
fn look_at(source: Blocks) -> u64 {
    let mut seen = 0;
    for block in source {
        black_box(block);
        seen += 1;
    }
    seen
}
