//! STUN messages, RFC 8489: a zero-copy reader and a writer into a caller's buffer.
//!
//! The reader stops at MESSAGE-INTEGRITY as section 14.5 asks: what an attacker appends after it
//! is never seen, whatever the header's length says.

mod builder;
mod integrity;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use aws_lc_rs::{constant_time, hmac};

pub use builder::Builder;
pub use integrity::{IntegrityKey, IntegrityKeySha256, long_term_key, long_term_key_sha256};

/// Bytes of the header.
pub const HEADER: usize = 20;
/// The magic cookie of section 5.
pub const MAGIC_COOKIE: u32 = 0x2112_a442;

const FINGERPRINT_XOR: u32 = 0x5354_554e;
const SHA1_LEN: usize = 20;
const INTEGRITY_ATTRIBUTE: usize = 4 + SHA1_LEN;
const SHA256_LEN: usize = 32;
const INTEGRITY_SHA256_ATTRIBUTE: usize = 4 + SHA256_LEN;
const FINGERPRINT_ATTRIBUTE: usize = 8;

/// Attribute types of STUN (RFC 8489), TURN (RFC 8656) and ICE (RFC 8445).
pub mod attr {
    /// MAPPED-ADDRESS.
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    /// USERNAME.
    pub const USERNAME: u16 = 0x0006;
    /// MESSAGE-INTEGRITY.
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    /// ERROR-CODE.
    pub const ERROR_CODE: u16 = 0x0009;
    /// UNKNOWN-ATTRIBUTES.
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
    /// CHANNEL-NUMBER.
    pub const CHANNEL_NUMBER: u16 = 0x000c;
    /// LIFETIME.
    pub const LIFETIME: u16 = 0x000d;
    /// XOR-PEER-ADDRESS.
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    /// DATA.
    pub const DATA: u16 = 0x0013;
    /// REALM.
    pub const REALM: u16 = 0x0014;
    /// NONCE.
    pub const NONCE: u16 = 0x0015;
    /// XOR-RELAYED-ADDRESS.
    pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    /// REQUESTED-ADDRESS-FAMILY.
    pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    /// EVEN-PORT.
    pub const EVEN_PORT: u16 = 0x0018;
    /// REQUESTED-TRANSPORT.
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    /// DONT-FRAGMENT.
    pub const DONT_FRAGMENT: u16 = 0x001a;
    /// MESSAGE-INTEGRITY-SHA256.
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
    /// PASSWORD-ALGORITHM.
    pub const PASSWORD_ALGORITHM: u16 = 0x001d;
    /// USERHASH.
    pub const USERHASH: u16 = 0x001e;
    /// XOR-MAPPED-ADDRESS.
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// RESERVATION-TOKEN.
    pub const RESERVATION_TOKEN: u16 = 0x0022;
    /// PRIORITY (ICE).
    pub const PRIORITY: u16 = 0x0024;
    /// USE-CANDIDATE (ICE).
    pub const USE_CANDIDATE: u16 = 0x0025;
    /// ADDITIONAL-ADDRESS-FAMILY.
    pub const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
    /// ICMP (RFC 8656 section 18.13).
    pub const ICMP: u16 = 0x8004;
    /// ADDRESS-ERROR-CODE.
    pub const ADDRESS_ERROR_CODE: u16 = 0x8001;
    /// PASSWORD-ALGORITHMS.
    pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
    /// SOFTWARE.
    pub const SOFTWARE: u16 = 0x8022;
    /// ALTERNATE-SERVER.
    pub const ALTERNATE_SERVER: u16 = 0x8023;
    /// FINGERPRINT.
    pub const FINGERPRINT: u16 = 0x8028;
    /// ICE-CONTROLLED.
    pub const ICE_CONTROLLED: u16 = 0x8029;
    /// ICE-CONTROLLING.
    pub const ICE_CONTROLLING: u16 = 0x802a;
}

/// The message class of section 5.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Expects a response.
    Request,
    /// Expects none.
    Indication,
    /// A success response.
    Success,
    /// An error response.
    Error,
}

/// A 12-bit method.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Method(pub u16);

impl Method {
    /// Binding (RFC 8489).
    pub const BINDING: Self = Self(0x001);
    /// Allocate (RFC 8656).
    pub const ALLOCATE: Self = Self(0x003);
    /// Refresh.
    pub const REFRESH: Self = Self(0x004);
    /// Send, an indication.
    pub const SEND: Self = Self(0x006);
    /// Data, an indication.
    pub const DATA: Self = Self(0x007);
    /// CreatePermission.
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// ChannelBind.
    pub const CHANNEL_BIND: Self = Self(0x009);
}

/// The 96-bit transaction id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TransactionId(pub [u8; 12]);

/// Why bytes are not a STUN message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// Fewer than 20 bytes, the first two bits set, or no magic cookie.
    #[error("not a STUN message")]
    NotStun,
    /// The header's length is not that of the datagram, or not a multiple of four.
    #[error("the length field does not match the datagram")]
    Length,
    /// An attribute reaches beyond the message, or one with a fixed size or place has another.
    #[error("an attribute is malformed")]
    Attribute,
}

/// A STUN message in a borrowed buffer. All bounds were checked by [`Message::parse`].
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    id: TransactionId,
    /// Where the attributes a receiver may act on end.
    end: usize,
    integrity: Option<usize>,
    integrity_sha256: Option<usize>,
    fingerprint: Option<usize>,
}

impl fmt::Debug for Message<'_> {
    // No attribute is shown: some carry client addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("method", &self.method())
            .field("class", &self.class())
            .finish_non_exhaustive()
    }
}

/// One step over an attribute at `at`: type, value, offset of the next.
fn attribute_at(bytes: &[u8], at: usize) -> Option<(u16, &[u8], usize)> {
    let head: [u8; 4] = *bytes.get(at..)?.first_chunk()?;
    let kind = u16::from_be_bytes([head[0], head[1]]);
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let start = at + 4;
    let value = bytes.get(start..start + len)?;
    let next = start + len.next_multiple_of(4);
    (next <= bytes.len()).then_some((kind, value, next))
}

impl<'a> Message<'a> {
    /// Parses a datagram that holds exactly one message.
    ///
    /// # Errors
    /// [`ParseError`]; such a datagram is dropped (section 6.3).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(ParseError::NotStun)?;
        let [t0, _, l0, l1, c0, c1, c2, c3, rest @ ..] = header;
        if t0 & 0xc0 != 0 || [*c0, *c1, *c2, *c3] != MAGIC_COOKIE.to_be_bytes() {
            return Err(ParseError::NotStun);
        }
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if length % 4 != 0 || HEADER + length != bytes.len() {
            return Err(ParseError::Length);
        }
        let mut at = HEADER;
        let mut end = None;
        let mut integrity = None;
        let mut integrity_sha256 = None;
        let mut fingerprint = None;
        while at < bytes.len() {
            let (kind, value, next) = attribute_at(bytes, at).ok_or(ParseError::Attribute)?;
            match kind {
                attr::MESSAGE_INTEGRITY if end.is_none() => {
                    if value.len() != SHA1_LEN {
                        return Err(ParseError::Attribute);
                    }
                    integrity = Some(at);
                    end = Some(at);
                }
                // It may follow MESSAGE-INTEGRITY, and the first of several counts.
                attr::MESSAGE_INTEGRITY_SHA256 if integrity_sha256.is_none() => {
                    // Section 14.6: 16 to 32 bytes, a multiple of four.
                    if !(16..=SHA256_LEN).contains(&value.len()) || value.len() % 4 != 0 {
                        return Err(ParseError::Attribute);
                    }
                    integrity_sha256 = Some(at);
                    end = end.or(Some(at));
                }
                attr::FINGERPRINT => {
                    // Section 14.7: the last attribute, four bytes.
                    if value.len() != 4 || next != bytes.len() {
                        return Err(ParseError::Attribute);
                    }
                    fingerprint = Some(at);
                    end = end.or(Some(at));
                }
                _ => {}
            }
            at = next;
        }
        let end = end.unwrap_or(bytes.len());
        Ok(Self { bytes, id: TransactionId(*rest), end, integrity, integrity_sha256, fingerprint })
    }

    fn kind(&self) -> u16 {
        match self.bytes {
            [a, b, ..] => u16::from_be_bytes([*a, *b]),
            _ => 0,
        }
    }

    /// Request, indication or response.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.kind() & 0x0110 {
            0x0000 => Class::Request,
            0x0010 => Class::Indication,
            0x0100 => Class::Success,
            _ => Class::Error,
        }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        let t = self.kind();
        Method((t & 0x000f) | ((t & 0x00e0) >> 1) | ((t & 0x3e00) >> 2))
    }

    /// The transaction id.
    #[must_use]
    pub const fn transaction_id(&self) -> TransactionId {
        self.id
    }

    /// The attributes before MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256 and FINGERPRINT, whichever
    /// comes first.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { bytes: self.bytes.get(..self.end).unwrap_or_default(), at: HEADER }
    }

    /// The first attribute of a type; later ones of the same type are ignored (section 14).
    #[must_use]
    pub fn first(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// Where the value of the first attribute of a type lies in the datagram.
    #[must_use]
    pub fn range_of(&self, kind: u16) -> Option<Range<usize>> {
        let mut attributes = self.attributes();
        let mut start = attributes.at;
        while let Some((found, value)) = attributes.next() {
            if found == kind {
                return Some(start + 4..start + 4 + value.len());
            }
            start = attributes.at;
        }
        None
    }

    /// An attribute as UTF-8 text.
    #[must_use]
    pub fn text(&self, kind: u16) -> Option<&'a str> {
        std::str::from_utf8(self.first(kind)?).ok()
    }

    /// An attribute of exactly four bytes as a number.
    #[must_use]
    pub fn u32(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.first(kind)?.try_into().ok()?))
    }

    /// The first XOR address attribute of a type (section 14.2).
    #[must_use]
    pub fn xor_address(&self, kind: u16) -> Option<SocketAddr> {
        self.decode_xor_address(self.first(kind)?)
    }

    /// Decodes the value of an XOR address attribute of this message.
    #[must_use]
    pub fn decode_xor_address(&self, value: &[u8]) -> Option<SocketAddr> {
        let [_, family, p0, p1, address @ ..] = value else { return None };
        let port = u16::from_be_bytes([*p0, *p1]) ^ (MAGIC_COOKIE >> 16) as u16;
        let ip: IpAddr = match family {
            1 => {
                let bits = u32::from_be_bytes(address.try_into().ok()?);
                Ipv4Addr::from_bits(bits ^ MAGIC_COOKIE).into()
            }
            2 => {
                let bits = u128::from_be_bytes(address.try_into().ok()?);
                Ipv6Addr::from_bits(bits ^ xor_mask_v6(self.id)).into()
            }
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// The ERROR-CODE of a response, 300 to 699 (section 14.8).
    #[must_use]
    pub fn error_code(&self) -> Option<u16> {
        match self.first(attr::ERROR_CODE)? {
            [_, _, class @ 3..=6, number @ 0..=99, ..] => {
                Some(u16::from(*class) * 100 + u16::from(*number))
            }
            _ => None,
        }
    }

    /// Whether MESSAGE-INTEGRITY (SHA-1) is there, valid or not.
    #[must_use]
    pub const fn has_integrity(&self) -> bool {
        self.integrity.is_some()
    }

    /// Whether MESSAGE-INTEGRITY-SHA256 is there, valid or not.
    #[must_use]
    pub const fn has_integrity_sha256(&self) -> bool {
        self.integrity_sha256.is_some()
    }

    /// Whether MESSAGE-INTEGRITY is there and right for `key`; compared in constant time.
    #[must_use]
    pub fn verify_integrity(&self, key: &IntegrityKey) -> bool {
        self.verify_mac(self.integrity, INTEGRITY_ATTRIBUTE, &key.0)
    }

    /// Whether MESSAGE-INTEGRITY-SHA256 is there, whole (section 14.6 allows a usage to truncate
    /// it; none here does) and right for `key`; compared in constant time.
    #[must_use]
    pub fn verify_integrity_sha256(&self, key: &IntegrityKeySha256) -> bool {
        self.verify_mac(self.integrity_sha256, INTEGRITY_SHA256_ATTRIBUTE, &key.0)
    }

    fn verify_mac(&self, at: Option<usize>, size: usize, key: &hmac::Key) -> bool {
        let Some(at) = at else { return false };
        let Some((_, mac, _)) = attribute_at(self.bytes, at) else { return false };
        let (Some(kind), Some(middle)) = (self.bytes.get(..2), self.bytes.get(4..at)) else {
            return false;
        };
        // Section 14.5: hashed as if the message ended with this attribute.
        let Ok(length) = u16::try_from(at + size - HEADER) else { return false };
        let mut context = hmac::Context::with_key(key);
        context.update(kind);
        context.update(&length.to_be_bytes());
        context.update(middle);
        // Slices of different length are different.
        constant_time::verify_slices_are_equal(context.sign().as_ref(), mac).is_ok()
    }

    /// `None` without FINGERPRINT, else whether it is right (section 14.7).
    #[must_use]
    pub fn fingerprint(&self) -> Option<bool> {
        let at = self.fingerprint?;
        let value = self.bytes.get(at + 4..at + FINGERPRINT_ATTRIBUTE)?;
        let crc = crc32fast::hash(self.bytes.get(..at)?) ^ FINGERPRINT_XOR;
        Some(value == crc.to_be_bytes())
    }

    /// The comprehension-required attributes (below 0x8000) that `known` does not name, for a 420:
    /// the first eight.
    #[must_use]
    pub fn unknown_required(&self, known: &[u16]) -> UnknownAttributes {
        let mut unknown = UnknownAttributes::default();
        for (kind, _) in self.attributes() {
            if kind < 0x8000 && !known.contains(&kind) && !unknown.as_slice().contains(&kind) {
                let Some(place) = unknown.types.get_mut(usize::from(unknown.len)) else { break };
                *place = kind;
                unknown.len += 1;
            }
        }
        unknown
    }
}

/// Up to eight attribute types.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UnknownAttributes {
    types: [u16; 8],
    len: u8,
}

impl UnknownAttributes {
    /// The types, in order of appearance.
    #[must_use]
    pub fn as_slice(&self) -> &[u16] {
        self.types.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Iterator of [`Message::attributes`]: type and value.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, value, next) = attribute_at(self.bytes, self.at)?;
        self.at = next;
        Some((kind, value))
    }
}

fn xor_mask_v6(id: TransactionId) -> u128 {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&id.0);
    u128::from_be_bytes(mask)
}

#[cfg(test)]
#[path = "stun_tests.rs"]
mod tests;
