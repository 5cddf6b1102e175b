//! The sending end.

use std::{
    fs::Metadata,
    io,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use futures::TryStreamExt;
use indicatif::ProgressBar;
use sha2::Digest;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_util::io::ReaderStream;
use wholeblock::{BlockError, try_send_blocks};

use crate::{
    list::{Item, total_len},
    wire::{
        Answer, BLOCK, Gone, Modified, Offer, Wire, cannot, digest_front, hear_between,
        is_of_the_connection,
    },
};

/// How often to try anew while nobody answers.
const RETRY: Duration = Duration::from_millis(200);

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) files: u64,
    pub(crate) there_already: u64,
    /// Bytes of files that crossed, those again of a file that arrived wrong too.
    pub(crate) bytes: u64,
    pub(crate) reconnects: u64,
    /// Files and folders that were not sent, each of which has been named on stderr.
    pub(crate) refused: u64,
}

/// What the sending of one file or folder came to.
enum Outcome {
    Whole,
    Differs,
    /// This one is not sent, for this reason, and the next one can be.
    Refused(String),
}

/// Sends all of `items`, over as many connections as it takes. Gives up when nothing has moved on
/// for `give_up`.
pub(crate) async fn send_all(
    server: &str,
    items: &[Item],
    give_up: Duration,
    patience: Duration,
    bar: &ProgressBar,
) -> anyhow::Result<Sent> {
    let mut progress = Progress {
        next: 0,
        reached: 0,
        moved: Instant::now(),
        sent: Sent::default(),
    };
    loop {
        let error = match send_from(server, items, patience, &mut progress, bar).await {
            Ok(()) => return Ok(progress.sent),
            Err(error) => error,
        };
        if !is_of_the_connection(&error) {
            return Err(error);
        }
        if progress.moved.elapsed() > give_up {
            return Err(error.context(format!("nothing has moved on for {give_up:?}")));
        }
        bar.set_message(format!("{error:#}; trying again"));
        progress.sent.reconnects += 1;
        // Nothing tells when a server will be there again.
        tokio::time::sleep(RETRY).await;
    }
}

struct Progress {
    /// The item that is being sent.
    next: usize,
    /// How far into it the sending has come.
    reached: u64,
    moved: Instant,
    sent: Sent,
}

impl Progress {
    fn reach(&mut self, offset: u64) {
        if offset > self.reached {
            self.reached = offset;
            self.moved = Instant::now();
        }
    }

    fn done(&mut self) {
        self.next += 1;
        self.reached = 0;
        self.moved = Instant::now();
    }
}

/// Sends what is left of `items`, over one connection.
async fn send_from(
    server: &str,
    items: &[Item],
    patience: Duration,
    progress: &mut Progress,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let socket = TcpStream::connect(server).await;
    let socket = socket
        .map_err(|error| anyhow!(BlockError::from(error)))
        .with_context(|| format!("cannot connect to {server}"))?;
    let mut wire = Wire::new(socket, patience)?;
    while let Some(item) = items.get(progress.next) {
        bar.set_position(total_len(&items[..progress.next]));
        let mut differed = false;
        let refused = loop {
            let outcome = send_item(&mut wire, item, progress, bar).await;
            match outcome.with_context(|| cannot("send", &item.source))? {
                Outcome::Whole => break None,
                // Its name told a version by time and length alone, or a disk lost what it had.
                Outcome::Differs if !differed => differed = true,
                Outcome::Differs => break Some("what arrives is not what was sent".into()),
                Outcome::Refused(why) => break Some(why),
            }
        };
        if let Some(why) = refused {
            bar.suspend(|| eprintln!("error: {}: {why}", cannot("send", &item.source)));
            progress.sent.refused += 1;
        }
        progress.done();
    }
    wire.linger().await;
    Ok(())
}

async fn send_item(
    wire: &mut Wire,
    item: &Item,
    progress: &mut Progress,
    bar: &ProgressBar,
) -> anyhow::Result<Outcome> {
    if !item.is_folder {
        return send_file(wire, item, progress, bar).await;
    }
    let path = item.path.clone();
    wire.say(&Offer::Folder { path }).await?;
    outcome(answer(wire).await?)
}

/// Offers a file as it is now, and sends what the receiver asks for of it.
async fn send_file(
    wire: &mut Wire,
    item: &Item,
    progress: &mut Progress,
    bar: &ProgressBar,
) -> anyhow::Result<Outcome> {
    let cannot_read = |error: &dyn std::error::Error| format!("cannot read it: {error}");
    let source = item.source.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(source)?;
        let version = version(&file.metadata()?)?;
        Ok::<_, io::Error>((file, version))
    });
    let (mut file, version) = match opened.await? {
        Ok(opened) => opened,
        Err(error) => return Ok(Outcome::Refused(cannot_read(&error))),
    };
    let (len, modified) = version;
    let path = item.path.clone();
    wire.say(&Offer::File {
        path,
        len,
        modified,
    })
    .await?;
    let from = match answer(wire).await? {
        Answer::From(from) => from,
        Answer::Whole => {
            progress.sent.there_already += 1;
            return Ok(Outcome::Whole);
        }
        other => return outcome(other),
    };
    ensure!(from <= len, "the receiver asks for more than there is");
    progress.reach(from);
    bar.inc(from);

    let front = tokio::task::spawn_blocking(move || {
        let digest = digest_front(&mut file, from)?;
        Ok::<_, io::Error>((tokio::fs::File::from_std(file), digest))
    });
    let (mut file, mut digest) = match front.await? {
        Ok(front) => front,
        Err(error) => return give_up(wire, cannot_read(&error)).await,
    };
    let rest = ReaderStream::with_capacity((&mut file).take(len - from), BLOCK);
    let mut position = from;
    let blocks = rest.inspect_ok(|bytes: &Bytes| {
        digest.update(bytes);
        position += bytes.len() as u64;
        progress.reach(position);
        bar.inc(bytes.len() as u64);
    });
    let sending = try_send_blocks(&mut wire.writer, blocks).stall_timeout(wire.patience);
    let sent = tokio::select! {
        sent = sending => sent,
        // In between, the receiver says only that it does not want the rest. What has been queued
        // of it is sent before what follows here.
        said = hear_between::<Answer>(&mut wire.reader) => {
            wire.withdraw().await?;
            return outcome(said?.context(Gone)?);
        }
    };
    let sent = match sent {
        Ok(sent) => sent.payload_bytes,
        Err(BlockError::Source(error)) => return give_up(wire, cannot_read(&*error)).await,
        Err(error) => return Err(error.into()),
    };
    progress.sent.bytes += sent;
    // A file that changes meanwhile arrives as a mixture, with the right checksum of it.
    match file.metadata().await.and_then(|data| self::version(&data)) {
        Ok(now) if sent == len - from && now == version => {}
        Ok(_) => return give_up(wire, "it changed while it was sent".into()).await,
        Err(error) => return give_up(wire, cannot_read(&error)).await,
    }
    wire.send(Bytes::copy_from_slice(&digest.finalize()))
        .await?;
    let outcome = outcome(answer(wire).await?)?;
    progress.sent.files += u64::from(matches!(outcome, Outcome::Whole));
    Ok(outcome)
}

/// Length and time, which differ after a change.
fn version(data: &Metadata) -> io::Result<(u64, Modified)> {
    Ok((data.len(), data.modified()?.into()))
}

/// Takes back what has been sent of a file that cannot be sent whole.
async fn give_up(wire: &mut Wire, why: String) -> anyhow::Result<Outcome> {
    wire.withdraw().await?;
    match outcome(answer(wire).await?)? {
        Outcome::Whole => bail!("the receiver took a part of a file for the whole"),
        Outcome::Differs | Outcome::Refused(_) => Ok(Outcome::Refused(why)),
    }
}

async fn answer(wire: &mut Wire) -> anyhow::Result<Answer> {
    wire.hear().await?.context(Gone)
}

fn outcome(answer: Answer) -> anyhow::Result<Outcome> {
    match answer {
        Answer::Whole => Ok(Outcome::Whole),
        Answer::Differs => Ok(Outcome::Differs),
        Answer::Refused(why) => Ok(Outcome::Refused(format!("the receiver says: {why}"))),
        Answer::From(_) => bail!("the receiver asks for what it has been sent"),
    }
}
