//! Plans of sessions.

use std::io::ErrorKind;

use proptest::{collection::vec, option, prelude::*};

use super::{
    link::Begins,
    outgoing::Draft,
    receive::{Lend, Lending},
    send::Transfer,
    session::{Op, Plan},
    socket::{Script, Step},
    source::Kind,
    wire::{Ending, LONGEST, Scheme, Wire},
};

impl Plan {
    /// Whether it has a wire that only a user's framing speaks.
    pub(crate) fn needs_own(&self) -> bool {
        let mut wires = self.stages.iter().map(|(wire, _)| wire.scheme);
        wires.any(|scheme| scheme == Scheme::Magic)
    }
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    let stream = (
        vec(stage(), 1..4),
        ending(),
        prop::bool::weighted(0.3),
        any::<bool>(),
    );
    let retained = option::weighted(0.4, prop_oneof![Just(0), Just(20_000)]);
    let io = (
        script(read_step(), 1),
        script(write_step(), 200),
        any::<bool>(),
    );
    let begins = prop_oneof![
        Just(Begins::Framed),
        Just(Begins::Transport),
        Just(Begins::FramedHalves),
        Just(Begins::TransportHalves),
    ];
    let parts = (stream, retained, io, begins, vec(op(), 0..25));
    parts.prop_map(|(stream, max_retained, io, begins, ops)| Plan {
        stages: lengths(stream.0),
        ending: stream.1,
        silent: stream.2,
        skips: stream.3,
        max_retained,
        begins,
        reads: io.0,
        writes: io.1,
        vectored: io.2,
        ops,
    })
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![12 => 0usize..40, 3 => 3_900usize..9_000, 1 => 9_000usize..LONGEST]
}

fn scheme() -> impl Strategy<Value = Scheme> {
    let prefix = (1usize..=8, any::<bool>(), any::<bool>()).prop_map(
        |(width, little_endian, counts_itself)| Scheme::Prefix {
            width,
            little_endian,
            counts_itself,
        },
    );
    let plain = Scheme::Prefix {
        width: 4,
        little_endian: false,
        counts_itself: false,
    };
    prop_oneof![
        3 => len().prop_map(|len| Scheme::Exact(len.max(1))),
        2 => Just(plain),
        3 => prefix,
        2 => Just(Scheme::Varint),
        2 => Just(Scheme::Field),
        2 => Just(Scheme::Kept),
        1 => Just(Scheme::Magic),
    ]
}

/// A wire, and blocks that come on it, a few of them too long for it.
fn stage() -> impl Strategy<Value = (Wire, Vec<(usize, bool)>)> {
    let max = prop_oneof![2 => 5usize..300, 2 => 4_000usize..10_000, 4 => Just(100_000)];
    let wire = (scheme(), max).prop_map(|(scheme, max)| Wire { scheme, max });
    (wire, vec((len(), prop::bool::weighted(0.04)), 0..8))
}

fn lengths(stages: Vec<(Wire, Vec<(usize, bool)>)>) -> Vec<(Wire, Vec<usize>)> {
    let stages = stages.into_iter().map(|(wire, blocks)| {
        let (min, max) = wire.lens().into_inner();
        let last = blocks.len().saturating_sub(1);
        let len = |(at, (len, over)): (usize, (usize, bool))| {
            let beyond = max + 1 + len % 50;
            // The last one on a wire is within its limit: behind it another is spoken.
            let can_be_over = at < last && beyond <= wire.most().min(LONGEST);
            match over && can_be_over {
                true => beyond,
                false => len.clamp(min, max),
            }
        };
        (wire, blocks.into_iter().enumerate().map(len).collect())
    });
    stages.collect()
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        3 => Just(Ending::Clean),
        2 => (1usize..30).prop_map(Ending::Cut),
        1 => (1usize..20_000).prop_map(Ending::Cut),
        1 => Just(Ending::Invalid),
        1 => (1usize..1_000).prop_map(Ending::TooLarge),
    ]
}

fn kind() -> impl Strategy<Value = ErrorKind> {
    prop_oneof![
        Just(ErrorKind::Interrupted),
        Just(ErrorKind::TimedOut),
        Just(ErrorKind::Other),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..40).prop_map(Step::Move),
        3 => (1usize..30_000).prop_map(Step::Move),
        3 => any::<bool>().prop_map(|later| Step::Wait { later }),
        1 => kind().prop_map(Step::Fail),
    ]
}

fn read_step() -> BoxedStrategy<Step> {
    step().boxed()
}

fn write_step() -> BoxedStrategy<Step> {
    prop_oneof![20 => step(), 1 => Just(Step::Nothing)].boxed()
}

fn script(step: BoxedStrategy<Step>, least: usize) -> impl Strategy<Value = Script> {
    let piece = prop_oneof![1usize..60, 1_000usize..30_000, Just(usize::MAX)];
    (vec(step, 0..20), piece, any::<bool>()).prop_map(move |(steps, piece, pausing)| Script {
        steps,
        piece: piece.max(least),
        pausing,
    })
}

/// How often a future is polled, at most.
fn polls() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0usize..4, 1 => Just(100usize)]
}

fn lend() -> impl Strategy<Value = Lend> {
    let next = (polls(), any::<bool>()).prop_map(|(polls, leaked)| Lend::Next { polls, leaked });
    let batch = (0usize..6, polls(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(
        |(blocks, polls, leaked, leaked_batch)| Lend::Batch {
            blocks,
            polls,
            leaked,
            leaked_batch,
        },
    );
    prop_oneof![4 => next, 3 => batch, 1 => (0u64..4).prop_map(Lend::Stop)]
}

fn draft() -> impl Strategy<Value = Draft> {
    let kind = prop_oneof![
        Just(Kind::Bytes),
        Just(Kind::BytesMut),
        Just(Kind::Vec),
        Just(Kind::Boxed),
        Just(Kind::Borrowed),
        Just(Kind::Array),
    ];
    (len(), prop::bool::weighted(0.05), kind).prop_map(|(len, raw, kind)| Draft { len, raw, kind })
}

fn transfer() -> impl Strategy<Value = Transfer> {
    let parts = (
        vec(draft(), 0..10),
        any::<bool>(),
        prop::bool::weighted(0.2),
        polls(),
        prop::bool::weighted(0.2),
    );
    parts.prop_map(|(blocks, pausing, failing, polls, leaked)| Transfer {
        blocks,
        pausing,
        failing,
        polls,
        leaked,
    })
}

fn limit() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..50, 0usize..100_000]
}

fn op() -> impl Strategy<Value = Op> {
    let lending = (vec(lend(), 1..8), 0u64..4, prop::bool::weighted(0.2));
    let lending = lending.prop_map(|(steps, at_least, leaked)| Lending {
        steps,
        at_least,
        leaked,
    });
    let feed = (vec(draft(), 1..8), polls(), any::<bool>());
    let feed = feed.prop_map(|(blocks, polls, leaked)| Op::Feed {
        blocks,
        polls,
        leaked,
    });
    let pair = || (any::<bool>(), any::<bool>());
    prop_oneof![
        4 => (1usize..4, polls()).prop_map(|(times, polls)| Op::Next { times, polls }),
        6 => lending.prop_map(Op::Lend),
        3 => feed,
        2 => (draft(), polls()).prop_map(|(block, polls)| Op::Send { block, polls }),
        6 => any::<bool>().prop_map(|lent| Op::Idle { lent }),
        2 => (polls(), any::<bool>()).prop_map(|(polls, leaked)| Op::Flush { polls, leaked }),
        3 => transfer().prop_map(Op::Transfer),
        1 => polls().prop_map(|polls| Op::Close { polls }),
        3 => (any::<bool>(), limit()).prop_map(|(sender, at)| Op::Limit { sender, at }),
        3 => pair().prop_map(|(sender, by_parts)| Op::Turn { sender, by_parts }),
    ]
}
