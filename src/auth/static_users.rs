//! Long-lived TURN users from a file, for clients that cannot fetch a credential: an option that
//! is off unless asked for.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::digest;
use boring::hash::{Hasher, MessageDigest};

use super::secret::LineFault;

/// Fewest characters of a password: whoever sees one signed request can try guesses at leisure.
pub const MIN_PASSWORD: usize = 16;
/// Most characters of a name or a password.
pub const MAX_TEXT: usize = 128;
/// Most users.
pub const MAX_USERS: usize = 10_000;

#[derive(Clone, PartialEq, Eq)]
enum Secret {
    Password(Box<str>),
    /// `MD5(user ":" realm ":" password)`: good for the one realm it was computed for.
    Ha1([u8; 16]),
}

/// Users and their secrets. Nothing of them prints.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct StaticUsers {
    users: HashMap<Box<str>, Secret>,
}

impl fmt::Debug for StaticUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StaticUsers({}, hidden)", self.users.len())
    }
}

impl StaticUsers {
    /// Reads the text of a users file: one `user:password` or `user:0x<32 hexadecimal digits>`
    /// (the key of RFC 8489 section 9.2.2) a line, blank lines and lines that begin with `#`
    /// aside. Names and passwords are visible ASCII, so that no string preparation is needed.
    ///
    /// # Errors
    /// Every fault of the text, in order of lines; none repeats a secret.
    pub fn parse(text: &str) -> Result<Self, Vec<LineFault>> {
        let mut users = HashMap::new();
        let mut faults = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut fault = |message: String| faults.push(LineFault { line: index + 1, message });
            match user(line) {
                Ok((name, _)) if users.contains_key(name) => {
                    fault(format!("the user \"{name}\" is there twice"));
                }
                Ok(_) if users.len() == MAX_USERS => {
                    fault(format!("there are more than {MAX_USERS} users"));
                    break;
                }
                Ok((name, secret)) => {
                    users.insert(Box::from(name), secret);
                }
                Err(message) => fault(message),
            }
        }
        if faults.is_empty() { Ok(Self { users }) } else { Err(faults) }
    }

    /// Number of users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The long-term keys of a user.
    pub(super) fn keys(&self, name: &str, realm: &str) -> Option<LongTermKeys> {
        match self.users.get(name)? {
            Secret::Ha1(key) => Some((*key, None)),
            Secret::Password(password) => long_term_keys(name, realm, password.as_bytes()),
        }
    }
}

/// By MD5 and, where the password is known, by SHA-256.
pub(super) type LongTermKeys = ([u8; 16], Option<[u8; 32]>);

/// MD5 and SHA-256 of `username ":" realm ":" password`, RFC 8489 sections 9.2.2 and 18.5.1.2.
pub(super) fn long_term_keys(username: &str, realm: &str, password: &[u8]) -> Option<LongTermKeys> {
    let mut md5 = Hasher::new(MessageDigest::md5()).ok()?;
    let mut sha256 = digest::Context::new(&digest::SHA256);
    for part in [username.as_bytes(), b":", realm.as_bytes(), b":", password] {
        md5.update(part).ok()?;
        sha256.update(part);
    }
    let md5 = md5.finish().ok()?.as_ref().try_into().ok()?;
    Some((md5, sha256.finish().as_ref().try_into().ok()))
}

fn user(line: &str) -> Result<(&str, Secret), String> {
    let (name, secret) = line.split_once(':').ok_or("a user is written user:password")?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    if name.is_empty() || name.len() > MAX_TEXT || !plain(name) {
        return Err(format!("a user's name has 1 to {MAX_TEXT} visible ASCII characters"));
    }
    if let Some(digits) = secret.strip_prefix("0x") {
        let hex = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let key = u128::from_str_radix(digits, 16).ok().filter(|_| hex);
        let key =
            key.ok_or("after 0x come the 32 hexadecimal digits of MD5(user:realm:password)")?;
        return Ok((name, Secret::Ha1(key.to_be_bytes())));
    }
    if secret.len() < MIN_PASSWORD || secret.len() > MAX_TEXT || !plain(secret) {
        return Err(format!(
            "the password of \"{name}\" must have {MIN_PASSWORD} to {MAX_TEXT} visible ASCII \
             characters (try: openssl rand -base64 18)"
        ));
    }
    Ok((name, Secret::Password(secret.into())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn password_and_its_digest_give_the_same_key() {
        let password = "correct-horse-battery";
        let keys = long_term_keys("alice", "veilgate", password.as_bytes()).unwrap();
        assert!(keys.1.is_some());
        let digits = u128::from_be_bytes(keys.0);
        let text = format!("# ours\n\nalice:{password}\nbob:0x{digits:032X}\n");
        let users = StaticUsers::parse(&text).unwrap();
        assert_eq!(users.len(), 2);
        assert_eq!(users.keys("alice", "veilgate"), Some(keys));
        assert_eq!(users.keys("bob", "any realm"), Some((keys.0, None)));
        assert_ne!(users.keys("alice", "elsewhere"), Some(keys));
        assert_eq!(users.keys("carol", "veilgate"), None);
        assert_eq!(format!("{users:?}"), "StaticUsers(2, hidden)");
    }

    #[test]
    fn long_term_key_is_that_of_the_rfc() {
        // RFC 8489 section 9.2.2's own example.
        let (key, _) = long_term_keys("user", "realm", b"pass").unwrap();
        assert_eq!(u128::from_be_bytes(key), 0x8493_fbc5_3ba5_82fb_4c04_4c45_6bdc_40eb);
    }

    #[test]
    fn every_faulty_line_is_named_and_no_password_repeated() {
        let text = "alice\nbob:tooshort\n:0123456789abcdef\ncarol:0x1234\ndave:pass word with \
                    blanks\nerin:0123456789abcdef\nerin:0123456789abcdef\n+f:0x+000000000000000000000000000000f\n";
        let faults = StaticUsers::parse(text).unwrap_err();
        assert_eq!(
            faults.iter().map(|fault| fault.line).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 7, 8]
        );
        let all = format!("{faults:?}");
        for secret in ["tooshort", "0x1234", "pass word", "0123456789abcdef"] {
            assert!(!all.contains(secret), "{all}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|\n|:|0x){0,120}") {
            let _ = StaticUsers::parse(&text);
        }
    }
}
