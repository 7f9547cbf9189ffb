//! Credentials that are no longer good, whatever they say themselves.

use std::collections::HashMap;

use aws_lc_rs::digest;
use rand::Rng;

use super::table::{Owner, RandomKey};
use crate::ids::{RoomHash, SubjectHash};
use crate::time::Unix;

/// Revocations remembered at a time.
pub const MAX_REVOCATIONS: usize = 16_384;

/// One credential: the first 8 bytes of SHA-256 of its username.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CredentialHash(pub [u8; 8]);

impl CredentialHash {
    /// Of a username.
    #[must_use]
    pub fn of(username: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, username.as_bytes());
        Self(hash.as_ref().first_chunk().copied().unwrap_or_default())
    }
}

/// Whose credentials are revoked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// All of a subject.
    Subject(SubjectHash),
    /// All that were minted for a room.
    Room(RoomHash),
    /// A single one.
    Credential(CredentialHash),
}

/// Ends live allocations and keeps new ones from being made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revocation {
    /// Whose.
    pub target: Target,
    /// Credentials whose `allocate_by` is this or later stay good: now plus the longest life that
    /// is handed out spares those minted from now on. [`FOREVER`] spares none.
    pub not_before: Unix,
    /// When it may be forgotten: no earlier than `live_until` of the last credential it is about.
    pub until: Unix,
}

/// For [`Revocation::not_before`]: later than any credential.
pub const FOREVER: Unix = Unix::from_micros(u64::MAX);

/// What became of a revocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revoked {
    /// Live allocations that ended.
    pub ended: usize,
    /// False when [`MAX_REVOCATIONS`] others are in force: then the credentials, though not their
    /// present allocations, are still good.
    pub remembered: bool,
}

impl Revocation {
    /// Whether it is about a credential.
    pub(super) fn hits(&self, owner: &Owner, allocate_by: Unix, username: &str) -> bool {
        let meant = match self.target {
            Target::Subject(subject) => owner.subject == subject,
            Target::Room(room) => owner.room == Some(room),
            Target::Credential(hash) => CredentialHash::of(username) == hash,
        };
        meant && allocate_by < self.not_before
    }
}

/// The revocations in force, found by what a credential says.
pub(super) struct RevokedSet {
    entries: HashMap<Target, (Unix, Unix), RandomKey>,
}

impl RevokedSet {
    pub(super) fn new(rng: &mut impl Rng) -> Self {
        Self { entries: HashMap::with_hasher(RandomKey::new(rng)) }
    }

    /// False when it is full.
    pub(super) fn insert(&mut self, now: Unix, revocation: &Revocation) -> bool {
        if revocation.until <= now {
            return true;
        }
        if !self.entries.contains_key(&revocation.target) && self.entries.len() >= MAX_REVOCATIONS {
            self.entries.retain(|_, (_, until)| *until > now);
            if self.entries.len() >= MAX_REVOCATIONS {
                return false;
            }
        }
        let fresh = (revocation.not_before, revocation.until);
        let entry = self.entries.entry(revocation.target).or_insert(fresh);
        *entry = (entry.0.max(fresh.0), entry.1.max(fresh.1));
        true
    }

    pub(super) fn contains(
        &self,
        now: Unix,
        owner: &Owner,
        allocate_by: Unix,
        username: &str,
    ) -> bool {
        // The usual case, and it saves a hash of the name.
        if self.entries.is_empty() {
            return false;
        }
        let in_force = |target: Target| {
            let entry = self.entries.get(&target);
            entry.is_some_and(|(not_before, until)| allocate_by < *not_before && now < *until)
        };
        in_force(Target::Subject(owner.subject))
            || owner.room.is_some_and(|room| in_force(Target::Room(room)))
            || in_force(Target::Credential(CredentialHash::of(username)))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::auth::turn::Class;

    #[test]
    fn set_is_bounded_and_makes_room_by_forgetting_what_is_over() {
        let mut set = RevokedSet::new(&mut StdRng::seed_from_u64(1));
        let at = Unix::from_secs;
        let revoke = |n: usize, until| Revocation {
            target: Target::Subject(SubjectHash((n as u64).to_be_bytes())),
            not_before: FOREVER,
            until,
        };
        for n in 0..MAX_REVOCATIONS {
            assert!(set.insert(at(0), &revoke(n, at(10 + (n as u64 % 2) * 10))));
        }
        assert!(!set.insert(at(9), &revoke(MAX_REVOCATIONS, at(20))), "all are in force");
        assert!(set.insert(at(9), &revoke(0, at(30))), "known ones are prolonged");
        assert!(set.insert(at(10), &revoke(MAX_REVOCATIONS, at(20))));
        let owner = Owner {
            subject: SubjectHash(0_u64.to_be_bytes()),
            room: None,
            class: Class::Forwarder,
        };
        assert!(set.contains(at(29), &owner, at(1), "name"));
        assert!(!set.contains(at(30), &owner, at(1), "name"));
    }
}
