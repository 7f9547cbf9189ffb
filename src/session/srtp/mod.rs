//! SRTP and SRTCP (RFC 3711, RFC 7714), in place, one context for each direction.
//!
//! Only the three profiles of [`Profile`] exist; encryption and authentication are always on.

mod cipher;
mod kdf;
mod receiver;
mod sender;
mod window;

#[cfg(test)]
mod vectors;

pub use receiver::Receiver;
pub use sender::Sender;

/// Bytes that protecting may append to a packet: an AEAD tag and the SRTCP index word.
pub const MAX_TRAILER: usize = 16 + 4;

/// SSRCs a context keeps state for in one session. A browser with simulcast, RTX and audio uses
/// about ten; an authenticated peer that invents more only loses its own packets.
pub const MAX_SSRCS: usize = 64;
/// Most SSRCs sent under one key: what a playing connection draws in its life.
pub const MAX_SENT_SSRCS: usize = 4_096;

/// Longest exported keying material of any profile (RFC 5764 section 4.2), bytes.
pub const MAX_KEYING_MATERIAL: usize = 2 * (32 + 12);

/// An SRTP protection profile.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Profile {
    /// `SRTP_AEAD_AES_128_GCM` (RFC 7714).
    Aead128Gcm,
    /// `SRTP_AEAD_AES_256_GCM` (RFC 7714).
    Aead256Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80` (RFC 5764 section 4.1.2).
    AesCm128HmacSha1_80,
}

impl Profile {
    /// Length of the master key, bytes.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aead128Gcm | Self::AesCm128HmacSha1_80 => 16,
            Self::Aead256Gcm => 32,
        }
    }

    /// Length of the master salt, bytes.
    #[must_use]
    pub const fn salt_len(self) -> usize {
        match self {
            Self::Aead128Gcm | Self::Aead256Gcm => 12,
            Self::AesCm128HmacSha1_80 => 14,
        }
    }

    /// Length of the authentication tag, bytes.
    #[must_use]
    pub const fn tag_len(self) -> usize {
        match self {
            Self::Aead128Gcm | Self::Aead256Gcm => 16,
            Self::AesCm128HmacSha1_80 => 10,
        }
    }

    /// Length of the exported keying material for both directions, bytes.
    #[must_use]
    pub const fn keying_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }
}

/// Master key and salt of one direction.
#[derive(Clone, Copy)]
pub struct Master<'a> {
    /// [`Profile::key_len`] bytes.
    pub key: &'a [u8],
    /// [`Profile::salt_len`] bytes.
    pub salt: &'a [u8],
}

/// Splits exported keying material (RFC 5764 section 4.2) into what the DTLS client sends with
/// and what the DTLS server sends with. `None` when the length is not the profile's.
#[must_use]
pub fn split_keying_material(
    profile: Profile,
    material: &[u8],
) -> Option<(Master<'_>, Master<'_>)> {
    if material.len() != profile.keying_material_len() {
        return None;
    }
    let (keys, salts) = material.split_at_checked(2 * profile.key_len())?;
    let (client_key, server_key) = keys.split_at_checked(profile.key_len())?;
    let (client_salt, server_salt) = salts.split_at_checked(profile.salt_len())?;
    Some((
        Master { key: client_key, salt: client_salt },
        Master { key: server_key, salt: server_salt },
    ))
}

/// Why a packet was not protected or not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Not a whole RTP or RTCP packet, or too short for its tag.
    #[error("not an SRTP or SRTCP packet")]
    Malformed,
    /// The tag does not fit the packet.
    #[error("authentication failed")]
    Auth,
    /// Its index was seen before, or is older than the replay window.
    #[error("replayed or too old")]
    Replay,
    /// More than [`MAX_SSRCS`] SSRCs received, or [`MAX_SENT_SSRCS`] sent.
    #[error("too many synchronization sources")]
    SsrcLimit,
    /// The index space of the key is used up (RFC 3711 section 9.2).
    #[error("the key's index space is used up")]
    Exhausted,
    /// The buffer has no room for the trailer.
    #[error("no room for the SRTP trailer")]
    NoRoom,
    /// A key of the wrong length, or the library refused it.
    #[error("unusable key")]
    Key,
}

/// Fixed RTP header, bytes (RFC 3550 section 5.1).
const RTP_FIXED: usize = 12;
/// RTCP header and sender SSRC: the part of SRTCP that stays clear.
const RTCP_CLEAR: usize = 8;
/// The SRTCP `E` flag: the packet is encrypted.
const SRTCP_ENCRYPTED: u32 = 0x8000_0000;
/// Largest SRTCP index.
const SRTCP_MAX_INDEX: u32 = 0x7fff_ffff;

/// What SRTP needs of an RTP header.
#[derive(Clone, Copy)]
struct RtpHeader {
    /// Clear bytes: fixed header, CSRCs, extension.
    len: usize,
    sequence: u16,
    ssrc: u32,
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*field))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*field))
}

fn rtp_header(packet: &[u8]) -> Option<RtpHeader> {
    let first = *packet.first()?;
    if first >> 6 != 2 {
        return None;
    }
    let sequence = be16(packet, 2)?;
    let ssrc = be32(packet, 8)?;
    let mut len = RTP_FIXED + 4 * usize::from(first & 0x0f);
    if first & 0x10 != 0 {
        len += 4 + 4 * usize::from(be16(packet, len + 2)?);
    }
    (len <= packet.len()).then_some(RtpHeader { len, sequence, ssrc })
}

fn rtcp_ssrc(packet: &[u8]) -> Option<u32> {
    if packet.first()? >> 6 != 2 {
        return None;
    }
    be32(packet, 4)
}

/// The 48-bit packet index (`ROC << 16 | SEQ`) of a sequence number, estimated from the highest
/// index so far (RFC 3711 appendix A). `None` when the roll-over counter is used up.
fn estimate_index(highest: Option<u64>, sequence: u16) -> Option<u64> {
    let Some(highest) = highest else { return Some(u64::from(sequence)) };
    let roc = highest >> 16;
    let last = i32::from(highest as u16);
    let seq = i32::from(sequence);
    let roc = if last < 0x8000 {
        // Before the first roll-over there is no earlier counter to belong to.
        if seq - last > 0x8000 { roc.saturating_sub(1) } else { roc }
    } else if last - 0x8000 > seq {
        roc + 1
    } else {
        roc
    };
    (roc <= u64::from(u32::MAX)).then_some(roc << 16 | u64::from(sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_follows_the_sequence_over_both_edges() {
        assert_eq!(estimate_index(None, 65_535), Some(65_535));
        assert_eq!(estimate_index(Some(65_535), 0), Some(65_536));
        assert_eq!(estimate_index(Some(65_536), 65_535), Some(65_535));
        assert_eq!(estimate_index(Some(5 << 16 | 10), 65_000), Some(4 << 16 | 65_000));
        assert_eq!(estimate_index(Some(5 << 16 | 60_000), 3), Some(6 << 16 | 3));
        assert_eq!(estimate_index(Some(3), 65_535), Some(65_535), "no counter below zero");
        assert_eq!(estimate_index(Some(0xffff_ffff_ffff), 0), None, "48 bits are all there are");
    }

    #[test]
    fn header_with_csrcs_and_extension_is_measured() {
        let mut packet = [0u8; 40];
        packet[0] = 0x80 | 0x10 | 2;
        packet[23] = 3;
        assert_eq!(rtp_header(&packet).map(|h| h.len), Some(12 + 8 + 4 + 12));
        assert!(rtp_header(&packet[..35]).is_none());
        assert!(rtp_header(&packet[..22]).is_none());
        assert!(rtp_header(&[]).is_none());
    }

    #[test]
    fn keying_material_of_another_length_is_refused() {
        assert!(split_keying_material(Profile::Aead128Gcm, &[0; 56]).is_some());
        assert!(split_keying_material(Profile::Aead128Gcm, &[0; 60]).is_none());
        assert!(split_keying_material(Profile::Aead256Gcm, &[0; 88]).is_some());
        assert!(split_keying_material(Profile::AesCm128HmacSha1_80, &[0; 60]).is_some());
    }
}
