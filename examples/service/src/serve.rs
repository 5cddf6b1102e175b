//! `service serve`: accepts clients up to a limit. When it is asked to stop, it finishes what it has begun.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, info, info_span, warn};

use crate::{
    connection::{self, Limits},
    over::{BoxIo, Listener, Over, Security},
    requests::service,
    say, seconds,
};

/// How long to wait after `accept` failed, for example because too many files are open. Files become free when
/// connections end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// What connections go over
    #[arg(long, value_enum, default_value = "tcp")]
    over: Over,

    /// Where to listen; port 0 takes any free one [default: 127.0.0.1:8801 for TCP]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,

    /// Where to write the certificate, for clients to trust
    #[cfg(unix)]
    #[arg(long, value_name = "FILE", default_value = "service-cert.pem")]
    certificate: PathBuf,

    /// Connections served at once; further ones wait to be accepted
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,

    /// Requests of a connection worked on at once; further ones wait to be read
    #[arg(long, value_name = "REQUESTS", default_value = "16",
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pipelined: u32,

    /// Refuse a request that takes longer
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    request_timeout: Duration,

    /// Give up on a client that moves no byte for so long, and waits for no answer
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    stall_timeout: Duration,

    /// Give up on a client whose request is not whole so long after its first byte
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    block_deadline: Duration,

    /// How long requests in flight may take to finish, once asked to stop
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    grace: Duration,
}

pub(crate) async fn serve(args: ServeArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let address = args.listen.as_deref();
    let address = address.unwrap_or(args.over.default_address());
    let listener = Listener::bind(args.over, address).await?;
    #[cfg(unix)]
    if let Some(certificate) = listener.security().certificate() {
        let path = &args.certificate;
        let written = std::fs::write(path, certificate);
        written.with_context(|| format!("cannot write {}", path.display()))?;
        say(format_args!("certificate to trust: {}", path.display()));
    }
    say(format_args!(
        "listening on {} {}",
        args.over,
        listener.address()?
    ));

    let limits = Limits {
        pipelined: args.pipelined as usize,
        stall_timeout: args.stall_timeout,
        block_deadline: args.block_deadline,
    };
    let connections = Connections {
        limits,
        request_timeout: args.request_timeout,
        permits: Arc::new(Semaphore::new(args.connections as usize)),
        open: TaskTracker::new(),
        answered: Arc::default(),
        stop,
    };
    connections.serve(listener, args.grace).await
}

struct Connections {
    limits: Limits,
    request_timeout: Duration,
    permits: Arc<Semaphore>,
    open: TaskTracker,
    answered: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Connections {
    async fn serve(self, mut listener: Listener, grace: Duration) -> anyhow::Result<()> {
        let mut number = 0;
        while let Some((permit, io, peer)) = self
            .stop
            .run_until_cancelled(self.accept(&mut listener))
            .await
        {
            number += 1;
            let span = info_span!("connection", number, %peer);
            let serving = self.serve_one(io, listener.security().clone(), permit);
            self.open.spawn(serving.instrument(span));
        }

        // So that new clients are refused, and do not wait.
        drop(listener);
        say(format_args!(
            "stopping; open connections: {}",
            self.open.len()
        ));
        self.open.close();
        if timeout(grace, self.open.wait()).await.is_err() {
            bail!(
                "not done after {grace:?}; open connections: {}",
                self.open.len()
            );
        }
        let answered = self.answered.load(Ordering::Relaxed);
        say(format_args!(
            "stopped; connections: {number}, requests answered: {answered}"
        ));
        Ok(())
    }

    /// Waits for a permit, and then for a client.
    async fn accept(&self, listener: &mut Listener) -> (OwnedSemaphorePermit, BoxIo, String) {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        loop {
            match listener.accept().await {
                Ok((io, peer)) => return (permit, io, peer),
                Err(error) => {
                    warn!(%error, "cannot accept");
                    if !is_of_one_client(&error) {
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Returns the task of a connection. The task owns everything, and holds its permit until it ends.
    fn serve_one(
        &self,
        io: BoxIo,
        security: Security,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (limits, stop) = (self.limits, self.stop.clone());
        let service = service(self.request_timeout);
        let answered = self.answered.clone();
        async move {
            let _permit = permit;
            info!("open");
            let handshake = timeout(limits.block_deadline, security.handshake(io));
            let handshake = tokio::select! {
                // Polled first, because a connection that has no handshake to do must end without a reset.
                biased;
                handshake = handshake => handshake,
                () = stop.cancelled() => return info!("stopped within its handshake"),
            };
            let io = match handshake {
                Ok(Ok(io)) => io,
                Ok(Err(error)) => return warn!(%error, "no handshake"),
                Err(_) => return warn!("no handshake within {:?}", limits.block_deadline),
            };
            let served = connection::serve(io, service, limits, &stop).await;
            answered.fetch_add(served.answered, Ordering::Relaxed);
            match served.end {
                Ok(()) => info!(answered = served.answered, "closed"),
                Err(error) => warn!(answered = served.answered, %error, "broken off"),
            }
        }
    }
}

/// True if only the client that was to be accepted has failed. Others may be waiting.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
