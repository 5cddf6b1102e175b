//! Several forms in turn on one connection, futures dropped or leaked: nothing is lost, repeated or torn.
//! `fuzz/` tries any mixture.

use std::{cell::Cell, mem, pin::pin};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, stream};
use testing::{Scripted, numbered, ready, transport, wire};
use wholeblock::internals::FULL_WRITE;
use wholeblock::{LengthPrefix, send_blocks};

#[test]
fn flush_after_a_leaked_transfer_sends_every_block_it_took() {
    let blocks = numbered(&[10, 20_000, 0, 140_000, 30]);
    let expected = wire(LengthPrefix::u32(), &blocks);
    for taken in [1, 13, 14, 20_000, FULL_WRITE - 1] {
        for polls in 0..4 {
            let io = Scripted::default().take(taken).pause_writes().take(5);
            let mut transport = transport(io.pause_writes().pause_writes());
            let source_gave = Cell::new(0);
            let source = stream::iter(blocks.clone()).inspect(|_| {
                source_gave.set(source_gave.get() + 1);
            });
            let mut sending = Box::pin(send_blocks(&mut transport, source));
            for _ in 0..polls {
                assert!(sending.as_mut().now_or_never().is_none());
            }
            mem::forget(sending);
            ready(SinkExt::<Bytes>::flush(&mut transport)).unwrap();
            let rest = blocks[source_gave.get()..].to_vec();
            let sent = ready(send_blocks(&mut transport, stream::iter(rest))).unwrap();
            assert_eq!(sent.blocks, (blocks.len() - source_gave.get()) as u64);
            assert!(transport.get_ref().written == expected, "{taken}, {polls}");
        }
    }
}

#[test]
fn blocks_queued_by_a_dropped_transfer_leave_before_later_blocks() {
    let io = Scripted::default().take(1).pause_writes().pause_writes();
    let mut transport = transport(io);
    {
        let source = stream::iter(["a", "b"]).chain(stream::pending());
        let mut sending = pin!(send_blocks(&mut transport, source));
        assert!(sending.as_mut().now_or_never().is_none());
        assert_eq!(sending.stats().blocks, 0);
    }
    ready(transport.feed(Bytes::from_static(b"c"))).unwrap();
    let sent = ready(send_blocks(&mut transport, stream::iter(["d"]))).unwrap();
    assert_eq!(
        (sent.blocks, sent.payload_bytes, sent.wire_bytes),
        (1, 1, 5)
    );
    let expected = wire(
        LengthPrefix::u32(),
        &["a", "b", "c", "d"].map(|block| Bytes::from_static(block.as_bytes())),
    );
    assert_eq!(transport.get_ref().written, expected);
}

#[test]
fn sending_while_a_block_is_half_received_leaves_both_directions_whole() {
    let incoming = numbered(&[9, 8_000]);
    let bytes = wire(LengthPrefix::u32(), &incoming);
    let io = Scripted::default()
        .send(&bytes[..20])
        .pause()
        .send(&bytes[20..]);
    let mut transport = transport(io.then_silent());
    assert_eq!(ready(transport.next()).unwrap().unwrap(), incoming[0]);
    assert!(transport.next().now_or_never().is_none());
    ready(transport.send(Bytes::from_static(b"meanwhile"))).unwrap();
    ready(send_blocks(&mut transport, stream::iter([vec![1; 9_000]]))).unwrap();
    assert_eq!(ready(transport.next()).unwrap().unwrap(), incoming[1]);
    let sent = wire(
        LengthPrefix::u32(),
        &[Bytes::from_static(b"meanwhile"), vec![1; 9_000].into()],
    );
    assert_eq!(transport.get_ref().written, sent);
}
