//! The halves of `futures::split` hide the transport.

use futures::StreamExt;
use tokio::net::TcpStream;
use wholeblock::{BlockTransport, LengthPrefix, recv_blocks};

fn receive(blocks: BlockTransport<TcpStream, LengthPrefix>) {
    let (_sink, mut stream) = blocks.split();
    let _ = recv_blocks(&mut stream);
}

fn main() {}
