//! Streams encrypted end to end: who has the key sees, nobody else does, and the gateway never
//! has it.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use common::Gateway;
use common::expect::{all, relayed_only, watched};
use common::tool::Tool;
use serde_json::{Value, json};

const SECONDS: u64 = 8;
const PAGE: u64 = 4096;

/// A key of the page's own form, of a test's own making.
fn key(seed: u8) -> [u8; 32] {
    std::array::from_fn(|i| seed.wrapping_mul(31).wrapping_add((i as u8).wrapping_mul(73)) ^ 0xA5)
}

/// Every form in which a secret might lie about.
fn forms(secret: &[u8]) -> BTreeMap<&'static str, Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    BTreeMap::from([
        ("binary", secret.to_vec()),
        ("base64", STANDARD.encode(secret).into_bytes()),
        ("base64url", URL_SAFE_NO_PAD.encode(secret).into_bytes()),
        ("hex", hex.clone().into_bytes()),
        ("HEX", hex.to_uppercase().into_bytes()),
    ])
}

/// Which of `needles` lie in the memory of a process, as far as it has any.
fn in_memory(pid: u32, needles: &BTreeMap<&'static str, Vec<u8>>) -> Vec<&'static str> {
    let file = |name: &str| fs::File::open(format!("/proc/{pid}/{name}")).expect("root may look");
    let (memory, present) = (file("mem"), file("pagemap"));
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its maps");
    let mut first = [false; 256];
    for needle in needles.values() {
        first[usize::from(needle[0])] = true;
    }
    let mut found = Vec::new();
    let mut look = |bytes: &[u8]| {
        for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| first[usize::from(**byte)]) {
            let here = &bytes[at..];
            found
                .extend(needles.iter().filter(|(_, n)| here.starts_with(n)).map(|(name, _)| *name));
        }
    };
    for line in maps.lines().filter(|line| !line.contains("[v")) {
        let (range, rest) = line.split_once(' ').expect("a range");
        if !rest.starts_with('r') {
            continue;
        }
        let (from, to) = range.split_once('-').expect("a range");
        let page = |text: &str| u64::from_str_radix(text, 16).expect("an address") / PAGE;
        let (from, to) = (page(from), page(to));
        let mut entries = vec![0; usize::try_from((to - from) * 8).expect("fits")];
        present.read_exact_at(&mut entries, from * 8).expect("a page's entry");
        // Pages that were never touched hold nothing; runs of others are read as one.
        let there: Vec<bool> = entries.chunks(8).map(|entry| entry[7] & 0xC0 != 0).collect();
        let mut at = 0;
        for run in there.chunk_by(|one, next| one == next) {
            if run[0] {
                let mut bytes = vec![0; run.len() * PAGE as usize];
                // A mapping may go while it is looked at.
                if memory.read_exact_at(&mut bytes, (from + at) * PAGE).is_ok() {
                    look(&bytes);
                }
            }
            at += run.len() as u64;
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn number(sample: &Value, field: &str) -> f64 {
    sample[field].as_f64().unwrap_or_else(|| panic!("no {field} in {sample:#}"))
}

/// Packets came in numbers, and not one picture was made of them.
fn saw_nothing(player: &Value) {
    let last = &player["last"];
    assert!(number(last, "videoPackets") > 100.0, "{last:#}");
    assert!(number(last, "audioPackets") > 100.0, "{last:#}");
    assert_eq!(number(last, "framesDecoded"), 0.0, "{last:#}");
    assert_eq!(number(last, "width"), 0.0, "a picture was shown: {last:#}");
    // Concealment makes silence: nothing was heard either.
    assert!(number(last, "audioEnergy") < 1e-6, "sound was made of it: {last:#}");
}

/// Browsers with the key, one with another key, one with none.
fn call(publisher: &str, with_key: &[&str], [with_another, without]: [&str; 2], codec: &str) {
    let _turn = common::alone();
    let gateway = Gateway::start(1);
    let (right, wrong) = (key(1), key(2));
    let text = |key: &[u8; 32]| URL_SAFE_NO_PAD.encode(key);
    let mut players: Vec<Value> =
        with_key.iter().map(|browser| json!({ "browser": browser, "key": text(&right) })).collect();
    players.push(json!({ "browser": with_another, "key": text(&wrong) }));
    players.push(json!({ "browser": without }));
    let plan = json!({
        "seconds": SECONDS,
        "token": gateway.token(),
        "name": "lobby/secret",
        "key": text(&right),
        "codec": codec,
        "publisher": publisher,
        "players": players,
    });
    let tool = Tool::node(&gateway, "e2ee.mjs", &plan);
    let flowing = tool.flowing();

    // Controls first: a process that has the key is caught, and what the gateway has is found.
    let own = in_memory(std::process::id(), &forms(&right));
    assert!(own.contains(&"binary") && own.contains(&"base64url"), "{own:?}");
    let ufrag = flowing["ufrags"][0].as_str().expect("an ICE user fragment").as_bytes().to_vec();
    let control = BTreeMap::from([("ufrag", ufrag)]);
    assert_eq!(in_memory(gateway.pid(), &control), ["ufrag"]);
    let none: [&str; 0] = [];
    assert_eq!(in_memory(gateway.pid(), &forms(&right)), none, "the gateway has the key");

    let result = tool.result();
    let players = all(&result, "players");
    let (seers, blind) = players.split_at(with_key.len());
    for player in seers {
        watched(player, SECONDS as f64);
        relayed_only(player);
        // In the middle of the call the publisher went on to the next key, and they followed.
        assert_eq!(player["currentKey"], result["rotated"], "the ratchet went along");
    }
    for player in blind {
        saw_nothing(player);
    }
    let told = blind[0]["undecryptable"].as_array().expect("a list");
    assert!(told.iter().any(|event| event["reason"] == "key"), "{told:?}");
    assert!(result["rotated"].as_str().is_some_and(|key| key.ends_with(".1")), "{result:#}");
    assert_ne!(result["rotated"], format!("{}.1", text(&right)), "a key of its own");
    assert_eq!(in_memory(gateway.pid(), &forms(&right)), none, "the gateway has the key");

    for control in ["withToken", "withOffer"] {
        assert!(number(&result["heard"], control) > 0.0, "requests are seen whole: {result:#}");
    }
    assert_eq!(result["heard"]["withKey"], json!([]), "a request carries the key");
    let codes =
        json!({"codec": "e2ee_codec", "key": "e2ee_key", "unsupported": "e2ee_unsupported"});
    assert_eq!(result["codes"], codes, "typed errors before anything is sent");
    assert!(!gateway.log().contains(&text(&right)), "the log has the key");
}

#[test]
fn encrypted_stream_plays_with_its_key_alone_and_the_gateway_never_has_it() {
    call("chromium", &["chromium", "firefox"], ["chromium", "firefox"], "vp8");
}

#[test]
fn encrypted_stream_of_firefox_plays_with_its_key_alone() {
    call("firefox", &["chromium"], ["firefox", "chromium"], "vp8");
}

#[test]
fn encrypted_vp9_plays_with_its_key_alone() {
    call("chromium", &["chromium"], ["chromium", "chromium"], "vp9");
}
