//! Relayed sockets of the `external` policy: opened and closed as the relay says, read and written
//! in batches.
//!
//! The relay of a shard speaks to its [`Binder`], which does what system calls it takes and leaves
//! the outcome in a queue; the shard's [`External`] takes it from there, on the same thread.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crossbeam_queue::ArrayQueue;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::sys::icmp;
use super::sys::udp::{RecvBatch, SEND_BATCH, SendBatch, allow_fragments};
use crate::metrics::{Counters, Id};
use crate::relay::{Icmp, Opened, Opener, Outlet};

/// Tokens from here on are relayed sockets'; connections are counted from the other end.
const FIRST_TOKEN: usize = 1 << 32;
/// Arena bytes; a full arena is sent, so this bounds memory, not traffic.
const ARENA: usize = 512 * 1024;
/// Receive buffer of a relayed socket, bytes: a keyframe's burst while the shard is busy.
const BUFFER: usize = 1024 * 1024;
/// Sockets read in one turn, so that a flood of many keeps nobody else waiting.
const READ_PER_TURN: usize = 64;
/// Sockets that wait for their reservation to be redeemed have one place for each of these.
const PLACES: usize = 1_024;

/// Reserved sockets of all shards: whichever redeems the token takes it. A place that is in use is
/// as good as a port that is.
#[derive(Debug)]
pub(super) struct Reserved(Box<[ArrayQueue<(Outlet, u64, StdSocket)>]>);

impl Default for Reserved {
    fn default() -> Self {
        Self((0..PLACES).map(|_| ArrayQueue::new(1)).collect())
    }
}

impl Reserved {
    fn place(&self, outlet: Outlet) -> Option<&ArrayQueue<(Outlet, u64, StdSocket)>> {
        // Only odd ports are ever reserved.
        let index = usize::from(outlet.port / 2) * 2 + usize::from(outlet.v6);
        self.0.get(index % PLACES)
    }

    fn take(&self, outlet: Outlet, token: u64) -> Option<StdSocket> {
        let place = self.place(outlet)?;
        let (held, by, socket) = place.pop()?;
        if (held, by) == (outlet, token) {
            return Some(socket);
        }
        // Somebody else's; lost only if a third one came between, which is a port lost for 30 s.
        let _full = place.push((held, by, socket));
        None
    }
}

enum Change {
    Open(Outlet, StdSocket),
    Close(Outlet),
}

/// Opens and closes sockets for the relay of one shard.
pub(super) struct Binder {
    /// IPv4, IPv6.
    ips: [Option<IpAddr>; 2],
    changes: Sender<Change>,
    reserved: Arc<Reserved>,
}

impl Binder {
    fn bind(&self, outlet: Outlet) -> Result<StdSocket, Opened> {
        let [v4, v6] = self.ips;
        let ip = if outlet.v6 { v6 } else { v4 }.ok_or(Opened::Exhausted)?;
        bind((ip, outlet.port).into()).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Opened::Taken,
            _ => Opened::Exhausted,
        })
    }

    fn tell(&self, change: Change) {
        // Its other end lives in the same shard.
        let _ending = self.changes.send(change);
    }
}

impl Opener for Binder {
    fn open(&mut self, outlet: Outlet) -> Opened {
        match self.bind(outlet) {
            Ok(socket) => {
                self.tell(Change::Open(outlet, socket));
                Opened::Yes
            }
            Err(why) => why,
        }
    }

    fn close(&mut self, outlet: Outlet) {
        self.tell(Change::Close(outlet));
    }

    fn reserve(&mut self, outlet: Outlet, token: u64) -> Opened {
        let Some(place) = self.reserved.place(outlet) else { return Opened::Exhausted };
        match self.bind(outlet).map(|socket| place.push((outlet, token, socket))) {
            Ok(Ok(())) => Opened::Yes,
            Ok(Err(_)) => Opened::Taken,
            Err(why) => why,
        }
    }

    fn take(&mut self, outlet: Outlet, token: u64) -> bool {
        let Some(socket) = self.reserved.take(outlet, token) else { return false };
        // What arrived while nobody was there is for nobody.
        self.tell(Change::Open(outlet, socket));
        true
    }

    fn forget(&mut self, outlet: Outlet, token: u64) -> bool {
        self.reserved.take(outlet, token).is_some()
    }
}

/// A relayed socket. No `SO_REUSEPORT`: its port is its allocation's alone, on the whole machine.
fn bind(addr: SocketAddr) -> io::Result<StdSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // RFC 8656 section 14: DF is not set, so that a payload that is too long arrives in pieces.
    allow_fragments(socket.as_fd(), addr.is_ipv6())?;
    icmp::keep(socket.as_fd(), addr.is_ipv6())?;
    socket.bind(&addr.into())?;
    // Best effort: the kernel caps it.
    let _capped = socket.set_recv_buffer_size(BUFFER);
    Ok(socket.into())
}

/// Whether relayed sockets can be bound to an address at all: better told at the start.
///
/// # Errors
/// What the kernel says.
pub(super) fn try_bind(ip: IpAddr) -> io::Result<()> {
    bind((ip, 0).into()).map(drop)
}

struct Open {
    outlet: Outlet,
    socket: UdpSocket,
    /// Waits in the list of those to be read.
    queued: bool,
}

/// The relayed sockets of one shard, and what is to leave by them.
pub(super) struct External {
    registry: Registry,
    changes: Receiver<Change>,
    slots: Vec<Option<Open>>,
    free: Vec<usize>,
    by_outlet: HashMap<Outlet, usize>,
    readable: VecDeque<usize>,
    arena: Vec<u8>,
    used: usize,
    queue: Vec<(usize, SocketAddr, Range<usize>)>,
    datagrams: Vec<(SocketAddr, Range<usize>)>,
    batch: SendBatch,
}

impl External {
    /// No sockets yet; and who opens them.
    pub(super) fn new(
        registry: Registry,
        ips: [Option<IpAddr>; 2],
        reserved: Arc<Reserved>,
    ) -> (Self, Binder) {
        let (sender, changes) = channel();
        let external = Self {
            registry,
            changes,
            slots: Vec::new(),
            free: Vec::new(),
            by_outlet: HashMap::new(),
            readable: VecDeque::new(),
            arena: vec![0; ARENA],
            used: 0,
            queue: Vec::with_capacity(SEND_BATCH),
            datagrams: Vec::with_capacity(SEND_BATCH),
            batch: SendBatch::default(),
        };
        (external, Binder { ips, changes: sender, reserved })
    }

    /// Whether a poll token is a relayed socket's.
    pub(super) const fn is_token(token: Token) -> bool {
        token.0 >= FIRST_TOKEN
    }

    /// The kernel has something for a socket.
    pub(super) fn on_ready(&mut self, token: Token) {
        let index = token.0 - FIRST_TOKEN;
        if let Some(open) = self.slots.get_mut(index).and_then(Option::as_mut)
            && !open.queued
        {
            open.queued = true;
            self.readable.push_back(index);
        }
    }

    /// More may be waiting than was read.
    pub(super) fn is_busy(&self) -> bool {
        !self.readable.is_empty()
    }

    /// Does what the relay has asked for.
    pub(super) fn apply_changes(&mut self, counters: &mut Counters) {
        while let Ok(change) = self.changes.try_recv() {
            match change {
                Change::Open(outlet, socket) => self.insert(outlet, socket, counters),
                Change::Close(outlet) => self.remove(outlet, counters),
            }
        }
    }

    fn insert(&mut self, outlet: Outlet, socket: StdSocket, counters: &mut Counters) {
        let mut socket = UdpSocket::from_std(socket);
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let token = Token(FIRST_TOKEN + index);
        if self.registry.register(&mut socket, token, Interest::READABLE).is_err() {
            // Out of kernel memory: the client hears nothing until its allocation ends.
            self.free.push(index);
            counters.inc(Id::RelayPortsExhausted);
            return;
        }
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(Open { outlet, socket, queued: false });
        }
        self.by_outlet.insert(outlet, index);
    }

    fn remove(&mut self, outlet: Outlet, counters: &mut Counters) {
        let Some(index) = self.by_outlet.get(&outlet).copied() else { return };
        // What was sent before the end is sent: the index may be another's next.
        self.flush(counters);
        self.by_outlet.remove(&outlet);
        // Closing takes it out of the poller as well.
        let open = self.slots.get_mut(index).and_then(Option::take);
        if open.is_some_and(|open| open.queued) {
            self.readable.retain(|readable| *readable != index);
        }
        self.free.push(index);
    }

    /// Queues a payload for a peer.
    pub(super) fn send(
        &mut self,
        outlet: Outlet,
        to: SocketAddr,
        payload: &[u8],
        counters: &mut Counters,
    ) {
        let Some(index) = self.by_outlet.get(&outlet).copied() else {
            counters.inc(Id::ExternalDropClosed);
            return;
        };
        if self.used + payload.len() > self.arena.len() || self.queue.len() == SEND_BATCH {
            self.flush(counters);
        }
        let range = self.used..self.used + payload.len();
        let Some(place) = self.arena.get_mut(range.clone()) else { return };
        place.copy_from_slice(payload);
        self.used = range.end;
        self.queue.push((index, to, range));
    }

    /// Gives everything to the kernel, one call a socket. What it refuses is a counted drop.
    pub(super) fn flush(&mut self, counters: &mut Counters) {
        // Each socket's in their order: ranges grow as they were queued.
        self.queue.sort_unstable_by_key(|(index, _, range)| (*index, range.start, range.end));
        let mut rest = self.queue.as_slice();
        while let Some((index, ..)) = rest.first() {
            let count = rest.iter().take_while(|(other, ..)| other == index).count();
            let (own, others) = rest.split_at(count);
            rest = others;
            let Some(open) = self.slots.get(*index).and_then(Option::as_ref) else {
                counters.add(Id::ExternalDropClosed, count as u64);
                continue;
            };
            self.datagrams.clear();
            self.datagrams.extend(own.iter().map(|(_, to, range)| (*to, range.clone())));
            let mut left = self.datagrams.as_slice();
            let mut again = true;
            while !left.is_empty() {
                counters.inc(Id::EngineSendCalls);
                match self.batch.send(open.socket.as_fd(), &self.arena, left) {
                    Ok(sent) => {
                        counters.add(Id::ExternalPacketsOut, sent as u64);
                        left = left.get(sent.max(1)..).unwrap_or_default();
                        again = true;
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        counters.add(Id::ExternalDropBlocked, left.len() as u64);
                        break;
                    }
                    // The ICMP error of an earlier datagram is told at the next one, which it keeps
                    // from leaving.
                    Err(_) if again => again = false,
                    // No route, too long, forbidden by a firewall.
                    Err(_) => {
                        counters.inc(Id::ExternalDropRefused);
                        left = left.get(1..).unwrap_or_default();
                        again = true;
                    }
                }
            }
        }
        self.queue.clear();
        self.used = 0;
    }

    /// Sockets to be read in this turn, each once; those to be read again are put back by
    /// [`Self::read_later`].
    pub(super) fn take_readable(&mut self, order: &mut Vec<usize>) {
        order.clear();
        let count = self.readable.len().min(READ_PER_TURN);
        order.extend(self.readable.drain(..count));
        for index in order {
            if let Some(open) = self.slots.get_mut(*index).and_then(Option::as_mut) {
                open.queued = false;
            }
        }
    }

    /// The next ICMP error about what left by a socket, and which socket; the inner `None`: it is
    /// of no interest.
    pub(super) fn next_icmp(&self, index: usize) -> Option<(Outlet, Option<Icmp>)> {
        let open = self.slots.get(index)?.as_ref()?;
        let error = icmp::next(open.socket.as_fd())?;
        let icmp = error.map(|e| Icmp { to: e.to, kind: e.kind, code: e.code, mtu: e.info });
        Some((open.outlet, icmp))
    }

    /// There may be more.
    pub(super) fn read_later(&mut self, index: usize) {
        self.on_ready(Token(FIRST_TOKEN + index));
    }

    /// One receive call; which socket it is, and how many datagrams came.
    pub(super) fn read(
        &self,
        index: usize,
        recv: &mut RecvBatch,
    ) -> Option<(Outlet, io::Result<usize>)> {
        let open = self.slots.get(index)?.as_ref()?;
        Some((open.outlet, recv.recv(open.socket.as_fd())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rig() -> (External, Binder, mio::Poll) {
        let poll = mio::Poll::new().expect("a poller");
        let registry = poll.registry().try_clone().expect("cloned");
        let loopback = Some(IpAddr::from([127, 0, 0, 1]));
        let (external, binder) = External::new(registry, [loopback, None], Arc::default());
        (external, binder, poll)
    }

    /// A port that was free a moment ago.
    fn free_port(odd: bool) -> u16 {
        loop {
            let socket = StdSocket::bind("127.0.0.1:0").expect("loopback");
            let port = socket.local_addr().expect("bound").port();
            if !odd || port % 2 == 1 {
                return port;
            }
        }
    }

    #[test]
    fn port_belongs_to_one_socket_until_it_is_closed() {
        let (mut external, mut binder, _poll) = rig();
        let mut counters = Counters::default();
        let outlet = Outlet { v6: false, port: free_port(false) };
        assert_eq!(binder.open(outlet), Opened::Yes);
        assert_eq!(binder.open(outlet), Opened::Taken);
        assert_eq!(binder.open(Outlet { v6: true, ..outlet }), Opened::Exhausted, "no IPv6");
        external.apply_changes(&mut counters);
        let peer = StdSocket::bind("127.0.0.1:0").expect("loopback");
        let to = peer.local_addr().expect("bound");
        external.send(outlet, to, b"one", &mut counters);
        external.send(outlet, to, b"", &mut counters);
        external.send(outlet, to, b"two", &mut counters);
        binder.close(outlet);
        external.apply_changes(&mut counters);
        let mut buffer = [0; 16];
        for expected in [&b"one"[..], b"", b"two"] {
            let (n, from) = peer.recv_from(&mut buffer).expect("sent before the end");
            assert_eq!((&buffer[..n], from.port()), (expected, outlet.port));
        }
        external.send(outlet, to, b"late", &mut counters);
        assert_eq!(counters.get(Id::ExternalDropClosed), 1);
        assert_eq!(binder.open(outlet), Opened::Yes, "free again");
    }

    #[test]
    fn reserved_socket_is_taken_once_by_its_token_on_any_shard() {
        let (_external, mut first, _poll) = rig();
        let (mut there, mut second, _poll) = rig();
        second.reserved = Arc::clone(&first.reserved);
        let outlet = Outlet { v6: false, port: free_port(true) };
        assert_eq!(first.reserve(outlet, 7), Opened::Yes);
        assert_eq!(first.open(outlet), Opened::Taken, "held");
        assert!(!second.take(outlet, 8));
        assert!(second.take(outlet, 7));
        assert!(!first.forget(outlet, 7), "taken");
        there.apply_changes(&mut Counters::default());
        assert!(there.by_outlet.contains_key(&outlet));
        second.close(outlet);
        there.apply_changes(&mut Counters::default());
        assert_eq!(first.reserve(outlet, 9), Opened::Yes);
        assert!(first.forget(outlet, 9));
        assert_eq!(first.open(outlet), Opened::Yes, "nobody came for it");
    }
}
