//! Connections within the machine: a Unix socket, or a named pipe on Windows.

#[cfg(unix)]
pub(crate) use self::unix::*;
#[cfg(windows)]
pub(crate) use self::windows::*;

#[cfg(unix)]
mod unix {
    use std::{io, os::unix::fs::FileTypeExt, path::PathBuf};

    use tokio::net::{UnixListener, UnixStream};

    pub(crate) const DEFAULT_ADDRESS: &str = "service.sock";

    /// Removes its socket file when it is dropped.
    pub(crate) struct Listener {
        listener: UnixListener,
        path: PathBuf,
    }

    impl Listener {
        pub(crate) async fn bind(address: &str) -> io::Result<Self> {
            let listener = match UnixListener::bind(address) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    if !is_left_over(address).await {
                        return Err(error);
                    }
                    std::fs::remove_file(address)?;
                    UnixListener::bind(address)
                }
                bound => bound,
            };
            Ok(Self {
                listener: listener?,
                path: address.into(),
            })
        }

        pub(crate) fn address(&self) -> String {
            self.path.display().to_string()
        }

        pub(crate) async fn accept(&mut self) -> io::Result<UnixStream> {
            Ok(self.listener.accept().await?.0)
        }
    }

    /// True if a killed service has left its socket file at `path`: a running service accepts connections.
    async fn is_left_over(path: &str) -> bool {
        let is_socket = std::fs::metadata(path).is_ok_and(|data| data.file_type().is_socket());
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        is_socket && UnixStream::connect(path).await.is_err_and(refused)
    }

    impl Drop for Listener {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    pub(crate) async fn connect(address: &str) -> io::Result<UnixStream> {
        UnixStream::connect(address).await
    }
}

#[cfg(windows)]
mod windows {
    use std::{io, mem, time::Duration};

    use tokio::net::windows::named_pipe::{
        ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions,
    };

    pub(crate) const DEFAULT_ADDRESS: &str = r"\\.\pipe\wholeblock-service";

    /// `ERROR_PIPE_BUSY`: every instance of the pipe has a client.
    const PIPE_BUSY: i32 = 231;

    pub(crate) struct Listener {
        /// The instance of the pipe for the next client.
        next: NamedPipeServer,
        name: String,
    }

    impl Listener {
        #[allow(clippy::unused_async, reason = "as for a Unix socket")]
        pub(crate) async fn bind(name: &str) -> io::Result<Self> {
            // So that a second service fails, and does not share the clients.
            let next = ServerOptions::new()
                .first_pipe_instance(true)
                .create(name)?;
            let name = name.to_owned();
            Ok(Self { next, name })
        }

        pub(crate) fn address(&self) -> String {
            self.name.clone()
        }

        pub(crate) async fn accept(&mut self) -> io::Result<NamedPipeServer> {
            self.next.connect().await?;
            // At once, because without an instance clients get the error that there is no pipe.
            let next = ServerOptions::new().create(&self.name)?;
            Ok(mem::replace(&mut self.next, next))
        }
    }

    pub(crate) async fn connect(name: &str) -> io::Result<NamedPipeClient> {
        loop {
            match ClientOptions::new().open(name) {
                Err(error) if error.raw_os_error() == Some(PIPE_BUSY) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                opened => return opened,
            }
        }
    }
}
