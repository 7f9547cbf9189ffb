//! A revoked credential's live allocation ends, and it opens no other.

mod peer;

use std::time::{Duration, Instant};

use peer::Peer;
use peer::gateway::{Gateway, MEDIA, eventually};
use veilgate::auth::explain::Question;
use veilgate::control::revocation::{Request, Revocations, What};
use veilgate::control::store::Store;
use veilgate::metrics::Id;

/// What P3 allows.
const BOUND: Duration = Duration::from_secs(2);

fn start(gateway: &Gateway, folder: &tempfile::TempDir) -> Revocations {
    let store = Store::open(&folder.path().join("veilgate.db")).expect("a fresh store");
    Revocations::start(store, gateway.keys.clone(), gateway.engine()).expect("reads it")
}

fn revoke(gateway: &Gateway, revocations: &Revocations, what: What) {
    let request = Request { what, reason: None, not_before: None, expires: None };
    gateway.runtime.block_on(revocations.revoke(request)).expect("revoked");
}

#[expect(clippy::disallowed_methods, reason = "a bound in real time is what is tested")]
fn within_the_bound(mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    eventually(|| done().then_some(()));
    let took = Instant::now() - began;
    assert!(took < BOUND, "{took:?}");
}

#[test]
fn revoked_subjects_live_allocation_ends_within_two_seconds_and_no_other_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut gateway = Gateway::start(2);
    let revocations = start(&gateway, &folder);
    let (mut publisher, _) = gateway.publisher("lobby/cam1");
    let (_player, ..) = gateway.player("lobby/cam1", "bob");
    let old = gateway.mint("alice");
    eventually(|| (gateway.count(Id::RelayAllocations) == 2).then_some(()));

    revoke(&gateway, &revocations, What::Subject("alice".to_owned()));
    within_the_bound(|| {
        gateway.count(Id::RelayAllocationsEndedRevoked) == 1
            && gateway.count(Id::RelayAllocations) == 1
    });
    let dropped = gateway.count(Id::RelayDropNoAllocation);
    publisher.send_rtcp(&[0x80, 201, 0, 1, 0, 0, 0, 10]);
    within_the_bound(|| gateway.count(Id::RelayDropNoAllocation) > dropped);
    let again = |username: &str, credential: &str| {
        Peer::try_allocate(gateway.udp, MEDIA, username, credential).map(|_| ())
    };
    assert_eq!(again(&old.username, &old.credential), Err(401), "minted before, unused until now");
    let question = Question { username: &old.username, subject: None, room: None };
    assert_eq!(revocations.explain(question).reason.as_deref(), Some("revoked"));

    let fresh = gateway.mint("alice");
    Peer::allocate(gateway.udp, MEDIA, &fresh);
    // One credential, and only that one.
    let other = gateway.mint("alice");
    revoke(&gateway, &revocations, What::Username(fresh.username.clone()));
    within_the_bound(|| gateway.count(Id::RelayAllocationsEndedRevoked) == 2);
    let again = Peer::try_allocate(gateway.udp, MEDIA, &fresh.username, &fresh.credential);
    assert_eq!(again.map(|_| ()), Err(401));
    Peer::allocate(gateway.udp, MEDIA, &other);
}

#[test]
fn what_was_revoked_before_a_start_is_revoked_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = Gateway::start(1);
    let revocations = start(&first, &folder);
    let minted = first.mint("alice");
    revoke(&first, &revocations, What::Subject("alice".to_owned()));
    drop((revocations, first));

    let mut second = Gateway::start(1);
    // It lived through the start of the shards, and is ended by what the store tells them.
    let survivor = Peer::allocate(second.udp, MEDIA, &minted);
    let _revocations = start(&second, &folder);
    within_the_bound(|| second.count(Id::RelayAllocationsEndedRevoked) == 1);
    drop(survivor);
    let again = Peer::try_allocate(second.udp, MEDIA, &minted.username, &minted.credential);
    assert_eq!(again.map(|_| ()), Err(401));
    let bob = second.mint("bob");
    let mut peer = Peer::allocate(second.udp, MEDIA, &bob);
    peer.bind_channel();
}
