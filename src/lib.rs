//! Whole blocks off a TCP stream, for tokio.
//!
//! TCP delivers bytes, not blocks. A receive that asks for 51,200 bytes may complete with 14,283,
//! and a program that takes each completed read for a block counts too many and cuts them in the
//! wrong places. This crate gives exactly the blocks that were sent, or a typed error that says
//! what is missing and where.
//!
//! [`BlockCodec`] is a `Decoder` and `Encoder` for [`Framed`](tokio_util::codec::Framed) and its
//! halves, over a `TcpStream` or any other tokio transport. Its [`Framing`] decides what is on the
//! wire:
//!
//! | framing | on the wire | made by |
//! |---|---|---|
//! | [`Exact`] | blocks of one length, nothing else | [`BlockCodec::exact(n)?`](BlockCodec::exact) |
//! | [`LengthPrefix`] | a length of 1 to 8 bytes before each block | [`BlockCodec::length_prefixed()`](BlockCodec::length_prefixed), [`BlockCodec::new`] |
//! | [`Varint`] | a LEB128 length before each block, as protobuf's delimiter | [`BlockCodec::new`] |
//! | your own | any header that says how long the payload is | [`BlockCodec::new`] |
//!
//! # Which form to use
//!
//! * **[`recv_blocks`] and [`send_blocks`]** where throughput counts: a received block is lent as
//!   `&[u8]`, without an allocation or a copy, and blocks are sent many in one system call, large
//!   ones without a copy.
//! * **`Stream` and `Sink`** (`framed.next()`, `framed.send(block)`) where blocks are handed on to
//!   other tasks or code that takes any stream: owned blocks, `BytesMut` out and `Bytes` in. Where
//!   many are fed one after another, `codec.framed(socket)` makes a `Framed` that writes less often
//!   than that of `Framed::new(socket, codec)`: for blocks of 1 KiB, three times as fast.
//!
//! They mix: a `Framed` is back as it was after either helper, and loses and repeats nothing.
//!
//! # A whole program
//!
//! ```
//! use std::time::Duration;
//!
//! use futures::{SinkExt, stream};
//! use tokio::net::{TcpListener, TcpStream};
//! use tokio_util::codec::Framed;
//! use wholeblock::{BlockCodec, BlockError, recv_blocks, send_blocks};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let listener = TcpListener::bind("127.0.0.1:0").await?;
//!     let address = listener.local_addr()?;
//!
//!     let sender = tokio::spawn(async move {
//!         let socket = TcpStream::connect(address).await?;
//!         let mut framed = Framed::new(socket, BlockCodec::length_prefixed());
//!         let blocks = (0..100_u8).map(|n| vec![n; 51_200]);
//!         let sent = send_blocks(&mut framed, stream::iter(blocks)).await?;
//!         framed.close().await?;
//!         Ok::<_, BlockError>(sent)
//!     });
//!
//!     let (socket, _) = listener.accept().await?;
//!     let mut framed = Framed::new(socket, BlockCodec::length_prefixed());
//!     let mut blocks = recv_blocks(&mut framed).stall_timeout(Duration::from_secs(30));
//!     while let Some(block) = blocks.next().await? {
//!         assert_eq!(block.len(), 51_200);
//!     }
//!     println!("received {}", blocks.stats());
//!     println!("sent     {}", sender.await??);
//!     # assert_eq!(blocks.stats().blocks, 100);
//!     Ok(())
//! }
//! ```
//!
//! # Errors
//!
//! Whatever a stream does wrong is a [`BlockError`] with its numbers. A clean end is an end between
//! blocks; an end anywhere else, a header included, is [`BlockError::Truncated`]. A configuration
//! that cannot work is a [`ConfigError`] when it is built. Both become an
//! [`io::Error`](std::io::Error) whose kind says who has to act:
//!
//! | kind | whose fault |
//! |---|---|
//! | `UnexpectedEof`, `InvalidData` | the peer's: it stopped short, or sent what the framing does not allow |
//! | `InvalidInput` | the caller's |
//! | `TimedOut` | nobody's: nothing moved for the stall timeout |
//! | any other | the transport's, or the source's |
//!
//! # Cancel safety
//!
//! Any future of this crate can be dropped at any await. A block that was not wholly received
//! stays in `Framed`'s read buffer. A block that was taken from its source is on the wire or in
//! `Framed`'s write buffer, and the next flush completes it.
//!
//! # Tracing
//!
//! A transfer is a span (`recv_blocks`, `send_blocks`) with an event at its start and its end, at
//! debug level; each read and write is an event at trace level. There is none per block, and none
//! holds payload bytes.

// A map of the modules. Bytes come in at the bottom and blocks go out at the top; a module uses
// those below it only.
//
//   recv | send       lending blocks | sending a stream of blocks
//   framed            what `Framed` and its halves lend to these two
//   codec | write     the decoder's states, the encoder | queue, block lengths, flushes
//   frame | read_buf  parsing one block's front | the read buffer's capacity, the pool
//   framing           how a block is delimited on the wire, one framing a file
//   error | stats | stall   what went wrong, and where | what was moved | waits that last too long

mod codec;
mod error;
mod frame;
mod framed;
mod framing;
mod read_buf;
mod recv;
mod send;
mod stall;
mod stats;
mod write;

pub use self::{
    codec::BlockCodec,
    error::{BlockError, ConfigError, Part},
    framed::{AsFramedRead, AsFramedWrite},
    framing::{Exact, Framing, Header, InvalidHeader, LengthPrefix, Varint},
    recv::{Batch, RecvBlocks, recv_blocks},
    send::{SendBlocks, send_blocks, try_send_blocks},
    stats::TransferStats,
};

/// The README's programs are compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
