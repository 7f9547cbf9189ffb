//! A small WebRTC endpoint for tests: TURN, ICE, DTLS and SRTP over one blocking UDP socket.
//! BoringSSL is the DTLS client; the TURN side is checked against other clients elsewhere.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

pub mod gateway;
pub mod playing;

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use boring::pkey::PKey;
use boring::ssl::{
    ErrorCode, HandshakeError, MidHandshakeSslStream, Ssl, SslContext, SslMethod, SslStream,
    SslVerifyMode, SslVersion,
};
use boring::x509::X509;
use veilgate::auth::turn::Minted;
use veilgate::session::srtp::{self, Profile, Receiver, Sender};
use veilgate::wire::channel_data;
use veilgate::wire::stun::{Builder, Class, IntegrityKey, Message, Method, TransactionId, attr};

/// The first channel bound.
const CHANNEL: u16 = 0x4000;
/// Nothing on loopback takes this long; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Wire {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(datagram) = self.incoming.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        buf[..datagram.len()].copy_from_slice(&datagram);
        Ok(datagram.len())
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.outgoing.push_back(buf.to_vec());
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the answer SDP says of the gateway.
#[derive(Clone, Debug)]
pub struct Remote {
    pub ufrag: String,
    pub pwd: String,
    pub media: SocketAddr,
    pub audio_ssrc: Option<u32>,
    pub video_ssrc: Option<u32>,
}

impl Remote {
    pub fn from_answer(sdp: &str) -> Self {
        let value = |key: &str| {
            let found = sdp.lines().find_map(|l| l.strip_prefix(key));
            found.unwrap_or_else(|| panic!("no {key} in\n{sdp}")).to_owned()
        };
        let candidate = value("a=candidate:");
        let fields: Vec<_> = candidate.split(' ').collect();
        let mut ssrc = [None, None];
        let mut section = 0;
        for line in sdp.lines() {
            if line.starts_with("m=") {
                section = usize::from(line.starts_with("m=video"));
            }
            if let Some(rest) = line.strip_prefix("a=ssrc:") {
                let id = rest.split(' ').next().and_then(|id| id.parse().ok());
                ssrc[section] = ssrc[section].or(id);
            }
        }
        Self {
            ufrag: value("a=ice-ufrag:"),
            pwd: value("a=ice-pwd:"),
            media: SocketAddr::new(
                fields[4].parse().expect("ip"),
                fields[5].parse().expect("port"),
            ),
            audio_ssrc: ssrc[0],
            video_ssrc: ssrc[1],
        }
    }
}

/// A certificate and the fingerprint line for it.
pub struct Identity {
    certificate: X509,
    key: PKey<boring::pkey::Private>,
    pub fingerprint: String,
}

impl Identity {
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["peer".to_owned()]).expect("makes one");
        let der = made.cert.der();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        let hex: Vec<_> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
        Self {
            certificate: X509::from_der(der).expect("valid"),
            key: PKey::private_key_from_pem(made.signing_key.serialize_pem().as_bytes())
                .expect("valid"),
            fingerprint: format!("sha-256 {}", hex.join(":")),
        }
    }
}

/// An offer of Opus and VP8, one direction.
pub fn offer(identity: &Identity, direction: &str, ufrag: &str) -> String {
    let mut sdp = String::from(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=msid-semantic: WMS *\r\n",
    );
    for (mid, line) in
        [(0, "m=audio 9 UDP/TLS/RTP/SAVPF 111"), (1, "m=video 9 UDP/TLS/RTP/SAVPF 96 97")]
    {
        let codec = if mid == 0 {
            "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n"
        } else {
            "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 goog-remb\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
        };
        sdp.push_str(&format!(
            "{line}\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:{ufrag}\r\n\
             a=ice-pwd:0123456789abcdef01234567\r\na=ice-options:trickle\r\na=fingerprint:{}\r\n\
             a=setup:actpass\r\na=mid:{mid}\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
             a={direction}\r\na=rtcp-mux\r\n{codec}",
            identity.fingerprint
        ));
    }
    sdp
}

/// An endpoint with an allocation.
pub struct Peer {
    socket: UdpSocket,
    server: SocketAddr,
    username: String,
    key: IntegrityKey,
    realm: String,
    nonce: String,
    media: SocketAddr,
    next: u32,
    srtp: Option<(Sender, Receiver)>,
    pub profile: Option<Profile>,
    pub relayed: SocketAddr,
    pub all_relayed: Vec<SocketAddr>,
    last_from: Cell<Option<SocketAddr>>,
    channel: u16,
}

impl Peer {
    /// Allocates with a minted credential, asserting the 401 round.
    pub fn allocate(server: SocketAddr, media: SocketAddr, minted: &Minted) -> Self {
        let attempt = || Self::try_allocate(server, media, &minted.username, &minted.credential);
        // 437: the kernel gave this socket a port that one of before had, whose allocation still
        // lives. RFC 8656 section 7.4 has the client try another port.
        let peer = (0..4).map(|_| attempt()).find(|peer| !matches!(peer, Err(437)));
        peer.expect("one of four ports is new").unwrap_or_else(|code| panic!("refused: {code}"))
    }

    /// As [`Self::allocate`]; the code of a refusal.
    pub fn try_allocate(
        server: SocketAddr,
        media: SocketAddr,
        username: &str,
        credential: &str,
    ) -> Result<Self, u16> {
        Self::try_allocate_from((server.ip(), 0).into(), server, media, username, credential)
    }

    /// As [`Self::try_allocate`], from another address than the server's.
    pub fn try_allocate_from(
        bind: SocketAddr,
        server: SocketAddr,
        media: SocketAddr,
        username: &str,
        credential: &str,
    ) -> Result<Self, u16> {
        let socket = UdpSocket::bind(bind).expect("an address of this machine");
        Self::allocate_on(socket, server, media, (username, credential), |_| {})
    }

    /// From the socket of this one, at another port of the server.
    pub fn beside(&self, server: SocketAddr, minted: &Minted) -> Self {
        let socket = self.socket.try_clone().expect("a descriptor");
        let credential = (minted.username.as_str(), minted.credential.as_str());
        let peer = Self::allocate_on(socket, server, self.media, credential, |_| {});
        peer.unwrap_or_else(|code| panic!("refused: {code}"))
    }

    /// With whatever `ask` adds to the Allocate; the relayed address is that of `media`'s family.
    pub fn allocate_asking(
        server: SocketAddr,
        media: SocketAddr,
        minted: &Minted,
        ask: impl Fn(&mut Builder<'_>),
    ) -> Self {
        let credential = (minted.username.as_str(), minted.credential.as_str());
        let attempt = || {
            let socket = UdpSocket::bind((server.ip(), 0)).expect("loopback");
            Self::allocate_on(socket, server, media, credential, &ask)
        };
        let peer = (0..4).map(|_| attempt()).find(|peer| !matches!(peer, Err(437)));
        peer.expect("one of four ports is new").unwrap_or_else(|code| panic!("refused: {code}"))
    }

    fn allocate_on(
        socket: UdpSocket,
        server: SocketAddr,
        media: SocketAddr,
        (username, credential): (&str, &str),
        ask: impl Fn(&mut Builder<'_>),
    ) -> Result<Self, u16> {
        socket.set_read_timeout(Some(PATIENCE)).expect("socket option");
        let mut peer = Self {
            socket,
            server,
            username: username.to_owned(),
            key: IntegrityKey::from_bytes(&[]),
            realm: String::new(),
            nonce: String::new(),
            media,
            next: 0,
            srtp: None,
            profile: None,
            relayed: media,
            all_relayed: Vec::new(),
            last_from: Cell::new(None),
            channel: CHANNEL,
        };
        let udp = |b: &mut Builder<'_>| {
            b.u32(attr::REQUESTED_TRANSPORT, 17 << 24);
            ask(b);
        };
        let challenge = peer.request(Method::ALLOCATE, false, udp);
        let challenge = Message::parse(&challenge).expect("STUN");
        assert_eq!(challenge.error_code(), Some(401));
        peer.realm = challenge.text(attr::REALM).expect("realm").to_owned();
        peer.nonce = challenge.text(attr::NONCE).expect("nonce").to_owned();
        peer.key = IntegrityKey::long_term(username, &peer.realm, credential).expect("MD5 works");
        let answer = peer.request(Method::ALLOCATE, true, udp);
        let answer = Message::parse(&answer).expect("STUN");
        if answer.class() != Class::Success {
            return Err(answer.error_code().expect("a code"));
        }
        peer.all_relayed = (answer.attributes())
            .filter(|(kind, _)| *kind == attr::XOR_RELAYED_ADDRESS)
            .filter_map(|(_, value)| answer.decode_xor_address(value))
            .collect();
        peer.talk_to(media);
        Ok(peer)
    }

    /// Uses another media address from now on, from the relayed address of its family.
    pub fn talk_to(&mut self, media: SocketAddr) {
        let same = |relayed: &&SocketAddr| relayed.is_ipv4() == media.is_ipv4();
        self.relayed = *self.all_relayed.iter().find(same).expect("a relayed address");
        self.media = media;
    }

    fn id(&mut self) -> TransactionId {
        self.next += 1;
        let mut id = [7; 12];
        id[..4].copy_from_slice(&self.next.to_be_bytes());
        TransactionId(id)
    }

    /// One request to the relay and its answer; indications and channel data are passed over.
    pub fn request(
        &mut self,
        method: Method,
        authenticated: bool,
        add: impl Fn(&mut Builder<'_>),
    ) -> Vec<u8> {
        let mut buf = [0; 1_024];
        let id = self.id();
        let mut builder = Builder::new(&mut buf, Class::Request, method, id);
        add(&mut builder);
        if authenticated {
            builder.text(attr::USERNAME, &self.username);
            builder.text(attr::REALM, &self.realm);
            builder.text(attr::NONCE, &self.nonce);
            builder.integrity(&self.key);
        }
        let len = builder.finish().expect("fits");
        self.socket.send_to(&buf[..len], self.server).expect("sends");
        loop {
            let datagram = self.read();
            if Message::parse(&datagram).is_ok_and(|m| m.transaction_id() == id) {
                return datagram;
            }
        }
    }

    fn read(&self) -> Vec<u8> {
        let mut buf = [0; 2_048];
        let (len, from) = self.socket.recv_from(&mut buf).expect("an answer in time");
        self.last_from.set(Some(from));
        buf[..len].to_vec()
    }

    /// Sends a payload through the channel.
    pub fn send_relayed(&self, payload: &[u8]) {
        let mut datagram = vec![0; 4];
        let header = datagram.first_chunk_mut().expect("four bytes");
        channel_data::write_header(header, self.channel, payload.len() as u16);
        datagram.extend_from_slice(payload);
        self.socket.send_to(&datagram, self.server).expect("sends");
    }

    /// The next payload that comes through the channel, within the socket's time limit.
    pub fn recv_relayed(&self) -> Option<Vec<u8>> {
        let mut buf = [0; 2_048];
        loop {
            let (len, _) = self.socket.recv_from(&mut buf).ok()?;
            if let Ok(data) = channel_data::parse(&buf[..len]) {
                assert_eq!(data.channel, self.channel);
                return Some(buf[data.data].to_vec());
            }
        }
    }

    /// The next datagram of any kind, if one comes within `wait`.
    pub fn try_recv(&self, wait: Duration) -> Option<Vec<u8>> {
        let mut buf = [0; 2_048];
        self.socket.set_read_timeout(Some(wait)).expect("socket option");
        let len = self.socket.recv(&mut buf);
        self.socket.set_read_timeout(Some(PATIENCE)).expect("socket option");
        Some(buf[..len.ok()?].to_vec())
    }

    /// Permission, channel, checks, DTLS: until SRTP keys are there.
    pub fn connect(&mut self, identity: &Identity, own_ufrag: &str, remote: &Remote) {
        self.connect_with(identity, own_ufrag, remote, SslVersion::DTLS1_3);
    }

    /// A channel to the media address.
    pub fn bind_channel(&mut self) {
        self.bind_channel_to(self.media);
    }

    /// The server as the last datagram from it told.
    pub fn last_from(&self) -> Option<SocketAddr> {
        self.last_from.get()
    }

    /// A further channel to the media address, used from now on.
    pub fn bind_channel_number(&mut self, number: u16) {
        self.use_channel(number);
        self.bind_channel();
    }

    /// Uses a channel that was bound before.
    pub fn use_channel(&mut self, number: u16) {
        self.channel = number;
    }

    /// The channel, to any peer.
    pub fn bind_channel_to(&mut self, peer: SocketAddr) {
        let number = u32::from(self.channel);
        let answer = self.request(Method::CHANNEL_BIND, true, |b| {
            b.u32(attr::CHANNEL_NUMBER, number << 16);
            b.xor_address(attr::XOR_PEER_ADDRESS, peer);
        });
        assert_eq!(Message::parse(&answer).expect("STUN").class(), Class::Success);
    }

    pub fn connect_with(
        &mut self,
        identity: &Identity,
        own_ufrag: &str,
        remote: &Remote,
        version: SslVersion,
    ) {
        self.bind_channel();
        self.check(own_ufrag, remote, true);

        let mut builder = SslContext::builder(SslMethod::dtls()).expect("context");
        builder.set_max_proto_version(Some(version)).expect("version");
        builder.set_min_proto_version(Some(SslVersion::DTLS1_2)).expect("version");
        builder.set_certificate(&identity.certificate).expect("certificate");
        builder.set_private_key(&identity.key).expect("key");
        builder.set_verify(SslVerifyMode::NONE);
        builder
            .set_tlsext_use_srtp("SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_128_GCM")
            .expect("profiles");
        let ssl = Ssl::new(&builder.build()).expect("session");
        let stream = self.handshake(ssl.setup_connect(Wire::default()).handshake());
        let name = stream.ssl().selected_srtp_profile().expect("use_srtp").name().to_owned();
        let profile = match name.as_str() {
            "SRTP_AEAD_AES_128_GCM" => Profile::Aead128Gcm,
            "SRTP_AES128_CM_SHA1_80" => Profile::AesCm128HmacSha1_80,
            other => panic!("{other}"),
        };
        let mut material = vec![0; profile.keying_material_len()];
        stream
            .ssl()
            .export_keying_material(&mut material, "EXTRACTOR-dtls_srtp", None)
            .expect("exporter");
        let (client, server) = srtp::split_keying_material(profile, &material).expect("length");
        let sender = Sender::new(profile, client).expect("key");
        self.srtp = Some((sender, Receiver::new(profile, server).expect("key")));
        self.profile = Some(profile);
    }

    fn handshake(
        &self,
        mut step: Result<SslStream<Wire>, HandshakeError<Wire>>,
    ) -> SslStream<Wire> {
        loop {
            let mut mid: MidHandshakeSslStream<Wire> = match step {
                Ok(mut stream) => {
                    self.drain(stream.get_mut());
                    return stream;
                }
                Err(HandshakeError::Failure(mid)) if mid.error().code() == ErrorCode::WANT_READ => {
                    mid
                }
                Err(HandshakeError::WouldBlock(mid)) => mid,
                Err(e) => panic!("DTLS: {e:?}"),
            };
            self.drain(mid.get_mut());
            let payload = self.recv_relayed().expect("a DTLS flight in time");
            // Late answers to checks come in between.
            if payload.first().is_some_and(|b| (20..64).contains(b)) {
                mid.get_mut().incoming.push_back(payload);
            }
            step = mid.handshake();
        }
    }

    fn drain(&self, wire: &mut Wire) {
        while let Some(datagram) = wire.outgoing.pop_front() {
            self.send_relayed(&datagram);
        }
    }

    /// One connectivity check, answered.
    pub fn check(&mut self, own_ufrag: &str, remote: &Remote, nominate: bool) {
        let (id, check) = self.build_check(own_ufrag, remote, nominate);
        let key = IntegrityKey::short_term(remote.pwd.as_bytes());
        // A move between shards may lose a packet; a client repeats its checks as well.
        self.socket.set_read_timeout(Some(Duration::from_millis(500))).expect("socket option");
        for _ in 0..20 {
            self.send_relayed(&check);
            while let Some(payload) = self.recv_relayed() {
                let Ok(answer) = Message::parse(&payload) else { continue };
                if answer.transaction_id() == id {
                    assert_eq!(answer.class(), Class::Success, "{:?}", answer.error_code());
                    assert!(answer.verify_integrity(&key));
                    assert_eq!(answer.xor_address(attr::XOR_MAPPED_ADDRESS), Some(self.relayed));
                    self.socket.set_read_timeout(Some(PATIENCE)).expect("socket option");
                    return;
                }
            }
        }
        panic!("no answer to a check");
    }

    fn build_check(
        &mut self,
        own_ufrag: &str,
        remote: &Remote,
        nominate: bool,
    ) -> (TransactionId, Vec<u8>) {
        let mut buf = [0; 512];
        let id = self.id();
        let mut builder = Builder::new(&mut buf, Class::Request, Method::BINDING, id);
        builder.text(attr::USERNAME, &format!("{}:{own_ufrag}", remote.ufrag));
        builder.u32(attr::PRIORITY, 1);
        builder.attribute(attr::ICE_CONTROLLING, &[1; 8]);
        if nominate {
            builder.attribute(attr::USE_CANDIDATE, &[]);
        }
        builder.integrity(&IntegrityKey::short_term(remote.pwd.as_bytes()));
        builder.fingerprint();
        let len = builder.finish().expect("fits");
        (id, buf[..len].to_vec())
    }

    /// Sends a nominating check and does not wait for its answer.
    pub fn nominate(&mut self, own_ufrag: &str, remote: &Remote) {
        let (_, check) = self.build_check(own_ufrag, remote, true);
        self.send_relayed(&check);
    }

    /// Whether a check is answered within `wait`.
    pub fn is_answered(&mut self, own_ufrag: &str, remote: &Remote, wait: Duration) -> bool {
        let (id, check) = self.build_check(own_ufrag, remote, true);
        self.socket.set_read_timeout(Some(wait)).expect("socket option");
        self.send_relayed(&check);
        let mut answered = false;
        while let Some(payload) = self.recv_relayed() {
            answered |= Message::parse(&payload).is_ok_and(|m| m.transaction_id() == id);
        }
        self.socket.set_read_timeout(Some(PATIENCE)).expect("socket option");
        answered
    }

    /// Bytes to the media address as they are.
    pub fn send_raw(&self, payload: &[u8]) {
        self.send_relayed(payload);
    }

    /// Goes on with the SRTP keys of `before`, as a client does after an ICE restart.
    pub fn take_over(&mut self, before: &mut Self) {
        self.srtp = before.srtp.take();
        self.profile = before.profile;
    }

    /// Seals and sends an RTP packet.
    pub fn send_rtp(&mut self, packet: &[u8]) {
        let (sender, _) = self.srtp.as_mut().expect("connected");
        let mut buf = packet.to_vec();
        buf.resize(packet.len() + srtp::MAX_TRAILER, 0);
        let len = sender.protect_rtp(&mut buf, packet.len()).expect("seals");
        buf.truncate(len);
        self.send_relayed(&buf);
    }

    /// Seals and sends an RTCP compound.
    pub fn send_rtcp(&mut self, packet: &[u8]) {
        let (sender, _) = self.srtp.as_mut().expect("connected");
        let mut buf = packet.to_vec();
        buf.resize(packet.len() + srtp::MAX_TRAILER, 0);
        let len = sender.protect_rtcp(&mut buf, packet.len()).expect("seals");
        buf.truncate(len);
        self.send_relayed(&buf);
    }

    /// The next RTP or RTCP packet in clear, if one comes within `wait`.
    pub fn recv_media(&mut self, wait: Duration) -> Option<Vec<u8>> {
        self.socket.set_read_timeout(Some(wait)).expect("socket option");
        loop {
            let mut payload = self.recv_relayed()?;
            let (_, receiver) = self.srtp.as_mut().expect("connected");
            let len = match veilgate::wire::mux::inner(&payload) {
                veilgate::wire::mux::Inner::Rtp => receiver.unprotect_rtp(&mut payload),
                veilgate::wire::mux::Inner::Rtcp => receiver.unprotect_rtcp(&mut payload),
                _ => continue,
            };
            payload.truncate(len.expect("the gateway's own packets open"));
            return Some(payload);
        }
    }
}

/// A VP8 packet of the offer's video section; `keyframe`: the first of one.
pub fn vp8(sequence: u16, keyframe: bool) -> Vec<u8> {
    let mut packet = vec![0x90, 0x80 | 96];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 3_000).to_be_bytes());
    packet.extend(20u32.to_be_bytes());
    packet.extend([0xbe, 0xde, 0, 1, 0x40, b'1', 0, 0]);
    // VP8 payload descriptor with S set, then the frame tag whose lowest bit is 0 in a keyframe.
    packet.extend([0x10, u8::from(!keyframe), 0, 0, 0x9d, 0x01, 0x2a]);
    packet.extend([0x5a; 100]);
    packet
}
