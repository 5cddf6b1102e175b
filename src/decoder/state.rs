//! What the decoder is about to do.

use std::fmt;

use super::Position;
use crate::BlockError;

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
    /// There are no more blocks, for this reason. It cannot be kept as a [`BlockError`], which is
    /// not `Clone`.
    Failed(Box<dyn Fn(Position) -> BlockError + Send + Sync>),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AwaitingRead { buffered } => f
                .debug_struct("AwaitingRead")
                .field("buffered", buffered)
                .finish(),
            Self::Draining => f.write_str("Draining"),
            Self::Skipping {
                announced, skipped, ..
            } => f
                .debug_struct("Skipping")
                .field("announced", announced)
                .field("skipped", skipped)
                .finish_non_exhaustive(),
            Self::Failed(_) => f.write_str("Failed"),
        }
    }
}
