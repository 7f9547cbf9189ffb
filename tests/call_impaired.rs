//! A player over a bad link: what is lost is repaired, and the picture goes on.

mod common;

use std::time::Duration;

use common::link::{Impairment, Link};
use common::tool::Tool;
use common::watch::Watch;
use common::{Gateway, alone};
use serde_json::json;

const SECONDS: u64 = 20;
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
    publisher["publish"] = json!({ "width": 320, "height": 240, "fps": 15 });
    let near = json!({ "pages": [publisher, page("undisturbed")] });
    let mut near = Watch::new(Tool::node(&gateway, "watch.mjs", &near));
    let far = json!({ "pages": [page("disturbed")] });
    let mut far = Watch::new(Tool::node_behind(&link, &gateway, "watch.mjs", &far));

    let faults = Impairment {
        loss: 0.05,
        delay_ms: 20.0,
        jitter_ms: 40.0,
        reorder: true,
        ..Impairment::default()
    };
    link.down(faults);
    link.up(Impairment { loss: 0.0, ..faults });
    let smooth = |_: &_| true;
    let begin = far.until("disturbed", "there", Duration::from_secs(10), smooth);
    let from = begin + SETTLING * 1_000;
    let to = from + SECONDS * 1_000;
    far.until_time("disturbed", to);
    near.until_time("undisturbed", to);

    let disturbed = far.span("disturbed", from, to);
    let undisturbed = near.span("undisturbed", from, to);
    eprintln!("undisturbed: {}", undisturbed.told());
    eprintln!("disturbed: {}", disturbed.told());
    let (down, _) = link.counters();
    eprintln!("link: {down:?}");
    // The link did its work, and the repairs theirs.
    assert!(disturbed.grown("retransmittedPacketsReceived") > 0.0, "{}", disturbed.told());
    let (wanted, got) = (undisturbed.frame_rate(), disturbed.frame_rate());
    assert!(got > 0.9 * wanted, "{got:.1} of {wanted:.1} frames a second");
    let (usual, longest) = (undisturbed.longest_gap(), disturbed.longest_gap());
    assert!(longest <= 1.0 + usual, "frozen for {longest:.3} s; undisturbed {usual:.3} s");
}
