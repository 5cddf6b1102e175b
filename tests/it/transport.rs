//! `BlockTransport`: a sink and a stream without `Framed`.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use wholeblock::{BlockCodec, BlockTransport, LengthPrefix};

use crate::support::{MAX_WRITE, Scripted, ready, wire};

#[test]
fn blocks_that_are_fed_leave_in_full_writes() {
    for len in [0, 1, 64, 1_000, 10_000, 51_200, 100_000, 1 << 20] {
        let blocks = vec![Bytes::from(vec![7; len]); (1 << 21) / (len + 4) + 3];
        let mut transport = BlockTransport::new(Scripted::default(), BlockCodec::length_prefixed());
        for block in &blocks {
            ready(transport.feed(block.clone())).unwrap();
        }
        ready(transport.close()).unwrap();
        let io = transport.get_ref();
        let (last, all_but_last) = io.gathered.split_last().unwrap();
        for (_, bytes) in all_but_last {
            assert_eq!(*bytes, MAX_WRITE, "{len}");
        }
        assert!(last.1 <= MAX_WRITE, "{len}");
        assert_eq!(io.written, wire(LengthPrefix::u32(), &blocks), "{len}");
    }
}

#[test]
fn every_block_that_arrives_comes_out_of_the_stream() {
    let blocks: Vec<Bytes> = (0..200).map(|n| vec![n as u8; n * n].into()).collect();
    let wire = wire(LengthPrefix::u32(), &blocks);
    for chunk in [1, 7, 1_000, 60_000, usize::MAX] {
        let io = Scripted::chunked(&wire, chunk, true);
        let mut transport = BlockTransport::new(io, BlockCodec::length_prefixed());
        for block in &blocks {
            assert_eq!(ready(transport.next()).unwrap().unwrap(), block);
        }
        assert!(ready(transport.next()).is_none());
    }
}
