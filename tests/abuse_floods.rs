//! Floods of the abuse checklist (T2, T3, T14, T21) against the real binary: what they leave behind
//! in its memory, and what they make it send. Spoofed sources come from a raw socket in the
//! clients' namespace, whose way back ends there.

mod common;
mod turn_kit;

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::{CLIENT, GATEWAY, Gateway, HTTPS_PORT, UDP_PORT, alone};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use socket2::{Domain, Protocol, Socket, Type};
use turn_kit::message::{Writer, hex};
use turn_kit::{
    ALLOCATE, Client, LIFETIME, NONCE, PATIENCE, REALM, REFRESH, REQUESTED_TRANSPORT, Transport,
    UDP, USERNAME, tcp,
};

/// What a flood may leave behind.
const GROWTH: u64 = 1024 * 1024;
const FLOOD: usize = 100_000;
/// The first of a kind touch pages that stay.
const WARM: usize = 10_000;
/// A legitimate client is served in between: it also keeps the flood from overtaking the gateway,
/// so that what is counted was looked at and not lost on the way.
const AT_ONCE: usize = 200;

/// Resident memory of a process, bytes.
fn rss(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

/// Fails unless a flood leaves less than [`GROWTH`] behind. The allocator gives pages back in its
/// own time, and the kernel now and then lays a huge page (2 MiB) under what was there before: so
/// one of three floods has to leave nothing. What leaks, leaks each time.
fn leaves_nothing(gateway: &Gateway, what: &str, mut flood: impl FnMut()) {
    let (_open, never) = channel::<()>();
    let mut growth = Vec::new();
    for _ in 0..3 {
        let before = rss(gateway);
        flood();
        for _ in 0..30 {
            if rss(gateway) < before + GROWTH {
                return;
            }
            let _ = never.recv_timeout(Duration::from_millis(100));
        }
        growth.push(rss(gateway).saturating_sub(before));
    }
    panic!("{what} left {growth:?} bytes behind");
}

/// Packets and bytes that have reached the clients' side.
fn received(gateway: &Gateway) -> (u64, u64) {
    let table = gateway.network.as_client(|| fs::read_to_string("/proc/thread-self/net/dev"));
    let table = table.expect("procfs");
    let line = table.lines().find_map(|line| line.trim().strip_prefix("v1:")).expect("the cable");
    let mut numbers = line.split_whitespace().map(|n| n.parse::<u64>().expect("a number"));
    let bytes = numbers.next().expect("bytes");
    (numbers.next().expect("packets"), bytes)
}

/// Sends datagrams under any source address.
struct Spoofer {
    socket: Socket,
    rng: StdRng,
}

impl Spoofer {
    fn new(gateway: &Gateway) -> Self {
        let mut command = Command::new("ip");
        command.args(["route", "add", "default", "via", &CLIENT.to_string()]);
        let status = gateway.network.as_gateway(|| command.status()).expect("ip runs");
        assert!(status.success());
        let socket = gateway.network.as_client(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))?;
            socket.set_header_included_v4(true)?;
            io::Result::Ok(socket)
        });
        Self { socket: socket.expect("root may spoof"), rng: StdRng::seed_from_u64(1) }
    }

    /// Somebody on the Internet.
    fn anybody(&mut self) -> Ipv4Addr {
        let [_, b, c, d] = self.rng.random::<[u8; 4]>();
        Ipv4Addr::new(self.rng.random_range(20..200) | 1, b, c, d)
    }

    fn send(&mut self, source: Ipv4Addr, payload: &[u8]) {
        let total = u16::try_from(28 + payload.len()).expect("short");
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        // Identification, fragments, lifetime, UDP; the kernel adds the checksum.
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        packet.extend(source.octets());
        packet.extend(GATEWAY.octets());
        packet.extend(self.rng.random_range(1024..=u16::MAX).to_be_bytes());
        packet.extend(UDP_PORT.to_be_bytes());
        packet.extend((total - 20).to_be_bytes());
        packet.extend([0, 0]);
        packet.extend(payload);
        let there = SocketAddr::from((GATEWAY, 0)).into();
        assert_eq!(self.socket.send_to(&packet, &there).expect("sent"), packet.len());
    }
}

/// The kinds of strangers' messages: name, bytes for a number, whether they are answered.
type Kind = (&'static str, fn(usize) -> Vec<u8>, bool);

const KINDS: [Kind; 5] = [
    ("challenges", |_| hex("000300082112a442000102030405060708090a0b0019000411000000"), true),
    (
        "stale nonces",
        |n| {
            Writer::new(ALLOCATE, [1; 12])
                .attribute(REQUESTED_TRANSPORT, &UDP)
                .attribute(USERNAME, format!("user{n}").as_bytes())
                .attribute(REALM, b"veilgate")
                .attribute(NONCE, b"obMatJos2gAAAabcdefghijklmno")
                .integrity(b"nobody's key")
                .done()
        },
        true,
    ),
    (
        "bad requests",
        |_| Writer::new(REFRESH, [2; 12]).attribute(LIFETIME, &[0; 4]).integrity(b"none").done(),
        true,
    ),
    ("bindings", |_| hex("000100002112a442000102030405060708090a0b"), false),
    ("noise", |n| vec![(n % 256) as u8; 1 + n % 900], false),
];

#[test]
fn hundred_thousand_strangers_leave_nothing_behind() {
    let _turn = alone();
    let gateway = Gateway::start(1);
    let mut spoofer = Spoofer::new(&gateway);
    let mut client = Client::allocated(&gateway, Transport::Udp);
    for (what, bytes, answered) in KINDS {
        let mut flood = |count: usize, client: &mut Client| {
            let (packets, size) = received(&gateway);
            let mut own = 0;
            for n in 0..count {
                let source = spoofer.anybody();
                spoofer.send(source, &bytes(n));
                if n % AT_ONCE == 0 {
                    assert!(client.settle() > 0, "who has an allocation is served throughout");
                    own += 1;
                }
            }
            client.settle();
            own += 1;
            let now = received(&gateway);
            (now.0 - packets - own, now.1 - size)
        };
        flood(WARM, &mut client);
        let (mut answers, mut bytes) = (0, 0);
        leaves_nothing(&gateway, what, || (answers, bytes) = flood(FLOOD, &mut client));
        // A source has no more than its answer each, and no answer is larger than a challenge.
        let most = if answered { FLOOD as u64 } else { 0 };
        // Neighbour discovery is on the cable as well.
        assert!(answers <= most + 20, "{answers} answers to {FLOOD} {what}");
        assert!(
            !answered || answers > most / 2,
            "{answers} answers: the flood was lost on the way"
        );
        assert!(bytes <= (answers + 1_000) * 200, "{bytes} bytes for {answers} answers to {what}");
    }
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("veilgate_relay_allocations_created_total", &[]), 1.0);
}

#[test]
fn spoofed_victim_is_sent_no_more_than_its_cap() {
    let _turn = alone();
    let gateway = Gateway::start(1);
    let mut spoofer = Spoofer::new(&gateway);
    let mut client = Client::allocated(&gateway, Transport::Udp);
    for (at, (what, bytes, _)) in KINDS.into_iter().filter(|(.., answered)| *answered).enumerate() {
        let victim = Ipv4Addr::new(198, 51, 100, at as u8);
        let (before, _) = received(&gateway);
        #[allow(clippy::disallowed_methods, reason = "the cap is by the second of a real clock")]
        let start = Instant::now();
        let mut own = 0;
        for n in 0..FLOOD / 2 {
            spoofer.send(victim, &bytes(n));
            if n % AT_ONCE == 0 {
                client.settle();
                own += 1;
            }
        }
        client.settle();
        let seconds = start.elapsed().as_secs() + 2;
        let answers = received(&gateway).0 - before - own - 1;
        // 256 a second, and one in eight of the rest: half as much again for chance.
        let most = 256 * seconds + (FLOOD as u64 / 2) * 3 / 16;
        eprintln!("{what}: {answers} answers in {seconds} s");
        assert!(answers <= most, "{answers} answers to {} {what}", FLOOD / 2);
        assert!(answers >= 256, "nor is a carrier muted");
    }
    let capped = gateway.metrics_when("the cap was at work", |m| {
        m.sum("veilgate_relay_dropped_total", &["reason=\"reply_cap\""]) > FLOOD as f64
    });
    assert_eq!(capped.sum("veilgate_relay_allocations", &[]), 1.0);
}

#[test]
fn hundred_thousand_names_make_no_series_and_no_memory() {
    let _turn = alone();
    let gateway = Gateway::start(1);
    let mut steady = Client::allocated(&gateway, Transport::Udp);
    let mut liar = Client::new(&gateway, Transport::Udp);
    liar.challenge();
    let mut flood = |count: usize| {
        for n in 0..count {
            liar.username = format!("{}:user-{n}@example.org", 1_800_000_000 + n);
            let request =
                liar.sign(Writer::new(ALLOCATE, liar.id()).attribute(REQUESTED_TRANSPORT, &UDP));
            liar.send(&request.done());
            if n % AT_ONCE == 0 {
                steady.settle();
                while liar.receive(Duration::from_millis(1)).is_some() {}
            }
        }
        steady.settle();
    };
    let series = |gateway: &Gateway| gateway.metrics().series().count();
    flood(WARM);
    let had = series(&gateway);
    leaves_nothing(&gateway, "names", || flood(FLOOD));
    let malformed = gateway.metrics_when("all were seen", |m| {
        m.sum("veilgate_relay_auth_failures_total", &["reason=\"malformed\""])
            >= (FLOOD + WARM) as f64
    });
    assert_eq!(series(&gateway), had, "a name is no label");
    assert!(!malformed.series().any(|series| series.contains("user-")));
}

#[test]
fn half_done_tls_handshakes_are_bounded_and_their_memory_comes_back() {
    const AT_A_TIME: usize = 1_000;
    let _turn = alone();
    let gateway = Gateway::start(1);
    let mut hello = hex("16030102000100 01fc0303");
    hello.resize(300, 0x42);
    let half = || -> Vec<_> {
        (0..AT_A_TIME)
            .map(|_| {
                let mut stream = tcp(&gateway);
                stream.write_all(&hello).expect("sent");
                stream
            })
            .collect()
    };
    let settled = |held: Vec<_>| {
        drop(held);
        // It is served last, so all that came before were looked at.
        Client::allocated(&gateway, Transport::Tls);
    };
    Client::allocated(&gateway, Transport::Tls);
    let idle = rss(&gateway);
    let held = half();
    // In the middle of it others are served,
    Client::allocated(&gateway, Transport::Tls);
    let each = rss(&gateway).saturating_sub(idle) / AT_A_TIME as u64;
    eprintln!("{each} bytes for a half-done handshake");
    assert!(each < 48 * 1024, "{each} bytes for a half-done handshake");
    settled(held);
    // and the gateway itself ends what does not go on.
    leaves_nothing(&gateway, "half-done handshakes", || {
        for mut stream in half() {
            let end = stream.read(&mut [0; 64]);
            let waiting = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
            assert!(!end.is_err_and(|e| waiting.contains(&e.kind())), "it is still open");
        }
    });
}

#[test]
fn one_source_cannot_take_all_connections() {
    const EACH: usize = 1_024;
    let _turn = alone();
    let gateway = Gateway::start(1);
    let mut held: Vec<_> = (0..EACH + 100).map(|_| tcp(&gateway)).collect();
    for stream in &mut held[EACH..] {
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)), "one too many is closed");
    }
    gateway.metrics_when("they were counted", |m| {
        m.sum("veilgate_http_connections_total", &["kind=\"crowd\""]) == 100.0
    });
    // From the gateway's own machine, which is another source.
    let there = SocketAddr::from((GATEWAY, HTTPS_PORT));
    let stream = gateway.network.as_gateway(|| TcpStream::connect(there)).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("socket option");
    let (username, password) = gateway.turn_credential();
    let mut other = Client::over(stream, &gateway, Transport::Tcp, &username, &password);
    other.allocate();
    drop(held);
    gateway.metrics_when("they are gone", |m| {
        m.sum("veilgate_http_connections_total", &["kind=\"silent\""]) >= EACH as f64
    });
    Client::allocated(&gateway, Transport::Tls);
}

#[test]
fn whoever_asks_and_never_reads_holds_a_bounded_buffer() {
    let _turn = alone();
    let gateway = Gateway::start(1);
    let request = hex("000300082112a442000102030405060708090a0b0019000411000000");
    let hundred = request.repeat(100);
    let flood = |rounds: usize| {
        let mut stream = tcp(&gateway);
        for _ in 0..rounds {
            stream.write_all(&hundred).expect("the gateway goes on reading");
        }
        stream
    };
    let rounds = FLOOD / 100;
    let dropped = |gateway: &Gateway, floods: usize| {
        gateway.metrics_when("all was read, and answers were dropped", |m| {
            m.sum("veilgate_engine_stream_dropped_total", &["reason=\"unread\""]) > 0.0
                && m.sum("veilgate_engine_stream_messages_total", &["direction=\"in\""])
                    >= (floods * FLOOD) as f64
        });
    };
    let warm = flood(rounds);
    dropped(&gateway, 1);
    drop(warm);
    Client::allocated(&gateway, Transport::Tcp);
    let mut floods = 1;
    let mut held = Vec::new();
    leaves_nothing(&gateway, "a client that does not read", || {
        held.push(flood(rounds));
        floods += 1;
        dropped(&gateway, floods);
    });
}

#[test]
fn allocations_that_come_and_go_leave_nothing_behind() {
    let _turn = alone();
    let gateway = Gateway::start(1);
    let mut client = Client::allocated(&gateway, Transport::Udp);
    let mut churn = |count: usize| {
        for _ in 0..count {
            let closed = client.ask(REFRESH, |w| w.attribute(LIFETIME, &[0; 4]));
            assert_eq!(closed.code(), 0);
            let again = client.ask(ALLOCATE, |w| w.attribute(REQUESTED_TRANSPORT, &UDP));
            assert_eq!(again.code(), 0, "no quota leaks");
        }
    };
    churn(3_000);
    leaves_nothing(&gateway, "allocations that come and go", || churn(10_000));
}
