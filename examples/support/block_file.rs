//! A file with a line for each block, written while the next blocks are moved.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    mem,
    path::{Path, PathBuf},
};

use anyhow::Context;
use tokio::task::{JoinHandle, spawn_blocking};

/// Bytes that `write` gathers before it hands them over. With those that are being written
/// meanwhile, and 256 connections at once, 128 MiB altogether.
const GATHERED: usize = 256 * 1024;

/// Bytes of memory to gather in that are kept once they are written: enough for what the client
/// hands over at once.
const KEPT: usize = 2 * 1024 * 1024;

/// A file with a line for each block. It ends with a whole line, also where the disk is full.
#[derive(Debug)]
pub(crate) struct BlockFile {
    path: PathBuf,
    gathered: Lines,
    writer: Writer,
}

#[derive(Debug)]
enum Writer {
    /// With an empty buffer to gather in next.
    Idle(Target, Lines),
    Busy(JoinHandle<(Target, Lines, io::Result<()>)>),
    Failed,
}

/// Blocks, each with its line end, and where these end.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

#[derive(Debug)]
struct Target {
    file: File,
    /// Bytes of the whole lines in it.
    whole: u64,
}

impl BlockFile {
    pub(crate) async fn create(path: &Path) -> anyhow::Result<Self> {
        let file = tokio::fs::File::create(path).await;
        let file = file.with_context(|| cannot_write(path))?.into_std().await;
        Ok(Self {
            path: path.to_owned(),
            gathered: Lines::default(),
            writer: Writer::Idle(Target { file, whole: 0 }, Lines::default()),
        })
    }

    /// Writes a whole block and its line end. A failure shows here or later, in `flush` at last.
    pub(crate) async fn write(&mut self, block: &[u8]) -> anyhow::Result<()> {
        self.gather(block);
        if self.gathered.bytes.len() < GATHERED {
            return Ok(());
        }
        self.hand_over().await
    }

    /// Keeps a whole block and its line end, to be handed over.
    pub(crate) fn gather(&mut self, block: &[u8]) {
        self.gathered.push(block);
    }

    /// Passes all on to the system, and says if that failed: nothing does so later.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        self.hand_over().await?;
        self.wait().await
    }

    /// Hands over what is gathered, once what was handed over before is written.
    pub(crate) async fn hand_over(&mut self) -> anyhow::Result<()> {
        self.wait().await?;
        // After a failure nothing more is written, so that no line is missing between two others.
        let Writer::Idle(mut target, spare) = mem::replace(&mut self.writer, Writer::Failed) else {
            return Ok(());
        };
        let lines = mem::replace(&mut self.gathered, spare);
        self.writer = Writer::Busy(spawn_blocking(move || {
            let written = target.write(&lines);
            (target, lines.emptied(), written)
        }));
        Ok(())
    }

    async fn wait(&mut self) -> anyhow::Result<()> {
        let Writer::Busy(writing) = &mut self.writer else {
            return Ok(());
        };
        let ended = writing.await;
        self.writer = Writer::Failed;
        let (target, spare, written) = ended?;
        written.with_context(|| cannot_write(&self.path))?;
        self.writer = Writer::Idle(target, spare);
        Ok(())
    }
}

impl Lines {
    fn push(&mut self, block: &[u8]) {
        self.bytes.extend_from_slice(block);
        self.bytes.push(b'\n');
        self.ends.push(self.bytes.len());
    }

    /// The memory to gather others in; of a very long block, not all.
    fn emptied(mut self) -> Self {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.ends.clear();
        self
    }

    /// How many of the first `len` bytes are whole lines.
    fn whole(&self, len: usize) -> usize {
        let lines = self.ends.partition_point(|&end| end <= len);
        lines.checked_sub(1).map_or(0, |last| self.ends[last])
    }
}

impl Target {
    fn write(&mut self, lines: &Lines) -> io::Result<()> {
        let (mut written, mut result) = (0, Ok(()));
        while written < lines.bytes.len() && result.is_ok() {
            match self.file.write(&lines.bytes[written..]) {
                Ok(0) => result = Err(ErrorKind::WriteZero.into()),
                Ok(len) => written += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
        }
        self.whole += lines.whole(written) as u64;
        if result.is_err() {
            // What cannot be cut, a device say, does not keep lines either.
            let _ = self.file.set_len(self.whole);
        }
        result
    }
}

pub(crate) fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
