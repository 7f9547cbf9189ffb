//! What arrived of one SSRC: extended sequence, duplicates, loss and jitter (RFC 3550 A.1, A.3,
//! A.8).

use std::ops::Range;

use crate::time::Mono;
use crate::wire::rtcp::ReportBlock;

/// A forward step of this many numbers or more may be a restart (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3000;
/// How far back a packet may come and still be told from a duplicate.
pub(crate) const WINDOW: u64 = 1024;
/// An RTX packet this far ahead of the stream is a tail loss; further is not believed.
const MAX_RTX_AHEAD: i64 = 64;

/// What to do with a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Take it.
    New {
        /// Its extended sequence.
        extended: u64,
        /// Numbers that it jumped over; empty when it did not advance.
        gap: Range<u64>,
    },
    /// Seen before.
    Duplicate,
    /// Too old to tell, or from before the start.
    Late,
    /// So far ahead that the sender may have started anew.
    Jump,
}

/// Receive state of one SSRC.
#[derive(Clone, Debug)]
pub(crate) struct ReceiveWindow {
    pub(crate) ssrc: u32,
    highest: u64,
    floor: u64,
    base: u64,
    seen: [u64; WINDOW as usize / 64],
    received: u64,
    expected_before: u64,
    received_before: u64,
    transit: Option<u32>,
    jitter_16ths: u32,
}

impl ReceiveWindow {
    /// Starts with the packet `sequence`, which is thereby taken. With `earlier`, packets before
    /// it (reordered) are taken as well.
    pub(crate) fn new(ssrc: u32, sequence: u16, earlier: bool) -> Self {
        // One cycle up, so that packets reordered before the first have a number.
        let extended = (1 << 16) + u64::from(sequence);
        let mut window = Self {
            ssrc,
            highest: extended,
            floor: if earlier { 0 } else { extended },
            base: extended,
            seen: [0; WINDOW as usize / 64],
            received: 1,
            expected_before: 0,
            received_before: 0,
            transit: None,
            jitter_16ths: 0,
        };
        window.mark(extended);
        window
    }

    pub(crate) const fn highest(&self) -> u64 {
        self.highest
    }

    /// A packet of this SSRC itself.
    pub(crate) fn admit(&mut self, sequence: u16) -> Verdict {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        let behind = u64::from(ahead.wrapping_neg());
        let verdict = if ahead < MAX_DROPOUT {
            self.take(self.highest + u64::from(ahead))
        } else if behind >= WINDOW {
            // Far behind and far ahead look the same modulo 2^16.
            Verdict::Jump
        } else {
            self.take(self.highest - behind)
        };
        self.received += u64::from(matches!(verdict, Verdict::New { .. }));
        verdict
    }

    /// A packet recovered by RTX, by its original sequence: not counted as received (a report
    /// tells the loss of the path, not what was repaired).
    pub(crate) fn admit_recovered(&mut self, sequence: u16) -> Verdict {
        let distance = i64::from(sequence.wrapping_sub(self.highest as u16) as i16);
        if distance > MAX_RTX_AHEAD {
            return Verdict::Late;
        }
        self.take(self.highest.saturating_add_signed(distance))
    }

    fn take(&mut self, extended: u64) -> Verdict {
        if extended < self.floor || extended + WINDOW <= self.highest {
            return Verdict::Late;
        }
        if extended <= self.highest {
            if self.is_marked(extended) {
                return Verdict::Duplicate;
            }
            self.mark(extended);
            return Verdict::New { extended, gap: extended..extended };
        }
        let gap = self.highest + 1..extended;
        if extended - self.highest >= WINDOW {
            self.seen.fill(0);
        } else {
            for passed in gap.clone() {
                self.clear(passed);
            }
        }
        self.highest = extended;
        self.mark(extended);
        Verdict::New { extended, gap }
    }

    /// Interarrival jitter (RFC 3550 A.8). For packets that came straight.
    pub(crate) fn on_arrival(&mut self, now: Mono, timestamp: u32, clock_rate: u32) {
        let ticks = u128::from(now.as_nanos()) * u128::from(clock_rate) / 1_000_000_000;
        let transit = (ticks as u32).wrapping_sub(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let difference = (transit.wrapping_sub(before) as i32).unsigned_abs();
            // A step of more than ten seconds is a new timeline, not jitter.
            if difference < clock_rate.saturating_mul(10) {
                let estimate = self.jitter_16ths;
                self.jitter_16ths = estimate + difference - ((estimate + 8) >> 4);
            }
        }
    }

    /// The report on what came since the last one (RFC 3550 A.3); the caller adds LSR and DLSR.
    pub(crate) fn report(&mut self) -> ReportBlock {
        let expected = self.highest - self.base + 1;
        let lost = expected as i64 - self.received as i64;
        let expected_now = expected - self.expected_before;
        let received_now = self.received - self.received_before;
        self.expected_before = expected;
        self.received_before = self.received;
        let lost_now = expected_now.saturating_sub(received_now);
        let fraction = (lost_now << 8).checked_div(expected_now).unwrap_or(0);
        ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: fraction.min(255) as u8,
            cumulative_lost: lost.clamp(-0x80_0000, 0x7F_FFFF) as i32,
            highest: self.highest.wrapping_sub(1 << 16) as u32,
            jitter: self.jitter_16ths >> 4,
            last_sr: 0,
            delay: 0,
        }
    }

    fn mark(&mut self, extended: u64) {
        let bit = extended % WINDOW;
        self.seen[(bit / 64) as usize] |= 1 << (bit % 64);
    }

    fn clear(&mut self, extended: u64) {
        let bit = extended % WINDOW;
        self.seen[(bit / 64) as usize] &= !(1 << (bit % 64));
    }

    fn is_marked(&self, extended: u64) -> bool {
        let bit = extended % WINDOW;
        self.seen[(bit / 64) as usize] & (1 << (bit % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CYCLE: u64 = 1 << 16;

    fn new(extended: u64, gap: Range<u64>) -> Verdict {
        Verdict::New { extended, gap }
    }

    #[test]
    fn sequence_is_extended_over_the_wrap() {
        let mut window = ReceiveWindow::new(1, 65534, true);
        assert_eq!(window.admit(1), new(2 * CYCLE + 1, CYCLE + 65535..2 * CYCLE + 1));
        assert_eq!(window.admit(65535), new(CYCLE + 65535, CYCLE + 65535..CYCLE + 65535));
        assert_eq!(window.admit(65535), Verdict::Duplicate);
        assert_eq!(window.admit(65534), Verdict::Duplicate);
        assert_eq!(window.admit(65533), new(CYCLE + 65533, CYCLE + 65533..CYCLE + 65533));
        assert_eq!(window.report().highest, 0x1_0001);
    }

    #[test]
    fn nothing_before_the_floor_is_taken() {
        let mut window = ReceiveWindow::new(1, 100, false);
        assert_eq!(window.admit(99), Verdict::Late);
        assert_eq!(window.admit(101), new(CYCLE + 101, CYCLE + 101..CYCLE + 101));
    }

    #[test]
    fn duplicates_are_known_1023_back_and_no_further() {
        let mut window = ReceiveWindow::new(1, 0, true);
        for sequence in 1..=1023 {
            assert!(matches!(window.admit(sequence), Verdict::New { .. }));
        }
        assert_eq!(window.admit(0), Verdict::Duplicate);
        assert!(matches!(window.admit(1024), Verdict::New { .. }));
        assert_eq!(window.admit(0), Verdict::Jump);
        assert_eq!(window.admit_recovered(0), Verdict::Late);
        assert!(matches!(window.admit(1024 + 2999), Verdict::New { .. }));
        assert_eq!(window.admit(1024 + 2999 + 3000), Verdict::Jump);
    }

    #[test]
    fn report_counts_loss_but_not_repair() {
        let mut window = ReceiveWindow::new(9, 0, true);
        for sequence in [1, 2, 5, 6, 7] {
            window.admit(sequence);
        }
        assert!(matches!(window.admit_recovered(3), Verdict::New { .. }));
        let report = window.report();
        assert_eq!((report.fraction_lost, report.cumulative_lost, report.highest), (64, 2, 7));
        let report = window.report();
        assert_eq!((report.fraction_lost, report.cumulative_lost), (0, 2));
    }

    #[test]
    fn jitter_of_a_steady_stream_is_zero_and_grows_with_variation() {
        let mut window = ReceiveWindow::new(9, 0, true);
        for frame in 0..100u32 {
            let now = Mono::from_nanos(u64::from(frame) * 20_000_000);
            window.on_arrival(now, frame.wrapping_mul(960).wrapping_sub(5000), 48_000);
        }
        assert_eq!(window.report().jitter, 0);
        for frame in 100..400u32 {
            let late = u64::from(frame % 2) * 5_000_000;
            let now = Mono::from_nanos(u64::from(frame) * 20_000_000 + late);
            window.on_arrival(now, frame.wrapping_mul(960).wrapping_sub(5000), 48_000);
        }
        // 5 ms at 48 kHz is 240.
        let jitter = window.report().jitter;
        assert!((230..=240).contains(&jitter), "{jitter}");
    }

    proptest! {
        #[test]
        fn no_extended_sequence_is_taken_twice(
            first: u16, steps in prop::collection::vec((-1500i32..4000, any::<bool>()), 1..600)
        ) {
            let mut window = ReceiveWindow::new(1, first, true);
            let mut taken = std::collections::HashSet::from([window.highest()]);
            for (step, recovered) in steps {
                let sequence = (window.highest() as u16).wrapping_add(step as u16);
                let verdict = if recovered {
                    window.admit_recovered(sequence)
                } else {
                    window.admit(sequence)
                };
                if let Verdict::New { extended, .. } = verdict {
                    prop_assert_eq!(extended as u16, sequence);
                    prop_assert!(taken.insert(extended));
                }
            }
            window.report();
        }
    }
}
