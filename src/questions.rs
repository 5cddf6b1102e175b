//! What new users asked, answered.
//!
//! # How do I see a block's header, and send one of my own?
//!
//! Use [`LengthField`] with [`keep_header`]. Each received block then begins with its header, and so must
//! each block that you send. With [`strip`], only a part of the header is kept. A block whose header
//! contradicts its length is refused with [`WrongHeader`].
//!
//! You can send the header and the body as [pieces of one block], `blocks.send((header, body))`, without a
//! copy of a large body.
//!
//! # How do I check a trailer?
//!
//! A framing sees only headers, so an end byte or a checksum after the payload is a part of the block. Add
//! the trailer's length to the [`adjustment`], append the trailer to each block that you send, and check it in
//! each block that you receive. AMQP 0-9-1 has an end byte, which its length does not count:
//!
//! ```
//! use bytes::{BufMut, Bytes, BytesMut};
//! use tokio_util::codec::{Decoder, Encoder};
//! use wholeblock::{BlockCodec, LengthField};
//!
//! const END: u8 = 0xce;
//!
//! fn frame(kind: u8, channel: u16, payload: &[u8]) -> Bytes {
//!     let mut frame = vec![kind];
//!     frame.put_u16(channel);
//!     frame.put_u32(payload.len() as u32);
//!     frame.put_slice(payload);
//!     frame.put_u8(END);
//!     frame.into()
//! }
//!
//! /// The payload of a frame that ends as it should.
//! fn payload(frame: &[u8]) -> Option<&[u8]> {
//!     frame[7..].strip_suffix(&[END])
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A type, a channel of 2 bytes, a length of 4 bytes; a frame has at least these 7 bytes and the end byte.
//! let frames = LengthField::config().offset(3).adjustment(1).keep_header().build()?;
//! let mut codec = BlockCodec::new(frames);
//! let mut wire = BytesMut::new();
//! codec.encode(frame(1, 1, b"\0\x14\0\x0a\0"), &mut wire)?; // Channel.Open
//! assert_eq!(wire, &b"\x01\0\x01\0\0\0\x05\0\x14\0\x0a\0\xce"[..]);
//! let unended = frame(1, 1, b"").slice(..7);
//! assert!(codec.encode(unended, &mut wire).is_err()); // it is shorter than its length says
//!
//! let open = codec.decode(&mut wire)?.expect("a frame");
//! assert_eq!(payload(&open), Some(&b"\0\x14\0\x0a\0"[..]));
//! wire.extend_from_slice(b"\x08\0\0\0\0\0\0\xce\x08\0\0\0\0\0\0\0"); // two heartbeats
//! assert_eq!(payload(&codec.decode(&mut wire)?.expect("a frame")), Some(&b""[..]));
//! assert_eq!(payload(&codec.decode(&mut wire)?.expect("a frame")), None); // the end byte is wrong
//! # Ok(())
//! # }
//! ```
//!
//! # May requests and replies have different framings?
//!
//! Yes. [`InOut`] has a framing for each direction, and its page shows a client and a server.
//!
//! # How do I change the framing in mid-stream?
//!
//! Call [`BlockTransport::map_codec`] with [`BlockCodec::with_framing`], after the last block of the old
//! framing and at the same block on both ends. The new framing reads the bytes that were read ahead. A
//! `Framed` has a `map_codec`, too. Make a transport of a `FramedRead` first, as
//! [`with_framing`](crate::BlockCodec::with_framing) says.
//!
//! A line first, and then blocks:
//!
//! ```
//! use bytes::BufMut;
//! use wholeblock::{BlockCodec, BlockTransport, Framing, Header, InvalidHeader, LengthPrefix};
//!
//! /// A line of up to 80 bytes, `\n` included, which is kept.
//! #[derive(Clone)]
//! struct Line;
//!
//! impl Framing for Line {
//!     fn block_lens(&self) -> std::ops::RangeInclusive<u64> {
//!         1..=80
//!     }
//!
//!     fn max_header_len(&self) -> usize {
//!         80
//!     }
//!
//!     fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
//!         Ok(match front.iter().position(|byte| *byte == b'\n') {
//!             Some(at) => Header::Complete { stripped: 0, block_len: at as u64 + 1 },
//!             None => Header::Incomplete { at_least: front.len() + 1 },
//!         })
//!     }
//!
//!     fn encode_header(&self, _: u64, _: &mut impl BufMut) {} // the line brings its `\n` along
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (near, far) = tokio::io::duplex(1024);
//! let mut client = BlockTransport::new(near, BlockCodec::new(Line));
//! client.feed("blocks 1.0\n").await?;
//! let mut client = client.map_codec(|codec| codec.with_framing(LengthPrefix::u16()));
//! client.send("hello").await?; // in one write with the line
//!
//! let mut server = BlockTransport::new(far, BlockCodec::new(Line));
//! assert_eq!(server.expect_next().await?, "blocks 1.0\n");
//! let mut server = server.map_codec(|codec| codec.with_framing(LengthPrefix::u16()));
//! assert_eq!(server.expect_next().await?, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! # May a `Framing` have state?
//!
//! It may have settings, which [`decode_header`] must not change. The decoder calls it any number of times for
//! one header, at least once for each read that brings a part of it, and [`recv_batch`] calls it on a clone. To
//! change a setting between two blocks, set another framing of the same type.
//!
//! ```
//! use wholeblock::{BlockCodec, BlockError, BlockTransport, LengthPrefix};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BlockError> {
//! let wire = &b"\0\x04wide\0\0\0\x05hello"[..];
//! let mut blocks = BlockTransport::new(wire, BlockCodec::new(LengthPrefix::u16()));
//! assert_eq!(blocks.expect_next().await?, "wide"); // what follows has lengths of 4 bytes
//! blocks.set_framing(LengthPrefix::u32());
//! assert_eq!(blocks.expect_next().await?, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Can a framing look for the next block after garbage?
//!
//! Yes: it strips the garbage as a part of the header, up to 64 KiB or its [`max_header_len`]. More garbage
//! ends the stream with [`InvalidHeader`]. The framing takes garbage that looks like a header for one, so
//! check what you receive.
//!
//! ```
//! use bytes::{BufMut, BytesMut};
//! use tokio_util::codec::Decoder;
//! use wholeblock::{BlockCodec, Framing, Header, InvalidHeader, check_framing};
//!
//! /// Anything, a mark of 2 bytes, and a length of 2 bytes.
//! #[derive(Clone)]
//! struct Marked;
//!
//! impl Framing for Marked {
//!     fn block_lens(&self) -> std::ops::RangeInclusive<u64> {
//!         0..=65_535
//!     }
//!
//!     fn decode_header(&self, front: &[u8]) -> Result<Header, InvalidHeader> {
//!         let mark = front.windows(2).position(|two| two == b"\xfa\xce");
//!         Ok(match mark.map(|at| (at + 4, front.get(at + 2..at + 4))) {
//!             Some((stripped, Some(length))) => {
//!                 let block_len = u64::from(length[0]) << 8 | u64::from(length[1]);
//!                 Header::Complete { stripped, block_len }
//!             }
//!             Some((at_least, None)) => Header::Incomplete { at_least },
//!             None => Header::Incomplete { at_least: (front.len() + 1).max(4) },
//!         })
//!     }
//!
//!     fn encode_header(&self, block_len: u64, dst: &mut impl BufMut) {
//!         dst.put_slice(b"\xfa\xce");
//!         dst.put_u16(block_len as u16); // in `block_lens`, so it fits
//!     }
//! }
//!
//! check_framing(&Marked)?;
//! let mut arrived = BytesMut::from(&b"\xfa\xce\0\x03one noise \xfa\xce\0\x03two"[..]);
//! let mut codec = BlockCodec::new(Marked);
//! assert_eq!(codec.decode(&mut arrived)?.expect("a block"), "one");
//! assert_eq!(codec.decode(&mut arrived)?.expect("a block"), "two");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is this huge length?
//!
//! Most often, the peer speaks another protocol, and the bytes are text or TLS. The error shows the header's
//! bytes. If they are a length, your framing has the wrong byte order or width. To notice this even if the
//! length is not huge, set a low limit with [`set_max_decode_len`] until the first answer has come.
//!
//! ```
//! use bytes::BytesMut;
//! use tokio_util::codec::Decoder;
//! use wholeblock::BlockCodec;
//!
//! let mut arrived = BytesMut::from("HTTP/1.1 400 Bad Request\r\n");
//! assert_eq!(
//!     BlockCodec::length_prefixed().decode(&mut arrived).unwrap_err().to_string(),
//!     "block 0, which begins at byte 0, announces 1213486160 bytes; the limit is 8388608 \
//!      (header: 48 54 54 50 \"HTTP\")",
//! );
//! ```
//!
//! # How do I join a message that is split over several blocks?
//!
//! Collect blocks until one says that it is the last. In MySQL, a packet with a payload of 16,777,215 bytes
//! says that the next packet continues the payload. Limit how much you collect.
//!
//! ```
//! use std::io;
//!
//! use tokio::io::AsyncRead;
//! use wholeblock::{BlockCodec, BlockError, BlockTransport, LengthField};
//!
//! const MAX: usize = 0xff_ffff;
//!
//! /// Returns the sequence number of the payload's last packet, and the payload.
//! async fn payload<T: AsyncRead + Unpin>(
//!     packets: &mut BlockTransport<T, LengthField>,
//!     limit: usize,
//! ) -> Result<(u8, Vec<u8>), BlockError> {
//!     let mut payload = Vec::new();
//!     loop {
//!         let packet = packets.expect_next().await?;
//!         payload.extend_from_slice(&packet[4..]); // behind the length and the sequence number
//!         if payload.len() > limit {
//!             return Err(io::Error::new(io::ErrorKind::InvalidData, "too long a payload").into());
//!         }
//!         if packet.len() < 4 + MAX {
//!             return Ok((packet[3], payload));
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let packets = LengthField::config().width(3).little_endian().adjustment(1).header_len(4);
//! let packets = packets.keep_header().max_block_len(4 + MAX).build()?;
//! let mut sender = BlockTransport::new(Vec::new(), BlockCodec::new(packets));
//! let sent = vec![7; MAX + 1];
//! sender.send((b"\xff\xff\xff\0", &sent[..MAX])).await?;
//! sender.send((b"\x01\0\0\x01", &sent[MAX..])).await?; // of 0 bytes, if nothing is left
//! let wire = sender.into_inner();
//! let mut receiver = BlockTransport::new(&wire[..], BlockCodec::new(packets));
//! assert_eq!(payload(&mut receiver, 64 << 20).await?, (1, sent));
//! # Ok(())
//! # }
//! ```
//!
//! # How do I receive blocks that are inside the blocks of another framing?
//!
//! Append the payloads of the outer blocks to a buffer, and pass the buffer to a second codec. An inner block
//! may begin in one outer block and end in another. For example, gRPC's messages in the DATA frames of HTTP/2:
//!
//! ```
//! use bytes::BytesMut;
//! use tokio_util::codec::Decoder;
//! use wholeblock::{BlockCodec, BlockTransport, LengthField};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A message of 5 bytes, behind a flag and a length, in two frames of stream 1.
//! let wire = b"\0\0\x07\0\0\0\0\0\x01\0\0\0\0\x05he\0\0\x03\0\x01\0\0\0\x01llo";
//! let frames = LengthField::config().width(3).adjustment(6).header_len(9).keep_header().build()?;
//! let messages = LengthField::config().offset(1).keep_header().build()?;
//!
//! let mut frames = BlockTransport::new(&wire[..], BlockCodec::new(frames));
//! let mut messages = BlockCodec::new(messages); // one for each stream, with a buffer
//! let mut arrived = BytesMut::new();
//! let mut received = Vec::new();
//! while let Some(frame) = frames.recv().await? {
//!     if frame[3] == 0 {
//!         arrived.extend_from_slice(&frame[9..]); // DATA
//!     }
//!     while let Some(message) = messages.decode(&mut arrived)? {
//!         received.push(message);
//!     }
//! }
//! assert!(messages.decode_eof(&mut arrived)?.is_none()); // an error if a message is cut
//! assert_eq!(received, [&b"\0\0\0\0\x05hello"[..]]);
//! # Ok(())
//! # }
//! ```
//!
//! # May a `BlockCodec` be inside another codec?
//!
//! Yes, if you forward `decode_eof` as well as `decode`. `Decoder`'s default `decode_eof` knows nothing of
//! blocks: it reports an end inside a block as "bytes remaining on stream", and an end inside a skipped
//! block as a clean end.
//!
//! ```
//! use bytes::BytesMut;
//! use tokio_util::codec::Decoder;
//! use wholeblock::{BlockCodec, BlockError, LengthPrefix};
//!
//! struct Text(BlockCodec<LengthPrefix>);
//!
//! fn text(block: BytesMut) -> String {
//!     String::from_utf8_lossy(&block).into_owned()
//! }
//!
//! impl Decoder for Text {
//!     type Item = String;
//!     type Error = BlockError;
//!
//!     fn decode(&mut self, src: &mut BytesMut) -> Result<Option<String>, BlockError> {
//!         Ok(self.0.decode(src)?.map(text))
//!     }
//!
//!     fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<String>, BlockError> {
//!         Ok(self.0.decode_eof(src)?.map(text))
//!     }
//! }
//!
//! let mut arrived = BytesMut::from(&b"\0\0\0\x05hello\0\0\0\x05wo"[..]);
//! let mut codec = Text(BlockCodec::length_prefixed());
//! assert_eq!(codec.decode(&mut arrived)?.as_deref(), Some("hello"));
//! assert_eq!(
//!     codec.decode_eof(&mut arrived).unwrap_err().to_string(),
//!     "stream ended inside block 1, which begins at byte 9: 2 of 5 payload bytes arrived",
//! );
//! # Ok::<(), BlockError>(())
//! ```
//!
//! # May I go on after `WrongSize`?
//!
//! Yes: nothing of the refused block was sent, and all blocks before it were. Pass `&mut source` to
//! [`send_blocks`], and the next [`send_blocks`] can send the rest of the source.
//!
//! ```
//! use futures::stream;
//! use wholeblock::{BlockCodec, BlockError, BlockTransport, send_blocks};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (near, _far) = tokio::io::duplex(1024);
//! let mut blocks = BlockTransport::new(near, BlockCodec::exact(3)?);
//! let mut source = stream::iter(["one", "two", "three", "six"]);
//! let error = send_blocks(&mut blocks, &mut source).await.unwrap_err();
//! assert!(matches!(error, BlockError::WrongSize { actual: 5, index: 2, .. }));
//! let rest = send_blocks(&mut blocks, &mut source).await?;
//! assert_eq!(rest.blocks, 1); // "six"
//! # Ok(())
//! # }
//! ```
//!
//! # How do I take an upload of any length in a service whose other requests are small?
//!
//! Receive it with [`recv_reader`], and set a low limit for whole blocks, which does not apply to the reader.
//! The reader knows the upload's length before it reads any of it, and holds at most 64 KiB. The client sends
//! the upload with [`send_from`].
//!
//! To refuse an upload, drop the reader, and answer at once. The transport discards the rest of the upload
//! before the next request, under the same timeouts. To refuse every upload over a limit, call
//! [`set_max_reader_len`], [`skip_too_large`] and [`report_skipped`]: `recv_reader` then returns
//! [`Skipped`](crate::BlockError::Skipped), and the stream goes on.
//!
//! A client can stop early at a refusal: it reads while it sends, with a transport for each half of the
//! socket, and closes the connection when it reads the refusal.
//!
//! ```
//! use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite};
//! use wholeblock::{BlockCodec, BlockTransport, LengthPrefix};
//!
//! async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
//!     let mut codec = BlockCodec::new(LengthPrefix::u64());
//!     codec.set_max_block_len(64 * 1024)?;
//!     let mut blocks = BlockTransport::new(socket, codec);
//!     while let Some(request) = blocks.recv().await? {
//!         let answer = match request {
//!             b"upload" => match blocks.recv_reader().await? {
//!                 Some(upload) if upload.len() > 1_000_000 => {
//!                     format!("{} bytes are too many", upload.len()).into() // it is dropped
//!                 }
//!                 Some(mut upload) => {
//!                     io::copy_buf(&mut upload, &mut io::sink()).await?; // or a file
//!                     b"stored".to_vec()
//!                 }
//!                 None => break,
//!             },
//!             other => other.to_ascii_uppercase(),
//!         };
//!         blocks.send(answer).await?;
//!     }
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (near, far) = io::duplex(64 * 1024);
//! let serving = tokio::spawn(serve(far));
//! let mut client = BlockTransport::new(near, BlockCodec::new(LengthPrefix::u64()));
//! for (len, answer) in [(900_000, "stored"), (9_000_000, "9000000 bytes are too many")] {
//!     client.feed("upload").await?;
//!     client.send_from(len, io::repeat(7).take(len)).await?; // or a file
//!     assert_eq!(client.expect_next().await?, answer);
//! }
//! client.send("hello").await?;
//! assert_eq!(client.expect_next().await?, "HELLO");
//! client.close().await?;
//! serving.await??;
//! # Ok(())
//! # }
//! ```
//!
//! A [`block_deadline`] applies to an upload as to any block: from its first bytes to its last, whether you
//! read or discard them. The time in which the service writes the upload elsewhere counts, too. Choose a
//! deadline that suits the requests, and set a longer one with [`set_block_deadline`] before each upload. The
//! request before the upload can say how long the upload is. Set the shorter one again when the next request
//! has come, because the rest of a dropped upload is read first.
//!
//! `copy_buf` returns one [`io::Error`](std::io::Error) for both sides. To keep the connection when the disk
//! is full, write the loop yourself: an error of `fill_buf` is the client's, one of `write_all` the disk's.
//!
//! # How do I write a proxy between two framings?
//!
//! Split both sockets, and relay each direction by itself. Blocks of up to 16 KiB are copied, and flushed once
//! no other block is ready. Longer ones are relayed part by part. [`recv_reader`] and [`send_from`] could relay
//! all of them, but [`send_from`] flushes after each block.
//!
//! ```
//! use futures::FutureExt;
//! use tokio::{
//!     io::{self, AsyncRead, AsyncWrite},
//!     net::TcpStream,
//!     try_join,
//! };
//! use wholeblock::{BlockCodec, BlockError, BlockTransport, Framing, LengthPrefix, Varint};
//!
//! /// Relays until `from` ends, and then closes `to`.
//! async fn relay<R, F, W, G>(
//!     mut from: BlockTransport<R, F>,
//!     mut to: BlockTransport<W, G>,
//! ) -> Result<(), BlockError>
//! where
//!     R: AsyncRead + Unpin,
//!     F: Framing,
//!     W: AsyncWrite + Unpin,
//!     G: Framing,
//! {
//!     let mut small = vec![0; 16 * 1024];
//!     loop {
//!         let received = match from.recv_into(&mut small).now_or_never() {
//!             Some(received) => received,
//!             None => {
//!                 to.flush().await?;
//!                 from.recv_into(&mut small).await
//!             }
//!         };
//!         match received {
//!             Ok(Some(len)) => to.feed(&small[..len]).await?,
//!             Ok(None) => return to.close().await,
//!             Err(BlockError::NoRoom { .. }) => {
//!                 let long = from.recv_reader().await?.expect("its header has come");
//!                 to.send_from(long.len(), long).await?;
//!             }
//!             Err(error) => return Err(error),
//!         }
//!     }
//! }
//!
//! async fn proxy(mut client: TcpStream, mut server: TcpStream) -> io::Result<()> {
//!     // `relay` holds at most 64 KiB of a block, so set this limit as high as the blocks that you relay.
//!     let varints = || Varint::new().max_block_len(1 << 30).map(BlockCodec::new);
//!     let u32s = || LengthPrefix::u32().max_block_len(1 << 30).map(BlockCodec::new);
//!     let relayed = {
//!         let (from_client, to_client) = client.split();
//!         let (from_server, to_server) = server.split();
//!         try_join!(
//!             relay(
//!                 BlockTransport::new(from_client, varints()?),
//!                 BlockTransport::new(to_server, u32s()?),
//!             ),
//!             relay(
//!                 BlockTransport::new(from_server, u32s()?),
//!                 BlockTransport::new(to_client, varints()?),
//!             ),
//!         )
//!     };
//!     if relayed.is_err() {
//!         // Resets both, so that nobody takes the end for a clean one.
//!         client.set_zero_linger()?;
//!         server.set_zero_linger()?;
//!     }
//!     relayed?;
//!     Ok(())
//! }
//!
//! # use futures::StreamExt;
//! # use tokio::{io::AsyncWriteExt, net::TcpListener};
//! # async fn pair() -> io::Result<(TcpStream, TcpStream)> {
//! #     let listener = TcpListener::bind("127.0.0.1:0").await?;
//! #     let near = TcpStream::connect(listener.local_addr()?).await?;
//! #     Ok((near, listener.accept().await?.0))
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # for cut in [false, true] {
//! #     let ((mut client, near), (far, server)) = (pair().await?, pair().await?);
//! #     let proxying = tokio::spawn(proxy(near, far));
//! #     let mut server = BlockTransport::new(server, BlockCodec::new(LengthPrefix::u32()));
//! #     client.write_all(b"\x02me").await?;
//! #     assert_eq!(server.expect_next().await?, "me");
//! #     let long = vec![7; 100_000];
//! #     server.send(&long[..]).await?;
//! #     let mut client = BlockTransport::new(client, BlockCodec::new(Varint::new()));
//! #     assert_eq!(client.expect_next().await?, long);
//! #     if cut {
//! #         client.get_mut().write_all(b"\x02m").await?;
//! #     }
//! #     client.close().await?;
//! #     if cut {
//! #         assert!(server.next().await.expect("no end").is_err());
//! #         assert!(client.next().await.expect("no end").is_err());
//! #         assert_eq!(proxying.await?.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
//! #     } else {
//! #         assert!(server.next().await.is_none());
//! #         server.close().await?;
//! #         assert!(client.next().await.is_none());
//! #         proxying.await??;
//! #     }
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! # How do I end a connection so that the peer does not take it for a clean end?
//!
//! An end between two blocks looks clean, and hides a failure. If [`unfinished`] returns `Some`, call
//! `close`: the peer gets `Truncated`. Otherwise reset the connection, as the proxy above does: call
//! `set_zero_linger` on the `TcpStream`, and drop it. An `OwnedWriteHalf` ends the stream when it is dropped,
//! so reunite it with its other half first. Over TLS, drop the transport without `close`: the peer gets an
//! error, because `close_notify` is missing.
//!
//! This is most often needed after [`send_from`] with a source that failed. If nothing of the block was
//! written, [`send_from`] removes the block from the queue, and a `close` would be a clean end.
//!
//! # Can a block have 5 GiB?
//!
//! Yes, if the length field has more than 4 bytes. [`send_from`] and [`recv_reader`] move the block in 64 KiB
//! of memory, and the limit for whole blocks does not apply.
//!
//! ```
//! use tokio::io::{AsyncReadExt, repeat};
//! use wholeblock::{BlockCodec, BlockError, BlockTransport, LengthPrefix};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BlockError> {
//! # let (near, far) = tokio::io::duplex(64 * 1024);
//! let mut sender = BlockTransport::new(near, BlockCodec::new(LengthPrefix::u64()));
//! tokio::spawn(async move { sender.send_from(5 << 30, repeat(7)).await }); // or a file
//!
//! let mut receiver = BlockTransport::new(far, BlockCodec::new(LengthPrefix::u64()));
//! let mut reader = receiver.recv_reader().await?.expect("a block");
//! assert_eq!(reader.len(), 5 << 30);
//! let mut part = [0; 1_000];
//! reader.read_exact(&mut part).await?; // or `tokio::io::copy_buf` into a file
//! assert_eq!(part, [7; 1_000]);
//! # Ok(())
//! # }
//! ```
//!
//! # How do I send several requests at once?
//!
//! Give each request an id that its answer repeats, and let one task own the connection. Any number of tasks
//! send through a channel, and wait for their answers. A task that gives up disturbs nobody: its request is
//! sent whole or not at all, and its answer is dropped.
//!
//! ```
//! use std::{
//!     collections::HashMap,
//!     sync::{
//!         Mutex,
//!         atomic::{AtomicU32, Ordering::Relaxed},
//!     },
//! };
//!
//! use bytes::{Buf, Bytes, BytesMut};
//! use futures::{StreamExt, stream};
//! use tokio::{
//!     io::{self, AsyncRead, AsyncWrite},
//!     select,
//!     sync::{mpsc, oneshot},
//! };
//! use wholeblock::{BlockCodec, BlockError, BlockTransport, send_blocks};
//!
//! struct Client {
//!     queue: mpsc::Sender<(u32, Bytes)>,
//!     waiting: Mutex<HashMap<u32, oneshot::Sender<BytesMut>>>,
//!     next_id: AtomicU32,
//! }
//!
//! impl Client {
//!     /// Sends `request`, and waits for its answer. None if the connection has ended.
//!     async fn call(&self, request: Bytes) -> Option<BytesMut> {
//!         let id = self.next_id.fetch_add(1, Relaxed);
//!         let (answer, answered) = oneshot::channel();
//!         self.waiting.lock().unwrap().insert(id, answer);
//!         self.queue.send((id, request)).await.ok()?;
//!         answered.await.ok()
//!     }
//!
//!     /// Runs the connection until it ends, and says why.
//!     async fn run(
//!         &self,
//!         socket: impl AsyncRead + AsyncWrite,
//!         mut queued: mpsc::Receiver<(u32, Bytes)>,
//!     ) -> Result<(), BlockError> {
//!         let (reader, writer) = io::split(socket);
//!         let mut answers = BlockTransport::new(reader, BlockCodec::length_prefixed());
//!         let mut requests = BlockTransport::new(writer, BlockCodec::length_prefixed());
//!         let receiving = async {
//!             while let Some(answer) = answers.next().await {
//!                 let mut answer = answer?;
//!                 let Ok(id) = answer.try_get_u32() else {
//!                     return Err(io::Error::from(io::ErrorKind::InvalidData).into());
//!                 };
//!                 // If nobody waits any more, it is dropped.
//!                 if let Some(waiting) = self.waiting.lock().unwrap().remove(&id) {
//!                     let _ = waiting.send(answer);
//!                 }
//!             }
//!             Ok(())
//!         };
//!         // A block of two pieces: the id, and the request without a copy if it is large.
//!         let source = stream::poll_fn(|cx| queued.poll_recv(cx));
//!         let source = source.map(|(id, request)| (id.to_be_bytes(), request));
//!         let ended = select! {
//!             sent = send_blocks(&mut requests, source) => sent.map(drop),
//!             received = receiving => received,
//!         };
//!         queued.close(); // so that nobody sends any more
//!         self.waiting.lock().unwrap().clear(); // so that their `answered` fails
//!         ended
//!     }
//! }
//!
//! # use std::sync::Arc;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BlockError> {
//! # let (near, far) = io::duplex(1024);
//! # let serving = tokio::spawn(async move {
//! #     let mut blocks = BlockTransport::new(far, BlockCodec::length_prefixed());
//! #     let (one, two) = (blocks.expect_next().await?, blocks.expect_next().await?);
//! #     blocks.feed(two).await?; // in another order
//! #     blocks.send(one).await?;
//! #     blocks.expect_next().await?; // and no answer
//! #     Ok::<_, BlockError>(())
//! # });
//! let (queue, queued) = mpsc::channel(64);
//! let (waiting, next_id) = (Mutex::default(), AtomicU32::new(0));
//! let client = Client { queue, waiting, next_id };
//! # let client = Arc::new(client);
//! # let running = tokio::spawn({ let client = client.clone(); async move { client.run(near, queued).await } });
//! # let (one, two) = tokio::join!(client.call("one".into()), client.call("two".into()));
//! # assert_eq!((one.unwrap(), two.unwrap()), ("one".into(), "two".into()));
//! # assert!(client.call("late".into()).await.is_none());
//! # assert!(client.call("later".into()).await.is_none());
//! # serving.await.unwrap()?;
//! # running.await.unwrap()?;
//! # Ok(())
//! # }
//! ```
//!
//! Compare the length of each block, its id included, with the codec's limit before you queue it: a block
//! that is refused ends [`send_blocks`]. To limit the time of a call, put [`tokio::time::timeout`] around
//! `call`.
//!
//! # How do I answer several requests at once?
//!
//! Use `futures`' combinators between the two halves. After an error, `forward` returns without a flush, and
//! the answers to the requests before the error would be lost. So pass it `&mut` the sink, and close the sink
//! yourself. Use `buffered`: `try_buffered` drops the unfinished answers at an error. After a framing error,
//! bytes may be left in the socket, so `serve` drains it: the next question says why.
//!
//! ```
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use futures::{SinkExt, StreamExt};
//! use tokio::{
//!     io::{self, AsyncRead, AsyncReadExt, AsyncWrite},
//!     time::timeout,
//! };
//! use wholeblock::{BlockCodec, BlockError, BlockTransport};
//!
//! async fn serve(socket: impl AsyncRead + AsyncWrite) -> Result<(), BlockError> {
//!     let (reader, writer) = io::split(socket);
//!     let mut requests = BlockTransport::new(reader, BlockCodec::length_prefixed());
//!     let mut answers = BlockTransport::new(writer, BlockCodec::length_prefixed());
//!     let answered = (&mut requests)
//!         .map(|request| async { Ok(Bytes::from(request?.to_ascii_uppercase())) })
//!         .buffered(16) // at most 16 at once, and their answers in order
//!         .forward(&mut answers)
//!         .await;
//!     answers.close().await?;
//!     let mut unread = requests.into_inner().take(64 << 20);
//!     let _ = timeout(Duration::from_secs(5), io::copy(&mut unread, &mut io::sink())).await;
//!     answered
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use tokio::{io::AsyncWriteExt, net::{TcpListener, TcpStream}};
//! # let listener = TcpListener::bind("127.0.0.1:0").await?;
//! # let mut near = TcpStream::connect(listener.local_addr()?).await?;
//! # let (far, _) = listener.accept().await?;
//! let serving = tokio::spawn(serve(far)); // over TCP
//! near.write_all(b"\0\0\0\x02me\xff\xff\xff\xff").await?; // a request, and a bad header
//! near.write_all(&[0xff; 16 << 20]).await?; // and much that nobody will read
//! let mut client = BlockTransport::new(near, BlockCodec::length_prefixed());
//! client.close().await?;
//! assert_eq!(client.next().await.expect("an answer")?, "ME");
//! assert!(client.next().await.is_none());
//! let error = serving.await?.unwrap_err();
//! assert!(matches!(error, BlockError::TooLarge { index: 1, .. }));
//! # Ok(())
//! # }
//! ```
//!
//! # How do I end a connection so that the peer gets everything?
//!
//! Call `close`, which sends what is queued and then the end. Then read until the peer ends its stream. If
//! you drop a TCP socket with unread bytes, it resets the connection, and the peer may lose what it has not
//! read yet. Read from the socket below, because a transport yields nothing more after a framing error.
//! Limit the time and the bytes, because the peer may never end its stream. The example `service` ends its
//! connections in this way.
//!
//! ```
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use futures::SinkExt;
//! use tokio::{
//!     io::{self, AsyncRead, AsyncReadExt, AsyncWrite},
//!     time::timeout,
//! };
//! use wholeblock::{BlockCodec, BlockError, BlockTransport, Framing};
//!
//! async fn end<T, F>(mut blocks: BlockTransport<T, F>) -> Result<(), BlockError>
//! where
//!     T: AsyncRead + AsyncWrite + Unpin,
//!     F: Framing,
//! {
//!     blocks.close().await?;
//!     let mut unread = blocks.get_mut().take(64 << 20); // bytes
//!     // Everything is on its way, even if this fails.
//!     let _ = timeout(Duration::from_secs(5), io::copy(&mut unread, &mut io::sink())).await;
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use futures::StreamExt;
//! # use tokio::{io::AsyncWriteExt, net::{TcpListener, TcpStream}};
//! # let listener = TcpListener::bind("127.0.0.1:0").await?;
//! # let mut near = TcpStream::connect(listener.local_addr()?).await?;
//! # let (far, _) = listener.accept().await?;
//! # let answering = tokio::spawn(async move {
//! let mut blocks = BlockTransport::new(far, BlockCodec::length_prefixed());
//! let error = blocks.next().await.expect("an error").unwrap_err();
//! blocks.send(Bytes::from(error.to_string())).await?;
//! end(blocks).await?;
//! # Ok::<_, BlockError>(())
//! # });
//! # near.write_all(&[0xff; 16 << 20]).await?;
//! # let mut peer = BlockTransport::new(near, BlockCodec::length_prefixed());
//! # peer.close().await?;
//! # assert!(peer.next().await.expect("an answer")?.starts_with(b"block 0"));
//! # assert!(peer.next().await.is_none());
//! # answering.await??;
//! # Ok(())
//! # }
//! ```
//!
//! # Why do both ends wait for ever?
//!
//! Both send before they read. If a block is longer than the system's buffers, `send` waits until the peer
//! reads, and a peer that waits in its own `send` does not read. Receive while you send, with a transport for
//! each half of the socket:
//!
//! ```
//! use std::time::Duration;
//!
//! use tokio::{
//!     io::{self, AsyncRead, AsyncWrite, duplex},
//!     join,
//!     time::timeout,
//!     try_join,
//! };
//! use wholeblock::{BlockCodec, BlockError, BlockTransport};
//!
//! async fn exchange(socket: impl AsyncRead + AsyncWrite) -> Result<usize, BlockError> {
//!     let (reader, writer) = io::split(socket);
//!     let mut incoming = BlockTransport::new(reader, BlockCodec::length_prefixed());
//!     let mut outgoing = BlockTransport::new(writer, BlockCodec::length_prefixed());
//!     let (block, ()) = try_join!(incoming.expect_next(), outgoing.send(vec![7; 1_000_000]))?;
//!     Ok(block.len())
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BlockError> {
//! let (near, far) = duplex(64 * 1024); // as a socket that buffers 64 KiB
//! let mut near = BlockTransport::new(near, BlockCodec::length_prefixed());
//! let mut far = BlockTransport::new(far, BlockCodec::length_prefixed());
//! let both = async { join!(near.send(vec![7; 1_000_000]), far.send(vec![7; 1_000_000])) };
//! assert!(timeout(Duration::from_secs(60), both).await.is_err());
//!
//! let (near, far) = duplex(64 * 1024);
//! assert_eq!(try_join!(exchange(near), exchange(far))?, (1_000_000, 1_000_000));
//! # Ok(())
//! # }
//! ```
//!
//! # Why does a child process not see the end?
//!
//! Tokio's `ChildStdin` ignores a shutdown, so `close` does not end it. Drop the transport after `close`.
//!
//! ```
//! use std::process::Stdio;
//!
//! use tokio::process::Command;
//! use wholeblock::{BlockCodec, BlockError, BlockTransport};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BlockError> {
//! # if cfg!(windows) {
//! #     return Ok(());
//! # }
//! let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
//! let (stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
//! let mut requests = BlockTransport::new(stdin, BlockCodec::length_prefixed());
//! let mut answers = BlockTransport::new(stdout, BlockCodec::length_prefixed());
//! requests.feed("hello").await?;
//! requests.close().await?; // sends what is queued
//! drop(requests);
//! assert_eq!(answers.expect_next().await?, "hello");
//! assert!(answers.next().await.is_none()); // `cat` has seen the end
//! child.wait().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How do I use it from blocking code?
//!
//! On a thread that belongs to no runtime, call tokio's
//! [`Handle::block_on`](tokio::runtime::Handle::block_on). Do not block a thread of a runtime with
//! `futures::executor::block_on`: it hangs once tokio's task budget is spent, after at most 128 reads.
//!
//! ```
//! use std::thread;
//!
//! use futures::StreamExt;
//! use tokio::{io::AsyncWriteExt, runtime::Handle};
//! use wholeblock::{BlockCodec, BlockTransport};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (mut near, far) = tokio::io::duplex(5); // a block, and no more, in each read
//! let handle = Handle::current();
//! let blocking = thread::spawn(move || {
//!     let mut blocks = BlockTransport::new(far, BlockCodec::length_prefixed());
//!     let mut received = 0;
//!     while let Some(block) = handle.block_on(blocks.next()) {
//!         assert_eq!(block?, "x"); // and work that takes long
//!         received += 1;
//!     }
//!     Ok::<_, wholeblock::BlockError>(received)
//! });
//! for _ in 0..1_000 {
//!     near.write_all(b"\0\0\0\x01x").await?;
//! }
//! drop(near);
//! assert_eq!(tokio::task::spawn_blocking(|| blocking.join()).await?.unwrap()?, 1_000);
//! # Ok(())
//! # }
//! ```
//!
//! Without a runtime, read and write yourself. The codec's `decode` and `encode` need no runtime:
//!
//! ```
//! use std::{
//!     io::{Read, Write},
//!     net::{Shutdown, TcpListener, TcpStream},
//! };
//!
//! use bytes::{Bytes, BytesMut};
//! use tokio_util::codec::{Decoder, Encoder};
//! use wholeblock::{BlockCodec, BlockError, LengthPrefix};
//!
//! /// The next block; none at the end.
//! fn next(
//!     socket: &mut TcpStream,
//!     codec: &mut BlockCodec<LengthPrefix>,
//!     arrived: &mut BytesMut,
//! ) -> Result<Option<BytesMut>, BlockError> {
//!     let mut chunk = [0; 8 * 1024];
//!     loop {
//!         if let Some(block) = codec.decode(arrived)? {
//!             return Ok(Some(block));
//!         }
//!         match socket.read(&mut chunk)? {
//!             0 => return codec.decode_eof(arrived),
//!             read => arrived.extend_from_slice(&chunk[..read]),
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), BlockError> {
//! # let listener = TcpListener::bind("127.0.0.1:0")?;
//! # let mut near = TcpStream::connect(listener.local_addr()?)?;
//! # let (mut far, _) = listener.accept()?;
//! let mut codec = BlockCodec::length_prefixed();
//! let mut queued = BytesMut::new();
//! codec.encode(Bytes::from("hello"), &mut queued)?;
//! codec.encode(Bytes::from("world"), &mut queued)?;
//! near.write_all(&queued)?;
//! near.shutdown(Shutdown::Write)?;
//!
//! let (mut codec, mut arrived) = (BlockCodec::length_prefixed(), BytesMut::new());
//! assert_eq!(next(&mut far, &mut codec, &mut arrived)?.unwrap(), "hello");
//! assert_eq!(next(&mut far, &mut codec, &mut arrived)?.unwrap(), "world");
//! assert!(next(&mut far, &mut codec, &mut arrived)?.is_none());
//! # Ok(())
//! # }
//! ```
//!
//! # How do I follow a file that grows?
//!
//! For a transport, an end inside a block is final. So read the file yourself, and pass what you have read to
//! `decode`, which knows of no end:
//!
//! ```
//! use std::time::Duration;
//!
//! use bytes::BytesMut;
//! use tokio::{fs::File, io::AsyncReadExt, time::sleep};
//! use tokio_util::codec::Decoder;
//! use wholeblock::{BlockCodec, BlockError, LengthPrefix};
//!
//! async fn next(
//!     file: &mut File,
//!     codec: &mut BlockCodec<LengthPrefix>,
//!     arrived: &mut BytesMut,
//! ) -> Result<BytesMut, BlockError> {
//!     loop {
//!         if let Some(block) = codec.decode(arrived)? {
//!             return Ok(block);
//!         }
//!         if file.read_buf(arrived).await? == 0 {
//!             sleep(Duration::from_millis(50)).await;
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BlockError> {
//! # use tokio::io::AsyncWriteExt;
//! # let path = std::env::temp_dir().join(format!("wholeblock-{}", std::process::id()));
//! # let mut writer = File::create(&path).await?;
//! # let mut file = File::open(&path).await?;
//! # writer.write_all(b"\0\0\0\x03one\0\0\0\x03t").await?;
//! # writer.flush().await?;
//! let (mut codec, mut arrived) = (BlockCodec::length_prefixed(), BytesMut::new());
//! assert_eq!(next(&mut file, &mut codec, &mut arrived).await?, "one");
//! # tokio::spawn(async move {
//! #     sleep(Duration::from_millis(100)).await;
//! #     writer.write_all(b"wo").await?;
//! #     writer.flush().await
//! # });
//! assert_eq!(next(&mut file, &mut codec, &mut arrived).await?, "two"); // which is written meanwhile
//! # tokio::fs::remove_file(path).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How do I change to TLS, as STARTTLS does?
//!
//! Call [`start_handshake`] between two blocks. It fails if more bytes have arrived already. They came before
//! TLS, so anybody may have sent them, and you would take them for something that was said over TLS. So a
//! client must wait for the answer before it begins the handshake. Bytes that arrive later go to the
//! handshake, which refuses plain text.
//!
//! ```
//! use tokio::io::{self, AsyncRead, AsyncWrite};
//! use wholeblock::{BlockCodec, BlockError, BlockTransport, LengthPrefix};
//!
//! # async fn accept_tls<T>(socket: T) -> io::Result<T> { Ok(socket) }
//! /// Changes the server's end to TLS, after the client has asked for it. `accept_tls` stands for
//! /// `TlsAcceptor::accept` of tokio-rustls.
//! async fn start_tls<T: AsyncRead + AsyncWrite + Unpin>(
//!     mut blocks: BlockTransport<T, LengthPrefix>,
//! ) -> Result<BlockTransport<impl AsyncRead + AsyncWrite + Unpin, LengthPrefix>, BlockError> {
//!     blocks.send("go on").await?;
//!     let (socket, rest) = blocks.start_handshake()?;
//!     let socket = accept_tls(socket).await?;
//!     let mut blocks = rest.map_io(|()| socket);
//!     blocks.set_framing(LengthPrefix::u32()); // if another one follows; the timeouts stay
//!     Ok(blocks)
//! }
//!
//! # use tokio::io::AsyncWriteExt;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BlockError> {
//! # let server = |socket| async {
//! let mut blocks = BlockTransport::new(socket, BlockCodec::new(LengthPrefix::u8()));
//! assert_eq!(blocks.expect_next().await?, "STARTTLS");
//! let mut blocks = start_tls(blocks).await?;
//! assert_eq!(blocks.expect_next().await?, "in private");
//! # Ok::<_, BlockError>(())
//! # };
//! # let (mut client, socket) = io::duplex(64);
//! # client.write_all(b"\x08STARTTLS").await?;
//! # let talking = async {
//! #     let mut client = BlockTransport::new(client, BlockCodec::new(LengthPrefix::u8()));
//! #     assert_eq!(client.expect_next().await?, "go on");
//! #     client.set_framing(LengthPrefix::u32());
//! #     client.send("in private").await
//! # };
//! # tokio::try_join!(server(socket), talking)?;
//! # let (mut client, socket) = io::duplex(64);
//! # client.write_all(b"\x08STARTTLS\0\0\0\x06inject").await?;
//! # let refused = server(socket).await.unwrap_err();
//! # assert_eq!(refused.to_string(), "the peer sent 10 bytes before the handshake");
//! # Ok(())
//! # }
//! ```
//!
//! # What is different over TLS?
//!
//! Only the end. `close` sends TLS's `close_notify`. If a peer ends without one, rustls reports an
//! [`Io`](crate::BlockError::Io) error of the kind `UnexpectedEof`, both between two blocks and inside one.
//!
//! # Does an idle writer notice that its peer is gone?
//!
//! No: a writer notices when it writes, and often only at the second write. Read meanwhile, even if you
//! expect nothing: the peer's end, or a reset, ends the reading half at once. Make the end an error, and run
//! both halves in one `try_join!`, so that the first error drops both.
//!
//! If the peer's machine loses its power, no end and no reset comes. Against that, let the peer send something
//! now and then, and set a [`stall_timeout`](crate::RecvBlocks::stall_timeout). If the peer sends only when
//! asked, as with a ping, it reads the ping after all that you have sent before. Allow for that time.
//!
//! ```
//! use bytes::Bytes;
//! use futures::stream;
//! use tokio::{
//!     io::{self, AsyncRead, AsyncWrite},
//!     sync::mpsc,
//!     try_join,
//! };
//! use wholeblock::{BlockCodec, BlockError, BlockTransport, recv_blocks, send_blocks};
//!
//! /// Sends what is queued, until the peer is gone.
//! async fn run(
//!     socket: impl AsyncRead + AsyncWrite,
//!     mut queued: mpsc::Receiver<Bytes>,
//! ) -> Result<(), BlockError> {
//!     let (reader, writer) = io::split(socket);
//!     let mut incoming = BlockTransport::new(reader, BlockCodec::length_prefixed());
//!     let mut outgoing = BlockTransport::new(writer, BlockCodec::length_prefixed());
//!     let source = stream::poll_fn(|cx| queued.poll_recv(cx));
//!     let reading = async {
//!         let mut blocks = recv_blocks(&mut incoming);
//!         while let Some(_block) = blocks.next().await? {} // or use it
//!         Err::<(), _>(BlockError::Io(io::ErrorKind::ConnectionAborted.into())) // it has ended
//!     };
//!     try_join!(reading, send_blocks(&mut outgoing, source)).map(drop)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! # let (near, far) = io::duplex(64);
//! let (queue, queued) = mpsc::channel(64);
//! let running = tokio::spawn(run(near, queued));
//! drop(far); // the peer ends
//! assert!(running.await.unwrap().is_err());
//! assert!(queue.send(Bytes::from("late")).await.is_err()); // and the senders notice
//! # }
//! ```
//!
//! # What can the halves of `futures`' `split` do?
//!
//! [`StreamExt::split`](futures::StreamExt::split) returns a `Sink` and a `Stream`, which you can move to two
//! tasks and which share one lock. `send`, `feed` and `next` work on them. [`recv_blocks`] and [`send_blocks`]
//! do not, because the halves hide the transport's buffers. Split the socket instead
//! (`TcpStream::into_split`, or `tokio::io::split`), and wrap each half in a [`BlockTransport`].
//!
//! # Why does my stall timeout never fire?
//!
//! The timeout of a [`RecvBlocks`] ends when the receiver is dropped. If you create a receiver in each turn of
//! a `select!` loop, the timeout starts anew in each turn. Set the
//! [`stall_timeout`](crate::BlockTransport::stall_timeout) of the transport instead, or create the receiver
//! once, before the loop. The waits that `select!` cancels then add up.
//!
//! ```
//! use std::time::Duration;
//!
//! use tokio::time::interval;
//! use wholeblock::{BlockCodec, BlockError, BlockTransport, recv_blocks};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! # let (_near, far) = tokio::io::duplex(1024);
//! # let mut silent = BlockTransport::new(far, BlockCodec::length_prefixed());
//! let mut every_second = interval(Duration::from_secs(1));
//! let mut incoming = recv_blocks(&mut silent).stall_timeout(Duration::from_secs(10));
//! let error = loop {
//!     tokio::select! {
//!         _ = every_second.tick() => {} // do this or that
//!         received = incoming.next() => match received {
//!             Ok(_block) => {}
//!             Err(error) => break error,
//!         }
//!     }
//! };
//! assert!(matches!(error, BlockError::Stalled { .. }));
//! # }
//! ```
//!
//! # What can I measure of a connection?
//!
//! [`stats`] counts the blocks and bytes of both directions, and [`queued`] what waits to be written. The
//! difference between two `stats` gives a rate. A received block counts at its end, so during a long one only
//! `reads` grows.
//!
//! ```
//! use std::time::Duration;
//!
//! use tokio::{io::AsyncRead, time::interval};
//! use wholeblock::{BlockCodec, BlockError, BlockTransport, LengthPrefix};
//!
//! /// Receives until the end, and reports each second how many bytes have come.
//! async fn receive<T: AsyncRead + Unpin>(
//!     mut blocks: BlockTransport<T, LengthPrefix>,
//!     mut report: impl FnMut(u64),
//! ) -> Result<u64, BlockError> {
//!     let mut every_second = interval(Duration::from_secs(1));
//!     let mut before = blocks.stats();
//!     loop {
//!         tokio::select! {
//!             _ = every_second.tick() => {
//!                 report(blocks.stats().received_bytes - before.received_bytes);
//!                 before = blocks.stats();
//!             }
//!             block = blocks.next() => match block.transpose()? {
//!                 Some(_block) => {} // and work
//!                 None => return Ok(blocks.stats().received_blocks),
//!             }
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BlockError> {
//! # let (near, far) = tokio::io::duplex(1024);
//! # let receiver = BlockTransport::new(far, BlockCodec::length_prefixed());
//! # tokio::spawn(async move {
//! #     let mut sender = BlockTransport::new(near, BlockCodec::length_prefixed());
//! #     sender.send("hello").await?;
//! #     tokio::time::sleep(Duration::from_millis(2_500)).await;
//! #     sender.close().await
//! # });
//! let mut reported = Vec::new();
//! let received = receive(receiver, |bytes| reported.push(bytes)).await?; // "hello", in 2.5 seconds
//! assert_eq!(received, 1);
//! assert_eq!(reported.iter().sum::<u64>(), 4 + 5);
//! # assert_eq!(reported.len(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! For a metrics page, let each connection add to the service's total what it has moved since the last time:
//! after each answer, as here, or once a second, and at the connection's end:
//!
//! ```
//! use std::sync::Mutex;
//!
//! use tokio::io::{AsyncRead, AsyncWrite};
//! use wholeblock::{BlockCodec, BlockError, BlockTransport, TransportStats};
//!
//! #[derive(Default)]
//! struct Metrics {
//!     moved: Mutex<TransportStats>,
//!     failed: Mutex<[u64; 3]>, // the peers' faults, timeouts, other errors
//! }
//!
//! async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin, metrics: &Metrics) {
//!     let mut blocks = BlockTransport::new(socket, BlockCodec::length_prefixed());
//!     let mut counted = TransportStats::default();
//!     let mut count = |stats: TransportStats| {
//!         *metrics.moved.lock().unwrap() += stats - counted;
//!         counted = stats;
//!     };
//!     let served: Result<(), BlockError> = async {
//!         while let Some(request) = blocks.next().await {
//!             blocks.send(request?).await?; // an echo
//!             count(blocks.stats());
//!         }
//!         blocks.close().await
//!     }
//!     .await;
//!     count(blocks.stats());
//!     if let Err(error) = served {
//!         let kind = match (error.is_peer_fault(), error.is_timeout()) {
//!             (true, _) => 0,
//!             (_, true) => 1,
//!             _ => 2,
//!         };
//!         metrics.failed.lock().unwrap()[kind] += 1;
//!     }
//! }
//!
//! # use tokio::io::{AsyncWriteExt, duplex};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let metrics = Metrics::default();
//! for sent in ["\0\0\0\x02me", "\0\0\0\x02m"] {
//!     let (mut client, socket) = duplex(1024);
//!     client.write_all(sent.as_bytes()).await?;
//!     client.shutdown().await?;
//!     serve(socket, &metrics).await;
//! }
//! let moved = *metrics.moved.lock().unwrap();
//! assert_eq!((moved.received_blocks, moved.received_bytes, moved.sent_bytes), (1, 6, 6));
//! assert_eq!(*metrics.failed.lock().unwrap(), [1, 0, 0]);
//! # Ok(())
//! # }
//! ```
//!
//! # Does `elapsed` count the wait for my source?
//!
//! Yes. [`TransferStats::elapsed`](crate::TransferStats::elapsed) is the time from the first poll of a sender,
//! or from a receiver's first wait, to the end of the transfer. A rate computed from it includes all waits.
//!
//! # Why do small messages take 40 ms?
//!
//! Nagle's algorithm is on: call `set_nodelay(true)` on both ends' sockets. See
//! [the crate's page](crate#nagles-algorithm).
//!
//! [`BlockCodec::with_framing`]: crate::BlockCodec::with_framing
//! [`BlockTransport::map_codec`]: crate::BlockTransport::map_codec
//! [`BlockTransport`]: crate::BlockTransport
//! [`InOut`]: crate::InOut
//! [`InvalidHeader`]: crate::BlockError::InvalidHeader
//! [`LengthField`]: crate::LengthField
//! [`RecvBlocks`]: crate::RecvBlocks
//! [`WrongHeader`]: crate::BlockError::WrongHeader
//! [`adjustment`]: crate::LengthFieldConfig::adjustment
//! [`block_deadline`]: crate::BlockTransport::block_deadline
//! [`decode_header`]: crate::Framing::decode_header
//! [`keep_header`]: crate::LengthFieldConfig::keep_header
//! [`max_header_len`]: crate::Framing::max_header_len
//! [`queued`]: crate::BlockTransport::queued
//! [`read_buffer`]: crate::BlockTransport::read_buffer
//! [`recv_batch`]: crate::BlockTransport::recv_batch
//! [`recv_blocks`]: crate::recv_blocks
//! [`recv_reader`]: crate::BlockTransport::recv_reader
//! [`report_skipped`]: crate::BlockCodec::report_skipped
//! [`send_blocks`]: crate::send_blocks
//! [`send_from`]: crate::BlockTransport::send_from
//! [`set_block_deadline`]: crate::BlockTransport::set_block_deadline
//! [`set_max_decode_len`]: crate::BlockCodec::set_max_decode_len
//! [`set_max_reader_len`]: crate::BlockCodec::set_max_reader_len
//! [`skip_too_large`]: crate::BlockCodec::skip_too_large
//! [`stall_timeout`]: crate::BlockTransport::stall_timeout
//! [`start_handshake`]: crate::BlockTransport::start_handshake
//! [`stats`]: crate::BlockTransport::stats
//! [`strip`]: crate::LengthFieldConfig::strip
//! [`unfinished`]: crate::BlockTransport::unfinished
//! [pieces of one block]: crate::Payload#in-several-pieces
