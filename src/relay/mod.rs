//! The TURN server (RFC 8489, RFC 8656) as a state machine without a socket: datagrams in,
//! datagrams and payloads for peers out.
//!
//! A relayed transport address is a row in a table. The only peer is the forwarder inside this
//! process, under its media address, so a payload is handed over in place and the way back is the
//! allocation's handle.
//!
//! Where it differs from the RFCs, on purpose:
//! - Binding is not served (8489 section 1 leaves that to the usage): requests are dropped.
//! - An Allocate without MESSAGE-INTEGRITY and without REQUESTED-TRANSPORT is dropped, not
//!   answered: no TURN client sends one, reflectors' victims get nothing (8656 section 7.2 says
//!   400 to an authenticated one, and that is what that gets).
//! - Replies to requests that are not authenticated are capped per source prefix.
//! - A request with a stale nonce gets 438 before its MESSAGE-INTEGRITY is looked at: the check of
//!   the nonce is the cheaper one, and it proves the source address.
//! - The policy is asked before a ChannelBind's number is looked at and before the family of a peer
//!   is: a denied peer is 403 in whatever dress it comes.
//! - A verified key is kept with its allocation: it serves the allocation's refreshes until the
//!   session limit, also when the secret it came from has left the key ring.
//! - 401 to a genuine credential after its time (8489 knows no expiry).
//! - ERROR-CODE carries no reason phrase, and SOFTWARE is never sent (8489 sections 14.8, 14.14):
//!   bytes on the wire that help only a scanner.
//! - Relayed ports of different allocations may coincide and an even port has no odd neighbour in
//!   reserve: ports are virtual, the way back is the handle. EVEN-PORT without the R bit draws an
//!   even port; with it, and any RESERVATION-TOKEN: 508 (8656 section 7.2).
//! - DONT-FRAGMENT is understood and has nothing to do: between relay and peer is no IP hop, so
//!   nothing is ever fragmented (8656 section 7.2 wants 420 only from servers that cannot set DF).
//! - Permissions are those for media IPs and nothing else, so their number, and that of channels
//!   (a probe's to its echo included), is at most [`MAX_MEDIA`] an allocation.
//! - A channel number may be bound to another peer as soon as its binding has expired (8656
//!   section 12 asks clients to wait five minutes for the sake of late datagrams; there are none).
//! - ICMP is not relayed (8656 section 11.5): there is no network between relay and peer.
//! - Requests of methods that TURN does not have are dropped, as 8489 section 6.3 says.
//! - Quotas hold for each shard by itself: the kernel spreads a subject's 5-tuples over shards.

mod framing;
mod nonce;
mod policy;
mod request;
mod sketch;
mod table;
mod timers;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;

pub use framing::{Framing, HEADROOM, Route, TAILROOM};
pub use nonce::{LIFETIME_SECS as NONCE_LIFETIME_SECS, NonceKeys};
pub use policy::MAX_MEDIA;
pub use table::Owner;

use crate::auth::turn::Keys;
use crate::ids::{AllocationHandle, FiveTuple, Path, ShardId};
use crate::metrics::{Counters, Id};
use crate::time::{Mono, Now};
use crate::wire::channel_data;
use crate::wire::mux::{Outer, outer};
use crate::wire::stun::{Class, Message, Method, attr};
use crate::wire::turn::Family;
use policy::{Policy, Scope};
use sketch::ReplyCap;
use table::{RandomKey, Table};
use timers::Timers;

/// Longest realm, bytes: a 401 is then at most 100 bytes of STUN.
pub const MAX_REALM: usize = 40;
/// Ports below are never relayed ports: browsers reject candidates there.
const FIRST_PORT: u16 = 1024;
/// Allocations looked at in one call of [`Relay::handle_timeout`]: the shard's other work waits.
const TIMEOUT_BATCH: usize = 512;

/// What a relay is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// REALM, 1 to [`MAX_REALM`] bytes.
    pub realm: String,
    /// The exact media addresses, 1 to [`MAX_MEDIA`]: the only peers.
    pub media: Vec<SocketAddr>,
    /// The IP of relayed transport addresses: the public IPv4 address.
    pub relayed_ip: IpAddr,
    /// Ports that are never drawn as relayed ports (bound ports; media and echo ports are added).
    pub excluded_ports: Vec<u16>,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds of one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Allocations in all; beyond: 508.
    pub allocations: u32,
    /// Allocations of one subject; beyond: 486.
    pub allocations_per_subject: u32,
    /// Lifetime of an allocation whose client asks for less or nothing, seconds.
    pub default_lifetime: u32,
    /// Longest lifetime granted at a time, seconds.
    pub max_lifetime: u32,
    /// Replies to requests without valid credentials, per second and source prefix (/32 of IPv4,
    /// /64 of IPv6).
    pub unauthenticated_replies: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations: 50_000,
            allocations_per_subject: 32,
            default_lifetime: 600,
            max_lifetime: 3600,
            unauthenticated_replies: 256,
        }
    }
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
    /// Relayed addresses are IPv4 so far.
    #[error("the relayed address must be IPv4")]
    RelayedIp,
    /// No even port is left to draw.
    #[error("every relayed port is excluded")]
    Ports,
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
    keys: Arc<Keys>,
    nonces: NonceKeys,
    rng: StdRng,
    table: Table,
    timers: Timers,
    ended: VecDeque<AllocationHandle>,
    cap: ReplyCap,
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

/// Why an allocation ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Expired,
    Released,
}

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
        let policy = Policy::new(&config.media);
        config.excluded_ports.extend(policy.peers().iter().map(SocketAddr::port));
        config.excluded_ports.sort_unstable();
        config.excluded_ports.dedup();
        let taken = |port: u16| config.excluded_ports.binary_search(&port).is_ok();
        if (FIRST_PORT..=u16::MAX).step_by(2).all(taken) {
            return Err(ConfigError::Ports);
        }
        let cap = ReplyCap::new(config.limits.unauthenticated_replies, RandomKey::new(&mut rng));
        Ok(Self {
            policy,
            table: Table::new(&mut rng),
            timers: Timers::default(),
            ended: VecDeque::new(),
            clock: Mono::ZERO,
            permissions: 0,
            channels: 0,
            config,
            shard,
            keys,
            nonces,
            rng,
            cap,
        })
    }

    /// Puts new nonce keys in place; not more often than every [`NONCE_LIFETIME_SECS`].
    pub fn set_nonce_keys(&mut self, nonces: NonceKeys) {
        self.nonces = nonces;
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
        &self,
        now: Mono,
        tuple: FiveTuple,
        datagram: &[u8],
        counters: &mut Counters,
    ) -> Handled {
        let Ok(message) = channel_data::parse(datagram) else {
            return dropped(counters, Id::RelayDropMalformed);
        };
        let Some((handle, allocation)) = self.live_handle(now, tuple) else {
            return dropped(counters, Id::RelayDropNoAllocation);
        };
        let bound = allocation
            .channels
            .iter()
            .position(|channel| channel.number == message.channel && channel.until > now);
        // Bound through the policy, so no further question: RFC 8656 section 12.6.
        let Some(peer) = bound.and_then(|media| self.policy.media(media)) else {
            return dropped(counters, Id::RelayDropNoChannel);
        };
        to_peer(handle, peer, message.data, counters)
    }

    fn live_handle(
        &self,
        now: Mono,
        tuple: FiveTuple,
    ) -> Option<(AllocationHandle, &table::Allocation)> {
        let index = self.table.find(tuple)?;
        let allocation = self.table.get(index).filter(|allocation| allocation.expires > now)?;
        Some((self.table.handle(index)?, allocation))
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
        &self,
        now: Mono,
        tuple: FiveTuple,
        message: &Message<'_>,
        counters: &mut Counters,
    ) -> Handled {
        let Some((handle, allocation)) = self.live_handle(now, tuple) else {
            return dropped(counters, Id::RelayDropNoAllocation);
        };
        let (Some(peer), Some(payload)) =
            (message.xor_address(attr::XOR_PEER_ADDRESS), message.range_of(attr::DATA))
        else {
            return dropped(counters, Id::RelayDropMalformed);
        };
        if !message.unknown_required(request::KNOWN).is_empty() {
            return dropped(counters, Id::RelayDropMalformed);
        }
        let admitted = self.policy.admit(allocation.owner.class, peer, Scope::Transport);
        let Some(admitted) = admitted.filter(|_| Family::of(peer) == self.family()) else {
            return dropped(counters, Id::RelayDeniedSend);
        };
        let until = allocation.permissions.get(admitted.permission).copied();
        if until.is_none_or(|until| until <= now) {
            return dropped(counters, Id::RelayDropNoPermission);
        }
        let Some(peer) = self.policy.media(admitted.media) else {
            return dropped(counters, Id::RelayDeniedSend);
        };
        to_peer(handle, peer, payload, counters)
    }

    /// The family of all relayed addresses.
    const fn family(&self) -> Family {
        match self.config.relayed_ip {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// How a payload from `peer` reaches the client of an allocation. `None` when the allocation is
    /// gone or holds no live permission for the peer, as of the last call that was given a time.
    #[must_use]
    pub fn route(&self, handle: AllocationHandle, peer: &SocketAddr) -> Option<Route> {
        let allocation = self.table.resolve(handle).filter(|a| a.expires > self.clock)?;
        let admitted = self.policy.admit(allocation.owner.class, *peer, Scope::Transport)?;
        if *allocation.permissions.get(admitted.permission)? <= self.clock {
            return None;
        }
        let channel = allocation.channels.get(admitted.media)?;
        let framing = if channel.until > self.clock {
            Framing::Channel(channel.number)
        } else {
            Framing::Indication { peer: self.policy.media(admitted.media)? }
        };
        Some(Route { tuple: allocation.tuple, framing })
    }

    /// What an allocation's credential was minted for.
    #[must_use]
    pub fn owner(&self, handle: AllocationHandle) -> Option<&Owner> {
        self.table.resolve(handle).map(|allocation| &allocation.owner)
    }

    /// The address under which the client is known to peers: virtual, and not necessarily unique.
    #[must_use]
    pub fn relayed_address(&self, handle: AllocationHandle) -> Option<SocketAddr> {
        let allocation = self.table.resolve(handle)?;
        Some(SocketAddr::new(self.config.relayed_ip, allocation.port))
    }

    /// The allocation as other shards name it.
    #[must_use]
    pub const fn path(&self, allocation: AllocationHandle) -> Path {
        Path { shard: self.shard, allocation }
    }

    /// When [`Relay::handle_timeout`] has something to do; may be early, and is in the past while
    /// a large batch is being worked off.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// Ends what has expired: allocations, permissions, channels.
    pub fn handle_timeout(&mut self, now: Now, counters: &mut Counters) {
        self.clock = self.clock.max(now.mono);
        for _ in 0..TIMEOUT_BATCH {
            let Some(handle) = self.timers.pop_due(now.mono, &mut self.table) else { break };
            let Some(allocation) = self.table.get_mut(handle.index) else { continue };
            if allocation.expires <= now.mono {
                self.end(now, handle.index, End::Expired, counters);
                continue;
            }
            for until in &mut allocation.permissions {
                if *until != Mono::ZERO && *until <= now.mono {
                    *until = Mono::ZERO;
                    self.permissions = self.permissions.saturating_sub(1);
                }
            }
            for channel in &mut allocation.channels {
                if channel.number != 0 && channel.until <= now.mono {
                    *channel = table::Channel::default();
                    self.channels = self.channels.saturating_sub(1);
                }
            }
            self.timers.arm(handle.index, &mut self.table);
        }
        self.publish(counters);
    }

    /// The next allocation that has ended; to be called until `None` after every other call.
    pub fn poll_ended(&mut self) -> Option<AllocationHandle> {
        self.ended.pop_front()
    }

    fn end(&mut self, now: Now, index: u32, why: End, counters: &mut Counters) {
        let Some((handle, allocation)) = self.table.remove(index) else { return };
        let permissions = allocation.permissions.iter().filter(|until| **until != Mono::ZERO);
        let channels = allocation.channels.iter().filter(|channel| channel.number != 0);
        self.permissions = self.permissions.saturating_sub(permissions.count() as u64);
        self.channels = self.channels.saturating_sub(channels.count() as u64);
        // Lifetimes are whole seconds and never reach past the session limit.
        let at_limit =
            now.unix.as_micros().saturating_add(1_000_000) > allocation.live_until.as_micros();
        counters.inc(match why {
            End::Released => Id::RelayAllocationsEndedReleased,
            End::Expired if at_limit => Id::RelayAllocationsEndedSessionLimit,
            End::Expired => Id::RelayAllocationsEndedExpired,
        });
        self.ended.push_back(handle);
        self.publish(counters);
    }

    fn publish(&self, counters: &mut Counters) {
        counters.set(Id::RelayAllocations, self.table.len() as u64);
        counters.set(Id::RelayPermissions, self.permissions);
        counters.set(Id::RelayChannels, self.channels);
    }

    /// A virtual port: random, not excluded, even when asked for.
    fn draw_port(&mut self, even: bool) -> u16 {
        let mask = if even { !1 } else { !0 };
        let taken = |port: u16| self.config.excluded_ports.binary_search(&port).is_ok();
        for _ in 0..64 {
            let port = self.rng.random_range(FIRST_PORT..=u16::MAX) & mask;
            if !taken(port) {
                return port;
            }
        }
        // Nearly everything is excluded: the first that is free. `new` has found one.
        let step = if even { 2 } else { 1 };
        (FIRST_PORT..=u16::MAX).step_by(step).find(|port| !taken(*port)).unwrap_or(FIRST_PORT)
    }
}

fn dropped(counters: &mut Counters, why: Id) -> Handled {
    counters.inc(why);
    Handled::Dropped
}

fn to_peer(
    allocation: AllocationHandle,
    peer: SocketAddr,
    payload: Range<usize>,
    counters: &mut Counters,
) -> Handled {
    counters.inc(Id::RelayPacketsIn);
    counters.add(Id::RelayBytesIn, payload.len() as u64);
    Handled::ToPeer(ToPeer { allocation, peer, payload })
}
