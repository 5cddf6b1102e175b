//! Protocols with a length in their header.

mod dbus;
mod git;
mod ldap;
mod memcached;
mod mqtt;
mod nbd;
mod syslog;
mod websocket;
mod x11;
mod zmtp;

use std::error::Error;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, LengthDelimitedCodec};
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, ConfigError, Exact, Framing, InOut, LengthField,
    LengthLimit, LengthPrefix,
};

use super::{Row, check};
use testing::Scripted;

/// Checks a framing that keeps its headers, so that the wire is the blocks alone.
fn assert_blocks<F: Framing + Copy>(framing: F, blocks: &[&[u8]]) {
    let wire = blocks.concat();
    check(&format!("{blocks:.60?}"), framing, &wire, blocks, &wire);
}

/// Asserts that each front is refused at its last byte, and not before.
fn assert_invalid<F: Framing>(framing: F, fronts: &[&[u8]]) {
    for front in fronts {
        let read = framing.decode_header(front);
        assert!(read.is_err(), "{front:02x?}: {read:?}");
        let read = framing.decode_header(&front[..front.len() - 1]);
        assert!(read.is_ok(), "{front:02x?} without its last byte: {read:?}");
    }
}

#[test]
fn messages_of_each_protocol_read_and_write_the_same() {
    let rows = [
        Row::field(
            "HTTP/2: SETTINGS, PING",
            LengthField::config()
                .width(3)
                .adjustment(6)
                .header_len(9)
                .keep_header(),
            b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x06\0\0\0\0\0pingpong",
            &[b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x08\x06\0\0\0\0\0pingpong"],
        ),
        Row::field(
            "PostgreSQL: SSLRequest",
            LengthField::config().adjustment(-4).keep_header(),
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            &[b"\0\0\0\x08\x04\xd2\x16\x2f"],
        ),
        Row::field(
            "PostgreSQL: AuthenticationOk, Sync",
            LengthField::config().offset(1).adjustment(-4).keep_header(),
            b"R\0\0\0\x08\0\0\0\0S\0\0\0\x04",
            &[b"R\0\0\0\x08\0\0\0\0", b"S\0\0\0\x04"],
        ),
        Row::new(
            "Kafka: ApiVersions",
            LengthPrefix::u32().max_block_len(104_857_600).unwrap(),
            b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xff",
            &[b"\0\x12\0\0\0\0\0\x01\xff\xff"],
        ),
        Row::field(
            "Modbus TCP: read a register, and the answer",
            LengthField::config()
                .offset(4)
                .width(2)
                .header_len(7)
                .keep_header()
                .max_block_len(260),
            b"\x15\x01\0\0\0\x06\xff\x03\0\x04\0\x01\x15\x01\0\0\0\x05\xff\x03\x02\0\x05",
            &[
                b"\x15\x01\0\0\0\x06\xff\x03\0\x04\0\x01",
                b"\x15\x01\0\0\0\x05\xff\x03\x02\0\x05",
            ],
        ),
        Row::field(
            "9P2000: Tversion, Rclunk",
            LengthField::config()
                .little_endian()
                .adjustment(-4)
                .header_len(7)
                .keep_header(),
            b"\x13\0\0\0\x64\xff\xff\0\x20\0\0\x06\09P2000\x07\0\0\0\x79\x01\0",
            &[
                b"\x13\0\0\0\x64\xff\xff\0\x20\0\0\x06\09P2000",
                b"\x07\0\0\0\x79\x01\0",
            ],
        ),
        Row::field(
            "X11: QueryExtension, GetInputFocus",
            LengthField::config()
                .offset(2)
                .width(2)
                .unit(4)
                .adjustment(-4)
                .keep_header(),
            b"\x62\0\0\x04\0\x06\0\0RENDER\0\0\x2b\0\0\x01",
            &[b"\x62\0\0\x04\0\x06\0\0RENDER\0\0", b"\x2b\0\0\x01"],
        ),
        Row::field(
            "AMQP 0-9-1: Channel.Open, a heartbeat",
            LengthField::config().offset(3).adjustment(1).keep_header(),
            b"\x01\0\x01\0\0\0\x05\0\x14\0\x0a\0\xce\x08\0\0\0\0\0\0\xce",
            &[
                b"\x01\0\x01\0\0\0\x05\0\x14\0\x0a\0\xce",
                b"\x08\0\0\0\0\0\0\xce",
            ],
        ),
        Row::new(
            "AMQP 0-9-1: the protocol header",
            Exact::new(8).unwrap(),
            b"AMQP\0\0\x09\x01",
            &[b"AMQP\0\0\x09\x01"],
        ),
        Row::new(
            "NBD: a request to read 5 bytes at 2",
            Exact::new(28).unwrap(),
            b"\x25\x60\x95\x13\0\0\0\0\0\0\0\0\0\0\0\x4d\0\0\0\0\0\0\0\x02\0\0\0\x05",
            &[b"\x25\x60\x95\x13\0\0\0\0\0\0\0\0\0\0\0\x4d\0\0\0\0\0\0\0\x02\0\0\0\x05"],
        ),
        Row::new(
            "NBD: a simple reply, whose data follows",
            Exact::new(16).unwrap(),
            b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x4d",
            &[b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x4d"],
        ),
        Row::field(
            "NBD: a structured reply with these, and one of no data",
            LengthField::config().offset(16).keep_header(),
            b"\x66\x8e\x33\xef\0\0\0\x01\0\0\0\0\0\0\0\x4d\0\0\0\x0d\
              \0\0\0\0\0\0\0\x02whole\
              \x66\x8e\x33\xef\0\x01\0\0\0\0\0\0\0\0\0\x4d\0\0\0\0",
            &[
                b"\x66\x8e\x33\xef\0\0\0\x01\0\0\0\0\0\0\0\x4d\0\0\0\x0d\
                  \0\0\0\0\0\0\0\x02whole",
                b"\x66\x8e\x33\xef\0\x01\0\0\0\0\0\0\0\0\0\x4d\0\0\0\0",
            ],
        ),
        Row::field(
            "libvirt: a call without arguments",
            LengthField::config()
                .adjustment(-4)
                .header_len(28)
                .strip(4)
                .max_block_len(33_554_432),
            b"\0\0\0\x1c\x20\0\x80\x86\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0",
            &[b"\x20\0\x80\x86\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0"],
        ),
        Row::field(
            "MySQL: OK, COM_QUIT",
            LengthField::config()
                .width(3)
                .little_endian()
                .adjustment(1)
                .header_len(4)
                .keep_header()
                .max_block_len(0xff_ffff + 4),
            b"\x07\0\0\x02\0\0\0\x02\0\0\0\x01\0\0\0\x01",
            &[b"\x07\0\0\x02\0\0\0\x02\0\0\0", b"\x01\0\0\0\x01"],
        ),
        Row::new(
            "DNS: a query for the name in RFC 1035, section 4.1.4",
            LengthPrefix::u16(),
            b"\0\x1c\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01F\x03ISI\x04ARPA\0\0\x01\0\x01",
            &[b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01F\x03ISI\x04ARPA\0\0\x01\0\x01"],
        ),
        Row::field(
            "BGP: OPEN, KEEPALIVE (RFC 4271, sections 4.2 and 4.4)",
            LengthField::config()
                .offset(16)
                .width(2)
                .adjustment(-18)
                .header_len(19)
                .keep_header()
                .max_block_len(4_096),
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\x1d\x01\
              \x04\xfb\xf0\0\xb4\xc0\0\x02\x01\0\
              \xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\x13\x04",
            &[
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\x1d\x01\
                  \x04\xfb\xf0\0\xb4\xc0\0\x02\x01\0",
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\x13\x04",
            ],
        ),
        Row::field(
            "RTR: Reset Query, Cache Response, IPv4 Prefix (RFC 8210, sections 5.4 to 5.6)",
            LengthField::config().offset(4).adjustment(-8).keep_header(),
            b"\x01\x02\0\0\0\0\0\x08\x01\x03\x12\x34\0\0\0\x08\
              \x01\x04\0\0\0\0\0\x14\x01\x18\x18\0\xc0\0\x02\0\0\0\xfb\xf0",
            &[
                b"\x01\x02\0\0\0\0\0\x08",
                b"\x01\x03\x12\x34\0\0\0\x08",
                b"\x01\x04\0\0\0\0\0\x14\x01\x18\x18\0\xc0\0\x02\0\0\0\xfb\xf0",
            ],
        ),
        Row::field(
            "memcached, binary: get Hello, and World (\"Example\" of its document)",
            LengthField::config()
                .offset(8)
                .adjustment(12)
                .header_len(24)
                .keep_header(),
            b"\x80\0\0\x05\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0Hello\
              \x81\0\0\0\x04\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0\0\0\0\x01\xde\xad\xbe\xefWorld",
            &[
                b"\x80\0\0\x05\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0Hello",
                b"\x81\0\0\0\x04\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0\0\0\0\x01\xde\xad\xbe\xefWorld",
            ],
        ),
        Row::field(
            "AMQP 1.0: an empty frame, and end",
            LengthField::config()
                .adjustment(-4)
                .header_len(8)
                .keep_header(),
            b"\0\0\0\x08\x02\0\0\0\0\0\0\x0c\x02\0\0\0\0\x53\x17\x45",
            &[
                b"\0\0\0\x08\x02\0\0\0",
                b"\0\0\0\x0c\x02\0\0\0\0\x53\x17\x45",
            ],
        ),
        Row::field(
            "X11: a server's answer to the connection setup, refused",
            LengthField::config()
                .offset(6)
                .width(2)
                .unit(4)
                .keep_header(),
            b"\0\x07\0\x0b\0\0\0\x02refused\0",
            &[b"\0\x07\0\x0b\0\0\0\x02refused\0"],
        ),
        Row::new(
            "X11: the connection setup without authorization",
            Exact::new(12).unwrap(),
            b"B\0\0\x0b\0\0\0\0\0\0\0\0",
            &[b"B\0\0\x0b\0\0\0\0\0\0\0\0"],
        ),
        Row::new(
            "NBD: the server's greeting",
            Exact::new(18).unwrap(),
            b"NBDMAGICIHAVEOPT\0\x03",
            &[b"NBDMAGICIHAVEOPT\0\x03"],
        ),
        Row::new(
            "NBD: the client's flags",
            Exact::new(4).unwrap(),
            b"\0\0\0\x03",
            &[b"\0\0\0\x03"],
        ),
        Row::field(
            "NBD: the client's option LIST",
            LengthField::config().offset(12).keep_header(),
            b"IHAVEOPT\0\0\0\x03\0\0\0\0",
            &[b"IHAVEOPT\0\0\0\x03\0\0\0\0"],
        ),
        Row::field(
            "NBD: a server's answers to it, SERVER and ACK",
            LengthField::config().offset(16).keep_header(),
            b"\0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x03\0\0\0\x02\0\0\0\x08\0\0\0\x04disk\
              \0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x03\0\0\0\x01\0\0\0\0",
            &[
                b"\0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x03\0\0\0\x02\0\0\0\x08\0\0\0\x04disk",
                b"\0\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x03\0\0\0\x01\0\0\0\0",
            ],
        ),
        Row::new(
            "ZMTP: the greeting",
            Exact::new(64).unwrap(),
            b"\xff\0\0\0\0\0\0\0\0\x7f\x03\x01NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
              \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            &[
                b"\xff\0\0\0\0\0\0\0\0\x7f\x03\x01NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
                  \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ],
        ),
    ];
    for row in rows {
        row.check();
    }
}

#[test]
fn a_length_that_leaves_no_room_for_its_header_is_invalid() {
    type Case = (&'static str, LengthField, &'static [u8]);
    let postgres = LengthField::config().offset(1).adjustment(-4).keep_header();
    let modbus = LengthField::config()
        .offset(4)
        .width(2)
        .header_len(7)
        .keep_header();
    let nine_p = LengthField::config()
        .little_endian()
        .adjustment(-4)
        .header_len(7)
        .keep_header();
    let x11 = LengthField::config().offset(2).width(2).unit(4);
    let x11 = x11.adjustment(-4).keep_header();
    let libvirt = LengthField::config().adjustment(-4).header_len(28).strip(4);
    let bgp = LengthField::config().offset(16).width(2);
    let bgp = bgp.adjustment(-18).header_len(19).keep_header();
    let rtr = LengthField::config().offset(4).adjustment(-8).keep_header();
    let cases: [Case; 7] = [
        (
            "BGP",
            bgp.build().unwrap(),
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\x12\x04",
        ),
        ("RTR", rtr.build().unwrap(), b"\x01\x02\0\0\0\0\0\x07"),
        ("PostgreSQL", postgres.build().unwrap(), b"S\0\0\0\x03"),
        (
            "Modbus TCP",
            modbus.build().unwrap(),
            b"\0\x01\0\0\0\0\xff\x03",
        ),
        ("X11", x11.build().unwrap(), b"\x2b\0\0\0\x2b\0\0\x01"),
        ("9P2000", nine_p.build().unwrap(), b"\x06\0\0\0\x79\x01\0"),
        (
            "libvirt",
            libvirt.build().unwrap(),
            b"\0\0\0\x1b\x20\0\x80\x86",
        ),
    ];
    for (name, framing, wire) in cases {
        let result = BlockCodec::new(framing).decode(&mut BytesMut::from(wire));
        let invalid = matches!(result, Err(BlockError::InvalidHeader { .. }));
        assert!(invalid, "{name}: {result:?}");
    }
}

#[test]
fn a_negative_length_of_kafka_is_over_the_limit() {
    let mut codec = BlockCodec::new(LengthPrefix::u32().max_block_len(104_857_600).unwrap());
    let error = codec
        .decode(&mut BytesMut::from(&[0xff; 4][..]))
        .unwrap_err();
    let refused = matches!(
        error,
        BlockError::TooLarge {
            announced: 0xffff_ffff,
            ..
        }
    );
    assert!(refused, "{error:?}");
}

/// An HTTP/2 frame of type DATA.
fn data(len: usize) -> Vec<u8> {
    let mut frame = (len as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(b"\0\0\0\0\0\x01");
    frame.resize(9 + len, 7);
    frame
}

/// Both codecs of HTTP/2, at the limit that a connection begins with.
fn http2() -> Result<(BlockCodec<LengthField>, LengthDelimitedCodec), ConfigError> {
    let frames = LengthField::config()
        .width(3)
        .adjustment(6)
        .header_len(9)
        .keep_header()
        .limit(LengthLimit::Unlimited)
        .build()?;
    let mut codec = BlockCodec::new(frames);
    codec.set_max_block_len(16_384 + 9)?;

    let theirs = LengthDelimitedCodec::builder()
        .length_field_length(3)
        .length_adjustment(9)
        .num_skip(0)
        .max_frame_length(16_384)
        .new_codec();
    Ok((codec, theirs))
}

#[test]
fn the_limit_of_http2_is_raised_and_lowered_between_frames_as_in_h2() -> Result<(), Box<dyn Error>>
{
    let (mut codec, mut theirs) = http2()?;
    let mut arrived = BytesMut::new();
    let mut their_arrived = BytesMut::new();
    let mut decode = |codec: &mut BlockCodec<_>, theirs: &mut LengthDelimitedCodec, came: &[u8]| {
        arrived.extend_from_slice(came);
        their_arrived.extend_from_slice(came);
        let ours = codec.decode(&mut arrived);
        match theirs.decode(&mut their_arrived) {
            Ok(frame) => assert_eq!(ours.as_ref().unwrap(), &frame),
            Err(_) => assert!(ours.is_err()),
        }
        ours.map(|frame| frame.map(|f| f.len()))
    };

    let len = decode(&mut codec, &mut theirs, &data(16_384))?;
    assert_eq!(len, Some(16_384 + 9));

    codec.set_max_decode_len(20_000 + 9)?;
    theirs.set_max_frame_length(20_000);
    let len = decode(&mut codec, &mut theirs, &data(20_000))?;
    assert_eq!(len, Some(20_000 + 9));

    // The frame in flight was within the limit when its header was read.
    let (front, rest) = (&data(20_000)[..10_000], &data(20_000)[10_000..]);
    assert_eq!(decode(&mut codec, &mut theirs, front)?, None);
    codec.set_max_decode_len(16_384 + 9)?;
    theirs.set_max_frame_length(16_384);
    let len = decode(&mut codec, &mut theirs, rest)?;
    assert_eq!(len, Some(20_000 + 9));

    let error = decode(&mut codec, &mut theirs, &data(16_385)).unwrap_err();
    let refused = matches!(
        error,
        BlockError::TooLarge {
            announced: 16_394,
            limit: 16_393,
            index: 3,
            ..
        }
    );
    assert!(refused, "{error:?}");
    Ok(())
}

#[test]
fn codec_limit_cannot_exceed_the_limit_of_its_framing() -> Result<(), Box<dyn Error>> {
    let (mut codec, _) = http2()?;
    codec.set_max_decode_len(0xff_ffff + 9)?;
    let error = codec.set_max_decode_len(0xff_ffff + 10).unwrap_err();
    assert!(
        matches!(
            error,
            ConfigError::LimitTooLarge {
                max: 0x100_0008,
                ..
            }
        ),
        "{error}"
    );

    let strict = LengthField::config()
        .width(3)
        .adjustment(6)
        .header_len(9)
        .keep_header();
    let mut codec = BlockCodec::new(strict.max_block_len(16_384 + 9).build()?);
    assert!(codec.set_max_decode_len(20_000 + 9).is_err());
    Ok(())
}

#[test]
fn a_server_of_http2_reads_the_preface_and_then_frames() -> Result<(), Box<dyn Error>> {
    let frames = *http2()?.0.framing();
    let mut arrived = BytesMut::from(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..]);
    arrived.extend_from_slice(&data(16_385));

    let mut codec = BlockCodec::exact(24)?;
    let preface = codec.decode(&mut arrived)?;
    assert_eq!(preface.unwrap(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let mut codec = codec.with_framing(frames);
    codec.set_max_block_len(16_384 + 9)?;
    let settings = codec.decode(&mut arrived)?;
    assert_eq!(settings.unwrap(), &b"\0\0\0\x04\0\0\0\0\0"[..]);
    assert!(codec.decode(&mut arrived).is_err());
    Ok(())
}

#[tokio::test]
async fn a_postgres_client_reads_a_byte_and_then_messages() -> Result<(), Box<dyn Error>> {
    let ssl_request = Bytes::from_static(b"\0\0\0\x08\x04\xd2\x16\x2f");
    let login = Bytes::from_static(b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0");
    let query = Bytes::from_static(b"Q\0\0\0\x0eSELECT 1;\0");
    let sent = [&ssl_request[..], &login, &query].concat();
    let socket = Scripted::default().send(b"NR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");

    let startup = LengthField::config().adjustment(-4).keep_header().build()?;
    let answer = Exact::new(1)?;
    let messages = LengthField::config()
        .offset(1)
        .adjustment(-4)
        .keep_header()
        .build()?;

    let opening = InOut {
        incoming: answer,
        outgoing: startup,
    };
    let mut transport = BlockTransport::new(socket, BlockCodec::new(opening));
    transport.send(ssl_request).await?;
    assert_eq!(transport.next().await.expect("an answer")?, "N");
    let mut transport = transport.map_codec(|codec| codec.with_framing(startup));
    transport.send(login).await?;
    let mut transport = transport.map_codec(|codec| codec.with_framing(messages));

    for message in [&b"R\0\0\0\x08\0\0\0\0"[..], b"Z\0\0\0\x05I"] {
        assert_eq!(transport.next().await.expect("a message")?, message);
    }
    transport.send(query).await?;
    assert_eq!(transport.get_ref().written, sent);
    Ok(())
}

#[test]
fn agreed_msize_of_9p_is_the_limit() -> Result<(), Box<dyn Error>> {
    let config = LengthField::config()
        .little_endian()
        .adjustment(-4)
        .header_len(7)
        .keep_header();
    let mut codec = BlockCodec::new(config.build()?);
    let mut arrived = BytesMut::from(&b"\x13\0\0\0\x65\xff\xff\0\x20\0\0\x06\09P2000"[..]);
    let version = codec.decode(&mut arrived)?.unwrap();
    let msize = u32::from_le_bytes(version[7..11].try_into()?);
    assert_eq!(msize, 8_192);

    codec.set_max_block_len(msize as usize)?;
    for size in [8_192_u32, 8_193] {
        arrived.clear();
        arrived.extend_from_slice(&size.to_le_bytes());
        arrived.resize(size as usize, 0);
        assert_eq!(codec.decode(&mut arrived).is_ok(), size <= msize, "{size}");
    }
    Ok(())
}
