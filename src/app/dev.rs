//! What development needs and nobody should have to make by hand: a certificate authority,
//! secrets, an address, and a note of the running gateway that the mint commands find.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use boring::asn1::Asn1Time;
use boring::pkey::PKey;
use boring::x509::X509;
use if_addrs::IfAddr;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};

pub use crate::auth::explain::hex;
use crate::auth::secret::{self, Key};
use crate::config::{
    Auth, Config, DEFAULT_CONNECTIONS, DEFAULT_CREDENTIAL_TTL, DEFAULT_MEDIA_PORT, DEFAULT_METRICS,
    DEFAULT_SESSION_LIMIT, DEFAULT_STORE, DEFAULT_UDP_PORT, DUMMY_IP, ENV_TOKEN_KEYS,
    ENV_TURN_KEYS, KeySource, Limits, Listen, Log, Media, Overrides, Public, Relay, Shards, Store,
    Tls, default_realm, relay_urls,
};
use crate::time::Unix;

/// Port of HTTPS in development.
pub const HTTPS_PORT: u16 = 8443;
/// Life of the development certificates.
const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Certificates nearer to their end than this are made anew.
const RENEW_BEFORE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Clocks of browsers may be behind ours.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

/// File names in the state directory.
const TURN_KEYS: &str = "turn.keys";
const TOKEN_KEYS: &str = "token.keys";
const ADMIN_KEY: &str = "admin.key";
const GATEWAY: &str = "gateway.json";

/// What the mint commands and the demo need to know of a development gateway.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gateway {
    /// TURN URLs to hand out.
    pub urls: Vec<String>,
    /// The page to open.
    pub page: String,
    /// The only address a client may reach through the relay.
    pub media: SocketAddr,
    /// The certificate authority to trust.
    pub ca: PathBuf,
}

/// A prepared development gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevInfo {
    /// Where secrets and the note are.
    pub state_dir: PathBuf,
    /// The note.
    pub gateway: Gateway,
}

impl DevInfo {
    /// Writes the note for the mint commands. To be called once the sockets are bound, so that a
    /// second gateway that cannot start leaves the first one's note alone.
    ///
    /// # Errors
    /// As the file system says.
    pub fn announce(&self) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(&self.gateway)?;
        text.push(b'\n');
        replace(&self.state_dir.join(GATEWAY), &text, 0o600)
    }
}

/// The note of the last development gateway that used `state_dir`.
///
/// # Errors
/// As the file system says, or when the note is not one.
pub fn read_gateway(state_dir: &Path) -> io::Result<Gateway> {
    Ok(serde_json::from_slice(&fs::read(state_dir.join(GATEWAY))?)?)
}

/// The TURN key ring of `state_dir`.
#[must_use]
pub fn turn_keys(state_dir: &Path) -> KeySource {
    KeySource::File(state_dir.join(TURN_KEYS))
}

/// The token key ring of `state_dir`.
#[must_use]
pub fn token_keys(state_dir: &Path) -> KeySource {
    KeySource::File(state_dir.join(TOKEN_KEYS))
}

/// The file of the admin key of `state_dir`.
#[must_use]
pub fn admin_key(state_dir: &Path) -> PathBuf {
    state_dir.join(ADMIN_KEY)
}

/// Where state is kept when nobody says: `$XDG_STATE_HOME/veilgate`, else
/// `~/.local/state/veilgate`. None when there is no home either.
#[must_use]
pub fn default_state_dir() -> Option<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("veilgate"))
}

/// Makes what is missing and composes the configuration.
///
/// # Errors
/// When files cannot be written, or no certificate can be made.
pub fn prepare(
    state_dir: &Path,
    certs_dir: &Path,
    overrides: &Overrides,
    now: Unix,
) -> anyhow::Result<(Config, DevInfo)> {
    let local = local_addresses();
    let primary = choose(routed_address(), &local);
    let ip6 = overrides.public_ip6;
    // With an IPv6 address given, loopback is not what clients come by.
    let none = if ip6.is_some() && primary.is_loopback() { DUMMY_IP } else { primary };
    let ip = overrides.public_ip.unwrap_or(none);
    let public = Public { host: overrides.public_host.clone(), ip, ip6 };
    let name = public.name();
    // An advertised address of this machine is the one to bind; one of a NAT before it is not.
    let bind = if ip.is_loopback() || local.contains(&ip) { ip } else { primary };
    let given = |given: &[SocketAddr], port: u16| match given {
        [] => {
            let v4 = public.has_ip4().then(|| SocketAddr::from((bind, port)));
            v4.into_iter().chain(ip6.map(|ip6| SocketAddr::from((ip6, port)))).collect()
        }
        given => given.to_vec(),
    };
    let listen = Listen {
        udp: given(&overrides.udp, DEFAULT_UDP_PORT),
        https: given(&overrides.https, HTTPS_PORT),
        metrics: overrides.metrics.unwrap_or(DEFAULT_METRICS),
        proxy_from: Vec::new(),
        connections_per_source: DEFAULT_CONNECTIONS,
    };

    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .with_context(|| format!("cannot make the folder {}", state_dir.display()))?;
    let ring = |file: &str, in_environment: bool, variable| -> anyhow::Result<KeySource> {
        if in_environment {
            return Ok(KeySource::Environment(variable));
        }
        let path = state_dir.join(file);
        make(&path, || fresh_ring("dev"))
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(KeySource::File(path))
    };
    let turn_keys = ring(TURN_KEYS, overrides.turn_keys_in_environment, ENV_TURN_KEYS)?;
    let token_keys = ring(TOKEN_KEYS, overrides.token_keys_in_environment, ENV_TOKEN_KEYS)?;

    let admin_key = admin_key(state_dir);
    make(&admin_key, fresh_admin_key)
        .with_context(|| format!("cannot make {}", admin_key.display()))?;

    let mut addresses = vec![
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip.into(),
        bind.into(),
    ];
    addresses.extend(ip6.map(IpAddr::V6));
    addresses.extend(listen.https.iter().map(SocketAddr::ip));
    addresses.retain(|address| !address.is_unspecified());
    addresses.sort_unstable();
    addresses.dedup();
    let mut hosts = vec!["localhost".to_owned()];
    hosts.extend(public.host.clone().filter(|host| host != "localhost"));
    let tls = certificates(certs_dir, &hosts, &addresses, now)
        .with_context(|| format!("cannot make certificates in {}", certs_dir.display()))?;

    let urls = relay_urls(&name, &listen.udp_ports(&public), listen.https_port());
    let gateway = Gateway {
        urls: urls.clone(),
        page: format!("https://{name}:{}/", listen.https_port()),
        media: (ip, DEFAULT_MEDIA_PORT).into(),
        ca: std::path::absolute(certs_dir.join("ca.pem"))?,
    };
    let config = Config {
        relay: Relay {
            realm: default_realm(public.host.as_deref()),
            urls,
            external: None,
            limits: Limits::default(),
        },
        public,
        listen,
        media: Media { port: DEFAULT_MEDIA_PORT },
        auth: Auth {
            turn_keys,
            token_keys,
            credential_ttl: DEFAULT_CREDENTIAL_TTL,
            session_limit: DEFAULT_SESSION_LIMIT,
            admin_key: Some(admin_key),
            plain_rest: false,
            static_users: None,
        },
        store: Store { path: state_dir.join(DEFAULT_STORE) },
        tls,
        shards: overrides.shards.unwrap_or(Shards::Auto),
        log: Log::default(),
    };
    Ok((config, DevInfo { state_dir: state_dir.to_owned(), gateway }))
}

/// The address of the interface that leads out, without sending anything: connecting a UDP socket
/// only asks the routing table. 192.0.2.1 is nobody's (RFC 5737).
fn routed_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// The addresses of this machine's interfaces; of IPv6 networks also the anycast address of their
/// routers (RFC 4291 section 2.6.1), which a machine that forwards, for containers say, takes for
/// its own.
///
/// # Errors
/// What the system says: it takes a descriptor to ask.
pub(crate) fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let interfaces = if_addrs::get_if_addrs()?;
    let addresses = interfaces.into_iter().flat_map(|interface| {
        let anycast = match &interface.addr {
            // None between two routers (RFC 6164): there it is one of them.
            IfAddr::V6(v6) if v6.netmask.to_bits().count_ones() < 127 => {
                Some(Ipv6Addr::from_bits(v6.ip.to_bits() & v6.netmask.to_bits()).into())
            }
            _ => None,
        };
        [Some(interface.ip()), anycast].into_iter().flatten()
    });
    Ok(addresses.collect())
}

fn local_addresses() -> Vec<Ipv4Addr> {
    let v4 = |ip| match ip {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    interface_addresses().unwrap_or_default().into_iter().filter_map(v4).collect()
}

/// The routed address, else the first of an interface, else loopback.
fn choose(routed: Option<Ipv4Addr>, local: &[Ipv4Addr]) -> Ipv4Addr {
    let usable = |address: &Ipv4Addr| !address.is_loopback() && !address.is_unspecified();
    routed
        .filter(usable)
        .or_else(|| local.iter().copied().find(|a| usable(a) && !a.is_link_local()))
        .unwrap_or(Ipv4Addr::LOCALHOST)
}

/// The machine's primary IPv4 address, else 127.0.0.1.
#[must_use]
pub fn primary_address() -> Ipv4Addr {
    choose(routed_address(), &local_addresses())
}

/// Random bytes of the operating system.
///
/// # Errors
/// When it has none to give.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| io::Error::other("the operating system gives no random bytes"))?;
    Ok(bytes)
}

/// The text of a key file with one fresh key.
///
/// # Errors
/// When there is no randomness.
pub fn fresh_ring(prefix: &str) -> io::Result<String> {
    // A random id tells rings apart: a credential of another ring is "unknown key", not "forged".
    let id = format!("{prefix}-{}", hex(&random::<4>()?));
    let key = Key { id, secret: random::<32>()?.to_vec() };
    let line = secret::write_key(&key);
    Ok(format!(
        "# id:base64-secret, one a line. The first mints, the others still verify.\n{line}\n"
    ))
}

/// The text of a file with a fresh admin key.
///
/// # Errors
/// When there is no randomness.
pub fn fresh_admin_key() -> io::Result<String> {
    Ok(format!("{}\n", hex(&random::<32>()?)))
}

/// Makes a secret file unless it is there.
fn make(path: &Path, fresh: impl FnOnce() -> io::Result<String>) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    match create(path, fresh()?.as_bytes(), 0o600) {
        // Another gateway was faster: its secret is as good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn write_beside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", hex(&random::<6>()?)));
    let beside = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    Ok(beside)
}

/// Creates a file whole or not at all; an existing one is an error.
///
/// # Errors
/// As the file system says.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = write_beside(path, bytes, mode)?;
    let linked = fs::hard_link(&beside, path);
    let _ = fs::remove_file(&beside);
    linked
}

/// Creates or replaces a file, whole or not at all.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = write_beside(path, bytes, mode)?;
    fs::rename(&beside, path).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

/// Finds or makes the authority and the server certificate for these names. The authority's own
/// key is never written: nobody can sign anything else with what browsers were told to trust.
fn certificates(
    folder: &Path,
    hosts: &[String],
    addresses: &[IpAddr],
    now: Unix,
) -> anyhow::Result<Tls> {
    let ca_file = folder.join("ca.pem");
    let tls = Tls { certificate: folder.join("server.pem"), key: folder.join("server.key") };
    let found = (fs::read(&ca_file), fs::read(&tls.certificate), fs::read(&tls.key));
    if let (Ok(ca), Ok(certificate), Ok(key)) = found
        && usable(&ca, &certificate, &key, hosts, addresses, now).unwrap_or(false)
    {
        return Ok(tls);
    }
    fs::create_dir_all(folder)?;

    let start = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.as_secs());
    let dated = |params: &mut CertificateParams| {
        params.not_before = start - BACKDATED;
        params.not_after = start + LIFE;
    };
    let mut params = CertificateParams::default();
    dated(&mut params);
    let name = format!("veilgate development CA {}", hex(&random::<4>()?));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let names: Vec<String> =
        hosts.iter().cloned().chain(addresses.iter().map(IpAddr::to_string)).collect();
    let mut params = CertificateParams::new(names)?;
    dated(&mut params);
    params.distinguished_name.push(DnType::CommonName, "veilgate development");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;

    replace(&tls.key, key.serialize_pem().as_bytes(), 0o600)?;
    replace(&tls.certificate, certificate.pem().as_bytes(), 0o644)?;
    replace(&ca_file, authority.pem().as_bytes(), 0o644)?;
    Ok(tls)
}

/// Whether the files belong together, live long enough and cover all names.
fn usable(
    ca: &[u8],
    certificate: &[u8],
    key: &[u8],
    hosts: &[String],
    addresses: &[IpAddr],
    now: Unix,
) -> anyhow::Result<bool> {
    let ca = X509::from_pem(ca)?;
    let certificate = X509::from_pem(certificate)?;
    let key = PKey::private_key_from_pem(key)?;
    if !certificate.public_key()?.public_eq(&key) || !certificate.verify(&*ca.public_key()?)? {
        return Ok(false);
    }
    let horizon = now.as_secs().saturating_add(RENEW_BEFORE.as_secs());
    let horizon = Asn1Time::from_unix(horizon.try_into()?)?;
    if certificate.not_after() <= horizon.as_ref() || ca.not_after() <= horizon.as_ref() {
        return Ok(false);
    }
    let names = certificate.subject_alt_names().ok_or_else(|| anyhow!("no names"))?;
    let has_host = |host: &String| {
        names.iter().any(|name| name.dnsname().is_some_and(|own| own.eq_ignore_ascii_case(host)))
    };
    let has_address = |address: &IpAddr| {
        names.iter().any(|name| match (name.ipaddress(), address) {
            (Some(own), IpAddr::V4(address)) => own == address.octets(),
            (Some(own), IpAddr::V6(address)) => own == address.octets(),
            (None, _) => false,
        })
    };
    Ok(hosts.iter().all(has_host) && addresses.iter().all(has_address))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NOW: Unix = Unix::from_secs(1_800_000_000);

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn ipv6_address_is_listened_on_and_certified_and_alone_if_need_be() {
        let folder = tempfile::tempdir().unwrap();
        let certs = folder.path().join("certs");
        let overrides = Overrides {
            public_ip6: Some("2001:db8::7".parse().unwrap()),
            public_ip: Some(DUMMY_IP),
            ..Overrides::default()
        };
        let (config, info) = prepare(folder.path(), &certs, &overrides, NOW).unwrap();
        assert_eq!(config.listen.udp, ["[2001:db8::7]:3478".parse().unwrap()]);
        assert_eq!(config.listen.https, ["[2001:db8::7]:8443".parse().unwrap()]);
        assert_eq!(info.gateway.page, "https://[2001:db8::7]:8443/");
        assert_eq!(info.gateway.urls, relay_urls("[2001:db8::7]", &[3478], 8443));
        let both = Overrides { public_ip: Some(Ipv4Addr::LOCALHOST), ..overrides };
        let (config, _) = prepare(folder.path(), &certs, &both, NOW).unwrap();
        let udp = ["127.0.0.1:3478", "[2001:db8::7]:3478"].map(|a| a.parse().unwrap());
        assert_eq!(config.listen.udp, udp);
    }

    #[test]
    fn preparation_makes_everything_once_and_privately() {
        let folder = tempfile::tempdir().unwrap();
        let (state, certs) = (folder.path().join("a/state"), folder.path().join("certs/dev"));
        let overrides = Overrides { public_ip: Some(Ipv4Addr::LOCALHOST), ..Overrides::default() };
        let (config, info) = prepare(&state, &certs, &overrides, NOW).unwrap();
        assert_eq!(config.listen.udp, ["127.0.0.1:3478".parse().unwrap()]);
        assert_eq!(config.listen.https, ["127.0.0.1:8443".parse().unwrap()]);
        assert_eq!(config.relay.urls, relay_urls("127.0.0.1", &[3478], 8443));
        assert_eq!(info.gateway.page, "https://127.0.0.1:8443/");
        assert_eq!(mode(&state), 0o700);
        for file in [
            state.join(TURN_KEYS),
            state.join(TOKEN_KEYS),
            state.join(ADMIN_KEY),
            certs.join("server.key"),
        ] {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
        assert!(super::super::keys::read(&config.auth.turn_keys).is_ok());
        assert!(!state.join(GATEWAY).exists());
        info.announce().unwrap();
        assert_eq!(read_gateway(&state).unwrap(), info.gateway);

        let files = || -> Vec<Vec<u8>> {
            [state.join(TURN_KEYS), certs.join("ca.pem"), certs.join("server.pem")]
                .iter()
                .map(|file| fs::read(file).unwrap())
                .collect()
        };
        let before = files();
        prepare(&state, &certs, &overrides, NOW).unwrap();
        assert_eq!(files(), before, "kept");
        assert_eq!(fs::read_dir(&state).unwrap().count(), 4, "no leavings");
        assert!(super::super::keys::read_admin(&state.join(ADMIN_KEY)).is_ok());
    }

    #[test]
    fn certificates_are_renewed_for_new_names_old_age_and_foreign_keys() {
        let folder = tempfile::tempdir().unwrap();
        let address = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let read = |tls: &Tls| fs::read(&tls.certificate).unwrap();
        let make = |hosts: &[&str], now| {
            let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
            read(&certificates(folder.path(), &hosts, &address, now).unwrap())
        };
        let first = make(&["localhost"], NOW);
        assert_eq!(make(&["localhost"], NOW), first);
        let named = make(&["localhost", "dev.example"], NOW);
        assert_ne!(named, first);
        assert_eq!(make(&["localhost"], NOW), named, "covers more than asked");
        let later = Unix::from_secs(NOW.as_secs() + 84 * 24 * 3600);
        let renewed = make(&["localhost"], later);
        assert_ne!(renewed, named);
        let foreign = KeyPair::generate().unwrap().serialize_pem();
        fs::write(folder.path().join("server.key"), foreign).unwrap();
        assert_ne!(make(&["localhost"], later), renewed);
    }

    #[test]
    fn primary_address_falls_back_step_by_step() {
        let a = Ipv4Addr::new(10, 0, 0, 7);
        let b = Ipv4Addr::new(192, 0, 2, 7);
        assert_eq!(choose(Some(a), &[b]), a);
        assert_eq!(choose(None, &[Ipv4Addr::LOCALHOST, b]), b);
        assert_eq!(choose(Some(Ipv4Addr::LOCALHOST), &[b]), b);
        assert_eq!(choose(None, &[Ipv4Addr::new(169, 254, 1, 1)]), Ipv4Addr::LOCALHOST);
        assert_eq!(choose(None, &[]), Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn existing_file_is_never_overwritten_by_creation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        create(&path, b"one", 0o600).unwrap();
        assert_eq!(create(&path, b"two", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
