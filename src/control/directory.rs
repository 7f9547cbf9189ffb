//! Who publishes what and who plays it.
//!
//! What a playing connection plays is not here: [`super::playing`] keeps it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Agreed;
use super::api::{Principal, Refusal};
use super::restart::Ice;
use crate::engine::media::StreamShared;
use crate::ids::{SessionId, StreamId, StreamName};

/// Sessions of one subject at once: one token must not take every place.
const MAX_PER_SUBJECT: usize = 64;

/// One session.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    agreed: Agreed,
    ice: Ice,
    /// `None`: a playing connection, which takes several and changes them.
    stream: Option<Arc<StreamShared>>,
    publishes: bool,
}

impl Entry {
    pub(super) fn publisher(agreed: Agreed, stream: Arc<StreamShared>) -> Self {
        Self {
            ice: Ice::new(agreed.remote_ufrag.clone()),
            agreed,
            stream: Some(stream),
            publishes: true,
        }
    }

    pub(super) fn player(agreed: Agreed, stream: Arc<StreamShared>) -> Self {
        Self {
            ice: Ice::new(agreed.remote_ufrag.clone()),
            agreed,
            stream: Some(stream),
            publishes: false,
        }
    }

    pub(super) fn playing(agreed: Agreed) -> Self {
        Self { ice: Ice::new(String::new()), agreed, stream: None, publishes: false }
    }

    fn name(&self) -> Option<&StreamName> {
        Some(&self.stream.as_ref()?.spec.name)
    }
}

#[derive(Debug)]
struct Live {
    stream: Arc<StreamShared>,
    publisher: SessionId,
    connected: bool,
    players: HashSet<SessionId>,
}

/// What ended with a session.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) resource: String,
    pub(super) name: Option<StreamName>,
    /// The stream that ended with it, and whether anybody knew of it.
    pub(super) stream: Option<(StreamId, bool)>,
    /// Players of the stream, when it was the publisher that ended.
    pub(super) players: Vec<(SessionId, String)>,
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    sessions: HashMap<SessionId, Entry>,
    by_resource: HashMap<String, SessionId>,
    by_subject: HashMap<String, usize>,
    streams: HashMap<StreamName, Live>,
}

impl Directory {
    /// The stream under a name, once its publisher is connected.
    pub(super) fn stream(&self, name: &StreamName) -> Option<Arc<StreamShared>> {
        self.streams.get(name).filter(|l| l.connected).map(|l| Arc::clone(&l.stream))
    }

    /// Takes a session in; a publisher takes its stream's name.
    pub(super) fn insert(&mut self, entry: Entry, limit: usize) -> Result<(), Refusal> {
        if self.sessions.len() >= limit {
            return Err(Refusal::Full);
        }
        let subject = self.by_subject.get(&entry.agreed.subject).copied().unwrap_or(0);
        if subject >= MAX_PER_SUBJECT {
            return Err(Refusal::SubjectFull);
        }
        let session = entry.agreed.session;
        match &entry.stream {
            None => {}
            Some(stream) if entry.publishes => {
                let name = &stream.spec.name;
                if self.streams.contains_key(name) {
                    return Err(Refusal::NameInUse);
                }
                let live = Live {
                    stream: Arc::clone(stream),
                    publisher: session,
                    connected: false,
                    players: HashSet::new(),
                };
                self.streams.insert(name.clone(), live);
            }
            Some(stream) => {
                // The publisher may have gone, or another come, since the offer was read.
                let live = self.streams.get_mut(&stream.spec.name);
                let live = live.ok_or(Refusal::NobodyPublishing)?;
                if live.stream.spec.id != stream.spec.id {
                    return Err(Refusal::NobodyPublishing);
                }
                live.players.insert(session);
            }
        }
        self.by_resource.insert(entry.agreed.resource.clone(), session);
        *self.by_subject.entry(entry.agreed.subject.clone()).or_default() += 1;
        self.sessions.insert(session, entry);
        Ok(())
    }

    /// Notes that media flows; the stream that is there from now on, if it was a publisher.
    pub(super) fn connected(&mut self, session: SessionId) -> Option<Arc<StreamShared>> {
        let entry = self.sessions.get(&session).filter(|entry| entry.publishes)?;
        let live = self.streams.get_mut(entry.name()?).filter(|it| it.publisher == session)?;
        let news = !std::mem::replace(&mut live.connected, true);
        news.then(|| Arc::clone(&live.stream))
    }

    /// The connected streams of a room.
    pub(super) fn streams_of(&self, room: &str) -> Vec<Arc<StreamShared>> {
        let of_room =
            self.streams.iter().filter(|(name, live)| live.connected && name.room() == room);
        of_room.map(|(_, live)| Arc::clone(&live.stream)).collect()
    }

    /// The session of a resource, if `who` may end it: whoever holds the unguessable resource,
    /// unless a token says it is somebody else.
    pub(super) fn by_resource(
        &self,
        resource: &str,
        who: Option<&Principal>,
    ) -> Option<(SessionId, String)> {
        let session = *self.by_resource.get(resource)?;
        let entry = self.sessions.get(&session)?;
        who.is_none_or(|who| who.subject == entry.agreed.subject)
            .then(|| (session, entry.agreed.ufrag.clone()))
    }

    /// ICE of the session of a resource, as [`Self::by_resource`], and its ufrag.
    pub(super) fn ice_of(
        &mut self,
        resource: &str,
        who: Option<&Principal>,
    ) -> Option<(SessionId, String, &mut Ice)> {
        let (session, ufrag) = self.by_resource(resource, who)?;
        // Of a playing connection we make the offers: nobody restarts it from outside.
        let entry = self.sessions.get_mut(&session).filter(|entry| entry.stream.is_some())?;
        Some((session, ufrag, &mut entry.ice))
    }

    /// What the session of a resource publishes, and the fingerprint it was told.
    pub(super) fn published(&self, resource: &str) -> Option<(Arc<StreamShared>, String)> {
        let entry = self.sessions.get(self.by_resource.get(resource)?)?;
        let stream = entry.stream.as_ref().filter(|_| entry.publishes)?;
        Some((Arc::clone(stream), entry.agreed.fingerprint.clone()))
    }

    /// A playing session by its resource, as in [`Self::by_resource`], with the stream it plays, if
    /// that is `stream` where one is named.
    pub(super) fn played(
        &self,
        resource: &str,
        who: Option<&Principal>,
        stream: Option<&StreamName>,
    ) -> Option<(SessionId, String, Arc<StreamShared>)> {
        let (session, ufrag) = self.by_resource(resource, who)?;
        let entry = self.sessions.get(&session).filter(|entry| !entry.publishes)?;
        // A playing connection of a room is steered by its own name.
        let played = entry.stream.as_ref()?;
        let named = stream.is_none_or(|stream| *stream == played.spec.name);
        named.then(|| (session, ufrag, Arc::clone(played)))
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    pub(super) fn remove(&mut self, session: SessionId) -> Option<Ended> {
        let entry = self.sessions.remove(&session)?;
        self.by_resource.remove(&entry.agreed.resource);
        if let Some(count) = self.by_subject.get_mut(&entry.agreed.subject) {
            *count -= 1;
            if *count == 0 {
                self.by_subject.remove(&entry.agreed.subject);
            }
        }
        let name = entry.name().cloned();
        let (mut players, mut stream) = (Vec::new(), None);
        match &name {
            Some(name) if entry.publishes => {
                if self.streams.get(name).is_some_and(|l| l.publisher == session)
                    && let Some(live) = self.streams.remove(name)
                {
                    let ufrag = |id: &SessionId| Some(self.sessions.get(id)?.agreed.ufrag.clone());
                    players =
                        live.players.iter().filter_map(|id| Some((*id, ufrag(id)?))).collect();
                    stream = Some((live.stream.spec.id, live.connected));
                }
            }
            Some(name) => {
                if let Some(live) = self.streams.get_mut(name) {
                    live.players.remove(&session);
                }
            }
            None => {}
        }
        Some(Ended { resource: entry.agreed.resource, name, stream, players })
    }
}
