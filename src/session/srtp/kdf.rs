//! Session keys from a master key: the AES-CM pseudo-random function of RFC 3711 section 4.3.3
//! (with AES-256: RFC 6188; a 96-bit AEAD salt is padded to 112 bits, RFC 7714 section 11).

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

use super::{Error, Master};

/// What a key is for (RFC 3711 section 4.3.2); the key derivation rate is always zero.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Label {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

pub(super) struct Kdf {
    prf: EncryptingKey,
    salt: [u8; 14],
}

/// An AES counter-mode key for 16 or 32 bytes.
pub(super) fn ctr_key(key: &[u8]) -> Result<EncryptingKey, Error> {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    let unbound = UnboundCipherKey::new(algorithm, key).map_err(|_| Error::Key)?;
    EncryptingKey::ctr(unbound).map_err(|_| Error::Key)
}

/// XORs the keystream that starts at the counter block `iv` into `data`.
pub(super) fn ctr_xor(key: &EncryptingKey, iv: [u8; 16], data: &mut [u8]) -> Result<(), Error> {
    key.less_safe_encrypt(data, EncryptionContext::Iv128(FixedLength::from(iv)))
        .map(|_| ())
        .map_err(|_| Error::Key)
}

impl Kdf {
    pub(super) fn new(master: Master<'_>) -> Result<Self, Error> {
        let mut salt = [0; 14];
        salt.get_mut(..master.salt.len()).ok_or(Error::Key)?.copy_from_slice(master.salt);
        Ok(Self { prf: ctr_key(master.key)?, salt })
    }

    /// Fills `out` with the key of that label.
    pub(super) fn derive(&self, label: Label, out: &mut [u8]) -> Result<(), Error> {
        let mut iv = [0; 16];
        iv[..14].copy_from_slice(&self.salt);
        iv[7] ^= label as u8;
        out.fill(0);
        ctr_xor(&self.prf, iv, out)
    }

    pub(super) fn array<const N: usize>(&self, label: Label) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        self.derive(label, &mut out)?;
        Ok(out)
    }
}
