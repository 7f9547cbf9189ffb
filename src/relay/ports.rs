//! Virtual relayed ports: drawn at random, reserved in pairs, and, for rooms, unique.
//!
//! What must hold for all shards together lives in [`Shared`]: words that are compared and
//! swapped, no lock.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rand::Rng;

use crate::ids::{RoomHash, ShardId, SubjectHash};
use crate::time::Mono;

/// Ports below are never relayed ports: browsers reject candidates there.
pub(super) const FIRST_PORT: u16 = 1024;
/// How long the odd neighbour of an even port waits for its Allocate (RFC 8656 section 7.2: 30 s).
const RESERVED_FOR: Duration = Duration::from_secs(30);
/// Reservations a subject may have at a time share this many places with few other subjects.
const PLACES: usize = 4;
const BUCKETS: usize = 64;
/// Random draws before all ports are looked at in turn.
const TRIES: usize = 64;

/// The family of a relayed address or a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IpFamily {
    V4,
    V6,
}

impl IpFamily {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) const fn of(address: &SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Its place in a pair.
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// What the relays of all shards of a process share; clones are the same. The default is for a
/// process's first: every other shard gets a clone.
#[derive(Clone, Default, Debug)]
pub struct Shared(Arc<Tables>);

#[derive(Default, Debug)]
struct Tables {
    /// By family and port: the room that has it, 0 for none.
    rooms: [OnceLock<Box<[AtomicU64]>>; 2],
    /// By family, a bit a port: relayed sockets, open or reserved.
    open: [OnceLock<Box<[AtomicU64]>>; 2],
    reservations: OnceLock<Box<[Place]>>,
}

/// A reserved port. `value` 0: free; else milliseconds of its end, family, port.
#[derive(Default, Debug)]
struct Place {
    token: AtomicU64,
    /// Others share its bucket.
    subject: AtomicU64,
    value: AtomicU64,
}

/// The `value` of a place that is being filled in: no end is so late.
const FILLING: u64 = u64::MAX;

/// A room as a word that is not 0.
fn word(room: RoomHash) -> u64 {
    u64::from_be_bytes(room.0).max(1)
}

const fn millis(now: Mono) -> u64 {
    now.as_nanos() / 1_000_000
}

const fn end_of(value: u64) -> u64 {
    value >> 17
}

impl Shared {
    /// Takes a port for a room, if no room has it.
    pub(super) fn claim(&self, family: IpFamily, port: u16, room: RoomHash) -> bool {
        let [v4, v6] = &self.0.rooms;
        let table = match family {
            IpFamily::V4 => v4,
            IpFamily::V6 => v6,
        };
        let table = table.get_or_init(|| (0..=u16::MAX).map(|_| AtomicU64::new(0)).collect());
        let Some(cell) = table.get(usize::from(port)) else { return false };
        cell.compare_exchange(0, word(room), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn cell(&self, family: IpFamily, port: u16) -> Option<&AtomicU64> {
        self.0.rooms.get(family.index())?.get()?.get(usize::from(port))
    }

    /// Ports that rooms have, for those who look at the books.
    pub(super) fn claimed(&self) -> usize {
        let tables = self.0.rooms.iter().filter_map(OnceLock::get);
        tables.flat_map(|table| table.iter()).filter(|c| c.load(Ordering::Relaxed) != 0).count()
    }

    /// Gives a port back.
    pub(super) fn release(&self, family: IpFamily, port: u16) {
        if let Some(cell) = self.cell(family, port) {
            cell.store(0, Ordering::Release);
        }
    }

    /// Whether a room has the port now: `None` when nobody has, else whether it is this one.
    pub(super) fn is_of(&self, family: IpFamily, port: u16, room: RoomHash) -> Option<bool> {
        let holder = self.cell(family, port)?.load(Ordering::Acquire);
        (holder != 0).then(|| holder == word(room))
    }

    fn open_bits(&self, family: IpFamily) -> Option<&OnceLock<Box<[AtomicU64]>>> {
        self.0.open.get(family.index())
    }

    /// Notes that a port has a relayed socket, or has none. False when that was so before.
    pub(super) fn set_open(&self, family: IpFamily, port: u16, open: bool) -> bool {
        let Some(words) = self.open_bits(family) else { return false };
        let words = words.get_or_init(|| (0..1 << 10).map(|_| AtomicU64::new(0)).collect());
        let Some(word) = words.get(usize::from(port >> 6)) else { return false };
        let bit = 1 << (port & 63);
        let before = if open {
            word.fetch_or(bit, Ordering::AcqRel)
        } else {
            word.fetch_and(!bit, Ordering::AcqRel)
        };
        (before & bit == 0) == open
    }

    /// Whether a port has a relayed socket now.
    pub(super) fn is_open(&self, family: IpFamily, port: u16) -> bool {
        let words = self.open_bits(family).and_then(OnceLock::get);
        let word = words.and_then(|words| words.get(usize::from(port >> 6)));
        word.is_some_and(|word| word.load(Ordering::Acquire) & (1 << (port & 63)) != 0)
    }

    /// Relayed sockets, open or reserved.
    #[cfg(test)]
    pub(super) fn open(&self) -> u32 {
        let words = self.0.open.iter().filter_map(OnceLock::get).flatten();
        words.map(|word| word.load(Ordering::Relaxed).count_ones()).sum()
    }

    /// The places of a subject's reservations: whoever reserves a lot is in nobody else's way,
    /// but for one subject in [`BUCKETS`].
    fn places(&self, subject: SubjectHash) -> &[Place] {
        let all = self
            .0
            .reservations
            .get_or_init(|| (0..PLACES * BUCKETS).map(|_| Place::default()).collect());
        let bucket = usize::from(subject.0[0]) % BUCKETS;
        all.get(bucket * PLACES..(bucket + 1) * PLACES).unwrap_or_default()
    }

    /// Keeps a port for 30 seconds. Returns the token that the same subject gets it with; `None`
    /// when the subject has too many waiting.
    pub(super) fn reserve(
        &self,
        now: Mono,
        subject: SubjectHash,
        family: IpFamily,
        port: u16,
        rng: &mut impl Rng,
    ) -> Option<u64> {
        let end = millis(now.plus(RESERVED_FOR));
        let value = end << 17 | (family.index() as u64) << 16 | u64::from(port);
        let token = rng.random_range(1..=u64::MAX);
        let place = self.places(subject).iter().find(|place| {
            let old = place.value.load(Ordering::Acquire);
            let free = old == 0 || end_of(old) <= millis(now);
            let swap = (Ordering::AcqRel, Ordering::Acquire);
            free && place.value.compare_exchange(old, FILLING, swap.0, swap.1).is_ok()
        })?;
        place.token.store(token, Ordering::Release);
        place.subject.store(u64::from_be_bytes(subject.0), Ordering::Release);
        place.value.store(value, Ordering::Release);
        Some(token)
    }

    /// Takes a reserved port; a token is good once.
    pub(super) fn redeem(
        &self,
        now: Mono,
        subject: SubjectHash,
        token: u64,
    ) -> Option<(IpFamily, u16)> {
        self.places(subject).iter().find_map(|place| {
            let value = place.value.load(Ordering::Acquire);
            let own = place.token.load(Ordering::Acquire) == token
                && place.subject.load(Ordering::Acquire) == u64::from_be_bytes(subject.0);
            if !own || value == FILLING || end_of(value) <= millis(now) {
                return None;
            }
            let swap = (Ordering::AcqRel, Ordering::Acquire);
            place.value.compare_exchange(value, 0, swap.0, swap.1).ok()?;
            let family = if value & 0x1_0000 == 0 { IpFamily::V4 } else { IpFamily::V6 };
            Some((family, value as u16))
        })
    }
}

/// Which relayed addresses rooms have, for those who introduce a room's clients to each other.
#[derive(Clone, Debug)]
pub struct RoomAddresses {
    relayed: [Option<IpAddr>; 2],
    shared: Shared,
}

impl RoomAddresses {
    /// Of the relays that are told `config`.
    #[must_use]
    pub fn new(config: &super::Config) -> Self {
        let relayed = [Some(config.relayed_ip), config.relayed_ip6.map(IpAddr::V6)];
        Self { relayed, shared: config.shared.clone() }
    }

    /// Whether `room` has `address` now.
    #[must_use]
    pub fn is_live(&self, address: SocketAddr, room: RoomHash) -> bool {
        let family = IpFamily::of(&address);
        self.relayed.get(family.index()) == Some(&Some(address.ip()))
            && self.shared.is_of(family, address.port(), room) == Some(true)
    }
}

/// Which ports a shard may draw.
#[derive(Debug)]
pub(super) struct Ports {
    /// Sorted.
    excluded: Vec<u16>,
    shard: ShardId,
    shards: u16,
}

impl Ports {
    /// `None` when no even port with an odd neighbour is left.
    pub(super) fn new(mut excluded: Vec<u16>, shard: ShardId, shards: u16) -> Option<Self> {
        excluded.sort_unstable();
        excluded.dedup();
        let ports = Self { excluded, shard, shards: shards.max(1) };
        (FIRST_PORT..=u16::MAX).step_by(2).any(|port| ports.may(port, true, true)).then_some(ports)
    }

    /// Ports that are somebody's.
    pub(super) fn is_excluded(&self, port: u16) -> bool {
        self.excluded.binary_search(&port).is_ok()
    }

    fn may(&self, port: u16, even: bool, pair: bool) -> bool {
        let free = |port: u16| !self.is_excluded(port);
        port >= FIRST_PORT
            && (!even || port.is_multiple_of(2))
            && free(port)
            && (!pair || free(port | 1))
    }

    /// The first of some random ports, then of all, that `take` takes.
    fn draw_where(&self, rng: &mut impl Rng, mut take: impl FnMut(u16) -> bool) -> Option<u16> {
        for _ in 0..TRIES {
            let port = rng.random_range(FIRST_PORT..=u16::MAX);
            if take(port) {
                return Some(port);
            }
        }
        let start = rng.random_range(FIRST_PORT..=u16::MAX);
        (start..=u16::MAX).chain(FIRST_PORT..start).find(|port| take(*port))
    }

    /// A port that others may have as well; `even` and, with `pair`, beside a free odd one.
    pub(super) fn draw(&self, rng: &mut impl Rng, even: bool, pair: bool) -> Option<u16> {
        self.draw_where(rng, |port| self.may(port, even, pair))
    }

    /// A port of this shard (port modulo shards) that no other allocation of any room has.
    pub(super) fn draw_unique(
        &self,
        rng: &mut impl Rng,
        even: bool,
        shared: &Shared,
        family: IpFamily,
        room: RoomHash,
    ) -> Option<u16> {
        self.draw_where(rng, |port| {
            self.shard_of(port) == self.shard
                && self.may(port, even, false)
                && shared.claim(family, port, room)
        })
    }

    /// The shard whose rooms' ports these are.
    pub(super) const fn shard_of(&self, port: u16) -> ShardId {
        ShardId((port % self.shards) as u8)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn subject(n: u8) -> SubjectHash {
        SubjectHash([n; 8])
    }

    #[test]
    fn token_is_good_once_for_thirty_seconds_and_for_its_subject() {
        let mut rng = StdRng::seed_from_u64(1);
        let shared = Shared::default();
        let at = |ms: u64| Mono::from_nanos(ms * 1_000_000);
        let mut reserve = |now| shared.reserve(now, subject(1), IpFamily::V6, 5001, &mut rng);
        let token = reserve(at(0)).unwrap();
        assert_eq!(shared.redeem(at(1), subject(2), token), None, "of another subject");
        assert_eq!(shared.redeem(at(1), subject(1), token ^ 1), None);
        assert_eq!(shared.redeem(at(1), subject(1), token), Some((IpFamily::V6, 5001)));
        assert_eq!(shared.redeem(at(1), subject(1), token), None, "spent");
        let token = reserve(at(1)).unwrap();
        assert_eq!(shared.redeem(at(30_000), subject(1), token), Some((IpFamily::V6, 5001)));
        let token = reserve(at(1)).unwrap();
        assert_eq!(shared.redeem(at(30_001), subject(1), token), None, "too late");
    }

    #[test]
    fn token_is_of_no_use_to_a_subject_that_shares_its_places() {
        let mut rng = StdRng::seed_from_u64(4);
        let shared = Shared::default();
        let (own, neighbour) = (subject(1), SubjectHash([1, 9, 9, 9, 9, 9, 9, 9]));
        assert_eq!(shared.places(own).as_ptr(), shared.places(neighbour).as_ptr());
        let token = shared.reserve(Mono::ZERO, own, IpFamily::V4, 5001, &mut rng).unwrap();
        assert_eq!(shared.redeem(Mono::ZERO, neighbour, token), None);
        assert_eq!(shared.redeem(Mono::ZERO, own, token), Some((IpFamily::V4, 5001)));
    }

    #[test]
    fn reservations_of_a_subject_are_bounded_and_leave_others_their_places() {
        let mut rng = StdRng::seed_from_u64(2);
        let shared = Shared::default();
        let mut reserve = |now, n| shared.reserve(now, subject(n), IpFamily::V4, 5001, &mut rng);
        let got = (0..1_000).filter(|_| reserve(Mono::ZERO, 1).is_some()).count();
        assert_eq!(got, PLACES);
        assert!(reserve(Mono::ZERO, 2).is_some());
        let later = Mono::from_nanos(30_000_000_000);
        assert!(reserve(later, 1).is_some(), "what nobody came for is free again");
    }

    #[test]
    fn ports_of_rooms_are_unique_and_belong_to_their_shard() {
        let mut rng = StdRng::seed_from_u64(3);
        let shared = Shared::default();
        let room = RoomHash([5; 8]);
        let mut seen = std::collections::HashSet::new();
        for shard in 0..3 {
            let ports = Ports::new(vec![3478], ShardId(shard), 3).unwrap();
            while let Some(port) = ports.draw_unique(&mut rng, false, &shared, IpFamily::V4, room) {
                assert!(seen.insert(port) && port % 3 == u16::from(shard));
            }
        }
        assert_eq!(seen.len(), 65_536 - 1024 - 1);
        assert_eq!(shared.is_of(IpFamily::V4, 5000, room), Some(true));
        assert_eq!(shared.is_of(IpFamily::V4, 5000, RoomHash([6; 8])), Some(false));
        assert_eq!(shared.is_of(IpFamily::V6, 5000, room), None);
        shared.release(IpFamily::V4, 5000);
        assert_eq!(shared.is_of(IpFamily::V4, 5000, room), None);
    }
}
