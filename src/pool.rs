//! Spare buffers: one of each kind a thread, for connections that take turns on it.
//!
//! Such connections work in memory that is still in the processor's cache, and hold little while they
//! wait. A connection that reads and one that writes each leave their own kind. With a single one, an end that
//! answers would exchange it at each turn for a buffer of another size.

use std::{cell::Cell, thread::LocalKey};

use bytes::BytesMut;

/// Capacity with which a buffer begins, and the smallest worth keeping: what `Framed` begins with.
pub const INITIAL_CAPACITY: usize = 8 * 1024;

thread_local! {
    /// To read a batch of small blocks into.
    static FOR_READING: Cell<Option<BytesMut>> = const { Cell::new(None) };
    /// To queue blocks in.
    static FOR_WRITING: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

pub(crate) const READ: Spare<BytesMut> = Spare(&FOR_READING);
pub(crate) const WRITE: Spare<Vec<u8>> = Spare(&FOR_WRITING);

/// A thread's spare buffer. It is empty: its bytes are never read again before they have been written
/// over.
pub(crate) struct Spare<B: 'static>(&'static LocalKey<Cell<Option<B>>>);

impl<B> Spare<B> {
    /// Takes the spare buffer, if there is one and it serves.
    pub(crate) fn take_if(&self, serves: impl FnOnce(&B) -> bool) -> Option<B> {
        // A thread that is coming to its end has none any more.
        let spare = self.0.try_with(Cell::take).ok()??;
        if serves(&spare) {
            return Some(spare);
        }
        self.put(spare);
        None
    }

    /// Keeps an empty buffer for the next to ask. It replaces the one that is there.
    pub(crate) fn put(&self, buffer: B) {
        let _ = self.0.try_with(|slot| slot.set(Some(buffer)));
    }
}
