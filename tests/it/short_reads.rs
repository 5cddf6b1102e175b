//! The point of the crate: a completed read is not a block.
//!
//! Over sockets with small buffers, blocks reach a slow receiver in fragments. A program that took each
//! completed read for a block would count too many. On Windows, an I/O completion port completes such
//! receives with less than was asked for. The tests expect the same on every platform, also if a peer
//! resets the connection inside a block.

use std::{
    error::Error,
    future::{Future, poll_fn},
    io,
    net::Ipv4Addr,
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream};
use testing::{Watched, numbered, wire, within_limit};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task,
};
use tokio_util::codec::{FramedRead, FramedWrite};
use wholeblock::{BlockCodec, BlockError, Exact, Framing, TransferStats, recv_blocks, send_blocks};

const BLOCKS: usize = 100;
const BLOCK_LEN: usize = 51_200;

/// Set on both sides: less than a third of a block, so that almost every block is fragmented.
const SOCKET_BUFFER: u32 = 16 * 1024;

#[tokio::test]
async fn each_fragmented_exact_block_is_lent_whole_and_once() {
    let lens = [BLOCK_LEN; BLOCKS];
    within_limit(lends_whole(exact, &lens)).await;
}

#[tokio::test]
async fn each_fragmented_prefixed_block_is_lent_whole_and_once() {
    within_limit(lends_whole(BlockCodec::length_prefixed, &mixed_lens())).await;
}

#[tokio::test]
async fn each_fragmented_exact_block_leaves_the_stream_whole_and_once() {
    let lens = [BLOCK_LEN; BLOCKS];
    within_limit(yields_whole(exact, &lens)).await;
}

#[tokio::test]
async fn each_fragmented_prefixed_block_leaves_the_stream_whole_and_once() {
    within_limit(yields_whole(BlockCodec::length_prefixed, &mixed_lens())).await;
}

#[tokio::test]
async fn reset_at_any_place_in_an_exact_block_is_an_io_error() {
    for (place, of_third_block) in [("between blocks", 0), ("in a payload", 30_000)] {
        within_limit(meets_reset(exact, of_third_block, place)).await;
    }
}

#[tokio::test]
async fn reset_at_any_place_in_a_prefixed_block_is_an_io_error() {
    for (place, of_third_block) in [
        ("between blocks", 0),
        ("in a header", 3),
        ("right after a header", 4),
        ("in a payload", 30_000),
    ] {
        within_limit(meets_reset(
            BlockCodec::length_prefixed,
            of_third_block,
            place,
        ))
        .await;
    }
}

#[tokio::test]
async fn reset_while_sending_is_an_io_error() {
    within_limit(async {
        let (near, far) = connect().await.unwrap();
        let (full, sender_is_stuck) = oneshot::channel();
        let blocks = numbered(&[BLOCK_LEN; BLOCKS]);
        let sending = task::spawn(send(near, exact(), blocks, full));

        sender_is_stuck.await.unwrap();
        reset(far);
        assert_reset(sending.await.unwrap().unwrap_err(), "while sending");
    })
    .await;
}

/// Receives blocks of `lens` bytes through `recv_blocks`, and checks its statistics.
async fn lends_whole<F>(codec: fn() -> BlockCodec<F>, lens: &[usize])
where
    F: Framing + Send + 'static,
{
    let blocks = numbered(lens);
    let (mut framed, sending) = start(codec, &blocks).await;

    let mut incoming = recv_blocks(&mut framed);
    let mut expected = blocks.iter();
    while let Some(block) = incoming.next().await.unwrap() {
        let index = blocks.len() - expected.len();
        assert!(block == expected.next().unwrap(), "block {index} differs");
        task::yield_now().await; // lets the sender fill the buffers first
    }
    let received = incoming.stats();
    drop(incoming);
    println!("{received}");

    let sent = sending.await.unwrap().unwrap();
    assert_eq!(received.blocks, blocks.len() as u64);
    assert_eq!(received.blocks, sent.blocks);
    assert_eq!(received.payload_bytes, sent.payload_bytes);
    assert_eq!(received.wire_bytes, sent.wire_bytes);

    // The statistics equal what the socket did.
    let watched = framed.get_ref();
    assert_eq!(received.reads, watched.reads);
    assert_eq!(received.wire_bytes, *watched.arrived.borrow());
    assert!(received.reads > received.blocks, "{received}");
    assert!(
        received.fragmented_blocks > received.blocks / 2,
        "{received}"
    );
}

/// Receives blocks of `lens` bytes through the plain `Stream`.
async fn yields_whole<F>(codec: fn() -> BlockCodec<F>, lens: &[usize])
where
    F: Framing + Send + Unpin + 'static,
{
    let blocks = numbered(lens);
    let (mut framed, sending) = start(codec, &blocks).await;

    let mut expected = blocks.iter();
    while let Some(block) = framed.next().await {
        let index = blocks.len() - expected.len();
        assert!(
            block.unwrap() == expected.next().unwrap(),
            "block {index} differs"
        );
        task::yield_now().await; // lets the sender fill the buffers first
    }

    let sent = sending.await.unwrap().unwrap();
    assert_eq!(expected.len(), 0, "the stream ended early");
    assert_eq!(sent.blocks, blocks.len() as u64);
    let watched = framed.get_ref();
    println!("{} blocks in {} reads", sent.blocks, watched.reads);
    assert!(watched.reads > sent.blocks, "{} reads", watched.reads);
}

/// Receives two blocks and the first `of_third_block` bytes of a third, and then meets a reset.
async fn meets_reset<F>(codec: fn() -> BlockCodec<F>, of_third_block: usize, place: &str)
where
    F: Framing + Send + Unpin + 'static,
{
    let blocks = numbered(&[BLOCK_LEN; 3]);
    let mut wire = wire(codec().framing().clone(), &blocks);
    wire.truncate(wire.len() / 3 * 2 + of_third_block);

    for lent in [true, false] {
        let (mut near, far) = connect().await.unwrap();
        let far = Watched::new(far);
        let mut arrived = far.arrived.subscribe();
        let wire = wire.clone();
        let peer = task::spawn(async move {
            near.write_all(&wire).await.unwrap();
            // A reset may discard what has not been read, and does on Windows.
            let all = wire.len() as u64;
            arrived.wait_for(|&arrived| arrived == all).await.unwrap();
            reset(near);
        });

        let mut framed = FramedRead::new(far, codec());
        let mut received = Vec::new();
        let error = if lent {
            let mut incoming = recv_blocks(&mut framed);
            loop {
                match incoming.next().await {
                    Ok(block) => received.push(block.expect("a clean end").to_vec()),
                    Err(error) => break error,
                }
            }
        } else {
            let error = loop {
                match framed.next().await.expect("a clean end") {
                    Ok(block) => received.push(block.to_vec()),
                    Err(error) => break error,
                }
            };
            assert!(framed.next().await.is_none(), "{place}");
            error
        };
        assert!(received == blocks[..2], "{place}");
        assert_reset(error, place);
        peer.await.unwrap();
    }
}

/// Asserts that `error` is the system's own reset, and not an error about a block.
#[track_caller]
fn assert_reset(error: BlockError, place: &str) {
    assert!(matches!(error, BlockError::Io(_)), "{place}: {error:?}");
    let error = io::Error::from(error);
    let kinds = [
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionAborted,
    ];
    assert!(kinds.contains(&error.kind()), "{place}: {error:?}");
    assert!(error.source().is_none(), "{place}: {error:?}");
    if cfg!(windows) {
        // WSAECONNABORTED, WSAECONNRESET
        let code = error.raw_os_error();
        assert!(matches!(code, Some(10_053 | 10_054)), "{place}: {error:?}");
    }
}

fn exact() -> BlockCodec<Exact> {
    BlockCodec::exact(BLOCK_LEN).unwrap()
}

/// 40,000 to 80,000 bytes in no order, so each larger than a socket's buffer.
fn mixed_lens() -> Vec<usize> {
    (0..BLOCKS).map(|i| 40_000 + i * 7_919 % 40_000).collect()
}

/// Starts to send `blocks`, and waits until no more go out: from here on, the receiver is behind.
async fn start<F>(
    codec: fn() -> BlockCodec<F>,
    blocks: &[Bytes],
) -> (
    FramedRead<Watched<TcpStream>, BlockCodec<F>>,
    task::JoinHandle<Result<TransferStats, BlockError>>,
)
where
    F: Framing + Send + 'static,
{
    let (near, far) = connect().await.unwrap();
    let (full, sender_is_stuck) = oneshot::channel();
    let sending = task::spawn(send(near, codec(), blocks.to_vec(), full));
    sender_is_stuck.await.unwrap();
    (FramedRead::new(Watched::new(far), codec()), sending)
}

/// Sends `blocks` and closes. Signals `full` when the socket first takes no more.
async fn send<F: Framing>(
    socket: TcpStream,
    codec: BlockCodec<F>,
    blocks: Vec<Bytes>,
    full: oneshot::Sender<()>,
) -> Result<TransferStats, BlockError> {
    let mut framed = FramedWrite::new(Watched::new(socket), codec);
    let mut sending = send_blocks(&mut framed, stream::iter(blocks));
    let mut full = Some(full);
    let sent = poll_fn(|cx| {
        let polled = Pin::new(&mut sending).poll(cx);
        if let Some(full) = full.take_if(|_| polled.is_pending()) {
            full.send(()).unwrap();
        }
        polled
    })
    .await?;
    drop(sending);
    framed.close().await?;
    assert_eq!(sent.writes, framed.get_ref().writes);
    Ok(sent)
}

/// Both ends of a connection with small buffers.
async fn connect() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpSocket::new_v4()?;
    // Set before the connection is made, because the accepted socket takes its buffer and window from here.
    listener.set_recv_buffer_size(SOCKET_BUFFER)?;
    listener.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let listener = listener.listen(1)?;

    let near = TcpSocket::new_v4()?;
    near.set_send_buffer_size(SOCKET_BUFFER)?;
    let near = near.connect(listener.local_addr()?);
    let (near, (far, _)) = tokio::try_join!(near, listener.accept())?;
    Ok((near, far))
}

/// Closes a connection with a reset instead of an end.
fn reset(socket: TcpStream) {
    #[allow(
        deprecated,
        reason = "`set_zero_linger` is not in the oldest tokio this works with"
    )]
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}
