//! Configurations of framings and codecs, from a list or from arbitrary bytes. Each is built twice: by the
//! crate and by the reference.

#[cfg(feature = "arbitrary")]
use arbitrary::Arbitrary;
use wholeblock::{
    AnyFraming, BlockCodec, ConfigError, Exact, Framing, InOut, LengthField, LengthLimit,
    LengthPrefix, Varint, internals::DEFAULT_MAX_RETAINED,
};

use crate::{
    Magic,
    reference::{MAX_LIMIT, Reference},
};

/// A number of bytes: mostly small, often at an edge, up to half a MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Len(pub usize);

/// A number that is added to a length field's value: mostly small.
#[derive(Clone, Copy, Debug, Default)]
pub struct Adjustment(pub i64);

/// Bytes that a length of 1 stands for: mostly 1.
#[derive(Clone, Copy, Debug)]
pub struct Unit(pub u64);

/// A limit on a block's length, as a user might choose one.
#[cfg_attr(feature = "arbitrary", derive(Arbitrary))]
#[derive(Clone, Copy, Debug)]
pub enum Max {
    Default,
    Len(Len),
    /// The largest possible length, plus this.
    BesideLargest(i8),
    /// The smallest possible length, plus this.
    BesideSmallest(i8),
    Any(u64),
}

impl Max {
    pub fn among(self, smallest: u64, largest: u64) -> Option<usize> {
        let max = match self {
            Self::Default => return None,
            Self::Len(Len(len)) => len as u64,
            Self::BesideLargest(by) => largest.saturating_add_signed(by.into()),
            Self::BesideSmallest(by) => smallest.saturating_add_signed(by.into()),
            Self::Any(any) => any,
        };
        usize::try_from(max).ok()
    }
}

/// One of the crate's framings or a user's own, with any settings, some of which cannot work.
#[cfg_attr(feature = "arbitrary", derive(Arbitrary))]
#[derive(Clone, Debug)]
pub enum Config {
    Exact {
        len: Len,
    },
    LengthPrefix {
        width: u8,
        little_endian: bool,
        including_header: bool,
        max: Max,
        max_first: bool,
    },
    Varint {
        max: Max,
        minimal: bool,
    },
    LengthField {
        width: u8,
        unit: Unit,
        little_endian: bool,
        offset: Len,
        /// Bytes of header after the length field; none by default.
        more: Option<i16>,
        adjustment: Adjustment,
        strip: Option<Len>,
        max: Max,
        clamped: bool,
    },
    Own,
}

/// A length prefix of `width` bytes.
pub fn prefix(width: u8) -> Config {
    Config::LengthPrefix {
        width,
        little_endian: false,
        including_header: false,
        max: Max::Default,
        max_first: false,
    }
}

/// An operation on a framing of any type.
pub trait Visit {
    fn visit<F: Framing>(self, framing: F, reference: Reference);
}

impl Config {
    pub fn little_endian(mut self) -> Self {
        if let Self::LengthPrefix { little_endian, .. } = &mut self {
            *little_endian = true;
        }
        self
    }

    pub fn including_header(mut self) -> Self {
        if let Self::LengthPrefix {
            including_header, ..
        } = &mut self
        {
            *including_header = true;
        }
        self
    }

    /// Builds the framing, checks that the crate and the reference agree on it, and passes it to `visit`: as
    /// itself, or as one chosen at run time, for each direction by itself.
    pub fn visit(&self, chosen_at_run_time: bool, visit: impl Visit) {
        if let (true, false) = (chosen_at_run_time, matches!(self, Self::Own)) {
            if let Some((framing, reference)) = self.any() {
                let (incoming, outgoing) = (framing, framing);
                visit.visit(InOut { incoming, outgoing }, reference);
            }
            return;
        }
        let reference = self.reference();
        match self {
            Self::Exact { len } => checked(Exact::new(len.0), reference, visit),
            Self::LengthPrefix { .. } => checked(self.length_prefix(), reference, visit),
            Self::Varint { .. } => checked(self.varint(), reference, visit),
            Self::LengthField { .. } => checked(self.length_field(), reference, visit),
            Self::Own => checked(Ok(Magic), reference, visit),
        }
    }

    /// Returns the framing as one chosen at run time. None if it cannot work or is a user's own.
    pub fn any(&self) -> Option<(AnyFraming, Reference)> {
        let framing = match self {
            Self::Exact { len } => Exact::new(len.0).map(AnyFraming::from),
            Self::LengthPrefix { .. } => self.length_prefix().map(AnyFraming::from),
            Self::Varint { .. } => self.varint().map(AnyFraming::from),
            Self::LengthField { .. } => self.length_field().map(AnyFraming::from),
            Self::Own => return None,
        };
        agreed(framing, self.reference())
    }

    fn length_prefix(&self) -> Result<LengthPrefix, ConfigError> {
        let Self::LengthPrefix {
            width,
            little_endian,
            including_header,
            max_first,
            ..
        } = *self
        else {
            unreachable!();
        };
        let mut framing = LengthPrefix::bytes(usize::from(width % 10))?;
        let max = self.max();
        if let (true, Some(max)) = (max_first, max) {
            framing = framing.max_block_len(max)?;
        }
        if little_endian {
            framing = framing.little_endian();
        }
        if including_header {
            framing = framing.including_header()?;
        }
        if let (false, Some(max)) = (max_first, max) {
            framing = framing.max_block_len(max)?;
        }
        Ok(framing)
    }

    fn varint(&self) -> Result<Varint, ConfigError> {
        let mut framing = Varint::new();
        if let Self::Varint { minimal: true, .. } = self {
            framing = framing.minimal();
        }
        match self.max() {
            Some(max) => framing.max_block_len(max),
            None => Ok(framing),
        }
    }

    fn length_field(&self) -> Result<LengthField, ConfigError> {
        let Self::LengthField {
            width,
            unit,
            little_endian,
            offset,
            more,
            adjustment,
            strip,
            clamped,
            ..
        } = *self
        else {
            unreachable!();
        };
        let mut config = LengthField::config()
            .width(usize::from(width % 10))
            .unit(unit.0 as usize)
            .offset(offset.0)
            .adjustment(adjustment.0);
        config.little_endian = little_endian;
        let field_end = offset.0 + usize::from(width % 10);
        config.header_len = more.map(|more| field_end.saturating_add_signed(more.into()));
        config.strip = strip.map(|strip| strip.0);
        if let Some(max) = self.max() {
            config.limit = match clamped {
                true => LengthLimit::Clamped(max),
                false => LengthLimit::Strict(max),
            };
        }
        config.build()
    }

    /// Returns the limit in bytes, if one is set.
    pub(crate) fn max(&self) -> Option<usize> {
        let (smallest, largest) = self.carried();
        match *self {
            Self::LengthPrefix { max, .. }
            | Self::Varint { max, .. }
            | Self::LengthField { max, .. } => max.among(smallest, largest),
            Self::Exact { .. } | Self::Own => None,
        }
    }

    /// Returns the smallest and the largest length of a block without a limit, in bytes.
    fn carried(&self) -> (u64, u64) {
        let unlimited = Reference::unlimited(self);
        unlimited.map_or((0, MAX_LIMIT as u64), |lens| {
            (*lens.start() as u64, *lens.end() as u64)
        })
    }

    fn reference(&self) -> Option<Reference> {
        Reference::new(self)
    }
}

fn checked<F: Framing>(
    framing: Result<F, ConfigError>,
    reference: Option<Reference>,
    visit: impl Visit,
) {
    if let Some((framing, reference)) = agreed(framing, reference) {
        visit.visit(framing, reference);
    }
}

/// Returns both if they can work. Panics if they do not agree on that, or on the lengths they carry.
fn agreed<F: Framing>(
    framing: Result<F, ConfigError>,
    reference: Option<Reference>,
) -> Option<(F, Reference)> {
    match (framing, reference) {
        (Ok(framing), Some(reference)) => {
            assert_eq!(framing.block_lens(), reference.carried, "{reference:?}");
            assert_eq!(
                framing.max_whole_len(),
                *reference.lens.end() as u64,
                "{reference:?}"
            );
            Some((framing, reference))
        }
        (Err(_), None) => None,
        (framing, reference) => panic!("{:?}, and {reference:?}", framing.err()),
    }
}

/// Settings of a codec.
#[cfg_attr(feature = "arbitrary", derive(Arbitrary))]
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub max_decode: Max,
    pub max_encode: Max,
    pub max_retained: Option<Len>,
    pub skip_too_large: bool,
}

impl Settings {
    /// Returns the codec, its limit for receiving, and its limit for sending. A limit that the codec refuses
    /// changes nothing.
    pub fn codec<F: Framing>(
        &self,
        framing: F,
        reference: &Reference,
    ) -> (BlockCodec<F>, usize, usize) {
        let mut codec = BlockCodec::new(framing).skip_too_large(self.skip_too_large);
        if let Some(Len(bytes)) = self.max_retained {
            codec = codec.with_max_retained(bytes);
        }
        let lens = reference.lens.clone();
        let (least, most) = (*lens.start() as u64, *lens.end() as u64);
        let (mut max_decode, mut max_encode) = (*lens.end(), *lens.end());
        if let Some(max) = self.max_decode.among(least, most) {
            let set = codec.set_max_decode_len(max);
            assert_eq!(set.is_ok(), lens.contains(&max), "{max} of {lens:?}");
            max_decode = if set.is_ok() { max } else { max_decode };
        }
        if let Some(max) = self.max_encode.among(least, most) {
            let set = codec.set_max_encode_len(max);
            assert_eq!(set.is_ok(), lens.contains(&max), "{max} of {lens:?}");
            max_encode = if set.is_ok() { max } else { max_encode };
        }
        assert_eq!(codec.max_decode_len(), max_decode);
        assert_eq!(codec.max_encode_len(), max_encode);
        (codec, max_decode, max_encode)
    }

    pub fn max_retained(&self) -> usize {
        self.max_retained
            .map_or(DEFAULT_MAX_RETAINED, |bytes| bytes.0)
    }
}
