//! The two sides of the connections, and how long they take.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use support::contenders::Running;
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::JoinSet,
};

/// A measurement that takes longer fails, because blocks are stuck.
const LIMIT: Duration = Duration::from_secs(60);

/// Clients run on one side, servers on the other. With one thread, both are the same.
pub(crate) struct Sides {
    near: Side,
    /// None if there is one thread only.
    far: Option<Side>,
    nodelay: bool,
}

/// A runtime and its tasks.
struct Side {
    runtime: Runtime,
    tasks: Vec<Running>,
}

impl Sides {
    pub(crate) fn new(threads: usize, nodelay: bool) -> anyhow::Result<Self> {
        Ok(Self {
            near: Side::new()?,
            far: (threads > 1).then(Side::new).transpose()?,
            nodelay,
        })
    }

    fn far(&mut self) -> &mut Side {
        self.far.as_mut().unwrap_or(&mut self.near)
    }

    /// Returns both ends of a new connection: first the clients' end, then the servers' end.
    pub(crate) fn connect(&mut self) -> anyhow::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let near = std::net::TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        for socket in [&near, &far] {
            socket.set_nodelay(self.nodelay)?;
            socket.set_nonblocking(true)?;
        }
        Ok((self.near.register(near)?, self.far().register(far)?))
    }

    pub(crate) fn spawn_near(&mut self, task: Running) {
        self.near.tasks.push(task);
    }

    pub(crate) fn spawn_far(&mut self, task: Running) {
        self.far().tasks.push(task);
    }

    /// Runs all tasks until the last one has ended. Each must move `blocks` blocks.
    pub(crate) fn run(self, blocks: u64) -> anyhow::Result<Duration> {
        let sides: Vec<_> = [self.near].into_iter().chain(self.far).collect();
        let count = sides.len();
        let start = Arc::new(Barrier::new(count));
        // Not scoped threads, because after a timeout this thread leaves them behind.
        let (report, reports) = mpsc::channel();
        for side in sides {
            let (start, report) = (start.clone(), report.clone());
            thread::spawn(move || {
                start.wait();
                let began = Instant::now();
                let moved = side.runtime.block_on(all_moved(side.tasks, blocks));
                let ended = Instant::now();
                // After a failure, this closes the sockets, so that the other side ends, too.
                drop(side.runtime);
                // This fails after a timeout.
                let _ = report.send(moved.map(|()| (began, ended)));
            });
        }

        let deadline = Instant::now() + LIMIT;
        let (mut spans, mut failures) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let left = deadline.saturating_duration_since(Instant::now());
            match reports.recv_timeout(left) {
                Ok(Ok(span)) => spans.push(span),
                Ok(Err(error)) => failures.push(format!("{error:#}")),
                Err(_) => failures.push(format!("blocks still wait after {LIMIT:?}")),
            }
        }
        ensure!(failures.is_empty(), failures.join("; "));
        let began = spans.iter().map(|(began, _)| began).min();
        let ended = spans.iter().map(|(_, ended)| ended).max();
        let (began, ended) = began.zip(ended).context("no side ran")?;
        Ok(*ended - *began)
    }
}

impl Side {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            runtime: Builder::new_current_thread().enable_all().build()?,
            tasks: Vec::new(),
        })
    }

    fn register(&self, socket: std::net::TcpStream) -> io::Result<TcpStream> {
        let _guard = self.runtime.enter();
        TcpStream::from_std(socket)
    }
}

async fn all_moved(tasks: Vec<Running>, blocks: u64) -> anyhow::Result<()> {
    let mut running: JoinSet<_> = tasks.into_iter().collect();
    while let Some(moved) = running.join_next().await {
        let moved = moved??;
        ensure!(moved == blocks, "{moved} of {blocks} blocks");
    }
    Ok(())
}
