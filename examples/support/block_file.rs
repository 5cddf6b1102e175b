//! A file with a line for each block, written while the next blocks are moved.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    mem,
    path::{Path, PathBuf},
};

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};

/// Bytes that `write` gathers before it hands them to the writer. A file holds up to four times as many: some
/// gathered, two lots in the queue, and one being written. With 256 connections at once, that is 256 MiB.
const GATHERED: usize = 256 * 1024;

/// Buffers of lines that can wait for the writer. With more than one, a slow write does not stop the transfer.
const QUEUED: usize = 2;

/// The largest buffer to reuse, in bytes. A very long block needs a larger one, which is freed.
const KEPT: usize = 2 * GATHERED;

/// A file with a line for each block. It ends with a whole line, even if the disk is full.
#[derive(Debug)]
pub(crate) struct BlockFile {
    path: PathBuf,
    gathered: Gathered,
    /// An empty buffer to reuse.
    spare: mpsc::Receiver<Gathered>,
    /// None once the writer has ended. It ends at a failure, so that no line is missing between two others.
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    queue: mpsc::Sender<Lines>,
    writing: JoinHandle<io::Result<()>>,
}

/// Blocks, each with its line end, and the offsets at which the lines end.
#[derive(Debug, Default)]
struct Gathered {
    bytes: BytesMut,
    ends: Vec<usize>,
}

/// The same, ready to be written.
#[derive(Debug)]
pub(crate) struct Lines {
    bytes: Bytes,
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
        let mut target = Target { file, whole: 0 };
        let (queue, mut queued) = mpsc::channel::<Lines>(QUEUED);
        let (emptied, spare) = mpsc::channel(1);
        let writing = spawn_blocking(move || {
            while let Some(lines) = queued.blocking_recv() {
                target.write(&lines)?;
                // Fails if there is a spare buffer already, which does no harm.
                let _ = emptied.try_send(lines.emptied());
            }
            Ok(())
        });
        Ok(Self {
            path: path.to_owned(),
            gathered: Gathered::default(),
            spare,
            writer: Some(Writer { queue, writing }),
        })
    }

    /// Queues a whole block and its line end. A failed write is reported here or later, at the latest by
    /// `flush`.
    pub(crate) async fn write(&mut self, block: &[u8]) -> anyhow::Result<()> {
        self.gathered.push(block);
        if self.gathered.bytes.len() < GATHERED {
            return Ok(());
        }
        self.hand_over_gathered().await
    }

    async fn hand_over_gathered(&mut self) -> anyhow::Result<()> {
        let next = self.spare.try_recv().unwrap_or_default();
        let gathered = mem::replace(&mut self.gathered, next);
        self.hand_over(gathered.complete()).await
    }

    /// Queues `lines` for the writer. Waits while the queue is full.
    pub(crate) async fn hand_over(&mut self, lines: Lines) -> anyhow::Result<()> {
        match &self.writer {
            Some(writer) if writer.queue.send(lines).await.is_err() => self.end().await,
            _ => Ok(()),
        }
    }

    /// Passes everything to the system, and returns the error if a write failed.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        self.hand_over_gathered().await?;
        self.end().await
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        let Some(Writer { queue, writing }) = self.writer.take() else {
            return Ok(());
        };
        drop(queue);
        writing.await?.with_context(|| cannot_write(&self.path))
    }
}

impl Gathered {
    fn push(&mut self, block: &[u8]) {
        self.bytes.extend_from_slice(block);
        self.bytes.extend_from_slice(b"\n");
        self.ends.push(self.bytes.len());
    }

    fn complete(self) -> Lines {
        let Self { bytes, ends } = self;
        let bytes = bytes.freeze();
        Lines { bytes, ends }
    }
}

impl Lines {
    /// Lines of `len` bytes each.
    pub(crate) fn of_equal_length(bytes: Bytes, len: usize) -> Self {
        let ends = (len..=bytes.len()).step_by(len).collect();
        Self { bytes, ends }
    }

    /// Returns the memory for reuse, unless it is shared or longer than [`KEPT`].
    fn emptied(mut self) -> Gathered {
        self.ends.clear();
        let mut bytes = match self.bytes.try_into_mut() {
            Ok(bytes) if bytes.capacity() <= KEPT => bytes,
            _ => BytesMut::new(),
        };
        bytes.clear();
        Gathered {
            bytes,
            ends: self.ends,
        }
    }

    /// Returns how many of the first `len` bytes are whole lines.
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
            // Fails for a device, say, which keeps no lines anyway.
            let _ = self.file.set_len(self.whole);
        }
        result
    }
}

pub(crate) fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
