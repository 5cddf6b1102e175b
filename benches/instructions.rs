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
//! transport with all its timeouts set. `.ci/instructions` runs each way with two numbers of blocks, and
//! subtracts, so that the start of the program does not count.

use std::{env, hint::black_box, time::Duration};

use anyhow::{bail, ensure};
use futures::{executor::block_on, sink};
use support::{
    contenders::{
        feed, feed_own, receive, receive_batches, receive_counted, receive_lent, receive_own,
        send_all,
    },
    load::{Blocks, Load, Source},
};
use testing::Scripted;
use tokio::io::AsyncReadExt;
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
                     field-sink";

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
    let ours = || BlockTransport::new(memory(load), BlockCodec::length_prefixed());
    // As SECURITY.md recommends. Nothing waits here, so no timer is ever set.
    let timed = || {
        ours()
            .stall_timeout(MINUTE)
            .block_deadline(MINUTE)
            .write_timeout(MINUTE)
    };
    let field = LengthField::config().build()?; // the same bytes on the wire
    let field = || BlockTransport::new(memory(load), BlockCodec::new(field));
    let framed = || Framed::new(memory(load), BlockCodec::length_prefixed());
    let theirs = || Framed::new(memory(load), LengthDelimitedCodec::new());
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

/// The least that a sender does: takes each block from its source, and drops it.
fn look_at(source: Blocks) -> u64 {
    let mut seen = 0;
    for block in source {
        black_box(block);
        seen += 1;
    }
    seen
}
