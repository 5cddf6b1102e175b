//! Two network namespaces joined by a veth pair: real packets of a real MTU, without a network.

use std::{
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{self, Command},
    thread,
};

use anyhow::{Context, ensure};
use namespaces::{are_allowed, enter};

/// The addresses of the devices. Each is alone in its namespace, so they cannot conflict with others.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The names of the namespaces. A drop removes the namespaces and their devices. `ip netns list` shows the
/// namespaces that a killed run left.
#[derive(Debug)]
pub(crate) struct Veth {
    near: String,
    far: String,
}

impl Veth {
    pub(crate) fn missing() -> Option<&'static str> {
        if !are_allowed() {
            return Some("network namespaces are made by root, on Linux");
        }
        match Command::new("ip").arg("-Version").output() {
            Ok(_) => None,
            Err(_) => Some("there is no command ip (iproute2)"),
        }
    }

    pub(crate) fn new(mtu: u32) -> anyhow::Result<Self> {
        // Before the commands, so that a drop cleans up if one of them fails.
        let veth = Self {
            near: format!("wholeblock-{}-near", process::id()),
            far: format!("wholeblock-{}-far", process::id()),
        };
        let Self { near, far } = &veth;
        ip(&format!("netns add {near}"))?;
        ip(&format!("netns add {far}"))?;
        ip(&format!(
            "link add near netns {near} type veth peer name far netns {far}"
        ))?;
        for (namespace, device, address) in [(near, "near", NEAR), (far, "far", FAR)] {
            ip(&format!(
                "-n {namespace} addr add {address}/24 dev {device}"
            ))?;
            ip(&format!("-n {namespace} link set {device} mtu {mtu} up"))?;
        }
        Ok(veth)
    }

    /// Returns both ends of a new connection, each in its namespace.
    pub(crate) fn pair(&self) -> io::Result<(TcpStream, TcpStream)> {
        let listener = within(&self.far, || TcpListener::bind((FAR, 0)))?;
        let address = listener.local_addr()?;
        let near = within(&self.near, || TcpStream::connect(address))?;
        let (far, _) = listener.accept()?;
        Ok((near, far))
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.far] {
            // Fails if the namespace was never made. There is nobody to report it to.
            let _ = ip(&format!("netns del {namespace}"));
        }
    }
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .with_context(|| format!("ip {arguments}"))?;
    ensure!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Runs `open` on a thread in `namespace`. A socket stays in the namespace in which it was made, whichever
/// thread uses it, and so do the connections that it accepts.
fn within<T: Send>(namespace: &str, open: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let opened = scope.spawn(|| enter(namespace).and_then(|()| open()));
        opened.join().expect("a thread that does not panic")
    })
}

#[cfg(target_os = "linux")]
mod namespaces {
    use std::{fs::File, io, os::fd::AsFd};

    use rustix::{
        process::geteuid,
        thread::{LinkNameSpaceType, move_into_link_name_space},
    };

    pub(super) fn are_allowed() -> bool {
        geteuid().is_root()
    }

    /// Moves only the current thread.
    pub(super) fn enter(name: &str) -> io::Result<()> {
        let file = File::open(format!("/var/run/netns/{name}"))?;
        Ok(move_into_link_name_space(
            file.as_fd(),
            Some(LinkNameSpaceType::Network),
        )?)
    }
}

#[cfg(not(target_os = "linux"))]
mod namespaces {
    use std::io;

    pub(super) fn are_allowed() -> bool {
        false
    }

    pub(super) fn enter(_name: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
