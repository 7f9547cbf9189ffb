//! Keys of MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256 (RFC 8489 sections 9 and 14).

use std::fmt;

use aws_lc_rs::{digest, hmac};
use boring::hash::{Hasher, MessageDigest};

/// A key of MESSAGE-INTEGRITY (HMAC-SHA1, section 14.5).
#[derive(Clone)]
pub struct IntegrityKey(pub(super) hmac::Key);

impl fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntegrityKey(hidden)")
    }
}

impl IntegrityKey {
    /// From the key itself.
    #[must_use]
    pub fn from_bytes(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key))
    }

    /// The short-term key: the password (section 9.1.1). The caller passes it through OpaqueString
    /// first if it is not plain ASCII.
    #[must_use]
    pub fn short_term(password: &[u8]) -> Self {
        Self::from_bytes(password)
    }

    /// The long-term key: MD5 of `username:realm:password` (section 9.2.2). `None` only if the
    /// library refuses MD5.
    #[must_use]
    pub fn long_term(username: &str, realm: &str, password: &str) -> Option<Self> {
        Some(Self::from_bytes(&long_term_key(username, realm, password)?))
    }
}

/// MD5 of `username:realm:password`, the long-term key of section 9.2.2.
#[must_use]
pub fn long_term_key(username: &str, realm: &str, password: &str) -> Option<[u8; 16]> {
    let mut hasher = Hasher::new(MessageDigest::md5()).ok()?;
    for part in [username, ":", realm, ":", password] {
        hasher.update(part.as_bytes()).ok()?;
    }
    hasher.finish().ok()?.as_ref().try_into().ok()
}

/// A key of MESSAGE-INTEGRITY-SHA256 (HMAC-SHA256, section 14.6). Which key it is, MD5 or SHA-256
/// of name, realm and password, is a matter of the password algorithm.
#[derive(Clone)]
pub struct IntegrityKeySha256(pub(super) hmac::Key);

impl fmt::Debug for IntegrityKeySha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntegrityKeySha256(hidden)")
    }
}

impl IntegrityKeySha256 {
    /// From the key itself.
    #[must_use]
    pub fn from_bytes(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }
}

/// SHA-256 of `username:realm:password`, the long-term key of section 18.5.1.2.
#[must_use]
pub fn long_term_key_sha256(username: &str, realm: &str, password: &str) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [username, ":", realm, ":", password] {
        context.update(part.as_bytes());
    }
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}
