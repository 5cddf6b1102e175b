//! Everything that can happen to a short stream: each way to cut it into reads, each place to end.

use std::{env, iter};

use bytes::Bytes;
use testing::{Case, Scripted, Step, WAYS, Way, blocks_for, numbered_for, with_each_framing};
use wholeblock::{BlockCodec, BlockError, Framing};

/// Length of the longest stream that is cut in every way. `EXHAUSTIVE_BYTES` overrides it. Each further
/// byte doubles the time.
const MAX_WIRE: usize = 15;

fn max_wire() -> usize {
    env::var("EXHAUSTIVE_BYTES").map_or(MAX_WIRE, |bytes| bytes.parse().unwrap())
}

/// Steps of a peer that sends `len` bytes: a cut after byte n if bit n of `cuts` is set, and a pause before
/// each piece if `pausing`.
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

/// Blocks of 10 to 17 bytes on the wire, some of them empty if `case` carries empty blocks.
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

/// Receives each prefix of a short stream, cut into reads in every way, with and without a wait before each
/// read.
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
fn framed_yields_the_same_blocks_and_end_whatever_the_reads() {
    receive_every_cut(Way::Framed);
}

#[test]
fn framed_lends_the_same_blocks_and_end_whatever_the_reads() {
    receive_every_cut(Way::Helper);
}

#[test]
fn transport_yields_the_same_blocks_and_end_whatever_the_reads() {
    receive_every_cut(Way::Owned);
}

#[test]
fn transport_lends_the_same_blocks_and_end_whatever_the_reads() {
    receive_every_cut(Way::Lent);
}

#[test]
fn transport_lends_the_same_batches_and_end_whatever_the_reads() {
    receive_every_cut(Way::Batched);
}

#[test]
fn mixed_forms_give_the_same_blocks_and_end_whatever_the_reads() {
    receive_every_cut(Way::Mixed);
}

#[test]
fn recv_into_gives_the_same_blocks_and_end_whatever_the_reads() {
    receive_every_cut(Way::Memory);
}

#[test]
fn reader_reads_the_same_blocks_and_end_whatever_the_reads() {
    receive_every_cut(Way::Reader);
}

#[test]
fn end_of_stream_is_an_error_only_inside_a_block() {
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
