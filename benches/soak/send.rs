//! The sender's end.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt, stream};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::codec::{Encoder, Framed};
use wholeblock::{BlockCodec, BlockError, BlockTransport, send_blocks};

use crate::{
    plan::{DEADLINE, Fault, STALL, Sending},
    session::Session,
    tally::Met,
};

type Source<'a> = Pin<Box<dyn Stream<Item = Bytes> + Send + 'a>>;

/// Sends all through `$to`, and goes on after each stall. A macro, since no bound can say that what
/// a transfer fails with is a `BlockError`.
macro_rules! transfer {
    ($session:expr, $source:expr, $to:expr) => {
        loop {
            match send_blocks($to, &mut $source).stall_timeout(STALL).await {
                Ok(_) => break,
                Err(BlockError::Stalled { .. }) => $session.tally.add(Met::StalledSender, 1),
                Err(error) => return Err(error),
            }
        }
    };
}

/// Sends all blocks of a session in the form that is planned, and then ends it as planned.
pub(crate) async fn send(session: &Session, socket: TcpStream) -> Result<(), BlockError> {
    let codec = BlockCodec::new(session.plan.framing);
    let mut source = source(session);
    let socket = match session.plan.sending {
        Sending::Transfer => {
            let mut transport = BlockTransport::new(socket, codec);
            transfer!(session, source, &mut transport);
            transport.into_inner()
        }
        Sending::TransferThroughFramed => {
            let mut framed = Framed::new(socket, codec);
            transfer!(session, source, &mut framed);
            framed.into_inner()
        }
        Sending::Sink => {
            let mut transport = BlockTransport::new(socket, codec);
            feed(session, source, &mut transport).await?;
            transport.into_inner()
        }
        Sending::SinkOfFramed => {
            let mut framed = Framed::new(socket, codec);
            feed(session, source, &mut framed).await?;
            framed.into_inner()
        }
    };
    Ok(end(session, socket).await?)
}

/// The blocks to be sent whole.
fn source(session: &Session) -> Source<'_> {
    let blocks = stream::iter(0..session.whole_blocks());
    let blocks = blocks.then(move |index| async move {
        if let Some(pause) = session.pause_before(index) {
            session.tally.add(Met::Pause, 1);
            sleep(pause).await;
        }
        session.block(index)
    });
    Box::pin(blocks.fuse())
}

/// As a `Sink`, flushed now and then.
async fn feed<S>(session: &Session, mut source: Source<'_>, sink: &mut S) -> Result<(), BlockError>
where
    S: Sink<Bytes, Error = BlockError> + Unpin,
{
    let mut random = session.random();
    while let Some(block) = source.next().await {
        in_time(session, |cx| sink.poll_ready_unpin(cx)).await?;
        sink.start_send_unpin(block)?;
        if random.u8(..) < 10 {
            in_time(session, |cx| sink.poll_flush_unpin(cx)).await?;
        }
    }
    in_time(session, |cx| sink.poll_flush_unpin(cx)).await
}

/// Waits again each time that nothing has come of it within the stall timeout.
async fn in_time(
    session: &Session,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<Result<(), BlockError>>,
) -> Result<(), BlockError> {
    loop {
        match timeout(STALL, poll_fn(&mut poll)).await {
            Ok(done) => return done,
            Err(_) => session.tally.add(Met::StalledSender, 1),
        }
    }
}

/// Sends what is not a whole block, and closes the connection.
async fn end(session: &Session, mut socket: TcpStream) -> io::Result<()> {
    let plan = &session.plan;
    match plan.fault {
        Fault::Dribble => {
            let wire = last_block(session);
            let slow = wire.len().min(5);
            for byte in &wire[..slow - 1] {
                socket.write_all(&[*byte]).await?;
                sleep(STALL / 2).await;
            }
            sleep((DEADLINE * 2).saturating_sub(STALL / 2 * slow as u32)).await;
            socket.write_all(&wire[slow - 1..]).await?;
        }
        Fault::HalfClose | Fault::ResetBySender => {
            let wire = last_block(session);
            let cut = session.random().usize(1..wire.len());
            socket.write_all(&wire[..cut]).await?;
            if plan.fault == Fault::ResetBySender {
                return reset(socket);
            }
        }
        Fault::BadHeader => socket.write_all(&[0xff; 8]).await?,
        _ => {}
    }
    socket.shutdown().await
}

fn last_block(session: &Session) -> BytesMut {
    let mut wire = BytesMut::new();
    let last = session.block(session.plan.blocks - 1);
    let encoded = BlockCodec::new(session.plan.framing).encode(last, &mut wire);
    encoded.expect("a block that the framing carries");
    wire
}

pub(crate) fn reset(socket: TcpStream) -> io::Result<()> {
    #[allow(
        deprecated,
        reason = "`set_zero_linger` is not in the oldest tokio this works with"
    )]
    socket.set_linger(Some(Duration::ZERO))
}
