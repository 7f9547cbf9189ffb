//! Secrets that nothing prints: keys with a name, rings of them, and the text form of a key file.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

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

/// A fault in the text of a key ring.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LineFault {
    /// 1-based line.
    pub line: usize,
    /// What is wrong; never repeats the secret.
    pub message: String,
}

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Reads the text of a key file: one `id:base64-secret` a line, blank lines and lines that begin
/// with `#` aside. The first key mints; the others still verify.
///
/// # Errors
/// Every fault of the text, in order of lines.
pub fn parse_ring(text: &str) -> Result<Vec<Key>, Vec<LineFault>> {
    let mut keys: Vec<Key> = Vec::new();
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_key(line) {
            Ok(key) if keys.iter().any(|other| other.id == key.id) => {
                let message = KeyError::Duplicate { id: key.id }.to_string();
                faults.push(LineFault { line: index + 1, message });
            }
            Ok(_) if keys.len() == MAX_KEYS => {
                faults.push(LineFault { line: index + 1, message: KeyError::TooMany.to_string() });
                break;
            }
            Ok(key) => keys.push(key),
            Err(message) => faults.push(LineFault { line: index + 1, message }),
        }
    }
    if keys.is_empty() && faults.is_empty() {
        let message = "there is no key: one line each, id:base64-secret".to_owned();
        faults.push(LineFault { line: 1, message });
    }
    if faults.is_empty() { Ok(keys) } else { Err(faults) }
}

fn parse_key(line: &str) -> Result<Key, String> {
    let (id, secret) = line
        .split_once(':')
        .ok_or_else(|| "a key is written id:base64-secret, and there is no colon".to_owned())?;
    let secret = secret.trim();
    let secret = STANDARD
        .decode(secret)
        .or_else(|_| URL_SAFE.decode(secret))
        .map_err(|_| "the part after the colon is not base64 (try: openssl rand -base64 32)")?;
    let key = Key { id: id.trim().to_owned(), secret };
    key.check().map_err(|error| error.to_string())?;
    Ok(key)
}

/// The line of a key file that holds `key`.
#[must_use]
pub fn write_key(key: &Key) -> String {
    format!("{}:{}", key.id, STANDARD.encode(&key.secret))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ring_is_read_in_order_with_comments_and_both_alphabets() {
        let text = "# ours\n\nnew://///////////////////w==\r\n old : _____________________w \n";
        let keys = parse_ring(text).unwrap();
        assert_eq!(keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), ["new", "old"]);
        assert!(keys.iter().all(|key| key.secret == [0xff; 16]));
        let again: Vec<String> = keys.iter().map(write_key).collect();
        assert_eq!(parse_ring(&again.join("\n")).unwrap(), keys);
    }

    #[test]
    fn every_faulty_line_is_named_and_no_secret_repeated() {
        let text = "k1:c2hvcnRzZWNyZXQ=\nplain\nk2:not base64!\nk3://///////////////////w\n\
                    k3://///////////////////w\nbad.id://///////////////////w\n";
        let faults = parse_ring(text).unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [1, 2, 3, 5, 6]);
        let all = format!("{faults:?}");
        for secret in ["c2hv", "shortsecret", "plain\"", "not base64!", "////"] {
            assert!(!all.contains(secret), "{all}");
        }
    }

    #[test]
    fn empty_ring_is_a_fault() {
        assert_eq!(parse_ring("# nothing\n").unwrap_err().len(), 1);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|\n|:){0,120}") {
            let _ = parse_ring(&text);
        }
    }
}
