//! The composition root: build, start, ready, drain, stop.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use rand::SeedableRng;
use rand::rngs::StdRng;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::dev::DevInfo;
use super::doorstep::Doorstep;
use super::gateway::Gateway;
use super::listener;
use super::nonces;
use crate::auth::token::{TokenKeys, TokenRequest};
use crate::auth::turn::Keys;
use crate::cli::{ServePlan, print};
use crate::config::{self, Config, Format};
use crate::control::revocation::Revocations;
use crate::control::rooms::{self, Rooms};
use crate::control::store::Store;
use crate::control::{self, Control, Principal};
use crate::engine::{self, Engine};
use crate::http;
use crate::metrics::{Exposition, LogFormat, RoomMetrics, Signalling, init_log};
use crate::relay;
use crate::session::dtls;

/// A DTLS certificate serves sessions agreed within this; then another is made, so that no
/// fingerprint links a client's sessions for long.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How often the addresses of this machine are looked at.
const ADDRESSES_EVERY: Duration = Duration::from_secs(5);
/// Requests under way at the signal to stop have this long.
const DRAIN: Duration = Duration::from_secs(3);
/// Connections the kernel keeps for us while we accept others.
const BACKLOG: i32 = 1_024;
/// Threads of the control plane: it waits more than it works.
const CONTROL_THREADS: usize = 2;

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// What keeps the gateway from starting, in words for its operator.
pub fn run(plan: ServePlan) -> anyhow::Result<()> {
    let ServePlan { config, secrets, dev, rng_seed } = plan;
    let format = match config.log.format {
        Format::Text => LogFormat::Text,
        Format::Json => LogFormat::Json,
    };
    // Libraries may log what we would not: offers, tokens, addresses.
    init_log(&format!("warn,veilgate={}", config.log.level.as_str()), format)?;
    let turn_keys = Keys::new(secrets.turn_keys)?
        .accept_plain_names(config.auth.plain_rest)
        .accept_static_users(secrets.users)
        .others_are_external(config.relay.external.as_ref().is_some_and(|it| it.names));
    let turn_keys = Arc::new(turn_keys);
    let token_keys = Arc::new(TokenKeys::new(secrets.token_keys)?);
    let store = Store::open(&config.store.path)?;
    let tls = http::tls::server_config(&read(&config.tls.certificate)?, &read(&config.tls.key)?)
        .with_context(|| format!("{}", config.tls.certificate.display()))?;
    let mut rng = rng_seed.map_or_else(StdRng::from_os_rng, StdRng::seed_from_u64);

    let ip6 = config.public.ip6;
    let mut media = vec![(config.public.ip, config.media.port).into()];
    media.extend(ip6.map(|ip6| SocketAddr::from((ip6, config.media.port))));
    let shards = config.shards.count(engine::cores());
    let own = config.relay.external.as_ref().map(|_| own_addresses(&config)).transpose();
    let own = own.context("the addresses of this machine cannot be listed")?;
    let relay = relay::Config {
        realm: config.relay.realm.clone(),
        media: media.clone(),
        relayed_ip: config.public.ip.into(),
        relayed_ip6: ip6,
        external: config.relay.external.as_ref().zip(own).map(|(external, own)| relay::External {
            bound_ip: external.ip.unwrap_or(config.public.ip).into(),
            ip6: external.ip6.or(ip6),
            ports: external.ports.clone(),
            allow: external.allow.clone(),
            allow_private: external.allow_private.clone(),
            own,
        }),
        excluded_ports: (config.listen.udp.iter().chain(&config.listen.https))
            .map(SocketAddr::port)
            .collect(),
        limits: limits(&config.relay.limits, u32::try_from(shards)?),
        shards: u16::try_from(shards)?,
        shared: relay::Shared::default(),
    };
    let data_plane = engine::Config { udp: config.listen.udp.clone(), shards, relay };
    let started = Engine::start(&data_plane, &turn_keys, &mut rng);
    let (engine, events) = started.map_err(|error| match error {
        engine::StartError::External { .. } => anyhow!(error).context(
            "relay.external.ip (or public.ip, where that is left out) and ip6 must be addresses of \
             this machine",
        ),
        error => error.into(),
    })?;

    let revocations = Revocations::start(store, Arc::clone(&turn_keys), engine.handle())?;

    let control = Control::new(
        control::Config {
            media: media.clone(),
            urls: config.relay.urls.clone(),
            credential_ttl: config.auth.credential_ttl,
            session_limit: config.auth.session_limit,
            external: config.relay.external.is_some(),
            max_sessions: engine::parked::MAX_SESSIONS,
        },
        turn_keys,
        engine.handle(),
        Arc::new(certificate()?),
        rng,
    );
    let exposition = Exposition::new(engine.handle().published())?;
    let signalling = Signalling::new()?;
    signalling.register(&exposition)?;
    let room_metrics = RoomMetrics::new()?;
    room_metrics.register(&exposition)?;
    let rooms = Rooms::new(Arc::new(control.clone()), rooms::MAX_PARTICIPANTS, Some(room_metrics));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    let ready = Arc::new(AtomicBool::new(false));
    let served = runtime.block_on(async {
        tokio::spawn({
            let control = control.clone();
            async move { control.run(events).await }
        });
        tokio::spawn(rotate(control.clone()));
        tokio::spawn({
            let (rooms, control, events) =
                (rooms.clone(), control.clone(), control.stream_events());
            async move { rooms.run(events, || control.now()).await }
        });
        tokio::spawn(nonces::rotate(engine.handle(), nonces::PERIOD, super::dev::random));
        if config.relay.external.is_some() {
            tokio::spawn(watch_addresses(config.clone(), engine.handle()));
        }
        tokio::spawn(revocations.clone().run());
        let mut https = Vec::new();
        for address in &config.listen.https {
            https.push(bind(*address, "HTTPS")?);
        }
        let loopback = bind(config.listen.metrics, "metrics")?;
        let gateway = Gateway::new(
            control.clone(),
            rooms.clone(),
            revocations,
            exposition,
            Arc::clone(&ready),
        );
        let (stop, stopping) = watch::channel(false);
        let slots = Arc::new(Semaphore::new(listener::CONNECTIONS as usize));
        // A browser would apply HSTS for `localhost` to every other port there as well.
        let hsts = if dev.is_some() { Duration::ZERO } else { http::Config::default().hsts };
        let http = http::Config {
            hsts,
            metrics: Some(signalling.clone()),
            admin: secrets.admin,
            ..http::Config::default()
        };
        let router = http::router(gateway.clone(), Arc::clone(&token_keys), http);
        let serve = move |stream| {
            let mut stopping = stopping.clone();
            let stop = async move {
                // An error means that the sender is gone: the process ends.
                let _gone = stopping.wait_for(|stop| *stop).await;
            };
            http::server::serve_connection(stream, router.clone(), stop)
        };
        let entrance = listener::Entrance {
            tls: TlsAcceptor::from(Arc::new(tls)),
            slots: Arc::clone(&slots),
            engine: engine.handle(),
            proxies: config.listen.proxy_from.into(),
            doorstep: Doorstep::new(config.listen.connections_per_source),
            metrics: signalling,
        };
        let accepting: Vec<_> = (0..)
            .zip(https)
            .map(|(place, https)| {
                tokio::spawn(listener::accept(https, place, entrance.clone(), serve.clone()))
            })
            .collect();
        let local = http::server::local_router(gateway);
        tokio::spawn(async move {
            if let Err(error) = http::server::serve_local(loopback, local).await {
                tracing::error!(%error, "metrics are not served");
            }
        });
        ready.store(true, Ordering::Release);
        tracing::info!(
            udp = ?config.listen.udp,
            https = ?config.listen.https,
            metrics = %config.listen.metrics,
            ?media,
            shards,
            "veilgate is ready"
        );
        if let Some(dev) = &dev {
            dev.announce().context("the state directory cannot be written")?;
            welcome(dev, &control, &token_keys)?;
        }
        stopped(&engine).await?;
        ready.store(false, Ordering::Release);
        tracing::info!("stopping");
        // Nothing new is begun here; there is no other node to name. A busy shard ends as well.
        let _told = engine.handle().drain(Some(relay::Alternate::default()));
        accepting.iter().for_each(tokio::task::JoinHandle::abort);
        let _nobody_connected = stop.send(true);
        rooms.stop();
        // Every slot is free when the last request is answered.
        let _late = tokio::time::timeout(DRAIN, slots.acquire_many(listener::CONNECTIONS)).await;
        anyhow::Ok(())
    });
    engine.stop();
    runtime.shutdown_background();
    served
}

/// IPv6 listeners leave IPv4 to others, as the UDP ones do.
fn bind(addr: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    let open = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A restart need not wait for the connections of the process before it.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().with_context(|| format!("{what} cannot listen on TCP {addr}"))
}

/// A shard's share of what the node may.
fn limits(limits: &config::Limits, shards: u32) -> relay::Limits {
    let of_all = |limit: u64| limit.div_ceil(shards.into());
    let packets = limits.total_packets_per_second.map_or(0, |limit| limit.div_ceil(shards));
    relay::Limits {
        allocations: limits.allocations_total.div_ceil(shards),
        allocations_per_subject: limits.allocations_per_subject,
        unauthenticated_replies: limits.unauthenticated_replies_per_second,
        permissions_per_allocation: limits.permissions_per_allocation,
        channels_per_allocation: limits.channels_per_allocation,
        allocation_rate: relay::Rate {
            packets: limits.packets_per_second,
            bits: limits.bits_per_second.into(),
        },
        total_rate: relay::Rate { packets, bits: limits.total_bits_per_second.map_or(0, of_all) },
        ..relay::Limits::default()
    }
}

/// Tells the data plane of addresses that this machine gets, such as IPv6's temporary ones.
async fn watch_addresses(config: Config, engine: engine::Handle) {
    let mut tick = tokio::time::interval(ADDRESSES_EVERY);
    let mut told: Arc<[IpAddr]> = Arc::default();
    loop {
        tick.tick().await;
        let own: Arc<[IpAddr]> = match own_addresses(&config) {
            Ok(own) => own.into(),
            // Not "none": whoever takes all descriptors would open a way to this machine.
            Err(error) => {
                tracing::error!(%error, "the addresses of this machine cannot be listed");
                continue;
            }
        };
        if own != told && engine.set_own_addresses(&own) {
            told = own;
        }
    }
}

/// Addresses under which something of this machine can be reached.
fn own_addresses(config: &Config) -> io::Result<Vec<IpAddr>> {
    let listen = &config.listen;
    let bound = listen.udp.iter().chain(&listen.https).chain([&listen.metrics]).map(SocketAddr::ip);
    let public = [Some(config.public.ip.into()), config.public.ip6.map(IpAddr::V6)];
    let bound = bound.chain(public.into_iter().flatten());
    let mut own = super::dev::interface_addresses()?;
    own.extend(bound.filter(|ip| !ip.is_unspecified()));
    own.sort_unstable();
    own.dedup();
    Ok(own)
}

/// Until a signal asks us to stop, or a shard has died.
async fn stopped(engine: &Engine) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut alive = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = alive.tick() => if !engine.is_alive() {
                return Err(anyhow!("a data-plane thread ended; see the log above"));
            },
        }
    }
}

async fn rotate(control: Control) {
    let mut tick = tokio::time::interval(CERTIFICATE_LIFE);
    tick.tick().await;
    loop {
        tick.tick().await;
        match certificate() {
            Ok(fresh) => control.rotate_certificate(Arc::new(fresh)),
            Err(error) => tracing::error!(%error, "no new DTLS certificate; the old one stays"),
        }
    }
}

/// An ECDSA P-256 certificate for DTLS. Its name says nothing: peers check the fingerprint.
fn certificate() -> anyhow::Result<dtls::Context> {
    let made = rcgen::generate_simple_self_signed(["WebRTC".to_owned()])?;
    let key = made.signing_key.serialize_pem();
    Ok(dtls::Context::new(made.cert.pem().as_bytes(), &key)?)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// Tells a developer what to open, with everything it takes.
fn welcome(dev: &DevInfo, control: &Control, tokens: &TokenKeys) -> anyhow::Result<()> {
    const SUBJECT: &str = "demo";
    const TTL: Duration = Duration::from_secs(12 * 3600);
    let request = TokenRequest {
        subject: Some(SUBJECT.to_owned()),
        publish: vec!["lobby/*".to_owned()],
        play: vec!["lobby/*".to_owned()],
        chat: true,
        data: true,
        admin: false,
        ttl: TTL,
    };
    let jti = super::dev::hex(&super::dev::random::<16>()?);
    let token = tokens.mint(control.now().unix, &request, &jti)?;
    let who = Principal { subject: SUBJECT.to_owned(), room: Some("lobby".to_owned()), jti };
    let ice = control.ice_config(&who).map_err(|refusal| anyhow!("{refusal:?}"))?;
    let page = &dev.gateway.page;
    let text = format!(
        "\n\
         veilgate is running. Open in a browser (the certificate is signed by {ca}):\n\
         \n  {page}#stream=lobby/cam1&token={token}\n\
         \nA sealed call of two, encrypted from browser to browser: open this in both:\n\
         \n  {page}#sealed=lobby&token={token}\n\
         \nA token for lobby/*, good for 12 hours:\n  {token}\n\
         \nA TURN credential, good for {minutes} minutes:\
         \n  urls        {urls}\n  username    {username}\n  credential  {credential}\n\n",
        ca = dev.gateway.ca.display(),
        minutes = ice.ttl / 60,
        urls = ice.urls.join(" "),
        username = ice.username,
        credential = ice.credential,
    );
    // A reader that went away does not stop a gateway.
    let _closed = print(&text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_what_the_node_may_and_no_total_is_no_bound() {
        let whole = config::Limits {
            allocations_total: 10,
            total_packets_per_second: Some(9),
            total_bits_per_second: Some(5_000_000_001),
            unauthenticated_replies_per_second: 7,
            ..config::Limits::default()
        };
        let share = limits(&whole, 4);
        assert_eq!(share.allocations, 3);
        assert_eq!(share.total_rate, relay::Rate { packets: 3, bits: 1_250_000_001 });
        assert_eq!(share.allocation_rate, relay::Rate { packets: 20_000, bits: 200_000_000 });
        assert_eq!((share.unauthenticated_replies, share.allocations_per_subject), (7, 32));
        let free = limits(&config::Limits::default(), 4);
        assert_eq!(free.total_rate, relay::Rate::UNLIMITED);
    }
}
