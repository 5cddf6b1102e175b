//! The receiving end. A file grows beside its place, under a name that tells its version; when its
//! checksum is right it is synced and renamed into place. So at any time, the power failing
//! included, a name has the whole old contents or the whole new.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use tokio::{fs, io::AsyncWriteExt, net::TcpStream};
use wholeblock::recv_blocks;

use crate::wire::{Answer, Gone, Modified, Offer, PATIENCE, Wire, cannot, digest_front};

/// What came over one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Received {
    pub(crate) files: u64,
    pub(crate) there_already: u64,
    pub(crate) resumed: u64,
    pub(crate) bytes: u64,
    /// Files and folders, each of which has been named on stderr.
    pub(crate) refused: u64,
}

/// A folder to receive into.
#[derive(Clone)]
pub(crate) struct Receiver {
    into: PathBuf,
    /// Files that are being received, each by one connection at a time.
    busy: Arc<Mutex<HashSet<PathBuf>>>,
}

/// Keeps a file from being received by two connections at once.
struct Claim {
    path: PathBuf,
    busy: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.path);
    }
}

/// A file that comes.
struct Incoming {
    path: PathBuf,
    len: u64,
    modified: Modified,
}

impl Receiver {
    pub(crate) fn new(into: PathBuf) -> Self {
        Self {
            into,
            busy: Arc::default(),
        }
    }

    /// Receives all that a connection brings.
    pub(crate) async fn receive(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        bar: &ProgressBar,
    ) -> (Received, anyhow::Result<()>) {
        let mut received = Received::default();
        let result = match Wire::new(socket) {
            Ok(wire) => self.receive_all(wire, peer, &mut received, bar).await,
            Err(error) => Err(error),
        };
        (received, result)
    }

    async fn receive_all(
        &self,
        mut wire: Wire,
        peer: SocketAddr,
        received: &mut Received,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        while let Some(offer) = wire.hear().await? {
            let mut rest = Rest::default();
            let taken = self.take(offer, &mut wire, &mut rest, received, bar).await;
            let answer = match taken {
                Ok(answer) => answer,
                Err(error) => {
                    let Refusal(why) = error.downcast()?;
                    bar.suspend(|| eprintln!("error: {peer}: {why}"));
                    received.refused += 1;
                    Answer::Refused(why)
                }
            };
            wire.say(&answer).await?;
            rest.discard(&mut wire).await?;
        }
        Ok(())
    }

    /// Takes what is offered: what to answer in the end.
    async fn take(
        &self,
        offer: Offer,
        wire: &mut Wire,
        rest: &mut Rest,
        received: &mut Received,
        bar: &ProgressBar,
    ) -> anyhow::Result<Answer> {
        match offer {
            Offer::Folder { path } => {
                let path = self.place(&path)?;
                let made = fs::create_dir_all(&path).await;
                made.refuse(|| cannot("make", &path))?;
                Ok(Answer::Whole)
            }
            Offer::File {
                path,
                len,
                modified,
            } => {
                let path = self.place(&path)?;
                let _claim = self.claim(&path)?;
                let file = Incoming {
                    path,
                    len,
                    modified,
                };
                file.receive(wire, rest, received, bar).await
            }
        }
    }

    /// Where a path lies here: below the folder, whatever the peer says.
    fn place(&self, path: &[String]) -> anyhow::Result<PathBuf> {
        let mut place = self.into.clone();
        for name in path {
            let mut parts = Path::new(name).components();
            let plain = matches!(
                (parts.next(), parts.next()),
                (Some(std::path::Component::Normal(part)), None) if part == name.as_str()
            );
            // `a:b` is a second stream of `a` to Windows, and `.part` is what this program needs.
            if !plain || name.contains([':', '\\', '\0']) || name.ends_with(PARTIAL) {
                bail!(Refusal(format!("{name:?} is no name for a file here")));
            }
            place.push(name);
        }
        if path.is_empty() {
            bail!(Refusal("it has no name".into()));
        }
        Ok(place)
    }

    fn claim(&self, path: &Path) -> anyhow::Result<Claim> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(path.to_owned()) {
            // The connection before may not have noticed its end yet: the sender is to try again.
            bail!(Gone);
        }
        Ok(Claim {
            path: path.to_owned(),
            busy: self.busy.clone(),
        })
    }
}

const PARTIAL: &str = ".part";

/// What is still to come of a file that has been asked for.
#[derive(Default)]
struct Rest {
    /// Bytes before the checksum; none if nothing is to come.
    left: Option<u64>,
}

enum Part {
    Bytes,
    Checksum,
    Withdrawn,
}

impl Rest {
    /// The meaning of the next block.
    fn part(&mut self, block: &[u8]) -> anyhow::Result<Part> {
        if block.is_empty() {
            self.left = None;
            return Ok(Part::Withdrawn);
        }
        let Some(left @ 1..) = self.left else {
            self.left = None;
            return Ok(Part::Checksum);
        };
        let left = left.checked_sub(block.len() as u64);
        self.left = Some(left.context("the sender sent more than it announced")?);
        Ok(Part::Bytes)
    }

    async fn discard(mut self, wire: &mut Wire) -> anyhow::Result<()> {
        let mut blocks = recv_blocks(&mut wire.reader).stall_timeout(PATIENCE);
        while self.left.is_some() {
            self.part(blocks.next().await?.context(Gone)?)?;
        }
        Ok(())
    }
}

impl Incoming {
    async fn receive(
        &self,
        wire: &mut Wire,
        rest: &mut Rest,
        received: &mut Received,
        bar: &ProgressBar,
    ) -> anyhow::Result<Answer> {
        if self.is_here().await {
            received.there_already += 1;
            return Ok(Answer::Whole);
        }
        let partial = self.partial_path()?;
        let cannot_write = || cannot("write", &partial);
        let (mut file, mut digest, from) = self.resume(&partial).await.refuse(cannot_write)?;
        received.resumed += u64::from(from > 0);
        bar.set_length(self.len);
        bar.set_position(from);
        bar.set_message(self.path.display().to_string());
        wire.say(&Answer::From(from)).await?;
        rest.left = Some(self.len - from);

        // Each block is written before the next one comes, so it can be lent.
        let mut blocks = recv_blocks(&mut wire.reader).stall_timeout(PATIENCE);
        let is_whole = loop {
            let block = blocks.next().await?.context(Gone)?;
            match rest.part(block)? {
                Part::Bytes => {
                    digest.update(block);
                    file.write_all(block).await.refuse(cannot_write)?;
                    received.bytes += block.len() as u64;
                    bar.inc(block.len() as u64);
                }
                Part::Checksum => break block == &digest.finalize()[..],
                Part::Withdrawn => break false,
            }
        };
        file.flush().await.refuse(cannot_write)?;
        if !is_whole {
            fs::remove_file(&partial).await.refuse(cannot_write)?;
            return Ok(Answer::Differs);
        }
        self.finish(file, &partial).await.refuse(cannot_write)?;
        received.files += 1;
        Ok(Answer::Whole)
    }

    /// Whether this version is here already: by length and time, as other programs tell it.
    async fn is_here(&self) -> bool {
        let Ok(data) = fs::metadata(&self.path).await else {
            return false;
        };
        let modified = data.modified().ok();
        data.is_file()
            && data.len() == self.len
            && modified.map(Modified::from) == Some(self.modified)
    }

    /// Beside its place, so that it is on the same disk, and named by its version, so that nothing
    /// of another version is continued.
    fn partial_path(&self) -> anyhow::Result<PathBuf> {
        let mut name = self.path.file_name().context("it has no name")?.to_owned();
        name.push(format!(".{}-{}{PARTIAL}", self.len, self.modified));
        Ok(self.path.with_file_name(name))
    }

    /// Opens what there is of it, or makes it; with the checksum and the length of that.
    async fn resume(&self, partial: &Path) -> io::Result<(fs::File, Sha256, u64)> {
        let (partial, len) = (partial.to_owned(), self.len);
        let folder = self.path.parent().map(Path::to_owned);
        let opened = tokio::task::spawn_blocking(move || {
            if let Some(folder) = folder {
                std::fs::create_dir_all(folder)?;
            }
            let mut file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(partial)?;
            let from = file.metadata()?.len().min(len);
            file.set_len(from)?;
            let digest = digest_front(&mut file, from)?;
            Ok((fs::File::from_std(file), digest, from))
        });
        opened.await?
    }

    async fn finish(&self, file: fs::File, partial: &Path) -> io::Result<()> {
        let file = file.into_std().await;
        let (partial, path, modified) = (partial.to_owned(), self.path.clone(), self.modified);
        let finished = tokio::task::spawn_blocking(move || {
            if let Some(time) = modified.time() {
                file.set_modified(time)?;
            }
            file.sync_all()?;
            drop(file);
            std::fs::rename(&partial, &path)?;
            // The name, too, has to be on the disk. Windows cannot open a folder for that.
            #[cfg(unix)]
            if let Some(folder) = path.parent() {
                std::fs::File::open(folder)?.sync_all()?;
            }
            Ok(())
        });
        finished.await?
    }
}

/// Why one file or folder is refused, in words for the sender. Others can still come.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(String);

trait Refuse<T> {
    fn refuse(self, cannot: impl FnOnce() -> String) -> anyhow::Result<T>;
}

impl<T> Refuse<T> for io::Result<T> {
    fn refuse(self, cannot: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|error| Refusal(format!("{}: {error}", cannot())).into())
    }
}
