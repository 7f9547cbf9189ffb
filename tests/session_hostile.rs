//! What a session does with bytes that are meant to hurt.

mod session_peer;

use std::cell::RefCell;

use proptest::prelude::*;
use session_peer::{Call, PWD, path};
use veilgate::metrics::Id;
use veilgate::session::{Received, srtp};

#[test]
fn replayed_forged_and_altered_media_is_dropped_and_counted() {
    let mut call = Call::connected();
    let good = call.sealed_rtp(100);
    let report = call.sealed_rtcp();
    assert!(matches!(call.feed(path(0), &mut good.clone()), Received::Rtp(_)));
    assert!(matches!(call.feed(path(0), &mut report.clone()), Received::Rtcp(_)));
    for packet in [&good, &report] {
        assert_eq!(call.feed(path(0), &mut packet.clone()), Received::Nothing);
    }
    assert_eq!(call.counters.get(Id::SrtpDropReplay), 2);

    let mut fresh = call.sealed_rtp(101);
    let drops = |call: &Call| {
        [
            Id::SrtpDropAuth,
            Id::SrtpDropMalformed,
            Id::SrtpDropReplay,
            Id::SrtpDropSsrcLimit,
            Id::SessionDropNotMedia,
            Id::SessionIceMalformed,
        ]
        .map(|id| call.counters.get(id))
        .iter()
        .sum::<u64>()
    };
    let before = drops(&call);
    let bits = fresh.len() * 8;
    for bit in 8..bits {
        let mut packet = fresh.clone();
        packet[bit / 8] ^= 0x80 >> (bit % 8);
        assert_eq!(call.feed(path(0), &mut packet), Received::Nothing, "bit {bit}");
    }
    assert_eq!(drops(&call) - before, bits as u64 - 8, "each one counted");
    assert!(matches!(call.feed(path(0), &mut fresh), Received::Rtp(_)));
}

#[test]
fn a_stranger_with_other_keys_gets_nothing_through() {
    let mut call = Call::connected();
    let mut stranger = Call::connected();
    let mut packet = stranger.sealed_rtp(1);
    assert_eq!(call.feed(path(0), &mut packet), Received::Nothing);
    let mut report = stranger.sealed_rtcp();
    assert_eq!(call.feed(path(0), &mut report), Received::Nothing);
    assert_eq!(call.counters.get(Id::SrtpDropAuth), 2);
}

#[test]
fn a_client_that_invents_sources_loses_only_its_own_packets() {
    let mut call = Call::connected();
    let (sender, _) = call.media.as_mut().unwrap();
    let mut packets = Vec::new();
    for ssrc in 1..=srtp::MAX_SSRCS as u32 {
        let mut packet = vec![0; 40];
        packet[0] = 0x80;
        packet[8..12].copy_from_slice(&(1_000 + ssrc).to_be_bytes());
        let len = sender.protect_rtp(&mut packet, 20).unwrap();
        packet.truncate(len);
        packets.push(packet);
    }
    for packet in &mut packets {
        assert!(matches!(call.feed(path(0), packet), Received::Rtp(_)));
    }
    let mut one_more = packets[0].clone();
    one_more[11] ^= 0x80;
    one_more[8] = 9;
    assert_eq!(call.feed(path(0), &mut one_more), Received::Nothing);
    assert_eq!(call.counters.get(Id::SrtpDropSsrcLimit), 1);
}

#[test]
fn a_flood_of_checks_queues_a_bounded_number_of_answers() {
    let mut call = Call::new();
    let check = call.request(PWD, false);
    for n in 0..1_000 {
        call.feed(path(n), &mut check.clone());
    }
    let answers = std::iter::from_fn(|| call.transmit()).count();
    assert_eq!(answers, 16);
}

#[test]
fn a_flood_of_dtls_waits_bounded_for_its_turn() {
    let mut call = Call::new();
    assert!(call.check(path(0), true));
    for _ in 0..1_000 {
        call.feed(path(0), &mut [22; 600]);
    }
    assert_eq!(call.counters.get(Id::SessionDropNotMedia), 1_000 - 32);
    assert!(call.session.needs_handshake_step());
    call.session.handshake_step(call.now, &mut call.counters);
    assert!(!call.session.needs_handshake_step());
    call.handshake(path(0));
    assert!(call.session.is_connected(), "and the real handshake goes on");
}

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    // The first byte decides who reads the rest, so each reader gets its share.
    let first = prop_oneof![0u8..4, 20u8..64, 128u8..192, any::<u8>()];
    (first, prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(first, mut bytes)| {
        bytes.insert(0, first);
        bytes
    })
}

/// A record header that BoringSSL will look behind.
fn record() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(20u8), Just(21), Just(22), Just(23), Just(26)];
    (kind, 0u8..2, any::<u8>(), prop::collection::vec(any::<u8>(), 0..120)).prop_map(
        |(kind, epoch, sequence, body)| {
            let mut bytes = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, sequence, 0];
            bytes.push(body.len() as u8);
            bytes.extend(body);
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_datagrams_never_panic_a_fresh_session(
        datagrams in prop::collection::vec(prop_oneof![hostile(), record()], 1..60),
    ) {
        let mut call = Call::new();
        prop_assert!(call.check(path(0), true));
        for mut datagram in datagrams {
            let received = call.feed(path(0), &mut datagram);
            prop_assert_eq!(received, Received::Nothing);
            call.session.handshake_step(call.now, &mut call.counters);
            call.timeout();
            while call.transmit().is_some() {}
        }
    }

    #[test]
    fn random_datagrams_never_panic_a_connected_session(
        datagrams in prop::collection::vec(prop_oneof![hostile(), record()], 1..200),
    ) {
        thread_local! {
            static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
        }
        CALL.with_borrow_mut(|call| {
            let call = call.get_or_insert_with(Call::connected);
            for mut datagram in datagrams {
                let received = call.feed(path(0), &mut datagram);
                assert_eq!(received, Received::Nothing);
                call.timeout();
                while call.transmit().is_some() {}
            }
        });
        let alive = CALL.with_borrow(|call| {
            call.as_ref().is_some_and(|call| call.session.is_connected())
        });
        prop_assert!(alive, "garbage does not end a connected session");
    }
}
