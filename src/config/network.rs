//! How clients reach the gateway, and what it binds for that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::check::{Checker, over, parsed, text, whole};
use super::section::{At, Found};
use super::tree::Value;
use super::{
    DEFAULT_CONNECTIONS, DEFAULT_HTTPS_PORT, DEFAULT_MEDIA_PORT, DEFAULT_METRICS, DEFAULT_UDP_PORT,
    DUMMY_IP, Listen, MAX_LISTENERS, Media, Public,
};
use crate::net::{Net, NetError};

const A_SOCKET: &str = "an address and a port, like 0.0.0.0:3478";

impl Checker<'_> {
    pub(super) fn public(&self) -> Option<Public> {
        let section = self.root.section("public");
        let written = section.get("host", text);
        let sound = written.is_some() || !section.has("host");
        let host = over(self.overrides.public_host.clone(), "--public-host", written);
        let nameless = host.is_none();
        let host = match host {
            Some(found) => self.sound(found, "public.host", |host| host_name(host)).map(Some),
            None => Some(None),
        };
        if nameless && sound {
            self.warnings.add(
                At::File(section.here),
                "public.host",
                "no host name: URLs carry the bare address, browsers will not accept a public \
                 certificate for it, and Firefox fails silently on turns:<IP>",
            );
        }
        let written = section.get("ip6", parsed::<Ipv6Addr>("an IPv6 address, like 2001:db8::7"));
        let unsound = written.is_none() && section.has("ip6");
        let ip6 = over(self.overrides.public_ip6, "--public-ip6", written);
        let has_ip6 = ip6.is_some() || unsound;
        let ip6 = match ip6 {
            Some(found) => self
                .sound(found, "public.ip6", |ip| {
                    if ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() {
                        Err(format!("{ip} is not an address others can reach"))
                    } else if ip.to_ipv4_mapped().is_some() {
                        Err(format!("{ip} is an IPv4 address: that goes to public.ip"))
                    } else {
                        Ok(*ip)
                    }
                })
                .map(Some),
            None => (!unsound).then_some(None),
        };
        let written = section.get("ip", parsed::<Ipv4Addr>("an IPv4 address, like 203.0.113.7"));
        let unsound = written.is_none() && section.has("ip");
        let ip = match over(self.overrides.public_ip, "--public-ip", written) {
            Some(ip) => self.sound(ip, "public.ip", |ip| {
                if ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() {
                    Err(format!("{ip} is not the address of a machine"))
                } else {
                    Ok(*ip)
                }
            }),
            None if has_ip6 && !unsound => Some(DUMMY_IP),
            None => {
                section.missing(
                    "ip",
                    "missing: the IPv4 address under which clients reach this gateway (or \
                     public.ip6 alone)",
                );
                None
            }
        };
        Some(Public { host: host?, ip: ip?, ip6: ip6? })
    }

    /// Addresses to bind: those of the flag, else those of the file, else the default.
    fn addresses(
        &self,
        key: &str,
        flag: &'static str,
        given: &[SocketAddr],
        default: Vec<SocketAddr>,
    ) -> Option<Vec<Found<SocketAddr>>> {
        let section = self.root.section_quietly("listen");
        let written = section.one_or_more(key, parsed::<SocketAddr>(A_SOCKET));
        let here = At::File(section.here);
        let at = |values: &[SocketAddr], at| {
            values.iter().map(|value| Found { value: *value, at }).collect::<Vec<_>>()
        };
        let found = match written {
            _ if !given.is_empty() => at(given, At::Flag(flag)),
            Some(found) => found,
            None if section.has(key) => return None,
            None => at(&default, here),
        };
        let path = section.path(key);
        let place = found.first().map_or(here, |found| found.at);
        if found.is_empty() || found.len() > MAX_LISTENERS {
            let message = format!("lists 1 to {MAX_LISTENERS} addresses");
            self.notes.add(place, &path, message);
            return None;
        }
        let mut sound = true;
        for (index, Found { value, at }) in found.iter().enumerate() {
            if value.port() == 0 {
                self.notes.add(*at, &path, "port 0 cannot be handed out: choose one");
                sound = false;
            }
            let earlier = found.iter().take(index).map(|earlier| earlier.value);
            for other in earlier.filter(|other| collide(*other, *value)) {
                self.notes.add(*at, &path, format!("{value} collides with {other}"));
                sound = false;
            }
        }
        sound.then_some(found)
    }

    pub(super) fn listen(&self, public: Option<&Public>) -> Option<Listen> {
        // Once with its faults noted, then quietly.
        let section = self.root.section("listen");
        let v4 = public.is_none_or(|public| public.has_ip4());
        let ip6 = public.and_then(|public| public.ip6);
        let any = |port: u16| {
            let v4 = v4.then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
            v4.into_iter().collect::<Vec<_>>()
        };
        // An IPv6 machine has several addresses, and UDP answers would leave from any of them.
        let mut udp = any(DEFAULT_UDP_PORT);
        udp.extend(ip6.map(|ip| SocketAddr::from((ip, DEFAULT_UDP_PORT))));
        let mut https = any(DEFAULT_HTTPS_PORT);
        https.extend(ip6.map(|_| SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_HTTPS_PORT))));
        let udp = self.addresses("udp", "--udp", &self.overrides.udp, udp);
        let https = self.addresses("https", "--https", &self.overrides.https, https);

        let there = section.has("metrics");
        let written = section.get("metrics", parsed::<SocketAddr>(A_SOCKET));
        let metrics = if written.is_none() && there && self.overrides.metrics.is_none() {
            None
        } else {
            let metrics = over(self.overrides.metrics, "--metrics", written);
            Some(metrics.unwrap_or(Found { value: DEFAULT_METRICS, at: At::File(section.here) }))
        };
        let metrics = metrics.and_then(|metrics| {
            self.sound(metrics, "listen.metrics", |metrics| {
                if metrics.port() == 0 {
                    Err("port 0 cannot be handed out: choose one")
                } else if !metrics.ip().is_loopback() {
                    Err("must be a loopback address: it is plain HTTP without login")
                } else if https.iter().flatten().any(|https| collide(https.value, *metrics)) {
                    Err("is the address of listen.https")
                } else {
                    Ok(*metrics)
                }
                .map_err(str::to_owned)
            })
        });
        let proxies = if section.has("proxy_from") {
            let found = section.one_or_more("proxy_from", network);
            found.map(|found| found.into_iter().map(|found| found.value).collect())
        } else {
            Some(Vec::new())
        };
        let most = match section.get("connections_per_source", whole(1, 1_000_000)) {
            Some(found) => u32::try_from(found.value).ok(),
            None => (!section.has("connections_per_source")).then_some(DEFAULT_CONNECTIONS),
        };
        let values = |found: Vec<Found<SocketAddr>>| found.into_iter().map(|f| f.value).collect();
        Some(Listen {
            udp: values(udp?),
            https: values(https?),
            metrics: metrics?,
            proxy_from: proxies?,
            connections_per_source: most?,
        })
    }

    pub(super) fn media(&self, listen: Option<&Listen>) -> Option<Media> {
        let section = self.root.section("media");
        let there = section.has("port");
        let written = section.get("port", whole(1024, 65_535));
        if written.is_none() && there {
            return None;
        }
        let at = written.as_ref().map_or(At::File(section.here), |found| found.at);
        let port = match written {
            Some(found) => u16::try_from(found.value).ok()?,
            None => DEFAULT_MEDIA_PORT,
        };
        if listen.is_some_and(|listen| listen.udp.iter().any(|udp| udp.port() == port)) {
            self.notes.add(at, "media.port", "is the port of listen.udp: it must be a free one");
            return None;
        }
        if (32_768..=60_999).contains(&port) {
            self.warnings.add(
                at,
                "media.port",
                "lies in the range the kernel draws ports from (32768 to 60999)",
            );
        }
        Some(Media { port })
    }
}

/// Whether both cannot be bound. Our IPv6 sockets take no IPv4.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let any = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && (any || a.ip() == b.ip())
}

fn network(value: &Value) -> Result<Net, String> {
    let range: Net = text(value)?.parse().map_err(|error: NetError| error.to_string())?;
    if range.is_everybody() {
        return Err(format!("{range} trusts everybody to say who a client is"));
    }
    Ok(range)
}

/// A host name of RFC 1123: not an address, no port, no scheme.
fn host_name(host: &str) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.parse::<IpAddr>().is_ok() {
        return Err(format!("{host} is an address: leave host out, or give a name"));
    }
    if host.len() > 253 || !host.split('.').all(label) {
        return Err(format!("\"{host}\" is not a host name, like turn.example.org"));
    }
    Ok(host.to_ascii_lowercase())
}

/// A URL of RFC 7065.
pub(super) fn turn_url(value: &Value) -> Result<String, String> {
    let url = text(value)?;
    let wrong = || format!("\"{url}\" is not like turn:turn.example.org:3478?transport=udp");
    let (scheme, rest) = url.split_once(':').ok_or_else(wrong)?;
    match scheme {
        "turn" | "turns" => {}
        "stun" | "stuns" => {
            return Err(
                "a stun: URL would show clients' addresses: only turn: and turns:".to_owned()
            );
        }
        _ => return Err(wrong()),
    }
    let (place, query) = rest.split_once('?').map_or((rest, None), |(a, b)| (a, Some(b)));
    if !matches!(query, None | Some("transport=udp" | "transport=tcp")) {
        return Err(wrong());
    }
    let port = |port: &str| port.parse::<std::num::NonZeroU16>().map_err(|_| wrong());
    if let Some(rest) = place.strip_prefix('[') {
        let (ip, after) = rest.split_once(']').ok_or_else(wrong)?;
        ip.parse::<Ipv6Addr>().map_err(|_| wrong())?;
        if !after.is_empty() {
            port(after.strip_prefix(':').ok_or_else(wrong)?)?;
        }
        return Ok(url);
    }
    let host = match place.rsplit_once(':') {
        Some((host, number)) => {
            port(number)?;
            host
        }
        None => place,
    };
    if host.parse::<Ipv4Addr>().is_err() {
        host_name(host).map_err(|_| wrong())?;
    }
    Ok(url)
}
