//! `/v1/turn` behind the admin key, each status from outside.

mod http_support;

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_support::*;
use veilgate::auth::turn::{Class, Refused};
use veilgate::control::revocation::{RevokeError, What};
use veilgate::control::store::StoreError;
use veilgate::time::Unix;

const PATHS: [&str; 3] =
    ["/v1/turn/credentials", "/v1/turn/credentials/verify", "/v1/turn/revocations"];

fn request(path: &str, key: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(body.into())
        .expect("a good request")
}

async fn ask(fake: &Fake, path: &str, body: &str) -> Answer {
    send(admin_app(fake), request(path, ADMIN_KEY, body.to_owned())).await
}

fn json(answer: &Answer) -> serde_json::Value {
    assert_eq!(answer.header("content-type"), "application/json", "{}", answer.body);
    assert_eq!(answer.header("cache-control"), "no-store");
    serde_json::from_str(&answer.body).expect("JSON")
}

#[tokio::test]
async fn a_missing_key_is_401_and_a_wrong_one_403() {
    let fake = Fake::default();
    for path in PATHS {
        let answer = send(admin_app(&fake), bare("POST", path, &[])).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::UNAUTHORIZED, "admin_key_missing")
        );
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{path}");
        for scheme in ["Basic eDp5", ADMIN_KEY] {
            let answer = send(admin_app(&fake), bare("POST", path, &[("authorization", scheme)]));
            assert_eq!(answer.await.code(), "admin_key_missing", "{scheme}");
        }
        for wrong in ["x", &ADMIN_KEY[1..], &lobby()] {
            let answer = send(admin_app(&fake), request(path, wrong, "{}")).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (StatusCode::FORBIDDEN, "admin_key_wrong")
            );
        }
    }
    let answer = send(admin_app(&fake), bare("GET", "/v1/turn/revocations", &[])).await;
    assert_eq!(answer.code(), "admin_key_missing");
    assert_eq!(fake.calls(), []);
}

#[tokio::test]
async fn without_a_configured_key_the_api_is_closed() {
    let fake = Fake::default();
    for path in PATHS {
        let answer = send(app(&fake), request(path, ADMIN_KEY, "{}")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::NOT_FOUND, "admin_api_closed")
        );
    }
}

#[tokio::test]
async fn credentials_are_minted_for_any_subject() {
    let fake = Fake::default();
    let body = r#"{"subject":"user-42","room":"lobby","ttl":90}"#;
    let answer = ask(&fake, PATHS[0], body).await;
    assert_eq!(answer.status, StatusCode::OK);
    let entry = json(&answer);
    let mut names: Vec<_> = entry.as_object().expect("an object").keys().collect();
    names.sort_unstable();
    assert_eq!(names, ["credential", "expires_at", "ttl", "urls", "username"]);
    let (subject, room) = ("user-42".to_owned(), Some("lobby".to_owned()));
    let ttl = Some(Duration::from_secs(90));
    assert_eq!(fake.calls(), [Call::Mint(subject, room, Class::Forwarder, ttl)]);
    assert_eq!(answer.header("access-control-allow-origin"), "", "no page may call");
    for (body, code) in [
        (r#"{"subject":""}"#.to_owned(), "bad_subject"),
        (format!(r#"{{"subject":"{}"}}"#, "x".repeat(257)), "bad_subject"),
        (r#"{"subject":"a","room":"a/b"}"#.to_owned(), "bad_room"),
        (r#"{"subject":"a","ttl":0}"#.to_owned(), "bad_ttl"),
        (r#"{"subject":"a","class":"external"}"#.to_owned(), "class_off"),
        (r#"{"subject":"a","class":"world"}"#.to_owned(), "bad_class"),
        (r#"{"subject":"a","class":"room"}"#.to_owned(), "room_missing"),
        (r#"{"subject":"a","class":"Room","room":"lobby"}"#.to_owned(), "bad_class"),
    ] {
        let answer = ask(&fake, PATHS[0], &body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, code));
    }
}

#[tokio::test]
async fn credentials_of_class_room_are_minted_for_a_room() {
    let fake = Fake::default();
    let body = r#"{"subject":"user-42","room":"lobby","class":"room"}"#;
    assert_eq!(ask(&fake, PATHS[0], body).await.status, StatusCode::OK);
    let call = Call::Mint("user-42".to_owned(), Some("lobby".to_owned()), Class::Room, None);
    assert_eq!(fake.calls(), [call]);
}

#[tokio::test]
async fn credentials_of_class_probe_are_minted_for_the_admin_key() {
    let fake = Fake::default();
    let body = r#"{"subject":"watch","class":"probe"}"#;
    assert_eq!(ask(&fake, PATHS[0], body).await.status, StatusCode::OK);
    assert_eq!(fake.calls(), [Call::Mint("watch".to_owned(), None, Class::Probe, None)]);
}

#[tokio::test]
async fn bodies_that_are_not_the_json_described_are_refused() {
    let fake = Fake::default();
    for path in PATHS {
        for body in ["", "{", "[]", r#"{"subjct":"a"}"#, r#"{"subject":5,"username":5}"#] {
            let answer = ask(&fake, path, body).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (400, "bad_json"),
                "{body}"
            );
        }
        let text = bare("POST", path, &[("authorization", &format!("Bearer {ADMIN_KEY}"))]);
        let answer = send(admin_app(&fake), text).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (415, "unsupported_media_type")
        );
        for size in [16 * 1024 + 1, 200_000] {
            let answer = ask(&fake, path, &" ".repeat(size)).await;
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (413, "body_too_large"));
        }
        let answer = send(admin_app(&fake), bare("DELETE", path, &[])).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (405, "method_not_allowed"));
    }
    assert_eq!(fake.calls(), []);
}

#[tokio::test]
async fn a_name_that_does_not_hold_is_an_answer() {
    let fake = Fake::default();
    let answer = ask(&fake, PATHS[1], r#"{"username":"1:k.x","subject":"a"}"#).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(json(&answer), serde_json::json!({"valid": false, "reason": "revoked"}));
    let call = Call::Explain("1:k.x".to_owned(), Some("a".to_owned()), None);
    assert_eq!(fake.calls(), [call]);
}

#[tokio::test]
async fn revocations_are_made_and_told() {
    let fake = Fake::default();
    let body = r#"{"subject":"alice","reason":"gone","not_before":5,"expires_at":6}"#;
    let answer = ask(&fake, PATHS[2], body).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let made = json(&answer);
    assert_eq!(
        (&made["id"], &made["kind"], &made["reason"]),
        (&7.into(), &"subject".into(), &"gone".into())
    );
    assert_eq!((&made["not_before"], &made["expires_at"]), (&NOW.into(), &(NOW + 60).into()));
    let (what, reason) = (What::Subject("alice".to_owned()), Some("gone".to_owned()));
    let (from, to) = (Some(Unix::from_secs(5)), Some(Unix::from_secs(6)));
    assert_eq!(fake.calls(), [Call::Revoke(what, reason, from, to)]);
    for (body, code) in [
        ("{}", "bad_revocation"),
        (r#"{"subject":"a","room":"b"}"#, "bad_revocation"),
        (r#"{"username":""}"#, "bad_username"),
        (r#"{"room":".."}"#, "bad_room"),
    ] {
        let answer = ask(&fake, PATHS[2], body).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (422, code), "{body}");
    }
}

#[tokio::test]
async fn each_failure_of_the_store_has_its_status_and_tells_no_path() {
    let fake = Fake::default();
    for (error, status, code) in [
        (StoreError::DiskFull.into(), 507, "store_full"),
        (StoreError::TooMany.into(), 507, "too_many_revocations"),
        (StoreError::Busy.into(), 503, "store_busy"),
        (StoreError::InUse("/secret/place".into()).into(), 500, "store_failed"),
        (RevokeError::NoCredential(Refused::Forged), 422, "not_a_credential"),
        (RevokeError::Senseless("no"), 422, "bad_revocation"),
    ] {
        *fake.store.lock().expect("not poisoned") = Some(error);
        let answer = ask(&fake, PATHS[2], r#"{"subject":"a"}"#).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code));
        assert!(!answer.body.contains("/secret"), "{}", answer.body);
    }
}

#[tokio::test]
async fn revocations_in_force_are_listed_page_by_page() {
    let fake = Fake::default();
    let get = async |query: &str| {
        let path = format!("/v1/turn/revocations{query}");
        let key = format!("Bearer {ADMIN_KEY}");
        send(admin_app(&fake), bare("GET", &path, &[("authorization", &key)])).await
    };
    let all = json(&get("").await);
    assert_eq!(all["revocations"].as_array().expect("a list").len(), 3);
    assert_eq!(all["next"], serde_json::Value::Null);
    assert_eq!(all["revocations"][0]["expires_at"], serde_json::Value::Null, "never");
    let page = json(&get("?limit=2&before=12").await);
    assert_eq!(page["next"], 8);
    assert_eq!(fake.calls(), [Call::Revocations(None, 100), Call::Revocations(Some(12), 2)]);
    for query in ["?limit=0", "?limit=1001", "?limit=x", "?before=x", "?page=2"] {
        assert_eq!(get(query).await.code(), "bad_query", "{query}");
    }
}
