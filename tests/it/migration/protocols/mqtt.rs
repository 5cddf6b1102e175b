//! MQTT: a header that no framing of the crate describes.

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use tokio_util::codec::Encoder;
use wholeblock::{BlockCodec, BlockError, BlockTransport, Framing, Header, InvalidHeader};

use super::{assert_blocks, assert_invalid};

/// A type of 1 byte, then how many bytes follow, in 1 to 4 bytes of 7 bits each. All of it is kept.
#[derive(Clone, Copy)]
struct Mqtt;

impl Framing for Mqtt {
    fn block_lens(&self) -> RangeInclusive<u64> {
        2..=1 + 4 + 0x0fff_ffff // 28 bits
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let mut remaining = 0;
        for (i, &byte) in front.iter().skip(1).take(4).enumerate() {
            remaining |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                return Ok(Header::Complete {
                    stripped: 0, // nothing is stripped, so all of it counts below
                    block_len: 1 + (i as u64 + 1) + remaining,
                });
            }
        }
        match front.len() {
            0..5 => Ok(Header::Incomplete {
                at_least: (front.len() + 1).max(2),
            }),
            _ => Err(InvalidHeader("its length does not end within 4 bytes")),
        }
    }

    fn encode_header(&self, _: u64, _: &mut impl BufMut) {} // the block brings it along
}

/// Returns the header of a packet with `remaining` bytes behind it.
fn header(first: u8, mut remaining: usize) -> Vec<u8> {
    let mut header = vec![first];
    while remaining > 0x7f {
        header.push(remaining as u8 | 0x80);
        remaining >>= 7;
    }
    header.push(remaining as u8);
    header
}

#[test]
fn mqtt_packets_are_blocks_with_their_headers() {
    // PINGREQ, PUBLISH, PINGRESP; and a PUBLISH of 321 bytes.
    assert_blocks(Mqtt, &[b"\xc0\0", b"\x30\x07\0\x03a/bhi", b"\xd0\0"]);
    let (topic, payload) = (&b"\0\x03a/b"[..], Bytes::from("hi"));
    let mut blocks = BlockTransport::new(Vec::new(), BlockCodec::new(Mqtt));
    let publish = (header(0x30, topic.len() + payload.len()), topic, payload);
    blocks.send(publish).now_or_never().unwrap().unwrap();
    assert_eq!(blocks.get_ref(), b"\x30\x07\0\x03a/bhi");
    let long = [&[0x30, 0xc1, 0x02], &[7; 321][..]].concat();
    assert_blocks(Mqtt, &[&long]);
}

#[test]
fn each_size_of_the_remaining_length_reads_as_the_standard_says() {
    let table: [(&[u8], u64); 9] = [
        (&[0x00], 0),
        (&[0x7f], 127),
        (&[0x80, 0x01], 128),
        (&[0xc1, 0x02], 321),
        (&[0xff, 0x7f], 16_383),
        (&[0x80, 0x80, 0x01], 16_384),
        (&[0xff, 0xff, 0x7f], 2_097_151),
        (&[0x80, 0x80, 0x80, 0x01], 2_097_152),
        (&[0xff, 0xff, 0xff, 0x7f], 268_435_455),
    ];
    for (length, remaining) in table {
        let front = [&[0x30], length].concat();
        let complete = Header::Complete {
            stripped: 0,
            block_len: front.len() as u64 + remaining,
        };
        assert_eq!(Mqtt.decode_header(&front), Ok(complete), "{remaining}");
        assert_eq!(header(0x30, remaining as usize), front);
    }
    assert_invalid(Mqtt, &[b"\x30\xff\xff\xff\xff"]);
}

#[test]
fn mqtt_packet_that_contradicts_its_header_is_not_sent() {
    let mut wire = BytesMut::new();
    let error = BlockCodec::new(Mqtt)
        .encode(Bytes::from_static(b"\x30\x07\0\x03a/bh"), &mut wire)
        .unwrap_err();
    let wrong = matches!(
        error,
        BlockError::WrongHeader {
            announced: Some(9),
            actual: 8,
            ..
        }
    );
    assert!(wrong, "{error:?}");
    assert!(wire.is_empty());
}
