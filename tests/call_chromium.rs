//! The first call: Chromium publishes, two Chromium and one Firefox watch, all through the relay.

mod common;

use common::expect::{all, modern_crypto, relayed_only, watched};
use common::tool::Tool;
use common::{GATEWAY, Gateway, HTTPS_PORT, METRICS_PORT, UDP_PORT};
use serde_json::json;

const SECONDS: u64 = 10;
const SHARDS: usize = 2;

#[test]
fn chromium_publishes_and_two_chromium_and_one_firefox_watch() {
    let gateway = Gateway::start(SHARDS);
    let before = gateway.metrics();
    let token = gateway.token();
    let side = |browser: &str| json!({ "browser": browser, "name": "lobby/cam1", "token": token });
    let call = Tool::browsers(
        &gateway,
        &json!({
            "seconds": SECONDS,
            "publishers": [side("chromium")],
            "players": [side("chromium"), side("chromium"), side("firefox")],
        }),
    );
    call.flowing();
    exactly_the_promised_sockets_are_open(&gateway);
    let during = gateway.metrics_when("three play", |m| {
        m.sum("veilgate_session_sessions", &["role=\"player\""]) >= 3.0
    });
    // Each player's path has an estimate, and bursts have found more than the start.
    gateway.metrics_when("paths are estimated", |m| {
        m.sum("veilgate_forward_estimates", &[]) == 3.0
            && m.sum("veilgate_forward_estimate_bits_per_second", &[]) > 4_500_000.0
    });
    let result = call.result();

    let players = all(&result, "players");
    assert_eq!(players.len(), 3);
    for player in players {
        watched(player, SECONDS as f64);
        relayed_only(player);
        modern_crypto(player);
    }
    for publisher in all(&result, "publishers") {
        relayed_only(publisher);
        modern_crypto(publisher);
    }

    assert!(during.sum("veilgate_relay_allocations", &[]) >= 4.0, "a client each at least");
    assert_eq!(during.sum("veilgate_session_sessions", &["role=\"publisher\""]), 1.0);
    let after =
        gateway.metrics_when("everybody left", |m| m.sum("veilgate_session_sessions", &[]) == 0.0);
    for (name, labels) in [
        ("veilgate_relay_allocations_created_total", &[][..]),
        ("veilgate_relay_auth_failures_total", &["reason=\"challenged\""]),
        ("veilgate_relay_packets_total", &["direction=\"from_client\""]),
        ("veilgate_relay_packets_total", &["direction=\"to_client\""]),
        ("veilgate_relay_bytes_total", &["direction=\"from_client\""]),
        ("veilgate_relay_bytes_total", &["direction=\"to_client\""]),
        ("veilgate_session_ice_checks_total", &["result=\"ok\""]),
        ("veilgate_session_dtls_handshakes_total", &["version=\"1.3\"", "result=\"ok\""]),
        ("veilgate_forward_received_packets_total", &[]),
        ("veilgate_forward_packets_total", &[]),
        ("veilgate_forward_keyframe_requests_total", &[]),
        ("veilgate_forward_transport_feedback_total", &["direction=\"to_publisher\""]),
        ("veilgate_forward_transport_feedback_total", &["direction=\"from_player\""]),
        ("veilgate_forward_probes_total", &[]),
        ("veilgate_forward_probe_bytes_total", &[]),
        ("veilgate_engine_datagrams_total", &["direction=\"in\""]),
        ("veilgate_engine_datagrams_total", &["direction=\"out\""]),
        ("veilgate_engine_loops_total", &[]),
    ] {
        let moved = after.sum(name, labels) - before.sum(name, labels);
        assert!(moved > 0.0, "{name}{labels:?} did not move");
    }
    let handshakes = after.sum("veilgate_session_dtls_handshakes_total", &["result=\"ok\""]);
    assert!(handshakes >= 4.0, "four clients, {handshakes} handshakes");
    for absent in ["reason=\"auth\"", "reason=\"panic\""] {
        let bad = after.sum("veilgate_session_srtp_dropped_total", &[absent])
            + after.sum("veilgate_session_ended_total", &[absent]);
        assert_eq!(bad, 0.0, "{absent}");
    }
    for name in ["veilgate_relay_denied_peers_total", "veilgate_forward_nacks_total"] {
        assert!(after.has(name), "{name} is exposed before it moves");
    }
}

/// One UDP port with a socket a shard, HTTPS, loopback metrics: by number, port and owner.
fn exactly_the_promised_sockets_are_open(gateway: &Gateway) {
    let owner = format!("pid={},", gateway.pid());
    let local = |line: &String| {
        assert!(line.contains(&owner), "not the gateway's: {line}");
        let words: Vec<&str> = line.split_whitespace().collect();
        // ss -H: state, two queues, local address, peer.
        (*words.get(3).unwrap_or_else(|| panic!("{line}"))).to_owned()
    };
    let mut udp: Vec<String> = gateway.sockets("-unlp").iter().map(local).collect();
    udp.sort();
    assert_eq!(udp, vec![format!("{GATEWAY}:{UDP_PORT}"); SHARDS]);
    let mut tcp: Vec<String> = gateway.sockets("-tnlp").iter().map(local).collect();
    tcp.sort();
    assert_eq!(tcp, [format!("{GATEWAY}:{HTTPS_PORT}"), format!("127.0.0.1:{METRICS_PORT}")]);
    // -unlp hides connected UDP sockets: there are none of those either.
    assert_eq!(gateway.sockets("-unap").len(), SHARDS, "connected UDP sockets");
}
