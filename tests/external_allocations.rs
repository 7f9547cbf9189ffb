//! Relaying to and from a peer outside allocates nothing.

mod common;
mod counting;
mod peer;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use common::Network;
use counting::{counted, ignore_this_thread};
use peer::Peer;
use peer::gateway::eventually;
use rand::SeedableRng;
use rand::rngs::StdRng;
use veilgate::auth::secret::Key;
use veilgate::auth::turn::{Class, Keys, Mint};
use veilgate::engine::{Config, Engine};
use veilgate::metrics::Id;
use veilgate::relay;

const ROUNDS: u64 = 5_000;

/// The data plane, at a routable address of the thread's namespace.
fn engine(keys: &Arc<Keys>) -> Engine {
    let udp: SocketAddr = "8.78.0.1:3478".parse().expect("valid");
    let media: SocketAddr = "8.78.0.1:20000".parse().expect("valid");
    let config = Config {
        udp: vec![udp],
        shards: 1,
        relay: relay::Config {
            realm: "veilgate".to_owned(),
            media: vec![media],
            relayed_ip: udp.ip(),
            relayed_ip6: None,
            external: Some(relay::External {
                bound_ip: udp.ip(),
                ip6: None,
                ports: 49_152..=65_535,
                allow: vec!["8.78.0.2".parse().expect("valid")],
                allow_private: Vec::new(),
                own: Vec::new(),
            }),
            excluded_ports: vec![udp.port()],
            limits: relay::Limits {
                allocation_rate: relay::Rate::UNLIMITED,
                ..relay::Limits::default()
            },
            shards: 1,
            shared: relay::Shared::default(),
        },
    };
    Engine::start(&config, keys, &mut StdRng::seed_from_u64(1)).expect("starts").0
}

#[test]
fn ten_thousand_packets_to_and_from_a_peer_outside_allocate_nothing() {
    let network = Network::with(&["8.78.0.1/24", "8.78.0.2/24"], &["8.78.0.3/24"]);
    network.as_gateway(|| {
        ignore_this_thread();
        let key = Key { id: "k1".to_owned(), secret: vec![42; 32] };
        let keys = Arc::new(Keys::new(vec![key]).expect("a strong key"));
        let engine = engine(&keys);
        let span = Duration::from_secs(600);
        let mint = Mint {
            subject: "jitsi",
            room: None,
            class: Class::External,
            ttl: span,
            session_limit: span,
        };
        let minted = keys.mint(engine.handle().clock().now().unix, &mint, [1; 12]).expect("mints");
        let echo = UdpSocket::bind("8.78.0.2:0").expect("bound");
        let server = "8.78.0.1:3478".parse().expect("valid");
        let mut client = Peer::allocate(server, server, &minted);
        client.bind_channel_to(echo.local_addr().expect("bound"));
        let mut buffer = [0; 2_048];
        let mut rounds = |count: u64| {
            for n in 0..count {
                client.send_relayed(&n.to_be_bytes());
                let (len, relayed) = echo.recv_from(&mut buffer).expect("it arrives");
                assert_eq!(relayed, client.relayed);
                echo.send_to(&buffer[..len], relayed).expect("sent");
                assert_eq!(client.recv_relayed().as_deref(), Some(&n.to_be_bytes()[..]));
            }
        };
        rounds(500);
        let allocations = counted(|| rounds(ROUNDS));
        let handle = engine.handle();
        eventually(|| {
            let count = |id| handle.published().iter().map(|p| p.get(id)).sum::<u64>();
            let passed = count(Id::ExternalPacketsOut).min(count(Id::ExternalPacketsIn));
            (passed >= ROUNDS + 500).then_some(())
        });
        // What is done once a second is not per packet.
        assert!(allocations < 100, "{allocations} allocations while {ROUNDS} went each way");
        engine.stop();
    });
}
