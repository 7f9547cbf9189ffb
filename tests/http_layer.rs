//! `POST /whep/session/{id}/layer`: what a player wishes, and what makes no sense.

mod http_support;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_support::*;
use serde_json::{Value, json};
use veilgate::control::api::{MediaKind, Refusal, Wish};

fn wish(resource: &str, token: Option<&str>, body: &str) -> Request<Body> {
    let mut request = Request::post(format!("/whep/session/{resource}/layer"))
        .header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::from(body.to_owned())).expect("a good request")
}

async fn answer(body: &Value) -> (StatusCode, String) {
    let fake = Fake::default();
    let answer = send(app(&fake), wish(RESOURCE, None, &body.to_string())).await;
    let code = if answer.status.is_success() { String::new() } else { answer.code() };
    (answer.status, code)
}

#[tokio::test]
async fn a_wish_is_passed_on_and_answered_204() {
    let any = Wish::default();
    for (body, track, expected) in [
        (json!({}), MediaKind::Video, any),
        (json!({"track": "video", "rid": "h"}), MediaKind::Video, Wish { spatial: Some(1), ..any }),
        (
            json!({"spatial": 2, "temporal": 0}),
            MediaKind::Video,
            Wish { spatial: Some(2), temporal: Some(0), paused: false },
        ),
        (json!({"track": "audio", "paused": true}), MediaKind::Audio, Wish { paused: true, ..any }),
    ] {
        let fake = Fake::default();
        let answer = send(app(&fake), wish(RESOURCE, None, &body.to_string())).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.body);
        assert_eq!(fake.calls(), [Call::Steer(RESOURCE.to_owned(), None, track, expected)]);
    }
}

#[tokio::test]
async fn who_wishes_is_whom_the_token_names() {
    let fake = Fake::default();
    let answer = send(app(&fake), wish(RESOURCE, Some(&lobby()), "{}")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let calls = fake.calls();
    let [Call::Steer(_, Some(who), ..)] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!(who.subject, "user-42");
    let answer = send(app(&fake), wish(RESOURCE, Some("forged"), "{}")).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn nonsense_gets_a_problem_that_says_what_is_wrong() {
    for (body, code) in [
        (json!({"rid": "zzz"}), "no_layer"),
        (json!({"rid": "h", "spatial": 1}), "bad_layer"),
        (json!({"spatial": 4}), "bad_layer"),
        (json!({"temporal": 9}), "bad_layer"),
        (json!({"track": "audio", "spatial": 0}), "bad_layer"),
    ] {
        assert_eq!(answer(&body).await, (StatusCode::UNPROCESSABLE_ENTITY, code.into()), "{body}");
    }
    for body in [
        json!({"track": "smell"}),
        json!({"spatial": -1}),
        json!({"spatial": 300}),
        json!({"paused": "yes"}),
        json!({"layer": 1}),
        json!([]),
        json!({"rid": "x".repeat(2000)}),
    ] {
        assert_eq!(answer(&body).await, (StatusCode::BAD_REQUEST, "bad_json".into()), "{body}");
    }
    let fake = Fake::default();
    let plain = Request::post(format!("/whep/session/{RESOURCE}/layer"));
    let plain = plain.body(Body::from("{}")).expect("a good request");
    let answer = send(app(&fake), plain).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(fake.calls().is_empty());
}

#[tokio::test]
async fn a_foreign_session_is_404_and_one_that_is_not_connected_409() {
    let fake = Fake::default();
    let answer = send(app(&fake), wish("another", None, "{}")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::NOT_FOUND, "session_not_found")
    );
    let fake = Fake::refusing(Refusal::NotConnected);
    let answer = send(app(&fake), wish(RESOURCE, None, "{}")).await;
    assert_eq!((answer.status, answer.code().as_str()), (StatusCode::CONFLICT, "not_connected"));
    assert_eq!(answer.header("retry-after"), "2");
    let fake = Fake::refusing(Refusal::NoTrack);
    let answer = send(app(&fake), wish(RESOURCE, None, "{}")).await;
    assert_eq!(answer.code(), "no_track");
}

#[tokio::test]
async fn other_methods_are_refused() {
    let fake = Fake::default();
    let path = format!("/whep/session/{RESOURCE}/layer");
    let answer = send(app(&fake), bare("GET", &path, &[])).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    let answer = send(app(&fake), bare("OPTIONS", &path, &[])).await;
    assert_eq!((answer.status, answer.header("allow")), (StatusCode::OK, "POST, OPTIONS"));
}
