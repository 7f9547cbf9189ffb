//! `relay.external`: the classic TURN server for other applications.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use super::check::{Checker, parsed, text, yes_or_no};
use super::section::At;
use super::tree::Value;
use super::{Listen, Media, Public};
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
    /// Where relayed IPv6 sockets are bound, and what clients are told; none: `public.ip6`.
    pub ip6: Option<Ipv6Addr>,
    /// Plain names and static users are for this, not for the forwarder.
    pub names: bool,
}

impl Checker<'_> {
    /// The inner `None`: it is left out. The outer: a fault was noted.
    pub(super) fn external(
        &self,
        public: Option<&Public>,
        listen: Option<&Listen>,
        media: Option<&Media>,
    ) -> Option<Option<External>> {
        let relay = self.root.section_quietly("relay");
        if !relay.has("external") {
            return Some(None);
        }
        let section = relay.section("relay.external");
        let there = section.has("ports");
        let bound = listen.map(|listen| listen.udp.iter().chain(&listen.https));
        let bound = bound.into_iter().flatten().map(SocketAddr::port);
        let taken: Vec<u16> = bound.chain(media.map(|media| media.port)).collect();
        let ports = match section.get("ports", |value| ports(value, &taken)) {
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
        let has_ip6 = ip6.flatten().is_some() || self.root.section_quietly("public").has("ip6");
        if let Some(list) = allow.as_ref().filter(|_| !has_ip6)
            && !list.value.is_empty()
            && list.value.iter().all(|net| net.first().is_ipv6())
        {
            self.warnings.add(
                list.at,
                "relay.external.allow",
                "IPv6 peers alone, and no relay.external.ip6 or public.ip6: nobody can be reached",
            );
        }
        let has_ip4 = public.is_none_or(Public::has_ip4);
        if !has_ip4 {
            self.notes.add(
                At::File(section.here),
                "relay.external",
                "needs public.ip: its clients get a real IPv4 address unless they ask for IPv6",
            );
        }
        if !(has_ip4 && allow_fits && private_fits) || (there && names.is_none()) {
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

/// `first-last`, with a port that is not `taken`.
fn ports(value: &Value, taken: &[u16]) -> Result<RangeInclusive<u16>, String> {
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
    if (first..=last).all(|port| taken.contains(&port)) {
        return Err("has only ports of listen.udp, listen.https and media.port: no client could \
                    ever get one"
            .to_owned());
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
    if let IpAddr::V6(ip) = ip
        && (ip.is_loopback() || ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some())
    {
        return Err(format!("{ip} is not an address others can reach"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Checked, Fault, Overrides, check};

    const SOUND: &str = "\
public: { host: turn.example.org, ip: 203.0.113.7 }
auth: { turn_keys_file: a, token_keys_file: b, plain_rest: true }
tls: { certificate: c, key: d }
";

    fn read(external: &str) -> Result<Checked, Vec<Fault>> {
        let text = format!("{SOUND}relay:\n  external:\n{external}");
        check(&text, "v.yaml", Path::new("/x"), &Overrides::default(), &|_| Ok(()))
    }

    fn faults(external: &str) -> Vec<String> {
        read(external).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn external_is_off_unless_it_is_there() {
        let off = check(SOUND, "v", Path::new("/x"), &Overrides::default(), &|_| Ok(())).unwrap();
        assert_eq!(off.config.relay.external, None);
        let on = read("    allow: [198.16.0.0/14, '2a01:4f8::/32']\n").unwrap();
        let external = on.config.relay.external.unwrap();
        assert_eq!(external.ports, 49_152..=65_535);
        assert_eq!(external.allow, ["198.16.0.0/14", "2a01:4f8::/32"].map(|n| n.parse().unwrap()));
    }

    #[test]
    fn every_key_of_it_is_read() {
        let text = "    ports: 50000-50999
    allow: [0.0.0.0/0, '::/0', 8.8.8.8]
    allow_private: [10.0.0.9/32, 'fd12::9/128', 192.168.1.5]
    ip: 10.0.0.7
    ip6: '2a01:4f8::7'
    names: true
";
        let checked = read(text).unwrap();
        let external = checked.config.relay.external.unwrap();
        assert_eq!(external.ports, 50_000..=50_999);
        assert_eq!(external.allow[2].to_string(), "8.8.8.8/32");
        assert_eq!(
            external.allow_private,
            ["10.0.0.9", "fd12::9", "192.168.1.5"]
                .map(|ip| ip.parse::<std::net::IpAddr>().unwrap())
        );
        assert_eq!(external.ip, Some("10.0.0.7".parse().unwrap()));
        assert_eq!(external.ip6, Some("2a01:4f8::7".parse().unwrap()));
        assert!(external.names);
    }

    #[test]
    fn without_a_list_nothing_starts() {
        for text in ["    names: true\n", "    allow:\n"] {
            let told = faults(text);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with("v.yaml:5:3: relay.external.allow: missing"), "{told:?}");
        }
        assert_eq!(
            faults("    allow: []\n"),
            ["v.yaml:6:12: relay.external.allow: lists 1 to 256 entries"]
        );
        assert!(faults("    allow: everybody\n")[0].contains("expected a list"));
    }

    #[test]
    fn every_fault_of_it_is_told_at_once_with_its_line() {
        let text = "    ports: 500-40
    allow:
      - 198.51.100.7/24
      - 10.0.0.0/8
      - everywhere
    allow_private:
      - 192.168.0.0/16
      - 127.0.0.1
      - 169.254.169.254
      - 8.8.8.8
      - '::ffff:10.0.0.9'
      - 'fe80::1'
    ip: 0.0.0.0
    ip6: 'ff02::1'
    names: perhaps
    alow: []
";
        let told = faults(text);
        for (line, part) in [
            (6, "relay.external.ports: begins below 1024"),
            (8, "allow[0]: 198.51.100.7/24 has bits beyond its prefix"),
            (9, "allow[1]: 10.0.0.0/8 is of a special purpose"),
            (10, "allow[2]: \"everywhere\" is not a block"),
            (12, "allow_private[0]: 192.168.0.0/16 is more than one host"),
            (13, "allow_private[1]: 127.0.0.1 is loopback"),
            (14, "allow_private[2]: 169.254.169.254 is loopback, link-local"),
            (15, "allow_private[3]: 8.8.8.8 is no private address"),
            (16, "allow_private[4]: ::ffff:10.0.0.9 stands for 10.0.0.9"),
            (17, "allow_private[5]: fe80::1 is loopback"),
            (18, "relay.external.ip: 0.0.0.0 is not the address of a machine"),
            (19, "relay.external.ip6: ff02::1 is not the address of a machine"),
            (20, "relay.external.names: expected true or false"),
            (21, "relay.external.alow: unknown key; did you mean \"allow\"?"),
        ] {
            let there = |fault: &String| {
                fault.starts_with(&format!("v.yaml:{line}:")) && fault.contains(part)
            };
            assert!(told.iter().any(there), "{line} {part}: {told:#?}");
        }
        assert_eq!(told.len(), 14, "{told:#?}");
    }

    #[test]
    fn ranges_of_ports_are_written_with_a_dash() {
        let sound = "    allow: [8.8.8.8]\n";
        assert!(faults(&format!("{sound}    ports: 50000\n"))[0].contains("like 49152-65535"));
        assert!(faults(&format!("{sound}    ports: 6-x\n"))[0].contains("like 49152-65535"));
        let backwards = faults(&format!("{sound}    ports: 50010-50000\n"));
        assert!(backwards[0].contains("write 50000-50010"), "{backwards:?}");
        assert!(read(&format!("{sound}    ports: 1024-1024\n")).is_ok());
    }

    #[test]
    fn range_without_a_port_to_give_is_a_fault() {
        let external = |ports: &str| format!("    allow: [8.8.8.8]\n    ports: {ports}\n");
        for taken in ["3478-3478", "20000-20000"] {
            assert_eq!(
                faults(&external(taken)),
                ["v.yaml:7:12: relay.external.ports: has only ports of listen.udp, listen.https \
                  and media.port: no client could ever get one"],
                "{taken}"
            );
        }
        assert!(read(&external("3478-3479")).is_ok(), "those in use are passed over");
    }

    #[test]
    fn ipv6_alone_and_addresses_that_nobody_reaches_are_faults() {
        let alone = SOUND.replace("ip: 203.0.113.7", "ip6: '2a01::7'");
        let text = format!("{alone}relay: {{ external: {{ allow: ['2a01::/16'] }} }}\n");
        let told = check(&text, "v", Path::new("/x"), &Overrides::default(), &|_| Ok(()));
        let told: Vec<_> = told.unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("relay.external: needs public.ip"), "{told:?}");
        for ip6 in ["::1", "fe80::1", "::ffff:10.0.0.7", "ff02::1"] {
            let told = read(&format!("    allow: [8.8.8.8]\n    ip6: '{ip6}'\n")).unwrap_err();
            assert!(told[0].to_string().contains("relay.external.ip6: "), "{told:?}");
        }
    }

    #[test]
    fn what_is_likely_to_surprise_is_warned_of() {
        let warned = |text: &str| -> Vec<String> {
            read(text).unwrap().warnings.iter().map(ToString::to_string).collect()
        };
        let v6 = warned("    allow: ['2a01::/16']\n");
        assert!(v6.iter().any(|w| w.contains("no relay.external.ip6")), "{v6:?}");
        let text = format!("{SOUND}relay: {{ external: {{ allow: [8.8.8.8], names: true }} }}\n");
        let text = text.replace(", plain_rest: true", "");
        let checked = check(&text, "v", Path::new("/x"), &Overrides::default(), &|_| Ok(()));
        let warnings = checked.unwrap().warnings;
        let none = |w: &Fault| w.key == "relay.external.names";
        assert!(warnings.iter().any(none), "{warnings:?}");
    }
}
