//! The classic TURN server: real ports, peers outside, and who may never be one.

mod ports;
mod reach;

use std::collections::HashSet;
use std::sync::Mutex;

use super::*;
use crate::auth::revocation::{Revocation, Target};
use crate::ids::SubjectHash;
use crate::net::Net;

const TRANSPORT: (u16, &[u8]) = (attr::REQUESTED_TRANSPORT, UDP);
const V6: &[u8] = &[2, 0, 0, 0];
const PUBLIC: &str = "8.78.0.1";
const PUBLIC6: &str = "2a01:78::1";
const PEER: &str = "8.78.1.9:5000";

/// What has become of sockets; clones share it.
#[derive(Clone, Default)]
struct Sockets(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    open: HashSet<Outlet>,
    held: HashSet<(Outlet, u64)>,
    /// Ports of other programs.
    foreign: HashSet<u16>,
    exhausted: bool,
    asked: usize,
}

impl Sockets {
    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    fn open(&self) -> usize {
        self.with(|state| state.open.len())
    }

    fn held(&self) -> usize {
        self.with(|state| state.held.len())
    }
}

impl State {
    fn ask(&mut self, outlet: Outlet) -> Opened {
        self.asked += 1;
        let taken = self.foreign.contains(&outlet.port)
            || self.open.contains(&outlet)
            || self.held.iter().any(|(held, _)| *held == outlet);
        match (self.exhausted, taken) {
            (true, _) => Opened::Exhausted,
            (_, true) => Opened::Taken,
            _ => Opened::Yes,
        }
    }
}

impl Opener for Sockets {
    fn open(&mut self, outlet: Outlet) -> Opened {
        self.with(|state| {
            let answer = state.ask(outlet);
            if answer == Opened::Yes {
                state.open.insert(outlet);
            }
            answer
        })
    }

    fn close(&mut self, outlet: Outlet) {
        assert!(self.with(|state| state.open.remove(&outlet)), "closed once, and only if open");
    }

    fn reserve(&mut self, outlet: Outlet, token: u64) -> Opened {
        self.with(|state| {
            let answer = state.ask(outlet);
            if answer == Opened::Yes {
                state.held.insert((outlet, token));
            }
            answer
        })
    }

    fn take(&mut self, outlet: Outlet, token: u64) -> bool {
        self.with(|state| {
            let there = state.held.remove(&(outlet, token));
            if there {
                state.open.insert(outlet);
            }
            there
        })
    }

    fn forget(&mut self, outlet: Outlet, token: u64) -> bool {
        self.with(|state| state.held.remove(&(outlet, token)))
    }
}

fn nets(texts: &[&str]) -> Vec<Net> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn external() -> External {
    External {
        bound_ip: PUBLIC.parse().unwrap(),
        ip6: Some(PUBLIC6.parse().unwrap()),
        ports: 50_000..=50_999,
        allow: nets(&["0.0.0.0/0", "::/0"]),
        allow_private: Vec::new(),
        own: vec![PUBLIC.parse().unwrap(), "8.78.0.2".parse().unwrap()],
    }
}

fn config_with(external: External) -> Config {
    let mut config = config();
    config.media = vec![addr("8.78.0.1:20000")];
    config.relayed_ip = PUBLIC.parse().unwrap();
    config.external = Some(external);
    config
}

fn user_of(subject: &str) -> Minted {
    let mint = Mint {
        subject,
        room: None,
        class: Policy::External,
        ttl: secs(30_000),
        session_limit: secs(43_200),
    };
    keys().mint(Unix::from_secs(1_780_000_000), &mint, [9; 12]).unwrap()
}

fn rig_with(config: Config) -> (Rig, Sockets) {
    let mut rig = Rig::with(config);
    let sockets = Sockets::default();
    rig.relay.open_with(Box::new(sockets.clone()));
    rig.user = user_of("jitsi");
    (rig, sockets)
}

fn fresh() -> (Rig, Sockets) {
    rig_with(config_with(external()))
}

/// With an allocation; its relayed address.
fn allocated(with: External) -> (Rig, Sockets, SocketAddr) {
    let (mut rig, sockets) = rig_with(config_with(with));
    let handle = rig.allocate();
    let relayed = rig.relay.relayed_address(handle).unwrap();
    (rig, sockets, relayed)
}

fn move_to(rig: &mut Rig, client: &str) {
    rig.tuple = tuple(client);
    rig.nonce.clear();
}

/// Where a payload of the client to `peer` goes.
fn sent(rig: &mut Rig, peer: SocketAddr) -> Option<ToExternal> {
    match rig.send(&send_indication(peer, b"hello")) {
        Handled::ToExternal(to) => Some(to),
        Handled::Dropped => None,
        other => panic!("{other:?}"),
    }
}

fn came(rig: &mut Rig, relayed: SocketAddr, from: SocketAddr) -> Option<Route> {
    let outlet = Outlet { v6: relayed.is_ipv6(), port: relayed.port() };
    rig.relay.handle_peer(rig.now, outlet, from, 5, &mut rig.counters)
}

#[test]
fn client_and_a_listed_peer_talk_through_a_real_port() {
    let (mut rig, sockets, relayed) = allocated(external());
    assert_eq!(relayed.ip(), PUBLIC.parse::<IpAddr>().unwrap());
    assert!((50_000..=50_999).contains(&relayed.port()));
    assert_eq!((sockets.open(), rig.count(Id::RelaySockets)), (1, 1));
    let peer = addr(PEER);
    assert_eq!(sent(&mut rig, peer), None, "no permission yet");
    assert_eq!(came(&mut rig, relayed, peer), None);
    assert_eq!(rig.count(Id::RelayDropNoPermission), 2);

    assert_eq!(rig.permit(peer), Ok(()));
    let datagram = send_indication(peer, b"hello");
    let Handled::ToExternal(to) = rig.send(&datagram) else { panic!("not sent") };
    assert_eq!((to.outlet.port, to.outlet.v6, to.to), (relayed.port(), false, peer));
    assert_eq!(&datagram[to.payload], b"hello");
    let route = came(&mut rig, relayed, peer).unwrap();
    assert_eq!((route.tuple, route.framing), (rig.tuple, Framing::Indication { peer }));
    let other_port = addr("8.78.1.9:5001");
    assert!(came(&mut rig, relayed, other_port).is_some(), "permissions are for IPs");
    assert_eq!(came(&mut rig, relayed, addr("8.78.1.10:5000")), None);

    assert_eq!(rig.bind(0x4000, peer), Ok(()));
    let Handled::ToExternal(to) = rig.send(&[0x40, 0, 0, 2, 7, 7]) else { panic!("not sent") };
    assert_eq!((to.to, to.payload), (peer, 4..6));
    assert_eq!(came(&mut rig, relayed, peer).unwrap().framing, Framing::Channel(0x4000));
    let elsewhere = came(&mut rig, relayed, other_port).unwrap();
    assert_eq!(elsewhere.framing, Framing::Indication { peer: other_port });
    assert_eq!((rig.count(Id::RelayPermissions), rig.count(Id::RelayChannels)), (1, 1));

    assert_eq!(rig.refresh(0), Ok(()));
    assert_eq!((sockets.open(), rig.count(Id::RelaySockets)), (0, 0));
    assert_eq!((rig.count(Id::RelayPermissions), rig.count(Id::RelayChannels)), (0, 0));
    assert_eq!(came(&mut rig, relayed, peer), None);
}

#[test]
fn permissions_and_channels_of_an_allocation_are_bounded() {
    let mut config = config_with(external());
    config.limits.permissions_per_allocation = 4;
    config.limits.channels_per_allocation = 2;
    let (mut rig, _sockets) = rig_with(config);
    rig.allocate();
    let peer = |n: u8| SocketAddr::from(([8, 78, 1, n], 5000));
    for n in 1..=4 {
        assert_eq!(rig.permit(peer(n)), Ok(()));
    }
    assert_eq!(rig.permit(peer(5)), Err(508));
    assert_eq!(rig.bind(0x4000, peer(5)), Err(508), "it would bring a permission");
    assert_eq!(rig.permit(peer(1)), Ok(()), "known already");
    assert_eq!(rig.bind(0x4000, peer(1)), Ok(()));
    assert_eq!(rig.bind(0x4001, peer(2)), Ok(()));
    assert_eq!(rig.bind(0x4002, peer(3)), Err(508));
    assert_eq!(rig.bind(0x4001, peer(2)), Ok(()), "refreshed");
    assert_eq!((rig.count(Id::RelayPermissions), rig.count(Id::RelayChannels)), (4, 2));
    assert_eq!(rig.count(Id::RelayRefusedCapacity), 3);
    rig.wait(secs(301));
    assert_eq!((rig.count(Id::RelayPermissions), rig.count(Id::RelayChannels)), (0, 2));
    assert_eq!(rig.permit(peer(5)), Ok(()), "there is room again");
}

#[test]
fn one_request_names_many_peers_and_gets_all_or_nothing() {
    let mut config = config_with(external());
    config.limits.permissions_per_allocation = 4;
    let (mut rig, _sockets) = rig_with(config);
    rig.allocate();
    let mut ask = |last: &[u8]| {
        let tid = TransactionId([rig.tid.wrapping_add(1); 12]);
        let peers: Vec<_> =
            last.iter().map(|n| xor(SocketAddr::from(([8, 78, 1, *n], 5000)), tid)).collect();
        let attributes: Vec<_> =
            peers.iter().map(|peer| (attr::XOR_PEER_ADDRESS, &peer[..])).collect();
        let outcome = rig.request(Method::CREATE_PERMISSION, &attributes);
        (outcome, rig.count(Id::RelayPermissions))
    };
    assert_eq!(ask(&[1, 2, 3, 4, 5]), (Err(508), 0));
    assert_eq!(ask(&[1, 2, 2, 1, 1, 2]), (Ok(()), 2));
    assert_eq!(ask(&[2, 3, 4, 5]), (Err(508), 2));
    assert_eq!(ask(&[1, 2, 3, 4]), (Ok(()), 4));
    assert_eq!(ask(&[]), (Err(400), 4));
    let tid = TransactionId([rig.tid.wrapping_add(1); 12]);
    let (good, bad) = (xor(addr(PEER), tid), xor(addr("10.0.0.1:1"), tid));
    let both = [(attr::XOR_PEER_ADDRESS, &good[..]), (attr::XOR_PEER_ADDRESS, &bad[..])];
    assert_eq!(rig.request(Method::CREATE_PERMISSION, &both), Err(403));
}

#[test]
fn permission_of_an_outside_peer_lasts_300_seconds_and_a_channel_600() {
    let (mut rig, _sockets, relayed) = allocated(external());
    let peer = addr(PEER);
    assert_eq!(rig.bind(0x4000, peer), Ok(()));
    rig.wait(Duration::from_millis(299_999));
    assert!(came(&mut rig, relayed, peer).is_some() && sent(&mut rig, peer).is_some());
    rig.wait(Duration::from_millis(1));
    assert!(came(&mut rig, relayed, peer).is_none() && sent(&mut rig, peer).is_none());
    assert_eq!(rig.refresh(3600), Ok(()));
    assert_eq!(rig.permit(peer), Ok(()));
    rig.wait(Duration::from_millis(299_999));
    assert_eq!(came(&mut rig, relayed, peer).unwrap().framing, Framing::Channel(0x4000));
    assert!(matches!(rig.send(&[0x40, 0, 0, 0]), Handled::ToExternal(_)), "an empty datagram");
    assert_eq!(rig.permit(peer), Ok(()));
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.send(&[0x40, 0, 0, 0]), Handled::Dropped);
    assert_eq!(came(&mut rig, relayed, peer).unwrap().framing, Framing::Indication { peer });
}

#[test]
fn conflicting_channels_get_400_and_numbers_of_rfc_5766_are_taken() {
    let (mut rig, _sockets, relayed) = allocated(external());
    let (one, two) = (addr(PEER), addr("8.78.1.9:5001"));
    assert_eq!(rig.bind(0x7ffe, one), Ok(()));
    assert_eq!(rig.bind(0x7ffe, two), Err(400), "the number is another's");
    assert_eq!(rig.bind(0x4000, one), Err(400), "the peer has another");
    assert_eq!(rig.bind(0x4000, two), Ok(()));
    for number in [0, 0x3fff, 0x8000, 0xffff] {
        assert_eq!(rig.bind(number, addr("8.78.1.9:5002")), Err(400), "{number:x}");
    }
    let Handled::ToExternal(to) = rig.send(&[0x7f, 0xfe, 0, 1, 7]) else { panic!("dropped") };
    assert_eq!(to.to, one);
    assert_eq!(came(&mut rig, relayed, one).unwrap().framing, Framing::Channel(0x7ffe));
}

#[test]
fn dont_fragment_is_420_where_there_are_hops() {
    let (mut rig, sockets) = fresh();
    let asks = [TRANSPORT, (attr::DONT_FRAGMENT, &[][..])];
    assert_eq!(rig.request(Method::ALLOCATE, &asks), Err(420));
    assert_eq!(rig.last().first(attr::UNKNOWN_ATTRIBUTES), Some(&[0, 0x1a][..]));
    assert_eq!(sockets.open(), 0);
    rig.allocate();
    assert_eq!(rig.permit(addr(PEER)), Ok(()));
    let datagram = build(Class::Indication, Method::SEND, TransactionId([1; 12]), |builder| {
        builder.xor_address(attr::XOR_PEER_ADDRESS, addr(PEER));
        builder.attribute(attr::DONT_FRAGMENT, &[]);
        builder.attribute(attr::DATA, b"x");
    });
    assert_eq!(rig.send(&datagram), Handled::Dropped);
}

#[test]
fn icmp_errors_are_told_of_permitted_peers_only() {
    let (mut rig, _sockets, relayed) = allocated(external());
    let outlet = Outlet { v6: false, port: relayed.port() };
    let tell = |rig: &mut Rig, to: &str, kind, code, mtu| {
        let icmp = Icmp { to: addr(to), kind, code, mtu };
        let mut out = [0; 96];
        let told =
            rig.relay.handle_icmp(rig.now, outlet, &icmp, ([4; 12], &mut out), &mut rig.counters);
        told.map(|(tuple, len)| {
            assert_eq!(tuple, rig.tuple);
            let message = Message::parse(&out[..len]).unwrap();
            assert_eq!((message.class(), message.method()), (Class::Indication, Method::DATA));
            assert_eq!(message.xor_address(attr::XOR_PEER_ADDRESS), Some(addr(to)));
            assert_eq!(message.first(attr::DATA), None);
            message.first(attr::ICMP).unwrap().to_vec()
        })
    };
    assert_eq!(tell(&mut rig, PEER, 3, 3, 0), None, "no permission");
    assert_eq!(rig.permit(addr(PEER)), Ok(()));
    // 3 in seven bits, then 3 in nine.
    assert_eq!(tell(&mut rig, PEER, 3, 3, 9).unwrap(), [0, 0, 6, 3, 0, 0, 0, 0]);
    assert_eq!(tell(&mut rig, PEER, 3, 4, 1280).unwrap(), [0, 0, 6, 4, 0, 0, 5, 0]);
    assert_eq!(tell(&mut rig, PEER, 11, 0, 0).unwrap(), [0, 0, 22, 0, 0, 0, 0, 0]);
    for kind in [0, 4, 5, 8, 12, 13] {
        assert_eq!(tell(&mut rig, PEER, kind, 0, 0), None, "{kind}");
    }
    assert_eq!(tell(&mut rig, "8.78.1.10:5000", 3, 3, 0), None);
    assert_eq!(tell(&mut rig, "127.0.0.1:5000", 3, 3, 0), None);
}

#[test]
fn rates_of_an_outside_allocation_hold_in_both_directions() {
    let mut config = config_with(external());
    config.limits.allocation_rate = Rate { packets: 100, bits: 0 };
    let (mut rig, _sockets) = rig_with(config);
    let handle = rig.allocate();
    let relayed = rig.relay.relayed_address(handle).unwrap();
    let peer = addr(PEER);
    assert_eq!(rig.permit(peer), Ok(()));
    let out = (0..1_000).filter(|_| sent(&mut rig, peer).is_some()).count();
    let back = (0..1_000).filter(|_| came(&mut rig, relayed, peer).is_some()).count();
    assert_eq!((out, back), (50, 50), "half a second's worth at once");
    let dropped = [Id::RelayDropPacketRate, Id::RelayDropPacketRateOut].map(|id| rig.count(id));
    assert_eq!(dropped, [950, 950]);
}

#[test]
fn classes_do_not_meet() {
    let (mut rig, sockets, relayed) = allocated(external());
    assert_eq!(rig.bind(0x4000, addr("8.78.0.1:20000")), Err(403), "not the forwarder");
    // A forwarder's credential does not reach outside, nor open a socket.
    move_to(&mut rig, "198.51.100.8:5000");
    rig.user = mint("user-42", 600, 43_200);
    rig.allocate();
    assert_eq!(rig.permit(addr(PEER)), Err(403));
    assert_eq!(rig.bind(0x4000, relayed), Err(403));
    assert_eq!(sockets.open(), 1);
    // What arrives at a socket is for its allocation, even where a virtual port has its number.
    assert_eq!(came(&mut rig, SocketAddr::new(relayed.ip(), 1024), addr(PEER)), None);
}

#[test]
fn external_credential_allocates_nothing_where_the_policy_is_off() {
    let mut rig = Rig::new();
    rig.user = user_of("jitsi");
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT]), Err(403));
    assert_eq!(rig.allocations(), 0);
    // On, but nothing to open sockets with.
    let mut rig = Rig::with(config_with(external()));
    rig.user = user_of("jitsi");
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT]), Err(508));
}

#[test]
fn external_policy_without_a_list_is_refused_at_the_start() {
    let empty = config_with(External { allow: Vec::new(), ..external() });
    let keys = Arc::new(keys());
    let nonces = NonceKeys::new([1; 32], None);
    let relay = Relay::new(empty, keys, nonces, StdRng::seed_from_u64(1), ShardId(0));
    assert_eq!(relay.err(), Some(ConfigError::Allow));
}

#[test]
fn retransmitted_allocate_opens_no_second_socket() {
    let (mut rig, sockets) = fresh();
    rig.challenge();
    let request = rig.signed(Method::ALLOCATE, &[TRANSPORT]);
    let first = rig.ask(&request);
    assert_eq!(rig.ask(&request), first);
    assert_eq!(sockets.open(), 1);
}

#[test]
fn sockets_close_with_their_allocation_however_it_ends() {
    let (mut rig, sockets, _) = allocated(external());
    rig.wait(secs(600));
    assert_eq!(sockets.open(), 0, "expired");
    rig.tuple.transport = Transport::Tls;
    rig.nonce.clear();
    rig.allocate();
    rig.relay.on_disconnect(rig.now, rig.tuple, &mut rig.counters);
    assert_eq!(sockets.open(), 0, "disconnected");
    rig.nonce.clear();
    rig.allocate();
    assert_eq!(sockets.open(), 1);
    let revocation = Revocation {
        target: Target::Subject(SubjectHash::of("jitsi")),
        not_before: rig.now.unix,
        expires: rig.now.advanced(secs(60)).unix,
    };
    rig.relay.revoke(rig.now, &[revocation]);
    rig.wait(secs(0));
    assert_eq!((sockets.open(), rig.count(Id::RelaySockets)), (0, 0), "revoked");
    assert_eq!(rig.relay.config.shared.open(), 0);
}

#[test]
fn long_channel_numbers_reach_nobody_in_other_classes() {
    let mut rig = Rig::connected(Some(0x4000));
    assert_eq!(rig.bind(0x5000, media()), Err(400));
    assert_eq!(rig.send(&[0x50, 0, 0, 1, 7]), Handled::Dropped);
    assert_eq!(rig.count(Id::RelayDropNoChannel), 1);
}

fn live(rig: &Rig) -> impl Iterator<Item = &table::Allocation> {
    (0..4_u32).filter_map(|index| rig.relay.table.get(index))
}

mod programs {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        /// Sockets that are open are those of live allocations, each of them once; gauges agree, and
        /// in the end there is nothing left.
        #[test]
        fn random_programs_of_external_clients_leak_no_socket(
            program in prop::collection::vec((0..13_u8, 0..4_u8, 0..200_u64), 1..40),
            foreign in prop::collection::hash_set(50_000..50_012_u16, 0..6),
        ) {
            let mut config = config_with(External { ports: 50_000..=50_011, ..external() });
            config.limits.permissions_per_allocation = 3;
            config.limits.channels_per_allocation = 2;
            let (mut rig, sockets) = rig_with(config);
            sockets.with(|state| state.foreign = foreign);
            let shared = rig.relay.config.shared.clone();
            let mut token = vec![0; 8];
            let mut relayed = vec![addr(PEER), addr("[2a01:79::9]:5000")];
            for (step, who, pause) in program {
                rig.tuple = tuple(&format!("198.51.100.7:{}", 5000 + u16::from(who)));
                rig.tuple.transport = if who == 0 { Transport::Tls } else { Transport::Udp };
                rig.nonce.clear();
                let transport = (attr::REQUESTED_TRANSPORT, UDP);
                let peer = relayed[pause as usize % relayed.len()];
                let zero = (attr::LIFETIME, &[0; 4][..]);
                let ask = (attr::REQUESTED_ADDRESS_FAMILY, V6);
                let outcome = match step {
                    0 => rig.request(Method::ALLOCATE, &[transport]),
                    1 => rig.request(
                        Method::ALLOCATE, &[transport, (attr::ADDITIONAL_ADDRESS_FAMILY, V6)]),
                    2 => rig.request(Method::ALLOCATE, &[transport, (attr::EVEN_PORT, &[0x80])]),
                    3 => rig.request(
                        Method::ALLOCATE, &[transport, (attr::RESERVATION_TOKEN, &token)]),
                    4 => rig.refresh(600),
                    5 => rig.refresh(0),
                    6 => rig.request(Method::REFRESH, &[zero, ask]),
                    7 => rig.permit(peer),
                    8 => rig.permit(SocketAddr::from(([8, 78, 1, pause as u8], 1))),
                    9 => rig.bind(0x4000 + (pause % 3) as u16, peer),
                    10 => {
                        if let Handled::ToExternal(to) = rig.send(&send_indication(peer, b"x")) {
                            prop_assert!(sockets.with(|state| state.open.contains(&to.outlet)));
                        }
                        Ok(())
                    }
                    11 => {
                        rig.relay.on_disconnect(rig.now, rig.tuple, &mut rig.counters);
                        Ok(())
                    }
                    _ => {
                        let outlet = Outlet { v6: peer.is_ipv6(), port: 50_000 + pause as u16 % 12 };
                        let _ = rig.relay.handle_peer(rig.now, outlet, peer, 9, &mut rig.counters);
                        Ok(())
                    }
                };
                if step < 4 && outcome.is_ok() {
                    let reply = rig.last();
                    for (kind, value) in reply.attributes() {
                        if kind == attr::XOR_RELAYED_ADDRESS {
                            relayed.push(reply.decode_xor_address(value).unwrap());
                        }
                    }
                    if let Some(fresh) = reply.first(attr::RESERVATION_TOKEN) {
                        token = fresh.to_vec();
                    }
                }
                if pause % 2 == 0 { rig.wait(secs(pause)) } else { rig.advance(secs(pause)) }
                let held: HashSet<Outlet> = live(&rig)
                    .flat_map(|allocation| IpFamily::BOTH.into_iter().zip(&allocation.relayed))
                    .filter(|(_, relayed)| relayed.port != 0)
                    .map(|(family, relayed)| Outlet::new(family, relayed.port))
                    .collect();
                prop_assert_eq!(&held, &sockets.with(|state| state.open.clone()));
                prop_assert_eq!(shared.open() as usize, sockets.open() + sockets.held());
                let (permissions, channels) = live(&rig)
                    .map(table::Allocation::outside_counts)
                    .fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1));
                prop_assert_eq!(rig.count(Id::RelayPermissions), permissions);
                prop_assert_eq!(rig.count(Id::RelayChannels), channels);
            }
            rig.wait(secs(3601));
            prop_assert_eq!((rig.allocations(), sockets.open(), sockets.held()), (0, 0, 0));
            prop_assert_eq!((shared.open(), rig.count(Id::RelaySockets)), (0, 0));
            prop_assert_eq!((rig.count(Id::RelayPermissions), rig.count(Id::RelayChannels)), (0, 0));
            prop_assert_eq!(rig.relay.poll_timeout().map(|_| ()), None);
        }
    }
}
