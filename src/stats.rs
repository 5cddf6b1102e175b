//! Statistics of transfers and transports.

use std::{fmt, time::Duration};

/// Statistics of a transfer: blocks, bytes, and reads or writes.
///
/// ```
/// # use futures::stream;
/// # use tokio::io::AsyncReadExt;
/// # use wholeblock::{BlockCodec, BlockTransport, LengthPrefix, recv_blocks, send_blocks};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), wholeblock::BlockError> {
/// let in_two_reads = (&b"\x03one\x03t"[..]).chain(&b"wo\x05three"[..]);
/// let mut receiver = BlockTransport::new(in_two_reads, BlockCodec::new(LengthPrefix::u8()));
/// let mut blocks = recv_blocks(&mut receiver);
/// while let Some(_block) = blocks.next().await? {}
/// let received = blocks.stats();
/// assert_eq!((received.blocks, received.payload_bytes, received.wire_bytes), (3, 11, 14));
/// assert_eq!((received.reads, received.fragmented_blocks), (2, 1)); // "two" came in two pieces
///
/// let mut sender = BlockTransport::new(vec![], BlockCodec::new(LengthPrefix::u8()));
/// let sent = send_blocks(&mut sender, stream::iter(["one", "two", "three"])).await?;
/// assert_eq!((sent.blocks, sent.wire_bytes, sent.writes), (3, 14, 1));
/// # Ok(())
/// # }
/// ```
///
/// They print as one line:
///
/// ```
/// # use std::time::Duration;
/// let mut stats = wholeblock::TransferStats::default();
/// stats.blocks = 100;
/// stats.payload_bytes = 5_120_000; // 51,200 each
/// stats.reads = 143;
/// stats.fragmented_blocks = 43;
/// stats.elapsed = Duration::from_micros(3_100);
/// assert_eq!(
///     stats.to_string(),
///     "100 blocks, 5.12 MB in 3.10 ms (1.65 GB/s), 143 reads, 43 fragmented blocks",
/// );
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransferStats {
    /// Whole blocks received, or wholly handed to the transport.
    pub blocks: u64,
    /// Payload bytes of these blocks.
    pub payload_bytes: u64,
    /// Payload and header bytes of these blocks and of skipped ones.
    pub wire_bytes: u64,
    /// Reads that brought bytes; 0 for a sender.
    pub reads: u64,
    /// Writes that took bytes; 0 for a receiver.
    pub writes: u64,
    /// Blocks that arrived over more than one read; 0 for a sender.
    pub fragmented_blocks: u64,
    /// Blocks over the limit that were [skipped](crate::BlockCodec::skip_too_large); 0 for a sender.
    pub skipped_blocks: u64,
    /// Time from a receiver's first wait for a block, or from when a sender is first awaited, until now or
    /// the end of the transfer. Waiting for the peer or the source counts.
    pub elapsed: Duration,
}

/// Statistics of a [`BlockTransport`](crate::BlockTransport) in both directions, since its codec was made.
/// The difference between two of them is what moved in between.
///
/// Returned by [`BlockTransport::stats`](crate::BlockTransport::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportStats {
    /// Whole blocks received, without skipped ones.
    pub received_blocks: u64,
    /// Wire bytes of the blocks received or skipped.
    pub received_bytes: u64,
    /// Reads that brought bytes.
    pub reads: u64,
    /// Blocks that arrived over more than one read.
    pub fragmented_blocks: u64,
    /// Blocks over the limit that were skipped.
    pub skipped_blocks: u64,
    /// Blocks accepted for sending. Some of them may still be [queued](crate::BlockTransport::queued).
    pub sent_blocks: u64,
    /// Wire bytes that the transport below has taken.
    pub sent_bytes: u64,
    /// Writes that took bytes.
    pub writes: u64,
}

impl fmt::Display for TransferStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        let bytes = self.payload_bytes as f64;
        write!(f, "{}, ", Counted(self.blocks, "block"))?;
        scaled(f, bytes, &["B", "kB", "MB", "GB", "TB"])?;
        f.write_str(" in ")?;
        scaled(f, self.elapsed.as_micros() as f64, &["µs", "ms", "s"])?;
        if seconds > 0.0 {
            f.write_str(" (")?;
            scaled(f, bytes / seconds, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"])?;
            f.write_str(")")?;
        }
        if self.reads > 0 {
            let fragmented = Counted(self.fragmented_blocks, "fragmented block");
            write!(f, ", {}, {fragmented}", Counted(self.reads, "read"))?;
        }
        if self.skipped_blocks > 0 {
            write!(f, ", {}", Counted(self.skipped_blocks, "skipped block"))?;
        }
        if self.writes > 0 {
            write!(f, ", {}", Counted(self.writes, "write"))?;
        }
        Ok(())
    }
}

/// Writes `value` in the largest unit in which it is 1 or more when rounded. Each of `units` is 1,000
/// times the one before.
fn scaled(f: &mut fmt::Formatter<'_>, mut value: f64, units: &[&str]) -> fmt::Result {
    let mut unit = 0;
    while value >= 999.995 && unit + 1 < units.len() {
        value /= 1e3;
        unit += 1;
    }
    let digits = format!("{value:.2}");
    let digits = digits.strip_suffix(".00").unwrap_or(&digits);
    write!(f, "{digits} {}", units[unit])
}

/// A number and what it counts.
struct Counted(u64, &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = self;
        let plural = if *count == 1 { "" } else { "s" };
        write!(f, "{count} {noun}{plural}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_in_the_unit_that_keeps_them_below_1000() {
        for (payload_bytes, micros, line) in [
            (0, 0, "0 blocks, 0 B in 0 µs"),
            (999, 999, "0 blocks, 999 B in 999 µs (1 MB/s)"),
            (
                999_990,
                999_990,
                "0 blocks, 999.99 kB in 999.99 ms (1 MB/s)",
            ),
            (999_996, 999_996, "0 blocks, 1 MB in 1 s (1 MB/s)"),
            (1_000_000, 1_000_000, "0 blocks, 1 MB in 1 s (1 MB/s)"),
            (5_120_000, 4_830, "0 blocks, 5.12 MB in 4.83 ms (1.06 GB/s)"),
            (
                1 << 50,
                3_600_000_000,
                "0 blocks, 1125.90 TB in 3600 s (312.75 GB/s)",
            ),
        ] {
            let stats = TransferStats {
                payload_bytes,
                elapsed: Duration::from_micros(micros),
                ..TransferStats::default()
            };
            assert_eq!(stats.to_string(), line);
        }
    }

    #[test]
    fn count_of_1_is_singular() {
        let stats = TransferStats {
            blocks: 1,
            reads: 1,
            writes: 1,
            fragmented_blocks: 1,
            skipped_blocks: 1,
            ..TransferStats::default()
        };
        let line = "1 block, 0 B in 0 µs, 1 read, 1 fragmented block, 1 skipped block, 1 write";
        assert_eq!(stats.to_string(), line);
    }
}
