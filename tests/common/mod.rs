//! The real binary in a network of its own: two namespaces joined by a cable, the gateway in one,
//! its clients in the other. What runs here is what an operator runs; nothing is mocked.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

pub mod bridge;
pub mod configured;
pub mod expect;
pub mod link;
pub mod tool;
pub mod watch;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

/// The gateway's public address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
/// The gateway's address on a network without IPv4.
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x78, 0, 0, 0, 0, 1);
/// A name of the gateway; the hosts file of the browsers' mount namespace knows it.
pub const HOST: &str = "gateway.veilgate.test";
/// Another address of the gateway's machine: nobody may reach it through the relay.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
/// Where clients live.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 3);
/// The one UDP port.
pub const UDP_PORT: u16 = 3478;
/// HTTPS.
pub const HTTPS_PORT: u16 = 8443;
/// `/metrics`, on loopback.
pub const METRICS_PORT: u16 = 9641;
/// The forwarder's address in every SDP; bound by nobody.
pub const MEDIA_PORT: u16 = 20_000;

const START_TRIES: usize = 400;
const TRY_EVERY: Duration = Duration::from_millis(50);
const HTTP_PATIENCE: Duration = Duration::from_secs(5);

static COUNT: AtomicUsize = AtomicUsize::new(0);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Browsers need both cores: calls of one test file take turns.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fails with the command that helps when a tool is missing.
pub fn need(program: &str, package: &str) {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        let folders = std::env::split_paths(&path).collect::<Vec<_>>();
        folders.iter().any(|folder| folder.join(program).is_file())
    });
    assert!(
        found,
        "{program} is missing. Run: scripts/setup test   (or: apt-get install -y {package})"
    );
}

fn need_root() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let effective = uid.and_then(|ids| ids.split_whitespace().nth(1));
    assert_eq!(
        effective,
        Some("0"),
        "this test makes network namespaces and so must run as root: sudo -E make test"
    );
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("ip runs");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {problem}", args.join(" "));
}

fn wait_for_carrier(namespace: &str, link: &str) {
    let (_open, never) = channel::<()>();
    for _ in 0..START_TRIES {
        let args = ["-n", namespace, "-o", "link", "show", link];
        let output = Command::new("ip").args(args).output().expect("ip runs");
        if String::from_utf8_lossy(&output.stdout).contains("state UP") {
            return;
        }
        let _ = never.recv_timeout(TRY_EVERY);
    }
    panic!("{link} did not come up in {namespace}");
}

/// Two namespaces and the cable between them; gone when dropped, with every process inside.
#[derive(Debug)]
pub struct Network {
    gateway: String,
    clients: String,
    /// The gateway's first address.
    pub host: String,
}

impl Network {
    fn new() -> Self {
        let net = |ip: Ipv4Addr| format!("{ip}/24");
        let network = Self::with(&[&net(GATEWAY), &net(OTHER)], &[&net(CLIENT)]);
        // Firefox asks the routing table which address is its default one.
        let via = GATEWAY.to_string();
        ip(&["-n", &network.clients, "route", "add", "default", "via", &via]);
        network
    }

    /// With addresses of one's own choice, `ip/prefix` of either family: the gateway's, the clients'.
    pub fn with(gateway: &[&str], clients: &[&str]) -> Self {
        need_root();
        need("ip", "iproute2");
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |side: char| format!("vg-{}-{n}{side}", std::process::id());
        let host = gateway[0].split('/').next().expect("an address").to_owned();
        let network = Self { gateway: name('g'), clients: name('c'), host };
        let (g, c) = (network.gateway.as_str(), network.clients.as_str());
        for namespace in [g, c] {
            ip(&["netns", "add", namespace]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        ip(&["-n", g, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", c]);
        for (namespace, link, addresses) in [(g, "v0", gateway), (c, "v1", clients)] {
            // No link-local address: its duplicate detection would delay the first packets.
            ip(&["-n", namespace, "link", "set", link, "addrgenmode", "none"]);
            for &address in addresses {
                let mut add = vec!["-n", namespace, "address", "add", address, "dev", link];
                add.extend(address.contains(':').then_some("nodad"));
                ip(&add);
            }
            ip(&["-n", namespace, "link", "set", link, "up"]);
        }
        // The kernel says up to a second later that the cable is plugged in, and libnice passes over
        // a link of which it has not: `state UP`, not the flag.
        for (namespace, link) in [(g, "v0"), (c, "v1")] {
            wait_for_carrier(namespace, link);
        }
        network
    }

    /// Runs `ip` on the gateway's side.
    pub fn ip_gateway(&self, args: &[&str]) {
        ip(&[&["-n", &self.gateway], args].concat());
    }

    /// Runs `ip` on the clients' side.
    pub fn ip_clients(&self, args: &[&str]) {
        ip(&[&["-n", &self.clients], args].concat());
    }

    /// Runs `work` on a thread inside the clients' namespace.
    pub fn as_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.clients, work)
    }

    /// Runs `work` on a thread inside the gateway's namespace.
    pub fn as_gateway<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.gateway, work)
    }
}

/// Sockets and children made by `work` belong to the namespace: both inherit the thread's.
fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = fs::File::open(Path::new("/run/netns").join(namespace)).expect("namespace is there");
    let joined = thread::scope(|scope| {
        let there = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter its namespace");
            work()
        });
        there.join()
    });
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.clients, &self.gateway] {
            remove(namespace);
        }
    }
}

/// Whatever is left inside was started by this test: a browser whose driver died.
fn remove(namespace: &str) {
    let pids = Command::new("ip").args(["netns", "pids", namespace]).output();
    let pids = pids.map(|output| output.stdout).unwrap_or_default();
    let pids = String::from_utf8_lossy(&pids).into_owned();
    for pid in pids.split_whitespace() {
        let _ = Command::new("kill").args(["-9", pid]).stderr(Stdio::null()).status();
    }
    let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
}

/// A running `veilgate serve --dev`.
#[derive(Debug)]
pub struct Gateway {
    process: Child,
    log: Arc<Mutex<String>>,
    folder: tempfile::TempDir,
    /// Where it lives. Declared last: the process ends before its network.
    pub network: Network,
}

/// The arguments of a gateway in the test network.
pub fn serve_arguments(folder: &Path, shards: usize) -> Vec<String> {
    let path = |name: &str| folder.join(name).to_str().expect("utf-8").to_owned();
    [
        "serve",
        "--dev",
        "--public-ip",
        &GATEWAY.to_string(),
        "--udp",
        &format!("{GATEWAY}:{UDP_PORT}"),
        "--https",
        &format!("{GATEWAY}:{HTTPS_PORT}"),
        "--metrics",
        &format!("127.0.0.1:{METRICS_PORT}"),
        "--shards",
        &shards.to_string(),
        "--state-dir",
        &path("state"),
        "--certs-dir",
        &path("certs"),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The binary under test, blind to the variables of whoever runs the tests.
pub fn veilgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_veilgate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VEILGATE_") {
            command.env_remove(name);
        }
    }
    command
}

impl Gateway {
    /// Starts one and waits until it says it is ready.
    pub fn start(shards: usize) -> Self {
        Self::start_with(shards, &[])
    }

    /// As [`Self::start`], with further arguments.
    pub fn start_with(shards: usize, arguments: &[&str]) -> Self {
        let network = Network::new();
        let folder = tempfile::tempdir().expect("a folder");
        let mut all = serve_arguments(folder.path(), shards);
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let gateway = Self::launch(network, folder, &all);
        gateway.0.wait_until_ready(&gateway.1, true);
        gateway.0
    }

    /// On a network without IPv4, reached by [`HOST`].
    pub fn start_on_ipv6(shards: usize) -> Self {
        let network = Network::with(&[&format!("{GATEWAY6}/64")], &["2001:db8:78::3/64"]);
        network.ip_clients(&["route", "add", "default", "via", &GATEWAY6.to_string()]);
        let folder = tempfile::tempdir().expect("a folder");
        let mut arguments = serve_arguments(folder.path(), shards);
        for (name, value) in [
            ("--udp", format!("[{GATEWAY6}]:{UDP_PORT}")),
            ("--https", format!("[{GATEWAY6}]:{HTTPS_PORT}")),
        ] {
            let at = arguments.iter().position(|argument| argument == name).expect("given");
            arguments[at + 1] = value;
        }
        let at = arguments.iter().position(|argument| argument == "--public-ip").expect("given");
        arguments.drain(at..at + 2);
        arguments.extend(["--public-ip6".to_owned(), GATEWAY6.to_string()]);
        arguments.extend(["--public-host", HOST].map(str::to_owned));
        let (gateway, died) = Self::launch(network, folder, &arguments);
        gateway.wait_until_ready(&died, true);
        gateway
    }

    /// Starts a process; whether it lives.
    fn launch(
        network: Network,
        folder: tempfile::TempDir,
        arguments: &[String],
    ) -> (Self, Receiver<()>) {
        let mut command = veilgate();
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = network.as_gateway(|| command.spawn()).expect("the gateway starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (alive, died) = channel::<()>();
        collect(process.stdout.take().expect("piped"), &log, None);
        // The pipe closes, and the channel with it, when the process ends.
        collect(process.stderr.take().expect("piped"), &log, Some(alive));
        (Self { process, log, folder, network }, died)
    }

    fn wait_until_ready(&self, died: &Receiver<()>, leaves_note: bool) {
        for _ in 0..START_TRIES {
            if self.loopback_get("/readyz").is_some_and(|(status, _)| status == 200)
                && (!leaves_note || self.state_dir().join("gateway.json").exists())
            {
                return;
            }
            match died.recv_timeout(TRY_EVERY) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => panic!("the gateway ended at its start:\n{}", self.log()),
            }
        }
        panic!("the gateway was not ready in 20 s:\n{}", self.log());
    }

    /// Everything it printed.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its secrets and its note.
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// A folder of this test, gone with the gateway.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The note it leaves for the mint commands.
    pub fn note(&self) -> Value {
        let text = fs::read(self.state_dir().join("gateway.json")).expect("the note");
        serde_json::from_slice(&text).expect("json")
    }

    /// The page's URL.
    pub fn page(&self) -> String {
        self.note()["page"].as_str().expect("page").to_owned()
    }

    /// Runs a command of the binary on the same state directory; stdout, trimmed.
    pub fn cli(&self, args: &[&str]) -> String {
        let output = veilgate()
            .args(args)
            .env("VEILGATE_STATE_DIR", self.state_dir())
            .output()
            .expect("runs");
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "veilgate {}: {problem}", args.join(" "));
        String::from_utf8(output.stdout).expect("utf-8").trim().to_owned()
    }

    /// A token that may publish and play everything in the room `lobby`.
    pub fn token(&self) -> String {
        let args = ["token", "mint", "--publish", "lobby/*", "--play", "lobby/*", "--ttl", "1h"];
        self.cli(&args)
    }

    /// A minted TURN credential: user name and password.
    pub fn turn_credential(&self) -> (String, String) {
        let text = self.cli(&["turn", "mint", "--subject", "tester", "--ttl", "10m", "--json"]);
        let server: Value = serde_json::from_str(&text).expect("json");
        let field = |name: &str| server[name].as_str().expect("a text").to_owned();
        (field("username"), field("credential"))
    }

    /// `GET` on the loopback listener: status and body, `None` when nobody listens.
    pub fn loopback_get(&self, path: &str) -> Option<(u16, String)> {
        let text = self.network.as_gateway(|| get(path)).ok()?;
        let status = text.split_whitespace().nth(1)?.parse().ok()?;
        let (_, body) = text.split_once("\r\n\r\n")?;
        Some((status, body.to_owned()))
    }

    /// What `/metrics` says now.
    pub fn metrics(&self) -> Metrics {
        let (status, body) = self.loopback_get("/metrics").expect("metrics are served");
        assert_eq!(status, 200, "{body}");
        Metrics::parse(&body)
    }

    /// Shards publish their counters once a second: asks until `enough`, for ten of those.
    pub fn metrics_when(&self, what: &str, enough: impl Fn(&Metrics) -> bool) -> Metrics {
        let (_open, never) = channel::<()>();
        for _ in 0..200 {
            let metrics = self.metrics();
            if enough(&metrics) {
                return metrics;
            }
            let _ = never.recv_timeout(TRY_EVERY);
        }
        let (_, text) = self.loopback_get("/metrics").expect("metrics are served");
        panic!("the metrics never showed that {what}:\n{text}");
    }

    /// `curl` from the clients' side, trusting the development authority and nothing else.
    pub fn curl(&self, args: &[&str]) -> Output {
        need("curl", "curl");
        let ca = self.note()["ca"].as_str().expect("ca").to_owned();
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "--cacert", &ca]).args(args);
        self.network.as_client(|| command.output()).expect("curl runs")
    }

    /// Status, headers and body of a request made with [`Gateway::curl`].
    pub fn https(&self, path: &str, args: &[&str]) -> (u16, String, String) {
        let url = format!("{}{}", self.page().trim_end_matches('/'), path);
        let output = self.curl(&[&["-i", "--http1.1", &url], args].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let problem = String::from_utf8_lossy(&output.stderr);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| {
            panic!("no answer from {url}: {problem}{text}");
        });
        let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        (status.expect("a status"), head.to_ascii_lowercase(), body.to_owned())
    }

    /// One line of `ss` for every socket of the gateway's machine: `-unlp` or `-tnlp`.
    pub fn sockets(&self, flags: &str) -> Vec<String> {
        need("ss", "iproute2");
        let mut command = Command::new("ss");
        command.args([flags, "-H"]);
        let output = self.network.as_gateway(|| command.output()).expect("ss runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("utf-8");
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("--- what the gateway printed ---\n{}", self.log());
        }
    }
}

/// Reads a pipe to its end, so that nobody ever blocks on it; `held` is dropped there.
fn collect(
    mut pipe: impl std::io::Read + Send + 'static,
    into: &Arc<Mutex<String>>,
    held: Option<std::sync::mpsc::Sender<()>>,
) {
    let into = Arc::clone(into);
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = pipe.read(&mut piece) {
            let text = String::from_utf8_lossy(&piece[..n]);
            into.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        }
        drop(held);
    });
}

fn get(path: &str) -> std::io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT));
    let mut stream = TcpStream::connect_timeout(&address, HTTP_PATIENCE)?;
    stream.set_read_timeout(Some(HTTP_PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Samples of the Prometheus text format.
#[derive(Clone, Debug)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self(samples.collect())
    }

    /// The sum of all series of `name` that carry every one of `labels` (`key="value"`).
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let ours = self.0.iter().filter(|(series, _)| {
            let (family, rest) = series.split_once('{').unwrap_or((series.as_str(), ""));
            family == name && labels.iter().all(|label| rest.contains(label))
        });
        ours.map(|(_, value)| value).sum()
    }

    /// Whether the family is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.0.keys().any(|series| series.split('{').next() == Some(name))
    }

    /// All series, `name{labels}`.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
