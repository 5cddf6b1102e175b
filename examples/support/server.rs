//! The receiving end of one connection.

use std::pin::pin;

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_util::sync::CancellationToken;
use wholeblock::{BlockTransport, Framing, TransferStats, recv_blocks};

use super::{BlockFile, Patience, Wire, after, explain, is_reset, reset_on_drop, with_codec};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Receiving {
    pub(crate) wire: Wire,
    /// The number of blocks to receive; none receives all until a clean end.
    pub(crate) blocks: Option<u64>,
    pub(crate) stall_timeout: Patience,
    pub(crate) block_deadline: Patience,
}

#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) stats: TransferStats,
    /// A fault that did not cost any block.
    pub(crate) warning: Option<String>,
}

/// Takes blocks from `socket` and writes each to `file`.
pub(crate) async fn receive(
    socket: TcpStream,
    mut file: BlockFile,
    how: Receiving,
    stop: CancellationToken,
    bar: ProgressBar,
) -> anyhow::Result<Received> {
    with_codec!(how.wire, codec => {
        let mut framed = BlockTransport::new(socket, codec);
        let received = receive_all(&mut framed, &mut file, how, &stop, &bar).await;
        if received.is_err() {
            reset_on_drop(framed.get_ref());
        }
        bar.finish_and_clear();
        received
    })
}

async fn receive_all<F: Framing>(
    framed: &mut BlockTransport<TcpStream, F>,
    file: &mut BlockFile,
    how: Receiving,
    stop: &CancellationToken,
    bar: &ProgressBar,
) -> anyhow::Result<Received> {
    let received = receive_blocks(framed, file, how, stop, bar).await;
    // After a failure, too, so that the blocks before it are kept. If the file fails as well, that is the
    // worse failure, so it is the one that is returned.
    file.flush().await?;
    let stats = received?;

    let mut warning = None;
    if let Some(blocks) = how.blocks {
        tokio::select! {
            end = wait_for_end(framed, blocks, how.stall_timeout) => {
                warning = end.with_context(|| after(&stats))?;
            }
            () = stop.cancelled() => {
                bail!("stopped by a signal {}, before the client's end", after(&stats));
            }
        }
    }
    Ok(Received { stats, warning })
}

async fn receive_blocks<F: Framing>(
    framed: &mut BlockTransport<TcpStream, F>,
    file: &mut BlockFile,
    how: Receiving,
    stop: &CancellationToken,
    bar: &ProgressBar,
) -> anyhow::Result<TransferStats> {
    let mut blocks = recv_blocks(framed);
    if let Some(count) = how.blocks {
        blocks = blocks.stop_after(count).at_least(count);
    }
    if let Patience(Some(timeout)) = how.stall_timeout {
        blocks = blocks.stall_timeout(timeout);
    }
    if let Patience(Some(deadline)) = how.block_deadline {
        blocks = blocks.block_deadline(deadline);
    }

    let mut stopped = pin!(stop.cancelled());
    loop {
        // Only the wait can be interrupted: a block that has arrived is written whole.
        let next = tokio::select! {
            biased;
            () = &mut stopped => bail!("stopped by a signal {}", after(&blocks.stats())),
            next = blocks.next() => next,
        };
        match next {
            Ok(Some(block)) => file.write(block).await?,
            Ok(None) => return Ok(blocks.stats()),
            Err(error) => {
                return Err(explain(error, "client").context(after(&blocks.stats())));
            }
        }
        bar.inc(1);
    }
}

/// Waits for the client's end after its last block. More bytes are an error. A reset is only a warning: every
/// block has arrived, and a Windows program that exits without closing its socket resets it.
async fn wait_for_end<F>(
    framed: &mut BlockTransport<TcpStream, F>,
    blocks: u64,
    stall_timeout: Patience,
) -> anyhow::Result<Option<String>> {
    // Extra bytes may have been read ahead with the last block. Then read the socket directly, because even a
    // part of a block is too much.
    if !framed.read_buffer().is_empty() {
        bail!("peer sent more than {blocks} blocks");
    }
    let mut more = [0];
    let read = framed.get_mut().read(&mut more);
    match stall_timeout
        .limit("the client did not end the connection", read)
        .await?
    {
        Ok(0) => Ok(None),
        Ok(_) => bail!("peer sent more than {blocks} blocks"),
        Err(error) if is_reset(&error) => Ok(Some(format!(
            "the client reset the connection after its last block, which is complete: {error}"
        ))),
        Err(error) => Err(error.into()),
    }
}

/// Explains the counts to somebody who does not know short reads.
pub(crate) fn lesson(stats: &TransferStats) -> String {
    let TransferStats {
        blocks,
        reads,
        fragmented_blocks,
        ..
    } = *stats;
    let pieces = match fragmented_blocks {
        0 => "no block was fragmented".to_owned(),
        1 => "1 block was fragmented: it arrived over more than one read".to_owned(),
        _ => format!(
            "{fragmented_blocks} blocks were fragmented: each arrived over more than one read"
        ),
    };
    format!(
        "{pieces}; a program that took each completed read for a block would have counted {reads} \
         blocks where {blocks} were sent"
    )
}
