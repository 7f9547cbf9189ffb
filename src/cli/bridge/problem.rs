//! What the bridge itself says no with: `application/problem+json` (RFC 9457), with a stable
//! `code`, as the gateway does. None carries a token, a credential or an address of a client.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::relay::NoRelay;

/// When to try again, seconds.
const LATER: HeaderValue = HeaderValue::from_static("5");

#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), header: None }
    }

    fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    pub(super) fn unreachable(why: &str) -> Self {
        let detail = format!("the gateway: {why}");
        Self::new(StatusCode::BAD_GATEWAY, "gateway_unreachable", detail)
    }

    pub(super) fn bad_answer(why: &str) -> Self {
        let detail = format!("the gateway's answer cannot be used: {why}");
        Self::new(StatusCode::BAD_GATEWAY, "gateway_answer", detail)
    }

    pub(super) fn no_relay(why: &NoRelay) -> Self {
        if why.refused {
            Self::new(StatusCode::BAD_GATEWAY, "relay_refused", why.to_string())
        } else {
            Self::new(StatusCode::SERVICE_UNAVAILABLE, "relay_unreachable", why.to_string())
                .with(RETRY_AFTER, LATER)
        }
    }

    pub(super) fn no_permission(why: &str) -> Self {
        let detail = format!("the relay does not let us to the gateway's media address: {why}");
        Self::new(StatusCode::BAD_GATEWAY, "relay_refused", detail)
    }

    pub(super) fn full() -> Self {
        let detail = "the bridge carries as many sessions as it may";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "bridge_full", detail).with(RETRY_AFTER, LATER)
    }

    pub(super) fn no_socket(error: &std::io::Error) -> Self {
        let detail = format!("no UDP socket on this machine: {error}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_socket", detail)
    }

    pub(super) fn no_token() -> Self {
        let detail = "a token is needed: the request has no Authorization header and the bridge \
                      no --token-file";
        Self::new(StatusCode::UNAUTHORIZED, "token_missing", detail)
    }

    /// Which file it is stands in the bridge's own messages.
    pub(super) fn no_token_file() -> Self {
        let detail = "the bridge's token file cannot be read or holds no token";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "token_file", detail)
    }

    pub(super) fn bad_name(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_name", detail)
    }

    pub(super) fn bad_body(status: StatusCode) -> Self {
        match status {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(status, "sdp_too_large", "the SDP is longer than 65536 bytes")
            }
            StatusCode::REQUEST_TIMEOUT => {
                Self::new(status, "body_timeout", "the request's body did not arrive in time")
            }
            _ => {
                let detail = "the body broke off or is not UTF-8 text";
                Self::new(StatusCode::BAD_REQUEST, "bad_sdp", detail)
            }
        }
    }

    pub(super) fn not_sdp(what: &str) -> Self {
        let detail = format!("the body must be SDP with Content-Type {what}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    pub(super) fn from_a_page() -> Self {
        let detail = "the bridge is for programs of this machine, at a loopback address: a page \
                      in a browser publishes and plays without it";
        Self::new(StatusCode::FORBIDDEN, "not_local", detail)
    }

    pub(super) fn not_found() -> Self {
        let detail = "there is nothing here: POST to /whip/{room}/{stream} or \
                      /whep/{room}/{stream}";
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(super) fn no_session() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "this session has ended")
    }

    /// axum adds `Allow`.
    pub(super) fn wrong_method() -> Self {
        let detail = "this method is not for this path; the Allow header lists those that are";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    pub(super) fn broken() -> Self {
        let detail = "the bridge failed at this request";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": format!("urn:veilgate:problem:{}", self.code),
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        let headers = [(CONTENT_TYPE, "application/problem+json"), (CACHE_CONTROL, "no-store")];
        let mut response = (self.status, headers, body.to_string()).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
