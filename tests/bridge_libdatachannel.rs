//! libdatachannel, which is what OBS publishes with, goes through `veilgate bridge` as it comes: its
//! offer names the machine's address in candidates, `o=` and `c=`, and the gateway sees none.

mod common;

use axum::http::Method;
use common::bridge::{BRIDGE, Bridge, Recorder};
use common::tool::Tool;
use common::{CLIENT, Gateway, alone};
use serde_json::json;

#[test]
fn libdatachannel_publishes_through_the_bridge_and_its_addresses_stay() {
    let _turn = alone();
    let gateway = Gateway::start(1);
    let recorder = Recorder::start(&gateway, None);
    let bridge = Bridge::behind(&recorder, &gateway, &[]);
    let plan = json!({ "bridge": BRIDGE, "name": "lobby/obs" });
    let publisher = Tool::node(&gateway, "datachannel_whip.mjs", &plan);
    publisher.flowing();
    bridge.event("session_started");
    bridge.event("session_connected");
    let received = "veilgate_forward_received_packets_total";
    gateway.metrics_when("its audio arrives", |m| m.sum(received, &[]) >= 50.0);
    let result = publisher.finish();
    assert_eq!(bridge.event("session_ended")["reason"], "deleted");

    let offer = result["offer"].as_str().expect("an offer");
    let address = CLIENT.to_string();
    for line in ["a=candidate:", "c=IN IP4"] {
        let named = |l: &str| l.starts_with(line) && l.contains(&address);
        assert!(offer.lines().any(named), "nothing to hide in {line}: {offer}");
    }
    let got = recorder.seen(&Method::POST, "/whip/lobby/obs");
    let got = &got.first().expect("the gateway got an offer").body;
    for unwanted in [&*address, "127.0.0.1", "a=candidate", "IP6"] {
        assert!(!got.contains(unwanted), "{unwanted} leaves the machine:\n{got}");
    }
    assert_eq!(bridge.interrupt(), 0);
}
