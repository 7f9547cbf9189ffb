//! Where two pages of a sealed call find each other: a room with two seats, one description on
//! each, and nothing of the media.
//!
//! Who comes first is the offerer, who comes second the answerer: two pages that open one link at
//! once never both offer. A seat is lost when its page leaves, when it is not heard of in time
//! while the two are still being introduced, or when, later, no relayed address that it named is
//! alive any more; a call ends for both. Texts are dropped once they have done their work, and
//! all of them together have a bound.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::api::Principal;
use crate::engine;
use crate::ids::RoomHash;
use crate::time::Mono;
use crate::wire::sdp::sealed::{Description, Fault, MAX_WRITTEN, Names};
pub use crate::wire::sdp::sealed::{Role, Sifted};

/// Most rooms at once.
const MAX_ROOMS: usize = 16_384;
/// Seats of one subject at once: one token must not take every room.
const MAX_PER_SUBJECT: usize = 64;
/// Bytes of all descriptions at once.
const MAX_TEXT: usize = 32 * 1024 * 1024;
/// A page that is not heard of for so long before the call has begun is gone.
const HEARD_WITHIN: Duration = Duration::from_secs(60);
/// Longest time a question for the other side's description is kept open.
pub const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// What sealed calls need of the data plane.
pub trait Plane: Send + Sync {
    /// Whether an address is a live relayed one of a room.
    fn is_room_address(&self, address: SocketAddr, room: RoomHash) -> bool;

    /// The monotonic clock.
    fn now(&self) -> Mono;
}

impl Plane for engine::Handle {
    fn is_room_address(&self, address: SocketAddr, room: RoomHash) -> bool {
        Self::is_room_address(self, address, room)
    }

    fn now(&self) -> Mono {
        self.clock().mono()
    }
}

/// Why something asked for is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Both seats are taken.
    #[error("two are in this sealed call already")]
    RoomFull,
    /// The call is over, or never was.
    #[error("there is no such seat: the call is over, the other side left, or it took too long")]
    NoSeat,
    /// An answer to nothing.
    #[error("there is no offer to answer yet: GET this seat first")]
    OfferAwaited,
    /// Another description was given before.
    #[error("this seat has another description already; leave, and join again")]
    Described,
    /// The description cannot be passed on.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Too many rooms, or too much text.
    #[error("too many sealed calls are being set up")]
    Full,
    /// The token's subject has as many seats as one may have.
    #[error("this token's subject has too many seats; mint a token for each participant")]
    SubjectFull,
}

/// A seat in a room.
#[derive(Clone, PartialEq, Eq)]
pub struct Seat {
    /// Its unguessable name: who knows it may leave.
    pub resource: String,
    /// What its page is to send.
    pub role: Role,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("role", &self.role).finish_non_exhaustive()
    }
}

struct Taken {
    resource: String,
    role: Role,
    subject: String,
    heard: Mono,
    description: Option<Described>,
}

struct Described {
    /// Only its candidates once the call has begun.
    own: Description,
    /// What the other side is told; empty once the call has begun.
    written: Arc<str>,
}

struct Room {
    hash: RoomHash,
    seats: Vec<Taken>,
    /// Tells those who wait; dropped with the room.
    changed: watch::Sender<()>,
    /// When both descriptions were there.
    introduced: Option<Mono>,
}

#[derive(Default)]
struct Rooms {
    by_name: HashMap<String, Room>,
    by_subject: HashMap<String, usize>,
    text: usize,
}

/// All sealed calls; clones share them.
#[derive(Clone)]
pub struct Sealed {
    plane: Arc<dyn Plane>,
    rooms: Arc<Mutex<Rooms>>,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").finish_non_exhaustive()
    }
}

impl Room {
    fn text(&self) -> usize {
        self.seats.iter().filter_map(|s| s.description.as_ref()).map(|d| d.written.len()).sum()
    }

    fn is_over(&self, now: Mono, plane: &dyn Plane) -> bool {
        let silent = |seat: &Taken| now.since(seat.heard) > HEARD_WITHIN;
        let dead = |seat: &Taken| {
            let named = seat.description.iter().flat_map(|d| d.own.candidates());
            !named.into_iter().any(|address| plane.is_room_address(*address, self.hash))
        };
        if self.introduced.is_some() {
            self.seats.iter().any(dead)
        } else {
            self.seats.iter().any(silent)
        }
    }
}

impl Rooms {
    fn remove(&mut self, name: &str) {
        let Some(room) = self.by_name.remove(name) else { return };
        self.text -= room.text();
        for seat in &room.seats {
            if let Some(count) = self.by_subject.get_mut(&seat.subject) {
                *count -= 1;
                if *count == 0 {
                    self.by_subject.remove(&seat.subject);
                }
            }
        }
    }

    /// A seat and the other one of its room.
    fn seat(
        &mut self,
        room: &str,
        resource: &str,
        who: Option<&Principal>,
    ) -> Result<(&mut Room, usize), Refusal> {
        let room = self.by_name.get_mut(room).ok_or(Refusal::NoSeat)?;
        let own =
            |s: &Taken| s.resource == resource && who.is_none_or(|who| who.subject == s.subject);
        let index = room.seats.iter().position(own).ok_or(Refusal::NoSeat)?;
        Ok((room, index))
    }
}

impl Sealed {
    /// Over a data plane.
    #[must_use]
    pub fn new(plane: impl Plane + 'static) -> Self {
        Self { plane: Arc::new(plane), rooms: Arc::default() }
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat.
    ///
    /// # Errors
    /// [`Refusal::RoomFull`], [`Refusal::SubjectFull`], [`Refusal::Full`].
    pub fn join(&self, room: &str, who: &Principal) -> Result<Seat, Refusal> {
        let now = self.plane.now();
        let mut rooms = self.rooms();
        if rooms.by_name.get(room).is_some_and(|known| known.is_over(now, &*self.plane)) {
            rooms.remove(room);
        }
        let seats = rooms.by_name.get(room).map(|known| known.seats.len());
        if seats.is_some_and(|seats| seats >= 2) {
            return Err(Refusal::RoomFull);
        }
        if rooms.by_subject.get(&who.subject).is_some_and(|count| *count >= MAX_PER_SUBJECT) {
            return Err(Refusal::SubjectFull);
        }
        if seats.is_none() && rooms.by_name.len() >= MAX_ROOMS {
            return Err(Refusal::Full);
        }
        let role = if seats.is_none() { Role::Offerer } else { Role::Answerer };
        let seat = Seat { resource: super::secret(24), role };
        let taken = Taken {
            resource: seat.resource.clone(),
            role,
            subject: who.subject.clone(),
            heard: now,
            description: None,
        };
        *rooms.by_subject.entry(who.subject.clone()).or_default() += 1;
        let room = rooms.by_name.entry(room.to_owned()).or_insert_with(|| Room {
            hash: RoomHash::of(room),
            seats: Vec::with_capacity(2),
            changed: watch::Sender::new(()),
            introduced: None,
        });
        room.seats.push(taken);
        room.changed.send_replace(());
        Ok(seat)
    }

    /// Sets a seat's description, once; the same text again is no error. The counts are there
    /// whatever came of it, as long as the description could be read.
    ///
    /// # Errors
    /// [`Refusal::NoSeat`], [`Refusal::OfferAwaited`], [`Refusal::Described`], [`Refusal::Full`],
    /// [`Refusal::Fault`].
    pub fn describe(
        &self,
        room: &str,
        resource: &str,
        who: &Principal,
        sdp: &str,
    ) -> (Sifted, Result<(), Refusal>) {
        let mut sifted = Sifted::default();
        let done = self.try_describe(room, resource, who, sdp, &mut sifted);
        (sifted, done)
    }

    fn try_describe(
        &self,
        name: &str,
        resource: &str,
        who: &Principal,
        sdp: &str,
        sifted: &mut Sifted,
    ) -> Result<(), Refusal> {
        let now = self.plane.now();
        let role = {
            let mut rooms = self.rooms();
            let (room, index) = rooms.seat(name, resource, Some(who))?;
            let seat = room.seats.get_mut(index).ok_or(Refusal::NoSeat)?;
            seat.heard = now;
            seat.role
        };
        // Parsed outside the lock.
        let hash = RoomHash::of(name);
        let mut own = Description::parse(sdp, role)?;
        let (counts, kept) = own.keep(|address| self.plane.is_room_address(address, hash));
        *sifted = counts;
        kept?;
        let session = super::random_u64() >> 1;
        let stream = super::secret(9);
        let written: Arc<str> = own.write(Names { session, stream: &stream })?.into();

        let mut rooms = self.rooms();
        let full = rooms.text + written.len() > MAX_TEXT;
        let (room, index) = rooms.seat(name, resource, Some(who))?;
        let mut offers = room.seats.iter().filter(|seat| seat.role == Role::Offerer);
        let offer = offers.find_map(|seat| seat.description.as_ref());
        if role == Role::Answerer {
            own.check_answers(&offer.ok_or(Refusal::OfferAwaited)?.own)?;
        }
        let seat = room.seats.get_mut(index).ok_or(Refusal::NoSeat)?;
        match &seat.description {
            Some(known) if known.own == own => return Ok(()),
            Some(_) => return Err(Refusal::Described),
            None if full => return Err(Refusal::Full),
            None => {}
        }
        let length = written.len();
        seat.description = Some(Described { own, written });
        if role == Role::Answerer {
            room.introduced = Some(now);
        }
        room.changed.send_replace(());
        rooms.text += length;
        Ok(())
    }

    /// What the other side says of itself: `None` when it has said nothing within `wait`, at most
    /// [`LONGEST_WAIT`].
    ///
    /// # Errors
    /// [`Refusal::NoSeat`].
    pub async fn other(
        &self,
        room: &str,
        resource: &str,
        who: &Principal,
        wait: Duration,
    ) -> Result<Option<Arc<str>>, Refusal> {
        let deadline = tokio::time::sleep(wait.min(LONGEST_WAIT));
        tokio::pin!(deadline);
        loop {
            let mut changed = {
                let now = self.plane.now();
                let mut rooms = self.rooms();
                let (room, index) = rooms.seat(room, resource, Some(who))?;
                if let Some(seat) = room.seats.get_mut(index) {
                    seat.heard = now;
                }
                let other = room.seats.iter().enumerate().find(|(at, _)| *at != index);
                if let Some(described) = other.and_then(|(_, seat)| seat.description.as_ref()) {
                    let text = Arc::clone(&described.written);
                    return if text.is_empty() { Err(Refusal::NoSeat) } else { Ok(Some(text)) };
                }
                room.changed.subscribe()
            };
            tokio::select! {
                // An error: the room is gone, which the next look says.
                _ = changed.changed() => {}
                () = &mut deadline => return Ok(None),
            }
        }
    }

    /// Returns when `wait`, at most [`LONGEST_WAIT`], is over and the call is not.
    ///
    /// # Errors
    /// [`Refusal::NoSeat`] as soon as the call is over.
    pub async fn goes_on(
        &self,
        room: &str,
        resource: &str,
        who: &Principal,
        wait: Duration,
    ) -> Result<(), Refusal> {
        let deadline = tokio::time::sleep(wait.min(LONGEST_WAIT));
        tokio::pin!(deadline);
        loop {
            let mut changed = {
                let now = self.plane.now();
                let mut rooms = self.rooms();
                let (room, index) = rooms.seat(room, resource, Some(who))?;
                if let Some(seat) = room.seats.get_mut(index) {
                    seat.heard = now;
                }
                room.changed.subscribe()
            };
            tokio::select! {
                _ = changed.changed() => {}
                () = &mut deadline => return Ok(()),
            }
        }
    }

    /// Ends a call, or the waiting for one. Without `who`, the resource itself is the permission.
    ///
    /// # Errors
    /// [`Refusal::NoSeat`], which a caller may take for success.
    pub fn leave(
        &self,
        room: &str,
        resource: &str,
        who: Option<&Principal>,
    ) -> Result<(), Refusal> {
        let mut rooms = self.rooms();
        rooms.seat(room, resource, who)?;
        rooms.remove(room);
        Ok(())
    }

    /// Forgets calls that are over, and the texts of those that have begun.
    pub fn sweep(&self) {
        let now = self.plane.now();
        let mut rooms = self.rooms();
        let over = rooms.by_name.iter().filter(|(_, room)| room.is_over(now, &*self.plane));
        let over: Vec<String> = over.map(|(name, _)| name.clone()).collect();
        for name in over {
            rooms.remove(&name);
        }
        let mut freed = 0;
        for room in rooms.by_name.values_mut() {
            if room.introduced.is_some_and(|at| now.since(at) > HEARD_WITHIN) {
                freed += room.text();
                for described in room.seats.iter_mut().filter_map(|s| s.description.as_mut()) {
                    described.written = Arc::from("");
                    described.own.keep_only_candidates();
                }
            }
        }
        rooms.text -= freed;
    }

    /// Rooms in use.
    #[must_use]
    pub fn rooms_in_use(&self) -> usize {
        self.rooms().by_name.len()
    }
}

const _: () = assert!(MAX_WRITTEN * 2 <= MAX_TEXT);

#[cfg(test)]
mod tests;
