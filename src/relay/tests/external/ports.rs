//! Ports of relayed sockets: drawn, held for a neighbour's Allocate, handed over.

use super::*;

#[test]
fn ports_in_use_are_passed_over_and_none_left_is_508() {
    let few = External { ports: 50_000..=50_003, ..external() };
    let (mut rig, sockets) = rig_with(config_with(few));
    sockets.with(|state| state.foreign.extend([50_000, 50_002]));
    let mut seen = HashSet::new();
    for client in 1..=2 {
        move_to(&mut rig, &format!("198.51.100.7:{client}"));
        let handle = rig.allocate();
        seen.insert(rig.relay.relayed_address(handle).unwrap().port());
    }
    assert_eq!(seen, HashSet::from([50_001, 50_003]));
    move_to(&mut rig, "198.51.100.7:3");
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT]), Err(508));
    assert!(rig.count(Id::RelayPortsTaken) >= 2 && rig.count(Id::RelayPortsExhausted) == 1);
    move_to(&mut rig, "198.51.100.7:1");
    assert_eq!(rig.refresh(0), Ok(()));
    move_to(&mut rig, "198.51.100.7:3");
    rig.allocate();
    // Out of descriptors: one question, not one a port.
    let (mut rig, sockets) = fresh();
    sockets.with(|state| state.exhausted = true);
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT]), Err(508));
    assert_eq!(sockets.with(|state| state.asked), 1);
    // Everything foreign: bounded work all the same.
    sockets.with(|state| (state.exhausted, state.asked) = (false, 0));
    sockets.with(|state| state.foreign.extend(50_000..=50_999));
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT]), Err(508));
    assert!(sockets.with(|state| state.asked) <= 50);
    assert_eq!(rig.relay.config.shared.open(), 0);
}

#[test]
fn excluded_ports_are_never_opened() {
    let mut config = config_with(External { ports: 50_000..=50_001, ..external() });
    config.excluded_ports.push(50_000);
    let (mut rig, _sockets) = rig_with(config);
    let handle = rig.allocate();
    assert_eq!(rig.relay.relayed_address(handle).unwrap().port(), 50_001);
}

#[test]
fn reserved_neighbour_is_a_held_socket_that_is_handed_over_once() {
    let (mut rig, sockets) = fresh();
    let pair = [TRANSPORT, (attr::EVEN_PORT, &[0x80][..])];
    assert_eq!(rig.request(Method::ALLOCATE, &pair), Ok(()));
    let token = rig.last().first(attr::RESERVATION_TOKEN).unwrap().to_vec();
    let even = rig.relay.relayed_address(rig.handle()).unwrap().port();
    assert_eq!((even % 2, sockets.open(), sockets.held()), (0, 1, 1));
    move_to(&mut rig, "198.51.100.7:5001");
    let redeem = [TRANSPORT, (attr::RESERVATION_TOKEN, &token[..])];
    assert_eq!(rig.request(Method::ALLOCATE, &redeem), Ok(()));
    assert_eq!(rig.relay.relayed_address(rig.handle()).unwrap().port(), even + 1);
    assert_eq!((sockets.open(), sockets.held()), (2, 0));
    move_to(&mut rig, "198.51.100.7:5002");
    assert_eq!(rig.request(Method::ALLOCATE, &redeem), Err(508), "spent");
    // The reservation's end is nothing to the allocation that took it.
    rig.wait(secs(31));
    assert_eq!((sockets.open(), sockets.held()), (2, 0));
    rig.wait(secs(570));
    assert_eq!((sockets.open(), rig.relay.config.shared.open()), (0, 0));
    // Only an even one.
    move_to(&mut rig, "198.51.100.7:5003");
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT, (attr::EVEN_PORT, &[0])]), Ok(()));
    assert_eq!(rig.relay.relayed_address(rig.handle()).unwrap().port() % 2, 0);
    assert_eq!((sockets.open(), sockets.held()), (1, 0));
}

#[test]
fn reserved_socket_is_closed_after_thirty_seconds() {
    let (mut rig, sockets) = fresh();
    let pair = [TRANSPORT, (attr::EVEN_PORT, &[0x80][..])];
    assert_eq!(rig.request(Method::ALLOCATE, &pair), Ok(()));
    let at = rig.relay.poll_timeout().unwrap();
    assert_eq!(at, Mono::from_nanos(30_000_000_000));
    rig.wait(Duration::from_millis(29_999));
    assert_eq!(sockets.held(), 1);
    rig.wait(Duration::from_millis(1));
    assert_eq!((sockets.held(), sockets.open()), (0, 1));
    assert_eq!(rig.relay.config.shared.open(), 1);
}

#[test]
fn pair_with_a_taken_neighbour_is_passed_over() {
    let (mut rig, sockets) =
        rig_with(config_with(External { ports: 50_000..=50_005, ..external() }));
    sockets.with(|state| state.foreign.extend([50_001, 50_002]));
    let pair = [TRANSPORT, (attr::EVEN_PORT, &[0x80][..])];
    assert_eq!(rig.request(Method::ALLOCATE, &pair), Ok(()));
    assert_eq!(rig.relay.relayed_address(rig.handle()).unwrap().port(), 50_004);
    assert_eq!((sockets.open(), sockets.held()), (1, 1));
    move_to(&mut rig, "198.51.100.7:5001");
    assert_eq!(rig.request(Method::ALLOCATE, &pair), Err(508));
    assert_eq!((sockets.open(), sockets.held(), rig.relay.config.shared.open()), (1, 1, 2));
}

#[test]
fn reserved_socket_crosses_shards_by_its_token() {
    let config = config_with(external());
    let (mut first, sockets) = rig_with(config.clone());
    let (mut second, _) = rig_with(config);
    second.relay.open_with(Box::new(sockets.clone()));
    let pair = [TRANSPORT, (attr::EVEN_PORT, &[0x80][..])];
    assert_eq!(first.request(Method::ALLOCATE, &pair), Ok(()));
    let token = first.last().first(attr::RESERVATION_TOKEN).unwrap().to_vec();
    let redeem = [TRANSPORT, (attr::RESERVATION_TOKEN, &token[..])];
    assert_eq!(second.request(Method::ALLOCATE, &redeem), Ok(()));
    first.wait(secs(31));
    assert_eq!((sockets.open(), sockets.held()), (2, 0));
    // A token whose socket is gone.
    move_to(&mut first, "198.51.100.7:5001");
    assert_eq!(first.request(Method::ALLOCATE, &pair), Ok(()));
    let token = first.last().first(attr::RESERVATION_TOKEN).unwrap().to_vec();
    sockets.with(|state| state.held.clear());
    move_to(&mut second, "198.51.100.7:5001");
    let redeem = [TRANSPORT, (attr::RESERVATION_TOKEN, &token[..])];
    assert_eq!(second.request(Method::ALLOCATE, &redeem), Err(508));
}

#[test]
fn families_have_ports_of_their_own() {
    let (mut rig, sockets) = fresh();
    let v6 = [TRANSPORT, (attr::REQUESTED_ADDRESS_FAMILY, V6)];
    assert_eq!(rig.request(Method::ALLOCATE, &v6), Ok(()));
    let relayed = rig.relay.relayed_address(rig.handle()).unwrap();
    assert_eq!(relayed.ip(), PUBLIC6.parse::<IpAddr>().unwrap());
    let peer = addr("[2a01:79::9]:5000");
    assert_eq!(rig.bind(0x4000, peer), Ok(()));
    assert_eq!(sent(&mut rig, peer).unwrap().outlet, Outlet { v6: true, port: relayed.port() });
    assert!(came(&mut rig, relayed, peer).is_some());
    assert_eq!(rig.permit(addr(PEER)), Err(443));

    move_to(&mut rig, "198.51.100.7:5001");
    let dual = [TRANSPORT, (attr::ADDITIONAL_ADDRESS_FAMILY, V6)];
    assert_eq!(rig.request(Method::ALLOCATE, &dual), Ok(()));
    assert_eq!(rig.last().attributes().filter(|(k, _)| *k == attr::XOR_RELAYED_ADDRESS).count(), 2);
    assert_eq!((sockets.open(), rig.count(Id::RelaySockets)), (3, 3));
    assert_eq!((rig.bind(0x4000, peer), rig.bind(0x4001, addr(PEER))), (Ok(()), Ok(())));
    // One half ends, with what belongs to it alone.
    let end = [(attr::LIFETIME, &[0; 4][..]), (attr::REQUESTED_ADDRESS_FAMILY, V6)];
    assert_eq!(rig.request(Method::REFRESH, &end), Ok(()));
    assert_eq!((sockets.open(), rig.count(Id::RelayChannels)), (2, 2));
    assert_eq!(sent(&mut rig, peer), None);
    assert!(sent(&mut rig, addr(PEER)).is_some());
    // Without an IPv6 address of our own.
    let (mut rig, _sockets) = rig_with(config_with(External { ip6: None, ..external() }));
    assert_eq!(rig.request(Method::ALLOCATE, &v6), Err(440));
    assert_eq!(rig.request(Method::ALLOCATE, &dual), Ok(()));
    assert!(rig.last().first(attr::ADDRESS_ERROR_CODE).is_some());
}
