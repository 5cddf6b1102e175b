//! Figures of the operating system about this process and its sockets.

use std::io;

/// Returns how many bytes the system sends at once over `socket`: up to 64 KiB of whole packets on Linux.
#[cfg(unix)]
pub fn path_write_len(socket: &impl std::os::fd::AsFd) -> io::Result<usize> {
    let packet = socket2::SockRef::from(socket).tcp_mss()?.max(1) as usize;
    Ok((65_535 / packet).max(1) * packet)
}

#[cfg(not(unix))]
pub fn path_write_len<S>(_socket: &S) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns the processor seconds of all threads of this process, including the kernel.
#[cfg(unix)]
pub fn cpu_seconds() -> Option<f64> {
    use rustix::time::{ClockId, clock_gettime};

    let time = clock_gettime(ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

#[cfg(not(unix))]
pub fn cpu_seconds() -> Option<f64> {
    None
}

/// Returns the processor seconds since [`cpu_seconds`] returned `before`. NaN if the system does not tell.
pub fn cpu_since(before: Option<f64>) -> f64 {
    let cpu = cpu_seconds().zip(before);
    cpu.map_or(f64::NAN, |(after, before)| after - before)
}

/// Returns how many files and sockets this process may have open at once.
#[cfg(unix)]
pub fn file_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};

    getrlimit(Resource::Nofile).current
}

#[cfg(not(unix))]
pub fn file_limit() -> Option<u64> {
    None
}

/// Returns the peak resident memory of this process.
pub fn peak_resident_bytes() -> Option<u64> {
    status_bytes("VmHWM:")
}

/// Returns the resident memory of this process.
pub fn resident_bytes() -> Option<u64> {
    status_bytes("VmRSS:")
}

/// Returns a size from the process's status file, which only Linux has.
fn status_bytes(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}
