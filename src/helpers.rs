//! Helpers around anything that is a stream or a sink of blocks.

#[expect(
    private_interfaces,
    reason = "the traits are sealed by types that nobody else can name"
)]
mod over;
mod recv;
mod send;

pub use self::{
    over::{BlockSink, BlockStream},
    recv::{Next, RecvBlocks, recv_blocks},
    send::{SendBlocks, send_blocks, try_send_blocks},
};
