//! Erlang's `{packet, N}`.

use bytes::BytesMut;
use tokio_util::codec::Decoder;
use wholeblock::{BlockCodec, BlockError, Framing, LengthField, LengthPrefix};

use super::Row;

#[test]
fn each_packet_type_with_a_length_reads_and_writes_the_same() {
    let rows = [
        Row::new(
            "{packet, 1}",
            LengthPrefix::u8(),
            b"\x03abc\0",
            &[b"abc", b""],
        ),
        Row::new(
            "{packet, 2}",
            LengthPrefix::u16(),
            b"\0\x03abc\0\0",
            &[b"abc", b""],
        ),
        Row::new(
            "{packet, 4}",
            LengthPrefix::u32(),
            b"\0\0\0\x03abc\0\0\0\0",
            &[b"abc", b""],
        ),
        Row::field(
            "{packet, tpkt}",
            LengthField::config()
                .offset(2)
                .width(2)
                .adjustment(-4)
                .keep_header(),
            b"\x03\0\0\x0b\x06\xe0\0\0\0\0\0",
            &[b"\x03\0\0\x0b\x06\xe0\0\0\0\0\0"],
        ),
    ];
    for row in rows {
        row.check();
    }
}

#[test]
fn examples_of_decode_packet_give_the_same_packets() {
    // erlang:decode_packet(1, <<3, "abcd">>, []) -> {ok, <<"abc">>, <<"d">>}
    let mut arrived = BytesMut::from(&b"\x03abcd"[..]);
    let mut codec = BlockCodec::new(LengthPrefix::u8());
    assert_eq!(codec.decode(&mut arrived).unwrap().unwrap(), "abc");
    assert_eq!(arrived, "d");

    // erlang:decode_packet(1, <<5, "abcd">>, []) -> {more, 6}
    let mut arrived = BytesMut::from(&b"\x05abcd"[..]);
    let mut codec = BlockCodec::new(LengthPrefix::u8());
    assert!(codec.decode(&mut arrived).unwrap().is_none());
    arrived.extend_from_slice(b"e");
    assert_eq!(codec.decode(&mut arrived).unwrap().unwrap(), "abcde");
}

#[test]
fn packet_size_is_the_limit() {
    // [{packet, 4}, {packet_size, 1000}]
    let framing = LengthPrefix::u32().max_block_len(1_000).unwrap();
    for (len, fits) in [(1_000_u32, true), (1_001, false)] {
        let mut arrived = BytesMut::from(&len.to_be_bytes()[..]);
        match BlockCodec::new(framing).decode(&mut arrived) {
            Ok(None) => assert!(fits),
            Err(BlockError::TooLarge {
                announced: 1_001,
                limit: 1_000,
                ..
            }) => assert!(!fits),
            other => panic!("{len}: {other:?}"),
        }
    }

    // [{packet, 4}] alone has only the limit of its length: 2 GiB.
    if cfg!(target_pointer_width = "64") {
        let framing = LengthPrefix::u32()
            .max_block_len(i32::MAX as usize)
            .unwrap();
        assert_eq!(framing.max_whole_len(), 0x7fff_ffff);
    }
}
