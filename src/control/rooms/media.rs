//! What rooms need of the media side, and nothing of how it is done.

use crate::control::api::{Accepted, IceConfig, Principal, Refusal};
use crate::ids::StreamName;

pub use crate::control::api::Wish;
pub use crate::control::{
    AudioLevel, PlayOffer, PlayedTrack, PlayingId, StreamEvent, StreamInfo, TrackInfo,
};

/// Who publishes, to those it reaches by data channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Speaker<'a> {
    /// Its id in the room.
    pub participant: &'a str,
    /// Whether what it says is passed on.
    pub may_send: bool,
}

/// The media side of rooms. Nothing here waits: an answer may cost the parsing of an SDP.
pub trait Media: Send + Sync {
    /// Agrees on a publisher's session.
    ///
    /// # Errors
    /// As WHIP's.
    fn publish(
        &self,
        name: &StreamName,
        who: &Principal,
        speaker: Speaker<'_>,
        sdp: &str,
    ) -> Result<Accepted, Refusal>;

    /// Restarts ICE of a publisher's session: an offer with new credentials, the answer back.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or what is wrong with the offer.
    fn restart_publishing(
        &self,
        resource: &str,
        who: &Principal,
        sdp: &str,
    ) -> Result<String, Refusal>;

    /// Ends a publisher's session, if it is still there.
    fn close_publishing(&self, resource: &str);

    /// A fresh TURN credential.
    ///
    /// # Errors
    /// When none can be minted.
    fn ice_config(&self, who: &Principal) -> Result<IceConfig, Refusal>;

    /// Opens a playing connection; it costs nothing until something is played.
    ///
    /// # Errors
    /// [`Refusal::Full`], [`Refusal::SubjectFull`].
    fn open_playing(&self, who: &Principal, room: &str) -> Result<PlayingId, Refusal>;

    /// Sets what is played. `None`: nothing to offer now, or an answer is awaited, and
    /// [`Self::answer_playing`] will return the offer that follows.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when the connection is over.
    fn subscribe_playing(
        &self,
        playing: &PlayingId,
        streams: Vec<StreamName>,
    ) -> Result<Option<PlayOffer>, Refusal>;

    /// Takes the answer to the offer of a revision.
    ///
    /// # Errors
    /// What is wrong with the answer; [`Refusal::NotFound`].
    fn answer_playing(
        &self,
        playing: &PlayingId,
        revision: u32,
        sdp: &str,
    ) -> Result<Option<PlayOffer>, Refusal>;

    /// Offers with new ICE credentials.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    fn restart_playing(&self, playing: &PlayingId) -> Result<Option<PlayOffer>, Refusal>;

    /// Ends a playing connection, if it is still there.
    fn close_playing(&self, playing: &PlayingId);

    /// Says what is wanted of a track that is played.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when the track is not played there.
    fn steer_playing(
        &self,
        playing: &PlayingId,
        stream: &StreamName,
        track: u8,
        wish: Wish,
    ) -> Result<(), Refusal>;

    /// What the line to a player carries, bit/s, once that is known.
    fn estimate_of(&self, playing: &PlayingId) -> Option<u64>;

    /// How loud streams are, in the order asked.
    fn audio_levels(&self, streams: &[StreamName]) -> Vec<Option<AudioLevel>>;

    /// The connected streams of a room.
    fn streams_of(&self, room: &str) -> Vec<StreamInfo>;
}
