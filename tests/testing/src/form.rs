use bytes::Bytes;
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use wholeblock::{BlockError, BlockTransport, Framing, recv_blocks};

use crate::ready;

/// A way to receive one block from a transport, which can receive the next one in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Next,
    Recv,
    /// The first block of `recv_batch`.
    Batch,
    /// `recv_into`, with as much memory as it asks for.
    Into,
    /// `recv_reader`, to the block's end.
    Reader,
    /// `recv_blocks`.
    Helper,
    /// The stream of `into_framed`.
    Framed,
    /// `next` after `map_codec`.
    MapCodec,
    /// `next` after `with_framing`, with the same framing.
    WithFraming,
}

/// All forms.
pub const FORMS: [Form; 9] = [
    Form::Next,
    Form::Recv,
    Form::Batch,
    Form::Into,
    Form::Reader,
    Form::Helper,
    Form::Framed,
    Form::MapCodec,
    Form::WithFraming,
];

impl Form {
    /// Receives the next block, and returns it with the transport, which may have been a `Framed` meanwhile.
    pub fn receive<T, F>(
        self,
        mut blocks: BlockTransport<T, F>,
    ) -> (Result<Option<Bytes>, BlockError>, BlockTransport<T, F>)
    where
        T: AsyncRead + AsyncWrite + Unpin,
        F: Framing,
    {
        let copied = |lent: &[u8]| Bytes::copy_from_slice(lent);
        let received = match self {
            Self::Next => ready(blocks.next()).transpose().map(|b| b.map(Bytes::from)),
            Self::Recv => ready(blocks.recv()).map(|block| block.map(copied)),
            Self::Batch => ready(blocks.recv_batch())
                .map(|batch| batch.map(|mut batch| copied(batch.next().expect("a block")))),
            Self::Into => into_memory(&mut blocks),
            Self::Reader => by_reader(&mut blocks),
            Self::Helper => ready(recv_blocks(&mut blocks).next()).map(|block| block.map(copied)),
            Self::Framed => {
                let mut framed = blocks.into_framed();
                let next = ready(framed.next()).transpose();
                return (next.map(|b| b.map(Bytes::from)), framed.into());
            }
            Self::MapCodec => return Self::Next.receive(blocks.map_codec(|codec| codec)),
            Self::WithFraming => {
                let blocks = blocks.map_codec(|codec| {
                    let framing = codec.framing().clone();
                    codec.with_framing(framing)
                });
                return Self::Next.receive(blocks);
            }
        };
        (received, blocks)
    }
}

fn into_memory<T, F>(blocks: &mut BlockTransport<T, F>) -> Result<Option<Bytes>, BlockError>
where
    T: AsyncRead + Unpin,
    F: Framing,
{
    let mut memory = vec![];
    let received = match ready(blocks.recv_into(&mut memory)) {
        Err(BlockError::NoRoom { len, .. }) => {
            memory.resize(len as usize, 0);
            ready(blocks.recv_into(&mut memory))
        }
        received => received,
    };
    received.map(|len| len.map(|len| Bytes::copy_from_slice(&memory[..len])))
}

fn by_reader<T, F>(blocks: &mut BlockTransport<T, F>) -> Result<Option<Bytes>, BlockError>
where
    T: AsyncRead + Unpin,
    F: Framing,
{
    let Some(mut reader) = ready(blocks.recv_reader())? else {
        return Ok(None);
    };
    let mut block = vec![];
    ready(reader.read_to_end(&mut block))?;
    Ok(Some(block.into()))
}
