//! A source of `Result`s is for `try_send_blocks`.

use std::io;

use futures::Stream;
use tokio::net::TcpStream;
use wholeblock::{BlockTransport, LengthPrefix, send_blocks};

fn send(
    mut blocks: BlockTransport<TcpStream, LengthPrefix>,
    source: impl Stream<Item = io::Result<Vec<u8>>>,
) {
    let _ = send_blocks(&mut blocks, source);
}

fn main() {}
