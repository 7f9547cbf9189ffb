//! The page in a real browser: it publishes, watches, tells its numbers, and finds words for
//! whatever goes wrong.

mod common;

use common::Gateway;
use common::tool::Tool;
use serde_json::{Value, json};

fn words<'r>(seen: &'r Value, field: &str) -> &'r str {
    seen[field].as_str().unwrap_or_else(|| panic!("no {field}: {seen:#}"))
}

#[test]
fn page_publishes_watches_and_says_what_is_wrong() {
    let gateway = Gateway::start(1);
    let screenshot = std::env::var("VEILGATE_TEST_SCREENSHOT").ok();
    let plan = json!({ "token": gateway.token(), "screenshot": screenshot });
    let seen = Tool::page(&gateway, &plan).result();
    let used = &seen["used"];

    assert_eq!(used["name"], "lobby/page", "the fragment fills the form: {used:#}");
    assert_eq!(used["tokenFilled"], true);
    assert_eq!(used["fragmentAfter"], "#stream=lobby/page", "the token left the address bar");
    for side in ["watching", "publishing"] {
        let numbers = words(used, side);
        for label in ["relay over udp", "Bitrate", "Frames", "Round trip"] {
            assert!(numbers.contains(label), "{side}: {numbers}");
        }
    }
    assert_eq!(used["phoneOverflow"], 0, "the page scrolls sideways on a phone");
    assert_eq!(used["violations"], json!([]), "the content security policy was violated");
    assert_eq!(used["complaints"], json!([]), "errors on the console");
    assert!(words(used, "badToken").to_lowercase().contains("token"), "{used:#}");

    let sealed = &seen["sealed"];
    let link = words(sealed, "link");
    let key = link.split_once("#stream=lobby/veiled&key=").expect("a link with a key").1;
    assert_eq!(key.len(), 43, "256 bits: {link}");
    assert_eq!(sealed["fragmentAfter"], "#stream=lobby/veiled", "the key left the address bar");
    assert_eq!(sealed["lockedWhileLive"], true, "the box says what is sent");
    assert!(words(sealed, "anotherKey").contains("another key"), "{sealed:#}");
    assert_eq!(sealed["violations"], json!([]), "the content security policy was violated");
    assert_eq!(sealed["complaints"], json!([]), "errors on the console");

    let camera = &seen["camera"];
    for (why, says) in
        [("refused", "not allowed"), ("absent", "No camera"), ("inUse", "in use by another")]
    {
        assert!(words(camera, why).contains(says), "{why}: {camera:#}");
    }
}

#[test]
fn page_is_served_with_a_policy_that_allows_nothing_inline() {
    let gateway = Gateway::start(1);
    let (status, head, body) = gateway.https("/", &[]);
    assert_eq!(status, 200);
    let policy = head
        .lines()
        .find_map(|line| line.strip_prefix("content-security-policy:"))
        .unwrap_or_else(|| panic!("no policy: {head}"));
    assert!(policy.contains("default-src 'self'") || policy.contains("default-src 'none'"));
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(head.contains("content-type: text/html"), "{head}");
    // Nothing inline to allow, and nothing from elsewhere.
    for inline in ["<style", " style=", " onclick=", "http://", "https://"] {
        assert!(!body.contains(inline), "{inline} in the page");
    }
    assert!(!body.contains("<script>"), "an inline script in the page");
    let (missing, _, _) = gateway.https("/no-such-page.js", &[]);
    assert_eq!(missing, 404);
}
