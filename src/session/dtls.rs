//! DTLS 1.3 and 1.2, passive side, over queues of datagrams (RFC 9147, RFC 6347, RFC 5764).
//!
//! BoringSSL does the protocol. What is ours: the clock, the bounds, and that the peer's
//! certificate is compared to the fingerprints of the SDP while the handshake still runs, so that
//! no keys exist for anybody else.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest;
use boring::error::ErrorStack;
use boring::ex_data::Index;
use boring::pkey::PKey;
use boring::srtp::SrtpProfileId;
use boring::ssl::{
    ErrorCode, Ssl, SslAlert, SslContext, SslMethod, SslOptions, SslRef, SslSessionCacheMode,
    SslSignatureAlgorithm, SslStream, SslVerifyError, SslVerifyMode, SslVersion,
};
use boring::x509::X509;

use super::dtls_ffi as ffi;
use super::srtp::{self, Profile};
use crate::time::Mono;
pub use crate::wire::sdp::{Fingerprint, HashAlgorithm};

/// Longest DTLS datagram we send, bytes.
pub const MTU: usize = 1200;

/// Longest DTLS datagram taken in, bytes: an Ethernet payload.
const MAX_DATAGRAM: usize = 1500;

/// Datagrams waiting for the library. GStreamer's RSA flight in 256-byte fragments takes eight.
const MAX_INBOX: usize = 32;

/// Datagrams waiting to be sent; a flight of ours is three.
const MAX_OUTBOX: usize = 32;

/// Fresh starts allowed before a ClientHello has been understood. Injected bytes that merely look
/// like a plaintext record would otherwise end the handshake for good.
const MAX_RESTARTS: u32 = 64;

/// Key exchange groups, in our order of preference.
const GROUPS: &str = "X25519MLKEM768:X25519:P-256";

/// DTLS 1.2 ciphers: forward secret, authenticated, for an ECDSA certificate (1.3 has its own).
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:\
                       ECDHE-ECDSA-CHACHA20-POLY1305";

/// SRTP profiles, in our order of preference.
const PROFILES: &str = "SRTP_AEAD_AES_128_GCM:SRTP_AEAD_AES_256_GCM:SRTP_AES128_CM_SHA1_80";

/// Signatures taken from the peer's certificate key: the library's list without SHA-1.
const SIGNATURES: &[SslSignatureAlgorithm] = &[
    SslSignatureAlgorithm::ECDSA_SECP256R1_SHA256,
    SslSignatureAlgorithm::RSA_PSS_RSAE_SHA256,
    SslSignatureAlgorithm::RSA_PKCS1_SHA256,
    SslSignatureAlgorithm::ECDSA_SECP384R1_SHA384,
    SslSignatureAlgorithm::RSA_PSS_RSAE_SHA384,
    SslSignatureAlgorithm::RSA_PKCS1_SHA384,
    SslSignatureAlgorithm::RSA_PSS_RSAE_SHA512,
    SslSignatureAlgorithm::RSA_PKCS1_SHA512,
];

/// The exporter label of RFC 5764 section 4.2.
const EXPORTER: &str = "EXTRACTOR-dtls_srtp";

fn digest_of(algorithm: HashAlgorithm, der: &[u8]) -> digest::Digest {
    let algorithm = match algorithm {
        HashAlgorithm::Sha256 => &digest::SHA256,
        HashAlgorithm::Sha384 => &digest::SHA384,
        HashAlgorithm::Sha512 => &digest::SHA512,
    };
    digest::digest(algorithm, der)
}

/// A negotiated protocol version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Version {
    /// DTLS 1.2 (RFC 6347).
    Dtls12,
    /// DTLS 1.3 (RFC 9147).
    Dtls13,
}

/// A certificate, key or option the library refused. Its text holds no key material.
#[derive(Debug, thiserror::Error)]
#[error("DTLS set-up failed: {0}")]
pub struct ContextError(#[from] ErrorStack);

/// Our certificate and what we accept, shared by all sessions.
pub struct Context {
    ssl: SslContext,
    fingerprint: String,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("dtls::Context").field("fingerprint", &self.fingerprint).finish()
    }
}

impl Context {
    /// From a certificate (DER or PEM) and its private key (PEM).
    ///
    /// # Errors
    /// When either cannot be read, or they do not belong together.
    pub fn new(certificate: &[u8], key_pem: &str) -> Result<Self, ContextError> {
        let certificate = if certificate.starts_with(b"-----BEGIN") {
            X509::from_pem(certificate)?
        } else {
            X509::from_der(certificate)?
        };
        let key = PKey::private_key_from_pem(key_pem.as_bytes())?;
        let mut builder = SslContext::builder(SslMethod::dtls())?;
        builder.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
        builder.set_max_proto_version(Some(SslVersion::DTLS1_3))?;
        builder.set_curves_list(GROUPS)?;
        builder.set_strict_cipher_list(CIPHERS)?;
        builder.set_tlsext_use_srtp(PROFILES)?;
        builder.set_verify_algorithm_prefs(SIGNATURES)?;
        builder.set_options(
            SslOptions::NO_TICKET | SslOptions::NO_QUERY_MTU | SslOptions::NO_RENEGOTIATION,
        );
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        builder.set_certificate(&certificate)?;
        builder.set_private_key(&key)?;
        builder.check_private_key()?;
        // Trust comes from the fingerprint alone; chains, names and dates are of no account.
        builder.set_custom_verify_callback(
            SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
            |ssl| if verify(ssl) { Ok(()) } else { Err(SslVerifyError::Invalid(REFUSED)) },
        );
        ffi::install_clock(&mut builder);
        let der = certificate.to_der()?;
        let fingerprint = printed(HashAlgorithm::Sha256, &der);
        Ok(Self { ssl: builder.build(), fingerprint })
    }

    /// `sha-256 AA:BB:…`, the value of our `a=fingerprint`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

const REFUSED: SslAlert = SslAlert::BAD_CERTIFICATE;

fn printed(algorithm: HashAlgorithm, der: &[u8]) -> String {
    let mut text = String::from(algorithm.name());
    for (i, byte) in digest_of(algorithm, der).as_ref().iter().enumerate() {
        text.push(if i == 0 { ' ' } else { ':' });
        text.push_str(&format!("{byte:02X}"));
    }
    text
}

/// What the verify callback needs of one session.
struct Expected {
    fingerprints: Vec<Fingerprint>,
    accepted: AtomicBool,
    refused: AtomicBool,
}

fn expected_index() -> Result<Index<Ssl, Arc<Expected>>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, Arc<Expected>>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    // Two threads may both come here: the loser's index is never used.
    let index = Ssl::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}

fn verify(ssl: &SslRef) -> bool {
    let Ok(index) = expected_index() else { return false };
    let Some(expected) = ssl.ex_data(index) else { return false };
    let der = ssl.peer_certificate().and_then(|certificate| certificate.to_der().ok());
    let fits = der.is_some_and(|der| {
        let fits = |print: &Fingerprint| digest_of(print.algorithm, &der).as_ref() == print.bytes;
        expected.fingerprints.iter().any(fits)
    });
    expected.accepted.store(fits, Ordering::Relaxed);
    expected.refused.store(!fits, Ordering::Relaxed);
    fits
}

/// Datagrams in and out: one read is one datagram, one write is one datagram.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    pub(super) inbox: VecDeque<Vec<u8>>,
    pub(super) outbox: VecDeque<Vec<u8>>,
}

impl io::Read for Datagrams {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let datagram = self.inbox.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let len = datagram.len().min(buf.len());
        for (to, from) in buf.iter_mut().zip(&datagram) {
            *to = *from;
        }
        Ok(len)
    }
}

impl io::Write for Datagrams {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // A full outbox is a lossy network: the timer sends the flight again.
        if self.outbox.len() < MAX_OUTBOX {
            self.outbox.push_back(buf.to_vec());
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a finished handshake agreed on.
pub(super) struct Agreed {
    pub(super) version: Version,
    pub(super) profile: Profile,
    pub(super) receiver: srtp::Receiver,
    pub(super) sender: srtp::Sender,
}

/// Why a handshake or a connection is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// The peer's certificate is not the one its SDP announced.
    Fingerprint,
    /// Anything else the library refused, or nothing in common.
    Handshake,
}

/// How far a step got.
pub(super) enum Step {
    Pending,
    Done(Box<Agreed>),
    Failed(Failure),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Handshaking,
    Connected,
    Over,
}

/// One DTLS connection, as server.
pub(super) struct Dtls {
    stream: SslStream<Datagrams>,
    context: Arc<Context>,
    expected: Arc<Expected>,
    state: State,
    deadline: Option<Mono>,
    restarts: u32,
}

impl std::fmt::Debug for Dtls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dtls").field("state", &self.state).finish_non_exhaustive()
    }
}

fn open(context: &Context, expected: &Arc<Expected>) -> Result<SslStream<Datagrams>, ErrorStack> {
    let mut ssl = Ssl::new(&context.ssl)?;
    ssl.set_mtu(MTU as u32)?;
    ssl.set_ex_data(expected_index()?, Arc::clone(expected));
    SslStream::new(ssl, Datagrams::default())
}

impl Dtls {
    pub(super) fn new(
        context: Arc<Context>,
        fingerprints: Vec<Fingerprint>,
    ) -> Result<Self, ContextError> {
        let expected = Arc::new(Expected {
            fingerprints,
            accepted: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        });
        let stream = open(&context, &expected)?;
        let state = State::Handshaking;
        Ok(Self { stream, context, expected, state, deadline: None, restarts: 0 })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.state == State::Handshaking
    }

    pub(super) fn has_input(&self) -> bool {
        !self.stream.get_ref().inbox.is_empty()
    }

    /// Queues a datagram for the next [`Self::step`] or [`Self::read`]; false: no room.
    pub(super) fn push(&mut self, datagram: &[u8]) -> bool {
        let inbox = &mut self.stream.get_mut().inbox;
        if inbox.len() >= MAX_INBOX || datagram.len() > MAX_DATAGRAM {
            return false;
        }
        inbox.push_back(datagram.to_vec());
        true
    }

    /// The next datagram to send.
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        self.stream.get_mut().outbox.pop_front()
    }

    /// Throws away what is not sent yet.
    pub(super) fn clear_output(&mut self) {
        self.stream.get_mut().outbox.clear();
    }

    /// Throws away what is not sent yet, but for the last word.
    pub(super) fn keep_last_output(&mut self) {
        let outbox = &mut self.stream.get_mut().outbox;
        outbox.drain(..outbox.len().saturating_sub(1));
    }

    /// When [`Self::on_timeout`] wants to be called.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.deadline
    }

    /// Name of the key exchange group, once there is one.
    pub(super) fn group(&self) -> Option<&'static str> {
        self.stream.ssl().curve_name()
    }

    /// Takes the queued datagrams and runs the handshake as far as they carry.
    pub(super) fn step(&mut self, now: Mono) -> Step {
        if self.state != State::Handshaking {
            return Step::Pending;
        }
        let result = ffi::at(now, || self.stream.accept());
        let step = match result {
            Ok(()) => self.agree().map_or_else(|| self.part(now), Step::Done),
            Err(error) if is_waiting(error.code()) => Step::Pending,
            Err(_) if self.restart() => Step::Pending,
            Err(_) if self.expected.refused.load(Ordering::Relaxed) => {
                Step::Failed(Failure::Fingerprint)
            }
            Err(_) => Step::Failed(Failure::Handshake),
        };
        self.state = match step {
            Step::Pending => State::Handshaking,
            Step::Done(_) => State::Connected,
            Step::Failed(_) => State::Over,
        };
        self.update_deadline(now);
        step
    }

    /// Takes the queued datagrams after the handshake and gives application data to `take`, a
    /// record a call. False: the peer closed, or broke, the connection.
    pub(super) fn read(&mut self, now: Mono, mut take: impl FnMut(&[u8])) -> bool {
        if self.state != State::Connected {
            return true;
        }
        let mut record = [0; MAX_DATAGRAM];
        let open = loop {
            match ffi::at(now, || self.stream.ssl_read(&mut record)) {
                Ok(len) => take(record.get(..len).unwrap_or_default()),
                Err(error) => break is_waiting(error.code()),
            }
        };
        if !open {
            self.state = State::Over;
            // Answers the peer's close_notify; after an error there is nothing to answer.
            let _ = ffi::at(now, || self.stream.shutdown());
            clear_errors();
        }
        self.update_deadline(now);
        open
    }

    /// Whether [`Self::write`] would queue a datagram.
    pub(super) fn has_room(&self) -> bool {
        self.state == State::Connected && self.stream.get_ref().outbox.len() < MAX_OUTBOX
    }

    /// Queues application data as one record.
    pub(super) fn write(&mut self, now: Mono, bytes: &[u8]) {
        if self.state == State::Connected && ffi::at(now, || self.stream.ssl_write(bytes)).is_err()
        {
            clear_errors();
        }
    }

    /// Retransmits what is due. False: given up.
    pub(super) fn on_timeout(&mut self, now: Mono) -> bool {
        if self.state == State::Over || self.deadline.is_none_or(|deadline| now < deadline) {
            return true;
        }
        let alive = ffi::at(now, || ffi::handle_timeout(self.stream.ssl_mut()));
        if !alive {
            clear_errors();
            self.state = State::Over;
        }
        self.update_deadline(now);
        alive
    }

    /// Queues close_notify, and nothing but it, if there is a connection to close.
    pub(super) fn close(&mut self, now: Mono) {
        self.clear_output();
        if self.state == State::Connected {
            let _ = ffi::at(now, || self.stream.shutdown());
            clear_errors();
        }
        self.state = State::Over;
        self.deadline = None;
    }

    fn update_deadline(&mut self, now: Mono) {
        self.deadline = match self.state {
            State::Over => None,
            _ => ffi::at(now, || ffi::timeout(self.stream.ssl())).map(|left| now.plus(left)),
        };
    }

    /// After an error before any ClientHello was understood: starts afresh and keeps what came
    /// behind the bad datagram.
    fn restart(&mut self) -> bool {
        let mut random = [0; 32];
        self.stream.ssl().client_random(&mut random);
        if random != [0; 32] || self.restarts >= MAX_RESTARTS {
            return false;
        }
        let Ok(stream) = open(&self.context, &self.expected) else { return false };
        let old = std::mem::replace(&mut self.stream, stream);
        self.stream.get_mut().inbox = std::mem::take(&mut { old }.get_mut().inbox);
        self.restarts += 1;
        true
    }

    /// A handshake that succeeded without an SRTP profile, or without our verdict on the peer.
    fn part(&mut self, now: Mono) -> Step {
        let _ = ffi::at(now, || self.stream.shutdown());
        clear_errors();
        Step::Failed(Failure::Handshake)
    }

    fn agree(&self) -> Option<Box<Agreed>> {
        let ssl = self.stream.ssl();
        if !self.expected.accepted.load(Ordering::Relaxed) {
            return None;
        }
        let version = match ssl.version2()? {
            SslVersion::DTLS1_3 => Version::Dtls13,
            SslVersion::DTLS1_2 => Version::Dtls12,
            _ => return None,
        };
        let profile = match ssl.selected_srtp_profile()?.id() {
            SrtpProfileId::SRTP_AEAD_AES_128_GCM => Profile::Aead128Gcm,
            SrtpProfileId::SRTP_AEAD_AES_256_GCM => Profile::Aead256Gcm,
            SrtpProfileId::SRTP_AES128_CM_SHA1_80 => Profile::AesCm128HmacSha1_80,
            _ => return None,
        };
        let mut material = [0; srtp::MAX_KEYING_MATERIAL];
        let material = material.get_mut(..profile.keying_material_len())?;
        ssl.export_keying_material(material, EXPORTER, None).ok()?;
        let (client, server) = srtp::split_keying_material(profile, material)?;
        let receiver = srtp::Receiver::new(profile, client).ok()?;
        let sender = srtp::Sender::new(profile, server).ok()?;
        material.fill(0);
        Some(Box::new(Agreed { version, profile, receiver, sender }))
    }
}

fn is_waiting(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::WANT_READ | ErrorCode::WANT_WRITE)
}

/// BoringSSL keeps a queue of errors per thread: another session's call must not find ours.
fn clear_errors() {
    drop(ErrorStack::get());
}
