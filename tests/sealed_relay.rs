//! Two clients of a room through the real engine, on one shard or on two.

mod peer;

use std::time::Duration;

use peer::Peer;
use peer::gateway::{Gateway, MEDIA, eventually};
use veilgate::auth::revocation::{Revocation, Target};
use veilgate::auth::turn::Class;
use veilgate::ids::SubjectHash;
use veilgate::metrics::Id;

/// Clients of a room, at least one on each of the two shards: the port says on which.
fn on_both_shards(gateway: &mut Gateway) -> (Peer, Peer) {
    let mut first: Option<Peer> = None;
    for n in 0..40 {
        let minted = gateway.mint_for(&format!("guest{n}"), Some("sealed"), Class::Room);
        let client = Peer::allocate(gateway.udp, MEDIA, &minted);
        match first {
            Some(first) if first.relayed.port() % 2 != client.relayed.port() % 2 => {
                return (first, client);
            }
            Some(_) => {}
            None => first = Some(client),
        }
    }
    panic!("40 clients on one of two shards");
}

#[test]
fn sealed_call_crosses_shards_both_ways_and_untouched() {
    let mut gateway = Gateway::start(2);
    let (mut alice, mut bob) = on_both_shards(&mut gateway);
    assert_ne!(alice.relayed, bob.relayed);
    alice.bind_channel_to(bob.relayed);
    bob.bind_channel_to(alice.relayed);
    // Neither STUN, DTLS nor RTP to us: only the two ends can tell.
    for payload in [&b"\x00"[..], &[0x16, 0xfe, 0xfd], &[0x80; 1_200], &[0xff; 3], &[]] {
        alice.send_relayed(payload);
        assert_eq!(bob.recv_relayed().as_deref(), Some(payload));
        bob.send_relayed(payload);
        assert_eq!(alice.recv_relayed().as_deref(), Some(payload));
    }
}

#[test]
fn revocation_ends_a_sealed_call_on_every_shard() {
    let mut gateway = Gateway::start(2);
    let (mut alice, mut bob) = on_both_shards(&mut gateway);
    alice.bind_channel_to(bob.relayed);
    bob.bind_channel_to(alice.relayed);
    let live = eventually(|| {
        let live = gateway.count(Id::RelayAllocations);
        (live >= 2).then_some(live)
    });
    let not_before = gateway.control.now().unix;
    let expires = gateway.control.now().advanced(Duration::from_secs(3_600)).unix;
    let revocations: Vec<_> = (0..40)
        .map(|n| Target::Subject(SubjectHash::of(&format!("guest{n}"))))
        .map(|target| Revocation { target, not_before, expires })
        .collect();
    let revocations = revocations.into();
    for shard in 0..2 {
        assert!(gateway.engine().revoke(shard, &revocations));
    }
    eventually(|| (gateway.count(Id::RelayAllocations) == 0).then_some(()));
    assert!(gateway.count(Id::RelayAllocationsEndedRevoked) >= live);
    alice.send_relayed(b"anyone?");
    eventually(|| (gateway.count(Id::RelayDropNoAllocation) == 1).then_some(()));
}
