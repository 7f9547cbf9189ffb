//! The data plane: shards, their sockets, egress, timers, and what crosses between them.
//!
//! Nothing below layer 4 takes a lock, except the parked table once per session, for a check
//! that lands on another shard than its session's, and once or twice per ICE restart.

pub mod clock;
pub mod egress;
pub mod endpoint;
mod external;
pub mod hairpin;
pub mod mailbox;
pub mod media;
pub mod parked;
mod shard;
pub mod slabs;
mod socket;
mod streams;
pub mod sys;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use mio::{Poll, Waker};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::auth;
use crate::auth::revocation::Revocation;
use crate::forward::Wish;
use crate::ids::{RoomHash, SessionId, ShardId, StreamId};
use crate::metrics::Published;
use crate::relay::{self, NonceKeys, Relay};
use crate::session::Generation;
use crate::time::Mono;
use clock::Clock;
use mailbox::{Event, Mailbox, Message, PlayChange};
use parked::{Blueprint, ParkedTable, Played};
use shard::{Parts, Shard, WAKER};
pub use socket::BindError;
use socket::Sockets;
pub use streams::{Held, Incoming};
use sys::lock::PortLock;

/// Most shards of one process: a set of them fits 64 bits.
pub const MAX_SHARDS: usize = 64;

/// Most UDP ports: two families on the port of TURN, that of HTTPS, and a few more.
pub const MAX_UDP: usize = 8;

/// Cores this process may use.
#[must_use]
pub fn cores() -> usize {
    sys::affinity::cores().len().max(1)
}

/// What the data plane is told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where UDP ports are bound, 1 to [`MAX_UDP`].
    pub udp: Vec<SocketAddr>,
    /// Data-plane threads, 1 to [`MAX_SHARDS`].
    pub shards: usize,
    /// The TURN server.
    pub relay: relay::Config,
}

/// Why the data plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A UDP port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Their number.
    #[error("there must be 1 to {MAX_UDP} UDP ports")]
    Ports,
    /// The TURN server's part of the configuration.
    #[error(transparent)]
    Relay(#[from] relay::ConfigError),
    /// An address of relayed sockets that this machine has not.
    #[error("relayed sockets cannot be bound to {ip}: {source}")]
    External {
        /// The address.
        ip: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Threads, pollers.
    #[error("the data plane could not start: {0}")]
    Io(#[from] io::Error),
}

/// The running data plane; dropping it does not stop it, [`Engine::stop`] does.
#[derive(Debug)]
pub struct Engine {
    threads: Vec<JoinHandle<()>>,
    handle: Handle,
    _locks: Vec<PortLock>,
}

/// What came of asking for a session's end, or for a change of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closing {
    /// Its shard was told, and will report an end.
    Told,
    /// It was only parked, or is gone: nothing will be reported.
    Gone,
    /// Its shard has too many orders waiting: ask again.
    Busy,
}

/// The way into the data plane, for control.
#[derive(Clone, Debug)]
pub struct Handle {
    parked: Arc<ParkedTable>,
    mailboxes: Arc<[Mailbox]>,
    published: Vec<Arc<Published>>,
    clock: Clock,
    rooms: relay::RoomAddresses,
    /// Connections take shards in turn.
    turn: Arc<AtomicUsize>,
}

impl Engine {
    /// Binds the ports and starts the shards.
    ///
    /// # Errors
    /// When a port is held by another process (which the error names) or the system refuses.
    pub fn start(
        config: &Config,
        keys: &Arc<auth::turn::Keys>,
        rng: &mut StdRng,
    ) -> Result<(Self, UnboundedReceiver<Event>), StartError> {
        let count = config.shards.clamp(1, MAX_SHARDS);
        if config.udp.is_empty() || config.udp.len() > MAX_UDP {
            return Err(StartError::Ports);
        }
        let locks: Vec<_> =
            config.udp.iter().map(|udp| socket::claim(*udp)).collect::<Result<_, _>>()?;
        let cores = sys::affinity::cores();
        let clock = Clock::new();
        let parked: Arc<ParkedTable> = Arc::default();
        let nonce_keys = NonceKeys::new(rng.random(), None);
        let (sender, receiver) = unbounded_channel();
        let polls = (0..count).map(|_| Poll::new()).collect::<io::Result<Vec<_>>>()?;
        let mailboxes: Arc<[Mailbox]> = polls
            .iter()
            .map(|poll| Waker::new(poll.registry(), WAKER).map(Mailbox::new))
            .collect::<io::Result<Vec<_>>>()?
            .into();
        let published: Vec<Arc<Published>> = (0..count).map(|_| Arc::default()).collect();
        let outside = config.relay.external.as_ref();
        let outside = outside.map(|it| [Some(it.bound_ip), it.ip6.map(IpAddr::V6)]);
        for ip in outside.into_iter().flatten().flatten() {
            external::try_bind(ip).map_err(|source| StartError::External { ip, source })?;
        }
        let reserved: Arc<external::Reserved> = Arc::default();
        let mut threads = Vec::with_capacity(count);
        for (i, poll) in polls.into_iter().enumerate() {
            let id = ShardId(i as u8);
            let mut relay = Relay::new(
                relay::Config { shards: count as u16, ..config.relay.clone() },
                Arc::clone(keys),
                nonce_keys.clone(),
                StdRng::from_rng(rng),
                id,
            )?;
            let external = match outside {
                None => None,
                Some(ips) => {
                    let registry = poll.registry().try_clone()?;
                    let reserved = Arc::clone(&reserved);
                    let (external, binder) = external::External::new(registry, ips, reserved);
                    relay.open_with(Box::new(binder));
                    Some(external)
                }
            };
            let mut shard = Shard::new(Parts {
                external,
                id,
                sockets: Sockets::bind(&config.udp)?,
                poll,
                relay,
                media: config.relay.media.clone(),
                rng: StdRng::from_rng(rng),
                clock,
                mailboxes: Arc::clone(&mailboxes),
                parked: Arc::clone(&parked),
                events: sender.clone(),
                published: Arc::clone(&published[i]),
            })?;
            let core = cores.get(i % cores.len().max(1)).copied();
            let thread = std::thread::Builder::new().name(format!("shard {i}/{count}"));
            threads.push(thread.spawn(move || {
                if let Some(Err(error)) = core.map(sys::affinity::pin) {
                    tracing::warn!(shard = i, %error, "shard is not pinned to a core");
                }
                shard.run();
            })?);
        }
        let rooms = relay::RoomAddresses::new(&config.relay);
        let handle = Handle { parked, mailboxes, published, clock, rooms, turn: Arc::default() };
        Ok((Self { threads, handle, _locks: locks }, receiver))
    }

    /// The way in.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Whether every shard still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.threads.iter().all(|t| !t.is_finished())
    }

    /// Closes all sessions and waits for the shards to end.
    pub fn stop(self) {
        for (mailbox, thread) in self.handle.mailboxes.iter().zip(&self.threads) {
            let mut message = Message::Stop;
            // A full mailbox empties within a turn of its shard's loop.
            while let Err(back) = mailbox.order(message) {
                if thread.is_finished() {
                    break;
                }
                message = back;
                mailbox.wake();
                std::thread::yield_now();
            }
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a shard ended by a panic");
            }
        }
    }
}

impl Handle {
    /// The engine's clocks.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Parks a session for the first valid check to claim it, until `until`.
    ///
    /// # Errors
    /// Gives it back when the table is full.
    pub fn park(&self, blueprint: Box<Blueprint>, until: Mono) -> Result<(), Box<Blueprint>> {
        self.parked.park(blueprint, until)
    }

    /// Sessions nobody claimed in time; they are gone.
    #[must_use]
    pub fn expire(&self) -> Vec<SessionId> {
        self.parked.expire(self.clock.mono())
    }

    /// Ends a session, claimed or not.
    #[must_use]
    pub fn close(&self, session: SessionId, ufrag: &str) -> Closing {
        let shard = self.parked.holder_or_remove(ufrag);
        let Some(mailbox) = shard.and_then(|s| self.mailboxes.get(usize::from(s.0))) else {
            return Closing::Gone;
        };
        let message = Message::Close { session, ufrag: ufrag.to_owned(), hops: 0 };
        if mailbox.order(message).is_ok() { Closing::Told } else { Closing::Busy }
    }

    /// Sets all that a session plays, claimed or not. A later `revision` overrides an earlier one,
    /// in whatever order they arrive.
    #[must_use]
    pub fn play(
        &self,
        session: SessionId,
        ufrag: &str,
        revision: u32,
        streams: Vec<Played>,
    ) -> Closing {
        let Err((by, streams)) = self.parked.set_played(ufrag, streams) else {
            return Closing::Told;
        };
        let Some(mailbox) = by.and_then(|s| self.mailboxes.get(usize::from(s.0))) else {
            return Closing::Gone;
        };
        let ufrag = ufrag.to_owned();
        let change = PlayChange { session, ufrag, revision, streams, hops: 0 };
        let told = mailbox.order(Message::Play(Box::new(change))).is_ok();
        if told { Closing::Told } else { Closing::Busy }
    }

    /// Lets a session be checked with the credentials of an ICE restart as well. False when it is
    /// gone, or the ufrag is another's.
    #[must_use]
    pub fn restart(&self, ufrag: &str, next: &Generation) -> bool {
        self.parked.restart(ufrag, next)
    }

    /// Says what a playing session's client wishes of a track of a stream (`None`: of its only
    /// one). [`Closing::Gone`]: no shard has the session, or not yet.
    #[must_use]
    pub fn steer(
        &self,
        session: SessionId,
        ufrag: &str,
        stream: Option<StreamId>,
        track: u8,
        wish: Wish,
    ) -> Closing {
        let shard = self.parked.holder(ufrag);
        let Some(mailbox) = shard.and_then(|s| self.mailboxes.get(usize::from(s.0))) else {
            return Closing::Gone;
        };
        let ufrag = ufrag.to_owned();
        let message = Message::Steer { session, ufrag, hops: 0, stream, track, wish };
        if mailbox.order(message).is_ok() { Closing::Told } else { Closing::Busy }
    }

    /// Whether an address is a live relayed one of a room: asked of the table that all shards share.
    #[must_use]
    pub fn is_room_address(&self, address: SocketAddr, room: RoomHash) -> bool {
        self.rooms.is_live(address, room)
    }

    /// Gives a TURN connection to a shard. False when that shard's mailbox is full.
    #[must_use]
    pub fn connect(&self, incoming: Incoming) -> bool {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let shard = self.mailboxes.get(turn % self.mailboxes.len().max(1));
        shard.is_some_and(|m| m.send(Message::Connection(Box::new(incoming))).is_ok())
    }

    /// Sends clients that want a new allocation elsewhere; `None`: serves them again. False when a
    /// shard's mailbox is full: ask again.
    #[must_use]
    pub fn drain(&self, alternate: Option<relay::Alternate>) -> bool {
        self.tell_all(|| Message::Drain(alternate))
    }

    /// Says which addresses this machine has now: clients of class `external` must not reach them.
    /// False when a shard's mailbox is full: ask again.
    #[must_use]
    pub fn set_own_addresses(&self, own: &Arc<[IpAddr]>) -> bool {
        self.tell_all(|| Message::OwnAddresses(Arc::clone(own)))
    }

    fn tell_all(&self, message: impl Fn() -> Message) -> bool {
        let told = self.mailboxes.iter().filter(|mailbox| mailbox.order(message()).is_ok());
        told.count() == self.mailboxes.len()
    }

    /// Data-plane threads.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.mailboxes.len()
    }

    /// Tells one shard what is revoked. False when its mailbox is full just now.
    #[must_use]
    pub fn revoke(&self, shard: usize, revocations: &Arc<[Revocation]>) -> bool {
        let message = Message::Revoke(Arc::clone(revocations));
        self.mailboxes.get(shard).is_none_or(|mailbox| mailbox.order(message).is_ok())
    }

    /// Gives one shard a fresh key for its nonces. False when its mailbox is full just now.
    #[must_use]
    pub fn rotate_nonces(&self, shard: usize, key: relay::NonceKey) -> bool {
        let message = Message::Nonces(key);
        self.mailboxes.get(shard).is_none_or(|mailbox| mailbox.order(message).is_ok())
    }

    /// What shards have counted.
    #[must_use]
    pub fn published(&self) -> Vec<Arc<Published>> {
        self.published.clone()
    }
}
