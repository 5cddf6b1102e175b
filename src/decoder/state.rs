//! What the decoder is about to do.

use super::Position;
use crate::{BlockError, HeaderBytes, InvalidHeader, Part};

/// What is about to happen.
///
/// | state | a whole block in front | a part of a block | a header that is not allowed |
/// |---|---|---|---|
/// | `AwaitingRead` | record the read; go on as `Draining` | record the read; reserve; stay | record the read; `Failed` |
/// | `Draining` | take it; stay | reserve; `AwaitingRead` | `Failed` |
/// | `Failed` | the error again | the error again | the error again |
///
/// A block over the limit is a header that is not allowed, or else is skipped: in `Skipping`, its
/// bytes are dropped as they come, and after the last one it goes on as `Draining`.
///
/// ```text
///                  a block is whole
///  ┌──────────────┐ ─────────────────► ┌──────────┐ ◄─┐
///  │ AwaitingRead │                    │ Draining │   │ a block is taken
///  └──────────────┘ ◄───────────────── └──────────┘ ──┘
///    │  ▲   │       no whole block left      │
///    └──┘   │                                │ bad header
///  not yet  │   ┌────────┐ ◄─────────────────┘
///           └──►│ Failed │
///               └────────┘
///       bad header, or the end inside a block
/// ```
///
/// While peeking, "take it" becomes "answer with an empty buffer, and leave the block".
///
/// With another framing, `Failed` goes on as `Draining`, unless bytes were dropped since.
#[derive(Debug)]
pub(super) enum State {
    /// A read has been asked for; the buffer then held `buffered` bytes, all of an unfinished
    /// block.
    AwaitingRead { buffered: usize },
    /// Blocks of the last read are being taken.
    Draining,
    /// A block over the limit is not kept; `skipped` of its bytes on the wire have come.
    Skipping {
        header_len: u64,
        announced: u64,
        skipped: u64,
    },
    /// There are no more blocks, for this reason. The first `buffered` bytes in the buffer are those
    /// that had arrived.
    Failed {
        failure: Failure,
        buffered: usize,
        /// True if bytes after those were dropped, so that no framing can go on.
        gap: bool,
    },
}

/// Why there are no more blocks. A [`BlockError`] without its place; it is not `Clone` itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    Truncated {
        part: Part,
        expected: u64,
        received: u64,
    },
    TooLarge {
        announced: u64,
        limit: u64,
        header: HeaderBytes,
    },
    InvalidHeader {
        reason: &'static str,
        header: HeaderBytes,
    },
}

impl Failure {
    /// A header at the front of `arrived` that the framing does not allow.
    pub(super) fn invalid(InvalidHeader(reason): InvalidHeader, arrived: &[u8]) -> Self {
        let header = HeaderBytes::new(arrived);
        Self::InvalidHeader { reason, header }
    }

    /// The error, in the block at this position.
    pub(super) fn at(self, Position { index, offset }: Position) -> BlockError {
        match self {
            Self::Truncated {
                part,
                expected,
                received,
            } => BlockError::Truncated {
                part,
                expected,
                received,
                index,
                offset,
            },
            Self::TooLarge {
                announced,
                limit,
                header,
            } => BlockError::TooLarge {
                announced,
                limit,
                header,
                index,
                offset,
            },
            Self::InvalidHeader { reason, header } => BlockError::InvalidHeader {
                reason,
                header,
                index,
                offset,
            },
        }
    }
}
