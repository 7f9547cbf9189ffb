//! The gateway over HTTPS: credentials, offers, what becomes of a session.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use axum::http::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_MATCH, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{Method, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};

use super::problem::Problem;
use crate::cli::probe::signalling::explain;
use crate::cli::probe::target::{IceServer, read_ice_server};
use crate::cli::{Failure, probe};
use crate::wire::sdp::MAX_SDP;

/// A gateway answers within this, or does not.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 2 * MAX_SDP;
pub(super) const SDP: &str = "application/sdp";

/// Headers of an answer that mean the same on this side. `Link` is none: a client that has no
/// TURN needs no TURN server, and one that has would go around the bridge.
const PASSED: [HeaderName; 7] =
    [CONTENT_TYPE, CACHE_CONTROL, ETAG, RETRY_AFTER, WWW_AUTHENTICATE, ALLOW, ACCEPT_PATCH];
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// A gateway, and the file with the right to ask it.
pub(super) struct Upstream {
    base: Url,
    client: Client,
    token_file: Option<PathBuf>,
}

/// An answer, as far as it is passed on.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Absolute, at the gateway.
    pub(super) location: Option<Url>,
}

impl Answer {
    pub(super) fn text(&self) -> Result<&str, Problem> {
        std::str::from_utf8(&self.body).map_err(|_| Problem::bad_answer("its SDP is not UTF-8"))
    }

    pub(super) fn is(&self, content_type: &str) -> bool {
        let value = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
        essence.trim().eq_ignore_ascii_case(content_type)
    }
}

impl Upstream {
    pub(super) fn new(
        gateway: &str,
        tls: &Arc<rustls::ClientConfig>,
        token_file: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        // What is around a host may be a secret: it is not repeated.
        let usage = || Failure::Usage("--gateway must be like https://turn.example.org".to_owned());
        let base: Url = gateway.parse().map_err(|_| usage())?;
        let plain = base.username().is_empty() && base.password().is_none();
        let bare = base.path() == "/" && base.query().is_none() && base.fragment().is_none();
        if base.scheme() != "https" || base.host().is_none() || !plain || !bare {
            return Err(usage());
        }
        let client = Client::builder()
            .tls_backend_preconfigured((**tls).clone())
            .https_only(true)
            // A redirect would take the token elsewhere.
            .redirect(Policy::none())
            .timeout(PATIENCE)
            .user_agent(concat!("veilgate-bridge/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| anyhow!(error.without_url()))?;
        Ok(Self { base, client, token_file })
    }

    /// Its `https://host:port`.
    pub(super) fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    pub(super) const fn has_token(&self) -> bool {
        self.token_file.is_some()
    }

    /// With which right to ask: the client's own, else the file's, read anew each time so that a
    /// token can be replaced under way.
    pub(super) fn authorization(&self, own: Option<&HeaderValue>) -> Result<HeaderValue, Problem> {
        if let Some(own) = own_right(own) {
            return Ok(own);
        }
        let path = self.token_file.as_deref().ok_or_else(Problem::no_token)?;
        bearer(path).map_err(|_| Problem::no_token_file())
    }

    /// `GET /v1/ice`: where the relay is, and a credential for it.
    pub(super) async fn ice(&self, authorization: &HeaderValue) -> Result<IceServer, Refused> {
        let url = self.url("/v1/ice")?;
        let request = self.client.get(url).header(AUTHORIZATION, authorization);
        let answer = self.ask(request).await?;
        if !answer.status.is_success() {
            return Err(Refused::Answer(answer));
        }
        let server = read_ice_server(&answer.body);
        Ok(server.ok_or_else(|| Problem::bad_answer("/v1/ice has no RTCConfiguration"))?)
    }

    /// `GET /v1/ice` without a token: only whether there is a gateway that is trusted.
    pub(super) async fn reach(&self) -> Result<(), Problem> {
        let answer = self.ask(self.client.get(self.url("/v1/ice")?)).await?;
        match answer.status.as_u16() {
            401 | 403 => Ok(()),
            code => Err(Problem::bad_answer(&format!("{code} for /v1/ice without a token"))),
        }
    }

    /// Posts an offer.
    pub(super) async fn offer(
        &self,
        path: &str,
        authorization: &HeaderValue,
        offer: String,
    ) -> Result<Answer, Problem> {
        let request = self.client.post(self.url(path)?).body(offer);
        let request = request.header(AUTHORIZATION, authorization).header(CONTENT_TYPE, SDP);
        self.ask(request.header(ACCEPT, SDP)).await
    }

    /// `DELETE` or `PATCH` of a session.
    pub(super) async fn session(
        &self,
        method: Method,
        session: &Url,
        authorization: &HeaderValue,
        client: &HeaderMap,
        body: String,
    ) -> Result<Answer, Problem> {
        let mut request = self.client.request(method, session.clone());
        request = request.header(AUTHORIZATION, authorization);
        for name in [CONTENT_TYPE, IF_MATCH] {
            if let Some(value) = client.get(&name) {
                request = request.header(name, value);
            }
        }
        if !body.is_empty() {
            request = request.body(body);
        }
        self.ask(request).await
    }

    fn url(&self, path: &str) -> Result<Url, Problem> {
        self.base.join(path).map_err(|_| Problem::bad_answer("its address cannot have this path"))
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Answer, Problem> {
        let unreachable =
            |error: reqwest::Error| Problem::unreachable(&explain(&error, &self.base));
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        // RFC 9725 section 4.5: 307. Passed on, it would take the client around the bridge.
        if status.is_redirection() {
            return Err(Problem::bad_answer("it redirects: give the address it redirects to"));
        }
        let location = self.location(&response)?;
        let mut headers = HeaderMap::new();
        for name in PASSED {
            if let Some(value) = response.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Problem::bad_answer("it is longer than 131072 bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body, location })
    }

    fn location(&self, response: &Response) -> Result<Option<Url>, Problem> {
        let Some(value) = response.headers().get(LOCATION) else { return Ok(None) };
        let url = value.to_str().ok().and_then(|text| response.url().join(text).ok());
        match url {
            // The token goes to no other host.
            Some(url) if url.origin() == self.base.origin() => Ok(Some(url)),
            _ => Err(Problem::bad_answer("its Location is at another host")),
        }
    }
}

/// A client's own right. "Bearer" alone is a form whose field was left empty.
pub(super) fn own_right(header: Option<&HeaderValue>) -> Option<HeaderValue> {
    let empty = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| matches!(text.trim(), "" | "Bearer" | "bearer"))
    };
    let mut own = header.filter(|own| !empty(own))?.clone();
    own.set_sensitive(true);
    Some(own)
}

/// What the gateway said no with, or what kept it from saying anything.
pub(super) enum Refused {
    Answer(Answer),
    Problem(Problem),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// `Bearer` and the token in a file, marked as a secret.
pub(super) fn bearer(path: &Path) -> anyhow::Result<HeaderValue> {
    let token = probe::read_token(path)?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| anyhow!("{} does not hold a token", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}
