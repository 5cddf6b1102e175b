//! The receiving half of a session.

use std::{mem, pin::pin, task::Poll};

use futures::StreamExt;
use wholeblock::{AsFramedRead, BlockError, RecvBlocks, recv_blocks};

use super::{
    coverage::met,
    incoming::Incoming,
    link::{End, Link, Speaks, receiving},
    socket::{Socket, poll_often, poll_reading},
    wire::Scheme,
};

/// What is asked of one `recv_blocks`.
#[derive(Clone, Debug)]
pub(crate) struct Lending {
    pub(crate) steps: Vec<Lend>,
    pub(crate) at_least: u64,
    pub(crate) leaked: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Lend {
    Next {
        polls: usize,
        leaked: bool,
    },
    /// Takes so many blocks of the batch.
    Batch {
        blocks: usize,
        polls: usize,
        leaked: bool,
        leaked_batch: bool,
    },
    /// Is to stop after so many blocks more.
    Stop(u64),
}

/// Receives from the stream, so many times. Returns whether it waits at last.
pub(crate) fn next<F: Speaks>(
    link: &mut Link<F>,
    incoming: &mut Incoming,
    socket: &Socket,
    times: usize,
    polls: usize,
) -> bool {
    let mut waits = false;
    for _ in 0..times {
        speak_next(link, incoming, socket);
        let end = link.receiver();
        let polled = receiving!(&mut *end, |it| poll_reading(pin!(it.next()), polls, socket));
        let failure = socket.read_failure();
        waits = polled.is_pending();
        let none_due = mem::take(&mut incoming.none_due);
        match polled {
            Poll::Ready(None) if none_due => met("an end after an error"),
            Poll::Pending if polls == 0 => incoming.none_due = none_due,
            _ if none_due => panic!("no end after an error, but {polled:?}"),
            Poll::Ready(None) => incoming.end(),
            // tokio-util's own reads before it asks the codec, and so it waits after any error.
            Poll::Pending if incoming.dead.is_some() && !matches!(end, End::Transport(_)) => {}
            Poll::Pending => {
                met("a stream given up");
                incoming.wait(polls, socket);
            }
            Poll::Ready(Some(Ok(block))) => {
                met("a block from a stream");
                incoming.take(&block);
            }
            Poll::Ready(Some(Err(error))) => {
                fail(incoming, &error, failure);
                incoming.none_due = true;
            }
        }
        assert!(failure.is_none() || incoming.none_due, "an error is lost");
        assert_whole(end, incoming, socket);
    }
    waits
}

/// Panics unless `error` is the socket's, if that has failed, or else the stream's.
fn fail(incoming: &mut Incoming, error: &BlockError, failure: Option<std::io::ErrorKind>) {
    match error {
        BlockError::Io(error) => {
            assert_eq!(Some(error.kind()), failure, "not the socket's error");
            incoming.interrupt();
        }
        error => incoming.fail(error),
    }
}

/// Speaks the wire on which the next block is.
fn speak_next<F: Speaks>(link: &mut Link<F>, incoming: &mut Incoming, socket: &Socket) {
    while incoming.dead.is_none() && incoming.go_on() {
        if socket.arrived() > incoming.stream.offset_of(incoming.next) {
            met("another framing for what was read ahead");
        }
        link.speak(&incoming.wire());
        // A `Framed` forgets the error, for it is made of its parts again.
        incoming.none_due &= !matches!(link.receiver(), End::Framed(_));
    }
}

/// Waits while nothing comes, on the wire that has nothing more, if it can be told that this is
/// in vain. What is buffered of the next wire may then look like a part of a block.
pub(crate) fn idle<F: Speaks>(
    link: &mut Link<F>,
    incoming: &mut Incoming,
    socket: &Socket,
    lent: bool,
) {
    if incoming.remaining() > 0 || incoming.dead.is_some() || incoming.none_due {
        return;
    }
    let end = link.receiver();
    match (end.read_buffer().len(), incoming.wire().scheme) {
        (0, _) => met("a wait before another framing"),
        // tokio-util's `FramedRead` would then, with another decoder, read before it looks at its
        // buffer: it has no way to tell it that there is something to look at.
        (_, _) if matches!(end, End::Read(_)) => return,
        (buffered, Scheme::Exact(len)) if buffered < len => {
            met("a wait inside of what is read by another framing");
        }
        _ => return,
    }
    socket.hold(true);
    let waits = receiving!(&mut *end, |it| match lent {
        true => poll_often(pin!(recv_blocks(it).next()), 1, socket).is_pending(),
        false => poll_often(pin!(it.next()), 1, socket).is_pending(),
    });
    socket.hold(false);
    assert!(waits, "nothing has come");
    assert_whole(end, incoming, socket);
}

fn assert_whole<F: Speaks>(end: &End<F>, incoming: &Incoming, socket: &Socket) {
    let arrived = socket.arrived();
    incoming.assert_consumed(arrived - end.read_buffer().len(), arrived);
}

/// Receives from one `recv_blocks`.
pub(crate) fn lend<F: Speaks>(
    link: &mut Link<F>,
    incoming: &mut Incoming,
    socket: &Socket,
    lending: &Lending,
) {
    speak_next(link, incoming, socket);
    let (first, end) = (incoming.next, link.receiver());
    receiving!(&mut *end, |it| lend_from(it, incoming, socket, lending));
    if lending.leaked && incoming.dead.is_none() {
        met("a receiver leaked");
        incoming.rewind(first, socket.arrived() - end.read_buffer().len());
    }
    assert_whole(end, incoming, socket);
}

/// Where a receiver stands.
#[derive(Clone, Copy)]
struct Stand {
    lent: u64,
    bytes: u64,
    stop: u64,
    at_least: u64,
    /// Whether it has given its end.
    over: bool,
}

fn lend_from<R>(it: &mut R, incoming: &mut Incoming, socket: &Socket, lending: &Lending)
where
    R: AsFramedRead<Error = BlockError>,
{
    let mut stand = Stand {
        lent: 0,
        bytes: 0,
        stop: u64::MAX,
        at_least: lending.at_least,
        over: false,
    };
    let mut receiver = recv_blocks(it).at_least(stand.at_least);
    for step in &lending.steps {
        if incoming.remaining() == 0 && !stand.over {
            break; // what follows is to be read on another wire
        }
        match *step {
            Lend::Stop(more) => {
                stand.stop = stand.lent + more;
                receiver = receiver.stop_after(stand.stop);
            }
            Lend::Next { polls, leaked } => {
                let mut future = Box::pin(receiver.next());
                let polled = poll_reading(future.as_mut(), polls, socket);
                forget_if(leaked, future);
                if let Some(block) = stand.check(polled, polls, incoming, socket) {
                    met("a block lent");
                    stand.take(block, incoming);
                }
            }
            Lend::Batch { .. } => next_batch(*step, &mut receiver, &mut stand, incoming, socket),
        }
    }
    let stats = receiver.stats();
    let counted = (stats.blocks, stats.payload_bytes);
    assert_eq!(counted, (stand.lent, stand.bytes), "{stats:?}");
    forget_if(lending.leaked, receiver);
}

fn next_batch<R>(
    step: Lend,
    receiver: &mut RecvBlocks<'_, R>,
    stand: &mut Stand,
    incoming: &mut Incoming,
    socket: &Socket,
) where
    R: AsFramedRead<Error = BlockError>,
{
    let Lend::Batch {
        blocks,
        polls,
        leaked,
        leaked_batch,
    } = step
    else {
        unreachable!();
    };
    let (before, mut first) = (*stand, incoming.next);
    let mut future = Box::pin(receiver.next_batch());
    let polled = poll_reading(future.as_mut(), polls, socket);
    forget_if(leaked, future);
    let has_one_limit = incoming.has_one_limit();
    let Some(mut batch) = stand.check(polled, polls, incoming, socket) else {
        return;
    };
    met("a batch");
    for taken in 0..blocks.min(incoming.remaining()) {
        let Some(block) = batch.next() else {
            assert!(taken > 0, "an empty batch");
            let all = stand.lent == stand.stop || !incoming.has_arrived(socket.arrived());
            assert!(
                all || !has_one_limit,
                "a batch without a block that has come"
            );
            break;
        };
        assert!(stand.lent < stand.stop, "a block too many");
        stand.take(block, incoming);
        if taken == 0 {
            first = incoming.next - 1; // behind those that were skipped
        }
    }
    if leaked_batch {
        met("a batch leaked");
        mem::forget(batch);
        // Its blocks were not taken, and come again.
        *stand = before;
        incoming.go_back(first);
    }
}

impl Stand {
    /// What is lent, if it was and may be. Panics where anything is not as it should be.
    fn check<T>(
        &mut self,
        polled: Poll<Result<Option<T>, BlockError>>,
        polls: usize,
        incoming: &mut Incoming,
        socket: &Socket,
    ) -> Option<T> {
        if polls > 0 && !self.over && self.lent < self.stop {
            incoming.none_due = false; // it has seen the error
        }
        let failure = socket.read_failure();
        let has_failed = matches!(polled, Poll::Ready(Err(BlockError::Io(_))));
        assert_eq!(has_failed, failure.is_some(), "an error is lost");
        let Poll::Ready(result) = polled else {
            met("a receiver given up");
            incoming.wait(polls, socket);
            return None;
        };
        match result {
            Ok(Some(lent)) => {
                assert!(!self.over, "a block after the end");
                assert!(self.lent < self.stop, "a block too many");
                incoming.meet();
                return Some(lent);
            }
            Ok(None) if self.over => {}
            Ok(None) if self.lent >= self.stop => met("a receiver that stops"),
            Ok(None) => {
                incoming.end();
                assert!(self.lent >= self.at_least, "too few");
                self.over = true;
            }
            Err(error) => {
                assert!(!self.over, "{error} after the end");
                self.over = true;
                match error {
                    BlockError::TooFew { expected, received } => {
                        met("too few blocks");
                        incoming.end();
                        assert_eq!((expected, received), (self.at_least, self.lent));
                        assert!(received < expected);
                    }
                    error => fail(incoming, &error, failure),
                }
            }
        }
        None
    }

    fn take(&mut self, block: &[u8], incoming: &mut Incoming) {
        incoming.take(block);
        self.lent += 1;
        self.bytes += block.len() as u64;
    }
}

pub(crate) fn forget_if<T>(leaked: bool, value: T) {
    if leaked {
        mem::forget(value);
    }
}
