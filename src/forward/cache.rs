//! The last packets of one track, for retransmission: one ring per track and shard, shared by all
//! players there.

use crate::wire::media::MediaKind;

use super::{MAX_LAYERS, MAX_PAYLOAD, PacketHead};

/// Video, all layers: about half a second of 8 Mbit/s. 700 KiB when all are in use.
const VIDEO_SLOTS: usize = 512;
/// Audio: more than a second of 20 ms packets.
const AUDIO_SLOTS: usize = 64;
/// What an audio slot starts with, bytes.
const AUDIO_PAYLOAD: usize = 256;

/// Not the number of a slot.
const NONE: u16 = u16::MAX;

#[derive(Debug, Default)]
struct Slot {
    head: PacketHead,
    /// Empty and without memory until first used; kept and reused then.
    payload: Vec<u8>,
    used: bool,
}

/// A bounded ring of the packets of all layers, with an index by [`PacketHead::sequence`] for each.
#[derive(Debug)]
pub struct Cache {
    slots: Vec<Slot>,
    next: usize,
    /// By layer: the slots of its last packets, at their sequence modulo the capacity.
    layers: Vec<Box<[u16]>>,
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
        Self { slots: Vec::new(), next: 0, layers: Vec::new(), capacity, least_payload }
    }

    /// Keeps a packet in place of the one that came a ring's length before it. A packet a ring's
    /// length older than another of its layer, or larger than [`MAX_PAYLOAD`], is not kept.
    pub fn store(&mut self, head: &PacketHead, payload: &[u8]) {
        let layer = usize::from(head.layer);
        if payload.len() > MAX_PAYLOAD || layer >= MAX_LAYERS {
            return;
        }
        if self.slots.is_empty() {
            self.slots.resize_with(self.capacity, Slot::default);
        }
        while self.layers.len() <= layer {
            self.layers.push(vec![NONE; self.capacity].into_boxed_slice());
        }
        if self.newest_at(head.layer, head.sequence).is_some_and(|newer| newer > head.sequence) {
            return;
        }
        let (place, number) = (self.place(head.sequence), self.next as u16);
        let index = self.layers.get_mut(layer).and_then(|index| index.get_mut(place));
        let (Some(index), Some(slot)) = (index, self.slots.get_mut(self.next)) else { return };
        *index = number;
        self.next = (self.next + 1) % self.capacity;
        if slot.payload.capacity() < payload.len() || !slot.used {
            let wanted = payload.len().next_power_of_two().clamp(self.least_payload, MAX_PAYLOAD);
            slot.payload = Vec::with_capacity(wanted);
        }
        slot.used = true;
        slot.head = *head;
        slot.payload.clear();
        slot.payload.extend_from_slice(payload);
    }

    /// The packet of a layer with this sequence, if it is still there.
    #[must_use]
    pub fn load(&self, layer: u8, sequence: u64) -> Option<(PacketHead, &[u8])> {
        let slot = self.slot_at(layer, sequence)?;
        (slot.head.sequence == sequence).then_some((slot.head, &slot.payload[..]))
    }

    /// Bytes of payload memory held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.slots.iter().map(|slot| slot.payload.capacity()).sum()
    }

    /// The slot whose packet has the place of `sequence` in its layer's index.
    fn slot_at(&self, layer: u8, sequence: u64) -> Option<&Slot> {
        let number = self.layers.get(usize::from(layer))?.get(self.place(sequence))?;
        let slot = self.slots.get(usize::from(*number))?;
        // The slot may be another packet's by now.
        let same =
            slot.head.layer == layer && self.place(slot.head.sequence) == self.place(sequence);
        (slot.used && same).then_some(slot)
    }

    fn newest_at(&self, layer: u8, sequence: u64) -> Option<u64> {
        self.slot_at(layer, sequence).map(|slot| slot.head.sequence)
    }

    const fn place(&self, sequence: u64) -> usize {
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
        assert_eq!(cache.load(0, 235), None);
        assert_eq!(cache.load(0, 300), None);
        for sequence in 236..300u64 {
            let expected = (head(sequence), &sequence.to_be_bytes()[..]);
            assert_eq!(cache.load(0, sequence), Some(expected));
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
        assert_eq!(cache.load(0, 2000), None);
        let mut cache = Cache::new(MediaKind::Audio);
        for sequence in 0..2000 {
            cache.store(&head(sequence), &[0; MAX_PAYLOAD][..sequence as usize % 1401]);
        }
        assert!(cache.memory() <= AUDIO_SLOTS * MAX_PAYLOAD);
    }
}
