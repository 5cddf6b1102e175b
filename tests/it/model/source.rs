//! Sources of blocks to send, of every kind of payload that there is.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use wholeblock::Payload;

/// What a block to send is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Bytes,
    BytesMut,
    Vec,
    Boxed,
    Borrowed,
    Array,
}

/// A source that counts what was taken from it.
pub(crate) struct Source<'a> {
    pub(crate) blocks: &'a [Given],
    pub(crate) taken: &'a Cell<usize>,
    pub(crate) pausing: bool,
    pub(crate) paused: bool,
    /// Whether it had nothing when it was last asked.
    pub(crate) waits: &'a Cell<bool>,
}

impl Stream for Source<'_> {
    type Item = Given;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Given>> {
        self.paused = self.pausing && !self.paused;
        self.waits.set(self.paused);
        if self.paused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.blocks.get(self.taken.get());
        self.taken
            .set(self.taken.get() + usize::from(next.is_some()));
        Poll::Ready(next.cloned())
    }
}

/// A payload of any kind that there is.
#[derive(Clone)]
pub(crate) enum Given {
    Bytes(Bytes),
    BytesMut(BytesMut),
    Vec(Vec<u8>),
    Boxed(Box<[u8]>),
    Borrowed(&'static [u8]),
    Array([u8; 5]),
}

impl Given {
    pub(crate) fn new(block: &Bytes, kind: Kind) -> Self {
        match kind {
            Kind::BytesMut => Self::BytesMut(block[..].into()),
            Kind::Vec => Self::Vec(block.to_vec()),
            Kind::Boxed => Self::Boxed(block[..].into()),
            Kind::Borrowed => Self::Borrowed(block.to_vec().leak()),
            Kind::Array => match block[..].try_into() {
                Ok(array) => Self::Array(array),
                Err(_) => Self::Bytes(block.clone()),
            },
            Kind::Bytes => Self::Bytes(block.clone()),
        }
    }
}

impl AsRef<[u8]> for Given {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Bytes(it) => it,
            Self::BytesMut(it) => it,
            Self::Vec(it) => it,
            Self::Boxed(it) => it,
            Self::Borrowed(it) => it,
            Self::Array(it) => it,
        }
    }
}

impl Payload for Given {
    fn into_bytes(self) -> Result<Bytes, Self> {
        match self {
            Self::Bytes(it) => it.into_bytes().map_err(Self::Bytes),
            Self::BytesMut(it) => it.into_bytes().map_err(Self::BytesMut),
            Self::Vec(it) => it.into_bytes().map_err(Self::Vec),
            Self::Boxed(it) => it.into_bytes().map_err(Self::Boxed),
            Self::Borrowed(it) => it.into_bytes().map_err(Self::Borrowed),
            Self::Array(it) => it.into_bytes().map_err(Self::Array),
        }
    }
}
