//! Allocations whose peers are outside: real ports, permissions and channels for whom the policy
//! admits (RFC 8656 sections 7 and 9 to 12), and what comes back.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;

use super::external::{Bound, Icmp, Opened, Opener, Outlet, Outside};
use super::framing::{Framing, Route};
use super::limits::Direction;
use super::policy::Scope;
use super::ports::IpFamily;
use super::request::{Answer, CHANNEL, PERMISSION, Refusal};
use super::{Handled, Relay, ToExternal, dropped, table};
use crate::auth::turn::Class;
use crate::ids::{FiveTuple, SubjectHash};
use crate::metrics::{Counters, Id};
use crate::time::{Mono, Now};
use crate::wire::channel_data::LAST_CHANNEL_5766;
use crate::wire::stun::{Builder, Class as StunClass, Message, Method, TransactionId, attr};
use crate::wire::turn;

/// Random ports that are looked at before all are in turn.
const TRIES: u32 = 32;
/// Sockets that one Allocate may make us try to open.
const OPENINGS: u32 = 48;
/// How long the odd neighbour of an even port is held (RFC 8656 section 7.2: 30 s).
const RESERVED_FOR: Duration = Duration::from_secs(30);

/// The way to sockets.
pub(super) struct Outlets {
    opener: Option<Box<dyn Opener>>,
    ports: RangeInclusive<u16>,
    /// What this shard has reserved, the oldest first.
    held: VecDeque<(Mono, u64, Outlet)>,
    /// Sockets of this shard's allocations.
    open: u64,
}

impl Outlets {
    pub(super) const fn new(ports: RangeInclusive<u16>) -> Self {
        Self { opener: None, ports, held: VecDeque::new(), open: 0 }
    }

    pub(super) const fn open(&self) -> u64 {
        self.open
    }

    /// When a reservation ends next.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.held.front().map(|(until, ..)| *until)
    }
}

/// What an allocation of the class gets: a port, and the token of its neighbour's reservation.
pub(super) struct Drawn {
    pub(super) port: u16,
    pub(super) token: u64,
}

impl Relay {
    /// Gives it the means to open relayed sockets; without, allocations of class `external` are
    /// refused (508).
    pub fn open_with(&mut self, opener: Box<dyn Opener>) {
        if let Some(outlets) = &mut self.outlets {
            outlets.opener = Some(opener);
        }
    }

    /// The addresses of this machine, when they have changed: nothing of it is reached but relayed
    /// sockets.
    pub fn set_own_addresses(&mut self, own: Arc<[IpAddr]>) {
        self.policy.set_own(own);
    }

    /// Opens a relayed socket at random; `even` and, with `pair`, with its odd neighbour reserved.
    pub(super) fn open_outlet(
        &mut self,
        now: Mono,
        subject: SubjectHash,
        family: IpFamily,
        (even, pair): (bool, bool),
        counters: &mut Counters,
    ) -> Result<Drawn, Refusal> {
        let shared = self.config.shared.clone();
        let Self { outlets, rng, ports: excluded, .. } = self;
        let outlets = outlets.as_mut().ok_or(Refusal::Capacity)?;
        let opener = outlets.opener.as_mut().ok_or(Refusal::Capacity)?;
        let (first, last) = (*outlets.ports.start(), *outlets.ports.end());
        let span = u32::from(last.saturating_sub(first)) + 1;
        let start = rng.random_range(0..span);
        let mut openings = OPENINGS;
        let free = |port: u16| !excluded.is_excluded(port) && !shared.is_open(family, port);
        for step in 0..TRIES + span {
            let offset = match step.checked_sub(TRIES) {
                None => rng.random_range(0..span),
                Some(step) => (start + step) % span,
            };
            let Ok(mut port) = u16::try_from(u32::from(first) + offset) else { continue };
            if even {
                port &= !1;
            }
            if port < first || !free(port) || pair && (port >= last || !free(port | 1)) {
                continue;
            }
            if openings == 0 {
                break;
            }
            openings -= 1;
            let outlet = Outlet::new(family, port);
            match claim(opener.as_mut(), &shared, outlet, None) {
                Opened::Yes => {}
                Opened::Taken => {
                    counters.inc(Id::RelayPortsTaken);
                    continue;
                }
                Opened::Exhausted => break,
            }
            if !pair {
                outlets.open += 1;
                return Ok(Drawn { port, token: 0 });
            }
            let close = |opener: &mut dyn Opener| {
                opener.close(outlet);
                shared.set_open(family, port, false);
            };
            let Some(token) = shared.reserve(now, subject, family, port | 1, rng) else {
                close(opener.as_mut());
                return Err(Refusal::Capacity);
            };
            let odd = Outlet::new(family, port | 1);
            if claim(opener.as_mut(), &shared, odd, Some(token)) == Opened::Yes {
                outlets.held.push_back((now.plus(RESERVED_FOR), token, odd));
                outlets.open += 1;
                return Ok(Drawn { port, token });
            }
            counters.inc(Id::RelayPortsTaken);
            close(opener.as_mut());
            let _spent = shared.redeem(now, subject, token);
        }
        counters.inc(Id::RelayPortsExhausted);
        Err(Refusal::Capacity)
    }

    /// The reserved socket of a token, on whatever shard it was reserved.
    pub(super) fn take_outlet(
        &mut self,
        now: Mono,
        subject: SubjectHash,
        token: u64,
    ) -> Result<(IpFamily, u16), Refusal> {
        let (family, port) =
            self.config.shared.redeem(now, subject, token).ok_or(Refusal::Capacity)?;
        let outlets = self.outlets.as_mut().ok_or(Refusal::Capacity)?;
        let opener = outlets.opener.as_mut().ok_or(Refusal::Capacity)?;
        if !opener.take(Outlet::new(family, port), token) {
            return Err(Refusal::Capacity);
        }
        outlets.open += 1;
        Ok((family, port))
    }

    /// Closes the relayed socket of an allocation that ends, or loses this one.
    pub(super) fn close_outlet(&mut self, family: IpFamily, port: u16) {
        let Some(outlets) = &mut self.outlets else { return };
        if let Some(opener) = &mut outlets.opener {
            opener.close(Outlet::new(family, port));
        }
        outlets.open = outlets.open.saturating_sub(1);
        self.config.shared.set_open(family, port, false);
    }

    /// Closes reserved sockets that nobody came for.
    pub(super) fn forget_reserved(&mut self, now: Mono) {
        let Some(Outlets { opener: Some(opener), held, .. }) = &mut self.outlets else { return };
        while let Some((until, token, outlet)) = held.front().copied() {
            if until > now {
                break;
            }
            held.pop_front();
            if opener.forget(outlet, token) {
                self.config.shared.set_open(outlet.family(), outlet.port, false);
            }
        }
    }

    /// Adjusts the gauges around a change of what an allocation remembers.
    fn with_outside<T>(&mut self, index: u32, change: impl FnOnce(&mut Outside) -> T) -> Option<T> {
        let outside = self.table.get_mut(index)?.outside.as_deref_mut()?;
        let before = (outside.permissions() as u64, outside.channels() as u64);
        let result = change(outside);
        let after = (outside.permissions() as u64, outside.channels() as u64);
        self.permissions = (self.permissions + after.0).saturating_sub(before.0);
        self.channels = (self.channels + after.1).saturating_sub(before.1);
        Some(result)
    }

    /// Forgets permissions and channels that have expired.
    pub(super) fn expire_outside(&mut self, now: Mono, index: u32) {
        self.with_outside(index, |outside| outside.expire(now));
    }

    /// Forgets the peers of a family.
    pub(super) fn drop_outside(&mut self, index: u32, family: IpFamily) {
        self.with_outside(index, |outside| outside.drop_family(family));
    }

    /// CreatePermission, RFC 8656 section 10.2: all peers or none.
    pub(super) fn on_create_permission_outside(
        &mut self,
        now: Mono,
        message: &Message<'_>,
        index: u32,
        counters: &mut Counters,
    ) -> Result<Answer, Refusal> {
        let allocation = self.table.get(index).ok_or(Refusal::Mismatch)?;
        let most = usize::from(self.config.limits.permissions_per_allocation);
        let mut ips: Vec<IpAddr> = Vec::new();
        let mut foreign_family = false;
        let mut too_many = false;
        for (_, value) in message.attributes().filter(|(kind, _)| *kind == attr::XOR_PEER_ADDRESS) {
            let peer = message.decode_xor_address(value).ok_or(Refusal::BadRequest)?;
            self.policy
                .admit(&allocation.owner, peer, Scope::Address)
                .ok_or(Refusal::Forbidden(Id::RelayDeniedPermission))?;
            foreign_family |= allocation.port(IpFamily::of(&peer), now).is_none();
            if !ips.contains(&peer.ip()) {
                too_many |= ips.len() == most;
                // One request names thousands at most; the list is not longer than the limit.
                if ips.len() < most {
                    ips.push(peer.ip());
                }
            }
        }
        if foreign_family {
            return Err(Refusal::PeerFamily);
        }
        if ips.is_empty() {
            return Err(Refusal::BadRequest);
        }
        let granted = self.with_outside(index, |outside| {
            outside.expire(now);
            if too_many || outside.permissions() + outside.without(&ips) > most {
                return false;
            }
            for ip in &ips {
                outside.permit(*ip, now.plus(PERMISSION));
            }
            true
        });
        // Refused or not: what had expired is gone.
        self.publish(counters);
        if granted != Some(true) {
            return Err(Refusal::Capacity);
        }
        self.timers.arm(index, &mut self.table);
        Ok(Answer::Done)
    }

    /// ChannelBind, RFC 8656 section 12.2.
    pub(super) fn on_channel_bind_outside(
        &mut self,
        now: Mono,
        message: &Message<'_>,
        index: u32,
        counters: &mut Counters,
    ) -> Result<Answer, Refusal> {
        let number = turn::channel_number(message, LAST_CHANNEL_5766);
        let peer = message.xor_address(attr::XOR_PEER_ADDRESS).ok_or(Refusal::BadRequest)?;
        let allocation = self.table.get(index).ok_or(Refusal::Mismatch)?;
        self.policy
            .admit(&allocation.owner, peer, Scope::Transport)
            .ok_or(Refusal::Forbidden(Id::RelayDeniedChannel))?;
        if allocation.port(IpFamily::of(&peer), now).is_none() {
            return Err(Refusal::PeerFamily);
        }
        let number = number?.ok_or(Refusal::BadRequest)?;
        let limits = &self.config.limits;
        let most_channels = usize::from(limits.channels_per_allocation);
        let most_permissions = usize::from(limits.permissions_per_allocation);
        let bound = self.with_outside(index, |outside| {
            outside.expire(now);
            if outside.contradicts(number, peer) {
                return Err(Refusal::BadRequest);
            }
            let known = outside.by_peer(peer, now).is_some();
            let permissions = outside.permissions() + outside.without(&[peer.ip()]);
            if !known && outside.channels() == most_channels || permissions > most_permissions {
                return Err(Refusal::Capacity);
            }
            outside.bind(Bound { number, peer, until: now.plus(CHANNEL) });
            outside.permit(peer.ip(), now.plus(PERMISSION));
            Ok(())
        });
        self.publish(counters);
        bound.ok_or(Refusal::Mismatch)??;
        self.timers.arm(index, &mut self.table);
        Ok(Answer::Done)
    }

    /// A Send indication, RFC 8656 section 11.2.
    pub(super) fn on_send_outside(
        &mut self,
        now: Mono,
        index: u32,
        peer: SocketAddr,
        payload: Range<usize>,
        counters: &mut Counters,
    ) -> Handled {
        let Some(allocation) = self.table.get(index) else {
            return dropped(counters, Id::RelayDropNoAllocation);
        };
        if self.policy.admit(&allocation.owner, peer, Scope::Transport).is_none() {
            return dropped(counters, Id::RelayDeniedSend);
        }
        let outside = allocation.outside.as_deref();
        if !outside.is_some_and(|outside| outside.may(peer.ip(), now)) {
            return dropped(counters, Id::RelayDropNoPermission);
        }
        self.pass_outside(now, index, peer, payload, counters)
    }

    /// Lets a payload for an admitted peer out, at the rates allowed.
    pub(super) fn pass_outside(
        &mut self,
        now: Mono,
        index: u32,
        peer: SocketAddr,
        payload: Range<usize>,
        counters: &mut Counters,
    ) -> Handled {
        let family = IpFamily::of(&peer);
        let (Some(reach), Some(allocation)) = (self.policy.reach(), self.table.get_mut(index))
        else {
            return dropped(counters, Id::RelayDropNoAllocation);
        };
        let Some(port) = allocation.port(family, now) else {
            return dropped(counters, Id::RelayDropNoAllocation);
        };
        // What was somebody else's address, or a relayed socket's port, when the channel was bound
        // may be another program's of this machine by now.
        let open = || reach.is_ours(&peer) && self.config.shared.is_open(family, peer.port());
        if reach.is_own(&peer) && !open() {
            return dropped(counters, Id::RelayDropNoPeer);
        }
        let to = reach.outward(peer);
        if let Err(reason) = self.take(now, index, Direction::FromClient, payload.len()) {
            return dropped(counters, reason);
        }
        counters.inc(Id::RelayPacketsIn);
        counters.add(Id::RelayBytesIn, payload.len() as u64);
        Handled::ToExternal(ToExternal { outlet: Outlet::new(family, port), to, payload })
    }

    /// How a datagram of `len` bytes that came to a relayed socket reaches its client: RFC 8656
    /// section 11.3. `None`: it does not, which is counted.
    pub fn handle_peer(
        &mut self,
        now: Now,
        outlet: Outlet,
        from: SocketAddr,
        len: usize,
        counters: &mut Counters,
    ) -> Option<Route> {
        self.clock = self.clock.max(now.mono);
        match self.judge_peer(now.mono, outlet, from, len) {
            Ok(route) => Some(route),
            Err(why) => {
                counters.inc(why);
                None
            }
        }
    }

    /// Writes what tells a client of an ICMP error: RFC 8656 section 11.5. Gives whom to, and the
    /// length; `None` where it is not told, which is counted.
    pub fn handle_icmp(
        &mut self,
        now: Now,
        outlet: Outlet,
        icmp: &Icmp,
        (tid, out): ([u8; 12], &mut [u8]),
        counters: &mut Counters,
    ) -> Option<(FiveTuple, usize)> {
        let Some(attribute) = icmp.attribute() else {
            counters.inc(Id::RelayDropMalformed);
            return None;
        };
        let route = self.handle_peer(now, outlet, icmp.to, 0, counters)?;
        let peer = self.policy.reach()?.inward(icmp.to);
        let tid = TransactionId(tid);
        let mut builder = Builder::new(out, StunClass::Indication, Method::DATA, tid);
        builder.xor_address(attr::XOR_PEER_ADDRESS, peer);
        builder.attribute(attr::ICMP, &attribute);
        Some((route.tuple, builder.finish()?))
    }

    fn judge_peer(
        &mut self,
        now: Mono,
        outlet: Outlet,
        from: SocketAddr,
        len: usize,
    ) -> Result<Route, Id> {
        let index = self
            .table
            .find_port(Class::External, outlet.family(), outlet.port)
            .ok_or(Id::RelayDropNoAllocation)?;
        let reach = self.policy.reach().ok_or(Id::RelayDropNoAllocation)?;
        let peer = reach.inward(from);
        let allocation = self.table.get(index).ok_or(Id::RelayDropNoAllocation)?;
        if allocation.port(outlet.family(), now) != Some(outlet.port) {
            return Err(Id::RelayDropNoAllocation);
        }
        let outside = allocation.outside.as_deref().ok_or(Id::RelayDropNoAllocation)?;
        if !outside.may(peer.ip(), now) {
            return Err(Id::RelayDropNoPermission);
        }
        if self.policy.admit(&allocation.owner, peer, Scope::Transport).is_none() {
            return Err(Id::RelayDeniedInbound);
        }
        let framing = match outside.by_peer(peer, now) {
            None => Framing::Indication { peer },
            Some(number) if allocation.tuple.transport.is_stream() => {
                Framing::StreamChannel(number)
            }
            Some(number) => Framing::Channel(number),
        };
        let allocation_handle = self.table.handle(index).ok_or(Id::RelayDropNoAllocation)?;
        let route = Route { allocation: allocation_handle, tuple: allocation.tuple, framing };
        self.take(now, index, Direction::ToClient, len)?;
        Ok(route)
    }
}

/// Opens a socket, or with a token reserves one, whose port is then everybody's to see.
fn claim(
    opener: &mut dyn Opener,
    shared: &super::Shared,
    outlet: Outlet,
    token: Option<u64>,
) -> Opened {
    if !shared.set_open(outlet.family(), outlet.port, true) {
        return Opened::Taken;
    }
    let opened = match token {
        None => opener.open(outlet),
        Some(token) => opener.reserve(outlet, token),
    };
    if opened != Opened::Yes {
        shared.set_open(outlet.family(), outlet.port, false);
    }
    opened
}

/// A fresh memory of peers for the class that needs one.
pub(super) fn memory(class: Class) -> Option<Box<Outside>> {
    (class == Class::External).then(Box::default)
}

impl table::Allocation {
    /// Permissions and channels of peers outside.
    pub(super) fn outside_counts(&self) -> (u64, u64) {
        self.outside
            .as_deref()
            .map_or((0, 0), |outside| (outside.permissions() as u64, outside.channels() as u64))
    }
}
