use bytes::{Bytes, BytesMut};
use futures::{FutureExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::Framed;
use wholeblock::{BlockCodec, BlockError, BlockTransport, Framing, recv_blocks};

use crate::ready;

/// A way to receive, through `Framed` or through `BlockTransport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Framed,
    /// `recv_blocks` on a `Framed`.
    Helper,
    Owned,
    Lent,
    Batched,
    /// All of these in turn, another one after each block and after each wait.
    Mixed,
}

/// Every way there is: what is true of one is true of all.
pub const WAYS: [Way; 6] = [
    Way::Framed,
    Way::Helper,
    Way::Owned,
    Way::Lent,
    Way::Batched,
    Way::Mixed,
];

/// All blocks, and the error that ended them.
type Received = (Vec<Bytes>, Option<BlockError>);

impl Way {
    /// Receives all blocks until the end or the first error. After either, there must be no more.
    pub fn receive<T, F>(self, io: T, codec: BlockCodec<F>) -> Received
    where
        T: AsyncRead + AsyncWrite + Unpin,
        F: Framing,
    {
        match self {
            Self::Framed => owned(Framed::new(io, codec)),
            Self::Helper => helper(Framed::new(io, codec)),
            Self::Owned => owned(BlockTransport::new(io, codec)),
            Self::Lent => lent(BlockTransport::new(io, codec)),
            Self::Batched => batched(BlockTransport::new(io, codec)),
            Self::Mixed => mixed(BlockTransport::new(io, codec)),
        }
    }
}

fn owned(mut blocks: impl Stream<Item = Result<BytesMut, BlockError>> + Unpin) -> Received {
    let mut received = Vec::new();
    let error = loop {
        match ready(blocks.next()) {
            Some(Ok(block)) => received.push(block.freeze()),
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    assert!(ready(blocks.next()).is_none(), "after the end, the end");
    (received, error)
}

fn helper<T, F>(mut framed: Framed<T, BlockCodec<F>>) -> Received
where
    T: AsyncRead + Unpin,
    F: Framing,
{
    let mut blocks = recv_blocks(&mut framed);
    let mut received = Vec::new();
    let error = loop {
        match ready(blocks.next()) {
            Ok(Some(block)) => received.push(Bytes::copy_from_slice(block)),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    check_end(ready(blocks.next()), error.as_ref());
    (received, error)
}

fn lent<T, F>(mut blocks: BlockTransport<T, F>) -> Received
where
    T: AsyncRead + Unpin,
    F: Framing,
{
    let mut received = Vec::new();
    let error = loop {
        match ready(blocks.recv()) {
            Ok(Some(block)) => received.push(Bytes::copy_from_slice(block)),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    check_end(ready(blocks.recv()), error.as_ref());
    (received, error)
}

fn batched<T, F>(mut blocks: BlockTransport<T, F>) -> Received
where
    T: AsyncRead + Unpin,
    F: Framing,
{
    let mut received = Vec::new();
    let error = loop {
        match ready(blocks.recv_batch()) {
            Ok(Some(batch)) => received.extend(batch.map(Bytes::copy_from_slice)),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    check_end(ready(blocks.recv_batch()), error.as_ref());
    (received, error)
}

/// Checks that the end comes again after the end, and the same error again after one about the
/// blocks.
fn check_end<B>(again: Result<Option<B>, BlockError>, error: Option<&BlockError>) {
    let of_io = matches!(error, Some(BlockError::Io(_)));
    match (error, again) {
        (None, Ok(None)) => {}
        (Some(_), Ok(None) | Err(_)) if of_io => {}
        (Some(error), Err(again)) => assert_eq!(again.to_string(), error.to_string()),
        (error, again) => panic!("{error:?}, then {:?}", again.map(|block| block.is_some())),
    }
}

fn mixed<T, F>(mut transport: BlockTransport<T, F>) -> Received
where
    T: AsyncRead + AsyncWrite + Unpin,
    F: Framing,
{
    let mut out = Mixture::default();
    loop {
        out.owned(&mut transport);
        out.lent(&mut transport);
        let mut framed = transport.into_framed();
        out.helper(&mut framed);
        out.owned(&mut framed);
        transport = framed.into();
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
    fn owned(&mut self, blocks: &mut (impl Stream<Item = Result<BytesMut, BlockError>> + Unpin)) {
        let polled = blocks.next().now_or_never();
        self.take(polled.map(|next| next.map(|block| block.map(BytesMut::freeze)).transpose()));
    }

    fn helper<T, F>(&mut self, framed: &mut Framed<T, BlockCodec<F>>)
    where
        T: AsyncRead + Unpin,
        F: Framing,
    {
        let mut blocks = recv_blocks(framed);
        let polled = blocks.next().now_or_never();
        self.take(polled.map(|next| Ok(next?.map(Bytes::copy_from_slice))));
    }

    fn lent<T, F>(&mut self, blocks: &mut BlockTransport<T, F>)
    where
        T: AsyncRead + Unpin,
        F: Framing,
    {
        let polled = blocks.recv().now_or_never();
        self.take(polled.map(|next| Ok(next?.map(Bytes::copy_from_slice))));
    }

    /// Two blocks at most, which may leave some of a batch.
    fn batched<T, F>(&mut self, blocks: &mut BlockTransport<T, F>)
    where
        T: AsyncRead + Unpin,
        F: Framing,
    {
        match blocks.recv_batch().now_or_never() {
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
