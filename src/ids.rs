//! Newtypes for everything two of which could be swapped.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use aws_lc_rs::digest;

/// A data-plane thread, 0-based.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u8);

/// A TURN allocation of one shard: a slab index and the generation that makes reuse detectable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AllocationHandle {
    /// Slab index within the shard's relay.
    pub index: u32,
    /// Raised each time the index is used anew.
    pub generation: u32,
}

/// How a session's packets travel: an allocation on a shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Path {
    /// The shard that owns the allocation.
    pub shard: ShardId,
    /// The allocation.
    pub allocation: AllocationHandle,
    /// Which of our media addresses the client sends to: a dual allocation reaches two.
    pub media: u8,
}

/// One remote WebRTC endpoint (publisher or player), unique for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// One act of publishing under a name; a later publisher of the same name gets another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StreamId(pub u64);

/// A validated stream name, `room/stream`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StreamName {
    whole: String,
    slash: usize,
}

/// Why a text is not a stream name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Not exactly one slash.
    #[error("a stream name is room/stream, with exactly one slash")]
    Shape,
    /// A part is empty or longer than 64 characters.
    #[error("each part of a stream name has 1 to 64 characters")]
    Length,
    /// A character outside the allowed set.
    #[error("a stream name has only letters, digits, '-', '_' and '.'")]
    Character,
}

impl StreamName {
    /// Longest part, in bytes.
    pub const MAX_PART: usize = 64;

    /// The part before the slash.
    #[must_use]
    pub fn room(&self) -> &str {
        &self.whole[..self.slash]
    }

    /// The part after the slash.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.whole[self.slash + 1..]
    }

    /// `room/stream`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.whole
    }

    /// Checks one part (a room or a stream) of a name.
    ///
    /// # Errors
    /// [`NameError::Length`] or [`NameError::Character`].
    pub fn check_part(part: &str) -> Result<(), NameError> {
        if part.is_empty() || part.len() > Self::MAX_PART {
            return Err(NameError::Length);
        }
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        // "." and ".." would be path steps in the URL that carries the name.
        if !part.bytes().all(ok) || part == "." || part == ".." {
            return Err(NameError::Character);
        }
        Ok(())
    }
}

impl FromStr for StreamName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (room, stream) = text.split_once('/').ok_or(NameError::Shape)?;
        if stream.contains('/') {
            return Err(NameError::Shape);
        }
        Self::check_part(room)?;
        Self::check_part(stream)?;
        Ok(Self { whole: text.to_owned(), slash: room.len() })
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamName({})", self.whole)
    }
}

/// Whom a credential or token was minted for: the first 8 bytes of SHA-256 of the subject.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SubjectHash(pub [u8; 8]);

impl SubjectHash {
    /// Of a subject's name.
    #[must_use]
    pub fn of(subject: &str) -> Self {
        Self(hash(b"veilgate subject\0", subject))
    }
}

/// A room's name, hashed like a subject.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RoomHash(pub [u8; 8]);

impl RoomHash {
    /// Of a room's name.
    #[must_use]
    pub fn of(room: &str) -> Self {
        Self(hash(b"veilgate room\0", room))
    }
}

/// One TURN credential: the first 16 bytes of SHA-256 of its username.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CredentialId(pub [u8; 16]);

impl CredentialId {
    /// Of a TURN username.
    #[must_use]
    pub fn of(username: &str) -> Self {
        Self(hash(b"veilgate credential\0", username))
    }
}

/// The first `N` bytes, at most 32, of SHA-256 of a label and a text.
fn hash<const N: usize>(label: &[u8], text: &str) -> [u8; N] {
    const { assert!(N <= 32) };
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(label);
    context.update(text.as_bytes());
    let mut out = [0; N];
    out.copy_from_slice(&context.finish().as_ref()[..N]);
    out
}

/// A client's real transport address. It has no `Display`, and its `Debug` shows nothing:
/// it must not reach an SDP, an API, a webhook, a metric or a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddr(SocketAddr);

impl ClientAddr {
    /// Wraps what the kernel reported.
    #[must_use]
    pub const fn new(addr: SocketAddr) -> Self {
        Self(addr)
    }

    /// For the socket layer and for XOR-MAPPED-ADDRESS to that same client only.
    #[must_use]
    pub const fn expose(self) -> SocketAddr {
        self.0
    }

    /// For per-prefix limits.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.0.ip()
    }

    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        self.0.port()
    }
}

impl fmt::Debug for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientAddr(hidden)")
    }
}

/// The transport between a client and the relay.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// TURN over UDP.
    Udp,
    /// TURN over TCP.
    Tcp,
    /// TURN over TLS over TCP.
    Tls,
}

impl Transport {
    /// Whether messages follow each other in a stream: ChannelData is then padded to four bytes
    /// (RFC 8656 section 12.5), and the source address is no spoofed one.
    #[must_use]
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Tcp | Self::Tls)
    }
}

/// The 5-tuple of RFC 8656 section 3. libwebrtc uses one socket towards all our UDP ports, so the
/// server's side is part of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FiveTuple {
    /// The client's side.
    pub client: ClientAddr,
    /// Transport protocol.
    pub transport: Transport,
    /// Our side: which of the listeners of that transport, 0-based.
    pub listener: u8,
}

impl FiveTuple {
    /// Of the first listener.
    #[must_use]
    pub const fn new(client: ClientAddr, transport: Transport) -> Self {
        Self { client, transport, listener: 0 }
    }

    /// The same at another listener.
    #[must_use]
    pub const fn at(self, listener: u8) -> Self {
        Self { listener, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_two_plain_parts() {
        let name: StreamName = "lobby/cam1".parse().expect("valid");
        assert_eq!((name.room(), name.stream()), ("lobby", "cam1"));
        for (text, error) in [
            ("lobby", NameError::Shape),
            ("a/b/c", NameError::Shape),
            ("/b", NameError::Length),
            ("a/..", NameError::Character),
            ("a b/c", NameError::Character),
        ] {
            assert_eq!(text.parse::<StreamName>(), Err(error), "{text}");
        }
    }

    #[test]
    fn client_address_never_prints() {
        let addr = ClientAddr::new("198.51.100.7:4242".parse().expect("valid"));
        assert!(!format!("{addr:?}").contains("198"));
    }
}
