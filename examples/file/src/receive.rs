//! The receiving end. A file grows beside its place, under a name that tells its version; when its
//! checksum is right it is synced and renamed into place. So at any time, the power failing
//! included, a name has the whole old contents or the whole new.

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use sha2::Digest;
use tokio::{fs, io::AsyncWriteExt, net::TcpStream};

use crate::{
    place::{Incoming, OldParts, Refusal, Refuse, place},
    wire::{Answer, Gone, Offer, Wire, cannot},
};

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
    pub(crate) into: PathBuf,
    patience: Duration,
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

impl Receiver {
    pub(crate) fn new(into: PathBuf, patience: Duration) -> Self {
        Self {
            into,
            patience,
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
            let mut rest = Rest::default();
            let taken = self.take(offer, &mut wire, &mut rest, &mut old, received, bar);
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
                file.receive(wire, rest, received, bar).await
            }
        }
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

/// What is still to come of a file that has been asked for.
#[derive(Default)]
struct Rest {
    /// Bytes before the checksum; none if nothing is to come.
    left: Option<u64>,
}

enum Piece {
    Bytes,
    Checksum,
    Withdrawn,
}

impl Rest {
    /// The meaning of the next block.
    fn piece(&mut self, block: &[u8]) -> anyhow::Result<Piece> {
        if block.is_empty() {
            self.left = None;
            return Ok(Piece::Withdrawn);
        }
        let Some(left @ 1..) = self.left else {
            self.left = None;
            return Ok(Piece::Checksum);
        };
        let left = left.checked_sub(block.len() as u64);
        self.left = Some(left.context("the sender sent more than it announced")?);
        Ok(Piece::Bytes)
    }

    async fn discard(mut self, wire: &mut Wire) -> anyhow::Result<()> {
        while self.left.is_some() {
            self.piece(wire.block().await?)?;
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

        let is_whole = loop {
            let block = wire.block().await?;
            match rest.piece(block)? {
                Piece::Bytes => {
                    digest.update(block);
                    file.write_all(block).await.refuse(cannot_write)?;
                    received.bytes += block.len() as u64;
                    bar.inc(block.len() as u64);
                }
                Piece::Checksum => break block == &digest.finalize()[..],
                Piece::Withdrawn => break false,
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
}
