//! ICE restart where it meets the shard's tables.

use super::{Endpoint, Shard};
use crate::ids::SessionId;

impl Shard {
    /// Knows an endpoint by the ufrags its session takes now, and by no other.
    pub(super) fn rename(&mut self, index: usize, endpoint: &mut Endpoint) {
        self.forget_names(endpoint);
        endpoint.names.extend(endpoint.session.ufrags().map(str::to_owned));
        for name in &endpoint.names {
            self.by_ufrag.insert(name.clone(), index);
        }
    }

    pub(super) fn forget_names(&mut self, endpoint: &mut Endpoint) {
        for name in endpoint.names.drain(..) {
            self.by_ufrag.remove(&name);
        }
    }

    /// Learns what control has agreed for a session that is here. False when it is not, or there
    /// is nothing to learn.
    pub(super) fn learn_restart(&mut self, session: SessionId) -> bool {
        let Some(index) = self.by_session.get(&session).copied() else { return false };
        let mut learnt = false;
        self.with_endpoint(index, |endpoint, shard| {
            if let Some(next) = shard.parts.parked.restart_of(&endpoint.ufrag) {
                endpoint.session.restart(next);
                shard.rename(index, endpoint);
                learnt = true;
            }
        });
        learnt
    }

    /// The client has nominated with the new credentials.
    pub(super) fn on_restarted(&mut self, index: usize, endpoint: &mut Endpoint) {
        self.rename(index, endpoint);
        self.parts.parked.restarted(&endpoint.ufrag, endpoint.session.generation());
        tracing::info!(session = %endpoint.id, "ICE restarted");
    }
}
