//! What control says to those who ask it over a network.

use serde::Serialize;

pub use crate::forward::{MAX_LAYERS, Wish};
use crate::session::negotiate;
pub use crate::wire::media::MediaKind;

/// Who asks, as a token said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    /// For whom the token was minted.
    pub subject: String,
    /// The single room all its grants are in, if they are.
    pub room: Option<String>,
    /// The token's id.
    pub jti: String,
}

/// An agreed session.
#[derive(Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its unguessable name: who knows it may end the session.
    pub resource: String,
    /// Our answer, SDP.
    pub answer: String,
}

impl std::fmt::Debug for Accepted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Both the resource and the ICE password in the answer are secrets.
        f.write_str("Accepted(hidden)")
    }
}

/// Why something asked for is not done.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Somebody publishes under the name.
    #[error("somebody already publishes under this name")]
    NameInUse,
    /// Nobody publishes under the name.
    #[error("nobody publishes under this name")]
    NobodyPublishing,
    /// The offer is not SDP we can read, or not WebRTC.
    #[error("{0}")]
    BadSdp(String),
    /// The offer has no codec that would do.
    #[error("{0}")]
    NoCodec(String),
    /// The offer has no DTLS fingerprint.
    #[error("{0}")]
    NoFingerprint(String),
    /// An answer to another offer than the one that waits for it.
    #[error("{0}")]
    OutOfTurn(String),
    /// No such session.
    #[error("there is no such session")]
    NotFound,
    /// The request is for an ICE generation that is over (RFC 9725 section 4.3.1).
    #[error("the session's ICE has restarted since: the entity tag is of a generation before")]
    StaleTag,
    /// A new ufrag without a password.
    #[error("an ICE restart needs a=ice-pwd beside its new a=ice-ufrag")]
    BadRestart,
    /// More ICE restarts than a session may have.
    #[error("this session restarts ICE too often")]
    RestartsTooOften,
    /// The stream has no track of that kind.
    #[error("the stream has no such track")]
    NoTrack,
    /// The stream has no simulcast layer of that name.
    #[error("the stream has no layer of that rid")]
    NoLayer,
    /// The session's connection does not stand yet.
    #[error("the session is not connected yet")]
    NotConnected,
    /// Too many sessions, or a queue of the data plane is full.
    #[error("the gateway is full")]
    Full,
    /// The token's subject has as many sessions as one may have.
    #[error("this token's subject has too many sessions; mint a token for each participant")]
    SubjectFull,
    /// The gateway takes no new sessions: it is about to stop.
    #[error("the gateway is draining")]
    Draining,
}

impl Refusal {
    /// A stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NameInUse => "name_in_use",
            Self::NobodyPublishing => "nobody_publishing",
            Self::BadSdp(_) => "bad_sdp",
            Self::NoCodec(_) => "no_codec",
            Self::NoFingerprint(_) => "no_fingerprint",
            Self::NotFound => "session_not_found",
            Self::OutOfTurn(_) => "out_of_turn",
            Self::NoTrack => "no_track",
            Self::NoLayer => "no_layer",
            Self::NotConnected => "not_connected",
            Self::StaleTag => "stale_ice_session",
            Self::BadRestart => "bad_ice_restart",
            Self::RestartsTooOften => "ice_restarts_too_often",
            Self::SubjectFull => "too_many_sessions",
            Self::Full => "full",
            Self::Draining => "draining",
        }
    }
}

impl From<negotiate::Refusal> for Refusal {
    fn from(refusal: negotiate::Refusal) -> Self {
        match refusal {
            negotiate::Refusal::BadSdp(text) => Self::BadSdp(text),
            negotiate::Refusal::NoCodec(text) => Self::NoCodec(text),
            negotiate::Refusal::NoFingerprint => Self::NoFingerprint(refusal.to_string()),
        }
    }
}

/// A TURN credential and where to use it: one entry of `iceServers`.
#[derive(Clone, PartialEq, Eq)]
pub struct IceConfig {
    /// `turn:` URLs in order of preference.
    pub urls: Vec<String>,
    /// TURN username.
    pub username: String,
    /// TURN password.
    pub credential: String,
    /// How long new allocations may be opened with it, seconds.
    pub ttl: u64,
    /// The end of that, seconds since 1970.
    pub expires_at: u64,
    /// How long what is opened with it now may live, seconds.
    pub lifetime: u64,
}

impl IceConfig {
    /// As a browser takes it.
    #[must_use]
    pub fn rtc_configuration(self) -> RtcConfiguration {
        let Self { urls, username, credential, ttl, lifetime, .. } = self;
        let ice_servers = [IceServer { urls, username, credential }];
        RtcConfiguration { ice_servers, ice_transport_policy: "relay", ttl, lifetime }
    }
}

/// An `RTCConfiguration`, and how many seconds allocations can be made with it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RtcConfiguration {
    ice_servers: [IceServer; 1],
    ice_transport_policy: &'static str,
    ttl: u64,
    /// A client that stays longer comes with a fresh credential and an ICE restart before that.
    lifetime: u64,
}

#[derive(Serialize)]
struct IceServer {
    urls: Vec<String>,
    username: String,
    credential: String,
}

impl std::fmt::Debug for IceConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceConfig").field("urls", &self.urls).finish_non_exhaustive()
    }
}
