//! `veilgate bridge`: WHIP and WHEP on loopback for programs that have no TURN client.

mod problem;
mod relay;
mod sdp;
mod server;
mod session;
mod status;
mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};

use super::probe::target::Transport;
use super::{Done, Failure, probe};
use crate::app::dev;
use crate::config::{Fault, duration};
use relay::Paths;
use server::Bridge;
use status::{Event, Status};
use upstream::{Refused, Upstream};

/// Let OBS, ffmpeg and GStreamer, which have no TURN client, publish and play through a gateway
#[derive(Args)]
#[command(
    long_about = "\
Let programs without a TURN client (OBS, ffmpeg, GStreamer) publish and play through a gateway, \
whose relay is the only way to it.

The bridge runs beside them. It offers a plain WHIP and WHEP endpoint on loopback, passes the \
offer to the gateway over HTTPS with the token, without the machine's addresses, and carries the \
session's UDP packets through a TURN allocation. Encryption stays between the program and the \
gateway: the bridge sees only DTLS and SRTP.",
    after_long_help = "\
ENDPOINTS
  http://127.0.0.1:8889/whip/{room}/{stream}   publish
  http://127.0.0.1:8889/whep/{room}/{stream}   play

A request with an Authorization header uses that token, any other the one in --token-file, which is
read anew for each. Who may connect to loopback on this machine may use that token.

EXIT STATUS
  0   stopped by SIGINT or SIGTERM; the gateway was told of every session's end
  1   the gateway cannot be reached, is not trusted or refuses the token; the address is taken
  2   the command line was misused; --listen is not loopback
  78  the token file or --ca cannot be used

EXAMPLES
  veilgate bridge --gateway https://turn.example.org --token-file token
  veilgate bridge --gateway https://turn.example.org --token-file token --transport tls --json
  ffmpeg -re -i in.mp4 -c:v libx264 -profile:v baseline -bf 0 -c:a libopus -ar 48000 -ac 2 \\
      -whip_flags dtls_active -f whip http://127.0.0.1:8889/whip/lobby/cam1"
)]
pub(super) struct BridgeArgs {
    /// The gateway, like https://turn.example.org
    #[arg(long, value_name = "URL", env = "VEILGATE_GATEWAY")]
    gateway: String,

    /// A token that may publish or play; without it, clients must bring their own
    #[arg(long, value_name = "FILE", env = "VEILGATE_TOKEN_FILE")]
    token_file: Option<PathBuf>,

    /// Where to listen: loopback only
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8889", value_parser = loopback)]
    listen: SocketAddr,

    /// Where the sessions' UDP sockets are: loopback, or an address of this machine for programs
    /// that reach nothing on loopback (GStreamer) [default: the IP of --listen]
    #[arg(long, value_name = "IP", value_parser = own_address)]
    media_ip: Option<IpAddr>,

    /// Use this way to the relay alone [default: UDP, else TCP, else TLS]
    #[arg(long, value_name = "WAY")]
    transport: Option<Way>,

    /// Trust these certificate authorities (PEM), and no others [default: those of the system]
    #[arg(long, value_name = "FILE", env = "VEILGATE_CA")]
    ca: Option<PathBuf>,

    /// End a session when its client, or the gateway, says nothing for so long
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = silence)]
    silence: Duration,

    /// Print what happens as lines of JSON; docs/bridge.md has the schema
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Way {
    Udp,
    Tcp,
    Tls,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "it is not like 127.0.0.1:8889".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        // It speaks plain HTTP and lends its token to whoever asks.
        Err("a bridge listens on loopback only (127.0.0.1 or [::1])".to_owned())
    }
}

fn own_address(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| "it is not an IP address".to_owned())?;
    let own = dev::interface_addresses().map_err(|error| error.to_string())?;
    if ip.is_loopback() || own.contains(&ip) {
        Ok(ip)
    } else {
        Err("it is not an address of this machine".to_owned())
    }
}

fn silence(text: &str) -> Result<Duration, String> {
    let span = duration::parse(text)?;
    let allowed = Duration::from_secs(1)..=Duration::from_secs(3600);
    if allowed.contains(&span) { Ok(span) } else { Err("from 1s to 1h".to_owned()) }
}

pub(super) fn run(args: &BridgeArgs) -> Done {
    if let Some(path) = &args.token_file {
        upstream::bearer(path).map_err(|error| unusable("--token-file", &error))?;
    }
    let tls = probe::tls(args.ca.as_deref(), None, true);
    let tls = Arc::new(tls.map_err(|error| unusable("--ca", &error))?);
    let upstream = Upstream::new(&args.gateway, &tls, args.token_file.clone())?;
    let only = args.transport.map(|way| match way {
        Way::Udp => Transport::Udp,
        Way::Tcp => Transport::Tcp,
        Way::Tls => Transport::Tls,
    });
    let paths = Paths { only, tls, last: Mutex::new(None) };
    let status = Status { json: args.json };
    let ip = args.media_ip.unwrap_or_else(|| args.listen.ip());
    let bridge = Bridge::new(upstream, paths, ip, args.silence, status);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("no threads to run with")?;
    let done = runtime.block_on(serve(args.listen, Arc::new(bridge)));
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(done?)
}

fn unusable(flag: &str, error: &anyhow::Error) -> Failure {
    let message = format!("{error:#}");
    let fault = Fault { file: None, line: 0, column: 0, key: flag.to_owned(), message };
    Failure::Config(vec![fault])
}

async fn serve(listen: SocketAddr, bridge: Arc<Bridge>) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(listen);
    let listener = listener.await.with_context(|| format!("cannot listen on {listen}"))?;
    let listen = listener.local_addr()?;
    let socket = UdpSocket::bind((bridge.ip, 0)).await;
    drop(socket.with_context(|| format!("no UDP socket at {}", bridge.ip))?);
    let transport = tokio::select! {
        transport = try_out(&bridge) => transport?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    let endpoint = |kind: &str| format!("http://{listen}/{kind}/{{room}}/{{stream}}");
    bridge.status.tell(&Event::Ready {
        gateway: &bridge.upstream.origin(),
        whip: &endpoint("whip"),
        whep: &endpoint("whep"),
        transport,
    });
    let serving = axum::serve(listener, server::router(Arc::clone(&bridge)));
    tokio::select! {
        served = serving.into_future() => served.context("the local endpoint failed")?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    bridge.stop().await;
    Ok(())
}

/// Better told now than at the first publication: whether the gateway is there and trusted, takes
/// the token and gives an allocation. The way that works is tried first from then on.
async fn try_out(bridge: &Bridge) -> anyhow::Result<Option<Transport>> {
    let told = |problem: problem::Problem| anyhow!("{} ({})", problem.detail, problem.code);
    if !bridge.upstream.has_token() {
        bridge.upstream.reach().await.map_err(told)?;
        return Ok(None);
    }
    let authorization = bridge.upstream.authorization(None).map_err(told)?;
    let server = match bridge.upstream.ice(&authorization).await {
        Ok(server) => server,
        Err(Refused::Problem(problem)) => return Err(told(problem)),
        Err(Refused::Answer(answer)) => {
            let body: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
            let detail = body.as_ref().and_then(|body| body.get("detail")?.as_str());
            let detail = detail.unwrap_or("is this a veilgate?");
            let status = answer.status.as_u16();
            return Err(anyhow!("the gateway refuses the token with {status}: {detail}"));
        }
    };
    let allocation = bridge.paths.allocate(&server).await.map_err(|why| anyhow!("{why}"))?;
    let transport = allocation.transport;
    allocation.close().await;
    Ok(Some(transport))
}
