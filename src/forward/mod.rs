//! From one publisher to its players: receiving, rewriting, keyframe requests, retransmission.
//!
//! A [`Publisher`] turns RTP of one remote sender into [`MediaPacket`]s with a sequence of the
//! track's own: 64 bits, never reused, also when the sender changes its SSRC or restarts its
//! counter. Each [`Player`] maps that sequence to its outgoing one by an addition, so that one
//! source packet has exactly one outgoing number and, with the head that travels beside the
//! payload, exactly one byte string: SRTP seals no nonce twice with different bytes. A [`Cache`]
//! per track and shard answers NACKs of all players there.
//!
//! Law of use: RTP and RTCP arrive here authenticated (SRTP), but their sender may still be
//! hostile: every list is bounded, every length checked, every drop counted.

pub mod allocate;
mod arrivals;
mod cache;
mod choice;
mod clock;
mod keyframe;
mod nack;
mod player;
mod publisher;
mod receive_window;
mod rewrite;
mod routes;
mod track;

use std::ops::Range;

pub use cache::Cache;
pub use choice::Target;
pub use clock::Clock;
pub use player::{Player, TrackStats, Wants};
pub use publisher::{Publisher, VIDEO_BITRATE};

/// Largest payload that is forwarded, bytes: what leaves room for RTP, SRTP and TURN framing in
/// any datagram a client can receive.
pub const MAX_PAYLOAD: usize = 1400;

/// Most bytes a written RTP packet has more than its payload: header, extensions (mid of 16, level,
/// orientation, delay, transport-wide number) and the original sequence number of RTX.
pub const MAX_OVERHEAD: usize = 12 + 4 + 28 + 2;

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

/// A packet of a track without its payload. Copied to other shards beside the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PacketHead {
    /// Index into the stream's tracks.
    pub track: u8,
    /// The track's own extended sequence; never the same for two payloads.
    pub sequence: u64,
    /// Media clock, continued across a change of the publisher's SSRC.
    pub timestamp: u32,
    /// RTP marker.
    pub marker: bool,
    /// First packet of a video keyframe.
    pub keyframe: bool,
    /// Extension values.
    pub meta: Meta,
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
