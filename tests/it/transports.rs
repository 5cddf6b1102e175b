//! The same code over every transport, spawned on a multi-thread runtime, with no type annotated.

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, TryStreamExt, future, stream};
use testing::{numbered_for, prefixed, tcp_pair, transport, wire, with_each_framing, within_limit};
use tokio::io::{AsyncWriteExt, split};
use tokio_util::codec::{Framed, FramedRead, FramedWrite};
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, Exact, Framing, LengthPrefix, recv_blocks, send_blocks,
};

/// 60 blocks, from empty ones to some that take many reads and writes.
pub(crate) fn blocks<F: Framing>(framing: &F) -> Vec<Bytes> {
    numbered_for(framing, &[0, 1, 500, 8_192, 51_200, 300_000].repeat(10))
}

/// Sends by `send_blocks`, receives by `recv_blocks`, both spawned; then the other way round by
/// sink and stream. `$Blocks` is `Framed` or `BlockTransport`.
macro_rules! there_and_back {
    ($Blocks:ident, $pair:expr, $framing:expr) => {{
        let (near, far) = $pair;
        let framing = $framing;
        let expected = blocks(&framing);
        let outgoing = expected.clone();
        let near = tokio::spawn(async move {
            let mut blocks = $Blocks::new(near, BlockCodec::new(framing));
            let sent = send_blocks(&mut blocks, stream::iter(outgoing.clone())).await?;
            assert_eq!(sent.blocks, outgoing.len() as u64);
            let mut back = Vec::new();
            while let Some(block) = blocks.next().await {
                back.push(block?.freeze());
            }
            blocks.close().await?;
            assert_eq!(back, outgoing);
            Ok::<_, BlockError>(sent)
        });
        let far = tokio::spawn(async move {
            let mut blocks = $Blocks::new(far, BlockCodec::new(framing));
            let count = expected.len() as u64;
            let mut at = 0;
            let mut receiving = recv_blocks(&mut blocks).stop_after(count).at_least(count);
            while let Some(block) = receiving.next().await? {
                assert_eq!(block, expected[at], "block {at}");
                at += 1;
            }
            let received = receiving.stats();
            drop(receiving);
            for block in expected {
                blocks.feed(block).await?;
            }
            blocks.close().await?;
            assert!(blocks.next().await.is_none(), "a clean end");
            Ok::<_, BlockError>(received)
        });
        let (sent, received) = within_limit(future::join(near, far)).await;
        let (sent, received) = (sent.unwrap().unwrap(), received.unwrap().unwrap());
        assert_eq!(sent.blocks, received.blocks);
        assert_eq!(sent.payload_bytes, received.payload_bytes);
        assert_eq!(sent.wire_bytes, received.wire_bytes);
    }};
}

macro_rules! each_framing_over {
    ($pair:expr) => {
        with_each_framing!(|case| {
            there_and_back!(Framed, $pair, case.framing);
            there_and_back!(BlockTransport, $pair, case.framing);
        });
        let framing = Exact::new(51_200).unwrap();
        there_and_back!(Framed, $pair, framing);
        there_and_back!(BlockTransport, $pair, framing);
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
        while let Some(block) = receiving.next().await? {
            assert_eq!(block, expected[at]);
            at += 1;
        }
        assert_eq!(at, expected.len());
        Ok::<_, BlockError>(())
    });
    let sent = within_limit(sender).await.unwrap().unwrap();
    assert_eq!(sent.blocks, 60);
    within_limit(receiver).await.unwrap().unwrap();
    let sent = within_limit(echo).await.unwrap().unwrap();
    assert_eq!(sent.blocks, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halves_of_a_socket_work_as_two_transports_in_two_tasks() {
    let (near, far) = tcp_pair().await;
    let expected = blocks(&LengthPrefix::u32());
    // One end uses `into_split`, the other tokio's `split`.
    let (read, write) = far.into_split();
    let (source, sink) = (transport(read), transport(write));
    let echo = tokio::spawn(source.map_ok(BytesMut::freeze).forward(sink));
    let (read, write) = split(near);
    let (mut source, mut sink) = (transport(read), transport(write));
    let outgoing = expected.clone();
    let sender = tokio::spawn(async move {
        let first = stream::iter(outgoing[..20].to_vec());
        sink.send_all(&mut first.map(Ok)).await?;
        // A spawned task can send borrowed blocks.
        send_blocks(&mut sink, stream::iter(&outgoing[20..])).await?;
        sink.close().await
    });
    let receiver = tokio::spawn(async move {
        let mut at = 0;
        let mut receiving = recv_blocks(&mut source).stop_after(30);
        while let Some(block) = receiving.next().await? {
            assert_eq!(block, expected[at]);
            at += 1;
        }
        drop(receiving);
        while let Some(block) = source.next().await {
            assert_eq!(block?, expected[at]);
            at += 1;
        }
        Ok::<_, BlockError>(at)
    });
    within_limit(sender).await.unwrap().unwrap();
    let received = within_limit(receiver).await.unwrap().unwrap();
    assert_eq!(received, 60);
    within_limit(echo).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transport_can_be_split_as_any_sink_and_stream() {
    let (near, far) = tokio::io::duplex(3_000);
    let expected = blocks(&LengthPrefix::u32());
    let (mut sink, source) = transport(far).split();
    let echo = tokio::spawn(async move {
        let mut source = source.map_ok(BytesMut::freeze);
        sink.send_all(&mut source).await?;
        sink.close().await
    });
    let (sink, source) = transport(near).split();
    let outgoing = expected.clone();
    let sender = tokio::spawn(stream::iter(outgoing).map(Ok).forward(sink));
    let back: Vec<BytesMut> = within_limit(source.try_collect()).await.unwrap();
    assert_eq!(back, expected);
    within_limit(sender).await.unwrap().unwrap();
    within_limit(echo).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_loses_a_select_again_and_again_loses_no_block() {
    let (mut near, far) = tokio::io::duplex(50);
    let expected = numbered_for(&LengthPrefix::u32(), &[0, 7, 500, 3_000].repeat(5));
    let bytes = wire(LengthPrefix::u32(), &expected);
    let slow = tokio::spawn(async move {
        for piece in bytes.chunks(41) {
            near.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let mut transport = transport(far);
    let (mut out, mut cancelled) = (vec![], 0);
    loop {
        tokio::select! {
            biased;
            next = transport.next() => match next {
                Some(block) => out.push(block.unwrap()),
                None => break,
            },
            () = tokio::task::yield_now() => cancelled += 1,
        }
    }
    assert_eq!(out, expected);
    assert!(cancelled > 100, "{cancelled}");
    slow.await.unwrap();
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
async fn only_a_peer_that_closes_inside_a_block_truncates_it() {
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
