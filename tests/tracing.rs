//! What a subscriber sees of a transfer, and what it does not see.
//!
//! These tests need a process where no transfer runs without a subscriber. While there is only one,
//! `tracing` asks the thread that first reaches a callsite whether its subscriber is interested, and
//! keeps that answer for all threads: a transfer of another test would switch the callsite off.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use futures::{SinkExt, future, stream};
use testing::Scripted;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_buf, duplex, sink};
use tokio_util::codec::{FramedRead, FramedWrite};
use tracing_subscriber::fmt::MakeWriter;
use wholeblock::{BlockCodec, BlockTransport, LengthPrefix, recv_blocks, send_blocks};

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The lines logged at trace level while `transfer` runs.
async fn logged(transfer: impl Future<Output = ()>) -> Vec<String> {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .without_time()
        .finish();
    let subscribed = tracing::subscriber::set_default(subscriber);
    transfer.await;
    drop(subscribed);
    let bytes = log.0.lock().unwrap().clone();
    let text = String::from_utf8(bytes).unwrap();
    let ours = |line: &&str| line.contains("wholeblock::");
    text.lines().filter(ours).map(String::from).collect()
}

#[track_caller]
fn check(lines: &[String], span: &str, expected: [&str; 4]) {
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, part) in lines.iter().zip(expected) {
        assert!(line.contains(span) && line.contains(part), "{line}");
    }
    assert!(!lines.concat().contains("hunter2"));
}

const SECRET: &[u8; 14] = b"hunter2hunter2";

#[tokio::test]
async fn a_receiver_logs_its_start_its_reads_and_its_end_and_nothing_per_block() {
    let wire = [b"\0\0\0\x0e", &SECRET[..]].concat().repeat(50);
    let (mut near, far) = duplex(500);
    let lines = logged(async {
        let sending = async move { near.write_all(&wire).await.unwrap() };
        let receiving = async {
            let mut framed = FramedRead::new(far, BlockCodec::length_prefixed());
            let mut receiving = recv_blocks(&mut framed);
            while receiving.next().await.unwrap().is_some() {}
            let stats = receiving.stats();
            // The end is logged once, and the statistics no longer change.
            assert!(receiving.next().await.unwrap().is_none());
            assert_eq!(receiving.stats(), stats);
        };
        future::join(sending, receiving).await;
    });
    let lines = lines.await;
    let expected = ["receiving", "read bytes=500", "read bytes=400", "received"];
    check(&lines, "recv_blocks", expected);
    assert!(lines[3].contains("50 blocks, 700 B in"), "{}", lines[3]);
}

#[tokio::test]
async fn a_sender_logs_its_start_its_writes_and_its_end_and_nothing_per_block() {
    let (near, mut far) = duplex(500);
    let lines = logged(async {
        let sending = async {
            let mut framed = FramedWrite::new(near, BlockCodec::length_prefixed());
            let blocks = stream::iter(vec![&SECRET[..]; 50]);
            send_blocks(&mut framed, blocks).await.unwrap();
            framed.close().await.unwrap();
        };
        let mut wire = Vec::new();
        let (_, received) = future::join(sending, far.read_to_end(&mut wire)).await;
        assert_eq!(received.unwrap(), 900);
    });
    let expected = ["sending", "written bytes=500", "written bytes=400", "sent"];
    check(&lines.await, "send_blocks", expected);
}

#[tokio::test]
async fn skipped_blocks_are_one_event_a_read() {
    let wire = b"\x02no".repeat(1_000);
    let framing = LengthPrefix::u8().max_block_len(1).unwrap();
    let lines = logged(async {
        let codec = BlockCodec::new(framing).skip_too_large(true);
        let mut framed = FramedRead::new(&wire[..], codec);
        assert!(recv_blocks(&mut framed).next().await.unwrap().is_none());
        assert_eq!(framed.decoder().skipped_blocks(), 1_000);
    });
    let lines = lines.await;
    let skipped = lines.iter().filter(|line| line.contains("skipping"));
    let reads = lines.iter().filter(|line| line.contains("read bytes"));
    assert_eq!(skipped.count(), reads.count(), "{lines:#?}");
}

#[tokio::test]
async fn failed_transfer_logs_why() {
    let (mut near, far) = duplex(7);
    near.write_all(b"\0\0\0\x05hel").await.unwrap();
    drop(near);
    let mut framed = FramedRead::new(far, BlockCodec::length_prefixed());
    let lines = logged(async {
        recv_blocks(&mut framed).next().await.unwrap_err();
    });
    let last = lines.await.pop().unwrap();
    assert!(last.contains("3 of 5 payload bytes arrived"), "{last}");
}

#[tokio::test]
async fn transfer_logs_within_the_span_in_which_it_was_made() {
    let lines = logged(async {
        let span = tracing::info_span!("connection", peer = 7);
        let mut half = FramedRead::new(&b"\0\0\0\x02me"[..], BlockCodec::length_prefixed());
        let mut blocks = span.in_scope(|| recv_blocks(&mut half));
        while blocks.next().await.unwrap().is_some() {}
    })
    .await;
    assert!(!lines.is_empty());
    for line in &lines {
        assert!(line.contains("connection{peer=7}:recv_blocks"), "{line}");
    }
}

/// The number of bytes in each event about a read.
fn read_bytes(lines: &[String]) -> Vec<usize> {
    let bytes = |line: &String| {
        let (_, bytes) = line.split_once("read bytes=")?;
        assert!(line.contains("TRACE"), "{line}");
        Some(bytes.parse().unwrap())
    };
    lines.iter().filter_map(bytes).collect()
}

#[tokio::test]
async fn each_read_of_a_block_taken_in_parts_is_one_event() {
    const LEN: usize = 50_000;
    let wire = [&(LEN as u32).to_be_bytes()[..], &SECRET.repeat(LEN)[..LEN]].concat();
    for way in 0..5 {
        let io = Scripted::chunked(&wire, 6_000, true);
        let mut transport = BlockTransport::new(io, BlockCodec::length_prefixed());
        let lines = logged(async {
            let mut memory = vec![0; LEN];
            if way == 0 {
                let received = transport.recv_into(&mut memory).await.unwrap();
                assert_eq!(received, Some(LEN));
            } else {
                let mut reader = transport.recv_reader().await.unwrap().unwrap();
                match way {
                    1 => drop(reader.read_exact(&mut memory).await.unwrap()),
                    2 => drop(copy_buf(&mut reader, &mut sink()).await.unwrap()),
                    3 => while reader.read(&mut memory[..1_000]).await.unwrap() > 0 {},
                    _ => {}
                }
            }
            assert!(transport.recv().await.unwrap().is_none());
        })
        .await;
        let read = read_bytes(&lines);
        assert_eq!(read.iter().sum::<usize>(), wire.len(), "{way}");
        assert_eq!(lines.len(), read.len(), "{lines:#?}");
        let brought = transport.get_ref().rooms.iter().map(|(_, bytes)| *bytes);
        assert!(brought.filter(|bytes| *bytes > 0).eq(read), "{way}");
        assert!(!lines.concat().contains("hunter2"));
    }
}
