//! The same code over every transport, spawned on a multi-thread runtime, with no type annotated.

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, split},
    net::{TcpListener, TcpStream},
};
use tokio_util::codec::{Framed, FramedRead, FramedWrite};
use wholeblock::{BlockCodec, BlockError, Exact, Framing, LengthPrefix, recv_blocks, send_blocks};

use crate::support::{numbered_for, prefixed, wire, with_each_framing};

/// 60 blocks, from empty ones to some that take many reads and writes.
fn blocks<F: Framing>(framing: &F) -> Vec<Bytes> {
    numbered_for(framing, &[0, 1, 500, 8_192, 51_200, 300_000].repeat(10))
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// Sends by `send_blocks`, receives by `recv_blocks`, both spawned; then the other way round by
/// sink and stream.
async fn there_and_back<T, F>(near: T, far: T, framing: F)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Framing + Copy + Send + Sync + 'static,
{
    let expected = blocks(&framing);
    let outgoing = expected.clone();
    let near = tokio::spawn(async move {
        let mut framed = Framed::new(near, BlockCodec::new(framing));
        let sent = send_blocks(&mut framed, stream::iter(outgoing.clone())).await?;
        assert_eq!(sent.blocks, outgoing.len() as u64);
        let mut back = Vec::new();
        while let Some(block) = framed.next().await {
            back.push(block?.freeze());
        }
        framed.close().await?;
        assert_eq!(back, outgoing);
        Ok::<_, BlockError>(sent)
    });
    let far = tokio::spawn(async move {
        let mut framed = Framed::new(far, BlockCodec::new(framing));
        let count = expected.len() as u64;
        let mut at = 0;
        let mut receiving = recv_blocks(&mut framed).stop_after(count).at_least(count);
        while let Some(block) = receiving.next().await? {
            assert_eq!(block, expected[at], "block {at}");
            at += 1;
        }
        let received = receiving.stats();
        drop(receiving);
        for block in expected {
            framed.feed(block).await?;
        }
        framed.close().await?;
        assert!(framed.next().await.is_none(), "a clean end");
        Ok::<_, BlockError>(received)
    });
    let (sent, received) = tokio::join!(near, far);
    let (sent, received) = (sent.unwrap().unwrap(), received.unwrap().unwrap());
    assert_eq!(sent.blocks, received.blocks);
    assert_eq!(sent.payload_bytes, received.payload_bytes);
    assert_eq!(sent.wire_bytes, received.wire_bytes);
}

macro_rules! each_framing_over {
    ($pair:expr) => {
        with_each_framing!(|case| {
            let (near, far) = $pair;
            there_and_back(near, far, case.framing).await
        });
        let (near, far) = $pair;
        there_and_back(near, far, Exact::new(51_200).unwrap()).await;
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_cross_a_tcp_stream_whole() {
    each_framing_over!(tcp_pair().await);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_cross_a_unix_stream_whole() {
    each_framing_over!(tokio::net::UnixStream::pair().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_cross_a_duplex_whole() {
    each_framing_over!(tokio::io::duplex(10_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_two_halves_of_one_socket_work_in_two_tasks() {
    let (near, far) = tcp_pair().await;
    let expected = blocks(&LengthPrefix::u32());
    let echo = tokio::spawn(async move {
        let (read, write) = far.into_split();
        let blocks = FramedRead::new(read, BlockCodec::length_prefixed());
        let mut sink = FramedWrite::new(write, BlockCodec::length_prefixed());
        let blocks = blocks.map(|block| block.map(bytes::BytesMut::freeze));
        let sent = wholeblock::try_send_blocks(&mut sink, blocks).await?;
        sink.close().await?;
        Ok::<_, BlockError>(sent)
    });
    let (read, write) = split(near);
    let outgoing = expected.clone();
    let sender = tokio::spawn(async move {
        let mut sink = FramedWrite::new(write, BlockCodec::length_prefixed());
        let sent = send_blocks(&mut sink, stream::iter(outgoing)).await?;
        sink.close().await?;
        Ok::<_, BlockError>(sent)
    });
    let receiver = tokio::spawn(async move {
        let mut source = FramedRead::new(read, BlockCodec::length_prefixed());
        let mut receiving = recv_blocks(&mut source);
        let mut at = 0;
        while let Some(batch) = receiving.next_batch().await? {
            for block in batch {
                assert_eq!(block, expected[at]);
                at += 1;
            }
        }
        assert_eq!(at, expected.len());
        Ok::<_, BlockError>(())
    });
    assert_eq!(sender.await.unwrap().unwrap().blocks, 60);
    receiver.await.unwrap().unwrap();
    assert_eq!(echo.await.unwrap().unwrap().blocks, 60);
}

#[tokio::test]
async fn sink_and_stream_need_no_type_annotation() {
    let (near, far) = tokio::io::duplex(1_000);
    let mut framed = Framed::new(near, BlockCodec::exact(3).unwrap());
    framed.send(Bytes::from("abc")).await.unwrap();
    framed.feed(Bytes::from("def")).await.unwrap();
    framed.flush().await.unwrap();
    framed.close().await.unwrap();
    let mut framed = Framed::new(far, BlockCodec::exact(3).unwrap());
    let mut blocks = Vec::new();
    while let Some(block) = framed.next().await {
        let block = block.unwrap();
        blocks.push(block);
    }
    assert_eq!(blocks, [&b"abc"[..], b"def"]);
}

#[tokio::test]
async fn a_peer_that_closes_inside_a_block_is_told_apart_from_one_that_closes_after_it() {
    for (cut, whole) in [(0, true), (1, false)] {
        let (mut near, far) = tcp_pair().await;
        let bytes = wire(LengthPrefix::u32(), &[Bytes::from_static(b"block")]);
        near.write_all(&bytes[..bytes.len() - cut]).await.unwrap();
        drop(near);
        let mut framed = prefixed(far);
        match framed.next().await.unwrap() {
            Ok(block) => assert!(whole && block == "block"),
            Err(error) => {
                let expected = "stream ended inside block 0, which begins at byte 0: \
                                4 of 5 payload bytes arrived";
                assert!(!whole && error.to_string() == expected, "{error}");
            }
        }
        assert!(framed.next().await.is_none());
    }
}
