//! Relayed addresses of both families: RFC 8656 sections 7, 8 and 18.

use super::*;

const TRANSPORT: (u16, &[u8]) = (attr::REQUESTED_TRANSPORT, UDP);
const ASK_V4: (u16, &[u8]) = (attr::REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0]);
const ASK_V6: (u16, &[u8]) = (attr::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
const ALSO_V6: (u16, &[u8]) = (attr::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]);

fn media6() -> SocketAddr {
    addr("[2001:db8::10]:20000")
}

fn both() -> Rig {
    let mut config = config();
    config.media.push(media6());
    config.relayed_ip6 = Some("2001:db8::10".parse().unwrap());
    Rig::with(config)
}

/// The relayed addresses the last reply names.
fn relayed(rig: &Rig) -> Vec<IpAddr> {
    let reply = rig.last();
    let named = reply.attributes().filter(|(kind, _)| *kind == attr::XOR_RELAYED_ADDRESS);
    named.map(|(_, value)| reply.decode_xor_address(value).unwrap().ip()).collect()
}

fn dual() -> Rig {
    let mut rig = both();
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT, ALSO_V6]), Ok(()));
    rig
}

#[test]
fn clients_that_do_not_ask_get_ipv4_over_whatever_they_come() {
    for client in ["198.51.100.7:5000", "[2001:db8:7::1]:5000"] {
        let mut rig = both();
        rig.tuple = tuple(client);
        assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT]), Ok(()));
        assert_eq!(relayed(&rig), [media().ip()]);
        assert_eq!(rig.last().xor_address(attr::XOR_MAPPED_ADDRESS), Some(addr(client)));
    }
}

#[test]
fn ipv6_is_given_to_those_who_ask() {
    let mut rig = both();
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT, ASK_V6]), Ok(()));
    assert_eq!(relayed(&rig), [media6().ip()]);
    let handle = rig.handle();
    assert_eq!(rig.relay.relayed_address(handle).unwrap().ip(), media6().ip());
    assert_eq!(rig.relay.relayed_towards(handle, &media()), None);
    assert_eq!(rig.permit(media()), Err(443));
    assert_eq!(rig.bind(0x4000, media()), Err(443));
    assert_eq!(rig.send(&send_indication(media(), b"x")), Handled::Dropped);
    assert_eq!(rig.bind(0x4000, media6()), Ok(()));
    let Handled::ToPeer(to) = rig.send(&[0x40, 0, 0, 1, 9]) else { panic!("not relayed") };
    assert_eq!(to.peer, media6());
    let route = rig.relay.route(handle, &media6()).unwrap();
    assert_eq!(route.framing, Framing::Channel(0x4000));
    assert_eq!(rig.relay.route(handle, &media()), None);
}

#[test]
fn dual_allocation_has_two_addresses_and_each_reaches_its_family() {
    let mut rig = dual();
    assert_eq!(relayed(&rig), [media().ip(), media6().ip()]);
    assert!(rig.last().first(attr::ADDRESS_ERROR_CODE).is_none());
    let handle = rig.handle();
    for (number, peer) in [(0x4000, media()), (0x4001, media6())] {
        assert_eq!(rig.permit(peer), Ok(()));
        assert!(matches!(rig.send(&send_indication(peer, b"x")), Handled::ToPeer(_)));
        assert_eq!(rig.bind(number, peer), Ok(()));
        assert_eq!(rig.relay.route(handle, &peer).unwrap().framing, Framing::Channel(number));
        assert_eq!(rig.relay.relayed_towards(handle, &peer).unwrap().ip(), peer.ip());
    }
    assert_eq!((rig.allocations(), rig.count(Id::RelayPermissions)), (1, 2));
}

#[test]
fn retransmitted_dual_allocate_gets_both_addresses_again() {
    let mut rig = both();
    rig.challenge();
    let request = rig.signed(Method::ALLOCATE, &[TRANSPORT, ALSO_V6]);
    let first = rig.ask(&request);
    assert_eq!(rig.ask(&request), first);
    let mut rig = Rig::new();
    rig.challenge();
    let request = rig.signed(Method::ALLOCATE, &[TRANSPORT, ALSO_V6]);
    let first = rig.ask(&request);
    assert_eq!(rig.ask(&request), first, "with its ADDRESS-ERROR-CODE");
}

#[test]
fn one_half_of_a_dual_allocation_is_deleted_by_its_family() {
    for (gone, ask, left) in [(media(), ASK_V4, media6()), (media6(), ASK_V6, media())] {
        let mut rig = dual();
        let handle = rig.handle();
        assert_eq!(rig.bind(0x4000, media()), Ok(()));
        assert_eq!(rig.bind(0x4001, media6()), Ok(()));
        let zero = (attr::LIFETIME, &[0; 4][..]);
        assert_eq!(rig.request(Method::REFRESH, &[zero, ask]), Ok(()));
        assert_eq!((rig.lifetime(), rig.allocations()), (Some(0), 1));
        assert_eq!((rig.count(Id::RelayPermissions), rig.count(Id::RelayChannels)), (1, 1));
        assert_eq!(rig.relay.route(handle, &gone), None);
        assert!(rig.relay.route(handle, &left).is_some(), "the other half is not touched");
        assert_eq!(rig.permit(gone), Err(443));
        assert_eq!(rig.request(Method::REFRESH, &[zero, ask]), Err(443), "it is no more");
        assert_eq!(rig.relay.relayed_address(handle).unwrap().ip(), left.ip());
        assert_eq!(rig.relay.poll_ended(), None);
        assert_eq!(rig.refresh(0), Ok(()));
        assert_eq!((rig.allocations(), rig.relay.poll_ended()), (0, Some(handle)));
    }
}

#[test]
fn halves_of_a_dual_allocation_expire_apart() {
    let mut rig = dual();
    let handle = rig.handle();
    assert_eq!(rig.bind(0x4000, media()), Ok(()));
    assert_eq!(rig.bind(0x4001, media6()), Ok(()));
    rig.wait(secs(301));
    let half = [(attr::LIFETIME, &[0, 0, 3, 0][..]), ASK_V6];
    assert_eq!(rig.request(Method::REFRESH, &half), Ok(()));
    assert_eq!(rig.bind(0x4000, media()), Ok(()));
    assert_eq!(rig.bind(0x4001, media6()), Ok(()));
    rig.advance(secs(299));
    assert_eq!(rig.send(&[0x40, 0, 0, 1, 9]), Handled::Dropped, "a late timer lengthens no life");
    assert!(matches!(rig.send(&[0x40, 1, 0, 1, 9]), Handled::ToPeer(_)));
    rig.wait(Duration::ZERO);
    assert_eq!((rig.count(Id::RelayPermissions), rig.count(Id::RelayChannels)), (1, 1));
    assert_eq!(rig.relay.relayed_towards(handle, &media()), None);
    assert!(rig.relay.route(handle, &media6()).is_some());
    rig.wait(secs(469));
    assert_eq!((rig.allocations(), rig.count(Id::RelayChannels)), (0, 0));
    assert_eq!(rig.relay.poll_ended(), Some(handle));
}

#[test]
fn refresh_without_a_family_is_about_both() {
    let mut rig = dual();
    rig.wait(secs(500));
    assert_eq!(rig.refresh(600), Ok(()));
    rig.wait(secs(599));
    let handle = rig.handle();
    for peer in [media(), media6()] {
        assert!(rig.relay.relayed_towards(handle, &peer).is_some());
    }
    rig.wait(secs(1));
    assert_eq!(rig.allocations(), 0);
}

#[test]
fn ipv4_in_ipv6_dress_is_no_ipv6_peer_of_a_dual_allocation() {
    let mut rig = dual();
    let dressed = addr("[::ffff:192.0.2.10]:20000");
    assert_eq!(rig.permit(dressed), Err(443));
    assert_eq!(rig.bind(0x4000, dressed), Err(443));
    assert_eq!(rig.permit(addr("[::1]:20000")), Err(403));
    assert_eq!(rig.permit(addr("[2001:db8::11]:20000")), Err(403));
}
