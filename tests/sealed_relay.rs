//! Two clients of a room through the real engine, on one shard or on two.

mod peer;

use std::time::Duration;

use peer::gateway::{Gateway, eventually};
use veilgate::auth::revocation::{Revocation, Target};
use veilgate::ids::SubjectHash;
use veilgate::metrics::Id;

#[test]
fn sealed_call_crosses_shards_both_ways_and_untouched() {
    let mut gateway = Gateway::start(2);
    let (mut alice, mut bob) = gateway.sealed_pair(true);
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
fn bursts_of_a_sealed_call_keep_their_order_on_one_shard_and_across_two() {
    const BURST: u16 = 100;
    for across in [false, true] {
        let mut gateway = Gateway::start(2);
        let (mut alice, mut bob) = gateway.sealed_pair(across);
        alice.bind_channel_to(bob.relayed);
        bob.bind_channel_to(alice.relayed);
        // Twice: slabs are used again, and nothing of the first burst may be in the second.
        for round in 0..2u8 {
            let payload = |n: u16| {
                let mut payload = vec![round; 40 + usize::from(n)];
                payload[..2].copy_from_slice(&n.to_be_bytes());
                payload
            };
            for n in 0..BURST {
                alice.send_relayed(&payload(n));
            }
            for n in 0..BURST {
                assert_eq!(bob.recv_relayed(), Some(payload(n)), "{n} of round {round}");
            }
        }
    }
}

#[test]
fn revocation_ends_a_sealed_call_on_every_shard() {
    let mut gateway = Gateway::start(2);
    let (mut alice, mut bob) = gateway.sealed_pair(true);
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
