//! What a good call looks like, said once.

use serde_json::Value;

use super::{GATEWAY, MEDIA_PORT};

fn at(sample: &Value, field: &str) -> f64 {
    sample[field].as_f64().unwrap_or_else(|| panic!("no {field} in {sample:#}"))
}

/// A browser saw and heard: frames kept coming, the picture was lit and moved, audio arrived.
pub fn watched(player: &Value, seconds: f64) {
    let samples = player["samples"].as_array().expect("samples");
    let (first, last) = (&samples[0], &player["last"]);
    let frames = at(last, "framesDecoded") - at(first, "framesDecoded");
    assert!(frames >= 3.0 * seconds, "only {frames} frames in {seconds} s: {player:#}");
    // Growing all along, not a burst at the start: each third of the time has its frames.
    let third = samples.len() / 3;
    for part in [(0, third), (third, 2 * third), (2 * third, samples.len() - 1)] {
        let (from, to) = (&samples[part.0], &samples[part.1]);
        assert!(
            at(to, "framesDecoded") > at(from, "framesDecoded"),
            "no new frame between sample {} and {}: {player:#}",
            part.0,
            part.1
        );
    }
    let brightest = samples.iter().map(|s| at(s, "brightness")).fold(0.0, f64::max);
    assert!(brightest > 10.0, "the picture is black: {player:#}");
    let mut pictures: Vec<&str> = samples.iter().filter_map(|s| s["picture"].as_str()).collect();
    pictures.sort_unstable();
    pictures.dedup();
    assert!(pictures.len() >= 3, "the picture does not move: {player:#}");
    let audio = at(last, "audioPackets") - at(first, "audioPackets");
    assert!(audio >= 25.0 * seconds, "only {audio} audio packets in {seconds} s: {player:#}");
    if let Some(energy) = last["audioEnergy"].as_f64() {
        assert!(energy > 0.0, "silence: {player:#}");
    }
}

/// Every candidate of ours is relayed, and the media address is all we know of the other side.
pub fn relayed_only(who: &Value) {
    relayed_only_to(who, &[GATEWAY.to_string()]);
}

/// As [`relayed_only`], where the gateway has other media addresses.
pub fn relayed_only_to(who: &Value, media: &[String]) {
    let last = &who["last"];
    let local = last["local"].as_array().expect("local candidates");
    assert!(!local.is_empty(), "no local candidate: {last:#}");
    for candidate in local {
        assert_eq!(candidate["type"], "relay", "{last:#}");
    }
    let remote = last["remote"].as_array().expect("remote candidates");
    assert!(!remote.is_empty(), "no remote candidate: {last:#}");
    for candidate in remote {
        let address = candidate["address"].as_str().expect("an address");
        assert!(media.iter().any(|media| media == address), "{last:#}");
        assert_eq!(candidate["port"], MEDIA_PORT, "{last:#}");
        assert_eq!(candidate["type"], "host", "{last:#}");
    }
}

/// The path in use goes to the relay over `transport`: udp, tcp or tls.
pub fn relayed_over(who: &Value, transport: &str) {
    let last = &who["last"];
    assert_eq!(last["selected"]["local"]["relayProtocol"], transport, "{last:#}");
}

/// DTLS 1.3 and an AEAD SRTP profile, as the browser reports them.
pub fn modern_crypto(who: &Value) {
    let last = &who["last"];
    let version = last["tlsVersion"].as_str().unwrap_or_default();
    assert_eq!(version.to_ascii_uppercase(), "FEFC", "DTLS 1.3 is FEFC: {last:#}");
    let profile = last["srtpCipher"].as_str().unwrap_or_default();
    assert!(profile.contains("AEAD_AES_128_GCM"), "{last:#}");
    let cipher = last["dtlsCipher"].as_str().unwrap_or_default();
    assert!(cipher.starts_with("TLS_AES_") || cipher.starts_with("TLS_CHACHA20_"), "{last:#}");
}

/// All of a result's players (or publishers) of a kind.
pub fn all<'r>(result: &'r Value, role: &str) -> &'r [Value] {
    result[role].as_array().unwrap_or_else(|| panic!("no {role} in {result:#}"))
}

/// What aiortc as a player decoded: pictures that move, and sound.
pub fn decoded(seen: &Value, seconds: f64) {
    let number = |field: &str| seen[field].as_f64().unwrap_or_else(|| panic!("{field}: {seen:#}"));
    assert!(number("framesWhileWatching") >= 3.0 * seconds, "{seen:#}");
    assert!(number("audioFrames") >= 25.0 * seconds, "{seen:#}");
    assert!(number("pictures") >= 3.0, "the picture does not move: {seen:#}");
    assert!(number("brightness") > 10.0, "the picture is black: {seen:#}");
}

/// For clients without candidate statistics: their own candidates and our answer tell.
pub fn relayed(seen: &Value) {
    let candidates = seen["candidates"].as_array().expect("candidates");
    assert!(!candidates.is_empty(), "{seen:#}");
    for line in candidates {
        assert!(line.as_str().is_some_and(|l| l.contains("typ relay")), "{seen:#}");
    }
    let answer = seen["answer"].as_str().expect("answer");
    let mut ours = answer.lines().filter(|line| line.starts_with("a=candidate")).peekable();
    assert!(ours.peek().is_some(), "{answer}");
    let media = format!(" {GATEWAY} {MEDIA_PORT} typ host");
    assert!(ours.all(|line| line.contains(&media)), "{answer}");
}
