//! The way to the gateway: a TURN allocation of another project's client, over the first
//! transport that works.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use stun::attributes::{ATTR_DATA, ATTR_XOR_PEER_ADDRESS};
use stun::message::{
    CLASS_INDICATION, CLASS_REQUEST, METHOD_BINDING, METHOD_DATA, Message, MessageType, is_message,
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

/// The half that sends.
#[derive(Clone)]
pub(super) struct Sender(Link);

impl Sender {
    /// Sends to the peer; the first time, asks for the permission before.
    pub(super) async fn send(&self, packet: &[u8], peer: SocketAddr) -> Result<(), String> {
        self.0.send_to(packet, peer).await.map(|_| ()).map_err(|error| error.to_string())
    }
}

impl Allocation {
    pub(super) fn sender(&self) -> Sender {
        Sender(Arc::clone(&self.relayed))
    }

    /// Resolves when the transport to the gateway has broken.
    pub(super) fn gone(&self) -> watch::Receiver<()> {
        self.gone.clone()
    }

    /// Gets the permission for `peer` and begins to bind a channel; else the gateway's refusal.
    pub(super) async fn permit(&self, peer: SocketAddr) -> Result<(), String> {
        // A Binding indication (RFC 8445 section 11): it keeps alive, and proves nothing.
        let mut nothing = Message::new();
        nothing.typ = MessageType::new(METHOD_BINDING, CLASS_INDICATION);
        nothing.new_transaction_id().map_err(|error| error.to_string())?;
        nothing.write_header();
        match timeout(PATIENCE, self.sender().send(&nothing.raw, peer)).await {
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
}

impl Tap {
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
