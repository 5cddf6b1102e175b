//! The transports of a connection, chosen by one flag: TCP, TLS, or a Unix socket or named pipe.

mod local;
#[cfg(unix)]
pub(crate) mod tls;

use std::{fmt, io};

use anyhow::Context;
use clap::ValueEnum;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Over {
    /// TCP; addresses are HOST:PORT
    Tcp,
    /// TLS over TCP, with a certificate made at start
    // Not on Windows, because TLS needs ring, whose C and assembler would have to be cross-compiled.
    #[cfg(unix)]
    Tls,
    /// A Unix socket, or a named pipe of Windows; the address is its path
    Local,
}

impl Over {
    pub(crate) fn default_address(self) -> &'static str {
        match self {
            Self::Tcp => "127.0.0.1:8801",
            #[cfg(unix)]
            Self::Tls => "127.0.0.1:8802",
            Self::Local => local::DEFAULT_ADDRESS,
        }
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            #[cfg(unix)]
            Self::Tls => "tls",
            Self::Local => "local",
        })
    }
}

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// The best length of a write in bytes, if it is known.
    fn write_len(&self) -> Option<usize> {
        None
    }
}

impl Io for TcpStream {
    /// Linux sends up to 64 KiB in whole packets at once. This is three times as much.
    #[cfg(unix)]
    fn write_len(&self) -> Option<usize> {
        let packet = socket2::SockRef::from(self).tcp_mss().ok()?.max(1) as usize;
        Some(3 * packet * (65_535 / packet).max(1))
    }
}

/// TLS writes records of its own, which do not match packets.
#[cfg(unix)]
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for tokio_rustls::server::TlsStream<T> {}
#[cfg(unix)]
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for tokio_rustls::client::TlsStream<T> {}

#[cfg(unix)]
impl Io for tokio::net::UnixStream {}
#[cfg(windows)]
impl Io for tokio::net::windows::named_pipe::NamedPipeServer {}
#[cfg(windows)]
impl Io for tokio::net::windows::named_pipe::NamedPipeClient {}

/// A connection of any kind.
pub(crate) type BoxIo = Box<dyn Io>;

pub(crate) struct Listener {
    socket: Socket,
    security: Security,
}

enum Socket {
    Tcp(TcpListener),
    Local(local::Listener),
}

/// The handshake before the first block, if there is one.
#[derive(Clone)]
pub(crate) enum Security {
    None,
    #[cfg(unix)]
    Tls(tls::Identity),
}

impl Listener {
    pub(crate) async fn bind(over: Over, address: &str) -> anyhow::Result<Self> {
        let cannot_listen = || format!("cannot listen on {address}");
        let socket = match over {
            Over::Local => Socket::Local(
                local::Listener::bind(address)
                    .await
                    .with_context(cannot_listen)?,
            ),
            _ => Socket::Tcp(
                TcpListener::bind(address)
                    .await
                    .with_context(cannot_listen)?,
            ),
        };
        let security = match over {
            #[cfg(unix)]
            Over::Tls => Security::Tls(tls::Identity::new(address)?),
            _ => Security::None,
        };
        Ok(Self { socket, security })
    }

    pub(crate) fn address(&self) -> io::Result<String> {
        match &self.socket {
            Socket::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            Socket::Local(listener) => Ok(listener.address()),
        }
    }

    pub(crate) fn security(&self) -> &Security {
        &self.security
    }

    /// Accepts the next connection, and names it. Cancel safe: dropping the future loses no connection.
    pub(crate) async fn accept(&mut self) -> io::Result<(BoxIo, String)> {
        match &mut self.socket {
            Socket::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                socket.set_nodelay(true)?;
                Ok((Box::new(socket), peer.to_string()))
            }
            Socket::Local(listener) => {
                let connection = listener.accept().await?;
                Ok((Box::new(connection), "local".to_owned()))
            }
        }
    }
}

impl Security {
    /// Returns the certificate that a client must trust, in PEM; none without TLS.
    pub(crate) fn certificate(&self) -> Option<&str> {
        match self {
            Self::None => None,
            #[cfg(unix)]
            Self::Tls(identity) => Some(identity.certificate()),
        }
    }

    /// Does the server's side of the handshake. Call it in a task of its own, because a client may be slow.
    pub(crate) async fn handshake(&self, io: BoxIo) -> io::Result<BoxIo> {
        match self {
            Self::None => Ok(io),
            #[cfg(unix)]
            Self::Tls(identity) => identity.accept(io).await,
        }
    }
}

/// A service to connect to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) over: Over,
    pub(crate) address: String,
    /// The certificate to trust, in PEM, if this is over TLS.
    pub(crate) certificate: Option<String>,
}

impl Target {
    pub(crate) async fn connect(&self) -> anyhow::Result<BoxIo> {
        let cannot_connect = || format!("cannot connect to {}", self.address);
        if let Over::Local = self.over {
            let connecting = local::connect(&self.address).await;
            return Ok(Box::new(connecting.with_context(cannot_connect)?));
        }
        let connecting = TcpStream::connect(&self.address).await;
        let socket = connecting.with_context(cannot_connect)?;
        socket.set_nodelay(true)?;
        match &self.certificate {
            #[cfg(unix)]
            Some(certificate) => tls::connect(socket, &self.address, certificate)
                .await
                .with_context(cannot_connect),
            _ => Ok(Box::new(socket)),
        }
    }
}
