//! Between clients and peers outside.

use std::net::SocketAddr;

use super::Shard;
use crate::engine::sys::udp::RECV_BATCH;
use crate::metrics::Id;
use crate::relay::{HEADROOM, Outlet, TAILROOM, ToExternal};

/// ICMP errors about one relayed socket in one turn.
const ICMP_ERRORS: usize = 8;
/// Room for what tells of one.
const ICMP_SLOT: usize = 96;
/// Receive calls for one relayed socket in one turn.
const RECV_CALLS: usize = 2;

impl Shard {
    /// Sends a client's payload on to its peer.
    pub(super) fn send_outside(&mut self, to: &ToExternal, payload: &[u8]) {
        if let Some(external) = &mut self.external {
            external.send(to.outlet, to.to, payload, &mut self.counters);
        }
    }

    /// Opens and closes what the relay asked for in its last calls.
    pub(super) fn settle_external(&mut self) {
        if let Some(external) = &mut self.external {
            external.apply_changes(&mut self.counters);
        }
    }

    /// Reads relayed sockets that have something, each its share.
    pub(super) fn read_external(&mut self) {
        if !self.external.as_ref().is_some_and(super::External::is_busy) {
            return;
        }
        let mut order = std::mem::take(&mut self.order);
        if let Some(external) = &mut self.external {
            external.take_readable(&mut order);
        }
        for index in &order {
            self.read_outlet(*index);
        }
        self.flush();
        self.order = order;
    }

    fn read_outlet(&mut self, index: usize) {
        self.read_icmp(index);
        for _ in 0..RECV_CALLS {
            let mut recv = self.recv.take().unwrap_or_default();
            let read = self.external.as_ref().and_then(|external| external.read(index, &mut recv));
            let Some((outlet, taken)) = read else {
                self.recv = Some(recv);
                return;
            };
            self.counters.inc(Id::EngineRecvCalls);
            for i in 0..*taken.as_ref().unwrap_or(&0) {
                if let Some((from, payload)) = recv.datagram(i) {
                    self.on_peer_datagram(outlet, from, payload);
                }
            }
            self.recv = Some(recv);
            match taken {
                Ok(n) if n < RECV_BATCH => return,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                // What ails it is told once; what has arrived is still to be read.
                Err(_) => {}
            }
        }
        if let Some(external) = &mut self.external {
            external.read_later(index);
        }
    }

    /// Tells clients what did not arrive. The kernel reports an error like something to read.
    fn read_icmp(&mut self, index: usize) {
        for _ in 0..ICMP_ERRORS {
            let next = self.external.as_ref().and_then(|external| external.next_icmp(index));
            let Some((outlet, icmp)) = next else { return };
            self.counters.inc(Id::ExternalIcmp);
            if self.egress.slot(ICMP_SLOT).is_none() {
                let sockets = &self.parts.sockets;
                self.egress.flush(sockets, &mut self.connections, &mut self.counters);
            }
            super::outbound::next_transaction(&mut self.transaction);
            let (Some(icmp), Some(slot)) = (icmp, self.egress.slot(ICMP_SLOT)) else { continue };
            let (relay, counters) = (&mut self.parts.relay, &mut self.counters);
            let told =
                relay.handle_icmp(self.now, outlet, &icmp, (self.transaction, slot), counters);
            if let Some((tuple, len)) = told {
                self.egress.commit(tuple, 0..len);
            }
        }
        if let Some(external) = &mut self.external {
            external.read_later(index);
        }
    }

    fn on_peer_datagram(&mut self, outlet: Outlet, from: SocketAddr, payload: &[u8]) {
        self.counters.inc(Id::ExternalPacketsIn);
        let counters = &mut self.counters;
        let route = self.parts.relay.handle_peer(self.now, outlet, from, payload.len(), counters);
        let Some(route) = route else { return };
        // Not a slot of the usual size: a peer may send what no path of the Internet carries whole.
        let room = HEADROOM + payload.len() + TAILROOM;
        if self.egress.slot(room).is_none() {
            let sockets = &self.parts.sockets;
            self.egress.flush(sockets, &mut self.connections, &mut self.counters);
        }
        let Some(slot) = self.egress.slot(room) else { return };
        let range = HEADROOM..HEADROOM + payload.len();
        let Some(body) = slot.get_mut(range.clone()) else { return };
        body.copy_from_slice(payload);
        super::outbound::next_transaction(&mut self.transaction);
        let Some(range) = route.framing.encapsulate(slot, range, self.transaction) else {
            self.counters.inc(Id::RelayDropMalformed);
            return;
        };
        self.counters.inc(Id::RelayPacketsOut);
        self.counters.add(Id::RelayBytesOut, payload.len() as u64);
        self.egress.commit(route.tuple, range);
    }
}
