//! The corpora of the fuzzers (`tests/fuzz`), replayed: every input that ever reached something new,
//! or found a bug. Each target asserts what must hold by itself; here it is shown that the inputs
//! still reach what they are kept for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use veilgate::{relay, wire};

/// Every file of a corpus.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("readable").path())
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("readable"))
        })
        .collect();
    files.sort();
    assert!(files.len() > 20, "only {} inputs in {}", files.len(), folder.display());
    files
}

/// Runs one input; a failure names its file.
fn replay<T>(name: &str, run: impl FnOnce() -> T) -> T {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    outcome.unwrap_or_else(|_| panic!("the input {name} shows a bug, see above"))
}

#[test]
fn datagrams_of_the_corpus_are_read_without_harm() {
    let all: Vec<_> = corpus("datagram")
        .into_iter()
        .map(|(name, bytes)| replay(&name, || wire::fuzz::datagram(&bytes)))
        .collect();
    assert!(all.iter().filter(|parsed| parsed.stun && parsed.signed).count() > 10);
    assert!(all.iter().any(|parsed| parsed.stun && parsed.address));
    assert!(all.iter().any(|parsed| parsed.stun && parsed.malformed));
    assert!(all.iter().any(|parsed| parsed.fingerprint == Some(false)));
    assert!(all.iter().any(|parsed| parsed.channel_data));
    assert!(all.iter().any(|parsed| !parsed.stun && !parsed.channel_data), "and noise");
}

#[test]
fn streams_of_the_corpus_are_cut_alike_in_any_pieces() {
    let all: Vec<_> = corpus("stream")
        .into_iter()
        .map(|(name, bytes)| replay(&name, || wire::fuzz::stream(&bytes)))
        .collect();
    assert!(all.iter().any(|cut| cut.stun > 1 && cut.channel_data > 1));
    assert!(all.iter().any(|cut| cut.lied && cut.stun + cut.channel_data > 0));
    assert!(all.iter().any(|cut| cut.unfinished));
    assert!(all.iter().any(|cut| cut.lied && cut.stun + cut.channel_data == 0));
}

#[test]
fn programs_of_the_corpus_keep_every_invariant_of_the_relay() {
    let mut accepted = BTreeSet::new();
    let mut refused = BTreeSet::new();
    let mut all = Vec::new();
    for (name, bytes) in corpus("relay") {
        let reached = replay(&name, || relay::fuzz::program(&bytes));
        accepted.extend(reached.accepted.iter().copied());
        refused.extend(reached.refused.iter().copied());
        all.push(reached);
    }
    // Allocate, Refresh, CreatePermission, ChannelBind; every code an authenticated client meets.
    assert_eq!(accepted, BTreeSet::from([3, 4, 8, 9]));
    let codes = [300, 400, 401, 403, 420, 437, 440, 441, 442, 443, 486, 508];
    assert_eq!(refused, BTreeSet::from(codes));
    for way in 0..2 {
        assert!(all.iter().any(|reached| reached.to_forwarder[way] > 0), "to the forwarder, {way}");
    }
    assert!(all.iter().any(|reached| reached.to_echo > 0));
    assert!(all.iter().any(|reached| reached.to_client > 0));
    assert!(all.iter().any(|reached| reached.from_forwarder > 0));
    for why in 0..3 {
        assert!(all.iter().any(|reached| reached.ended[why] > 0), "ended, {why}");
    }
}
