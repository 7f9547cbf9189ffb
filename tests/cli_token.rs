//! `veilgate token` mints tokens that the gateway's keys verify, and explains them.

mod cli_support;

use cli_support::Home;
use veilgate::app::{dev, keys};
use veilgate::auth::token::TokenKeys;

#[test]
fn plain_output_is_the_token_alone() {
    let (home, info) = Home::after_dev();
    let args = ["token", "mint", "--publish", "lobby/cam1", "--play", "lobby/*", "--ttl", "1h"];
    let ran = home.run(&args).expect(0);
    assert_eq!(ran.stderr, "");
    let token = ran.stdout.strip_suffix('\n').unwrap();
    assert!(!token.contains(char::is_whitespace));

    let ring = keys::read(&dev::token_keys(&info.state_dir)).unwrap();
    let claims = TokenKeys::new(ring.keys).unwrap().inspect(token).unwrap();
    assert_eq!((claims.publish, claims.play), (vec!["lobby/cam1".into()], vec!["lobby/*".into()]));
    assert_eq!(claims.exp - claims.iat, 3600);
    assert_eq!(claims.sub, claims.jti, "without a subject the token is its own");
}

#[test]
fn json_output_names_the_token_and_what_it_allows() {
    let (home, _) = Home::after_dev();
    let args =
        ["token", "mint", "--play", "a/x,b/*", "--subject", "user-42", "--ttl", "90s", "--json"];
    let minted = home.run(&args).expect(0).json();
    assert_eq!(minted["subject"], "user-42");
    assert_eq!(minted["play"], serde_json::json!(["a/x", "b/*"]));
    assert_eq!(minted["publish"], serde_json::json!([]));
    assert_eq!(minted["ttl"], 90);
    let token = minted["token"].as_str().unwrap();
    let ran = home.run_with_stdin(&["token", "verify", "--json"], token).expect(0);
    assert_eq!(ran.json()["valid"], true);
    assert_eq!(ran.json()["claims"]["jti"], minted["jti"]);
}

#[test]
fn grants_of_rooms_are_off_unless_asked_for() {
    let (home, _) = Home::after_dev();
    let plain = ["token", "mint", "--play", "lobby/*", "--json"];
    let minted = home.run(&plain).expect(0).json();
    assert_eq!((&minted["chat"], &minted["admin"]), (&false.into(), &false.into()));
    let minted =
        home.run(&[&plain[..], &["--chat", "--data", "--admin"]].concat()).expect(0).json();
    let token = minted["token"].as_str().unwrap();
    let ran = home.run_with_stdin(&["token", "verify"], token).expect(0);
    assert!(ran.stdout.contains("rooms    chat, data, admin\n"), "{}", ran.stdout);
}

#[test]
fn token_is_explained_claim_by_claim() {
    let (home, _) = Home::after_dev();
    let token =
        home.run(&["token", "mint", "--play", "lobby/*", "--subject", "u"]).expect(0).stdout;
    let ran = home.run_with_stdin(&["token", "verify"], &token).expect(0);
    for line in [
        "valid\n",
        "sub      u\n",
        "play     lobby/*\n",
        "publish  nothing\n",
        "rooms    no chat",
        "(in ",
    ] {
        assert!(ran.stdout.contains(line), "{line} in {}", ran.stdout);
    }
}

#[test]
fn bad_tokens_are_told_apart() {
    let (home, _) = Home::after_dev();
    let token = home.run(&["token", "mint", "--play", "lobby/*"]).expect(0).stdout;
    let (message, _) = token.trim().rsplit_once('.').unwrap();
    let unsigned = format!("{message}.");
    let code = |token: &str| {
        let ran = home.run_with_stdin(&["token", "verify", "--json"], token).expect(1);
        ran.json()["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code("not a token"), "token_malformed");
    assert_eq!(code(""), "token_malformed");
    assert_eq!(code(&unsigned), "token_bad_signature");
    assert_eq!(code(&"x".repeat(10_000)), "token_too_large");
    let other = Home::configured();
    let args = ["token", "verify", "--json", "--config", "veilgate.yaml"];
    let ran = other.run_with_stdin(&args, &token).expect(1);
    assert_eq!(ran.json()["code"], "token_unknown_key");
}

#[test]
fn requests_that_allow_nothing_or_nonsense_are_misuse() {
    let (home, _) = Home::after_dev();
    for (args, word) in [
        (&["token", "mint"][..], "would allow nothing"),
        (&["token", "mint", "--play", "lobby"], "neither room/stream nor room/*"),
        (&["token", "mint", "--play", "*"], "neither room/stream nor room/*"),
        (&["token", "mint", "--play", "a/b", "--ttl", "10"], "not a span of time"),
        (&["token", "mint", "--play", "a/b", "--ttl", "0s"], "at least one second"),
    ] {
        let ran = home.run(args).expect(2);
        assert!(ran.stderr.contains(word), "{word} in {}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}
