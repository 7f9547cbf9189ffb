//! `veilgate probe`, the real binary, against a real gateway and against what is no gateway.
#![allow(clippy::unwrap_used)] // a test may fail

mod cli_support;

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cli_support::{Home, Ran};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use turn::auth::{AuthHandler, generate_auth_key};
use turn::relay::relay_static::RelayAddressGeneratorStatic;
use turn::server::Server;
use turn::server::config::{ConnConfig, ServerConfig};
use webrtc_util::vnet::net::Net;

fn free_udp() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn free_tcp() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A development gateway on loopback with ports and a state directory of its own.
struct Gateway {
    home: Home,
    child: Child,
    udp: u16,
    https: u16,
}

impl Gateway {
    fn start() -> Self {
        let home = Home::empty();
        let (udp, https, metrics) = (free_udp(), free_tcp(), free_tcp());
        let at = |port: u16| format!("127.0.0.1:{port}");
        let mut child = home
            .command(&["serve", "--dev", "--public-ip", "127.0.0.1", "--shards", "2"])
            .args(["--udp", &at(udp), "--https", &at(https), "--metrics", &at(metrics)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // What it prints once it serves; the rest of it is kept from blocking it.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("veilgate is running")), "it started");
        std::thread::spawn(move || lines.for_each(drop));
        Self { home, child, udp, https }
    }

    fn url(&self) -> String {
        format!("turn:127.0.0.1:{}", self.udp)
    }

    /// What `turn mint` prints; also left in `file`.
    fn mint(&self, file: &str, extra: &[&str]) -> Value {
        let args = [&["turn", "mint", "--subject", "me", "--json"], extra].concat();
        let minted = self.home.run(&args).expect(0);
        self.home.write(file, &minted.stdout);
        minted.json()
    }

    fn probe(&self, args: &[&str]) -> Ran {
        // Short: the bounds have tests of their own.
        let short = ["--echoes", "20", "--seconds", "1s"];
        self.home.run(&[&["probe"], args, &short].concat())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All rows of a check, on whatever path.
fn rows<'a>(report: &'a Value, check: &str) -> Vec<&'a Value> {
    let paths = report["paths"].as_array().unwrap().iter().map(|path| &path["checks"]);
    paths
        .chain([&report["checks"]])
        .flat_map(|rows| rows.as_array().unwrap())
        .filter(|row| row["check"] == check)
        .collect()
}

fn states<'a>(report: &'a Value, check: &str) -> Vec<&'a str> {
    rows(report, check).iter().map(|row| row["state"].as_str().unwrap()).collect()
}

/// A check was made, and came out the same wherever it was.
fn all(report: &Value, check: &str, state: &str) {
    let states = states(report, check);
    let same = states.iter().all(|it| *it == state);
    assert!(!states.is_empty() && same, "{check} is {states:?}: {report:#}");
}

#[test]
fn healthy_gateway_relays_refuses_and_is_measured() {
    let gateway = Gateway::start();
    let ran = gateway.probe(&["--dev", "--json"]).expect(0);
    assert!(ran.stderr.contains("probe: udp ipv4 127.0.0.1"), "progress: {}", ran.stderr);
    let report = ran.json();
    assert_eq!((&report["schema"], &report["ok"]), (&1.into(), &true.into()));
    assert_eq!((&report["failed"], &report["skipped"]), (&0.into(), &0.into()));
    let each = ["challenge", "unsigned", "forged", "allocation", "forwarder", "echo", "rtt"];
    for check in each.iter().chain(&["throughput", "afterwards", "echo-class"]) {
        all(&report, check, "ok");
    }
    let refused = rows(&report, "refuse");
    assert!(refused.len() >= 50, "{}", refused.len());
    for row in refused {
        assert_eq!((&row["state"], &row["answers"]["send"]), (&"ok".into(), &"silent".into()));
        assert_eq!(row["answers"]["channel_bind"], "403", "{row}");
    }
    // Every transport that the gateway hands out.
    let transports = report["paths"].as_array().unwrap().iter().map(|path| &path["transport"]);
    assert_eq!(transports.collect::<Vec<_>>(), ["udp", "tls", "tcp"]);
    let path = &report["paths"][0];
    assert_eq!((&path["transport"], &path["family"]), (&"udp".into(), &"ipv4".into()));
    let (rtt, load) = (&path["rtt"], &path["throughput"]);
    assert_eq!(rtt["sent"], 20);
    assert!(rtt["p50_us"].as_u64() > Some(0) && rtt["p50_us"].as_u64() <= rtt["p99_us"].as_u64());
    assert!(load["received"].as_u64() > Some(100), "{load}");
    assert!(load["sent_bits_per_second"].as_u64() <= Some(20_500_000), "{load}");

    let table = gateway.probe(&["--dev"]).expect(0).stdout;
    assert!(table.starts_with("udp ipv4 127.0.0.1:"), "{table}");
    assert!(table.contains("  ok    refuse      169.254.169.254:80 cloud metadata"), "{table}");
    assert!(table.trim_end().lines().last().unwrap().starts_with("ok: "), "{table}");
}

#[test]
fn credential_decides_what_can_be_told_and_is_never_shown() {
    let gateway = Gateway::start();
    let probe = gateway.mint("probe.json", &["--probe"]);
    let user = gateway.mint("user.json", &[]);
    let token = gateway.home.run(&["token", "mint", "--play", "lobby/*"]).expect(0).stdout;
    gateway.home.write("token", &token);
    let https = format!("https://127.0.0.1:{}", gateway.https);
    let url = gateway.url();

    let full = gateway.probe(&[&url, "--credential-file", "probe.json", "--json"]).expect(0);
    all(&full.json(), "echo", "ok");
    let from_file =
        gateway.probe(&["--credential-file", "probe.json", "--ca", "certs/dev/ca.pem"]).expect(0);

    let less = gateway.probe(&[&url, "--credential-file", "user.json", "--json"]).expect(0);
    for check in ["echo", "rtt", "throughput"] {
        all(&less.json(), check, "skip");
    }
    let reason = rows(&less.json(), "echo")[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("turn mint --probe"), "{reason}");

    let ca = ["--ca", "certs/dev/ca.pem"];
    let args = [&[https.as_str(), "--token-file", "token", "--json"][..], &ca].concat();
    let handed = gateway.probe(&args).expect(0);
    for check in ["https", "ice-closed", "ice", "allocation", "forwarder"] {
        all(&handed.json(), check, "ok");
    }
    let both = gateway.probe(&[&args[..], &["--credential-file", "probe.json"]].concat()).expect(0);
    for check in ["echo", "echo-class"] {
        all(&both.json(), check, "ok");
    }

    for ran in [&full, &from_file, &less, &handed, &both] {
        let said = format!("{}{}", ran.stdout, ran.stderr);
        for secret in [&probe["username"], &probe["credential"], &user["username"]] {
            assert!(!said.contains(secret.as_str().unwrap()), "a secret in {said}");
        }
        assert!(!said.contains(token.trim()), "the token in {said}");
    }

    let untrusted = gateway.probe(&[&https, "--token-file", "token", "--json"]).expect(1);
    assert_eq!(states(&untrusted.json(), "https"), ["fail"]);
    gateway.home.write("other-token", "not.a.token");
    let refused = [&[https.as_str(), "--token-file", "other-token", "--json"][..], &ca].concat();
    let refused = gateway.probe(&refused).expect(1).json();
    assert_eq!((states(&refused, "https"), states(&refused, "ice")), (vec!["ok"], vec!["fail"]));
}

#[test]
fn wrong_credential_and_silent_ports_fail_in_their_row() {
    let gateway = Gateway::start();
    let mut forged = gateway.mint("user.json", &[]);
    forged["credential"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAA=".into();
    gateway.home.write("forged.json", &forged.to_string());
    let url = gateway.url();
    let report = gateway.probe(&[&url, "--credential-file", "forged.json", "--json"]).expect(1);
    let report = report.json();
    for (check, state) in [
        ("challenge", "ok"),
        ("forged", "ok"),
        ("allocation", "fail"),
        ("forwarder", "skip"),
        ("refuse", "skip"),
    ] {
        assert_eq!(states(&report, check), [state], "{check}: {report:#}");
    }
    assert_eq!(report["failed"], 1);

    // Free a moment ago, and nobody was told of it.
    let nothing = [
        format!("turn:127.0.0.1:{}", free_udp()),
        format!("turn:127.0.0.1:{}?transport=tcp", free_tcp()),
        format!("turns:127.0.0.1:{}?transport=tcp", free_tcp()),
    ];
    for url in &nothing {
        let args = [url, "--credential-file", "user.json", "--json", "--timeout", "1s"];
        let report = gateway.probe(&args).expect(1).json();
        assert_eq!(states(&report, "reachable"), ["fail"], "{url}");
        let reason = rows(&report, "reachable")[0]["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains("nobody listens"), "{url}: {reason}");
    }
}

#[test]
fn misuse_is_told_with_exit_code_2() {
    let home = Home::empty();
    home.write("c.json", r#"{"urls":[],"username":"u","credential":"p"}"#);
    for args in [
        &["probe"][..],
        &["probe", "http://h"],
        &["probe", "https://h"],
        &["probe", "https://user:word@h", "--credential-file", "c.json"],
        &["probe", "turn:h"],
        &["probe", "turn:h", "--credential-file", "c.json", "--token-file", "t"],
        &["probe", "turn:h?transport=dtls", "--credential-file", "c.json"],
        &["probe", "turn:h", "--credential-file", "c.json", "--seconds", "4s"],
        &["probe", "turn:h", "--credential-file", "c.json", "--mbit", "21"],
    ] {
        let ran = home.run(args).expect(2);
        assert!(ran.stdout.is_empty() && !ran.stderr.contains("word"), "{args:?}: {}", ran.stderr);
    }
    let help = home.run(&["probe", "--help"]).expect(0).stdout;
    for part in ["CHECKS", "CREDENTIALS", "EXIT STATUS", "EXAMPLES"] {
        assert!(help.contains(part), "{part}");
    }
}

struct OneUser;

impl AuthHandler for OneUser {
    fn auth_handle(&self, user: &str, realm: &str, _: SocketAddr) -> Result<Vec<u8>, turn::Error> {
        Ok(generate_auth_key(user, realm, "secret"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_lets_everything_through_fails() {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let server = Server::new(ServerConfig {
        conn_configs: vec![ConnConfig {
            conn: Arc::new(socket),
            relay_addr_generator: Box::new(RelayAddressGeneratorStatic {
                relay_address: IpAddr::from([127, 0, 0, 1]),
                address: "127.0.0.1".to_owned(),
                net: Arc::new(Net::new(None)),
            }),
        }],
        realm: "open".to_owned(),
        auth_handler: Arc::new(OneUser),
        channel_bind_timeout: Duration::ZERO,
        alloc_close_notify: None,
    })
    .await
    .unwrap();
    let report = tokio::task::spawn_blocking(move || {
        let home = Home::empty();
        home.write("c.json", r#"{"username":"user","credential":"secret"}"#);
        let url = format!("turn:{address}");
        let args = ["probe", &url, "--credential-file", "c.json", "--json", "--timeout", "1s"];
        home.run(&args).expect(1).json()
    });
    let report = report.await.unwrap();
    server.close().await.unwrap();
    for check in ["forged", "allocation", "forwarder"] {
        assert_eq!(states(&report, check), ["ok"], "{check}: {report:#}");
    }
    assert_eq!(states(&report, "echo"), ["fail"]);
    let find = |part: &str| {
        let mut all = rows(&report, "refuse").into_iter();
        all.find(|row| row["subject"].as_str().unwrap().contains(part)).unwrap().clone()
    };
    let metadata = find("169.254.169.254:80");
    assert_eq!(metadata["state"], "fail");
    assert_eq!(metadata["answers"]["create_permission"], "GRANTED");
    assert_eq!(metadata["answers"]["channel_bind"], "GRANTED");
    // Its own TURN port answered, and a packet came to the socket that waits here.
    for part in ["its own TURN port", "this machine"] {
        assert_eq!(find(part)["answers"]["send"], "ANSWERED", "{part}");
    }
}

/// Carries TURN messages between a stream and the gateway's UDP port.
async fn carry(stream: impl AsyncRead + AsyncWrite, gateway: SocketAddr) {
    let (mut read, mut write) = tokio::io::split(stream);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(gateway).await.unwrap();
    let up = async {
        let mut head = [0; 4];
        while read.read_exact(&mut head).await.is_ok() {
            let body = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let rest = if head[0] < 4 { 16 + body } else { body.next_multiple_of(4) };
            let mut message = head.to_vec();
            message.resize(4 + rest, 0);
            read.read_exact(&mut message[4..]).await.unwrap();
            socket.send(&message).await.unwrap();
        }
    };
    let down = async {
        let mut buffer = [0; 2_048];
        while let Ok(len) = socket.recv(&mut buffer).await {
            let padded = if buffer[0] < 4 { len } else { len.next_multiple_of(4) };
            buffer[len..padded].fill(0);
            if write.write_all(&buffer[..padded]).await.is_err() || write.flush().await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_tls_and_ipv6_are_probed_like_udp_and_ipv4() {
    let gateway = Arc::new(tokio::task::spawn_blocking(Gateway::start).await.unwrap());
    gateway.mint("probe.json", &["--probe"]);
    let to = SocketAddr::from(([127, 0, 0, 1], gateway.udp));
    let chain = CertificateDer::pem_file_iter(gateway.home.file("certs/dev/server.pem")).unwrap();
    let chain = chain.map(|certificate| certificate.unwrap()).collect();
    let key = PrivateKeyDer::from_pem_file(gateway.home.file("certs/dev/server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (tcp, tcp6, tls) = tokio::join!(
        tokio::net::TcpListener::bind("127.0.0.1:0"),
        tokio::net::TcpListener::bind("[::1]:0"),
        tokio::net::TcpListener::bind("127.0.0.1:0"),
    );
    let (tcp, tcp6, tls) = (tcp.unwrap(), tcp6.unwrap(), tls.unwrap());
    let ports = [&tcp, &tcp6, &tls].map(|listener| listener.local_addr().unwrap().port());
    for listener in [tcp, tcp6] {
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(carry(stream, to));
            }
        });
    }
    tokio::spawn(async move {
        while let Ok((stream, _)) = tls.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // One client does not trust us.
                if let Ok(stream) = acceptor.accept(stream).await {
                    carry(stream, to).await;
                }
            });
        }
    });
    let [tcp, tcp6, tls] = ports;
    for (url, transport, family) in [
        (format!("turn:127.0.0.1:{tcp}?transport=tcp"), "tcp", "ipv4"),
        (format!("turn:[::1]:{tcp6}?transport=tcp"), "tcp", "ipv6"),
        (format!("turns:127.0.0.1:{tls}?transport=tcp"), "tls", "ipv4"),
    ] {
        let probing = Arc::clone(&gateway);
        let report = tokio::task::spawn_blocking(move || {
            let args = [&url, "--credential-file", "probe.json", "--ca", "certs/dev/ca.pem"];
            probing.probe(&[&args[..], &["--json"]].concat()).expect(0).json()
        });
        let report = report.await.unwrap();
        let path = &report["paths"][0];
        assert_eq!((&path["transport"], &path["family"]), (&transport.into(), &family.into()));
        for check in ["challenge", "allocation", "forwarder", "echo", "rtt", "throughput"] {
            assert_eq!(states(&report, check), ["ok"], "{transport} {check}: {report:#}");
        }
        assert!(states(&report, "refuse").len() >= 50);
    }
    let untrusted = tokio::task::spawn_blocking(move || {
        let url = format!("turns:127.0.0.1:{tls}?transport=tcp");
        gateway.probe(&[&url, "--credential-file", "probe.json", "--json"]).expect(1).json()
    });
    assert_eq!(states(&untrusted.await.unwrap(), "tls"), ["fail"]);
}
