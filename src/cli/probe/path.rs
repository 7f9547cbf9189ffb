//! One path: one transport to one address, and all that should hold over it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use stun::message::{
    METHOD_ALLOCATE, METHOD_BINDING, METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_REFRESH,
};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn;

use super::abuse::{self, BINDING, Ground};
use super::measure;
use super::report::{PathReport, Row};
use super::stream::Framed;
use super::tap::{Answer, Attribute, Tap, Trouble};
use super::target::{Credential, Route, Transport};
use crate::auth::turn::echo_address;
use crate::config::DEFAULT_MEDIA_PORT;

/// A challenge that is larger is worth reflecting.
const LARGEST_CHALLENGE: usize = 100;
/// Echoes lost beyond this share make a call bad.
const MOST_LOSS: f64 = 0.1;

/// What all paths are probed with.
pub(super) struct Options {
    pub(super) credential: Credential,
    /// A credential that must not reach the echo; only who mints has one.
    pub(super) forwarder: Option<Credential>,
    /// The credential is known to be of the probe class: the echo must answer.
    pub(super) is_probe: bool,
    pub(super) media: Option<SocketAddr>,
    pub(super) echoes: u32,
    pub(super) seconds: Duration,
    pub(super) bits_per_second: u64,
    pub(super) patience: Duration,
    pub(super) tls: Arc<rustls::ClientConfig>,
    /// Tells payloads of this run from others.
    pub(super) series: u64,
}

/// A transport to a server.
pub(in crate::cli) type Link = Arc<dyn Conn + Send + Sync>;

/// Probes it; never fails, but says what does.
pub(super) async fn probe(
    route: &Route,
    options: &Options,
    tell: &(dyn Fn(&str) + Sync),
) -> PathReport {
    let mut report = PathReport {
        url: route.url.text.clone(),
        transport: route.url.transport,
        family: route.family(),
        server: route.server.to_string(),
        checks: Vec::new(),
        rtt: None,
        throughput: None,
    };
    tell(&format!("{route}: connecting"));
    match connect(route, options.patience, &options.tls).await {
        Ok(link) => over(link, route, options, tell, &mut report).await,
        Err(row) => report.checks.push(row),
    }
    report
}

/// Opens the route's transport; else what is in the way, and what to do.
pub(in crate::cli) async fn connect(
    route: &Route,
    patience: Duration,
    tls: &Arc<rustls::ClientConfig>,
) -> Result<Link, Row> {
    let server = route.server;
    let transport = route.url.transport;
    let unreachable = |error: &std::io::Error| unreachable(route, error);
    if transport == Transport::Udp {
        let any: SocketAddr = if server.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        };
        let socket = UdpSocket::bind(any).await.map_err(|e| unreachable(&e))?;
        // So that the host's "nobody listens" arrives, and nobody else's datagrams do.
        socket.connect(server).await.map_err(|e| unreachable(&e))?;
        return Ok(Arc::new(socket));
    }
    let silent = || Row::fail("reachable", no_answer(route, patience));
    let connecting = timeout(patience, TcpStream::connect(server)).await;
    let stream = connecting.map_err(|_| silent())?.map_err(|e| unreachable(&e))?;
    stream.set_nodelay(true).map_err(|e| unreachable(&e))?;
    let local = stream.local_addr().map_err(|e| unreachable(&e))?;
    if transport == Transport::Tcp {
        return Ok(Arc::new(Framed::new(stream, local, server)));
    }
    let name = ServerName::try_from(route.url.host.clone())
        .map_err(|_| Row::fail("tls", "the host of the URL is not a name TLS can ask for"))?;
    let connector = TlsConnector::from(Arc::clone(tls));
    let shaken = timeout(patience, connector.connect(name, stream)).await;
    let stream = shaken.map_err(|_| silent())?.map_err(|error| {
        Row::fail("tls", format!("{error}: for a private authority give --ca FILE"))
    })?;
    Ok(Arc::new(Framed::new(stream, local, server)))
}

fn unreachable(route: &Route, error: &std::io::Error) -> Row {
    use std::io::ErrorKind::{AddrNotAvailable, NetworkUnreachable};
    // EADDRNOTAVAIL and EAFNOSUPPORT (no kind of its own): no IPv6 here at all.
    let no_ipv6 = matches!(error.kind(), NetworkUnreachable | AddrNotAvailable)
        || error.raw_os_error() == Some(libc::EAFNOSUPPORT);
    if route.server.is_ipv6() && no_ipv6 {
        return Row::skip("reachable", "this machine has no way to IPv6: probe from one that has");
    }
    let what = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => nobody(route),
        _ => format!("not reachable: {error}"),
    };
    Row::fail("reachable", what)
}

fn protocol(route: &Route) -> &'static str {
    if route.url.transport == Transport::Udp { "UDP" } else { "TCP" }
}

pub(in crate::cli) fn nobody(route: &Route) -> String {
    let (protocol, port) = (protocol(route), route.server.port());
    format!(
        "not reachable: nobody listens on {protocol} {port}: start it there, or hand out other URLs"
    )
}

pub(in crate::cli) fn no_answer(route: &Route, patience: Duration) -> String {
    let (protocol, port) = (protocol(route), route.server.port());
    format!(
        "not reachable: no answer within {patience:?}: open {protocol} {port} in the firewalls \
         between here and there"
    )
}

async fn over(
    link: Link,
    route: &Route,
    options: &Options,
    tell: &(dyn Fn(&str) + Sync),
    report: &mut PathReport,
) {
    let datagrams = route.url.transport == Transport::Udp;
    let tap = Arc::new(Tap::new(link, route.server, datagrams));
    let Credential { username, password } = options.credential.clone();
    let client = Client::new(ClientConfig {
        stun_serv_addr: String::new(),
        turn_serv_addr: route.server.to_string(),
        username,
        password,
        realm: String::new(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::clone(&tap) as Link,
        vnet: None,
    });
    let client = match client.await {
        Ok(client) => client,
        Err(error) => return report.checks.push(Row::fail("reachable", error.to_string())),
    };
    // It begins a task, and has nothing to fail at.
    let _listening = client.listen().await;
    with_client(&client, &tap, route, options, tell, report).await;
    let _closed = client.close().await;
    let _closed = tap.close().await;
}

async fn with_client(
    client: &Client,
    tap: &Arc<Tap>,
    route: &Route,
    options: &Options,
    tell: &(dyn Fn(&str) + Sync),
    report: &mut PathReport,
) {
    let patience = options.patience;
    let began = Instant::now();
    let udp = [Attribute::udp()];
    let answer = tap.ask(METHOD_ALLOCATE, &udp, None, patience).await;
    let trip = began.elapsed();
    // Long enough for an answer that should not come.
    let quiet = (trip * 4).max(Duration::from_millis(300)).min(patience);
    let row = challenge(answer, tap, route, patience);
    let challenged = tap.challenged();
    report.checks.push(row);
    if answer == Answer::Silence {
        return;
    }
    tell(&format!("{route}: without and with a forged credential"));
    report.checks.push(unsigned(tap, quiet).await);
    if !challenged {
        return;
    }
    report.checks.push(forged(tap, &options.credential, patience).await);

    tell(&format!("{route}: allocating"));
    let allocating = timeout(patience * 2, client.allocate()).await;
    let relayed = match allocating {
        Ok(Ok(relayed)) => relayed,
        refused => {
            report.checks.push(match refused {
                Ok(Err(error)) => not_allocated(&error.to_string()),
                _ => Row::fail(
                    "allocation",
                    "no answer to the signed request: is the path lossy, is the gateway full?",
                ),
            });
            for check in ["forwarder", "echo", "rtt", "throughput", "refuse"] {
                report.checks.push(Row::skip(check, "not tried: there is no allocation"));
            }
            return;
        }
    };
    let Ok(address) = relayed.local_addr() else { return };
    report.checks.push(Row::ok("allocation", format!("relayed address {address}")));

    let media = SocketAddr::new(address.ip(), DEFAULT_MEDIA_PORT);
    let media = options.media.unwrap_or(media);
    let echo = echo_address(media);
    tap.expect_only(echo);
    report.checks.push(forwarder(tap, &options.credential, media, patience, quiet).await);
    match echo {
        Some(echo) => echoes(&relayed, tap, echo, route, options, tell, report).await,
        None => report.checks.push(Row::skip("echo", "beside port 65535 there is no port for it")),
    }

    tell(&format!("{route}: what must be refused"));
    let credential = Arc::new(options.credential.clone());
    let ground = Ground { media, echo, relayed: address, server: route.server };
    report.checks.extend(abuse::check(tap, &credential, &ground, patience, quiet).await);

    let media = [Attribute::Peer(media)];
    let alive =
        tap.ask(METHOD_CREATE_PERMISSION, &media, Some(&options.credential), patience).await;
    report.checks.push(match alive {
        Answer::Silence => Row::fail("afterwards", "no answer any more: look at the gateway's log"),
        _ => Row::ok("afterwards", "still answers"),
    });
    // Its Refresh with a lifetime of 0 is not answered to anybody.
    let _released = timeout(patience, relayed.close()).await;
    if let (Some(forwarder), Some(echo)) = (&options.forwarder, echo) {
        report.checks.push(echo_is_closed(route, options, forwarder, echo).await);
    }
}

fn challenge(answer: Answer, tap: &Tap, route: &Route, patience: Duration) -> Row {
    const CHECK: &str = "challenge";
    match answer {
        Answer::Refused(401, len) if !tap.challenged() => {
            Row::fail(CHECK, format!("401 in {len} bytes, but without REALM and NONCE"))
        }
        Answer::Refused(401, len) if len > LARGEST_CHALLENGE => {
            let told = format!(
                "401 in {len} bytes: more than {LARGEST_CHALLENGE} is worth reflecting; shorten \
                 the realm, send no SOFTWARE"
            );
            Row::fail(CHECK, told)
        }
        Answer::Refused(401, len) => Row::ok(CHECK, format!("401 in {len} bytes")),
        Answer::Refused(300, _) => {
            Row::fail(CHECK, "300: the server sends us elsewhere; is it draining? Probe the other")
        }
        Answer::Refused(code, _) => Row::fail(CHECK, format!("{code}, where 401 is due")),
        Answer::Granted(_) => {
            Row::fail(CHECK, "an allocation without a credential: this is an open relay, stop it")
        }
        Answer::Silence => Row::fail(
            "reachable",
            match tap.trouble() {
                Some(Trouble::NobodyListens) => nobody(route),
                Some(Trouble::Other(why)) if route.url.transport == Transport::Udp => {
                    format!("not reachable: {why}")
                }
                None if route.url.transport == Transport::Udp => no_answer(route, patience),
                _ => format!(
                    "port {} takes the connection, but no TURN is spoken there: serve it there, \
                     or hand out other URLs",
                    route.server.port()
                ),
            },
        ),
    }
}

/// What comes without a credential: nothing, or a small refusal.
async fn unsigned(tap: &Tap, quiet: Duration) -> Row {
    const CHECK: &str = "unsigned";
    let peer = Attribute::Peer(([10, 0, 0, 1], abuse::PORT_OF_NOBODY).into());
    let channel = Attribute::channel(tap.next_channel());
    let only_peer = [peer];
    let both = [channel, Attribute::Peer(([10, 0, 0, 1], abuse::PORT_OF_NOBODY).into())];
    let (bare, refresh, permission, bind, binding) = tokio::join!(
        tap.ask(METHOD_ALLOCATE, &[], None, quiet),
        tap.ask(METHOD_REFRESH, &[], None, quiet),
        tap.ask(METHOD_CREATE_PERMISSION, &only_peer, None, quiet),
        tap.ask(METHOD_CHANNEL_BIND, &both, None, quiet),
        tap.ask(METHOD_BINDING, &[], None, quiet),
    );
    let all = [
        ("a bare Allocate", bare),
        ("Refresh", refresh),
        ("CreatePermission", permission),
        ("ChannelBind", bind),
        ("Binding", binding),
    ];
    for (name, answer) in all {
        // A Binding tells its sender its own address, which may be on; it must be as small.
        if matches!(answer, Answer::Granted(_)) && name != "Binding" {
            return Row::fail(CHECK, format!("{name} succeeds without a credential: stop it"));
        }
        let len = answer.len();
        if len > LARGEST_CHALLENGE {
            return Row::fail(CHECK, format!("{name} is answered with {len} bytes: a reflector"));
        }
    }
    let largest = all.iter().map(|(_, answer)| answer.len()).max().unwrap_or(0);
    Row::ok(CHECK, format!("nothing but refusals; the largest answer has {largest} bytes"))
}

async fn forged(tap: &Tap, genuine: &Credential, patience: Duration) -> Row {
    let username = genuine.username.clone();
    let forged = Credential { username, password: format!("{}x", genuine.password) };
    match tap.ask(METHOD_ALLOCATE, &[Attribute::udp()], Some(&forged), patience).await {
        Answer::Granted(_) => {
            Row::fail("forged", "a wrong password opens an allocation: this is an open relay")
        }
        Answer::Refused(code, _) => Row::ok("forged", format!("a wrong password gets {code}")),
        Answer::Silence => Row::ok("forged", "a wrong password gets no answer"),
    }
}

pub(in crate::cli) fn not_allocated(error: &str) -> Row {
    // The client tells the code in its text only: "… (error 401: …)".
    let code = error.split_once("(error ").and_then(|(_, rest)| rest.get(..3));
    let why = match code {
        Some("401" | "431") => {
            "401: the credential is not valid here: expired, revoked, or of another gateway; mint \
             a fresh one"
        }
        Some("403") => "403: the gateway forbids it to this credential",
        Some("437") => "437: this 5-tuple has an allocation already; try again",
        Some("438") => "438: a fresh nonce is called stale: are clocks or nonce keys apart?",
        Some("486") => "486: the quota of this subject is used up; close other allocations",
        Some("508") => "508: the gateway is full",
        Some(code) => return Row::fail("allocation", format!("refused with {code}")),
        None => "no sound answer to the signed request",
    };
    Row::fail("allocation", why)
}

/// Permission and channel for the media address; an ICE check of no session stays unanswered.
async fn forwarder(
    tap: &Tap,
    credential: &Credential,
    media: SocketAddr,
    patience: Duration,
    quiet: Duration,
) -> Row {
    const CHECK: &str = "forwarder";
    let peer = [Attribute::Peer(media)];
    let permission = tap.ask(METHOD_CREATE_PERMISSION, &peer, Some(credential), patience).await;
    let channel = tap.next_channel();
    let both = [Attribute::channel(channel), Attribute::Peer(media)];
    let bind = tap.ask(METHOD_CHANNEL_BIND, &both, Some(credential), patience).await;
    for (name, answer) in [("CreatePermission", permission), ("ChannelBind", bind)] {
        match answer {
            Answer::Granted(_) => {}
            Answer::Refused(code, _) => {
                let told = format!(
                    "{name} for the media address {media} gets {code}: if that is not the \
                     gateway's, give --media IP:PORT"
                );
                return Row::fail(CHECK, told);
            }
            Answer::Silence => return Row::fail(CHECK, format!("{name} gets no answer")),
        }
    }
    tap.send(media, BINDING).await;
    sleep(quiet).await;
    if tap.heard(media, Some(channel)) {
        let told = "something answers a check of no session at the media address: is it bound?";
        return Row::fail(CHECK, told);
    }
    Row::ok(CHECK, format!("permission and channel for {media}"))
}

async fn echoes(
    relayed: &(dyn Conn + Send + Sync),
    tap: &Tap,
    echo: SocketAddr,
    route: &Route,
    options: &Options,
    tell: &(dyn Fn(&str) + Sync),
    report: &mut PathReport,
) {
    const UNMEASURED: &str = "there is no echo";
    tell(&format!("{route}: measuring"));
    let Options { series, patience, echoes, bits_per_second, seconds, .. } = *options;
    match measure::first_echo(relayed, echo, series, patience).await {
        Ok(Some(_)) => report.checks.push(Row::ok("echo", format!("{echo} sends back"))),
        other => {
            report.checks.push(no_echo(other.err(), tap, echo, options).await);
            report.checks.push(Row::skip("rtt", UNMEASURED));
            report.checks.push(Row::skip("throughput", UNMEASURED));
            return;
        }
    }
    let rtt = measure::round_trips(relayed, echo, series ^ 1, echoes, patience).await;
    let told = format!(
        "p50 {:.2} ms, p99 {:.2} ms, {} of {} lost",
        rtt.p50_us as f64 / 1_000.0,
        rtt.p99_us as f64 / 1_000.0,
        rtt.sent - rtt.received,
        rtt.sent
    );
    report.checks.push(if rtt.loss > MOST_LOSS {
        Row::fail("rtt", format!("{told}: calls break up; look for the lossy hop"))
    } else {
        Row::ok("rtt", told)
    });
    report.rtt = Some(rtt);
    if seconds.is_zero() {
        return report.checks.push(Row::skip("throughput", "not asked for"));
    }
    let load = (bits_per_second, seconds);
    let found = measure::throughput(relayed, echo, series ^ 2, load, patience).await;
    let told = format!(
        "{:.1} of {:.1} Mbit/s came back in {:.1} s, {:.2} % lost",
        found.received_bits_per_second as f64 / 1e6,
        found.sent_bits_per_second as f64 / 1e6,
        found.seconds,
        found.loss * 100.0
    );
    // How much is enough is for the reader to say: only nothing is too little.
    report.checks.push(match found.received {
        0 => Row::fail("throughput", format!("{told}: try a lower --mbit")),
        _ => Row::ok("throughput", told),
    });
    report.throughput = Some(found);
}

async fn no_echo(error: Option<String>, tap: &Tap, echo: SocketAddr, options: &Options) -> Row {
    let both = [Attribute::channel(tap.next_channel()), Attribute::Peer(echo)];
    let bind =
        tap.ask(METHOD_CHANNEL_BIND, &both, Some(&options.credential), options.patience).await;
    match bind {
        Answer::Refused(403, _) if !options.is_probe => Row::skip(
            "echo",
            "not a probe's credential: mint one with `veilgate turn mint --probe`",
        ),
        Answer::Refused(code, _) => Row::fail(
            "echo",
            format!("{code} for a probe's credential at {echo}: is media.port another? --media"),
        ),
        _ => {
            let why = error.unwrap_or_else(|| "nothing comes back".to_owned());
            Row::fail("echo", format!("{why} from {echo}: is this a veilgate gateway?"))
        }
    }
}

/// Another allocation, of a credential for users: the echo is not for it.
async fn echo_is_closed(
    route: &Route,
    options: &Options,
    forwarder: &Credential,
    echo: SocketAddr,
) -> Row {
    const CHECK: &str = "echo-class";
    let link = match connect(route, options.patience, &options.tls).await {
        Ok(link) => link,
        Err(row) => return row,
    };
    let tap = Arc::new(Tap::new(link, route.server, route.url.transport == Transport::Udp));
    let pump = Arc::clone(&tap);
    let pump = tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        while pump.recv_from(&mut buffer).await.is_ok() {}
    });
    let (patience, udp) = (options.patience, [Attribute::udp()]);
    tap.ask(METHOD_ALLOCATE, &udp, None, patience).await;
    let allocated = tap.ask(METHOD_ALLOCATE, &udp, Some(forwarder), patience).await;
    let both = [Attribute::channel(tap.next_channel()), Attribute::Peer(echo)];
    let bind = tap.ask(METHOD_CHANNEL_BIND, &both, Some(forwarder), patience).await;
    let end = [Attribute::Raw(0x000D, vec![0; 4])];
    tap.ask(METHOD_REFRESH, &end, Some(forwarder), patience).await;
    pump.abort();
    let _closed = tap.close().await;
    match (allocated, bind) {
        (Answer::Granted(_), Answer::Granted(_)) => {
            Row::fail(CHECK, "a user's credential reaches the echo: it is for probes only")
        }
        (Answer::Granted(_), Answer::Refused(code, _)) => {
            Row::ok(CHECK, format!("a user's credential gets {code} at the echo"))
        }
        (Answer::Granted(_), Answer::Silence) => Row::ok(CHECK, "a user's credential gets nothing"),
        _ => Row::fail(CHECK, "a user's credential opens no allocation"),
    }
}
