use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::Framed;
use wholeblock::{AsFramedRead, BlockCodec, BlockError, BlockTransport, Framing, recv_blocks};

use crate::ready;

/// A way to receive, through `Framed` or through `BlockTransport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    FramedOwned,
    FramedLent,
    FramedBatched,
    Owned,
    Lent,
    Batched,
    /// All of these in turn, another one after each block and after each wait.
    Mixed,
}

/// Every way there is: what is true of one is true of all.
pub const WAYS: [Way; 7] = [
    Way::FramedOwned,
    Way::FramedLent,
    Way::FramedBatched,
    Way::Owned,
    Way::Lent,
    Way::Batched,
    Way::Mixed,
];

impl Way {
    /// All blocks until the end or the first error; after either, there must be an end.
    pub fn receive<T, F>(self, io: T, codec: BlockCodec<F>) -> (Vec<Bytes>, Option<BlockError>)
    where
        T: AsyncRead + AsyncWrite + Unpin,
        F: Framing,
    {
        match self {
            Self::FramedOwned => owned(Framed::new(io, codec)),
            Self::FramedLent => lent(Framed::new(io, codec)),
            Self::FramedBatched => batched(Framed::new(io, codec)),
            Self::Owned => owned(BlockTransport::new(io, codec)),
            Self::Lent => lent(BlockTransport::new(io, codec)),
            Self::Batched => batched(BlockTransport::new(io, codec)),
            Self::Mixed => mixed(BlockTransport::new(io, codec)),
        }
    }
}

fn owned<R>(mut framed: R) -> (Vec<Bytes>, Option<BlockError>)
where
    R: AsFramedRead<Error = BlockError>,
{
    let mut blocks = Vec::new();
    let error = loop {
        match ready(framed.next()) {
            Some(Ok(block)) => blocks.push(block.freeze()),
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    assert!(ready(framed.next()).is_none(), "after the end, the end");
    (blocks, error)
}

fn lent<R>(mut framed: R) -> (Vec<Bytes>, Option<BlockError>)
where
    R: AsFramedRead<Error = BlockError>,
{
    let mut receiving = recv_blocks(&mut framed);
    let mut blocks = Vec::new();
    let error = loop {
        match ready(receiving.next()) {
            Ok(Some(block)) => blocks.push(Bytes::copy_from_slice(block)),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let after = ready(receiving.next()).unwrap();
    assert!(after.is_none(), "after the end, the end");
    (blocks, error)
}

fn batched<R>(mut framed: R) -> (Vec<Bytes>, Option<BlockError>)
where
    R: AsFramedRead<Error = BlockError>,
{
    let mut receiving = recv_blocks(&mut framed);
    let mut blocks = Vec::new();
    let error = loop {
        match ready(receiving.next_batch()) {
            Ok(Some(batch)) => blocks.extend(batch.map(Bytes::copy_from_slice)),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let after = ready(receiving.next_batch()).unwrap();
    assert!(after.is_none(), "after the end, the end");
    (blocks, error)
}

fn mixed<T, F>(mut transport: BlockTransport<T, F>) -> (Vec<Bytes>, Option<BlockError>)
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Framing,
{
    let mut out = Mixture::default();
    loop {
        out.owned(&mut transport);
        out.lent(&mut transport);
        let mut framed = transport.into_framed();
        out.batched(&mut framed);
        out.owned(&mut framed);
        out.lent(&mut framed);
        transport = framed.into_parts().into();
        out.batched(&mut transport);
        if let Some(error) = out.end {
            return (out.blocks, error);
        }
    }
}

/// What a mixture of forms has given.
#[derive(Default)]
struct Mixture {
    blocks: Vec<Bytes>,
    /// The end, and the error that came with it.
    end: Option<Option<BlockError>>,
    polls: usize,
}

// One poll each: at a wait it is another form's turn.
impl Mixture {
    fn owned<R: AsFramedRead<Error = BlockError>>(&mut self, framed: &mut R) {
        let polled = framed.next().now_or_never();
        self.take(polled.map(|next| next.map(|block| block.map(BytesMut::freeze)).transpose()));
    }

    fn lent<R: AsFramedRead<Error = BlockError>>(&mut self, framed: &mut R) {
        let mut receiving = recv_blocks(framed);
        let polled = receiving.next().now_or_never();
        self.take(polled.map(|next| Ok(next?.map(Bytes::copy_from_slice))));
    }

    /// Two blocks at most, which may leave some of a batch.
    fn batched<R: AsFramedRead<Error = BlockError>>(&mut self, framed: &mut R) {
        let mut receiving = recv_blocks(framed);
        match receiving.next_batch().now_or_never() {
            Some(Ok(Some(batch))) => {
                for block in batch.take(2) {
                    self.take(Some(Ok(Some(Bytes::copy_from_slice(block)))));
                }
            }
            Some(Ok(None)) => self.take(Some(Ok(None))),
            Some(Err(error)) => self.take(Some(Err(error))),
            None => self.take(None),
        }
    }

    fn take(&mut self, polled: Option<Result<Option<Bytes>, BlockError>>) {
        self.polls += 1;
        assert!(self.polls < 1_000_000, "it hangs");
        match polled {
            Some(Ok(Some(block))) => {
                assert!(self.end.is_none(), "a block after the end");
                self.blocks.push(block);
            }
            Some(Ok(None)) if self.end.is_none() => self.end = Some(None),
            Some(Err(error)) if self.end.is_none() => self.end = Some(Some(error)),
            // After an error, the end or the same error.
            Some(_) | None => {}
        }
    }
}
