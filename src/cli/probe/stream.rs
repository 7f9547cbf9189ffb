//! TURN over a stream (RFC 8656 section 3.1): messages one after the other, ChannelData padded to
//! four bytes.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf,
};
use tokio::sync::Mutex;
use webrtc_util::Conn;

/// No message of a TURN server is longer.
const LONGEST: usize = 4 + u16::MAX as usize + 3;

/// A stream as the TURN client wants it: datagrams from and to its one peer.
pub(super) struct Framed<S> {
    local: SocketAddr,
    peer: SocketAddr,
    read: Mutex<Reader<S>>,
    write: Mutex<WriteHalf<S>>,
}

struct Reader<S> {
    half: ReadHalf<S>,
    /// What has arrived of the next message: a read that is dropped half-way loses nothing.
    pending: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite> Framed<S> {
    pub(super) fn new(stream: S, local: SocketAddr, peer: SocketAddr) -> Self {
        let (half, write) = tokio::io::split(stream);
        let read = Mutex::new(Reader { half, pending: Vec::with_capacity(2_048) });
        Self { local, peer, read, write: Mutex::new(write) }
    }
}

/// The length of the message that begins with these four bytes, without and with its padding.
fn lengths(head: [u8; 4]) -> Option<(usize, usize)> {
    let [first, _, high, low] = head;
    let body = usize::from(u16::from_be_bytes([high, low]));
    match first {
        0x00..=0x03 => Some((20 + body, 20 + body)),
        0x40..=0x4F => Some((4 + body, 4 + body.next_multiple_of(4))),
        _ => None,
    }
}

type Result<T> = std::result::Result<T, webrtc_util::Error>;

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Send + Sync + 'static> Conn for Framed<S> {
    async fn connect(&self, _: SocketAddr) -> Result<()> {
        Ok(())
    }

    async fn recv(&self, buffer: &mut [u8]) -> Result<usize> {
        self.recv_from(buffer).await.map(|(len, _)| len)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr)> {
        let mut reader = self.read.lock().await;
        let Reader { half, pending } = &mut *reader;
        loop {
            if let Some(head) = pending.first_chunk::<4>() {
                let (len, padded) = lengths(*head)
                    .ok_or_else(|| io::Error::other("what arrives is not TURN over a stream"))?;
                if pending.len() >= padded {
                    let copied = len.min(buffer.len());
                    let (Some(to), Some(from)) = (buffer.get_mut(..copied), pending.get(..copied))
                    else {
                        return Err(io::Error::from(io::ErrorKind::InvalidData).into());
                    };
                    to.copy_from_slice(from);
                    pending.drain(..padded);
                    return Ok((copied, self.peer));
                }
            }
            if pending.len() > LONGEST || half.read_buf(pending).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    async fn send(&self, bytes: &[u8]) -> Result<usize> {
        let padding = match bytes.first() {
            Some(0x40..=0x4F) => bytes.len().next_multiple_of(4) - bytes.len(),
            _ => 0,
        };
        let mut message = bytes.to_vec();
        message.resize(bytes.len() + padding, 0);
        let mut write = self.write.lock().await;
        write.write_all(&message).await?;
        write.flush().await?;
        Ok(bytes.len())
    }

    async fn send_to(&self, bytes: &[u8], _: SocketAddr) -> Result<usize> {
        self.send(bytes).await
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        Ok(self.local)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(self.peer)
    }

    async fn close(&self) -> Result<()> {
        // The other side may have gone first.
        let _gone = self.write.lock().await.shutdown().await;
        Ok(())
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};
    use turn::auth::{AuthHandler, generate_auth_key};
    use turn::client::{Client, ClientConfig};
    use turn::relay::relay_static::RelayAddressGeneratorStatic;
    use turn::server::Server;
    use turn::server::config::{ConnConfig, ServerConfig};
    use webrtc_util::vnet::net::Net;

    use super::*;

    fn pair(capacity: usize) -> (tokio::io::DuplexStream, Framed<tokio::io::DuplexStream>) {
        let (far, near) = tokio::io::duplex(capacity);
        let somewhere = "192.0.2.1:3478".parse().unwrap();
        (far, Framed::new(near, somewhere, somewhere))
    }

    #[tokio::test]
    async fn messages_come_whole_however_they_arrive() {
        let (mut far, framed) = pair(1);
        let mut stun = vec![0x01, 0x01, 0, 4, 0x21, 0x12, 0xa4, 0x42];
        stun.extend([7; 16]);
        let channel = [0x40, 0x00, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0];
        let bytes = [&stun[..], &channel, &stun].concat();
        let writer = tokio::spawn(async move { far.write_all(&bytes).await });
        let mut buffer = [0; 100];
        for expected in [&stun[..], &channel[..9], &stun] {
            let (len, _) = framed.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..len], expected);
        }
        writer.await.unwrap().unwrap();
        assert!(framed.recv_from(&mut buffer).await.is_err(), "the end");
    }

    #[tokio::test]
    async fn what_is_not_turn_ends_the_reading() {
        let (mut far, framed) = pair(64);
        far.write_all(b"SSH-2.0-OpenSSH\r\n").await.unwrap();
        assert!(framed.recv_from(&mut [0; 100]).await.is_err());
    }

    #[tokio::test]
    async fn channel_data_is_padded_on_a_stream() {
        let (mut far, framed) = pair(64);
        assert_eq!(framed.send(&[0x40, 0, 0, 1, 9]).await.unwrap(), 5);
        let mut sent = [0xff; 8];
        far.read_exact(&mut sent).await.unwrap();
        assert_eq!(sent, [0x40, 0, 0, 1, 9, 0, 0, 0]);
    }

    struct OneUser;

    impl AuthHandler for OneUser {
        fn auth_handle(
            &self,
            user: &str,
            realm: &str,
            _: SocketAddr,
        ) -> std::result::Result<Vec<u8>, turn::Error> {
            Ok(generate_auth_key(user, realm, "secret"))
        }
    }

    #[tokio::test]
    async fn turn_crates_client_and_server_meet_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connecting = TcpStream::connect(address).await.unwrap();
        let (accepted, from) = listener.accept().await.unwrap();
        let server = Server::new(ServerConfig {
            conn_configs: vec![ConnConfig {
                conn: Arc::new(Framed::new(accepted, address, from)),
                relay_addr_generator: Box::new(RelayAddressGeneratorStatic {
                    relay_address: address.ip(),
                    address: "127.0.0.1".to_owned(),
                    net: Arc::new(Net::new(None)),
                }),
            }],
            realm: "r".to_owned(),
            auth_handler: Arc::new(OneUser),
            channel_bind_timeout: Duration::ZERO,
            alloc_close_notify: None,
        })
        .await
        .unwrap();
        let client = Client::new(ClientConfig {
            stun_serv_addr: String::new(),
            turn_serv_addr: address.to_string(),
            username: "u".to_owned(),
            password: "secret".to_owned(),
            realm: String::new(),
            software: String::new(),
            rto_in_ms: 0,
            conn: Arc::new(Framed::new(connecting, from, address)),
            vnet: None,
        })
        .await
        .unwrap();
        client.listen().await.unwrap();
        let relayed = client.allocate().await.unwrap();
        let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for text in ["first, in an indication", "second", "and third"] {
            relayed.send_to(text.as_bytes(), peer.local_addr().unwrap()).await.unwrap();
            let mut buffer = [0; 100];
            let (len, from) = peer.recv_from(&mut buffer).await.unwrap();
            peer.send_to(&buffer[..len], from).await.unwrap();
            let (len, _) = relayed.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..len], text.as_bytes());
        }
        client.close().await.unwrap();
        server.close().await.unwrap();
    }
}
