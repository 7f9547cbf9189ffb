//! What the page's client module asks of a gateway, and what it makes of each answer.

mod common;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Every behaviour of `tools/client_module.mjs`, in its order.
const BEHAVIOURS: [&str; 18] = [
    "three sizes by rid, small to large, relay-only",
    "another network restarts ICE in the same session",
    "a restart that is refused makes a new session",
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

#[test]
fn client_module_speaks_the_protocols_and_mends_what_breaks() {
    assert_eq!(behaviours("client_module.mjs"), BEHAVIOURS);
}

#[test]
fn worker_of_encrypted_streams_keeps_keys_and_epochs_apart() {
    assert_eq!(behaviours("e2ee_worker.mjs"), SEALING);
}

/// What a driver says that it has seen.
fn behaviours(driver: &str) -> Vec<String> {
    common::need("node", "nodejs");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(driver);
    let output = Command::new("node").arg(script).output().expect("node runs");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problem}");
    let text = String::from_utf8(output.stdout).expect("utf-8");
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events.filter_map(|event| event["name"].as_str().map(str::to_owned)).collect()
}
