//! `/v1/sealed` and class room of `/v1/ice`, each status from outside.

mod http_support;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_support::*;
use veilgate::auth::turn::Class;
use veilgate::control::api::Refusal;

const DATA: &str = include_str!("data/sdp/node-datachannel-0.33.4-datachannel.sdp");

/// A real offer or answer, with a relayed candidate beside the host candidate it has.
fn sdp(setup: &str) -> String {
    let line = "a=candidate:9 1 UDP 41 203.0.113.9 5000 typ relay raddr 198.51.100.7 rport 9\r\n";
    let text: String = DATA.lines().map(|line| format!("{line}\r\n")).collect();
    text.replace("a=setup:actpass", &format!("a=setup:{setup}"))
        .replace("a=mid:0\r\n", &format!("a=mid:0\r\n{line}"))
}

fn of(subject: &str, publish: &[&str], play: &[&str]) -> String {
    let mut request = request_for(publish, play);
    request.subject = Some(subject.to_owned());
    let now = veilgate::time::Unix::from_secs(NOW);
    our_keys().mint(now, &request, "jti-1").expect("minted")
}

fn attic(subject: &str) -> String {
    of(subject, &["attic/*"], &["attic/*"])
}

fn with(method: &str, path: &str, token: &str) -> Request<Body> {
    bare(method, path, &[("authorization", &format!("Bearer {token}"))])
}

/// Joins and returns the role and the seat.
async fn join(fake: &Fake, token: &str) -> (String, String) {
    let answer = send(app(fake), with("POST", "/v1/sealed/attic", token)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    assert_eq!(answer.header("cache-control"), "no-store");
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    let seat = answer.header("location").to_owned();
    assert!(seat.starts_with("/v1/sealed/attic/") && seat.len() > 40, "{seat}");
    assert_eq!(body["seat"], seat.as_str());
    (body["role"].as_str().expect("a role").to_owned(), seat)
}

async fn code_of(fake: &Fake, request: Request<Body>) -> (u16, String) {
    let answer = send(app(fake), request).await;
    assert!(!answer.body.contains("198.51") && !answer.body.contains("10.78"), "{}", answer.body);
    (answer.status.as_u16(), answer.code())
}

#[tokio::test]
async fn two_pages_exchange_their_descriptions_and_a_third_gets_room_full() {
    let fake = Fake::default();
    let (alice, bob) = (attic("alice"), attic("bob"));
    let (role, first) = join(&fake, &alice).await;
    assert_eq!(role, "offerer");
    let (role, second) = join(&fake, &bob).await;
    assert_eq!(role, "answerer");
    let third = code_of(&fake, with("POST", "/v1/sealed/attic", &attic("carol"))).await;
    assert_eq!(third, (409, "room_full".to_owned()));

    let now = |seat: &str| format!("{seat}?wait=0");
    let nothing = send(app(&fake), with("GET", &now(&second), &bob)).await;
    assert_eq!((nothing.status, nothing.header("retry-after")), (StatusCode::NO_CONTENT, "1"));
    let early = code_of(&fake, post(&second, &bob, sdp("active"))).await;
    assert_eq!(early, (409, "offer_awaited".to_owned()));
    for _ in 0..2 {
        let told = send(app(&fake), post(&first, &alice, sdp("actpass"))).await;
        assert_eq!(told.status, StatusCode::NO_CONTENT, "{}", told.body);
    }
    let other = sdp("actpass").replace("CAyT", "other");
    let other = code_of(&fake, post(&first, &alice, other)).await;
    assert_eq!(other, (409, "already_described".to_owned()));

    let offer = send(app(&fake), with("GET", &second, &bob)).await;
    assert_eq!((offer.status, offer.header("content-type")), (StatusCode::OK, "application/sdp"));
    assert!(offer.body.contains("203.0.113.9 5000 typ relay raddr 0.0.0.0 rport 0"));
    assert!(!offer.body.contains("198.51") && !offer.body.contains("10.78"), "{}", offer.body);
    let told = send(app(&fake), post(&second, &bob, sdp("active"))).await;
    assert_eq!(told.status, StatusCode::NO_CONTENT, "{}", told.body);
    let answer = send(app(&fake), with("GET", &first, &alice)).await;
    assert!(answer.body.contains("a=setup:active\r\n"), "{}", answer.body);

    let goes_on =
        send(app(&fake), with("GET", &format!("{first}?until=over&wait=0"), &alice)).await;
    assert_eq!(goes_on.status, StatusCode::NO_CONTENT);
    // A seat is its subject's alone, and DELETE ends the call for both.
    let gone = (404, "seat_not_found".to_owned());
    assert_eq!(code_of(&fake, with("GET", &first, &bob)).await, gone);
    let foreign = send(app(&fake), with("DELETE", &first, &bob)).await;
    assert_eq!(foreign.status, StatusCode::OK, "it tells nothing");
    assert_eq!(send(app(&fake), with("GET", &first, &alice)).await.status, StatusCode::OK);
    for _ in 0..2 {
        let left = send(app(&fake), bare("DELETE", &second, &[])).await;
        assert_eq!(left.status, StatusCode::OK);
    }
    assert_eq!(code_of(&fake, with("GET", &first, &alice)).await, gone);
    assert_eq!(code_of(&fake, with("GET", &format!("{first}?until=over"), &alice)).await, gone);
    assert_eq!(join(&fake, &attic("carol")).await.0, "offerer");
}

#[tokio::test]
async fn hostile_descriptions_are_refused_with_clear_codes() {
    let fake = Fake::default();
    let alice = attic("alice");
    let (_, seat) = join(&fake, &alice).await;
    let good = sdp("actpass");
    let section = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n".repeat(200);
    let mids: String = (1..9).map(|n| format!("m=video 0 RTP/AVP 0\r\na=mid:{n}\r\n")).collect();
    for (body, status, code) in [
        (good.replace("5000 typ relay", "5001 typ relay"), 422, "no_relay_candidate"),
        (good.replace("typ relay", "typ srflx"), 422, "no_relay_candidate"),
        (good.replace("203.0.113.9", "203.0.113.10"), 422, "no_relay_candidate"),
        (format!("{good}{section}"), 400, "bad_sdp"),
        (format!("{good}{mids}"), 422, "too_many_sections"),
        (good.replace("sha-256", "sha-1"), 422, "no_fingerprint"),
        (good.replace("actpass", "holdconn"), 422, "bad_setup"),
        (good.replace("BUNDLE 0", "LS 0"), 422, "not_bundled"),
        (
            good.replace("mid:0", "mid:198.51.100.7").replace("BUNDLE 0", "BUNDLE 198.51.100.7"),
            422,
            "bad_mid",
        ),
        (good.replace("UDP/DTLS/SCTP", "DTLS/SCTP"), 422, "no_codec"),
        (good.replace("a=mid:0", "a=mid:0\u{0}"), 400, "bad_sdp"),
        (format!("v=0\r\na={}\r\n", "x".repeat(5_000)), 400, "bad_sdp"),
        ("v=0\r\n".repeat(20_000), 413, "sdp_too_large"),
        (String::new(), 400, "bad_sdp"),
    ] {
        let found = code_of(&fake, post(&seat, &alice, body)).await;
        assert_eq!(found, (status, code.to_owned()));
    }
    let not_text = code_of(&fake, post(&seat, &alice, vec![b'v', 0xff])).await;
    assert_eq!(not_text, (400, "bad_sdp".to_owned()));
    let hint = send(app(&fake), post(&seat, &alice, good.replace("typ relay", "typ host"))).await;
    assert!(hint.body.contains("iceTransportPolicy"), "{}", hint.body);
    let mut json = post(&seat, &alice, good.clone());
    json.headers_mut().insert("content-type", "application/json".parse().expect("valid"));
    assert_eq!(code_of(&fake, json).await, (415, "unsupported_media_type".to_owned()));
    // None of these cost the seat.
    let told = send(app(&fake), post(&seat, &alice, good)).await;
    assert_eq!(told.status, StatusCode::NO_CONTENT, "{}", told.body);
}

#[tokio::test]
async fn an_answer_to_something_else_is_refused() {
    let fake = Fake::default();
    let (alice, bob) = (attic("alice"), attic("bob"));
    let (_, first) = join(&fake, &alice).await;
    let (_, second) = join(&fake, &bob).await;
    send(app(&fake), post(&first, &alice, sdp("actpass"))).await;
    for (body, code) in [
        (sdp("actpass"), "bad_setup"),
        (
            sdp("active").replace("mid:0", "mid:1").replace("BUNDLE 0", "BUNDLE 1"),
            "answer_mismatch",
        ),
    ] {
        let found = code_of(&fake, post(&second, &bob, body)).await;
        assert_eq!(found, (422, code.to_owned()));
    }
}

#[tokio::test]
async fn a_sealed_call_takes_both_grants_for_the_whole_room() {
    let fake = Fake::default();
    let seat = "/v1/sealed/attic/whatever";
    let refused = (403, "not_granted".to_owned());
    for token in [
        of("a", &["attic/*"], &[]),
        of("a", &[], &["attic/*"]),
        of("a", &["attic/cam1"], &["attic/cam1"]),
        of("a", &["lobby/*"], &["attic/*"]),
    ] {
        for (method, path) in [("POST", "/v1/sealed/attic"), ("GET", seat), ("POST", seat)] {
            assert_eq!(
                code_of(&fake, with(method, path, &token)).await,
                refused,
                "{method} {path}"
            );
        }
        let ice = with("GET", "/v1/ice?class=room&room=attic", &token);
        assert_eq!(code_of(&fake, ice).await, refused);
    }
    for (method, path) in [("POST", "/v1/sealed/attic"), ("GET", seat), ("POST", seat)] {
        let nobody = code_of(&fake, bare(method, path, &[])).await;
        assert_eq!(nobody, (401, "token_missing".to_owned()));
    }
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn ice_servers_of_class_room_are_for_one_room() {
    let fake = Fake::default();
    let both = of("user-42", &["attic/*", "lobby/*"], &["attic/*", "lobby/*"]);
    for (query, token) in
        [("?class=room", attic("user-42")), ("?class=room&room=attic", both.clone())]
    {
        let answer = send(app(&fake), with("GET", &format!("/v1/ice{query}"), &token)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(body["iceTransportPolicy"], "relay");
    }
    let minted = Call::Mint("user-42".to_owned(), Some("attic".to_owned()), Class::Room, None);
    assert_eq!(fake.calls(), [minted.clone(), minted]);
    for (query, status, code) in [
        ("?class=room", 422, "room_missing"),
        ("?class=room&room=cellar", 403, "not_granted"),
        ("?class=room&room=a%2Fb", 400, "bad_name"),
        ("?class=probe", 422, "bad_class"),
    ] {
        let found = code_of(&fake, with("GET", &format!("/v1/ice{query}"), &both)).await;
        assert_eq!(found, (status, code.to_owned()), "{query}");
    }
}

#[tokio::test]
async fn bad_questions_and_a_gateway_that_stops_are_told() {
    let fake = Fake::default();
    let alice = attic("alice");
    let (_, seat) = join(&fake, &alice).await;
    for query in ["wait=16", "wait=x", "wait=-1", "until=tomorrow", "wiat=0"] {
        let asked = with("GET", &format!("{seat}?{query}"), &alice);
        assert_eq!(code_of(&fake, asked).await, (400, "bad_query".to_owned()), "{query}");
    }
    // A mistyped class must not quietly give a credential that leads elsewhere.
    let asked = with("GET", "/v1/ice?clas=room", &alice);
    assert_eq!(code_of(&fake, asked).await, (400, "bad_query".to_owned()));
    for path in [&format!("{seat}?wait=0"), "/v1/ice?class=room"] {
        let answer = send(app(&fake), bare("GET", &format!("{path}&access_token={alice}"), &[]));
        assert!(answer.await.status.is_success(), "a token in the query: {path}");
    }
    for path in ["/v1/sealed/attic", seat.as_str()] {
        let answer = send(app(&fake), bare("PUT", path, &[])).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (405, "method_not_allowed"));
        assert!(answer.header("allow").contains("POST"));
        let preflight = send(app(&fake), bare("OPTIONS", path, &[])).await;
        assert_eq!(preflight.header("access-control-allow-origin"), "*");
    }
    let stopping = Fake::refusing(Refusal::Draining);
    let found = code_of(&stopping, with("POST", "/v1/sealed/attic", &alice)).await;
    assert_eq!(found, (503, "draining".to_owned()));
}
