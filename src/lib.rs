//! Whole blocks off a TCP stream, for tokio.
//!
//! TCP delivers bytes, not blocks. A receive that asks for 51,200 bytes may complete with 14,283,
//! and a program that takes each completed read for a block counts too many and cuts them in the
//! wrong places. This crate gives exactly the blocks that were sent, or a typed error that says
//! what is missing and where.
//!
//! # Start here
//!
//! A [`BlockTransport`] sends and receives whole blocks over a `TcpStream` or any other tokio transport:
//!
//! ```
//! use tokio::net::{TcpListener, TcpStream};
//! use wholeblock::{BlockCodec, BlockError, BlockTransport};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), BlockError> {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let socket = TcpStream::connect(listener.local_addr()?).await?;
//! socket.set_nodelay(true)?;
//! let mut client = BlockTransport::new(socket, BlockCodec::length_prefixed());
//! let (socket, _) = listener.accept().await?;
//! let mut server = BlockTransport::new(socket, BlockCodec::length_prefixed());
//!
//! client.send("a request").await?;
//! let block = server.next().await.expect("one block")?;
//! assert_eq!(block, "a request");
//! # Ok(())
//! # }
//! ```
//!
//! # Which form to use
//!
//! | you want to | use |
//! |---|---|
//! | pass blocks to other tasks, or to code that takes any `Stream` | [`next`](BlockTransport::next) |
//! | send blocks, or give them to code that takes any `Sink` | [`send`](BlockTransport::send), [`feed`](BlockTransport::feed) |
//! | send a header and a body, or other pieces, as one block | [`send((header, body))`](Payload#in-several-pieces) |
//! | finish with each block before the next: write it to a file, hash it, parse it | [`recv`](BlockTransport::recv) |
//! | process very many small blocks | [`recv_batch`](BlockTransport::recv_batch) |
//! | receive blocks of any length, 64 KiB at a time, for example into a file | [`recv_reader`](BlockTransport::recv_reader) |
//! | receive blocks in memory of your own | [`recv_into`](BlockTransport::recv_into) |
//! | send a block of any length out of a file or another reader | [`send_from`](BlockTransport::send_from) |
//! | relay blocks to another connection | [`recv_into`, `recv_reader` and `send_from`, in a loop](questions#how-do-i-write-a-proxy-between-two-framings) |
//! | send a stream of blocks, from memory or from a channel | [`send_blocks`], [`try_send_blocks`] |
//! | read exactly 100 blocks, count them, and leave what follows unread | [`recv_blocks`], with [`stop_after`](RecvBlocks::stop_after) and [`at_least`](RecvBlocks::at_least) |
//!
//! You can use all of them on one connection, in any order. Nothing is lost or repeated. A `BlockTransport`
//! is a `Sink` and a `Stream`, too. It writes large blocks without a copy, and many small ones at once.
//!
//! Where something asks for a [`Framed`](tokio_util::codec::Framed), a [`BlockCodec`] is also a tokio-util
//! `Decoder` and `Encoder`, and [`recv_blocks`] and [`send_blocks`] take that `Framed`. It copies each block
//! into its write buffer, and writes every 8 KiB. For blocks that are shorter,
//! `framed.set_backpressure_boundary(64 * 1024)` is faster.
//!
//! # Framings
//!
//! The codec's [`Framing`] decides what is on the wire:
//!
//! | framing | on the wire | made by |
//! |---|---|---|
//! | [`Exact`] | blocks of one length, nothing else | [`BlockCodec::exact(n)?`](BlockCodec::exact) |
//! | [`LengthPrefix`] | a length of 1 to 8 bytes before each block | [`BlockCodec::length_prefixed()`](BlockCodec::length_prefixed), [`BlockCodec::new`] |
//! | [`LengthField`] | a header with a length anywhere in it, stripped or kept | [`LengthField::config()`](LengthField::config), [`BlockCodec::new`] |
//! | [`Varint`] | a LEB128 length before each block, as protobuf's delimiter | [`BlockCodec::new`] |
//! | [`AnyFraming`] | one of these, chosen while the program runs | [`BlockCodec::new`] |
//! | [`InOut`] | one of these for what is received, another for what is sent | [`BlockCodec::new`] |
//! | your own | any header that says how long the payload is | [`BlockCodec::new`] |
//!
//! # Nagle's algorithm
//!
//! Call `socket.set_nodelay(true)` on a `TcpStream`. Without it the system holds back a short
//! segment until the one before it is acknowledged, so a small block that is flushed may wait for
//! a round trip, or for the peer's delayed acknowledgement, which commonly takes 40 ms.
//!
//! # A whole program
//!
//! ```
//! use std::time::Duration;
//!
//! use futures::{SinkExt, stream};
//! use tokio::net::{TcpListener, TcpStream};
//! use wholeblock::{BlockCodec, BlockError, BlockTransport, recv_blocks, send_blocks};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let listener = TcpListener::bind("127.0.0.1:0").await?;
//!     let address = listener.local_addr()?;
//!
//!     let sender = tokio::spawn(async move {
//!         let socket = TcpStream::connect(address).await?;
//!         socket.set_nodelay(true)?;
//!         let mut transport = BlockTransport::new(socket, BlockCodec::length_prefixed());
//!         let blocks = (0..100_u8).map(|n| vec![n; 51_200]);
//!         let sent = send_blocks(&mut transport, stream::iter(blocks)).await?;
//!         transport.close().await?;
//!         Ok::<_, BlockError>(sent)
//!     });
//!
//!     let (socket, _) = listener.accept().await?;
//!     let mut transport = BlockTransport::new(socket, BlockCodec::length_prefixed());
//!     let mut blocks = recv_blocks(&mut transport).stall_timeout(Duration::from_secs(30));
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
//! | `TimedOut` | the peer's, the network's, or the caller's if it paused inside a block: a timeout expired |
//! | any other | the transport's, or the source's |
//!
//! # Timeouts
//!
//! There are no timeouts by default. A transport has two for receiving and one for sending. They apply to
//! every way of receiving or sending:
//!
//! - [`stall_timeout`](BlockTransport::stall_timeout) ends a wait in which no bytes arrive, between two
//!   blocks or inside of one: for a peer that may be gone.
//! - [`block_deadline`](BlockTransport::block_deadline) ends the wait for a block whose first bytes have
//!   arrived. It does not limit the time between blocks. Use it for a peer that sends a byte now and then.
//! - [`write_timeout`](BlockTransport::write_timeout) ends a wait in which the transport below takes no bytes:
//!   for a peer that does not read, or reads very slowly.
//!
//! [`recv_blocks`] and [`send_blocks`] may set their own ([`RecvBlocks::stall_timeout`],
//! [`RecvBlocks::block_deadline`], [`SendBlocks::stall_timeout`], [`SendBlocks::block_deadline`]), and have
//! none otherwise over a `Framed`. Of a receiver's timeout and the transport's, the shorter one applies. A
//! sender's timeout replaces the transport's. Only [`SendBlocks`] has a deadline for a block that is sent.
//!
//! On a thread that is busy with other tasks, a timeout comes late, as with `tokio::time::timeout`. Everything
//! that has arrived is read before a stall is reported.
//!
//! # Cancel safety
//!
//! Any future of this crate can be dropped at any await. A block that was not wholly received
//! stays in the read buffer. A block that was taken from its source is on the wire or queued, and
//! the next flush completes it.
//!
//! A block that is moved part by part is in between. If its [`BlockReader`] is dropped, the rest of it is
//! discarded. If a [`send_from`](BlockTransport::send_from) is dropped, the rest must be sent before
//! anything else can be.
//!
//! # Tracing
//!
//! A transfer is a span (`recv_blocks`, `send_blocks`) with an event at its start and its end, at
//! debug level. It is a child of the span in which it was made, so make it in a span of your own to tell
//! connections apart. Each read and write is an event at trace level. A read that brings blocks to skip is
//! an event at debug level. No event is made for each block, and none holds payload bytes.
//!
//! # Questions
//!
//! [`questions`] has what new users asked: headers of one's own, trailers, another framing in mid-stream,
//! blocks inside other blocks, text where a length should be, blocks of 5 GiB, several requests at once,
//! both ends that wait for ever, how to end a connection, child processes, blocking code, files that grow,
//! TLS, peers that are gone, timeouts that never fire, statistics, proxies.
//!
//! The package also has [the framings of two dozen protocols][migration], [measured speeds][speed] and
//! [examples].
//!
//! [examples]: https://docs.rs/crate/wholeblock/latest/source/examples/
//! [migration]: https://docs.rs/crate/wholeblock/latest/source/docs/migration.md
//! [speed]: https://docs.rs/crate/wholeblock/latest/source/docs/speed.md

// A map of the modules. Bytes come in at the bottom and blocks go out at the top. A module uses only
// those below it, by their own paths.
//
//   transport         BlockTransport: receiving and sending, each with its futures
//   helpers/          recv_blocks, send_blocks: over any stream or sink of blocks
//   codec             what users configure, and tokio-util's Decoder and Encoder
//   payload           what blocks to send are made of
//   read/ | write/    the decoder and its buffer | the queue, and writing it
//   pool              spare buffers, one of each kind a thread
//   framing/          how a block is delimited on the wire, one framing a file
//   coop | timeout    sharing the thread | waits that last too long, and blocks that come too slowly
//   error | stats     what went wrong, and where | what was moved

mod codec;
mod coop;
mod error;
#[expect(
    private_interfaces,
    reason = "a hidden method is sealed by a type that nobody else can name"
)]
mod framing;
mod helpers;
mod payload;
mod pool;
#[cfg(any(doc, doctest))]
pub mod questions;
mod read;
mod stats;
mod timeout;
mod transport;
mod write;

pub use self::{
    codec::BlockCodec,
    error::{BlockError, BlockPart, CodecError, ConfigError, Direction, HeaderBytes},
    framing::{
        AnyFraming, ContractViolation, Exact, Framing, Header, InOut, InvalidHeader, LengthField,
        LengthFieldConfig, LengthLimit, LengthPrefix, Varint, check_framing,
    },
    helpers::{
        BlockSink, BlockStream, Next, RecvBlocks, SendBlocks, recv_blocks, send_blocks,
        try_send_blocks,
    },
    payload::Payload,
    stats::{TransferStats, TransportStats},
    transport::{
        Batch, BlockReader, BlockTransport, Close, ExpectNext, FeedBlock, Flush, NextBlock, Recv,
        RecvBatch, RecvInto, RecvReader, SendBlock, SendFrom,
    },
    write::Pieces,
};

/// Numbers that the tests and benchmarks of this repository compare with. They are no part of the API.
#[doc(hidden)]
pub mod internals {
    pub use crate::{
        coop::{RECEIVED_PER_TURN, SENT_PER_TURN},
        pool::INITIAL_CAPACITY,
        read::{BATCH, DEFAULT_MAX_RETAINED, HEADER_SLACK},
        write::{CHAIN_THRESHOLD, FIRST_WRITE, FULL_WRITE, MAX_SLICES, PARTS, max_spare},
    };
}

/// The README's programs are compiled and run with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So is the program that SECURITY.md shows.
#[cfg(doctest)]
#[doc = include_str!("../SECURITY.md")]
struct Security;
