//! Receiving by lending: each block is a slice of the read buffer, until the next is asked for.

mod batch;
mod next;

use std::{
    fmt, mem,
    ops::Range,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use tracing::{Span, debug, debug_span};

#[expect(unreachable_pub, reason = "the name is the transport's")]
pub use self::batch::Batch;
pub use self::next::Next;
use self::next::WaitForBlock;
use crate::{
    AsFramedRead, BlockCodec, BlockError, Framing, TransferStats,
    decoder::{Position, ReadStats},
    frame::FrameLen,
    framed::Arrival,
    stall::Timeouts,
};

/// Receives blocks without allocating or copying: each is lent until the next is asked for.
///
/// Works on any [`AsFramedRead`]: a [`BlockTransport`](crate::BlockTransport), or `Framed` or
/// `FramedRead` with a [`BlockCodec`]. What arrived
/// beyond the blocks taken stays with `framed`, so this can be mixed with `framed.next()` at will.
///
/// ```
/// # use wholeblock::{BlockCodec, BlockError, BlockTransport, recv_blocks};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BlockError> {
/// let wire = &b"\0\0\0\x05hello\0\0\0\x02me"[..]; // or a socket
/// let mut transport = BlockTransport::new(wire, BlockCodec::length_prefixed());
/// let mut text = String::new();
/// let mut blocks = recv_blocks(&mut transport);
/// while let Some(block) = blocks.next().await? {
///     text.push_str(&String::from_utf8_lossy(block)); // block: &[u8]
/// }
/// assert_eq!((text.as_str(), blocks.stats().blocks), ("hellome", 2));
/// # Ok(())
/// # }
/// ```
pub fn recv_blocks<R: AsFramedRead>(framed: &mut R) -> RecvBlocks<'_, R> {
    RecvBlocks {
        start: (
            framed.codec().decode.position(),
            framed.codec().decode.read_stats(),
        ),
        timeouts: framed.hand_over_timeouts(),
        framed,
        cursor: Cursor {
            pos: 0,
            blocks: 0,
            payload_bytes: 0,
            granted: 0,
            lend_until: 0,
            stop_after: u64::MAX,
            contradicted: false,
        },
        consumed_blocks: 0,
        at_least: 0,
        phase: Phase::Idle,
        span: debug_span!("recv_blocks"),
    }
}

/// Blocks lent one by one, or a batch at a time; made by [`recv_blocks`], which shows it.
///
/// # Cancel safety
///
/// The futures of [`next`](Self::next) and [`next_batch`](Self::next_batch), and this itself, can
/// be dropped at any time: a block that was not lent stays in `framed`, whole or in part, and is
/// the next one out of it.
#[must_use = "nothing is received until `next` is called"]
pub struct RecvBlocks<'a, R: AsFramedRead> {
    framed: &'a mut R,
    cursor: Cursor,
    /// Blocks lent that have left the buffer.
    consumed_blocks: u64,
    at_least: u64,
    timeouts: Timeouts,
    /// Where the codec stood when this was made.
    start: (Position, ReadStats),
    phase: Phase,
    span: Span,
}

/// Whether receiving has begun, and whether it is over.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// `next` was not called yet, or found what it lent in the buffer.
    Idle,
    Receiving {
        since: Instant,
    },
    /// The blocks that were asked for have been lent; there may be more.
    Stopped {
        took: Duration,
    },
    /// The end came, or an error that ends it.
    Ended {
        took: Duration,
    },
}

/// Why a wait ended without an answer.
enum Interrupted<E> {
    /// It lasted too long, and may go on.
    TimedOut(BlockError),
    Failed(E),
}

/// How far the buffer has been lent. Blocks are lent in place and leave the buffer together, before
/// the next read, so this is all that is kept for each.
#[derive(Debug)]
struct Cursor {
    /// Bytes at the front of the buffer that have been lent.
    pos: usize,
    /// Blocks lent so far.
    blocks: u64,
    /// Bytes of their payloads.
    payload_bytes: u64,
    /// Blocks that may be lent by a look at the buffer alone.
    granted: u64,
    /// Blocks that may be lent before the next charge: at most `granted`.
    lend_until: u64,
    /// Blocks to lend in all.
    stop_after: u64,
    /// True if the framing called a block whole, and then did not.
    contradicted: bool,
}

impl Cursor {
    /// The next block, if it is whole and may be lent.
    #[inline]
    fn peek<F: Framing, E>(&self, codec: &BlockCodec<F, E>, buffer: &[u8]) -> Option<FrameLen> {
        if self.blocks >= self.lend_until {
            return None;
        }
        codec.parser.parse(buffer.get(self.pos..)?).complete()
    }

    /// Lends the next block, if [`peek`](Self::peek) sees one: where its payload lies in `buffer`.
    #[inline]
    fn lend<F: Framing, E>(
        &mut self,
        codec: &BlockCodec<F, E>,
        buffer: &[u8],
    ) -> Option<Range<usize>> {
        let frame = self.peek(codec, buffer)?;
        Some(self.lend_frame(frame))
    }

    #[inline]
    fn lend_frame(&mut self, frame: FrameLen) -> Range<usize> {
        let payload = frame.payload_at(self.pos);
        self.pos = payload.end;
        self.blocks += 1;
        self.payload_bytes += frame.payload_len() as u64; // the range would work it out anew
        payload
    }
}

impl<'a, R: AsFramedRead> RecvBlocks<'a, R> {
    /// Stops after `blocks` blocks in all and reads nothing after them: what has arrived beyond
    /// stays in `framed` for whoever reads next, or for this receiver, if the number is raised.
    ///
    /// ```
    /// # use futures::{StreamExt, stream};
    /// # use wholeblock::{BlockCodec, BlockTransport, recv_blocks, send_blocks};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (near, far) = tokio::io::duplex(1024);
    /// # let mut near = BlockTransport::new(near, BlockCodec::length_prefixed());
    /// # let mut transport = BlockTransport::new(far, BlockCodec::length_prefixed());
    /// # send_blocks(&mut near, stream::iter(["one", "two", "three"])).await?;
    /// // "one", "two" and "three" have arrived
    /// let mut two = recv_blocks(&mut transport).stop_after(2);
    /// while let Some(block) = two.next().await? {
    ///     assert_eq!(block.len(), 3);
    /// }
    /// assert_eq!(two.stats().blocks, 2);
    /// drop(two);
    /// assert_eq!(transport.next().await.expect("the third")?, "three");
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop_after(mut self, blocks: u64) -> Self {
        self.cursor.stop_after = blocks;
        // Blocks that were to be lent under the former number are asked for again.
        self.cursor.granted = self.cursor.blocks;
        self.cursor.lend_until = self.cursor.blocks;
        self
    }

    /// Requires `blocks` blocks: a stream that ends before, even between blocks, is
    /// [`BlockError::TooFew`].
    ///
    /// Says nothing of a receiver that stops before, by [`stop_after`](Self::stop_after): the stream
    /// has not ended there.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport, recv_blocks};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), wholeblock::ConfigError> {
    /// let mut transport = BlockTransport::new(&b"onetwo"[..], BlockCodec::exact(3)?);
    /// let mut blocks = recv_blocks(&mut transport).at_least(3);
    /// assert!(matches!(blocks.next().await, Ok(Some(b"one"))));
    /// assert!(matches!(blocks.next().await, Ok(Some(b"two"))));
    /// let error = blocks.next().await.unwrap_err();
    /// assert_eq!(error.to_string(), "stream ended after 2 of 3 blocks");
    /// # Ok(())
    /// # }
    /// ```
    pub fn at_least(mut self, blocks: u64) -> Self {
        self.at_least = blocks;
        self
    }

    /// Returns [`BlockError::Stalled`] if no bytes arrive for `timeout`. The receiver remains
    /// usable: call `next` again to keep waiting.
    ///
    /// A wait begins at the first poll of a future of `next` or `next_batch`, and ends when bytes
    /// arrive or the future is dropped. Time in which the future is kept and not polled counts.
    /// Everything that has arrived is read before the error is returned.
    ///
    /// Waits that were dropped before any bytes arrived add up, and so does the time between them:
    /// each gap up to half the timeout or a second, whichever is less. So a `select!` loop that makes
    /// a new `next()` each turn stalls as one long wait does, and a longer pause between two waits
    /// does not use up the timeout.
    ///
    /// On a thread that is busy with other tasks, the error comes late, as that of
    /// `tokio::time::timeout` does. A timeout that is set again also applies to a wait that has
    /// begun.
    ///
    /// By default the timeout is that of the [`BlockTransport`](crate::BlockTransport), if it has one,
    /// and otherwise a silent peer is waited for without limit. A peer that sends a byte now and then is
    /// not silent. Set a [`block_deadline`](Self::block_deadline) against that.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tokio::io::AsyncWriteExt;
    /// # use wholeblock::{BlockCodec, BlockTransport, recv_blocks};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> std::io::Result<()> {
    /// # let (mut peer, far) = tokio::io::duplex(64);
    /// # let mut transport = BlockTransport::new(far, BlockCodec::length_prefixed());
    /// let mut blocks = recv_blocks(&mut transport)
    ///     .stall_timeout(Duration::from_secs(60)) // silent, between blocks or inside of one
    ///     .block_deadline(Duration::from_secs(10)); // begun, and not whole
    ///
    /// let stalled = blocks.next().await.unwrap_err();
    /// assert_eq!(stalled.to_string(), "nothing moved for 60s at block 0, which begins at byte 0");
    /// peer.write_all(b"\0\0\0\x05hell").await?; // and no more
    /// let late = blocks.next().await.unwrap_err();
    /// assert_eq!(
    ///     late.to_string(),
    ///     "block 0, which begins at byte 0, took longer than 10s",
    /// );
    /// peer.write_all(b"o").await?;
    /// assert_eq!(blocks.next().await?, Some(&b"hello"[..])); // it has gone on
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Waiting panics outside a tokio runtime with its time driver on.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.set_stall(timeout);
        self
    }

    /// Returns [`BlockError::Late`] if a block is not whole within `deadline` of its first bytes,
    /// however steadily the others arrive. The receiver remains usable: call `next` again to give
    /// the block as long once more.
    ///
    /// The time begins when a read leaves a part of a block and no more, and goes on whether or not
    /// anybody waits. The deadline is looked at after each read that leaves the block unfinished, and
    /// while a read must wait. A block that is whole after a read is lent, however late. Nothing
    /// limits the time between two blocks: [`stall_timeout`](Self::stall_timeout) does. By default the
    /// deadline is that of the [`BlockTransport`](crate::BlockTransport).
    ///
    /// A `Framed` or `FramedRead` looks at nothing between its reads, so there the deadline is looked
    /// at only when a read must wait, or when the task's budget is spent: after 128 reads of a
    /// socket. A transport that spends no budget and always has bytes ready is never late there. A
    /// [`BlockTransport`](crate::BlockTransport) has no such gap.
    ///
    /// # Panics
    ///
    /// As [`stall_timeout`](Self::stall_timeout), whose example shows both.
    pub fn block_deadline(mut self, deadline: Duration) -> Self {
        self.timeouts.set_block(deadline);
        self
    }

    /// Lends the next block; `None` at a clean end, or after [`stop_after`](Self::stop_after)
    /// blocks.
    ///
    /// # Errors
    ///
    /// Every [`BlockError`] that a receiver meets. After one about the stream itself, there are no
    /// more blocks.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    #[expect(
        clippy::should_implement_trait,
        reason = "a block is lent, which an `Iterator` cannot do"
    )]
    #[inline]
    pub fn next(&mut self) -> Next<'_, 'a, R> {
        Next {
            receiver: Some(self),
        }
    }

    /// Lends all the blocks that have arrived whole, waiting for one if there is none; `None` as
    /// [`next`](Self::next).
    ///
    /// The quickest way through many small blocks: one wait for each read, and a plain iterator
    /// between. A block that the iterator was not asked for stays for the next call.
    ///
    /// ```
    /// # use wholeblock::{BlockCodec, BlockError, BlockTransport, recv_blocks};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BlockError> {
    /// # let wire = &b"\0\0\0\x05hello\0\0\0\x02me"[..];
    /// # let mut transport = BlockTransport::new(wire, BlockCodec::length_prefixed());
    /// // "hello" and "me" arrive in one read
    /// let (mut batches, mut bytes) = (0, 0);
    /// let mut blocks = recv_blocks(&mut transport);
    /// while let Some(batch) = blocks.next_batch().await? {
    ///     batches += 1;
    ///     bytes += batch.map(<[u8]>::len).sum::<usize>();
    /// }
    /// assert_eq!((batches, bytes), (1, 7));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next). Blocks that arrived before a bad header are lent first.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn next_batch(&mut self) -> Result<Option<Batch<'_, R::Framing>>, R::Error> {
        let (codec, buffer) = (self.framed.codec(), self.framed.read_buffer());
        if self.cursor.contradicted || self.cursor.peek(codec, buffer).is_none() {
            match WaitForBlock(self).await? {
                Arrival::Block => {}
                Arrival::End => return Ok(None),
            }
        }
        let mut parser = self.framed.codec().parser.clone();
        if let Some(frame) = self.over_limit() {
            parser.set_max(frame.payload_len());
        }
        let buffer = self.framed.read_buffer();
        Ok(Some(Batch {
            parser,
            unread: buffer.get(self.cursor.pos..).unwrap_or_default(),
            remaining: self.cursor.granted - self.cursor.blocks,
            payload_bytes: 0,
            buffer_len: buffer.len(),
            cursor: &mut self.cursor,
        }))
    }

    /// What has been received so far.
    #[must_use]
    pub fn stats(&self) -> TransferStats {
        let (position, reads) = (
            self.framed.codec().decode.position(),
            self.framed.codec().decode.read_stats(),
        );
        let (first_position, first_reads) = self.start;
        TransferStats {
            blocks: self.cursor.blocks,
            payload_bytes: self.cursor.payload_bytes,
            wire_bytes: position.offset - first_position.offset + self.cursor.pos as u64,
            reads: reads.reads - first_reads.reads,
            fragmented_blocks: reads.fragmented_blocks - first_reads.fragmented_blocks,
            skipped_blocks: reads.skipped_blocks - first_reads.skipped_blocks,
            elapsed: self.elapsed(),
            ..TransferStats::default()
        }
    }

    fn elapsed(&self) -> Duration {
        match self.phase {
            Phase::Idle => Duration::ZERO,
            Phase::Receiving { since } => since.elapsed(),
            Phase::Stopped { took } | Phase::Ended { took } => took,
        }
    }

    #[inline]
    fn lend(&mut self) -> Option<Range<usize>> {
        self.cursor
            .lend(self.framed.codec(), self.framed.read_buffer())
    }

    /// Waits for a block, and lends it; none if no other will come.
    #[inline(never)]
    fn poll_lend(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Range<usize>>, R::Error>> {
        if ready!(self.poll_block(cx))? == Arrival::End {
            return Poll::Ready(Ok(None));
        }
        let block = match self.accepted() {
            Some(frame) => Some(self.cursor.lend_frame(frame)),
            None => self.lend(),
        };
        Poll::Ready(Ok(block))
    }

    /// The block at the front that the decoder has accepted, unless it was lent.
    fn accepted(&self) -> Option<FrameLen> {
        let accepted = self.framed.codec().decode.accepted();
        accepted.filter(|_| self.cursor.pos == 0)
    }

    /// The same, if it is over the limit, which was lowered since.
    fn over_limit(&self) -> Option<FrameLen> {
        let max = self.framed.codec().parser.max();
        self.accepted().filter(|frame| frame.payload_len() > max)
    }

    /// Waits until there is a whole block to lend, or none will come.
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arrival, R::Error>> {
        if let Phase::Ended { .. } = self.phase {
            return Poll::Ready(Ok(Arrival::End));
        }
        let _entered = self.span.clone().entered();
        if self.cursor.blocks >= self.cursor.stop_after {
            self.stop();
            return Poll::Ready(Ok(Arrival::End));
        }
        self.start();
        if self.cursor.contradicted {
            return Poll::Ready(Err(self.contradicted()));
        }
        let lent = self.cursor.blocks - self.consumed_blocks;
        ready!(self.framed.codec_mut().decode.poll_charge(cx, lent));
        self.renew();
        let (codec, buffer) = (self.framed.codec(), self.framed.read_buffer());
        if self.cursor.peek(codec, buffer).is_some() {
            return Poll::Ready(Ok(Arrival::Block));
        }
        match ready!(self.poll_arrival(cx)) {
            Ok(Arrival::Block) => {
                self.lend_more();
                Poll::Ready(Ok(Arrival::Block))
            }
            Ok(Arrival::End) => Poll::Ready(self.end()),
            Err(Interrupted::TimedOut(error)) => Poll::Ready(Err(error.into())),
            Err(Interrupted::Failed(error)) => {
                self.finish(Some(&error));
                Poll::Ready(Err(error))
            }
        }
    }

    /// Ends receiving, because the framing called the block at the front whole, and then did not.
    #[cold]
    fn contradicted(&mut self) -> R::Error {
        self.consume_lent();
        let buffer = mem::take(self.framed.read_buffer_mut());
        let error = self.framed.codec_mut().decode.fail_contradicted(&buffer);
        *self.framed.read_buffer_mut() = buffer;
        let error = error.into();
        self.finish(Some(&error));
        error
    }

    /// Receives from now on, if it does not yet, or has stopped.
    fn start(&mut self) {
        let took = match self.phase {
            Phase::Idle => Duration::ZERO,
            Phase::Stopped { took } => took,
            Phase::Receiving { .. } | Phase::Ended { .. } => return,
        };
        let now = Instant::now();
        let since = now.checked_sub(took).unwrap_or(now);
        self.phase = Phase::Receiving { since };
        debug!("receiving");
    }

    /// Stops receiving until more blocks are asked for.
    fn stop(&mut self) {
        if let Phase::Idle | Phase::Receiving { .. } = self.phase {
            self.finish(None);
            let took = self.elapsed();
            self.phase = Phase::Stopped { took };
        }
    }

    /// Allows blocks to be lent by a look at the buffer alone: all that are under the limit that
    /// the block at the front is under.
    fn lend_more(&mut self) {
        self.cursor.granted = match self.over_limit() {
            Some(_) => self.cursor.blocks + 1,
            None => self.cursor.stop_after,
        };
        self.renew();
    }

    /// Allows as many of the blocks as may be lent before the next charge: one at least, because
    /// skipped blocks can have used up the turn before it.
    fn renew(&mut self) {
        let lent = self.cursor.blocks - self.consumed_blocks;
        let more = self.framed.codec().decode.until_charge(lent).max(1);
        self.cursor.lend_until = self.cursor.granted.min(self.cursor.blocks + more);
    }

    /// Waits until a whole block can be lent, or the stream has ended.
    fn poll_arrival(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Arrival, Interrupted<R::Error>>> {
        self.consume_lent();
        let reads = self.framed.codec().decode.read_stats().reads;
        let polled = self.framed.poll_peek(cx, &mut self.timeouts);
        if let Poll::Ready(arrived) = polled {
            self.timeouts.reset();
            return Poll::Ready(arrived.map_err(Interrupted::Failed));
        }
        let decoder = &self.framed.codec().decode;
        let partial = decoder.partial(self.framed.read_buffer());
        let moved = decoder.read_stats().reads > reads;
        let expired = ready!(self.timeouts.poll_expired(cx, partial, moved));
        self.timeouts.pause(); // this wait is over, and a block that is late is no end of silence
        let Position { index, offset } = decoder.position();
        Poll::Ready(Err(Interrupted::TimedOut(expired.at(index, offset))))
    }

    /// Ends receiving: with an error if blocks are missing.
    fn end(&mut self) -> Result<Arrival, R::Error> {
        if self.cursor.blocks < self.at_least {
            let error = R::Error::from(BlockError::TooFew {
                expected: self.at_least,
                received: self.cursor.blocks,
            });
            self.finish(Some(&error));
            return Err(error);
        }
        self.finish(None);
        Ok(Arrival::End)
    }

    /// Removes the blocks that were lent from the buffer, before the next read.
    fn consume_lent(&mut self) {
        let lent = self.record_consumed();
        let max_capacity = self.framed.codec().decode.max_capacity();
        let buffer = self.framed.read_buffer_mut();
        let unread = buffer.len() - lent;
        if lent > 0 && buffer.capacity() > max_capacity {
            *buffer = BytesMut::from(&buffer[lent..]);
        } else if lent > 0 {
            // Normally less than one block is unread. A block that begins at the buffer's start
            // never needs to be moved again, however long it is.
            buffer.copy_within(lent.., 0);
            buffer.truncate(unread);
        }
    }

    /// Tells the codec which blocks were lent since it was last told, and returns their wire bytes.
    fn record_consumed(&mut self) -> usize {
        let lent = mem::take(&mut self.cursor.pos);
        let blocks = self.cursor.blocks - self.consumed_blocks;
        self.consumed_blocks = self.cursor.blocks;
        self.framed.codec_mut().decode.record_taken(blocks, lent);
        lent
    }

    fn finish(&mut self, error: Option<&R::Error>) {
        if let Phase::Receiving { since } = self.phase {
            let took = since.elapsed();
            self.phase = Phase::Ended { took };
            let stats = self.stats();
            match error {
                None => debug!(%stats, "received"),
                Some(error) => debug!(%stats, %error, "receiving failed"),
            }
        }
    }
}

impl<R: AsFramedRead> Drop for RecvBlocks<'_, R> {
    fn drop(&mut self) {
        let _entered = self.span.clone().entered();
        self.finish(None);
        self.framed.take_back_timeouts(&self.timeouts);
        let lent = self.record_consumed();
        let max_capacity = self.framed.codec().decode.max_capacity();
        let buffer = self.framed.read_buffer_mut();
        let oversized = buffer.capacity() > max_capacity;
        // Whole blocks may follow, any number of them, so they are not moved.
        buffer.advance(lent);
        if lent > 0 && oversized {
            *buffer = BytesMut::from(&buffer[..]);
        }
    }
}

impl<R: AsFramedRead> fmt::Debug for RecvBlocks<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBlocks")
            .field("stats", &self.stats())
            .field("stop_after", &self.cursor.stop_after)
            .field("at_least", &self.at_least)
            .finish_non_exhaustive()
    }
}
