//! The receiving end. A file grows beside its place, under a name that contains its version. If its checksum
//! is right, it is synced and renamed into place. So a name always has the whole old contents or the whole
//! new contents, even after a power failure.

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use indicatif::ProgressBar;
use sha2::Digest;
use tokio::{
    fs,
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    place::{Incoming, OldParts, place},
    wire::{Answer, Gone, Offer, PART, Refusal, Refuse, Wire, cannot, in_time},
};

/// What came over one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Received {
    pub(crate) files: u64,
    pub(crate) there_already: u64,
    pub(crate) resumed: u64,
    pub(crate) bytes: u64,
    /// Files and folders. Each was named on stderr.
    pub(crate) refused: u64,
}

/// A folder to receive into.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) into: PathBuf,
    patience: Duration,
    /// Files that are being received now.
    busy: Arc<Mutex<HashSet<PathBuf>>>,
}

/// Prevents two connections from receiving the same file at once.
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

impl Receiver {
    pub(crate) fn new(into: PathBuf, patience: Duration) -> Self {
        Self {
            into,
            patience,
            busy: Arc::default(),
        }
    }

    /// Receives everything that a connection sends.
    pub(crate) async fn receive(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        bar: &ProgressBar,
    ) -> (Received, anyhow::Result<()>) {
        let mut received = Received::default();
        let result = match Wire::new(socket, self.patience) {
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
        let mut old = OldParts::default();
        while let Some(offer) = wire.hear().await? {
            let taken = self.take(offer, &mut wire, &mut old, received, bar);
            let answer = match taken.await {
                Ok(answer) => answer,
                Err(error) => {
                    let Refusal(why) = error.downcast()?;
                    bar.suspend(|| eprintln!("error: {peer}: {why}"));
                    received.refused += 1;
                    Answer::Refused(why)
                }
            };
            wire.say(&answer).await?;
            if wire.is_in_file && !wire.discard_file().await {
                break; // the sender ended the connection
            }
        }
        Ok(())
    }

    /// Takes what the sender offers, and returns the final answer.
    async fn take(
        &self,
        offer: Offer,
        wire: &mut Wire,
        old: &mut OldParts,
        received: &mut Received,
        bar: &ProgressBar,
    ) -> anyhow::Result<Answer> {
        match offer {
            Offer::Folder { path } => {
                let path = place(&self.into, &path).await?;
                let made = fs::create_dir_all(&path).await;
                made.refuse(|| cannot("make", &path))?;
                Ok(Answer::Whole)
            }
            Offer::File {
                path,
                len,
                modified,
            } => {
                let path = place(&self.into, &path).await?;
                let _claim = self.claim(&path)?;
                let file = Incoming {
                    path,
                    len,
                    modified,
                };
                old.remove(&file).await?;
                let taken = file.receive(wire, received, bar).await;
                taken.with_context(|| cannot("receive", &file.path))
            }
        }
    }

    fn claim(&self, path: &Path) -> anyhow::Result<Claim> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(path.to_owned()) {
            // An earlier connection may be cut and not have noticed it yet. The sender tries again.
            bail!(
                "{} is still being received over another connection",
                path.display()
            );
        }
        Ok(Claim {
            path: path.to_owned(),
            busy: self.busy.clone(),
        })
    }
}

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
        wire.is_in_file = true;

        let rest = in_time(wire.patience, wire.reader.recv_reader()).await?;
        let mut rest = rest.context(Gone::Ended)?;
        let (announced, lacking) = (rest.len(), self.len - from);
        ensure!(
            announced == lacking,
            "the sender announces {announced} bytes where {lacking} are due"
        );
        let mut part = Vec::with_capacity(PART);
        while rest.remaining() > 0 {
            part.clear();
            let mut next = (&mut rest).take(PART as u64);
            let read = in_time(wire.patience, next.read_to_end(&mut part)).await;
            digest.update(&part);
            file.write_all(&part).await.refuse(cannot_write)?;
            received.bytes += part.len() as u64;
            bar.inc(part.len() as u64);
            if let Err(error) = read {
                // The next connection resumes at the byte where this one ended.
                file.flush().await.refuse(cannot_write)?;
                return Err(error);
            }
        }
        drop(rest);
        file.flush().await.refuse(cannot_write)?;
        let checksum = in_time(wire.patience, wire.reader.recv()).await?;
        let is_whole = checksum.context(Gone::Ended)? == &digest.finalize()[..];
        wire.is_in_file = false;
        if !is_whole {
            fs::remove_file(&partial).await.refuse(cannot_write)?;
            return Ok(Answer::Differs);
        }
        self.finish(file, &partial).await.refuse(cannot_write)?;
        received.files += 1;
        Ok(Answer::Whole)
    }
}
