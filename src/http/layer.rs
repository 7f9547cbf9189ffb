//! `POST /whep/session/{id}/layer`: which layers a player wishes to get.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::problem::Problem;
use super::{Gateway, Shared, guard};
use crate::control::api::{MAX_LAYERS, MediaKind, Principal, Wish};

/// Longest body, in bytes.
const MAX_BODY: usize = 1_024;

/// What is wished; what is not said is the best there is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    track: Track,
    rid: Option<String>,
    spatial: Option<u8>,
    temporal: Option<u8>,
    #[serde(default)]
    paused: bool,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Track {
    Audio,
    #[default]
    Video,
}

impl From<Track> for MediaKind {
    fn from(track: Track) -> Self {
        match track {
            Track::Audio => Self::Audio,
            Track::Video => Self::Video,
        }
    }
}

pub(super) async fn wish<G: Gateway>(
    State(shared): State<Shared<G>>,
    resource: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let Path(resource) = resource.map_err(|_| Problem::not_found())?;
    let who = guard::closer(&shared, request.headers(), request.uri())?;
    let asked: Asked = read(request, shared.body_timeout).await?;
    let (track, wish) = understand(&shared, &resource, who.as_ref(), asked)?;
    shared.gateway.steer(&resource, who.as_ref(), track, wish)?;
    Ok(StatusCode::NO_CONTENT)
}

fn understand<G: Gateway>(
    shared: &Shared<G>,
    resource: &str,
    who: Option<&Principal>,
    asked: Asked,
) -> Result<(MediaKind, Wish), Problem> {
    let senseless = |detail: &str| Problem::senseless("bad_layer", detail);
    let track = asked.track.into();
    let layers = asked.rid.is_some() || asked.spatial.is_some() || asked.temporal.is_some();
    if track == MediaKind::Audio && layers {
        return Err(senseless("audio has no layers: only \"paused\" says something of it"));
    }
    if asked.rid.is_some() && asked.spatial.is_some() {
        return Err(senseless("\"rid\" and \"spatial\" say the same: give one of them"));
    }
    let highest = MAX_LAYERS as u8 - 1;
    if [asked.spatial, asked.temporal].into_iter().flatten().any(|layer| layer > highest) {
        return Err(senseless("\"spatial\" and \"temporal\" are 0 to 3"));
    }
    let named = asked.rid.map(|rid| shared.gateway.layer_called(resource, who, &rid)).transpose();
    let named = named.map_err(Problem::from)?;
    let spatial = named.or(asked.spatial);
    Ok((track, Wish { paused: asked.paused, spatial, temporal: asked.temporal }))
}

async fn read(request: Request, within: Duration) -> Result<Asked, Problem> {
    check_head(request.headers())?;
    let body = tokio::time::timeout(within, Bytes::from_request(request, &()))
        .await
        .map_err(|_| Problem::slow_body())?
        .map_err(|_| Problem::broken_body())?;
    if body.len() > MAX_BODY {
        return Err(large());
    }
    serde_json::from_slice(&body).map_err(|error| Problem::bad_json(error.to_string()))
}

fn check_head(headers: &HeaderMap) -> Result<(), Problem> {
    let header = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let essence = header(CONTENT_TYPE).and_then(|v| v.split(';').next()).unwrap_or_default();
    if !essence.trim().eq_ignore_ascii_case("application/json") {
        return Err(Problem::not_json());
    }
    let length = header(CONTENT_LENGTH).and_then(|v| v.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_BODY as u64) { Err(large()) } else { Ok(()) }
}

fn large() -> Problem {
    Problem::bad_json("a wish for layers has at most 1024 bytes".to_owned())
}

pub(super) async fn options() -> Response {
    (StatusCode::OK, [(ALLOW, "POST, OPTIONS")]).into_response()
}
