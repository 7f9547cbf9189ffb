//! Packets of sealed calls whose receiver is on another shard: one slab a receive batch and shard.

use std::ops::Range;
use std::sync::Arc;

use super::mailbox::Mailbox;
use super::slabs::Slabs;
use crate::ids::ShardId;
use crate::relay::Hairpin;

/// A slab takes no further packet beyond this; it takes the longest datagram.
pub const SLAB_BYTES: usize = 64 * 1024;
/// Slabs waiting in one shard's ring.
pub const HAIRPIN_RING: usize = 128;
const _: () = assert!(SLAB_BYTES * HAIRPIN_RING <= 8 * 1024 * 1024, "ring memory per shard");

/// Packets for clients of one shard that arrived together.
#[derive(Debug, Default)]
pub struct HairpinBatch {
    packets: Vec<(Hairpin, Range<usize>)>,
    bytes: Vec<u8>,
}

impl HairpinBatch {
    fn clear(&mut self) {
        self.packets.clear();
        self.bytes.clear();
    }

    /// False when the slab is full.
    fn push(&mut self, hairpin: Hairpin, payload: &[u8]) -> bool {
        let start = self.bytes.len();
        if start + payload.len() > SLAB_BYTES {
            return false;
        }
        self.bytes.extend_from_slice(payload);
        self.packets.push((hairpin, start..self.bytes.len()));
        true
    }

    /// The packets, in order of arrival.
    pub fn packets(&self) -> impl Iterator<Item = (&Hairpin, &[u8])> {
        let payload = |range: &Range<usize>| self.bytes.get(range.clone()).unwrap_or_default();
        self.packets.iter().map(move |(hairpin, range)| (hairpin, payload(range)))
    }
}

/// What a shard gathers for the others while it reads a batch.
#[derive(Debug)]
pub struct Outbox {
    /// By shard.
    open: Vec<Option<Arc<HairpinBatch>>>,
    waiting: bool,
    slabs: Slabs<HairpinBatch>,
    lost: u64,
}

impl Outbox {
    /// For a process of so many shards.
    #[must_use]
    pub fn new(shards: usize) -> Self {
        Self { open: vec![None; shards], waiting: false, slabs: Slabs::new(HAIRPIN_RING), lost: 0 }
    }

    /// Adds a packet for a client of another shard.
    pub fn add(&mut self, to: ShardId, hairpin: Hairpin, payload: &[u8], mailboxes: &[Mailbox]) {
        for _ in 0..2 {
            let Some(place) = self.open.get_mut(usize::from(to.0)) else { break };
            let slab = place.get_or_insert_with(|| {
                let mut slab = self.slabs.take();
                if let Some(batch) = Arc::get_mut(&mut slab) {
                    batch.clear();
                }
                slab
            });
            self.waiting = true;
            if Arc::get_mut(slab).is_some_and(|batch| batch.push(hairpin, payload)) {
                return;
            }
            self.hand_over(usize::from(to.0), mailboxes);
        }
        self.lost += 1;
    }

    fn hand_over(&mut self, to: usize, mailboxes: &[Mailbox]) {
        let Some(slab) = self.open.get_mut(to).and_then(Option::take) else { return };
        let taken = mailboxes.get(to).is_some_and(|mailbox| {
            let taken = mailbox.push_hairpins(Arc::clone(&slab));
            mailbox.wake();
            taken
        });
        if !taken {
            self.lost += slab.packets.len() as u64;
        }
        self.slabs.put(slab);
    }

    /// Hands everything over, at the end of a batch. Returns how many packets were lost since the
    /// last time because a shard's ring was full.
    pub fn flush(&mut self, mailboxes: &[Mailbox]) -> u64 {
        if std::mem::take(&mut self.waiting) {
            for to in 0..self.open.len() {
                self.hand_over(to, mailboxes);
            }
        }
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use mio::{Poll, Token, Waker};

    use super::*;
    use crate::ids::RoomHash;

    /// Two shards' mailboxes, with the pollers that their wakers need.
    fn mailboxes() -> (Vec<Poll>, Vec<Mailbox>) {
        let polls: Vec<_> = (0..2).map(|_| Poll::new().expect("a poller")).collect();
        let wakers = polls.iter().map(|poll| Waker::new(poll.registry(), Token(0)));
        let mailboxes = wakers.map(|waker| Mailbox::new(waker.expect("a waker"))).collect();
        (polls, mailboxes)
    }

    fn hairpin() -> Hairpin {
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        Hairpin { from: address(5_000), to: address(5_001), room: RoomHash([1; 8]) }
    }

    #[test]
    fn packets_of_a_batch_cross_in_one_slab_and_in_order() {
        let (_polls, mailboxes) = mailboxes();
        let mut outbox = Outbox::new(2);
        for n in 0..100u8 {
            outbox.add(ShardId(1), hairpin(), &[n; 10], &mailboxes);
        }
        assert!(mailboxes[1].next_hairpins().is_none(), "the batch is not over");
        assert_eq!(outbox.flush(&mailboxes), 0);
        let slab = mailboxes[1].next_hairpins().expect("a slab");
        let order: Vec<u8> = slab.packets().map(|(_, payload)| payload[0]).collect();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
        assert!(mailboxes.iter().all(|mailbox| mailbox.next_hairpins().is_none()));
    }

    #[test]
    fn batch_larger_than_a_slab_stays_in_order() {
        let (_polls, mailboxes) = mailboxes();
        let mut outbox = Outbox::new(2);
        for n in 0..200u8 {
            outbox.add(ShardId(0), hairpin(), &vec![n; 1_000], &mailboxes);
        }
        assert_eq!(outbox.flush(&mailboxes), 0);
        let mut order = Vec::new();
        while let Some(slab) = mailboxes[0].next_hairpins() {
            order.extend(slab.packets().map(|(_, payload)| payload[0]));
        }
        assert_eq!(order, (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn full_ring_loses_packets_and_counts_each() {
        let (_polls, mailboxes) = mailboxes();
        let mut outbox = Outbox::new(2);
        let mut lost = 0;
        for _ in 0..HAIRPIN_RING + 5 {
            outbox.add(ShardId(1), hairpin(), b"one", &mailboxes);
            outbox.add(ShardId(1), hairpin(), b"two", &mailboxes);
            lost += outbox.flush(&mailboxes);
        }
        assert_eq!(lost, 10);
        let taken = std::iter::from_fn(|| mailboxes[1].next_hairpins()).count();
        assert_eq!(taken, HAIRPIN_RING);
        outbox.add(ShardId(9), hairpin(), b"to a shard that is not", &mailboxes);
        assert_eq!(outbox.flush(&mailboxes), 1);
    }
}
