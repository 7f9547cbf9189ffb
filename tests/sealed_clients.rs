//! Pairs of clients that are no browsers, in a sealed room of the real binary: aioice, and
//! node-datachannel (libdatachannel with libjuice), which find each other through `/v1/sealed`.

mod common;

use common::tool::Tool;
use common::{GATEWAY, Gateway, HTTPS_PORT, UDP_PORT};
use serde_json::{Value, json};

const SHARDS: usize = 2;

fn mint(gateway: &Gateway, subject: &str) -> Value {
    let mint =
        ["turn", "mint", "--json", "--subject", subject, "--class", "room", "--room", "attic"];
    serde_json::from_str(&gateway.cli(&mint)).expect("json")
}

fn all_were_echoed(result: &Value) {
    assert_eq!(result["echoed"], result["of"], "{result:#}");
    assert!(result["of"].as_u64().is_some_and(|of| of >= 100), "{result:#}");
}

/// The forwarder saw nothing of what passed between the two.
fn only_passed_on(gateway: &Gateway, packets: f64) {
    let metrics = gateway.metrics_when("packets passed between the two", |m| {
        m.sum("veilgate_relay_hairpin_packets_total", &[]) >= packets
    });
    assert_eq!(metrics.sum("veilgate_session_dtls_handshakes_total", &[]), 0.0);
    assert_eq!(metrics.sum("veilgate_session_ice_checks_total", &[]), 0.0);
}

/// Two aioice agents, each over its own transport to the relay.
fn aioice(transports: [(&str, u16); 2]) {
    let gateway = Gateway::start(SHARDS);
    let callers: Vec<Value> = transports
        .into_iter()
        .zip(["alice", "bob"])
        .map(|((transport, port), subject)| {
            let mut caller = mint(&gateway, subject);
            caller["transport"] = json!(transport);
            caller["port"] = json!(port);
            caller
        })
        .collect();
    let plan = json!({ "host": GATEWAY.to_string(), "callers": callers });
    let result = Tool::python(&gateway, "sealed_aioice.py", &plan).result();
    all_were_echoed(&result);
    for candidate in result["candidates"].as_array().expect("a list") {
        assert_eq!(candidate, &json!(["relay", GATEWAY.to_string()]), "{result:#}");
    }
    only_passed_on(&gateway, 400.0);
}

#[test]
fn two_aioice_agents_connect_in_a_sealed_room() {
    aioice([("udp", UDP_PORT); 2]);
}

#[test]
fn aioice_over_tcp_and_aioice_over_udp_connect_in_a_sealed_room() {
    aioice([("tcp", HTTPS_PORT), ("udp", UDP_PORT)]);
}

#[test]
fn two_node_datachannel_peers_meet_and_connect_in_a_sealed_room() {
    let gateway = Gateway::start(SHARDS);
    let token = |subject: &str| {
        let mint = ["token", "mint", "--subject", subject, "--ttl", "10m"];
        gateway.cli(&[&mint[..], &["--publish", "attic/*", "--play", "attic/*"]].concat())
    };
    let plan = json!({ "room": "attic", "tokens": [token("alice"), token("bob")] });
    let result = Tool::node(&gateway, "sealed_datachannel.mjs", &plan).result();
    all_were_echoed(&result);
    for side in result["sides"].as_array().expect("both") {
        let heard = side["heard"].as_str().expect("SDP");
        assert!(heard.contains(" typ relay raddr 0.0.0.0 rport 0"), "{heard}");
        assert!(!heard.contains("10.78.0.3"), "{heard}");
        for end in ["local", "remote"] {
            let address = &side["pair"][end]["address"];
            assert_eq!(address, &json!(GATEWAY.to_string()), "{side:#}");
        }
    }
    only_passed_on(&gateway, 400.0);
}
