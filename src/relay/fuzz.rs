//! The fuzzers' entry to the authenticated state machine: bytes become a program of requests with
//! valid credentials, data, time and revocations, and after each step everything that must hold is
//! looked at. What a program reached is for the test that replays the corpus
//! (`tests/fuzz_corpus.rs`): a corpus that reaches nothing shows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::auth::revocation::{Revocation, Target};
use crate::auth::turn::{Class as Reach, Key, Mint, Minted, echo_address};
use crate::ids::{ClientAddr, SubjectHash, Transport};
use crate::net::canonical;
use crate::time::Unix;
use crate::wire::stun::{Builder, IntegrityKey, IntegrityKeySha256, TransactionId};
use crate::wire::stun::{long_term_key, long_term_key_sha256};
use table::Allocation;

const REALM: &str = "veilgate";
const START: Unix = Unix::from_secs(1_780_000_000);
const MEDIA: &str = "192.0.2.10:20000";
const MEDIA6: &str = "[2001:db8::10]:20000";
const CLIENTS: [(&str, Transport); 4] = [
    ("198.51.100.7:5000", Transport::Udp),
    ("198.51.100.8:5001", Transport::Tls),
    ("[2001:db8:7::1]:5002", Transport::Tcp),
    ("[2001:db8:7::2]:5003", Transport::Udp),
];
/// Steps of one program: more find nothing new and take long.
const STEPS: usize = 64;
const PAUSES: [u64; 8] = [1, 1_000, 29_000, 61_000, 300_000, 600_000, 3_599_000, 3_600_000];

/// What a program reached.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reached {
    /// Methods that succeeded.
    pub accepted: BTreeSet<u16>,
    /// Error codes that were answered.
    pub refused: BTreeSet<u16>,
    /// Payloads for the forwarder, by Send and by ChannelData.
    pub to_forwarder: [u32; 2],
    /// Payloads for a probe's echo.
    pub to_echo: u32,
    /// Payloads that reached another client of the room.
    pub to_client: u32,
    /// Payloads the forwarder might send to a client.
    pub from_forwarder: u32,
    /// Allocations that ended by revocation, with their connection, by time.
    pub ended: [u64; 3],
}

/// Who a client may say it is.
struct User {
    room: Option<RoomHash>,
    minted: Minted,
    subject: SubjectHash,
    key: IntegrityKey,
    key_sha256: IntegrityKeySha256,
}

fn keys() -> &'static Arc<Keys> {
    static KEYS: OnceLock<Arc<Keys>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let key = Key { id: "k1".to_owned(), secret: vec![7; 32] };
        Arc::new(Keys::new(vec![key]).expect("a strong key"))
    })
}

fn users() -> &'static [User] {
    static USERS: OnceLock<Vec<User>> = OnceLock::new();
    USERS.get_or_init(|| {
        [
            ("alice", Some("lobby"), Reach::Forwarder, 40_000, 90_000),
            // Its time is soon over.
            ("brief", Some("lobby"), Reach::Forwarder, 300, 700),
            ("ann", Some("sealed"), Reach::Room, 40_000, 90_000),
            ("ben", Some("sealed"), Reach::Room, 40_000, 90_000),
            ("eve", Some("elsewhere"), Reach::Room, 40_000, 90_000),
            ("lost", None, Reach::Room, 40_000, 90_000),
            ("probe", None, Reach::Probe, 40_000, 90_000),
        ]
        .map(|(subject, room, class, ttl, limit)| {
            let (ttl, session_limit) = (Duration::from_secs(ttl), Duration::from_secs(limit));
            let mint = Mint { subject, room, class, ttl, session_limit };
            let minted = keys().mint(START, &mint, [9; 12]).expect("sound");
            let (name, password) = (minted.username.as_str(), minted.credential.as_str());
            let key = long_term_key(name, REALM, password).expect("MD5");
            let key_sha256 = long_term_key_sha256(name, REALM, password);
            User {
                room: room.map(RoomHash::of),
                subject: SubjectHash::of(subject),
                key: IntegrityKey::from_bytes(&key),
                key_sha256: IntegrityKeySha256::from_bytes(&key_sha256),
                minted,
            }
        })
        .into()
    })
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Runs a program.
///
/// # Panics
/// When something that must hold does not.
#[must_use]
pub fn program(bytes: &[u8]) -> Reached {
    let mut input = bytes.iter().copied();
    let mut world = World::new(input.next().unwrap_or(0));
    for _ in 0..STEPS {
        let Some(step) = input.next() else { break };
        world.step(step, &mut input);
        world.look();
    }
    world.end();
    world.reached
}

enum Value {
    Plain(Vec<u8>),
    Peer(SocketAddr),
}

struct World {
    relay: Relay,
    shared: Shared,
    now: Now,
    counters: Counters,
    client: usize,
    user: usize,
    sha256: bool,
    transaction: u32,
    /// Targets: what may be reached, what must not be, and relayed addresses as they are made.
    peers: Vec<SocketAddr>,
    token: [u8; 8],
    /// Those of the last request, and the allocations there had been by then.
    last_peers: Vec<SocketAddr>,
    created: u64,
    /// Until when a client has let an IP in, kept apart from the relay's own books.
    permitted: BTreeMap<(usize, IpAddr), Mono>,
    last: Vec<u8>,
    reply: Vec<u8>,
    ended: u64,
    reached: Reached,
}

impl World {
    fn new(options: u8) -> Self {
        let shared = Shared::default();
        let narrow = options & 1 != 0;
        let media = vec![address(MEDIA), address(MEDIA6)];
        let mut limits = Limits::default();
        if narrow {
            limits.allocations = 3;
            limits.allocations_per_subject = 1;
            limits.allocation_rate = Rate { packets: 4, bits: 8_000 };
            limits.unauthenticated_replies = 2;
        }
        let config = Config {
            realm: REALM.to_owned(),
            media,
            relayed_ip: address(MEDIA).ip(),
            relayed_ip6: (options & 2 == 0).then(|| "2001:db8::10".parse().expect("an address")),
            external: None,
            excluded_ports: vec![3478],
            limits,
            shards: 1,
            shared: shared.clone(),
        };
        let nonces = NonceKeys::new([1; 32], None);
        let rng = StdRng::seed_from_u64(options.into());
        let relay = Relay::new(config, Arc::clone(keys()), nonces, rng, ShardId(0));
        Self {
            relay: relay.expect("sound"),
            shared,
            now: Now { mono: Mono::ZERO, unix: START },
            counters: Counters::default(),
            client: 0,
            user: 0,
            sha256: false,
            transaction: 0,
            peers: [
                MEDIA,
                MEDIA6,
                "192.0.2.10:20001",
                "[2001:db8::10]:20001",
                "127.0.0.1:20000",
                "10.0.0.1:80",
                "[::ffff:192.0.2.10]:20000",
                "[64:ff9b::127.0.0.1]:80",
            ]
            .map(address)
            .to_vec(),
            token: [0; 8],
            last_peers: Vec::new(),
            created: 0,
            permitted: BTreeMap::new(),
            last: Vec::new(),
            reply: vec![0; 1_500],
            ended: 0,
            reached: Reached::default(),
        }
    }

    fn tuple(&self) -> FiveTuple {
        let (client, transport) = CLIENTS[self.client % CLIENTS.len()];
        FiveTuple::new(ClientAddr::new(address(client)), transport)
    }

    fn user(&self) -> &'static User {
        let users = users();
        &users[self.user % users.len()]
    }

    fn peer(&self, which: u8) -> SocketAddr {
        self.peers[usize::from(which) % self.peers.len()]
    }

    fn step(&mut self, step: u8, input: &mut impl Iterator<Item = u8>) {
        let mut next = || input.next().unwrap_or(0);
        match step % 20 {
            0 | 1 => {
                let attributes = self.allocate_attributes(next());
                self.request(Method::ALLOCATE, attributes);
            }
            2 => {
                let (lifetime, family) = (next(), next());
                let mut attributes = Vec::new();
                if lifetime != 255 {
                    let seconds = u32::from(lifetime % 8) * 700;
                    let value = seconds.to_be_bytes().to_vec();
                    attributes.push((attr::LIFETIME, Value::Plain(value)));
                }
                if family % 4 != 0 {
                    let value = vec![family % 4, 0, 0, 0];
                    attributes.push((attr::REQUESTED_ADDRESS_FAMILY, Value::Plain(value)));
                }
                self.request(Method::REFRESH, attributes);
            }
            3 => {
                let peers: Vec<_> = (0..next() % 4).map(|_| self.peer(next())).collect();
                let value = |peer: &SocketAddr| (attr::XOR_PEER_ADDRESS, Value::Peer(*peer));
                if self.request(Method::CREATE_PERMISSION, peers.iter().map(value).collect()) {
                    assert!(peers.iter().all(|peer| self.may_permit(*peer)), "{peers:?}");
                }
            }
            4 | 5 => {
                let (number, peer) = (next(), self.peer(next()));
                let number = [0x40 | (number >> 4), number & 15, 0, 0].to_vec();
                let attributes = vec![
                    (attr::CHANNEL_NUMBER, Value::Plain(number)),
                    (attr::XOR_PEER_ADDRESS, Value::Peer(peer)),
                ];
                let before = self.own().map(|own| own.channels);
                if self.request(Method::CHANNEL_BIND, attributes) {
                    assert!(self.may_reach(peer), "{peer}");
                    self.is_no_rebinding(before.expect("allocated"));
                }
            }
            6 | 7 => {
                let (peer, size) = (self.peer(next()), usize::from(next()));
                let mut bytes = vec![0; 600];
                let id = self.transaction();
                let mut builder = Builder::new(&mut bytes, Class::Indication, Method::SEND, id);
                builder.xor_address(attr::XOR_PEER_ADDRESS, peer);
                builder.attribute(attr::DATA, &vec![0xda; size]);
                let len = builder.finish().expect("fits");
                bytes.truncate(len);
                self.data(&bytes);
            }
            8 | 9 => {
                let (number, size) = (next(), next());
                let mut bytes = vec![0x40 | (number >> 4), number & 15, 0, size];
                // Now and then one byte too few, or padding.
                bytes.resize((4 + usize::from(size) + usize::from(step / 20)).max(5) - 1, 0xcd);
                self.data(&bytes);
            }
            10 | 11 => self.wait(next()),
            12 => {
                self.client = next().into();
                self.user = next().into();
                self.sha256 = self.user & 128 != 0;
            }
            13 => self.user = next().into(),
            14 => self.revoke(next(), next()),
            15 => {
                let tuple = self.tuple();
                self.relay.on_disconnect(self.now, tuple, &mut self.counters);
                assert!(!tuple.transport.is_stream() || !self.relay.has_allocation(tuple));
            }
            16 => {
                let alternate = Alternate { v4: Some(address("203.0.113.9:3478")), v6: None };
                self.relay.set_draining((next() % 2 == 0).then_some(alternate));
            }
            17 => self.repeat(next(), next()),
            18 => {
                let bytes: Vec<u8> = (0..next() % 64).map(|_| next()).collect();
                let _ = self.send(&bytes);
            }
            _ => {
                let fresh = NonceKey::new([next(); 32]);
                self.relay.rotate_nonces(self.now.mono, &fresh, &mut self.counters);
                self.towards_client(next());
            }
        }
    }

    fn allocate_attributes(&self, wish: u8) -> Vec<(u16, Value)> {
        let plain = |kind, value: &[u8]| (kind, Value::Plain(value.to_vec()));
        let mut attributes = vec![plain(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0])];
        let more = match wish % 16 {
            1 => plain(attr::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0]),
            2 | 3 => plain(attr::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]),
            4 | 5 => plain(attr::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]),
            6 => plain(attr::ADDITIONAL_ADDRESS_FAMILY, &[1, 0, 0, 0]),
            7 => plain(attr::EVEN_PORT, &[0]),
            8 | 9 => plain(attr::EVEN_PORT, &[0x80]),
            10 | 11 => plain(attr::RESERVATION_TOKEN, &self.token),
            12 => plain(attr::DONT_FRAGMENT, &[]),
            13 => plain(0x7f00, &[1, 2]),
            14 => {
                attributes.clear();
                plain(attr::REQUESTED_TRANSPORT, &[6, 0, 0, 0])
            }
            15 => plain(attr::REQUESTED_ADDRESS_FAMILY, &[9, 0, 0, 0]),
            _ => return attributes,
        };
        attributes.push(more);
        attributes
    }

    fn transaction(&mut self) -> TransactionId {
        self.transaction += 1;
        let mut id = [0x5e; 12];
        id[..4].copy_from_slice(&self.transaction.to_be_bytes());
        TransactionId(id)
    }

    /// A request that is right in all its parts. True when it succeeds.
    fn request(&mut self, method: Method, attributes: Vec<(u16, Value)>) -> bool {
        let (id, user, tuple) = (self.transaction(), self.user(), self.tuple());
        let nonce = self.relay.nonces.mint(self.now.unix, tuple.client.expose());
        let mut bytes = vec![0; 1_000];
        let mut builder = Builder::new(&mut bytes, Class::Request, method, id);
        self.last_peers.clear();
        for (kind, value) in attributes {
            match value {
                Value::Plain(value) => builder.attribute(kind, &value),
                Value::Peer(peer) => {
                    self.last_peers.push(peer);
                    builder.xor_address(kind, peer);
                }
            }
        }
        builder.text(attr::USERNAME, &user.minted.username);
        builder.text(attr::REALM, REALM);
        builder.attribute(attr::NONCE, &nonce);
        if self.sha256 {
            builder.attribute(attr::PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0]);
            builder.attribute(attr::PASSWORD_ALGORITHM, &[0, 2, 0, 0]);
            builder.integrity_sha256(&user.key_sha256);
        } else {
            builder.integrity(&user.key);
        }
        let len = builder.finish().expect("fits");
        bytes.truncate(len);
        self.last.clone_from(&bytes);
        let handled = self.send(&bytes);
        let Handled::Reply(len) = handled else {
            assert_eq!(handled, Handled::Dropped, "an answer or nothing");
            return false;
        };
        let reply = self.reply[..len].to_vec();
        let reply = Message::parse(&reply).expect("what we write is well-formed");
        assert_eq!((reply.transaction_id(), reply.method()), (id, method));
        let signed = if self.sha256 {
            reply.verify_integrity_sha256(&user.key_sha256)
        } else {
            reply.verify_integrity(&user.key)
        };
        if let Some(code) = reply.error_code() {
            assert_eq!(reply.class(), Class::Error);
            assert_eq!(signed, code != 401, "{code}");
            assert_ne!(code, 438, "the nonce was fresh");
            self.reached.refused.insert(code);
            return false;
        }
        assert!(reply.class() == Class::Success && signed);
        self.reached.accepted.insert(method.0);
        self.note(method);
        assert!(reply.u32(attr::LIFETIME).is_none_or(|lifetime| lifetime <= 3_600));
        for (kind, value) in reply.attributes() {
            if kind == attr::XOR_RELAYED_ADDRESS && self.peers.len() < 24 {
                let relayed = reply.decode_xor_address(value).expect("written by us");
                assert!(
                    relayed.port() >= 1_024 && ![3478, 20_000, 20_001].contains(&relayed.port())
                );
                self.peers.push(relayed);
            }
        }
        if let Some(token) = reply.first(attr::RESERVATION_TOKEN) {
            self.token = token.try_into().expect("eight bytes");
        }
        true
    }

    fn send(&mut self, bytes: &[u8]) -> Handled {
        let tuple = self.tuple();
        self.relay.handle(self.now, tuple, bytes, &mut self.reply, &mut self.counters)
    }

    /// The allocation of the current client.
    fn own(&self) -> Option<&Allocation> {
        self.relay.table.get(self.relay.table.find(self.tuple())?)
    }

    /// Written without the policy's own words: the addresses a client may name.
    fn may_permit(&self, peer: SocketAddr) -> bool {
        let Some(own) = self.own() else { return false };
        let ours = [address(MEDIA).ip(), address(MEDIA6).ip()];
        let stranger = |room| self.holder(peer).is_some_and(|holder| holder != Some(room));
        ours.contains(&peer.ip())
            && own.owner.room.is_none_or(|room| own.owner.class != Reach::Room || !stranger(room))
    }

    /// Keeps the model: the last request has succeeded, for the first time or once more.
    fn note(&mut self, method: Method) {
        let client = self.client % CLIENTS.len();
        let created = self.counters.get(Id::RelayAllocationsCreated);
        if method == Method::ALLOCATE && created > self.created {
            self.permitted.retain(|(of, _), _| *of != client);
        }
        self.created = created;
        let until = self.now.mono.plus(Duration::from_secs(300));
        for peer in &self.last_peers {
            self.permitted.insert((client, peer.ip()), until);
        }
    }

    /// Whether a client has lately let an IP in.
    fn has_permitted(&self, tuple: FiveTuple, ip: IpAddr) -> bool {
        let client = CLIENTS.iter().position(|(it, _)| address(it) == tuple.client.expose());
        let until = self.permitted.get(&(client.expect("one of ours"), ip));
        // What has no time of its own goes by the last that the relay was told.
        until.is_some_and(|until| *until > self.relay.clock)
    }

    /// A number keeps its peer and a peer its number while they live.
    fn is_no_rebinding(&self, before: [table::Channel; table::MAX_CHANNELS]) {
        let now = self.own().expect("allocated").channels;
        let is_live =
            |channel: &&table::Channel| channel.number != 0 && channel.until > self.now.mono;
        for old in before.iter().filter(is_live) {
            for new in now.iter().filter(is_live) {
                assert_eq!(old.number == new.number, old.peer == new.peer);
            }
        }
    }

    /// The addresses a client may send to.
    fn may_reach(&self, peer: SocketAddr) -> bool {
        let Some(own) = self.own() else { return false };
        let media = [address(MEDIA), address(MEDIA6)];
        match own.owner.class {
            Reach::Forwarder => media.contains(&peer),
            Reach::Probe => {
                media.iter().any(|media| *media == peer || echo_address(*media) == Some(peer))
            }
            Reach::External => unreachable!("off"),
            Reach::Room => own.owner.room.is_some() && self.holder(peer) == Some(own.owner.room),
        }
    }

    /// The room of whoever has a relayed address as a member of one.
    fn holder(&self, peer: SocketAddr) -> Option<Option<RoomHash>> {
        let families = [address(MEDIA).ip(), address(MEDIA6).ip()];
        let family = families.iter().position(|ip| *ip == peer.ip())?;
        let members = live(&self.relay).filter(|member| member.owner.class == Reach::Room);
        let mut holders = members.filter(|member| member.relayed[family].port == peer.port());
        let holder = holders.next().map(|member| member.owner.room);
        assert!(holders.next().is_none(), "addresses of rooms are unique");
        holder
    }

    fn data(&mut self, bytes: &[u8]) {
        let by_channel = usize::from(bytes[0] & 0x40 != 0);
        match self.send(bytes) {
            Handled::Dropped => {}
            Handled::Reply(_) => panic!("data is never answered"),
            Handled::ToExternal(_) => panic!("the external policy is off"),
            Handled::ToPeer(to) => {
                assert!(bytes.get(to.payload).is_some_and(|payload| payload.len() < 256));
                assert!(self.may_reach(to.peer), "{}", to.peer);
                let own = self.relay.table.resolve(to.allocation).expect("live");
                assert_eq!(own.tuple, self.tuple());
                assert!(by_channel == 1 || self.has_permitted(self.tuple(), to.peer.ip()));
                if to.peer.port() == address(MEDIA).port() {
                    self.reached.to_forwarder[by_channel] += 1;
                } else {
                    self.reached.to_echo += 1;
                }
            }
            Handled::ToRelayed(to) => {
                assert!(bytes.get(to.payload).is_some());
                let own = self.own().expect("who sends has an allocation");
                let sender = (own.owner.room, own.owner.class);
                assert_eq!(sender, (Some(to.hairpin.room), Reach::Room));
                let (from, to_ip) = (to.hairpin.from.ip(), to.hairpin.to.ip());
                assert!(by_channel == 1 || self.has_permitted(self.tuple(), to_ip));
                let Some(route) = self.relay.deliver(&to.hairpin) else { return };
                assert!(self.has_permitted(route.tuple, from), "the receiver let it in");
                let receiver = self.relay.owner(route.allocation).expect("live");
                assert_eq!((receiver.room, receiver.class), sender, "one room");
                self.reached.to_client += 1;
                let _ = self.relay.charge(self.now.mono, route.allocation, 1, &mut self.counters);
            }
        }
    }

    fn towards_client(&mut self, which: u8) {
        let Some(handle) = self.relay.table.handle(u32::from(which >> 4)) else { return };
        let peer = self.peer(which & 15);
        let Some(route) = self.relay.route(handle, &peer) else { return };
        let allocation = self.relay.table.resolve(handle).expect("it has a route");
        assert_eq!((route.allocation, route.tuple), (handle, allocation.tuple));
        assert!(self.has_permitted(route.tuple, canonical(peer.ip())));
        self.reached.from_forwarder += 1;
        let mut slot = [0; HEADROOM + 100 + TAILROOM];
        let payload = HEADROOM..HEADROOM + usize::from(which % 100);
        assert!(route.framing.encapsulate(&mut slot, payload, [3; 12]).is_some());
        let _ = self.relay.charge(self.now.mono, handle, 100, &mut self.counters);
    }

    /// Time passes; its timers run, or come late.
    fn wait(&mut self, pause: u8) {
        let millis = PAUSES[usize::from(pause) % PAUSES.len()];
        self.now = self.now.advanced(Duration::from_millis(millis));
        if pause & 0x80 == 0 {
            self.run_timers();
        }
    }

    fn run_timers(&mut self) {
        self.relay.handle_timeout(self.now, &mut self.counters);
        let mut turns = 0;
        while self.relay.poll_timeout().is_some_and(|at| at <= self.now.mono) {
            self.relay.handle_timeout(self.now, &mut self.counters);
            turns += 1;
            assert!(turns < 100, "timers come to an end");
        }
        let now = self.now.mono;
        for allocation in live(&self.relay) {
            assert!(allocation.expires() > now, "what is due has ended");
            let permissions = allocation.permissions.iter();
            assert!(permissions.into_iter().all(|until| *until == Mono::ZERO || *until > now));
            assert!(allocation.channels.iter().all(|it| it.number == 0 || it.until > now));
            assert!(!self.relay.is_revoked(self.now.unix, &allocation.identity()));
        }
    }

    fn revoke(&mut self, what: u8, how: u8) {
        let user = &users()[usize::from(what) % users().len()];
        let target = match (how % 3, user.room) {
            (0, _) => Target::Credential(crate::ids::CredentialId::of(&user.minted.username)),
            (1, Some(room)) => Target::Room(room),
            _ => Target::Subject(user.subject),
        };
        let expires = self.now.advanced(Duration::from_secs(u64::from(how) * 60)).unix;
        let revocation = Revocation { target, not_before: self.now.unix, expires };
        self.relay.revoke(self.now, &[revocation]);
        if how & 0x80 == 0 {
            self.run_timers();
        }
    }

    /// The last request once more, whole or with one byte altered.
    fn repeat(&mut self, at: u8, flip: u8) {
        let created = self.counters.get(Id::RelayAllocationsCreated);
        let lives = self.own().is_some();
        let mut bytes = self.last.clone();
        if let Some(byte) = bytes.get_mut(usize::from(at)) {
            *byte ^= flip;
        }
        let handled = self.send(&bytes);
        let reply = match handled {
            Handled::Reply(len) => Message::parse(&self.reply[..len]).ok(),
            _ => None,
        };
        let success = reply.filter(|reply| reply.class() == Class::Success);
        if let Some(method) = success.map(|reply| reply.method()) {
            assert_eq!(bytes, self.last, "every byte of a request is signed");
            self.note(method);
        }
        if lives {
            let now = self.counters.get(Id::RelayAllocationsCreated);
            // One that had expired may be made anew.
            assert!(
                now == created
                    || self.counters.get(Id::RelayAllocationsEndedExpired) > 0
                    || self.counters.get(Id::RelayAllocationsEndedSessionLimit) > 0
            );
        }
    }

    /// What holds at any time.
    fn look(&mut self) {
        while self.relay.poll_ended().is_some() {
            self.ended += 1;
        }
        let (now, get) = (self.now, |id| self.counters.get(id));
        let mut sums = [0; 3];
        let mut ports = 0;
        for allocation in live(&self.relay) {
            let set = |until: &&Mono| **until != Mono::ZERO;
            let permissions = allocation.permissions.iter().filter(set);
            let channels = allocation.channels.iter().filter(|channel| channel.number != 0);
            sums[0] += 1;
            sums[1] += permissions.clone().count() as u64;
            sums[2] += channels.clone().count() as u64;
            let within =
                |until: Mono, seconds: u64| until <= now.mono.plus(Duration::from_secs(seconds));
            assert!(within(allocation.expires(), 3_600), "an hour at most");
            assert!(permissions.into_iter().all(|until| within(*until, 300)));
            assert!(channels.into_iter().all(|channel| within(channel.until, 600)));
            let left = allocation.live_until.as_micros().saturating_sub(now.unix.as_micros());
            let limit = now.mono.plus(Duration::from_micros(left));
            // Of what has expired the timer may be late.
            assert!(allocation.expires() <= limit.max(now.mono), "never past the session limit");
            if allocation.owner.class == Reach::Room {
                ports += allocation.relayed.iter().filter(|relayed| relayed.port != 0).count();
            }
        }
        let gauges = [Id::RelayAllocations, Id::RelayPermissions, Id::RelayChannels].map(get);
        assert_eq!(gauges, sums, "the gauges are the table's");
        assert_eq!(self.shared.claimed(), ports, "every port of a room has a live allocation");
        assert_eq!(get(Id::RelayAllocationsCreated), self.ended + sums[0], "none is lost");
        assert!(u64::from(self.relay.config.limits.allocations) >= sums[0]);
    }

    /// Everything ends by itself.
    fn end(&mut self) {
        self.now = self.now.advanced(Duration::from_secs(3_601));
        self.run_timers();
        self.look();
        assert_eq!(self.counters.get(Id::RelayAllocations), 0);
        let ended = [
            Id::RelayAllocationsEndedRevoked,
            Id::RelayAllocationsEndedDisconnected,
            Id::RelayAllocationsEndedExpired,
        ];
        self.reached.ended = ended.map(|id| self.counters.get(id));
    }
}

fn live(relay: &Relay) -> impl Iterator<Item = &Allocation> {
    (0..relay.table.slots()).filter_map(|index| relay.table.get(index))
}
