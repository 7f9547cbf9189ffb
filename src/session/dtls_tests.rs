//! Handshakes with BoringSSL as the client, in memory and in virtual time.

use std::sync::Arc;
use std::time::Duration;

use boring::asn1::Asn1Time;
use boring::bn::BigNum;
use boring::hash::MessageDigest;
use boring::pkey::{PKey, Private};
use boring::rsa::Rsa;
use boring::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVerifyMode, SslVersion};
use boring::x509::X509;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::dtls::*;
use super::dtls_ffi as ffi;
use super::srtp::{self, Profile};
use crate::time::Mono;

const BROWSER_PROFILES: &str = "SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_256_GCM:SRTP_AEAD_AES_128_GCM";
const BROWSER_GROUPS: &str = "X25519MLKEM768:X25519:P-256";

fn server_context() -> Arc<Context> {
    let own = rcgen::generate_simple_self_signed(["gateway".to_owned()]).unwrap();
    Arc::new(Context::new(own.cert.der(), &own.signing_key.serialize_pem()).unwrap())
}

fn ecdsa_identity() -> (X509, PKey<Private>) {
    let own = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
    let key = PKey::private_key_from_pem(own.signing_key.serialize_pem().as_bytes()).unwrap();
    (X509::from_der(own.cert.der()).unwrap(), key)
}

fn rsa_identity() -> (X509, PKey<Private>) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap()).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    (builder.build(), key)
}

fn fingerprint(algorithm: HashAlgorithm, certificate: &X509) -> Fingerprint {
    let digest = match algorithm {
        HashAlgorithm::Sha256 => MessageDigest::sha256(),
        HashAlgorithm::Sha384 => MessageDigest::sha384(),
        HashAlgorithm::Sha512 => MessageDigest::sha512(),
    };
    Fingerprint { algorithm, bytes: certificate.digest(digest).unwrap().to_vec() }
}

struct Client {
    stream: SslStream<Datagrams>,
    connected: bool,
    failed: bool,
}

#[derive(Clone, Copy)]
struct Offer {
    version: SslVersion,
    groups: &'static str,
    profiles: &'static str,
}

const OFFER_13: Offer =
    Offer { version: SslVersion::DTLS1_3, groups: BROWSER_GROUPS, profiles: BROWSER_PROFILES };
const OFFER_12: Offer = Offer { version: SslVersion::DTLS1_2, ..OFFER_13 };

impl Client {
    fn new(offer: Offer, identity: Option<&(X509, PKey<Private>)>) -> Self {
        let mut builder = SslContext::builder(SslMethod::dtls()).unwrap();
        builder.set_min_proto_version(Some(SslVersion::DTLS1_2)).unwrap();
        builder.set_max_proto_version(Some(offer.version)).unwrap();
        builder.set_curves_list(offer.groups).unwrap();
        if !offer.profiles.is_empty() {
            builder.set_tlsext_use_srtp(offer.profiles).unwrap();
        }
        if let Some((certificate, key)) = identity {
            builder.set_certificate(certificate).unwrap();
            builder.set_private_key(key).unwrap();
        }
        builder.set_custom_verify_callback(SslVerifyMode::PEER, |_| Ok(()));
        ffi::install_clock(&mut builder);
        let mut ssl = Ssl::new(&builder.build()).unwrap();
        ssl.set_mtu(1200).unwrap();
        let stream = SslStream::new(ssl, Datagrams::default()).unwrap();
        Self { stream, connected: false, failed: false }
    }

    fn step(&mut self, now: Mono) {
        let result = if self.connected {
            ffi::at(now, || self.stream.ssl_read(&mut [0; 64]).map(|_| ()))
        } else {
            ffi::at(now, || self.stream.connect())
        };
        match result {
            Ok(()) => self.connected = true,
            Err(e) if e.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::WouldBlock) => {}
            Err(_) => self.failed = true,
        }
    }

    fn deadline(&self, now: Mono) -> Option<Mono> {
        ffi::at(now, || ffi::timeout(self.stream.ssl())).map(|left| now.plus(left))
    }

    fn contexts(&self) -> (srtp::Sender, srtp::Receiver) {
        let ssl = self.stream.ssl();
        let profile = match ssl.selected_srtp_profile().unwrap().name() {
            "SRTP_AEAD_AES_128_GCM" => Profile::Aead128Gcm,
            "SRTP_AEAD_AES_256_GCM" => Profile::Aead256Gcm,
            _ => Profile::AesCm128HmacSha1_80,
        };
        let mut material = vec![0; profile.keying_material_len()];
        ssl.export_keying_material(&mut material, "EXTRACTOR-dtls_srtp", None).unwrap();
        let (client, server) = srtp::split_keying_material(profile, &material).unwrap();
        (srtp::Sender::new(profile, client).unwrap(), srtp::Receiver::new(profile, server).unwrap())
    }
}

/// What the network does to the n-th datagram of a direction: the datagrams that come out.
type Network<'a> = &'a mut dyn FnMut(bool, usize, Vec<u8>) -> Vec<Vec<u8>>;

struct Outcome {
    step: Option<Step>,
    server: Dtls,
    client: Client,
    at: Mono,
}

impl Outcome {
    fn agreed(self) -> (Box<Agreed>, Client, Dtls) {
        match self.step {
            Some(Step::Done(agreed)) => (agreed, self.client, self.server),
            Some(Step::Failed(failure)) => panic!("failed: {failure:?}"),
            _ => panic!("not finished at {:?}", self.at),
        }
    }

    fn failure(&self) -> Failure {
        match self.step {
            Some(Step::Failed(failure)) => failure,
            _ => panic!("no failure"),
        }
    }
}

/// Runs both sides until the server is done and the line is quiet, or half a minute has passed.
fn run(mut client: Client, fingerprints: Vec<Fingerprint>, network: Network<'_>) -> Outcome {
    let mut server = Dtls::new(server_context(), fingerprints).unwrap();
    let mut now = Mono::from_nanos(5_000_000);
    let mut counts = [0, 0];
    let mut end = None;
    loop {
        let mut moved = false;
        client.step(now);
        while let Some(datagram) = client.stream.get_mut().outbox.pop_front() {
            moved = true;
            for datagram in network(true, counts[0], datagram) {
                server.push(&datagram);
            }
            counts[0] += 1;
        }
        if server.is_handshaking() {
            match server.step(now) {
                Step::Pending => {}
                step => end = Some(step),
            }
        } else {
            server.read(now, |_| {});
        }
        while let Some(datagram) = server.pop() {
            moved = true;
            assert!(datagram.len() <= MTU);
            for datagram in network(false, counts[1], datagram) {
                client.stream.get_mut().inbox.push_back(datagram);
            }
            counts[1] += 1;
        }
        if moved {
            continue;
        }
        if end.is_some() && (client.connected || client.failed) {
            break;
        }
        let Some(next) = [server.deadline(), client.deadline(now)].into_iter().flatten().min()
        else {
            break;
        };
        now = next.max(now);
        if now > Mono::ZERO.plus(Duration::from_secs(60)) {
            break;
        }
        if !server.on_timeout(now) {
            break;
        }
        ffi::at(now, || ffi::handle_timeout(client.stream.ssl_mut()));
    }
    Outcome { step: end, server, client, at: now }
}

fn clean(client: Client, fingerprints: Vec<Fingerprint>) -> Outcome {
    run(client, fingerprints, &mut |_, _, datagram| vec![datagram])
}

/// Media keys fit in both directions.
fn assert_keys_fit(agreed: &mut Agreed, client: &Client) {
    let (mut sender, mut receiver) = client.contexts();
    let mut plain = vec![0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
    plain.extend([5; 40]);
    let mut packet = plain.clone();
    packet.resize(plain.len() + srtp::MAX_TRAILER, 0);
    let len = sender.protect_rtp(&mut packet, plain.len()).unwrap();
    let open = agreed.receiver.unprotect_rtp(&mut packet[..len]).unwrap();
    assert_eq!(packet[..open], plain);
    let mut packet = plain.clone();
    packet.resize(plain.len() + srtp::MAX_TRAILER, 0);
    let len = agreed.sender.protect_rtp(&mut packet, plain.len()).unwrap();
    let open = receiver.unprotect_rtp(&mut packet[..len]).unwrap();
    assert_eq!(packet[..open], plain);
}

#[test]
fn a_browser_like_client_gets_dtls_13_with_mlkem_and_our_profile() {
    let identity = ecdsa_identity();
    let print = fingerprint(HashAlgorithm::Sha256, &identity.0);
    let mut first_flight = 0;
    let outcome = run(Client::new(OFFER_13, Some(&identity)), vec![print], &mut |up, n, d| {
        first_flight += usize::from(up && n < 2);
        vec![d]
    });
    assert_eq!(first_flight, 2, "the ClientHello spans two datagrams");
    let (mut agreed, client, server) = outcome.agreed();
    assert_eq!(agreed.version, Version::Dtls13);
    assert_eq!(server.group(), Some("X25519MLKEM768"));
    assert_eq!(agreed.profile, Profile::Aead128Gcm, "ours wins over the client's order");
    assert_keys_fit(&mut agreed, &client);
}

#[test]
fn every_version_group_and_profile_connects() {
    let identity = ecdsa_identity();
    for version in [SslVersion::DTLS1_2, SslVersion::DTLS1_3] {
        // In DTLS 1.2 the list also names the curves of certificates: ours is P-256.
        for groups in ["X25519:P-256", "P-256"] {
            for (profiles, profile) in [
                ("SRTP_AEAD_AES_128_GCM", Profile::Aead128Gcm),
                ("SRTP_AEAD_AES_256_GCM", Profile::Aead256Gcm),
                ("SRTP_AES128_CM_SHA1_80", Profile::AesCm128HmacSha1_80),
                ("SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_256_GCM", Profile::Aead256Gcm),
            ] {
                let print = fingerprint(HashAlgorithm::Sha512, &identity.0);
                let offer = Offer { version, groups, profiles };
                let (mut agreed, client, _) =
                    clean(Client::new(offer, Some(&identity)), vec![print]).agreed();
                let expected = match version {
                    SslVersion::DTLS1_2 => Version::Dtls12,
                    _ => Version::Dtls13,
                };
                assert_eq!((agreed.version, agreed.profile), (expected, profile));
                assert_keys_fit(&mut agreed, &client);
            }
        }
    }
}

#[test]
fn an_rsa_client_connects_in_both_versions() {
    let identity = rsa_identity();
    for offer in [OFFER_12, OFFER_13] {
        let print = fingerprint(HashAlgorithm::Sha384, &identity.0);
        let (mut agreed, client, _) =
            clean(Client::new(offer, Some(&identity)), vec![print]).agreed();
        assert_keys_fit(&mut agreed, &client);
    }
}

#[test]
fn any_of_several_fingerprints_will_do() {
    let identity = ecdsa_identity();
    let other = fingerprint(HashAlgorithm::Sha256, &ecdsa_identity().0);
    let print = fingerprint(HashAlgorithm::Sha384, &identity.0);
    clean(Client::new(OFFER_13, Some(&identity)), vec![other, print]).agreed();
}

#[test]
fn a_certificate_that_was_not_announced_is_refused_before_there_are_keys() {
    let identity = ecdsa_identity();
    let other = fingerprint(HashAlgorithm::Sha256, &ecdsa_identity().0);
    for offer in [OFFER_12, OFFER_13] {
        for fingerprints in [vec![], vec![other.clone()]] {
            let outcome = clean(Client::new(offer, Some(&identity)), fingerprints);
            assert_eq!(outcome.failure(), Failure::Fingerprint);
            assert!(outcome.client.failed, "the client is told");
        }
    }
}

#[test]
fn a_client_without_certificate_group_or_profile_fails() {
    let identity = ecdsa_identity();
    let print = || vec![fingerprint(HashAlgorithm::Sha256, &identity.0)];
    for offer in [OFFER_12, OFFER_13] {
        let outcome = clean(Client::new(offer, None), print());
        assert_eq!(outcome.failure(), Failure::Handshake);
        let offer_without = Offer { profiles: "", ..offer };
        let outcome = clean(Client::new(offer_without, Some(&identity)), print());
        assert_eq!(outcome.failure(), Failure::Handshake);
        let foreign = Offer { groups: "P-384", ..offer };
        let outcome = clean(Client::new(foreign, Some(&identity)), print());
        assert_eq!(outcome.failure(), Failure::Handshake);
        assert!(outcome.client.failed, "an alert says so");
    }
}

#[test]
fn lost_swapped_and_repeated_datagrams_only_cost_time() {
    let identity = ecdsa_identity();
    for offer in [OFFER_12, OFFER_13] {
        let print = || vec![fingerprint(HashAlgorithm::Sha256, &identity.0)];
        for up in [true, false] {
            for lost in 0..4 {
                let (mut agreed, client, _) =
                    run(Client::new(offer, Some(&identity)), print(), &mut |dir, n, d| {
                        if dir == up && n == lost { vec![] } else { vec![d] }
                    })
                    .agreed();
                assert_keys_fit(&mut agreed, &client);
                let mut held = None;
                let (mut agreed, client, _) =
                    run(Client::new(offer, Some(&identity)), print(), &mut |dir, n, d| {
                        if dir == up && n == lost {
                            held = Some(d);
                            return vec![];
                        }
                        let late = if dir == up { held.take() } else { None };
                        std::iter::once(d).chain(late).collect()
                    })
                    .agreed();
                assert_keys_fit(&mut agreed, &client);
            }
        }
        let (mut agreed, client, _) =
            run(Client::new(offer, Some(&identity)), print(), &mut |_, _, d| vec![d.clone(), d])
                .agreed();
        assert_keys_fit(&mut agreed, &client);
    }
}

#[test]
fn a_network_that_loses_a_third_still_connects() {
    let identity = ecdsa_identity();
    for seed in 0..40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let offer = if seed % 2 == 0 { OFFER_13 } else { OFFER_12 };
        let print = vec![fingerprint(HashAlgorithm::Sha256, &identity.0)];
        let outcome = run(Client::new(offer, Some(&identity)), print, &mut |_, _, d| {
            if rng.random_ratio(1, 3) { vec![] } else { vec![d] }
        });
        assert!(matches!(outcome.step, Some(Step::Done(_))), "seed {seed}");
    }
}

#[test]
fn garbage_records_neither_panic_nor_end_a_handshake() {
    let identity = ecdsa_identity();
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let offer = if seed % 2 == 0 { OFFER_13 } else { OFFER_12 };
        let print = vec![fingerprint(HashAlgorithm::Sha256, &identity.0)];
        let mut network = |up: bool, n: usize, datagram: Vec<u8>| {
            if !up || n > 12 {
                return vec![datagram];
            }
            let mut junk = vec![0; rng.random_range(1..80)];
            rng.fill(&mut junk[..]);
            junk[0] = rng.random_range(20..64);
            let mut sealed = vec![23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, n as u8, 0, 30];
            sealed.extend([0x5a; 30]);
            let mut out = vec![junk, sealed];
            // A well-formed plaintext record can only be outlived while no ClientHello is whole.
            if n == 0 {
                let kind = [20, 21, 22, 23, 26][rng.random_range(0..5)];
                let mut plain = vec![kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 99, 0, 20];
                plain.extend((0..20).map(|_| rng.random::<u8>()));
                out.push(plain);
            }
            out.push(datagram);
            out
        };
        let outcome = run(Client::new(offer, Some(&identity)), print, &mut network);
        assert!(matches!(outcome.step, Some(Step::Done(_))), "seed {seed}");
    }
}

#[test]
fn close_notify_reaches_the_client_and_the_clients_reaches_us() {
    let identity = ecdsa_identity();
    let now = Mono::ZERO.plus(Duration::from_secs(61));
    for offer in [OFFER_12, OFFER_13] {
        let print = || vec![fingerprint(HashAlgorithm::Sha256, &identity.0)];
        let (_, mut client, mut server) =
            clean(Client::new(offer, Some(&identity)), print()).agreed();
        server.close(now);
        let last = server.pop().unwrap();
        assert_eq!(server.pop(), None);
        client.stream.get_mut().inbox.push_back(last);
        let error = client.stream.ssl_read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.code(), boring::ssl::ErrorCode::ZERO_RETURN);

        let (_, mut client, mut server) =
            clean(Client::new(offer, Some(&identity)), print()).agreed();
        let _ = client.stream.shutdown();
        while let Some(datagram) = client.stream.get_mut().outbox.pop_front() {
            server.push(&datagram);
        }
        assert!(!server.read(now, |_| {}));
        assert!(!server.is_handshaking());
    }
}

#[test]
fn the_printed_fingerprint_is_that_of_the_certificate() {
    let own = rcgen::generate_simple_self_signed(["gateway".to_owned()]).unwrap();
    let key = own.signing_key.serialize_pem();
    let der = Context::new(own.cert.der(), &key).unwrap();
    let pem = Context::new(own.cert.pem().as_bytes(), &key).unwrap();
    assert_eq!(der.fingerprint(), pem.fingerprint());
    let bytes = fingerprint(HashAlgorithm::Sha256, &X509::from_der(own.cert.der()).unwrap()).bytes;
    let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(der.fingerprint(), format!("sha-256 {}", hex.join(":")));
    let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
    assert!(Context::new(other.cert.der(), &key).is_err(), "a key of another certificate");
    assert!(Context::new(b"-----BEGIN nonsense", &key).is_err());
}

#[test]
fn the_inbox_is_bounded() {
    let mut server = Dtls::new(server_context(), vec![]).unwrap();
    let taken = (0..1_000).filter(|_| server.push(&[22; 100])).count();
    assert_eq!(taken, 32);
    assert!(!server.push(&[22; 3_000]));
    assert!(matches!(server.step(Mono::ZERO), Step::Pending), "all of it is dropped");
}
