//! A page publishes three layers, by simulcast or SVC; three players get one each, then change.

mod common;

use common::Gateway;
use common::tool::Tool;
use serde_json::{Value, json};

/// Widths of the layers q, h, f. (Chromium makes no third layer of less than 960 x 540.)
const WIDTHS: [u64; 3] = [240, 480, 960];
/// Nothing may stand still for longer, milliseconds.
const FREEZE: f64 = 1_000.0;

fn plan(gateway: &Gateway, encodings: &Value, steps: &Value) -> Value {
    json!({
        "name": "lobby/layers",
        "token": gateway.token(),
        "trace": std::env::var("VEILGATE_TRACE").is_ok(),
        "video": { "width": 960, "height": 540, "frameRate": 10 },
        "encodings": encodings,
        "players": 3,
        "steps": steps,
    })
}

fn simulcast() -> Value {
    json!([
        { "rid": "q", "scaleResolutionDownBy": 4, "maxBitrate": 100_000 },
        { "rid": "h", "scaleResolutionDownBy": 2, "maxBitrate": 250_000 },
        { "rid": "f", "maxBitrate": 700_000 },
    ])
}

/// Each player gets its layer; then the first goes up and down again.
fn pinned_then_moving() -> Value {
    json!([
        ["wish", 0, { "spatial": 0 }],
        ["wish", 1, { "spatial": 1 }],
        ["wish", 2, { "track": "video", "spatial": 2 }],
        ["shows", 0, WIDTHS[0]],
        ["shows", 1, WIDTHS[1]],
        ["shows", 2, WIDTHS[2]],
        ["stays", 4000],
        ["wish", 0, { "spatial": 2 }],
        ["shows", 0, WIDTHS[2]],
        ["stays", 2000],
        ["wish", 0, { "spatial": 0 }],
        ["shows", 0, WIDTHS[0]],
        ["stays", 2000],
    ])
}

/// Three sizes at once, no freeze on the way up and down, no decoder that asks for help.
fn three_sizes_and_no_freeze(result: &Value) {
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
    for step in &steps[7..] {
        let gap = step["seen"][0]["longestGap"].as_f64().expect("a gap");
        assert!(gap < FREEZE, "{gap} ms: {step:#}");
    }
    let (first, last) = (&steps[6]["seen"][0], &steps[12]["seen"][0]);
    // A decoder that stumbles asks for a keyframe.
    assert_eq!(first["plis"], last["plis"], "{result:#}");
    assert_eq!(first["freezes"], last["freezes"], "{result:#}");
}

#[test]
fn three_players_get_the_layer_they_wish_and_change_it_without_a_freeze() {
    let gateway = Gateway::start(2);
    let plan = plan(&gateway, &simulcast(), &pinned_then_moving());
    three_sizes_and_no_freeze(&Tool::node(&gateway, "simulcast.mjs", &plan).result());
}

#[test]
fn simulcast_of_firefox_is_taken_like_that_of_chromium() {
    let gateway = Gateway::start(2);
    let mut plan = plan(&gateway, &simulcast(), &pinned_then_moving());
    plan["browser"] = json!("firefox");
    three_sizes_and_no_freeze(&Tool::node(&gateway, "simulcast.mjs", &plan).result());
}

#[test]
fn simulcast_of_h264_and_av1_is_chosen_like_that_of_vp8() {
    for codec in ["h264", "av1"] {
        let gateway = Gateway::start(2);
        let mut plan = plan(&gateway, &simulcast(), &pinned_then_moving());
        plan["codec"] = json!(codec);
        if codec == "av1" {
            // Without a mode of each encoding Chromium sends the first alone.
            for encoding in plan["encodings"].as_array_mut().expect("a list") {
                encoding["scalabilityMode"] = json!("L1T2");
            }
        }
        three_sizes_and_no_freeze(&Tool::node(&gateway, "simulcast.mjs", &plan).result());
    }
}

#[test]
fn spatial_layers_of_vp9_are_chosen_like_those_of_simulcast() {
    let gateway = Gateway::start(2);
    let encodings = json!([{ "scalabilityMode": "L3T3_KEY", "maxBitrate": 1_000_000 }]);
    let mut plan = plan(&gateway, &encodings, &pinned_then_moving());
    plan["codec"] = json!("vp9");
    three_sizes_and_no_freeze(&Tool::node(&gateway, "simulcast.mjs", &plan).result());
}

#[test]
fn spatial_layers_of_av1_are_chosen_by_its_dependency_descriptor() {
    let gateway = Gateway::start(2);
    let encodings = json!([{ "scalabilityMode": "L3T3_KEY", "maxBitrate": 1_000_000 }]);
    let mut plan = plan(&gateway, &encodings, &pinned_then_moving());
    plan["codec"] = json!("av1");
    let result = Tool::node(&gateway, "simulcast.mjs", &plan).result();
    assert_eq!(result["sent"][0]["mode"], "L3T3_KEY", "{result:#}");
    three_sizes_and_no_freeze(&result);
}

#[test]
fn a_layer_that_the_publisher_stops_is_left_and_taken_again() {
    let gateway = Gateway::start(2);
    let steps = json!([
        ["shows", 2, WIDTHS[2]],
        ["encode", "f", false],
        ["shows", 2, WIDTHS[1]],
        ["stays", 1000],
        ["encode", "f", true],
        ["shows", 2, WIDTHS[2]],
        ["stays", 1000],
        ["wish", 2, { "rid": "h", "temporal": 0 }],
        ["shows", 2, WIDTHS[1]],
        ["stays", 3000],
        ["wish", 2, { "paused": true }],
        ["stays", 1000],
        ["stays", 1000],
        ["wish", 2, { "rid": "q" }],
        ["shows", 2, WIDTHS[0]],
        ["stays", 1000],
    ]);
    let plan = plan(&gateway, &simulcast(), &steps);
    let result = Tool::node(&gateway, "simulcast.mjs", &plan).result();
    let steps = result["steps"].as_array().expect("steps");
    let frames = |step: usize, player: usize| {
        steps[step]["seen"][player]["frames"].as_u64().unwrap_or_else(|| panic!("{result:#}"))
    };
    // Three temporal layers: the lowest is a quarter of the pictures.
    assert!((3..=frames(9, 0) / 2).contains(&frames(9, 2)), "{result:#}");
    assert_eq!(frames(12, 2), 0, "paused: {result:#}");
    assert!(frames(15, 2) > 3, "{result:#}");
    assert_eq!(steps[15]["seen"][2]["plis"], 0, "{result:#}");
    let gap = steps[2]["seen"][2]["longestGap"].as_f64().expect("a gap");
    assert!(gap < 2.0 * FREEZE, "{gap} ms without the layer: {result:#}");
}
