//! The other way round: Firefox, which never binds a channel, publishes to Chromium.

mod common;

use common::Gateway;
use common::expect::{all, modern_crypto, relayed_only, watched};
use common::tool::Tool;
use serde_json::json;

const SECONDS: u64 = 10;

#[test]
fn firefox_publishes_and_chromium_watches() {
    let gateway = Gateway::start(1);
    let token = gateway.token();
    let side = |browser: &str| json!({ "browser": browser, "name": "lobby/fox", "token": token });
    let call = Tool::browsers(
        &gateway,
        &json!({
            "seconds": SECONDS,
            "publishers": [side("firefox")],
            "players": [side("chromium")],
        }),
    );
    call.flowing();
    let result = call.result();
    for player in all(&result, "players") {
        watched(player, SECONDS as f64);
        relayed_only(player);
        modern_crypto(player);
    }
    for publisher in all(&result, "publishers") {
        relayed_only(publisher);
        modern_crypto(publisher);
    }
}
