use super::*;

/// What must never be reached: address and XOR-PEER-ADDRESS for port 80 with transaction id
/// 000102…0b.
const TARGETS: &[(&str, &str)] = &[
    ("127.0.0.1", "00120008000121425e12a443"),
    ("0.0.0.0", "00120008000121422112a442"),
    ("169.254.169.254", "001200080001214288ec0dbc"),
    ("10.0.0.1", "00120008000121422b12a443"),
    ("::1", "00120014000221422112a442000102030405060708090a0a"),
    ("::", "00120014000221422112a442000102030405060708090a0b"),
    ("::ffff:127.0.0.1", "00120014000221422112a442000102030405f9f877090a0a"),
    ("::ffff:169.254.169.254", "00120014000221422112a442000102030405f9f8a1f7a3f5"),
    ("::127.0.0.1", "00120014000221422112a442000102030405060777090a0a"),
    ("::ffff:0:127.0.0.1", "00120014000221422112a44200010203fbfa060777090a0a"),
    ("64:ff9b::127.0.0.1", "001200140002214221765bd9000102030405060777090a0a"),
    ("64:ff9b:1::127.0.0.1", "001200140002214221765bd9000002030405060777090a0a"),
    ("2002:7f00:1::1", "00120014000221420110db42000002030405060708090a0a"),
    ("2001:0:7f00:1::", "00120014000221420113a4427f0102020405060708090a0b"),
    ("fe80::1", "0012001400022142df92a442000102030405060708090a0a"),
    ("fec0::1", "0012001400022142dfd2a442000102030405060708090a0a"),
    ("64:ff9b::169.254.169.254", "001200140002214221765bd90001020304050607a1f7a3f5"),
    ("fd00:ec2::254", "0012001400022142dc12aa8000010203040506070809085f"),
];

const MORE: &[&str] = &[
    "127.0.0.8",
    "127.255.255.254",
    "100.64.0.0",
    "100.127.255.255",
    "172.16.0.1",
    "192.168.0.1",
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
    "172.17.0.1",
    "8.8.8.8",
    "192.0.2.9",
    "192.0.2.11",
    "ff02::1",
    "100::1",
    "2001:db8::1",
    "fe80::5efe:10.0.0.1",
    "64:ff9b::192.0.2.11",
];

fn fixed_tid() -> TransactionId {
    TransactionId(hex("000102030405060708090a0b").try_into().unwrap())
}

/// One request with the checklist's transaction id and one raw attribute.
fn ask_raw(rig: &mut Rig, method: Method, raw: &[u8]) -> Option<u16> {
    let (user, nonce, key) = (rig.user.username.clone(), rig.nonce.clone(), rig.key());
    let request = message(method, fixed_tid(), |builder| {
        if method == Method::CHANNEL_BIND {
            builder.attribute(attr::CHANNEL_NUMBER, &[0x40, 0, 0, 0]);
        }
        builder.attribute(attr::XOR_PEER_ADDRESS, &raw[4..]);
        builder.text(attr::USERNAME, &user);
        builder.text(attr::REALM, REALM);
        builder.attribute(attr::NONCE, &nonce);
        builder.integrity(&key);
    });
    let reply = rig.ask(&request);
    let reply = Message::parse(&reply).unwrap();
    assert!(reply.verify_integrity(&key));
    reply.error_code()
}

fn target(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

#[test]
fn no_target_of_the_checklist_is_ever_admitted() {
    let mut rig = Rig::connected(Some(0x4fff));
    for (address, raw) in TARGETS {
        let raw = hex(raw);
        assert_eq!(raw[4..], xor(target(address, 80), fixed_tid()), "{address}");
        assert_eq!(ask_raw(&mut rig, Method::CREATE_PERMISSION, &raw), Some(403), "{address}");
        assert_eq!(ask_raw(&mut rig, Method::CHANNEL_BIND, &raw), Some(403), "{address}");
        let send = build(Class::Indication, Method::SEND, fixed_tid(), |builder| {
            builder.attribute(attr::XOR_PEER_ADDRESS, &raw[4..]);
            builder.attribute(attr::DATA, b"probe");
        });
        assert_eq!(rig.send(&send), Handled::Dropped, "{address}");
    }
    let n = TARGETS.len() as u64;
    for id in [Id::RelayDeniedPermission, Id::RelayDeniedChannel, Id::RelayDeniedSend] {
        assert_eq!(rig.count(id), n);
    }
    assert_eq!((rig.count(Id::RelayPermissions), rig.count(Id::RelayChannels)), (1, 1));
}

#[test]
fn no_other_address_is_admitted_on_any_port() {
    let mut rig = Rig::connected(None);
    for address in MORE {
        for port in [80, 20000] {
            let peer = target(address, port);
            assert_eq!(rig.permit(peer), Err(403), "{peer}");
            assert_eq!(rig.bind(0x4000, peer), Err(403), "{peer}");
            assert_eq!(rig.send(&send_indication(peer, b"x")), Handled::Dropped, "{peer}");
        }
    }
    assert_eq!(rig.count(Id::RelayPacketsIn), 0);
}

#[test]
fn media_ip_on_another_port_may_be_permitted_but_not_reached() {
    let mut rig = Rig::allocated();
    let other = addr("192.0.2.10:20001");
    assert_eq!(rig.permit(other), Ok(()), "permissions are by IP alone");
    assert_eq!(rig.bind(0x4000, other), Err(403));
    assert_eq!(rig.send(&send_indication(other, b"x")), Handled::Dropped);
    assert_eq!(rig.count(Id::RelayDeniedSend), 1);
    assert_eq!(rig.relay.route(rig.handle(), &other), None, "nor does anything come from there");
    assert!(rig.relay.route(rig.handle(), &media()).is_some());
}

#[test]
fn media_address_in_ipv6_dress_is_of_the_wrong_family() {
    let mut rig = Rig::connected(None);
    let peer = addr("[::ffff:192.0.2.10]:20000");
    assert_eq!(rig.permit(peer), Err(443));
    assert_eq!(rig.bind(0x4000, peer), Err(443));
    assert_eq!(rig.send(&send_indication(peer, b"x")), Handled::Dropped);
}

#[test]
fn one_denied_peer_spoils_the_whole_create_permission() {
    let mut rig = Rig::allocated();
    let tid = TransactionId([rig.tid + 1; 12]);
    let (good, bad) = (xor(media(), tid), xor(addr("10.0.0.1:1"), tid));
    let both = [(attr::XOR_PEER_ADDRESS, &good[..]), (attr::XOR_PEER_ADDRESS, &bad[..])];
    assert_eq!(rig.request(Method::CREATE_PERMISSION, &both), Err(403));
    assert_eq!(rig.count(Id::RelayPermissions), 0);
    assert_eq!(rig.request(Method::CREATE_PERMISSION, &[]), Err(400));
    let malformed = [(attr::XOR_PEER_ADDRESS, &[0, 1, 2][..])];
    assert_eq!(rig.request(Method::CREATE_PERMISSION, &malformed), Err(400));
}

#[test]
fn channel_numbers_outside_0x4000_to_0x4fff_get_400() {
    let mut rig = Rig::allocated();
    for number in [0, 0x3fff, 0x5000, 0x7fff, 0xffff] {
        assert_eq!(rig.bind(number, media()), Err(400), "{number:#x}");
    }
    for number in [0x4000, 0x4fff] {
        assert_eq!(Rig::allocated().bind(number, media()), Ok(()));
    }
    assert_eq!(rig.request(Method::CHANNEL_BIND, &[]), Err(400));
    let no_peer = [(attr::CHANNEL_NUMBER, &[0x40, 0, 0, 0][..])];
    assert_eq!(rig.request(Method::CHANNEL_BIND, &no_peer), Err(400));
    assert_eq!(rig.count(Id::RelayChannels), 0);
}

#[test]
fn conflicting_bindings_get_400_and_the_same_one_is_refreshed() {
    let mut config = config();
    let second = addr("192.0.2.10:20001");
    config.media.push(second);
    let mut rig = Rig::with(config);
    rig.allocate();
    assert_eq!(rig.bind(0x4000, media()), Ok(()));
    assert_eq!(rig.bind(0x4001, media()), Err(400), "the peer has a channel");
    assert_eq!(rig.bind(0x4000, second), Err(400), "the channel has a peer");
    assert_eq!(rig.bind(0x4000, media()), Ok(()));
    assert_eq!(rig.bind(0x4001, second), Ok(()));
    assert_eq!((rig.count(Id::RelayChannels), rig.count(Id::RelayPermissions)), (2, 1));
    let to = |handled| match handled {
        Handled::ToPeer(to) => to.peer,
        other => panic!("{other:?}"),
    };
    assert_eq!(to(rig.send(&[0x40, 0, 0, 1, 9])), media());
    assert_eq!(to(rig.send(&[0x40, 1, 0, 1, 9])), second);
    assert_eq!(rig.relay.route(rig.handle(), &second).unwrap().framing, Framing::Channel(0x4001));
    // After its end a number is free again.
    assert_eq!(rig.refresh(3600), Ok(()));
    rig.advance(secs(600));
    assert_eq!(rig.bind(0x4001, media()), Ok(()));
    assert_eq!(rig.count(Id::RelayChannels), 1);
}

#[test]
fn chromium_binds_a_channel_and_sends_unpadded_channel_data() {
    let mut rig = Rig::connected(Some(0x4000));
    let handle = rig.handle();
    let sent = rig.send(&[0x40, 0x00, 0, 5, 1, 2, 3, 4, 5]);
    let expected = ToPeer { allocation: handle, peer: media(), payload: 4..9 };
    assert_eq!(sent, Handled::ToPeer(expected));
    let padded = rig.send(&[0x40, 0x00, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0]);
    assert_eq!(padded, sent, "padding is not payload");
    let route = rig.relay.route(handle, &media()).unwrap();
    assert_eq!((route.tuple, route.framing), (rig.tuple, Framing::Channel(0x4000)));
    assert_eq!((rig.count(Id::RelayPacketsIn), rig.count(Id::RelayBytesIn)), (2, 10));
}

#[test]
fn firefox_only_ever_uses_indications() {
    let mut rig = Rig::connected(None);
    let handle = rig.handle();
    let datagram = send_indication(media(), b"hello");
    let Handled::ToPeer(to) = rig.send(&datagram) else { panic!("not relayed") };
    assert_eq!((to.allocation, to.peer), (handle, media()));
    assert_eq!(&datagram[to.payload], b"hello");
    let route = rig.relay.route(handle, &media()).unwrap();
    assert_eq!(route.framing, Framing::Indication { peer: media() });
    let mut slot = [0; 100];
    slot[60..65].copy_from_slice(b"world");
    let out = route.framing.encapsulate(&mut slot, 60..65, [3; 12]).unwrap();
    let mut expected = hex("00170018 2112a442 030303030303030303030303 00120008");
    expected.extend(xor(media(), TransactionId([3; 12])));
    expected.extend(hex("00130005 776f726c64 000000"));
    assert_eq!(slot[out], expected);
}

#[test]
fn permission_lasts_300_seconds_and_a_channel_600() {
    let mut rig = Rig::connected(None);
    rig.wait(Duration::from_millis(299_999));
    assert!(matches!(rig.send(&send_indication(media(), b"x")), Handled::ToPeer(_)));
    assert!(rig.relay.route(rig.handle(), &media()).is_some());
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.send(&send_indication(media(), b"x")), Handled::Dropped);
    assert_eq!(rig.count(Id::RelayDropNoPermission), 1);
    assert_eq!(
        (rig.relay.route(rig.handle(), &media()), rig.count(Id::RelayPermissions)),
        (None, 0)
    );

    // A binding brings its permission along.
    assert_eq!(rig.refresh(3600), Ok(()));
    assert_eq!(rig.bind(0x4000, media()), Ok(()));
    assert_eq!(rig.count(Id::RelayPermissions), 1);
    rig.wait(secs(300));
    assert_eq!(rig.relay.route(rig.handle(), &media()), None);
    let data = [0x40, 0, 0, 1, 9];
    assert!(matches!(rig.send(&data), Handled::ToPeer(_)), "the client may still send on it");
    assert_eq!(rig.permit(media()), Ok(()));
    let route = rig.relay.route(rig.handle(), &media()).unwrap();
    assert_eq!(route.framing, Framing::Channel(0x4000));
    rig.wait(Duration::from_millis(299_999));
    assert_eq!(rig.count(Id::RelayChannels), 1);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.send(&data), Handled::Dropped);
    assert_eq!((rig.count(Id::RelayDropNoChannel), rig.count(Id::RelayChannels)), (1, 0));
}

#[test]
fn channel_data_that_lies_or_has_no_channel_is_dropped() {
    let mut rig = Rig::connected(Some(0x4000));
    for bytes in [&hex("4000ffff41414141")[..], &[0x40], &[0x40, 0, 0], &[0x40, 0, 0, 2, 1]] {
        assert_eq!(rig.send(bytes), Handled::Dropped);
    }
    assert_eq!(rig.count(Id::RelayDropMalformed), 4);
    assert_eq!(rig.send(&[0x40, 1, 0, 1, 9]), Handled::Dropped);
    assert_eq!(rig.count(Id::RelayDropNoChannel), 1);
    let Handled::ToPeer(empty) = rig.send(&[0x40, 0, 0, 0]) else { panic!("not relayed") };
    assert_eq!(empty.payload, 4..4, "an empty datagram is one");
    rig.tuple = tuple("198.51.100.7:5001");
    assert_eq!(rig.send(&[0x40, 0, 0, 1, 9]), Handled::Dropped);
    assert_eq!(rig.count(Id::RelayDropNoAllocation), 1);
}

#[test]
fn send_indication_that_lies_or_lacks_something_is_dropped() {
    let mut rig = Rig::connected(None);
    let lie = "001600142112a442000102030405060708090a0b0012000800013e82e112a64300138ab641414141";
    assert_eq!(rig.send(&hex(lie)), Handled::Dropped);
    let tid = TransactionId([1; 12]);
    let indication = |fill: &dyn Fn(&mut Builder<'_>)| {
        build(Class::Indication, Method::SEND, tid, |builder| fill(builder))
    };
    let no_peer = indication(&|builder| builder.attribute(attr::DATA, b"x"));
    let no_data = indication(&|builder| builder.xor_address(attr::XOR_PEER_ADDRESS, media()));
    let unknown = indication(&|builder| {
        builder.xor_address(attr::XOR_PEER_ADDRESS, media());
        builder.attribute(0x7f01, &[]);
        builder.attribute(attr::DATA, b"x");
    });
    for bytes in [no_peer, no_data, unknown] {
        assert_eq!(rig.send(&bytes), Handled::Dropped);
    }
    assert_eq!(rig.count(Id::RelayDropMalformed), 4);
    let optional = indication(&|builder| {
        builder.attribute(attr::DONT_FRAGMENT, &[]);
        builder.xor_address(attr::XOR_PEER_ADDRESS, media());
        builder.attribute(attr::DATA, b"x");
        builder.attribute(0xc001, &[0; 40]);
    });
    assert!(matches!(rig.send(&optional), Handled::ToPeer(_)));
}

#[test]
fn handle_of_a_gone_allocation_leads_nowhere() {
    let mut rig = Rig::connected(Some(0x4000));
    let old = rig.handle();
    assert_eq!(rig.refresh(0), Ok(()));
    let new = rig.allocate();
    assert_eq!(rig.permit(media()), Ok(()));
    assert_eq!(new.index, old.index);
    assert_eq!(rig.relay.route(old, &media()), None);
    assert!(rig.relay.route(new, &media()).is_some());
}
