//! Each video codec crosses from one Chromium page to another.

mod common;

use std::time::Duration;

use common::tool::Tool;
use common::watch::{Watch, video};
use common::{Gateway, alone};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

/// A publisher who offers this codec alone, and a player who offers all it has.
fn crosses(codec: &str, profile: &str) {
    let _alone = alone();
    let gateway = Gateway::start(1);
    let token = gateway.token();
    let page = |who: &str| json!({ "as": who, "name": "lobby/cam1", "token": token });
    let mut publisher = page("publisher");
    publisher["publish"] =
        json!({ "width": 320, "height": 240, "fps": 10, "codec": codec, "profile": profile });
    let plan = json!({ "share": true, "pages": [publisher, page("player")] });
    let mut watch = Watch::new(Tool::node(&gateway, "watch.mjs", &plan));
    let mime = format!("video/{codec}");
    watch.until("player", "thirty frames of 320x240 decoded", PATIENCE, |sample| {
        video(sample, "framesDecoded").as_u64() >= Some(30)
            && video(sample, "frameWidth") == 320
            && video(sample, "frameHeight") == 240
            && video(sample, "codec") == mime.as_str()
            && video(sample, "fmtp").as_str().is_some_and(|fmtp| fmtp.contains(profile))
    });
}

#[test]
fn vp8_crosses() {
    crosses("VP8", "");
}

#[test]
fn vp9_crosses() {
    crosses("VP9", "profile-id=0");
}

#[test]
fn av1_crosses() {
    crosses("AV1", "");
}

#[test]
fn h264_crosses_in_the_constrained_baseline_profile() {
    crosses("H264", "profile-level-id=42e01f");
}

#[test]
fn h264_crosses_in_the_main_profile() {
    crosses("H264", "profile-level-id=4d001f");
}
