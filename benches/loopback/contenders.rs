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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    RawFilled,
    RawVectored,
    RawReady,
    TokioRaw,
    LengthDelimited,
    LengthDelimitedBoundary,
    SinkStream,
    SinkStreamBoundary,
    Next,
    NextBatch,
}

/// In the order they are numbered by `as usize`.
pub(crate) const CONTENDERS: [Contender; 10] = [
    Contender::RawFilled,
    Contender::RawVectored,
    Contender::RawReady,
    Contender::TokioRaw,
    Contender::LengthDelimited,
    Contender::LengthDelimitedBoundary,
    Contender::SinkStream,
    Contender::SinkStreamBoundary,
    Contender::Next,
    Contender::NextBatch,
];

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RawFilled => "raw, write_all",
            Self::RawVectored => "raw, write_vectored",
            Self::RawReady => "raw, lying ready",
            Self::TokioRaw => "tokio raw",
            Self::LengthDelimited => "LengthDelimitedCodec",
            Self::LengthDelimitedBoundary => "LengthDelimitedCodec, boundary 256 KiB",
            Self::SinkStream => "wholeblock, Sink/Stream",
            Self::SinkStreamBoundary => "wholeblock, Sink/Stream, boundary 256 KiB",
            Self::Next => "wholeblock, next",
            Self::NextBatch => "wholeblock, next_batch",
        }
    }

    pub(crate) fn is_raw(self) -> bool {
        matches!(self, Self::RawFilled | Self::RawVectored | Self::RawReady)
    }

    /// How many bytes the sending `Framed` lets gather, where not as many as unless told.
    fn boundary(self) -> Option<usize> {
        match self {
            Self::LengthDelimitedBoundary | Self::SinkStreamBoundary => Some(256 * 1024),
            _ => None,
        }
    }

    pub(crate) fn colour(self) -> RGBColor {
        match self {
            Self::RawFilled | Self::RawVectored | Self::RawReady => RGBColor(90, 90, 90),
            Self::TokioRaw => RGBColor(168, 174, 182),
            Self::LengthDelimited => RGBColor(224, 138, 60),
            Self::LengthDelimitedBoundary => RGBColor(240, 190, 140),
            Self::SinkStream => RGBColor(158, 202, 225),
            Self::SinkStreamBoundary => RGBColor(107, 174, 214),
            Self::Next => RGBColor(66, 146, 198),
            Self::NextBatch => RGBColor(8, 69, 148),
        }
    }
}

pub(crate) fn measure(contender: Contender, load: Load) -> anyhow::Result<Took> {
    match contender {
        Contender::RawFilled => raw::blocking(load, raw::filled),
        Contender::RawVectored => raw::blocking(load, raw::vectored),
        Contender::RawReady => raw::blocking(load, raw::ready),
        Contender::TokioRaw => with_tokio(
            load,
            async move |socket| raw::tokio_send(socket, load).await,
            async move |socket| raw::tokio_receive(socket, load).await,
        ),
        Contender::LengthDelimited | Contender::LengthDelimitedBoundary => {
            sink_stream(load, contender.boundary(), LengthDelimitedCodec::new)
        }
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
        _ => sink_stream(load, contender.boundary(), codec),
    }
}

/// Both codecs go through this, so that what differs is the codec.
fn sink_stream<C>(
    load: Load,
    boundary: Option<usize>,
    codec: impl Fn() -> C + Sync,
) -> anyhow::Result<Took>
where
    C: Encoder<Bytes, Error: Debug> + Decoder<Item = BytesMut, Error: Debug>,
{
    with_tokio(
        load,
        async |socket| {
            let payload = support::payload(load.size);
            let mut framed = Framed::new(socket, codec());
            if let Some(boundary) = boundary {
                framed.set_backpressure_boundary(boundary);
            }
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
            let mut framed = Framed::new(socket, codec());
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
