//! The requests: each block contains a number that identifies its answer.

use std::hint::black_box;

use anyhow::{Context, ensure};
use bytes::Bytes;
use support::load::{PAYLOAD, SHARED, Source};

/// Bytes of the number at the front of each payload.
pub(crate) const NUMBER_LEN: usize = size_of::<u64>();

/// Payloads of one size. At the end of the shared buffer, they start again, with the same numbers.
#[derive(Clone, Debug)]
pub(crate) struct Payloads {
    /// All payloads, one after the other.
    shared: Bytes,
    size: usize,
    source: Source,
}

impl Payloads {
    /// Makes a multiple of `distinct` payloads, so that `distinct` payloads in a row have different numbers.
    pub(crate) fn new(size: usize, source: Source, distinct: usize) -> Self {
        let count = (SHARED / size).max(1).next_multiple_of(distinct);
        let mut shared = vec![PAYLOAD; count * size];
        for (number, payload) in shared.chunks_exact_mut(size).enumerate() {
            payload[..NUMBER_LEN].copy_from_slice(&(number as u64).to_be_bytes());
        }
        Self {
            // Sliced and hidden from the compiler for the reasons that `Load::source` gives.
            shared: black_box(Bytes::from(shared).slice(..)),
            size,
            source,
        }
    }

    /// Payload `n`. Not inlined, for the reason that `Blocks::next` gives.
    #[inline(never)]
    pub(crate) fn payload(&self, n: u64) -> Bytes {
        let start = self.number(n) as usize * self.size;
        let place = start..start + self.size;
        match self.source {
            Source::Fresh => Bytes::from(self.shared[place].to_vec()),
            _ => self.shared.slice(place),
        }
    }

    /// The number that payload `n` carries.
    pub(crate) fn number(&self, n: u64) -> u64 {
        n % (self.shared.len() / self.size) as u64
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The number at the front of `block`.
    pub(crate) fn number_in(&self, block: &[u8]) -> anyhow::Result<u64> {
        let (len, size) = (block.len(), self.size);
        ensure!(len == size, "a block of {len} bytes instead of {size}");
        let number = block.first_chunk().context("a block without a number")?;
        Ok(u64::from_be_bytes(*number))
    }

    /// Fails unless `block` carries the number of payload `n` and is as long.
    pub(crate) fn check(&self, n: u64, block: &[u8]) -> anyhow::Result<()> {
        let (number, expected) = (self.number_in(block)?, self.number(n));
        ensure!(number == expected, "block {number} instead of {expected}");
        Ok(())
    }
}
