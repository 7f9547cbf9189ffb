//! Which streams there are, when they come and go, and how loud they are.

use tokio::sync::broadcast;

use super::Control;
use crate::ids::StreamName;
use crate::wire::media::{CodecName, MediaKind, StreamSpec};

/// Events kept for a subscriber that is slow. One that has lagged further is told so by its
/// receiver, and finds out by [`Control::streams_of`] what it has missed.
pub(super) const EVENTS: usize = 1_024;

/// A track of a stream, for those who may want to play it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackInfo {
    /// Audio or video.
    pub kind: MediaKind,
    /// Its codec.
    pub codec: CodecName,
    /// Its simulcast layers; empty when there is one.
    pub rids: Vec<String>,
}

/// A stream whose publisher is connected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamInfo {
    /// Its name.
    pub name: StreamName,
    /// Its tracks; a track's number is its index here.
    pub tracks: Vec<TrackInfo>,
}

impl StreamInfo {
    pub(super) fn of(spec: &StreamSpec) -> Self {
        let track = |track: &crate::wire::media::TrackSpec| TrackInfo {
            kind: track.kind,
            codec: track.codec.name,
            rids: track.rids.clone(),
        };
        Self { name: spec.name.clone(), tracks: spec.tracks.iter().map(track).collect() }
    }
}

/// Something came or went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamEvent {
    /// A publisher's media connection stands.
    Started(StreamInfo),
    /// Its stream is over; the name is free. Playing connections have stopped sending it; the next
    /// [`Control::subscribe_playing`], with the same list or another, offers them without it.
    Ended(StreamName),
    /// A session, publishing or playing, is over.
    SessionEnded {
        /// Its unguessable name: that of [`super::Accepted`], a [`super::PlayingId`].
        resource: String,
    },
}

/// How loud a stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioLevel {
    /// Smoothed, -dBov (RFC 6464): 0 is the loudest, 127 silence.
    pub level: u8,
    /// Whether that is speech, with some patience for pauses.
    pub speaking: bool,
}

impl Control {
    /// What comes and goes from now on.
    #[must_use]
    pub fn stream_events(&self) -> broadcast::Receiver<StreamEvent> {
        self.inner.events.subscribe()
    }

    /// The connected streams of a room, in no order.
    #[must_use]
    pub fn streams_of(&self, room: &str) -> Vec<StreamInfo> {
        let streams = self.directory(|d| d.streams_of(room));
        streams.iter().map(|stream| StreamInfo::of(&stream.spec)).collect()
    }

    /// How loud streams are, in the order asked. `None`: no such stream, or its publisher does not
    /// say (RFC 6464 was not negotiated, or nothing has come yet).
    #[must_use]
    pub fn audio_levels(&self, streams: &[StreamName]) -> Vec<Option<AudioLevel>> {
        let now = self.now().mono;
        self.directory(|d| {
            let level = |name| {
                let level = d.stream(name)?.level(now)?;
                Some(AudioLevel { level: level.level, speaking: level.speaking })
            };
            streams.iter().map(level).collect()
        })
    }

    pub(super) fn announce(&self, event: StreamEvent) {
        // Nobody may be listening.
        let _heard = self.inner.events.send(event);
    }
}
