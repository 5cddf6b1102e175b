//! [`Payload`]: the bytes of a block to send.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut, buf::Chain};

use crate::write::Pieces;

/// The bytes of one block to send, by [`send`](crate::BlockTransport::send),
/// [`feed`](crate::BlockTransport::feed) or [`send_blocks`](crate::send_blocks).
///
/// A small payload is copied straight into the write queue. A large one is moved there without a copy if
/// the type owns its bytes (`Bytes`, `BytesMut`, `Vec<u8>`, `Box<[u8]>`, `String`), and copied if it only
/// borrows them (`&[u8]`, `&str`, `[u8; N]` …). To send a large `&'static [u8]` without a copy, use
/// `Bytes::from_static`.
///
/// # In several pieces
///
/// A tuple of two or three payloads, an array, a `Vec` or a `VecDeque` of any number, and a [`Chain`] of
/// two are one payload: a block with the bytes of all of them, in order. Each piece is copied or moved
/// as it would be alone, so a small header in front of a large body costs no copy of the body.
///
/// ```
/// use bytes::Bytes;
/// use wholeblock::{BlockCodec, BlockError, BlockTransport};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BlockError> {
/// # let body = Bytes::from("body");
/// let mut blocks = BlockTransport::new(vec![], BlockCodec::length_prefixed());
/// blocks.send(([1, 2], body)).await?; // of two types
/// assert_eq!(blocks.get_ref(), b"\0\0\0\x06\x01\x02body");
///
/// let pieces = vec!["any ", "number ", "of pieces"]; // of one type
/// blocks.send(pieces).await?;
/// assert_eq!(blocks.get_ref()[10..], *b"\0\0\0\x14any number of pieces");
/// # Ok(())
/// # }
/// ```
///
/// For any other [`Buf`](bytes::Buf), send `buf.copy_to_bytes(buf.remaining())`.
///
/// # A type of your own
///
/// It tells how many bytes it has, and puts them into [`Pieces`], as one piece or several:
///
/// ```
/// use wholeblock::{BlockCodec, BlockError, BlockTransport, Payload, Pieces};
///
/// struct Record { number: u32, text: String }
///
/// impl Payload for Record {
///     fn byte_len(&self) -> usize {
///         4 + self.text.len()
///     }
///
///     fn put_into(self, pieces: &mut Pieces<'_>) {
///         pieces.copy(&self.number.to_be_bytes());
///         pieces.share(self.text); // not copied if it is large
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BlockError> {
/// let mut blocks = BlockTransport::new(vec![], BlockCodec::length_prefixed());
/// blocks.send(Record { number: 7, text: "hello".into() }).await?;
/// assert_eq!(blocks.get_ref(), b"\0\0\0\x09\0\0\0\x07hello");
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the payload of a block",
    label = "the source's items are not `Payload`s",
    note = "payloads are `Bytes`, `Vec<u8>`, `&[u8]` and the like, and tuples, arrays and `Vec`s of \
            them; for a source of `Result`s use `try_send_blocks`"
)]
pub trait Payload: Sized {
    /// Returns the number of bytes in all pieces together.
    fn byte_len(&self) -> usize;

    /// Puts the bytes into `pieces`, in order.
    ///
    /// They must be as many as [`byte_len`](Self::byte_len) returned, because the block's header is
    /// written first. Otherwise the block is refused, as
    /// [`BlockError::WrongHeader`](crate::BlockError::WrongHeader), and nothing of it is sent.
    fn put_into(self, pieces: &mut Pieces<'_>);

    /// Returns the bytes if they are in one piece. A small payload is then copied without a `Pieces`.
    #[doc(hidden)]
    #[inline]
    fn as_piece(&self) -> Option<&[u8]> {
        None
    }
}

/// Implements `Payload` for types that own their bytes.
macro_rules! owned {
    ($($owner:ty),*) => {$(
        impl Payload for $owner {
            #[inline]
            fn byte_len(&self) -> usize {
                self.len()
            }

            #[inline]
            fn put_into(self, pieces: &mut Pieces<'_>) {
                pieces.share(self);
            }

            #[inline]
            fn as_piece(&self) -> Option<&[u8]> {
                Some(self.as_ref())
            }
        }
    )*};
}

owned!(Bytes, BytesMut, Vec<u8>, Box<[u8]>, String);

/// Implements `Payload` for types that borrow their bytes or hold them inline.
macro_rules! copied {
    ($([$($generics:tt)*] $borrowed:ty),*) => {$(
        impl<$($generics)*> Payload for $borrowed {
            #[inline]
            fn byte_len(&self) -> usize {
                self.len()
            }

            #[inline]
            fn put_into(self, pieces: &mut Pieces<'_>) {
                pieces.copy(self.as_ref());
            }

            #[inline]
            fn as_piece(&self) -> Option<&[u8]> {
                Some(self.as_ref())
            }
        }
    )*};
}

copied!([] &[u8], [] &str, [] &Vec<u8>, [const N: usize] [u8; N], [const N: usize] &[u8; N]);

impl Payload for &Bytes {
    #[inline]
    fn byte_len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn put_into(self, pieces: &mut Pieces<'_>) {
        match pieces.shares(self) {
            true => pieces.share(self.clone()),
            false => pieces.copy(self),
        }
    }

    #[inline]
    fn as_piece(&self) -> Option<&[u8]> {
        Some(self)
    }
}

/// Implements `Payload` for collections of payloads.
macro_rules! collection {
    ($([$($generics:tt)*] $collection:ty),*) => {$(
        impl<P: Payload, $($generics)*> Payload for $collection {
            #[inline]
            fn byte_len(&self) -> usize {
                self.iter().map(P::byte_len).fold(0, usize::saturating_add)
            }

            #[inline]
            fn put_into(self, pieces: &mut Pieces<'_>) {
                for piece in self {
                    piece.put_into(pieces);
                }
            }
        }
    )*};
}

collection!([const N: usize] [P; N], [] Vec<P>, [] VecDeque<P>);

impl<A: Payload, B: Payload> Payload for (A, B) {
    #[inline]
    fn byte_len(&self) -> usize {
        self.0.byte_len().saturating_add(self.1.byte_len())
    }

    #[inline]
    fn put_into(self, pieces: &mut Pieces<'_>) {
        self.0.put_into(pieces);
        self.1.put_into(pieces);
    }
}

impl<A: Payload, B: Payload, C: Payload> Payload for (A, B, C) {
    #[inline]
    fn byte_len(&self) -> usize {
        let first_two = self.0.byte_len().saturating_add(self.1.byte_len());
        first_two.saturating_add(self.2.byte_len())
    }

    #[inline]
    fn put_into(self, pieces: &mut Pieces<'_>) {
        let (first, second, third) = self;
        ((first, second), third).put_into(pieces);
    }
}

impl<A: Payload, B: Payload> Payload for Chain<A, B> {
    #[inline]
    fn byte_len(&self) -> usize {
        let (first, last) = (self.first_ref(), self.last_ref());
        first.byte_len().saturating_add(last.byte_len())
    }

    #[inline]
    fn put_into(self, pieces: &mut Pieces<'_>) {
        self.into_inner().put_into(pieces);
    }
}
