//! Configuration of a [`LengthField`].

use super::LengthField;
use crate::{error::ConfigError, framing::DEFAULT_MAX_BLOCK_LEN};

/// Configuration of a [`LengthField`]: where the length is, what it counts, and which bytes are stripped.
///
/// Each setting is a public field, and a builder method of the same name. Nothing is checked before
/// [`build`](Self::build), so the order does not matter.
///
/// ```
/// use bytes::BytesMut;
/// use tokio_util::codec::Decoder;
/// use wholeblock::{BlockCodec, LengthField, LengthLimit};
///
/// // HTTP/2: a length of 3 bytes, then 6 more bytes of header, all of it kept.
/// let mut http2 = LengthField::config().width(3).adjustment(6).header_len(9).keep_header();
/// http2.limit = LengthLimit::Unlimited; // the codec sets the limit
/// let framing = http2.build()?;
/// assert_eq!(framing.to_config().width, 3);
/// let mut codec = BlockCodec::new(framing);
/// codec.set_max_block_len(16_384 + 9)?; // the initial SETTINGS_MAX_FRAME_SIZE
///
/// // A stripped length of 2 bytes, and a kept type, which the length counts too.
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
    /// A block to send that is not a whole number of units is refused, as
    /// [`WrongHeader`](crate::BlockError::WrongHeader): the caller must pad it.
    pub unit: usize,
    /// True if the length's least significant byte comes first; false by default.
    pub little_endian: bool,
    /// Bytes of the header before the length field; 0 by default.
    pub offset: usize,
    /// Bytes of the whole header, at most 1,024; by default it ends with the length field.
    ///
    /// A block whose length leaves no room for its own header is refused.
    pub header_len: Option<usize>,
    /// Bytes to add to the length field's value to get the number of bytes that follow the field; 0 by
    /// default. It is −4 if the length counts its own 4 bytes, and 2 if the length counts only the payload
    /// and 2 bytes of header come between.
    pub adjustment: i64,
    /// Bytes to strip from the front of the header; all of it by default.
    pub strip: Option<usize>,
    /// The longest whole block; by default 8 MiB, or what the length field can announce, if that is less.
    pub limit: LengthLimit,
}

/// The longest whole block, in bytes. Kept bytes of the header count, stripped bytes do not.
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
    /// This many bytes; a [`ConfigError`] if the length field cannot announce them.
    Strict(usize),
    /// This many bytes, or as many as the length field can announce, if that is less.
    Clamped(usize),
    /// As many as the length field can announce and an allocation can hold.
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

    /// Reads and writes the length as a little-endian integer.
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

    /// Sets the bytes [to add](Self#structfield.adjustment) to the length field's value to get the number
    /// of bytes that follow the field.
    #[must_use]
    pub fn adjustment(mut self, bytes: i64) -> Self {
        self.adjustment = bytes;
        self
    }

    /// Sets how many bytes to [strip](Self#structfield.strip) from the front of the header.
    #[must_use]
    pub fn strip(mut self, bytes: usize) -> Self {
        self.strip = Some(bytes);
        self
    }

    /// Strips nothing: the whole header is a part of each block, received or sent.
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

    /// Builds the framing.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if
    ///
    /// * the width is not 1 to 8, or the unit is 0,
    /// * the header is longer than 1,024 bytes, ends before its length field, or is shorter than `strip`,
    /// * the adjustment makes every length invalid,
    /// * the limit is below the shortest block, or the length field cannot announce it.
    pub fn build(&self) -> Result<LengthField, ConfigError> {
        LengthField::new(*self)
    }
}
