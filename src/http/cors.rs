//! Which pages of other origins may call.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use axum::http::{HeaderValue, Method};
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
