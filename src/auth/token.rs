//! Publish and play tokens: JWT (RFC 7519), HS256 alone, with a key id.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

pub use super::secret::{Key, KeyError};
use crate::ids::{NameError, StreamName};
use crate::time::Unix;

/// Longest token that is read, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;
/// Most patterns a token may carry for publishing, and again for playing.
pub const MAX_PATTERNS: usize = 64;
/// Longest subject, in bytes.
pub const MAX_SUBJECT: usize = 256;
/// Longest token id, in bytes.
pub const MAX_JTI: usize = 128;
/// How far the issuer's clock may be from ours, in seconds.
pub const LEEWAY: u64 = 60;
/// The audience a token may name; one that names only others is refused (RFC 7519 section 4.1.3).
pub const AUDIENCE: &str = "veilgate";

/// Why a token grants nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// More than [`MAX_TOKEN`] bytes.
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLarge,
    /// Not three base64url parts with a JSON header.
    #[error("this is not a signed JSON Web Token")]
    Malformed,
    /// Any `alg` but HS256, `none` included.
    #[error("the token is not signed with HS256")]
    WrongAlgorithm,
    /// The header has no `kid`.
    #[error("the token does not name its key (kid)")]
    NoKeyId,
    /// The `kid` is not in the ring.
    #[error("the token names an unknown key")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// A claim is missing, doubled, of a wrong type or out of bounds.
    #[error("the token's claims are wrong: {0}")]
    BadClaims(&'static str),
    /// It names an audience, and that is not us.
    #[error("the token is for another audience")]
    WrongAudience,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
}

impl TokenError {
    /// A stable word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge => "token_too_large",
            Self::Malformed => "token_malformed",
            Self::WrongAlgorithm => "token_wrong_algorithm",
            Self::NoKeyId => "token_no_key_id",
            Self::UnknownKey => "token_unknown_key",
            Self::BadSignature => "token_bad_signature",
            Self::BadClaims(_) => "token_bad_claims",
            Self::WrongAudience => "token_wrong_audience",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
        }
    }
}

/// Why no token was minted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MintError {
    /// A pattern is neither `room/stream` nor `room/*`.
    #[error("\"{pattern}\" is neither room/stream nor room/*: {error}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// Nothing to publish and nothing to play.
    #[error("the token would allow nothing: name a stream to publish or to play")]
    NoGrant,
    /// More than [`MAX_PATTERNS`].
    #[error("more than {MAX_PATTERNS} patterns")]
    TooMany,
    /// The subject or the id is empty or too long.
    #[error("the subject has 1 to {MAX_SUBJECT} bytes, the id 1 to {MAX_JTI}")]
    Length,
    /// A life of less than a second.
    #[error("a token must live for at least one second")]
    NoLife,
    /// The result would be longer than [`MAX_TOKEN`].
    #[error("the token would be longer than {MAX_TOKEN} bytes")]
    TooLarge,
    /// Signing failed; not expected to happen.
    #[error("the token could not be signed")]
    Sign,
}

/// Streams a token allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// One stream.
    Stream(StreamName),
    /// Every stream of a room: `room/*`.
    Room(String),
}

impl Pattern {
    /// Reads `room/stream` or `room/*`.
    ///
    /// # Errors
    /// [`NameError`], as for a stream name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.strip_suffix("/*") {
            Some(room) => {
                StreamName::check_part(room)?;
                Ok(Self::Room(room.to_owned()))
            }
            None => Ok(Self::Stream(text.parse()?)),
        }
    }

    /// Whether `name` is among them.
    #[must_use]
    pub fn allows(&self, name: &StreamName) -> bool {
        match self {
            Self::Stream(own) => own == name,
            Self::Room(room) => room == name.room(),
        }
    }

    /// The room they are in.
    #[must_use]
    pub fn room(&self) -> &str {
        match self {
            Self::Stream(name) => name.room(),
            Self::Room(room) => room,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(name) => write!(f, "{name}"),
            Self::Room(room) => write!(f, "{room}/*"),
        }
    }
}

/// What a token says, its signature found genuine, its times not yet compared with the clock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// For whom.
    pub sub: String,
    /// Its id, for revocation.
    pub jti: String,
    /// Minted at, seconds since 1970.
    #[serde(deserialize_with = "date")]
    pub iat: u64,
    /// Not before, seconds since 1970.
    #[serde(default, deserialize_with = "some_date", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// End, seconds since 1970.
    #[serde(deserialize_with = "date")]
    pub exp: u64,
    /// For which programs; none: any.
    #[serde(default, deserialize_with = "audience", skip_serializing_if = "Vec::is_empty")]
    pub aud: Vec<String>,
    /// Streams that may be published, `room/stream` or `room/*`.
    #[serde(default)]
    pub publish: Vec<String>,
    /// Streams that may be played, `room/stream` or `room/*`.
    #[serde(default)]
    pub play: Vec<String>,
    /// In rooms: may chat.
    #[serde(default, skip_serializing_if = "is_false")]
    pub chat: bool,
    /// In rooms: may send data.
    #[serde(default, skip_serializing_if = "is_false")]
    pub data: bool,
    /// In rooms: may put others out.
    #[serde(default, skip_serializing_if = "is_false")]
    pub admin: bool,
}

/// Tokens that allow no more than before look as before.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Claims {
    /// Compares the times with `now` and reads the patterns.
    ///
    /// # Errors
    /// [`TokenError::WrongAudience`], [`TokenError::BadClaims`], [`TokenError::Expired`],
    /// [`TokenError::NotYetValid`].
    pub fn check(&self, now: Unix) -> Result<Grant, TokenError> {
        if !self.aud.is_empty() && !self.aud.iter().any(|one| one == AUDIENCE) {
            return Err(TokenError::WrongAudience);
        }
        if self.sub.is_empty() || self.sub.len() > MAX_SUBJECT {
            return Err(TokenError::BadClaims("sub has 1 to 256 bytes"));
        }
        if self.jti.is_empty() || self.jti.len() > MAX_JTI {
            return Err(TokenError::BadClaims("jti has 1 to 128 bytes"));
        }
        let publish = patterns(&self.publish).ok_or(TokenError::BadClaims(
            "publish lists at most 64 patterns, each room/stream or room/*",
        ))?;
        let play = patterns(&self.play).ok_or(TokenError::BadClaims(
            "play lists at most 64 patterns, each room/stream or room/*",
        ))?;
        if publish.is_empty() && play.is_empty() {
            return Err(TokenError::BadClaims("neither publish nor play names a stream"));
        }
        let now = now.as_secs();
        if self.exp.saturating_add(LEEWAY) <= now {
            return Err(TokenError::Expired);
        }
        let start = self.nbf.unwrap_or(0).max(self.iat);
        if start > now.saturating_add(LEEWAY) {
            return Err(TokenError::NotYetValid);
        }
        Ok(Grant {
            subject: self.sub.clone(),
            jti: self.jti.clone(),
            expires: Unix::from_secs(self.exp),
            publish,
            play,
            chat: self.chat,
            data: self.data,
            admin: self.admin,
        })
    }
}

fn patterns(texts: &[String]) -> Option<Vec<Pattern>> {
    if texts.len() > MAX_PATTERNS {
        return None;
    }
    texts.iter().map(|text| Pattern::parse(text).ok()).collect()
}

/// What a valid token allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// For whom it was minted.
    pub subject: String,
    /// The token's id.
    pub jti: String,
    /// When it ends.
    pub expires: Unix,
    /// What may be published.
    pub publish: Vec<Pattern>,
    /// What may be played.
    pub play: Vec<Pattern>,
    /// In rooms: may chat.
    pub chat: bool,
    /// In rooms: may send data.
    pub data: bool,
    /// In rooms: may put others out.
    pub admin: bool,
}

impl Grant {
    /// Whether `name` may be published.
    #[must_use]
    pub fn may_publish(&self, name: &StreamName) -> bool {
        self.publish.iter().any(|pattern| pattern.allows(name))
    }

    /// Whether `name` may be played.
    #[must_use]
    pub fn may_play(&self, name: &StreamName) -> bool {
        self.play.iter().any(|pattern| pattern.allows(name))
    }

    /// Whether its holder may be in a sealed call: all of the room to publish, and to play.
    #[must_use]
    pub fn may_seal(&self, room: &str) -> bool {
        let whole = |patterns: &[Pattern]| {
            patterns.iter().any(|p| matches!(p, Pattern::Room(own) if own == room))
        };
        whole(&self.publish) && whole(&self.play)
    }

    /// Whether its holder may be in a room: something of it to publish or to play.
    #[must_use]
    pub fn may_enter(&self, room: &str) -> bool {
        self.publish.iter().chain(&self.play).any(|pattern| pattern.room() == room)
    }

    /// The single room all patterns share, if they do.
    #[must_use]
    pub fn room(&self) -> Option<&str> {
        let mut rooms = self.publish.iter().chain(&self.play).map(Pattern::room);
        let first = rooms.next()?;
        rooms.all(|room| room == first).then_some(first)
    }
}

/// What to mint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TokenRequest {
    /// For whom; none: the token's own id is the subject.
    pub subject: Option<String>,
    /// Streams that may be published.
    pub publish: Vec<String>,
    /// Streams that may be played.
    pub play: Vec<String>,
    /// In rooms: may chat.
    pub chat: bool,
    /// In rooms: may send data.
    pub data: bool,
    /// In rooms: may put others out.
    pub admin: bool,
    /// Life, whole seconds, at least one.
    pub ttl: Duration,
}

struct Entry {
    id: String,
    sign: EncodingKey,
    verify: DecodingKey,
}

/// The keys of tokens: the first mints, all verify.
pub struct TokenKeys {
    entries: Vec<Entry>,
    validation: Validation,
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| &entry.id)).finish()
    }
}

impl TokenKeys {
    /// Takes a ring over.
    ///
    /// # Errors
    /// No key, a bad or doubled name, a weak secret.
    pub fn new(keys: Vec<Key>) -> Result<Self, KeyError> {
        super::secret::check_ring(&keys)?;
        let entries = keys
            .into_iter()
            .map(|key| Entry {
                sign: EncodingKey::from_secret(&key.secret),
                verify: DecodingKey::from_secret(&key.secret),
                id: key.id,
            })
            .collect();
        // Times and audience are checked by `Claims::check`, against the given clock.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Ok(Self { entries, validation })
    }

    /// Mints with the first key. `jti` must be unique: fresh random text.
    ///
    /// # Errors
    /// [`MintError`]: a request that could not be verified later.
    pub fn mint(&self, now: Unix, request: &TokenRequest, jti: &str) -> Result<String, MintError> {
        for pattern in request.publish.iter().chain(&request.play) {
            Pattern::parse(pattern)
                .map_err(|error| MintError::Pattern { pattern: pattern.clone(), error })?;
        }
        if request.publish.is_empty() && request.play.is_empty() {
            return Err(MintError::NoGrant);
        }
        if request.publish.len().max(request.play.len()) > MAX_PATTERNS {
            return Err(MintError::TooMany);
        }
        if request.ttl.as_secs() == 0 {
            return Err(MintError::NoLife);
        }
        let sub = request.subject.as_deref().unwrap_or(jti);
        if sub.is_empty() || sub.len() > MAX_SUBJECT || jti.is_empty() || jti.len() > MAX_JTI {
            return Err(MintError::Length);
        }
        let claims = Claims {
            sub: sub.to_owned(),
            jti: jti.to_owned(),
            iat: now.as_secs(),
            nbf: None,
            exp: now.as_secs().saturating_add(request.ttl.as_secs()),
            aud: Vec::new(),
            publish: request.publish.clone(),
            play: request.play.clone(),
            chat: request.chat,
            data: request.data,
            admin: request.admin,
        };
        let entry = self.entries.first().ok_or(MintError::Sign)?;
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(entry.id.clone());
        let token =
            jsonwebtoken::encode(&header, &claims, &entry.sign).map_err(|_| MintError::Sign)?;
        if token.len() > MAX_TOKEN {
            return Err(MintError::TooLarge);
        }
        Ok(token)
    }

    /// The claims of a genuine token, expired or not: for explanations. Grants nothing by itself.
    ///
    /// # Errors
    /// Everything in [`TokenError`] but what [`Claims::check`] finds.
    pub fn inspect(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLarge);
        }
        let header = read_header(token)?;
        if header.alg != "HS256" {
            return Err(TokenError::WrongAlgorithm);
        }
        // RFC 7515 section 4.1.11: what is critical and not understood must be refused.
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        let kid = header.kid.ok_or(TokenError::NoKeyId)?;
        let entry =
            self.entries.iter().find(|entry| entry.id == kid).ok_or(TokenError::UnknownKey)?;
        // The library reads more of the header than we do: its faults are not the claims'.
        jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        match jsonwebtoken::decode::<Claims>(token, &entry.verify, &self.validation) {
            Ok(data) => Ok(data.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::InvalidSignature => TokenError::BadSignature,
                ErrorKind::InvalidAlgorithm => TokenError::WrongAlgorithm,
                ErrorKind::Json(error) => TokenError::BadClaims(claim_fault(error)),
                ErrorKind::InvalidClaimFormat(_) => {
                    TokenError::BadClaims("exp, nbf or aud has a wrong type")
                }
                _ => TokenError::Malformed,
            }),
        }
    }

    /// What `token` allows at `now`.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(&self, now: Unix, token: &str) -> Result<Grant, TokenError> {
        self.inspect(token)?.check(now)
    }
}

#[derive(Deserialize)]
struct RawHeader {
    alg: String,
    kid: Option<String>,
    crit: Option<de::IgnoredAny>,
}

/// The library's own header type cannot tell an unknown algorithm from a broken header.
fn read_header(token: &str) -> Result<RawHeader, TokenError> {
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)
}

/// A constant text for a fault in the claims: the claims themselves are not repeated.
fn claim_fault(error: &serde_json::Error) -> &'static str {
    const NAMES: [&str; 8] = ["sub", "jti", "iat", "nbf", "exp", "aud", "publish", "play"];
    const MISSING: [&str; 8] = [
        "sub is missing",
        "jti is missing",
        "iat is missing",
        "nbf is missing",
        "exp is missing",
        "aud is missing",
        "publish is missing",
        "play is missing",
    ];
    let text = error.to_string();
    if text.starts_with("duplicate field") {
        return "a claim is given twice";
    }
    if text.starts_with("missing field") {
        for (name, message) in NAMES.iter().zip(MISSING) {
            if text.contains(&format!("`{name}`")) {
                return message;
            }
        }
    }
    "a claim has a wrong type"
}

/// RFC 7519's NumericDate: a number that need not be whole.
struct NumericDate;

impl Visitor<'_> for NumericDate {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds since 1970")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<u64, E> {
        if value.is_finite() && (0.0..1e18).contains(&value) {
            Ok(value as u64)
        } else {
            Err(E::custom("out of range"))
        }
    }
}

fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(NumericDate)
}

fn some_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_u64(NumericDate).map(Some)
}

/// One audience or a list of them.
fn audience<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

#[cfg(test)]
mod tests;
