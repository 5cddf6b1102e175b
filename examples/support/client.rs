//! The sending end of one connection.

use std::{io, ops::Range, pin::pin, time::Instant};

use anyhow::{Context, anyhow, bail};
use bytes::{Bytes, BytesMut};
use futures::stream;
use indicatif::ProgressBar;
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream, lookup_host},
};
use tokio_util::sync::CancellationToken;
use wholeblock::{BlockTransport, Framing, TransferStats, send_blocks};

use super::{
    BlockFile, Lines, Patience, Wire, after, complain, explain, is_reset, reset_on_drop, say,
    with_codec,
};

/// Bytes handed to the kernel before they are logged. This is enough for full vectored writes. It is small
/// enough that the log is never far behind, and that the blocks stay in the processor's cache.
const GROUP_BYTES: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) wire: Wire,
    pub(crate) blocks: u64,
    pub(crate) stall_timeout: Patience,
}

/// Connects to the first address of `server` that answers.
pub(crate) async fn connect(
    server: &str,
    send_buffer_times: u32,
    stall_timeout: Patience,
) -> anyhow::Result<TcpStream> {
    let cannot_connect = || format!("cannot connect to {server}");
    let mut failed = anyhow!("it has no address");
    for address in lookup_host(server).await.with_context(cannot_connect)? {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        };
        let socket = socket.context("cannot make a socket")?;
        enlarge_send_buffer(&socket, send_buffer_times);
        let connecting = socket.connect(address);
        match stall_timeout.limit("it did not answer", connecting).await {
            Ok(Ok(stream)) => {
                // Nagle's algorithm would hold back the end of each write until the peer has
                // acknowledged the rest.
                stream
                    .set_nodelay(true)
                    .context("cannot turn Nagle's algorithm off")?;
                return Ok(stream);
            }
            Ok(Err(error)) => failed = error.into(),
            Err(error) => failed = error,
        }
    }
    Err(failed.context(cannot_connect()))
}

/// Asks for `times` the default send buffer, and prints the result. Does not fail, because a smaller buffer
/// only makes the transfer slower.
fn enlarge_send_buffer(socket: &TcpSocket, times: u32) {
    let default = match socket.send_buffer_size() {
        Ok(default) => default,
        Err(error) => return complain(format_args!("warning: send buffer unknown: {error}")),
    };
    if times < 2 {
        return say(format_args!(
            "send buffer: default {default} bytes, left alone"
        ));
    }
    // The system call takes a C int.
    let asked = default.saturating_mul(times).min(i32::MAX as u32);
    let reported = socket
        .set_send_buffer_size(asked)
        .and_then(|()| socket.send_buffer_size());
    let reported = match reported {
        Ok(reported) => reported,
        Err(error) => {
            return complain(format_args!(
                "warning: send buffer: default {default} bytes, asked for {asked}, refused: {error}"
            ));
        }
    };
    // socket(7): Linux doubles the value that is set, for its bookkeeping, and reports the doubled value.
    let (granted, note) = if cfg!(target_os = "linux") {
        let note = format!(" (Linux reports {reported}: it adds as much again for bookkeeping)");
        (reported / 2, note)
    } else {
        (reported, String::new())
    };
    say(format_args!(
        "send buffer: default {default} bytes, asked for {asked}, granted {granted}{note}"
    ));
    if granted < asked {
        complain(format_args!(
            "warning: the system granted a send buffer of {granted} bytes, less than the {asked} \
             asked for; going on with it"
        ));
    }
}

/// Sends blocks of `a`, `b` and `c` in turn, and writes each to `log` once it has been handed to
/// the kernel.
pub(crate) async fn send(
    socket: TcpStream,
    mut log: BlockFile,
    how: Sending,
    stop: CancellationToken,
    bar: ProgressBar,
) -> anyhow::Result<TransferStats> {
    with_codec!(how.wire, codec => {
        let mut framed = BlockTransport::new(socket, codec);
        let sent = send_all(&mut framed, &mut log, how, &stop, &bar).await;
        if sent.is_err() {
            reset_on_drop(framed.get_ref());
        }
        bar.finish_and_clear();
        sent
    })
}

async fn send_all<F: Framing>(
    framed: &mut BlockTransport<TcpStream, F>,
    log: &mut BlockFile,
    how: Sending,
    stop: &CancellationToken,
    bar: &ProgressBar,
) -> anyhow::Result<TransferStats> {
    let mut sent = TransferStats::default();
    let handed_over = send_in_groups(framed, log, how, stop, bar, &mut sent).await;
    // After a failure, too, so that the log has every block that was handed over.
    log.flush().await?;
    handed_over.with_context(|| after(&sent))?;

    tokio::select! {
        ended = wait_for_end(framed, how.stall_timeout) => ended.with_context(|| after(&sent))?,
        () = stop.cancelled() => {
            bail!("stopped by a signal {}, before the server's end", after(&sent));
        }
    }
    Ok(sent)
}

async fn send_in_groups<F: Framing>(
    framed: &mut BlockTransport<TcpStream, F>,
    log: &mut BlockFile,
    how: Sending,
    stop: &CancellationToken,
    bar: &ProgressBar,
    sent: &mut TransferStats,
) -> anyhow::Result<()> {
    let size = how.wire.block_size();
    let group_len = (GROUP_BYTES / size).max(1);
    let letters = Letters::new(size, group_len);
    let group_len = group_len as u64;

    let started = Instant::now();
    let mut stopped = pin!(stop.cancelled());
    while sent.blocks < how.blocks {
        let first = sent.blocks;
        let group = first..how.blocks.min(first + group_len);
        let mut sending = send_blocks(framed, stream::iter(letters.blocks(group)));
        if let Patience(Some(timeout)) = how.stall_timeout {
            sending = sending.stall_timeout(timeout);
        }
        let result = tokio::select! {
            biased;
            () = &mut stopped => Err(anyhow!("stopped by a signal")),
            result = &mut sending => result.map_err(|error| explain(error, "server")),
        };
        // After a failure, too: a part of the group may have been handed over.
        let group = sending.stats();
        drop(sending);
        add(sent, &group);
        sent.elapsed = started.elapsed();
        bar.inc(group.blocks);
        log.hand_over(letters.lines(first..sent.blocks)).await?;
        result?;
        if sent.blocks < how.blocks {
            check_still_open(framed.get_ref())?;
        }
    }
    Ok(())
}

/// Blocks of `a`, `b` and `c` in turn. Each has a line end after it in memory, so it is logged without a copy.
struct Letters {
    lines: Bytes,
    line_len: usize,
}

impl Letters {
    /// Makes enough for any `count` consecutive blocks.
    fn new(block_size: usize, count: usize) -> Self {
        let mut lines = BytesMut::with_capacity((count + 2) * (block_size + 1));
        for letter in b"abc".iter().cycle().take(count + 2) {
            lines.resize(lines.len() + block_size, *letter);
            lines.extend_from_slice(b"\n");
        }
        Self {
            lines: lines.freeze(),
            line_len: block_size + 1,
        }
    }

    fn blocks(&self, indices: Range<u64>) -> impl Iterator<Item = Bytes> {
        let (lines, len) = (self.slice(indices), self.line_len);
        (0..lines.len())
            .step_by(len)
            .map(move |start| lines.slice(start..start + len - 1))
    }

    fn lines(&self, indices: Range<u64>) -> Lines {
        Lines::of_equal_length(self.slice(indices), self.line_len)
    }

    fn slice(&self, indices: Range<u64>) -> Bytes {
        let start = (indices.start % 3) as usize * self.line_len;
        let len = (indices.end - indices.start) as usize * self.line_len;
        self.lines.slice(start..start + len)
    }
}

fn add(sum: &mut TransferStats, group: &TransferStats) {
    sum.blocks += group.blocks;
    sum.payload_bytes += group.payload_bytes;
    sum.wire_bytes += group.wire_bytes;
    sum.writes += group.writes;
}

/// Fails if the server has ended its side. If it did so before the last block, its end would later look like
/// the end of a server that has received everything.
fn check_still_open(socket: &TcpStream) -> anyhow::Result<()> {
    match socket.try_read(&mut [0]) {
        Ok(0) => bail!("the server ended the connection, but blocks remain to be sent"),
        Ok(_) => bail!("the server sent data; it should only receive"),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(explain(error.into(), "server")),
    }
}

/// Ends the stream, and waits for the server to end its side: only then has the server read everything.
async fn wait_for_end<F: Framing>(
    framed: &mut BlockTransport<TcpStream, F>,
    stall_timeout: Patience,
) -> anyhow::Result<()> {
    let mut unexpected = [0];
    let ended = async {
        framed.close().await?;
        framed.get_mut().read(&mut unexpected).await
    };
    match stall_timeout
        .limit("the server did not end the connection", ended)
        .await?
    {
        Ok(0) => Ok(()),
        Ok(_) => bail!("the server sent data; it should only receive"),
        Err(error) if is_reset(&error) => bail!(
            "the server reset the connection after the last block; what was handed over may not \
             have arrived: {error}"
        ),
        Err(error) => Err(error.into()),
    }
}
