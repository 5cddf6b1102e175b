//! Where the two ends of a connection meet.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
};

/// Makes connections.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) nodelay: bool,
}

impl Link {
    /// Both ends of a new connection.
    pub(crate) fn connect(&self) -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        near.set_nodelay(self.nodelay)?;
        far.set_nodelay(self.nodelay)?;
        Ok((near, far))
    }
}
