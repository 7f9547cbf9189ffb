//! The one TCP port. The first raw byte tells TLS from plain TURN, the first decrypted byte
//! tells TURN from HTTP (RFC 7983's idea, one layer up); HTTP goes to hyper.
//!
//! A TURN connection moves to a shard, with its TLS state and whatever was read ahead.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::engine::{Handle, Incoming};
use crate::ids::ClientAddr;

/// Connections at once; more wait in the kernel's backlog.
pub(super) const CONNECTIONS: u32 = 8_192;
/// A client has this long for its first byte, its handshake and its first decrypted byte each.
const PATIENCE: Duration = Duration::from_secs(10);
/// `ContentType.handshake` of RFC 8446 section 5.1.
const TLS_HANDSHAKE: u8 = 0x16;
/// A STUN message begins with two zero bits (RFC 8489 section 5), a request's type is small.
const STUN_FIRST: u8 = 0x00;
const STUN_LAST: u8 = 0x03;

/// An HTTP connection after TLS, its first bytes read ahead.
pub(super) type HttpStream = Prefixed<TlsStream<TcpStream>>;

/// Accepts for ever. `serve` gets each HTTP connection.
pub(super) async fn accept<S, F>(
    listener: TcpListener,
    tls: TlsAcceptor,
    slots: Arc<Semaphore>,
    engine: Handle,
    serve: S,
) where
    S: Fn(HttpStream) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a connection that died in the backlog: neither lasts.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, serve, engine) = (tls.clone(), serve.clone(), engine.clone());
        tokio::spawn(async move {
            match open(stream, peer, tls).await {
                Some(Opened::Http(http)) => serve(*http).await,
                // A shard that takes no more closes it by dropping it.
                Some(Opened::Turn(turn)) => _ = engine.connect(turn),
                None => {}
            }
            drop(slot);
        });
    }
}

/// What a connection turned out to be.
enum Opened {
    Http(Box<HttpStream>),
    Turn(Incoming),
}

/// Takes a connection as far as its first byte of HTTP or TURN; anything else is closed.
async fn open(stream: TcpStream, peer: SocketAddr, tls: TlsAcceptor) -> Option<Opened> {
    let mut first = [0];
    let peeked = timeout(PATIENCE, stream.peek(&mut first)).await;
    if !matches!(peeked, Ok(Ok(1))) {
        return None;
    }
    // Small messages should not wait for an ACK of the one before.
    let _best_effort = stream.set_nodelay(true);
    let client = ClientAddr::new(canonical(peer));
    match first {
        [TLS_HANDSHAKE] => {}
        [STUN_FIRST..=STUN_LAST] => {
            let socket = stream.into_std().ok()?;
            return Some(Opened::Turn(Incoming { socket, client, tls: None, begun: Vec::new() }));
        }
        _ => return None,
    }
    let mut stream = timeout(PATIENCE, tls.accept(stream)).await.ok()?.ok()?;
    let mut begun = vec![0; 1_024];
    let read = timeout(PATIENCE, stream.read(&mut begun)).await.ok()?.ok()?;
    begun.truncate(read);
    // The letters that begin HTTP's methods lie in the range of ChannelData, but a TURN client
    // always begins with a STUN request.
    match begun.first()? {
        STUN_FIRST..=STUN_LAST => {
            let (socket, connection) = stream.into_inner();
            let (socket, tls) = (socket.into_std().ok()?, Some(Box::new(connection)));
            Some(Opened::Turn(Incoming { socket, client, tls, begun }))
        }
        _ => Some(Opened::Http(Box::new(Prefixed::new(begun, stream)))),
    }
}

/// An IPv4 client of a dual-stack listener is an IPv4 client.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// A stream with bytes read ahead put back in front.
#[derive(Debug)]
pub(super) struct Prefixed<S> {
    prefix: Vec<u8>,
    taken: usize,
    stream: S,
}

impl<S> Prefixed<S> {
    /// Puts `prefix` back.
    pub(super) const fn new(prefix: Vec<u8>, stream: S) -> Self {
        Self { prefix, taken: 0, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
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
        let mut stream = Prefixed::new(b"GE".to_vec(), io::Cursor::new(b"T /".to_vec()));
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("reads");
        assert_eq!(text, "GET /");
    }
}
