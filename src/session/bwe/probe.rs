//! Bursts that find out whether the path carries more than is sent: paced at the rate to be found
//! possible, judged by how much their packets spread out on the way.

use std::time::Duration;

use super::{Arrival, rate};
use crate::time::Mono;

/// Length of a burst on a path without jitter, and on any, ms.
const SHORTEST: f64 = 20.0;
const LONGEST: f64 = 120.0;
/// What a burst may pile up on a path that is just as fast as estimated, ms.
const MOST_QUEUE: f64 = 150.0;
/// A burst is this much longer than jitter.
const JITTERS: f64 = 6.0;
const LEAST_PACKETS: u32 = 8;
/// Of the burst's bytes, or there is no verdict.
const LEAST_ACKED: f64 = 0.4;
/// Spread further than this, the path was full.
const SPREAD: f64 = 1.12;
/// And carries this share of what came out of it.
const SHARE: f64 = 0.95;
/// How long news of a burst may take.
const VERDICT: Duration = Duration::from_millis(1_500);
/// There is news of packets sent so much later: more of the burst is not to come.
const OVERTAKEN: Duration = Duration::from_millis(100);
/// A burst whose timers do not come is given up.
const STALLED: Duration = Duration::from_millis(400);
const STEP: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
struct Burst {
    id: u8,
    bits: f64,
    began: Mono,
    length: Duration,
    /// Sent with this burst's mark, ours and media.
    sent: u64,
    packets: u32,
    first: Option<Mono>,
    last: Mono,
    sending: bool,
    acked: u64,
    lost: u64,
    arrived: u32,
    /// Bytes sent over sending (ms), and arrival (ms) over sending, all since the first.
    out: Line,
    spread: Line,
    origin: f64,
}

/// What a burst found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Found {
    /// What it was sent at, bits per second.
    pub(super) asked: f64,
    /// What arrives of that.
    pub(super) bits: f64,
}

/// At most one burst at a time.
#[derive(Debug, Default)]
pub(super) struct Prober {
    burst: Option<Burst>,
    last_id: u8,
}

impl Prober {
    pub(super) const fn is_busy(&self) -> bool {
        self.burst.is_some()
    }

    /// Starts a burst at `bits` per second on a path that is taken to carry `rate`.
    pub(super) fn start(&mut self, now: Mono, bits: f64, rate: f64, jitter: f64) {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let most = (MOST_QUEUE * rate / (bits - rate).max(1.0)).max(SHORTEST);
        let length = (JITTERS * jitter).clamp(SHORTEST, LONGEST).min(most);
        self.burst = Some(Burst {
            id: self.last_id,
            bits: bits.min(rate::MOST),
            began: now,
            length: Duration::from_micros((length * 1e3) as u64),
            sent: 0,
            packets: 0,
            first: None,
            last: now,
            sending: true,
            acked: 0,
            lost: 0,
            arrived: 0,
            out: Line::default(),
            spread: Line::default(),
            origin: 0.0,
        });
    }

    /// Whether a packet of padding is due.
    pub(super) fn is_due(&mut self, now: Mono) -> bool {
        let Some(burst) = self.burst.as_mut().filter(|burst| burst.sending) else { return false };
        let elapsed = now.since(burst.began);
        if elapsed >= burst.length && burst.packets >= LEAST_PACKETS || elapsed > STALLED {
            burst.sending = false;
            return false;
        }
        burst.sent as f64 * 8.0 <= burst.bits * elapsed.as_secs_f64()
    }

    /// The mark of what is sent now, or zero.
    pub(super) fn mark(&self) -> u8 {
        self.burst.filter(|burst| burst.sending).map_or(0, |burst| burst.id)
    }

    pub(super) fn on_sent(&mut self, now: Mono, size: u16) {
        if let Some(burst) = self.burst.as_mut().filter(|burst| burst.sending) {
            let first = *burst.first.get_or_insert(now);
            burst.last = now;
            burst.out.add(now.since(first).as_secs_f64() * 1e3, burst.sent as f64);
            burst.sent += u64::from(size);
            burst.packets += 1;
        }
    }

    /// A marked packet arrived (ms on the player's clock), maybe after it was reported lost.
    pub(super) fn on_arrival(&mut self, packet: &Arrival) {
        let Some(burst) = self.burst.as_mut().filter(|burst| burst.id == packet.probe) else {
            return;
        };
        let Some(first) = burst.first else { return };
        let (arrival, sent) = (packet.at, packet.sent);
        if packet.was_lost {
            burst.lost = burst.lost.saturating_sub(u64::from(packet.size));
        }
        burst.arrived += 1;
        if burst.acked == 0 {
            burst.origin = arrival;
        }
        burst.acked += u64::from(packet.size);
        let x = sent.since(first).as_secs_f64() * 1e3;
        let y = arrival - burst.origin;
        burst.spread.add(x, y);
    }

    /// A marked packet is reported lost.
    pub(super) fn on_loss(&mut self, id: u8, size: u16) {
        if let Some(burst) = self.burst.as_mut().filter(|burst| burst.id == id) {
            burst.lost += u64::from(size);
        }
    }

    /// What the burst found, once there is news of all of it, or will be none: of a packet sent at
    /// `told` there is.
    pub(super) fn verdict(&mut self, now: Mono, told: Mono) -> Option<Option<Found>> {
        let burst = self.burst.filter(|burst| !burst.sending)?;
        let passed = now.since(burst.last) >= VERDICT || told.since(burst.last) >= OVERTAKEN;
        if burst.arrived < burst.packets && !passed {
            return None;
        }
        self.burst = None;
        Some(burst.found())
    }

    pub(super) fn poll_timeout(&self) -> Option<Mono> {
        let burst = self.burst?;
        if !burst.sending {
            return Some(burst.last.plus(VERDICT));
        }
        // When what is sent so far is due, in whole steps.
        let due = burst.began.plus(Duration::from_secs_f64(burst.sent as f64 * 8.0 / burst.bits));
        Some(due.max(burst.last.plus(STEP)))
    }
}

/// Least squares of a line.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    sums: [f64; 5],
}

impl Line {
    fn add(&mut self, x: f64, y: f64) {
        for (sum, value) in self.sums.iter_mut().zip([1.0, x, y, x * x, x * y]) {
            *sum += value;
        }
    }

    fn slope(&self) -> Option<f64> {
        let [n, x, y, xx, xy] = self.sums;
        let below = n * xx - x * x;
        (below > 0.0).then(|| (n * xy - x * y) / below)
    }
}

impl Burst {
    fn found(&self) -> Option<Found> {
        let span = self.last.since(self.first?).as_secs_f64();
        let share = self.acked as f64 / (self.acked + self.lost).max(1) as f64;
        let known = self.acked as f64 / self.sent.max(1) as f64;
        if span < 0.005 || known < LEAST_ACKED {
            return None;
        }
        if f64::from(self.arrived) < f64::from(LEAST_PACKETS) * LEAST_ACKED {
            return None;
        }
        let out = self.out.slope()? * 8_000.0;
        let spread = self.spread.slope()?;
        // A lone loss is the path's way; a fifth of a burst is a full queue.
        let arrives = if share < 0.8 { share } else { 1.0 };
        let bits = if spread > SPREAD { SHARE * out / spread } else { out } * arrives;
        Some(Found { asked: self.bits, bits })
    }
}
