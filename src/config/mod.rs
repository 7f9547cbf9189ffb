//! YAML schema, load (file, environment, flags), check: all faults at once with line and key.
//!
//! Reading is done in two passes. The first only builds a tree whose nodes know their places;
//! the second takes every key out of it and notes each fault, so that one wrong value never hides
//! another. Environment and flags, merged by the command line, lie over the file.

mod check;
pub mod duration;
mod external;
mod limits;
mod network;
mod section;
mod tree;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use check::{check, check_overrides, default_realm, relay_urls};
pub use external::External;
pub use limits::Limits;
pub use section::Fault;

use crate::net::Net;

/// Most data-plane threads.
pub const MAX_SHARDS: u8 = 64;
/// Default of `listen.udp`'s port, and of TURN (RFC 8656 section 4).
pub const DEFAULT_UDP_PORT: u16 = 3478;
/// Default of `listen.https`'s port.
pub const DEFAULT_HTTPS_PORT: u16 = 443;
/// Most addresses of `listen.udp`, and of `listen.https`.
pub const MAX_LISTENERS: usize = 8;
/// Default of `listen.connections_per_source`.
pub const DEFAULT_CONNECTIONS: u32 = 1_024;
/// `public.ip` of a gateway with IPv6 alone: the IPv4 dummy address of RFC 7600. Clients that do
/// not ask for IPv6 (browsers do not) get a virtual IPv4 address anyway, which nobody routes.
pub const DUMMY_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// Default of `media.port`.
pub const DEFAULT_MEDIA_PORT: u16 = 20_000;
/// Default of `listen.metrics`.
pub const DEFAULT_METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9641);
/// Default of `relay.realm` when there is no host name.
pub const DEFAULT_REALM: &str = "veilgate";
/// Default of `auth.credential_ttl`.
pub const DEFAULT_CREDENTIAL_TTL: Duration = Duration::from_secs(600);
/// Default of `store.path`, in the folder of the configuration or of the state.
pub const DEFAULT_STORE: &str = "veilgate.db";
/// Default of `auth.session_limit`.
pub const DEFAULT_SESSION_LIMIT: Duration = Duration::from_secs(12 * 3600);

/// A checked configuration. Holds paths of secrets, never secrets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// How clients reach this gateway.
    pub public: Public,
    /// Addresses to bind.
    pub listen: Listen,
    /// The forwarder's candidate.
    pub media: Media,
    /// The TURN server.
    pub relay: Relay,
    /// Keys and lifetimes of credentials.
    pub auth: Auth,
    /// What outlives the process.
    pub store: Store,
    /// The server certificate.
    pub tls: Tls,
    /// Number of data-plane threads.
    pub shards: Shards,
    /// What is logged, and how.
    pub log: Log,
}

/// How clients reach this gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Public {
    /// The name in certificates and in handed-out URLs. Without one Firefox cannot use TURN over
    /// TLS.
    pub host: Option<String>,
    /// The address in relayed addresses and in the media candidate.
    pub ip: Ipv4Addr,
    /// Likewise, for clients that ask for an IPv6 address.
    pub ip6: Option<Ipv6Addr>,
}

impl Public {
    /// The name if there is one, else the address, as URLs write it.
    #[must_use]
    pub fn name(&self) -> String {
        let address = || match self.ip6 {
            Some(ip6) if !self.has_ip4() => format!("[{ip6}]"),
            _ => self.ip.to_string(),
        };
        self.host.clone().unwrap_or_else(address)
    }

    /// Whether clients can come over IPv4.
    #[must_use]
    pub fn has_ip4(&self) -> bool {
        self.ip != DUMMY_IP
    }
}

/// Addresses to bind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    /// TURN over UDP, at most [`MAX_LISTENERS`].
    pub udp: Vec<SocketAddr>,
    /// HTTPS, and TURN over TLS and TCP, at most [`MAX_LISTENERS`].
    pub https: Vec<SocketAddr>,
    /// Metrics and health, plain HTTP: always a loopback address.
    pub metrics: SocketAddr,
    /// Load balancers: whoever comes from there says with PROXY v2 who the client is.
    pub proxy_from: Vec<Net>,
    /// TCP connections at once of one source, a /32 or a /64.
    pub connections_per_source: u32,
}

impl Listen {
    /// The ports of TURN over UDP, each once; where URLs carry an address and no name, those of its
    /// family.
    #[must_use]
    pub fn udp_ports(&self, public: &Public) -> Vec<u16> {
        let mut ports: Vec<u16> = Vec::new();
        let found = |udp: &&SocketAddr| public.host.is_some() || udp.is_ipv4() == public.has_ip4();
        for port in self.udp.iter().filter(found).map(SocketAddr::port) {
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports
    }

    /// The port of HTTPS that is handed out: the first one's.
    #[must_use]
    pub fn https_port(&self) -> u16 {
        self.https.first().map_or(DEFAULT_HTTPS_PORT, SocketAddr::port)
    }
}

/// The forwarder's candidate: an address in a table, never bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Media {
    /// Its port, at least 1024; the address is `public.ip`.
    pub port: u16,
}

/// The TURN server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relay {
    /// REALM of RFC 8489.
    pub realm: String,
    /// The URLs handed out with a credential.
    pub urls: Vec<String>,
    /// The classic TURN server for other applications; none: it is off.
    pub external: Option<External>,
    /// What one client, one subject, and all together, may hold and send.
    pub limits: Limits,
}

/// Keys and lifetimes of credentials.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Auth {
    /// The ring that mints and opens TURN credentials.
    pub turn_keys: KeySource,
    /// The ring that mints and verifies tokens.
    pub token_keys: KeySource,
    /// How long a fresh TURN credential may open allocations.
    pub credential_ttl: Duration,
    /// How long an allocation may live at most, from the minting of its credential.
    pub session_limit: Duration,
    /// The file of the key that opens the admin API; none: it is closed.
    pub admin_key: Option<PathBuf>,
    /// Whether plain TURN REST names, `expiry:user`, are accepted.
    pub plain_rest: bool,
    /// The file of long-lived TURN users.
    pub static_users: Option<PathBuf>,
}

/// What outlives the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Store {
    /// The database; made when it is not there.
    pub path: PathBuf,
}

/// Where a key ring is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeySource {
    /// A file, one `id:base64-secret` a line.
    File(PathBuf),
    /// An environment variable with the text of such a file.
    Environment(&'static str),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
        }
    }
}

/// The server certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// PEM: the certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
}

/// Number of data-plane threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shards {
    /// One a core.
    #[default]
    Auto,
    /// So many, at most [`MAX_SHARDS`].
    Count(NonZeroU8),
}

impl Shards {
    /// The number, on a machine of `cores` cores.
    #[must_use]
    pub fn count(self, cores: usize) -> usize {
        match self {
            Self::Auto => cores.clamp(1, usize::from(MAX_SHARDS)),
            Self::Count(count) => usize::from(count.get()),
        }
    }
}

impl FromStr for Shards {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse::<NonZeroU8>()
            .ok()
            .filter(|count| count.get() <= MAX_SHARDS)
            .map(Self::Count)
            .ok_or_else(|| format!("write auto, or a number from 1 to {MAX_SHARDS}"))
    }
}

impl fmt::Display for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Log {
    /// The least grave events that are logged.
    pub level: Level,
    /// The form of a line.
    pub format: Format,
}

/// The least grave events that are logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Level {
    /// Failures only.
    Error,
    /// And what may become one.
    Warn,
    /// And what an operator wants to know.
    #[default]
    Info,
    /// And what a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// As written in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl Format {
    /// As written in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// What flags and environment say: each wins over the file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overrides {
    /// `--public-ip`, `VEILGATE_PUBLIC_IP`.
    pub public_ip: Option<Ipv4Addr>,
    /// `--public-ip6`, `VEILGATE_PUBLIC_IP6`.
    pub public_ip6: Option<Ipv6Addr>,
    /// `--public-host`, `VEILGATE_PUBLIC_HOST`.
    pub public_host: Option<String>,
    /// `--udp`, `VEILGATE_UDP`.
    pub udp: Vec<SocketAddr>,
    /// `--https`, `VEILGATE_HTTPS`.
    pub https: Vec<SocketAddr>,
    /// `--metrics`, `VEILGATE_METRICS`.
    pub metrics: Option<SocketAddr>,
    /// `--shards`, `VEILGATE_SHARDS`.
    pub shards: Option<Shards>,
    /// `VEILGATE_TURN_KEYS` is set.
    pub turn_keys_in_environment: bool,
    /// `VEILGATE_TOKEN_KEYS` is set.
    pub token_keys_in_environment: bool,
}

/// Environment variable with the text of a TURN key file.
pub const ENV_TURN_KEYS: &str = "VEILGATE_TURN_KEYS";
/// Environment variable with the text of a token key file.
pub const ENV_TOKEN_KEYS: &str = "VEILGATE_TOKEN_KEYS";

/// A sound configuration, and what is worth a word about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// Not wrong, but likely to surprise.
    pub warnings: Vec<Fault>,
}

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads and checks a file. Relative paths in it are relative to its folder.
///
/// # Errors
/// Every fault found, in order of place.
pub fn load(path: &Path, overrides: &Overrides) -> Result<Checked, Vec<Fault>> {
    let name = path.display().to_string();
    let unreadable = |message: String| {
        vec![Fault { file: None, line: 0, column: 0, key: name.clone(), message }]
    };
    let size = std::fs::metadata(path)
        .map_err(|error| unreadable(format!("cannot be read: {error}")))?
        .len();
    if size > MAX_FILE {
        return Err(unreadable("is larger than 1 MiB".to_owned()));
    }
    let bytes =
        std::fs::read(path).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("is not UTF-8".to_owned()))?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let readable = |file: &Path| {
        let file = std::fs::File::open(file).map_err(|error| error.to_string())?;
        let kind = file.metadata().map_err(|error| error.to_string())?;
        if kind.is_dir() { Err("it is a folder".to_owned()) } else { Ok(()) }
    };
    check(&text, &name, folder, overrides, &readable)
}

#[cfg(test)]
mod tests;
