//! A client that shares no code with the browsers: aiortc, DTLS 1.2, relay policy.

mod common;

use common::expect::{all, relayed_only, watched};
use common::tool::Tool;
use common::{GATEWAY, Gateway, MEDIA_PORT, alone};
use serde_json::{Value, json};

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
    let number = |field: &str| seen[field].as_f64().unwrap_or_else(|| panic!("{field}: {seen:#}"));
    assert!(number("framesWhileWatching") >= 3.0 * SECONDS as f64, "{seen:#}");
    assert!(number("audioFrames") >= 25.0 * SECONDS as f64, "{seen:#}");
    assert!(number("pictures") >= 3.0, "the picture does not move: {seen:#}");
    assert!(number("brightness") > 10.0, "the picture is black: {seen:#}");
    let result = publishing.finish();
    for publisher in all(&result, "publishers") {
        relayed_only(publisher);
    }
}

/// aiortc has no candidate statistics: its own SDP and our answer tell.
fn relayed(seen: &Value) {
    let candidates = seen["candidates"].as_array().expect("candidates");
    assert!(!candidates.is_empty(), "{seen:#}");
    for line in candidates {
        assert!(line.as_str().is_some_and(|l| l.contains("typ relay")), "{seen:#}");
    }
    let answer = seen["answer"].as_str().expect("answer");
    let mut ours = answer.lines().filter(|line| line.starts_with("a=candidate")).peekable();
    assert!(ours.peek().is_some(), "{answer}");
    let media = format!(" {GATEWAY} {MEDIA_PORT} typ host");
    assert!(ours.all(|line| line.contains(&media)), "{answer}");
}
