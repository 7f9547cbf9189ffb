//! A session from its first check to its end.

mod session_peer;

use std::time::Duration;

use boring::ssl::SslVersion;
use session_peer::{Call, PWD, RECEIVER_REPORT, on_shard, path, rtp};
use veilgate::metrics::Id;
use veilgate::session::srtp::{MAX_TRAILER, Profile};
use veilgate::session::{Event, Reason, Received, Version};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn checks_dtls_and_media_flow_in_that_order() {
    for (version, expected, done) in [
        (SslVersion::DTLS1_3, Version::Dtls13, Id::DtlsDone13),
        (SslVersion::DTLS1_2, Version::Dtls12, Id::DtlsDone12),
    ] {
        let mut call = Call::with_client(version, true);
        assert!(call.check(path(0), false));
        assert_eq!(call.session.path(), None, "a check without USE-CANDIDATE nominates nothing");
        assert!(call.check(path(0), true));
        assert_eq!(call.session.path(), Some(path(0)));
        call.handshake(path(0));
        assert!(call.session.is_connected());
        let group = if version == SslVersion::DTLS1_3 { "X25519MLKEM768" } else { "X25519" };
        assert_eq!(call.session.dtls_group(), Some(group));
        let connected = Event::Connected { dtls: expected, profile: Profile::Aead128Gcm };
        assert_eq!(call.events(), [Event::Nominated(path(0)), connected]);
        assert_eq!(call.counters.get(done), 1);
        call.take_keys();

        let mut packet = call.sealed_rtp(5);
        let Received::Rtp(range) = call.feed(path(0), &mut packet) else { panic!("no media") };
        assert_eq!(packet[range], rtp(5));
        let mut report = call.sealed_rtcp();
        let Received::Rtcp(range) = call.feed(path(0), &mut report) else { panic!("no report") };
        assert_eq!(&report[range], RECEIVER_REPORT);

        let plain = rtp(900);
        let mut out = plain.clone();
        out.resize(plain.len() + MAX_TRAILER, 0);
        let len = call.session.protect_rtp(&mut out, plain.len(), &mut call.counters).unwrap();
        let (_, receiver) = call.media.as_mut().unwrap();
        let open = receiver.unprotect_rtp(&mut out[..len]).unwrap();
        assert_eq!(out[..open], plain);
        let mut out = RECEIVER_REPORT.to_vec();
        out.resize(out.len() + MAX_TRAILER, 0);
        let len = RECEIVER_REPORT.len();
        let len = call.session.protect_rtcp(&mut out, len, &mut call.counters).unwrap();
        let (_, receiver) = call.media.as_mut().unwrap();
        let open = receiver.unprotect_rtcp(&mut out[..len]).unwrap();
        assert_eq!(&out[..open], RECEIVER_REPORT);
    }
}

#[test]
fn a_client_hello_on_a_proved_path_nominates_it() {
    let mut call = Call::new();
    assert!(call.check(path(3), false));
    call.handshake(path(3));
    assert_eq!(call.session.path(), Some(path(3)));
    assert!(call.session.is_connected());
}

#[test]
fn dtls_and_media_from_a_path_without_a_check_are_dropped() {
    let mut call = Call::new();
    let _ = call.client_step();
    let mut hello = call.client_output().unwrap();
    call.feed(path(0), &mut hello);
    assert!(!call.session.needs_handshake_step());
    call.forged_check(path(0));
    call.feed(path(0), &mut hello);
    assert_eq!(call.counters.get(Id::SessionIceBadIntegrity), 1);
    assert_eq!(call.counters.get(Id::SessionDropNoPath), 2);
    assert_eq!(call.transmit(), None);

    let mut call = Call::connected();
    let mut packet = call.sealed_rtp(1);
    assert_eq!(call.feed(path(1), &mut packet), Received::Nothing);
    assert_eq!(call.counters.get(Id::SessionDropNoPath), 1);
    assert!(matches!(call.feed(path(0), &mut packet), Received::Rtp(_)), "and stay untouched");
}

#[test]
fn media_before_there_are_keys_is_dropped_and_counted() {
    let mut call = Call::new();
    assert!(call.check(path(0), true));
    assert_eq!(call.feed(path(0), &mut rtp(1)), Received::Nothing);
    assert_eq!(call.counters.get(Id::SrtpDropNoKeys), 1);
    let mut packet = rtp(1);
    assert_eq!(call.session.protect_rtp(&mut packet, 20, &mut call.counters), None);
}

#[test]
fn a_later_use_candidate_switches_the_path() {
    let mut call = Call::connected();
    assert!(call.check(path(1), false));
    assert_eq!(call.session.path(), Some(path(0)));
    assert!(call.check(path(1), true));
    assert_eq!(call.session.path(), Some(path(1)));
    assert!(call.check(path(1), true));
    assert_eq!(call.events(), [Event::Nominated(path(1))], "told once");
    let mut packet = call.sealed_rtp(1);
    assert!(matches!(call.feed(path(0), &mut packet), Received::Rtp(_)), "the old one still works");
    assert_eq!(call.session.path(), Some(path(1)));
}

#[test]
fn media_after_a_move_to_another_shard_nominates_the_path_it_came_by() {
    let mut call = Call::connected();
    assert!(call.check(on_shard(1, 4), false));
    assert_eq!(call.session.path(), Some(path(0)));
    let mut forged = call.sealed_rtp(8);
    *forged.last_mut().unwrap() ^= 1;
    call.feed(on_shard(1, 4), &mut forged);
    assert_eq!(call.session.path(), Some(path(0)), "not for a forged packet");
    let mut packet = call.sealed_rtp(9);
    assert!(matches!(call.feed(on_shard(1, 4), &mut packet), Received::Rtp(_)));
    assert_eq!(call.session.path(), Some(on_shard(1, 4)));
}

#[test]
fn consent_is_lost_exactly_thirty_seconds_after_the_last_check() {
    let mut call = Call::connected();
    call.advance(7 * SECOND);
    assert!(call.check(path(0), false));
    let last = call.now;
    call.advance(29 * SECOND);
    call.forged_check(path(0));
    let mut packet = call.sealed_rtp(1);
    assert!(matches!(call.feed(path(0), &mut packet), Received::Rtp(_)));
    let deadline = last.mono.plus(30 * SECOND);
    assert!(call.session.poll_timeout().is_some_and(|at| at <= deadline), "media is no consent");
    call.now = last.advanced(30 * SECOND - Duration::from_nanos(1_000));
    call.timeout();
    assert_eq!(call.events(), []);
    assert_eq!(call.session.poll_timeout(), Some(deadline));
    call.now = last.advanced(30 * SECOND);
    call.timeout();
    assert_eq!(call.events(), [Event::Ended(Reason::Consent)]);
    assert_eq!(call.transmit(), None, "not a word without consent");
    assert!(!call.session.is_connected());
    assert_eq!(call.session.poll_timeout(), None);
}

#[test]
fn a_session_that_never_connects_ends_after_thirty_seconds() {
    let mut call = Call::new();
    let start = call.now;
    assert_eq!(call.session.poll_timeout(), Some(start.mono.plus(30 * SECOND)));
    for second in 1..30 {
        call.now = start.advanced(second * SECOND);
        assert!(call.check(path(0), true));
        call.timeout();
    }
    assert_eq!(call.events(), [Event::Nominated(path(0))]);
    call.now = start.advanced(30 * SECOND);
    call.timeout();
    assert_eq!(call.events(), [Event::Ended(Reason::Timeout)]);
    assert_eq!(call.counters.get(Id::DtlsTimeout), 1);
}

#[test]
fn a_silent_clients_flight_is_repeated_until_the_limit() {
    let mut call = Call::new();
    let start = call.now;
    assert!(call.check(path(0), true));
    let _ = call.client_step();
    while let Some(mut datagram) = call.client_output() {
        call.feed(path(0), &mut datagram);
    }
    call.session.handshake_step(call.now, &mut call.counters);
    let mut flights = 0;
    loop {
        flights += usize::from(call.transmit().is_some());
        while call.transmit().is_some() {}
        if let Some(Event::Ended(reason)) = call.events().pop() {
            assert_eq!(reason, Reason::Timeout);
            break;
        }
        call.now.mono = call.session.poll_timeout().expect("runs").max(call.now.mono);
        call.timeout();
    }
    assert!((3..20).contains(&flights), "{flights}");
    assert_eq!(call.now.mono, start.mono.plus(30 * SECOND));
}

#[test]
fn close_says_goodbye_once_and_nothing_else() {
    let mut call = Call::connected();
    let mut check = call.request(PWD, false);
    call.feed(path(0), &mut check);
    call.session.close(call.now);
    call.session.close(call.now);
    assert_eq!(call.events(), [Event::Ended(Reason::Control)]);
    let (way, goodbye) = call.transmit().expect("close_notify");
    assert_eq!(way, path(0));
    assert_eq!(call.transmit(), None);
    call.client_input(goodbye);
    let error = call.dtls.ssl_read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.code(), boring::ssl::ErrorCode::ZERO_RETURN);
    assert!(!call.check(path(0), true), "an ended session answers no checks");
    let mut packet = call.sealed_rtp(1);
    assert_eq!(call.feed(path(0), &mut packet), Received::Nothing);
    let mut packet = rtp(1);
    assert_eq!(call.session.protect_rtp(&mut packet, 20, &mut call.counters), None);
}

#[test]
fn the_clients_goodbye_ends_the_session() {
    let mut call = Call::connected();
    let _ = call.dtls.shutdown();
    let mut goodbye = call.client_output().unwrap();
    call.feed(path(0), &mut goodbye);
    assert_eq!(call.events(), [Event::Ended(Reason::Peer)]);
}

#[test]
fn another_certificate_than_announced_ends_the_session() {
    for version in [SslVersion::DTLS1_3, SslVersion::DTLS1_2] {
        let mut call = Call::with_client(version, false);
        assert!(call.check(path(0), true));
        call.handshake(path(0));
        assert_eq!(call.events().last(), Some(&Event::Ended(Reason::Fingerprint)));
        assert!(!call.session.is_connected());
        assert_eq!(call.counters.get(Id::DtlsFingerprint), 1);
    }
}

#[test]
fn a_session_can_move_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    let mut call = Call::connected();
    is_send(&call.session);
    let mut packet = call.sealed_rtp(1);
    let (mut session, now, mut counters) = (call.session, call.now, call.counters);
    let received = std::thread::spawn(move || {
        session.handle(now, path(0), session_peer::mapped(), &mut packet, &mut counters)
    });
    assert!(matches!(received.join().unwrap(), Received::Rtp(_)));
}
