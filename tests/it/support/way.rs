use bytes::Bytes;
use futures::StreamExt;
use tokio_util::codec::Framed;
use wholeblock::{AsFramedRead, BlockCodec, BlockError, BlockTransport, Framing, recv_blocks};

use super::{Scripted, ready};

/// A way to receive, through `Framed` or through `BlockTransport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    FramedOwned,
    FramedLent,
    FramedBatched,
    Owned,
    Lent,
    Batched,
}

/// Every way there is: what is true of one is true of all.
pub(crate) const WAYS: [Way; 6] = [
    Way::FramedOwned,
    Way::FramedLent,
    Way::FramedBatched,
    Way::Owned,
    Way::Lent,
    Way::Batched,
];

impl Way {
    /// All blocks until the end or the first error; after either, there must be an end.
    pub(crate) fn receive<F: Framing>(
        self,
        io: Scripted,
        codec: BlockCodec<F>,
    ) -> (Vec<Bytes>, Option<BlockError>) {
        match self {
            Self::FramedOwned => owned(Framed::new(io, codec)),
            Self::FramedLent => lent(Framed::new(io, codec)),
            Self::FramedBatched => batched(Framed::new(io, codec)),
            Self::Owned => owned(BlockTransport::new(io, codec)),
            Self::Lent => lent(BlockTransport::new(io, codec)),
            Self::Batched => batched(BlockTransport::new(io, codec)),
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
