//! Helpers around anything that is a stream or a sink of blocks.

mod over;
mod recv;
mod send;

pub(crate) use self::over::sealed;
pub use self::{
    over::{AsFramedRead, AsFramedWrite},
    recv::{Next, RecvBlocks, recv_blocks},
    send::{SendBlocks, send_blocks, try_send_blocks},
};
