//! What a TURN server was ever abused to reach, asked of the real binary with valid credentials
//! over each transport, with sockets bound where a leak would arrive.
//!
//! In the gateway's network every address there is leads to the machine itself, so that one pair of
//! sockets hears whatever leaves for anywhere.

mod common;
mod turn_kit;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use common::{CLIENT, GATEWAY, Gateway, MEDIA_PORT, OTHER, UDP_PORT};
use socket2::{Domain, Protocol, Socket, Type};
use turn_kit::message::{Writer, hex};
use turn_kit::{
    ALLOCATE, CHANNEL_BIND, CHANNEL_NUMBER, CONNECT, CREATE_PERMISSION, Client, DATA, REFRESH,
    REQUESTED_TRANSPORT, SEND, TRANSPORTS, Transport, UDP, XOR_PEER_ADDRESS, mint,
};
use veilgate::auth::turn::Class;

/// 000102…0b, which the addresses of the checklist are written for.
const ID: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
/// The port of the checklist.
const PORT: u16 = 80;

/// Address and XOR-PEER-ADDRESS, type and length included.
const CHECKLIST: [(&str, &str); 18] = [
    ("127.0.0.1", "00120008000121425e12a443"),
    ("0.0.0.0", "00120008000121422112a442"),
    ("169.254.169.254", "001200080001214288ec0dbc"),
    ("10.0.0.1", "00120008000121422b12a443"),
    ("::1", "00120014000221422112a442000102030405060708090a0a"),
    ("::", "00120014000221422112a442000102030405060708090a0b"),
    ("::ffff:127.0.0.1", "00120014000221422112a442000102030405f9f877090a0a"),
    ("::ffff:169.254.169.254", "00120014000221422112a442000102030405f9f8a1f7a3f5"),
    ("::127.0.0.1", "00120014000221422112a442000102030405060777090a0a"),
    ("::ffff:0:127.0.0.1", "00120014000221422112a44200010203fbfa060777090a0a"),
    ("64:ff9b::127.0.0.1", "001200140002214221765bd9000102030405060777090a0a"),
    ("64:ff9b:1::127.0.0.1", "001200140002214221765bd9000002030405060777090a0a"),
    ("2002:7f00:1::1", "00120014000221420110db42000002030405060708090a0a"),
    ("2001:0:7f00:1::", "00120014000221420113a4427f0102020405060708090a0b"),
    ("fe80::1", "0012001400022142df92a442000102030405060708090a0a"),
    ("fec0::1", "0012001400022142dfd2a442000102030405060708090a0a"),
    ("64:ff9b::169.254.169.254", "001200140002214221765bd90001020304050607a1f7a3f5"),
    ("fd00:ec2::254", "0012001400022142dc12aa8000010203040506070809085f"),
];

/// Ends of every special-purpose range, the metadata services of clouds, neighbours.
const ALSO: [&str; 51] = [
    "127.0.0.8",
    "127.255.255.254",
    "100.64.0.0",
    "100.127.255.255",
    "172.16.0.1",
    "172.31.255.254",
    "172.17.0.1",
    "192.168.0.1",
    "192.168.255.254",
    "10.255.255.254",
    "192.0.0.1",
    "192.0.0.192",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.2.1",
    "198.18.0.1",
    "198.19.255.254",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "169.254.0.1",
    "0.0.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "8.8.8.8",
    "10.78.0.2",
    "10.78.0.3",
    "10.78.0.255",
    "ff02::1",
    "ff05::2",
    "100::1",
    "2001:db8::1",
    "2606:4700:4700::1111",
    "fc00::1",
    "fdff:ffff::1",
    "febf::1",
    "2002:a00:1::1",
    "2001::a4fe:fefe",
    "::10.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:10.78.0.2",
    "::ffff:0:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::10.78.0.2",
    "64:ff9b:1:ffff::10.0.0.1",
    "fe80::5efe:10.0.0.1",
    "2001:db8::200:5efe:10.0.0.1",
    "fe80::200:5efe:127.0.0.1",
    "::2",
];

fn ip(gateway: &Gateway, arguments: &[&str]) {
    let mut command = Command::new("ip");
    command.args(arguments);
    let output = gateway.network.as_gateway(|| command.output()).expect("ip runs");
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {}: {problem}", arguments.join(" "));
}

/// Sockets that hear whatever is sent to port 80 of any address.
struct Sentinels {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl Sentinels {
    fn new(gateway: &Gateway) -> Self {
        ip(gateway, &["route", "add", "local", "0.0.0.0/0", "dev", "lo"]);
        ip(gateway, &["-6", "route", "add", "local", "::/0", "dev", "lo"]);
        let bound = |any: IpAddr, kind, protocol| {
            let socket =
                Socket::new(Domain::for_address((any, PORT).into()), kind, Some(protocol))?;
            if any.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((any, PORT)).into())?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(socket)
        };
        let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        gateway.network.as_gateway(|| Self {
            udp: any.map(|ip| bound(ip, Type::DGRAM, Protocol::UDP).expect("bound").into()).into(),
            tcp: any
                .map(|ip| {
                    let socket = bound(ip, Type::STREAM, Protocol::TCP).expect("bound");
                    socket.listen(16).expect("listens");
                    socket.into()
                })
                .into(),
        })
    }

    /// Everything that has arrived.
    fn heard(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut buffer = [0; 256];
        for socket in &self.udp {
            while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                all.push(format!("{n} bytes from {from}"));
            }
        }
        for listener in &self.tcp {
            while let Ok((_, from)) = listener.accept() {
                all.push(format!("a connection from {from}"));
            }
        }
        all
    }

    /// Whether a plain socket of the gateway's machine would be heard there: the control of every
    /// silence below.
    fn hears(&self, gateway: &Gateway, target: SocketAddr) -> bool {
        let sent = gateway.network.as_gateway(|| {
            let any: IpAddr = match target {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let socket = UdpSocket::bind((any, 0)).expect("bound");
            socket.set_broadcast(true).expect("socket option");
            socket.send_to(b"control", target)
        });
        sent.is_ok() && !self.heard().is_empty()
    }
}

/// A signed request of the checklist's transaction; its answer's code.
fn ask(client: &mut Client, kind: u16, tlv: &[u8]) -> u16 {
    let mut writer = Writer::new(kind, ID);
    if kind == CHANNEL_BIND {
        writer = writer.attribute(CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
    }
    let request = client.sign(writer.raw(tlv)).done();
    client.exchange(&request).code()
}

fn tlv(address: SocketAddr) -> Vec<u8> {
    Writer::new(0, ID).xor_address(XOR_PEER_ADDRESS, address).done().split_off(20)
}

#[test]
fn no_abuse_target_is_reached_over_any_transport() {
    let gateway = Gateway::start(1);
    let sentinels = Sentinels::new(&gateway);
    let also = ALSO.map(|ip| SocketAddr::new(ip.parse().expect("an address"), PORT));
    let written = CHECKLIST.map(|(ip, raw)| {
        let address = SocketAddr::new(ip.parse().expect("an address"), PORT);
        assert_eq!(hex(raw), tlv(address), "{ip}");
        address
    });
    let targets: Vec<_> = written.into_iter().chain(also).collect();
    // Multicast leaves by an interface; the client's own address has a socket of its own.
    for target in &targets {
        let elsewhere = target.ip().is_multicast() || target.ip() == IpAddr::from(CLIENT);
        assert!(elsewhere || sentinels.hears(&gateway, *target), "{target} would not be heard");
    }
    let stranger = gateway.network.as_client(|| UdpSocket::bind((CLIENT, PORT))).expect("bound");
    stranger.set_nonblocking(true).expect("socket option");

    let mut refused = 0.0;
    // Of the usual class over each transport, and of the others.
    let usual = TRANSPORTS.map(|transport| (transport, Class::Forwarder));
    let others = [Class::Probe, Class::Room].map(|class| (Transport::Udp, class));
    for (transport, class) in usual.into_iter().chain(others) {
        let minted = mint(&gateway, &format!("{transport:?}{class:?}"), class, Duration::ZERO);
        let mut client = Client::with(&gateway, transport, &minted.username, &minted.credential);
        client.allocate();
        // With a permission for the forwarder's IP, as every client has one.
        assert_eq!(client.permission((GATEWAY, MEDIA_PORT).into()), 0);
        for target in &targets {
            let raw = tlv(*target);
            let say = |what: &str| format!("{what} {target} over {transport:?} as {class:?}");
            assert_eq!(ask(&mut client, CREATE_PERMISSION, &raw), 403, "{}", say("permit"));
            assert_eq!(ask(&mut client, CHANNEL_BIND, &raw), 403, "{}", say("bind"));
            let send = Writer::new(SEND, ID).raw(&raw).attribute(DATA, b"let me out").done();
            client.send(&send);
            refused += 1.0;
        }
        client.settle();
        assert_eq!(sentinels.heard(), Vec::<String>::new(), "over {transport:?}");
    }
    for reason in ["permission", "channel", "send"] {
        let label = format!("reason=\"{reason}\"");
        gateway.metrics_when("each was refused", |m| {
            m.sum("veilgate_relay_denied_peers_total", &[&label]) == refused
        });
    }
    assert_eq!(sentinels.heard(), Vec::<String>::new());
    assert!(stranger.recv(&mut [0; 64]).is_err(), "nor does the other side hear anything");
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("veilgate_relay_packets_total", &["direction=\"from_client\""]), 0.0);
}

#[test]
fn nothing_of_the_gateways_own_machine_is_reached_but_the_forwarder() {
    let gateway = Gateway::start(1);
    let sentinels = Sentinels::new(&gateway);
    let stranger = gateway.network.as_client(|| UdpSocket::bind((CLIENT, PORT))).expect("bound");
    stranger.set_nonblocking(true).expect("socket option");
    for transport in TRANSPORTS {
        let mut client = Client::new(&gateway, transport);
        let relayed = client.allocate();
        assert_eq!(client.permission((GATEWAY, 1).into()), 0, "permissions are for IPs");
        let ports = [PORT, 22, 0, UDP_PORT, 8443, 9641, MEDIA_PORT - 1, MEDIA_PORT + 1];
        let own = ports.map(|port| SocketAddr::from((GATEWAY, port)));
        let near = [OTHER, CLIENT].map(|ip| SocketAddr::from((ip, PORT)));
        let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, 9641));
        for peer in own.into_iter().chain(near).chain([relayed, metrics]) {
            assert_eq!(client.bind(0x4000, peer), 403, "{peer} over {transport:?}");
            client.indication(peer, b"let me out");
        }
        client.settle();
        assert_eq!(sentinels.heard(), Vec::<String>::new(), "over {transport:?}");
        assert!(stranger.recv(&mut [0; 64]).is_err(), "over {transport:?}");
        // The one door.
        assert_eq!(client.bind(0x4000, (GATEWAY, MEDIA_PORT).into()), 0);
    }
}

#[test]
fn tcp_relaying_of_rfc_6062_has_no_success_and_a_closed_door() {
    let gateway = Gateway::start(1);
    let sentinels = Sentinels::new(&gateway);
    assert!(sentinels.hears(&gateway, (Ipv4Addr::LOCALHOST, PORT).into()));
    for transport in TRANSPORTS {
        let mut client = Client::new(&gateway, transport);
        client.challenge();
        let tcp = client.ask(ALLOCATE, |w| w.attribute(REQUESTED_TRANSPORT, &[6, 0, 0, 0]));
        assert_eq!(tcp.code(), 442, "no allocation of TCP");
        assert_eq!(client.ask(ALLOCATE, |w| w.attribute(REQUESTED_TRANSPORT, &UDP)).code(), 0);
        for (_, raw) in CHECKLIST {
            let connect = Writer::new(CONNECT, ID).raw(&hex(raw));
            let connect = client.sign(connect).done();
            client.send(&connect);
        }
        // ConnectionBind and ConnectionAttempt, the other two.
        for kind in [0x00b, 0x01c] {
            let connect = Writer::new(kind, ID).attribute(0x002a, &[0, 0, 0, 1]);
            let connect = client.sign(connect).done();
            client.send(&connect);
        }
        let reply = client.ask(REFRESH, |w| w);
        assert_eq!(reply.code(), 0, "none of them was answered: {reply:?}");
        assert_eq!(sentinels.heard(), Vec::<String>::new(), "over {transport:?}");
    }
    // Nothing was opened towards anybody either.
    let open = gateway.sockets("-tnp");
    let ours = |line: &&String| line.contains(&format!("pid={},", gateway.pid()));
    let foreign = |line: &&String| !line.contains(&format!("{GATEWAY}:8443"));
    let out: Vec<_> = open.iter().filter(ours).filter(foreign).collect();
    assert!(out.iter().all(|line| line.contains("127.0.0.1:9641")), "{out:?}");
}

#[test]
fn datagrams_to_a_relayed_address_reach_nobody() {
    let gateway = Gateway::start(1);
    let mut client = Client::new(&gateway, Transport::Udp);
    let relayed = client.allocate();
    assert_eq!(client.permission((GATEWAY, MEDIA_PORT).into()), 0);
    assert_eq!(client.bind(0x4000, (GATEWAY, MEDIA_PORT).into()), 0);
    // From the forwarder's own machine and from elsewhere: the address is in a table only.
    let near = gateway.network.as_gateway(|| UdpSocket::bind((GATEWAY, 0))).expect("bound");
    let far = gateway.network.as_client(|| UdpSocket::bind((CLIENT, 0))).expect("bound");
    for socket in [&near, &far] {
        for _ in 0..10 {
            // An ICMP error of the datagram before.
            let _ = socket.send_to(b"anybody there?", relayed);
        }
    }
    client.settle();
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("veilgate_relay_packets_total", &["direction=\"to_client\""]), 0.0);
    let udp = gateway.sockets("-unlp");
    assert!(!udp.iter().any(|line| line.contains(&format!(":{} ", relayed.port()))), "{udp:?}");
}
