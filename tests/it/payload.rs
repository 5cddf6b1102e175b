//! `Payload`: the types that may be blocks of `send_blocks`, and which of them are copied.

use std::{future::poll_fn, iter::once};

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, stream};
use testing::{Scripted, numbered, prefixed, ready, transport, wire};
use wholeblock::internals::CHAIN_THRESHOLD as CHAIN_FROM;
use wholeblock::{
    BlockCodec, BlockSink, BlockTransport, LengthPrefix, Payload, Pieces, send_blocks,
    try_send_blocks,
};

/// What `io` has written, and whether it wrote from `address`.
fn sent(io: &Scripted, address: usize) -> (&[u8], bool) {
    (&io.written, io.addresses.contains(&address))
}

/// Sends `payload` through a transport and through a `Framed`. Asserts that it is `block` on the wire, and
/// that it leaves without a copy if and only if `by_reference`.
#[track_caller]
fn check<P: Payload + AsRef<[u8]>>(payload: impl Fn() -> P, block: &[u8], by_reference: bool) {
    let expected = wire(LengthPrefix::u32(), &[Bytes::copy_from_slice(block)]);
    let address_of = |payload: &P| payload.as_ref().as_ptr() as usize;
    let source = |payload| stream::iter(once(payload));

    let (mut transport, payload_1) = (transport(Scripted::default()), payload());
    let address = address_of(&payload_1);
    ready(send_blocks(&mut transport, source(payload_1))).unwrap();
    assert_eq!(
        sent(transport.get_ref(), address),
        (&expected[..], by_reference)
    );

    let (mut framed, payload_2) = (prefixed(Scripted::default()), payload());
    let address = address_of(&payload_2);
    ready(send_blocks(&mut framed, source(payload_2))).unwrap();
    assert_eq!(
        sent(framed.get_ref(), address),
        (&expected[..], by_reference)
    );

    // A transport that takes one slice a write gets everything joined.
    let io = Scripted::default().not_vectored();
    let mut joined = testing::transport(io);
    ready(send_blocks(&mut joined, source(payload()))).unwrap();
    assert_eq!(joined.get_ref().written, expected);
    assert_eq!(joined.get_ref().addresses.len(), 1);
}

/// Checks every type that owns its bytes, and every type that borrows them.
fn check_all<const N: usize>(text: &str) {
    let block = text.as_bytes();
    let array: [u8; N] = block.try_into().unwrap();
    let large = block.len() >= CHAIN_FROM;
    let bytes = Bytes::copy_from_slice(block);
    let vec = block.to_vec();

    check(|| block.to_vec(), block, large);
    check(|| bytes.clone(), block, large);
    check(|| &bytes, block, large);
    check(|| BytesMut::from(block), block, large);
    check(|| Box::<[u8]>::from(block), block, large);
    check(|| String::from(text), block, large);

    check(|| block, block, false);
    check(|| text, block, false);
    check(|| &vec, block, false);
    check(|| &array, block, false);
    check(|| array, block, false);
}

#[test]
fn every_type_is_sent_and_large_owned_payloads_are_not_copied() {
    check_all::<0>("");
    check_all::<5>("small");
    check_all::<{ CHAIN_FROM - 1 }>(&"s".repeat(CHAIN_FROM - 1));
    check_all::<CHAIN_FROM>(&"l".repeat(CHAIN_FROM));
    check_all::<20_000>(&"l".repeat(20_000));
}

#[test]
fn vec_with_spare_room_and_part_of_a_buffer_leave_without_a_copy() {
    let block = numbered(&[20_000]).remove(0);
    let with_room = || {
        let mut vec = Vec::with_capacity(100_000);
        vec.extend_from_slice(&block);
        vec
    };
    check(with_room, &block, true);
    check(
        || BytesMut::from(&with_room()[..]).split_off(10_000),
        &block[10_000..],
        true,
    );
    check(|| block.slice(5_000..15_000), &block[5_000..15_000], true);
}

#[test]
fn slices_of_a_local_buffer_need_not_be_static() {
    let mut transport = transport(Scripted::default());
    let buffer: Vec<u8> = (0..200).collect();
    let sent = ready(send_blocks(&mut transport, stream::iter(buffer.chunks(30)))).unwrap();
    assert_eq!((sent.blocks, sent.payload_bytes), (7, 200));
    let blocks: Vec<_> = buffer.chunks(30).map(Bytes::copy_from_slice).collect();
    assert_eq!(
        transport.get_ref().written,
        wire(LengthPrefix::u32(), &blocks)
    );
}

/// A user's own type, which shares its bytes if `OWNED`, and otherwise copies them.
struct Record<const OWNED: bool>(String);

impl<const OWNED: bool> AsRef<[u8]> for Record<OWNED> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<const OWNED: bool> Payload for Record<OWNED> {
    fn byte_len(&self) -> usize {
        self.0.len()
    }

    fn put_into(self, pieces: &mut Pieces<'_>) {
        match OWNED {
            true => pieces.share(self.0),
            false => pieces.copy(self.0.as_bytes()),
        }
    }
}

#[test]
fn users_own_type_is_shared_or_copied_as_it_says() {
    for len in [10, CHAIN_FROM, 20_000] {
        let text = "r".repeat(len);
        check(
            || Record::<true>(text.clone()),
            text.as_bytes(),
            len >= CHAIN_FROM,
        );
        check(|| Record::<false>(text.clone()), text.as_bytes(), false);
    }
}

#[test]
fn try_send_blocks_takes_the_same_types() {
    fn send<W: BlockSink, P: Payload>(framed: &mut W, payload: P) {
        let source = stream::iter([Ok::<_, std::io::Error>(payload)]);
        let sent = ready(try_send_blocks(framed, source));
        assert_eq!(sent.map_err(drop).unwrap().blocks, 1);
    }
    let mut transport = transport(Scripted::default());
    let local = [3, 4];
    send(&mut transport, vec![1, 2]);
    send(&mut transport, &local[..]);
    send(&mut transport, [5]);
    send(&mut transport, "six");
    assert_eq!(
        transport.get_ref().written,
        b"\0\0\0\x02\x01\x02\0\0\0\x02\x03\x04\0\0\0\x01\x05\0\0\0\x03six"
    );
}

#[test]
fn refused_large_payload_is_not_queued() {
    let codec = wholeblock::BlockCodec::new(LengthPrefix::u16());
    let mut transport = wholeblock::BlockTransport::new(Scripted::default(), codec);
    let blocks = [vec![1; 70_000], vec![2; 3]];
    assert!(ready(send_blocks(&mut transport, stream::iter(blocks))).is_err());
    ready(send_blocks(&mut transport, stream::iter(["after"]))).unwrap();
    assert_eq!(transport.get_ref().written, b"\0\x05after");
}

/// Panics when it is dropped.
struct Bomb(Vec<u8>);

impl AsRef<[u8]> for Bomb {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[test]
fn payload_whose_drop_panics_is_not_sent_twice() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let len = 2 * CHAIN_FROM;
    let blocks = numbered(&[10, len, 20, len, 30]);
    let expected = wire(LengthPrefix::u32(), &blocks);
    for first_write in [
        expected.len(),
        14 + 4 + len,
        14 + 4 + len + 3,
        24 + 8 + 2 * len + 1,
    ] {
        let source = || {
            let bombs = blocks.iter().map(|block| match block.len() {
                8_192 => Bytes::from_owner(Bomb(block.to_vec())),
                _ => block.clone(),
            });
            stream::iter(bombs.collect::<Vec<_>>())
        };
        let io = || Scripted::default().take(first_write);
        let mut by_transfer = BlockTransport::new(io(), BlockCodec::length_prefixed());
        let mut sending = send_blocks(&mut by_transfer, source());
        let mut panics = 0;
        let sent = loop {
            match catch_unwind(AssertUnwindSafe(|| ready(&mut sending))) {
                Ok(sent) => break sent.unwrap(),
                Err(_) => panics += 1,
            }
        };
        assert!((1..=2).contains(&panics), "{first_write}: {panics}");
        assert_eq!(
            (sent.blocks, sent.payload_bytes),
            (5, 2 * len as u64 + 60),
            "{first_write}"
        );
        drop(sending);
        assert_eq!(by_transfer.get_ref().written, expected, "{first_write}");
        assert_eq!(by_transfer.get_ref().flushes, 1, "{first_write}");

        let mut by_sink = BlockTransport::new(io(), BlockCodec::length_prefixed());
        for block in ready(source().collect::<Vec<_>>()) {
            // Not by `feed`, which loses its block if a write before it panics.
            let mut room = || ready(poll_fn(|cx| by_sink.poll_ready_unpin(cx))).unwrap();
            while catch_unwind(AssertUnwindSafe(&mut room)).is_err() {}
            by_sink.start_send_unpin(block).unwrap();
        }
        while catch_unwind(AssertUnwindSafe(|| ready(by_sink.flush()).unwrap())).is_err() {}
        assert_eq!(by_sink.get_ref().written, expected, "{first_write}");
        assert_eq!(by_sink.get_ref().flushes, 1, "{first_write}");
    }
}
