//! Which peers a client may reach: one function, default deny.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::external::Reach;
use super::ports::{IpFamily, Shared};
use super::table::Owner;
use crate::auth::turn::{Class, echo_address};
use crate::net::canonical;

/// Most media addresses a relay serves.
pub const MAX_MEDIA: usize = 4;

/// How much of a peer's address a request is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// The IP alone: CreatePermission (RFC 8656 section 10.2 ignores the port).
    Address,
    /// The exact ip:port: ChannelBind, Send and what comes back from a peer.
    Transport,
}

/// A peer, as an allocation remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Peer {
    /// The media address of this index.
    Media(u8),
    /// A relayed address of ours, by its port.
    Room(IpFamily, u16),
    /// A machine outside, under the address that was asked for.
    Outside,
}

impl Default for Peer {
    fn default() -> Self {
        Self::Media(0)
    }
}

/// A peer that may be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Admitted {
    /// Which; with [`Scope::Address`] one with that IP.
    pub(super) peer: Peer,
    /// Where the permission for its IP is kept: for a media address the index of the first with
    /// the same IP, in a room the index of the family.
    pub(super) permission: usize,
}

/// The allow-list, in canonical form: media addresses, then the echoes beside them (as many as the
/// places of [`MAX_MEDIA`] left over), and our relayed addresses for rooms.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    peers: Vec<SocketAddr>,
    /// How many of `peers` are media addresses.
    media: usize,
    relayed: [Option<IpAddr>; 2],
    shared: Shared,
    /// What is outside; none: nothing.
    reach: Option<Reach>,
}

impl Policy {
    /// Of the media addresses, at most [`MAX_MEDIA`], and the IPs of relayed addresses.
    pub(super) fn new(media: &[SocketAddr], relayed: [Option<IpAddr>; 2], shared: Shared) -> Self {
        let media: Vec<SocketAddr> = media
            .iter()
            .take(MAX_MEDIA)
            .map(|media| SocketAddr::new(canonical(media.ip()), media.port()))
            .collect();
        let is_media = |echo: &SocketAddr| media.contains(echo);
        let echoes = media.iter().filter_map(|media| echo_address(*media));
        let echoes = echoes.filter(|echo| !is_media(echo));
        let peers = media.iter().copied().chain(echoes).take(MAX_MEDIA).collect();
        Self { media: media.len(), peers, relayed, shared, reach: None }
    }

    /// With peers outside, for clients of that class.
    pub(super) fn reaching(self, reach: Option<Reach>) -> Self {
        Self { reach, ..self }
    }

    /// Other addresses of this machine than those told before.
    pub(super) fn set_own(&mut self, own: Arc<[IpAddr]>) {
        if let Some(reach) = &mut self.reach {
            reach.set_own(own);
        }
    }

    /// What is outside.
    pub(super) const fn reach(&self) -> Option<&Reach> {
        self.reach.as_ref()
    }

    /// All peers but those of rooms: their ports belong to nobody else.
    pub(super) fn peers(&self) -> &[SocketAddr] {
        &self.peers
    }

    /// The IP of virtual relayed addresses of a family.
    pub(super) fn relayed(&self, family: IpFamily) -> Option<IpAddr> {
        self.relayed.get(family.index()).copied().flatten()
    }

    /// The IP of relayed addresses of a class and family.
    pub(super) fn relayed_of(&self, class: Class, family: IpFamily) -> Option<IpAddr> {
        match class {
            Class::External => self.reach.as_ref()?.advertised(family),
            Class::Forwarder | Class::Probe | Class::Room => self.relayed(family),
        }
    }

    /// A peer's address.
    pub(super) fn address(&self, peer: Peer) -> Option<SocketAddr> {
        match peer {
            Peer::Media(index) => self.peers.get(usize::from(index)).copied(),
            Peer::Room(family, port) => Some(SocketAddr::new(self.relayed(family)?, port)),
            Peer::Outside => None,
        }
    }

    /// The family of the peers whose permission has this place.
    pub(super) fn permission_family(&self, class: Class, place: usize) -> Option<IpFamily> {
        match class {
            Class::Forwarder | Class::Probe => self.peers.get(place).map(IpFamily::of),
            Class::Room => IpFamily::BOTH.get(place).copied(),
            // Theirs have no fixed places.
            Class::External => None,
        }
    }

    /// Whether a credential may reach `peer`: the only place where that is decided.
    pub(super) fn admit(&self, owner: &Owner, peer: SocketAddr, scope: Scope) -> Option<Admitted> {
        let ip = canonical(peer.ip());
        let peers = match owner.class {
            Class::Forwarder => self.peers.get(..self.media)?,
            Class::Probe => &self.peers,
            Class::External => {
                let admitted = self.reach.as_ref()?.admits(peer, scope, &self.shared);
                return admitted.then_some(Admitted { peer: Peer::Outside, permission: 0 });
            }
            Class::Room => {
                let room = owner.room?;
                let family = IpFamily::BOTH.into_iter().find(|f| self.relayed(*f) == Some(ip))?;
                return match (self.shared.is_of(family, peer.port(), room), scope) {
                    // A permission is for the IP, and the port may be any; but to name another
                    // room's address is to ask for another room.
                    (Some(true), _) | (None, Scope::Address) => Some(Admitted {
                        peer: Peer::Room(family, peer.port()),
                        permission: family.index(),
                    }),
                    (Some(false), _) | (None, Scope::Transport) => None,
                };
            }
        };
        let permission = peers.iter().position(|own| own.ip() == ip)?;
        let index = match scope {
            Scope::Address => permission,
            Scope::Transport => {
                peers.iter().position(|own| own.ip() == ip && own.port() == peer.port())?
            }
        };
        Some(Admitted { peer: Peer::Media(u8::try_from(index).ok()?), permission })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{RoomHash, SubjectHash};

    fn owner(class: Class, room: Option<&str>) -> Owner {
        Owner { subject: SubjectHash::of("someone"), room: room.map(RoomHash::of), class }
    }

    #[test]
    fn room_reaches_live_addresses_of_its_own_and_nothing_else() {
        let media: SocketAddr = "192.0.2.10:20000".parse().unwrap();
        let shared = Shared::default();
        assert!(shared.claim(IpFamily::V4, 5000, RoomHash::of("a")));
        assert!(shared.claim(IpFamily::V4, 5001, RoomHash::of("b")));
        let policy = Policy::new(&[media], [Some(media.ip()), None], shared);
        let ask = |room, peer: &str, scope| {
            let owner = owner(Class::Room, room);
            policy.admit(&owner, peer.parse().unwrap(), scope).is_some()
        };
        assert!(ask(Some("a"), "192.0.2.10:5000", Scope::Transport));
        assert!(ask(Some("a"), "192.0.2.10:5000", Scope::Address));
        assert!(ask(Some("a"), "192.0.2.10:1", Scope::Address), "nobody's port: the IP alone");
        for scope in [Scope::Address, Scope::Transport] {
            assert!(!ask(Some("a"), "192.0.2.10:5001", scope), "another room's");
            assert!(!ask(None, "192.0.2.10:5000", scope), "no room, no peers");
            assert!(!ask(Some("a"), "192.0.2.11:5000", scope));
            assert!(!ask(Some("a"), "[::1]:5000", scope));
        }
        assert!(!ask(Some("a"), "192.0.2.10:20000", Scope::Transport), "not the forwarder");
        assert!(!ask(Some("a"), "192.0.2.10:1", Scope::Transport));
    }

    #[test]
    fn only_the_media_address_is_admitted() {
        let media = "192.0.2.10:20000".parse().unwrap();
        let policy = Policy::new(&[media], [Some(media.ip()), None], Shared::default());
        let ask = |peer: &str, scope| {
            policy.admit(&owner(Class::Forwarder, None), peer.parse().unwrap(), scope).is_some()
        };
        assert!(ask("192.0.2.10:20000", Scope::Transport));
        assert!(!ask("192.0.2.10:20001", Scope::Transport));
        assert!(ask("192.0.2.10:9", Scope::Address));
        assert!(ask("[::ffff:192.0.2.10]:9", Scope::Address), "the family check refuses it later");
        assert!(!ask("192.0.2.11:20000", Scope::Address));
        assert!(!ask("[::1]:20000", Scope::Address));
    }

    #[test]
    fn media_addresses_of_one_ip_share_a_permission() {
        let media = ["192.0.2.9:1", "192.0.2.10:1", "192.0.2.10:2"].map(|m| m.parse().unwrap());
        let policy = Policy::new(&media, [None, None], Shared::default());
        let forwarder = owner(Class::Forwarder, None);
        let admitted = policy.admit(&forwarder, media[2], Scope::Transport);
        assert_eq!(admitted, Some(Admitted { peer: Peer::Media(2), permission: 1 }));
    }

    #[test]
    fn only_a_probe_is_admitted_to_the_echo_and_to_nothing_else_more() {
        let media = ["192.0.2.10:20000".parse().unwrap()];
        let policy = Policy::new(&media, [None, None], Shared::default());
        let ask = |class, peer: &str| {
            let owner = owner(class, Some("lobby"));
            policy.admit(&owner, peer.parse().unwrap(), Scope::Transport).map(|it| it.permission)
        };
        assert_eq!(ask(Class::Probe, "192.0.2.10:20001"), Some(0));
        assert_eq!(ask(Class::Probe, "192.0.2.10:20000"), Some(0));
        assert_eq!(ask(Class::Forwarder, "192.0.2.10:20001"), None);
        assert_eq!(ask(Class::Room, "192.0.2.10:20001"), None);
        for peer in ["192.0.2.10:20002", "192.0.2.10:7", "192.0.2.11:20001", "127.0.0.1:20001"] {
            assert_eq!(ask(Class::Probe, peer), None, "{peer}");
        }
    }

    #[test]
    fn echoes_never_take_the_place_of_a_media_address() {
        let media = ["192.0.2.9:1", "192.0.2.9:2", "192.0.2.9:5", "192.0.2.9:7"];
        let media = media.map(|m| m.parse().unwrap());
        let new = |media: &[SocketAddr]| Policy::new(media, [None, None], Shared::default());
        assert_eq!(new(&media).peers(), media);
        let policy = new(&media[..2]);
        assert_eq!(policy.peers()[2..], ["192.0.2.9:3".parse().unwrap()]);
        let forwarder = owner(Class::Forwarder, None);
        assert_eq!(policy.admit(&forwarder, policy.peers()[2], Scope::Transport), None);
    }
}
