//! What to probe: URLs, the paths they name, and the credential to go with.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

/// How a path reaches the server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    pub(in crate::cli) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// A `turn:` or `turns:` URL (RFC 7065).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) struct TurnUrl {
    pub(in crate::cli) text: String,
    /// Without brackets.
    pub(in crate::cli) host: String,
    pub(in crate::cli) port: u16,
    pub(in crate::cli) transport: Transport,
}

impl TurnUrl {
    pub(in crate::cli) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').ok_or("it has no scheme")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "turn" => false,
            "turns" => true,
            other => return Err(format!("{other}: is not turn: or turns:")),
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let transport = match (tls, query) {
            (false, "" | "transport=udp") => Transport::Udp,
            (false, "transport=tcp") => Transport::Tcp,
            (true, "" | "transport=tcp") => Transport::Tls,
            (true, "transport=udp") => {
                return Err("TURN over DTLS is not offered, and no browser has it".to_owned());
            }
            _ => return Err("after the ? only transport=udp or transport=tcp".to_owned()),
        };
        let (host, port) = split_port(place)?;
        if host.is_empty() || host.contains(['/', '@', ' ']) {
            return Err("the host is missing, or something is around it".to_owned());
        }
        let port = port.unwrap_or(if tls { 5349 } else { 3478 });
        Ok(Self { text: text.to_owned(), host: host.to_owned(), port, transport })
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn split_port(place: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("the ] of the address is missing")?;
            match after.strip_prefix(':') {
                None if !after.is_empty() => return Err(format!("{after} follows the ]")),
                port => (host, port),
            }
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = match port {
        None => None,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err(format!("{port} is not a port")),
            Ok(port) => Some(port),
        },
    };
    Ok((host, port))
}

/// One way to the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) struct Route {
    pub(in crate::cli) url: TurnUrl,
    pub(in crate::cli) server: SocketAddr,
}

impl Route {
    pub(in crate::cli) const fn family(&self) -> &'static str {
        if self.server.is_ipv4() { "ipv4" } else { "ipv6" }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.url.transport.name(), self.family(), self.server)
    }
}

/// The first IPv4 and the first IPv6 address of the URL's host.
pub(in crate::cli) async fn routes(
    url: &TurnUrl,
    patience: Duration,
) -> Result<Vec<Route>, String> {
    let addresses: Vec<SocketAddr> = if let Ok(ip) = url.host.parse::<IpAddr>() {
        vec![SocketAddr::new(ip, url.port)]
    } else {
        let asked = timeout(patience, tokio::net::lookup_host((url.host.as_str(), url.port)));
        match asked.await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the resolver does not answer".to_owned()),
        }
    };
    let v4 = addresses.iter().find(|address| address.is_ipv4());
    let v6 = addresses.iter().find(|address| address.is_ipv6());
    let route = |server: &SocketAddr| Route { url: url.clone(), server: *server };
    Ok(v4.into_iter().chain(v6).map(route).collect())
}

/// A user name and its password: never shown.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::cli) struct Credential {
    pub(in crate::cli) username: String,
    pub(in crate::cli) password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(hidden)")
    }
}

/// Where to go and with what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::cli) struct IceServer {
    pub(in crate::cli) urls: Vec<String>,
    pub(in crate::cli) credential: Credential,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Urls {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default = "no_urls")]
    urls: Urls,
    username: String,
    credential: String,
}

const fn no_urls() -> Urls {
    Urls::Many(Vec::new())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Document {
    Configuration {
        #[serde(rename = "iceServers")]
        ice_servers: Vec<Entry>,
    },
    Entry(Entry),
}

/// Reads what `turn mint --json` prints, or an `RTCConfiguration`.
///
/// What is wrong with it is not said in detail: the text holds a password.
pub(in crate::cli) fn read_ice_server(json: &[u8]) -> Option<IceServer> {
    let entry = match serde_json::from_slice(json).ok()? {
        Document::Entry(entry) => entry,
        Document::Configuration { ice_servers } => ice_servers.into_iter().next()?,
    };
    let urls = match entry.urls {
        Urls::One(url) => vec![url],
        Urls::Many(urls) => urls,
    };
    let credential = Credential { username: entry.username, password: entry.credential };
    Some(IceServer { urls, credential })
}

pub(in crate::cli) fn read_credential_file(path: &Path) -> anyhow::Result<IceServer> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    read_ice_server(&text).ok_or_else(|| {
        anyhow!(
            "{} is not a credential: it must hold what `veilgate turn mint --json` prints",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turn_urls_are_read_as_rfc_7065_has_them() {
        let read = |text| {
            let url = TurnUrl::parse(text).unwrap();
            (url.host, url.port, url.transport)
        };
        let host = || "h.example".to_owned();
        assert_eq!(read("turn:h.example"), (host(), 3478, Transport::Udp));
        assert_eq!(read("turn:h.example:1?transport=tcp"), (host(), 1, Transport::Tcp));
        assert_eq!(read("turns:h.example"), (host(), 5349, Transport::Tls));
        assert_eq!(read("TURNS:h.example:443?transport=tcp"), (host(), 443, Transport::Tls));
        let v6 = ("2001:db8::1".to_owned(), 3479, Transport::Udp);
        assert_eq!(read("turn:[2001:db8::1]:3479?transport=udp"), v6);
        for wrong in [
            "h.example",
            "stun:h.example",
            "turn:",
            "turn::3478",
            "turn:h:0",
            "turn:h:99999",
            "turn:[::1",
            "turn:[::1]3478",
            "turn:[::1]:",
            "turn:h?transport=sctp",
            "turns:h?transport=udp",
            "turn://h",
        ] {
            assert!(TurnUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn credential_is_read_from_an_entry_and_from_a_configuration_and_never_shown() {
        let entry = r#"{"urls":"turn:a","username":"user","credential":"word","ttl":1}"#;
        let configuration = format!(r#"{{"iceServers":[{entry}],"iceTransportPolicy":"relay"}}"#);
        for text in [entry, &configuration] {
            let server = read_ice_server(text.as_bytes()).unwrap();
            assert_eq!(server.urls, ["turn:a"]);
            assert_eq!(server.credential.username, "user");
            let shown = format!("{server:?}");
            assert!(!shown.contains("user") && !shown.contains("word"), "{shown}");
        }
        assert!(read_ice_server(b"[]").is_none());
        assert!(read_ice_server(br#"{"iceServers":[]}"#).is_none());
    }
}
