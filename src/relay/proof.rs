//! Who is asking: the long-term mechanism of RFC 8489 section 9.2, with SHA-1 and MD5 (browsers)
//! and with SHA-256 side by side.
//!
//! A request says by PASSWORD-ALGORITHM how its key was made, and by which of the two integrity
//! attributes it carries how it was signed. The answer is signed in the same way.

use super::nonce::Shown;
use super::request::response;
use super::{Handled, Relay, dropped};
use crate::auth::revocation::Identity;
use crate::auth::turn::{Refused, Verified};
use crate::ids::FiveTuple;
use crate::metrics::{Counters, Id};
use crate::time::{Now, Unix};
use crate::wire::stun::{Builder, Class, IntegrityKey, IntegrityKeySha256, Message, Method, attr};

/// PASSWORD-ALGORITHMS: what is offered, best first, each without parameters (RFC 8489 section
/// 18.5.1): SHA-256, then MD5.
const OFFERED: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];
const MD5: &[u8] = &[0, 1, 0, 0];
const SHA256: &[u8] = &[0, 2, 0, 0];

/// How an answer is signed: as the request was.
pub(super) enum Signer {
    Sha1(IntegrityKey),
    Sha256(IntegrityKeySha256),
}

impl Signer {
    /// For a request, with the key it says it was made with; with both attributes the stronger one
    /// counts. `None`: that form of the key is not known.
    fn of(message: &Message<'_>, sha256: bool, keys: ([u8; 16], Option<[u8; 32]>)) -> Option<Self> {
        let key: &[u8] = if sha256 { keys.1.as_ref()? } else { &keys.0 };
        Some(if message.has_integrity_sha256() {
            Self::Sha256(IntegrityKeySha256::from_bytes(key))
        } else {
            Self::Sha1(IntegrityKey::from_bytes(key))
        })
    }

    fn verify(&self, message: &Message<'_>) -> bool {
        match self {
            Self::Sha1(key) => message.verify_integrity(key),
            Self::Sha256(key) => message.verify_integrity_sha256(key),
        }
    }

    pub(super) fn sign(&self, builder: &mut Builder<'_>) {
        match self {
            Self::Sha1(key) => builder.integrity(key),
            Self::Sha256(key) => builder.integrity_sha256(key),
        }
    }
}

/// A request that is not authenticated.
pub(super) enum Unproven {
    Silent(Id),
    Answer(u16, Id),
}

/// A request whose integrity attribute is right.
pub(super) struct Proven<'m> {
    pub(super) username: &'m str,
    pub(super) signer: Signer,
    /// `None` when the allocation's cached key served: same username.
    pub(super) fresh: Option<Verified>,
}

/// The algorithm a request's key was made with (section 9.2.4): true for SHA-256.
fn password_algorithm(message: &Message<'_>) -> Result<bool, Unproven> {
    let bad = Err(Unproven::Answer(400, Id::RelayAuthBidDown));
    match (message.first(attr::PASSWORD_ALGORITHMS), message.first(attr::PASSWORD_ALGORITHM)) {
        // A client of RFC 5389.
        (None, None) => Ok(false),
        (Some(OFFERED), Some(SHA256)) => Ok(true),
        (Some(OFFERED), Some(MD5)) => Ok(false),
        _ => bad,
    }
}

impl Relay {
    /// RFC 8489 section 9.2.4, cheapest check first. Reads only.
    pub(super) fn authenticate<'m>(
        &self,
        now: Now,
        tuple: FiveTuple,
        message: &Message<'m>,
        existing: Option<u32>,
    ) -> Result<Proven<'m>, Unproven> {
        if !message.has_integrity() && !message.has_integrity_sha256() {
            let bare = message.first(attr::REQUESTED_TRANSPORT).is_none();
            return Err(if message.method() == Method::ALLOCATE && bare {
                Unproven::Silent(Id::RelayDropMalformed)
            } else {
                Unproven::Answer(401, Id::RelayAuthMissing)
            });
        }
        let name = message.first(attr::USERNAME).or_else(|| message.first(attr::USERHASH));
        let (Some(_), Some(_), Some(nonce)) =
            (name, message.first(attr::REALM), message.first(attr::NONCE))
        else {
            return Err(Unproven::Answer(400, Id::RelayAuthMalformed));
        };
        match self.nonces.verify(now.unix, tuple.client.expose(), nonce) {
            Shown::Fresh => {}
            Shown::Stale => return Err(Unproven::Answer(438, Id::RelayAuthStaleNonce)),
            Shown::Altered => return Err(Unproven::Answer(400, Id::RelayAuthBidDown)),
        }
        let sha256 = password_algorithm(message)?;
        // USERHASH alone: username anonymity is not offered, so it is nobody's.
        let username =
            message.text(attr::USERNAME).ok_or(Unproven::Answer(401, Id::RelayAuthMalformed))?;
        let cached = existing
            .and_then(|index| self.table.get(index))
            .filter(|allocation| *allocation.username == *username);
        let (keys, live_until, who, mut fresh) = match cached {
            Some(allocation) => {
                let keys = (allocation.key, allocation.key_sha256);
                (keys, allocation.live_until, allocation.identity(), None)
            }
            None => {
                let verified = self.keys.verify(username, &self.config.realm).map_err(|why| {
                    Unproven::Answer(
                        401,
                        match why {
                            Refused::UnknownKey => Id::RelayAuthUnknownKey,
                            Refused::Malformed => Id::RelayAuthMalformed,
                            Refused::Forged => Id::RelayAuthForged,
                        },
                    )
                })?;
                let keys = (verified.key, verified.key_sha256);
                (keys, verified.live_until, Identity::from(&verified), Some(verified))
            }
        };
        let mut signer = Signer::of(message, sha256, keys);
        // Plain TURN REST names do not say which of several secrets they were made with.
        let mut attempt = 0;
        while !signer.as_ref().is_some_and(|signer| signer.verify(message)) {
            attempt += 1;
            let again = fresh
                .as_ref()
                .and_then(|_| self.keys.verify_again(username, &self.config.realm, attempt));
            let Some(other) = again else {
                return Err(Unproven::Answer(401, Id::RelayAuthBadIntegrity));
            };
            signer = Signer::of(message, sha256, (other.key, other.key_sha256));
            fresh = Some(other);
        }
        let signer = signer.ok_or(Unproven::Answer(401, Id::RelayAuthBadIntegrity))?;
        if self.is_revoked(now.unix, &who) {
            return Err(Unproven::Answer(401, Id::RelayAuthRevoked));
        }
        if remaining(now.unix, live_until) == 0 {
            return Err(Unproven::Answer(401, Id::RelayAuthExpired));
        }
        Ok(Proven { username, signer, fresh })
    }

    /// An error response without integrity; with a fresh nonce where it helps. Capped.
    pub(super) fn challenge(
        &mut self,
        now: Now,
        tuple: FiveTuple,
        message: &Message<'_>,
        code: u16,
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Handled {
        // Who has a connection is where it says it is, and would not repeat a lost request.
        let spoofable = !tuple.transport.is_stream();
        if spoofable && !self.cap.admit(now.mono, tuple.client.ip(), &mut self.rng) {
            return dropped(counters, Id::RelayDropReplyCap);
        }
        let mut builder = response(Class::Error, message, reply);
        builder.error_code(code, "");
        if code != 400 {
            builder.text(attr::REALM, &self.config.realm);
            let nonce = self.nonces.mint(now.unix, tuple.client.expose());
            builder.attribute(attr::NONCE, &nonce);
            builder.attribute(attr::PASSWORD_ALGORITHMS, OFFERED);
        }
        builder.finish().map_or(Handled::Dropped, Handled::Reply)
    }
}

/// Whole seconds until `live_until`.
pub(super) const fn remaining(now: Unix, live_until: Unix) -> u64 {
    live_until.as_micros().saturating_sub(now.as_micros()) / 1_000_000
}
