//! What the data plane estimates of sessions' paths.

use super::Control;
use crate::ids::SessionId;

impl Control {
    /// What the path to a playing session's client carries by our estimate, bits per second with
    /// all headers. `None`: no such session, or nothing is known (yet).
    #[must_use]
    pub fn estimate_of(&self, session: SessionId) -> Option<u64> {
        let ufrag = self.directory(|d| d.ufrag(session))?;
        self.inner.engine.estimate(&ufrag)
    }
}
