//! The sending direction: roll-over counters and SRTCP indices by SSRC, sealing in place.

use super::cipher::{Cipher, Position};
use super::{Error, MAX_SENT_SSRCS, Master, Profile, SRTCP_MAX_INDEX};

/// Seals what we send to one peer.
///
/// The caller owes one thing: an (SSRC, sequence number) is never sealed twice with different
/// bytes, because a second AES-GCM seal under one nonce gives the authentication key away.
/// Sealing identical bytes again is harmless and gives an identical packet.
pub struct Sender {
    cipher: Cipher,
    /// By SSRC. None is ever forgotten: its numbers must not come again under this key.
    sources: Vec<Source>,
    last: usize,
}

struct Source {
    ssrc: u32,
    /// Highest RTP index sent.
    highest: Option<u64>,
    /// The next SRTCP index.
    next_rtcp: u32,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("srtp::Sender").finish_non_exhaustive()
    }
}

impl Sender {
    /// Derives the session keys.
    ///
    /// # Errors
    /// [`Error::Key`] when key or salt have not the profile's length.
    pub fn new(profile: Profile, master: Master<'_>) -> Result<Self, Error> {
        Ok(Self::with_cipher(Cipher::new(profile, master)?))
    }

    pub(super) fn with_cipher(cipher: Cipher) -> Self {
        Self { cipher, sources: Vec::with_capacity(8), last: 0 }
    }

    /// Seals the RTP packet `buf[..len]` in place and returns the new length, at most
    /// [`super::MAX_TRAILER`] more. A sequence number behind the highest sent gets the index it
    /// had, so a retransmission is the packet it repeats.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::NoRoom`], [`Error::SsrcLimit`] or [`Error::Exhausted`].
    pub fn protect_rtp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, Error> {
        let packet = buf.get(..len).ok_or(Error::NoRoom)?;
        let header = super::rtp_header(packet).ok_or(Error::Malformed)?;
        let Self { cipher, sources, last } = self;
        let source = source(sources, last, header.ssrc)?;
        let index =
            super::estimate_index(source.highest, header.sequence).ok_or(Error::Exhausted)?;
        let at = Position { ssrc: header.ssrc, index };
        let sealed = cipher.seal_rtp(at, buf, header.len, len)?;
        source.highest = source.highest.max(Some(index));
        Ok(sealed)
    }

    /// Seals the compound RTCP packet `buf[..len]` in place and returns the new length, at most
    /// [`super::MAX_TRAILER`] more.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::NoRoom`], [`Error::SsrcLimit`] or [`Error::Exhausted`].
    pub fn protect_rtcp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, Error> {
        let packet = buf.get(..len).ok_or(Error::NoRoom)?;
        let ssrc = super::rtcp_ssrc(packet).ok_or(Error::Malformed)?;
        let Self { cipher, sources, last } = self;
        let source = source(sources, last, ssrc)?;
        if source.next_rtcp > SRTCP_MAX_INDEX {
            return Err(Error::Exhausted);
        }
        let at = Position { ssrc, index: u64::from(source.next_rtcp) };
        let sealed = cipher.seal_rtcp(at, buf, len)?;
        source.next_rtcp += 1;
        Ok(sealed)
    }

    #[cfg(test)]
    pub(super) fn skip_to(&mut self, ssrc: u32, highest: Option<u64>, next_rtcp: u32) {
        let place = self.sources.partition_point(|source| source.ssrc < ssrc);
        self.sources.insert(place, Source { ssrc, highest, next_rtcp });
    }
}

fn source<'a>(
    sources: &'a mut Vec<Source>,
    last: &mut usize,
    ssrc: u32,
) -> Result<&'a mut Source, Error> {
    if sources.get(*last).is_none_or(|source| source.ssrc != ssrc) {
        *last = match sources.binary_search_by_key(&ssrc, |source| source.ssrc) {
            Ok(place) => place,
            Err(_) if sources.len() >= MAX_SENT_SSRCS => return Err(Error::SsrcLimit),
            Err(place) => {
                // An SRTCP index starts at 1, as libsrtp's does: 0 would be taken as well.
                sources.insert(place, Source { ssrc, highest: None, next_rtcp: 1 });
                place
            }
        };
    }
    sources.get_mut(*last).ok_or(Error::SsrcLimit)
}
