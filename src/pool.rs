//! Spare buffers, one of each kind per thread, for connections that take turns on it.
//!
//! Such connections work in memory that is still in the processor's cache, and hold little while they
//! wait. Reading and writing have a kind each, because their sizes differ. A connection that answers
//! would otherwise replace the buffer at each turn.

use std::{cell::Cell, thread::LocalKey};

use bytes::BytesMut;

/// Initial capacity of a buffer, as in `Framed`, and the smallest worth keeping.
pub const INITIAL_CAPACITY: usize = 8 * 1024;

thread_local! {
    /// For reading a batch of small blocks.
    static FOR_READING: Cell<Option<BytesMut>> = const { Cell::new(None) };
    /// For queueing blocks.
    static FOR_WRITING: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

pub(crate) const READ: Spare<BytesMut> = Spare(&FOR_READING);
pub(crate) const WRITE: Spare<Vec<u8>> = Spare(&FOR_WRITING);

/// A thread's spare buffer. It is empty: its old bytes are never read before they are overwritten.
pub(crate) struct Spare<B: 'static>(&'static LocalKey<Cell<Option<B>>>);

impl<B> Spare<B> {
    /// Takes the spare buffer if there is one that `serves` accepts.
    #[inline]
    pub(crate) fn take_if(&self, serves: impl FnOnce(&B) -> bool) -> Option<B> {
        // When a thread ends, its thread-locals may already be destroyed.
        let spare = self.0.try_with(Cell::take).ok()??;
        if serves(&spare) {
            return Some(spare);
        }
        self.put(spare);
        None
    }

    /// Returns an empty buffer to the pool, where it replaces the present one.
    #[inline]
    pub(crate) fn put(&self, buffer: B) {
        let _ = self.0.try_with(|slot| slot.set(Some(buffer)));
    }
}
