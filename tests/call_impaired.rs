//! A player or a publisher over a bad link: what is lost is repaired, and the picture goes on.

mod common;

use std::time::Duration;

use common::link::{Impairment, Link};
use common::tool::Tool;
use common::watch::{Watch, video};
use common::{Gateway, alone};
use serde_json::{Value, json};

const SECONDS: u64 = 10;
/// From the first fault to the time that is measured.
const SETTLING: u64 = 3;
/// Packets in order, and packets that overtake each other.
const BOTH: [bool; 2] = [false, true];

#[test]
fn a_player_behind_loss_and_jitter_gets_repeats_and_never_freezes() {
    let _alone = alone();
    let gateway = Gateway::start(1);
    let link = Link::between(&gateway.network, 40);
    let near = json!({ "pages": [publisher(&gateway), page(&gateway, "undisturbed")] });
    let mut near = Watch::new(Tool::node(&gateway, "watch.mjs", &near));
    let far = json!({ "pages": [page(&gateway, "disturbed")] });
    let mut far = Watch::new(Tool::node_behind(&link, &gateway, "watch.mjs", &far));

    for reorder in BOTH {
        disturb(&link, reorder);
        let from = far.latest("disturbed") + SETTLING * 1_000;
        let to = from + SECONDS * 1_000;
        far.until_time("disturbed", to);
        near.until_time("undisturbed", to);

        let (disturbed, undisturbed) =
            (far.span("disturbed", from, to), near.span("undisturbed", from, to));
        let told = format!("reordering {reorder}\nnear {undisturbed}\nfar {disturbed}");
        eprintln!("{told}");
        assert!(disturbed.grown("packetsLost") > 0.0, "the link lost nothing: {told}");
        assert!(disturbed.grown("retransmittedPacketsReceived") > 0.0, "no repairs: {told}");
        assert!(disturbed.frame_rate() > 0.9 * undisturbed.frame_rate(), "{told}");
        // Where this machine itself stands still, both do.
        assert!(disturbed.longest_gap() <= 1.0 + undisturbed.longest_gap(), "{told}");
    }
}

#[test]
fn a_publisher_behind_loss_and_jitter_is_asked_for_repeats_and_its_player_never_freezes() {
    let _alone = alone();
    let gateway = Gateway::start(1);
    let link = Link::between(&gateway.network, 41);
    let far = json!({ "pages": [publisher(&gateway)] });
    let mut far = Watch::new(Tool::node_behind(&link, &gateway, "watch.mjs", &far));
    let near = json!({ "pages": [page(&gateway, "player")] });
    let mut near = Watch::new(Tool::node(&gateway, "watch.mjs", &near));

    for reorder in BOTH {
        disturb(&link, reorder);
        let from = near.latest("player") + SETTLING * 1_000;
        let to = from + SECONDS * 1_000;
        near.until_time("player", to);
        far.until_time("publisher", to);

        let (player, publisher) = (near.span("player", from, to), far.span("publisher", from, to));
        let repeated = publisher.grown("retransmittedPacketsSent");
        let told = format!("reordering {reorder}: {repeated} packets sent again\nplayer {player}");
        eprintln!("{told}");
        assert!(repeated > 0.0, "nothing was asked for: {told}");
        let sent = publisher.frame_rate();
        assert!(player.frame_rate() > 0.9 * sent, "of {sent:.1} frames/s sent: {told}");
        assert!(player.longest_gap() <= 1.0, "{told}");
    }
}

#[test]
fn after_three_seconds_without_a_path_the_picture_comes_back() {
    let _alone = alone();
    let gateway = Gateway::start(1);
    let link = Link::between(&gateway.network, 42);
    let near = json!({ "pages": [publisher(&gateway)] });
    let _near = Watch::new(Tool::node(&gateway, "watch.mjs", &near));
    let far = json!({ "pages": [page(&gateway, "cut off")] });
    let mut far = Watch::new(Tool::node_behind(&link, &gateway, "watch.mjs", &far));

    let dead = Impairment { loss: 1.0, ..Impairment::default() };
    link.down(dead);
    link.up(dead);
    let cut = far.latest("cut off");
    far.until_time("cut off", cut + 3_000);
    let still = far.span("cut off", cut + 1_000, cut + 3_000);
    assert_eq!(still.grown("framesDecoded"), 0.0, "nothing comes over a dead link: {still}");
    let last = far.number("cut off", "framesDecoded");
    link.down(Impairment::default());
    link.up(Impairment::default());
    far.until("cut off", "moving again", Duration::from_secs(9), |sample| {
        video(sample, "framesDecoded").as_f64() >= Some(last + 15.0)
    });
}

fn page(gateway: &Gateway, who: &str) -> Value {
    json!({ "as": who, "name": "lobby/cam1", "token": gateway.token() })
}

/// About eight packets a frame: at 5 % every third frame misses one.
fn publisher(gateway: &Gateway) -> Value {
    let mut publisher = page(gateway, "publisher");
    publisher["publish"] = json!({
        "canvas": true, "noise": 100, "width": 640, "height": 360, "fps": 15,
        "encodings": [{ "maxBitrate": 1_000_000 }],
    });
    publisher
}

/// Both ways: requests for repeats get lost as well.
fn disturb(link: &Link, reorder: bool) {
    let faults = Impairment {
        loss: 0.05,
        delay_ms: 20.0,
        jitter_ms: 40.0,
        reorder,
        ..Impairment::default()
    };
    link.down(faults);
    link.up(faults);
}
