//! The relay as clients see it that share no code with it: coturn's, the `turn` crate's, and raw
//! requests. Every one of them gets its allocation and reaches nobody but the forwarder.

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{CLIENT, GATEWAY, Gateway, MEDIA_PORT, OTHER, UDP_PORT, need};
use stun::attributes::{ATTR_NONCE, ATTR_REALM, ATTR_USERNAME};
use stun::error_code::ErrorCodeAttribute;
use stun::integrity::MessageIntegrity;
use stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter as _, METHOD_ALLOCATE,
    METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_REFRESH, METHOD_SEND, Message,
    MessageType, Method, Setter,
};
use stun::textattrs::TextAttribute;
use turn::client::{Client, ClientConfig};
use turn::proto::PROTO_UDP;
use turn::proto::channum::ChannelNumber;
use turn::proto::data::Data;
use turn::proto::lifetime::Lifetime;
use turn::proto::peeraddr::PeerAddress;
use turn::proto::relayaddr::RelayedAddress;
use turn::proto::reqtrans::RequestedTransport;
use veilgate::auth::secret::parse_ring;
use veilgate::auth::turn::{Class, Keys, Mint, Minted};
use veilgate::time::Unix;
use webrtc_util::Conn as _;

const PATIENCE: Duration = Duration::from_secs(10);
const REALM_OF_DEVELOPMENT: &str = "veilgate";

fn relay() -> SocketAddr {
    (GATEWAY, UDP_PORT).into()
}

/// Runs coturn's client to its end; what it printed.
fn uclient(gateway: &Gateway, arguments: &[&str]) -> String {
    need("turnutils_uclient", "coturn");
    need("timeout", "coreutils");
    let (username, password) = gateway.turn_credential();
    let mut command = Command::new("timeout");
    command.args(["30", "turnutils_uclient", "-v", "-u", &username, "-w", &password]);
    command.args(["-p", &UDP_PORT.to_string(), "-n", "1", "-c", "-X"]);
    command.args(arguments).arg(GATEWAY.to_string());
    let output = gateway.network.as_client(|| command.output()).expect("uclient runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_ne!(output.status.code(), Some(124), "uclient hangs: {text}");
    text
}

#[test]
fn turnutils_uclient_allocates_and_gets_403_for_every_peer() {
    let gateway = Gateway::start(1);
    for (peer, port) in [
        ("127.0.0.1", "3480"),
        ("127.0.0.1", "9641"),
        ("10.0.0.1", "80"),
        ("169.254.169.254", "80"),
        (&*OTHER.to_string(), "22"),
        (&*CLIENT.to_string(), "3480"),
        (&*GATEWAY.to_string(), "3480"),
        (&*GATEWAY.to_string(), "3478"),
        (&*GATEWAY.to_string(), "8443"),
    ] {
        let bound = uclient(&gateway, &["-e", peer, "-r", port]);
        assert!(bound.contains("Received relay addr"), "no allocation: {bound}");
        assert!(bound.contains("channel bind: error 403"), "{peer}:{port}: {bound}");
    }
    // By permission alone the gateway's own IP passes (RFC 8656 ignores the port): not here.
    for peer in ["127.0.0.1", "10.0.0.1", "8.8.8.8", &*OTHER.to_string()] {
        let sent = uclient(&gateway, &["-s", "-e", peer, "-r", "3480"]);
        assert!(sent.contains("create permission error 403"), "{peer}: {sent}");
    }
    let denied = gateway.metrics_when("peers were denied", |m| {
        m.sum("veilgate_relay_denied_peers_total", &["reason=\"channel\""]) >= 9.0
            && m.sum("veilgate_relay_denied_peers_total", &["reason=\"permission\""]) >= 4.0
    });
    assert!(denied.sum("veilgate_relay_allocations_created_total", &[]) >= 13.0);
}

/// A credential that ends `limit` from now, minted with the gateway's own keys.
fn minted_for(gateway: &Gateway, limit: Duration) -> Minted {
    let file = std::fs::read_to_string(gateway.state_dir().join("turn.keys")).expect("key file");
    let keys = Keys::new(parse_ring(&file).expect("a ring")).expect("keys");
    #[allow(clippy::disallowed_methods, reason = "the gateway under test reads the real clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let mint = Mint {
        subject: "tester",
        room: None,
        class: Class::Forwarder,
        ttl: limit,
        session_limit: limit,
    };
    keys.mint(Unix::from_secs(now.as_secs()), &mint, [7; 12]).expect("minted")
}

/// Stands between a client and the relay and reports the type of each message that passes.
fn onlooker(gateway: &Gateway, types: &Sender<u16>) -> SocketAddr {
    let (front, back) = gateway.network.as_client(|| {
        let front = UdpSocket::bind((CLIENT, 0)).expect("bound");
        let back = UdpSocket::bind((CLIENT, 0)).expect("bound");
        back.connect(relay()).expect("connected");
        (Arc::new(front), Arc::new(back))
    });
    let address = front.local_addr().expect("bound");
    let report = |types: &Sender<u16>, datagram: &[u8]| {
        if let [a, b, ..] = datagram {
            let _ = types.send(u16::from_be_bytes([*a, *b]));
        }
    };
    let (there, client_side, types) = (Arc::clone(&back), Arc::clone(&front), types.clone());
    let (learn, learned) = channel();
    let types_back = types.clone();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((n, from)) = client_side.recv_from(&mut buffer) {
            let _ = learn.send(from);
            report(&types, &buffer[..n]);
            let _ = there.send(&buffer[..n]);
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        let Ok(client) = learned.recv() else { return };
        while let Ok(n) = back.recv(&mut buffer) {
            report(&types_back, &buffer[..n]);
            let _ = front.send_to(&buffer[..n], client);
        }
    });
    address
}

#[test]
fn turn_crate_client_allocates_refreshes_and_closes() {
    const REFRESH_REQUEST: u16 = 0x0004;
    const REFRESH_SUCCESS: u16 = 0x0104;
    let gateway = Gateway::start(1);
    // The gateway grants no more than the session limit, and this client refreshes at half of it.
    let limit = Duration::from_secs(16);
    let credential = minted_for(&gateway, limit);
    let (types, seen) = channel();
    let address = onlooker(&gateway, &types);
    let allocations = |m: &common::Metrics| m.sum("veilgate_relay_allocations", &[]);

    gateway.network.as_client(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let conn = tokio::net::UdpSocket::bind((CLIENT, 0)).await.expect("bound");
            let client = Client::new(ClientConfig {
                stun_serv_addr: String::new(),
                turn_serv_addr: address.to_string(),
                username: credential.username.clone(),
                password: credential.credential.clone(),
                realm: REALM_OF_DEVELOPMENT.to_owned(),
                software: String::new(),
                rto_in_ms: 0,
                conn: Arc::new(conn),
                vnet: None,
            });
            let client = client.await.expect("a client");
            client.listen().await.expect("listens");
            let relayed = client.allocate().await.expect("allocates");
            let own = relayed.local_addr().expect("an address");
            assert_eq!(own.ip(), IpAddr::from(GATEWAY), "the relayed address is ours, and virtual");
            assert_ne!(own.port(), MEDIA_PORT);

            let refreshed = tokio::task::spawn_blocking(move || {
                let mut asked = false;
                loop {
                    match seen.recv_timeout(limit) {
                        Ok(REFRESH_REQUEST) => asked = true,
                        Ok(REFRESH_SUCCESS) if asked => return (true, seen),
                        Ok(_) => {}
                        Err(_) => return (false, seen),
                    }
                }
            });
            let (refreshed, seen) = refreshed.await.expect("watched");
            assert!(refreshed, "no successful Refresh passed by");
            relayed.close().await.expect("closes");
            let gone = tokio::task::spawn_blocking(move || {
                while let Ok(kind) = seen.recv_timeout(PATIENCE) {
                    if kind == REFRESH_SUCCESS {
                        return true;
                    }
                }
                false
            });
            assert!(gone.await.expect("watched"), "the closing Refresh had no answer");
            client.close().await.expect("closes");
        });
    });
    let metrics = gateway.metrics_when("the allocation is gone", |m| {
        m.sum("veilgate_relay_allocations_created_total", &[]) >= 1.0 && allocations(m) == 0.0
    });
    assert_eq!(
        metrics.sum("veilgate_relay_allocations_ended_total", &["reason=\"released\""]),
        1.0
    );
}

/// Requests written out by hand with the `stun` crate.
struct Raw {
    socket: UdpSocket,
    username: String,
    password: String,
    realm: String,
    nonce: String,
}

type Attributes = Vec<Box<dyn Setter>>;

impl Raw {
    fn new(gateway: &Gateway) -> Self {
        let (username, password) = gateway.turn_credential();
        let socket = gateway.network.as_client(|| UdpSocket::bind((CLIENT, 0))).expect("bound");
        socket.connect(relay()).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        Self { socket, username, password, realm: String::new(), nonce: String::new() }
    }

    fn exchange(&self, attributes: &Attributes) -> Message {
        let mut request = Message::new();
        request.new_transaction_id().expect("random");
        request.build(attributes).expect("built");
        self.socket.send(&request.raw).expect("sent");
        let mut buffer = [0; 2048];
        let n = self.socket.recv(&mut buffer).expect("an answer");
        let mut answer = Message::new();
        answer.unmarshal_binary(&buffer[..n]).expect("STUN");
        assert_eq!(answer.transaction_id, request.transaction_id);
        answer
    }

    fn ask(&self, method: Method, attributes: Attributes) -> Message {
        let integrity = MessageIntegrity::new_long_term_integrity(
            self.username.clone(),
            self.realm.clone(),
            self.password.clone(),
        );
        let mut all: Attributes = vec![Box::new(MessageType::new(method, CLASS_REQUEST))];
        all.extend(attributes);
        all.push(Box::new(TextAttribute::new(ATTR_USERNAME, self.username.clone())));
        all.push(Box::new(TextAttribute::new(ATTR_REALM, self.realm.clone())));
        all.push(Box::new(TextAttribute::new(ATTR_NONCE, self.nonce.clone())));
        all.push(Box::new(integrity));
        self.exchange(&all)
    }

    /// The 401 round, then the allocation; its lifetime and relayed address.
    fn allocate(&mut self) -> (Duration, SocketAddr) {
        let transport = || Box::new(RequestedTransport { protocol: PROTO_UDP });
        let kind = MessageType::new(METHOD_ALLOCATE, CLASS_REQUEST);
        let challenge = self.exchange(&vec![Box::new(kind), transport()]);
        assert_eq!(code(&challenge), 401);
        let text =
            |attribute| TextAttribute::get_from_as(&challenge, attribute).expect("text").text;
        self.realm = text(ATTR_REALM);
        self.nonce = text(ATTR_NONCE);
        let answer = self.ask(METHOD_ALLOCATE, vec![transport()]);
        assert_eq!(answer.typ.class, CLASS_SUCCESS_RESPONSE, "{}", code(&answer));
        let mut lifetime = Lifetime::default();
        lifetime.get_from(&answer).expect("LIFETIME");
        let mut relayed = RelayedAddress::default();
        relayed.get_from(&answer).expect("XOR-RELAYED-ADDRESS");
        (lifetime.0, SocketAddr::new(relayed.ip, relayed.port))
    }

    fn permission(&self, peer: IpAddr) -> Message {
        let peer = Box::new(PeerAddress { ip: peer, port: 80 });
        self.ask(METHOD_CREATE_PERMISSION, vec![peer])
    }

    fn channel(&self, number: u16, peer: SocketAddr) -> Message {
        let peer = Box::new(PeerAddress { ip: peer.ip(), port: peer.port() });
        self.ask(METHOD_CHANNEL_BIND, vec![Box::new(ChannelNumber(number)), peer])
    }
}

/// 0 for a success.
fn code(answer: &Message) -> u16 {
    if answer.typ.class != CLASS_ERROR_RESPONSE {
        return 0;
    }
    let mut error = ErrorCodeAttribute::default();
    error.get_from(answer).expect("ERROR-CODE");
    error.code.0
}

#[test]
fn every_peer_but_the_forwarder_gets_403() {
    let gateway = Gateway::start(1);
    let mut client = Raw::new(&gateway);
    let (lifetime, relayed) = client.allocate();
    assert!(lifetime >= Duration::from_secs(60), "{lifetime:?}");
    assert_eq!(relayed.ip(), IpAddr::from(GATEWAY));

    for peer in [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "10.78.0.2",
        "10.78.0.3",
        "169.254.169.254",
        "192.0.2.1",
        "8.8.8.8",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        assert_eq!(code(&client.permission(peer.parse().expect("valid"))), 403, "{peer}");
    }
    for peer in ["::1", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1", "fe80::1"] {
        let refused = code(&client.permission(peer.parse().expect("valid")));
        assert_eq!(refused, 403, "{peer}");
    }
    for port in [MEDIA_PORT + 1, UDP_PORT, 8443, 9641, 22, 0, relayed.port()] {
        let refused = code(&client.channel(0x4000, (GATEWAY, port).into()));
        assert_eq!(refused, 403, "the media IP on port {port}");
    }
    for peer in [OTHER, CLIENT, std::net::Ipv4Addr::LOCALHOST] {
        assert_eq!(code(&client.channel(0x4000, (peer, MEDIA_PORT).into())), 403, "{peer}");
    }

    // What it is for works.
    assert_eq!(code(&client.permission(GATEWAY.into())), 0);
    assert_eq!(code(&client.channel(0x4000, (GATEWAY, MEDIA_PORT).into())), 0);
    assert_eq!(code(&client.ask(METHOD_REFRESH, vec![Box::new(Lifetime(lifetime))])), 0);
    let closed = client.ask(METHOD_REFRESH, vec![Box::new(Lifetime(Duration::ZERO))]);
    assert_eq!(code(&closed), 0);
}

#[test]
fn nothing_sent_to_a_denied_peer_leaves_the_gateway() {
    let gateway = Gateway::start(1);
    let mut client = Raw::new(&gateway);
    client.allocate();
    // A permission for our own IP must not open the other ports of that IP.
    assert_eq!(code(&client.permission(GATEWAY.into())), 0);
    let sentinel = gateway.network.as_gateway(|| UdpSocket::bind((GATEWAY, 0))).expect("bound");
    let near = sentinel.local_addr().expect("bound");
    let stranger = gateway.network.as_client(|| UdpSocket::bind((CLIENT, 0))).expect("bound");
    let far = stranger.local_addr().expect("bound");
    for peer in [near, far] {
        let mut indication = Message::new();
        indication
            .build(&[
                Box::new(MessageType::new(METHOD_SEND, stun::message::CLASS_INDICATION)),
                Box::new(PeerAddress { ip: peer.ip(), port: peer.port() }),
                Box::new(Data(b"let me out".to_vec())),
            ])
            .expect("built");
        client.socket.send(&indication.raw).expect("sent");
    }
    // Both were seen and refused; only then is silence proof.
    gateway.metrics_when("both were refused", |m| {
        m.sum("veilgate_relay_denied_peers_total", &["reason=\"send\""])
            + m.sum("veilgate_relay_dropped_total", &["reason=\"no_permission\""])
            >= 2.0
    });
    for socket in [&sentinel, &stranger] {
        socket.set_nonblocking(true).expect("set");
        let mut buffer = [0; 64];
        let got = socket.recv(&mut buffer).map_err(|e| e.kind());
        assert_eq!(got, Err(std::io::ErrorKind::WouldBlock));
    }
}
