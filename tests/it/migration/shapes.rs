//! Programs moved from a `Framed<T, LengthDelimitedCodec>`: the types that they name, and the calls that
//! they make. The package `typed` has the shapes of tarpc and tokio-serde.

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures::{
    SinkExt, Stream, StreamExt, TryStreamExt,
    stream::{SplitSink, SplitStream},
};
use testing::Scripted;
use tokio::io::{AsyncRead, AsyncWrite, duplex};
use tokio_util::codec::FramedRead;
use wholeblock::{BlockCodec, BlockError, BlockTransport, ConfigError, LengthField, LengthPrefix};

type Blocks<T> = BlockTransport<T, LengthPrefix, io::Error>;

fn blocks<T>(io: T) -> Blocks<T> {
    BlockTransport::new(io, BlockCodec::length_prefixed().err_into())
}

/// The type that another crate may ask for.
type Half<T> = FramedRead<T, BlockCodec<LengthPrefix, io::Error>>;

#[tokio::test]
async fn half_that_another_crate_asks_for_becomes_a_transport_and_back() {
    let mut half: Half<&[u8]> = FramedRead::new(
        b"\0\0\0\x03one\0\0\0\x03two",
        BlockCodec::length_prefixed().err_into(),
    );
    assert_eq!(half.try_next().await.unwrap().unwrap(), "one");
    let mut blocks = BlockTransport::from(half.into_parts());
    assert_eq!(blocks.recv().await.unwrap(), Some(&b"two"[..]));
    let mut framed = blocks.into_framed();
    assert!(framed.try_next().await.unwrap().is_none());
}

/// The halves of a transport, in the fields of a program.
struct Halves<T> {
    sink: SplitSink<Blocks<T>, Bytes>,
    stream: SplitStream<Blocks<T>>,
}

#[tokio::test]
async fn halves_of_a_split_transport_keep_their_types() {
    let (near, far) = duplex(100);
    let (sink, stream) = blocks(near).split();
    let mut halves = Halves { sink, stream };
    let mut peer = blocks(far);
    halves.sink.send(Bytes::from("one")).await.unwrap();
    assert_eq!(peer.next().await.unwrap().unwrap(), "one");
    peer.send("two").await.unwrap();
    assert_eq!(halves.stream.try_next().await.unwrap().unwrap(), "two");
}

/// A typical connection of a server: it owns the transport, and answers one request after another.
struct Connection<T> {
    blocks: Blocks<T>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    async fn answer(&mut self) -> io::Result<bool> {
        let Some(request) = self.blocks.try_next().await? else {
            return Ok(false);
        };
        SinkExt::<Bytes>::send(&mut self.blocks, request.freeze()).await?;
        Ok(true)
    }
}

fn is_too_large(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(BlockError::TooLarge { .. }))
}

#[tokio::test]
async fn connection_that_names_its_types_works_with_io_errors() {
    let (near, far) = duplex(1_000);
    let serving = tokio::spawn(async move {
        let mut connection = Connection {
            blocks: blocks(far),
        };
        connection
            .blocks
            .codec_mut()
            .set_max_block_len(16)
            .map_err(io::Error::from)?;
        while connection.answer().await? {}
        Ok::<_, io::Error>(())
    });
    let mut client = blocks(near);
    for request in ["one", "two"] {
        client.send(request).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), request);
    }
    client.send("more than 16 bytes").await.unwrap();
    let error = serving.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(is_too_large(&error));
}

/// HTTP/2: 3 bytes of length, 6 of other things, all of it kept.
fn http2<T>(io: T) -> Result<FramedRead<T, BlockCodec<LengthField>>, ConfigError> {
    let framing = LengthField::config()
        .width(3)
        .adjustment(6)
        .header_len(9)
        .keep_header()
        .build()?;
    Ok(FramedRead::new(io, BlockCodec::new(framing)))
}

/// The shape of h2's `framed_read`: a stream of frames over a `FramedRead` that it does not make, whose
/// limit changes while it runs, and whose errors become its own.
struct Frames<T> {
    inner: FramedRead<T, BlockCodec<LengthField>>,
}

#[derive(Debug, PartialEq, Eq)]
enum FrameError {
    FrameSize,
    Io(ErrorKind),
}

impl<T> Frames<T> {
    fn max_frame_size(&self) -> usize {
        self.inner.decoder().max_decode_len() - 9
    }

    fn set_max_frame_size(&mut self, payload: usize) -> Result<(), ConfigError> {
        self.inner.decoder_mut().set_max_decode_len(payload + 9)
    }
}

impl<T: AsyncRead + Unpin> Stream for Frames<T> {
    type Item = Result<(u8, BytesMut), FrameError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = ready!(self.inner.poll_next_unpin(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(mut frame) => {
                let kind = frame[3];
                Ok((kind, frame.split_off(9)))
            }
            Err(BlockError::TooLarge { .. }) => Err(FrameError::FrameSize),
            Err(error) => Err(FrameError::Io(error.kind())),
        }))
    }
}

#[tokio::test]
async fn frame_stream_like_h2s_sets_its_limit_and_maps_its_errors() {
    let settings = [&[0, 0, 6, 4, 0, 0, 0, 0, 0][..], b"\0\x05\0\0\x40\0"].concat();
    let io = || Scripted::default().send(&settings).send(&settings[..12]);
    let mut frames = Frames {
        inner: http2(io()).unwrap(),
    };
    frames.set_max_frame_size(16_384).unwrap();
    assert_eq!(frames.max_frame_size(), 16_384);
    let (kind, payload) = frames.next().await.unwrap().unwrap();
    assert_eq!((kind, &payload[..]), (4, &settings[9..]));
    let cut = frames.next().await.unwrap().unwrap_err();
    assert_eq!(cut, FrameError::Io(ErrorKind::UnexpectedEof));

    let mut frames = Frames {
        inner: http2(io()).unwrap(),
    };
    frames.set_max_frame_size(5).unwrap();
    let refused = frames.next().await.unwrap().unwrap_err();
    assert_eq!(refused, FrameError::FrameSize);
}
