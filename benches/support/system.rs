//! What the operating system says about this process, where it says so.

/// Seconds that all threads of this process have spent computing, in the kernel too.
#[cfg(unix)]
pub(crate) fn cpu_seconds() -> Option<f64> {
    use rustix::time::{ClockId, clock_gettime};

    let time = clock_gettime(ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

#[cfg(not(unix))]
pub(crate) fn cpu_seconds() -> Option<f64> {
    None
}

/// How many files and sockets this process may have open at once.
#[cfg(unix)]
pub(crate) fn file_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};

    getrlimit(Resource::Nofile).current
}

#[cfg(not(unix))]
pub(crate) fn file_limit() -> Option<u64> {
    None
}

/// Bytes of memory that this process has resident.
pub(crate) fn resident_bytes() -> Option<usize> {
    // Linux alone has this file. Its second figure is in pages, which are taken to be of the usual
    // size: the standard library does not say.
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
