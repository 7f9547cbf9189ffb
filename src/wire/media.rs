//! What two ends agreed to send: the words shared by negotiation, forwarding and signalling.

use std::sync::Arc;

use crate::ids::{StreamId, StreamName};

/// Audio or video.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MediaKind {
    /// An `m=audio` section.
    Audio,
    /// An `m=video` section.
    Video,
}

/// A codec that passes through.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CodecName {
    /// RFC 7587.
    Opus,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// RFC 6184.
    H264,
    /// The AV1 RTP specification.
    Av1,
    /// RFC 7798.
    H265,
}

impl CodecName {
    /// The RTP clock rate, Hz.
    #[must_use]
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::Av1 | Self::H265 => 90_000,
        }
    }
}

/// A codec with the parameters that decide whether two ends understand each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Codec {
    /// Which.
    pub name: CodecName,
    /// The `a=fmtp` parameters as key and value, keys lower case; checked characters only.
    pub fmtp: Vec<(String, String)>,
}

/// Header extension ids of one m-section (RFC 8285); `None` is not negotiated. Only these pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extensions {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`.
    pub mid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level` (RFC 6464).
    pub audio_level: Option<u8>,
    /// `urn:3gpp:video-orientation`.
    pub video_orientation: Option<u8>,
    /// `…/playout-delay`.
    pub playout_delay: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id` (RFC 8852).
    pub rid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id` (RFC 8852).
    pub repaired_rid: Option<u8>,
    /// `…/transport-wide-cc-extensions-01`.
    pub transport_cc: Option<u8>,
    /// `…/abs-send-time`.
    pub abs_send_time: Option<u8>,
    /// The AV1 RTP specification's dependency descriptor.
    pub dependency_descriptor: Option<u8>,
}

/// One audio or video of a publisher, as negotiated with the publisher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackSpec {
    /// Audio or video.
    pub kind: MediaKind,
    /// The publisher's `a=mid`.
    pub mid: String,
    /// The one codec accepted in our answer.
    pub codec: Codec,
    /// Its payload type.
    pub pt: u8,
    /// Payload type of its RTX (RFC 4588), if negotiated.
    pub rtx_pt: Option<u8>,
    /// Payload type of its redundant form (RFC 2198), if negotiated; audio only.
    pub red_pt: Option<u8>,
    /// SSRC announced by `a=ssrc`, if any.
    pub ssrc: Option<u32>,
    /// SSRC of its RTX stream, from `a=ssrc-group:FID`, if any.
    pub rtx_ssrc: Option<u32>,
    /// `a=rtcp-fb nack` was negotiated.
    pub nack: bool,
    /// `a=rtcp-fb nack pli` was negotiated.
    pub pli: bool,
    /// `a=rtcp-fb goog-remb` was negotiated.
    pub remb: bool,
    /// Header extensions the publisher sends.
    pub extensions: Extensions,
    /// Simulcast layers by rid (RFC 8853), in the order of the offer; empty without simulcast.
    pub rids: Vec<String>,
}

/// What one publisher sends under a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamSpec {
    /// This act of publishing.
    pub id: StreamId,
    /// Its name.
    pub name: StreamName,
    /// Its tracks; a track's number is its index here.
    pub tracks: Vec<TrackSpec>,
}

/// How one track is sent to one player, as negotiated with the player.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlayTrackSpec {
    /// Index into [`StreamSpec::tracks`].
    pub track: u8,
    /// The player's `a=mid`.
    pub mid: String,
    /// The player's payload type for the codec.
    pub pt: u8,
    /// The player's RTX payload type, if it has one.
    pub rtx_pt: Option<u8>,
    /// The player's payload type for the redundant form (RFC 2198), if it has one.
    pub red_pt: Option<u8>,
    /// Our SSRC towards this player, random.
    pub ssrc: u32,
    /// Our RTX SSRC towards this player, random.
    pub rtx_ssrc: Option<u32>,
    /// Header extensions the player takes.
    pub extensions: Extensions,
}

/// What one player takes of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlaySpec {
    /// The stream.
    pub stream: Arc<StreamSpec>,
    /// Our CNAME towards this player, random (RFC 7022).
    pub cname: String,
    /// Its tracks.
    pub tracks: Vec<PlayTrackSpec>,
}
