//! What is to be on the wire.

use std::{io, task::Poll};

use bytes::Bytes;
use wholeblock::{BlockError, TransferStats};

use super::{
    coverage::met,
    socket::Socket,
    source::Kind,
    wire::{Wire, refusal},
};

/// What has been sent, and is to be on the wire after a flush.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) stage: usize,
    pub(crate) wire: Wire,
    pub(crate) max: usize,
    pub(crate) bytes: Vec<u8>,
    /// Where on the wire each block ends.
    pub(crate) ends: Vec<usize>,
    /// Blocks that the codec has encoded.
    encoded: u64,
    /// Blocks made, sent or not.
    made: usize,
    pub(crate) closed: bool,
}

/// A block to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft {
    pub(crate) len: usize,
    /// Whether it is to be sent as it is, though its wire may not carry it.
    pub(crate) raw: bool,
    pub(crate) kind: Kind,
}

impl Outgoing {
    pub(crate) fn new(wire: Wire) -> Self {
        Self {
            stage: 0,
            wire,
            max: *wire.lens().end(),
            bytes: vec![],
            ends: vec![],
            encoded: 0,
            made: 0,
            closed: false,
        }
    }

    /// Blocks from now on go on this wire.
    pub(crate) fn speak(&mut self, stage: usize, wire: Wire) {
        (self.stage, self.wire, self.max) = (stage, wire, *wire.lens().end());
    }

    pub(crate) fn make(&mut self, draft: Draft) -> Bytes {
        self.made += 1;
        let (min, max) = (*self.wire.lens().start(), self.max);
        if !draft.raw {
            return self.wire.block(self.made, draft.len.clamp(min, max));
        }
        let len = draft.len.max(min.min(5)); // a header that it brings itself is all there
        let mut block = self.wire.block(self.made, len).to_vec();
        if let (Some(byte), 0) = (block.get_mut(4), draft.len % 2) {
            *byte ^= 1; // a lie, where this is a length
        }
        block.into()
    }

    fn refusal(&self, block: &[u8]) -> Option<String> {
        refusal(&self.wire, self.max, block, self.encoded)
    }

    fn push(&mut self, block: &[u8]) {
        self.bytes.extend(self.wire.header(block.len()));
        self.bytes.extend_from_slice(block);
        self.ends.push(self.bytes.len());
        self.encoded += 1;
    }

    /// Panics unless what is on the wire is a front of what was sent.
    pub(crate) fn assert_front(&self, socket: &Socket) {
        socket.written(|written| {
            assert!(
                self.bytes.starts_with(written),
                "not what was sent, after {}",
                written.len()
            );
        });
    }

    /// Panics unless everything sent is on the wire, and flushed.
    pub(crate) fn assert_flushed(&self, socket: &Socket) {
        let written = socket.written(<[u8]>::len);
        assert_eq!(written, self.bytes.len(), "bytes are held back");
        assert!(socket.is_flushed(), "not flushed");
    }

    /// Takes note of a block that was given to the sink, and what came of it.
    pub(crate) fn given(&mut self, block: &[u8], error: Option<&BlockError>) {
        match (error, self.refusal(block)) {
            (None, None) => self.push(block),
            (Some(error), Some(refusal)) => {
                met("a block refused");
                assert_eq!(format!("{error:?}"), refusal);
            }
            (error, refusal) => panic!("{error:?} instead of {refusal:?}"),
        }
    }

    /// Panics unless a flush ends as it should. Returns whether it is done.
    pub(crate) fn settled(
        &mut self,
        polled: Poll<Result<(), BlockError>>,
        socket: &Socket,
    ) -> bool {
        self.assert_front(socket);
        let error = match &polled {
            Poll::Ready(Err(error)) => Some(error),
            _ => None,
        };
        assert_failure(error, socket.write_failure());
        match polled {
            Poll::Pending => {
                met("a flush given up");
                false
            }
            Poll::Ready(Err(error)) => {
                assert!(matches!(error, BlockError::Io(_)), "{error:?}");
                false
            }
            Poll::Ready(Ok(())) => {
                self.assert_flushed(socket);
                true
            }
        }
    }

    /// Takes note of blocks that a transfer has taken. Returns why the last was refused, if it was.
    pub(crate) fn taken(&mut self, blocks: &[Bytes]) -> Option<String> {
        for (index, block) in blocks.iter().enumerate() {
            let refusal = self.refusal(block);
            if refusal.is_some() {
                assert_eq!(index + 1, blocks.len(), "blocks after one that was refused");
                return refusal;
            }
            self.push(block);
        }
        None
    }

    /// Panics unless `stats` are of the blocks that are wholly on the wire, but for those before,
    /// which are of so many bytes.
    pub(crate) fn assert_stats(
        &self,
        stats: &TransferStats,
        before: usize,
        held: usize,
        socket: &Socket,
    ) {
        let written = socket.written(<[u8]>::len);
        let whole = self.ends[before..].iter().filter(|end| **end <= written);
        let (blocks, ended) = whole.fold((0, held), |(blocks, _), end| (blocks + 1, *end));
        let counted = (stats.blocks, stats.wire_bytes);
        assert_eq!(counted, (blocks, (ended - held) as u64), "{stats:?}");
    }

    /// What is not on the wire is lost, but for what was sent before.
    pub(crate) fn lose(&mut self, before: usize, socket: &Socket) {
        let kept = socket.written(<[u8]>::len).max(before);
        self.bytes.truncate(kept);
        self.ends.retain(|end| *end <= kept);
    }
}

/// Panics unless an error is the socket's where that has failed.
pub(crate) fn assert_failure(error: Option<&BlockError>, failure: Option<io::ErrorKind>) {
    let kind = match error {
        Some(BlockError::Io(error)) => {
            met("a write that failed");
            Some(error.kind())
        }
        _ => None,
    };
    assert_eq!(kind, failure, "the socket's error");
}
