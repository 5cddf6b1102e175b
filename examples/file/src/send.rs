//! The sending end.

use std::{
    fs::Metadata,
    io,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};
use indicatif::ProgressBar;
use sha2::Digest;
use tokio::{
    io::{AsyncReadExt, BufReader},
    net::TcpStream,
};
use tokio_util::io::InspectReader;
use wholeblock::BlockError;

use crate::{
    list::Item,
    wire::{
        Answer, Gone, Modified, Offer, PART, Reader, Refusal, Refuse, Wire, cannot, digest_front,
        hear, in_time, is_of_the_connection,
    },
};

/// Time between two attempts to connect.
const RETRY: Duration = Duration::from_millis(200);

/// The result of a whole transfer.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) files: u64,
    pub(crate) there_already: u64,
    /// Bytes of files that were sent. A file that arrived wrong and was sent again counts twice.
    pub(crate) bytes: u64,
    pub(crate) reconnects: u64,
    /// Files and folders that were not sent. Each was named on stderr.
    pub(crate) refused: u64,
}

/// Sends all of `items`, over as many connections as it takes. Gives up after `give_up` without any progress.
pub(crate) async fn send_all(
    server: &str,
    items: &[Item],
    give_up: Duration,
    patience: Duration,
    bar: &ProgressBar,
) -> anyhow::Result<Sent> {
    let mut progress = Progress {
        items,
        bar,
        next: 0,
        before: 0,
        reached: 0,
        moved: Instant::now(),
        sent: Sent::default(),
    };
    loop {
        let error = match send_rest(server, patience, &mut progress).await {
            Ok(()) if progress.next == items.len() => return Ok(progress.sent),
            Ok(()) => continue,
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
        // Nothing says when the server will be back.
        tokio::time::sleep(RETRY).await;
    }
}

struct Progress<'a> {
    items: &'a [Item],
    bar: &'a ProgressBar,
    /// The item that is being sent.
    next: usize,
    /// Bytes of the items before it.
    before: u64,
    /// Bytes of this item that were sent.
    reached: u64,
    moved: Instant,
    sent: Sent,
}

impl Progress<'_> {
    fn reach(&mut self, offset: u64) {
        self.bar.set_position(self.before + offset);
        if offset > self.reached {
            self.reached = offset;
            self.moved = Instant::now();
        }
    }

    fn done(&mut self) {
        self.before += self.items[self.next].len;
        self.next += 1;
        self.reached = 0;
        self.moved = Instant::now();
    }
}

/// Sends the rest of the items over one connection. Returns early after a file that was given up in the middle.
async fn send_rest(
    server: &str,
    patience: Duration,
    progress: &mut Progress<'_>,
) -> anyhow::Result<()> {
    let socket = TcpStream::connect(server).await;
    let socket = socket
        .map_err(|error| anyhow!(BlockError::from(error)))
        .with_context(|| format!("cannot connect to {server}"))?;
    let mut wire = Wire::new(socket, patience)?;
    while let Some(item) = progress.items.get(progress.next) {
        progress.reach(0);
        if let Err(error) = send_item(&mut wire, item, progress).await {
            let cannot = cannot("send", &item.source);
            match error.downcast() {
                Ok(Refusal(why)) => progress.bar.suspend(|| eprintln!("error: {cannot}: {why}")),
                Err(error) => return Err(error.context(cannot)),
            }
            progress.sent.refused += 1;
        }
        progress.done();
        if wire.is_in_file {
            return Ok(());
        }
    }
    wire.linger().await;
    Ok(())
}

async fn send_item(
    wire: &mut Wire,
    item: &Item,
    progress: &mut Progress<'_>,
) -> anyhow::Result<()> {
    // Twice, because a resumed file can differ: a version is only a time and a length, and a disk can lose
    // data.
    for _ in 0..2 {
        let is_whole = match item.is_folder {
            true => send_folder(wire, item).await?,
            false => send_file(wire, item, progress).await?,
        };
        if is_whole {
            return Ok(());
        }
    }
    bail!(Refusal("what arrives is not what was sent".into()))
}

async fn send_folder(wire: &mut Wire, item: &Item) -> anyhow::Result<bool> {
    let path = item.path.clone();
    wire.say(&Offer::Folder { path }).await?;
    is_whole(wire).await
}

/// Offers a file as it is now, and sends the part that the receiver asks for. Returns false if the file arrived
/// with a wrong checksum.
async fn send_file(
    wire: &mut Wire,
    item: &Item,
    progress: &mut Progress<'_>,
) -> anyhow::Result<bool> {
    let cannot_read = || "cannot read it".to_owned();
    let changed = || Refusal("it changed while it was sent".into());
    let source = item.source.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(source)?;
        let version = version(&file.metadata()?)?;
        Ok::<_, io::Error>((file, version))
    });
    let (mut file, version) = opened.await?.refuse(cannot_read)?;
    let (len, modified) = version;
    let path = item.path.clone();
    wire.say(&Offer::File {
        path,
        len,
        modified,
    })
    .await?;
    let answered = in_time(wire.patience, answer(&mut wire.reader)).await?;
    let Answer::From(from) = answered else {
        let is_whole = matches!(answered, Answer::Whole);
        progress.sent.there_already += u64::from(is_whole);
        return Ok(is_whole);
    };
    ensure!(from <= len, "the receiver asks for more than there is");
    wire.is_in_file = true;
    progress.reach(from);

    let front = tokio::task::spawn_blocking(move || {
        let digest = digest_front(&mut file, from)?;
        Ok::<_, io::Error>((tokio::fs::File::from_std(file), digest))
    });
    let (mut file, mut digest) = front.await?.refuse(cannot_read)?;
    // `take`, because the file may have grown. The block is then still whole, and the connection goes on.
    let rest = BufReader::with_capacity(PART, (&mut file).take(len - from));
    let mut position = from;
    let source = InspectReader::new(rest, |bytes: &[u8]| {
        digest.update(bytes);
        position += bytes.len() as u64;
        progress.reach(position);
    });
    let sent = tokio::select! {
        sent = wire.writer.send_from(len - from, source) => sent,
        // The only answer that can come during a file is `Refused`.
        said = answer(&mut wire.reader) => bail!("the receiver answers {:?} too early", said?),
    };
    match sent {
        Ok(()) => wire.is_in_file = false,
        Err(BlockError::WrongSource { .. }) => bail!(changed()),
        Err(BlockError::Source(error)) => bail!(Refusal(format!("{}: {error}", cannot_read()))),
        Err(error) => return Err(error.into()),
    }
    progress.sent.bytes += len - from;
    // A file that changed meanwhile is a mixture of two versions, so its checksum would be worthless.
    let now = file.metadata().await.and_then(|data| self::version(&data));
    if !now.is_ok_and(|now| now == version) {
        wire.writer.send("").await?;
        is_whole(wire).await?;
        bail!(changed());
    }
    wire.writer.send(&digest.finalize()[..]).await?;
    let is_whole = is_whole(wire).await?;
    progress.sent.files += u64::from(is_whole);
    Ok(is_whole)
}

/// Returns the length and time of a file. They differ after a change.
fn version(data: &Metadata) -> io::Result<(u64, Modified)> {
    Ok((data.len(), data.modified()?.into()))
}

/// Waits for the receiver's next answer.
async fn answer(reader: &mut Reader) -> anyhow::Result<Answer> {
    match hear(reader).await?.context(Gone::Ended)? {
        Answer::Refused(why) => bail!(Refusal(format!("the receiver says: {why}"))),
        answer => Ok(answer),
    }
}

async fn is_whole(wire: &mut Wire) -> anyhow::Result<bool> {
    let answer = in_time(wire.patience, answer(&mut wire.reader)).await?;
    Ok(matches!(answer, Answer::Whole))
}
