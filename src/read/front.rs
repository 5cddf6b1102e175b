//! The front of the buffer: the transitions between the decoder's [states](State).

use std::mem;

use bytes::{Buf, BytesMut};
use tracing::{debug, trace};

use super::{
    decoder::{DecodeState, Position},
    frame::{FrameLen, Parsed},
    growth::{BATCH, Front},
    state::{Failure, InParts, State},
};
use crate::error::{BlockError, HeaderBytes};

/// A parser of the block at the front of its argument. Not generic, so that the code here is compiled once
/// and not for each framing.
pub(super) type Parse<'p> = &'p dyn Fn(&[u8]) -> Parsed;

impl DecodeState {
    /// Decodes a block if the fast path does not apply.
    ///
    /// Not inlined, so that the fast path moves a block in one place only. The compiler would merge two such
    /// places through memory. A load there stalls if the bytes were stored just before in other widths
    /// (store forwarding).
    #[cold]
    pub(super) fn decode_slow(
        &mut self,
        parse: Parse<'_>,
        src: &mut BytesMut,
    ) -> Result<Option<BytesMut>, BlockError> {
        self.meter.charge(self.position.index);
        self.update_until();
        let Some(frame) = self.front(parse, src)? else {
            return Ok(None);
        };
        Ok(Some(self.take_accepted(frame, src)))
    }

    /// Takes the block at the front, which was accepted.
    pub(crate) fn take_accepted(&mut self, frame: FrameLen, src: &mut BytesMut) -> BytesMut {
        let block = if frame.wire_len > self.read_buf.max_capacity() {
            self.take_detached(frame, src)
        } else if self.read_buf.is_large() && frame.wire_len <= BATCH {
            self.take_copied(frame, src)
        } else {
            self.take(frame, src)
        };
        self.drain();
        block
    }

    /// Accepts the block at the front, if it is whole; otherwise reserves capacity for the rest of it.
    #[inline]
    pub(super) fn front(
        &mut self,
        parse: Parse<'_>,
        src: &mut BytesMut,
    ) -> Result<Option<FrameLen>, BlockError> {
        match self.awaits_read(src) {
            true => Ok(None),
            false => self.front_anew(parse, src),
        }
    }

    /// True if nothing has arrived since the front was last looked at, and there is room for the next read.
    /// So a header is parsed only once for each read.
    #[inline]
    fn awaits_read(&self, src: &BytesMut) -> bool {
        let State::Partial { buffered, .. } = self.state else {
            return false;
        };
        // A large buffer that has become empty may have to be replaced.
        let reserved = !src.is_empty() || !self.read_buf.is_large();
        buffered == src.len() && reserved && buffered < src.capacity()
    }

    #[cold]
    fn front_anew(
        &mut self,
        parse: Parse<'_>,
        src: &mut BytesMut,
    ) -> Result<Option<FrameLen>, BlockError> {
        match self.look(parse, src)? {
            Some(parsed) => self.settle(parse, parsed, src),
            None => Ok(None),
        }
    }

    /// Records what has arrived, and parses the block at the front. None while the rest of a dropped block
    /// is still to come.
    #[inline(always)]
    pub(super) fn look(
        &mut self,
        parse: Parse<'_>,
        src: &mut BytesMut,
    ) -> Result<Option<Parsed>, BlockError> {
        Ok(match &mut self.state {
            State::Failed {
                failure,
                buffered,
                gap,
            } => {
                // A `Framed` that is polled on reads on. What it reads must not fill the memory.
                *gap |= src.len() > *buffered;
                src.truncate(*buffered);
                return Err(failure.at(self.position));
            }
            State::Whole(frame) if frame.wire_len <= src.len() => Some(Parsed::Complete(*frame)),
            State::Partial {
                buffered,
                frame: Some(frame),
            } if *buffered <= src.len() && !src.is_empty() => {
                let (buffered, frame) = (*buffered, *frame);
                let parsed = match frame.wire_len <= src.len() {
                    true => Parsed::Complete(frame),
                    false => Parsed::PartialPayload(frame),
                };
                self.record_read(buffered, parsed, src);
                Some(parsed)
            }
            _ => return self.parse_undropped(parse, src),
        })
    }

    /// Enters the state for `parsed`, which is at the front. Returns the block if it is whole; otherwise
    /// reserves capacity for the rest of it.
    #[inline(always)]
    pub(super) fn settle(
        &mut self,
        parse: Parse<'_>,
        parsed: Parsed,
        src: &mut BytesMut,
    ) -> Result<Option<FrameLen>, BlockError> {
        let frame = match parsed {
            Parsed::Complete(frame) => {
                self.state = State::Whole(frame);
                return Ok(Some(frame));
            }
            Parsed::PartialPayload(frame) => {
                self.read_buf.reserve(src, Front::Known(frame.wire_len));
                Some(frame)
            }
            Parsed::PartialHeader { .. } | Parsed::Long { .. } => {
                self.read_buf.reserve(src, Front::Unknown);
                None
            }
            Parsed::TooLarge {
                header_len,
                announced,
                limit,
            } => {
                let failure = Failure::TooLarge {
                    announced,
                    limit,
                    header: header_bytes(parse, header_len, src),
                };
                return Err(self.fail(failure, src.len()));
            }
            Parsed::Invalid(invalid) => {
                return Err(self.fail(Failure::invalid(invalid, src), src.len()));
            }
        };
        let buffered = src.len();
        self.state = State::Partial { buffered, frame };
        Ok(None)
    }

    /// Takes a large block out of `src` together with the allocation, which `src` would otherwise
    /// share and keep alive.
    fn take_detached(&mut self, frame: FrameLen, src: &mut BytesMut) -> BytesMut {
        let rest = BytesMut::from(&src[frame.wire_len..]);
        let block = self.take(frame, src);
        *src = rest;
        block
    }

    /// Takes a copy of a small block out of an allocation that is larger than a batch, so that the block
    /// does not keep the allocation alive.
    fn take_copied(&mut self, frame: FrameLen, src: &mut BytesMut) -> BytesMut {
        let block = BytesMut::from(&src[frame.payload_at(0)]);
        self.advance(1, frame.wire_len);
        src.advance(frame.wire_len);
        block
    }

    /// Drops the blocks to be dropped, and parses the block behind them. None while the end of a dropped
    /// block is still to come.
    #[inline]
    fn parse_undropped(
        &mut self,
        parse: Parse<'_>,
        src: &mut BytesMut,
    ) -> Result<Option<Parsed>, BlockError> {
        let mut told = false;
        loop {
            if self.drop_parts(src).is_none() {
                return Ok(None);
            }
            let parsed = parse(src);
            if let State::Partial { buffered, .. } = self.state {
                self.record_read(buffered, parsed, src);
            }
            match parsed {
                Parsed::TooLarge {
                    header_len,
                    announced,
                    limit,
                } if self.skip_too_large => {
                    let Position { index, offset } = self.position;
                    if !mem::replace(&mut told, true) {
                        // Only once for each read, because the peer decides how many blocks are skipped.
                        debug!(
                            index,
                            offset, announced, limit, "skipping blocks over the limit from here"
                        );
                    }
                    self.state = State::InParts(InParts {
                        header_len: header_len as u64,
                        len: announced,
                        taken: 0,
                        seen: src.len(),
                        skipped: true,
                        fragmented: false,
                    });
                    if self.report_skipped {
                        return Err(BlockError::Skipped {
                            announced,
                            limit,
                            header: header_bytes(parse, header_len, src),
                            index,
                            offset,
                        });
                    }
                }
                _ => return Ok(Some(parsed)),
            }
        }
    }

    /// Records a read of `bytes` bytes, if there are any.
    #[inline]
    pub(super) fn count_read(&mut self, bytes: usize, src: &BytesMut) {
        if bytes > 0 {
            trace!(bytes, "read");
            self.stats.reads += 1;
            self.read_buf.record_read(src);
        }
    }

    /// Records a read, and the block that it completed.
    #[inline]
    fn record_read(&mut self, buffered: usize, parsed: Parsed, src: &BytesMut) {
        self.count_read(src.len().saturating_sub(buffered), src);
        if let Some(frame) = parsed.complete() {
            self.stats.fragmented_blocks += u64::from(buffered > 0);
            self.read_buf.record_block(frame.wire_len);
        }
        self.drain();
    }

    /// Ends the stream of blocks. The first `buffered` bytes of the buffer stay there.
    #[cold]
    pub(super) fn fail(&mut self, failure: Failure, buffered: usize) -> BlockError {
        self.state = State::Failed {
            failure,
            buffered,
            gap: matches!(self.state, State::InParts(_)),
        };
        failure.at(self.position)
    }
}

/// Returns the first bytes of the header at the front, and nothing of the payload: the bytes that are
/// stripped, and those that decide the length.
#[cold]
fn header_bytes(parse: Parse<'_>, header_len: usize, front: &[u8]) -> HeaderBytes {
    let most = front.len().min(HeaderBytes::MAX);
    let decides = |len: &usize| !matches!(parse(&front[..*len]), Parsed::PartialHeader { .. });
    let decisive = (0..most).find(decides).unwrap_or(most);
    HeaderBytes::new(&front[..decisive.max(header_len).min(most)])
}
