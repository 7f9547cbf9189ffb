//! `veilgate probe`: from outside, whether a deployment relays, refuses what it must, and how fast.

mod abuse;
mod measure;
pub(super) mod path;
mod report;
pub(super) mod signalling;
mod stream;
mod tap;
pub(super) mod target;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use reqwest::Url;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::keys::{KeyArgs, Origin, StateArgs};
use super::{Done, EXIT_NO, Failure, out, unix_now};
use crate::app::dev;
use crate::auth::token::TokenRequest;
use crate::auth::turn::{Class, Mint};
use crate::config::duration;
use path::Options;
use report::{Report, Row};
use target::{Credential, IceServer, Route, TurnUrl};

/// Life of what the probe mints for itself; a probe takes seconds.
const LIFE: Duration = Duration::from_secs(300);
/// For whom: shows in the gateway's own records.
const SUBJECT: &str = "veilgate-probe";
/// Files with tokens and certificates are not larger.
const LARGEST_TOKEN: usize = 8 * 1024;

/// Try a gateway from outside: does it relay, refuse what it must, and how fast
#[derive(Args)]
#[command(
    long_about = "\
Try a gateway from outside, as its clients see it: whether it relays to its forwarder, whether it \
refuses everything else, and how fast it is.

URL is https://HOST[:PORT] of a gateway, which is then asked for its TURN URLs and a credential \
(GET /v1/ice, with --token-file), or one turn: or turns: URL. Without it, the URLs of the \
configuration, of the development gateway or in the credential file are tried. Each URL is tried over its transport (UDP, \
TCP, TLS), over IPv4 and IPv6 where its host has both.

The TURN client is one of another project (the crates turn and stun), so that no error of ours is \
on both sides.",
    after_long_help = "\
CHECKS
  https, ice-closed, ice   the certificate is trusted; no credential without a token; with one a
                           relay-only configuration that is never cached
  reachable, tls           something answers there
  challenge                an Allocate without a credential gets a 401 of at most 100 bytes
  unsigned                 nothing else without a credential gets more than that
  forged                   a wrong password gets no allocation
  allocation               the credential gets one
  forwarder                permission and channel for the media address; nothing is bound there
  echo                     a payload comes back unaltered from the echo beside the media address
  rtt                      round trips to the echo; fails when more than a tenth is lost
  throughput               what comes back of at most 20 Mbit/s in at most 3 seconds
  refuse                   each target of abuse (loopback, private, cloud metadata, IPv6 disguises
                           of them, the server's other ports, …) as CreatePermission,
                           ChannelBind and Send: refused, or silent. by-ip: the permission that
                           the media address has anyway (RFC 8656 section 10.2)
  afterwards               the gateway still answers
  echo-class               a credential for users does not reach the echo

CREDENTIALS
  --credential-file FILE   what `veilgate turn mint --probe --json` printed; without --probe the
                           echo is out of reach, and what needs it is skipped
  --token-file FILE        for https: the token; what /v1/ice hands out does not reach the echo,
                           unless --credential-file is given as well
  --config FILE, --dev     mint what is needed with the gateway's own keys, on its machine

EXIT STATUS
  0   everything tried holds
  1   something does not
  2   the command line was misused

EXAMPLES
  veilgate probe --dev
  veilgate probe --config /etc/veilgate/veilgate.yaml
  veilgate probe --credential-file probe.json
  veilgate probe https://turn.example.org --token-file token --credential-file probe.json
  veilgate probe 'turns:turn.example.org:443?transport=tcp' --credential-file probe.json --json"
)]
pub(super) struct ProbeArgs {
    /// https://HOST[:PORT], turn:… or turns:… [default: the URLs of --config, --dev or the
    /// credential file]
    #[arg(value_name = "URL")]
    url: Option<String>,

    /// A token for /v1/ice
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// A TURN credential, as `veilgate turn mint --json` prints it
    #[arg(long, value_name = "FILE")]
    credential_file: Option<PathBuf>,

    /// Mint with the keys of this configuration
    #[arg(long, value_name = "FILE", conflicts_with = "dev")]
    config: Option<PathBuf>,

    /// Mint with the keys of the development gateway
    #[arg(long)]
    dev: bool,

    #[command(flatten)]
    state: StateArgs,

    /// Trust these certificate authorities (PEM), and no others [default: those of the system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// The gateway's media address [default: as configured, or the relayed IP and port 20000]
    #[arg(long, value_name = "IP:PORT")]
    media: Option<SocketAddr>,

    /// Round trips to measure
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    echoes: u32,

    /// Length of the throughput measurement, at most 3s; 0s for none
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = seconds)]
    seconds: Duration,

    /// Load of the throughput measurement, at most 20 Mbit/s
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(1..=20))]
    mbit: u64,

    /// How long to wait for an answer
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = duration::parse)]
    timeout: Duration,

    /// Print JSON; docs/probe.md has the schema
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") {
        return Ok(Duration::ZERO);
    }
    let span = duration::parse(text)?;
    if span > measure::LONGEST { Err("at most 3s".to_owned()) } else { Ok(span) }
}

/// What the command line asks for.
enum Asked {
    Https(Url),
    Turn(Vec<TurnUrl>),
}

/// What was minted here.
struct Minted {
    probe: Credential,
    forwarder: Credential,
    /// For /v1/ice.
    token: Option<String>,
    media: Option<SocketAddr>,
}

pub(super) fn run(args: &ProbeArgs) -> Done {
    let origin = origin(args)?;
    let file = args.credential_file.as_deref().map(target::read_credential_file).transpose()?;
    let asked = asked(args, file.as_ref(), origin.as_ref())?;
    let is_https = matches!(asked, Asked::Https(_));
    // What is misused is told before anything is sent.
    match (&args.token_file, is_https) {
        (Some(_), false) => return Err(usage("--token-file goes with an https: URL")),
        (None, true) if origin.is_none() => {
            return Err(usage("an https: URL needs --token-file, --config or --dev"));
        }
        (None, false) if origin.is_none() && args.credential_file.is_none() => {
            return Err(usage("a turn: URL needs --credential-file, --config or --dev"));
        }
        _ => {}
    }
    let minted = origin.as_ref().map(|origin| mint(origin, is_https)).transpose()?;
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let token = token.or_else(|| minted.as_ref().and_then(|minted| minted.token.clone()));
    let tls =
        Arc::new(tls(args.ca.as_deref(), origin.as_ref(), is_https || file_names_tls(&asked))?);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("no threads to probe with")?;
    let report = runtime.block_on(probe(args, asked, file, minted, token, tls))?;
    runtime.shutdown_timeout(Duration::from_millis(100));
    if args.json {
        out::json(&report)?;
    } else {
        out::plain(&report.table())?;
    }
    if report.ok { Ok(()) } else { Err(Failure::Told(EXIT_NO)) }
}

fn usage(text: &str) -> Failure {
    Failure::Usage(text.to_owned())
}

fn origin(args: &ProbeArgs) -> Result<Option<Origin>, Failure> {
    if args.dev || args.config.is_some() {
        return Ok(Some(KeyArgs::new(args.config.clone(), args.state.clone()).origin()?));
    }
    Ok(None)
}

fn asked(
    args: &ProbeArgs,
    file: Option<&IceServer>,
    origin: Option<&Origin>,
) -> Result<Asked, Failure> {
    let read =
        |text: &str| TurnUrl::parse(text).map_err(|why| Failure::Usage(format!("{text}: {why}")));
    let Some(text) = &args.url else {
        let urls = match (origin, file) {
            (Some(origin), _) => origin.urls()?,
            (None, Some(file)) => file.urls.clone(),
            (None, None) => return Err(usage("probe needs a URL, or --config or --dev")),
        };
        let urls: Result<Vec<_>, _> = urls.iter().map(|url| read(url)).collect();
        return Ok(Asked::Turn(urls?));
    };
    if !text.to_ascii_lowercase().starts_with("http") {
        return Ok(Asked::Turn(vec![read(text)?]));
    }
    let url = Url::parse(text).map_err(|why| Failure::Usage(format!("not a URL: {why}")))?;
    if url.scheme() != "https" {
        return Err(usage("a gateway is asked over https: only"));
    }
    // The user info could be a secret: it is not repeated here.
    if !url.username().is_empty() || url.password().is_some() || url.host().is_none() {
        return Err(usage("the URL must be https://HOST[:PORT]"));
    }
    Ok(Asked::Https(url))
}

fn file_names_tls(asked: &Asked) -> bool {
    let Asked::Turn(urls) = asked else { return true };
    urls.iter().any(|url| url.transport == target::Transport::Tls)
}

fn mint(origin: &Origin, with_token: bool) -> Result<Minted, Failure> {
    let (keys, now) = (origin.turn_keys()?, unix_now());
    let one = |class| -> Result<Credential, Failure> {
        let request = Mint { subject: SUBJECT, room: None, class, ttl: LIFE, session_limit: LIFE };
        let minted = keys
            .mint(now, &request, dev::random()?)
            .map_err(|error| Failure::No(anyhow!("{error}")))?;
        Ok(Credential { username: minted.username, password: minted.credential })
    };
    let token = if with_token {
        let request = TokenRequest {
            subject: Some(SUBJECT.to_owned()),
            publish: Vec::new(),
            play: vec!["probe/probe".to_owned()],
            ttl: LIFE,
            ..TokenRequest::default()
        };
        let id = dev::hex(&dev::random::<16>()?);
        let minted = origin.token_keys()?.mint(now, &request, &id);
        Some(minted.map_err(|error| Failure::No(anyhow!("{error}")))?)
    } else {
        None
    };
    let (probe, forwarder) = (one(Class::Probe)?, one(Class::Forwarder)?);
    Ok(Minted { probe, forwarder, token, media: origin.media() })
}

pub(super) fn read_token(path: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let token = text.trim();
    let sound = |byte: u8| byte.is_ascii_graphic();
    if token.is_empty() || token.len() > LARGEST_TOKEN || !token.bytes().all(sound) {
        return Err(anyhow!("{} does not hold a token", path.display()));
    }
    Ok(token.to_owned())
}

/// Trusts the given authorities, else the development gateway's, else the system's.
pub(super) fn tls(
    ca: Option<&Path>,
    origin: Option<&Origin>,
    needed: bool,
) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let note = match origin {
        Some(Origin::Development(folder)) => dev::read_gateway(folder).ok().map(|note| note.ca),
        _ => None,
    };
    if let Some(path) = ca.or(note.as_deref()) {
        let unusable = || format!("{} cannot be used as --ca", path.display());
        for certificate in CertificateDer::pem_file_iter(path).with_context(unusable)? {
            roots.add(certificate.with_context(unusable)?).with_context(unusable)?;
        }
        if roots.is_empty() {
            return Err(anyhow!("it holds no certificate").context(unusable()));
        }
    } else if needed {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

async fn probe(
    args: &ProbeArgs,
    asked: Asked,
    file: Option<IceServer>,
    minted: Option<Minted>,
    token: Option<String>,
    tls: Arc<rustls::ClientConfig>,
) -> anyhow::Result<Report> {
    let tell = |text: &str| out::talk(&format!("probe: {text}"));
    let target = args.url.clone().unwrap_or_else(|| "the configured URLs".to_owned());
    let mut checks = Vec::new();
    let (urls, handed) = match asked {
        Asked::Turn(urls) => (urls, None),
        Asked::Https(url) => {
            tell(&format!("{target}: asking for a credential"));
            let token = token.unwrap_or_default();
            let (server, rows) = signalling::ask(&url, &token, &tls, args.timeout).await;
            checks.extend(rows);
            let Some(server) = server else { return Ok(Report::new(target, checks, vec![])) };
            let mut urls = Vec::new();
            for text in &server.urls {
                match TurnUrl::parse(text) {
                    Ok(url) => urls.push(url),
                    // What is no TURN URL at all has failed already.
                    Err(why) if text.starts_with("turn") => {
                        checks.push(Row::fail("url", format!("{text}: {why}")));
                    }
                    Err(_) => {}
                }
            }
            (urls, Some(server.credential))
        }
    };
    let is_probe = file.is_none() && minted.is_some();
    let media = args.media.or_else(|| minted.as_ref().and_then(|minted| minted.media));
    let (own, forwarder) = minted.map_or((None, None), |m| (Some(m.probe), Some(m.forwarder)));
    // The one made to measure with goes before the one handed out to users.
    let credential = file.map(|server| server.credential).or(own).or_else(|| handed.clone());
    let credential = credential.ok_or_else(|| anyhow!("there is no credential to probe with"))?;
    let forwarder = handed.filter(|handed| *handed != credential).or(forwarder);
    let mut options = Options {
        credential,
        forwarder,
        is_probe,
        media,
        echoes: args.echoes,
        seconds: args.seconds,
        bits_per_second: args.mbit * 1_000_000,
        patience: args.timeout,
        tls,
        series: u64::from_be_bytes(dev::random::<8>()?),
    };
    let mut paths = Vec::new();
    for route in routes(&urls, args.timeout, &mut checks).await {
        // Payloads of one path must not pass for another's.
        options.series = options.series.wrapping_add(4);
        paths.push(path::probe(&route, &options, &tell).await);
    }
    Ok(Report::new(target, checks, paths))
}

async fn routes(urls: &[TurnUrl], patience: Duration, checks: &mut Vec<Row>) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for url in urls {
        match target::routes(url, patience).await {
            Ok(found) => {
                for route in found {
                    let same = |known: &Route| {
                        known.server == route.server && known.url.transport == route.url.transport
                    };
                    if !routes.iter().any(same) {
                        routes.push(route);
                    }
                }
            }
            Err(why) => {
                let told = format!("{} cannot be resolved ({why}): is it in the DNS?", url.host);
                checks.push(Row::fail("name", told));
            }
        }
    }
    routes
}
