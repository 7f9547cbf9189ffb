//! From what delays and losses say to a rate: multiplicative up while the path's limit is unknown,
//! additive near it, down to a share of what arrives (draft-ietf-rmcat-gcc-02 section 5.5).

use super::delay::Usage;

/// Never below what carries audio and a little video, never above what a link plausibly has;
/// bits per second.
pub(super) const LEAST: f64 = 30_000.0;
pub(super) const MOST: f64 = 100_000_000.0;
/// Share of what arrives to which overuse brings the rate down.
const DOWN: f64 = 0.85;
/// And a queue that stands.
const STANDING: f64 = 0.92;
/// Where less is sent than the rate, a queue that stands brings it down to this share in a second.
const DRAIN: f64 = 0.8;
/// Growth in one second while the limit is unknown.
const UP: f64 = 1.08;
/// Without probes the rate goes no further above what arrives than this.
const BEYOND: f64 = 1.5;
const BEYOND_BITS: f64 = 10_000.0;
/// Nor further above what a burst found to be the limit than this, until more arrives.
const CEILING: f64 = 1.05;
/// It was not the limit if this much more than that arrives.
const BROKEN: f64 = 1.15;
/// While little is sent, what is sent and arrives in full is no overuse by itself; and one reaction
/// takes no more than this.
const LIMITED_DOWN: f64 = 0.85;
const ARRIVES: f64 = 0.88;

/// What the path carried when it was full, kbit/s.
#[derive(Clone, Copy, Debug, Default)]
struct Capacity {
    mean: Option<f64>,
    deviation: f64,
}

impl Capacity {
    fn on_full(&mut self, sample: f64) {
        const ALPHA: f64 = 0.05;
        let mean = self.mean.map_or(sample, |mean| mean + ALPHA * (sample - mean));
        let error = mean - sample;
        let deviation = (1.0 - ALPHA) * self.deviation + ALPHA * error * error / mean.max(1.0);
        self.deviation = deviation.clamp(0.4, 2.5);
        self.mean = Some(mean);
    }

    fn reach(&self) -> Option<(f64, f64)> {
        let mean = self.mean?;
        let three = 3.0 * (self.deviation * mean).sqrt();
        Some((mean - three, mean + three))
    }
}

/// What is known when the rate is decided; rates in bits per second, times in ms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) now: f64,
    pub(super) usage: Usage,
    /// What arrives while a queue stands.
    pub(super) full: Option<f64>,
    /// What arrives.
    pub(super) acked: Option<f64>,
    /// The same over a shorter time: what the path carries when a queue grows, while what was sent
    /// before may have been less.
    pub(super) recent: Option<f64>,
    /// What is sent.
    pub(super) sent: Option<f64>,
    pub(super) rtt: f64,
    /// Losses say that it is too much already.
    pub(super) lossy: bool,
}

/// The rate.
#[derive(Debug)]
pub(super) struct Rate {
    bits: f64,
    holding: bool,
    capacity: Capacity,
    changed: Option<f64>,
    decreased: Option<f64>,
    /// What a burst found to be the limit.
    ceiling: Option<f64>,
}

impl Rate {
    pub(super) fn new(bits: f64) -> Self {
        Self {
            bits,
            holding: true,
            capacity: Capacity::default(),
            changed: None,
            decreased: None,
            ceiling: None,
        }
    }

    pub(super) const fn bits(&self) -> f64 {
        self.bits
    }

    /// When it last went down for want of room.
    pub(super) const fn decreased(&self) -> Option<f64> {
        self.decreased
    }

    /// Much less is sent than the path would carry.
    pub(super) fn is_limited(&self, sent: Option<f64>) -> bool {
        sent.is_none_or(|sent| sent < 0.7 * self.bits)
    }

    pub(super) fn on_feedback(&mut self, seen: &Seen) {
        if let Some(full) = seen.full {
            self.stand(seen, full);
            return;
        }
        match seen.usage {
            Usage::Over => self.decrease(seen),
            // What has piled up flows off first.
            Usage::Under => self.holding = true,
            Usage::Normal if self.holding => {
                self.holding = false;
                self.changed = Some(seen.now);
            }
            Usage::Normal => self.increase(seen),
        }
    }

    fn decrease(&mut self, seen: &Seen) {
        self.holding = true;
        let Some(acked) = seen.acked else { return };
        let acked = acked.max(seen.recent.unwrap_or_default());
        let soon = seen.rtt.clamp(10.0, 200.0);
        let again = self.decreased.is_none_or(|at| seen.now - at >= soon);
        if !again && acked >= 0.5 * self.bits {
            return;
        }
        let whole = seen.sent.is_none_or(|sent| acked >= ARRIVES * sent);
        let target = if self.is_limited(seen.sent) && whole {
            (LIMITED_DOWN * self.bits).max(acked)
        } else {
            DOWN * acked
        };
        if self.capacity.reach().is_some_and(|(low, high)| acked / 1e3 < low || acked / 1e3 > high)
        {
            self.capacity = Capacity::default();
        }
        if !self.is_limited(seen.sent) || !whole {
            self.capacity.on_full(acked / 1e3);
        }
        self.set(self.bits.min(target));
        self.decreased = Some(seen.now);
        self.changed = Some(seen.now);
    }

    /// Of a full path what arrives is what it carries; a little less lets it empty.
    fn stand(&mut self, seen: &Seen, full: f64) {
        self.holding = true;
        let elapsed = (seen.now - self.changed.unwrap_or(seen.now)).clamp(0.0, 1_000.0) / 1e3;
        self.changed = Some(seen.now);
        if self.bits < DOWN * full {
            self.set(DOWN * full);
        } else if self.is_limited(seen.sent) {
            // Or the way has become longer: with time.
            let less = (self.bits * DRAIN.powf(elapsed)).max(full);
            self.set(self.bits.min(less));
        } else if self.bits > STANDING * full {
            self.set(STANDING * full);
            self.decreased = Some(seen.now);
        }
    }

    fn increase(&mut self, seen: &Seen) {
        let elapsed = (seen.now - self.changed.unwrap_or(seen.now)).clamp(0.0, 1_000.0) / 1e3;
        self.changed = Some(seen.now);
        let Some(acked) = seen.acked else { return };
        if self.capacity.reach().is_some_and(|(_, high)| acked / 1e3 > high) {
            self.capacity = Capacity::default();
        }
        if self.ceiling.is_some_and(|ceiling| acked > BROKEN * ceiling) {
            self.ceiling = None;
        }
        let limit = (BEYOND * acked + BEYOND_BITS).min(self.ceiling.unwrap_or(MOST));
        if self.bits >= limit || seen.lossy {
            return;
        }
        let grown = if self.capacity.mean.is_some() {
            self.bits + elapsed * near_limit(self.bits, seen.rtt)
        } else {
            self.bits * UP.powf(elapsed) + elapsed * 1_000.0
        };
        self.set(grown.min(limit));
    }

    /// A probe found so much room. `full`: and that there is no more.
    pub(super) fn on_probe(&mut self, now: f64, bits: f64, full: bool) {
        self.ceiling = full.then_some(CEILING * bits);
        if bits > self.bits {
            if self.capacity.reach().is_some_and(|(_, high)| bits / 1e3 > high) {
                self.capacity = Capacity::default();
            }
            self.set(bits);
            self.changed = Some(now);
        }
    }

    /// Losses ask for less; by `factor`, but not for much less than what arrives.
    pub(super) fn on_loss(&mut self, now: f64, factor: f64, acked: Option<f64>) {
        let least = DOWN * acked.unwrap_or_default();
        self.set(self.bits.min((self.bits * factor).max(least)));
        self.decreased = Some(now);
        self.changed = Some(now);
    }

    pub(super) fn set(&mut self, bits: f64) {
        self.bits = bits.clamp(LEAST, MOST);
    }
}

/// About one packet more in a response time; bits per second in a second.
fn near_limit(bits: f64, rtt: f64) -> f64 {
    let frame = bits / 30.0;
    let packets = (frame / 9_600.0).ceil().max(1.0);
    let response = (rtt + 100.0) / 1e3;
    (frame / packets / response).max(4_000.0)
}
