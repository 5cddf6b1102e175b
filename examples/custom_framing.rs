//! A header of one's own: that of syslog over TCP (RFC 6587, "octet counting"), a decimal length
//! and a space. `check_framing` tests it, and then a peer gets it wrong.
//!
//! ```text
//! cargo run --example custom_framing
//!
//! the framing keeps its contract
//! received "hello"
//! received "hello, world"
//! error: invalid header in block 2, which begins at byte 22: it is not a length and a space
//! ```

use std::{error::Error, ops::RangeInclusive};

use bytes::{BufMut, Bytes};
use futures::{SinkExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use wholeblock::{BlockCodec, BlockTransport, Framing, Header, InvalidHeader, check_framing};

/// `5 hello`, `12 hello, world`: at most 4 digits, so that a peer's garbage shows early.
#[derive(Clone, Copy)]
struct OctetCounting;

impl Framing for OctetCounting {
    fn block_lens(&self) -> RangeInclusive<usize> {
        1..=9_999
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let digits = front
            .iter()
            .take(5)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        match front.get(digits) {
            Some(b' ') if (1..=4).contains(&digits) => {
                let value = |n, digit: &u8| n * 10 + u64::from(digit - b'0');
                let payload_len = front[..digits].iter().fold(0, value);
                Ok(Header::Complete {
                    header_len: digits + 1,
                    payload_len,
                })
            }
            None if digits <= 4 => Ok(Header::Incomplete {
                at_least: digits.max(1) + 1,
            }),
            _ => Err(InvalidHeader("it is not a length and a space")),
        }
    }

    fn encode_header(&self, payload_len: usize, dst: &mut impl BufMut) {
        dst.put_slice(format!("{payload_len} ").as_bytes());
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    check_framing(&OctetCounting)?; // in a program of yours, this is for a test
    println!("the framing keeps its contract");

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let socket = TcpStream::connect(listener.local_addr()?).await?;
    socket.set_nodelay(true)?;
    let mut client = BlockTransport::new(socket, BlockCodec::new(OctetCounting));
    client.send(Bytes::from("hello")).await?;
    client.send(Bytes::from("hello, world")).await?;
    client
        .get_mut()
        .write_all(b"hello without a length")
        .await?;

    let (socket, _) = listener.accept().await?;
    socket.set_nodelay(true)?;
    let mut server = BlockTransport::new(socket, BlockCodec::new(OctetCounting));
    while let Some(block) = server.next().await {
        match block {
            Ok(block) => println!("received {:?}", String::from_utf8_lossy(&block)),
            Err(error) => println!("error: {error}"), // the stream ends after it
        }
    }
    Ok(())
}
