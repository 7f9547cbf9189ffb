//! From decrypted media to players, and whatever else a session has to send.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{Endpoint, PACKET, Part, Playing, Role, SLOT, Shard};
use crate::engine::egress::Egress;
use crate::engine::mailbox::{Event, Message};
use crate::engine::media::{MediaBatch, StreamShared};
use crate::engine::socket::Sockets;
use crate::engine::streams::Streams;
use crate::forward::{LayerId, PacketHead, Wants};
use crate::ids::{Path, ShardId, StreamId};
use crate::metrics::{Counters, Id};
use crate::relay::{HEADROOM, Relay, Route};
use crate::session::{self, srtp};
use crate::time::Mono;
use crate::wire::media::MediaKind;

/// The way out, by borrows of its parts alone: the rest of the shard stays in reach.
macro_rules! out {
    ($shard:expr) => {
        Out {
            egress: &mut $shard.egress,
            streams: &mut $shard.connections,
            counters: &mut $shard.counters,
            sockets: &$shard.parts.sockets,
            transaction: &mut $shard.transaction,
            relay: &mut $shard.parts.relay,
            now: $shard.now.mono,
        }
    };
}

impl Shard {
    /// Adds a packet to the slab of its stream.
    pub(super) fn stage(&mut self, stream: StreamId, head: PacketHead, payload: &[u8]) {
        for _ in 0..2 {
            let open = self.building.iter_mut().rev().find(|b| b.stream == Some(stream));
            if let Some(batch) = open.and_then(Arc::get_mut)
                && batch.push(head, payload)
            {
                return;
            }
            let mut slab = self.pool.take();
            if let Some(batch) = Arc::get_mut(&mut slab) {
                batch.reset(stream);
            }
            self.building.push(slab);
        }
        self.counters.inc(Id::ForwardDropTooLarge);
    }

    /// Delivers what was staged: one message to each shard with players, then here.
    pub(super) fn deliver_built(&mut self) {
        if self.building.is_empty() {
            return;
        }
        let mut built = std::mem::take(&mut self.building);
        let mailboxes = Arc::clone(&self.parts.mailboxes);
        let mut woken = 0u64;
        for mut slab in built.drain(..) {
            let Some(stream) = slab.stream else { continue };
            let publisher = self.streams.get(&stream).and_then(|s| s.publisher);
            let endpoint = publisher.and_then(|i| self.endpoints.get(i)).and_then(Option::as_deref);
            let Some(endpoint) = endpoint else {
                self.pool.put(slab);
                continue;
            };
            let Role::Publish(publishing) = &endpoint.role else { continue };
            if let Some(batch) = Arc::get_mut(&mut slab) {
                let tracks = publishing.stream.spec.tracks.len();
                batch.clocks.extend((0..tracks).map(|t| publishing.publisher.clock(t as u8)));
            }
            let mask = publishing.stream.player_shards();
            for (shard, mailbox) in mailboxes.iter().enumerate() {
                if mask & (1 << shard) == 0 || shard == usize::from(self.parts.id.0) {
                    continue;
                }
                if mailbox.push_media(Arc::clone(&slab)) {
                    woken |= 1 << shard;
                } else {
                    self.counters.add(Id::ForwardDropRing, slab.packets.len() as u64);
                }
            }
            self.deliver(&slab);
            self.pool.put(slab);
        }
        self.building = built;
        for (shard, mailbox) in mailboxes.iter().enumerate() {
            if woken & (1 << shard) != 0 {
                mailbox.wake();
            }
        }
    }

    /// Gives a slab to the players of this shard.
    pub(super) fn deliver(&mut self, slab: &MediaBatch) {
        let Some(local) = slab.stream.and_then(|id| self.streams.get_mut(&id)) else { return };
        if local.players.is_empty() {
            return;
        }
        local.clocks.clone_from(&slab.clocks);
        for (head, range) in &slab.packets {
            let track = usize::from(head.track);
            if let (Some(cache), Some(payload)) =
                (local.caches.get_mut(track), slab.bytes.get(range.clone()))
            {
                cache.store(head, payload);
            }
            if let Some(meter) = local.meters.get_mut(track) {
                meter.add(self.now.mono, head, range.len());
            }
        }
        // A copy in reused memory: a player that ends on the way takes itself off the list.
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend_from_slice(&local.players);
        for index in &order {
            let mut earlier = false;
            self.with_endpoint(*index, |endpoint, shard| earlier = shard.play(endpoint, slab));
            if earlier {
                self.touch(*index);
            }
        }
        self.order = order;
    }

    /// True when the player has something new to ask for, or an earlier timer.
    fn play(&mut self, endpoint: &mut Endpoint, slab: &MediaBatch) -> bool {
        if !endpoint.connected {
            return false;
        }
        let Some(route) = self.route_of(endpoint) else {
            self.counters.add(Id::SessionDropNoPath, slab.packets.len() as u64);
            return false;
        };
        let now = self.now;
        let Role::Play(playing) = &mut endpoint.role else { return false };
        let Playing { parts, congestion, .. } = &mut **playing;
        let part = parts.iter_mut().find(|part| Some(part.stream.spec.id) == slab.stream);
        let Some(Part { stream, player, .. }) = part else { return false };
        let session = &mut endpoint.session;
        let mut out = self.out();
        let mut earlier = false;
        for (head, range) in &slab.packets {
            let Some(payload) = slab.bytes.get(range.clone()) else { continue };
            out.send(&route, |slot, counters| {
                player.offer_number(congestion.next_number());
                let len = player.write_rtp(now, head, payload, slot, counters)?;
                let len = session.protect_rtp(slot, len, counters)?;
                let track = stream.spec.tracks.get(usize::from(head.track));
                let video = track.is_some_and(|track| track.kind == MediaKind::Video);
                earlier |= congestion.on_sent(now.mono, len, player.took_number(), video);
                Some(len)
            });
        }
        earlier | player.take_asks()
    }

    /// Answers a player's NACKs from the caches of its stream.
    pub(super) fn retransmit(&mut self, endpoint: &mut Endpoint, place: usize, wants: &Wants) {
        if wants.nacks.is_empty() || !endpoint.connected {
            return;
        }
        let Some(route) = self.route_of(endpoint) else { return };
        let now = self.now;
        let Endpoint { role, session, .. } = endpoint;
        let Role::Play(playing) = role else { return };
        let Playing { parts, congestion, .. } = &mut **playing;
        let Some(Part { stream, player, .. }) = parts.get_mut(place) else { return };
        let Some(local) = self.streams.get(&stream.spec.id) else { return };
        let mut out = out!(self);
        for (LayerId { track, layer }, sequence) in &wants.nacks {
            let cache = local.caches.get(usize::from(*track));
            let cached = cache.and_then(|cache| cache.load(*layer, *sequence));
            let Some((head, payload)) = cached else {
                out.counters.inc(Id::ForwardRetransmitMiss);
                continue;
            };
            out.send(&route, |slot, counters| {
                player.offer_number(congestion.next_number());
                let len = player.write_retransmission(now, &head, payload, slot, counters)?;
                let len = session.protect_rtp(slot, len, counters)?;
                congestion.on_sent(now.mono, len, player.took_number(), true);
                Some(len)
            });
        }
    }

    /// Asks the publisher of a stream, wherever it is, for a keyframe.
    pub(super) fn ask_keyframe(&mut self, stream: &Arc<StreamShared>, layer: LayerId) {
        match stream.publisher() {
            Some(shard) if shard == self.parts.id => self.request_keyframe(stream.spec.id, layer),
            Some(shard) => {
                let message = Message::Keyframe { stream: Arc::clone(stream), layer };
                if stream.wish(layer) && self.offer(shard, message).is_err() {
                    stream.wish_done(layer);
                }
            }
            // Not connected yet: the player asks again until a keyframe has come.
            None => {}
        }
    }

    pub(super) fn request_keyframe(&mut self, stream: StreamId, layer: LayerId) {
        let Some(index) = self.streams.get(&stream).and_then(|s| s.publisher) else { return };
        let now = self.now;
        self.with_endpoint(index, |endpoint, shard| {
            if let Role::Publish(publishing) = &mut endpoint.role {
                publishing.publisher.request_keyframe(now, layer, &mut shard.counters);
            }
        });
        self.touch(index);
    }

    /// Sends what touched sessions have queued, tells control what happened, sets their timers.
    pub(super) fn settle_touched(&mut self) {
        while let Some(index) = self.touched.pop() {
            let mut ended = None;
            self.with_endpoint(index, |endpoint, shard| ended = shard.settle(endpoint, index));
            if let Some(reason) = ended
                && let Some(mut endpoint) = self.endpoints.get_mut(index).and_then(Option::take)
            {
                self.forget(index, &mut endpoint, reason);
            }
        }
    }

    fn settle(&mut self, endpoint: &mut Endpoint, index: usize) -> Option<session::Reason> {
        let mut ended = None;
        while let Some(event) = endpoint.session.poll_event() {
            match event {
                session::Event::Nominated(_) => {}
                session::Event::Restarted => self.on_restarted(index, endpoint),
                session::Event::Connected { .. } => self.on_connected(endpoint),
                session::Event::Ended(reason) => ended = Some(reason),
            }
        }
        if ended.is_none() && endpoint.connected {
            self.poll_role(endpoint);
            self.poll_data(endpoint);
        }
        self.send_queued(endpoint);
        if ended.is_some() {
            return ended;
        }
        if endpoint.session.needs_handshake_step() && !endpoint.queued {
            endpoint.queued = true;
            self.handshakes.push_back(index);
        }
        if let Some(at) = endpoint.poll_timeout(self.route_of(endpoint).is_some())
            && endpoint.scheduled.is_none_or(|scheduled| at < scheduled)
        {
            endpoint.scheduled = Some(at);
            self.deadlines.push(Reverse((at, index)));
        }
        None
    }

    fn send_queued(&mut self, endpoint: &mut Endpoint) {
        let mut buffer = [0; PACKET];
        while let Some(transmit) = endpoint.session.poll_transmit(self.now, &mut buffer) {
            let route = self.route_over(transmit.path);
            let (Some(route), Some(bytes)) = (route, buffer.get(..transmit.len)) else {
                self.counters.inc(Id::SessionDropNoPath);
                continue;
            };
            self.out().send(&route, |slot, _| {
                slot.get_mut(..bytes.len())?.copy_from_slice(bytes);
                Some(bytes.len())
            });
        }
    }

    /// Reports, keyframe requests and NACKs that are due.
    fn poll_role(&mut self, endpoint: &mut Endpoint) {
        let Some(route) = self.route_of(endpoint) else { return };
        let now = self.now;
        let Endpoint { role, session, .. } = endpoint;
        match role {
            Role::Publish(publishing) => {
                let mut more = true;
                while more {
                    more = self.out().send(&route, |slot, counters| {
                        let len = publishing.publisher.poll_rtcp(now, slot, counters)?;
                        session.protect_rtcp(slot, len, counters)
                    });
                }
            }
            Role::Play(playing) => {
                let Playing { parts, congestion, .. } = &mut **playing;
                let mut out = out!(self);
                let streams = &mut self.streams;
                let rates = |stream, track: u8| {
                    let meter = streams.get_mut(&stream)?.meters.get_mut(usize::from(track))?;
                    Some(meter.rates(now.mono))
                };
                congestion.handle_timeout(now.mono, parts, rates, out.counters);
                while congestion.wants_padding(now.mono, out.counters) {
                    let sent = out.send(&route, |slot, counters| {
                        let part = parts.iter_mut().find(|part| part.player.can_pad())?;
                        part.player.offer_number(congestion.next_number());
                        let len = part.player.write_padding(slot)?;
                        let len = session.protect_rtp(slot, len, counters)?;
                        congestion.on_sent(now.mono, len, part.player.took_number(), false);
                        counters.add(Id::ForwardProbeBytes, len as u64);
                        Some(len)
                    });
                    if !sent {
                        congestion.cannot_pad();
                    }
                }
                for Part { stream, player, .. } in &mut playing.parts {
                    for layer in player.wants_keyframe() {
                        self.ask_keyframe(stream, layer);
                    }
                    let Some(local) = self.streams.get(&stream.spec.id) else { continue };
                    let mut out = out!(self);
                    let mut more = true;
                    while more {
                        more = out.send(&route, |slot, counters| {
                            let len = player.poll_rtcp(now, &local.clocks, slot)?;
                            session.protect_rtcp(slot, len, counters)
                        });
                    }
                }
            }
        }
    }

    pub(super) fn route_of(&self, endpoint: &Endpoint) -> Option<Route> {
        self.route_over(endpoint.session.path()?)
    }

    /// A session sends on its own shard only; its client's other choice makes it move.
    pub(super) fn route_over(&self, path: Path) -> Option<Route> {
        let media = self.parts.media.get(usize::from(path.media))?;
        (path.shard == self.parts.id).then(|| self.parts.relay.route(path.allocation, media))?
    }

    pub(super) fn out(&mut self) -> Out<'_> {
        out!(self)
    }

    /// Sends a message to a shard; a full mailbox is counted, and loses it.
    pub(super) fn post(&mut self, to: ShardId, message: Message) {
        let _lost = self.offer(to, message);
    }

    /// Sends a message to a shard; a full mailbox is counted, and gives it back.
    pub(super) fn offer(&mut self, to: ShardId, message: Message) -> Result<(), Message> {
        let Some(mailbox) = self.parts.mailboxes.get(usize::from(to.0)) else {
            return Err(message);
        };
        mailbox.send(message).inspect_err(|_| self.counters.inc(Id::EngineMailboxFull))
    }

    pub(super) fn tell(&self, event: Event) {
        // Control is gone only while the process ends.
        let _ending = self.parts.events.send(event);
    }
}

/// The way out of a shard, apart from the rest of it.
pub(super) struct Out<'a> {
    egress: &'a mut Egress,
    streams: &'a mut Streams,
    counters: &'a mut Counters,
    sockets: &'a Sockets,
    transaction: &'a mut [u8; 12],
    relay: &'a mut Relay,
    now: Mono,
}

impl Out<'_> {
    /// Lets `write` fill a slot and sends that to the client behind `route`. `write` gives the
    /// bytes it wrote, or `None` to send nothing; true when it wrote something, sent or beyond the
    /// rates of its client.
    pub(super) fn send(
        &mut self,
        route: &Route,
        write: impl FnOnce(&mut [u8], &mut Counters) -> Option<usize>,
    ) -> bool {
        if self.egress.slot(SLOT).is_none() {
            self.egress.flush(self.sockets, self.streams, self.counters);
        }
        let Some(slot) = self.egress.slot(SLOT) else { return false };
        let Some(body) = slot.get_mut(HEADROOM..HEADROOM + PACKET + srtp::MAX_TRAILER) else {
            return false;
        };
        let Some(len) = write(body, self.counters) else { return false };
        if !self.relay.charge(self.now, route.allocation, len, self.counters) {
            return true;
        }
        next_transaction(self.transaction);
        let payload = HEADROOM..HEADROOM + len;
        let Some(range) = route.framing.encapsulate(slot, payload, *self.transaction) else {
            return false;
        };
        self.counters.inc(Id::RelayPacketsOut);
        self.counters.add(Id::RelayBytesOut, len as u64);
        self.egress.commit(route.tuple, range);
        true
    }
}

/// Indications are not answered, so a transaction id need only differ from its neighbours.
pub(super) fn next_transaction(id: &mut [u8; 12]) {
    let (_, counter) = id.split_at_mut(4);
    if let Ok(bytes) = <[u8; 8]>::try_from(&*counter) {
        counter.copy_from_slice(&u64::from_be_bytes(bytes).wrapping_add(1).to_be_bytes());
    }
}
