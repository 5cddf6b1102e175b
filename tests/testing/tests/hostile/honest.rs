//! Honest peers, which should notice as little as possible of the hostile ones.

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::stream;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use wholeblock::{BlockCodec, BlockTransport, send_blocks};

/// Lengths of the blocks of each connection, in turn.
const LENS: [usize; 8] = [64, 51_200, 0, 1_000, 300_000, 5, 4_096, 20_000];

/// Bytes that do not repeat. Blocks are slices of them.
static BYTES: LazyLock<Bytes> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(11);
    std::iter::repeat_with(|| random.u8(..))
        .take(1 << 20)
        .collect()
});

/// The block `index` of the connection `connection`.
fn block(connection: usize, index: usize) -> Bytes {
    let len = LENS[(connection + index) % LENS.len()];
    let start = (connection * 104_729 + index * 7_919) % (BYTES.len() - len);
    BYTES.slice(start..start + len)
}

/// Connections on which blocks are sent until [`finish`](Self::finish) is called.
pub(crate) struct Honest {
    started: Instant,
    over: Arc<AtomicBool>,
    clients: JoinSet<Moved>,
    servers: JoinSet<()>,
}

impl Honest {
    pub(crate) async fn start(connections: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (mut clients, mut servers) = (JoinSet::new(), JoinSet::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for connection in 0..connections {
            let client = TcpStream::connect(listener.local_addr().unwrap());
            let (client, server) = tokio::join!(client, listener.accept());
            clients.spawn(send(client.unwrap(), connection, over.clone()));
            servers.spawn(receive(server.unwrap().0, connection));
        }
        Self {
            started: Instant::now(),
            over,
            clients,
            servers,
        }
    }

    /// Fails if a block did not arrive as it was sent.
    pub(crate) async fn finish(self) -> Throughput {
        self.over.store(true, Ordering::Relaxed);
        self.servers.join_all().await;
        let moved = self.clients.join_all().await;
        Throughput {
            blocks: moved.iter().map(|moved| moved.blocks).sum(),
            bytes: moved.iter().map(|moved| moved.bytes).sum(),
            took: self.started.elapsed(),
        }
    }
}

struct Moved {
    blocks: u64,
    bytes: u64,
}

/// Sends until `over`, and asserts that the other end received as many blocks.
async fn send(socket: TcpStream, connection: usize, over: Arc<AtomicBool>) -> Moved {
    let mut transport = BlockTransport::new(socket, BlockCodec::length_prefixed());
    let blocks = (0..).map(|index| block(connection, index));
    let until_over = blocks.take_while(|_| !over.load(Ordering::Relaxed));
    let sent = send_blocks(&mut transport, stream::iter(until_over)).await;
    let sent = sent.unwrap();
    let end = Bytes::from_static(b"how many were these?");
    send_blocks(&mut transport, stream::iter([end]))
        .await
        .unwrap();
    let answer = transport.next().await.unwrap().unwrap();
    assert_eq!(answer, sent.blocks.to_be_bytes()[..]);
    Moved {
        blocks: sent.blocks,
        bytes: sent.payload_bytes,
    }
}

/// Receives by lending, as a stream or part by part, and answers the question at the end.
async fn receive(socket: TcpStream, connection: usize) {
    let mut transport = BlockTransport::new(socket, BlockCodec::length_prefixed());
    let mut received = 0;
    let mut is_question = |received_block: &[u8]| {
        let expected = block(connection, received);
        let as_sent = received_block == expected;
        assert!(as_sent || received_block == b"how many were these?");
        received += usize::from(as_sent);
        !as_sent
    };
    match connection % 3 {
        0 => while !is_question(transport.recv().await.unwrap().unwrap()) {},
        1 => while !is_question(&transport.next().await.unwrap().unwrap()) {},
        _ => {
            let mut block = vec![];
            loop {
                block.clear();
                let mut reader = transport.recv_reader().await.unwrap().unwrap();
                reader.read_to_end(&mut block).await.unwrap();
                if is_question(&block) {
                    break;
                }
            }
        }
    }
    let answer = stream::iter([(received as u64).to_be_bytes().to_vec()]);
    send_blocks(&mut transport, answer).await.unwrap();
}

/// What all connections together moved.
pub(crate) struct Throughput {
    blocks: u64,
    bytes: u64,
    took: Duration,
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            blocks,
            bytes,
            took,
        } = self;
        let rate = *bytes as f64 / 1e6 / took.as_secs_f64();
        write!(
            f,
            "{blocks} blocks, {bytes} bytes in {took:.1?}: {rate:.0} MB/s, all received as sent"
        )
    }
}
