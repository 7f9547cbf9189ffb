//! WHIP (RFC 9725) and WHEP: an offer posted, an answer back, a session to patch and delete.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
    IF_MATCH, LOCATION,
};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::{Gateway, Shared, guard, ice};
use crate::control::api::{Accepted, Principal};
use crate::control::restart::{IfMatch, Patched, entity_tag};
use crate::ids::StreamName;
use crate::wire::sdp::{Fragment, MAX_SDP};

pub(super) const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
/// An `If-Match` with more entity tags than this is refused unread.
const MAX_TAGS: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Whip,
    Whep,
}

impl Endpoint {
    const fn path(self) -> &'static str {
        match self {
            Self::Whip => "/whip/session/",
            Self::Whep => "/whep/session/",
        }
    }
}

type Names = Result<Path<(String, String)>, PathRejection>;
type Tail = Result<Path<String>, PathRejection>;

pub(super) async fn publish<G: Gateway>(
    State(shared): State<Shared<G>>,
    names: Names,
    request: Request,
) -> Result<Response, Problem> {
    let Path((room, stream)) = names.map_err(|_| Problem::not_found())?;
    post(shared, Endpoint::Whip, &room, &stream, request).await
}

pub(super) async fn play<G: Gateway>(
    State(shared): State<Shared<G>>,
    names: Names,
    request: Request,
) -> Result<Response, Problem> {
    let Path((room, stream)) = names.map_err(|_| Problem::not_found())?;
    post(shared, Endpoint::Whep, &room, &stream, request).await
}

/// `POST /whip/session/{stream}`: the stream of a room that is called "session".
pub(super) async fn publish_in_session<G: Gateway>(
    State(shared): State<Shared<G>>,
    stream: Tail,
    request: Request,
) -> Result<Response, Problem> {
    let Path(stream) = stream.map_err(|_| Problem::not_found())?;
    post(shared, Endpoint::Whip, "session", &stream, request).await
}

/// As [`publish_in_session`], for a player.
pub(super) async fn play_in_session<G: Gateway>(
    State(shared): State<Shared<G>>,
    stream: Tail,
    request: Request,
) -> Result<Response, Problem> {
    let Path(stream) = stream.map_err(|_| Problem::not_found())?;
    post(shared, Endpoint::Whep, "session", &stream, request).await
}

async fn post<G: Gateway>(
    shared: Shared<G>,
    endpoint: Endpoint,
    room: &str,
    stream: &str,
    request: Request,
) -> Result<Response, Problem> {
    let grant = guard::grant(&shared, request.headers(), request.uri())?;
    let name: StreamName = format!("{room}/{stream}")
        .parse()
        .map_err(|e: crate::ids::NameError| Problem::bad_name(e.to_string()))?;
    let (granted, verb) = match endpoint {
        Endpoint::Whip => (grant.may_publish(&name), "publishing"),
        Endpoint::Whep => (grant.may_play(&name), "playing"),
    };
    if !granted {
        return Err(Problem::not_granted(format!("the token does not allow {verb} {name}")));
    }
    let who = guard::principal(&grant);
    let offer = read_offer(request, shared.body_timeout).await?;
    let accepted = match endpoint {
        Endpoint::Whip => shared.gateway.publish(name, &who, &offer).await?,
        Endpoint::Whep => shared.gateway.play(name, &who, &offer).await?,
    };
    Ok(created(&shared, endpoint, &who, accepted))
}

pub(super) async fn read_offer(request: Request, within: Duration) -> Result<String, Problem> {
    if !is_of_type(request.headers(), SDP) {
        return Err(Problem::not_sdp());
    }
    read_text(request, within).await
}

fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let essence = content_type.and_then(|v| v.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(wanted)
}

async fn read_text(request: Request, within: Duration) -> Result<String, Problem> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    if length.and_then(|v| v.parse::<u64>().ok()).is_some_and(|length| length > MAX_SDP as u64) {
        return Err(Problem::large_body());
    }
    let body = tokio::time::timeout(within, Bytes::from_request(request, &()))
        .await
        .map_err(|_| Problem::slow_body())?
        .map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::large_body(),
            _ => Problem::broken_body(),
        })?;
    String::from_utf8(body.into()).map_err(|_| Problem::bad_sdp("the body is not UTF-8 text"))
}

fn created<G: Gateway>(
    shared: &Shared<G>,
    endpoint: Endpoint,
    who: &Principal,
    accepted: Accepted,
) -> Response {
    let location = format!("{}{}", endpoint.path(), accepted.resource);
    let headers = [
        (CONTENT_TYPE, SDP.to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (LOCATION, location),
        (ETAG, entity_tag(&accepted.resource, 0)),
    ];
    let mut response = (StatusCode::CREATED, headers, accepted.answer).into_response();
    // The client has its relay by now; the fresh credential is for its next ICE restart.
    if let Ok(config) = shared.gateway.ice_config(who) {
        ice::link(response.headers_mut(), &config);
    }
    response
}

/// `PATCH`: candidates, or an ICE restart (RFC 9725 section 4.3).
pub(super) async fn patch<G: Gateway>(
    State(shared): State<Shared<G>>,
    resource: Tail,
    request: Request,
) -> Result<Response, Problem> {
    let Path(resource) = resource.map_err(|_| Problem::not_found())?;
    let who = guard::closer(&shared, request.headers(), request.uri())?;
    if !is_of_type(request.headers(), FRAGMENT) {
        return Err(Problem::not_fragment());
    }
    let expected = if_match(request.headers())?;
    let fragment = read_text(request, shared.body_timeout).await?;
    let fragment = Fragment::parse(&fragment).map_err(|e| Problem::bad_sdp(&e.to_string()))?;
    let patched = shared.gateway.patch(&resource, who.as_ref(), &expected, &fragment).await?;
    if let Some(metrics) = &shared.metrics {
        let of = fragment.candidates;
        metrics.on_trickled_candidates([of.host, of.reflexive, of.relay, of.unknown]);
    }
    Ok(match patched {
        Patched::Trickled => StatusCode::NO_CONTENT.into_response(),
        Patched::Restarted { fragment, tag } => {
            let headers = [
                (CONTENT_TYPE, FRAGMENT.to_owned()),
                (CACHE_CONTROL, "no-store".to_owned()),
                (ETAG, tag),
            ];
            (StatusCode::OK, headers, fragment).into_response()
        }
    })
}

/// What is no entity tag matches nothing; a weak one never does (RFC 9110 section 8.8.3.2).
fn if_match(headers: &HeaderMap) -> Result<IfMatch, Problem> {
    let mut tags = Vec::new();
    for value in headers.get_all(IF_MATCH) {
        let items = value.to_str().unwrap_or_default().split(',').map(str::trim);
        for item in items.filter(|item| !item.is_empty()) {
            // Quoted, as the RFC's own example once had it: clients followed that.
            if matches!(item, "*" | "\"*\"") {
                return Ok(IfMatch::Any);
            }
            if tags.len() == MAX_TAGS {
                return Err(Problem::many_tags());
            }
            tags.push(item.to_owned());
        }
    }
    if tags.is_empty() { Err(Problem::no_tag()) } else { Ok(IfMatch::Tags(tags)) }
}

/// `GET` and `HEAD` of an endpoint: nothing is there, and that is no error. For a player the
/// content type tells that offers are taken (WHEP section 4.2).
pub(super) async fn look<G: Gateway>(
    State(shared): State<Shared<G>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    guard::grant(&shared, &headers, &uri)?;
    let answer = [(CONTENT_TYPE, SDP), (ACCEPT_POST, SDP), (CACHE_CONTROL, "no-store")];
    Ok((StatusCode::OK, answer).into_response())
}

/// `GET` and `HEAD` of a session, live or not: nothing is told.
pub(super) async fn look_at_session<G: Gateway>(
    State(shared): State<Shared<G>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    guard::closer(&shared, &headers, &uri)?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE`: done when the session is gone, whoever ended it and when.
pub(super) async fn close<G: Gateway>(
    State(shared): State<Shared<G>>,
    resource: Tail,
    headers: HeaderMap,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    let Path(resource) = resource.map_err(|_| Problem::not_found())?;
    let who = guard::closer(&shared, &headers, &uri)?;
    // A foreign or bygone resource answers like a fresh one: it tells nothing.
    match shared.gateway.close(&resource, who.as_ref()).await {
        Ok(()) | Err(crate::control::api::Refusal::NotFound) => Ok(StatusCode::OK),
        Err(refusal) => Err(refusal.into()),
    }
}

/// `OPTIONS` of an endpoint: what may be posted and, to a token's holder outside a preflight,
/// the ICE servers (RFC 9725 section 4.6).
pub(super) async fn endpoint<G: Gateway>(
    State(shared): State<Shared<G>>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let answer =
        [(ACCEPT_POST, SDP), (ALLOW, "GET, HEAD, POST, OPTIONS"), (CACHE_CONTROL, "no-store")];
    let mut response = (StatusCode::OK, answer).into_response();
    if !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        && let Ok(grant) = guard::grant(&shared, &headers, &uri)
        && let Ok(config) = shared.gateway.ice_config(&guard::principal(&grant))
    {
        ice::link(response.headers_mut(), &config);
    }
    response
}

/// `OPTIONS` of a session.
pub(super) async fn resource() -> Response {
    let allow = (ALLOW, "GET, HEAD, PATCH, DELETE, OPTIONS");
    (StatusCode::OK, [allow, (ACCEPT_PATCH, FRAGMENT)]).into_response()
}
