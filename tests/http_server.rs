//! TLS connections and the plain listener on loopback.

mod http_support;

use std::sync::Arc;

use axum::body::Body;
use http_support::{Fake, app, bare, send};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use veilgate::control::api::Refusal;
use veilgate::http::server::{local_router, serve_connection, serve_local};
use veilgate::http::tls::{TlsError, server_config};

fn certificate() -> CertifiedKey<rcgen::KeyPair> {
    generate_simple_self_signed(["gw.example".to_owned()]).expect("a certificate")
}

fn client(certificate: &CertifiedKey<rcgen::KeyPair>, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.cert.der().clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    config
}

#[tokio::test]
async fn a_tls_connection_serves_http_1_and_ends_when_told() {
    let certificate = certificate();
    let (cert, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
    let tls = server_config(cert.as_bytes(), key.as_bytes()).expect("a good pair");
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let (near, far) = tokio::io::duplex(16 * 1024);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(async move {
        let stream = acceptor.accept(far).await.expect("a handshake");
        serve_connection(stream, app(&Fake::default()), async { drop(stopped.await) }).await;
    });
    let connector = TlsConnector::from(Arc::new(client(&certificate, &["http/1.1"])));
    let name = ServerName::try_from("gw.example").expect("a name");
    let mut stream = connector.connect(name, near).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let request = b"GET /v1/ice HTTP/1.1\r\nHost: gw.example\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut answer = vec![0; 4_096];
    let read = stream.read(&mut answer).await.expect("answered");
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
    assert!(answer.contains("strict-transport-security"), "{answer}");
    stop.send(()).expect("still serving");
    served.await.expect("ends");
}

#[tokio::test]
async fn http_2_is_chosen_when_offered() {
    let certificate = certificate();
    let (cert, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
    let tls = server_config(cert.as_bytes(), key.as_bytes()).expect("a good pair");
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let (near, far) = tokio::io::duplex(16 * 1024);
    let served = tokio::spawn(async move {
        let stream = acceptor.accept(far).await.expect("a handshake");
        serve_connection(stream, app(&Fake::default()), std::future::pending()).await;
    });
    let connector = TlsConnector::from(Arc::new(client(&certificate, &["http/1.1", "h2"])));
    let name = ServerName::try_from("gw.example").expect("a name");
    let mut stream = connector.connect(name, near).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    // RFC 9113 section 3.4: the preface, then an empty SETTINGS frame; ours comes back.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(preface).await.expect("sent");
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.expect("answered");
    assert_eq!(head[3], 4, "a SETTINGS frame");
    drop(stream);
    served.await.expect("ends with its client");
}

#[test]
fn unusable_certificates_are_told_apart() {
    let (one, other) = (certificate(), certificate());
    let (cert, key) = (one.cert.pem(), one.signing_key.serialize_pem());
    let foreign = other.signing_key.serialize_pem();
    let check = |cert: &str, key: &str| server_config(cert.as_bytes(), key.as_bytes());
    assert!(check(&cert, &key).is_ok());
    assert!(matches!(check("", &key), Err(TlsError::Certificate(_))));
    assert!(matches!(check(&cert, "nothing"), Err(TlsError::Key(_))));
    assert!(matches!(check(&cert, &foreign), Err(TlsError::Pair(_))));
}

#[tokio::test]
async fn loopback_shows_metrics_health_and_readiness_and_nothing_else() {
    let fake = Fake::default();
    let get = |path| bare("GET", path, &[]);
    let metrics = send(local_router(fake.clone()), get("/metrics")).await;
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(metrics.body, "veilgate_up 1\n");
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/", 404), ("/v1/ice", 404)] {
        assert_eq!(send(local_router(fake.clone()), get(path)).await.status.as_u16(), status);
    }
    let draining = local_router(Fake::refusing(Refusal::Draining));
    assert_eq!(send(draining.clone(), get("/readyz")).await.status.as_u16(), 503);
    assert_eq!(send(draining.clone(), get("/healthz")).await.status.as_u16(), 200);
    assert_eq!(send(draining, bare("POST", "/metrics", &[])).await.status.as_u16(), 405);
    for path in ["/metrics", "/healthz", "/readyz"] {
        let request = axum::http::Request::get(path).body(Body::empty()).expect("valid");
        assert_eq!(send(app(&fake), request).await.status.as_u16(), 404, "public {path}");
    }
}

#[tokio::test]
async fn the_plain_listener_is_for_loopback_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(serve_local(listener, local_router(Fake::default())));
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ok\n"), "{answer}");
    let open = TcpListener::bind("0.0.0.0:0").await.expect("bound");
    assert!(serve_local(open, local_router(Fake::default())).await.is_err());
}
