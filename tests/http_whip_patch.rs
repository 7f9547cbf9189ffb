//! `PATCH` of WHIP and WHEP sessions (RFC 9725 section 4.3), each status from outside.

mod http_support;

use axum::body::Body;
use axum::http::Request;
use http_support::*;
use veilgate::control::api::Refusal;
use veilgate::control::restart::{IfMatch, entity_tag};
use veilgate::http::{Config, router};
use veilgate::metrics::{Exposition, Signalling};
use veilgate::time::Unix;
use veilgate::wire::sdp::CandidateTypes;

const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const TRICKLE: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
    a=candidate:1 1 udp 1 198.51.100.7 5 typ host\r\n\
    a=candidate:2 1 udp 1 0a7b9c.local 5 typ host\r\n\
    a=candidate:3 1 udp 1 nowhere.invalid 5 typ srflx\r\n\
    a=candidate:4 1 udp 1 203.0.113.7 5 typ relay raddr 0.0.0.0 rport 0\r\n\
    a=candidate:nonsense\r\na=end-of-candidates\r\n";

fn session(endpoint: &str) -> String {
    format!("/{endpoint}/session/{RESOURCE}")
}

fn patch(path: &str, tag: Option<&str>, fragment: &str) -> Request<Body> {
    let mut request = Request::patch(path).header("content-type", FRAGMENT);
    if let Some(tag) = tag {
        request = request.header("if-match", tag);
    }
    request.body(Body::from(fragment.to_owned())).expect("a good request")
}

fn restart() -> String {
    TRICKLE.replace("EsAw", "newufrag").replace("a=mid:0", "a=mid:audio-1")
}

#[tokio::test]
async fn trickled_candidates_get_204_without_an_etag() {
    for endpoint in ["whip", "whep"] {
        let fake = Fake::default();
        let tag = entity_tag(RESOURCE, 0);
        let answer = send(app(&fake), patch(&session(endpoint), Some(&tag), TRICKLE)).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (204, ""));
        assert!(answer.headers.get("etag").is_none());
        // Types are all that is left of them: no address, no name to resolve.
        let types = CandidateTypes { host: 2, reflexive: 1, relay: 1, unknown: 1 };
        let call = Call::Patch(RESOURCE.to_owned(), None, IfMatch::Tags(vec![tag]), types);
        assert_eq!(fake.calls(), [call]);
    }
}

#[tokio::test]
async fn trickled_candidates_are_counted_by_type() {
    let exposition = Exposition::new(Vec::new()).expect("a registry");
    let metrics = Signalling::new().expect("counters");
    metrics.register(&exposition).expect("free names");
    let config = Config { metrics: Some(metrics), ..Config::default() };
    let router = router(Fake::default(), std::sync::Arc::new(our_keys()), config);
    assert_eq!(send(router, patch(&session("whip"), Some("*"), TRICKLE)).await.status, 204);
    let text = exposition.text().expect("encodes");
    for (kind, count) in [("host", 2), ("reflexive", 1), ("relay", 1), ("unknown", 1)] {
        let line = format!("veilgate_http_trickled_candidates_total{{type=\"{kind}\"}} {count}");
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("198.51"));
}

#[tokio::test]
async fn an_ice_restart_gets_200_with_our_fragment_and_a_new_strong_etag() {
    for (endpoint, tag) in
        [("whip", "*".to_owned()), ("whip", "\"*\"".to_owned()), ("whep", entity_tag(RESOURCE, 0))]
    {
        let answer =
            send(app(&Fake::default()), patch(&session(endpoint), Some(&tag), &restart())).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("content-type"), FRAGMENT);
        assert_eq!(answer.header("etag"), entity_tag(RESOURCE, 1));
        assert!(answer.header("etag").starts_with('"'), "strong");
        assert_ne!(entity_tag(RESOURCE, 1), entity_tag(RESOURCE, 0));
        for line in ["a=mid:audio-1", "a=ice-ufrag:ourufrag", "a=ice-pwd:", "a=end-of-candidates"] {
            assert!(answer.body.contains(line), "{line} is not in\n{}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_patch_without_if_match_gets_428_and_a_stale_one_412() {
    let fake = Fake::default();
    for fragment in [TRICKLE, &restart()] {
        for tag in [None, Some(""), Some(" , ")] {
            let answer = send(app(&fake), patch(&session("whip"), tag, fragment)).await;
            let found = (answer.status.as_u16(), answer.code());
            assert_eq!(found, (428, "if_match_missing".to_owned()), "{tag:?}");
        }
    }
    assert!(fake.calls().is_empty());
    let fake = Fake::refusing(Refusal::StaleTag);
    let answer = send(app(&fake), patch(&session("whip"), Some("\"old\""), TRICKLE)).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (412, "stale_ice_session"));
}

#[tokio::test]
async fn if_match_may_list_tags_in_several_headers_but_not_without_end() {
    let fake = Fake::default();
    let mut request = patch(&session("whip"), Some("\"a\", W/\"b\""), TRICKLE);
    request.headers_mut().append("if-match", "\"c\"".parse().expect("valid"));
    assert_eq!(send(app(&fake), request).await.status, 204);
    let Some(Call::Patch(_, _, IfMatch::Tags(tags), _)) = fake.calls().pop() else {
        panic!("patched")
    };
    assert_eq!(tags, ["\"a\"", "W/\"b\"", "\"c\""]);
    let many = "\"a\",".repeat(17);
    let answer = send(app(&fake), patch(&session("whip"), Some(&many), TRICKLE)).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (400, "bad_if_match"));
}

#[tokio::test]
async fn a_patch_of_another_type_gets_415_that_names_the_right_one() {
    for content_type in [None, Some("application/sdp"), Some("application/json")] {
        let mut request = patch(&session("whep"), Some("*"), TRICKLE);
        request.headers_mut().remove("content-type");
        if let Some(content_type) = content_type {
            request.headers_mut().insert("content-type", content_type.parse().expect("valid"));
        }
        let answer = send(app(&Fake::default()), request).await;
        let found = (answer.status.as_u16(), answer.code());
        assert_eq!(found, (415, "unsupported_media_type".to_owned()), "{content_type:?}");
        assert_eq!(answer.header("accept-patch"), FRAGMENT);
    }
}

#[tokio::test]
async fn bad_fragments_are_4xx_and_never_quoted() {
    let large = "a=x\r\n".repeat(14_000);
    let two = "a=ice-ufrag:EsAw\r\na=ice-ufrag:EsAx\r\n";
    for (fragment, status, code) in [
        ("198.51.100.7 is no SDP", 400, "bad_sdp"),
        ("a=ice-ufrag:x 198.51.100.7\r\n", 400, "bad_sdp"),
        (two, 400, "bad_sdp"),
        (&large, 413, "sdp_too_large"),
    ] {
        let fake = Fake::default();
        let answer = send(app(&fake), patch(&session("whip"), Some("*"), fragment)).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
        assert!(!answer.body.contains("198.51"));
        assert!(fake.calls().is_empty(), "the session is left alone");
    }
}

#[tokio::test]
async fn each_refusal_of_a_patch_has_its_status() {
    for (refusal, status, code, retry) in [
        (Refusal::NotFound, 404, "session_not_found", false),
        (Refusal::StaleTag, 412, "stale_ice_session", false),
        (Refusal::BadRestart, 422, "bad_ice_restart", false),
        (Refusal::RestartsTooOften, 429, "ice_restarts_too_often", true),
    ] {
        let fake = Fake::refusing(refusal);
        let answer = send(app(&fake), patch(&session("whip"), Some("*"), &restart())).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
        assert_eq!(!answer.header("retry-after").is_empty(), retry, "{code}");
    }
}

#[tokio::test]
async fn a_patch_is_allowed_as_a_delete_is() {
    let path = session("whip");
    let with = |token: &str| {
        let mut request = patch(&path, Some("*"), TRICKLE);
        request.headers_mut().insert("authorization", token.parse().expect("valid"));
        request
    };
    let request = request_for(&["lobby/*"], &[]);
    let old = our_keys().mint(Unix::from_secs(NOW - 7_200), &request, "jti-1").expect("minted");
    for token in [format!("Bearer {}", lobby()), lobby(), format!("Bearer {old}")] {
        assert_eq!(send(app(&Fake::default()), with(&token)).await.status, 204);
    }
    let forged = keys("k1", b"somebody else's secret of 32 B...");
    let forged = forged.mint(Unix::from_secs(NOW), &request, "jti-1").expect("minted");
    let fake = Fake::default();
    let answer = send(app(&fake), with(&format!("Bearer {forged}"))).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "token_bad_signature"));
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_preflight_of_a_patch_is_answered_without_a_token() {
    let preflight = bare(
        "OPTIONS",
        &session("whip"),
        &[("origin", "https://app.example"), ("access-control-request-method", "PATCH")],
    );
    let answer = send(app(&Fake::default()), preflight).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("accept-patch"), FRAGMENT);
    assert!(answer.header("access-control-allow-methods").contains("PATCH"));
    assert!(answer.header("access-control-allow-headers").contains("If-Match"));
    assert!(answer.header("access-control-expose-headers").contains("ETag"));
}
