//! Who is in a room, what they publish and say to each other: scripts with virtual time against the
//! state machine. Every message is held against docs/signalling.schema.json.

mod signal_kit;

use std::time::Duration;

use serde_json::{Value, json};
use signal_kit::{Claims, Guest, Hall, fits_client, only};
use veilgate::control::api::Refusal;
use veilgate::control::rooms::outbox::{Close, MAX_WAITING, Outbox};
use veilgate::control::rooms::request::Start;
use veilgate::control::rooms::room::{BARRED_FOR, MAX_PARTICIPANTS, MAX_PER_SUBJECT};
use veilgate::control::rooms::{Joining, Refused};

const SECOND: Duration = Duration::from_secs(1);

fn hall_of_two() -> (Hall, Guest, Guest) {
    let mut hall = Hall::default();
    let ada = hall.join(&Claims::all("ada"));
    let bo = hall.join(&Claims::all("bo"));
    ada.hears();
    bo.hears();
    (hall, ada, bo)
}

#[test]
fn newcomer_learns_who_and_what_is_there_and_the_others_learn_of_it() {
    let mut hall = Hall::default();
    hall.whip("door");
    let ada = hall.join(&Claims::all("ada"));
    hall.publish(&ada, "ada");
    let bo = hall.join(&Claims::plain("bo"));
    let joined = &bo.joined;
    assert_eq!(joined["participants"], json!([{"participant": ada.id(), "name": "ada"}]));
    let streams = joined["streams"].as_array().expect("a list");
    assert_eq!(streams.len(), 2);
    assert_eq!(
        (&streams[0]["stream"], &streams[0]["participant"]),
        (&json!("ada"), &json!(ada.id()))
    );
    assert_eq!((&streams[1]["stream"], &streams[1]["participant"]), (&json!("door"), &Value::Null));
    assert_eq!(
        streams[0]["tracks"][1],
        json!({"track": 1, "kind": "video", "codec": "VP8", "rids": ["q", "h", "f"], "muted": false})
    );
    let may = json!({"publish": true, "play": true, "chat": false, "data": false, "admin": false});
    assert_eq!(joined["may"], may);
    assert_eq!(joined["ice"]["iceTransportPolicy"], "relay");
    let heard = ada.hears();
    let told = only(&heard, "participant_joined");
    assert_eq!((&told["participant"], &told["name"]), (&json!(bo.id()), &json!("bo")));
}

#[test]
fn who_leaves_is_gone_at_once_with_all_that_was_theirs() {
    let (mut hall, ada, bo) = hall_of_two();
    hall.publish(&ada, "ada");
    let publishing = hall.media.resource_of("ada").expect("published");
    hall.publish(&bo, "bo");
    let playing = hall.media.playing();
    assert_eq!(playing.len(), 2, "both play the other");
    ada.hears();
    hall.say(&ada, &json!({"type": "leave", "id": 5}));
    assert_eq!(ada.hears(), [json!({"type": "ok", "id": 5}), json!({"close": 1000})]);
    assert!(hall.media.was_closed(&publishing));
    assert_eq!(hall.media.playing().len(), 1);
    let left = only(&bo.hears(), "participant_left").clone();
    assert_eq!((&left["participant"], &left["reason"]), (&json!(ada.id()), &json!("left")));
    assert_eq!(hall.room.len(), 1);
    hall.end("ada");
    assert!(bo.types().contains(&"stream_removed".to_owned()));
}

#[test]
fn token_for_one_stream_sees_and_plays_that_one_alone() {
    let mut hall = Hall::default();
    hall.whip("cam1");
    hall.whip("secret");
    let claims = Claims { publish: vec![], play: vec!["lobby/cam1"], ..Claims::plain("guest") };
    let guest = hall.join(&claims);
    assert_eq!(guest.joined["streams"].as_array().map(Vec::len), Some(1));
    let heard = guest.hears();
    let offer = only(&heard, "offer");
    assert!(offer["tracks"].as_array().is_some_and(|tracks| tracks.len() == 2));
    hall.whip("secret2");
    assert_eq!(guest.types(), Vec::<String>::new());
    for (message, code) in [
        (json!({"type": "subscribe", "streams": ["secret"]}), "not_granted"),
        (json!({"type": "pause", "stream": "secret"}), "no_such_stream"),
        (json!({"type": "publish", "stream": "mine", "sdp": "offer"}), "not_granted"),
        (json!({"type": "chat", "text": "hello"}), "not_granted"),
        (json!({"type": "data", "data": 1}), "not_granted"),
        (json!({"type": "kick", "participant": "0123456789abcdef"}), "not_granted"),
    ] {
        assert_eq!(hall.fault(&guest, message.clone()), code, "{message}");
    }
}

#[test]
fn full_room_and_full_node_refuse_the_next_one() {
    let mut hall = Hall::default();
    let mut guests = Vec::new();
    for n in 0..MAX_PARTICIPANTS {
        guests.push(hall.join(&Claims::plain(&format!("guest{n}"))));
        guests.iter().for_each(|guest| drop(guest.hears()));
    }
    let refused = hall.try_join(&Claims::plain("late"), Start::All, None).err();
    assert_eq!(refused, Some(Refused::RoomFull));
    assert_eq!(refused.as_ref().map(Refused::code), Some("room_full"));
    assert_eq!(refused.and_then(|r| r.close()).map(Close::code), Some(4409));
    let first = guests.remove(0);
    hall.say(&first, &json!({"type": "leave"}));
    hall.join(&Claims::plain("late"));

    let mut hall = Hall::with_places(1);
    hall.join(&Claims::plain("first"));
    let refused = hall.try_join(&Claims::plain("second"), Start::All, None).err();
    assert_eq!(refused, Some(Refused::Full));

    let mut hall = Hall::default();
    for _ in 0..MAX_PER_SUBJECT {
        hall.join(&Claims::plain("one"));
    }
    let refused = hall.try_join(&Claims::plain("one"), Start::All, None).err();
    assert_eq!(refused.map(|r| r.code()), Some("too_many_sessions"));
    hall.join(&Claims::plain("another"));
}

#[test]
fn published_stream_is_told_once_its_media_stands_and_muted_tracks_with_it() {
    let (mut hall, ada, bo) = hall_of_two();
    let reply = hall.ask(&ada, json!({"type": "publish", "stream": "ada", "sdp": "offer"}));
    assert_eq!((&reply["stream"], &reply["sdp"]), (&json!("ada"), &json!("answer to offer")));
    assert!(bo.hears().is_empty(), "no media yet");
    let mute = json!({"type": "mute", "stream": "ada", "track": 0, "muted": true});
    assert_eq!(hall.ask(&ada, mute.clone())["type"], "ok");
    let event = hall.media.start(signal_kit::camera("ada"));
    hall.event(&event);
    let heard = bo.hears();
    let added = only(&heard, "stream_added");
    assert_eq!(added["participant"], ada.id());
    assert_eq!(
        (&added["tracks"][0]["muted"], &added["tracks"][1]["muted"]),
        (&json!(true), &json!(false))
    );
    let again = json!({"type": "publish", "stream": "ada2", "sdp": "offer"});
    assert_eq!(hall.fault(&ada, again), "already_publishing");
    hall.say(&ada, &mute);
    assert!(bo.hears().is_empty(), "nothing changed");
    hall.say(&ada, &json!({"type": "mute", "stream": "ada", "track": 0, "muted": false}));
    let heard = bo.hears();
    let muted = json!({"type": "muted", "participant": ada.id(), "stream": "ada", "track": 0, "muted": false});
    assert_eq!(heard, [muted]);
    for (who, message, code) in [
        (
            &bo,
            json!({"type": "mute", "stream": "ada", "track": 0, "muted": true}),
            "not_your_stream",
        ),
        (
            &ada,
            json!({"type": "mute", "stream": "ada", "track": 9, "muted": true}),
            "no_such_track",
        ),
        (&bo, json!({"type": "unpublish"}), "not_publishing"),
        (
            &bo,
            json!({"type": "restart", "connection": "publish", "sdp": "offer"}),
            "not_publishing",
        ),
        (&bo, json!({"type": "publish", "stream": "ada", "sdp": "offer"}), "name_in_use"),
        (&bo, json!({"type": "publish", "stream": "bo", "sdp": "rubbish"}), "bad_sdp"),
    ] {
        assert_eq!(hall.fault(who, message.clone()), code, "{message}");
    }
    let restart = json!({"type": "restart", "connection": "publish", "sdp": "offer2"});
    assert_eq!(hall.ask(&ada, restart)["sdp"], "answer to offer2");
}

#[test]
fn publisher_learns_that_its_connection_ended_and_publishes_anew() {
    let (mut hall, ada, bo) = hall_of_two();
    hall.publish(&ada, "ada");
    ada.hears();
    let resource = hall.media.resource_of("ada").expect("published");
    hall.end("ada");
    hall.event(&veilgate::control::rooms::media::StreamEvent::SessionEnded { resource });
    let heard = ada.hears();
    assert_eq!(only(&heard, "connection_ended")["connection"], "publish");
    // Who restarts before it heard of the end is told as clearly.
    hall.publish(&ada, "ada2");
    drop(hall.media.end("ada2"));
    let restart = json!({"type": "restart", "connection": "publish", "sdp": "offer"});
    assert_eq!(hall.fault(&ada, restart), "not_publishing");
    assert_eq!(only(&bo.hears(), "stream_removed")["stream"], "ada");
    hall.publish(&ada, "ada");
}

#[test]
fn name_just_unpublished_is_waited_for() {
    let (mut hall, ada, _bo) = hall_of_two();
    hall.publish(&ada, "ada");
    assert_eq!(hall.ask(&ada, json!({"type": "unpublish"}))["type"], "ok");
    // The shard has not ended it yet.
    hall.say(&ada, &json!({"type": "publish", "id": 9, "stream": "ada", "sdp": "again"}));
    assert!(ada.hears().iter().all(|message| message["id"] != 9));
    hall.end("ada");
    let heard = ada.hears();
    let published = only(&heard, "published");
    assert_eq!((&published["id"], &published["sdp"]), (&json!(9), &json!("answer to again")));
    // One that does not become free is in use.
    hall.say(&ada, &json!({"type": "unpublish"}));
    hall.say(&ada, &json!({"type": "publish", "id": 10, "stream": "ada", "sdp": "again"}));
    hall.wait(3 * SECOND);
    let heard = ada.hears();
    let error = only(&heard, "error");
    assert_eq!((&error["id"], &error["code"]), (&json!(10), &json!("name_in_use")));
}

#[test]
fn reloaded_page_takes_the_name_of_the_one_it_left_behind() {
    let (mut hall, ada, bo) = hall_of_two();
    hall.publish(&ada, "ada");
    let resource = hall.media.resource_of("ada").expect("published");
    hall.disconnect(&ada);
    bo.hears();
    let other = json!({"type": "publish", "stream": "ada", "sdp": "offer"});
    assert_eq!(hall.fault(&bo, other), "name_in_use", "of another subject");
    let again = hall.join(&Claims::all("ada"));
    hall.say(&again, &json!({"type": "publish", "id": 2, "stream": "ada", "sdp": "offer"}));
    assert!(hall.media.was_closed(&resource));
    hall.end("ada");
    assert_eq!(only(&again.hears(), "published")["id"], 2);
    let heard = bo.hears();
    assert_eq!(only(&heard, "participant_left")["reason"], "lost");
}

#[test]
fn chat_and_data_reach_all_others_or_one() {
    let mut hall = Hall::default();
    let ada = hall.join(&Claims::all("ada"));
    let guests = [hall.join(&Claims::plain("bo")), hall.join(&Claims::plain("cy"))];
    guests.iter().chain([&ada]).for_each(|guest| drop(guest.hears()));
    assert_eq!(hall.ask(&ada, json!({"type": "chat", "text": "hello"}))["type"], "ok");
    for guest in &guests {
        let heard = guest.hears();
        let said = only(&heard, "chat");
        assert_eq!((&said["from"], &said["text"]), (&json!(ada.id()), &json!("hello")));
        assert_eq!((&said["private"], &said["at"]), (&json!(false), &json!(1_800_000_000_000_u64)));
    }
    let whisper = json!({"type": "data", "data": {"x": [1, null]}, "to": guests[1].id()});
    assert_eq!(hall.ask(&ada, whisper)["type"], "ok");
    assert!(guests[0].hears().is_empty());
    let heard = guests[1].hears();
    let said = only(&heard, "data");
    assert_eq!((&said["data"], &said["private"]), (&json!({"x": [1, null]}), &json!(true)));
    let nobody = json!({"type": "chat", "text": "hello", "to": "0123456789abcdef"});
    assert_eq!(hall.fault(&ada, nobody), "no_such_participant");
    let long = json!({"type": "data", "data": "x".repeat(16 * 1024)});
    assert_eq!(hall.fault(&ada, long), "too_long");
}

#[test]
fn who_talks_too_much_is_refused_and_the_others_are_spared() {
    let (mut hall, ada, bo) = hall_of_two();
    let mut refused = 0;
    for n in 0..60 {
        let reply = hall.ask(&ada, json!({"type": "chat", "text": format!("{n}")}));
        refused += u32::from(reply["code"] == "too_many_messages");
    }
    assert_eq!(refused, 30, "a burst of thirty");
    assert_eq!(bo.hears().len(), 30);
    hall.wait(SECOND);
    assert_eq!(hall.ask(&ada, json!({"type": "chat", "text": "calm"}))["type"], "ok");
    let big = json!({"type": "data", "data": "x".repeat(16_000)});
    let sent = (0..20).filter(|_| hall.ask(&bo, big.clone())["type"] == "ok").count();
    assert_eq!(sent, 8, "128 KiB at once");
}

#[test]
fn kicked_participant_is_told_and_its_token_stays_out_for_a_while() {
    let (mut hall, ada, bo) = hall_of_two();
    let mut bystander = hall.join(&Claims::plain("cy"));
    bystander.hears();
    hall.publish(&bo, "bo");
    let resource = hall.media.resource_of("bo").expect("published");
    bo.hears();
    assert_eq!(hall.ask(&ada, json!({"type": "kick", "participant": bo.id()}))["type"], "ok");
    assert_eq!(bo.hears(), [json!({"type": "kicked", "by": ada.id()}), json!({"close": 4410})]);
    assert!(hall.media.was_closed(&resource));
    assert_eq!(only(&bystander.hears(), "participant_left")["reason"], "kicked");
    // Its connection is not heard any more, nor can it come back.
    hall.say(&bo, &json!({"type": "chat", "text": "but"}));
    assert!(bystander.hears().iter().all(|message| message["type"] != "chat"));
    assert_eq!(hall.resume(&bo).err(), Some(Refused::Kicked));
    let refused = hall.try_join(&bo.claims, Start::All, None).err();
    assert_eq!(refused.and_then(|r| r.close()).map(Close::code), Some(4410));
    hall.say(&bystander, &json!({"type": "leave"}));
    bystander = hall.join(&Claims::plain("cy"));
    hall.wait(BARRED_FOR + SECOND);
    hall.join(&bo.claims);
    let own = json!({"type": "kick", "participant": ada.id()});
    assert_eq!(hall.fault(&ada, own), "bad_message");
    drop(bystander);
}

#[test]
fn slow_reader_is_closed_and_nobody_else_is_disturbed() {
    let mut hall = Hall::default();
    let slow = hall.join(&Claims::all("slow"));
    let ada = hall.join(&Claims::all("ada"));
    ada.hears();
    for n in 0..=MAX_WAITING {
        hall.publish(&ada, &format!("s{n}"));
        hall.say(&ada, &json!({"type": "unpublish"}));
        hall.end(&format!("s{n}"));
        ada.hears();
    }
    assert_eq!(slow.hears(), [json!({"close": 4413})], "what waited is of no use");
    assert_eq!(hall.ask(&ada, json!({"type": "ping"}))["type"], "pong");
    // It may come back, and gets the whole state anew.
    let back = hall.resume(&slow).expect("resumed");
    assert_eq!(back.joined["resumed"], true);
    assert_eq!(back.id(), slow.id());
}

#[test]
fn outbox_takes_one_message_of_any_length_and_then_no_more_than_its_bytes() {
    let outbox = Outbox::default();
    assert!(outbox.push("x".repeat(1 << 20).into()));
    assert!(!outbox.push("y".into()));
    assert_eq!(outbox.ending(), Some(Close::Slow));
    let codes: Vec<u16> = Close::ALL.iter().map(|why| why.code()).collect();
    let mut unique = codes.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), codes.len());
    let doc = include_str!("../docs/signalling.md");
    for code in codes {
        assert!(doc.contains(&format!("| {code} |")), "{code} is not in docs/signalling.md");
    }
}

#[test]
fn refusal_of_the_media_side_is_told_and_a_foreign_resume_token_gets_nothing() {
    let mut hall = Hall::default();
    let ada = hall.join(&Claims::all("ada"));
    ada.hears();
    hall.media.refuse_next(Refusal::Full);
    let reply = hall.ask(&ada, json!({"type": "publish", "stream": "ada", "sdp": "offer"}));
    assert_eq!(reply["code"], "full");
    let outbox = Outbox::default();
    let joining = Joining {
        id: None,
        grant: Claims::all("bo").grant(),
        name: String::new(),
        subscribe: Start::None,
        resume: Some("someoneElsesToken".to_owned()),
        fresh: "x".to_owned(),
    };
    let refused = hall.room.join(hall.now, joining, &outbox).err();
    assert_eq!(refused, Some(Refused::ResumeUnknown));
    assert!(outbox.take().is_none(), "nothing was said");
}

/// What the schema refuses the state machine refuses, with a code, and goes on.
#[test]
fn senseless_messages_are_refused_one_by_one() {
    let (mut hall, ada, bo) = hall_of_two();
    let thousand: Vec<String> = (0..1_000).map(|n| format!("s{n}")).collect();
    for (message, code) in [
        (json!({"type": "dance"}), "bad_message"),
        (json!({"type": "publish", "stream": "x"}), "bad_message"),
        (json!({"type": "publish", "stream": 1, "sdp": "v=0"}), "bad_message"),
        (json!({"type": "ping", "more": 1}), "bad_message"),
        (json!({"type": "subscribe", "streams": thousand}), "bad_message"),
        (json!({"type": "subscribe", "streams": "some"}), "bad_message"),
        (json!({"type": "subscribe", "streams": [1]}), "bad_message"),
        (json!({"type": "subscribe", "streams": ["../x"]}), "bad_name"),
        (json!({"type": "publish", "stream": "a/b", "sdp": "v=0"}), "bad_name"),
        (json!({"type": "layer", "stream": "x"}), "bad_message"),
        (json!({"type": "layer", "stream": "x", "rid": "q", "spatial": 1}), "bad_message"),
        (json!({"type": "layer", "stream": "x", "spatial": 8}), "bad_message"),
        (json!({"type": "layer", "stream": "x", "spatial": -1}), "bad_message"),
        (json!({"type": "restart", "connection": "play", "sdp": "v=0"}), "bad_message"),
        (json!({"type": "restart", "connection": "publish"}), "bad_message"),
        (json!({"type": "restart", "connection": "both"}), "bad_message"),
        (json!({"type": "last_n"}), "bad_message"),
        (json!({"type": "last_n", "n": 65}), "bad_message"),
        (json!({"type": "chat", "text": ""}), "bad_message"),
        (json!({"type": "chat", "text": "x".repeat(2_001)}), "too_long"),
        (json!({"type": "data"}), "bad_message"),
        (json!({"type": "answer", "revision": 4_294_967_296_u64, "sdp": "v=0"}), "bad_message"),
        (json!({"type": "join", "token": "x", "room": "lobby", "name": "a\u{7}"}), "bad_message"),
        (
            json!({"type": "join", "token": "x", "room": "lobby", "name": "x".repeat(65)}),
            "too_long",
        ),
        (
            json!({"type": "join", "token": "x", "room": "lobby", "subscribe": "some"}),
            "bad_message",
        ),
    ] {
        // Control characters are beyond the schema; all else is not.
        let allowed = fits_client(&message);
        assert!(!allowed || message["name"] == "a\u{7}", "the schema allows {message}");
        let mut message = message;
        message["id"] = json!(3);
        hall.say_anything(&ada, &message.to_string());
        let heard = ada.hears();
        let error = only(&heard, "error");
        assert_eq!((&error["id"], &error["code"]), (&json!(3), &json!(code)), "{message}");
        assert!(error["detail"].as_str().is_some_and(|detail| detail.len() < 2_000), "{error}");
    }
    for id in [json!(-1), json!(1.5), json!("x"), json!(null), json!(9_007_199_254_740_992_u64)] {
        hall.say_anything(&ada, &json!({"type": "ping", "id": id}).to_string());
        let heard = ada.hears();
        let error = only(&heard, "error");
        assert_eq!((&error["code"], error.get("id")), (&json!("bad_message"), None));
    }
    let again = json!({"type": "join", "token": "x", "room": "lobby"});
    assert_eq!(hall.fault(&ada, again), "already_joined");
    assert!(bo.hears().is_empty(), "nobody else is disturbed");
}
