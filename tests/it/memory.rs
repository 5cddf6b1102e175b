//! Memory follows what arrived: how large the read buffer gets, and when.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use testing::{KIB, Line, MIB, Magic, Scripted, prefixed, ready, transport, wire};
use tokio_util::codec::{Decoder, Encoder, Framed, FramedParts, FramedRead};
use wholeblock::{
    BlockCodec, BlockError, BlockStream, BlockTransport, Exact, LengthPrefix, recv_blocks,
};

/// Number of reads that fill a connection's first buffers, of 8, 16, 32 and 64 KiB. The fourth read ends
/// sooner if a block does. After these reads the buffer has its final size for such blocks.
const WARM_UP_READS: usize = 4;

/// The room of each read of `io`, without the warm-up and without the read that met the end.
fn steady_rooms(io: &Scripted) -> Vec<usize> {
    let (&(_, brought), rooms) = io.rooms.split_last().unwrap();
    assert_eq!(brought, 0, "the last read meets the end");
    let rooms = rooms.iter().map(|(room, _)| *room);
    rooms.skip(WARM_UP_READS).collect()
}

/// Feeds `codec` pieces of at most `piece` bytes, as far as it has made room. Returns the buffer's capacity
/// at first and after each piece.
fn capacities(codec: &mut BlockCodec<LengthPrefix>, wire: &[u8], piece: usize) -> Vec<usize> {
    let mut buffer = BytesMut::with_capacity(8 * KIB);
    let mut fed = 0;
    let mut capacities = vec![buffer.capacity()];
    while fed < wire.len() {
        let take = piece
            .min(buffer.capacity() - buffer.len())
            .min(wire.len() - fed);
        buffer.put_slice(&wire[fed..fed + take]);
        fed += take;
        while codec.decode(&mut buffer).unwrap().is_some() {}
        capacities.push(buffer.capacity());
    }
    capacities
}

#[test]
fn buffer_at_most_doubles_when_arriving_bytes_fill_it() {
    let wire = wire(LengthPrefix::u32(), &[vec![1; MIB].into()]);
    let seen = capacities(&mut BlockCodec::length_prefixed(), &wire, usize::MAX);
    assert_eq!(
        seen[..8],
        [8, 16, 32, 64, 128, 256, 512, 1024].map(|kib| kib * KIB),
    );
    assert_eq!(seen[8], MIB + 4, "up to the block's own length");
}

#[test]
fn trickling_block_grows_the_buffer_no_faster_than_it_arrives() {
    let wire = wire(LengthPrefix::u32(), &[vec![1; MIB].into()]);
    let mut arrived = 0;
    for capacity in capacities(&mut BlockCodec::length_prefixed(), &wire, 1_000) {
        assert!(
            capacity <= (2 * arrived).max(8 * KIB),
            "{capacity} after {arrived}"
        );
        arrived += 1_000;
    }
}

#[test]
fn block_gets_its_room_at_once_after_an_equally_long_block() {
    let mut codec = BlockCodec::length_prefixed();
    let wire = wire(LengthPrefix::u32(), &[vec![1; MIB].into()]);
    capacities(&mut codec, &wire, usize::MAX);
    let mut buffer = BytesMut::from(&wire[..10]);
    assert!(codec.decode(&mut buffer).unwrap().is_none());
    assert_eq!(buffer.capacity(), MIB + 4);
}

#[test]
fn a_large_block_is_read_up_to_its_end_and_no_further() {
    let large = Bytes::from(vec![1; 51_200]);
    let blocks = vec![large; 20];
    let wire = wire(LengthPrefix::u32(), &blocks);
    let io = Scripted::default().send(&wire);
    let mut framed = transport(io);
    while ready(framed.recv()).unwrap().is_some() {}
    // The first of the 20 blocks was the warm-up.
    assert_eq!(steady_rooms(framed.get_ref()), [51_204; 19]);
}

#[test]
fn smaller_block_after_a_larger_one_is_read_up_to_its_end() {
    let mut codec = BlockCodec::length_prefixed();
    let first = wire(LengthPrefix::u32(), &[vec![1; 300_000].into()]);
    let second = wire(LengthPrefix::u32(), &[vec![2; 100_000].into()]);
    let mut buffer = BytesMut::from(&first[..]);
    drop(codec.decode(&mut buffer).unwrap().unwrap());
    assert!(codec.decode(&mut buffer).unwrap().is_none());
    assert_eq!(
        buffer.capacity(),
        64 * KIB,
        "the next may be as long, or one of many small ones"
    );
    buffer.put_slice(&second[..10]);
    assert!(codec.decode(&mut buffer).unwrap().is_none());
    assert_eq!(buffer.capacity(), 100_004, "now its header is there");
}

#[test]
fn short_reads_leave_enough_room_for_the_next_read() {
    for len in [64, 1_000, 7_000, 20_000] {
        let wire = wire(LengthPrefix::u32(), &vec![vec![1; len].into(); MIB / len]);
        let io = Scripted::chunked(&wire, 30_000, false);
        let mut framed = prefixed(io);
        while ready(framed.next()).is_some() {}
        let rooms = steady_rooms(framed.get_ref());
        let least = rooms.iter().min().unwrap();
        assert!(*least >= 8_000, "{len} bytes: {least} bytes of room");
    }
}

#[test]
fn small_blocks_are_read_in_batches_of_about_64_kib_that_end_with_a_block() {
    let blocks = vec![Bytes::from(vec![1; 64]); 10_000];
    let wire = wire(LengthPrefix::u32(), &blocks);
    for lent in [true, false] {
        let io = Scripted::default().send(&wire);
        let mut framed = transport(io);
        if lent {
            while ready(framed.recv()).unwrap().is_some() {}
        } else {
            while ready(framed.next()).is_some() {}
        }
        let rooms = steady_rooms(framed.get_ref());
        let batch = 64 * KIB / 68 * 68;
        assert!(rooms.iter().all(|room| *room == batch), "{rooms:?}");
        assert!(rooms.len() <= wire.len() / batch, "{} reads", rooms.len());
    }
}

/// A connection that has received `wire` by lending, and now waits for more.
fn waiting(wire: &[u8]) -> BlockTransport<Scripted, LengthPrefix> {
    let mut waiting = transport(Scripted::default().send(wire).then_silent());
    while waiting.recv().now_or_never().is_some() {}
    waiting
}

#[test]
fn waiting_connection_has_returned_its_large_buffer() {
    for len in [64, 1_000, 7_000, 20_000, 51_200] {
        let wire = wire(LengthPrefix::u32(), &vec![vec![1; len].into(); MIB / len]);
        for cut in [0, 3, 60] {
            let framed = waiting(&wire[..wire.len() - cut]);
            assert!(
                framed
                    .get_ref()
                    .rooms
                    .iter()
                    .any(|(room, _)| *room > 50_000)
            );
            let left_over = if cut == 0 { 0 } else { len + 4 - cut };
            assert_eq!(framed.read_buffer().len(), left_over);
            let most = if left_over > 4 * KIB { 64 } else { 8 };
            assert!(framed.read_capacity() <= most * KIB, "{len}, {cut}");
        }
    }
}

#[test]
fn connection_reads_in_batches_again_after_a_wait() {
    let wire = wire(LengthPrefix::u32(), &vec![vec![1; 64].into(); MIB / 64]);
    let mut io = Scripted::default();
    for piece in wire.chunks(200_000) {
        io = io.pause().send(piece);
    }
    let mut framed = transport(io);
    while ready(framed.recv()).unwrap().is_some() {}
    let rooms = steady_rooms(framed.get_ref());
    assert!(rooms.iter().all(|room| *room > 60_000), "{rooms:?}");
}

#[test]
fn new_connection_starts_small_beside_a_waiting_one() {
    let wire = wire(LengthPrefix::u32(), &vec![vec![1; 64].into(); MIB / 64]);
    let _has_left_its_buffer = waiting(&wire);
    let io = Scripted::default().pause().send(&wire[..20_000]);
    let mut framed = transport(io);
    while ready(framed.recv()).is_ok_and(|block| block.is_some()) {}
    let (first, second) = (framed.get_ref().rooms[0], framed.get_ref().rooms[1]);
    assert!(
        first.0 <= 8 * KIB && second.0 <= 16 * KIB,
        "{first:?}, {second:?}"
    );
}

/// Returns the room of each read of `io`. During each wait, another connection on the thread receives
/// `other` and begins to wait, too.
fn rooms_beside(other: &[u8], io: Scripted, codec: BlockCodec<LengthPrefix>) -> Vec<usize> {
    let mut framed = BlockTransport::new(io, codec);
    loop {
        match framed.recv().now_or_never() {
            None => drop(waiting(other)),
            Some(Ok(Some(_))) => {}
            Some(Ok(None)) => break,
            Some(Err(error)) => panic!("{error}"),
        }
    }
    let rooms = &framed.get_ref().rooms;
    rooms.iter().map(|(room, _)| *room).collect()
}

#[test]
fn quiet_connection_stays_small_beside_a_busy_one() {
    let small = wire(LengthPrefix::u32(), &vec![vec![1; 64].into(); MIB / 64]);
    let io = Scripted::default().send(&small[..68 * 294]).pause();
    let rooms = rooms_beside(&small, io, BlockCodec::length_prefixed());
    assert!(rooms.iter().all(|room| *room <= 16 * KIB), "{rooms:?}");
}

#[test]
fn connection_leaves_at_most_a_batch_of_buffer_to_others() {
    let small = wire(LengthPrefix::u32(), &vec![vec![1; 64].into(); MIB / 64]);
    let large = wire(LengthPrefix::u32(), &vec![vec![1; 500_000].into(); 9]);
    let io = Scripted::default().send(&small).pause().send(&small);
    let rooms = rooms_beside(&large, io, BlockCodec::length_prefixed());
    assert!(rooms.iter().all(|room| *room <= 64 * KIB), "{rooms:?}");
}

#[test]
fn connection_with_a_lower_max_retained_takes_no_batch_buffer() {
    let small = wire(LengthPrefix::u32(), &vec![vec![1; 64].into(); MIB / 64]);
    let io = Scripted::default().send(&small).pause().send(&small);
    let codec = BlockCodec::length_prefixed().with_max_retained(32 * KIB);
    let rooms = rooms_beside(&small, io, codec);
    assert!(rooms.iter().all(|room| *room <= 32 * KIB), "{rooms:?}");
}

#[test]
fn large_block_after_a_wait_is_read_up_to_its_end() {
    let small = wire(LengthPrefix::u32(), &vec![vec![1; 64].into(); MIB / 64]);
    let large = wire(LengthPrefix::u32(), &[vec![1; 40_000].into()]);
    let mut io = Scripted::default().send(&large.repeat(9));
    for _ in 0..9 {
        io = io.pause().send(&large);
    }
    let rooms = rooms_beside(&small, io, BlockCodec::length_prefixed());
    let (_end, rooms) = rooms.split_last().unwrap();
    assert!(rooms.ends_with(&[40_004; 9]), "after each wait: {rooms:?}");
}

#[test]
fn small_buffer_filled_after_a_wait_only_doubles() {
    let blocks = [vec![1; 6_000].into(), vec![2; 100_000].into()];
    let bytes = wire(LengthPrefix::u32(), &blocks);
    let io = Scripted::default().send(&bytes[..8 * KIB]);
    let io = io.pause().send(&bytes[8 * KIB..]);
    let codec = BlockCodec::length_prefixed().with_max_retained(0);
    let rooms = rooms_beside(&bytes, io, codec);
    let rest = 2 * 8 * KIB - 8 * KIB;
    assert_eq!(rooms[..3], [8 * KIB, 6_004, rest], "{rooms:?}");
}

#[test]
fn connections_that_take_turns_on_a_thread_do_not_mix_their_blocks() {
    for len in [64, 1_000, 4_000, 5_000, 20_000, 51_200, 100_000] {
        for chunk in [61_440, 30_000, 7_001] {
            let count = MIB / len;
            let mut connections: Vec<_> = (0..3_u8)
                .map(|n| {
                    let blocks: Vec<Bytes> = (0..count)
                        .map(|i| vec![n ^ (i as u8) << 2; len].into())
                        .collect();
                    let wire = wire(LengthPrefix::u32(), &blocks);
                    let io = Scripted::chunked(&wire, chunk, true);
                    (transport(io), blocks)
                })
                .collect();
            let mut turns: Vec<_> = connections
                .iter_mut()
                .map(|(transport, blocks)| (transport, blocks.iter()))
                .collect();
            let mut ended = 0;
            while ended < turns.len() {
                for (transport, expected) in &mut turns {
                    match transport.recv().now_or_never() {
                        None => {}
                        Some(Ok(Some(block))) => {
                            assert_eq!(block, expected.next().unwrap(), "{len}, {chunk}");
                        }
                        Some(Ok(None)) => {
                            assert!(expected.next().is_none(), "{len}, {chunk}");
                            ended += 1;
                        }
                        Some(Err(error)) => panic!("{error}"),
                    }
                }
                // An ended stream reports its end each time; all must do so in one round.
                ended = if ended < turns.len() { 0 } else { ended };
            }
        }
    }
}

#[test]
fn reads_stay_large_even_if_the_caller_keeps_blocks() {
    for len in [64, 1_000, 7_000, 20_000, 51_200] {
        for keep in [0, 1, 100] {
            let count = 4 * MIB / len;
            let wire = wire(LengthPrefix::u32(), &vec![vec![1; len].into(); count]);
            let io = Scripted::default().send(&wire);
            let mut framed = prefixed(io);
            let mut kept = std::collections::VecDeque::new();
            while let Some(block) = ready(framed.next()) {
                kept.push_back(block.unwrap());
                if kept.len() > keep {
                    kept.pop_front();
                }
            }
            let reads = framed.get_ref().rooms.len();
            let most = wire.len() / (40 * KIB) + 8;
            assert!(reads <= most, "{len} bytes, {keep} kept: {reads} reads");
        }
    }
}

#[test]
fn kept_blocks_cost_less_than_twice_their_bytes() {
    // Short reads and kept blocks could make every read begin a new buffer.
    let wire = wire(LengthPrefix::u32(), &vec![vec![1; 1_000].into(); 2_000]);
    let mut framed = FramedRead::new(
        Scripted::chunked(&wire, 1_004, false),
        BlockCodec::length_prefixed(),
    );
    let mut buffers = std::collections::BTreeSet::new();
    let mut kept = Vec::new();
    while let Some(block) = ready(framed.next()) {
        let block = block.unwrap();
        buffers.insert(block.as_ptr() as usize / (4 * KIB));
        kept.push(block);
    }
    let touched = buffers.len() * 4 * KIB;
    assert!(
        touched < 2 * wire.len(),
        "{touched} bytes for {}",
        wire.len()
    );
}

#[test]
fn with_max_retained_sets_the_largest_retained_buffer() {
    let framing = Exact::new(4 * MIB).unwrap();
    for (limit, kept) in [(MIB, false), (4 * MIB, true)] {
        let wire = wire(framing, &vec![vec![1; 4 * MIB].into(); 3]);
        let codec = BlockCodec::new(framing).with_max_retained(limit);
        let mut framed = BlockTransport::new(Scripted::default().send(&wire), codec);
        while ready(framed.recv()).unwrap().is_some() {}
        assert_eq!(framed.read_capacity() >= 4 * MIB, kept);
    }
}

#[test]
fn max_retained_bounds_the_batches_of_small_blocks() {
    for (limit, most) in [(0, 8 * KIB), (20 * KIB, 20 * KIB), (MIB, 64 * KIB)] {
        let wire = wire(LengthPrefix::u32(), &vec![vec![1; 100].into(); 10_000]);
        let codec = BlockCodec::length_prefixed().with_max_retained(limit);
        let mut framed = BlockTransport::new(Scripted::default().send(&wire), codec);
        while ready(framed.recv()).unwrap().is_some() {}
        let rooms = &framed.get_ref().rooms;
        let largest = rooms.iter().map(|(room, _)| *room).max().unwrap();
        assert!(largest <= most && largest > most * 9 / 10, "{rooms:?}");
    }
}

/// Receives everything, by `next` or by lending, and returns the capacity that remains.
fn left_by<R: BlockStream<Error = BlockError>>(
    mut framed: R,
    lent: bool,
    capacity: fn(&R) -> usize,
) -> usize {
    loop {
        let received = match lent {
            false => framed
                .next()
                .now_or_never()
                .map(|next| next.unwrap().map(drop)),
            true => {
                let mut receiving = recv_blocks(&mut framed);
                receiving.next().now_or_never().map(|next| next.map(drop))
            }
        };
        match received {
            Some(received) => received.unwrap(),
            None => return capacity(&framed),
        }
    }
}

#[test]
fn small_block_after_a_large_one_leaves_at_most_max_retained() {
    let large = wire(LengthPrefix::u32(), &[vec![1; 8 * MIB].into()]);
    let small = wire(LengthPrefix::u32(), &[Bytes::from_static(b"small")]);
    for header in 1..=4 {
        for lent in [false, true] {
            let io = || {
                Scripted::default()
                    .send(&large)
                    .send(&small[..header])
                    .send(&small[header..])
                    .then_silent()
            };
            let left = left_by(prefixed(io()), lent, |framed| {
                framed.read_buffer().capacity()
            });
            assert!(left <= MIB + 64, "Framed, {header}, {lent}: {left}");
            let left = left_by(transport(io()), lent, BlockTransport::read_capacity);
            assert!(left <= MIB + 64, "{header}, {lent}: {left}");
        }
    }
}

/// A `Framed` made of parts whose buffer of 4 MiB, more than may be retained, holds `bytes`. The peer sends
/// nothing more.
fn oversized(bytes: &[u8]) -> Framed<Scripted, BlockCodec<LengthPrefix>> {
    let io = Scripted::default().then_silent();
    let mut parts = FramedParts::new::<Bytes>(io, BlockCodec::length_prefixed());
    parts.read_buf = BytesMut::with_capacity(4 * MIB);
    parts.read_buf.extend_from_slice(bytes);
    Framed::from_parts(parts)
}

#[test]
fn oversized_buffer_from_parts_is_dropped_after_lending_a_block() {
    let bytes = wire(LengthPrefix::u32(), &vec![vec![1; 1_000].into(); 3]);
    for wait in [false, true] {
        let mut transport = BlockTransport::from(oversized(&bytes[..2_500]));
        assert!(ready(transport.recv()).unwrap().is_some());
        if wait {
            assert!(ready(transport.recv()).unwrap().is_some());
            assert!(transport.recv().now_or_never().is_none());
        }
        let mut framed = transport.into_framed();
        let left = framed.read_buffer_mut();
        assert_eq!(left.len(), if wait { 2_500 - 2_008 } else { 2_500 - 1_004 });
        assert!(left.capacity() <= MIB + 64, "{wait}: {}", left.capacity());
    }
}

#[test]
fn a_large_block_is_not_moved_while_it_arrives() {
    let bytes = wire(LengthPrefix::u32(), &[vec![1; 3 * MIB].into()]);
    let mut transport = BlockTransport::from(oversized(&bytes[..2 * MIB]));
    let begun = transport.read_buffer().as_ptr();
    for _ in 0..4 {
        assert!(transport.recv().now_or_never().is_none());
        assert_eq!(transport.read_buffer().as_ptr(), begun);
    }
}

#[test]
fn large_block_takes_its_allocation_along() {
    let bytes = wire(LengthPrefix::u32(), &vec![vec![1; 100 * KIB].into(); 3]);
    let mut codec = BlockCodec::length_prefixed().with_max_retained(64 * KIB);
    let mut buffer = BytesMut::from(&bytes[..]);
    for left in [2, 1, 0] {
        let block = codec.decode(&mut buffer).unwrap().unwrap();
        assert_eq!(
            (block.len(), buffer.len()),
            (100 * KIB, left * (100 * KIB + 4))
        );
        drop(block);
        let more = 100 * KIB;
        assert!(
            !buffer.try_reclaim(more),
            "{left}: the block has the allocation"
        );
    }
}

#[test]
fn grown_write_buffer_is_dropped_at_the_next_small_block() {
    let mut codec = BlockCodec::length_prefixed();
    for (len, kept) in [(100, MIB), (100 * KIB, MIB), (3 * MIB, 4 * MIB)] {
        let mut buffer = BytesMut::with_capacity(4 * MIB);
        codec.encode(vec![1; len].into(), &mut buffer).unwrap();
        assert!(buffer.capacity() <= kept, "{len}: {}", buffer.capacity());
    }
    let mut buffer = BytesMut::with_capacity(512 * KIB);
    codec.encode("short".into(), &mut buffer).unwrap();
    assert!(buffer.capacity() >= 512 * KIB, "{}", buffer.capacity());
}

#[test]
fn write_buffer_stays_at_8_kib_while_that_is_enough() {
    let mut codec = BlockCodec::length_prefixed();
    let mut buffer = BytesMut::new();
    for _ in 0..3 {
        codec
            .encode(Bytes::from_static(b"hello"), &mut buffer)
            .unwrap();
        assert_eq!(buffer.capacity(), 8 * KIB);
    }
}

#[test]
fn blocks_gathered_for_a_write_are_not_moved() {
    let mut codec = BlockCodec::length_prefixed();
    let mut buffer = BytesMut::with_capacity(8 * KIB);
    for write in 0..10 {
        let mut places = Vec::new();
        while buffer.len() < 8 * KIB {
            codec.encode(vec![7; 1_000].into(), &mut buffer).unwrap();
            places.push(buffer.as_ptr());
        }
        places.dedup();
        // In the first write the buffer grows, and may be moved.
        assert!(places.len() == 1 || write == 0, "{write}: {places:?}");
        buffer.advance(buffer.len()); // as `Framed` does
    }
}

#[test]
fn receiver_dropped_inside_a_large_block_leaves_its_buffer() {
    let wire = wire(LengthPrefix::u32(), &[vec![1; 2 * MIB].into()]);
    let io = Scripted::default().send(&wire[..MIB]).then_silent();
    let codec = BlockCodec::length_prefixed().with_max_retained(64 * KIB);
    let mut framed = Framed::new(io, codec);
    assert!(recv_blocks(&mut framed).next().now_or_never().is_none());
    let buffer = framed.read_buffer();
    assert_eq!(buffer.len(), MIB);
    assert!(buffer.capacity() > MIB, "nothing has been moved");
}

#[test]
fn buffer_at_most_doubles_even_if_whole_blocks_do_not_fill_it() {
    for len in [8_193, 10_922, 21_846] {
        // Byte by byte, so that the buffer is looked at after each read.
        let io = Scripted::chunked(&[1; 100_000], 1, true).then_silent();
        let mut framed = Framed::new(io, BlockCodec::exact(len).unwrap());
        let mut before = 8 * KIB;
        for _ in 0..100_000 {
            drop(framed.next().now_or_never());
            let capacity = framed.read_buffer().capacity();
            assert!(capacity <= 2 * before, "{len}: {before}, then {capacity}");
            before = before.max(capacity);
        }
    }
}

#[test]
fn framed_polled_after_a_framing_error_at_most_doubles_its_buffer() {
    for good in 0..40 {
        let mut bytes = wire(Magic, &vec![vec![1; 1_000].into(); good]);
        bytes.extend_from_slice(&vec![b'X'; 200_000]);
        let io = Scripted::default().send(&bytes).then_silent();
        let mut framed = Framed::new(io, BlockCodec::new(Magic));
        while !matches!(ready(framed.next()), Some(Err(_))) {}
        // Adds the room of the blocks taken from its front, up to a batch.
        let capacity = framed.read_buffer().capacity();
        let allocation = (capacity + good * 1_006).min(64 * KIB).max(capacity);
        for _ in 0..40 {
            drop(framed.next().now_or_never());
            let capacity = framed.read_buffer().capacity();
            assert!(capacity <= 2 * allocation, "{good}: {capacity}");
        }
    }
}

#[test]
fn header_of_unknown_length_is_read_in_large_reads() {
    let line = [&[b'x'; 59_999][..], b"\n"].concat();
    for max_retained in [MIB, 0] {
        let io = Scripted::default().send(&line.repeat(20));
        let codec = BlockCodec::new(Line::up_to(64 * KIB)).with_max_retained(max_retained);
        let mut framed = Framed::new(io, codec);
        for _ in 0..20 {
            assert_eq!(ready(framed.next()).unwrap().unwrap(), line);
        }
        let reads = framed.get_ref().rooms.len();
        // With `with_max_retained(0)` each line begins with 8 KiB again.
        let most = if max_retained == 0 { 5 * 20 } else { 24 };
        assert!(reads <= most, "{max_retained}: {reads} reads");
    }
}

#[test]
fn header_is_parsed_once_for_each_read() {
    let line = [&[b'x'; 999][..], b"\n"].concat();
    for lent in [false, true] {
        let framing = Line::up_to(64 * KIB);
        let io = Scripted::chunked(&line, 1, true).then_silent();
        let mut transport = BlockTransport::new(io, BlockCodec::new(framing.clone()));
        if lent {
            assert_eq!(
                ready(recv_blocks(&mut transport).next()).unwrap(),
                Some(&line[..])
            );
        } else {
            assert_eq!(ready(transport.next()).unwrap().unwrap(), line);
        }
        let asked = framing.asked();
        assert!(asked <= line.len() + 5, "{lent}: asked {asked} times");
    }
}

#[test]
fn empty_buffer_is_not_parsed_again_after_a_wait() {
    let framing = Line::up_to(64 * KIB);
    let io = Scripted::chunked(&b"x\n".repeat(100), 2, true);
    let mut transport = BlockTransport::new(io, BlockCodec::new(framing.clone()));
    while let Some(line) = ready(transport.next()) {
        assert_eq!(line.unwrap(), "x\n");
    }
    // For a line, and for the empty buffer behind it: once to take what is there, once to reserve room.
    let asked = framing.asked();
    assert!(asked <= 3 * 100 + 5, "asked {asked} times");
}

#[test]
fn small_buffer_from_parts_serves_a_transport_and_then_a_framed() {
    let bytes = wire(LengthPrefix::u32(), &vec![vec![1; 20_000].into(); 3]);
    for capacity in [1, 100, 4_000, 4 * KIB, 8 * KIB] {
        for begun in [0, 1, 3, 4, 90] {
            let begun = begun.min(capacity);
            let io = Scripted::default().pause().send(&bytes[begun..]);
            let mut parts = FramedParts::new::<Bytes>(io, BlockCodec::length_prefixed());
            parts.read_buf = BytesMut::with_capacity(capacity);
            parts.read_buf.extend_from_slice(&bytes[..begun]);
            let mut transport = BlockTransport::from(parts);
            assert!(transport.next().now_or_never().is_none());
            let mut framed = transport.into_framed();
            for _ in 0..3 {
                assert_eq!(ready(framed.next()).unwrap().unwrap(), vec![1; 20_000]);
            }
            assert!(ready(framed.next()).is_none());
        }
    }
}
