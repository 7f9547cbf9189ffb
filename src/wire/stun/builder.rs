//! The writer of STUN messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::hmac;

use super::{
    Class, FINGERPRINT_ATTRIBUTE, FINGERPRINT_XOR, HEADER, INTEGRITY_ATTRIBUTE,
    INTEGRITY_SHA256_ATTRIBUTE, IntegrityKey, IntegrityKeySha256, MAGIC_COOKIE, Method,
    TransactionId, attr, xor_mask_v6,
};

/// Writes one message into a caller's buffer. What does not fit is noticed once, at
/// [`Builder::finish`]. Padding bytes are zero.
#[derive(Debug)]
pub struct Builder<'b> {
    buf: &'b mut [u8],
    len: usize,
    id: TransactionId,
    overflow: bool,
}

impl<'b> Builder<'b> {
    /// Starts a message at the start of `buf`.
    #[must_use]
    pub fn new(buf: &'b mut [u8], class: Class, method: Method, id: TransactionId) -> Self {
        let m = method.0 & 0x0fff;
        let class = match class {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        };
        let kind = (m & 0x000f) | ((m & 0x0070) << 1) | ((m & 0x0f80) << 2) | class;
        let mut builder = Self { buf, len: 0, id, overflow: false };
        builder.put(&kind.to_be_bytes());
        builder.put(&[0, 0]);
        builder.put(&MAGIC_COOKIE.to_be_bytes());
        builder.put(&id.0);
        builder
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.buf.get_mut(self.len..end) {
            Some(place) if !self.overflow => {
                place.copy_from_slice(bytes);
                self.len = end;
            }
            _ => self.overflow = true,
        }
    }

    /// Adds an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let Ok(len) = u16::try_from(value.len()) else {
            self.overflow = true;
            return;
        };
        self.put(&kind.to_be_bytes());
        self.put(&len.to_be_bytes());
        self.put(value);
        self.put(&[0; 3][..value.len().next_multiple_of(4) - value.len()]);
    }

    /// Adds a text attribute.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, value.as_bytes());
    }

    /// Adds a number of four bytes.
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Adds an address in clear (section 14.1).
    pub fn address(&mut self, kind: u16, address: SocketAddr) {
        self.put_address(kind, address.ip(), address.port());
    }

    /// Adds an XOR address (section 14.2).
    pub fn xor_address(&mut self, kind: u16, address: SocketAddr) {
        let ip = match address.ip() {
            IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() ^ MAGIC_COOKIE).into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() ^ xor_mask_v6(self.id)).into(),
        };
        self.put_address(kind, ip, address.port() ^ (MAGIC_COOKIE >> 16) as u16);
    }

    fn put_address(&mut self, kind: u16, ip: IpAddr, port: u16) {
        let [p0, p1] = port.to_be_bytes();
        match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                self.attribute(kind, &[0, 1, p0, p1, a, b, c, d]);
            }
            IpAddr::V6(ip) => {
                let mut value = [0; 20];
                value[..4].copy_from_slice(&[0, 2, p0, p1]);
                value[4..].copy_from_slice(&ip.octets());
                self.attribute(kind, &value);
            }
        }
    }

    /// Adds ERROR-CODE (section 14.8). `reason` is a constant of ours of at most 60 bytes,
    /// or empty.
    pub fn error_code(&mut self, code: u16, reason: &str) {
        let mut value = [0; 4 + 60];
        value[2] = (code / 100) as u8 & 7;
        value[3] = (code % 100) as u8;
        let Some(text) = value.get_mut(4..4 + reason.len()) else {
            self.overflow = true;
            return;
        };
        text.copy_from_slice(reason.as_bytes());
        self.attribute(attr::ERROR_CODE, &value[..4 + reason.len()]);
    }

    /// Writes the header's length as if `extra` more bytes followed.
    fn set_length(&mut self, extra: usize) {
        let length = u16::try_from((self.len + extra).saturating_sub(HEADER));
        match (self.buf.get_mut(2..4), length) {
            (Some(place), Ok(length)) => place.copy_from_slice(&length.to_be_bytes()),
            _ => self.overflow = true,
        }
    }

    /// Adds MESSAGE-INTEGRITY over everything added so far.
    pub fn integrity(&mut self, key: &IntegrityKey) {
        self.set_length(INTEGRITY_ATTRIBUTE);
        let tag = hmac::sign(&key.0, self.buf.get(..self.len).unwrap_or_default());
        self.attribute(attr::MESSAGE_INTEGRITY, tag.as_ref());
    }

    /// Adds MESSAGE-INTEGRITY-SHA256 over everything added so far.
    pub fn integrity_sha256(&mut self, key: &IntegrityKeySha256) {
        self.set_length(INTEGRITY_SHA256_ATTRIBUTE);
        let tag = hmac::sign(&key.0, self.buf.get(..self.len).unwrap_or_default());
        self.attribute(attr::MESSAGE_INTEGRITY_SHA256, tag.as_ref());
    }

    /// Adds FINGERPRINT; nothing may be added after it.
    pub fn fingerprint(&mut self) {
        self.set_length(FINGERPRINT_ATTRIBUTE);
        let crc = crc32fast::hash(self.buf.get(..self.len).unwrap_or_default());
        self.u32(attr::FINGERPRINT, crc ^ FINGERPRINT_XOR);
    }

    /// The length of the whole message, or `None` when it did not fit.
    #[must_use]
    pub fn finish(mut self) -> Option<usize> {
        self.set_length(0);
        (!self.overflow).then_some(self.len)
    }
}
