use bytes::{Bytes, BytesMut};
use futures::{FutureExt, Stream, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_util::codec::Framed;
use wholeblock::{BlockCodec, BlockError, BlockReader, BlockTransport, Framing, recv_blocks};

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
    /// `recv_into`.
    Memory,
    /// `recv_reader`, within the limit for whole blocks.
    Reader,
    /// All of these in turn, another one after each block and after each wait.
    Mixed,
}

/// All ways: what is true of one is true of all.
pub const WAYS: [Way; 8] = [
    Way::Framed,
    Way::Helper,
    Way::Owned,
    Way::Lent,
    Way::Batched,
    Way::Memory,
    Way::Reader,
    Way::Mixed,
];

/// All blocks, and the error that ended them.
type Received = (Vec<Bytes>, Option<BlockError>);

impl Way {
    /// Receives all blocks until the end or the first error. Panics if more blocks follow.
    pub fn receive<T, F>(self, io: T, mut codec: BlockCodec<F>) -> Received
    where
        T: AsyncRead + AsyncWrite + Unpin,
        F: Framing,
    {
        codec.set_max_reader_len(codec.max_decode_len() as u64);
        match self {
            Self::Framed => owned(Framed::new(io, codec)),
            Self::Helper => helper(Framed::new(io, codec)),
            Self::Owned => owned(BlockTransport::new(io, codec)),
            Self::Lent => lent(BlockTransport::new(io, codec)),
            Self::Batched => batched(BlockTransport::new(io, codec)),
            Self::Memory => memory(BlockTransport::new(io, codec)),
            Self::Reader => read(BlockTransport::new(io, codec)),
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

fn memory<T, F>(mut blocks: BlockTransport<T, F>) -> Received
where
    T: AsyncRead + Unpin,
    F: Framing,
{
    let mut memory = Vec::new();
    let mut received = Vec::new();
    let error = loop {
        match ready(blocks.recv_into(&mut memory)) {
            Ok(Some(len)) => received.push(Bytes::copy_from_slice(&memory[..len])),
            Ok(None) => break None,
            Err(BlockError::NoRoom { len, .. }) => memory.resize(len as usize, 0),
            Err(error) => break Some(error),
        }
    };
    check_end(ready(blocks.recv_into(&mut memory)), error.as_ref());
    (received, error)
}

fn read<T, F>(mut blocks: BlockTransport<T, F>) -> Received
where
    T: AsyncRead + Unpin,
    F: Framing,
{
    let mut received = Vec::new();
    let error = loop {
        let block = match ready(blocks.recv_reader()) {
            Ok(Some(reader)) => read_whole(reader, received.len()),
            Ok(None) => break None,
            Err(error) => break Some(error),
        };
        match block {
            Ok(block) => received.push(block),
            Err(error) => break Some(error),
        }
    };
    check_end(ready(blocks.recv_reader()), error.as_ref());
    (received, error)
}

/// Reads a block to its end, in one of several ways.
fn read_whole<T, F>(mut reader: BlockReader<'_, T, F>, way: usize) -> Result<Bytes, BlockError>
where
    T: AsyncRead + Unpin,
    F: Framing,
{
    let len = reader.len();
    let mut block = Vec::new();
    while reader.remaining() > 0 {
        let before = block.len();
        assert_eq!(reader.remaining(), len - before as u64);
        match way % 4 {
            0 => drop(ready(reader.read_to_end(&mut block))?),
            1 => {
                let mut few = [0; 7];
                let bytes = ready(reader.read(&mut few))?;
                block.extend_from_slice(&few[..bytes]);
            }
            2 => {
                let lent = ready(reader.fill_buf())?;
                let bytes = lent.len().min(1_000);
                block.extend_from_slice(&lent[..bytes]);
                reader.consume(bytes);
            }
            _ => {
                block.reserve_exact(len as usize - before);
                ready(reader.read_buf(&mut block))?;
            }
        }
        assert!(block.len() > before, "an end before the end");
    }
    assert_eq!(block.len() as u64, len);
    assert_eq!(ready(reader.read(&mut [0]))?, 0, "the block has ended");
    assert!(ready(reader.fill_buf())?.is_empty());
    Ok(block.into())
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
        out.memory(&mut transport);
        out.read(&mut transport);
        if let Some(error) = out.end {
            return (out.blocks, error);
        }
    }
}

/// The blocks and the end that a mixture of ways has received.
#[derive(Default)]
struct Mixture {
    blocks: Vec<Bytes>,
    /// The end, and the error that came with it.
    end: Option<Option<BlockError>>,
    polls: usize,
    memory: Vec<u8>,
}

// Each polls once. If it must wait, it is another way's turn.
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

    /// Takes two blocks at most, which may leave some of a batch.
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

    /// Drops the future at each wait.
    fn memory<T, F>(&mut self, blocks: &mut BlockTransport<T, F>)
    where
        T: AsyncRead + Unpin,
        F: Framing,
    {
        let polled = match blocks.recv_into(&mut self.memory).now_or_never() {
            Some(Err(BlockError::NoRoom { len, .. })) => {
                self.memory.resize(len as usize, 0);
                blocks.recv_into(&mut self.memory).now_or_never()
            }
            polled => polled,
        };
        self.take(
            polled.map(|next| Ok(next?.map(|len| Bytes::copy_from_slice(&self.memory[..len])))),
        );
    }

    /// Waits within a block, because a reader that is dropped discards the rest.
    fn read<T, F>(&mut self, blocks: &mut BlockTransport<T, F>)
    where
        T: AsyncRead + Unpin,
        F: Framing,
    {
        let polled = blocks.recv_reader().now_or_never();
        let way = self.polls;
        self.take(polled.map(|next| match next? {
            Some(reader) => read_whole(reader, way).map(Some),
            None => Ok(None),
        }));
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
