//! Everything that can happen to a short stream: each way to cut it into reads, each place to end.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wholeblock::{BlockCodec, BlockError, Framing};

use crate::support::{
    Case, Headers, Scripted, WAYS, Way, blocks_for, numbered_for, wire, with_each_framing,
};

/// Bytes of the longest stream to be cut in every way: each further one doubles the time. On
/// other machines fewer, for what depends on the machine shows in them.
const MAX_WIRE: usize = if cfg!(library_tests_only) { 12 } else { 15 };

/// A peer that sends `wire` in pieces, and then ends the stream. It allocates nothing: there are
/// millions of it.
struct Cut<'a> {
    wire: &'a [u8],
    /// Bit n: whether there is a cut after byte n.
    cuts: u32,
    at: usize,
    pausing: bool,
    paused: bool,
}

impl AsyncRead for Cut<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.paused = self.pausing && !self.paused;
        if self.paused {
            return Poll::Pending;
        }
        let piece = (self.cuts >> self.at).trailing_zeros() as usize + 1;
        let end = self.wire.len().min(self.at + piece);
        buf.put_slice(&self.wire[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

/// `Framed` asks for one; nothing is sent.
impl AsyncWrite for Cut<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Blocks of 10 to 17 bytes on the wire, empty ones among them if `case` carries them.
fn short_blocks<F: Framing>(case: &Case<F>) -> Vec<Bytes> {
    let lens: &[usize] = match case.headers {
        Headers::Fixed(0) => &[5, 5],
        Headers::Fixed(1) | Headers::Varint => &[3, 0, 2, 0, 0, 3],
        Headers::Fixed(2) => &[2, 0, 3, 0],
        Headers::Fixed(3) => &[3, 0, 2],
        Headers::Fixed(4) => &[1, 0, 1],
        Headers::Fixed(5..=6) => &[2, 0],
        Headers::Fixed(_) => &[1, 0],
    };
    numbered_for(&case.framing, lens)
}

/// Receives each front of a short stream, cut into reads in each way there is, with and without a
/// wait before each of them.
fn receive_every_cut(way: Way) {
    fn check<F: Framing + Copy>(case: Case<F>, way: Way) {
        let blocks = short_blocks(&case);
        let bytes = wire(case.framing, &blocks);
        for end in 0..=bytes.len().min(MAX_WIRE) {
            let expected = case.outcome(&blocks, end);
            let places = end.saturating_sub(1);
            for (cuts, pausing) in (0..1 << places).flat_map(|cuts| [(cuts, false), (cuts, true)]) {
                let io = Cut {
                    wire: &bytes[..end],
                    cuts,
                    at: 0,
                    pausing,
                    paused: false,
                };
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
    receive_every_cut(Way::FramedOwned);
}

#[test]
fn blocks_lent_by_framed_and_their_end_are_the_same_whatever_the_reads() {
    receive_every_cut(Way::FramedLent);
}

#[test]
fn batches_lent_by_framed_and_their_end_are_the_same_whatever_the_reads() {
    receive_every_cut(Way::FramedBatched);
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
fn an_end_at_any_byte_of_longer_blocks_is_truncated_unless_it_is_between_two() {
    fn check<F: Framing + Copy>(case: Case<F>) {
        let blocks = blocks_for(&case.framing);
        let bytes = wire(case.framing, &blocks);
        for end in 0..=bytes.len() {
            let expected = case.outcome(&blocks, end);
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
