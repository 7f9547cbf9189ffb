//! The data plane and its control in this process, on loopback, without HTTP.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use veilgate::auth::secret::Key;
use veilgate::auth::turn::{Class, Keys, Mint, Minted};
use veilgate::control::{self, Control, Principal};
use veilgate::engine::{Config, Engine, Handle};
use veilgate::metrics::Id;
use veilgate::{ids, relay, session};

use super::{Identity, Peer, Remote, offer};

pub const MEDIA: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 20_000);

pub struct Gateway {
    engine: Option<Engine>,
    pub control: Control,
    pub udp: SocketAddr,
    pub keys: Arc<Keys>,
    pub runtime: tokio::runtime::Runtime,
    minted: u8,
}

impl Gateway {
    pub fn start(shards: usize) -> Self {
        Self::start_with(shards, relay::Limits::default())
    }

    /// With other bounds of the relay.
    pub fn start_with(shards: usize, limits: relay::Limits) -> Self {
        Self::start_at(shards, vec![free_port("127.0.0.1:0")], None, limits)
    }

    /// With UDP ports of one's choice, and IPv6 relayed addresses where there is an IP for them.
    pub fn start_at(
        shards: usize,
        ports: Vec<SocketAddr>,
        ip6: Option<Ipv6Addr>,
        limits: relay::Limits,
    ) -> Self {
        let udp = ports[0];
        let mut media = vec![MEDIA];
        media.extend(ip6.map(|ip6| SocketAddr::from((ip6, MEDIA.port()))));
        let key = Key { id: "k1".to_owned(), secret: vec![42; 32] };
        let keys = Arc::new(Keys::new(vec![key]).expect("a strong key"));
        let config = Config {
            udp: ports.clone(),
            shards,
            relay: relay::Config {
                realm: "veilgate".to_owned(),
                media: media.clone(),
                relayed_ip: MEDIA.ip(),
                relayed_ip6: ip6,
                external: None,
                excluded_ports: ports.iter().map(SocketAddr::port).collect(),
                limits,
                shards: 1,
                shared: relay::Shared::default(),
            },
        };
        let mut rng = StdRng::seed_from_u64(1);
        let (engine, events) = Engine::start(&config, &keys, &mut rng).expect("starts");
        let made = rcgen::generate_simple_self_signed(["veilgate".to_owned()]).expect("makes one");
        let dtls = session::dtls::Context::new(
            made.cert.pem().as_bytes(),
            &made.signing_key.serialize_pem(),
        );
        let control = Control::new(
            control::Config {
                media,
                urls: vec![format!("turn:{udp}?transport=udp")],
                credential_ttl: Duration::from_secs(600),
                session_limit: Duration::from_secs(3_600),
                external: false,
                max_sessions: 1_000,
            },
            Arc::clone(&keys),
            engine.handle(),
            Arc::new(dtls.expect("a certificate of ours")),
            rng,
        );
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let running = control.clone();
        runtime.spawn(async move { running.run(events).await });
        Self { engine: Some(engine), control, udp, keys, runtime, minted: 0 }
    }

    /// The data plane.
    pub fn engine(&self) -> Handle {
        self.engine.as_ref().expect("running").handle()
    }

    pub fn mint(&mut self, subject: &str) -> Minted {
        self.mint_for(subject, None, Class::Forwarder)
    }

    pub fn mint_for(&mut self, subject: &str, room: Option<&str>, class: Class) -> Minted {
        self.minted = self.minted.wrapping_add(1);
        let mint = Mint {
            subject,
            room,
            class,
            ttl: Duration::from_secs(600),
            session_limit: Duration::from_secs(3_600),
        };
        let now = self.control.now().unix;
        self.keys.mint(now, &mint, [self.minted; 12]).expect("mints")
    }

    /// Two clients of a room on one shard of two, or on both: a room's port says on which.
    pub fn sealed_pair(&mut self, across: bool) -> (Peer, Peer) {
        let mut first: Option<Peer> = None;
        for n in 0..40 {
            let minted = self.mint_for(&format!("guest{n}"), Some("sealed"), Class::Room);
            let client = Peer::allocate(self.udp, MEDIA, &minted);
            match first {
                Some(first)
                    if (first.relayed.port() % 2 != client.relayed.port() % 2) == across =>
                {
                    return (first, client);
                }
                Some(_) => {}
                None => first = Some(client),
            }
        }
        panic!("40 clients, and all but the first on one of two shards");
    }

    pub fn principal(subject: &str) -> Principal {
        Principal { subject: subject.to_owned(), room: None, jti: "j".to_owned() }
    }

    /// A connected publisher of `name`.
    pub fn publisher(&mut self, name: &str) -> (Peer, Remote) {
        let (peer, remote, _) = self.publish_as(name, "alice");
        (peer, remote)
    }

    /// As [`Self::publisher`], by another subject each round; also the session's resource.
    pub fn publisher_of(&mut self, name: &str, round: usize) -> (Peer, Remote, String) {
        self.publish_as(name, &format!("alice{round}"))
    }

    fn publish_as(&mut self, name: &str, subject: &str) -> (Peer, Remote, String) {
        let identity = Identity::new();
        let name: ids::StreamName = name.parse().expect("a name");
        let who = Self::principal(subject);
        let sdp = offer(&identity, "sendonly", "pubufrag");
        // The stream before may be ending.
        let accepted = eventually(|| self.control.publish(&name, &who, &sdp).ok());
        let remote = Remote::from_answer(&accepted.answer);
        let minted = self.mint(subject);
        let mut peer = Peer::allocate(self.udp, remote.media, &minted);
        peer.connect(&identity, "pubufrag", &remote);
        (peer, remote, accepted.resource)
    }

    /// A connected player of `name`; waits for the publisher to be known as connected.
    pub fn player(&mut self, name: &str, subject: &str) -> (Peer, Remote, String) {
        let identity = Identity::new();
        let name: ids::StreamName = name.parse().expect("a name");
        let who = Self::principal(subject);
        let sdp = offer(&identity, "recvonly", "plyufrag");
        let accepted = eventually(|| self.control.play(&name, &who, &sdp).ok());
        let remote = Remote::from_answer(&accepted.answer);
        let minted = self.mint(subject);
        let mut peer = Peer::allocate(self.udp, remote.media, &minted);
        peer.connect(&identity, "plyufrag", &remote);
        (peer, remote, accepted.resource)
    }

    pub fn count(&self, id: Id) -> u64 {
        let engine = self.engine.as_ref().expect("running");
        engine.handle().published().iter().map(|p| p.get(id)).sum()
    }

    /// A sample of each shard.
    pub fn by_shard(&self, id: Id) -> Vec<u64> {
        let engine = self.engine.as_ref().expect("running");
        engine.handle().published().iter().map(|p| p.get(id)).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.stop();
        }
    }
}

/// A UDP address that was free just now.
pub fn free_port(at: &str) -> SocketAddr {
    UdpSocket::bind(at).expect("loopback").local_addr().expect("bound")
}

/// Polls until there is something: shards publish and report in their own time.
pub fn eventually<T>(mut poll: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1_000 {
        if let Some(found) = poll() {
            return found;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("it did not happen within ten seconds");
}
