//! What the page's client module asks of a gateway, and what it makes of each answer.

mod common;
mod signal_kit;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Every behaviour of `tools/client_module.mjs`, in its order.
const BEHAVIOURS: [&str; 21] = [
    "three sizes by rid, small to large, relay-only",
    "another network restarts ICE in the same session",
    "while no network is there the session is kept",
    "a restart that is refused makes a new session",
    "a wish for a layer outlives its session",
    "a credential is renewed before what it made ends",
    "pauses grow while sessions end as soon as they begin",
    "a handler that throws is reported and ends nothing",
    "a key that was not found is no stream in clear",
    "a room is joined, and its people and streams are there",
    "offers are answered, and tracks go where they belong",
    "what is published is muted at its source, and told",
    "a broken socket is resumed, and media goes on",
    "a room that forgot us is joined anew and published in again",
    "a silent path is mended by a restart",
    "what is unpublished while it begins goes nowhere",
    "two reasons to publish again are one",
    "an offer at the end opens nothing",
    "every request is one that the protocol knows",
    "who is put out stays out",
    "a refused join says why",
];

/// Every behaviour of `tools/e2ee_worker.mjs`, in its order.
const SEALING: [&str; 5] = [
    "what is sealed opens, and nothing in clear is shown",
    "a new key is the same to those who had gone on unequally far",
    "who is given the text of a key that has gone on finds the others",
    "the key before a new one opens for a while only",
    "made-up epochs cost their derivation once",
];

/// Every behaviour of `tools/e2ee_frames.mjs`, in its order.
const FRAMES: [&str; 8] = [
    "frames are sealed as the document says",
    "no nonce is used twice under one key",
    "what is sealed opens with the key, whole",
    "a changed bit, another key, and no key at all are dropped and told",
    "a codec that cannot be sealed is never sent",
    "players follow the ratchet, which has no way back",
    "forged frames of a later epoch move nobody",
    "another secret is taken up with a keyframe",
];

/// What a script says of each behaviour that has passed.
fn passed(script: &str) -> Vec<Value> {
    common::need("node", "nodejs");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(script);
    let output = Command::new("node").arg(script).output().expect("node runs");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    let text = String::from_utf8(output.stdout).expect("utf-8");
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events.filter(|event| event["event"] == "passed").collect()
}

fn names(passed: &[Value]) -> Vec<&str> {
    passed.iter().filter_map(|behaviour| behaviour["name"].as_str()).collect()
}

#[test]
fn client_module_speaks_the_protocols_and_mends_what_breaks() {
    let passed = passed("client_module.mjs");
    assert_eq!(names(&passed), BEHAVIOURS);
    let list = |side: &str| -> Vec<&Value> {
        passed.iter().flat_map(|behaviour| behaviour[side].as_array()).flatten().collect()
    };
    let (said, told) = (list("said"), list("told"));
    let types: BTreeSet<&str> = said.iter().filter_map(|said| said["type"].as_str()).collect();
    // All but "ping", which comes after 15 s of silence.
    let all = [
        "answer",
        "chat",
        "data",
        "ice",
        "join",
        "kick",
        "last_n",
        "layer",
        "leave",
        "mute",
        "pause",
        "publish",
        "restart",
        "resume",
        "subscribe",
        "unpublish",
    ];
    assert_eq!(types, BTreeSet::from(all));
    assert!(!told.is_empty());
    for message in said {
        signal_kit::from_client(message);
    }
    // The gateway of that play must not be kinder than ours.
    for message in told {
        signal_kit::from_server(&message.to_string());
    }
}

#[test]
fn frames_are_sealed_end_to_end_as_documented_and_no_nonce_is_used_twice() {
    assert_eq!(names(&passed("e2ee_frames.mjs")), FRAMES);
}

#[test]
fn worker_of_encrypted_streams_keeps_keys_and_epochs_apart() {
    assert_eq!(names(&passed("e2ee_worker.mjs")), SEALING);
}
