//! The external policy, judged by coturn's own client and echo, over UDP, TCP and TLS, among
//! globally routable addresses that exist in this test's namespaces alone.

mod common;

use std::process::{Child, Command, Stdio};

use common::configured::{self, TURN_SECRET};
use common::{Gateway, HTTPS_PORT, Network, UDP_PORT, need};

const GATEWAY: &str = "8.78.0.1";
const PEER: &str = "8.78.0.4";
const PEER6: &str = "2a01:78::4";
const PEER_PORT: &str = "3480";

fn network() -> Network {
    Network::with(
        &["8.78.0.1/24", "2a01:78::1/64"],
        &["8.78.0.3/24", "8.78.0.4/24", "2a01:78::3/64", "2a01:78::4/64"],
    )
}

fn gateway() -> Gateway {
    let config = "  plain_rest: true
relay:
  # -m 20 is forty allocations of one user where it reserves a second port for each.
  limits: { allocations_per_subject: 100 }
  external:
    allow: [8.78.0.4/32, 8.78.0.1/32, 2a01:78::4, 2a01:78::1]
    ip6: 2a01:78::1
    names: true
shards: 2
";
    configured::start(network(), GATEWAY, GATEWAY, config)
}

/// coturn's echo.
struct Echo(Child);

impl Echo {
    fn start(gateway: &Gateway) -> Self {
        need("turnutils_peer", "coturn");
        let mut command = Command::new("turnutils_peer");
        command.args(["-L", PEER, "-L", PEER6, "-p", PEER_PORT]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let echo = Self(gateway.network.as_client(|| command.spawn()).expect("the echo starts"));
        // It is there when its sockets are.
        for _ in 0..200 {
            let mut ss = Command::new("ss");
            ss.args(["-unl", "-H"]);
            let list = gateway.network.as_client(|| ss.output()).expect("ss runs").stdout;
            let list = String::from_utf8_lossy(&list).into_owned();
            if list.contains(&format!("{PEER}:{PEER_PORT}")) && list.contains(PEER6) {
                return echo;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(25));
        }
        panic!("turnutils_peer binds no socket");
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs coturn's client with a user that it makes itself from the shared secret; what it printed.
fn uclient(gateway: &Gateway, server: &str, arguments: &[&str]) -> String {
    need("turnutils_uclient", "coturn");
    need("timeout", "coreutils");
    let mut command = Command::new("timeout");
    command.args(["120", "turnutils_uclient", "-u", "jitsi", "-W", TURN_SECRET]);
    command.args(["-n", "25", "-l", "170", "-z", "10"]);
    command.args(arguments).arg(server);
    let output = gateway.network.as_client(|| command.output()).expect("uclient runs");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Everything that was sent came back.
fn assert_nothing_lost(arguments: &[&str], text: &str) {
    let last = text.lines().rfind(|line| line.contains("start_mclient: tot_send_msgs="));
    let last = last.unwrap_or_else(|| panic!("uclient {arguments:?} did not finish: {text}"));
    let number = |name: &str| -> u64 {
        let (_, rest) = last.split_once(name).expect("named");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    let (sent, received) = (number("tot_send_msgs="), number("tot_recv_msgs="));
    assert!(sent >= 25 && sent == received, "uclient {arguments:?}: {text}");
    assert!(text.contains("Total lost packets 0 "), "uclient {arguments:?}: {text}");
}

fn all_runs_pass(transport: &[&str]) {
    let gateway = gateway();
    let _echo = Echo::start(&gateway);
    let (v4, v6) = (["-X", "-e", PEER, "-r", PEER_PORT], ["-x", "-e", PEER6, "-r", PEER_PORT]);
    let runs: [&[&[&str]]; 10] = [
        // One port; even ports with a reserved neighbour; Send instead of channels.
        &[&["-c"], &v4],
        &[&v4],
        &[&["-s", "-c"], &v4],
        // Two clients through two relayed addresses of ours.
        &[&["-y", "-c", "-X", "-m", "2"]],
        &[&["-y", "-s", "-X", "-m", "2"]],
        // IPv6.
        &[&["-c"], &v6],
        &[&["-y", "-c", "-x", "-m", "2"]],
        // Padding.
        &[&["-D", "-c"], &v4],
        &[&["-D", "-s"], &v6],
        // Twenty clients, with two allocations each.
        &[&["-m", "20"], &v4],
    ];
    // coturn's client waits more than it works: most of them do so together.
    std::thread::scope(|scope| {
        for run in runs {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut arguments = transport.to_vec();
                arguments.extend(run.iter().copied().flatten());
                assert_nothing_lost(&arguments, &uclient(gateway, GATEWAY, &arguments));
            });
        }
    });
    let metrics = gateway.metrics_when("as many went out as came in", |m| {
        let packets = |direction| m.sum("veilgate_engine_external_packets_total", &[direction]);
        packets("direction=\"to_peer\"") >= 700.0
            && packets("direction=\"to_peer\"") == packets("direction=\"from_peer\"")
    });
    for never in [
        "veilgate_engine_external_dropped_total",
        "veilgate_relay_denied_peers_total",
        "veilgate_relay_dropped_total",
    ] {
        assert_eq!(metrics.sum(never, &[]), 0.0, "{never}");
    }
}

#[test]
fn turnutils_uclient_loses_nothing_over_udp() {
    all_runs_pass(&["-p", &UDP_PORT.to_string()]);
}

#[test]
fn turnutils_uclient_loses_nothing_over_tcp() {
    all_runs_pass(&["-t", "-p", &HTTPS_PORT.to_string()]);
}

#[test]
fn turnutils_uclient_loses_nothing_over_tls() {
    all_runs_pass(&["-t", "-S", "-p", &HTTPS_PORT.to_string()]);
}

#[test]
fn behind_a_nat_two_clients_meet_at_an_address_that_is_not_ours() {
    let config = "  plain_rest: true
relay: { external: { allow: [8.99.0.1/32, 8.78.0.4], ip: 8.78.0.1, names: true } }
";
    let gateway = configured::start(network(), "8.99.0.1", GATEWAY, config);
    let _echo = Echo::start(&gateway);
    let port = UDP_PORT.to_string();
    let verbose = ["-v", "-p", &port, "-y", "-c", "-X", "-m", "2"];
    let text = uclient(&gateway, GATEWAY, &verbose);
    assert_nothing_lost(&verbose, &text);
    assert!(text.contains("Received relay addr: 8.99.0.1:"), "{text}");
    let outside = ["-p", &port, "-c", "-X", "-e", PEER, "-r", PEER_PORT];
    assert_nothing_lost(&outside, &uclient(&gateway, GATEWAY, &outside));
}

#[test]
fn peers_that_are_not_listed_get_403() {
    let gateway = gateway();
    let port = UDP_PORT.to_string();
    std::thread::scope(|scope| {
        for peer in ["8.78.0.3", "8.8.8.8", "127.0.0.1", "10.0.0.1", "169.254.169.254"] {
            let (gateway, port) = (&gateway, &port);
            scope.spawn(move || {
                let channel = ["-v", "-p", port, "-c", "-X", "-e", peer, "-r", "80"];
                let text = uclient(gateway, GATEWAY, &channel);
                assert!(text.contains("channel bind: error 403"), "{peer}: {text}");
                let send = ["-v", "-p", port, "-s", "-c", "-X", "-e", peer, "-r", "80"];
                let text = uclient(gateway, GATEWAY, &send);
                assert!(text.contains("create permission error 403"), "{peer}: {text}");
            });
        }
    });
}
