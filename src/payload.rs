//! What blocks to send may be made of.

use bytes::{Bytes, BytesMut};

/// The bytes of one block to send: what the sources of [`send_blocks`](crate::send_blocks) give.
///
/// A small block is copied straight from here into the write queue. A large one is taken over
/// without a copy if the type owns its bytes (`Bytes`, `BytesMut`, `Vec<u8>`, `Box<[u8]>`,
/// `String`), and copied if it only borrows them (`&[u8]`, `&str`, `[u8; N]` …). For a large
/// `&'static [u8]`, `Bytes::from_static` makes an owner of it.
///
/// Implement it for a type of your own that has its bytes in one piece:
///
/// ```
/// use bytes::Bytes;
/// use wholeblock::Payload;
///
/// struct Record { text: String }
///
/// impl AsRef<[u8]> for Record {
///     fn as_ref(&self) -> &[u8] { self.text.as_bytes() }
/// }
///
/// impl Payload for Record {
///     fn into_bytes(self) -> Result<Bytes, Self> { Ok(self.text.into()) }
/// }
///
/// let record = Record { text: "hello".into() };
/// assert_eq!(record.into_bytes().ok().unwrap(), "hello");
/// assert_eq!(Payload::into_bytes("borrowed"), Err("borrowed")); // to be copied
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the payload of a block",
    label = "the source's items are not `Payload`s",
    note = "items of `send_blocks` are `Bytes`, `Vec<u8>`, `&[u8]` and the like; for a source of \
            `Result`s use `try_send_blocks`"
)]
pub trait Payload: AsRef<[u8]> + Sized {
    /// Turns the payload into `Bytes`, if that needs no copy; otherwise gives it back.
    ///
    /// They must be the bytes of [`as_ref`](AsRef::as_ref). If they are not, either are sent as the
    /// block, with a header that fits them.
    ///
    /// # Errors
    ///
    /// The payload itself, where its bytes would have to be copied.
    fn into_bytes(self) -> Result<Bytes, Self> {
        Err(self)
    }
}

impl Payload for Bytes {
    fn into_bytes(self) -> Result<Bytes, Self> {
        Ok(self)
    }
}

impl Payload for BytesMut {
    fn into_bytes(self) -> Result<Bytes, Self> {
        Ok(self.freeze())
    }
}

impl Payload for Vec<u8> {
    fn into_bytes(self) -> Result<Bytes, Self> {
        Ok(self.into())
    }
}

impl Payload for Box<[u8]> {
    fn into_bytes(self) -> Result<Bytes, Self> {
        Ok(self.into())
    }
}

impl Payload for String {
    fn into_bytes(self) -> Result<Bytes, Self> {
        Ok(self.into())
    }
}

impl Payload for &Bytes {
    fn into_bytes(self) -> Result<Bytes, Self> {
        Ok(self.clone())
    }
}

impl Payload for &[u8] {}

impl Payload for &str {}

impl Payload for &Vec<u8> {}

impl<const N: usize> Payload for [u8; N] {}

impl<const N: usize> Payload for &[u8; N] {}
