//! ffmpeg's WHIP muxer, which knows no TURN, publishes H.264 and Opus through `veilgate bridge`, and a
//! browser watches.

mod common;

use common::bridge::{BRIDGE, Bridge};
use common::expect::{all, relayed_only, watched};
use common::tool::Tool;
use common::{Gateway, alone};
use serde_json::json;

const SECONDS: u64 = 8;

#[test]
fn ffmpeg_publishes_through_the_bridge_and_chromium_watches() {
    let _turn = alone();
    let gateway = Gateway::start(1);
    let bridge = Bridge::start(&gateway, &[]);
    let publisher = Tool::ffmpeg(&gateway, &json!({ "bridge": BRIDGE, "name": "lobby/ffmpeg" }));
    publisher.flowing();
    let started = bridge.event("session_started");
    assert_eq!(
        (&started["kind"], &started["stream"], &started["transport"]),
        (&json!("whip"), &json!("lobby/ffmpeg"), &json!("udp"))
    );
    bridge.event("session_connected");
    let call = Tool::browsers(
        &gateway,
        &json!({
            "seconds": SECONDS,
            "players": [{ "browser": "chromium", "name": "lobby/ffmpeg", "token": gateway.token() }],
        }),
    );
    call.flowing();
    let result = call.result();
    let player = &all(&result, "players")[0];
    watched(player, SECONDS as f64);
    relayed_only(player);
    let last = &player["last"];
    assert_eq!((&last["width"], &last["height"]), (&json!(320), &json!(240)), "{last:#}");
    let sent = publisher.finish();
    assert_eq!(sent["code"], 0, "{sent:#}");

    // ffmpeg says DELETE, and the gateway gets it.
    let ended = bridge.event("session_ended");
    assert_eq!(ended["reason"], "deleted", "{ended:#}");
    let packets = ended["packets"]["from_client"].as_u64().expect("a number");
    assert!(packets > 30 * SECONDS, "{ended:#}");
    let metrics =
        gateway.metrics_when("both left", |m| m.sum("veilgate_session_sessions", &[]) == 0.0);
    assert_eq!(metrics.sum("veilgate_session_ice_checks_total", &["result=\"malformed\""]), 0.0);
    assert_eq!(bridge.interrupt(), 0);
    gateway.metrics_when("no allocation is left behind", |m| {
        m.sum("veilgate_relay_allocations", &[]) == 0.0
    });
}
