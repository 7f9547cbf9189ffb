//! GStreamer's webrtcbin publishes through `veilgate bridge` without a TURN setting, and a browser
//! watches. Its ICE library reaches nothing on loopback unless it is told to gather there.

mod common;

use common::bridge::{BRIDGE, Bridge};
use common::expect::{all, relayed_only, watched};
use common::tool::Tool;
use common::{CLIENT, Gateway, alone};
use serde_json::{Value, json};

const SECONDS: u64 = 6;

/// Publishes as `plan` says, watches with Chromium; what webrtcbin says of itself.
fn published(gateway: &Gateway, bridge: &Bridge, plan: &Value) -> Value {
    let publisher = Tool::gstreamer(gateway, plan);
    publisher.flowing();
    bridge.event("session_started");
    bridge.event("session_connected");
    let player = json!({ "browser": "chromium", "name": plan["name"], "token": gateway.token() });
    let call = Tool::browsers(gateway, &json!({ "seconds": SECONDS, "players": [player] }));
    call.flowing();
    let result = call.result();
    let player = &all(&result, "players")[0];
    watched(player, SECONDS as f64);
    relayed_only(player);
    let last = &player["last"];
    assert_eq!((&last["width"], &last["height"]), (&json!(320), &json!(240)), "{last:#}");
    let sent = publisher.finish();
    assert_eq!(sent["connection"], "connected", "{sent:#}");
    assert_eq!(bridge.event("session_ended")["reason"], "deleted");
    sent
}

/// Every candidate that webrtcbin was answered is the bridge's, at `ip`.
fn answered_only(sent: &Value, ip: &str) {
    let answer = sent["answer"].as_str().expect("an answer");
    let candidates: Vec<_> = answer.lines().filter(|l| l.starts_with("a=candidate:")).collect();
    assert!(!candidates.is_empty(), "{answer}");
    for candidate in candidates {
        let host = format!(" udp 2130706431 {ip} ");
        assert!(candidate.contains(&host) && candidate.ends_with("typ host"), "{answer}");
    }
}

#[test]
fn webrtcbin_without_turn_publishes_through_loopback_and_chromium_watches() {
    let _turn = alone();
    let gateway = Gateway::start(1);
    let bridge = Bridge::start(&gateway, &[]);
    let plan = json!({ "bridge": BRIDGE, "name": "lobby/gstreamer", "localIp": "127.0.0.1" });
    let sent = published(&gateway, &bridge, &plan);
    answered_only(&sent, "127.0.0.1");
    assert_eq!(bridge.interrupt(), 0);
}

#[test]
fn webrtcbin_as_it_comes_publishes_through_a_bridge_at_an_own_address() {
    let _turn = alone();
    let gateway = Gateway::start(1);
    let bridge = Bridge::start(&gateway, &["--media-ip", &CLIENT.to_string()]);
    let plan = json!({ "bridge": BRIDGE, "name": "lobby/gstreamer" });
    let sent = published(&gateway, &bridge, &plan);
    answered_only(&sent, &CLIENT.to_string());
    assert_eq!(bridge.interrupt(), 0);
}
