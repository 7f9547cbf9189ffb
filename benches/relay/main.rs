//! coturn and veilgate side by side: what an allocation, a stranger and a relayed packet cost.
//!
//! `make bench-relay`, as root. Both servers run in one run, in turns, each alone on the first core
//! of this process, the load on the second; on the loopback of a network namespace of its own. The
//! load is the same for both. Prints a table, writes nothing. What the numbers mean is in
//! `docs/performance.md`.
#![allow(unreachable_pub, reason = "modules of one program")]
#![allow(clippy::print_stdout, reason = "a table is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod clients;
mod fan;
mod hairpin;
mod measure;
mod server;

use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use veilgate::engine::sys::affinity;
use veilgate::wire::stun::{Builder, Method, attr};

use clients::{Ask, Client, allocate, ask, challenge, release};
use fan::Fan;
use hairpin::{CLIENTS, TRAFFIC, Traffic};
use measure::{Sample, measured, median};
use server::{Kind, Server};

const INSIDE: &str = "VEILGATE_BENCH_INSIDE";
/// Allocations of one round.
const ALLOCATIONS: usize = 5_000;
/// Idle allocations that memory is divided by. coturn takes a port and a descriptor for each.
const IDLE: [(Kind, usize); 2] = [(Kind::Coturn, 15_000), (Kind::Veilgate, 50_000)];
/// Strangers: sockets times addresses. coturn keeps kilobytes of each.
const STRANGERS: [(Kind, usize, usize); 2] =
    [(Kind::Coturn, 1, 20_000), (Kind::Veilgate, 4, 50_000)];
/// Before anything is divided: pools and buffers are there once.
const WARM: usize = 256;

/// coturn and veilgate side by side.
#[derive(Parser)]
struct Options {
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Rounds that count; one more is discarded before.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Requests under way at a time.
    #[arg(long, default_value_t = 256)]
    window: usize,
    /// Only these parts.
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Allocations,
    Memory,
    Strangers,
    Hairpin,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = if std::env::var_os(INSIDE).is_some() { run(&options) } else { enter() };
    outcome.unwrap_or_else(|error| {
        eprintln!("bench-relay: {error:#}");
        ExitCode::FAILURE
    })
}

/// Again, in a network of its own: nobody else's ports, and nobody is in the way.
fn enter() -> anyhow::Result<ExitCode> {
    let own = std::fs::metadata("/proc/self")?;
    ensure!(own.uid() == 0, "it makes a network namespace, so: sudo -E make bench-relay");
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .status()
        .context("unshare (util-linux) does not start")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into())
}

/// A stand with two cores.
struct Bench {
    server_core: usize,
    rounds: usize,
    window: usize,
    quiet: bool,
}

fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let cores = affinity::cores();
    let [server_core, load_core, ..] = cores.as_slice() else {
        bail!("two cores are needed: one for the server, one for the load");
    };
    affinity::pin(*load_core)?;
    ensure!(
        Command::new("turnserver").arg("--version").output().is_ok(),
        "turnserver is missing. Run: apt-get install -y coturn"
    );
    let bench = Bench {
        server_core: *server_core,
        rounds: options.rounds.max(1),
        window: options.window.max(1),
        quiet: options.json,
    };
    let wants = |part| options.part.is_empty() || options.part.contains(&part);
    let mut report = json!({ "machine": machine()?, "rounds": bench.rounds });
    if !options.json {
        println!("{}", report["machine"].as_str().unwrap_or_default());
        println!("medians of {} rounds, in turns, the first discarded\n", bench.rounds);
    }
    if wants(Part::Allocations) {
        report["allocations"] = bench.allocations()?;
    }
    if wants(Part::Memory) {
        report["memory"] = bench.memory()?;
    }
    if wants(Part::Strangers) {
        report["strangers"] = bench.strangers()?;
    }
    if wants(Part::Hairpin) {
        report["hairpin"] = bench.hairpin()?;
    }
    if options.json {
        println!("{report:#}");
    }
    Ok(ExitCode::SUCCESS)
}

fn machine() -> anyhow::Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown CPU");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let version = Command::new("turnserver").arg("--version").output()?.stdout;
    let version = String::from_utf8_lossy(&version);
    Ok(format!(
        "veilgate {} and coturn {}; {model}, Linux {}",
        env!("CARGO_PKG_VERSION"),
        version.trim().lines().next().unwrap_or("?"),
        kernel.trim()
    ))
}

/// Whose names the clients of a lane have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Rest,
    Sealed,
    Room,
}

impl Names {
    const fn label(self) -> &'static str {
        match self {
            Self::Rest => "TURN REST",
            Self::Sealed => "its own",
            Self::Room => "its own, room",
        }
    }
}

const LANES: [(Kind, Names); 3] =
    [(Kind::Coturn, Names::Rest), (Kind::Veilgate, Names::Rest), (Kind::Veilgate, Names::Sealed)];

fn clients(server: &Server, names: Names, count: usize) -> anyhow::Result<Vec<Client>> {
    let client = |user| {
        let (username, password) = match names {
            Names::Rest => server.rest(user),
            Names::Sealed => server.sealed(user, None)?,
            Names::Room => server.sealed(user, Some("bench"))?,
        };
        Client::new(username, &password)
    };
    (0..count).map(client).collect()
}

impl Bench {
    fn start(&self, kind: Kind) -> anyhow::Result<Server> {
        // A thread, so that only what it starts gets that core.
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| {
                affinity::pin(self.server_core)?;
                Server::start(kind)
            });
            starting.join().map_err(|_| anyhow::anyhow!("starting {} panicked", kind.name()))?
        })
    }

    fn fan(&self, kind: Kind) -> std::io::Result<Fan> {
        Fan::new(kind.address(), self.window)
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            println!("{line}");
        }
    }

    fn allocations(&self) -> anyhow::Result<Value> {
        let mut servers = Vec::new();
        for kind in Kind::BOTH {
            servers.push(self.start(kind)?);
        }
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); LANES.len()];
        let mut repeated = 0;
        for round in 0..=self.rounds {
            for (lane, (kind, names)) in LANES.iter().enumerate() {
                let server = &servers[*kind as usize];
                let mut fan = self.fan(*kind)?;
                let mut clients = clients(server, *names, ALLOCATIONS)?;
                let sample = measured(server, || {
                    repeated += ask(&mut fan, &mut clients, 0..ALLOCATIONS, &allocate())?;
                    Ok((ALLOCATIONS, ALLOCATIONS))
                })?;
                ask(&mut fan, &mut clients, 0..ALLOCATIONS, &release())?;
                if round > 0 {
                    samples[lane].push(sample);
                }
            }
        }
        let of = |lane: usize, field: fn(&Sample) -> f64| {
            median(samples[lane].iter().map(field).collect())
        };
        let base = of(0, |s| s.cpu_us);
        self.say("A full allocation (Allocate, 401, Allocate, success)");
        self.say("| server | names | server CPU, us | of coturn's | allocations/s | load's core |");
        self.say("|---|---|--:|--:|--:|--:|");
        let mut rows = Vec::new();
        for (lane, (kind, names)) in LANES.iter().enumerate() {
            let (cpu, rate, load) =
                (of(lane, |s| s.cpu_us), of(lane, |s| s.rate), of(lane, |s| s.load));
            let share = cpu / base;
            self.say(&format!(
                "| {} | {} | {cpu:.1} | {share:.2} | {rate:.0} | {:.0} % |",
                kind.name(),
                names.label(),
                100.0 * load
            ));
            rows.push(json!({ "server": kind.name(), "names": names.label(), "cpu_us": cpu,
                "of_coturn": share, "per_second": rate, "load_core": load }));
        }
        self.say(&format!("requests repeated for want of an answer: {repeated}\n"));
        Ok(rows.into())
    }

    fn memory(&self) -> anyhow::Result<Value> {
        self.say("Idle allocations, resident memory each");
        self.say("| server | names | allocations | bytes | with permission and channel |");
        self.say("|---|---|--:|--:|--:|");
        let mut rows = Vec::new();
        for (kind, names) in LANES {
            let count = IDLE.iter().find(|(k, _)| *k == kind).map_or(0, |(_, count)| *count);
            let server = self.start(kind)?;
            let mut fan = self.fan(kind)?;
            let mut clients = clients(&server, names, WARM + count)?;
            ask(&mut fan, &mut clients, 0..WARM, &allocate())?;
            let before = server.settled()?;
            ask(&mut fan, &mut clients, WARM..WARM + count, &allocate()).with_context(|| {
                format!(
                    "{count} allocations of {}; it may need as many descriptors: ulimit -Hn",
                    kind.name()
                )
            })?;
            let idle = server.settled()?;
            // The forwarder here, anybody there.
            let peer = "127.0.0.1:20000".parse()?;
            let attributes = |builder: &mut Builder<'_>, _| {
                builder.u32(attr::CHANNEL_NUMBER, 0x4000 << 16);
                builder.xor_address(attr::XOR_PEER_ADDRESS, peer);
            };
            let bind = Ask { method: Method::CHANNEL_BIND, attributes: &attributes };
            ask(&mut fan, &mut clients, WARM..WARM + count, &bind)?;
            let bound = server.settled()?;
            let each = |rss: u64| rss.saturating_sub(before) as f64 / count as f64;
            self.say(&format!(
                "| {} | {} | {count} | {:.0} | {:.0} |",
                kind.name(),
                names.label(),
                each(idle),
                each(bound)
            ));
            rows.push(json!({ "server": kind.name(), "names": names.label(),
                "allocations": count, "bytes": each(idle), "bytes_bound": each(bound) }));
        }
        self.say("");
        Ok(rows.into())
    }

    fn strangers(&self) -> anyhow::Result<Value> {
        self.say("Allocate requests without credentials, each from another 5-tuple");
        self.say("| server | sources | answered | growth, KiB | bytes a source |");
        self.say("|---|--:|--:|--:|--:|");
        let mut rows = Vec::new();
        for (kind, sockets, addresses) in STRANGERS {
            let server = self.start(kind)?;
            challenge(&mut self.fan(kind)?, WARM)?;
            let before = server.settled()?;
            let mut answered = 0;
            for _ in 0..sockets {
                answered += challenge(&mut self.fan(kind)?, addresses)?;
            }
            let growth = server.settled()?.saturating_sub(before) as f64;
            let sources = sockets * addresses;
            self.say(&format!(
                "| {} | {sources} | {answered} | {:.0} | {:.1} |",
                kind.name(),
                growth / 1024.0,
                growth / sources as f64
            ));
            rows.push(json!({ "server": kind.name(), "sources": sources, "answered": answered,
                "growth_bytes": growth }));
        }
        self.say("");
        Ok(rows.into())
    }

    fn hairpin(&self) -> anyhow::Result<Value> {
        let lanes = [(Kind::Coturn, Names::Rest), (Kind::Veilgate, Names::Room)];
        let mut stands = Vec::new();
        for (kind, names) in lanes {
            let server = self.start(kind)?;
            let mut fan = self.fan(kind)?;
            let mut clients = clients(&server, names, CLIENTS)?;
            ask(&mut fan, &mut clients, 0..CLIENTS, &allocate())?;
            hairpin::pair(&mut fan, &mut clients)?;
            stands.push((server, fan));
        }
        let mut samples = vec![vec![Vec::new(); TRAFFIC.len()]; lanes.len()];
        for round in 0..=self.rounds {
            for (cell, traffic) in TRAFFIC.iter().enumerate() {
                for (lane, (server, fan)) in stands.iter_mut().enumerate() {
                    let sample = hairpin::run(server, fan, *traffic)?;
                    if round > 0 {
                        samples[lane][cell].push(sample);
                    }
                    // What an overloaded server still has in its buffers is not the next one's.
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        self.say(&format!("Hairpin: {CLIENTS} clients in pairs, through channels"));
        self.say("| bytes | in a row | offered/s | server | CPU us a delivered packet | delivered/s | lost | server's core | load's core |");
        self.say("|--:|--:|--:|---|--:|--:|--:|--:|--:|");
        let mut rows = Vec::new();
        for (cell, Traffic { size, train, rate }) in TRAFFIC.iter().enumerate() {
            for (lane, (kind, _)) in lanes.iter().enumerate() {
                let of = |field: fn(&Sample) -> f64| {
                    median(samples[lane][cell].iter().map(field).collect())
                };
                let (cpu, delivered) = (of(|s| s.cpu_us), of(|s| s.rate));
                let (busy, load, lost) = (of(|s| s.busy), of(|s| s.load), of(|s| s.lost));
                self.say(&format!(
                    "| {size} | {train} | {rate} | {} | {cpu:.1} | {delivered:.0} | {:.0} % | {:.0} % | {:.0} % |",
                    kind.name(),
                    100.0 * lost,
                    100.0 * busy,
                    100.0 * load
                ));
                rows.push(json!({ "bytes": size, "train": train, "offered_per_second": rate,
                    "server": kind.name(), "cpu_us": cpu, "delivered_per_second": delivered,
                    "lost": lost, "server_core": busy, "load_core": load }));
            }
        }
        Ok(rows.into())
    }
}
