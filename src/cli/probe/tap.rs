//! Between the TURN client and its transport: whatever passes is the client's, but for questions
//! of our own on the same 5-tuple, which a well-behaved client would never ask.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use stun::attributes::{
    ATTR_CHANNEL_NUMBER, ATTR_DATA, ATTR_NONCE, ATTR_REALM, ATTR_USERNAME, ATTR_XOR_PEER_ADDRESS,
    ATTR_XORMAPPED_ADDRESS,
};
use stun::error_code::ErrorCodeAttribute;
use stun::integrity::MessageIntegrity;
use stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_INDICATION, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter as _,
    METHOD_ALLOCATE, METHOD_DATA, METHOD_SEND, Message, MessageType, Method, Setter as _,
    is_message,
};
use stun::xoraddr::XorMappedAddress;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use webrtc_util::Conn;

use super::target::Credential;

/// Our channel numbers; the client draws its own from 0x4000 upwards.
const FIRST_CHANNEL: u16 = 0x4F00;
const LAST_CHANNEL: u16 = 0x4FFF;
/// A request is sent again after this, then after twice as long, and so on.
const RETRANSMIT: Duration = Duration::from_millis(250);

/// What became of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// A success response of this many bytes.
    Granted(usize),
    /// An error response: its code and its size in bytes.
    Refused(u16, usize),
    /// Nothing within the time.
    Silence,
}

impl Answer {
    /// Its code: 200, an error's, or none.
    pub(super) const fn code(self) -> Option<u16> {
        match self {
            Self::Granted(_) => Some(200),
            Self::Refused(code, _) => Some(code),
            Self::Silence => None,
        }
    }

    /// Bytes on the wire.
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Granted(len) | Self::Refused(_, len) => len,
            Self::Silence => 0,
        }
    }
}

/// An attribute, not yet in a message.
pub(super) enum Attribute {
    Raw(u16, Vec<u8>),
    Peer(SocketAddr),
}

impl Attribute {
    /// REQUESTED-TRANSPORT: UDP.
    pub(super) fn udp() -> Self {
        Self::Raw(0x0019, vec![17, 0, 0, 0])
    }

    pub(super) fn channel(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        Self::Raw(ATTR_CHANNEL_NUMBER.0, vec![high, low, 0, 0])
    }
}

#[derive(Default)]
struct State {
    waiting: HashMap<[u8; 12], oneshot::Sender<Answer>>,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    mapped: Option<SocketAddr>,
    /// The only peer whose payloads are the client's.
    echo: Option<SocketAddr>,
    /// Peers whose payloads reached us though nobody may have any but the echo.
    strays: HashSet<SocketAddr>,
    stray_channels: HashSet<u16>,
    trouble: Option<Trouble>,
    channels: u16,
}

/// Why nothing arrives, as far as this machine knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// The server's host says that nobody listens there.
    NobodyListens,
    /// Something else, in the system's words.
    Other(String),
}

/// A transport to the server, and who listens in on it.
pub(super) struct Tap {
    link: Arc<dyn Conn + Send + Sync>,
    server: SocketAddr,
    /// Datagrams get lost, streams do not.
    datagrams: bool,
    state: Mutex<State>,
}

impl Tap {
    pub(super) fn new(
        link: Arc<dyn Conn + Send + Sync>,
        server: SocketAddr,
        datagrams: bool,
    ) -> Self {
        Self { link, server, datagrams, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on payloads of any other peer are strays.
    pub(super) fn expect_only(&self, echo: Option<SocketAddr>) {
        self.state().echo = echo;
    }

    /// Where the server sees us.
    pub(super) fn mapped(&self) -> Option<SocketAddr> {
        self.state().mapped
    }

    /// Where we are for ourselves.
    pub(super) fn local_ip(&self) -> Option<IpAddr> {
        self.link.local_addr().ok().map(|address| address.ip())
    }

    /// What kept messages from going or coming.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.state().trouble.clone()
    }

    fn note(&self, error: &webrtc_util::Error) {
        self.state().trouble = Some(match error {
            error if is_refusal(error) => Trouble::NobodyListens,
            error => Trouble::Other(error.to_string()),
        });
    }

    /// Whether a payload of this peer has reached us.
    pub(super) fn heard(&self, peer: SocketAddr, channel: Option<u16>) -> bool {
        let state = self.state();
        state.strays.contains(&peer) || channel.is_some_and(|n| state.stray_channels.contains(&n))
    }

    /// A channel number that the client does not use.
    pub(super) fn next_channel(&self) -> u16 {
        let mut state = self.state();
        let number = FIRST_CHANNEL + state.channels % (LAST_CHANNEL - FIRST_CHANNEL + 1);
        state.channels = state.channels.wrapping_add(1);
        number
    }

    /// Whether the server has told its realm and a nonce.
    pub(super) fn challenged(&self) -> bool {
        let state = self.state();
        !state.realm.is_empty() && !state.nonce.is_empty()
    }

    /// Asks once, with retransmissions; a stale nonce is replaced and the question repeated.
    pub(super) async fn ask(
        &self,
        method: Method,
        attributes: &[Attribute],
        credential: Option<&Credential>,
        patience: Duration,
    ) -> Answer {
        let kind = MessageType::new(method, CLASS_REQUEST);
        let mut answer = Answer::Silence;
        for _ in 0..2 {
            let Some(message) = self.compose(kind, attributes, credential) else { break };
            answer = self.exchange(&message, patience).await;
            if credential.is_none() || answer.code() != Some(438) {
                break;
            }
        }
        answer
    }

    /// A Send indication: there is never an answer.
    pub(super) async fn send(&self, peer: SocketAddr, payload: &[u8]) -> bool {
        let kind = MessageType::new(METHOD_SEND, CLASS_INDICATION);
        let attributes = [Attribute::Peer(peer), Attribute::Raw(ATTR_DATA.0, payload.to_vec())];
        let Some(message) = self.compose(kind, &attributes, None) else { return false };
        self.link.send_to(&message.raw, self.server).await.is_ok()
    }

    fn compose(
        &self,
        kind: MessageType,
        attributes: &[Attribute],
        credential: Option<&Credential>,
    ) -> Option<Message> {
        let mut message = Message::new();
        message.new_transaction_id().ok()?;
        message.set_type(kind);
        message.write_header();
        for attribute in attributes {
            match attribute {
                Attribute::Raw(kind, value) => {
                    message.add(stun::attributes::AttrType(*kind), value)
                }
                Attribute::Peer(peer) => {
                    let peer = XorMappedAddress { ip: peer.ip(), port: peer.port() };
                    peer.add_to_as(&mut message, ATTR_XOR_PEER_ADDRESS).ok()?;
                }
            }
        }
        if let Some(credential) = credential {
            let state = self.state();
            message.add(ATTR_USERNAME, credential.username.as_bytes());
            message.add(ATTR_REALM, &state.realm);
            message.add(ATTR_NONCE, &state.nonce);
            let realm = String::from_utf8_lossy(&state.realm).into_owned();
            let key = MessageIntegrity::new_long_term_integrity(
                credential.username.clone(),
                realm,
                credential.password.clone(),
            );
            key.add_to(&mut message).ok()?;
        }
        Some(message)
    }

    async fn exchange(&self, message: &Message, patience: Duration) -> Answer {
        let (answered, mut answer) = oneshot::channel();
        let id = message.transaction_id.0;
        self.state().waiting.insert(id, answered);
        let ask = async {
            let mut wait = RETRANSMIT;
            loop {
                // A host that says "nobody listens" makes one send fail, not the next.
                if let Err(error) = self.link.send_to(&message.raw, self.server).await {
                    self.note(&error);
                }
                if self.datagrams {
                    tokio::select! {
                        answer = &mut answer => return answer.unwrap_or(Answer::Silence),
                        () = sleep(wait) => wait *= 2,
                    }
                } else {
                    return (&mut answer).await.unwrap_or(Answer::Silence);
                }
            }
        };
        let answer = timeout(patience, ask).await.unwrap_or(Answer::Silence);
        self.state().waiting.remove(&id);
        answer
    }

    /// True when the client is to have it.
    fn on_inbound(&self, bytes: &[u8]) -> bool {
        if !is_message(bytes) {
            let Some([high, low]) = bytes.first_chunk::<2>() else { return false };
            let channel = u16::from_be_bytes([*high, *low]);
            let ours = (FIRST_CHANNEL..=LAST_CHANNEL).contains(&channel);
            if ours {
                self.state().stray_channels.insert(channel);
            }
            // The client ends at channels it has not bound and at bytes that are neither.
            return !ours && (0x40..0x50).contains(high);
        }
        let mut message = Message::new();
        message.raw = bytes.to_vec();
        if message.decode().is_err() {
            return false;
        }
        match message.typ.class {
            CLASS_INDICATION => message.typ.method == METHOD_DATA && self.on_data(&message),
            CLASS_SUCCESS_RESPONSE | CLASS_ERROR_RESPONSE => self.on_response(&message),
            _ => false,
        }
    }

    fn on_data(&self, message: &Message) -> bool {
        let mut peer = XorMappedAddress::default();
        if peer.get_from_as(message, ATTR_XOR_PEER_ADDRESS).is_err() {
            return false;
        }
        let peer = SocketAddr::new(peer.ip, peer.port);
        let mut state = self.state();
        let expected = state.echo == Some(peer);
        if !expected {
            state.strays.insert(peer);
        }
        expected
    }

    fn on_response(&self, message: &Message) -> bool {
        let mut state = self.state();
        let mut error = ErrorCodeAttribute::default();
        let answer = if message.typ.class == CLASS_SUCCESS_RESPONSE {
            Answer::Granted(message.raw.len())
        } else {
            // An error without a code is still a refusal.
            let code = error.get_from(message).map_or(0, |()| error.code.0);
            Answer::Refused(code, message.raw.len())
        };
        if let (Ok(realm), Ok(nonce)) = (message.get(ATTR_REALM), message.get(ATTR_NONCE)) {
            (state.realm, state.nonce) = (realm, nonce);
        }
        if let Some(waiting) = state.waiting.remove(&message.transaction_id.0) {
            // Nobody waits any more: as if it had come too late.
            let _late = waiting.send(answer);
            return false;
        }
        if message.typ.method == METHOD_ALLOCATE {
            let mut mapped = XorMappedAddress::default();
            if mapped.get_from_as(message, ATTR_XORMAPPED_ADDRESS).is_ok() {
                state.mapped = Some(SocketAddr::new(mapped.ip, mapped.port));
            }
        }
        true
    }
}

fn is_refusal(error: &webrtc_util::Error) -> bool {
    match error {
        webrtc_util::Error::Io(error) => error.0.kind() == io::ErrorKind::ConnectionRefused,
        _ => false,
    }
}

type Result<T> = std::result::Result<T, webrtc_util::Error>;

#[async_trait]
impl Conn for Tap {
    async fn connect(&self, address: SocketAddr) -> Result<()> {
        self.link.connect(address).await
    }

    async fn recv(&self, buffer: &mut [u8]) -> Result<usize> {
        self.recv_from(buffer).await.map(|(len, _)| len)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr)> {
        loop {
            match self.link.recv_from(buffer).await {
                Ok((len, from)) => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    if from == self.server && self.on_inbound(bytes) {
                        return Ok((len, from));
                    }
                }
                // The client would stop reading for good.
                Err(error) if self.datagrams && is_refusal(&error) => self.note(&error),
                Err(error) => {
                    self.note(&error);
                    return Err(error);
                }
            }
        }
    }

    async fn send(&self, bytes: &[u8]) -> Result<usize> {
        self.send_to(bytes, self.server).await
    }

    async fn send_to(&self, bytes: &[u8], target: SocketAddr) -> Result<usize> {
        self.link.send_to(bytes, target).await
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        self.link.local_addr()
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(self.server)
    }

    async fn close(&self) -> Result<()> {
        self.link.close().await
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}
