//! What revocation means: which credentials are no longer good, as plain data and a matcher.
//!
//! A credential is named by itself, by its subject or by its room. The last two strike what was
//! minted up to a moment, so that the same subject can be given a fresh credential at once.

use std::collections::HashMap;
use std::hash::Hash;

use super::turn::Verified;
use crate::ids::{CredentialId, RoomHash, SubjectHash};
use crate::time::Unix;

/// What is revoked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// One credential.
    Credential(CredentialId),
    /// Everything minted for a subject.
    Subject(SubjectHash),
    /// Everything minted for a room, and for no other.
    Room(RoomHash),
}

/// One act of revoking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Revocation {
    /// What.
    pub target: Target,
    /// Of a subject or a room: what was minted at this moment or before. A moment in the future
    /// bars the subject or the room until then. Means nothing for a single credential.
    pub not_before: Unix,
    /// The revocation itself is forgotten then: nothing it struck can be alive any more.
    pub expires: Unix,
}

/// What of a credential a revocation can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Which credential.
    pub credential: CredentialId,
    /// For whom.
    pub subject: SubjectHash,
    /// The only room it is good for.
    pub room: Option<RoomHash>,
    /// When it was minted. The epoch where that is not known: every revocation of its subject
    /// strikes it.
    pub issued: Unix,
}

impl From<&Verified> for Identity {
    fn from(verified: &Verified) -> Self {
        Self {
            credential: verified.credential,
            subject: verified.subject,
            room: verified.room,
            issued: verified.issued,
        }
    }
}

/// Moments of one subject or room: minted up to `.0` is struck, until `.1`. None of them makes
/// another superfluous, so there are rarely two.
type Spans = Vec<(Unix, Unix)>;

/// All live revocations, asked in constant time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Revoked {
    credentials: HashMap<CredentialId, Unix>,
    subjects: HashMap<SubjectHash, Spans>,
    rooms: HashMap<RoomHash, Spans>,
}

impl Revoked {
    /// Takes a revocation in. Taking it in twice changes nothing.
    pub fn add(&mut self, revocation: &Revocation) {
        let Revocation { target, not_before, expires } = *revocation;
        match target {
            Target::Credential(id) => {
                let until = self.credentials.entry(id).or_insert(expires);
                *until = expires.max(*until);
            }
            Target::Subject(subject) => {
                add_span(self.subjects.entry(subject).or_default(), (not_before, expires));
            }
            Target::Room(room) => {
                add_span(self.rooms.entry(room).or_default(), (not_before, expires));
            }
        }
    }

    /// Whether a credential is struck.
    #[must_use]
    pub fn covers(&self, now: Unix, who: &Identity) -> bool {
        // Most gateways have revoked nothing: no hash is computed then.
        (!self.credentials.is_empty()
            && self.credentials.get(&who.credential).is_some_and(|expires| now < *expires))
            || struck(&self.subjects, Some(&who.subject), now, who.issued)
            || struck(&self.rooms, who.room.as_ref(), now, who.issued)
    }

    /// Forgets what has expired.
    pub fn purge(&mut self, now: Unix) {
        self.credentials.retain(|_, expires| now < *expires);
        for_live(&mut self.subjects, now);
        for_live(&mut self.rooms, now);
    }

    /// Whether nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.credentials.is_empty() && self.subjects.is_empty() && self.rooms.is_empty()
    }

    /// How many targets are revoked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.credentials.len() + self.subjects.len() + self.rooms.len()
    }
}

fn add_span(spans: &mut Spans, new: (Unix, Unix)) {
    let within = |a: (Unix, Unix), b: (Unix, Unix)| a.0 <= b.0 && a.1 <= b.1;
    if spans.iter().any(|old| within(new, *old)) {
        return;
    }
    spans.retain(|old| !within(*old, new));
    spans.push(new);
}

fn struck<K: Eq + Hash>(all: &HashMap<K, Spans>, key: Option<&K>, now: Unix, issued: Unix) -> bool {
    if all.is_empty() {
        return false;
    }
    let spans = key.and_then(|key| all.get(key));
    spans.is_some_and(|spans| spans.iter().any(|(to, expires)| issued <= *to && now < *expires))
}

fn for_live<K: Eq + Hash>(all: &mut HashMap<K, Spans>, now: Unix) {
    all.retain(|_, spans| {
        spans.retain(|(_, expires)| now < *expires);
        !spans.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(secs: u64) -> Unix {
        Unix::from_secs(secs)
    }

    fn who(issued: u64) -> Identity {
        Identity {
            credential: CredentialId::of("name"),
            subject: SubjectHash::of("alice"),
            room: Some(RoomHash::of("lobby")),
            issued: at(issued),
        }
    }

    fn revoked(list: &[(Target, u64, u64)]) -> Revoked {
        let mut revoked = Revoked::default();
        for (target, not_before, expires) in list {
            let (not_before, expires) = (at(*not_before), at(*expires));
            revoked.add(&Revocation { target: *target, not_before, expires });
        }
        revoked
    }

    #[test]
    fn one_credential_is_struck_whenever_it_was_minted() {
        let revoked = revoked(&[(Target::Credential(CredentialId::of("name")), 0, 100)]);
        assert!(revoked.covers(at(50), &who(40)));
        let other = Identity { credential: CredentialId::of("other"), ..who(40) };
        assert!(!revoked.covers(at(50), &other));
        assert!(!revoked.covers(at(100), &who(40)), "expired");
    }

    #[test]
    fn subject_and_room_are_struck_up_to_a_moment() {
        for target in
            [Target::Subject(SubjectHash::of("alice")), Target::Room(RoomHash::of("lobby"))]
        {
            let revoked = revoked(&[(target, 40, 100)]);
            assert!(revoked.covers(at(50), &who(40)), "minted at that very moment");
            assert!(!revoked.covers(at(50), &who(41)), "minted afterwards");
            let other = Identity { subject: SubjectHash::of("bob"), room: None, ..who(1) };
            assert!(!revoked.covers(at(50), &other));
        }
    }

    #[test]
    fn revocations_of_one_subject_hold_side_by_side() {
        let alice = Target::Subject(SubjectHash::of("alice"));
        let revoked = revoked(&[(alice, 10, 100), (alice, 20, 30), (alice, 5, 50)]);
        assert_eq!(revoked.subjects[&SubjectHash::of("alice")].len(), 2, "the third says nothing");
        assert!(revoked.covers(at(25), &who(15)));
        assert!(!revoked.covers(at(35), &who(15)), "the second is over");
        assert!(revoked.covers(at(99), &who(10)), "the first is not");
    }

    #[test]
    fn what_has_expired_is_forgotten() {
        let mut revoked = revoked(&[
            (Target::Subject(SubjectHash::of("alice")), 10, 100),
            (Target::Room(RoomHash::of("lobby")), 10, 90),
            (Target::Credential(CredentialId::of("name")), 0, 80),
        ]);
        assert_eq!(revoked.len(), 3);
        revoked.purge(at(90));
        assert_eq!((revoked.len(), revoked.is_empty()), (1, false));
        revoked.purge(at(100));
        assert!(revoked.is_empty());
    }

    proptest! {
        #[test]
        fn merging_strikes_exactly_what_the_parts_strike(
            spans in proptest::collection::vec((0u64..20, 0u64..20), 0..6),
            issued in 0u64..20,
            now in 0u64..20,
        ) {
            let alice = Target::Subject(SubjectHash::of("alice"));
            let list: Vec<_> = spans.iter().map(|(to, until)| (alice, *to, *until)).collect();
            let plain = spans.iter().any(|(to, until)| issued <= *to && now < *until);
            prop_assert_eq!(revoked(&list).covers(at(now), &who(issued)), plain);
        }
    }
}
