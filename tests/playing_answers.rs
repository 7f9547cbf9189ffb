//! What a playing connection says to answers that are late, wrong or hostile.

mod peer;

use std::time::Duration;

use peer::gateway::{Gateway, MEDIA, eventually};
use peer::playing::{Participant, answer, sections};
use peer::{Identity, Peer, Remote, vp8};
use veilgate::control::{PlayOffer, Refusal};
use veilgate::metrics::Id;

const STREAM: &str = "lobby/a";

/// A gateway with one stream, and a participant with the first offer of it.
fn offered() -> (Gateway, Peer, Participant, PlayOffer) {
    let mut gateway = Gateway::start(1);
    let (publisher, _) = gateway.publisher(STREAM);
    let control = gateway.control.clone();
    eventually(|| (!control.streams_of("lobby").is_empty()).then_some(()));
    let mut who = Participant::open(&gateway, "bob", "lobby");
    assert!(who.want(&gateway, &[STREAM]));
    let offer = who.offer.clone().expect("offered");
    (gateway, publisher, who, offer)
}

fn refused(gateway: &Gateway, who: &Participant, revision: u32, sdp: &str) -> String {
    match gateway.control.answer_playing(&who.id, revision, sdp) {
        Err(Refusal::BadSdp(text) | Refusal::OutOfTurn(text) | Refusal::NoFingerprint(text)) => {
            text
        }
        other => panic!("{other:?} to\n{sdp}"),
    }
}

#[test]
fn answer_to_another_revision_is_refused_by_name() {
    let (gateway, _publisher, mut who, offer) = offered();
    assert_eq!(offer.revision, 1);
    let sdp = answer(&offer.sdp, &who.identity.fingerprint);
    assert_eq!(refused(&gateway, &who, 2, &sdp), "the offer that waits is of revision 1, not of 2");
    who.answer(&gateway);
    assert_eq!(
        refused(&gateway, &who, 1, &sdp),
        "no answer is awaited: that to revision 1 was the last"
    );
    // Before any offer there is nothing to answer either.
    let fresh = Participant::open(&gateway, "carol", "lobby");
    refused(&gateway, &fresh, 0, &sdp);
}

#[test]
fn hostile_answer_is_refused_with_its_fault_and_the_right_one_still_taken() {
    let (mut gateway, mut publisher, mut who, offer) = offered();
    let good = answer(&offer.sdp, &who.identity.fingerprint);
    let without = |what: &str| {
        let lines: Vec<_> = good.lines().filter(|line| !line.starts_with(what)).collect();
        format!("{}\r\n", lines.join("\r\n"))
    };
    let last = good.rfind("m=").expect("a section");
    let first = good.find("m=").expect("a section");
    let video = &good[last..];
    let many = format!("{good}{}", video.replace("a=mid:2", "a=mid:3"));
    let swapped = good.replace("a=mid:1", "a=mid:x").replace("a=mid:2", "a=mid:1");
    let swapped = swapped.replace("a=mid:x", "a=mid:2");
    for (sdp, fault) in [
        (String::new(), "m-section"),
        ("v=0\r\n".to_owned(), "m-section"),
        ("v=1\r\nnonsense".to_owned(), "line 1"),
        (good[..last].to_owned(), "BUNDLE"),
        (good[..last].replace("BUNDLE 0 1 2", "BUNDLE 0 1"), "2 m-sections, the offer has 3"),
        (many, "4 m-sections"),
        (swapped, "a=mid is not"),
        (good.replace("a=mid:2", "a=mid:9").replace("0 1 2", "0 1 9"), "a=mid is not"),
        (good.replace("m=video", "m=audio"), "kind"),
        (good.replace("m=audio", "m=application"), "kind"),
        (good.replace("BUNDLE 0 1 2", "BUNDLE 0 1"), "BUNDLE"),
        (good.replace("a=setup:active", "a=setup:passive"), "a=setup must be active"),
        (good.replace("a=setup:active", "a=setup:actpass"), "a=setup must be active"),
        (without("a=fingerprint"), "a=fingerprint"),
        (without("a=ice-ufrag"), "a=ice-ufrag"),
        (without("a=rtcp-mux"), "a=rtcp-mux"),
        (good.replace("UDP/TLS/RTP/SAVPF", "udptl"), "protocol"),
        (good.replace("m=audio 9", "m=audio 0"), "cannot be rejected"),
        (format!("{}{}", &good[..first], video), "BUNDLE"),
        (format!("{good}{}", "a=x\r\n".repeat(60_000)), "longer than"),
        (format!("{good}{}", "m=audio 9 RTP/AVP 0\r\n".repeat(200)), "more than 129 m-sections"),
    ] {
        let text = refused(&gateway, &who, offer.revision, &sdp);
        assert!(text.contains(fault), "{text:?} is not about {fault:?} in\n{sdp}");
    }
    // None of it has cost anybody anything.
    who.answer(&gateway);
    who.connect(&mut gateway);
    let ssrc = who.video_of(STREAM).expect("offered");
    eventually(|| (gateway.count(Id::SessionsPlaying) == 1).then_some(()));
    for sequence in 1..6 {
        publisher.send_rtp(&vp8(sequence, sequence == 1));
    }
    who.hears(ssrc);
}

#[test]
fn later_answer_from_another_endpoint_is_refused() {
    let (mut gateway, _publisher, mut who, _) = offered();
    who.answer(&gateway);
    let _second = gateway.publisher_of("lobby/b", 1);
    let control = gateway.control.clone();
    eventually(|| (control.streams_of("lobby").len() == 2).then_some(()));
    assert!(who.want(&gateway, &[STREAM, "lobby/b"]));
    let offer = who.offer.clone().expect("offered");
    let foreign = answer(&offer.sdp, &Identity::new().fingerprint);
    let text = refused(&gateway, &who, offer.revision, &foreign);
    assert!(text.contains("a=fingerprint is not that of the first answer"), "{text}");
    let restarted =
        answer(&offer.sdp, &who.identity.fingerprint).replace("roomufrag", "otherufrag");
    let text = refused(&gateway, &who, offer.revision, &restarted);
    assert!(text.contains("the offer did not restart ICE"), "{text}");
    who.answer(&gateway);
}

#[test]
fn track_the_client_does_not_take_is_not_played_and_the_other_is() {
    let (mut gateway, mut publisher, mut who, offer) = offered();
    let control = gateway.control.clone();
    let good = answer(&offer.sdp, &who.identity.fingerprint);
    let audio = sections(&offer.sdp)[1].ssrc.expect("it sends");
    let last = good.rfind("m=").expect("a section");
    // Without VP8, whatever else it says of it.
    let no_codec = format!("{}{}", &good[..last], good[last..].replace("VP8/90000", "H264/90000"));
    let next = control.answer_playing(&who.id, offer.revision, &no_codec).expect("taken");
    assert_eq!(next, None, "it is not offered again and again");
    who.remote = Some(Remote::from_answer(&offer.sdp));
    who.connect(&mut gateway);
    eventually(|| (gateway.count(Id::SessionsPlaying) == 1).then_some(()));
    publisher.send_rtp(&vp8(1, true));
    publisher.send_rtp(&opus(1));
    let heard = who.heard(Duration::from_millis(500));
    assert_eq!(heard.keys().copied().collect::<Vec<_>>(), [audio], "{heard:?}");

    // Its section is closed with the next offer, which must have a reason of its own.
    let _second = gateway.publisher_of("lobby/b", 1);
    eventually(|| (control.streams_of("lobby").len() == 2).then_some(()));
    assert!(who.want(&gateway, &[STREAM, "lobby/b"]));
    let offer = who.offer.clone().expect("offered");
    let ports: Vec<_> = sections(&offer.sdp).iter().map(|s| (s.mid.clone(), s.port)).collect();
    let port = MEDIA.port();
    let mids = [("0", port), ("1", port), ("2", 0), ("3", port), ("4", port)];
    assert_eq!(ports, mids.map(|(mid, port)| (mid.to_owned(), port)));
    who.answer(&gateway);
}

#[test]
fn rejected_section_is_recycled_at_once() {
    let (mut gateway, _publisher, mut who, offer) = offered();
    let control = gateway.control.clone();
    let good = answer(&offer.sdp, &who.identity.fingerprint);
    let rejected = good.replace("m=video 9", "m=video 0").replace("BUNDLE 0 1 2", "BUNDLE 0 1");
    let next = control.answer_playing(&who.id, offer.revision, &rejected).expect("taken");
    assert_eq!(next, None);
    let _second = gateway.publisher_of("lobby/b", 1);
    eventually(|| (control.streams_of("lobby").len() == 2).then_some(()));
    assert!(who.want(&gateway, &[STREAM, "lobby/b"]));
    let offer = who.offer.clone().expect("offered");
    let mids: Vec<_> = sections(&offer.sdp).into_iter().map(|s| s.mid).collect();
    assert_eq!(mids, ["0", "1", "4", "3"], "video of b has the place, its audio a new one");
    who.answer(&gateway);
}

fn opus(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x90, 111];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 960).to_be_bytes());
    packet.extend(10u32.to_be_bytes());
    packet.extend([0xbe, 0xde, 0, 1, 0x40, b'0', 0, 0]);
    packet.extend([0xfc; 40]);
    packet
}
