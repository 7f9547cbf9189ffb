//! Where allocations live: a slab with generations, found by 5-tuple or by handle.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::IpAddr;

use rand::Rng;

use super::external::Outside;
use super::limits::Bucket;
use super::policy::{MAX_MEDIA, Peer};
use super::ports::IpFamily;
use crate::auth::revocation::Identity;
use crate::auth::turn::Class;
use crate::ids::{AllocationHandle, CredentialId, FiveTuple, RoomHash, SubjectHash, Transport};
use crate::time::{Mono, Unix};
use crate::wire::stun::TransactionId;

/// Allocations in one block of the slab: growing never moves what is there.
const CHUNK: usize = 256;

/// What an allocation's credential was minted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// For whom.
    pub subject: SubjectHash,
    /// The only room it is good for; none: any.
    pub room: Option<RoomHash>,
    /// What it may reach.
    pub class: Class,
}

/// Channels of one allocation: more than a browser binds, whatever the policy.
pub(super) const MAX_CHANNELS: usize = 8;

/// A channel binding; `number` is 0 where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Channel {
    pub(super) number: u16,
    pub(super) peer: Peer,
    pub(super) until: Mono,
}

/// A relayed transport address; `port` is 0 where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Relayed {
    pub(super) port: u16,
    pub(super) expires: Mono,
}

/// One allocation. What the packet paths read comes first.
///
/// Peers of the forwarder are few and known, peers in a room all share the relayed IPs: so
/// permissions, which are for IPs, have fixed places ([`super::policy::Admitted`]), and there is
/// nothing to search and nothing to grow. `Mono::ZERO` is "none".
pub(super) struct Allocation {
    pub(super) tuple: FiveTuple,
    pub(super) owner: Owner,
    /// IPv4, IPv6 (RFC 8656 section 7.2: one, the other or both).
    pub(super) relayed: [Relayed; 2],
    /// What its client sent, and was sent.
    pub(super) sent: Bucket,
    pub(super) received: Bucket,
    pub(super) channels: [Channel; MAX_CHANNELS],
    pub(super) permissions: [Mono; MAX_MEDIA],
    /// Deadline of this allocation's current entry in the timer heap.
    pub(super) armed: Mono,
    pub(super) live_until: Unix,
    /// Seconds granted by the Allocate and RESERVATION-TOKEN (0: none), for the answer to its
    /// retransmission.
    pub(super) granted: u32,
    pub(super) reservation: u64,
    /// The Allocate that made it.
    pub(super) created_by: TransactionId,
    /// The long-term keys of `username`: MD5 and SHA-256.
    pub(super) key: [u8; 16],
    pub(super) key_sha256: Option<[u8; 32]>,
    pub(super) username: Box<str>,
    /// Its peers, where they are outside.
    pub(super) outside: Option<Box<Outside>>,
    /// Which credential that is, and when it was minted: what revocations name.
    pub(super) credential: CredentialId,
    pub(super) issued: Unix,
}

impl Allocation {
    /// What a revocation can name.
    pub(super) fn identity(&self) -> Identity {
        Identity {
            credential: self.credential,
            subject: self.owner.subject,
            room: self.owner.room,
            issued: self.issued,
        }
    }

    /// When the last of its relayed addresses ends.
    pub(super) fn expires(&self) -> Mono {
        let [v4, v6] = &self.relayed;
        v4.expires.max(v6.expires)
    }

    /// The relayed port of a family, if there is one now.
    pub(super) fn port(&self, family: IpFamily, now: Mono) -> Option<u16> {
        let relayed = self.relayed.get(family.index())?;
        (relayed.port != 0 && relayed.expires > now).then_some(relayed.port)
    }

    /// When something of it ends next.
    pub(super) fn next_deadline(&self) -> Mono {
        let channels = self.channels.iter().map(|channel| channel.until);
        let relayed = self.relayed.iter().map(|relayed| relayed.expires);
        let outside = self.outside.iter().flat_map(|outside| outside.deadlines());
        let parts = self.permissions.iter().copied().chain(channels).chain(relayed).chain(outside);
        parts.filter(|until| *until != Mono::ZERO).min().unwrap_or(Mono::ZERO)
    }
}

struct Slot {
    generation: u32,
    allocation: Option<Allocation>,
}

/// All allocations of a shard.
pub(super) struct Table {
    chunks: Vec<Vec<Slot>>,
    free: Vec<u32>,
    by_tuple: HashMap<TupleKey, u32, RandomKey>,
    by_subject: HashMap<SubjectHash, u32, RandomKey>,
    /// Relayed addresses of rooms and of sockets, the only ones that are looked up.
    by_port: HashMap<u32, u32, RandomKey>,
}

/// Virtual ports and real ones of the same number are different addresses.
const fn port_key(class: Class, family: IpFamily, port: u16) -> u32 {
    let real = matches!(class, Class::External) as u32;
    real << 17 | (family.index() as u32) << 16 | port as u32
}

impl Table {
    pub(super) fn new(rng: &mut impl Rng) -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            by_tuple: HashMap::with_hasher(RandomKey::new(rng)),
            by_subject: HashMap::with_hasher(RandomKey::new(rng)),
            by_port: HashMap::with_hasher(RandomKey::new(rng)),
        }
    }

    /// Live allocations.
    pub(super) fn len(&self) -> usize {
        self.by_tuple.len()
    }

    /// Slots, live or free.
    pub(super) fn slots(&self) -> u32 {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        let last = self.chunks.last().map_or(0, Vec::len);
        u32::try_from(full + last).unwrap_or(u32::MAX)
    }

    /// Live allocations of a subject.
    pub(super) fn of_subject(&self, subject: SubjectHash) -> u32 {
        self.by_subject.get(&subject).copied().unwrap_or(0)
    }

    pub(super) fn find(&self, tuple: FiveTuple) -> Option<u32> {
        self.by_tuple.get(&TupleKey::of(tuple)).copied()
    }

    /// The allocation that has a relayed address in some room, or outside.
    pub(super) fn find_port(&self, class: Class, family: IpFamily, port: u16) -> Option<u32> {
        self.by_port.get(&port_key(class, family, port)).copied()
    }

    /// Takes one relayed address from an allocation. Returns its port.
    pub(super) fn drop_relayed(&mut self, index: u32, family: IpFamily) -> Option<u16> {
        let allocation = self.get_mut(index)?;
        let class = allocation.owner.class;
        let port = std::mem::take(allocation.relayed.get_mut(family.index())?).port;
        if self.find_port(class, family, port) == Some(index) {
            self.by_port.remove(&port_key(class, family, port));
        }
        (port != 0).then_some(port)
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)
    }

    pub(super) fn get(&self, index: u32) -> Option<&Allocation> {
        self.slot(index)?.allocation.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Allocation> {
        self.slot_mut(index)?.allocation.as_mut()
    }

    /// The handle of a live index.
    pub(super) fn handle(&self, index: u32) -> Option<AllocationHandle> {
        let slot = self.slot(index)?;
        slot.allocation.as_ref()?;
        Some(AllocationHandle { index, generation: slot.generation })
    }

    /// The allocation of a handle, unless its index has been used anew.
    pub(super) fn resolve(&self, handle: AllocationHandle) -> Option<&Allocation> {
        let slot = self.slot(handle.index)?;
        slot.allocation.as_ref().filter(|_| slot.generation == handle.generation)
    }

    /// Adds an allocation whose 5-tuple is not in use.
    pub(super) fn insert(&mut self, allocation: Allocation) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
                    self.chunks.push(Vec::with_capacity(CHUNK));
                }
                let before = (self.chunks.len() - 1) * CHUNK;
                let chunk = self.chunks.last_mut()?;
                chunk.push(Slot { generation: 0, allocation: None });
                u32::try_from(before + chunk.len() - 1).ok()?
            }
        };
        self.by_tuple.insert(TupleKey::of(allocation.tuple), index);
        *self.by_subject.entry(allocation.owner.subject).or_default() += 1;
        let class = allocation.owner.class;
        if matches!(class, Class::Room | Class::External) {
            for (family, relayed) in IpFamily::BOTH.into_iter().zip(&allocation.relayed) {
                if relayed.port != 0 {
                    self.by_port.insert(port_key(class, family, relayed.port), index);
                }
            }
        }
        let slot = self.slot_mut(index)?;
        slot.generation = slot.generation.wrapping_add(1);
        slot.allocation = Some(allocation);
        Some(index)
    }

    /// Takes an allocation out; its handle is dead from then on.
    pub(super) fn remove(&mut self, index: u32) -> Option<(AllocationHandle, Allocation)> {
        let handle = self.handle(index)?;
        let allocation = self.slot_mut(index)?.allocation.take()?;
        let class = allocation.owner.class;
        for (family, relayed) in IpFamily::BOTH.into_iter().zip(&allocation.relayed) {
            if self.find_port(class, family, relayed.port) == Some(index) {
                self.by_port.remove(&port_key(class, family, relayed.port));
            }
        }
        self.free.push(index);
        self.by_tuple.remove(&TupleKey::of(allocation.tuple));
        if let Some(count) = self.by_subject.get_mut(&allocation.owner.subject) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_subject.remove(&allocation.owner.subject);
            }
        }
        Some((handle, allocation))
    }
}

/// A 5-tuple as three words, so that hashing it takes three multiplications.
#[derive(PartialEq, Eq)]
struct TupleKey([u64; 3]);

impl TupleKey {
    fn of(tuple: FiveTuple) -> Self {
        let client = tuple.client.expose();
        let transport = match tuple.transport {
            Transport::Udp => 0,
            Transport::Tcp => 1,
            Transport::Tls => 2,
        };
        let (bits, extra) = match client.ip() {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), 1 << 20),
            IpAddr::V6(ip) => (ip.to_bits(), 0),
        };
        let scope = match client {
            std::net::SocketAddr::V6(v6) => u64::from(v6.scope_id()) << 32,
            std::net::SocketAddr::V4(_) => 0,
        };
        let listener = u64::from(tuple.listener) << 24;
        let rest = u64::from(client.port()) | transport << 16 | extra | listener | scope;
        Self([(bits >> 64) as u64, bits as u64, rest])
    }
}

impl Hash for TupleKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for word in self.0 {
            state.write_u64(word);
        }
    }
}

/// Two secret words that key a table's hash. Not cryptography: it only keeps strangers from
/// choosing addresses that collide, and entries exist only for authenticated clients anyway.
#[derive(Clone)]
pub(super) struct RandomKey {
    seed: u64,
    factor: u64,
}

impl RandomKey {
    pub(super) fn new(rng: &mut impl Rng) -> Self {
        Self { seed: rng.random(), factor: rng.random::<u64>() | 1 }
    }

    /// Hashes words.
    pub(super) fn hash(&self, words: &[u64]) -> u64 {
        let mut hasher = self.build_hasher();
        for word in words {
            hasher.write_u64(*word);
        }
        hasher.finish()
    }
}

impl BuildHasher for RandomKey {
    type Hasher = Fold;

    fn build_hasher(&self) -> Fold {
        Fold { state: self.seed, factor: self.factor }
    }
}

/// Folded multiplication: the high half of a 128-bit product is mixed back into the low half.
pub(super) struct Fold {
    state: u64,
    factor: u64,
}

impl Hasher for Fold {
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        self.state = (product as u64) ^ ((product >> 64) as u64).rotate_left(29);
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        // One more fold: the words' last bits must reach the bits the table takes.
        let product = u128::from(self.state) * 0x9e37_79b9_7f4a_7c15;
        (product as u64) ^ ((product >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::SocketAddr;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::ids::ClientAddr;

    fn allocation(port: u16, subject: &str) -> Allocation {
        let client = ClientAddr::new(SocketAddr::from(([198, 51, 100, 7], port)));
        let owner =
            Owner { subject: SubjectHash::of(subject), room: None, class: Class::Forwarder };
        Allocation {
            tuple: FiveTuple::new(client, Transport::Udp),
            owner,
            relayed: [Relayed { port: 1024, expires: Mono::from_nanos(9) }, Relayed::default()],
            sent: Bucket::default(),
            received: Bucket::default(),
            channels: [Channel::default(); MAX_CHANNELS],
            permissions: [Mono::ZERO; MAX_MEDIA],
            armed: Mono::ZERO,
            live_until: Unix::from_secs(1),
            granted: 600,
            reservation: 0,
            created_by: TransactionId([0; 12]),
            key: [0; 16],
            key_sha256: None,
            username: "u".into(),
            outside: None,
            credential: CredentialId::of("u"),
            issued: Unix::from_secs(0),
        }
    }

    #[test]
    fn reused_index_does_not_answer_to_the_old_handle() {
        let mut table = Table::new(&mut StdRng::seed_from_u64(1));
        let first = table.insert(allocation(1, "a")).unwrap();
        let old = table.handle(first).unwrap();
        assert!(table.resolve(old).is_some());
        assert_eq!(table.remove(first).unwrap().0, old);
        assert!(table.resolve(old).is_none() && table.handle(first).is_none());
        let second = table.insert(allocation(2, "a")).unwrap();
        assert_eq!(second, first, "the index is used again");
        assert!(table.resolve(old).is_none());
        assert!(table.remove(7).is_none());
    }

    #[test]
    fn subjects_are_counted_and_forgotten() {
        let mut table = Table::new(&mut StdRng::seed_from_u64(2));
        let indices: Vec<u32> =
            (1..=1000).map(|port| table.insert(allocation(port, "a")).unwrap()).collect();
        assert_eq!((table.len(), table.of_subject(SubjectHash::of("a"))), (1000, 1000));
        for (at, index) in indices.iter().enumerate() {
            assert_eq!(table.find(allocation(at as u16 + 1, "a").tuple), Some(*index));
            table.remove(*index);
        }
        assert_eq!((table.len(), table.by_subject.len()), (0, 0));
    }

    #[test]
    fn hashes_of_neighbouring_addresses_spread() {
        let key = RandomKey::new(&mut StdRng::seed_from_u64(3));
        let mut low = HashSet::new();
        let mut top = HashSet::new();
        for port in 0..10_000_u16 {
            let hash = key.hash_one(TupleKey::of(allocation(port, "a").tuple));
            low.insert(hash & 0xffff);
            top.insert(hash >> 48);
        }
        // 10,000 balls in 65,536 bins fill about 9,270.
        assert!(low.len() > 8_800 && top.len() > 8_800, "{} {}", low.len(), top.len());
    }

    #[test]
    fn idle_allocation_stays_under_two_kib() {
        let username = 160;
        let map = 2 * (size_of::<(TupleKey, u32)>() + size_of::<(SubjectHash, u32)>() + 2);
        let timer = 2 * size_of::<(Mono, u32, u32)>();
        let total = size_of::<Slot>() + username + map + timer + size_of::<u32>();
        assert!(total <= 1024, "{total} bytes");
    }
}
