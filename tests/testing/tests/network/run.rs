//! What all hosts of one run share: the seed's choices, the tally, and the servers' disks, which
//! survive a crash.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ops::RangeInclusive,
};

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use wholeblock::{AnyFraming, Exact, LengthField, LengthPrefix, Varint};

use crate::block;

pub(crate) const SERVERS: usize = 2;
pub(crate) const CLIENTS: usize = 3;

/// Blocks that each client has to bring to its server.
pub(crate) const BLOCKS: u64 = 60;

/// How often each event was met.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

pub(crate) struct Run {
    rng: RefCell<SmallRng>,
    tally: RefCell<Tally>,
    pub(crate) framing: AnyFraming,
    /// Bytes of a header, or `None` if they depend on the block's length.
    header_len: Option<usize>,
    /// The length of every block, if the framing allows only one.
    block_len: Option<usize>,
    /// Blocks that are acknowledged together.
    window: u64,
    /// A disk for each client.
    pub(crate) disks: Vec<Disk>,
    pub(crate) done: Vec<Cell<bool>>,
}

/// What a server keeps of a client.
#[derive(Default)]
pub(crate) struct Disk {
    blocks: RefCell<Vec<Bytes>>,
    /// The client's last connection. What comes by an earlier one is not recorded.
    pub(crate) connection: Cell<u64>,
}

impl Run {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut block_len = None;
        let (framing, header_len): (AnyFraming, _) = match rng.random_range(0..6) {
            0 => {
                let len = [block::MIN_LEN, 61, 1_500, 5_000][rng.random_range(0..4)];
                block_len = Some(len);
                (Exact::new(len).unwrap().into(), Some(0))
            }
            1 => (LengthPrefix::u16().into(), Some(2)),
            2 => (LengthPrefix::u32().little_endian().into(), Some(4)),
            3 => (LengthPrefix::u64().into(), Some(8)),
            4 => (Varint::new().into(), None),
            _ => {
                let field = LengthField::config().offset(3).width(3).build().unwrap();
                (field.into(), Some(6))
            }
        };
        let window = rng.random_range(1..=16);
        Self {
            rng: RefCell::new(rng),
            tally: RefCell::default(),
            framing,
            header_len,
            block_len,
            window,
            disks: (0..CLIENTS).map(|_| Disk::default()).collect(),
            done: (0..CLIENTS).map(|_| Cell::new(false)).collect(),
        }
    }

    pub(crate) fn pick(&self, range: RangeInclusive<u64>) -> u64 {
        self.rng.borrow_mut().random_range(range)
    }

    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.pick(1..=n) == 1
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.tally.borrow_mut().entry(what).or_default() += 1;
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    /// Picks a length for a block: most are short, and some leave without a copy.
    pub(crate) fn pick_len(&self) -> usize {
        let shortest = block::MIN_LEN as u64;
        let len = match self.pick(0..=9) {
            0..=6 => self.pick(shortest..=200),
            7 | 8 => self.pick(200..=2_000),
            _ => self.pick(4_096..=block::MAX_LEN as u64),
        };
        self.block_len.unwrap_or(len as usize)
    }

    /// Bytes of the header before a payload of `payload_len` bytes.
    pub(crate) fn header_len(&self, payload_len: usize) -> usize {
        let varint = || (1..).find(|len| payload_len >> (7 * len) == 0).unwrap();
        self.header_len.unwrap_or_else(varint)
    }

    /// The end of the window of block `number - 1`. A window is acknowledged once its last block is
    /// recorded.
    pub(crate) fn until(&self, number: u64) -> u64 {
        BLOCKS.min(number.next_multiple_of(self.window))
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.iter().all(Cell::get)
    }

    /// Asserts that every block of every client is recorded, once, in order, and as it was sent.
    pub(crate) fn check_disks(&self) {
        for (client, disk) in self.disks.iter().enumerate() {
            let blocks = disk.blocks.borrow();
            assert_eq!(blocks.len() as u64, BLOCKS, "blocks of client {client}");
            for (number, recorded) in blocks.iter().enumerate() {
                let found = block::number(client as u64, recorded);
                assert_eq!(found, Some(number as u64), "a block of client {client}");
            }
        }
    }
}

impl Disk {
    /// The number of the block that is wanted next.
    pub(crate) fn wanted(&self) -> u64 {
        self.blocks.borrow().len() as u64
    }

    pub(crate) fn record(&self, block: Bytes) {
        self.blocks.borrow_mut().push(block);
    }
}
