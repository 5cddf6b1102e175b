//! Statistics of transfers and transports.

use std::{fmt, ops, time::Duration};

const BYTES: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];

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
/// Returned by [`BlockTransport::stats`](crate::BlockTransport::stats).
///
/// `-` returns what moved between two of them, and `+=` adds up those of several connections:
///
/// ```
/// # use wholeblock::{BlockCodec, BlockError, BlockTransport, TransportStats};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BlockError> {
/// let mut total = TransportStats::default();
/// let wire = &b"\0\0\0\x03one\0\0\0\x03two"[..];
/// let mut blocks = BlockTransport::new(wire, BlockCodec::length_prefixed());
/// blocks.expect_next().await?;
/// let before = blocks.stats();
/// blocks.expect_next().await?;
/// assert_eq!((blocks.stats() - before).received_blocks, 1);
/// total += blocks.stats();
/// assert_eq!(
///     total.to_string(),
///     "received: 2 blocks, 14 B in 1 read, 0 fragmented blocks; sent: 0 blocks, 0 B in 0 writes",
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportStats {
    /// Whole blocks received, without skipped ones. A block that is read part by part counts at its end, even
    /// if its reader was dropped.
    pub received_blocks: u64,
    /// Wire bytes of the blocks received or skipped. They count at the end of their block, so what has
    /// arrived of a long block, or of one that is cut, is not in this number.
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

impl TransportStats {
    fn zip(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            received_blocks: with(self.received_blocks, other.received_blocks),
            received_bytes: with(self.received_bytes, other.received_bytes),
            reads: with(self.reads, other.reads),
            fragmented_blocks: with(self.fragmented_blocks, other.fragmented_blocks),
            skipped_blocks: with(self.skipped_blocks, other.skipped_blocks),
            sent_blocks: with(self.sent_blocks, other.sent_blocks),
            sent_bytes: with(self.sent_bytes, other.sent_bytes),
            writes: with(self.writes, other.writes),
        }
    }
}

impl ops::AddAssign for TransportStats {
    fn add_assign(&mut self, other: Self) {
        *self = self.zip(other, u64::wrapping_add);
    }
}

/// Returns what moved since `before`, an earlier value of the same transport.
impl ops::Sub for TransportStats {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        self.zip(before, u64::wrapping_sub)
    }
}

impl fmt::Display for TransportStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "received: {}, ", Counted(self.received_blocks, "block"))?;
        scaled(f, self.received_bytes as f64, &BYTES)?;
        let fragmented = Counted(self.fragmented_blocks, "fragmented block");
        write!(f, " in {}, {fragmented}", Counted(self.reads, "read"))?;
        if self.skipped_blocks > 0 {
            write!(f, ", {}", Counted(self.skipped_blocks, "skipped block"))?;
        }
        write!(f, "; sent: {}, ", Counted(self.sent_blocks, "block"))?;
        scaled(f, self.sent_bytes as f64, &BYTES)?;
        write!(f, " in {}", Counted(self.writes, "write"))
    }
}

impl fmt::Display for TransferStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        let bytes = self.payload_bytes as f64;
        write!(f, "{}, ", Counted(self.blocks, "block"))?;
        scaled(f, bytes, &BYTES)?;
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
    fn transport_statistics_are_subtracted_added_and_printed_field_by_field() {
        let numbers = |by: u64| TransportStats {
            received_blocks: by,
            received_bytes: 2_000 * by,
            reads: 3 * by,
            fragmented_blocks: 4 * by,
            skipped_blocks: 5 * by,
            sent_blocks: 6 * by,
            sent_bytes: 7_000_000 * by,
            writes: 8 * by,
        };
        assert_eq!(numbers(10) - numbers(9), numbers(1));
        let mut total = numbers(2);
        total += numbers(3);
        assert_eq!(total, numbers(5));
        assert_eq!(
            numbers(1).to_string(),
            "received: 1 block, 2 kB in 3 reads, 4 fragmented blocks, 5 skipped blocks; \
             sent: 6 blocks, 7 MB in 8 writes"
        );
        assert_eq!(
            TransportStats::default().to_string(),
            "received: 0 blocks, 0 B in 0 reads, 0 fragmented blocks; sent: 0 blocks, 0 B in 0 writes"
        );
    }

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
