//! WHIP, WHEP, ICE servers and the page over HTTP, each status from outside.

mod http_support;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use http_support::*;
use hyper::body::Frame;
use veilgate::control::api::{Principal, Refusal};
use veilgate::http::{Config, Origins, router};
use veilgate::time::Unix;

fn user() -> Principal {
    Principal {
        subject: "user-42".to_owned(),
        room: Some("lobby".to_owned()),
        jti: "jti-1".to_owned(),
    }
}

#[tokio::test]
async fn an_offer_to_whip_is_answered_201_with_everything_a_client_needs() {
    let fake = Fake::default();
    let answer = send(app(&fake), post("/whip/lobby/cam1", &lobby(), PUBLISH)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    assert_eq!(answer.header("content-type"), "application/sdp");
    assert_eq!(answer.header("location"), format!("/whip/session/{RESOURCE}"));
    let tag = answer.header("etag");
    assert!(tag.starts_with('"') && tag.len() == 18 && !RESOURCE.contains(&tag[1..9]), "{tag}");
    let links: Vec<_> = answer.headers.get_all("link").iter().collect();
    let first = "<turn:gw.example:3478?transport=udp>; rel=\"ice-server\"; \
                 username=\"1800000600:k1.user-42\"; credential=\"pass\\\"word=\"; \
                 credential-type=\"password\"";
    assert_eq!((links.len(), links[0].to_str().expect("text")), (2, first));
    assert!(answer.body.starts_with("v=0\r\n") && answer.body.contains("a=setup:passive\r\n"));
    assert_eq!(fake.calls(), [Call::Publish("lobby/cam1".to_owned(), user())]);
}

#[tokio::test]
async fn an_offer_to_whep_is_answered_201() {
    let fake = Fake::default();
    let answer = send(app(&fake), post("/whep/lobby/cam1", &lobby(), PLAY)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    assert_eq!(answer.header("location"), format!("/whep/session/{RESOURCE}"));
    assert!(answer.body.contains("a=sendonly\r\n"));
    assert_eq!(fake.calls(), [Call::Play("lobby/cam1".to_owned(), user())]);
}

#[tokio::test]
async fn a_room_may_be_called_session() {
    let fake = Fake::default();
    let token = mint(&["session/cam1"], &[]);
    let answer = send(app(&fake), post("/whip/session/cam1", &token, PUBLISH)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
    let Some(Call::Publish(name, _)) = fake.calls().pop() else { panic!("published") };
    assert_eq!(name, "session/cam1");
}

#[tokio::test]
async fn each_refusal_has_its_status_and_code() {
    for (refusal, status, code, retry) in [
        (Refusal::NameInUse, 409, "name_in_use", false),
        (Refusal::NobodyPublishing, 409, "nobody_publishing", true),
        (Refusal::BadSdp("line 3".to_owned()), 400, "bad_sdp", false),
        (Refusal::NoCodec("VP8".to_owned()), 422, "no_codec", false),
        (Refusal::NoFingerprint("none".to_owned()), 422, "no_fingerprint", false),
        (Refusal::Full, 503, "full", true),
        (Refusal::Draining, 503, "draining", true),
    ] {
        let fake = Fake::refusing(refusal);
        for path in ["/whip/lobby/cam1", "/whep/lobby/cam1"] {
            let answer = send(app(&fake), post(path, &lobby(), PUBLISH)).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
            assert_eq!(!answer.header("retry-after").is_empty(), retry, "{code}");
        }
    }
}

#[tokio::test]
async fn bad_offers_are_told_apart_and_never_quoted() {
    let no_fingerprint = PUBLISH.replace("sha-256", "md5");
    let datachannel = include_str!("data/sdp/chromium156-datachannel.sdp");
    let line = "v=0\r\nnot 198.51.100.7 a line\r\n";
    let large = "v=0\r\n".repeat(13_108);
    for (offer, status, code) in [
        (no_fingerprint.as_str(), 422, "no_fingerprint"),
        (datachannel, 422, "no_codec"),
        ("", 400, "bad_sdp"),
        (line, 400, "bad_sdp"),
        (&large, 413, "sdp_too_large"),
    ] {
        let sent = post("/whip/lobby/cam1", &lobby(), offer.to_owned());
        let answer = send(app(&Fake::default()), sent).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
        assert!(!answer.body.contains("198.51") && !answer.body.contains("10.78"));
    }
    let answer =
        send(app(&Fake::default()), post("/whip/lobby/cam1", &lobby(), vec![b'v', 0xff])).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "bad_sdp"));
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_off_at_64_kib() {
    let mut sent = post("/whip/lobby/cam1", &lobby(), "v".repeat(65_537));
    sent.headers_mut().remove("content-length");
    let fake = Fake::default();
    let answer = send(app(&fake), sent).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "sdp_too_large"));
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn anything_but_sdp_is_415() {
    for content_type in [None, Some("application/json"), Some("application/sdpx")] {
        let mut sent = post("/whip/lobby/cam1", &lobby(), PUBLISH);
        sent.headers_mut().remove("content-type");
        if let Some(content_type) = content_type {
            sent.headers_mut().insert("content-type", content_type.parse().expect("valid"));
        }
        let answer = send(app(&Fake::default()), sent).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(answer.code(), "unsupported_media_type");
    }
    let mut sent = post("/whip/lobby/cam1", &lobby(), PUBLISH);
    let spelled = "Application/SDP; charset=utf-8".parse().expect("valid");
    sent.headers_mut().insert("content-type", spelled);
    assert_eq!(send(app(&Fake::default()), sent).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn each_bad_token_has_its_code_and_no_offer_is_read() {
    let fake = Fake::default();
    let at = |secs| Unix::from_secs(secs);
    let request = request_for(&["lobby/cam1"], &["lobby/cam1"]);
    let minted = |keys: veilgate::auth::token::TokenKeys, now| {
        keys.mint(now, &request, "jti-1").expect("minted")
    };
    let foreign = minted(keys("k1", b"somebody else's secret of 32 B..."), at(NOW));
    let unknown = minted(keys("k9", b"an HTTP test's own secret of 32 B"), at(NOW));
    for (token, code) in [
        ("nonsense".to_owned(), "token_malformed"),
        ("a b".to_owned(), "token_malformed"),
        (minted(our_keys(), at(NOW - 7_200)), "token_expired"),
        (minted(our_keys(), at(NOW + 7_200)), "token_not_yet_valid"),
        (foreign, "token_bad_signature"),
        (unknown, "token_unknown_key"),
    ] {
        for path in ["/whip/lobby/cam1", "/whep/lobby/cam1"] {
            let answer = send(app(&fake), post(path, &token, PUBLISH)).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, code));
            assert!(answer.header("www-authenticate").contains("error=\"invalid_token\""));
        }
        let bearer = format!("Bearer {token}");
        let asked = bare("GET", "/v1/ice", &[("authorization", &bearer)]);
        assert_eq!(send(app(&fake), asked).await.code(), code);
    }
    for headers in [&[][..], &[("authorization", "Bearer ")], &[("authorization", "Bearer")]] {
        let answer = send(app(&fake), bare("POST", "/whip/lobby/cam1", headers)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "token_missing"));
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"veilgate\"");
    }
    let basic = bare("POST", "/whip/lobby/cam1", &[("authorization", "Basic dTpw")]);
    assert_eq!(send(app(&fake), basic).await.code(), "token_malformed");
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_token_for_something_else_is_403() {
    let fake = Fake::default();
    for (token, path) in [
        (mint(&["lobby/cam2"], &["lobby/*"]), "/whip/lobby/cam1"),
        (mint(&["lobby/*"], &["attic/*"]), "/whep/lobby/cam1"),
        (mint(&["lobby/*"], &["lobby/*"]), "/whip/attic/cam1"),
    ] {
        let answer = send(app(&fake), post(path, &token, PUBLISH)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (403, "not_granted"));
        assert!(answer.header("www-authenticate").contains("insufficient_scope"));
    }
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn the_token_may_come_bare_or_in_the_query() {
    let token = lobby();
    let mut sent = post("/whip/lobby/cam1", "", PUBLISH);
    sent.headers_mut().insert("authorization", token.parse().expect("valid"));
    assert_eq!(send(app(&Fake::default()), sent).await.status, StatusCode::CREATED);
    let mut sent = post(&format!("/whep/lobby/cam1?access_token={token}"), "", PLAY);
    sent.headers_mut().remove("authorization");
    assert_eq!(send(app(&Fake::default()), sent).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn names_that_are_no_stream_names_are_400() {
    let answer = send(app(&Fake::default()), post("/whip/lobby/a%20b", &lobby(), PUBLISH)).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "bad_name"));
    let answer = send(app(&Fake::default()), post("/whip/lobby/a%2Fb", &lobby(), PUBLISH)).await;
    assert_eq!(answer.code(), "bad_name");
}

#[tokio::test]
async fn delete_ends_a_session_and_may_be_repeated() {
    let fake = Fake::default();
    let path = format!("/whip/session/{RESOURCE}");
    let bearer = format!("Bearer {}", lobby());
    let with_token = bare("DELETE", &path, &[("authorization", &bearer)]);
    assert_eq!(send(app(&fake), with_token).await.status, StatusCode::OK);
    assert_eq!(send(app(&fake), bare("DELETE", &path, &[])).await.status, StatusCode::OK);
    let gone = bare("DELETE", "/whep/session/gone", &[]);
    assert_eq!(send(app(&fake), gone).await.status, StatusCode::OK);
    let expected = [
        Call::Close(RESOURCE.to_owned(), Some(user())),
        Call::Close(RESOURCE.to_owned(), None),
        Call::Close("gone".to_owned(), None),
    ];
    assert_eq!(fake.calls(), expected);
}

#[tokio::test]
async fn delete_takes_an_expired_token_but_no_forged_one() {
    let fake = Fake::default();
    let path = format!("/whip/session/{RESOURCE}");
    let request = request_for(&["lobby/*"], &[]);
    let old = our_keys().mint(Unix::from_secs(NOW - 7_200), &request, "jti-1").expect("minted");
    let old = bare("DELETE", &path, &[("authorization", &format!("Bearer {old}"))]);
    assert_eq!(send(app(&fake), old).await.status, StatusCode::OK);
    let forged = keys("k1", b"somebody else's secret of 32 B...");
    let forged = forged.mint(Unix::from_secs(NOW), &request, "jti-1").expect("minted");
    let forged = bare("DELETE", &path, &[("authorization", &format!("Bearer {forged}"))]);
    assert_eq!(send(app(&fake), forged).await.code(), "token_bad_signature");
    assert_eq!(fake.calls().len(), 1);
}

#[tokio::test]
async fn ice_servers_are_a_ready_configuration() {
    let bearer = format!("Bearer {}", mint(&[], &["lobby/cam1"]));
    let answer =
        send(app(&Fake::default()), bare("GET", "/v1/ice", &[("authorization", &bearer)])).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("cache-control"), "no-store");
    let expected = serde_json::json!({
        "iceServers": [{
            "urls": ["turn:gw.example:3478?transport=udp", "turns:gw.example:443?transport=tcp"],
            "username": "1800000600:k1.user-42",
            "credential": "pass\"word=",
        }],
        "iceTransportPolicy": "relay",
        "ttl": 600,
        "lifetime": 43_200,
    });
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(body, expected);
}

#[tokio::test]
async fn options_tell_what_to_post_and_preflights_are_not_authorised() {
    for path in ["/whip/lobby/cam1", "/whep/lobby/cam1"] {
        let preflight = bare(
            "OPTIONS",
            path,
            &[("origin", "https://app.example"), ("access-control-request-method", "POST")],
        );
        let answer = send(app(&Fake::default()), preflight).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("accept-post"), "application/sdp");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(answer.header("access-control-allow-headers").contains("Authorization"));
        assert!(answer.header("access-control-allow-methods").contains("POST"));
        assert!(answer.headers.get("link").is_none());
        let bearer = format!("Bearer {}", lobby());
        let asked = bare("OPTIONS", path, &[("authorization", &bearer)]);
        assert!(send(app(&Fake::default()), asked).await.header("link").contains("ice-server"));
    }
    for path in ["/v1/ice", "/whip/session/x"] {
        let answer = send(app(&Fake::default()), bare("OPTIONS", path, &[])).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.header("access-control-allow-methods").contains("DELETE"));
    }
}

#[tokio::test]
async fn errors_are_readable_across_origins_and_origins_can_be_narrowed() {
    let sent = || bare("POST", "/whip/lobby/cam1", &[("origin", "https://app.example")]);
    let answer = send(app(&Fake::default()), sent()).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(answer.header("access-control-expose-headers").contains("Location"));
    for (origins, allowed) in [
        (Origins::SameOrigin, ""),
        (Origins::Listed(vec!["https://app.example".to_owned()]), "https://app.example"),
        (Origins::Listed(vec!["https://else.example".to_owned()]), ""),
    ] {
        let config = Config { origins, ..Config::default() };
        let router = router(Fake::default(), Arc::new(our_keys()), config);
        let answer = send(router, sent()).await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
    }
}

#[tokio::test]
async fn wrong_methods_are_405_with_allow() {
    for (method, path, allowed) in [
        ("PUT", "/whip/lobby/cam1", "POST"),
        ("PATCH", "/whip/lobby/cam1", "POST"),
        ("PUT", "/whip/session/x", "DELETE"),
        ("PUT", "/whep/session/x", "PATCH"),
        ("POST", "/v1/ice", "GET"),
        ("POST", "/page.js", "GET"),
    ] {
        let answer = send(app(&Fake::default()), bare(method, path, &[])).await;
        let found = (answer.status.as_u16(), answer.code());
        assert_eq!(found, (405, "method_not_allowed".to_owned()), "{method} {path}");
        assert!(answer.header("allow").contains(allowed), "{method} {path}");
    }
}

#[tokio::test]
async fn unknown_paths_are_404() {
    let odd = ["/nothing", "/../Cargo.toml", "/mod.rs", "/v1/", "/whip/lobby", "/a/page.js", "//"];
    for path in odd {
        for method in ["GET", "POST"] {
            let answer = send(app(&Fake::default()), bare(method, path, &[])).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (404, "not_found"),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn the_page_is_served_without_anything_inline() {
    let answer = send(app(&Fake::default()), bare("GET", "/", &[])).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    for inline in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
        assert!(!answer.body.contains(inline), "{inline}");
    }
    for script in answer.body.split("<script").skip(1) {
        assert!(script.split('>').next().is_some_and(|tag| tag.contains("src=")));
    }
    for (path, content_type) in
        [("/page.js", "text/javascript; charset=utf-8"), ("/page.css", "text/css; charset=utf-8")]
    {
        let answer = send(app(&Fake::default()), bare("GET", path, &[])).await;
        assert_eq!(answer.header("content-type"), content_type);
        let tag = answer.header("etag").to_owned();
        let again = bare("GET", path, &[("if-none-match", &tag)]);
        let answer = send(app(&Fake::default()), again).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::NOT_MODIFIED, ""));
    }
}

#[tokio::test]
async fn security_headers_are_on_every_answer() {
    let requests: [fn() -> axum::http::Request<Body>; 4] = [
        || bare("GET", "/", &[]),
        || bare("GET", "/nothing", &[]),
        || bare("GET", "/whip/session/x", &[]),
        || post("/whip/lobby/cam1", &lobby(), PUBLISH),
    ];
    for request in requests {
        let answer = send(app(&Fake::default()), request()).await;
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"));
        assert!(answer.header("permissions-policy").contains("camera=(self)"));
        for (name, value) in [
            ("strict-transport-security", "max-age=31536000"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value);
        }
    }
}

/// A body of which nothing ever arrives.
struct Never;

impl HttpBody for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn an_offer_that_never_comes_is_408() {
    let config = Config { body_timeout: Duration::from_millis(1), ..Config::default() };
    let router = router(Fake::default(), Arc::new(our_keys()), config);
    let answer = send(router, post("/whip/lobby/cam1", &lobby(), Body::new(Never))).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (408, "body_timeout"));
}
