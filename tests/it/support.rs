//! What the tests share: one scripted transport, one framing that is not the crate's own, and the
//! list of framings that every rule is tried with.

mod scripted;

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use tokio_util::codec::{Encoder, Framed};
use wholeblock::{BlockCodec, BlockError, Framing, Header, InvalidHeader};

pub(crate) use self::scripted::Scripted;

/// A user's own header: `"WB"`, version 1, the payload's length as a big-endian u24.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Magic;

impl Magic {
    pub(crate) const MAX: usize = 0xff_ffff;
}

impl Framing for Magic {
    fn block_lens(&self) -> RangeInclusive<usize> {
        0..=Self::MAX
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        let known = front.len().min(3);
        if front[..known] != b"WB\x01"[..known] {
            return Err(InvalidHeader("it does not start with WB, version 1"));
        }
        Ok(match *front {
            [_, _, _, a, b, c, ..] => Header::Complete {
                header_len: 6,
                payload_len: u64::from(u32::from_be_bytes([0, a, b, c])),
            },
            _ => Header::Incomplete { at_least: 6 },
        })
    }

    fn encode_header(&self, payload_len: usize, dst: &mut impl BufMut) {
        dst.put_slice(b"WB\x01");
        dst.put_uint(payload_len as u64, 3);
    }
}

/// Calls `$check(name, framing)` with every framing there is.
macro_rules! with_each_framing {
    ($check:expr) => {{
        use wholeblock::{Exact, LengthPrefix, Varint};
        $check("exact", Exact::new(5).unwrap());
        $check("u8", LengthPrefix::u8());
        $check("u16 LE", LengthPrefix::u16().little_endian());
        $check("u24", LengthPrefix::bytes(3).unwrap());
        $check("u32", LengthPrefix::u32());
        $check(
            "u32 including its header",
            LengthPrefix::u32().including_header().unwrap(),
        );
        $check("u56 LE", LengthPrefix::bytes(7).unwrap().little_endian());
        $check("u64", LengthPrefix::u64());
        $check("varint", Varint::new());
        $check("a user's own", $crate::support::Magic);
    }};
}
pub(crate) use with_each_framing;

/// Blocks of different lengths and contents that `framing` carries.
pub(crate) fn blocks_for<F: Framing>(framing: &F) -> Vec<Bytes> {
    let lens = framing.block_lens();
    [3, 0, 1, 130, 2, 255, 0, 17]
        .into_iter()
        .enumerate()
        .map(|(at, len)| {
            let len = usize::clamp(len, *lens.start(), *lens.end());
            (0..len).map(|byte| (at * 31 + byte) as u8).collect()
        })
        .collect()
}

/// The bytes of `blocks` on the wire.
pub(crate) fn wire<F: Framing>(framing: F, blocks: &[Bytes]) -> Vec<u8> {
    let mut codec = BlockCodec::new(framing);
    let mut wire = BytesMut::new();
    for block in blocks {
        codec.encode(block.clone(), &mut wire).unwrap();
    }
    wire.into()
}

/// All blocks until the end or the first error.
pub(crate) fn collect<F: Framing>(
    framed: &mut Framed<Scripted, BlockCodec<F>>,
) -> (Vec<Bytes>, Option<BlockError>) {
    let mut blocks = Vec::new();
    loop {
        match ready(framed.next()) {
            None => return (blocks, None),
            Some(Ok(block)) => blocks.push(block.freeze()),
            Some(Err(error)) => return (blocks, Some(error)),
        }
    }
}

/// Polls `future` until it is ready; it must be runnable all along.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    for _ in 0..100_000 {
        if let Some(done) = future.as_mut().now_or_never() {
            return done;
        }
    }
    panic!("still pending after 100,000 polls: it hangs");
}

/// Bytes of the header before a payload of `len` bytes.
pub(crate) fn header_len<F: Framing>(framing: &F, len: usize) -> usize {
    let mut header = BytesMut::new();
    framing.encode_header(len, &mut header);
    header.len()
}
