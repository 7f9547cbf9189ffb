//! TURN over TCP and TLS (RFC 8656 section 2.1): the same messages, one after another on a
//! connection that belongs to one shard from its first byte of TURN on.
//!
//! TLS handshakes are over before a connection comes here. Each message is written by itself, as
//! one TLS record where there is TLS: some clients take the bytes of one read for one message. A
//! client that does not read loses media at a bound; it never grows our memory.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ServerConnection;

use crate::ids::{ClientAddr, FiveTuple, Transport};
use crate::metrics::{Counters, Id};
use crate::time::Mono;
use crate::wire::stream_frames::Framer;

/// Connections of one shard.
const CONNECTIONS: usize = 16_384;
/// Bytes a client may leave unread before what is written to it is dropped: half a second of
/// video, and what a frame with all its packets needs at once.
const UNREAD: usize = 256 * 1024;
/// As many without an allocation: there is no media, and a client waits for its answers.
const UNREAD_BY_STRANGERS: usize = 16 * 1024;
/// Bytes taken from one connection in one turn, so that none keeps the others waiting.
pub(super) const READ_PER_TURN: usize = 64 * 1024;
/// A begun message must be whole within this time.
const MESSAGE_WITHIN: Duration = Duration::from_secs(10);
/// Without an allocation a connection may stay this long.
const IDLE: Duration = Duration::from_secs(30);

/// A source's place for one connection, given back when it is dropped, on whatever thread.
#[derive(Debug)]
pub struct Held(Arc<AtomicU32>);

impl Held {
    /// One more than `count` has; `None` when it has `limit`.
    #[must_use]
    pub fn take(count: &Arc<AtomicU32>, limit: u32) -> Option<Self> {
        let more = |held: u32| held.checked_add(1).filter(|held| *held <= limit);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(Arc::clone(count)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection on its way to a shard.
pub struct Incoming {
    /// Non-blocking.
    pub socket: std::net::TcpStream,
    /// Whose it is.
    pub client: ClientAddr,
    /// Which of our TCP listeners took it.
    pub listener: u8,
    /// After its handshake.
    pub tls: Option<Box<ServerConnection>>,
    /// Decrypted bytes already read.
    pub begun: Vec<u8>,
    /// Kept as long as the connection is.
    pub held: Held,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

struct Stream {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    tuple: FiveTuple,
    framer: Framer,
    /// Read before the connection came here.
    early: Vec<u8>,
    _held: Held,
    /// Written by us, not yet taken by the kernel: whole messages, the first perhaps begun.
    unsent: Vec<u8>,
    /// When the message in the framer began; `None` between two.
    begun: Option<Mono>,
    idle_since: Mono,
    /// Has an allocation, as of the last answer.
    allocated: bool,
    /// More may be waiting in the kernel or in TLS.
    readable: bool,
}

/// All connections of one shard.
pub(super) struct Streams {
    registry: Registry,
    first: usize,
    slots: Vec<Option<Box<Stream>>>,
    free: Vec<usize>,
    by_tuple: HashMap<FiveTuple, usize>,
    readable: Vec<usize>,
    swept: Mono,
}

/// What a read gave.
pub(super) enum Taken {
    /// So many bytes.
    Bytes(usize),
    /// Nothing more for now.
    Nothing,
    /// The connection is over.
    Closed,
}

impl Streams {
    /// No connections yet. Their poll tokens are `first` and up.
    pub(super) fn new(registry: Registry, first: usize) -> Self {
        Self {
            registry,
            first,
            slots: Vec::new(),
            free: Vec::new(),
            by_tuple: HashMap::new(),
            readable: Vec::new(),
            swept: Mono::ZERO,
        }
    }

    /// Takes a connection in. One that cannot be served is closed.
    pub(super) fn insert(&mut self, incoming: Incoming, now: Mono, counters: &mut Counters) {
        let Incoming { socket, client, listener, tls, begun, held } = incoming;
        let transport = if tls.is_some() { Transport::Tls } else { Transport::Tcp };
        let tuple = FiveTuple::new(client, transport).at(listener);
        if self.by_tuple.len() >= CONNECTIONS || self.by_tuple.contains_key(&tuple) {
            counters.inc(Id::StreamRefused);
            return;
        }
        let mut socket = TcpStream::from_std(socket);
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let token = Token(self.first + index);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.registry.register(&mut socket, token, interest).is_err() {
            self.free.push(index);
            counters.inc(Id::StreamRefused);
            return;
        }
        let stream = Stream {
            socket,
            tls,
            tuple,
            framer: Framer::default(),
            early: begun,
            _held: held,
            unsent: Vec::new(),
            begun: None,
            idle_since: now,
            allocated: false,
            readable: true,
        };
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(Box::new(stream));
        }
        self.by_tuple.insert(tuple, index);
        self.readable.push(index);
        counters.inc(Id::StreamOpened);
        counters.set(Id::Streams, self.by_tuple.len() as u64);
    }

    /// The poller says something about a token of ours.
    pub(super) fn on_ready(&mut self, token: Token, readable: bool, writable: bool) {
        let Some(index) = token.0.checked_sub(self.first) else { return };
        let Some(stream) = self.slots.get_mut(index).and_then(Option::as_deref_mut) else { return };
        if writable {
            // A failed write shows as a failed read soon.
            let _broken = stream.write_out();
        }
        if readable && !stream.readable {
            stream.readable = true;
            self.readable.push(index);
        }
    }

    /// Whether a connection has more to read.
    pub(super) fn is_busy(&self) -> bool {
        !self.readable.is_empty()
    }

    /// Connections to read this turn.
    pub(super) fn take_readable(&mut self, out: &mut Vec<usize>) {
        out.clear();
        out.append(&mut self.readable);
    }

    /// Reads once into `out`, decrypted.
    pub(super) fn read(&mut self, index: usize, out: &mut [u8]) -> Taken {
        let Some(stream) = self.slots.get_mut(index).and_then(Option::as_deref_mut) else {
            return Taken::Closed;
        };
        loop {
            match stream.read(out) {
                Ok(0) => return Taken::Closed,
                Ok(n) => return Taken::Bytes(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    stream.readable = false;
                    return Taken::Nothing;
                }
                Err(_) => return Taken::Closed,
            }
        }
    }

    /// Its turn is over but it has more to read.
    pub(super) fn read_later(&mut self, index: usize) {
        self.readable.push(index);
    }

    /// Takes a connection's framer out while its frames are handled in place.
    pub(super) fn take_framer(&mut self, index: usize) -> Option<(FiveTuple, Framer)> {
        let stream = self.slots.get_mut(index)?.as_deref_mut()?;
        Some((stream.tuple, std::mem::take(&mut stream.framer)))
    }

    /// Puts it back; `whole`: a message has become whole meanwhile.
    pub(super) fn put_framer(&mut self, index: usize, framer: Framer, whole: bool, now: Mono) {
        let Some(stream) = self.slots.get_mut(index).and_then(Option::as_deref_mut) else { return };
        let before = stream.begun.filter(|_| !whole);
        stream.begun = (framer.pending() > 0).then(|| before.unwrap_or(now));
        stream.framer = framer;
    }

    /// Notes whether a client has an allocation: what it may leave unread depends on that.
    pub(super) fn note_allocation(&mut self, client: FiveTuple, has: bool) {
        let index = self.by_tuple.get(&client).copied();
        let stream = index.and_then(|i| self.slots.get_mut(i)).and_then(Option::as_deref_mut);
        if let Some(stream) = stream {
            stream.allocated = has;
        }
    }

    /// Sends one message; dropped and counted when the client does not read.
    pub(super) fn send(&mut self, to: FiveTuple, message: &[u8], counters: &mut Counters) {
        let index = self.by_tuple.get(&to).copied();
        let stream = index.and_then(|i| self.slots.get_mut(i)).and_then(Option::as_deref_mut);
        let Some(stream) = stream else {
            counters.inc(Id::StreamDropClosed);
            return;
        };
        let bound = if stream.allocated { UNREAD } else { UNREAD_BY_STRANGERS };
        if stream.unsent.len() > bound {
            counters.inc(Id::StreamDropUnread);
            return;
        }
        counters.inc(Id::StreamMessagesOut);
        // A failed write shows as a failed read soon.
        let _broken = stream.write_message(message);
    }

    /// Closes a connection; its client, for the relay to end what hangs on it.
    pub(super) fn close(&mut self, index: usize, counters: &mut Counters) -> Option<FiveTuple> {
        let mut stream = self.slots.get_mut(index).and_then(Option::take)?;
        if let Some(tls) = &mut stream.tls {
            tls.send_close_notify();
            let _best_effort = stream.seal().and_then(|()| stream.write_out());
        }
        // It is closed by the drop; the poller forgets closed descriptors by itself.
        let _known = self.registry.deregister(&mut stream.socket);
        self.by_tuple.remove(&stream.tuple);
        self.free.push(index);
        counters.set(Id::Streams, self.by_tuple.len() as u64);
        Some(stream.tuple)
    }

    /// Once a second: connections that waste our time.
    pub(super) fn sweep(
        &mut self,
        now: Mono,
        has_allocation: impl Fn(FiveTuple) -> bool,
        out: &mut Vec<usize>,
    ) {
        out.clear();
        if now.since(self.swept) < Duration::from_secs(1) {
            return;
        }
        self.swept = now;
        for (index, stream) in self.slots.iter_mut().enumerate() {
            let Some(stream) = stream.as_deref_mut() else { continue };
            if has_allocation(stream.tuple) {
                stream.idle_since = now;
            }
            let slow = stream.begun.is_some_and(|begun| now.since(begun) > MESSAGE_WITHIN);
            if slow || now.since(stream.idle_since) > IDLE {
                out.push(index);
            }
        }
    }
}

impl Stream {
    /// Decrypted bytes.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if !self.early.is_empty() {
            let n = self.early.len().min(out.len());
            for (place, byte) in out.iter_mut().zip(self.early.drain(..n)) {
                *place = byte;
            }
            return Ok(n);
        }
        let Some(tls) = &mut self.tls else { return self.socket.read(out) };
        loop {
            match tls.reader().read(out) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if tls.read_tls(&mut self.socket)? == 0 {
                return Ok(0);
            }
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            if state.tls_bytes_to_write() > 0 {
                self.seal()?;
                self.write_out()?;
                return self.read(out);
            }
        }
    }

    /// One message, padded by the relay, as one record and one write.
    fn write_message(&mut self, message: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.unsent.extend_from_slice(message),
            Some(tls) => {
                tls.writer().write_all(message)?;
                self.seal()?;
            }
        }
        self.write_out()
    }

    /// Moves what TLS has to send to `unsent`.
    fn seal(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            tls.write_tls(&mut self.unsent)?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.unsent.drain(..n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream as StdStream};

    use super::*;

    /// One connection of a shard, and its client's end.
    fn rig() -> (Streams, StdStream, FiveTuple, mio::Poll) {
        let poll = mio::Poll::new().expect("a poller");
        let mut streams = Streams::new(poll.registry().try_clone().expect("cloned"), 9);
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let client = StdStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let (socket, from) = listener.accept().expect("accepts");
        socket.set_nonblocking(true).expect("socket option");
        let from = ClientAddr::new(from);
        let held = Held::take(&Arc::default(), 1).expect("nobody else is there");
        let (tls, begun) = (None, Vec::new());
        let incoming = Incoming { socket, client: from, listener: 0, tls, begun, held };
        streams.insert(incoming, Mono::ZERO, &mut Counters::default());
        (streams, client, FiveTuple::new(from, Transport::Tcp), poll)
    }

    const fn at(secs: u64) -> Mono {
        Mono::from_nanos(secs * 1_000_000_000)
    }

    fn swept(streams: &mut Streams, secs: u64) -> usize {
        let mut order = Vec::new();
        streams.sweep(at(secs), |_| true, &mut order);
        order.len()
    }

    /// Segments of a sender with a backlog end anywhere: its messages are whole, one after another,
    /// though there is always another begun.
    #[test]
    fn connection_whose_messages_become_whole_is_not_stalled() {
        let (mut streams, _client, _tuple, _poll) = rig();
        let mut framer = Framer::default();
        assert_eq!(framer.next(&mut &mut [0x40, 0, 0, 8, 1][..]), Ok(None));
        for secs in [0, 6, 12, 18] {
            streams.put_framer(0, framer.clone(), true, at(secs));
            assert_eq!(swept(&mut streams, secs + 5), 0, "at {secs} s");
        }
        streams.put_framer(0, framer, false, at(27));
        assert_eq!(swept(&mut streams, 29), 1, "begun at 18 s, and not whole");
    }

    fn unsent(streams: &Streams) -> usize {
        streams.slots.first().and_then(Option::as_deref).map_or(0, |stream| stream.unsent.len())
    }

    /// Sends until one is dropped; how much is held then.
    fn filled(streams: &mut Streams, to: FiveTuple) -> usize {
        let mut counters = Counters::default();
        while counters.get(Id::StreamDropUnread) == 0 {
            streams.send(to, &[0; 1_000], &mut counters);
        }
        unsent(streams)
    }

    #[test]
    fn little_is_held_for_a_stranger_who_does_not_read() {
        let (mut streams, _client, tuple, _poll) = rig();
        assert!(filled(&mut streams, tuple) <= 16 * 1024 + 1_000);
        streams.note_allocation(tuple, true);
        assert!(filled(&mut streams, tuple) > UNREAD, "media of a client may wait");
        streams.note_allocation(tuple, false);
        let before = unsent(&streams);
        assert_eq!(filled(&mut streams, tuple), before, "no longer");
    }
}
