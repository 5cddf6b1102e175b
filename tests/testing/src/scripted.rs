//! A transport that follows a script and records what was asked of it.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop,
};
use wholeblock::internals::{CHAIN_THRESHOLD, FIRST_WRITE, FULL_WRITE, MAX_SLICES, PARTS};

/// A transport's answer to a read, a write, or a flush of what was written.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Moves this many bytes, or as many as one write has. If a read has no room for all of them, the next
    /// read brings the rest.
    Move(usize),
    /// Moves all there is room for.
    All,
    /// Is pending, and wakes the task at once.
    Pending,
    Fail(io::ErrorKind),
}

/// A peer that sends bytes and takes what is written, step by step. After its steps it moves all that
/// it can, and then ends the stream.
#[derive(Debug)]
pub struct Scripted {
    wire: Arc<Vec<u8>>,
    /// Place in `wire` of the next read.
    at: usize,
    /// How many times more the peer sends what begins at `repeated`.
    repeats: u64,
    repeated: usize,
    reads: Script,
    writes: Script,
    /// True if reads are pending instead of the end of the stream.
    silent: bool,
    vectored: bool,
    records: bool,
    /// True if a read and a write each cost a unit of the task's budget, as those of a socket do.
    spends: bool,
    /// Bytes that were read. Shared, so that a test sees them while the transport is borrowed.
    pub arrived: Arc<AtomicUsize>,
    /// Room each read was given, and bytes it brought.
    pub rooms: Vec<(usize, usize)>,
    /// Where in memory each read began.
    pub destinations: Vec<usize>,
    pub written: Vec<u8>,
    /// Bytes of `written` that were flushed.
    pub flushed: usize,
    /// Slices each write was given, and bytes it took.
    pub gathered: Vec<(usize, usize)>,
    /// Where in memory each slice of each write began.
    pub addresses: Vec<usize>,
    pub flushes: usize,
    pub shutdowns: usize,
    /// Errors it has returned.
    pub failures: usize,
}

impl Default for Scripted {
    fn default() -> Self {
        Self {
            wire: Arc::default(),
            at: 0,
            repeats: 0,
            repeated: 0,
            reads: Script::default(),
            writes: Script::default(),
            silent: false,
            vectored: true,
            records: true,
            spends: false,
            arrived: Arc::default(),
            rooms: Vec::new(),
            destinations: Vec::new(),
            written: Vec::new(),
            flushed: 0,
            gathered: Vec::new(),
            addresses: Vec::new(),
            flushes: 0,
            shutdowns: 0,
            failures: 0,
        }
    }
}

impl Scripted {
    /// A peer that sends `wire` in pieces of `chunk` bytes, with a pause before each if `pausing`.
    pub fn chunked(wire: &[u8], chunk: usize, pausing: bool) -> Self {
        wire.chunks(chunk).fold(Self::default(), |io, piece| {
            let io = if pausing { io.pause() } else { io };
            io.send(piece)
        })
    }

    /// A peer that sends `wire` as `reads` say.
    pub fn sending(
        wire: &[u8],
        reads: impl IntoIterator<Item = Step, IntoIter: Send + 'static>,
    ) -> Self {
        let mut io = Self::default().reading(reads);
        io.wire_mut().extend_from_slice(wire);
        io
    }

    /// A peer that sends nothing, and takes what is written as `writes` say.
    pub fn taking(writes: impl IntoIterator<Item = Step, IntoIter: Send + 'static>) -> Self {
        let mut io = Self::default();
        io.writes.then = Some(Box::new(writes.into_iter()));
        io
    }

    /// A peer that sends `bytes` `times` times, at least once. It records nothing, so it does not allocate.
    pub fn repeating(bytes: &[u8], times: u64) -> Self {
        Self::default().then_repeating(bytes, times).unrecorded()
    }

    /// Sends `bytes` in one piece.
    pub fn send(mut self, bytes: &[u8]) -> Self {
        self.wire_mut().extend_from_slice(bytes);
        self.reads.steps.push_back(Step::Move(bytes.len()));
        self
    }

    /// Sends `bytes` `times` times, at least once, after all else.
    pub fn then_repeating(mut self, bytes: &[u8], times: u64) -> Self {
        self.repeated = self.wire.len();
        self.wire_mut().extend_from_slice(bytes);
        self.repeats = times - 1;
        self
    }

    /// Adds steps for sending, after the present ones.
    pub fn reading(
        mut self,
        steps: impl IntoIterator<Item = Step, IntoIter: Send + 'static>,
    ) -> Self {
        self.reads.then = Some(Box::new(steps.into_iter()));
        self
    }

    pub fn pause(mut self) -> Self {
        self.reads.steps.push_back(Step::Pending);
        self
    }

    pub fn fail(mut self, kind: io::ErrorKind) -> Self {
        self.reads.steps.push_back(Step::Fail(kind));
        self
    }

    pub fn then_silent(mut self) -> Self {
        self.silent = true;
        self
    }

    pub fn take(mut self, bytes: usize) -> Self {
        self.writes.steps.push_back(Step::Move(bytes));
        self
    }

    pub fn pause_writes(mut self) -> Self {
        self.writes.steps.push_back(Step::Pending);
        self
    }

    pub fn fail_writes(mut self, kind: io::ErrorKind) -> Self {
        self.writes.steps.push_back(Step::Fail(kind));
        self
    }

    pub fn not_vectored(self) -> Self {
        self.vectored(false)
    }

    pub fn vectored(mut self, vectored: bool) -> Self {
        self.vectored = vectored;
        self
    }

    /// Spends the task's budget.
    pub fn spending(mut self) -> Self {
        self.spends = true;
        self
    }

    /// Records neither what is asked of it nor what is written.
    pub fn unrecorded(mut self) -> Self {
        self.records = false;
        self
    }

    fn wire_mut(&mut self) -> &mut Vec<u8> {
        Arc::make_mut(&mut self.wire)
    }

    /// Returns the bytes that it sends. They stay allocated as long as the caller holds them.
    pub fn wire(&self) -> Arc<Vec<u8>> {
        self.wire.clone()
    }

    /// Frees the bytes that it sends: nothing more is left to send.
    pub fn forget_wire(&mut self) {
        self.wire = Arc::default();
        (self.at, self.repeats, self.repeated) = (0, 0, 0);
        self.reads = Script::default();
    }

    /// Returns how many reads have brought bytes.
    pub fn brought(&self) -> u64 {
        self.rooms.iter().filter(|(_, bytes)| *bytes > 0).count() as u64
    }

    /// Returns what was written before the last flush.
    pub fn flushed(&self) -> &[u8] {
        &self.written[..self.flushed]
    }

    /// Asserts that blocks of `len` bytes, each with a header of 4, left in writes that grew from the
    /// first one up to full ones, except the last. Blocks that are not copied leave in whole parts.
    pub fn assert_full_writes(&self, len: usize) {
        let part = match self.vectored && len >= CHAIN_THRESHOLD {
            true => FULL_WRITE / PARTS,
            false => FULL_WRITE,
        };
        let (last, all_but_last) = self.gathered.split_last().unwrap();
        assert!(last.1 <= FULL_WRITE, "{len}: {last:?}");
        let mut least = FIRST_WRITE;
        for (slices, bytes) in all_but_last {
            let grown = (least..least + len + 4).contains(bytes) && *bytes <= part;
            let full = bytes % part == 0 && *bytes <= FULL_WRITE;
            assert!(grown || full, "{len}: {bytes}, {least}");
            assert!(*slices <= MAX_SLICES, "{len}: {slices}");
            least = part.min(least + bytes / 4);
        }
    }

    /// Returns how many bytes are left to send, or `usize::MAX` if there are more.
    fn left(&self) -> usize {
        let repeats = usize::try_from(self.repeats).unwrap_or(usize::MAX);
        let repeated = repeats.saturating_mul(self.wire.len() - self.repeated);
        (self.wire.len() - self.at).saturating_add(repeated)
    }

    fn send_into(&mut self, mut bytes: usize, buf: &mut ReadBuf<'_>) {
        self.arrived.fetch_add(bytes, Relaxed);
        while bytes > 0 {
            if self.at == self.wire.len() {
                (self.at, self.repeats) = (self.repeated, self.repeats - 1);
            }
            let piece = bytes.min(self.wire.len() - self.at);
            buf.put_slice(&self.wire[self.at..self.at + piece]);
            self.at += piece;
            bytes -= piece;
        }
    }

    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        assert!(all > 0, "a write of nothing");
        if self.spends {
            ready!(coop::poll_proceed(cx)).made_progress();
        }
        let step = self.writes.next();
        poll_step(step, all, &mut self.failures, cx).map_ok(|taken| {
            if !self.records {
                return taken;
            }
            let mut left = taken;
            for slice in slices {
                self.addresses.push(slice.as_ptr() as usize);
                let of_slice = slice.len().min(left);
                self.written.extend_from_slice(&slice[..of_slice]);
                left -= of_slice;
            }
            self.gathered.push((slices.len(), taken));
            taken
        })
    }
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let room = buf.remaining();
        let destination = buf.filled().as_ptr() as usize + buf.filled().len();
        assert!(room > 0, "a read without room");
        if this.spends {
            ready!(coop::poll_proceed(cx)).made_progress();
        }
        let left = this.left();
        let step = this.reads.next();
        if left == 0 && this.silent && !matches!(step, Step::Fail(_)) {
            return Poll::Pending;
        }
        poll_step(step, room.min(left), &mut this.failures, cx).map_ok(|bytes| {
            if let Step::Move(all) = step {
                this.reads.left = all.min(left) - bytes;
            }
            this.send_into(bytes, buf);
            if this.records {
                this.rooms.push((room, bytes));
                this.destinations.push(destination);
            }
        })
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_take(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        assert!(self.vectored || bufs.len() == 1, "it is not vectored");
        self.poll_take(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let step = match this.flushed == this.written.len() {
            true => Step::All,
            false => this.writes.next(),
        };
        poll_step(step, 0, &mut this.failures, cx).map_ok(|_| {
            this.flushes += 1;
            this.flushed = this.written.len();
        })
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shutdowns += 1;
        self.flushed = self.written.len();
        Poll::Ready(Ok(()))
    }
}

/// Returns how many bytes `step` moves, of `room`.
fn poll_step(
    step: Step,
    room: usize,
    failures: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    match step {
        Step::All => Poll::Ready(Ok(room)),
        Step::Move(bytes) => Poll::Ready(Ok(room.min(bytes))),
        Step::Pending => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        Step::Fail(kind) => {
            *failures += 1;
            Poll::Ready(Err(kind.into()))
        }
    }
}

/// Steps, and the steps after them.
#[derive(Default)]
struct Script {
    /// Bytes of the last step that have not been moved.
    left: usize,
    steps: VecDeque<Step>,
    then: Option<Box<dyn Iterator<Item = Step> + Send>>,
}

impl Script {
    /// Returns the next step; after the last one, [`Step::All`].
    fn next(&mut self) -> Step {
        if self.left > 0 {
            return Step::Move(mem::take(&mut self.left));
        }
        let then = || self.then.as_mut()?.next();
        self.steps.pop_front().or_else(then).unwrap_or(Step::All)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.fmt(f)
    }
}
