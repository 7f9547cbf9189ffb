//! The one TCP port. The first raw byte tells TLS from plain TURN, the first decrypted byte
//! tells TURN from HTTP (RFC 7983's idea, one layer up); HTTP goes to hyper.
//!
//! TURN over TCP and TLS has no shard to go to yet: such connections are closed.

use std::io;
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

/// Connections at once; more wait in the kernel's backlog.
pub(super) const CONNECTIONS: u32 = 8_192;
/// A client has this long for its first byte, its handshake and its first decrypted byte each.
const PATIENCE: Duration = Duration::from_secs(10);
/// `ContentType.handshake` of RFC 8446 section 5.1.
const TLS_HANDSHAKE: u8 = 0x16;

/// An HTTP connection after TLS, its first bytes read ahead.
pub(super) type HttpStream = Prefixed<TlsStream<TcpStream>>;

/// Accepts for ever. `serve` gets each HTTP connection.
pub(super) async fn accept<S, F>(
    listener: TcpListener,
    tls: TlsAcceptor,
    slots: Arc<Semaphore>,
    serve: S,
) where
    S: Fn(HttpStream) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a connection that died in the backlog: neither lasts.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, serve) = (tls.clone(), serve.clone());
        tokio::spawn(async move {
            if let Some(http) = open(stream, tls).await {
                serve(http).await;
            }
            drop(slot);
        });
    }
}

/// Takes a connection as far as HTTP; anything else is closed.
async fn open(stream: TcpStream, tls: TlsAcceptor) -> Option<HttpStream> {
    let mut first = [0];
    let peeked = timeout(PATIENCE, stream.peek(&mut first)).await;
    if !matches!(peeked, Ok(Ok(1))) || first != [TLS_HANDSHAKE] {
        return None;
    }
    // Small answers should not wait for an ACK of the one before.
    let _best_effort = stream.set_nodelay(true);
    let mut stream = timeout(PATIENCE, tls.accept(stream)).await.ok()?.ok()?;
    let mut prefix = vec![0; 1_024];
    let read = timeout(PATIENCE, stream.read(&mut prefix)).await.ok()?.ok()?;
    prefix.truncate(read);
    // 0x00 to 0x03 would be STUN.
    prefix.first().is_some_and(|b| *b > 0x03).then(|| Prefixed::new(prefix, stream))
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
