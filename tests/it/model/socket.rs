//! A socket that follows a script, in both directions; its clones are the same socket.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::coverage::met;

/// What a read, a write or a flush does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Moves so many bytes at most.
    Move(usize),
    /// Is pending, and wakes at once, or later.
    Wait { later: bool },
    /// Fails, and may be asked again.
    Fail(io::ErrorKind),
    /// Takes no bytes, which is an error of its own.
    Nothing,
}

/// What one direction of a socket does: its steps, and then pieces of the same length, with a wait
/// before each if there is any.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) steps: Vec<Step>,
    pub(crate) piece: usize,
    pub(crate) pausing: bool,
}

#[derive(Debug)]
struct Direction {
    steps: VecDeque<Step>,
    piece: usize,
    pausing: bool,
    paused: bool,
    waker: Option<Waker>,
    /// Whether it was pending when it was last polled.
    waits: bool,
    /// The error it gave and nobody has asked for.
    failure: Option<io::ErrorKind>,
}

impl Direction {
    fn new(script: Script) -> Self {
        Self {
            steps: script.steps.into(),
            piece: script.piece,
            pausing: script.pausing,
            paused: false,
            waker: None,
            waits: false,
            failure: None,
        }
    }

    /// How many bytes it moves now.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.waker = None;
        self.waits = false;
        let step = self.steps.pop_front().unwrap_or_else(|| {
            self.paused = self.pausing && !self.paused;
            match self.paused {
                true => Step::Wait { later: true },
                false => Step::Move(self.piece),
            }
        });
        match step {
            Step::Move(bytes) => Poll::Ready(Ok(bytes.max(1))),
            Step::Nothing => {
                self.failure = Some(io::ErrorKind::WriteZero);
                Poll::Ready(Ok(0))
            }
            Step::Fail(kind) => {
                self.failure = Some(kind);
                Poll::Ready(Err(kind.into()))
            }
            Step::Wait { later: false } => {
                self.waits = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Step::Wait { later: true } => self.wait(cx),
        }
    }

    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        self.waits = true;
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[derive(Debug)]
struct State {
    incoming: Vec<u8>,
    arrived: usize,
    silent: bool,
    /// Whether nothing comes for now.
    held: bool,
    reads: Direction,
    writes: Direction,
    flushes: Direction,
    vectored: bool,
    written: Vec<u8>,
    /// Bytes written when it was last flushed.
    flushed: usize,
    shut_down: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Socket {
    state: Rc<RefCell<State>>,
    /// Whether the last poll of a read was pending, for the peer says no more.
    silence: Rc<Cell<bool>>,
}

impl Socket {
    pub(crate) fn new(
        incoming: &[u8],
        silent: bool,
        reads: Script,
        writes: Script,
        vectored: bool,
    ) -> Self {
        let flush = |step: &&Step| !matches!(step, Step::Nothing);
        let flushes = Script {
            steps: writes.steps.iter().rev().filter(flush).copied().collect(),
            ..writes
        };
        let state = State {
            incoming: incoming.into(),
            arrived: 0,
            silent,
            held: false,
            reads: Direction::new(reads),
            writes: Direction::new(writes),
            flushes: Direction::new(flushes),
            vectored,
            written: vec![],
            flushed: 0,
            shut_down: false,
        };
        Self {
            state: Rc::new(RefCell::new(state)),
            silence: Rc::default(),
        }
    }

    /// Bytes that were read.
    pub(crate) fn arrived(&self) -> usize {
        self.state.borrow().arrived
    }

    pub(crate) fn written<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&self.state.borrow().written)
    }

    pub(crate) fn is_flushed(&self) -> bool {
        let state = self.state.borrow();
        state.flushed == state.written.len()
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.state.borrow().shut_down
    }

    /// Whether everything was read, and somebody waits for more, in vain.
    pub(crate) fn is_silent(&self) -> bool {
        self.silence.get()
    }

    /// Nothing comes until this is called again.
    pub(crate) fn hold(&self, held: bool) {
        self.state.borrow_mut().held = held;
    }

    /// Whether a write or a flush waits.
    pub(crate) fn is_blocked(&self) -> bool {
        let state = self.state.borrow();
        state.writes.waits || state.flushes.waits
    }

    /// The error that a read gave since this was last asked.
    pub(crate) fn read_failure(&self) -> Option<io::ErrorKind> {
        self.state.borrow_mut().reads.failure.take()
    }

    /// The error that a write or a flush gave since this was last asked.
    pub(crate) fn write_failure(&self) -> Option<io::ErrorKind> {
        let mut state = self.state.borrow_mut();
        let flush = state.flushes.failure.take();
        state.writes.failure.take().or(flush)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        assert!(buf.remaining() > 0, "a read without room looks like an end");
        let state = &mut *self.state.borrow_mut();
        self.silence.set(false);
        if state.held {
            return state.reads.wait(cx);
        }
        let at_end = state.arrived == state.incoming.len();
        while at_end && matches!(state.reads.steps.front(), Some(Step::Move(_))) {
            state.reads.steps.pop_front();
        }
        if at_end && state.reads.steps.is_empty() {
            if state.silent {
                self.silence.set(true);
                return state.reads.wait(cx);
            }
            return Poll::Ready(Ok(()));
        }
        state.reads.poll(cx).map_ok(|bytes| {
            let rest = &state.incoming[state.arrived..];
            let bytes = bytes.min(buf.remaining()).min(rest.len());
            buf.put_slice(&rest[..bytes]);
            state.arrived += bytes;
        })
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.state.borrow_mut();
        assert!(
            state.vectored || bufs.len() == 1,
            "it takes one slice a write"
        );
        assert!(!state.shut_down, "a write after the end");
        let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
        assert!(offered > 0, "a write of nothing");
        if bufs.len() > 1 {
            met("a vectored write");
        }
        state.writes.poll(cx).map_ok(|bytes| {
            let taken = bytes.min(offered);
            if 0 < taken && taken < offered {
                met("a partial write");
            }
            let mut left = taken;
            for buf in bufs {
                let of_buf = buf.len().min(left);
                state.written.extend_from_slice(&buf[..of_buf]);
                left -= of_buf;
            }
            taken
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.state.borrow().vectored
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state.borrow_mut();
        state.flushes.poll(cx).map_ok(|_| {
            state.flushed = state.written.len();
        })
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state.borrow_mut();
        assert_eq!(state.flushed, state.written.len(), "an end before a flush");
        state.shut_down = true;
        Poll::Ready(Ok(()))
    }
}

/// Who polls, anew for each poll: a waker kept from an earlier one wakes nobody.
pub(crate) struct Task {
    woken: Arc<Woken>,
    waker: Waker,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Task {
    pub(crate) fn new() -> Self {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        Self { woken, waker }
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    fn is_of(&self, waker: &Option<Waker>) -> bool {
        waker.as_ref().is_some_and(|w| w.will_wake(&self.waker))
    }

    /// Panics unless whoever was polled and is pending will be polled again.
    pub(crate) fn assert_to_be_woken(&self, socket: &Socket) {
        let state = socket.state.borrow();
        let waits = [&state.reads, &state.writes, &state.flushes];
        let is_awaited = waits.iter().any(|direction| self.is_of(&direction.waker));
        let is_woken = self.woken.0.load(Ordering::Relaxed);
        assert!(is_woken || is_awaited, "pending, and nobody will wake it");
    }
}

/// As [`poll_often`], but not again where the peer will say no more.
pub(crate) fn poll_reading<F: Future>(
    mut future: Pin<&mut F>,
    polls: usize,
    socket: &Socket,
) -> Poll<F::Output> {
    for _ in 0..polls {
        let polled = poll_often(future.as_mut(), 1, socket);
        if polled.is_ready() || socket.is_silent() {
            return polled;
        }
    }
    Poll::Pending
}

/// Polls `future` so often, unless it is done before.
pub(crate) fn poll_often<F: Future>(
    mut future: Pin<&mut F>,
    polls: usize,
    socket: &Socket,
) -> Poll<F::Output> {
    for _ in 0..polls {
        let task = Task::new();
        if let Poll::Ready(done) = future.as_mut().poll(&mut task.context()) {
            return Poll::Ready(done);
        }
        task.assert_to_be_woken(socket);
    }
    Poll::Pending
}
