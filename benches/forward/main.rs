//! What the forwarder costs: resident memory of an idle player, and the time a packet takes
//! through it.
//!
//! `make bench-forward`, as root. The real binary, alone on the first core of this process, on the
//! loopback of a network namespace of its own; publisher and players are in this process, on the
//! second core: TURN, ICE, DTLS and SRTP as a browser does them. Prints a table, writes nothing.
#![allow(unreachable_pub, dead_code, reason = "modules of one program, some of other programs")]
#![allow(clippy::print_stdout, reason = "a table is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

#[path = "../relay/measure.rs"]
mod measure;
#[path = "../../tests/peer/mod.rs"]
mod peer;
#[path = "../relay/server.rs"]
mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use veilgate::engine::sys::affinity;

use peer::{Identity, Peer, Remote, offer, vp8};
use server::{Kind, Server};

const INSIDE: &str = "VEILGATE_BENCH_INSIDE";
const MEDIA: &str = "127.0.0.1:20000";
/// Before anything is divided: pools and buffers are there once.
const WARM: usize = 64;
/// Packets of one latency run, and the time between two.
const PACKETS: u16 = 3_000;
const PAUSE: Duration = Duration::from_millis(2);

/// Memory of idle players, and how long a packet takes.
#[derive(Parser)]
struct Options {
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Idle players that memory is divided by.
    #[arg(long, default_value_t = 2_000)]
    players: usize,
    /// Only these parts.
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Memory,
    Latency,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = if std::env::var_os(INSIDE).is_some() { run(&options) } else { enter() };
    outcome.unwrap_or_else(|error| {
        eprintln!("bench-forward: {error:#}");
        ExitCode::FAILURE
    })
}

/// Again, in a network of its own, with a descriptor for every client.
fn enter() -> anyhow::Result<ExitCode> {
    let own = std::fs::metadata("/proc/self")?;
    ensure!(own.uid() == 0, "it makes a network namespace, so: sudo -E make bench-forward");
    let script = "ip link set lo up && ulimit -n $(ulimit -Hn) && exec \"$0\" \"$@\"";
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", script])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .context("unshare (util-linux) does not start")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into())
}

fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let cores = affinity::cores();
    let [server_core, load_core, ..] = cores.as_slice() else {
        bail!("two cores are needed: one for the server, one for the load");
    };
    let wants = |part| options.part.is_empty() || options.part.contains(&part);
    let mut report = json!({});
    if wants(Part::Memory) {
        report["memory"] = Stand::start(*server_core, *load_core)?.memory(options)?;
    }
    if wants(Part::Latency) {
        let mut rows = Vec::new();
        for players in [1, 20] {
            rows.push(Stand::start(*server_core, *load_core)?.latency(players, options.json)?);
        }
        report["latency"] = rows.into();
    }
    if options.json {
        println!("{report:#}");
    }
    Ok(ExitCode::SUCCESS)
}

/// A server, its signalling, and one identity for all clients.
struct Stand {
    server: Server,
    udp: SocketAddr,
    media: SocketAddr,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
    identity: Identity,
    minted: usize,
}

impl Stand {
    fn start(server_core: usize, load_core: usize) -> anyhow::Result<Self> {
        affinity::pin(server_core)?;
        let server = Server::start(Kind::Veilgate)?;
        affinity::pin(load_core)?;
        Ok(Self {
            server,
            udp: SocketAddr::from(Kind::Veilgate.address()),
            media: MEDIA.parse()?,
            http: reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build()?,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            identity: Identity::new(),
            minted: 0,
        })
    }

    /// A connected publisher (`whip`) or player (`whep`).
    fn client(&mut self, endpoint: &str) -> anyhow::Result<Peer> {
        self.minted += 1;
        let user = self.minted;
        let (direction, ufrag) = match endpoint {
            "whip" => ("sendonly", "pubufrag"),
            _ => ("recvonly", "plyufrag"),
        };
        let sdp = offer(&self.identity, direction, ufrag);
        let token = self.server.token(user)?;
        let post = self
            .http
            .post(format!("https://127.0.0.1:8443/{endpoint}/bench/stream"))
            .header("content-type", "application/sdp")
            .bearer_auth(token)
            .body(sdp);
        let answer = self.runtime.block_on(async {
            let answer = post.send().await?;
            anyhow::Ok((answer.status(), answer.text().await?))
        })?;
        ensure!(answer.0 == 201, "{endpoint}: {} {}", answer.0, answer.1);
        let remote = Remote::from_answer(&answer.1);
        let (username, credential) = self.server.sealed(user, None)?;
        // From a network of its own: the server answers so many strangers of one, and no more.
        let from = Ipv4Addr::new(127, 1 + (user >> 8) as u8, user as u8, 1);
        let peer =
            Peer::try_allocate_from((from, 0).into(), self.udp, self.media, &username, &credential);
        let mut peer = peer.map_err(|code| anyhow!("no allocation: {code}"))?;
        peer.connect(&self.identity, ufrag, &remote);
        Ok(peer)
    }

    fn players(&mut self, count: usize) -> anyhow::Result<Vec<Peer>> {
        (0..count).map(|_| self.client("whep")).collect()
    }

    /// Players that wait for a stream which sends nothing.
    fn memory(mut self, options: &Options) -> anyhow::Result<Value> {
        let _publisher = self.client("whip")?;
        // The server learns of the publisher a moment after the publisher does.
        std::thread::sleep(Duration::from_millis(500));
        let _warm = self.players(WARM)?;
        let before = self.server.settled()?;
        let began = Instant::now();
        let players = self.players(options.players)?;
        let rate = players.len() as f64 / began.elapsed().as_secs_f64();
        let after = self.server.settled()?;
        let each = after.saturating_sub(before) / players.len() as u64;
        if !options.json {
            println!("idle players | resident bytes each | connected a second");
            println!("{:>12} | {each:>19} | {rate:>18.0}\n", players.len());
        }
        Ok(json!({ "players": players.len(), "bytes_each": each, "connected_per_second": rate }))
    }

    /// From a publisher's send to the last player's receive, on one machine.
    fn latency(mut self, players: usize, quiet: bool) -> anyhow::Result<Value> {
        let mut publisher = self.client("whip")?;
        std::thread::sleep(Duration::from_millis(500));
        let mut all = self.players(players)?;
        let mut micros = Vec::with_capacity(usize::from(PACKETS));
        let mut lost = 0;
        for sequence in 1..=PACKETS {
            let packet = vp8(sequence, sequence % 300 == 1);
            let began = Instant::now();
            publisher.send_rtp(&packet);
            let mut last = None;
            for player in &mut all {
                last = None;
                while let Some(packet) = player.recv_media(Duration::from_millis(200)) {
                    if packet[1] & 0x7F == 96 {
                        last = Some(began.elapsed());
                        break;
                    }
                }
            }
            match last {
                Some(took) => micros.push(took.as_secs_f64() * 1e6),
                None => lost += 1,
            }
            std::thread::sleep(PAUSE.saturating_sub(began.elapsed()));
        }
        micros.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (micros.len() as f64 * share) as usize;
            micros.get(place).copied().unwrap_or(f64::NAN)
        };
        let (p50, p99) = (at(0.5), at(0.99));
        if !quiet {
            println!("players | packets | lost | p50 us | p99 us, send to last receive");
            println!("{players:>7} | {:>7} | {lost:>4} | {p50:>6.0} | {p99:>6.0}\n", micros.len());
        }
        Ok(json!({ "players": players, "p50_us": p50, "p99_us": p99, "lost": lost }))
    }
}
