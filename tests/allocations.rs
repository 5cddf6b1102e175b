//! What is allocated, counted by the allocator.
//!
//! The allocator counts for the whole process, and libtest's own threads allocate at any time. So `main`
//! replaces libtest: it checks one rule after the other, and nothing runs beside them. It obeys parts of
//! names, `--list` and `--ignored`, and ignores libtest's other arguments.

use std::{
    alloc::System,
    env, iter, mem, panic,
    pin::{Pin, pin},
    process::ExitCode,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, SinkExt, StreamExt, stream};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use testing::{KIB, MIB, Scripted, Step, wire};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, sink};
use tokio_util::codec::{Framed, FramedParts, FramedRead, FramedWrite};
use wholeblock::internals::{FULL_WRITE, max_spare};
use wholeblock::{
    BlockCodec, BlockError, BlockStream, BlockTransport, Exact, Framing, LengthField, LengthPrefix,
    Varint, recv_blocks, send_blocks,
};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Pairs each function with its name.
macro_rules! rules {
    ($($rule:ident,)*) => { [$((stringify!($rule), $rule as fn())),*] };
}

const RULES: [(&str, fn()); 28] = rules![
    no_allocation_per_lent_block_in_steady_state,
    no_allocation_per_block_of_recv_blocks_in_steady_state,
    no_allocation_per_owned_block_dropped_before_the_next_read,
    kept_small_blocks_cost_two_allocations_a_batch,
    no_allocation_per_block_that_is_read_part_by_part_in_steady_state,
    no_allocation_per_block_that_is_received_into_memory_in_steady_state,
    no_allocation_if_a_transport_waits_for_each_read,
    no_allocation_if_a_wait_is_polled_in_vain,
    waits_with_timeouts_share_one_timer,
    transport_that_idles_after_few_blocks_holds_at_most_10_kib,
    no_allocation_per_sent_block_in_steady_state,
    no_allocation_per_fed_block_in_steady_state,
    no_allocation_per_fed_block_in_steady_state_whatever_the_write_len,
    no_allocation_per_block_of_several_pieces_in_steady_state,
    large_body_behind_a_kept_header_costs_no_copy,
    unused_transport_holds_nothing,
    transport_that_idles_after_many_blocks_holds_at_most_10_kib,
    transport_that_waits_inside_a_long_block_holds_at_most_10_kib,
    long_block_is_read_part_by_part_in_64_kib_whatever_came_before,
    sink_that_waits_for_its_peer_holds_at_most_128_kib,
    sender_that_waits_for_its_source_holds_at_most_10_kib,
    sender_of_tiny_blocks_of_changing_lengths_holds_at_most_128_kib,
    silent_peers_that_announce_8_mib_cost_at_most_256_bytes_each,
    at_most_1_mib_is_kept_after_a_block_of_16_mib,
    kept_small_block_holds_at_most_64_kib_whatever_came_before,
    small_block_from_parts_with_a_large_buffer_holds_at_most_64_kib,
    buffer_left_to_the_thread_has_at_most_64_kib,
    sender_drops_the_room_of_a_copied_payload_at_the_next_write,
];

fn main() -> ExitCode {
    let (mut options, mut parts) = (vec![], vec![]);
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            // Their values are not parts of names.
            "--color" | "--format" | "--skip" | "--test-threads" => drop(args.next()),
            option if option.starts_with('-') => options.push(arg),
            _ => parts.push(arg),
        }
    }
    let given = |option: &str| options.iter().any(|given| given == option);
    let asked_for = |name: &str| {
        let named = parts.is_empty() || parts.iter().any(|part| name.contains(part));
        named && !given("--ignored") // no rule is
    };
    let rules = RULES.iter().filter(|(name, _)| asked_for(name));
    if given("--list") {
        rules.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }

    let (mut passed, mut failed) = (0, 0);
    for (name, rule) in rules {
        // Each rule makes all that it measures, so the next one is worth checking after a failure.
        let kept = panic::catch_unwind(rule).is_ok();
        println!("test {name} ... {}", if kept { "ok" } else { "FAILED" });
        *(if kept { &mut passed } else { &mut failed }) += 1;
    }
    // libtest's line: `.ci/windows` adds them up.
    let result = if failed == 0 { "ok" } else { "FAILED" };
    let filtered_out = RULES.len() - passed - failed;
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; \
         {filtered_out} filtered out"
    );
    ExitCode::from(if failed == 0 { 0 } else { 101 }) // libtest's own
}

/// A peer that sends the same block `count` times, in reads of up to `per_read` bytes, each after a wait if
/// `pausing`.
fn repeating<F: Framing>(
    framing: F,
    len: usize,
    count: usize,
    per_read: usize,
    pausing: bool,
) -> Scripted {
    let read = match per_read {
        usize::MAX => Step::All,
        _ => Step::Move(per_read),
    };
    let steps = if pausing {
        [Step::Pending, read]
    } else {
        [read, read]
    };
    Scripted::repeating(&wire(framing, &[vec![7; len].into()]), count as u64)
        .reading(steps.into_iter().cycle())
}

/// Two ends of a pipe full of `bytes`. The first receives them and then nothing; the second can send no
/// more.
fn filled_with(bytes: &[u8]) -> (DuplexStream, DuplexStream) {
    let (near, mut far) = duplex(bytes.len());
    done(far.write_all(bytes)).unwrap();
    (near, far)
}

/// Returns the output of `future`, which the transports here never make wait.
fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("ready at once")
}

/// Calls `$check` with framings, block lengths and read sizes in which a stream is steady.
macro_rules! with_each_steady_stream {
    ($check:ident) => {
        for len in [64, 1_000, 5_000, 20_000, 40_000, 51_200, 100_000, MIB] {
            for per_read in [usize::MAX, 30_000, 1_460] {
                $check(Exact::new(len).unwrap(), len, per_read);
                $check(LengthPrefix::u32(), len, per_read);
                $check(Varint::new(), len, per_read);
            }
        }
    };
}

/// Runs `steady`, and returns how many times it allocated.
fn allocations(steady: impl FnOnce()) -> usize {
    let region = Region::new(GLOBAL);
    steady();
    let change = region.change();
    change.allocations + change.reallocations
}

/// Heap bytes held now, beyond `before`.
fn held_since(before: &stats_alloc::Stats) -> usize {
    let change = GLOBAL.stats() - *before;
    change
        .bytes_allocated
        .saturating_sub(change.bytes_deallocated)
}

/// Blocks after which a stream of blocks of `len` bytes is steady.
fn warm_up(len: usize) -> usize {
    200 + 2 * MIB / len
}

/// Blocks of `len` bytes to check in the steady state: fewer large ones, to save time.
fn steady(len: usize) -> usize {
    (64 * MIB / len).clamp(100, 800)
}

fn no_allocation_per_lent_block_in_steady_state() {
    fn check<F: Framing>(framing: F, len: usize, per_read: usize) {
        for (batched, pausing) in [(false, false), (false, true), (true, false), (true, true)] {
            let count = warm_up(len) + steady(len);
            let peer = repeating(framing.clone(), len, count, per_read, pausing);
            let mut transport = BlockTransport::new(peer, BlockCodec::new(framing.clone()));
            // Whole batches, because a buffer that is left in the middle is filled sooner, and grows.
            let mut received = 0;
            let mut receive_up_to = |blocks: usize| {
                while received < blocks && !batched {
                    if let Some(block) = transport.recv().now_or_never() {
                        assert_eq!(block.unwrap().unwrap().len(), len);
                        received += 1;
                    }
                }
                while received < blocks {
                    if let Some(batch) = transport.recv_batch().now_or_never() {
                        let batch = batch.unwrap().unwrap();
                        received += batch.inspect(|block| assert_eq!(block.len(), len)).count();
                    }
                }
            };
            receive_up_to(warm_up(len));
            let allocations = allocations(|| receive_up_to(count));
            assert_eq!(
                allocations, 0,
                "{len} bytes, {per_read} a read, {batched}, {pausing}"
            );
        }
    }
    with_each_steady_stream!(check);
}

fn no_allocation_per_block_of_recv_blocks_in_steady_state() {
    fn check_each<F: Framing, R: BlockStream<Error = BlockError>>(
        framing: F,
        make: impl Fn(Scripted, BlockCodec<F>) -> R,
        len: usize,
        per_read: usize,
        pausing: bool,
    ) {
        let count = warm_up(len) + steady(len);
        let peer = repeating(framing.clone(), len, count, per_read, pausing);
        let mut framed = make(peer, BlockCodec::new(framing));
        let mut receiving = recv_blocks(&mut framed);
        let mut receive = |blocks: usize| {
            let mut left = blocks;
            while left > 0 {
                if let Some(block) = receiving.next().now_or_never() {
                    assert_eq!(block.unwrap().unwrap().len(), len);
                    left -= 1;
                }
            }
        };
        receive(warm_up(len));
        let allocations = allocations(|| receive(steady(len)));
        assert_eq!(allocations, 0, "{len} bytes, {per_read} a read, {pausing}");
    }
    fn check<F: Framing>(framing: F, len: usize, per_read: usize) {
        check_each(framing.clone(), FramedRead::new, len, per_read, false);
        check_each(framing.clone(), FramedRead::new, len, per_read, true);
        check_each(framing, BlockTransport::new, len, per_read, false);
    }
    with_each_steady_stream!(check);
}

fn no_allocation_per_owned_block_dropped_before_the_next_read() {
    fn check_each<R: BlockStream<Error = BlockError>>(mut framed: R, len: usize, per_read: usize) {
        for _ in 0..warm_up(len) {
            done(framed.next()).unwrap().unwrap();
        }
        let allocations = allocations(|| {
            for _ in 0..steady(len) {
                assert_eq!(done(framed.next()).unwrap().unwrap().len(), len);
            }
        });
        assert_eq!(allocations, 0, "{len} bytes, {per_read} a read");
    }
    fn check<F: Framing + Copy>(framing: F, len: usize, per_read: usize) {
        let count = warm_up(len) + steady(len);
        let peer = || repeating(framing, len, count, per_read, false);
        let codec = || BlockCodec::new(framing);
        check_each(FramedRead::new(peer(), codec()), len, per_read);
        check_each(BlockTransport::new(peer(), codec()), len, per_read);
    }
    with_each_steady_stream!(check);
}

/// A batch of 64 KiB holds 6 blocks of 10,000 bytes and a part of the next one, which moves to the next
/// batch.
fn kept_small_blocks_cost_two_allocations_a_batch() {
    let framing = LengthPrefix::u32();
    let mut transport = BlockTransport::new(
        repeating(framing, 10_000, 1_000, usize::MAX, false),
        BlockCodec::new(framing),
    );
    let mut kept = Vec::with_capacity(1_000);
    let mut receive = |blocks| {
        for _ in 0..blocks {
            kept.push(done(transport.next()).unwrap().unwrap());
        }
    };
    receive(400);
    let allocations = allocations(|| receive(600));
    assert_eq!(allocations, 2 * 600 / 6); // the batch, and its reference count
}

/// How a block is read part by part.
#[derive(Clone, Copy, Debug)]
enum Reading {
    /// In lent parts.
    Lent,
    /// Into memory of so many bytes.
    Copied(usize),
    /// Not at all, so that it is discarded.
    Not,
}

const READINGS: [Reading; 4] = [
    Reading::Lent,
    Reading::Copied(8 * KIB),
    Reading::Copied(MIB),
    Reading::Not,
];

/// Reads the next block, and calls `looked` after each part.
fn read_in_parts<F: Framing>(
    transport: &mut BlockTransport<Scripted, F>,
    reading: Reading,
    memory: &mut [u8],
    mut looked: impl FnMut(),
) -> u64 {
    let mut reader = loop {
        if let Some(reader) = transport.recv_reader().now_or_never() {
            break reader.unwrap().unwrap();
        }
    };
    while reader.remaining() > 0 {
        match reading {
            Reading::Lent => {
                if let Some(part) = reader.fill_buf().now_or_never() {
                    let bytes = part.unwrap().len();
                    reader.consume(bytes);
                }
            }
            Reading::Copied(most) => {
                if let Some(part) = reader.read(&mut memory[..most]).now_or_never() {
                    assert!(part.unwrap() > 0);
                }
            }
            Reading::Not => break,
        }
        looked();
    }
    reader.len()
}

/// Calls `check` with lengths of blocks, read sizes, whether there are waits, and a number of blocks
/// after which a stream is steady.
fn with_each_steady_length(mut check: impl FnMut(usize, usize, bool, usize)) {
    for len in [1_000, 5_000, 51_200, MIB] {
        for per_read in [usize::MAX, 40_000, 1_460] {
            check(len, per_read, false, 20 + 4 * MIB / len);
            check(len, per_read, true, 20 + 4 * MIB / len);
        }
    }
}

fn no_allocation_per_block_that_is_read_part_by_part_in_steady_state() {
    let mut memory = vec![0; MIB];
    for reading in READINGS {
        with_each_steady_length(|len, per_read, pausing, blocks| {
            let peer = repeating(LengthPrefix::u32(), len, 2 * blocks, per_read, pausing);
            let mut transport = BlockTransport::new(peer, BlockCodec::length_prefixed());
            let mut read = || {
                for _ in 0..blocks {
                    let read = read_in_parts(&mut transport, reading, &mut memory, || ());
                    assert_eq!(read, len as u64);
                }
            };
            read();
            let allocations = allocations(read);
            assert_eq!(
                allocations, 0,
                "{len} bytes, {per_read} a read, {pausing}, {reading:?}"
            );
        });
    }
}

fn no_allocation_per_block_that_is_received_into_memory_in_steady_state() {
    fn check<F: Framing>(framing: &F, len: usize, per_read: usize, pausing: bool, blocks: usize) {
        let peer = repeating(framing.clone(), len, 2 * blocks, per_read, pausing);
        let mut transport = BlockTransport::new(peer, BlockCodec::new(framing.clone()));
        let mut memory = vec![0; len];
        let mut receive = || {
            for _ in 0..blocks {
                let mut receiving = pin!(transport.recv_into(&mut memory));
                let received = loop {
                    if let Some(received) = receiving.as_mut().now_or_never() {
                        break received;
                    }
                };
                assert_eq!(received.unwrap(), Some(len));
            }
        };
        receive();
        let allocations = allocations(receive);
        assert_eq!(allocations, 0, "{len} bytes, {per_read} a read, {pausing}");
    }
    with_each_steady_length(|len, per_read, pausing, blocks| {
        check(&LengthPrefix::u32(), len, per_read, pausing, blocks);
        check(&Exact::new(len).unwrap(), len, per_read, pausing, blocks);
    });
}

fn no_allocation_if_a_transport_waits_for_each_read() {
    fn check<F: Framing>(framing: F, len: usize, per_read: usize) {
        let transport = || {
            let count = warm_up(len) + steady(len);
            let peer = repeating(framing.clone(), len, count, per_read, true);
            BlockTransport::new(peer, BlockCodec::new(framing.clone()))
        };
        let counted = |receive: &mut dyn FnMut() -> Option<usize>| {
            let mut receive = |blocks: usize| {
                let mut left = blocks;
                while left > 0 {
                    if let Some(received) = receive() {
                        assert_eq!(received, len);
                        left -= 1;
                    }
                }
            };
            receive(warm_up(len));
            allocations(|| receive(steady(len)))
        };
        let mut stream = transport();
        let owned = counted(&mut || {
            let next = stream.next().now_or_never();
            next.map(|block| block.unwrap().unwrap().len())
        });
        assert_eq!(owned, 0, "{len} bytes, {per_read} a read, owned");

        let mut transport = transport();
        let mut receiving = recv_blocks(&mut transport);
        let lent = counted(&mut || {
            let next = receiving.next().now_or_never();
            next.map(|block| block.unwrap().unwrap().len())
        });
        assert_eq!(lent, 0, "{len} bytes, {per_read} a read, lent");
    }
    with_each_steady_stream!(check);
}

/// A transport that has received `count` blocks of `len` bytes, and now waits for more.
fn waiting(len: usize, count: usize) -> BlockTransport<Scripted, LengthPrefix> {
    let peer = repeating(LengthPrefix::u32(), len, count, usize::MAX, false);
    let mut transport = BlockTransport::new(peer.then_silent(), BlockCodec::length_prefixed());
    for _ in 0..count {
        done(transport.next()).unwrap().unwrap();
    }
    assert!(transport.next().now_or_never().is_none());
    transport
}

fn no_allocation_if_a_wait_is_polled_in_vain() {
    for len in [64, 1_000, 20_000, 51_200] {
        let mut transport = waiting(len, 256 + 256 * KIB / len);
        // As in a `select!` that another branch wins.
        let allocations = allocations(|| {
            for _ in 0..100 {
                assert!(transport.next().now_or_never().is_none());
            }
        });
        assert_eq!(allocations, 0, "{len} bytes");
    }
}

fn waits_with_timeouts_share_one_timer() {
    /// Waits 400 times for a byte, which then arrives.
    async fn wait() {
        let (mut near, far) = duplex(64);
        let mut blocks = BlockTransport::new(far, BlockCodec::length_prefixed())
            .stall_timeout(Duration::from_secs(60))
            .block_deadline(Duration::from_secs(60));
        near.write_all(b"\0\0\x02\0").await.unwrap(); // 512 bytes
        let mut wait = async || {
            assert!(blocks.next().now_or_never().is_none());
            near.write_all(b"x").await.unwrap();
        };
        for _ in 0..10 {
            wait().await;
        }
        let region = Region::new(GLOBAL);
        for _ in 0..400 {
            wait().await;
        }
        // The pipe allocates its own buffer again now and then.
        let allocations = region.change().allocations;
        assert!(allocations < 10, "{allocations} in 400 waits");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(wait());
    runtime.block_on(runtime.spawn(wait())).unwrap();
}

fn transport_that_idles_after_few_blocks_holds_at_most_10_kib() {
    for len in [10, 64, 300, 1_000] {
        for bytes in [9 * KIB, 12 * KIB, 17 * KIB, 30 * KIB, 60 * KIB] {
            let each = held_by_each(|| {
                let mut transport = waiting(len, bytes / len);
                transport.get_mut().forget_wire();
                transport
            });
            assert!(each <= 10 * KIB, "{bytes} bytes, of {len}: {each} each");
        }
    }
}

fn no_allocation_per_sent_block_in_steady_state() {
    fn of_transfer(len: usize, count: usize) -> usize {
        let block = Bytes::from(vec![7; len]);
        let mut framed = FramedWrite::new(sink(), BlockCodec::length_prefixed());
        allocations(|| {
            let blocks = stream::iter(std::iter::repeat_n(block, count));
            let sent = done(send_blocks(&mut framed, blocks)).unwrap();
            assert_eq!(sent.blocks, count as u64);
        })
    }
    for len in [0, 64, 1_000, 4_096, 51_200, MIB] {
        of_transfer(len, 40_000); // leaves a buffer on this thread, which the others take
        let more = of_transfer(len, 80_000) - of_transfer(len, 40_000);
        assert_eq!(more, 0, "{len} bytes");
    }
}

fn no_allocation_per_fed_block_in_steady_state() {
    for len in [0, 64, 1_000, 4_095, 4_096, 51_200, MIB] {
        for flush_each in [1, 3, usize::MAX] {
            let block = Bytes::from(vec![7; len]);
            let mut transport = BlockTransport::new(sink(), BlockCodec::length_prefixed());
            let mut send = |count| {
                for n in 1..=count {
                    done(transport.feed(block.clone())).unwrap();
                    if n % flush_each == 0 {
                        done(transport.flush()).unwrap();
                    }
                }
            };
            // Until writes have grown to full ones.
            let count = (4 * MIB / (len + 4)).max(21_000);
            send(count);
            let allocations = allocations(|| send(count));
            assert_eq!(allocations, 0, "{len} bytes, a flush after {flush_each}");
        }
    }
}

fn no_allocation_per_fed_block_in_steady_state_whatever_the_write_len() {
    for write_len in [4 * KIB, 65_160, 128 * KIB, 4 * 65_482, 4 * MIB] {
        for len in [64, 4_000] {
            let block = vec![7; len];
            let codec = BlockCodec::length_prefixed();
            let mut transport = BlockTransport::new(sink(), codec).write_len(write_len);
            let mut feed = |bytes: usize| {
                for _ in 0..bytes / len {
                    done(transport.feed(&block[..])).unwrap();
                }
                done(transport.flush()).unwrap();
            };
            feed(12 * write_len);
            assert_eq!(
                allocations(|| feed(12 * write_len)),
                0,
                "{write_len}, {len}"
            );
        }
    }
}

fn no_allocation_per_block_of_several_pieces_in_steady_state() {
    for len in [0, 64, 4_095, 4_096, 51_200] {
        let (header, body) = ([7; 9], Bytes::from(vec![7; len]));
        let mut transport = BlockTransport::new(sink(), BlockCodec::length_prefixed());
        let mut send = |count| {
            for n in 1..=count {
                done(transport.feed((header, body.clone()))).unwrap();
                done(transport.feed([&header[..], &body, &header])).unwrap();
                if n % 3 == 0 {
                    done(transport.flush()).unwrap();
                }
            }
        };
        send(2_100);
        let allocations = allocations(|| send(2_100));
        assert_eq!(allocations, 0, "{len} bytes");
    }
}

fn large_body_behind_a_kept_header_costs_no_copy() {
    const LARGE: usize = 200 * MIB;
    let config = LengthField::config().offset(1).keep_header();
    let framing = config.max_block_len(LARGE + 5).build().unwrap();
    let header = [&b"Q"[..], &(LARGE as u32).to_be_bytes()].concat();
    let body = Bytes::from(vec![0; LARGE]);
    let allocated = |send: &dyn Fn(Scripted, BlockCodec<LengthField>)| {
        let io = Scripted::default().unrecorded();
        let region = Region::new(GLOBAL);
        send(io, BlockCodec::new(framing));
        region.change().bytes_allocated
    };
    let fed = allocated(&|io, codec| {
        let mut transport = BlockTransport::new(io, codec);
        done(transport.send((&header[..], body.clone()))).unwrap();
    });
    let transferred = allocated(&|io, codec| {
        let mut framed = FramedWrite::new(io, codec);
        let blocks = stream::iter([(&header[..], body.clone())]);
        done(send_blocks(&mut framed, blocks)).unwrap();
    });
    assert!(fed <= 16 * KIB, "sent: {fed} bytes");
    assert!(
        transferred <= 32 * KIB,
        "by a transfer: {transferred} bytes"
    );
}

fn unused_transport_holds_nothing() {
    let (near, _far) = duplex(64);
    let before = GLOBAL.stats();
    let transport = BlockTransport::new(near, BlockCodec::length_prefixed());
    assert_eq!(held_since(&before), 0);
    let framed = transport.into_framed();
    let transport = BlockTransport::from(framed);
    drop(transport);
    assert_eq!(held_since(&before), 0);
}

/// Returns the heap bytes that each of 50 transports holds after `used` has used them one after the other.
/// They share the one buffer that they leave to the thread.
fn held_by_each<T>(mut used: impl FnMut() -> T) -> usize {
    let before = GLOBAL.stats();
    let transports: Vec<T> = (0..50).map(|_| used()).collect();
    let own = transports.capacity() * size_of::<T>();
    held_since(&before).saturating_sub(own) / transports.len()
}

fn transport_that_idles_after_many_blocks_holds_at_most_10_kib() {
    for len in [64, 1_000, 1_024, 5_000, 20_000, 40_000, 51_200] {
        let (count, block) = (256 + 256 * KIB / len, Bytes::from(vec![7; len]));
        for (per_read, pausing) in [(usize::MAX, false), (30_000, true), (1_460, true)] {
            let received = || {
                let peer = repeating(LengthPrefix::u32(), len, count, per_read, pausing);
                let mut transport =
                    BlockTransport::new(peer.then_silent(), BlockCodec::length_prefixed());
                let mut blocks = 0;
                while blocks < count {
                    blocks += usize::from(transport.next().now_or_never().is_some());
                }
                for _ in 0..3 {
                    assert!(transport.next().now_or_never().is_none());
                }
                transport.get_mut().forget_wire();
                transport
            };
            let each = held_by_each(received);
            assert!(each <= 10 * KIB, "{len} bytes received: {each} bytes each");
        }

        let sent = || {
            let mut transport = BlockTransport::new(sink(), BlockCodec::length_prefixed());
            for _ in 0..count {
                done(transport.feed(block.clone())).unwrap();
            }
            done(SinkExt::<Bytes>::flush(&mut transport)).unwrap();
            transport
        };
        let each = held_by_each(sent);
        assert!(each <= 10 * KIB, "{len} bytes sent: {each} bytes each");

        let sent_by_one = || {
            let mut transport = BlockTransport::new(sink(), BlockCodec::length_prefixed());
            for _ in 0..count {
                done(transport.send(block.clone())).unwrap();
            }
            let blocks = stream::iter(std::iter::repeat_n(&block, count));
            done(send_blocks(&mut transport, blocks)).unwrap();
            transport
        };
        let each = held_by_each(sent_by_one);
        assert!(
            each <= 10 * KIB,
            "{len} bytes sent one by one: {each} bytes each"
        );
    }
}

fn transport_that_waits_inside_a_long_block_holds_at_most_10_kib() {
    let mut memory = vec![0; MIB];
    for way in 0..4 {
        let mut waiting = || {
            let bulk = wire(LengthPrefix::u32(), &vec![vec![7; 1_000].into(); 500]);
            let bytes = [&bulk[..], b"\0\x10\0\0hello"].concat(); // 1 MiB
            let peer = Scripted::repeating(&bytes, 1).then_silent();
            let mut transport = BlockTransport::new(peer, BlockCodec::length_prefixed());
            for _ in 0..500 {
                done(transport.recv()).unwrap().unwrap();
            }
            if way == 0 {
                let receiving = Box::pin(transport.recv_into(&mut memory));
                assert!(pending(receiving));
            } else {
                let mut reader = done(transport.recv_reader()).unwrap().unwrap();
                assert_eq!(done(reader.read(&mut memory)).unwrap(), 5);
                match way {
                    1 => assert!(reader.read(&mut memory).now_or_never().is_none()),
                    2 => assert!(reader.fill_buf().now_or_never().is_none()),
                    _ => {
                        drop(reader);
                        assert!(transport.recv().now_or_never().is_none());
                    }
                }
            }
            transport.get_mut().forget_wire();
            transport
        };
        let each = held_by_each(&mut waiting);
        assert!(each <= 10 * KIB, "{way}: {each} each");
    }
}

/// Polls `future` once, leaks it, and returns true if it was pending.
fn pending<T>(mut future: Pin<Box<impl Future<Output = T>>>) -> bool {
    let pending = future.as_mut().now_or_never().is_none();
    mem::forget(future);
    pending
}

fn long_block_is_read_part_by_part_in_64_kib_whatever_came_before() {
    const LONG: usize = 64 * MIB;
    let mut memory = vec![0; MIB];
    for before in [vec![], vec![MIB; 2], vec![8 * MIB]] {
        for reading in READINGS {
            let blocks: Vec<Bytes> = before.iter().map(|len| vec![7; *len].into()).collect();
            let mut bytes = wire(LengthPrefix::u32(), &blocks);
            bytes.extend_from_slice(&(LONG as u32).to_be_bytes());
            let peer = Scripted::sending(&bytes, []).then_repeating(&[7; 64 * KIB], 1_024);
            let peer = peer.unrecorded();
            let _not_freed_in_between = peer.wire();
            let idle = GLOBAL.stats();
            let mut transport = BlockTransport::new(peer, BlockCodec::length_prefixed());
            for _ in &before {
                done(transport.recv()).unwrap().unwrap();
            }
            let (mut parts, mut most) = (0, 0);
            let read = read_in_parts(&mut transport, reading, &mut memory, || {
                parts += 1;
                if parts > 10 {
                    most = most.max(held_since(&idle)); // the buffer of what came before is dropped
                }
            });
            assert_eq!(read, LONG as u64);
            assert!(done(transport.recv_reader()).unwrap().is_none());
            most = most.max(held_since(&idle));
            assert!(most <= 70 * KIB, "{before:?}, {reading:?}: {most} bytes");
        }
    }
}

fn sink_that_waits_for_its_peer_holds_at_most_128_kib() {
    let (_open, full) = filled_with(b"x");
    let mut transport = BlockTransport::new(full, BlockCodec::new(LengthPrefix::u8()));
    let before = GLOBAL.stats();
    let mut fed = 0;
    loop {
        let block = Bytes::from_static(&[7; 1][..fed % 2]);
        if transport.feed(block).now_or_never().is_none() {
            break;
        }
        fed += 1;
        assert!(fed < 100_000, "the sink takes blocks without end");
    }
    let held = held_since(&before);
    assert!(held <= 128 * KIB, "{held} bytes");
}

fn sender_that_waits_for_its_source_holds_at_most_10_kib() {
    // An earlier sender leaves a buffer on this thread.
    let mut earlier = BlockTransport::new(sink(), BlockCodec::length_prefixed());
    done(send_blocks(
        &mut earlier,
        stream::iter(vec![[7; 1_000]; 2_000]),
    ))
    .unwrap();
    let mut framed = FramedWrite::new(sink(), BlockCodec::length_prefixed());
    let before = GLOBAL.stats();
    let blocks = std::iter::repeat_n(Bytes::from_static(&[7; 64]), 100_000);
    let source = stream::iter(blocks).chain(stream::pending());
    let mut sending = send_blocks(&mut framed, source);
    assert!((&mut sending).now_or_never().is_none());
    assert_eq!(sending.stats().blocks, 100_000);
    let held = held_since(&before);
    assert!(held <= 10 * KIB, "{held} bytes");
}

fn sender_of_tiny_blocks_of_changing_lengths_holds_at_most_128_kib() {
    let (_open, full) = filled_with(b"x");
    let mut framed = FramedWrite::new(full, BlockCodec::new(LengthPrefix::u8()));
    let before = GLOBAL.stats();
    let endless = stream::iter((0..).map(|n| Bytes::from_static(&[7; 1][..n % 2])));
    let mut sending = send_blocks(&mut framed, endless);
    assert!((&mut sending).now_or_never().is_none());
    let held = held_since(&before);
    assert!(held <= 128 * KIB, "{held} bytes");
}

fn silent_peers_that_announce_8_mib_cost_at_most_256_bytes_each() {
    let announced = (8 * MIB as u32).to_be_bytes();
    let mut peers: Vec<_> = (0..1_000)
        .map(|_| {
            let (near, far) = filled_with(&announced);
            (Framed::new(near, BlockCodec::length_prefixed()), far)
        })
        .collect();
    let before = GLOBAL.stats();
    for (n, (framed, _open)) in peers.iter_mut().enumerate() {
        // Every other peer by lending.
        if n % 2 == 0 {
            assert!(framed.next().now_or_never().is_none());
        } else {
            assert!(recv_blocks(framed).next().now_or_never().is_none());
        }
    }
    let each = held_since(&before) / peers.len();
    assert!(each <= 16 * KIB, "{each} bytes of heap each");
    assert!(each <= 256, "each costs next to nothing: {each}");
}

fn at_most_1_mib_is_kept_after_a_block_of_16_mib() {
    const LARGE: usize = 16 * MIB;
    let framing = LengthPrefix::u32().max_block_len(LARGE).unwrap();
    let new_peer = || repeating(framing, LARGE, 1, usize::MAX, false);

    let (peer, before) = (new_peer(), GLOBAL.stats());
    let mut framed = FramedRead::new(peer, BlockCodec::new(framing));
    drop(done(framed.next()).unwrap().unwrap());
    let owned = held_since(&before);
    assert!(owned <= MIB, "owned: {owned} bytes kept");
    assert!(done(framed.next()).is_none());
    assert!(held_since(&before) <= MIB, "the next wait takes no more");

    let (peer, before) = (new_peer(), GLOBAL.stats());
    let mut framed = FramedRead::new(peer, BlockCodec::new(framing));
    let mut receiving = recv_blocks(&mut framed);
    assert_eq!(done(receiving.next()).unwrap().unwrap().len(), LARGE);
    drop(receiving);
    let lent = held_since(&before);
    assert!(lent <= MIB, "lent, then dropped: {lent} bytes kept");

    let (peer, before) = (new_peer(), GLOBAL.stats());
    let mut framed = FramedRead::new(peer, BlockCodec::new(framing));
    let mut receiving = recv_blocks(&mut framed);
    assert_eq!(done(receiving.next()).unwrap().unwrap().len(), LARGE);
    assert!(done(receiving.next()).unwrap().is_none());
    let lent = held_since(&before);
    assert!(
        lent <= MIB,
        "lent, and asked for the next: {lent} bytes kept"
    );
    drop(receiving);

    let before = GLOBAL.stats();
    let mut framed = FramedWrite::new(sink(), BlockCodec::new(framing));
    done(framed.send(Bytes::from(vec![1; LARGE]))).unwrap();
    done(framed.send(Bytes::from_static(b"small"))).unwrap();
    let fed = held_since(&before);
    assert!(fed <= MIB, "sent by the sink: {fed} bytes kept");

    let before = GLOBAL.stats();
    let mut framed = FramedWrite::new(
        Scripted::default().unrecorded().not_vectored(),
        BlockCodec::new(framing),
    );
    let block = Bytes::from(vec![1; LARGE]);
    done(send_blocks(&mut framed, stream::iter([block]))).unwrap();
    let joined = held_since(&before);
    assert!(joined <= MIB, "joined: {joined} bytes kept");
}

/// A peer that sends blocks of `lens` bytes once, in reads of up to `per_read` bytes, and is then silent.
fn told_once(lens: &[usize], per_read: usize) -> Scripted {
    let blocks: Vec<Bytes> = lens.iter().map(|len| vec![7; *len].into()).collect();
    let peer = Scripted::repeating(&wire(LengthPrefix::u32(), &blocks), 1);
    peer.reading(iter::repeat(Step::Move(per_read)))
        .then_silent()
}

/// Lengths of large and small blocks, in turn and in runs. Small blocks share buffers with large ones, and
/// either can be the first of a read.
fn large_and_small() -> Vec<Vec<usize>> {
    [(1, 1), (1, 50), (3, 3_000), (2, 20_000)]
        .map(|(large, small)| {
            let run = [vec![MIB; large], vec![20; small]].concat();
            run.repeat(5)
        })
        .to_vec()
}

fn kept_small_block_holds_at_most_64_kib_whatever_came_before() {
    fn check<R: BlockStream<Error = BlockError>>(
        make: impl Fn(Scripted, BlockCodec<LengthPrefix>) -> R,
    ) {
        for lens in large_and_small() {
            for (per_read, step) in [
                (usize::MAX, 1),
                (70_000, 1),
                (1_460, 7),
                (usize::MAX, 3_000),
            ] {
                let peer = told_once(&lens, per_read);
                let _not_freed_in_between = peer.wire();
                let before = GLOBAL.stats();
                let mut framed = make(peer, BlockCodec::length_prefixed());
                let mut kept = Vec::with_capacity(lens.len());
                let mut seen = 0;
                while let Some(block) = framed.next().now_or_never() {
                    let block = block.unwrap().unwrap();
                    seen += usize::from(block.len() < 100);
                    if block.len() < 100 && seen % step == 0 {
                        kept.push(block);
                    }
                }
                assert!(kept.len() >= lens.len() / step / 2, "{} kept", kept.len());
                drop(framed);
                let vec = kept.capacity() * size_of::<BytesMut>();
                let held = held_since(&before).saturating_sub(vec);
                let most = (kept.len() + 1).saturating_mul(64 * KIB + 128);
                assert!(
                    held <= most,
                    "{per_read}, {step}: {held} bytes by {}",
                    kept.len()
                );
            }
        }
    }
    check(BlockTransport::new);
    check(FramedRead::new);
}

fn small_block_from_parts_with_a_large_buffer_holds_at_most_64_kib() {
    let before = GLOBAL.stats();
    let mut parts = FramedParts::new::<Bytes>(&b""[..], BlockCodec::length_prefixed());
    parts.read_buf = BytesMut::with_capacity(MIB);
    parts
        .read_buf
        .extend_from_slice(b"\0\0\0\x05hello\0\0\0\x05again");
    drop(parts.read_buf.split_off(18)); // the view does not show how large the allocation is
    let mut transport = BlockTransport::from(parts);
    let kept = done(transport.next()).unwrap().unwrap();
    assert_eq!(kept, "hello");
    drop(transport);
    let held = held_since(&before);
    assert!(held <= 64 * KIB, "{held} bytes");
}

fn buffer_left_to_the_thread_has_at_most_64_kib() {
    // The number of small blocks varies, so that the last one ends at many places of its buffer.
    for small in (0..60_000).step_by(3_701) {
        for large in [MIB, 300_000] {
            let lens = [vec![large], vec![20; small]].concat();
            let peer = told_once(&lens, usize::MAX);
            let _not_freed_in_between = peer.wire();
            let before = GLOBAL.stats();
            let mut transport = BlockTransport::new(peer, BlockCodec::length_prefixed());
            let mut kept = BytesMut::new();
            while let Some(block) = transport.next().now_or_never() {
                kept = block.unwrap().unwrap();
            }
            drop(transport);
            drop(kept);
            let held = held_since(&before);
            assert!(held <= 64 * KIB + 128, "{large}, {small}: {held} bytes");
        }
    }
}

fn sender_drops_the_room_of_a_copied_payload_at_the_next_write() {
    const LARGE: usize = 7 * MIB;
    let large: &'static [u8] = Vec::leak(vec![7; LARGE]);
    let mut transport = BlockTransport::new(sink(), BlockCodec::length_prefixed());
    let before = GLOBAL.stats();
    let mut most = 0;
    let small = (0..10_000).map(|n| {
        if n > 1_000 {
            most = most.max(held_since(&before));
        }
        &large[..1_000]
    });
    let source = stream::iter(std::iter::once(large).chain(small));
    done(send_blocks(&mut transport, source)).unwrap();
    assert!(most <= max_spare(FULL_WRITE) + 1_100, "{most} bytes");
}
