//! Whom clients of the external policy reach: the list, and never what is special or our own.

use super::*;

/// The table of facts, ends of blocks and this machine's own: with everything allowed.
#[test]
fn no_special_or_own_address_is_reached_however_wide_the_list() {
    let (mut rig, _sockets, relayed) = allocated(external());
    let rows = [
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "10.0.0.1",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::1",
        "2001:0:7f00:1::",
        "fe80::1",
        "fec0::1",
        "64:ff9b::169.254.169.254",
        "fd00:ec2::254",
        "127.0.0.8",
        "127.255.255.254",
        "100.64.0.0",
        "100.127.255.255",
        "172.16.0.1",
        "172.17.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "192.168.255.255",
        "192.0.0.1",
        "192.0.0.192",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "192.88.99.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "ff02::1",
        "100::1",
        "2001:db8::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "fe80::5efe:8.8.8.8",
        // Another address of this machine, and its own in disguise.
        "8.78.0.2",
        "::ffff:8.78.0.1",
        "64:ff9b::8.78.0.1",
    ];
    let mut denied = 0;
    for row in rows {
        let ip: IpAddr = row.parse().unwrap();
        for port in [80, 3478, 9641, relayed.port()] {
            let peer = SocketAddr::new(ip, port);
            assert_eq!(rig.permit(peer), Err(403), "{peer}");
            assert_eq!(rig.bind(0x4000, peer), Err(403), "{peer}");
            assert_eq!(sent(&mut rig, peer), None, "{peer}");
            assert_eq!(came(&mut rig, relayed, peer), None, "{peer}");
            denied += 1;
        }
    }
    assert_eq!(rig.count(Id::RelayDeniedPermission), denied);
    assert_eq!(rig.count(Id::RelayDeniedChannel), denied);
    assert_eq!(rig.count(Id::RelayDeniedSend), denied);
    assert_eq!(rig.count(Id::RelayPacketsIn), 0);
    // Of our own public address only ports that are relayed sockets now.
    assert_eq!(rig.permit(addr("8.78.0.1:1")), Ok(()), "by IP, for the sake of those");
    for port in [0, 22, 80, 3478, 8443, 9641, 20_000, 50_000, 50_999] {
        let own = SocketAddr::new(PUBLIC.parse().unwrap(), port);
        if own == relayed {
            continue;
        }
        assert_eq!(rig.bind(0x4000, own), Err(403), "{own}");
        assert_eq!(sent(&mut rig, own), None, "{own}");
        assert_eq!(came(&mut rig, relayed, own), None, "{own}");
    }
    assert!(rig.count(Id::RelayDeniedInbound) > 0);
    assert_eq!(rig.count(Id::RelayPacketsIn), 0);
}

#[test]
fn address_that_the_machine_gets_later_is_its_own() {
    let (mut rig, _sockets, relayed) = allocated(external());
    let peer = addr(PEER);
    assert_eq!(rig.bind(0x4000, peer), Ok(()));
    rig.relay.set_own_addresses([peer.ip()].into());
    assert_eq!((rig.permit(peer), rig.bind(0x4000, peer)), (Err(403), Err(403)));
    assert_eq!(sent(&mut rig, peer), None);
    assert_eq!(came(&mut rig, relayed, peer), None);
    assert_eq!(rig.send(&[0x40, 0, 0, 1, 7]), Handled::Dropped, "nor by an old channel");
    // What it is told, and bound to, it stays.
    assert_eq!(rig.bind(0x4001, addr("8.78.0.1:80")), Err(403));
    rig.relay.set_own_addresses([].into());
    assert!(sent(&mut rig, peer).is_some());
}

#[test]
fn only_listed_peers_are_reached() {
    let list = External { allow: nets(&["8.78.1.0/24", "2a01:79::/32"]), ..external() };
    let (mut rig, _sockets, relayed) = allocated(list);
    assert_eq!(rig.permit(addr(PEER)), Ok(()));
    for peer in ["8.78.2.1:5000", "8.78.0.255:5000", "8.8.8.8:53", "8.78.0.1:50500"] {
        assert_eq!(rig.permit(addr(peer)), Err(403), "{peer}");
        assert_eq!(rig.bind(0x4000, addr(peer)), Err(403), "{peer}");
        assert_eq!(sent(&mut rig, addr(peer)), None, "{peer}");
        assert_eq!(came(&mut rig, relayed, addr(peer)), None, "{peer}");
    }
    assert_eq!(rig.bind(0x4000, addr("[2a01:78::5]:1")), Err(403), "denied before its family is");
    assert_eq!(rig.bind(0x4000, addr("[2a01:79::5]:1")), Err(443), "no IPv6 here");
    assert_eq!(rig.permit(addr("[2a01:79::5]:1")), Err(443));
}

/// An ISATAP address (RFC 5214) may be under any prefix, and chosen by anybody.
#[test]
fn listed_ipv4_address_within_an_ipv6_one_opens_no_other_network() {
    let own = "2a01:79::200:5efe:808:808".parse().unwrap();
    let list =
        External { allow: nets(&["8.8.0.0/16", "2a01:79::/32"]), own: vec![own], ..external() };
    let (mut rig, _sockets) = rig_with(config_with(list));
    let family = (attr::REQUESTED_ADDRESS_FAMILY, V6);
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT, family]), Ok(()));
    for peer in ["[2a01:99::200:5efe:808:808]:7", "[2a01:99::5efe:808:808]:7"] {
        assert_eq!(rig.permit(addr(peer)), Err(403), "its network is not listed: {peer}");
    }
    assert_eq!(rig.permit(addr("[2a01:79::5efe:909:909]:7")), Err(403), "nor this one's host");
    assert_eq!(rig.permit(SocketAddr::new(own, 7)), Err(403), "of this machine");
    assert_eq!(rig.permit(addr("[2a01:79::5efe:808:808]:7")), Ok(()), "both are");
}

#[test]
fn named_host_of_the_lan_is_reached_and_its_neighbours_are_not() {
    let hosts = ["10.0.0.9", "fd12::9"].map(|ip| ip.parse().unwrap()).to_vec();
    let list = External { allow: nets(&["8.78.1.0/24"]), allow_private: hosts, ..external() };
    let (mut rig, _sockets, relayed) = allocated(list);
    let host = addr("10.0.0.9:5000");
    assert_eq!(rig.bind(0x4000, host), Ok(()));
    assert_eq!(sent(&mut rig, host).unwrap().to, host);
    assert!(came(&mut rig, relayed, host).is_some());
    for peer in ["10.0.0.8:5000", "10.0.0.10:5000", "[::ffff:10.0.0.9]:5000", "[fd12::8]:5000"] {
        assert_eq!(rig.permit(addr(peer)), Err(403), "{peer}");
        assert_eq!(sent(&mut rig, addr(peer)), None, "{peer}");
    }
    // Whatever a careless front end lets through: these never.
    let never = ["127.0.0.1", "169.254.169.254", "fd00:ec2::254", "168.63.129.16"];
    let allow_private = never.map(|ip| ip.parse().unwrap()).to_vec();
    let (mut rig, _sockets, _) = allocated(External { allow_private, ..external() });
    for ip in never {
        assert_eq!(rig.permit(SocketAddr::new(ip.parse().unwrap(), 80)), Err(403), "{ip}");
    }
}

#[test]
fn two_allocations_reach_each_other_by_their_relayed_addresses() {
    let (mut rig, _sockets, alice) = allocated(external());
    let here = rig.tuple;
    move_to(&mut rig, "198.51.100.8:5000");
    let handle = rig.allocate();
    let bob = rig.relay.relayed_address(handle).unwrap();
    assert_eq!(rig.bind(0x4000, alice), Ok(()));
    assert_eq!(sent(&mut rig, alice).unwrap().to, alice);
    assert_eq!(came(&mut rig, bob, alice).unwrap().framing, Framing::Channel(0x4000));
    // When Alice is gone, her port may be another program's: a channel does not keep it reachable.
    rig.tuple = here;
    rig.nonce.clear();
    assert_eq!(rig.refresh(0), Ok(()));
    move_to(&mut rig, "198.51.100.8:5000");
    assert_eq!(rig.send(&[0x40, 0, 0, 1, 7]), Handled::Dropped);
    assert_eq!(rig.count(Id::RelayDropNoPeer), 1);
    assert_eq!(sent(&mut rig, alice), None);
    assert_eq!(came(&mut rig, bob, alice), None);
}

#[test]
fn behind_a_nat_our_own_relayed_address_is_where_it_is_bound() {
    let inside: IpAddr = "10.0.0.7".parse().unwrap();
    let behind = External { bound_ip: inside, own: vec![inside], ..external() };
    let (mut rig, _sockets, alice) = allocated(behind);
    assert_eq!(alice.ip(), PUBLIC.parse::<IpAddr>().unwrap(), "clients are told the outside one");
    move_to(&mut rig, "198.51.100.8:5000");
    let handle = rig.allocate();
    let bob = rig.relay.relayed_address(handle).unwrap();
    assert_eq!(rig.permit(alice), Ok(()));
    assert_eq!(sent(&mut rig, alice).unwrap().to, SocketAddr::new(inside, alice.port()));
    let route = came(&mut rig, bob, SocketAddr::new(inside, alice.port())).unwrap();
    assert_eq!(route.framing, Framing::Indication { peer: alice });
    assert_eq!(rig.permit(SocketAddr::new(inside, alice.port())), Err(403), "not by that name");
}
