use super::*;

const TID: &str = "000102030405060708090a0b";

#[test]
fn first_allocate_gets_exactly_a_challenge() {
    let mut rig = Rig::new();
    let request = hex(&format!("000300082112a442{TID}0019000411000000"));
    let reply = rig.ask(&request);
    let nonce = rig.relay.nonces.mint(rig.now.unix, rig.tuple.client.expose());
    let mut expected = hex(&format!("011300402112a442{TID}0009000400000401 00140008"));
    expected.extend(REALM.bytes());
    expected.extend(hex("0015001c"));
    expected.extend(nonce);
    expected.extend(hex("80020008 00020000 00010000"));
    assert_eq!(reply, expected);
    assert_eq!((rig.allocations(), rig.count(Id::RelayAuthMissing)), (0, 1));
}

#[test]
fn challenge_is_a_hundred_bytes_with_a_realm_of_24_and_never_more_than_116() {
    for (realm, bytes) in [(24, 100), (MAX_REALM, 116)] {
        let mut rig = Rig::with(Config { realm: "r".repeat(realm), ..config() });
        let request = hex(&format!("000300082112a442{TID}0019000411000000"));
        assert_eq!(rig.ask(&request).len(), bytes);
    }
    let too_long = Config { realm: "r".repeat(MAX_REALM + 1), ..config() };
    let nonces = NonceKeys::new([1; 32], None);
    let rng = StdRng::seed_from_u64(1);
    let refused = Relay::new(too_long, Arc::new(keys()), nonces, rng, ShardId(0)).err();
    assert_eq!(refused, Some(ConfigError::Realm));
}

#[test]
fn bare_allocate_is_dropped() {
    let mut rig = Rig::new();
    assert_eq!(rig.send(&hex(&format!("000300002112a442{TID}"))), Handled::Dropped);
    assert_eq!(rig.count(Id::RelayDropMalformed), 1);
}

#[test]
fn binding_is_not_served() {
    let mut rig = Rig::new();
    assert_eq!(rig.send(&hex(&format!("000100002112a442{TID}"))), Handled::Dropped);
    assert_eq!(rig.count(Id::RelayDropBinding), 1);
}

#[test]
fn whole_dialogue_ends_in_an_allocation() {
    let mut rig = Rig::new();
    let handle = rig.allocate();
    assert_eq!((rig.count(Id::RelayAllocations), rig.count(Id::RelayAllocationsCreated)), (1, 1));
    let owner = rig.relay.owner(handle).unwrap();
    assert_eq!(owner.subject, crate::ids::SubjectHash::of("user-42"));
    assert_eq!(owner.room, Some(RoomHash::of("lobby")));
}

#[test]
fn random_or_foreign_nonce_gets_438_with_a_good_one() {
    let mut rig = Rig::new();
    rig.challenge();
    let own = rig.nonce.clone();
    let foreign = rig.relay.nonces.mint(rig.now.unix, addr("198.51.100.7:5001")).to_vec();
    for nonce in [b"AAAAAAAAAAAAAAAAAAAAAA".to_vec(), b"x".to_vec(), Vec::new(), foreign] {
        rig.nonce = nonce;
        let request = rig.signed(Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, UDP)]);
        let reply = rig.ask(&request);
        let reply = Message::parse(&reply).unwrap();
        assert_eq!(reply.error_code(), Some(438));
        assert_eq!(reply.first(attr::NONCE), Some(&own[..]));
        assert_eq!(reply.text(attr::REALM), Some(REALM));
    }
    assert_eq!((rig.allocations(), rig.count(Id::RelayAuthStaleNonce)), (0, 4));
    rig.nonce = own;
    rig.allocate();
}

#[test]
fn fresh_nonce_never_gets_438_and_a_stale_one_does() {
    let mut rig = Rig::allocated();
    for _ in 0..6 {
        rig.wait(secs(600 - 1));
        assert_eq!(rig.refresh(600), Ok(()), "the nonce of the first 401 serves for an hour");
    }
    let key = NonceKey::new([2; 32]);
    rig.relay.rotate_nonces(rig.now.mono, &key, &mut rig.counters);
    assert_eq!(rig.refresh(600), Ok(()), "the previous key is honoured");
    rig.wait(secs(300));
    assert_eq!(rig.refresh(600), Err(438));
    rig.challenge();
    assert_eq!(rig.refresh(600), Ok(()));
}

#[test]
fn rotating_the_nonce_key_never_refuses_a_fresh_nonce() {
    let mut rig = Rig::new();
    rig.user = mint("user-42", 100_000, 200_000);
    rig.challenge();
    let mut ages = Vec::new();
    // Every nonce is shown at the last moment of its hour, whatever moment it was made at.
    for minute in 0..600_u64 {
        if minute % 10 == 0 {
            let key = NonceKey::new([minute as u8; 32]);
            rig.relay.rotate_nonces(rig.now.mono, &key, &mut rig.counters);
        }
        ages.push(rig.relay.nonces.mint(rig.now.unix, rig.tuple.client.expose()).to_vec());
        if let Some(old) = minute.checked_sub(60) {
            rig.nonce.clone_from(&ages[old as usize]);
            assert_ne!(rig.refresh(600), Err(438), "minute {minute}");
        }
        rig.advance(secs(60));
    }
    // Asked sixty times, one in six was taken: hourly.
    assert_eq!(rig.count(Id::RelayNonceKeys), 10);
    assert_eq!(rig.count(Id::RelayAuthStaleNonce), 0);
    rig.nonce.clone_from(&ages[0]);
    assert_eq!(rig.refresh(600), Err(438), "nor does an old one live on");
    assert!(!format!("{:?}", NonceKey::new([7; 32])).contains('7'));
}

#[test]
fn wrong_password_gets_401_and_no_state() {
    let mut rig = Rig::new();
    rig.user.credential.push('x');
    let refused = rig.request(Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, UDP)]);
    assert_eq!(refused, Err(401));
    assert_eq!((rig.allocations(), rig.count(Id::RelayAuthBadIntegrity)), (0, 1));
}

#[test]
fn missing_credential_attributes_get_400() {
    let mut rig = Rig::new();
    rig.challenge();
    let (user, nonce, key) = (rig.user.username.clone(), rig.nonce.clone(), rig.key());
    for missing in [attr::USERNAME, attr::REALM, attr::NONCE] {
        let request = message(Method::ALLOCATE, TransactionId([1; 12]), |builder| {
            builder.attribute(attr::REQUESTED_TRANSPORT, UDP);
            for (kind, value) in [
                (attr::USERNAME, user.as_bytes()),
                (attr::REALM, REALM.as_bytes()),
                (attr::NONCE, &nonce),
            ] {
                if kind != missing {
                    builder.attribute(kind, value);
                }
            }
            builder.integrity(&key);
        });
        let reply = rig.ask(&request);
        assert_eq!(Message::parse(&reply).unwrap().error_code(), Some(400), "{missing:#x}");
    }
    assert_eq!(rig.allocations(), 0);
}

#[test]
fn names_that_are_no_credentials_get_401() {
    let good = mint("user-42", 600, 43_200).username;
    let blob = good.split_once(':').unwrap().1.to_owned();
    for (name, counter) in [
        (String::new(), Id::RelayAuthMalformed),
        ("alice".to_owned(), Id::RelayAuthMalformed),
        (format!("9223372036854775808:{blob}"), Id::RelayAuthForged),
        (format!("99999999999999999999:{blob}"), Id::RelayAuthMalformed),
        (format!("-1:{blob}"), Id::RelayAuthMalformed),
        (format!(":{blob}"), Id::RelayAuthMalformed),
        (format!("1780999999:{blob}"), Id::RelayAuthForged),
        (good.replace(":k1.", ":k9."), Id::RelayAuthUnknownKey),
    ] {
        let mut rig = Rig::new();
        rig.user.username = name.clone();
        let refused = rig.request(Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, UDP)]);
        assert_eq!((refused, rig.allocations(), rig.count(counter)), (Err(401), 0, 1), "{name}");
    }
}

#[test]
fn name_that_is_not_utf8_gets_401() {
    let mut rig = Rig::new();
    rig.challenge();
    let (nonce, key) = (rig.nonce.clone(), rig.key());
    let request = message(Method::REFRESH, TransactionId([1; 12]), |builder| {
        builder.attribute(attr::USERNAME, &[0xff, 0xfe]);
        builder.text(attr::REALM, REALM);
        builder.attribute(attr::NONCE, &nonce);
        builder.integrity(&key);
    });
    let reply = rig.ask(&request);
    assert_eq!(Message::parse(&reply).unwrap().error_code(), Some(401));
}

#[test]
fn other_users_valid_credential_gets_441() {
    let mut rig = Rig::connected(None);
    rig.user = mint("mallory", 600, 43_200);
    assert_eq!(rig.refresh(0), Err(441));
    assert_eq!(rig.permit(media()), Err(441));
    assert_eq!(rig.bind(0x4000, media()), Err(441));
    let allocate = rig.request(Method::ALLOCATE, &[(attr::REQUESTED_TRANSPORT, UDP)]);
    assert_eq!(allocate, Err(437), "the 5-tuple is in use, whoever asks");
    assert_eq!((rig.allocations(), rig.count(Id::RelayAuthWrongUser)), (1, 3));
    rig.user = mint("user-42", 601, 43_200);
    assert_eq!(rig.refresh(600), Err(441), "the same subject's next credential is another name");
    rig.user = mint("user-42", 600, 43_200);
    assert_eq!(rig.refresh(600), Ok(()));
}

#[test]
fn attributes_after_integrity_are_ignored() {
    let mut rig = Rig::allocated();
    let mut request = rig.signed(Method::REFRESH, &[(attr::LIFETIME, &600_u32.to_be_bytes())]);
    request.extend(hex("000d000400000000"));
    let length = (request.len() - 20) as u16;
    request[2..4].copy_from_slice(&length.to_be_bytes());
    rig.ask(&request);
    assert_eq!((rig.allocations(), rig.lifetime()), (1, Some(600)));

    let tid = TransactionId([rig.tid + 1; 12]);
    let mut request = rig.signed(Method::CREATE_PERMISSION, &[]);
    request.extend(hex("00120008"));
    request.extend(xor(media(), tid));
    let length = (request.len() - 20) as u16;
    request[2..4].copy_from_slice(&length.to_be_bytes());
    let reply = rig.ask(&request);
    assert_eq!(Message::parse(&reply).unwrap().error_code(), Some(400), "no peer was seen");
    assert_eq!(rig.count(Id::RelayPermissions), 0);
}

#[test]
fn first_of_duplicate_attributes_wins() {
    let mut rig = Rig::allocated();
    let (first, second) = (900_u32.to_be_bytes(), 0_u32.to_be_bytes());
    let twice = [(attr::LIFETIME, &first[..]), (attr::LIFETIME, &second[..])];
    assert_eq!(rig.request(Method::REFRESH, &twice), Ok(()));
    assert_eq!((rig.allocations(), rig.lifetime()), (1, Some(900)));
}

#[test]
fn unknown_required_attributes_get_420_only_after_authentication() {
    let attributes: [(u16, &[u8]); 4] =
        [(attr::REQUESTED_TRANSPORT, UDP), (0x7f01, &[1]), (0x002a, &[0; 4]), (0xff05, &[0; 4])];
    let mut rig = Rig::new();
    let unsigned = message(Method::ALLOCATE, TransactionId([1; 12]), |builder| {
        for (kind, value) in attributes {
            builder.attribute(kind, value);
        }
    });
    let reply = rig.ask(&unsigned);
    assert_eq!(Message::parse(&reply).unwrap().error_code(), Some(401));

    assert_eq!(rig.request(Method::ALLOCATE, &attributes), Err(420));
    let len = 20 + usize::from(u16::from_be_bytes([rig.reply[2], rig.reply[3]]));
    let reply = Message::parse(&rig.reply[..len]).unwrap();
    assert_eq!(reply.first(attr::UNKNOWN_ATTRIBUTES), Some(&[0x7f, 0x01, 0x00, 0x2a][..]));
    assert_eq!((rig.allocations(), rig.count(Id::RelayRefusedUnknownAttribute)), (0, 1));
}

#[test]
fn wrong_fingerprint_is_ignored_and_a_right_one_is_not() {
    let mut rig = Rig::new();
    let mut request = message(Method::ALLOCATE, TransactionId([1; 12]), |builder| {
        builder.attribute(attr::REQUESTED_TRANSPORT, UDP);
        builder.fingerprint();
    });
    rig.ask(&request);
    *request.last_mut().unwrap() ^= 1;
    assert_eq!(rig.send(&request), Handled::Dropped);
}

#[test]
fn flood_of_spoofed_allocates_leaves_nothing_behind_and_is_capped() {
    let mut config = config();
    config.limits.unauthenticated_replies = 64;
    let mut rig = Rig::with(config);
    let request = hex(&format!("000300082112a442{TID}0019000411000000"));
    let mut answered = 0;
    for i in 0..20_000_u32 {
        let [_, _, a, b] = i.to_be_bytes();
        rig.tuple = tuple(&format!("198.51.100.7:{}", 1024 + u16::from_be_bytes([a, b])));
        answered += u32::from(rig.send(&request) != Handled::Dropped);
    }
    assert!((2_200..2_900).contains(&answered), "64 and one in eight: {answered}");
    assert_eq!((rig.allocations(), rig.relay.timers.len()), (0, 0));
    assert_eq!(rig.count(Id::RelayDropReplyCap) + u64::from(answered), 20_000);
}

#[test]
fn authenticated_clients_are_not_capped() {
    let mut config = config();
    config.limits.unauthenticated_replies = 1;
    let mut rig = Rig::with(config);
    rig.allocate();
    for _ in 0..1000 {
        assert_eq!(rig.refresh(600), Ok(()));
    }
}

#[test]
fn impossible_sources_are_dropped() {
    let mut rig = Rig::new();
    let request = hex(&format!("000300082112a442{TID}0019000411000000"));
    let sources =
        ["198.51.100.7:0", "224.0.0.1:9", "255.255.255.255:9", "0.0.0.0:9", "[ff02::1]:9", MEDIA];
    for source in sources {
        rig.tuple = tuple(source);
        assert_eq!(rig.send(&request), Handled::Dropped, "{source}");
    }
    assert_eq!(rig.count(Id::RelayDropBadSource), sources.len() as u64);
}

#[test]
fn responses_foreign_methods_and_noise_are_dropped() {
    let mut rig = Rig::allocated();
    let tid = TransactionId([1; 12]);
    for (class, method) in [
        (Class::Success, Method::ALLOCATE),
        (Class::Error, Method::REFRESH),
        (Class::Indication, Method::DATA),
        (Class::Indication, Method::ALLOCATE),
        (Class::Request, Method::SEND),
        (Class::Request, Method(0x00a)),
    ] {
        assert_eq!(rig.send(&build(class, method, tid, |_| ())), Handled::Dropped);
    }
    assert_eq!(rig.send(b"GET / HTTP/1.1"), Handled::Dropped, "its G could begin ChannelData");
    assert_eq!(rig.count(Id::RelayDropMalformed), 7);
    for noise in [&b""[..], b"*1\r\n", &[0x16, 3, 1], &[0x80, 96]] {
        assert_eq!(rig.send(noise), Handled::Dropped);
    }
    assert_eq!(rig.count(Id::RelayDropNotTurn), 4);
}

#[test]
fn reply_buffer_that_is_too_small_means_no_reply() {
    let mut rig = Rig::new();
    rig.reply.truncate(40);
    let request = hex(&format!("000300082112a442{TID}0019000411000000"));
    assert_eq!(rig.send(&request), Handled::Dropped);
}
