//! The text of every error, whose fault it is, and the `io::Error` that is made from it.

use std::{
    error::Error as _,
    io,
    panic::{RefUnwindSafe, UnwindSafe},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{Sink, SinkExt, stream};
use testing::{Magic, Scripted};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::{Decoder, Encoder, Framed, FramedWrite};
use wholeblock::{
    AnyFraming, BlockCodec, BlockError, BlockPart, BlockSink, BlockTransport, ConfigError,
    Direction, HeaderBytes, LengthField, LengthPrefix, Varint, send_blocks,
};

#[test]
fn every_error_prints_its_numbers_and_becomes_an_io_error_of_the_right_kind() {
    let (index, offset) = (3, 153_600);
    let table = [
        (
            BlockError::Truncated {
                part: BlockPart::Payload,
                expected: 51_200,
                received: 14_283,
                index,
                offset,
            },
            "stream ended inside block 3, which begins at byte 153600: \
             14283 of 51200 payload bytes arrived",
            io::ErrorKind::UnexpectedEof,
        ),
        (
            BlockError::Truncated {
                part: BlockPart::Header,
                expected: 4,
                received: 2,
                index,
                offset,
            },
            "stream ended inside block 3, which begins at byte 153600: \
             2 of at least 4 header bytes arrived",
            io::ErrorKind::UnexpectedEof,
        ),
        (
            BlockError::TooLarge {
                announced: 4_294_967_295,
                limit: 8_388_608,
                header: HeaderBytes::new(&[0xff; 4]),
                index,
                offset,
            },
            "block 3, which begins at byte 153600, announces 4294967295 bytes; \
             the limit is 8388608 (header: ff ff ff ff)",
            io::ErrorKind::InvalidData,
        ),
        (
            BlockError::InvalidHeader {
                reason: "its varint overflows 64 bits",
                header: HeaderBytes::new(b"sixteen bytes and more"),
                index,
                offset,
            },
            "invalid header in block 3, which begins at byte 153600: its varint overflows 64 bits \
             (header: 73 69 78 74 65 65 6e 20 62 79 74 65 73 20 61 6e \"sixteen bytes an\")",
            io::ErrorKind::InvalidData,
        ),
        (
            BlockError::InvalidHeader {
                reason: "it is longer than 64 KiB",
                header: HeaderBytes::new(&[]),
                index,
                offset,
            },
            "invalid header in block 3, which begins at byte 153600: it is longer than 64 KiB",
            io::ErrorKind::InvalidData,
        ),
        (
            BlockError::TooFew {
                expected: 100,
                received: 3,
            },
            "stream ended after 3 of 100 blocks",
            io::ErrorKind::UnexpectedEof,
        ),
        (
            BlockError::WrongHeader {
                announced: Some(6),
                reason: None,
                actual: 5,
                index,
            },
            "block 3, of 5 bytes, cannot be sent: its header announces 6",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongHeader {
                announced: None,
                reason: None,
                actual: 5,
                index,
            },
            "block 3, of 5 bytes, cannot be sent: its header cannot be read back",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongHeader {
                announced: None,
                reason: Some("its varint overflows 64 bits"),
                actual: 5,
                index,
            },
            "block 3, of 5 bytes, cannot be sent: invalid header: its varint overflows 64 bits",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongSize {
                min: 1,
                max: 0,
                limit: 0,
                actual: 5,
                index,
            },
            "block 3, of 5 bytes, cannot be sent: the framing carries no block at all",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongSize {
                min: 51_200,
                max: 51_200,
                limit: 51_200,
                actual: 14_283,
                index,
            },
            "block 3, of 14283 bytes, cannot be sent: the framing carries exactly 51200",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongSize {
                min: 0,
                max: 255,
                limit: 255,
                actual: 256,
                index,
            },
            "block 3, of 256 bytes, cannot be sent: the framing carries at most 255",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongSize {
                min: 4,
                max: 255,
                limit: 255,
                actual: 2,
                index,
            },
            "block 3, of 2 bytes, cannot be sent: the framing carries 4 to 255",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongSize {
                min: 4,
                max: 255,
                limit: 50,
                actual: 51,
                index,
            },
            "block 3, of 51 bytes, cannot be sent: the limit set on the codec is 50",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongSize {
                min: 4,
                max: 255,
                limit: 50,
                actual: 2,
                index,
            },
            "block 3, of 2 bytes, cannot be sent: the framing carries 4 to 255",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongSource {
                len: 50,
                given: 49,
                index,
            },
            "the source of block 3 has 49 bytes, not 50",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::WrongSource {
                len: 50,
                given: 51,
                index,
            },
            "the source of block 3 has 51 bytes or more, not 50",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::Unfinished {
                queued: 5,
                len: 50,
                index,
            },
            "no block can be sent, because block 3 is unfinished: 5 of 50 bytes",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::NoRoom {
                len: 50,
                room: 49,
                index,
                offset,
            },
            "block 3, which begins at byte 153600, has 50 bytes; there is room for 49",
            io::ErrorKind::InvalidInput,
        ),
        (
            BlockError::Stalled {
                waited: Duration::from_secs(30),
                direction: Direction::Receiving,
                index,
                offset,
            },
            "nothing arrived for 30s at block 3, which begins at byte 153600",
            io::ErrorKind::TimedOut,
        ),
        (
            BlockError::Stalled {
                waited: Duration::from_secs(30),
                direction: Direction::Sending,
                index,
                offset,
            },
            "nothing could be written for 30s at block 3, which begins at byte 153600",
            io::ErrorKind::TimedOut,
        ),
        (
            BlockError::Late {
                allowed: Duration::from_secs(10),
                direction: Direction::Receiving,
                index,
                offset,
            },
            "block 3, which begins at byte 153600, took longer than 10s to arrive",
            io::ErrorKind::TimedOut,
        ),
        (
            BlockError::Late {
                allowed: Duration::from_secs(10),
                direction: Direction::Sending,
                index,
                offset,
            },
            "block 3, which begins at byte 153600, took longer than 10s to be sent",
            io::ErrorKind::TimedOut,
        ),
        (
            BlockError::Source("no more tape".into()),
            "the source of the blocks failed",
            io::ErrorKind::Other,
        ),
    ];
    for (error, text, kind) in table {
        assert_eq!(error.to_string(), text);
        assert_eq!(error.kind(), kind, "{text}");
        let whose = (
            error.is_peer_fault(),
            error.is_caller_fault(),
            error.is_timeout(),
        );
        let expected = match kind {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => (true, false, false),
            io::ErrorKind::InvalidInput => (false, true, false),
            io::ErrorKind::TimedOut => (false, false, true),
            _ => (false, false, false),
        };
        assert_eq!(whose, expected, "{text}");
        let error = io::Error::from(error);
        assert_eq!(error.kind(), kind, "{text}");
        assert_eq!(error.to_string(), text);
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        assert!(
            matches!(inner, Some(e) if BlockError::to_string(e) == text),
            "the io::Error keeps the numbers"
        );
        let debug = format!("{:?}", inner.unwrap());
        let back = BlockError::from(error);
        assert_eq!(format!("{back:?}"), debug, "it comes back as it was");
    }
}

#[test]
fn io_error_survives_a_round_trip_through_block_error() {
    let error = BlockError::from(io::Error::new(io::ErrorKind::ConnectionReset, "cable cut"));
    assert_eq!(error.to_string(), "cable cut");
    let error = io::Error::from(error);
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(error.to_string(), "cable cut");

    let error = BlockError::from(io::Error::from_raw_os_error(1));
    assert_eq!(io::Error::from(error).raw_os_error(), Some(1));
}

#[test]
fn io_error_keeps_its_kind() {
    let error = BlockError::Io(io::ErrorKind::ConnectionReset.into());
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn source_error_has_the_kind_of_its_cause() {
    type Cause = Box<dyn std::error::Error + Send + Sync>;
    let too_few = || BlockError::TooFew {
        expected: 2,
        received: 1,
    };
    let table: [(Cause, io::ErrorKind); 6] = [
        ("words".into(), io::ErrorKind::Other),
        (
            Box::new(io::Error::new(io::ErrorKind::NotFound, "gone")),
            io::ErrorKind::NotFound,
        ),
        (Box::new(too_few()), io::ErrorKind::UnexpectedEof),
        (
            Box::new(io::Error::from(too_few())),
            io::ErrorKind::UnexpectedEof,
        ),
        (
            Box::new(BlockError::Source(Box::new(io::Error::from(
                io::ErrorKind::TimedOut,
            )))),
            io::ErrorKind::TimedOut,
        ),
        (
            Box::new(BlockError::Io(io::ErrorKind::AddrInUse.into())),
            io::ErrorKind::AddrInUse,
        ),
    ];
    for (cause, kind) in table {
        let text = cause.to_string();
        let error = BlockError::Source(cause);
        assert_eq!(error.kind(), kind, "{text}");
        let error = io::Error::from(error);
        assert_eq!(error.kind(), kind, "{text}");
        // The `io::Error` still holds the failed source and its cause.
        match BlockError::from(error) {
            BlockError::Source(cause) => assert_eq!(cause.to_string(), text),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fault_of_a_relayed_block_is_that_of_its_source() {
    let relayed = async |bytes: &[u8]| {
        let (mut near, far) = tokio::io::duplex(64);
        near.write_all(bytes).await.unwrap();
        let mut from = BlockTransport::new(far, BlockCodec::length_prefixed())
            .stall_timeout(Duration::from_secs(1));
        let block = from.recv_reader().await.unwrap().unwrap();
        let silent = bytes.ends_with(b"silent");
        let _open = silent.then_some(near);
        let mut to = BlockTransport::new(tokio::io::sink(), BlockCodec::length_prefixed());
        to.send_from(block.len(), block).await.unwrap_err()
    };
    let cut = relayed(b"\0\0\0\x09cut").await;
    assert!(cut.is_peer_fault() && !cut.is_timeout(), "{cut:?}");
    let stalled = relayed(b"\0\0\0\x09silent").await;
    assert!(
        stalled.is_timeout() && !stalled.is_peer_fault(),
        "{stalled:?}"
    );
    let refused = BlockError::Source(Box::new(io::Error::from(BlockError::NoRoom {
        len: 2,
        room: 1,
        index: 0,
        offset: 0,
    })));
    assert!(refused.is_caller_fault(), "{refused:?}");
    let gone = BlockError::Source(Box::new(io::Error::other("gone")));
    assert!(!gone.is_peer_fault() && !gone.is_caller_fault() && !gone.is_timeout());
}

#[test]
fn io_error_with_a_foreign_cause_stays_an_io_error() {
    let error = BlockError::from(io::Error::new(io::ErrorKind::InvalidData, "not ours"));
    assert!(matches!(&error, BlockError::Io(e) if e.to_string() == "not ours"));
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn error_chain_names_the_cause_of_a_failed_source_once() {
    let error = BlockError::Source(Box::new(io::Error::other("no more tape")));
    assert!(error.source().unwrap().is::<io::Error>());
    let chain = format!("{:#}", anyhow::Error::from(error));
    assert_eq!(chain, "the source of the blocks failed: no more tape");
}

#[test]
fn configuration_errors_print_their_numbers_and_are_invalid_input() {
    let table = [
        (
            ConfigError::EmptyBlocks,
            "exact-length blocks must be at least 1 byte long",
        ),
        (
            ConfigError::Width { width: 9 },
            "a length has 1 to 8 bytes, not 9",
        ),
        (
            ConfigError::LimitTooSmall { limit: 2, min: 4 },
            "a limit of 2 bytes is below the shortest block, of 4",
        ),
        (
            ConfigError::LimitTooLarge {
                limit: 300,
                max: 255,
            },
            "blocks of 300 bytes cannot be carried; the most is 255",
        ),
        (
            ConfigError::Header {
                field_end: 5,
                header_len: 4,
                strip: 4,
            },
            "invalid header layout: the length field ends at byte 5, the header has 4 bytes, and 4 are \
             stripped; the field and the stripped bytes must be within the header, which has at most 1024",
        ),
        (
            ConfigError::Adjustment { adjustment: -300 },
            "adjustment -300 makes every length invalid",
        ),
    ];
    for (error, text) in table {
        assert_eq!(error.to_string(), text);
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
    }
}

#[tokio::test(start_paused = true)]
async fn stall_error_counts_blocks_and_bytes_since_the_codec_was_made() {
    async fn check<W>(mut sender: W, mut far: tokio::io::DuplexStream)
    where
        W: BlockSink<Error = BlockError> + Sink<Bytes, Error = BlockError>,
    {
        let text = |error: BlockError| error.to_string();
        let second = Duration::from_secs(1);
        // The sink sends two blocks of 4 + 3 bytes, and a transfer two of 4 + 1.
        for block in ["one", "two"] {
            sender.send(block.into()).await.unwrap();
        }
        send_blocks(&mut sender, stream::iter(["3", "4"]))
            .await
            .unwrap();
        let mut taken = [0; 24];
        far.read_exact(&mut taken).await.unwrap();

        // The pipe holds 30 bytes: block 4 of 4 + 20 bytes, and a part of block 5.
        let source = stream::iter([vec![5; 20], vec![6; 20], vec![7; 30]]);
        let mut sending = send_blocks(&mut sender, source).stall_timeout(second);
        let error = (&mut sending).await.unwrap_err();
        let stalled = "nothing could be written for 1s at block 5, which begins at byte 48";
        assert_eq!(text(error), stalled);
        assert_eq!(sending.stats().blocks, 1);
        drop(sending);

        // Block 7 waits behind the rest of blocks 5 and 6.
        let source = stream::iter(["8"]);
        let error = send_blocks(&mut sender, source).stall_timeout(second).await;
        let stalled = "nothing could be written for 1s at block 7, which begins at byte 106";
        assert_eq!(text(error.unwrap_err()), stalled);

        let error = sender.feed(vec![0; 9 << 20].into()).await.unwrap_err();
        assert!(
            matches!(error, BlockError::WrongSize { index: 7, .. }),
            "{error}"
        );
    }
    let (near, far) = tokio::io::duplex(30);
    check(
        BlockTransport::new(near, BlockCodec::length_prefixed()),
        far,
    )
    .await;
    let (near, far) = tokio::io::duplex(30);
    check(Framed::new(near, BlockCodec::length_prefixed()), far).await;
    let (near, far) = tokio::io::duplex(30);
    check(FramedWrite::new(near, BlockCodec::length_prefixed()), far).await;
}

#[tokio::test(start_paused = true)]
async fn sender_keeps_its_offset_when_it_changes_form_or_framing() {
    async fn stalls_at<W: BlockSink<Error = BlockError>>(sender: &mut W, place: &str) {
        let sending = send_blocks(sender, stream::iter([[0; 100]]));
        let error = sending.stall_timeout(Duration::from_secs(1)).await;
        let text = error.unwrap_err().to_string();
        assert_eq!(
            text,
            format!("nothing could be written for 1s at block {place}")
        );
    }
    let (near, mut far) = tokio::io::duplex(50);
    tokio::spawn(async move {
        // Takes the first two transfers whole, and no byte of the third.
        far.read_exact(&mut [0; 3 * 7 + 104 + 102]).await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut transport = BlockTransport::new(near, BlockCodec::length_prefixed());
    transport.send("one").await.unwrap();
    transport.feed("two").await.unwrap(); // queued
    let mut framed = transport.into_framed();
    framed.send("six".into()).await.unwrap();
    let sent = send_blocks(&mut framed, stream::iter([[0; 100]])).await;
    assert_eq!(sent.unwrap().wire_bytes, 104);
    let transport = BlockTransport::from(framed);
    let mut transport = transport.map_codec(|codec| codec.with_framing(LengthPrefix::u16()));
    transport.send(vec![0; 100]).await.unwrap();
    stalls_at(&mut transport, "5, which begins at byte 227").await;

    // A new codec counts from 0.
    *transport.codec_mut() = BlockCodec::new(LengthPrefix::u16());
    stalls_at(&mut transport, "0, which begins at byte 0").await;
}

#[test]
fn error_of_a_refused_block_says_whose_limit_it_exceeds() {
    let refused = |codec: &mut BlockCodec<LengthField>, len| {
        let error = codec.encode(vec![0; len].into(), &mut BytesMut::new());
        error.unwrap_err().to_string()
    };
    let framing = LengthField::config()
        .width(1)
        .adjustment(-5)
        .build()
        .unwrap();
    let mut codec = BlockCodec::new(framing); // 0 to 250
    let carried = "block 0, of 251 bytes, cannot be sent: the framing carries at most 250";
    assert_eq!(refused(&mut codec, 251), carried);
    codec.set_max_encode_len(50).unwrap();
    let limited = "block 0, of 51 bytes, cannot be sent: the limit set on the codec is 50";
    assert_eq!(refused(&mut codec, 51), limited);
    codec.set_max_encode_len(250).unwrap();
    assert_eq!(refused(&mut codec, 251), carried);
}

#[test]
fn error_of_a_refused_block_says_what_its_framing_found_wrong() {
    let messages = LengthField::config().offset(1).adjustment(-4).keep_header();
    let mut codec = BlockCodec::new(messages.build().unwrap());
    let error = codec
        .encode(Bytes::from("Q\0\0\0\x03"), &mut BytesMut::new())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "block 0, of 5 bytes, cannot be sent: invalid header: its length is less than what it counts",
    );
}

#[test]
fn error_shows_the_refused_header_as_bytes_and_text() {
    fn shown(framing: impl Into<AnyFraming>, arrived: &[u8]) -> String {
        let mut codec = BlockCodec::new(framing.into());
        let error = codec
            .decode(&mut BytesMut::from(arrived))
            .unwrap_err()
            .to_string();
        error.split_once(" (").expect("the header").1.to_owned()
    }
    let http = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
    let tls = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03and a random number";
    let ssh = b"SSH-2.0-OpenSSH_10.2\r\n";
    let u32s = LengthPrefix::u32();
    assert_eq!(shown(u32s, http), "header: 47 45 54 20 \"GET \")");
    assert_eq!(shown(u32s, ssh), "header: 53 53 48 2d \"SSH-\")");
    assert_eq!(shown(u32s, tls), "header: 16 03 01 02)");
    let mut codec = BlockCodec::new(u32s);
    let error = codec.decode(&mut BytesMut::from(&tls[..])).unwrap_err();
    let debug = format!("{error:?}");
    assert!(debug.contains("HeaderBytes(16 03 01 02)"), "{debug}");

    // It shows the bytes that the framing looked at, stripped or not, and at most 16 of them.
    let kept = LengthField::config()
        .offset(4)
        .keep_header()
        .build()
        .unwrap();
    assert_eq!(
        shown(kept, http),
        "header: 47 45 54 20 2f 20 48 54 \"GET / HT\")"
    );
    let long = LengthField::config().offset(20).build().unwrap();
    assert_eq!(
        shown(long, http),
        "header: 47 45 54 20 2f 20 48 54 54 50 2f 31 2e 31 0d 0a \"GET / HTTP/1.1\\r\\n\")",
    );
    let longest = [&[0xff; 9][..], &[1]].concat();
    assert_eq!(
        shown(Varint::new(), &longest),
        "header: ff ff ff ff ff ff ff ff ff 01)"
    );

    // An invalid header is shown as far as it has arrived.
    let mut codec = BlockCodec::new(Magic);
    let error = codec.decode(&mut BytesMut::from(&http[..])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid header in block 0, which begins at byte 0: it does not start with WB, version 1 \
         (header: 47 45 54 20 2f 20 48 54 54 50 2f 31 2e 31 0d 0a \"GET / HTTP/1.1\\r\\n\")",
    );
}

#[test]
fn every_way_of_receiving_shows_the_same_header() {
    for way in testing::WAYS {
        let io = Scripted::default().send(b"\0\0\0\x02meGET / HTTP/1.1\r\n");
        let (blocks, error) = way.receive(io, BlockCodec::length_prefixed());
        assert_eq!(blocks, ["me"], "{way:?}");
        assert_eq!(
            error.unwrap().to_string(),
            "block 1, which begins at byte 6, announces 1195725856 bytes; the limit is 8388608 \
             (header: 47 45 54 20 \"GET \")",
            "{way:?}",
        );
    }
}

#[test]
fn failed_codec_shows_its_error_and_is_unwind_safe() {
    fn is_unwind_safe<T: UnwindSafe + RefUnwindSafe>(_: &T) {}
    let mut codec = BlockCodec::length_prefixed();
    is_unwind_safe(&codec);
    codec.decode(&mut BytesMut::from(&b"GET "[..])).unwrap_err();
    let debug = format!("{codec:?}");
    assert!(
        debug.contains("TooLarge { announced: 1195725856"),
        "{debug}"
    );
}

#[test]
fn only_stalled_and_late_are_timeouts() {
    let (waited, allowed, index, offset) = (Duration::ZERO, Duration::ZERO, 0, 0);
    let stalled = BlockError::Stalled {
        waited,
        direction: Direction::Sending,
        index,
        offset,
    };
    let late = BlockError::Late {
        allowed,
        direction: Direction::Receiving,
        index,
        offset,
    };
    assert!(stalled.is_timeout() && late.is_timeout());
    let of_the_socket = BlockError::Io(io::ErrorKind::TimedOut.into());
    let too_few = BlockError::TooFew {
        expected: 1,
        received: 0,
    };
    assert!(!of_the_socket.is_timeout() && !too_few.is_timeout());
}
