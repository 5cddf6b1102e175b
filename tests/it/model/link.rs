//! What a session sends and receives with: each form there is, and how one becomes another.

use std::ops::RangeInclusive;

use bytes::{BufMut, BytesMut};
use tokio_util::codec::{Framed, FramedRead, FramedWrite};
use wholeblock::{
    AnyFraming, BlockCodec, BlockTransport, Exact, Framing, Header, InvalidHeader, LengthField,
    LengthPrefix, Varint,
};

use super::{
    socket::Socket,
    wire::{Scheme, Wire},
};
use crate::support::Magic;

/// A framing of the crate, or a user's, that speaks a wire.
pub(crate) trait Speaks: Framing {
    fn speaking(wire: &Wire) -> Self;
}

impl Speaks for AnyFraming {
    fn speaking(wire: &Wire) -> Self {
        let max = *wire.lens().end();
        match wire.scheme {
            Scheme::Exact(len) => Exact::new(len).unwrap().into(),
            Scheme::Prefix {
                width,
                little_endian,
                counts_itself,
            } => {
                let mut prefix = LengthPrefix::bytes(width).unwrap();
                if little_endian {
                    prefix = prefix.little_endian();
                }
                if counts_itself {
                    prefix = prefix.including_header().unwrap();
                }
                prefix.max_block_len(max).unwrap().into()
            }
            Scheme::Varint => Varint::new().max_block_len(max).unwrap().into(),
            Scheme::Field => {
                let config = LengthField::config().offset(2).width(3).little_endian();
                let config = config.adjustment(-1).header_len(7).max_block_len(max);
                config.build().unwrap().into()
            }
            Scheme::Kept => {
                let config = LengthField::config().offset(1).adjustment(-4).keep_header();
                config.max_block_len(max).build().unwrap().into()
            }
            Scheme::Magic => unreachable!("a user's own"),
        }
    }
}

/// A framing of a user, who takes some from the crate.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    /// None for a header that the crate does not know.
    known: Option<AnyFraming>,
    lens: RangeInclusive<usize>,
}

impl Speaks for Own {
    fn speaking(wire: &Wire) -> Self {
        Self {
            known: (wire.scheme != Scheme::Magic).then(|| AnyFraming::speaking(wire)),
            lens: wire.lens(),
        }
    }
}

impl Framing for Own {
    fn block_lens(&self) -> RangeInclusive<usize> {
        self.lens.clone()
    }

    fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
        match &self.known {
            Some(framing) => framing.decode_header(front),
            None => Magic.decode_header(front),
        }
    }

    fn encode_header(&self, payload_len: usize, dst: &mut impl BufMut) {
        match &self.known {
            Some(framing) => framing.encode_header(payload_len, dst),
            None => Magic.encode_header(payload_len, dst),
        }
    }
}

/// A form.
#[derive(Debug)]
pub(crate) enum End<F> {
    Framed(Framed<Socket, BlockCodec<F>>),
    Transport(BlockTransport<Socket, F>),
    Read(FramedRead<Socket, BlockCodec<F>>),
    Write(FramedWrite<Socket, BlockCodec<F>>),
}

/// Does the same with whatever can receive.
macro_rules! receiving {
    ($end:expr, |$it:ident| $do:expr) => {
        match $end {
            End::Framed($it) => $do,
            End::Transport($it) => $do,
            End::Read($it) => $do,
            End::Write(_) => unreachable!("it only sends"),
        }
    };
}
pub(crate) use receiving;

/// Does the same with whatever can send.
macro_rules! sending {
    ($end:expr, |$it:ident| $do:expr) => {
        match $end {
            End::Framed($it) => $do,
            End::Transport($it) => $do,
            End::Write($it) => $do,
            End::Read(_) => unreachable!("it only receives"),
        }
    };
}
pub(crate) use sending;

impl<F: Speaks> End<F> {
    pub(crate) fn codec_mut(&mut self) -> &mut BlockCodec<F> {
        match self {
            Self::Framed(it) => it.codec_mut(),
            Self::Transport(it) => it.codec_mut(),
            Self::Read(it) => it.decoder_mut(),
            Self::Write(it) => it.encoder_mut(),
        }
    }

    pub(crate) fn read_buffer(&self) -> &BytesMut {
        receiving!(self, |it| it.read_buffer())
    }

    /// Another form, with all that this one holds.
    fn turned(self, by_parts: bool) -> Self {
        match self {
            Self::Transport(it) => Self::Framed(it.into_framed()),
            Self::Framed(it) if by_parts => Self::Framed(Framed::from_parts(it.into_parts())),
            Self::Framed(it) => Self::Transport(it.into()),
            Self::Read(it) if by_parts => Self::Framed(Framed::from_parts(it.into_parts())),
            Self::Read(it) => Self::Transport(it.into_parts().into()),
            Self::Write(it) if by_parts => Self::Framed(Framed::from_parts(it.into_parts())),
            Self::Write(it) => Self::Transport(it.into_parts().into()),
        }
    }

    fn speaking(self, wire: &Wire) -> Self {
        let change = |codec: BlockCodec<F>| codec.with_framing(F::speaking(wire));
        match self {
            Self::Framed(it) => Self::Framed(it.map_codec(change)),
            Self::Transport(it) => Self::Transport(it.map_codec(change)),
            Self::Read(it) => Self::Read(it.map_decoder(change)),
            Self::Write(it) => Self::Write(it.map_encoder(change)),
        }
    }
}

/// With what a session begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begins {
    Framed,
    Transport,
    FramedHalves,
    TransportHalves,
}

/// Both directions of a connection: one form for both, or one for each.
#[derive(Debug)]
pub(crate) struct Link<F> {
    /// Empty while one becomes another.
    whole: Option<End<F>>,
    sender: Option<End<F>>,
}

impl<F: Speaks> Link<F> {
    pub(crate) fn new(begins: Begins, socket: &Socket, codec: &BlockCodec<F>) -> Self {
        let (io, codec) = (|| socket.clone(), || codec.clone());
        let (whole, sender) = match begins {
            Begins::Framed => (End::Framed(Framed::new(io(), codec())), None),
            Begins::Transport => (End::Transport(BlockTransport::new(io(), codec())), None),
            Begins::FramedHalves => (
                End::Read(FramedRead::new(io(), codec())),
                Some(End::Write(FramedWrite::new(io(), codec()))),
            ),
            Begins::TransportHalves => (
                End::Transport(BlockTransport::new(io(), codec())),
                Some(End::Transport(BlockTransport::new(io(), codec()))),
            ),
        };
        let whole = Some(whole);
        Self { whole, sender }
    }

    pub(crate) fn receiver(&mut self) -> &mut End<F> {
        self.whole.as_mut().expect("there but while it turns")
    }

    pub(crate) fn sender(&mut self) -> &mut End<F> {
        let whole = self.whole.as_mut();
        self.sender
            .as_mut()
            .or(whole)
            .expect("there but while it turns")
    }

    pub(crate) fn has_halves(&self) -> bool {
        self.sender.is_some()
    }

    /// Changes the form of what receives, or of what sends.
    pub(crate) fn turn(&mut self, sender: bool, by_parts: bool) {
        let end = match sender && self.sender.is_some() {
            true => &mut self.sender,
            false => &mut self.whole,
        };
        *end = end.take().map(|end| end.turned(by_parts));
    }

    /// Changes the framing of both directions.
    pub(crate) fn speak(&mut self, wire: &Wire) {
        self.whole = self.whole.take().map(|end| end.speaking(wire));
        self.sender = self.sender.take().map(|end| end.speaking(wire));
    }
}
