//! What the benchmarks share: the contenders, what they move, in which order they run, and the
//! tables that come of it.

pub(crate) mod contenders;
pub(crate) mod load;
pub(crate) mod memory;
pub(crate) mod raw;
pub(crate) mod run;
pub(crate) mod stats;
pub(crate) mod system;

use std::{collections::BTreeMap, sync::Mutex};

use bytes::{BufMut, BytesMut};

/// A payload of `size` bytes. Of one repeated byte: nothing measured here depends on its content.
///
/// It is static, so that a source makes a `Bytes` of it without an atomic operation or a call,
/// whoever's the source: what is measured is the codecs, not a reference count. Its buffer is
/// leaked for that, one for each size.
pub(crate) fn payload(size: usize) -> &'static [u8] {
    static MADE: Mutex<BTreeMap<usize, &'static [u8]>> = Mutex::new(BTreeMap::new());

    let mut made = MADE.lock().expect("a lock that nothing panics under");
    made.entry(size).or_insert_with(|| vec![b'a'; size].leak())
}

/// A block of `size` bytes as it stands on the wire, behind a big-endian u32 if `prefixed`.
pub(crate) fn wire(size: usize, prefixed: bool) -> Vec<u8> {
    let mut wire = BytesMut::new();
    if prefixed {
        wire.put_u32(u32::try_from(size).expect("a size that fits the prefix"));
    }
    wire.put_slice(payload(size));
    wire.to_vec()
}
