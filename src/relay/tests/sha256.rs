//! RFC 8489 security: SHA-256 beside SHA-1 and MD5, and what an attacker on the path may not do.

use super::*;
use crate::wire::stun::{IntegrityKeySha256, long_term_key, long_term_key_sha256};

const OFFERED: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];
const SHA256: &[u8] = &[0, 2, 0, 0];
const MD5: &[u8] = &[0, 1, 0, 0];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mac {
    Sha1,
    Sha256,
    Both,
}

/// A request as a client of RFC 8489 makes it.
struct Modern<'a> {
    algorithms: Option<&'a [u8]>,
    algorithm: Option<&'a [u8]>,
    key_is_sha256: bool,
    mac: Mac,
}

const USUAL: Modern<'static> = Modern {
    algorithms: Some(OFFERED),
    algorithm: Some(SHA256),
    key_is_sha256: true,
    mac: Mac::Sha256,
};

impl Modern<'_> {
    fn key(&self, rig: &Rig) -> Vec<u8> {
        let (user, password) = (&rig.user.username, &rig.user.credential);
        if self.key_is_sha256 {
            long_term_key_sha256(user, REALM, password).to_vec()
        } else {
            long_term_key(user, REALM, password).unwrap().to_vec()
        }
    }

    fn build(&self, rig: &mut Rig, method: Method, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let tid = rig.next_tid();
        let key = self.key(rig);
        message(method, tid, |builder| {
            for (kind, value) in attributes {
                builder.attribute(*kind, value);
            }
            builder.text(attr::USERNAME, &rig.user.username);
            builder.text(attr::REALM, REALM);
            builder.attribute(attr::NONCE, &rig.nonce);
            if let Some(algorithms) = self.algorithms {
                builder.attribute(attr::PASSWORD_ALGORITHMS, algorithms);
            }
            if let Some(algorithm) = self.algorithm {
                builder.attribute(attr::PASSWORD_ALGORITHM, algorithm);
            }
            if self.mac != Mac::Sha256 {
                builder.integrity(&IntegrityKey::from_bytes(&key));
            }
            if self.mac != Mac::Sha1 {
                builder.integrity_sha256(&IntegrityKeySha256::from_bytes(&key));
            }
        })
    }

    /// Asks, and checks that the answer is signed as the request was.
    fn ask(&self, rig: &mut Rig, method: Method, attributes: &[(u16, &[u8])]) -> Result<(), u16> {
        if rig.nonce.is_empty() {
            rig.challenge();
        }
        let request = self.build(rig, method, attributes);
        let bytes = rig.ask(&request);
        let reply = Message::parse(&bytes).unwrap();
        let code = reply.error_code();
        let signed = !matches!(code, Some(400 | 401 | 438));
        let sha256 = signed && self.mac != Mac::Sha1;
        assert_eq!(reply.has_integrity(), signed && !sha256);
        assert_eq!(reply.has_integrity_sha256(), sha256);
        let key = self.key(rig);
        if sha256 {
            assert!(reply.verify_integrity_sha256(&IntegrityKeySha256::from_bytes(&key)));
        } else if signed {
            assert!(reply.verify_integrity(&IntegrityKey::from_bytes(&key)));
        }
        code.map_or(Ok(()), Err)
    }

    fn allocate(&self, rig: &mut Rig) -> Result<(), u16> {
        self.ask(rig, Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, UDP)])
    }
}

#[test]
fn challenge_offers_password_algorithms_and_says_so_in_the_nonce() {
    let mut rig = Rig::new();
    rig.challenge();
    assert_eq!(rig.nonce[..13], *b"obMatJos2gAAA", "bit 0 set, username anonymity (bit 1) not");
    let tid = rig.next_tid();
    for nonce in [None, Some(b"stale".to_vec())] {
        rig.nonce = nonce.clone().unwrap_or_default();
        let request = match nonce {
            None => message(Method::REFRESH, tid, |_| ()),
            Some(_) => rig.signed(Method::REFRESH, &[]),
        };
        let reply = rig.ask(&request);
        let reply = Message::parse(&reply).unwrap();
        assert_eq!(reply.first(attr::PASSWORD_ALGORITHMS), Some(OFFERED));
    }
}

#[test]
fn sha256_client_completes_the_whole_dialogue() {
    let mut rig = Rig::new();
    assert_eq!(USUAL.allocate(&mut rig), Ok(()));
    let tid = TransactionId([rig.tid + 1; 12]);
    let peer = xor(media(), tid);
    let permit = [(attr::XOR_PEER_ADDRESS, &peer[..])];
    assert_eq!(USUAL.ask(&mut rig, Method::CREATE_PERMISSION, &permit), Ok(()));
    let tid = TransactionId([rig.tid + 1; 12]);
    let peer = xor(media(), tid);
    let bind = [(attr::CHANNEL_NUMBER, &[0x40, 0, 0, 0][..]), (attr::XOR_PEER_ADDRESS, &peer)];
    assert_eq!(USUAL.ask(&mut rig, Method::CHANNEL_BIND, &bind), Ok(()));
    let lifetime = [(attr::LIFETIME, &[0, 0, 3, 0][..])];
    assert_eq!(USUAL.ask(&mut rig, Method::REFRESH, &lifetime), Ok(()));
    assert_eq!(USUAL.ask(&mut rig, Method::REFRESH, &[(0x7f01, &[])]), Err(420), "signed, too");
    assert!(matches!(rig.send(&[0x40, 0, 0, 1, 9]), Handled::ToPeer(_)));
}

#[test]
fn every_mix_of_key_and_signature_works_side_by_side() {
    for (algorithm, key_is_sha256) in [(SHA256, true), (MD5, false)] {
        for mac in [Mac::Sha1, Mac::Sha256, Mac::Both] {
            let mix = Modern { algorithm: Some(algorithm), key_is_sha256, mac, ..USUAL };
            let mut rig = Rig::new();
            assert_eq!(mix.allocate(&mut rig), Ok(()), "{algorithm:?} {mac:?}");
            assert_eq!(rig.refresh(600), Ok(()), "and as a browser on the same allocation");
        }
    }
    // Neither attribute: as though MD5 had been named (RFC 8489 section 9.2.4).
    let old = Modern { algorithms: None, algorithm: None, key_is_sha256: false, mac: Mac::Sha256 };
    assert_eq!(old.allocate(&mut Rig::new()), Ok(()));
}

#[test]
fn key_of_another_algorithm_than_named_gets_401() {
    for (algorithm, key_is_sha256) in [(SHA256, false), (MD5, true)] {
        for mac in [Mac::Sha1, Mac::Sha256] {
            let mix = Modern { algorithm: Some(algorithm), key_is_sha256, mac, ..USUAL };
            let mut rig = Rig::new();
            assert_eq!(mix.allocate(&mut rig), Err(401));
            assert_eq!((rig.allocations(), rig.count(Id::RelayAuthBadIntegrity)), (0, 1));
        }
    }
}

#[test]
fn stripped_or_altered_password_algorithms_get_400() {
    let only_md5: &[u8] = MD5;
    let swapped: &[u8] = &[0, 1, 0, 0, 0, 2, 0, 0];
    for (algorithms, algorithm) in [
        (None, Some(SHA256)),
        (Some(OFFERED), None),
        (Some(only_md5), Some(MD5)),
        (Some(swapped), Some(SHA256)),
        (Some(&[][..]), Some(SHA256)),
        (Some(OFFERED), Some(&[0, 3, 0, 0][..])),
        (Some(OFFERED), Some(&[0, 2][..])),
        (Some(OFFERED), Some(&[0, 2, 0, 1, 0][..])),
    ] {
        for mac in [Mac::Sha1, Mac::Sha256] {
            let mut rig = Rig::new();
            let request = Modern { algorithms, algorithm, mac, ..USUAL };
            assert_eq!(request.allocate(&mut rig), Err(400), "{algorithms:?} {algorithm:?}");
            assert_eq!((rig.allocations(), rig.count(Id::RelayAuthBidDown)), (0, 1));
        }
    }
}

#[test]
fn nonce_whose_cookie_was_altered_on_the_way_gets_400() {
    let mut rig = Rig::new();
    rig.challenge();
    let nonce = rig.nonce.clone();
    // What makes a client of RFC 8489 believe that the server knows only RFC 5389.
    let without = nonce[13..].to_vec();
    let mut no_bit = nonce.clone();
    no_bit[9..13].copy_from_slice(b"AAAA");
    let mut anonymity = nonce.clone();
    anonymity[9..13].copy_from_slice(b"wAAA");
    let mut no_cookie = nonce.clone();
    no_cookie[0] = b'x';
    for altered in [without, no_bit, anonymity, no_cookie] {
        rig.nonce = altered;
        let request = rig.signed(Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, UDP)]);
        let reply = rig.ask(&request);
        let reply = Message::parse(&reply).unwrap();
        assert_eq!(reply.error_code(), Some(400));
        assert!(reply.first(attr::NONCE).is_none() && reply.first(attr::REALM).is_none());
    }
    assert_eq!((rig.allocations(), rig.count(Id::RelayAuthBidDown)), (0, 4));
    rig.nonce = nonce;
    rig.allocate();
}

#[test]
fn stronger_of_two_signatures_counts() {
    let mut rig = Rig::new();
    rig.challenge();
    let both = Modern { mac: Mac::Both, ..USUAL };
    let transport = [(attr::REQUESTED_TRANSPORT, UDP)];
    let mut request = both.build(&mut rig, Method::ALLOCATE, &transport);
    *request.last_mut().unwrap() ^= 1;
    let reply = rig.ask(&request);
    assert_eq!(Message::parse(&reply).unwrap().error_code(), Some(401), "SHA-1 is right");
    assert_eq!(rig.allocations(), 0);
}

#[test]
fn truncated_sha256_signature_gets_401() {
    let mut rig = Rig::new();
    rig.challenge();
    let mut request = USUAL.build(&mut rig, Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, UDP)]);
    let len = request.len() - 16;
    request.truncate(len);
    request[2..4].copy_from_slice(&((len - 20) as u16).to_be_bytes());
    request[len - 18..len - 16].copy_from_slice(&16_u16.to_be_bytes());
    let reply = rig.ask(&request);
    assert_eq!(Message::parse(&reply).unwrap().error_code(), Some(401));
    assert_eq!(rig.count(Id::RelayAuthBadIntegrity), 1);
}

#[test]
fn attributes_after_a_sha256_signature_are_ignored() {
    let mut rig = Rig::new();
    assert_eq!(USUAL.allocate(&mut rig), Ok(()));
    let mut request = USUAL.build(&mut rig, Method::REFRESH, &[]);
    request.extend(hex("000d000400000000"));
    let length = (request.len() - 20) as u16;
    request[2..4].copy_from_slice(&length.to_be_bytes());
    rig.ask(&request);
    assert_eq!((rig.allocations(), rig.lifetime()), (1, Some(600)));
}

#[test]
fn username_by_hash_alone_is_nobodys() {
    let mut rig = Rig::new();
    rig.challenge();
    let (nonce, key) = (rig.nonce.clone(), rig.key());
    let request = message(Method::ALLOCATE, TransactionId([1; 12]), |builder| {
        builder.attribute(attr::REQUESTED_TRANSPORT, UDP);
        builder.attribute(attr::USERHASH, &[7; 32]);
        builder.text(attr::REALM, REALM);
        builder.attribute(attr::NONCE, &nonce);
        builder.integrity(&key);
    });
    let reply = rig.ask(&request);
    assert_eq!(Message::parse(&reply).unwrap().error_code(), Some(401));
}
