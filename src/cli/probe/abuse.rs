//! What a relay must never lead to: each target as CreatePermission, ChannelBind and Send.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use stun::message::{METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::report::{Answers, Row, State};
use super::tap::{Answer, Attribute, Tap};
use super::target::Credential;

/// Targets asked about at a time.
const AT_ONCE: usize = 8;
/// A port that would mean something at most targets.
const PORT: u16 = 80;
/// A port of no meaning.
pub(super) const PORT_OF_NOBODY: u16 = 9;

const TARGETS: &[(&str, &str)] = &[
    ("127.0.0.1", "loopback"),
    ("127.0.0.8", "loopback"),
    ("127.255.255.254", "loopback"),
    ("0.0.0.0", "this host"),
    ("169.254.169.254", "cloud metadata"),
    ("169.254.1.1", "link-local"),
    ("100.100.100.200", "cloud metadata"),
    ("168.63.129.16", "cloud metadata"),
    ("192.0.0.192", "cloud metadata"),
    ("10.0.0.1", "private"),
    ("172.16.0.1", "private"),
    ("172.17.0.1", "container bridge"),
    ("192.168.0.1", "private"),
    ("100.64.0.1", "carrier NAT"),
    ("100.127.255.255", "carrier NAT"),
    ("192.88.99.1", "6to4 anycast"),
    ("192.0.2.1", "documentation"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("198.18.0.1", "benchmarking"),
    ("224.0.0.1", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("8.8.8.8", "the Internet"),
    ("::1", "loopback"),
    ("::", "this host"),
    ("::ffff:127.0.0.1", "v4-mapped loopback"),
    ("::ffff:169.254.169.254", "v4-mapped metadata"),
    ("::127.0.0.1", "v4-compatible loopback"),
    ("::ffff:0:127.0.0.1", "v4-translated loopback"),
    ("64:ff9b::127.0.0.1", "NAT64 loopback"),
    ("64:ff9b::169.254.169.254", "NAT64 metadata"),
    ("64:ff9b:1::127.0.0.1", "local NAT64 loopback"),
    ("2002:7f00:1::1", "6to4 loopback"),
    ("2001:0:7f00:1::", "Teredo"),
    ("2001:db8::5efe:10.0.0.1", "ISATAP private"),
    ("fe80::1", "link-local"),
    ("fec0::1", "site-local"),
    ("fd00:ec2::254", "cloud metadata"),
    ("ff02::1", "multicast"),
    ("100::1", "discard"),
    ("2001:4860:4860::8888", "the Internet"),
];

/// What a server may keep behind its own address.
const OWN_PORTS: &[(u16, &str)] = &[
    (22, "its SSH"),
    (53, "its DNS"),
    (443, "its HTTPS"),
    (8443, "its HTTPS"),
    (9641, "its metrics"),
];

/// One target and what it is.
struct Target {
    address: SocketAddr,
    /// Told in place of the address where that is the prober's own.
    label: String,
}

/// What is known of the server and of this machine.
pub(super) struct Ground {
    pub(super) media: SocketAddr,
    pub(super) echo: Option<SocketAddr>,
    pub(super) relayed: SocketAddr,
    pub(super) server: SocketAddr,
}

fn targets(ground: &Ground) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut add = |address: SocketAddr, what: &str| {
        let open = address == ground.media || Some(address) == ground.echo;
        if !open && targets.iter().all(|known: &Target| known.address != address) {
            targets.push(Target { address, label: format!("{address} {what}") });
        }
    };
    for (ip, what) in TARGETS {
        if let Ok(ip) = ip.parse::<IpAddr>() {
            add(SocketAddr::new(ip, PORT), what);
        }
    }
    let own = ground.relayed.ip();
    add(SocketAddr::new(own, ground.server.port()), "its own TURN port");
    for (port, what) in OWN_PORTS {
        add(SocketAddr::new(own, *port), what);
    }
    for port in [ground.media.port().wrapping_sub(1), ground.media.port().wrapping_add(2)] {
        add(SocketAddr::new(own, port.max(1)), "beside the media port");
    }
    add(ground.relayed, "our own relayed address");
    if ground.server.ip() != own {
        add(ground.server, "the address it listens on");
    }
    targets
}

/// Asks for each target in each way; a row for each.
pub(super) async fn check(
    tap: &Arc<Tap>,
    credential: &Arc<Credential>,
    ground: &Ground,
    patience: Duration,
    quiet: Duration,
) -> Vec<Row> {
    let mut targets = targets(ground);
    let sentinel = sentinel(tap).await;
    if let Some((_, address)) = &sentinel {
        targets.push(Target { address: *address, label: "this machine (a waiting socket)".into() });
    }
    let mut asked = Vec::with_capacity(targets.len());
    for batch in targets.chunks(AT_ONCE) {
        let mut set = JoinSet::new();
        for (place, target) in batch.iter().enumerate() {
            let (tap, credential) = (Arc::clone(tap), Arc::clone(credential));
            let address = target.address;
            set.spawn(async move { (place, ask(&tap, &credential, address, patience).await) });
        }
        let mut answers = set.join_all().await;
        answers.sort_unstable_by_key(|(place, _)| *place);
        asked.extend(answers.into_iter().map(|(_, answers)| answers));
    }
    // After the questions, so that a permission given wrongly shows.
    for target in &targets {
        let to_server = target.address.port() == ground.server.port();
        tap.send(target.address, if to_server { ALLOCATE } else { BINDING }).await;
    }
    sleep(quiet).await;
    let mut rows = Vec::with_capacity(targets.len());
    for (target, (permission, bind, channel)) in targets.iter().zip(asked) {
        let mut heard = tap.heard(target.address, Some(channel));
        if let Some((socket, address)) = &sentinel
            && *address == target.address
        {
            heard |= socket.try_recv_from(&mut [0; 64]).is_ok();
        }
        // RFC 8656 section 10.2: a permission is for an IP, and the media address has it.
        let shares = target.address.ip() == ground.media.ip();
        rows.push(row(target, permission, bind, heard, shares));
    }
    rows
}

async fn ask(
    tap: &Tap,
    credential: &Credential,
    target: SocketAddr,
    patience: Duration,
) -> (Answer, Answer, u16) {
    let peer = [Attribute::Peer(target)];
    let permission = tap.ask(METHOD_CREATE_PERMISSION, &peer, Some(credential), patience).await;
    let channel = tap.next_channel();
    let both = [Attribute::channel(channel), Attribute::Peer(target)];
    let bind = tap.ask(METHOD_CHANNEL_BIND, &both, Some(credential), patience).await;
    (permission, bind, channel)
}

fn row(target: &Target, permission: Answer, bind: Answer, heard: bool, shares: bool) -> Row {
    let word = |answer: Answer| match answer {
        Answer::Granted(_) => "GRANTED".to_owned(),
        Answer::Refused(code, _) => code.to_string(),
        Answer::Silence => "silent".to_owned(),
    };
    let granted = |answer| matches!(answer, Answer::Granted(_));
    let by_ip = shares && granted(permission);
    let answers = Answers {
        create_permission: if by_ip { "by-ip".to_owned() } else { word(permission) },
        channel_bind: word(bind),
        send: if heard { "ANSWERED" } else { "silent" }.to_owned(),
    };
    let reason = if heard {
        "the relay carried a packet there: stop it, and let it reach its media address only"
    } else if granted(bind) {
        "the relay binds a channel there: forbid this peer"
    } else if granted(permission) && !by_ip {
        "the relay gives permission for it: forbid this peer"
    } else {
        "refused"
    };
    let holds = reason == "refused";
    let state = if holds { State::Ok } else { State::Fail };
    let subject = Some(target.label.clone());
    Row { check: "refuse", subject, state, reason: reason.to_owned(), answers: Some(answers) }
}

/// A socket of ours where the server sees us, which must hear nothing.
async fn sentinel(tap: &Tap) -> Option<(UdpSocket, SocketAddr)> {
    let socket = UdpSocket::bind((tap.local_ip()?, 0)).await.ok()?;
    let port = socket.local_addr().ok()?.port();
    Some((socket, SocketAddr::new(tap.mapped()?.ip(), port)))
}

/// A Binding request: most STUN servers answer.
pub(super) const BINDING: &[u8] =
    &[0x00, 0x01, 0, 0, 0x21, 0x12, 0xa4, 0x42, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2];
/// An Allocate for UDP: every TURN server answers with 401.
const ALLOCATE: &[u8] = &[
    0x00, 0x03, 0, 8, 0x21, 0x12, 0xa4, 0x42, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 3, 0, 0x19, 0, 4,
    17, 0, 0, 0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_and_echo_are_no_targets_and_every_text_is_an_address() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let ground = Ground {
            media: address("127.0.0.1:80"),
            echo: Some(address("127.0.0.1:81")),
            relayed: address("127.0.0.1:40000"),
            server: address("127.0.0.1:3478"),
        };
        let found = targets(&ground);
        assert!(found.iter().all(|t| t.address != ground.media && Some(t.address) != ground.echo));
        assert!(found.iter().any(|t| t.address == address("127.0.0.1:3478")));
        for (ip, _) in TARGETS {
            let _: IpAddr = ip.parse().unwrap();
        }
        assert!(found.len() > TARGETS.len());
    }

    #[test]
    fn anything_granted_or_heard_fails_but_the_permission_of_the_media_ip() {
        let target = Target { address: "10.0.0.1:80".parse().unwrap(), label: "x".to_owned() };
        let (yes, no) = (Answer::Granted(44), Answer::Refused(403, 48));
        let state =
            |permission, bind, heard, shares| row(&target, permission, bind, heard, shares).state;
        assert_eq!(state(no, no, false, false), State::Ok);
        assert_eq!(state(Answer::Silence, Answer::Silence, false, false), State::Ok);
        assert_eq!(state(yes, no, false, true), State::Ok);
        assert_eq!(state(yes, no, false, false), State::Fail);
        assert_eq!(state(no, yes, false, true), State::Fail);
        assert_eq!(state(no, no, true, false), State::Fail);
    }
}
