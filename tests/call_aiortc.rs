//! A client that shares no code with the browsers: aiortc, DTLS 1.2, relay policy.

mod common;

use common::expect::{all, decoded, relayed, relayed_only, watched};
use common::tool::Tool;
use common::{Gateway, alone};
use serde_json::json;

const SECONDS: u64 = 6;

#[test]
fn aiortc_publishes_and_chromium_watches() {
    let _turn = alone();
    let gateway = Gateway::start(1);
    let token = gateway.token();
    let publisher =
        Tool::aiortc(&gateway, &json!({ "role": "publish", "name": "lobby/py", "token": token }));
    publisher.flowing();
    let watching = Tool::browsers(
        &gateway,
        &json!({
            "seconds": SECONDS,
            "players": [{ "browser": "chromium", "name": "lobby/py", "token": token }],
        }),
    );
    watching.flowing();
    let result = watching.result();
    for player in all(&result, "players") {
        watched(player, SECONDS as f64);
        relayed_only(player);
    }
    relayed(&publisher.finish());
    let metrics =
        gateway.metrics_when("both left", |m| m.sum("veilgate_session_sessions", &[]) == 0.0);
    let labels = ["version=\"1.2\"", "result=\"ok\""];
    assert!(metrics.sum("veilgate_session_dtls_handshakes_total", &labels) >= 1.0);
}

#[test]
fn chromium_publishes_and_aiortc_watches() {
    let _turn = alone();
    let gateway = Gateway::start(1);
    let token = gateway.token();
    let publishing = Tool::browsers(
        &gateway,
        &json!({
            "publishers": [{ "browser": "chromium", "name": "lobby/cam1", "token": token }],
        }),
    );
    publishing.flowing();
    let player = Tool::aiortc(
        &gateway,
        &json!({ "role": "play", "name": "lobby/cam1", "token": token, "seconds": SECONDS }),
    );
    player.flowing();
    let seen = player.result();
    relayed(&seen);
    decoded(&seen, SECONDS as f64);
    let result = publishing.finish();
    for publisher in all(&result, "publishers") {
        relayed_only(publisher);
    }
}
