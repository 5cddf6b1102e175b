//! A header of your own: a mark and a length of two bytes. Bytes without the mark are refused at once.
//! `check_framing` tests the framing. Then a peer sends a block without its header.
//!
//! ```text
//! cargo run --example custom_framing
//!
//! received b"hello"
//! error: invalid header in block 1, which begins at byte 8: it does not begin with the mark (header: 68 65 6c 6c 6f 20 61 67 61 69 6e "hello again")
//! ```

use std::{error::Error, ops::RangeInclusive};

use bytes::{BufMut, Bytes};
use tokio::io::{AsyncWriteExt, duplex};
use wholeblock::{BlockCodec, BlockTransport, Framing, Header, InvalidHeader, check_framing};

#[derive(Clone, Copy)]
struct Marked;

impl Framing for Marked {
    fn block_lens(&self) -> RangeInclusive<u64> {
        0..=65_535
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        match *front {
            [b'#', high, low, ..] => Ok(Header::Complete {
                stripped: 3,
                block_len: u16::from_be_bytes([high, low]).into(),
            }),
            [] | [b'#', ..] => Ok(Header::Incomplete { at_least: 3 }),
            _ => Err(InvalidHeader("it does not begin with the mark")),
        }
    }

    fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
        dst.put_u8(b'#');
        dst.put_u16(block_len as u16); // fits, because of `block_lens`
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    check_framing(&Marked)?; // in your program, call this in a test
    let (here, there) = duplex(1024); // instead of a connection
    let mut sender = BlockTransport::new(here, BlockCodec::new(Marked));
    sender.send(Bytes::from("hello")).await?;
    sender.get_mut().write_all(b"hello again").await?; // without its header
    let mut receiver = BlockTransport::new(there, BlockCodec::new(Marked));
    println!("received {:?}", receiver.next().await.expect("a block")?);
    let error = receiver.next().await.expect("an error");
    println!("error: {}", error.unwrap_err());
    Ok(())
}
