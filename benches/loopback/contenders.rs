//! The ways to move the blocks, and the codecs among them.

use std::{fmt::Debug, hint::black_box};

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, stream};
use plotters::style::RGBColor;
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder, Encoder, Framed, LengthDelimitedCodec};
use wholeblock::{BlockCodec, Framing, LengthPrefix, recv_blocks, send_blocks};

use crate::{
    ends::{Load, Took, with_tokio},
    raw, support,
};

/// How many bytes `BlockCodec::framed` lets gather before it writes.
pub(crate) const BOUNDARY: usize = 56 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    RawFilled,
    RawVectored,
    RawCut,
    TokioRaw,
    TokioOwned,
    LengthDelimited,
    LengthDelimitedBoundary,
    SinkStreamNew,
    SinkStream,
    Next,
    NextBatch,
}

/// In the order they are numbered by `as usize`.
pub(crate) const CONTENDERS: [Contender; 11] = [
    Contender::RawFilled,
    Contender::RawVectored,
    Contender::RawCut,
    Contender::TokioRaw,
    Contender::TokioOwned,
    Contender::LengthDelimited,
    Contender::LengthDelimitedBoundary,
    Contender::SinkStreamNew,
    Contender::SinkStream,
    Contender::Next,
    Contender::NextBatch,
];

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RawFilled => "raw, write_all",
            Self::RawVectored => "raw, write_vectored",
            Self::RawCut => "raw, lying ready, 60 KiB a write",
            Self::TokioRaw => "tokio raw",
            Self::TokioOwned => "tokio raw, owned",
            Self::LengthDelimited => "LengthDelimitedCodec",
            Self::LengthDelimitedBoundary => "LengthDelimitedCodec, boundary 56 KiB",
            Self::SinkStreamNew => "wholeblock, Sink/Stream, Framed::new",
            Self::SinkStream => "wholeblock, Sink/Stream",
            Self::Next => "wholeblock, next",
            Self::NextBatch => "wholeblock, next_batch",
        }
    }

    pub(crate) fn is_raw(self) -> bool {
        matches!(self, Self::RawFilled | Self::RawVectored | Self::RawCut)
    }

    pub(crate) fn colour(self) -> RGBColor {
        match self {
            Self::RawFilled | Self::RawVectored | Self::RawCut => RGBColor(90, 90, 90),
            Self::TokioRaw => RGBColor(168, 174, 182),
            Self::TokioOwned => RGBColor(205, 209, 214),
            Self::LengthDelimited => RGBColor(224, 138, 60),
            Self::LengthDelimitedBoundary => RGBColor(240, 190, 140),
            Self::SinkStreamNew => RGBColor(158, 202, 225),
            Self::SinkStream => RGBColor(107, 174, 214),
            Self::Next => RGBColor(66, 146, 198),
            Self::NextBatch => RGBColor(8, 69, 148),
        }
    }
}

pub(crate) fn measure(contender: Contender, load: Load) -> anyhow::Result<Took> {
    match contender {
        Contender::RawFilled => raw::blocking(load, raw::filled),
        Contender::RawVectored => raw::blocking(load, raw::vectored),
        Contender::RawCut => raw::blocking(load, raw::cut),
        Contender::TokioRaw => with_tokio(
            load,
            async move |socket| raw::tokio_send(socket, load).await,
            async move |socket| raw::tokio_receive(socket, load).await,
        ),
        Contender::TokioOwned => with_tokio(
            load,
            async move |socket| raw::tokio_send_copied(socket, load).await,
            async move |socket| raw::tokio_receive_owned(socket, load).await,
        ),
        Contender::LengthDelimited => sink_stream(load, |socket| {
            Framed::new(socket, LengthDelimitedCodec::new())
        }),
        Contender::LengthDelimitedBoundary => sink_stream(load, |socket| {
            let mut framed = Framed::new(socket, LengthDelimitedCodec::new());
            framed.set_backpressure_boundary(BOUNDARY);
            framed
        }),
        _ if load.prefixed => ours(contender, load, || Ok(LengthPrefix::u32())),
        _ => ours(contender, load, || wholeblock::Exact::new(load.size)),
    }
}

fn ours<F: Framing>(
    contender: Contender,
    load: Load,
    framing: impl Fn() -> Result<F, wholeblock::ConfigError> + Sync,
) -> anyhow::Result<Took> {
    framing()?;
    let codec = || BlockCodec::new(framing().expect("what could be built once"));
    match contender {
        Contender::Next => with_tokio(
            load,
            async |socket| send_whole(socket, codec(), load).await,
            async |socket| receive_lent(socket, codec()).await,
        ),
        Contender::NextBatch => with_tokio(
            load,
            async |socket| send_whole(socket, codec(), load).await,
            async |socket| receive_batches(socket, codec()).await,
        ),
        Contender::SinkStreamNew => sink_stream(load, |socket| Framed::new(socket, codec())),
        _ => sink_stream(load, |socket| codec().framed(socket)),
    }
}

/// Both codecs go through this, so that what differs is the codec.
fn sink_stream<C>(
    load: Load,
    framed: impl Fn(TcpStream) -> Framed<TcpStream, C> + Sync,
) -> anyhow::Result<Took>
where
    C: Encoder<Bytes, Error: Debug> + Decoder<Item = BytesMut, Error: Debug>,
{
    with_tokio(
        load,
        async |socket| {
            let payload = support::payload(load.size);
            let mut framed = framed(socket);
            for _ in 0..load.blocks {
                framed
                    .feed(Bytes::from_static(payload))
                    .await
                    .map_err(as_anyhow)?;
            }
            SinkExt::<Bytes>::close(&mut framed)
                .await
                .map_err(as_anyhow)
        },
        async |socket| {
            let mut framed = framed(socket);
            let mut seen = 0;
            while let Some(block) = framed.next().await {
                black_box(&block.map_err(as_anyhow)?[..]);
                seen += 1;
            }
            Ok(seen)
        },
    )
}

/// `Decoder` and `Encoder` ask no more of their errors than to come from `io::Error`.
fn as_anyhow(error: impl Debug) -> anyhow::Error {
    anyhow::anyhow!("{error:?}")
}

async fn send_whole<F: Framing>(
    socket: TcpStream,
    codec: BlockCodec<F>,
    load: Load,
) -> anyhow::Result<()> {
    let payload = support::payload(load.size);
    let mut framed = Framed::new(socket, codec);
    let source = stream::iter((0..load.blocks).map(|_| Bytes::from_static(payload)));
    send_blocks(&mut framed, source).await?;
    framed.close().await?;
    Ok(())
}

async fn receive_lent<F: Framing>(socket: TcpStream, codec: BlockCodec<F>) -> anyhow::Result<u64> {
    let mut framed = Framed::new(socket, codec);
    let mut blocks = recv_blocks(&mut framed);
    let mut seen = 0;
    while let Some(block) = blocks.next().await? {
        black_box(block);
        seen += 1;
    }
    Ok(seen)
}

async fn receive_batches<F: Framing>(
    socket: TcpStream,
    codec: BlockCodec<F>,
) -> anyhow::Result<u64> {
    let mut framed = Framed::new(socket, codec);
    let mut blocks = recv_blocks(&mut framed);
    let mut seen = 0;
    while let Some(batch) = blocks.next_batch().await? {
        for block in batch {
            black_box(block);
            seen += 1;
        }
    }
    Ok(seen)
}
