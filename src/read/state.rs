//! The states of the decoder.

use super::{decoder::Position, frame::FrameLen};
use crate::{
    error::{BlockError, BlockPart, HeaderBytes},
    framing::InvalidHeader,
};

/// The decoder's knowledge of the front of the read buffer.
///
/// | state | a whole block in front | a part of a block | a header that is not allowed |
/// |---|---|---|---|
/// | `Partial` | record the read; `Whole` | record the read; reserve; stay | record the read; `Failed` |
/// | `Draining` | `Whole` | reserve; `Partial` | `Failed` |
/// | `Whole` | take it; `Draining`. Or lend it; `Lending` | | `Failed`, if it reads otherwise now |
/// | `Lending` | lend it; stay | remove what was lent; as `Draining` | as `Draining` |
/// | `InParts` | drop the rest of its block; `Draining` | drop it; stay | as `Draining`, after the rest |
/// | `Failed` | the error again | the error again | the error again |
///
/// In `Draining` and `Lending`, a small block is taken or lent at once, without passing through `Whole`. A
/// block over the limit counts as a header that is not allowed.
///
/// `InParts` is not drawn. In it, the block at the front is taken as it arrives: by a reader, into the
/// caller's memory, or to drop it. The decoder enters it from any state in which it finds a header, and
/// leaves it for `Draining` after the block's last byte. A request for the next block drops the rest of
/// this one.
///
/// ```text
///                 the block is whole         the block is taken or lent
///  ┌─────────┐ ─────────────────────► ┌───────┐ ───────────► ┌──────────┐
///  │ Partial │                        │ Whole │              │ Draining │
///  └─────────┘ ◄──────────┐           └───────┘ ◄─────────── │ Lending  │
///     │   ▲  │            │                 a whole block    └──────────┘
///     └───┘  │            └──────────────────────────────────────┘   │
///    not yet │                     no whole block left               │
///            │                        ┌────────┐                     │
///            └──────────────────────► │ Failed │ ◄───────────────────┘
///         bad header, or the end      └────────┘   bad header
///         inside the block
/// ```
///
/// With another framing, `Failed` goes on as `Draining`, unless bytes of the block were dropped.
#[derive(Debug)]
pub(super) enum State {
    /// The decoder waits for a read. Before it, the buffer held `buffered` bytes of an unfinished block.
    Partial {
        buffered: usize,
        /// The block, once its header has arrived and was accepted. A limit that is lowered afterwards
        /// does not apply to it.
        frame: Option<FrameLen>,
    },
    /// Blocks of the last read are being taken. Small ones with an index below `until` are taken at once.
    /// At `until` the task's turn ends. It is 0 if the buffer may not be shared.
    Draining { until: u64 },
    /// As `Draining`, for blocks that are lent. The caller borrows the first `lent` bytes of the buffer until
    /// the buffer is used for anything else.
    Lending { lent: usize, until: u64 },
    /// The block at the front was accepted, and has arrived whole.
    Whole(FrameLen),
    /// The block at the front is taken part by part.
    InParts(InParts),
    /// There are no more blocks, because of `failure`. The first `buffered` bytes in the buffer had arrived
    /// before.
    Failed {
        failure: Failure,
        buffered: usize,
        /// True if bytes before or after those were dropped, so that no framing can go on.
        gap: bool,
    },
}

/// The progress of a block that is taken part by part.
#[derive(Clone, Copy, Debug)]
pub(super) struct InParts {
    pub(super) header_len: u64,
    /// Length of the payload.
    pub(super) len: u64,
    /// Bytes of the block on the wire that are no longer in the buffer.
    pub(super) taken: u64,
    /// Bytes in the buffer whose reads are recorded.
    pub(super) seen: usize,
    /// True if the block is over the limit and is skipped.
    pub(super) skipped: bool,
    /// True if more than one read has brought the block.
    pub(super) fragmented: bool,
}

impl InParts {
    /// Returns the length of header and payload.
    pub(super) fn wire_len(&self) -> u64 {
        self.header_len.saturating_add(self.len)
    }

    /// True unless the block has no header and nothing of it has arrived.
    pub(super) fn has_begun(&self) -> bool {
        self.taken > 0 || self.seen > 0
    }

    /// Returns how many bytes of the block on the wire have not been taken.
    pub(super) fn left(&self) -> u64 {
        let wire_len = u128::from(self.header_len) + u128::from(self.len);
        u64::try_from(wire_len - u128::from(self.taken)).unwrap_or(u64::MAX)
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Partial {
            buffered: 0,
            frame: None,
        }
    }
}

/// The reason why there are no more blocks: a [`BlockError`] without its position. `BlockError` itself is
/// not `Clone`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    Truncated {
        part: BlockPart,
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
    /// Returns the failure for a header at the front of `arrived` that the framing does not allow.
    pub(super) fn invalid(InvalidHeader(reason): InvalidHeader, arrived: &[u8]) -> Self {
        let header = HeaderBytes::new(arrived);
        Self::InvalidHeader { reason, header }
    }

    /// Returns the error for the block at this position.
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
