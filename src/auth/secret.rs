//! Secrets that nothing prints: keys with a name, rings of them, and the text form of a key file.

use std::fmt;

/// Fewest bytes a secret may have: 128 bits.
pub const MIN_SECRET: usize = 16;
/// Most bytes a secret may have.
pub const MAX_SECRET: usize = 1024;
/// Longest key id, in characters.
pub const MAX_ID: usize = 32;
/// Most keys a ring may hold.
pub const MAX_KEYS: usize = 64;

/// A named secret. The name travels in the clear with what it signs; the secret never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// 1 to 32 letters, digits, `-` or `_`.
    pub id: String,
    /// 16 to 1024 bytes, from a good source of randomness.
    pub secret: Vec<u8>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, hidden)", self.id)
    }
}

/// Why keys cannot be used. No message repeats a secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyError {
    /// A ring needs at least one key.
    #[error("there is no key")]
    NoKeys,
    /// More than [`MAX_KEYS`].
    #[error("there are more than {MAX_KEYS} keys")]
    TooMany,
    /// The name is not 1 to 32 letters, digits, `-` or `_`.
    #[error("a key id has 1 to {MAX_ID} letters, digits, '-' or '_'")]
    BadId,
    /// The secret is shorter than [`MIN_SECRET`].
    #[error(
        "the secret of key \"{id}\" has {bytes} bytes: at least {MIN_SECRET} are needed (try: openssl rand -base64 32)"
    )]
    Weak {
        /// The key's name.
        id: String,
        /// Length of its secret.
        bytes: usize,
    },
    /// The secret is longer than [`MAX_SECRET`].
    #[error("the secret of key \"{id}\" is longer than {MAX_SECRET} bytes")]
    TooLong {
        /// The key's name.
        id: String,
    },
    /// Two keys share a name.
    #[error("the key id \"{id}\" is used twice")]
    Duplicate {
        /// The shared name.
        id: String,
    },
}

impl Key {
    /// Checks the name and the length of the secret.
    ///
    /// # Errors
    /// [`KeyError::BadId`], [`KeyError::Weak`] or [`KeyError::TooLong`].
    pub fn check(&self) -> Result<(), KeyError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if self.id.is_empty() || self.id.len() > MAX_ID || !self.id.bytes().all(plain) {
            return Err(KeyError::BadId);
        }
        if self.secret.len() < MIN_SECRET {
            return Err(KeyError::Weak { id: self.id.clone(), bytes: self.secret.len() });
        }
        if self.secret.len() > MAX_SECRET {
            return Err(KeyError::TooLong { id: self.id.clone() });
        }
        Ok(())
    }
}

/// Checks a whole ring: at least one key, each sound, no name twice.
///
/// # Errors
/// The first [`KeyError`] met.
pub fn check_ring(keys: &[Key]) -> Result<(), KeyError> {
    if keys.is_empty() {
        return Err(KeyError::NoKeys);
    }
    if keys.len() > MAX_KEYS {
        return Err(KeyError::TooMany);
    }
    for (index, key) in keys.iter().enumerate() {
        key.check()?;
        if keys.iter().take(index).any(|other| other.id == key.id) {
            return Err(KeyError::Duplicate { id: key.id.clone() });
        }
    }
    Ok(())
}
