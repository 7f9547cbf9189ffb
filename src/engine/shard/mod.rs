//! One shard: a pinned thread that owns its sockets, a relay, sessions, players and their timers.
//!
//! A turn of the loop: receive in batches, hand each datagram to the relay and what it relays to
//! a session, collect decrypted media per stream, deliver it to players here and to the shards
//! that have others, take messages, run at most one DTLS handshake step, run due timers, send.

mod connections;
mod data;
mod external;
mod inbound;
mod lifecycle;
mod outbound;
mod playing;
mod restart;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll, Token};
use rand::RngCore;
use rand::rngs::StdRng;
use tokio::sync::mpsc::UnboundedSender;

use super::MAX_UDP;
use super::clock::Clock;
use super::egress::Egress;
use super::endpoint::{Endpoint, Part, Playing, Role};
use super::external::External;
use super::hairpin::Outbox;
use super::mailbox::{Event, Mailbox};
use super::media::{MEDIA_RING, MediaBatch};
use super::parked::ParkedTable;
use super::slabs::Slabs;
use super::socket::Sockets;
use super::streams::Streams;
use super::sys::udp::{RECV_BATCH, RecvBatch};
use crate::forward::{Cache, RateMeter, Wants};
use crate::ids::{RoomHash, SessionId, ShardId, StreamId};
use crate::metrics::{Counters, Hist, Id, Published};
use crate::relay::{HEADROOM, Relay, TAILROOM};
use crate::session::{self, srtp};
use crate::time::{Mono, Now};

/// Receive calls in one turn before timers and messages get theirs.
const RECV_CALLS: usize = 8;
/// Messages of other shards and of control in one turn.
const MESSAGES_PER_TURN: usize = 64;
/// What was said on data channels of other shards, in one turn.
const DATA_PER_TURN: usize = 64;
/// Slabs of other shards in one turn.
const SLABS_PER_TURN: usize = 64;
/// Room for one packet in an egress slot.
const PACKET: usize = 1_500;
const SLOT: usize = HEADROOM + PACKET + srtp::MAX_TRAILER + TAILROOM;

pub(super) const WAKER: Token = Token(0);
/// The first of the UDP sockets' tokens.
const SOCKETS: Token = Token(1);
/// The first of the connections' tokens.
const CONNECTIONS: Token = Token(SOCKETS.0 + MAX_UDP);

/// What a shard is made of.
pub(super) struct Parts {
    pub id: ShardId,
    pub sockets: Sockets,
    pub poll: Poll,
    pub relay: Relay,
    /// The media addresses; a [`crate::ids::Path`] names them by their place.
    pub media: Vec<SocketAddr>,
    pub rng: StdRng,
    pub clock: Clock,
    pub mailboxes: Arc<[Mailbox]>,
    pub parked: Arc<ParkedTable>,
    pub events: UnboundedSender<Event>,
    pub published: Arc<Published>,
    /// Sockets towards peers outside, where that policy is on.
    pub external: Option<External>,
}

/// A stream as far as this shard is concerned.
#[derive(Debug)]
struct LocalStream {
    players: Vec<usize>,
    publisher: Option<usize>,
    caches: Vec<Cache>,
    /// What its tracks' layers take.
    meters: Vec<RateMeter>,
    clocks: Vec<Option<crate::forward::Clock>>,
}

/// Where packets of an allocation go.
#[derive(Debug, Default)]
enum Target {
    #[default]
    None,
    Local {
        index: usize,
        /// Indices are used again; ids are not.
        session: SessionId,
    },
    /// A session of another shard; the check that proved it, for the move.
    Elsewhere { session: SessionId, by: ShardId, check: Vec<u8> },
}

#[derive(Debug, Default)]
struct Lane {
    generation: u32,
    target: Target,
    /// When its session was last asked to come here.
    asked: Option<Mono>,
}

pub(super) struct Shard {
    parts: Parts,
    counters: Counters,
    egress: Egress,
    /// Taken out while a batch is handled in place.
    recv: Option<RecvBatch>,
    reply: Box<[u8]>,
    connections: Streams,
    external: Option<External>,
    /// Taken out while what was read is handled in place.
    scratch: Box<[u8]>,
    endpoints: Vec<Option<Box<Endpoint>>>,
    free: Vec<usize>,
    by_ufrag: HashMap<String, usize>,
    by_session: HashMap<SessionId, usize>,
    lanes: Vec<Lane>,
    /// Sessions with data channels.
    data_rooms: HashMap<RoomHash, Vec<usize>>,
    streams: HashMap<StreamId, LocalStream>,
    building: Vec<Arc<MediaBatch>>,
    pool: Slabs<MediaBatch>,
    outbox: Outbox,
    touched: Vec<usize>,
    order: Vec<usize>,
    deadlines: BinaryHeap<Reverse<(Mono, usize)>>,
    handshakes: VecDeque<usize>,
    wants: Wants,
    transaction: [u8; 12],
    now: Now,
    stopping: bool,
}

impl Shard {
    pub(super) fn new(mut parts: Parts) -> io::Result<Self> {
        parts.sockets.register(parts.poll.registry(), SOCKETS)?;
        let mut transaction = [0; 12];
        parts.rng.fill_bytes(&mut transaction);
        let now = parts.clock.now();
        let outbox = Outbox::new(parts.mailboxes.len());
        let external = parts.external.take();
        let connections = Streams::new(parts.poll.registry().try_clone()?, CONNECTIONS.0);
        Ok(Self {
            parts,
            counters: Counters::default(),
            egress: Egress::default(),
            recv: Some(RecvBatch::default()),
            reply: vec![0; 2_048].into_boxed_slice(),
            connections,
            external,
            scratch: vec![0; 16 * 1024].into_boxed_slice(),
            endpoints: Vec::new(),
            free: Vec::new(),
            by_ufrag: HashMap::new(),
            by_session: HashMap::new(),
            lanes: Vec::new(),
            data_rooms: HashMap::new(),
            streams: HashMap::new(),
            building: Vec::new(),
            pool: Slabs::new(MEDIA_RING),
            outbox,
            touched: Vec::new(),
            order: Vec::new(),
            deadlines: BinaryHeap::new(),
            handshakes: VecDeque::new(),
            wants: Wants::default(),
            transaction,
            now,
            stopping: false,
        })
    }

    /// Runs until told to stop.
    pub(super) fn run(&mut self) {
        const PUBLISH_EVERY: Duration = Duration::from_millis(500);
        let mut events = Events::with_capacity(256);
        let mut publish_at = self.now.mono;
        while !self.stopping {
            let wait = self.wait(publish_at);
            if let Err(e) = self.parts.poll.poll(&mut events, Some(wait))
                && e.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(shard = self.parts.id.0, error = %e, "poll failed");
                return;
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    token if self.parts.sockets.on_ready(token) => {}
                    token if External::is_token(token) => {
                        if let Some(external) = &mut self.external {
                            external.on_ready(token);
                        }
                    }
                    token => self.connections.on_ready(
                        token,
                        event.is_readable() || event.is_read_closed() || event.is_error(),
                        event.is_writable(),
                    ),
                }
            }
            self.now = self.parts.clock.now();
            let began = self.now.mono;
            self.counters.inc(Id::EngineLoops);

            self.receive();
            self.read_connections();
            self.read_external();
            self.take_messages();
            self.handshake_step();
            self.run_timers();
            self.settle_external();
            self.flush();

            let ended = self.parts.clock.mono();
            let lag = u64::try_from(ended.since(began).as_micros()).unwrap_or(u64::MAX);
            self.counters.observe(Hist::LoopLag, lag);
            if publish_at <= ended {
                self.counters.publish(&self.parts.published);
                publish_at = ended.plus(PUBLISH_EVERY);
            }
        }
        self.say_goodbye();
        self.counters.publish(&self.parts.published);
    }

    fn wait(&self, publish_at: Mono) -> Duration {
        let busy = self.parts.sockets.is_readable() || self.connections.is_busy();
        let external = self.external.as_ref().is_some_and(External::is_busy);
        if busy || external || !self.handshakes.is_empty() {
            return Duration::ZERO;
        }
        let timer = self.deadlines.peek().map(|Reverse((at, _))| *at);
        let due = [timer, self.parts.relay.poll_timeout(), Some(publish_at)];
        let due = due.into_iter().flatten().min().unwrap_or(publish_at);
        due.since(self.parts.clock.mono())
    }

    fn receive(&mut self) {
        let readable = self.parts.sockets.take_readable();
        for listener in (0..MAX_UDP as u8).filter(|place| readable & (1 << place) != 0) {
            if self.receive_from(listener) {
                self.parts.sockets.read_later(listener);
            }
        }
    }

    /// Receives from one socket; true when more may be waiting.
    fn receive_from(&mut self, listener: u8) -> bool {
        for _ in 0..RECV_CALLS {
            let Some(socket) = self.parts.sockets.get(listener) else { return false };
            let mut recv = self.recv.take().unwrap_or_default();
            let taken = recv.recv(socket);
            self.counters.inc(Id::EngineRecvCalls);
            let mut datagrams = 0;
            for i in 0..*taken.as_ref().unwrap_or(&0) {
                let Some(train) = recv.train(i) else { continue };
                for datagram in train.bytes.chunks_mut(train.segment) {
                    datagrams += 1;
                    self.on_datagram(train.from, listener, datagram);
                }
            }
            self.recv = Some(recv);
            if datagrams > 0 {
                self.counters.add(Id::EngineDatagramsIn, datagrams);
                self.counters.observe(Hist::RecvBatch, datagrams);
                self.finish_batch();
            }
            match taken {
                Ok(n) if n < RECV_BATCH => return false,
                Ok(_) => {}
                // Anything but "nothing there" is the ICMP error of an earlier send, reported
                // here once; what has arrived is still to be read.
                Err(e) => return e.kind() != io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// After a batch of input: sealed calls to the other shards, media to its players, then what
    /// sessions have to say.
    fn finish_batch(&mut self) {
        let lost = self.outbox.flush(&self.parts.mailboxes);
        self.counters.add(Id::RelayDropRing, lost);
        self.deliver_built();
        self.settle_touched();
        self.flush();
    }

    fn flush(&mut self) {
        if let Some(external) = &mut self.external {
            external.flush(&mut self.counters);
        }
        if !self.egress.is_empty() {
            let sockets = &self.parts.sockets;
            self.egress.flush(sockets, &mut self.connections, &mut self.counters);
        }
    }

    fn take_messages(&mut self) {
        let mailboxes = Arc::clone(&self.parts.mailboxes);
        let Some(own) = mailboxes.get(usize::from(self.parts.id.0)) else { return };
        let mut worked = false;
        let mut slabs = 0;
        while slabs < SLABS_PER_TURN
            && let Some(slab) = own.next_media()
        {
            self.deliver(&slab);
            worked = true;
            slabs += 1;
        }
        let mut passed = 0;
        while passed < SLABS_PER_TURN
            && let Some(slab) = own.next_hairpins()
        {
            self.deliver_hairpins(&slab);
            worked = true;
            passed += 1;
        }
        // Taken before the messages and heard after them: a session that is on its way here came
        // before what was said to it here.
        let heard: Vec<_> = (0..DATA_PER_TURN).map_while(|_| own.next_data()).collect();
        let mut messages = 0;
        while messages < MESSAGES_PER_TURN
            && let Some(message) = own.next_message()
        {
            self.on_message(message);
            messages += 1;
        }
        for news in &heard {
            self.on_data(news);
        }
        if worked || messages > 0 || !heard.is_empty() {
            self.finish_batch();
        }
        // More may wait: the waker fired once for all of it.
        let full = messages == MESSAGES_PER_TURN || heard.len() == DATA_PER_TURN;
        if full || slabs.max(passed) == SLABS_PER_TURN {
            own.wake();
        }
    }

    fn handshake_step(&mut self) {
        let Some(index) = self.handshakes.pop_front() else { return };
        let now = self.now;
        self.with_endpoint(index, |endpoint, shard| {
            endpoint.queued = false;
            endpoint.session.handshake_step(now, &mut shard.counters);
        });
        self.touch(index);
        self.settle_touched();
    }

    fn run_timers(&mut self) {
        let now = self.now;
        self.parts.relay.handle_timeout(now, &mut self.counters);
        while let Some(handle) = self.parts.relay.poll_ended() {
            if let Some(lane) = self.lanes.get_mut(handle.index as usize)
                && lane.generation == handle.generation
            {
                lane.target = Target::None;
            }
        }
        while let Some(Reverse((at, index))) = self.deadlines.peek().copied() {
            if at > now.mono {
                break;
            }
            self.deadlines.pop();
            let mut due = false;
            self.with_endpoint(index, |endpoint, shard| {
                // An entry that is not the endpoint's current one was overtaken.
                if endpoint.scheduled == Some(at) {
                    endpoint.scheduled = None;
                    endpoint.session.handle_timeout(now, &mut shard.counters);
                    due = true;
                }
            });
            if due {
                self.touch(index);
            }
        }
        self.settle_touched();
        self.sweep_connections();
    }

    /// Runs `step` on an endpoint taken out of its slot. A panic in it costs that session only.
    fn with_endpoint(&mut self, index: usize, step: impl FnOnce(&mut Endpoint, &mut Self)) {
        let Some(mut endpoint) = self.endpoints.get_mut(index).and_then(Option::take) else {
            return;
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| step(&mut endpoint, self)));
        if outcome.is_err() {
            self.counters.inc(Id::SessionPanicked);
            tracing::error!(session = %endpoint.id, "a bug ended this session");
            self.forget(index, &mut endpoint, session::Reason::Fault);
            return;
        }
        if let Some(slot) = self.endpoints.get_mut(index) {
            *slot = Some(endpoint);
        }
    }

    fn touch(&mut self, index: usize) {
        // Runs of one session are the rule, so looking at the last entry removes most doubles.
        if self.touched.last() != Some(&index) {
            self.touched.push(index);
        }
    }
}
