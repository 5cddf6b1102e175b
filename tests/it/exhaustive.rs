//! Everything that can happen to a short stream: each way to cut it into reads, each place to end.

use std::{env, iter};

use bytes::Bytes;
use testing::{Case, Scripted, Step, WAYS, Way, blocks_for, numbered_for, with_each_framing};
use wholeblock::{BlockCodec, BlockError, Framing};

/// Bytes of the longest stream to be cut in every way, unless `EXHAUSTIVE_BYTES` says how many. Each
/// further one doubles the time.
const MAX_WIRE: usize = 15;

fn max_wire() -> usize {
    env::var("EXHAUSTIVE_BYTES").map_or(MAX_WIRE, |bytes| bytes.parse().unwrap())
}

/// How a peer sends `len` bytes: cut after byte n if bit n of `cuts` is set, and pausing before each
/// piece if told to.
fn cut(len: usize, cuts: u32, pausing: bool) -> impl Iterator<Item = Step> + Send {
    let mut at = 0;
    let pieces = iter::from_fn(move || {
        let piece = (cuts >> at).trailing_zeros() as usize + 1;
        at = len.min(at + piece);
        Some(Step::Move(piece))
    });
    let pause = pausing.then_some(Step::Pending);
    pieces.flat_map(move |piece| pause.into_iter().chain([piece]))
}

/// Blocks of 10 to 17 bytes on the wire, empty ones among them if `case` carries them.
fn short_blocks<F: Framing>(case: &Case<F>) -> Vec<Bytes> {
    let mut header = Vec::new();
    case.reference.announce(5, &mut header);
    let lens: &[usize] = match header.len() {
        0 => &[5, 5],
        1 => &[3, 0, 2, 0, 0, 3],
        2 => &[2, 0, 3, 0],
        3 => &[3, 0, 2],
        4 => &[1, 0, 1],
        5..=6 => &[2, 0],
        _ => &[1, 0],
    };
    numbered_for(&case.framing, lens)
}

/// Receives each front of a short stream, cut into reads in each way there is, with and without a
/// wait before each of them.
fn receive_every_cut(way: Way) {
    fn check<F: Framing + Copy>(case: Case<F>, way: Way) {
        let blocks = short_blocks(&case);
        let bytes = case.wire(&blocks);
        for end in 0..=bytes.len().min(max_wire()) {
            let expected = case.outcome(&bytes[..end]);
            let places = end.saturating_sub(1);
            for (cuts, pausing) in (0..1 << places).flat_map(|cuts| [(cuts, false), (cuts, true)]) {
                let io = Scripted::sending(&bytes[..end], cut(end, cuts, pausing)).unrecorded();
                let received = way.receive(io, BlockCodec::new(case.framing));
                let place = || format!("{end} bytes, cuts {cuts:0places$b}, pausing: {pausing}");
                check_received(&case, received, &blocks, &expected, place);
            }
        }
    }
    with_each_framing!(|case| check(case, way));
}

fn check_received<F>(
    case: &Case<F>,
    (received, error): (Vec<Bytes>, Option<BlockError>),
    blocks: &[Bytes],
    (whole, truncated): &(usize, Option<String>),
    place: impl Fn() -> String,
) {
    assert!(
        received == blocks[..*whole],
        "{}, {}: {received:?}",
        case.name,
        place()
    );
    let error = error.map(|error| format!("{error:?}"));
    assert_eq!(error, *truncated, "{}, {}", case.name, place());
}

#[test]
fn the_stream_of_framed_gives_the_same_blocks_and_end_whatever_the_reads() {
    receive_every_cut(Way::Framed);
}

#[test]
fn blocks_lent_by_framed_and_their_end_are_the_same_whatever_the_reads() {
    receive_every_cut(Way::Helper);
}

#[test]
fn the_stream_of_a_transport_gives_the_same_blocks_and_end_whatever_the_reads() {
    receive_every_cut(Way::Owned);
}

#[test]
fn blocks_lent_by_a_transport_and_their_end_are_the_same_whatever_the_reads() {
    receive_every_cut(Way::Lent);
}

#[test]
fn batches_lent_by_a_transport_and_their_end_are_the_same_whatever_the_reads() {
    receive_every_cut(Way::Batched);
}

#[test]
fn a_mixture_of_forms_gives_the_same_blocks_and_end_whatever_the_reads() {
    receive_every_cut(Way::Mixed);
}

#[test]
fn every_cut_of_every_stream_of_three_blocks_into_memory() {
    receive_every_cut(Way::Memory);
}

#[test]
fn every_cut_of_every_stream_of_three_blocks_by_a_reader() {
    receive_every_cut(Way::Reader);
}

#[test]
fn an_end_at_any_byte_of_longer_blocks_is_truncated_unless_it_is_between_two() {
    fn check<F: Framing + Copy>(case: Case<F>) {
        let blocks = blocks_for(&case.framing);
        let bytes = case.wire(&blocks);
        for end in 0..=bytes.len() {
            let expected = case.outcome(&bytes[..end]);
            for (way, chunk) in WAYS
                .into_iter()
                .flat_map(|w| [3, 64, usize::MAX].map(|c| (w, c)))
            {
                let io = Scripted::chunked(&bytes[..end], chunk, chunk == 3);
                let received = way.receive(io, BlockCodec::new(case.framing));
                let place = || format!("{way:?}, {end} bytes, in pieces of {chunk}");
                check_received(&case, received, &blocks, &expected, place);
            }
        }
    }
    with_each_framing!(|case| check(case));
}
