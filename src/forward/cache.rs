//! The last packets of one track, for retransmission: one ring per track and shard, shared by all
//! players there.

use crate::wire::media::MediaKind;

use super::{MAX_PAYLOAD, PacketHead};

/// Video: about half a second of 8 Mbit/s. 700 KiB when all are in use.
const VIDEO_SLOTS: usize = 512;
/// Audio: more than a second of 20 ms packets.
const AUDIO_SLOTS: usize = 64;
/// What an audio slot starts with, bytes.
const AUDIO_PAYLOAD: usize = 256;

#[derive(Debug, Default)]
struct Slot {
    head: PacketHead,
    /// Empty and without memory until first used; kept and reused then.
    payload: Vec<u8>,
    used: bool,
}

/// A bounded ring keyed by [`PacketHead::sequence`].
#[derive(Debug)]
pub struct Cache {
    slots: Vec<Slot>,
    capacity: usize,
    least_payload: usize,
}

impl Cache {
    /// An empty ring; memory comes with the first packets.
    #[must_use]
    pub const fn new(kind: MediaKind) -> Self {
        let (capacity, least_payload) = match kind {
            MediaKind::Audio => (AUDIO_SLOTS, AUDIO_PAYLOAD),
            MediaKind::Video => (VIDEO_SLOTS, MAX_PAYLOAD),
        };
        Self { slots: Vec::new(), capacity, least_payload }
    }

    /// Keeps a packet in place of the one a ring's length before it. A packet older than what its
    /// slot holds, or larger than [`MAX_PAYLOAD`], is not kept.
    pub fn store(&mut self, head: &PacketHead, payload: &[u8]) {
        if payload.len() > MAX_PAYLOAD {
            return;
        }
        if self.slots.is_empty() {
            self.slots.resize_with(self.capacity, Slot::default);
        }
        let index = self.index(head.sequence);
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.used && slot.head.sequence > head.sequence {
            return;
        }
        if slot.payload.capacity() < payload.len() || !slot.used {
            let wanted = payload.len().next_power_of_two().clamp(self.least_payload, MAX_PAYLOAD);
            slot.payload = Vec::with_capacity(wanted);
        }
        slot.used = true;
        slot.head = *head;
        slot.payload.clear();
        slot.payload.extend_from_slice(payload);
    }

    /// The packet with this sequence, if it is still there.
    #[must_use]
    pub fn load(&self, sequence: u64) -> Option<(PacketHead, &[u8])> {
        let slot = self.slots.get(self.index(sequence))?;
        (slot.used && slot.head.sequence == sequence).then_some((slot.head, &slot.payload[..]))
    }

    /// Bytes of payload memory held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.slots.iter().map(|slot| slot.payload.capacity()).sum()
    }

    const fn index(&self, sequence: u64) -> usize {
        (sequence % self.capacity as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(sequence: u64) -> PacketHead {
        PacketHead { sequence, ..PacketHead::default() }
    }

    #[test]
    fn the_newest_packets_are_found_and_no_others() {
        let mut cache = Cache::new(MediaKind::Audio);
        assert_eq!(cache.memory(), 0);
        for sequence in 100..300u64 {
            cache.store(&head(sequence), &sequence.to_be_bytes());
        }
        cache.store(&head(101), b"late");
        assert_eq!(cache.load(235), None);
        assert_eq!(cache.load(300), None);
        for sequence in 236..300u64 {
            let expected = (head(sequence), &sequence.to_be_bytes()[..]);
            assert_eq!(cache.load(sequence), Some(expected));
        }
    }

    #[test]
    fn memory_is_bounded_whatever_is_stored() {
        let mut cache = Cache::new(MediaKind::Video);
        for sequence in 0..2000 {
            cache.store(&head(sequence), &[0; MAX_PAYLOAD][..sequence as usize % 1401]);
        }
        assert_eq!(cache.memory(), VIDEO_SLOTS * MAX_PAYLOAD);
        cache.store(&head(2000), &[0; MAX_PAYLOAD + 1]);
        assert_eq!(cache.load(2000), None);
        let mut cache = Cache::new(MediaKind::Audio);
        for sequence in 0..2000 {
            cache.store(&head(sequence), &[0; MAX_PAYLOAD][..sequence as usize % 1401]);
        }
        assert!(cache.memory() <= AUDIO_SLOTS * MAX_PAYLOAD);
    }
}
