//! What a subscriber gets to see of a transfer, and what it does not.

mod support;

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::stream;
use support::{Scripted, ready, wire};
use tokio_util::codec::Framed;
use tracing_subscriber::fmt::MakeWriter;
use wholeblock::{BlockCodec, LengthPrefix, recv_blocks, send_blocks};

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
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
fn logged(transfer: impl FnOnce()) -> Vec<String> {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .without_time()
        .finish();
    tracing::subscriber::with_default(subscriber, transfer);
    let bytes = log.0.lock().unwrap().clone();
    let text = String::from_utf8(bytes).unwrap();
    let ours = |line: &&str| line.contains("wholeblock::");
    text.lines().filter(ours).map(String::from).collect()
}

const SECRET: &[u8] = b"hunter2hunter2";

#[test]
fn a_transfer_logs_its_start_its_reads_and_its_end_and_nothing_per_block() {
    let blocks = vec![Bytes::from_static(SECRET); 50];
    let wire = wire(LengthPrefix::u32(), &blocks);
    let lines = logged(|| {
        let io = Scripted::default().send(&wire[..500]).send(&wire[500..]);
        let mut framed = Framed::new(io, BlockCodec::length_prefixed());
        let mut receiving = recv_blocks(&mut framed);
        while ready(receiving.next()).unwrap().is_some() {}
    });
    let expected = ["receiving", "read bytes=500", "read bytes=400", "received"];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, part) in lines.iter().zip(expected) {
        assert!(
            line.contains("recv_blocks") && line.contains(part),
            "{line}"
        );
    }
    assert!(lines[3].contains("50 blocks, 700 B in"), "{}", lines[3]);
    assert!(!lines.concat().contains("hunter2"));
}

#[test]
fn a_sender_logs_its_start_its_writes_and_its_end_and_nothing_per_block() {
    let lines = logged(|| {
        let mut framed = Framed::new(Scripted::default().take(5), BlockCodec::length_prefixed());
        let blocks = stream::iter(vec![SECRET; 50]);
        ready(send_blocks(&mut framed, blocks)).unwrap();
    });
    let expected = ["sending", "written bytes=5", "written bytes=895", "sent"];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, part) in lines.iter().zip(expected) {
        assert!(
            line.contains("send_blocks") && line.contains(part),
            "{line}"
        );
    }
    assert!(!lines.concat().contains("hunter2"));
}

#[test]
fn a_transfer_that_fails_logs_why() {
    let lines = logged(|| {
        let io = Scripted::default().send(b"\0\0\0\x05hel");
        let mut framed = Framed::new(io, BlockCodec::length_prefixed());
        assert!(ready(recv_blocks(&mut framed).next()).is_err());
    });
    assert!(
        lines
            .last()
            .unwrap()
            .contains("3 of 5 payload bytes arrived")
    );
}
