//! The bare loops: what blocks cost a program without a codec.
//!
//! They run over a blocking socket as "raw limit", and over tokio's socket as "tokio raw".

use std::{collections::VecDeque, hint::black_box, io::IoSlice, sync::mpsc::Sender, time::Instant};

use anyhow::ensure;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    contenders::{Io, Moved, Running, Task, micros_since},
    load::{Blocks, Load},
};

/// Bytes of a write. Only the bare loops use this, not the crate. One segment of Linux's TCP holds a little
/// less than 64 KiB, and the rest of a longer write leaves as a short packet of its own. Of the lengths from 30
/// to 480 KiB, 60 KiB was the best or near it on loopback and on veth, with Nagle's algorithm off.
const WRITE: usize = 60 * 1024;

/// Bytes to read at once, or one block if that is longer. Larger reads gain less than their use of the cache
/// costs.
const READ: usize = 64 * 1024;

/// tokio-util's `Framed` writes once it has so many bytes, by default.
const FRAMED: usize = 8 * 1024;

/// How a sender writes.
#[derive(Clone, Copy, Debug)]
pub enum Writes {
    /// Copies blocks into a buffer, and writes it when it has so many bytes.
    Filled(usize),
    /// Keeps blocks, and writes slices of them.
    Vectored,
}

impl Writes {
    pub const FILLED: Self = Self::Filled(WRITE);

    /// Returns the way that is usually faster for blocks of `size` bytes.
    pub fn for_size(size: usize) -> Self {
        match size < WRITE {
            true => Self::FILLED,
            false => Self::Vectored,
        }
    }

    /// Returns writes as long as `Framed`'s, which has whole blocks in its buffer when it writes.
    pub fn as_framed(load: &Load) -> Self {
        Self::Filled(FRAMED.next_multiple_of(load.wire_len()))
    }
}

pub fn run(task: Task, io: impl Io, load: Load, writes: Writes) -> Running {
    match (task, writes) {
        (Task::Send(source), Writes::Filled(len)) => Box::pin(send_filled(io, load, source, len)),
        (Task::Send(source), Writes::Vectored) => Box::pin(send_vectored(io, load, source)),
        (Task::Receive, _) => Box::pin(receive(io, load)),
        (Task::Ask(source, micros), _) => Box::pin(ask(io, load, source, micros)),
        (Task::Echo, _) => Box::pin(echo(io, load)),
    }
}

async fn send_filled(mut io: impl Io, load: Load, source: Blocks, len: usize) -> Moved {
    let mut pieces = Pieces {
        len,
        filled: Vec::with_capacity(len + load.header_len()),
        rest: Bytes::new(),
        source,
        load,
    };
    while let Some(piece) = pieces.next() {
        io.write_all(piece).await?;
    }
    io.shutdown().await?;
    Ok(load.blocks)
}

/// Cuts blocks into pieces of `len` bytes. Only the last piece may be shorter.
struct Pieces {
    len: usize,
    /// At most one piece, and the part of the last header that does not fit into it.
    filled: Vec<u8>,
    /// The part of the last block that does not fit into `filled`.
    rest: Bytes,
    source: Blocks,
    load: Load,
}

impl Pieces {
    fn next(&mut self) -> Option<&[u8]> {
        self.filled.drain(..self.filled.len().min(self.len));
        let first = self.rest.split_to(self.rest.len().min(self.len));
        self.filled.extend_from_slice(&first);
        while self.filled.len() < self.len {
            let Some(mut block) = self.source.next() else {
                break;
            };
            self.load.put_header(block.len(), &mut self.filled);
            let room = self.len.saturating_sub(self.filled.len());
            if block.len() <= room {
                self.filled.extend_from_slice(&block);
            } else {
                self.filled.extend_from_slice(&block[..room]);
                block.advance(room);
                self.rest = block;
                break;
            }
        }
        let piece = &self.filled[..self.filled.len().min(self.len)];
        (!piece.is_empty()).then_some(piece)
    }
}

async fn send_vectored(mut io: impl Io, load: Load, mut source: Blocks) -> Moved {
    // All blocks have the same length, and so the same header.
    let mut header = Vec::new();
    load.put_header(load.size, &mut header);
    // Blocks that are not wholly written, and how many bytes of the first are written.
    let mut kept = VecDeque::<Bytes>::new();
    let mut written = 0;
    loop {
        while kept.len() * load.wire_len() - written < WRITE {
            match source.next() {
                Some(block) => kept.push_back(block),
                None => break,
            }
        }
        if kept.is_empty() {
            break;
        }
        let mut slices = Vec::with_capacity(2 * kept.len());
        let (mut skip, mut room) = (written, WRITE);
        for part in kept.iter().flat_map(|block| [&header[..], block]) {
            let skipped = skip.min(part.len());
            let len = room.min(part.len() - skipped);
            if len > 0 {
                slices.push(IoSlice::new(&part[skipped..skipped + len]));
            }
            skip -= skipped;
            room -= len;
        }
        let len = io.write_vectored(&slices).await?;
        ensure!(len > 0, "the socket takes nothing");
        written += len;
        kept.drain(..written / load.wire_len());
        written %= load.wire_len();
    }
    io.shutdown().await?;
    Ok(load.blocks)
}

async fn receive(mut io: impl Io, load: Load) -> Moved {
    let at_once = (READ / load.wire_len()).max(1) as u64;
    let mut buffer = vec![0; at_once as usize * load.wire_len()];
    let mut seen = 0;
    while seen < load.blocks {
        let count = at_once.min(load.blocks - seen);
        let bytes = &mut buffer[..count as usize * load.wire_len()];
        io.read_exact(bytes).await?;
        seen += look(load, bytes)?;
    }
    let after = io.read(&mut buffer).await?;
    ensure!(after == 0, "more came than was sent");
    Ok(seen)
}

/// Looks at the whole blocks in `bytes`, like a program that uses them, and counts them.
fn look(load: Load, mut bytes: &[u8]) -> anyhow::Result<u64> {
    let mut seen = 0;
    while !bytes.is_empty() {
        let mut len = load.size;
        if let Some((header, behind)) = bytes.split_first_chunk().filter(|_| load.prefixed) {
            len = u32::from_be_bytes(*header) as usize;
            bytes = behind;
        }
        ensure!(len <= bytes.len(), "a block is longer than it should be");
        let (block, behind) = bytes.split_at(len);
        black_box(block);
        bytes = behind;
        seen += 1;
    }
    Ok(seen)
}

async fn ask(mut io: impl Io, load: Load, source: Blocks, micros: Sender<f64>) -> Moved {
    let mut wire = load.wire();
    for block in source {
        let started = Instant::now();
        wire.truncate(load.header_len());
        wire.extend_from_slice(&block);
        io.write_all(&wire).await?;
        io.read_exact(&mut wire).await?;
        look(load, &wire)?;
        micros.send(micros_since(started))?;
    }
    Ok(load.blocks)
}

async fn echo(mut io: impl Io, load: Load) -> Moved {
    let mut block = load.wire();
    for _ in 0..load.blocks {
        io.read_exact(&mut block).await?;
        io.write_all(&block).await?;
    }
    Ok(load.blocks)
}
