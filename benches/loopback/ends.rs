//! The two ends of a connection: what they move, and how long that takes.

use std::{
    hint::black_box,
    io,
    net::{TcpListener, TcpStream},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};

use crate::support::{memory::PIECE, system};

/// Payload bytes of a measurement: over the first hundred million the system's buffers are still
/// growing.
const BYTES_PER_RUN: usize = 512 << 20;

/// What one measurement moves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) size: usize,
    pub(crate) prefixed: bool,
    pub(crate) blocks: u64,
}

impl Load {
    pub(crate) fn new(size: usize, prefixed: bool, bytes: Option<usize>) -> Self {
        let blocks = (bytes.unwrap_or(BYTES_PER_RUN) / size).max(1) as u64;
        Self {
            size,
            prefixed,
            blocks,
        }
    }

    pub(crate) fn header_len(self) -> usize {
        if self.prefixed { 4 } else { 0 }
    }

    pub(crate) fn wire_len(self) -> usize {
        self.header_len() + self.size
    }

    pub(crate) fn payload_bytes(self) -> f64 {
        self.blocks as f64 * self.size as f64
    }

    /// As many whole blocks as fit a piece, one at least.
    fn at_once(self) -> usize {
        (PIECE / self.wire_len()).max(1)
    }

    /// Bytes to read at once.
    pub(crate) fn read_room(self) -> usize {
        self.at_once() * self.wire_len()
    }

    /// A buffer to read into, and how many blocks fit it.
    pub(crate) fn read_buffer(self) -> (Vec<u8>, u64) {
        (vec![0; self.read_room()], self.at_once() as u64)
    }

    /// Length of the payload of the block at the front of `bytes`, if it lies there whole.
    pub(crate) fn payload_len(self, bytes: &[u8]) -> Option<usize> {
        let len = match bytes.first_chunk().filter(|_| self.prefixed) {
            Some(prefix) => u32::from_be_bytes(*prefix) as usize,
            None => self.size,
        };
        (bytes.len() >= self.header_len() + len).then_some(len)
    }

    /// Looks at the blocks in `bytes` as a program would that uses them, and counts them.
    pub(crate) fn look(self, bytes: &[u8]) -> u64 {
        let mut rest = bytes;
        let mut seen = 0;
        while !rest.is_empty() {
            let mut len = self.size;
            if let Some((prefix, behind)) = rest.split_first_chunk().filter(|_| self.prefixed) {
                len = u32::from_be_bytes(*prefix) as usize;
                rest = behind;
            }
            let (block, behind) = rest.split_at(len);
            black_box(block);
            rest = behind;
            seen += 1;
        }
        seen
    }
}

/// What one contender took in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub(crate) wall: Duration,
    pub(crate) cpu: Option<f64>,
}

/// Two ends of a connection. What the system does for one that has just been made is over, so
/// that none of it is measured.
fn connect() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// One end's place at the start.
pub(crate) struct Start<'a>(&'a Barrier);

impl Start<'_> {
    /// Waits until both ends have made what they need, and again for the word to start, so that the
    /// time begins when nothing is left to be made.
    pub(crate) fn line_up(self) {
        drop(self);
    }
}

impl Drop for Start<'_> {
    /// An end that fails before the start goes through it all the same, or the other would wait for
    /// it for ever. Past the start, that one's connection is gone, and so it ends too.
    fn drop(&mut self) {
        self.0.wait();
        self.0.wait();
    }
}

/// Runs both ends, each on a thread of its own and from the same moment. The receiver says how many
/// blocks it saw.
pub(crate) fn time<S, R>(load: Load, send: S, receive: R) -> anyhow::Result<Took>
where
    S: FnOnce(TcpStream, Start<'_>) -> anyhow::Result<()> + Send,
    R: FnOnce(TcpStream, Start<'_>) -> anyhow::Result<u64> + Send,
{
    let (near, far) = connect()?;
    // Passed by each end, and by this thread, which takes the time between the two waits.
    let ready = Barrier::new(3);
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(near, Start(&ready)));
        let receiver = scope.spawn(|| {
            let seen = receive(far, Start(&ready));
            (seen, Instant::now())
        });
        ready.wait();
        let cpu = system::cpu_seconds();
        let started = Instant::now();
        ready.wait();
        let sent = sender.join().expect("a sender that does not panic");
        let (seen, ended) = receiver.join().expect("a receiver that does not panic");
        let cpu = system::cpu_seconds().zip(cpu);
        let seen = match (sent, seen) {
            (Ok(()), seen) => seen?,
            (Err(sender), Ok(_)) => return Err(sender),
            // One may have failed only because the other did, and which is which does not show.
            (Err(sender), Err(receiver)) => {
                bail!("the sender: {sender:#}; the receiver: {receiver:#}");
            }
        };
        ensure!(
            seen == load.blocks,
            "{seen} of {} blocks arrived",
            load.blocks
        );
        Ok(Took {
            wall: ended - started,
            cpu: cpu.map(|(after, before)| after - before),
        })
    })
}

/// Runs both ends, each on a runtime of its own.
pub(crate) fn with_tokio<S, R>(load: Load, send: S, receive: R) -> anyhow::Result<Took>
where
    S: AsyncFnOnce(tokio::net::TcpStream) -> anyhow::Result<()> + Send,
    R: AsyncFnOnce(tokio::net::TcpStream) -> anyhow::Result<u64> + Send,
{
    time(
        load,
        |socket, start| on_runtime(socket, start, send),
        |socket, start| on_runtime(socket, start, receive),
    )
}

fn on_runtime<T>(
    socket: TcpStream,
    start: Start<'_>,
    run: impl AsyncFnOnce(tokio::net::TcpStream) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        socket.set_nonblocking(true)?;
        let socket = tokio::net::TcpStream::from_std(socket)?;
        start.line_up();
        run(socket).await
    })
}
