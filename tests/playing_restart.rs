//! ICE restarts on a playing connection: new credentials, and everything else goes on.

mod peer;

use std::time::Duration;

use peer::gateway::{Gateway, eventually};
use peer::playing::{Participant, UFRAG, answer, names};
use peer::{Remote, vp8};
use veilgate::control::Refusal;
use veilgate::metrics::Id;

#[test]
fn restart_changes_the_credentials_and_nothing_else() {
    let mut gateway = Gateway::start(2);
    let (mut publisher, _) = gateway.publisher("lobby/a");
    let control = gateway.control.clone();
    eventually(|| (!control.streams_of("lobby").is_empty()).then_some(()));
    let mut who = Participant::open(&gateway, "bob", "lobby");
    assert_eq!(control.restart_playing(&who.id), Ok(None), "nothing to restart yet");
    who.take(&gateway, &["lobby/a"]);
    who.connect(&mut gateway);
    let ssrc = who.video_of("lobby/a").expect("offered");
    let first = who.offer.clone().expect("offered");
    let old = who.remote.clone().expect("answered");
    publisher.send_rtp(&vp8(1, true));
    who.hears(ssrc);

    let offer = control.restart_playing(&who.id).expect("lives").expect("an offer");
    assert_eq!(offer.revision, 2);
    assert_eq!(offer.tracks, first.tracks);
    let line = |sdp: &str, key: &str| {
        sdp.lines().find(|line| line.starts_with(key)).expect("a line").to_owned()
    };
    for same in ["a=fingerprint:", "a=group:BUNDLE", "a=candidate:"] {
        assert_eq!(line(&offer.sdp, same), line(&first.sdp, same));
    }
    // RFC 8866 section 5.2: of the same session, one version further.
    let origin = line(&first.sdp, "o=").replace(" 1 IN", " 2 IN");
    assert_eq!(line(&offer.sdp, "o="), origin);
    let new = Remote::from_answer(&offer.sdp);
    assert!(new.ufrag != old.ufrag && new.pwd != old.pwd);
    assert_eq!(control.restart_playing(&who.id), Ok(None), "an answer is awaited");

    let unchanged = answer(&offer.sdp, &who.identity.fingerprint);
    let refused = control.answer_playing(&who.id, 2, &unchanged);
    let Err(Refusal::BadSdp(text)) = refused else { panic!("{refused:?}") };
    assert!(text.contains("a=ice-ufrag has not changed"), "{text}");
    let restarted = unchanged.replace(UFRAG, "secondufrag");
    // The second wish was kept for after the answer.
    let again = control.answer_playing(&who.id, 2, &restarted).expect("taken").expect("an offer");
    assert_eq!(again.revision, 3);

    // The old credentials hold until the client nominates with the new ones.
    let peer = who.peer.as_mut().expect("connected");
    assert!(peer.is_answered(UFRAG, &old, Duration::from_millis(300)));
    publisher.send_rtp(&vp8(2, false));
    who.hears(ssrc);
    let peer = who.peer.as_mut().expect("connected");
    peer.check("secondufrag", &new, true);
    eventually(|| (gateway.count(Id::SessionIceRestarts) == 1).then_some(()));
    assert!(!peer.is_answered(UFRAG, &old, Duration::from_millis(300)));
    publisher.send_rtp(&vp8(3, false));
    who.hears(ssrc);

    // Streams come after a restart as before it, and the session is closed by its first name.
    let last = Remote::from_answer(&again.sdp);
    let third = answer(&again.sdp, &who.identity.fingerprint).replace(UFRAG, "thirdufrag");
    assert_eq!(control.answer_playing(&who.id, 3, &third), Ok(None));
    who.peer.as_mut().expect("connected").check("thirdufrag", &last, true);
    let (mut second, ..) = gateway.publisher_of("lobby/b", 1);
    eventually(|| (control.streams_of("lobby").len() == 2).then_some(()));
    let wanted = names(&["lobby/a", "lobby/b"]);
    let offer = control.subscribe_playing(&who.id, wanted).expect("lives").expect("an offer");
    let fourth = answer(&offer.sdp, &who.identity.fingerprint).replace(UFRAG, "thirdufrag");
    who.offer = Some(offer);
    assert_eq!(control.answer_playing(&who.id, 4, &fourth), Ok(None));
    let ssrc = who.video_of("lobby/b").expect("offered");
    let mut sequence = 0;
    eventually(|| {
        sequence += 1;
        second.send_rtp(&vp8(sequence, true));
        who.heard(Duration::from_millis(20)).contains_key(&ssrc).then_some(())
    });
    control.close_playing(&who.id);
    eventually(|| (gateway.count(Id::SessionsPlaying) == 0).then_some(()));
    assert_eq!(control.restart_playing(&who.id), Err(Refusal::NotFound));
}
