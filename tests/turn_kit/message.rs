//! STUN messages, written and read without any help (RFC 8489 sections 5, 14).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;

pub const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const MESSAGE_INTEGRITY: u16 = 0x0008;
const FINGERPRINT: u16 = 0x8028;
const ERROR_CODE: u16 = 0x0009;

/// Bytes of hexadecimal digits; anything else between them is passed over.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let value = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16);
    digits.chunks(2).map(|pair| value(pair).expect("two digits")).collect()
}

/// MD5 of `username:realm:password`, by another library than the gateway's.
pub fn long_term_key(username: &str, realm: &str, password: &str) -> [u8; 16] {
    let integrity = stun::integrity::MessageIntegrity::new_long_term_integrity(
        username.to_owned(),
        realm.to_owned(),
        password.to_owned(),
    );
    integrity.0.try_into().expect("MD5")
}

/// A message under way.
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn new(kind: u16, id: [u8; 12]) -> Self {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        bytes.extend(id);
        Self(bytes)
    }

    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(kind.to_be_bytes());
        self.0.extend(u16::try_from(value.len()).expect("short").to_be_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub fn xor_address(self, kind: u16, address: SocketAddr) -> Self {
        let mut mask = COOKIE.to_vec();
        mask.extend(&self.0[8..20]);
        let port = address.port() ^ 0x2112;
        let (family, ip) = match address.ip() {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        };
        let mut value = vec![0, family];
        value.extend(port.to_be_bytes());
        value.extend(ip.iter().zip(&mask).map(|(byte, mask)| byte ^ mask));
        self.attribute(kind, &value)
    }

    fn claim(&mut self, more: usize) {
        let length = u16::try_from(self.0.len() - 20 + more).expect("short");
        self.0[2..4].copy_from_slice(&length.to_be_bytes());
    }

    /// MESSAGE-INTEGRITY; what is added later is not covered by it.
    pub fn integrity(mut self, key: &[u8]) -> Self {
        self.claim(24);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        let tag = hmac::sign(&key, &self.0);
        self.attribute(MESSAGE_INTEGRITY, tag.as_ref())
    }

    /// FINGERPRINT, off by `error`.
    pub fn fingerprint(mut self, error: u32) -> Self {
        self.claim(8);
        let crc = crc32fast::hash(&self.0) ^ 0x5354_554e ^ error;
        self.attribute(FINGERPRINT, &crc.to_be_bytes())
    }

    pub fn done(mut self) -> Vec<u8> {
        self.claim(0);
        self.0
    }
}

/// A received message.
pub struct Reply(pub Vec<u8>);

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        f.write_str(&digits)
    }
}

impl Reply {
    pub fn id(&self) -> &[u8] {
        self.0.get(8..20).unwrap_or_default()
    }

    pub fn kind(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// Every attribute: type, value, padding.
    pub fn attributes(&self) -> Vec<(u16, Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        let mut rest = &self.0[20..];
        while let Some((head, behind)) = rest.split_first_chunk::<4>() {
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (padded, behind) = behind.split_at(length.next_multiple_of(4));
            let (value, padding) = padded.split_at(length);
            found.push((u16::from_be_bytes([head[0], head[1]]), value.into(), padding.into()));
            rest = behind;
        }
        found
    }

    pub fn first(&self, kind: u16) -> Option<Vec<u8>> {
        self.attributes().into_iter().find(|(found, ..)| *found == kind).map(|(_, value, _)| value)
    }

    pub fn number(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.first(kind)?.try_into().ok()?))
    }

    /// ERROR-CODE; 0 for a success.
    pub fn code(&self) -> u16 {
        match self.kind() & 0x0110 {
            0x0100 => 0,
            0x0110 => {
                let value = self.first(ERROR_CODE).expect("ERROR-CODE");
                u16::from(value[2]) * 100 + u16::from(value[3])
            }
            _ => panic!("no response: {self:?}"),
        }
    }

    /// An XOR address.
    pub fn address(&self, kind: u16) -> Option<SocketAddr> {
        let value = self.first(kind)?;
        let mask: Vec<u8> = COOKIE.iter().chain(self.id()).copied().collect();
        let port = u16::from_be_bytes([value[2], value[3]]) ^ 0x2112;
        let ip: Vec<u8> = value[4..].iter().zip(&mask).map(|(byte, mask)| byte ^ mask).collect();
        let ip: IpAddr = match <[u8; 4]>::try_from(ip.as_slice()) {
            Ok(v4) => v4.into(),
            Err(_) => <[u8; 16]>::try_from(ip).ok()?.into(),
        };
        Some(SocketAddr::new(ip, port))
    }
}
