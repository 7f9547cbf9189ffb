//! What the data plane estimates of sessions' paths.

use super::Control;
use super::playing::PlayingId;
use crate::ids::SessionId;

impl Control {
    /// What the path to a playing session's client carries by our estimate, bits per second with
    /// all headers. `None`: no such session, or nothing is known (yet).
    #[must_use]
    pub fn estimate_of(&self, session: SessionId) -> Option<u64> {
        let ufrag = self.directory(|d| d.ufrag(session))?;
        self.inner.engine.estimate(&ufrag)
    }

    /// As [`Self::estimate_of`], of a room's playing connection.
    #[must_use]
    pub fn estimate_of_playing(&self, playing: &PlayingId) -> Option<u64> {
        let (_, ufrag) = self.directory(|d| d.by_resource(&playing.0, None))?;
        self.inner.engine.estimate(&ufrag)
    }
}
