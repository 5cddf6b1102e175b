//! Attacks on a program that sends.

use std::{
    io,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, future::BoxFuture, stream};
use tokio::{
    io::{AsyncReadExt, copy, sink},
    net::TcpStream,
    sync::oneshot,
    time::{error::Elapsed, timeout},
};
use tokio_util::codec::Framed;
use wholeblock::{BlockCodec, BlockError, BlockTransport, Direction, LengthPrefix, send_blocks};

use crate::crowd::{Attack, reset};

/// A stall timeout that is meant to expire, and one that is not.
const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);

const GIB: usize = 1024 * 1024 * 1024;

/// What all senders send. Zeros cost no memory, because nothing is ever written to them.
static PAYLOAD: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; GIB]));

/// A peer that is sent 1 GiB in `blocks` blocks, and does not want it.
struct Unwilling {
    blocks: usize,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// Stays, and reads nothing.
    NeverReads,
    /// Reads a part of the first blocks, and closes with the next part unread.
    Closes,
    /// Does the same, and resets.
    Resets,
}

fn attacks(then: &[Then]) -> Vec<Arc<dyn Attack>> {
    let mut attacks: Vec<Arc<dyn Attack>> = Vec::new();
    for &then in then {
        for blocks in [1, 1024, 1024 * 1024] {
            attacks.push(Arc::new(Unwilling { blocks, then }));
        }
    }
    attacks
}

pub(crate) fn never_read() -> Vec<Arc<dyn Attack>> {
    attacks(&[Then::NeverReads])
}

pub(crate) fn gone() -> Vec<Arc<dyn Attack>> {
    attacks(&[Then::Closes, Then::Resets])
}

/// Sends through `$framed` until `$attack` ends the transfer. A macro, because no bound can say that a
/// transfer fails with a `BlockError`.
macro_rules! send {
    ($attack:ident, $framed:expr) => {{
        let mut framed = $framed;
        let payloads = stream::iter($attack.payloads());
        let mut sending = send_blocks(&mut framed, payloads).stall_timeout($attack.patience());
        let error = (&mut sending).await.expect_err("nobody has read it");
        $attack.assert_ended_as_it_should(&error, sending.stats().blocks);
    }};
}

impl Attack for Unwilling {
    fn name(&self) -> String {
        format!(
            "{:?} while 1 GiB is sent, blocks: {}",
            self.then, self.blocks
        )
    }

    fn peer(&self, mut socket: TcpStream, over: oneshot::Receiver<()>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.then == Then::NeverReads {
                let _ = over.await; // its sender is dropped
                return;
            }
            let some = copy(&mut (&mut socket).take(100_000), &mut sink()).await;
            assert_eq!(some.unwrap(), 100_000);
            socket.readable().await.unwrap();
            if self.then == Then::Resets {
                reset(socket);
            }
        })
    }

    fn victim(&self, socket: TcpStream, turn: usize) -> BoxFuture<'_, Duration> {
        Box::pin(async move {
            let framing = LengthPrefix::u32().max_block_len(GIB).unwrap();
            let codec = BlockCodec::new(framing);
            match turn % 3 {
                // A transfer copies what it has not sent into `Framed`'s buffer.
                1 if self.blocks > 1 => send!(self, Framed::new(socket, codec)),
                0 | 1 => send!(self, BlockTransport::new(socket, codec)),
                _ => self.feed(BlockTransport::new(socket, codec)).await,
            }
            match self.then {
                Then::NeverReads => SHORT,
                Then::Closes | Then::Resets => Duration::ZERO,
            }
        })
    }
}

impl Unwilling {
    fn patience(&self) -> Duration {
        match self.then {
            Then::NeverReads => SHORT,
            Then::Closes | Then::Resets => LONG,
        }
    }

    fn block_len(&self) -> usize {
        GIB / self.blocks
    }

    /// Everything to send.
    fn payloads(&self) -> impl Iterator<Item = Bytes> + use<> {
        std::iter::repeat_n(PAYLOAD.slice(..self.block_len()), self.blocks)
    }

    fn assert_ended_as_it_should(&self, error: &BlockError, sent: u64) {
        assert!(sent < self.blocks as u64);
        match *error {
            BlockError::Stalled {
                waited,
                direction: Direction::Sending,
                index,
                offset,
            } if self.then == Then::NeverReads => {
                let wire_len = self.block_len() as u64 + 4;
                assert_eq!((waited, index, offset), (SHORT, sent, sent * wire_len));
            }
            _ => self.assert_gone(error),
        }
    }

    /// Sends by the `Sink`, which has no timeout of its own.
    async fn feed(&self, mut transport: BlockTransport<TcpStream, LengthPrefix>) {
        for block in self.payloads() {
            match timeout(self.patience(), transport.feed(block)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.assert_gone(&error),
                Err(_) => return assert_eq!(self.then, Then::NeverReads),
            }
        }
        match timeout(self.patience(), SinkExt::<Bytes>::flush(&mut transport)).await {
            Ok(flushed) => self.assert_gone(&flushed.expect_err("nobody has read it")),
            Err(Elapsed { .. }) => assert_eq!(self.then, Then::NeverReads),
        }
    }

    fn assert_gone(&self, error: &BlockError) {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};

        assert_ne!(self.then, Then::NeverReads, "{error:?}");
        // The first write after a reset fails with `ConnectionReset`, later ones with `BrokenPipe`.
        let as_it_should = matches!(error, BlockError::Io(_))
            && matches!(error.kind(), BrokenPipe | ConnectionReset);
        assert!(as_it_should, "{}: {error:?}", self.name());
    }
}
