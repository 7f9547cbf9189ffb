//! `veilgate check`: explains a configuration.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::Serialize;

use super::{Done, EXIT_CONFIG, Failure, OverrideArgs, out};
use crate::app::keys::{self, Secrets};
use crate::auth::secret::Key;
use crate::config::{self, Config, Fault, KeySource, Tls, duration};

/// Check a configuration and say what it means
#[derive(Args)]
#[command(
    long_about = "\
Check a configuration. Every fault is told at once, as file:line:column: key: what is wrong. A \
sound one is shown as it takes effect, defaults, environment and flags included; secrets are \
left out. Key files and the certificate are read, too. Nothing is bound or started.

Exits with 78 when the configuration cannot be used.",
    after_long_help = "\
EXAMPLES
  veilgate check --config veilgate.yaml
  veilgate check --config veilgate.yaml --json | jq .errors"
)]
pub(super) struct CheckArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "VEILGATE_CONFIG")]
    config: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    overrides: OverrideArgs,
}

#[derive(Serialize)]
struct Told<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    line: u64,
    #[serde(skip_serializing_if = "is_zero")]
    column: u64,
    key: &'a str,
    message: &'a str,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's shape
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn told(faults: &[Fault]) -> Vec<Told<'_>> {
    faults
        .iter()
        .map(|fault| Told {
            file: fault.file.as_deref(),
            line: fault.line,
            column: fault.column,
            key: &fault.key,
            message: &fault.message,
        })
        .collect()
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    errors: Vec<Told<'a>>,
    warnings: Vec<Told<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<serde_json::Value>,
}

pub(super) fn run(args: &CheckArgs) -> Done {
    let mut warnings = Vec::new();
    let mut faults = Vec::new();
    let mut sound = None;
    match config::load(&args.config, &args.overrides.overrides()) {
        Ok(checked) => {
            warnings = checked.warnings;
            let config = checked.config;
            let secrets = keys::read_all(&config.auth);
            let unfit = certificate(&config.tls);
            match secrets {
                Ok(secrets) => {
                    warnings.extend(secrets.warnings.iter().cloned());
                    sound = Some((config, secrets));
                }
                Err(found) => faults.extend(found),
            }
            faults.extend(unfit);
        }
        Err(found) => faults = found,
    }
    let sound = sound.filter(|_| faults.is_empty());
    if args.json {
        out::json(&Report {
            ok: sound.is_some(),
            errors: told(&faults),
            warnings: told(&warnings),
            config: sound.as_ref().map(|(config, secrets)| as_json(config, secrets)),
        })?;
    } else {
        for warning in &warnings {
            out::talk(&format!("warning: {warning}"));
        }
        if let Some((config, secrets)) = &sound {
            out::plain(&as_text(config, secrets))?;
        }
    }
    match (sound, args.json) {
        (Some(_), _) => Ok(()),
        (None, true) => Err(Failure::Told(EXIT_CONFIG)),
        (None, false) => {
            let count = faults.len();
            for fault in &faults {
                out::talk(&fault.to_string());
            }
            let noun = if count == 1 { "error" } else { "errors" };
            out::talk(&format!("{count} {noun}"));
            Err(Failure::Told(EXIT_CONFIG))
        }
    }
}

/// Whether the certificate and its key can be read and belong together.
fn certificate(tls: &Tls) -> Option<Fault> {
    let fault = |key: &str, message: String| {
        Some(Fault { file: None, line: 0, column: 0, key: key.to_owned(), message })
    };
    let chain: Result<Vec<_>, _> = match CertificateDer::pem_file_iter(&tls.certificate) {
        Ok(chain) => chain.collect(),
        Err(error) => Err(error),
    };
    let name = tls.certificate.display();
    let chain = match chain {
        Ok(chain) if chain.is_empty() => {
            return fault("tls.certificate", format!("{name} holds no certificate"));
        }
        Ok(chain) => chain,
        Err(error) => {
            return fault("tls.certificate", format!("{name} is not a PEM certificate: {error}"));
        }
    };
    let name = tls.key.display();
    let key = match PrivateKeyDer::from_pem_file(&tls.key) {
        Ok(key) => key,
        Err(error) => return fault("tls.key", format!("{name} is not a PEM private key: {error}")),
    };
    match CertifiedKey::from_der(chain, key, &default_provider()) {
        Ok(_) => None,
        Err(error) => fault("tls.key", format!("{name} does not fit the certificate: {error}")),
    }
}

fn names(list: &[impl ToString]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn ids(ring: &[Key]) -> Vec<&str> {
    ring.iter().map(|key| key.id.as_str()).collect()
}

fn as_json(config: &Config, secrets: &Secrets) -> serde_json::Value {
    let limits = &config.relay.limits;
    serde_json::json!({
        "public": {
            "host": config.public.host,
            "ip": config.public.ip,
            "ip6": config.public.ip6,
        },
        "listen": {
            "udp": config.listen.udp,
            "https": config.listen.https,
            "metrics": config.listen.metrics,
            "connections_per_source": config.listen.connections_per_source,
            "proxy_from": config.listen.proxy_from.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
        "media": { "port": config.media.port },
        "relay": {
            "realm": config.relay.realm,
            "urls": config.relay.urls,
            "limits": {
                "allocations_per_subject": limits.allocations_per_subject,
                "allocations_total": limits.allocations_total,
                "packets_per_second": limits.packets_per_second,
                "bits_per_second": limits.bits_per_second,
                "total_packets_per_second": limits.total_packets_per_second,
                "total_bits_per_second": limits.total_bits_per_second,
                "unauthenticated_replies_per_second": limits.unauthenticated_replies_per_second,
                "permissions_per_allocation": limits.permissions_per_allocation,
                "channels_per_allocation": limits.channels_per_allocation,
            },
            "external": config.relay.external.as_ref().map(|external| serde_json::json!({
                "ports": [external.ports.start(), external.ports.end()],
                "allow": names(&external.allow),
                "allow_private": external.allow_private,
                "ip": external.ip.unwrap_or(config.public.ip),
                "ip6": external.ip6,
                "names": external.names,
            })),
        },
        "auth": {
            "turn_keys": { "from": config.auth.turn_keys.to_string(), "ids": ids(&secrets.turn_keys) },
            "token_keys": { "from": config.auth.token_keys.to_string(), "ids": ids(&secrets.token_keys) },
            "credential_ttl": duration::show(config.auth.credential_ttl),
            "session_limit": duration::show(config.auth.session_limit),
            "admin_key_file": config.auth.admin_key,
            "plain_rest": config.auth.plain_rest,
            "static_users": {
                "from": config.auth.static_users,
                "number": secrets.users.len(),
            },
        },
        "store": { "path": config.store.path },
        "tls": { "certificate": config.tls.certificate, "key": config.tls.key },
        "shards": config.shards.to_string(),
        "log": { "level": config.log.level.as_str(), "format": config.log.format.as_str() },
    })
}

fn as_text(config: &Config, secrets: &Secrets) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "{key:<48} {value}");
    };
    let ring = |source: &KeySource, ring: &[Key]| {
        format!("{source} (keys: {}; the first mints)", ids(ring).join(", "))
    };
    line("public.host", &config.public.host.as_deref().unwrap_or("none"));
    let dummy = if config.public.has_ip4() { "" } else { " (nobody's: clients come over IPv6)" };
    line("public.ip", &format!("{}{dummy}", config.public.ip));
    if let Some(ip6) = &config.public.ip6 {
        line("public.ip6", ip6);
    }
    for udp in &config.listen.udp {
        line("listen.udp", udp);
    }
    for https in &config.listen.https {
        line("listen.https", https);
    }
    line("listen.metrics", &config.listen.metrics);
    let most = config.listen.connections_per_source;
    line("listen.connections_per_source", &most);
    for range in &config.listen.proxy_from {
        line("listen.proxy_from", range);
    }
    line("media.port", &format!("{} (an address in a table, never bound)", config.media.port));
    line("relay.realm", &config.relay.realm);
    for url in &config.relay.urls {
        line("relay.urls", url);
    }
    let limits = &config.relay.limits;
    line("relay.limits.allocations_per_subject", &limits.allocations_per_subject);
    line("relay.limits.allocations_total", &limits.allocations_total);
    line("relay.limits.packets_per_second", &limits.packets_per_second);
    line("relay.limits.bits_per_second", &limits.bits_per_second);
    let total = |limit: Option<u64>| limit.map_or_else(|| "none".to_owned(), |n| n.to_string());
    let packets = limits.total_packets_per_second.map(u64::from);
    line("relay.limits.total_packets_per_second", &total(packets));
    line("relay.limits.total_bits_per_second", &total(limits.total_bits_per_second));
    let replies = limits.unauthenticated_replies_per_second;
    line("relay.limits.unauthenticated_replies_per_second", &replies);
    match &config.relay.external {
        None => line("relay.external", &"off"),
        Some(external) => {
            let (first, last) = (external.ports.start(), external.ports.end());
            line("relay.external.ports", &format!("{first}-{last} (open them in the firewall)"));
            line("relay.external.allow", &names(&external.allow).join(" "));
            let hosts = names(&external.allow_private).join(" ");
            line("relay.external.allow_private", &if hosts.is_empty() { "none" } else { &hosts });
            line("relay.external.ip", &external.ip.unwrap_or(config.public.ip));
            let v6 = external.ip6.map_or_else(|| "none".to_owned(), |ip| ip.to_string());
            line("relay.external.ip6", &v6);
            line("relay.external.names", &external.names);
            let key = "relay.limits.permissions_per_allocation";
            line(key, &limits.permissions_per_allocation);
            line("relay.limits.channels_per_allocation", &limits.channels_per_allocation);
        }
    }
    line("auth.turn_keys_file", &ring(&config.auth.turn_keys, &secrets.turn_keys));
    line("auth.token_keys_file", &ring(&config.auth.token_keys, &secrets.token_keys));
    line("auth.credential_ttl", &duration::show(config.auth.credential_ttl));
    line("auth.session_limit", &duration::show(config.auth.session_limit));
    let file = |path: &Option<PathBuf>, none: &str| {
        path.as_ref().map_or_else(|| none.to_owned(), |path| path.display().to_string())
    };
    let admin = file(&config.auth.admin_key, "none (the admin API is closed)");
    line("auth.admin_key_file", &admin);
    line("auth.plain_rest", &config.auth.plain_rest);
    let users = file(&config.auth.static_users, "none");
    line("auth.static_users_file", &format!("{users} (users: {})", secrets.users.len()));
    line("store.path", &config.store.path.display());
    line("tls.certificate", &config.tls.certificate.display());
    line("tls.key", &config.tls.key.display());
    line("shards", &config.shards);
    line("log.level", &config.log.level.as_str());
    line("log.format", &config.log.format.as_str());
    text
}
