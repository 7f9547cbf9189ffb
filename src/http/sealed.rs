//! `/v1/sealed/{room}`: where the two pages of a sealed call leave their descriptions for each
//! other. `POST` takes a seat; on the seat `POST` tells its own SDP, `GET` waits for the other's
//! (or, with `until=over`, for the end), `DELETE` leaves.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::whip::{SDP, read_offer};
use super::{Gateway, Shared, guard};
use crate::auth::token::Grant;
use crate::control::sealed::{LONGEST_WAIT, Refusal, Role};
use crate::ids::StreamName;

type Room = Result<Path<String>, PathRejection>;
type Place = Result<Path<(String, String)>, PathRejection>;

#[derive(Serialize)]
struct Joined<'a> {
    role: &'static str,
    seat: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patience {
    /// Seconds.
    wait: Option<u64>,
    until: Option<String>,
    /// Read by the guard.
    #[serde(rename = "access_token")]
    _token: Option<IgnoredAny>,
}

/// The token's grant, if it is for everything in the room.
pub(super) fn grant<G: Gateway>(
    shared: &Shared<G>,
    headers: &HeaderMap,
    uri: &Uri,
    room: &str,
) -> Result<Grant, Problem> {
    let grant = guard::grant(shared, headers, uri)?;
    StreamName::check_part(room).map_err(|e| Problem::bad_name(e.to_string()))?;
    if grant.may_seal(room) {
        return Ok(grant);
    }
    let detail = format!("a sealed call takes a token that may publish and play {room}/*");
    Err(Problem::not_granted(detail))
}

/// `POST /v1/sealed/{room}`: the first one offers, the second one answers.
pub(super) async fn join<G: Gateway>(
    State(shared): State<Shared<G>>,
    room: Room,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let Path(room) = room.map_err(|_| Problem::not_found())?;
    let grant = grant(&shared, &headers, &uri, &room)?;
    if !shared.gateway.ready() {
        return Err(crate::control::api::Refusal::Draining.into());
    }
    let seat = shared.gateway.sealed().join(&room, &guard::principal(&grant))?;
    let role = match seat.role {
        Role::Offerer => "offerer",
        Role::Answerer => "answerer",
    };
    let location = format!("/v1/sealed/{room}/{}", seat.resource);
    let body = Json(Joined { role, seat: &location });
    let headers = [(LOCATION, location.clone()), (CACHE_CONTROL, "no-store".to_owned())];
    Ok((StatusCode::CREATED, headers, body).into_response())
}

/// `POST` on a seat: what this side says of itself.
pub(super) async fn describe<G: Gateway>(
    State(shared): State<Shared<G>>,
    place: Place,
    request: Request,
) -> Result<StatusCode, Problem> {
    let Path((room, seat)) = place.map_err(|_| Problem::not_found())?;
    let grant = grant(&shared, request.headers(), request.uri(), &room)?;
    let who = guard::principal(&grant);
    let sdp = read_offer(request, shared.body_timeout).await?;
    let (sifted, done) = shared.gateway.sealed().describe(&room, &seat, &who, &sdp);
    if let Some(metrics) = &shared.metrics {
        metrics.on_sealed_candidates(sifted.kept, sifted.not_relayed, sifted.foreign);
    }
    done?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET` on a seat: what the other side says of itself, as soon as it has. With `until=over`: 204
/// as long as the call goes on, 404 as soon as it does not.
pub(super) async fn other<G: Gateway>(
    State(shared): State<Shared<G>>,
    place: Place,
    patience: Result<Query<Patience>, QueryRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let Path((room, seat)) = place.map_err(|_| Problem::not_found())?;
    let grant = grant(&shared, &headers, &uri, &room)?;
    let detail = "the query is: wait=0…15, in seconds, and until=over, both optional";
    let Query(patience) = patience.map_err(|_| Problem::bad_query(detail))?;
    let wait = patience.wait.map_or(LONGEST_WAIT, Duration::from_secs);
    let over = patience.until.is_some();
    if wait > LONGEST_WAIT || patience.until.is_some_and(|until| until != "over") {
        return Err(Problem::bad_query(detail));
    }
    let who = guard::principal(&grant);
    let sealed = shared.gateway.sealed();
    let said = if over {
        sealed.goes_on(&room, &seat, &who, wait).await?;
        None
    } else {
        sealed.other(&room, &seat, &who, wait).await?
    };
    let no_store = (CACHE_CONTROL, "no-store");
    Ok(match said {
        Some(sdp) => ([(CONTENT_TYPE, SDP), no_store], sdp.to_string()).into_response(),
        None => (StatusCode::NO_CONTENT, [(RETRY_AFTER, "1"), no_store]).into_response(),
    })
}

/// `DELETE` on a seat: done when it is gone, whoever ended the call and when.
pub(super) async fn leave<G: Gateway>(
    State(shared): State<Shared<G>>,
    place: Place,
    headers: HeaderMap,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    let Path((room, seat)) = place.map_err(|_| Problem::not_found())?;
    let who = guard::closer(&shared, &headers, &uri)?;
    match shared.gateway.sealed().leave(&room, &seat, who.as_ref()) {
        Ok(()) | Err(Refusal::NoSeat) => Ok(StatusCode::OK),
        Err(refusal) => Err(refusal.into()),
    }
}

pub(super) async fn room_options() -> Response {
    (StatusCode::OK, [(ALLOW, "POST, OPTIONS")]).into_response()
}

pub(super) async fn seat_options() -> Response {
    (StatusCode::OK, [(ALLOW, "GET, HEAD, POST, DELETE, OPTIONS")]).into_response()
}
