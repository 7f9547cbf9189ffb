//! A bad link: a third namespace whose only way to the gateway leads through `tests/tools/link.py`,
//! which loses, delays, reorders, repeats and queues packets by a seed. The clients' namespace and
//! its cable stay as they are, so that an undisturbed client can be compared.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Network, inside, ip, need, remove};

/// Where the client behind the link lives.
pub const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 3);
/// The gateway's end of the link; the client reaches its public address through it.
pub const END: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);

const UPPER: &str = "vglink";
const LOWER: &str = "vglink";
const PATIENCE: Duration = Duration::from_secs(20);
const PYTHON: &str = "/usr/bin/python3";

static COUNT: AtomicUsize = AtomicUsize::new(0);

/// What a direction does to packets; see `tests/tools/link.py`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Impairment {
    /// Share of packets lost, 0 to 1.
    pub loss: f64,
    /// Share of packets delivered twice, 0 to 1.
    pub duplicate: f64,
    /// Milliseconds every packet takes.
    pub delay_ms: f64,
    /// Milliseconds a packet takes on top, evenly from none to this.
    pub jitter_ms: f64,
    /// Whether packets overtake each other by their jitter.
    pub reorder: bool,
    /// 1,000 bits of IP packets a second; `None` is no limit.
    pub rate_kbps: Option<f64>,
    /// Milliseconds of packets that wait for the rate; `None` is 200.
    pub queue_ms: Option<f64>,
}

/// What happened to the packets of one direction since the link was made.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    pub received: u64,
    pub lost: u64,
    pub queue_dropped: u64,
    pub duplicated: u64,
    pub delivered: u64,
}

/// The link and the namespace behind it; dropped, both are gone.
#[derive(Debug)]
pub struct Link {
    process: Child,
    stdin: RefCell<Option<ChildStdin>>,
    events: Receiver<Value>,
    namespace: String,
}

impl Link {
    /// Between the gateway's namespace and a new one, without a fault as yet.
    pub fn between(network: &Network, seed: u64) -> Self {
        need("python3", "python3");
        assert!(
            Path::new("/dev/net/tun").exists(),
            "the TUN device is missing. Run: mkdir -p /dev/net && mknod /dev/net/tun c 10 200"
        );
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("vg-{}-{n}l", std::process::id());
        ip(&["netns", "add", &namespace]);
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/link.py");
        let mut command = Command::new(PYTHON);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn().expect("python3 starts");
        let stdin = process.stdin.take().expect("piped");
        let stdout = BufReader::new(process.stdout.take().expect("piped"));
        let (sender, events) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let link = Self { process, stdin: RefCell::new(Some(stdin)), events, namespace };
        eprintln!("the seed of the link is {seed}");
        let ready = link.ask(&json!({
            "seed": seed,
            "upper": { "namespace": network.gateway, "device": UPPER },
            "lower": { "namespace": link.namespace, "device": LOWER },
        }));
        assert_eq!(ready, json!({ "event": "ready", "seed": seed }));
        for (inside, device, here, there) in [
            (network.gateway.as_str(), UPPER, END, BEHIND),
            (link.namespace.as_str(), LOWER, BEHIND, END),
        ] {
            let (here, there) = (here.to_string(), there.to_string());
            // Nothing but the test's packets: no router solicitation of IPv6.
            ip(&["-n", inside, "link", "set", device, "addrgenmode", "none"]);
            ip(&["-n", inside, "address", "add", &here, "peer", &there, "dev", device]);
            ip(&["-n", inside, "link", "set", device, "up"]);
        }
        let end = END.to_string();
        ip(&["-n", &link.namespace, "route", "add", "default", "via", &end, "dev", LOWER]);
        link
    }

    /// Applies to what goes to the client behind the link, from now on.
    pub fn down(&self, impairment: Impairment) {
        self.set("down", impairment);
    }

    /// Applies to what comes from the client behind the link, from now on.
    pub fn up(&self, impairment: Impairment) {
        self.set("up", impairment);
    }

    fn set(&self, direction: &str, wanted: Impairment) {
        let answer = self.ask(&json!({
            "set": direction,
            "loss": wanted.loss,
            "duplicate": wanted.duplicate,
            "delay_ms": wanted.delay_ms,
            "jitter_ms": wanted.jitter_ms,
            "reorder": wanted.reorder,
            "rate_kbps": wanted.rate_kbps,
            "queue_ms": wanted.queue_ms.unwrap_or(200.0),
        }));
        assert_eq!(answer["event"], "set", "{answer:#}");
        assert_eq!(answer["direction"], direction, "{answer:#}");
    }

    /// The counters of what goes to the client, and of what comes from it.
    pub fn counters(&self) -> (Counters, Counters) {
        let answer = self.ask(&json!({ "counters": true }));
        let of = |direction: &str| {
            let field = |name: &str| {
                let value = answer[direction][name].as_u64();
                value.unwrap_or_else(|| panic!("no {name} of {direction} in {answer:#}"))
            };
            Counters {
                received: field("received"),
                lost: field("lost"),
                queue_dropped: field("queue_dropped"),
                duplicated: field("duplicated"),
                delivered: field("delivered"),
            }
        };
        (of("down"), of("up"))
    }

    fn ask(&self, order: &Value) -> Value {
        let mut stdin = self.stdin.borrow_mut();
        writeln!(stdin.as_mut().expect("until dropped"), "{order}").expect("link.py listens");
        let answer = self.events.recv_timeout(PATIENCE);
        answer.unwrap_or_else(|error| panic!("link.py did not answer {order} ({error})"))
    }

    /// Runs `work` on a thread inside the namespace behind the link.
    pub fn as_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.namespace, work)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        *self.stdin.get_mut() = None;
        let _ = self.process.kill();
        let _ = self.process.wait();
        remove(&self.namespace);
    }
}
