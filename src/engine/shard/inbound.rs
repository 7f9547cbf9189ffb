//! From a datagram to a session.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Endpoint, Lane, Role, Shard, Target};
use crate::auth::turn::{Class, echo_address};
use crate::engine::hairpin::HairpinBatch;
use crate::engine::mailbox::Message;
use crate::engine::parked::Verdict;
use crate::ids::{AllocationHandle, ClientAddr, FiveTuple, Path, SessionId, ShardId, Transport};
use crate::metrics::Id;
use crate::relay::{Hairpin, Handled, ToPeer};
use crate::session::{Received, ice_lite};
use crate::wire::mux::{Inner, inner};

/// A check is not longer than this (its USERNAME is at most 513 bytes, RFC 8489 section 14.3).
const LONGEST_CHECK: usize = 1_024;
/// A lane asks for its session at most once in this time.
const REHOME_INTERVAL: Duration = Duration::from_millis(50);
/// No media packet is longer.
const LONGEST_PACKET: usize = 1_500;

impl Shard {
    pub(super) fn on_datagram(&mut self, from: SocketAddr, listener: u8, datagram: &mut [u8]) {
        let tuple = FiveTuple::new(ClientAddr::new(from), Transport::Udp);
        self.on_client_message(tuple.at(listener), datagram);
    }

    /// One message of a client, from a datagram or out of a stream.
    pub(super) fn on_client_message(&mut self, tuple: FiveTuple, datagram: &mut [u8]) {
        let now = self.now;
        let counters = &mut self.counters;
        match self.parts.relay.handle(now, tuple, datagram, &mut self.reply, counters) {
            Handled::Dropped => {}
            Handled::Reply(len) => {
                // An allocation's socket is there before its client hears of it.
                self.settle_external();
                self.send_reply(tuple, len);
            }
            Handled::ToExternal(to) => {
                if let Some(payload) = datagram.get(to.payload.clone()) {
                    self.send_outside(&to, payload);
                }
            }
            Handled::ToRelayed(to) => {
                if let Some(payload) = datagram.get(to.payload) {
                    self.pass_on(to.shard, to.hairpin, payload);
                }
            }
            Handled::ToPeer(ToPeer { allocation, peer, payload }) => {
                let Some(packet) = datagram.get_mut(payload) else { return };
                match self.parts.media.iter().position(|media| *media == peer) {
                    Some(media) => {
                        let shard = self.parts.id;
                        self.on_packet(Path { shard, allocation, media: media as u8 }, packet);
                    }
                    None => self.on_echo(allocation, peer, packet),
                }
            }
        }
    }

    /// Hands a payload to the shard of another client of the sender's room.
    fn pass_on(&mut self, shard: ShardId, hairpin: Hairpin, payload: &[u8]) {
        if shard == self.parts.id {
            self.deliver_hairpin(&hairpin, payload);
        } else {
            self.outbox.add(shard, hairpin, payload, &self.parts.mailboxes);
        }
    }

    /// Sends a payload of a sealed call to its receiver, whatever it is: only the two ends can tell.
    fn deliver_hairpin(&mut self, hairpin: &Hairpin, payload: &[u8]) {
        let Some(route) = self.parts.relay.deliver(hairpin) else {
            self.counters.inc(Id::RelayDropNoPeer);
            return;
        };
        let sent = self.out().send(&route, |slot, _| {
            slot.get_mut(..payload.len())?.copy_from_slice(payload);
            Some(payload.len())
        });
        // Not sent: longer than any path of the Internet carries whole.
        self.counters.inc(if sent { Id::RelayHairpins } else { Id::RelayDropMalformed });
    }

    /// What another shard has handed over.
    pub(super) fn deliver_hairpins(&mut self, batch: &HairpinBatch) {
        for (hairpin, payload) in batch.packets() {
            self.deliver_hairpin(hairpin, payload);
        }
    }

    /// A probe gets its payload back, on the way it came. The policy lets nothing else through;
    /// this is the second lock on that door.
    fn on_echo(&mut self, allocation: AllocationHandle, peer: SocketAddr, packet: &[u8]) {
        let relay = &self.parts.relay;
        let probe = relay.owner(allocation).is_some_and(|owner| owner.class == Class::Probe);
        let echo = self.parts.media.iter().any(|media| echo_address(*media) == Some(peer));
        let Some(route) = relay.route(allocation, &peer).filter(|_| probe && echo) else {
            self.counters.inc(Id::RelayDeniedSend);
            return;
        };
        self.out().send(&route, |slot, _| {
            slot.get_mut(..packet.len())?.copy_from_slice(packet);
            Some(packet.len())
        });
    }

    fn send_reply(&mut self, to: FiveTuple, len: usize) {
        if to.transport.is_stream() {
            self.connections.note_allocation(to, self.parts.relay.has_allocation(to));
        }
        if self.egress.slot(len).is_none() {
            self.flush();
        }
        let Some(bytes) = self.reply.get(..len) else { return };
        if let Some(slot) = self.egress.slot(len) {
            slot.copy_from_slice(bytes);
            self.egress.commit(to, 0..len);
        }
    }

    fn on_packet(&mut self, path: Path, packet: &mut [u8]) {
        let allocation = path.allocation;
        match inner(packet) {
            Inner::Stun => self.on_check(path, packet),
            Inner::Dtls | Inner::Rtp | Inner::Rtcp => match self.lane(allocation) {
                Target::Local { index, session } => {
                    let (index, session) = (*index, *session);
                    self.feed(index, session, path, packet);
                }
                Target::Elsewhere { session, by, check } => {
                    // The client uses this path before it has nominated it: the session comes.
                    let (session, by) = (*session, *by);
                    let packet = packet.get(..packet.len().min(LONGEST_PACKET)).unwrap_or_default();
                    let datagrams = vec![std::mem::take(check), packet.to_vec()];
                    // Once a check: whoever floods this lane does not fill the other's mailbox.
                    *self.lane(allocation) = Target::None;
                    self.ask_rehome(session, by, path, datagrams);
                }
                Target::None => self.counters.inc(Id::SessionDropNoPath),
            },
            Inner::Other => self.counters.inc(Id::SessionDropNotMedia),
        }
    }

    pub(super) fn lane(&mut self, allocation: AllocationHandle) -> &mut Target {
        let index = allocation.index as usize;
        if index >= self.lanes.len() {
            self.lanes.resize_with(index + 1, Lane::default);
        }
        let lane = &mut self.lanes[index];
        if lane.generation != allocation.generation {
            *lane = Lane { generation: allocation.generation, target: Target::None, asked: None };
        }
        &mut lane.target
    }

    /// The address under which the forwarder knows a client.
    fn mapped(&self, path: Path) -> Option<SocketAddr> {
        let media = self.parts.media.get(usize::from(path.media))?;
        self.parts.relay.relayed_towards(path.allocation, media)
    }

    fn on_check(&mut self, path: Path, packet: &mut [u8]) {
        let allocation = path.allocation;
        let Some(check) = ice_lite::peek(packet) else {
            if !ice_lite::is_keepalive(packet) {
                self.counters.inc(Id::SessionIceMalformed);
            }
            return;
        };
        if let Some(index) = self.by_ufrag.get(check.local_ufrag).copied() {
            self.check_local(index, path, packet);
            return;
        }
        let (Some(owner), Some(mapped)) = (self.parts.relay.owner(allocation), self.mapped(path))
        else {
            return;
        };
        let reply = &mut self.reply;
        let id = self.parts.id;
        let verdict = self.parts.parked.check(check.local_ufrag, id, owner, |local, remote| {
            ice_lite::answer(packet, local, remote, mapped, reply)
        });
        match verdict {
            Verdict::Unknown => self.counters.inc(Id::SessionIceUnknownUfrag),
            Verdict::ForeignCredential => self.counters.inc(Id::SessionIceForeignCredential),
            Verdict::Refused(error) => {
                self.counters.inc(error.counter());
                // A 487 or 420 is written already; anything else is not worth an answer.
                if let Some(len) = error.answer_len() {
                    self.answer_check(path, len);
                }
            }
            Verdict::Claimed(blueprint) => {
                if let Some(index) = self.claim(*blueprint) {
                    self.check_local(index, path, packet);
                }
            }
            Verdict::HeldBy(by, session, _) if by == id => {
                // The first check after an ICE restart. Or, between a move's two messages, nobody
                // but the mailbox has the session: the check is repeated.
                let local = |shard: &Self| shard.by_ufrag.get(check.local_ufrag).copied();
                match self.learn_restart(session).then(|| local(self)).flatten() {
                    Some(index) => self.check_local(index, path, packet),
                    None => self.counters.inc(Id::SessionDropUnknown),
                }
            }
            Verdict::HeldBy(by, session, answer) => {
                if answer.use_candidate {
                    self.ask_rehome(session, by, path, vec![packet.to_vec()]);
                    return;
                }
                self.counters.inc(Id::SessionIceChecks);
                self.answer_check(path, answer.len);
                let check = packet.get(..packet.len().min(LONGEST_CHECK)).unwrap_or_default();
                let check = check.to_vec();
                *self.lane(allocation) = Target::Elsewhere { session, by, check };
            }
        }
    }

    fn answer_check(&mut self, path: Path, len: usize) {
        let Some(route) = self.route_over(path) else {
            self.counters.inc(Id::SessionDropNoPath);
            return;
        };
        let Some(answer) = self.reply.get(..len).map(<[u8]>::to_vec) else { return };
        self.out().send(&route, |slot, _| {
            slot.get_mut(..answer.len())?.copy_from_slice(&answer);
            Some(answer.len())
        });
    }

    fn check_local(&mut self, index: usize, path: Path, packet: &mut [u8]) {
        let allocation = path.allocation;
        let Some(owner) = self.parts.relay.owner(allocation) else { return };
        let endpoint = self.endpoints.get(index).and_then(Option::as_deref);
        let Some(session) = endpoint.filter(|e| e.may_use(owner)).map(|e| e.id) else {
            self.counters.inc(Id::SessionIceForeignCredential);
            return;
        };
        *self.lane(allocation) = Target::Local { index, session };
        self.feed(index, session, path, packet);
    }

    /// Hands a session what arrived for it.
    pub(super) fn feed(&mut self, index: usize, session: SessionId, path: Path, packet: &mut [u8]) {
        let Some(mapped) = self.mapped(path) else { return };
        let now = self.now;
        self.with_endpoint(index, |endpoint, shard| {
            let counters = &mut shard.counters;
            if endpoint.id != session {
                counters.inc(Id::SessionDropUnknown);
                return;
            }
            match endpoint.session.handle(now, path, mapped, packet, counters) {
                Received::Nothing => {}
                Received::Rtp(range) => {
                    if let Some(rtp) = packet.get(range) {
                        shard.on_rtp(endpoint, rtp);
                    }
                }
                Received::Rtcp(range) => {
                    if let Some(rtcp) = packet.get(range) {
                        shard.on_rtcp(endpoint, rtcp);
                    }
                }
            }
        });
        self.touch(index);
    }

    fn on_rtp(&mut self, endpoint: &mut Endpoint, rtp: &[u8]) {
        // A player has nothing to send; its RTP is noise.
        let Role::Publish(publishing) = &mut endpoint.role else {
            self.counters.inc(Id::SessionDropNotMedia);
            return;
        };
        if let Some(packet) = publishing.publisher.on_rtp(self.now, rtp, &mut self.counters)
            && let Some(payload) = rtp.get(packet.payload)
        {
            if let Some(level) = publishing.publisher.poll_level() {
                publishing.stream.set_level(level, self.now.mono);
            }
            self.stage(publishing.stream.spec.id, packet.head, payload);
        }
    }

    fn on_rtcp(&mut self, endpoint: &mut Endpoint, rtcp: &[u8]) {
        match &mut endpoint.role {
            Role::Publish(publishing) => {
                publishing.publisher.on_rtcp(self.now, rtcp, &mut self.counters);
            }
            Role::Play(playing) => {
                let mut wants = std::mem::take(&mut self.wants);
                for place in 0..playing.parts.len() {
                    let Role::Play(playing) = &mut endpoint.role else { break };
                    let Some(part) = playing.parts.get_mut(place) else { break };
                    wants.clear();
                    part.player.on_rtcp(self.now, rtcp, &mut wants, &mut self.counters);
                    for layer in &wants.keyframes {
                        self.ask_keyframe(&part.stream, *layer);
                    }
                    self.retransmit(endpoint, place, &wants);
                }
                self.wants = wants;
            }
        }
    }

    pub(super) fn ask_rehome(
        &mut self,
        session: SessionId,
        by: ShardId,
        path: Path,
        datagrams: Vec<Vec<u8>>,
    ) {
        let allocation = path.allocation;
        let Some(mapped) = self.mapped(path) else { return };
        // Whoever floods this lane does not fill the other shard's mailbox.
        let now = self.now.mono;
        self.lane(allocation);
        let Some(lane) = self.lanes.get_mut(allocation.index as usize) else { return };
        if lane.asked.is_some_and(|at| now < at.plus(REHOME_INTERVAL)) {
            return;
        }
        lane.asked = Some(now);
        let message = Message::Rehome { session, path, mapped, datagrams };
        self.post(by, message);
    }
}
