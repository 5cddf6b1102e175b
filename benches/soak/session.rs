//! One connection from its start to its end, and the blocks that are sent over it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use fastrand::Rng;
use tokio::net::TcpStream;
use wholeblock::BlockError;

use crate::{
    plan::{Fault, Plan},
    recv::{Ended, Receiver},
    send,
    tally::{Met, Tally},
};

/// What all connections send: slices of bytes that do not repeat, from places and of lengths that
/// depend on which block of which connection it is.
pub(crate) struct Blocks {
    bytes: Bytes,
    seed: u64,
}

impl Blocks {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let bytes = std::iter::repeat_with(|| random.u8(..)).take(4 << 20);
        Self {
            bytes: bytes.collect(),
            seed,
        }
    }
}

pub(crate) struct Session {
    pub(crate) plan: Plan,
    pub(crate) connection: usize,
    /// Which of the connection's blocks is the first.
    pub(crate) first: u64,
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) tally: Arc<Tally>,
}

impl Session {
    /// The block of this index within the session.
    pub(crate) fn block(&self, index: u64) -> Bytes {
        let Blocks { bytes, seed } = &*self.blocks;
        let of_connection = seed ^ (self.connection as u64) << 48;
        let mut random = Rng::with_seed(of_connection.wrapping_add(self.first + index));
        let (least, most) = self.plan.lens.clone().into_inner();
        let most = random.usize(least..=most); // drawn twice: more are short than long
        let mut len = random.usize(least..=most);
        if self.plan.lens.end() != self.plan.lens.start() && self.is_cut(index) {
            len = len.max(2);
        }
        let start = random.usize(..bytes.len() - len);
        bytes.slice(start..start + len)
    }

    /// Whether this block is not sent in one piece, for which it needs two bytes.
    fn is_cut(&self, index: u64) -> bool {
        self.plan.fault.cuts() && index + 1 == self.plan.blocks
    }

    /// Blocks that are sent whole.
    pub(crate) fn whole_blocks(&self) -> u64 {
        self.plan.blocks - u64::from(self.plan.fault.cuts())
    }

    pub(crate) fn random(&self) -> Rng {
        Rng::with_seed(self.plan.seed)
    }
}

/// Both ends. Returns how many blocks were received.
pub(crate) async fn run(
    session: Arc<Session>,
    sender: TcpStream,
    receiver: TcpStream,
) -> anyhow::Result<u64> {
    let sending = tokio::spawn({
        let session = session.clone();
        async move { send::send(&session, sender).await }
    });
    let mut receiving = Receiver::new(&session);
    let ended = receiving.receive(receiver).await?;
    let received = receiving.received();
    session.judge_end(&ended, received)?;
    match sending.await? {
        Ok(()) => {}
        // Who sends on to a peer that has left is told so, sooner or later.
        Err(BlockError::Io(_)) if matches!(ended, Ended::Left | Ended::By(_)) => {
            session.tally.add(Met::FailedWrite, 1);
        }
        Err(error) => return Err(error).context("its sender failed"),
    }
    Ok(received)
}

impl Session {
    /// Fails unless the receiver ended as it should.
    fn judge_end(&self, ended: &Ended, received: u64) -> anyhow::Result<()> {
        let (all, tally) = (self.plan.blocks, &self.tally);
        match (self.plan.fault, ended) {
            (Fault::HalfClose, Ended::By(BlockError::Truncated { index, .. })) => {
                ensure!(
                    (*index, received) == (all - 1, all - 1),
                    "{received} blocks"
                );
                tally.add(Met::Truncation, 1);
            }
            (Fault::ResetBySender, Ended::By(BlockError::Io(error)))
                if error.kind() == std::io::ErrorKind::ConnectionReset =>
            {
                ensure!(received < all, "{received} blocks of fewer");
                tally.add(Met::Reset, 1);
            }
            (Fault::BadHeader, Ended::By(BlockError::TooLarge { index, .. })) => {
                ensure!((*index, received) == (all, all), "{received} blocks");
                tally.add(Met::BadHeader, 1);
            }
            (Fault::ResetByReceiver, Ended::Left) => {}
            (
                Fault::None
                | Fault::Pause
                | Fault::SenderStalls
                | Fault::ReceiverStalls
                | Fault::CancelledWaits
                | Fault::Dribble,
                Ended::Cleanly,
            ) => ensure!(received == all, "lost: {received} blocks of {all} came"),
            (_, ended) => bail!("after {received} blocks it ended: {ended:?}"),
        }
        Ok(())
    }

    /// How long the sender's source has nothing before this block.
    pub(crate) fn pause_before(&self, index: u64) -> Option<Duration> {
        use crate::plan::STALL;

        if index != self.plan.at {
            return None;
        }
        match self.plan.fault {
            Fault::Pause => Some(STALL / 10),
            Fault::SenderStalls => Some(STALL * 2),
            _ => None,
        }
    }
}
