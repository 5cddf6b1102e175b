//! The lengths of the queued blocks. They tell a transfer how many blocks a write has completed.

use std::collections::VecDeque;

/// The most runs of equal lengths to queue at once. Bounds the bookkeeping for tiny blocks.
const MAX_RUNS: usize = 1024;

/// The lengths of the queued blocks, as runs of equal lengths. Most often all are equal, and this is two
/// lengths and a count.
///
/// Invariant: only `last` may be empty, and `written_of_first` is less than the wire length of the
/// first block, or 0 if there is none.
#[derive(Debug, Default)]
pub(crate) struct BlockLengths {
    earlier: VecDeque<Run>,
    last: Run,
    /// Bytes of the first block that have been written.
    written_of_first: usize,
}

/// Lengths of one block, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockLen {
    pub(crate) payload: usize,
    /// Header and payload.
    pub(crate) wire: usize,
}

/// Whole blocks that writes have completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) blocks: u64,
    /// Bytes of their payloads.
    pub(crate) payload_bytes: u64,
    /// Bytes of their headers and payloads.
    pub(crate) wire_bytes: u64,
}

/// Consecutive blocks of one length.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    blocks: u64,
    len: BlockLen,
}

impl BlockLengths {
    pub(crate) fn is_full(&self) -> bool {
        self.earlier.len() >= MAX_RUNS
    }

    #[inline]
    pub(crate) fn push(&mut self, len: BlockLen) {
        if self.last.len == len {
            self.last.blocks += 1;
            return;
        }
        if self.last.blocks > 0 {
            self.earlier.push_back(self.last);
        }
        self.last = Run { blocks: 1, len };
    }

    /// Removes the blocks that `bytes` further bytes complete, and returns them.
    pub(crate) fn complete(&mut self, bytes: usize) -> Written {
        let mut bytes = self.written_of_first + bytes;
        let mut completed = Written::default();
        while let Some(run) = self.earlier.front_mut() {
            bytes -= run.complete(bytes, &mut completed);
            if run.blocks > 0 {
                break;
            }
            self.earlier.pop_front();
        }
        if self.earlier.is_empty() {
            bytes -= self.last.complete(bytes, &mut completed);
        }
        self.written_of_first = bytes;
        completed
    }
}

impl Run {
    /// Moves the blocks that `bytes` complete from here to `completed`, and returns their bytes.
    fn complete(&mut self, bytes: usize, completed: &mut Written) -> usize {
        // Blocks of no bytes are complete as soon as their turn comes.
        let whole = bytes.checked_div(self.len.wire).unwrap_or(usize::MAX);
        let whole = self.blocks.min(whole as u64);
        let wire_bytes = whole as usize * self.len.wire;
        self.blocks -= whole;
        completed.blocks += whole;
        completed.payload_bytes += whole * self.len.payload as u64;
        completed.wire_bytes += wire_bytes as u64;
        wire_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of `payload` bytes behind a header of 4.
    fn block(payload: usize) -> BlockLen {
        let wire = payload + 4;
        BlockLen { payload, wire }
    }

    /// Blocks of 10 + 4, 10 + 4 and 3 + 4 bytes.
    fn three() -> BlockLengths {
        let mut lengths = BlockLengths::default();
        for len in [10, 10, 3] {
            lengths.push(block(len));
        }
        lengths
    }

    fn written(blocks: u64, payload_bytes: u64) -> Written {
        Written {
            blocks,
            payload_bytes,
            wire_bytes: payload_bytes + 4 * blocks,
        }
    }

    #[test]
    fn a_block_counts_when_its_last_byte_is_written() {
        for (bytes, expected) in [
            (13, written(0, 0)),
            (14, written(1, 10)),
            (27, written(1, 10)),
            (28, written(2, 20)),
            (34, written(2, 20)),
            (35, written(3, 23)),
        ] {
            assert_eq!(three().complete(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn bytes_of_an_unfinished_block_count_towards_it() {
        let mut lengths = three();
        let mut blocks = 0;
        for _ in 0..35 {
            blocks += lengths.complete(1).blocks;
        }
        assert_eq!(blocks, 3);
        assert_eq!(lengths.written_of_first, 0);
    }

    #[test]
    fn blocks_of_one_length_are_one_run() {
        let mut lengths = three();
        assert_eq!(lengths.earlier.len(), 1);
        for len in 0..MAX_RUNS - 1 {
            assert!(!lengths.is_full());
            lengths.push(block(len));
        }
        assert!(lengths.is_full());
    }
}
