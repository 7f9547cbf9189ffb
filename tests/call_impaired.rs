//! A player over a bad link: what is lost is repaired, and the picture goes on.

mod common;

use common::link::{Impairment, Link};
use common::tool::Tool;
use common::watch::Watch;
use common::{Gateway, alone};
use serde_json::json;

const SECONDS: u64 = 15;
/// From the first fault to the time that is measured.
const SETTLING: u64 = 5;

#[test]
fn five_percent_loss_and_forty_ms_of_jitter_are_repaired_without_a_freeze() {
    let _alone = alone();
    let gateway = Gateway::start(1);
    let link = Link::between(&gateway.network, 40);
    let token = gateway.token();
    let page = |who: &str| json!({ "as": who, "name": "lobby/cam1", "token": token });
    let mut publisher = page("publisher");
    publisher["publish"] = json!({
        "canvas": true, "noise": 100, "width": 640, "height": 360, "fps": 15,
        "encodings": [{ "maxBitrate": 1_000_000 }],
    });
    let near = json!({ "pages": [publisher, page("undisturbed")] });
    let mut near = Watch::new(Tool::node(&gateway, "watch.mjs", &near));
    let far = json!({ "pages": [page("disturbed")] });
    let mut far = Watch::new(Tool::node_behind(&link, &gateway, "watch.mjs", &far));

    // First with packets in order, then with packets that overtake each other.
    for reorder in [false, true] {
        let faults = Impairment {
            loss: 0.05,
            delay_ms: 20.0,
            jitter_ms: 40.0,
            reorder,
            ..Impairment::default()
        };
        // Requests for repeats get lost as well.
        link.down(faults);
        link.up(faults);
        let from = far.latest("disturbed") + SETTLING * 1_000;
        let to = from + SECONDS * 1_000;
        far.until_time("disturbed", to);
        near.until_time("undisturbed", to);

        let (disturbed, undisturbed) =
            (far.span("disturbed", from, to), near.span("undisturbed", from, to));
        let told = format!("undisturbed: {undisturbed}\ndisturbed: {disturbed}");
        eprintln!("reordering {reorder}\n{told}");
        assert!(disturbed.grown("packetsLost") > 0.0, "the link lost nothing: {told}");
        assert!(disturbed.grown("retransmittedPacketsReceived") > 0.0, "no repairs: {told}");
        assert!(disturbed.frame_rate() > 0.9 * undisturbed.frame_rate(), "{told}");
        // Where this machine itself stands still, both do.
        assert!(disturbed.longest_gap() <= 1.0 + undisturbed.longest_gap(), "{told}");
    }
}
