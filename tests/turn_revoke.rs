//! `veilgate turn` against the real binary on loopback: minted, revoked, killed, started again.
#![allow(clippy::unwrap_used)]

mod cli_support;
mod peer;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cli_support::{Home, Ran};
use peer::Peer;
use peer::gateway::eventually;

const MEDIA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 20_000);

/// A development gateway with a state directory and ports of its own.
struct Served {
    home: Home,
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
        let home = Home::empty();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (https, metrics) = (free_tcp(), free_tcp());
        let child = spawn(&home, udp, https, metrics);
        let served = Self { home, udp, https, metrics, child };
        served.wait();
        served
    }

    fn state(&self) -> PathBuf {
        self.home.file("state")
    }

    /// Until the note of the running gateway is there and the API answers.
    fn wait(&self) {
        eventually(|| {
            let note = self.state().join("gateway.json").exists();
            (note && std::net::TcpStream::connect(self.https).is_ok()).then_some(())
        });
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        std::fs::remove_file(self.state().join("gateway.json")).unwrap();
        self.child = spawn(&self.home, self.udp, self.https, self.metrics);
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

fn spawn(home: &Home, udp: SocketAddr, https: SocketAddr, metrics: SocketAddr) -> Child {
    let mut command: Command = home.command(&["serve", "--dev", "--shards", "2"]);
    command.args(["--state-dir", "state", "--certs-dir", "certs", "--public-ip", "127.0.0.1"]);
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

fn metric(at: SocketAddr, name: &str) -> Option<f64> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(at).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    // One series a shard.
    let values = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    Some(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
