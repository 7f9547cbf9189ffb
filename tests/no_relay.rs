//! There is no other path: a browser that does not relay gets no media, though it gets an answer.

mod common;

use common::Gateway;
use common::expect::{all, watched};
use common::tool::Tool;
use serde_json::json;

const SECONDS: u64 = 10;

#[test]
fn browser_without_turn_gets_no_media_while_a_relayed_one_does() {
    let gateway = Gateway::start(1);
    let token = gateway.token();
    let side = |direct: bool| json!({ "browser": "chromium", "name": "lobby/cam1", "token": token, "direct": direct });
    let call = Tool::browsers(
        &gateway,
        &json!({
            "seconds": SECONDS,
            "publishers": [side(false)],
            "players": [side(true), side(false)],
        }),
    );
    call.flowing();
    let result = call.result();
    let players = all(&result, "players");
    let direct = &players[0]["last"];
    // A refusal of the offer would be as good; what must not be is a path.
    assert_ne!(direct["connection"], "connected", "{direct:#}");
    for counter in ["framesDecoded", "videoPackets", "audioPackets"] {
        assert_eq!(direct[counter], 0, "{direct:#}");
    }
    watched(&players[1], SECONDS as f64);
}
