//! [`check_framing`]: checks a framing against the contract.

use bytes::BufMut;

use super::{Framing, Header};

/// Number of random fronts that the framing parses, and bytes of each.
const FRONTS: usize = 2_000;
const FRONT_LEN: usize = 40;

/// The longest payload that is made up to be read back behind its header.
const MAX_MADE_UP: u64 = 64 * 1024;

/// A rule of the contract that a framing breaks, and a case that shows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {case}")]
pub struct ContractViolation {
    rule: &'static str,
    case: String,
}

/// Checks your own framing against the contract of [`Framing`], with headers that it writes and with
/// made-up ones. Call this in a test.
///
/// The result is the same each time. It takes some milliseconds.
///
/// ```
/// use bytes::BufMut;
/// use wholeblock::{Framing, Header, InvalidHeader, LengthPrefix, check_framing};
///
/// check_framing(&LengthPrefix::u16())?;
///
/// /// Writes a byte, whatever the length.
/// #[derive(Clone)]
/// struct Short;
///
/// impl Framing for Short {
///     fn block_lens(&self) -> std::ops::RangeInclusive<u64> {
///         0..=256 // one too many
///     }
///
///     fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
///         Ok(match front.first() {
///             Some(&len) => Header::Complete { stripped: 1, block_len: len.into() },
///             None => Header::Incomplete { at_least: 1 },
///         })
///     }
///
///     fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
///         dst.put_u8(block_len as u8);
///     }
/// }
///
/// assert_eq!(
///     check_framing(&Short).unwrap_err().to_string(),
///     "a header reads back as what it was written for: [0], written for 256 bytes, reads as \
///      Ok(Complete { stripped: 1, block_len: 0 })",
/// );
/// # Ok::<(), wholeblock::ContractViolation>(())
/// ```
///
/// # Errors
///
/// The first rule that the framing is found to break. A framing without an error may still be wrong for
/// headers that were not tried.
pub fn check_framing<F: Framing>(framing: &F) -> Result<(), ContractViolation> {
    framing.keeps_contract()
}

/// Checks a framing. `carried` rounds a block length down to one that the framing carries.
pub(super) fn check<F: Framing>(
    framing: &F,
    carried: impl Fn(u64) -> u64,
) -> Result<(), ContractViolation> {
    let lens = framing.block_lens();
    let (min, max) = (*lens.start(), *lens.end());
    ensure(min <= max, "it carries some length", || format!("{lens:?}"))?;

    let mut random = Random(0);
    for len in lens_between(min, max, &mut random) {
        let len = carried(len);
        let mut front = Vec::new();
        framing.encode_header(len, &mut front);
        check_written(framing, &front, len)?;
        front.put_slice(&random.bytes(FRONT_LEN));
        check_growing(framing, &front)?;
    }
    for _ in 0..FRONTS {
        let front = random.bytes(FRONT_LEN);
        if let Some((stripped, block_len)) = check_growing(framing, &front)? {
            if block_len <= MAX_MADE_UP && lens.contains(&block_len) {
                let mut block = front[stripped..].to_vec();
                block.resize(block_len as usize, 0);
                check_rewritten(framing, &block)?;
            }
        }
    }
    Ok(())
}

/// Checks the header that was written for `len` bytes, as far as possible without the payload.
fn check_written<F: Framing>(
    framing: &F,
    header: &[u8],
    len: u64,
) -> Result<(), ContractViolation> {
    let rule = "a block has at least one byte on the wire";
    ensure(!header.is_empty() || len > 0, rule, || {
        "an empty one".to_owned()
    })?;
    let read = framing.decode_header(header);
    let reads_back = match read {
        // The kept rest of the header comes with the payload.
        Ok(Header::Incomplete { .. }) => len > 0,
        read => read == complete(header.len(), len),
    };
    let rule = "a header reads back as what it was written for";
    ensure(reads_back, rule, || {
        format!("{header:?}, written for {len} bytes, reads as {read:?}")
    })
}

/// Checks that a block that can be received can be sent.
fn check_rewritten<F: Framing>(framing: &F, payload: &[u8]) -> Result<(), ContractViolation> {
    let mut block = Vec::new();
    framing.encode_header(payload.len() as u64, &mut block);
    let header_len = block.len();
    block.put_slice(payload);
    let read = framing.decode_header(&block);
    let rule = "a block that can be received can be sent";
    ensure(
        read == complete(header_len, payload.len() as u64),
        rule,
        || {
            let front = &block[..block.len().min(FRONT_LEN)];
            format!("{front:?}, of {} bytes, reads as {read:?}", payload.len())
        },
    )
}

/// Checks how the framing reads `front` as it arrives byte by byte. Returns the lengths of the header
/// and the payload if the framing finds them.
fn check_growing<F: Framing>(
    framing: &F,
    front: &[u8],
) -> Result<Option<(usize, u64)>, ContractViolation> {
    let mut decided = None;
    let mut expected = 0;
    for arrived in 0..=front.len() {
        let read = framing.decode_header(&front[..arrived]);
        let case = || format!("{:?} reads as {read:?}", &front[..arrived]);
        if let Some(before) = decided {
            let rule = "what follows a header does not change how it reads";
            ensure(read == before, rule, case)?;
            continue;
        }
        match read {
            Ok(Header::Incomplete { at_least }) => {
                let rule = "an incomplete header asks for more than is there";
                ensure(at_least > arrived, rule, case)?;
                let rule = "a header is not longer than its framing allows";
                ensure(at_least <= framing.max_header_len(), rule, case)?;
                expected = expected.max(at_least);
                continue;
            }
            Ok(Header::Complete { stripped, .. }) => {
                let rule = "a header is not complete before it is there";
                ensure(stripped <= arrived, rule, case)?;
                let rule = "a header is not shorter than was said before";
                ensure(arrived >= expected, rule, case)?;
            }
            Err(_) => {}
        }
        decided = Some(read);
    }
    Ok(match decided {
        Some(Ok(Header::Complete {
            stripped,
            block_len,
        })) => Some((stripped, block_len)),
        _ => None,
    })
}

/// Returns lengths from `min` to `max`: both bounds, those around each power of two, and some others.
fn lens_between(min: u64, max: u64, random: &mut Random) -> Vec<u64> {
    let powers = (0..u64::BITS).map(|bit| 1 << bit);
    let mut lens: Vec<u64> = powers.flat_map(|p: u64| [p - 1, p, p + 1]).collect();
    lens.extend([min, min.saturating_add(1), max.saturating_sub(1), max]);
    for bit in 0..u64::BITS {
        lens.push(random.next() >> bit);
    }
    lens.retain(|len| (min..=max).contains(len));
    lens.sort_unstable();
    lens.dedup();
    lens
}

fn complete(stripped: usize, block_len: u64) -> Result<Header, super::InvalidHeader> {
    Ok(Header::Complete {
        stripped,
        block_len,
    })
}

fn ensure(
    holds: bool,
    rule: &'static str,
    case: impl FnOnce() -> String,
) -> Result<(), ContractViolation> {
    match holds {
        true => Ok(()),
        false => Err(ContractViolation { rule, case: case() }),
    }
}

/// SplitMix64: the same numbers each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns bytes as in headers: half are zero, some are small, and some are 0xff.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let byte = |random: u64| match random % 8 {
            0..4 => 0,
            4 => 0xff,
            5 => (random >> 8) as u8 % 8,
            _ => (random >> 8) as u8,
        };
        (0..len).map(|_| byte(self.next())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_match_those_published_for_split_mix_64() {
        let mut random = Random(0);
        let published = [
            0xe220_a839_7b1d_cdaf,
            0x6e78_9e6a_a1b9_65f4,
            0x06c4_5d18_8009_454f,
        ];
        assert_eq!([(); 3].map(|()| random.next()), published);
    }

    #[test]
    fn random_bytes_are_half_zeros_and_some_are_small_or_all_ones() {
        let bytes = Random(0).bytes(8_000);
        let count = |range: std::ops::RangeInclusive<u8>| {
            bytes.iter().filter(|byte| range.contains(byte)).count()
        };
        // In eighths: four of zeros, one of ones, one below eight, and two of anything.
        assert_eq!(bytes.len(), 8_000);
        for (range, about) in [
            (0..=0, 4_133),
            (1..=7, 930),
            (8..=254, 1_929),
            (255..=255, 1_008),
        ] {
            let seen = count(range.clone());
            assert!(seen.abs_diff(about) < 150, "{range:?}: {seen} times");
        }
    }

    #[test]
    fn lens_between_tries_both_bounds_and_each_side_of_powers_of_two() {
        let lens = lens_between(6, 1_000, &mut Random(0));
        let powers = [
            7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257,
        ];
        for len in [6, 511, 512, 513, 999, 1_000].into_iter().chain(powers) {
            assert!(lens.contains(&len), "{len} of {lens:?}");
        }
        assert!(lens.is_sorted_by(|one, other| one < other), "{lens:?}");
        assert!(lens.iter().all(|len| (6..=1_000).contains(len)), "{lens:?}");
        let others = lens.len() - powers.len() - 6;
        assert!(others >= 4, "{others} others in {lens:?}");
        assert_eq!(lens_between(0, 0, &mut Random(0)), [0]);
        let all = lens_between(0, u64::MAX, &mut Random(0));
        assert_eq!(all.last(), Some(&u64::MAX));
    }
}
