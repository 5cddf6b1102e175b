//! A flood of blocks over a transport that is always ready and spends nothing of a task's budget. The task
//! must yield nevertheless, and must move blocks in each turn.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
};

use futures::StreamExt;
use testing::{
    Scripted,
    reader::{Event, Reader},
};
use tokio::runtime::{Builder, Runtime};
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, Framing,
    internals::{BATCH, RECEIVED_PER_TURN},
    recv_blocks,
};

/// Blocks of a flood: enough for some turns.
const BLOCKS: u64 = 16 * RECEIVED_PER_TURN;

/// The longest average block of a flood, in bytes on the wire.
const LONGEST: usize = 256;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().build().expect("a runtime");
}

/// How a flood is received.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Owned,
    /// By `recv_blocks`.
    Received,
    Lent,
    Batched,
}

/// Receives the blocks of a stream as a flood, if they are small and the stream contains nothing else. Panics
/// if too many blocks pass between two yields.
pub(crate) fn receive<F: Framing>(
    codec: BlockCodec<F>,
    mut reader: Reader<'_>,
    wire: &[u8],
    form: Form,
) {
    let (mut blocks, mut shortest) = (0, usize::MAX);
    while let Event::Block { wire, .. } = reader.peek() {
        (blocks, shortest) = (blocks + 1, shortest.min(wire.len()));
        reader.take(wire.len());
    }
    if reader.peek() != Event::End || blocks == 0 || wire.len() > blocks * LONGEST {
        return;
    }
    // The blocks of a buffer are charged together if they are skipped or lent as a batch.
    let a_buffer = match (form, reader.skipped) {
        (Form::Batched, 0) => BATCH / shortest,
        (_, 0) => 0,
        _ => BATCH,
    };
    let most = RECEIVED_PER_TURN + a_buffer as u64;
    let mut transport = BlockTransport::new(Scripted::repeating(wire, u64::MAX), codec);
    let (mut passed, mut before) = (0, 0);
    let all_yield = poll_fn(|cx| {
        loop {
            let polled = poll(&mut transport, form, cx);
            let yields = polled.is_pending();
            if let Poll::Ready(received) = polled {
                passed += received.expect("no error");
            }
            let all = passed + transport.codec().skipped_blocks();
            assert!(all - before <= most, "{} blocks in a turn", all - before);
            if all > BLOCKS {
                return Poll::Ready(());
            }
            if yields {
                assert!(all > before, "a turn that only pays for those before it");
                before = all;
                return Poll::Pending;
            }
        }
    });
    RUNTIME.with(|runtime| runtime.block_on(all_yield));
}

/// Receives a block, or a batch.
fn poll<F: Framing>(
    transport: &mut BlockTransport<Scripted, F>,
    form: Form,
    cx: &mut Context<'_>,
) -> Poll<Result<u64, BlockError>> {
    match form {
        Form::Owned => transport
            .poll_next_unpin(cx)
            .map(|block| block.expect("no end").map(|_| 1)),
        Form::Received => pin!(recv_blocks(transport).next())
            .poll(cx)
            .map_ok(|block| block.map_or(0, |_| 1)),
        Form::Lent => pin!(transport.recv())
            .poll(cx)
            .map_ok(|block| block.map_or(0, |_| 1)),
        Form::Batched => pin!(transport.recv_batch())
            .poll(cx)
            .map_ok(|batch| batch.map_or(0, |batch| batch.count() as u64)),
    }
}
