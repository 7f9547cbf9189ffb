//! The TURN server (RFC 8489, RFC 8656) as a state machine without a socket: datagrams in,
//! datagrams and payloads for peers out.
//!
//! A relayed transport address is a row in a table. A peer is either the forwarder inside this
//! process, under its media address, or another client of the same room; a payload is handed over
//! in place, and the forwarder's way back is the allocation's handle. Clients of class `external`
//! alone, where that policy is on, have real ports and reach peers outside; their sockets are opened
//! through [`Opener`] and known here by name.
//!
//! `docs/relay.md` holds the requirements of both RFCs against the tests. Where this differs from
//! them, on purpose:
//! - Binding is not served (8489 section 1 leaves that to the usage): requests are dropped.
//! - An Allocate without MESSAGE-INTEGRITY and without REQUESTED-TRANSPORT is dropped, not
//!   answered: no TURN client sends one, reflectors' victims get nothing (8656 section 7.2 says
//!   400 to an authenticated one, and that is what that gets).
//! - Replies to requests that are not authenticated are capped per source prefix, over UDP.
//! - A request with a stale nonce gets 438 before its MESSAGE-INTEGRITY is looked at: the check of
//!   the nonce is the cheaper one, and it proves the source address.
//! - Username anonymity is not offered: names are sealed, so a hash would hide nothing.
//! - The policy is asked before a ChannelBind's number is looked at and before the family of a peer
//!   is: a denied peer is 403 in whatever dress it comes. In a room, a CreatePermission that names
//!   the port of another room's address is 403, though permissions are for IPs.
//! - A verified key is kept with its allocation: it serves the allocation's refreshes until the
//!   session limit, also when the secret it came from has left the key ring.
//! - 401 to a genuine credential after its time or after its revocation (8489 knows neither).
//! - ERROR-CODE carries no reason phrase, and SOFTWARE is never sent (8489 sections 14.8, 14.14):
//!   bytes on the wire that help only a scanner.
//! - Relayed ports may be any from 1024, and those of different forwarder allocations may coincide:
//!   they are virtual, the way back is the handle. Those of rooms are unique, with port modulo
//!   shards the shard; a pair of them (EVEN-PORT with R) therefore is 508.
//! - A RESERVATION-TOKEN is good for the subject that got it.
//! - DONT-FRAGMENT is understood and has nothing to do: between relay and peer is no IP hop, so
//!   nothing is ever fragmented (8656 section 7.2 wants 420 only from servers that cannot set DF).
//!   For class `external` there are hops, and it is 420.
//! - Class `external` may bind channel numbers up to 0x7FFF, as clients of RFC 5766 do (coturn's);
//!   8656 keeps those above 0x4FFF back for what else a port might serve, and this one serves none.
//! - A channel number may be bound to another peer as soon as its binding has expired (8656
//!   section 12 asks clients to wait five minutes for the sake of late datagrams).
//! - ICMP is relayed (8656 section 11.5) for class `external` alone: inside there is no network
//!   between relay and peer.
//! - Requests of methods that TURN does not have are dropped, as 8489 section 6.3 says.
//! - Quotas hold for each shard by itself: the kernel spreads a subject's 5-tuples over shards.

mod allocate;
mod ending;
mod external;
mod framing;
#[doc(hidden)]
pub mod fuzz;
mod limits;
mod nonce;
mod outside;
mod policy;
mod ports;
mod proof;
mod request;
mod revoked;
mod sketch;
mod table;
mod timers;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use rand::rngs::StdRng;

pub use external::{External, Icmp, Opened, Opener, Outlet};
pub use framing::{Framing, HEADROOM, Route, TAILROOM};
pub use limits::{Limits, Rate};
pub use nonce::{LIFETIME_SECS as NONCE_LIFETIME_SECS, NonceKey, NonceKeys};
pub use policy::MAX_MEDIA;
pub use ports::{RoomAddresses, Shared};
pub use table::Owner;

use crate::auth::turn::{self as credential, Keys};
use crate::ids::{AllocationHandle, FiveTuple, RoomHash, ShardId};
use crate::metrics::{Counters, Id};
use crate::time::{Mono, Now};
use crate::wire::channel_data;
use crate::wire::mux::{Outer, outer};
use crate::wire::stun::{Class, Message, Method, attr};
use external::Reach;
use limits::{Bucket, Direction};
use outside::Outlets;
use policy::{Peer, Policy, Scope};
use ports::{IpFamily, Ports};
use revoked::Strikes;
use sketch::ReplyCap;
use table::{RandomKey, Table};
use timers::Timers;

/// Longest realm, bytes. A 401 is at most 100 bytes of STUN with a realm of up to 24 bytes, 116
/// with the longest: the nonce cookie and PASSWORD-ALGORITHMS of RFC 8489 cost the difference.
pub const MAX_REALM: usize = 40;

/// What a relay is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// REALM, 1 to [`MAX_REALM`] bytes.
    pub realm: String,
    /// The exact media addresses, 1 to [`MAX_MEDIA`]: the only peers.
    pub media: Vec<SocketAddr>,
    /// The IP of relayed transport addresses: the public IPv4 address.
    pub relayed_ip: IpAddr,
    /// The IP of relayed transport addresses for clients that ask for IPv6; none: 440.
    pub relayed_ip6: Option<Ipv6Addr>,
    /// Real relayed addresses, for other applications; none: that class is refused.
    pub external: Option<External>,
    /// Ports that are never drawn as relayed ports (bound ports; media and echo ports are added).
    pub excluded_ports: Vec<u16>,
    /// Bounds.
    pub limits: Limits,
    /// Shards of the process: a room's relayed ports say, modulo this, whose they are.
    pub shards: u16,
    /// A clone of the same for all of them.
    pub shared: Shared,
}

/// Where clients are sent while this server drains.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Alternate {
    /// For clients that came over IPv4.
    pub v4: Option<SocketAddr>,
    /// For clients that came over IPv6.
    pub v6: Option<SocketAddr>,
}

/// Why a [`Config`] is unsound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// The realm is empty or too long.
    #[error("the realm must have 1 to {MAX_REALM} bytes")]
    Realm,
    /// No media address, or more than the relay serves.
    #[error("there must be 1 to {MAX_MEDIA} media addresses")]
    Media,
    /// Clients that do not ask get an IPv4 address, so there must be one.
    #[error("the relayed address must be IPv4, the second one IPv6")]
    RelayedIp,
    /// No even port with an odd neighbour is left to draw.
    #[error("every relayed port is excluded")]
    Ports,
    /// An open relay, or one for nobody.
    #[error("external relaying needs a list of whom it may reach")]
    Allow,
}

/// What became of a datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Handled {
    /// Nothing to do; counted.
    Dropped,
    /// This many bytes of `reply` go back where the datagram came from.
    Reply(usize),
    /// Part of the datagram is for a peer.
    ToPeer(ToPeer),
    /// Part of the datagram is for another client's allocation.
    ToRelayed(ToRelayed),
    /// Part of the datagram is for a peer outside.
    ToExternal(ToExternal),
}

/// A payload a client sends to a peer outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToExternal {
    /// The socket it leaves by.
    pub outlet: Outlet,
    /// Where to.
    pub to: SocketAddr,
    /// The payload's place in the datagram; may be empty.
    pub payload: Range<usize>,
}

/// A payload a client sends to another client of its room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToRelayed {
    /// The shard whose [`Relay::deliver`] knows the way.
    pub shard: ShardId,
    /// What it is to be told.
    pub hairpin: Hairpin,
    /// The payload's place in the datagram; may be empty.
    pub payload: Range<usize>,
}

/// From one relayed address of a room to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hairpin {
    /// The sender's relayed address.
    pub from: SocketAddr,
    /// The receiver's relayed address.
    pub to: SocketAddr,
    /// The room of the sender.
    pub room: RoomHash,
}

/// A payload a client sends to a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToPeer {
    /// The allocation it comes through: the way back.
    pub allocation: AllocationHandle,
    /// The media address, or for a probe its echo.
    pub peer: SocketAddr,
    /// The payload's place in the datagram; may be empty.
    pub payload: Range<usize>,
}

/// The TURN server of one shard.
pub struct Relay {
    config: Config,
    shard: ShardId,
    policy: Policy,
    ports: Ports,
    outlets: Option<Outlets>,
    draining: Option<Alternate>,
    total_sent: Bucket,
    total_received: Bucket,
    keys: Arc<Keys>,
    nonces: NonceKeys,
    nonces_since: Option<Mono>,
    rng: StdRng,
    table: Table,
    timers: Timers,
    ended: VecDeque<AllocationHandle>,
    cap: ReplyCap,
    strikes: Strikes,
    /// The latest time any call has seen.
    clock: Mono,
    permissions: u64,
    channels: u64,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("shard", &self.shard)
            .field("allocations", &self.table.len())
            .finish_non_exhaustive()
    }
}

// A shard builds its relay before its thread starts.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Relay>();
};

impl Relay {
    /// A relay without allocations.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(
        mut config: Config,
        keys: Arc<Keys>,
        nonces: NonceKeys,
        mut rng: StdRng,
        shard: ShardId,
    ) -> Result<Self, ConfigError> {
        if config.realm.is_empty() || config.realm.len() > MAX_REALM {
            return Err(ConfigError::Realm);
        }
        if config.media.is_empty() || config.media.len() > MAX_MEDIA {
            return Err(ConfigError::Media);
        }
        if !config.relayed_ip.is_ipv4() {
            return Err(ConfigError::RelayedIp);
        }
        let mut excluded = std::mem::take(&mut config.excluded_ports);
        let relayed = [Some(config.relayed_ip), config.relayed_ip6.map(IpAddr::V6)];
        if config.external.as_ref().is_some_and(|external| {
            external.allow.is_empty() || external.ports.is_empty() || !external.bound_ip.is_ipv4()
        }) {
            return Err(ConfigError::Allow);
        }
        let reach = config.external.as_ref();
        let reach = reach.map(|external| Reach::new(config.relayed_ip, external));
        let outlets = config.external.as_ref().map(|it| Outlets::new(it.ports.clone()));
        let policy = Policy::new(&config.media, relayed, config.shared.clone()).reaching(reach);
        excluded.extend(policy.peers().iter().map(SocketAddr::port));
        let ports = Ports::new(excluded, shard, config.shards).ok_or(ConfigError::Ports)?;
        let cap = ReplyCap::new(config.limits.unauthenticated_replies, RandomKey::new(&mut rng));
        Ok(Self {
            policy,
            ports,
            outlets,
            draining: None,
            total_sent: Bucket::default(),
            total_received: Bucket::default(),
            table: Table::new(&mut rng),
            timers: Timers::default(),
            ended: VecDeque::new(),
            strikes: Strikes::default(),
            clock: Mono::ZERO,
            permissions: 0,
            channels: 0,
            config,
            shard,
            keys,
            nonces,
            nonces_since: None,
            rng,
            cap,
        })
    }

    /// Takes one datagram from a client. `reply` should have 1,500 bytes.
    pub fn handle(
        &mut self,
        now: Now,
        tuple: FiveTuple,
        datagram: &[u8],
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Handled {
        self.clock = self.clock.max(now.mono);
        let Some(first) = datagram.first() else {
            return dropped(counters, Id::RelayDropNotTurn);
        };
        if self.is_bad_source(tuple.client.expose()) {
            return dropped(counters, Id::RelayDropBadSource);
        }
        match outer(*first) {
            Outer::ChannelData => self.on_channel_data(now.mono, tuple, datagram, counters),
            Outer::Stun => {
                let Ok(message) = Message::parse(datagram) else {
                    return dropped(counters, Id::RelayDropMalformed);
                };
                self.on_message(now, tuple, &message, reply, counters)
            }
            Outer::Other => dropped(counters, Id::RelayDropNotTurn),
        }
    }

    /// A source nobody can be at: an answer would hit someone else, or ourselves.
    fn is_bad_source(&self, source: SocketAddr) -> bool {
        let nobody = match source.ip() {
            IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified(),
            IpAddr::V6(ip) => ip.is_multicast() || ip.is_unspecified(),
        };
        nobody || source.port() == 0 || self.config.media.contains(&source)
    }

    fn on_channel_data(
        &mut self,
        now: Mono,
        tuple: FiveTuple,
        datagram: &[u8],
        counters: &mut Counters,
    ) -> Handled {
        let Ok(message) = channel_data::parse(datagram) else {
            return dropped(counters, Id::RelayDropMalformed);
        };
        let Some((index, allocation)) = self.live_index(now, tuple) else {
            return dropped(counters, Id::RelayDropNoAllocation);
        };
        // Bound through the policy, so no further question: RFC 8656 section 12.6.
        if let Some(outside) = &allocation.outside {
            return match outside.by_number(message.channel, now) {
                Some(peer) => self.pass_outside(now, index, peer, message.data, counters),
                None => dropped(counters, Id::RelayDropNoChannel),
            };
        }
        let mut channels = allocation.channels.iter();
        let bound =
            channels.find(|channel| channel.number == message.channel && channel.until > now);
        let Some(peer) = bound.map(|channel| channel.peer) else {
            return dropped(counters, Id::RelayDropNoChannel);
        };
        self.pass(now, index, peer, message.data, counters)
    }

    fn live_index(&self, now: Mono, tuple: FiveTuple) -> Option<(u32, &table::Allocation)> {
        let index = self.table.find(tuple)?;
        let allocation = self.table.get(index)?;
        (allocation.expires() > now).then_some((index, allocation))
    }

    /// Lets a payload of an admitted peer through, at the rates allowed.
    fn pass(
        &mut self,
        now: Mono,
        index: u32,
        peer: Peer,
        payload: Range<usize>,
        counters: &mut Counters,
    ) -> Handled {
        let (Some(address), Some(handle), Some(allocation)) =
            (self.policy.address(peer), self.table.handle(index), self.table.get(index))
        else {
            return dropped(counters, Id::RelayDropNoAllocation);
        };
        let Some(port) = allocation.port(IpFamily::of(&address), now) else {
            return dropped(counters, Id::RelayDropNoAllocation);
        };
        let room = allocation.owner.room;
        if let Err(reason) = self.take(now, index, Direction::FromClient, payload.len()) {
            return dropped(counters, reason);
        }
        counters.inc(Id::RelayPacketsIn);
        counters.add(Id::RelayBytesIn, payload.len() as u64);
        match (peer, room) {
            (Peer::Media(_), _) => {
                Handled::ToPeer(ToPeer { allocation: handle, peer: address, payload })
            }
            // Addresses of rooms of one family share their IP.
            (Peer::Room(_, to), Some(room)) => Handled::ToRelayed(ToRelayed {
                shard: self.ports.shard_of(to),
                hairpin: Hairpin { from: (address.ip(), port).into(), to: address, room },
                payload,
            }),
            (Peer::Room(..), None) | (Peer::Outside, _) => dropped(counters, Id::RelayDropNoPeer),
        }
    }

    fn on_message(
        &mut self,
        now: Now,
        tuple: FiveTuple,
        message: &Message<'_>,
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Handled {
        if message.fingerprint() == Some(false) {
            return dropped(counters, Id::RelayDropMalformed);
        }
        match (message.class(), message.method()) {
            (_, Method::BINDING) => dropped(counters, Id::RelayDropBinding),
            (Class::Indication, Method::SEND) => self.on_send(now.mono, tuple, message, counters),
            (
                Class::Request,
                Method::ALLOCATE
                | Method::REFRESH
                | Method::CREATE_PERMISSION
                | Method::CHANNEL_BIND,
            ) => self.on_request(now, tuple, message, reply, counters),
            _ => dropped(counters, Id::RelayDropMalformed),
        }
    }

    /// RFC 8656 section 11.2. Send indications are not authenticated; the 5-tuple is.
    fn on_send(
        &mut self,
        now: Mono,
        tuple: FiveTuple,
        message: &Message<'_>,
        counters: &mut Counters,
    ) -> Handled {
        let Some((index, allocation)) = self.live_index(now, tuple) else {
            return dropped(counters, Id::RelayDropNoAllocation);
        };
        let (Some(peer), Some(payload)) =
            (message.xor_address(attr::XOR_PEER_ADDRESS), message.range_of(attr::DATA))
        else {
            return dropped(counters, Id::RelayDropMalformed);
        };
        if !message.unknown_required(request::known(allocation.owner.class)).is_empty() {
            return dropped(counters, Id::RelayDropMalformed);
        }
        if allocation.outside.is_some() {
            return self.on_send_outside(now, index, peer, payload, counters);
        }
        let admitted = self.policy.admit(&allocation.owner, peer, Scope::Transport);
        let Some(admitted) = admitted.filter(|a| self.serves(allocation, now, peer, a.peer)) else {
            return dropped(counters, Id::RelayDeniedSend);
        };
        let until = allocation.permissions.get(admitted.permission).copied();
        if until.is_none_or(|until| until <= now) {
            return dropped(counters, Id::RelayDropNoPermission);
        }
        self.pass(now, index, admitted.peer, payload, counters)
    }

    /// Whether `written`, a form of the address of `peer`, is of the family it should be, and the
    /// allocation has a relayed address of that family: else 443.
    fn serves(
        &self,
        allocation: &table::Allocation,
        now: Mono,
        written: SocketAddr,
        peer: Peer,
    ) -> bool {
        let family = IpFamily::of(&written);
        self.policy.address(peer).is_some_and(|address| IpFamily::of(&address) == family)
            && allocation.port(family, now).is_some()
    }

    /// How a payload from `peer` reaches the client of an allocation. `None` when the allocation is
    /// gone or holds no live permission for the peer, as of the last call that was given a time.
    #[must_use]
    pub fn route(&self, handle: AllocationHandle, peer: &SocketAddr) -> Option<Route> {
        let allocation = self.table.resolve(handle)?;
        let admitted = self.policy.admit(&allocation.owner, *peer, Scope::Transport)?;
        self.framed(handle, allocation, admitted.peer, admitted.permission)
    }

    /// How a payload that [`Handled::ToRelayed`] handed over, here or on another shard, reaches its
    /// receiver. `None` when nobody of that room is there (any more) or has a live permission for
    /// the sender's IP: RFC 8656 section 11.3.
    #[must_use]
    pub fn deliver(&self, hairpin: &Hairpin) -> Option<Route> {
        let family = IpFamily::of(&hairpin.to);
        let port = hairpin.to.port();
        let index = self.table.find_port(credential::Class::Room, family, port)?;
        let handle = self.table.handle(index)?;
        let allocation = self.table.resolve(handle)?;
        if allocation.owner.room != Some(hairpin.room)
            || self.policy.relayed(family) != Some(hairpin.to.ip())
            || IpFamily::of(&hairpin.from) != family
        {
            return None;
        }
        self.framed(handle, allocation, Peer::Room(family, hairpin.from.port()), family.index())
    }

    fn framed(
        &self,
        handle: AllocationHandle,
        allocation: &table::Allocation,
        peer: Peer,
        permission: usize,
    ) -> Option<Route> {
        let address = self.policy.address(peer)?;
        allocation.port(IpFamily::of(&address), self.clock)?;
        if *allocation.permissions.get(permission)? <= self.clock {
            return None;
        }
        let mut channels = allocation.channels.iter();
        let bound = channels.find(|channel| {
            channel.number != 0 && channel.peer == peer && channel.until > self.clock
        });
        let framing = match bound {
            None => Framing::Indication { peer: address },
            Some(channel) if allocation.tuple.transport.is_stream() => {
                Framing::StreamChannel(channel.number)
            }
            Some(channel) => Framing::Channel(channel.number),
        };
        Some(Route { allocation: handle, tuple: allocation.tuple, framing })
    }

    /// What an allocation's credential was minted for.
    #[must_use]
    pub fn owner(&self, handle: AllocationHandle) -> Option<&Owner> {
        self.table.resolve(handle).map(|allocation| &allocation.owner)
    }

    /// The address under which the client is known to peers: virtual, and unique only in rooms.
    /// The IPv4 one if there are two.
    #[cfg(test)]
    fn relayed_address(&self, handle: AllocationHandle) -> Option<SocketAddr> {
        IpFamily::BOTH.into_iter().find_map(|family| self.relayed_in(handle, family))
    }

    /// The address under which `peer` knows the client: of the peer's family.
    #[must_use]
    pub fn relayed_towards(
        &self,
        handle: AllocationHandle,
        peer: &SocketAddr,
    ) -> Option<SocketAddr> {
        self.relayed_in(handle, IpFamily::of(peer))
    }

    fn relayed_in(&self, handle: AllocationHandle, family: IpFamily) -> Option<SocketAddr> {
        let allocation = self.table.resolve(handle)?;
        let relayed = allocation.relayed.get(family.index())?;
        let ip = self.policy.relayed_of(allocation.owner.class, family)?;
        (relayed.port != 0).then_some((ip, relayed.port).into())
    }

    fn publish(&self, counters: &mut Counters) {
        counters.set(Id::RelayAllocations, self.table.len() as u64);
        counters.set(Id::RelayPermissions, self.permissions);
        counters.set(Id::RelayChannels, self.channels);
        counters.set(Id::RelaySockets, self.outlets.as_ref().map_or(0, Outlets::open));
    }
}

fn dropped(counters: &mut Counters, why: Id) -> Handled {
    counters.inc(why);
    Handled::Dropped
}
