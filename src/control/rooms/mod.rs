//! Rooms: who is in one, what they publish, play and say to each other (docs/signalling.md).
//!
//! [`Room`] is one room, a state machine without I/O. [`Rooms`] is all of them: each under a lock of
//! its own, so that nobody slows a room down but those in it, and everything has a bound. What
//! happens to media is behind [`media::Media`].
//!
//! Hostile are: every message, its order and its rate; who reads slowly or not at all; whoever holds
//! a resume token of somebody else's.

pub mod bucket;
mod live;
pub mod media;
pub mod outbox;
mod playing;
mod publishing;
pub mod request;
pub mod room;
mod said;
mod speakers;
mod talk;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, broadcast};

use super::api::Refusal;
use crate::metrics::RoomMetrics;
use crate::time::{Mono, Now};
use media::{Media, StreamEvent};
use outbox::{Close, Outbox};
use request::{Request, Unread};
pub use room::{Attached, Joining, Room};

/// Most participants on this node.
pub const MAX_PARTICIPANTS: usize = 4_096;
/// How often a room looks at its clock.
const TICK: Duration = Duration::from_millis(500);
/// When to come back to a gateway that stops, seconds.
const RETRY_AFTER: u32 = 5;

/// Why a message is not obeyed: an `error`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// A stable word for programs.
    pub code: &'static str,
    /// For people.
    pub detail: String,
}

impl Fault {
    /// With a code of docs/signalling.md.
    pub fn new(code: &'static str, detail: impl ToString) -> Self {
        Self { code, detail: detail.to_string() }
    }

    /// The `error` message.
    #[must_use]
    pub fn message(&self, id: Option<u64>) -> Arc<str> {
        said::Said::Error { id, code: self.code, detail: &self.detail }.text()
    }

    fn bad(detail: impl ToString) -> Self {
        Self::new("bad_message", detail)
    }

    /// Not to be seen: who is gone is told nothing.
    fn gone() -> Self {
        Self::new("no_such_participant", "this participant is gone")
    }

    fn nobody() -> Self {
        Self::new("no_such_participant", "nobody here has this id")
    }

    fn talks_too_much() -> Self {
        let detail = "too much for the others to read: 10 messages or 64 KiB a second";
        Self::new("too_many_messages", detail)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        Self { code: refusal.code(), detail }
    }
}

/// Why somebody is not let in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// No place in the room.
    #[error("the room is full")]
    RoomFull,
    /// No place for this subject.
    #[error("this token's subject is in the room often enough; mint a token for each participant")]
    SubjectFull,
    /// No place on this node.
    #[error("the gateway is full")]
    Full,
    /// Put out not long ago.
    #[error("this token was put out of the room a while ago")]
    Kicked,
    /// Not a resume token, not any more, or somebody else's.
    #[error("there is nothing to resume: too late, used before, or not yours; join without it")]
    ResumeUnknown,
    /// The media side refuses.
    #[error(transparent)]
    Media(Refusal),
}

impl Refused {
    /// A stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::RoomFull => "room_full",
            Self::SubjectFull => "too_many_sessions",
            Self::Full => "full",
            Self::Kicked => "kicked",
            Self::ResumeUnknown => "resume_unknown",
            Self::Media(refusal) => refusal.code(),
        }
    }

    /// How the connection is closed; `None`: it may try again.
    #[must_use]
    pub const fn close(&self) -> Option<Close> {
        match self {
            Self::RoomFull | Self::SubjectFull => Some(Close::RoomFull),
            Self::Full | Self::Media(_) => Some(Close::Full),
            Self::Kicked => Some(Close::Kicked),
            Self::ResumeUnknown => None,
        }
    }
}

type Shared = Arc<Mutex<Room>>;

struct Inner {
    media: Arc<dyn Media>,
    metrics: Option<RoomMetrics>,
    places: Arc<Semaphore>,
    total: usize,
    by_name: Mutex<BTreeMap<String, Shared>>,
}

/// All rooms of this node; clones share them.
#[derive(Clone)]
pub struct Rooms {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rooms").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rooms {
    /// No rooms yet, with place for so many participants.
    #[must_use]
    pub fn new(media: Arc<dyn Media>, total: usize, metrics: Option<RoomMetrics>) -> Self {
        let inner = Inner {
            media,
            metrics,
            places: Arc::new(Semaphore::new(total)),
            total,
            by_name: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What counts rooms, for whoever sees more of them.
    #[must_use]
    pub fn metrics(&self) -> Option<&RoomMetrics> {
        self.inner.metrics.as_ref()
    }

    /// Lets somebody into a room whose name is sound; `joining.fresh` is set here.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn join(
        &self,
        now: Now,
        room: &str,
        mut joining: Joining,
        outbox: &Outbox,
    ) -> Result<Member, Refused> {
        joining.fresh = super::secret(24);
        let joined = loop {
            let shared = {
                let mut rooms = lock(&self.inner.by_name);
                let known = rooms.get(room).cloned();
                if known.is_none() && (joining.resume.is_some() || self.is_full()) {
                    let full = joining.resume.is_none();
                    break Err(if full { Refused::Full } else { Refused::ResumeUnknown });
                }
                known.unwrap_or_else(|| {
                    let (media, places) = (&self.inner.media, &self.inner.places);
                    let seed = super::random_u64();
                    let new = Room::new(room, Arc::clone(media), Arc::clone(places), seed);
                    let new = Arc::new(Mutex::new(new));
                    rooms.insert(room.to_owned(), Arc::clone(&new));
                    new
                })
            };
            let mut locked = lock(&shared);
            // It was forgotten between the two locks: there is another one by now.
            if locked.over {
                continue;
            }
            let attached = locked.join(now, joining, outbox);
            drop(locked);
            self.forget_if_over(room);
            break attached.map(|attached| Member {
                rooms: self.clone(),
                name: room.to_owned(),
                room: shared,
                attached,
            });
        };
        if let Some(metrics) = &self.inner.metrics {
            metrics.on_join(joined.as_ref().map_or_else(Refused::code, |_| "ok"));
        }
        self.count();
        joined
    }

    fn is_full(&self) -> bool {
        self.inner.places.available_permits() == 0
    }

    fn forget_if_over(&self, name: &str) {
        let mut rooms = lock(&self.inner.by_name);
        let over = rooms.get(name).is_some_and(|room| {
            let mut room = lock(room);
            room.over = room.is_over();
            room.over
        });
        if over {
            rooms.remove(name);
        }
    }

    fn all(&self) -> Vec<(String, Shared)> {
        let rooms = lock(&self.inner.by_name);
        rooms.iter().map(|(name, room)| (name.clone(), Arc::clone(room))).collect()
    }

    fn count(&self) {
        if let Some(metrics) = &self.inner.metrics {
            let taken = self.inner.total.saturating_sub(self.inner.places.available_permits());
            metrics.set(lock(&self.inner.by_name).len(), taken);
        }
    }

    /// Something came or went.
    pub fn on_event(&self, now: Mono, event: &StreamEvent) {
        let name = match event {
            StreamEvent::Started(info) => Some(info.name.room()),
            StreamEvent::Ended(name) => Some(name.room()),
            StreamEvent::SessionEnded { .. } => None,
        };
        match name {
            Some(name) => {
                let room = lock(&self.inner.by_name).get(name).cloned();
                if let Some(room) = room {
                    lock(&room).on_event(now, event);
                }
            }
            None => {
                for (_, room) in self.all() {
                    lock(&room).on_event(now, event);
                }
            }
        }
    }

    /// Events were missed.
    pub fn resync(&self, now: Mono) {
        for (_, room) in self.all() {
            lock(&room).resync(now);
        }
    }

    /// What time brings.
    pub fn handle_timeout(&self, now: Now) {
        for (name, room) in self.all() {
            lock(&room).handle_timeout(now);
            self.forget_if_over(&name);
        }
        self.count();
    }

    /// Tells everybody that the gateway stops, and closes.
    pub fn stop(&self) {
        for (_, room) in self.all() {
            lock(&room).stop(RETRY_AFTER);
        }
    }

    /// Follows time and the streams of the media side until that is gone.
    pub async fn run(
        &self,
        mut events: broadcast::Receiver<StreamEvent>,
        clock: impl Fn() -> Now + Send,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => self.on_event(clock().mono, &event),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.resync(clock().mono),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                _ = tick.tick() => self.handle_timeout(clock()),
            }
        }
    }
}

/// One connection's hold of its participant.
#[derive(Debug)]
pub struct Member {
    rooms: Rooms,
    name: String,
    room: Shared,
    attached: Attached,
}

impl Member {
    /// Takes a text message.
    ///
    /// # Errors
    /// [`Close::NotJson`]: this client speaks something else.
    pub fn handle(&self, now: Now, text: &str) -> Result<(), Close> {
        // Read outside the lock: the others do not wait for it.
        match Request::read(text) {
            Ok(request) => {
                lock(&self.room).handle(now, &self.attached, request);
                Ok(())
            }
            Err(Unread::Bad(id, fault)) => {
                lock(&self.room).on_fault(now, &self.attached, id, fault);
                Ok(())
            }
            Err(Unread::NotJson) => Err(Close::NotJson),
        }
    }

    /// The connection is over: left for good, or to be resumed.
    pub fn on_closed(self, now: Mono, left: bool) {
        if left {
            lock(&self.room).on_left(now, &self.attached);
        } else {
            lock(&self.room).on_disconnected(now, &self.attached);
        }
        self.rooms.forget_if_over(&self.name);
        self.rooms.count();
    }
}
