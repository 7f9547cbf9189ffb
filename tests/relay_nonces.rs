//! The keys of nonces are replaced while clients use them.

mod peer;

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use peer::Peer;
use peer::gateway::{Gateway, MEDIA, eventually};
use veilgate::app::nonces;
use veilgate::metrics::Id;
use veilgate::wire::stun::{Class, Message, Method};

#[test]
fn fresh_keys_reach_every_shard_and_old_nonces_stay_good() {
    let mut gateway = Gateway::start(2);
    let mut before: Vec<Peer> = (0..8)
        .map(|n| {
            let minted = gateway.mint(&format!("early{n}"));
            Peer::allocate(gateway.udp, MEDIA, &minted)
        })
        .collect();
    static DRAWN: AtomicU8 = AtomicU8::new(0);
    let random = || match DRAWN.fetch_add(1, Ordering::Relaxed) {
        // A machine without randomness for a moment keeps its key, and tries again.
        0 => Err(io::Error::other("none")),
        n => Ok([n; 32]),
    };
    // A period of nothing: the relay itself takes no second key within a nonce's life.
    let period = Duration::from_millis(5);
    gateway.runtime.spawn(nonces::rotate(gateway.engine(), period, random));
    eventually(|| (DRAWN.load(Ordering::Relaxed) > 20).then_some(()));
    eventually(|| (gateway.by_shard(Id::RelayNonceKeys) == [1, 1]).then_some(()));
    for peer in &mut before {
        let answer = peer.request(Method::REFRESH, true, |_| {});
        let answer = Message::parse(&answer).expect("STUN");
        assert_eq!(answer.class(), Class::Success, "{:?}", answer.error_code());
    }
    let minted = gateway.mint("late");
    Peer::allocate(gateway.udp, MEDIA, &minted);
    assert_eq!(gateway.count(Id::RelayAuthStaleNonce), 0);
}

#[test]
fn keys_follow_each_other_no_sooner_than_a_nonce_lives() {
    assert!(nonces::PERIOD > Duration::from_secs(veilgate::relay::NONCE_LIFETIME_SECS));
}
