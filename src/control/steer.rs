//! Which layers a player's application wishes to get.

use super::api::{MediaKind, Principal, Refusal, Wish};
use super::{Closing, Control};
use crate::ids::StreamName;

impl Control {
    /// Wishes layers of a track that a session plays, of the stream named or of its only one. The
    /// wish takes the place of the one before.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such session, it is another subject's, or it does not
    /// play that stream; [`Refusal::NoTrack`]; [`Refusal::NotConnected`] before its connection
    /// stands.
    pub fn steer(
        &self,
        resource: &str,
        who: Option<&Principal>,
        stream: Option<&StreamName>,
        track: MediaKind,
        wish: Wish,
    ) -> Result<(), Refusal> {
        let (session, ufrag, played) =
            self.directory(|d| d.played(resource, who, stream)).ok_or(Refusal::NotFound)?;
        let tracks = (0_u8..).zip(&played.spec.tracks);
        let (track, _) =
            tracks.into_iter().find(|(_, spec)| spec.kind == track).ok_or(Refusal::NoTrack)?;
        let stream = Some(played.spec.id);
        match self.inner.engine.steer(session, &ufrag, stream, track, wish) {
            Closing::Told => Ok(()),
            Closing::Gone => Err(Refusal::NotConnected),
            Closing::Busy => Err(Refusal::Full),
        }
    }

    /// The simulcast layer that a publisher calls `rid`, for [`Wish::spatial`].
    ///
    /// # Errors
    /// As [`Control::steer`], and [`Refusal::NoLayer`].
    pub fn layer_called(
        &self,
        resource: &str,
        who: Option<&Principal>,
        stream: Option<&StreamName>,
        rid: &str,
    ) -> Result<u8, Refusal> {
        let (_, _, played) =
            self.directory(|d| d.played(resource, who, stream)).ok_or(Refusal::NotFound)?;
        let mut rids = played.spec.tracks.iter().flat_map(|track| (0_u8..).zip(&track.rids));
        rids.find(|(_, known)| *known == rid).map(|(layer, _)| layer).ok_or(Refusal::NoLayer)
    }
}
