//! The worked examples of other crates' and protocols' documentation: wire bytes in, blocks out, and
//! back. The configurations are those of docs/migration.md.

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, SinkExt, StreamExt};
use tokio_util::codec::{Decoder, Encoder, length_delimited};
use wholeblock::{
    AnyFraming, BlockCodec, BlockError, BlockTransport, ConfigError, Framing, Header,
    InvalidHeader, LengthField, LengthFieldConfig, LengthPrefix, Limit, Varint, check_framing,
};

use crate::support::{Scripted, WAYS, ready};

/// One worked example.
struct Example {
    name: &'static str,
    framing: AnyFraming,
    wire: &'static [u8],
    blocks: &'static [&'static [u8]],
    /// What the blocks are on the wire when they are sent, where a part of the header that is
    /// stripped had content.
    sent: Option<&'static [u8]>,
}

fn example(
    name: &'static str,
    framing: impl TryInto<AnyFraming, Error: std::fmt::Debug>,
    wire: &'static [u8],
    blocks: &'static [&'static [u8]],
) -> Example {
    let framing = framing.try_into().unwrap();
    let sent = None;
    Example {
        name,
        framing,
        wire,
        blocks,
        sent,
    }
}

impl Example {
    fn sent_as(mut self, wire: &'static [u8]) -> Self {
        self.sent = Some(wire);
        self
    }

    fn check(&self) {
        let (name, blocks) = (self.name, self.blocks);
        check_framing(&self.framing).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (way, chunk) in WAYS
            .into_iter()
            .flat_map(|way| [(way, 1), (way, usize::MAX)])
        {
            let io = Scripted::chunked(self.wire, chunk, true);
            let (received, error) = way.receive(io, BlockCodec::new(self.framing));
            assert!(error.is_none(), "{name}, {way:?}: {error:?}");
            assert_eq!(received, blocks, "{name}, {way:?}");
        }
        let mut transport = BlockTransport::new(Scripted::default(), BlockCodec::new(self.framing));
        for block in blocks {
            ready(transport.send(Bytes::from_static(block))).unwrap();
        }
        let sent = self.sent.unwrap_or(self.wire);
        assert_eq!(transport.get_ref().written, sent, "{name}, sent");
    }
}

fn built(config: LengthFieldConfig) -> AnyFraming {
    config.build().unwrap().into()
}

/// tokio-util's `length_delimited`, of which the documentation has these examples, with what its
/// settings are there; its adjustment counts from what is skipped, ours from the field's end.
#[test]
fn the_examples_of_tokio_utils_documentation() {
    type Theirs = fn(&mut length_delimited::Builder) -> &mut length_delimited::Builder;
    let field = LengthField::config;
    let table: [(Example, Theirs); 10] = [
        (
            example(
                "the default",
                LengthPrefix::u32(),
                b"\0\0\0\x05hello",
                &[b"hello"],
            ),
            |builder| builder,
        ),
        (
            example(
                "u16, skipped",
                LengthPrefix::u16(),
                b"\0\x0bHello world",
                &[b"Hello world"],
            ),
            |builder| builder.length_field_type::<u16>(),
        ),
        (
            example(
                "u16, little-endian",
                LengthPrefix::u16().little_endian(),
                b"\x0b\0Hello world",
                &[b"Hello world"],
            ),
            |builder| builder.length_field_type::<u16>().little_endian(),
        ),
        (
            example(
                "u16, included in the frame",
                built(field().width(2).keep_header()),
                b"\0\x0bHello world",
                &[b"\0\x0bHello world"],
            ),
            |builder| {
                builder
                    .length_field_type::<u16>()
                    .length_adjustment(2)
                    .num_skip(0)
            },
        ),
        (
            example(
                "u16 that counts itself",
                built(field().width(2).adjustment(-2).keep_header()),
                b"\0\x0dHello world",
                &[b"\0\x0dHello world"],
            ),
            |builder| builder.length_field_type::<u16>().num_skip(0),
        ),
        (
            example(
                "u16 that counts itself, skipped",
                LengthPrefix::u16().including_header().unwrap(),
                b"\0\x0dHello world",
                &[b"Hello world"],
            ),
            |builder| builder.length_field_type::<u16>().length_adjustment(-2),
        ),
        (
            example(
                "u24, and a byte after it that is skipped too",
                built(field().width(3).adjustment(1).header_len(4)),
                b"\0\0\x0b\xffHello world",
                &[b"Hello world"],
            )
            .sent_as(b"\0\0\x0b\0Hello world"),
            |builder| builder.length_field_length(3).num_skip(4),
        ),
        (
            example(
                "u24 and 2 bytes of header after it",
                built(field().width(3).adjustment(2).header_len(5).keep_header()),
                b"\0\0\x0b\xca\xfeHello world",
                &[b"\0\0\x0b\xca\xfeHello world"],
            ),
            |builder| {
                builder
                    .length_field_length(3)
                    .length_adjustment(5)
                    .num_skip(0)
            },
        ),
        (
            example(
                "two headers, of which the first and the length are skipped",
                built(
                    field()
                        .offset(1)
                        .width(2)
                        .adjustment(1)
                        .header_len(4)
                        .strip(3),
                ),
                b"\xca\0\x0b\xfeHello world",
                &[b"\xfeHello world"],
            )
            .sent_as(b"\0\0\x0b\xfeHello world"),
            |builder| {
                builder
                    .length_field_offset(1)
                    .length_field_type::<u16>()
                    .length_adjustment(1)
                    .num_skip(3)
            },
        ),
        (
            example(
                "two headers and a length that counts all of it",
                built(
                    field()
                        .offset(1)
                        .width(2)
                        .adjustment(-3)
                        .header_len(4)
                        .strip(3),
                ),
                b"\xca\0\x0f\xfeHello world",
                &[b"\xfeHello world"],
            )
            .sent_as(b"\0\0\x0f\xfeHello world"),
            |builder| {
                builder
                    .length_field_offset(1)
                    .length_field_type::<u16>()
                    .length_adjustment(-3)
                    .num_skip(3)
            },
        ),
    ];
    for (example, theirs) in table {
        example.check();
        let mut codec = theirs(&mut length_delimited::Builder::new()).new_codec();
        let frame = codec.decode(&mut BytesMut::from(example.wire)).unwrap();
        assert_eq!(frame.unwrap(), example.blocks[0], "{}", example.name);
    }
}

#[test]
fn the_examples_of_nettys_documentation() {
    let netty = |offset, width, adjustment, header_len, strip| {
        let config = LengthField::config().offset(offset).width(width);
        built(
            config
                .adjustment(adjustment)
                .header_len(header_len)
                .strip(strip),
        )
    };
    let table = [
        example(
            "2 bytes of length at offset 0, header kept",
            netty(0, 2, 0, 2, 0),
            b"\0\x0cHELLO, WORLD",
            &[b"\0\x0cHELLO, WORLD"],
        ),
        example(
            "2 bytes of length at offset 0, header stripped",
            netty(0, 2, 0, 2, 2),
            b"\0\x0cHELLO, WORLD",
            &[b"HELLO, WORLD"],
        ),
        example(
            "2 bytes of length that count the whole message",
            netty(0, 2, -2, 2, 0),
            b"\0\x0eHELLO, WORLD",
            &[b"\0\x0eHELLO, WORLD"],
        ),
        example(
            "3 bytes of length at the end of 5 bytes of header",
            netty(2, 3, 0, 5, 0),
            b"\xca\xfe\0\0\x0cHELLO, WORLD",
            &[b"\xca\xfe\0\0\x0cHELLO, WORLD"],
        ),
        example(
            "3 bytes of length at the start of 5 bytes of header",
            netty(0, 3, 2, 5, 0),
            b"\0\0\x0c\xca\xfeHELLO, WORLD",
            &[b"\0\0\x0c\xca\xfeHELLO, WORLD"],
        ),
        example(
            "2 bytes of length in the middle of 4 bytes of header, 3 stripped",
            netty(1, 2, 1, 4, 3),
            b"\xca\0\x0c\xfeHELLO, WORLD",
            &[b"\xfeHELLO, WORLD"],
        )
        .sent_as(b"\0\0\x0c\xfeHELLO, WORLD"),
        example(
            "the same, and a length that counts the whole message",
            netty(1, 2, -3, 4, 3),
            b"\xca\0\x10\xfeHELLO, WORLD",
            &[b"\xfeHELLO, WORLD"],
        )
        .sent_as(b"\0\0\x10\xfeHELLO, WORLD"),
        example(
            "LengthFieldPrepender(2)",
            LengthPrefix::u16(),
            b"\0\x0cHELLO, WORLD",
            &[b"HELLO, WORLD"],
        ),
        example(
            "LengthFieldPrepender(2, true)",
            LengthPrefix::u16().including_header().unwrap(),
            b"\0\x0eHELLO, WORLD",
            &[b"HELLO, WORLD"],
        ),
    ];
    table.iter().for_each(Example::check);
}

#[test]
fn erlangs_packets() {
    let table = [
        example(
            "{packet, 1}",
            LengthPrefix::u8(),
            b"\x02ok\0\x01!",
            &[b"ok", b"", b"!"],
        ),
        example(
            "{packet, 2}",
            LengthPrefix::u16(),
            b"\0\x02ok\0\0\0\x01!",
            &[b"ok", b"", b"!"],
        ),
        example(
            "{packet, 4}",
            LengthPrefix::u32(),
            b"\0\0\0\x02ok\0\0\0\0",
            &[b"ok", b""],
        ),
    ];
    table.iter().for_each(Example::check);
    // {packet_size, 3}
    let mut codec = BlockCodec::new(LengthPrefix::u16().max_block_len(3).unwrap());
    let refused = codec.decode(&mut BytesMut::from(&b"\0\x04four"[..]));
    assert!(matches!(
        refused,
        Err(BlockError::TooLarge {
            announced: 4,
            limit: 3,
            ..
        })
    ));
}

#[test]
fn protocols_with_a_length_in_their_header() {
    let field = LengthField::config;
    let table = [
        example(
            "PostgreSQL: a query, a sync",
            built(field().offset(1).adjustment(-4).keep_header()),
            b"Q\0\0\0\x0dSELECT 1\0S\0\0\0\x04",
            &[b"Q\0\0\0\x0dSELECT 1\0", b"S\0\0\0\x04"],
        ),
        example(
            "HTTP/2: SETTINGS, its acknowledgement, DATA of stream 1",
            built(field().width(3).adjustment(6).header_len(9).keep_header()),
            b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\0\0\x04\x01\0\0\0\0\0\0\x02\0\x01\0\0\0\x01hi",
            &[
                b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64",
                b"\0\0\0\x04\x01\0\0\0\0",
                b"\0\0\x02\0\x01\0\0\0\x01hi",
            ],
        ),
        example(
            "9P: Tversion, Tclunk",
            built(field().little_endian().adjustment(-4).keep_header()),
            b"\x13\0\0\0\x64\xff\xff\0\x20\0\0\x06\09P2000\x0b\0\0\0\x78\x01\0\x05\0\0\0",
            &[
                b"\x13\0\0\0\x64\xff\xff\0\x20\0\0\x06\09P2000",
                b"\x0b\0\0\0\x78\x01\0\x05\0\0\0",
            ],
        ),
        example(
            "9P, the length stripped",
            LengthPrefix::u32().little_endian().including_header().unwrap(),
            b"\x0b\0\0\0\x78\x01\0\x05\0\0\0",
            &[b"\x78\x01\0\x05\0\0\0"],
        ),
        example(
            "libvirt: a call without arguments",
            LengthPrefix::u32().including_header().unwrap(),
            b"\0\0\0\x1c\x20\0\x80\x86\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\x07\0\0\0\0",
            &[b"\x20\0\x80\x86\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0\x07\0\0\0\0"],
        ),
        example(
            "Kafka: an ApiVersions request",
            LengthPrefix::u32(),
            b"\0\0\0\x0d\0\x12\0\0\0\0\0\x07\0\x03cli",
            &[b"\0\x12\0\0\0\0\0\x07\0\x03cli"],
        ),
        example(
            "protobuf, delimited: two messages",
            Varint::new(),
            b"\x03\x08\x96\x01\x02\x08\x01",
            &[b"\x08\x96\x01", b"\x08\x01"],
        ),
        example(
            "Modbus TCP: read 2 registers",
            built(field().offset(4).width(2).keep_header()),
            b"\0\x01\0\0\0\x06\x11\x03\0\x6b\0\x02",
            &[b"\0\x01\0\0\0\x06\x11\x03\0\x6b\0\x02"],
        ),
    ];
    table.iter().for_each(Example::check);
}

/// HTTP/2's SETTINGS_MAX_FRAME_SIZE, which each end announces while frames are under way.
#[test]
fn http2_changes_its_limit_in_flight() {
    const HEADER: usize = 9;
    let data = |len: usize| {
        let mut frame = (len as u32).to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[0, 0, 0, 0, 0, 1]);
        frame.resize(HEADER + len, 7);
        Bytes::from(frame)
    };
    let config = LengthField::config()
        .width(3)
        .adjustment(6)
        .header_len(HEADER);
    let mut codec = BlockCodec::new(config.keep_header().limit(Limit::None).build().unwrap());
    codec.set_max_block_len(16_384 + HEADER).unwrap();
    let wire: Vec<_> = [16_384, 16_384, 20_000].map(data).concat();
    let io = Scripted::default()
        .send(&wire[..20_000])
        .pause()
        .send(&wire[20_000..]);
    let mut transport = BlockTransport::new(io, codec);

    // The peer announces 20,000, and is told 100 after its first frame.
    assert!(ready(transport.send(data(20_000))).is_err());
    transport
        .codec_mut()
        .set_max_encode_len(20_000 + HEADER)
        .unwrap();
    ready(transport.send(data(20_000))).unwrap();
    assert_eq!(ready(transport.next()).unwrap().unwrap(), data(16_384));
    assert!(transport.next().now_or_never().is_none(), "half received");
    transport
        .codec_mut()
        .set_max_decode_len(100 + HEADER)
        .unwrap();
    assert_eq!(ready(transport.next()).unwrap().unwrap(), data(16_384));
    let error = ready(transport.next()).unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            BlockError::TooLarge {
                announced: 20_009,
                limit: 109,
                index: 2,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_limit_that_a_peer_could_not_be_told_is_refused() {
    // Netty takes any maxFrameLength, and tokio-util lowers it unasked.
    let config = LengthField::config().width(1).limit(Limit::Strict(1_000));
    assert_eq!(
        config.build(),
        Err(ConfigError::LimitTooLarge {
            limit: 1_000,
            max: 255
        })
    );
    let clamped = config.limit(Limit::Clamped(1_000)).build().unwrap();
    assert_eq!(clamped.block_lens(), 0..=255);
}

/// MQTT's fixed header: a type and flags, then the remaining length in 1 to 4 bytes of 7 bits, the
/// lowest first. Kept, so that a block is a whole packet.
#[derive(Clone, Copy, Debug)]
struct Mqtt;

impl Framing for Mqtt {
    fn block_lens(&self) -> RangeInclusive<usize> {
        2..=5 + 0x0fff_ffff
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let mut remaining = 0;
        for (place, byte) in front.iter().skip(1).take(4).enumerate() {
            remaining |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(Header::Complete {
                    header_len: 0,
                    payload_len: 2 + place as u64 + remaining,
                });
            }
        }
        match front.len() {
            0..=4 => Ok(Header::Incomplete {
                at_least: (front.len() + 1).max(2),
            }),
            _ => Err(InvalidHeader("its remaining length has more than 4 bytes")),
        }
    }

    /// Nothing is stripped, so nothing is written: a packet brings its header along.
    fn encode_header(&self, _payload_len: usize, _dst: &mut impl BufMut) {}
}

#[test]
fn mqtts_packets_by_a_framing_of_ones_own() {
    check_framing(&Mqtt).unwrap();
    let mut publish = b"\x30\xad\x02\0\x01t".to_vec(); // 301 bytes remain
    publish.resize(3 + 301, b'x');
    let packets = [
        Bytes::from_static(b"\xc0\0"),
        publish.into(),
        Bytes::from_static(b"\xe0\0"),
    ];
    let wire = packets.concat();
    for (way, chunk) in WAYS.into_iter().flat_map(|way| [(way, 1), (way, 999)]) {
        let io = Scripted::chunked(&wire, chunk, true);
        let (received, error) = way.receive(io, BlockCodec::new(Mqtt));
        assert!(error.is_none(), "{way:?}: {error:?}");
        assert_eq!(received, packets, "{way:?}");
    }
    let mut sent = BytesMut::new();
    let mut codec = BlockCodec::new(Mqtt);
    for packet in &packets {
        codec.encode(packet.clone(), &mut sent).unwrap();
    }
    assert_eq!(sent, wire);
    let lie = codec.encode(Bytes::from_static(b"\x30\x02x"), &mut sent);
    assert!(matches!(
        lie,
        Err(BlockError::WrongHeader {
            announced: Some(4),
            ..
        })
    ));
    assert_eq!(sent, wire, "nothing of it is sent");
}
