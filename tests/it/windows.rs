//! What only Windows has: named pipes, and send buffers of exactly the size asked for.
//!
//! Sockets need no tests of their own on Windows: `short_reads` and every other test run there, too.

use std::{
    io,
    net::Ipv4Addr,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, future, stream};
use testing::{KIB, MIB, Watched, numbered, prefixed, within_limit};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{
        TcpSocket,
        windows::named_pipe::{ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions},
    },
    task,
};
use tokio_util::codec::{FramedRead, FramedWrite};
use wholeblock::internals::FULL_WRITE;
use wholeblock::{BlockCodec, BlockError, BlockPart, Framing, recv_blocks, send_blocks};

const BLOCKS: usize = 100;

#[tokio::test]
async fn large_blocks_cross_a_named_pipe_whole() {
    let codec = || BlockCodec::exact(51_200).unwrap();
    within_limit(through_a_pipe(codec, 51_200)).await;
}

#[tokio::test]
async fn small_blocks_cross_a_named_pipe_whole_in_one_write() {
    within_limit(through_a_pipe(BlockCodec::length_prefixed, 64)).await;
}

#[tokio::test]
async fn empty_block_crosses_a_named_pipe_between_others() {
    within_limit(async {
        let (near, far) = pipe().await.unwrap();
        let blocks = ["before", "", "after"].map(Bytes::from);
        let mut sender = FramedWrite::new(near, BlockCodec::length_prefixed());
        let sent = send_blocks(&mut sender, stream::iter(blocks.clone())).await;
        assert_eq!(sent.unwrap().writes, 1);

        let mut receiver = FramedRead::new(far, BlockCodec::length_prefixed());
        for block in blocks {
            assert_eq!(receiver.next().await.unwrap().unwrap(), block);
        }
    })
    .await;
}

#[tokio::test]
async fn a_sink_and_a_stream_over_a_named_pipe_carry_blocks_both_ways_at_once() {
    within_limit(async {
        let (near, far) = pipe().await.unwrap();
        let blocks = numbered(&[1, 64, 4 * KIB, 51_200, MIB]);

        let echo = task::spawn(async move {
            let mut framed = prefixed(far);
            while let Some(block) = framed.next().await {
                framed.send(block.unwrap().freeze()).await.unwrap();
            }
        });
        let (mut sink, stream) = prefixed(near).split();
        let sending = async {
            for block in &blocks {
                sink.send(block.clone()).await.unwrap();
            }
        };
        let count = blocks.len();
        let (_, echoed) = future::join(sending, stream.take(count).collect::<Vec<_>>()).await;
        for (block, echoed) in blocks.iter().zip(&echoed) {
            assert!(block == echoed.as_ref().unwrap(), "{} bytes", block.len());
        }
        assert_eq!(echoed.len(), count);

        drop(sink); // closes the pipe, which ends the other side's stream
        echo.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_named_pipe_closed_within_a_block_truncates_it() {
    within_limit(async {
        let (mut near, far) = pipe().await.unwrap();
        near.write_all(b"\0\0\0\x05hello\0\0\0\x05wor")
            .await
            .unwrap();
        drop(near);

        let mut receiver = FramedRead::new(far, BlockCodec::length_prefixed());
        let mut incoming = recv_blocks(&mut receiver);
        assert_eq!(incoming.next().await.unwrap().unwrap(), b"hello");
        let error = incoming.next().await.unwrap_err();
        assert!(
            matches!(
                error,
                BlockError::Truncated {
                    part: BlockPart::Payload,
                    expected: 5,
                    received: 3,
                    index: 1,
                    offset: 9,
                }
            ),
            "{error:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn send_buffer_of_ten_times_the_default_is_granted_in_full() {
    within_limit(async {
        let listener = TcpSocket::new_v4().unwrap();
        listener.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = listener.listen(1).unwrap();

        let near = TcpSocket::new_v4().unwrap();
        let default = near.send_buffer_size().unwrap();
        near.set_send_buffer_size(10 * default).unwrap();
        let granted = near.send_buffer_size().unwrap();
        println!("SO_SNDBUF: {default} by default, {granted} granted");
        assert!(default > 0);
        assert_eq!(granted, 10 * default);

        let near = near.connect(listener.local_addr().unwrap());
        let (near, accepted) = tokio::join!(near, listener.accept());
        let codec = || BlockCodec::exact(51_200).unwrap();
        carries(near.unwrap(), accepted.unwrap().0, codec, 51_200).await;
    })
    .await;
}

/// Sends blocks of `len` bytes through a named pipe, which does not support vectored writes.
async fn through_a_pipe<F>(codec: fn() -> BlockCodec<F>, len: usize)
where
    F: Framing + Send + 'static,
{
    let (near, far) = pipe().await.unwrap();
    assert!(!near.is_write_vectored());
    assert!(!far.is_write_vectored());

    let writes = carries(Watched::new(near), far, codec, len).await;
    if BLOCKS * (4 + len) <= FULL_WRITE {
        assert_eq!(writes, 1, "one write has room for every block");
    }
}

/// Sends blocks of `len` bytes from one end to the other, and returns the number of writes.
async fn carries<W, R, F>(near: W, far: R, codec: fn() -> BlockCodec<F>, len: usize) -> u64
where
    W: AsyncWrite + Send + Unpin + 'static,
    R: AsyncRead + Unpin,
    F: Framing + Send + 'static,
{
    let blocks = numbered(&[len; BLOCKS]);
    let outgoing = blocks.clone();
    let sending = task::spawn(async move {
        let mut framed = FramedWrite::new(near, codec());
        let sent = send_blocks(&mut framed, stream::iter(outgoing))
            .await
            .unwrap();
        framed.close().await.unwrap();
        sent
    });

    let mut framed = FramedRead::new(far, codec());
    let mut incoming = recv_blocks(&mut framed).at_least(BLOCKS as u64);
    let mut expected = blocks.iter();
    while let Some(block) = incoming.next().await.unwrap() {
        assert!(block == expected.next().unwrap(), "a block differs");
    }
    let received = incoming.stats();
    let sent = sending.await.unwrap();
    println!("{sent}\n{received}");
    assert_eq!(sent.blocks, BLOCKS as u64);
    assert_eq!(received.blocks, BLOCKS as u64);
    assert_eq!(received.wire_bytes, sent.wire_bytes);
    sent.writes
}

/// Both ends of a new named pipe.
async fn pipe() -> io::Result<(NamedPipeClient, NamedPipeServer)> {
    static PIPES: AtomicU32 = AtomicU32::new(0);

    let number = PIPES.fetch_add(1, Ordering::Relaxed);
    let name = format!(r"\\.\pipe\wholeblock-{}-{number}", process::id());
    let server = ServerOptions::new()
        .first_pipe_instance(true)
        .create(&name)?;
    let client = ClientOptions::new().open(&name)?;
    server.connect().await?;
    Ok((client, server))
}
