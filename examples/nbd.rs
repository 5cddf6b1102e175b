//! Requests and replies with different framings: a read-only network block device (NBD), after its
//! handshake. A request is 28 bytes. A reply has a header of 20 bytes. The last 4 of them say how many bytes
//! follow.
//!
//! ```text
//! cargo run --example nbd
//!
//! a request of 28 bytes: read 5 at 2
//! a reply of 33 bytes: b"whole"
//! ```

use std::error::Error;

use bytes::{Buf, BufMut};
use tokio::io::{DuplexStream, duplex};
use wholeblock::{BlockCodec, BlockTransport, ConfigError, Exact, InOut, LengthField};

const DISK: &[u8] = b"a whole block device";

// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
const REQUEST_MAGIC: u32 = 0x2560_9513;
const CMD_READ: u16 = 0;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
const FLAG_DONE: u16 = 1;
const TYPE_OFFSET_DATA: u16 = 1;

fn requests() -> Result<Exact, ConfigError> {
    Exact::new(28)
}

fn replies() -> Result<LengthField, ConfigError> {
    LengthField::config().offset(16).keep_header().build()
}

async fn client(socket: DuplexStream) -> Result<(), Box<dyn Error>> {
    let (incoming, outgoing) = (replies()?, requests()?);
    let codec = BlockCodec::new(InOut { incoming, outgoing });
    let mut device = BlockTransport::new(socket, codec);

    let mut request = Vec::new();
    request.put_u32(REQUEST_MAGIC);
    request.put_u16(0); // no flags
    request.put_u16(CMD_READ);
    request.put_u64(77); // a cookie, which comes back in the reply
    request.put_u64(2);
    request.put_u32(5);
    device.send(request).await?;

    let reply = device.expect_next().await?;
    let data = reply.freeze().slice(28..); // after the header and the offset
    println!("a reply of {} bytes: {data:?}", 28 + data.len());
    Ok(())
}

async fn server(socket: DuplexStream) -> Result<(), Box<dyn Error>> {
    let (incoming, outgoing) = (requests()?, replies()?);
    let codec = BlockCodec::new(InOut { incoming, outgoing });
    let mut client = BlockTransport::new(socket, codec);

    while let Some(request) = client.recv().await? {
        let mut fields = &request[8..]; // after the magic, the flags and the type
        let (cookie, offset, len) = (fields.get_u64(), fields.get_u64(), fields.get_u32());
        let size = request.len();
        println!("a request of {size} bytes: read {len} at {offset}");

        let data = &DISK[offset as usize..][..len as usize]; // a real server checks both
        let mut reply = Vec::new();
        reply.put_u32(STRUCTURED_REPLY_MAGIC);
        reply.put_u16(FLAG_DONE);
        reply.put_u16(TYPE_OFFSET_DATA);
        reply.put_u64(cookie);
        reply.put_u32(8 + len); // what follows; a reply of any other length would not be sent
        reply.put_u64(offset);
        client.send((reply, data)).await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (near, far) = duplex(1024); // instead of a connection
    tokio::try_join!(client(near), server(far))?;
    Ok(())
}
