//! What a running `veilgate bridge` says no to, and why; and how its sessions end.

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use axum::http::{Method, header};
use common::bridge::{Bridge, FRAGMENT, Recorder, local, location, post_offer};
use common::{GATEWAY, Gateway, HTTPS_PORT};
use serde_json::{Value, json};
use stun::attributes::ATTR_USERNAME;
use stun::message::{BINDING_REQUEST, Message, Setter as _};
use stun::textattrs::TextAttribute;

const NAME: &str = "lobby/cam1";

/// What [`post_offer`] posts.
const OFFER: &str = include_str!("data/sdp/gstreamer1.22-sendonly.sdp");

/// A problem's code; its status stands in the body, too.
fn code(answer: &(u16, String, String)) -> (u16, String) {
    let (status, head, body) = answer;
    assert!(head.contains("application/problem+json"), "{head}\n{body}");
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {body}"));
    assert_eq!(body["status"], *status, "{body:#}");
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body:#}");
    (*status, body["code"].as_str().expect("a code").to_owned())
}

fn refused(status: u16, name: &str) -> (u16, String) {
    (status, name.to_owned())
}

fn no_allocation_is_left(gateway: &Gateway) {
    gateway.metrics_when("no allocation is left", |m| {
        m.sum("veilgate_relay_allocations", &[]) == 0.0
            && m.sum("veilgate_session_sessions", &[]) == 0.0
    });
}

#[test]
fn requests_that_make_no_sense_and_pages_are_refused_here() {
    let gateway = Gateway::start(1);
    let recorder = Recorder::start(&gateway, None);
    let bridge = Bridge::behind(&recorder, &gateway, &[]);
    let before = recorder.seen(&Method::GET, "/").len();
    let offer = |name: &str, more: &[&str]| code(&post_offer(&gateway, name, more));
    let page = ["-H", "Origin: https://evil.example"];
    assert_eq!(offer(NAME, &page), refused(403, "not_local"));
    let rebound = ["-H", "Host: evil.example:8889"];
    assert_eq!(offer(NAME, &rebound), refused(403, "not_local"));
    assert_eq!(offer("lobby/%20", &[]), refused(400, "bad_name"));
    bridge.event("refused");
    let text = ["--data", "v=0", "-H", "Content-Type: text/plain"];
    let posted = local(&gateway, "/whip/lobby/cam1", &text);
    assert_eq!(code(&posted), refused(415, "unsupported_media_type"));
    bridge.event("refused");
    assert_eq!(code(&local(&gateway, "/", &[])), refused(404, "not_found"));
    let got = local(&gateway, "/whip/lobby/cam1", &[]);
    assert_eq!(code(&got), refused(405, "method_not_allowed"));
    assert!(got.1.contains("allow: "), "{}", got.1);
    let (status, head, _) = local(&gateway, "/whep/lobby/cam1", &["-X", "OPTIONS"]);
    assert_eq!(status, 200);
    assert!(head.contains("accept-post: application/sdp"), "{head}");
    let fragment = ["-X", "PATCH", "--data", "a=x", "-H", &format!("Content-Type: {FRAGMENT}")];
    let patched = local(&gateway, "/whip/session/0123", &fragment);
    assert_eq!(code(&patched), refused(404, "not_found"));
    // What has ended is ended.
    assert_eq!(local(&gateway, "/whip/session/0123", &["-X", "DELETE"]).0, 200);
    assert_eq!(recorder.seen(&Method::GET, "/").len(), before, "the gateway was bothered");
    assert!(recorder.seen(&Method::POST, "/").is_empty());
    // Removed under way.
    std::fs::remove_file(gateway.folder().join("bridge.token")).expect("removed");
    assert_eq!(offer(NAME, &[]), refused(500, "token_file"));
    assert_eq!(bridge.event("refused")["code"], "token_file");
    assert_eq!(bridge.interrupt(), 0);
}

#[test]
fn token_of_the_client_goes_before_that_of_the_bridge() {
    let gateway = Gateway::start(1);
    let recorder = Recorder::start(&gateway, None);
    let bridge = Bridge::without_token(&recorder, &gateway);
    let own = |token: &str| format!("Authorization: Bearer {token}");
    assert_eq!(code(&post_offer(&gateway, NAME, &[])), refused(401, "token_missing"));
    assert_eq!(bridge.event("refused")["status"], 401);
    // A field that was left empty.
    let empty = post_offer(&gateway, NAME, &["-H", "Authorization: Bearer "]);
    assert_eq!(code(&empty), refused(401, "token_missing"));
    bridge.event("refused");
    // The gateway's own refusal, as it came.
    let forged = post_offer(&gateway, NAME, &["-H", &own("no.such.token")]);
    assert_eq!(forged.0, 401);
    assert!(forged.1.contains("www-authenticate: bearer"), "{}", forged.1);
    assert_eq!(json!(code(&forged).1), bridge.event("refused")["code"]);
    let foreign = post_offer(&gateway, "elsewhere/cam1", &["-H", &own(&gateway.token())]);
    assert_eq!(code(&foreign), refused(403, "not_granted"));
    bridge.event("refused");
    let good = gateway.token();
    let (status, head, _) = post_offer(&gateway, NAME, &["-H", &own(&good)]);
    assert_eq!(status, 201, "{head}");
    bridge.event("session_started");
    let asked = recorder.seen(&Method::POST, "/whip/lobby/cam1");
    let sent = asked.last().and_then(|seen| seen.headers.get(header::AUTHORIZATION));
    assert!(sent.is_some_and(|sent| *sent == format!("Bearer {good}")));
    // A stream that nobody publishes: the gateway's answer with what it says of trying again.
    let (token, kind) = (own(&good), "Content-Type: application/sdp");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sdp/chromium156-recvonly.sdp");
    let body = format!("@{file}");
    let offer = ["--data-binary", &body, "-H", kind, "-H", &token];
    let absent = local(&gateway, "/whep/lobby/nobody", &offer);
    assert_eq!(json!(code(&absent).1), bridge.event("refused")["code"]);
    assert!(absent.1.contains("retry-after: "), "{}", absent.1);
    assert_eq!(bridge.interrupt(), 0);
    no_allocation_is_left(&gateway);
}

#[test]
fn client_that_says_nothing_loses_its_session_here_and_at_the_gateway() {
    let gateway = Gateway::start(1);
    let recorder = Recorder::start(&gateway, None);
    let bridge = Bridge::behind(&recorder, &gateway, &["--silence", "2s"]);
    let (status, head, answer) = post_offer(&gateway, NAME, &[]);
    assert_eq!(status, 201, "{answer}");
    assert!(location(&head).starts_with("/whip/session/"), "{head}");
    assert!(head.contains("etag: \"") && !head.contains("link: "), "{head}");
    bridge.event("session_started");
    assert!(recorder.seen(&Method::DELETE, "/").is_empty());
    let ended = bridge.event("session_ended");
    assert_eq!(ended["reason"], "client_silent", "{ended:#}");
    assert_eq!(recorder.seen(&Method::DELETE, "/whip/session/").len(), 1);
    no_allocation_is_left(&gateway);
    assert_eq!(bridge.interrupt(), 0);
}

/// A Binding request that names a session and proves nothing.
fn unproven_check(answer: &str) -> Vec<u8> {
    let ufrag = |sdp: &str| {
        let line = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:"));
        line.expect("an ufrag").trim().to_owned()
    };
    let username = format!("{}:{}", ufrag(answer), ufrag(OFFER));
    let mut check = Message::new();
    check.set_type(BINDING_REQUEST);
    check.new_transaction_id().expect("random");
    check.write_header();
    TextAttribute::new(ATTR_USERNAME, username).add_to(&mut check).expect("room");
    check.raw
}

#[test]
fn bridge_answers_no_check_in_the_gateways_place() {
    let gateway = Gateway::start(1);
    let bridge = Bridge::start(&gateway, &["--silence", "4s"]);
    let (status, _, answer) = post_offer(&gateway, NAME, &[]);
    assert_eq!(status, 201, "{answer}");
    bridge.event("session_started");
    let candidate = answer.lines().find(|line| line.starts_with("a=candidate:"));
    let port = candidate.and_then(|line| line.split_whitespace().nth(5)).expect("a port");
    let to: SocketAddr = format!("127.0.0.1:{port}").parse().expect("an address");
    let (client, stranger) = gateway.network.as_client(|| {
        let bound = || UdpSocket::bind("127.0.0.1:0").expect("bound");
        (bound(), bound())
    });
    client.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
    let check = unproven_check(&answer);
    let mut strangers = 0;
    // Until the bridge gives up the gateway, which says nothing to this.
    let ended = (0..200).find_map(|_| {
        // The socket is gone at the end.
        let _gone = client.send_to(&check, to);
        strangers += u64::from(stranger.send_to(&check, to).is_ok());
        assert!(client.recv(&mut [0; 100]).is_err(), "somebody answered");
        bridge.next_event()
    });
    let ended = ended.expect("it ends within 20 s");
    assert_eq!(ended["event"], "session_ended", "{ended:#}");
    assert_eq!(ended["reason"], "gateway_silent", "{ended:#}");
    let packets = |of: &str| ended["packets"][of].as_u64().expect("a number");
    assert!(packets("from_client") > 0 && packets("from_gateway") == 0, "{ended:#}");
    // The first to name the session is its client: the other is nobody's.
    assert!((1..=strangers).contains(&packets("dropped")), "{strangers}: {ended:#}");
    gateway.metrics_when("the checks reached the gateway", |m| {
        m.sum("veilgate_session_ice_checks_total", &["result=\"bad_integrity\""]) > 0.0
    });
    assert_eq!(bridge.interrupt(), 0);
    no_allocation_is_left(&gateway);
}

#[test]
fn interrupted_bridge_ends_its_sessions_at_the_gateway() {
    let gateway = Gateway::start(1);
    let recorder = Recorder::start(&gateway, None);
    let bridge = Bridge::behind(&recorder, &gateway, &[]);
    for name in ["lobby/one", "lobby/two"] {
        assert_eq!(post_offer(&gateway, name, &[]).0, 201);
        bridge.event("session_started");
    }
    gateway.metrics_when("two publish", |m| m.sum("veilgate_relay_allocations", &[]) == 2.0);
    assert_eq!(bridge.interrupt(), 0);
    assert_eq!(recorder.seen(&Method::DELETE, "/whip/session/").len(), 2);
    no_allocation_is_left(&gateway);
}

#[test]
fn restart_of_ice_goes_through_without_candidates_and_comes_back_with_the_bridges() {
    let gateway = Gateway::start(1);
    let recorder = Recorder::start(&gateway, None);
    let bridge = Bridge::behind(&recorder, &gateway, &[]);
    let (status, head, answer) = post_offer(&gateway, NAME, &[]);
    assert_eq!(status, 201, "{answer}");
    let own = answer.lines().find(|line| line.starts_with("a=candidate:")).expect("a candidate");
    let path = location(&head);
    let fragment = "a=ice-ufrag:mine\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n\
        a=candidate:1 1 UDP 2015363327 10.78.0.3 50203 typ host\r\na=end-of-candidates\r\n";
    let kind = format!("Content-Type: {FRAGMENT}");
    let restart = ["-X", "PATCH", "--data-binary", fragment, "-H", &kind, "-H", "If-Match: *"];
    let (status, head, body) = local(&gateway, &path, &restart);
    assert_eq!(status, 200, "{body}");
    assert!(head.contains("etag: \"after\""), "{head}");
    assert!(body.contains("a=ice-ufrag:anew") && body.contains(own.trim()), "{own}: {body}");
    assert!(!body.contains(&GATEWAY.to_string()), "{body}");
    let got = recorder.seen(&Method::PATCH, "/whip/session/");
    let got = got.first().expect("the gateway got it");
    assert_eq!(got.headers.get(header::IF_MATCH).expect("If-Match"), "*");
    assert_eq!(
        got.body,
        "a=ice-ufrag:mine\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=end-of-candidates\r\n"
    );
    bridge.event("session_started");
    assert_eq!(local(&gateway, &path, &["-X", "DELETE"]).0, 200);
    assert_eq!(bridge.event("session_ended")["reason"], "deleted");
    assert_eq!(bridge.interrupt(), 0);
}

#[test]
fn connection_to_the_relay_that_breaks_ends_its_session() {
    let gateway = Gateway::start(1);
    let bridge = Bridge::start(&gateway, &["--transport", "tcp"]);
    assert_eq!(post_offer(&gateway, NAME, &[]).0, 201);
    bridge.event("session_started");
    let pid = gateway.pid().to_string();
    let killed = std::process::Command::new("kill").args(["-9", &pid]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    assert_eq!(bridge.event("session_ended")["reason"], "relay_lost");
    // It says so after the event, once the gateway did not answer.
    let told = || bridge.log().contains("was not told of an end");
    for _ in (0..200).take_while(|_| !told()) {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(told(), "{}", bridge.log());
    // It is still there for the gateway that comes back.
    assert_eq!(code(&post_offer(&gateway, NAME, &[])), refused(502, "gateway_unreachable"));
    bridge.event("refused");
    assert_eq!(bridge.interrupt(), 0);
}

#[test]
fn relay_that_is_out_of_reach_gets_503_and_the_gateway_no_offer() {
    let gateway = Gateway::start(1);
    let urls = json!([
        format!("turn:{GATEWAY}:9?transport=udp"),
        format!("turn:{GATEWAY}:9?transport=tcp"),
    ]);
    let recorder = Recorder::start(&gateway, Some(json!({ "urls": urls })));
    let bridge = Bridge::without_token(&recorder, &gateway);
    let own = format!("Authorization: Bearer {}", gateway.token());
    let answer = post_offer(&gateway, NAME, &["-H", &own]);
    assert_eq!(code(&answer), refused(503, "relay_unreachable"));
    assert!(answer.1.contains("retry-after: "), "{}", answer.1);
    for (way, port) in [("udp", "UDP 9"), ("tcp", "TCP 9")] {
        assert!(answer.2.contains(way) && answer.2.contains(port), "{}", answer.2);
    }
    assert!(recorder.seen(&Method::POST, "/").is_empty(), "a session nobody can reach");
    assert_eq!(bridge.event("refused")["code"], "relay_unreachable");
}

#[test]
fn relay_that_refuses_gets_502_with_its_reason() {
    let gateway = Gateway::start(1);
    let recorder = Recorder::start(&gateway, Some(json!({ "credential": "forged" })));
    let bridge = Bridge::without_token(&recorder, &gateway);
    let own = format!("Authorization: Bearer {}", gateway.token());
    let answer = post_offer(&gateway, NAME, &["-H", &own]);
    assert_eq!(code(&answer), refused(502, "relay_refused"));
    assert!(answer.2.contains("401"), "{}", answer.2);
    assert!(!answer.2.contains("forged"), "{}", answer.2);
    assert!(recorder.seen(&Method::POST, "/").is_empty());
    assert_eq!(bridge.event("refused")["code"], "relay_refused");
}

#[test]
fn blocked_udp_is_passed_over_for_tcp() {
    let gateway = Gateway::start(1);
    let urls = json!([
        format!("turn:{GATEWAY}:9?transport=udp"),
        format!("turn:{GATEWAY}:{HTTPS_PORT}?transport=tcp"),
    ]);
    let recorder = Recorder::start(&gateway, Some(json!({ "urls": urls })));
    let bridge = Bridge::behind(&recorder, &gateway, &[]);
    assert_eq!(post_offer(&gateway, NAME, &[]).0, 201);
    assert_eq!(bridge.event("session_started")["transport"], "tcp");
    assert_eq!(bridge.interrupt(), 0);
    no_allocation_is_left(&gateway);
}
