//! Bounded, lock-free queues into a shard. A full one is a counted drop (media) or a refusal.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use mio::Waker;

use super::endpoint::Endpoint;
use super::hairpin::{HAIRPIN_RING, HairpinBatch};
use super::media::{DataNews, MEDIA_RING, MediaBatch, StreamShared};
use super::parked::Played;
use super::streams::Incoming;
use crate::auth::revocation::Revocation;
use crate::forward::{LayerId, Wish};
use crate::ids::{AllocationHandle, Path, SessionId, StreamId};
use crate::relay::{Alternate, NonceKey};
use crate::session::Reason;
use crate::session::data::MAX_MESSAGE;

/// Messages other than media waiting for one shard.
const MESSAGES: usize = 4_096;
/// What was said on data channels of other shards; a ring of its own, so that no client's talk
/// keeps a session from moving. 32 MiB, if all of them are as long as they may be.
const DATA_RING: usize = 512;
const _: () = assert!(DATA_RING * MAX_MESSAGE <= 32 * 1024 * 1024, "ring memory per shard");
/// Of that, for the ends of channels: those that nobody tells stay open.
const KEPT_FOR_ENDS: usize = 128;

/// What a shard is asked by control or by another shard.
#[derive(Debug)]
pub enum Message {
    /// End a session. It carries the ufrag so that a shard which lost it can pass it on.
    Close {
        /// Which.
        session: SessionId,
        /// Its local ufrag.
        ufrag: String,
        /// Times it was passed on.
        hops: u8,
    },
    /// Change what a session plays.
    Play(Box<PlayChange>),
    /// What a session's client wishes of a track that it plays. It carries the ufrag as above.
    Steer {
        /// Which.
        session: SessionId,
        /// Its local ufrag.
        ufrag: String,
        /// Times it was passed on.
        hops: u8,
        /// Of which stream; `None`: of the only one.
        stream: Option<StreamId>,
        /// Its track.
        track: u8,
        /// What is wished.
        wish: Wish,
    },
    /// A player elsewhere wants a keyframe.
    Keyframe {
        /// The stream.
        stream: Arc<StreamShared>,
        /// Of which layer.
        layer: LayerId,
    },
    /// A session's client chose an allocation of another shard.
    Rehome {
        /// Which.
        session: SessionId,
        /// The way it chose.
        path: Path,
        /// The client's relayed address there.
        mapped: std::net::SocketAddr,
        /// What arrived, to be judged at the old home.
        datagrams: Vec<Vec<u8>>,
    },
    /// The session, on its way to its new home.
    Adopt {
        /// All of it.
        endpoint: Box<Endpoint>,
        /// The allocation here.
        allocation: AllocationHandle,
    },
    /// A TURN connection over TCP or TLS, after its handshake.
    Connection(Box<Incoming>),
    /// Credentials that are no longer good.
    Revoke(Arc<[Revocation]>),
    /// Send newcomers elsewhere, or serve again.
    Drain(Option<Alternate>),
    /// Make nonces with this key from now on.
    Nonces(NonceKey),
    /// The addresses of this machine have changed.
    OwnAddresses(Arc<[std::net::IpAddr]>),
    /// Leave the loop.
    Stop,
}

/// All that a session plays from now on. Said as a whole, so that a change which comes twice, or
/// after a later one, does no harm.
#[derive(Debug)]
pub struct PlayChange {
    /// Which session.
    pub session: SessionId,
    /// Its local ufrag.
    pub ufrag: String,
    /// Grows with each change of the session.
    pub revision: u32,
    /// What it plays.
    pub streams: Vec<Played>,
    /// Times it was passed on.
    pub hops: u8,
}

/// The way into one shard.
#[derive(Debug)]
pub struct Mailbox {
    /// From control, which the shards' own traffic must not crowd out.
    orders: ArrayQueue<Message>,
    messages: ArrayQueue<Message>,
    media: ArrayQueue<Arc<MediaBatch>>,
    hairpins: ArrayQueue<Arc<HairpinBatch>>,
    data: ArrayQueue<Arc<DataNews>>,
    waker: Waker,
}

impl Mailbox {
    /// A mailbox that wakes its shard through `waker`.
    #[must_use]
    pub fn new(waker: Waker) -> Self {
        Self {
            orders: ArrayQueue::new(MESSAGES),
            messages: ArrayQueue::new(MESSAGES),
            media: ArrayQueue::new(MEDIA_RING),
            hairpins: ArrayQueue::new(HAIRPIN_RING),
            data: ArrayQueue::new(DATA_RING),
            waker,
        }
    }

    /// Sends and wakes.
    ///
    /// # Errors
    /// Gives the message back when the mailbox is full.
    pub fn send(&self, message: Message) -> Result<(), Message> {
        self.messages.push(message)?;
        self.wake();
        Ok(())
    }

    /// As [`Self::send`], for control.
    ///
    /// # Errors
    /// Gives the message back when too many orders wait.
    pub fn order(&self, message: Message) -> Result<(), Message> {
        self.orders.push(message)?;
        self.wake();
        Ok(())
    }

    /// Queues media without waking: one wake a batch is enough. False when the ring is full.
    pub fn push_media(&self, batch: Arc<MediaBatch>) -> bool {
        self.media.push(batch).is_ok()
    }

    /// Queues packets of sealed calls without waking. False when the ring is full.
    pub fn push_hairpins(&self, batch: Arc<HairpinBatch>) -> bool {
        self.hairpins.push(batch).is_ok()
    }

    /// Queues what was said on a data channel, and wakes. False when the ring is full.
    pub fn push_data(&self, news: Arc<DataNews>) -> bool {
        let is_message = matches!(*news, DataNews::Message { .. });
        if is_message && self.data.len() >= DATA_RING - KEPT_FOR_ENDS {
            return false;
        }
        let pushed = self.data.push(news).is_ok();
        self.wake();
        pushed
    }

    /// What was said next.
    pub fn next_data(&self) -> Option<Arc<DataNews>> {
        self.data.pop()
    }

    /// Wakes the shard.
    pub fn wake(&self) {
        // It fails only when the shard's poller is gone, and then nobody is there to wake.
        let _gone = self.waker.wake();
    }

    /// The next message.
    pub fn next_message(&self) -> Option<Message> {
        self.orders.pop().or_else(|| self.messages.pop())
    }

    /// The next slab of sealed calls.
    pub fn next_hairpins(&self) -> Option<Arc<HairpinBatch>> {
        self.hairpins.pop()
    }

    /// The next slab.
    pub fn next_media(&self) -> Option<Arc<MediaBatch>> {
        self.media.pop()
    }
}

/// What control learns of its sessions. At most two for each, so the queue needs no bound.
#[derive(Debug)]
pub enum Event {
    /// DTLS is done and media may flow.
    Connected(SessionId),
    /// The session is gone.
    Ended(SessionId, Reason),
}
