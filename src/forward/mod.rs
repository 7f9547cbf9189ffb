//! From one publisher to its players: receiving, rewriting, keyframe requests, retransmission.
//!
//! A [`Publisher`] turns RTP of one remote sender into [`MediaPacket`]s with a sequence of the
//! track's own: 64 bits, never reused, also when the sender changes its SSRC or restarts its
//! counter. Each [`Player`] maps that sequence to its outgoing one by an addition, so that one
//! source packet has exactly one outgoing number and, with the head that travels beside the
//! payload, exactly one byte string: SRTP seals no nonce twice with different bytes. A [`Cache`]
//! per track and shard answers NACKs of all players there.
//!
//! A track may come in several layers. Of simulcast each has a sequence and a timeline of its own
//! ([`PacketHead::layer`]); a player takes one at a time and changes at a keyframe. What it did is
//! kept as a bounded list of runs: which sequences of which layer became which outgoing numbers,
//! and how timestamp and payload descriptor were shifted. A run's shifts never change, so a packet
//! is written again from its run as it was the first time; what lies before the oldest run kept
//! has no number any more. What a player leaves out (other layers, paused) gets no number; a number
//! kept free for a packet that turns out to be of a layer left out is filled by an empty packet.
//!
//! Law of use: RTP and RTCP arrive here authenticated (SRTP), but their sender may still be
//! hostile: every list is bounded, every length checked, every drop counted.

pub mod allocate;
mod arrivals;
mod cache;
mod choice;
mod clock;
mod dependencies;
mod descriptor;
mod encodings;
mod keyframe;
mod level;
mod nack;
mod player;
mod publisher;
mod rates;
mod receive_window;
mod red;
mod rewrite;
mod routes;
mod runs;
mod selector;
mod track;

use std::ops::Range;

pub use cache::Cache;
pub use choice::{Target, TrackRates, Wish};
pub use clock::Clock;
pub use level::{Level, SILENCE};
pub use player::{Player, TrackStats, Wants};
pub use publisher::{Publisher, VIDEO_BITRATE};
pub use rates::RateMeter;

/// Largest payload that is forwarded, bytes: what leaves room for RTP, SRTP and TURN framing in
/// any datagram a client can receive.
pub const MAX_PAYLOAD: usize = 1400;

/// Longest dependency descriptor that passes to players, bytes: Chromium's with nine decode targets
/// and three chains has 92.
pub const MAX_DESCRIPTOR: usize = 112;

/// Most bytes a written RTP packet has more than its payload: header, extensions (mid of 16, level,
/// orientation, delay, transport-wide number; each a byte more in the two-byte form, where a
/// dependency descriptor comes with them) and the original sequence number of RTX.
pub const MAX_OVERHEAD: usize = 12 + 4 + 28 + 8 + (2 + MAX_DESCRIPTOR) + 2;

/// Most layers of a track, by simulcast or spatial; and most temporal ones.
pub const MAX_LAYERS: usize = 4;

/// One encoding of a track.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LayerId {
    /// Index into the stream's tracks.
    pub track: u8,
    /// As [`PacketHead::layer`].
    pub layer: u8,
}

/// Extension values of a packet that may pass to players; nothing else of the header does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// RFC 6464: voice activity bit and level in -dBov.
    pub audio_level: Option<u8>,
    /// Coordination of video orientation: camera, flip and rotation bits.
    pub orientation: Option<u8>,
    /// Two times twelve bits, units of 10 ms.
    pub playout_delay: Option<[u8; 3]>,
}

/// The dependency descriptor of a packet as it came; empty: it had none that passes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Dependency {
    len: u8,
    bytes: [u8; MAX_DESCRIPTOR],
}

impl Default for Dependency {
    fn default() -> Self {
        Self { len: 0, bytes: [0; MAX_DESCRIPTOR] }
    }
}

impl std::fmt::Debug for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Dependency").field(&self.bytes()).finish()
    }
}

impl Dependency {
    /// Empty where it is longer than [`MAX_DESCRIPTOR`].
    pub(crate) fn new(value: &[u8]) -> Self {
        let mut new = Self::default();
        if let Some(bytes) = new.bytes.get_mut(..value.len()) {
            bytes.copy_from_slice(value);
            new.len = value.len() as u8;
        }
        new
    }

    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        self.bytes.get(..usize::from(self.len)).filter(|bytes| !bytes.is_empty())
    }
}

/// A packet of a track without its payload. Copied to other shards beside the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PacketHead {
    /// Index into the stream's tracks.
    pub track: u8,
    /// Simulcast encoding: index into [`crate::wire::media::TrackSpec::rids`], 0 without.
    pub layer: u8,
    /// Spatial layer within the encoding (SVC).
    pub spatial: u8,
    /// Temporal layer within the encoding.
    pub temporal: u8,
    /// The last packet of its spatial layer's frame, where that is told.
    pub ends: bool,
    /// A receiver of only the temporal layers below may take this one from here on.
    pub sync: bool,
    /// A receiver of this packet's frame may take this temporal layer, and those below, from the
    /// next picture on. 0: that is not told.
    pub up_to: u8,
    /// The layer's own extended sequence; never the same for two payloads.
    pub sequence: u64,
    /// The layer's media clock, continued across a change of its SSRC.
    pub timestamp: u32,
    /// What makes `timestamp` one of the track's clock, as far as is known now; wrapping.
    pub align: u32,
    /// RTP marker.
    pub marker: bool,
    /// In the redundant form of RFC 2198.
    pub redundant: bool,
    /// First packet of a video keyframe.
    pub keyframe: bool,
    /// Extension values.
    pub meta: Meta,
    /// Of AV1, for players who take it.
    pub dependency: Dependency,
}

/// A packet taken from a publisher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaPacket {
    /// Everything but the payload.
    pub head: PacketHead,
    /// Where the payload lies in the packet that was given (of RTX: behind the original sequence).
    pub payload: Range<usize>,
}

impl std::ops::Deref for MediaPacket {
    type Target = PacketHead;

    fn deref(&self) -> &PacketHead {
        &self.head
    }
}
