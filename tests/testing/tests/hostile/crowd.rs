//! Many attacks at once.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::{Barrier, oneshot},
    task::JoinSet,
    time::interval,
};

use crate::resources::{self, Held};

/// How late an error may be in a crowd of two thousand, on two cores that others use too.
const PROMPT: Duration = Duration::from_secs(10);

/// A hostile peer, and an honest program at the other end.
pub(crate) trait Attack: Send + Sync {
    fn name(&self) -> String;

    /// Plays the peer. `over` is ready when the victim has finished.
    fn peer(&self, socket: TcpStream, over: oneshot::Receiver<()>) -> BoxFuture<'_, ()>;

    /// Plays the victim, which uses this crate in the `turn`th of several ways. Panics if the outcome is
    /// not the expected one. Returns how long the victim must wait before it can know.
    fn victim(&self, socket: TcpStream, turn: usize) -> BoxFuture<'_, Duration>;
}

/// Makes one connection after the other, so that both ends are known to belong together. It does not use
/// the runtime, where two thousand would wait in line for their turns.
pub(crate) struct Listener(Mutex<std::net::TcpListener>);

impl Listener {
    /// Uses sockets with small buffers, because what the system holds for each is not tested.
    fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(SOCKET_BUFFER).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap().into_std().unwrap();
        listener.set_nonblocking(false).unwrap();
        Self(Mutex::new(listener))
    }

    fn connect(&self) -> (TcpStream, TcpStream) {
        let listener = self.0.lock().unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let of_runtime = |socket: std::net::TcpStream| {
            socket.set_nonblocking(true).unwrap();
            TcpStream::from_std(socket).unwrap()
        };
        (of_runtime(peer), of_runtime(accepted))
    }
}

const SOCKET_BUFFER: u32 = 64 * 1024;

/// `count` connections at once, each with the next of the attacks, and each `rounds` times.
pub(crate) struct Crowd {
    attacks: Vec<Arc<dyn Attack>>,
    count: usize,
    rounds: usize,
}

impl Crowd {
    pub(crate) fn new(attacks: &[Arc<dyn Attack>], count: usize, rounds: usize) -> Self {
        Self {
            attacks: attacks.to_vec(),
            count,
            rounds,
        }
    }

    /// Runs until the last victim has finished.
    pub(crate) async fn run(self) -> Report {
        let started = Instant::now();
        let listener = Arc::new(Listener::new());
        let all_connected = Arc::new(Barrier::new(self.count));
        let latest = Arc::new(AtomicUsize::new(0));
        let mut slots = JoinSet::new();
        for slot in 0..self.count {
            let attack = self.attacks[slot % self.attacks.len()].clone();
            let (listener, all_connected) = (listener.clone(), all_connected.clone());
            let (latest, turn) = (latest.clone(), slot / self.attacks.len());
            slots.spawn(async move {
                for round in 0..self.rounds {
                    let sockets = listener.connect();
                    if round == 0 {
                        all_connected.wait().await;
                    }
                    let late = session(attack.clone(), sockets, turn + round).await;
                    latest.fetch_max(late.as_millis() as usize, Ordering::Relaxed);
                }
            });
        }
        let heap = heap_at_most(&mut slots).await;
        Report {
            connections: self.count,
            sessions: self.count * self.rounds,
            took: started.elapsed(),
            latest: Duration::from_millis(latest.load(Ordering::Relaxed) as u64),
            heap,
        }
    }
}

/// Awaits all of `slots`, and returns the most heap that was seen meanwhile.
async fn heap_at_most(slots: &mut JoinSet<()>) -> usize {
    let mut most = 0;
    let mut looks = interval(Duration::from_millis(5));
    loop {
        tokio::select! {
            slot = slots.join_next() => match slot {
                Some(slot) => slot.unwrap(),
                None => return most,
            },
            _ = looks.tick() => most = most.max(resources::heap()),
        }
    }
}

/// Runs one attack, and returns how much later its victim knew than it could have.
async fn session(
    attack: Arc<dyn Attack>,
    (peer, victim): (TcpStream, TcpStream),
    turn: usize,
) -> Duration {
    let started = Instant::now();
    let (done, over) = oneshot::channel();
    let hostile = tokio::spawn({
        let attack = attack.clone();
        async move { attack.peer(peer, over).await }
    });
    let waited = attack.victim(victim, turn).await;
    let took = started.elapsed();
    assert!(
        (waited..waited + PROMPT).contains(&took),
        "{}: known after {took:?}, of which {waited:?} had to be waited for",
        attack.name()
    );
    drop(done);
    hostile.await.unwrap();
    took - waited
}

/// Closes `socket` by a reset, which the other end sees before anything that is still to be sent.
pub(crate) fn reset(socket: TcpStream) {
    #[allow(
        deprecated,
        reason = "`set_zero_linger` is not in the oldest tokio this works with"
    )]
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// The result of a crowd.
pub(crate) struct Report {
    connections: usize,
    sessions: usize,
    took: Duration,
    latest: Duration,
    /// The most heap bytes that were seen in use.
    heap: usize,
}

impl Report {
    /// Fails if more than `most` bytes of heap were in use for each of `connections`.
    pub(crate) fn assert_heap_each(&self, before: &Held, connections: usize, most: usize) {
        let each = self.heap.saturating_sub(before.heap) / connections;
        println!("at most {each} bytes of heap for each connection");
        assert!(each <= most, "the most is {most}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connections,
            sessions,
            took,
            latest,
            ..
        } = self;
        write!(
            f,
            "{connections} hostile connections at once, {sessions} in all, in {took:.1?}; each was \
             known for what it is {latest:.1?} after it could be, or sooner"
        )
    }
}
