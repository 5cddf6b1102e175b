//! A connection to PostgreSQL, by version 3 of its protocol. A message is a block with a kept header: a tag,
//! and a length that counts its own four bytes and not the tag. The tag says what follows.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, stream};
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use tokio::net::TcpStream;
use wholeblock::{
    BlockCodec, BlockTransport, LengthField, LengthPrefix, TransferStats, send_blocks,
};

/// The longest message to receive. PostgreSQL sends each row as one message, so this limits a row, too.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A header: the tag and the length.
const HEADER_LEN: usize = 5;

/// How long the server may be silent while a message is due.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    pub(crate) database: &'a str,
    pub(crate) password: Option<&'a str>,
}

/// A connection that is logged in and idle.
pub(crate) struct Connection {
    transport: BlockTransport<TcpStream, LengthField>,
}

impl Connection {
    pub(crate) async fn open(server: &str, login: &Login<'_>) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;

        // The first message has no tag, for reasons of history. All other messages of both sides have one.
        let untagged = LengthPrefix::u32().including_header()?;
        let mut transport = BlockTransport::new(socket, BlockCodec::new(untagged));
        transport.send(startup(login)).await?;

        let tagged = LengthField::config()
            .offset(1)
            .adjustment(-4)
            .keep_header()
            .max_block_len(MAX_MESSAGE)
            .build()?;
        let mut connection = Self {
            transport: transport
                .map_codec(|codec| codec.with_framing(tagged))
                .stall_timeout(PATIENCE),
        };
        connection.log_in(login).await?;
        Ok(connection)
    }

    async fn log_in(&mut self, login: &Login<'_>) -> anyhow::Result<()> {
        let password = || login.password.context("the server asks for a password");
        let mut scram = None;
        loop {
            let message = self.receive().await?;
            let body = &message[HEADER_LEN..];
            match (message[0], body) {
                (b'R', [0, 0, 0, 0]) => {}
                (b'R', [0, 0, 0, 3]) => self.send(b'p', &[password()?.as_bytes(), b"\0"]).await?,
                (b'R', [0, 0, 0, 10, mechanisms @ ..]) => {
                    ensure!(
                        mechanisms
                            .split(|&byte| byte == 0)
                            .any(|name| name == SCRAM_SHA_256.as_bytes()),
                        "the server offers no {SCRAM_SHA_256}"
                    );
                    let begun = scram.insert(ScramSha256::new(
                        password()?.as_bytes(),
                        ChannelBinding::unsupported(),
                    ));
                    let first = begun.message();
                    let len = (first.len() as u32).to_be_bytes();
                    let parts = [SCRAM_SHA_256.as_bytes(), b"\0", &len, first];
                    self.transport.send(message_of(b'p', &parts)).await?;
                }
                (b'R', [0, 0, 0, 11, challenge @ ..]) => {
                    let begun = scram.as_mut().context("a challenge before its time")?;
                    begun.update(challenge)?;
                    self.transport
                        .send(message_of(b'p', &[begun.message()]))
                        .await?;
                }
                // The server proves that it knows the password, too.
                (b'R', [0, 0, 0, 12, proof @ ..]) => {
                    scram
                        .as_mut()
                        .context("a proof before its time")?
                        .finish(proof)?;
                }
                (b'R', _) => bail!("the server asks for a way to log in that this program lacks"),
                (b'E', fields) => bail!(error_text(fields)),
                (b'Z', _) => return Ok(()),
                // The server's settings, a key to cancel by, notices.
                _ => {}
            }
        }
    }

    /// Runs `sql`, and calls `row` with each row. Returns the number of bytes that arrived.
    pub(crate) async fn query(
        &mut self,
        sql: &str,
        mut row: impl FnMut(Row<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        self.send(b'Q', &[sql.as_bytes(), b"\0"]).await?;
        let before = self.transport.stats().received_bytes;
        let mut failed = None;
        loop {
            // `recv`, because it lends the row without an allocation.
            let message = self.transport.recv().await?;
            let message = message.context("the server ended the connection")?;
            let body = &message[HEADER_LEN..];
            match message[0] {
                b'D' => row(Row(body))?,
                b'E' => failed = Some(error_text(body)),
                b'Z' => break,
                _ => {}
            }
        }
        match failed {
            Some(text) => bail!(text),
            None => Ok(self.transport.stats().received_bytes - before),
        }
    }

    /// Runs `sql`, a `COPY … FROM STDIN`, and sends `data`, which are messages from [`copy_data`].
    pub(crate) async fn copy_in(
        &mut self,
        sql: &str,
        data: impl IntoIterator<Item = Bytes>,
    ) -> anyhow::Result<TransferStats> {
        self.send(b'Q', &[sql.as_bytes(), b"\0"]).await?;
        self.wait_for(b'G').await?;
        let done = message_of(b'c', &[]);
        let messages = stream::iter(data).chain(stream::iter([done]));
        let sent = send_blocks(&mut self.transport, messages).await?;
        // The server reports errors in the data only when it has all of it.
        self.wait_for(b'Z').await?;
        Ok(sent)
    }

    /// Ends the session and the connection.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        self.send(b'X', &[]).await?;
        self.transport.close().await?;
        Ok(())
    }

    /// Receives until a message with `tag` comes. After an error, waits until the server is ready again, and
    /// then returns the error.
    async fn wait_for(&mut self, tag: u8) -> anyhow::Result<()> {
        let mut failed = None;
        loop {
            let message = self.receive().await?;
            match message[0] {
                b'E' => failed = Some(error_text(&message[HEADER_LEN..])),
                b'Z' if failed.is_some() => bail!(failed.unwrap_or_default()),
                found if found == tag => return Ok(()),
                _ => {}
            }
        }
    }

    async fn send(&mut self, tag: u8, parts: &[&[u8]]) -> anyhow::Result<()> {
        Ok(self.transport.send(message_of(tag, parts)).await?)
    }

    async fn receive(&mut self) -> anyhow::Result<BytesMut> {
        let message = self.transport.next().await;
        Ok(message.context("the server ended the connection")??)
    }
}

/// A row as the server sent it: the number of columns, and each column with its length before it.
pub(crate) struct Row<'a>(&'a [u8]);

impl<'a> Row<'a> {
    /// Returns the columns as text. A null is `None`.
    pub(crate) fn columns<const N: usize>(&self) -> anyhow::Result<[Option<&'a str>; N]> {
        let Some((&count, mut rest)) = self.0.split_first_chunk::<2>() else {
            bail!("a row without a number of columns");
        };
        let count = usize::from(u16::from_be_bytes(count));
        ensure!(
            count == N,
            "a row of {count} columns, where {N} were expected"
        );
        let mut columns = [None; N];
        for column in &mut columns {
            let (&len, after) = rest.split_first_chunk().context("a row that is cut off")?;
            rest = after;
            // −1 is null.
            let Ok(len) = usize::try_from(i32::from_be_bytes(len)) else {
                continue;
            };
            let (value, after) = rest
                .split_at_checked(len)
                .context("a row that is cut off")?;
            *column = Some(std::str::from_utf8(value)?);
            rest = after;
        }
        Ok(columns)
    }
}

/// Returns a message that carries `data`: some lines to copy in.
pub(crate) fn copy_data(data: &[u8]) -> Bytes {
    message_of(b'd', &[data])
}

/// Returns a message with its header, which is a part of the block.
fn message_of(tag: u8, parts: &[&[u8]]) -> Bytes {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut message = BytesMut::with_capacity(HEADER_LEN + len);
    message.put_u8(tag);
    message.put_u32((len + 4) as u32);
    for part in parts {
        message.put_slice(part);
    }
    message.freeze()
}

/// Returns version 3.0 and the names. The framing writes the length before them.
fn startup(login: &Login<'_>) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u32(3 << 16);
    for text in ["user", login.user, "database", login.database, ""] {
        message.put_slice(text.as_bytes());
        message.put_u8(0);
    }
    message.freeze()
}

/// Returns the readable part of an error. Each field begins with a letter and ends with a zero.
fn error_text(fields: &[u8]) -> String {
    let field = |letter: u8| {
        let found = fields
            .split(|&byte| byte == 0)
            .find(|field| field.first() == Some(&letter));
        found.map_or("?".into(), |field| {
            String::from_utf8_lossy(&field[1..]).into_owned()
        })
    };
    format!("the server says: {} ({})", field(b'M'), field(b'C'))
}
