//! Errors as `application/problem+json` (RFC 9457).

use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, UPGRADE, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::auth::token::TokenError;
use crate::control::api::Refusal;
use crate::control::revocation::RevokeError;
use crate::control::sealed;
use crate::control::store::StoreError;

/// When to ask again for a stream nobody publishes yet, seconds.
const SOON: HeaderValue = HeaderValue::from_static("2");
/// When to ask a full or draining gateway again, seconds.
const LATER: HeaderValue = HeaderValue::from_static("5");

/// A problem's code, kept beside the response for the counters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code(pub(super) &'static str);

/// One error answer.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), header: None }
    }

    fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
    }

    /// axum adds `Allow` for routes; see [`Self::wrong_method_for_page`].
    pub(super) fn wrong_method() -> Self {
        let detail = "this method is not for this path; the Allow header lists those that are";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    pub(super) fn wrong_origin() -> Self {
        let detail = "pages of this origin may not call";
        Self::new(StatusCode::FORBIDDEN, "origin_not_allowed", detail)
    }

    /// RFC 9110 section 15.5.22: the answer says to what.
    pub(super) fn no_websocket() -> Self {
        let detail = "this is a WebSocket: version 13, over HTTP/1.1";
        Self::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", detail)
            .with(UPGRADE, HeaderValue::from_static("websocket"))
    }

    pub(super) fn wrong_method_for_page() -> Self {
        Self::wrong_method().with(ALLOW, HeaderValue::from_static("GET,HEAD"))
    }

    pub(super) fn slow() -> Self {
        let detail = "the gateway took too long to answer";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", detail).with(RETRY_AFTER, LATER)
    }

    pub(super) fn slow_body() -> Self {
        let detail = "the request's body did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail)
    }

    pub(super) fn large_body() -> Self {
        let detail = "the SDP is longer than 65536 bytes";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "sdp_too_large", detail)
    }

    pub(super) fn large_json() -> Self {
        let detail = "the body is longer than 16384 bytes";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    }

    pub(super) fn not_json() -> Self {
        let detail = "the body must be JSON with Content-Type application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    pub(super) fn bad_json(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_json", detail)
    }

    pub(super) fn bad_query(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_query", detail)
    }

    /// A well-formed request for something that makes no sense.
    pub(super) fn senseless(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    pub(super) fn no_admin_api() -> Self {
        let detail = "the admin API is closed: no auth.admin_key_file is configured";
        Self::new(StatusCode::NOT_FOUND, "admin_api_closed", detail)
    }

    pub(super) fn no_admin_key() -> Self {
        let detail = "the admin key is needed: Authorization: Bearer <key>";
        let challenge = HeaderValue::from_static("Bearer realm=\"veilgate admin\"");
        Self::new(StatusCode::UNAUTHORIZED, "admin_key_missing", detail)
            .with(WWW_AUTHENTICATE, challenge)
    }

    pub(super) fn wrong_admin_key() -> Self {
        let detail = "this is not the admin key";
        Self::new(StatusCode::FORBIDDEN, "admin_key_wrong", detail)
    }

    pub(super) fn broken_body() -> Self {
        let detail = "the request's body broke off";
        Self::new(StatusCode::BAD_REQUEST, "body_incomplete", detail)
    }

    pub(super) fn not_sdp() -> Self {
        let detail = "the body must be an SDP offer with Content-Type application/sdp";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    pub(super) fn not_fragment() -> Self {
        let detail =
            "the body must be an SDP fragment with Content-Type application/trickle-ice-sdpfrag";
        let takes = HeaderValue::from_static("application/trickle-ice-sdpfrag");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
            .with(HeaderName::from_static("accept-patch"), takes)
    }

    pub(super) fn no_tag() -> Self {
        let detail = "If-Match is needed: the session's ETag, or * for an ICE restart";
        Self::new(StatusCode::PRECONDITION_REQUIRED, "if_match_missing", detail)
    }

    pub(super) fn many_tags() -> Self {
        let detail = "If-Match has more than 16 entity tags";
        Self::new(StatusCode::BAD_REQUEST, "bad_if_match", detail)
    }

    pub(super) fn bad_sdp(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_sdp", detail)
    }

    pub(super) fn bad_name(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_name", detail)
    }

    pub(super) fn no_token() -> Self {
        let detail = "a token is needed: Authorization: Bearer <token>";
        // RFC 6750 section 3.1: no error code when no credentials came.
        let challenge = HeaderValue::from_static("Bearer realm=\"veilgate\"");
        Self::new(StatusCode::UNAUTHORIZED, "token_missing", detail)
            .with(WWW_AUTHENTICATE, challenge)
    }

    pub(super) fn not_granted(detail: String) -> Self {
        let challenge =
            HeaderValue::from_static("Bearer realm=\"veilgate\", error=\"insufficient_scope\"");
        Self::new(StatusCode::FORBIDDEN, "not_granted", detail).with(WWW_AUTHENTICATE, challenge)
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let challenge =
            HeaderValue::from_static("Bearer realm=\"veilgate\", error=\"invalid_token\"");
        Self::new(StatusCode::UNAUTHORIZED, error.code(), error.to_string())
            .with(WWW_AUTHENTICATE, challenge)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::DiskFull => {
                let detail = "the disk is full: nothing was changed";
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "store_full", detail)
            }
            StoreError::TooMany => {
                let detail = error.to_string();
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "too_many_revocations", detail)
            }
            StoreError::Busy => {
                let detail = "too much waits for the disk: nothing was changed";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_busy", detail)
                    .with(RETRY_AFTER, LATER)
            }
            // Paths and SQLite's words are for the operator.
            other => {
                tracing::error!(error = %other, "the store failed");
                let detail = "the store failed; the gateway's log says why";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", detail)
            }
        }
    }
}

impl From<RevokeError> for Problem {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::NoCredential(refused) => {
                Self::senseless("not_a_credential", refused.to_string())
            }
            RevokeError::Senseless(detail) => Self::senseless("bad_revocation", detail),
            RevokeError::Store(error) => error.into(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::NameInUse
            | Refusal::NobodyPublishing
            | Refusal::OutOfTurn(_)
            | Refusal::NotConnected => StatusCode::CONFLICT,
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::BadSdp(_) => StatusCode::BAD_REQUEST,
            Refusal::NoCodec(_)
            | Refusal::NoFingerprint(_)
            | Refusal::BadRestart
            | Refusal::NoTrack
            | Refusal::NoLayer => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::StaleTag => StatusCode::PRECONDITION_FAILED,
            Refusal::SubjectFull | Refusal::RestartsTooOften => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Full | Refusal::Draining => StatusCode::SERVICE_UNAVAILABLE,
        };
        let problem = Self::new(status, refusal.code(), refusal.to_string());
        match refusal {
            Refusal::NobodyPublishing | Refusal::NotConnected | Refusal::RestartsTooOften => {
                problem.with(RETRY_AFTER, SOON)
            }
            Refusal::Full | Refusal::Draining | Refusal::SubjectFull => {
                problem.with(RETRY_AFTER, LATER)
            }
            _ => problem,
        }
    }
}

impl From<sealed::Refusal> for Problem {
    fn from(refusal: sealed::Refusal) -> Self {
        use sealed::Refusal as R;
        let (status, code) = match refusal {
            R::RoomFull => (StatusCode::CONFLICT, "room_full"),
            R::NoSeat => (StatusCode::NOT_FOUND, "seat_not_found"),
            R::OfferAwaited => (StatusCode::CONFLICT, "offer_awaited"),
            R::Described => (StatusCode::CONFLICT, "already_described"),
            R::Full => (StatusCode::SERVICE_UNAVAILABLE, "full"),
            R::SubjectFull => (StatusCode::TOO_MANY_REQUESTS, "too_many_sessions"),
            R::Fault(fault) => match fault.code() {
                code @ "bad_sdp" => (StatusCode::BAD_REQUEST, code),
                code @ "sdp_too_large" => (StatusCode::PAYLOAD_TOO_LARGE, code),
                code => (StatusCode::UNPROCESSABLE_ENTITY, code),
            },
        };
        let problem = Self::new(status, code, refusal.to_string());
        match refusal {
            R::OfferAwaited => problem.with(RETRY_AFTER, SOON),
            R::Full | R::SubjectFull => problem.with(RETRY_AFTER, LATER),
            _ => problem,
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: format!("urn:veilgate:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
        };
        let body = serde_json::to_string(&body).unwrap_or_default();
        let headers = [(CONTENT_TYPE, "application/problem+json"), (CACHE_CONTROL, "no-store")];
        let mut response = (self.status, headers, body).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(Code(self.code));
        response
    }
}
