//! Scripts: a datagram and a time in, exact output out.

mod allocate;
mod auth;
mod bounds;
mod external;
mod fuzz;
mod ipv6;
mod peers;
mod revoke;
mod room;
mod sha256;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::ending::TIMEOUT_BATCH;
use super::*;
use crate::auth::turn::{Class as Policy, Key, Mint, Minted};
use crate::ids::{ClientAddr, Transport};
use crate::time::Unix;
use crate::wire::stun::{Builder, IntegrityKey, TransactionId};

const REALM: &str = "veilgate";
const MEDIA: &str = "192.0.2.10:20000";
/// REQUESTED-TRANSPORT: UDP.
const UDP: &[u8] = &[17, 0, 0, 0];

fn media() -> SocketAddr {
    MEDIA.parse().unwrap()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn keys() -> Keys {
    Keys::new(vec![Key { id: "k1".to_owned(), secret: vec![7; 32] }]).unwrap()
}

fn config() -> Config {
    Config {
        realm: REALM.to_owned(),
        media: vec![media()],
        relayed_ip: media().ip(),
        relayed_ip6: None,
        external: None,
        excluded_ports: vec![3478],
        limits: Limits::default(),
        shards: 4,
        shared: Shared::default(),
    }
}

/// A relay, its clock and one client's view.
struct Rig {
    relay: Relay,
    now: Now,
    counters: Counters,
    tuple: FiveTuple,
    user: Minted,
    nonce: Vec<u8>,
    tid: u8,
    reply: Vec<u8>,
}

fn tuple(client: &str) -> FiveTuple {
    FiveTuple::new(ClientAddr::new(addr(client)), Transport::Udp)
}

fn mint(subject: &str, ttl: u64, session_limit: u64) -> Minted {
    let mint = Mint {
        subject,
        room: Some("lobby"),
        class: Policy::Forwarder,
        ttl: secs(ttl),
        session_limit: secs(session_limit),
    };
    keys().mint(Unix::from_secs(1_780_000_000), &mint, [9; 12]).unwrap()
}

impl Rig {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: Config) -> Self {
        let relay = Relay::new(
            config,
            Arc::new(keys()),
            NonceKeys::new([1; 32], None),
            StdRng::seed_from_u64(42),
            ShardId(3),
        )
        .unwrap();
        Self {
            relay,
            now: Now { mono: Mono::from_nanos(0), unix: Unix::from_secs(1_780_000_000) },
            counters: Counters::default(),
            tuple: tuple("198.51.100.7:5000"),
            user: mint("user-42", 600, 43_200),
            nonce: Vec::new(),
            tid: 0,
            reply: vec![0xff; 1500],
        }
    }

    /// With an allocation.
    fn allocated() -> Self {
        let mut rig = Self::new();
        rig.allocate();
        rig
    }

    /// With an allocation, a permission for the media IP and, if given, a channel.
    fn connected(channel: Option<u16>) -> Self {
        let mut rig = Self::allocated();
        assert_eq!(rig.permit(media()), Ok(()));
        if let Some(number) = channel {
            assert_eq!(rig.bind(number, media()), Ok(()));
        }
        rig
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now.advanced(by);
    }

    /// Advances and lets timers run.
    fn wait(&mut self, by: Duration) {
        self.advance(by);
        self.relay.handle_timeout(self.now, &mut self.counters);
    }

    fn send(&mut self, datagram: &[u8]) -> Handled {
        self.relay.handle(self.now, self.tuple, datagram, &mut self.reply, &mut self.counters)
    }

    /// The reply to a datagram that must get one.
    fn ask(&mut self, datagram: &[u8]) -> Vec<u8> {
        match self.send(datagram) {
            Handled::Reply(len) => self.reply[..len].to_vec(),
            other => panic!("no reply but {other:?}"),
        }
    }

    fn next_tid(&mut self) -> TransactionId {
        self.tid = self.tid.wrapping_add(1);
        TransactionId([self.tid; 12])
    }

    fn key(&self) -> IntegrityKey {
        IntegrityKey::long_term(&self.user.username, REALM, &self.user.credential).unwrap()
    }

    /// A request with the long-term credential.
    fn signed(&mut self, method: Method, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let tid = self.next_tid();
        let nonce = self.nonce.clone();
        let (user, key) = (self.user.username.clone(), self.key());
        message(method, tid, |builder| {
            for (kind, value) in attributes {
                builder.attribute(*kind, value);
            }
            builder.text(attr::USERNAME, &user);
            builder.text(attr::REALM, REALM);
            builder.attribute(attr::NONCE, &nonce);
            builder.integrity(&key);
        })
    }

    /// Gets a nonce by an unauthenticated Allocate, as clients do.
    fn challenge(&mut self) {
        let tid = self.next_tid();
        let first = message(Method::ALLOCATE, tid, |builder| {
            builder.attribute(attr::REQUESTED_TRANSPORT, UDP);
        });
        let reply = self.ask(&first);
        let reply = Message::parse(&reply).unwrap();
        assert_eq!(reply.error_code(), Some(401));
        self.nonce = reply.first(attr::NONCE).unwrap().to_vec();
    }

    /// One request: `Ok` or the error code. The reply's MESSAGE-INTEGRITY must be right, unless it
    /// is a challenge.
    fn request(&mut self, method: Method, attributes: &[(u16, &[u8])]) -> Result<(), u16> {
        if self.nonce.is_empty() {
            self.challenge();
        }
        let datagram = self.signed(method, attributes);
        let reply = self.ask(&datagram);
        let key = self.key();
        let reply = Message::parse(&reply).unwrap();
        assert_eq!(reply.method(), method);
        assert_eq!(reply.transaction_id(), Message::parse(&datagram).unwrap().transaction_id());
        match reply.error_code() {
            None => {
                assert_eq!(reply.class(), Class::Success);
                assert!(reply.verify_integrity(&key));
                Ok(())
            }
            Some(code) => {
                assert_eq!(reply.class(), Class::Error);
                assert_eq!(reply.verify_integrity(&key), !matches!(code, 401 | 438), "{code}");
                Err(code)
            }
        }
    }

    fn allocate(&mut self) -> AllocationHandle {
        assert_eq!(self.request(Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, UDP)]), Ok(()));
        self.handle()
    }

    fn handle(&self) -> AllocationHandle {
        let index = self.relay.table.find(self.tuple).expect("allocated");
        self.relay.table.handle(index).expect("live")
    }

    fn refresh(&mut self, lifetime: u32) -> Result<(), u16> {
        self.request(Method::REFRESH, &[(attr::LIFETIME, &lifetime.to_be_bytes())])
    }

    fn permit(&mut self, peer: SocketAddr) -> Result<(), u16> {
        let tid = TransactionId([self.tid.wrapping_add(1); 12]);
        let peer = xor(peer, tid);
        self.request(Method::CREATE_PERMISSION, &[(attr::XOR_PEER_ADDRESS, &peer)])
    }

    fn bind(&mut self, channel: u16, peer: SocketAddr) -> Result<(), u16> {
        let tid = TransactionId([self.tid.wrapping_add(1); 12]);
        let peer = xor(peer, tid);
        let [a, b] = channel.to_be_bytes();
        self.request(
            Method::CHANNEL_BIND,
            &[(attr::CHANNEL_NUMBER, &[a, b, 0, 0]), (attr::XOR_PEER_ADDRESS, &peer)],
        )
    }

    /// LIFETIME of the last reply.
    fn lifetime(&self) -> Option<u32> {
        self.last().u32(attr::LIFETIME)
    }

    /// The last reply.
    fn last(&self) -> Message<'_> {
        let len = 20 + usize::from(u16::from_be_bytes([self.reply[2], self.reply[3]]));
        Message::parse(&self.reply[..len]).unwrap()
    }

    fn count(&self, id: Id) -> u64 {
        self.counters.get(id)
    }

    fn allocations(&self) -> usize {
        self.relay.table.len()
    }
}

fn message(method: Method, tid: TransactionId, fill: impl FnOnce(&mut Builder<'_>)) -> Vec<u8> {
    build(Class::Request, method, tid, fill)
}

fn build(
    class: Class,
    method: Method,
    tid: TransactionId,
    fill: impl FnOnce(&mut Builder<'_>),
) -> Vec<u8> {
    let mut buf = vec![0; 2000];
    let mut builder = Builder::new(&mut buf, class, method, tid);
    fill(&mut builder);
    let len = builder.finish().expect("fits");
    buf.truncate(len);
    buf
}

/// The value of an XOR address attribute.
fn xor(address: SocketAddr, tid: TransactionId) -> Vec<u8> {
    let bytes = message(Method::BINDING, tid, |builder| {
        builder.xor_address(attr::XOR_PEER_ADDRESS, address);
    });
    bytes[24..].to_vec()
}

/// A Send indication.
fn send_indication(peer: SocketAddr, data: &[u8]) -> Vec<u8> {
    build(Class::Indication, Method::SEND, TransactionId([0x5e; 12]), |builder| {
        builder.xor_address(attr::XOR_PEER_ADDRESS, peer);
        builder.attribute(attr::DATA, data);
    })
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
