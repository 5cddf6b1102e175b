//! What a [`LengthField`] is built from.

use super::LengthField;
use crate::{error::ConfigError, framing::DEFAULT_MAX_BLOCK_LEN};

/// Where the length is in a header, what it counts, and what of the header is stripped.
///
/// Each setting is a field, to be read and changed, and a method of the same name that sets it by
/// value. Nothing is checked before [`build`](Self::build), so the order does not matter.
///
/// ```
/// use bytes::BytesMut;
/// use tokio_util::codec::Decoder;
/// use wholeblock::{BlockCodec, LengthField, LengthLimit};
///
/// // HTTP/2: a length of 3 bytes, then 6 more bytes of header, all of it kept.
/// let mut http2 = LengthField::config().width(3).adjustment(6).header_len(9).keep_header();
/// http2.limit = LengthLimit::Unlimited; // a peer may announce any, so it is the codec's to set
/// let framing = http2.build()?;
/// assert_eq!(framing.to_config().width, 3);
/// let mut codec = BlockCodec::new(framing);
/// codec.set_max_block_len(16_384 + 9)?; // as SETTINGS_MAX_FRAME_SIZE is at first
///
/// // A length of 2 bytes, stripped, and a type, kept, which the length counts too.
/// let typed = LengthField::config().width(2).little_endian().header_len(3).strip(2);
/// let mut codec = BlockCodec::new(typed.max_block_len(6).build()?);
/// let mut arrived = BytesMut::from(&b"\x06\0Qhello\x07\0Q"[..]);
/// assert_eq!(codec.decode(&mut arrived)?.unwrap(), "Qhello");
/// assert!(codec.decode(&mut arrived).is_err()); // 7 bytes are too many
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LengthFieldConfig {
    /// Bytes of the length field, 1 to 8; 4 by default.
    pub width: usize,
    /// Bytes that a length of 1 stands for; 1 by default. For a length in 4-byte words it is 4.
    ///
    /// A block to send that is no whole number of units is refused, as
    /// [`WrongHeader`](crate::BlockError::WrongHeader): padding is the caller's.
    pub unit: usize,
    /// Whether the length's least significant byte comes first; it does not by default.
    pub little_endian: bool,
    /// Bytes of the header before the length field; 0 by default.
    pub offset: usize,
    /// Bytes of the whole header, at most 1,024; by default it ends with the length field.
    ///
    /// A block whose length leaves no room for its own header is refused.
    pub header_len: Option<usize>,
    /// What to add to the length field's value, in bytes, for the number of bytes that follow the field;
    /// 0 by default. For a length that counts its own 4 bytes it is −4; for one that counts the payload
    /// only, while 2 bytes of header come between, it is 2.
    pub adjustment: i64,
    /// How many bytes of the header's front are no part of a block; all of it by default.
    pub strip: Option<usize>,
    /// The longest whole block; at most 8 MiB by default, or what the length field has room for.
    pub limit: LengthLimit,
}

/// The longest whole block, in bytes: what is stripped does not count, what is kept of a header does.
///
/// ```
/// use wholeblock::{Framing, LengthField, LengthLimit};
///
/// let one_byte = LengthField::config().width(1); // has room for 255
/// let longest = |limit| one_byte.limit(limit).build().map(|it| it.max_whole_len());
/// assert!(longest(LengthLimit::Strict(1_000)).is_err());
/// assert_eq!(longest(LengthLimit::Strict(100)), Ok(100));
/// assert_eq!(longest(LengthLimit::Clamped(1_000)), Ok(255));
/// assert_eq!(longest(LengthLimit::Unlimited), Ok(255));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LengthLimit {
    /// This many bytes; it is a [`ConfigError`] if the length field has no room for it.
    Strict(usize),
    /// This many bytes, or as many as the length field has room for, if these are less.
    Clamped(usize),
    /// As many as the length field has room for, and an allocation can hold.
    Unlimited,
}

impl Default for LengthFieldConfig {
    fn default() -> Self {
        Self {
            width: 4,
            unit: 1,
            little_endian: false,
            offset: 0,
            header_len: None,
            adjustment: 0,
            strip: None,
            limit: LengthLimit::Clamped(DEFAULT_MAX_BLOCK_LEN),
        }
    }
}

impl LengthFieldConfig {
    /// Sets the [`width`](Self#structfield.width) of the length field, in bytes.
    #[must_use]
    pub fn width(mut self, bytes: usize) -> Self {
        self.width = bytes;
        self
    }

    /// Sets how many bytes a length of 1 [stands for](Self#structfield.unit).
    ///
    /// ```
    /// use bytes::{Bytes, BytesMut};
    /// use tokio_util::codec::{Decoder, Encoder};
    /// use wholeblock::{BlockCodec, Framing, LengthField};
    ///
    /// // X11's requests: a length of 2 bytes, in words of 4 bytes, which counts the header too.
    /// let requests = LengthField::config().offset(2).width(2).unit(4).adjustment(-4).keep_header();
    /// let requests = requests.little_endian().build()?;
    /// assert_eq!(requests.block_lens(), 4..=65_535 * 4);
    ///
    /// let mut arrived = BytesMut::from(&b"\x62\0\x04\0\x06\0\0\0RENDER\0\0\x2b\0\x01\0"[..]);
    /// let mut codec = BlockCodec::new(requests);
    /// let query_extension = codec.decode(&mut arrived)?.unwrap(); // 4 words
    /// assert_eq!(query_extension, "\x62\0\x04\0\x06\0\0\0RENDER\0\0");
    /// assert_eq!(codec.decode(&mut arrived)?.unwrap(), "\x2b\0\x01\0"); // GetInputFocus, 1 word
    ///
    /// let unpadded = Bytes::from("\x62\0\x04\0\x06\0\0\0RENDER");
    /// assert_eq!(
    ///     codec.encode(unpadded, &mut BytesMut::new()).unwrap_err().to_string(),
    ///     "block 0, of 14 bytes, cannot be sent: its header announces 16",
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn unit(mut self, bytes: usize) -> Self {
        self.unit = bytes;
        self
    }

    /// Has the length's least significant byte come first.
    #[must_use]
    pub fn little_endian(mut self) -> Self {
        self.little_endian = true;
        self
    }

    /// Sets the number of bytes [before the length field](Self#structfield.offset).
    #[must_use]
    pub fn offset(mut self, bytes: usize) -> Self {
        self.offset = bytes;
        self
    }

    /// Sets the length of the [whole header](Self#structfield.header_len), in bytes.
    #[must_use]
    pub fn header_len(mut self, bytes: usize) -> Self {
        self.header_len = Some(bytes);
        self
    }

    /// Sets [what to add](Self#structfield.adjustment), in bytes, to the length field's value for the
    /// number of bytes that follow the field.
    #[must_use]
    pub fn adjustment(mut self, bytes: i64) -> Self {
        self.adjustment = bytes;
        self
    }

    /// Sets how many bytes of the header's front are [no part of a block](Self#structfield.strip).
    #[must_use]
    pub fn strip(mut self, bytes: usize) -> Self {
        self.strip = Some(bytes);
        self
    }

    /// Makes the whole header a part of the block, received and sent: strips nothing.
    #[must_use]
    pub fn keep_header(self) -> Self {
        self.strip(0)
    }

    /// Sets the longest whole block, in bytes: [`LengthLimit::Strict`].
    #[must_use]
    pub fn max_block_len(mut self, bytes: usize) -> Self {
        self.limit = LengthLimit::Strict(bytes);
        self
    }

    /// Sets the [`limit`](Self#structfield.limit) on a whole block's length.
    #[must_use]
    pub fn limit(mut self, limit: LengthLimit) -> Self {
        self.limit = limit;
        self
    }

    /// The framing.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a width that is not 1 to 8, a unit of 0 bytes, a header that is longer than
    /// 1,024 bytes or ends before its length field, more to strip than there is of a header, an
    /// adjustment with which no length is that of a block, and a limit that the length field has no room
    /// for, or that is below the shortest block.
    pub fn build(&self) -> Result<LengthField, ConfigError> {
        LengthField::new(*self)
    }
}
