//! The two ends of one connection, each on a thread of its own, and how long they take.

use std::{
    io::{self, IoSlice, Read, Write},
    net::{Shutdown, TcpStream},
    pin::Pin,
    sync::Barrier,
    task::{Context, Poll},
    thread,
    time::Instant,
};

use anyhow::{bail, ensure};
use support::{
    contenders::{Contender, Running, Task},
    load::Load,
    system,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::{Builder, Runtime},
};

use crate::link::Link;

/// The times of one contender in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    /// From the start of the sender until the receiver has seen the end.
    pub(crate) seconds: f64,
    /// Processor seconds of both ends, including the kernel.
    pub(crate) cpu: Option<f64>,
}

/// Moves `load` once, in one direction. For the raw limit, once with each way of writing: the faster counts.
pub(crate) fn throughput(contender: Contender, load: Load, link: &Link) -> anyhow::Result<Took> {
    let one_way = |contender| {
        let send = Task::Send(load.source());
        time(contender, load, link, send, Task::Receive)
    };
    let took = one_way(contender)?;
    if contender != Contender::Raw {
        return Ok(took);
    }
    let vectored = one_way(Contender::RawVectored)?;
    Ok(match vectored.seconds < took.seconds {
        true => vectored,
        false => took,
    })
}

/// Starts both ends at the same moment, and waits until both are done.
pub(crate) fn time(
    contender: Contender,
    load: Load,
    link: &Link,
    near: Task,
    far: Task,
) -> anyhow::Result<Took> {
    let (near_socket, far_socket) = link.connect()?;
    // Everything that may fail is done before the start, because a thread that failed would leave the other
    // waiting at the barrier.
    let near = End::new(contender, near, near_socket, load)?;
    let far = End::new(contender, far, far_socket, load)?;
    let start = Barrier::new(2);
    let cpu = system::cpu_seconds();
    let (sent, began, seen, ended) = thread::scope(|scope| {
        let far = scope.spawn(|| {
            start.wait();
            (far.run(), Instant::now())
        });
        let near = scope.spawn(|| {
            start.wait();
            let began = Instant::now();
            (near.run(), began)
        });
        let (sent, began) = near.join().expect("a near end that does not panic");
        let (seen, ended) = far.join().expect("a far end that does not panic");
        (sent, began, seen, ended)
    });
    let cpu = system::cpu_seconds().zip(cpu);
    let moved = match (sent, seen) {
        // One may have failed only because the other did, and nothing says which.
        (Err(near), Err(far)) => bail!("the near end: {near:#}; the far end: {far:#}"),
        (sent, seen) => [sent?, seen?],
    };
    ensure!(
        moved == [load.blocks; 2],
        "of {} blocks, {} were sent and {} arrived",
        load.blocks,
        moved[0],
        moved[1]
    );
    Ok(Took {
        seconds: (ended - began).as_secs_f64(),
        cpu: cpu.map(|(after, before)| after - before),
    })
}

/// One end, ready to run.
struct End {
    /// None for blocking sockets, which never park.
    runtime: Option<Runtime>,
    running: Running,
}

impl End {
    fn new(
        contender: Contender,
        task: Task,
        socket: TcpStream,
        load: Load,
    ) -> anyhow::Result<Self> {
        if contender.is_blocking() {
            return Ok(Self {
                running: contender.run(task, Blocking(socket), load)?,
                runtime: None,
            });
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        socket.set_nonblocking(true)?;
        let socket = {
            let _guard = runtime.enter();
            tokio::net::TcpStream::from_std(socket)?
        };
        Ok(Self {
            running: contender.run(task, socket, load)?,
            runtime: Some(runtime),
        })
    }

    fn run(self) -> anyhow::Result<u64> {
        match self.runtime {
            Some(runtime) => runtime.block_on(self.running),
            None => futures::executor::block_on(self.running),
        }
    }
}

/// A blocking socket for loops that also run on tokio's sockets. Each poll makes the system call, and blocks as
/// long as the call does.
struct Blocking(TcpStream);

impl AsyncRead for Blocking {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = (&self.0).read(buf.initialize_unfilled())?;
        buf.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Blocking {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready((&self.0).write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready((&self.0).write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown(Shutdown::Write))
    }
}
