//! What the path to one player carries, estimated at the sending end from transport-wide feedback;
//! from REMB where the player knows only that.
//!
//! The shape is Google Congestion Control's (draft-ietf-rmcat-gcc-02, libwebrtc's later additions):
//! growing delays bring the rate down before a queue overflows ([`delay`], [`rate`]), losses only
//! where they follow what is sent ([`loss`]), and bursts of padding find room that media does not
//! use ([`probe`]). All memory is taken with the first packets and bounded.

mod acked;
mod delay;
mod history;
mod loss;
mod probe;
mod rate;
mod standing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::time::Mono;
use crate::wire::twcc::Feedback;

use acked::Meter;
use delay::{Delay, Usage};
use history::{Fate, History};
use loss::Loss;
use probe::Prober;
use rate::{Rate, Seen};
use standing::Standing;

/// The estimate before anything is known, bits per second.
pub const START: u64 = 500_000;
/// The first bursts, in multiples of it.
const FIRST_PROBES: [f64; 2] = [3.0, 6.0];
/// Between two bursts that look for room for a layer.
const PROBE_EVERY: [Duration; 2] = [Duration::from_millis(1_500), Duration::from_millis(2_500)];
/// After a decrease the path is left alone.
const CALM: f64 = 1_500.0;
/// A burst asks for no more than this many times the estimate.
const FURTHEST: f64 = 4.0;
/// And for no less, bits per second: of too few packets nothing can be told.
const LEAST_PROBE: f64 = 1_500_000.0;
/// A burst that brought this share of what it asked for found the room.
const SUCCESS: f64 = 0.85;
/// A burst that found less than this share of the estimate speaks against it, and is repeated.
const DISPROVED: f64 = 0.95;
/// Sent for so long without a word of any packet, the path is taken to be stuck.
const SILENCE: Duration = Duration::from_millis(1_500);
const SILENCE_STEP: Duration = Duration::from_millis(500);
const SILENCE_FACTOR: f64 = 0.7;
/// But not to less than this share of what it carried.
const SILENCE_LEAST: f64 = 0.4;
/// More is no chance.
const MOST_CHANCE: f64 = 0.1;
/// Most packets of one message that are sorted and looked at.
const BATCH: usize = 512;
/// What a lost message may have told of: packets, ms.
const MOST_FILLED: u64 = 256;
const LONGEST_FILLED: f64 = 600.0;
/// Bytes of headers around a packet that a bottleneck sees: IP, UDP, TURN.
const HEADERS: usize = 32;

/// A packet that a message says arrived.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    /// On the player's clock, ms.
    at: f64,
    sent: Mono,
    size: u16,
    probe: u8,
    was_lost: bool,
}

/// The estimate of one path, and the transport-wide numbers of what is sent there.
#[derive(Debug)]
pub struct Estimator {
    history: History,
    delay: Delay,
    standing: Standing,
    loss: Loss,
    rate: Rate,
    prober: Prober,
    /// What arrives, on the player's clock; what is sent, on ours.
    acked: Meter,
    sent: Meter,
    batch: Vec<Arrival>,
    /// The player's clock: last reference time and its units without wrap.
    reference: Option<(u32, i64)>,
    /// Newest arrival, ms.
    newest: f64,
    /// The number behind the last of which there was news.
    told: u64,
    rtt: f64,
    heard: Option<Mono>,
    /// The estimate then.
    carried: f64,
    /// When the newest packet was sent of which there is news.
    latest: Mono,
    last_sent: Option<Mono>,
    first_unheard: Option<Mono>,
    silence: Mono,
    remb: Option<u64>,
    expects: bool,
    wanted: Option<f64>,
    can_probe: bool,
    first_probes: usize,
    next_probe: Option<Mono>,
    probe_failed: bool,
    /// What a burst found that was far below the estimate.
    disproof: Option<f64>,
    probes: u64,
}

impl Default for Estimator {
    fn default() -> Self {
        Self::new()
    }
}

impl Estimator {
    /// Without a packet sent; no memory is taken yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            history: History::default(),
            delay: Delay::new(),
            standing: Standing::new(),
            loss: Loss::default(),
            rate: Rate::new(START as f64),
            prober: Prober::default(),
            acked: Meter::default(),
            sent: Meter::default(),
            batch: Vec::new(),
            reference: None,
            newest: 0.0,
            told: 0,
            rtt: 200.0,
            heard: None,
            carried: 0.0,
            latest: Mono::ZERO,
            last_sent: None,
            first_unheard: None,
            silence: Mono::ZERO,
            remb: None,
            expects: false,
            wanted: None,
            can_probe: true,
            first_probes: 0,
            next_probe: None,
            probe_failed: false,
            disproof: None,
            probes: 0,
        }
    }

    /// The transport-wide number of the next packet.
    #[must_use]
    pub const fn next_number(&self) -> u16 {
        self.history.next()
    }

    /// The packet with [`Self::next_number`] is sent: `size` bytes of SRTP. `video`: it belongs to
    /// what may be paced and probed for; audio alone needs no estimate.
    pub fn on_sent(&mut self, now: Mono, size: usize, video: bool) {
        let size = (size + HEADERS).min(usize::from(u16::MAX)) as u16;
        if self.batch.capacity() == 0 {
            self.batch.reserve_exact(BATCH);
        }
        self.history.on_sent(now, size, self.prober.mark());
        self.prober.on_sent(now, size);
        self.sent.add(millis(now), u64::from(size));
        self.last_sent = Some(now);
        self.expects = true;
        self.first_unheard.get_or_insert(now);
        if video && self.next_probe.is_none() {
            self.next_probe = Some(now);
        }
    }

    /// The player's news of what arrived.
    pub fn on_feedback(&mut self, now: Mono, feedback: &Feedback<'_>) {
        let zero = self.unwrap(feedback.reference());
        self.batch.clear();
        let (mut arrived, mut lost, mut taken_back) = (0, 0, 0);
        let mut latest: Option<Mono> = None;
        let (before, mut first) = (self.told, None);
        for (number, micros) in feedback.packets() {
            if let Some(whole) = self.history.whole(number) {
                first.get_or_insert(whole);
                self.told = self.told.max(whole + 1);
            }
            let Some((sent, before)) = self.history.on_fate(number, micros.is_some()) else {
                continue;
            };
            let Some(micros) = micros else {
                lost += 1;
                self.prober.on_loss(sent.probe, sent.size);
                continue;
            };
            arrived += 1;
            let was_lost = before == Fate::Lost;
            taken_back += u32::from(was_lost);
            latest = latest.max(Some(sent.at));
            if self.batch.len() < BATCH {
                let at = (zero + micros) as f64 / 1e3;
                let (size, probe, sent) = (sent.size, sent.probe, sent.at);
                self.batch.push(Arrival { at, sent, size, probe, was_lost });
            }
        }
        self.loss.add(arrived, lost, taken_back);
        if let Some(latest) = latest {
            self.heard = Some(now);
            self.carried = self.rate.bits();
            self.latest = self.latest.max(latest);
            self.first_unheard = None;
            self.rtt += (now.since(latest).as_secs_f64() * 1e3 - self.rtt) / 8.0;
        }
        self.batch.sort_unstable_by(|a, b| a.at.total_cmp(&b.at));
        if let (Some(first), Some(arrival)) = (first, self.batch.first()) {
            self.fill(before..first, arrival.at);
        }
        for arrival in &self.batch {
            self.acked.add(arrival.at, u64::from(arrival.size));
            self.newest = self.newest.max(arrival.at);
            if arrival.probe == 0 {
                self.delay.on_packet(millis(arrival.sent), arrival.at);
                self.standing.on_packet(millis(arrival.sent), arrival.at);
            } else {
                // What a burst piles up is the burst's doing.
                self.delay.cut();
                self.prober.on_arrival(arrival);
            }
        }
        if arrived > 0 {
            self.decide(now);
        }
    }

    /// A message was lost, with its news of these packets: as if they had arrived evenly up to
    /// `end`, or the path would look slower by what it does not tell.
    fn fill(&mut self, numbers: std::ops::Range<u64>, end: f64) {
        let count = numbers.end.saturating_sub(numbers.start);
        let (begin, span) = (self.newest, end - self.newest);
        if numbers.start == 0 || count > MOST_FILLED || !(0.0..=LONGEST_FILLED).contains(&span) {
            return;
        }
        let kept = 1.0 - self.loss.latest();
        for (n, number) in numbers.enumerate() {
            if let Some(size) = self.history.assume(number) {
                let at = begin + span * (n + 1) as f64 / (count + 1) as f64;
                self.acked.add(at, (f64::from(size) * kept) as u64);
            }
        }
    }

    fn decide(&mut self, now: Mono) {
        let at = millis(now);
        // What is lost by chance took its share of the path too.
        let kept = 1.0 - self.loss.latest().min(MOST_CHANCE);
        let full = self.standing.stands();
        let full = full.and_then(|long| self.acked.over_last(self.newest, long));
        let seen = Seen {
            now: at,
            usage: self.delay.usage(),
            full,
            acked: self.acked.rate(self.newest).map(|acked| acked / kept),
            recent: self.acked.recent(self.newest).map(|acked| acked / kept),
            sent: self.sent.rate(at),
            rtt: self.rtt,
            lossy: self.loss.is_congested(),
        };
        self.rate.on_feedback(&seen);
        if let Some(factor) = self.loss.verdict(at) {
            self.rate.on_loss(at, factor, self.acked.rate(self.newest));
        }
        self.judge(now);
    }

    /// What the burst under way has found, if it is over.
    fn judge(&mut self, now: Mono) {
        let Some(found) = self.prober.verdict(now, self.latest) else { return };
        let Some(found) = found else {
            self.next_probe = Some(now.plus(PROBE_EVERY[0] / 3));
            return;
        };
        let success = found.bits >= SUCCESS * found.asked;
        // Twice below the estimate: it was never put to the test.
        let disproved = found.bits < DISPROVED * self.rate.bits();
        if disproved && let Some(before) = self.disproof.replace(found.bits) {
            let acked = self.acked.rate(self.newest).unwrap_or_default();
            self.rate.set(self.rate.bits().min(found.bits.max(before).max(acked)));
            self.disproof = None;
        } else if !disproved {
            self.disproof = None;
        }
        if self.delay.usage() != Usage::Over {
            self.rate.on_probe(millis(now), found.bits, !success);
        }
        let again = self.disproof.is_some() || success || !self.probe_failed;
        let pause = PROBE_EVERY[usize::from(!again)];
        self.probe_failed = !success;
        // What was found possible is followed up at once.
        self.next_probe = Some(if success { now } else { now.plus(pause) });
    }

    /// The player has agreed to send feedback: until there is some, the estimate is [`START`].
    pub const fn expect_feedback(&mut self) {
        self.expects = true;
    }

    /// The player's own estimate, which counts as long as it sends no transport-wide feedback.
    pub fn on_remb(&mut self, bits: u64) {
        self.remb = Some(bits);
    }

    /// What the path carries, bits per second with headers. `None`: nothing is known of it.
    #[must_use]
    pub fn estimate(&self) -> Option<u64> {
        match (self.heard, self.remb) {
            (Some(_), _) => Some(self.rate.bits() as u64),
            (None, Some(remb)) => Some(remb),
            (None, None) => self.expects.then_some(self.rate.bits() as u64),
        }
    }

    /// Whether the path has shown how much is too much for it.
    #[must_use]
    pub const fn is_proven(&self) -> bool {
        self.rate.decreased().is_some() || (self.heard.is_none() && self.remb.is_some())
    }

    /// Whether the player has sent transport-wide feedback.
    #[must_use]
    pub const fn is_heard(&self) -> bool {
        self.heard.is_some()
    }

    /// Round trip while a queue stands in the path; `None` while none does.
    #[must_use]
    pub fn queue_rtt(&self) -> Option<Duration> {
        self.standing.stands().map(|_| self.rtt())
    }

    /// Round trip with the player's delay of its feedback.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        Duration::from_secs_f64(self.rtt.clamp(0.0, 60_000.0) / 1e3)
    }

    /// Share of packets lost of late.
    #[must_use]
    pub const fn loss(&self) -> f64 {
        self.loss.latest()
    }

    /// How many bursts have been started.
    #[must_use]
    pub const fn probes(&self) -> u64 {
        self.probes
    }

    /// What would be sent if the path carried it, bits per second; bursts look for room up to that.
    /// Until told, only the first bursts are sent.
    pub fn set_wanted(&mut self, bits: u64) {
        self.wanted = Some(bits as f64);
    }

    /// Whether padding can be sent: without it the estimate grows with what is sent only.
    pub const fn set_can_probe(&mut self, can: bool) {
        self.can_probe = can;
    }

    /// Whether to send a packet of padding now. Call again after [`Self::on_sent`] of it.
    pub fn wants_padding(&mut self, now: Mono) -> bool {
        if !self.can_probe {
            return false;
        }
        if !self.prober.is_busy() && self.may_probe() {
            self.begin_probe(now);
        }
        self.prober.is_due(now)
    }

    fn begin_probe(&mut self, now: Mono) {
        if self.next_probe.is_none_or(|at| at > now) {
            return;
        }
        let calm = self.rate.decreased().is_none_or(|at| millis(now) - at >= CALM);
        let rate = self.rate.bits();
        let first = FIRST_PROBES.get(self.first_probes).map(|factor| factor * START as f64);
        let wanted = match (first, self.wanted) {
            (Some(first), _) => first,
            (None, Some(wanted)) => (1.1 * wanted).max(LEAST_PROBE).min(FURTHEST * rate),
            (None, None) => 0.0,
        };
        if first.is_some() {
            self.first_probes += 1;
        }
        // A burst into a queue that stands is lost, and says nothing.
        let busy = self.delay.usage() == Usage::Over || self.standing.stands().is_some();
        if wanted <= rate || !calm || busy {
            self.next_probe = Some(now.plus(PROBE_EVERY[0] / 3));
            return;
        }
        self.probes += 1;
        self.prober.start(now, wanted, rate, self.delay.jitter());
    }

    /// Does what time alone brings about.
    pub fn handle_timeout(&mut self, now: Mono) {
        self.judge(now);
        if let (Some(since), Some(last)) = (self.first_unheard, self.last_sent)
            && now.since(since) >= SILENCE
        {
            if last.since(since) < SILENCE / 2 || now.since(last) >= SILENCE {
                // The end of what was sent was lost, and nothing is sent any more.
                self.first_unheard = None;
            } else if self.heard.is_some() && now.since(self.silence) >= SILENCE_STEP {
                self.silence = now;
                if self.rate.bits() > SILENCE_LEAST * self.carried {
                    self.rate.on_loss(millis(now), SILENCE_FACTOR, None);
                }
            }
        }
    }

    /// Whether a burst would find anything that somebody wants.
    fn may_probe(&self) -> bool {
        let first = self.first_probes < FIRST_PROBES.len();
        self.can_probe && (first || self.wanted.is_some_and(|wanted| wanted > self.rate.bits()))
    }

    /// When [`Self::handle_timeout`] and [`Self::wants_padding`] want to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        let quiet = self.first_unheard.filter(|_| self.heard.is_some());
        let quiet = quiet.map(|since| since.plus(SILENCE).max(self.silence.plus(SILENCE_STEP)));
        let probe = self.next_probe.filter(|_| self.may_probe() && !self.prober.is_busy());
        [quiet, probe, self.prober.poll_timeout()].into_iter().flatten().min()
    }

    /// The player's clock in microseconds at a reference time of 24 bits.
    fn unwrap(&mut self, reference: u32) -> i64 {
        let (last, units) = self.reference.unwrap_or_else(|| (reference, i64::from(reference)));
        // Sign extension of 24 bits.
        let step = (reference.wrapping_sub(last) << 8) as i32 >> 8;
        let units = units.saturating_add(i64::from(step));
        self.reference = Some((reference, units));
        units.saturating_mul(64_000)
    }
}

fn millis(at: Mono) -> f64 {
    at.as_nanos() as f64 / 1e6
}
