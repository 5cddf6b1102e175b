//! The read side: takes whole blocks out of a buffer. It does no I/O, and the caller passes the parser.
//!
//! ```text
//! decoder   takes and lends blocks, and counts them
//! front     looks at the front of the buffer: the decoder's transitions
//! state     the decoder's states, in a diagram
//! buffer    chooses the buffer's allocation
//! growth    decides how large the buffer is: numbers only
//! frame     parses one block's front
//! parts     a block that is taken part by part
//! direct    a block that is read straight into the caller's memory
//! ```

mod buffer;
mod decoder;
mod direct;
mod frame;
mod front;
mod growth;
mod parts;
mod state;

pub use self::growth::{BATCH, DEFAULT_MAX_RETAINED, HEADER_SLACK};
pub(crate) use self::{
    buffer::reclaim_exceeds,
    decoder::{DecodeState, Position, ReadStats},
    direct::{Direct, ForMemory, LEAST_DIRECT},
    frame::{FrameLen, FrameParser, longest},
};
