//! Messages of the gateway.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::media::{PlayOffer, TrackInfo};
use crate::control::api::RtcConfiguration;
use crate::wire::media::{CodecName, MediaKind};

/// One message (docs/signalling.schema.json).
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Said<'a> {
    Joined(Box<Joined<'a>>),
    Published {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        stream: &'a str,
        sdp: &'a str,
    },
    Restarted {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        connection: Connection,
        sdp: &'a str,
    },
    Ok {
        id: u64,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
    },
    Ice {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        ice: RtcConfiguration,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        code: &'a str,
        detail: &'a str,
    },
    Offer {
        revision: u32,
        fresh: bool,
        sdp: &'a str,
        tracks: Vec<OfferedTrack<'a>>,
    },
    ConnectionEnded {
        connection: Connection,
    },
    ParticipantJoined {
        participant: &'a str,
        name: &'a str,
    },
    ParticipantLeft {
        participant: &'a str,
        reason: Gone,
    },
    StreamAdded(Stream<'a>),
    StreamRemoved {
        stream: &'a str,
    },
    Muted {
        participant: &'a str,
        stream: &'a str,
        track: u8,
        muted: bool,
    },
    Speakers {
        active: Option<&'a str>,
        levels: Vec<Level<'a>>,
    },
    Estimate {
        bps: u64,
    },
    Chat {
        from: &'a str,
        name: &'a str,
        text: &'a str,
        private: bool,
        at: u64,
    },
    Data {
        from: &'a str,
        data: &'a Value,
        private: bool,
    },
    Kicked {
        by: &'a str,
    },
    Closing {
        reason: &'static str,
        retry_after: u32,
    },
}

impl Said<'_> {
    /// As it is sent.
    pub(super) fn text(&self) -> Arc<str> {
        serde_json::to_string(self).unwrap_or_default().into()
    }
}

#[derive(Serialize)]
pub(super) struct Joined<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<u64>,
    pub(super) protocol: u8,
    pub(super) participant: &'a str,
    pub(super) name: &'a str,
    pub(super) room: &'a str,
    pub(super) resume: &'a str,
    pub(super) resumed: bool,
    pub(super) may: May,
    pub(super) publishing: Option<&'a str>,
    pub(super) ice: RtcConfiguration,
    pub(super) participants: Vec<Person<'a>>,
    pub(super) streams: Vec<Stream<'a>>,
}

#[derive(Serialize)]
pub(super) struct May {
    pub(super) publish: bool,
    pub(super) play: bool,
    pub(super) chat: bool,
    pub(super) data: bool,
    pub(super) admin: bool,
}

#[derive(Serialize)]
pub(super) struct Person<'a> {
    pub(super) participant: &'a str,
    pub(super) name: &'a str,
}

#[derive(Serialize)]
pub(super) struct Stream<'a> {
    pub(super) stream: &'a str,
    pub(super) participant: Option<&'a str>,
    pub(super) tracks: Vec<Track<'a>>,
}

#[derive(Serialize)]
pub(super) struct Track<'a> {
    track: u8,
    kind: &'static str,
    codec: &'static str,
    rids: &'a [String],
    muted: bool,
}

impl<'a> Track<'a> {
    pub(super) fn new(track: u8, info: &'a TrackInfo, muted: bool) -> Self {
        let codec = match info.codec {
            CodecName::Opus => "opus",
            CodecName::Vp8 => "VP8",
            CodecName::Vp9 => "VP9",
            CodecName::H264 => "H264",
            CodecName::Av1 => "AV1",
            CodecName::H265 => "H265",
        };
        Self { track, kind: kind(info.kind), codec, rids: &info.rids, muted }
    }
}

#[derive(Serialize)]
pub(super) struct OfferedTrack<'a> {
    mid: &'a str,
    stream: &'a str,
    track: u8,
    kind: &'static str,
}

/// An offer under the revision that this participant knows it by.
pub(super) fn offer(revision: u32, fresh: bool, offer: &PlayOffer) -> Arc<str> {
    let tracks = offer.tracks.iter().map(|track| OfferedTrack {
        mid: &track.mid,
        stream: track.stream.stream(),
        track: track.track,
        kind: kind(track.kind),
    });
    Said::Offer { revision, fresh, sdp: &offer.sdp, tracks: tracks.collect() }.text()
}

#[derive(Serialize)]
pub(super) struct Level<'a> {
    pub(super) stream: &'a str,
    pub(super) level: u8,
    pub(super) speaking: bool,
}

/// Which of a participant's two connections.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Connection {
    Publish,
    Play,
}

/// Why a participant is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Gone {
    Left,
    Lost,
    Kicked,
}

const fn kind(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Audio => "audio",
        MediaKind::Video => "video",
    }
}
