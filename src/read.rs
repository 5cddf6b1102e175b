//! The read side: takes whole blocks out of a buffer. It knows neither a transport nor a framing's type.
//!
//! ```text
//! decoder   takes and lends blocks, and counts them
//! front     what comes first in the buffer: the decoder's transitions
//! state     its states, drawn
//! read_buf  how large the buffer is, and which allocation
//! frame     parses one block's front
//! ```

mod decoder;
mod frame;
mod front;
mod read_buf;
mod state;

pub use self::read_buf::{BATCH, DEFAULT_MAX_RETAINED, HEADER_SLACK, INITIAL_CAPACITY};
pub(crate) use self::{
    decoder::{DecodeState, Position, ReadStats},
    frame::{FrameLen, FrameParser, longest},
    read_buf::reclaim_exceeds,
};
