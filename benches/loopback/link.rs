//! Where the two ends of a connection meet.

use std::{
    fmt, io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    str::FromStr,
};

use veth::Veth;

#[cfg(target_os = "linux")]
#[path = "veth.rs"]
mod veth;

/// What `--via` takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Via {
    Loopback,
    /// Two network namespaces and a pair of virtual Ethernet devices of this MTU.
    Veth {
        mtu: u32,
    },
}

impl FromStr for Via {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "loopback" => Ok(Self::Loopback),
            Some(("veth", mtu)) => match mtu.parse() {
                Ok(mtu) => Ok(Self::Veth { mtu }),
                Err(_) => Err(format!("{mtu} is no MTU")),
            },
            _ => Err("neither loopback nor veth:MTU".to_owned()),
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => write!(f, "loopback"),
            Self::Veth { mtu } => write!(f, "veth, MTU {mtu}"),
        }
    }
}

impl Via {
    /// Why there is no such link here, if there is none.
    pub(crate) fn missing(self) -> Option<&'static str> {
        match self {
            Self::Loopback => None,
            Self::Veth { .. } => Veth::missing(),
        }
    }
}

/// Makes connections.
#[derive(Debug)]
pub(crate) struct Link {
    nodelay: bool,
    /// None for loopback.
    veth: Option<Veth>,
}

impl Link {
    /// Over a link that is not [`missing`](Via::missing).
    pub(crate) fn new(via: Via, nodelay: bool) -> anyhow::Result<Self> {
        let veth = match via {
            Via::Loopback => None,
            Via::Veth { mtu } => Some(Veth::new(mtu)?),
        };
        Ok(Self { nodelay, veth })
    }

    /// Both ends of a new connection.
    pub(crate) fn connect(&self) -> io::Result<(TcpStream, TcpStream)> {
        let (near, far) = self.pair()?;
        near.set_nodelay(self.nodelay)?;
        far.set_nodelay(self.nodelay)?;
        Ok((near, far))
    }

    fn pair(&self) -> io::Result<(TcpStream, TcpStream)> {
        if let Some(veth) = &self.veth {
            return veth.pair();
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        Ok((near, far))
    }
}

#[cfg(not(target_os = "linux"))]
mod veth {
    use std::{io, net::TcpStream};

    /// There is none.
    #[derive(Debug)]
    pub(super) enum Veth {}

    impl Veth {
        pub(super) fn missing() -> Option<&'static str> {
            Some("it is made of Linux's network namespaces")
        }

        pub(super) fn new(_mtu: u32) -> anyhow::Result<Self> {
            anyhow::bail!("no network namespaces")
        }

        pub(super) fn pair(&self) -> io::Result<(TcpStream, TcpStream)> {
            match *self {}
        }
    }
}
