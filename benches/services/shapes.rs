//! The shapes of services, and one measurement of each.

use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use tokio::net::TcpStream;
use tokio_util::codec::Framed;
use wholeblock::{BlockCodec, BlockTransport};

use crate::{
    payloads::Payloads,
    pipelined, rpc,
    sides::Sides,
    support::{
        contenders::{Contender, Failure, Peer, Running, framed_64k},
        load::{Load, Source},
    },
};

/// Their names are what `--shapes` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    Rpc,
    Send,
    Feed,
    Forward,
}

impl Shape {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Rpc => "rpc: callers, handlers, and a task for each end of the connection",
            Self::Send => "send: a server that sends each answer",
            Self::Feed => "feed: a server that feeds answers, then flushes",
            Self::Forward => "forward: a server that forwards requests into its sink",
        }
    }
}

/// What one measurement moves, and how.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) shape: Shape,
    pub(crate) size: usize,
    pub(crate) in_flight: u64,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) nodelay: bool,
    pub(crate) payloads: Payloads,
}

impl Job {
    /// Answers `requests` requests on each connection.
    pub(crate) fn run(&self, contender: Contender, requests: u64) -> anyhow::Result<Duration> {
        let load = Load {
            size: self.size,
            prefixed: true,
            source: Source::Slices,
            blocks: requests,
        };
        let codec = BlockCodec::new(load.length_prefix()?);
        let ld = || load.length_delimited();
        match contender {
            Contender::Ld => self.run_over(requests, |io| Framed::new(io, ld())),
            Contender::Ld64k => self.run_over(requests, |io| framed_64k(io, ld())),
            Contender::Framed => self.run_over(requests, |io| Framed::new(io, codec.clone())),
            Contender::Framed64k => self.run_over(requests, |io| framed_64k(io, codec.clone())),
            Contender::Transport => {
                self.run_over(requests, |io| BlockTransport::new(io, codec.clone()))
            }
            other => bail!("{} is not a Sink and a Stream", other.name()),
        }
    }

    /// How many requests on each connection keep `LengthDelimitedCodec` busy for `time`.
    pub(crate) fn requests_in(&self, time: Duration) -> anyhow::Result<u64> {
        let mut requests = self.in_flight;
        loop {
            let took = self.run(Contender::Ld, requests)?;
            let share = time.as_secs_f64() / took.as_secs_f64();
            let wanted = (requests as f64 * share).ceil() as u64;
            // Shorter runs are mostly connecting and starting.
            if share < 4.0 {
                return Ok(wanted.next_multiple_of(self.in_flight));
            }
            requests = wanted.min(32 * requests).next_multiple_of(self.in_flight);
        }
    }

    /// The name of the table that this belongs into.
    pub(crate) fn describe(&self) -> String {
        let shape = self.shape.describe();
        let (in_flight, connections) = (self.in_flight, self.connections);
        format!("{shape}; {in_flight} in flight, connections: {connections}")
    }

    fn run_over<P: Peer<E>, E: Failure>(
        &self,
        requests: u64,
        over: impl Fn(TcpStream) -> P,
    ) -> anyhow::Result<Duration> {
        let mut sides = Sides::new(self.threads, self.nodelay)?;
        for _ in 0..self.connections {
            let (near, far) = sides.connect()?;
            let (near, far) = (over(near), over(far));
            let (payloads, in_flight) = (self.payloads.clone(), self.in_flight);
            let client: Running = match self.shape {
                Shape::Rpc => Box::pin(rpc::client(near, payloads, in_flight, requests)),
                _ => Box::pin(pipelined::client(near, payloads, in_flight, requests)),
            };
            let server: Running = match self.shape {
                Shape::Rpc => Box::pin(rpc::server(far)),
                Shape::Send => Box::pin(pipelined::send(far)),
                Shape::Feed => Box::pin(pipelined::feed(far)),
                Shape::Forward => Box::pin(pipelined::forward(far)),
            };
            sides.spawn_near(client);
            sides.spawn_far(server);
        }
        sides.run(requests)
    }
}
