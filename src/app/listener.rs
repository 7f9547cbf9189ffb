//! The TCP ports. The first raw byte tells TLS from plain TURN, the first decrypted byte
//! tells TURN from HTTP (RFC 7983's idea, one layer up); HTTP goes to hyper.
//!
//! A TURN connection moves to a shard, with its TLS state and whatever was read ahead.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ppp::v2;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::doorstep::Doorstep;
use crate::engine::{Handle, Held, Incoming};
use crate::ids::ClientAddr;
use crate::metrics::Signalling;
use crate::net::Net;

/// Connections at once; more wait in the kernel's backlog.
pub(super) const CONNECTIONS: u32 = 8_192;
/// A client has this long for its first byte, its handshake and its first decrypted byte each.
const PATIENCE: Duration = Duration::from_secs(10);
/// `ContentType.handshake` of RFC 8446 section 5.1.
const TLS_HANDSHAKE: u8 = 0x16;
/// A STUN message begins with two zero bits (RFC 8489 section 5), a request's type is small.
const STUN_FIRST: u8 = 0x00;
const STUN_LAST: u8 = 0x03;
/// The part of a PROXY header that is always there.
const PROXY_FIXED: usize = 16;
/// Addresses and TLVs of a PROXY header; the longest we know of, with a client certificate's name,
/// stay far below.
const LONGEST_PROXY: usize = 2_048;

/// An HTTP connection after TLS, its first bytes read ahead, with the places it takes: a WebSocket
/// outlives the HTTP connection that it was.
pub(super) type HttpStream = Prefixed<TlsStream<TcpStream>, (Held, OwnedSemaphorePermit)>;

/// What the doorkeepers of all TCP ports share.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) tls: TlsAcceptor,
    /// One for each connection that is open, or opening.
    pub(super) slots: Arc<Semaphore>,
    pub(super) engine: Handle,
    /// Load balancers, who say with PROXY v2 for whom they come.
    pub(super) proxies: Arc<[Net]>,
    /// Places by source.
    pub(super) doorstep: Doorstep,
    pub(super) metrics: Signalling,
}

/// Accepts for ever on listener number `place`. `serve` gets each HTTP connection.
pub(super) async fn accept<S, F>(listener: TcpListener, place: u8, entrance: Entrance, serve: S)
where
    S: Fn(HttpStream) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let Ok(slot) = Arc::clone(&entrance.slots).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a connection that died in the backlog: neither lasts.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (entrance, serve) = (entrance.clone(), serve.clone());
        tokio::spawn(async move {
            let opened = entrance.open(stream, peer, place).await;
            entrance.metrics.on_connection(match &opened {
                Ok(Opened::Http(..)) => "http",
                Ok(Opened::Turn(turn)) if turn.tls.is_some() => "turn_tls",
                Ok(Opened::Turn(_)) => "turn_tcp",
                Err(closed) => closed.reason(),
            });
            match opened {
                Ok(Opened::Http(begun, http, held)) => {
                    serve(Prefixed::new(begun, *http, (held, slot))).await;
                }
                // A shard that takes no more closes it by dropping it.
                Ok(Opened::Turn(turn)) => _ = entrance.engine.connect(turn),
                Err(_) => {}
            }
        });
    }
}

/// What a connection turned out to be.
enum Opened {
    Http(Vec<u8>, Box<TlsStream<TcpStream>>, Held),
    Turn(Incoming),
}

/// Why a connection was closed before it was anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closed {
    /// It said nothing, or went away.
    Silent,
    /// Neither TLS nor TURN.
    Foreign,
    /// The TLS handshake failed, or took too long.
    Handshake,
    /// A load balancer did not say for whom it comes.
    Proxy,
    /// Its source has too many already.
    Crowd,
}

impl Closed {
    const fn reason(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Foreign => "foreign",
            Self::Handshake => "tls_failed",
            Self::Proxy => "proxy_header",
            Self::Crowd => "crowd",
        }
    }
}

impl Entrance {
    /// Takes a connection as far as its first byte of HTTP or TURN; anything else is closed.
    async fn open(
        &self,
        mut stream: TcpStream,
        peer: SocketAddr,
        listener: u8,
    ) -> Result<Opened, Closed> {
        let mut client = canonical(peer);
        if self.proxies.iter().any(|range| range.contains(client.ip())) {
            let told = timeout(PATIENCE, proxied(&mut stream)).await;
            client = told.ok().flatten().ok_or(Closed::Proxy)?.unwrap_or(client);
        }
        let held = self.doorstep.enter(client.ip()).ok_or(Closed::Crowd)?;
        let client = ClientAddr::new(client);
        let mut first = [0];
        if !matches!(timeout(PATIENCE, stream.peek(&mut first)).await, Ok(Ok(1))) {
            return Err(Closed::Silent);
        }
        // Small messages should not wait for an ACK of the one before.
        let _best_effort = stream.set_nodelay(true);
        match first {
            [TLS_HANDSHAKE] => {}
            [STUN_FIRST..=STUN_LAST] => {
                let socket = stream.into_std().map_err(|_| Closed::Silent)?;
                let (tls, begun) = (None, Vec::new());
                return Ok(Opened::Turn(Incoming { socket, client, listener, tls, begun, held }));
            }
            _ => return Err(Closed::Foreign),
        }
        let accepted = timeout(PATIENCE, self.tls.accept(stream)).await;
        let Ok(Ok(mut stream)) = accepted else { return Err(Closed::Handshake) };
        let mut begun = vec![0; 1_024];
        let read = timeout(PATIENCE, stream.read(&mut begun)).await;
        let Ok(Ok(read @ 1..)) = read else { return Err(Closed::Silent) };
        begun.truncate(read);
        // The letters that begin HTTP's methods lie in the range of ChannelData, but a TURN client
        // always begins with a STUN request.
        match begun.first() {
            Some(STUN_FIRST..=STUN_LAST) => {
                let (socket, connection) = stream.into_inner();
                let socket = socket.into_std().map_err(|_| Closed::Silent)?;
                let tls = Some(Box::new(connection));
                Ok(Opened::Turn(Incoming { socket, client, listener, tls, begun, held }))
            }
            _ => Ok(Opened::Http(begun, Box::new(stream), held)),
        }
    }
}

/// Reads a PROXY protocol header of version 2, and not a byte more. `None`: there is none, or it is
/// not sound. The inner `None`: the load balancer comes for itself (a health check), or for somebody
/// without an IP address.
async fn proxied(stream: &mut (impl AsyncRead + Unpin)) -> Option<Option<SocketAddr>> {
    let mut header = vec![0; PROXY_FIXED];
    stream.read_exact(&mut header).await.ok()?;
    if !header.starts_with(v2::PROTOCOL_PREFIX) {
        return None;
    }
    let length = header.last_chunk().map(|length| usize::from(u16::from_be_bytes(*length)))?;
    if length > LONGEST_PROXY {
        return None;
    }
    header.resize(PROXY_FIXED + length, 0);
    stream.read_exact(header.get_mut(PROXY_FIXED..)?).await.ok()?;
    let header = v2::Header::try_from(header.as_slice()).ok()?;
    if header.command == v2::Command::Local {
        return Some(None);
    }
    Some(match header.addresses {
        v2::Addresses::IPv4(told) => Some((told.source_address, told.source_port).into()),
        v2::Addresses::IPv6(told) => Some((told.source_address, told.source_port).into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    })
    .map(|client| client.map(canonical))
}

/// An IPv4 client of a dual-stack listener is an IPv4 client.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// A stream with bytes read ahead put back in front, and something kept as long as it is.
#[derive(Debug)]
pub(super) struct Prefixed<S, K> {
    prefix: Vec<u8>,
    taken: usize,
    stream: S,
    _kept: K,
}

impl<S, K> Prefixed<S, K> {
    /// Puts `prefix` back.
    pub(super) const fn new(prefix: Vec<u8>, stream: S, kept: K) -> Self {
        Self { prefix, taken: 0, stream, _kept: kept }
    }
}

impl<S: AsyncRead + Unpin, K: Unpin> AsyncRead for Prefixed<S, K> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = self.prefix.get(self.taken..).unwrap_or_default();
        if rest.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let take = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..take).unwrap_or_default());
        self.taken += take;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, K: Unpin> AsyncWrite for Prefixed<S, K> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_read_ahead_come_first() {
        let mut stream = Prefixed::new(b"GE".to_vec(), io::Cursor::new(b"T /".to_vec()), ());
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("reads");
        assert_eq!(text, "GET /");
    }

    async fn read_proxied(bytes: &[u8]) -> (Option<Option<SocketAddr>>, Vec<u8>) {
        let mut stream = io::Cursor::new(bytes.to_vec());
        let told = proxied(&mut stream).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("reads");
        (told, rest)
    }

    fn header(command: v2::Command, from: &str) -> Vec<u8> {
        let from: SocketAddr = from.parse().expect("valid");
        let to = SocketAddr::new(from.ip(), 443);
        v2::Builder::with_addresses(v2::Version::Two | command, v2::Protocol::Stream, (from, to))
            .write_tlv(v2::Type::NoOp, b"padding")
            .expect("fits")
            .build()
            .expect("builds")
    }

    #[tokio::test]
    async fn proxy_header_tells_the_client_and_takes_no_byte_more() {
        for from in ["198.51.100.7:4242", "[2001:db8::7]:4242"] {
            let mut bytes = header(v2::Command::Proxy, from);
            bytes.extend(b"\x16rest");
            let (told, rest) = read_proxied(&bytes).await;
            assert_eq!(told, Some(Some(from.parse().expect("valid"))));
            assert_eq!(rest, b"\x16rest");
        }
        let mapped = header(v2::Command::Proxy, "[::ffff:198.51.100.7]:1");
        let told = read_proxied(&mapped).await.0;
        assert_eq!(told, Some(Some("198.51.100.7:1".parse().expect("valid"))));
        let own = header(v2::Command::Local, "198.51.100.7:4242");
        assert_eq!(read_proxied(&own).await.0, Some(None));
    }

    #[tokio::test]
    async fn what_is_no_proxy_header_is_refused() {
        let sound = header(v2::Command::Proxy, "198.51.100.7:4242");
        for cut in 0..sound.len() {
            assert_eq!(read_proxied(&sound[..cut]).await.0, None, "{cut} bytes");
        }
        let mut long = sound.clone();
        long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        long.resize(70_000, 0);
        assert_eq!(read_proxied(&long).await.0, None);
        let mut short = sound.clone();
        short[14..16].copy_from_slice(&4_u16.to_be_bytes());
        assert_eq!(read_proxied(&short).await.0, None, "addresses that do not fit");
        let mut version = sound;
        version[12] = 0x11;
        assert_eq!(read_proxied(&version).await.0, None);
        let text = b"PROXY TCP4 198.51.100.7 192.0.2.1 4242 443\r\n\x16";
        assert_eq!(read_proxied(text).await.0, None, "version 1");
    }
}
