//! Networks: blocks of addresses, and what an address is for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A block of addresses, as in `192.0.2.0/24` or `2001:db8::/32`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Net {
    ip: IpAddr,
    prefix: u8,
}

/// Why a text is not a block of addresses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NetError {
    /// Neither an address nor one with a prefix length.
    #[error("\"{0}\" is not a block of addresses, like 198.51.100.0/24 or 2001:db8::/32")]
    Shape(String),
    /// Bits beyond the prefix are set: one of the two is wrong.
    #[error("{0} has bits beyond its prefix: write {1}, or the prefix that is meant")]
    HostBits(String, Net),
}

const fn bits(ip: IpAddr) -> (u128, u8) {
    match ip {
        // At the top, so that prefixes of both families are masked alike.
        IpAddr::V4(ip) => ((ip.to_bits() as u128) << 96, 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    }
}

const fn mask(prefix: u8) -> u128 {
    if prefix == 0 { 0 } else { u128::MAX << (128 - prefix as u32) }
}

impl Net {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self { ip: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    const fn v6(segments: [u16; 8], prefix: u8) -> Self {
        let [a, b, c, d, e, f, g, h] = segments;
        Self { ip: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), prefix }
    }

    /// The block of one address.
    #[must_use]
    pub const fn host(ip: IpAddr) -> Self {
        Self { prefix: bits(ip).1, ip }
    }

    /// The one address, where it is a block of one.
    #[must_use]
    pub fn as_host(&self) -> Option<IpAddr> {
        (self.prefix == bits(self.ip).1).then_some(self.ip)
    }

    /// Whether an address, as it is written, lies in it.
    #[must_use]
    pub const fn contains(&self, ip: IpAddr) -> bool {
        let (own, width) = bits(self.ip);
        let (other, other_width) = bits(ip);
        width == other_width && (own ^ other) & mask(self.prefix) == 0
    }

    /// Whether all of it is of a special purpose, or none of it of the Internet.
    #[must_use]
    pub fn is_special(&self) -> bool {
        let within = |other: &Self| self.prefix >= other.prefix && other.contains(self.ip);
        let v6 = self.ip.is_ipv6() && self.prefix >= GLOBAL_V6.prefix;
        NEVER.iter().chain(&SPECIAL).any(within) || v6 && !GLOBAL_V6.contains(self.ip)
    }

    /// Whether it holds all addresses of its family.
    #[must_use]
    pub const fn is_everybody(&self) -> bool {
        self.prefix == 0
    }

    /// The first address.
    #[must_use]
    pub const fn first(&self) -> IpAddr {
        self.ip
    }
}

impl FromStr for Net {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let wrong = || NetError::Shape(text.to_owned());
        let (ip, prefix) = match text.split_once('/') {
            Some((ip, prefix)) => (ip, Some(prefix)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let (value, width) = bits(ip);
        let prefix = match prefix {
            None => width,
            // `parse` would take a sign.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= width).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        let kept = value & mask(prefix);
        let first = match ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits((kept >> 96) as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(kept)),
        };
        let net = Self { ip: first, prefix };
        if kept == value { Ok(net) } else { Err(NetError::HostBits(text.to_owned(), net)) }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// What an address is for, the harmless first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Purpose {
    /// A machine of the Internet.
    Global,
    /// A special purpose: private networks, documentation, translation, …
    Special,
    /// Nobody a relay may ever reach: this machine, its link, the services of its cloud, groups.
    Never,
}

/// Loopback, link-local, groups, and where clouds keep the secrets of their machines.
const NEVER: [Net; 19] = [
    Net::v4(0, 0, 0, 0, 8),
    Net::v4(127, 0, 0, 0, 8),
    Net::v4(169, 254, 0, 0, 16),
    Net::v4(224, 0, 0, 0, 4),
    Net::v4(240, 0, 0, 0, 4),
    // Azure, within the public space.
    Net::v4(168, 63, 129, 16, 32),
    // Alibaba, Oracle.
    Net::v4(100, 100, 100, 200, 32),
    Net::v4(192, 0, 0, 192, 32),
    Net::v6([0, 0, 0, 0, 0, 0, 0, 0], 128),
    Net::v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
    Net::v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    Net::v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    // Discard-only.
    Net::v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64),
    Net::v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64),
    // Amazon, Google, Oracle, Scaleway.
    Net::v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32),
    Net::v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0], 32),
    Net::v6([0xfd00, 0xc1, 0, 0, 0, 0, 0, 0], 32),
    Net::v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0], 32),
    // Site-local, deprecated.
    Net::v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
];

/// The rest of IANA's special-purpose registries (RFC 6890 and its successors), those included
/// that are reachable globally: no peer of a call lives there.
const SPECIAL: [Net; 18] = [
    Net::v4(10, 0, 0, 0, 8),
    Net::v4(100, 64, 0, 0, 10),
    Net::v4(172, 16, 0, 0, 12),
    Net::v4(192, 0, 0, 0, 24),
    Net::v4(192, 0, 2, 0, 24),
    Net::v4(192, 31, 196, 0, 24),
    Net::v4(192, 52, 193, 0, 24),
    Net::v4(192, 88, 99, 0, 24),
    Net::v4(192, 168, 0, 0, 16),
    Net::v4(192, 175, 48, 0, 24),
    Net::v4(198, 18, 0, 0, 15),
    Net::v4(198, 51, 100, 0, 24),
    Net::v4(203, 0, 113, 0, 24),
    Net::v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    Net::v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    Net::v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    Net::v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48),
    Net::v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

/// All unicast IPv6 of the Internet that IANA has ever given out.
const GLOBAL_V6: Net = Net::v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// What an address is for, and what it leads to ([`canonical`]): the worse of both.
#[must_use]
pub fn purpose(ip: IpAddr) -> Purpose {
    // An IPv4 address in an IPv6 dress is of a special purpose by the dress alone.
    purpose_of(canonical(ip)).max(purpose_of(ip))
}

fn purpose_of(ip: IpAddr) -> Purpose {
    if NEVER.iter().any(|net| net.contains(ip)) {
        Purpose::Never
    } else if SPECIAL.iter().any(|net| net.contains(ip)) || ip.is_ipv6() && !GLOBAL_V6.contains(ip)
    {
        Purpose::Special
    } else {
        Purpose::Global
    }
}

/// The IPv4 address inside any IPv6 form that can lead to it, else the address itself: v4-mapped,
/// v4-compatible, IPv4-translated, NAT64 with both well-known prefixes, 6to4, Teredo, ISATAP.
#[must_use]
pub fn canonical(ip: IpAddr) -> IpAddr {
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

    fn net(text: &str) -> Net {
        text.parse().unwrap()
    }

    #[test]
    fn block_holds_its_addresses_and_no_others() {
        assert!(net("198.51.100.0/24").contains("198.51.100.255".parse().unwrap()));
        assert!(!net("198.51.100.0/24").contains("198.51.101.0".parse().unwrap()));
        assert!(net("2001:db8::/33").contains("2001:db8:7fff::1".parse().unwrap()));
        assert!(!net("2001:db8::/33").contains("2001:db8:8000::1".parse().unwrap()));
        assert!(net("0.0.0.0/0").contains("8.8.8.8".parse().unwrap()));
        assert!(!net("0.0.0.0/0").contains("::".parse().unwrap()), "families are apart");
        assert!(!net("::/0").contains("0.0.0.0".parse().unwrap()));
        assert_eq!(net("192.0.2.7").as_host(), Some("192.0.2.7".parse().unwrap()));
        assert_eq!(net("192.0.2.0/31").as_host(), None);
        assert_eq!(net("2001:db8::/32").to_string(), "2001:db8::/32");
    }

    #[test]
    fn what_is_no_block_is_told() {
        for text in ["", "/", "192.0.2.0/", "192.0.2.0/33", "::/129", "192.0.2/24", "1.2.3.4/+8"] {
            assert!(matches!(text.parse::<Net>(), Err(NetError::Shape(_))), "{text}");
        }
        let error = "192.0.2.7/24".parse::<Net>().unwrap_err().to_string();
        assert!(error.contains("write 192.0.2.0/24"), "{error}");
    }

    #[test]
    fn every_block_of_the_tables_is_written_without_host_bits() {
        for block in NEVER.iter().chain(&SPECIAL) {
            assert_eq!(net(&block.to_string()), *block);
        }
    }

    /// The registries of 2025-10, ends of each block, and the addresses of clouds.
    #[test]
    fn special_purposes_are_known() {
        for text in [
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "192.31.196.1",
            "192.52.193.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.175.48.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "2001:2::1",
            "2001:20::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2620:4f:8000::1",
            "3fff:fff::1",
            "5f00::1",
            "fc00::1",
            "fdff::1",
            "4000::1",
            "64:ff9b:2::1",
            "::ffff:10.0.0.1",
            "2002:a00:1::1",
            "2002:808:808::1",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
            "2001:0:1:2:3:4:f7f7:f7f7",
        ] {
            assert_eq!(purpose(text.parse().unwrap()), Purpose::Special, "{text}");
        }
        for text in [
            "0.0.0.0",
            "0.255.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "100::1",
            "::ffff:127.0.0.1",
            "64:ff9b::169.254.169.254",
            "2002:7f00:1::1",
            "fe80::5efe:10.0.0.1",
        ] {
            assert_eq!(purpose(text.parse().unwrap()), Purpose::Never, "{text}");
        }
        for text in [
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.0",
            "192.0.1.0",
            "198.17.0.1",
            "198.20.0.0",
            "223.255.255.255",
            "168.63.129.15",
            "2001:200::1",
            "2a01::1",
            "2606:4700::1111",
        ] {
            assert_eq!(purpose(text.parse().unwrap()), Purpose::Global, "{text}");
        }
    }

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
}
