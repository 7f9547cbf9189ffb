//! From the tree to the checked configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::section::{At, Found, Notes, Section};
use super::tree::{self, Value};
use super::{
    Auth, Checked, Config, DEFAULT_CREDENTIAL_TTL, DEFAULT_MEDIA_PORT, DEFAULT_METRICS,
    DEFAULT_REALM, DEFAULT_SESSION_LIMIT, DEFAULT_STORE, DEFAULT_UDP_PORT, ENV_TOKEN_KEYS,
    ENV_TURN_KEYS, Fault, Format, KeySource, Level, Limits, Listen, Log, Media, Overrides, Public,
    Relay, Shards, Store, Tls, duration,
};

/// Longest REALM we send, in bytes: RFC 8489 allows 763, and a 401 must stay small.
const MAX_REALM: usize = 40;
const MAX_URLS: usize = 8;

/// The URLs of TURN at a host name or IPv4 address (RFC 7065), the best first: UDP, then TLS, which
/// almost every network lets out, then TCP.
#[must_use]
pub fn relay_urls(host: &str, udp: u16, tcp: u16) -> Vec<String> {
    vec![
        format!("turn:{host}:{udp}?transport=udp"),
        format!("turns:{host}:{tcp}?transport=tcp"),
        format!("turn:{host}:{tcp}?transport=tcp"),
    ]
}

/// The realm when nobody names one: the host name where it is short enough.
#[must_use]
pub fn default_realm(host: Option<&str>) -> String {
    host.filter(|host| host.len() <= MAX_REALM).unwrap_or(DEFAULT_REALM).to_owned()
}

/// Checks the text of a configuration. `name` stands in front of each fault, `folder` is where
/// relative paths start, `readable` tells whether a file can be read.
///
/// # Errors
/// Every fault found, in order of place.
pub fn check(
    text: &str,
    name: &str,
    folder: &Path,
    overrides: &Overrides,
    readable: &dyn Fn(&Path) -> Result<(), String>,
) -> Result<Checked, Vec<Fault>> {
    let notes = Notes::new(name.to_owned());
    let tree = match tree::parse(text) {
        Ok(tree) => tree,
        Err((place, message)) => {
            notes.add(At::File(place), "", format!("not valid YAML: {message}"));
            return Err(notes.into_faults());
        }
    };
    let warnings = Notes::new(name.to_owned());
    let checker = Checker {
        root: Section::root(&tree, &notes),
        notes: &notes,
        warnings: &warnings,
        folder,
        overrides,
        readable,
    };
    let config = checker.config();
    let faults = notes.into_faults();
    match config {
        Some(config) if faults.is_empty() => {
            Ok(Checked { config, warnings: warnings.into_faults() })
        }
        _ => Err(faults),
    }
}

/// The faults of flags and environment alone, for when there is no file.
#[must_use]
pub fn check_overrides(overrides: &Overrides) -> Vec<Fault> {
    let faults = check("", "", Path::new(""), overrides, &|_| Ok(())).err().unwrap_or_default();
    faults.into_iter().filter(|fault| fault.file.is_none()).collect()
}

pub(super) struct Checker<'a> {
    pub(super) root: Section<'a>,
    pub(super) notes: &'a Notes,
    pub(super) warnings: &'a Notes,
    folder: &'a Path,
    overrides: &'a Overrides,
    readable: &'a dyn Fn(&Path) -> Result<(), String>,
}

impl Checker<'_> {
    /// None: a fault was noted. All groups are read before any gives up.
    fn config(&self) -> Option<Config> {
        let public = self.public();
        let listen = self.listen();
        let media = self.media(listen.as_ref());
        let relay = self.relay(public.as_ref(), listen.as_ref());
        let auth = self.auth();
        let store = self.store();
        let tls = self.tls();
        let shards = self.shards();
        let log = self.log();
        Some(Config {
            public: public?,
            listen: listen?,
            media: media?,
            relay: relay?,
            auth: auth?,
            store: store?,
            tls: tls?,
            shards: shards?,
            log,
        })
    }

    fn public(&self) -> Option<Public> {
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
        let written = section.get("ip", parsed::<Ipv4Addr>("an IPv4 address, like 203.0.113.7"));
        let ip = over(self.overrides.public_ip, "--public-ip", written);
        let Some(ip) = ip else {
            section
                .missing("ip", "missing: the IPv4 address under which clients reach this gateway");
            return None;
        };
        let ip = self.sound(ip, "public.ip", |ip| {
            if ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() {
                Err(format!("{ip} is not the address of a machine"))
            } else {
                Ok(*ip)
            }
        })?;
        Some(Public { host: host?, ip })
    }

    fn listen(&self) -> Option<Listen> {
        let section = self.root.section("listen");
        let address = |key, flag, given: Option<SocketAddr>, default: SocketAddr| {
            let there = section.has(key);
            let written =
                section.get(key, parsed::<SocketAddr>("an address and a port, like 0.0.0.0:3478"));
            if written.is_none() && there && given.is_none() {
                return None;
            }
            let at = At::File(section.here);
            let found = over(given, flag, written).unwrap_or(Found { value: default, at });
            if found.value.port() == 0 {
                self.notes.add(
                    found.at,
                    &section.path(key),
                    "port 0 cannot be handed out: choose one",
                );
                return None;
            }
            Some(found)
        };
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let udp = address("udp", "--udp", self.overrides.udp, any(DEFAULT_UDP_PORT));
        let https = address("https", "--https", self.overrides.https, any(443));
        let metrics = address("metrics", "--metrics", self.overrides.metrics, DEFAULT_METRICS);

        let udp = udp.and_then(|udp| {
            self.sound(udp, "listen.udp", |udp| {
                if udp.is_ipv4() { Ok(*udp) } else { Err("must be an IPv4 address".to_owned()) }
            })
        });
        let metrics = metrics.and_then(|metrics| {
            let at = metrics.at;
            let metrics = self.sound(metrics, "listen.metrics", |metrics| {
                if metrics.ip().is_loopback() {
                    Ok(*metrics)
                } else {
                    Err("must be a loopback address: it is plain HTTP without login".to_owned())
                }
            })?;
            if https.as_ref().is_some_and(|https| collide(https.value, metrics)) {
                self.notes.add(at, "listen.metrics", "is the address of listen.https");
                return None;
            }
            Some(metrics)
        });
        Some(Listen { udp: udp?, https: https?.value, metrics: metrics? })
    }

    fn media(&self, listen: Option<&Listen>) -> Option<Media> {
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
        if listen.is_some_and(|listen| listen.udp.port() == port) {
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

    fn relay(&self, public: Option<&Public>, listen: Option<&Listen>) -> Option<Relay> {
        let section = self.root.section("relay");
        let there = section.has("realm");
        let realm = section.get("realm", |value| {
            let realm = text(value)?;
            let plain =
                |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | ':') || c == ' ';
            if realm.is_empty() || realm.len() > MAX_REALM || !realm.chars().all(plain) {
                return Err(format!(
                    "a realm has 1 to {MAX_REALM} printable ASCII characters, without : \" \\"
                ));
            }
            Ok(realm)
        });
        let realm = match realm {
            Some(realm) => Some(realm.value),
            None if there => None,
            None => Some(default_realm(public.and_then(|public| public.host.as_deref()))),
        };
        let urls = if section.has("urls") {
            section.list("urls", turn_url).and_then(|urls| {
                if urls.value.is_empty() || urls.value.len() > MAX_URLS {
                    let message =
                        format!("lists 1 to {MAX_URLS} URLs; leave it out for the default");
                    self.notes.add(urls.at, "relay.urls", message);
                    return None;
                }
                Some(urls.value)
            })
        } else {
            public.zip(listen).map(|(public, listen)| {
                relay_urls(&public.name(), listen.udp.port(), listen.https.port())
            })
        };
        let external = self.external();
        let limits = self.limits();
        Some(Relay { realm: realm?, urls: urls?, external: external?, limits: limits? })
    }

    fn limits(&self) -> Option<Limits> {
        let relay = self.root.section_quietly("relay");
        let section = relay.section("relay.limits");
        let defaults = Limits::default();
        let limit = |key, default: u32, most: i128| {
            let there = section.has(key);
            match section.get(key, whole(1, most)) {
                Some(found) => u32::try_from(found.value).ok(),
                None => (!there).then_some(default),
            }
        };
        let per_subject =
            limit("allocations_per_subject", defaults.allocations_per_subject, 100_000);
        let total = limit("allocations_total", defaults.allocations_total, 10_000_000);
        let permissions =
            limit("permissions_per_allocation", defaults.permissions_per_allocation, 256);
        let channels = limit("channels_per_allocation", defaults.channels_per_allocation, 256);
        let packets = limit("packets_per_second", defaults.packets_per_second, 10_000_000);
        let bits = limit("bits_per_second", defaults.bits_per_second, u32::MAX.into());
        Some(Limits {
            allocations_per_subject: per_subject?,
            allocations_total: total?,
            permissions_per_allocation: permissions?,
            channels_per_allocation: channels?,
            packets_per_second: packets?,
            bits_per_second: bits?,
        })
    }

    fn auth(&self) -> Option<Auth> {
        let section = self.root.section("auth");
        let keys = |key, in_environment: bool, variable: &'static str| {
            if in_environment {
                return Some(KeySource::Environment(variable));
            }
            let message =
                format!("missing: a file of keys, or the environment variable {variable}");
            self.file(&section, key, &message).map(KeySource::File)
        };
        let turn_keys =
            keys("turn_keys_file", self.overrides.turn_keys_in_environment, ENV_TURN_KEYS);
        let token_keys =
            keys("token_keys_file", self.overrides.token_keys_in_environment, ENV_TOKEN_KEYS);
        if let (Some(KeySource::File(turn)), Some(KeySource::File(token))) =
            (&turn_keys, &token_keys)
            && turn == token
        {
            self.notes.add(
                At::File(section.here),
                "auth.token_keys_file",
                "is the file of auth.turn_keys_file: whoever mints one could mint the other",
            );
        }
        let span = |key, default, least, most| {
            let there = section.has(key);
            match section.get(key, between(least, most)) {
                Some(found) => Some(found),
                None => (!there).then_some(Found { value: default, at: At::File(section.here) }),
            }
        };
        let ttl = span(
            "credential_ttl",
            DEFAULT_CREDENTIAL_TTL,
            Duration::from_secs(10),
            Duration::from_secs(24 * 3600),
        );
        let limit = span(
            "session_limit",
            DEFAULT_SESSION_LIMIT,
            Duration::from_secs(60),
            Duration::from_secs(7 * 24 * 3600),
        );
        if let (Some(ttl), Some(limit)) = (&ttl, &limit)
            && limit.value < ttl.value
        {
            self.notes.add(limit.at, "auth.session_limit", "is shorter than auth.credential_ttl");
        }
        let admin_key = self.optional_file(&section, "admin_key_file");
        let there = section.has("plain_rest");
        let plain_rest = section.get("plain_rest", yes_or_no);
        if let Some(Found { value: true, at }) = plain_rest {
            self.warnings.add(
                at,
                "auth.plain_rest",
                "plain names carry their user in the clear, are bound to no room, and end only \
                 when their maker said",
            );
        }
        let static_users = self.optional_file(&section, "static_users_file");
        if let Some(Some(_)) = static_users {
            self.warnings.add(
                At::File(section.here),
                "auth.static_users_file",
                "static users never expire: a password that leaks is good until it is changed \
                 here and the gateway restarted",
            );
        }
        if there && plain_rest.is_none() {
            return None;
        }
        Some(Auth {
            turn_keys: turn_keys?,
            token_keys: token_keys?,
            credential_ttl: ttl?.value,
            session_limit: limit?.value,
            admin_key: admin_key?,
            plain_rest: plain_rest.is_some_and(|found| found.value),
            static_users: static_users?,
        })
    }

    fn store(&self) -> Option<Store> {
        let section = self.root.section("store");
        let there = section.has("path");
        let written = section.get("path", |value| match text(value)? {
            path if path.is_empty() => Err("is empty".to_owned()),
            path => Ok(path),
        });
        if written.is_none() && there {
            return None;
        }
        let path = written.map_or_else(|| DEFAULT_STORE.to_owned(), |found| found.value);
        Some(Store { path: self.folder.join(path) })
    }

    fn tls(&self) -> Option<Tls> {
        let section = self.root.section("tls");
        let (certificate, key) = match (section.has("certificate"), section.has("key")) {
            (true, false) => ("", "missing: a certificate needs its private key"),
            (false, true) => ("missing: a private key needs its certificate", ""),
            _ => (
                "missing: signalling is never plain; a PEM file with the certificate chain",
                "missing: a PEM file with the certificate's private key",
            ),
        };
        let certificate = self.file(&section, "certificate", certificate);
        let key = self.file(&section, "key", key);
        Some(Tls { certificate: certificate?, key: key? })
    }

    fn shards(&self) -> Option<Shards> {
        let there = self.root.has("shards");
        let written = self.root.get("shards", |value| match value {
            Value::Integer(number) => number.to_string().parse(),
            Value::Text(text) => text.parse(),
            other => Err(format!("write auto or a number, not {}", other.kind())),
        });
        if written.is_none() && there && self.overrides.shards.is_none() {
            return None;
        }
        Some(over(self.overrides.shards, "--shards", written).map_or(Shards::Auto, |s| s.value))
    }

    fn log(&self) -> Log {
        let section = self.root.section("log");
        let level = section.get("level", |value| {
            let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
            choice(value, &levels, Level::as_str)
        });
        let format = section
            .get("format", |value| choice(value, &[Format::Text, Format::Json], Format::as_str));
        Log {
            level: level.map_or_else(Level::default, |found| found.value),
            format: format.map_or_else(Format::default, |found| found.value),
        }
    }

    /// The inner `None`: it is left out. The outer: a fault was noted.
    fn optional_file(&self, section: &Section<'_>, key: &str) -> Option<Option<PathBuf>> {
        if section.has(key) { self.file(section, key, "").map(Some) } else { Some(None) }
    }

    fn file(&self, section: &Section<'_>, key: &str, missing: &str) -> Option<PathBuf> {
        let Some(found) = section.get(key, text) else {
            if !missing.is_empty() {
                section.missing(key, missing);
            }
            return None;
        };
        self.sound(found, &section.path(key), |path| {
            let path = self.folder.join(path);
            (self.readable)(&path)
                .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
            Ok(path)
        })
    }

    fn sound<T, U>(
        &self,
        found: Found<T>,
        key: &str,
        test: impl FnOnce(&T) -> Result<U, String>,
    ) -> Option<U> {
        test(&found.value).map_err(|message| self.notes.add(found.at, key, message)).ok()
    }
}

fn over<T>(given: Option<T>, flag: &'static str, written: Option<Found<T>>) -> Option<Found<T>> {
    given.map(|value| Found { value, at: At::Flag(flag) }).or(written)
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

pub(super) fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        other => Err(format!("expected text, found {}", other.kind())),
    }
}

pub(super) fn parsed<T: std::str::FromStr>(
    expected: &'static str,
) -> impl Fn(&Value) -> Result<T, String> {
    move |value| match value {
        Value::Text(text) => text.parse().map_err(|_| format!("\"{text}\" is not {expected}")),
        other => Err(format!("expected {expected}, found {}", other.kind())),
    }
}

fn whole(least: i128, most: i128) -> impl Fn(&Value) -> Result<i128, String> {
    move |value| match value {
        Value::Integer(number) if (least..=most).contains(number) => Ok(*number),
        Value::Integer(number) => Err(format!("{number} is not between {least} and {most}")),
        other => Err(format!("expected a whole number, found {}", other.kind())),
    }
}

fn between(least: Duration, most: Duration) -> impl Fn(&Value) -> Result<Duration, String> {
    move |value| {
        let span = match value {
            Value::Text(text) => duration::parse(text)?,
            Value::Integer(number) => {
                return Err(format!(
                    "{number} has no unit: write {number}s, {number}m or {number}h"
                ));
            }
            other => return Err(format!("expected a span like 10m, found {}", other.kind())),
        };
        if span < least || span > most {
            let (least, most) = (duration::show(least), duration::show(most));
            return Err(format!("{} is not between {least} and {most}", duration::show(span)));
        }
        Ok(span)
    }
}

pub(super) fn yes_or_no(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(answer) => Ok(*answer),
        other => Err(format!("expected true or false, found {}", other.kind())),
    }
}

fn choice<T: Copy>(value: &Value, all: &[T], name: fn(T) -> &'static str) -> Result<T, String> {
    let found = match value {
        Value::Text(text) => all.iter().find(|one| name(**one) == text),
        _ => None,
    };
    found.copied().ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|one| name(*one)).collect();
        format!("must be one of {}", names.join(", "))
    })
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
fn turn_url(value: &Value) -> Result<String, String> {
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
    let host = match place.rsplit_once(':') {
        Some((host, port)) => {
            port.parse::<std::num::NonZeroU16>().map_err(|_| wrong())?;
            host
        }
        None => place,
    };
    if host.parse::<Ipv4Addr>().is_err() {
        host_name(host).map_err(|_| wrong())?;
    }
    Ok(url)
}
