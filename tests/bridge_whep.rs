//! aiortc without a TURN setting plays, through `veilgate bridge`, what Chromium publishes. Its offer
//! names its host candidates: none reaches the gateway, and what DTLS and ICE rest on is not touched.

mod common;

use axum::http::{Method, header};
use common::bridge::{BRIDGE, Bridge, Recorder};
use common::expect::decoded;
use common::tool::Tool;
use common::{CLIENT, Gateway, alone};
use serde_json::{Value, json};

const SECONDS: u64 = 5;

fn lines<'a>(sdp: &'a str, prefix: &str) -> Vec<&'a str> {
    sdp.lines().map(str::trim).filter(|line| line.starts_with(prefix)).collect()
}

/// Chromium publishes, aiortc plays through the bridge; what aiortc saw.
fn played(gateway: &Gateway, bridge: &Bridge, transport: &str) -> Value {
    let plan =
        json!({ "bridge": BRIDGE, "role": "play", "name": "lobby/cam1", "seconds": SECONDS });
    let player = Tool::aiortc(gateway, &plan);
    player.flowing();
    let started = bridge.event("session_started");
    assert_eq!((&started["kind"], &started["transport"]), (&json!("whep"), &json!(transport)));
    let seen = player.result();
    decoded(&seen, SECONDS as f64);
    bridge.event("session_connected");
    assert_eq!(bridge.event("session_ended")["reason"], "deleted");
    seen
}

fn publisher(gateway: &Gateway) -> Tool {
    let who = json!({ "browser": "chromium", "name": "lobby/cam1", "token": gateway.token() });
    let publisher = Tool::browsers(gateway, &json!({ "publishers": [who] }));
    publisher.flowing();
    publisher
}

#[test]
fn aiortc_without_turn_plays_through_the_bridge_over_each_transport() {
    let _turn = alone();
    let gateway = Gateway::start(2);
    let publisher = publisher(&gateway);
    for transport in ["udp", "tcp", "tls"] {
        let bridge = Bridge::start(&gateway, &["--transport", transport]);
        played(&gateway, &bridge, transport);
        assert_eq!(bridge.interrupt(), 0);
    }
    publisher.finish();
}

#[test]
fn gateway_gets_no_address_of_the_client_and_its_own_fingerprint() {
    let _turn = alone();
    let gateway = Gateway::start(1);
    let publisher = publisher(&gateway);
    let recorder = Recorder::start(&gateway, None);
    let bridge = Bridge::behind(&recorder, &gateway, &[]);
    let seen = played(&gateway, &bridge, "udp");
    publisher.finish();

    let offer = seen["offer"].as_str().expect("an offer");
    let host = |line: &&str| line.contains("typ host") && line.contains(&CLIENT.to_string());
    assert!(lines(offer, "a=candidate:").iter().any(host), "nothing to hide:\n{offer}");
    let got = recorder.seen(&Method::POST, "/whep/lobby/cam1");
    let got = got.first().expect("the gateway got an offer");
    for unwanted in ["a=candidate", "typ host", "127.0.0.1", &CLIENT.to_string()] {
        assert!(!got.body.contains(unwanted), "{unwanted} leaves the machine:\n{}", got.body);
    }
    let hops = [header::FORWARDED.as_str(), "x-forwarded-for", "via", "x-real-ip"];
    assert!(hops.iter().all(|name| !got.headers.contains_key(*name)), "{:?}", got.headers);
    // DTLS and ICE are between aiortc and the gateway: nothing of them is the bridge's.
    for untouched in ["a=fingerprint:", "a=ice-ufrag:", "a=ice-pwd:", "a=setup:"] {
        let (before, after) = (lines(offer, untouched), lines(&got.body, untouched));
        assert!(!before.is_empty(), "{untouched} in {offer}");
        assert_eq!(before, after, "{untouched}");
    }
    // In the other direction, too, the only candidate is the bridge, in every section.
    let answer = seen["answer"].as_str().expect("an answer");
    assert!(!answer.contains(&gateway.network.host), "{answer}");
    let candidates = lines(answer, "a=candidate:");
    assert_eq!(candidates.len(), 2, "{answer}");
    assert!(candidates.iter().all(|line| line.contains(" udp 2130706431 127.0.0.1 ")), "{answer}");
    assert_eq!(recorder.seen(&Method::DELETE, "/whep/session/").len(), 1);
    assert_eq!(bridge.interrupt(), 0);
}
