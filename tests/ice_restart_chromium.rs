//! A Chromium player restarts ICE by `PATCH`, in two shards, and its pictures go on.

mod common;

use common::Gateway;
use common::tool::Tool;
use serde_json::json;

#[test]
fn chromium_restarts_ice_by_patch_and_its_pictures_go_on() {
    let gateway = Gateway::start(2);
    let plan = json!({ "name": "lobby/cam1", "token": gateway.token() });
    let call = Tool::node(&gateway, "ice_restart.mjs", &plan);
    call.flowing();
    let result = call.result();
    let found = ["status", "missing", "trickled", "stale"].map(|key| result[key].as_u64());
    assert_eq!(found, [Some(200), Some(428), Some(204), Some(412)], "{result:#}");
    assert_ne!(result["tag"], result["newTag"]);
    let (before, after) = (&result["before"], &result["after"]);
    assert_ne!(before["pair"], after["pair"], "a new path: {result:#}");
    assert_eq!(before["ssrc"], after["ssrc"], "the same stream: {result:#}");
    assert_eq!(after["state"], "connected", "{result:#}");
    let states = result["states"].as_array().expect("a list");
    assert!(states.iter().all(|state| state != "failed"), "{result:#}");
    let after = gateway.metrics_when("the restart is counted", |m| {
        m.sum("veilgate_session_ice_restarts_total", &[]) == 1.0
    });
    let handshakes = after.sum("veilgate_session_dtls_handshakes_total", &["result=\"ok\""]);
    assert_eq!(handshakes, 2.0, "no further one");
}
