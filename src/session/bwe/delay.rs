//! Whether a queue grows on the way: packets in groups, a line through how their delay changes,
//! and a threshold that adapts to what is usual (draft-ietf-rmcat-gcc-02 section 5, with the
//! trendline filter and the numbers of libwebrtc).

/// Packets sent within this form a group, ms.
const GROUP: f64 = 5.0;
/// Packets that arrive so close behind a group and were held up together join it, ms.
const BURST: f64 = 5.0;
const LONGEST_BURST: f64 = 100.0;
/// Groups under the line.
const WINDOW: usize = 20;
const SMOOTHING: f64 = 0.9;
const GAIN: f64 = 4.0;
const MOST_DELTAS: u32 = 60;
/// The threshold's start, bounds and rates of adaptation.
const THRESHOLD: f64 = 12.5;
const THRESHOLDS: std::ops::RangeInclusive<f64> = 6.0..=600.0;
const RISE: f64 = 0.0087;
const FALL: f64 = 0.039;
/// Beyond this much over the threshold it does not adapt: a sudden drop of the link.
const OUTLIER: f64 = 15.0;
/// Above the threshold for so long, ms, and more than once, is overuse.
const OVERUSE: f64 = 10.0;
/// Groups further apart than this have nothing to say about each other, ms.
const GAP: f64 = 3_000.0;

/// What the delays say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Usage {
    #[default]
    Normal,
    /// A queue grows.
    Over,
    /// A queue shrinks.
    Under,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: f64,
    last_sent: f64,
    first_arrival: f64,
    last_arrival: f64,
}

/// Detector of growing queues; times in ms.
#[derive(Debug)]
pub(super) struct Delay {
    current: Option<Group>,
    before: Option<Group>,
    deltas: u32,
    accumulated: f64,
    smoothed: f64,
    line: [(f64, f64); WINDOW],
    held: usize,
    first_arrival: f64,
    threshold: f64,
    updated: Option<f64>,
    over_for: Option<f64>,
    overs: u32,
    last_trend: f64,
    usage: Usage,
    jitter: f64,
}

impl Delay {
    pub(super) const fn new() -> Self {
        Self {
            current: None,
            before: None,
            deltas: 0,
            accumulated: 0.0,
            smoothed: 0.0,
            line: [(0.0, 0.0); WINDOW],
            held: 0,
            first_arrival: 0.0,
            threshold: THRESHOLD,
            updated: None,
            over_for: None,
            overs: 0,
            last_trend: 0.0,
            usage: Usage::Normal,
            jitter: 0.0,
        }
    }

    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    /// How much the delay of one group usually differs from that of the next, ms.
    pub(super) const fn jitter(&self) -> f64 {
        self.jitter
    }

    /// Forgets the open groups: what comes next is not measured against them.
    pub(super) const fn cut(&mut self) {
        self.current = None;
        self.before = None;
    }

    /// A packet arrived; in order of arrival.
    pub(super) fn on_packet(&mut self, sent: f64, arrival: f64) {
        let fresh = Group {
            first_sent: sent,
            last_sent: sent,
            first_arrival: arrival,
            last_arrival: arrival,
        };
        let Some(group) = &mut self.current else {
            self.current = Some(fresh);
            return;
        };
        if sent < group.first_sent {
            return;
        }
        let waited = arrival - group.last_arrival;
        let burst = waited <= BURST
            && waited < sent - group.last_sent
            && arrival - group.first_arrival < LONGEST_BURST;
        if sent - group.first_sent <= GROUP || burst {
            group.last_sent = group.last_sent.max(sent);
            group.last_arrival = group.last_arrival.max(arrival);
            return;
        }
        let done = *group;
        self.current = Some(fresh);
        if let Some(before) = self.before.replace(done) {
            let sent = done.last_sent - before.last_sent;
            let arrived = done.last_arrival - before.last_arrival;
            if (0.0..GAP).contains(&arrived) && sent < GAP {
                self.on_group(arrived - sent, sent, done.last_arrival);
            }
        }
    }

    fn on_group(&mut self, delta: f64, sent: f64, arrival: f64) {
        if self.deltas == 0 {
            self.first_arrival = arrival;
        }
        self.deltas = (self.deltas + 1).min(1_000);
        self.jitter += (delta.abs().min(200.0) - self.jitter) / 16.0;
        self.accumulated += delta;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        if self.held == WINDOW {
            self.line.rotate_left(1);
            self.held -= 1;
        }
        if let Some(place) = self.line.get_mut(self.held) {
            *place = (arrival - self.first_arrival, self.smoothed);
        }
        self.held += 1;
        let trend = if self.held == WINDOW { slope(&self.line) } else { self.last_trend };
        self.detect(trend, sent, arrival);
    }

    fn detect(&mut self, trend: f64, sent: f64, now: f64) {
        if self.deltas < 2 {
            return;
        }
        let scaled = f64::from(self.deltas.min(MOST_DELTAS)) * trend * GAIN;
        if scaled > self.threshold {
            let over_for = self.over_for.map_or(sent / 2.0, |over| over + sent);
            self.over_for = Some(over_for);
            self.overs += 1;
            if over_for > OVERUSE && self.overs > 1 && trend >= self.last_trend {
                self.over_for = Some(0.0);
                self.overs = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_for = None;
            self.overs = 0;
            let under = scaled < -self.threshold;
            self.usage = if under { Usage::Under } else { Usage::Normal };
        }
        self.last_trend = trend;
        self.adapt(scaled.abs(), now);
    }

    fn adapt(&mut self, scaled: f64, now: f64) {
        let elapsed = (now - self.updated.unwrap_or(now)).clamp(0.0, 100.0);
        self.updated = Some(now);
        if scaled > self.threshold + OUTLIER {
            return;
        }
        let rate = if scaled < self.threshold { FALL } else { RISE };
        self.threshold += rate * (scaled - self.threshold) * elapsed;
        self.threshold = self.threshold.clamp(*THRESHOLDS.start(), *THRESHOLDS.end());
    }
}

/// Least squares; zero where all points stand above each other.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let (mut above, mut below) = (0.0, 0.0);
    for point in points {
        above += (point.0 - x) * (point.1 - y);
        below += (point.0 - x) * (point.0 - x);
    }
    if below > 0.0 { above / below } else { 0.0 }
}
