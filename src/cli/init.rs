//! `veilgate init`: a commented configuration and fresh keys.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::{Done, Failure, out};
use crate::app::dev;
use crate::config::{Overrides, check_overrides};

/// Write a commented configuration and fresh keys
#[derive(Args)]
#[command(
    long_about = "\
Write veilgate.yaml, with a comment on every key, and three files of fresh random keys (readable \
by their owner alone) into a folder. Nothing that exists is overwritten.",
    after_long_help = "\
EXAMPLES
  veilgate init
  veilgate init /etc/veilgate --public-host turn.example.org --public-ip 203.0.113.7"
)]
pub(super) struct InitArgs {
    /// The folder
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,

    /// Host name of the gateway
    #[arg(long, value_name = "NAME", env = "VEILGATE_PUBLIC_HOST")]
    public_host: Option<String>,

    /// Public IPv4 address of the gateway [default: the primary address of this machine]
    #[arg(long, value_name = "IP", env = "VEILGATE_PUBLIC_IP")]
    public_ip: Option<Ipv4Addr>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &InitArgs) -> Done {
    let overrides = Overrides {
        public_ip: args.public_ip,
        public_host: args.public_host.clone(),
        ..Overrides::default()
    };
    if let Some(fault) = check_overrides(&overrides).first() {
        return Err(Failure::Usage(fault.to_string()));
    }
    let ip = args.public_ip.unwrap_or_else(dev::primary_address);
    let files = [
        ("veilgate.yaml", configuration(args.public_host.as_deref(), ip), 0o644),
        ("turn.keys", dev::fresh_ring("turn")?, 0o600),
        ("token.keys", dev::fresh_ring("token")?, 0o600),
        ("admin.key", dev::fresh_admin_key()?, 0o600),
    ];
    let paths: Vec<PathBuf> = files.iter().map(|(name, ..)| args.folder.join(name)).collect();
    // All or nothing, as far as that can be told beforehand.
    if let Some(path) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(exists(path));
    }
    std::fs::create_dir_all(&args.folder)
        .with_context(|| format!("cannot make the folder {}", args.folder.display()))?;
    for (path, (_, text, mode)) in paths.iter().zip(&files) {
        dev::create(path, text.as_bytes(), *mode).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(path),
            _ => Failure::No(anyhow!("cannot write {}: {error}", path.display())),
        })?;
    }
    if args.json {
        return Ok(out::json(&serde_json::json!({ "files": paths }))?);
    }
    for path in &paths {
        out::plain(&format!("{}\n", path.display()))?;
    }
    let config = args.folder.join("veilgate.yaml");
    out::talk(&format!(
        "Set tls.certificate and tls.key in {0}, then: veilgate check --config {0}",
        config.display()
    ));
    Ok(())
}

fn exists(path: &Path) -> Failure {
    Failure::No(anyhow!("{} exists already: nothing was overwritten", path.display()))
}

fn configuration(host: Option<&str>, ip: Ipv4Addr) -> String {
    let host_line = match host {
        Some(host) => format!("  host: {host}"),
        None => "  # host: turn.example.org".to_owned(),
    };
    let live = host.unwrap_or("turn.example.org");
    format!(
        "\
# veilgate. Explain it with: veilgate check --config veilgate.yaml
# Relative paths start at the folder of this file. Spans: 90s, 10m, 1h30m, 7d.

public:
  # Name in certificates and in handed-out URLs. Without one, Firefox cannot use TURN over TLS.
{host_line}
  # IPv4 address under which clients reach this gateway.
  ip: {ip}
  # The IPv6 one, if there is one. With it the gateway listens on IPv6 as well.
  # ip6: 2001:db8::7

listen:
  # TURN. The only UDP port there is: open it in the firewall, nothing else for media. Or a list:
  # networks that let nothing else out may let UDP 443.
  # udp: [ '0.0.0.0:3478', '0.0.0.0:443' ]
  # Signalling and pages, TLS only; TURN over TLS and TCP.
  # https: 0.0.0.0:443
  # Behind load balancers that speak PROXY protocol v2: their addresses.
  # proxy_from: [ 10.0.0.0/8 ]
  # Metrics and health: plain HTTP, so it must be a loopback address.
  metrics: 127.0.0.1:9641

media:
  # Port of the forwarder's candidate: an address in a table, never bound. At least 1024, outside
  # 32768 to 60999, and not the port of listen.udp.
  port: 20000

relay:
  # Realm of the TURN server; default: public.host.
  # realm: {live}
  # URLs handed out with credentials; default: UDP at listen.udp's port, then TLS and TCP at that of
  # listen.https, all at public.host (or public.ip).
  # urls: [ 'turn:{live}:3478?transport=udp', 'turns:{live}:443?transport=tcp' ]
  # A classic TURN server for Jitsi, Matrix, Nextcloud: docs/operator.md. Off unless it is here.
  # external:
  #   allow: [0.0.0.0/0]
  #   names: true
  limits:
    # One browser may need a dozen: URLs x interfaces x peer connections.
    allocations_per_subject: 32
    allocations_total: 100000
    # Payloads of one allocation, and of all together (default: no bound), in each direction.
    packets_per_second: 20000
    bits_per_second: 200000000
    # total_packets_per_second: 1000000
    # total_bits_per_second: 10000000000
    # Answers to strangers, for each source prefix: whoever spoofs an address gets no more sent
    # to it.
    unauthenticated_replies_per_second: 256

auth:
  # Lines of id:base64-secret. The first mints, the others still verify: to rotate, put a new line
  # on top, and remove the old one when all it minted has ended.
  turn_keys_file: turn.keys
  token_keys_file: token.keys
  # How long a TURN credential may open allocations.
  credential_ttl: 10m
  # How long an allocation may live at most.
  session_limit: 12h
  # Whoever holds this key may mint, look at and revoke TURN credentials over HTTPS (/v1/turn).
  # Leave it out to close that API.
  admin_key_file: admin.key
  # For clients and back ends that cannot use our credentials; docs/credentials.md tells the price.
  # plain_rest: false
  # static_users_file: turn.users

store:
  # What must outlive the process: revocations. Its folder must be writable.
  path: veilgate.db

tls:
  # PEM: the certificate with its intermediates, and its private key.
  certificate: /etc/letsencrypt/live/{live}/fullchain.pem
  key: /etc/letsencrypt/live/{live}/privkey.pem

# Data-plane threads: a number, or auto for one a core.
shards: auto

log:
  # error, warn, info, debug or trace
  level: info
  # text or json
  format: text
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Limits, check};

    #[test]
    fn written_configuration_is_sound_and_says_the_defaults() {
        let minimal = "\
public: { host: a.example, ip: 203.0.113.7 }
auth: { turn_keys_file: turn.keys, token_keys_file: token.keys, admin_key_file: admin.key }
tls: { certificate: /etc/letsencrypt/live/a.example/fullchain.pem, key: /etc/letsencrypt/live/a.example/privkey.pem }
";
        let read = |text: &str| {
            check(text, "f", Path::new("/x"), &Overrides::default(), &|_| Ok(())).unwrap().config
        };
        let written = read(&configuration(Some("a.example"), Ipv4Addr::new(203, 0, 113, 7)));
        assert_eq!(written, read(minimal));
        assert_eq!(written.relay.limits, Limits::default());
        let nameless = read(&configuration(None, Ipv4Addr::new(203, 0, 113, 7)));
        assert_eq!(nameless.public.host, None);
    }
}
