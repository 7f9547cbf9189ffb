//! ICE restart of one session, in virtual time (RFC 8445 section 9).

mod session_peer;

use session_peer::{Call, path};
use veilgate::metrics::Id;
use veilgate::session::{Event, Generation, IceCredentials, Received};

const NEW_PWD: &str = "the password after a restart";

fn generation(ufrag: &str) -> Generation {
    let local = IceCredentials { ufrag: ufrag.into(), pwd: NEW_PWD.into() };
    Generation { local, remote_ufrag: "peer2".into() }
}

#[test]
fn both_credentials_hold_until_the_new_ones_nominate() {
    let mut call = Call::connected();
    call.session.restart(generation("next"));
    assert_eq!(call.session.ufrags().collect::<Vec<_>>(), ["gate", "next"]);
    assert!(call.check(path(0), true), "the old ones");
    assert!(call.check_as("next:peer2", NEW_PWD, path(1), false), "the new ones");
    assert_eq!(call.session.path(), Some(path(0)), "not nominated yet");
    assert_eq!(call.events(), []);
    assert!(call.check(path(0), true), "the old ones still");
    assert!(call.check_as("next:peer2", NEW_PWD, path(1), true));
    assert_eq!(call.events(), [Event::Restarted, Event::Nominated(path(1))]);
    assert_eq!(call.session.ufrags().collect::<Vec<_>>(), ["next"]);
    assert!(!call.check(path(1), true), "the old ones are over");
    assert_eq!(call.counters.get(Id::SessionIceUnknownUfrag), 1);
    assert_eq!(call.counters.get(Id::SessionIceRestarts), 1);
}

#[test]
fn media_goes_on_over_either_path_with_the_same_keys() {
    let mut call = Call::connected();
    call.session.restart(generation("next"));
    let mut packet = call.sealed_rtp(1);
    assert!(matches!(call.feed(path(0), &mut packet), Received::Rtp(_)));
    assert!(call.check_as("next:peer2", NEW_PWD, path(1), true));
    for (sequence, way) in [(2, path(0)), (3, path(1))] {
        let mut packet = call.sealed_rtp(sequence);
        assert!(matches!(call.feed(way, &mut packet), Received::Rtp(_)));
    }
    assert!(call.session.is_connected() && !call.session.needs_handshake_step());
}

#[test]
fn forged_checks_do_not_end_the_old_credentials() {
    let mut call = Call::connected();
    call.session.restart(generation("next"));
    for (user, pwd) in [
        ("next:peer2", "a guess at the password"),
        ("next:peer", NEW_PWD),
        ("gate:peer2", NEW_PWD),
        ("other:peer2", NEW_PWD),
    ] {
        assert!(!call.check_as(user, pwd, path(1), true), "{user}");
    }
    assert_eq!(call.events(), []);
    assert!(call.check(path(0), true));
    assert!(call.check_as("next:peer2", NEW_PWD, path(1), true), "and the restart is still open");
}

#[test]
fn a_later_restart_replaces_one_that_was_not_used() {
    let mut call = Call::connected();
    for n in 0..100 {
        call.session.restart(generation(&format!("nxt{n}")));
        assert_eq!(call.session.ufrags().count(), 2);
    }
    assert!(!call.check_as("nxt98:peer2", NEW_PWD, path(1), true));
    assert!(call.check_as("nxt99:peer2", NEW_PWD, path(1), true));
    // Told again of the one in force: nothing to do.
    call.session.restart(generation("nxt99"));
    assert_eq!(call.session.ufrags().collect::<Vec<_>>(), ["nxt99"]);
}
