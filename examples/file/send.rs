//! The sending end.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use futures::TryStreamExt;
use indicatif::ProgressBar;
use sha2::Digest;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_util::io::ReaderStream;
use walkdir::WalkDir;
use wholeblock::try_send_blocks;

use crate::wire::{
    Answer, BLOCK, Gone, Offer, PATIENCE, Wire, cannot, digest_front, hear, is_of_the_connection,
};

/// How often to try anew while nobody answers.
const RETRY: Duration = Duration::from_millis(200);

/// One thing to send, and where it lies here.
pub(crate) struct Item {
    source: PathBuf,
    offer: Offer,
}

impl Item {
    fn len(&self) -> u64 {
        match self.offer {
            Offer::Folder { .. } => 0,
            Offer::File { len, .. } => len,
        }
    }
}

pub(crate) fn total_len(items: &[Item]) -> u64 {
    items.iter().map(Item::len).sum()
}

/// Everything that `paths` name, folders with all that is in them.
pub(crate) fn list(paths: &[PathBuf]) -> anyhow::Result<Vec<Item>> {
    let mut items = Vec::new();
    for root in paths {
        // `.` and `..` have a name, too.
        let whole = root.canonicalize().with_context(|| cannot("read", root))?;
        let name = whole
            .file_name()
            .with_context(|| format!("{} has no name", root.display()))?;
        for entry in WalkDir::new(&whole).sort_by_file_name() {
            let entry = entry?;
            let below = entry.path().strip_prefix(&whole)?;
            let path = components(Path::new(name), below)?;
            let data = entry.metadata()?;
            let offer = if data.is_dir() {
                Offer::Folder { path }
            } else if data.is_file() {
                let modified = data.modified()?.into();
                Offer::File {
                    path,
                    len: data.len(),
                    modified,
                }
            } else {
                eprintln!(
                    "warning: {} is left out: it is neither a file nor a folder",
                    entry.path().display()
                );
                continue;
            };
            items.push(Item {
                source: entry.into_path(),
                offer,
            });
        }
    }
    Ok(items)
}

fn components(name: &Path, below: &Path) -> anyhow::Result<Vec<String>> {
    let parts = name.iter().chain(below.iter());
    let texts = parts.map(|part| part.to_str().map(str::to_owned));
    let texts: Option<Vec<String>> = texts.collect();
    texts.with_context(|| format!("{}: a name that is not Unicode", below.display()))
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) files: u64,
    pub(crate) there_already: u64,
    /// Bytes of files that crossed, those again of a file that arrived wrong too.
    pub(crate) bytes: u64,
    pub(crate) reconnects: u64,
}

/// Sends all of `items`, over as many connections as it takes. Gives up when nothing has moved on
/// for `give_up`.
pub(crate) async fn send_all(
    server: &str,
    items: &[Item],
    give_up: Duration,
    bar: &ProgressBar,
) -> anyhow::Result<Sent> {
    let mut progress = Progress {
        next: 0,
        reached: 0,
        moved: Instant::now(),
        sent: Sent::default(),
    };
    loop {
        let error = match send_from(server, items, &mut progress, bar).await {
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
    /// How far into it the receiver has come.
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
    progress: &mut Progress,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let socket = TcpStream::connect(server).await;
    let socket = socket
        .map_err(|error| anyhow!(wholeblock::BlockError::from(error)))
        .with_context(|| format!("cannot connect to {server}"))?;
    let mut wire = Wire::new(socket)?;
    while let Some(item) = items.get(progress.next) {
        bar.set_position(total_len(&items[..progress.next]));
        let mut differed = false;
        loop {
            let answer = send_item(&mut wire, item, progress, bar).await;
            match answer.with_context(|| cannot("send", &item.source))? {
                Answer::Whole => break,
                // Its name told a version by time and length alone, or a disk lost what it had.
                Answer::Differs if !differed => differed = true,
                Answer::Differs => bail!("{} changes while it is sent", item.source.display()),
                Answer::Refused(why) => {
                    bail!("{}: the receiver says: {why}", item.source.display())
                }
                Answer::From(_) => bail!("the receiver asks for what it has been sent"),
            }
        }
        progress.done();
    }
    wire.linger().await;
    Ok(())
}

/// Offers `item`, and sends what is asked for of it; what the receiver says in the end.
async fn send_item(
    wire: &mut Wire,
    item: &Item,
    progress: &mut Progress,
    bar: &ProgressBar,
) -> anyhow::Result<Answer> {
    wire.say(&item.offer).await?;
    let Offer::File { len, .. } = item.offer else {
        return answer(wire).await;
    };
    let from = match answer(wire).await? {
        Answer::From(from) => from,
        Answer::Whole => {
            progress.sent.there_already += 1;
            return Ok(Answer::Whole);
        }
        other => return Ok(other),
    };
    ensure!(from <= len, "the receiver asks for more than there is");
    progress.reach(from);
    bar.inc(from);

    let source = item.source.clone();
    let (file, mut digest) = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(source)?;
        let digest = digest_front(&mut file, from)?;
        Ok::<_, io::Error>((tokio::fs::File::from_std(file), digest))
    })
    .await??;

    let rest = ReaderStream::with_capacity(file.take(len - from), BLOCK);
    let blocks = rest.inspect_ok(|bytes: &Bytes| {
        digest.update(bytes);
        bar.inc(bytes.len() as u64);
    });
    // The receiver speaks in between only to say no, and would not be heard after the connection
    // is broken off.
    let sent = tokio::select! {
        sent = try_send_blocks(&mut wire.writer, blocks).stall_timeout(PATIENCE) => sent?,
        said = hear::<Answer>(&mut wire.reader) => return said?.context(Gone),
    };
    progress.sent.bytes += sent.payload_bytes;
    ensure!(sent.payload_bytes == len - from, "it has become shorter");
    wire.send(Bytes::copy_from_slice(&digest.finalize()))
        .await?;
    let answer = answer(wire).await?;
    progress.sent.files += u64::from(matches!(answer, Answer::Whole));
    Ok(answer)
}

async fn answer(wire: &mut Wire) -> anyhow::Result<Answer> {
    wire.hear().await?.context(Gone)
}
