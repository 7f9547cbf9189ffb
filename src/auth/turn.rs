//! TURN credentials: opaque, short-lived, bound to what they were minted for.
//!
//! ```text
//! username   1780000000:k1.Jx3f…      allocate_by ':' key id '.' base64url(nonce, sealed, tag)
//! password   base64(HMAC-SHA1(secret, username))
//! ```
//!
//! Any client of the TURN REST convention can use them. The part before the dot is in the clear
//! and is the additional data of the AEAD (AES-128-GCM, key derived from the secret by HKDF), so
//! no character of the name can be changed. Nothing is looked up to verify one, and no state is
//! kept.
//!
//! Two other kinds of names can be let in ([`Keys::accept_plain_names`],
//! [`Keys::accept_static_users`]), for clients and back ends that cannot use ours. They are bound
//! to no room, and nobody knows when they were made.
//!
//! Nonces are random and 96 bits wide: rotate a key well before it has minted 2^32 credentials.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

pub use super::secret::{Key, KeyError};
use super::static_users::{StaticUsers, long_term_keys};
use crate::ids::{CredentialId, RoomHash, SubjectHash};
use crate::time::Unix;

/// Longest username that is read, in bytes. Ours are shorter.
pub const MAX_USERNAME: usize = 160;

/// A moment that never comes; the last one that the store can write down.
pub const NEVER: Unix = Unix::from_micros(i64::MAX as u64);
/// Secrets that a plain name, which does not say which one it was made with, is tried against.
const PLAIN_TRIES: usize = 4;

const SALT: &[u8] = b"veilgate turn credential v1";
const LABEL_SEAL: &[u8] = b"seal";
const VERSION: u8 = 1;
/// version, class, room present, subject, room, `live_until`, `issued`.
const SEALED: usize = 3 + 8 + 8 + 8 + 8;
const TAG: usize = 16;
const BLOB: usize = NONCE_LEN + SEALED + TAG;
/// Characters of the unpadded base64 of [`BLOB`] bytes.
const BLOB_TEXT: usize = (BLOB * 8).div_ceil(6);
/// Room for the decoder's estimate, which is rounded up to whole groups of four characters.
const BLOB_BUFFER: usize = BLOB.next_multiple_of(3) + 3;

/// What a credential lets its bearer reach.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Only the forwarder: the media address, nothing else.
    Forwarder,
    /// Only the other allocations of the same room: sealed calls.
    Room,
    /// Peers outside, those the configuration lists: a classic TURN server for other applications.
    External,
    /// The forwarder, and the echo beside it ([`echo_address`]): for `veilgate probe`.
    Probe,
}

impl Class {
    /// A class that users may be given, by its name in the API and on the command line.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "forwarder" => Some(Self::Forwarder),
            "room" => Some(Self::Room),
            "external" => Some(Self::External),
            _ => None,
        }
    }

    /// Its name in the API and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarder => "forwarder",
            Self::Room => "room",
            Self::External => "external",
            Self::Probe => "probe",
        }
    }

    const fn to_byte(self) -> u8 {
        match self {
            Self::Forwarder => 1,
            Self::Room => 2,
            Self::External => 3,
            // Not for users: numbered apart from their classes.
            Self::Probe => 16,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Forwarder),
            2 => Some(Self::Room),
            3 => Some(Self::External),
            16 => Some(Self::Probe),
            _ => None,
        }
    }
}

/// Where the echo for [`Class::Probe`] is: beside a media address, as virtual as that. `None` when
/// the media address has the last port.
#[must_use]
pub fn echo_address(media: SocketAddr) -> Option<SocketAddr> {
    Some(SocketAddr::new(media.ip(), media.port().checked_add(1)?))
}

/// What to mint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mint<'a> {
    /// For whom: any text; only its hash is kept.
    pub subject: &'a str,
    /// The only room it is good for; none: any.
    pub room: Option<&'a str>,
    /// What it reaches.
    pub class: Class,
    /// How long new allocations may be made with it; whole seconds, at least one.
    pub ttl: Duration,
    /// How long allocations made with it may live; whole seconds, not less than `ttl`.
    pub session_limit: Duration,
}

impl Mint<'_> {
    /// Whether the result could be of any use.
    ///
    /// # Errors
    /// [`MintError::NoRoom`]: the relay would refuse it.
    pub fn check(&self) -> Result<(), MintError> {
        if self.class == Class::Room && self.room.is_none() {
            return Err(MintError::NoRoom);
        }
        Ok(())
    }
}

/// A fresh credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    /// For USERNAME.
    pub username: String,
    /// The password.
    pub credential: String,
    /// Last moment for new allocations (whole seconds).
    pub allocate_by: Unix,
    /// Last moment of any allocation made with it (whole seconds).
    pub live_until: Unix,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted").field("allocate_by", &self.allocate_by).finish_non_exhaustive()
    }
}

/// Why nothing was minted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MintError {
    /// A life of less than a second.
    #[error("a credential must live for at least one second")]
    NoLife,
    /// The session would end before the last allocation could begin.
    #[error("the session limit is shorter than the credential's life")]
    SessionTooShort,
    /// A class whose policy is off.
    #[error("external credentials reach nobody here: relay.external is not configured")]
    ClassOff,
    /// A sealed call without a room.
    #[error("a credential of class room is for one room: name it")]
    NoRoom,
    /// The cipher refused; not expected to happen.
    #[error("the credential could not be sealed")]
    Seal,
}

/// What a genuine credential says. Its times are not yet compared with the clock: a new
/// allocation needs `now < allocate_by`, a refresh `now < live_until`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified {
    /// Which credential it is.
    pub credential: CredentialId,
    /// For whom it was minted.
    pub subject: SubjectHash,
    /// The only room it is good for; none: any.
    pub room: Option<RoomHash>,
    /// What it reaches.
    pub class: Class,
    /// When it was minted, to the microsecond: what a revocation's `not_before` is compared with.
    pub issued: Unix,
    /// End of new allocations.
    pub allocate_by: Unix,
    /// End of everything.
    pub live_until: Unix,
    /// The long-term key of RFC 8489 section 9.2.2, `MD5(username ":" realm ":" password)`.
    pub key: [u8; 16],
    /// The same with SHA-256 (section 18.5.1.2).
    /// `None` for a static user of whom only the MD5 form is known.
    pub key_sha256: Option<[u8; 32]>,
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("subject", &self.subject)
            .field("room", &self.room)
            .field("class", &self.class)
            .field("issued", &self.issued)
            .field("allocate_by", &self.allocate_by)
            .field("live_until", &self.live_until)
            .finish_non_exhaustive()
    }
}

/// Why a username is not one of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// It names a key that is not in the ring.
    #[error("the credential names an unknown key")]
    UnknownKey,
    /// It has not the form of a credential.
    #[error("the username is not a credential of this gateway")]
    Malformed,
    /// It has the form, but was not sealed with the key it names.
    #[error("the credential is forged or altered")]
    Forged,
}

struct Entry {
    id: String,
    seal: LessSafeKey,
    mac: hmac::Key,
}

/// The keys of the relay: the first mints, all verify.
pub struct Keys {
    entries: Vec<Entry>,
    plain_names: bool,
    /// What names that are not ours reach.
    others: Class,
    users: StaticUsers,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| &entry.id)).finish()
    }
}

impl Keys {
    /// Derives what is needed from each secret.
    ///
    /// # Errors
    /// No key, a bad or doubled name, a weak secret.
    pub fn new(keys: Vec<Key>) -> Result<Self, KeyError> {
        super::secret::check_ring(&keys)?;
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT);
        let entries = keys
            .into_iter()
            .map(|key| {
                let derived = salt.extract(&key.secret);
                let seal: UnboundKey = derived
                    .expand(&[LABEL_SEAL], &AES_128_GCM)
                    .expect("16 bytes are within what HKDF-SHA256 yields")
                    .into();
                Entry {
                    seal: LessSafeKey::new(seal),
                    mac: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key.secret),
                    id: key.id,
                }
            })
            .collect();
        let (plain_names, others) = (false, Class::Forwarder);
        Ok(Self { entries, plain_names, others, users: StaticUsers::default() })
    }

    /// Accepts plain TURN REST names, `expiry:user` or `expiry` alone (Prosody's), made by whoever has one of the first
    /// [four](PLAIN_TRIES) secrets. The expiry ends new allocations and live ones alike.
    #[must_use]
    pub fn accept_plain_names(self, accept: bool) -> Self {
        Self { plain_names: accept, ..self }
    }

    /// Lets plain names and static users reach peers outside, instead of the forwarder.
    #[must_use]
    pub fn others_are_external(self, external: bool) -> Self {
        Self { others: if external { Class::External } else { Class::Forwarder }, ..self }
    }

    /// Accepts long-lived users.
    #[must_use]
    pub fn accept_static_users(self, users: StaticUsers) -> Self {
        Self { users, ..self }
    }

    /// Whether every name that verifies says when it was minted and ends at its session limit.
    #[must_use]
    pub fn all_are_dated(&self) -> bool {
        !self.plain_names && self.users.is_empty()
    }

    /// Names of the keys, in order: the first mints.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.id.as_str())
    }

    /// Mints with the first key. `nonce` must be fresh random bytes for every call.
    ///
    /// # Errors
    /// Durations that make no sense ([`MintError`]).
    pub fn mint(
        &self,
        now: Unix,
        mint: &Mint<'_>,
        nonce: [u8; NONCE_LEN],
    ) -> Result<Minted, MintError> {
        if mint.ttl.as_secs() == 0 {
            return Err(MintError::NoLife);
        }
        if mint.session_limit.as_secs() < mint.ttl.as_secs() {
            return Err(MintError::SessionTooShort);
        }
        let entry = self.entries.first().ok_or(MintError::Seal)?;
        let allocate_by = now.as_secs().saturating_add(mint.ttl.as_secs());
        let live_until = now.as_secs().saturating_add(mint.session_limit.as_secs());

        let mut blob = Vec::with_capacity(BLOB);
        blob.extend_from_slice(&[VERSION, mint.class.to_byte(), u8::from(mint.room.is_some())]);
        blob.extend_from_slice(&SubjectHash::of(mint.subject).0);
        blob.extend_from_slice(&mint.room.map_or([0; 8], |room| RoomHash::of(room).0));
        blob.extend_from_slice(&live_until.to_be_bytes());
        blob.extend_from_slice(&now.as_micros().to_be_bytes());

        let mut username = format!("{allocate_by}:{}", entry.id);
        let tag = entry
            .seal
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(username.as_bytes()),
                &mut blob,
            )
            .map_err(|_| MintError::Seal)?;
        blob.extend_from_slice(tag.as_ref());
        blob.splice(0..0, nonce);

        username.push('.');
        URL_SAFE_NO_PAD.encode_string(&blob, &mut username);
        let credential = STANDARD.encode(hmac::sign(&entry.mac, username.as_bytes()));
        Ok(Minted {
            username,
            credential,
            allocate_by: Unix::from_secs(allocate_by),
            live_until: Unix::from_secs(live_until),
        })
    }

    /// Opens a username and computes the key its messages must be signed with.
    ///
    /// # Errors
    /// [`Refused`]: nothing else about the name can be trusted then.
    pub fn verify(&self, username: &str, realm: &str) -> Result<Verified, Refused> {
        if username.len() > MAX_USERNAME {
            return Err(Refused::Malformed);
        }
        match self.verify_sealed(username, realm) {
            Err(Refused::Malformed) => {
                self.verify_other(username, realm, 0).ok_or(Refused::Malformed)
            }
            outcome => outcome,
        }
    }

    /// What a name says if it was made with another secret than [`Self::verify`] took it to be:
    /// plain names do not tell. For `attempt` = 1, 2, … until `None`; `None` at once for all names
    /// that do tell.
    #[must_use]
    pub fn verify_again(&self, username: &str, realm: &str, attempt: usize) -> Option<Verified> {
        let short = username.len() <= MAX_USERNAME;
        let sealed = || self.verify_sealed(username, realm) != Err(Refused::Malformed);
        if !self.plain_names || !short || attempt == 0 || sealed() {
            return None;
        }
        self.verify_other(username, realm, attempt)
    }

    /// A plain name or a static user.
    fn verify_other(&self, username: &str, realm: &str, attempt: usize) -> Option<Verified> {
        let named =
            |user: &str, until: Unix, key: [u8; 16], key_sha256: Option<[u8; 32]>| Verified {
                credential: CredentialId::of(username),
                subject: SubjectHash::of(user),
                room: None,
                class: self.others,
                issued: Unix::default(),
                allocate_by: until,
                live_until: until,
                key,
                key_sha256,
            };
        let (digits, user) = match username.split_once(':') {
            Some(parts) => parts,
            None => match self.users.keys(username, realm) {
                Some((key, key_sha256)) if attempt == 0 => {
                    return Some(named(username, NEVER, key, key_sha256));
                }
                Some(_) => return None,
                // Nobody's name: whoever got it in the same second is one subject.
                None => (username, username),
            },
        };
        if !self.plain_names || user.is_empty() || !is_number(digits) {
            return None;
        }
        let expiry: u64 = digits.parse().ok()?;
        let entry = self.entries.iter().take(PLAIN_TRIES).nth(attempt)?;
        let (key, key_sha256) = minted_keys(username, realm, &entry.mac)?;
        Some(named(user, Unix::from_secs(expiry).min(NEVER), key, Some(key_sha256)))
    }

    fn verify_sealed(&self, username: &str, realm: &str) -> Result<Verified, Refused> {
        let (clear, text) = username.split_once('.').ok_or(Refused::Malformed)?;
        let (digits, id) = clear.split_once(':').ok_or(Refused::Malformed)?;
        if !is_number(digits) {
            return Err(Refused::Malformed);
        }
        let allocate_by: u64 = digits.parse().map_err(|_| Refused::Malformed)?;
        if text.len() != BLOB_TEXT {
            return Err(Refused::Malformed);
        }
        let mut blob = [0; BLOB_BUFFER];
        let length =
            URL_SAFE_NO_PAD.decode_slice(text, &mut blob).map_err(|_| Refused::Malformed)?;
        if length != BLOB {
            return Err(Refused::Malformed);
        }
        let entry = self.entries.iter().find(|entry| entry.id == id).ok_or(Refused::UnknownKey)?;

        let (nonce, sealed) =
            blob.split_first_chunk_mut::<NONCE_LEN>().ok_or(Refused::Malformed)?;
        let sealed = sealed.get_mut(..SEALED + TAG).ok_or(Refused::Malformed)?;
        let plain = entry
            .seal
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(clear.as_bytes()),
                sealed,
            )
            .map_err(|_| Refused::Forged)?;
        let sealed = read(plain).ok_or(Refused::Malformed)?;
        let (key, key_sha256) =
            minted_keys(username, realm, &entry.mac).ok_or(Refused::Malformed)?;
        Ok(Verified {
            credential: CredentialId::of(username),
            subject: sealed.subject,
            room: sealed.room,
            class: sealed.class,
            issued: sealed.issued,
            allocate_by: Unix::from_secs(allocate_by),
            live_until: sealed.live_until,
            key,
            key_sha256: Some(key_sha256),
        })
    }
}

/// What the blob says.
struct Sealed {
    subject: SubjectHash,
    room: Option<RoomHash>,
    class: Class,
    live_until: Unix,
    issued: Unix,
}

fn read(plain: &[u8]) -> Option<Sealed> {
    let (&[version, class, has_room], rest) = plain.split_first_chunk::<3>()?;
    let (subject, rest) = rest.split_first_chunk::<8>()?;
    let (room, rest) = rest.split_first_chunk::<8>()?;
    let (live_until, rest) = rest.split_first_chunk::<8>()?;
    let issued = rest.first_chunk::<8>()?;
    if version != VERSION {
        return None;
    }
    let room = match has_room {
        0 => None,
        1 => Some(RoomHash(*room)),
        _ => return None,
    };
    Some(Sealed {
        subject: SubjectHash(*subject),
        room,
        class: Class::from_byte(class)?,
        live_until: Unix::from_secs(u64::from_be_bytes(*live_until)),
        issued: Unix::from_micros(u64::from_be_bytes(*issued)),
    })
}

fn is_number(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The long-term keys of a name whose password is computed from it.
fn minted_keys(username: &str, realm: &str, mac: &hmac::Key) -> Option<([u8; 16], [u8; 32])> {
    let mut password = [0; 28];
    let length = STANDARD.encode_slice(hmac::sign(mac, username.as_bytes()), &mut password).ok()?;
    long_term_keys(username, realm, password.get(..length)?)
}

#[cfg(test)]
mod tests {
    use boring::hash::MessageDigest;
    use proptest::prelude::*;

    use super::*;

    const NOW: Unix = Unix::from_secs(1_780_000_000);
    const REALM: &str = "veilgate";

    fn key(id: &str, byte: u8) -> Key {
        Key { id: id.to_owned(), secret: vec![byte; 32] }
    }

    fn keys() -> Keys {
        Keys::new(vec![key("k1", 7)]).unwrap()
    }

    fn request() -> Mint<'static> {
        Mint {
            subject: "user-42",
            room: Some("lobby"),
            class: Class::Forwarder,
            ttl: Duration::from_secs(600),
            session_limit: Duration::from_secs(43_200),
        }
    }

    #[test]
    fn plain_names_of_every_back_end_are_read_and_reach_what_the_configuration_says() {
        let keys = keys().accept_plain_names(true);
        for (name, subject) in [
            // Nextcloud, Synapse, Prosody (Jitsi).
            ("1780000600:r4nd0m", "r4nd0m"),
            ("1780000600:@alice:example.org", "@alice:example.org"),
            ("1780000600", "1780000600"),
        ] {
            let verified = keys.verify(name, REALM).unwrap();
            assert_eq!(verified.subject, SubjectHash::of(subject), "{name}");
            assert_eq!(verified.live_until, Unix::from_secs(1_780_000_600));
            assert_eq!((verified.class, verified.room), (Class::Forwarder, None));
        }
        let keys = keys.others_are_external(true);
        assert_eq!(keys.verify("1780000600", REALM).unwrap().class, Class::External);
        let ours = keys.mint(NOW, &request(), [9; 12]).unwrap();
        assert_eq!(keys.verify(&ours.username, REALM).unwrap().class, Class::Forwarder);
        for name in ["", ":", "178000060x", "-1", "99999999999999999999999"] {
            assert_eq!(keys.verify(name, REALM), Err(Refused::Malformed), "{name}");
        }
        let keys = keys.accept_plain_names(false);
        assert_eq!(keys.verify("1780000600", REALM), Err(Refused::Malformed));
        // A static user may be called by a number; it is then nobody else.
        let users = StaticUsers::parse("1780000600:a-password-of-many-letters").unwrap();
        let keys = keys.accept_plain_names(true).accept_static_users(users);
        let verified = keys.verify("1780000600", REALM).unwrap();
        assert_eq!((verified.live_until, verified.class), (NEVER, Class::External));
        assert_eq!(keys.verify_again("1780000600", REALM, 1), None);
    }

    #[test]
    fn external_credential_says_so() {
        let keys = keys();
        let mint = Mint { class: Class::External, room: None, ..request() };
        let minted = keys.mint(NOW, &mint, [9; 12]).unwrap();
        assert_eq!(keys.verify(&minted.username, REALM).unwrap().class, Class::External);
    }

    #[test]
    fn minted_credential_verifies_to_what_it_was_minted_for() {
        let keys = keys();
        let minted = keys.mint(NOW, &request(), [9; 12]).unwrap();
        assert!(minted.username.starts_with("1780000600:k1."), "{}", minted.username);
        assert!(minted.username.len() <= MAX_USERNAME);
        assert_eq!(minted.credential.len(), 28);
        let verified = keys.verify(&minted.username, REALM).unwrap();
        assert_eq!(verified.subject, SubjectHash::of("user-42"));
        assert_eq!(verified.room, Some(RoomHash::of("lobby")));
        assert_eq!(verified.class, Class::Forwarder);
        assert_eq!(verified.issued, NOW);
        assert_eq!(verified.credential, CredentialId::of(&minted.username));
        assert_eq!(verified.allocate_by, Unix::from_secs(1_780_000_600));
        assert_eq!(verified.live_until, Unix::from_secs(1_780_043_200));
        assert_eq!(
            (minted.allocate_by, minted.live_until),
            (verified.allocate_by, verified.live_until)
        );
    }

    #[test]
    fn probe_credential_is_of_its_class_and_its_echo_beside_the_media_address() {
        let keys = keys();
        let minted = keys.mint(NOW, &Mint { class: Class::Probe, ..request() }, [9; 12]).unwrap();
        assert_eq!(keys.verify(&minted.username, REALM).unwrap().class, Class::Probe);
        let echo = echo_address("192.0.2.10:20000".parse().unwrap());
        assert_eq!(echo, Some("192.0.2.10:20001".parse().unwrap()));
        assert_eq!(echo_address("192.0.2.10:65535".parse().unwrap()), None);
    }

    #[test]
    fn credential_without_room_says_so() {
        let keys = keys();
        let minted = keys.mint(NOW, &Mint { room: None, ..request() }, [9; 12]).unwrap();
        assert_eq!(keys.verify(&minted.username, REALM).unwrap().room, None);
    }

    #[test]
    fn long_term_keys_are_digests_of_name_realm_and_password() {
        let keys = keys();
        let minted = keys.mint(NOW, &request(), [9; 12]).unwrap();
        let text = format!("{}:{REALM}:{}", minted.username, minted.credential);
        let expected = boring::hash::hash(MessageDigest::md5(), text.as_bytes()).unwrap();
        assert_eq!(keys.verify(&minted.username, REALM).unwrap().key, expected.as_ref());
        let expected_sha256 = boring::sha::sha256(text.as_bytes());
        assert_eq!(keys.verify(&minted.username, REALM).unwrap().key_sha256, Some(expected_sha256));
        let other = keys.verify(&minted.username, "elsewhere").unwrap();
        assert_ne!(other.key, expected.as_ref(), "the realm matters");
    }

    #[test]
    fn credential_is_the_one_another_implementation_computes() {
        // From an independent program: HKDF-SHA256, AES-128-GCM, HMAC-SHA1 and MD5 of other
        // libraries over the layout that the head of this file describes.
        let username = "1780000600:k1.AAECAwQFBgcICQoLLL4EmTiAOw9KkSL1vPcp3WHtBF6a56C4GQjlthGAzLzg\
                        u86NCIpbbl5vn0Gr7HCucQ-Y";
        let key = [
            0x99, 0x34, 0x4c, 0x0d, 0xd3, 0x1d, 0x1b, 0x5f, 0x77, 0x2d, 0x44, 0x37, 0x05, 0x76,
            0x49, 0x55,
        ];
        let ring = vec![Key { id: "k1".to_owned(), secret: (0..32).collect() }];
        let keys = Keys::new(ring).unwrap();
        let nonce = std::array::from_fn(|index| index as u8);
        let minted = keys.mint(NOW, &request(), nonce).unwrap();
        assert_eq!(minted.username, username);
        assert_eq!(minted.credential, "tx5lv9pg9ICZVQE2iJ/GdJywoNo=");
        assert_eq!(keys.verify(username, REALM).unwrap().key, key);
    }

    #[test]
    fn every_single_bit_of_the_username_counts() {
        let keys = Keys::new(vec![key("k1", 7), key("k2", 8)]).unwrap();
        let minted = keys.mint(NOW, &request(), [9; 12]).unwrap();
        for index in 0..minted.username.len() {
            for bit in 0..7 {
                let mut bytes = minted.username.clone().into_bytes();
                bytes[index] ^= 1 << bit;
                let altered = String::from_utf8(bytes).unwrap();
                assert!(keys.verify(&altered, REALM).is_err(), "{altered}");
            }
        }
    }

    #[test]
    fn longer_life_cannot_be_claimed() {
        let keys = keys();
        let minted = keys.mint(NOW, &request(), [9; 12]).unwrap();
        let longer = minted.username.replacen("1780000600", "1780999999", 1);
        assert_eq!(keys.verify(&longer, REALM), Err(Refused::Forged));
        let padded = format!("0{}", minted.username);
        assert_eq!(keys.verify(&padded, REALM), Err(Refused::Forged));
    }

    #[test]
    fn key_of_the_same_name_and_another_secret_is_a_forger() {
        let minted = Keys::new(vec![key("k1", 8)]).unwrap().mint(NOW, &request(), [9; 12]).unwrap();
        assert_eq!(keys().verify(&minted.username, REALM), Err(Refused::Forged));
    }

    #[test]
    fn rotated_key_still_verifies_until_it_is_removed() {
        let old = keys().mint(NOW, &request(), [9; 12]).unwrap();
        let rotated = Keys::new(vec![key("k2", 8), key("k1", 7)]).unwrap();
        assert!(rotated.verify(&old.username, REALM).is_ok());
        let new = rotated.mint(NOW, &request(), [9; 12]).unwrap();
        assert!(new.username.contains(":k2."));
        assert_eq!(keys().verify(&new.username, REALM), Err(Refused::UnknownKey));
        assert_eq!(rotated.ids().collect::<Vec<_>>(), ["k2", "k1"]);
    }

    #[test]
    fn names_of_another_form_are_malformed() {
        let keys = keys();
        let good = keys.mint(NOW, &request(), [9; 12]).unwrap().username;
        for name in [
            "",
            "alice",
            "1780000600:alice",
            ":.",
            "1:k1.",
            "1:k1.AAAA",
            "-5:k1.AAAA",
            &format!("{good}A"),
            &format!("{good}="),
            &format!(" {good}"),
            &format!("+{good}"),
            &good[..good.len() - 1],
            &"9".repeat(500),
            &good.replacen("1780000600", "99999999999999999999999", 1),
        ] {
            assert_eq!(keys.verify(name, REALM), Err(Refused::Malformed), "{name}");
        }
    }

    /// What any TURN REST back end computes.
    fn plain_key(secret: &[u8], name: &str) -> [u8; 16] {
        let mac = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
        let password = STANDARD.encode(hmac::sign(&mac, name.as_bytes()));
        long_term_keys(name, REALM, password.as_bytes()).unwrap().0
    }

    #[test]
    fn plain_names_are_good_only_where_they_are_let_in() {
        let name = "1780000600:alice@example.org";
        assert_eq!(keys().verify(name, REALM), Err(Refused::Malformed));
        assert_eq!(keys().verify_again(name, REALM, 1), None);
        let keys = keys().accept_plain_names(true);
        let verified = keys.verify(name, REALM).unwrap();
        assert_eq!(verified.key, plain_key(&[7; 32], name));
        assert_eq!(verified.subject, SubjectHash::of("alice@example.org"));
        assert_eq!((verified.room, verified.issued), (None, Unix::default()));
        let expiry = Unix::from_secs(1_780_000_600);
        assert_eq!((verified.allocate_by, verified.live_until), (expiry, expiry));
        assert!(!keys.all_are_dated());
        for name in ["alice", "1780000600:", ":alice", "+5:alice", "99999999999999999999:alice"] {
            assert_eq!(keys.verify(name, REALM), Err(Refused::Malformed), "{name}");
        }
        let endless = keys.verify("18446744073709551615:alice", REALM).unwrap();
        assert_eq!(endless.live_until, NEVER);
    }

    #[test]
    fn plain_names_are_tried_with_each_of_the_first_secrets() {
        let ring = |ids: &[u8]| {
            let keys = ids.iter().map(|id| key(&format!("k{id}"), *id)).collect();
            Keys::new(keys).unwrap().accept_plain_names(true)
        };
        let name = "1780000600:alice";
        let keys = ring(&[1, 2, 3, 4, 5]);
        assert_eq!(keys.verify(name, REALM).unwrap().key, plain_key(&[1; 32], name));
        for attempt in 1..4 {
            let again = keys.verify_again(name, REALM, attempt).unwrap();
            assert_eq!(again.key, plain_key(&[attempt as u8 + 1; 32], name));
        }
        assert_eq!(keys.verify_again(name, REALM, 4), None, "the work has a bound");
        let sealed = keys.mint(NOW, &request(), [9; 12]).unwrap();
        assert_eq!(keys.verify_again(&sealed.username, REALM, 1), None, "it names its key");
    }

    #[test]
    fn altered_sealed_name_is_no_plain_one() {
        let keys = keys().accept_plain_names(true);
        let minted = keys.mint(NOW, &request(), [9; 12]).unwrap();
        let longer = minted.username.replacen("1780000600", "1780999999", 1);
        assert_eq!(keys.verify(&longer, REALM), Err(Refused::Forged));
    }

    #[test]
    fn static_users_are_their_own_subjects_and_never_expire() {
        let users = StaticUsers::parse("printer:0123456789abcdef").unwrap();
        let keys = keys().accept_static_users(users);
        let verified = keys.verify("printer", REALM).unwrap();
        assert_eq!(verified.key, long_term_keys("printer", REALM, b"0123456789abcdef").unwrap().0);
        assert_eq!(verified.subject, SubjectHash::of("printer"));
        assert_eq!((verified.allocate_by, verified.live_until), (NEVER, NEVER));
        assert_eq!(keys.verify("scanner", REALM), Err(Refused::Malformed));
        assert_eq!(keys.verify_again("printer", REALM, 1), None);
        assert!(!keys.all_are_dated());
    }

    #[test]
    fn senseless_lives_are_not_minted() {
        let none = Mint { ttl: Duration::from_millis(900), ..request() };
        assert_eq!(keys().mint(NOW, &none, [0; 12]), Err(MintError::NoLife));
        let short = Mint { session_limit: Duration::from_secs(1), ..request() };
        assert_eq!(keys().mint(NOW, &short, [0; 12]), Err(MintError::SessionTooShort));
        let endless = Mint { ttl: Duration::MAX, session_limit: Duration::MAX, ..request() };
        let minted = keys().mint(NOW, &endless, [0; 12]).unwrap();
        assert!(keys().verify(&minted.username, REALM).is_ok(), "saturates");
    }

    #[test]
    fn unsound_rings_are_refused() {
        assert_eq!(Keys::new(vec![]).err(), Some(KeyError::NoKeys));
        let weak = Key { id: "k".to_owned(), secret: vec![1; 15] };
        assert!(matches!(Keys::new(vec![weak]), Err(KeyError::Weak { bytes: 15, .. })));
        assert!(matches!(
            Keys::new(vec![key("k", 1), key("k", 2)]),
            Err(KeyError::Duplicate { .. })
        ));
        for id in ["", "a.b", "a:b", "é", &"x".repeat(33)] {
            assert_eq!(Keys::new(vec![key(id, 1)]).err(), Some(KeyError::BadId), "{id}");
        }
    }

    #[test]
    fn longest_names_fit() {
        let keys = Keys::new(vec![key(&"x".repeat(32), 1)]).unwrap();
        let endless = Mint { ttl: Duration::MAX, session_limit: Duration::MAX, ..request() };
        assert!(keys.mint(NOW, &endless, [0; 12]).unwrap().username.len() <= MAX_USERNAME);
    }

    #[test]
    fn nothing_secret_prints() {
        let keys = keys();
        let minted = keys.mint(NOW, &request(), [9; 12]).unwrap();
        let verified = keys.verify(&minted.username, REALM).unwrap();
        let text = format!("{keys:?} {minted:?} {verified:?} {:?}", key("k", 1));
        assert!(!text.contains(&minted.credential) && !text.contains("[1, 1"), "{text}");
    }

    proptest! {
        #[test]
        fn no_name_panics(name in "\\PC{0,200}", realm in "\\PC{0,20}") {
            prop_assert!(keys().verify(&name, &realm).is_err());
        }

        #[test]
        fn no_name_of_the_right_shape_panics(at in 0u64.., blob in "[A-Za-z0-9_-]{84}") {
            let name = format!("{at}:k1.{blob}");
            prop_assert!(keys().verify(&name, REALM).is_err());
        }
    }
}
