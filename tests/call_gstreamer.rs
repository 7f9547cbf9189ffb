//! GStreamer's webrtcbin publishes through the relay: libnice, an RSA certificate, DTLS 1.2, a bundled
//! section with port 0 and candidates that are never told.

mod common;

use common::expect::{decoded, relayed};
use common::tool::Tool;
use common::{Gateway, alone};
use serde_json::json;

const SECONDS: u64 = 6;

#[test]
fn webrtcbin_publishes_relay_only_and_aiortc_watches() {
    let _turn = alone();
    let gateway = Gateway::start(1);
    let token = gateway.token();
    let publisher =
        Tool::gstreamer(&gateway, &json!({ "name": "lobby/gstreamer", "token": token }));
    publisher.flowing();
    let plan =
        json!({ "role": "play", "name": "lobby/gstreamer", "token": token, "seconds": SECONDS });
    let player = Tool::aiortc(&gateway, &plan);
    player.flowing();
    let seen = player.result();
    relayed(&seen);
    decoded(&seen, SECONDS as f64);
    let sent = publisher.finish();
    assert_eq!(sent["connection"], "connected", "{sent:#}");
    relayed(&sent);
    let metrics =
        gateway.metrics_when("both left", |m| m.sum("veilgate_session_sessions", &[]) == 0.0);
    let labels = ["version=\"1.2\"", "result=\"ok\""];
    assert_eq!(metrics.sum("veilgate_session_dtls_handshakes_total", &labels), 2.0);
}
