use bytes::BytesMut;

/// Small blocks are read in batches of up to this many bytes. 64 KiB is where larger reads stop
/// paying for their system call, and two such buffers still fit a core's second-level cache.
const BATCH: usize = 64 * 1024;

/// The smallest buffer worth keeping: what `Framed` starts with.
pub(crate) const SMALLEST: usize = 8 * 1024;

/// A buffer that holds one block of the largest retained size has room for its header too.
pub(crate) const HEADER_ROOM: usize = 64;

/// What a buffer may keep between blocks, in payload bytes, unless configured: enough that blocks
/// of up to 1 MiB are received without an allocation each.
const DEFAULT_MAX_RETAINED: usize = 1024 * 1024;

/// How large the read buffer may be: what arriving bytes have earned, and no more.
#[derive(Debug)]
pub(crate) struct Room {
    /// The most capacity a buffer may keep between blocks.
    pub(crate) max_capacity: usize,
    /// The largest buffer that arriving bytes have earned so far; 0 before any came.
    earned: usize,
    /// Whether the last read filled the buffer.
    filled: bool,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            max_capacity: DEFAULT_MAX_RETAINED + HEADER_ROOM,
            earned: 0,
            filled: false,
        }
    }
}

impl Room {
    pub(crate) fn set_max_retained(&mut self, payload_len: usize) {
        self.max_capacity = payload_len.max(SMALLEST).saturating_add(HEADER_ROOM);
    }

    /// Takes note that a read has brought bytes.
    pub(crate) fn note_read(&mut self, src: &BytesMut) {
        self.earned = self.earned.max(src.capacity());
        self.filled = src.len() == src.capacity();
    }

    /// Makes room for the next read to bring the block at the front, of `need` bytes on the wire,
    /// as far as arriving bytes have earned it.
    ///
    /// `Framed` reads into whatever spare capacity there is, so the capacity decides how far a
    /// read goes: to the end of one large block, so that nothing has to be moved afterwards, or
    /// over a batch of small ones.
    pub(crate) fn make(&mut self, src: &mut BytesMut, need: usize) {
        let filled = std::mem::take(&mut self.filled);
        if filled {
            let doubled = self.earned.saturating_mul(2).min(need.max(self.batch()));
            self.earned = self.earned.max(doubled);
        }

        let mut want = self.window(need);
        if src.is_empty() && want > self.max_capacity {
            // Between blocks: nothing of the next one has come, so nothing is kept for it.
            want = self.batch();
        }

        let spare = src.capacity() - src.len();
        let enough = if filled || want <= need {
            src.capacity() >= want
        } else {
            // Reads of less than a quarter of a batch cost more in system calls than moving the
            // left-over of one block does.
            src.capacity() >= need && spare >= want / 4
        };
        if !enough && !src.try_reclaim(want.saturating_sub(src.len())) {
            let mut fresh = BytesMut::with_capacity(want);
            fresh.extend_from_slice(src);
            *src = fresh;
        }
        if want == need && want > BATCH / 2 && src.capacity() > want {
            // Not a split but a shorter view: `try_reclaim` takes the rest back.
            drop(src.split_off(want));
        }
    }

    /// Bytes to read at once of blocks that are smaller.
    fn batch(&self) -> usize {
        BATCH.min(self.max_capacity - HEADER_ROOM)
    }

    /// The capacity to read into for blocks of `need` bytes on the wire: one large block, or as
    /// many whole small ones as fit a batch, so that a full read leaves nothing over.
    fn window(&self, need: usize) -> usize {
        let batch = self.earned.min(self.batch());
        if need > batch {
            need.min(self.earned)
        } else {
            batch - batch % need.max(1)
        }
    }
}
