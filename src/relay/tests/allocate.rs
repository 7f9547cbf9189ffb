use super::*;

const TRANSPORT: (u16, &[u8]) = (attr::REQUESTED_TRANSPORT, UDP);
const V4: &[u8] = &[1, 0, 0, 0];
const V6: &[u8] = &[2, 0, 0, 0];

fn try_with(extra: &[(u16, &[u8])]) -> (Result<(), u16>, Rig) {
    let mut rig = Rig::new();
    let attributes: Vec<_> = [TRANSPORT].iter().chain(extra).copied().collect();
    let outcome = rig.request(Method::ALLOCATE, &attributes);
    assert_eq!(rig.allocations(), usize::from(outcome.is_ok()));
    (outcome, rig)
}

#[test]
fn answer_names_the_virtual_and_the_clients_own_address() {
    let mut rig = Rig::new();
    rig.challenge();
    let request = rig.signed(Method::ALLOCATE, &[TRANSPORT]);
    let reply = rig.ask(&request);
    let relayed = rig.relay.relayed_address(rig.handle()).unwrap();
    let tid = TransactionId([rig.tid; 12]);
    let mut expected = hex("0103 0038 2112a442");
    expected.extend(tid.0);
    expected.extend(hex("00160008"));
    expected.extend(xor(relayed, tid));
    expected.extend(hex("000d0004 00000258 00200008"));
    expected.extend(xor(addr("198.51.100.7:5000"), tid));
    expected.extend(hex("00080014"));
    assert_eq!(reply[..reply.len() - 20], expected);
    assert!(Message::parse(&reply).unwrap().verify_integrity(&rig.key()));
    assert_eq!(relayed.ip(), media().ip());
}

#[test]
fn relayed_ports_are_never_low_excluded_or_the_media_port() {
    let mut config = config();
    config.excluded_ports = (1024..=65_535).filter(|port| *port % 64 > 2).collect();
    config.excluded_ports.push(1024);
    config.media = vec![addr("192.0.2.10:1025")];
    let mut rig = Rig::with(config);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50_000 {
        let (ports, rng) = (&rig.relay.ports, &mut rig.relay.rng);
        seen.insert(ports.draw(rng, false, false).unwrap());
        assert_eq!(ports.draw(rng, true, false).unwrap() % 2, 0);
    }
    // 1026 is the echo beside the media port.
    let expected = (1027..=65_535).filter(|port| *port % 64 <= 2).collect();
    assert_eq!(seen, expected);
}

#[test]
fn config_without_a_port_to_draw_is_refused() {
    let make = |config| {
        let nonces = NonceKeys::new([1; 32], None);
        let rng = StdRng::seed_from_u64(1);
        Relay::new(config, Arc::new(keys()), nonces, rng, ShardId(0)).err()
    };
    let none = Config { excluded_ports: (1024..=65_535).collect(), ..config() };
    assert_eq!(make(none), Some(ConfigError::Ports));
    assert_eq!(make(Config { media: vec![], ..config() }), Some(ConfigError::Media));
    assert_eq!(make(Config { media: vec![media(); 5], ..config() }), Some(ConfigError::Media));
    let v6 = Config { relayed_ip: "2001:db8::1".parse().unwrap(), ..config() };
    assert_eq!(make(v6), Some(ConfigError::RelayedIp));
}

#[test]
fn retransmitted_allocate_gets_the_same_answer() {
    let mut rig = Rig::new();
    rig.challenge();
    let request = rig.signed(Method::ALLOCATE, &[TRANSPORT]);
    let first = rig.ask(&request);
    rig.advance(secs(3));
    assert_eq!(rig.ask(&request), first);
    assert_eq!((rig.allocations(), rig.count(Id::RelayAllocationsCreated)), (1, 1));
    rig.advance(secs(600 - 4));
    assert_eq!(rig.ask(&request), first, "after allocate_by, too: nothing new is made");
}

#[test]
fn second_allocate_on_the_tuple_gets_437() {
    let mut rig = Rig::allocated();
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT]), Err(437));
    assert_eq!((rig.allocations(), rig.count(Id::RelayRefusedMismatch)), (1, 1));
}

#[test]
fn requests_without_an_allocation_get_437() {
    let mut rig = Rig::new();
    assert_eq!(rig.refresh(600), Err(437));
    assert_eq!(rig.permit(media()), Err(437));
    assert_eq!(rig.bind(0x4000, media()), Err(437));
}

#[test]
fn transports_other_than_udp_get_442() {
    let mut rig = Rig::new();
    for protocol in [6, 0, 18, 255] {
        let attributes = [(attr::REQUESTED_TRANSPORT, &[protocol, 0, 0, 0][..])];
        assert_eq!(rig.request(Method::ALLOCATE, &attributes), Err(442));
    }
    assert_eq!(rig.request(Method::ALLOCATE, &[]), Err(400), "none at all");
    assert_eq!(rig.request(Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, &[17])]), Err(400));
    assert_eq!(rig.allocations(), 0);
}

#[test]
fn address_families_are_answered_by_the_book() {
    let family = attr::REQUESTED_ADDRESS_FAMILY;
    assert_eq!(try_with(&[(family, V4)]).0, Ok(()));
    assert_eq!(try_with(&[(family, V6)]).0, Err(440));
    assert_eq!(try_with(&[(family, &[9, 0, 0, 0])]).0, Err(440));
    assert_eq!(try_with(&[(family, &[1])]).0, Err(400));
    let additional = attr::ADDITIONAL_ADDRESS_FAMILY;
    assert_eq!(try_with(&[(additional, V4)]).0, Err(400));
    assert_eq!(try_with(&[(additional, V6), (family, V4)]).0, Err(400));
    assert_eq!(try_with(&[(additional, V6), (attr::EVEN_PORT, &[0x80])]).0, Err(400));
    let (outcome, rig) = try_with(&[(additional, V6)]);
    assert_eq!(outcome, Ok(()), "IPv4 alone, and it says why");
    assert_eq!(rig.last().first(attr::ADDRESS_ERROR_CODE), Some(&[2, 0, 4, 40][..]));
    let (_, mut rig) = try_with(&[]);
    assert_eq!(rig.request(Method::REFRESH, &[(family, V6)]), Err(443));
    assert_eq!(rig.request(Method::REFRESH, &[(family, V4)]), Ok(()));
}

#[test]
fn reservations_are_answered_by_the_book() {
    assert_eq!(try_with(&[(attr::EVEN_PORT, &[0, 0])]).0, Err(400));
    let token = (attr::RESERVATION_TOKEN, &[7; 8][..]);
    assert_eq!(try_with(&[token]).0, Err(508), "made up");
    assert_eq!(try_with(&[(attr::RESERVATION_TOKEN, &[7; 4])]).0, Err(400));
    assert_eq!(try_with(&[token, (attr::EVEN_PORT, &[0])]).0, Err(400));
    assert_eq!(try_with(&[token, (attr::REQUESTED_ADDRESS_FAMILY, V4)]).0, Err(400));
    assert_eq!(try_with(&[token, (attr::ADDITIONAL_ADDRESS_FAMILY, V6)]).0, Err(400));
}

#[test]
fn even_ports_are_drawn() {
    for _ in 0..20 {
        let (outcome, rig) = try_with(&[(attr::EVEN_PORT, &[0])]);
        assert_eq!(outcome, Ok(()));
        assert_eq!(rig.relay.relayed_address(rig.handle()).unwrap().port() % 2, 0);
        assert!(rig.last().first(attr::RESERVATION_TOKEN).is_none(), "none was asked for");
    }
}

#[test]
fn dont_fragment_is_understood() {
    assert_eq!(try_with(&[(attr::DONT_FRAGMENT, &[])]).0, Ok(()));
}

#[test]
fn lifetimes_follow_default_maximum_and_session_limit() {
    let lifetime = |asked: u32| {
        let (outcome, rig) = try_with(&[(attr::LIFETIME, &asked.to_be_bytes())]);
        assert_eq!(outcome, Ok(()));
        rig.lifetime()
    };
    assert_eq!(lifetime(0), Some(600), "an Allocate cannot ask for nothing");
    assert_eq!(lifetime(1), Some(600));
    assert_eq!(lifetime(900), Some(900));
    assert_eq!(lifetime(u32::MAX), Some(3600));
    assert_eq!(try_with(&[]).1.lifetime(), Some(600));
    assert_eq!(try_with(&[(attr::LIFETIME, &[0; 3])]).0, Err(400));

    let mut rig = Rig::new();
    rig.user = mint("user-42", 100, 700);
    rig.allocate();
    assert_eq!(rig.lifetime(), Some(600));
    rig.wait(secs(500));
    assert_eq!(rig.refresh(3600), Ok(()));
    assert_eq!(rig.lifetime(), Some(200), "no further than live_until");
    rig.wait(Duration::from_millis(199_500));
    assert_eq!(rig.allocations(), 1);
    assert_eq!(rig.refresh(600), Err(401), "less than a second is left");
    rig.wait(Duration::from_millis(500));
    assert_eq!(rig.allocations(), 0);
    assert_eq!(rig.count(Id::RelayAllocationsEndedSessionLimit), 1);
}

#[test]
fn after_allocate_by_nothing_new_is_made_but_what_lives_is_refreshed() {
    let mut rig = Rig::allocated();
    rig.wait(secs(599));
    assert_eq!(rig.refresh(3600), Ok(()));
    rig.wait(secs(1));
    let old = rig.tuple;
    rig.tuple = tuple("198.51.100.7:5001");
    rig.nonce.clear();
    let late = rig.request(Method::ALLOCATE, &[TRANSPORT]);
    assert_eq!((late, rig.count(Id::RelayAuthExpired)), (Err(401), 1));
    rig.tuple = old;
    rig.nonce.clear();
    assert_eq!(rig.refresh(3600), Ok(()));
    assert_eq!(rig.allocations(), 1);
}

#[test]
fn allocation_ends_exactly_at_its_lifetime() {
    let mut rig = Rig::connected(Some(0x4000));
    let handle = rig.handle();
    rig.wait(Duration::from_millis(599_999));
    assert!(rig.relay.owner(handle).is_some() && rig.relay.poll_ended().is_none());
    let due = rig.relay.poll_timeout().unwrap();
    assert_eq!(due, Mono::from_nanos(600_000_000_000));
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.relay.poll_ended(), Some(handle));
    assert_eq!(rig.relay.poll_ended(), None);
    assert!(rig.relay.owner(handle).is_none() && rig.relay.relayed_address(handle).is_none());
    for gauge in [Id::RelayAllocations, Id::RelayPermissions, Id::RelayChannels] {
        assert_eq!(rig.count(gauge), 0);
    }
    assert_eq!(rig.count(Id::RelayAllocationsEndedExpired), 1);
    assert_eq!(rig.relay.poll_timeout(), None);
}

#[test]
fn late_timer_does_not_lengthen_a_life() {
    let mut rig = Rig::connected(Some(0x4000));
    rig.advance(secs(600));
    assert_eq!(rig.send(&[0x40, 0, 0, 1, 9]), Handled::Dropped);
    assert_eq!(rig.send(&send_indication(media(), b"x")), Handled::Dropped);
    assert_eq!(rig.count(Id::RelayDropNoAllocation), 2);
    assert_eq!(rig.relay.route(rig.handle(), &media()), None);
    assert_eq!(rig.refresh(600), Err(437));
    assert_eq!(rig.count(Id::RelayAllocationsEndedExpired), 1);
}

#[test]
fn refresh_moves_the_end_and_zero_ends_at_once() {
    let mut rig = Rig::allocated();
    rig.wait(secs(500));
    assert_eq!(rig.refresh(600), Ok(()));
    rig.wait(secs(599));
    assert_eq!(rig.allocations(), 1);
    let handle = rig.handle();
    assert_eq!(rig.refresh(0), Ok(()));
    assert_eq!((rig.lifetime(), rig.allocations()), (Some(0), 0));
    assert_eq!(rig.relay.poll_ended(), Some(handle));
    assert_eq!(rig.count(Id::RelayAllocationsEndedReleased), 1);
    assert_eq!(rig.refresh(0), Err(437), "a retransmission; clients take it for success");
}

#[test]
fn subject_has_a_quota_that_closing_gives_back() {
    let mut config = config();
    config.limits.allocations_per_subject = 3;
    let mut rig = Rig::with(config);
    let open = |rig: &mut Rig, port: u16| {
        rig.tuple = tuple(&format!("198.51.100.7:{port}"));
        rig.nonce.clear();
        rig.request(Method::ALLOCATE, &[TRANSPORT])
    };
    for port in 1..=3 {
        assert_eq!(open(&mut rig, port), Ok(()));
    }
    assert_eq!(open(&mut rig, 4), Err(486));
    assert_eq!(rig.count(Id::RelayRefusedQuota), 1);
    rig.user = mint("someone else", 600, 43_200);
    assert_eq!(open(&mut rig, 4), Ok(()));
    rig.user = mint("user-42", 600, 43_200);
    for _ in 0..200 {
        rig.tuple = tuple("198.51.100.7:1");
        rig.nonce.clear();
        assert_eq!(rig.refresh(0), Ok(()));
        assert_eq!(open(&mut rig, 1), Ok(()));
        assert_eq!(open(&mut rig, 5), Err(486), "no loop leaks quota");
        rig.advance(secs(1));
    }
}

#[test]
fn full_relay_answers_508() {
    let mut config = config();
    config.limits.allocations = 1;
    let mut rig = Rig::with(config);
    rig.allocate();
    rig.tuple = tuple("198.51.100.7:5001");
    rig.nonce.clear();
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT]), Err(508));
    assert_eq!(rig.count(Id::RelayRefusedCapacity), 1);
}

#[test]
fn opening_and_closing_leaves_no_timers_behind() {
    let mut rig = Rig::new();
    rig.user = mint("user-42", 40_000, 43_200);
    for _ in 0..5000 {
        rig.allocate();
        assert_eq!(rig.permit(media()), Ok(()));
        assert_eq!(rig.refresh(0), Ok(()));
        while rig.relay.poll_ended().is_some() {}
    }
    assert!(rig.relay.timers.len() < 1100, "{}", rig.relay.timers.len());
}

#[test]
fn thousands_that_expire_together_are_worked_off_in_batches() {
    let mut config = config();
    config.limits.allocations_per_subject = 5000;
    config.limits.unauthenticated_replies = u16::MAX;
    let mut rig = Rig::with(config);
    for port in 1..=2000 {
        rig.tuple = tuple(&format!("198.51.100.7:{port}"));
        rig.nonce.clear();
        rig.allocate();
    }
    rig.wait(secs(600));
    assert_eq!(rig.allocations(), 2000 - TIMEOUT_BATCH);
    let mut calls = 0;
    while rig.relay.poll_timeout().is_some_and(|at| at <= rig.now.mono) {
        rig.wait(Duration::ZERO);
        calls += 1;
    }
    assert_eq!((rig.allocations(), calls), (0, 3));
}
