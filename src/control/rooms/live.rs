//! The media side of rooms as it is: control itself.

use super::media::{AudioLevel, Media, PlayOffer, PlayingId, Speaker, StreamInfo, Wish};
use crate::control::Control;
use crate::control::api::{Accepted, IceConfig, Principal, Refusal};
use crate::engine::media::DataPeer;
use crate::ids::{RoomHash, StreamName};

impl Media for Control {
    fn publish(
        &self,
        name: &StreamName,
        who: &Principal,
        speaker: Speaker<'_>,
        sdp: &str,
    ) -> Result<Accepted, Refusal> {
        let data = DataPeer {
            name: speaker.participant.into(),
            room: RoomHash::of(name.room()),
            may_send: speaker.may_send,
        };
        self.publish_with(name, who, sdp, Some(data))
    }

    fn restart_publishing(
        &self,
        resource: &str,
        who: &Principal,
        sdp: &str,
    ) -> Result<String, Refusal> {
        self.restart(resource, who, sdp)
    }

    fn close_publishing(&self, resource: &str) {
        if let Some((session, ufrag)) = self.directory(|d| d.by_resource(resource, None)) {
            self.end(session, ufrag);
        }
    }

    fn ice_config(&self, who: &Principal) -> Result<IceConfig, Refusal> {
        Self::ice_config(self, who)
    }

    fn open_playing(&self, who: &Principal, room: &str) -> Result<PlayingId, Refusal> {
        Self::open_playing(self, who, room)
    }

    fn subscribe_playing(
        &self,
        playing: &PlayingId,
        streams: Vec<StreamName>,
    ) -> Result<Option<PlayOffer>, Refusal> {
        Self::subscribe_playing(self, playing, streams)
    }

    fn answer_playing(
        &self,
        playing: &PlayingId,
        revision: u32,
        sdp: &str,
    ) -> Result<Option<PlayOffer>, Refusal> {
        Self::answer_playing(self, playing, revision, sdp)
    }

    fn restart_playing(&self, playing: &PlayingId) -> Result<Option<PlayOffer>, Refusal> {
        Self::restart_playing(self, playing)
    }

    fn close_playing(&self, playing: &PlayingId) {
        Self::close_playing(self, playing);
    }

    fn steer_playing(
        &self,
        playing: &PlayingId,
        stream: &StreamName,
        track: u8,
        wish: Wish,
    ) -> Result<(), Refusal> {
        Self::steer_playing(self, playing, stream, track, wish)
    }

    // Estimates do not reach control yet.
    fn estimate_of(&self, _: &PlayingId) -> Option<u64> {
        None
    }

    fn audio_levels(&self, streams: &[StreamName]) -> Vec<Option<AudioLevel>> {
        Self::audio_levels(self, streams)
    }

    fn streams_of(&self, room: &str) -> Vec<StreamInfo> {
        Self::streams_of(self, room)
    }
}
