//! What the two ends say to each other.
//!
//! ```text
//! sender                                    receiver
//! {"File":{"path":["a","b.bin"],...}}  ->
//!                                      <-   {"From":1048576}    what it has of it, from before
//! the file's bytes from there on       ->
//!   in blocks of up to 256 KiB
//! 32 bytes: SHA-256 of all of it       ->
//!                                      <-   "Whole"             it is on the disk
//! ```
//!
//! and so on with the next file. The end of the stream between two files is the end.
//!
//! Either end can give up one file, and both go on with the next. The receiver answers `Refused`,
//! at any time. The sender sends an empty block in place of the next one. After a `Refused` in the
//! midst of a file, the receiver discards what comes of that file, up to the checksum or an empty
//! block.

use std::{
    fmt,
    io::{self, Read},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tokio::{
    io::AsyncReadExt,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use wholeblock::{BlockCodec, BlockError, BlockTransport, ConfigError, LengthPrefix};

/// Bytes of a file in a block: enough that a block's share of all other work does not matter.
pub(crate) const BLOCK: usize = 256 * 1024;

/// What the sender has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Offer {
    Folder {
        path: Vec<String>,
    },
    File {
        path: Vec<String>,
        len: u64,
        modified: Modified,
    },
}

/// When a file was last changed; with its length, that tells one version of it from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Modified {
    secs: u64,
    nanos: u32,
}

impl From<SystemTime> for Modified {
    fn from(time: SystemTime) -> Self {
        // Before 1970 is as good as 1970: it only has to be the same each time.
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            secs: since.as_secs(),
            nanos: since.subsec_nanos(),
        }
    }
}

impl Modified {
    pub(crate) fn time(self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::new(self.secs, self.nanos % 1_000_000_000))
    }
}

impl fmt::Display for Modified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.secs, self.nanos)
    }
}

/// What the receiver says to that.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Send it, from this byte on.
    From(u64),
    /// It is here already, or has been received whole.
    Whole,
    /// The checksum is wrong, or the sender gave the file up. What came has been thrown away.
    Differs,
    /// It is not wanted, or cannot be written.
    Refused(String),
}

/// A connection in its two halves: an answer can come while a file is being sent.
pub(crate) struct Wire {
    pub(crate) reader: BlockTransport<OwnedReadHalf, LengthPrefix>,
    pub(crate) writer: BlockTransport<OwnedWriteHalf, LengthPrefix>,
    /// How long the other end may be silent, or take for a block, or not take anything.
    pub(crate) patience: Duration,
}

impl Wire {
    pub(crate) fn new(socket: TcpStream, patience: Duration) -> anyhow::Result<Self> {
        socket.set_nodelay(true)?;
        let (reader, writer) = socket.into_split();
        Ok(Self {
            // A peer that is gone, and one that sends a byte now and then.
            reader: BlockTransport::new(reader, codec()?)
                .stall_timeout(patience)
                .block_deadline(patience),
            writer: BlockTransport::new(writer, codec()?),
            patience,
        })
    }

    pub(crate) async fn say(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let block = Bytes::from(serde_json::to_vec(message)?);
        self.send(block).await
    }

    /// Gives up the file that is being sent.
    pub(crate) async fn withdraw(&mut self) -> anyhow::Result<()> {
        self.send(Bytes::new()).await
    }

    /// Sends `block`. A peer that takes nothing is as one that is gone.
    pub(crate) async fn send(&mut self, block: Bytes) -> anyhow::Result<()> {
        match tokio::time::timeout(self.patience, self.writer.send(block)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => bail!(Gone),
        }
    }

    /// What the other end says next; none at the end.
    pub(crate) async fn hear<M: DeserializeOwned>(&mut self) -> anyhow::Result<Option<M>> {
        hear(&mut self.reader).await
    }

    /// The next block of a file, lent: it is written before the one behind it comes.
    pub(crate) async fn block(&mut self) -> anyhow::Result<&[u8]> {
        self.reader.recv().await?.context(Gone)
    }

    /// Ends the connection so that what was sent last is still read: closing it with bytes unread
    /// would reset it, and throw away what has not arrived.
    pub(crate) async fn linger(mut self) {
        let patience = self.patience;
        let rest = async {
            self.writer.close().await?;
            let mut unread = [0; 16 * 1024];
            while self.reader.get_mut().read(&mut unread).await? > 0 {}
            Ok::<(), BlockError>(())
        };
        // Whether that works or not, there is nothing left to do.
        let _ = tokio::time::timeout(patience, rest).await;
    }
}

/// What comes next from `reader`; none at the end.
async fn hear<M: DeserializeOwned>(
    reader: &mut BlockTransport<OwnedReadHalf, LengthPrefix>,
) -> anyhow::Result<Option<M>> {
    let Some(block) = reader.next().await else {
        return Ok(None);
    };
    let message = serde_json::from_slice(&block?);
    message
        .map(Some)
        .context("the other end does not speak this program's protocol")
}

/// What comes next from `reader` while the other end owes nothing: silence is no fault then.
pub(crate) async fn hear_between<M: DeserializeOwned>(
    reader: &mut BlockTransport<OwnedReadHalf, LengthPrefix>,
) -> anyhow::Result<Option<M>> {
    loop {
        match hear(reader).await {
            Err(error) if is_silence(&error) => {}
            heard => return heard,
        }
    }
}

fn is_silence(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(BlockError::Stalled { .. }))
}

fn codec() -> Result<BlockCodec<LengthPrefix>, ConfigError> {
    Ok(BlockCodec::new(LengthPrefix::u32().max_block_len(BLOCK)?))
}

/// The other end is not there any more, by what it does.
#[derive(Debug, thiserror::Error)]
#[error("the other end has gone away")]
pub(crate) struct Gone;

/// Whether `error` is of the connection, which can be made anew, and not of what it is for.
pub(crate) fn is_of_the_connection(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(BlockError::Source(_)) => false,
        Some(error) => {
            let kind = error.kind();
            !matches!(
                kind,
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
            )
        }
        None => error.is::<Gone>(),
    }
}

/// The checksum so far of the first `len` bytes of `file`, which is left behind them.
pub(crate) fn digest_front(file: &mut std::fs::File, mut len: u64) -> io::Result<Sha256> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BLOCK];
    while len > 0 {
        let front = &mut buffer[..len.min(BLOCK as u64) as usize];
        file.read_exact(front)?;
        digest.update(&*front);
        len -= front.len() as u64;
    }
    Ok(digest)
}

pub(crate) fn cannot(verb: &str, path: &Path) -> String {
    format!("cannot {verb} {}", path.display())
}
