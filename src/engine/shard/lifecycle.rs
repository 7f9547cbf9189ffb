//! Sessions come (claimed or adopted), move and go.

use std::net::SocketAddr;

use super::{Endpoint, LocalStream, Role, Shard, Target};
use crate::engine::mailbox::{Event, Message};
use crate::engine::media::StreamShared;
use crate::engine::parked::Blueprint;
use crate::forward::{Cache, RateMeter, Wish};
use crate::ids::{AllocationHandle, Path, SessionId, StreamId};
use crate::metrics::Id;
use crate::session::Reason;

/// A session moves at most once in 50 ms, so a message that follows it finds it sooner.
pub(super) const MOST_HOPS: u8 = 64;

impl Shard {
    pub(super) fn on_message(&mut self, message: Message) {
        match message {
            Message::Close { session, ufrag, hops } => self.close(session, ufrag, hops),
            Message::Play(change) => self.change_playing(change),
            Message::Steer { session, ufrag, hops, stream, track, wish } => {
                self.steer((session, ufrag, hops), stream, track, wish);
            }
            Message::Keyframe { stream, layer } => {
                stream.wish_done(layer);
                self.request_keyframe(stream.spec.id, layer);
            }
            Message::Rehome { session, path, mapped, datagrams } => {
                self.rehome(session, path, mapped, datagrams);
            }
            Message::Connection(incoming) => {
                self.connections.insert(*incoming, self.now.mono, &mut self.counters);
            }
            Message::Adopt { endpoint, allocation } => self.adopt(endpoint, allocation),
            // Its allocations end with this turn's timers.
            Message::Revoke(revocations) => self.parts.relay.revoke(self.now, &revocations),
            Message::Drain(alternate) => self.parts.relay.set_draining(alternate),
            Message::Nonces(key) => {
                self.parts.relay.rotate_nonces(self.now.mono, &key, &mut self.counters);
            }
            Message::OwnAddresses(own) => self.parts.relay.set_own_addresses(own),
            Message::Stop => self.stopping = true,
        }
    }

    /// Builds a session that the parked table has just given to this shard.
    pub(super) fn claim(&mut self, blueprint: Blueprint) -> Option<usize> {
        let (id, ufrag) = (blueprint.params.id, blueprint.params.local.ufrag.clone());
        let shared = self.parts.parked.shared(&ufrag).unwrap_or_default();
        match Endpoint::new(blueprint, shared, &mut self.parts.rng, self.now) {
            Ok(endpoint) => {
                let index = self.insert(Box::new(endpoint));
                self.touch(index);
                Some(index)
            }
            Err(error) => {
                tracing::error!(session = %id, %error, "session could not be set up");
                self.counters.inc(Id::SessionFailed);
                self.parts.parked.remove(&ufrag);
                self.tell(Event::Ended(id, Reason::Fault));
                None
            }
        }
    }

    fn insert(&mut self, mut endpoint: Box<Endpoint>) -> usize {
        let index = self.free.pop().unwrap_or_else(|| {
            self.endpoints.push(None);
            self.endpoints.len() - 1
        });
        self.rename(index, &mut endpoint);
        self.by_session.insert(endpoint.id, index);
        match &endpoint.role {
            Role::Publish(publishing) => {
                self.local_stream(&publishing.stream).publisher = Some(index);
                publishing.stream.set_publisher(Some(self.parts.id));
            }
            Role::Play(playing) => {
                for part in &playing.parts {
                    self.attach_player(index, &part.stream);
                }
            }
        }
        if let Some(peer) = &endpoint.data {
            self.join_data(index, peer.room);
        }
        self.count_session(&endpoint, true);
        if let Some(slot) = self.endpoints.get_mut(index) {
            *slot = Some(endpoint);
        }
        index
    }

    fn local_stream(&mut self, stream: &StreamShared) -> &mut LocalStream {
        let spec = &stream.spec;
        self.streams.entry(spec.id).or_insert_with(|| LocalStream {
            players: Vec::new(),
            publisher: None,
            caches: spec.tracks.iter().map(|t| Cache::new(t.kind)).collect(),
            meters: spec.tracks.iter().map(RateMeter::new).collect(),
            clocks: vec![None; spec.tracks.len()],
        })
    }

    pub(super) fn attach_player(&mut self, index: usize, stream: &StreamShared) {
        self.local_stream(stream).players.push(index);
        stream.set_players(self.parts.id, true);
    }

    pub(super) fn detach_player(&mut self, index: usize, stream: &StreamShared) {
        let Some(local) = self.streams.get_mut(&stream.spec.id) else { return };
        local.players.retain(|i| *i != index);
        if local.players.is_empty() {
            stream.set_players(self.parts.id, false);
        }
        self.forget_stream(stream.spec.id);
    }

    /// Forgets a stream that has no end here any more.
    fn forget_stream(&mut self, id: StreamId) {
        let unused = |local: &LocalStream| local.players.is_empty() && local.publisher.is_none();
        if self.streams.get(&id).is_some_and(unused) {
            self.streams.remove(&id);
        }
    }

    /// Takes an endpoint out of every table of this shard, but not out of the parked one.
    fn detach(&mut self, index: usize, endpoint: &mut Endpoint) {
        self.forget_names(endpoint);
        self.by_session.remove(&endpoint.id);
        // A queued handshake step or timer of this index finds the slot empty or not due.
        self.handshakes.retain(|i| *i != index);
        self.free.push(index);
        self.count_session(endpoint, false);
        if let Some(peer) = &endpoint.data {
            self.leave_data(index, peer.room);
        }
        match &endpoint.role {
            Role::Publish(publishing) => {
                let stream = &publishing.stream;
                if let Some(local) = self.streams.get_mut(&stream.spec.id) {
                    local.publisher = None;
                }
                // After a move the new home has already put its own number there.
                if stream.publisher() == Some(self.parts.id) {
                    stream.set_publisher(None);
                }
                self.forget_stream(stream.spec.id);
            }
            Role::Play(playing) => {
                for part in &playing.parts {
                    self.detach_player(index, &part.stream);
                }
            }
        }
    }

    fn count_session(&mut self, endpoint: &Endpoint, came: bool) {
        if !endpoint.connected {
            return;
        }
        if let Role::Play(playing) = &endpoint.role {
            playing.congestion.on_move(came, &mut self.counters);
        }
        let gauge = match endpoint.role {
            Role::Publish(_) => Id::SessionsPublishing,
            Role::Play(_) => Id::SessionsPlaying,
        };
        let count = self.counters.get(gauge);
        self.counters.set(gauge, if came { count + 1 } else { count.saturating_sub(1) });
    }

    pub(super) fn on_connected(&mut self, endpoint: &mut Endpoint) {
        endpoint.connected = true;
        self.count_session(endpoint, true);
        self.tell(Event::Connected(endpoint.id));
    }

    fn close(&mut self, session: SessionId, ufrag: String, hops: u8) {
        let now = self.now;
        if let Some(index) = self.by_session.get(&session).copied() {
            self.with_endpoint(index, |endpoint, _| endpoint.session.close(now));
            self.touch(index);
            self.settle_touched();
            return;
        }
        // It moved while the message was under way.
        // Held by this very shard: it is on its way here, behind this message.
        if hops < MOST_HOPS
            && let Some(by) = self.parts.parked.holder(&ufrag)
        {
            // Not as an order: orders come first, and would keep the session from arriving.
            self.post(by, Message::Close { session, ufrag, hops: hops + 1 });
        }
    }

    fn steer(
        &mut self,
        (session, ufrag, hops): (SessionId, String, u8),
        stream: Option<StreamId>,
        track: u8,
        wish: Wish,
    ) {
        if let Some(index) = self.by_session.get(&session).copied() {
            self.with_endpoint(index, |endpoint, _| {
                let Role::Play(playing) = &mut endpoint.role else { return };
                let part = match stream {
                    Some(stream) => playing.part(stream),
                    None => playing.parts.first_mut(),
                };
                if let Some(part) = part {
                    part.player.set_wish(track, wish);
                }
            });
            // It may want a keyframe now.
            self.touch(index);
            return;
        }
        // As in `close`.
        if hops < MOST_HOPS
            && let Some(by) = self.parts.parked.holder(&ufrag)
        {
            self.post(by, Message::Steer { session, ufrag, hops: hops + 1, stream, track, wish });
        }
    }

    fn rehome(
        &mut self,
        session: SessionId,
        path: Path,
        mapped: SocketAddr,
        datagrams: Vec<Vec<u8>>,
    ) {
        let Some(index) = self.by_session.get(&session).copied() else { return };
        if path.shard == self.parts.id {
            return;
        }
        // Only what makes the session choose that path moves it: a nominating check, or media
        // that proves authentic. (The packet that does so is spent on it.)
        let now = self.now;
        // The check may be the first with the credentials of an ICE restart.
        self.learn_restart(session);
        self.with_endpoint(index, |endpoint, shard| {
            for mut datagram in datagrams {
                let counters = &mut shard.counters;
                endpoint.session.handle(now, path, mapped, &mut datagram, counters);
            }
        });
        self.touch(index);
        let chosen = |e: &Endpoint| e.session.path() == Some(path);
        if !self.endpoints.get(index).and_then(Option::as_deref).is_some_and(chosen) {
            return;
        }
        let Some(mut endpoint) = self.endpoints.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.detach(index, &mut endpoint);
        endpoint.scheduled = None;
        endpoint.queued = false;
        let ufrag = endpoint.ufrag.clone();
        self.parts.parked.moved(&ufrag, path.shard);
        let adopt = Message::Adopt { endpoint, allocation: path.allocation };
        if let Err(Message::Adopt { endpoint, .. }) = self.offer(path.shard, adopt) {
            // No room there: it stays, and the client's next check moves it.
            self.parts.parked.moved(&ufrag, self.parts.id);
            let index = self.insert(endpoint);
            self.touch(index);
        }
    }

    fn adopt(&mut self, endpoint: Box<Endpoint>, allocation: AllocationHandle) {
        let session = endpoint.id;
        let index = self.insert(endpoint);
        // The allocation may have ended, and its slot be another's by now.
        if self.parts.relay.owner(allocation).is_some() {
            *self.lane(allocation) = Target::Local { index, session };
        }
        self.touch(index);
    }

    /// Lets go of an ended session.
    pub(super) fn forget(&mut self, index: usize, endpoint: &mut Endpoint, reason: Reason) {
        self.counters.inc(match reason {
            Reason::Consent => Id::SessionConsentLost,
            Reason::Peer => Id::SessionClosedByPeer,
            Reason::Control => Id::SessionClosedByControl,
            Reason::Handshake | Reason::Fingerprint | Reason::Timeout | Reason::Fault => {
                Id::SessionFailed
            }
        });
        self.detach(index, endpoint);
        if let Some(peer) = &endpoint.data {
            self.data_left(endpoint.id, peer);
        }
        self.parts.parked.remove(&endpoint.ufrag);
        self.tell(Event::Ended(endpoint.id, reason));
    }

    /// Closes every session on the way out, so that clients learn it at once.
    pub(super) fn say_goodbye(&mut self) {
        let all: Vec<_> = self.by_session.values().copied().collect();
        let now = self.now;
        for index in all {
            self.with_endpoint(index, |endpoint, _| endpoint.session.close(now));
            self.touch(index);
        }
        self.settle_touched();
        self.flush();
    }
}
