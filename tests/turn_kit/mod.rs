//! A TURN client written out by hand, over UDP, TCP and TLS: it sends what no client would, and
//! shares neither reader nor writer of messages with the gateway.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

pub mod message;

use std::cell::Cell;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use veilgate::auth::secret::parse_ring;
use veilgate::auth::turn::{Class, Keys, Mint, Minted};
use veilgate::time::Unix;

use super::common::{CLIENT, GATEWAY, Gateway, HTTPS_PORT, UDP_PORT};
use message::{Reply, Writer, long_term_key};

/// Nothing in the test network takes this long; a test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(15);

pub const ALLOCATE: u16 = 0x003;
pub const REFRESH: u16 = 0x004;
pub const SEND: u16 = 0x016;
pub const CREATE_PERMISSION: u16 = 0x008;
pub const CHANNEL_BIND: u16 = 0x009;
/// RFC 6062.
pub const CONNECT: u16 = 0x00a;

pub const CHANNEL_NUMBER: u16 = 0x000c;
pub const LIFETIME: u16 = 0x000d;
pub const XOR_PEER_ADDRESS: u16 = 0x0012;
pub const DATA: u16 = 0x0013;
pub const USERNAME: u16 = 0x0006;
pub const REALM: u16 = 0x0014;
pub const NONCE: u16 = 0x0015;
pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
pub const REQUESTED_TRANSPORT: u16 = 0x0019;
pub const UDP: [u8; 4] = [17, 0, 0, 0];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

pub const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// One client: a socket and, after [`Client::challenge`], what requests are signed with.
pub struct Client {
    wire: Wire,
    unread: Vec<u8>,
    pub username: String,
    pub password: String,
    pub realm: String,
    pub nonce: Vec<u8>,
    next: Cell<u32>,
}

fn now() -> Unix {
    #[allow(clippy::disallowed_methods, reason = "the gateway under test reads the real clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Unix::from_secs(now.as_secs())
}

/// The key ring of a running gateway.
pub fn keys(gateway: &Gateway) -> Keys {
    let file = std::fs::read_to_string(gateway.state_dir().join("turn.keys")).expect("key file");
    Keys::new(parse_ring(&file).expect("a ring")).expect("keys")
}

/// A credential of any class; `ago`: it was minted so long before now.
pub fn mint(gateway: &Gateway, subject: &str, class: Class, ago: Duration) -> Minted {
    let minutes = Duration::from_secs(600);
    let mint = Mint { subject, room: Some("abuse"), class, ttl: minutes, session_limit: minutes };
    let then = Unix::from_micros(now().as_micros() - ago.as_micros() as u64);
    // Two credentials of a second must differ.
    let mut nonce = [7; 12];
    nonce[..4].copy_from_slice(&crc32fast::hash(subject.as_bytes()).to_be_bytes());
    keys(gateway).mint(then, &mint, nonce).expect("minted")
}

/// What trusts the gateway's development authority, and offers these application protocols.
pub fn tls_config(gateway: &Gateway, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let note = gateway.note();
    trusting(Path::new(note["ca"].as_str().expect("ca")), alpn)
}

fn trusting(ca: &Path, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let ca = CertificateDer::from_pem_file(ca).expect("PEM");
    let mut roots = RootCertStore::empty();
    roots.add(ca).expect("a root");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// A TCP connection to the port of HTTPS, TLS and TURN.
pub fn tcp(gateway: &Gateway) -> TcpStream {
    let there = SocketAddr::from((GATEWAY, HTTPS_PORT));
    let stream = gateway.network.as_client(|| TcpStream::connect(there)).expect("TCP connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("socket option");
    stream.set_nodelay(true).expect("socket option");
    stream
}

/// TLS over [`tcp`].
pub fn tls(gateway: &Gateway, alpn: &[&[u8]]) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::from(IpAddr::from(GATEWAY));
    let connection = ClientConnection::new(tls_config(gateway, alpn), name).expect("TLS");
    StreamOwned::new(connection, tcp(gateway))
}

impl Client {
    /// With a credential of the usual class, not yet used.
    pub fn new(gateway: &Gateway, transport: Transport) -> Self {
        let (username, password) = gateway.turn_credential();
        Self::with(gateway, transport, &username, &password)
    }

    /// Over a connection of one's own to the port of HTTPS, TLS and TURN; the server's certificate is
    /// the configured one, signed by itself.
    pub fn over(
        stream: TcpStream,
        gateway: &Gateway,
        transport: Transport,
        username: &str,
        password: &str,
    ) -> Self {
        let wire = match transport {
            Transport::Udp => panic!("a connection is not UDP"),
            Transport::Tcp => Wire::Tcp(stream),
            Transport::Tls => {
                let chain = gateway.folder().join("chain.pem");
                let name = ServerName::from(IpAddr::from(GATEWAY));
                let connection = ClientConnection::new(trusting(&chain, &[]), name).expect("TLS");
                Wire::Tls(Box::new(StreamOwned::new(connection, stream)))
            }
        };
        Self::on(wire, username, password)
    }

    /// With this credential.
    pub fn with(gateway: &Gateway, transport: Transport, username: &str, password: &str) -> Self {
        let wire = match transport {
            Transport::Udp => {
                let socket = gateway.network.as_client(|| UdpSocket::bind((CLIENT, 0)));
                let socket = socket.expect("bound");
                socket.connect((GATEWAY, UDP_PORT)).expect("connected");
                Wire::Udp(socket)
            }
            Transport::Tcp => Wire::Tcp(tcp(gateway)),
            Transport::Tls => Wire::Tls(Box::new(tls(gateway, &[]))),
        };
        Self::on(wire, username, password)
    }

    fn on(wire: Wire, username: &str, password: &str) -> Self {
        Self {
            wire,
            unread: Vec::new(),
            username: username.to_owned(),
            password: password.to_owned(),
            realm: String::new(),
            nonce: Vec::new(),
            next: Cell::new(0),
        }
    }

    /// With an allocation.
    pub fn allocated(gateway: &Gateway, transport: Transport) -> Self {
        let mut client = Self::new(gateway, transport);
        client.allocate();
        client
    }

    /// Its own address.
    pub fn address(&self) -> SocketAddr {
        let address = match &self.wire {
            Wire::Udp(socket) => socket.local_addr(),
            Wire::Tcp(stream) => stream.local_addr(),
            Wire::Tls(stream) => stream.sock.local_addr(),
        };
        address.expect("bound")
    }

    pub fn send(&mut self, bytes: &[u8]) {
        match &mut self.wire {
            Wire::Udp(socket) => assert_eq!(socket.send(bytes).expect("sent"), bytes.len()),
            Wire::Tcp(stream) => stream.write_all(bytes).expect("sent"),
            Wire::Tls(stream) => {
                stream.write_all(bytes).and_then(|()| stream.flush()).expect("sent");
            }
        }
    }

    /// The next message within `wait`, padding of streams taken away; `None`: nothing came.
    pub fn receive(&mut self, wait: Duration) -> Option<Vec<u8>> {
        let wait = Some(wait.max(Duration::from_millis(1)));
        let mut piece = [0; 4_096];
        loop {
            if let Some(message) = self.cut() {
                return Some(message);
            }
            let read = match &mut self.wire {
                Wire::Udp(socket) => {
                    socket.set_read_timeout(wait).expect("socket option");
                    return socket.recv(&mut piece).ok().map(|n| piece[..n].to_vec());
                }
                Wire::Tcp(stream) => {
                    stream.set_read_timeout(wait).expect("socket option");
                    stream.read(&mut piece)
                }
                Wire::Tls(stream) => {
                    stream.sock.set_read_timeout(wait).expect("socket option");
                    stream.read(&mut piece)
                }
            };
            match read {
                Ok(0) => panic!("the gateway closed the connection"),
                Ok(n) => self.unread.extend_from_slice(&piece[..n]),
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
                {
                    return None;
                }
                Err(e) => panic!("the connection broke: {e}"),
            }
        }
    }

    /// A whole message of a stream.
    fn cut(&mut self) -> Option<Vec<u8>> {
        let [kind, _, high, low] = *self.unread.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let message = if kind & 0xc0 == 0 { 20 + length } else { 4 + length };
        let total = message.next_multiple_of(4);
        if self.unread.len() < total {
            return None;
        }
        let mut frame: Vec<u8> = self.unread.drain(..total).collect();
        frame.truncate(message);
        Some(frame)
    }

    /// Whether the gateway closes the connection within [`PATIENCE`].
    pub fn is_closed(&mut self) -> bool {
        let (stream, mut sink) = match &mut self.wire {
            Wire::Udp(_) => return false,
            Wire::Tcp(stream) => (stream, [0; 4_096]),
            Wire::Tls(stream) => (&mut stream.sock, [0; 4_096]),
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("socket option");
        loop {
            match stream.read(&mut sink) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) => {
                    return !matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    );
                }
            }
        }
    }

    pub fn id(&self) -> [u8; 12] {
        self.next.set(self.next.get() + 1);
        let mut id = *b"0000tests...";
        id[..4].copy_from_slice(&self.next.get().to_be_bytes());
        id
    }

    pub fn key(&self) -> [u8; 16] {
        long_term_key(&self.username, &self.realm, &self.password)
    }

    /// Sends and returns the answer: whatever comes next must be that.
    pub fn exchange(&mut self, request: &[u8]) -> Reply {
        self.send(request);
        let reply = Reply(self.receive(PATIENCE).expect("an answer in time"));
        assert_eq!(reply.id(), &request[8..20], "something came that is no answer: {reply:?}");
        reply
    }

    /// An Allocate that is not signed; its answer.
    pub fn challenge(&mut self) -> Reply {
        let request = Writer::new(ALLOCATE, self.id()).attribute(REQUESTED_TRANSPORT, &UDP).done();
        let reply = self.exchange(&request);
        assert_eq!(reply.code(), 401);
        self.realm = String::from_utf8(reply.first(REALM).expect("REALM")).expect("text");
        self.nonce = reply.first(NONCE).expect("NONCE");
        reply
    }

    /// USERNAME, REALM, NONCE and MESSAGE-INTEGRITY after what is there.
    pub fn sign(&self, writer: Writer) -> Writer {
        writer
            .attribute(USERNAME, self.username.as_bytes())
            .attribute(REALM, self.realm.as_bytes())
            .attribute(NONCE, &self.nonce)
            .integrity(&self.key())
    }

    /// A signed request; its answer.
    pub fn ask(&mut self, kind: u16, fill: impl FnOnce(Writer) -> Writer) -> Reply {
        let writer = fill(Writer::new(kind, self.id()));
        let request = self.sign(writer).done();
        self.exchange(&request)
    }

    /// The challenge, then a signed Allocate; its answer.
    pub fn try_allocate(&mut self) -> Reply {
        self.challenge();
        self.ask(ALLOCATE, |w| w.attribute(REQUESTED_TRANSPORT, &UDP))
    }

    /// Allocates; the relayed address.
    pub fn allocate(&mut self) -> SocketAddr {
        let reply = self.try_allocate();
        assert_eq!(reply.code(), 0, "no allocation");
        reply.address(XOR_RELAYED_ADDRESS).expect("XOR-RELAYED-ADDRESS")
    }

    pub fn permission(&mut self, peer: SocketAddr) -> u16 {
        self.ask(CREATE_PERMISSION, |w| w.xor_address(XOR_PEER_ADDRESS, peer)).code()
    }

    pub fn bind(&mut self, number: u16, peer: SocketAddr) -> u16 {
        let [high, low] = number.to_be_bytes();
        let reply = self.ask(CHANNEL_BIND, |w| {
            w.attribute(CHANNEL_NUMBER, &[high, low, 0, 0]).xor_address(XOR_PEER_ADDRESS, peer)
        });
        reply.code()
    }

    pub fn indication(&mut self, peer: SocketAddr, data: &[u8]) {
        let writer = Writer::new(SEND, self.id()).xor_address(XOR_PEER_ADDRESS, peer);
        let bytes = writer.attribute(DATA, data).done();
        self.send(&bytes);
    }

    /// LIFETIME of a signed Refresh that asks for nothing: proof that what was sent before it was
    /// looked at, and had no answer.
    pub fn settle(&mut self) -> u32 {
        let reply = self.ask(REFRESH, |w| w);
        assert_eq!(reply.code(), 0, "the allocation is gone");
        reply.number(LIFETIME).expect("LIFETIME")
    }
}
