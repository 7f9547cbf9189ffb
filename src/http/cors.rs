//! Which pages of other origins may call.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;

use super::Config;

/// Which other origins' pages may call. Without cookies the token is the whole permission, so
/// this narrows who can use a stolen token from a browser, and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origins {
    /// All.
    Any,
    /// These, as in the `Origin` header: `https://app.example`.
    Listed(Vec<String>),
    /// Only our own page.
    SameOrigin,
}

/// Whether a page may open a WebSocket, which CORS does not ask for: any of ours and those listed,
/// and whoever is no browser.
pub(super) fn may_call(origins: &Origins, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN).map(HeaderValue::as_bytes) else { return true };
    let own = headers.get(HOST).is_some_and(|host| {
        let host = host.as_bytes();
        origin.strip_prefix(b"https://").is_some_and(|origin| origin.eq_ignore_ascii_case(host))
    });
    match origins {
        Origins::Any => true,
        Origins::SameOrigin => own,
        Origins::Listed(listed) => own || listed.iter().any(|known| known.as_bytes() == origin),
    }
}

pub(super) async fn answer(
    State(config): State<Arc<Config>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let preflight = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let allowed = match &config.origins {
        Origins::Any => Some(HeaderValue::from_static("*")),
        Origins::SameOrigin => None,
        Origins::Listed(listed) => {
            headers.append(VARY, HeaderValue::from_static("Origin"));
            origin.filter(|origin| listed.iter().any(|known| known.as_bytes() == origin.as_bytes()))
        }
    };
    if let Some(allowed) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        let exposed = HeaderValue::from_static(
            "Location, Link, ETag, Retry-After, WWW-Authenticate, Accept-Post, Accept-Patch",
        );
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        if preflight {
            for (name, value) in [
                (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PATCH, DELETE, OPTIONS"),
                (ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, If-Match"),
                (ACCESS_CONTROL_MAX_AGE, "7200"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
    }
    response
}
