//! Sessions that signalling has agreed and no connectivity check has claimed yet, and who holds
//! the claimed ones. The one lock below layer 4: taken once per session, and for a check that
//! arrives on a shard which does not hold its session.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::congestion::SessionShared;
use super::media::StreamShared;
use crate::ids::{SessionId, ShardId};
use crate::relay::Owner;
use crate::session::ice_lite::{Answer, CheckError};
use crate::session::{self, IceCredentials, dtls};
use crate::time::Mono;
use crate::wire::media::PlaySpec;

/// Everything a shard needs to build a session when it claims it.
#[derive(Debug)]
pub struct Blueprint {
    /// ICE, DTLS and whom it is bound to.
    pub params: session::Params,
    /// Certificate whose fingerprint is in our SDP.
    pub dtls: Arc<dtls::Context>,
    /// Publisher or player.
    pub role: BlueprintRole,
}

/// What the session is for.
#[derive(Debug)]
pub enum BlueprintRole {
    /// Sends a stream.
    Publish(Arc<StreamShared>),
    /// Takes streams, each once.
    Play(Vec<(Arc<StreamShared>, PlaySpec)>),
}

#[derive(Debug)]
enum State {
    Waiting { blueprint: Box<Blueprint>, until: Mono },
    Held(ShardId),
}

#[derive(Debug)]
struct Entry {
    session: SessionId,
    credentials: IceCredentials,
    remote_ufrag: String,
    subject: crate::ids::SubjectHash,
    room: crate::ids::RoomHash,
    state: State,
    shared: Arc<SessionShared>,
}

/// What the table says of a connectivity check.
#[derive(Debug)]
pub enum Verdict {
    /// No such session.
    Unknown,
    /// The allocation was minted for another subject and room.
    ForeignCredential,
    /// The check itself is wrong.
    Refused(CheckError),
    /// The session is the caller's from now on; the check has not been answered.
    Claimed(Box<Blueprint>),
    /// Another shard holds it; the answer is written.
    HeldBy(ShardId, SessionId, Answer),
}

/// Sessions by local ufrag.
#[derive(Debug, Default)]
pub struct ParkedTable {
    entries: Mutex<HashMap<String, Entry>>,
}

/// Sessions the table takes, claimed ones included.
pub const MAX_SESSIONS: usize = 65_536;

impl ParkedTable {
    /// Parks a session until a check claims it or `until` passes.
    ///
    /// # Errors
    /// Gives the blueprint back when the table is full or the ufrag taken.
    pub fn park(&self, blueprint: Box<Blueprint>, until: Mono) -> Result<(), Box<Blueprint>> {
        let mut entries = self.lock();
        let ufrag = &blueprint.params.local.ufrag;
        if entries.len() >= MAX_SESSIONS || entries.contains_key(ufrag) {
            return Err(blueprint);
        }
        let entry = Entry {
            session: blueprint.params.id,
            credentials: blueprint.params.local.clone(),
            remote_ufrag: blueprint.params.remote_ufrag.clone(),
            subject: blueprint.params.subject,
            room: blueprint.params.room,
            state: State::Waiting { blueprint, until },
            shared: Arc::default(),
        };
        entries.insert(entry.credentials.ufrag.clone(), entry);
        Ok(())
    }

    /// Judges a check that arrived on `shard` from an allocation of `owner`.
    pub fn check(
        &self,
        ufrag: &str,
        shard: ShardId,
        owner: &Owner,
        answer: impl FnOnce(&IceCredentials, &str) -> Result<Answer, CheckError>,
    ) -> Verdict {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(ufrag) else { return Verdict::Unknown };
        if owner.subject != entry.subject && owner.room != Some(entry.room) {
            return Verdict::ForeignCredential;
        }
        let answer = match answer(&entry.credentials, &entry.remote_ufrag) {
            Ok(answer) => answer,
            Err(e) => return Verdict::Refused(e),
        };
        match std::mem::replace(&mut entry.state, State::Held(shard)) {
            State::Waiting { blueprint, .. } => Verdict::Claimed(blueprint),
            State::Held(by) => {
                entry.state = State::Held(by);
                Verdict::HeldBy(by, entry.session, answer)
            }
        }
    }

    /// What others may know of a session; `None` when it is unknown.
    pub fn shared(&self, ufrag: &str) -> Option<Arc<SessionShared>> {
        self.lock().get(ufrag).map(|entry| Arc::clone(&entry.shared))
    }

    /// Who holds a session; `None` when it is unknown or waits.
    pub fn holder(&self, ufrag: &str) -> Option<ShardId> {
        match self.lock().get(ufrag)?.state {
            State::Held(by) => Some(by),
            State::Waiting { .. } => None,
        }
    }

    /// Who holds a session; one that still waits is forgotten.
    pub fn holder_or_remove(&self, ufrag: &str) -> Option<ShardId> {
        let mut entries = self.lock();
        if let State::Held(by) = entries.get(ufrag)?.state {
            return Some(by);
        }
        entries.remove(ufrag);
        None
    }

    /// Notes that a session moved to another shard.
    pub fn moved(&self, ufrag: &str, to: ShardId) {
        if let Some(entry) = self.lock().get_mut(ufrag)
            && let State::Held(by) = &mut entry.state
        {
            *by = to;
        }
    }

    /// Forgets a session that ended.
    pub fn remove(&self, ufrag: &str) {
        self.lock().remove(ufrag);
    }

    /// Removes sessions nobody claimed in time and returns them.
    pub fn expire(&self, now: Mono) -> Vec<SessionId> {
        let mut expired = Vec::new();
        self.lock().retain(|_, entry| match &entry.state {
            State::Waiting { until, .. } if *until <= now => {
                expired.push(entry.session);
                false
            }
            State::Waiting { .. } | State::Held(_) => true,
        });
        expired
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // Every critical section leaves the map whole, so a poisoned lock is as good as new.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
