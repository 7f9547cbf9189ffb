//! Sessions that signalling has agreed and no connectivity check has claimed yet, and who holds
//! the claimed ones. The one lock below layer 4: taken once per session, for a check that arrives on
//! a shard which does not hold its session, and for an ICE restart.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::media::{DataPeer, StreamShared};
use crate::ids::{SessionId, ShardId};
use crate::relay::Owner;
use crate::session::ice_lite::{Answer, CheckError};
use crate::session::{self, Generation, IceCredentials, dtls};
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
    /// It has data channels.
    pub data: Option<DataPeer>,
}

/// What the session is for.
#[derive(Debug)]
pub enum BlueprintRole {
    /// Sends a stream.
    Publish(Arc<StreamShared>),
    /// Takes streams, each once.
    Play(Vec<Played>),
}

/// A stream and how a session takes it.
pub type Played = (Arc<StreamShared>, PlaySpec);

/// Who holds a session that does not wait, and what was meant for it.
pub type NotWaiting = (Option<ShardId>, Vec<Played>);

#[derive(Debug)]
enum State {
    Waiting { blueprint: Box<Blueprint>, until: Mono },
    Held(ShardId),
}

#[derive(Debug)]
struct Entry {
    session: SessionId,
    ice: Generation,
    /// What an ICE restart has agreed, until the client nominates with it.
    next: Option<Generation>,
    subject: crate::ids::SubjectHash,
    room: crate::ids::RoomHash,
    state: State,
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

/// Sessions by their first local ufrag, which is their handle for life.
#[derive(Debug, Default)]
pub struct ParkedTable {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_handle: HashMap<String, Entry>,
    /// Ufrags of ICE restarts, at most two a session, and the handle of theirs.
    renamed: HashMap<String, String>,
}

impl Entries {
    fn get_mut(&mut self, ufrag: &str) -> Option<&mut Entry> {
        let handle = self.renamed.get(ufrag).map_or(ufrag, String::as_str);
        self.by_handle.get_mut(handle)
    }

    fn remove(&mut self, handle: &str) {
        let Some(entry) = self.by_handle.remove(handle) else { return };
        self.forget_names(&entry);
    }

    fn forget_names(&mut self, entry: &Entry) {
        for generation in [Some(&entry.ice), entry.next.as_ref()].into_iter().flatten() {
            self.renamed.remove(&generation.local.ufrag);
        }
    }
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
        let taken = entries.by_handle.contains_key(ufrag) || entries.renamed.contains_key(ufrag);
        if taken || entries.by_handle.len() >= MAX_SESSIONS {
            return Err(blueprint);
        }
        let entry = Entry {
            session: blueprint.params.id,
            ice: Generation {
                local: blueprint.params.local.clone(),
                remote_ufrag: blueprint.params.remote_ufrag.clone(),
            },
            next: None,
            subject: blueprint.params.subject,
            room: blueprint.params.room,
            state: State::Waiting { blueprint, until },
        };
        entries.by_handle.insert(entry.ice.local.ufrag.clone(), entry);
        Ok(())
    }

    /// Lets a session be checked with the credentials of an ICE restart, beside those in force.
    /// A restart the client has not nominated with is given up for this one. False when the
    /// session is gone or the ufrag taken: nothing has changed then.
    ///
    /// A shard that holds the session learns of it by the first check ([`Self::restart_of`]), so
    /// no message has to find a session that moves.
    #[must_use]
    pub fn restart(&self, handle: &str, next: &Generation) -> bool {
        let mut entries = self.lock();
        let Entries { by_handle, renamed } = &mut *entries;
        let ufrag = &next.local.ufrag;
        if by_handle.contains_key(ufrag) || renamed.contains_key(ufrag) {
            return false;
        }
        let Some(entry) = by_handle.get_mut(handle) else { return false };
        if let Some(given_up) = entry.next.replace(next.clone()) {
            renamed.remove(&given_up.local.ufrag);
        }
        renamed.insert(ufrag.clone(), handle.to_owned());
        if let State::Waiting { blueprint, .. } = &mut entry.state {
            blueprint.params.restart = Some(next.clone());
        }
        true
    }

    /// The ICE restart of a session that the client has not nominated with.
    #[must_use]
    pub fn restart_of(&self, handle: &str) -> Option<Generation> {
        self.lock().by_handle.get(handle)?.next.clone()
    }

    /// Notes that the client nominated with the credentials of a restart: those before are over.
    pub fn restarted(&self, handle: &str, now: &Generation) {
        let mut entries = self.lock();
        let Entries { by_handle, renamed } = &mut *entries;
        let Some(entry) = by_handle.get_mut(handle) else { return };
        let old = std::mem::replace(&mut entry.ice, now.clone());
        renamed.remove(&old.local.ufrag);
        renamed.insert(now.local.ufrag.clone(), handle.to_owned());
        // Another restart may have been agreed since.
        entry.next.take_if(|next| next == now);
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
        // A handle whose credentials are over is refused there as unknown.
        let ice = entry.next.as_ref().filter(|next| next.local.ufrag == ufrag);
        let Generation { local, remote_ufrag } = ice.unwrap_or(&entry.ice);
        let answer = match answer(local, remote_ufrag) {
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

    /// Changes what a session that still waits will play.
    ///
    /// # Errors
    /// Gives the streams back when a shard holds it, with that shard, or when it is unknown.
    pub fn set_played(&self, ufrag: &str, streams: Vec<Played>) -> Result<(), NotWaiting> {
        let mut entries = self.lock();
        match entries.get_mut(ufrag).map(|entry| &mut entry.state) {
            Some(State::Waiting { blueprint, .. }) => {
                blueprint.role = BlueprintRole::Play(streams);
                Ok(())
            }
            Some(State::Held(by)) => Err((Some(*by), streams)),
            None => Err((None, streams)),
        }
    }

    /// Who holds a session; `None` when it is unknown or waits.
    pub fn holder(&self, ufrag: &str) -> Option<ShardId> {
        match self.lock().by_handle.get(ufrag)?.state {
            State::Held(by) => Some(by),
            State::Waiting { .. } => None,
        }
    }

    /// Who holds a session; one that still waits is forgotten.
    pub fn holder_or_remove(&self, ufrag: &str) -> Option<ShardId> {
        let mut entries = self.lock();
        if let State::Held(by) = entries.by_handle.get(ufrag)?.state {
            return Some(by);
        }
        entries.remove(ufrag);
        None
    }

    /// Notes that a session moved to another shard.
    pub fn moved(&self, ufrag: &str, to: ShardId) {
        if let Some(entry) = self.lock().by_handle.get_mut(ufrag)
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
        let mut entries = self.lock();
        let due =
            |entry: &mut Entry| matches!(entry.state, State::Waiting { until, .. } if until <= now);
        let expired: Vec<_> = entries.by_handle.extract_if(|_, entry| due(entry)).collect();
        for (_, entry) in &expired {
            entries.forget_names(entry);
        }
        expired.into_iter().map(|(_, entry)| entry.session).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Every critical section leaves the map whole, so a poisoned lock is as good as new.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
