//! The link between the two ends of a connection.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
};

use crate::veth::Veth;

/// The values of `--via`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Via {
    Loopback,
    /// Two network namespaces and a pair of virtual Ethernet devices of this MTU.
    Veth(u32),
}

impl Via {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mtu = text.strip_prefix("veth:").map(str::parse);
        match (text, mtu) {
            ("loopback", _) => Ok(Self::Loopback),
            (_, Some(Ok(mtu))) => Ok(Self::Veth(mtu)),
            _ => Err("neither loopback nor veth:MTU".to_owned()),
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Loopback => "loopback".to_owned(),
            Self::Veth(mtu) => format!("veth, MTU {mtu}"),
        }
    }

    /// Says why this system has no such link, if it has none.
    pub(crate) fn missing(self) -> Option<&'static str> {
        match self {
            Self::Loopback => None,
            Self::Veth(_) => Veth::missing(),
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
    /// Fails if the link is [`missing`](Via::missing).
    pub(crate) fn new(via: Via, nodelay: bool) -> anyhow::Result<Self> {
        let veth = match via {
            Via::Loopback => None,
            Via::Veth(mtu) => Some(Veth::new(mtu)?),
        };
        Ok(Self { nodelay, veth })
    }

    /// Both ends of a new connection.
    pub(crate) fn connect(&self) -> io::Result<(TcpStream, TcpStream)> {
        let (near, far) = match &self.veth {
            Some(veth) => veth.pair()?,
            None => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                let near = TcpStream::connect(listener.local_addr()?)?;
                (near, listener.accept()?.0)
            }
        };
        near.set_nodelay(self.nodelay)?;
        far.set_nodelay(self.nodelay)?;
        Ok((near, far))
    }
}
