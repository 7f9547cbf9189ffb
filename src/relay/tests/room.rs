//! Sealed calls: clients of one room reach each other and nobody else, on one shard or two.

use super::*;

/// A second client of the same relay, of the given room.
struct Call {
    rig: Rig,
    config: Config,
}

fn user(subject: &str, room: &str) -> Minted {
    let mint = Mint {
        subject,
        room: Some(room),
        class: Policy::Room,
        ttl: secs(600),
        session_limit: secs(43_200),
    };
    keys().mint(Unix::from_secs(1_780_000_000), &mint, [9; 12]).unwrap()
}

impl Call {
    fn new() -> Self {
        let config = config();
        Self { rig: Rig::with(config.clone()), config }
    }

    fn become_client(&mut self, subject: &str, room: &str, client: &str) {
        self.rig.user = user(subject, room);
        self.rig.tuple = tuple(client);
        self.rig.nonce.clear();
    }

    /// A client with an allocation; its relayed address.
    fn join(&mut self, subject: &str, room: &str, client: &str) -> SocketAddr {
        self.become_client(subject, room, client);
        let handle = self.rig.allocate();
        self.rig.relay.relayed_address(handle).unwrap()
    }

    /// What a payload of the present client to `peer` becomes.
    fn hairpin(&mut self, peer: SocketAddr) -> Option<Hairpin> {
        match self.rig.send(&send_indication(peer, b"x")) {
            Handled::ToRelayed(to) => Some(to.hairpin),
            Handled::Dropped => None,
            other => panic!("{other:?}"),
        }
    }
}

const ALICE: &str = "198.51.100.7:5000";
const BOB: &str = "198.51.100.8:5000";

#[test]
fn two_clients_of_a_room_reach_each_other() {
    let mut call = Call::new();
    let alice = call.join("alice", "room", ALICE);
    let bob = call.join("bob", "room", BOB);
    assert_ne!(alice, bob);
    assert_eq!(call.rig.permit(alice), Ok(()));
    call.become_client("alice", "room", ALICE);
    assert_eq!(call.rig.bind(0x4000, bob), Ok(()));
    let datagram = [0x40, 0, 0, 2, 7, 7];
    let Handled::ToRelayed(to) = call.rig.send(&datagram) else { panic!("not relayed") };
    let room = RoomHash::of("room");
    assert_eq!(to.hairpin, Hairpin { from: alice, to: bob, room });
    assert_eq!((to.shard, &datagram[to.payload]), (ShardId(3), &[7, 7][..]));
    let route = call.rig.relay.deliver(&to.hairpin).unwrap();
    assert_eq!(route.tuple, tuple(BOB));
    assert_eq!(route.framing, Framing::Indication { peer: alice });
    // Bob answers over a channel of his own.
    call.become_client("bob", "room", BOB);
    assert_eq!(call.rig.bind(0x4123, alice), Ok(()));
    let back = call.hairpin(alice).unwrap();
    assert_eq!(back, Hairpin { from: bob, to: alice, room });
    assert_eq!(call.rig.relay.deliver(&back).unwrap().framing, Framing::Channel(0x4000));
    assert_eq!(call.rig.relay.deliver(&to.hairpin).unwrap().framing, Framing::Channel(0x4123));
    assert_eq!(call.rig.count(Id::RelayPacketsIn), 2);
}

#[test]
fn client_of_another_room_gets_403_everywhere() {
    let mut call = Call::new();
    let alice = call.join("alice", "room", ALICE);
    let mallory = call.join("mallory", "elsewhere", BOB);
    assert_eq!(call.rig.permit(alice), Err(403));
    assert_eq!(call.rig.bind(0x4000, alice), Err(403));
    assert_eq!(call.hairpin(alice), None);
    // A permission for the IP is for her own room's sake; the port is what counts.
    assert_eq!(call.rig.permit(mallory), Ok(()));
    assert_eq!(call.hairpin(alice), None);
    assert_eq!(call.rig.count(Id::RelayDeniedSend), 2);
    let forged = Hairpin { from: mallory, to: alice, room: RoomHash::of("elsewhere") };
    assert_eq!(call.rig.relay.deliver(&forged), None);
}

#[test]
fn room_and_forwarder_do_not_meet() {
    let mut call = Call::new();
    let alice = call.join("alice", "room", ALICE);
    assert_eq!(call.rig.bind(0x4000, media()), Err(403));
    assert_eq!(call.hairpin(media()), None);
    for denied in ["127.0.0.1:80", "169.254.169.254:80", "192.0.2.11:5000", "[::1]:5000"] {
        assert_eq!(call.rig.permit(addr(denied)), Err(403), "{denied}");
        assert_eq!(call.rig.bind(0x4000, addr(denied)), Err(403), "{denied}");
    }
    call.rig.user = mint("user-42", 600, 43_200);
    call.rig.tuple = tuple(BOB);
    call.rig.nonce.clear();
    call.rig.allocate();
    assert_eq!(call.rig.permit(media()), Ok(()));
    assert_eq!(call.rig.bind(0x4000, alice), Err(403));
    assert_eq!(call.hairpin(alice), None);
}

#[test]
fn nothing_is_delivered_without_the_receivers_permission() {
    let mut call = Call::new();
    let alice = call.join("alice", "room", ALICE);
    let bob = call.join("bob", "room", BOB);
    let hairpin = Hairpin { from: alice, to: bob, room: RoomHash::of("room") };
    assert_eq!(call.rig.relay.deliver(&hairpin), None);
    assert_eq!(call.rig.permit(alice), Ok(()));
    assert!(call.rig.relay.deliver(&hairpin).is_some());
    call.rig.wait(secs(300));
    assert_eq!(call.rig.relay.deliver(&hairpin), None, "it has expired");
}

#[test]
fn address_of_an_ended_allocation_is_nobodys() {
    let mut call = Call::new();
    let alice = call.join("alice", "room", ALICE);
    let bob = call.join("bob", "room", BOB);
    assert_eq!(call.rig.permit(alice), Ok(()));
    call.become_client("alice", "room", ALICE);
    assert_eq!(call.rig.bind(0x4000, bob), Ok(()));
    let hairpin = call.hairpin(bob).unwrap();
    call.become_client("bob", "room", BOB);
    assert_eq!(call.rig.refresh(0), Ok(()));
    assert_eq!(call.rig.relay.deliver(&hairpin), None);
    call.become_client("alice", "room", ALICE);
    assert_eq!(call.hairpin(bob), None);
    assert_eq!(call.rig.bind(0x4001, bob), Err(403));
    assert_eq!(call.config.shared.is_of(IpFamily::V4, bob.port(), RoomHash::of("room")), None);
}

#[test]
fn calls_cross_shards_by_the_port() {
    let mut call = Call::new();
    let other = Relay::new(
        call.config.clone(),
        Arc::new(keys()),
        NonceKeys::new([1; 32], None),
        StdRng::seed_from_u64(7),
        ShardId(1),
    );
    let alice = call.join("alice", "room", ALICE);
    let mut bobs = Call { rig: Rig { relay: other.unwrap(), ..Rig::new() }, ..Call::new() };
    let bob = bobs.join("bob", "room", BOB);
    assert_eq!((alice.port() % 4, bob.port() % 4), (3, 1), "port modulo shards is the shard");
    assert_eq!(bobs.rig.permit(alice), Ok(()));
    call.become_client("alice", "room", ALICE);
    assert_eq!(call.rig.bind(0x4000, bob), Ok(()));
    let Handled::ToRelayed(to) = call.rig.send(&[0x40, 0, 0, 1, 7]) else { panic!("dropped") };
    assert_eq!(to.shard, ShardId(1));
    assert_eq!(call.rig.relay.deliver(&to.hairpin), None, "not here");
    assert_eq!(bobs.rig.relay.deliver(&to.hairpin).unwrap().tuple, tuple(BOB));
}

#[test]
fn relayed_addresses_of_rooms_are_unique() {
    let mut config = config();
    config.limits.allocations_per_subject = 2_000;
    config.limits.unauthenticated_replies = u16::MAX;
    let mut call = Call { rig: Rig::with(config.clone()), config };
    let mut seen = std::collections::HashSet::new();
    for port in 1..=1_000 {
        assert!(seen.insert(call.join("alice", "room", &format!("198.51.100.7:{port}"))));
    }
}

#[test]
fn credential_of_that_class_without_a_room_allocates_nothing() {
    let mut rig = Rig::new();
    let nobody = Mint {
        subject: "alice",
        room: None,
        class: Policy::Room,
        ttl: secs(600),
        session_limit: secs(43_200),
    };
    rig.user = keys().mint(Unix::from_secs(1_780_000_000), &nobody, [9; 12]).unwrap();
    assert_eq!(rig.request(Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, UDP)]), Err(403));
    assert_eq!(rig.allocations(), 0);
}

#[test]
fn channels_of_an_allocation_are_bounded() {
    let mut config = config();
    config.limits.unauthenticated_replies = u16::MAX;
    let mut call = Call { rig: Rig::with(config.clone()), config };
    let peers: Vec<_> =
        (1..=9).map(|n| call.join("bob", "room", &format!("198.51.100.8:{n}"))).collect();
    call.join("alice", "room", ALICE);
    for (n, peer) in peers.iter().enumerate() {
        let expected = if n < 8 { Ok(()) } else { Err(508) };
        assert_eq!(call.rig.bind(0x4000 + n as u16, *peer), expected);
    }
    assert_eq!((call.rig.count(Id::RelayChannels), call.rig.count(Id::RelayPermissions)), (8, 1));
    call.rig.wait(secs(599));
    assert_eq!(call.rig.refresh(3600), Ok(()));
    call.rig.wait(secs(1));
    assert_eq!(call.rig.count(Id::RelayChannels), 0);
}

#[test]
fn reserved_pairs_are_not_for_rooms() {
    let mut call = Call::new();
    call.become_client("alice", "room", ALICE);
    let pair = [(attr::REQUESTED_TRANSPORT, UDP), (attr::EVEN_PORT, &[0x80][..])];
    assert_eq!(call.rig.request(Method::ALLOCATE, &pair), Err(508));
    let even = [(attr::REQUESTED_TRANSPORT, UDP), (attr::EVEN_PORT, &[0][..])];
    assert_eq!(call.rig.request(Method::ALLOCATE, &even), Err(508), "shard 3 of 4 has odd ports");
}
