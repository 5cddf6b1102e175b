//! Every form in turn on one connection, both directions at once, each future dropped anywhere, or
//! leaked: nothing is lost, repeated or torn.

use std::{cell::Cell, mem, pin::pin, task::Poll};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, stream};
use proptest::prelude::*;
use tokio_util::codec::Framed;
use wholeblock::{BlockCodec, BlockTransport, LengthPrefix, recv_blocks, send_blocks};

use crate::support::{FULL_WRITE, Scripted, numbered, ready, transport, wire};

/// Blocks of two bytes more than `lens`, which say which one of them they are.
fn labelled(lens: &[usize]) -> Vec<Bytes> {
    let block = |(n, block): (usize, Bytes)| [&(n as u16).to_be_bytes()[..], &block].concat();
    let numbered = numbered(lens).into_iter().enumerate();
    numbered.map(block).map(Bytes::from).collect()
}

/// A connection, in one form or the other.
enum Form {
    Transport(BlockTransport<Scripted, LengthPrefix>),
    Framed(Framed<Scripted, BlockCodec<LengthPrefix>>),
}

/// Evaluates `$test` with `$it` as what `$form` holds.
macro_rules! with {
    ($form:expr, |$it:ident| $test:expr) => {
        match $form {
            Form::Transport($it) => $test,
            Form::Framed($it) => $test,
        }
    };
}

impl Form {
    fn turned(self, by_parts: bool) -> Self {
        match self {
            Self::Transport(transport) => Self::Framed(transport.into_framed()),
            Self::Framed(framed) if by_parts => Self::Transport(framed.into_parts().into()),
            Self::Framed(framed) => Self::Transport(framed.into()),
        }
    }

    fn written(&self) -> &[u8] {
        with!(self, |it| &it.get_ref().written)
    }
}

/// What has been received, and what may come next.
struct Received {
    expected: Vec<Bytes>,
    next: usize,
    /// Whether blocks that were lent may come again, since a receiver was leaked.
    may_repeat: bool,
}

impl Received {
    fn take(&mut self, block: &[u8]) {
        let index = usize::from(u16::from_be_bytes([block[0], block[1]]));
        if self.may_repeat {
            assert!(
                index <= self.next,
                "{index} came after a leak, before {}",
                self.next
            );
        } else {
            assert_eq!(index, self.next);
        }
        assert!(block == self.expected[index], "block {index} is torn");
        self.next = index + 1;
        self.may_repeat = false;
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// From transport to `Framed`, or back; by its parts or not.
    Turn(bool),
    Next,
    Lend,
    Batch,
    /// `recv_blocks` that stops after this many blocks.
    Stop(u64),
    Feed,
    Flush,
    /// `send_blocks` of this many blocks.
    Send(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<bool>().prop_map(Step::Turn),
        Just(Step::Next),
        Just(Step::Lend),
        Just(Step::Batch),
        (0u64..4).prop_map(Step::Stop),
        Just(Step::Feed),
        Just(Step::Flush),
        (0usize..8).prop_map(Step::Send),
    ]
}

fn lens(most: usize) -> impl Strategy<Value = Vec<usize>> {
    let len = prop_oneof![6 => 0usize..40, 2 => 3_900usize..9_000, 1 => 9_000usize..80_000];
    prop::collection::vec(len, 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn in_any_mixture_of_forms_dropped_or_leaked_the_blocks_out_are_the_blocks_in(
        incoming in lens(30),
        outgoing in lens(60),
        chunk in prop_oneof![1usize..50, 1_000usize..30_000, Just(usize::MAX)],
        takes in prop::collection::vec(prop_oneof![1usize..40, 1usize..30_000], 0..30),
        vectored: bool,
        // What to do, how often to poll it, and whether to leak it then.
        steps in prop::collection::vec((step(), 1usize..5, any::<bool>()), 0..60),
    ) {
        let (incoming, outgoing) = (labelled(&incoming), labelled(&outgoing));
        let bytes = wire(LengthPrefix::u32(), &incoming);
        let mut io = Scripted::chunked(&bytes, chunk, true).then_silent();
        for taken in takes {
            io = io.pause_writes().take(taken);
        }
        io.not_vectored = !vectored;
        let mut form = Form::Transport(transport(io));
        let mut received = Received { expected: incoming, next: 0, may_repeat: false };
        // Blocks that were taken to be sent.
        let taken = Cell::new(0);
        for (step, polls, leaking) in steps {
            match step {
                Step::Turn(by_parts) => form = form.turned(by_parts),
                Step::Next => with!(&mut form, |it| for _ in 0..polls {
                    if let Some(block) = it.next().now_or_never() {
                        received.take(&block.unwrap().unwrap());
                    }
                }),
                Step::Lend | Step::Stop(_) => with!(&mut form, |it| {
                    let mut receiving = recv_blocks(it);
                    let mut most = u64::MAX;
                    if let Step::Stop(after) = step {
                        most = after;
                        receiving = receiving.stop_after(after);
                    }
                    let mut lent = 0;
                    for _ in 0..polls {
                        match receiving.next().now_or_never() {
                            Some(Ok(Some(block))) => {
                                lent += 1;
                                received.take(block);
                            }
                            Some(Ok(None)) => prop_assert_eq!(lent, most, "no end has come"),
                            Some(Err(error)) => panic!("{error}"),
                            None => {}
                        }
                    }
                    prop_assert!(lent <= most);
                    if leaking {
                        received.may_repeat |= lent > 0;
                        mem::forget(receiving);
                    }
                }),
                Step::Batch => with!(&mut form, |it| {
                    let mut receiving = recv_blocks(it);
                    if let Some(batch) = receiving.next_batch().now_or_never() {
                        for block in batch.unwrap().unwrap().take(polls) {
                            received.take(block);
                        }
                        received.may_repeat |= leaking;
                    }
                    if leaking {
                        mem::forget(receiving);
                    }
                }),
                Step::Feed => with!(&mut form, |it| for _ in 0..polls {
                    // `feed` that is dropped while it waits drops the block with it.
                    if let Some(block) = outgoing.get(taken.get()) {
                        let fed = it.feed(block.clone()).now_or_never();
                        taken.set(taken.get() + usize::from(fed.is_some()));
                    }
                }),
                Step::Flush => with!(&mut form, |it| {
                    let mut flush = SinkExt::<Bytes>::flush(it);
                    for _ in 0..polls {
                        if let Some(done) = (&mut flush).now_or_never() {
                            done.unwrap();
                            break;
                        }
                    }
                }),
                Step::Send(count) => {
                    let first = taken.get();
                    let mut pausing = false;
                    let source = stream::poll_fn(|cx| {
                        pausing = !pausing;
                        if pausing && taken.get() % 3 == 0 {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        let more = taken.get() < first + count;
                        let block = outgoing.get(taken.get()).filter(|_| more).cloned();
                        taken.set(taken.get() + usize::from(block.is_some()));
                        Poll::Ready(block)
                    });
                    // What a leaked transfer through `Framed` has queued is lost with it.
                    let leaking = leaking && matches!(form, Form::Transport(_));
                    with!(&mut form, |it| {
                        let mut sending = Box::pin(send_blocks(it, source));
                        for _ in 0..polls {
                            if let Some(done) = sending.as_mut().now_or_never() {
                                done.unwrap();
                                break;
                            }
                        }
                        if leaking {
                            mem::forget(sending);
                        }
                    });
                }
            }
        }
        // The next flush completes what was taken, in order, and nothing else.
        with!(&mut form, |it| ready(SinkExt::<Bytes>::flush(it)).unwrap());
        let sent = wire(LengthPrefix::u32(), &outgoing[..taken.get()]);
        prop_assert!(form.written() == sent);
        // All the rest comes, though the peer says no more.
        while received.next < received.expected.len() {
            let block = with!(&mut form, |it| ready(it.next()).unwrap().unwrap());
            received.take(&block);
        }
        // And nothing else, but for what was lent by a receiver that was leaked.
        while let Some(block) = with!(&mut form, |it| it.next().now_or_never()) {
            received.take(&block.unwrap().unwrap());
        }
        prop_assert_eq!(received.next, received.expected.len());
    }
}

#[test]
fn after_a_leaked_transfer_the_next_flush_completes_what_was_taken_from_the_source() {
    let blocks = numbered(&[10, 20_000, 0, 140_000, 30]);
    let expected = wire(LengthPrefix::u32(), &blocks);
    for taken in [1, 13, 14, 20_000, FULL_WRITE - 1] {
        for polls in 0..4 {
            let io = Scripted::default().take(taken).pause_writes().take(5);
            let mut transport = transport(io.pause_writes().pause_writes());
            let source_gave = Cell::new(0);
            let source = stream::iter(blocks.clone()).inspect(|_| {
                source_gave.set(source_gave.get() + 1);
            });
            let mut sending = Box::pin(send_blocks(&mut transport, source));
            for _ in 0..polls {
                assert!(sending.as_mut().now_or_never().is_none());
            }
            mem::forget(sending);
            ready(SinkExt::<Bytes>::flush(&mut transport)).unwrap();
            let rest = blocks[source_gave.get()..].to_vec();
            let sent = ready(send_blocks(&mut transport, stream::iter(rest))).unwrap();
            assert_eq!(sent.blocks, (blocks.len() - source_gave.get()) as u64);
            assert!(transport.get_ref().written == expected, "{taken}, {polls}");
        }
    }
}

#[test]
fn what_a_dropped_transfer_has_queued_goes_before_the_next_transfer_and_what_is_fed() {
    let io = Scripted::default().take(1).pause_writes().pause_writes();
    let mut transport = transport(io);
    {
        let source = stream::iter(["a", "b"]).chain(stream::pending());
        let mut sending = pin!(send_blocks(&mut transport, source));
        assert!(sending.as_mut().now_or_never().is_none());
        assert_eq!(sending.stats().blocks, 0);
    }
    ready(transport.feed(Bytes::from_static(b"c"))).unwrap();
    let sent = ready(send_blocks(&mut transport, stream::iter(["d"]))).unwrap();
    assert_eq!(
        (sent.blocks, sent.payload_bytes, sent.wire_bytes),
        (1, 1, 5)
    );
    let expected = wire(
        LengthPrefix::u32(),
        &["a", "b", "c", "d"].map(|block| Bytes::from_static(block.as_bytes())),
    );
    assert_eq!(transport.get_ref().written, expected);
}

#[test]
fn sending_while_a_block_is_half_received_leaves_both_directions_whole() {
    let incoming = numbered(&[9, 8_000]);
    let bytes = wire(LengthPrefix::u32(), &incoming);
    let io = Scripted::default()
        .send(&bytes[..20])
        .pause()
        .send(&bytes[20..]);
    let mut transport = transport(io.then_silent());
    assert_eq!(ready(transport.next()).unwrap().unwrap(), incoming[0]);
    assert!(transport.next().now_or_never().is_none());
    ready(transport.send(Bytes::from_static(b"meanwhile"))).unwrap();
    ready(send_blocks(&mut transport, stream::iter([vec![1; 9_000]]))).unwrap();
    assert_eq!(ready(transport.next()).unwrap().unwrap(), incoming[1]);
    let sent = wire(
        LengthPrefix::u32(),
        &[Bytes::from_static(b"meanwhile"), vec![1; 9_000].into()],
    );
    assert_eq!(transport.get_ref().written, sent);
}
