//! The codec's state of a block that is sent part by part.

use super::{BlockCodec, HeaderBuf, UnfinishedHeader};
use crate::{
    error::BlockError,
    framing::{Framing, Header, InvalidHeader, MAX_HEADER_LEN},
};

/// A block whose header has been queued, but not the whole payload. No other block can be sent
/// before the rest of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unfinished {
    /// Payload bytes of the block.
    pub(crate) len: u64,
    /// Payload bytes that have not come from the source.
    pub(crate) missing: u64,
    /// The last byte, once it has come. It is queued only when the source has ended, so that a source with
    /// too many bytes never completes a block.
    last: Option<u8>,
}

impl Unfinished {
    /// Records that the source gave `bytes` bytes, the last ones in `queued`.
    pub(crate) fn add(&mut self, bytes: usize, queued: &mut Vec<u8>) {
        self.missing -= bytes as u64;
        if self.missing == 0 {
            self.last = queued.pop();
        }
    }

    /// Returns how many payload bytes have been queued.
    fn queued(&self) -> u64 {
        self.len - self.missing - u64::from(self.last.is_some())
    }

    /// Returns the error for an attempt to send another block.
    fn error(&self, index: u64) -> BlockError {
        BlockError::Unfinished {
            queued: self.queued(),
            len: self.len,
            index,
        }
    }
}

impl<F: Framing, E> BlockCodec<F, E> {
    /// Begins a block of `len` payload bytes that come part by part, and appends its header to `dst`. No
    /// other block may be unfinished.
    pub(crate) fn begin_unfinished(
        &mut self,
        len: u64,
        dst: &mut impl HeaderBuf,
    ) -> Result<(), BlockError> {
        let (min, max) = self.framing().outgoing().block_lens().into_inner();
        if len < min || len > max {
            return Err(BlockError::WrongSize {
                min,
                max,
                limit: max,
                actual: len,
                index: self.encode.blocks,
            });
        }
        let start = dst.as_ref().len();
        let mut header = UnfinishedHeader { dst, start };
        self.framing().outgoing().encode_header(len, header.dst);
        let unfinished = Unfinished {
            len,
            missing: len,
            last: None,
        };
        self.check(&unfinished, &header.dst.as_ref()[start..])?;
        header.start = usize::MAX;
        self.set_unfinished(Some(unfinished));
        Ok(())
    }

    /// Reads the front of the unfinished block as the peer will, with any kept header. Returns false if it
    /// takes more of the block to tell.
    pub(crate) fn check_unfinished(&self, front: &[u8]) -> Result<bool, BlockError> {
        match &self.encode.unfinished {
            Some(unfinished) => self.check(unfinished, front),
            None => Ok(true),
        }
    }

    fn check(&self, unfinished: &Unfinished, front: &[u8]) -> Result<bool, BlockError> {
        if self.framing().outgoing().proven().encoded {
            return Ok(true);
        }
        let (len, queued) = (unfinished.len, unfinished.queued());
        let header_len = front.len() - queued as usize;
        let (announced, reason) = match self.framing().outgoing().decode_header(front) {
            Ok(Header::Complete {
                stripped,
                block_len,
            }) if stripped == header_len => (Some(block_len), None),
            Ok(Header::Incomplete { .. }) if queued < len && front.len() < MAX_HEADER_LEN => {
                return Ok(false);
            }
            Err(InvalidHeader(reason)) => (None, Some(reason)),
            Ok(_) => (None, None),
        };
        if announced == Some(len) {
            return Ok(true);
        }
        Err(BlockError::WrongHeader {
            announced,
            reason,
            actual: len,
            index: self.encode.blocks,
        })
    }

    /// Appends the last byte of the unfinished block to `dst`, because its source has ended.
    pub(crate) fn queue_last(&mut self, dst: &mut Vec<u8>) {
        if let Some(unfinished) = &mut self.encode.unfinished {
            dst.extend(unfinished.last.take());
        }
    }

    /// Completes the unfinished block in `dst`, because its source has ended.
    pub(crate) fn end_unfinished(&mut self, dst: &mut Vec<u8>) {
        self.queue_last(dst);
        self.encode.blocks += 1;
        self.set_unfinished(None);
    }

    /// Discards the unfinished block, of which nothing was sent. `bytes` is how much of it was counted.
    pub(crate) fn forget_unfinished(&mut self, bytes: u64) {
        self.encode.bytes -= bytes;
        self.set_unfinished(None);
    }
}

impl<F, E> BlockCodec<F, E> {
    pub(crate) fn unfinished(&self) -> Option<Unfinished> {
        self.encode.unfinished
    }

    pub(crate) fn unfinished_mut(&mut self) -> Option<&mut Unfinished> {
        self.encode.unfinished.as_mut()
    }

    /// Returns the error for sending another block, if one is unfinished.
    pub(crate) fn unfinished_error(&self) -> Option<BlockError> {
        let unfinished = self.encode.unfinished?;
        Some(unfinished.error(self.encode.blocks))
    }

    fn set_unfinished(&mut self, unfinished: Option<Unfinished>) {
        self.encode.unfinished = unfinished;
        self.update_encode_end();
    }
}
