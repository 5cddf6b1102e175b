//! One connection of the service: requests in, answers out, in the order of the requests.

use std::{
    future,
    pin::pin,
    task::{Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{BoxError, Service, ServiceExt};
use wholeblock::{BlockCodec, BlockError, BlockTransport, LengthPrefix, send_blocks};

use crate::{over::BoxIo, requests::refusal};

/// The longest request, in bytes. An answer is at most a few words longer.
pub(crate) const MAX_REQUEST: usize = 1 << 20;

/// How long a client may take to end its side once it has all of its answers.
const LINGER: Duration = Duration::from_secs(2);

/// How many bytes the client may still send meanwhile. The service discards them.
const LINGER_BYTES: u64 = 64 << 20;

/// Limits on a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Requests of one connection that are begun and not yet answered. Further requests stay unread, so TCP
    /// holds the client back. This bounds the memory of a connection.
    pub(crate) pipelined: usize,
    /// How long no bytes may move, unless the client is waiting for an answer.
    pub(crate) stall_timeout: Duration,
    /// How long a request may take to arrive after its first byte.
    pub(crate) block_deadline: Duration,
}

/// The result of a connection.
#[derive(Debug)]
pub(crate) struct Served {
    /// Answers handed to the system.
    pub(crate) answered: u64,
    pub(crate) end: Result<(), BlockError>,
}

/// A big-endian u32 before each block, like `LengthDelimitedCodec`'s default.
pub(crate) fn codec() -> BlockCodec<LengthPrefix> {
    let framing = LengthPrefix::u32().max_block_len(MAX_REQUEST);
    BlockCodec::new(framing.expect("1 MiB fits into a u32"))
}

/// Answers the requests from `io` until the client ends its side, breaks off or is too slow, or until `stop`.
/// Still answers the requests that were begun before that.
pub(crate) async fn serve<S>(
    io: BoxIo,
    service: S,
    limits: Limits,
    stop: &CancellationToken,
) -> Served
where
    S: Service<BytesMut, Response = Bytes, Error = BoxError> + Clone,
{
    let write_len = io.write_len();
    // Two halves, so that requests are read while answers wait to be written.
    let (read, write) = io::split(io);
    let mut requests = BlockTransport::new(read, codec())
        .stall_timeout(limits.stall_timeout)
        .block_deadline(limits.block_deadline);
    let mut answers = BlockTransport::new(write, codec());
    if let Some(bytes) = write_len {
        answers = answers.write_len(bytes);
    }

    let in_flight = TaskTracker::new();
    let mut end = Ok(());
    let begun = pin!(
        (&mut requests)
            .take_until(stop.cancelled())
            .filter(|request| {
                // A client that waits for an answer may be silent.
                let silent = matches!(request, Err(BlockError::Stalled { .. }));
                future::ready(!silent || in_flight.is_empty())
            })
    );
    let begun = until_error(begun, &mut end);
    let answering = in_order(begun, service, limits.pipelined, &in_flight);
    let mut sending = send_blocks(&mut answers, answering).stall_timeout(limits.stall_timeout);
    let sent = (&mut sending).await;
    let answered = sending.stats().blocks;
    drop(sending);

    let end = match sent {
        Ok(_) => close(answers, requests, limits).await.and(end),
        Err(error) => Err(error),
    };
    Served { answered, end }
}

/// Yields the requests up to the first error, and stores the error in `end`.
pub(crate) fn until_error<T, E>(
    mut requests: impl Stream<Item = Result<T, E>> + Unpin,
    end: &mut Result<(), E>,
) -> impl Stream<Item = T> {
    stream::poll_fn(move |cx| {
        let request = ready!(requests.poll_next_unpin(cx)).transpose();
        Poll::Ready(request.unwrap_or_else(|error| {
            *end = Err(error);
            None
        }))
    })
}

/// Adapts a stream of requests to a tower `Service`. Works on up to `pipelined` requests at once. Yields the
/// answers in the order of the requests.
///
/// tokio-tower's pipeline server does not bound the requests in flight, and flushes after each answer. Its last
/// release, 0.7.0-rc4, is built on tower 0.4.
pub(crate) fn in_order<S>(
    requests: impl Stream<Item = BytesMut>,
    service: S,
    pipelined: usize,
    in_flight: &TaskTracker,
) -> impl Stream<Item = Bytes>
where
    S: Service<BytesMut, Response = Bytes, Error = BoxError> + Clone,
{
    requests
        // `oneshot` waits until the clone is ready, as a `Service` demands, and calls it.
        .map(move |request| in_flight.track_future(service.clone().oneshot(request)))
        .buffered(pipelined)
        .map(|answer| answer.unwrap_or_else(refusal))
}

/// Ends the answers, and waits until the client ends its requests. To close a socket with unread bytes would
/// reset the connection, and the client could lose answers.
async fn close<R, W>(
    mut answers: BlockTransport<W, LengthPrefix>,
    requests: BlockTransport<R, LengthPrefix>,
    limits: Limits,
) -> Result<(), BlockError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    match timeout(limits.stall_timeout, answers.close()).await {
        Ok(closed) => closed?,
        Err(_) => return Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
    let mut unread = requests.into_inner().take(LINGER_BYTES);
    // A failure does not matter here, because all answers are on their way.
    let _ = timeout(LINGER, io::copy(&mut unread, &mut io::sink())).await;
    Ok(())
}
