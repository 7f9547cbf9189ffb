//! The admin key: who holds it may mint, look at and revoke TURN credentials.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, digest};

/// Fewest characters of an admin key: base64 of 24 random bytes has as many.
pub const MIN_KEY: usize = 32;
/// Most characters of an admin key.
pub const MAX_KEY: usize = 512;

/// An admin key, as its hash: the key itself is forgotten once it is read.
#[derive(Clone)]
pub struct AdminKey {
    hash: Digest,
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminKey(hidden)")
    }
}

/// Why a text is no admin key. No message repeats it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdminKeyError {
    /// Shorter than [`MIN_KEY`] or longer than [`MAX_KEY`].
    #[error(
        "an admin key has {MIN_KEY} to {MAX_KEY} characters, not {0} (try: openssl rand -base64 32)"
    )]
    Length(usize),
    /// A character that cannot stand in an HTTP header.
    #[error("an admin key is one line of visible ASCII characters")]
    Character,
}

impl AdminKey {
    /// From the text of a key file: one line; white space around it does not count.
    ///
    /// # Errors
    /// [`AdminKeyError`].
    pub fn read(text: &str) -> Result<Self, AdminKeyError> {
        let key = check(text)?;
        Ok(Self { hash: digest(&SHA256, key.as_bytes()) })
    }

    /// Whether `presented` is the key. Takes the same time wherever they differ.
    #[must_use]
    pub fn is(&self, presented: &str) -> bool {
        let presented = digest(&SHA256, presented.as_bytes());
        verify_slices_are_equal(self.hash.as_ref(), presented.as_ref()).is_ok()
    }
}

/// The key in the text of a key file, for who has to present it.
///
/// # Errors
/// [`AdminKeyError`].
pub fn check(text: &str) -> Result<&str, AdminKeyError> {
    let key = text.trim();
    if !(MIN_KEY..=MAX_KEY).contains(&key.len()) {
        return Err(AdminKeyError::Length(key.len()));
    }
    if !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(AdminKeyError::Character);
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_key_opens() {
        let text = "0123456789abcdef0123456789abcdef";
        let key = AdminKey::read(&format!("  {text}\n")).unwrap();
        assert!(key.is(text));
        for wrong in ["", "0", &text[1..], &format!("{text}0"), &text.to_uppercase()] {
            assert!(!key.is(wrong), "{wrong}");
        }
        assert!(!format!("{key:?}").contains("0123"));
    }

    #[test]
    fn short_long_and_broken_keys_are_refused() {
        assert_eq!(AdminKey::read("secret\n").err(), Some(AdminKeyError::Length(6)));
        assert_eq!(AdminKey::read(&"x".repeat(513)).err(), Some(AdminKeyError::Length(513)));
        let two_lines = format!("{}\n{}", "x".repeat(20), "y".repeat(20));
        assert_eq!(AdminKey::read(&two_lines).err(), Some(AdminKeyError::Character));
    }
}
