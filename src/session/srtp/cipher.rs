//! The three transforms, in place: RTP and RTCP, seal and open. No state, no replay: that is the
//! business of the sender and the receiver.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::EncryptingKey;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

use super::kdf::{Kdf, Label, ctr_key, ctr_xor};
use super::{Error, Master, Profile, RTCP_CLEAR, SRTCP_ENCRYPTED};

const GCM_TAG: usize = 16;
const SHA1_80_TAG: usize = 10;
/// The word with the `E` flag and the SRTCP index.
const INDEX_WORD: usize = 4;

/// Session keys of one direction.
pub(super) enum Cipher {
    Gcm(Box<Gcm>),
    Cm(Box<Cm>),
}

pub(super) struct Gcm {
    rtp: LessSafeKey,
    rtp_salt: [u8; 12],
    rtcp: LessSafeKey,
    rtcp_salt: [u8; 12],
}

pub(super) struct Cm {
    rtp: EncryptingKey,
    rtp_salt: [u8; 14],
    rtp_auth: hmac::Key,
    rtcp: EncryptingKey,
    rtcp_salt: [u8; 14],
    rtcp_auth: hmac::Key,
}

/// Where a packet stands: the SSRC and its index (48 bits for RTP, 31 for RTCP).
#[derive(Clone, Copy)]
pub(super) struct Position {
    pub(super) ssrc: u32,
    pub(super) index: u64,
}

impl Cipher {
    pub(super) fn new(profile: Profile, master: Master<'_>) -> Result<Self, Error> {
        if master.key.len() != profile.key_len() || master.salt.len() != profile.salt_len() {
            return Err(Error::Key);
        }
        let kdf = Kdf::new(master)?;
        match profile {
            Profile::Aead128Gcm | Profile::Aead256Gcm => {
                Gcm::derive(profile, &kdf).map(|gcm| Self::Gcm(Box::new(gcm)))
            }
            Profile::AesCm128HmacSha1_80 => Cm::derive(&kdf).map(|cm| Self::Cm(Box::new(cm))),
        }
    }

    pub(super) fn tag_len(&self) -> usize {
        match self {
            Self::Gcm(_) => GCM_TAG,
            Self::Cm(_) => SHA1_80_TAG,
        }
    }

    /// Seals `buf[..len]`, an RTP packet whose first `header` bytes stay clear; returns the new
    /// length.
    pub(super) fn seal_rtp(
        &self,
        at: Position,
        buf: &mut [u8],
        header: usize,
        len: usize,
    ) -> Result<usize, Error> {
        let packet = buf.get_mut(..len + self.tag_len()).ok_or(Error::NoRoom)?;
        let (packet, tag_out) = packet.split_at_mut_checked(len).ok_or(Error::NoRoom)?;
        let (clear, body) = packet.split_at_mut_checked(header).ok_or(Error::Malformed)?;
        match self {
            Self::Gcm(gcm) => {
                let nonce = rtp_nonce(&gcm.rtp_salt, at);
                let tag = gcm
                    .rtp
                    .seal_in_place_separate_tag(nonce, Aad::from(&*clear), body)
                    .map_err(|_| Error::Malformed)?;
                tag_out.copy_from_slice(tag.as_ref());
            }
            Self::Cm(cm) => {
                ctr_xor(&cm.rtp, counter_block(&cm.rtp_salt, at), body)?;
                tag_out.copy_from_slice(&sha1_80(&cm.rtp_auth, packet, roc(at))?);
            }
        }
        Ok(len + self.tag_len())
    }

    /// Opens an SRTP packet; returns the length of the RTP packet. On an error the packet's
    /// bytes are unspecified.
    pub(super) fn open_rtp(
        &self,
        at: Position,
        packet: &mut [u8],
        header: usize,
    ) -> Result<usize, Error> {
        let len = packet.len().checked_sub(self.tag_len()).ok_or(Error::Malformed)?;
        let (packet, tag) = packet.split_at_mut_checked(len).ok_or(Error::Malformed)?;
        match self {
            Self::Gcm(gcm) => {
                let (clear, body) = packet.split_at_mut_checked(header).ok_or(Error::Malformed)?;
                let nonce = rtp_nonce(&gcm.rtp_salt, at);
                gcm.rtp
                    .open_in_place_separate_tag(nonce, Aad::from(&*clear), tag, body)
                    .map_err(|_| Error::Auth)?;
            }
            Self::Cm(cm) => {
                let expected = sha1_80(&cm.rtp_auth, packet, roc(at))?;
                verify_slices_are_equal(&expected, tag).map_err(|_| Error::Auth)?;
                let (_, body) = packet.split_at_mut_checked(header).ok_or(Error::Malformed)?;
                ctr_xor(&cm.rtp, counter_block(&cm.rtp_salt, at), body)?;
            }
        }
        Ok(len)
    }

    /// Seals `buf[..len]`, a compound RTCP packet; returns the new length.
    pub(super) fn seal_rtcp(
        &self,
        at: Position,
        buf: &mut [u8],
        len: usize,
    ) -> Result<usize, Error> {
        let total = len + self.tag_len() + INDEX_WORD;
        let packet = buf.get_mut(..total).ok_or(Error::NoRoom)?;
        let word = (SRTCP_ENCRYPTED | at.index as u32).to_be_bytes();
        match self {
            Self::Gcm(gcm) => {
                let (packet, trailer) = packet.split_at_mut_checked(len).ok_or(Error::NoRoom)?;
                let (clear, body) =
                    packet.split_at_mut_checked(RTCP_CLEAR).ok_or(Error::Malformed)?;
                let tag = gcm
                    .rtcp
                    .seal_in_place_separate_tag(
                        rtcp_nonce(&gcm.rtcp_salt, at),
                        Aad::from(gcm_rtcp_aad(clear, word)?),
                        body,
                    )
                    .map_err(|_| Error::Malformed)?;
                let (tag_out, word_out) =
                    trailer.split_at_mut_checked(GCM_TAG).ok_or(Error::NoRoom)?;
                tag_out.copy_from_slice(tag.as_ref());
                word_out.copy_from_slice(&word);
            }
            Self::Cm(cm) => {
                let (signed, tag_out) =
                    packet.split_at_mut_checked(len + INDEX_WORD).ok_or(Error::NoRoom)?;
                let (packet, word_out) = signed.split_at_mut_checked(len).ok_or(Error::NoRoom)?;
                let body = packet.get_mut(RTCP_CLEAR..).ok_or(Error::Malformed)?;
                ctr_xor(&cm.rtcp, counter_block(&cm.rtcp_salt, at), body)?;
                word_out.copy_from_slice(&word);
                tag_out.copy_from_slice(&sha1_80(&cm.rtcp_auth, signed, [])?);
            }
        }
        Ok(total)
    }

    /// The `E` flag and index word of an SRTCP packet.
    pub(super) fn rtcp_index_word(&self, packet: &[u8]) -> Result<u32, Error> {
        let after = match self {
            Self::Gcm(_) => 0,
            Self::Cm(_) => SHA1_80_TAG,
        };
        if packet.len() < RTCP_CLEAR + INDEX_WORD + self.tag_len() {
            return Err(Error::Malformed);
        }
        super::be32(packet, packet.len() - after - INDEX_WORD).ok_or(Error::Malformed)
    }

    /// Opens an SRTCP packet; returns the length of the RTCP packet. On an error the packet's
    /// bytes are unspecified.
    pub(super) fn open_rtcp(&self, at: Position, packet: &mut [u8]) -> Result<usize, Error> {
        let len = packet
            .len()
            .checked_sub(self.tag_len() + INDEX_WORD)
            .filter(|len| *len >= RTCP_CLEAR)
            .ok_or(Error::Malformed)?;
        match self {
            Self::Gcm(gcm) => {
                let word = (SRTCP_ENCRYPTED | at.index as u32).to_be_bytes();
                let (packet, trailer) = packet.split_at_mut_checked(len).ok_or(Error::Malformed)?;
                let (clear, body) =
                    packet.split_at_mut_checked(RTCP_CLEAR).ok_or(Error::Malformed)?;
                gcm.rtcp
                    .open_in_place_separate_tag(
                        rtcp_nonce(&gcm.rtcp_salt, at),
                        Aad::from(gcm_rtcp_aad(clear, word)?),
                        trailer.get(..GCM_TAG).ok_or(Error::Malformed)?,
                        body,
                    )
                    .map_err(|_| Error::Auth)?;
            }
            Self::Cm(cm) => {
                let (signed, tag) =
                    packet.split_at_mut_checked(len + INDEX_WORD).ok_or(Error::Malformed)?;
                let expected = sha1_80(&cm.rtcp_auth, signed, [])?;
                verify_slices_are_equal(&expected, tag).map_err(|_| Error::Auth)?;
                let body = signed.get_mut(RTCP_CLEAR..len).ok_or(Error::Malformed)?;
                ctr_xor(&cm.rtcp, counter_block(&cm.rtcp_salt, at), body)?;
            }
        }
        Ok(len)
    }
}

impl Gcm {
    fn derive(profile: Profile, kdf: &Kdf) -> Result<Self, Error> {
        Ok(Self {
            rtp: gcm_key(profile, kdf, Label::RtpEncryption)?,
            rtp_salt: kdf.array(Label::RtpSalt)?,
            rtcp: gcm_key(profile, kdf, Label::RtcpEncryption)?,
            rtcp_salt: kdf.array(Label::RtcpSalt)?,
        })
    }

    #[cfg(test)]
    pub(super) fn from_session_key(key: &[u8], salt: [u8; 12]) -> Self {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        let key = || LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap());
        Self { rtp: key(), rtp_salt: salt, rtcp: key(), rtcp_salt: salt }
    }
}

impl Cm {
    fn derive(kdf: &Kdf) -> Result<Self, Error> {
        let auth = |label| {
            let key: [u8; 20] = kdf.array(label)?;
            Ok(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key))
        };
        Ok(Self {
            rtp: ctr_key(&kdf.array::<16>(Label::RtpEncryption)?)?,
            rtp_salt: kdf.array(Label::RtpSalt)?,
            rtp_auth: auth(Label::RtpAuthentication)?,
            rtcp: ctr_key(&kdf.array::<16>(Label::RtcpEncryption)?)?,
            rtcp_salt: kdf.array(Label::RtcpSalt)?,
            rtcp_auth: auth(Label::RtcpAuthentication)?,
        })
    }
}

fn gcm_key(profile: Profile, kdf: &Kdf, label: Label) -> Result<LessSafeKey, Error> {
    let mut key = [0; 32];
    let key = key.get_mut(..profile.key_len()).ok_or(Error::Key)?;
    kdf.derive(label, key)?;
    let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
    UnboundKey::new(algorithm, key).map(LessSafeKey::new).map_err(|_| Error::Key)
}

/// RFC 7714 section 8.1.
fn rtp_nonce(salt: &[u8; 12], at: Position) -> Nonce {
    nonce(salt, at.ssrc, at.index)
}

/// RFC 7714 section 9.1.
fn rtcp_nonce(salt: &[u8; 12], at: Position) -> Nonce {
    nonce(salt, at.ssrc, at.index & u64::from(super::SRTCP_MAX_INDEX))
}

/// Two zero bytes, the SSRC, 48 bits of index; XORed with the salt.
fn nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let block = u128::from(ssrc) << 48 | u128::from(index & 0xffff_ffff_ffff);
    let mut iv = [0; 12];
    iv.copy_from_slice(&block.to_be_bytes()[4..]);
    for (byte, salt) in iv.iter_mut().zip(salt) {
        *byte ^= salt;
    }
    Nonce::assume_unique_for_key(iv)
}

/// RFC 3711 section 4.1.1: `salt * 2^16 XOR ssrc * 2^64 XOR index * 2^16`.
fn counter_block(salt: &[u8; 14], at: Position) -> [u8; 16] {
    let mut padded = [0; 16];
    padded[..14].copy_from_slice(salt);
    let block = u128::from(at.ssrc) << 64 | u128::from(at.index) << 16;
    (u128::from_be_bytes(padded) ^ block).to_be_bytes()
}

fn gcm_rtcp_aad(clear: &[u8], word: [u8; 4]) -> Result<[u8; RTCP_CLEAR + INDEX_WORD], Error> {
    let mut aad = [0; RTCP_CLEAR + INDEX_WORD];
    let (head, tail) = aad.split_at_mut(RTCP_CLEAR);
    head.copy_from_slice(clear.get(..RTCP_CLEAR).ok_or(Error::Malformed)?);
    tail.copy_from_slice(&word);
    Ok(aad)
}

fn roc(at: Position) -> [u8; 4] {
    ((at.index >> 16) as u32).to_be_bytes()
}

/// HMAC-SHA1 over the packet and what follows it, cut to 80 bits (RFC 3711 section 4.2).
fn sha1_80<const N: usize>(
    key: &hmac::Key,
    packet: &[u8],
    suffix: [u8; N],
) -> Result<[u8; SHA1_80_TAG], Error> {
    let mut context = hmac::Context::with_key(key);
    context.update(packet);
    context.update(&suffix);
    context.sign().as_ref().first_chunk().copied().ok_or(Error::Auth)
}
