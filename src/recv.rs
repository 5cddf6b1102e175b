use std::{
    fmt,
    future::poll_fn,
    mem,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use futures::Stream;
use tokio::io::AsyncRead;
use tokio_util::codec::{Framed, FramedRead};
use tracing::{Span, debug, debug_span};

use crate::{
    BlockCodec, BlockError, Framing, TransferStats,
    codec::{Extent, Progress, whole},
    stall::Stall,
};

/// Receives blocks without allocating or copying: each is lent until the next is asked for.
///
/// Works on [`Framed`] and [`FramedRead`] with a [`BlockCodec`], over any transport. What arrived
/// beyond the blocks taken stays with `framed`, so this can be mixed with `framed.next()` at will.
///
/// ```
/// # use bytes::Bytes;
/// # use futures::SinkExt;
/// # use tokio_util::codec::Framed;
/// # use wholeblock::{BlockCodec, BlockError, recv_blocks};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BlockError> {
/// # let (near, far) = tokio::io::duplex(4096);
/// # let mut peer = Framed::new(near, BlockCodec::length_prefixed());
/// # peer.send(Bytes::from("hello")).await?;
/// # peer.close().await?;
/// # let mut framed = Framed::new(far, BlockCodec::length_prefixed());
/// let mut blocks = recv_blocks(&mut framed);
/// while let Some(block) = blocks.next().await? {
///     println!("{} bytes", block.len());
/// }
/// println!("{}", blocks.stats());
/// # assert_eq!(blocks.stats().payload_bytes, 5);
/// # Ok(())
/// # }
/// ```
pub fn recv_blocks<R: AsFramedRead>(framed: &mut R) -> RecvBlocks<'_, R> {
    RecvBlocks {
        span: debug_span!("recv_blocks"),
        before: framed.codec().progress(),
        framed,
        cursor: Cursor {
            pos: 0,
            blocks: 0,
            payload_bytes: 0,
            stop_after: u64::MAX,
        },
        settled_blocks: 0,
        at_least: 0,
        stall: Stall::default(),
        started: None,
        elapsed: None,
    }
}

/// Blocks lent one by one, or a batch at a time; made by [`recv_blocks`].
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
    /// Of the blocks lent, those that have left the buffer.
    settled_blocks: u64,
    at_least: u64,
    stall: Stall,
    /// The codec's progress when this was made.
    before: Progress,
    started: Option<Instant>,
    /// How long it took, once it is over: after its end, or an error that ends it.
    elapsed: Option<Duration>,
    span: Span,
}

/// How far the buffer has been lent. Blocks are lent in place and leave the buffer together, at
/// the next read: what is kept per block is this.
#[derive(Debug)]
struct Cursor {
    /// Bytes at the front of the buffer that have been lent.
    pos: usize,
    /// Blocks lent so far.
    blocks: u64,
    /// Bytes of their payloads.
    payload_bytes: u64,
    /// Blocks to lend in all.
    stop_after: u64,
}

impl Cursor {
    /// The next block, if it is whole and may be lent.
    #[inline]
    fn peek<F: Framing>(&self, codec: &BlockCodec<F>, buffer: &[u8]) -> Option<Extent> {
        if self.blocks >= self.stop_after {
            return None;
        }
        whole(codec.framing(), buffer.get(self.pos..)?)
    }

    /// Lends the next block, if [`peek`](Self::peek) sees one: where its payload lies in `buffer`.
    #[inline]
    fn lend<F: Framing>(&mut self, codec: &BlockCodec<F>, buffer: &[u8]) -> Option<Range<usize>> {
        let Extent {
            header_len,
            wire_len,
        } = self.peek(codec, buffer)?;
        let payload = self.pos + header_len..self.pos + wire_len;
        self.pos = payload.end;
        self.blocks += 1;
        self.payload_bytes += payload.len() as u64;
        Some(payload)
    }
}

impl<R: AsFramedRead> RecvBlocks<'_, R> {
    /// Ends after `blocks` blocks and reads nothing after them: what has arrived beyond stays in
    /// `framed` for whoever reads next.
    pub fn stop_after(mut self, blocks: u64) -> Self {
        self.cursor.stop_after = blocks;
        self
    }

    /// A stream that ends, even between blocks, before `blocks` blocks have come is a
    /// [`BlockError::TooFew`].
    pub fn at_least(mut self, blocks: u64) -> Self {
        self.at_least = blocks;
        self
    }

    /// A wait of `timeout` in which not a byte arrives is a [`BlockError::Stalled`]. Nothing is
    /// lost by it: ask again to wait again.
    ///
    /// Without one, a peer that says nothing is waited for for ever.
    ///
    /// # Panics
    ///
    /// Waiting panics outside a tokio runtime with its time driver on.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall.set_timeout(timeout);
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
    #[inline]
    pub async fn next(&mut self) -> Result<Option<&[u8]>, BlockError> {
        let mut block = self.lend();
        if block.is_none() && poll_fn(|cx| self.poll_whole(cx)).await? {
            block = self.lend();
        }
        Ok(block.map(|block| &self.framed.read_buffer()[block]))
    }

    /// Lends all the blocks that have arrived whole, waiting for one if there is none; `None` as
    /// [`next`](Self::next).
    ///
    /// The quickest way through many small blocks: one wait for each read, and a plain iterator
    /// between. A block that the iterator was not asked for stays for the next call.
    ///
    /// ```
    /// # use bytes::Bytes;
    /// # use futures::SinkExt;
    /// # use tokio_util::codec::Framed;
    /// # use wholeblock::{BlockCodec, BlockError, recv_blocks};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BlockError> {
    /// # let (near, far) = tokio::io::duplex(4096);
    /// # let mut peer = Framed::new(near, BlockCodec::length_prefixed());
    /// # peer.send(Bytes::from("hello")).await?;
    /// # peer.close().await?;
    /// # let mut framed = Framed::new(far, BlockCodec::length_prefixed());
    /// let mut bytes = 0;
    /// let mut blocks = recv_blocks(&mut framed);
    /// while let Some(batch) = blocks.next_batch().await? {
    ///     bytes += batch.map(<[u8]>::len).sum::<usize>();
    /// }
    /// # assert_eq!(bytes, 5);
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
    pub async fn next_batch(&mut self) -> Result<Option<Batch<'_, R::Framing>>, BlockError> {
        let (codec, buffer) = (self.framed.codec(), self.framed.read_buffer());
        if self.cursor.peek(codec, buffer).is_none() && !poll_fn(|cx| self.poll_whole(cx)).await? {
            return Ok(None);
        }
        let buffer = self.framed.read_buffer();
        Ok(Some(Batch {
            framing: self.framed.codec().framing().clone(),
            rest: buffer.get(self.cursor.pos..).unwrap_or_default(),
            left: self.cursor.stop_after - self.cursor.blocks,
            payload_bytes: 0,
            before: self.cursor.stop_after - self.cursor.blocks,
            end: buffer.len(),
            cursor: &mut self.cursor,
        }))
    }

    /// What has been received so far.
    #[must_use]
    pub fn stats(&self) -> TransferStats {
        let now = self.framed.codec().progress();
        let elapsed = || self.started.map(|started| started.elapsed());
        TransferStats {
            blocks: self.cursor.blocks,
            payload_bytes: self.cursor.payload_bytes,
            wire_bytes: now.offset - self.before.offset + self.cursor.pos as u64,
            reads: now.reads - self.before.reads,
            fragmented_blocks: now.fragmented_blocks - self.before.fragmented_blocks,
            elapsed: self.elapsed.or_else(elapsed).unwrap_or_default(),
            ..TransferStats::default()
        }
    }

    #[inline]
    fn lend(&mut self) -> Option<Range<usize>> {
        self.cursor
            .lend(self.framed.codec(), self.framed.read_buffer())
    }

    /// Waits until there is a whole block to lend; false when there will be none.
    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BlockError>> {
        if self.elapsed.is_some() {
            return Poll::Ready(Ok(false));
        }
        let _entered = self.span.clone().entered();
        if self.started.is_none() {
            self.started = Some(Instant::now());
            debug!("receiving");
        }
        let mut more = Ok(false);
        if self.cursor.blocks < self.cursor.stop_after {
            self.settle();
            more = ready!(self.poll_arrival(cx));
        }
        if matches!(more, Ok(false)) && self.cursor.blocks < self.at_least {
            more = Err(BlockError::TooFew {
                expected: self.at_least,
                received: self.cursor.blocks,
            });
        }
        if !matches!(more, Ok(true) | Err(BlockError::Stalled { .. })) {
            self.finish(more.as_ref().err());
        }
        Poll::Ready(more)
    }

    /// Waits until a whole block is at the front of the buffer; false at the end of the stream.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, BlockError>> {
        self.with_buffer(BlockCodec::resume);
        let reads = self.framed.codec().progress().reads;
        // Going through `Framed` keeps its own state right: had the bytes been read behind its
        // back, it would wait for more before it looked at them. The mode is on for this poll
        // only, so that not even a leaked `RecvBlocks` leaves it on.
        self.framed.codec_mut().set_lending(true);
        let polled = Pin::new(&mut *self.framed).poll_next(cx);
        self.framed.codec_mut().set_lending(false);

        let Progress {
            index,
            offset,
            reads: reads_now,
            ..
        } = self.framed.codec().progress();
        if reads_now > reads || polled.is_ready() {
            self.stall.moved();
        }
        match polled {
            Poll::Ready(block) => Poll::Ready(block.transpose().map(|block| block.is_some())),
            Poll::Pending => {
                self.with_buffer(BlockCodec::rest);
                self.stall.poll_wait(cx).map(|waited| {
                    Err(BlockError::Stalled {
                        waited,
                        index,
                        offset,
                    })
                })
            }
        }
    }

    /// Lets the codec do something about the buffer: `Framed` lends only one of the two at a time.
    fn with_buffer(&mut self, change: impl FnOnce(&mut BlockCodec<R::Framing>, &mut BytesMut)) {
        let mut buffer = mem::take(self.framed.read_buffer_mut());
        change(self.framed.codec_mut(), &mut buffer);
        *self.framed.read_buffer_mut() = buffer;
    }

    /// Lets the blocks that were lent go, before the next read.
    fn settle(&mut self) {
        let lent = self.note_settled();
        let most = self.framed.codec().max_capacity();
        let buffer = self.framed.read_buffer_mut();
        let rest = buffer.len() - lent;
        if lent > 0 && buffer.capacity() > most {
            *buffer = BytesMut::from(&buffer[lent..]);
        } else if lent > 0 {
            // Less than one block is left over, and a block at the front of the buffer is one
            // that never needs to be moved again.
            buffer.copy_within(lent.., 0);
            buffer.truncate(rest);
        }
    }

    /// Tells the codec about the blocks lent since it was last told, and returns their wire bytes.
    fn note_settled(&mut self) -> usize {
        let lent = mem::take(&mut self.cursor.pos);
        let blocks = self.cursor.blocks - self.settled_blocks;
        self.settled_blocks = self.cursor.blocks;
        self.framed.codec_mut().note_taken(blocks, lent);
        lent
    }

    fn finish(&mut self, error: Option<&BlockError>) {
        if let (None, Some(started)) = (self.elapsed, self.started) {
            self.elapsed = Some(started.elapsed());
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
        let lent = self.note_settled();
        let most = self.framed.codec().max_capacity();
        let buffer = self.framed.read_buffer_mut();
        let oversized = buffer.capacity() > most;
        // There may be any number of whole blocks behind, so nothing is moved for these.
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

/// The blocks that have arrived whole, lent together; made by [`RecvBlocks::next_batch`].
///
/// A block is taken when the iterator gives it; the rest stay for the next call.
pub struct Batch<'b, F> {
    framing: F,
    /// What has not been lent of the buffer.
    rest: &'b [u8],
    /// Blocks that may yet be lent.
    left: u64,
    /// Bytes of the payloads lent.
    payload_bytes: u64,
    /// `left` at first.
    before: u64,
    /// Where `rest` ends in the buffer.
    end: usize,
    /// Told on drop how far this got. Until then the rest is kept here by value, where it can be
    /// in registers all through the user's loop.
    cursor: &'b mut Cursor,
}

impl<'b, F: Framing> Iterator for Batch<'b, F> {
    type Item = &'b [u8];

    #[inline]
    fn next(&mut self) -> Option<&'b [u8]> {
        if self.left == 0 {
            return None;
        }
        let Extent {
            header_len,
            wire_len,
        } = whole(&self.framing, self.rest)?;
        let (block, rest) = self.rest.split_at_checked(wire_len)?;
        let payload = block.get(header_len..)?;
        self.rest = rest;
        self.left -= 1;
        self.payload_bytes += payload.len() as u64;
        Some(payload)
    }
}

impl<F> Drop for Batch<'_, F> {
    #[inline]
    fn drop(&mut self) {
        self.cursor.pos = self.end - self.rest.len();
        self.cursor.blocks += self.before - self.left;
        self.cursor.payload_bytes += self.payload_bytes;
    }
}

impl<F> fmt::Debug for Batch<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}

/// What [`recv_blocks`] receives from: [`Framed`] or [`FramedRead`] with a [`BlockCodec`].
///
/// Sealed: what it takes to lend blocks in place is between these two and the codec.
pub trait AsFramedRead:
    Stream<Item = Result<BytesMut, BlockError>> + Unpin + sealed::AsFramedRead
{
}

mod sealed {
    use super::{BlockCodec, BytesMut, Framing};

    pub trait AsFramedRead {
        type Framing: Framing;
        fn codec(&self) -> &BlockCodec<Self::Framing>;
        fn codec_mut(&mut self) -> &mut BlockCodec<Self::Framing>;
        fn read_buffer(&self) -> &BytesMut;
        fn read_buffer_mut(&mut self) -> &mut BytesMut;
    }
}

macro_rules! as_framed_read {
    ($framed:ident, $codec:ident, $codec_mut:ident) => {
        impl<T: AsyncRead + Unpin, F: Framing> AsFramedRead for $framed<T, BlockCodec<F>> {}

        impl<T, F: Framing> sealed::AsFramedRead for $framed<T, BlockCodec<F>> {
            type Framing = F;

            #[inline]
            fn codec(&self) -> &BlockCodec<F> {
                self.$codec()
            }

            fn codec_mut(&mut self) -> &mut BlockCodec<F> {
                self.$codec_mut()
            }

            #[inline]
            fn read_buffer(&self) -> &BytesMut {
                self.read_buffer()
            }

            fn read_buffer_mut(&mut self) -> &mut BytesMut {
                self.read_buffer_mut()
            }
        }
    };
}

as_framed_read!(Framed, codec, codec_mut);
as_framed_read!(FramedRead, decoder, decoder_mut);
