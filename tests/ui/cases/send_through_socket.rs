//! A socket has no codec.

use futures::stream;
use tokio::net::TcpStream;
use wholeblock::send_blocks;

fn send(mut socket: TcpStream) {
    let _ = send_blocks(&mut socket, stream::iter([vec![1, 2, 3]]));
}

fn main() {}
