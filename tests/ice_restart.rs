//! ICE restarts over a real data plane of two shards: media, SSRCs and SRTP keys go on.

mod peer;

use std::time::Duration;

use peer::gateway::{Gateway, eventually};
use peer::{Identity, Peer, Remote, offer, vp8};
use veilgate::control::Refusal;
use veilgate::control::restart::{IfMatch, Patched, entity_tag};
use veilgate::metrics::Id;
use veilgate::wire::sdp::Fragment;

/// Nothing comes: on loopback an answer takes less than a millisecond.
const SILENCE: Duration = Duration::from_millis(200);

fn fragment(ufrag: &str) -> Fragment {
    let text = format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:0123456789abcdef01234567\r\n");
    Fragment::parse(&text).expect("a fragment")
}

/// Asks for a restart: our new credentials and the new tag.
fn restart(gateway: &Gateway, resource: &str, ufrag: &str) -> (Remote, String) {
    let patched = gateway.control.patch(resource, None, &IfMatch::Any, &fragment(ufrag));
    let Ok(Patched::Restarted { fragment, tag }) = patched else { panic!("{patched:?}") };
    (Remote::from_answer(&fragment), tag)
}

/// A client whose allocation is on a given shard: the kernel's hash of the 4-tuple chooses, so
/// allocations are made until one is there. `made` is how many there are.
fn peer_on(
    gateway: &mut Gateway,
    shard: usize,
    who: &str,
    remote: &Remote,
    made: &mut u64,
) -> Peer {
    let all = |gateway: &Gateway, made: u64| {
        eventually(|| {
            let by_shard = gateway.by_shard(Id::RelayAllocationsCreated);
            (by_shard.iter().sum::<u64>() == made).then_some(by_shard)
        })
    };
    for _ in 0..40 {
        let before = all(gateway, *made);
        let minted = gateway.mint(who);
        let mut peer = Peer::allocate(gateway.udp, remote.media, &minted);
        *made += 1;
        if all(gateway, *made)[shard] > before[shard] {
            peer.bind_channel();
            return peer;
        }
    }
    panic!("40 clients on one of two shards");
}

fn home(gateway: &Gateway, role: Id) -> usize {
    eventually(|| gateway.by_shard(role).iter().position(|n| *n == 1))
}

/// Shards publish once a second.
fn moved(gateway: &Gateway, role: Id, to: usize) {
    let expected = [u64::from(to == 0), u64::from(to == 1)];
    eventually(|| (gateway.by_shard(role) == expected).then_some(()));
}

/// The SSRC of the next RTP packet.
fn next_ssrc(player: &mut Peer) -> u32 {
    loop {
        let packet = player.recv_media(Duration::from_secs(5)).expect("media in time");
        if !(192..=223).contains(&packet[1]) {
            return u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
        }
    }
}

#[test]
fn a_player_restarts_ice_on_either_shard_and_its_media_goes_on() {
    let mut gateway = Gateway::start(2);
    let (mut publisher, _) = gateway.publisher("lobby/cam1");
    let (mut player, first, resource) = gateway.player("lobby/cam1", "viewer");
    let (ssrc, mut sequence) = (first.video_ssrc.expect("a video"), 0);
    let mut credentials = ("plyufrag".to_owned(), first);
    let (there, mut made) = (home(&gateway, Id::SessionsPlaying), 2);
    for (round, shard) in [1 - there, 1 - there, there].into_iter().enumerate() {
        let ufrag = format!("restart{round}");
        let (remote, tag) = restart(&gateway, &resource, &ufrag);
        assert_ne!(remote.ufrag, credentials.1.ufrag);
        assert_eq!(tag, entity_tag(&resource, round as u32 + 1));
        // Until the client nominates with the new credentials all is as before.
        let mut next = peer_on(&mut gateway, shard, "viewer", &remote, &mut made);
        next.check(&ufrag, &remote, false);
        assert!(player.is_answered(&credentials.0, &credentials.1, SILENCE));
        sequence += 1;
        publisher.send_rtp(&vp8(sequence, sequence == 1));
        assert_eq!(next_ssrc(&mut player), ssrc, "over the old path");
        // Nominated: the new path carries it, under the same keys and SSRC.
        next.check(&ufrag, &remote, true);
        next.take_over(&mut player);
        sequence += 1;
        publisher.send_rtp(&vp8(sequence, false));
        assert_eq!(next_ssrc(&mut next), ssrc, "over the new path");
        moved(&gateway, Id::SessionsPlaying, shard);
        assert!(!next.is_answered(&credentials.0, &credentials.1, SILENCE), "they are over");
        credentials = (ufrag, remote);
        player = next;
    }
    assert_eq!(eventually(|| Some(gateway.count(Id::SessionIceRestarts)).filter(|n| *n == 3)), 3);
    assert_eq!(gateway.count(Id::DtlsDone13), 2, "no further handshake");
}

#[test]
fn a_publisher_restarts_ice_to_the_other_shard_and_its_players_notice_nothing() {
    let mut gateway = Gateway::start(2);
    let (mut publisher, _, resource) = gateway.publisher_of("lobby/cam1", 0);
    let (mut player, remote, _) = gateway.player("lobby/cam1", "viewer");
    let ssrc = remote.video_ssrc.expect("a video");
    publisher.send_rtp(&vp8(1, true));
    assert_eq!(next_ssrc(&mut player), ssrc);
    let there = 1 - home(&gateway, Id::SessionsPublishing);
    let (remote, _) = restart(&gateway, &resource, "restarted");
    let mut next = peer_on(&mut gateway, there, "alice0", &remote, &mut 2);
    publisher.send_rtp(&vp8(2, false));
    assert_eq!(next_ssrc(&mut player), ssrc);
    next.check("restarted", &remote, true);
    next.take_over(&mut publisher);
    next.send_rtp(&vp8(3, false));
    assert_eq!(next_ssrc(&mut player), ssrc);
    moved(&gateway, Id::SessionsPublishing, there);
}

#[test]
fn a_restart_before_the_first_check_leaves_both_credentials_good() {
    for take_new in [true, false] {
        let mut gateway = Gateway::start(2);
        let identity = Identity::new();
        let name = "lobby/cam1".parse().expect("a name");
        let sdp = offer(&identity, "sendonly", "pubufrag");
        let who = Gateway::principal("alice");
        let accepted = gateway.control.publish(&name, &who, &sdp).expect("agreed");
        let old = Remote::from_answer(&accepted.answer);
        let (new, _) = restart(&gateway, &accepted.resource, "restarted");
        let minted = gateway.mint("alice");
        let mut client = Peer::allocate(gateway.udp, old.media, &minted);
        if take_new {
            client.connect(&identity, "restarted", &new);
            assert!(!client.is_answered("pubufrag", &old, SILENCE), "they are over");
        } else {
            client.connect(&identity, "pubufrag", &old);
            client.check("restarted", &new, true);
        }
        eventually(|| (gateway.count(Id::SessionsPublishing) == 1).then_some(()));
    }
}

#[test]
fn of_two_restarts_the_later_holds_and_the_earlier_is_given_up() {
    let mut gateway = Gateway::start(2);
    let (mut publisher, first, resource) = gateway.publisher_of("lobby/cam1", 0);
    let (given_up, _) = restart(&gateway, &resource, "restart1");
    let (last, _) = restart(&gateway, &resource, "restart2");
    assert!(!publisher.is_answered("restart1", &given_up, SILENCE));
    publisher.check("pubufrag", &first, true);
    publisher.check("restart2", &last, true);
    assert!(!publisher.is_answered("pubufrag", &first, SILENCE));
}

#[test]
fn a_refused_restart_keeps_the_session_as_it_is() {
    let mut gateway = Gateway::start(1);
    let (mut publisher, first, resource) = gateway.publisher_of("lobby/cam1", 0);
    let control = gateway.control.clone();
    let patch = |resource: &str, subject: &str, expected, fragment: &Fragment| {
        control.patch(resource, Some(&Gateway::principal(subject)), &expected, fragment)
    };
    let initial = entity_tag(&resource, 0);
    let stale = IfMatch::Tags(vec![entity_tag(&resource, 1), format!("W/{initial}")]);
    let new = fragment("restarted");
    let no_pwd = Fragment::parse("a=ice-ufrag:restarted\r\n").expect("a fragment");
    assert_eq!(patch(&resource, "alice0", stale.clone(), &new), Err(Refusal::StaleTag));
    assert_eq!(patch(&resource, "alice0", IfMatch::Any, &no_pwd), Err(Refusal::BadRestart));
    assert_eq!(patch(&resource, "mallory", IfMatch::Any, &new), Err(Refusal::NotFound));
    assert_eq!(patch("another", "alice0", IfMatch::Any, &new), Err(Refusal::NotFound));
    // Candidates of the generation in force, and of one that says nothing of it.
    let initial = IfMatch::Tags(vec![initial]);
    for trickle in [fragment("pubufrag"), Fragment::default()] {
        assert_eq!(patch(&resource, "alice0", initial.clone(), &trickle), Ok(Patched::Trickled));
        assert_eq!(patch(&resource, "alice0", stale.clone(), &trickle), Err(Refusal::StaleTag));
    }
    publisher.check("pubufrag", &first, true);
    // The tag in force does as well as `*`, and once.
    let restarted = patch(&resource, "alice0", initial.clone(), &new);
    assert!(matches!(restarted, Ok(Patched::Restarted { .. })), "{restarted:?}");
    assert_eq!(patch(&resource, "alice0", initial, &fragment("again")), Err(Refusal::StaleTag));
    publisher.check("pubufrag", &first, true);
}

#[test]
fn restarts_without_end_are_refused_and_hold_no_memory() {
    let mut gateway = Gateway::start(1);
    let (mut publisher, first, resource) = gateway.publisher_of("lobby/cam1", 0);
    let mut refused = 0;
    for n in 0..100 {
        let new = fragment(&format!("restart{n}"));
        match gateway.control.patch(&resource, None, &IfMatch::Any, &new) {
            Ok(_) => assert_eq!(refused, 0),
            Err(Refusal::RestartsTooOften) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!((90..100).contains(&refused), "{refused}");
    publisher.check("pubufrag", &first, true);
}

#[test]
fn delete_revokes_consent_at_once_and_may_be_repeated() {
    let mut gateway = Gateway::start(2);
    let (mut publisher, first, resource) = gateway.publisher_of("lobby/cam1", 0);
    let (restarted, _) = restart(&gateway, &resource, "restarted");
    publisher.check("pubufrag", &first, true);
    gateway.control.close(&resource, None).expect("live");
    eventually(|| (!publisher.is_answered("pubufrag", &first, SILENCE)).then_some(()));
    assert!(!publisher.is_answered("restarted", &restarted, SILENCE));
    eventually(|| (gateway.control.close(&resource, None) == Err(Refusal::NotFound)).then_some(()));
    let gone = gateway.control.patch(&resource, None, &IfMatch::Any, &fragment("again"));
    assert_eq!(gone, Err(Refusal::NotFound));
}
