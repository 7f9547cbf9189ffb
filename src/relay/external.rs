//! The `external` policy's own things: what is outside, the sockets that lead there (by name: this
//! room knows no sockets), and what an allocation of that class remembers of its peers.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::policy::Scope;
use super::ports::{IpFamily, Shared};
use crate::net::{Net, Purpose, canonical, purpose};
use crate::time::Mono;

/// Real relayed addresses for other applications, and whom they may reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct External {
    /// The IPv4 address that relayed sockets are bound to; clients are told
    /// [`super::Config::relayed_ip`], which leads here.
    pub bound_ip: IpAddr,
    /// The IPv6 address of relayed sockets, bound and told; none: 440.
    pub ip6: Option<Ipv6Addr>,
    /// Ports of relayed sockets.
    pub ports: RangeInclusive<u16>,
    /// Whom clients may reach, special purposes aside.
    pub allow: Vec<Net>,
    /// Hosts of special purposes (a LAN) that they may reach nevertheless.
    pub allow_private: Vec<IpAddr>,
    /// Addresses of this machine: nothing of it is ever reached but relayed sockets.
    pub own: Vec<IpAddr>,
}

/// A relayed socket of this machine, by its family and port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Outlet {
    /// IPv6, else IPv4.
    pub v6: bool,
    /// Its port.
    pub port: u16,
}

impl Outlet {
    pub(super) const fn new(family: IpFamily, port: u16) -> Self {
        Self { v6: matches!(family, IpFamily::V6), port }
    }

    pub(super) const fn family(self) -> IpFamily {
        if self.v6 { IpFamily::V6 } else { IpFamily::V4 }
    }
}

/// An ICMP error about what left by a relayed socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Icmp {
    /// Where it was sent to.
    pub to: SocketAddr,
    /// Type, of ICMP or ICMPv6 by the family of `to`.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The MTU, where the error is about that.
    pub mtu: u32,
}

impl Icmp {
    /// The value of the ICMP attribute; `None` where clients are not told (RFC 8656 section 11.5):
    /// only of destinations not reached, of packets too big and of time exceeded.
    pub(super) fn attribute(&self) -> Option<[u8; 8]> {
        let too_big = match (self.to.is_ipv4(), self.kind) {
            (true, 3) => self.code == 4,
            (false, 2) => true,
            (true, 11) | (false, 1 | 3) => false,
            _ => return None,
        };
        // Reserved, 7 bits of type, 9 of code, data.
        let [kind, code] = (u16::from(self.kind) << 9 | u16::from(self.code)).to_be_bytes();
        let [a, b, c, d] = if too_big { self.mtu } else { 0 }.to_be_bytes();
        Some([0, 0, kind, code, a, b, c, d])
    }
}

/// What came of asking for a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opened {
    /// It is there.
    Yes,
    /// Somebody else has the port.
    Taken,
    /// The system gives no more sockets.
    Exhausted,
}

/// Opens and closes relayed sockets.
pub trait Opener: Send {
    /// Opens one for this shard.
    fn open(&mut self, outlet: Outlet) -> Opened;
    /// Closes one of this shard.
    fn close(&mut self, outlet: Outlet);
    /// Opens one and holds it for whichever shard takes it by `token`.
    fn reserve(&mut self, outlet: Outlet, token: u64) -> Opened;
    /// Takes one that is held, for this shard. False: it is not there.
    fn take(&mut self, outlet: Outlet, token: u64) -> bool;
    /// Closes one that is still held. False: it was taken.
    fn forget(&mut self, outlet: Outlet, token: u64) -> bool;
}

/// What is outside, as the policy judges it.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    advertised: [Option<IpAddr>; 2],
    bound: [Option<IpAddr>; 2],
    allow: Vec<Net>,
    allow_private: Vec<IpAddr>,
    own: Arc<[IpAddr]>,
}

impl Reach {
    pub(super) fn new(relayed_ip: IpAddr, external: &External) -> Self {
        let v6 = external.ip6.map(IpAddr::V6);
        let advertised = [Some(relayed_ip), v6];
        let bound = [Some(external.bound_ip), v6];
        Self {
            advertised,
            bound,
            allow: external.allow.clone(),
            allow_private: external.allow_private.clone(),
            own: external.own.clone().into(),
        }
    }

    /// Other addresses of this machine than those told before.
    pub(super) fn set_own(&mut self, own: Arc<[IpAddr]>) {
        self.own = own;
    }

    fn is_this_machine(&self, ip: IpAddr) -> bool {
        let told = self.advertised.iter().chain(&self.bound).flatten().any(|own| *own == ip);
        told || self.own.contains(&ip)
    }

    /// The IP of relayed addresses of a family.
    pub(super) fn advertised(&self, family: IpFamily) -> Option<IpAddr> {
        self.advertised.get(family.index()).copied().flatten()
    }

    /// The policy: see [`super::policy::Policy::admit`], the only one to ask.
    pub(super) fn admits(&self, peer: SocketAddr, scope: Scope, shared: &Shared) -> bool {
        let (ip, port) = (peer.ip(), peer.port());
        if scope == Scope::Transport && port == 0 {
            return false;
        }
        // What it leads to must be listed, and so must the network that it is sent to.
        let forms = [ip, canonical(ip)];
        let listed = match purpose(ip) {
            Purpose::Global => forms.iter().all(|ip| {
                self.allow.iter().any(|net| net.contains(*ip)) || self.allow_private.contains(ip)
            }),
            Purpose::Special => self.allow_private.contains(&ip),
            Purpose::Never => false,
        };
        if !forms.iter().any(|ip| self.is_this_machine(*ip)) {
            return listed;
        }
        // Of this machine only the relayed sockets, under the address that clients are told.
        let family = IpFamily::of(&peer);
        listed
            && self.advertised(family) == Some(ip)
            && match scope {
                Scope::Address => true,
                Scope::Transport => shared.is_open(family, port),
            }
    }

    /// Whether an address is of this machine.
    pub(super) fn is_own(&self, peer: &SocketAddr) -> bool {
        self.is_this_machine(peer.ip())
    }

    /// Whether an admitted peer is one of our own relayed sockets.
    pub(super) fn is_ours(&self, peer: &SocketAddr) -> bool {
        self.advertised(IpFamily::of(peer)) == Some(peer.ip())
    }

    /// Where to send to for an admitted peer: behind a NAT our own relayed sockets are at the
    /// address they are bound to.
    pub(super) fn outward(&self, peer: SocketAddr) -> SocketAddr {
        let bound = self.bound.get(IpFamily::of(&peer).index()).copied().flatten();
        match bound {
            Some(bound) if self.is_ours(&peer) => SocketAddr::new(bound, peer.port()),
            _ => peer,
        }
    }

    /// What a sender is called.
    pub(super) fn inward(&self, from: SocketAddr) -> SocketAddr {
        let family = IpFamily::of(&from);
        let bound = self.bound.get(family.index()).copied().flatten();
        match self.advertised(family) {
            Some(advertised) if bound == Some(from.ip()) => {
                SocketAddr::new(advertised, from.port())
            }
            _ => from,
        }
    }
}

/// A channel to a peer outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bound {
    pub(super) number: u16,
    pub(super) peer: SocketAddr,
    pub(super) until: Mono,
}

/// What an allocation of the class remembers of its peers: a few dozen at most, so that looking
/// through all of them is quick.
#[derive(Default, Debug)]
pub(super) struct Outside {
    permissions: Vec<(IpAddr, Mono)>,
    channels: Vec<Bound>,
}

impl Outside {
    pub(super) fn permissions(&self) -> usize {
        self.permissions.len()
    }

    pub(super) fn channels(&self) -> usize {
        self.channels.len()
    }

    pub(super) fn may(&self, ip: IpAddr, now: Mono) -> bool {
        self.permissions.iter().any(|(own, until)| *own == ip && *until > now)
    }

    pub(super) fn by_number(&self, number: u16, now: Mono) -> Option<SocketAddr> {
        let mut channels = self.channels.iter();
        channels.find(|bound| bound.number == number && bound.until > now).map(|bound| bound.peer)
    }

    pub(super) fn by_peer(&self, peer: SocketAddr, now: Mono) -> Option<u16> {
        let mut channels = self.channels.iter();
        channels.find(|bound| bound.peer == peer && bound.until > now).map(|bound| bound.number)
    }

    /// How many of `ips`, none of them twice, have no permission yet.
    pub(super) fn without(&self, ips: &[IpAddr]) -> usize {
        ips.iter().filter(|ip| self.permissions.iter().all(|(own, _)| own != *ip)).count()
    }

    pub(super) fn permit(&mut self, ip: IpAddr, until: Mono) {
        match self.permissions.iter_mut().find(|(own, _)| *own == ip) {
            Some((_, old)) => *old = until,
            None => self.permissions.push((ip, until)),
        }
    }

    /// Whether a binding would contradict another.
    pub(super) fn contradicts(&self, number: u16, peer: SocketAddr) -> bool {
        self.channels.iter().any(|bound| (bound.number == number) != (bound.peer == peer))
    }

    pub(super) fn bind(&mut self, new: Bound) {
        match self.channels.iter_mut().find(|bound| bound.number == new.number) {
            Some(bound) => *bound = new,
            None => self.channels.push(new),
        }
    }

    /// Forgets what has expired.
    pub(super) fn expire(&mut self, now: Mono) {
        self.permissions.retain(|(_, until)| *until > now);
        self.channels.retain(|bound| bound.until > now);
    }

    /// Forgets the peers of a family.
    pub(super) fn drop_family(&mut self, family: IpFamily) {
        self.permissions.retain(|(ip, _)| ip.is_ipv4() != (family == IpFamily::V4));
        self.channels.retain(|bound| IpFamily::of(&bound.peer) != family);
    }

    /// When something of it ends next.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Mono> {
        let permissions = self.permissions.iter().map(|(_, until)| *until);
        permissions.chain(self.channels.iter().map(|bound| bound.until))
    }
}
