//! What one measurement moves, and where the blocks come from.

use std::{hint::black_box, sync::OnceLock};

use bytes::Bytes;
use clap::ValueEnum;
use tokio_util::codec::LengthDelimitedCodec;
use wholeblock::{ConfigError, Framing, LengthPrefix};

/// Where a sender's blocks come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// Slices of one shared, reference-counted buffer.
    Slices,
    /// One block again and again, as a broadcast sends it.
    Hot,
    /// Slices of a buffer that no cache holds.
    Cold,
    /// A fresh `Vec` for each block, into which its bytes are copied.
    Fresh,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Slices => "slices of a shared buffer",
            Self::Hot => "one block again and again",
            Self::Cold => "slices of a large buffer",
            Self::Fresh => "a fresh Vec a block",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Payload bytes of a block.
    pub size: usize,
    /// True if a big-endian u32 is before each block. Otherwise there is no header.
    pub prefixed: bool,
    pub source: Source,
    pub blocks: u64,
    /// Bytes that a `BlockTransport` writes at once; its default if none.
    pub write_len: Option<usize>,
}

impl Load {
    pub fn framing(&self) -> &'static str {
        match self.prefixed {
            true => "length-prefixed",
            false => "exact length",
        }
    }

    pub fn header_len(&self) -> usize {
        if self.prefixed { size_of::<u32>() } else { 0 }
    }

    /// Appends the header of a payload of `len` bytes.
    pub fn put_header(&self, len: usize, wire: &mut Vec<u8>) {
        if self.prefixed {
            wire.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }

    pub fn wire_len(&self) -> usize {
        self.header_len() + self.size
    }

    /// Returns one block as it is on the wire.
    pub fn wire(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        self.put_header(self.size, &mut wire);
        wire.resize(self.wire_len(), PAYLOAD);
        wire
    }

    pub fn gigabytes(&self) -> f64 {
        self.blocks as f64 * self.size as f64 / 1e9
    }

    /// Returns the blocks to send.
    pub fn source(&self) -> Blocks {
        let whole = |len: usize| (len / self.size).max(1) * self.size;
        let shared = match self.source {
            Source::Slices | Source::Fresh => vec![PAYLOAD; whole(SHARED)].into(),
            Source::Hot => vec![PAYLOAD; self.size].into(),
            Source::Cold => cold().slice(..whole(COLD)),
        };
        // Sliced, because a `Bytes` that was just made of a `Vec` has no reference count yet. `black_box`
        // keeps the compiler from knowing that there is one.
        let shared = black_box(Bytes::slice(&shared, ..));
        Blocks {
            shared,
            at: 0,
            load: *self,
        }
    }

    /// Returns the default prefix, with a higher limit if the blocks need one.
    pub fn length_prefix(&self) -> Result<LengthPrefix, ConfigError> {
        let prefix = LengthPrefix::u32();
        match self.size as u64 <= prefix.max_whole_len() {
            true => Ok(prefix),
            false => prefix.max_block_len(self.size),
        }
    }

    /// Returns the default codec, with a higher limit if the blocks need one.
    pub fn length_delimited(&self) -> LengthDelimitedCodec {
        let mut codec = LengthDelimitedCodec::new();
        codec.set_max_frame_length(codec.max_frame_length().max(self.size));
        codec
    }
}

/// Every byte of every payload. The speed does not depend on the content.
pub const PAYLOAD: u8 = b'a';

/// Bytes of the shared buffer, or one block if that is longer. The buffer does not fit into the first-level
/// cache, so a sender that reads payloads pays for it. It fits into the second-level cache.
pub const SHARED: usize = 64 * 1024;

/// The same for [`Source::Cold`]. Fits into no cache.
pub const COLD: usize = 256 << 20;

/// Returns a buffer that is filled only once, because that takes as long as a measurement.
fn cold() -> Bytes {
    static COLD_BUFFER: OnceLock<Bytes> = OnceLock::new();
    let buffer = COLD_BUFFER.get_or_init(|| vec![PAYLOAD; COLD].into());
    buffer.clone()
}

/// A sender's source of blocks.
#[derive(Debug)]
pub struct Blocks {
    /// A whole number of blocks.
    shared: Bytes,
    /// Where in `shared` the next block begins.
    at: usize,
    /// Its `blocks` counts down to 0.
    load: Load,
}

impl Iterator for Blocks {
    type Item = Bytes;

    /// Not inlined, because the caller must know as little about a block as if another task had sent it.
    /// Otherwise the compiler sees how the block counts its references, and removes the counting if the
    /// block is dropped again.
    #[inline(never)]
    fn next(&mut self) -> Option<Bytes> {
        self.load.blocks = self.load.blocks.checked_sub(1)?;
        let block = self.at..self.at + self.load.size;
        self.at = block.end % self.shared.len();
        Some(match self.load.source {
            Source::Fresh => Bytes::from(self.shared[block].to_vec()),
            _ => self.shared.slice(block),
        })
    }
}
