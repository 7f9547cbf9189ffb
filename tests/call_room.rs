//! A room of three Chromium, a Firefox and aiortc: everybody sees everybody, whoever comes, goes,
//! reloads or changes networks.

mod common;

use common::Gateway;
use common::tool::Tool;
use serde_json::{Value, json};

const CHROMIUM: [&str; 3] = ["ada", "bo", "cy"];
const FIREFOX: &str = "fay";
const PYTHON: &str = "py";

/// A token for a stream of one's own and everybody else's.
fn token(gateway: &Gateway, who: &str) -> String {
    let stream = format!("lobby/{who}");
    gateway.cli(&[
        "token",
        "mint",
        "--subject",
        who,
        "--publish",
        &stream,
        "--play",
        "lobby/*",
        "--ttl",
        "1h",
    ])
}

/// What each of `all` should see of the others, without those that draw no picture here.
fn see(watchers: &[&str], all: &[&str]) -> Value {
    let others = |who: &str| all.iter().filter(|one| **one != who).collect::<Vec<_>>();
    watchers.iter().map(|who| ((*who).to_owned(), json!(others(who)))).collect()
}

fn moving(room: &mut Tool, watchers: &[&str], all: &[&str]) -> Value {
    let command = json!({ "do": "moving", "see": see(watchers, all) });
    let seen = room.ask(&command.to_string(), "moving");
    for who in watchers {
        let now = &seen["now"][who];
        assert_eq!(now["candidates"], json!(["relay"]), "{who}: {now:#}");
        let troubles = now["happened"].as_array().expect("a list").iter();
        let troubles: Vec<_> = troubles.filter(|one| one[0] == "trouble").collect();
        assert!(troubles.is_empty(), "{who}: {troubles:?}");
    }
    seen
}

/// Frames that aiortc has decoded of each stream.
fn decoded(python: &mut Tool, streams: &[&str]) -> Vec<u64> {
    let seen = python.ask("look", "look");
    assert_eq!(seen["trouble"], json!([]), "{seen:#}");
    let frames = |who: &&str| seen["streams"][*who]["video"].as_u64().unwrap_or(0);
    streams.iter().map(frames).collect()
}

#[test]
fn everyone_sees_everyone_whoever_leaves_reloads_or_restarts() {
    let gateway = Gateway::start(2);
    let mut python = Tool::python(
        &gateway,
        "aiortc_room.py",
        &json!({ "room": "lobby", "name": PYTHON, "stream": PYTHON, "token": token(&gateway, PYTHON) }),
    );
    python.flowing();
    let guest = |who: &str, browser: &str| json!({ "who": who, "browser": browser, "stream": who, "token": token(&gateway, who) });
    let mut guests: Vec<_> = CHROMIUM.iter().map(|who| guest(who, "chromium")).collect();
    guests.push(guest(FIREFOX, "firefox"));
    let plan = json!({ "room": "lobby", "guests": guests });
    let mut room = Tool::node(&gateway, "room.mjs", &plan);
    room.flowing();

    let all = ["ada", "bo", "cy", FIREFOX, PYTHON];
    let browsers = ["ada", "bo", "cy", FIREFOX];
    let before = decoded(&mut python, &browsers);
    moving(&mut room, &browsers, &all);
    let after = decoded(&mut python, &browsers);
    for ((who, before), after) in browsers.iter().zip(&before).zip(&after) {
        assert!(after > before, "aiortc sees {who} stand still at {after} frames");
    }

    python.finish();
    room.ask(&json!({ "do": "leave", "who": "cy" }).to_string(), "leave");
    let left = ["ada", "bo", FIREFOX];
    moving(&mut room, &left, &left);
    room.ask(&json!({ "do": "reload", "who": "bo" }).to_string(), "reload");
    moving(&mut room, &left, &left);
    room.ask(&json!({ "do": "restart", "who": "ada" }).to_string(), "restart");
    moving(&mut room, &left, &left);
    room.finish();

    let metrics =
        gateway.metrics_when("everybody left", |m| m.sum("veilgate_session_sessions", &[]) == 0.0);
    assert_eq!(metrics.sum("veilgate_session_ended_total", &["reason=\"panic\""]), 0.0);
}
