//! A connection that takes and puts blocks, each time in another way, and checks what it is told:
//! each block, each end and each error.

use std::{cell::Cell, rc::Rc, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout},
};
use tokio_util::codec::Framed;
use turmoil::net::TcpStream;
use wholeblock::{
    AnyFraming, BlockCodec, BlockError, BlockPart, BlockTransport, recv_blocks, send_blocks,
};

use crate::{block, run::Run, wire::Wire};

pub(crate) const STALL: Duration = Duration::from_millis(400);
const DEADLINE: Duration = Duration::from_millis(250);

/// How long to wait if the crate sets no limit, and in all.
const PATIENCE: Duration = Duration::from_millis(600);
const PATIENCE_IN_ALL: Duration = Duration::from_millis(1_500);

type Codec = BlockCodec<AnyFraming>;

enum Form {
    Framed(Framed<Wire, Codec>),
    Transport(BlockTransport<Wire, AnyFraming>),
}

/// Does the same with either form. A macro, because the forms have two types.
macro_rules! with_form {
    ($form:expr, |$blocks:ident| $do:expr) => {
        match $form.as_mut().unwrap() {
            Form::Framed($blocks) => $do,
            Form::Transport($blocks) => $do,
        }
    };
}

/// The connection is lost, for a reason that this network explains.
#[derive(Debug)]
pub(crate) struct Lost;

pub(crate) struct Connection {
    /// `None` only during a change to the other form.
    form: Option<Form>,
    run: Rc<Run>,
    /// Bytes read from the socket.
    arrived: Rc<Cell<u64>>,
    /// Bytes written to the socket.
    left: Rc<Cell<u64>>,
    /// Blocks taken, and their bytes on the wire.
    taken: u64,
    taken_wire: u64,
    /// Blocks put, and their bytes on the wire.
    put: u64,
    put_wire: u64,
    /// True while a block is received part by part.
    reading: bool,
}

impl Connection {
    pub(crate) fn new(socket: TcpStream, run: Rc<Run>) -> Self {
        let arrived = Rc::new(Cell::new(0));
        let left = Rc::new(Cell::new(0));
        let wire = Wire {
            socket,
            segment: run.pick(20..=1_448) as usize,
            burst: run.pick(2..=20),
            written: 0,
            pause: None,
            vectored: run.one_in(2),
            arrived: arrived.clone(),
            left: left.clone(),
        };
        let framed = Framed::new(wire, BlockCodec::new(run.framing));
        let mut connection = Self {
            form: Some(Form::Framed(framed)),
            run,
            arrived,
            left,
            taken: 0,
            taken_wire: 0,
            put: 0,
            put_wire: 0,
            reading: false,
        };
        if connection.run.one_in(2) {
            connection.change_form();
        }
        connection
    }

    fn change_form(&mut self) {
        self.form = self.form.take().map(|form| match form {
            Form::Framed(framed) => Form::Transport(
                BlockTransport::from(framed)
                    .stall_timeout(STALL)
                    .block_deadline(DEADLINE),
            ),
            Form::Transport(transport) => Form::Framed(transport.into_framed()),
        });
    }

    fn sometimes_change_form(&mut self) {
        if self.run.one_in(8) {
            self.run.count("form changed");
            self.change_form();
        }
    }

    /// Takes the next block, or several that are there, or `None` at a clean end.
    pub(crate) async fn take(&mut self) -> Result<Option<Vec<Bytes>>, Lost> {
        let since = Instant::now();
        loop {
            let limit = self.limit();
            match timeout(limit, self.take_in_some_way()).await {
                Ok(Ok(blocks)) => return Ok(Some(self.check(blocks))),
                Ok(Err(None)) => {
                    self.check_clean_end();
                    return Ok(None);
                }
                Ok(Err(Some(error))) => self.judge(error)?,
                Err(_) => self.give_up_after(limit, since, "receive cancelled")?,
            }
            if self.reading {
                self.run.count("reader dropped");
                return Err(Lost); // the rest of its block is discarded
            }
        }
    }

    /// Takes blocks in a random way. The error is `None` at the end.
    async fn take_in_some_way(&mut self) -> Result<Vec<Bytes>, Option<BlockError>> {
        self.sometimes_change_form();
        let way = self.run.pick(0..=5);
        let most = self.run.pick(1..=8);
        match (self.form.as_mut().unwrap(), way) {
            (Form::Transport(transport), 0) => {
                let block = transport.recv().await.map_err(Some)?.ok_or(None)?;
                return Ok(vec![Bytes::copy_from_slice(block)]);
            }
            (Form::Transport(transport), 1) => {
                let batch = transport.recv_batch().await.map_err(Some)?.ok_or(None)?;
                // The rest of the batch must come next.
                let blocks = batch.take(most as usize);
                return Ok(blocks.map(Bytes::copy_from_slice).collect());
            }
            (Form::Transport(transport), 2) => {
                let mut memory = [0; block::MAX_LEN];
                let len = transport.recv_into(&mut memory).await.map_err(Some)?;
                return Ok(vec![Bytes::copy_from_slice(&memory[..len.ok_or(None)?])]);
            }
            (Form::Transport(transport), 3) => {
                let mut reader = transport.recv_reader().await.map_err(Some)?.ok_or(None)?;
                self.reading = true;
                let mut block = Vec::new();
                let read = reader.read_to_end(&mut block).await;
                read.map_err(|error| Some(error.into()))?;
                self.reading = false;
                self.run.count("block read part by part");
                return Ok(vec![block.into()]);
            }
            _ => {}
        }
        with_form!(self.form, |blocks| {
            if way % 2 == 0 {
                let block = blocks.next().await.ok_or(None)?;
                return Ok(vec![block.map_err(Some)?.freeze()]);
            }
            let mut receiver = recv_blocks(blocks)
                .stall_timeout(STALL)
                .block_deadline(DEADLINE);
            let block = receiver.next().await.map_err(Some)?.ok_or(None)?;
            Ok(vec![Bytes::copy_from_slice(block)])
        })
    }

    /// Bytes of a block on the wire, as its framing is documented.
    fn wire_len(&self, block: &Bytes) -> u64 {
        (self.run.header_len(block.len()) + block.len()) as u64
    }

    fn check(&mut self, blocks: Vec<Bytes>) -> Vec<Bytes> {
        assert!(!blocks.is_empty(), "no block");
        for block in &blocks {
            let ordinal = block::ordinal(block);
            assert_eq!(ordinal, Some(self.taken), "a block lost, repeated or torn");
            self.taken += 1;
            self.taken_wire += self.wire_len(block);
        }
        blocks
    }

    /// Asserts that all the bytes that arrived were blocks.
    fn check_clean_end(&self) {
        self.run.count("clean end");
        let arrived = self.arrived.get();
        assert_eq!(self.taken_wire, arrived, "the end of a cut block is clean");
    }

    /// Queues blocks that `writer` wrote, and waits until all of them have left.
    pub(crate) async fn put(&mut self, writer: u64, numbers: Vec<u64>) -> Result<(), Lost> {
        let first = self.put;
        self.put += numbers.len() as u64;
        let build = |(ordinal, number)| {
            let len = self.run.pick_len();
            block::build(writer, ordinal, number, len)
        };
        let blocks: Vec<_> = (first..).zip(numbers).map(build).collect();
        self.put_wire += blocks.iter().map(|block| self.wire_len(block)).sum::<u64>();
        let mut blocks = blocks.into_iter();
        let since = Instant::now();
        loop {
            self.sometimes_change_form();
            if self.run.one_in(4) {
                self.put_part_by_part(&mut blocks).await?;
            }
            let limit = self.limit();
            let sent = if self.run.one_in(3) {
                self.feed(&mut blocks).await?;
                with_form!(self.form, |form| timeout(limit, form.flush()).await)
            } else {
                let left = stream::iter(blocks.by_ref());
                with_form!(self.form, |form| {
                    let sending = send_blocks(form, left).stall_timeout(STALL);
                    let sent = timeout(limit, sending).await;
                    sent.map(|sent| sent.map(drop))
                })
            };
            match sent {
                Ok(Ok(())) => {
                    assert_eq!(
                        self.left.get(),
                        self.put_wire,
                        "sent too little or too much"
                    );
                    return Ok(());
                }
                Ok(Err(error)) => self.judge(error)?,
                Err(_) => self.give_up_after(limit, since, "send cancelled")?,
            }
        }
    }

    /// Sends some of `blocks`, if this is a transport. Resumes each block where it was given up.
    async fn put_part_by_part(
        &mut self,
        blocks: &mut impl Iterator<Item = Bytes>,
    ) -> Result<(), Lost> {
        let since = Instant::now();
        while let Some(Form::Transport(_)) = &self.form {
            let Some(block) = blocks.next() else {
                break;
            };
            let mut source = &block[..];
            loop {
                let limit = self.limit();
                let Some(Form::Transport(transport)) = &mut self.form else {
                    break;
                };
                let sent = if transport.unfinished().is_some() {
                    self.run.count("block taken up again");
                    timeout(limit, transport.send_rest_from(&mut source)).await
                } else if source.is_empty() {
                    timeout(limit, transport.flush()).await
                } else {
                    let len = block.len() as u64;
                    timeout(limit, transport.send_from(len, &mut source)).await
                };
                match sent {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => self.judge(error)?,
                    Err(_) => self.give_up_after(limit, since, "send cancelled")?,
                }
            }
            if self.run.one_in(3) {
                break;
            }
        }
        Ok(())
    }

    /// Must not be cancelled and continued, because `feed` holds a block that is not queued.
    async fn feed(&mut self, blocks: &mut impl Iterator<Item = Bytes>) -> Result<(), Lost> {
        for block in blocks {
            let fed = with_form!(self.form, |form| timeout(PATIENCE, form.feed(block)).await);
            match fed {
                Ok(fed) => fed.or_else(|error| self.judge(error).and(Err(Lost)))?,
                Err(_) => return Err(Lost),
            }
        }
        Ok(())
    }

    /// Half-closes. Everything is acknowledged, so the peer may be gone.
    pub(crate) async fn close(&mut self) -> Result<(), Lost> {
        let closed = with_form!(self.form, |form| timeout(PATIENCE, form.close()).await);
        match closed.map_err(|_| Lost)? {
            Ok(()) => Ok(()),
            Err(error) => self.judge(error).and(Err(Lost)),
        }
    }

    /// How long to wait this time: mostly longer than the crate's own timeouts.
    fn limit(&self) -> Duration {
        match self.run.one_in(3) {
            true => Duration::from_millis(self.run.pick(0..=40)),
            false => PATIENCE,
        }
    }

    fn give_up_after(
        &self,
        limit: Duration,
        since: Instant,
        cancelled: &'static str,
    ) -> Result<(), Lost> {
        if limit == PATIENCE || since.elapsed() > PATIENCE_IN_ALL {
            self.run.count("given up");
            return Err(Lost);
        }
        self.run.count(cancelled);
        Ok(())
    }

    /// Asserts that an error is one that this network explains, with the right numbers. Returns `Ok` if the
    /// connection goes on.
    fn judge(&self, error: BlockError) -> Result<(), Lost> {
        match error {
            BlockError::Stalled { .. } => self.run.count("stalled"),
            BlockError::Late { index, offset, .. } => {
                self.run.count("late");
                assert_eq!((index, offset), (self.taken, self.taken_wire));
                assert!(self.arrived.get() > offset, "late before its first byte");
            }
            BlockError::Truncated {
                part,
                expected,
                received,
                index,
                offset,
            } => {
                self.run.count(match part {
                    BlockPart::Header => "header cut",
                    BlockPart::Payload => "block cut",
                });
                assert_eq!((index, offset), (self.taken, self.taken_wire));
                let header_len = match part {
                    BlockPart::Header => 0,
                    BlockPart::Payload => self.run.header_len(expected as usize) as u64,
                };
                assert!(received < expected, "all of it is there");
                assert_eq!(offset + header_len + received, self.arrived.get());
                return Err(Lost);
            }
            BlockError::Io(error) => {
                use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
                match error.kind() {
                    ConnectionReset => self.run.count("reset"),
                    BrokenPipe => self.run.count("broken pipe"),
                    other => panic!("{other:?}: {error}"),
                }
                return Err(Lost);
            }
            other => panic!("unexpected: {other:?}"),
        }
        if self.run.one_in(2) {
            return Err(Lost);
        }
        self.run.count("gone on after a timeout");
        Ok(())
    }
}
