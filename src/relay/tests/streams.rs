use super::*;

fn over(transport: Transport) -> Rig {
    let mut rig = Rig::new();
    rig.tuple.transport = transport;
    rig.allocate();
    assert_eq!(rig.permit(media()), Ok(()));
    rig
}

#[test]
fn turn_over_a_stream_is_the_same_but_for_padding() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut rig = over(transport);
        let handle = rig.handle();
        let route = rig.relay.route(handle, &media()).unwrap();
        assert_eq!(route.framing, Framing::Indication { peer: media() });
        assert_eq!(rig.bind(0x4000, media()), Ok(()));
        let route = rig.relay.route(handle, &media()).unwrap();
        assert_eq!((route.tuple, route.framing), (rig.tuple, Framing::StreamChannel(0x4000)));
        let Handled::ToPeer(to) = rig.send(&[0x40, 0, 0, 1, 9]) else { panic!("not relayed") };
        assert_eq!(to.payload, 4..5);
    }
}

#[test]
fn same_address_over_three_transports_is_three_allocations() {
    let mut rig = Rig::new();
    let mut seen = Vec::new();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        rig.tuple.transport = transport;
        seen.push(rig.allocate());
    }
    assert_eq!(rig.allocations(), 3);
    assert!(seen[0] != seen[1] && seen[1] != seen[2]);
}

#[test]
fn closed_connection_ends_its_allocation_and_no_other() {
    let mut rig = over(Transport::Tls);
    let (tls, handle) = (rig.tuple, rig.handle());
    rig.tuple.transport = Transport::Udp;
    rig.allocate();
    let udp = rig.tuple;
    rig.relay.on_disconnect(rig.now, udp, &mut rig.counters);
    assert_eq!(rig.allocations(), 2, "UDP knows no connections");
    rig.relay.on_disconnect(rig.now, tls, &mut rig.counters);
    assert_eq!((rig.allocations(), rig.relay.poll_ended()), (1, Some(handle)));
    assert_eq!(rig.count(Id::RelayAllocationsEndedDisconnected), 1);
    rig.relay.on_disconnect(rig.now, tls, &mut rig.counters);
    assert_eq!(rig.relay.poll_ended(), None);
}

#[test]
fn spoofed_flood_over_udp_does_not_mute_connections() {
    let mut config = config();
    config.limits.unauthenticated_replies = 1;
    let mut rig = Rig::with(config);
    let request = hex("000300082112a442000102030405060708090a0b0019000411000000");
    for _ in 0..100 {
        let _ = rig.send(&request);
    }
    assert!(rig.count(Id::RelayDropReplyCap) > 50);
    rig.tuple.transport = Transport::Tcp;
    for _ in 0..100 {
        rig.ask(&request);
    }
}
