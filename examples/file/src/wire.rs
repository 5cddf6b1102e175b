//! The protocol of the two ends.
//!
//! ```text
//! sender                                    receiver
//! {"File":{"path":["a","b.bin"],...}}  ->
//!                                      <-   {"From":1048576}    what it has of it, from before
//! the file's bytes from there on       ->
//! 32 bytes: SHA-256 of all of it       ->
//!                                      <-   "Whole"             it is on the disk
//! ```
//!
//! and so on with the next file. Each line is one block. The file's bytes are one block, too, whatever their
//! number. The sender ends the stream between two files.
//!
//! Either end can give up one file, and both go on with the next:
//!
//! - The receiver answers `Refused`, at any time. In the middle of a file, it then discards the rest of
//!   that file, and the checksum.
//! - If a file changed while it was sent, the sender sends an empty block instead of the checksum.
//! - If the sender cannot or need not send the rest of a file, it ends the connection, because the receiver
//!   would take anything else for that rest. It goes on over a new connection.

use std::{
    fmt,
    future::Future,
    io::{
        self,
        ErrorKind::{InvalidData, InvalidInput},
        Read,
    },
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tokio::{
    io::AsyncReadExt,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};
use wholeblock::{BlockCodec, BlockError, BlockTransport, ConfigError, LengthPrefix};

/// Bytes of a file that are read or written at once. With this many, the cost of a call does not matter.
pub(crate) const PART: usize = 256 * 1024;

/// The longest block that is not a file, in bytes. JSON makes a path of 4 KiB at most six times as long.
const MAX_MESSAGE_LEN: usize = 64 * 1024;

/// The sender's offer.
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

/// When a file was last changed. This time and the length identify a version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Modified {
    secs: u64,
    nanos: u32,
}

impl From<SystemTime> for Modified {
    fn from(time: SystemTime) -> Self {
        // A time before 1970 becomes 1970: it only has to be the same each time.
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

/// The receiver's answer to an offer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Send the file, from this byte on.
    From(u64),
    /// The file is here already, or was received whole.
    Whole,
    /// The checksum is wrong, or the sender gave up the file. The receiver has removed what came.
    Differs,
    /// The receiver does not want the file, or cannot write it.
    Refused(String),
}

pub(crate) type Reader = BlockTransport<OwnedReadHalf, LengthPrefix>;

/// A connection in two halves, because an answer can come while a file is being sent.
pub(crate) struct Wire {
    pub(crate) reader: Reader,
    pub(crate) writer: BlockTransport<OwnedWriteHalf, LengthPrefix>,
    /// How long the other end may take to send a message or a part of a file, or to accept any bytes.
    pub(crate) patience: Duration,
    /// True from the receiver's request for a file until the file is sent, or received with its checksum.
    pub(crate) is_in_file: bool,
}

impl Wire {
    pub(crate) fn new(socket: TcpStream, patience: Duration) -> anyhow::Result<Self> {
        socket.set_nodelay(true)?;
        let (reader, writer) = socket.into_split();
        Ok(Self {
            // No timeouts here: a `block_deadline` would limit the time of a whole file, and a
            // `stall_timeout` lets a peer send a byte now and then. `in_time` limits the time of each part.
            reader: BlockTransport::new(reader, codec()?),
            writer: BlockTransport::new(writer, codec()?).write_timeout(patience),
            patience,
            is_in_file: false,
        })
    }

    pub(crate) async fn say(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        Ok(self.writer.send(serde_json::to_vec(message)?).await?)
    }

    /// Receives the next message; none at the end.
    pub(crate) async fn hear<M: DeserializeOwned>(&mut self) -> anyhow::Result<Option<M>> {
        in_time(self.patience, hear(&mut self.reader)).await
    }

    /// Discards the rest of a file whose reader was dropped, and the checksum. Returns false if the connection
    /// ends first.
    pub(crate) async fn discard_file(&mut self) -> bool {
        self.is_in_file = false;
        let checksum = in_time(self.patience, self.reader.recv()).await;
        matches!(checksum, Ok(Some(_)))
    }

    /// Ends the connection, after the other end has read everything. To close a socket with unread bytes
    /// resets the connection, and the other end may lose what was sent last.
    pub(crate) async fn linger(mut self) {
        let rest = async {
            self.writer.close().await?;
            let mut unread = [0; 16 * 1024];
            while self.reader.get_mut().read(&mut unread).await? > 0 {}
            Ok::<(), BlockError>(())
        };
        // If this fails, nothing is left to do.
        let _ = timeout(self.patience, rest).await;
    }
}

/// Receives the next message from `reader`, however long that takes; none at the end.
pub(crate) async fn hear<M: DeserializeOwned>(reader: &mut Reader) -> anyhow::Result<Option<M>> {
    let Some(block) = reader.recv().await? else {
        return Ok(None);
    };
    let message = serde_json::from_slice(block);
    message
        .map(Some)
        .context("the other end does not speak this program's protocol")
}

/// Waits for a message or a part of a file. Fails if that takes longer than `patience`.
pub(crate) async fn in_time<R, E: Into<anyhow::Error>>(
    patience: Duration,
    receiving: impl Future<Output = Result<R, E>>,
) -> anyhow::Result<R> {
    match timeout(patience, receiving).await {
        Ok(received) => received.map_err(E::into),
        Err(_) => bail!(Gone::Late(patience)),
    }
}

fn codec() -> Result<BlockCodec<LengthPrefix>, ConfigError> {
    let framing = LengthPrefix::u64().max_block_len(MAX_MESSAGE_LEN)?;
    Ok(BlockCodec::new(framing))
}

/// The other end seems to be gone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Gone {
    #[error("the other end has gone away")]
    Ended,
    #[error("the other end took longer than {0:?}")]
    Late(Duration),
}

/// True if `error` is a failure of the connection, so that a new connection may help.
pub(crate) fn is_of_the_connection(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref().map(BlockError::kind);
    match kind {
        Some(kind) => !matches!(kind, InvalidData | InvalidInput),
        None => error.is::<Gone>(),
    }
}

/// Why one file or folder is refused, as a message for the user. The others can still be sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub(crate) String);

pub(crate) trait Refuse<T> {
    fn refuse(self, cannot: impl FnOnce() -> String) -> anyhow::Result<T>;
}

impl<T> Refuse<T> for io::Result<T> {
    fn refuse(self, cannot: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|error| Refusal(format!("{}: {error}", cannot())).into())
    }
}

/// Returns the checksum so far, of the first `len` bytes of `file`. The file's position is then after them.
pub(crate) fn digest_front(file: &mut std::fs::File, mut len: u64) -> io::Result<Sha256> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; PART];
    while len > 0 {
        let front = &mut buffer[..len.min(PART as u64) as usize];
        file.read_exact(front)?;
        digest.update(&*front);
        len -= front.len() as u64;
    }
    Ok(digest)
}

pub(crate) fn cannot(verb: &str, path: &Path) -> String {
    format!("cannot {verb} {}", path.display())
}
