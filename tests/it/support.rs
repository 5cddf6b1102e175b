//! What the tests share: transports, one framing that is not the crate's own, the list of framings
//! and the list of ways to receive that every rule is tried with, and the blocks they carry.

mod scripted;
mod watched;
mod way;

use std::{cell::Cell, ops::RangeInclusive, pin::pin, rc::Rc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::codec::{Encoder, Framed};
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, Framing, Header, InvalidHeader, LengthPrefix, Part,
};

pub(crate) use self::{
    scripted::Scripted,
    watched::Watched,
    way::{WAYS, Way},
};

pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;

/// Bytes in a full write: the crate's constant of this name, which its users cannot see.
pub(crate) const FULL_WRITE: usize = 86 * 1_448;

/// Payload bytes from which on a block leaves without a copy, by the crate's constant.
pub(crate) const CHAIN_FROM: usize = 4 * KIB;

/// Slices in one write at most: all the payloads to refer to that fit it, and what is joined
/// around them.
const MAX_SLICES: usize = 2 * FULL_WRITE.div_ceil(CHAIN_FROM) + 1;

/// Bytes in the first write after a flush, by the crate's constant.
pub(crate) const FIRST_WRITE: usize = 8 * KIB;

/// Checks that blocks of `len` bytes, each with a header of 4, left in writes that grow from the
/// first one up to full ones, except the last: in two full ones at once only if one block can have
/// brought as many.
pub(crate) fn check_full_writes(io: &Scripted, len: usize) {
    let (last, all_but_last) = io.gathered.split_last().unwrap();
    assert!(last.1 <= FULL_WRITE, "{len}: {last:?}");
    let mut least = FIRST_WRITE;
    for (slices, bytes) in all_but_last {
        let two = len + 4 > FULL_WRITE && *bytes == 2 * FULL_WRITE;
        let grown = (least..least + len + 4).contains(bytes) && *bytes <= FULL_WRITE;
        assert!(
            two || grown || *bytes == FULL_WRITE,
            "{len}: {bytes}, {least}"
        );
        assert!(*slices <= MAX_SLICES, "{len}: {slices}");
        least = FULL_WRITE.min(least + bytes / 4);
    }
}

/// A user's own header: `"WB"`, version 1, the payload's length as a big-endian u24.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Magic;

impl Framing for Magic {
    fn block_lens(&self) -> RangeInclusive<usize> {
        0..=0xff_ffff
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

/// A line, which ends with `\n` and is kept: until its end has come, its header can only ask for one
/// byte more. Counts how often it is asked.
#[derive(Clone)]
pub(crate) struct Line {
    most: usize,
    asked: Rc<Cell<usize>>,
}

impl Line {
    pub(crate) fn up_to(most: usize) -> Self {
        Self {
            most,
            asked: Rc::default(),
        }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.get()
    }
}

impl Framing for Line {
    fn block_lens(&self) -> RangeInclusive<usize> {
        1..=self.most
    }

    fn max_header_len(&self) -> usize {
        self.most
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        self.asked.set(self.asked.get() + 1);
        Ok(match front.iter().position(|byte| *byte == b'\n') {
            Some(at) => Header::Complete {
                header_len: 0,
                payload_len: at as u64 + 1,
            },
            None => Header::Incomplete {
                at_least: front.len() + 1,
            },
        })
    }

    fn encode_header(&self, _payload_len: usize, _dst: &mut impl BufMut) {}
}

/// A framing, and what the tests expect of it, written down apart from its code.
#[derive(Clone, Copy)]
pub(crate) struct Case<F> {
    pub(crate) name: &'static str,
    pub(crate) framing: F,
    pub(crate) headers: Headers,
}

impl<F> Case<F> {
    /// What a receiver sees of `blocks` if the stream ends after `cut` bytes: how many blocks, and
    /// the error, as its `Debug` prints it.
    pub(crate) fn outcome(&self, blocks: &[Bytes], cut: usize) -> (usize, Option<String>) {
        let mut offset = 0;
        for (index, block) in blocks.iter().enumerate() {
            let header = self.headers.len(block.len());
            let arrived = cut - offset;
            if arrived >= header + block.len() {
                offset += header + block.len();
                continue;
            }
            let (part, expected, received) = match arrived.checked_sub(header) {
                _ if arrived == 0 => return (index, None),
                Some(received) => (Part::Payload, block.len(), received),
                None => (Part::Header, self.headers.at_least(arrived), arrived),
            };
            let truncated = BlockError::Truncated {
                part,
                expected: expected as u64,
                received: received as u64,
                index: index as u64,
                offset: offset as u64,
            };
            return (index, Some(format!("{truncated:?}")));
        }
        (blocks.len(), None)
    }
}

/// How long the headers of a framing are.
#[derive(Clone, Copy)]
pub(crate) enum Headers {
    /// All of this many bytes.
    Fixed(usize),
    /// A byte for each 7 bits of the payload's length, and each says whether it is the last.
    Varint,
}

impl Headers {
    /// Bytes of the header before a payload of `payload_len` bytes.
    pub(crate) fn len(self, payload_len: usize) -> usize {
        match self {
            Self::Fixed(len) => len,
            Self::Varint => (1..).find(|len| payload_len >> (7 * len) == 0).unwrap(),
        }
    }

    /// The shortest a header can be of which `arrived` bytes are there, and not all.
    pub(crate) fn at_least(self, arrived: usize) -> usize {
        match self {
            Self::Fixed(len) => len,
            Self::Varint => arrived + 1,
        }
    }
}

/// Runs `$test` once for every framing there is, with `$case` as its [`Case`]. A macro, since each
/// framing is another type.
macro_rules! with_each_framing {
    (|$case:ident| $test:expr) => {
        with_each_framing! { |$case| $test;
            "exact", Fixed(0), wholeblock::Exact::new(5).unwrap();
            "u8", Fixed(1), wholeblock::LengthPrefix::u8();
            "u16 LE", Fixed(2), wholeblock::LengthPrefix::u16().little_endian();
            "u24", Fixed(3), wholeblock::LengthPrefix::bytes(3).unwrap();
            "u32", Fixed(4), wholeblock::LengthPrefix::u32();
            "u32 including its header", Fixed(4),
                wholeblock::LengthPrefix::u32().including_header().unwrap();
            "u56 LE", Fixed(7), wholeblock::LengthPrefix::bytes(7).unwrap().little_endian();
            "u64", Fixed(8), wholeblock::LengthPrefix::u64();
            "varint", Varint, wholeblock::Varint::new();
            "u24 LE in a header of 7", Fixed(7),
                wholeblock::LengthField::config()
                    .offset(2)
                    .width(3)
                    .little_endian()
                    .adjustment(2)
                    .header_len(7)
                    .build()
                    .unwrap();
            "one chosen at run time", Fixed(2),
                wholeblock::AnyFraming::from(wholeblock::LengthPrefix::u16());
            "a user's own", Fixed(6), $crate::support::Magic;
        }
    };
    (|$case:ident| $test:expr; $($name:literal, $headers:expr, $framing:expr;)*) => {$({
        use $crate::support::Headers::*;
        let $case = $crate::support::Case { name: $name, framing: $framing, headers: $headers };
        $test;
    })*};
}
pub(crate) use with_each_framing;

/// Blocks of `lens` bytes, of which no two are alike, nor any two places in one.
pub(crate) fn numbered(lens: &[usize]) -> Vec<Bytes> {
    let block = |(index, &len): (usize, &usize)| {
        (0..len)
            .map(|at| (index * 131 + at * 7 + at / 251) as u8)
            .collect()
    };
    lens.iter().enumerate().map(block).collect()
}

/// Numbered blocks of `lens` bytes, or the length nearest to that which `framing` carries.
pub(crate) fn numbered_for<F: Framing>(framing: &F, lens: &[usize]) -> Vec<Bytes> {
    let carried = framing.block_lens();
    let clamp = |&len: &usize| len.clamp(*carried.start(), *carried.end());
    numbered(&lens.iter().map(clamp).collect::<Vec<_>>())
}

/// Short blocks that `framing` carries, some of them empty if it can.
pub(crate) fn blocks_for<F: Framing>(framing: &F) -> Vec<Bytes> {
    numbered_for(framing, &[3, 0, 1, 130, 2, 255, 0, 17])
}

/// Blocks over `io`, behind the default prefix: a big-endian u32.
pub(crate) fn prefixed<T: AsyncRead + AsyncWrite>(io: T) -> Framed<T, BlockCodec<LengthPrefix>> {
    Framed::new(io, BlockCodec::length_prefixed())
}

/// The same without `Framed`.
pub(crate) fn transport<T>(io: T) -> BlockTransport<T, LengthPrefix> {
    BlockTransport::new(io, BlockCodec::length_prefixed())
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

/// Polls `future` until it is ready, without waiting to be woken.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..100_000 {
        if let Some(done) = future.as_mut().now_or_never() {
            return done;
        }
    }
    panic!("still pending after 100,000 polls: it hangs");
}

/// Runs a test over real transports. None takes a second; the limit turns a hang into a failure.
pub(crate) async fn within_limit<T>(test: impl Future<Output = T>) -> T {
    const LIMIT: Duration = Duration::from_secs(60);
    timeout(LIMIT, test).await.expect("it takes too long")
}

/// Two ends of a connection over loopback.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}
