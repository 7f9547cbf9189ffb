//! The page of a room: who comes by its link sees the others, mutes, chats and leaves.

mod common;

use common::Gateway;
use common::tool::Tool;
use serde_json::json;

fn meet(browsers: &[&str], key: Option<&str>) {
    let _turn = common::alone();
    let gateway = Gateway::start(2);
    let mint =
        ["token", "mint", "--publish", "lobby/*", "--play", "lobby/*", "--chat", "--ttl", "1h"];
    let screenshot = std::env::var("VEILGATE_TEST_SCREENSHOT").ok();
    let plan = json!({
        "token": gateway.cli(&mint),
        "room": "lobby",
        "browsers": browsers,
        "key": key,
        "screenshot": screenshot,
    });
    let seen = Tool::node(&gateway, "room_page.mjs", &plan).result();
    assert_eq!(seen["fragmentAfter"], "#room=lobby", "the secrets left the address bar");
    let people = seen["people"].as_str().expect("a text");
    assert!(people.contains("Ada"), "{seen:#}");
    assert_eq!(seen["left"], "You left.");
    assert_eq!(seen["trouble"], "", "{seen:#}");
    assert_eq!(seen["phoneOverflow"], 0, "the page scrolls sideways on a phone");
    assert_eq!(seen["violations"], json!([]), "the content security policy was violated");
    assert_eq!(seen["complaints"], json!([]), "errors on a page");
}

#[test]
fn two_chromium_and_a_firefox_meet_on_the_page_of_a_room() {
    meet(&["chromium", "chromium", "firefox"], None);
}

#[test]
fn two_meet_in_a_room_encrypted_end_to_end() {
    meet(&["chromium", "chromium"], Some("aVZlaWxnYXRlLXRlc3Qta2V5LWZvci1hLXJvb20tMDE"));
}
