//! One playing connection carries several streams, which come and go while media flows.

mod peer;

use std::time::Duration;

use peer::gateway::{Gateway, eventually};
use peer::playing::{Participant, Section, sections};
use peer::{Peer, vp8};
use veilgate::control::{Refusal, StreamEvent};
use veilgate::metrics::Id;

const QUIET: Duration = Duration::from_millis(300);

/// A room's streams and their publishers.
struct Room {
    gateway: Gateway,
    publishers: Vec<(String, Peer, String, u16)>,
}

impl Room {
    fn new(shards: usize, streams: &[&str]) -> Self {
        let mut room = Self { gateway: Gateway::start(shards), publishers: Vec::new() };
        streams.iter().for_each(|name| room.publish(name));
        room
    }

    fn publish(&mut self, name: &str) {
        let round = self.publishers.len();
        let (peer, _, resource) = self.gateway.publisher_of(name, round);
        self.publishers.retain(|(known, ..)| known != name);
        self.publishers.push((name.to_owned(), peer, resource, 0));
        let control = self.gateway.control.clone();
        eventually(|| {
            control.streams_of("lobby").iter().any(|it| it.name.as_str() == name).then_some(())
        });
    }

    /// Each publisher sends a frame.
    fn frame(&mut self) {
        for (_, peer, _, sequence) in &mut self.publishers {
            *sequence += 1;
            peer.send_rtp(&vp8(*sequence, *sequence % 5 == 1));
        }
    }

    fn leave(&mut self, name: &str) {
        let place = self.publishers.iter().position(|(known, ..)| known == name).expect("there");
        let (_, _, resource, _) = self.publishers.remove(place);
        self.gateway.control.close(&resource, None).expect("it was there");
        let control = self.gateway.control.clone();
        let gone = || control.streams_of("lobby").iter().all(|it| it.name.as_str() != name);
        eventually(|| gone().then_some(()));
    }

    /// All frames from here on reach the participant for these streams, and no others.
    fn shows(&mut self, who: &mut Participant, streams: &[&str]) {
        let ssrcs: Vec<_> =
            streams.iter().map(|name| who.video_of(name).expect("it is offered")).collect();
        // Until each has begun: its keyframe may be a few frames off.
        let mut missing = ssrcs.clone();
        for _ in 0..50 {
            self.frame();
            let heard = who.heard(Duration::from_millis(20));
            missing.retain(|ssrc| !heard.contains_key(ssrc));
            if missing.is_empty() {
                break;
            }
        }
        assert!(missing.is_empty(), "{streams:?}: nothing of {missing:?}");
        who.heard(QUIET);
        for _ in 0..10 {
            self.frame();
        }
        let heard = who.heard(QUIET);
        for ssrc in &ssrcs {
            assert_eq!(heard.get(ssrc), Some(&10), "{streams:?} {ssrcs:?} {heard:?}");
        }
        assert_eq!(heard.len(), ssrcs.len(), "{streams:?} {ssrcs:?} {heard:?}");
    }
}

fn by_mid(sdp: &str, mid: &str) -> Section {
    sections(sdp).into_iter().find(|section| section.mid == mid).expect("a section")
}

#[test]
fn streams_come_and_go_on_one_connection_while_media_flows() {
    let mut room = Room::new(2, &["lobby/a", "lobby/b", "lobby/c"]);
    let mut who = Participant::open(&room.gateway, "bob", "lobby");
    who.take(&room.gateway, &["lobby/a", "lobby/b"]);
    who.connect(&mut room.gateway);
    room.shows(&mut who, &["lobby/a", "lobby/b"]);
    // One more beside them, then one less, then another one.
    who.take(&room.gateway, &["lobby/a", "lobby/b", "lobby/c"]);
    room.shows(&mut who, &["lobby/a", "lobby/b", "lobby/c"]);
    who.take(&room.gateway, &["lobby/c"]);
    room.shows(&mut who, &["lobby/c"]);
    let before = who.offer.clone().expect("offered");
    who.take(&room.gateway, &["lobby/c", "lobby/b"]);
    room.shows(&mut who, &["lobby/c", "lobby/b"]);

    // It was recycled: no new m-line, another mid and SSRC in the place of one of before.
    let after = who.offer.clone().expect("offered");
    let (before, after) = (sections(&before.sdp), sections(&after.sdp));
    assert_eq!(before.len(), after.len());
    let recycled: Vec<_> =
        before.iter().zip(&after).filter(|(old, new)| old.port == 0 && new.port != 0).collect();
    assert_eq!(recycled.len(), 2, "audio and video");
    for (old, new) in recycled {
        assert_ne!(old.mid, new.mid);
        assert_eq!(old.kind, new.kind);
    }
    assert_eq!(room.gateway.count(Id::SessionPanicked), 0);
}

#[test]
fn participants_on_both_shards_get_all_streams_of_the_room() {
    let mut room = Room::new(2, &["lobby/a", "lobby/b"]);
    let mut participants = Vec::new();
    while room.gateway.by_shard(Id::SessionsPlaying).contains(&0) {
        assert!(participants.len() < 40, "40 clients on one of two shards");
        let before = room.gateway.count(Id::SessionsPlaying);
        let subject = format!("viewer{}", participants.len());
        let mut who = Participant::open(&room.gateway, &subject, "lobby");
        who.take(&room.gateway, &["lobby/a", "lobby/b"]);
        who.connect(&mut room.gateway);
        participants.push(who);
        eventually(|| (room.gateway.count(Id::SessionsPlaying) > before).then_some(()));
    }
    for who in &mut participants {
        room.shows(who, &["lobby/a", "lobby/b"]);
        who.take(&room.gateway, &["lobby/b"]);
        room.shows(who, &["lobby/b"]);
    }
}

#[test]
fn newcomer_of_a_playing_connection_asks_for_a_keyframe_at_once() {
    let mut room = Room::new(1, &["lobby/a", "lobby/b"]);
    let mut who = Participant::open(&room.gateway, "bob", "lobby");
    who.take(&room.gateway, &["lobby/a"]);
    who.connect(&mut room.gateway);
    room.shows(&mut who, &["lobby/a"]);
    who.take(&room.gateway, &["lobby/a", "lobby/b"]);
    // A PLI (RFC 4585: 206, format 1) in a compound.
    let is_pli = |packet: &[u8]| packet.windows(2).any(|at| at == [0x81, 206]);
    let (_, publisher, ..) = &mut room.publishers[1];
    publisher.send_rtp(&vp8(100, false));
    let asked = |publisher: &mut Peer| {
        publisher.recv_media(Duration::from_secs(5)).is_some_and(|packet| is_pli(&packet))
    };
    eventually(|| asked(publisher).then_some(()));
}

#[test]
fn stream_that_ends_leaves_the_connection_with_the_others() {
    let mut room = Room::new(2, &["lobby/a", "lobby/b"]);
    let mut events = room.gateway.control.stream_events();
    let mut who = Participant::open(&room.gateway, "bob", "lobby");
    who.take(&room.gateway, &["lobby/a", "lobby/b"]);
    who.connect(&mut room.gateway);
    room.shows(&mut who, &["lobby/a", "lobby/b"]);

    room.leave("lobby/a");
    let mut told = Vec::new();
    eventually(|| {
        told.extend(events.try_recv().ok());
        (told.len() == 2).then_some(())
    });
    assert_eq!(told[0], StreamEvent::Ended("lobby/a".parse().expect("a name")));
    assert!(matches!(&told[1], StreamEvent::SessionEnded { .. }));
    room.shows(&mut who, &["lobby/b"]);

    // The same list, said again, offers it away; the next publisher of the name takes its place.
    let gone = who.offer.clone().expect("offered");
    assert!(who.want(&room.gateway, &["lobby/a", "lobby/b"]));
    who.answer(&room.gateway);
    assert!(!who.want(&room.gateway, &["lobby/a", "lobby/b"]), "nothing more to say");
    let offer = who.offer.clone().expect("offered");
    for track in gone.tracks.iter().filter(|track| track.stream.as_str() == "lobby/a") {
        assert_eq!(by_mid(&offer.sdp, &track.mid).port, 0);
    }
    assert!(offer.tracks.iter().all(|track| track.stream.as_str() == "lobby/b"));
    room.publish("lobby/a");
    let started = eventually(|| events.try_recv().ok());
    let StreamEvent::Started(info) = started else { panic!("{started:?}") };
    assert_eq!((info.name.as_str(), info.tracks.len()), ("lobby/a", 2));
    who.take(&room.gateway, &["lobby/a", "lobby/b"]);
    room.shows(&mut who, &["lobby/a", "lobby/b"]);
    assert_eq!(
        sections(&who.offer.as_ref().expect("offered").sdp).len(),
        sections(&offer.sdp).len()
    );
}

#[test]
fn stream_that_ends_before_its_offer_is_answered_is_not_sent() {
    let mut room = Room::new(1, &["lobby/a", "lobby/b"]);
    let mut who = Participant::open(&room.gateway, "bob", "lobby");
    assert!(who.want(&room.gateway, &["lobby/a", "lobby/b"]));
    room.leave("lobby/a");
    // What is wanted meanwhile waits for the answer, and follows it.
    assert!(!who.want(&room.gateway, &["lobby/a", "lobby/b"]));
    who.answer(&room.gateway);
    let offer = who.offer.clone().expect("offered");
    assert_eq!(offer.revision, 2);
    assert!(offer.tracks.iter().all(|track| track.stream.as_str() == "lobby/b"));
    who.connect(&mut room.gateway);
    room.shows(&mut who, &["lobby/b"]);
}

#[test]
fn session_that_moves_between_shards_loses_no_change() {
    let mut room = Room::new(2, &["lobby/a", "lobby/b", "lobby/c"]);
    let mut who = Participant::open(&room.gateway, "bob", "lobby");
    who.take(&room.gateway, &["lobby/a"]);
    let remote = who.remote.clone().expect("answered");
    // Each nominates from an allocation of its own, on whatever shard the kernel puts it; the
    // session moves there, with a change on its way behind it.
    let wishes: [&[&str]; 4] =
        [&["lobby/b"], &["lobby/a", "lobby/b"], &["lobby/c"], &["lobby/a", "lobby/c"]];
    for round in 0..24 {
        let minted = room.gateway.mint("bob");
        let mut client = Peer::allocate(room.gateway.udp, remote.media, &minted);
        client.bind_channel();
        client.check(peer::playing::UFRAG, &remote, false);
        client.nominate(peer::playing::UFRAG, &remote);
        who.take(&room.gateway, wishes[round % wishes.len()]);
    }
    eventually(|| room.gateway.by_shard(Id::SessionIceChecks).iter().all(|n| *n > 0).then_some(()));
    who.connect(&mut room.gateway);
    room.shows(&mut who, &["lobby/a", "lobby/c"]);
}

#[test]
fn nothing_is_offered_until_there_is_something_to_play() {
    let mut room = Room::new(1, &[]);
    let mut who = Participant::open(&room.gateway, "bob", "lobby");
    assert!(!who.want(&room.gateway, &[]));
    assert!(!who.want(&room.gateway, &["lobby/a", "other/a"]));
    room.publish("lobby/a");
    assert!(who.want(&room.gateway, &["lobby/a", "other/a"]));
    let (_, _, resource) = room.gateway.publisher_of("other/a", 9);
    who.answer(&room.gateway);
    let offer = who.offer.clone().expect("offered");
    let played: Vec<_> = offer.tracks.iter().map(|track| track.stream.as_str()).collect();
    assert_eq!(played, ["lobby/a", "lobby/a"], "streams of other rooms are not played");
    room.gateway.control.close(&resource, None).expect("it was there");
}

#[test]
fn closed_connection_is_over_for_client_and_control() {
    let mut room = Room::new(1, &["lobby/a"]);
    let mut events = room.gateway.control.stream_events();
    let mut who = Participant::open(&room.gateway, "bob", "lobby");
    who.take(&room.gateway, &["lobby/a"]);
    who.connect(&mut room.gateway);
    room.shows(&mut who, &["lobby/a"]);
    room.gateway.control.close_playing(&who.id);
    let ended = eventually(|| events.try_recv().ok());
    assert_eq!(ended, StreamEvent::SessionEnded { resource: who.id.0.clone() });
    let gone = room.gateway.control.subscribe_playing(&who.id, Vec::new());
    assert_eq!(gone, Err(Refusal::NotFound));
    eventually(|| (room.gateway.count(Id::SessionsPlaying) == 0).then_some(()));
    // One that never had anything to play ends as well.
    let idle = Participant::open(&room.gateway, "bob", "lobby");
    room.gateway.control.close_playing(&idle.id);
    let ended = eventually(|| events.try_recv().ok());
    assert_eq!(ended, StreamEvent::SessionEnded { resource: idle.id.0 });
}
