//! What signalling asks of control, and the answers.

use crate::session::negotiate;

/// Who asks, as a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The token's subject.
    pub subject: String,
    /// The one room its grants share.
    pub room: Option<String>,
    /// The token's id.
    pub jti: String,
}

/// A session that was agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The unguessable name of the session's URL.
    pub resource: String,
    /// The SDP answer.
    pub answer: String,
}

/// One entry of `iceServers`, and how long it is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceConfig {
    /// TURN URLs.
    pub urls: Vec<String>,
    /// USERNAME.
    pub username: String,
    /// The password.
    pub credential: String,
    /// Seconds in which allocations may be opened with it.
    pub ttl: u64,
    /// When that ends, seconds since 1970.
    pub expires_at: u64,
}

/// Why a session was not agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody publishes under this name.
    NameInUse,
    /// Nobody does.
    NobodyPublishing,
    /// Not an SDP offer.
    BadSdp(String),
    /// No codec in common.
    NoCodec(String),
    /// No DTLS fingerprint.
    NoFingerprint,
    /// No such session.
    NotFound,
    /// No room for another.
    Full,
    /// The gateway is going down.
    Draining,
}

impl From<negotiate::Refusal> for Refusal {
    fn from(refusal: negotiate::Refusal) -> Self {
        match refusal {
            negotiate::Refusal::BadSdp(why) => Self::BadSdp(why),
            negotiate::Refusal::NoCodec(why) => Self::NoCodec(why),
            negotiate::Refusal::NoFingerprint => Self::NoFingerprint,
        }
    }
}
