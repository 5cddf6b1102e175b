//! Errors: what went wrong, in which block, and who has to act.

use std::{error::Error, fmt, io, time::Duration};

/// An error from receiving or sending blocks.
///
/// Its [`kind`](Self::kind), which `io::Error::from` keeps, says who has to act: the peer sent something
/// wrong (`InvalidData`, `UnexpectedEof`), the caller asked for something wrong (`InvalidInput`), or
/// something took too long (`TimedOut`).
///
/// Lengths count payload bytes, and a kept header is a part of the payload.
///
/// An error cannot be cloned, because an `io::Error` cannot. To share it among tasks, put it in an `Arc`.
///
/// # `index` and `offset`
///
/// In every variant, `index` is the block in which the error happened, counted from 0, and `offset`
/// is the first byte of that block, header included, counted from 0. The
/// [`BlockCodec`](crate::BlockCodec) counts both, separately for each direction, over all streams, sinks
/// and transfers that use it. A change of framing does not reset them; a clone of a codec starts at 0.
/// Skipped blocks count. Blocks that the codec refuses to send do not.
///
/// # Example
///
/// ```
/// use bytes::BytesMut;
/// use tokio_util::codec::Decoder;
/// use wholeblock::{BlockCodec, BlockError};
///
/// let mut arrived = BytesMut::from(&b"\0\0\0\x02me\x7f\0\0\0"[..]);
/// let mut codec = BlockCodec::length_prefixed();
/// codec.decode(&mut arrived)?; // "me"
/// match codec.decode(&mut arrived) {
///     Err(BlockError::TooLarge { announced, limit, index, offset, .. }) => {
///         assert_eq!((announced, limit), (0x7f00_0000, 8 * 1024 * 1024));
///         assert_eq!((index, offset), (1, 6)); // after 4 bytes of header and 2 of payload
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), BlockError>(())
/// ```
///
/// Other faults of a block:
///
/// ```
/// use bytes::{Bytes, BytesMut};
/// use tokio_util::codec::{Decoder, Encoder};
/// use wholeblock::{BlockCodec, BlockError, LengthPrefix, BlockPart};
///
/// // A byte that counts itself, and a payload of at most 5.
/// let framing = LengthPrefix::u8().including_header()?.max_block_len(5)?;
/// let fault = |wire: &[u8]| BlockCodec::new(framing).decode_eof(&mut wire.into()).unwrap_err();
/// assert!(matches!(
///     fault(b"\x06he"),
///     BlockError::Truncated { part: BlockPart::Payload, expected: 5, received: 2, .. }
/// ));
/// assert!(matches!(fault(b"\x07"), BlockError::TooLarge { announced: 6, limit: 5, .. }));
/// assert_eq!(
///     fault(b"\0").to_string(),
///     "invalid header in block 0, which begins at byte 0: its length is less than the prefix it \
///      includes (header: 00)",
/// );
/// let refused = BlockCodec::new(framing).encode(Bytes::from("longer"), &mut BytesMut::new());
/// assert!(matches!(refused, Err(BlockError::WrongSize { max: 5, actual: 6, .. })));
/// # Ok::<(), wholeblock::ConfigError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The stream ended inside a block.
    #[error(
        "stream ended inside block {index}, which begins at byte {offset}: \
         {received} of {}{expected} {part} bytes arrived", part.at_least()
    )]
    Truncated {
        /// The part that was cut short: the header or the payload.
        part: BlockPart,
        /// Bytes of that part; for a header, the fewest that it can have.
        expected: u64,
        /// Bytes of that part that arrived.
        received: u64,
        /// The block.
        index: u64,
        /// Where it begins.
        offset: u64,
    },

    /// A header announced a block over the codec's limit.
    #[error(
        "block {index}, which begins at byte {offset}, announces {announced} bytes; \
         the limit is {limit}{}", InBrackets(*.header)
    )]
    TooLarge {
        /// Payload bytes the header announced.
        announced: u64,
        /// Payload bytes allowed: the limit set on the codec
        /// ([`set_max_decode_len`](crate::BlockCodec::set_max_decode_len)), or else the most that the
        /// framing carries.
        limit: u64,
        /// The bytes that announced it. They show if the peer speaks HTTP or TLS instead.
        header: HeaderBytes,
        /// The block.
        index: u64,
        /// Where it begins.
        offset: u64,
    },

    /// A header announced a block over the codec's limit, and the decoder drops the block as it arrives.
    /// The stream goes on. Returned only if [`report_skipped`](crate::BlockCodec::report_skipped) is set.
    #[error(
        "block {index}, which begins at byte {offset}, is skipped: it announces {announced} bytes; \
         the limit is {limit}{}", InBrackets(*.header)
    )]
    Skipped {
        /// Payload bytes the header announced.
        announced: u64,
        /// Payload bytes allowed.
        limit: u64,
        /// The bytes that announced it.
        header: HeaderBytes,
        /// The block.
        index: u64,
        /// Where it begins.
        offset: u64,
    },

    /// A header is malformed.
    #[error(
        "invalid header in block {index}, which begins at byte {offset}: {reason}{}",
        InBrackets(*.header)
    )]
    InvalidHeader {
        /// The framing's reason.
        reason: &'static str,
        /// The first bytes of the block; they may be more than the header.
        header: HeaderBytes,
        /// The block.
        index: u64,
        /// Where it begins.
        offset: u64,
    },

    /// The stream ended cleanly, but before the number of blocks that
    /// [`RecvBlocks::at_least`](crate::RecvBlocks::at_least) or
    /// [`BlockTransport::expect_next`](crate::BlockTransport::expect_next) required.
    #[error("stream ended after {received} of {expected} blocks")]
    TooFew {
        /// Blocks required.
        expected: u64,
        /// Blocks that arrived.
        received: u64,
    },

    /// A block to send has a length that its framing does not carry, or one over the limit set on the
    /// codec. Nothing of it was sent.
    #[error(
        "block {index}, of {actual} bytes, cannot be sent: {}",
        Allowed { min: *.min, max: *.max, limit: *.limit, actual: *.actual }
    )]
    WrongSize {
        /// Smallest payload the framing carries, in bytes.
        min: u64,
        /// Largest payload the framing carries whole, in bytes.
        max: u64,
        /// Largest payload the codec sends whole, in bytes: the limit set on it
        /// ([`set_max_encode_len`](crate::BlockCodec::set_max_encode_len)), or else `max`.
        limit: u64,
        /// Payload bytes of the block.
        actual: u64,
        /// The block.
        index: u64,
    },

    /// The header of a block to send does not announce the block's length. Nothing of it was sent. Causes:
    ///
    /// * a header that the block brings along and that announces another length (see
    ///   [`LengthField`](crate::LengthField)),
    /// * a block that is not a whole number of [units](crate::LengthFieldConfig::unit),
    /// * a [`Framing`](crate::Framing) that wrote a wrong header,
    /// * a [`Payload`](crate::Payload) that put more or fewer bytes than its `byte_len`.
    #[error("block {index}, of {actual} bytes, cannot be sent: {}", OwnHeader(*.announced, *.reason))]
    WrongHeader {
        /// Payload bytes that its header announces; none if it cannot be read as a header at all.
        announced: Option<u64>,
        /// The framing's reason, if it refused the header.
        reason: Option<&'static str>,
        /// Payload bytes of the block.
        actual: u64,
        /// The block.
        index: u64,
    },

    /// The block before was [sent part by part](crate::BlockTransport::send_from) and not finished, because
    /// the caller gave up or the source failed. The peer would take another block for the rest of it.
    /// [`send_rest_from`](crate::BlockTransport::send_rest_from) sends the rest.
    #[error("no block can be sent, because block {index} is unfinished: {queued} of {len} bytes")]
    Unfinished {
        /// Payload bytes of the unfinished block that have been sent or queued.
        queued: u64,
        /// All of its payload bytes.
        len: u64,
        /// The unfinished block.
        index: u64,
    },

    /// The source of a block [sent part by part](crate::BlockTransport::send_from) is shorter or longer than
    /// the caller said.
    #[error("the source of block {index} has {given} bytes{}, not {len}", OrMore(.given > .len))]
    WrongSource {
        /// Payload bytes of the block, as the caller said.
        len: u64,
        /// Bytes that the source gave; if more than `len`, it may have more still.
        given: u64,
        /// The block.
        index: u64,
    },

    /// The next block is longer than the caller's memory for it. Nothing of it was taken: receive it with
    /// more memory, or in another way.
    #[error(
        "block {index}, which begins at byte {offset}, has {len} bytes; there is room for {room}"
    )]
    NoRoom {
        /// Payload bytes of the block.
        len: u64,
        /// Bytes of the caller's memory.
        room: u64,
        /// The block.
        index: u64,
        /// Where it begins.
        offset: u64,
    },

    /// No bytes moved for the [stall timeout or the write timeout](crate#timeouts).
    #[error(
        "{} for {waited:?} at block {index}, which begins at byte {offset}",
        direction.choose("nothing arrived", "nothing could be written")
    )]
    Stalled {
        /// The timeout.
        waited: Duration,
        /// `Receiving` if nothing arrived, `Sending` if the transport below took nothing.
        direction: Direction,
        /// The block being received; for a transfer, the first of its blocks that is not wholly sent; for other
        /// ways of sending, the next block to be queued.
        index: u64,
        /// Where it begins.
        offset: u64,
    },

    /// A block took longer than the [block deadline](crate#timeouts) to arrive whole, or to be sent
    /// whole.
    #[error(
        "block {index}, which begins at byte {offset}, took longer than {allowed:?} to {}",
        direction.choose("arrive", "be sent")
    )]
    Late {
        /// The block deadline.
        allowed: Duration,
        /// `Receiving` if the block was arriving, `Sending` if it was being written.
        direction: Direction,
        /// The block being received; for a transfer, the first of its blocks that is not wholly sent.
        index: u64,
        /// Offset of its first byte.
        offset: u64,
    },

    /// The source given to [`try_send_blocks`](crate::try_send_blocks) or
    /// [`send_from`](crate::BlockTransport::send_from) failed.
    ///
    /// The message does not repeat the source's error, which `Error::source` returns. For `send_from`, that
    /// error is an `io::Error`. If it was made from a `BlockError`, as a
    /// [`BlockReader`](crate::BlockReader)'s errors are, [`kind`](Self::kind), `is_timeout`,
    /// `is_peer_fault` and `is_caller_fault` return what they return for that `BlockError`. The peer is then
    /// the source's.
    #[error("the source of the blocks failed")]
    Source(#[source] Box<dyn Error + Send + Sync>),

    /// The transport failed.
    #[error(transparent)]
    Io(io::Error),
}

impl BlockError {
    /// Returns the [`io::ErrorKind`], which says who has to act. `io::Error::from` keeps it.
    ///
    /// | kind | meaning |
    /// |---|---|
    /// | `UnexpectedEof`, `InvalidData` | the peer stopped short, or sent what the framing does not allow |
    /// | `InvalidInput` | the caller sent what cannot be sent, or gave too little memory |
    /// | `TimedOut` | no bytes moved for a timeout, or a block took longer than its deadline |
    /// | any other | the kind of the transport's or the source's error; `Other` if the source's has none |
    ///
    /// ```
    /// use std::io;
    /// use wholeblock::BlockError;
    ///
    /// let error = BlockError::TooFew { expected: 100, received: 3 };
    /// assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    /// let error = BlockError::Io(io::ErrorKind::ConnectionReset.into());
    /// assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    /// ```
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        match self.origin() {
            Self::Io(error) => error.kind(),
            Self::Truncated { .. } | Self::TooFew { .. } => io::ErrorKind::UnexpectedEof,
            Self::TooLarge { .. } | Self::Skipped { .. } | Self::InvalidHeader { .. } => {
                io::ErrorKind::InvalidData
            }
            Self::WrongSize { .. }
            | Self::WrongHeader { .. }
            | Self::WrongSource { .. }
            | Self::Unfinished { .. }
            | Self::NoRoom { .. } => io::ErrorKind::InvalidInput,
            Self::Stalled { .. } | Self::Late { .. } => io::ErrorKind::TimedOut,
            Self::Source(error) => error
                .downcast_ref::<io::Error>()
                .map_or(io::ErrorKind::Other, io::Error::kind),
        }
    }

    /// True for [`Stalled`](Self::Stalled) and [`Late`](Self::Late): a timeout of this crate expired, and the
    /// caller may go on. If the transport itself times out, the error is [`Io`](Self::Io), and the transport
    /// is gone.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use wholeblock::{BlockCodec, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// # let (_silent, socket) = tokio::io::duplex(64);
    /// let mut blocks = BlockTransport::new(socket, BlockCodec::length_prefixed())
    ///     .stall_timeout(Duration::from_secs(60));
    /// assert!(blocks.expect_next().await.unwrap_err().is_timeout());
    /// # }
    /// ```
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.origin(), Self::Stalled { .. } | Self::Late { .. })
    }

    /// True if the peer did something wrong: [`Truncated`](Self::Truncated), [`TooLarge`](Self::TooLarge),
    /// [`Skipped`](Self::Skipped), [`InvalidHeader`](Self::InvalidHeader) and [`TooFew`](Self::TooFew). False
    /// for a [timeout](Self::is_timeout), because a slow network can cause one, too.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let mut blocks = BlockTransport::new(&b"\0\0"[..], BlockCodec::length_prefixed());
    /// let cut = blocks.expect_next().await.unwrap_err();
    /// assert!(cut.is_peer_fault() && !cut.is_caller_fault());
    /// # }
    /// ```
    #[must_use]
    pub fn is_peer_fault(&self) -> bool {
        use BlockError::{InvalidHeader, Skipped, TooFew, TooLarge, Truncated};
        matches!(
            self.origin(),
            Truncated { .. }
                | TooLarge { .. }
                | Skipped { .. }
                | InvalidHeader { .. }
                | TooFew { .. }
        )
    }

    /// True if this end did something wrong: [`WrongSize`](Self::WrongSize),
    /// [`WrongHeader`](Self::WrongHeader), [`WrongSource`](Self::WrongSource),
    /// [`Unfinished`](Self::Unfinished) and [`NoRoom`](Self::NoRoom).
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockTransport};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut blocks = BlockTransport::new(vec![], BlockCodec::exact(5)?);
    /// assert!(blocks.send("not five").await.unwrap_err().is_caller_fault());
    /// blocks.send("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_caller_fault(&self) -> bool {
        use BlockError::{NoRoom, Unfinished, WrongHeader, WrongSize, WrongSource};
        matches!(
            self.origin(),
            WrongSize { .. }
                | WrongHeader { .. }
                | WrongSource { .. }
                | Unfinished { .. }
                | NoRoom { .. }
        )
    }
}

impl BlockError {
    /// True if a stream yields `None` after this error, so that a loop that skips errors ends.
    pub(crate) fn ends_stream(&self) -> bool {
        !matches!(self, Self::Skipped { .. })
    }

    /// Returns the error of this crate that a source failed with, or this error.
    fn origin(&self) -> &Self {
        let Self::Source(error) = self else {
            return self;
        };
        let inner = match error.downcast_ref::<io::Error>() {
            Some(error) => error.get_ref().and_then(|error| error.downcast_ref()),
            None => error.downcast_ref(),
        };
        inner.map_or(self, Self::origin)
    }

    /// Converts into a codec's error. For [`Io`](Self::Io), it converts the `io::Error` inside.
    pub(crate) fn into_codec_error<E: CodecError>(self) -> E {
        match self {
            Self::Io(error) => error.into(),
            other => other.into(),
        }
    }
}

impl From<BlockError> for io::Error {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Io(error) => error,
            _ => io::Error::new(error.kind(), error),
        }
    }
}

/// Returns the `BlockError` that the `io::Error` was made from, or else `Io`.
impl From<io::Error> for BlockError {
    fn from(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Io)
    }
}

/// An error of a codec and a transport: any type that a [`BlockError`] and an [`io::Error`] convert into,
/// such as these two.
///
/// Implemented for every such type; see [`BlockCodec::err_into`](crate::BlockCodec::err_into). With
/// your own error:
///
/// ```
/// use std::io;
/// use futures::StreamExt;
/// use wholeblock::{BlockCodec, BlockError, BlockTransport};
///
/// #[derive(Debug, thiserror::Error)]
/// enum ServiceError {
///     #[error(transparent)]
///     Block(#[from] BlockError),
///     #[error(transparent)]
///     Io(#[from] io::Error),
/// }
///
/// # futures::executor::block_on(async {
/// let codec = BlockCodec::length_prefixed().err_into::<ServiceError>();
/// let mut transport = BlockTransport::new(&b"\0\0\0\x05he"[..], codec);
/// let error = transport.next().await.expect("an error").unwrap_err();
/// assert!(matches!(error, ServiceError::Block(BlockError::Truncated { received: 2, .. })));
/// # });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a `BlockCodec`",
    note = "it needs `From<BlockError>`, `From<std::io::Error>` and `Display`"
)]
pub trait CodecError: From<BlockError> + From<io::Error> + fmt::Display {}

impl<E: From<BlockError> + From<io::Error> + fmt::Display> CodecError for E {}

/// The direction of a wait that timed out, in a [`BlockError::Stalled`] or [`BlockError::Late`].
// A `usize` for the same reason as `BlockPart`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Direction {
    /// Receiving from the peer.
    Receiving,
    /// Sending to the peer.
    Sending,
}

impl Direction {
    fn choose(self, receiving: &'static str, sending: &'static str) -> &'static str {
        match self {
            Self::Receiving => receiving,
            Self::Sending => sending,
        }
    }
}

/// The part of a block that was cut short in a [`BlockError::Truncated`].
// A `usize`, so that `BlockError` has whole words only. With a byte here, each `Result` of a block is moved
// unaligned, which takes a tenth of the time to receive a small block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum BlockPart {
    /// The bytes that delimit the block.
    Header,
    /// The block itself.
    Payload,
}

impl BlockPart {
    /// The length of an incomplete header may be unknown, except for a minimum.
    fn at_least(self) -> &'static str {
        match self {
            Self::Header => "at least ",
            Self::Payload => "",
        }
    }
}

impl fmt::Display for BlockPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Payload => "payload",
        })
    }
}

/// The first bytes of a refused header, at most 16.
///
/// They print as hex, followed by the text if all of them are text:
///
/// ```
/// use bytes::BytesMut;
/// use tokio_util::codec::Decoder;
/// use wholeblock::{BlockCodec, BlockError};
///
/// let mut arrived = BytesMut::from(&b"GET / HTTP/1.1\r\n"[..]);
/// match BlockCodec::length_prefixed().decode(&mut arrived) {
///     Err(BlockError::TooLarge { header, .. }) => {
///         assert_eq!(header.as_bytes(), b"GET ");
///         assert_eq!(header.to_string(), "47 45 54 20 \"GET \"");
///     }
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HeaderBytes {
    // `usize`, for the reason given at `BlockPart`.
    len: usize,
    bytes: [u8; HeaderBytes::MAX],
}

impl HeaderBytes {
    /// The largest number of bytes kept.
    pub const MAX: usize = 16;

    /// Keeps the first [`MAX`](Self::MAX) bytes of `header`.
    #[must_use]
    pub fn new(header: &[u8]) -> Self {
        let len = header.len().min(Self::MAX);
        let mut bytes = [0; Self::MAX];
        bytes[..len].copy_from_slice(&header[..len]);
        Self { len, bytes }
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Display for HeaderBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            let space = if at > 0 { " " } else { "" };
            write!(f, "{space}{byte:02x}")?;
        }
        let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n');
        if !bytes.is_empty() && bytes.iter().all(is_text) {
            write!(f, " \"{}\"", bytes.escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for HeaderBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeaderBytes({self})")
    }
}

/// A header at the end of an error message.
struct InBrackets(HeaderBytes);

impl fmt::Display for InBrackets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_bytes() {
            [] => Ok(()),
            _ => write!(f, " (header: {})", self.0),
        }
    }
}

/// The lengths that can be sent, in words.
struct Allowed {
    min: u64,
    max: u64,
    limit: u64,
    actual: u64,
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            min,
            max,
            limit,
            actual,
        } = *self;
        if min > max {
            f.write_str("the framing carries no block at all")
        } else if limit < max && actual > limit {
            write!(f, "the limit set on the codec is {limit}")
        } else if min == max {
            write!(f, "the framing carries exactly {min}")
        } else if min == 0 {
            write!(f, "the framing carries at most {max}")
        } else {
            write!(f, "the framing carries {min} to {max}")
        }
    }
}

/// The end of a message about a source that is longer than the caller said.
struct OrMore(bool);

impl fmt::Display for OrMore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { " or more" } else { "" })
    }
}

/// The length that a block's own header announces, or why it was refused, in words.
struct OwnHeader(Option<u64>, Option<&'static str>);

impl fmt::Display for OwnHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self(Some(announced), _) => write!(f, "its header announces {announced}"),
            Self(None, Some(reason)) => write!(f, "invalid header: {reason}"),
            Self(None, None) => f.write_str("its header cannot be read back"),
        }
    }
}

/// A configuration that cannot work.
///
/// ```
/// use wholeblock::{ConfigError, LengthPrefix};
///
/// let error = LengthPrefix::u16().max_block_len(65_536).unwrap_err();
/// assert_eq!(error, ConfigError::LimitTooLarge { limit: 65_536, max: 65_535 });
/// assert_eq!(error.to_string(), "blocks of 65536 bytes cannot be carried; the most is 65535");
/// ```
///
/// `?` converts it into an `io::Error`, but not into a `BlockError`. Build codecs in functions that return a
/// `ConfigError`, an `io::Error` or a boxed error.
///
/// The other variants:
///
/// ```
/// use wholeblock::{ConfigError, Exact, LengthField, LengthPrefix};
///
/// assert_eq!(Exact::new(0), Err(ConfigError::EmptyBlocks));
/// assert_eq!(LengthPrefix::bytes(9), Err(ConfigError::Width { width: 9 }));
/// let length = LengthField::config(); // of 4 bytes, at the start
/// assert_eq!(length.unit(0).build(), Err(ConfigError::Unit));
/// let header = ConfigError::Header { field_end: 4, header_len: 3, strip: 3 };
/// assert_eq!(length.header_len(3).build(), Err(header));
/// // A length of at most 255 cannot count 300 bytes of something else.
/// let adjustment = ConfigError::Adjustment { adjustment: -300 };
/// assert_eq!(length.width(1).adjustment(-300).build(), Err(adjustment));
/// let too_small = ConfigError::LimitTooSmall { limit: 3, min: 4 };
/// assert_eq!(length.keep_header().max_block_len(3).build(), Err(too_small));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Exact-length blocks of 0 bytes.
    #[error("exact-length blocks must be at least 1 byte long")]
    EmptyBlocks,

    /// A length of 0 bytes, or of more than 8.
    #[error("a length has 1 to 8 bytes, not {width}")]
    Width {
        /// The width asked for, in bytes.
        width: usize,
    },

    /// A length that counts units of 0 bytes.
    #[error("a unit of a length has at least 1 byte")]
    Unit,

    /// A header that ends before its length field, is too long, or is shorter than what is to be stripped.
    #[error(
        "invalid header layout: the length field ends at byte {field_end}, the header has {header_len} \
         bytes, and {strip} are stripped; the field and the stripped bytes must be within the header, \
         which has at most 1024"
    )]
    Header {
        /// Bytes from the header's start to the length field's end.
        field_end: usize,
        /// Bytes of the header.
        header_len: usize,
        /// Bytes to strip from the header.
        strip: usize,
    },

    /// An adjustment that makes every length invalid.
    #[error("adjustment {adjustment} makes every length invalid")]
    Adjustment {
        /// The adjustment asked for, in bytes.
        adjustment: i64,
    },

    /// A limit above what the header can announce, or an allocation can hold.
    #[error("blocks of {limit} bytes cannot be carried; the most is {max}")]
    LimitTooLarge {
        /// The limit asked for, in bytes.
        limit: usize,
        /// The largest possible limit, in bytes.
        max: u64,
    },

    /// A limit below the shortest block that the framing carries.
    #[error("a limit of {limit} bytes is below the shortest block, of {min}")]
    LimitTooSmall {
        /// The limit asked for, in bytes.
        limit: usize,
        /// The smallest possible limit, in bytes.
        min: u64,
    },
}

impl From<ConfigError> for io::Error {
    fn from(error: ConfigError) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_error_has_at_most_64_bytes() {
        // Each received or sent block moves as a `Result` of this size. The header's bytes take three of
        // its eight words. The size is smaller on targets that align a u64 like a u32.
        assert!(size_of::<BlockError>() <= 64);
    }
}
