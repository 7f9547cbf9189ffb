//! The receiving direction: index estimation, replay protection, opening in place.

use super::cipher::{Cipher, Position};
use super::window::Window;
use super::{Error, MAX_SSRCS, Master, Profile, RTCP_CLEAR, SRTCP_ENCRYPTED, SRTCP_MAX_INDEX};

/// Opens what one peer sends. State for an SSRC comes into being only with its first authentic
/// packet, for at most [`MAX_SSRCS`] SSRCs of RTP and as many of RTCP.
pub struct Receiver {
    cipher: Cipher,
    rtp: Sources,
    rtcp: Sources,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("srtp::Receiver").finish_non_exhaustive()
    }
}

impl Receiver {
    /// Derives the session keys.
    ///
    /// # Errors
    /// [`Error::Key`] when key or salt have not the profile's length.
    pub fn new(profile: Profile, master: Master<'_>) -> Result<Self, Error> {
        Ok(Self::with_cipher(Cipher::new(profile, master)?))
    }

    pub(super) fn with_cipher(cipher: Cipher) -> Self {
        Self { cipher, rtp: Sources::default(), rtcp: Sources::default() }
    }

    /// Opens an SRTP packet in place and returns the length of the RTP packet.
    ///
    /// # Errors
    /// Any reason to drop it; its bytes are then unspecified.
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<usize, Error> {
        let header = super::rtp_header(packet).ok_or(Error::Malformed)?;
        if packet.len() < header.len + self.cipher.tag_len() {
            return Err(Error::Malformed);
        }
        let slot = self.rtp.find(header.ssrc)?;
        let window = slot.and_then(|slot| self.rtp.window(slot));
        let highest = window.and_then(Window::highest);
        let index = super::estimate_index(highest, header.sequence).ok_or(Error::Exhausted)?;
        if window.is_some_and(|window| !window.is_fresh(index)) {
            return Err(Error::Replay);
        }
        let at = Position { ssrc: header.ssrc, index };
        let len = self.cipher.open_rtp(at, packet, header.len)?;
        self.rtp.accept(slot, at);
        Ok(len)
    }

    /// Opens an SRTCP packet in place and returns the length of the compound RTCP packet.
    ///
    /// # Errors
    /// Any reason to drop it; its bytes are then unspecified. A packet without the `E` flag is
    /// [`Error::Malformed`]: every profile here encrypts RTCP.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Error> {
        let ssrc = super::rtcp_ssrc(packet).ok_or(Error::Malformed)?;
        let word = self.cipher.rtcp_index_word(packet)?;
        if word & SRTCP_ENCRYPTED == 0 {
            return Err(Error::Malformed);
        }
        let at = Position { ssrc, index: u64::from(word & SRTCP_MAX_INDEX) };
        let slot = self.rtcp.find(ssrc)?;
        let window = slot.and_then(|slot| self.rtcp.window(slot));
        if window.is_some_and(|window| !window.is_fresh(at.index)) {
            return Err(Error::Replay);
        }
        let len = self.cipher.open_rtcp(at, packet)?;
        debug_assert!(len >= RTCP_CLEAR, "the cipher keeps the clear part");
        self.rtcp.accept(slot, at);
        Ok(len)
    }
}

/// Replay windows by SSRC.
#[derive(Default)]
struct Sources {
    all: Vec<(u32, Window)>,
    /// The last hit: packets of one SSRC come in runs.
    last: usize,
}

impl Sources {
    /// Where the SSRC's window is; `None` for an unknown SSRC that may still get one.
    fn find(&mut self, ssrc: u32) -> Result<Option<usize>, Error> {
        if self.all.get(self.last).is_some_and(|(known, _)| *known == ssrc) {
            return Ok(Some(self.last));
        }
        match self.all.iter().position(|(known, _)| *known == ssrc) {
            Some(slot) => {
                self.last = slot;
                Ok(Some(slot))
            }
            None if self.all.len() >= MAX_SSRCS => Err(Error::SsrcLimit),
            None => Ok(None),
        }
    }

    fn window(&self, slot: usize) -> Option<&Window> {
        self.all.get(slot).map(|(_, window)| window)
    }

    fn accept(&mut self, slot: Option<usize>, at: Position) {
        if let Some((_, window)) = slot.and_then(|slot| self.all.get_mut(slot)) {
            window.accept(at.index);
        } else {
            let mut window = Window::default();
            window.accept(at.index);
            self.last = self.all.len();
            self.all.push((at.ssrc, window));
        }
    }
}
