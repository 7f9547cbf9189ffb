//! The protocol's own traps, T1 to T24 of the abuse checklist, asked of the real binary; each over
//! every transport where it makes sense. `docs/relay.md` says which test shows which.

mod common;
mod turn_kit;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use common::{CLIENT, GATEWAY, Gateway, MEDIA_PORT, veilgate};
use turn_kit::message::{Reply, Writer, hex};
use turn_kit::{
    ALLOCATE, CHANNEL_BIND, CHANNEL_NUMBER, CREATE_PERMISSION, Client, LIFETIME, NONCE, PATIENCE,
    REALM, REFRESH, REQUESTED_TRANSPORT, TRANSPORTS, Transport, UDP, USERNAME, XOR_PEER_ADDRESS,
    XOR_RELAYED_ADDRESS, mint, tls,
};
use veilgate::auth::turn::Class;

const EVEN_PORT: u16 = 0x0018;
const RESERVATION_TOKEN: u16 = 0x0022;
const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const PASSWORD_ALGORITHM: u16 = 0x001d;
const PASSWORD_ALGORITHMS: u16 = 0x8002;
const BINDING: u16 = 0x001;

fn media() -> SocketAddr {
    (GATEWAY, MEDIA_PORT).into()
}

/// Both sides of what a probe says to itself.
fn echo() -> SocketAddr {
    (GATEWAY, MEDIA_PORT + 1).into()
}

/// An allocation, and a client that reaches the echo: it shows what a payload became.
fn prober(gateway: &Gateway, transport: Transport) -> Client {
    let minted = mint(gateway, &format!("probe {transport:?}"), Class::Probe, Duration::ZERO);
    let mut client = Client::with(gateway, transport, &minted.username, &minted.credential);
    client.allocate();
    assert_eq!(client.bind(0x4000, echo()), 0);
    client
}

fn transport(writer: Writer) -> Writer {
    writer.attribute(REQUESTED_TRANSPORT, &UDP)
}

/// T1.
#[test]
fn bare_allocate_and_binding_get_no_answer_at_all() {
    let gateway = Gateway::start(1);
    for wire in TRANSPORTS {
        let mut client = Client::new(&gateway, wire);
        for kind in [ALLOCATE, BINDING] {
            let request = Writer::new(kind, client.id()).done();
            assert_eq!(request.len(), 20);
            client.send(&request);
        }
        // What comes next is the answer to something else.
        let challenge = client.challenge();
        assert!(challenge.0.len() <= 100, "{}", challenge.0.len());
    }
}

/// T4.
#[test]
fn forged_integrity_and_foreign_nonces_get_exactly_their_code() {
    let gateway = Gateway::start(1);
    for wire in TRANSPORTS {
        let mut other = Client::new(&gateway, wire);
        other.challenge();
        let mut client = Client::new(&gateway, wire);
        client.challenge();
        let own = client.nonce.clone();
        let mut random = own.clone();
        random[13..].copy_from_slice(b"AAAAAAAAAAAAAAA");
        for (nonce, expected) in [(random, 438), (other.nonce.clone(), 438), (own.clone(), 401)] {
            client.nonce = nonce;
            let forged = Writer::new(ALLOCATE, client.id())
                .attribute(REQUESTED_TRANSPORT, &UDP)
                .attribute(USERNAME, client.username.as_bytes())
                .attribute(REALM, client.realm.as_bytes())
                .attribute(NONCE, &client.nonce)
                .integrity(b"nobody's key");
            let reply = client.exchange(&forged.done());
            assert_eq!(reply.code(), expected, "{wire:?}");
            assert_eq!(reply.first(NONCE), Some(own.clone()), "it learns a good one");
        }
        for missing in [USERNAME, REALM, NONCE] {
            let mut writer = Writer::new(ALLOCATE, client.id());
            writer = writer.attribute(REQUESTED_TRANSPORT, &UDP);
            let parts = [
                (USERNAME, client.username.as_bytes()),
                (REALM, client.realm.as_bytes()),
                (NONCE, own.as_slice()),
            ];
            for (kind, value) in parts.into_iter().filter(|(kind, _)| *kind != missing) {
                writer = writer.attribute(kind, value);
            }
            let request = writer.integrity(&client.key()).done();
            assert_eq!(client.exchange(&request).code(), 400, "{missing:x} is missing");
        }
        client.nonce = own;
        assert_eq!(client.ask(ALLOCATE, transport).code(), 0, "nothing of it was held against it");
    }
}

/// T5.
#[test]
fn attributes_appended_after_the_integrity_are_not_acted_on() {
    let gateway = Gateway::start(1);
    let denied = SocketAddr::from((CLIENT, 80));
    for wire in TRANSPORTS {
        let mut client = Client::allocated(&gateway, wire);
        for fingerprint in [false, true] {
            let close = |writer: Writer| if fingerprint { writer.fingerprint(0) } else { writer };
            let refresh = client.sign(Writer::new(REFRESH, client.id()));
            let refresh = close(refresh.attribute(LIFETIME, &[0; 4])).done();
            let reply = client.exchange(&refresh);
            assert_eq!(reply.code(), 0);
            assert!(reply.number(LIFETIME).is_some_and(|seconds| seconds > 0), "{reply:?}");
            let permit = Writer::new(CREATE_PERMISSION, client.id());
            let permit = client.sign(permit.xor_address(XOR_PEER_ADDRESS, media()));
            let permit = close(permit.xor_address(XOR_PEER_ADDRESS, denied)).done();
            assert_eq!(client.exchange(&permit).code(), 0, "the second peer was never seen");
            // Signed, it would have been refused.
            let both = client.ask(CREATE_PERMISSION, |w| {
                w.xor_address(XOR_PEER_ADDRESS, media()).xor_address(XOR_PEER_ADDRESS, denied)
            });
            assert_eq!(both.code(), 403);
        }
        assert!(client.settle() > 0, "it lives");
    }
}

/// T6.
#[test]
fn of_doubled_attributes_the_first_counts() {
    let gateway = Gateway::start(1);
    for wire in TRANSPORTS {
        let mut client = Client::allocated(&gateway, wire);
        // A session limit of the test's credential is ten minutes and more.
        let reply = client.ask(REFRESH, |w| {
            w.attribute(LIFETIME, &900_u32.to_be_bytes()).attribute(LIFETIME, &[0; 4])
        });
        assert_eq!((reply.code(), reply.number(LIFETIME)), (0, Some(900)));
        let bind = client.ask(CHANNEL_BIND, |w| {
            w.attribute(CHANNEL_NUMBER, &[0x40, 0, 0, 0])
                .attribute(CHANNEL_NUMBER, &[0x7f, 0xff, 0, 0])
                .xor_address(XOR_PEER_ADDRESS, media())
                .xor_address(XOR_PEER_ADDRESS, (CLIENT, 80).into())
        });
        assert_eq!(bind.code(), 0);
        let mut name = client.username.clone().into_bytes();
        name[0] ^= 1;
        let twice = client.sign(Writer::new(REFRESH, client.id()).attribute(USERNAME, &name));
        assert_eq!(client.exchange(&twice.done()).code(), 401, "the first name is nobody's");
    }
}

/// T7.
#[test]
fn bidding_down_is_found_out() {
    let gateway = Gateway::start(1);
    let offered = [0, 2, 0, 0, 0, 1, 0, 0];
    for wire in TRANSPORTS {
        let mut client = Client::new(&gateway, wire);
        let challenge = client.challenge();
        assert!(client.nonce.starts_with(b"obMatJos2gAAA"), "{challenge:?}");
        assert_eq!(challenge.first(PASSWORD_ALGORITHMS), Some(offered.to_vec()));
        let good = client.nonce.clone();
        for (at, with) in [(0, b'x'), (9, b'A'), (9, b'w'), (12, b'B')] {
            client.nonce.clone_from(&good);
            client.nonce[at] = with;
            assert_eq!(client.ask(ALLOCATE, transport).code(), 400, "cookie, byte {at}");
        }
        client.nonce = good;
        // The list stripped, altered, or alone.
        let algorithm = |w: Writer| w.attribute(PASSWORD_ALGORITHM, &[0, 1, 0, 0]);
        let list = |w: Writer, list: &[u8]| w.attribute(PASSWORD_ALGORITHMS, list);
        assert_eq!(client.ask(ALLOCATE, |w| algorithm(transport(w))).code(), 400);
        assert_eq!(client.ask(ALLOCATE, |w| list(transport(w), &offered)).code(), 400);
        let weak = client.ask(ALLOCATE, |w| list(algorithm(transport(w)), &[0, 1, 0, 0]));
        assert_eq!(weak.code(), 400);
        let whole = client.ask(ALLOCATE, |w| list(algorithm(transport(w)), &offered));
        assert_eq!(whole.code(), 0, "what was offered may be chosen from");
    }
}

/// T8.
#[test]
fn names_that_are_over_odd_or_revoked_open_nothing() {
    let gateway = Gateway::start(1);
    let hour = Duration::from_secs(3_600);
    let expired = mint(&gateway, "late", Class::Forwarder, hour);
    let revoked = mint(&gateway, "struck", Class::Forwarder, Duration::ZERO);
    let good = mint(&gateway, "tester", Class::Forwarder, Duration::ZERO);
    let mut revoke = veilgate();
    let ca = gateway.note()["ca"].as_str().expect("ca").to_owned();
    revoke.args(["turn", "revoke", "--subject", "struck", "--ca", &ca]);
    revoke.env("VEILGATE_STATE_DIR", gateway.state_dir());
    let output = gateway.network.as_client(|| revoke.output()).expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let later = good.username.split_once(':').expect("a time").1;
    let names = [
        expired.username.clone(),
        revoked.username.clone(),
        format!("9223372036854775808:{later}"),
        format!("18446744073709551616:{later}"),
        format!("-1:{later}"),
        format!("soon:{later}"),
        format!(":{later}"),
        later.to_owned(),
        "1780000600:alice".to_owned(),
        "alice".to_owned(),
        ":".to_owned(),
        String::new(),
        "9".repeat(508),
        "%s%n:{}".to_owned(),
    ];
    for wire in TRANSPORTS {
        let mut client = Client::new(&gateway, wire);
        client.challenge();
        for name in &names {
            client.username.clone_from(name);
            client.password = match name {
                name if *name == expired.username => expired.credential.clone(),
                name if *name == revoked.username => revoked.credential.clone(),
                _ => good.credential.clone(),
            };
            assert_eq!(client.ask(ALLOCATE, transport).code(), 401, "{name} over {wire:?}");
        }
        (client.username, client.password) = (good.username.clone(), good.credential.clone());
        assert_eq!(client.ask(ALLOCATE, transport).code(), 0);
    }
    gateway.metrics_when("each has its reason", |m| {
        let of = |reason: &str| m.sum("veilgate_relay_auth_failures_total", &[reason]);
        of("reason=\"expired\"") == 3.0 && of("reason=\"revoked\"") == 3.0
    });
}

/// T9.
#[test]
fn another_users_valid_credential_gets_441() {
    let gateway = Gateway::start(1);
    let other = mint(&gateway, "mallory", Class::Forwarder, Duration::ZERO);
    for wire in TRANSPORTS {
        let mut client = Client::allocated(&gateway, wire);
        let own = (client.username.clone(), client.password.clone());
        (client.username, client.password) = (other.username.clone(), other.credential.clone());
        assert_eq!(client.ask(REFRESH, |w| w.attribute(LIFETIME, &[0; 4])).code(), 441);
        assert_eq!(client.permission(media()), 441);
        assert_eq!(client.bind(0x4000, media()), 441);
        (client.username, client.password) = own;
        assert!(client.settle() > 0);
    }
}

/// T10.
#[test]
fn second_allocate_gets_437_and_a_repeated_one_its_answer() {
    let gateway = Gateway::start(1);
    for wire in TRANSPORTS {
        let mut client = Client::new(&gateway, wire);
        client.challenge();
        let request = client.sign(transport(Writer::new(ALLOCATE, client.id()))).done();
        let first = client.exchange(&request);
        assert_eq!(first.code(), 0);
        assert_eq!(client.exchange(&request).0, first.0, "byte for byte");
        assert_eq!(client.ask(ALLOCATE, transport).code(), 437);
    }
}

/// T11.
#[test]
fn odd_channel_numbers_and_conflicting_bindings_get_400() {
    let gateway = Gateway::start(1);
    for wire in TRANSPORTS {
        let minted = mint(&gateway, &format!("{wire:?}"), Class::Probe, Duration::ZERO);
        let mut client = Client::with(&gateway, wire, &minted.username, &minted.credential);
        client.allocate();
        for number in [0x0000, 0x3fff, 0x5000, 0x7fff, 0xffff] {
            assert_eq!(client.bind(number, media()), 400, "{number:x}");
        }
        assert_eq!(client.bind(0x4000, media()), 0);
        assert_eq!(client.bind(0x4000, media()), 0, "refreshed");
        assert_eq!(client.bind(0x4001, media()), 400, "the peer has a channel");
        assert_eq!(client.bind(0x4000, echo()), 400, "the channel has a peer");
        assert_eq!(client.bind(0x4fff, echo()), 0);
    }
}

/// T12.
#[test]
fn channel_data_that_lies_is_dropped_and_padding_is_not_payload() {
    let gateway = Gateway::start(1);
    let mut client = prober(&gateway, Transport::Udp);
    for lie in
        ["4000ffff41414141", "4000fffc41", "4000", "40", "40000001", "40010001ff", "50000000"]
    {
        client.send(&hex(lie));
    }
    client.settle();
    for padding in 0..=3 {
        let mut bytes = hex("4000000501020304 05");
        bytes.resize(bytes.len() + padding, 0xee);
        client.send(&bytes);
        let back = client.receive(PATIENCE).expect("the echo");
        assert_eq!(back[..9], hex("4000000501020304 05"), "{padding} bytes of padding");
    }
    client.send(&hex("40000000"));
    assert_eq!(client.receive(PATIENCE).expect("the echo")[..4], hex("40000000"));
    // On a stream the first lie ends it: nobody could find the next message.
    for wire in [Transport::Tcp, Transport::Tls] {
        for length in ["fffc", "fffd", "fffe", "ffff"] {
            let mut client = prober(&gateway, wire);
            client.send(&hex(&format!("4000{length}41414141")));
            assert!(client.is_closed(), "{length} over {wire:?}");
        }
        // What is padded and what is empty is cut where it ends.
        let mut client = prober(&gateway, wire);
        client.send(&hex("40000001 aaeeeeee 40000000 40000003 bbccdd00"));
        for expected in ["40000001aa", "40000000", "40000003bbccdd"] {
            assert_eq!(client.receive(PATIENCE).expect("the echo"), hex(expected));
        }
    }
}

/// T13.
#[test]
fn send_indication_whose_data_lies_is_dropped() {
    let gateway = Gateway::start(1);
    let lie = "001600142112a442000102030405060708090a0b0012000800013e82e112a64300138ab641414141";
    for wire in TRANSPORTS {
        let mut client = Client::allocated(&gateway, wire);
        assert_eq!(client.permission(media()), 0);
        client.send(&hex(lie));
        client.settle();
    }
    let metrics = gateway.metrics_when("all three were dropped", |m| {
        m.sum("veilgate_relay_dropped_total", &["reason=\"malformed\""]) == 3.0
    });
    assert_eq!(metrics.sum("veilgate_relay_packets_total", &[]), 0.0);
}

/// T15.
#[test]
fn reservations_and_families_are_answered_by_the_book_and_bounded() {
    let gateway = Gateway::start(1);
    for (round, wire) in TRANSPORTS.into_iter().enumerate() {
        let minted = mint(&gateway, &format!("pair{round}"), Class::Forwarder, Duration::ZERO);
        let mut client = Client::with(&gateway, wire, &minted.username, &minted.credential);
        client.challenge();
        for (kind, value, expected) in [
            (ADDITIONAL_ADDRESS_FAMILY, [1, 0, 0, 0], 400),
            (REQUESTED_ADDRESS_FAMILY, [9, 0, 0, 0], 440),
            (REQUESTED_ADDRESS_FAMILY, [2, 0, 0, 0], 440),
        ] {
            let reply = client.ask(ALLOCATE, |w| transport(w).attribute(kind, &value));
            assert_eq!(reply.code(), expected, "{kind:x} {value:?}");
        }
        let both = client.ask(ALLOCATE, |w| {
            transport(w)
                .attribute(REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0])
                .attribute(ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0])
        });
        assert_eq!(both.code(), 400);
        let mut tokens = Vec::new();
        let mut full = 0;
        for _ in 0..20 {
            let pair = client.ask(ALLOCATE, |w| transport(w).attribute(EVEN_PORT, &[0x80]));
            match pair.code() {
                0 => {
                    let relayed = pair.address(XOR_RELAYED_ADDRESS).expect("an address");
                    assert_eq!(relayed.port() % 2, 0);
                    let token = pair.first(RESERVATION_TOKEN).expect("a token");
                    tokens.push((relayed.port(), token));
                    let closed = client.ask(REFRESH, |w| w.attribute(LIFETIME, &[0; 4]));
                    assert_eq!(closed.code(), 0);
                }
                code => {
                    assert_eq!(code, 508);
                    full += 1;
                }
            }
        }
        assert!((1..=4).contains(&tokens.len()) && full >= 16, "{} reserved", tokens.len());
        let (even, token) = &tokens[0];
        let redeem = |w: Writer| transport(w).attribute(RESERVATION_TOKEN, token);
        let family =
            client.ask(ALLOCATE, |w| redeem(w).attribute(REQUESTED_ADDRESS_FAMILY, &[1, 0, 0, 0]));
        assert_eq!(family.code(), 400, "a token names its family");
        let odd = client.ask(ALLOCATE, redeem);
        assert_eq!(odd.address(XOR_RELAYED_ADDRESS).map(|a| a.port()), Some(even + 1));
        assert_eq!(client.ask(REFRESH, |w| w.attribute(LIFETIME, &[0; 4])).code(), 0);
        assert_eq!(client.ask(ALLOCATE, redeem).code(), 508, "a token is good once");
    }
}

/// T16.
#[test]
fn unknown_required_attributes_get_420_only_after_authentication() {
    let gateway = Gateway::start(1);
    for wire in TRANSPORTS {
        let mut client = Client::new(&gateway, wire);
        let odd = |w: Writer| transport(w).attribute(0x7f01, &[1]).attribute(0x0002, &[0; 4]);
        let stranger = odd(Writer::new(ALLOCATE, client.id())).done();
        assert_eq!(client.exchange(&stranger).code(), 401);
        client.challenge();
        let reply = client.ask(ALLOCATE, odd);
        assert_eq!(reply.code(), 420);
        assert_eq!(reply.first(UNKNOWN_ATTRIBUTES), Some(vec![0x7f, 0x01, 0x00, 0x02]));
        let optional = client.ask(ALLOCATE, |w| transport(w).attribute(0xff05, &[0; 9]));
        assert_eq!(optional.code(), 0, "one that need not be understood");
    }
}

/// T18.
#[test]
fn quota_ends_at_486_and_what_is_closed_comes_back() {
    const QUOTA: usize = 32;
    let gateway = Gateway::start(1);
    for (round, wire) in TRANSPORTS.into_iter().enumerate() {
        let minted = mint(&gateway, &format!("many{round}"), Class::Forwarder, Duration::ZERO);
        let new = || Client::with(&gateway, wire, &minted.username, &minted.credential);
        let mut held: Vec<Client> = (0..QUOTA)
            .map(|_| {
                let mut client = new();
                client.allocate();
                client
            })
            .collect();
        let mut late = new();
        assert_eq!(late.try_allocate().code(), 486, "one more than {QUOTA} over {wire:?}");
        // Closed and opened again and again, nothing is lost and nothing won.
        for _ in 0..2 * QUOTA {
            let mut client = held.remove(0);
            let closed = client.ask(REFRESH, |w| w.attribute(LIFETIME, &[0; 4]));
            assert_eq!(closed.code(), 0);
            assert_eq!(client.ask(ALLOCATE, transport).code(), 0);
            held.push(client);
        }
        assert_eq!(late.ask(ALLOCATE, transport).code(), 486);
        drop(held);
    }
    gateway.metrics_when("every refusal was counted", |m| {
        m.sum("veilgate_relay_refused_total", &["reason=\"quota\""]) == 6.0
    });
}

/// T19.
#[test]
fn padding_of_answers_is_zero_and_nonces_never_repeat() {
    let gateway = Gateway::start(1);
    let mut nonces = Vec::new();
    for wire in TRANSPORTS {
        for _ in 0..20 {
            let mut client = Client::new(&gateway, wire);
            let challenge = client.challenge();
            let paddings = challenge.attributes().into_iter().map(|(.., padding)| padding);
            assert!(paddings.flatten().all(|byte| byte == 0), "{challenge:?}");
            nonces.push(client.nonce.clone());
        }
    }
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 60);
}

/// T22.
#[test]
fn log_holds_no_client_address_and_no_secret() {
    let gateway = Gateway::start(1);
    let mut secrets = vec![CLIENT.to_string()];
    for wire in TRANSPORTS {
        let mut client = prober(&gateway, wire);
        client.indication((CLIENT, 80).into(), b"let me out");
        client.password.push('x');
        assert_eq!(client.ask(REFRESH, |w| w).code(), 401);
        let address = client.address().to_string();
        secrets.extend([client.username, client.password, address]);
    }
    let ring = std::fs::read_to_string(gateway.state_dir().join("turn.keys")).expect("key file");
    secrets.extend(ring.lines().filter_map(|l| l.split_once(':')).map(|(_, key)| key.to_owned()));
    gateway
        .metrics_when("all was seen", |m| m.sum("veilgate_relay_denied_peers_total", &[]) == 3.0);
    let log = gateway.log();
    assert!(log.contains("veilgate is ready"), "{log}");
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
    // Nor does a metric name anybody.
    let metrics = gateway.metrics();
    assert!(!metrics.series().any(|series| series.contains(&CLIENT.to_string())));
}

/// T23.
#[test]
fn one_port_serves_http_and_turn_whatever_alpn_says() {
    let gateway = Gateway::start(1);
    let http: [&[&[u8]]; 3] = [&[b"http/1.1"], &[], &[b"stun.turn", b"http/1.1"]];
    for alpn in http {
        let mut stream = tls(&gateway, alpn);
        let request = format!("GET / HTTP/1.1\r\nHost: {GATEWAY}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut text = Vec::new();
        let _unclean_end = stream.read_to_end(&mut text);
        assert!(text.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&text));
    }
    let turn: [&[&[u8]]; 4] = [&[b"http/1.1"], &[b"h2", b"http/1.1"], &[], &[b"stun.turn"]];
    for alpn in turn {
        let mut stream = tls(&gateway, alpn);
        let request = Writer::new(ALLOCATE, [9; 12]).attribute(REQUESTED_TRANSPORT, &UDP).done();
        stream.write_all(&request).expect("sent");
        let mut head = [0; 100];
        stream.read_exact(&mut head[..20]).expect("an answer");
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        stream.read_exact(&mut head[20..20 + length]).expect("a whole answer");
        assert_eq!(Reply(head[..20 + length].to_vec()).code(), 401, "{alpn:?}");
    }
}

/// T24.
#[test]
fn wrong_fingerprint_is_ignored_and_a_right_one_is_not() {
    let gateway = Gateway::start(1);
    for wire in TRANSPORTS {
        let mut client = Client::new(&gateway, wire);
        for error in [1, 1 << 31] {
            let wrong = transport(Writer::new(ALLOCATE, client.id())).fingerprint(error).done();
            client.send(&wrong);
        }
        let right = transport(Writer::new(ALLOCATE, client.id())).fingerprint(0).done();
        assert_eq!(client.exchange(&right).code(), 401, "{wire:?}");
    }
}

#[test]
fn the_kit_reads_addresses_as_it_writes_them() {
    for ip in ["192.0.2.1", "2001:db8::7"] {
        let address = SocketAddr::new(ip.parse::<IpAddr>().expect("an address"), 4_711);
        let message = Writer::new(0x0101, [3; 12]).xor_address(XOR_PEER_ADDRESS, address).done();
        assert_eq!(Reply(message).address(XOR_PEER_ADDRESS), Some(address));
    }
}
