//! Change of framing in mid-stream: nothing is lost, and positions and counts go on.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt};
use testing::{KIB, Scripted, numbered, ready, transport, wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::{Framed, FramedParts, FramedRead};
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, Exact, LengthPrefix, Varint, recv_blocks, send_blocks,
};

/// A greeting of 5 bytes, then blocks behind a varint.
fn conversation() -> (Vec<Bytes>, Vec<u8>) {
    let blocks = numbered(&[5, 200, 0, 3]);
    let greeting = wire(Exact::new(5).unwrap(), &blocks[..1]);
    let bytes = [greeting, wire(Varint::new(), &blocks[1..])].concat();
    (blocks, bytes)
}

fn exact() -> BlockCodec<Exact> {
    BlockCodec::exact(5).unwrap()
}

#[test]
fn new_framing_reads_the_bytes_read_ahead() {
    let (blocks, bytes) = conversation();
    for chunk in [1, 2, 5, 6, 100, usize::MAX] {
        let io = || Scripted::chunked(&bytes, chunk, true);

        let mut framed = Framed::new(io(), exact());
        let mut received = vec![ready(framed.next()).unwrap().unwrap()];
        let mut framed = framed.map_codec(|codec| codec.with_framing(Varint::new()));
        while let Some(block) = ready(framed.next()) {
            received.push(block.unwrap());
        }
        assert_eq!(received, blocks, "Framed, {chunk}");

        let mut transport = BlockTransport::new(io(), exact());
        let mut received = vec![ready(transport.next()).unwrap().unwrap()];
        let mut transport = transport.map_codec(|codec| codec.with_framing(Varint::new()));
        while let Some(block) = ready(transport.next()) {
            received.push(block.unwrap());
        }
        assert_eq!(received, blocks, "BlockTransport, {chunk}");

        let mut framed = Framed::new(io(), exact());
        let greeting = ready(recv_blocks(&mut framed).next())
            .unwrap()
            .map(<[u8]>::to_vec);
        let mut received = vec![greeting.unwrap()];
        let mut framed = framed.map_codec(|codec| codec.with_framing(Varint::new()));
        let mut receiving = recv_blocks(&mut framed);
        while let Some(block) = ready(receiving.next()).unwrap() {
            received.push(block.to_vec());
        }
        assert_eq!(received, blocks, "lent by Framed, {chunk}");
        assert_eq!(receiving.stats().blocks, 3);
    }
}

#[test]
fn new_framing_reads_an_unfinished_block_from_its_start() {
    let (blocks, bytes) = conversation();
    let mut transport = BlockTransport::new(
        Scripted::default()
            .send(&bytes[..8])
            .pause()
            .send(&bytes[8..]),
        exact(),
    );
    assert_eq!(ready(transport.next()).unwrap().unwrap(), blocks[0]);
    // The exact framing takes the first bytes of the second block for a part of its own block.
    assert!(transport.next().now_or_never().is_none());
    let mut transport = transport.map_codec(|codec| codec.with_framing(Varint::new()));
    assert_eq!(ready(transport.next()).unwrap().unwrap(), blocks[1]);
}

#[test]
fn index_and_offset_go_on_after_a_change_of_framing() {
    let (_, bytes) = conversation();
    let io = Scripted::default().send(&bytes[..bytes.len() - 1]);
    let mut transport = BlockTransport::new(io, exact());
    ready(transport.next()).unwrap().unwrap();
    let mut transport = transport.map_codec(|codec| codec.with_framing(Varint::new()));
    ready(transport.next()).unwrap().unwrap();
    ready(transport.next()).unwrap().unwrap();
    let error = ready(transport.next()).unwrap().unwrap_err();
    let begins = bytes.len() as u64 - 4;
    assert!(
        matches!(error, BlockError::Truncated { index: 3, offset, .. } if offset == begins),
        "{error:?}"
    );
}

#[test]
fn queued_blocks_leave_first_in_the_framing_they_were_fed_in() {
    let (blocks, bytes) = conversation();
    let mut transport = BlockTransport::new(Scripted::default(), exact());
    ready(transport.feed(blocks[0].clone())).unwrap();
    let mut transport = transport.map_codec(|codec| codec.with_framing(Varint::new()));
    for block in &blocks[1..] {
        ready(transport.feed(block.clone())).unwrap();
    }
    ready(transport.flush()).unwrap();
    assert_eq!(transport.get_ref().written, bytes);

    let mut framed = Framed::new(Scripted::default(), exact());
    ready(framed.feed(blocks[0].clone())).unwrap();
    let mut framed = framed.map_codec(|codec| codec.with_framing(Varint::new()));
    let rest = futures::stream::iter(blocks[1..].to_vec());
    ready(send_blocks(&mut framed, rest)).unwrap();
    assert_eq!(framed.get_ref().written, bytes);

    // The index of a block that cannot be sent goes on as well.
    let error = ready(framed.send(Bytes::from(vec![0; 9 * KIB * KIB]))).unwrap_err();
    assert!(
        matches!(error, BlockError::WrongSize { index: 4, .. }),
        "{error:?}"
    );
}

#[test]
fn new_framing_brings_its_own_limits_and_the_settings_stay() {
    let mut codec = BlockCodec::new(LengthPrefix::u16()).skip_too_large(true);
    codec.set_max_block_len(100).unwrap();
    let codec = codec.with_framing(LengthPrefix::u8());
    assert_eq!((codec.max_decode_len(), codec.max_encode_len()), (255, 255));

    let mut codec = codec.with_framing(LengthPrefix::u16());
    codec.set_max_decode_len(3).unwrap();
    let bytes = wire(LengthPrefix::u16(), &numbered(&[9, 2]));
    let mut transport = BlockTransport::new(Scripted::default().send(&bytes), codec);
    assert_eq!(
        ready(transport.next()).unwrap().unwrap().len(),
        2,
        "it still skips"
    );
}

#[test]
fn failed_stream_goes_on_with_another_framing_and_not_with_the_same() {
    let mut transport = BlockTransport::new(
        Scripted::default()
            .send(b"\x05\x00\x01\x01\x02\x03")
            .then_silent(),
        BlockCodec::new(LengthPrefix::u16().max_block_len(10).unwrap()),
    );
    assert!(ready(transport.next()).unwrap().is_err());
    let mut transport = transport.map_codec(|codec| codec);
    assert!(ready(transport.next()).is_none());
    let mut transport = transport.map_codec(|codec| codec.with_framing(LengthPrefix::u8()));
    let block = ready(transport.next()).unwrap().unwrap();
    assert_eq!(block, &b"\0\x01\x01\x02\x03"[..]);
}

#[test]
fn new_framing_after_an_error_waits_for_the_rest_of_its_block() {
    for in_place in [true, false] {
        let framing = LengthPrefix::u16().max_block_len(10).unwrap();
        let io = Scripted::default().send(b"\x05\0a").then_silent();
        let mut transport = BlockTransport::new(io, BlockCodec::new(framing));
        assert!(ready(transport.next()).unwrap().is_err());
        let mut transport = match in_place {
            true => {
                transport.set_framing(LengthPrefix::u16().little_endian());
                transport
            }
            false => transport.map_codec(|c| c.with_framing(LengthPrefix::u16().little_endian())),
        };
        assert!(
            transport.next().now_or_never().is_none(),
            "1 of 5 bytes has arrived"
        );
    }
}

#[test]
fn framed_read_that_has_waited_changes_framing_through_a_transport() {
    let waited = || {
        let io = Scripted::default().send(b"sevened").pause().pause();
        let mut half = FramedRead::new(io.send(b"!"), BlockCodec::exact(8).unwrap());
        assert!(half.next().now_or_never().is_none());
        half
    };
    let exact_1 = |codec: BlockCodec<Exact>| codec.with_framing(Exact::new(1).unwrap());

    // tokio-util's `FramedRead` reads before it looks at its buffer, and nothing counts that read. If this
    // fails, tokio-util has changed, and the remark at `with_framing` can go.
    let mut half = waited().map_decoder(exact_1);
    assert!(half.next().now_or_never().is_none());
    assert_eq!(half.read_buffer(), &b"sevened"[..]);
    let mut receiving = recv_blocks(&mut half);
    while let Some(_block) = ready(receiving.next()).unwrap() {}
    assert_eq!((receiving.stats().blocks, receiving.stats().reads), (8, 0));

    let mut transport = BlockTransport::from(waited().into_parts()).map_codec(exact_1);
    let first = transport.next().now_or_never().expect("not a wait");
    assert_eq!(first.unwrap().unwrap(), "s");
    let mut receiving = recv_blocks(&mut transport);
    while let Some(_block) = ready(receiving.next()).unwrap() {}
    assert_eq!((receiving.stats().blocks, receiving.stats().reads), (7, 1));
}

#[tokio::test]
async fn replace_io_keeps_the_read_ahead_the_queue_and_the_timeouts() {
    let second = Duration::from_secs(1);
    let wire = wire(LengthPrefix::u32(), &numbered(&[3, 5]));
    let io = Scripted::default().send(&wire);
    let mut transport = transport(io).stall_timeout(second);
    ready(transport.next()).unwrap().unwrap();
    ready(transport.feed("queued")).unwrap();

    let (former, rest) = transport.replace_io(());
    assert!(former.written.is_empty());
    assert_eq!(rest.queued(), 10);
    let (near, mut far) = tokio::io::duplex(64);
    let (_, mut transport) = rest.replace_io(near);
    assert_eq!(
        transport.next().await.unwrap().unwrap(),
        numbered(&[3, 5])[1]
    );
    transport.flush().await.unwrap();
    let mut written = [0; 10];
    far.read_exact(&mut written).await.unwrap();
    assert_eq!(&written, b"\0\0\0\x06queued");
    tokio::time::pause();
    let stalled = transport.next().await.unwrap().unwrap_err();
    assert!(matches!(stalled, BlockError::Stalled { waited, .. } if waited == second));
}

#[tokio::test]
async fn handshake_begins_only_between_blocks_and_after_a_flush() {
    let after = |wire: &[u8]| transport(Scripted::default().send(wire));
    let refused = |transport: BlockTransport<Scripted, LengthPrefix>| {
        let error = transport.start_handshake().map(drop).unwrap_err();
        (error.kind(), error.to_string())
    };
    let ahead = |bytes| {
        let text = format!("the peer sent {bytes} bytes before the handshake");
        (io::ErrorKind::InvalidData, text)
    };
    let mut whole = after(b"\0\0\0\x01a\0\0\0\x01b");
    ready(whole.next()).unwrap().unwrap();
    assert_eq!(refused(whole), ahead(5));
    let mut lent = after(b"\0\0\0\x01a\0");
    ready(lent.recv()).unwrap().unwrap();
    assert_eq!(refused(lent), ahead(1));
    for (arrived, left) in [(&b"a"[..], 1), (b"ab", 2)] {
        let mut dropped = after(&[b"\0\0\0\x02", arrived].concat());
        drop(ready(dropped.recv_reader()).unwrap().unwrap());
        assert_eq!(refused(dropped), ahead(left));
    }
    let mut left = after(b"\0\0\0\x02a");
    let mut reader = ready(left.recv_reader()).unwrap().unwrap();
    assert_eq!(ready(reader.read_u8()).unwrap(), b'a');
    drop(reader);
    let incomplete = "a block is incomplete before the handshake".to_owned();
    assert_eq!(refused(left), (io::ErrorKind::InvalidData, incomplete));

    let unsent = "a block is queued or unfinished before the handshake";
    let unsent = (io::ErrorKind::InvalidInput, unsent.to_owned());
    let mut queued = after(b"");
    ready(queued.feed("queued")).unwrap();
    assert_eq!(refused(queued), unsent);
    let mut unfinished = after(b"");
    let silent = futures::stream::pending::<io::Result<Bytes>>();
    let given = futures::stream::iter([Ok(Bytes::from("he"))]).chain(silent);
    let sending = unfinished.send_from(5, tokio_util::io::StreamReader::new(given));
    assert!(sending.now_or_never().is_none());
    assert_eq!(refused(unfinished), unsent);

    let mut transport = after(b"\0\0\0\x01a");
    ready(transport.next()).unwrap().unwrap();
    ready(transport.send("answer")).unwrap();
    let (io, rest) = transport.start_handshake().unwrap();
    assert_eq!(io.written, b"\0\0\0\x06answer");
    assert_eq!(
        (rest.stats().received_blocks, rest.stats().sent_blocks),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_framed_has_queued_is_counted_once() {
    let (near, _silent) = tokio::io::duplex(4);
    let mut framed = Framed::new(near, BlockCodec::length_prefixed());
    framed.feed("hello".into()).await.unwrap();
    let second = Duration::from_secs(1);
    let mut transport = BlockTransport::from(framed).write_timeout(second);
    let stalled = transport.flush().await.unwrap_err();
    let expected = "nothing could be written for 1s at block 1, which begins at byte 9";
    assert_eq!(stalled.to_string(), expected);
}

#[tokio::test]
async fn halves_are_joined_again_with_all_that_they_hold() {
    let (near, mut far) = tokio::io::duplex(64);
    far.write_all(b"\0\0\0\x01a\0\0\0\x01b").await.unwrap();
    let (read, write) = tokio::io::split(near);
    let (mut read, mut write) = (transport(read), transport(write));
    assert_eq!(read.next().await.unwrap().unwrap(), "a");
    write.feed("queued").await.unwrap();

    let (read, write) = (
        read.into_framed().into_parts(),
        write.into_framed().into_parts(),
    );
    assert_eq!(read.read_buf, &b"\0\0\0\x01b"[..]);
    assert_eq!(write.write_buf, &b"\0\0\0\x06queued"[..]);
    let mut parts = FramedParts::new::<Bytes>(read.io.unsplit(write.io), read.codec);
    (parts.read_buf, parts.write_buf) = (read.read_buf, write.write_buf);
    let mut whole = BlockTransport::from(parts);
    assert_eq!(whole.next().await.unwrap().unwrap(), "b");
    whole.flush().await.unwrap();
    let mut written = [0; 10];
    far.read_exact(&mut written).await.unwrap();
    assert_eq!(&written, b"\0\0\0\x06queued");
}

#[test]
fn set_framing_recovers_after_an_error_and_brings_its_own_limits() {
    let framing = LengthPrefix::u16().max_block_len(10).unwrap();
    let io = Scripted::default().send(b"\0\x02ab\x04\0\x01\x01\x02\x03");
    let mut transport = BlockTransport::new(io.then_silent(), BlockCodec::new(framing));
    assert_eq!(ready(transport.expect_next()).unwrap(), "ab");
    assert!(ready(transport.next()).unwrap().is_err());
    transport.set_framing(LengthPrefix::u16().little_endian());
    assert_eq!(transport.codec().max_encode_len(), 65_535);
    assert_eq!(
        ready(transport.expect_next()).unwrap(),
        &b"\x01\x01\x02\x03"[..]
    );
}

#[test]
fn expect_next_is_an_error_at_the_end() {
    let mut transport = transport(Scripted::default().send(b"\0\0\0\x01a"));
    assert_eq!(ready(transport.expect_next()).unwrap(), "a");
    for _ in 0..2 {
        let error = ready(transport.expect_next()).unwrap_err();
        assert!(
            matches!(
                error,
                BlockError::TooFew {
                    expected: 2,
                    received: 1
                }
            ),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn wait_for_an_exact_block_does_not_bind_the_next_framing() {
    let (mut peer, far) = tokio::io::duplex(64);
    let mut framed = Framed::new(far, BlockCodec::exact(3).unwrap());
    peer.write_all(b"one").await.unwrap();
    assert_eq!(framed.next().await.unwrap().unwrap(), "one");
    assert!(framed.next().now_or_never().is_none());
    let mut framed = framed.map_codec(|codec| codec.with_framing(Exact::new(5).unwrap()));
    peer.write_all(b"hello").await.unwrap();
    assert_eq!(framed.next().await.unwrap().unwrap(), "hello");

    let mut transport = BlockTransport::from(framed);
    assert!(transport.recv().now_or_never().is_none());
    transport.set_framing(Exact::new(2).unwrap());
    peer.write_all(b"me").await.unwrap();
    assert_eq!(transport.recv().await.unwrap(), Some(&b"me"[..]));
}
