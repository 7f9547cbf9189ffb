//! The external policy with everything allowed: what special purposes and the gateway's own machine
//! get of it, seen from sentinels where a leak would arrive. Over UDP, TCP and TLS.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use boring::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};
use common::configured;
use common::{Gateway, HTTPS_PORT, METRICS_PORT, Network, UDP_PORT, need};
use veilgate::wire::stun::{Builder, Class, IntegrityKey, Message, Method, TransactionId, attr};

const GATEWAY: &str = "8.78.0.1";
const CLIENT: &str = "8.78.0.3";
/// Of nobody but the sentinels.
const PORT: u16 = 4_444;
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a relay that did not look would send: the clients' side has them all.
const BEYOND: [&str; 14] = [
    "10.0.0.1/32",
    "100.64.0.1/32",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "172.17.0.9/32",
    "192.0.0.192/32",
    "192.0.2.1/32",
    "192.168.1.1/32",
    "198.18.0.1/32",
    "203.0.113.1/32",
    "2001:db8::1/128",
    "64:ff9b::a00:1/128",
    "fd00:ec2::254/128",
    "fec0::1/128",
];

/// The table of the facts on TURN, and what is beside it: as an address is written.
const DENIED: [&str; 42] = [
    "127.0.0.1",
    "0.0.0.0",
    "169.254.169.254",
    "10.0.0.1",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::1",
    "2001:0:7f00:1::",
    "fe80::1",
    "fec0::1",
    "64:ff9b::a9fe:a9fe",
    "fd00:ec2::254",
    "127.0.0.8",
    "127.255.255.254",
    "100.64.0.1",
    "100.127.255.255",
    "172.16.0.1",
    "172.17.0.9",
    "192.168.1.1",
    "192.0.0.192",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "ff02::1",
    "100::1",
    "64:ff9b::a00:1",
    // Another address of the gateway's machine, in both families.
    "8.78.0.2",
    "2a01:78::2",
    "::ffff:8.78.0.1",
];

fn gateway() -> Gateway {
    let network = Network::with(
        &["8.78.0.1/24", "8.78.0.2/24", "2a01:78::1/64", "2a01:78::2/64"],
        &["8.78.0.3/24", "2a01:78::3/64"],
    );
    for address in BEYOND {
        let add = ["address", "add", address, "dev", "lo"];
        network.ip_clients(&add);
    }
    network.ip_gateway(&["route", "add", "default", "via", CLIENT]);
    network.ip_gateway(&["-6", "route", "add", "default", "via", "2a01:78::3"]);
    let config = "relay: { external: { allow: [0.0.0.0/0, '::/0'], ip6: '2a01:78::1' } }
";
    configured::start(network, GATEWAY, GATEWAY, config)
}

enum Way {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<SslStream<TcpStream>>),
}

struct Client {
    way: Way,
    username: String,
    key: Option<IntegrityKey>,
    password: String,
    realm: String,
    nonce: String,
    id: u8,
}

impl Client {
    /// With an allocation of both families.
    fn allocate(gateway: &Gateway, transport: &str) -> Self {
        let (username, password) = configured::mint(gateway, "external");
        let way = gateway.network.as_client(|| {
            let tcp = || {
                let stream = TcpStream::connect((GATEWAY, HTTPS_PORT)).expect("connects");
                stream.set_read_timeout(Some(PATIENCE)).expect("socket option");
                stream
            };
            match transport {
                "udp" => {
                    let socket = UdpSocket::bind((CLIENT, 0)).expect("bound");
                    socket.connect((GATEWAY, UDP_PORT)).expect("connected");
                    socket.set_read_timeout(Some(PATIENCE)).expect("socket option");
                    Way::Udp(socket)
                }
                "tcp" => Way::Tcp(tcp()),
                _ => {
                    let mut builder = SslConnector::builder(SslMethod::tls()).expect("TLS");
                    builder.set_verify(SslVerifyMode::NONE);
                    let stream = builder.build().connect(GATEWAY, tcp());
                    Way::Tls(Box::new(stream.unwrap_or_else(|e| panic!("TLS: {e:?}"))))
                }
            }
        });
        let mut client = Self {
            way,
            username,
            key: None,
            password,
            realm: String::new(),
            nonce: String::new(),
            id: 0,
        };
        let transport = (attr::REQUESTED_TRANSPORT, vec![17, 0, 0, 0]);
        let both = (attr::ADDITIONAL_ADDRESS_FAMILY, vec![2, 0, 0, 0]);
        let challenge = client.ask(Method::ALLOCATE, std::slice::from_ref(&transport));
        let challenge = Message::parse(&challenge).expect("STUN");
        let text = |kind| challenge.text(kind).expect("a text").to_owned();
        (client.realm, client.nonce) = (text(attr::REALM), text(attr::NONCE));
        let key = IntegrityKey::long_term(&client.username, &client.realm, &client.password);
        client.key = Some(key.expect("a key"));
        assert_eq!(client.code(Method::ALLOCATE, &[transport, both]), 0);
        client
    }

    fn write(&mut self, message: &[u8]) {
        match &mut self.way {
            Way::Udp(socket) => assert_eq!(socket.send(message).expect("sends"), message.len()),
            Way::Tcp(stream) => stream.write_all(message).expect("sends"),
            Way::Tls(stream) => stream.write_all(message).expect("sends"),
        }
    }

    fn read(&mut self) -> Vec<u8> {
        fn one(stream: &mut impl Read) -> Vec<u8> {
            let mut message = vec![0; 20];
            stream.read_exact(&mut message).expect("a header in time");
            let len = usize::from(u16::from_be_bytes([message[2], message[3]]));
            message.resize(20 + len, 0);
            stream.read_exact(&mut message[20..]).expect("a body in time");
            message
        }
        match &mut self.way {
            Way::Udp(socket) => {
                let mut buffer = vec![0; 2_048];
                let len = hear(socket, &mut buffer);
                buffer.truncate(len);
                buffer
            }
            Way::Tcp(stream) => one(stream),
            Way::Tls(stream) => one(&mut **stream),
        }
    }

    fn build(&self, class: Class, method: Method, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut buffer = vec![0; 1_000];
        let id = TransactionId([self.id; 12]);
        let mut builder = Builder::new(&mut buffer, class, method, id);
        for (kind, value) in attributes {
            builder.attribute(*kind, value);
        }
        if let (Some(key), Class::Request) = (&self.key, class) {
            builder.text(attr::USERNAME, &self.username);
            builder.text(attr::REALM, &self.realm);
            builder.text(attr::NONCE, &self.nonce);
            builder.integrity(key);
        }
        let len = builder.finish().expect("fits");
        buffer.truncate(len);
        buffer
    }

    fn ask(&mut self, method: Method, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let message = self.build(Class::Request, method, attributes);
        self.write(&message);
        let answer = self.read();
        self.id = self.id.wrapping_add(1);
        answer
    }

    /// 0 for a success.
    fn code(&mut self, method: Method, attributes: &[(u16, Vec<u8>)]) -> u16 {
        let answer = self.ask(method, attributes);
        Message::parse(&answer).expect("STUN").error_code().unwrap_or(0)
    }

    /// XOR-PEER-ADDRESS in the next message.
    fn peer(&self, peer: SocketAddr) -> (u16, Vec<u8>) {
        let mut buffer = [0; 64];
        let id = TransactionId([self.id; 12]);
        let mut builder = Builder::new(&mut buffer, Class::Request, Method::BINDING, id);
        builder.xor_address(attr::XOR_PEER_ADDRESS, peer);
        let len = builder.finish().expect("fits");
        (attr::XOR_PEER_ADDRESS, buffer[24..len].to_vec())
    }

    fn permission(&mut self, peer: SocketAddr) -> u16 {
        let peer = self.peer(peer);
        self.code(Method::CREATE_PERMISSION, &[peer])
    }

    fn channel(&mut self, number: u16, peer: SocketAddr) -> u16 {
        let [a, b] = number.to_be_bytes();
        let peer = self.peer(peer);
        self.code(Method::CHANNEL_BIND, &[(attr::CHANNEL_NUMBER, vec![a, b, 0, 0]), peer])
    }

    fn send(&mut self, peer: SocketAddr, payload: &[u8]) {
        let peer = self.peer(peer);
        let data = (attr::DATA, payload.to_vec());
        let message = self.build(Class::Indication, Method::SEND, &[peer, data]);
        self.write(&message);
    }
}

/// A datagram that must come, whatever stops this process meanwhile.
fn hear(socket: &UdpSocket, buffer: &mut [u8]) -> usize {
    loop {
        match socket.recv(buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            heard => return heard.expect("it arrives"),
        }
    }
}

/// Sockets that hear whatever arrives at any address of a side.
struct Sentinels([UdpSocket; 2]);

impl Sentinels {
    fn set() -> Self {
        Self(["0.0.0.0", "::"].map(|any| {
            let ip: IpAddr = any.parse().expect("valid");
            let domain = if ip.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
            let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None).expect("made");
            if ip.is_ipv6() {
                socket.set_only_v6(true).expect("socket option");
            }
            socket.bind(&SocketAddr::new(ip, PORT).into()).expect("bound");
            let socket = UdpSocket::from(socket);
            socket.set_read_timeout(Some(PATIENCE)).expect("socket option");
            socket
        }))
    }

    /// What has come and was not read yet.
    fn heard(&self) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        for socket in &self.0 {
            socket.set_nonblocking(true).expect("socket option");
            let mut buffer = [0; 2_048];
            loop {
                match socket.recv(&mut buffer) {
                    Ok(len) => heard.push(buffer[..len].to_vec()),
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
            socket.set_nonblocking(false).expect("socket option");
        }
        heard
    }
}

fn nothing_denied_is_reached(transport: &str) {
    let gateway = gateway();
    let here = gateway.network.as_gateway(Sentinels::set);
    let beyond = gateway.network.as_client(Sentinels::set);
    let mut client = Client::allocate(&gateway, transport);

    // The sentinels hear what is let through: without this their silence would say nothing.
    for (number, socket, peer) in
        [(0x4000, 0, format!("{CLIENT}:{PORT}")), (0x4001, 1, format!("[2a01:78::3]:{PORT}"))]
    {
        let peer: SocketAddr = peer.parse().expect("valid");
        assert_eq!(client.channel(number, peer), 0);
        client.send(peer, b"allowed");
        let mut buffer = [0; 64];
        let len = hear(&beyond.0[socket], &mut buffer);
        assert_eq!(&buffer[..len], b"allowed");
    }

    let own = [22, PORT, UDP_PORT, HTTPS_PORT, METRICS_PORT, 20_000];
    let own = own.map(|port| SocketAddr::new(GATEWAY.parse().expect("valid"), port));
    let own6 = SocketAddr::new("2a01:78::1".parse().expect("valid"), PORT);
    let denied = DENIED.map(|ip| SocketAddr::new(ip.parse().expect("valid"), PORT));
    for peer in denied {
        assert_eq!(client.permission(peer), 403, "{peer}");
        assert_eq!(client.channel(0x4002, peer), 403, "{peer}");
        client.send(peer, b"let me out");
    }
    // By IP alone our own address passes, for the sake of other relayed sockets: not its ports.
    assert_eq!(client.permission(own6), 0);
    for peer in own.into_iter().chain([own6]) {
        assert_eq!(client.permission(peer), 0, "{peer}");
        assert_eq!(client.channel(0x4002, peer), 403, "{peer}");
        client.send(peer, b"let me in");
        client.send(peer, b"let me in");
    }
    let indications = (denied.len() + 2 * own.len() + 2) as f64;
    gateway.metrics_when("all indications were refused", |m| {
        m.sum("veilgate_relay_denied_peers_total", &["reason=\"send\""]) == indications
    });
    // The last one through overtakes nothing that was sent before it.
    client.send(format!("{CLIENT}:{PORT}").parse().expect("valid"), b"last");
    let mut buffer = [0; 64];
    let len = hear(&beyond.0[0], &mut buffer);
    assert_eq!(&buffer[..len], b"last");
    assert_eq!(beyond.heard(), Vec::<Vec<u8>>::new());
    assert_eq!(here.heard(), Vec::<Vec<u8>>::new());
}

#[test]
fn nothing_special_or_own_is_reached_over_udp() {
    nothing_denied_is_reached("udp");
}

#[test]
fn nothing_special_or_own_is_reached_over_tcp() {
    nothing_denied_is_reached("tcp");
}

#[test]
fn nothing_special_or_own_is_reached_over_tls() {
    nothing_denied_is_reached("tls");
}

/// UDP sockets of the gateway that are bound to a port of the range.
fn relayed_sockets(gateway: &Gateway) -> usize {
    let port = |line: &String| -> Option<u16> {
        line.split_whitespace().nth(3)?.rsplit(':').next()?.parse().ok()
    };
    let sockets = gateway.sockets("-unl");
    sockets.iter().filter_map(port).filter(|port| *port >= 49_152).count()
}

#[test]
fn socket_lives_as_long_as_its_allocation() {
    let gateway = gateway();
    assert_eq!(relayed_sockets(&gateway), 0);
    let mut client = Client::allocate(&gateway, "udp");
    let stream = Client::allocate(&gateway, "tcp");
    assert_eq!(relayed_sockets(&gateway), 4, "IPv4 and IPv6 for each");
    assert_eq!(client.code(Method::REFRESH, &[(attr::LIFETIME, vec![0; 4])]), 0);
    drop(stream);
    gateway.metrics_when("both have ended", |m| {
        m.sum("veilgate_relay_external_sockets", &[]) == 0.0
            && m.sum("veilgate_relay_allocations_ended_total", &[]) == 2.0
    });
    assert_eq!(relayed_sockets(&gateway), 0);
}

#[test]
fn datagrams_of_any_size_pass_whole_in_both_directions() {
    let gateway = gateway();
    let peer = gateway.network.as_client(|| {
        let socket = UdpSocket::bind((CLIENT, 0)).expect("bound");
        socket.set_read_timeout(Some(PATIENCE)).expect("socket option");
        socket
    });
    let address = peer.local_addr().expect("bound");
    let mut client = Client::allocate(&gateway, "udp");
    assert_eq!(client.permission(address), 0);
    let mut buffer = vec![0; 65_536];
    for size in [0, 1, 3, 700, 900] {
        let payload = vec![size as u8; size];
        client.send(address, &payload);
        let (len, relayed) = loop {
            match peer.recv_from(&mut buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                heard => break heard.expect("it arrives"),
            }
        };
        assert_eq!(buffer[..len], payload);
        // In pieces on the way, which nobody forbids.
        let large = vec![7; size * 2];
        peer.send_to(&large, relayed).expect("sent");
        let Way::Udp(socket) = &client.way else { panic!("not UDP") };
        let len = hear(socket, &mut buffer);
        let message = Message::parse(&buffer[..len]).expect("STUN");
        assert_eq!(message.method(), Method::DATA);
        assert_eq!(message.first(attr::DATA), Some(&large[..]));
    }
}

#[test]
fn client_is_told_that_a_peers_port_is_closed() {
    let gateway = gateway();
    for (ip, error) in [(CLIENT, [0, 0, 6, 3]), ("2a01:78::3", [0, 0, 2, 4])] {
        let mut client = Client::allocate(&gateway, "tcp");
        // Nobody is at this port.
        let peer = SocketAddr::new(ip.parse().expect("valid"), 9);
        assert_eq!(client.permission(peer), 0);
        client.send(peer, b"anyone?");
        let answer = client.read();
        let answer = Message::parse(&answer).expect("STUN");
        assert_eq!((answer.class(), answer.method()), (Class::Indication, Method::DATA));
        assert_eq!(answer.xor_address(attr::XOR_PEER_ADDRESS), Some(peer));
        assert_eq!(answer.first(attr::ICMP), Some(&[&error[..], &[0; 4]].concat()[..]));
        // What is sent to another peer meanwhile is not lost by it.
        let heard = gateway.network.as_client(|| UdpSocket::bind((ip, PORT)).expect("bound"));
        heard.set_read_timeout(Some(PATIENCE)).expect("socket option");
        let there = SocketAddr::new(peer.ip(), PORT);
        for _ in 0..20 {
            client.send(peer, b"anyone?");
            client.send(there, b"hello");
            assert_eq!(hear(&heard, &mut [0; 16]), 5);
        }
    }
}

#[test]
fn admin_api_mints_credentials_of_the_class() {
    let gateway = gateway();
    let folder = gateway.folder().to_owned();
    let path = |name: &str| folder.join(name).to_str().expect("utf-8").to_owned();
    let url = format!("https://{GATEWAY}:{HTTPS_PORT}");
    let (key, ca) = (path("admin.key"), path("chain.pem"));
    let mut command = common::veilgate();
    command.args(["turn", "mint", "--subject", "jitsi", "--class", "external", "--json"]);
    command.args(["--gateway", &url, "--key-file", &key, "--ca", &ca]);
    let output = gateway.network.as_client(|| command.output()).expect("runs");
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{problem}");
    let minted: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    let name = minted["username"].as_str().expect("a name");
    let config = path("veilgate.yaml");
    let told = gateway.cli(&["turn", "verify", name, "--config", &config]);
    assert!(told.contains("external: reaches the peers that relay.external.allow lists"), "{told}");
}

#[test]
fn address_that_is_not_this_machines_is_told_at_the_start() {
    let network = Network::with(&["8.78.0.1/24"], &["8.78.0.3/24"]);
    let folder = tempfile::tempdir().expect("a folder");
    let config = "relay: { external: { allow: [8.78.0.3] } }\n";
    let path = configured::prepare(folder.path(), "8.99.0.1", GATEWAY, config);
    let mut command = common::veilgate();
    command.args(["serve", "--config"]).arg(path);
    let output = network.as_gateway(|| command.output()).expect("runs");
    let problem = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(problem.contains("relay.external.ip") && problem.contains("8.99.0.1"), "{problem}");
}

#[test]
fn address_that_comes_while_it_runs_is_refused_soon() {
    let gateway = gateway();
    let mut client = Client::allocate(&gateway, "udp");
    let late: SocketAddr = format!("8.78.0.77:{PORT}").parse().expect("valid");
    assert_eq!(client.permission(late), 0, "somebody else's");
    gateway.network.ip_gateway(&["address", "add", "8.78.0.77/24", "dev", "v0"]);
    let refused = (0..200).any(|_| {
        std::thread::park_timeout(Duration::from_millis(100));
        client.permission(late) == 403
    });
    assert!(refused, "still reached after twenty seconds");
}

#[test]
fn jitsis_names_and_those_of_nextcloud_are_taken() {
    let network = Network::with(&["8.78.0.1/24"], &["8.78.0.3/24"]);
    let config = "  plain_rest: true
relay: { external: { allow: [8.78.0.3], names: true } }
";
    let gateway = configured::start(network, GATEWAY, GATEWAY, config);
    let path = configured::file(&gateway);
    let config = path.to_str().expect("utf-8");
    for name in ["4000000000", "4000000000:a1b2c3", "4000000000:@alice:example.org"] {
        let args = ["turn", "verify", name, "--config", config, "--json"];
        let told: serde_json::Value = serde_json::from_str(&gateway.cli(&args)).expect("json");
        assert_eq!((&told["valid"], &told["class"]), (&true.into(), &"external".into()), "{name}");
    }
}

/// Whoever takes all descriptors must not open a way to this machine: listing its addresses takes
/// one.
#[test]
fn own_address_stays_refused_while_descriptors_are_short() {
    need("prlimit", "util-linux");
    let gateway = gateway();
    let mut client = Client::allocate(&gateway, "udp");
    let pid = gateway.pid().to_string();
    let short = Command::new("prlimit").args(["--pid", &pid, "--nofile=1:1"]).status();
    assert!(short.expect("runs").success());
    let other = format!("8.78.0.2:{PORT}").parse().expect("valid");
    let looked = (0..200).any(|_| {
        std::thread::park_timeout(Duration::from_millis(100));
        assert_eq!(client.permission(other), 403);
        gateway.log().contains("addresses of this machine")
    });
    assert!(looked, "not within twenty seconds");
    assert_eq!(client.permission(other), 403, "it has looked, and was told nothing");
}

/// A machine that forwards hears what is sent to the first address of its networks (RFC 4291
/// section 2.6.1).
#[test]
fn anycast_address_of_its_own_network_is_refused() {
    let gateway = gateway();
    let here = gateway.network.as_gateway(|| {
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("root may");
        Sentinels::set()
    });
    let anycast: SocketAddr = format!("[2a01:78::]:{PORT}").parse().expect("valid");
    let own = gateway.network.as_gateway(|| UdpSocket::bind("[2a01:78::1]:0").expect("bound"));
    own.send_to(b"own", anycast).expect("sent");
    assert_eq!(hear(&here.0[1], &mut [0; 64]), 3, "it is this machine's");
    let mut client = Client::allocate(&gateway, "udp");
    assert_eq!(client.permission(anycast), 403);
    assert_eq!(client.channel(0x4000, anycast), 403);
}
