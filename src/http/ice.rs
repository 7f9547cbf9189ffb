//! `GET /v1/ice`: an `RTCConfiguration`, and the same as `Link` headers for WHIP.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, LINK};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::problem::Problem;
use super::{Gateway, Shared, guard, sealed};
use crate::auth::turn::Class;
use crate::control::api::IceConfig;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    class: Option<String>,
    room: Option<String>,
    /// Read by the guard.
    #[serde(rename = "access_token")]
    _token: Option<IgnoredAny>,
}

/// A ready `RTCConfiguration` with a fresh credential, for the holder of any valid token.
pub(super) async fn configuration<G: Gateway>(
    State(shared): State<Shared<G>>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let grant = guard::grant(&shared, &headers, &uri)?;
    let detail = "the query is: class=room and room=<room>, both optional";
    let Query(wanted) = wanted.map_err(|_| Problem::bad_query(detail))?;
    let class = wanted.class.as_deref().map_or(Some(Class::Forwarder), Class::from_name);
    let ice = match class {
        Some(Class::Forwarder) => shared.gateway.ice_config(&guard::principal(&grant))?,
        Some(Class::Room) => {
            let room = wanted.room.as_deref().or_else(|| grant.room());
            let room = room.ok_or_else(|| {
                let detail = "which room? The token is for several: add room=<room> to the query";
                Problem::senseless("room_missing", detail)
            })?;
            let grant = sealed::grant(&shared, &headers, &uri, room)?;
            let minted = shared.gateway.mint(&grant.subject, Some(room), Class::Room, None);
            minted.map_err(|error| Problem::senseless("bad_ttl", error.to_string()))?
        }
        // Never for whoever has a token of a page.
        Some(Class::Probe | Class::External) | None => {
            let detail = "a class is \"forwarder\" or \"room\"";
            return Err(Problem::senseless("bad_class", detail));
        }
    };
    Ok(([(CACHE_CONTROL, "no-store")], Json(ice.rtc_configuration())).into_response())
}

pub(super) async fn options() -> Response {
    (StatusCode::OK, [(ALLOW, "GET, HEAD, OPTIONS")]).into_response()
}

/// RFC 9725 section 4.6: one `Link` a URL.
pub(super) fn link(headers: &mut HeaderMap, ice: &IceConfig) {
    let (username, credential) = (quoted(&ice.username), quoted(&ice.credential));
    for url in &ice.urls {
        let link = format!(
            "<{url}>; rel=\"ice-server\"; username={username}; credential={credential}; \
             credential-type=\"password\""
        );
        if let Ok(link) = HeaderValue::from_str(&link) {
            headers.append(LINK, link);
        }
    }
}

/// `quoted-string` of RFC 9110 section 5.6.4.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
