//! ICE-lite, controlled side (RFC 8445): connectivity checks judged and answered, without state.

use std::fmt;
use std::net::SocketAddr;

use crate::metrics::Id;
use crate::wire::stun::{Builder, Class, IntegrityKey, Message, Method, attr};

/// An answer is not longer than this, bytes.
pub const MAX_ANSWER: usize = 128;

/// Comprehension-required attributes a check may carry.
const KNOWN: &[u16] = &[
    attr::USERNAME,
    attr::MESSAGE_INTEGRITY,
    attr::MESSAGE_INTEGRITY_SHA256,
    attr::PRIORITY,
    attr::USE_CANDIDATE,
];

/// Our half of a session's ICE credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// `a=ice-ufrag`.
    pub ufrag: String,
    /// `a=ice-pwd`.
    pub pwd: String,
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// What a check says, before anything is verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Check<'a> {
    /// The receiver's ufrag: ours.
    pub local_ufrag: &'a str,
    /// The sender's ufrag.
    pub remote_ufrag: &'a str,
    /// The check nominates its path.
    pub use_candidate: bool,
}

/// A check that proved right, and its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Bytes of the answer in the buffer given.
    pub len: usize,
    /// The check nominates its path.
    pub use_candidate: bool,
}

/// Why a check proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckError {
    /// Not a Binding request, or a wrong FINGERPRINT.
    #[error("not a connectivity check")]
    Malformed,
    /// USERNAME is not this session's.
    #[error("the user name is of another session")]
    UnknownUfrag,
    /// MESSAGE-INTEGRITY is missing or wrong.
    #[error("the integrity check failed")]
    BadIntegrity,
    /// The client claims the controlled role that is ours (RFC 8445 section 7.3.1.1); a 487 of
    /// this many bytes is in the buffer given.
    #[error("both sides claim to be controlled")]
    RoleConflict(usize),
    /// It needs an attribute we do not understand; a 420 of this many bytes is in the buffer
    /// given.
    #[error("an attribute is not understood")]
    UnknownAttribute(usize),
    /// The buffer for the answer is too small.
    #[error("no room for the answer")]
    NoRoom,
}

impl CheckError {
    /// What to count.
    #[must_use]
    pub const fn counter(self) -> Id {
        match self {
            Self::Malformed | Self::UnknownAttribute(_) | Self::NoRoom => Id::SessionIceMalformed,
            Self::UnknownUfrag => Id::SessionIceUnknownUfrag,
            Self::BadIntegrity => Id::SessionIceBadIntegrity,
            Self::RoleConflict(_) => Id::SessionIceRoleConflict,
        }
    }

    /// Bytes of an error answer in the buffer given, if there is one to send.
    #[must_use]
    pub const fn answer_len(self) -> Option<usize> {
        match self {
            Self::RoleConflict(len) | Self::UnknownAttribute(len) => Some(len),
            _ => None,
        }
    }
}

fn check_of<'a>(message: &Message<'a>) -> Option<Check<'a>> {
    if message.class() != Class::Request || message.method() != Method::BINDING {
        return None;
    }
    let (local_ufrag, remote_ufrag) = message.text(attr::USERNAME)?.split_once(':')?;
    let use_candidate = message.first(attr::USE_CANDIDATE).is_some();
    Some(Check { local_ufrag, remote_ufrag, use_candidate })
}

/// Reads whom a check is for. `None`: not a check. Nothing is verified.
#[must_use]
pub fn peek(datagram: &[u8]) -> Option<Check<'_>> {
    check_of(&Message::parse(datagram).ok()?)
}

/// Whether this is a Binding indication: a keep-alive that wants no answer and proves nothing
/// (RFC 8445 section 11).
#[must_use]
pub fn is_keepalive(datagram: &[u8]) -> bool {
    Message::parse(datagram).is_ok_and(|message| {
        message.class() == Class::Indication && message.method() == Method::BINDING
    })
}

/// Verifies a check and writes its answer: XOR-MAPPED-ADDRESS `mapped` (the client's relayed
/// address), MESSAGE-INTEGRITY and FINGERPRINT.
///
/// # Errors
/// [`CheckError`]; two of its kinds come with an error answer.
pub fn answer(
    datagram: &[u8],
    local: &IceCredentials,
    remote_ufrag: &str,
    mapped: SocketAddr,
    out: &mut [u8],
) -> Result<Answer, CheckError> {
    let message = Message::parse(datagram).map_err(|_| CheckError::Malformed)?;
    if message.fingerprint() == Some(false) {
        return Err(CheckError::Malformed);
    }
    let check = check_of(&message).ok_or(CheckError::Malformed)?;
    if check.local_ufrag != local.ufrag || check.remote_ufrag != remote_ufrag {
        return Err(CheckError::UnknownUfrag);
    }
    let key = IntegrityKey::short_term(local.pwd.as_bytes());
    if !message.verify_integrity(&key) {
        return Err(CheckError::BadIntegrity);
    }
    let id = message.transaction_id();
    let refuse = |out: &mut [u8], code, reason, unknown: &[u8]| {
        let mut builder = Builder::new(out, Class::Error, Method::BINDING, id);
        builder.error_code(code, reason);
        if !unknown.is_empty() {
            builder.attribute(attr::UNKNOWN_ATTRIBUTES, unknown);
        }
        builder.integrity(&key);
        builder.fingerprint();
        builder.finish().ok_or(CheckError::NoRoom)
    };
    let unknown = message.unknown_required(KNOWN);
    if !unknown.is_empty() {
        let types: Vec<u8> = unknown.as_slice().iter().flat_map(|t| t.to_be_bytes()).collect();
        return Err(refuse(out, 420, "Unknown Attribute", &types)
            .map_or_else(|e| e, CheckError::UnknownAttribute));
    }
    if message.first(attr::ICE_CONTROLLED).is_some() {
        return Err(
            refuse(out, 487, "Role Conflict", &[]).map_or_else(|e| e, CheckError::RoleConflict)
        );
    }
    let mut builder = Builder::new(out, Class::Success, Method::BINDING, id);
    builder.xor_address(attr::XOR_MAPPED_ADDRESS, mapped);
    builder.integrity(&key);
    builder.fingerprint();
    let len = builder.finish().ok_or(CheckError::NoRoom)?;
    Ok(Answer { len, use_candidate: check.use_candidate })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::stun::TransactionId;

    const ID: TransactionId = TransactionId(*b"twelve bytes");

    fn local() -> IceCredentials {
        IceCredentials { ufrag: "ours".into(), pwd: "a password of ours....".into() }
    }

    fn mapped() -> SocketAddr {
        "198.51.100.9:50123".parse().unwrap()
    }

    fn request(pwd: &str, user: &str, more: impl FnOnce(&mut Builder<'_>)) -> Vec<u8> {
        let mut buf = [0; 512];
        let mut builder = Builder::new(&mut buf, Class::Request, Method::BINDING, ID);
        builder.text(attr::USERNAME, user);
        builder.u32(attr::PRIORITY, 1);
        more(&mut builder);
        builder.integrity(&IntegrityKey::short_term(pwd.as_bytes()));
        builder.fingerprint();
        let len = builder.finish().unwrap();
        buf[..len].to_vec()
    }

    fn judge(datagram: &[u8], out: &mut [u8]) -> Result<Answer, CheckError> {
        answer(datagram, &local(), "theirs", mapped(), out)
    }

    #[test]
    fn a_right_check_is_answered_with_the_mapped_address_and_integrity() {
        let check = request(&local().pwd, "ours:theirs", |b| {
            b.attribute(attr::ICE_CONTROLLING, &[7; 8]);
            b.attribute(attr::USE_CANDIDATE, &[]);
        });
        let seen = peek(&check).unwrap();
        assert_eq!((seen.local_ufrag, seen.remote_ufrag), ("ours", "theirs"));
        let mut out = [0; MAX_ANSWER];
        let answer = judge(&check, &mut out).unwrap();
        assert!(answer.use_candidate && seen.use_candidate);
        let reply = Message::parse(&out[..answer.len]).unwrap();
        assert_eq!(reply.class(), Class::Success);
        assert_eq!(reply.transaction_id(), ID);
        assert_eq!(reply.xor_address(attr::XOR_MAPPED_ADDRESS), Some(mapped()));
        assert!(reply.verify_integrity(&IntegrityKey::short_term(local().pwd.as_bytes())));
        assert_eq!(reply.fingerprint(), Some(true));
    }

    #[test]
    fn a_wrong_check_gets_no_answer() {
        let mut out = [0; MAX_ANSWER];
        let wrong = request("another password......", "ours:theirs", |_| {});
        assert_eq!(judge(&wrong, &mut out), Err(CheckError::BadIntegrity));
        for user in ["ours:other", "other:theirs", "ours:theirs:x", ":", "ours"] {
            let error = judge(&request(&local().pwd, user, |_| {}), &mut out).unwrap_err();
            assert!(matches!(error, CheckError::UnknownUfrag | CheckError::Malformed), "{user}");
            assert_eq!(error.answer_len(), None);
        }
        let mut flipped = request(&local().pwd, "ours:theirs", |_| {});
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(judge(&flipped, &mut out), Err(CheckError::Malformed));
        assert_eq!(judge(b"", &mut out), Err(CheckError::Malformed));
    }

    #[test]
    fn a_client_that_claims_our_role_gets_487() {
        let check = request(&local().pwd, "ours:theirs", |b| {
            b.attribute(attr::ICE_CONTROLLED, &[7; 8]);
        });
        let mut out = [0; MAX_ANSWER];
        let Err(CheckError::RoleConflict(len)) = judge(&check, &mut out) else {
            panic!("no role conflict")
        };
        assert_eq!(Message::parse(&out[..len]).unwrap().error_code(), Some(487));
    }

    #[test]
    fn an_attribute_that_must_be_understood_gets_420() {
        let check = request(&local().pwd, "ours:theirs", |b| b.attribute(0x7777, &[1]));
        let mut out = [0; MAX_ANSWER];
        let Err(CheckError::UnknownAttribute(len)) = judge(&check, &mut out) else {
            panic!("understood")
        };
        let reply = Message::parse(&out[..len]).unwrap();
        assert_eq!(reply.error_code(), Some(420));
        assert_eq!(reply.first(attr::UNKNOWN_ATTRIBUTES), Some(&[0x77, 0x77][..]));
    }

    #[test]
    fn no_room_is_an_error_and_the_longest_answer_fits() {
        let check = request(&local().pwd, "ours:theirs", |_| {});
        assert_eq!(judge(&check, &mut [0; 40]), Err(CheckError::NoRoom));
        let many = request(&local().pwd, "ours:theirs", |b| {
            (0x7000..0x7010).for_each(|kind| b.attribute(kind, &[]));
        });
        let error = judge(&many, &mut [0; MAX_ANSWER]).unwrap_err();
        assert!(error.answer_len().is_some());
        let v6 = "[2001:db8::1]:4000".parse().unwrap();
        assert!(answer(&check, &local(), "theirs", v6, &mut [0; MAX_ANSWER]).is_ok());
    }
}
