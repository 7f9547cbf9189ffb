//! `/v1/turn`: TURN credentials for whoever holds the admin key. The key is looked at before
//! anything else of a request.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::{Gateway, Shared};
use crate::auth::explain::{Explained, Question, hex};
use crate::auth::revocation::Target;
use crate::auth::turn::{Class, MAX_USERNAME, MintError, NEVER};
use crate::control::revocation::{Request as Revoke, What};
use crate::control::store::Record;
use crate::ids::StreamName;
use crate::time::Unix;

/// Longest body, in bytes.
const MAX_BODY: usize = 16 * 1024;
/// Longest subject, in bytes.
const MAX_SUBJECT: usize = 256;
/// Revocations in an answer unless it is asked for more or less,
const PAGE: u32 = 100;
/// and at most.
const LARGEST_PAGE: u32 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MintBody {
    subject: String,
    room: Option<String>,
    /// What it reaches: `forwarder` if it is left out, `room`, `external` or `probe`.
    class: Option<String>,
    /// Seconds.
    ttl: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyBody {
    username: String,
    subject: Option<String>,
    room: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeBody {
    username: Option<String>,
    subject: Option<String>,
    room: Option<String>,
    reason: Option<String>,
    /// Seconds since 1970.
    not_before: Option<u64>,
    /// Seconds since 1970.
    expires_at: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<u32>,
    before: Option<i64>,
}

/// One entry of `iceServers`, and when it ends.
#[derive(Serialize)]
struct IceServer {
    urls: Vec<String>,
    username: String,
    credential: String,
    ttl: u64,
    expires_at: u64,
}

#[derive(Serialize)]
struct Told {
    id: i64,
    kind: &'static str,
    hash: String,
    not_before: u64,
    /// Null: never.
    expires_at: Option<u64>,
    reason: Option<String>,
    made_at: u64,
}

#[derive(Serialize)]
struct List {
    revocations: Vec<Told>,
    /// What to give as `before` for the next page; null: there is none.
    next: Option<i64>,
}

impl From<Record> for Told {
    fn from(record: Record) -> Self {
        let (kind, hash) = match record.revocation.target {
            Target::Credential(id) => ("username", hex(&id.0)),
            Target::Subject(subject) => ("subject", hex(&subject.0)),
            Target::Room(room) => ("room", hex(&room.0)),
        };
        let expires = record.revocation.expires;
        Self {
            id: record.id,
            kind,
            hash,
            not_before: record.revocation.not_before.as_secs(),
            expires_at: (expires < NEVER).then(|| expires.as_secs()),
            reason: record.reason,
            made_at: record.made_at.as_secs(),
        }
    }
}

/// Whether the request carries the admin key.
fn authorise<G>(shared: &Shared<G>, headers: &HeaderMap) -> Result<(), Problem> {
    let key = shared.admin.as_ref().ok_or_else(Problem::no_admin_api)?;
    let value = headers.get(AUTHORIZATION).ok_or_else(Problem::no_admin_key)?;
    let value = value.to_str().map_err(|_| Problem::wrong_admin_key())?.trim();
    let (scheme, presented) = value.split_once(' ').ok_or_else(Problem::no_admin_key)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::no_admin_key());
    }
    if key.is(presented.trim()) { Ok(()) } else { Err(Problem::wrong_admin_key()) }
}

/// Whether a body follows that is worth reading.
fn check_head(headers: &HeaderMap) -> Result<(), Problem> {
    let header = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let essence = header(CONTENT_TYPE).and_then(|v| v.split(';').next()).unwrap_or_default();
    if !essence.trim().eq_ignore_ascii_case("application/json") {
        return Err(Problem::not_json());
    }
    let length = header(CONTENT_LENGTH).and_then(|v| v.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(Problem::large_json());
    }
    Ok(())
}

/// The JSON body.
async fn read<T: DeserializeOwned>(request: Request, within: Duration) -> Result<T, Problem> {
    check_head(request.headers())?;
    let body = tokio::time::timeout(within, Bytes::from_request(request, &()))
        .await
        .map_err(|_| Problem::slow_body())?
        .map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::large_json(),
            _ => Problem::broken_body(),
        })?;
    if body.len() > MAX_BODY {
        return Err(Problem::large_json());
    }
    serde_json::from_slice(&body).map_err(|error| Problem::bad_json(error.to_string()))
}

fn check_subject(subject: &str) -> Result<(), Problem> {
    if subject.is_empty() || subject.len() > MAX_SUBJECT {
        return Err(Problem::senseless("bad_subject", "a subject has 1 to 256 bytes"));
    }
    Ok(())
}

fn check_room(room: &str) -> Result<(), Problem> {
    StreamName::check_part(room).map_err(|e| Problem::senseless("bad_room", e.to_string()))
}

/// What a credential is to reach: the forwarder unless something else is named.
fn read_class(name: Option<&str>) -> Result<Class, Problem> {
    let Some(name) = name else { return Ok(Class::Forwarder) };
    // Not for users, but who has the admin key may watch over the gateway.
    let probe = (name == Class::Probe.name()).then_some(Class::Probe);
    probe.or_else(|| Class::from_name(name)).ok_or_else(|| {
        let detail = "a class is \"forwarder\", \"room\", \"external\" or \"probe\"";
        Problem::senseless("bad_class", detail)
    })
}

fn check_username(username: &str) -> Result<(), Problem> {
    if username.is_empty() || username.len() > MAX_USERNAME {
        let detail = format!("a username has 1 to {MAX_USERNAME} bytes");
        return Err(Problem::senseless("bad_username", detail));
    }
    Ok(())
}

/// An answer that nobody may keep: it is secret, or soon not true any more.
fn answer(status: StatusCode, body: impl Serialize) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

/// `POST /v1/turn/credentials`.
pub(super) async fn mint<G: Gateway>(
    State(shared): State<Shared<G>>,
    request: Request,
) -> Result<Response, Problem> {
    authorise(&shared, request.headers())?;
    let body: MintBody = read(request, shared.body_timeout).await?;
    check_subject(&body.subject)?;
    body.room.as_deref().map_or(Ok(()), check_room)?;
    let class = read_class(body.class.as_deref())?;
    let ttl = body.ttl.map(Duration::from_secs);
    let minted = shared.gateway.mint(&body.subject, body.room.as_deref(), class, ttl);
    let ice = minted.map_err(|error| match error {
        MintError::NoRoom => Problem::senseless("room_missing", error.to_string()),
        MintError::ClassOff => Problem::senseless("class_off", error.to_string()),
        _ => Problem::senseless("bad_ttl", error.to_string()),
    })?;
    let server = IceServer {
        urls: ice.urls,
        username: ice.username,
        credential: ice.credential,
        ttl: ice.ttl,
        expires_at: ice.expires_at,
    };
    Ok(answer(StatusCode::OK, server))
}

/// `POST /v1/turn/credentials/verify`. A name that does not hold is an answer, not an error.
pub(super) async fn verify<G: Gateway>(
    State(shared): State<Shared<G>>,
    request: Request,
) -> Result<Response, Problem> {
    authorise(&shared, request.headers())?;
    let body: VerifyBody = read(request, shared.body_timeout).await?;
    let question = Question {
        username: &body.username,
        subject: body.subject.as_deref(),
        room: body.room.as_deref(),
    };
    let explained: Explained = shared.gateway.explain(question);
    Ok(answer(StatusCode::OK, explained))
}

/// `POST /v1/turn/revocations`.
pub(super) async fn revoke<G: Gateway>(
    State(shared): State<Shared<G>>,
    request: Request,
) -> Result<Response, Problem> {
    authorise(&shared, request.headers())?;
    let body: RevokeBody = read(request, shared.body_timeout).await?;
    let what = match (body.username, body.subject, body.room) {
        (Some(username), None, None) => {
            check_username(&username)?;
            What::Username(username)
        }
        (None, Some(subject), None) => {
            check_subject(&subject)?;
            What::Subject(subject)
        }
        (None, None, Some(room)) => {
            check_room(&room)?;
            What::Room(room)
        }
        _ => {
            let detail = "give one of username, subject and room";
            return Err(Problem::senseless("bad_revocation", detail));
        }
    };
    let request = Revoke {
        what,
        reason: body.reason,
        not_before: body.not_before.map(Unix::from_secs).map(|at| at.min(NEVER)),
        expires: body.expires_at.map(Unix::from_secs).map(|at| at.min(NEVER)),
    };
    let record = shared.gateway.revoke(request).await?;
    Ok(answer(StatusCode::CREATED, Told::from(record)))
}

/// `GET /v1/turn/revocations`: those in force, the newest first.
pub(super) async fn revocations<G: Gateway>(
    State(shared): State<Shared<G>>,
    headers: HeaderMap,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, Problem> {
    authorise(&shared, &headers)?;
    let detail = "the query is: limit=1…1000 and before=<id>, both optional";
    let Query(page) = page.map_err(|_| Problem::bad_query(detail))?;
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Problem::bad_query(detail));
    }
    let records = shared.gateway.revocations(page.before, limit).await?;
    let full = records.len() as u64 == u64::from(limit);
    let next = records.last().map(|record| record.id).filter(|_| full);
    let revocations = records.into_iter().map(Told::from).collect();
    Ok(answer(StatusCode::OK, List { revocations, next }))
}
