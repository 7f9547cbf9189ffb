//! What a TURN username says, in words and numbers for people and programs.

use serde::{Deserialize, Serialize};

use super::revocation::Identity;
use super::turn::{Keys, NEVER, Refused};
use crate::ids::{RoomHash, SubjectHash};
use crate::time::Unix;

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The TURN username.
    pub username: &'a str,
    /// A subject to compare with.
    pub subject: Option<&'a str>,
    /// A room to compare with.
    pub room: Option<&'a str>,
}

/// The answer. Times are seconds since 1970; one that is left out is unknown or never comes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Explained {
    /// Whether new allocations can be made with it.
    pub valid: bool,
    /// Why not: `unknown_key`, `malformed`, `forged`, `other_subject`, `other_room`, `revoked`
    /// or `expired`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it reaches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// For whom, hashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_hash: Option<String>,
    /// The given subject is its subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_matches: Option<bool>,
    /// The only room, hashed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_hash: Option<String>,
    /// It is good for the given room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_matches: Option<bool>,
    /// When it was minted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<u64>,
    /// The end of new allocations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocate_by: Option<u64>,
    /// The end of everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_until: Option<u64>,
}

/// Explains a username. `revoked` says whether its credential was struck.
#[must_use]
pub fn explain(
    keys: &Keys,
    now: Unix,
    question: Question<'_>,
    revoked: impl FnOnce(&Identity) -> bool,
) -> Explained {
    let verified = match keys.verify(question.username, "") {
        Ok(verified) => verified,
        Err(refused) => {
            let reason = Some(code(refused).to_owned());
            return Explained { reason, ..Explained::default() };
        }
    };
    let subject_matches = question.subject.map(|s| SubjectHash::of(s) == verified.subject);
    let room_matches =
        question.room.map(|room| verified.room.is_none_or(|own| own == RoomHash::of(room)));
    let reason = if subject_matches == Some(false) {
        Some("other_subject")
    } else if room_matches == Some(false) {
        Some("other_room")
    } else if revoked(&Identity::from(&verified)) {
        Some("revoked")
    } else if now >= verified.allocate_by {
        Some("expired")
    } else {
        None
    };
    let secs = |at: Unix| (at != NEVER && at != Unix::default()).then(|| at.as_secs());
    Explained {
        valid: reason.is_none(),
        reason: reason.map(str::to_owned),
        class: Some(verified.class.name().to_owned()),
        subject_hash: Some(hex(&verified.subject.0)),
        subject_matches,
        room_hash: verified.room.map(|room| hex(&room.0)),
        room_matches,
        issued_at: secs(verified.issued),
        allocate_by: secs(verified.allocate_by),
        live_until: secs(verified.live_until),
    }
}

/// The stable code of a refusal.
#[must_use]
pub const fn code(refused: Refused) -> &'static str {
    match refused {
        Refused::UnknownKey => "unknown_key",
        Refused::Malformed => "malformed",
        Refused::Forged => "forged",
    }
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::turn::{Class, Key, Mint};
    use super::*;

    const NOW: Unix = Unix::from_secs(1_780_000_000);

    fn keys() -> Keys {
        Keys::new(vec![Key { id: "k1".to_owned(), secret: vec![7; 32] }]).unwrap()
    }

    fn username() -> String {
        let mint = Mint {
            subject: "alice",
            room: Some("lobby"),
            class: Class::Forwarder,
            ttl: Duration::from_secs(600),
            session_limit: Duration::from_secs(3_600),
        };
        keys().mint(NOW, &mint, [9; 12]).unwrap().username
    }

    #[test]
    fn reasons_come_in_order_of_weight() {
        let username = username();
        let told = |subject, room, now: u64, revoked: bool| {
            let question = Question { username: &username, subject, room };
            explain(&keys(), Unix::from_secs(now), question, |_| revoked)
        };
        let now = NOW.as_secs();
        let good = told(Some("alice"), Some("lobby"), now, false);
        assert_eq!((good.valid, good.reason), (true, None));
        assert_eq!((good.issued_at, good.allocate_by), (Some(now), Some(now + 600)));
        assert_eq!((good.subject_matches, good.room_matches), (Some(true), Some(true)));
        for (told, reason) in [
            (told(Some("bob"), Some("attic"), now + 600, true), "other_subject"),
            (told(None, Some("attic"), now + 600, true), "other_room"),
            (told(None, None, now + 600, true), "revoked"),
            (told(None, None, now + 600, false), "expired"),
        ] {
            assert_eq!((told.valid, told.reason.as_deref()), (false, Some(reason)));
            assert!(told.subject_hash.is_some());
        }
        let question = Question { username: "alice", subject: None, room: None };
        let told = explain(&keys(), NOW, question, |_| false);
        assert_eq!(
            serde_json::to_string(&told).unwrap(),
            "{\"valid\":false,\"reason\":\"malformed\"}"
        );
    }
}
