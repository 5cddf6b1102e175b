//! The receiver's end.

use std::time::Duration;

use anyhow::ensure;
use fastrand::Rng;
use futures::StreamExt;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use wholeblock::{AnyFraming, AsFramedRead, BlockCodec, BlockError, BlockTransport, recv_blocks};

use crate::{
    plan::{DEADLINE, Fault, STALL, Way},
    send::reset,
    session::Session,
    tally::Met,
};

#[derive(Debug)]
pub(crate) enum Ended {
    Cleanly,
    By(BlockError),
    /// It has closed the connection itself.
    Left,
}

pub(crate) struct Receiver<'a> {
    session: &'a Session,
    received: u64,
    has_stalled: bool,
    random: Rng,
}

impl<'a> Receiver<'a> {
    pub(crate) fn new(session: &'a Session) -> Self {
        Self {
            session,
            received: 0,
            has_stalled: false,
            random: session.random(),
        }
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Receives until the end, in the form that is planned; fails if a block is not what it should
    /// be.
    pub(crate) async fn receive(&mut self, socket: TcpStream) -> anyhow::Result<Ended> {
        let plan = &self.session.plan;
        let mut transport = timed(BlockTransport::new(socket, BlockCodec::new(plan.framing)));
        loop {
            let (way, framed, most) = plan.receiving.next(&mut self.random);
            let until = self.received.saturating_add(most);
            let ended = if framed {
                let mut framed = transport.into_framed();
                let ended = self.receive_by(way, &mut framed, until).await?;
                transport = timed(framed.into());
                ended
            } else {
                self.receive_by(way, &mut transport, until).await?
            };
            if let Some(ended) = ended {
                if let Ended::Left = ended {
                    reset(transport.into_inner())?;
                }
                return Ok(ended);
            }
        }
    }

    /// Receives in one way, until it has `until` blocks in all. None if there may be more.
    async fn receive_by<R>(
        &mut self,
        way: Way,
        framed: &mut R,
        until: u64,
    ) -> anyhow::Result<Option<Ended>>
    where
        R: AsFramedRead<Error = BlockError>,
    {
        match way {
            Way::Stream => self.stream(framed, until).await,
            Way::Lent => self.lent(framed, until).await,
            Way::Batches => self.batches(framed, until).await,
        }
    }

    async fn stream<R>(&mut self, framed: &mut R, until: u64) -> anyhow::Result<Option<Ended>>
    where
        R: AsFramedRead<Error = BlockError>,
    {
        while self.received < until {
            if self.leaves().await {
                return Ok(Some(Ended::Left));
            }
            match self.wait(framed.next()).await {
                Some(Some(Ok(block))) => self.see(&block)?,
                Some(Some(Err(error))) if !self.goes_on_after(&error) => {
                    return Ok(Some(Ended::By(error)));
                }
                Some(None) => return Ok(Some(Ended::Cleanly)),
                Some(Some(Err(_))) | None => {}
            }
        }
        Ok(None)
    }

    async fn lent<R>(&mut self, framed: &mut R, until: u64) -> anyhow::Result<Option<Ended>>
    where
        R: AsFramedRead<Error = BlockError>,
    {
        let blocks = recv_blocks(framed).stall_timeout(STALL);
        let mut blocks = blocks.block_deadline(DEADLINE);
        while self.received < until {
            if self.leaves().await {
                return Ok(Some(Ended::Left));
            }
            match self.wait(blocks.next()).await {
                Some(Ok(Some(block))) => self.see(block)?,
                Some(Ok(None)) => return Ok(Some(Ended::Cleanly)),
                Some(Err(error)) if !self.goes_on_after(&error) => {
                    return Ok(Some(Ended::By(error)));
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(None)
    }

    async fn batches<R>(&mut self, framed: &mut R, until: u64) -> anyhow::Result<Option<Ended>>
    where
        R: AsFramedRead<Error = BlockError>,
    {
        let blocks = recv_blocks(framed).stall_timeout(STALL);
        let mut blocks = blocks.block_deadline(DEADLINE);
        while self.received < until {
            if self.leaves().await {
                return Ok(Some(Ended::Left));
            }
            match self.wait(blocks.next_batch()).await {
                Some(Ok(Some(batch))) => {
                    let most = until - self.received;
                    for block in batch.take(most.try_into().unwrap_or(usize::MAX)) {
                        self.see(block)?;
                    }
                }
                Some(Ok(None)) => return Ok(Some(Ended::Cleanly)),
                Some(Err(error)) if !self.goes_on_after(&error) => {
                    return Ok(Some(Ended::By(error)));
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(None)
    }

    /// None if it was cancelled.
    async fn wait<T>(&self, arrival: impl Future<Output = T>) -> Option<T> {
        if self.session.plan.fault != Fault::CancelledWaits {
            return Some(arrival.await);
        }
        let arrived = timeout(Duration::from_millis(1), arrival).await;
        if arrived.is_err() {
            self.session.tally.add(Met::CancelledWait, 1);
        }
        arrived.ok()
    }

    /// Stalls, if it is time for that, and says whether it is time to leave.
    async fn leaves(&mut self) -> bool {
        let plan = &self.session.plan;
        if self.received < plan.at {
            return false;
        }
        if plan.fault == Fault::ReceiverStalls && !self.has_stalled {
            self.has_stalled = true;
            sleep(STALL * 2).await;
        }
        plan.fault == Fault::ResetByReceiver
    }

    /// Fails unless this block is the next one.
    fn see(&mut self, block: &[u8]) -> anyhow::Result<()> {
        let index = self.received;
        ensure!(
            index < self.session.plan.blocks,
            "block {index} was never sent"
        );
        let sent = self.session.block(index);
        ensure!(
            sent == block,
            "block {index}, of {} bytes, came as another, of {}",
            sent.len(),
            block.len()
        );
        self.received += 1;
        self.session.tally.add(Met::Block, 1);
        self.session.tally.add(Met::Byte, block.len() as u64);
        Ok(())
    }

    fn goes_on_after(&self, error: &BlockError) -> bool {
        let met = match error {
            BlockError::Stalled { .. } => Met::StalledReceiver,
            BlockError::Late { .. } => Met::LateBlock,
            _ => return false,
        };
        self.session.tally.add(met, 1);
        true
    }
}

fn timed(
    transport: BlockTransport<TcpStream, AnyFraming>,
) -> BlockTransport<TcpStream, AnyFraming> {
    transport.stall_timeout(STALL).block_deadline(DEADLINE)
}
