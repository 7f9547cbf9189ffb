//! What a client with a valid credential may try on the shards: none of it disturbs another.

mod peer;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peer::gateway::{Gateway, eventually};
use peer::{Identity, Peer, Remote, offer, vp8};
use veilgate::ids::StreamName;
use veilgate::metrics::Id;
use veilgate::wire::stun::{Method, attr};

#[test]
fn a_session_whose_allocation_is_gone_leaves_its_shard_idle() {
    let mut gateway = Gateway::start(1);
    let (mut publisher, _) = gateway.publisher("lobby/cam1");
    eventually(|| (gateway.count(Id::SessionsPublishing) == 1).then_some(()));
    for sequence in 1..50 {
        publisher.send_rtp(&vp8(sequence, sequence == 1));
    }
    eventually(|| (gateway.count(Id::ForwardReceived) >= 49).then_some(()));
    publisher.request(Method::REFRESH, true, |b| b.u32(attr::LIFETIME, 0));
    eventually(|| (gateway.count(Id::RelayAllocations) == 0).then_some(()));
    // A shard shows its counters twice a second: four times is past every report that was due.
    let mut seen = gateway.count(Id::EngineLoops);
    for _ in 0..4 {
        let next = eventually(|| Some(gateway.count(Id::EngineLoops)).filter(|n| *n != seen));
        assert!(next - seen < 1_000, "{} turns in half a second", next - seen);
        seen = next;
    }
}

#[test]
fn a_flood_of_keyframe_requests_does_not_fill_the_publishers_mailbox() {
    let mut gateway = Gateway::start(2);
    let (mut publisher, _) = gateway.publisher("lobby/cam1");
    publisher.send_rtp(&vp8(1, true));
    eventually(|| (gateway.count(Id::SessionsPublishing) == 1).then_some(()));
    let home = gateway.by_shard(Id::SessionsPublishing).iter().position(|n| *n == 1);
    let mut players = Vec::new();
    let (mut attacker, remote) = loop {
        assert!(players.len() < 40, "40 clients on one of two shards");
        let before = gateway.by_shard(Id::SessionsPlaying);
        let (player, remote, _) = gateway.player("lobby/cam1", &format!("viewer{}", players.len()));
        let at = eventually(|| {
            let after = gateway.by_shard(Id::SessionsPlaying);
            (0..2).find(|i| after[*i] > before[*i])
        });
        if Some(at) == home {
            players.push(player);
        } else {
            break (player, remote);
        }
    };
    publisher.send_rtp(&vp8(2, true));
    // An empty receiver report, then a PLI.
    let mut flood = vec![0x80, 201, 0, 1, 0, 0, 0, 9, 0x81, 206, 0, 2, 0, 0, 0, 9];
    flood.extend(remote.video_ssrc.expect("video").to_be_bytes());
    for _ in 0..20_000 {
        attacker.send_rtcp(&flood);
    }
    eventually(|| (gateway.count(Id::ForwardKeyframeAsked) > 1_000).then_some(()));
    assert_eq!(gateway.count(Id::EngineMailboxFull), 0);
}

#[test]
fn a_session_that_moves_between_shards_can_still_be_closed() {
    let mut gateway = Gateway::start(2);
    for round in 1..=8 {
        let identity = Identity::new();
        let subject = format!("alice{round}");
        let name = format!("lobby/cam{round}").parse().expect("a name");
        let sdp = offer(&identity, "sendonly", "pubufrag");
        let accepted =
            gateway.control.publish(&name, &Gateway::principal(&subject), &sdp).expect("agreed");
        let remote = Remote::from_answer(&accepted.answer);
        let minted = gateway.mint(&subject);
        let mut first = Peer::allocate(gateway.udp, remote.media, &minted);
        first.connect(&identity, "pubufrag", &remote);
        let mut others: Vec<_> = (0..6)
            .map(|_| {
                let minted = gateway.mint(&subject);
                let mut other = Peer::allocate(gateway.udp, remote.media, &minted);
                other.bind_channel();
                other
            })
            .collect();
        for turn in 0..400 {
            for other in &mut others {
                other.nominate("pubufrag", &remote);
            }
            if turn == 200 {
                gateway.control.close(&accepted.resource, None).expect("known");
            }
        }
        eventually(|| (gateway.count(Id::SessionClosedByControl) == round).then_some(()));
    }
    assert_eq!(gateway.count(Id::SessionsPublishing), 0);
}

#[test]
fn a_player_does_not_outlive_the_stream_it_was_joining() {
    let mut gateway = Gateway::start(1);
    let name: StreamName = "lobby/cam1".parse().expect("a name");
    let identity = Identity::new();
    let sdp = offer(&identity, "recvonly", "plyufrag");
    for round in 0..20 {
        let (mut publisher, remote, resource) = gateway.publisher_of("lobby/cam1", round);
        eventually(|| gateway.control.play(&name, &Gateway::principal("first"), &sdp).ok());
        let stop = AtomicBool::new(false);
        let agreed = Mutex::new(Vec::new());
        let control = gateway.control.clone();
        std::thread::scope(|scope| {
            for joiner in ["v", "w"] {
                let (control, stop, agreed, name, sdp) = (&control, &stop, &agreed, &name, &sdp);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        if let Ok(a) = control.play(name, &Gateway::principal(joiner), sdp) {
                            agreed.lock().expect("not poisoned").push((joiner, a));
                        }
                    }
                });
            }
            eventually(|| (agreed.lock().expect("not poisoned").len() > 4).then_some(()));
            control.close(&resource, None).expect("known");
            eventually(|| control.play(&name, &Gateway::principal("last"), &sdp).err());
            stop.store(true, Ordering::Relaxed);
        });
        eventually(|| (gateway.count(Id::SessionsPublishing) == 0).then_some(()));
        // The last ones agreed are those that raced. Control may still be ending them, one by one;
        // one that it missed would be answered for as long as it asks.
        for (joiner, accepted) in agreed.into_inner().expect("not poisoned").iter().rev().take(2) {
            let minted = gateway.mint(joiner);
            let mut player = Peer::allocate(gateway.udp, remote.media, &minted);
            player.bind_channel();
            let theirs = Remote::from_answer(&accepted.answer);
            let within = Duration::from_millis(60);
            let ended = (0..50).any(|_| !player.is_answered("plyufrag", &theirs, within));
            assert!(ended, "round {round}: a player of a stream that is over");
            player.request(Method::REFRESH, true, |b| b.u32(attr::LIFETIME, 0));
        }
        publisher.request(Method::REFRESH, true, |b| b.u32(attr::LIFETIME, 0));
    }
}

#[test]
fn junk_behind_a_check_does_not_move_a_session() {
    let mut gateway = Gateway::start(2);
    let (mut publisher, remote) = gateway.publisher("lobby/cam1");
    eventually(|| (gateway.count(Id::SessionsPublishing) == 1).then_some(()));
    let home = gateway.by_shard(Id::SessionsPublishing);
    let mut junk = vec![0x80, 96];
    junk.resize(40, 0);
    for _ in 0..10 {
        let minted = gateway.mint("alice");
        let mut client = Peer::allocate(gateway.udp, remote.media, &minted);
        client.bind_channel();
        client.check("pubufrag", &remote, false);
        client.send_raw(&junk);
    }
    for sequence in 1..=100 {
        publisher.send_rtp(&vp8(sequence, sequence == 1));
    }
    eventually(|| (gateway.count(Id::ForwardReceived) == 100).then_some(()));
    assert_eq!(gateway.by_shard(Id::SessionsPublishing), home);
}
