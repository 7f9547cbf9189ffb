//! Forwarding a packet allocates nothing, nor does passing one on in a sealed call.

mod counting;
mod peer;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use counting::{counted, ignore_this_thread};
use peer::gateway::{Gateway, eventually};
use peer::vp8;
use veilgate::metrics::Id;
use veilgate::relay::{Limits, Rate};

/// The count is the whole process's: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ignore_this_thread();
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// These tests send as fast as they can.
fn limits() -> Limits {
    Limits { allocation_rate: Rate::UNLIMITED, ..Limits::default() }
}

#[test]
fn ten_thousand_packets_of_a_sealed_call_allocate_nothing_on_one_shard_and_across_two() {
    let _alone = alone();
    for across in [false, true] {
        let mut gateway = Gateway::start_with(2, limits());
        let (mut alice, mut bob) = gateway.sealed_pair(across);
        alice.bind_channel_to(bob.relayed);
        bob.bind_channel_to(alice.relayed);
        // Trains, so that a slab holds more than one packet; both ways, so that neither end sends
        // more than an allocation's burst.
        let pass = |trains: usize| {
            for train in 0..trains {
                let (from, to) = if train % 2 == 0 { (&alice, &bob) } else { (&bob, &alice) };
                for n in 0..8 {
                    from.send_relayed(&[n; 1_000]);
                }
                for n in 0..8 {
                    assert_eq!(to.recv_relayed().as_deref(), Some(&[n; 1_000][..]));
                }
            }
        };
        pass(250);
        let allocations = counted(|| pass(1_250));
        assert!(allocations < 100, "{allocations} allocations, across shards: {across}");
    }
}

#[test]
fn ten_thousand_forwarded_packets_allocate_nothing() {
    let _alone = alone();
    let mut gateway = Gateway::start_with(1, limits());
    let (mut publisher, _) = gateway.publisher("lobby/cam1");
    let (mut player, _, _) = gateway.player("lobby/cam1", "viewer");
    // The last flight of its handshake may still be under way, and the first frame is the key.
    eventually(|| (gateway.count(Id::SessionsPlaying) == 1).then_some(()));
    let mut next = 1;
    let mut forward = |count: u16| {
        for _ in 0..count {
            publisher.send_rtp(&vp8(next, next == 1));
            next += 1;
            while player
                .recv_media(Duration::from_secs(5))
                .is_some_and(|p| (192..=223).contains(&p[1]))
            {}
        }
    };
    forward(2_000);
    let before = eventually(|| {
        let n = gateway.count(Id::ForwardPackets);
        (n >= 2_000).then_some(n)
    });
    let allocations = counted(|| forward(10_000));
    let forwarded = eventually(|| {
        let n = gateway.count(Id::ForwardPackets) - before;
        (n >= 10_000).then_some(n)
    });
    // Reports and timers once a second are not per packet; the control thread's tick neither.
    assert!(
        allocations < 100,
        "{allocations} allocations while {forwarded} packets were forwarded"
    );
}
