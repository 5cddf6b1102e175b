//! The receiving end. A file grows beside its place, under a name that tells its version; when its
//! checksum is right it is synced and renamed into place. So at any time, the power failing
//! included, a name has the whole old contents or the whole new.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
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
        bar: &ProgressBar,
    ) -> (Received, anyhow::Result<()>) {
        let mut received = Received::default();
        let result = match Wire::new(socket) {
            Ok(mut wire) => match self.receive_all(&mut wire, &mut received, bar).await {
                Ok(()) => Ok(()),
                Err(error) if error.is::<Refusal>() => {
                    let refused = Answer::Refused(format!("{error:#}"));
                    if wire.say(&refused).await.is_ok() {
                        wire.linger().await;
                    }
                    Err(error)
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        (received, result)
    }

    async fn receive_all(
        &self,
        wire: &mut Wire,
        received: &mut Received,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        while let Some(offer) = wire.hear().await? {
            let answer = match offer {
                Offer::Folder { path } => {
                    let path = self.place(&path)?;
                    fs::create_dir_all(&path)
                        .await
                        .refuse(|| cannot("make", &path))?;
                    Answer::Whole
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
                    file.receive(wire, received, bar).await?
                }
            };
            wire.say(&answer).await?;
        }
        Ok(())
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

impl Incoming {
    async fn receive(
        &self,
        wire: &mut Wire,
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

        let mut reached = from;
        // Each block is written before the next one comes, so it can be lent.
        let mut blocks = recv_blocks(&mut wire.reader).stall_timeout(PATIENCE);
        while reached < self.len {
            let block = blocks.next().await?.context(Gone)?;
            digest.update(block);
            file.write_all(block).await.refuse(cannot_write)?;
            reached += block.len() as u64;
            received.bytes += block.len() as u64;
            bar.set_position(reached);
        }
        drop(blocks);
        ensure!(
            reached == self.len,
            "the sender sent more than it announced"
        );
        file.flush().await.refuse(cannot_write)?;

        let theirs = wire.reader.next().await.context(Gone)??;
        if theirs[..] != digest.finalize()[..] {
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

/// An error to tell the sender of: of this machine, and the same each time.
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
