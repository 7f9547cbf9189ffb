//! A scripted client of one session: checks, a BoringSSL client and SRTP, in virtual time.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test helper")]

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use boring::hash::MessageDigest;
use boring::pkey::PKey;
use boring::ssl::{Ssl, SslContext, SslMethod, SslStream, SslVerifyMode, SslVersion};
use boring::x509::X509;

use veilgate::ids::{AllocationHandle, Path, RoomHash, SessionId, ShardId, SubjectHash};
use veilgate::metrics::Counters;
use veilgate::session::dtls::{self, Fingerprint, HashAlgorithm};
use veilgate::session::srtp::{self, MAX_TRAILER, Profile};
use veilgate::session::{Event, IceCredentials, Params, Received, Session, Transmit};
use veilgate::time::{Mono, Now, Unix};
use veilgate::wire::stun::{Builder, Class, IntegrityKey, Message, Method, TransactionId, attr};

/// Our password, as the client knows it from the answer.
pub(crate) const PWD: &str = "the gateway's own password";

#[derive(Default)]
pub(crate) struct Line {
    inbox: VecDeque<Vec<u8>>,
    outbox: VecDeque<Vec<u8>>,
}

impl io::Read for Line {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let datagram = self.inbox.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        buf[..datagram.len()].copy_from_slice(&datagram);
        Ok(datagram.len())
    }
}

impl io::Write for Line {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.outbox.push_back(buf.to_vec());
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn path(index: u32) -> Path {
    on_shard(0, index)
}

pub(crate) fn on_shard(shard: u8, index: u32) -> Path {
    Path { shard: ShardId(shard), allocation: AllocationHandle { index, generation: 1 }, media: 0 }
}

pub(crate) fn mapped() -> SocketAddr {
    "198.51.100.20:50001".parse().unwrap()
}

pub(crate) struct Call {
    pub(crate) session: Session,
    pub(crate) now: Now,
    pub(crate) counters: Counters,
    pub(crate) dtls: SslStream<Line>,
    pub(crate) media: Option<(srtp::Sender, srtp::Receiver)>,
    transactions: u8,
}

impl Call {
    pub(crate) fn new() -> Self {
        Self::with_client(SslVersion::DTLS1_3, true)
    }

    /// A session and its client, which shows the announced certificate only if `honest`.
    pub(crate) fn with_client(version: SslVersion, honest: bool) -> Self {
        let gateway = rcgen::generate_simple_self_signed(["gateway".to_owned()]).unwrap();
        let context =
            dtls::Context::new(gateway.cert.der(), &gateway.signing_key.serialize_pem()).unwrap();
        let own = rcgen::generate_simple_self_signed(["client".to_owned()]).unwrap();
        let certificate = X509::from_der(own.cert.der()).unwrap();
        let key = PKey::private_key_from_pem(own.signing_key.serialize_pem().as_bytes()).unwrap();

        let mut builder = SslContext::builder(SslMethod::dtls()).unwrap();
        builder.set_min_proto_version(Some(SslVersion::DTLS1_2)).unwrap();
        builder.set_max_proto_version(Some(version)).unwrap();
        builder.set_curves_list("X25519MLKEM768:X25519:P-256").unwrap();
        builder
            .set_tlsext_use_srtp(
                "SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_256_GCM:SRTP_AEAD_AES_128_GCM",
            )
            .unwrap();
        builder.set_certificate(&certificate).unwrap();
        builder.set_private_key(&key).unwrap();
        builder.set_custom_verify_callback(SslVerifyMode::PEER, |_| Ok(()));
        let mut ssl = Ssl::new(&builder.build()).unwrap();
        ssl.set_mtu(1200).unwrap();
        let dtls = SslStream::new(ssl, Line::default()).unwrap();

        let mut bytes = certificate.digest(MessageDigest::sha256()).unwrap().to_vec();
        if !honest {
            bytes[0] ^= 1;
        }
        let params = Params {
            id: SessionId(7),
            local: IceCredentials { ufrag: "gate".into(), pwd: PWD.into() },
            remote_ufrag: "peer".into(),
            restart: None,
            fingerprints: vec![Fingerprint { algorithm: HashAlgorithm::Sha256, bytes }],
            subject: SubjectHash::of("user-42"),
            room: RoomHash::of("lobby"),
            data: None,
        };
        let now = Now { mono: Mono::from_nanos(1), unix: Unix::from_secs(1_800_000_000) };
        let session = Session::new(params, Arc::new(context), now).unwrap();
        let counters = Counters::default();
        Self { session, now, counters, dtls, media: None, transactions: 0 }
    }

    /// A call with media keys on both sides, over `path(0)`.
    pub(crate) fn connected() -> Self {
        let mut call = Self::new();
        assert!(call.check(path(0), true));
        call.handshake(path(0));
        call.take_keys();
        while call.session.poll_event().is_some() {}
        call
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now = self.now.advanced(by);
    }

    pub(crate) fn timeout(&mut self) {
        self.session.handle_timeout(self.now, &mut self.counters);
    }

    pub(crate) fn feed(&mut self, path: Path, datagram: &mut [u8]) -> Received {
        self.session.handle(self.now, path, mapped(), datagram, &mut self.counters)
    }

    pub(crate) fn transmit(&mut self) -> Option<(Path, Vec<u8>)> {
        let mut buf = [0; 1500];
        let Transmit { path, len } = self.session.poll_transmit(self.now, &mut buf)?;
        Some((path, buf[..len].to_vec()))
    }

    pub(crate) fn request(&mut self, pwd: &str, use_candidate: bool) -> Vec<u8> {
        self.request_as("gate:peer", pwd, use_candidate)
    }

    pub(crate) fn request_as(&mut self, user: &str, pwd: &str, use_candidate: bool) -> Vec<u8> {
        self.transactions += 1;
        let mut buf = [0; 256];
        let id = TransactionId([self.transactions; 12]);
        let mut builder = Builder::new(&mut buf, Class::Request, Method::BINDING, id);
        builder.text(attr::USERNAME, user);
        builder.u32(attr::PRIORITY, 100);
        builder.attribute(attr::ICE_CONTROLLING, &[1; 8]);
        if use_candidate {
            builder.attribute(attr::USE_CANDIDATE, &[]);
        }
        builder.integrity(&IntegrityKey::short_term(pwd.as_bytes()));
        builder.fingerprint();
        let len = builder.finish().unwrap();
        buf[..len].to_vec()
    }

    /// Sends a check; true when a right answer came back on the same path.
    pub(crate) fn check(&mut self, path: Path, use_candidate: bool) -> bool {
        self.check_as("gate:peer", PWD, path, use_candidate)
    }

    /// As [`Self::check`], with credentials of one's choice.
    pub(crate) fn check_as(
        &mut self,
        user: &str,
        pwd: &str,
        path: Path,
        use_candidate: bool,
    ) -> bool {
        let mut request = self.request_as(user, pwd, use_candidate);
        assert_eq!(self.feed(path, &mut request), Received::Nothing);
        let Some((way, answer)) = self.transmit() else { return false };
        let answer = Message::parse(&answer).unwrap();
        way == path
            && answer.class() == Class::Success
            && answer.transaction_id() == TransactionId([self.transactions; 12])
            && answer.xor_address(attr::XOR_MAPPED_ADDRESS) == Some(mapped())
            && answer.verify_integrity(&IntegrityKey::short_term(pwd.as_bytes()))
            && answer.fingerprint() == Some(true)
    }

    pub(crate) fn forged_check(&mut self, path: Path) {
        let mut request = self.request("a guess at the password", true);
        self.feed(path, &mut request);
    }

    /// The client's part of the handshake; true when its side is done.
    pub(crate) fn client_step(&mut self) -> bool {
        self.dtls.connect().is_ok()
    }

    pub(crate) fn client_output(&mut self) -> Option<Vec<u8>> {
        self.dtls.get_mut().outbox.pop_front()
    }

    pub(crate) fn client_input(&mut self, datagram: Vec<u8>) {
        self.dtls.get_mut().inbox.push_back(datagram);
    }

    /// Runs DTLS over `path` until both sides are quiet.
    pub(crate) fn handshake(&mut self, path: Path) {
        loop {
            let _ = self.client_step();
            let mut quiet = true;
            while let Some(mut datagram) = self.client_output() {
                quiet = false;
                self.feed(path, &mut datagram);
            }
            if self.session.needs_handshake_step() {
                self.session.handshake_step(self.now, &mut self.counters);
            }
            while let Some((_, datagram)) = self.transmit() {
                quiet = false;
                self.client_input(datagram);
            }
            if quiet {
                break;
            }
        }
    }

    pub(crate) fn take_keys(&mut self) {
        let ssl = self.dtls.ssl();
        assert_eq!(ssl.selected_srtp_profile().unwrap().name(), "SRTP_AEAD_AES_128_GCM");
        let profile = Profile::Aead128Gcm;
        let mut material = vec![0; profile.keying_material_len()];
        ssl.export_keying_material(&mut material, "EXTRACTOR-dtls_srtp", None).unwrap();
        let (client, server) = srtp::split_keying_material(profile, &material).unwrap();
        let sender = srtp::Sender::new(profile, client).unwrap();
        self.media = Some((sender, srtp::Receiver::new(profile, server).unwrap()));
    }

    pub(crate) fn sealed_rtp(&mut self, sequence: u16) -> Vec<u8> {
        let plain = rtp(sequence);
        let mut packet = plain.clone();
        packet.resize(plain.len() + MAX_TRAILER, 0);
        let (sender, _) = self.media.as_mut().expect("connected");
        let len = sender.protect_rtp(&mut packet, plain.len()).unwrap();
        packet.truncate(len);
        packet
    }

    pub(crate) fn sealed_rtcp(&mut self) -> Vec<u8> {
        let mut packet = RECEIVER_REPORT.to_vec();
        packet.resize(RECEIVER_REPORT.len() + MAX_TRAILER, 0);
        let (sender, _) = self.media.as_mut().expect("connected");
        let len = sender.protect_rtcp(&mut packet, RECEIVER_REPORT.len()).unwrap();
        packet.truncate(len);
        packet
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }
}

pub(crate) const RECEIVER_REPORT: &[u8] = &[0x80, 201, 0, 1, 0, 0, 0, 9];

pub(crate) fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 9]);
    packet.extend((0..100).map(|n| n as u8));
    packet
}
