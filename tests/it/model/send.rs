//! The sending half of a session.

use std::{cell::Cell, pin::pin, task::Poll};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use wholeblock::{BlockError, TransferStats, send_blocks, try_send_blocks};

use super::{
    coverage::met,
    link::{End, Link, Speaks, sending},
    outgoing::{Draft, Outgoing, assert_failure},
    receive::forget_if,
    socket::{Socket, poll_often},
    source::{Given, Source},
};
use crate::support::FULL_WRITE;

#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    pub(crate) blocks: Vec<Draft>,
    /// Whether the source has nothing at first, before each block.
    pub(crate) pausing: bool,
    /// Whether the source fails after its last block.
    pub(crate) failing: bool,
    pub(crate) polls: usize,
    pub(crate) leaked: bool,
}

/// Queues blocks, until one is not taken.
pub(crate) fn feed<F: Speaks>(
    link: &mut Link<F>,
    outgoing: &mut Outgoing,
    socket: &Socket,
    blocks: &[Draft],
    polls: usize,
    leaked: bool,
) {
    for draft in blocks {
        let block = outgoing.make(*draft);
        let end = link.sender();
        let polled = sending!(&mut *end, |it| {
            let mut future = Box::pin(it.feed(block.clone()));
            let polled = poll_often(future.as_mut(), polls, socket);
            forget_if(leaked && polled.is_pending(), future);
            polled
        });
        outgoing.assert_front(socket);
        let error = match &polled {
            Poll::Ready(Err(error)) => Some(error),
            _ => None,
        };
        assert_failure(error, socket.write_failure());
        match &polled {
            Poll::Pending => return met("a feed given up"), // it drops its block
            Poll::Ready(Err(BlockError::Io(_))) => return,
            Poll::Ready(result) => outgoing.given(&block, result.as_ref().err()),
        }
        met("a block fed");
        if let End::Transport(_) = end {
            let queued = outgoing.bytes.len() - socket.written(<[u8]>::len);
            assert!(
                queued < FULL_WRITE + block.len() + 8,
                "{queued} bytes queued"
            );
        }
    }
}

/// Sends a block, or gives that up.
pub(crate) fn send<F: Speaks>(
    link: &mut Link<F>,
    outgoing: &mut Outgoing,
    socket: &Socket,
    draft: Draft,
    polls: usize,
) {
    let block = outgoing.make(draft);
    let polled = sending!(link.sender(), |it| {
        poll_often(pin!(it.send(block.clone())), polls, socket)
    });
    let error = match &polled {
        Poll::Ready(Err(error)) => Some(error),
        _ => None,
    };
    assert_failure(error, socket.write_failure());
    if let Poll::Pending | Poll::Ready(Err(BlockError::Io(_))) = polled {
        met("a send given up");
        // Whether it was queued before that shows on the wire, where there is all or nothing of it.
        flush_unseen(link, socket);
        if socket.written(<[u8]>::len) > outgoing.bytes.len() {
            outgoing.given(&block, None);
        }
    } else {
        outgoing.given(&block, error);
    }
    outgoing.assert_front(socket);
    if let Poll::Ready(Ok(())) = polled {
        met("a block sent");
        outgoing.assert_flushed(socket);
    }
}

/// Flushes, whatever comes between.
fn flush_unseen<F: Speaks>(link: &mut Link<F>, socket: &Socket) {
    for _ in 0..1_000 {
        let flushed = sending!(link.sender(), |it| {
            poll_often(pin!(SinkExt::<Bytes>::flush(it)), 1_000, socket)
        });
        socket.write_failure();
        if let Poll::Ready(Ok(())) = flushed {
            return;
        }
    }
    panic!("a flush takes without end");
}

/// Polls a flush so often. Returns whether it is done.
pub(crate) fn flush<F: Speaks>(
    link: &mut Link<F>,
    outgoing: &mut Outgoing,
    socket: &Socket,
    polls: usize,
    leaked: bool,
) -> bool {
    let polled = sending!(link.sender(), |it| {
        let mut future = Box::pin(SinkExt::<Bytes>::flush(it));
        let polled = poll_often(future.as_mut(), polls, socket);
        forget_if(leaked, future);
        polled
    });
    outgoing.settled(polled, socket)
}

pub(crate) fn close<F: Speaks>(
    link: &mut Link<F>,
    outgoing: &mut Outgoing,
    socket: &Socket,
    polls: usize,
) -> bool {
    let polled = sending!(link.sender(), |it| {
        poll_often(pin!(SinkExt::<Bytes>::close(it)), polls, socket)
    });
    let done = outgoing.settled(polled, socket);
    assert_eq!(socket.is_shut_down(), done || outgoing.closed);
    outgoing.closed |= done;
    done
}

/// What came of a transfer, and what it says it has moved.
type Moved = (Poll<Result<TransferStats, BlockError>>, TransferStats);

/// Sends a stream of blocks.
pub(crate) fn transfer<F: Speaks>(
    link: &mut Link<F>,
    outgoing: &mut Outgoing,
    socket: &Socket,
    transfer: &Transfer,
) {
    let make = |draft: &Draft| outgoing.make(*draft);
    let payloads: Vec<_> = transfer.blocks.iter().map(make).collect();
    let kinds = transfer.blocks.iter().map(|draft| draft.kind);
    let give = |(block, kind)| Given::new(block, kind);
    let blocks: Vec<_> = payloads.iter().zip(kinds).map(give).collect();
    let (taken, waits) = (Cell::new(0), Cell::new(false));
    let source = Source {
        blocks: &blocks,
        taken: &taken,
        pausing: transfer.pausing,
        paused: false,
        waits: &waits,
    };
    let end = link.sender();
    let keeps_all = matches!(end, End::Transport(_));
    let (polled, stats) = sending!(&mut *end, |it| match transfer.failing {
        true => {
            let failure = futures::stream::once(async { Err("it fails") });
            let source = source.map(Ok).chain(failure);
            run(
                try_send_blocks(it, source),
                |it| it.stats(),
                socket,
                transfer,
            )
        }
        false => run(send_blocks(it, source), |it| it.stats(), socket, transfer),
    });
    let (before, held) = (outgoing.ends.len(), outgoing.bytes.len());
    let refused = outgoing.taken(&payloads[..taken.get()]);
    outgoing.assert_front(socket);
    outgoing.assert_stats(&stats, before, held, socket);
    let error = match &polled {
        Poll::Ready(Err(error)) => Some(error),
        _ => None,
    };
    assert_failure(error, socket.write_failure());
    match polled {
        Poll::Pending => {
            met("a transfer given up");
            if waits.get() && !socket.is_blocked() {
                met("a source that has nothing yet");
                outgoing.assert_flushed(socket);
            }
        }
        Poll::Ready(Ok(result)) => {
            met("a whole transfer");
            assert!(refused.is_none() && !transfer.failing, "a failure is lost");
            assert_eq!(taken.get(), blocks.len(), "not all was taken");
            assert_eq!(result, stats);
            outgoing.assert_flushed(socket);
        }
        Poll::Ready(Err(BlockError::Io(_))) => {}
        Poll::Ready(Err(BlockError::Source(_))) => {
            met("a source that fails");
            assert!(
                transfer.failing && refused.is_none(),
                "the source has not failed"
            );
            assert_eq!(taken.get(), blocks.len(), "not all was taken");
            outgoing.assert_flushed(socket);
        }
        Poll::Ready(Err(error)) => {
            met("a block refused in a transfer");
            assert_eq!(Some(format!("{error:?}")), refused);
            outgoing.assert_flushed(socket);
        }
    }
    if transfer.leaked && !keeps_all {
        met("a transfer leaked that takes what it has queued with it");
        outgoing.lose(held, socket);
    }
}

/// Polls a transfer, and leaks it if told to.
fn run<S>(sending: S, stats: fn(&S) -> TransferStats, socket: &Socket, plan: &Transfer) -> Moved
where
    S: Future<Output = Result<TransferStats, BlockError>>,
{
    let mut sending = Box::pin(sending);
    let polled = poll_often(sending.as_mut(), plan.polls, socket);
    if let Poll::Ready(Err(_)) = polled {
        let again = poll_often(sending.as_mut(), 1, socket);
        let fails = matches!(again, Poll::Ready(Err(BlockError::Io(_))));
        assert!(fails, "{again:?} after a failure");
    }
    let moved = (polled, stats(&sending));
    forget_if(plan.leaked, sending);
    moved
}
