//! Which peers a client may reach: one function, default deny.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::auth::turn::{Class, echo_address};

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

/// A peer that may be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Admitted {
    /// Index of the peer; with [`Scope::Address`] of the first with that IP.
    pub(super) media: usize,
    /// Index of the first peer with the same IP: where its permission is kept.
    pub(super) permission: usize,
}

/// The allow-list: media addresses, in canonical form, then the echoes beside them, of which there
/// are as many as the places of [`MAX_MEDIA`] left over.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    peers: Vec<SocketAddr>,
    /// How many of `peers` are media addresses.
    media: usize,
}

impl Policy {
    /// Of the media addresses, at most [`MAX_MEDIA`].
    pub(super) fn new(media: &[SocketAddr]) -> Self {
        let media: Vec<SocketAddr> = media
            .iter()
            .take(MAX_MEDIA)
            .map(|media| SocketAddr::new(canonical(media.ip()), media.port()))
            .collect();
        let is_media = |echo: &SocketAddr| media.contains(echo);
        let echoes = media.iter().filter_map(|media| echo_address(*media));
        let echoes = echoes.filter(|echo| !is_media(echo));
        let peers = media.iter().copied().chain(echoes).take(MAX_MEDIA).collect();
        Self { media: media.len(), peers }
    }

    /// The peer of an index: a media address or an echo.
    pub(super) fn media(&self, index: usize) -> Option<SocketAddr> {
        self.peers.get(index).copied()
    }

    /// All peers of any class: their ports belong to nobody else.
    pub(super) fn peers(&self) -> &[SocketAddr] {
        &self.peers
    }

    /// Whether a credential of `class` may reach `peer`: the only place where that is decided.
    pub(super) fn admit(&self, class: Class, peer: SocketAddr, scope: Scope) -> Option<Admitted> {
        let peers = match class {
            Class::Forwarder => self.peers.get(..self.media)?,
            Class::Probe => &self.peers,
        };
        let ip = canonical(peer.ip());
        let permission = peers.iter().position(|own| own.ip() == ip)?;
        let media = match scope {
            Scope::Address => permission,
            Scope::Transport => {
                peers.iter().position(|own| own.ip() == ip && own.port() == peer.port())?
            }
        };
        Some(Admitted { media, permission })
    }
}

/// The IPv4 address inside any IPv6 form that can lead to it, else the address itself: v4-mapped,
/// v4-compatible, IPv4-translated, NAT64 with both well-known prefixes, 6to4, Teredo, ISATAP.
pub(super) fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    embedded_v4(v6).map_or(ip, IpAddr::V4)
}

fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match [a, b, c, d, e, f] {
        // v4-compatible; ::0 and ::1 are addresses of their own.
        [0, 0, 0, 0, 0, 0] if g != 0 || h > 1 => Some(v4(g, h)),
        // v4-mapped; IPv4-translated (RFC 2765); NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => {
            Some(v4(g, h))
        }
        // NAT64 for local use (RFC 8215), taken with the /96 layout.
        [0x64, 0xff9b, 1, ..] => Some(v4(g, h)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some(v4(high, low)),
        // Teredo (RFC 4380): the client, inverted in the last 32 bits, is what is reached.
        [0x2001, 0, ..] => Some(v4(!g, !h)),
        // ISATAP (RFC 5214), under any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe] => Some(v4(g, h)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_disguise_of_an_ipv4_address_is_seen_through() {
        for text in [
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::127.0.0.1",
            "64:ff9b:1:2:3:4:127.0.0.1",
            "2002:7f00:1::1",
            "2001:0:1:2:3:4:80ff:fffe",
            "fe80::5efe:127.0.0.1",
            "2001:db8::200:5efe:127.0.0.1",
            "127.0.0.1",
        ] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(canonical(ip), IpAddr::V4(Ipv4Addr::LOCALHOST), "{text}");
        }
        for text in
            ["::", "::1", "fe80::1", "2001:db8::1", "fd00:ec2::254", "64:ff9a::1", "ff02::1"]
        {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(canonical(ip), ip, "{text}");
        }
    }

    #[test]
    fn only_the_media_address_is_admitted() {
        let media = "192.0.2.10:20000".parse().unwrap();
        let policy = Policy::new(&[media]);
        let ask = |peer: &str, scope| {
            policy.admit(Class::Forwarder, peer.parse().unwrap(), scope).is_some()
        };
        assert!(ask("192.0.2.10:20000", Scope::Transport));
        assert!(!ask("192.0.2.10:20001", Scope::Transport));
        assert!(ask("192.0.2.10:9", Scope::Address));
        assert!(ask("[::ffff:192.0.2.10]:9", Scope::Address), "the family check refuses it later");
        assert!(!ask("192.0.2.11:20000", Scope::Address));
        assert!(!ask("[::1]:20000", Scope::Address));
    }

    #[test]
    fn only_a_probe_is_admitted_to_the_echo_and_to_nothing_else_more() {
        let policy = Policy::new(&["192.0.2.10:20000".parse().unwrap()]);
        let ask = |class, peer: &str| {
            policy.admit(class, peer.parse().unwrap(), Scope::Transport).map(|it| it.permission)
        };
        assert_eq!(ask(Class::Probe, "192.0.2.10:20001"), Some(0));
        assert_eq!(ask(Class::Probe, "192.0.2.10:20000"), Some(0));
        assert_eq!(ask(Class::Forwarder, "192.0.2.10:20001"), None);
        for peer in ["192.0.2.10:20002", "192.0.2.10:7", "192.0.2.11:20001", "127.0.0.1:20001"] {
            assert_eq!(ask(Class::Probe, peer), None, "{peer}");
        }
    }

    #[test]
    fn echoes_never_take_the_place_of_a_media_address() {
        let media = ["192.0.2.9:1", "192.0.2.9:2", "192.0.2.9:5", "192.0.2.9:7"];
        let media = media.map(|m| m.parse().unwrap());
        assert_eq!(Policy::new(&media).peers(), media);
        let policy = Policy::new(&media[..2]);
        assert_eq!(policy.peers()[2..], ["192.0.2.9:3".parse().unwrap()]);
        let forwarder = policy.admit(Class::Forwarder, policy.peers()[2], Scope::Transport);
        assert_eq!(forwarder, None);
    }

    #[test]
    fn media_addresses_of_one_ip_share_a_permission() {
        let media = ["192.0.2.9:1", "192.0.2.10:1", "192.0.2.10:2"].map(|m| m.parse().unwrap());
        let policy = Policy::new(&media);
        let admitted = policy.admit(Class::Forwarder, media[2], Scope::Transport);
        assert_eq!(admitted, Some(Admitted { media: 2, permission: 1 }));
    }
}
