//! The shapes of services, and one measurement of each.

use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use futures::FutureExt;
use support::{
    contenders::{Contender, Failure, Peer, Running, framed_64k, with_timeouts},
    load::{Load, Source},
};
use tokio::net::TcpStream;
use tokio_util::codec::Framed;
use wholeblock::{BlockCodec, BlockTransport};

use crate::{channel, payloads::Payloads, pipelined, proxy, rpc, sides::Sides};

/// The values of `--shapes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    Rpc,
    Send,
    Feed,
    Forward,
    Channel,
    Proxy,
}

impl Shape {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Rpc => "rpc: callers, handlers, and a task for each end of the connection",
            Self::Send => "send: a server that sends each answer",
            Self::Feed => "feed: a server that feeds answers, then flushes",
            Self::Forward => "forward: a server that forwards requests into its sink",
            Self::Channel => {
                "channel: 8 producers, a channel that is forwarded into the sink, one way"
            }
            Self::Proxy => "proxy: a proxy that feeds what it receives, then flushes",
        }
    }
}

/// The settings of one measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) shape: Shape,
    /// Payload bytes of a block.
    pub(crate) size: usize,
    /// Where the clients' payloads come from.
    pub(crate) source: Source,
    pub(crate) in_flight: u64,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) nodelay: bool,
}

impl Job {
    /// Answers `requests` requests on each connection.
    pub(crate) fn run(&self, contender: Contender, requests: u64) -> anyhow::Result<Duration> {
        let load = self.load();
        let ld = || load.length_delimited();
        let codec = BlockCodec::new(load.length_prefix()?);
        match contender {
            Contender::Ld => self.run_over(requests, |io| Framed::new(io, ld())),
            Contender::Ld64k => self.run_over(requests, |io| framed_64k(io, ld())),
            Contender::Framed => self.run_over(requests, |io| Framed::new(io, codec.clone())),
            Contender::Framed64k => self.run_over(requests, |io| framed_64k(io, codec.clone())),
            Contender::Transport => {
                self.run_over(requests, |io| BlockTransport::new(io, codec.clone()))
            }
            Contender::TransportTimeouts => self.run_over(requests, |io| {
                with_timeouts(BlockTransport::new(io, codec.clone()))
            }),
            other => bail!("{} is not a Sink and a Stream", other.name()),
        }
    }

    /// Returns how many requests on each connection keep `LengthDelimitedCodec` busy for `time`.
    pub(crate) fn requests_in(&self, time: Duration) -> anyhow::Result<u64> {
        let mut requests = self.in_flight;
        loop {
            let took = self.run(Contender::Ld, requests)?;
            let share = time.as_secs_f64() / took.as_secs_f64();
            let wanted = (requests as f64 * share).ceil() as u64;
            // A shorter run mostly measures how long it takes to connect and to start.
            if share < 4.0 {
                return Ok(wanted.next_multiple_of(self.in_flight));
            }
            requests = wanted.min(32 * requests).next_multiple_of(self.in_flight);
        }
    }

    /// For the codecs' settings.
    fn load(&self) -> Load {
        Load {
            size: self.size,
            prefixed: true,
            source: self.source,
            blocks: 1,
            write_len: None,
        }
    }

    /// Returns the name of the table for this measurement.
    pub(crate) fn describe(&self) -> String {
        let shape = self.shape.describe();
        let (in_flight, connections) = (self.in_flight, self.connections);
        match self.shape {
            Shape::Channel => format!("{shape}; connections: {connections}"),
            _ => format!("{shape}; {in_flight} in flight, connections: {connections}"),
        }
    }

    fn run_over<P: Peer<E>, E: Failure>(
        &self,
        requests: u64,
        over: impl Fn(TcpStream) -> P,
    ) -> anyhow::Result<Duration> {
        let mut sides = Sides::new(self.threads, self.nodelay)?;
        let payloads = Payloads::new(self.size, self.source, self.in_flight as usize);
        for _ in 0..self.connections {
            self.connect(&mut sides, &payloads, requests, &over)?;
        }
        sides.run(requests)
    }

    fn connect<P: Peer<E>, E: Failure>(
        &self,
        sides: &mut Sides,
        payloads: &Payloads,
        requests: u64,
        over: impl Fn(TcpStream) -> P,
    ) -> anyhow::Result<()> {
        let (near, far) = sides.connect()?;
        if self.shape == Shape::Proxy {
            // Only the proxy differs: the client and the server are the same for all contenders.
            let over_ld = |io| Framed::new(io, self.load().length_delimited());
            let (server, to_server) = sides.connect()?;
            sides.spawn_near(self.client(over_ld(near), payloads, requests));
            sides.spawn_near(self.server(over_ld(server), payloads));
            sides.spawn_far(proxy::proxy(over(far), over(to_server)).boxed());
            return Ok(());
        }
        sides.spawn_near(self.client(over(near), payloads, requests));
        sides.spawn_far(self.server(over(far), payloads));
        Ok(())
    }

    fn client<E: Failure>(
        &self,
        peer: impl Peer<E>,
        payloads: &Payloads,
        requests: u64,
    ) -> Running {
        let (payloads, in_flight) = (payloads.clone(), self.in_flight);
        match self.shape {
            Shape::Rpc => rpc::client(peer, payloads, in_flight, requests).boxed(),
            Shape::Channel => channel::sender(peer, payloads, requests).boxed(),
            Shape::Send | Shape::Feed | Shape::Forward | Shape::Proxy => {
                pipelined::client(peer, payloads, in_flight, requests).boxed()
            }
        }
    }

    fn server<E: Failure>(&self, peer: impl Peer<E>, payloads: &Payloads) -> Running {
        match self.shape {
            Shape::Rpc => rpc::server(peer).boxed(),
            Shape::Send => pipelined::send(peer).boxed(),
            Shape::Feed | Shape::Proxy => pipelined::feed(peer).boxed(),
            Shape::Forward => pipelined::forward(peer).boxed(),
            Shape::Channel => channel::receiver(peer, payloads.clone()).boxed(),
        }
    }
}
