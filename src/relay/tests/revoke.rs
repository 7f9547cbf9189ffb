use super::*;
use crate::auth::revocation::{Revocation, Target};
use crate::auth::secret::Key;
use crate::auth::static_users::StaticUsers;
use crate::ids::{CredentialId, RoomHash, SubjectHash};

const START: u64 = 1_780_000_000;

fn revocation(target: Target, not_before: u64) -> [Revocation; 1] {
    let expires = Unix::from_secs(START + 86_400);
    [Revocation { target, not_before: Unix::from_secs(not_before), expires }]
}

fn subject() -> Target {
    Target::Subject(SubjectHash::of("user-42"))
}

#[test]
fn revoked_subject_loses_its_allocation_and_gets_no_other() {
    let mut rig = Rig::connected(Some(0x4000));
    let handle = rig.relay.table.handle(0).unwrap();
    rig.advance(secs(10));
    rig.relay.revoke(rig.now, &revocation(subject(), START));
    assert!(rig.relay.poll_timeout().is_some_and(|at| at <= rig.now.mono), "at once");
    rig.wait(secs(0));
    assert_eq!(rig.relay.poll_ended(), Some(handle));
    assert_eq!((rig.allocations(), rig.count(Id::RelayAllocationsEndedRevoked)), (0, 1));
    assert_eq!((rig.count(Id::RelayAllocations), rig.count(Id::RelayChannels)), (0, 0));
    assert_eq!(rig.relay.route(handle, &media()), None);
    assert_eq!(rig.request(Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, UDP)]), Err(401));
    assert_eq!(rig.count(Id::RelayAuthRevoked), 1);
}

#[test]
fn requests_are_refused_before_the_sweep_has_come_round() {
    let mut rig = Rig::allocated();
    rig.relay.revoke(rig.now, &revocation(subject(), START));
    assert_eq!(rig.refresh(600), Err(401), "the cached key does not help");
    assert_eq!(rig.allocations(), 1);
}

#[test]
fn one_credential_room_or_subject_is_struck_and_nothing_else() {
    let own = Rig::new().user.username;
    for (target, struck) in [
        (Target::Credential(CredentialId::of(&own)), true),
        (Target::Credential(CredentialId::of("another")), false),
        (Target::Room(RoomHash::of("lobby")), true),
        (Target::Room(RoomHash::of("attic")), false),
        (subject(), true),
        (Target::Subject(SubjectHash::of("user-43")), false),
    ] {
        let mut rig = Rig::allocated();
        rig.relay.revoke(rig.now, &revocation(target, START));
        rig.wait(secs(0));
        assert_eq!(rig.allocations(), usize::from(!struck), "{target:?}");
    }
}

#[test]
fn what_was_minted_afterwards_is_good() {
    let mut rig = Rig::new();
    rig.relay.revoke(rig.now, &revocation(subject(), START - 1));
    rig.allocate();
    // A moment to come bars the subject until then.
    rig.relay.revoke(rig.now, &revocation(subject(), START + 60));
    rig.wait(secs(0));
    assert_eq!(rig.allocations(), 0);
}

#[test]
fn table_is_swept_in_batches_and_whole() {
    let limits = Limits { allocations_per_subject: 6_000, ..Limits::default() };
    let mut rig = Rig::with(Config { limits, ..config() });
    for client in 0..5_000_u32 {
        rig.tuple = tuple(&format!("198.51.{}.{}:5000", 100 + client / 250, 1 + client % 250));
        rig.nonce.clear();
        rig.allocate();
    }
    rig.relay.revoke(rig.now, &revocation(subject(), START));
    let mut steps = 0;
    while rig.relay.poll_timeout().is_some_and(|at| at <= rig.now.mono) {
        rig.wait(secs(0));
        steps += 1;
        // Another one in the middle of the round starts it again, and misses nobody.
        if steps == 2 {
            rig.relay.revoke(rig.now, &revocation(subject(), START));
        }
    }
    assert_eq!((rig.allocations(), rig.count(Id::RelayAllocationsEndedRevoked)), (0, 5_000));
    assert!((3..=6).contains(&steps), "{steps}");
}

/// Found by the fuzzer: the newcomer's slot took the turn of an old one, which outlived the sweep.
#[test]
fn newcomer_during_a_sweep_hides_nobody_from_it() {
    let limits = Limits { allocations_per_subject: 6_000, ..Limits::default() };
    let mut rig = Rig::with(Config { limits, ..config() });
    for client in 0..3_000_u32 {
        rig.tuple = tuple(&format!("198.51.{}.{}:5000", 100 + client / 250, 1 + client % 250));
        rig.nonce.clear();
        rig.allocate();
    }
    // A round for nobody stops in the middle, and from there the next one goes on.
    let nobody = Target::Subject(SubjectHash::of("nobody"));
    rig.relay.revoke(rig.now, &revocation(nobody, START));
    rig.wait(secs(0));
    rig.relay.revoke(rig.now, &revocation(subject(), START));
    rig.user = mint("another", 600, 43_200);
    rig.tuple = tuple("203.0.113.1:5000");
    rig.nonce.clear();
    rig.allocate();
    while rig.relay.poll_timeout().is_some_and(|at| at <= rig.now.mono) {
        rig.wait(secs(0));
    }
    assert_eq!((rig.allocations(), rig.count(Id::RelayAllocationsEndedRevoked)), (1, 3_000));
}

/// A rig that lets in what the options can let in, with two secrets; its user has this name.
fn lenient(username: &str, credential: &str) -> Rig {
    let ring = [[8; 32], [7; 32]].into_iter().zip(["k2", "k1"]);
    let ring = ring.map(|(secret, id)| Key { id: id.to_owned(), secret: secret.to_vec() });
    let users = StaticUsers::parse("printer:0123456789abcdef").unwrap();
    let keys = Keys::new(ring.collect()).unwrap();
    let keys = keys.accept_plain_names(true).accept_static_users(users);
    let mut rig = Rig::new();
    let nonces = NonceKeys::new([1; 32], None);
    let rng = StdRng::seed_from_u64(42);
    rig.relay = Relay::new(config(), Arc::new(keys), nonces, rng, ShardId(3)).unwrap();
    rig.user.username = username.to_owned();
    rig.user.credential = credential.to_owned();
    rig
}

#[test]
fn plain_name_of_either_secret_allocates_until_it_expires() {
    // base64(HMAC-SHA1(secret, name)) with 32 bytes of 8, then of 7.
    for credential in ["No8AOY6/F+mKIfYgoZ7ZMe+znpE=", "0MOl3AzqH4Gi8a/jtjlZfDbI+Y0="] {
        let mut rig = lenient("1780000600:alice", credential);
        rig.allocate();
        assert_eq!(rig.lifetime(), Some(600));
        rig.advance(secs(300));
        assert_eq!(rig.refresh(600), Ok(()), "the key is cached");
        assert_eq!(rig.lifetime(), Some(300), "the expiry ends live allocations too");
        rig.wait(secs(300));
        assert_eq!(rig.allocations(), 0);
    }
    let mut rig = lenient("1780000600:alice", "d3Jvbmc=");
    assert_eq!(rig.request(Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, UDP)]), Err(401));
    assert_eq!(rig.count(Id::RelayAuthBadIntegrity), 1);
}

#[test]
fn static_user_allocates_and_can_be_revoked() {
    let mut rig = lenient("printer", "0123456789abcdef");
    rig.allocate();
    let printer = Target::Subject(SubjectHash::of("printer"));
    rig.relay.revoke(rig.now, &revocation(printer, START));
    rig.wait(secs(0));
    assert_eq!(rig.allocations(), 0);
    assert_eq!(rig.request(Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, UDP)]), Err(401));
}
