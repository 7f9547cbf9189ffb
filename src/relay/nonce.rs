//! Stateless nonces: `obMatJos2`, the security features, then
//! `base64url(24-bit timestamp, first 8 bytes of HMAC-SHA256(key, address, features, timestamp))`.
//!
//! A nonce proves that whoever shows it receives at the address it was made for; nothing is stored.
//! Its start tells clients of RFC 8489 that password algorithms are offered (section 9.2): who
//! strips that on the way (bid-down) is found out, for the rest of the nonce depends on it. It is
//! as short as that allows: a challenge is what a reflector would have us send.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Relay;
use crate::metrics::{Counters, Id};
use crate::time::{Mono, Unix};

/// How long a nonce is honoured, seconds. A key is replaced no sooner than this after the one
/// before it, or nonces of that one would be refused while fresh.
pub const LIFETIME_SECS: u64 = 3600;

/// Characters of a nonce.
pub(super) const TEXT: usize = 28;

/// The nonce cookie and, in base64, the security feature set of RFC 8489 section 18.1: bit 0,
/// "password algorithms", is set; bit 1, "username anonymity", is not.
pub(super) const COOKIE: &[u8; 13] = b"obMatJos2gAAA";

const STAMP: usize = 3;
/// Guessing one means 2^63 requests from a source that is not one's own, for nothing but the
/// right to be told that one's credentials are wrong.
const MAC: usize = 8;
const RAW: usize = STAMP + MAC;

/// What a shown nonce is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shown {
    /// Made for this client, not too long ago.
    Fresh,
    /// Too old, made for another, or made up: 438.
    Stale,
    /// Made for this client, but with another beginning: somebody wants the client to believe
    /// that there is no choice of password algorithms: 400.
    Altered,
}

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

/// A fresh key on its way to the shards.
#[derive(Clone, Copy)]
pub struct NonceKey([u8; 32]);

impl NonceKey {
    /// Of 32 random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(hidden)")
    }
}

impl NonceKeys {
    /// From 32 random bytes each.
    #[must_use]
    pub fn new(current: [u8; 32], previous: Option<[u8; 32]>) -> Self {
        let key = |bytes: [u8; 32]| hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        Self { current: key(current), previous: previous.map(key) }
    }

    /// A fresh key; the one that was current becomes the previous one.
    fn replace(&mut self, key: &NonceKey) {
        let fresh = hmac::Key::new(hmac::HMAC_SHA256, &key.0);
        self.previous = Some(std::mem::replace(&mut self.current, fresh));
    }

    /// A nonce for a client, good for [`LIFETIME_SECS`].
    pub(super) fn mint(&self, now: Unix, client: SocketAddr) -> [u8; TEXT] {
        // Seconds wrap every 194 days: should the key live that long, a nonce of then proves the
        // same address once more.
        let [_, stamp @ ..] = (now.as_secs() as u32).to_be_bytes();
        let mut raw = [0; RAW];
        raw[..STAMP].copy_from_slice(&stamp);
        raw[STAMP..].copy_from_slice(&mac(&self.current, client, stamp));
        let mut text = [b'A'; TEXT];
        let (cookie, rest) = text.split_at_mut(COOKIE.len());
        cookie.copy_from_slice(COOKIE);
        // 11 bytes are 15 characters, so this cannot fail; the fallback is a nonce nobody accepts.
        let _ = URL_SAFE_NO_PAD.encode_slice(raw, rest);
        text
    }

    /// What `text`, shown by this client, is worth.
    pub(super) fn verify(&self, now: Unix, client: SocketAddr, text: &[u8]) -> Shown {
        let Some(split) = text.len().checked_sub(TEXT - COOKIE.len()) else { return Shown::Stale };
        let Some((start, rest)) = text.split_at_checked(split) else { return Shown::Stale };
        let mut raw = [0; RAW + 1];
        if URL_SAFE_NO_PAD.decode_slice(rest, &mut raw) != Ok(RAW) {
            return Shown::Stale;
        }
        let Some((stamp, rest)) = raw.split_first_chunk::<STAMP>() else { return Shown::Stale };
        let Some(shown) = rest.first_chunk::<MAC>() else { return Shown::Stale };
        let right =
            [Some(&self.current), self.previous.as_ref()].into_iter().flatten().any(|key| {
                constant_time::verify_slices_are_equal(&mac(key, client, *stamp), shown).is_ok()
            });
        // Both ways: a wall clock set back must not turn fresh nonces away.
        let [a, b, c] = *stamp;
        let age = (now.as_secs() as u32).wrapping_sub(u32::from_be_bytes([0, a, b, c])) << 8;
        let age = (age.cast_signed() >> 8).unsigned_abs();
        match (right && u64::from(age) <= LIFETIME_SECS, start == COOKIE) {
            (false, _) => Shown::Stale,
            (true, false) => Shown::Altered,
            (true, true) => Shown::Fresh,
        }
    }
}

impl Relay {
    /// Makes nonces with a fresh key from now on. A key that comes sooner than
    /// [`LIFETIME_SECS`] after the one before is not taken, so that no fresh nonce is ever
    /// refused: libwebrtc gives a candidate up at a 438 to its Allocate.
    pub fn rotate_nonces(&mut self, now: Mono, key: &NonceKey, counters: &mut Counters) {
        let lifetime = u128::from(LIFETIME_SECS) * 1_000_000_000;
        if self.nonces_since.is_some_and(|since| now.since(since).as_nanos() < lifetime) {
            return;
        }
        self.nonces.replace(key);
        self.nonces_since = Some(now);
        counters.inc(Id::RelayNonceKeys);
    }
}

fn mac(key: &hmac::Key, client: SocketAddr, stamp: [u8; STAMP]) -> [u8; MAC] {
    let ip = match client.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut input = [0; COOKIE.len() + 16 + 2 + STAMP];
    input[..13].copy_from_slice(COOKIE);
    input[13..29].copy_from_slice(&ip);
    input[29..31].copy_from_slice(&client.port().to_be_bytes());
    input[31..].copy_from_slice(&stamp);
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
        assert_eq!(keys.verify(NOW, client(5000), &nonce), Shown::Fresh);
        assert_eq!(keys.verify(at(3600), client(5000), &nonce), Shown::Fresh);
        assert_ne!(keys.verify(at(3601), client(5000), &nonce), Shown::Fresh);
        let back = Unix::from_secs(1_779_999_000);
        assert_eq!(keys.verify(back, client(5000), &nonce), Shown::Fresh, "clock set back");
        assert_ne!(keys.verify(NOW, client(5001), &nonce), Shown::Fresh);
        assert_ne!(keys.verify(NOW, "198.51.100.8:5000".parse().unwrap(), &nonce), Shown::Fresh);
    }

    #[test]
    fn previous_key_is_honoured_and_the_one_before_is_not() {
        let old = NonceKeys::new([1; 32], None).mint(NOW, client(1));
        let next = NonceKeys::new([2; 32], Some([1; 32]));
        assert_eq!(next.verify(NOW, client(1), &old), Shown::Fresh);
        let later = NonceKeys::new([3; 32], Some([2; 32]));
        assert_eq!(later.verify(NOW, client(1), &old), Shown::Stale);
    }

    #[test]
    fn altered_nonces_are_refused() {
        let keys = NonceKeys::new([1; 32], Some([2; 32]));
        let nonce = keys.mint(NOW, client(1));
        for at in 0..TEXT {
            for with in [b'A', b'B', b'_', b'=', 0, 0xff] {
                let mut altered = nonce;
                altered[at] = with;
                let expected = match at {
                    _ if altered == nonce => Shown::Fresh,
                    0..13 => Shown::Altered,
                    _ => Shown::Stale,
                };
                assert_eq!(keys.verify(NOW, client(1), &altered), expected);
            }
        }
        assert_ne!(keys.verify(NOW, client(1), b""), Shown::Fresh);
        assert_eq!(keys.verify(NOW, client(1), &nonce[..27]), Shown::Stale);
        assert_eq!(keys.verify(NOW, client(1), &nonce[13..]), Shown::Altered, "no cookie at all");
        assert_eq!(keys.verify(NOW, client(1), &[b"x", &nonce[..]].concat()), Shown::Altered);
        assert_ne!(keys.verify(NOW, client(1), &[b'A'; 763]), Shown::Fresh);
    }

    #[test]
    fn nonces_of_different_clients_never_collide() {
        let keys = NonceKeys::new([1; 32], None);
        let mut seen = HashSet::new();
        for a in 0..16_u8 {
            for port in 1..=u16::MAX {
                assert!(seen.insert(keys.mint(NOW, SocketAddr::from(([198, 51, 100, a], port)))));
            }
        }
    }
}
