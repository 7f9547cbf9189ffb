//! Reserved ports, rates, revocation, draining.

use super::*;

const TRANSPORT: (u16, &[u8]) = (attr::REQUESTED_TRANSPORT, UDP);

/// Another client of the same user.
fn move_to(rig: &mut Rig, client: &str) {
    rig.tuple = tuple(client);
    rig.nonce.clear();
}

fn reserve(rig: &mut Rig) -> (u16, Vec<u8>) {
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT, (attr::EVEN_PORT, &[0x80])]), Ok(()));
    let token = rig.last().first(attr::RESERVATION_TOKEN).unwrap().to_vec();
    (rig.relay.relayed_address(rig.handle()).unwrap().port(), token)
}

#[test]
fn reserved_port_is_the_next_higher_one_and_is_given_once() {
    let mut rig = Rig::new();
    rig.challenge();
    let request = rig.signed(Method::ALLOCATE, &[TRANSPORT, (attr::EVEN_PORT, &[0x80])]);
    let first = rig.ask(&request);
    assert_eq!(rig.ask(&request), first, "a retransmission names the same token");
    let token = rig.last().first(attr::RESERVATION_TOKEN).unwrap().to_vec();
    let even = rig.relay.relayed_address(rig.handle()).unwrap().port();
    assert_eq!(even % 2, 0);
    move_to(&mut rig, "198.51.100.7:5001");
    let redeem = [TRANSPORT, (attr::RESERVATION_TOKEN, &token[..])];
    assert_eq!(rig.request(Method::ALLOCATE, &redeem), Ok(()));
    assert_eq!(rig.relay.relayed_address(rig.handle()).unwrap().port(), even + 1);
    assert!(rig.last().first(attr::RESERVATION_TOKEN).is_none());
    move_to(&mut rig, "198.51.100.7:5002");
    assert_eq!(rig.request(Method::ALLOCATE, &redeem), Err(508), "spent");
    assert_eq!(rig.allocations(), 2);
}

#[test]
fn reservation_ends_after_thirty_seconds_and_is_nobody_elses() {
    let mut rig = Rig::new();
    let (_, token) = reserve(&mut rig);
    let redeem = [TRANSPORT, (attr::RESERVATION_TOKEN, &token[..])];
    move_to(&mut rig, "198.51.100.7:5001");
    rig.user = mint("mallory", 600, 43_200);
    assert_eq!(rig.request(Method::ALLOCATE, &redeem), Err(508));
    rig.user = mint("user-42", 600, 43_200);
    rig.wait(Duration::from_millis(30_001));
    assert_eq!(rig.request(Method::ALLOCATE, &redeem), Err(508));
}

#[test]
fn loop_of_reservations_is_bounded() {
    let mut rig = Rig::new();
    let mut granted = 0;
    for _ in 0..100 {
        match rig.request(Method::ALLOCATE, &[TRANSPORT, (attr::EVEN_PORT, &[0x80])]) {
            Ok(()) => {
                granted += 1;
                assert_eq!(rig.refresh(0), Ok(()));
            }
            Err(code) => assert_eq!(code, 508),
        }
    }
    assert!((1..=4).contains(&granted), "{granted}");
    rig.wait(secs(31));
    reserve(&mut rig);
}

#[test]
fn token_is_good_on_every_shard_of_the_process() {
    let config = config();
    let mut first = Rig::with(config.clone());
    let mut second = Rig::with(config);
    let (even, token) = reserve(&mut first);
    let redeem = [TRANSPORT, (attr::RESERVATION_TOKEN, &token[..])];
    assert_eq!(second.request(Method::ALLOCATE, &redeem), Ok(()));
    assert_eq!(second.relay.relayed_address(second.handle()).unwrap().port(), even + 1);
}

fn limited(allocation_rate: Rate, total_rate: Rate) -> Rig {
    let mut config = config();
    config.limits.allocation_rate = allocation_rate;
    config.limits.total_rate = total_rate;
    let mut rig = Rig::with(config);
    rig.allocate();
    assert_eq!(rig.bind(0x4000, media()), Ok(()));
    rig
}

#[test]
fn packets_and_bits_beyond_an_allocations_rate_are_dropped_and_counted() {
    let mut rig = limited(Rate { packets: 100, bits: 0 }, Rate::UNLIMITED);
    for _ in 0..1_000 {
        let _ = rig.send(&[0x40, 0, 0, 1, 9]);
        let _ = rig.send(&send_indication(media(), b"x"));
    }
    assert_eq!(rig.count(Id::RelayPacketsIn), 50, "half a second's worth at once");
    assert_eq!(rig.count(Id::RelayDropPacketRate), 1_950);
    rig.advance(Duration::from_millis(10));
    assert!(matches!(rig.send(&[0x40, 0, 0, 1, 9]), Handled::ToPeer(_)));

    let mut rig = limited(Rate { packets: 0, bits: 80_000 }, Rate::UNLIMITED);
    let mut packet = vec![0; 1_004];
    packet[..4].copy_from_slice(&[0x40, 0, 3, 0xe8]);
    for _ in 0..100 {
        let _ = rig.send(&packet);
    }
    assert_eq!((rig.count(Id::RelayBytesIn), rig.count(Id::RelayDropBitRate)), (5_000, 95));
    assert_eq!(rig.refresh(600), Ok(()), "requests are not payload");
}

#[test]
fn one_allocations_rate_is_not_anothers_but_the_total_is_everybodys() {
    let per = Rate { packets: 100, bits: 0 };
    let mut rig = limited(per, Rate { packets: 150, bits: 0 });
    let flood = |rig: &mut Rig| {
        (0..1_000).filter(|_| rig.send(&[0x40, 0, 0, 1, 9]) != Handled::Dropped).count()
    };
    assert_eq!(flood(&mut rig), 50);
    move_to(&mut rig, "198.51.100.7:5001");
    rig.allocate();
    assert_eq!(rig.bind(0x4000, media()), Ok(()));
    assert_eq!(flood(&mut rig), 25, "75 in all");
    assert!(rig.count(Id::RelayDropTotalRate) > 0);
}

#[test]
fn what_peers_send_to_a_client_is_bounded_like_what_it_sends() {
    let mut rig = limited(Rate { packets: 100, bits: 80_000 }, Rate::UNLIMITED);
    let handle = rig.relay.route(rig.handle(), &media()).unwrap().allocation;
    assert_eq!(handle, rig.handle());
    let sent = |rig: &mut Rig, bytes| {
        let now = rig.now.mono;
        (0..1_000).filter(|_| rig.relay.charge(now, handle, bytes, &mut rig.counters)).count()
    };
    assert_eq!(sent(&mut rig, 1), 50, "half a second's worth at once");
    assert_eq!(rig.count(Id::RelayDropPacketRateOut), 950);
    rig.advance(secs(10));
    assert_eq!(sent(&mut rig, 1_000), 5, "5,000 bytes are half a second of 80,000 bits");
    assert_eq!(rig.count(Id::RelayDropBitRateOut), 995);
    // The directions do not share a bucket.
    assert!(matches!(rig.send(&[0x40, 0, 0, 1, 9]), Handled::ToPeer(_)));
    assert_eq!((rig.count(Id::RelayDropPacketRate), rig.count(Id::RelayDropBitRate)), (0, 0));
    assert_eq!(rig.refresh(0), Ok(()));
    rig.advance(secs(10));
    assert_eq!(sent(&mut rig, 1), 0, "the allocation is gone");
}

#[test]
fn total_rate_towards_clients_is_everybodys() {
    let per = Rate { packets: 100, bits: 0 };
    let mut rig = limited(per, Rate { packets: 150, bits: 0 });
    let flood = |rig: &mut Rig| {
        let (now, to) = (rig.now.mono, rig.handle());
        (0..1_000).filter(|_| rig.relay.charge(now, to, 9, &mut rig.counters)).count()
    };
    assert_eq!(flood(&mut rig), 50);
    move_to(&mut rig, "198.51.100.7:5001");
    rig.allocate();
    assert_eq!(flood(&mut rig), 25, "75 in all");
    assert_eq!(rig.count(Id::RelayDropTotalRateOut), 25);
    assert_eq!(rig.count(Id::RelayDropTotalRate), 0);
}

#[test]
fn draining_server_sends_newcomers_to_its_alternate_and_serves_who_is_there() {
    let mut rig = Rig::connected(Some(0x4000));
    let old = rig.tuple;
    let alternate = addr("203.0.113.9:3478");
    rig.relay.set_draining(Some(Alternate { v4: Some(alternate), v6: None }));
    move_to(&mut rig, "198.51.100.7:5001");
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT]), Err(300), "signed, as 8489 demands");
    let expected = [0, 1, 0x0d, 0x96, 203, 0, 113, 9];
    assert_eq!(rig.last().first(attr::ALTERNATE_SERVER), Some(&expected[..]));
    move_to(&mut rig, "[2001:db8::7]:5001");
    assert_eq!(rig.request(Method::ALLOCATE, &[TRANSPORT]), Err(508), "none of its family");
    assert_eq!(rig.count(Id::RelayRefusedDraining), 2);
    rig.tuple = old;
    rig.nonce.clear();
    assert_eq!(rig.refresh(600), Ok(()));
    assert!(matches!(rig.send(&[0x40, 0, 0, 1, 9]), Handled::ToPeer(_)));
    rig.relay.set_draining(None);
    move_to(&mut rig, "198.51.100.7:5001");
    rig.allocate();
}

#[test]
fn draining_server_still_answers_a_retransmission() {
    let mut rig = Rig::new();
    rig.challenge();
    let request = rig.signed(Method::ALLOCATE, &[TRANSPORT]);
    let first = rig.ask(&request);
    rig.relay.set_draining(Some(Alternate::default()));
    assert_eq!(rig.ask(&request), first);
}
