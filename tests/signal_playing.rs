//! What a participant plays: offers and answers, wishes, last-N, and coming back. Scripts with
//! virtual time against the state machine.

mod signal_kit;

use std::time::Duration;

use serde_json::{Value, json};
use signal_kit::{Claims, Guest, Hall, only};
use veilgate::control::api::Refusal;
use veilgate::control::rooms::Refused;
use veilgate::control::rooms::media::Wish;
use veilgate::control::rooms::request::Start;
use veilgate::control::rooms::room::RESUME_WITHIN;

const SECOND: Duration = Duration::from_secs(1);

/// A viewer with its first offer answered, of these streams.
fn viewer(streams: &[&str]) -> (Hall, Guest) {
    let mut hall = Hall::default();
    streams.iter().for_each(|stream| hall.whip(stream));
    let guest = hall.join(&Claims::plain("viewer"));
    let heard = guest.hears();
    if !streams.is_empty() {
        hall.answer(&guest, only(&heard, "offer"));
    }
    (hall, guest)
}

fn streams_of(offer: &Value) -> Vec<&str> {
    let tracks = offer["tracks"].as_array().expect("a list").iter();
    let mut streams: Vec<&str> = tracks.map(|t| t["stream"].as_str().expect("a name")).collect();
    streams.dedup();
    streams
}

#[test]
fn everything_is_offered_and_offered_anew_as_streams_come_and_go() {
    let (mut hall, guest) = viewer(&[]);
    assert!(guest.hears().is_empty() && hall.media.playing().is_empty(), "nothing to play");
    hall.whip("cam1");
    let heard = guest.hears();
    let first = only(&heard, "offer");
    assert_eq!((&first["revision"], &first["fresh"]), (&json!(1), &json!(true)));
    assert_eq!(
        first["tracks"],
        json!([{"mid": "0", "stream": "cam1", "track": 0, "kind": "audio"},
               {"mid": "1", "stream": "cam1", "track": 1, "kind": "video"}])
    );
    // While it is not answered there is no other.
    hall.whip("cam2");
    hall.whip("cam3");
    assert_eq!(guest.types(), ["stream_added", "stream_added"]);
    hall.answer(&guest, first);
    let heard = guest.hears();
    let second = only(&heard, "offer");
    assert_eq!((&second["revision"], &second["fresh"]), (&json!(2), &json!(false)));
    assert_eq!(streams_of(second), ["cam1", "cam2", "cam3"]);
    hall.answer(&guest, second);
    hall.end("cam2");
    let heard = guest.hears();
    assert_eq!(streams_of(only(&heard, "offer")), ["cam1", "cam3"]);
}

#[test]
fn own_stream_is_not_played_unless_chosen() {
    let (mut hall, guest) = viewer(&[]);
    hall.publish(&guest, "mine");
    assert_eq!(guest.types(), ["stream_added"]);
    assert_eq!(hall.ask(&guest, json!({"type": "subscribe", "streams": ["mine"]}))["type"], "ok");
    assert_eq!(hall.media.playing().len(), 1);
}

#[test]
fn chosen_streams_are_played_when_they_come() {
    let mut hall = Hall::default();
    hall.whip("cam1");
    let guest = hall.try_join(&Claims::plain("v"), Start::None, None).expect("let in");
    assert!(guest.hears().is_empty());
    hall.say(&guest, &json!({"type": "subscribe", "streams": ["later"], "id": 1}));
    assert_eq!(guest.types(), ["ok"]);
    hall.whip("later");
    let heard = guest.hears();
    let offer = only(&heard, "offer");
    assert_eq!(streams_of(offer), ["later"]);
    hall.answer(&guest, offer);
    hall.say(&guest, &json!({"type": "subscribe", "streams": "all", "id": 2}));
    let heard = guest.hears();
    assert_eq!(heard[0], json!({"type": "ok", "id": 2}), "the reply before what comes of it");
    assert_eq!(streams_of(only(&heard, "offer")), ["cam1", "later"]);
}

#[test]
fn stream_that_came_again_unnoticed_is_offered_again() {
    let (mut hall, guest) = viewer(&["cam1"]);
    let event = hall.media.start(signal_kit::camera("cam1"));
    hall.event(&event);
    assert_eq!(guest.types(), ["stream_added", "offer"]);
}

#[test]
fn answers_are_taken_for_the_last_offer_alone() {
    let (mut hall, guest) = viewer(&["cam1"]);
    let answer =
        |revision: u32, sdp: &str| json!({"type": "answer", "revision": revision, "sdp": sdp});
    assert_eq!(hall.fault(&guest, answer(1, "answer")), "not_playing", "it was answered");
    hall.whip("cam2");
    assert_eq!(hall.fault(&guest, answer(1, "answer")), "stale_revision");
    assert_eq!(hall.fault(&guest, answer(2, "rubbish")), "bad_sdp");
    assert_eq!(hall.ask(&guest, answer(2, "answer"))["type"], "ok", "another try");
    let (mut hall, guest) = viewer(&[]);
    assert_eq!(hall.fault(&guest, answer(1, "answer")), "not_playing");
}

#[test]
fn playing_connection_restarts_and_is_opened_anew_after_its_end() {
    let (mut hall, guest) = viewer(&["cam1"]);
    hall.say(&guest, &json!({"type": "restart", "connection": "play", "id": 4}));
    let heard = guest.hears();
    assert_eq!(heard[0], json!({"type": "ok", "id": 4}));
    let offer = only(&heard, "offer");
    assert_eq!((&offer["revision"], &offer["fresh"]), (&json!(2), &json!(false)));
    hall.answer(&guest, offer);
    let playing = hall.media.playing().remove(0);
    let event = hall.media.end_playing(&playing);
    hall.event(&event);
    let heard = guest.hears();
    assert_eq!(only(&heard, "connection_ended")["connection"], "play");
    hall.wait(10 * SECOND);
    assert!(guest.hears().is_empty(), "until it asks");
    hall.say(&guest, &json!({"type": "restart", "connection": "play"}));
    let heard = guest.hears();
    let offer = only(&heard, "offer");
    assert_eq!((&offer["revision"], &offer["fresh"]), (&json!(3), &json!(true)));
}

#[test]
fn playing_that_is_refused_is_told_and_tried_again() {
    let mut hall = Hall::default();
    let guest = hall.join(&Claims::plain("v"));
    hall.media.refuse_next(Refusal::Full);
    hall.whip("cam1");
    let heard = guest.hears();
    assert_eq!(only(&heard, "error")["code"], "full");
    hall.wait(2 * SECOND);
    assert!(guest.hears().is_empty());
    hall.wait(4 * SECOND);
    assert_eq!(guest.types(), ["offer"]);
}

#[test]
fn wishes_reach_the_track_they_are_for() {
    let (mut hall, guest) = viewer(&["cam1", "cam2"]);
    hall.media.steered();
    let wish = |paused, spatial, temporal| Wish { paused, spatial, temporal };
    let steps = [
        (
            json!({"type": "layer", "stream": "cam1", "rid": "h"}),
            vec![("cam1", 1, wish(false, Some(1), None))],
        ),
        (
            json!({"type": "layer", "stream": "cam1", "track": 1, "spatial": 0, "temporal": 1}),
            vec![("cam1", 1, wish(false, Some(0), Some(1)))],
        ),
        (
            json!({"type": "pause", "stream": "cam2", "track": 1}),
            vec![("cam2", 1, wish(true, None, None))],
        ),
        (
            json!({"type": "pause", "stream": "cam1"}),
            vec![("cam1", 0, wish(true, None, None)), ("cam1", 1, wish(true, Some(0), Some(1)))],
        ),
        (
            json!({"type": "layer", "stream": "cam1", "rid": "auto"}),
            vec![("cam1", 1, wish(true, None, None))],
        ),
        (
            json!({"type": "resume", "stream": "cam1"}),
            vec![("cam1", 0, Wish::default()), ("cam1", 1, Wish::default())],
        ),
        (json!({"type": "resume", "stream": "cam1"}), vec![]),
    ];
    for (message, expected) in steps {
        assert_eq!(hall.ask(&guest, message.clone())["type"], "ok", "{message}");
        let steered = hall.media.steered();
        let steered: Vec<_> = steered.iter().map(|(s, t, w)| (s.as_str(), *t, *w)).collect();
        assert_eq!(steered, expected, "{message}");
    }
    for (message, code) in [
        (json!({"type": "layer", "stream": "cam1", "rid": "zz"}), "no_such_layer"),
        (json!({"type": "layer", "stream": "cam9", "rid": "h"}), "no_such_stream"),
        (json!({"type": "pause", "stream": "cam1", "track": 2}), "no_such_track"),
    ] {
        assert_eq!(hall.fault(&guest, message.clone()), code, "{message}");
    }
}

#[test]
fn wish_for_what_is_not_played_yet_is_kept_until_it_is() {
    let (mut hall, guest) = viewer(&["cam1"]);
    hall.whip("cam2");
    let heard = guest.hears();
    hall.say(&guest, &json!({"type": "pause", "stream": "cam2"}));
    assert!(hall.media.steered().is_empty(), "not answered yet");
    hall.answer(&guest, only(&heard, "offer"));
    assert_eq!(hall.media.steered().len(), 2);
    // A new stream of the name has nothing of the old one's wishes.
    hall.end("cam2");
    let heard = guest.hears();
    hall.answer(&guest, only(&heard, "offer"));
    hall.whip("cam2");
    let heard = guest.hears();
    hall.answer(&guest, only(&heard, "offer"));
    assert!(hall.media.steered().is_empty());
}

#[test]
fn last_n_shows_those_who_spoke_last_and_silences_nobody() {
    let (mut hall, guest) = viewer(&["cam1", "cam2", "cam3"]);
    hall.media.steered();
    hall.say(&guest, &json!({"type": "last_n", "n": 1}));
    let hidden = |hall: &Hall| {
        let steered = hall.media.steered();
        assert!(steered.iter().all(|(_, track, _)| *track == 1), "sound goes on: {steered:?}");
        let mut shown: Vec<_> = steered.into_iter().map(|(s, _, w)| (s, w.paused)).collect();
        shown.sort();
        shown
    };
    let told = |list: &[(&str, bool)]| -> Vec<(String, bool)> {
        list.iter().map(|(stream, paused)| ((*stream).to_owned(), *paused)).collect()
    };
    assert_eq!(hidden(&hall), told(&[("cam2", true), ("cam3", true)]));
    hall.media.set_level("cam3", 20, true);
    hall.wait(SECOND);
    assert_eq!(hidden(&hall), told(&[("cam1", true), ("cam3", false)]));
    hall.media.set_level("cam3", 90, false);
    hall.wait(SECOND);
    assert_eq!(hidden(&hall), told(&[]), "the last one who spoke stays");
    hall.say(&guest, &json!({"type": "last_n", "n": null}));
    assert_eq!(hidden(&hall), told(&[("cam1", false), ("cam2", false)]));
    hall.say(&guest, &json!({"type": "last_n", "n": 0}));
    assert_eq!(hidden(&hall), told(&[("cam1", true), ("cam2", true), ("cam3", true)]));
}

#[test]
fn speakers_are_told_when_something_changed() {
    let (mut hall, guest) = viewer(&["cam1", "cam2"]);
    let only_cam2 = Claims { play: vec!["lobby/cam2"], publish: vec![], ..Claims::plain("other") };
    let other = hall.join(&only_cam2);
    guest.hears();
    other.hears();
    hall.media.set_level("cam1", 30, true);
    hall.media.set_level("cam2", 100, false);
    hall.wait(SECOND);
    let heard = guest.hears();
    assert_eq!(
        *only(&heard, "speakers"),
        json!({"type": "speakers", "active": "cam1",
               "levels": [{"stream": "cam1", "level": 30, "speaking": true},
                          {"stream": "cam2", "level": 100, "speaking": false}]})
    );
    let heard = other.hears();
    let told = only(&heard, "speakers");
    assert_eq!(told["active"], Value::Null, "of a stream it may not play it hears nothing");
    assert_eq!(told["levels"].as_array().map(Vec::len), Some(1));
    hall.media.set_level("cam1", 33, true);
    hall.wait(2 * SECOND);
    assert!(guest.hears().is_empty(), "that is no news");
    // Louder, but the one who has the floor speaks on.
    hall.media.set_level("cam2", 10, true);
    hall.wait(SECOND);
    assert_eq!(only(&guest.hears(), "speakers")["active"], "cam1");
    hall.media.set_level("cam1", 127, false);
    hall.wait(SECOND);
    assert_eq!(only(&guest.hears(), "speakers")["active"], "cam2");
}

#[test]
fn estimate_is_told_when_it_moved_by_a_tenth() {
    let (mut hall, guest) = viewer(&["cam1"]);
    let heard = |hall: &mut Hall| {
        hall.wait(2 * SECOND);
        let told = guest.hears();
        told.iter().map(|m| m["bps"].as_u64().expect("an estimate")).collect::<Vec<_>>()
    };
    assert_eq!(heard(&mut hall), Vec::<u64>::new());
    hall.media.set_estimate(1_000_000);
    assert_eq!(heard(&mut hall), [1_000_000]);
    hall.media.set_estimate(1_050_000);
    assert_eq!(heard(&mut hall), Vec::<u64>::new());
    hall.media.set_estimate(1_200_000);
    assert_eq!(heard(&mut hall), [1_200_000]);
}

#[test]
fn broken_connection_resumes_as_the_same_participant_with_its_connections() {
    let (mut hall, guest) = viewer(&["cam1"]);
    let other = hall.join(&Claims::all("other"));
    hall.publish(&guest, "mine");
    let (resource, playing) = (hall.media.resource_of("mine"), hall.media.playing());
    guest.hears();
    hall.disconnect(&guest);
    other.hears();
    hall.wait(20 * SECOND);
    assert!(other.hears().is_empty(), "the others see nothing");
    hall.say(&other, &json!({"type": "chat", "text": "are you there?"}));
    hall.whip("cam2");
    let back = hall.resume(&guest).expect("resumed");
    assert_eq!(back.id(), guest.id());
    assert_eq!(
        (&back.joined["resumed"], &back.joined["publishing"]),
        (&json!(true), &json!("mine"))
    );
    assert_eq!(back.joined["streams"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        (hall.media.resource_of("mine"), hall.media.playing()[0].clone()),
        (resource, playing[0].clone())
    );
    let heard = back.hears();
    let kinds: Vec<_> = heard.iter().map(|m| m["type"].as_str().unwrap_or_default()).collect();
    assert_eq!(kinds, ["offer", "chat"], "the offer that waits, and what was said");
    hall.answer(&back, &heard[0]);
    // The resume token was good once, and the old connection is not heard.
    assert_eq!(hall.resume(&guest).err(), Some(Refused::ResumeUnknown));
    hall.say(&guest, &json!({"type": "leave"}));
    assert_eq!(hall.ask(&back, json!({"type": "ping"}))["type"], "pong");
    assert!(
        other.types().iter().all(|kind| kind != "participant_joined" && kind != "participant_left")
    );
}

#[test]
fn who_is_not_back_in_time_is_lost() {
    let (mut hall, guest) = viewer(&["cam1"]);
    let other = hall.join(&Claims::all("other"));
    hall.publish(&guest, "mine");
    let resource = hall.media.resource_of("mine").expect("published");
    hall.disconnect(&guest);
    other.hears();
    hall.wait(RESUME_WITHIN - SECOND);
    assert!(other.hears().is_empty() && !hall.media.was_closed(&resource));
    hall.wait(2 * SECOND);
    assert_eq!(only(&other.hears(), "participant_left")["reason"], "lost");
    assert!(hall.media.was_closed(&resource));
    assert_eq!(hall.resume(&guest).err(), Some(Refused::ResumeUnknown));
    assert_eq!(hall.room.len(), 1);
}

#[test]
fn resume_token_is_good_for_its_subject_alone_and_takes_over_an_open_connection() {
    let (mut hall, guest) = viewer(&["cam1"]);
    let thief = hall.try_join(&Claims::all("thief"), Start::All, Some(&guest.resume));
    assert_eq!(thief.err(), Some(Refused::ResumeUnknown));
    guest.hears();
    let back = hall.resume(&guest).expect("resumed");
    assert_eq!(guest.hears(), [json!({"close": 4411})]);
    // The old connection's end does not touch the new one.
    hall.disconnect(&guest);
    hall.wait(RESUME_WITHIN + SECOND);
    assert_eq!(hall.ask(&back, json!({"type": "ping"}))["type"], "pong");
}

#[test]
fn what_is_kept_for_one_who_is_away_is_bounded() {
    let (mut hall, guest) = viewer(&[]);
    let other = hall.join(&Claims::all("other"));
    hall.disconnect(&guest);
    for n in 0..200 {
        hall.say(&other, &json!({"type": "data", "data": n}));
        other.hears();
        if n % 10 == 9 {
            hall.wait(SECOND);
        }
    }
    let back = hall.resume(&guest).expect("resumed");
    let kept = back.hears();
    assert_eq!(kept.len(), 64);
    assert_eq!((&kept[0]["data"], &kept[63]["data"]), (&json!(0), &json!(63)));
}

#[test]
fn stop_is_told_before_the_close() {
    let (mut hall, guest) = viewer(&[]);
    hall.room.stop(5);
    let closing = json!({"type": "closing", "reason": "draining", "retry_after": 5});
    assert_eq!(guest.hears(), [closing, json!({"close": 1001})]);
}

/// Events missed are made up for by what there is.
#[test]
fn missed_events_are_made_up_for() {
    let (mut hall, guest) = viewer(&["cam1"]);
    drop(hall.media.end("cam1"));
    drop(hall.media.start(signal_kit::camera("cam2")));
    hall.room.resync(hall.now.mono);
    let heard = guest.hears();
    assert_eq!(only(&heard, "stream_removed")["stream"], "cam1");
    assert_eq!(only(&heard, "stream_added")["stream"], "cam2");
}
