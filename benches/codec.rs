//! Decoding and encoding in memory, without a socket.
//!
//! ```text
//! cargo bench --bench codec
//! cargo bench --bench codec -- decode
//! ```
//!
//! Prints how long 1,000 blocks take, so that µs read as ns per block, and blocks per second below
//! each line, for blocks of 64 B, 1 KiB and 51,200 B behind a big-endian u32. What goes through
//! `Framed` does so for both codecs, over a transport that gives up to 64 KiB a read and takes every
//! write whole; its copy is in every reading figure.

use std::{fmt::Debug, hint::black_box};

use bytes::{Bytes, BytesMut};
use divan::{Bencher, counter::ItemsCount};
use futures::{SinkExt, StreamExt, executor::block_on, stream};
use tokio_util::codec::{Decoder, Encoder, Framed, LengthDelimitedCodec};
use wholeblock::{BlockCodec, LengthPrefix, recv_blocks, send_blocks};

use crate::support::memory::{Blocks, Memory, PIECE};

#[allow(dead_code, reason = "each benchmark uses a part of what they share")]
mod support;

const SIZES: [usize; 3] = [64, 1_024, 51_200];

/// Blocks in an iteration: enough that what an iteration costs in itself does not show.
const BLOCKS: u64 = 1_000;

fn main() {
    divan::main();
}

fn ours() -> BlockCodec<LengthPrefix> {
    BlockCodec::length_prefixed()
}

/// A transport that never ends, so that an iteration begins where the one before it stopped.
fn memory(size: usize) -> Memory {
    Memory(Blocks::new(&support::wire(size, true), u64::MAX))
}

fn per_block<'a, 'b>(bencher: Bencher<'a, 'b>) -> Bencher<'a, 'b> {
    bencher.counter(ItemsCount::new(BLOCKS))
}

/// The decoder alone, on a buffer that is filled again when it has no whole block left.
#[divan::bench_group(sample_count = 50)]
mod decoder {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn wholeblock(bencher: Bencher<'_, '_>, size: usize) {
        decode(bencher, size, ours());
    }

    #[divan::bench(args = SIZES)]
    fn length_delimited(bencher: Bencher<'_, '_>, size: usize) {
        decode(bencher, size, LengthDelimitedCodec::new());
    }

    fn decode<C>(bencher: Bencher<'_, '_>, size: usize, mut codec: C)
    where
        C: Decoder<Item = BytesMut, Error: Debug>,
    {
        let mut blocks = Blocks::new(&support::wire(size, true), u64::MAX);
        let mut buffer = BytesMut::new();
        per_block(bencher).bench_local(|| {
            let mut seen = 0;
            while seen < BLOCKS {
                match codec.decode(&mut buffer).expect("a block") {
                    Some(block) => {
                        black_box(&block[..]);
                        seen += 1;
                    }
                    None => buffer.extend_from_slice(blocks.piece(PIECE)),
                }
            }
        });
    }
}

/// Through `Framed`, or lent by `recv_blocks`.
#[divan::bench_group(sample_count = 50)]
mod receive {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn wholeblock_stream(bencher: Bencher<'_, '_>, size: usize) {
        stream(bencher, size, ours());
    }

    #[divan::bench(args = SIZES)]
    fn length_delimited_stream(bencher: Bencher<'_, '_>, size: usize) {
        stream(bencher, size, LengthDelimitedCodec::new());
    }

    fn stream<C>(bencher: Bencher<'_, '_>, size: usize, codec: C)
    where
        C: Decoder<Item = BytesMut, Error: Debug>,
    {
        let mut framed = Framed::new(memory(size), codec);
        per_block(bencher).bench_local(|| {
            block_on(async {
                for _ in 0..BLOCKS {
                    let block = framed.next().await.expect("no end").expect("a block");
                    black_box(&block[..]);
                }
            });
        });
    }

    #[divan::bench(args = SIZES)]
    fn wholeblock_next(bencher: Bencher<'_, '_>, size: usize) {
        let mut framed = Framed::new(memory(size), ours());
        let mut lent = recv_blocks(&mut framed);
        per_block(bencher).bench_local(|| {
            block_on(async {
                for _ in 0..BLOCKS {
                    black_box(lent.next().await.expect("a block").expect("no end"));
                }
            });
        });
    }

    #[divan::bench(args = SIZES)]
    fn wholeblock_next_batch(bencher: Bencher<'_, '_>, size: usize) {
        let mut framed = Framed::new(memory(size), ours());
        let mut lent = recv_blocks(&mut framed);
        per_block(bencher).bench_local(|| {
            block_on(async {
                let mut left = BLOCKS as usize;
                while left > 0 {
                    let batch = lent.next_batch().await.expect("a batch").expect("no end");
                    for block in batch.take(left) {
                        black_box(block);
                        left -= 1;
                    }
                }
            });
        });
    }
}

/// Through `Framed`, or by `send_blocks`.
#[divan::bench_group(sample_count = 50)]
mod send {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn wholeblock_sink(bencher: Bencher<'_, '_>, size: usize) {
        sink(bencher, size, ours());
    }

    #[divan::bench(args = SIZES)]
    fn length_delimited_sink(bencher: Bencher<'_, '_>, size: usize) {
        sink(bencher, size, LengthDelimitedCodec::new());
    }

    fn sink<C>(bencher: Bencher<'_, '_>, size: usize, codec: C)
    where
        C: Encoder<Bytes, Error: Debug>,
    {
        let payload = support::payload(size);
        let mut framed = Framed::new(memory(size), codec);
        per_block(bencher).bench_local(|| {
            block_on(async {
                for _ in 0..BLOCKS {
                    framed
                        .feed(Bytes::from_static(payload))
                        .await
                        .expect("to send");
                }
                framed.flush().await.expect("to flush");
            });
        });
    }

    #[divan::bench(args = SIZES)]
    fn wholeblock_send_blocks(bencher: Bencher<'_, '_>, size: usize) {
        let payload = support::payload(size);
        let mut framed = Framed::new(memory(size), ours());
        per_block(bencher).bench_local(|| {
            let source = stream::iter((0..BLOCKS).map(|_| Bytes::from_static(payload)));
            block_on(async { send_blocks(&mut framed, source).await.expect("to send") });
        });
    }
}

/// The encoder alone, into a buffer that is emptied as a transport would empty it.
#[divan::bench_group(sample_count = 50)]
mod encoder {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn wholeblock(bencher: Bencher<'_, '_>, size: usize) {
        encode(bencher, size, ours());
    }

    #[divan::bench(args = SIZES)]
    fn length_delimited(bencher: Bencher<'_, '_>, size: usize) {
        encode(bencher, size, LengthDelimitedCodec::new());
    }

    fn encode<C>(bencher: Bencher<'_, '_>, size: usize, mut codec: C)
    where
        C: Encoder<Bytes, Error: Debug>,
    {
        let payload = support::payload(size);
        let mut buffer = BytesMut::new();
        per_block(bencher).bench_local(|| {
            for _ in 0..BLOCKS {
                codec
                    .encode(Bytes::from_static(payload), &mut buffer)
                    .expect("to encode");
                if buffer.len() >= PIECE {
                    black_box(&buffer[..]);
                    buffer.clear();
                }
            }
        });
    }
}
