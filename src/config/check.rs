//! From the tree to the checked configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::network::turn_url;
use super::section::{At, Found, Notes, Section};
use super::tree::{self, Value};
use super::{
    Auth, Checked, Config, DEFAULT_CREDENTIAL_TTL, DEFAULT_REALM, DEFAULT_SESSION_LIMIT,
    DEFAULT_STORE, ENV_TOKEN_KEYS, ENV_TURN_KEYS, Fault, Format, KeySource, Level, Listen, Log,
    Media, Overrides, Public, Relay, Shards, Store, Tls, duration, limits,
};

/// Longest REALM we send, in bytes: RFC 8489 allows 763, and a 401 must stay small.
const MAX_REALM: usize = 40;
const MAX_URLS: usize = 8;

/// The URLs of TURN at a host name or an address (RFC 7065), the best first: UDP, then TLS, which
/// almost every network lets out, then TCP.
#[must_use]
pub fn relay_urls(host: &str, udp: &[u16], tcp: u16) -> Vec<String> {
    let udp = udp.iter().map(|port| format!("turn:{host}:{port}?transport=udp"));
    let tcp = ["turns", "turn"].map(|scheme| format!("{scheme}:{host}:{tcp}?transport=tcp"));
    udp.chain(tcp).collect()
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
    pub(super) overrides: &'a Overrides,
    readable: &'a dyn Fn(&Path) -> Result<(), String>,
}

impl Checker<'_> {
    /// None: a fault was noted. All groups are read before any gives up.
    fn config(&self) -> Option<Config> {
        let public = self.public();
        let listen = self.listen(public.as_ref());
        let media = self.media(listen.as_ref());
        let relay = self.relay(public.as_ref(), listen.as_ref(), media.as_ref());
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

    fn relay(
        &self,
        public: Option<&Public>,
        listen: Option<&Listen>,
        media: Option<&Media>,
    ) -> Option<Relay> {
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
                relay_urls(&public.name(), &listen.udp_ports(public), listen.https_port())
            })
        };
        let external = self.external(public, listen, media);
        let limits = limits::read(&self.root);
        Some(Relay { realm: realm?, urls: urls?, external: external?, limits: limits? })
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

    pub(super) fn sound<T, U>(
        &self,
        found: Found<T>,
        key: &str,
        test: impl FnOnce(&T) -> Result<U, String>,
    ) -> Option<U> {
        test(&found.value).map_err(|message| self.notes.add(found.at, key, message)).ok()
    }
}

pub(super) fn over<T>(
    given: Option<T>,
    flag: &'static str,
    written: Option<Found<T>>,
) -> Option<Found<T>> {
    given.map(|value| Found { value, at: At::Flag(flag) }).or(written)
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

pub(super) fn whole(least: i128, most: i128) -> impl Fn(&Value) -> Result<i128, String> {
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
