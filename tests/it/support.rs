//! What the tests share: one scripted transport, one framing that is not the crate's own, and the
//! list of framings that every rule is tried with.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    ops::RangeInclusive,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::codec::{Encoder, Framed};
use wholeblock::{BlockCodec, BlockError, Framing, Header, InvalidHeader};

/// A transport that does as it is told, and keeps account of what was asked of it.
///
/// Reads follow the script, and then the end: of the stream, or silence. Writes follow theirs, and
/// then everything is taken.
#[derive(Debug, Default)]
pub(crate) struct Scripted {
    reads: VecDeque<Step>,
    writes: VecDeque<Step>,
    /// What the reader meets after the script: silence instead of the end.
    silent: bool,
    pub(crate) not_vectored: bool,
    pub(crate) written: Vec<u8>,
    /// Slices each write was given, and bytes it took.
    pub(crate) gathered: Vec<(usize, usize)>,
    /// Room each read was given, and bytes it brought.
    pub(crate) rooms: Vec<(usize, usize)>,
    pub(crate) flushes: usize,
}

#[derive(Debug)]
enum Step {
    Bytes(BytesMut),
    /// Takes this many bytes, of one write.
    Take(usize),
    /// Pending once, and ready at once for the next poll.
    Pending,
    Error(io::ErrorKind),
}

impl Scripted {
    /// A peer that sends `wire` in pieces of `chunk` bytes, pausing before each if told to.
    pub(crate) fn chunked(wire: &[u8], chunk: usize, pausing: bool) -> Self {
        wire.chunks(chunk).fold(Self::default(), |io, piece| {
            let io = if pausing { io.pause() } else { io };
            io.send(piece)
        })
    }

    pub(crate) fn send(mut self, bytes: &[u8]) -> Self {
        self.reads.push_back(Step::Bytes(bytes.into()));
        self
    }

    pub(crate) fn pause(mut self) -> Self {
        self.reads.push_back(Step::Pending);
        self
    }

    pub(crate) fn fail(mut self, kind: io::ErrorKind) -> Self {
        self.reads.push_back(Step::Error(kind));
        self
    }

    pub(crate) fn then_silent(mut self) -> Self {
        self.silent = true;
        self
    }

    pub(crate) fn take(mut self, bytes: usize) -> Self {
        self.writes.push_back(Step::Take(bytes));
        self
    }

    pub(crate) fn pause_writes(mut self) -> Self {
        self.writes.push_back(Step::Pending);
        self
    }

    pub(crate) fn fail_writes(mut self, kind: io::ErrorKind) -> Self {
        self.writes.push_back(Step::Error(kind));
        self
    }

    pub(crate) fn not_vectored(mut self) -> Self {
        self.not_vectored = true;
        self
    }

    fn write(&mut self, cx: &mut Context<'_>, slices: &[&[u8]]) -> Poll<io::Result<usize>> {
        let mut room = match self.writes.pop_front() {
            None => usize::MAX,
            Some(Step::Take(bytes)) => bytes,
            Some(Step::Error(kind)) => return Poll::Ready(Err(kind.into())),
            Some(_) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        };
        let before = self.written.len();
        for slice in slices {
            let taken = slice.len().min(room);
            self.written.extend_from_slice(&slice[..taken]);
            room -= taken;
        }
        let taken = self.written.len() - before;
        self.gathered.push((slices.len(), taken));
        Poll::Ready(Ok(taken))
    }
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        match self.reads.pop_front() {
            None if self.silent => return Poll::Pending,
            None => self.rooms.push((room, 0)),
            Some(Step::Bytes(mut bytes)) => {
                let taken = bytes.split_to(bytes.len().min(room));
                buf.put_slice(&taken);
                self.rooms.push((room, taken.len()));
                if !bytes.is_empty() {
                    self.reads.push_front(Step::Bytes(bytes));
                }
            }
            Some(Step::Error(kind)) => return Poll::Ready(Err(kind.into())),
            Some(_) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, &[buf])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let slices: Vec<&[u8]> = bufs.iter().map(|slice| &**slice).collect();
        self.write(cx, &slices)
    }

    fn is_write_vectored(&self) -> bool {
        !self.not_vectored
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A user's own header: `"WB"`, version 1, the payload's length as a big-endian u24.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Magic;

impl Magic {
    pub(crate) const MAX: usize = 0xff_ffff;
}

impl Framing for Magic {
    fn block_lens(&self) -> RangeInclusive<usize> {
        0..=Self::MAX
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let known = front.len().min(3);
        if front[..known] != b"WB\x01"[..known] {
            return Err(InvalidHeader("it does not start with WB, version 1"));
        }
        Ok(match *front {
            [_, _, _, a, b, c, ..] => Header::Complete {
                header_len: 6,
                payload_len: u64::from(u32::from_be_bytes([0, a, b, c])),
            },
            _ => Header::Incomplete { at_least: 6 },
        })
    }

    fn encode_header(&self, payload_len: usize, dst: &mut impl BufMut) {
        dst.put_slice(b"WB\x01");
        dst.put_uint(payload_len as u64, 3);
    }
}

/// Calls `$check(name, framing)` with every framing there is.
macro_rules! with_each_framing {
    ($check:expr) => {{
        use wholeblock::{Exact, LengthPrefix, Varint};
        $check("exact", Exact::new(5).unwrap());
        $check("u8", LengthPrefix::u8());
        $check("u16 LE", LengthPrefix::u16().little_endian());
        $check("u24", LengthPrefix::bytes(3).unwrap());
        $check("u32", LengthPrefix::u32());
        $check(
            "u32 including its header",
            LengthPrefix::u32().including_header().unwrap(),
        );
        $check("u56 LE", LengthPrefix::bytes(7).unwrap().little_endian());
        $check("u64", LengthPrefix::u64());
        $check("varint", Varint::new());
        $check("a user's own", $crate::support::Magic);
    }};
}
pub(crate) use with_each_framing;

/// Blocks of different lengths and contents that `framing` carries.
pub(crate) fn blocks_for<F: Framing>(framing: &F) -> Vec<Bytes> {
    let lens = framing.block_lens();
    [3, 0, 1, 130, 2, 255, 0, 17]
        .into_iter()
        .enumerate()
        .map(|(at, len)| {
            let len = usize::clamp(len, *lens.start(), *lens.end());
            (0..len).map(|byte| (at * 31 + byte) as u8).collect()
        })
        .collect()
}

/// The bytes of `blocks` on the wire.
pub(crate) fn wire<F: Framing>(framing: F, blocks: &[Bytes]) -> Vec<u8> {
    let mut codec = BlockCodec::new(framing);
    let mut wire = BytesMut::new();
    for block in blocks {
        codec.encode(block.clone(), &mut wire).unwrap();
    }
    wire.into()
}

/// All blocks until the end or the first error.
pub(crate) fn collect<F: Framing>(
    framed: &mut Framed<Scripted, BlockCodec<F>>,
) -> (Vec<Bytes>, Option<BlockError>) {
    let mut blocks = Vec::new();
    loop {
        match ready(framed.next()) {
            None => return (blocks, None),
            Some(Ok(block)) => blocks.push(block.freeze()),
            Some(Err(error)) => return (blocks, Some(error)),
        }
    }
}

/// Polls `future` until it is ready; it must be runnable all along.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    for _ in 0..100_000 {
        if let Some(done) = future.as_mut().now_or_never() {
            return done;
        }
    }
    panic!("still pending after 100,000 polls: it hangs");
}

/// Bytes of the header before a payload of `len` bytes.
pub(crate) fn header_len<F: Framing>(framing: &F, len: usize) -> usize {
    let mut header = BytesMut::new();
    framing.encode_header(len, &mut header);
    header.len()
}
