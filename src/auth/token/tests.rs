use aws_lc_rs::hmac;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: Unix = Unix::from_secs(1_780_000_000);
const SECRET: [u8; 32] = [7; 32];

fn keys() -> TokenKeys {
    TokenKeys::new(vec![Key { id: "k1".to_owned(), secret: SECRET.to_vec() }]).unwrap()
}

fn request() -> TokenRequest {
    TokenRequest {
        subject: Some("user-42".to_owned()),
        publish: vec!["lobby/cam1".to_owned()],
        play: vec!["lobby/*".to_owned()],
        ttl: Duration::from_secs(3600),
        ..TokenRequest::default()
    }
}

fn claims() -> serde_json::Value {
    json!({"sub": "user-42", "jti": "j1", "iat": 1_780_000_000u64, "exp": 1_780_003_600u64,
           "publish": ["lobby/cam1"], "play": ["lobby/*"]})
}

/// Signs any header and claims with HMAC-SHA256, sound or not.
fn sign(header: &str, claims: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

fn signed(claims: &serde_json::Value) -> String {
    sign(r#"{"alg":"HS256","typ":"JWT","kid":"k1"}"#, &claims.to_string(), &SECRET)
}

fn name(text: &str) -> StreamName {
    text.parse().unwrap()
}

#[test]
fn minted_token_grants_what_was_asked() {
    let token = keys().mint(NOW, &request(), "j1").unwrap();
    let grant = keys().verify(NOW, &token).unwrap();
    assert_eq!((grant.subject.as_str(), grant.jti.as_str()), ("user-42", "j1"));
    assert_eq!(grant.expires, Unix::from_secs(1_780_003_600));
    assert!(grant.may_publish(&name("lobby/cam1")) && !grant.may_publish(&name("lobby/cam2")));
    assert!(grant.may_play(&name("lobby/cam2")) && !grant.may_play(&name("lobby2/cam2")));
    assert_eq!(grant.room(), Some("lobby"));
}

#[test]
fn chat_data_and_admin_are_off_unless_granted() {
    let grants = |request: &TokenRequest| {
        let grant = keys().verify(NOW, &keys().mint(NOW, request, "j1").unwrap()).unwrap();
        (grant.chat, grant.data, grant.admin)
    };
    assert_eq!(grants(&request()), (false, false, false));
    let some = TokenRequest { chat: true, admin: true, ..request() };
    assert_eq!(grants(&some), (true, false, true));
    let mut wrong = claims();
    wrong["admin"] = json!("yes");
    let refused = keys().verify(NOW, &signed(&wrong)).unwrap_err();
    assert_eq!(refused, TokenError::BadClaims("a claim has a wrong type"));
}

#[test]
fn room_is_entered_with_anything_to_do_there() {
    let grant = keys().verify(NOW, &keys().mint(NOW, &request(), "j1").unwrap()).unwrap();
    assert!(grant.may_enter("lobby") && !grant.may_enter("lobby2"));
}

#[test]
fn room_is_told_only_when_all_patterns_share_it() {
    let both = TokenRequest { play: vec!["other/*".to_owned()], ..request() };
    let token = keys().mint(NOW, &both, "j1").unwrap();
    assert_eq!(keys().verify(NOW, &token).unwrap().room(), None);
}

#[test]
fn token_without_subject_is_its_own_subject() {
    let token = keys().mint(NOW, &TokenRequest { subject: None, ..request() }, "j1").unwrap();
    assert_eq!(keys().verify(NOW, &token).unwrap().subject, "j1");
}

#[test]
fn token_of_another_maker_is_read() {
    let keys = keys();
    assert!(keys.verify(NOW, &signed(&claims())).is_ok());
    let mut fractional = claims();
    fractional["exp"] = json!(1_780_003_600.75);
    fractional["aud"] = json!(["other", AUDIENCE]);
    fractional["unknown"] = json!({"ignored": true});
    assert!(keys.verify(NOW, &signed(&fractional)).is_ok());
}

#[test]
fn unsigned_and_foreign_algorithms_are_refused() {
    let body = claims().to_string();
    for algorithm in ["none", "None", "HS384", "HS512", "RS256", "ES256", "hs256", ""] {
        let header = json!({"alg": algorithm, "kid": "k1"}).to_string();
        let token = sign(&header, &body, &SECRET);
        assert_eq!(keys().verify(NOW, &token), Err(TokenError::WrongAlgorithm), "{algorithm}");
    }
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"k1"}"#);
    let bare = format!("{header}.{}.", URL_SAFE_NO_PAD.encode(body));
    assert_eq!(keys().verify(NOW, &bare), Err(TokenError::WrongAlgorithm));
}

#[test]
fn key_must_be_named_and_known_and_right() {
    let body = claims().to_string();
    let nameless = sign(r#"{"alg":"HS256"}"#, &body, &SECRET);
    assert_eq!(keys().verify(NOW, &nameless), Err(TokenError::NoKeyId));
    let unknown = sign(r#"{"alg":"HS256","kid":"k2"}"#, &body, &SECRET);
    assert_eq!(keys().verify(NOW, &unknown), Err(TokenError::UnknownKey));
    let forged = sign(r#"{"alg":"HS256","kid":"k1"}"#, &body, &[8; 32]);
    assert_eq!(keys().verify(NOW, &forged), Err(TokenError::BadSignature));
    let stripped = format!("{}.", signed(&claims()).rsplit_once('.').unwrap().0);
    assert_eq!(keys().verify(NOW, &stripped), Err(TokenError::BadSignature));
}

#[test]
fn headers_that_ask_for_more_are_refused() {
    let body = claims().to_string();
    for header in [
        r#"{"alg":"HS256","kid":"k1","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","alg":"none","kid":"k1"}"#,
        r#"{"alg":"HS256","kid":7}"#,
        r#"{"kid":"k1"}"#,
        r#"{"alg":"HS256","kid":"k1","typ":7}"#,
        "[]",
        "",
    ] {
        let token = sign(header, &body, &SECRET);
        assert_eq!(keys().verify(NOW, &token), Err(TokenError::Malformed), "{header}");
    }
}

#[test]
fn times_are_those_of_the_given_clock_with_a_minute_of_leeway() {
    let keys = keys();
    let token = keys.mint(NOW, &request(), "j1").unwrap();
    let at = |offset: i64| Unix::from_secs(NOW.as_secs().saturating_add_signed(offset));
    assert!(keys.verify(at(3659), &token).is_ok());
    assert_eq!(keys.verify(at(3660), &token), Err(TokenError::Expired));
    assert!(keys.verify(at(-60), &token).is_ok());
    assert_eq!(keys.verify(at(-61), &token), Err(TokenError::NotYetValid));
    let mut later = claims();
    later["nbf"] = json!(1_780_000_100u64);
    assert_eq!(keys.verify(NOW, &signed(&later)), Err(TokenError::NotYetValid));
    assert!(keys.verify(at(40), &signed(&later)).is_ok());
}

#[test]
fn other_audiences_are_refused() {
    for audience in [json!("other"), json!(["a", "b"])] {
        let mut claims = claims();
        claims["aud"] = audience;
        assert_eq!(keys().verify(NOW, &signed(&claims)), Err(TokenError::WrongAudience));
    }
}

#[test]
fn faulty_claims_are_refused_and_named() {
    let with = |key: &str, value: serde_json::Value| {
        let mut all = claims();
        all[key] = value;
        signed(&all)
    };
    for (token, word) in [
        (with("exp", json!("soon")), "type"),
        (with("exp", json!(-1)), "type"),
        (with("exp", json!(null)), "type"),
        (with("nbf", json!("x")), "type"),
        (with("sub", json!(7)), "type"),
        (with("sub", json!("")), "sub"),
        (with("sub", json!("x".repeat(257))), "sub"),
        (with("jti", json!("")), "jti"),
        (with("publish", json!("lobby/cam1")), "type"),
        (with("publish", json!(["*"])), "publish"),
        (with("play", json!(["*/*"])), "play"),
        (with("play", json!(["lobby/a*"])), "play"),
        (with("play", json!(vec!["lobby/*"; 65])), "play"),
    ] {
        match keys().verify(NOW, &token) {
            Err(TokenError::BadClaims(why)) => assert!(why.contains(word), "{why} / {word}"),
            other => panic!("{other:?} for {word}"),
        }
    }
    for missing in ["sub", "jti", "iat", "exp"] {
        let mut all = claims();
        all.as_object_mut().unwrap().remove(missing);
        match keys().verify(NOW, &signed(&all)) {
            Err(TokenError::BadClaims(why)) => assert_eq!(why, format!("{missing} is missing")),
            other => panic!("{other:?} without {missing}"),
        }
    }
    let nothing = json!({"sub": "a", "jti": "b", "iat": 1, "exp": 1_780_003_600u64});
    assert!(matches!(keys().verify(NOW, &signed(&nothing)), Err(TokenError::BadClaims(_))));
}

#[test]
fn doubled_claims_are_refused() {
    let text = claims().to_string();
    let doubled = format!(r#"{},"exp":9999999999}}"#, text.strip_suffix('}').unwrap());
    let token = sign(r#"{"alg":"HS256","kid":"k1"}"#, &doubled, &SECRET);
    assert_eq!(keys().verify(NOW, &token), Err(TokenError::BadClaims("a claim is given twice")));
}

#[test]
fn oversized_tokens_are_not_read() {
    assert_eq!(keys().verify(NOW, &"a".repeat(MAX_TOKEN + 1)), Err(TokenError::TooLarge));
}

#[test]
fn every_altered_byte_is_noticed() {
    let token = keys().mint(NOW, &request(), "j1").unwrap();
    for index in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[index] ^= 1;
        let altered = String::from_utf8(bytes).unwrap();
        assert!(keys().verify(NOW, &altered).is_err(), "{altered}");
    }
}

#[test]
fn rotated_key_still_verifies() {
    let old = keys().mint(NOW, &request(), "j1").unwrap();
    let ring = vec![
        Key { id: "k2".to_owned(), secret: vec![9; 32] },
        Key { id: "k1".to_owned(), secret: SECRET.to_vec() },
    ];
    let rotated = TokenKeys::new(ring).unwrap();
    assert!(rotated.verify(NOW, &old).is_ok());
    let new = rotated.mint(NOW, &request(), "j2").unwrap();
    assert_eq!(keys().verify(NOW, &new), Err(TokenError::UnknownKey));
}

#[test]
fn requests_that_could_not_be_verified_are_not_minted() {
    let refuse = |request: TokenRequest| keys().mint(NOW, &request, "j1").unwrap_err();
    let patterns = |pattern: &str| vec![pattern.to_owned()];
    assert!(matches!(
        refuse(TokenRequest { play: patterns("lobby"), ..request() }),
        MintError::Pattern { .. }
    ));
    let nothing = TokenRequest { publish: vec![], play: vec![], ..request() };
    assert_eq!(refuse(nothing), MintError::NoGrant);
    assert_eq!(refuse(TokenRequest { ttl: Duration::ZERO, ..request() }), MintError::NoLife);
    let many = vec!["lobby/*".to_owned(); 65];
    assert_eq!(refuse(TokenRequest { play: many, ..request() }), MintError::TooMany);
    let long = Some("x".repeat(257));
    assert_eq!(refuse(TokenRequest { subject: long, ..request() }), MintError::Length);
}

#[test]
fn codes_are_distinct() {
    let all = [
        TokenError::TooLarge,
        TokenError::Malformed,
        TokenError::WrongAlgorithm,
        TokenError::NoKeyId,
        TokenError::UnknownKey,
        TokenError::BadSignature,
        TokenError::BadClaims(""),
        TokenError::WrongAudience,
        TokenError::Expired,
        TokenError::NotYetValid,
    ];
    let codes: std::collections::HashSet<_> = all.iter().map(|error| error.code()).collect();
    assert_eq!(codes.len(), all.len());
}

#[test]
fn keys_never_print() {
    assert_eq!(format!("{:?}", keys()), "[\"k1\"]");
}

proptest! {
    #[test]
    fn no_text_panics(token in "\\PC{0,120}") {
        prop_assert!(keys().verify(NOW, &token).is_err());
    }

    #[test]
    fn no_claims_panic(claims in "\\PC{0,80}") {
        let token = sign(r#"{"alg":"HS256","kid":"k1"}"#, &claims, &SECRET);
        prop_assert!(keys().verify(NOW, &token).is_err());
    }
}
