//! Sealed calls in real browsers: relay-only on both sides, encrypted from browser to browser,
//! turned around inside the gateway, closed to everybody else.

mod common;
mod peer;

use std::net::SocketAddr;

use common::expect::{all, watched};
use common::tool::Tool;
use common::{GATEWAY, Gateway, MEDIA_PORT, UDP_PORT};
use peer::Peer;
use serde_json::{Value, json};
use veilgate::wire::stun::{Builder, Message, Method, attr};

const SECONDS: u64 = 8;
const SHARDS: usize = 2;

/// Every candidate on both sides is relayed and has the gateway's address.
fn relayed_on_both_sides(caller: &Value) {
    let last = &caller["last"];
    for side in ["local", "remote"] {
        let candidates = last[side].as_array().expect("a list");
        assert!(!candidates.is_empty(), "no {side} candidate: {last:#}");
        for candidate in candidates {
            assert_eq!(candidate["address"], GATEWAY.to_string(), "{side}: {last:#}");
            // What a check brings in has no type but its address and port are those of a relay.
            let kind = candidate["type"].as_str().unwrap_or_default();
            assert!(kind == "relay" || (side == "remote" && kind == "prflx"), "{side}: {last:#}");
        }
    }
    let selected = &last["selected"];
    assert_eq!(selected["local"]["type"], "relay", "{last:#}");
    assert_ne!(selected["remote"]["port"], MEDIA_PORT, "{last:#}");
}

/// Each browser's DTLS talked to the other's certificate: nobody sits in between.
fn sealed_end_to_end(one: &Value, other: &Value) {
    for (here, there) in [(&one["certs"], &other["certs"]), (&other["certs"], &one["certs"])] {
        let own = &there["localSdp"][0];
        assert!(own.as_str().is_some_and(|f| f.len() == 95), "{there:#}");
        assert_eq!(&here["remoteSdp"][0], own, "what the SDP promises is the other's own");
        assert_eq!(here["policy"], "relay");
        assert_eq!(here["violations"], json!([]));
    }
    for (caller, peer) in [(one, other), (other, one)] {
        let (certs, theirs) = (&caller["certs"], &peer["certs"]);
        // Chromium says what DTLS itself saw.
        if caller["browser"] == "chromium" {
            assert_eq!(certs["remoteSeen"], theirs["localSdp"][0], "{certs:#}");
            assert_eq!(certs["localSeen"], certs["localSdp"][0], "{certs:#}");
        }
        assert_eq!(caller["complaints"], json!([]), "errors on the page");
    }
    let code = one["certs"]["code"].as_str().expect("a code");
    assert_eq!(code.len(), 8 * 5 + 7, "{code}");
    assert_eq!(one["certs"]["code"], other["certs"]["code"], "both read the same digits");
    let mut roles = [&one["certs"]["role"], &other["certs"]["role"]].map(|role| role.as_str());
    roles.sort_unstable();
    assert_eq!(roles, [Some("answer"), Some("offer")], "no glare");
}

/// What each heard of the other names the gateway and nothing else.
fn nothing_but_the_gateway_is_named(caller: &Value) {
    let heard = caller["certs"]["heard"].as_str().expect("the SDP");
    assert!(!heard.contains("10.78.0.3") && !heard.contains(".local"), "{heard}");
    for line in heard.lines().filter(|line| line.starts_with("a=candidate:")) {
        assert!(line.contains(" typ relay ") && line.contains(" 10.78.0.1 "), "{line}");
        assert!(line.contains(" raddr 0.0.0.0 rport 0"), "{line}");
    }
}

fn mint(gateway: &Gateway, subject: &str, class: &str, room: &str) -> (String, String) {
    let mint = ["turn", "mint", "--json", "--subject", subject, "--class", class, "--room", room];
    let entry: Value = serde_json::from_str(&gateway.cli(&mint)).expect("json");
    let field = |name: &str| entry[name].as_str().expect("a text").to_owned();
    (field("username"), field("credential"))
}

/// The codes of a permission for, and a channel to, each of `peers`, for one credential.
fn asked(gateway: &Gateway, credential: &(String, String), peers: &[SocketAddr]) -> Vec<[u16; 2]> {
    gateway.network.as_client(|| {
        let server = SocketAddr::from((GATEWAY, UDP_PORT));
        let bind = SocketAddr::from((common::CLIENT, 0));
        let media = SocketAddr::from((GATEWAY, MEDIA_PORT));
        let (username, password) = credential;
        let mut client = Peer::try_allocate_from(bind, server, media, username, password)
            .unwrap_or_else(|code| panic!("refused: {code}"));
        let mut ask = |method, add: &dyn Fn(&mut Builder<'_>)| {
            let answer = client.request(method, true, add);
            Message::parse(&answer).expect("STUN").error_code().unwrap_or(200)
        };
        (0_u32..)
            .zip(peers)
            .map(|(n, peer)| {
                let name = |b: &mut Builder<'_>| b.xor_address(attr::XOR_PEER_ADDRESS, *peer);
                let permission = ask(Method::CREATE_PERMISSION, &name);
                let channel = ask(Method::CHANNEL_BIND, &|b: &mut Builder<'_>| {
                    b.u32(attr::CHANNEL_NUMBER, (0x4000 + n) << 16);
                    name(b);
                });
                [permission, channel]
            })
            .collect()
    })
}

/// While the call goes on, nobody but its own room reaches it, and its room reaches nothing else.
fn closed_to_everybody_else(gateway: &Gateway, flowing: &Value) {
    let live: Vec<SocketAddr> = flowing["relayed"]
        .as_array()
        .expect("two addresses")
        .iter()
        .map(|at| {
            let port = at["port"].as_u64().expect("a port");
            SocketAddr::from((GATEWAY, u16::try_from(port).expect("a port")))
        })
        .collect();
    assert_eq!(live.len(), 2);
    let media = SocketAddr::from((GATEWAY, MEDIA_PORT));
    let elsewhere = SocketAddr::from((common::OTHER, live[0].port()));

    let stranger = mint(gateway, "stranger", "room", "attic");
    assert_eq!(asked(gateway, &stranger, &live), [[403; 2]; 2], "another room's credential");
    let viewer = mint(gateway, "viewer", "forwarder", "lobby");
    for codes in asked(gateway, &viewer, &live) {
        assert_eq!(codes[1], 403, "a forwarder's credential of the same room");
    }
    let insider = mint(gateway, "insider", "room", "lobby");
    assert_eq!(asked(gateway, &insider, &live), [[200; 2]; 2], "its own room");
    let codes = asked(gateway, &insider, &[media, elsewhere]);
    assert_eq!((codes[0][1], codes[1]), (403, [403; 2]), "neither forwarder nor anything else");
}

fn call(callers: [&str; 2], third: bool) {
    let _turn = common::alone();
    let gateway = Gateway::start(SHARDS);
    let before = gateway.metrics();
    let screenshot = std::env::var("VEILGATE_TEST_SCREENSHOT").ok();
    let plan = json!({
        "seconds": SECONDS,
        "token": gateway.token(),
        "room": "lobby",
        "callers": callers,
        "third": third,
        "screenshot": screenshot,
    });
    let tool = Tool::sealed(&gateway, &plan);
    let flowing = tool.flowing();
    closed_to_everybody_else(&gateway, &flowing);
    let result = tool.result();

    let seen = all(&result, "callers");
    assert_eq!(seen.len(), 2);
    for caller in seen {
        watched(caller, SECONDS as f64);
        relayed_on_both_sides(caller);
        nothing_but_the_gateway_is_named(caller);
    }
    sealed_end_to_end(&seen[0], &seen[1]);
    assert_eq!(result["phoneOverflow"], 0, "the page scrolls sideways on a phone");
    assert_eq!(result["parting"], json!(["You left.", "The other person left."]));
    if third {
        let words = result["third"].as_str().expect("the third page says why");
        assert!(words.contains("two are in this sealed call"), "{words}");
    }

    let after = gateway.metrics_when("packets were turned around", |m| {
        m.sum("veilgate_relay_hairpin_packets_total", &[]) > 500.0
    });
    for name in
        ["veilgate_session_dtls_handshakes_total", "veilgate_forward_received_packets_total"]
    {
        let moved = after.sum(name, &[]) - before.sum(name, &[]);
        assert_eq!(moved, 0.0, "{name}: the forwarder had no part in it");
    }
    let kept = after.sum("veilgate_http_sealed_candidates_total", &["result=\"kept\""]);
    assert!(kept >= 2.0, "one of each side at least: {kept}");
    assert!(!gateway.log().contains("10.78.0.3"), "a client's address in the log");
}

#[test]
fn two_chromium_hold_a_sealed_call_and_a_third_finds_the_room_full() {
    call(["chromium", "chromium"], true);
}

#[test]
fn chromium_and_firefox_hold_a_sealed_call() {
    call(["chromium", "firefox"], false);
}
