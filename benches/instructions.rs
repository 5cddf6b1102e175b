//! One way to move 64-byte blocks, to be run under callgrind.
//!
//! ```text
//! .ci/instructions
//! ```
//!
//! prints how many instructions each way takes for a block, and fails where one takes more than it
//! should. By hand, where `cargo bench --bench instructions --no-run` names the binary:
//!
//! ```text
//! valgrind --tool=callgrind BINARY lent-next 120000
//! ```
//!
//! Everything happens in memory: `Framed` over a transport that gives up to 64 KiB a read, whatever
//! room the reader has, and takes every write whole. Blocks have a big-endian u32 before them. The
//! difference between two numbers of blocks is free of what it takes to start.

use std::{env, hint::black_box};

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, executor::block_on, stream};
use tokio::io::AsyncReadExt;
use tokio_util::codec::{Decoder, Encoder, Framed, LengthDelimitedCodec};
use wholeblock::{BlockCodec, recv_blocks, send_blocks};

use crate::support::memory::{Blocks, Memory, PIECE};

#[allow(dead_code, reason = "each benchmark uses a part of what they share")]
mod support;

const SIZE: usize = 64;

const MODES: &str = "transport, lent-next, lent-batch, owned, lengthdelimited-stream, \
                     send-blocks, sink, lengthdelimited-sink";

fn main() {
    let args: Vec<_> = env::args().skip(1).collect();
    let (Some(mode), Some(Ok(blocks))) = (args.first(), args.get(1).map(|arg| arg.parse())) else {
        println!("usage: instructions MODE BLOCKS, under valgrind --tool=callgrind");
        println!("MODE:  {MODES}");
        println!("all of them, as a table: .ci/instructions");
        return;
    };
    let seen = match mode.as_str() {
        "transport" => block_on(transport(blocks)),
        "lent-next" => block_on(lent_next(blocks)),
        "lent-batch" => block_on(lent_batch(blocks)),
        "owned" => block_on(receive(blocks, BlockCodec::length_prefixed())),
        "lengthdelimited-stream" => block_on(receive(blocks, LengthDelimitedCodec::new())),
        "send-blocks" => block_on(send_vectored(blocks)),
        "sink" => block_on(send(blocks, BlockCodec::length_prefixed())),
        "lengthdelimited-sink" => block_on(send(blocks, LengthDelimitedCodec::new())),
        _ => panic!("no mode {mode}; there are {MODES}"),
    };
    assert_eq!(seen, blocks, "every block is to be seen");
}

fn memory(blocks: u64) -> Memory {
    Memory(Blocks::new(&support::wire(SIZE, true), blocks))
}

/// What the others cannot do without: the transport's own copy into a buffer, and nothing made
/// of it.
async fn transport(blocks: u64) -> u64 {
    let mut memory = memory(blocks);
    let mut buffer = vec![0; PIECE];
    let mut bytes = 0;
    loop {
        match memory.read(&mut buffer).await {
            Ok(0) => return bytes / (4 + SIZE as u64),
            Ok(len) => bytes += black_box(&buffer[..len]).len() as u64,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn lent_next(blocks: u64) -> u64 {
    let mut framed = Framed::new(memory(blocks), BlockCodec::length_prefixed());
    let mut lent = recv_blocks(&mut framed);
    let mut seen = 0;
    while let Some(block) = lent.next().await.expect("a block") {
        black_box(block);
        seen += 1;
    }
    seen
}

async fn lent_batch(blocks: u64) -> u64 {
    let mut framed = Framed::new(memory(blocks), BlockCodec::length_prefixed());
    let mut lent = recv_blocks(&mut framed);
    let mut seen = 0;
    while let Some(batch) = lent.next_batch().await.expect("a batch") {
        for block in batch {
            black_box(block);
            seen += 1;
        }
    }
    seen
}

async fn receive<C>(blocks: u64, codec: C) -> u64
where
    C: Decoder<Item = BytesMut, Error: std::fmt::Debug>,
{
    let mut framed = Framed::new(memory(blocks), codec);
    let mut seen = 0;
    while let Some(block) = framed.next().await {
        black_box(&block.expect("a block")[..]);
        seen += 1;
    }
    seen
}

async fn send_vectored(blocks: u64) -> u64 {
    let payload = support::payload(SIZE);
    let mut framed = Framed::new(memory(0), BlockCodec::length_prefixed());
    let source = stream::iter((0..blocks).map(|_| Bytes::from_static(payload)));
    let sent = send_blocks(&mut framed, source).await.expect("to send");
    sent.blocks
}

async fn send<C>(blocks: u64, codec: C) -> u64
where
    C: Encoder<Bytes, Error: std::fmt::Debug>,
{
    let payload = support::payload(SIZE);
    let mut framed = Framed::new(memory(0), codec);
    for _ in 0..blocks {
        framed
            .feed(Bytes::from_static(payload))
            .await
            .expect("to send");
    }
    framed.close().await.expect("to close");
    blocks
}
