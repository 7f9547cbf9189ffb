//! `veilgate turn` against the real binary on loopback: minted, revoked, killed, started again.
#![allow(clippy::unwrap_used)]

mod cli_support;
mod peer;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use cli_support::{Home, Ran};
use peer::Peer;
use peer::gateway::eventually;
use veilgate::app::dev;
use veilgate::config::Overrides;
use veilgate::time::Unix;

const MEDIA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 20_000);

const DEVELOPMENT: &[&str] = &["--dev", "--state-dir", "state", "--certs-dir", "certs"];

/// A gateway with a state directory and ports of its own.
struct Served {
    home: Home,
    how: &'static [&'static str],
    udp: SocketAddr,
    https: SocketAddr,
    metrics: SocketAddr,
    child: Child,
}

fn free_tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Served {
    fn start() -> Self {
        Self::start_with(Home::empty(), DEVELOPMENT)
    }

    fn start_with(home: Home, how: &'static [&'static str]) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (https, metrics) = (free_tcp(), free_tcp());
        let child = spawn(&home, how, udp, https, metrics);
        let served = Self { home, how, udp, https, metrics, child };
        served.wait();
        served
    }

    /// Until the gateway is ready.
    fn wait(&self) {
        eventually(|| local(self.metrics, "/readyz").filter(|t| t.starts_with("HTTP/1.1 200")));
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = spawn(&self.home, self.how, self.udp, self.https, self.metrics);
        self.wait();
    }

    /// A command that asks this gateway as somebody elsewhere would.
    fn remote(&self, args: &[&str]) -> Ran {
        let gateway = format!("https://{}", self.https);
        let flags =
            ["--gateway", &gateway, "--key-file", "state/admin.key", "--ca", "certs/ca.pem"];
        self.home.run(&[&["turn"], args, &flags].concat())
    }

    fn allocate(&self, entry: &serde_json::Value) -> Result<Peer, u16> {
        let text = |key: &str| entry[key].as_str().unwrap().to_owned();
        Peer::try_allocate(self.udp, MEDIA, &text("username"), &text("credential"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn spawn(
    home: &Home,
    how: &[&str],
    udp: SocketAddr,
    https: SocketAddr,
    metrics: SocketAddr,
) -> Child {
    let mut command: Command = home.command(&["serve", "--shards", "2"]);
    command.args(how).args(["--public-ip", "127.0.0.1"]);
    for (flag, address) in [("--udp", udp), ("--https", https), ("--metrics", metrics)] {
        command.arg(flag).arg(address.to_string());
    }
    let log = std::fs::File::create(home.file("serve.log")).unwrap();
    command.stdout(Stdio::null()).stderr(log).stdin(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn acknowledged_revocation_outlives_a_kill_and_is_in_force_at_the_next_start() {
    let mut served = Served::start();
    let entry = served.remote(&["mint", "--subject", "alice", "--json"]).expect(0).json();
    assert_eq!(entry["ttl"], 600);
    let mut live = served.allocate(&entry).expect("a good credential");
    live.bind_channel();
    let name = entry["username"].as_str().unwrap();
    served.remote(&["verify", name, "--subject", "alice"]).expect(0);

    let revoked = served.remote(&["revoke", "--subject", "alice", "--reason", "test", "--json"]);
    served.kill();
    let revoked = revoked.expect(0).json();
    assert_eq!((&revoked["kind"], &revoked["reason"]), (&"subject".into(), &"test".into()));

    served.start_again();
    assert_eq!(served.allocate(&entry).err(), Some(401));
    let ran = served.remote(&["verify", name, "--json"]).expect(1);
    assert_eq!(ran.json()["reason"], "revoked");
    let fresh = served.remote(&["mint", "--subject", "alice", "--json"]).expect(0).json();
    served.allocate(&fresh).expect("minted afterwards");
}

#[test]
fn probe_credential_is_minted_through_a_running_gateway() {
    let served = Served::start();
    let entry = served.remote(&["mint", "--subject", "me", "--probe", "--json"]).expect(0).json();
    let name = entry["username"].as_str().unwrap();
    let told = served.remote(&["verify", name, "--json"]).expect(0).json();
    assert_eq!(told["class"], "probe");
}

#[test]
fn live_allocation_of_the_real_binary_ends_within_two_seconds() {
    let served = Served::start();
    let entry = served.remote(&["mint", "--subject", "bob", "--json"]).expect(0).json();
    let _live = served.allocate(&entry).expect("a good credential");
    let metric = |name: &str| metric(served.metrics, name);
    let alive = "veilgate_relay_allocations";
    eventually(|| (metric(alive) == Some(1.0)).then_some(()));
    // The development gateway is found without any flag.
    let ran = served.home.run(&[
        "turn",
        "revoke",
        "--state-dir",
        "state",
        "--username",
        entry["username"].as_str().unwrap(),
    ]);
    assert!(ran.expect(0).stdout.starts_with("revoked: the credential (hash "));
    for _ in 0..20 {
        if metric(alive) == Some(0.0) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    panic!("it still lives after two seconds");
}

#[test]
fn refusals_and_misuse_are_told_with_their_exit_codes() {
    let served = Served::start();
    let gateway = format!("https://{}", served.https);
    let wrong = "x".repeat(40);
    served.home.write("wrong.key", &wrong);
    let run = |args: &[&str]| served.home.run(args);
    let revoke = ["turn", "revoke", "--subject", "a", "--gateway", &gateway];
    let ca = ["--ca", "certs/ca.pem"];
    let ran = run(&[&revoke[..], &["--key-file", "wrong.key"], &ca].concat()).expect(1);
    assert!(ran.stderr.contains("(admin_key_wrong)"), "{}", ran.stderr);
    assert!(!ran.stderr.contains(&wrong), "{}", ran.stderr);
    let ran = run(&[&revoke[..], &["--key-file", "state/admin.key"]].concat()).expect(1);
    assert!(ran.stderr.contains("does not answer"), "an unknown authority: {}", ran.stderr);
    let ran = run(&revoke).expect(2);
    assert!(ran.stderr.contains("--gateway needs --key-file"), "{}", ran.stderr);
    run(&["turn", "revoke", "--subject", "a", "--room", "b"]).expect(2);
    run(&["turn", "revoke"]).expect(2);
    for gateway in ["http://127.0.0.1:1", "turn.example.org", "https://user:secret@a.example"] {
        let args =
            ["turn", "revoke", "--subject", "a", "--gateway", gateway, "--key-file", "wrong.key"];
        assert!(run(&args).expect(2).stderr.contains("is not like https://"), "{gateway}");
    }
    let ran = run(&["turn", "revoke", "--subject", "a", "--state-dir", "nowhere"]).expect(1);
    assert!(ran.stderr.contains("no development gateway"), "{}", ran.stderr);
    let ran = served.remote(&["revoke", "--username", "alice"]).expect(1);
    assert!(ran.stderr.contains("(not_a_credential)"), "{}", ran.stderr);
    let ran = served.remote(&["mint", "--subject", "a", "--ttl", "13h"]).expect(1);
    assert!(ran.stderr.contains("(bad_ttl)"), "{}", ran.stderr);
}

#[test]
fn configured_gateway_lets_plain_and_static_users_in_and_keeps_its_store() {
    let home = Home::configured();
    renew_certificate(&home);
    let text = home.read("veilgate.yaml");
    let text = text
        .replace("# plain_rest: false", "plain_rest: true")
        .replace("# static_users_file", "static_users_file")
        .replace("# realm: turn.example.org", "realm: veilgate")
        .replace("path: veilgate.db", "path: kept/revocations.db");
    home.write("veilgate.yaml", &text);
    home.write("turn.users", "printer:a-long-password-of-ours\n");
    // A shared secret as other programs know it: text.
    home.write("turn.keys", "shared:c2hhcmVkIHNlY3JldCBvZiBvdGhlciBwcm9ncmFtcw==\n");
    let mut served = Served::start_with(home, &["--config", "veilgate.yaml"]);
    let printer =
        serde_json::json!({"username": "printer", "credential": "a-long-password-of-ours"});
    served.allocate(&printer).expect("a static user");
    let name = "4000000000:alice";
    let secret = b"shared secret of other programs";
    let mac = aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
    let mac = aws_lc_rs::hmac::sign(&aws_lc_rs::hmac::Key::new(mac, secret), name.as_bytes());
    let credential = base64::engine::general_purpose::STANDARD.encode(mac);
    let plain = serde_json::json!({"username": name, "credential": credential});
    served.allocate(&plain).expect("a plain name");

    let gateway = format!("https://{}", served.https);
    let flags = ["--gateway", &gateway, "--key-file", "admin.key", "--ca", "certs/dev/ca.pem"];
    for subject in ["printer", "alice"] {
        let revoke = ["turn", "revoke", "--subject", subject];
        let ran = served.home.run(&[&revoke[..], &flags].concat()).expect(0);
        assert!(ran.stdout.contains("kept in force for ever"), "{}", ran.stdout);
    }
    served.kill();
    assert!(served.home.file("kept/revocations.db").exists());
    served.start_again();
    for entry in [printer, plain] {
        assert_eq!(served.allocate(&entry).err(), Some(401), "{entry}");
    }
}

/// The one that is there is of a fixed day.
#[expect(clippy::disallowed_methods, reason = "a client compares the certificate with its clock")]
fn renew_certificate(home: &Home) {
    let ip = Some(Ipv4Addr::LOCALHOST);
    let overrides = Overrides { public_ip: ip, ..Overrides::default() };
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = Unix::from_secs(since.as_secs());
    dev::prepare(&home.file("state"), &home.file("certs/dev"), &overrides, now).unwrap();
}

fn metric(at: SocketAddr, name: &str) -> Option<f64> {
    let text = local(at, "/metrics")?;
    // One series a shard.
    let values = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    Some(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// An answer of the loopback listener, head included.
fn local(at: SocketAddr, path: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(at).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}
