//! Transport-wide feedback to a publisher: when each packet of its session arrived, whatever its
//! SSRC. With it a browser estimates its own uplink.

use std::time::Duration;

use crate::time::Mono;
use crate::wire::rtcp;
use crate::wire::twcc::MAX_TOLD;

/// Packets remembered: what is told at most once more when a straggler arrives.
const KEPT: u64 = 1_024;
/// Feedback takes about a twentieth of the bytes that it is about, within these bounds.
const SHARE: u64 = 20;
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(100);
/// What one message weighs on the wire, with everything around it, bytes.
const WEIGHT: u64 = 160;

/// Arrivals of one transport.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// By number modulo [`KEPT`]; allocated at the first packet.
    times: Box<[Option<Mono>]>,
    /// The next number to tell of, and the one after the highest seen.
    next: u64,
    end: u64,
    index: u8,
    media: u32,
    due: Option<Mono>,
    told_at: Mono,
    /// Since then.
    bytes: u64,
    interval: Duration,
}

impl Arrivals {
    pub(crate) fn new(now: Mono) -> Self {
        Self {
            times: Box::default(),
            next: 0,
            end: 0,
            index: 0,
            media: 0,
            due: None,
            told_at: now,
            bytes: 0,
            interval: SHORTEST,
        }
    }

    /// A packet with a transport-wide number arrived.
    pub(crate) fn on_packet(&mut self, now: Mono, number: u16, ssrc: u32, size: usize) {
        if self.times.is_empty() {
            self.times = vec![None; KEPT as usize].into_boxed_slice();
            // A start that leaves room for stragglers below.
            self.next = (1 << 16) + u64::from(number);
            self.end = self.next;
            self.told_at = now;
        }
        // The nearest to the highest so far.
        let step = number.wrapping_sub(self.end as u16) as i16;
        let number = self.end.wrapping_add_signed(i64::from(step));
        if number.saturating_add(KEPT) <= self.end {
            return;
        }
        if number >= self.end {
            if number - self.end >= KEPT {
                self.times.fill(None);
            } else {
                for gap in self.end..number {
                    self.set(gap, None);
                }
            }
            self.set(number, Some(now));
            self.end = number + 1;
            // What no longer fits the memory is not told of: the sender takes it for lost.
            self.next = self.next.max(self.end.saturating_sub(KEPT));
        } else if self.get(number).is_none() {
            self.set(number, Some(now));
            // Told as lost already, or from before the first: told anew, with what follows.
            self.next = self.next.min(number);
        }
        self.media = ssrc;
        self.bytes += size as u64;
        if self.next < self.end {
            self.due.get_or_insert_with(|| self.told_at.plus(self.interval).max(now));
        }
    }

    pub(crate) const fn poll_timeout(&self) -> Option<Mono> {
        self.due
    }

    /// Writes one message if it is due; false when there is no more to write, or no room.
    pub(crate) fn write(&mut self, now: Mono, sender: u32, writer: &mut rtcp::Writer<'_>) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        let mut told = [None; MAX_TOLD];
        let count = (self.end - self.next).min(MAX_TOLD as u64);
        for (place, number) in told.iter_mut().zip(self.next..self.next + count) {
            *place = self.get(number);
        }
        let Some(told) = told.get(..count as usize) else { return false };
        let base = self.next as u16;
        let written = writer.transport_cc((sender, self.media), self.index, base, told) as u64;
        if written == 0 && told.iter().any(Option::is_some) {
            return false;
        }
        // Nothing but losses within the longest message need no telling of their own.
        let told = if written == 0 { count } else { written };
        self.index = self.index.wrapping_add(1);
        self.next += told;
        if self.next >= self.end {
            self.due = None;
            let elapsed = now.since(self.told_at).as_nanos() as u64;
            let fair = (elapsed * WEIGHT * SHARE).checked_div(self.bytes);
            let fair = fair.map_or(LONGEST, Duration::from_nanos);
            self.interval = fair.clamp(SHORTEST, LONGEST);
            self.told_at = now;
            self.bytes = 0;
        }
        true
    }

    fn get(&self, number: u64) -> Option<Mono> {
        self.times.get((number % KEPT) as usize).copied().flatten()
    }

    fn set(&mut self, number: u64, time: Option<Mono>) {
        if let Some(place) = self.times.get_mut((number % KEPT) as usize) {
            *place = time;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rtcp::{Compound, Packet, Writer};

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(1_000_000_000 + millis * 1_000_000)
    }

    /// All that is due: per message its index, base and, of each packet, whether it arrived.
    fn told(arrivals: &mut Arrivals, now: Mono) -> Vec<(u8, u16, String)> {
        let mut all = Vec::new();
        loop {
            let mut out = [0; 1_200];
            let mut writer = Writer::new(&mut out);
            if !arrivals.write(now, 1, &mut writer) {
                return all;
            }
            let len = writer.len();
            for packet in Compound::new(&out[..len]) {
                let Ok(Packet::TransportCc { feedback, .. }) = packet else { panic!("{packet:?}") };
                let marks = feedback.packets().map(|(_, at)| if at.is_some() { 'x' } else { '.' });
                all.push((feedback.index(), feedback.base(), marks.collect()));
            }
            assert!(all.len() < 1_000, "polling comes to an end");
        }
    }

    #[test]
    fn arrivals_losses_and_stragglers_are_told() {
        let mut arrivals = Arrivals::new(at(0));
        assert_eq!(arrivals.poll_timeout(), None);
        for number in [65_534, 65_535, 2, 3] {
            arrivals.on_packet(at(10), number, 9, 1_000);
        }
        assert_eq!(arrivals.poll_timeout(), Some(at(60)));
        assert!(told(&mut arrivals, at(59)).is_empty());
        assert_eq!(told(&mut arrivals, at(60)), [(0, 65_534, "xx..xx".into())]);
        assert_eq!(arrivals.poll_timeout(), None);
        // A straggler takes what follows it along; the same again takes nothing.
        arrivals.on_packet(at(70), 1, 9, 1_000);
        arrivals.on_packet(at(71), 4, 9, 1_000);
        assert_eq!(told(&mut arrivals, at(160)), [(1, 1, "xxxx".into())]);
        arrivals.on_packet(at(170), 1, 9, 1_000);
        assert_eq!(arrivals.poll_timeout(), None);
    }

    #[test]
    fn a_jump_of_numbers_is_no_flood_of_feedback() {
        let mut arrivals = Arrivals::new(at(0));
        let mut messages = 0;
        for jump in 0..200_u16 {
            arrivals.on_packet(at(u64::from(jump) * 200), jump.wrapping_mul(30_000), 9, 100);
            messages += told(&mut arrivals, at(u64::from(jump) * 200 + 150)).len();
        }
        assert!((100..=600).contains(&messages), "{messages}");
    }

    #[test]
    fn the_faster_the_packets_the_more_often_within_bounds() {
        let interval = |size| {
            let mut arrivals = Arrivals::new(at(0));
            for n in 0..100_u16 {
                arrivals.on_packet(at(u64::from(n) * 10), n, 9, size);
                told(&mut arrivals, at(u64::from(n) * 10));
            }
            arrivals.interval
        };
        assert_eq!((interval(1_200), interval(60)), (SHORTEST, LONGEST));
        assert!((SHORTEST..LONGEST).contains(&interval(400)));
    }
}
