//! Stateless nonces: `base64url(timestamp, first 12 bytes of HMAC-SHA256(key, address, timestamp))`.
//!
//! A nonce proves that whoever shows it receives at the address it was made for; nothing is stored.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::time::Unix;

/// How long a nonce is honoured, seconds. The next key may be put in place no sooner than this
/// after the last, or nonces of the key before the previous would be refused while fresh.
pub const LIFETIME_SECS: u64 = 3600;

/// Characters of a nonce.
pub(super) const TEXT: usize = 22;

const MAC: usize = 12;
const RAW: usize = 4 + MAC;

/// The keys of all shards' nonces: one makes and checks them, the one before it still checks.
#[derive(Clone)]
pub struct NonceKeys {
    current: hmac::Key,
    previous: Option<hmac::Key>,
}

impl fmt::Debug for NonceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKeys(hidden)")
    }
}

impl NonceKeys {
    /// From 32 random bytes each.
    #[must_use]
    pub fn new(current: [u8; 32], previous: Option<[u8; 32]>) -> Self {
        let key = |bytes: [u8; 32]| hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        Self { current: key(current), previous: previous.map(key) }
    }

    /// A nonce for a client, good for [`LIFETIME_SECS`].
    pub(super) fn mint(&self, now: Unix, client: SocketAddr) -> [u8; TEXT] {
        // Seconds wrap in 2106; only differences are ever used.
        let stamp = (now.as_secs() as u32).to_be_bytes();
        let mut raw = [0; RAW];
        raw[..4].copy_from_slice(&stamp);
        raw[4..].copy_from_slice(&mac(&self.current, client, stamp));
        let mut text = [b'A'; TEXT];
        // 16 bytes are 22 characters, so this cannot fail; the fallback is a nonce nobody accepts.
        let _ = URL_SAFE_NO_PAD.encode_slice(raw, &mut text);
        text
    }

    /// Whether `text` was made for this client no longer than [`LIFETIME_SECS`] ago.
    pub(super) fn verify(&self, now: Unix, client: SocketAddr, text: &[u8]) -> bool {
        let mut raw = [0; RAW + 2];
        if text.len() != TEXT || URL_SAFE_NO_PAD.decode_slice(text, &mut raw) != Ok(RAW) {
            return false;
        }
        let Some((stamp, rest)) = raw.split_first_chunk::<4>() else { return false };
        let Some(shown) = rest.first_chunk::<MAC>() else { return false };
        // Both ways: a wall clock set back must not turn fresh nonces away.
        let age = (now.as_secs() as u32).wrapping_sub(u32::from_be_bytes(*stamp)).cast_signed();
        if u64::from(age.unsigned_abs()) > LIFETIME_SECS {
            return false;
        }
        [Some(&self.current), self.previous.as_ref()].into_iter().flatten().any(|key| {
            constant_time::verify_slices_are_equal(&mac(key, client, *stamp), shown).is_ok()
        })
    }
}

fn mac(key: &hmac::Key, client: SocketAddr, stamp: [u8; 4]) -> [u8; MAC] {
    let ip = match client.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut input = [0; 16 + 2 + 4];
    input[..16].copy_from_slice(&ip);
    input[16..18].copy_from_slice(&client.port().to_be_bytes());
    input[18..].copy_from_slice(&stamp);
    let mut out = [0; MAC];
    out.copy_from_slice(&hmac::sign(key, &input).as_ref()[..MAC]);
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const NOW: Unix = Unix::from_secs(1_780_000_000);

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 7], port))
    }

    #[test]
    fn nonce_is_good_only_for_its_address_and_hour() {
        let keys = NonceKeys::new([1; 32], None);
        let nonce = keys.mint(NOW, client(5000));
        let at = |secs: u64| Unix::from_secs(1_780_000_000 + secs);
        assert!(keys.verify(NOW, client(5000), &nonce));
        assert!(keys.verify(at(3600), client(5000), &nonce));
        assert!(!keys.verify(at(3601), client(5000), &nonce));
        assert!(
            keys.verify(Unix::from_secs(1_779_999_000), client(5000), &nonce),
            "clock set back"
        );
        assert!(!keys.verify(NOW, client(5001), &nonce));
        assert!(!keys.verify(NOW, "198.51.100.8:5000".parse().unwrap(), &nonce));
    }

    #[test]
    fn previous_key_is_honoured_and_the_one_before_is_not() {
        let old = NonceKeys::new([1; 32], None).mint(NOW, client(1));
        assert!(NonceKeys::new([2; 32], Some([1; 32])).verify(NOW, client(1), &old));
        assert!(!NonceKeys::new([3; 32], Some([2; 32])).verify(NOW, client(1), &old));
    }

    #[test]
    fn altered_nonces_are_refused() {
        let keys = NonceKeys::new([1; 32], Some([2; 32]));
        let nonce = keys.mint(NOW, client(1));
        for at in 0..TEXT {
            for with in [b'A', b'B', b'_', b'=', 0, 0xff] {
                let mut altered = nonce;
                altered[at] = with;
                assert_eq!(keys.verify(NOW, client(1), &altered), altered == nonce);
            }
        }
        assert!(!keys.verify(NOW, client(1), b""));
        assert!(!keys.verify(NOW, client(1), &nonce[..21]));
        assert!(!keys.verify(NOW, client(1), &[b'A'; 763]));
    }

    #[test]
    fn nonces_of_different_clients_never_collide() {
        let keys = NonceKeys::new([1; 32], None);
        let mut seen = HashSet::new();
        for a in 0..4_u8 {
            for port in 1..=u16::MAX {
                assert!(seen.insert(keys.mint(NOW, SocketAddr::from(([198, 51, 100, a], port)))));
            }
        }
    }
}
