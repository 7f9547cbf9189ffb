//! The way to the gateway: a TURN allocation of another project's client, over the first
//! transport that works.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use stun::agent::TransactionId;
use stun::attributes::{ATTR_CHANNEL_NUMBER, ATTR_DATA, ATTR_XOR_PEER_ADDRESS};
use stun::message::{
    CLASS_INDICATION, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, METHOD_BINDING, METHOD_CHANNEL_BIND,
    METHOD_DATA, Message, MessageType, is_message,
};
use stun::xoraddr::XorMappedAddress;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn;

use crate::cli::probe::path::{self, Link};
use crate::cli::probe::target::{self, IceServer, Route, Transport, TurnUrl};

/// Packets from the gateway that wait for the local client: a keyframe's burst.
const QUEUE: usize = 1024;
/// A gateway has a few; each that leads nowhere keeps a client waiting.
const MOST_URLS: usize = 8;
/// So that an error that repeats does not keep a core busy.
const AFTER_AN_ERROR: Duration = Duration::from_millis(20);
/// How long a transport may take. OBS gives up a WHIP request after 8 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Which transports may be used, and how.
pub(super) struct Paths {
    pub(super) only: Option<Transport>,
    pub(super) tls: Arc<rustls::ClientConfig>,
    /// What worked last is tried first.
    pub(super) last: Mutex<Option<Transport>>,
}

/// Why there is no allocation: a line for each way that was tried.
#[derive(Debug)]
pub(super) struct NoRelay {
    /// The gateway answered, and refused.
    pub(super) refused: bool,
    tried: Vec<String>,
}

impl fmt::Display for NoRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no TURN allocation: ")?;
        f.write_str(&self.tried.join("; "))
    }
}

impl Paths {
    /// Opens an allocation over the first route that gives one: UDP, TCP, TLS.
    pub(super) async fn allocate(&self, server: &IceServer) -> Result<Allocation, NoRelay> {
        let mut failed = NoRelay { refused: false, tried: Vec::new() };
        for route in self.routes(server, &mut failed.tried).await {
            match self.over(&route, server).await {
                Ok(allocation) => {
                    self.remember(route.url.transport);
                    return Ok(allocation);
                }
                Err((refused, why)) => {
                    failed.refused |= refused;
                    failed.tried.push(format!("{route}: {why}"));
                }
            }
        }
        if failed.tried.is_empty() {
            failed.tried.push("the gateway hands out no TURN URL for this transport".to_owned());
        }
        Err(failed)
    }

    fn remember(&self, transport: Transport) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(transport);
    }

    async fn routes(&self, server: &IceServer, tried: &mut Vec<String>) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        for text in server.urls.iter().take(MOST_URLS) {
            let Ok(url) = TurnUrl::parse(text) else { continue };
            if self.only.is_some_and(|only| only != url.transport) {
                continue;
            }
            match target::routes(&url, PATIENCE).await {
                Ok(found) => routes.extend(found),
                Err(why) => tried.push(format!("{} cannot be resolved: {why}", url.host)),
            }
        }
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        routes.sort_by_key(|route| {
            let transport = route.url.transport;
            let order = match transport {
                Transport::Udp => 0,
                Transport::Tcp => 1,
                Transport::Tls => 2,
            };
            (last != Some(transport), order, route.server.is_ipv6())
        });
        routes.dedup_by_key(|route| (route.url.transport, route.server));
        routes
    }

    async fn over(&self, route: &Route, server: &IceServer) -> Result<Allocation, (bool, String)> {
        let link = path::connect(route, PATIENCE, &self.tls);
        let link = link.await.map_err(|row| (false, row.reason))?;
        let (packets, inbound) = mpsc::channel(QUEUE);
        let (alive, gone) = watch::channel(());
        let tap = Arc::new(Tap {
            link,
            server: route.server,
            datagrams: route.url.transport == Transport::Udp,
            packets,
            alive: Mutex::new(Some(alive)),
            settled: AtomicBool::new(false),
            channel: Mutex::default(),
        });
        let client = Client::new(ClientConfig {
            stun_serv_addr: String::new(),
            turn_serv_addr: route.server.to_string(),
            username: server.credential.username.clone(),
            password: server.credential.password.clone(),
            realm: String::new(),
            software: String::new(),
            rto_in_ms: 0,
            conn: Arc::clone(&tap) as Link,
            vnet: None,
        });
        let client = client.await.map_err(|error| (false, error.to_string()))?;
        // It begins a task, and has nothing to fail at.
        let _listening = client.listen().await;
        let mut broken = gone.clone();
        let allocated = tokio::select! {
            allocated = timeout(PATIENCE, client.allocate()) => Some(allocated),
            _ = broken.changed() => None,
        };
        let why = match allocated {
            Some(Ok(Ok(relayed))) => {
                tap.settled.store(true, Ordering::Relaxed);
                if let Ok(address) = relayed.local_addr() {
                    let relayed: Link = Arc::new(relayed);
                    let transport = route.url.transport;
                    return Ok(Allocation {
                        client,
                        relayed,
                        tap,
                        address,
                        transport,
                        inbound,
                        gone,
                    });
                }
                (false, "the relayed address cannot be read".to_owned())
            }
            Some(Ok(Err(error))) => (true, path::not_allocated(&error.to_string()).reason),
            Some(Err(_)) => (false, path::no_answer(route, PATIENCE)),
            None if tap.datagrams => (false, path::nobody(route)),
            None => (false, "the gateway closed the connection".to_owned()),
        };
        let _closed = client.close().await;
        let _closed = tap.close().await;
        Err(why)
    }
}

/// A live allocation. It must be closed: its client refreshes it for as long as nobody does.
pub(super) struct Allocation {
    client: Client,
    relayed: Link,
    tap: Arc<Tap>,
    /// The relayed address.
    pub(super) address: SocketAddr,
    pub(super) transport: Transport,
    /// What peers sent: the gateway lets only its media address.
    pub(super) inbound: mpsc::Receiver<Vec<u8>>,
    gone: watch::Receiver<()>,
}

/// Bytes that a packet needs in front of it.
pub(super) const HEADROOM: usize = 4;
/// How often the client looks after its channel: it does so when it sends, and refreshes after 5
/// minutes one that lives for 10 (RFC 8656 section 12).
const KEEP: Duration = Duration::from_secs(60);

/// The half that sends.
#[derive(Clone)]
pub(super) struct Sender {
    relayed: Link,
    tap: Arc<Tap>,
}

impl Sender {
    /// Sends what stands behind [`HEADROOM`] bytes.
    ///
    /// On the channel once it is bound, past the TURN client: it stops sending for a round trip
    /// at each of its refreshes. Before that, and should the channel be lost, through the client.
    pub(super) async fn send(&self, framed: &mut [u8], peer: SocketAddr) {
        let Some((head, packet)) = framed.split_first_chunk_mut::<HEADROOM>() else { return };
        // What is lost on the way is lost: RTP and DTLS know how to repair it.
        let channel = self.tap.channel().bound;
        match (channel, u16::try_from(packet.len())) {
            (Some((number, bound)), Ok(len)) if bound == peer => {
                let ([n1, n2], [l1, l2]) = (number.to_be_bytes(), len.to_be_bytes());
                *head = [n1, n2, l1, l2];
                let _lost = self.tap.send(framed).await;
            }
            _ => {
                let _lost = self.relayed.send_to(packet, peer).await;
            }
        }
    }

    /// Has the client ask for the permission, and bind or refresh its channel, when it is time.
    async fn touch(&self, peer: SocketAddr) -> Result<(), String> {
        // A Binding indication (RFC 8445 section 11): it keeps alive, and proves nothing.
        let mut nothing = Message::new();
        nothing.typ = MessageType::new(METHOD_BINDING, CLASS_INDICATION);
        nothing.new_transaction_id().map_err(|error| error.to_string())?;
        nothing.write_header();
        let sent = self.relayed.send_to(&nothing.raw, peer).await;
        sent.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Looks after the channel for as long as it is polled.
    pub(super) async fn keep(&self, peer: impl Fn() -> SocketAddr) {
        let mut ticks = tokio::time::interval(KEEP);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            // The session's clock tells when the gateway is gone.
            let _lost = self.touch(peer()).await;
        }
    }
}

impl Allocation {
    pub(super) fn sender(&self) -> Sender {
        Sender { relayed: Arc::clone(&self.relayed), tap: Arc::clone(&self.tap) }
    }

    /// Resolves when the transport to the gateway has broken.
    pub(super) fn gone(&self) -> watch::Receiver<()> {
        self.gone.clone()
    }

    /// Gets the permission for `peer` and begins to bind a channel; else the gateway's refusal.
    pub(super) async fn permit(&self, peer: SocketAddr) -> Result<(), String> {
        match timeout(PATIENCE, self.sender().touch(peer)).await {
            Ok(sent) => sent,
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        }
    }

    /// Gives it back.
    pub(super) async fn close(self) {
        // Refresh with lifetime 0, then the end of the client's tasks. A gateway that is gone
        // must not keep us.
        let closing = async {
            let _refreshed = self.relayed.close().await;
            let _closed = self.client.close().await;
            let _closed = self.tap.close().await;
        };
        let _late = timeout(PATIENCE, closing).await;
    }
}

/// Between the TURN client and its transport. Payloads of peers go straight to the session, and
/// what the client would stop reading at never reaches it.
struct Tap {
    link: Link,
    server: SocketAddr,
    /// Datagrams get lost, streams end.
    datagrams: bool,
    packets: mpsc::Sender<Vec<u8>>,
    /// Dropped when the transport has broken.
    alive: Mutex<Option<watch::Sender<()>>>,
    /// There is an allocation: one lost datagram is no news.
    settled: AtomicBool,
    channel: Mutex<Channel>,
}

/// What the client has done about its channel, overheard.
#[derive(Default)]
struct Channel {
    /// Asked for: by which transaction, number and peer.
    asked: Option<(TransactionId, u16, SocketAddr)>,
    bound: Option<(u16, SocketAddr)>,
}

impl Tap {
    fn channel(&self) -> MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which channel the client asks for.
    fn overhear(&self, bytes: &[u8]) {
        let mut message = Message::new();
        message.raw = bytes.to_vec();
        let wanted = MessageType::new(METHOD_CHANNEL_BIND, CLASS_REQUEST);
        if message.decode().is_err() || message.typ != wanted {
            return;
        }
        let mut peer = XorMappedAddress::default();
        if peer.get_from_as(&message, ATTR_XOR_PEER_ADDRESS).is_ok()
            && let Ok(number) = message.get(ATTR_CHANNEL_NUMBER)
            && let Some([high, low]) = number.first_chunk::<2>()
        {
            let number = u16::from_be_bytes([*high, *low]);
            let peer = SocketAddr::new(peer.ip, peer.port);
            self.channel().asked = Some((message.transaction_id, number, peer));
        }
    }

    /// Notes whether it got it.
    fn answered(&self, message: &Message) {
        let mut channel = self.channel();
        if let Some((id, number, peer)) = channel.asked
            && id == message.transaction_id
        {
            let granted = message.typ.class == CLASS_SUCCESS_RESPONSE;
            channel.bound = granted.then_some((number, peer));
            channel.asked = None;
        }
    }

    /// True when the client is to have it.
    fn is_for_client(&self, bytes: &[u8]) -> bool {
        if !is_message(bytes) {
            // ChannelData (RFC 8656 section 12.4); there is one peer, so every channel is its.
            if let Some(([0x40..=0x4F, _, high, low], rest)) = bytes.split_first_chunk::<4>() {
                let len = usize::from(u16::from_be_bytes([*high, *low]));
                if let Some(payload) = rest.get(..len) {
                    self.hand_over(payload);
                }
            }
            return false;
        }
        let mut message = Message::new();
        message.raw = bytes.to_vec();
        if message.decode().is_err() || message.typ.class == CLASS_REQUEST {
            return false;
        }
        if message.typ.class != CLASS_INDICATION {
            self.answered(&message);
            return true;
        }
        let mut peer = XorMappedAddress::default();
        let is_data = message.typ.method == METHOD_DATA
            && peer.get_from_as(&message, ATTR_XOR_PEER_ADDRESS).is_ok();
        if is_data && let Ok(payload) = message.get(ATTR_DATA) {
            self.hand_over(&payload);
        }
        false
    }

    fn hand_over(&self, payload: &[u8]) {
        // Full: lost like any packet; the ends repair it.
        let _full = self.packets.try_send(payload.to_vec());
    }

    fn broken(&self) {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

type Io<T> = Result<T, webrtc_util::Error>;

#[async_trait]
impl Conn for Tap {
    async fn connect(&self, address: SocketAddr) -> Io<()> {
        self.link.connect(address).await
    }

    async fn recv(&self, buffer: &mut [u8]) -> Io<usize> {
        self.recv_from(buffer).await.map(|(len, _)| len)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> Io<(usize, SocketAddr)> {
        loop {
            match self.link.recv(buffer).await {
                Ok(len) => {
                    if self.is_for_client(buffer.get(..len).unwrap_or_default()) {
                        return Ok((len, self.server));
                    }
                }
                // "Nobody listens" of one datagram: the client would stop reading for good, and
                // whether the gateway comes back is for the session's clock to judge.
                Err(_) if self.datagrams && self.settled.load(Ordering::Relaxed) => {
                    tokio::time::sleep(AFTER_AN_ERROR).await;
                }
                Err(error) => {
                    self.broken();
                    return Err(error);
                }
            }
        }
    }

    async fn send(&self, bytes: &[u8]) -> Io<usize> {
        if is_message(bytes) {
            self.overhear(bytes);
        }
        match self.link.send(bytes).await {
            // Lost like any datagram: an earlier one's ICMP, or a queue that is full.
            Err(webrtc_util::Error::Io(_)) if self.datagrams => Ok(bytes.len()),
            sent => sent,
        }
    }

    async fn send_to(&self, bytes: &[u8], _: SocketAddr) -> Io<usize> {
        self.send(bytes).await
    }

    fn local_addr(&self) -> Io<SocketAddr> {
        self.link.local_addr()
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(self.server)
    }

    async fn close(&self) -> Io<()> {
        self.link.close().await
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use stun::message::{CLASS_ERROR_RESPONSE, Setter as _};
    use tokio::net::UdpSocket;

    use super::*;

    const PEER: &str = "203.0.113.7:20000";

    async fn pair() -> (Arc<Tap>, mpsc::Receiver<Vec<u8>>, UdpSocket) {
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        near.connect(far.local_addr().unwrap()).await.unwrap();
        far.connect(near.local_addr().unwrap()).await.unwrap();
        let (packets, inbound) = mpsc::channel(4);
        let (alive, _) = watch::channel(());
        let tap = Tap {
            link: Arc::new(near),
            server: far.local_addr().unwrap(),
            datagrams: true,
            packets,
            alive: Mutex::new(Some(alive)),
            settled: AtomicBool::new(true),
            channel: Mutex::default(),
        };
        (Arc::new(tap), inbound, far)
    }

    fn message(method: stun::message::Method, class: stun::message::MessageClass) -> Message {
        let mut message = Message::new();
        message.typ = MessageType::new(method, class);
        message.new_transaction_id().unwrap();
        message.write_header();
        message
    }

    fn bind(number: u16) -> Message {
        let mut asked = message(METHOD_CHANNEL_BIND, CLASS_REQUEST);
        let [high, low] = number.to_be_bytes();
        asked.add(ATTR_CHANNEL_NUMBER, &[high, low, 0, 0]);
        let peer: SocketAddr = PEER.parse().unwrap();
        let peer = XorMappedAddress { ip: peer.ip(), port: peer.port() };
        peer.add_to_as(&mut asked, ATTR_XOR_PEER_ADDRESS).unwrap();
        asked
    }

    /// The answer to it, from the server to the client.
    async fn answer(
        tap: &Tap,
        far: &UdpSocket,
        asked: &Message,
        class: stun::message::MessageClass,
    ) {
        let mut answer = message(METHOD_CHANNEL_BIND, class);
        asked.transaction_id.add_to(&mut answer).unwrap();
        answer.write_transaction_id();
        far.send(&answer.raw).await.unwrap();
        let (len, _) = tap.recv_from(&mut [0; 2_048]).await.unwrap();
        assert_eq!(len, answer.raw.len(), "the client gets it");
    }

    #[tokio::test]
    async fn packets_go_on_the_channel_once_it_is_bound_and_not_when_it_is_lost() {
        let (tap, _inbound, far) = pair().await;
        let peer: SocketAddr = PEER.parse().unwrap();
        // In the client's place: what goes through it is told from what does not by its address.
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let sender = Sender { relayed: Arc::new(client), tap: Arc::clone(&tap) };
        let mut buffer = [0; 2_048];
        let asked = bind(0x4000);
        tap.send(&asked.raw).await.unwrap();
        far.recv(&mut buffer).await.unwrap();
        assert_eq!(tap.channel().bound, None, "asked for is not bound");
        answer(&tap, &far, &asked, CLASS_SUCCESS_RESPONSE).await;
        let mut framed = *b"....packet";
        sender.send(&mut framed, peer).await;
        let len = far.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], b"\x40\x00\x00\x06packet");
        // Another peer is none of this channel.
        sender.send(&mut framed, "203.0.113.8:20000".parse().unwrap()).await;
        let again = bind(0x4000);
        tap.send(&again.raw).await.unwrap();
        let len = far.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..len], &again.raw[..], "nothing came before it");
        answer(&tap, &far, &again, CLASS_ERROR_RESPONSE).await;
        assert_eq!(tap.channel().bound, None);
    }

    #[tokio::test]
    async fn payloads_of_the_peer_pass_the_client_by_and_what_would_stop_it_is_dropped() {
        let (tap, mut inbound, far) = pair().await;
        for stray in [
            &b"\x40\x00\x00\x03one, padded"[..],
            b"\x4f\xff\x00\x03two",
            b"\x40\x00\xff\xffshort",
            b"\x80nonsense",
            b"",
            &message(METHOD_BINDING, CLASS_REQUEST).raw,
            &message(METHOD_DATA, CLASS_INDICATION).raw,
        ] {
            far.send(stray).await.unwrap();
        }
        let mut data = message(METHOD_DATA, CLASS_INDICATION);
        let peer = XorMappedAddress { ip: "203.0.113.7".parse().unwrap(), port: 20_000 };
        peer.add_to_as(&mut data, ATTR_XOR_PEER_ADDRESS).unwrap();
        data.add(ATTR_DATA, b"three");
        far.send(&data.raw).await.unwrap();
        // The first that is the client's.
        let refresh = bind(0x4000);
        tap.send(&refresh.raw).await.unwrap();
        answer(&tap, &far, &refresh, CLASS_SUCCESS_RESPONSE).await;
        for expected in [&b"one"[..], b"two", b"three"] {
            assert_eq!(inbound.recv().await.unwrap(), expected);
        }
        assert!(inbound.try_recv().is_err());
    }
}
