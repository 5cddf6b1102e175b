//! What a session is to be.

use std::{ops::RangeInclusive, time::Duration};

use fastrand::Rng;
use wholeblock::{AnyFraming, Exact, Framing, LengthField, LengthPrefix, Varint};

/// The receiver's timeouts, and the sender's.
pub(crate) const STALL: Duration = Duration::from_millis(100);
pub(crate) const DEADLINE: Duration = Duration::from_millis(150);

/// A session: what is sent, in which form at either end, and what goes wrong.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) framing: AnyFraming,
    /// Payload bytes of a block.
    pub(crate) lens: RangeInclusive<usize>,
    pub(crate) blocks: u64,
    pub(crate) sending: Sending,
    pub(crate) receiving: Receiving,
    pub(crate) fault: Fault,
    /// Before which block a fault happens that is not at the end.
    pub(crate) at: u64,
    /// For what is drawn as the session goes.
    pub(crate) seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sending {
    Transfer,
    TransferThroughFramed,
    Sink,
    SinkOfFramed,
}

/// How blocks are received, and whether through `Framed`; or each few in another way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Receiving {
    Always { way: Way, framed: bool },
    Changing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    Stream,
    Lent,
    Batches,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// The sender's source has nothing for a while, for less than the stall timeout.
    Pause,
    /// The same for longer.
    SenderStalls,
    ReceiverStalls,
    /// The receiver waits for a millisecond at a time.
    CancelledWaits,
    /// The last block comes a byte at a time.
    Dribble,
    /// The last block is cut.
    HalfClose,
    /// The same, by a reset.
    ResetBySender,
    ResetByReceiver,
    /// There is one more header, which no block can have.
    BadHeader,
}

impl Fault {
    const ALL: [Self; 10] = [
        Self::None,
        Self::Pause,
        Self::SenderStalls,
        Self::ReceiverStalls,
        Self::CancelledWaits,
        Self::Dribble,
        Self::HalfClose,
        Self::ResetBySender,
        Self::ResetByReceiver,
        Self::BadHeader,
    ];

    /// Whether the last block is not sent in one piece.
    pub(crate) fn cuts(self) -> bool {
        matches!(self, Self::Dribble | Self::HalfClose | Self::ResetBySender)
    }
}

const WAYS: [Way; 3] = [Way::Stream, Way::Lent, Way::Batches];

impl Plan {
    pub(crate) fn draw(random: &mut Rng) -> Self {
        const LENS: [RangeInclusive<usize>; 6] = [
            0..=16,
            0..=255,
            200..=5_000,
            0..=60_000,
            51_200..=51_200,
            0..=1_500_000,
        ];
        let fault = pick(random, &Fault::ALL);
        let lens = pick(random, &LENS);
        let framing = match fault {
            Fault::BadHeader => LengthPrefix::u64().into(),
            _ => framing(random, *lens.end()),
        };
        let lens = match framing {
            AnyFraming::Exact(_) => framing.block_lens(),
            _ => lens,
        };
        let bytes = 1 << random.usize(14..=22);
        let blocks = (2 * bytes / (lens.start() + lens.end())).clamp(1, 10_000) as u64;
        Self {
            framing,
            lens,
            blocks,
            sending: pick(
                random,
                &[
                    Sending::Transfer,
                    Sending::TransferThroughFramed,
                    Sending::Sink,
                    Sending::SinkOfFramed,
                ],
            ),
            receiving: match random.u8(..4) {
                0 => Receiving::Changing,
                _ => Receiving::Always {
                    way: pick(random, &WAYS),
                    framed: random.bool(),
                },
            },
            fault,
            at: random.u64(..blocks),
            seed: random.u64(..),
        }
    }
}

impl Receiving {
    /// The next way to receive, whether through `Framed`, and how many blocks.
    pub(crate) fn next(self, random: &mut Rng) -> (Way, bool, u64) {
        match self {
            Self::Always { way, framed } => (way, framed, u64::MAX),
            Self::Changing => (pick(random, &WAYS), random.bool(), random.u64(1..20)),
        }
    }
}

/// One that carries blocks of `longest` bytes.
fn framing(random: &mut Rng, longest: usize) -> AnyFraming {
    const VALID: &str = "a framing that is valid";
    let width = random.usize(1..=8);
    let prefix = LengthPrefix::bytes(width).expect(VALID);
    if !prefix.block_lens().contains(&longest) {
        return Varint::new().into();
    }
    match random.u8(..5) {
        0 => Exact::new(longest).expect(VALID).into(),
        1 => Varint::new().into(),
        2 => prefix.into(),
        3 => prefix.little_endian().into(),
        _ => {
            let config = LengthField::config().width(width).offset(random.usize(..9));
            config
                .limit(wholeblock::Limit::None)
                .build()
                .expect(VALID)
                .into()
        }
    }
}

fn pick<T: Clone>(random: &mut Rng, of: &[T]) -> T {
    of[random.usize(..of.len())].clone()
}
