//! Cuts blocks to send into pieces, as their own bytes say.

use bytes::Bytes;
use wholeblock::{Payload, Pieces, internals::CHAIN_THRESHOLD};

/// The lengths of pieces.
const LENS: [usize; 8] = [
    0,
    1,
    2,
    5,
    100,
    CHAIN_THRESHOLD - 1,
    CHAIN_THRESHOLD,
    3 * CHAIN_THRESHOLD,
];

/// A block has at most so many pieces before its rest.
const MAX_PIECES: usize = 40;

/// A piece of a block.
pub(crate) enum Piece {
    Copied(Vec<u8>),
    Shared(Bytes),
}

impl Payload for Piece {
    fn byte_len(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::Shared(bytes) => bytes.len(),
        }
    }

    fn put_into(self, pieces: &mut Pieces<'_>) {
        match self {
            Self::Copied(bytes) => pieces.copy(&bytes),
            Self::Shared(bytes) => pieces.share(bytes),
        }
    }
}

/// Cuts `block`. Its last byte decides how.
pub(crate) fn cut(block: &[u8]) -> Vec<Piece> {
    let mut random = block.last().map_or(0, |last| u32::from(*last));
    let mut rest = Bytes::copy_from_slice(block);
    let mut pieces = Vec::new();
    while pieces.len() < MAX_PIECES && !rest.is_empty() {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let len = LENS[(random >> 28) as usize % LENS.len()];
        let piece = rest.split_to(len.min(rest.len()));
        pieces.push(match random >> 27 & 1 {
            0 => Piece::Copied(piece.to_vec()),
            _ => Piece::Shared(piece),
        });
    }
    pieces.push(Piece::Shared(rest));
    pieces
}
