//! The external policy with a strict client that shares no code with coturn's: two aioice endpoints,
//! relay-only, meet through two relayed addresses, as two guests of a Jitsi or a Matrix call do.

mod common;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use common::configured;
use common::{Gateway, HTTPS_PORT, Network, UDP_PORT};
use serde_json::Value;

const GATEWAY: &str = "8.78.0.1";

fn pair_connects(transport: &str, port: u16) {
    let network = Network::with(&["8.78.0.1/24"], &["8.78.0.3/24"]);
    let config = "relay: { external: { allow: [8.78.0.1] } }\nshards: 2\n";
    let gateway: Gateway = configured::start(network, GATEWAY, GATEWAY, config);
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools");
    let python = tools.join("venv/bin/python");
    assert!(
        python.exists(),
        "aioice is missing. Run: scripts/setup test   (it makes tests/tools/venv)"
    );
    let users: String = (0..2)
        .map(|_| configured::mint(&gateway, "external"))
        .map(|(username, password)| format!("{username} {password}\n"))
        .collect();
    let mut command = Command::new("timeout");
    command.arg("100").arg(python).arg(tools.join("aioice_pair.py"));
    command.args([transport, GATEWAY, &port.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = gateway.network.as_client(|| command.spawn()).expect("python starts");
    child.stdin.take().expect("piped").write_all(users.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{problem}");
    let told: Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!(told["arrived"], 100, "{told}\n{problem}");
    let candidates = told["candidates"].as_array().expect("a list");
    assert_eq!(candidates.len(), 2, "{told}");
    for candidate in candidates {
        assert_eq!((&candidate["type"], &candidate["host"]), (&"relay".into(), &GATEWAY.into()));
        assert!(candidate["port"].as_u64().is_some_and(|port| port >= 49_152), "{told}");
    }
    gateway.metrics_when("the sockets are closed again", |m| {
        m.sum("veilgate_relay_allocations_created_total", &[]) == 2.0
            && m.sum("veilgate_relay_external_sockets", &[]) == 0.0
    });
}

#[test]
fn aioice_pair_meets_through_relayed_addresses_over_udp() {
    pair_connects("udp", UDP_PORT);
}

#[test]
fn aioice_pair_meets_through_relayed_addresses_over_tcp() {
    pair_connects("tcp", HTTPS_PORT);
}

#[test]
fn aioice_pair_meets_through_relayed_addresses_over_tls() {
    pair_connects("tls", HTTPS_PORT);
}
