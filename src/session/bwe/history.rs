//! What was sent with a transport-wide number, until the player has said what became of it.

use std::time::Duration;

use crate::time::Mono;

/// The ring's first and largest length.
const LEAST: usize = 256;
const MOST: usize = 8_192;
/// A ring that would forget a packet so young without news of it grows instead.
const KEEP: Duration = Duration::from_secs(2);

/// What is known of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Fate {
    #[default]
    Unknown,
    Arrived,
    /// Reported lost, which a later report may take back.
    Lost,
}

/// A packet under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sent {
    pub(super) at: Mono,
    /// Low bits of its number; the ring's own are below.
    tag: u32,
    /// Bytes on the wire.
    pub(super) size: u16,
    /// The probe that it is part of, or zero.
    pub(super) probe: u8,
    fate: Fate,
}

/// A ring of packets, by number.
#[derive(Debug)]
pub(super) struct History {
    /// Empty until the first packet; a power of two.
    ring: Vec<Sent>,
    next: u64,
}

impl Default for History {
    fn default() -> Self {
        // Not zero, which would make unused places look like packets.
        Self { ring: Vec::new(), next: 1 }
    }
}

impl History {
    /// The number of the next packet, as it travels.
    pub(super) const fn next(&self) -> u16 {
        self.next as u16
    }

    pub(super) fn on_sent(&mut self, at: Mono, size: u16, probe: u8) {
        if self.ring.is_empty() {
            self.ring = vec![Sent::default(); LEAST];
        }
        if let Some(oldest) = self.ring.get(self.place(self.next))
            && oldest.fate == Fate::Unknown
            && oldest.tag != 0
            && at.since(oldest.at) < KEEP
            && self.ring.len() < MOST
        {
            self.grow();
        }
        let (place, tag) = (self.place(self.next), self.next as u32);
        if let Some(slot) = self.ring.get_mut(place) {
            *slot = Sent { at, tag, size, probe, fate: Fate::Unknown };
        }
        self.next += 1;
    }

    /// Notes what became of a packet. What it was, and what was known of it before; `None` when it
    /// is forgotten, was never sent, or nothing is new.
    pub(super) fn on_fate(&mut self, number: u16, arrived: bool) -> Option<(Sent, Fate)> {
        let number = self.whole(number)?;
        let place = self.place(number);
        let slot = self.ring.get_mut(place).filter(|slot| slot.tag == number as u32)?;
        let before = slot.fate;
        let fate = if arrived { Fate::Arrived } else { Fate::Lost };
        if before == fate || before == Fate::Arrived {
            return None;
        }
        slot.fate = fate;
        Some((*slot, before))
    }

    /// The number whole, of the last packet with these low bits.
    pub(super) fn whole(&self, number: u16) -> Option<u64> {
        let behind = (self.next.wrapping_sub(1) as u16).wrapping_sub(number);
        self.next.checked_sub(1 + u64::from(behind))
    }

    /// There will be no news of a packet: takes it as arrived. Its bytes.
    pub(super) fn assume(&mut self, number: u64) -> Option<u16> {
        let place = self.place(number);
        let slot = self.ring.get_mut(place).filter(|slot| slot.tag == number as u32)?;
        if slot.fate != Fate::Unknown {
            return None;
        }
        slot.fate = Fate::Arrived;
        Some(slot.size)
    }

    fn grow(&mut self) {
        let length = self.ring.len() * 2;
        let old = std::mem::replace(&mut self.ring, vec![Sent::default(); length]);
        for sent in old {
            let place = sent.tag as usize % length;
            if let Some(slot) = self.ring.get_mut(place) {
                *slot = sent;
            }
        }
    }

    fn place(&self, number: u64) -> usize {
        number as usize % self.ring.len().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_packet_is_acknowledged_once_and_may_be_lost_before() {
        let mut history = History::default();
        assert_eq!(history.on_fate(0, true), None);
        for n in 0..70_000_u64 {
            history.on_sent(at(n), 100, 0);
        }
        let last = history.next().wrapping_sub(1);
        let (sent, before) = history.on_fate(last, false).expect("known");
        assert_eq!((sent.at, before), (at(69_999), Fate::Unknown));
        assert_eq!(history.on_fate(last, false), None);
        assert_eq!(history.on_fate(last, true).expect("news").1, Fate::Lost);
        assert_eq!((history.on_fate(last, true), history.on_fate(last, false)), (None, None));
        assert_eq!(history.on_fate(last.wrapping_add(1), true), None);
    }

    #[test]
    fn it_remembers_two_seconds_within_bounds() {
        let mut history = History::default();
        for n in 0..20_000_u64 {
            history.on_sent(at(n / 2), 100, 0);
        }
        assert_eq!(history.ring.len(), 4_096);
        let old = history.next().wrapping_sub(3_900);
        assert!(history.on_fate(old, true).is_some());
        for _ in 0..20_000_u64 {
            history.on_sent(at(10_001), 100, 0);
        }
        assert_eq!(history.ring.len(), MOST);
    }
}
