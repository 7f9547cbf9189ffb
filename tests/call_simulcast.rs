//! A Chromium page publishes three simulcast layers; three players get one each, then change.

mod common;

use common::Gateway;
use common::tool::Tool;
use serde_json::{Value, json};

/// Widths of the layers q, h, f. (Chromium makes no third layer of less than 960 x 540.)
const WIDTHS: [u64; 3] = [240, 480, 960];
/// Nothing may stand still for longer, milliseconds.
const FREEZE: f64 = 1_000.0;

fn plan(gateway: &Gateway, browser: &str, steps: &Value) -> Value {
    json!({
        "browser": browser,
        "name": "lobby/layers",
        "token": gateway.token(),
        "trace": std::env::var("VEILGATE_TRACE").is_ok(),
        "video": { "width": 960, "height": 540, "frameRate": 10 },
        "encodings": [
            { "rid": "q", "scaleResolutionDownBy": 4, "maxBitrate": 100_000 },
            { "rid": "h", "scaleResolutionDownBy": 2, "maxBitrate": 250_000 },
            { "rid": "f", "maxBitrate": 700_000 },
        ],
        "players": 3,
        "steps": steps,
    })
}

#[test]
fn three_players_get_the_layer_they_wish_and_change_it_without_a_freeze() {
    let gateway = Gateway::start(2);
    let steps = json!([
        ["wish", 0, { "rid": "q" }],
        ["wish", 1, { "spatial": 1 }],
        ["wish", 2, { "rid": "f" }],
        ["shows", 0, WIDTHS[0]],
        ["shows", 1, WIDTHS[1]],
        ["shows", 2, WIDTHS[2]],
        ["stays", 4000],
        ["wish", 0, { "rid": "f" }],
        ["shows", 0, WIDTHS[2]],
        ["stays", 2000],
        ["wish", 0, { "rid": "q" }],
        ["shows", 0, WIDTHS[0]],
        ["stays", 2000],
    ]);
    let result =
        Tool::node(&gateway, "simulcast.mjs", &plan(&gateway, "chromium", &steps)).result();
    let steps = result["steps"].as_array().expect("steps");
    let held = &steps[6]["seen"];
    for (player, width) in WIDTHS.iter().enumerate() {
        assert_eq!(held[player]["width"], *width, "{result:#}");
        assert!(held[player]["frames"].as_u64() >= Some(20), "{result:#}");
    }
    for step in steps {
        if step["step"][0] == "wish" {
            assert_eq!(step["answer"], 204, "{step:#}");
        }
    }
    let (first, last) = (&steps[6]["seen"][0], &steps[12]["seen"][0]);
    for step in &steps[7..] {
        let gap = step["seen"][0]["longestGap"].as_f64().expect("a gap");
        assert!(gap < FREEZE, "{gap} ms: {step:#}");
    }
    // A decoder that stumbles asks for a keyframe.
    assert_eq!(first["plis"], last["plis"], "{result:#}");
    assert_eq!(first["freezes"], last["freezes"], "{result:#}");
}
