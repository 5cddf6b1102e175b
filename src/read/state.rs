//! The states of the decoder.

use super::{decoder::Position, frame::FrameLen};
use crate::{
    error::{BlockError, BlockPart, HeaderBytes},
    framing::InvalidHeader,
};

/// What is known of the front of the read buffer.
///
/// | state | a whole block in front | a part of a block | a header that is not allowed |
/// |---|---|---|---|
/// | `Partial` | record the read; `Whole` | record the read; reserve; stay | record the read; `Failed` |
/// | `Draining` | `Whole` | reserve; `Partial` | `Failed` |
/// | `Whole` | take it; `Draining`. Or lend it; `Lending` | | `Failed`, if it reads otherwise now |
/// | `Lending` | lend it; stay | remove what was lent; as `Draining` | as before |
/// | `InParts` | drop the rest of its block; `Draining` | drop it; stay | as before |
/// | `Failed` | the error again | the error again | the error again |
///
/// In `Draining` and `Lending`, a small block goes out at once, without `Whole` between. A block over
/// the limit is a header that is not allowed.
///
/// `InParts` is not drawn: the block at the front is taken as it comes, by a reader, into the caller's
/// memory, or by nobody. It is entered from any state in which a header is found, and left for `Draining`
/// after the block's last byte. Whoever asks for the next block has the rest of this one dropped.
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
    /// A read has been asked for. The buffer then held `buffered` bytes, all of an unfinished block.
    Partial {
        buffered: usize,
        /// The block, once its header has come and was accepted. A limit that is lowered afterwards
        /// does not refuse it.
        frame: Option<FrameLen>,
    },
    /// Blocks of the last read are being taken. Small ones with an index below `until` are taken at once.
    /// At `until` the task's turn ends. It is 0 if the buffer may not be shared.
    Draining { until: u64 },
    /// As `Draining`, and the blocks are borrowed: the first `lent` bytes in the buffer are those of
    /// blocks that were lent, and belong to the caller until the buffer is used otherwise.
    Lending { lent: usize, until: u64 },
    /// The block at the front was accepted, and is there.
    Whole(FrameLen),
    /// The block at the front is taken part by part.
    InParts(InParts),
    /// There are no more blocks, for this reason. The first `buffered` bytes in the buffer are those
    /// that had arrived.
    Failed {
        failure: Failure,
        buffered: usize,
        /// True if bytes were dropped, after those or before, so that no framing can go on.
        gap: bool,
    },
}

/// How much of a block that is taken part by part has been taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct InParts {
    pub(super) header_len: u64,
    /// Bytes of its payload.
    pub(super) len: u64,
    /// Bytes on the wire that are no longer in the buffer.
    pub(super) taken: u64,
    /// Bytes in the buffer, of which the read is recorded.
    pub(super) seen: usize,
    /// True if it is over the limit and taken for nobody.
    pub(super) skipped: bool,
    /// True if more than one read has brought it.
    pub(super) fragmented: bool,
}

impl InParts {
    /// Header and payload.
    pub(super) fn wire_len(&self) -> u64 {
        self.header_len.saturating_add(self.len)
    }

    /// False for a block without a header of which nothing has come.
    pub(super) fn has_begun(&self) -> bool {
        self.taken > 0 || self.seen > 0
    }

    /// Bytes on the wire that have not been taken.
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

/// Why there are no more blocks. A [`BlockError`] without its place; it is not `Clone` itself.
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
