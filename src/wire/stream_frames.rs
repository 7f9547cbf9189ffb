//! TURN over a stream (TCP, TLS): cuts bytes as they come into STUN messages and ChannelData.
//!
//! Both say their length in their first four bytes (RFC 8656 section 12.5, RFC 8489 section 6.2.2).
//! A stream that once lost its place cannot find it again, so the first lie ends it.

use super::mux::{Outer, outer};
use super::stun::{HEADER as STUN_HEADER, MAGIC_COOKIE};

/// Longest frame taken by default, bytes with header and padding: more than any datagram a path
/// of the Internet carries whole, little enough to hold for a stranger.
pub const MAX_FRAME: usize = 4_096;

/// Bytes that tell a STUN message from noise: type, length, magic cookie.
const STUN_START: usize = 8;

/// Why a stream cannot go on. Every later call says so again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// A frame starts with a byte neither STUN nor ChannelData starts with, or a STUN message has
    /// no magic cookie.
    #[error("the stream does not carry TURN")]
    NotTurn,
    /// The length of a STUN message is not a multiple of four.
    #[error("the length field of a STUN message is impossible")]
    Length,
    /// A frame claims to be longer than the stream's limit.
    #[error("a frame is longer than the limit")]
    TooLong,
}

/// Cuts one stream. Holds at most one unfinished frame; holds no memory between frames.
#[derive(Clone, Debug)]
pub struct Framer {
    /// The start of a frame whose end has not come yet.
    partial: Vec<u8>,
    /// `partial` was handed out whole by the last call.
    spent: bool,
    failed: Option<FrameError>,
    max: usize,
}

/// What the start of a frame tells.
struct Extent {
    /// Bytes of the message.
    message: usize,
    /// Bytes until the next frame: the message and its padding.
    total: usize,
}

impl Default for Framer {
    fn default() -> Self {
        Self::new(MAX_FRAME)
    }
}

impl Framer {
    /// A framer that takes frames of at most `max` bytes, padding included.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { partial: Vec::new(), spent: false, failed: None, max }
    }

    /// The next whole frame of what came before and `input`, which is moved on past what was
    /// taken. `Ok(None)`: `input` is used up. Call again with the same `input` until then.
    ///
    /// A frame is one STUN message or one ChannelData message without its padding. It lies in
    /// `input` itself where it came in one piece.
    ///
    /// # Errors
    /// [`FrameError`]: close the connection.
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i mut [u8],
    ) -> Result<Option<&'a mut [u8]>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.spent {
            self.spent = false;
            self.partial = Vec::new();
        }
        if self.partial.is_empty() {
            match self.extent(input) {
                Ok(Some(extent)) if extent.total <= input.len() => {
                    let (frame, rest) = std::mem::take(input).split_at_mut(extent.total);
                    *input = rest;
                    return Ok(frame.get_mut(..extent.message));
                }
                Ok(_) => {}
                Err(error) => return self.fail(error),
            }
        }
        loop {
            let known = match self.extent(&self.partial) {
                Ok(known) => known,
                Err(error) => return self.fail(error),
            };
            // Up to the cookie first: noise is to be noticed before its claimed length has come.
            let target = match &known {
                Some(extent) if self.partial.len() >= STUN_START.min(extent.total) => extent.total,
                Some(extent) => STUN_START.min(extent.total),
                None => 4,
            };
            if let Some(extent) = known.filter(|extent| extent.total == self.partial.len()) {
                self.spent = true;
                return Ok(self.partial.get_mut(..extent.message));
            }
            if input.is_empty() {
                return Ok(None);
            }
            let wanted = target.saturating_sub(self.partial.len()).min(input.len());
            let (taken, rest) = std::mem::take(input).split_at_mut(wanted);
            self.partial.extend_from_slice(taken);
            *input = rest;
        }
    }

    /// Bytes of an unfinished frame that are held: the connection owes the rest. For the timeout
    /// that ends a stalled one.
    #[must_use]
    pub fn pending(&self) -> usize {
        if self.spent { 0 } else { self.partial.len() }
    }

    fn fail(&mut self, error: FrameError) -> Result<Option<&mut [u8]>, FrameError> {
        self.failed = Some(error);
        self.partial = Vec::new();
        Err(error)
    }

    /// `None` while there are fewer than four bytes.
    fn extent(&self, start: &[u8]) -> Result<Option<Extent>, FrameError> {
        let Some(first) = start.first() else { return Ok(None) };
        let kind = outer(*first);
        if kind == Outer::Other {
            return Err(FrameError::NotTurn);
        }
        let Some([_, _, l0, l1]) = start.first_chunk() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let message = match kind {
            Outer::Stun => STUN_HEADER + length,
            Outer::ChannelData | Outer::Other => 4 + length,
        };
        if kind == Outer::Stun {
            if !length.is_multiple_of(4) {
                return Err(FrameError::Length);
            }
            let cookie = start.get(4..STUN_START);
            if cookie.is_some_and(|cookie| cookie != MAGIC_COOKIE.to_be_bytes()) {
                return Err(FrameError::NotTurn);
            }
        }
        // Without wrapping: 0xFFFD to 0xFFFF of ChannelData are padded to 0x10000.
        let total = message.next_multiple_of(4);
        if total > self.max {
            return Err(FrameError::TooLong);
        }
        Ok(Some(Extent { message, total }))
    }
}

#[cfg(test)]
#[path = "stream_frames_tests.rs"]
mod tests;
