//! Blocks over TLS, which has records of its own under them, and is flushed in earnest.

use std::sync::Arc;

use futures::{SinkExt, StreamExt, future, stream};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, ServerName},
    },
};
use tokio_util::codec::Framed;
use wholeblock::{
    BlockCodec, BlockError, BlockTransport, Exact, LengthPrefix, Varint, recv_blocks, send_blocks,
};

use crate::{
    support::{tcp_pair, transport, within_limit},
    transports::{blocks, there_and_back},
};

/// Two ends of a TLS connection, with a certificate made for it.
async fn tls_pair() -> (TlsStream<TcpStream>, TlsStream<TcpStream>) {
    let certified = rcgen::generate_simple_self_signed([String::from("localhost")]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(certified.key_pair.serialize_der().into());
    let acceptor = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let connector = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = tcp_pair().await;
    let name = ServerName::try_from("localhost").unwrap();
    let near = TlsConnector::from(Arc::new(connector)).connect(name, near);
    let far = TlsAcceptor::from(Arc::new(acceptor)).accept(far);
    let (near, far) = tokio::join!(near, far);
    (near.unwrap().into(), far.unwrap().into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_cross_a_tls_stream_whole() {
    let framing = LengthPrefix::u32();
    there_and_back!(Framed, tls_pair().await, framing);
    there_and_back!(BlockTransport, tls_pair().await, framing);
    let framing = Exact::new(51_200).unwrap();
    there_and_back!(BlockTransport, tls_pair().await, framing);
    there_and_back!(BlockTransport, tls_pair().await, Varint::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_over_tls_though_neither_end_closes() {
    let (near, far) = tls_pair().await;
    let (mut near, mut far) = (transport(near), transport(far));
    let answering = tokio::spawn(async move {
        for _ in 0..100 {
            let block = far.next().await.unwrap()?;
            far.send(block.freeze()).await?;
        }
        Ok::<_, BlockError>(far)
    });
    for block in blocks(&LengthPrefix::u32()).iter().cycle().take(100) {
        near.send(block.clone()).await.unwrap();
        let back = within_limit(near.next()).await.unwrap().unwrap();
        assert_eq!(back, block);
    }
    let _open = answering.await.unwrap().unwrap();
}
