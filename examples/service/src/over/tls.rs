//! TLS. The service makes a certificate when it starts, and its clients trust only that certificate.

use std::{io, sync::Arc};

use anyhow::Context;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use super::BoxIo;

/// A certificate and its key. The key does not leave the process.
#[derive(Clone)]
pub(crate) struct Identity {
    acceptor: TlsAcceptor,
    certificate: String,
}

impl Identity {
    /// Makes a certificate for `localhost`, `127.0.0.1` and the host of `address`.
    pub(crate) fn new(address: &str) -> anyhow::Result<Self> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let host = host(address).to_owned();
        if !names.contains(&host) {
            names.push(host);
        }
        let made =
            rcgen::generate_simple_self_signed(names).context("cannot make a certificate")?;
        let key = PrivateKeyDer::Pkcs8(made.key_pair.serialize_der().into());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificate: made.cert.pem(),
        })
    }

    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    pub(crate) async fn accept(&self, io: BoxIo) -> io::Result<BoxIo> {
        Ok(Box::new(self.acceptor.accept(io).await?))
    }
}

/// Does the client's side of the handshake. Trusts only `certificate`.
pub(crate) async fn connect(
    socket: TcpStream,
    address: &str,
    certificate: &str,
) -> anyhow::Result<BoxIo> {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host(address).to_owned())?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, socket);
    Ok(Box::new(connecting.await?))
}

/// Returns the host of an address: `::1` for `[::1]:8802`.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}
