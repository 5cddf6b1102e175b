#![cfg(unix)] // ring would have to be cross-compiled for Windows
//! Blocks over TLS, which has records of its own, and whose flushes matter.

use std::sync::Arc;

use bytes::BytesMut;
use futures::{SinkExt, StreamExt, TryStreamExt, stream};
use testing::{numbered_for, tcp_pair, transport, within_limit};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, ServerName},
    },
};
use wholeblock::{BlockCodec, BlockError, BlockTransport, Exact, Framing, LengthPrefix, Varint};

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

/// One end sends blocks and closes, and the other sends back what it receives.
async fn there_and_back<F: Framing + Copy + Send + Sync + 'static>(framing: F) {
    let (near, far) = tls_pair().await;
    let blocks = numbered_for(&framing, &[0, 100, 20_000, 300_000, 7].repeat(20));
    let echo = tokio::spawn(async move {
        let (mut sink, incoming) = BlockTransport::new(far, BlockCodec::new(framing)).split();
        let incoming = incoming.map_ok(BytesMut::freeze);
        incoming.forward(&mut sink).await
    });
    let (mut sink, incoming) = BlockTransport::new(near, BlockCodec::new(framing)).split();
    let outgoing = blocks.clone();
    let sending = tokio::spawn(async move {
        sink.send_all(&mut stream::iter(outgoing).map(Ok)).await?;
        sink.close().await
    });
    let back: Vec<BytesMut> = within_limit(incoming.try_collect()).await.unwrap();
    assert_eq!(back, blocks);
    sending.await.unwrap().unwrap();
    echo.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_cross_a_tls_stream_whole() {
    there_and_back(LengthPrefix::u32()).await;
    there_and_back(Exact::new(51_200).unwrap()).await;
    there_and_back(Varint::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_over_tls_without_a_close() {
    let (near, far) = tls_pair().await;
    let (mut near, mut far) = (transport(near), transport(far));
    let answering = tokio::spawn(async move {
        for _ in 0..100 {
            let block = far.next().await.unwrap()?;
            far.send(block.freeze()).await?;
        }
        Ok::<_, BlockError>(far)
    });
    for block in numbered_for(&LengthPrefix::u32(), &[0, 5, 70_000])
        .iter()
        .cycle()
        .take(100)
    {
        near.send(block.clone()).await.unwrap();
        let back = within_limit(near.next()).await.unwrap().unwrap();
        assert_eq!(back, block);
    }
    let _open = answering.await.unwrap().unwrap();
}
