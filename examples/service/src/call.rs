//! `service call`: sends requests without waiting for the answers, and prints the answers as they come.

use std::{io, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::Args;
use futures::{Stream, StreamExt, stream};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};
use tokio_stream::wrappers::LinesStream;
use wholeblock::{BlockError, BlockTransport, try_send_blocks};

use crate::{
    connection::codec,
    over::{BoxIo, Over, Target},
    requests::{DONE, REFUSED},
    say, seconds,
};

#[derive(Args, Debug)]
pub(crate) struct CallArgs {
    /// What the connection goes over
    #[arg(long, value_enum, default_value = "tcp")]
    over: Over,

    /// Where the service is [default: where `serve` listens]
    #[arg(long, value_name = "ADDRESS")]
    connect: Option<String>,

    /// The certificate to trust, which `serve` has written
    #[cfg(unix)]
    #[arg(long, value_name = "FILE", default_value = "service-cert.pem")]
    certificate: PathBuf,

    /// Give up if the service moves no byte for so long
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    stall_timeout: Duration,

    /// Requests, such as "upper hello"; none takes the lines of stdin
    requests: Vec<String>,
}

impl CallArgs {
    fn target(&self) -> anyhow::Result<Target> {
        let address = self.connect.clone();
        let certificate = match self.over {
            #[cfg(unix)]
            Over::Tls => {
                let path = &self.certificate;
                let read = std::fs::read_to_string(path);
                Some(read.with_context(|| format!("cannot read {}", path.display()))?)
            }
            _ => None,
        };
        Ok(Target {
            over: self.over,
            address: address.unwrap_or_else(|| self.over.default_address().to_owned()),
            certificate,
        })
    }
}

pub(crate) async fn call(args: CallArgs) -> anyhow::Result<()> {
    let target = args.target()?;
    let connecting = timeout(args.stall_timeout, target.connect()).await;
    let io = connecting.with_context(|| format!("cannot connect to {}", target.address))??;
    let outcome = if args.requests.is_empty() {
        let lines = LinesStream::new(BufReader::new(tokio::io::stdin()).lines());
        exchange(io, lines, args.stall_timeout).await?
    } else {
        let requests = stream::iter(args.requests).map(Ok);
        exchange(io, requests, args.stall_timeout).await?
    };
    if outcome.refused > 0 {
        bail!(
            "{} of {} requests were refused",
            outcome.refused,
            outcome.answered
        );
    }
    Ok(())
}

/// Sends and receives at once. If a client sent everything before it read, both ends would wait for ever once
/// the buffers between them are full.
async fn exchange(
    io: BoxIo,
    requests: impl Stream<Item = io::Result<String>>,
    stall_timeout: Duration,
) -> anyhow::Result<Outcome> {
    let (read, write) = tokio::io::split(io);
    let mut outgoing = BlockTransport::new(write, codec());
    let mut incoming = BlockTransport::new(read, codec()).stall_timeout(stall_timeout);
    let mut sending = try_send_blocks(&mut outgoing, requests).stall_timeout(stall_timeout);

    let mut outcome = Outcome::default();
    // The number of answers to wait for, once all requests are sent. The client counts them instead of closing
    // its side, because a named pipe cannot be closed in one direction only.
    let mut expected = None;
    let mut failure = None;
    while expected != Some(outcome.answered) {
        tokio::select! {
            sent = &mut sending, if expected.is_none() => {
                // Even if sending failed, because the service answers the requests before the failure.
                expected = Some(sending.stats().blocks);
                failure = sent.err();
            }
            answer = incoming.next() => match answer {
                Some(Ok(answer)) => outcome.print(&answer)?,
                // Until all requests are sent, the service may have nothing to answer.
                Some(Err(BlockError::Stalled { .. })) if expected.is_none() => {}
                Some(Err(error)) => return Err(error).with_context(|| outcome.after()),
                None => bail!("{}: the service ended the connection", outcome.after()),
            },
        }
    }
    drop(sending);
    // Over TLS, the service reports an end that was not announced as an error.
    let _ = timeout(stall_timeout, outgoing.close()).await;
    match failure {
        Some(error) => Err(error).with_context(|| outcome.after()),
        None => Ok(outcome),
    }
}

#[derive(Default)]
struct Outcome {
    answered: u64,
    refused: u64,
}

impl Outcome {
    fn print(&mut self, answer: &[u8]) -> anyhow::Result<()> {
        match answer.split_first() {
            Some((&DONE, text)) => say(String::from_utf8_lossy(text)),
            Some((&REFUSED, text)) => {
                self.refused += 1;
                say(format_args!("refused: {}", String::from_utf8_lossy(text)));
            }
            _ => bail!("{}: what came is no answer", self.after()),
        }
        self.answered += 1;
        Ok(())
    }

    fn after(&self) -> String {
        let plural = if self.answered == 1 { "" } else { "s" };
        format!("after {} answer{plural}", self.answered)
    }
}
