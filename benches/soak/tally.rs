//! What has happened so far, on all connections.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use crate::support::stats::grouped;

/// What is met with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Met {
    /// A block that was received as it was sent.
    Block,
    Byte,
    Reconnection,
    Pause,
    CancelledWait,
    StalledReceiver,
    StalledSender,
    LateBlock,
    Truncation,
    Reset,
    FailedWrite,
    BadHeader,
}

impl Met {
    const ALL: [Self; 12] = [
        Self::Block,
        Self::Byte,
        Self::Reconnection,
        Self::Pause,
        Self::CancelledWait,
        Self::StalledReceiver,
        Self::StalledSender,
        Self::LateBlock,
        Self::Truncation,
        Self::Reset,
        Self::FailedWrite,
        Self::BadHeader,
    ];
}

#[derive(Debug)]
pub(crate) struct Tally {
    counts: [AtomicU64; Met::ALL.len()],
    started: Instant,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            counts: Default::default(),
            started: Instant::now(),
        }
    }
}

impl Tally {
    pub(crate) fn add(&self, met: Met, count: u64) {
        self.counts[met as usize].fetch_add(count, Ordering::Relaxed);
    }

    fn count(&self, met: Met) -> u64 {
        self.counts[met as usize].load(Ordering::Relaxed)
    }

    /// What has not happened once.
    pub(crate) fn unmet(&self) -> Vec<Met> {
        let mut all = Met::ALL.to_vec();
        all.retain(|&met| self.count(met) == 0);
        all
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "after {:.0?}, every block as it was sent:",
            self.started.elapsed()
        )?;
        for met in Met::ALL {
            let name = format!("{met:?}");
            writeln!(f, "  {name:<16} {:>20}", grouped(self.count(met) as usize))?;
        }
        Ok(())
    }
}
