//! `{:?}` shows how far a transfer is, and never the bytes of a block.

use std::pin::pin;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use tokio::io::duplex;
use tokio_util::codec::FramedRead;
use wholeblock::{BlockCodec, BlockTransport, Exact, Payload, Pieces, recv_blocks, send_blocks};

const HELLO: &[u8] = b"\0\0\0\x05hello";

#[tokio::test]
async fn receiver_shows_its_progress_and_its_settings() {
    let wire = [HELLO, HELLO].concat();
    let mut framed = FramedRead::new(&wire[..], BlockCodec::length_prefixed());
    let mut blocks = recv_blocks(&mut framed).stop_after(3).at_least(1);
    blocks.next().await.unwrap().unwrap();
    let debug = format!("{blocks:?}");
    for part in ["RecvBlocks {", "blocks: 1,", "stop_after: 3", "at_least: 1"] {
        assert!(debug.contains(part), "{part:?} is not in {debug}");
    }
    assert_eq!(format!("{:?}", blocks.next()), "Next { .. }");
}

#[tokio::test]
async fn futures_and_batches_of_a_transport_show_only_their_names() {
    let mut transport = BlockTransport::new(HELLO, BlockCodec::length_prefixed());
    assert_eq!(format!("{:?}", transport.recv()), "Recv { .. }");
    assert_eq!(format!("{:?}", transport.recv_batch()), "RecvBatch { .. }");
    let memory = &mut [0; 5];
    assert_eq!(
        format!("{:?}", transport.recv_into(memory)),
        "RecvInto { .. }"
    );
    assert_eq!(
        format!("{:?}", transport.recv_reader()),
        "RecvReader { .. }"
    );
    let batch = transport.recv_batch().await.unwrap().unwrap();
    assert_eq!(format!("{batch:?}"), "Batch { .. }");

    let mut transport = BlockTransport::new(Vec::new(), BlockCodec::length_prefixed());
    let sending = transport.send_from(5, &b"hello"[..]);
    assert_eq!(format!("{sending:?}"), "SendFrom { .. }");
}

#[tokio::test]
async fn reader_shows_its_progress() {
    let mut transport = BlockTransport::new(HELLO, BlockCodec::length_prefixed());
    let mut reader = transport.recv_reader().await.unwrap().unwrap();
    tokio::io::AsyncReadExt::read_u8(&mut reader).await.unwrap();
    assert_eq!(
        format!("{reader:?}"),
        "BlockReader { len: 5, remaining: 4, .. }"
    );
}

#[tokio::test]
async fn sender_shows_its_progress() {
    let mut framed = BlockTransport::new(Vec::new(), BlockCodec::length_prefixed());
    let mut sending = pin!(send_blocks(&mut framed, stream::iter(["hello", "world"])));
    (&mut sending).await.unwrap();
    let debug = format!("{sending:?}");
    for part in ["SendBlocks {", "blocks: 2,", "state: "] {
        assert!(debug.contains(part), "{part:?} is not in {debug}");
    }
}

/// A payload that prints its `Pieces` between two of them.
struct Looking;

impl Payload for Looking {
    fn byte_len(&self) -> usize {
        5
    }

    fn put_into(self, pieces: &mut Pieces<'_>) {
        pieces.copy(b"he");
        assert_eq!(format!("{pieces:?}"), "Pieces { announced: 5, put: 2, .. }");
        pieces.copy(b"llo");
    }
}

#[tokio::test]
async fn pieces_show_how_many_bytes_were_put() {
    let mut transport = BlockTransport::new(Vec::new(), BlockCodec::length_prefixed());
    transport.send(Looking).await.unwrap();
    assert_eq!(transport.get_ref(), HELLO);
}

#[tokio::test]
async fn transport_shows_how_many_bytes_are_read_and_queued() {
    let (io, mut peer) = duplex(64);
    let mut transport = BlockTransport::new(io, BlockCodec::length_prefixed());
    tokio::io::AsyncWriteExt::write_all(&mut peer, &HELLO[..7])
        .await
        .unwrap();
    assert!(transport.next().now_or_never().is_none());
    transport.feed(Bytes::from("hi")).await.unwrap();
    let debug = format!("{transport:?}");
    for part in [
        "BlockTransport {",
        "io: DuplexStream",
        "codec: BlockCodec",
        "read: 7",
        "queued: 6",
    ] {
        assert!(debug.contains(part), "{part:?} is not in {debug}");
    }
}

#[tokio::test]
async fn codec_shows_its_state() {
    let state = |codec: &BlockCodec<Exact>| {
        let debug = format!("{codec:?}");
        assert!(
            debug.starts_with("BlockCodec { parser: FrameParser {"),
            "{debug}"
        );
        let state = debug.split("state: ").nth(1).unwrap_or_default();
        state
            .split_inclusive(['}', ','])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let mut framed = FramedRead::new(&b"whole"[..], BlockCodec::exact(4).unwrap());
    assert_eq!(state(framed.decoder()), "Partial { buffered: 0,");
    framed.next().await.unwrap().unwrap();
    assert_eq!(state(framed.decoder()), "Draining { until: 256 }");
    framed.next().await.unwrap().unwrap_err();
    let failed = "Failed { failure: Truncated { part: Payload,";
    assert_eq!(state(framed.decoder()), failed);
}
