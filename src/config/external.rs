//! `relay.external`: the classic TURN server for other applications.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::check::{Checker, parsed, text, yes_or_no};
use super::tree::Value;
use crate::net::{Net, Purpose, canonical, purpose};

/// Default of `relay.external.ports`: the dynamic ports, as RFC 8656 section 7.2 wants.
const DEFAULT_PORTS: RangeInclusive<u16> = 49_152..=65_535;
/// Entries of `allow` and of `allow_private`: looked through for packets, too.
const MAX_ENTRIES: usize = 256;

/// Real relayed addresses, and whom they may reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct External {
    /// Ports of relayed sockets.
    pub ports: RangeInclusive<u16>,
    /// Whom clients may reach, special purposes aside.
    pub allow: Vec<Net>,
    /// Hosts of the local network that they may reach nevertheless.
    pub allow_private: Vec<IpAddr>,
    /// Where relayed IPv4 sockets are bound; none: `public.ip`.
    pub ip: Option<Ipv4Addr>,
    /// Where relayed IPv6 sockets are bound, and what clients are told; none: there are none.
    pub ip6: Option<Ipv6Addr>,
    /// Plain names and static users are for this, not for the forwarder.
    pub names: bool,
}

impl Checker<'_> {
    /// The inner `None`: it is left out. The outer: a fault was noted.
    pub(super) fn external(&self) -> Option<Option<External>> {
        let relay = self.root.section_quietly("relay");
        if !relay.has("external") {
            return Some(None);
        }
        let section = relay.section("relay.external");
        let there = section.has("ports");
        let ports = match section.get("ports", ports) {
            Some(found) => Some(found.value),
            None => (!there).then_some(DEFAULT_PORTS),
        };
        section.missing(
            "allow",
            "missing: the peers that clients may reach, like 198.51.100.0/24. Without a list this \
             would be an open relay",
        );
        let few = |found: &super::section::Found<usize>, key: &str, least: usize| {
            let fits = (least..=MAX_ENTRIES).contains(&found.value);
            if !fits {
                let message = format!("lists {least} to {MAX_ENTRIES} entries");
                self.notes.add(found.at, &section.path(key), message);
            }
            fits
        };
        let allow_fits = section.length("allow").is_some_and(|found| few(&found, "allow", 1));
        let allow = if section.has("allow") { section.list("allow", allowed) } else { None };
        let private_fits =
            section.length("allow_private").is_none_or(|found| few(&found, "allow_private", 0));
        let allow_private = if section.has("allow_private") {
            section.list("allow_private", private).map(|found| found.value)
        } else {
            Some(Vec::new())
        };
        let there = section.has("ip");
        let ip = section.get("ip", |value| {
            let ip = parsed::<Ipv4Addr>("an IPv4 address of this machine, like 10.0.0.7")(value)?;
            machine(ip.into()).map(|()| ip)
        });
        let ip = if there && ip.is_none() { None } else { Some(ip.map(|found| found.value)) };
        let there = section.has("ip6");
        let ip6 = section.get("ip6", |value| {
            let ip =
                parsed::<Ipv6Addr>("an IPv6 address of this machine, like 2001:db8::7")(value)?;
            machine(ip.into()).map(|()| ip)
        });
        let ip6 = if there && ip6.is_none() { None } else { Some(ip6.map(|found| found.value)) };
        let there = section.has("names");
        let names = section.get("names", yes_or_no);
        if let Some(found) = &names
            && found.value
            && !self.has_other_names()
        {
            self.warnings.add(
                found.at,
                "relay.external.names",
                "there are no such names: auth.plain_rest and auth.static_users_file are off",
            );
        }
        if let (Some(list), Some(None)) = (&allow, ip6)
            && !list.value.is_empty()
            && list.value.iter().all(|net| net.first().is_ipv6())
        {
            self.warnings.add(
                list.at,
                "relay.external.allow",
                "IPv6 peers alone, and no relay.external.ip6: nobody can be reached",
            );
        }
        if !(allow_fits && private_fits) || (there && names.is_none()) {
            return None;
        }
        Some(Some(External {
            ports: ports?,
            allow: allow?.value,
            allow_private: allow_private?,
            ip: ip?,
            ip6: ip6?,
            names: names.is_some_and(|found| found.value),
        }))
    }

    fn has_other_names(&self) -> bool {
        let auth = self.root.section_quietly("auth");
        let plain = auth.node_value("plain_rest") == Some(&Value::Bool(true));
        plain || auth.has("static_users_file")
    }
}

/// `first-last`.
fn ports(value: &Value) -> Result<RangeInclusive<u16>, String> {
    let wrong = || "is not a range of ports, like 49152-65535".to_owned();
    let text = text(value).map_err(|_| wrong())?;
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let number = |text: &str| text.trim().parse::<u16>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    if first < 1024 {
        return Err("begins below 1024: clients reject relayed ports there".to_owned());
    }
    if first > last {
        return Err(format!("ends before it begins: write {last}-{first}"));
    }
    Ok(first..=last)
}

fn allowed(value: &Value) -> Result<Net, String> {
    let net: Net = text(value)?.parse().map_err(|error: crate::net::NetError| error.to_string())?;
    if net.is_special() {
        return Err(format!(
            "{net} is of a special purpose, and refused whatever stands here: name single hosts \
             under relay.external.allow_private"
        ));
    }
    Ok(net)
}

fn private(value: &Value) -> Result<IpAddr, String> {
    let net: Net = text(value)?.parse().map_err(|error: crate::net::NetError| error.to_string())?;
    let Some(ip) = net.as_host() else {
        return Err(format!("{net} is more than one host: name each, as /32 or /128"));
    };
    if canonical(ip) != ip {
        return Err(format!("{ip} stands for {}: write that", canonical(ip)));
    }
    match purpose(ip) {
        Purpose::Special => Ok(ip),
        Purpose::Never => Err(format!(
            "{ip} is loopback, link-local, a group or a cloud's metadata service: never reached"
        )),
        Purpose::Global => {
            Err(format!("{ip} is no private address: list it under relay.external.allow"))
        }
    }
}

/// What relayed sockets can be bound to.
fn machine(ip: IpAddr) -> Result<(), String> {
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(format!("{ip} is not the address of a machine"));
    }
    Ok(())
}
