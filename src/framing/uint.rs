//! Unsigned integers of 1 to 8 bytes, as headers hold them.

use bytes::BufMut;

/// Layout of an integer on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uint {
    /// Bytes, 1 to 8.
    pub(super) width: u8,
    pub(super) little_endian: bool,
}

impl Uint {
    /// Returns the largest value that fits.
    pub(super) fn max(self) -> u64 {
        u64::MAX >> (64 - 8 * u32::from(self.width))
    }

    /// Loads the integer at the front of `bytes`, which may hold more after it.
    #[inline]
    pub(super) fn load(self, bytes: &[u8]) -> u64 {
        // One load of 8 bytes serves any width: the shift drops the bytes after the integer.
        let word = match bytes.first_chunk::<8>() {
            Some(word) => *word,
            None => zero_extend(bytes),
        };
        let shift = 64 - 8 * u32::from(self.width);
        if self.little_endian {
            u64::from_le_bytes(word) << shift >> shift
        } else {
            u64::from_be_bytes(word) >> shift
        }
    }

    /// Appends `value`, which must fit, to `dst`.
    #[inline]
    pub(super) fn store(self, value: u64, dst: &mut impl BufMut) {
        let width = usize::from(self.width);
        if self.little_endian {
            dst.put_uint_le(value, width);
        } else {
            dst.put_uint(value, width);
        }
    }
}

/// Extends fewer than 8 `bytes` with zeros at the end.
#[cold]
fn zero_extend(bytes: &[u8]) -> [u8; 8] {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    word
}
